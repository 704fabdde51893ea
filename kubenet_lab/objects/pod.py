"""Pods. https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct, field
from msgspec.structs import replace

from kubenet_lab.objects.meta import ApiObject, Json, ObjectMeta, Part


class ContainerPort(Part, frozen=True, kw_only=True):
    """A port a container declares.

    Declaring does not open it and not declaring does not close it; see `listening_ports`.
    """

    container_port: int
    name: str = ""
    protocol: str = ""
    host_port: int = 0
    host_ip: str = ""


class Container(Part, frozen=True, kw_only=True):
    """One container of a pod."""

    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str = ""
    ports: tuple[ContainerPort, ...] = ()
    env: tuple[Json, ...] = ()
    env_from: tuple[Json, ...] = ()
    resources: Json | None = None
    resize_policy: tuple[Json, ...] = ()
    restart_policy: str = ""
    restart_policy_rules: tuple[Json, ...] = ()
    volume_mounts: tuple[Json, ...] = ()
    volume_devices: tuple[Json, ...] = ()
    liveness_probe: Json | None = None
    readiness_probe: Json | None = None
    startup_probe: Json | None = None
    lifecycle: Json | None = None
    termination_message_path: str = ""
    termination_message_policy: str = ""
    image_pull_policy: str = ""
    security_context: Json | None = None
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False


class Toleration(Part, frozen=True, kw_only=True):
    """A taint the pod puts up with."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class HostAlias(Part, frozen=True, kw_only=True):
    """An extra line in the pod's /etc/hosts."""

    ip: str
    hostnames: tuple[str, ...] = ()


class PodDNSConfigOption(Part, frozen=True, kw_only=True):
    """A resolv.conf option: `ndots:5` is name `ndots`, value `5`."""

    name: str = ""
    value: str | None = None


class PodDNSConfig(Part, frozen=True, kw_only=True):
    """What the pod adds to (or, with dnsPolicy None, puts in place of) the kubelet's resolv.conf."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[PodDNSConfigOption, ...] = ()


class PodSpec(Part, frozen=True, kw_only=True):
    """What shall run."""

    volumes: tuple[Json, ...] = ()
    init_containers: tuple[Container, ...] = ()
    containers: tuple[Container, ...] = ()
    ephemeral_containers: tuple[Json, ...] = ()
    restart_policy: str = ""
    termination_grace_period_seconds: int | None = None
    active_deadline_seconds: int | None = None
    dns_policy: str = ""
    node_selector: dict[str, str] = field(default_factory=dict)
    service_account_name: str = ""
    service_account: str = ""
    automount_service_account_token: bool | None = None
    node_name: str = ""
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    share_process_namespace: bool | None = None
    security_context: Json | None = None
    image_pull_secrets: tuple[Json, ...] = ()
    hostname: str = ""
    hostname_override: str | None = None
    subdomain: str = ""
    affinity: Json | None = None
    scheduler_name: str = ""
    tolerations: tuple[Toleration, ...] = ()
    host_aliases: tuple[HostAlias, ...] = ()
    priority_class_name: str = ""
    priority: int | None = None
    dns_config: PodDNSConfig | None = None
    readiness_gates: tuple[Json, ...] = ()
    runtime_class_name: str | None = None
    enable_service_links: bool | None = None
    preemption_policy: str | None = None
    overhead: Json | None = None
    topology_spread_constraints: tuple[Json, ...] = ()
    set_hostname_as_fqdn: bool | None = None
    os: Json | None = None
    host_users: bool | None = None
    scheduling_gates: tuple[Json, ...] = ()
    scheduling_group: Json | None = None
    resource_claims: tuple[Json, ...] = ()
    resources: Json | None = None
    eviction_responders: tuple[Json, ...] = ()


class PodCondition(Part, frozen=True, kw_only=True):
    """One of PodScheduled, Initialized, ContainersReady, Ready, or a readiness gate's own."""

    type: str
    status: str
    observed_generation: int = 0
    last_probe_time: str | None = None
    last_transition_time: str | None = None
    reason: str = ""
    message: str = ""


class ContainerStatus(Part, frozen=True, kw_only=True):
    """What one container is doing."""

    name: str
    state: Json = field(default_factory=dict)
    last_state: Json = field(default_factory=dict)
    ready: bool = False
    restart_count: int = 0
    image: str = ""
    image_id: str = ""
    container_id: str = ""
    started: bool | None = None
    allocated_resources: Json = field(default_factory=dict)
    allocated_resources_status: tuple[Json, ...] = ()
    resources: Json | None = None
    volume_mounts: tuple[Json, ...] = ()
    user: Json | None = None
    stop_signal: str | None = None


class PodIP(Part, frozen=True, kw_only=True):
    """An address of the pod, one a family."""

    ip: str


class HostIP(Part, frozen=True, kw_only=True):
    """An address of the pod's node, one a family."""

    ip: str


