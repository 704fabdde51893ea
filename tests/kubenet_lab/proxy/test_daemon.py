"""kube-proxy as a process: when it writes, when it does not, and what callers meet meanwhile."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from kubenet_lab import scenarios
from kubenet_lab.cluster import PROXIES, Cluster
from kubenet_lab.control import Settings
from kubenet_lab.errors import InputError, NotFound
from kubenet_lab.kernel.dialects.iptables import save
from kubenet_lab.kernel.netfilter import Jump, Rule, Ruleset
from kubenet_lab.kernel.nftables import Ruleset as NftRuleset
from kubenet_lab.objects import Node
from kubenet_lab.objects.node import Taint
from kubenet_lab.packet.packet import UDP
from kubenet_lab.proxy.iptables import flushed
from kubenet_lab.walk.destinations import destinations
from kubenet_lab.walk.http import Got, get

BACKEND = "10.96.0.100"
DAEMON_SET = Path(scenarios.__file__).with_name("kube_proxy.yaml")


def shop(
    *flags: str, proxy: str = "iptables", sync_seconds: float = 0.0, start_seconds: float = 0.0
) -> Cluster:
    settings = Settings(kube_proxy=flags, sync_seconds=sync_seconds, start_seconds=start_seconds)
    return scenarios.shop(settings=settings, proxy=proxy)


def deployment(replicas: int, image: str = "shop/backend:1.0") -> str:
    return (
        f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: backend}}\nspec:\n  replicas: {replicas}\n"
        "  selector: {matchLabels: {app: backend}}\n  template:\n    metadata: {labels: {app: backend}}\n"
        "    spec:\n      containers:\n"
        f"      - {{name: backend, image: '{image}', ports: [{{name: http, containerPort: 8080}}]}}"
    )


def sent_to(cluster: Cluster, caller: str = "default/frontend", address: str = BACKEND) -> dict[str, float]:
    """Address -> chance, of a new connection to the Service."""
    found = destinations(cluster.network, caller, address, 80, now=cluster.now)
    return {one[0]: chance for one, chance in found.items()}


def living(cluster: Cluster) -> set[str]:
    return {p.ips[0] for p in cluster.store.list("Pod", "default") if "backend" in p.name and p.ips}


def failing(cluster: Cluster) -> int:
    """Per cent of new connections that go to an address no pod has."""
    chances = sent_to(cluster)
    return round(100 * sum(chance for address, chance in chances.items() if address not in living(cluster)))


def flush(cluster: Cluster, node: str = "node-1") -> None:
    """`iptables-restore < /dev/null` of a firewall's own rules, or `nft flush ruleset`: everything is gone."""
    space = cluster.node(node).ns
    for family in (4, 6):
        space.set_iptables(family, Ruleset(family))


def curl(cluster: Cluster, address: str, port: int, path: str, ns: str = "node-2") -> Got:
    return get(cluster.walk(), ns, address, port, path)


# -- when --------------------------------------


@pytest.mark.parametrize("proxy", PROXIES)
def test_by_default_rules_follow_at_once(proxy: str) -> None:
    cluster = shop(proxy=proxy)
    assert sent_to(cluster).keys() == living(cluster)
    cluster.apply(deployment(5))
    assert sent_to(cluster).keys() == living(cluster)
    view = cluster.kube_proxy("node-1")
    assert (view.running, view.process.fulls, view.process.failures, view.stale) == (True, 1, 0, [])


def test_the_least_time_between_syncs_gathers_changes() -> None:
    """The first change after a quiet time is written at once; what follows waits, and is written together."""
    cluster = shop("--iptables-min-sync-period=5s")
    sent_to(cluster)
    cluster.advance(10)
    before = cluster.kube_proxy("node-1").process.partials
    cluster.apply(deployment(4))
    assert len(sent_to(cluster)) == 4
    cluster.advance(1)
    cluster.apply(deployment(5))
    cluster.advance(1)
    cluster.apply(deployment(6))
    assert len(sent_to(cluster)) == 4
    assert cluster.kube_proxy("node-1").stale == ["default/backend"]
    assert "waiting to be written at 15 s" in str(cluster.kube_proxy("node-1"))
    cluster.advance(2.75)
    assert len(sent_to(cluster)) == 4
    cluster.advance(0.25)
    assert len(sent_to(cluster)) == 6
    assert cluster.kube_proxy("node-1").process.partials == before + 2


