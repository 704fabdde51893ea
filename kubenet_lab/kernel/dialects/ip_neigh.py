"""`ip neigh`: neighbour entries as text and JSON, both ways (iproute2 6.1, `ip/ipneigh.c` print_neigh)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kubenet_lab.errors import Fault
from kubenet_lab.kernel.dialects import iproute2
from kubenet_lab.kernel.dialects.iproute2 import Unmodelled, Words, Wrong
from kubenet_lab.kernel.neighbour import Neighbour
from kubenet_lab.kernel.netns import Netns

STATES = ("INCOMPLETE", "REACHABLE", "STALE", "DELAY", "PROBE", "FAILED", "NOARP", "PERMANENT")


def _text(entry: Neighbour, hide_dev: bool) -> str:
    words = [entry.address]
    if not hide_dev:
        words.append(f"dev {entry.dev}")
    if entry.mac:
        words.append(f"lladdr {entry.mac}")
    words.append("proxy" if entry.proxy else entry.state)
    return " ".join(words) + " "


def _row(entry: Neighbour, hide_dev: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"dst": entry.address}
    if not hide_dev:
        row["dev"] = entry.dev
    if entry.mac:
        row["lladdr"] = entry.mac
    if entry.proxy:
        row["proxy"] = None
    row["state"] = [] if entry.proxy else [entry.state]
    return row


def select(ns: Netns, *, family: int = 0, dev: str = "", proxy: bool = False) -> list[Neighbour]:
    """Return entries as the tool lists them: IPv4 first, and without NOARP ones, which it hides unless asked.

    The kernel's own order is that of a hash table with a random seed; here it is that in which they were
    made.
    """
    found = [
        n
        for n in ns.neighbours.values()
        if n.proxy == proxy and (proxy or n.state != "NOARP") and dev in ("", n.dev)
    ]
    four = [n for n in found if ":" not in n.address]
    six = [n for n in found if ":" in n.address]
    return {0: four + six, 4: four, 6: six}[family]


def show(
    ns: Netns,
    *,
    family: int = 0,
    dev: str = "",
    proxy: bool = False,
    json: bool = False,
    pretty: bool = False,
    entries: Iterable[Neighbour] | None = None,
) -> str:
    """Return `ip [-4|-6] [-j] neigh [show [proxy] [dev DEV]]`; only `entries` when they are given."""
    chosen = select(ns, family=family, dev=dev, proxy=proxy) if entries is None else list(entries)
    if json:
        return iproute2.dumps([_row(entry, bool(dev)) for entry in chosen], pretty)
    return "".join(_text(entry, bool(dev)) + "\n" for entry in chosen)


def _state(word: str) -> str:
    if word.upper() not in STATES:
        raise Wrong(f"state must be one of {', '.join(STATES)}, not {word!r}", "state")
    return word.upper()


def from_words(items: Words, *, dev: str = "", carry: Any = None) -> Neighbour:
    """Read the words of an entry, in the output's grammar or that of `ip neigh add`. Raises Wrong."""
    fields: dict[str, Any] = {"dev": dev, "address": items.address("dst"), "state": ""}
    while items:
        word = items.take("a field")
        if word == "dev":
            fields["dev"] = items.take("dev")
        elif word == "lladdr":
            fields["mac"] = iproute2.mac(items.take("lladdr"), "lladdr")
        elif word == "nud":
            fields["state"] = _state(items.take("nud"))
        elif word == "proxy":
            fields["proxy"] = True
        elif word == "proto":
            items.take("proto")
        elif word in ("router", "extern_learn", "offload", "managed", "use"):
            if carry is None:
                raise Wrong(f"not modelled: {word}", word)
            carry(word, word)
        elif word in ("ref", "probes"):
            items.take(word)
        elif word == "used":
            times = items.take("used")
            if not times.endswith("probes"):
                raise Wrong("used must be three times, as `ip -s neigh` prints them", "used")
            items.take("probes")
        else:
            fields["state"] = _state(word)
    if not fields["dev"]:
        raise Wrong("the entry names no device", "dev")
    if not fields["state"]:
        fields["state"] = "PERMANENT" if not fields.get("proxy") else "NOARP"
    return Neighbour(**fields)


_JSON_KEYS = frozenset(["dst", "dev", "lladdr", "state", "proxy", "used", "refcnt", "probes"])


def _from_json(item: dict[str, Any], notes: Unmodelled, path: str, dev: str) -> Neighbour:
    for key in item:
        if key not in _JSON_KEYS:
            notes.carry(key, 0, f"{path}.{key}")
    states = item.get("state", [])
    device = str(item.get("dev", dev))
    if not device:
        raise Wrong(
            "the entry names no device", "dev", "pass `dev` for the output of `ip neigh show dev DEV`"
        )
    proxy = "proxy" in item
    return Neighbour(
        device,
        iproute2.address(iproute2.need(item, "dst"), "dst"),
        iproute2.mac(item["lladdr"], "lladdr") if "lladdr" in item else "",
        _state(str(states[0])) if states else "NOARP",
        proxy=proxy,
    )


def parse(
    text: str, *, dev: str = "", file: str = "<text>", unknown: list[Fault] | None = None
) -> list[Neighbour]:
    """Read the output of `ip neigh` or `ip -j neigh`. `dev` is the device of a text that names none.

    Raises:
        InputError: With every fault; see `ip_route.parse` for `unknown`.
    """
    notes = Unmodelled(file, unknown)
    if iproute2.is_json(text):
        return iproute2.read_json(text, notes, lambda item, path: _from_json(item, notes, path, dev))
    out: list[Neighbour] = []
    for at, line in iproute2.lines_of(text):
        try:
            out.append(
                from_words(Words(line), dev=dev, carry=lambda what, path, at=at: notes.carry(what, at, path))
            )
        except Wrong as wrong:
            notes.fault(wrong, at)
    notes.finish()
    return out
