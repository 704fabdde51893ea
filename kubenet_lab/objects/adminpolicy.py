"""Policies of a whole cluster: AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy.

https://network-policy-api.sigs.k8s.io (API group `policy.networking.k8s.io`); KEP-2091. The first two are version
v1alpha1, the third took their place in v1alpha2.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from kubenet_lab.objects.meta import ApiObject, Json, Part
from kubenet_lab.objects.selector import LabelSelector


class NamespacedPods(Part, frozen=True, kw_only=True):
    """Pods by their labels in namespaces by theirs; in v1alpha2 no namespace selector means every namespace."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None


class AdminPolicySubject(Part, frozen=True, kw_only=True):
    """The pods a policy is about: one of the two is set."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPods | None = None


class AdminPolicyPeer(Part, frozen=True, kw_only=True):
    """The other side of a rule: exactly one field is set, and only egress has the last three."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPods | None = None
    networks: tuple[str, ...] = ()
    nodes: LabelSelector | None = None
    domain_names: tuple[str, ...] = ()


class PortNumber(Part, frozen=True, kw_only=True):
    """One port of v1alpha1."""

    protocol: str = "TCP"
    port: int


class PortRange(Part, frozen=True, kw_only=True):
    """Ports `start` to `end` of v1alpha1, both included."""

    protocol: str = "TCP"
    start: int
    end: int


class AdminNetworkPolicyPort(Part, frozen=True, kw_only=True):
    """What a rule of v1alpha1 is about: one of the three is set."""

    port_number: PortNumber | None = None
    port_range: PortRange | None = None
    named_port: str = ""


class AdminNetworkPolicyRule(Part, frozen=True, kw_only=True):
    """A rule of v1alpha1; `from_` in ingress, `to` in egress. The first that fits decides."""

    name: str = ""
    action: str
    from_: tuple[AdminPolicyPeer, ...] = ()
    to: tuple[AdminPolicyPeer, ...] = ()
    ports: tuple[AdminNetworkPolicyPort, ...] = ()


class AdminNetworkPolicySpec(Part, frozen=True, kw_only=True):
    """Before every NetworkPolicy: the lowest `priority` number is asked first."""

    priority: int = 0
    subject: AdminPolicySubject = AdminPolicySubject()
    ingress: tuple[AdminNetworkPolicyRule, ...] = ()
    egress: tuple[AdminNetworkPolicyRule, ...] = ()


class AdminNetworkPolicy(ApiObject, frozen=True, kw_only=True):
    """What the administrator allows, denies, or passes on to the NetworkPolicies."""

    spec: AdminNetworkPolicySpec = field(default_factory=AdminNetworkPolicySpec)
    status: Json = field(default_factory=dict)

    api_version: ClassVar[str] = "policy.networking.k8s.io/v1alpha1"
    kind: ClassVar[str] = "AdminNetworkPolicy"
    resource: ClassVar[str] = "adminnetworkpolicies"
    namespaced: ClassVar[bool] = False


class BaselineAdminNetworkPolicySpec(Part, frozen=True, kw_only=True):
    """For pods that no NetworkPolicy selects in the direction."""

    subject: AdminPolicySubject = AdminPolicySubject()
    ingress: tuple[AdminNetworkPolicyRule, ...] = ()
    egress: tuple[AdminNetworkPolicyRule, ...] = ()


class BaselineAdminNetworkPolicy(ApiObject, frozen=True, kw_only=True):
    """The cluster's default; there is one, named `default`."""

    spec: BaselineAdminNetworkPolicySpec = field(default_factory=BaselineAdminNetworkPolicySpec)
    status: Json = field(default_factory=dict)

    api_version: ClassVar[str] = "policy.networking.k8s.io/v1alpha1"
    kind: ClassVar[str] = "BaselineAdminNetworkPolicy"
    resource: ClassVar[str] = "baselineadminnetworkpolicies"
    namespaced: ClassVar[bool] = False


class DestinationRange(Part, frozen=True, kw_only=True):
    """Ports `start` to `end`, both included."""

    start: int
    end: int


class DestinationPort(Part, frozen=True, kw_only=True):
    """One number or a range."""

    number: int | None = None
    range: DestinationRange | None = None


class ProtocolPorts(Part, frozen=True, kw_only=True):
    """The ports of one protocol; all of them when none is given."""

    destination_port: DestinationPort | None = None


class ClusterNetworkPolicyProtocol(Part, frozen=True, kw_only=True):
    """What a rule of v1alpha2 is about: one field is set."""

    tcp: ProtocolPorts | None = None
    udp: ProtocolPorts | None = None
    sctp: ProtocolPorts | None = None
    destination_named_port: str = ""


class ClusterNetworkPolicyRule(Part, frozen=True, kw_only=True):
    """A rule of v1alpha2; `from_` in ingress, `to` in egress."""

    name: str = ""
    action: str
    from_: tuple[AdminPolicyPeer, ...] = ()
    to: tuple[AdminPolicyPeer, ...] = ()
    protocols: tuple[ClusterNetworkPolicyProtocol, ...] = ()


class ClusterNetworkPolicySpec(Part, frozen=True, kw_only=True):
    """`tier` Admin comes before every NetworkPolicy, Baseline after them."""

    tier: str = "Admin"
    priority: int = 0
    subject: AdminPolicySubject = AdminPolicySubject()
    ingress: tuple[ClusterNetworkPolicyRule, ...] = ()
    egress: tuple[ClusterNetworkPolicyRule, ...] = ()


class ClusterNetworkPolicy(ApiObject, frozen=True, kw_only=True):
    """A policy of the whole cluster, in one of two tiers."""

    spec: ClusterNetworkPolicySpec = field(default_factory=ClusterNetworkPolicySpec)
    status: Json = field(default_factory=dict)

    api_version: ClassVar[str] = "policy.networking.k8s.io/v1alpha2"
    kind: ClassVar[str] = "ClusterNetworkPolicy"
    resource: ClassVar[str] = "clusternetworkpolicies"
    namespaced: ClassVar[bool] = False
