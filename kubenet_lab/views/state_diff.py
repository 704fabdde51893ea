"""What an action changed: two states, or two texts, side by side as commands and as tables.

Each change carries a sign and the word for it ("added", "removed", "changed"), so that it reads without colours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from html import escape
from typing import Any

import msgspec
from msgspec import Struct

from kubenet_lab.kernel.address import Address
from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.conntrack import Flow
from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.neighbour import Neighbour
from kubenet_lab.kernel.route import Route, RouteRule
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet.packet import proto_name

ADDED, REMOVED, CHANGED = "added", "removed", "changed"
SIGNS = {ADDED: "+", REMOVED: "-", CHANGED: "~"}


class Change(Struct, frozen=True):
    """One thing that differs.

    Attributes:
        word: added, removed or changed.
        where: Network namespace, or a text's name.
        kind: link, address, route, routing rule, neighbour, fdb entry, sysctl, socket, connection, rule, chain...
        what: The thing as it is now (as it was, when removed), in its tool's words.
        was: As it was before, for what changed.
        command: The command that makes this change; "" where none does.
    """

    word: str
    where: str
    kind: str
    what: str
    was: str = ""
    command: str = ""

    def __str__(self) -> str:
        was = f" (was: {self.was})" if self.was else ""
        return f"{SIGNS[self.word]} {self.word} {self.kind} in {self.where}: {self.what}{was}"


def _ip(family: int) -> str:
    return "ip -6" if family == 6 else "ip"


def _route_text(route: Route) -> str:
    return str(route)


def _link_text(link: Link) -> str:
    words = [link.name, link.kind, f"mtu {link.mtu}", "up" if link.up else "down"]
    if not link.carrier:
        words.append("no carrier")
    if link.master:
        words.append(f"master {link.master}")
    if link.peer is not None:
        words.append(f"peer {link.peer.link} in {link.peer.netns}")
    if link.port is not None and link.port.hairpin:
        words.append("hairpin on")
    if link.vxlan is not None:
        words.append(f"vxlan id {link.vxlan.vni} local {link.vxlan.local} dstport {link.vxlan.port}")
    return " ".join(words)


def _link_command(word: str, link: Link, old: Link | None) -> str:
    if word == REMOVED:
        return f"ip link del {link.name}"
    if word == ADDED:
        peer = f" peer name {link.peer.link} netns {link.peer.netns}" if link.peer is not None else ""
        return f"ip link add {link.name} type {link.kind}{peer}"
    parts = []
    if old is not None:
        if old.mtu != link.mtu:
            parts.append(f"mtu {link.mtu}")
        if old.master != link.master:
            parts.append(f"master {link.master}" if link.master else "nomaster")
        if old.mac != link.mac:
            parts.append(f"address {link.mac}")
        if old.up != link.up:
            parts.append("up" if link.up else "down")
    commands = [f"ip link set {link.name} {' '.join(parts)}"] if parts else []
    hairpin, had = (one.port is not None and one.port.hairpin for one in (link, old or link))
    if hairpin != (had and old is not None):
        commands.append(f"bridge link set dev {link.name} hairpin {'on' if hairpin else 'off'}")
    return "; ".join(commands)


def _route_command(word: str, route: Route, old: Route | None) -> str:
    verb = {ADDED: "add", REMOVED: "del", CHANGED: "replace"}[word]
    return "" if route.table == 255 else f"{_ip(route.family)} route {verb} {route}"


def _address_command(word: str, address: Address, old: Address | None) -> str:
    return f"ip addr {'del' if word == REMOVED else 'add'} {address.local}/{address.length} dev {address.dev}"


def _neighbour_command(word: str, entry: Neighbour, old: Neighbour | None) -> str:
    if word == REMOVED:
        return f"ip neigh del {entry.address} dev {entry.dev}"
    mac = f" lladdr {entry.mac}" if entry.mac else ""
    return f"ip neigh replace {entry.address}{mac} dev {entry.dev} nud {entry.state.lower()}"


def _fdb_command(word: str, entry: FdbEntry, old: FdbEntry | None) -> str:
    dst = f" dst {entry.dst}" if entry.dst else ""
    tail = f" {entry.state}" if entry.state and word != REMOVED else ""
    side = " master" if entry.master else " self"
    return f"bridge fdb {'del' if word == REMOVED else 'append'} {entry.mac} dev {entry.dev}{dst}{side}{tail}"


def _socket_text(socket: Socket) -> str:
    return f"{proto_name(socket.proto)} {socket}" + (
        " (its accept queue is full)" if socket.backlog_full else ""
    )


def _none(word: str, value: Any, old: Any) -> str:
    return ""


def _flow_command(word: str, flow: Flow, old: Flow | None) -> str:
    if word != REMOVED:
        return ""
    return f"conntrack -D -p {proto_name(flow.orig[0])} -s {flow.orig[1]} -d {flow.orig[2]}"


class _Kind(Struct, frozen=True):
    """How one member of a namespace's document is compared: by `same`, shown by `text`, made by `command`."""

    member: str
    name: str
    type: Any
    same: Callable[[Any], Any]
    text: Callable[[Any], str]
    command: Callable[[str, Any, Any], str]


