"""Out of one namespace and into the next: transmit on a link, receive on its other end.

Crossing a veth pair or a wire drops what the kernel scrubs there: conntrack reference and mark
(`skb_scrub_packet`, net/core/skbuff.c).
"""

from __future__ import annotations

from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.put_off import peek, waits
from kubenet_lab.packet.packet import BROADCAST_MAC, Arp, Frame, Packet
from kubenet_lab.trace import Step
from kubenet_lab.walk import (
    bpf,
    bridging,
    ipip,
    neighbours,
    nft_frames,
    routing,
    stacked,
    tunnel,
    wireguard,
)
from kubenet_lab.walk.engine import MAX_DEPTH, Walk
from kubenet_lab.walk.skb import Skb

VLAN_SLACK = 4
"""A device takes frames of its MTU plus Ethernet header plus one VLAN tag (`is_skb_forwardable`)."""


GROUP_DIGITS = frozenset("13579bdfBDF")
"""Second digits of MACs whose lowest bit of the first byte is set."""


def is_group(mac: str) -> bool:
    """True for broadcast and multicast MACs."""
    return mac[1] in GROUP_DIGITS


def transmit(
    w: Walk, ns: Netns, dev: str, frame: Frame, skb: Skb | None = None, *, past_bpf: bool = False
) -> None:
    """Send a frame out of a link.

    `skb` goes along where the frame stays in this namespace (loopback, bridge, tunnel). `past_bpf` is for what a BPF
    program sends, which the link's egress program leaves alone.
    """
    link = ns.links.get(dev)
    if link is None or not link.up:
        w.end("lost", "link-down", ns, dev, link)
        return
    w.depth += 1
    if w.depth > MAX_DEPTH:
        w.end("lost", "loop", ns, dev)
        return
    w.hop.outdev = dev
    if ns.nftables_built is not None:
        kept = nft_frames.at_link(w, ns, "egress", dev, frame)
        if kept is None:
            return
        frame = kept
    if ns.bpf is not None and not past_bpf:
        seen = bpf.egress(w, ns, ns.bpf, link, frame, skb)
        if seen is None:
            return
        frame = seen
    w.steps.append(Step("transmit", dev, frame))
    kind = link.kind
    if kind == "veth":
        _to_peer(w, ns, link, frame)
    elif kind == "bridge":
        bridging.from_local(w, ns, link, frame, skb)
    elif kind == "vxlan":
        tunnel.encapsulate(w, ns, link, frame, skb)
    elif kind == "ipip":
        ipip.encapsulate(w, ns, link, frame, skb)
    elif kind == "loopback":
        assert skb is not None
        again = Skb(skb.pkt, ns, dev, skb.length)
        again.ct, again.ctinfo, again.reply, again.mark = skb.ct, skb.ctinfo, skb.reply, skb.mark
        again.notrack, again.zone, again.ipvs = skb.notrack, skb.zone, skb.ipvs
        routing.receive_ip(w, again)
    elif kind == "physical":
        _to_wire(w, ns, link, frame)
    elif kind in ("vlan", "macvlan", "ipvlan"):
        stacked.transmit(w, ns, link, frame, skb)
    elif kind == "wireguard":
        wireguard.encapsulate(w, ns, link, frame, skb)
    elif kind == "dummy":
        w.end("dropped", "bridged-to-nobody", ns, dev, link, note="a dummy device drops what it is given")
    else:
        w.end("not modelled", "not-modelled", ns, dev, link, note=f"link kind {kind}")


def _to_peer(w: Walk, ns: Netns, link: Link, frame: Frame) -> None:
    peer = link.peer
    other = w.network.netns.get(peer.netns) if peer is not None else None
    if peer is None or other is None or peer.link not in other.links:
        w.end("lost", "no-carrier", ns, link.name, link)
        return
    if not other.links[peer.link].up:
        w.end("lost", "no-carrier", ns, link.name, link)
        return
    receive(w, other, peer.link, frame)


