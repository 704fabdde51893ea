"""Gives Services their cluster addresses and address families.

In a real cluster the API server does this while it answers the request (`pkg/registry/core/service`):
requested addresses are kept or refused, others are drawn from the upper part of the range (KEP-3070), so that
the lower part stays free for addresses that people write down, such as 10.96.0.10. Here an address is drawn
by a hash of seed, namespace and name: the same world gets the same addresses, whatever order its Services
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
from kubenet_lab.errors import Invalid
from kubenet_lab.objects import Service, ServiceSpec
from kubenet_lab.store import Store

FAMILIES = {4: "IPv4", 6: "IPv6"}


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
    """Addresses and families for the Services that lack them.

    Raises:
        Invalid: An address that was asked for is no address, outside the range or already allocated; two
            families are required of a cluster that has one; the range is full.
    """
    services = store.list(Service)
    pending = [service for service in services if not service.external and not _complete(service.spec)]
    if not pending:
        return []
    # The API server has its own Service before anybody can ask for another.
    pending.sort(key=lambda service: (service.namespace, service.name) != ("default", "kubernetes"))
    ranges = {item.family: item for item in map(_range, settings.service_cluster_ip_range)}
    waiting = {(service.namespace, service.name) for service in pending}
    taken = {
        address
        for service in services
        if (service.namespace, service.name) not in waiting
        for address in service.addresses
    }
    specs = [_with_families(service, [*ranges]) for service in pending]
    for service, spec in zip(pending, specs, strict=True):
        _claim(service, spec, ranges, taken)
    changes = []
    for service, spec in zip(pending, specs, strict=True):
        if not service.headless:
            addresses = list(spec.cluster_ips)
            for family in spec.ip_families[len(addresses) :]:
                addresses.append(_draw(service, ranges[family], store.seed, taken))
            spec = replace(spec, cluster_ips=tuple(addresses))
        spec = replace(spec, cluster_ip=spec.cluster_ips[0])
        changes.append(Change("update", replace(service, spec=spec), "the Service has no address yet"))
    return changes


_range = functools.cache(Range.of)


def _complete(spec: ServiceSpec) -> bool:
    return bool(spec.cluster_ips and spec.ip_families and spec.ip_family_policy)


def _refusal(service: Service, field: str) -> Callable[[str], Invalid]:
    return lambda detail: Invalid("Service", service.name, field, detail, service.namespace)


def _with_families(service: Service, cluster: list[str]) -> ServiceSpec:
    """The spec with `ipFamilies`, `ipFamilyPolicy` and the asked-for `clusterIPs` filled in."""
    spec = service.spec
    asked = spec.cluster_ips or ((spec.cluster_ip,) if spec.cluster_ip else ())
    if spec.cluster_ip and asked[0] != spec.cluster_ip:
        listed = "[" + ", ".join(f'"{address}"' for address in asked) + "]"
        raise _refusal(service, "spec.clusterIPs")(
            f"Invalid value: {listed}: first value must match `clusterIP`"
        )
    families = list(spec.ip_families)
    for index, address in enumerate(asked if not service.headless else ()):
        family = FAMILIES[_parse(service, index, address).version]
        if index >= len(families):
            families.append(family)
        elif families[index] != family:
            raise _refusal(service, f"spec.ipFamilies[{index}]")(
                f'Invalid value: "{families[index]}": expected to match the IP family of '
                f"`clusterIPs[{index}]` ({family})"
            )
    policy = spec.ip_family_policy
    if policy is None:
        # A headless Service without selector does not say which families it has, so it gets all.
        both = len(families) == 2 or (service.headless and not spec.selector and not families)
        policy = "RequireDualStack" if both else "SingleStack"
    for index, family in enumerate(families):
        if family not in cluster:
            raise _refusal(service, f"spec.ipFamilies[{index}]")(
                f'Invalid value: "{family}": not configured on this cluster'
            )
    if policy == "RequireDualStack" and len(cluster) < 2 and not (service.headless and not spec.selector):
        raise _refusal(service, "spec.ipFamilyPolicy")(
            'Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services'
        )
    if not families:
        families = [cluster[0]]
    # A headless Service without selector has both families even where the cluster has one.
    second = len(cluster) == 2 or (service.headless and policy == "RequireDualStack")
    if policy != "SingleStack" and len(families) == 1 and second:
        families.append("IPv6" if families[0] == "IPv4" else "IPv4")
    return replace(spec, ip_families=tuple(families), ip_family_policy=policy, cluster_ips=tuple(asked))


def _parse(service: Service, index: int, address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        detail = f'Invalid value: "{address}": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'
        if "." in address and any(len(part) > 1 and part.startswith("0") for part in address.split(".")):
            detail = f'Invalid value: "{address}": must not have leading 0s'
        raise _refusal(service, f"spec.clusterIPs[{index}]")(detail) from None


def _claim(service: Service, spec: ServiceSpec, ranges: dict[str, Range], taken: set[str]) -> None:
    """Mark the addresses a Service asks for as taken.

    Before any is drawn, so that a draw never takes a written one.
    """
    if service.headless:
        return
    listed = "[" + ", ".join(f'"{address}"' for address in spec.cluster_ips) + "]"
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
                f"Invalid value: {listed}: failed to allocate IP {address}: {wrong}"
            )
        taken.add(address)


def _draw(service: Service, pool: Range, seed: int, taken: set[str]) -> str:
    """A free address of the dynamic part, or, when that is full, of the static band."""
    material = f"{seed}/{pool.cidr}/{service.namespace}/{service.name}".encode()
    start = int.from_bytes(hashlib.blake2b(material, digest_size=8).digest(), "big")
    for low, count in ((pool.band, pool.size - pool.band), (0, pool.band)):
        for step in range(count):
            address = pool.address(low + (start + step) % count)
            if address not in taken:
                taken.add(address)
                return address
    raise _refusal(service, "spec.clusterIPs")("failed to allocate a serviceIP: range is full")
