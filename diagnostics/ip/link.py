"""`ip link`: show, add, set and delete."""

from __future__ import annotations

from typing import Any

from diagnostics.ip.common import Args, Ask, Refused, command, done, rows_of
from diagnostics.tool import NotModelled, Result
from kubenet_lab.kernel.dialects import ip_link
from kubenet_lab.kernel.dialects.iproute2 import Wrong, mac
from kubenet_lab.kernel.link import (
    BridgeOptions,
    BridgePort,
    IpvlanOptions,
    Link,
    MacvlanOptions,
    Peer,
    VlanOptions,
    VxlanOptions,
)
from kubenet_lab.packet.ip import mac_from

COMMANDS = (
    "add",
    "set",
    "change",
    "replace",
    "delete",
    "show",
    "list",
    "lst",
    "xstats",
    "afstats",
    "property",
    "help",
)
KINDS = ("veth", "bridge", "vxlan", "dummy", "vlan", "macvlan", "ipvlan")
STACKED = ("vlan", "macvlan", "ipvlan")
MACVLAN_MODES = ("private", "vepa", "bridge", "passthru")
IPVLAN_MODES = ("l2", "l3", "l3s")
OTHER_KINDS = (
    "ipip",
    "sit",
    "gre",
    "wireguard",
    "bond",
    "tun",
    "vrf",
    "geneve",
    "ifb",
)


def run(ask: Ask, words: list[str]) -> Result:
    """`ip link [COMMAND]`."""
    args = Args(words)
    verb = command(args.take(), COMMANDS, "link") if args else "show"
    if verb in ("show", "list", "lst"):
        return _show(ask, args)
    if verb == "add":
        return _add(ask, args)
    if verb == "set":
        return _set(ask, args)
    if verb == "delete":
        return _delete(ask, args)
    raise NotModelled(f"ip link {verb}")


def select(ask: Ask, args: Args) -> list[Link]:
    """Read the selectors that `ip link show` and `ip addr show` share. Raises Refused."""
    chosen = list(ask.ns.links.values())
    while args:
        word = args.take()
        if word == "up":
            chosen = [link for link in chosen if link.up]
        elif word == "type":
            kind = args.take("type")
            if kind.endswith("_slave"):
                chosen = [link for link in chosen if link.master]
            else:
                chosen = [link for link in chosen if link.kind == kind]
        elif word == "master":
            master = ask.device(args.take("master"))
            chosen = [link for link in chosen if link.master == master.name]
        elif word in (
            "group",
            "vrf",
            "nomaster",
            "to",
            "scope",
            "label",
            "dynamic",
            "permanent",
            "tentative",
            "primary",
            "secondary",
        ):
            raise NotModelled(f"selector {word}")
        else:
            name = args.take("dev") if word == "dev" else word
            chosen = [ask.device(name, show=True)]
    return chosen


def _show(ask: Ask, args: Args) -> Result:
    chosen = select(ask, args)
    text = ip_link.show(
        ask.ns,
        links=chosen,
        json=ask.json,
        details_=ask.details,
        brief=ask.brief,
        oneline=ask.oneline,
        pretty=ask.pretty,
    )
    return Result(text, rows=rows_of(sorted(chosen, key=lambda one: one.index)))


def _mac(word: str) -> str:
    try:
        return mac(word, "address")
    except Wrong:
        raise Refused(f'"{word}" is invalid lladdr.\n', 1) from None


def _common(word: str, args: Args, fields: dict[str, Any]) -> bool:
    """Read an option that `add` and `set` share; False when `word` is none."""
    if word == "mtu":
        fields["mtu"] = args.number("mtu")
    elif word == "address":
        fields["mac"] = _mac(args.take("address"))
    elif word in ("txqueuelen", "txqlen", "qlen"):
        fields["txqlen"] = args.number("txqueuelen")
    elif word in ("up", "down"):
        fields["up"] = word == "up"
    else:
        return False
    return True


