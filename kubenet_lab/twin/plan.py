"""From kernel state to the commands that make it: `ip` batches, sysctl writes, `iptables-restore` and `nft -f` texts.

A pure function, so what the twin will do can be read and tested without a kernel. The commands are those a person
would type; `Plan.text()` prints them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct

from kubenet_lab.kernel import sysctl
from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.dialects.bridge_vlan import vlans_of
from kubenet_lab.kernel.link import DEFAULT_VLANS, BridgeOptions, Link
from kubenet_lab.kernel.netns import ZERO_MAC, Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.route import TABLE_LOCAL, Route, RouteRule, default_rules
from kubenet_lab.kernel.socket import UNIX, Socket
from kubenet_lab.packet.ip import mac_from, prefix

UNDERLAY = "underlay"
"""The namespace that holds the wires: one bridge a wire, with a port for each link plugged in."""

BIGGEST_MTU = 65535
_BRIDGE_OPTIONS = {
    "vlan_filtering": "vlan_filtering",
    "nf_call_iptables": "nf_call_iptables",
    "nf_call_ip6tables": "nf_call_ip6tables",
    "ageing": "ageing_time",
    "stp": "stp_state",
    "mcast_snooping": "mcast_snooping",
}
"""Fields of BridgeOptions and what `ip link add type bridge` calls them."""

STACKED = ("vlan", "macvlan", "ipvlan")
"""Link kinds that sit on another link, perhaps in another namespace: they are made once that one is there."""

KINDS = ("loopback", "physical", "veth", "bridge", "vxlan", *STACKED)
"""Link kinds the twin makes where the kernel can."""

CANNOT = {"wireguard": "the state holds no private keys, and so the twin cannot make its tunnels"}
"""Why the twin cannot make a kind, where there is more to say than that it cannot."""

LOOPBACK = ("127.0.0.1/8", "::1/128")

FILES = ("/etc/resolv.conf", "/etc/hosts")
"""Files of a namespace that its commands see in place of this machine's."""

ONLY_HERE: dict[str, str] = {"net/ipv4/icmp_ratelimit": "0", "net/ipv6/icmp/ratelimit": "0"}
"""Parameters the twin sets whatever the model says: many flows at once must not lose their ICMP errors."""

HOST_WIDE = frozenset({"net.core.netdev_max_backlog"})
"""Parameters of the whole machine, which a network namespace does not even show."""

_PING_GROUPS = "net.ipv4.ping_group_range"
"""Its default names every group; a user namespace has group 0 only, and refuses to name others."""

NEIGHBOUR_RETRANS = 100
"""Milliseconds between ARP requests, by default 1000: an address nobody has fails in 0.3 s, not in 3 s."""


class Missing(Struct, frozen=True):
    """Something of the model that this machine's kernel or tools could not make."""

    ns: str
    what: str
    why: str

    def __str__(self) -> str:
        place = f"{self.ns}: " if self.ns else ""
        return f"{place}{self.what}: {self.why}"


class Plan(Struct):
    """What to make, in order.

    `netns` maps names to the names below /run/netns. `root` runs once, outside. Each phase maps a namespace to its
    steps: ["ip"|"ip -6"|"bridge", lines], ["sysctl", [[path, value]]], ["nfacct", names],
    ["iptables-restore"|"ip6tables-restore"|"ipset"|"nft", text] or ["files", {path: text}]. Phases run one after the
    other, the namespaces of a phase side by side.
    """

    netns: dict[str, str]
    root: list[str]
    phases: list[dict[str, list[list[Any]]]]
    sockets: list[dict[str, Any]]
    handlers: dict[int, Any]
    missing: list[Missing]

    def text(self) -> str:
        """Return the plan as commands to read."""
        out = [f"ip netns add {file}" for file in self.netns.values()] + [f"ip {line}" for line in self.root]
        for phase in self.phases:
            for ns, steps in phase.items():
                out.append(f"# in {ns}")
                for kind, body in steps:
                    if kind == "sysctl":
                        out += [f"echo '{value}' > /proc/sys/{path}" for path, value in body]
                    elif kind == "files":
                        out += [f"# {path}\n{text}" for path, text in body.items()]
                    elif isinstance(body, str):
                        out.append(f"{kind} <<'EOF'\n{body}EOF")
                    else:
                        out += [f"{kind} {line}" for line in body]
        return "\n".join(out) + "\n"


