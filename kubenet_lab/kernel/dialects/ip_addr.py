"""`ip addr`: addresses as text and JSON, both ways (iproute2 6.1, `ip/ipaddress.c` print_addrinfo)."""

from __future__ import annotations

from typing import Any

from kubenet_lab.errors import Fault
from kubenet_lab.kernel.address import Address
from kubenet_lab.kernel.dialects import ip_link, iproute2
from kubenet_lab.kernel.dialects.iproute2 import SCOPES, Unmodelled, Words, Wrong
from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.netns import Netns

FOREVER = 4294967295
FLAGS = (
    "secondary",
    "temporary",
    "nodad",
    "optimistic",
    "dadfailed",
    "home",
    "deprecated",
    "tentative",
    "permanent",
    "mngtmpaddr",
    "noprefixroute",
    "autojoin",
    "dynamic",
    "stable-privacy",
)
"""Flags of an address as they are spelled, in the order they are printed."""


def in_order(addresses: list[Address]) -> list[Address]:
    """Return a link's addresses as the kernel lists them.

    IPv4 (devinet.c, __inet_insert_ifa): primary addresses, the narrower scope first, then secondary ones.
    IPv6 (addrconf.c, ipv6_link_dev_addr): the wider scope first, the newest first within one.
    """
    four = [a for a in addresses if a.family == 4]
    six = [a for a in addresses if a.family == 6]
    newest_first = six[::-1]
    first = sorted((a for a in four if not a.secondary), key=lambda a: -SCOPES.get(a.scope, 0))
    wide = sorted(newest_first, key=lambda a: SCOPES.get(a.scope, 0))
    return [*first, *(a for a in four if a.secondary), *wide]


def flags(address: Address) -> list[str]:
    """Return the flags of an address in the order they are printed."""
    have = {*address.flags, *(["secondary"] if address.secondary else [])}
    return [flag for flag in FLAGS if flag in have] + [flag for flag in address.flags if flag not in FLAGS]


def _text(address: Address, oneline: bool) -> str:
    words = [f"{iproute2.FAMILY_NAMES[address.family]} {address.local}/{address.length}"]
    if address.broadcast:
        words.append(f"brd {address.broadcast}")
    words += [f"scope {address.scope}", *flags(address)]
    line = " ".join(words) + " " + (address.label if address.family == 4 else "")
    glue = "\\" if oneline else "\n"
    return f"{line}{glue}       valid_lft forever preferred_lft forever"


def _row(address: Address) -> dict[str, Any]:
    row: dict[str, Any] = {
        "family": iproute2.FAMILY_NAMES[address.family],
        "local": address.local,
        "prefixlen": address.length,
    }
    if address.broadcast:
        row["broadcast"] = address.broadcast
    row["scope"] = address.scope
    row |= dict.fromkeys(flags(address), True)
    if address.family == 4 and address.label:
        row["label"] = address.label
    return row | {"valid_life_time": FOREVER, "preferred_life_time": FOREVER}


def show(
    ns: Netns,
    *,
    links: list[Link] | None = None,
    dump: bool = True,
    family: int = 0,
    json: bool = False,
    details: bool = False,
    brief: bool = False,
    oneline: bool = False,
    pretty: bool = False,
) -> str:
    """Return `ip [-4|-6] [-j] [-d] [-br] [-o] addr` of a namespace. `family` 0 shows both.

    With a family, links without an address of it are left out, as the tool does. `dump` is False where one
    link was asked for by name: of a dump for IPv6 alone the kernel tells less about each link. The other
    arguments are those of `ip_link.show`.
    """
    chosen = sorted(ns.links.values() if links is None else links, key=lambda one: one.index)
    rows: list[dict[str, Any]] = []
    out: list[str] = []
    for link in chosen:
        found = [a for a in in_order(ns.addrs(link.name)) if family in (0, a.family)]
        if family and not found:
            continue
        name = ip_link.display_name(ns, link)
        if json:
            row = ip_link.head(ns, link, mode=False)
            if dump and family == 6:
                row = {key: value for key, value in row.items() if key not in ("qdisc", "group", "master")}
            if brief:
                row = {key: row[key] for key in ("link", "link_index", "ifname", "operstate") if key in row}
                row["addr_info"] = [_brief_row(a) for a in found]
                rows.append(row)
                continue
            if not family:
                row |= ip_link.hardware(ns, link)
                if details:
                    row |= ip_link.details(ns, link, addrgen=False)
            rows.append(row | {"addr_info": [_row(a) for a in found]})
        elif brief:
            state = ip_link.operstate(ns, link)
            cidrs = "".join(f"{a.local}/{a.length} " for a in found)
            out.append(f"{name:<16} {state:<14} {cidrs}")
        elif oneline:
            out += [f"{link.index}: {link.name}    {_text(a, True)}" for a in found]
        else:
            out.append(ip_link.head_text(ns, link, mode=False, bare=dump and family == 6))
            if not family:
                lines = [ip_link.hardware_text(ns, link)]
                if details:
                    extra = ip_link.details_text(ns, link, addrgen=False)
                    lines[0] += extra[0]
                    lines += extra[1:]
                out += lines
            out += [f"    {_text(a, False)}" for a in found]
    return iproute2.dumps(rows, pretty) if json else "".join(line + "\n" for line in out)