def test_a_start_takes_its_time() -> None:
    cluster = shop(start_seconds=3)
    sent_to(cluster)
    cluster.restart_kube_proxy("node-1")
    assert curl(cluster, "192.168.1.10", 10256, "/healthz").exchange.verdict == "refused"
    cluster.apply(deployment(1))
    cluster.advance(2.5)
    assert len(sent_to(cluster)) == 3
    cluster.advance(0.5)
    assert len(sent_to(cluster)) == 1
    assert curl(cluster, "192.168.1.10", 10256, "/healthz").status == 200


# -- stopped, stale, started again --------------------------------------


@pytest.mark.parametrize("proxy", PROXIES)
def test_stopped_nothing_happens_until_pods_are_replaced(proxy: str) -> None:
    """The program is not in the data path: without it all goes on, and every pod that is replaced costs its share."""
    cluster = shop(proxy=proxy)
    old = [p.name for p in cluster.store.list("Pod", "default") if "backend" in p.name]
    before = sent_to(cluster).keys()
    cluster.stop_kube_proxy("node-1")
    assert not cluster.kube_proxy("node-1").running
    seen = [failing(cluster)]
    for name in old:
        # Other pods take the addresses' turn, as they do on a busy cluster: so that no new pod has an old one's.
        cluster.delete("Pod", name)
        gone = before - living(cluster)
        seen.append(round(100 * len(gone) / len(before)))
        assert failing(cluster) == seen[-1]
    assert seen == [0, 33, 67, 100]
    assert sent_to(cluster).keys() == before
    cluster.start_kube_proxy("node-1")
    assert failing(cluster) == 0
    assert sent_to(cluster).keys() == living(cluster)


def test_one_node_alone_is_stale() -> None:
    cluster = shop()
    cluster.stop_kube_proxy("node-2")
    cluster.apply(deployment(5))
    assert len(sent_to(cluster, "node-1")) == 5
    assert len(sent_to(cluster, "node-2")) == 3


def test_stopped_before_anybody_looked_its_rules_are_those_of_then() -> None:
    """Rules are built when somebody looks; a program that had stopped by then cannot know what came after."""
    cluster = shop()
    cluster.stop_kube_proxy()
    cluster.apply(deployment(5))
    assert len(sent_to(cluster)) == 3


def test_a_start_deletes_chains_nobody_needs() -> None:
    cluster = shop()
    space = cluster.node("node-1").ns
    before = {name for name in space.iptables[4].tables["nat"].chains if name.startswith("KUBE-S")}
    cluster.stop_kube_proxy("node-1")
    cluster.delete("Service", "backend")
    assert {n for n in space.iptables[4].tables["nat"].chains if n.startswith("KUBE-S")} == before
    cluster.start_kube_proxy("node-1")
    after = {name for name in space.iptables[4].tables["nat"].chains if name.startswith("KUBE-S")}
    assert after < before
    assert len(before - after) == 4
    assert cluster.connect("frontend", f"http://{BACKEND}").verdict != "connected"


# -- flushes --------------------------------------


def test_a_flush_is_mended_when_the_canary_is_missed() -> None:
    cluster = shop("--iptables-sync-period=20s")
    sent_to(cluster)
    cluster.advance(25)
    flush(cluster)
    assert sent_to(cluster) == {}
    assert cluster.kube_proxy("node-1").canary_look == 40
    cluster.advance(14.5)
    assert sent_to(cluster) == {}
    cluster.advance(0.5)
    assert len(sent_to(cluster)) == 3
    assert not any(flushed(rules) for rules in cluster.node("node-1").ns.iptables.values())
    assert [note.at for note in cluster.kube_proxy("node-1").log if "canary" in note.text] == [40]


