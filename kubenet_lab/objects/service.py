"""Services. https://kubernetes.io/docs/reference/kubernetes-api/service-resources/service-v1/"""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from kubenet_lab.objects.meta import ApiObject, Json, Part


class ServicePort(Part, frozen=True, kw_only=True):
    """One port of a Service.

    `target_port` is a number or a container port's name, None where the port itself is meant.
    """

    port: int
    name: str = ""
    protocol: str = ""
    app_protocol: str | None = None
    target_port: int | str | None = None
    node_port: int = 0


class ServiceSpec(Part, frozen=True, kw_only=True):
    """What the Service promises and to which pods."""

    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] = field(default_factory=dict)
    cluster_ip: str = ""
    cluster_ips: tuple[str, ...] = ()
    type: str = ""
    external_ips: tuple[str, ...] = ()
    session_affinity: str = ""
    load_balancer_ip: str = ""
    load_balancer_source_ranges: tuple[str, ...] = ()
    external_name: str = ""
    external_traffic_policy: str = ""
    health_check_node_port: int = 0
    publish_not_ready_addresses: bool = False
    session_affinity_config: Json | None = None
    ip_families: tuple[str, ...] = ()
    ip_family_policy: str | None = None
    allocate_load_balancer_node_ports: bool | None = None
    load_balancer_class: str | None = None
    internal_traffic_policy: str | None = None
    traffic_distribution: str | None = None


class ServiceStatus(Part, frozen=True, kw_only=True):
    """What a cloud gave it."""

    load_balancer: Json | None = None
    conditions: tuple[Json, ...] = ()


class Service(ApiObject, frozen=True, kw_only=True):
    """A name and an address for a set of pods."""

    spec: ServiceSpec = field(default_factory=ServiceSpec)
    status: ServiceStatus = ServiceStatus()

    api_version: ClassVar[str] = "v1"
    kind: ClassVar[str] = "Service"
    resource: ClassVar[str] = "services"

    @property
    def headless(self) -> bool:
        """Whether it has no address and its name resolves to the pods' addresses (`clusterIP: None`)."""
        return self.spec.cluster_ip == "None" or self.spec.cluster_ips[:1] == ("None",)

    @property
    def external(self) -> bool:
        """Whether it is only a DNS alias (`type: ExternalName`)."""
        return self.spec.type == "ExternalName"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its cluster addresses, one a family; empty when headless, external or not allocated yet."""
        if self.headless or self.external:
            return ()
        return self.spec.cluster_ips or ((self.spec.cluster_ip,) if self.spec.cluster_ip else ())
