"""`bridge fdb` and `bridge link`: forwarding entries and ports as text and JSON, both ways.

Text form of iproute2 6.1, `bridge/fdb.c` print_fdb and `bridge/link.c` print_linkinfo. Besides the entries in
state, the tool lists the multicast addresses each device listens to; `show` derives these from the addresses.
"""

from __future__ import annotations

from typing import Any

from kubenet_lab.errors import Fault
from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.dialects import ip_link, iproute2
from kubenet_lab.kernel.dialects.iproute2 import Unmodelled, Words, Wrong
from kubenet_lab.kernel.link import BridgePort, Link
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.ip import ip_int


def multicast(ns: Netns, link: Link) -> list[str]:
    """Return the multicast MACs a device listens to, in the kernel's order."""
    # All nodes of IPv6 is joined even where disable_ipv6 is set.
    out = ["33:33:00:00:00:01"]
    if link.up:
        if link.kind == "bridge":
            out += ["01:00:5e:00:00:6a", "33:33:00:00:00:6a"]
        out.append("01:00:5e:00:00:01")
        for address in ns.addrs(link.name, 6):
            low = ip_int(address.local) & 0xFFFFFF
            solicited = f"33:33:ff:{low >> 16:02x}:{low >> 8 & 255:02x}:{low & 255:02x}"
            if solicited not in out:
                out.append(solicited)
        # What the devices on it listen to, it has to hear for them (`dev_mc_sync`).
        for home, upper in ns.network.uppers(ns.name, link.name) if ns.network is not None else ():
            out += [mac for mac in multicast(home, upper) if upper.up and mac not in out]
    return out


def entries(ns: Netns, *, derived: bool = True) -> list[FdbEntry]:
    """Return every entry, grouped by device in the order of their index, as the tool lists them."""
    held = [entry for group in ns.fdb.values() for entry in group]
    out: list[FdbEntry] = []
    for link in sorted(ns.links.values(), key=lambda one: one.index):
        mine = [entry for entry in held if entry.dev == link.name]
        listens: list[FdbEntry] = []
        if derived and link.kind not in ("loopback", "vxlan"):
            listens = [FdbEntry(link.name, mac, state="permanent") for mac in multicast(ns, link)]
        out += listens + mine if link.kind == "bridge" else mine + listens
    return out


def _text(entry: FdbEntry, hide_dev: bool) -> str:
    words = [entry.mac]
    if not hide_dev:
        words.append(f"dev {entry.dev}")
    if entry.dst:
        words.append(f"dst {entry.dst}")
    if entry.vlan:
        words.append(f"vlan {entry.vlan}")
    if entry.port:
        words.append(f"port {entry.port}")
    if entry.vni:
        words.append(f"vni {entry.vni}")
    words.append(f"master {entry.master}" if entry.master else "self")
    return " ".join(words) + f" {entry.state}"


def _row(entry: FdbEntry, hide_dev: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"mac": entry.mac}
    if not hide_dev:
        row["ifname"] = entry.dev
    if entry.dst:
        row["dst"] = entry.dst
    if entry.vlan:
        row["vlan"] = entry.vlan
    if entry.port:
        row["port"] = entry.port
    if entry.vni:
        row["vni"] = entry.vni
    row["flags"] = [] if entry.master else ["self"]
    if entry.master:
        row["master"] = entry.master
    row["state"] = entry.state
    return row


def show(
    ns: Netns,
    *,
    dev: str = "",
    bridge: str = "",
    derived: bool = True,
    json: bool = False,
    pretty: bool = False,
) -> str:
    """Return `bridge [-j] fdb show [br BRIDGE] [dev DEV]`.

    With `dev` the device is not named on each line.
    """
    chosen = [e for e in entries(ns, derived=derived) if dev in ("", e.dev)]
    if bridge:
        ports = {bridge, *(port.name for port in ns.ports(bridge))}
        chosen = [e for e in chosen if e.dev in ports]
    if json:
        return iproute2.dumps([_row(entry, bool(dev)) for entry in chosen], pretty)
    return "".join(_text(entry, bool(dev)) + "\n" for entry in chosen)


def from_words(items: Words, *, dev: str = "", carry: Any = None) -> FdbEntry:
    """Read the words of an entry, in the output's grammar or that of `bridge fdb add`. Raises Wrong."""
    fields: dict[str, Any] = {"dev": dev, "mac": iproute2.mac(items.take("mac"), "mac")}
    while items:
        word = items.take("a field")
        if word == "dev":
            fields["dev"] = items.take("dev")
        elif word == "dst":
            fields["dst"] = items.address("dst")
        elif word == "master":
            following = items.peek()
            fields["master"] = (
                items.take("master")
                if following not in ("", "static", "permanent", "dynamic", "temp", "local")
                else ""
            )
            fields["_master"] = True
        elif word in ("vlan", "port", "vni"):
            fields[word] = items.number(word)
        elif word in ("permanent", "static"):
            fields["state"] = word
        elif word == "local":
            fields["state"] = "permanent"
        elif word in ("self", "dynamic", "temp"):
            if word != "self":
                fields["state"] = ""
        else:
            value = f"{word} {items.take(word)}" if word in ("via", "src_vni", "nhid", "used") else word
            if word not in (
                "via",
                "src_vni",
                "nhid",
                "used",
                "offload",
                "extern_learn",
                "sticky",
                "router",
                "stale",
                "locked",
            ):
                raise Wrong(f"unknown word {word!r}", word)
            if carry is None:
                raise Wrong(f"not modelled: {value}", word)
            carry(value, word)
    if not fields["dev"]:
        raise Wrong(
            "the entry names no device", "dev", "pass `dev` for the output of `bridge fdb show dev DEV`"
        )
    fields.pop("_master", None)
    return FdbEntry(**fields)


