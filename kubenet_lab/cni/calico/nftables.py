"""Felix's nftables data plane: one table `calico` a family, with the same policies as chains, sets and verdict maps.

What are four tables in iptables are layers here: the names of their chains begin with "filter-", "nat-", "mangle-" and
"raw-", and so do those of the base chains. IP sets are sets of the table, and a verdict map leads from a link to its
endpoint's chain. Chains that nothing leads to are not written.

Source: `felix/nftables/{table,table_layer,ipsets,maps}.go` of https://github.com/projectcalico/calico (v3.32).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.cni.calico import names
from kubenet_lab.cni.calico.rules import Chain, Rule, nft_rules
from kubenet_lab.kernel.ipset import IpSet

TABLE = "calico"
_FILTER, _RAW, _MANGLE, _DSTNAT, _SRCNAT = 0, -300, -150, -100, 100
BASE_CHAINS: dict[str, str] = {
    "filter-INPUT": f"type filter hook input priority {_FILTER}",
    "filter-FORWARD": f"type filter hook forward priority {_FILTER}",
    "filter-OUTPUT": f"type filter hook output priority {_FILTER}",
    "nat-PREROUTING": f"type nat hook prerouting priority {_DSTNAT}",
    "nat-INPUT": f"type nat hook input priority {_DSTNAT}",
    "nat-OUTPUT": f"type nat hook output priority {_SRCNAT}",
    "nat-POSTROUTING": f"type nat hook postrouting priority {_SRCNAT}",
    "mangle-PREROUTING": f"type filter hook prerouting priority {_MANGLE}",
    "mangle-INPUT": f"type filter hook input priority {_MANGLE}",
    "mangle-FORWARD": f"type filter hook forward priority {_MANGLE}",
    "mangle-OUTPUT": f"type route hook output priority {_MANGLE}",
    "mangle-POSTROUTING": f"type filter hook postrouting priority {_MANGLE}",
    "raw-PREROUTING": f"type filter hook prerouting priority {_RAW}",
    "raw-OUTPUT": f"type filter hook output priority {_RAW}",
}
"""Name -> type, hook and priority, as Felix lays them out."""
MAPS = {"cali-from-wl-dispatch": "cali-fw-", "cali-to-wl-dispatch": "cali-tw-"}
"""Verdict maps of the layer filter, and what the chains they lead to begin with."""


class Contents(Struct, frozen=True):
    """What a family's table holds: rules by chain, (type, elements) by set, (link, chain) by map."""

    chains: Mapping[str, tuple[str, ...]]
    sets: Mapping[str, tuple[str, frozenset[str]]]
    maps: Mapping[str, frozenset[tuple[str, str]]]


def _in_layer(chain: Chain, layer: str) -> Chain:
    """Return a chain as it is called in its layer, with what it jumps to."""

    def moved(rule: Rule) -> Rule:
        action = rule.action
        if action is not None and action[0] in ("jump", "goto"):
            action = (action[0], f"{layer}-{action[1]}")
        match = tuple((*one, layer) if one[0] in ("in-map", "out-map") else one for one in rule.match)
        return replace(rule, match=match, action=action)

    return Chain(f"{layer}-{chain.name}", tuple(moved(rule) for rule in chain.rules))


def contents(
    layers: Mapping[str, list[Chain]],
    hooks: Mapping[str, Iterable[str]],
    appended: Chain,
    sets: Mapping[str, IpSet],
    links: Iterable[str],
    family: int,
    chain_length: int,
) -> Contents:
    """Return a family's table.

    Args:
        layers: Felix's chains by layer ("filter"), as they are called in iptables.
        hooks: Built-in chains of a layer whose first rule jumps to Felix's chain of the same name.
        appended: What stands at the end of the layer filter's FORWARD.
        sets: IP sets by name.
        links: Names of the pods' links.
        family: 4 or 6.
        chain_length: Longest name a chain may have.
    """
    known: dict[str, Chain] = {name: Chain(name, ()) for name in BASE_CHAINS}
    for layer, chains in layers.items():
        for chain in chains:
            made = _in_layer(chain, layer)
            known[made.name] = made
        for builtin in hooks[layer]:
            tail = appended.rules if (layer, builtin) == ("filter", "FORWARD") else ()
            first = Rule((), ("jump", f"cali-{builtin}"))
            hooked = _in_layer(Chain(builtin, (first, *tail)), layer)
            known[hooked.name] = hooked
    maps = {
        f"filter-{name}": frozenset(
            (link, f"filter-{names.limited(start, link, chain_length)}") for link in links
        )
        for name, start in MAPS.items()
    }
    used = _led_to(known, maps)
    return Contents(
        {name: tuple(nft_rules(chain, family)) for name, chain in known.items() if name in used},
        {names.nft_set(name): _set(found, family) for name, found in sets.items()},
        maps,
    )


