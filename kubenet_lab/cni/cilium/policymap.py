"""From policy entries to the entries of one endpoint's policy map (pkg/policy, MapState).

Selectors become the identities they pick, ports their prefixes, names of ports numbers. A direction without any policy
is open; the node itself always reaches its pods (--allow-localhost=auto).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kubenet_lab.cni.cilium.identity import Identities
from kubenet_lab.cni.cilium.rules import ANYBODY, CidrRule, HttpRule, Labels, Peer, PolicyEntry, PortRule
from kubenet_lab.kernel.bpf import HOST, UNKNOWN, WORLD, PolicyKey
from kubenet_lab.kernel.bpf import PolicyEntry as MapValue
from kubenet_lab.packet.ip import prefix
from kubenet_lab.packet.packet import PROTO_NUMBERS

NamedPorts = Mapping[tuple[str, str], frozenset[int]]
"""(name, protocol) -> numbers that pods give this name."""
PROTOCOLS = {
    "ANY": ("TCP", "UDP", "SCTP"),
    "TCP": ("TCP",),
    "UDP": ("UDP",),
    "SCTP": ("SCTP",),
    "ICMP": ("ICMP",),
}


def blocks_of(entries: Iterable[PolicyEntry]) -> list[str]:
    """Return every block that policies name, exceptions included: each gets an identity and a place in the ipcache."""
    found: dict[str, None] = {}
    for entry in entries:
        for peer in entry.peers or ():
            if isinstance(peer, CidrRule):
                found |= dict.fromkeys(str(prefix(text)) for text in (peer.cidr, *peer.excepts))
    return list(found)


def picked(peer: Peer, identities: Identities) -> list[int]:
    """Return the identities a peer means; UNKNOWN stands for all of them."""
    if isinstance(peer, CidrRule):
        return _in_block(peer, identities)
    if peer == ANYBODY:
        return [UNKNOWN]
    return [number for number, labels in identities.labels.items() if peer.matches(labels)]


def _in_block(rule: CidrRule, identities: Identities) -> list[int]:
    block, excepts = prefix(rule.cidr), [prefix(text) for text in rule.excepts]
    out = [WORLD] if block.length == 0 and not any(e.length == 0 for e in excepts) else []
    for text, number in identities.blocks.items():
        one = prefix(text)
        inside = (
            one.family == block.family and one.length >= block.length and one.net & block.mask == block.net
        )
        taken = any(one.length >= e.length and one.net & e.mask == e.net for e in excepts)
        if inside and not taken:
            out.append(number)
    return out


def port_prefixes(low: int, high: int) -> list[tuple[int, int]]:
    """Return the (port, bits) prefixes that make up a range of ports; [] for an empty one."""
    out = []
    while low <= high:
        size = low & -low or 1 << 16
        while low + size - 1 > high:
            size >>= 1
        out.append((low, 16 - (size.bit_length() - 1)))
        low += size
    return out


def _ports(rule: PortRule, named: NamedPorts) -> list[tuple[int, int, int]]:
    """Return (protocol, port, bits) of a rule; a name that several numbers have, or none, gives nothing."""
    out = []
    for name in PROTOCOLS[rule.protocol]:
        proto = PROTO_NUMBERS[name.lower()]
        if rule.port.isdecimal():
            low = int(rule.port)
            if not low:
                out.append((proto, 0, 0))
            else:
                out += [(proto, port, bits) for port, bits in port_prefixes(low, max(low, rule.end_port))]
        else:
            numbers = named.get((rule.port, name), frozenset())
            if len(numbers) == 1:
                out += [(proto, number, 16) for number in numbers]
    return out


class Redirects:
    """Ports of the proxy: one a rule of an endpoint that asks for HTTP, with what it lets through."""

    def __init__(self, first: int = 10000) -> None:
        self.rules: dict[int, tuple[HttpRule, ...]] = {}
        self._ports: dict[tuple[HttpRule, ...], int] = {}
        self._next = first

    def port(self, rules: tuple[HttpRule, ...]) -> int:
        """Return the listener's port for a set of rules."""
        found = self._ports.get(rules)
        if found is None:
            found = self._ports[rules] = self._next
            self.rules[found] = rules
            self._next += 1
        return found


def policy_map(
    labels: Labels,
    entries: Iterable[PolicyEntry],
    identities: Identities,
    own_ports: NamedPorts,
    all_ports: NamedPorts,
    redirects: Redirects,
) -> dict[PolicyKey, MapValue]:
    """Return the policy map of an endpoint with these labels.

    `own_ports` are the pod's named ports, `all_ports` those of every pod, for what it may reach.
    """
    mine = [entry for entry in entries if entry.subject.matches(labels)]
    out: dict[PolicyKey, MapValue] = {PolicyKey(True, HOST): MapValue()}
    for ingress in (True, False):
        here = [entry for entry in mine if entry.ingress == ingress]
        if not any(entry.default_deny for entry in here):
            out[PolicyKey(ingress)] = MapValue()
        for entry in here:
            for key, value in _keys(entry, identities, own_ports if ingress else all_ports, redirects):
                present = out.get(key)
                out[key] = value if present is None else _both(present, value, redirects)
    return out


def _both(one: MapValue, other: MapValue, redirects: Redirects) -> MapValue:
    """What two entries with one key say: a denial wins, then a grant without conditions; conditions add up."""
    if one.deny or other.deny:
        return MapValue(deny=True)
    if not one.proxy_port or not other.proxy_port:
        return MapValue()
    rules = dict.fromkeys((*redirects.rules[one.proxy_port], *redirects.rules[other.proxy_port]))
    return MapValue(proxy_port=redirects.port(tuple(rules)))


def _keys(
    entry: PolicyEntry, identities: Identities, named: NamedPorts, redirects: Redirects
) -> Iterable[tuple[PolicyKey, MapValue]]:
    for peer in entry.peers or ():
        for number in picked(peer, identities):
            if entry.ports is None:
                yield PolicyKey(entry.ingress, number), MapValue(entry.deny)
                continue
            for rule in entry.ports:
                proxy = redirects.port(rule.http) if rule.http and not entry.deny else 0
                for proto, port, bits in _ports(rule, named):
                    yield PolicyKey(entry.ingress, number, proto, port, bits), MapValue(entry.deny, proxy)
