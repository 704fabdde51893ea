"""The values the API server fills in when it stores an object.

Only what the object itself decides is here; addresses and families of a Service depend on the cluster and are
given by `kubenet_lab.control.service_ip`. Source: `pkg/apis/*/v1/defaults.go` of Kubernetes 1.37, checked
against recorded answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec.structs import replace

from kubenet_lab.objects.endpointslice import EndpointPort, EndpointSlice
from kubenet_lab.objects.meta import Json
from kubenet_lab.objects.namespace import Namespace, NamespaceSpec
from kubenet_lab.objects.pod import Container, Pod, PodSpec, PodTemplate, Toleration
from kubenet_lab.objects.service import Service, ServicePort, ServiceSpec
from kubenet_lab.objects.workload import Deployment, DeploymentStrategy, ReplicaSet, RollingUpdate

T = TypeVar("T")

_NOT_READY_TOLERATIONS = tuple(
    Toleration(
        key=f"node.kubernetes.io/{what}", operator="Exists", effect="NoExecute", toleration_seconds=300
    )
    for what in ("not-ready", "unreachable")
)


def with_defaults(obj: T) -> T:
    """A copy of an object with the defaults filled in.

    An object that has them all, or is `Generic`, comes back as it is.
    """
    fill = _FILL.get(type(obj))
    if fill is None:
        return obj
    filled: T = fill(obj)
    return filled


def _service(service: Service) -> Service:
    spec = service.spec
    kind = spec.type or "ClusterIP"
    ports = tuple(_service_port(port) for port in spec.ports)
    filled: ServiceSpec = replace(
        spec,
        type=kind,
        session_affinity=spec.session_affinity or "None",
        ports=ports if ports != spec.ports else spec.ports,
    )
    if kind != "ExternalName" and filled.internal_traffic_policy is None:
        filled = replace(filled, internal_traffic_policy="Cluster")
    if kind in ("NodePort", "LoadBalancer") and not filled.external_traffic_policy:
        filled = replace(filled, external_traffic_policy="Cluster")
    if kind == "LoadBalancer" and filled.allocate_load_balancer_node_ports is None:
        filled = replace(filled, allocate_load_balancer_node_ports=True)
    if filled.session_affinity == "ClientIP" and filled.session_affinity_config is None:
        filled = replace(filled, session_affinity_config={"clientIP": {"timeoutSeconds": 10800}})
    status = service.status
    if status.load_balancer is None:
        status = replace(status, load_balancer={})
    return replace(service, spec=filled, status=status)


def _service_port(port: ServicePort) -> ServicePort:
    target = port.target_port
    if port.protocol and target not in (None, "", 0):
        return port
    return replace(
        port, protocol=port.protocol or "TCP", target_port=port.port if target in (None, "", 0) else target
    )


def _pod(pod: Pod) -> Pod:
    spec = _pod_spec(pod.spec)
    spec = replace(
        spec,
        tolerations=_tolerations(spec.tolerations),
        priority=0 if spec.priority is None else spec.priority,
        preemption_policy=spec.preemption_policy or "PreemptLowerPriority",
        enable_service_links=True if spec.enable_service_links is None else spec.enable_service_links,
    )
    status = replace(
        pod.status,
        phase=pod.status.phase or "Pending",
        qos_class=pod.status.qos_class or _qos_class(spec),
    )
    return replace(pod, spec=spec, status=status)


def _tolerations(given: tuple[Toleration, ...]) -> tuple[Toleration, ...]:
    """The admission plugin DefaultTolerationSeconds: five minutes on a node that is not ready or not
    reachable.
    """
    missing = tuple(
        wanted
        for wanted in _NOT_READY_TOLERATIONS
        if not any(item.key in (wanted.key, "") and item.effect in ("NoExecute", "") for item in given)
    )
    return given + missing


def _qos_class(spec: PodSpec) -> str:
    """The pod's quality of service class, which the API server works out at creation
    (`pkg/apis/core/v1/helper/qos`).
    """
    guaranteed, anything = True, False
    for container in (*spec.init_containers, *spec.containers):
        resources = container.resources or {}
        requests: Json = resources.get("requests") or {}
        limits: Json = resources.get("limits") or {}
        asked = {key for key in ("cpu", "memory") if key in requests or key in limits}
        anything = anything or bool(asked)
        for key in ("cpu", "memory"):
            if key not in limits or requests.get(key, limits[key]) != limits[key]:
                guaranteed = False
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _pod_spec(spec: PodSpec) -> PodSpec:
    return replace(
        spec,
        containers=tuple(_container(item, spec.host_network) for item in spec.containers),
        init_containers=tuple(_container(item, spec.host_network) for item in spec.init_containers),
        restart_policy=spec.restart_policy or "Always",
        termination_grace_period_seconds=(
            30 if spec.termination_grace_period_seconds is None else spec.termination_grace_period_seconds
        ),
        dns_policy=spec.dns_policy or "ClusterFirst",
        security_context={} if spec.security_context is None else spec.security_context,
        scheduler_name=spec.scheduler_name or "default-scheduler",
    )


def _container(container: Container, host_network: bool) -> Container:
    tag = container.image.rpartition("/")[2]
    latest = "@" not in tag and (":" not in tag or tag.endswith(":latest"))
    ports = tuple(
        replace(
            port,
            protocol=port.protocol or "TCP",
            host_port=port.container_port if host_network and not port.host_port else port.host_port,
        )
        for port in container.ports
    )
    return replace(
        container,
        ports=ports,
        resources={} if container.resources is None else container.resources,
        liveness_probe=_probe(container.liveness_probe),
        readiness_probe=_probe(container.readiness_probe),
        startup_probe=_probe(container.startup_probe),
        termination_message_path=container.termination_message_path or "/dev/termination-log",
        termination_message_policy=container.termination_message_policy or "File",
        image_pull_policy=container.image_pull_policy or ("Always" if latest else "IfNotPresent"),
    )


def _probe(probe: Json | None) -> Json | None:
    if probe is None:
        return None
    filled = {
        **probe,
        "timeoutSeconds": probe.get("timeoutSeconds") or 1,
        "periodSeconds": probe.get("periodSeconds") or 10,
        "successThreshold": probe.get("successThreshold") or 1,
        "failureThreshold": probe.get("failureThreshold") or 3,
    }
    if isinstance(probe.get("httpGet"), dict):
        get = probe["httpGet"]
        filled["httpGet"] = {**get, "path": get.get("path") or "/", "scheme": get.get("scheme") or "HTTP"}
    if isinstance(probe.get("grpc"), dict):
        filled["grpc"] = {**probe["grpc"], "service": probe["grpc"].get("service") or ""}
    return filled


def _template(template: PodTemplate) -> PodTemplate:
    return replace(template, spec=_pod_spec(template.spec))


def _deployment(deployment: Deployment) -> Deployment:
    spec = deployment.spec
    strategy = spec.strategy
    if strategy.type in ("", "RollingUpdate"):
        given = strategy.rolling_update or RollingUpdate()
        strategy = DeploymentStrategy(
            type="RollingUpdate",
            rolling_update=RollingUpdate(
                max_unavailable="25%" if given.max_unavailable is None else given.max_unavailable,
                max_surge="25%" if given.max_surge is None else given.max_surge,
            ),
        )
    return replace(
        deployment,
        spec=replace(
            spec,
            replicas=1 if spec.replicas is None else spec.replicas,
            strategy=strategy,
            template=_template(spec.template),
            revision_history_limit=10 if spec.revision_history_limit is None else spec.revision_history_limit,
            progress_deadline_seconds=600
            if spec.progress_deadline_seconds is None
            else spec.progress_deadline_seconds,
        ),
    )


def _replica_set(replica_set: ReplicaSet) -> ReplicaSet:
    spec, status = replica_set.spec, replica_set.status
    return replace(
        replica_set,
        spec=replace(
            spec, replicas=1 if spec.replicas is None else spec.replicas, template=_template(spec.template)
        ),
        status=replace(status, replicas=0) if status.replicas is None else status,
    )


def _endpoint_slice(endpoint_slice: EndpointSlice) -> EndpointSlice:
    ports = endpoint_slice.ports
    if all(port.name is not None and port.protocol is not None for port in ports):
        return endpoint_slice
    filled = tuple(
        EndpointPort(
            name=port.name or "",
            protocol=port.protocol or "TCP",
            port=port.port,
            app_protocol=port.app_protocol,
        )
        for port in ports
    )
    return replace(endpoint_slice, ports=filled)


def _namespace(namespace: Namespace) -> Namespace:
    metadata = namespace.metadata
    label = {"kubernetes.io/metadata.name": metadata.name}
    return replace(
        namespace,
        metadata=replace(metadata, labels={**label, **metadata.labels, **label}),
        spec=namespace.spec if namespace.spec.finalizers else NamespaceSpec(finalizers=("kubernetes",)),
        status=namespace.status if namespace.status.phase else replace(namespace.status, phase="Active"),
    )


_FILL: dict[type, Callable[[Any], Any]] = {
    Service: _service,
    Pod: _pod,
    Deployment: _deployment,
    ReplicaSet: _replica_set,
    EndpointSlice: _endpoint_slice,
    Namespace: _namespace,
}
