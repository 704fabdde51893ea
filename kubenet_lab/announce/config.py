"""What an operator writes: pools of addresses, and how to announce them (https://metallb.io/apis/)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from kubenet_lab.errors import Fault, InputError
from kubenet_lab.objects import Node, Service
from kubenet_lab.objects.meta import Json
from kubenet_lab.objects.namespace import Namespace
from kubenet_lab.store import Store

GROUP = "metallb.io"


class Pool(Struct, frozen=True):
    """An IPAddressPool. `ranges` are (first, last) as numbers, with the family, in the order written."""

    name: str
    labels: dict[str, str]
    ranges: tuple[tuple[int, int, int], ...]
    auto_assign: bool = True
    avoid_buggy_ips: bool = False
    priority: int = 0
    namespaces: tuple[str, ...] = ()
    namespace_selectors: tuple[Json, ...] = ()
    service_selectors: tuple[Json, ...] = ()

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
            service.namespace in self.namespaces or any(selects(s, labels) for s in self.namespace_selectors)
        ):
            return False
        own = service.metadata.labels
        return not self.service_selectors or any(selects(s, own) for s in self.service_selectors)


class Advertisement(Struct, frozen=True):
    """An L2Advertisement or BGPAdvertisement. `length` and `length6` are BGP's `aggregationLength` and
    `aggregationLengthV6`: 32 and 128 where none is given.
    """

    name: str
    pools: tuple[str, ...] = ()
    pool_selectors: tuple[Json, ...] = ()
    node_selectors: tuple[Json, ...] = ()
    peers: tuple[str, ...] = ()
    length: int = 32
    length6: int = 128
    local_pref: int = 100

    def means(self, pool: Pool) -> bool:
        """Whether it announces addresses of this pool; one that names none means all."""
        if not self.pools and not self.pool_selectors:
            return True
        return pool.name in self.pools or any(selects(s, pool.labels) for s in self.pool_selectors)

    def from_node(self, node: Node) -> bool:
        """Whether this node announces by it."""
        return not self.node_selectors or any(selects(s, node.metadata.labels) for s in self.node_selectors)


class Peer(Struct, frozen=True):
    """A BGPPeer: the router to talk to. Times in s; MetalLB's own defaults are 90 and a third of that."""

    name: str
    address: str
    my_asn: int
    peer_asn: int
    port: int = 179
    hold: float = 90.0
    keepalive: float = 30.0
    node_selectors: tuple[Json, ...] = ()


def pools(store: Store) -> list[Pool]:
    """The IPAddressPools. Raises InputError for a range that is none or is in another pool, as the webhook does."""
    found: list[Pool] = []
    for obj in store.list(f"IPAddressPool.{GROUP}"):
        pool = _pool(obj)
        for first, last, family in pool.ranges:
            for other in found:
                if any(f == family and a <= last and first <= b for a, b, f in other.ranges):
                    raise _refused(obj, f"its addresses overlap with those of pool {other.name}")
        found.append(pool)
    return found


def advertisements(store: Store, kind: str) -> list[Advertisement]:
    """The advertisements of one kind: "L2Advertisement" or "BGPAdvertisement"."""
    found = []
    for obj in store.list(f"{kind}.{GROUP}"):
        spec = obj.content.get("spec") or {}
        found.append(
            Advertisement(
                obj.name,
                tuple(spec.get("ipAddressPools") or ()),
                tuple(spec.get("ipAddressPoolSelectors") or ()),
                tuple(spec.get("nodeSelectors") or ()),
                tuple(spec.get("peers") or ()),
                int(spec.get("aggregationLength") or 32),
                int(spec.get("aggregationLengthV6") or 128),
                100 if spec.get("localPref") is None else int(spec["localPref"]),
            )
        )
    return found


def peers(store: Store) -> list[Peer]:
    """The BGPPeers. Raises InputError for a peer without an address."""
    found = []
    for obj in store.list(f"BGPPeer.{GROUP}"):
        spec = obj.content.get("spec") or {}
        hold = _seconds(spec.get("holdTime"), 90.0)
        if not _is_address(spec.get("peerAddress")):
            raise _refused(obj, f"spec.peerAddress {spec.get('peerAddress')!r} is no IP address")
        found.append(
            Peer(
                obj.name,
                str(spec.get("peerAddress", "")),
                int(spec.get("myASN") or 0),
                int(spec.get("peerASN") or 0),
                int(spec.get("peerPort") or 179),
                hold,
                _seconds(spec.get("keepaliveTime"), hold / 3),
                tuple(spec.get("nodeSelectors") or ()),
            )
        )
    return found


def selects(selector: Json, labels: dict[str, str]) -> bool:
    """Whether a label selector (`matchLabels`, `matchExpressions`) means these labels."""
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    for rule in selector.get("matchExpressions") or ():
        key, values = rule.get("key"), rule.get("values") or []
        held = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not held.get(rule.get("operator"), False):
            return False
    return True


def _pool(obj: Any) -> Pool:
    spec = obj.content.get("spec") or {}
    allocation = spec.get("serviceAllocation") or {}
    listed = spec.get("addresses")
    if not isinstance(listed, list) or not listed:
        raise _refused(obj, "spec.addresses has to be a list of prefixes or ranges")
    return Pool(
        obj.name,
        dict(obj.metadata.labels),
        tuple(_range(str(text), obj) for text in listed),
        spec.get("autoAssign", True) is not False,
        bool(spec.get("avoidBuggyIPs")),
        int(allocation.get("priority") or 0),
        tuple(allocation.get("namespaces") or ()),
        tuple(allocation.get("namespaceSelectors") or ()),
        tuple(allocation.get("serviceSelectors") or ()),
    )


def _refused(obj: Any, message: str) -> InputError:
    help = "write 192.168.1.240/28 or 192.168.1.240-192.168.1.250" if obj.kind == "IPAddressPool" else ""
    return InputError([Fault(message, f"{obj.kind} {obj.name}", help=help)])


def _is_address(text: Any) -> bool:
    try:
        ipaddress.ip_address(str(text))
    except ValueError:
        return False
    return True


def _range(text: str, pool: Any) -> tuple[int, int, int]:
    """ "192.168.1.240/28" or "192.168.1.240-192.168.1.250" as (first, last, family)."""
    try:
        if "-" in text:
            first, last = (ipaddress.ip_address(part.strip()) for part in text.split("-", 1))
        else:
            block = ipaddress.ip_network(text.strip())
            first, last = block[0], block[-1]
    except ValueError as fault:
        raise _refused(pool, f"{text!r} is neither a prefix nor a range: {fault}") from None
    if first.version != last.version or int(first) > int(last):
        raise _refused(pool, f"{text!r} has its ends the wrong way round")
    return int(first), int(last), first.version


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def _seconds(text: Any, default: float) -> float:
    """A Go duration of one or more parts ("90s", "1m30s") in s."""
    import re

    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|h|m|s)", str(text)) if text else []
    return sum(float(number) * _UNITS[unit] for number, unit in parts) if parts else default
