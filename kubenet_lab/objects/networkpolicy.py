"""NetworkPolicies. https://kubernetes.io/docs/concepts/services-networking/network-policies/"""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from kubenet_lab.objects.meta import ApiObject, Part
from kubenet_lab.objects.selector import LabelSelector


class NetworkPolicyPort(Part, frozen=True, kw_only=True):
    """A port: a number, a container port's name, or (None) every one; up to `end_port`."""

    protocol: str | None = None
    port: int | str | None = None
    end_port: int | None = None


class IPBlock(Part, frozen=True, kw_only=True):
    """A prefix without the prefixes in `except_`."""

    cidr: str
    except_: tuple[str, ...] = ()


class NetworkPolicyPeer(Part, frozen=True, kw_only=True):
    """Pods by label, of the policy's own namespace or of those selected; or a block of addresses.

    A selector that is None is not set; an empty one selects everything.
    """

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None


class NetworkPolicyIngressRule(Part, frozen=True, kw_only=True):
    """Lets these peers in to these ports; no peers means all of them, no ports all of them."""

    ports: tuple[NetworkPolicyPort, ...] = ()
    from_: tuple[NetworkPolicyPeer, ...] = ()


class NetworkPolicyEgressRule(Part, frozen=True, kw_only=True):
    """Lets the pods out to these peers and ports; no peers means all of them, no ports all of them."""

    ports: tuple[NetworkPolicyPort, ...] = ()
    to: tuple[NetworkPolicyPeer, ...] = ()


class NetworkPolicySpec(Part, frozen=True, kw_only=True):
    """Which pods are isolated in which direction (`policy_types`), and what is let through.

    `pod_selector` is None only until defaults are filled in.
    """

    pod_selector: LabelSelector | None = None
    ingress: tuple[NetworkPolicyIngressRule, ...] = ()
    egress: tuple[NetworkPolicyEgressRule, ...] = ()
    policy_types: tuple[str, ...] = ()


class NetworkPolicy(ApiObject, frozen=True, kw_only=True):
    """Says what may reach some pods of its namespace, and what they may reach."""

    spec: NetworkPolicySpec = field(default_factory=NetworkPolicySpec)

    api_version: ClassVar[str] = "networking.k8s.io/v1"
    kind: ClassVar[str] = "NetworkPolicy"
    resource: ClassVar[str] = "networkpolicies"