def test_a_flush_of_rules_alone_is_not_noticed_for_an_hour() -> None:
    """`iptables -t nat -F` leaves the chains, the canary too: only the full sync after an hour writes it anew."""
    cluster = shop()
    space = cluster.node("node-1").ns
    edit = space.iptables[4].edit()
    for chain in space.iptables[4].tables["nat"].chains:
        edit.flush("nat", chain)
    space.set_iptables(4, edit.commit())
    assert sent_to(cluster) == {}
    cluster.advance(3599)
    assert sent_to(cluster) == {}
    assert cluster.kube_proxy("node-1").canary_look is None
    cluster.advance(1)
    assert len(sent_to(cluster)) == 3


def test_a_partial_sync_after_a_flush_fails_and_is_tried_again_in_full() -> None:
    """Chains of Services that did not change are not written, and the rules that lead to them are refused."""
    cluster = shop("--iptables-sync-period=20s")
    sent_to(cluster)
    cluster.advance(19)
    space = cluster.node("node-1").ns
    edit = space.iptables[4].edit()
    for chain in space.iptables[4].tables["nat"].chains:
        edit.flush("nat", chain)
    for chain in [c for c in space.iptables[4].tables["nat"].chains if c.startswith("KUBE-S")]:
        edit.delete_chain("nat", chain)
    space.set_iptables(4, edit.commit())
    cluster.apply(deployment(4))
    process = cluster.kube_proxy("node-1").process
    assert (process.failures, process.partial_failures, process.due) == (1, 1, 39)
    assert any("Sync failed retryingTime=20s" in note.text for note in process.log)
    cluster.advance(19.5)
    assert sent_to(cluster) == {}
    cluster.advance(0.5)
    assert len(sent_to(cluster)) == 4
    assert cluster.kube_proxy("node-1").process.fulls == 2


def test_nftables_has_no_canary() -> None:
    """Nobody looks: the next change finds that its table is gone, and everything is written a sync period later."""
    cluster = shop(proxy="nftables")
    sent_to(cluster)
    cluster.node("node-1").ns.set_nftables(NftRuleset())
    cluster.advance(100)
    assert sent_to(cluster) == {}
    cluster.apply(deployment(4))
    assert cluster.kube_proxy("node-1").process.failures == 1
    cluster.advance(29)
    assert sent_to(cluster) == {}
    cluster.advance(1)
    assert len(sent_to(cluster)) == 4


def test_one_who_holds_a_chain_keeps_every_sync_from_working() -> None:
    cluster = shop()
    space = cluster.node("node-1").ns
    lines = save(space.iptables[4]).splitlines()
    chain = next(
        line.split()[1] for line in lines if line.startswith("-A KUBE-SEP-") and "default/backend" in line
    )
    edit = space.iptables[4].edit()
    edit.append("nat", "OUTPUT", Rule(dst="198.51.100.1/32", target=Jump(chain)))
    space.set_iptables(4, edit.commit())
    for name in [p.name for p in cluster.store.list("Pod", "default") if "backend" in p.name]:
        cluster.delete("Pod", name)
    assert failing(cluster) > 0
    assert cluster.kube_proxy("node-1").process.failures
    cluster.advance(59)
    assert curl(cluster, "192.168.1.10", 10256, "/healthz").status == 200
    cluster.advance(1)
    answer = curl(cluster, "192.168.1.10", 10256, "/healthz")
    assert answer.status == 503
    assert curl(cluster, "192.168.1.10", 10256, "/livez").status == 503
    assert cluster.kube_proxy("node-1").process.due == 90


# -- modes --------------------------------------


