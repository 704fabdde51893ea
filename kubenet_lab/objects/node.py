"""Nodes. https://kubernetes.io/docs/concepts/architecture/nodes/"""

from __future__ import annotations

from typing import ClassVar

from msgspec import field
from msgspec.structs import replace

from kubenet_lab.objects.meta import ApiObject, Json, ObjectMeta, Part

HOSTNAME_LABEL = "kubernetes.io/hostname"
ZONE_LABEL = "topology.kubernetes.io/zone"


class Taint(Part, frozen=True, kw_only=True):
    """What keeps pods away that do not tolerate it; `effect` is NoSchedule, PreferNoSchedule or NoExecute."""

    key: str
    effect: str
    value: str = ""
    time_added: str | None = None


class NodeAddress(Part, frozen=True, kw_only=True):
    """An address of the machine; `type` is InternalIP, ExternalIP, Hostname, InternalDNS or ExternalDNS."""

    type: str
    address: str


class NodeCondition(Part, frozen=True, kw_only=True):
    """One of the kubelet's reports: Ready, MemoryPressure, NetworkUnavailable, ..."""

    type: str
    status: str
    last_heartbeat_time: str | None = None
    last_transition_time: str | None = None
    reason: str = ""
    message: str = ""


class NodeSpec(Part, frozen=True, kw_only=True):
    """The node's pod address ranges, and what keeps pods off it."""

    pod_cidr: str = ""
    pod_cidrs: tuple[str, ...] = ()
    provider_id: str = ""
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()
    config_source: Json | None = None
    external_id: str = ""
    pod_preemption_policy: Json | None = None


class NodeStatus(Part, frozen=True, kw_only=True):
    """What the kubelet reports."""

    capacity: Json = field(default_factory=dict)
    allocatable: Json = field(default_factory=dict)
    phase: str = ""
    conditions: tuple[NodeCondition, ...] = ()
    addresses: tuple[NodeAddress, ...] = ()
    daemon_endpoints: Json | None = None
    node_info: Json | None = None
    images: tuple[Json, ...] = ()
    volumes_in_use: tuple[str, ...] = ()
    volumes_attached: tuple[Json, ...] = ()
    config: Json | None = None
    runtime_handlers: tuple[Json, ...] = ()
    features: Json | None = None
    declared_features: tuple[str, ...] = ()


class Node(ApiObject, frozen=True, kw_only=True):
    """A machine that runs pods."""

    spec: NodeSpec = field(default_factory=NodeSpec)
    status: NodeStatus = NodeStatus()

    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "Node"
    resource: ClassVar[str] = "nodes"
    namespaced: ClassVar[bool] = False

    @property
    def internal_ips(self) -> tuple[str, ...]:
        """The machine's own addresses, the primary family first."""
        return tuple(item.address for item in self.status.addresses if item.type == "InternalIP")

    @property
    def zone(self) -> str:
        """The zone from the node's label; empty where it has none."""
        return self.metadata.labels.get(ZONE_LABEL, "")

    @property
    def ready(self) -> bool:
        """Whether the node reports Ready.

        A node that reports nothing counts as ready, as hand-written ones are.
        """
        return all(item.status == "True" for item in self.status.conditions if item.type == "Ready")

    def with_pod_cidrs(self, pod_cidrs: tuple[str, ...]) -> Node:
        """A copy with these pod address ranges; `podCIDR` is the first of them."""
        return replace(
            self, spec=replace(self.spec, pod_cidr=pod_cidrs[0] if pod_cidrs else "", pod_cidrs=pod_cidrs)
        )


def make_node(name: str, addresses: tuple[str, ...], zone: str = "") -> Node:
    """A ready node with a hostname label, as kubelet registers one."""
    labels = {HOSTNAME_LABEL: name}
    if zone:
        labels[ZONE_LABEL] = zone
    return Node(
        metadata=ObjectMeta(name=name, labels=labels),
        status=NodeStatus(
            addresses=(
                *(NodeAddress(type="InternalIP", address=address) for address in addresses),
                NodeAddress(type="Hostname", address=name),
            ),
            conditions=(NodeCondition(type="Ready", status="True", reason="KubeletReady"),),
        ),
    )


def default_nodes(count: int = 3, dual_stack: bool = False) -> list[Node]:
    """The nodes a world gets that has none of its own: node-1, node-2, ... at 192.168.1.10, .20, ..., zones
    a, b, c in turn.

    With more than 24 of them the addresses go on at 192.168.2.10.

    Raises:
        ValueError: `count` is below 1 or above 6,000.
    """
    if not 1 <= count <= 6000:
        raise ValueError(f"a world has 1 to 6000 nodes, not {count}")
    nodes = []
    for index in range(count):
        # fd00:192:168:1::10 reads like 192.168.1.10: the last group is decimal digits used as hexadecimal.
        third, fourth = 1 + index // 24, 10 * (index % 24 + 1)
        addresses = [f"192.168.{third}.{fourth}"]
        if dual_stack:
            addresses.append(f"fd00:192:168:{third}::{fourth}")
        nodes.append(make_node(f"node-{index + 1}", tuple(addresses), f"zone-{'abc'[index % 3]}"))
    return nodes
