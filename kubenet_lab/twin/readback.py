"""What the kernel says its state is, read with the real tools, and where that is not what the model says."""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import unified_diff
from typing import TYPE_CHECKING

from msgspec import Struct

from kubenet_lab.errors import Fault
from kubenet_lab.kernel.address import Address
from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.conntrack import Flow
from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.neighbour import Neighbour
from kubenet_lab.kernel.netfilter import Ruleset
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.nftables.ruleset import Ruleset as NftRuleset
from kubenet_lab.kernel.route import TABLE_LOCAL, Route, RouteRule

if TYPE_CHECKING:
    from kubenet_lab.kernel.ipset import IpSet
    from kubenet_lab.twin.twin import Twin

COMMANDS: dict[str, tuple[str, ...]] = {
    "links": ("ip", "-j", "-d", "link"),
    "addresses": ("ip", "-j", "address"),
    "routes4": ("ip", "-4", "-j", "-d", "route", "show", "table", "all"),
    "routes6": ("ip", "-6", "-j", "-d", "route", "show", "table", "all"),
    "rules4": ("ip", "-4", "-j", "rule"),
    "rules6": ("ip", "-6", "-j", "rule"),
    "neighbours": ("ip", "-j", "neighbour"),
    "fdb": ("bridge", "-j", "fdb"),
    "iptables": ("iptables-save",),
    "ip6tables": ("ip6tables-save",),
    "nftables": ("nft", "-j", "list", "ruleset"),
    "ipsets": ("ipset", "save"),
    "conntrack": ("conntrack", "-L"),
}
"""What is asked of each namespace."""


class State(Struct):
    """A namespace of the real kernel as the model's values. `unread` names what they have no place for."""

    netns: str
    links: list[Link]
    addresses: list[Address]
    routes: list[Route]
    rules: dict[int, list[RouteRule]]
    neighbours: list[Neighbour]
    fdb: list[FdbEntry]
    iptables: dict[int, Ruleset]
    nftables: NftRuleset
    """Without the tables that iptables-nft keeps: those are `iptables`."""
    ipsets: dict[str, IpSet]
    conntrack: list[Flow]
    unread: list[Fault]


def read(twin: Twin, names: Iterable[str]) -> list[State]:
    """Ask the tools about some namespaces. Raises InputError when a text cannot be read."""
    from kubenet_lab.kernel.dialects import (
        bridge_fdb,
        conntrack,
        ip_addr,
        ip_link,
        ip_neigh,
        ip_route,
        ip_rule,
        ipset,
        iptables,
        nft,
    )

    wanted = list(names)
    done = iter(twin.exec([(ns, argv, "") for ns in wanted for argv in COMMANDS.values()]))
    out = []
    for ns in wanted:
        text = {name: next(done).stdout for name in COMMANDS}
        notes: list[Fault] = []
        routes = [
            *ip_route.parse(text["routes4"], family=4, unknown=notes),
            *ip_route.parse(text["routes6"], family=6, unknown=notes),
        ]
        rules = {fam: ip_rule.parse(text[f"rules{fam}"], family=fam, unknown=notes) for fam in (4, 6)}
        out.append(
            State(
                ns,
                ip_link.parse(text["links"], netns=ns, unknown=notes),
                ip_addr.parse(text["addresses"], unknown=notes),
                routes,
                rules,
                ip_neigh.parse(text["neighbours"], unknown=notes),
                bridge_fdb.parse(text["fdb"], unknown=notes),
                {4: iptables.load(text["iptables"], 4), 6: iptables.load(text["ip6tables"], 6)},
                nft.load_json(native(text["nftables"]), file="nft -j list ruleset"),
                ipset.load(text["ipsets"]),
                conntrack.parse(text["conntrack"], unknown=notes),
                notes,
            )
        )
    return out


def native(document: str) -> str:
    """Return what `nft -j list ruleset` printed without iptables-nft's tables, whose rules JSON leaves half out."""
    from kubenet_lab.twin.plan import is_xtables

    def kept(member: dict[str, dict[str, str]]) -> bool:
        ((kind, fields),) = member.items()
        return not is_xtables(
            fields.get("family", ""), fields.get("name" if kind == "table" else "table", "")
        )

    members = json.loads(document or '{"nftables": []}')["nftables"]
    return json.dumps({"nftables": [member for member in members if kept(member)]})