def file_name(ns: str) -> str:
    """Return a name `ip netns` takes: "default/frontend" becomes "default_frontend"."""
    return ns.replace("/", "_")


def plan(network: Network, *, now: float = 0.0) -> Plan:
    """Return what makes `network` in the kernel; the network is only read.

    `now` is simulated time in s: what has a time-out (elements of nftables sets) is given what is left of it.
    """
    levels = _levels(network)
    made = Plan(
        {name: file_name(name) for name in network.netns},
        [],
        [{} for _ in range(len(levels) + 3)],
        [],
        {},
        [],
    )
    made.netns[UNDERLAY] = file_name(UNDERLAY) if UNDERLAY not in network.netns else "underlay_wires"
    _wires(network, made)
    done: set[tuple[str, str]] = set()
    for ns in network.netns.values():
        for link in ns.links.values():
            _create_outside(network, made, ns, link, done)
    for ns in network.netns.values():
        make = made.phases[0].setdefault(ns.name, [])
        address, route = [phase.setdefault(ns.name, []) for phase in made.phases[-2:]]
        make.append(["ip", _links(ns, made)])
        make.append(["sysctl", _sysctls(ns)])
        upper = [link for link in ns.links.values() if link.kind in STACKED]
        if upper:
            address.append(["ip", [line for link in upper for line in _settings(link, made, ns)]])
            address.append(["sysctl", _link_sysctls(ns, upper)])
        address.append(["ip", _addresses(ns)])
        if upper:
            route.append(
                ["ip", [f"link set dev {link.name} {'up' if link.up else 'down'}" for link in upper]]
            )
        route.append(["ip", _routes(ns)])
        six = _rules(ns, 6)
        if six:
            route.append(["ip -6", six])
        route.append(["bridge", _vlans(ns) + _fdb(ns)])
        _netfilter(ns, route, made, now)
        files = {path: text for path, text in ns.files.items() if path in FILES}
        if files:
            route.append(["files", files])
        _sockets(ns, made)
    for phase, level in zip(made.phases[1:], levels, strict=False):
        for ns_name, lines in level.items():
            phase[ns_name] = [["ip", lines]]
    return made


# -- links ----------------------------------------------------------------------------------------------


def _wires(network: Network, made: Plan) -> None:
    lines = ["link set dev lo up"]
    names: dict[str, str] = {}
    for number, wire in enumerate(network.wires.values()):
        names[wire.name] = f"wire{number}"
        mac = mac_from("wire", wire.name)
        lines.append(f"link add name wire{number} address {mac} type bridge stp_state 0 mcast_snooping 0")
        lines.append(f"link set dev wire{number} addrgenmode none mtu {wire.mtu or BIGGEST_MTU} up")
    after: list[str] = []
    number = 0
    for ns in network.netns.values():
        for link in ns.links.values():
            if link.kind != "physical":
                continue
            port = f"port{number}"
            number += 1
            wire_ = network.wires.get(link.wire)
            mtu = (wire_.mtu if wire_ else 0) or BIGGEST_MTU
            made.root.append(
                f"link add {_end(made, ns.name, link)} type veth peer name {port} "
                f"netns {made.netns[UNDERLAY]} mtu {mtu} address {mac_from('wire', port)}"
            )
            after.append(f"link set dev {port} addrgenmode none")
            if wire_ is not None:
                after.append(f"link set dev {port} master {names[wire_.name]}")
            if wire_ is not None and wire_.up and (link.carrier or not link.up):
                after.append(f"link set dev {port} up")
    made.phases[0][UNDERLAY] = [
        ["ip", lines + after],
        ["sysctl", [["net/bridge/bridge-nf-call-iptables", "0"]]],
    ]


def _create_outside(network: Network, made: Plan, ns: Netns, link: Link, done: set[tuple[str, str]]) -> None:
    """Make veth pairs from outside, since their ends are in two namespaces; name links nobody can make."""
    if link.kind not in KINDS:
        why = CANNOT.get(link.kind, "the twin cannot make this kind yet")
        made.missing.append(Missing(ns.name, f"link {link.name} of kind {link.kind}", why))
    if link.kind != "veth" or (ns.name, link.name) in done:
        return
    if (
        link.peer is None
        or link.peer.netns not in network.netns
        or link.peer.link not in network.netns[link.peer.netns].links
    ):
        made.missing.append(Missing(ns.name, f"veth {link.name}", "its other end is not in this network"))
        return
    other = network.netns[link.peer.netns].links[link.peer.link]
    done.add((link.peer.netns, other.name))
    made.root.append(
        f"link add {_end(made, ns.name, link)} type veth peer {_end(made, link.peer.netns, other)}"
    )


