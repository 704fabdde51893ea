"""`ip link`: links as text and JSON, both ways.

Text form of iproute2 6.1, `ip/ipaddress.c` print_linkinfo and the `iplink_*.c` of each kind.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec.structs import replace

from kubenet_lab.errors import Fault
from kubenet_lab.kernel.dialects import iproute2
from kubenet_lab.kernel.dialects.iproute2 import Unmodelled, Words, Wrong
from kubenet_lab.kernel.link import (
    STATELESS,
    BridgeOptions,
    BridgePort,
    IpvlanOptions,
    Link,
    MacvlanOptions,
    Peer,
    TunnelOptions,
    VlanOptions,
    VxlanOptions,
)
from kubenet_lab.kernel.netns import Netns

BROADCAST = "ff:ff:ff:ff:ff:ff"
PLAIN_KINDS = ("veth", "dummy", "ifb")
"""Kinds that have no options worth keeping."""
NO_HARDWARE = ("wireguard", "tun")
"""Kinds that carry packets without any link layer (ARPHRD_NONE): they have no address."""
PORT_STATES = ("disabled", "listening", "learning", "forwarding", "blocking")


def peer_of(ns: Netns, link: Link) -> Link | None:
    """Return the other end of a veth link, or the link that this one sits on, where it can be seen."""
    beside = link.peer or link.lower
    if beside is None:
        return None
    if beside.netns == ns.name:
        return ns.links.get(beside.link)
    if ns.network is None or beside.netns not in ns.network.netns:
        return None
    return ns.network.netns[beside.netns].links.get(beside.link)


def carrier(ns: Netns, link: Link) -> bool:
    """True when the kernel would call the link's carrier on: the far end is up, or a bridge has a running
    port.
    """
    if not link.carrier:
        return False
    if link.kind == "veth":
        other = peer_of(ns, link)
        return other is None or other.up
    if link.kind == "bridge":
        return any(port.up and carrier(ns, port) for port in ns.ports(link.name))
    return True


def flags(ns: Netns, link: Link) -> list[str]:
    """Return the flags in the order `ip link` prints them."""
    out = list(replace(link, carrier=carrier(ns, link)).flags)
    beside = link.peer or link.lower
    if beside is not None and beside.netns == ns.name:
        other = ns.links.get(beside.link)
        if other is not None and not other.up:
            out.append("M-DOWN")
    return out


def operstate(ns: Netns, link: Link) -> str:
    """Return the operational state (RFC 2863), as net/core/link_watch.c works it out."""
    if not link.up:
        return "DOWN"
    if not carrier(ns, link):
        beside = link.peer or link.lower
        if beside is not None and beside.netns == ns.name:
            return "LOWERLAYERDOWN"
        return "DOWN"
    return "UNKNOWN" if link.kind in STATELESS else "UP"


def qdisc(link: Link) -> str:
    """Return a link's queueing discipline; where nobody set one, physical links have systemd's default."""
    if not link.activated and link.kind != "loopback":
        return "noop"
    root = next((one.kind for one in link.qdiscs if one.parent == "root"), "")
    return root or "fq_codel" if link.kind == "physical" else "noqueue"


def netnsid(ns: Netns, link: Link) -> int:
    """Return the id under which this namespace knows its peer's; the kernel counts them from 0 as they
    appear.
    """
    seen: list[str] = []
    for other in sorted(ns.links.values(), key=lambda one: one.index):
        far = other.peer or other.lower
        if far is not None and far.netns != ns.name and far.netns not in seen:
            seen.append(far.netns)
    beside = link.peer or link.lower
    return seen.index(beside.netns) if beside is not None else 0


def display_name(ns: Netns, link: Link) -> str:
    """Return "eth0@if5" or "veth1@eth1" for one end of a pair, the plain name otherwise."""
    beside = link.peer or link.lower
    if beside is None:
        return link.name
    if beside.netns == ns.name:
        return f"{link.name}@{beside.link}"
    other = peer_of(ns, link)
    return f"{link.name}@if{other.index}" if other is not None else f"{link.name}@NONE"


def head(ns: Netns, link: Link, *, mode: bool) -> dict[str, Any]:
    """Return the members every JSON row of `ip link` and `ip addr` begins with."""
    row: dict[str, Any] = {"ifindex": link.index}
    beside = link.peer or link.lower
    if beside is not None:
        if beside.netns == ns.name:
            row["link"] = beside.link
        else:
            other = peer_of(ns, link)
            row["link_index"] = other.index if other is not None else 0
    row["ifname"] = link.name
    row["flags"] = flags(ns, link)
    row["mtu"] = link.mtu
    row["qdisc"] = qdisc(link)
    if link.master:
        row["master"] = link.master
    row["operstate"] = operstate(ns, link)
    if mode:
        row["linkmode"] = "DEFAULT"
    row["group"] = "default"
    row["txqlen"] = link.txqlen
    return row


def hardware(ns: Netns, link: Link) -> dict[str, Any]:
    """Return the members of the `link/...` line."""
    loop = link.kind == "loopback"
    if link.kind in NO_HARDWARE and not link.mac:
        return {"link_type": "none"}
    row: dict[str, Any] = {
        "link_type": "loopback" if loop else "ether",
        "address": link.mac,
        "broadcast": "00:00:00:00:00:00" if loop else BROADCAST,
    }
    beside = link.peer or link.lower
    if beside is not None and beside.netns != ns.name:
        row["link_netnsid"] = netnsid(ns, link)
    return row


def head_text(ns: Netns, link: Link, *, mode: bool, bare: bool = False) -> str:
    """Return the first line of a link's entry; `bare` is the form of an IPv6 dump, which the kernel keeps
    short.
    """
    row = head(ns, link, mode=mode)
    if bare:
        return (
            f"{link.index}: {display_name(ns, link)}: <{','.join(row['flags'])}> mtu {link.mtu} "
            f"state {row['operstate']} qlen {link.txqlen}"
        )
    name = display_name(ns, link)
    master = f"master {link.master} " if link.master else ""
    how = "mode DEFAULT " if mode else ""
    return (
        f"{link.index}: {name}: <{','.join(row['flags'])}> mtu {link.mtu} qdisc {row['qdisc']} {master}"
        f"state {row['operstate']} {how}group default qlen {link.txqlen}"
    )


def hardware_text(ns: Netns, link: Link) -> str:
    """Return the second line of a link's entry, without what `-d` adds."""
    row = hardware(ns, link)
    if row["link_type"] == "none":
        return "    link/none "
    text = f"    link/{row['link_type']} {row['address']} brd {row['broadcast']}"
    return f"{text} link-netnsid {row['link_netnsid']}" if "link_netnsid" in row else text


