"""NetworkPolicies become the entries that Cilium's own parser makes of them: 108 recorded specs."""

from __future__ import annotations

from typing import Any

import pytest

from kubenet_lab.cni.cilium.networkpolicy import ANY_CLUSTER, entries_of
from kubenet_lab.cni.cilium.rules import PolicyEntry
from kubenet_lab.objects import NetworkPolicy, from_manifest
from tests.oracles import open_case

CASES = {case["name"]: case for case in open_case("cni-cilium", "networkpolicy-conversion")}


def policy(name: str) -> NetworkPolicy:
    made = from_manifest(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": "prod"},
            "spec": CASES[name]["in"],
        }
    )
    assert isinstance(made, NetworkPolicy)
    return made


def written(entry: PolicyEntry) -> dict[str, Any]:
    """An entry in the recording's form."""
    ports = None
    if entry.ports is not None:
        ports = [
            {"ports": [{"port": p.port, **({"endPort": p.end_port} if p.end_port else {}), "protocol": p.protocol}]}
            for p in entry.ports
        ]  # fmt: skip
    return {
        "defaultDeny": True,
        "ingress": entry.ingress,
        "peers": None if entry.peers is None else [str(peer) for peer in entry.peers],
        "ports": ports,
        "priority": "0",
        "subject": str(entry.subject),
        "tier": "200",
        "verdict": "deny" if entry.deny else "allow",
    }


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if "entries" in case])
def test_entries_are_those_of_the_real_parser(name: str) -> None:
    case = CASES[name]
    assert [written(entry) for entry in entries_of(policy(name), ANY_CLUSTER)] == case["entries"]
    named = case.get("entries_clusterName_default", case["entries"])
    assert [written(entry) for entry in entries_of(policy(name), "default")] == named


def test_a_block_that_is_none() -> None:
    (name,) = [name for name, case in CASES.items() if "panic" in case]
    with pytest.raises(ValueError, match=r"10\.0\.0\.0/99"):
        entries_of(policy(name))


def test_the_recording_is_whole() -> None:
    assert len(CASES) == 108
