"""The values the API server fills in when it stores an object.

Only what the object itself decides is here; addresses and families of a Service depend on the cluster and are
given by `kubenet_lab.control.service_ip`. Source: `pkg/apis/*/v1/defaults.go` of Kubernetes 1.37, checked
against recorded answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec.structs import replace

from kubenet_lab.objects.endpoints import Endpoints
from kubenet_lab.objects.endpointslice import EndpointPort, EndpointSlice
from kubenet_lab.objects.ingress import Ingress, IngressClass
from kubenet_lab.objects.meta import ApiObject, Json, Part
from kubenet_lab.objects.namespace import Namespace, NamespaceSpec
from kubenet_lab.objects.networkpolicy import NetworkPolicy, NetworkPolicyPort
from kubenet_lab.objects.node import Node
from kubenet_lab.objects.pod import Container, Pod, PodSpec, PodTemplate, Toleration
from kubenet_lab.objects.secret import Secret
from kubenet_lab.objects.selector import LabelSelector
from kubenet_lab.objects.service import Service, ServicePort, ServiceSpec
from kubenet_lab.objects.workload import (
    DaemonSet,
    DaemonSetUpdateStrategy,
    Deployment,
    DeploymentStrategy,
    Job,
    JobSpec,
    ReplicaSet,
    RollingUpdate,
    RollingUpdateStatefulSet,
    StatefulSet,
    StatefulSetUpdateStrategy,
)

T = TypeVar("T")
S = TypeVar("S", bound=Part)

TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"
"""The annotation that counts a DaemonSet's templates."""

_NOT_READY_TOLERATIONS = tuple(
    Toleration(
        key=f"node.kubernetes.io/{what}", operator="Exists", effect="NoExecute", toleration_seconds=300
    )
    for what in ("not-ready", "unreachable")
)


def with_defaults(obj: T, stored: object = None) -> T:
    """A copy of an object with the defaults filled in.

    An object that has them all, or is `Generic`, comes back as it is. `stored` is what it takes the place of, which
    has them: a pod whose status alone is another is not gone through again.
    """
    if isinstance(obj, Pod) and isinstance(stored, Pod) and obj.spec is stored.spec:
        status = obj.status
        if status.phase and status.qos_class:
            return obj
    fill = _FILL.get(type(obj))
    if fill is None:
        return obj
    filled: T = fill(obj)
    return filled


def on_create(obj: T) -> T:
    """A copy with what only creation gives, and what depends on the uid, which the object has by now."""
    fill = _FILL_ON_CREATE.get(type(obj))
    if fill is None:
        return obj
    filled: T = fill(obj)
    return filled


def _new_job(job: Job) -> Job:
    """A Job selects its pods by its uid, unless it says that it selects them itself."""
    spec = job.spec
    if spec.manual_selector or spec.selector is not None:
        return job
    uid, name = job.metadata.uid, job.metadata.name
    labels = {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
    metadata = spec.template.metadata
    template = replace(spec.template, metadata=replace(metadata, labels={**metadata.labels, **labels}))
    selector = LabelSelector(match_labels={"batch.kubernetes.io/controller-uid": uid})
    return replace(job, spec=replace(spec, selector=selector, template=template))


def _new_daemon_set(daemon_set: DaemonSet) -> DaemonSet:
    annotations = daemon_set.metadata.annotations
    if TEMPLATE_GENERATION in annotations:
        return daemon_set
    made: DaemonSet = daemon_set.with_metadata(annotations={**annotations, TEMPLATE_GENERATION: "1"})
    return made


_FILL_ON_CREATE: dict[type, Callable[[Any], Any]] = {Job: _new_job, DaemonSet: _new_daemon_set}


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
    reachable = kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and filled.external_ips)
    if reachable and not filled.external_traffic_policy:
        filled = replace(filled, external_traffic_policy="Cluster")
    if kind == "LoadBalancer" and filled.allocate_load_balancer_node_ports is None:
        filled = replace(filled, allocate_load_balancer_node_ports=True)
    if filled.session_affinity == "ClientIP":
        client = (filled.session_affinity_config or {}).get("clientIP") or {}
        if client.get("timeoutSeconds") is None:
            filled = replace(filled, session_affinity_config={"clientIP": {"timeoutSeconds": 10800}})
    elif filled.session_affinity == "None" and filled.session_affinity_config is not None:
        filled = replace(filled, session_affinity_config=None)
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
    # One account under an old name and a new one.
    account = spec.service_account_name or spec.service_account
    return replace(
        spec,
        volumes=tuple(map(_volume, spec.volumes)) if spec.volumes else spec.volumes,
        service_account_name=account,
        service_account=account,
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
        env=tuple(map(_variable, container.env)) if container.env else container.env,
        resources=_resources(container.resources) if container.resources else {},
        lifecycle=_lifecycle(container.lifecycle),
        liveness_probe=_probe(container.liveness_probe),
        readiness_probe=_probe(container.readiness_probe),
        startup_probe=_probe(container.startup_probe),
        termination_message_path=container.termination_message_path or "/dev/termination-log",
        termination_message_policy=container.termination_message_policy or "File",
        image_pull_policy=container.image_pull_policy or ("Always" if latest else "IfNotPresent"),
    )


