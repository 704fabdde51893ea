"""The nftables state of one network namespace, and edits of it that happen whole or not at all.

A `Ruleset` never changes, but for what packets change in it: counters, quotas, limits and the elements of dynamic
sets, which live beside the rules and go with them when an edit makes a new ruleset. An `Edit` is one netlink batch.

Semantics: net/netfilter/nf_tables_api.c.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any

from msgspec.structs import replace

from kubenet_lab.errors import KubenetLabError
from kubenet_lab.kernel.nftables import statements as st
from kubenet_lab.kernel.nftables.datatypes import value_int
from kubenet_lab.kernel.nftables.expressions import (
    CatchAll,
    Concat,
    Constant,
    Ct,
    Element,
    Expression,
    Interval,
    Key,
    Lookup,
    Meta,
    Payload,
    SetLiteral,
    SetRef,
    Verdict,
)
from kubenet_lab.kernel.nftables.objects import Chain, Flowtable, NamedObject, Rule, Set, Table

TableKey = tuple[str, str]
"""(family, name)."""
MAX_JUMPS = 16
"""NFT_JUMP_STACK_SIZE: how deep jumps may nest."""

_WORDS = {
    "ENOENT": "No such file or directory",
    "EEXIST": "File exists",
    "EBUSY": "Device or resource busy",
    "EINVAL": "Invalid argument",
    "ELOOP": "Too many levels of symbolic links",
    "EMLINK": "Too many links",
    "EOPNOTSUPP": "Operation not supported",
    "ENFILE": "Too many open files in system",
}


class NftError(KubenetLabError):
    """The kernel refuses an edit. `errno` is the symbolic name, `what` the thing, `help` what to do instead."""

    def __init__(self, errno: str, what: str = "", help: str = "") -> None:
        self.errno, self.what, self.help = errno, what, help
        super().__init__(f"Could not process rule: {_WORDS.get(errno, errno)}")


class Ruleset:
    """Every nftables table of one namespace.

    Attributes:
        tables: By (family, name), in the order they were added.
        state: What packets changed: (table handle, rule handle, statement number) -> list of numbers.
        live: (table handle, set handle) -> elements that packets added to a dynamic set.
        compiled: A place for an evaluator to keep what it made of chains and sets.
        next_handle: Handle of the last table.
    """

    __slots__ = ("compiled", "live", "next_handle", "state", "tables")

    def __init__(
        self,
        tables: dict[TableKey, Table] | None = None,
        next_handle: int = 0,
        state: dict[Any, list[float]] | None = None,
        live: dict[tuple[int, int], dict[Key, Element]] | None = None,
        compiled: dict[Any, Any] | None = None,
    ) -> None:
        self.tables: dict[TableKey, Table] = tables if tables is not None else {}
        self.next_handle = next_handle
        self.state: dict[Any, list[float]] = state if state is not None else {}
        self.live: dict[tuple[int, int], dict[Key, Element]] = live if live is not None else {}
        self.compiled: dict[Any, Any] = compiled if compiled is not None else {}

    def snapshot(self) -> Snapshot:
        """Return what brings back the present state, packets' part in it too."""
        state = {key: list(cell) for key, cell in self.state.items()}
        return Snapshot(self, state, {key: dict(one) for key, one in self.live.items()})

    def __bool__(self) -> bool:
        return bool(self.tables)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ruleset) and self.tables == other.tables

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        names = ", ".join(
            f"{family} {name}: {len(t.chains)} chains" for (family, name), t in self.tables.items()
        )
        return f"<nftables {names or 'empty'}>"

    def table(self, family: str, name: str) -> Table:
        """Return a table. Raises NftError ENOENT."""
        found = self.tables.get((family, name))
        if found is None:
            raise NftError("ENOENT", f"table {family} {name}", _near(name, (n for f, n in self.tables)))
        return found

    def chain(self, family: str, table: str, name: str) -> Chain:
        """Return a chain. Raises NftError ENOENT."""
        found = self.table(family, table).chains.get(name)
        if found is None:
            raise NftError("ENOENT", f"chain {name}", _near(name, self.table(family, table).chains))
        return found

    def set(self, family: str, table: str, name: str) -> Set:
        """Return a set or map as it was last written; see `elements` for what packets added. Raises NftError ENOENT."""
        found = self.table(family, table).sets.get(name)
        if found is None:
            raise NftError("ENOENT", f"set {name}", _near(name, self.table(family, table).sets))
        return found

    def elements(self, table: Table, one: Set, now: float = 0.0) -> dict[Key, Element]:
        """Return a set's elements at a moment: without those whose time has come, with those that packets added."""
        live = self.live.get((table.handle, one.handle))
        found = {**one.elements, **live} if live else one.elements
        if "timeout" in one.flags or one.timeout:
            return {
                key: element for key, element in found.items() if not element.until or element.until > now
            }
        return found

    def base_chains(self) -> Iterator[tuple[Table, Chain]]:
        """Every chain that a hook calls, in the order they were added; those of dormant tables are asleep."""
        for table in self.tables.values():
            if not table.dormant:
                for chain in table.chains.values():
                    if chain.hook:
                        yield table, chain

    def edit(self) -> Edit:
        """Begin a transaction."""
        return Edit(self)


