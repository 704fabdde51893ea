"""What an operator writes: pools of addresses, and how to announce them (https://metallb.io/apis/)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from kubenet_lab.clock import duration
from kubenet_lab.errors import Fault, InputError
from kubenet_lab.objects import Node, Service
from kubenet_lab.objects.meta import Part
from kubenet_lab.objects.namespace import Namespace
from kubenet_lab.objects.selector import LabelSelector
from kubenet_lab.store import Store

GROUP = "metallb.io"
OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")

T = TypeVar("T", bound=Part)
Selectors = tuple[LabelSelector, ...]


class Pool(Struct, frozen=True):
    """An IPAddressPool. `ranges` are (first, last) as numbers, with the family, in the order written."""

    name: str
    labels: dict[str, str]
    ranges: tuple[tuple[int, int, int], ...]
    auto_assign: bool = True
    avoid_buggy_ips: bool = False
    priority: int = 0
    namespaces: tuple[str, ...] = ()
    namespace_selectors: Selectors = ()
    service_selectors: Selectors = ()

    def holds(self, address: str) -> bool:
        """Whether an address is in it."""
        number, family = int(ipaddress.ip_address(address)), 6 if ":" in address else 4
        return any(f == family and first <= number <= last for first, last, f in self.ranges)

    def addresses(self, family: int) -> Iterator[str]:
        """Its addresses of one family, lowest first; without .0 and .255 where `avoidBuggyIPs` asks for that."""
        for first, last, f in self.ranges:
            if f == family:
                for number in range(first, last + 1):
                    if not (self.avoid_buggy_ips and f == 4 and number & 0xFF in (0, 255)):
                        yield str(ipaddress.ip_address(number))

    def serves(self, service: Service, namespace: Namespace | None) -> bool:
        """Whether `serviceAllocation` lets a Service have an address of it."""
        if not (self.namespaces or self.namespace_selectors or self.service_selectors):
            return True
        labels = namespace.metadata.labels if namespace is not None else {}
        if (self.namespaces or self.namespace_selectors) and not (
            service.namespace in self.namespaces or any(s.matches(labels) for s in self.namespace_selectors)
        ):
            return False
        own = service.metadata.labels
        return not self.service_selectors or any(s.matches(own) for s in self.service_selectors)


class Advertisement(Struct, frozen=True):
    """An L2Advertisement or BGPAdvertisement. `length` and `length6` are BGP's `aggregationLength` and
    `aggregationLengthV6`: 32 and 128 where none is given.
    """

    name: str
    pools: tuple[str, ...] = ()
    pool_selectors: Selectors = ()
    node_selectors: Selectors = ()
    peers: tuple[str, ...] = ()
    length: int = 32
    length6: int = 128
    local_pref: int = 100

    def means(self, pool: Pool) -> bool:
        """Whether it announces addresses of this pool; one that names none means all."""
        if not self.pools and not self.pool_selectors:
            return True
        return pool.name in self.pools or any(s.matches(pool.labels) for s in self.pool_selectors)

    def from_node(self, node: Node) -> bool:
        """Whether this node announces by it."""
        return _from(node, self.node_selectors)


class Peer(Struct, frozen=True):
    """A BGPPeer: the router to talk to. Times in s; MetalLB's own defaults are 90 and a third of that."""

    name: str
    address: str
    my_asn: int
    peer_asn: int
    port: int = 179
    hold: float = 90.0
    keepalive: float = 30.0
    node_selectors: Selectors = ()

    def from_node(self, node: Node) -> bool:
        """Whether this node keeps a session with it."""
        return _from(node, self.node_selectors)


class _Allocation(Part, frozen=True, kw_only=True):
    priority: int = 0
    namespaces: tuple[str, ...] = ()
    namespace_selectors: Selectors = ()
    service_selectors: Selectors = ()


class _PoolSpec(Part, frozen=True, kw_only=True):
    addresses: tuple[str, ...] = ()
    auto_assign: bool = True
    avoid_buggy_ips: bool = field(default=False, name="avoidBuggyIPs")
    service_allocation: _Allocation = _Allocation()


class _AdvertisementSpec(Part, frozen=True, kw_only=True):
    ip_address_pools: tuple[str, ...] = field(default=(), name="ipAddressPools")
    ip_address_pool_selectors: Selectors = field(default=(), name="ipAddressPoolSelectors")
    node_selectors: Selectors = ()
    peers: tuple[str, ...] = ()
    aggregation_length: Annotated[int, Meta(ge=1, le=32)] = 32
    aggregation_length_v6: Annotated[int, Meta(ge=1, le=128)] = field(default=128, name="aggregationLengthV6")
    local_pref: Annotated[int, Meta(ge=0, le=2**32 - 1)] = 100


class _PeerSpec(Part, frozen=True, kw_only=True):
    peer_address: str = ""
    my_asn: Annotated[int, Meta(ge=0, le=2**32 - 1)] = field(default=0, name="myASN")
    peer_asn: Annotated[int, Meta(ge=0, le=2**32 - 1)] = field(default=0, name="peerASN")
    peer_port: Annotated[int, Meta(ge=0, le=16384)] = 179
    hold_time: str = ""
    keepalive_time: str = ""
    node_selectors: Selectors = ()


def pools(store: Store) -> list[Pool]:
    """The IPAddressPools. Raises InputError for a range that is none or is in another pool, as the webhook does."""
    found: list[Pool] = []
    for obj in store.list(f"IPAddressPool.{GROUP}"):
        pool = _pool(obj)
        for first, last, family in pool.ranges:
            for other in found:
                if any(f == family and a <= last and first <= b for a, b, f in other.ranges):
                    raise _refused(obj, "spec.addresses", f"overlap with those of pool {other.name}")
        found.append(pool)
    return found


