"""The cluster as its users meet it: worlds from manifests, calls, and inputs that are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubenet_lab import Cluster, InputError, NotFound, manifests, scenarios
from kubenet_lab.kernel.dump import dump

WEB = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: nginx, ports: [{containerPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Service
metadata: {name: empty}
spec:
  selector: {app: nobody}
  ports: [{port: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  containers: [{name: sh, image: busybox}]
"""


@pytest.fixture
def web() -> Cluster:
    return Cluster.from_files(WEB)


def test_one_call_through_the_shop() -> None:
    shop = scenarios.shop()
    trip = shop.connect("frontend", "http://backend")
    assert trip.delivered, trip.text()
    assert trip.server is not None
    assert trip.server.startswith("default/backend-")
    assert trip.source_seen == shop.pod("frontend").ips[0]
    assert [query.type for query in trip.queries] == ["A", "AAAA"]
    assert trip.address == "10.96.0.100"
    assert trip.traces[0].rules_tried > 0


def test_one_seed_gives_one_world() -> None:
    first, second = scenarios.shop(seed=7), scenarios.shop(seed=7)
    assert dump(first.network) == dump(second.network)
    assert (
        first.connect("frontend", "http://backend").text()
        == second.connect("frontend", "http://backend").text()
    )
    assert dump(first.network) == dump(second.network)


def test_replicas_become_pods_spread_over_nodes(web: Cluster) -> None:
    nodes = [p.spec.node_name for p in web.store.list("Pod", "default") if p.name.startswith("web-")]
    assert sorted(nodes.count(n) for n in set(nodes)) == [1, 1, 2]


def test_all_backends_get_their_share(web: Cluster) -> None:
    servers = {web.connect("client", "http://web").server for _ in range(60)}
    assert servers == {
        f"default/{p.name}" for p in web.store.list("Pod", "default") if p.name.startswith("web-")
    }


def test_a_service_without_endpoints_refuses_at_once(web: Cluster) -> None:
    trip = web.connect("client", "http://empty")
    assert (trip.verdict, trip.reason, trip.seconds) == ("refused", "rule-reject", 0.0), trip.text()
    assert "has no endpoints" in str(trip.decided_by)


def test_a_pod_calls_itself_through_its_service(web: Cluster) -> None:
    """Hairpin: masqueraded, so the pod sees its bridge's address as the caller."""
    me = next(p for p in web.store.list("Pod", "default") if p.name.startswith("web-"))
    for _ in range(40):
        trip = web.connect(me.name, "http://web")
        assert trip.delivered, trip.text()
        if trip.server == f"default/{me.name}":
            assert trip.source_seen == me.ips[0].rsplit(".", 1)[0] + ".1", trip.text()
            return
    pytest.fail("the pod never drew itself in 40 calls")


def test_outside_sees_the_node(web: Cluster) -> None:
    trip = web.connect("client", "http://203.0.113.10")
    assert trip.delivered, trip.text()
    assert trip.source_seen == "192.168.1.10" or trip.source_seen.startswith("192.168.1."), trip.text()


def test_a_caller_outside_cannot_reach_a_cluster_ip(web: Cluster) -> None:
    address = web.store.get("Service", "web", "default").addresses[0]
    trip = web.connect("198.51.100.7", f"http://{address}")
    assert not trip.delivered
    assert trip.place.netns == "router", trip.text()


def test_a_name_that_does_not_exist(web: Cluster) -> None:
    trip = web.connect("client", "http://nope")
    assert (trip.verdict, trip.reason) == ("could not resolve", "no-such-name")
    assert [q.name for q in trip.queries if q.type == "A"] == [
        "nope.default.svc.cluster.local.",
        "nope.svc.cluster.local.",
        "nope.cluster.local.",
        "nope.",
    ]


def test_scaling_changes_the_rules(web: Cluster) -> None:
    before = web.node("node-1").iptables_save()
    web.apply(WEB.replace("replicas: 4", "replicas: 1"))
    after = web.node("node-1").iptables_save()
    assert before.count('"default/web ->') == 4
    assert after.count('"default/web ->') == 1
    assert web.connect("client", "http://web").delivered


