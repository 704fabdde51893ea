"""A ClusterNetworkPolicy becomes a GlobalNetworkPolicy of Calico's tiers; what it cannot read fails closed."""

from __future__ import annotations

from typing import Any

import pytest

from kubenet_lab.cni.calico.clusterpolicy import cluster_network_policy
from kubenet_lab.cni.calico.convert import policy_v1

EVERYBODY: dict[str, Any] = {"namespaces": {}}
NAMED = {"protocols": [{"destinationNamedPort": "web"}]}


def spec(**more: Any) -> dict[str, Any]:
    """The spec that a policy of tier Admin becomes."""
    full = {"tier": "Admin", "priority": 7, "subject": EVERYBODY, **more}
    made = cluster_network_policy({"metadata": {"name": "p"}, "spec": full})
    out: dict[str, Any] = made["spec"]
    return out


def test_tier_order_and_subject() -> None:
    made = spec(
        tier="Baseline",
        subject={"pods": {"podSelector": {"matchLabels": {"app": "db"}}}},
        ingress=[{"action": "Accept", "from": [EVERYBODY]}],
    )
    assert (made["tier"], made["order"], made["types"]) == ("kube-baseline", 7, ["Ingress"])
    assert made["selector"] == "projectcalico.org/orchestrator == 'k8s' && app == 'db'"
    v1 = policy_v1(
        {"metadata": {"name": "p"}, "spec": spec(ingress=[{"action": "Pass", "from": [EVERYBODY]}])}
    )
    assert v1["selector"] == "(projectcalico.org/orchestrator == 'k8s') && has(projectcalico.org/namespace)"
    assert v1["inbound_rules"][0]["action"] == "next-tier"
    assert v1["inbound_rules"][0]["src_selector"] == "has(projectcalico.org/namespace)"


def test_a_rule_a_protocol_and_peer_with_ports_gathered() -> None:
    tcp = [{"tcp": {"destinationPort": {"number": port}}} for port in (80, 81)]
    udp = {"udp": {"destinationPort": {"range": {"start": 53, "end": 60}}}}
    made = spec(egress=[{"action": "Accept", "to": [{"networks": ["10.0.0.1/8"]}], "protocols": [udp, *tcp]}])
    assert [(r["protocol"], r["destination"]) for r in made["egress"]] == [
        ("TCP", {"ports": ["80:81"], "nets": ["10.0.0.0/8"]}),
        ("UDP", {"ports": ["53:60"], "nets": ["10.0.0.0/8"]}),
    ]


@pytest.mark.parametrize(
    "peer_and_ports", [({**NAMED, "to": [EVERYBODY]}), ({"to": [EVERYBODY, {"nodes": {}}]})]
)
def test_a_rule_that_is_not_understood_fails_closed(peer_and_ports: dict[str, Any]) -> None:
    found = {
        a: spec(egress=[{"action": a, **peer_and_ports}]).get("egress") for a in ("Accept", "Deny", "Pass")
    }
    assert found == {"Accept": None, "Deny": [{"action": "Deny"}], "Pass": [{"action": "Deny"}]}