_KINDS = (
    _Kind("links", "link", Link, lambda v: v.name, _link_text, _link_command),
    _Kind("addresses", "address", Address, lambda v: (v.dev, v.local, v.length), str, _address_command),
    _Kind("rules", "routing rule", RouteRule, lambda v: str(v), str, _none),
    _Kind(
        "routes", "route", Route, lambda v: (v.dst, v.metric, v.table, v.family), _route_text, _route_command
    ),
    _Kind("neighbours", "neighbour", Neighbour, lambda v: (v.dev, v.address), str, _neighbour_command),
    _Kind("fdb", "fdb entry", FdbEntry, lambda v: (v.dev, v.mac, v.dst, v.master), str, _fdb_command),
    _Kind("sockets", "socket", Socket, lambda v: (v.proto, v.address, v.port), _socket_text, _none),
    _Kind("conntrack", "connection", Flow, lambda v: (v.orig, v.reply), str, _flow_command),
)


def _values(document: Mapping[str, Any], kind: _Kind) -> dict[Any, Any]:
    found = (msgspec.convert(item, kind.type) for item in document.get(kind.member, ()))
    return {kind.same(value): value for value in found}


def _typed(where: str, before: Mapping[str, Any], after: Mapping[str, Any], kind: _Kind) -> Iterator[Change]:
    if before.get(kind.member) == after.get(kind.member):
        return
    old, new = _values(before, kind), _values(after, kind)
    for same, value in old.items():
        if same not in new:
            yield Change(REMOVED, where, kind.name, kind.text(value), "", kind.command(REMOVED, value, None))
    for same, value in new.items():
        if same not in old:
            yield Change(ADDED, where, kind.name, kind.text(value), "", kind.command(ADDED, value, None))
        elif kind.text(value) != kind.text(old[same]):
            was = kind.text(old[same])
            yield Change(
                CHANGED, where, kind.name, kind.text(value), was, kind.command(CHANGED, value, old[same])
            )


def _rule_lines(lines: Sequence[str]) -> dict[str, list[str]]:
    """Return the lines of each table of an `iptables-save` text, counters and comments left out."""
    out: dict[str, list[str]] = {}
    table = ""
    for line in lines:
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            out.setdefault(table, []).append(line.partition(" [")[0])
        elif line.startswith("["):
            out.setdefault(table, []).append(line.partition("] ")[2])
        elif line.startswith("-"):
            out.setdefault(table, []).append(line)
    return out