def _variable(variable: Json) -> Json:
    """A reference to a field of the pod is to its version v1."""
    source: Json = variable.get("valueFrom") or {}
    field = source.get("fieldRef")
    if not field or field.get("apiVersion"):
        return variable
    return {**variable, "valueFrom": {**source, "fieldRef": {"apiVersion": "v1", **field}}}


def _resources(resources: Json) -> Json:
    """Quantities as text; what is limited and not requested is requested up to the limit."""
    filled = dict(resources)
    for part in ("limits", "requests"):
        if resources.get(part):
            filled[part] = {
                name: value if isinstance(value, str) else str(value)
                for name, value in resources[part].items()
            }
    if filled.get("limits"):
        filled["requests"] = {**filled["limits"], **(filled.get("requests") or {})}
    return filled


_MODES = {"configMap": 420, "secret": 420, "downwardAPI": 420, "projected": 420}
"""`defaultMode` of files in these volumes: 0644."""


def _volume(volume: Json) -> Json:
    for kind, mode in _MODES.items():
        source = volume.get(kind)
        if source is not None and source.get("defaultMode") is None:
            return {**volume, kind: {**source, "defaultMode": mode}}
    path = volume.get("hostPath")
    if path is not None and path.get("type") is None:
        return {**volume, "hostPath": {**path, "type": ""}}
    return volume if len(volume) > 1 else {**volume, "emptyDir": {}}


def _lifecycle(lifecycle: Json | None) -> Json | None:
    if lifecycle is None:
        return None
    return {
        moment: {**hook, "httpGet": _http_get(hook["httpGet"])}
        if isinstance(hook, dict) and isinstance(hook.get("httpGet"), dict)
        else hook
        for moment, hook in lifecycle.items()
    }


def _http_get(get: Json) -> Json:
    return {**get, "path": get.get("path") or "/", "scheme": get.get("scheme") or "HTTP"}


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
        filled["httpGet"] = _http_get(probe["httpGet"])
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
        status=_reported(deployment.status, deployment),
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


def _stateful_set(stateful_set: StatefulSet) -> StatefulSet:
    spec, strategy = stateful_set.spec, stateful_set.spec.update_strategy
    if strategy.type in ("", "RollingUpdate"):
        given = strategy.rolling_update or RollingUpdateStatefulSet()
        strategy = StatefulSetUpdateStrategy(
            type="RollingUpdate",
            rolling_update=RollingUpdateStatefulSet(
                partition=given.partition or 0,
                max_unavailable=1 if given.max_unavailable is None else given.max_unavailable,
            ),
        )
    retention = spec.persistent_volume_claim_retention_policy or {}
    status = stateful_set.status
    return replace(
        stateful_set,
        spec=replace(
            spec,
            replicas=1 if spec.replicas is None else spec.replicas,
            template=_template(spec.template),
            pod_management_policy=spec.pod_management_policy or "OrderedReady",
            update_strategy=strategy,
            revision_history_limit=10 if spec.revision_history_limit is None else spec.revision_history_limit,
            persistent_volume_claim_retention_policy={
                when: retention.get(when) or "Retain" for when in ("whenDeleted", "whenScaled")
            },
        ),
        status=_reported(status, stateful_set),
    )


def _daemon_set(daemon_set: DaemonSet) -> DaemonSet:
    spec, strategy = daemon_set.spec, daemon_set.spec.update_strategy
    if strategy.type in ("", "RollingUpdate"):
        given = strategy.rolling_update or RollingUpdate()
        strategy = DaemonSetUpdateStrategy(
            type="RollingUpdate",
            rolling_update=RollingUpdate(
                max_unavailable=1 if given.max_unavailable is None else given.max_unavailable,
                max_surge=0 if given.max_surge is None else given.max_surge,
            ),
        )
    status = daemon_set.status
    return replace(
        daemon_set,
        spec=replace(
            spec,
            template=_template(spec.template),
            update_strategy=strategy,
            revision_history_limit=10 if spec.revision_history_limit is None else spec.revision_history_limit,
        ),
        status=_reported(status, daemon_set),
    )