def _add(ask: Ask, args: Args) -> Result:
    ns = ask.ns
    name, kind, lower, index = "", "", "", 0
    fields: dict[str, Any] = {}
    while args and not kind:
        word = args.take()
        if word == "type":
            kind = args.take("type")
        elif word == "link":
            lower = args.take("link")
        elif word == "index":
            index = args.number("index")
        elif _common(word, args, fields):
            continue
        elif word in ("netns", "group", "numtxqueues", "numrxqueues", "broadcast", "alias"):
            raise NotModelled(f"ip link add {word}")
        else:
            name = args.take("name") if word in ("name", "dev") else word
    if not kind:
        raise Refused('Not enough information: "type" argument is required\n', 255)
    if kind not in KINDS:
        if kind in OTHER_KINDS:
            raise NotModelled(f"links of type {kind}")
        raise Refused("Error: Unknown device type.\n", 2)
    if lower and kind not in STACKED:
        raise NotModelled(f"ip link add link of type {kind}")
    if not name:
        raise NotModelled(f"a {kind} link without a name")
    if len(name) > 15:
        raise Refused(f'Error: argument "{name}" is wrong: "name" not a valid ifname\n\n', 255)
    up = fields.pop("up", False)
    if kind == "veth":
        _add_veth(ask, args, name, fields)
    elif kind in STACKED:
        _add_upper(ask, name, _stacked(ask, kind, lower, args), fields, index)
    else:
        given = {"mac": mac_from(ns.name, name), **fields}
        extra: dict[str, Any] = {"mac_set": "mac" in fields, "mtu_set": "mtu" in fields}
        if kind == "bridge":
            extra["bridge"] = _bridge(args)
        elif kind == "vxlan":
            options = extra["vxlan"] = _vxlan(ask, args)
            if "mtu" not in given and options.link:
                given["mtu"] = ns.links[options.link].mtu - (70 if ":" in options.local else 50)
        elif args:
            raise NotModelled(f"ip link add type {kind} {args.peek()}")
        ns.add_link(name, kind, index=index, **given, **extra)
    if up:
        ns.set_link(name, up=True)
    return done()


def _stacked(ask: Ask, kind: str, lower: str, args: Args) -> MacvlanOptions | IpvlanOptions | VlanOptions:
    """Read the options of a device on another link; modes left out are the kernel's: vepa, and l3."""
    if not lower:
        raise NotModelled(f"a {kind} device on no link")
    below = Peer(ask.ns.name, ask.device(lower).name)
    mode, flag, vid = {"macvlan": "vepa", "ipvlan": "l3"}.get(kind, ""), "bridge", -1
    while args:
        word = args.take()
        if word == "mode" and kind != "vlan":
            mode = args.take("mode")
            known = MACVLAN_MODES if kind == "macvlan" else IPVLAN_MODES
            if mode not in known:
                raise NotModelled(f"{kind} mode {mode}")
        elif word in ("bridge", "private", "vepa") and kind == "ipvlan":
            flag = word
        elif word == "id" and kind == "vlan":
            vid = args.number("id")
        elif word in ("protocol", "proto") and kind == "vlan":
            if args.take("protocol").lower() != "802.1q":
                raise NotModelled("VLAN protocols other than 802.1Q")
        else:
            raise NotModelled(f"{kind} option {word}")
    if kind == "macvlan":
        return MacvlanOptions(below, mode)
    if kind == "ipvlan":
        return IpvlanOptions(below, mode, flag)
    if not 0 < vid < 4095:
        raise NotModelled("a VLAN device without an id from 1 to 4094")
    return VlanOptions(below, vid)


def _add_upper(
    ask: Ask,
    name: str,
    options: MacvlanOptions | IpvlanOptions | VlanOptions,
    fields: dict[str, Any],
    index: int,
) -> None:
    # A macvlan's own MAC is random where none is given; here it is derived, so that a world repeats.
    derived = mac_from(ask.ns.name, name) if isinstance(options, MacvlanOptions) else ""
    ask.call.network.add_upper(
        ask.ns.name, name, options, mac=fields.get("mac", derived), mtu=fields.get("mtu", 0), index=index
    )
    if "txqlen" in fields:
        ask.ns.set_link(name, txqlen=fields["txqlen"])


def _add_veth(ask: Ask, args: Args, name: str, fields: dict[str, Any]) -> None:
    ns = ask.ns
    peer: dict[str, Any] = {}
    peer_name = ""
    if args and args.take() != "peer":
        raise NotModelled("options of a veth pair other than peer")
    while args:
        word = args.take()
        if _common(word, args, peer):
            continue
        if word == "netns":
            raise NotModelled("ip link add type veth peer netns")
        peer_name = args.take("name") if word in ("name", "dev") else word
    number = 0
    while not peer_name or peer_name in ns.links:
        if peer_name and peer_name in ns.links and not peer_name.startswith("veth"):
            raise Refused("RTNETLINK answers: File exists\n")
        peer_name, number = f"veth{number}", number + 1
    if name in ns.links:
        raise Refused("RTNETLINK answers: File exists\n")
    # The kernel makes the far end first, which gives it the lower index.
    ask.call.network.add_veth(
        ns.name,
        peer_name,
        ns.name,
        name,
        mac_a=peer.get("mac", mac_from(ns.name, peer_name)),
        mac_b=fields.get("mac", mac_from(ns.name, name)),
    )
    for end, options in ((name, fields), (peer_name, peer)):
        later = {key: value for key, value in options.items() if key != "mac"}
        if later:
            ns.set_link(end, **later)


