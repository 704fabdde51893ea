"""Each fault of a pod network is seen with the tool that its docstring names, and gone with it."""

from __future__ import annotations

import pytest

from diagnostics.shell import History, run
from kubenet_lab import Cluster, scenarios

LATE = """
apiVersion: v1
kind: Pod
metadata: {name: late, namespace: default}
spec: {nodeName: node-2, containers: [{name: c, image: x}]}
"""


def said(cluster: Cluster, where: str, line: str) -> str:
    """What a command says on a node or in a pod."""
    pods = {p.name.rsplit("-", 2)[0]: f"default/{p.name}" for p in cluster.store.list("Pod", "default")}
    return run(cluster.network, pods.get(where, where), line, now=cluster.now).text


def far(cluster: Cluster) -> str:
    """A backend's address on node-2."""
    return next(
        p.ips[0]
        for p in cluster.store.list("Pod", "default")
        if p.spec.node_name == "node-2" and p.name.startswith("backend")
    )


def test_mtu_black_hole() -> None:
    cluster = scenarios.shop()
    pod = far(cluster)
    big, small = f"ping -c 1 -M do -s 1400 {pod}", f"ping -c 1 -M do -s 1200 {pod}"
    with cluster.fault("mtu-black-hole"):
        assert "0 received" in said(cluster, "frontend", big)
        assert "1 received" in said(cluster, "frontend", small)
        assert "mtu 1500" in said(cluster, "node-1", "ip link show eth0")
        sent: History = []
        run(cluster.network, f"default/{cluster.pod('frontend').name}", big, history=sent)
        seen = [
            run(cluster.network, node, "tcpdump -n -i eth0 udp port 8472", history=sent).out
            for node in ("node-1", "node-2")
        ]
        assert ["overlay" in text for text in seen] == [True, False], seen
    assert "1 received" in said(cluster, "frontend", big)


def test_stale_neighbour() -> None:
    cluster = scenarios.shop()
    there = said(cluster, "node-2", "ip link show flannel.1").split("link/ether ")[1].split()[0]
    assert there in said(cluster, "node-1", "ip neigh show dev flannel.1")
    with cluster.fault("neighbour-stale"):
        shown = said(cluster, "node-1", "ip neigh show dev flannel.1")
        assert there not in shown
        assert shown.count("PERMANENT") == 2
        assert "100% packet loss" in said(cluster, "frontend", f"ping -c 1 {far(cluster)}")
        assert "1 received" in said(cluster, "node-1", "ping -c 1 192.168.1.20")
    assert there in said(cluster, "node-1", "ip neigh show dev flannel.1")


def test_missing_fdb_entry() -> None:
    cluster = scenarios.shop()
    show = "bridge fdb show dev flannel.1"
    assert "dst 192.168.1.20" in said(cluster, "node-1", show)
    with cluster.fault("fdb-entry-missing"):
        assert "dst 192.168.1.20" not in said(cluster, "node-1", show)
        assert "dst 192.168.1.30" in said(cluster, "node-1", show)


def test_reverse_path() -> None:
    cluster = scenarios.shop()
    with cluster.fault("rp-filter-asymmetry"):
        assert "dev eth0" in said(cluster, "node-1", f"ip route get {far(cluster)}")
        assert said(cluster, "node-2", "sysctl -n net.ipv4.conf.eth0.rp_filter").strip() == "1"
        own = cluster.pod("frontend").ips[0]
        assert "dev flannel.1" in said(cluster, "node-2", f"ip route get {own}")
    assert "dev flannel.1" in said(cluster, "node-1", f"ip route get {far(cluster)}")


def test_bgp_session_lost() -> None:
    cluster = scenarios.shop(cni="calico")
    assert said(cluster, "node-2", "birdc show protocols").count("Established") == 2
    with cluster.fault("bgp-session-lost"):
        cluster.advance(600)
        assert said(cluster, "node-2", "birdc show protocols").count("Established") == 1
        assert said(cluster, "node-2", "calicoctl node status").count("Established") == 1
        assert "proto bird" not in said(cluster, "node-1", "ip route show proto bird | grep via")


def test_addresses_that_ran_out() -> None:
    cluster = scenarios.shop(cni="calico")
    with cluster.fault("ipam-exhausted"):
        cluster.apply(LATE)
        assert any("No IPs available in pools" in event.message for _, event in cluster.events)
        assert "100%" in said(cluster, "node-1", "calicoctl ipam show")


@pytest.mark.parametrize("cni", ["flannel-host-gw", "calico", "calico-vxlan"])
def test_a_stale_neighbour_elsewhere(cni: str) -> None:
    cluster = scenarios.shop(cni=cni)
    call = f"ping -c 1 {far(cluster)}"
    assert "1 received" in said(cluster, "frontend", call)
    with cluster.fault("neighbour-stale"):
        assert "PERMANENT" in said(cluster, "node-1", "ip neigh")
        assert "0 received" in said(cluster, "frontend", call)
    assert "1 received" in said(cluster, "frontend", call)