def _reported(status: S, obj: ApiObject) -> S:
    """A status of its own in place of the shared default, so that it is written."""
    return replace(status) if status is _UNREPORTED[type(obj)] else status


_UNREPORTED: dict[type, Any] = {kind: kind().status for kind in (Deployment, StatefulSet, DaemonSet, Job)}


def _job(job: Job) -> Job:
    spec = job.spec
    completions, parallelism = spec.completions, spec.parallelism
    if completions is None and parallelism is None:
        completions = parallelism = 1
    return replace(
        job,
        spec=replace(
            spec,
            completions=completions,
            parallelism=1 if parallelism is None else parallelism,
            backoff_limit=_backoff_limit(spec),
            completion_mode=spec.completion_mode or "NonIndexed",
            suspend=False if spec.suspend is None else spec.suspend,
            pod_replacement_policy=spec.pod_replacement_policy
            or ("Failed" if spec.pod_failure_policy is not None else "TerminatingOrFailed"),
            manual_selector=False if spec.manual_selector is None else spec.manual_selector,
            template=_template(spec.template),
        ),
        status=_reported(job.status, job),
    )


def _backoff_limit(spec: JobSpec) -> int:
    if spec.backoff_limit is not None:
        return spec.backoff_limit
    return 6 if spec.backoff_limit_per_index is None else 2147483647


def _endpoints(endpoints: Endpoints) -> Endpoints:
    if all(port.protocol for subset in endpoints.subsets for port in subset.ports):
        return endpoints
    return replace(
        endpoints,
        subsets=tuple(
            replace(
                subset, ports=tuple(replace(port, protocol=port.protocol or "TCP") for port in subset.ports)
            )
            for subset in endpoints.subsets
        ),
    )


def _network_policy(policy: NetworkPolicy) -> NetworkPolicy:
    spec = policy.spec
    return replace(
        policy,
        spec=replace(
            spec,
            pod_selector=LabelSelector() if spec.pod_selector is None else spec.pod_selector,
            policy_types=spec.policy_types or (("Ingress", "Egress") if spec.egress else ("Ingress",)),
            ingress=tuple(replace(rule, ports=tuple(map(_policy_port, rule.ports))) for rule in spec.ingress),
            egress=tuple(replace(rule, ports=tuple(map(_policy_port, rule.ports))) for rule in spec.egress),
        ),
    )


def _policy_port(port: NetworkPolicyPort) -> NetworkPolicyPort:
    return port if port.protocol else replace(port, protocol="TCP")


def _ingress(ingress: Ingress) -> Ingress:
    if ingress.status.load_balancer is not None:
        return ingress
    return replace(ingress, status=replace(ingress.status, load_balancer={}))


def _ingress_class(ingress_class: IngressClass) -> IngressClass:
    parameters = ingress_class.spec.parameters
    if parameters is None or parameters.get("scope"):
        return ingress_class
    return replace(
        ingress_class, spec=replace(ingress_class.spec, parameters={**parameters, "scope": "Cluster"})
    )


def _secret(secret: Secret) -> Secret:
    # What is written as `stringData` is stored as `data`.
    data = {**secret.data, **secret.string_data}
    return replace(secret, type=secret.type or "Opaque", data=data, string_data={})


_NODE_INFO = (
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
)


def _node(node: Node) -> Node:
    """`podCIDR` and `podCIDRs` agree, and the status has its two parts that are always there."""
    spec, status = node.spec, node.status
    if spec.pod_cidr and spec.pod_cidrs[:1] != (spec.pod_cidr,):
        spec = replace(spec, pod_cidrs=(spec.pod_cidr,))
    elif spec.pod_cidrs and not spec.pod_cidr:
        spec = replace(spec, pod_cidr=spec.pod_cidrs[0])
    if status.daemon_endpoints is None or status.node_info is None:
        status = replace(
            status,
            daemon_endpoints=status.daemon_endpoints or {"kubeletEndpoint": {"Port": 0}},
            node_info=status.node_info or dict.fromkeys(_NODE_INFO, ""),
        )
    return node if spec is node.spec and status is node.status else replace(node, spec=spec, status=status)


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
    StatefulSet: _stateful_set,
    DaemonSet: _daemon_set,
    Job: _job,
    EndpointSlice: _endpoint_slice,
    Endpoints: _endpoints,
    NetworkPolicy: _network_policy,
    Ingress: _ingress,
    IngressClass: _ingress_class,
    Secret: _secret,
    Node: _node,
    Namespace: _namespace,
}
