"""The nftables evaluator: one packet through one base chain, as net/netfilter/nf_tables_core.c does it.

A chain's rules are tried in order; a rule's statements run until one does not fit. `accept` ends the base chain and
leaves the packet to the hook's next one; `drop` ends the packet. Chains are made ready when a packet first meets
them, and stay ready over transactions that leave them alone. Set and map look-ups are dictionary look-ups, or
bisections where there are intervals.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kubenet_lab.kernel.nftables import expressions as ex
from kubenet_lab.kernel.nftables import statements as st
from kubenet_lab.kernel.nftables.expressions import Element
from kubenet_lab.kernel.nftables.objects import Chain, Rule, Table
from kubenet_lab.kernel.nftables.ruleset import Ruleset
from kubenet_lab.trace import RuleRef, Step
from kubenet_lab.walk.nft_expressions import Place, Run
from kubenet_lab.walk.nft_statements import BREAK, Act, Inside, act_of
from kubenet_lab.walk.skb import Skb
from kubenet_lab.walk.xtables import ACCEPT, DROP, HookContext, NotModelled, Verdict

PRIORITIES = {
    "raw": -300,
    "conntrack": -200,
    "mangle": -150,
    "nat-dst": -100,
    "filter": 0,
    "security": 50,
    "nat-src": 100,
}
"""Where xtables and conntrack stand among the hooks (include/uapi/linux/netfilter_ipv4.h)."""


class NftRef(RuleRef):
    """A rule of nftables by place. `table` is "FAMILY NAME"; number 0 is the base chain's policy."""

    __slots__ = ()

    def __str__(self) -> str:
        if self.number == 0:
            return f"{self.table} {self.chain} policy {self.rule}"
        return f"{self.table} {self.chain} rule {self.number}: {self.rule}"


class NftHit(NftRef):
    """A rule that matched by what a set or map holds: the element, and its set's name ("" for one in the rule)."""

    # No __slots__: a tuple of varying length may have none that are not empty.
    element: Element
    within: str
    types: tuple[tuple[str, ...], tuple[str, ...]]
    """Datatypes of key and data."""

    @classmethod
    def of(cls, ref: NftRef, table: Table, found: tuple[ex.SetRef | ex.SetLiteral, Element]) -> NftHit:
        """Return a rule with the element that its look-up found."""
        hit = cls(*ref)
        data, hit.element = found
        if isinstance(data, ex.SetRef):
            one = table.sets[data.name]
            hit.within, hit.types = data.name, (one.key, one.data)
        else:
            hit.within, hit.types = "", (data.key, data.data)
        return hit

    @property
    def element_text(self) -> str:
        """The element as nft prints it: "10.96.0.100 . tcp . 80 : goto service-..."."""
        from kubenet_lab.kernel.dialects.nft.printer import data_text, key_text

        key, data = self.types
        text = key_text(key, self.element.key)
        return (
            f"{text} : {data_text(data, self.element.data)}"
            if data and self.element.data is not None
            else text
        )

    def __str__(self) -> str:
        where = f"@{self.within} has" if self.within else "found"
        return f"{super().__str__()}  ({where} {self.element_text})"


def statement_words(one: st.Statement) -> str:
    """Return a statement's text, for saying what is not modelled."""
    from kubenet_lab.kernel.dialects.nft.printer import statement_text

    return statement_text(one, stateless=True)


class ReadyRule:
    """A rule made ready: its acts in order, and where it is."""

    __slots__ = ("acts", "ref", "rule", "words")

    def __init__(self, ruleset: Ruleset, table: Table, ref: NftRef, rule: Rule, key: tuple[Any, ...]) -> None:
        self.ref, self.rule = ref, rule
        self.acts: tuple[Act, ...] = tuple(
            act_of(one, Place(ruleset, (*key, number)), table.family)
            for number, one in enumerate(rule.statements)
        )
        self.words = _words(rule.statements[-1])


def _words(one: st.Statement) -> str:
    """What a rule comes to when it fits, in a word or two."""
    if isinstance(one, st.VerdictStatement):
        return f"{one.verdict.kind} {one.verdict.chain}".strip()
    if isinstance(one, (st.Nat, st.Reject, st.Mangle, st.SetUpdate)):
        return statement_words(one)
    return "continue"


class ReadyChain:
    """A chain made ready."""

    __slots__ = ("name", "policy", "rules", "size", "spot")

    def __init__(self, ruleset: Ruleset, table: Table, chain: Chain) -> None:
        where = f"{table.family} {table.name}"
        self.name = chain.name
        self.spot = f"{where} {chain.name}"
        self.rules = tuple(
            ReadyRule(
                ruleset, table, NftRef(where, chain.name, number, rule), rule, (table.handle, rule.handle)
            )
            for number, rule in enumerate(chain.rules, 1)
        )
        self.size = len(self.rules)
        kind = DROP if chain.policy == "drop" else ACCEPT
        self.policy = Verdict(kind, NftRef(where, chain.name, 0, chain.policy or "accept"))


