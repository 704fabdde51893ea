"""Who reaches whom, workload by workload: what a person reads instead of a matrix of ten thousand pods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.packet.ip import ip_text, prefix
from kubenet_lab.policy.world import PROTOCOLS, Endpoint, World
from kubenet_lab.reach.masks import bits, mask_of
from kubenet_lab.reach.matrix import Reach, Span

ALL = "All Connections"


class Node(Struct, frozen=True, order=True):
    """A workload, a lone pod, or a range of outside addresses.

    Attributes:
        name: "shop/web[Deployment]", "shop/db[Pod]", "0.0.0.0-255.255.255.255[External]".
        pods: The endpoints it stands for, in order.
    """

    name: str
    pods: tuple[str, ...] = ()

    @property
    def outside(self) -> bool:
        """Whether it is a range of addresses."""
        return self.name.endswith("[External]")


class Connection(Struct, frozen=True, order=True):
    """What policies allow between two nodes of the listing.

    Attributes:
        source, destination: Names of nodes.
        ports: Spans of ports, in order, port 0 left out; every port of every protocol is `ALL`.
        partly: Whether it is true of some of their pods only.
    """

    source: str
    destination: str
    ports: tuple[Span, ...]
    partly: bool = False

    @property
    def what(self) -> str:
        """`TCP 80,8000-8999,UDP 53`, or `All Connections`."""
        return ports_text(self.ports)

    def __str__(self) -> str:
        some = " (some of the pods)" if self.partly else ""
        return f"{self.source} => {self.destination} : {self.what}{some}"


def ports_text(spans: Sequence[Span]) -> str:
    """Spans as text, numbers of one protocol together."""
    if {(span.protocol, span.first, span.last) for span in spans} == {(name, 1, 65535) for name in PROTOCOLS}:
        return ALL
    parts = []
    for protocol in PROTOCOLS:
        own = [span for span in spans if span.protocol == protocol]
        numbers = [
            str(span.first) if span.first == span.last else f"{span.first}-{span.last}" for span in own
        ]
        if numbers:
            parts.append(f"{protocol} {','.join(numbers)}")
    return ",".join(parts)


def node_name(endpoint: Endpoint) -> str:
    """The name a pod goes by in a listing: its workload's."""
    kind, _, name = endpoint.owner.rpartition("/")
    if name:
        return f"{endpoint.namespace}/{name}[{kind or 'Pod'}]"
    return f"{endpoint.name}[Pod]"


class Listing(Struct, frozen=True):
    """Nodes and connections of a world, sorted by name."""

    nodes: tuple[Node, ...]
    connections: tuple[Connection, ...]

    def text(self) -> str:
        """One connection a line; what is not listed is denied."""
        return "".join(f"{connection}\n" for connection in self.connections)

    def find(self, source: str, destination: str) -> Connection | None:
        """The connection between two nodes, by name."""
        for connection in self.connections:
            if (connection.source, connection.destination) == (source, destination):
                return connection
        return None