def _end(made: Plan, ns: str, link: Link) -> str:
    """Return what `ip link add` needs to know of one end of a pair."""
    where = f"name {link.name} netns {made.netns[ns]}"
    return f"{where} index {link.index} mtu {link.mtu} address {link.mac}"


def _links(ns: Netns, made: Plan) -> list[str]:
    lines = []
    for link in sorted(
        ns.links.values(), key=lambda item: KINDS.index(item.kind) if item.kind in KINDS else len(KINDS)
    ):
        # A bridge follows its ports' MTU unless somebody has changed its own: so it starts with another one.
        mtu = link.mtu - 1 if link.kind == "bridge" else link.mtu
        start = f"link add name {link.name} index {link.index} mtu {mtu} address {link.mac} type {link.kind}"
        if link.kind == "bridge":
            options, usual = link.bridge or BridgeOptions(), BridgeOptions()
            words = [start]
            for field, name in _BRIDGE_OPTIONS.items():
                value = getattr(options, field)
                if value != getattr(usual, field):  # a kernel without VLAN filtering refuses even its default
                    words += [name, str(round(value * 100) if field == "ageing" else int(value))]
            lines.append(" ".join(words))
        elif link.kind == "vxlan" and link.vxlan is not None:
            v = link.vxlan
            words = [
                start,
                f"id {v.vni} dstport {v.port}",
                "learning" if v.learning else "nolearning",
                f"df {v.df}",
            ]
            words += [f"local {v.local}"] if v.local else []
            words += [f"dev {v.link}"] if v.link else []
            words += [f"ttl {v.ttl}"] if v.ttl else []
            lines.append(" ".join(words))
    for link in ns.links.values():
        if link.kind in KINDS and link.kind not in STACKED:
            lines += _settings(link, made, ns)
    return lines


def _levels(network: Network) -> list[dict[str, list[str]]]:
    """What makes the devices on other links: [what stands on the ground, what on that...], by the lower's namespace."""
    levels: list[dict[str, list[str]]] = []

    def height(link: Link) -> int:
        below = network.below(link)
        return 0 if below is None else 1 + height(below[1])

    for ns in network.netns.values():
        for link in ns.links.values():
            if link.kind not in STACKED or link.lower is None:
                continue
            at = height(link)
            levels += [{} for _ in range(at - len(levels))]
            if at:
                levels[at - 1].setdefault(link.lower.netns, []).append(_upper(ns, link, link.lower.link))
    return levels


def _upper(ns: Netns, link: Link, lower: str) -> str:
    if link.vlan is not None:
        options = f"vlan id {link.vlan.id}"
    elif link.ipvlan is not None:
        options = f"ipvlan mode {link.ipvlan.mode} {link.ipvlan.flag}"
    else:
        options = f"macvlan mode {link.macvlan.mode if link.macvlan is not None else 'bridge'}"
    own = "" if link.ipvlan is not None else f" address {link.mac}"
    return (
        f"link add link {lower} name {link.name} netns {file_name(ns.name)} index {link.index} mtu {link.mtu}{own} "
        f"type {options}"
    )


def _settings(link: Link, made: Plan, ns: Netns) -> list[str]:
    """What is set on a link that is there."""
    # An ipvlan device's ARP is the kernel's affair: its mode says whether there is any.
    arp_off = link.noarp and link.ipvlan is None
    words = [f"link set dev {link.name} addrgenmode none mtu {link.mtu}"]
    words += ["promisc on"] if link.promiscuous else []
    words += ["arp off"] if arp_off else []
    words += [f"txqueuelen {link.txqlen}"] if link.txqlen != 1000 else []
    words += [f"master {link.master}"] if link.master else []
    lines = [" ".join(words)]
    if link.master and link.port is not None:
        p = link.port
        lines.append(
            f"link set dev {link.name} type bridge_slave hairpin {_on(p.hairpin)} "
            f"learning {_on(p.learning)} flood {_on(p.flood)} isolated {_on(p.isolated)}"
        )
        if p.state != "forwarding":
            made.missing.append(
                Missing(ns.name, f"port state {p.state} of {link.name}", "the kernel decides port states")
            )
    if link.kind != "loopback" and not link.noarp:
        lines.append(f"ntable change name arp_cache dev {link.name} retrans {NEIGHBOUR_RETRANS}")
        lines.append(f"ntable change name ndisc_cache dev {link.name} retrans {NEIGHBOUR_RETRANS}")
    return lines


