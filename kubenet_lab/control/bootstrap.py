"""What a new cluster holds before anybody applies anything: its namespaces, and the Service `kubernetes`.

The API server makes these itself (`pkg/controlplane/controller/{systemnamespaces,kubernetesservice}`).
"""

from __future__ import annotations

import ipaddress
from typing import Any

from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.objects import (
    Endpoint,
    EndpointConditions,
    EndpointPort,
    EndpointSlice,
    Namespace,
    ObjectMeta,
    Service,
    ServicePort,
    ServiceSpec,
)
from kubenet_lab.objects.endpointslice import SERVICE_NAME_LABEL
from kubenet_lab.store import Store

NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """Create what is missing of them."""
    wished: list[Any] = [Namespace(metadata=ObjectMeta(name=name)) for name in NAMESPACES]
    wished += [_kubernetes_service(settings), _kubernetes_slice(settings)]
    return [
        Change("create", obj, "every cluster has it")
        for obj in wished
        if store.find(obj.kind, obj.metadata.name, obj.metadata.namespace) is None
    ]


def _kubernetes_service(settings: Settings) -> Service:
    first = ipaddress.ip_network(settings.service_cluster_ip_range[0])[1]
    return Service(
        metadata=ObjectMeta(
            name="kubernetes",
            namespace="default",
            labels={"component": "apiserver", "provider": "kubernetes"},
        ),
        spec=ServiceSpec(
            cluster_ip=str(first),
            ip_family_policy="SingleStack",
            ports=(ServicePort(name="https", protocol="TCP", port=443, target_port=settings.api_server[1]),),
        ),
    )


def _kubernetes_slice(settings: Settings) -> EndpointSlice:
    address, port = settings.api_server
    return EndpointSlice(
        metadata=ObjectMeta(
            name="kubernetes", namespace="default", labels={SERVICE_NAME_LABEL: "kubernetes"}
        ),
        address_type="IPv6" if ":" in address else "IPv4",
        endpoints=(Endpoint(addresses=(address,), conditions=EndpointConditions(ready=True)),),
        ports=(EndpointPort(name="https", protocol="TCP", port=port),),
    )
