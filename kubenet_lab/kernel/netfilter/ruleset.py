"""Tables, chains and the edits that change them: `iptables-restore`'s state, all or nothing a call.

A `Ruleset` is never changed in place; an edit returns a new one that shares every chain it did not touch.
What moves with packets (counters) is kept beside the frozen rules and carried over for rules an edit
leaves alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.errors import KubenetLabError
from kubenet_lab.kernel.netfilter.rule import Rule
from kubenet_lab.kernel.netfilter.targets import TARGETS, Goto, Jump

BUILTIN = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
"""Table -> its built-in chains, in the order of the hooks."""

PRINT_ORDER = ("mangle", "security", "raw", "filter", "nat")
"""The order in which `iptables-save` of the nf_tables backend prints tables."""

HOOKS = {
    "PREROUTING": ("raw", "mangle", "nat"),
    "INPUT": ("mangle", "filter", "security", "nat"),
    "FORWARD": ("mangle", "filter", "security"),
    "OUTPUT": ("raw", "mangle", "nat", "filter", "security"),
    "POSTROUTING": ("mangle", "nat"),
}
"""Hook -> the tables consulted there, in the order of their priorities (netfilter_ipv4.h).

Connection tracking comes after raw; a new connection's NAT is decided in nat.
"""

_TARGET_NAMES = frozenset(target.NAME for target in TARGETS)

Counter = list[int]
"""[packets, bytes]."""


class NetfilterError(KubenetLabError):
    """An edit was refused. The text is what `iptables` prints; `help` says what to do instead."""

    def __init__(self, message: str, help: str = "") -> None:
        self.help = help
        super().__init__(message)


class Chain(Struct, frozen=True):
    """A list of rules. `policy` is ACCEPT or DROP for a built-in chain, "" for a user-defined one."""

    name: str
    rules: tuple[Rule, ...] = ()
    policy: str = ""


class Table(Struct, frozen=True):
    """Chains by name."""

    name: str
    chains: dict[str, Chain]

    def in_order(self) -> list[Chain]:
        """Return the chains as `iptables-save` prints them.

        Built-in ones by hook, then the others by name.
        """
        builtin = BUILTIN.get(self.name, ())
        first = [self.chains[name] for name in builtin if name in self.chains]
        return first + [
            self.chains[name] for name in sorted(self.chains.keys() - set(builtin), key=str.encode)
        ]


class Ruleset:
    """The xtables rules of one namespace and family.

    Attributes:
        family: 4 (`iptables`) or 6 (`ip6tables`).
        tables: By name; only tables somebody has touched are there.
        hooks: Hook -> the tables with something to do there, in kernel order. A table whose chain is empty
        and
            accepts is left out, so a packet need not ask it.
        counters: (table, chain) -> [chain's own counter, rule 1's, rule 2's, ...]; filled when first counted.
        compiled: A place for an evaluator to keep what it made of a chain, by table and chain.
    """

    __slots__ = ("compiled", "counters", "family", "hooks", "tables")

    def __init__(
        self,
        family: int = 4,
        tables: dict[str, Table] | None = None,
        counters: dict[tuple[str, str], list[Counter]] | None = None,
        compiled: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        self.family = family
        self.tables: dict[str, Table] = tables or {}
        self.counters: dict[tuple[str, str], list[Counter]] = counters if counters is not None else {}
        self.compiled: dict[str, dict[str, Any]] = compiled or {}
        self.hooks: dict[str, tuple[str, ...]] = {
            hook: tuple(table for table in names if _does_something(self.tables.get(table), hook))
            for hook, names in HOOKS.items()
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ruleset) and (self.family, self.tables) == (other.family, other.tables)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        sizes = ", ".join(f"{t.name}: {len(t.chains)} chains" for t in self.tables.values())
        return f"<Ruleset IPv{self.family} {sizes or 'empty'}>"

    def active(self, table: str, chain: str) -> bool:
        """Return False when a packet cannot be affected: the built-in chain has no rules and accepts."""
        return table in self.hooks[chain]

    def chain(self, table: str, name: str) -> Chain:
        """Return a chain. Raises NetfilterError when it is not there."""
        found = self.tables.get(table)
        if found is None or name not in found.chains:
            known = [*BUILTIN.get(table, ()), *(found.chains if found else ())]
            if name in BUILTIN.get(table, ()):
                return Chain(name, (), "ACCEPT")
            near = get_close_matches(name, known, 1)
            raise NetfilterError("No chain/target/match by that name.", _advice(name, table, near))
        return found.chains[name]

    def rules(self, table: str, chain: str) -> tuple[Rule, ...]:
        """Return a chain's rules; none when the chain is not there."""
        found = self.tables.get(table)
        here = found.chains.get(chain) if found else None
        return here.rules if here else ()

    def has(self, table: str, chain: str, rule: Rule) -> bool:
        """`iptables -C`: True when the chain holds the rule."""
        return rule in self.rules(table, chain)

    def __iter__(self) -> Iterator[tuple[str, Chain, int, Rule]]:
        """Iterate (table, chain, rule number, rule) in printing order."""
        for table in self.in_order():
            for chain in table.in_order():
                for number, rule in enumerate(chain.rules, 1):
                    yield table.name, chain, number, rule

    def in_order(self) -> list[Table]:
        """Return the tables as `iptables-save` prints them."""
        return [self.tables[name] for name in PRINT_ORDER if name in self.tables]

    def count(self, table: str, chain: str) -> list[Counter]:
        """Return a chain's counters, to be added to in place: its own at index 0, rule n's at index n."""
        found = self.counters.get((table, chain))
        if found is None:
            found = self.counters[table, chain] = [[0, 0] for _ in range(len(self.rules(table, chain)) + 1)]
        return found

    # -- edits -----------------------------------------------------------------------------------------------

    def edit(self) -> Edit:
        """Begin a transaction; `commit()` of it returns the new ruleset."""
        return Edit(self)

    def ensure_chain(self, table: str, chain: str) -> Ruleset:
        """`iptables -N` that does not mind when the chain is there already."""
        if table in self.tables and chain in self.tables[table].chains:
            return self
        edit = self.edit()
        edit.ensure_chain(table, chain)
        return edit.commit()

    def append(self, table: str, chain: str, *rules: Rule) -> Ruleset:
        """`iptables -A`, for one rule or several at once."""
        edit = self.edit()
        for rule in rules:
            edit.append(table, chain, rule)
        return edit.commit()

    def insert(self, table: str, chain: str, rule: Rule, number: int = 1) -> Ruleset:
        """`iptables -I CHAIN [NUMBER]`."""
        edit = self.edit()
        edit.insert(table, chain, rule, number)
        return edit.commit()

    def ensure(self, table: str, chain: str, rule: Rule, *, prepend: bool = False) -> Ruleset:
        """Append (or insert) a rule unless the chain holds it, as kube-proxy's EnsureRule does."""
        if self.has(table, chain, rule):
            return self
        return self.insert(table, chain, rule) if prepend else self.append(table, chain, rule)

    def delete(self, table: str, chain: str, rule: Rule | int) -> Ruleset:
        """`iptables -D CHAIN RULE|NUMBER`."""
        edit = self.edit()
        edit.delete(table, chain, rule)
        return edit.commit()


def _advice(chain: str, table: str, near: list[str]) -> str:
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"chain {chain} is not in table {table}: create it first (:{chain} - [0:0], or -N {chain}){hint}"


def _does_something(table: Table | None, hook: str) -> bool:
    chain = table.chains.get(hook) if table else None
    return chain is not None and (bool(chain.rules) or chain.policy != "ACCEPT")


class _Draft:
    """A chain while a transaction changes it."""

    __slots__ = ("counters", "name", "policy", "rules")

    def __init__(self, chain: Chain, counters: list[Counter] | None) -> None:
        self.name = chain.name
        self.policy = chain.policy
        self.rules: list[Rule] = list(chain.rules)
        self.counters: list[Counter] | None = [list(c) for c in counters] if counters else None

    def counts(self) -> list[Counter]:
        if self.counters is None:
            self.counters = [[0, 0] for _ in range(len(self.rules) + 1)]
        return self.counters


class Edit:
    """A transaction on a ruleset. Nothing is changed before `commit`, which gives everything or raises.

    Every method raises NetfilterError with the words of iptables when the edit is impossible.
    """

    def __init__(self, base: Ruleset, *, complete: bool = True) -> None:
        """Begin on `base`. With `complete`, a table used for the first time gets all its built-in chains."""
        self.base = base
        self._complete = complete
        self._chains: dict[str, dict[str, Chain | _Draft]] = {}
        self._touched: set[tuple[str, str]] = set()
        self._gone: set[tuple[str, str]] = set()

    def table(self, name: str) -> dict[str, Chain | _Draft]:
        """Return a table's chains for changing; a table not used yet gets its built-in chains."""
        found = self._chains.get(name)
        if found is not None:
            return found
        if name not in BUILTIN:
            raise NetfilterError(f"table '{name}' does not exist", f"write one of {', '.join(BUILTIN)}")
        present = self.base.tables.get(name)
        chains: dict[str, Chain | _Draft] = dict(present.chains) if present else {}
        for builtin in BUILTIN[name]:
            if self._complete and builtin not in chains:
                chains[builtin] = Chain(builtin, (), "ACCEPT")
        self._chains[name] = chains
        return chains

    def has_chain(self, table: str, chain: str) -> bool:
        """Return True when the chain is there at this point of the transaction."""
        return chain in self.table(table)

    def chain_names(self, table: str) -> list[str]:
        """Return the names of the chains that are there at this point of the transaction."""
        return list(self.table(table))

    def chain_rules(self, table: str, chain: str) -> list[Rule]:
        """Return the chain's rules at this point of the transaction."""
        return list(self._known(table, chain).rules)

    def new_chain(self, table: str, chain: str) -> None:
        """`iptables -N`."""
        if chain in self.table(table):
            raise NetfilterError("Chain already exists.")
        self._check_name(chain)
        self.table(table)[chain] = Chain(chain)
        self._gone.discard((table, chain))

    def ensure_chain(self, table: str, chain: str) -> None:
        """Create a chain unless it is there."""
        if chain not in self.table(table):
            self.new_chain(table, chain)

    def restore_chain(self, table: str, chain: str, policy: str = "", counter: Counter | None = None) -> None:
        """`:CHAIN POLICY [packets:bytes]` of iptables-restore: a user-defined chain is created or emptied.

        A built-in chain only takes the policy; `flush_table` empties it where iptables-restore does.
        """
        chains = self.table(table)
        builtin = chain in BUILTIN[table]
        if builtin:
            if policy not in ("ACCEPT", "DROP", "-", ""):
                raise NetfilterError(f"Policy '{policy}' invalid", "write ACCEPT or DROP")
            chains.setdefault(chain, Chain(chain, (), "ACCEPT"))
            draft = self._draft(table, chain)
            if policy in ("ACCEPT", "DROP"):
                draft.policy = policy
        else:
            self._check_name(chain)
            draft = _Draft(Chain(chain), None)
        if counter is not None and any(counter):
            draft.counts()[0] = list(counter)
        chains[chain] = draft
        self._touched.add((table, chain))
        self._gone.discard((table, chain))

    def flush(self, table: str, chain: str | None = None) -> None:
        """`iptables -F [CHAIN]`."""
        for name in [chain] if chain is not None else list(self.table(table)):
            draft = self._draft(table, name)
            draft.rules.clear()
            draft.counters = [draft.counters[0]] if draft.counters else None

    def flush_table(self, table: str) -> None:
        """Empty a table as iptables-restore without `--noflush` does: built-in chains keep their policies."""
        for name in list(self.table(table)):
            if name in BUILTIN[table]:
                self.flush(table, name)
            else:
                del self.table(table)[name]
                self._gone.add((table, name))
                self._touched.discard((table, name))

    def delete_chain(self, table: str, chain: str | None = None) -> None:
        """`iptables -X [CHAIN]`: without a name every empty user-defined chain."""
        names = [chain] if chain is not None else [n for n in self.table(table) if n not in BUILTIN[table]]
        for name in names:
            if self._known(table, name).rules:
                raise NetfilterError(f"CHAIN_DEL failed (Device or resource busy): chain {name}")
            if name in BUILTIN[table]:
                raise NetfilterError(f"CHAIN_DEL failed (Operation not supported): chain {name}")
            del self.table(table)[name]
            self._gone.add((table, name))
            self._touched.discard((table, name))

    def set_policy(self, table: str, chain: str, policy: str) -> None:
        """`iptables -P CHAIN ACCEPT|DROP`."""
        if policy not in ("ACCEPT", "DROP"):
            raise NetfilterError("Bad policy name. Run `dmesg' for more information.")
        if chain not in BUILTIN[table]:
            raise NetfilterError("Bad built-in chain name.")
        self._draft(table, chain).policy = policy

    def append(self, table: str, chain: str, rule: Rule, counter: Counter | None = None) -> None:
        """`iptables -A`."""
        self._check_target(table, rule)
        draft = self._draft(table, chain)
        if counter is not None and any(counter):
            draft.counts()
        draft.rules.append(rule)
        if draft.counters is not None:
            draft.counters.append(list(counter) if counter else [0, 0])

    def insert(
        self, table: str, chain: str, rule: Rule, number: int = 1, counter: Counter | None = None
    ) -> None:
        """`iptables -I CHAIN [NUMBER]`."""
        self._check_target(table, rule)
        draft = self._draft(table, chain)
        if not 1 <= number <= len(draft.rules) + 1:
            raise NetfilterError("Index of insertion too big.")
        draft.counts().insert(number, list(counter) if counter else [0, 0])
        draft.rules.insert(number - 1, rule)

    def replace(self, table: str, chain: str, number: int, rule: Rule) -> None:
        """`iptables -R CHAIN NUMBER`."""
        self._check_target(table, rule)
        draft = self._draft(table, chain)
        if not 1 <= number <= len(draft.rules):
            raise NetfilterError("Index of replacement too big.")
        draft.rules[number - 1] = rule
        draft.counts()[number] = [0, 0]

    def delete(self, table: str, chain: str, rule: Rule | int) -> None:
        """`iptables -D CHAIN RULE|NUMBER`."""
        draft = self._draft(table, chain)
        if isinstance(rule, int):
            if not 1 <= rule <= len(draft.rules):
                raise NetfilterError("Index of deletion too big.")
            index = rule - 1
        elif rule in draft.rules:
            index = draft.rules.index(rule)
        else:
            raise NetfilterError("Bad rule (does a matching rule exist in that chain?).")
        if draft.counters is not None:
            del draft.counters[index + 1]
        del draft.rules[index]

    def check(self, table: str, chain: str, rule: Rule) -> None:
        """`iptables -C`: raise NetfilterError unless the chain holds the rule."""
        if rule not in self._known(table, chain).rules:
            raise NetfilterError("Bad rule (does a matching rule exist in that chain?).")

    def rename_chain(self, table: str, old: str, new: str) -> None:
        """`iptables -E OLD NEW`; rules that jump there follow."""
        self._known(table, old)
        if new in self.table(table):
            raise NetfilterError("File exists.")
        self._check_name(new)
        if old in BUILTIN[table]:
            raise NetfilterError(f"CHAIN_RENAME failed (Operation not supported): chain {old}")
        draft = self._draft(table, old)
        draft.name = new
        del self.table(table)[old]
        self.table(table)[new] = draft
        self._touched.discard((table, old))
        self._touched.add((table, new))
        for name, chain in list(self.table(table).items()):
            for index, rule in enumerate(chain.rules):
                if isinstance(rule.target, (Jump, Goto)) and rule.target.chain == old:
                    self._draft(table, name).rules[index] = replace(
                        rule, target=replace(rule.target, chain=new)
                    )

    def zero(self, table: str, chain: str | None = None, number: int | None = None) -> None:
        """`iptables -Z [CHAIN [NUMBER]]`."""
        for name in [chain] if chain is not None else list(self.table(table)):
            draft = self._draft(table, name)
            for index in [number] if number is not None else range(len(draft.rules) + 1):
                if index > len(draft.rules):
                    raise NetfilterError("Index of zeroing too big.")
                draft.counts()[index] = [0, 0]

    def commit(self) -> Ruleset:
        """Return the changed ruleset.

        Raises NetfilterError when a chain in use is gone or chains form a loop.
        """
        for table, name in self._gone:
            for chain in self.table(table).values():
                if any(isinstance(r.target, (Jump, Goto)) and r.target.chain == name for r in chain.rules):
                    raise NetfilterError(f"CHAIN_DEL failed (Device or resource busy): chain {name}")
        self._check_loops()
        tables = dict(self.base.tables)
        counters = dict(self.base.counters)
        compiled = {name: dict(chains) for name, chains in self.base.compiled.items()}
        for table, name in self._gone:
            counters.pop((table, name), None)
            compiled.get(table, {}).pop(name, None)
        for name, chains in self._chains.items():
            frozen: dict[str, Chain] = {}
            made = compiled.get(name, {})
            for key, chain in chains.items():
                if isinstance(chain, Chain):
                    frozen[key] = chain
                    continue
                frozen[key] = Chain(key, tuple(chain.rules), chain.policy)
                made.pop(key, None)
                if chain.counters is None:
                    counters.pop((name, key), None)
                else:
                    counters[name, key] = chain.counters
            tables[name] = Table(name, frozen)
        return Ruleset(self.base.family, tables, counters, compiled)

    # -- helpers ---------------------------------------------------------------------------------------------

    def _known(self, table: str, chain: str) -> Chain | _Draft:
        found = self.table(table).get(chain)
        if found is None and chain in BUILTIN[table]:
            found = self.table(table)[chain] = Chain(chain, (), "ACCEPT")
        if found is None:
            near = get_close_matches(chain, self.table(table), 1)
            raise NetfilterError("No chain/target/match by that name.", _advice(chain, table, near))
        return found

    def _draft(self, table: str, chain: str) -> _Draft:
        found = self._known(table, chain)
        if isinstance(found, Chain):
            found = _Draft(found, self.base.counters.get((table, chain)))
            self.table(table)[chain] = found
        self._touched.add((table, chain))
        return found

    def _check_name(self, chain: str) -> None:
        if not chain or len(chain) > 28:
            raise NetfilterError(f"chain name `{chain}' too long (must be under 29 chars)")
        if chain[0] in "-!":
            raise NetfilterError(f"chain name not allowed to start with `{chain[0]}'")
        if any(c.isspace() for c in chain):
            raise NetfilterError(f"Invalid chain name `{chain}'", "write a name without blanks")
        if chain in _TARGET_NAMES:
            raise NetfilterError(
                "chain name may not clash with target name", f"choose another name than {chain}"
            )

    def _check_target(self, table: str, rule: Rule) -> None:
        target = rule.target
        if isinstance(target, (Jump, Goto)) and target.chain not in self.table(table):
            near = get_close_matches(target.chain, self.table(table), 1)
            raise NetfilterError(f"Chain '{target.chain}' does not exist", _advice(target.chain, table, near))

    def _check_loops(self) -> None:
        done: dict[tuple[str, str], bool] = {}
        for start in self._touched:
            if start in done:
                continue
            path: list[tuple[tuple[str, str], Iterator[str]]] = [(start, self._jumps(*start))]
            done[start] = False
            while path:
                here, targets = path[-1]
                for name in targets:
                    there = (here[0], name)
                    state = done.get(there)
                    if state is False and self._reachable(*there):
                        raise NetfilterError(
                            f"RULE_APPEND failed (Too many levels of symbolic links): rule in chain {here[1]}"
                        )
                    if state is None:
                        done[there] = False
                        path.append((there, self._jumps(*there)))
                        break
                else:
                    done[here] = True
                    path.pop()

    def _reachable(self, table: str, chain: str) -> bool:
        """Return True when a packet can get to a chain: the kernel looks for loops from the hooks only."""
        seen: set[str] = set()
        todo = list(BUILTIN[table])
        while todo:
            name = todo.pop()
            if name == chain:
                return True
            if name not in seen:
                seen.add(name)
                todo.extend(self._jumps(table, name))
        return False

    def _jumps(self, table: str, chain: str) -> Iterator[str]:
        found = self.table(table).get(chain)
        for rule in found.rules if found else ():
            if isinstance(rule.target, (Jump, Goto)):
                yield rule.target.chain