def _sizes(ns: Netns, link: Link) -> dict[str, int]:
    queues = 2 if link.kind == "veth" else 1
    lower = link.vxlan.link if link.vxlan is not None else ""
    below = peer_of(ns, link) if link.lower is not None else None
    big = link.kind in ("loopback", "veth") or lower in ns.links or bool(ns.ports(link.name))
    big = big or (below is not None and below.kind == "veth")
    return {
        "num_tx_queues": queues,
        "num_rx_queues": queues,
        "gso_max_size": 65536,
        "gso_max_segs": 65535,
        "tso_max_size": 524280 if big else 65536,
        "tso_max_segs": 65535,
        "gro_max_size": 65536,
    }


def _bridge_id(link: Link) -> str:
    return "8000." + ":".join(f"{int(part, 16):x}" for part in link.mac.split(":"))


def _bridge_data(link: Link) -> dict[str, Any]:
    options = link.bridge or BridgeOptions()
    return {
        "forward_delay": 1500,
        "hello_time": 200,
        "max_age": 2000,
        "ageing_time": round(options.ageing * 100),
        "stp_state": int(options.stp),
        "priority": 32768,
        "vlan_filtering": int(options.vlan_filtering),
        "bridge_id": _bridge_id(link),
        "root_id": _bridge_id(link),
        "root_port": 0,
        "root_path_cost": 0,
        "topology_change": 0,
        "topology_change_detected": 0,
        "hello_timer": 0.0,
        "tcn_timer": 0.0,
        "topology_change_timer": 0.0,
        "gc_timer": 0.0,
        "group_fwd_mask": "0",
        "group_addr": "01:80:c2:00:00:00",
        "mcast_snooping": int(options.mcast_snooping),
        "no_linklocal_learn": 0,
        "mcast_vlan_snooping": 0,
        "mcast_router": 1,
        "mcast_query_use_ifaddr": 0,
        "mcast_querier": 0,
        "mcast_hash_elasticity": 16,
        "mcast_hash_max": 4096,
        "mcast_last_member_cnt": 2,
        "mcast_startup_query_cnt": 2,
        "mcast_last_member_intvl": 100,
        "mcast_membership_intvl": 26000,
        "mcast_querier_intvl": 25500,
        "mcast_query_intvl": 12500,
        "mcast_query_response_intvl": 1000,
        "mcast_startup_query_intvl": 3124,
        "mcast_stats_enabled": 0,
        "mcast_igmp_version": 2,
        "mcast_mld_version": 1,
        "nf_call_iptables": int(options.nf_call_iptables),
        "nf_call_ip6tables": int(options.nf_call_ip6tables),
        "nf_call_arptables": 0,
    }


