"""`kubenet-lab cni`: the protocol from the shell; the model host lasts from call to call."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kubenet_lab.cli import app, main
from kubenet_lab.cni.plugin import VERSIONS
from kubenet_lab.kernel import dump

BRIDGE = {
    "type": "bridge",
    "isGateway": True,
    "ipMasq": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.22.0.0/30"}]]},
}
PORTS = '{"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}'


SUPPORTED = " ".join(f'"{version}"' for version in VERSIONS)


class Shell:
    """`kubenet-lab cni` in a folder with a conflist and a state."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.conflist, self.state = folder / "net.conflist", folder / "state"
        self.write(**more)

    def write(self, **more: Any) -> None:
        plugins = [BRIDGE, {"type": "portmap", "capabilities": {"portMappings": True}}]
        text = json.dumps({"cniVersion": "1.1.0", "name": "net1", "plugins": plugins, **more})
        self.conflist.write_text(text, encoding="utf-8")

    def __call__(self, *words: str) -> tuple[int, Any]:
        line = ["cni", *words, "--conflist", str(self.conflist), "--state", str(self.state)]
        done = CliRunner().invoke(app, line)
        return done.exit_code, json.loads(done.stdout) if done.stdout.strip() else None

    def links(self, netns: str) -> list[str]:
        document = json.loads((self.state / "network.json").read_text(encoding="utf-8"))
        return list(dump.load(document).ns(netns).links)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_a_container_comes_is_checked_and_goes(shell: Shell) -> None:
    status, result = shell("add", "--container", "c1", "--capability-args", PORTS)
    assert status == 0
    assert result["ips"] == [{"address": "10.22.0.2/30", "gateway": "10.22.0.1", "interface": 2}]
    assert list(result) == sorted(result)
    assert shell.links("c1") == ["lo", "eth0"]
    assert shell("check", "--container", "c1") == (0, None)
    assert shell("status") == (0, None)
    assert shell("del", "--container", "c1") == (0, None)
    assert shell("del", "--container", "c1") == (0, None)
    assert shell.links("c1") == ["lo"]
    assert shell.links("node-1") == ["lo", "eth0", "cni0"]
    assert shell("check", "--container", "c1") == (
        1,
        {"code": 999, "msg": "host-local: Failed to find address added by container c1"},
    )


def test_what_a_failed_add_leaves_is_there_until_del(shell: Shell) -> None:
    assert shell("add", "--container", "c1")[0] == 0
    status, error = shell("add", "--container", "c2", "--netns", "two", "--ifname", "net0")
    said = "failed to allocate for range 0: no IP addresses available in range set: 10.22.0.1-10.22.0.2"
    assert (status, error) == (1, {"code": 999, "msg": said})
    assert shell.links("two") == ["lo", "net0"]
    assert shell("del", "--container", "c2", "--netns", "two", "--ifname", "net0") == (0, None)
    assert shell.links("two") == ["lo"]


def test_gc_keeps_the_containers_it_is_told(shell: Shell) -> None:
    shell.write(plugins=[{**BRIDGE, "ipam": {"type": "host-local", "subnet": "10.22.0.0/24"}}])
    for name in ("c1", "c2", "c3"):
        assert shell("add", "--container", name)[0] == 0
    assert shell("gc", "--container", "c2") == (0, None)
    assert [shell.links(name) for name in ("c1", "c2", "c3")] == [["lo"], ["lo", "eth0"], ["lo"]]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"plugins": []}, {"code": 7, "msg": "error parsing configuration list: no plugins in list"}),
        (
            {"plugins": [{"type": "nosuch"}]},
            {"code": 999, "msg": 'failed to find plugin "nosuch" in path [/opt/cni/bin]'},
        ),
        (
            {"cniVersion": "9.0.0"},
            {
                "code": 1,
                "msg": "incompatible CNI versions",
                "details": f'config is "9.0.0", plugin supports [{SUPPORTED}]',
            },
        ),
        ({"name": "a/b"}, {"code": 7, "msg": "invalid characters found in network name", "details": "a/b"}),
    ],
)
def test_bad_lists(shell: Shell, more: dict[str, Any], error: dict[str, Any]) -> None:
    shell.write(**more)
    if error["code"] == 999:
        error = {**error, "msg": error["msg"]}
    status, said = shell("add", "--container", "c1")
    assert status == 1
    assert {k: v for k, v in said.items() if k in error} == {**error, "msg": said["msg"]}
    assert error["msg"] in said["msg"]


def test_version_prints_what_each_plugin_speaks(tmp_path: Path) -> None:
    shell = Shell(tmp_path, plugins=[{"type": "firewall"}])
    assert shell("version") == (
        0,
        {"cniVersion": "1.1.0", "supportedVersions": ["0.4.0", "1.0.0", "1.1.0"]},
    )


def test_a_file_is_put_on_the_host_first(tmp_path: Path) -> None:
    shell = Shell(
        tmp_path, plugins=[{"type": "flannel", "delegate": {"isDefaultGateway": True}}], cniVersion="1.0.0"
    )
    status, error = shell("add", "--container", "c1")
    assert (status, error["msg"][:40]) == (1, "failed to load flannel 'subnet.env' file")
    env = tmp_path / "subnet.env"
    env.write_text(
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
        encoding="utf-8",
    )
    status, result = shell("add", "--container", "c1", "--put", f"/run/flannel/subnet.env={env}")
    assert (status, result["ips"][0]["address"]) == (0, "10.244.7.2/24")


@pytest.mark.parametrize("words", [["add"], ["add", "--container", "a", "--container", "b"]])
def test_a_container_has_to_be_named(shell: Shell, words: list[str]) -> None:
    done = CliRunner().invoke(app, ["cni", *words, "--conflist", str(shell.conflist)])
    assert done.exit_code != 0
    assert not done.stdout


@pytest.mark.parametrize(("words", "said"), [
    (["--netns", "node-1"], "error: --netns: 'node-1' is a machine of the model host"),
    (["--state", "{folder}/net.conflist"], "net.conflist: cannot be kept there: "),
    (["--put", "/x"], "error: --put: '/x' is no PATH=FILE"),
    (["--capability-args", "{{"], "error: --capability-args: no JSON"),
    (["--capability-args", "[]"], "error: --capability-args: a JSON object was expected"),
])  # fmt: skip
def test_what_cannot_be_done_is_said_in_a_line(
    words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shell = Shell(tmp_path)
    given = [word.format(folder=tmp_path) for word in words]
    with pytest.raises(SystemExit) as ended:
        main(["cni", "add", "--container", "c1", "--conflist", str(shell.conflist), *given])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("action", ["add", "check", "gc", "status", "del"])
@pytest.mark.parametrize(
    "text",
    ["{", "", "[]", "null", "3", '{"name":"a","plugins":[{"type":"bridge","mtu":"x"}],"cniVersion":"1.1.0"}'],
)
def test_no_text_of_a_list_makes_a_command_crash(action: str, text: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.conflist.write_text(text, encoding="utf-8")
    words = ["--container", "c1"] if action != "status" else []
    status, said = shell(action, *words)
    decoded = "mtu" in text and action == "gc"  # GC of these plugins reads nothing
    assert status == (0 if decoded else 1)
    assert decoded or said["code"] == (999 if "mtu" in text else 7 if text == "null" else 6)
