"""The tunnel of Cilium: one device for all nodes, told by each packet's metadata where to send it (bpf_overlay.c).

The device is `external`: no FDB, no neighbours. The program that sends a packet there sets the remote node's address
and, as VNI, the sender's security identity; so the receiving node knows who sent it without asking anybody.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.kernel.bpf import HOST, REMOTE_NODE, BpfState, CtKey, MapEntry
from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.packet import UDP, DsrOption, Frame, Packet
from kubenet_lab.trace import Step
from kubenet_lab.walk import bpf, bpf_lxc, bpf_nodeport, routing, tunnel
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb


def encapsulate(
    w: Walk,
    ns: Netns,
    state: BpfState,
    remote: str,
    identity: int,
    frame: Frame,
    pkt: Packet,
    dsr: DsrOption | None = None,
) -> None:
    """`__encap_with_nodeid`, then the tunnel's link: wrap a packet for a node. The host's own go as remote-node.

    `dsr` is the option of the Geneve header by which the node learns what frontend was called.
    """
    dev = state.datapath.tunnel_dev
    link = ns.links.get(dev)
    if link is None or link.vxlan is None or not link.up:
        w.end("lost", "link-down", ns, dev, link)
        return
    told = REMOTE_NODE if identity == HOST else identity
    w.step("bpf", "cil_to_overlay", note=f"tunnel key {told} to {remote}")
    way = ns.lookup(remote)
    if way is None or way.route.type != "unicast":
        w.end("dropped", "no-route", ns, dev, way.route if way else None, note=f"no route to node {remote}")
        return
    inner = bpf.rewritten(frame, pkt)
    outer = Packet(
        routing.choose_source(ns, way, remote),
        remote,
        UDP,
        tunnel.source_port(ns, inner),
        link.vxlan.port,
        df=False,
        inner=inner,
        vni=told,
        dsr=dsr,
    )
    w.hop.outdev = dev
    w.steps.append(Step("transmit", dev, inner))
    w.step("encapsulate", dev, link, before=pkt, after=outer)
    w.begin_hop(ns, dev, outer, encapsulated=True)
    w.steps.append(Step("route", "output", way.route))
    option = 0 if dsr is None else 24 if ":" in dsr.address else 12
    carrier = Skb(outer, ns, "", 36 + option + inner.length if ":" not in remote else 0)
    carrier.outdev = way.dev
    routing.output(w, carrier, way)


def arrived(w: Walk, skb: Skb, link: Link, frame: Frame) -> None:
    """The outer packet is for this node: `cil_from_overlay` sees the inner one, with its sender's identity."""
    ns, outer, pkt = skb.ns, skb.pkt, frame.body
    assert isinstance(pkt, Packet)
    w.step("decapsulate", link.name, link, before=outer, after=pkt)
    w.begin_hop(ns, link.name, pkt)
    w.steps.append(Step("receive", link.name, frame))
    state = ns.bpf
    if state is None or not state.look().program(link.name, "tcx/ingress"):
        routing.receive_ip(w, Skb(pkt, ns, link.name, frame.size))
        return
    w.step("bpf", "cil_from_overlay", note=f"tunnel key {outer.vni}: the sender's identity")
    if outer.dsr is not None:
        frame = bpf.rewritten(frame, replace(pkt, dsr=outer.dsr))
    on = bpf_nodeport.service(w, ns, state, link, frame, "cil_from_overlay")
    if on is None:
        return
    pkt = on.body
    assert isinstance(pkt, Packet)
    w.tried += 1
    there = state.endpoints.get(pkt.dst)
    if not state.datapath.host_routing and _by_dsr(w, state, pkt):
        # Netfilter sees the answer, so it must see the call: else it masquerades the answer to a datagram, as Cilium
        # did before 1.18 (https://github.com/cilium/cilium/issues/32189).
        w.step("bpf", "cil_from_overlay", note="DSR: up the host's stack, which the answer will pass too")
    elif there is not None and not there.host:
        bpf_lxc.deliver_to(w, ns, state, pkt.dst, there, on, pkt, outer.vni, "cil_from_overlay")
        return
    elif there is not None:
        w.step("bpf", "cil_from_overlay", MapEntry("cilium_lxc", pkt.dst, there), note="for the host itself")
    again = Skb(pkt, ns, link.name, on.size)
    again.src_mac, again.dst_mac = on.src, on.dst
    routing.receive_ip(w, again)


def _by_dsr(w: Walk, state: BpfState, pkt: Packet) -> bool:
    flow = CtKey(pkt.proto, pkt.src, pkt.dst, pkt.sport, pkt.dport, "OUT")
    return state.datapath.mode != "snat" and bpf_nodeport.called_by_dsr(w, state.maps(pkt.family), flow)
