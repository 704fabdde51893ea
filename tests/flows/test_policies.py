"""Every data plane that enforces policies lets through what the specification says, from pod to pod.

Where a network reads policies otherwise, `policy_readings.READINGS` says how and by which source, and the specification
judges what it has read. `KUBENET_ALL_POLICY_WORLDS=1` runs all recorded worlds.
"""

from __future__ import annotations

import os
from itertools import permutations
from typing import Any

import pytest

from kubenet_lab.cluster import Cluster
from kubenet_lab.objects import from_manifest
from kubenet_lab.policy.agent import WATCHED
from kubenet_lab.policy.world import CLUSTER, World
from kubenet_lab.reach import Reach
from tests.flows.policies import arrives, running
from tests.flows.policy_readings import CLUSTER_WIDE, READINGS, as_read
from tests.flows.test_calico import NFT_MODE
from tests.kubenet_lab.policy.worlds import manifests, tables, world_of
from tests.oracles import open_case

ALL = bool(os.environ.get("KUBENET_ALL_POLICY_WORLDS"))
PLANES: dict[str, dict[str, str]] = {
    "iptables": {"policy": "iptables"},
    "nftables": {"policy": "nftables", "cni": "flannel-host-gw"},
    "calico": {"cni": "calico"},
    "calico-nftables": {"cni": "calico"},
    "cilium": {"cni": "cilium"},
}
POLICIES = {"NetworkPolicy", *CLUSTER_WIDE.values()}
STEPS = {"random-": 137, "tiers-": 36, "disagreements-": 73}
"""Recorded worlds of a kind -> every how many-th is walked."""
NAMED = {
    "random-": ("random-0381", "random-0519", "random-0523"),
    "tiers-": ("tiers-0002",),
    "disagreements-": (
        "disagreements-0015",
        "disagreements-0071",
        "disagreements-0086",
        "disagreements-0105",
    ),
}
"""Worlds with all that some network reads otherwise: always walked."""


def sample(prefix: str) -> list[str]:
    """The names of the worlds to walk; IPv6 pods are not of these clusters."""
    names = tables(prefix)
    chosen = names if ALL else sorted({*names[:: STEPS[prefix]], *NAMED[prefix]})
    return [name for name in chosen if open_case("policy", name).get("family") != "v6"]


def judge(cluster: Cluster, case: dict[str, Any]) -> Reach:
    """What the specification says of a world's policies for the pods of a cluster, with their addresses there."""
    objects = [obj for kind in WATCHED for obj in cluster.store.list(kind) if obj.kind not in POLICIES]
    policies = [from_manifest(one) for one in manifests(case) if one["kind"] in POLICIES]
    return Reach(World.from_objects([*objects, *policies], (), CLUSTER))


def walked(cluster: Cluster, case: dict[str, Any], judged: Reach) -> tuple[int, list[str]]:
    """How many first packets were sent from pod to pod, and those that did not end as judged."""
    pods = [f"{pod['namespace']}/{pod['name']}" for pod in case["pods"]]
    packets, wrong = 0, []
    for source in pods:
        for target in pods:
            for probe in case["probes"][:4] if source != target else ():
                port, protocol = probe.split("/")
                got = arrives(cluster, source, target, int(port), protocol)
                packets += 1
                if got != judged.allowed(source, target, int(port), protocol):
                    wrong.append(f"{source} -> {target} {probe}: {'arrives' if got else 'is dropped'}")
    return packets, wrong


@pytest.mark.parametrize(
    ("plane", "prefix"),
    # Calico's two data planes get the same policies: of the second one kind of worlds is enough.
    [
        (plane, prefix)
        for plane in PLANES
        for prefix in STEPS
        if ALL or plane != "calico-nftables" or prefix == "random-"
    ],
)
def test_packets_from_pod_to_pod_end_as_the_policies_read_say(plane: str, prefix: str) -> None:
    worlds = packets = 0
    wrong: dict[str, list[str]] = {}
    for name in sample(prefix):
        case = open_case("policy", name)
        cluster = running(case, **PLANES[plane])
        if plane == "calico-nftables":
            cluster.apply(NFT_MODE)
        sent, differ = walked(cluster, case, judge(cluster, as_read(case, plane.removesuffix("-nftables"))))
        worlds, packets = worlds + 1, packets + sent
        if differ:
            wrong[name] = differ
    shown = [f"{name}: {line}" for name, lines in wrong.items() for line in lines[:5]]
    assert not wrong, f"{len(wrong)} of {worlds} worlds differ\n" + "\n".join(shown[:40])
    assert worlds >= 7
    assert packets > 300


DIFFERENCES = [(plane, what) for plane, listed in READINGS.items() for what, _source, _rewrite in listed]


@pytest.mark.parametrize(("plane", "what"), DIFFERENCES)
def test_each_difference_lets_other_packets_through(plane: str, what: str) -> None:
    """A reading that changed no answer would excuse nothing, and had better go."""
    for name in [*NAMED["random-"], *NAMED["disagreements-"], *sample("tiers-")]:
        case = open_case("policy", name)
        with_it, without = (Reach(world_of(as_read(case, plane, but=but))) for but in ("", what))
        pods = [f"{pod['namespace']}/{pod['name']}" for pod in case["pods"]]
        for probe in case["probes"]:
            port, protocol = probe.split("/")
            for pair in permutations(pods, 2):
                if with_it.allowed(*pair, int(port), protocol) != without.allowed(*pair, int(port), protocol):
                    return
    pytest.fail(f"no world shows {what}")


@pytest.mark.parametrize(
    ("cni", "unread"),
    [
        ("calico", {"AdminNetworkPolicy", "BaselineAdminNetworkPolicy"}),
        ("calico-vxlan", {"AdminNetworkPolicy", "BaselineAdminNetworkPolicy"}),
        ("cilium", set(CLUSTER_WIDE.values())),
    ],
)
def test_policies_that_a_network_does_not_read_are_told(cni: str, unread: set[str]) -> None:
    told: set[str] = set()
    for name in ("tiers-0002", next(n for n in tables("tiers-") if open_case("policy", n).get("banp"))):
        case = open_case("policy", name)
        sentences = running(case, cni=cni).unenforced
        told |= {kind for kind in CLUSTER_WIDE.values() for text in sentences if text.startswith(f"{kind} ")}
    assert told == unread
    assert not running(open_case("policy", "random-0523"), cni=cni).unenforced