class Snapshot:
    """A ruleset as it was at a moment, with the counters, limits and elements that packets had changed until then."""

    __slots__ = ("live", "ruleset", "state")

    def __init__(
        self, ruleset: Ruleset, state: dict[Any, list[float]], live: dict[tuple[int, int], dict[Key, Element]]
    ) -> None:
        self.ruleset, self.state, self.live = ruleset, state, live

    def restore(self) -> Ruleset:
        """Return the ruleset, or one like it where packets have changed something since."""
        now = self.ruleset
        if now.live == self.live and now.state == self.state:
            return now
        state = {key: list(cell) for key, cell in self.state.items()}
        live = {key: dict(one) for key, one in self.live.items()}
        return Ruleset(now.tables, now.next_handle, state, live)


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), 1)
    return f"did you mean {near[0]}?" if near else ""


class _TableDraft:
    """A table while it is edited: dictionaries are copied once, chains and sets when first touched."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self.chains: dict[str, Chain | _ChainDraft] = dict(table.chains)
        self.sets: dict[str, Set | _SetDraft] = dict(table.sets)
        self.objects = dict(table.objects)
        self.flowtables = dict(table.flowtables)
        self.uses = dict(table.uses)
        self.handle = table.next_handle
        self.jumps: set[str] = set()
        """Chains whose rules changed, or that an element now leads to: where a loop could have been closed."""

    def take(self) -> int:
        self.handle += 1
        return self.handle

    def use(self, names: Iterable[str], count: int = 1) -> None:
        for name in names:
            left = self.uses.get(name, 0) + count
            if left:
                self.uses[name] = left
            else:
                self.uses.pop(name, None)

    def done(self) -> Table:
        return replace(
            self.table,
            chains={name: c.done() if isinstance(c, _ChainDraft) else c for name, c in self.chains.items()},
            sets={name: s.done() if isinstance(s, _SetDraft) else s for name, s in self.sets.items()},
            objects=self.objects,
            flowtables=self.flowtables,
            uses=self.uses,
            next_handle=self.handle,
        )


class _ChainDraft:
    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.rules = list(chain.rules)

    def done(self) -> Chain:
        return replace(self.chain, rules=tuple(self.rules))


class _SetDraft:
    def __init__(self, one: Set, elements: dict[Key, Element]) -> None:
        self.set = one
        self.elements = dict(elements)
        self.spans: list[tuple[int, int]] | None = None
        """Sorted intervals of the elements, made when the first interval is added."""

    def done(self) -> Set:
        return replace(self.set, elements=self.elements)


class Edit:
    """One transaction on a ruleset: verbs change a draft, `commit` returns the new ruleset.

    The verbs raise NftError as the kernel does; the ruleset they began with stays as it was.

    Args:
        base: What to begin with.
        now: Simulated time in s, from which elements with a time-out count.
    """

    def __init__(self, base: Ruleset, now: float = 0.0) -> None:
        self.base = base
        self.now = now
        self._tables: dict[TableKey, Table | _TableDraft] = dict(base.tables)
        self._next = base.next_handle
        self._dropped: set[tuple[int, int]] = set()

    # -- looking ------------------------------------------------------------------------------------------------------

    def has_table(self, family: str, name: str) -> bool:
        """True when the table is there."""
        return (family, name) in self._tables

    def has_chain(self, family: str, table: str, name: str) -> bool:
        """True when the chain is there."""
        return self.has_table(family, table) and name in self._draft(family, table).chains

    def get_set(self, family: str, table: str, name: str) -> Set:
        """Return a set's declaration; its elements may be out of date. Raises NftError ENOENT."""
        found = self._draft(family, table).sets.get(name)
        if found is None:
            raise NftError("ENOENT", f"set {name}", _near(name, self._draft(family, table).sets))
        return found.set if isinstance(found, _SetDraft) else found

    def set_elements(self, family: str, table: str, name: str) -> list[Element]:
        """Return the elements a set has at this point of the transaction. Raises NftError ENOENT."""
        return list(self._set(family, table, name).elements.values())

    def _draft(self, family: str, name: str) -> _TableDraft:
        found = self._tables.get((family, name))
        if found is None:
            raise NftError("ENOENT", f"table {family} {name}", _near(name, (n for f, n in self._tables)))
        if isinstance(found, Table):
            found = self._tables[family, name] = _TableDraft(found)
        return found

    def _chain(self, family: str, table: str, name: str) -> _ChainDraft:
        draft = self._draft(family, table)
        found = draft.chains.get(name)
        if found is None:
            raise NftError("ENOENT", f"chain {name}", _near(name, draft.chains))
        if isinstance(found, Chain):
            found = draft.chains[name] = _ChainDraft(found)
        return found

    def _set(self, family: str, table: str, name: str) -> _SetDraft:
        draft = self._draft(family, table)
        found = draft.sets.get(name)
        if found is None:
            raise NftError("ENOENT", f"set {name}", _near(name, draft.sets))
        if isinstance(found, Set):
            elements = self.base.elements(draft.table, found, self.now)
            if (draft.table.handle, found.handle) in self.base.live:
                self._dropped.add((draft.table.handle, found.handle))
            found = draft.sets[name] = _SetDraft(found, elements)
        return found

    # -- tables -------------------------------------------------------------------------------------------------------

    def add_table(
        self, family: str, name: str, *, comment: str = "", dormant: bool = False, create: bool = False
    ) -> None:
        """`add|create table`. Raises EEXIST for `create` of one that is there.

        One that is there gets the flags of this command: nft always sends them, so a dormant table wakes up without.
        """
        key = (family, name)
        if key in self._tables:
            if create:
                raise NftError("EEXIST", f"table {family} {name}")
            there = self._tables[key]
            if (there if isinstance(there, Table) else there.table).dormant != dormant:
                draft = self._draft(family, name)
                draft.table = replace(draft.table, dormant=dormant)
            return
        self._next += 1
        self._tables[key] = _TableDraft(Table(family, name, self._next, comment, dormant))

    def delete_table(self, family: str, name: str, *, destroy: bool = False) -> None:
        """`delete|destroy table`: with everything in it. Raises ENOENT."""
        if (family, name) not in self._tables:
            if destroy:
                return
            self._draft(family, name)
        del self._tables[family, name]

    def flush_ruleset(self, family: str = "") -> None:
        """`flush ruleset [FAMILY]`: delete the tables."""
        self._tables = {key: table for key, table in self._tables.items() if family and key[0] != family}

    def flush_table(self, family: str, name: str) -> None:
        """`flush table`: take the rules out of its chains."""
        for chain in list(self._draft(family, name).chains):
            self.flush_chain(family, name, chain)

    # -- chains -------------------------------------------------------------------------------------------------------

    def add_chain(self, family: str, table: str, chain: Chain, *, create: bool = False) -> None:
        """`add|create chain`: its rules are added by `add_rule`. A base chain that is there may change its policy."""
        draft = self._draft(family, table)
        found = draft.chains.get(chain.name)
        if found is not None:
            if create:
                raise NftError("EEXIST", f"chain {chain.name}")
            present = found.chain if isinstance(found, _ChainDraft) else found
            if chain.hook:
                same = (present.type, present.hook, present.priority) == (
                    chain.type,
                    chain.hook,
                    chain.priority,
                )
                if not same:
                    raise NftError("EEXIST", f"chain {chain.name}")
                if chain.policy and chain.policy != present.policy:
                    changed = self._chain(family, table, chain.name)
                    changed.chain = replace(changed.chain, policy=chain.policy)
            return
        if chain.hook and not chain.policy:
            chain = replace(chain, policy="accept")
        draft.chains[chain.name] = replace(chain, rules=(), handle=draft.take())

    def delete_chain(self, family: str, table: str, name: str, *, destroy: bool = False) -> None:
        """`delete chain`: with its rules. Raises ENOENT, EBUSY while something jumps there."""
        draft = self._draft(family, table)
        if name not in draft.chains and destroy:
            return
        chain = self._chain(family, table, name)
        if draft.uses.get(name):
            raise NftError(
                "EBUSY", f"chain {name}", "delete the rules and map elements that lead to it first"
            )
        for rule in chain.rules:
            draft.use(references(rule), -1)
        del draft.chains[name]

    def flush_chain(self, family: str, table: str, name: str) -> None:
        """`flush chain`: delete its rules."""
        draft = self._draft(family, table)
        chain = self._chain(family, table, name)
        for rule in chain.rules:
            draft.use(references(rule), -1)
        chain.rules.clear()

    def rename_chain(self, family: str, table: str, old: str, new: str) -> None:
        """`rename chain`: what leads there keeps doing so. Raises ENOENT, EEXIST."""
        draft = self._draft(family, table)
        chain = self._chain(family, table, old)
        if new in draft.chains:
            raise NftError("EEXIST", f"chain {new}")
        if draft.uses.get(old):
            raise NftError("EBUSY", f"chain {old}", "renaming a chain that rules lead to is not modelled")
        chain.chain = replace(chain.chain, name=new)
        draft.chains = {new if name == old else name: one for name, one in draft.chains.items()}

    # -- rules --------------------------------------------------------------------------------------------------------

    def add_rule(
        self,
        family: str,
        table: str,
        chain: str,
        rule: Rule,
        *,
        insert: bool = False,
        position: int = 0,
        index: int | None = None,
    ) -> Rule:
        """`add|insert rule [position HANDLE|index N]`: return it with its handle. Raises ENOENT."""
        draft = self._draft(family, table)
        target = self._chain(family, table, chain)
        names = references(rule)
        self._check(draft, names)
        for _ in range(anonymous_sets(rule.statements)):
            draft.take()
        made = replace(rule, handle=draft.take(), family=family)
        at = self._place(target, position, index)
        if at is None:
            at = 0 if insert else len(target.rules)
        elif not insert:
            at += 1
        target.rules.insert(at, made)
        draft.use(names)
        if names:
            draft.jumps.add(chain)
        return made

    def _place(self, chain: _ChainDraft, position: int, index: int | None) -> int | None:
        if position:
            return self._number(chain, position)
        if index is not None:
            if not 0 <= index < len(chain.rules):
                raise NftError("ENOENT", f"index {index}")
            return index
        return None

    def _number(self, chain: _ChainDraft, handle: int) -> int:
        for number, rule in enumerate(chain.rules):
            if rule.handle == handle:
                return number
        raise NftError("ENOENT", f"handle {handle}")

    def replace_rule(self, family: str, table: str, chain: str, handle: int, rule: Rule) -> Rule:
        """`replace rule ... handle N`. Raises ENOENT."""
        draft = self._draft(family, table)
        target = self._chain(family, table, chain)
        at = self._number(target, handle)
        names = references(rule)
        self._check(draft, names)
        for _ in range(anonymous_sets(rule.statements)):
            draft.take()
        draft.use(references(target.rules[at]), -1)
        made = target.rules[at] = replace(rule, handle=draft.take(), family=family)
        draft.use(names)
        draft.jumps.add(chain)
        return made

    def delete_rule(self, family: str, table: str, chain: str, handle: int) -> None:
        """`delete rule ... handle N`. Raises ENOENT."""
        target = self._chain(family, table, chain)
        gone = target.rules.pop(self._number(target, handle))
        self._draft(family, table).use(references(gone), -1)

    def _check(self, draft: _TableDraft, names: Iterable[str]) -> None:
        for name in names:
            if name.startswith("@"):
                if name[1:] not in draft.sets:
                    raise NftError("ENOENT", f"set {name[1:]}", _near(name[1:], draft.sets))
            elif name.startswith("%"):
                kind, _, object_name = name[1:].partition("%")
                if kind == "flowtable":
                    if object_name not in draft.flowtables:
                        raise NftError("ENOENT", f"flowtable {object_name}")
                elif (kind, object_name) not in draft.objects:
                    raise NftError("ENOENT", f"{kind} {object_name}")
            elif name not in draft.chains:
                raise NftError("ENOENT", f"chain {name}", _near(name, draft.chains))
            else:
                target = draft.chains[name]
                if (target.chain if isinstance(target, _ChainDraft) else target).hook:
                    raise NftError("EOPNOTSUPP", f"chain {name}", "a base chain cannot be jumped to")

    # -- sets ---------------------------------------------------------------------------------------------------------

    def add_set(self, family: str, table: str, one: Set, *, create: bool = False) -> None:
        """`add|create set|map`: with its elements. Raises EEXIST when one of another type is there."""
        draft = self._draft(family, table)
        found = draft.sets.get(one.name)
        if found is not None:
            present = found.set if isinstance(found, _SetDraft) else found
            same = (present.key, present.data, present.object) == (one.key, one.data, one.object)
            if create or not same:
                raise NftError("EEXIST", f"set {one.name}")
        else:
            draft.sets[one.name] = replace(one, elements={}, handle=draft.take())
        self.add_elements(family, table, one.name, one.elements.values())

    def delete_set(self, family: str, table: str, name: str, *, destroy: bool = False) -> None:
        """`delete set|map`. Raises ENOENT, EBUSY while a rule looks there."""
        draft = self._draft(family, table)
        if name not in draft.sets and destroy:
            return
        one = self._set(family, table, name)
        if draft.uses.get("@" + name):
            raise NftError("EBUSY", f"set {name}", "delete the rules that use it first")
        for element in one.elements.values():
            draft.use(_element_references(one.set, element), -1)
        del draft.sets[name]

    def flush_set(self, family: str, table: str, name: str) -> None:
        """`flush set|map`: delete its elements."""
        draft = self._draft(family, table)
        one = self._set(family, table, name)
        if one.set.data == ("verdict",) or one.set.object:
            for element in one.elements.values():
                draft.use(_element_references(one.set, element), -1)
        one.elements.clear()
        one.spans = None

    def add_elements(
        self, family: str, table: str, name: str, elements: Iterable[Element], *, create: bool = False
    ) -> None:
        """`add|create element`. Raises EEXIST for one that overlaps or leads elsewhere, ENFILE when full."""
        draft = self._draft(family, table)
        one = self._set(family, table, name)
        declared = one.set
        timed = declared.timeout or "timeout" in declared.flags
        leads = declared.data == ("verdict",) or bool(declared.object)
        for element in elements:
            present = one.elements.get(element.key)
            if present is not None:
                if create or present.data != element.data:
                    raise NftError("EEXIST", f"element of {name}")
                continue
            if leads:
                names = _element_references(declared, element)
                self._check(draft, names)
                draft.use(names)
                draft.jumps.update(target for target in names if target[0] not in "@%")
            if declared.size and len(one.elements) >= declared.size:
                raise NftError("ENFILE", f"set {name}")
            if "interval" in declared.flags and len(declared.key) == 1:
                self._fit(one, element)
            if timed and not element.until and (element.timeout or declared.timeout):
                element = replace(element, until=self.now + (element.timeout or declared.timeout) / 1000)
            if declared.statements and not element.statements:
                element = replace(element, statements=declared.statements)
            one.elements[element.key] = element

    def _fit(self, one: _SetDraft, element: Element) -> None:
        """Refuse an interval that overlaps another; with `auto-merge`, swallow those it touches."""
        from bisect import bisect_left, insort

        if isinstance(element.key, (CatchAll, tuple)):
            return
        if one.spans is None:
            one.spans = sorted(span(key) for key in one.elements if not isinstance(key, (CatchAll, tuple)))
        low, high = span(element.key)
        at = bisect_left(one.spans, (low, low))
        if at and one.spans[at - 1][1] >= low:
            at -= 1
        if at < len(one.spans) and one.spans[at][0] <= high and one.spans[at][1] >= low:
            raise NftError(
                "EEXIST", f"element of {one.set.name}", "the interval overlaps with an existing one"
            )
        insort(one.spans, (low, high))

    def delete_elements(
        self, family: str, table: str, name: str, keys: Iterable[Key], *, destroy: bool = False
    ) -> None:
        """`delete element`. Raises ENOENT for one that is not there."""
        draft = self._draft(family, table)
        one = self._set(family, table, name)
        for key in keys:
            gone = one.elements.pop(key, None)
            if gone is None:
                if destroy:
                    continue
                raise NftError("ENOENT", f"element of {name}")
            one.spans = None
            draft.use(_element_references(one.set, gone), -1)

    def replace_elements(self, family: str, table: str, name: str, elements: Iterable[Element]) -> None:
        """Swap all elements: what `auto-merge` makes of old and new ones."""
        one = self._set(family, table, name)
        one.elements = {element.key: element for element in elements}
        one.spans = None

    # -- other objects ------------------------------------------------------------------------------------------------

    def add_object(self, family: str, table: str, one: NamedObject, *, create: bool = False) -> None:
        """`add|create counter|quota|limit|ct helper|...`."""
        draft = self._draft(family, table)
        key = (one.kind, one.name)
        if key in draft.objects:
            if create:
                raise NftError("EEXIST", f"{one.kind} {one.name}")
            return
        draft.objects[key] = replace(one, handle=draft.take())

    def delete_object(self, family: str, table: str, kind: str, name: str, *, destroy: bool = False) -> None:
        """`delete counter|quota|...`. Raises ENOENT, EBUSY."""
        draft = self._draft(family, table)
        if (kind, name) not in draft.objects:
            if destroy:
                return
            raise NftError("ENOENT", f"{kind} {name}", _near(name, (n for k, n in draft.objects)))
        if draft.uses.get(f"%{kind}%{name}"):
            raise NftError("EBUSY", f"{kind} {name}")
        del draft.objects[kind, name]

    def add_flowtable(self, family: str, table: str, one: Flowtable, *, create: bool = False) -> None:
        """`add|create flowtable`."""
        draft = self._draft(family, table)
        if one.name in draft.flowtables:
            if create:
                raise NftError("EEXIST", f"flowtable {one.name}")
            return
        draft.flowtables[one.name] = replace(one, handle=draft.take())

    def delete_flowtable(self, family: str, table: str, name: str, *, destroy: bool = False) -> None:
        """`delete flowtable`. Raises ENOENT, EBUSY."""
        draft = self._draft(family, table)
        if name not in draft.flowtables:
            if destroy:
                return
            raise NftError("ENOENT", f"flowtable {name}")
        if draft.uses.get(f"%flowtable%{name}"):
            raise NftError("EBUSY", f"flowtable {name}")
        del draft.flowtables[name]

    def name_of(self, family: str, table: str, kind: str, handle: int) -> str:
        """Return the name of a chain, set or object given by handle. Raises ENOENT."""
        draft = self._draft(family, table)
        if kind == "chain":
            chains = (c.chain if isinstance(c, _ChainDraft) else c for c in draft.chains.values())
            names = [c.name for c in chains if c.handle == handle]
        elif kind == "set":
            sets = (s.set if isinstance(s, _SetDraft) else s for s in draft.sets.values())
            names = [s.name for s in sets if s.handle == handle]
        elif kind == "flowtable":
            names = [f.name for f in draft.flowtables.values() if f.handle == handle]
        else:
            names = [o.name for o in draft.objects.values() if o.handle == handle and o.kind == kind]
        if not names:
            raise NftError("ENOENT", f"{kind} handle {handle}")
        return names[0]

    def table_name(self, family: str, handle: int) -> str:
        """Return the name of the table with a handle. Raises ENOENT."""
        for (fam, name), one in self._tables.items():
            found = one.table if isinstance(one, _TableDraft) else one
            if fam == family and found.handle == handle:
                return name
        raise NftError("ENOENT", f"table handle {handle}")

    # -- the end ------------------------------------------------------------------------------------------------------

    def commit(self) -> Ruleset:
        """Return the new ruleset. Raises NftError ELOOP, EMLINK."""
        for one in self._tables.values():
            if isinstance(one, _TableDraft) and one.jumps:
                _check_loops(one)
        tables = {
            key: one.done() if isinstance(one, _TableDraft) else one for key, one in self._tables.items()
        }
        live = {key: found for key, found in self.base.live.items() if key not in self._dropped}
        return Ruleset(tables, self._next, self.base.state, live, self.base.compiled)