def advertisements(store: Store, kind: str) -> list[Advertisement]:
    """The advertisements of one kind: "L2Advertisement" or "BGPAdvertisement". Raises InputError."""
    found = []
    for obj in store.list(f"{kind}.{GROUP}"):
        spec = _spec(obj, _AdvertisementSpec)
        found.append(
            Advertisement(
                obj.name,
                spec.ip_address_pools,
                spec.ip_address_pool_selectors,
                spec.node_selectors,
                spec.peers,
                spec.aggregation_length,
                spec.aggregation_length_v6,
                spec.local_pref,
            )
        )
    return found


def peers(store: Store) -> list[Peer]:
    """The BGPPeers. Raises InputError for a peer without an address."""
    found = []
    for obj in store.list(f"BGPPeer.{GROUP}"):
        spec = _spec(obj, _PeerSpec)
        if not _is_address(spec.peer_address):
            raise _refused(obj, "spec.peerAddress", f"{spec.peer_address or None!r} is no IP address")
        hold = _seconds(obj, "spec.holdTime", spec.hold_time, 90.0)
        found.append(
            Peer(
                obj.name,
                spec.peer_address,
                spec.my_asn,
                spec.peer_asn,
                spec.peer_port or 179,
                hold,
                _seconds(obj, "spec.keepaliveTime", spec.keepalive_time, hold / 3),
                spec.node_selectors,
            )
        )
    return found


def _from(node: Node, selectors: Selectors) -> bool:
    return not selectors or any(s.matches(node.metadata.labels) for s in selectors)


def _pool(obj: Any) -> Pool:
    spec = _spec(obj, _PoolSpec)
    if not spec.addresses:
        raise _refused(obj, "spec.addresses", "has to be a list of prefixes or ranges")
    allocation = spec.service_allocation
    return Pool(
        obj.name,
        dict(obj.metadata.labels),
        tuple(_range(f"spec.addresses[{i}]", text, obj) for i, text in enumerate(spec.addresses)),
        spec.auto_assign,
        spec.avoid_buggy_ips,
        allocation.priority,
        allocation.namespaces,
        allocation.namespace_selectors,
        allocation.service_selectors,
    )


_MISFIT = re.compile(r"Expected `(\w+)(?: \| null)?`([^,]*?)(?:, got `(\w+)`)?(?: - at `\$(.*)`)?")
_WORDS = {
    "array": "a list",
    "object": "a map",
    "int": "a whole number",
    "str": "text",
    "bool": "true or false",
}


def _spec(obj: Any, kind: type[T]) -> T:
    """The `spec` of a custom resource; fields that are not modelled are passed over. Raises InputError."""
    try:
        spec = msgspec.convert(_without_nulls(obj.content.get("spec") or {}), kind)
    except msgspec.ValidationError as error:
        misfit = _MISFIT.fullmatch(str(error))
        if misfit is None:
            raise _refused(obj, "spec", str(error)) from None
        word, bound, got, path = misfit.groups()
        what = f"has to be {_WORDS.get(word, word)}{bound}" + (f", not {_WORDS.get(got, got)}" if got else "")
        raise _refused(obj, f"spec{path or ''}", what) from None
    for path, selectors in _selectors(spec):
        for i, selector in enumerate(selectors):
            for j, rule in enumerate(selector.match_expressions):
                if rule.operator not in OPERATORS:
                    what = f"{rule.operator!r} is none of {', '.join(OPERATORS)}"
                    raise _refused(obj, f"spec.{path}[{i}].matchExpressions[{j}].operator", what)
    return spec


def _selectors(part: Part) -> Iterator[tuple[str, Selectors]]:
    """Every list of selectors in a spec, with its path."""
    for info in msgspec.structs.fields(part):
        value = getattr(part, info.name)
        if isinstance(value, Part):
            yield from ((f"{info.encode_name}.{path}", one) for path, one in _selectors(value))
        elif info.name.endswith("selectors"):
            yield info.encode_name, value


def _without_nulls(value: Any) -> Any:
    """The API server drops a null where a field has a default."""
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def _refused(obj: Any, field: str, message: str) -> InputError:
    """What is wrong with a custom resource; who read its file can find its place by kind, name and field."""
    help = "write 192.168.1.240/28 or 192.168.1.240-192.168.1.250" if "spec.addresses" in field else ""
    return InputError([Fault(f"{field} {message}", path=field, help=help, kind=obj.kind, name=obj.name)])


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _range(field: str, text: str, pool: Any) -> tuple[int, int, int]:
    """ "192.168.1.240/28" or "192.168.1.240-192.168.1.250" as (first, last, family)."""
    try:
        if "-" in text:
            first, last = (ipaddress.ip_address(part.strip()) for part in text.split("-", 1))
        else:
            block = ipaddress.ip_network(text.strip())
            first, last = block[0], block[-1]
    except ValueError as fault:
        raise _refused(pool, field, f"{text!r} is neither a prefix nor a range: {fault}") from None
    if first.version != last.version or int(first) > int(last):
        raise _refused(pool, field, f"{text!r} has its ends the wrong way round")
    return int(first), int(last), first.version


def _seconds(obj: Any, field: str, text: str, default: float) -> float:
    try:
        return duration(text) if text else default
    except ValueError as fault:
        raise _refused(obj, field, str(fault)) from None
