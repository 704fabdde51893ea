"""A frame in a bridge: learning, the FDB, flooding, hairpin, and br_netfilter's detour through iptables.

net/bridge/{br_input,br_forward,br_fdb,br_netfilter_hooks}.c.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.link import BridgePort, Link, PortVlan
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.packet import Frame, Packet
from kubenet_lab.trace import Step
from kubenet_lab.walk import hooks, links, neighbours, stacked
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb

_PORT = BridgePort()


def filters(ns: Netns, bridge: Link, packet: Packet) -> bool:
    """True when bridged packets of this bridge pass through iptables (`bridge-nf-call-iptables`)."""
    key = "ip6tables" if ":" in packet.src else "iptables"
    if ns.sysctl(f"net.bridge.bridge-nf-call-{key}") == "1":
        return True
    options = bridge.bridge
    return options is not None and (
        options.nf_call_ip6tables if key == "ip6tables" else options.nf_call_iptables
    )


def from_port(w: Walk, ns: Netns, port: Link, frame: Frame) -> None:
    """A frame came in by a port."""
    bridge = ns.links[port.master]
    options = port.port or _PORT
    if options.state not in ("forwarding", "learning"):
        w.end("lost", "link-down", ns, port.name, port, note=f"the port is {options.state}")
        return
    if not bridge.up:
        w.end("lost", "link-down", ns, bridge.name, bridge)
        return
    vid = 0
    if bridge.bridge is not None and bridge.bridge.vlan_filtering:
        vid = _ingress(options.vlans, frame)
        if not vid:
            w.end("dropped", "vlan-filtered", ns, port.name, port, _words(frame))
            return
    if options.learning:
        _learn(w, ns, bridge, port, frame.src, vid)
    body = frame.body
    if ns.has_nftables and not hooks.bridged(w, ns, "prerouting", frame, port.name, ""):
        return
    # What has a tag is no IP packet to br_netfilter (bridge-nf-filter-vlan-tagged is 0).
    if isinstance(body, Packet) and not frame.vlan and filters(ns, bridge, body):
        _netfilter_first(w, ns, bridge, port, frame, body, vid)
        return
    decide(w, ns, bridge, frame, port, None, vid)


# -- VLANs, on a bridge that filters by them (net/bridge/br_vlan.c) ------------------------------------------


def _ingress(vlans: tuple[PortVlan, ...], frame: Frame) -> int:
    """`br_allowed_ingress`: the VLAN a frame belongs to, by its tag or the port's PVID; 0 when it may not come in."""
    tag = frame.vlan
    for one in vlans:
        if one.vid == tag if tag else one.pvid:
            return one.vid
    return 0


def _egress(vlans: tuple[PortVlan, ...], vid: int) -> PortVlan | None:
    """`br_allowed_egress`: the port's membership in a VLAN, None when it is no member."""
    return next((one for one in vlans if one.vid == vid), None)


def _tagged(frame: Frame, member: PortVlan) -> Frame:
    """`br_handle_vlan`: the frame as it leaves the bridge by a member of its VLAN."""
    tag = 0 if member.untagged else member.vid
    return frame if frame.vlan == tag else replace(frame, vlan=tag)


def _words(frame: Frame) -> str:
    return f"tag {frame.vlan}" if frame.vlan else "no tag, and the port has no PVID"


def _known(ns: Netns, bridge: Link, mac: str, vid: int) -> FdbEntry | None:
    """The entry for a MAC; a bridge that filters VLANs keeps one a VLAN."""
    found = ns.fdb.get((bridge.name, mac))
    if found is None:
        return None
    if not vid:
        return found[0]
    return next((entry for entry in found if entry.vlan == vid), None)


def _own(ns: Netns, bridge: Link, mac: str, vid: int) -> bool:
    """True when a MAC is the bridge's or a port's own, in a VLAN that it is a member of."""
    if mac not in ns.own_macs(bridge.name):
        return False
    if not vid:
        return True
    assert bridge.bridge is not None
    if mac == bridge.mac and _egress(bridge.bridge.vlans, vid):
        return True
    return any(port.mac == mac and _egress((port.port or _PORT).vlans, vid) for port in ns.ports(bridge.name))