def test_deleting_a_service_takes_its_rules_and_its_name(web: Cluster) -> None:
    web.connect("client", "http://web")
    web.delete("Service", "web")
    assert "default/web" not in web.node("node-1").iptables_save()
    assert web.connect("client", "http://web").reason == "no-such-name"


def test_deleting_a_pod_brings_another(web: Cluster) -> None:
    old = web.pod("web").name
    web.delete("Pod", old)
    pods = [p.name for p in web.store.list("Pod", "default") if p.name.startswith("web-")]
    assert len(pods) == 4
    assert old not in pods
    assert f"default/{old}" not in web.network.netns


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: Pod\napiVersion: v1\nmetadata: {name: a}\nspec: {containers: [{nam: x}]}\n", ["nam", "line"]),
        ("kind: Podd\napiVersion: v1\nmetadata: {name: a}\n", ["Podd", "Pod"]),
        ("kind: Service\napiVersion: v1\nmetadata: {}\nspec: {ports: [{port: 80}]}\n", ["metadata.name"]),
        (
            "kind: Service\napiVersion: v1\nmetadata: {name: a}\nspec: {ports: [{port: eighty}]}\n",
            ["spec.ports[0].port"],
        ),
        ("a: [1\n", ["1"]),
    ],
)
def test_a_broken_manifest_names_the_place(text: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        Cluster.from_files(text)
    for word in words:
        assert word in str(caught.value) or (word == "line" and caught.value.faults[0].line), str(
            caught.value
        )


def test_a_refused_apply_leaves_the_world_unchanged(web: Cluster) -> None:
    state = dump(web.network)
    objects = len(web.store.list("Service"))
    taken = web.store.get("Service", "web", "default").addresses[0]
    spec = f"{{clusterIP: {taken}, ports: [{{port: 80}}]}}"
    bad = f"apiVersion: v1\nkind: Service\nmetadata: {{name: second}}\nspec: {spec}\n"
    with pytest.raises(Exception, match="already allocated"):
        web.apply(bad)
    assert dump(web.network) == state
    assert len(web.store.list("Service")) == objects
    assert web.connect("client", "http://web").delivered


@pytest.mark.parametrize(
    ("source", "target", "error", "words"),
    [
        ("clientt", "http://web", NotFound, "did you mean 'client'"),
        ("kube-system/client", "http://web", NotFound, 'pods "client" not found'),
        ("node/node-7", "http://web", NotFound, "node-1"),
        ("client", "gopher://web", InputError, "unknown scheme"),
        ("client", "tcp://web", InputError, "no port"),
        ("client", "web:99999", InputError, "65535"),
    ],
)
def test_a_wrong_call_says_what_to_write(
    web: Cluster, source: str, target: str, error: type, words: str
) -> None:
    with pytest.raises(error, match=words):
        web.connect(source, target)


def test_unknown_modes_are_named() -> None:
    with pytest.raises(InputError, match="write one of: flannel"):
        scenarios.shop(cni="weave")
    with pytest.raises(InputError, match="write one of: iptables"):
        scenarios.shop(proxy="userspace")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing-here"):
        Cluster.from_files(tmp_path / "nothing-here.yaml")


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("192.168.1.999", "Node n1: status.addresses: '192.168.1.999' is no IP address"),
        ("host", "Node n1: status.addresses: 'host' is no IP address"),
        ("192.168.1.1", "192.168.1.1 is the address of the router in 192.168.1.0/24 here"),
    ],
)
def test_a_node_address_that_cannot_be_is_named(address: str, said: str) -> None:
    text = (
        "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n"
        f"status: {{addresses: [{{type: InternalIP, address: {address}}}]}}\n"
    )
    with pytest.raises(InputError) as fault:
        Cluster.from_objects(manifests.load(text))
    assert said in str(fault.value)
