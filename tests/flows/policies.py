"""Recorded worlds of policies as running clusters, and whether a first packet gets from pod to pod there."""

from __future__ import annotations

from typing import Any

from kubenet_lab.cluster import Cluster
from kubenet_lab.objects import from_manifest
from kubenet_lab.packet.packet import SCTP, SYN, TCP, UDP, Packet
from tests.kubenet_lab.policy.worlds import manifests

PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
NODES = {"node1": "node-1", "node2": "node-2"}


def running(case: dict[str, Any], **options: Any) -> Cluster:
    """A recorded world on two nodes; pods are given addresses anew, so its blocks mean others than recorded.

    Pods of a world that names no nodes go to the two in turn.
    """
    objects = []
    nodes = {
        (pod["namespace"], pod["name"]): NODES[pod["node"]] if "node" in pod else f"node-{1 + at % 2}"
        for at, pod in enumerate(case["pods"])
    }
    for manifest in manifests(case):
        if manifest["kind"] == "Node":
            continue
        manifest = {**manifest}
        manifest.pop("status", None)
        if manifest["kind"] == "Pod":
            node = nodes[manifest["metadata"]["namespace"], manifest["metadata"]["name"]]
            manifest["spec"] = {**manifest["spec"], "nodeName": node}
        objects.append(from_manifest(manifest))
    return Cluster.from_objects(objects, nodes=2, dns=False, **options)


def arrives(cluster: Cluster, source: str, target: str, port: int, protocol: str) -> bool:
    """Whether the first packet of a connection is let into the target pod."""
    space, _, name = target.partition("/")
    sender, _, pod = source.partition("/")
    start = cluster.pod(pod, sender).ips[0]
    flags = SYN if protocol == "TCP" else 0
    packet = Packet(start, cluster.pod(name, space).ips[0], PROTOCOLS[protocol], 0, port, flags=flags)
    trace = cluster.walk().send(source, packet)
    return any(hop.netns == target for hop in trace.hops)