def _led_to(known: Mapping[str, Chain], maps: Mapping[str, frozenset[tuple[str, str]]]) -> set[str]:
    """Return the base chains and all that they lead to."""
    used: set[str] = set()
    waiting = [*BASE_CHAINS, *(chain for pairs in maps.values() for _link, chain in pairs)]
    while waiting:
        name = waiting.pop()
        if name in used or name not in known:
            continue
        used.add(name)
        waiting += [
            str(rule.action[1])
            for rule in known[name].rules
            if rule.action is not None and rule.action[0] in ("jump", "goto")
        ]
    return used


def _set(found: IpSet, family: int) -> tuple[str, frozenset[str]]:
    kind = f"ipv{family}_addr"
    if found.type == "hash:ip,port":
        parts = (member.partition(",") for member in found.entries)
        elements = frozenset(f"{address} . {port.replace(':', ' . ')}" for address, _, port in parts)
        return f"type {kind} . inet_proto . inet_service", elements
    flags = "" if found.type == "hash:ip" else "; flags interval"
    return f"type {kind}{flags}", frozenset(found.entries)


def transaction(old: Contents | None, new: Contents, family: int) -> str:
    """Return what `nft -f` is given to get from one to the other, "" when nothing changed; None is no table of ours.

    Elements, rules and chains that stay are not touched: nobody's counters begin anew.
    """
    if old == new:
        return ""
    table = f"{'ip6' if family == 6 else 'ip'} {TABLE}"
    out = [f"add table {table}"]
    if old is None:
        out += [f"delete table {table}", f"add table {table}"]
        old = Contents({}, {}, {})
    out += [
        f"add set {table} {name} {{ {kind} ; }}"
        for name, (kind, _) in new.sets.items()
        if name not in old.sets
    ]
    out += [
        f"add map {table} {name} {{ type ifname : verdict ; }}" for name in new.maps if name not in old.maps
    ]
    for name in new.chains:
        if name not in old.chains:
            hook = BASE_CHAINS.get(name)
            out.append(f"add chain {table} {name}" + (f" {{ {hook} ; }}" if hook else ""))
    for name, (_kind, elements) in new.sets.items():
        had = old.sets.get(name, ("", frozenset()))[1]
        out += _elements("delete", table, name, had - elements) + _elements(
            "add", table, name, elements - had
        )
    for name, pairs in new.maps.items():
        before = old.maps.get(name, frozenset())
        out += _elements("delete", table, name, {f'"{link}"' for link, _ in before - pairs})
        out += _elements("add", table, name, {f'"{link}" : goto {chain}' for link, chain in pairs - before})
    for name, rules in new.chains.items():
        if old.chains.get(name) != rules:
            if old.chains.get(name):
                out.append(f"flush chain {table} {name}")
            out += [f"add rule {table} {name} {rule}" for rule in rules]
    gone = [name for name in old.chains if name not in new.chains]
    out += [f"flush chain {table} {name}" for name in gone] + [
        f"delete chain {table} {name}" for name in gone
    ]
    out += [f"delete set {table} {name}" for name in old.sets if name not in new.sets]
    return "\n".join(out) + "\n"


def _elements(verb: str, table: str, name: str, elements: Iterable[str]) -> list[str]:
    listed = ", ".join(sorted(elements))
    return [f"{verb} element {table} {name} {{ {listed} }}"] if listed else []
