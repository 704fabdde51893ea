"""Every pair and every port at once.

Endpoints that no policy can tell apart are one class; the port numbers of each protocol fall into spans that no policy
tells apart. For each span two tables of bits say whom a class may send to as far as its own policies go (`egress`) and
who lets it in (`ingress`); a connection needs both. The union over NetworkPolicies is taken once for each distinct peer
instead of once for each pair, which is why ten thousand pods take seconds.

The verdicts are those of `kubenet_lab.policy.evaluate`, which tests hold this module to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter

from msgspec import Struct

from kubenet_lab.policy.evaluate import LETTERS, on_node, parse_port
from kubenet_lab.policy.world import (
    ACCEPT,
    ADMIN,
    BASELINE,
    DENY,
    EGRESS,
    INGRESS,
    LAST_PORT,
    NETWORK,
    PROTOCOLS,
    Policy,
    Ports,
    Rule,
    World,
)
from kubenet_lab.reach.masks import Index, bits, mask_of

_ORDER = ((True, True), (True, False), (False, True), (False, False))
_CELLS = bytes.maketrans(bytes(range(4)), "".join(LETTERS[key] for key in _ORDER).encode())
"""Ingress denied counts 1, egress denied 2."""


class Span(Struct, frozen=True, order=True):
    """Ports `first` to `last` of a protocol, which no policy tells apart."""

    protocol: str
    first: int
    last: int

    def __str__(self) -> str:
        if (self.first, self.last) == (0, LAST_PORT):
            return f"all/{self.protocol}"
        numbers = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        return f"{numbers}/{self.protocol}"


class _Ruled(Struct):
    """A rule with its masks: whom the policy is about, and whom the rule names (-1: everybody)."""

    subject: int
    peers: int
    ports: tuple[Ports, ...] | None
    action: str = ACCEPT


_EVERY_PORT = -1


class Reach:
    """What policies allow in a world.

    Args:
        world: Endpoints, namespaces and policies.
        before: The reach of the same endpoints under other policies; what is alike is not worked out again.
    """

    def __init__(self, world: World, before: Reach | None = None) -> None:
        self.world = world
        base = before if before is not None and before.index.serves(world) else None
        self.index: Index = base.index if base is not None else Index(world)
        self._position = {endpoint.name: number for number, endpoint in enumerate(world.endpoints)}
        self.spans: tuple[Span, ...] = tuple(self._make_spans())
        """All ports of all protocols, cut where some policy cuts them."""
        self._starts: dict[str, list[tuple[int, int]]] = {}
        for number, span in enumerate(self.spans):
            self._starts.setdefault(span.protocol, []).append((span.first, number))
        self._signatures: dict[tuple[int, ...], int] = {}
        self._tables: dict[int, tuple[list[int], list[int]]] = {}
        self._kinds = self._sort_ports()
        edited = _edited(base.world, world) if base is not None else None
        if base is not None and edited is not None:
            self._patch(base, edited)
        else:
            self._gather()

    # -- gathering ------------------------------------------------------------------------------------------------

    def _gather(self) -> None:
        """Bring rules to masks, and sources to groups that the same rules speak of."""
        index, count = self.index, len(self.index.classes)
        self._ruled: dict[tuple[str, str], list[_Ruled]] = {}
        self._isolated = {INGRESS: 0, EGRESS: 0}
        own: list[list[int]] = [[] for _ in range(count)]
        peers: dict[int, dict[tuple[Ports, ...] | None, int]] = {}
        self._out: list[list[tuple[int, tuple[Ports, ...] | None]]] = []
        for policy in self.world.policies:
            subject = index.peer(policy.subject)
            if policy.tier != NETWORK:
                for direction in (INGRESS, EGRESS):
                    ruled = self._ruled.setdefault((policy.tier, direction), [])
                    ruled += [
                        _Ruled(subject, self._mask(rule), rule.ports, rule.action)
                        for rule in policy.rules(direction)
                    ]
                continue
            for direction in policy.isolates:
                self._isolated[direction] |= subject
            for rule in policy.rules(INGRESS):
                mask = self._mask(rule)
                by_ports = peers.setdefault(mask, {})
                by_ports[rule.ports] = by_ports.get(rule.ports, 0) | subject
            rules = [(self._mask(rule), rule.ports) for rule in policy.rules(EGRESS)]
            if EGRESS in policy.isolates and rules and subject:
                number = len(self._out)
                self._out.append(rules)
                for at in bits(subject):
                    own[at].append(number)
        everyone = peers.pop(index.everybody, {})
        self._in: list[dict[tuple[Ports, ...] | None, int]] = [everyone, *peers.values()]
        heard: list[list[int]] = [[0] for _ in range(count)]
        for number, mask in enumerate(peers, start=1):
            for at in bits(mask):
                heard[at].append(number)
        self._tiered = any(self._ruled.values())
        marks = self._tier_marks(count) if self._tiered else [()] * count
        nodes = self.world.conventions.node_allowed
        groups: dict[object, int] = {}
        self._groups: list[int] = []
        """One class of each group of sources."""
        self._group_of: list[int] = []
        isolated = self._isolated[EGRESS]
        for at in range(count):
            endpoint = index.classes[at]
            key = (
                tuple(own[at]),
                tuple(heard[at]),
                marks[at],
                isolated >> at & 1,
                endpoint.selectable,
                (endpoint.node if endpoint.is_pod else endpoint.name) if nodes else "",
            )
            group = groups.setdefault(key, len(groups))
            if group == len(self._groups):
                self._groups.append(at)
            self._group_of.append(group)
        self._own, self._heard = own, heard

    def _mask(self, rule: Rule) -> int:
        if rule.peers is None:
            return self.index.everybody
        mask = 0
        for peer in rule.peers:
            mask |= self.index.peer(peer)
        return mask

    def _tier_marks(self, count: int) -> list[tuple[int, ...]]:
        """For each class, which of the administrators' rules are about it, as a peer or as a subject."""
        found: list[list[int]] = [[] for _ in range(count)]
        number = 0
        for (_tier, direction), ruled in sorted(self._ruled.items()):
            for item in ruled:
                number += 1
                for at in bits(item.peers if direction == INGRESS else item.subject):
                    found[at].append(number)
        return [tuple(numbers) for numbers in found]

    def _make_spans(self) -> Iterator[Span]:
        cuts: dict[str, set[int]] = {protocol: {0} for protocol in PROTOCOLS}
        self._distinct: dict[tuple[Ports, ...], None] = {}
        for policy in self.world.policies:
            for rule in (*policy.rules(INGRESS), *policy.rules(EGRESS)):
                if rule.ports is not None:
                    self._distinct[rule.ports] = None
        for ports in self._distinct:
            for item in ports:
                if item.name:
                    for port, _mask in self.index.named_ports(item):
                        cuts[port.protocol] |= {port.number, port.number + 1}
                elif item.protocol in cuts:
                    cuts[item.protocol] |= {item.first, item.last + 1}
        for protocol in PROTOCOLS:
            starts = sorted(cut for cut in cuts[protocol] if cut <= LAST_PORT)
            for first, after in zip(starts, [*starts[1:], LAST_PORT + 1], strict=True):
                yield Span(protocol, first, after - 1)

    def _destinations(self, ports: tuple[Ports, ...] | None, span: Span) -> int:
        """The destinations for whom a span is among the ports a rule means; all of them is `_EVERY_PORT`."""
        if ports is None:
            return _EVERY_PORT
        mask = 0
        for item in ports:
            if item.name:
                for port, declared in self.index.named_ports(item):
                    if port.protocol == span.protocol and port.number == span.first == span.last:
                        mask |= declared
            elif item.protocol == span.protocol and item.first <= span.first and span.last <= item.last:
                return _EVERY_PORT
        return mask

    def _sort_ports(self) -> list[int]:
        """For each span, the number of its kind: spans of one kind are told apart by no rule."""
        kinds: list[int] = []
        self._meant: list[dict[tuple[Ports, ...] | None, int]] = []
        for span in self.spans:
            masks = tuple(self._destinations(ports, span) for ports in self._distinct)
            kind = self._signatures.setdefault(masks, len(self._signatures))
            if kind == len(self._meant):
                self._meant.append({None: _EVERY_PORT, **dict(zip(self._distinct, masks, strict=True))})
            kinds.append(kind)
        return kinds

    # -- the tables -----------------------------------------------------------------------------------------------

    def _table(self, kind: int) -> tuple[list[int], list[int]]:
        """For each class of sources: destinations its own policies let it reach, and those that let it in."""
        found = self._tables.get(kind)
        if found is None:
            found = self._tables[kind] = self._work_out(self._meant[kind])
        return found

    def _work_out(self, meant: dict[tuple[Ports, ...] | None, int]) -> tuple[list[int], list[int]]:
        everybody = self.index.everybody
        hearing: list[int] = []
        for by_ports in self._in:
            mask = 0
            for ports, subject in by_ports.items():
                mask |= subject & meant[ports]
            hearing.append(mask)
        sending: list[int] = []
        for rules in self._out:
            mask = 0
            for peers, ports in rules:
                mask |= peers & meant[ports]
            sending.append(mask)
        isolated = self._isolated[INGRESS]
        egress: list[int] = []
        ingress: list[int] = []
        for at in self._groups:
            out = everybody
            if self._isolated[EGRESS] >> at & 1:
                out = 0
                for number in self._own[at]:
                    out |= sending[number]
            heard = 0
            for number in self._heard[at]:
                heard |= hearing[number]
            if self._tiered:
                out = self._tiers_out(at, out, meant)
                into = self._tiers_in(at, heard, meant)
            else:
                into = everybody & ~isolated | heard
            if self.world.conventions.node_allowed:
                out |= self._on_node(at, EGRESS)
                into |= self._on_node(at, INGRESS)
            egress.append(out if self.index.classes[at].selectable else everybody)
            ingress.append(into | (everybody & ~self.index.pods))
        groups = self._group_of
        return [egress[group] for group in groups], [ingress[group] for group in groups]

    def _patch(self, base: Reach, edited: Sequence[Policy]) -> None:
        """Take over another world's tables and change what the NetworkPolicies that differ can have changed.

        An edited policy changes whole rows of the egress table, those of its pods, and whole columns of the ingress
        table, which are worked out under the old and the new policies and compared.
        """
        subjects = 0
        for policy in edited:
            subjects |= self.index.peer(policy.subject)
        about_old, about_new = base._about(subjects), self._about(subjects)
        for kind, spans in self.kinds().items():
            meant_before = base.kind(spans[0].first, spans[0].protocol)
            egress, ingress = (list(rows) for rows in base._table(meant_before))
            columns: dict[int, int] = {}
            for at in bits(subjects):
                # Whom the conventions let pass no policy changes.
                exempt = self._on_node(at, EGRESS) if self.world.conventions.node_allowed else 0
                egress[at] = self._network_out(about_new[at], kind) | exempt
                changed = base._column(about_old[at], at, meant_before) ^ self._column(
                    about_new[at], at, kind
                )
                changed &= ~exempt
                if changed:
                    columns[changed] = columns.get(changed, 0) | 1 << at
            for changed, ones in columns.items():
                for source in bits(changed):
                    ingress[source] ^= ones
            self._tables[kind] = (egress, ingress)

    def _about(self, classes: int) -> dict[int, list[Policy]]:
        """For each of some classes, the NetworkPolicies that select it."""
        found: dict[int, list[Policy]] = {at: [] for at in bits(classes)}
        for policy in self.world.policies:
            for at in bits(self.index.peer(policy.subject) & classes):
                found[at].append(policy)
        return found

    def _network_out(self, policies: Sequence[Policy], kind: int) -> int:
        """The destinations that the NetworkPolicies of one class let it reach."""
        meant = self._meant[kind]
        isolating = [policy for policy in policies if EGRESS in policy.isolates]
        if not isolating:
            return self.index.everybody
        mask = 0
        for policy in isolating:
            for rule in policy.rules(EGRESS):
                mask |= self._mask(rule) & meant[rule.ports]
        return mask

    def _column(self, policies: Sequence[Policy], at: int, kind: int) -> int:
        """The sources that the NetworkPolicies of one class let in."""
        meant = self._meant[kind]
        isolating = [policy for policy in policies if INGRESS in policy.isolates]
        if not isolating:
            return self.index.everybody
        mask = 0
        for policy in isolating:
            for rule in policy.rules(INGRESS):
                if meant[rule.ports] >> at & 1:
                    mask |= self._mask(rule)
        return mask

    def _tiers_out(self, at: int, network: int, meant: dict[tuple[Ports, ...] | None, int]) -> int:
        """What a source may send to under all tiers; `network` is what NetworkPolicies say."""
        allowed, rest = _first_fit(
            self.index.everybody,
            [
                (item.peers & meant[item.ports], item.action)
                for item in self._ruled.get((ADMIN, EGRESS), ())
                if item.subject >> at & 1
            ],
        )
        if self._isolated[EGRESS] >> at & 1:
            return allowed | rest & network
        more, rest = _first_fit(
            rest,
            [
                (item.peers & meant[item.ports], item.action)
                for item in self._ruled.get((BASELINE, EGRESS), ())
                if item.subject >> at & 1
            ],
        )
        return allowed | more | rest

    def _tiers_in(self, at: int, network: int, meant: dict[tuple[Ports, ...] | None, int]) -> int:
        """Who lets a source in under all tiers; `network` is what rules of NetworkPolicies accept."""
        allowed, rest = _first_fit(
            self.index.everybody,
            [
                (item.subject & meant[item.ports], item.action)
                for item in self._ruled.get((ADMIN, INGRESS), ())
                if item.peers >> at & 1
            ],
        )
        isolated = self._isolated[INGRESS]
        more, undecided = _first_fit(
            rest & ~isolated,
            [
                (item.subject & meant[item.ports], item.action)
                for item in self._ruled.get((BASELINE, INGRESS), ())
                if item.peers >> at & 1
            ],
        )
        return allowed | rest & isolated & network | more | undecided

    def _on_node(self, at: int, direction: str) -> int:
        """The pods on a source's node, if it is that node; the node, if it is a pod."""
        source = self.index.classes[at]
        if direction == EGRESS:
            return mask_of(
                number
                for number, other in enumerate(self.index.classes)
                if not other.selectable and source.node and on_node(self.world, other, source.node)
            )
        if source.selectable:
            return 0
        return mask_of(
            number
            for number, other in enumerate(self.index.classes)
            if other.selectable and other.node and on_node(self.world, source, other.node)
        )

    # -- asking ---------------------------------------------------------------------------------------------------

    def span(self, port: int, protocol: str) -> Span:
        """The span a port is in."""
        return self.spans[self._span_number(port, protocol)]

    def _span_number(self, port: int, protocol: str) -> int:
        from bisect import bisect_right

        starts = self._starts[protocol]
        return starts[bisect_right(starts, (port, len(self.spans))) - 1][1]

    def kind(self, port: int, protocol: str) -> int:
        """A number that two ports share if no policy tells them apart."""
        return self._kinds[self._span_number(port, protocol)]

    def kinds(self) -> dict[int, list[Span]]:
        """The spans of each kind, in order."""
        found: dict[int, list[Span]] = {}
        for kind, span in zip(self._kinds, self.spans, strict=True):
            found.setdefault(kind, []).append(span)
        return found

    def rows(self, kind: int, at: int) -> tuple[int, int]:
        """For a class as the source, as masks of classes: whom its egress allows, who lets it in."""
        egress, ingress = self._table(kind)
        return egress[at], ingress[at]

    def row(self, kind: int, at: int) -> int:
        """The classes a class can reach."""
        egress, ingress = self.rows(kind, at)
        return egress & ingress

    def verdict(self, source: str, destination: str, port: int, protocol: str = "TCP") -> tuple[bool, bool]:
        """Whether egress and ingress allow a flow between two endpoints of the world. Raises KeyError."""
        start, end = self._position[source], self._position[destination]
        if self.world.conventions.self_allowed and start == end:
            return True, True
        egress, ingress = self.rows(self.kind(port, protocol), self.index.class_of[start])
        at = self.index.class_of[end]
        return bool(egress >> at & 1), bool(ingress >> at & 1)

    def allowed(self, source: str, destination: str, port: int, protocol: str = "TCP") -> bool:
        """Whether policies let a connection be made. Raises KeyError for an unknown endpoint."""
        return self.verdict(source, destination, port, protocol) == (True, True)

    def table(self, probes: Sequence[str]) -> dict[str, list[str]]:
        """Truth table: for each probe ("80/TCP") a row a source, a letter a destination, in the world's order.

        "." allowed, "I", "E", "B" denied by the ingress side, the egress side, both; "-" between two addresses outside.
        Raises ValueError for a malformed probe.
        """
        return {probe: self._letters(*parse_port(probe)) for probe in probes}

    def _letters(self, port: int, protocol: str) -> list[str]:
        kind = self.kind(port, protocol)
        egress, ingress = self._table(kind)
        count = len(self.index.classes)
        if not count:
            return []
        # A trailing "-" keeps itemgetter from returning a bare letter where there is one endpoint.
        expand = itemgetter(*self.index.class_of, count, count)
        full, one = self.index.everybody, "0" + str(count) + "b"
        inside = sum(endpoint.is_pod for endpoint in self.world.endpoints)
        outside = "-" * (len(self.world.endpoints) - inside)
        drawn: dict[tuple[int, int], str] = {}
        rows: list[str] = []
        for position, at in enumerate(self.index.class_of):
            out, into = egress[at], ingress[at]
            row = drawn.get((id(out), id(into)))
            if row is None:
                denied_in = int.from_bytes(format(full & ~into, one).encode().translate(_DIGITS), "big")
                denied_out = int.from_bytes(format(full & ~out, one).encode().translate(_DIGITS), "big")
                cells = (denied_in + 2 * denied_out).to_bytes(count, "big").translate(_CELLS)[::-1].decode()
                row = drawn[id(out), id(into)] = "".join(expand(cells + "-"))[:-2]
            if position >= inside:
                row = row[:inside] + outside
            elif self.world.conventions.self_allowed:
                row = f"{row[:position]}.{row[position + 1 :]}"
            rows.append(row)
        return rows

    def count(self, kind: int) -> int:
        """How many pairs of endpoints can connect over a kind of ports, a pair of outside addresses not counted."""
        egress, ingress = self._table(kind)
        sizes = [len(members) for members in self.index.members]
        planes = [
            mask_of(at for at, size in enumerate(sizes) if size >> bit & 1)
            for bit in range(max(sizes, default=1).bit_length())
        ]
        inside = self._inside()
        counted: dict[tuple[int, int, bool], int] = {}
        total = 0
        for at, size in enumerate(sizes):
            pod = bool(inside >> at & 1)
            key = (id(egress[at]), id(ingress[at]), pod)
            found = counted.get(key)
            if found is None:
                row = egress[at] & ingress[at] & (self.index.everybody if pod else inside)
                found = counted[key] = sum(
                    (row & plane).bit_count() << bit for bit, plane in enumerate(planes)
                )
            total += found * size
        return total

    def _inside(self) -> int:
        return mask_of(at for at, endpoint in enumerate(self.index.classes) if endpoint.is_pod)

    def meant(self, kind: int, ports: tuple[Ports, ...] | None) -> int:
        """The destinations for whom a kind of ports is among those a rule means; -1 is all of them."""
        return self._meant[kind][ports]

    def same_as(self, other: Reach) -> bool:
        """Whether policies allow the same between the same endpoints, whatever they say."""
        if other.index is not self.index:
            return self.table(_probes(self, other)) == other.table(_probes(self, other))
        inside = self.index.pods
        starts = {(span.first, span.protocol) for span in (*self.spans, *other.spans)}
        for mine, theirs in {(self.kind(*start), other.kind(*start)) for start in starts}:
            for at, endpoint in enumerate(self.index.classes):
                allowed = inside if not endpoint.is_pod else self.index.everybody
                if (self.row(mine, at) ^ other.row(theirs, at)) & allowed:
                    return False
        return True

    def with_policies(self, policies: Sequence[Policy]) -> Reach:
        """The reach under other policies."""
        return Reach(self.world.with_policies(policies), self)


