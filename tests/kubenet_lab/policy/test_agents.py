"""Policies enforced in a running cluster, by every data plane that does it, and by none."""

from __future__ import annotations

import pytest

from kubenet_lab import manifests
from kubenet_lab.cluster import Cluster
from kubenet_lab.objects import Node
from kubenet_lab.packet.packet import ACK, TCP, Packet
from kubenet_lab.policy.advice import default_deny
from kubenet_lab.policy.agent import PolicyAgents
from kubenet_lab.scenarios import guarded
from kubenet_lab.scenarios.guarded import DATABASE, SOURCES

PLANES: dict[str, dict[str, str]] = {
    "iptables": {"policy": "iptables"},
    "nftables": {"policy": "nftables"},
    "cilium": {"policy": "none", "cni": "cilium"},
}
FROM_THE_START = {**PLANES, "calico": {"policy": "none", "cni": "calico"}}
"""Those, and the one that is tried here only with policies that were there before its daemons started."""
HEAD = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
DENY = (
    HEAD
    + "metadata: {name: deny, namespace: production}\nspec: {podSelector: {matchLabels: {app: database}}}\n"
)


def address(cluster: Cluster, pod: str) -> str:
    space, _, name = pod.partition("/")
    return cluster.pod(name, space).ips[0]


def agents(cluster: Cluster) -> PolicyAgents:
    (found,) = [daemon for daemon in cluster.daemons if isinstance(daemon, PolicyAgents)]
    return found


@pytest.mark.parametrize("plane", FROM_THE_START)
def test_eight_sources_against_the_database(plane: str) -> None:
    """Packets end as the specification says, and the surprises are there: replica, own node, itself."""
    cluster = guarded(**FROM_THE_START[plane])
    assert cluster.unenforced == []
    ends = {}
    for source, _what in SOURCES:
        trip = cluster.connect(source, f"tcp://{address(cluster, DATABASE)}:5432")
        asked = cluster.store.get(Node, source[5:]).internal_ips[0] if source.startswith("node/") else source
        told = cluster.explain(asked, DATABASE, 5432)
        assert trip.delivered == told.allowed, f"{source}: {told.text()}\n{trip.text()}"
        ends[source] = (trip.delivered, told.judgement.ingress.why)
    assert ends["production/backend"] == (True, "")
    assert ends["production/database-1"] == (False, "isolated"), "replication breaks"
    assert ends["node/node-3"] == (True, "own node")
    assert ends["node/node-1"] == (False, "isolated")
    assert ends["production/database-0"] == (True, "itself")
    assert ends["staging/backend"] == (False, "isolated"), "a podSelector means the policy's own namespace"
    assert sum(good for good, _why in ends.values()) == 3


@pytest.mark.parametrize("plane", PLANES)
def test_the_database_cannot_ask_dns_and_still_answers(plane: str) -> None:
    cluster = guarded(**PLANES[plane])
    assert cluster.connect(DATABASE, "http://frontend:8080").verdict == "could not resolve"
    # Egress is closed, and replies to whom it may be asked by pass all the same.
    assert cluster.connect("production/backend", "tcp://database.production:5432").delivered
    cluster.apply(
        HEAD
        + "metadata: {name: dns, namespace: production}\nspec:\n  podSelector: {}\n  policyTypes: [Egress]\n"
        + "  egress:\n  - to:\n    - namespaceSelector: {}\n      podSelector: {matchLabels: {k8s-app: kube-dns}}\n"
        + "    ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]\n"
    )
    looked_up = cluster.connect(DATABASE, "http://kubernetes.default:443")
    assert looked_up.verdict != "could not resolve", looked_up.text()


def test_flannel_enforces_nothing_and_says_so() -> None:
    cluster = guarded(policy="none")
    assert "Flannel enforces no policy" in cluster.unenforced[0]
    for source, _what in SOURCES:
        assert cluster.connect(source, f"tcp://{address(cluster, DATABASE)}:5432").delivered
    assert not cluster.explain("production/frontend", DATABASE, 5432).allowed, (
        "the API has the policy all the same"
    )
    assert not cluster.reach().allowed("production/frontend", DATABASE, 5432)


