"""The shell, the notebook's magics, and what every tool has in common."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import diagnostics
from diagnostics import shell
from diagnostics.magics import Session
from kubenet_lab import scenarios
from kubenet_lab.errors import NotFound
from kubenet_lab.kernel.network import Network
from kubenet_lab.walk.engine import Walk


@pytest.fixture(scope="module")
def shop() -> Any:
    return scenarios.shop()


def host() -> Network:
    network = Network()
    network.add_netns("host")
    return network


@pytest.mark.parametrize(
    ("line", "text", "code"),
    [
        ("echo 'a  b' \"c | d\"", "a  b c | d\n", 0),
        ("ip -br addr | grep -c lo", "1\n", 0),
        ("ip addr | grep inet6 | wc -l", "1\n", 0),
        ("ip addr | grep -E 'inet |inet6 ' | head -1 | grep -o '127[^ ]*'", "127.0.0.1/8\n", 0),
        ("false && echo no || echo yes", "yes\n", 0),
        ("true; false", "", 1),
        ("ip link show nosuch 2>/dev/null", "", 1),
        ("ip link show nosuch 2>&1 | grep -v xyz", 'Device "nosuch" does not exist.\n', 0),
        ("nosuch -x", "sh: nosuch: not found\n", 127),
        ("traceroute 10.0.0.1", "traceroute: not modelled\n", 64),
        ("ping -f 10.0.0.1", "ping: not modelled: option -f\n", 64),
        ("echo 'open", "sh: syntax error: No closing quotation\n", 2),
        ("| grep x", "sh: syntax error: a command is missing before '|'\n", 2),
        ("sleep 90 & echo x", "sh: not modelled: sleep in the background\nx\n", 0),
        ("# a comment", "", 0),
        ("printf 'b\\n' | sort", "sh: printf: not found\n", 0),
    ],
)
def test_a_command_line(line: str, text: str, code: int) -> None:
    done = shell.run(host(), "host", line)
    assert (done.text, done.exit_code) == (text, code)


def test_time_passes_in_sleep() -> None:
    network = host()
    walk = Walk(network)
    shell.run(network, "host", "sleep 90; sleep 1m", walk=walk)
    assert walk.now == 150.0


def test_a_namespace_that_is_not_there() -> None:
    with pytest.raises(NotFound):
        shell.run(host(), "elsewhere", "ip addr")


def test_a_capture_sees_what_runs_beside_it(shop: Any) -> None:
    line = "tcpdump -nn -i eth0 port 53 &\ndig +short backend +search\nwait\necho done"
    done = shell.run(shop.network, "default/frontend", line)
    shown = done.text.splitlines()
    assert shown[0] == "10.96.0.100"
    assert sum(" A? backend.default.svc.cluster.local. " in line for line in shown) == 1
    assert "2 packets captured" in shown
    assert shown[-1] == "done"


def test_the_magics_find_the_notebooks_cluster(shop: Any) -> None:
    session = Session({"shop": shop, "number": 1})
    pods = session.kubectl("get pods -n default")
    assert "frontend" in pods.out
    assert re.search(r"^frontend +1/1 +Running", pods.out, re.M)
    answer = session.netshoot("frontend curl -s http://backend")
    assert re.fullmatch(r"backend-\S+: hello, 10\.244\.0\.2\n", answer.text)
    cell = session.netshoot("node/node-1", "conntrack -C\nip route | grep default")
    assert cell.text.splitlines()[-1].startswith("default via 192.168.1.1")
    assert session.netshoot("frontend tcpdump -nn -i eth0 tcp").out.count("\n") >= 3


def test_the_magics_say_what_is_missing(shop: Any) -> None:
    with pytest.raises(ValueError, match="no cluster in this notebook"):
        Session({}).kubectl("get pods")
    with pytest.raises(ValueError, match="several clusters here"):
        Session({"a": shop, "b": scenarios.shop()}).kubectl("get pods")


def test_the_readme_names_every_tool() -> None:
    text = (Path(diagnostics.__file__).parent / "README.md").read_text(encoding="utf-8")
    for tool in diagnostics.TOOLS:
        base = tool.name.removesuffix("-save").removesuffix("-restore")
        assert f"`{base}`" in text, tool.name
        assert tool.summary


def test_the_readmes_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(diagnostics.__file__).parent / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    exec(code, {})
    assert capsys.readouterr().out.strip() == "10.96.0.100"


def test_a_tunnel_of_wireguard_seen_from_inside_and_outside() -> None:
    """Inside are packets without a link layer; outside are datagrams that say nothing but their length."""
    world = scenarios.shop(cni="flannel-wireguard")

    def seen(link: str) -> list[str]:
        command = f"tcpdump -nn -t -e -i {link} udp port 51820 or icmp & ping -c 1 10.244.1.2"
        return shell.run(world.network, "node-1", command, walk=world.walk()).text.splitlines()

    inside = seen("flannel-wg")
    assert "listening on flannel-wg, link-type RAW (Raw IP), snapshot length 262144 bytes" in inside
    assert [line for line in inside if line.startswith("ip: ")] == [
        "ip: 10.244.0.0 > 10.244.1.2: ICMP echo request, id 32768, seq 1, length 64",
        "ip: 10.244.1.2 > 10.244.0.0: ICMP echo reply, id 32768, seq 1, length 64",
    ]
    outside = [line.partition("length ")[2] for line in seen("eth0") if "51820" in line]
    assert outside == [
        "170: 192.168.1.10.51820 > 192.168.1.20.51820: UDP, length 128",
        "170: 192.168.1.20.51820 > 192.168.1.10.51820: UDP, length 128",
    ]