_JSON_KEYS = frozenset(
    ["mac", "ifname", "dst", "vlan", "port", "vni", "flags", "master", "state", "used", "updated"]
)


def _from_json(item: dict[str, Any], notes: Unmodelled, path: str, dev: str) -> FdbEntry:
    for key in item:
        if key not in _JSON_KEYS:
            notes.carry(key, 0, f"{path}.{key}")
    for flag in item.get("flags", []):
        if flag not in ("self", "master"):
            notes.carry(f"flag {flag}", 0, f"{path}.flags")
    device = str(item.get("ifname", dev))
    if not device:
        raise Wrong(
            "the entry names no device", "ifname", "pass `dev` for the output of `bridge fdb show dev DEV`"
        )
    return FdbEntry(
        device,
        iproute2.mac(iproute2.need(item, "mac"), "mac"),
        iproute2.address(item["dst"], "dst") if "dst" in item else "",
        str(item.get("master", "")),
        iproute2.number(item.get("vlan", 0), "vlan"),
        str(item.get("state", "")),
        vni=iproute2.number(item.get("vni", 0), "vni"),
        port=iproute2.number(item.get("port", 0), "port"),
    )


def parse(
    text: str, *, dev: str = "", file: str = "<text>", unknown: list[Fault] | None = None
) -> list[FdbEntry]:
    """Read the output of `bridge fdb` or `bridge -j fdb`. `dev` is the device of a text that names none.

    Multicast addresses are read like the others; `is_derived` tells them.

    Raises:
        InputError: With every fault; see `ip_route.parse` for `unknown`.
    """
    notes = Unmodelled(file, unknown)
    if iproute2.is_json(text):
        return iproute2.read_json(text, notes, lambda item, path: _from_json(item, notes, path, dev))
    out: list[FdbEntry] = []
    for at, line in iproute2.lines_of(text):
        try:
            out.append(
                from_words(Words(line), dev=dev, carry=lambda what, path, at=at: notes.carry(what, at, path))
            )
        except Wrong as wrong:
            notes.fault(wrong, at)
    notes.finish()
    return out


def is_derived(entry: FdbEntry) -> bool:
    """True for a multicast address a device listens to: `show` derives those, no state holds them."""
    return not entry.master and not entry.dst and bool(int(entry.mac[:2], 16) & 1)


# -- bridge link ---------------------------------------------------------------------------------------------

_OPTIONS = (
    ("hairpin", "hairpin"),
    ("guard", False),
    ("root_block", False),
    ("fastleave", False),
    ("learning", "learning"),
    ("flood", "flood"),
    ("mcast_flood", True),
    ("bcast_flood", True),
    ("mcast_router", 1),
    ("mcast_to_unicast", False),
    ("neigh_suppress", False),
    ("vlan_tunnel", False),
    ("isolated", "isolated"),
    ("locked", False),
)
"""What `bridge -d link` prints: an option of BridgePort by name, or the kernel's default where none is
modelled.
"""


def show_ports(
    ns: Netns, *, dev: str = "", json: bool = False, details: bool = False, pretty: bool = False
) -> str:
    """Return `bridge [-j] [-d] link [show dev DEV]`: the ports of every bridge."""
    rows: list[dict[str, Any]] = []
    out: list[str] = []
    for link in sorted(ns.links.values(), key=lambda one: one.index):
        if not link.master or dev not in ("", link.name):
            continue
        port = link.port or BridgePort()
        flags = ip_link.flags(ns, link)
        values: dict[str, Any] = {k: getattr(port, v) if isinstance(v, str) else v for k, v in _OPTIONS}
        if json:
            row = {
                k: v
                for k, v in ip_link.head(ns, link, mode=True).items()
                if k in ("ifindex", "link", "link_index", "ifname", "flags", "mtu", "master")
            }
            row |= {"state": port.state, "priority": 32, "cost": 2}
            rows.append(row | values if details else row)
            continue
        name = ip_link.display_name(ns, link)
        out.append(
            f"{link.index}: {name}: <{','.join(flags)}> mtu {link.mtu} master {link.master} "
            f"state {port.state} priority 32 cost 2 "
        )
        if details:
            words = [f"{k} {('on' if v else 'off') if isinstance(v, bool) else v}" for k, v in values.items()]
            out.append("    " + " ".join(words) + " ")
    return iproute2.dumps(rows, pretty) if json else "".join(line + "\n" for line in out)
