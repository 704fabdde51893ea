"""IP in IP: a packet becomes the payload of another IP packet (RFC 2003).

net/ipv4/ipip.c, net/ipv4/ip_tunnel.c. A device without a remote address (`tunl0`) sends to the gateway of the
route that led to it.
"""

from __future__ import annotations

from kubenet_lab.kernel.link import Link, TunnelOptions
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.packet import IPIP, Frame, Packet
from kubenet_lab.trace import Step
from kubenet_lab.walk import routing
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb

HEADER = 20


def encapsulate(w: Walk, ns: Netns, link: Link, frame: Frame, skb: Skb | None) -> None:
    """`ipip_tunnel_xmit`: find the far end, put a header before the packet, send it on its own way."""
    inner = frame.body
    if not isinstance(inner, Packet):
        w.end("dropped", "no-protocol", ns, link.name, link, note="only IP goes through an IPIP device")
        return
    options = link.tunnel or TunnelOptions()
    mark = skb.mark if skb is not None else 0
    remote = options.remote
    if not remote:
        led = ns.lookup(inner.dst, src=inner.src, oif=link.name, mark=mark)
        remote = (led.via or inner.dst) if led is not None else ""
    way = ns.lookup(remote, src=options.local, mark=mark) if remote else None
    if way is None or way.route.type != "unicast" or way.dev == link.name:
        # A way through the device itself would never end (`tdev == dev` in ip_tunnel_xmit).
        w.end(
            "dropped",
            "no-route",
            ns,
            link.name,
            way.route if way else None,
            note=f"no route to the far end {remote}",
        )
        return
    outer = Packet(
        options.local or routing.choose_source(ns, way, remote),
        remote,
        IPIP,
        ttl=options.ttl or inner.ttl,
        tos=inner.tos,
        df=options.pmtudisc or inner.df,
        inner=frame,
        ident=w.ident(),
    )
    w.step("encapsulate", link.name, link, before=inner, after=outer)
    w.begin_hop(ns, link.name, outer, encapsulated=True)
    w.steps.append(Step("route", "output", way.route))
    carrier = Skb(outer, ns, "", HEADER + (inner.fragment or frame.size or inner.length))
    carrier.mark = mark
    carrier.outdev = way.dev
    routing.output(w, carrier, way)


def decapsulate(w: Walk, skb: Skb) -> bool:
    """`ipip_rcv`: hand the inner packet to the device that fits the addresses best. False when there is none."""
    ns, outer = skb.ns, skb.pkt
    frame = outer.inner
    if frame is None or not isinstance(frame.body, Packet):
        return False
    best: tuple[int, Link] | None = None
    for link in ns.links.values():
        if link.kind != "ipip" or not link.up:
            continue
        options = link.tunnel or TunnelOptions()
        if options.remote not in ("", outer.src) or options.local not in ("", outer.dst):
            continue
        fit = bool(options.remote) * 2 + bool(options.local)
        if best is None or fit > best[0]:
            best = (fit, link)
    if best is None:
        return False
    link, inner = best[1], frame.body
    w.step("decapsulate", link.name, link, before=outer, after=inner)
    w.begin_hop(ns, link.name, inner)
    w.steps.append(Step("receive", link.name, frame))
    again = Skb(inner, ns, link.name, frame.size)
    again.mark = skb.mark
    routing.receive_ip(w, again)
    return True