def evaluate(ruleset: Ruleset, table: Table, chain: Chain, skb: Skb, hook: str, ctx: HookContext) -> Verdict:
    """Walk a packet through a base chain.

    Args:
        ruleset: All rules of the namespace.
        table: The chain's table.
        chain: The base chain.
        skb: The packet; statements that change it have done so when this returns, NAT is only decided.
        hook: PREROUTING, INPUT, ...
        ctx: The walk: time, chance, the trace in the making.

    Returns:
        ACCEPT (the hook's next chain follows), DROP, REJECT or NAT.

    Raises:
        NotModelled: The outcome depends on something that is not modelled.
    """
    run = Run(skb, ctx, ruleset, table, hook)
    steps = ctx.steps
    ready = _ready(ruleset, table, chain)
    base, rules, index = ready, ready.rules, 0
    stack: list[tuple[ReadyChain, tuple[ReadyRule, ...], int]] = []
    tried = 0
    try:
        while True:
            if index >= len(rules):
                if not stack:
                    return base.policy
                ready, rules, index = stack.pop()
                continue
            rule = rules[index]
            index += 1
            tried += 1
            run.ref = rule.ref
            run.found = None
            outcome: Any = None
            for act in rule.acts:
                outcome = act(run)
                if outcome is not None:
                    break
            if outcome is BREAK:
                continue
            ref = rule.ref if run.found is None else NftHit.of(rule.ref, table, run.found)
            if outcome is None:
                steps.append(Step("rule", ready.spot, ref, rule.words))
                continue
            if isinstance(outcome, Verdict):
                steps.append(Step("rule", ready.spot, ref, rule.words))
                return outcome
            if isinstance(outcome, Inside):
                steps.append(Step("rule", ready.spot, ref, outcome.kind))
                if outcome.kind == "jump":
                    stack.append((ready, rules, index))
                rules, index = _inside(ruleset, table, ready, rule, outcome), 0
                continue
            kind = outcome.kind
            steps.append(Step("rule", ready.spot, ref, f"{kind} {outcome.chain}".strip()))
            if kind == "accept":
                return Verdict(ACCEPT, ref)
            if kind == "drop":
                return Verdict(DROP, ref)
            if kind == "return":
                if not stack:
                    return base.policy
                ready, rules, index = stack.pop()
                continue
            if kind not in ("jump", "goto"):
                raise NotModelled(rule.ref, kind)
            if kind == "jump":
                stack.append((ready, rules, index))
            ready = _ready(ruleset, table, table.chains[outcome.chain])
            rules, index = ready.rules, 0
    finally:
        ctx.tried += tried


def _ready(ruleset: Ruleset, table: Table, chain: Chain) -> ReadyChain:
    key = (table.handle, chain.handle)
    kept = ruleset.compiled.get(key)
    if kept is None or kept[0] is not chain:
        kept = ruleset.compiled[key] = (chain, ReadyChain(ruleset, table, chain))
    ready: ReadyChain = kept[1]
    return ready


def _inside(
    ruleset: Ruleset, table: Table, chain: ReadyChain, rule: ReadyRule, inside: Inside
) -> tuple[ReadyRule, ...]:
    key = ("inside", table.handle, rule.rule.handle)
    kept = ruleset.compiled.get(key)
    if kept is None or kept[0] is not rule:
        where = f"{table.family} {table.name}"
        made = tuple(
            ReadyRule(
                ruleset,
                table,
                NftRef(where, chain.name, rule.ref.number, one),
                one,
                (table.handle, rule.rule.handle, number),
            )
            for number, one in enumerate(inside.rules)
        )
        kept = ruleset.compiled[key] = (rule, made)
    rules: tuple[ReadyRule, ...] = kept[1]
    return rules


def needs_tracking(statements: Iterable[st.Statement]) -> bool:
    """True when a statement asks conntrack (`nf_ct_netns_get`): one such rule switches it on."""
    return any(
        isinstance(one, (st.Nat, st.ConnLimit, st.Synproxy, st.FlowOffload))
        or (isinstance(one, st.SetUpdate) and needs_tracking(one.statements))
        or (isinstance(one, st.ObjectRef) and one.kind.startswith("ct "))
        or (isinstance(one, st.Inline) and any(needs_tracking(inner) for inner, _comment in one.rules))
        or any(_asks(getattr(one, name)) for name in one.__struct_fields__)
        for one in statements
    )


def _asks(value: Any) -> bool:
    if isinstance(value, ex.Ct):
        return True
    if isinstance(value, ex.Concat):
        return any(_asks(part) for part in value.parts)
    if isinstance(value, ex.Binary):
        return _asks(value.left)
    if isinstance(value, ex.Lookup):
        return _asks(value.key)
    return False