_BRIDGE_WORDS = {
    "root_id": "designated_root",
    "group_addr": "group_address",
    "mcast_last_member_cnt": "mcast_last_member_count",
    "mcast_startup_query_cnt": "mcast_startup_query_count",
    "mcast_last_member_intvl": "mcast_last_member_interval",
    "mcast_membership_intvl": "mcast_membership_interval",
    "mcast_querier_intvl": "mcast_querier_interval",
    "mcast_query_intvl": "mcast_query_interval",
    "mcast_query_response_intvl": "mcast_query_response_interval",
    "mcast_startup_query_intvl": "mcast_startup_query_interval",
}
"""Members whose name in the text differs from their name in JSON."""


def _port_data(ns: Netns, link: Link) -> dict[str, Any]:
    port = link.port or BridgePort()
    bridge = ns.links[link.master]
    at = [one.name for one in ns.ports(link.master)].index(link.name) + 1
    return {
        "state": port.state,
        "priority": 32,
        "cost": 2,
        "hairpin": port.hairpin,
        "guard": False,
        "root_block": False,
        "fastleave": False,
        "learning": port.learning,
        "flood": port.flood,
        "id": f"{0x8000 + at:#x}",
        "no": f"{at:#x}",
        "designated_port": 0x8000 + at,
        "designated_cost": 0,
        "bridge_id": _bridge_id(bridge),
        "root_id": _bridge_id(bridge),
        "hold_timer": 0.0,
        "message_age_timer": 0.0,
        "forward_delay_timer": 0.0,
        "topology_change_ack": 0,
        "config_pending": 0,
        "proxy_arp": False,
        "proxy_arp_wifi": False,
        "multicast_router": 1,
        "mcast_fast_leave": False,
        "mcast_flood": True,
        "bcast_flood": True,
        "mcast_to_unicast": False,
        "neigh_suppress": False,
        "group_fwd_mask": "0",
        "group_fwd_mask_str": "0x0",
        "vlan_tunnel": False,
        "isolated": port.isolated,
        "locked": False,
    }


_PORT_WORDS = {
    "id": "port_id",
    "no": "port_no",
    "bridge_id": "designated_bridge",
    "root_id": "designated_root",
    "multicast_router": "mcast_router",
    "fastleave": "fastleave",
}


def _vxlan_data(options: VxlanOptions) -> dict[str, Any]:
    row: dict[str, Any] = {"external": True} if options.external else {}
    row["id"] = options.vni
    if options.local:
        row["local6" if ":" in options.local else "local"] = options.local
    if options.link:
        row["link"] = options.link
    row |= {
        "port_range": {"low": 0, "high": 0},
        "port": options.port,
        "learning": options.learning,
        "ttl": options.ttl,
        "df": options.df,
        "ageing": 300,
        "udp_csum": True,
        "udp_zero_csum6_tx": False,
        "udp_zero_csum6_rx": False,
    }
    return row


def _words(data: dict[str, Any], names: dict[str, str]) -> str:
    out: list[str] = []
    for key, value in data.items():
        name = names.get(key, key)
        if isinstance(value, bool):
            out.append(f"{name} {'on' if value else 'off'}")
        elif isinstance(value, float):
            out.append(f"{name} {value:7.2f}")
        else:
            out.append(f"{name} {value}")
    return " ".join(out)