def _to_wire(w: Walk, ns: Netns, link: Link, frame: Frame) -> None:
    wire = w.network.wires.get(link.wire)
    if wire is None or not wire.up or not link.carrier:
        w.end("lost", "no-carrier", ns, link.name, link)
        return
    if wire.mtu and frame.length > wire.mtu + 14 + VLAN_SLACK:
        said = f"{wire.name} takes {wire.mtu} bytes, and tells nobody what it loses"
        w.end("lost", "too-big-for-link", ns, link.name, wire, note=said)
        return
    group = is_group(frame.dst)
    stacks = w.network.stacks
    taken = False
    for other_ns, other_link in wire.ports:
        if (other_ns, other_link) == (ns.name, link.name):
            continue
        there = w.network.ns(other_ns)
        if group and waits(there) and neighbours.unmoved(w, there, other_link, frame):
            taken = True
            continue
        target = peek(there, "links")[other_link]
        if (
            group
            or target.mac == frame.dst
            or target.promiscuous
            or target.master
            or (
                (other_ns, other_link) in stacks and stacked.hears(w.network, other_ns, other_link, frame.dst)
            )
        ):
            taken = True
            if target.up:
                receive(w, there, other_link, frame)
            else:
                w.end("lost", "no-carrier", ns, link.name, target)
    if not taken and not group:
        w.end("lost", "bridged-to-nobody", ns, wire.name, note=f"no port of {wire.name} has MAC {frame.dst}")


def receive(w: Walk, ns: Netns, dev: str, frame: Frame, *, host: bool = False, inside: bool = False) -> None:
    """A frame comes in on a link: for a device on it, for its bridge, or up the stack when its MAC is ours.

    `host` says that somebody has found it to be for us, whatever its MAC. `inside` is for what a link of this host
    hands to a device on it: no new hop where both are in one namespace, and nobody measures the frame again.
    """
    link = ns.links[dev]
    body = frame.body
    if not inside or w.hop.netns != ns.name:
        shown = body if isinstance(body, Packet) else w.trace.packet
        w.begin_hop(ns, dev, shown, isinstance(body, Packet) and body.inner is not None)
    w.steps.append(Step("receive", dev, frame))
    if not inside and frame.length > link.mtu + 14 + VLAN_SLACK:
        w.end("lost", "too-big-for-link", ns, dev, link)
        return
    if ns.bpf is not None:
        seen = bpf.ingress(w, ns, ns.bpf, link, frame)
        if seen is None:
            return
        frame = seen
    if ns.nftables_built is not None:
        kept = nft_frames.at_link(w, ns, "ingress", dev, frame)
        if kept is None:
            return
        frame = kept
    stacks = w.network.stacks
    if stacks and (ns.name, dev) in stacks and stacked.arrived(w, ns, link, frame):
        return
    if link.master:
        bridging.from_port(w, ns, link, frame)
        return
    if frame.vlan:
        w.end("lost", "vlan-unknown", ns, dev, link, note=f"tag {frame.vlan}")
        return
    if not host and not is_group(frame.dst) and frame.dst != link.mac:
        w.end("lost", "not-my-mac", ns, dev, link)
        return
    up(w, ns, dev, frame)


def up(w: Walk, ns: Netns, dev: str, frame: Frame, skb: Skb | None = None) -> None:
    """Hand a frame that is for us to its protocol; `skb` when netfilter saw it on a bridge already."""
    body = frame.body
    if isinstance(body, Arp):
        neighbours.receive_arp(w, ns, dev, body)
        return
    if skb is None:
        skb = Skb(body, ns, dev, frame.size)
        skb.src_mac, skb.dst_mac = frame.src, frame.dst
        skb.mark, w.program_mark = w.program_mark, 0
        routing.receive_ip(w, skb)
    else:
        skb.indev = dev
        routing.receive_ip(w, skb, prerouted=True)


BROADCAST = BROADCAST_MAC
