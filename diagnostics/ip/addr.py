"""`ip addr`: show, add, delete and flush."""

from __future__ import annotations

from typing import Any

from diagnostics.ip.common import Args, Ask, Refused, as_prefix, command, done, rows_of
from diagnostics.ip.link import select
from diagnostics.tool import NotModelled, Result
from kubenet_lab.kernel.dialects import ip_addr
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.packet.ip import family, ip_text, prefix

COMMANDS = (
    "add",
    "change",
    "replace",
    "delete",
    "show",
    "list",
    "lst",
    "flush",
    "save",
    "restore",
    "showdump",
    "help",
)


def run(ask: Ask, words: list[str]) -> Result:
    """`ip addr [COMMAND]`."""
    args = Args(words)
    verb = command(args.take(), COMMANDS, "address") if args else "show"
    if verb in ("show", "list", "lst"):
        return _show(ask, args)
    if verb in ("add", "replace", "delete"):
        return _edit(ask, args, verb)
    if verb == "flush":
        return _flush(ask, args)
    raise NotModelled(f"ip addr {verb}")


def _show(ask: Ask, args: Args) -> Result:
    named = any(word in ask.ns.links for word in args.words)
    chosen = select(ask, args)
    text = ip_addr.show(
        ask.ns,
        links=chosen,
        dump=not named,
        family=ask.family,
        json=ask.json,
        details=ask.details,
        brief=ask.brief,
        oneline=ask.oneline,
        pretty=ask.pretty,
    )
    found = [a for link in chosen for a in ask.ns.addrs(link.name) if ask.family in (0, a.family)]
    return Result(text, rows=rows_of(found))


def _edit(ask: Ask, args: Args, verb: str) -> Result:
    cidr, dev = "", ""
    fields: dict[str, Any] = {}
    while args:
        word = args.take()
        if word == "dev":
            dev = args.take("dev")
        elif word in ("broadcast", "brd"):
            fields["broadcast"] = args.take("broadcast")
        elif word == "scope":
            fields["scope"] = args.take("scope")
        elif word == "label":
            fields["label"] = args.take("label")
        elif word == "noprefixroute":
            fields["noprefixroute"] = True
        elif word in ("nodad", "optimistic"):
            # Duplicate address detection is not modelled: every address is usable at once.
            continue
        elif word in (
            "peer",
            "anycast",
            "metric",
            "valid_lft",
            "preferred_lft",
            "home",
            "mngtmpaddr",
            "autojoin",
            "proto",
        ):
            raise NotModelled(f"ip addr {verb} {word}")
        else:
            cidr = as_prefix(args.take("local") if word == "local" else word)
    if not dev:
        raise Refused('Not enough information: "dev" argument is required.\n', 1)
    if not cidr:
        raise Refused("", 255)
    ask.device(dev)
    fam = family(cidr)
    if fields.get("broadcast") in ("+", "-"):
        block = prefix(cidr)
        ones = ~block.mask & 0xFFFFFFFF
        fields["broadcast"] = ip_text(block.net | (ones if fields["broadcast"] == "+" else 0), 4)
    try:
        if verb == "delete":
            ask.ns.delete_address(dev, cidr)
        elif verb == "replace" and _present(ask, dev, cidr):
            return done()
        else:
            ask.ns.add_address(dev, cidr, **fields)
    except KernelError as error:
        kind = "ipv4: A" if fam == 4 else "ipv6: a"
        words = {"EEXIST": "ddress already assigned.", "EADDRNOTAVAIL": "ddress not found."}
        if error.errno in words:
            raise Refused(f"Error: {kind}{words[error.errno]}\n") from None
        raise
    return done()


def _present(ask: Ask, dev: str, cidr: str) -> bool:
    local, _, length = cidr.partition("/")
    return any(a.local == local and length in ("", str(a.length)) for a in ask.ns.addrs(dev))


def _flush(ask: Ask, args: Args) -> Result:
    dev = ""
    while args:
        word = args.take()
        if word in ("scope", "label", "to", "up", "dynamic", "permanent"):
            raise NotModelled(f"selector {word}")
        dev = args.take("dev") if word == "dev" else word
    if not dev:
        raise Refused("Flush requires arguments.\n", 1)
    ask.device(dev, show=True)
    for address in ask.ns.addrs(dev):
        if ask.family in (0, address.family):
            ask.ns.delete_address(dev, f"{address.local}/{address.length}")
    return done()