def _brief_row(address: Address) -> dict[str, Any]:
    return {"local": address.local, "prefixlen": address.length}


def _from_words(items: Words, dev: str, notes: Unmodelled, at: int) -> Address:
    name = items.take("inet or inet6")
    local, _, length = items.take("an address").partition("/")
    local = iproute2.address(local, "local")
    if (":" in local) != (name == "inet6"):
        raise Wrong(f"{local} is not an {name} address", "local")
    fields: dict[str, Any] = {
        "dev": dev,
        "local": local,
        "length": iproute2.number(length or (128 if ":" in local else 32), "prefixlen"),
    }
    _check_length(fields["length"], local)
    have: list[str] = []
    while items:
        word = items.take("a field")
        if word == "peer":
            notes.carry(f"peer {items.take('peer')}", at, "peer")
        elif word == "brd":
            fields["broadcast"] = items.address("brd")
        elif word == "scope":
            fields["scope"] = _scope(items.take("scope"))
        elif word == "secondary":
            fields["secondary"] = True
        elif word in FLAGS:
            have.append(word)
        elif word in ("metric", "proto"):
            notes.carry(f"{word} {items.take(word)}", at, word)
        elif not items and name == "inet":
            fields["label"] = word
        else:
            raise Wrong(f"unknown word {word!r}", word)
    return Address(flags=tuple(have), **fields)


def _scope(word: str) -> str:
    if word not in SCOPES and not word.isdigit():
        raise Wrong(f"scope must be one of {', '.join(SCOPES)} or a number, not {word!r}", "scope")
    return word


def _check_length(length: int, local: str) -> None:
    most = 128 if ":" in local else 32
    if not 0 <= length <= most:
        raise Wrong(f"prefixlen must be from 0 to {most}, not {length}", "prefixlen")


_JSON_KEYS = frozenset(
    [
        "family",
        "local",
        "prefixlen",
        "broadcast",
        "scope",
        "label",
        "valid_life_time",
        "preferred_life_time",
        "secondary",
    ]
)


def _from_json(item: dict[str, Any], dev: str, notes: Unmodelled, path: str) -> Address:
    local = iproute2.address(iproute2.need(item, "local"), "local")
    length = iproute2.number(iproute2.need(item, "prefixlen"), "prefixlen")
    _check_length(length, local)
    for key in item:
        if key not in _JSON_KEYS and key not in FLAGS:
            notes.carry(key, 0, f"{path}.{key}")
    return Address(
        dev,
        local,
        length,
        _scope(str(item.get("scope", "global"))),
        str(item.get("broadcast", "")),
        str(item.get("label", "")),
        bool(item.get("secondary", False)),
        tuple(flag for flag in FLAGS if flag in item and flag != "secondary"),
    )


def parse(text: str, *, file: str = "<text>", unknown: list[Fault] | None = None) -> list[Address]:
    """Read the output of `ip [-o] addr` or `ip -j addr` into addresses, in the text's order.

    The links of the same text are read by `ip_link.parse`.

    Raises:
        InputError: With every fault; see `ip_link.parse` for `unknown`.
    """
    notes = Unmodelled(file, unknown)
    if iproute2.is_json(text):

        def row(item: dict[str, Any], path: str) -> list[Address]:
            dev = str(iproute2.need(item, "ifname"))
            out: list[Address] = []
            for at, info in enumerate(item.get("addr_info", [])):
                where = f"{path}.addr_info[{at}]"
                try:
                    out.append(_from_json(info, dev, notes, where))
                except Wrong as wrong:
                    notes.fault(wrong, 0, where)
            return out

        return [address for group in iproute2.read_json(text, notes, row) for address in group]
    out: list[Address] = []
    dev = ""
    for at, line in iproute2.lines_of(text):
        try:
            parts = line.split("\\", 1)[0].split()
            if line[0] not in " \t":
                if len(parts) < 2 or not parts[0].rstrip(":").isdigit():
                    raise Wrong(
                        'a link begins with its number: "2: eth0: <BROADCAST,UP> mtu 1500 ..."', "link"
                    )
                dev = parts[1].rstrip(":").split("@")[0]
                if len(parts) > 2 and parts[2] in ("inet", "inet6"):
                    out.append(_from_words(Words(" ".join(parts[2:])), dev, notes, at))
            elif parts[0] in ("inet", "inet6"):
                if not dev:
                    raise Wrong("this line belongs to a link, and no link comes before it", parts[0])
                out.append(_from_words(Words(" ".join(parts)), dev, notes, at))
        except Wrong as wrong:
            notes.fault(wrong, at)
    notes.finish()
    return out
