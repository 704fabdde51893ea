"""What the API server refuses although every field is known and of the right type.

One module a kind or family of kinds. Messages, fields and cause reasons are those of `pkg/apis/*/validation`
of Kubernetes 1.37, checked against recorded answers. Defaults are filled in before the server validates; the
checks here read a document as written and take an absent field for its default.
"""

from __future__ import annotations

from collections.abc import Callable

from kubenet_lab.manifests.validation.adminpolicy import admin_policy
from kubenet_lab.manifests.validation.cause import Cause, Causes, Json
from kubenet_lab.manifests.validation.cluster import config_map, namespace, node, secret
from kubenet_lab.manifests.validation.endpoints import endpoint_slice, endpoints
from kubenet_lab.manifests.validation.ingress import ingress, ingress_class
from kubenet_lab.manifests.validation.metadata import metadata
from kubenet_lab.manifests.validation.networkpolicy import network_policy
from kubenet_lab.manifests.validation.pod import pod
from kubenet_lab.manifests.validation.service import service
from kubenet_lab.manifests.validation.workload import (
    cron_job,
    daemon_set,
    deployment,
    job,
    replica_set,
    stateful_set,
)

_CHECKS: dict[str, Callable[[Json], Causes]] = {
    "v1/Service": service,
    "v1/Pod": pod,
    "v1/Endpoints": endpoints,
    "v1/Namespace": namespace,
    "v1/Node": node,
    "v1/ConfigMap": config_map,
    "v1/Secret": secret,
    "discovery.k8s.io/v1/EndpointSlice": endpoint_slice,
    "networking.k8s.io/v1/NetworkPolicy": network_policy,
    "policy.networking.k8s.io/v1alpha1/AdminNetworkPolicy": admin_policy,
    "policy.networking.k8s.io/v1alpha1/BaselineAdminNetworkPolicy": admin_policy,
    "policy.networking.k8s.io/v1alpha2/ClusterNetworkPolicy": admin_policy,
    "networking.k8s.io/v1/Ingress": ingress,
    "networking.k8s.io/v1/IngressClass": ingress_class,
    "apps/v1/Deployment": deployment,
    "apps/v1/ReplicaSet": replica_set,
    "apps/v1/StatefulSet": stateful_set,
    "apps/v1/DaemonSet": daemon_set,
    "batch/v1/Job": job,
    "batch/v1/CronJob": cron_job,
}


def causes(document: Json, typed: bool) -> Causes:
    """All refusals of one object; `typed` says it is one of Kubernetes' own kinds."""
    kind = f"{document['apiVersion']}/{document['kind']}"
    found = metadata(document, kind, typed)
    check = _CHECKS.get(kind)
    return found + check(document) if check is not None else found


__all__ = ["Cause", "Causes", "causes"]