@pytest.mark.parametrize("plane", PLANES)
def test_both_sides_must_allow(plane: str) -> None:
    """The ingress rule names the backend; the backend's own egress policy blocks it."""
    cluster = guarded(**PLANES[plane])
    cluster.apply(
        HEAD + "metadata: {name: b, namespace: production}\nspec:\n"
        "  podSelector: {matchLabels: {app: backend}}\n  policyTypes: [Egress]\n"
    )
    target = f"tcp://{address(cluster, DATABASE)}:5432"
    assert not cluster.connect("production/backend", target).delivered
    told = cluster.explain("production/backend", DATABASE, 5432)
    assert told.judgement.letter == "E"
    cluster.delete("NetworkPolicy", "b", "production")
    assert cluster.connect("production/backend", target).delivered


@pytest.mark.parametrize("agent", ["iptables", "nftables"])
def test_an_agent_lags_behind_the_api(agent: str) -> None:
    cluster = guarded(policy=agent)
    agents(cluster).latency = 2.0
    target = f"tcp://{address(cluster, DATABASE)}:5432"
    cluster.delete("NetworkPolicy", "database-policy", "production")
    assert not cluster.connect("production/frontend", target).delivered, (
        "the policy is gone, its rules are not"
    )
    assert cluster.explain("production/frontend", DATABASE, 5432).allowed
    cluster.advance(1.9)
    assert not cluster.connect("production/frontend", target).delivered
    cluster.advance(0.2)
    assert cluster.connect("production/frontend", target).delivered
    assert agents(cluster).next is None


@pytest.mark.parametrize("agent", ["iptables", "nftables"])
def test_an_open_connection_survives_the_policy_that_forbids_it(agent: str) -> None:
    """The API leaves it open; both agents let what conntrack knows pass, and judge first packets only."""
    cluster = guarded(policy=agent)
    database = address(cluster, DATABASE)
    trip = cluster.connect("production/backend", f"tcp://{database}:5432")
    assert trip.delivered
    assert trip.exchange is not None
    sent = trip.exchange.request.packet
    cluster.delete("NetworkPolicy", "database-policy", "production")
    cluster.apply(DENY)
    assert not cluster.connect("production/backend", f"tcp://{database}:5432").delivered, (
        "new ones are refused"
    )

    def goes_on() -> bool:
        more = Packet(sent.src, database, TCP, sport=sent.sport, dport=5432, flags=ACK, payload=b"SELECT 1")
        trace = cluster.walk().send("production/backend", more)
        return any(hop.netns == DATABASE for hop in trace.hops)

    assert goes_on()
    # `conntrack -D`: the node forgets, and the next segment is a first packet.
    cluster.network.ns("node-3").conntrack.flush()
    assert not goes_on()


@pytest.mark.parametrize("agent", ["iptables", "nftables"])
def test_kube_proxy_and_the_agent_share_a_node(agent: str) -> None:
    """Rules of others stay when a policy comes and goes."""
    cluster = guarded(policy=agent)
    # The agent moves its jumps to the top whenever it writes; kube-proxy puts its own there too.
    before = sorted(cluster.node("node-3").iptables_save().splitlines())
    cluster.apply_objects([default_deny("production")])
    assert not cluster.connect(
        "production/frontend", f"tcp://{address(cluster, 'production/report')}:8080"
    ).delivered
    cluster.delete("NetworkPolicy", "default-deny", "production")
    assert sorted(cluster.node("node-3").iptables_save().splitlines()) == before
    assert cluster.connect("production/frontend", "http://database.production:5432").verdict == (
        "refused" if agent == "iptables" else "timed out"
    )


def test_an_iptables_agent_does_not_read_administrators_policies() -> None:
    text = (
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: wall}\nspec:\n"
        "  tier: Admin\n  priority: 1\n  subject: {namespaces: {}}\n  ingress:\n"
        "  - {action: Deny, from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: production}}}]}\n"
    )
    ends = {}
    for agent in ("iptables", "nftables"):
        cluster = guarded(policy=agent)
        cluster.apply(text)
        assert not cluster.explain("production/backend", DATABASE, 5432).allowed
        ends[agent] = cluster.connect(
            "production/backend", f"tcp://{address(cluster, DATABASE)}:5432"
        ).delivered
        assert agents(cluster).unread == (["ClusterNetworkPolicy wall"] if agent == "iptables" else [])
    assert ends == {"iptables": True, "nftables": False}


def test_a_named_policy_is_read_from_the_scenario() -> None:
    from kubenet_lab.scenarios.guarded import MANIFEST

    kinds = [obj.kind for obj in manifests.load(MANIFEST)]
    assert kinds.count("NetworkPolicy") == 1
    assert kinds.count("Pod") == 6
