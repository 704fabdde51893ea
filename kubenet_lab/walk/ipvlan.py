"""ipvlan: several namespaces behind one MAC, told apart by their addresses.

drivers/net/ipvlan/ipvlan_core.c and ipvlan_l3s.c, Documentation/networking/ipvlan.rst. In mode l2 a device sends frames
of its own and asks by ARP; in l3 and l3s its packets are routed in the namespace of the link below, and there is
neither ARP nor broadcast. In all modes what is sent passes that namespace's OUTPUT and POSTROUTING only if it is routed
there (l3, l3s); what comes in passes none of its hooks but in l3s, where PREROUTING and INPUT see it.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.kernel.link import IpvlanOptions, Link
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.packet import Arp, Frame, Packet
from kubenet_lab.trace import Step
from kubenet_lab.walk import deliver, hooks, links, routing, stacked
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb


def _port(uppers: stacked.Uppers) -> IpvlanOptions:
    """Mode and flag, which all devices on one link share."""
    return next(upper.ipvlan for _home, upper in uppers if upper.ipvlan is not None)


def _owner(uppers: stacked.Uppers, address: str) -> tuple[Netns, Link] | None:
    """`ipvlan_addr_lookup`: the device that has this address; one that is down has none."""
    for home, upper in uppers:
        if upper.ipvlan is not None and upper.up:
            if any(a.local == address for a in home.addresses.get(upper.name, ())):
                return home, upper
    return None


def _target(body: Packet | Arp) -> str:
    return body.target_ip if isinstance(body, Arp) else body.dst


def transmit(
    w: Walk, ns: Netns, link: Link, below: Netns, under: Link, frame: Frame, skb: Skb | None
) -> None:
    """`ipvlan_queue_xmit`: to a sibling, out by the link below, or (l3) through the routing that is there."""
    uppers = w.network.uppers(below.name, under.name)
    port = _port(uppers)
    group = links.is_group(frame.dst)
    layer3 = port.mode != "l2"
    if layer3 or frame.dst == frame.src:
        found = _owner(uppers, _target(frame.body)) if port.flag != "vepa" else None
        if found is not None and not (layer3 and group and isinstance(frame.body, Arp)):
            if port.flag == "private":
                w.end("dropped", "ipvlan-private", ns, link.name, link)
                return
            w.steps.append(
                Step("ipvlan", under.name, found[1], f"{_target(frame.body)} is a sibling's address")
            )
            links.receive(w, found[0], found[1].name, frame, host=True)
            return
    if layer3:
        _route_below(w, ns, link, below, under, frame, skb)
        return
    if frame.dst == frame.src and port.flag != "vepa":
        # Nobody's address, our own MAC: it is for the link below itself (`dev_forward_skb`).
        if not under.up:
            w.end("lost", "link-down", below, under.name, under)
            return
        links.receive(w, below, under.name, frame)
        return
    if group:
        _copies(w, uppers, link, frame)
    stacked.out(w, ns, below, under, frame)


def _copies(w: Walk, uppers: stacked.Uppers, sender: Link | None, frame: Frame) -> None:
    """`ipvlan_process_multicast`: a copy for each device but the one that sent it."""
    here, steps = w.hop, w.steps
    for home, upper in uppers:
        if upper.ipvlan is not None and upper.up and upper is not sender:
            links.receive(w, home, upper.name, frame, host=True, inside=True)
            w.hop, w.steps = here, steps


def _route_below(
    w: Walk, ns: Netns, link: Link, below: Netns, under: Link, frame: Frame, skb: Skb | None
) -> None:
    """`ipvlan_process_outbound`: the frame's header goes; the packet is routed where the link below is."""
    pkt = frame.body
    if links.is_group(frame.dst) or isinstance(pkt, Arp):
        w.end("dropped", "ipvlan-l3", ns, link.name, link)
        return
    mark = skb.mark if skb is not None and below is ns else 0
    if below is not ns:
        w.begin_hop(below, "", pkt)
    way = below.lookup(pkt.dst, src=pkt.src, oif=under.name, mark=mark)
    if way is None or way.route.type not in ("unicast", "local"):
        entry = way.route if way is not None else None
        w.end("dropped", "no-route", below, "route", entry, f"no route to {pkt.dst} out of {under.name}")
        return
    if way.route.nexthops:
        way = routing.by_flow(below, way, pkt, under.name)
    w.steps.append(Step("route", "output", way.route, f"what {link.name} sends is routed in {below.name}"))
    carrier = Skb(pkt, below, "", frame.size)
    carrier.mark = mark
    carrier.outdev = "lo" if way.route.type == "local" else way.dev
    routing.output(w, carrier, way)


def arrived(w: Walk, ns: Netns, link: Link, uppers: stacked.Uppers, frame: Frame) -> bool:
    """`ipvlan_handle_frame`: True when a device took the frame; False leaves it to the link below."""
    port = _port(uppers)
    group = links.is_group(frame.dst)
    if group and port.mode == "l2":
        own = frame.src == link.mac and _owner(uppers, _source(frame.body)) is not None
        if not own:
            _copies(w, uppers, None, frame)
        return False
    if port.mode == "l3s":
        return (
            not isinstance(frame.body, Arp) and frame.dst == link.mac and _through_hooks(w, ns, link, frame)
        )
    # In l3 a device takes even the ARP request for its address, and, having no ARP, throws it away. An IPv6
    # solicitation goes to a group, which is no device's address.
    found = _owner(uppers, _target(frame.body)) if not (group and ":" in _target(frame.body)) else None
    if found is None:
        return False
    w.steps.append(
        Step("ipvlan", found[1].name, found[1], f"{_target(frame.body)} is this ipvlan device's address")
    )
    links.receive(w, found[0], found[1].name, frame, host=frame.dst == link.mac, inside=True)
    return True


def _source(body: Packet | Arp) -> str:
    return body.sender_ip if isinstance(body, Arp) else body.src


def _through_hooks(w: Walk, ns: Netns, link: Link, frame: Frame) -> bool:
    """Mode l3s: the packet comes up the host's stack; after INPUT there it is a device's (`ipvlan_nf_input`)."""
    assert isinstance(frame.body, Packet)
    skb = Skb(frame.body, ns, link.name, frame.size)
    skb.src_mac, skb.dst_mac = frame.src, frame.dst
    if not hooks.prerouting(w, skb):
        return True
    found = _owner(w.network.uppers(ns.name, link.name), skb.pkt.dst)
    if found is None:
        routing.receive_ip(w, skb, prerouted=True)
        return True
    home, upper = found
    # Its way in is looked up as if it had come in by the device (`ipvlan_l3_rcv`).
    way = home.lookup(skb.pkt.dst, src=skb.pkt.src, iif=upper.name)
    skb.ns, skb.indev = home, upper.name
    valid = routing.source_valid(w, skb, way)
    skb.ns, skb.indev = ns, link.name
    if not valid:
        return True
    if skb.pkt.fragment:
        skb.pkt = replace(skb.pkt, fragment=0)
    if not hooks.input(w, skb):
        return True
    w.steps.append(Step("ipvlan", upper.name, upper, f"{skb.pkt.dst} is this ipvlan device's address"))
    if home is not ns:
        w.begin_hop(home, upper.name, skb.pkt)
    skb.ns, skb.indev = home, upper.name
    skb.ct, skb.ctinfo = None, ""
    deliver.receiver(w, skb)
    return True
