"""A cluster whose kube-proxy runs in nftables mode."""

from __future__ import annotations

import pytest

from kubenet_lab.cluster import Cluster
from kubenet_lab.errors import InputError
from kubenet_lab.scenarios import shop

NODE_PORT = """
apiVersion: v1
kind: Service
metadata: {name: open}
spec: {type: NodePort, selector: {app: backend}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
"""


def test_a_call_through_a_service_connects_and_names_the_rules_it_met() -> None:
    cluster = shop(proxy="nftables")
    trip = cluster.connect("default/frontend", "http://backend")
    assert "connected" in str(trip)
    text = "\n".join(trace.text() for trace in trip.traces)
    assert "ip kube-proxy services rule" in text
    assert "KUBE-" not in text


def test_the_node_prints_its_tables_and_no_rules_of_iptables_mode() -> None:
    node = shop(proxy="nftables").node("node-1")
    text = node.nft_list_ruleset()
    assert text.startswith("table ip kube-proxy {\n")
    assert "\ntable ip6 kube-proxy {\n" in text
    assert "10.96.0.100 . tcp . 80 : goto service-" in text
    assert 'ip daddr 10.96.0.0/16 drop comment "Drop traffic to unallocated ClusterIPs"' in text
    assert "KUBE-" not in node.iptables_save()
    assert shop().node("node-1").nft_list_ruleset() == ""


def test_rules_follow_changes() -> None:
    cluster = shop(proxy="nftables")
    before = cluster.node("node-2").nft_list_ruleset()
    assert "refused" not in str(cluster.connect("default/frontend", "http://backend"))
    cluster.apply(NODE_PORT)
    assert "tcp . 30080 : goto external-" in cluster.node("node-2").nft_list_ruleset()
    assert "connected" in str(cluster.connect("default/frontend", "http://192.168.1.20:30080"))
    cluster.delete("Service", "open")
    assert "connected" not in str(cluster.connect("default/frontend", "http://192.168.1.20:30080"))
    after = cluster.node("node-2").nft_list_ruleset()
    assert "30080" not in after
    assert set(before.split("\n")) <= set(after.split("\n"))


def test_a_failed_transaction_of_the_cluster_leaves_the_rules_as_they_were() -> None:
    cluster = shop(proxy="nftables")
    before = cluster.node("node-1").nft_list_ruleset()
    during = []

    def change() -> None:
        with cluster.transaction():
            cluster.apply(NODE_PORT)
            during.append(cluster.node("node-1").nft_list_ruleset())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change()
    assert "30080" in during[0]
    assert cluster.node("node-1").nft_list_ruleset() == before
    cluster.apply(NODE_PORT)
    assert "30080" in cluster.node("node-1").nft_list_ruleset()


STICKY = """
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec:
  clusterIP: 10.96.9.1
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 600}}
  selector: {app: backend}
  ports: [{port: 80, targetPort: 8080}]
"""


def test_affinity_lasts_from_call_to_call_and_ends_by_its_time() -> None:
    cluster = shop(proxy="nftables")
    cluster.apply(STICKY)
    node = cluster.node("node-1")
    assert "expires" not in node.nft_list_ruleset()
    first = cluster.connect("frontend", "http://10.96.9.1").server
    assert "elements = { 10.244.0.2 expires 10m }" in node.nft_list_ruleset()
    cluster.advance(300)
    assert "elements = { 10.244.0.2 expires 5m }" in node.nft_list_ruleset()
    for _ in range(8):
        assert cluster.connect("frontend", "http://10.96.9.1").server == first
    assert "elements = { 10.244.0.2 expires 10m }" in node.nft_list_ruleset()
    cluster.advance(601)
    assert "expires" not in node.nft_list_ruleset()
    servers = set()
    for _ in range(12):
        servers.add(cluster.connect("frontend", "http://10.96.9.1").server)
        cluster.advance(601)
    assert len(servers) > 1


def test_a_flow_that_is_tried_leaves_no_affinity() -> None:
    from kubenet_lab.twin.compare import model_outcomes
    from kubenet_lab.twin.flow import Flow

    cluster = shop(proxy="nftables")
    cluster.apply(STICKY)
    before = cluster.node("node-1").nft_list_ruleset()
    for _ in range(2):
        outcomes, _trace = model_outcomes(
            cluster.network, Flow(ns="default/frontend", dst="10.96.9.1", port=80)
        )
        assert len({o.server for o in outcomes}) == 3
        assert cluster.node("node-1").nft_list_ruleset() == before


def test_a_broadcast_builds_no_rules_on_the_nodes_it_passes() -> None:
    cluster = shop(proxy="nftables")
    assert cluster.connect("node/node-1", "192.168.1.20:10250").delivered  # ARP asks every node
    assert cluster.network.ns("node-2").nftables_built is not None
    assert cluster.network.ns("node-3").nftables_built is None


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(InputError, match="iptables, nftables"):
        Cluster(proxy="userspace")