def _on(flag: bool) -> str:
    return "on" if flag else "off"


def _addresses(ns: Netns) -> list[str]:
    lines = []
    for link in ns.links.values():
        if link.kind not in KINDS:
            continue
        for a in ns.addresses.get(link.name, ()):
            if link.kind == "loopback" and link.up and f"{a.local}/{a.length}" in LOOPBACK:
                continue  # they come with the link
            words = [f"address replace {a.local}/{a.length} dev {link.name} scope {a.scope}"]
            words += [f"broadcast {a.broadcast}"] if a.broadcast else []
            words += [f"label {a.label}"] if a.label and a.label != link.name else []
            if "noprefixroute" in a.flags or (link.up and not _connected(ns, a.network.text, link)):
                words.append("noprefixroute")
            words += ["nodad"] if a.family == 6 else []
            lines.append(" ".join(words))
        if link.up and link.kind not in STACKED:
            lines.append(f"link set dev {link.name} up")
        if link.kind == "loopback" and link.up:
            have = {a.local for a in ns.addresses.get(link.name, ())}
            lines += [f"address del {a} dev lo" for a in LOOPBACK if a.split("/")[0] not in have]
    return lines


def _connected(ns: Netns, network: str, link: Link) -> bool:
    """True when the model has the route that the kernel makes beside an address."""
    block = prefix(network)
    if link.kind == "loopback" or block.length == (32 if block.family == 4 else 128):
        return True
    return any(
        r.dst == network and r.dev == link.name and r.proto == "kernel" for r in ns.route_list(block.family)
    )


# -- parameters -----------------------------------------------------------------------------------------


def _sysctls(ns: Netns) -> list[list[str]]:
    """Every parameter the model knows, `all` and `default` first (writing those touches the links')."""
    out: list[list[str]] = []
    for key in sorted({**sysctl.DEFAULTS, **ns.sysctls}):
        if key in sysctl.ALIASES or key in HOST_WIDE or key in sysctl.IPVS:
            continue
        base, dev, name = _split(key)
        if dev in ("", "all", "default"):
            path = f"{base.replace('.', '/')}/conf/{dev}/{name}" if dev else key.replace(".", "/")
            value = ns.sysctl(key)
            out.append([path, "0\t0" if key == _PING_GROUPS and value == sysctl.DEFAULTS[key] else value])
    out.sort(key=lambda pair: (not pair[0].endswith("ip_forward"), "/conf/all/" not in pair[0]))
    out += _link_sysctls(ns, [i for i in ns.links.values() if i.kind in KINDS and i.kind not in STACKED])
    return out + [[path, value] for path, value in ONLY_HERE.items()]


def _link_sysctls(ns: Netns, links: list[Link]) -> list[list[str]]:
    """Every parameter of these links."""
    names: list[tuple[int, str]] = []
    for key in sorted({**sysctl.DEFAULTS, **ns.sysctls}):
        base, dev, name = _split(key)
        if dev == "default" and not (name == "forwarding" and base == "net.ipv4"):
            names.append((int(base[-1]), name))
    out: list[list[str]] = []
    for link in links:
        for fam, name in names:
            out.append(
                [f"net/ipv{fam}/conf/{link.name}/{name}", ns.sysctl(sysctl.conf(fam, link.name, name))]
            )
        if ns.sysctl(sysctl.conf(4, link.name, "proxy_arp")) != "0":
            # The kernel waits up to 0.8 s before it answers for others; the model's answers take no time.
            out.append([f"net/ipv4/neigh/{link.name}/proxy_delay", "0"])
    return out


def _split(key: str) -> tuple[str, str, str]:
    """Split "net.ipv4.conf.flannel.1.rp_filter" into base, device and name; device "" for a plain key."""
    base, sep, rest = key.partition(".conf.")
    if not sep:
        return key, "", ""
    dev, _, name = rest.rpartition(".")
    return base, dev, name