def span(key: Any) -> tuple[int, int]:
    """Return first and last number of a key that is a point or an interval."""
    if isinstance(key, Interval):
        return value_int(key.low), value_int(key.high)
    if isinstance(key, str) and key.endswith("*"):
        low = value_int(key)
        return low, low | (1 << 8 * (16 - len(key[:-1].encode()))) - 1
    return value_int(key), value_int(key)


# -- references -------------------------------------------------------------------------------------------------------


def references(rule: Rule) -> tuple[str, ...]:
    """Return what a rule needs to be there: chains by name, sets as "@name", objects as "%kind%name"."""
    found: list[str] = []
    _statement_references(rule.statements, found)
    return tuple(found)


def _is_plain(one: st.Statement) -> bool:
    """True for what can name nothing and hold no set: `ip saddr 10.0.0.1`, `counter`."""
    if type(one) is st.Match:
        return type(one.right) is Constant and type(one.left) in (Payload, Meta, Ct)
    return type(one) is st.Counter


def _statement_references(statements: Iterable[st.Statement], found: list[str]) -> None:
    for one in statements:
        if _is_plain(one):
            continue
        if isinstance(one, st.VerdictStatement):
            if one.verdict.chain:
                found.append(one.verdict.chain)
        elif isinstance(one, st.Vmap):
            _expression_references(one.key, found)
            _expression_references(one.data, found)
        elif isinstance(one, st.Match):
            _expression_references(one.left, found)
            _expression_references(one.right, found)
        elif isinstance(one, (st.SetUpdate, st.Meter)):
            if isinstance(one, st.SetUpdate):
                found.append("@" + one.set)
            _expression_references(one.key, found)
        elif isinstance(one, st.Nat):
            for part in (one.address, one.port):
                if part is not None:
                    _expression_references(part, found)
        elif isinstance(one, st.Mangle):
            _expression_references(one.value, found)
        elif isinstance(one, st.ObjectRef):
            if isinstance(one.name, Constant):
                found.append(f"%{one.kind}%{one.name.value}")
            else:
                _expression_references(one.name, found, one.kind)
        elif isinstance(one, st.FlowOffload):
            found.append(f"%flowtable%{one.flowtable}")
        elif isinstance(one, st.Inline):
            for statements_of, _comment in one.rules:
                _statement_references(statements_of, found)


