"""The iptables evaluator: one packet through one table at one hook, as net/ipv4/netfilter/ip_tables.c does
it.

First match wins, a jump comes back at the end of its chain, a goto does not, and the policy closes a
built-in chain. Chains are made ready when a packet first meets them: rules become lists of small functions
(`xt_matches`, `xt_targets`), and a long chain is indexed by exact address and port, so that a hundred
Services cost what ten do. What is tried in which order never shows: a linear kernel would have picked the
same rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from kubenet_lab.errors import KubenetLabError
from kubenet_lab.kernel.netfilter import HOOKS, Chain, Counter, Goto, Jump, Rule, Ruleset
from kubenet_lab.kernel.netfilter.extension import Target
from kubenet_lab.kernel.netfilter.matches import Multiport, Sctp, Tcp, Udp
from kubenet_lab.kernel.netfilter.targets import Return
from kubenet_lab.trace import RuleRef, Step
from kubenet_lab.walk.skb import Skb

ACCEPT, DROP, REJECT, NAT = "ACCEPT", "DROP", "REJECT", "NAT"
"""What a hook can say. NAT comes from the nat table only, and means: set up this translation."""

INDEX_FROM = 9
"""Chains of at least so many rules are indexed."""


class HookContext(Protocol):
    """What the evaluator asks of the walk."""

    now: float
    """Simulated time in s."""
    tried: int
    """Rules a linear kernel would have tried; the evaluator adds to it."""
    choose: Callable[[Any, float], bool]
    """(rule, probability) -> does `-m statistic --mode random` fit this packet?"""

    steps: list[Step]
    """The trace in the making; a rule that fits is written there with what came of it."""


class NotModelled(KubenetLabError):
    """A packet met a rule whose outcome this model does not know.

    `entry` is the rule's place, `what` names the thing that is not modelled.
    """

    def __init__(self, entry: RuleRef, what: str) -> None:
        self.entry, self.what = entry, what
        super().__init__(f"not modelled: {what} ({entry})")


class NatRange:
    """Into what a NAT target rewrites a connection.

    Attributes:
        kind: DNAT, SNAT, MASQUERADE, REDIRECT or NETMAP.
        side: "dst" or "src": what is rewritten.
        addr_min, addr_max: The addresses to pick from; "" keeps the packet's (DNAT and SNAT) or is the
        host's own
            (MASQUERADE: the outgoing interface's; REDIRECT: the incoming interface's, or loopback).
        port_min, port_max: The ports to pick from; 0 leaves the port to the NAT engine.
        base: Base port of a shifted range; 0 for none.
        random, random_fully, persistent: The flags.
    """

    __slots__ = (
        "addr_max",
        "addr_min",
        "base",
        "kind",
        "persistent",
        "port_max",
        "port_min",
        "random",
        "random_fully",
        "side",
    )

    def __init__(
        self,
        kind: str,
        side: str,
        addr_min: str = "",
        addr_max: str = "",
        ports: tuple[int, int] | None = None,
        base: int = 0,
        random: bool = False,
        random_fully: bool = False,
        persistent: bool = False,
    ) -> None:
        self.kind, self.side = kind, side
        self.addr_min, self.addr_max = addr_min, addr_max
        self.port_min, self.port_max = ports or (0, 0)
        self.base = base
        self.random, self.random_fully, self.persistent = random, random_fully, persistent

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NatRange) and all(
            getattr(self, n) == getattr(other, n) for n in self.__slots__
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"NatRange({', '.join(f'{name}={getattr(self, name)!r}' for name in sorted(self.__slots__))})"


class Verdict:
    """What a table said about a packet.

    Attributes:
        kind: ACCEPT, DROP, REJECT or NAT.
        rule: The rule that decided; number 0 is the chain's policy.
        target: Its target; None for a policy.
        icmp: REJECT: (type, code) of the ICMP error to send; None when a TCP RST goes out instead.
        range: NAT: what to rewrite into.
    """

    __slots__ = ("icmp", "kind", "range", "rule", "target")

    def __init__(
        self,
        kind: str,
        rule: RuleRef,
        target: Target | None = None,
        icmp: tuple[int, int] | None = None,
        range: NatRange | None = None,
    ) -> None:
        self.kind, self.rule, self.target, self.icmp, self.range = kind, rule, target, icmp, range

    @property
    def tcp_reset(self) -> bool:
        """True when REJECT answers with a TCP RST."""
        return self.kind == REJECT and self.icmp is None

    def __repr__(self) -> str:
        return f"<Verdict {self.kind} by {self.rule}>"


Test = Callable[[Skb, HookContext], bool]
"""One condition of a rule."""
Act = Callable[[Skb, HookContext], str]
"""What a target without a verdict does; returns what to show."""
Decide = Callable[[Skb, str], Verdict]
"""What a target whose verdict depends on the packet and the hook does."""

Key = tuple[str, str, int, int]
"""(destination, source, protocol, destination port or 0): what keyed tests look at."""

PASS, JUMP, GOTO, RETURN, FINAL, DECIDE = range(6)


class Site:
    """Where a rule stands: what a match needs to keep state or to say where it is."""

    __slots__ = ("family", "place", "ref", "rule")

    def __init__(self, family: int, ref: RuleRef, rule: Rule) -> None:
        self.family, self.ref, self.rule = family, ref, rule
        self.place = 0
        """Number of the match being made ready: two of a kind in one rule keep their state apart."""

    @property
    def key(self) -> tuple[int, str, str, int]:
        """Names the rule in per-namespace state."""
        return (self.family, self.ref.table, self.ref.chain, self.ref.number)


class ReadyRule:
    """A rule made ready for packets."""

    __slots__ = (
        "act",
        "action",
        "chain",
        "counter",
        "keyed",
        "number",
        "outcome",
        "ref",
        "rule",
        "spot",
        "tests",
        "transport",
        "verdict",
    )

    def __init__(self, family: int, ref: RuleRef, rule: Rule, counter: Counter) -> None:
        from kubenet_lab.walk.xt_matches import tests_of
        from kubenet_lab.walk.xt_targets import ready_target

        site = Site(family, ref, rule)
        self.rule, self.ref, self.number, self.counter = rule, ref, ref.number, counter
        self.spot = f"{ref.table} {ref.chain}"
        self.keyed: tuple[Test, ...]
        self.tests: tuple[Test, ...]
        self.keyed, self.tests = tests_of(site)
        self.transport = any(isinstance(match, (Tcp, Udp, Sctp, Multiport)) for match in rule.matches)
        self.chain = ""
        self.act: Act | None = None
        self.verdict: Verdict | Decide | None = None
        target = rule.target
        if isinstance(target, (Jump, Goto)):
            self.action, self.chain = (
                (JUMP, target.chain) if isinstance(target, Jump) else (GOTO, target.chain)
            )
            self.outcome = ("jump " if self.action == JUMP else "goto ") + target.chain
        elif isinstance(target, Return):
            self.action, self.outcome = RETURN, "RETURN"
        else:
            self.action, self.outcome, self.act, self.verdict = ready_target(site, target)


class ReadyChain:
    """A chain made ready for packets.

    Rules of an indexed chain are made ready one by one, as packets need them.
    """

    __slots__ = (
        "_by_dst",
        "_by_port",
        "_by_src",
        "_by_to",
        "_generic",
        "_ready",
        "by_transport",
        "chain",
        "counters",
        "every",
        "family",
        "kept",
        "policy",
        "size",
        "table",
    )

    def __init__(
        self, family: int, table: str, chain: Chain, counters: list[Counter], index_from: int
    ) -> None:
        self.family, self.table, self.chain, self.counters = family, table, chain, counters
        self.size = len(chain.rules)
        kind = DROP if chain.policy == "DROP" else ACCEPT
        self.policy = Verdict(kind, RuleRef(table, chain.name, 0, kind))
        self._ready: dict[int, ReadyRule] = {}
        self.kept: dict[Key, tuple[ReadyRule, ...]] = {}
        self.by_transport = any(
            isinstance(match, (Tcp, Udp)) and (match.dport != (0, 65535) or match.not_dport)
            for rule in chain.rules
            for match in rule.matches
        )
        self.every: tuple[ReadyRule, ...] | None = None
        if self.size < index_from:
            self.every = tuple(self._rule(index) for index in range(self.size))
        else:
            self._index()

    def _rule(self, index: int) -> ReadyRule:
        found = self._ready.get(index)
        if found is None:
            rule = self.chain.rules[index]
            ref = RuleRef(self.table, self.chain.name, index + 1, rule)
            found = self._ready[index] = ReadyRule(self.family, ref, rule, self.counters[index + 1])
        return found

    def _index(self) -> None:
        self._by_to: dict[tuple[str, int, int], list[int]] = {}
        self._by_dst: dict[str, list[int]] = {}
        self._by_port: dict[tuple[int, int], list[int]] = {}
        self._by_src: dict[str, list[int]] = {}
        self._generic: list[int] = []
        host = "/32" if self.family == 4 else "/128"
        for index, rule in enumerate(self.chain.rules):
            dst = rule.dst[: -len(host)] if rule.dst.endswith(host) and not rule.not_dst else ""
            port = _exact_port(rule)
            if dst and port is not None:
                self._by_to.setdefault((dst, rule.proto, port), []).append(index)
            elif dst:
                self._by_dst.setdefault(dst, []).append(index)
            elif port is not None:
                self._by_port.setdefault((rule.proto, port), []).append(index)
            elif rule.src.endswith(host) and not rule.not_src:
                self._by_src.setdefault(rule.src[: -len(host)], []).append(index)
            else:
                self._generic.append(index)

    def candidates(self, key: Key, skb: Skb, ctx: HookContext) -> tuple[ReadyRule, ...]:
        """Return the rules whose keyed tests fit a packet, in order: every other rule cannot fit.

        `kept` has the answer for packets alike already; this works it out for a new `key`.
        """
        pkt = skb.pkt
        if len(self.kept) > 4096:
            self.kept.clear()
        rules = self.every
        if rules is None:
            numbers = [
                *self._by_to.get((pkt.dst, pkt.proto, pkt.dport), ()),
                *self._by_dst.get(pkt.dst, ()),
                *self._by_port.get((pkt.proto, pkt.dport), ()),
                *self._by_src.get(pkt.src, ()),
            ]
            numbers = sorted(numbers + self._generic) if numbers else self._generic
            rules = tuple(self._rule(index) for index in numbers)
        found = tuple(rule for rule in rules if all(test(skb, ctx) for test in rule.keyed))
        self.kept[key] = found
        return found


def _exact_port(rule: Rule) -> int | None:
    """Return the one destination port a rule wants, if it wants one."""
    if not rule.proto or rule.not_proto:
        return None
    for match in rule.matches:
        if isinstance(match, (Tcp, Udp, Sctp)) and match.dport[0] == match.dport[1] and not match.not_dport:
            return match.dport[0]
    return None


def run_hook(skb: Skb, family: int, table: str, hook: str, ctx: HookContext) -> Verdict:
    """Walk a packet through a table's built-in chain.

    Targets that change the packet (MARK, TTL, ...) have done so when this returns; NAT is only decided.

    Raises:
        NotModelled: The outcome depends on something that is not modelled.
    """
    return evaluate(skb.ns.iptables[family], skb, table, hook, ctx)


def evaluate(
    ruleset: Ruleset, skb: Skb, table: str, hook: str, ctx: HookContext, index_from: int = INDEX_FROM
) -> Verdict:
    """Walk a packet through a chain of a ruleset; see `run_hook`. A huge `index_from` evaluates linearly."""
    assert hook in HOOKS
    chains: dict[str, ReadyChain] | None = ruleset.compiled.get(table)
    if chains is None:
        chains = ruleset.compiled[table] = {}
    chain = chains.get(hook)
    if chain is None:
        chain = _ready(ruleset, chains, table, hook, index_from)
    pkt = skb.pkt
    with_port = (pkt.dst, pkt.src, pkt.proto, pkt.dport)
    without = (pkt.dst, pkt.src, pkt.proto, 0)
    fragmented = pkt.fragment != 0
    length = 0
    tried = position = index = 0
    steps = ctx.steps
    key = with_port if chain.by_transport else without
    rules = chain.kept.get(key)
    if rules is None:
        rules = chain.candidates(key, skb, ctx)
    stack: list[tuple[ReadyChain, tuple[ReadyRule, ...], int, int]] = []
    try:
        while True:
            while index < len(rules):
                rule = rules[index]
                index += 1
                if fragmented and rule.transport:
                    raise NotModelled(rule.ref, "ports of a packet that travels in fragments")
                for test in rule.tests:
                    if not test(skb, ctx):
                        break
                else:
                    tried += rule.number - position
                    position = rule.number
                    if not length:
                        length = skb.length
                    counter = rule.counter
                    counter[0] += 1
                    counter[1] += length
                    action = rule.action
                    if action == PASS:
                        outcome = rule.act(skb, ctx) if rule.act is not None else rule.outcome
                        steps.append(Step("rule", rule.spot, rule.ref, outcome))
                        continue
                    steps.append(Step("rule", rule.spot, rule.ref, rule.outcome))
                    if action == FINAL:
                        return rule.verdict  # type: ignore[return-value]
                    if action == RETURN:
                        break
                    if action == DECIDE:
                        return rule.verdict(skb, hook)  # type: ignore[operator,misc]
                    below = chains.get(rule.chain)
                    if below is None:
                        below = _ready(ruleset, chains, table, rule.chain, index_from)
                    key = with_port if below.by_transport else without
                    inside = below.kept.get(key)
                    if inside is None:
                        inside = below.candidates(key, skb, ctx)
                    if action == JUMP:
                        if not inside:
                            tried += below.size
                            continue
                        stack.append((chain, rules, index, position))
                    chain, index, position = below, 0, 0
                    rules = inside
                    continue
            else:
                tried += chain.size - position
            if not stack:
                policy = chains[hook]
                own = policy.counters[0]
                own[0] += 1
                own[1] += length or skb.length
                return policy.policy
            chain, rules, index, position = stack.pop()
    finally:
        ctx.tried += tried


def _ready(
    ruleset: Ruleset, chains: dict[str, ReadyChain], table: str, name: str, index_from: int
) -> ReadyChain:
    made = ReadyChain(
        ruleset.family, table, ruleset.chain(table, name), ruleset.count(table, name), index_from
    )
    chains[name] = made
    return made