# -- routes, neighbours, forwarding entries -------------------------------------------------------------


def _routes(ns: Netns) -> list[str]:
    present = [link.name for link in ns.links.values() if link.kind in KINDS]
    routes = [r for table in ns.routes.values() for r in table.values() if not _kernel_made(r)]
    routes.sort(
        key=lambda r: (bool(r.via or r.nexthops), prefix(r.dst).length != (32 if r.family == 4 else 128))
    )
    lines = [f"route add {_route(r)}" for r in routes if not r.dev or r.dev in present]
    for n in ns.neighbours.values():
        if n.dev not in present:
            continue
        if n.proxy:
            lines.append(f"neighbour add proxy {n.address} dev {n.dev}")
        elif n.state in ("PERMANENT", "NOARP"):
            lines.append(f"neighbour replace {n.address} lladdr {n.mac} dev {n.dev} nud {n.state.lower()}")
    return lines + _rules(ns, 4)


def _kernel_made(route: Route) -> bool:
    """True for the routes that come with an address: local, broadcast and connected ones."""
    return route.proto == "kernel" or (route.table == TABLE_LOCAL and route.type == "broadcast")


def _route(r: Route) -> str:
    words = [] if r.type == "unicast" else [r.type]
    words.append(r.dst)
    words += ["via", r.via] if r.via else []
    words += (
        ["dev", r.dev]
        if r.dev and r.type in ("unicast", "local", "multicast", "broadcast", "anycast")
        else []
    )
    words += ["table", str(r.table)]
    # Never "boot", the default: after a number, iproute2 takes a name it has seen earlier in the batch for that number.
    words += ["proto", r.proto] if r.proto != "boot" else []
    words += ["scope", r.scope] if r.family == 4 and r.scope != "global" else []
    words += ["metric", str(r.metric)] if r.metric else []
    words += ["src", r.prefsrc] if r.prefsrc else []
    words += ["mtu", str(r.mtu)] if r.mtu else []
    words += ["onlink"] if r.onlink else []
    for leg in r.nexthops:
        words += ["nexthop", *(["via", leg.via] if leg.via else []), *(["dev", leg.dev] if leg.dev else [])]
        words += ["weight", str(leg.weight), *(["onlink"] if leg.onlink else [])]
    return " ".join(words)


def _rules(ns: Netns, fam: int) -> list[str]:
    wished, default = ns.rules[fam], default_rules(fam)
    gone = [f"rule del pref {r.priority}" for r in default if r not in wished]
    return gone + [f"rule add {_rule(r)}" for r in wished if r not in default]


def _rule(r: RouteRule) -> str:
    words = ["not"] if r.invert else []
    words += ["pref", str(r.priority), "from", r.src or "all"]
    words += ["to", r.dst] if r.dst else []
    words += ["iif", r.iif] if r.iif else []
    words += ["oif", r.oif] if r.oif else []
    words += ["fwmark", f"{r.fwmark:#x}/{r.fwmask:#x}"] if r.fwmask else []
    words += ["ipproto", str(r.ipproto)] if r.ipproto else []
    words += [r.action] if r.action != "lookup" else ["lookup", str(r.table)]
    words += ["suppress_prefixlength", str(r.suppress_prefixlength)] if r.suppress_prefixlength >= 0 else []
    return " ".join(words)


def _vlans(ns: Netns) -> list[str]:
    """The VLANs of bridges that filter by them, where they are not the kernel's default."""
    lines = []
    for link in ns.links.values():
        bridge = ns.links.get(link.master or link.name)
        if bridge is None or bridge.bridge is None or not bridge.bridge.vlan_filtering:
            continue
        has = vlans_of(link)
        own = "" if link.master else " self"
        lines += [f"vlan del dev {link.name} vid {one.vid}{own}" for one in DEFAULT_VLANS if one not in has]
        for one in has:
            if one not in DEFAULT_VLANS:
                flags = (" pvid" if one.pvid else "") + (" untagged" if one.untagged else "")
                lines.append(f"vlan add dev {link.name} vid {one.vid}{flags}{own}")
    return lines


