"""VXLAN: a frame becomes the payload of a UDP packet, which then takes its own walk (RFC 7348).

drivers/net/vxlan/vxlan_core.c.
"""

from __future__ import annotations

import zlib

from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.packet import UDP, Arp, Frame, Packet
from kubenet_lab.trace import Step
from kubenet_lab.walk import bpf_overlay, links, routing
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb

DEFAULT_MAC = "00:00:00:00:00:00"


def source_port(ns: Netns, frame: Frame) -> int:
    """Return the outer source port: a hash of the inner flow within the ephemeral range, so that ECMP can spread it.

    Which port a flow gets is the kernel's secret (a seeded jhash); that one flow keeps one is what counts.
    """
    low, high = (int(part) for part in ns.sysctl("net.ipv4.ip_local_port_range").split())
    body = frame.body
    flow = (
        f"{body.src} {body.dst} {body.proto} {body.sport} {body.dport}"
        if isinstance(body, Packet)
        else str(body)
    )
    return low + (zlib.crc32(flow.encode()) * (high - low) >> 32)


def encapsulate(w: Walk, ns: Netns, link: Link, frame: Frame, skb: Skb | None) -> None:
    """`vxlan_xmit`: find the remote VTEP for the frame's MAC, wrap the frame, send the outer packet."""
    assert link.vxlan is not None
    remotes = ns.fdb.get((link.name, frame.dst)) or ns.fdb.get((link.name, DEFAULT_MAC), ())
    if not remotes:
        w.end("dropped", "no-vtep", ns, link.name, note=f"{link.name} has no FDB entry for {frame.dst}")
        return
    here, steps = w.hop, w.steps
    for entry in remotes if links.is_group(frame.dst) or remotes[0].mac == DEFAULT_MAC else remotes[:1]:
        w.hop, w.steps = here, steps
        _to_remote(w, ns, link, frame, entry, skb)


def _to_remote(w: Walk, ns: Netns, link: Link, frame: Frame, entry: FdbEntry, skb: Skb | None) -> None:
    options = link.vxlan
    assert options is not None
    w.steps.append(Step("fdb", link.name, entry))
    mark = skb.mark if skb is not None else 0
    way = ns.lookup(entry.dst, src=options.local, mark=mark)
    if way is None or way.route.type != "unicast":
        w.end(
            "dropped",
            "no-route",
            ns,
            link.name,
            way.route if way else None,
            note=f"no route to VTEP {entry.dst}",
        )
        return
    outer = Packet(
        options.local or routing.choose_source(ns, way, entry.dst),
        entry.dst,
        UDP,
        source_port(ns, frame),
        entry.port or options.port,
        ttl=options.ttl or 64,
        df=options.df == "set",
        inner=frame,
        vni=entry.vni or options.vni,
    )
    inner = frame.body if isinstance(frame.body, Packet) else None
    w.step("encapsulate", link.name, entry, before=inner, after=outer)
    w.begin_hop(ns, link.name, outer, encapsulated=True)
    w.steps.append(Step("route", "output", way.route))
    carrier = Skb(outer, ns, "", 36 + frame.length if ":" not in entry.dst else 0)
    carrier.mark = mark
    carrier.outdev = way.dev
    routing.output(w, carrier, way)


def decapsulate(w: Walk, skb: Skb) -> bool:
    """`vxlan_rcv`: hand the inner frame to the VXLAN device that owns port and VNI. False when it is not ours."""
    ns, outer = skb.ns, skb.pkt
    frame = outer.inner
    if frame is None:
        return False
    listening = False
    for link in ns.links.values():
        options = link.vxlan
        if options is None or options.port != outer.dport or not link.up:
            continue
        if options.local and (":" in options.local) != (":" in outer.dst):
            continue  # a device has a socket of its local address's family only
        listening = True
        if options.external:
            bpf_overlay.arrived(w, skb, link, frame)
            return True
        if options.vni != outer.vni:
            continue
        if options.learning and not links.is_group(frame.src):
            ns.fdb.setdefault(
                (link.name, frame.src), (FdbEntry(link.name, frame.src, dst=outer.src, updated=w.now),)
            )
        inner = frame.body
        w.step(
            "decapsulate", link.name, link, before=outer, after=inner if isinstance(inner, Packet) else None
        )
        w.begin_hop(ns, link.name, inner if isinstance(inner, Packet) else outer)
        w.steps.append(Step("receive", link.name, frame))
        if not links.is_group(frame.dst) and frame.dst != link.mac:
            w.end("lost", "not-my-mac", ns, link.name, link)
            return True
        if isinstance(inner, Arp):
            links.up(w, ns, link.name, frame)
            return True
        again = Skb(inner, ns, link.name, frame.size)
        again.src_mac, again.dst_mac, again.mark = frame.src, frame.dst, skb.mark
        routing.receive_ip(w, again)
        return True
    if listening:
        w.end("dropped", "vni-unknown", ns, "vxlan", note=f"VNI {outer.vni}")
    return listening