def _expression_references(expr: Expression, found: list[str], object_kind: str = "") -> None:
    if isinstance(expr, SetRef):
        found.append("@" + expr.name)
    elif isinstance(expr, SetLiteral):
        if expr.data == ("verdict",):
            found += [e.data.chain for e in expr.elements if isinstance(e.data, Verdict) and e.data.chain]
        elif object_kind:
            found += [f"%{object_kind}%{e.data}" for e in expr.elements]
    elif isinstance(expr, Lookup):
        _expression_references(expr.key, found)
        _expression_references(expr.data, found, object_kind)
    elif isinstance(expr, Concat):
        for part in expr.parts:
            _expression_references(part, found)


def _element_references(one: Set, element: Element) -> tuple[str, ...]:
    data = element.data
    if isinstance(data, Verdict):
        return (data.chain,) if data.chain else ()
    return (f"%{one.object}%{data}",) if one.object else ()


def anonymous_sets(statements: Iterable[st.Statement]) -> int:
    """Return how many sets and chains without a name the statements need: each takes a handle of its table."""
    count = 0
    for one in statements:
        if _is_plain(one) or type(one) is st.VerdictStatement:
            continue
        if isinstance(one, st.Inline):
            count += 1 + sum(1 + anonymous_sets(inner) for inner, _comment in one.rules)
            continue
        count += isinstance(one, st.Meter)
        for name in one.__struct_fields__:
            count += _literals(getattr(one, name))
    return count


