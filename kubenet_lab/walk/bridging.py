"""A frame in a bridge: learning, the FDB, flooding, hairpin, and br_netfilter's detour through iptables.

net/bridge/{br_input,br_forward,br_fdb,br_netfilter_hooks}.c.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.link import BridgePort, Link
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.packet import Frame, Packet
from kubenet_lab.trace import Step
from kubenet_lab.walk import hooks, links, neighbours
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
    if options.learning:
        _learn(w, ns, bridge, port, frame.src)
    body = frame.body
    if ns.has_nftables and not hooks.bridged(w, ns, "prerouting", frame, port.name, ""):
        return
    if isinstance(body, Packet) and filters(ns, bridge, body):
        _netfilter_first(w, ns, bridge, port, frame, body)
        return
    decide(w, ns, bridge, frame, port, None)


def _learn(w: Walk, ns: Netns, bridge: Link, port: Link, mac: str) -> None:
    key = (bridge.name, mac)
    known = ns.fdb.get(key)
    if known is not None and (known[0].state or known[0].dev == port.name):
        return
    if links.is_group(mac) or mac in ns.own_macs(bridge.name):
        return
    entry = FdbEntry(port.name, mac, master=bridge.name, updated=w.now)
    ns.fdb[key] = (entry,)
    w.steps.append(Step("fdb", f"{bridge.name} learns", entry))


def _netfilter_first(w: Walk, ns: Netns, bridge: Link, port: Link, frame: Frame, pkt: Packet) -> None:
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
    decide(w, ns, bridge, frame, port, skb)


def decide(w: Walk, ns: Netns, bridge: Link, frame: Frame, port: Link, skb: Skb | None) -> None:
    """`br_handle_frame_finish`: up to the host, to one port, or to all."""
    dst = frame.dst
    if links.is_group(dst):
        w.step("bridge", bridge.name, note=f"floods {dst}")
        _flood(w, ns, bridge, frame, port, skb)
        links.up(w, ns, bridge.name, frame, skb)
        return
    if dst in ns.own_macs(bridge.name):
        w.step("bridge", bridge.name, note="the frame is for the bridge itself")
        if ns.has_nftables and not hooks.bridged(w, ns, "input", frame, port.name, ""):
            return
        links.up(w, ns, bridge.name, frame, skb)
        return
    known = ns.fdb.get((bridge.name, dst))
    if known is not None:
        w.steps.append(Step("fdb", bridge.name, known[0]))
        target = ns.links[known[0].dev]
        if target.name == port.name and not (port.port or _PORT).hairpin:
            w.end("dropped", "hairpin-off", ns, port.name, port)
            return
        _forward(w, ns, bridge, frame, port, target, skb)
        return
    w.step("bridge", bridge.name, note=f"unknown MAC {dst}: floods")
    if not _flood(w, ns, bridge, frame, port, skb):
        w.end("lost", "bridged-to-nobody", ns, bridge.name, note=f"no port for MAC {dst}")


def _flood(w: Walk, ns: Netns, bridge: Link, frame: Frame, port: Link, skb: Skb | None) -> int:
    sent = 0
    here, steps = w.hop, w.steps
    for target in ns.ports(bridge.name):
        options = target.port or _PORT
        if not target.up or not options.flood:
            continue
        if target.name == port.name and not options.hairpin:
            continue
        _forward(w, ns, bridge, frame, port, target, skb)
        w.hop, w.steps = here, steps
        sent += 1
    return sent


def _forward(
    w: Walk, ns: Netns, bridge: Link, frame: Frame, port: Link, target: Link, skb: Skb | None
) -> None:
    if (port.port or _PORT).isolated and (target.port or _PORT).isolated:
        w.end("dropped", "isolated-port", ns, target.name, target)
        return
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
    dst = frame.dst
    if links.is_group(dst):
        w.step("bridge", bridge.name, note=f"floods {dst}")
        here, steps = w.hop, w.steps
        for target in ns.ports(bridge.name):
            if target.up:
                links.transmit(w, ns, target.name, frame)
                w.hop, w.steps = here, steps
        return
    known = ns.fdb.get((bridge.name, dst))
    if known is not None:
        w.steps.append(Step("fdb", bridge.name, known[0]))
        links.transmit(w, ns, known[0].dev, frame)
        return
    w.step("bridge", bridge.name, note=f"unknown MAC {dst}: floods")
    here, steps = w.hop, w.steps
    sent = 0
    for target in ns.ports(bridge.name):
        if target.up and (target.port or _PORT).flood:
            links.transmit(w, ns, target.name, frame)
            w.hop, w.steps = here, steps
            sent += 1
    if not sent:
        w.end("lost", "bridged-to-nobody", ns, bridge.name, note=f"no port for MAC {dst}")