_DIGITS = bytes.maketrans(b"01", bytes(range(2)))


def _probes(*reaches: Reach) -> list[str]:
    """A port of every span."""
    return sorted({f"{span.first}/{span.protocol}" for reach in reaches for span in reach.spans})


def _edited(before: World, after: World) -> list[Policy] | None:
    """The NetworkPolicies in which two worlds differ, old and new versions; None where a patch cannot be made.

    Administrators' policies have an order, which a patch would have to heed.
    """
    old, new = (
        {(policy.kind, policy.namespace, policy.name): policy for policy in world.policies}
        for world in (before, after)
    )
    unnamed = len(old) != len(before.policies) or len(new) != len(after.policies)
    if unnamed or any(policy.tier != NETWORK for policy in (*before.policies, *after.policies)):
        return None
    edited = [policy for key, policy in old.items() if new.get(key) != policy]
    return edited + [policy for key, policy in new.items() if old.get(key) != policy]


def _first_fit(undecided: int, rules: Sequence[tuple[int, str]]) -> tuple[int, int]:
    """Of a set, those an ordered list of rules accepts, and those it leaves to the next tier."""
    accepted = passed = 0
    for mask, action in rules:
        hit = undecided & mask
        if not hit:
            continue
        undecided &= ~hit
        if action == ACCEPT:
            accepted |= hit
        elif action != DENY:
            passed |= hit
    return accepted, undecided | passed


__all__ = ["Reach", "Span"]