def listing(world: World, *, outside: bool = True) -> Listing:
    """List every connection between workloads, and with outside addresses in ranges that no policy tells apart.

    Pods of one workload count as one node and are not listed with themselves.

    Args:
        world: Its own outside addresses are left out; ranges stand for them.
        outside: Whether to list ranges of addresses at all.
    """
    pods = tuple(endpoint for endpoint in world.endpoints if endpoint.is_pod)
    ranges = outside_ranges(world) if outside else []
    addresses = tuple(Endpoint(ip_text(first, of), ips=(ip_text(first, of),)) for of, first, _last in ranges)
    reach = Reach(replace(world, endpoints=(*pods, *addresses)))
    groups: dict[str, list[int]] = {}
    for position, endpoint in enumerate(reach.world.endpoints[: len(pods)]):
        groups.setdefault(node_name(endpoint), []).append(position)
    names = list(groups)
    masks = [mask_of(reach.index.class_of[position] for position in groups[name]) for name in names]
    found: dict[tuple[str, str], tuple[list[Span], bool]] = {}
    kinds = reach.kinds()
    outer: dict[tuple[int, str, bool], list[Span]] = {}
    first_outside = len(pods)
    for kind, spans in kinds.items():
        rows = {at: reach.row(kind, at) for at in range(len(reach.index.classes))}
        for name, own in zip(names, masks, strict=True):
            union, common = 0, -1
            for at in bits(own):
                union |= rows[at]
                common &= rows[at]
            for other, theirs in zip(names, masks, strict=True):
                if other != name and union & theirs:
                    some = (common & theirs) != theirs
                    entry = found.get((name, other), ([], False))
                    found[name, other] = ([*entry[0], *spans], entry[1] or some)
            for number in range(len(ranges)):
                at = reach.index.class_of[first_outside + number]
                if union >> at & 1:
                    outer.setdefault((number, name, True), []).extend(spans)
                if rows[at] & own:
                    outer.setdefault((number, name, False), []).extend(spans)
    connections = [
        Connection(source, destination, ports, partly)
        for (source, destination), (spans, partly) in found.items()
        if (ports := merged(spans))
    ]
    nodes = [Node(name, tuple(world.endpoints[at].name for at in groups[name])) for name in names]
    connections += _outside(outer, ranges, names)
    nodes += [
        Node(name)
        for name in sorted({name for c in connections for name in (c.source, c.destination)} - set(names))
    ]
    return Listing(tuple(nodes), tuple(sorted(connections)))


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Spans in order, neighbours joined, port 0 left out."""
    found: list[Span] = []
    order = {name: number for number, name in enumerate(PROTOCOLS)}
    for span in sorted(spans, key=lambda item: (order[item.protocol], item.first)):
        first = max(span.first, 1)
        if first > span.last:
            continue
        if found and found[-1].protocol == span.protocol and found[-1].last + 1 >= first:
            found[-1] = Span(span.protocol, found[-1].first, max(span.last, found[-1].last))
        else:
            found.append(Span(span.protocol, first, span.last))
    return tuple(found)


def outside_ranges(world: World) -> list[tuple[int, int, int]]:
    """Ranges (family, first, last) of addresses that no policy's blocks tell apart; IPv6 only where it is used."""
    cuts: dict[int, set[int]] = {4: {0, 1 << 32}, 6: {0, 1 << 128}}
    used = {4} | {6 for endpoint in world.endpoints for ip in endpoint.ips if ":" in ip}
    for policy in world.policies:
        for rule in (*policy.ingress, *policy.egress):
            for peer in rule.peers or ():
                for text in (peer.block, *peer.excepted) if peer.block else ():
                    block = prefix(text)
                    if ":" in text and block.length:
                        used.add(6)
                    size = 1 << ((32 if block.family == 4 else 128) - block.length)
                    cuts[block.family] |= {block.net, block.net + size}
                if peer.nodes is not None:
                    for node in world.nodes:
                        for ip in node.ips:
                            block = prefix(ip)
                            cuts[block.family] |= {block.net, block.net + 1}
    found = []
    for of in sorted(used):
        ordered = sorted(cuts[of])
        found += [(of, first, after - 1) for first, after in pairwise(ordered)]
    return found


def _outside(
    outer: dict[tuple[int, str, bool], list[Span]],
    ranges: Sequence[tuple[int, int, int]],
    names: Sequence[str],
) -> list[Connection]:
    """Connections with ranges, neighbouring ranges that get the same joined."""
    found: list[Connection] = []
    for name in names:
        for sent in (True, False):
            joined: list[tuple[int, int, int, tuple[Span, ...]]] = []
            for number, (of, first, last) in enumerate(ranges):
                ports = merged(outer.get((number, name, sent), ()))
                if not ports:
                    continue
                if joined and joined[-1][0] == of and joined[-1][2] + 1 == first and joined[-1][3] == ports:
                    joined[-1] = (of, joined[-1][1], last, ports)
                else:
                    joined.append((of, first, last, ports))
            for of, first, last, ports in joined:
                far = f"{ip_text(first, of)}-{ip_text(last, of)}[External]"
                pair = (name, far) if sent else (far, name)
                found.append(Connection(*pair, ports))
    return found


class Change(Struct, frozen=True, order=True):
    """A connection that two worlds differ in; an empty side is a connection that is not there."""

    source: str
    destination: str
    before: tuple[Span, ...]
    after: tuple[Span, ...]

    def __str__(self) -> str:
        pair = f"{self.source} => {self.destination} : "
        if not self.before:
            return f"+ {pair}{ports_text(self.after)}"
        if not self.after:
            return f"- {pair}{ports_text(self.before)}"
        return f"~ {pair}{ports_text(self.before)} -> {ports_text(self.after)}"


def diff(before: World, after: World) -> tuple[Change, ...]:
    """What of the connections between workloads, and with the outside, two worlds differ in."""
    old, new = (
        {(item.source, item.destination): item.ports for item in listing(world).connections}
        for world in (before, after)
    )
    return tuple(
        Change(*pair, old.get(pair, ()), new.get(pair, ()))
        for pair in sorted({*old, *new})
        if old.get(pair) != new.get(pair)
    )