def _up(w: Walk, ns: Netns, bridge: Link, frame: Frame, skb: Skb | None, vid: int) -> None:
    """`br_pass_frame_up`: to the host, as far as the bridge itself is in the frame's VLAN."""
    if vid:
        assert bridge.bridge is not None
        member = _egress(bridge.bridge.vlans, vid)
        if member is None:
            w.end(
                "lost", "vlan-filtered", ns, bridge.name, bridge, f"{bridge.name} itself is not in VLAN {vid}"
            )
            return
        frame = _tagged(frame, member)
    stacks = w.network.stacks
    if stacks and (ns.name, bridge.name) in stacks and stacked.arrived(w, ns, bridge, frame):
        return
    if frame.vlan:
        w.end("lost", "vlan-unknown", ns, bridge.name, bridge, f"tag {frame.vlan}")
        return
    links.up(w, ns, bridge.name, frame, skb)


def _learn(w: Walk, ns: Netns, bridge: Link, port: Link, mac: str, vid: int) -> None:
    key = (bridge.name, mac)
    known = _known(ns, bridge, mac, vid)
    if known is not None and (known.state or known.dev == port.name):
        return
    if links.is_group(mac) or mac in ns.own_macs(bridge.name):
        return
    entry = FdbEntry(port.name, mac, master=bridge.name, vlan=vid, updated=w.now)
    ns.fdb[key] = (*(one for one in ns.fdb.get(key, ()) if vid and one.vlan != vid), entry)
    w.steps.append(Step("fdb", f"{bridge.name} learns", entry))


def _netfilter_first(
    w: Walk, ns: Netns, bridge: Link, port: Link, frame: Frame, pkt: Packet, vid: int
) -> None:
    """`br_nf_pre_routing`: PREROUTING sees the packet with the bridge as its input device, then bridging goes on."""
    skb = Skb(pkt, ns, bridge.name, frame.size)
    skb.physin = port.name
    skb.src_mac, skb.dst_mac = frame.src, frame.dst
    w.step("bridge", bridge.name, note="br_netfilter: the bridged packet passes iptables")
    if not hooks.prerouting(w, skb):
        return
    if skb.pkt.dst != pkt.dst:
        # br_nf_pre_routing_finish: a destination that DNAT changed needs a new MAC: the bridge's own, or, when the
        # new destination lies on this very bridge, that of the destination.
        way = ns.lookup(skb.pkt.dst, iif=bridge.name, mark=skb.mark)
        if way is None or way.route.type not in ("unicast", "local"):
            w.end(
                "dropped",
                "no-route",
                ns,
                "route",
                way.route if way else None,
                note=f"no route to {skb.pkt.dst}",
            )
            return
        if way.route.type == "unicast" and way.dev == bridge.name:
            w.steps.append(Step("route", "bridged DNAT", way.route))
            mac = neighbours.resolve(w, ns, bridge.name, way.via or skb.pkt.dst, "")
            if not mac:
                w.end(
                    "dropped",
                    "neighbour-failed",
                    ns,
                    bridge.name,
                    ns.neighbours.get((bridge.name, skb.pkt.dst)),
                )
                return
            frame = replace(frame, dst=mac, body=skb.pkt)
        else:
            frame = replace(frame, dst=bridge.mac, body=skb.pkt)
    elif skb.pkt is not pkt:
        frame = replace(frame, body=skb.pkt)
    decide(w, ns, bridge, frame, port, skb, vid)


def decide(w: Walk, ns: Netns, bridge: Link, frame: Frame, port: Link, skb: Skb | None, vid: int = 0) -> None:
    """`br_handle_frame_finish`: up to the host, to one port, or to all."""
    dst = frame.dst
    if links.is_group(dst):
        w.step("bridge", bridge.name, note=f"floods {dst}")
        _flood(w, ns, bridge, frame, port, skb, vid)
        _up(w, ns, bridge, frame, skb, vid)
        return
    if _own(ns, bridge, dst, vid):
        w.step("bridge", bridge.name, note="the frame is for the bridge itself")
        if ns.has_nftables and not hooks.bridged(w, ns, "input", frame, port.name, ""):
            return
        _up(w, ns, bridge, frame, skb, vid)
        return
    stacks = w.network.stacks
    if stacks and (ns.name, bridge.name) in stacks and stacked.hears(w.network, ns.name, bridge.name, dst):
        # A device on the bridge has that MAC, which makes the bridge promiscuous: it gets the frame as well.
        here, steps = w.hop, w.steps
        _up(w, ns, bridge, frame, skb, vid)
        w.hop, w.steps = here, steps
    known = _known(ns, bridge, dst, vid)
    if known is not None:
        w.steps.append(Step("fdb", bridge.name, known))
        target = ns.links[known.dev]
        if target.name == port.name and not (port.port or _PORT).hairpin:
            w.end("dropped", "hairpin-off", ns, port.name, port)
            return
        if vid and _egress((target.port or _PORT).vlans, vid) is None:
            w.end("dropped", "vlan-filtered", ns, target.name, target, f"{target.name} is not in VLAN {vid}")
            return
        _forward(w, ns, bridge, frame, port, target, skb, vid)
        return
    w.step("bridge", bridge.name, note=f"unknown MAC {dst}: floods")
    if not _flood(w, ns, bridge, frame, port, skb, vid):
        w.end("lost", "bridged-to-nobody", ns, bridge.name, note=f"no port for MAC {dst}")