class PodStatus(Part, frozen=True, kw_only=True):
    """What the kubelet (and, before it, the scheduler) reports."""

    observed_generation: int = 0
    phase: str = ""
    conditions: tuple[PodCondition, ...] = ()
    message: str = ""
    reason: str = ""
    nominated_node_name: str = ""
    host_ip: str = ""
    host_ips: tuple[HostIP, ...] = ()
    pod_ip: str = ""
    pod_ips: tuple[PodIP, ...] = ()
    start_time: str | None = None
    init_container_statuses: tuple[ContainerStatus, ...] = ()
    container_statuses: tuple[ContainerStatus, ...] = ()
    ephemeral_container_statuses: tuple[ContainerStatus, ...] = ()
    qos_class: str = ""
    resize: str = ""
    resource_claim_statuses: tuple[Json, ...] = ()
    extended_resource_claim_status: Json | None = None
    node_allocatable_resource_claim_statuses: tuple[Json, ...] = ()
    allocated_resources: Json = field(default_factory=dict)
    resources: Json | None = None
    volume_health: tuple[Json, ...] = ()


class Pod(ApiObject, frozen=True, kw_only=True):
    """Containers that share one network namespace."""

    spec: PodSpec = field(default_factory=PodSpec)
    status: PodStatus = PodStatus()

    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "Pod"
    resource: ClassVar[str] = "pods"

    @property
    def ips(self) -> tuple[str, ...]:
        """The pod's addresses, its primary family first; empty until its sandbox has one."""
        if self.status.pod_ips:
            return tuple(item.ip for item in self.status.pod_ips)
        return (self.status.pod_ip,) if self.status.pod_ip else ()

    @property
    def ready(self) -> bool:
        """Whether the condition Ready is True."""
        return any(item.type == "Ready" and item.status == "True" for item in self.status.conditions)

    @property
    def terminating(self) -> bool:
        """Whether somebody asked for its deletion."""
        return bool(self.metadata.deletion_timestamp)

    @property
    def finished(self) -> bool:
        """Whether all its containers ended for good (phase Succeeded or Failed)."""
        return self.status.phase in ("Succeeded", "Failed")

    @property
    def serving_containers(self) -> tuple[Container, ...]:
        """The containers that run while the pod serves: sidecars (restartable init containers), then the
        others.
        """
        sidecars = (item for item in self.spec.init_containers if item.restart_policy == "Always")
        return (*sidecars, *self.spec.containers)

    def with_node(self, node_name: str) -> Pod:
        """A copy bound to a node, as the scheduler's binding leaves it."""
        return replace(
            self,
            spec=replace(self.spec, node_name=node_name),
            status=with_condition(self.status, PodCondition(type="PodScheduled", status="True")),
        )

    def with_status(
        self,
        *,
        phase: str | None = None,
        ips: tuple[str, ...] | None = None,
        host_ips: tuple[str, ...] | None = None,
        ready: bool | None = None,
        start_time: str | None = None,
    ) -> Pod:
        """A copy with the status a kubelet writes; what is None stays.

        `ready` sets Ready and ContainersReady and each container's status; a pod that is given a phase other
        than Pending also is Initialized.
        """
        status = self.status
        if phase is not None:
            status = replace(status, phase=phase)
            if phase != "Pending":
                status = with_condition(status, PodCondition(type="Initialized", status="True"))
        if ips is not None:
            status = replace(status, pod_ip=ips[0] if ips else "", pod_ips=tuple(PodIP(ip=ip) for ip in ips))
        if host_ips is not None:
            first = host_ips[0] if host_ips else ""
            status = replace(status, host_ip=first, host_ips=tuple(HostIP(ip=ip) for ip in host_ips))
        if start_time is not None:
            status = replace(status, start_time=start_time)
        if ready is not None:
            answer = "True" if ready else "False"
            reason = "" if ready else "ContainersNotReady"
            for kind in ("ContainersReady", "Ready"):
                status = with_condition(status, PodCondition(type=kind, status=answer, reason=reason))
            status = replace(status, container_statuses=_container_statuses(self.spec, status, ready))
        return self if status == self.status else replace(self, status=status)


def _container_statuses(spec: PodSpec, status: PodStatus, ready: bool) -> tuple[ContainerStatus, ...]:
    known = {item.name: item for item in status.container_statuses}
    out = []
    for container in spec.containers:
        held = known.get(container.name) or ContainerStatus(
            name=container.name, image=container.image, started=False
        )
        if ready:
            # What is ready runs: `kubectl get pods` counts a container only where its state says so too.
            held = replace(held, started=True, state=held.state or {"running": {}})
        out.append(replace(held, ready=ready))
    return tuple(out)


def with_condition(status: PodStatus, condition: PodCondition) -> PodStatus:
    """A copy of the status with this condition in place of the one of the same type, or after the others."""
    conditions = tuple(condition if item.type == condition.type else item for item in status.conditions)
    if condition not in conditions:
        conditions = (*conditions, condition)
    return replace(status, conditions=conditions)


class PodTemplate(Part, frozen=True, kw_only=True):
    """The pods a workload makes (`PodTemplateSpec`)."""

    metadata: ObjectMeta = field(default_factory=ObjectMeta)
    spec: PodSpec = field(default_factory=PodSpec)


class ListeningPort(Struct, frozen=True, order=True):
    """A socket a container is taken to listen on: `protocol` is TCP, UDP or SCTP, `name` may be empty."""

    port: int
    protocol: str
    name: str
    container: str


def listening_ports(pod: Pod) -> tuple[ListeningPort, ...]:
    """The ports something listens on in the pod's namespace.

    Nothing in a manifest says what a program opens. The model takes it that each container listens on the
    ports it declares (`containerPort`), which is what well-kept manifests say; a pod that declares none
    listens on none.
    """
    return tuple(
        ListeningPort(port.container_port, port.protocol or "TCP", port.name, container.name)
        for container in pod.serving_containers
        for port in container.ports
    )