def _rules(where: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for fam, tool in (("4", "iptables"), ("6", "ip6tables")):
        old_text, new_text = before.get("iptables", {}).get(fam, []), after.get("iptables", {}).get(fam, [])
        if old_text == new_text:
            continue
        old, new = _rule_lines(old_text), _rule_lines(new_text)
        for table in sorted({*old, *new}):
            for word, line in line_changes(old.get(table, []), new.get(table, [])):
                yield _rule_change(word, line, where, table, tool)


def _rule_change(word: str, line: str, where: str, table: str, tool: str) -> Change:
    if line.startswith(":"):
        chain, _, policy = line[1:].partition(" ")
        builtin = policy not in ("-", "")
        verb = f"-P {chain} {policy}" if builtin else f"-{'X' if word == REMOVED else 'N'} {chain}"
        command = "" if builtin and word == REMOVED else f"{tool} -t {table} {verb}"
        what = f"{chain} policy {policy}" if builtin else chain
        return Change(word, where, f"{tool} chain", f"{table} {what}", "", command)
    body = line.partition(" ")[2]
    return Change(
        word,
        where,
        f"{tool} rule",
        f"{table}: {line}",
        "",
        f"{tool} -t {table} -{'D' if word == REMOVED else 'A'} {body}",
    )


def line_changes(before: Sequence[str], after: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (removed or added, line) for what differs between two lists of lines, order counted."""
    if Counter(before) == Counter(after) and list(before) == list(after):
        return
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for tag, a1, a2, b1, b2 in matcher.get_opcodes():
        if tag != "equal":
            yield from ((REMOVED, line) for line in before[a1:a2])
            yield from ((ADDED, line) for line in after[b1:b2])


_TEXTS = (("sysctls", "sysctl"), ("files", "file"))


def _pairs(where: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Change]:
    for member, kind in _TEXTS:
        old, new = before.get(member, {}), after.get(member, {})
        for name in sorted({*old, *new}):
            if old.get(name) == new.get(name):
                continue
            if kind == "file":
                for word, line in line_changes(
                    old.get(name, "").splitlines(), new.get(name, "").splitlines()
                ):
                    yield Change(word, where, f"line of {name}", line)
                continue
            word = ADDED if name not in old else REMOVED if name not in new else CHANGED
            value = new.get(name, old.get(name))
            command = f"sysctl -w {name}={value}" if word != REMOVED else ""
            yield Change(
                word,
                where,
                kind,
                f"{name} = {value}",
                f"{name} = {old[name]}" if word == CHANGED else "",
                command,
            )


def _namespaces(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {ns["name"]: ns for ns in document.get("namespaces", ())}


def state_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Return what differs between two dumps of a network (`kubenet_lab.kernel.dump.dump`), namespace by namespace.

    Counters and time stamps are left out. Raises msgspec.ValidationError for what is not such a dump.
    """
    old, new = _namespaces(before), _namespaces(after)
    out: list[Change] = []
    for name in old:
        if name not in new:
            out.append(Change(REMOVED, name, "network namespace", name, "", f"ip netns del {name}"))
    for name, document in new.items():
        earlier = old.get(name, {})
        if name not in old:
            out.append(Change(ADDED, name, "network namespace", name, "", f"ip netns add {name}"))
        if earlier == document:
            continue
        for kind in _KINDS:
            out += _typed(name, earlier, document, kind)
        out += _pairs(name, earlier, document)
        out += _rules(name, earlier, document)
        for word, line in line_changes(earlier.get("ipsets", []), document.get("ipsets", [])):
            out.append(Change(word, name, "ipset line", line))
    old_wires = {wire["name"]: wire for wire in before.get("wires", ())}
    new_wires = {wire["name"]: wire for wire in after.get("wires", ())}
    for name in sorted({*old_wires, *new_wires}):
        if old_wires.get(name) != new_wires.get(name):
            word = ADDED if name not in old_wires else REMOVED if name not in new_wires else CHANGED
            out.append(
                Change(
                    word,
                    "the underlay",
                    "wire",
                    _wire(new_wires.get(name) or old_wires[name]),
                    _wire(old_wires[name]) if word == CHANGED else "",
                )
            )
    return out


def _wire(wire: Mapping[str, Any]) -> str:
    ports = ", ".join(f"{ns} {link}" for ns, link in wire.get("ports", ()))
    return f"{wire['name']}{'' if wire.get('up', True) else ' (down)'} with {ports or 'no ports'}"


def text_changes(before: str, after: str, name: str = "text") -> list[Change]:
    """Return what differs between two texts, line by line."""
    return [
        Change(word, name, "line", line)
        for word, line in line_changes(before.splitlines(), after.splitlines())
    ]


def changes(before: Mapping[str, Any] | str, after: Mapping[str, Any] | str) -> list[Change]:
    """Return what differs between two dumps or between two texts."""
    if isinstance(before, str) and isinstance(after, str):
        return text_changes(before, after)
    if isinstance(before, str) or isinstance(after, str):
        raise TypeError("compare two dumps or two texts, not one of each")
    return state_changes(before, after)


def state_diff_text(found: Sequence[Change]) -> str:
    """Return changes as lines of text, with the commands that make them."""
    if not found:
        return "nothing changed"
    return "\n".join(
        line
        for change in found
        for line in (str(change), *([f"    # {change.command}"] if change.command else []))
    )


_MARK = {
    ADDED: "border-left:4px solid #009e73;padding-left:6px",
    REMOVED: "border-left:4px dashed #d55e00;padding-left:6px",
    CHANGED: "border-left:4px dotted #0072b2;padding-left:6px",
}
_CELL = "text-align:left;vertical-align:top;padding:3px 8px;white-space:normal"


def state_diff_html(found: Sequence[Change]) -> str:
    """Return changes as HTML that stands alone: a table by namespace, and the same as commands."""
    if not found:
        return "<p>Nothing changed.</p>"
    counts = Counter(change.word for change in found)
    summary = ", ".join(f"{counts[word]} {word}" for word in SIGNS if counts[word])
    lines = []
    where = ""
    for change in found:
        if change.where != where:
            where = change.where
            lines.append(f'<tr><th colspan="3" style="{_CELL}">{escape(where)}</th></tr>')
        was = f"<br/>was <code>{escape(change.was)}</code>" if change.was else ""
        sign = f'<span style="{_MARK[change.word]}"><b>{SIGNS[change.word]}</b> {change.word}</span>'
        lines.append(
            f'<tr><td style="{_CELL}">{sign}</td>'
            f'<td style="{_CELL}">{escape(change.kind)}</td>'
            f'<td style="{_CELL}"><code>{escape(change.what)}</code>{was}</td></tr>'
        )
    commands = []
    where = ""
    for change in found:
        if not change.command:
            continue
        if change.where != where:
            where = change.where
            commands.append(f"# in {where}")
        commands.append(change.command)
    shell = (
        f"<details><summary>the same as commands</summary><pre>{escape(chr(10).join(commands))}</pre></details>"
        if commands
        else ""
    )
    table = f"<table><tbody>{''.join(lines)}</tbody></table>"
    return f'<div class="kubenet-diff"><p><b>{summary}</b></p>{table}{shell}</div>'
