"""A twin comes up, answers commands as pods would, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kubenet_lab.errors import NotFound
from kubenet_lab.kernel.network import Network
from kubenet_lab.twin import Twin, TwinError
from tests.flows.worlds import SERVICE, two_nodes


def test_everything_is_made(twin: Twin) -> None:
    assert twin.missing == []


def test_a_command_in_a_pod_gets_the_real_answer(twin: Twin) -> None:
    """curl through the Service: DNAT, maybe the tunnel, a server in another pod, and back."""
    done = twin.run("frontend", f"curl -s --max-time 5 http://{SERVICE}/")
    assert done.exit_code == 0
    assert done.stdout in ("backend-1: hello, 10.244.0.2\n", "backend-2: hello, 10.244.0.2\n")


def test_a_command_sees_its_namespace_and_its_files(twin: Twin) -> None:
    done = twin.run("frontend", "hostname -I; cat /etc/resolv.conf; tail -1 /etc/hosts; ls /sys/class/net")
    assert done.stdout.splitlines()[0].split()[0] == "10.244.0.2"
    assert "search default.svc.cluster.local" in done.stdout
    assert "10.244.0.2\tfrontend" in done.stdout
    assert done.stdout.split()[-2:] == ["eth0", "lo"]


def test_other_namespaces_keep_their_files(twin: Twin) -> None:
    outside = Path("/etc/resolv.conf").read_text() if Path("/etc/resolv.conf").exists() else ""
    twin.run("frontend", "true")
    assert "svc.cluster.local" not in twin.run("node-1", "cat /etc/resolv.conf").stdout
    assert (Path("/etc/resolv.conf").read_text() if Path("/etc/resolv.conf").exists() else "") == outside


def test_exit_code_standard_error_and_input(twin: Twin) -> None:
    done = twin.run("node-1", "cat; echo no >&2; exit 3", stdin="in")
    assert (done.stdout, done.stderr, done.exit_code) == ("in", "no\n", 3)


def test_a_command_that_takes_too_long_is_stopped(twin: Twin) -> None:
    began = time.monotonic()
    done = twin.run("node-1", "echo begun; sleep 60", timeout=0.3)
    assert (done.stdout, done.exit_code) == ("begun\n", 124)
    assert time.monotonic() - began < 5


def test_an_unknown_name_is_named(twin: Twin) -> None:
    with pytest.raises(NotFound, match="nobody"):
        twin.run("nobody", "true")


def test_names_resolve_as_in_a_pod(kernel: None) -> None:
    """glibc, the pod's own resolv.conf, kube-proxy's rules and our CoreDNS, which answers from the model's state."""
    from tests.flows.worlds import shop

    with Twin(shop()) as made:
        done = made.run("frontend", "curl -s --max-time 5 http://backend; getent hosts database.default")
        assert done.stdout.startswith("backend-")
        assert "10.96.0.200" in done.stdout
        assert made.run("frontend", "getent hosts nobody.default").exit_code == 2


def test_a_shell_from_outside_joins_the_namespace(twin: Twin) -> None:
    done = subprocess.run(
        twin.argv("frontend", ["hostname", "-I"]), capture_output=True, text=True, check=False
    )
    assert done.stdout.split()[0] == "10.244.0.2", done.stderr


def test_tunnel_packets_are_tracked_by_the_nodes(twin: Twin) -> None:
    """The outer packet of a call across nodes is a UDP flow of both nodes, in the kernel as in the model."""
    from kubenet_lab.packet.packet import SYN, TCP, Packet
    from kubenet_lab.walk.engine import Walk
    from kubenet_lab.walk.exchange import exchange

    def outer(flows: object) -> set[tuple[str, str, int]]:
        return {(f.orig[1], f.orig[2], f.orig[4]) for f in flows if f.orig[0] == 17}  # type: ignore[attr-defined]

    network = two_nodes()
    assert exchange(Walk(network), "default/frontend", Packet("", "10.244.1.2", TCP, 0, 8080, flags=SYN)).ok
    twin.exec([(node, ["conntrack", "-F"], "") for node in ("node-1", "node-2")])
    assert twin.run("frontend", "curl -s --max-time 5 http://10.244.1.2:8080/").exit_code == 0
    for node in ("node-1", "node-2"):
        expected = {("192.168.1.10", "192.168.1.20", 8472), ("192.168.1.20", "192.168.1.10", 8472)}
        assert outer(network.ns(node).conntrack) == outer(twin.read(node).conntrack) == expected


def test_the_shop_is_ready(kernel: None) -> None:
    """Three nodes and eight pods with everything they have; the time is printed, as benchmarks are."""
    from tests.flows.worlds import shop

    network = shop()
    began = time.monotonic()
    with Twin(network) as made:
        print(f"the shop's twin is ready in {time.monotonic() - began:.2f} s")
        assert made.missing == []


def test_rules_read_back_as_they_were_written(twin: Twin) -> None:
    from kubenet_lab.kernel.dialects.iptables import load

    saved = twin.run("node-1", "iptables-save").stdout
    assert load(saved, 4) == twin.network.ns("node-1").iptables[4]


def test_nothing_survives_the_end(kernel: None) -> None:
    with Twin(two_nodes()) as made:
        made.run("frontend", "nohup sleep 4242 >/dev/null 2>&1 &")
        pids: list[int] = []
        until = time.monotonic() + 10
        while not pids and time.monotonic() < until:  # the shell answers before its child has become `sleep`
            pids = [int(p) for p in os.listdir("/proc") if p.isdigit() and _command(p) == "sleep\x004242\x00"]
        assert pids
        agent = made.pid
        assert Path(f"/proc/{agent}").exists()
    assert not Path(f"/proc/{agent}").exists()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises(TwinError, match="ended"):
        made.run("frontend", "true")


def test_it_dies_with_its_parent(kernel: None) -> None:
    """A killed notebook kernel leaves no namespaces: the agent sees its standard input close."""
    script = (
        "import os, sys; from tests.flows.worlds import two_nodes; from kubenet_lab.twin import Twin;"
        "t = Twin(two_nodes()); print(t.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    pid = int(done.stdout)
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.02)
    pytest.fail(f"the twin's process {pid} outlived its parent")


def test_what_cannot_be_made_is_named(kernel: None) -> None:
    """A bad rule or a link kind the kernel lacks is an error by default, and a list on demand."""
    network = Network()
    network.add_netns("a").add_link("odd0", "nonesuch", mac="0a:00:00:00:00:01")
    with pytest.raises(TwinError, match="odd0 of kind nonesuch"):
        Twin(network)
    with Twin(network, strict=False) as made:
        assert [str(item) for item in made.missing] == [
            "a: link odd0 of kind nonesuch: the twin cannot make this kind yet"
        ]


def _command(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