def _literals(value: Any) -> int:
    if isinstance(value, SetLiteral):
        return 1
    if isinstance(value, Lookup):
        return _literals(value.key) + _literals(value.data)
    if isinstance(value, Concat):
        return sum(_literals(part) for part in value.parts)
    return 0


def _check_loops(draft: _TableDraft) -> None:
    """Refuse a chain that leads back to itself (`nft_chain_validate`)."""
    done: dict[str, int] = {}
    path: set[str] = set()

    def targets(name: str) -> Iterator[str]:
        chain = draft.chains[name]
        for rule in chain.rules:
            for found in references(rule):
                if found[0] == "@":
                    one = draft.sets[found[1:]]
                    if (one.set if isinstance(one, _SetDraft) else one).data == ("verdict",):
                        for element in one.elements.values():
                            if isinstance(element.data, Verdict) and element.data.chain:
                                yield element.data.chain
                elif found[0] != "%":
                    yield found

    def depth(name: str) -> int:
        known = done.get(name)
        if known is not None:
            return known
        path.add(name)
        deepest = 0
        for target in targets(name):
            if target in path:
                raise NftError("ELOOP", f"chain {target}")
            deepest = max(deepest, 1 + depth(target))
            if deepest > MAX_JUMPS:
                raise NftError("EMLINK", f"chain {name}")
        path.discard(name)
        done[name] = deepest
        return deepest

    for name in draft.jumps:
        if name in draft.chains:
            depth(name)