def test_another_mode_takes_the_first_one_s_rules_away() -> None:
    cluster = shop()
    sent_to(cluster)
    cluster.start_kube_proxy("node-1", mode="nftables")
    view = cluster.node("node-1")
    assert "KUBE-SVC" not in save(view.ns.iptables[4])
    assert "table ip kube-proxy" in view.nft_list_ruleset()
    assert len(sent_to(cluster)) == 3
    cluster.start_kube_proxy("node-1", mode="iptables")
    assert "KUBE-SVC" in save(view.ns.iptables[4])
    assert "kube-proxy" not in view.nft_list_ruleset()
    assert len(sent_to(cluster)) == 3
    with pytest.raises(InputError, match="userspace"):
        cluster.start_kube_proxy("node-1", mode="userspace")


@pytest.mark.parametrize("proxy", ["iptables", "nftables"])
def test_cleanup(proxy: str) -> None:
    cluster = shop(proxy=proxy)
    sent_to(cluster)
    cluster.stop_kube_proxy("node-1")
    cluster.clean_up_kube_proxy("node-1")
    assert sent_to(cluster) == {}
    assert cluster.connect("frontend", f"tcp://{next(iter(living(cluster)))}:8080").delivered
    cluster.start_kube_proxy("node-1")
    assert len(sent_to(cluster)) == 3


