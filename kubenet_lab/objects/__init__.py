"""What the Kubernetes API holds, as frozen values.

`KINDS` lists the typed kinds; every other kind is a `Generic` that loses nothing. `from_manifest` reads one
object, `obj.to_manifest()` writes it; reading text with good errors is `kubenet_lab.manifests`.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from kubenet_lab.objects.adminpolicy import (
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
)
from kubenet_lab.objects.configmap import ConfigMap
from kubenet_lab.objects.defaults import with_defaults
from kubenet_lab.objects.endpoints import EndpointAddress, Endpoints, EndpointsPort, EndpointSubset
from kubenet_lab.objects.endpointslice import (
    Endpoint,
    EndpointConditions,
    EndpointHints,
    EndpointPort,
    EndpointSlice,
    ObjectReference,
)
from kubenet_lab.objects.generic import Generic
from kubenet_lab.objects.ingress import Ingress, IngressClass
from kubenet_lab.objects.meta import ApiObject, Json, ObjectMeta, OwnerReference, Part, owned_by
from kubenet_lab.objects.namespace import Namespace
from kubenet_lab.objects.networkpolicy import (
    IPBlock,
    NetworkPolicy,
    NetworkPolicyEgressRule,
    NetworkPolicyIngressRule,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    NetworkPolicySpec,
)
from kubenet_lab.objects.node import Node, NodeAddress, NodeSpec, NodeStatus, default_nodes, make_node
from kubenet_lab.objects.pod import (
    Container,
    ContainerPort,
    ListeningPort,
    Pod,
    PodDNSConfig,
    PodSpec,
    PodStatus,
    PodTemplate,
    listening_ports,
)
from kubenet_lab.objects.secret import Secret, without_values
from kubenet_lab.objects.selector import LabelSelector, LabelSelectorRequirement, matches_map
from kubenet_lab.objects.service import Service, ServicePort, ServiceSpec
from kubenet_lab.objects.serviceaccount import ServiceAccount
from kubenet_lab.objects.workload import (
    DaemonSet,
    DaemonSetSpec,
    Deployment,
    DeploymentSpec,
    Job,
    JobSpec,
    ReplicaSet,
    ReplicaSetSpec,
    StatefulSet,
    StatefulSetSpec,
)

AnyObject: TypeAlias = ApiObject | Generic
"""What the store holds."""

KINDS: tuple[type[ApiObject], ...] = (
    Namespace,
    Node,
    ConfigMap,
    Service,
    Pod,
    EndpointSlice,
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
    Endpoints,
    NetworkPolicy,
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
    Ingress,
    IngressClass,
    Secret,
    ServiceAccount,
)
"""The kinds that have a type."""

_TYPES: dict[tuple[str, str], type[ApiObject]] = {(cls.api_version, cls.kind): cls for cls in KINDS}


def type_of(api_version: str, kind: str) -> type[ApiObject] | None:
    """The class of a kind, or None where it has none of its own."""
    return _TYPES.get((api_version, kind))


def from_manifest(
    manifest: Json, namespaced: bool = True, resource: str = "", *, nulls: bool = True
) -> AnyObject:
    """One object from plain dicts and lists, the inverse of `to_manifest`.

    `namespaced` and `resource` describe a kind that has no type; `nulls` False promises that no value is
    null. Keys whose value is null count as absent, as
    they do for the API server.

    Raises:
        msgspec.ValidationError: A field has a wrong type. (`manifests.load` finds all of them, with their
        places.)
        KeyError: `apiVersion` or `kind` is missing.
    """
    api_version, kind = manifest["apiVersion"], manifest["kind"]
    cls = _TYPES.get((api_version, kind))
    if cls is Secret:
        manifest = without_values(manifest)
    if cls is not None:
        return msgspec.convert(without_nulls(manifest) if nulls else manifest, cls)
    content = {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind", "metadata")}
    metadata = msgspec.convert(without_nulls(manifest.get("metadata") or {}), ObjectMeta)
    return Generic(
        api_version=api_version,
        kind=kind,
        metadata=metadata,
        content=content,
        namespaced=namespaced,
        resource=resource,
    )


def without_nulls(value: Json) -> Json:
    """The same mapping without the keys whose value is null, at every depth.

    Go's decoder treats them as absent.
    """
    return {key: _without_nulls(item) for key, item in value.items() if item is not None}


def _without_nulls(value: object) -> object:
    if type(value) is dict:
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if type(value) is list:
        return [_without_nulls(item) for item in value]
    return value


__all__ = [
    "KINDS",
    "AdminNetworkPolicy",
    "AnyObject",
    "ApiObject",
    "BaselineAdminNetworkPolicy",
    "ClusterNetworkPolicy",
    "ConfigMap",
    "Container",
    "ContainerPort",
    "DaemonSet",
    "DaemonSetSpec",
    "Deployment",
    "DeploymentSpec",
    "Endpoint",
    "EndpointAddress",
    "EndpointConditions",
    "EndpointHints",
    "EndpointPort",
    "EndpointSlice",
    "EndpointSubset",
    "Endpoints",
    "EndpointsPort",
    "Generic",
    "IPBlock",
    "Ingress",
    "IngressClass",
    "Job",
    "JobSpec",
    "Json",
    "LabelSelector",
    "LabelSelectorRequirement",
    "ListeningPort",
    "Namespace",
    "NetworkPolicy",
    "NetworkPolicyEgressRule",
    "NetworkPolicyIngressRule",
    "NetworkPolicyPeer",
    "NetworkPolicyPort",
    "NetworkPolicySpec",
    "Node",
    "NodeAddress",
    "NodeSpec",
    "NodeStatus",
    "ObjectMeta",
    "ObjectReference",
    "OwnerReference",
    "Part",
    "Pod",
    "PodDNSConfig",
    "PodSpec",
    "PodStatus",
    "PodTemplate",
    "ReplicaSet",
    "ReplicaSetSpec",
    "Secret",
    "Service",
    "ServiceAccount",
    "ServicePort",
    "ServiceSpec",
    "StatefulSet",
    "StatefulSetSpec",
    "default_nodes",
    "from_manifest",
    "listening_ports",
    "make_node",
    "matches_map",
    "owned_by",
    "type_of",
    "with_defaults",
    "without_nulls",
]