def _fdb(ns: Netns) -> list[str]:
    """Static entries only: what a bridge or tunnel learns, it learns again; a macvlan tells the link below its MAC."""
    entries: Iterable[FdbEntry] = (
        e for group in ns.fdb.values() for e in group if e.state and not _own(ns, e) and not _uppers(ns, e)
    )
    lines = []
    for e in entries:
        words = ["fdb", "append" if e.dst else "replace", e.mac, "dev", e.dev]
        words += ["dst", e.dst] if e.dst else []
        words += ["vlan", str(e.vlan)] if e.vlan else []
        words += ["vni", str(e.vni)] if e.vni else []
        words += ["port", str(e.port)] if e.port else []
        words += ["master" if e.master else "self", e.state]
        lines.append(" ".join(words))
    return lines


def _own(ns: Netns, entry: FdbEntry) -> bool:
    """True for the entries a bridge makes itself: its own MAC and its ports'."""
    return bool(entry.master) and entry.state == "permanent" and bool(ns.by_mac(entry.mac))


def _uppers(ns: Netns, entry: FdbEntry) -> bool:
    """True for the entries that devices on a link make there."""
    uppers = ns.network.uppers(ns.name, entry.dev) if ns.network is not None else []
    return not entry.master and not entry.dst and any(link.mac == entry.mac for _home, link in uppers)


# -- netfilter and sockets ------------------------------------------------------------------------------


XTABLES = ("raw", "mangle", "nat", "filter", "security")
"""Tables of the families ip and ip6 that `iptables-nft` keeps for itself."""


def is_xtables(family: str, table: str) -> bool:
    """True for a table of nftables that belongs to `iptables-nft`: "managed by iptables-nft, do not touch!"."""
    return family in ("ip", "ip6") and table in XTABLES


def _netfilter(ns: Netns, steps: list[list[Any]], made: Plan, now: float) -> None:
    from kubenet_lab.kernel.dialects.ipset import save as save_sets
    from kubenet_lab.kernel.dialects.iptables import save
    from kubenet_lab.kernel.netfilter.matches.nfacct import NfAcct

    if ns.ipsets:
        steps.append(["ipset", save_sets(ns.ipsets)])
    names = {
        m.object_name
        for fam in (4, 6)
        for *_, rule in ns.iptables[fam]
        for m in rule.matches
        if isinstance(m, NfAcct)
    }
    if names:
        steps.append(["nfacct", sorted(names)])
    if ns.has_ipvs and ns.ipvs.services:
        what = f"{len(ns.ipvs.services)} virtual servers of IPVS"
        made.missing.append(
            Missing(ns.name, what, "not supported: no kernel with ip_vs was there to try it on")
        )
    for fam, tool in ((4, "iptables-restore"), (6, "ip6tables-restore")):
        text = save(ns.iptables[fam])
        if text.strip():
            steps.append([tool, text])
    if ns.has_nftables:
        from kubenet_lab.kernel.dialects.nft import list_ruleset

        # After iptables, as on a node: of hooks with one priority the kernel asks the later first.
        steps.append(["nft", list_ruleset(ns.nftables, now=now)])
        made.missing += [
            Missing(
                ns.name, f"nftables table {family} {name}", "iptables-nft keeps its own rules under that name"
            )
            for family, name in ns.nftables.tables
            if is_xtables(family, name)
        ]


def _sockets(ns: Netns, made: Plan) -> None:
    every: list[Socket] = [s for group in ns.sockets.values() for s in group]
    for s in every:
        number = len(made.sockets)
        if s.proto == UNIX:
            continue  # who would answer there does not run in the twin, which is given its state
        if s.proto not in (6, 17):
            made.missing.append(
                Missing(
                    ns.name, f"socket of protocol {s.proto} on port {s.port}", "the twin serves TCP and UDP"
                )
            )
            continue
        if s.upstream is not None:
            made.missing.append(
                Missing(
                    ns.name, f"connections that the proxy on {s} opens", "the twin's listener answers itself"
                )
            )
        if s.handler is not None:
            made.handlers[number] = s.handler
        made.sockets.append({
            "id": number, "ns": ns.name, "proto": s.proto, "address": s.address, "port": s.port,
            "handler": s.handler is not None, "backlog_full": s.backlog_full,
            "page": f"{ns.name.rpartition('/')[2]}: hello, {{source}}\n",
        })  # fmt: skip


__all__ = ["BIGGEST_MTU", "UNDERLAY", "ZERO_MAC", "Missing", "Plan", "file_name", "plan"]
