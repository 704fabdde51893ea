"""Gives Services what they are allocated: cluster addresses, address families, node ports.

In a real cluster the API server does this while it answers the request (`pkg/registry/core/service`):
what was asked for is kept or refused, the rest is drawn from the upper part of its range (KEP-3070, KEP-3668),
so that the lower part stays free for what people write down, such as 10.96.0.10 or 30007. Here a draw is a
hash of seed, namespace and name: the same world gets the same addresses and ports, whatever order its Services
came in.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.control.loop import Change, Settings
from kubenet_lab.errors import Cause, Invalid
from kubenet_lab.objects import Service, ServiceSpec
from kubenet_lab.store import Store

FAMILIES = {4: "IPv4", 6: "IPv6"}
NODE_PORTS = (30000, 32767)
"""`--service-node-port-range`, first and last."""
NODE_PORT_BAND = 86
"""How many node ports are drawn only when all others are taken: min(max(16, size/32), 128) of 2,768."""


class Range(Struct, frozen=True):
    """A Service range: `base` is the number of its first address, `size` how many can be given, `band` the
    static part.

    The network address, and an IPv4 range's broadcast address, are never given, nor more than 2**16 of an
    IPv6 range.
    """

    cidr: str
    family: str
    base: int
    size: int
    band: int

    @classmethod
    def of(cls, cidr: str) -> Range:
        """The range of a prefix.

        The static band is min(max(16, size/16), 256) addresses (KEP-3070), none below 16.

        Raises:
            ValueError: Not a prefix.
        """
        network = ipaddress.ip_network(cidr)
        size = network.num_addresses - (2 if network.version == 4 else 1)
        if network.version == 6:
            size = min(size, 1 << 16)
        band = 0 if size < 16 else min(max(16, size // 16), 256)
        return cls(cidr, FAMILIES[network.version], int(network.network_address) + 1, size, band)

    def address(self, offset: int) -> str:
        """The address at an offset from the first that can be given."""
        number = self.base + offset
        return str(ipaddress.IPv4Address(number) if self.family == "IPv4" else ipaddress.IPv6Address(number))

    def holds(self, address: str) -> bool:
        """Whether the address is one that can be given."""
        return 0 <= int(ipaddress.ip_address(address)) - self.base < self.size


def reconcile(store: Store, settings: Settings) -> list[Change]:
    """Addresses, families and node ports for the Services that lack them.

    Raises:
        Invalid: An address or port that was asked for is none, outside the range or already allocated; two
            families are required of a cluster that has one; a range is full.
    """
    services = store.list(Service)
    both = len(settings.service_cluster_ip_range) == 2
    pending = [service for service in services if not _complete(service.spec, both)]
    if not pending:
        return []
    # The API server has its own Service before anybody can ask for another.
    pending.sort(key=lambda service: (service.namespace, service.name) != ("default", "kubernetes"))
    allocator = Allocator(settings, store.seed)
    waiting = {(service.namespace, service.name) for service in pending}
    for service in services:
        if (service.namespace, service.name) not in waiting:
            allocator.keep(service)
    # All that is asked for is marked as taken before any is drawn, so that a draw never takes a written one.
    claimed = [allocator.claim(service) for service in pending]
    changes = []
    for service, claim in zip(pending, claimed, strict=True):
        why = (
            "the Service has no address yet"
            if not service.addresses
            else "the Service lacks a port or address"
        )
        changes.append(Change("update", allocator.fill(claim), why))
    return changes


class Allocator:
    """Which addresses and node ports are taken; Services ask for theirs, and are given the rest."""

    def __init__(self, settings: Settings, seed: int = 0) -> None:
        self.seed = seed
        self.ranges = {item.family: item for item in map(_range, settings.service_cluster_ip_range)}
        self.taken: set[str] = set()
        self.ports: set[int] = set()

    def keep(self, service: Service) -> None:
        """Mark as taken what a Service has, without asking whether it could be given."""
        self.taken.update(service.addresses)
        self.ports |= _node_ports(service.spec)

    def claim(self, service: Service) -> Service:
        """Mark as taken what a Service asks for; the Service with its families filled in.

        Raises:
            Invalid: As `reconcile` does.
        """
        service = self.with_families(service)
        if not service.external:
            _claim(service, service.spec, self.ranges, self.taken)
        _claim_ports(service, self.ports)
        return service

    def with_families(self, service: Service) -> Service:
        """The Service with the families that its addresses, or the cluster, give it.

        Raises:
            Invalid: It asks for what the cluster does not have.
        """
        if service.external:
            return service
        return replace(service, spec=_with_families(service, [*self.ranges]))

    def fill(self, service: Service) -> Service:
        """A claimed Service with the addresses and ports it did not ask for.

        Raises:
            Invalid: A range is full.
        """
        spec = service.spec
        if not service.external:
            spec = _with_addresses(service, spec, self.ranges, self.seed, self.taken)
        return replace(service, spec=_with_node_ports(service, spec, self.seed, self.ports))


_range = functools.cache(Range.of)


def _complete(spec: ServiceSpec, both: bool) -> bool:
    kind = spec.type
    if kind == "ExternalName":
        return True
    if not (spec.cluster_ips and spec.ip_families and spec.ip_family_policy):
        return False
    if kind == "NodePort" or kind == "LoadBalancer":
        if spec.allocate_load_balancer_node_ports is not False and not all(p.node_port for p in spec.ports):
            return False
        if _needs_health_check(spec) and not spec.health_check_node_port:
            return False
    if spec.ip_family_policy == "SingleStack" or spec.cluster_ips[0] == "None":
        return True
    wanted = 2 if both else 1
    return len(spec.ip_families) >= wanted and len(spec.cluster_ips) == len(spec.ip_families)


def _refusal(service: Service, field: str) -> Callable[[str], Invalid]:
    return lambda detail: Invalid("Service", service.name, field, detail, service.namespace)


def _with_families(service: Service, cluster: list[str]) -> ServiceSpec:
    """The spec with `ipFamilies`, `ipFamilyPolicy` and the asked-for `clusterIPs` filled in."""
    spec = service.spec
    asked = spec.cluster_ips or ((spec.cluster_ip,) if spec.cluster_ip else ())
    if spec.cluster_ip and asked[0] != spec.cluster_ip:
        raise _refusal(service, "spec.clusterIPs")(
            f"Invalid value: {_listed(asked)}: first value must match `clusterIP`"
        )
    policy = spec.ip_family_policy
    families = list(spec.ip_families)
    for index, address in enumerate(asked if not service.headless else ()):
        family = FAMILIES[_parse(service, index, address).version]
        if index >= len(families):
            if family not in cluster:
                raise _refusal(service, f"spec.clusterIPs[{index}]")(
                    f"Invalid value: {_listed(asked)}: {family} is not configured on this cluster"
                )
            families.append(family)
        elif families[index] != family:
            raise _refusal(service, f"spec.clusterIPs[{index}]")(
                f'Invalid value: "{address}": expected an {families[index]} value as indicated by '
                f"`ipFamilies[{index}]`"
            )
    selectorless = service.headless and not spec.selector
    if policy is None:
        # A headless Service without selector does not say which families it has, so it gets all.
        policy = "RequireDualStack" if selectorless else "SingleStack"
    _check_policy(service, policy, asked, spec.ip_families)
    causes = []
    if policy == "RequireDualStack" and len(cluster) < 2 and not selectorless:
        text = 'Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services'
        causes.append(Cause("spec.ipFamilyPolicy", text))
    for index, family in enumerate(families if not selectorless else ()):
        if family not in cluster:
            text = f'Invalid value: "{family}": not configured on this cluster'
            causes.append(Cause(f"spec.ipFamilies[{index}]", text))
    if causes:
        raise Invalid("Service", service.name, namespace=service.namespace, causes=causes)
    if not families:
        families = [cluster[0]]
    # A headless Service without selector has both families even where the cluster has one.
    if policy != "SingleStack" and len(families) == 1 and (len(cluster) == 2 or selectorless):
        families.append("IPv6" if families[0] == "IPv4" else "IPv4")
    return replace(spec, ip_families=tuple(families), ip_family_policy=policy, cluster_ips=tuple(asked))


def _check_policy(service: Service, policy: str, asked: tuple[str, ...], families: tuple[str, ...]) -> None:
    if policy != "SingleStack":
        return
    text = (
        "Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when multiple {} "
        "are specified"
    )
    causes = [
        Cause("spec.ipFamilyPolicy", text.format(what))
        for what, given in (("cluster IPs", asked), ("IP families", families))
        if len(given) == 2
    ]
    if causes:
        raise Invalid("Service", service.name, namespace=service.namespace, causes=causes)


def _listed(addresses: tuple[str, ...]) -> str:
    return "[" + ",".join(f'"{address}"' for address in addresses) + "]"


def _parse(service: Service, index: int, address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        detail = f'Invalid value: "{address}": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'
        if "." in address and any(len(part) > 1 and part.startswith("0") for part in address.split(".")):
            detail = f'Invalid value: "{address}": must not have leading 0s'
        raise _refusal(service, f"spec.clusterIPs[{index}]")(detail) from None


def _claim(service: Service, spec: ServiceSpec, ranges: dict[str, Range], taken: set[str]) -> None:
    """Mark the addresses a Service asks for as taken."""
    if service.headless:
        return
    for address, family in zip(spec.cluster_ips, spec.ip_families, strict=False):
        wrong = ""
        if not ranges[family].holds(address):
            wrong = (
                f"the provided IP ({address}) is not in the valid range. "
                f"The range of valid IPs is {ranges[family].cidr}"
            )
        elif address in taken:
            wrong = "provided IP is already allocated"
        if wrong:
            raise _refusal(service, "spec.clusterIPs")(
                f"Invalid value: {_listed(spec.cluster_ips)}: failed to allocate IP {address}: {wrong}"
            )
        taken.add(address)


def _with_addresses(
    service: Service, spec: ServiceSpec, ranges: dict[str, Range], seed: int, taken: set[str]
) -> ServiceSpec:
    if not service.headless:
        addresses = list(spec.cluster_ips)
        for family in spec.ip_families[len(addresses) :]:
            addresses.append(_draw(service, ranges[family], seed, taken))
        spec = replace(spec, cluster_ips=tuple(addresses))
    return replace(spec, cluster_ip=spec.cluster_ips[0])


def _hash(material: str) -> int:
    return int.from_bytes(hashlib.blake2b(material.encode(), digest_size=8).digest(), "big")


def _draw(service: Service, pool: Range, seed: int, taken: set[str]) -> str:
    """A free address of the dynamic part, or, when that is full, of the static band."""
    start = _hash(f"{seed}/{pool.cidr}/{service.namespace}/{service.name}")
    for low, count in ((pool.band, pool.size - pool.band), (0, pool.band)):
        for step in range(count):
            address = pool.address(low + (start + step) % count)
            if address not in taken:
                taken.add(address)
                return address
    raise _refusal(service, "spec.clusterIPs")("failed to allocate a serviceIP: range is full")


# Node ports


def _needs_health_check(spec: ServiceSpec) -> bool:
    return spec.type == "LoadBalancer" and spec.external_traffic_policy == "Local"


def _node_ports(spec: ServiceSpec) -> set[int]:
    """The node ports a Service has; two of its ports may share one, where they differ in protocol only."""
    if spec.type not in ("NodePort", "LoadBalancer"):
        return set()
    numbers = {port.node_port for port in spec.ports if port.node_port}
    if _needs_health_check(spec) and spec.health_check_node_port:
        numbers.add(spec.health_check_node_port)
    return numbers


def _claim_ports(service: Service, taken: set[int]) -> None:
    """Mark the node ports a Service asks for as taken."""
    spec = service.spec
    if spec.type not in ("NodePort", "LoadBalancer"):
        return
    own: dict[int, int] = {}
    for index, port in enumerate(spec.ports):
        number = port.node_port
        if not number or own.get(number) == port.port:
            continue
        wrong = _unfit(number, taken)
        if wrong:
            raise _refusal(service, f"spec.ports[{index}].nodePort")(f"Invalid value: {number}: {wrong}")
        taken.add(number)
        own[number] = port.port
    if _needs_health_check(spec) and spec.health_check_node_port:
        number = spec.health_check_node_port
        wrong = _unfit(number, taken)
        if wrong:
            text = f"failed to allocate requested HealthCheck NodePort {number}: {wrong}"
            raise _refusal(service, "spec.healthCheckNodePort")(f"Invalid value: {number}: {text}")
        taken.add(number)


def _unfit(number: int, taken: set[int]) -> str:
    first, last = NODE_PORTS
    if not first <= number <= last:
        return f"provided port is not in the valid range. The range of valid ports is {first}-{last}"
    return "provided port is already allocated" if number in taken else ""


def _with_node_ports(service: Service, spec: ServiceSpec, seed: int, taken: set[int]) -> ServiceSpec:
    if spec.type not in ("NodePort", "LoadBalancer"):
        return spec
    if spec.allocate_load_balancer_node_ports is not False and not all(port.node_port for port in spec.ports):
        # The same port over another protocol gets the same node port.
        known: dict[int, int] = {}
        for port in spec.ports:
            if port.node_port:
                known.setdefault(port.port, port.node_port)
        ports = []
        for port in spec.ports:
            if not port.node_port:
                if port.port not in known:
                    known[port.port] = _draw_port(service, f"port/{port.port}", seed, taken)
                port = replace(port, node_port=known[port.port])
            ports.append(port)
        spec = replace(spec, ports=tuple(ports))
    if _needs_health_check(spec) and not spec.health_check_node_port:
        spec = replace(spec, health_check_node_port=_draw_port(service, "health", seed, taken))
    return spec


def _draw_port(service: Service, what: str, seed: int, taken: set[int]) -> int:
    """A free node port of the dynamic part, or, when that is full, of the static band."""
    first, last = NODE_PORTS
    start = _hash(f"{seed}/nodePort/{service.namespace}/{service.name}/{what}")
    dynamic = first + NODE_PORT_BAND
    for low, count in ((dynamic, last - dynamic + 1), (first, NODE_PORT_BAND)):
        for step in range(count):
            number = low + (start + step) % count
            if number not in taken:
                taken.add(number)
                return number
    raise _refusal(service, "spec.ports")("failed to allocate a nodePort: range is full")
