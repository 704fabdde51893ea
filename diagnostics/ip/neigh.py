"""`ip neigh`: show, add, replace, delete and flush."""

from __future__ import annotations

from diagnostics.ip.common import Args, Ask, Refused, command, done, rows_of, unmodelled
from diagnostics.tool import NotModelled, Result
from kubenet_lab.kernel.dialects import ip_neigh
from kubenet_lab.kernel.dialects.iproute2 import Words, Wrong
from kubenet_lab.packet.ip import canonical

COMMANDS = ("add", "change", "replace", "delete", "get", "show", "list", "lst", "flush", "help")


def run(ask: Ask, words: list[str]) -> Result:
    """`ip neigh [COMMAND]`."""
    args = Args(words)
    verb = command(args.take(), COMMANDS, "neigh") if args else "show"
    if verb in ("show", "list", "lst", "flush"):
        return _show(ask, args, flush=verb == "flush")
    if verb in ("add", "replace", "change", "delete"):
        return _edit(ask, args, verb)
    raise NotModelled(f"ip neigh {verb}")


def _show(ask: Ask, args: Args, *, flush: bool) -> Result:
    ns = ask.ns
    dev, proxy, state, to = "", False, "", ""
    if flush and not args:
        raise Refused("Flush requires arguments.\n", 1)
    while args:
        word = args.take()
        if word == "dev":
            dev = args.take("dev")
            if dev not in ns.links:
                raise Refused(f'Cannot find device "{dev}"\n', 1)
        elif word == "proxy":
            proxy = True
        elif word == "nud":
            state = args.take("nud").upper()
        elif word in ("unused", "router", "master", "vrf", "nomaster"):
            raise NotModelled(f"selector {word}")
        else:
            to = args.take("to") if word == "to" else word
            try:
                to = canonical(to)
            except ValueError:
                raise NotModelled(f"selector {to}") from None
    if state in ("ALL", "NOARP"):
        found = [n for n in ns.neighbours.values() if dev in ("", n.dev) and state in ("ALL", n.state)]
    else:
        found = ip_neigh.select(ns, family=ask.family, dev=dev, proxy=proxy)
        found = [n for n in found if state in ("", n.state)]
    found = [n for n in found if to in ("", n.address)]
    if flush:
        for entry in found:
            if entry.state != "PERMANENT":
                ns.delete_neighbour(entry.dev, entry.address)
        return done()
    return Result(
        ip_neigh.show(ns, dev=dev, json=ask.json, pretty=ask.pretty, entries=found), rows=rows_of(found)
    )


def _edit(ask: Ask, args: Args, verb: str) -> Result:
    ns = ask.ns
    words = args.words
    try:
        if words and words[0] == "proxy":
            raise NotModelled(f"ip neigh {verb} proxy")
        entry = ip_neigh.from_words(Words(" ".join(words)))
    except Wrong as wrong:
        if wrong.path == "dev":
            raise Refused("Device and destination are required arguments.\n", 255) from None
        raise unmodelled(wrong) from None
    ask.device(entry.dev)
    if verb == "delete":
        ns.delete_neighbour(entry.dev, entry.address)
        return done()
    key = (entry.dev, entry.address)
    if verb == "add" and key in ns.neighbours:
        raise Refused("RTNETLINK answers: File exists\n")
    if verb == "change" and key not in ns.neighbours:
        raise Refused("RTNETLINK answers: No such file or directory\n")
    if not entry.mac and entry.state not in ("FAILED", "INCOMPLETE"):
        raise Refused("RTNETLINK answers: Invalid argument\n")
    ns.set_neighbour(entry.dev, entry.address, entry.mac, entry.state, ask.call.now)
    return done()