def test_no_such_node() -> None:
    cluster = shop()
    for call in (cluster.stop_kube_proxy, cluster.start_kube_proxy, cluster.kube_proxy):
        with pytest.raises(NotFound, match="node-9"):
            call("node-9")


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("--iptables-sync-period=soon", "not a duration"),
        ("--iptables-sync-period=0s", "greater than 0"),
        ("--iptables-min-sync-period=1m", "longer than"),
        ("--healthz-bind-address=10256", "not an address with a port"),
        ("--masquerade-al", "did you mean --masquerade-all"),
    ],
)
def test_wrong_flags(flag: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        shop(flag)


# -- transactions, nodes, the DaemonSet --------------------------------------


def test_a_failed_apply_leaves_a_stopped_one_stopped() -> None:
    cluster = shop()
    sent_to(cluster)
    cluster.stop_kube_proxy("node-1")
    with pytest.raises(Exception, match="clusterIP"):
        cluster.apply(
            "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec: {clusterIP: 10.9.9.9, ports: [{port: 1}]}"
        )
    cluster.apply(deployment(5))
    assert not cluster.kube_proxy("node-1").running
    assert len(sent_to(cluster)) == 3
    assert len(sent_to(cluster, "node-2")) == 5


def test_as_a_daemon_set_it_runs_where_its_pods_do() -> None:
    cluster = shop()
    sent_to(cluster)
    cluster.apply(DAEMON_SET)
    assert len([p for p in cluster.store.list("Pod", "kube-system") if "kube-proxy" in p.name]) == 3
    nodes = ("node-1", "node-2", "node-3")
    assert all(cluster.kube_proxy(node).running for node in nodes)
    fulls = cluster.kube_proxy("node-1").process.began
    cluster.advance(5)
    pod = next(
        p
        for p in cluster.store.list("Pod", "kube-system")
        if p.spec.node_name == "node-1" and "proxy" in p.name
    )
    cluster.crash(pod.name, namespace="kube-system")
    assert not cluster.kube_proxy("node-1").running
    assert cluster.kube_proxy("node-2").running
    cluster.advance(30)
    assert cluster.kube_proxy("node-1").running
    assert cluster.kube_proxy("node-1").process.began > fulls
    cluster.delete("DaemonSet", "kube-proxy", "kube-system")
    assert not any(cluster.kube_proxy(node).running for node in nodes)
    cluster.apply(deployment(5))
    assert len(sent_to(cluster)) == 3


# -- what it says --------------------------------------


def test_healthz_and_livez() -> None:
    cluster = shop()
    cluster.advance(1.5)
    got = curl(cluster, "192.168.1.10", 10256, "/healthz")
    assert got.response is not None
    assert got.status == 200
    moment = "2026-01-01 00:00:01.5 +0000 UTC m=+1.500000000"
    assert json.loads(got.response.body) == {
        "lastUpdated": moment,
        "currentTime": moment,
        "nodeEligible": True,
    }
    assert got.response.field("content-type") == "application/json"
    assert curl(cluster, "192.168.1.10", 10256, "/other").status == 404
    assert (
        curl(cluster, "192.168.1.10", 10249, "/metrics").exchange.verdict == "refused"
    )  # on 127.0.0.1 alone
    told = get(cluster.walk(), "node-1", "127.0.0.1", 10249, "/proxyMode").response
    assert told is not None
    assert told.body == "iptables"
    numbers = get(cluster.walk(), "node-1", "127.0.0.1", 10249, "/metrics").response
    assert numbers is not None
    assert "kubeproxy_sync_full_proxy_rules_duration_seconds_count 1\n" in numbers.body


def test_a_node_that_goes_is_not_eligible_and_alive_all_the_same() -> None:
    cluster = shop()
    node = cluster.store.get(Node, "node-1")
    taint = Taint(key="ToBeDeletedByClusterAutoscaler", effect="NoSchedule")
    cluster.store.update(replace(node, spec=replace(node.spec, taints=(*node.spec.taints, taint))))
    got = curl(cluster, "192.168.1.10", 10256, "/healthz")
    assert got.response is not None
    assert got.status == 503
    assert json.loads(got.response.body)["nodeEligible"] is False
    assert curl(cluster, "192.168.1.10", 10256, "/livez").status == 200


LOCAL = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  healthCheckNodePort: 32123
  selector: {app: backend}
  ports: [{port: 80, targetPort: 8080}]
"""


def test_health_check_node_port() -> None:
    cluster = shop()
    cluster.apply(LOCAL, deployment(1))
    (pod,) = [p for p in cluster.store.list("Pod", "default") if "backend" in p.name]
    for number, node in enumerate(("node-1", "node-2", "node-3"), 1):
        here = int(pod.spec.node_name == node)
        got = curl(cluster, f"192.168.1.{number}0", 32123, "/", ns="outside")
        assert got.response is not None
        assert got.status == (200 if here else 503)
        assert got.response.field("X-Load-Balancing-Endpoint-Weight") == str(here)
        assert json.loads(got.response.body) == {
            "service": {"namespace": "default", "name": "web"},
            "localEndpoints": here,
            "serviceProxyHealthy": True,
        }
    cluster.delete("Service", "web")
    assert curl(cluster, "192.168.1.10", 32123, "/", ns="outside").exchange.verdict == "refused"


# -- connections it makes the kernel forget --------------------------------------


def dns_flows(cluster: Cluster) -> dict[str, str]:
    """Client port -> who answers, of the node's UDP connections to the DNS Service."""
    flows = cluster.node("node-1").ns.conntrack
    return {str(f.orig[3]): f.reply[1] for f in flows if f.orig[0] == UDP and f.orig[2] == "10.96.0.10"}


def test_udp_connections_to_an_endpoint_that_went_are_forgotten() -> None:
    cluster = shop("--iptables-min-sync-period=4s")
    for _ in range(12):
        cluster.connect("frontend", "udp://10.96.0.10:53")
    before = dns_flows(cluster)
    assert len(set(before.values())) == 2, "both CoreDNS pods answered"
    cluster.advance(1)
    pod = next(p for p in cluster.store.list("Pod", "kube-system") if "coredns" in p.name)
    cluster.delete("Pod", pod.name, "kube-system")
    assert dns_flows(cluster) == before, "the sync waits, and the connections with it"
    cluster.advance(3)
    assert dns_flows(cluster) == before, "a lame duck still serves"
    cluster.advance(30)
    kept = {port: answers for port, answers in before.items() if answers != pod.ips[0]}
    assert dns_flows(cluster) == kept


def test_connections_of_a_service_without_endpoints_stay_until_it_has_one_again() -> None:
    cluster = shop()
    for _ in range(6):
        cluster.connect("frontend", "udp://10.96.0.10:53")
    before = dns_flows(cluster)
    found = cluster.store.get("Deployment", "coredns", "kube-system")
    cluster.apply_objects([replace(found, spec=replace(found.spec, replicas=0))])
    cluster.advance(60)
    assert dns_flows(cluster) == before
    found = cluster.store.get("Deployment", "coredns", "kube-system")
    cluster.apply_objects([replace(found, spec=replace(found.spec, replicas=1))])
    cluster.advance(30)
    (pod,) = [p for p in cluster.store.list("Pod", "kube-system") if "coredns" in p.name]
    assert set(dns_flows(cluster).values()) <= {pod.ips[0]}


ZONED = """
apiVersion: v1
kind: Service
metadata: {name: zoned}
spec: {clusterIP: 10.96.0.50, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: zoned-1, labels: {kubernetes.io/service-name: zoned}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.244.0.4], hints: {forZones: [{name: east}]}}
- {addresses: [10.244.1.3], hints: {forZones: [{name: west}]}}
- {addresses: [10.244.2.3], hints: {forZones: [{name: west}]}}
"""


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_node_that_is_moved_to_another_zone_chooses_anew(proxy: str) -> None:
    """Hints name zones; when the node's own changes, kube-proxy writes everything again."""
    cluster = shop(proxy=proxy)
    cluster.apply(ZONED)
    for zone, count in (("east", 1), ("west", 2), ("nowhere", 3)):
        node = cluster.store.get(Node, "node-1")
        labels = {**node.metadata.labels, "topology.kubernetes.io/zone": zone}
        cluster.store.update(node.with_metadata(labels=labels))
        cluster.settle()
        # Cilium looks at hints only where it is told to (--enable-service-topology).
        assert len(sent_to(cluster, address="10.96.0.50")) == (3 if proxy == "ebpf" else count), zone


# -- a reboot --------------------------------------


@pytest.mark.parametrize("proxy", ["iptables", "nftables"])
def test_a_reboot_takes_everything_and_all_of_it_comes_back(proxy: str) -> None:
    cluster = shop(proxy=proxy)
    assert cluster.connect("frontend", "http://backend").delivered
    assert len(cluster.node("node-1").ns.conntrack)
    cluster.stop_kube_proxy("node-1")
    cluster.apply(deployment(5))
    cluster.advance(10)
    cluster.reboot("node-1")
    # The kubelet probes CoreDNS again at once; what went to the Service is forgotten.
    assert all(flow.orig[2] != "10.96.0.100" for flow in cluster.node("node-1").ns.conntrack)
    view = cluster.kube_proxy("node-1")
    assert view.running, "the kubelet starts it again with the machine"
    assert view.process.began == 10
    assert sent_to(cluster).keys() == living(cluster)
    for source in ("frontend", "database"):
        assert all(cluster.connect(source, "http://backend").delivered for _ in range(10))
    assert curl(cluster, "192.168.1.10", 10256, "/healthz").status == 200
    with pytest.raises(NotFound, match="node-9"):
        cluster.reboot("node-9")


# -- ipvs mode --------------------------------------


@pytest.mark.skipif("ipvs" not in PROXIES, reason="not modelled")
def test_in_ipvs_mode_everything_is_written_again_every_sync_period() -> None:
    cluster = shop(proxy="ipvs")
    assert sent_to(cluster).keys() == living(cluster)
    cluster.advance(10)
    cluster.node("node-1").ns.ipvs.clear()
    assert sent_to(cluster) == {}
    cluster.advance(19)
    assert sent_to(cluster) == {}
    cluster.advance(1)
    assert sent_to(cluster).keys() == living(cluster)
    cluster.start_kube_proxy("node-1", mode="nftables")
    assert not cluster.node("node-1").ns.ipvs.services
    assert sent_to(cluster).keys() == living(cluster)