def _vxlan_text(options: VxlanOptions) -> str:
    words = [f"vxlan external id {options.vni}" if options.external else f"vxlan id {options.vni}"]
    if options.local:
        words.append(f"local {options.local}")
    if options.link:
        words.append(f"dev {options.link}")
    words.append(f"srcport 0 0 dstport {options.port}")
    if not options.learning:
        words.append("nolearning")
    words.append(f"ttl {options.ttl or 'auto'}")
    if options.df != "unset":
        words.append(f"df {options.df}")
    words.append("ageing 300 udpcsum noudp6zerocsumtx noudp6zerocsumrx")
    return " ".join(words)


def _stacked_data(link: Link) -> dict[str, Any]:
    """Return `info_data` of macvlan, ipvlan, vlan and IP tunnels as `iplink_macvlan.c` and the others print it."""
    if link.macvlan is not None:
        return {"mode": link.macvlan.mode, "bcqueuelen": 1000, "usedbcqueuelen": 1000}
    if link.ipvlan is not None:
        return {"mode": link.ipvlan.mode, "flags": [link.ipvlan.flag]}
    if link.vlan is not None:
        return {"protocol": "802.1Q", "id": link.vlan.id, "flags": ["REORDER_HDR"]}
    if link.tunnel is not None:
        t = link.tunnel
        row: dict[str, Any] = {"proto": "ipip", "remote": t.remote or "any", "local": t.local or "any"}
        return row | ({"link": t.link} if t.link else {}) | {"ttl": t.ttl, "pmtudisc": t.pmtudisc}
    return {}


def _stacked_text(link: Link) -> str:
    if link.macvlan is not None:
        return f"macvlan mode {link.macvlan.mode} bcqueuelen 1000 usedbcqueuelen 1000"
    if link.ipvlan is not None:
        return f"ipvlan  mode {link.ipvlan.mode} {link.ipvlan.flag}"
    if link.vlan is not None:
        return f"vlan protocol 802.1Q id {link.vlan.id} <REORDER_HDR>"
    if link.tunnel is not None:
        t = link.tunnel
        dev = f" dev {t.link}" if t.link else ""
        mode = "pmtudisc" if t.pmtudisc else "nopmtudisc"
        return (
            f"{link.kind} ipip remote {t.remote or 'any'} local {t.local or 'any'}{dev} "
            f"ttl {t.ttl or 'inherit'} {mode}"
        )
    return ""


def _stacked_from(kind: str, data: dict[str, Any], fields: dict[str, Any]) -> bool:
    """Fill in a link that sits on another; False for a kind that does not. Raises Wrong."""
    if kind in ("ipip", "sit", "ip6tnl"):
        ttl = data.get("ttl", 0)
        local, remote = (
            "" if data.get(key, "any") == "any" else str(data[key]) for key in ("local", "remote")
        )
        fields["tunnel"] = TunnelOptions(
            local=local,
            remote=remote,
            link=str(data.get("link", data.get("dev", ""))),
            ttl=0 if ttl == "inherit" else iproute2.number(ttl, "ttl"),
            pmtudisc=bool(data.get("pmtudisc", True)),
        )
        return True
    if kind not in ("macvlan", "ipvlan", "vlan"):
        return False
    lower = fields.pop("peer", None) or Peer("", "")
    if kind == "macvlan":
        fields["macvlan"] = MacvlanOptions(lower, str(data.get("mode", "bridge")))
    elif kind == "ipvlan":
        flags = data.get("flags") or ["bridge"]
        fields["ipvlan"] = IpvlanOptions(lower, str(data.get("mode", "l2")), str(flags[0]))
    else:
        fields["vlan"] = VlanOptions(lower, iproute2.number(iproute2.need(data, "id"), "id"))
    return True


def _promiscuity(ns: Netns, link: Link) -> int:
    """1 for a bridge's port, a link somebody made promiscuous, and one that a passthru macvlan sits on."""
    uppers = ns.network.uppers(ns.name, link.name) if ns.network is not None else []
    taken = any(up.up and up.macvlan is not None and up.macvlan.mode == "passthru" for _home, up in uppers)
    return 1 if link.master or link.promiscuous or taken else 0


