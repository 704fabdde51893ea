"""Every data plane that enforces NetworkPolicy lets through what the specification says, from pod to pod.

What a plane reads otherwise than the specification is left out for it, by name; `KUBENET_ALL_POLICY_WORLDS=1` runs all
recorded worlds that are left.
"""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.flows.policies import arrives, running
from tests.kubenet_lab.policy.worlds import tables
from tests.oracles import open_case

ALL = bool(os.environ.get("KUBENET_ALL_POLICY_WORLDS"))
PLANES: dict[str, dict[str, str]] = {
    "flannel, iptables agent": {"policy": "iptables"},
    "bridge, nftables agent": {"policy": "nftables", "cni": "bridge"},
    "calico": {"cni": "calico"},
    "cilium": {"cni": "cilium"},
}


def oddities(case: dict[str, Any]) -> set[str]:
    """What of a world's policies some plane reads in its own way."""
    found: set[str] = set()
    for policy in case["policies"]:
        spec = policy["spec"]
        if "ipBlock" in json.dumps(spec):
            found.add("ipBlock")
        for field, kind in (("ingress", "Ingress"), ("egress", "Egress")):
            if spec.get(field) and spec.get("policyTypes") and kind not in spec["policyTypes"]:
                found.add("rules of a type that is not named")
            for rule in spec.get(field) or ():
                if any(isinstance(port.get("port"), str) for port in rule.get("ports") or ()):
                    found.add("named port")
    return found


READS_OTHERWISE = {
    # A CIDR in Cilium never means a pod; names of ports are one table for the whole cluster; rules count although
    # policyTypes does not name their direction.
    "cilium": {"ipBlock", "named port", "rules of a type that is not named"},
    # Felix's sets of named ports hold addresses of one family only where the pods have just that one.
    "calico": {"named port"},
}


@pytest.mark.parametrize("plane", PLANES)
def test_packets_from_pod_to_pod_end_as_the_specification_says(plane: str) -> None:
    worlds = packets = 0
    for name in tables("random-")[:: 1 if ALL else 9]:
        case = open_case("policy", name)
        if case["family"] == "v6" or oddities(case) & READS_OTHERWISE.get(plane, set()):
            continue
        if worlds == 8 and not ALL:
            break
        cluster = running(case, **PLANES[plane])
        reach, worlds = cluster.reach(), worlds + 1
        pods = [f"{pod['namespace']}/{pod['name']}" for pod in case["pods"]]
        for source in pods:
            for target in pods:
                for probe in case["probes"][:4] if source != target else ():
                    port, protocol = probe.split("/")
                    got = arrives(cluster, source, target, int(port), protocol)
                    assert got == reach.allowed(source, target, int(port), protocol), (
                        name,
                        source,
                        target,
                        probe,
                    )
                    packets += 1
    assert worlds >= 8
    assert packets > 300