def still(document: str) -> str:
    """Return what `nft -j list ruleset` printed without the elements that packets add and time takes away.

    The flag `dynamic` is not in nft's JSON, `timeout` is.
    """
    members = json.loads(document)["nftables"]
    for member in members:
        ((kind, fields),) = member.items()
        if kind in ("set", "map") and {"dynamic", "timeout"}.intersection(fields.get("flags", ())):
            fields.pop("elem", None)
    return json.dumps({"nftables": members})


def differences(model: Netns, kernel: State) -> list[str]:
    """Say, one a line, what the twin's kernel has otherwise than the model; what moves with packets is left out."""
    from kubenet_lab.kernel.dialects.bridge_fdb import is_derived
    from kubenet_lab.kernel.dialects.iptables import save
    from kubenet_lab.kernel.dialects.nft import list_ruleset, load_json, to_json

    pairs: list[tuple[str, set[str], set[str]]] = [
        ("link", {_link(x) for x in model.links.values()}, {_link(x) for x in kernel.links}),
        ("address", {_address(a) for a in model.addrs()}, {_address(a) for a in kernel.addresses}),
        (
            "route",
            {_route(r) for table in model.routes.values() for r in table.values() if _comparable(r)},
            {_route(r) for r in kernel.routes if _comparable(r)},
        ),
        (
            "rule",
            {str(r) for fam in (4, 6) for r in model.rules[fam]},
            {str(r) for f in (4, 6) for r in kernel.rules[f]},
        ),
        (
            "neighbour",
            {str(n) for n in model.neighbours.values() if n.state == "PERMANENT"},
            {str(n) for n in kernel.neighbours if n.state == "PERMANENT"},
        ),
        (
            "FDB entry",
            {str(e) for group in model.fdb.values() for e in group if e.state and not model.by_mac(e.mac)},
            {str(e) for e in kernel.fdb if e.state and not is_derived(e) and not model.by_mac(e.mac)},
        ),
        ("set", {_set(s) for s in model.ipsets.values()}, {_set(s) for s in kernel.ipsets.values()}),
    ]
    out = []
    for what, ours, theirs in pairs:
        out += [f"{kernel.netns}: {what} in the model only: {text}" for text in sorted(ours - theirs)]
        out += [f"{kernel.netns}: {what} in the kernel only: {text}" for text in sorted(theirs - ours)]
    texts = [(f"IPv{fam}", save(model.iptables[fam]), save(kernel.iptables[fam])) for fam in (4, 6)]
    # nft's JSON leaves comments of tables and chains out: the model's tables go through it, too.
    ours_nft, theirs_nft = (
        list_ruleset(load_json(still(to_json(side))), stateless=True)
        for side in (model.nftables, kernel.nftables)
    )
    texts.append(("nftables", ours_nft, theirs_nft))
    for what, ours_text, theirs_text in texts:
        changed = unified_diff(
            ours_text.splitlines(), theirs_text.splitlines(), "model", "kernel", lineterm="", n=0
        )
        out += [f"{kernel.netns}: {what} rules: {line}" for line in changed]
    return out


def _link(link: Link) -> str:
    kind = "veth" if link.kind == "physical" else link.kind
    words = [f"{link.index}: {link.name} {kind} {link.mac} mtu {link.mtu}", "up" if link.up else "down"]
    words += [f"master {link.master}"] if link.master else []
    if link.port is not None:
        words.append(
            f"hairpin {link.port.hairpin} learning {link.port.learning} isolated {link.port.isolated}"
        )
    if link.vxlan is not None:
        v = link.vxlan
        words.append(f"vni {v.vni} local {v.local} dev {v.link} port {v.port} learning {v.learning}")
    if link.vlan is not None:
        words.append(f"tag {link.vlan.id}")
    if link.macvlan is not None:
        words.append(f"mode {link.macvlan.mode}")
    if link.ipvlan is not None:
        words.append(f"mode {link.ipvlan.mode} {link.ipvlan.flag}")
    return " ".join(words)


def _address(a: Address) -> str:
    return f"{a.local}/{a.length} dev {a.dev} scope {a.scope}"


def _comparable(route: Route) -> bool:
    """True for what both keep alike: IPv6's own multicast and anycast routes are the kernel's affair."""
    return route.family == 4 or (route.table != TABLE_LOCAL and route.type not in ("multicast", "anycast"))


def _route(route: Route) -> str:
    return f"{route} table {route.table} proto {route.proto}"


def _set(made: IpSet) -> str:
    return f"{made.name} {made.type} {made.family} {sorted(made.entries)}"