def details_text(ns: Netns, link: Link, *, addrgen: bool) -> list[str]:
    """Return what `-d` adds: the rest of the hardware line, then the lines of the link's kind."""
    limits = (0, 0) if link.kind == "loopback" else (68, 65535)
    port = _promiscuity(ns, link)
    # The gap after promiscuity is iproute2's own: two fields each bring their space.
    lines = [
        f" promiscuity {port}  allmulti {1 if link.master else 0} minmtu {limits[0]} maxmtu {limits[1]} "
    ]
    if link.kind == "veth":
        lines.append("    veth ")
    elif link.kind == "bridge":
        lines.append(f"    bridge {_words(_bridge_data(link), _BRIDGE_WORDS)} ")
    elif link.kind == "geneve" and link.vxlan is not None:
        # As Linux shows Open vSwitch's, the same kind of device.
        lines.append(f"    geneve external id 0 ttl auto dstport {link.vxlan.port} udp6zerocsumrx ")
    elif link.vxlan is not None:
        lines.append(f"    {_vxlan_text(link.vxlan)} ")
    elif (words := _stacked_text(link)) or link.kind not in ("loopback", "physical"):
        lines.append(f"    {words or link.kind} ")
    if link.master:
        lines.append(f"    bridge_slave {_words(_port_data(ns, link), _PORT_WORDS)} ")
    sizes = _sizes(ns, link)
    mode = "addrgenmode eui64 " if addrgen else ""
    lines[-1] += (
        mode
        + " ".join(
            f"{key.replace('num_tx_', 'numtx').replace('num_rx_', 'numrx')} {n}" for key, n in sizes.items()
        )
        + " "
    )
    return lines


def details(ns: Netns, link: Link, *, addrgen: bool) -> dict[str, Any]:
    """Return the members that `-d -j` adds."""
    limits = (0, 0) if link.kind == "loopback" else (68, 65535)
    row: dict[str, Any] = {
        "promiscuity": _promiscuity(ns, link),
        "allmulti": 1 if link.master else 0,
        "min_mtu": limits[0],
        "max_mtu": limits[1],
    }
    info: dict[str, Any] = {}
    if link.kind not in ("loopback", "physical"):
        info["info_kind"] = link.kind
    if link.kind == "bridge":
        info["info_data"] = _bridge_data(link)
    elif link.kind == "geneve" and link.vxlan is not None:
        port = link.vxlan.port
        info["info_data"] = {
            "external": True, "id": 0, "ttl": 0, "port": port, "udp_zero_csum6_rx": True,
        }  # fmt: skip
    elif link.vxlan is not None:
        info["info_data"] = _vxlan_data(link.vxlan)
    elif data := _stacked_data(link):
        info["info_data"] = data
    if link.master:
        info["info_slave_kind"] = "bridge"
        data = _port_data(ns, link)
        data.pop("mcast_fast_leave")
        info["info_slave_data"] = data
    if info:
        row["linkinfo"] = info
    if addrgen:
        row["inet6_addr_gen_mode"] = "eui64"
    return row | _sizes(ns, link)


def show(
    ns: Netns,
    *,
    links: list[Link] | None = None,
    json: bool = False,
    details_: bool = False,
    brief: bool = False,
    oneline: bool = False,
    pretty: bool = False,
) -> str:
    """Return `ip [-j] [-d] [-br] [-o] link` of a namespace.

    Args:
        ns: The namespace.
        links: Only these links; all, by index, when None.
        json: The `-j` form; `pretty` is `-p`.
        details_: The `-d` form.
        brief: The `-br` form.
        oneline: The `-o` form.
        pretty: Indent JSON as `-p` does.
    """
    chosen = sorted(ns.links.values() if links is None else links, key=lambda one: one.index)
    if json:
        rows = []
        for link in chosen:
            if brief:
                row = {
                    k: v
                    for k, v in head(ns, link, mode=True).items()
                    if k in ("link", "link_index", "ifname")
                }
                row["operstate"] = operstate(ns, link)
                row |= {"address": link.mac, "flags": flags(ns, link)}
                rows.append(row)
                continue
            row = head(ns, link, mode=True) | hardware(ns, link)
            rows.append(row | details(ns, link, addrgen=True) if details_ else row)
        return iproute2.dumps(rows, pretty)
    out: list[str] = []
    for link in chosen:
        if brief:
            name = display_name(ns, link)
            state = operstate(ns, link)
            out.append(f"{name:<16} {state:<14} {link.mac} <{','.join(flags(ns, link))}> ")
            continue
        entry = [head_text(ns, link, mode=True), hardware_text(ns, link)]
        if details_:
            extra = details_text(ns, link, addrgen=True)
            entry[1] += extra[0]
            entry += extra[1:]
        out.append("\\".join(entry) if oneline else "\n".join(entry))
    return "".join(line + "\n" for line in out)


