"""A node's rules as a tree: which chain leads where, with which odds, how often, and the way one packet took.

Read off the kernel's state, whoever wrote it: iptables' chains with their jumps, nftables' chains with their sets and
maps. What has no chains (IPVS, eBPF) is shown by the texts of its own tools, line by line. A chain that many rules
lead to stands once, where it is first met; elsewhere stands its name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.kernel.netfilter import Goto, Jump, Rule, Ruleset
from kubenet_lab.kernel.netfilter.matches import Statistic
from kubenet_lab.kernel.netfilter.ruleset import BUILTIN
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.nftables import expressions as ex
from kubenet_lab.kernel.nftables import statements as st
from kubenet_lab.kernel.nftables.objects import Chain, Set, Table
from kubenet_lab.kernel.nftables.objects import Rule as NftRule
from kubenet_lab.kernel.nftables.ruleset import Ruleset as NftRuleset
from kubenet_lab.trace import RuleRef, Trace
from kubenet_lab.views.words import chain_meaning, short
from kubenet_lab.walk.nft import NftHit

Names = Mapping[str, str]
"""Address -> "pod default/backend-1"."""

Mark = tuple[str, str, int, str]
"""(table, chain, number of the rule, element of its map) of something a packet met."""

TABLE, CHAIN, RULE, SET, ELEMENT, POLICY, LINE = "table", "chain", "rule", "set", "element", "policy", "line"
"""What a branch may be."""


class Branch(Struct, frozen=True):
    """One line of the tree and what hangs below it.

    Attributes:
        kind: table, chain, rule, set, element, policy or line (a line of another tool's text).
        text: As the tool prints it; for a table or chain its name and where it is called.
        words: What it is for, in words, or "".
        chance: The part of what reaches it that it takes, from 0 to 1, where chance decides; else None.
        share: The part of all that reaches its chain that it takes; None where chance does not decide.
        hits: Packets it has taken, None where nobody counts.
        met: True when the packet met it.
        to: The chain it leads to, where that stands elsewhere in the tree; else "".
        below: What hangs below it.
    """

    kind: str
    text: str
    words: str = ""
    chance: float | None = None
    share: float | None = None
    hits: int | None = None
    met: bool = False
    to: str = ""
    below: tuple[Branch, ...] = ()

    def __iter__(self) -> Iterator[tuple[int, Branch]]:
        """This branch and all below it, with their depth from 0."""
        yield 0, self
        for one in self.below:
            for depth, branch in one:
                yield depth + 1, branch


class RulesTree(Struct, frozen=True):
    """The rules of one namespace in one family and one mode."""

    netns: str
    family: int
    mode: str
    roots: tuple[Branch, ...]

    def branches(self) -> Iterator[tuple[int, Branch]]:
        """Every branch from top to bottom, with its depth."""
        for root in self.roots:
            yield from root

    def text(self) -> str:
        """The tree as text: ▶ before what the packet met, odds and packets behind."""
        rows = [_line(depth, one) for depth, one in self.branches()]
        return "\n".join(rows) if rows else f"{self.netns} has no rules of {self.mode} for IPv{self.family}."

    def find(self, text: str) -> RulesTree:
        """Return the tree with what holds a text (in any case), all above it, and all below it."""
        wanted = text.casefold()
        return replace(
            self, roots=tuple(kept for one in self.roots if (kept := _found(one, wanted)) is not None)
        )

    def path(self) -> RulesTree:
        """Return the tree with what the packet met, and what is above it."""
        return replace(self, roots=tuple(kept for one in self.roots if (kept := _met(one)) is not None))

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return (
            f"<rules of {self.netns}: {self.mode}, IPv{self.family}, {sum(1 for _ in self.branches())} lines>"
        )

    def _repr_html_(self) -> str:
        return rules_tree_html(self)


def rules_tree(
    ns: Netns,
    family: int = 4,
    mode: str = "",
    *,
    traces: Iterable[Trace] = (),
    names: Names | None = None,
) -> RulesTree:
    """Return a namespace's rules as a tree.

    Args:
        ns: The namespace.
        family: 4 or 6.
        mode: A name in `FORMS`; by default what the namespace's state speaks of.
        traces: Packets that went through it: what they met is marked, and counted where the rules do not count.
        names: Address -> label, for the words beside addresses.

    Raises:
        ValueError: For a mode that has no form here.
    """
    mode = mode or mode_of(ns)
    if mode not in FORMS:
        raise ValueError(f"no tree of {mode!r}: {', '.join(FORMS)}")
    met: Counter[Mark] = Counter()
    for trace in traces:
        met.update(_marks(trace, ns.name))
    return RulesTree(ns.name, family, mode, FORMS[mode](ns, family, met, names or {}))


def mode_of(ns: Netns) -> str:
    """Return the mode that a namespace's state speaks of."""
    if ns.bpf is not None:
        return "ebpf"
    if ns.has_ipvs:
        return "ipvs"
    return "nftables" if ns.has_nftables else "iptables"


def _marks(trace: Trace, netns: str) -> Iterator[Mark]:
    for hop in trace.hops:
        if hop.netns != netns:
            continue
        for step in hop.steps:
            ref = step.entry
            if step.kind == "rule" and isinstance(ref, RuleRef):
                element = ref.element_text if isinstance(ref, NftHit) else ""
                yield ref.table, ref.chain, ref.number, element


def _line(depth: int, one: Branch) -> str:
    head = f"{'▶' if one.met else ' '} {'  ' * depth}"
    return head + "  ".join([one.text, *details(one)])


def details(one: Branch) -> list[str]:
    """Return what stands behind a branch's text: odds, packets, where it leads, what it is for."""
    out = []
    if one.share is not None:
        whole = one.chance is None or one.chance >= 1
        out.append(
            f"[{one.share:.2%} of all]"
            if whole
            else f"[{one.chance:.2%} of what is left, {one.share:.2%} of all]"
        )
    if one.hits:
        out.append(f"[{one.hits:,} packet{'s' if one.hits != 1 else ''}]")
    if one.to:
        out.append(f"→ {one.to}: see there")
    if one.words:
        out.append(f"({one.words})")
    return out


def _found(one: Branch, wanted: str) -> Branch | None:
    if wanted in one.text.casefold() or wanted in one.words.casefold():
        return one
    below = tuple(kept for part in one.below if (kept := _found(part, wanted)) is not None)
    return replace(one, below=below) if below else None


def _met(one: Branch) -> Branch | None:
    below = tuple(kept for part in one.below if (kept := _met(part)) is not None)
    return replace(one, below=below) if below or one.met else None


# -- iptables ---------------------------------------------------------------------------------------------------------

HOOK_ORDER = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")


def _iptables(ns: Netns, family: int, met: Counter[Mark], names: Names) -> tuple[Branch, ...]:
    rules = ns.iptables[family]
    out = []
    for table in BUILTIN:
        present = rules.tables.get(table)
        if present is None:
            continue
        tree = _IptablesTable(rules, table, met, names)
        chains = [
            tree.chain(name) for name in HOOK_ORDER if name in present.chains and name in BUILTIN[table]
        ]
        alone = [name for name in present.chains if name not in tree.shown]
        chains += [tree.chain(name) for name in alone if name not in tree.shown]
        out.append(_over(Branch(TABLE, f"table {table}", below=tuple(chains))))
    return tuple(out)


class _IptablesTable:
    def __init__(self, rules: Ruleset, table: str, met: Counter[Mark], names: Names) -> None:
        self.rules, self.table, self.met, self.names = rules, table, met, names
        self.shown: set[str] = set()

    def chain(self, name: str) -> Branch:
        self.shown.add(name)
        policy = self.rules.tables[self.table].chains[name].policy
        below = list(self.under(name))
        if policy:
            mark = (self.table, name, 0, "")
            below.append(
                Branch(POLICY, f"policy {policy}", met=bool(self.met[mark]), hits=self.met[mark] or None)
            )
        return _over(Branch(CHAIN, f"chain {name}", chain_meaning(name), below=tuple(below)))

    def under(self, name: str) -> Iterator[Branch]:
        """The rules of a chain; each jump has the other chain's rules below it."""
        counters = self.rules.counters.get((self.table, name))
        rules = self.rules.rules(self.table, name)
        drawn = any(_random(rule) is not None for rule in rules)
        left = 1.0
        for number, rule in enumerate(rules, 1):
            chance = _random(rule)
            share = None
            if drawn and (chance is not None or self._leads_on(rule)):
                chance = 1.0 if chance is None else chance
                share, left = left * chance, left * (1 - chance)
            goal = rule.target.chain if isinstance(rule.target, Jump | Goto) else ""
            below: tuple[Branch, ...] = ()
            to = ""
            if goal and goal not in self.shown and goal in self.rules.tables[self.table].chains:
                self.shown.add(goal)
                below = tuple(self.under(goal))
            elif goal and self.rules.rules(self.table, goal):
                to = goal
            yield Branch(
                RULE, f"-A {name}{rule.text(self.rules.family)}", self._words(rule, goal), chance if drawn else None,
                share, counters[number][0] if counters else None,
                bool(self.met[self.table, name, number, ""]), to, below,
            )  # fmt: skip

    def _leads_on(self, rule: Rule) -> bool:
        """True for the last of a Service's rules: no condition, and a chain that rewrites."""
        free = not rule.src and not rule.dst and all(match.name == "comment" for match in rule.matches)
        return free and isinstance(rule.target, Jump) and bool(self._rewrites(rule.target.chain))

    def _rewrites(self, chain: str) -> str:
        for rule in self.rules.rules(self.table, chain):
            if rule.target is not None and rule.target.name == "DNAT":
                found: str = getattr(rule.target, "addr_min", "")
                return found
        return ""

    def _words(self, rule: Rule, goal: str) -> str:
        if goal:
            address = self._rewrites(goal)
            label = short(self.names[address]) if address in self.names else ""
            return label or chain_meaning(goal)
        if rule.target is not None and rule.target.name == "DNAT":
            address = getattr(rule.target, "addr_min", "")
            return short(self.names[address]) if address in self.names else ""
        return ""


def _random(rule: Rule) -> float | None:
    for match in rule.matches:
        if isinstance(match, Statistic) and match.mode == "random":
            return match.probability
    return None


def _over(one: Branch) -> Branch:
    """Return a table or chain that counts as met when something below it is."""
    return replace(one, met=any(below.met for below in one.below)) if not one.met else one


# -- nftables ---------------------------------------------------------------------------------------------------------


def _nftables(ns: Netns, family: int, met: Counter[Mark], names: Names) -> tuple[Branch, ...]:
    families = ("ip", "inet") if family == 4 else ("ip6", "inet")
    rules = ns.nftables
    out = []
    for (of, name), table in rules.tables.items():
        if of in families or (family == 4 and of in ("arp", "bridge", "netdev")):
            tree = _NftTable(rules, table, met, names)
            out.append(_over(Branch(TABLE, f"table {of} {name}", table.comment, below=tuple(tree.all()))))
    return tuple(out)


class _NftTable:
    def __init__(self, rules: NftRuleset, table: Table, met: Counter[Mark], names: Names) -> None:
        self.rules, self.table, self.met, self.names = rules, table, met, names
        self.where = f"{table.family} {table.name}"
        self.shown: set[str] = set()
        self.sets: set[str] = set()

    def all(self) -> Iterator[Branch]:
        """Base chains in the order hooks call them, then what none of them leads to."""
        base = sorted(
            (chain for chain in self.table.chains.values() if chain.hook),
            key=lambda chain: (_hook(chain.hook), chain.priority),
        )
        for chain in base:
            yield self.chain(chain)
        for name, chain in self.table.chains.items():
            if name not in self.shown:
                yield self.chain(chain)
        for one in self.table.sets.values():
            if one.name not in self.sets:
                yield self.named(one, None)

    def chain(self, chain: Chain) -> Branch:
        self.shown.add(chain.name)
        text, below = f"chain {chain.name}", list(self.under(chain))
        if chain.hook:
            text += f"  (hook {chain.hook}, priority {chain.priority})"
            mark = (self.where, chain.name, 0, "")
            below.append(
                Branch(
                    POLICY,
                    f"policy {chain.policy or 'accept'}",
                    hits=self.met[mark] or None,
                    met=bool(self.met[mark]),
                )
            )
        return _over(Branch(CHAIN, text, chain_meaning(chain.name), below=tuple(below)))

    def under(self, chain: Chain) -> Iterator[Branch]:
        for number, rule in enumerate(chain.rules, 1):
            yield self.rule(chain, number, rule)

    def rule(self, chain: Chain, number: int, rule: NftRule) -> Branch:
        marks = {mark[3]: n for mark, n in self.met.items() if mark[:3] == (self.where, chain.name, number)}
        below: list[Branch] = []
        to = words = ""
        for one in rule.statements:
            verdict = one.verdict if isinstance(one, st.VerdictStatement) else None
            if verdict is not None and verdict.chain:
                words = chain_meaning(verdict.chain)
                inner, to = self.leads_to(verdict.chain)
                below += inner
            elif isinstance(one, st.Inline):
                for inside, _comment in one.rules:
                    below.append(Branch(RULE, str(NftRule(inside, family=self.table.family))))
            for data in _looked_up(one):
                below += self.looked_up(one, data, marks)
        return Branch(
            RULE, _without_elements(rule), rule.comment or words, hits=self._hits(rule, sum(marks.values())),
            met=bool(marks), to=to, below=tuple(below),
        )  # fmt: skip

    def leads_to(self, name: str) -> tuple[list[Branch], str]:
        """What hangs below a verdict: the chain's rules where it is met first, else its name."""
        goal = self.table.chains.get(name)
        if goal is None or not goal.rules:
            return [], ""
        if name in self.shown:
            return [], name
        self.shown.add(name)
        return list(self.under(goal)), ""

    def looked_up(
        self, one: st.Statement, data: ex.SetRef | ex.SetLiteral, marks: Mapping[str, int]
    ) -> list[Branch]:
        if isinstance(data, ex.SetRef):
            return [self.named(self.table.sets[data.name], marks)] if data.name in self.table.sets else []
        share = 1 / len(data.elements) if _draws(one) else None
        return [self.element(data.key, data.data, element, marks, share) for element in data.elements]

    def named(self, one: Set, marks: Mapping[str, int] | None) -> Branch:
        """A set or map; it is shown in full where it is first used."""
        sort = "map" if one.data else "set"
        again = one.name in self.sets
        self.sets.add(one.name)
        elements = self.rules.elements(self.table, one)
        text = f"{sort} @{one.name}: {len(elements)} element{'s' if len(elements) != 1 else ''}"
        met = bool(marks) and any(marks or ())
        if again:
            hit = [self.element(one.key, one.data, e, marks or {}, None) for e in elements.values()]
            return Branch(
                SET, text, one.comment, met=met, to=f"@{one.name}", below=tuple(b for b in hit if b.met)
            )
        below = [self.element(one.key, one.data, element, marks or {}, None) for element in elements.values()]
        return Branch(SET, text, one.comment, met=met, below=tuple(below))

    def element(
        self,
        key: tuple[str, ...],
        data: tuple[str, ...],
        element: ex.Element,
        marks: Mapping[str, int],
        share: float | None,
    ) -> Branch:
        from kubenet_lab.kernel.dialects.nft.printer import data_text, key_text

        text = key_text(key, element.key)
        if data and element.data is not None:
            text += f" : {data_text(data, element.data)}"
        below: list[Branch] = []
        to = ""
        words = element.comment
        if isinstance(element.data, ex.Verdict) and element.data.chain:
            below, to = self.leads_to(element.data.chain)
        for part in (element.key, element.data):
            atoms = part if isinstance(part, tuple) else (part,)
            words = words or next(
                (short(self.names[a]) for a in atoms if isinstance(a, str) and a in self.names), ""
            )
        hits = marks.get(text, 0)
        return Branch(
            ELEMENT, text, words, None, share, hits or None, bool(hits), to, tuple(below)
        )  # fmt: skip

    def _hits(self, rule: NftRule, walked: int) -> int | None:
        """What the rule's own counter says, else how many of the packets given met it."""
        for number, one in enumerate(rule.statements):
            if isinstance(one, st.Counter):
                cell = self.rules.state.get((self.table.handle, rule.handle, number))
                return int(cell[0]) if cell else one.packets
        return walked or None


_HOOKS = ("ingress", "prerouting", "input", "forward", "output", "postrouting", "egress")


def _hook(name: str) -> int:
    return _HOOKS.index(name) if name in _HOOKS else len(_HOOKS)


def _looked_up(one: st.Statement) -> Iterator[ex.SetRef | ex.SetLiteral]:
    """Every set or map a statement looks into."""
    if isinstance(one, st.Vmap):
        yield one.data
    elif isinstance(one, st.Match) and isinstance(one.right, (ex.SetRef, ex.SetLiteral)):
        yield one.right
    elif isinstance(one, st.SetUpdate):
        yield ex.SetRef(one.set)
    elif isinstance(one, st.Nat):
        for part in (one.address, one.port):
            if isinstance(part, ex.Lookup):
                yield part.data


def _draws(one: st.Statement) -> bool:
    """True for a look-up by chance: every element is as likely as the others."""
    look_up: Any = one if isinstance(one, st.Vmap) else one.address if isinstance(one, st.Nat) else None
    return isinstance(getattr(look_up, "key", None), ex.Numgen)


def _without_elements(rule: NftRule) -> str:
    """The rule's text with `{ ... }` for a map or set whose elements hang below it."""
    from kubenet_lab.kernel.dialects.nft.printer import literal_text

    text = str(rule)
    for one in rule.statements:
        for data in _looked_up(one):
            if isinstance(data, ex.SetLiteral):
                text = text.replace(literal_text(data), "{ … }", 1)
    if rule.comment:
        text = text.replace(f' comment "{rule.comment}"', "", 1)
    return text


# -- what has no chains -----------------------------------------------------------------------------------------------


def lines_of(title: str, text: str) -> Branch:
    """Return another tool's text as a branch: what is indented hangs below the line before it."""
    stack: list[tuple[int, str, list[Any]]] = [(-1, title, [])]

    def close() -> None:
        _depth, line, below = stack.pop()
        stack[-1][2].append(Branch(LINE, line, below=tuple(below)))

    for line in text.splitlines():
        if not line.strip():
            continue
        depth = len(line) - len(line.lstrip())
        while stack[-1][0] >= depth:
            close()
        stack.append((depth, line.strip(), []))
    while len(stack) > 1:
        close()
    return Branch(TABLE, title, below=tuple(stack[0][2]))


def _ipvs(ns: Netns, family: int, met: Counter[Mark], names: Names) -> tuple[Branch, ...]:
    from kubenet_lab.kernel.dialects.ipvsadm import listing

    if not ns.has_ipvs:
        return _iptables(ns, family, met, names)
    shown = lines_of("ipvsadm -Ln", listing(ns.ipvs))
    kept = tuple(one for one in shown.below if _of_family(one.text, family))
    return (replace(shown, below=kept), *_iptables(ns, family, met, names))


def _of_family(line: str, family: int) -> bool:
    """True for a virtual server of the family, and for the list's head."""
    server = line.startswith(("TCP ", "UDP ", "SCTP "))
    return not server or ("[" in line) == (family == 6)


def _ebpf(ns: Netns, family: int, met: Counter[Mark], names: Names) -> tuple[Branch, ...]:
    from kubenet_lab.kernel.dialects import cilium

    if ns.bpf is None:
        return ()
    texts = {
        "cilium-dbg service list": cilium.service_list(ns.bpf),
        "cilium-dbg bpf lb list": cilium.lb_list(ns.bpf),
    }
    return tuple(lines_of(title, text) for title, text in texts.items())


Form = Callable[[Netns, int, "Counter[Mark]", Names], tuple[Branch, ...]]
"""(namespace, IP family, what packets met, names) -> the roots of its tree."""

FORMS: dict[str, Form] = {"iptables": _iptables, "nftables": _nftables, "ipvs": _ipvs, "ebpf": _ebpf}
"""Mode -> its form. A mode whose state is texts makes its roots with `lines_of`."""


# -- as HTML ----------------------------------------------------------------------------------------------------------


def rules_tree_html(tree: RulesTree, *, most: int = 2_000) -> str:
    """Return the tree as nested, foldable lists: what the packet met is open and bold. At most `most` lines."""
    from html import escape

    count = 0

    def lines(one: Branch) -> str:
        nonlocal count
        count += 1
        if count > most:
            return ""
        text = f"<code>{escape(one.text)}</code>"
        behind = escape("  ".join(details(one)))
        body = f"{'▶ ' if one.met else ''}{f'<b>{text}</b>' if one.met else text} <span>{behind}</span>"
        if not one.below:
            return f"<div style='margin-left:1.1em'>{body}</div>"
        inside = "".join(map(lines, one.below))
        is_open = " open" if one.met else ""
        return f"<details style='margin-left:1.1em'{is_open}><summary>{body}</summary>{inside}</details>"

    made = "".join(map(lines, tree.roots)) or f"<p>{escape(tree.text())}</p>"
    total = sum(1 for _ in tree.branches())
    left = f"<p>and {total - most:,} lines more</p>" if total > most else ""
    return f"<div style='text-align:left'>{made}{left}</div>"