def _flood(w: Walk, ns: Netns, bridge: Link, frame: Frame, port: Link, skb: Skb | None, vid: int) -> int:
    sent = 0
    here, steps = w.hop, w.steps
    for target in ns.ports(bridge.name):
        options = target.port or _PORT
        if not target.up or not options.flood:
            continue
        if target.name == port.name and not options.hairpin:
            continue
        if vid and _egress(options.vlans, vid) is None:
            continue
        _forward(w, ns, bridge, frame, port, target, skb, vid)
        w.hop, w.steps = here, steps
        sent += 1
    return sent


def _forward(
    w: Walk, ns: Netns, bridge: Link, frame: Frame, port: Link, target: Link, skb: Skb | None, vid: int
) -> None:
    if (port.port or _PORT).isolated and (target.port or _PORT).isolated:
        w.end("dropped", "isolated-port", ns, target.name, target)
        return
    if vid:
        member = _egress((target.port or _PORT).vlans, vid)
        assert member is not None
        frame = _tagged(frame, member)
        if frame.vlan:
            skb = None  # with a tag it is no IP packet to br_netfilter any more
    body = frame.body
    if isinstance(body, Packet) and frame.length > target.mtu + 14:
        w.end("dropped", "too-big-for-link", ns, target.name, target)
        return
    if ns.has_nftables and not (
        hooks.bridged(w, ns, "forward", frame, port.name, target.name)
        and hooks.bridged(w, ns, "postrouting", frame, "", target.name)
    ):
        return
    if skb is not None:
        mine = Skb(skb.pkt, ns, bridge.name, skb.length)
        for name in ("mark", "ct", "ctinfo", "reply", "notrack", "zone", "physin", "src_mac", "dst_mac"):
            setattr(mine, name, getattr(skb, name))
        mine.ipvs = skb.ipvs
        mine.outdev, mine.physout = bridge.name, target.name
        if not hooks.forward(w, mine):
            return
        mine.indev = ""
        if not hooks.postrouting(w, mine):
            return
        if mine.pkt is not body:
            frame = replace(frame, body=mine.pkt)
    links.transmit(w, ns, target.name, frame)


def from_local(w: Walk, ns: Netns, bridge: Link, frame: Frame, skb: Skb | None) -> None:
    """`br_dev_xmit`: the host itself sends through the bridge."""
    if ns.has_nftables and not hooks.bridged(w, ns, "output", frame, "", bridge.name):
        return
    vid = 0
    if bridge.bridge is not None and bridge.bridge.vlan_filtering:
        vid = _ingress(bridge.bridge.vlans, frame)
        if not vid:
            w.end("dropped", "vlan-filtered", ns, bridge.name, bridge, _words(frame))
            return
    dst = frame.dst
    group = links.is_group(dst)
    known = None if group else _known(ns, bridge, dst, vid)
    if known is not None:
        w.steps.append(Step("fdb", bridge.name, known))
        if known.dev == bridge.name:
            w.end("dropped", "bridged-to-nobody", ns, bridge.name, known)
            return
        out = _leaving(ns, known.dev, frame, vid)
        if out is None:
            w.end("dropped", "vlan-filtered", ns, known.dev, known, f"{known.dev} is not in VLAN {vid}")
            return
        links.transmit(w, ns, known.dev, out)
        return
    w.step("bridge", bridge.name, note=f"floods {dst}" if group else f"unknown MAC {dst}: floods")
    here, steps = w.hop, w.steps
    sent = 0
    for target in ns.ports(bridge.name):
        out = _leaving(ns, target.name, frame, vid)
        if target.up and out is not None and (group or (target.port or _PORT).flood):
            links.transmit(w, ns, target.name, out)
            w.hop, w.steps = here, steps
            sent += 1
    if not sent and not group:
        w.end("lost", "bridged-to-nobody", ns, bridge.name, note=f"no port for MAC {dst}")


def _leaving(ns: Netns, port: str, frame: Frame, vid: int) -> Frame | None:
    """The host's own frame as it leaves by a port; None when the port is not in its VLAN."""
    if not vid:
        return frame
    member = _egress((ns.links[port].port or _PORT).vlans, vid)
    return None if member is None else _tagged(frame, member)