_HEAD = re.compile(r"^(\d+): ([^\s:@]+)(?:@([^\s:]+))?: <([^>]*)>(.*)$")

_QUIET = frozenset(
    [
        "qdisc",
        "group",
        "state",
        "mode",
        "qlen",
        "linkmode",
        "operstate",
        "brd",
        "broadcast",
        "promiscuity",
        "allmulti",
        "minmtu",
        "maxmtu",
        "addrgenmode",
        "numtxqueues",
        "numrxqueues",
        "gso_max_size",
        "gso_max_segs",
        "tso_max_size",
        "tso_max_segs",
        "gro_max_size",
        "link-netnsid",
    ]
)
"""Fields that follow from others or never decide a packet; reading leaves them out without a word."""

_FLAGS = frozenset(
    [
        "LOOPBACK",
        "BROADCAST",
        "MULTICAST",
        "UP",
        "LOWER_UP",
        "NO-CARRIER",
        "M-DOWN",
        "NOARP",
        "PROMISC",
        "ALLMULTI",
        "POINTOPOINT",
        "DYNAMIC",
        "MASTER",
        "SLAVE",
    ]
)


def parse_head(line: str, notes: Unmodelled, at: int, netns: str) -> dict[str, Any]:
    """Read the first line of a link's entry into the fields of a Link. Raises Wrong."""
    match = _HEAD.match(line)
    if match is None:
        raise Wrong('a link begins with its number: "2: eth0: <BROADCAST,UP> mtu 1500 ..."', "link")
    index, name, peer, words, rest = match.groups()
    fields: dict[str, Any] = {"name": name, "index": int(index), "kind": "physical"}
    got = [word for word in words.split(",") if word]
    for word in got:
        if word not in _FLAGS:
            notes.carry(f"flag {word}", at, "flags")
    fields |= _from_flags(got)
    if peer:
        fields["kind"] = "veth"
        fields["peer"] = Peer("" if re.fullmatch(r"if\d+", peer) else netns, peer)
    items = Words(rest)
    while items:
        key = items.take("a field")
        if key == "mtu":
            fields["mtu"] = items.number("mtu")
        elif key == "master":
            fields["master"] = items.take("master")
        elif key == "qlen":
            fields["txqlen"] = items.number("qlen")
        elif key in _QUIET:
            items.take(key)
        else:
            notes.carry(f"{key} {items.take(key) if items else ''}".strip(), at, key)
    return fields


