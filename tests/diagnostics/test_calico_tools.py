"""`birdc` and `calicoctl` on a node: as BIRD 1.6 and calicoctl word it (bgp/test_recorded.py has BIRD's own texts)."""

from __future__ import annotations

import pytest

from diagnostics import shell
from kubenet_lab import Cluster, scenarios


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return scenarios.shop(cni="calico")


def run(cluster: Cluster, command: str, where: str = "node-1") -> tuple[str, int]:
    done = shell.run(cluster.network, where, command)
    return done.text, done.exit_code


def test_protocols(cluster: Cluster) -> None:
    text, code = run(cluster, "birdc show protocols")
    assert code == 0
    assert text.splitlines()[0] == "BIRD 1.6.8 ready."
    assert [line.split()[0] for line in text.splitlines()[2:]] == [
        "static1", "kernel1", "device1", "direct1", "Mesh_192_168_1_20", "Mesh_192_168_1_30",
    ]  # fmt: skip
    assert run(cluster, "birdcl sh pr")[0] == text, "words may be short"
    rows = shell.run(cluster.network, "node-1", "birdc show protocols").rows
    assert rows[4]["name"] == "Mesh_192_168_1_20"
    assert rows[4]["info"] == "Established"
    one, _ = run(cluster, "birdc show protocols all Mesh_192_168_1_20")
    assert "  BGP state:          Established\n    Neighbor address: 192.168.1.20\n" in one
    assert "192.168.1.30" not in one
    some, _ = run(cluster, "birdc show protocols '\"Mesh*\"' | grep -c Mesh")
    assert some == "2\n"


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("10.244.125.128/26", {"10.244.125.128/26"}),
        ("for 10.244.125.130", {"10.244.125.128/26"}),
        ("protocol Mesh_192_168_1_30", {"10.244.155.0/26"}),
        ("protocol static1", {"10.244.146.128/26"}),
        ("export Mesh_192_168_1_20", {"10.244.146.128/26"}),
        ("export kernel1", {"10.244.125.128/26", "10.244.146.128/26", "10.244.155.0/26"}),
        ("primary protocol direct1", {"192.168.1.0/24"}),
    ],
)
def test_routes(cluster: Cluster, asked: str, wanted: set[str]) -> None:
    text, code = run(cluster, f"birdc show route {asked}")
    assert code == 0
    assert {line.split()[0] for line in text.splitlines()[1:]} == wanted


def test_counts_and_all(cluster: Cluster) -> None:
    every, _ = run(cluster, "birdc show route")
    number = len(every.splitlines()) - 1
    assert run(cluster, "birdc show route count")[0].endswith(
        f"\n{number} of {number} routes for {number} networks\n"
    )
    assert "\tBGP.next_hop: 192.168.1.20\n" in run(cluster, "birdc show route 10.244.125.128/26 all")[0]
    rest, _ = run(cluster, "birdc show route noexport Mesh_192_168_1_20")
    assert len(rest.splitlines()) == number


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("birdc show route 10.1.0.0/16", 1, "Network not in table"),
        ("birdc show protocols Mesh_1", 1, "Mesh_1 is not a protocol"),
        ("birdc show route protocol nobody", 1, "nobody is not a protocol"),
        ("birdc show route 10.1.0.0/99", 1, "Invalid prefix length 99"),
        ("birdc show route nonsense", 1, "syntax error"),
        ("birdc show", 1, "No such command. Press `?' for help."),
        ("birdc shaw", 1, "No such command. Press `?' for help."),
        ("birdc show route where net ~ 10.0.0.0/8", 64, "not modelled: show route where"),
        ("birdc configure", 64, "not modelled: configure"),
        ("birdc", 64, "not modelled"),
        ("birdc -s /tmp/x show status", 1, "control socket (/tmp/x): No such file or directory"),
        ("birdc show status", 64, "not modelled: show status"),
        ("calicoctl get nodes", 64, "not modelled: get nodes"),
        ("calicoctl ipam release", 64, "not modelled: ipam release without --ip"),
        ("calicoctl ipam show --ip=nonsense", 1, "invalid IP address: nonsense"),
    ],
)  # fmt: skip
def test_what_is_refused(cluster: Cluster, command: str, code: int, says: str) -> None:
    text, found = run(cluster, command)
    assert says in text
    assert found == code


def test_where_no_bird_runs(cluster: Cluster) -> None:
    for where in ("default/frontend", "router"):
        text, code = run(cluster, "birdc show protocols", where)
        assert (text.startswith("Unable to connect to server control socket"), code) == (True, 1)
    vxlan = scenarios.shop(cni="calico-vxlan")
    assert "(BIRD) is not running" in run(vxlan, "calicoctl node status")[0]
    assert run(scenarios.shop(), "calicoctl node status")[0] == "Calico process is not running.\n"


def test_a_killed_bird_leaves_its_socket_to_the_next(cluster: Cluster) -> None:
    world = scenarios.shop(cni="calico")
    bird = world.pod_network.bird("node-1")  # type: ignore[attr-defined]
    bird.kill()
    assert run(world, "birdc show protocols")[1] == 1
    bird.start()
    assert run(world, "birdc show protocols")[1] == 0


def test_the_tools_of_the_lost_session(cluster: Cluster) -> None:
    """The commands that the fault names show it."""
    world = scenarios.shop(cni="calico")
    healthy, _ = run(world, "calicoctl node status")
    assert healthy.count("Established") == 2
    with world.fault("bgp-session-lost"):
        world.advance(600)
        assert "Established" not in run(world, "calicoctl node status")[0]
        text, _ = run(world, "birdc show protocols | grep BGP")
        assert "Established" not in text
        assert "start" in text
        assert "Last error:       " in run(world, "birdc show protocols all Mesh_192_168_1_20")[0]
        assert run(world, "birdc show route protocol Mesh_192_168_1_20")[0] == "BIRD 1.6.8 ready.\n"


def test_the_tools_of_used_up_addresses(cluster: Cluster) -> None:
    world = scenarios.shop(cni="calico")
    assert "Check complete; found 0 problems." in run(world, "calicoctl ipam check")[0]
    assert "Found 7 workload IPs." in run(world, "calicoctl ipam check")[0]
    pod = world.pod("frontend").ips[0]
    text, _ = run(world, f"calicoctl ipam show --ip={pod}")
    assert text == f"IP {pod} is in use\nAttributes:\n  namespace: default\n  node: node-1\n  pod: frontend\n"
    with world.fault("ipam-exhausted"):
        shown, _ = run(world, "calicoctl ipam show")
        assert "| IP Pool  | 10.244.0.0/16 | 65536     | 65536 (100%) | 0 (0%)   |" in shown
        checked, _ = run(world, "calicoctl ipam check")
        assert "Found 65529 IPs that are allocated in IPAM but not actually in use." in checked
        assert "Found 1 handles mentioned in blocks with no matching handle resource." in checked
        free = "10.244.200.7"
        assert (
            run(world, f"calicoctl ipam release --ip={free}")[0]
            == f"Successfully released IP address {free}\n"
        )
        assert run(world, f"calicoctl ipam show --ip={free}")[0] == f"{free} is not assigned\n"
        assert run(world, f"calicoctl ipam release --ip {free}")[0] == f"IP address {free} is not assigned\n"
