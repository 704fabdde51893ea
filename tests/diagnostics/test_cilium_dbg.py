"""`cilium-dbg` on a node; the forms are those of its command reference, for no transcript could be recorded."""

from __future__ import annotations

from functools import cache

from diagnostics import shell
from kubenet_lab.cluster import Cluster
from kubenet_lab.kernel.network import Network
from kubenet_lab.scenarios.shop import MANIFEST


@cache
def network() -> Network:
    cluster = Cluster.from_files(MANIFEST, cni="cilium", proxy="ebpf")
    assert cluster.connect("frontend", "http://backend").delivered
    return cluster.network


def run(command: str, node: str = "node-1") -> tuple[str, int]:
    done = shell.run(network(), node, command)
    return done.text, done.exit_code


def test_lists() -> None:
    text, code = run("cilium-dbg service list | grep 10.96.0.200")
    assert code == 0
    assert text.split() == [
        "5",
        "10.96.0.200:5432/TCP",
        "ClusterIP",
        "1",
        "=>",
        "10.244.2.2:5432/TCP",
        "(active)",
    ]
    text, _ = run("cilium-dbg bpf lb list")
    assert text.startswith("SERVICE ADDRESS")
    assert "10.96.0.100:80/TCP (0)" in text
    assert "[ClusterIP, non-routable]" in text
    assert "TCP OUT 10.244.0.2:" in run("cilium-dbg bpf ct list global")[0]
    assert run("cilium-dbg bpf nat list") == ("", 0)
    assert "identity=6" in run("cilium-dbg bpf ipcache list")[0]
    assert "(localhost)" in run("cilium-dbg bpf endpoint list")[0]
    assert "reserved:kube-apiserver" in run("cilium-dbg identity list")[0]
    assert run("cilium-dbg bpf lb source-ranges list") == ("", 0)


def test_policies() -> None:
    every, code = run("cilium-dbg bpf policy get --all")
    assert code == 0
    assert every.count("Endpoint ID:") == every.count("POLICY") >= 2
    one, _ = run("cilium-dbg bpf policy get 1")
    assert one in every
    assert run("cilium-dbg bpf policy get 999") == (
        "Error: Failed to open map: endpoint 999 has no policy map here\n",
        1,
    )
    assert run("cilium-dbg bpf policy get") == ("Error: Missing endpoint id argument\n", 1)


def test_where_no_agent_runs() -> None:
    text, code = run("cilium-dbg service list", "outside")
    assert code == 1
    assert text.endswith("Is the agent running?\n")


def test_what_is_not_modelled_is_named() -> None:
    text, code = run("cilium-dbg monitor")
    assert code == 64
    assert "not modelled: cilium-dbg monitor" in text