def _from_flags(got: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {"up": "UP" in got, "carrier": "NO-CARRIER" not in got}
    if "LOOPBACK" in got:
        fields["kind"] = "loopback"
    if "NOARP" in got:
        fields["noarp"] = True
    if "PROMISC" in got:
        fields["promiscuous"] = True
    if "ALLMULTI" in got:
        fields["allmulti"] = True
    return fields


def parse_hardware(line: str, fields: dict[str, Any]) -> None:
    """Read a `link/ether ...` line into the fields of a Link. Raises Wrong."""
    items = Words(line)
    items.take("link/TYPE")
    if items:
        fields["mac"] = iproute2.mac(items.take("address"), "address")


def _parse_kind(line: str, fields: dict[str, Any], notes: Unmodelled, at: int) -> None:
    items = Words(line)
    kind = items.take("a kind")
    if kind == "bridge_slave":
        fields["port"] = _port_from(_pairs(items))
        return
    fields["kind"] = kind
    if kind == "bridge":
        fields["bridge"] = _bridge_from(_pairs(items))
    elif kind in ("vxlan", "geneve"):
        fields["vxlan"] = _vxlan_from_words(items)
    elif kind in ("macvlan", "ipvlan", "vlan", "ipip", "sit", "ip6tnl"):
        _stacked_from(kind, _stacked_words(kind, items), fields)
    elif kind not in PLAIN_KINDS:
        notes.carry(f"link kind {kind}", at, "kind")


def _stacked_words(kind: str, items: Words) -> dict[str, Any]:
    """Read the words after the kind: `mode l2 bridge`, `protocol 802.1Q id 5 <REORDER_HDR>`, `ipip remote any ...`."""
    data: dict[str, Any] = {}
    while items:
        key = items.take("a field")
        if kind == "ipvlan" and key in ("bridge", "private", "vepa"):
            data["flags"] = [key]
        elif key in ("pmtudisc", "nopmtudisc"):
            data["pmtudisc"] = key == "pmtudisc"
        elif key in ("mode", "id", "local", "remote", "dev", "ttl"):
            data[key] = items.take(key)
    return data


def _pairs(items: Words) -> dict[str, str]:
    out: dict[str, str] = {}
    while items:
        key = items.take("a field")
        if items:
            out[key] = items.take(key)
    return out


def _bridge_from(data: dict[str, Any]) -> BridgeOptions:
    base = BridgeOptions()
    return BridgeOptions(
        vlan_filtering=bool(iproute2.number(data.get("vlan_filtering", 0), "vlan_filtering")),
        nf_call_iptables=bool(iproute2.number(data.get("nf_call_iptables", 0), "nf_call_iptables")),
        nf_call_ip6tables=bool(iproute2.number(data.get("nf_call_ip6tables", 0), "nf_call_ip6tables")),
        ageing=iproute2.number(data.get("ageing_time", round(base.ageing * 100)), "ageing_time") / 100,
        stp=bool(iproute2.number(data.get("stp_state", 0), "stp_state")),
        mcast_snooping=bool(iproute2.number(data.get("mcast_snooping", 1), "mcast_snooping")),
    )


def _port_from(data: dict[str, Any]) -> BridgePort:
    def on(key: str, default: bool) -> bool:
        return data.get(key, default) in (True, "on")

    state = str(data.get("state", "forwarding"))
    if state not in PORT_STATES:
        raise Wrong(f"state must be one of {', '.join(PORT_STATES)}, not {state!r}", "state")
    return BridgePort(
        on("hairpin", False), on("learning", True), on("flood", True), on("isolated", False), state
    )


def _vxlan_from_words(items: Words) -> VxlanOptions:
    data: dict[str, Any] = {"learning": True}
    while items:
        key = items.take("a field")
        if key == "id":
            data["id"] = items.number("id")
        elif key == "local":
            data["local"] = items.address("local")
        elif key == "dev":
            data["link"] = items.take("dev")
        elif key == "srcport":
            items.take("srcport")
            items.take("srcport")
        elif key == "dstport":
            data["port"] = items.number("dstport")
        elif key == "nolearning":
            data["learning"] = False
        elif key == "external":
            data["external"] = True
        elif key == "ttl":
            word = items.take("ttl")
            data["ttl"] = 0 if word == "auto" else iproute2.number(word, "ttl")
        elif key == "df":
            data["df"] = items.take("df")
    return _vxlan_from(data)


def _vxlan_from(data: dict[str, Any]) -> VxlanOptions:
    return VxlanOptions(
        vni=iproute2.number(iproute2.need(data, "id"), "id"),
        local=str(data.get("local", data.get("local6", ""))),
        link=str(data.get("link", "")),
        port=iproute2.number(data.get("port", 8472), "port"),
        learning=bool(data.get("learning", True)) and not data.get("external"),
        external=bool(data.get("external", False)),
        ttl=iproute2.number(data.get("ttl", 0), "ttl"),
        df=str(data.get("df", "unset")),
    )


_JSON_QUIET = frozenset(
    [
        "ifindex",
        "link",
        "link_index",
        "ifname",
        "flags",
        "mtu",
        "qdisc",
        "master",
        "operstate",
        "linkmode",
        "group",
        "txqlen",
        "link_type",
        "address",
        "broadcast",
        "link_netnsid",
        "promiscuity",
        "allmulti",
        "min_mtu",
        "max_mtu",
        "linkinfo",
        "inet6_addr_gen_mode",
        "num_tx_queues",
        "num_rx_queues",
        "gso_max_size",
        "gso_max_segs",
        "tso_max_size",
        "tso_max_segs",
        "gro_max_size",
        "addr_info",
        "gso_ipv4_max_size",
        "gro_ipv4_max_size",
        "link_pointtopoint",
    ]
)


def fields_from_json(item: dict[str, Any], notes: Unmodelled, path: str, netns: str) -> dict[str, Any]:
    """Read the link members of one JSON object into the fields of a Link. Raises Wrong."""
    got = [str(word) for word in item.get("flags", [])]
    for word in got:
        if word not in _FLAGS:
            notes.carry(f"flag {word}", 0, f"{path}.flags")
    fields: dict[str, Any] = {
        "name": str(iproute2.need(item, "ifname")),
        "index": iproute2.number(item.get("ifindex", 0), "ifindex"),
        "kind": "physical",
    }
    fields |= _from_flags(got)
    if "mtu" in item:
        fields["mtu"] = iproute2.number(item["mtu"], "mtu")
    if item.get("master"):
        fields["master"] = str(item["master"])
    if "txqlen" in item:
        fields["txqlen"] = iproute2.number(item["txqlen"], "txqlen")
    if "address" in item:
        fields["mac"] = iproute2.mac(item["address"], "address")
    info = item.get("linkinfo") or {}
    if "link" in item or "link_index" in item or info.get("info_kind") == "veth":
        fields["kind"] = "veth"
        if "link" in item or "link_index" in item:
            peer = str(item["link"]) if "link" in item else f"if{item['link_index']}"
            fields["peer"] = Peer(netns if "link" in item else "", peer)
    kind = info.get("info_kind", "")
    data = info.get("info_data") or {}
    if kind:
        fields["kind"] = kind
    if kind == "bridge":
        fields["bridge"] = _bridge_from(data)
    elif kind in ("vxlan", "geneve"):
        fields["vxlan"] = _vxlan_from(data)
    elif not _stacked_from(kind, data, fields) and kind not in ("", *PLAIN_KINDS):
        notes.carry(f"link kind {kind}", 0, f"{path}.linkinfo.info_kind")
    if info.get("info_slave_kind") == "bridge" or "info_slave_data" in info:
        fields["port"] = _port_from(info.get("info_slave_data") or {})
    for key in item:
        if key not in _JSON_QUIET:
            notes.carry(key, 0, f"{path}.{key}")
    return fields


def parse(
    text: str, *, netns: str = "", file: str = "<text>", unknown: list[Fault] | None = None
) -> list[Link]:
    """Read the output of `ip [-d] link` or `ip -j [-d] link` (`ip addr` too) into links.

    Without `-d` the kind of a link is a guess: loopback, veth where a peer is named, physical otherwise. A
    peer in the same namespace becomes `Peer(netns, name)`, one elsewhere `Peer("", "if5")`.

    Raises:
        InputError: With every line that cannot be read, and, unless `unknown` is a list that takes them,
        every field
            that is not modelled.
    """
    notes = Unmodelled(file, unknown)
    if iproute2.is_json(text):
        return iproute2.read_json(
            text, notes, lambda item, path: Link(**fields_from_json(item, notes, path, netns))
        )
    found: list[dict[str, Any]] = []
    for at, line in iproute2.lines_of(text):
        try:
            if line[0] not in " \t":
                found.append(parse_head(line, notes, at, netns))
                continue
            word = line.split()[0]
            if not found:
                raise Wrong("this line belongs to a link, and no link comes before it", word)
            if word.startswith("link/"):
                parse_hardware(line, found[-1])
            elif word in ("inet", "inet6", "valid_lft"):
                continue
            else:
                _parse_kind(line, found[-1], notes, at)
        except Wrong as wrong:
            notes.fault(wrong, at)
    notes.finish()
    return [Link(**fields) for fields in found]