def _bridge(args: Args, old: BridgeOptions | None = None) -> BridgeOptions:
    base = old or BridgeOptions()
    values = {name: getattr(base, name) for name in base.__struct_fields__}
    names = {
        "vlan_filtering": "vlan_filtering",
        "nf_call_iptables": "nf_call_iptables",
        "nf_call_ip6tables": "nf_call_ip6tables",
        "stp_state": "stp",
        "mcast_snooping": "mcast_snooping",
    }
    while args:
        word = args.take()
        if word == "ageing_time":
            values["ageing"] = args.number("ageing_time") / 100
        elif word in names:
            values[names[word]] = args.number(word) != 0
        else:
            raise NotModelled(f"bridge option {word}")
    return BridgeOptions(**values)


def _vxlan(ask: Ask, args: Args) -> VxlanOptions:
    vni, local, lower, port, learning, ttl, df = -1, "", "", 8472, True, 0, "unset"
    while args:
        word = args.take()
        if word in ("id", "vni"):
            vni = args.number("id")
        elif word == "local":
            local = args.address()
        elif word == "dev":
            lower = ask.device(args.take("dev")).name
        elif word == "dstport":
            port = args.number("dstport")
        elif word in ("learning", "nolearning"):
            learning = word == "learning"
        elif word in ("ttl", "hoplimit"):
            got = args.take("ttl")
            ttl = 0 if got == "auto" else int(got)
        elif word == "df":
            df = args.take("df")
        else:
            raise NotModelled(f"vxlan option {word}")
    if vni < 0:
        raise Refused("vxlan: missing virtual network identifier\n", 255)
    if not 0 <= vni < 1 << 24:
        raise Refused(f'Error: argument "{vni}" is wrong: invalid id\n\n', 255)
    return VxlanOptions(vni, local, lower, port, learning, ttl, df)


def _set(ask: Ask, args: Args) -> Result:
    ns = ask.ns
    name = ""
    fields: dict[str, Any] = {}
    port: dict[str, Any] = {}
    rename = ""
    while args:
        word = args.take()
        if _common(word, args, fields):
            continue
        if word == "master":
            fields["master"] = args.take("master")
        elif word == "nomaster":
            fields["master"] = ""
        elif word in ("arp", "promisc"):
            on = args.take(word) == "on"
            fields["noarp" if word == "arp" else "promiscuous"] = on != (word == "arp")
        elif word == "name" and name:
            rename = args.take("name")
        elif word == "type":
            kind = args.take("type")
            if kind == "bridge":
                fields["bridge"] = _bridge(args, ask.device(name).bridge)
            elif kind == "bridge_slave":
                port |= _port(args)
            else:
                raise NotModelled(f"ip link set type {kind}")
        elif word in (
            "netns",
            "group",
            "alias",
            "vf",
            "xdp",
            "allmulticast",
            "multicast",
            "carrier",
            "state",
            "addrgenmode",
        ):
            raise NotModelled(f"ip link set {word}")
        elif not name:
            name = args.take("dev") if word == "dev" else word
        else:
            raise Refused(f'Error: either "dev" is duplicate, or "{word}" is a garbage.\n', 255)
    if not name:
        raise Refused('Not enough of information: "dev" argument is required.\n', 255)
    link = ask.device(name)
    if "mtu" in fields:
        _check_mtu(link, fields["mtu"])
    if fields.get("master"):
        master = ask.device(fields["master"])
        if master.kind != "bridge":
            raise Refused("Error: Device does not allow enslaving to it.\n")
        if link.kind in ("bridge", "loopback"):
            raise Refused(
                "Error: Can not enslave a bridge to a bridge.\n"
                if link.kind == "bridge"
                else "Error: Device type not supported.\n"
            )
    if rename:
        raise NotModelled("ip link set name")
    if port:
        base = link.port or BridgePort()
        fields["port"] = BridgePort(**{n: port.get(n, getattr(base, n)) for n in base.__struct_fields__})
    ns.set_link(name, **fields)
    return done()


def _port(args: Args) -> dict[str, Any]:
    out: dict[str, Any] = {}
    while args:
        word = args.take()
        if word not in ("hairpin", "learning", "flood", "isolated"):
            raise NotModelled(f"bridge_slave option {word}")
        out[word] = args.take(word) in ("on", "1")
    return out


def _check_mtu(link: Link, mtu: int) -> None:
    low, high = (0, 1 << 31) if link.kind == "loopback" else (68, 65535)
    if mtu < low:
        raise Refused("Error: mtu less than device minimum.\n")
    if mtu > high:
        raise Refused("Error: mtu greater than device maximum.\n")


def _delete(ask: Ask, args: Args) -> Result:
    word = args.take()
    name = args.take("dev") if word == "dev" else word
    link = ask.device(name)
    if link.kind in ("loopback", "physical"):
        raise Refused("RTNETLINK answers: Operation not supported\n")
    ask.ns.delete_link(name)
    return done()
