"""BPF programs on links: which one a frame meets, and what all of them can do with it.

tcx programs run at ingress before bridging, netfilter and routing, and at egress after them, just before the link's
driver. A program passes the frame on, changed or not; drops it; sends it out of another link past netfilter
(`bpf_redirect`, `bpf_redirect_neigh`, `bpf_redirect_peer`); or answers it. The programs are Cilium's:

    cil_from_netdev, cil_to_netdev       a node's own link: `bpf_nodeport`
    cil_from_container, cil_to_container a pod's veth: `bpf_lxc`
    cil_from_overlay, cil_to_overlay     the tunnel's link: `bpf_overlay`
    cil_from_host, cil_to_host           cilium_host: `bpf_lxc`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from kubenet_lab.kernel.bpf import BpfState
from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.packet import ICMP, ICMPV6, Frame, Packet
from kubenet_lab.trace import Step
from kubenet_lab.walk import links, neighbours
from kubenet_lab.walk.engine import Pending, Walk
from kubenet_lab.walk.skb import Skb

Program = Callable[[Walk, Netns, BpfState, Link, Frame, Skb | None], "Frame | None"]
"""(walk, namespace, state, link, frame, skb if the stack sends it) -> the frame that goes on, None if none does."""


def ingress(w: Walk, ns: Netns, state: BpfState, link: Link, frame: Frame) -> Frame | None:
    """Run what hangs at a link's tcx ingress. None when the frame's way ended or went elsewhere. ARP passes."""
    if not isinstance(frame.body, Packet):
        return frame
    name = state.look().attachments.get((link.name, "tcx/ingress"))
    if name is None:
        return frame
    return _programs()[name](w, ns, state, link, frame, None)


def egress(w: Walk, ns: Netns, state: BpfState, link: Link, frame: Frame, skb: Skb | None) -> Frame | None:
    """Run what hangs at a link's tcx egress. ARP passes."""
    if not isinstance(frame.body, Packet):
        return frame
    name = state.look().attachments.get((link.name, "tcx/egress"))
    if name is None:
        return frame
    return _programs()[name](w, ns, state, link, frame, skb)


_TABLE: dict[str, Program] = {}


def _programs() -> dict[str, Program]:
    if not _TABLE:
        from kubenet_lab.walk import bpf_lxc, bpf_nodeport

        _TABLE.update(bpf_nodeport.PROGRAMS | bpf_lxc.PROGRAMS)
    return _TABLE


def drop(w: Walk, ns: Netns, program: str, reason: str, entry: Any, note: str) -> None:
    """`send_drop_notify_error`: the packet ends here; `note` is the reason as `cilium-dbg monitor -t drop` names it."""
    w.end("dropped", reason, ns, program, entry, note=note)


def rewritten(frame: Frame, pkt: Packet) -> Frame:
    """Return a frame with another packet in it."""
    return replace(frame, body=pkt)


def fib_redirect(
    w: Walk, ns: Netns, program: str, frame: Frame, pkt: Packet, *, translated: bool = True
) -> None:
    """`fib_redirect_v4`: ask the routing table and send the packet out of that link at once, past netfilter.

    The TTL goes down by one, as in a forwarding host. What is `translated` already (ctx_snat_done) the link's own
    program leaves alone.
    """
    way = ns.lookup(pkt.dst, src=pkt.src)
    if way is None or way.route.type != "unicast":
        entry = way.route if way is not None else None
        drop(w, ns, program, "bpf-no-route", entry, "FIB lookup failed")
        return
    if pkt.ttl <= 1:
        drop(w, ns, program, "ttl-exceeded", way.route, "TTL exceeded")
        return
    w.steps.append(Step("route", "bpf_fib_lookup", way.route))
    pkt = replace(pkt, ttl=pkt.ttl - 1)
    link = ns.links[way.dev]
    mac = neighbours.resolve(w, ns, way.dev, way.via or pkt.dst, "")
    if not mac:
        asked = ns.neighbours.get((way.dev, way.via or pkt.dst))
        w.end("dropped", "neighbour-failed", ns, way.dev, asked)
        return
    out = replace(frame, src=link.mac, dst=mac, body=pkt)
    w.step("bpf", program, note=f"redirect to {way.dev}, past netfilter")
    links.transmit(w, ns, way.dev, out, None, past_bpf=translated)


def answer(w: Walk, ns: Netns, link: Link, frame: Frame, pkt: Packet) -> None:
    """`redirect_self`: send a packet back out of the link that brought this frame, addresses turned round."""
    back = Frame(frame.dst, frame.src, pkt)
    w.reply(ns, pkt, "error", raw=(link.name, back))


def unreachable(pkt: Packet) -> Packet:
    """`generate_icmp4_reply`: ICMP port unreachable from the address that was called."""
    return Packet(
        pkt.dst,
        pkt.src,
        ICMPV6 if pkt.family == 6 else ICMP,
        icmp_type=1 if pkt.family == 6 else 3,
        icmp_code=4 if pkt.family == 6 else 3,
        quoted=replace(pkt, fragment=0),
        df=False,
    )


def emit(w: Walk, item: Pending) -> None:
    """Send what a program queued with `answer`: a frame on a link, past the stack."""
    assert item.raw is not None
    dev, frame = item.raw
    w.begin_hop(item.ns, "", item.packet)
    w.steps.append(Step("send", "bpf_redirect", item.packet))
    links.transmit(w, item.ns, dev, frame, None, past_bpf=True)
