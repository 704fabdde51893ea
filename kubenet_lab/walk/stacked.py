"""Devices on other links: which of them gets a frame that came in, and where what they send goes.

`__netif_receive_skb_core` (net/core/dev.c) asks VLAN devices first, then the link's one receive handler: a bridge, or
the macvlan or ipvlan devices on it. Each kind's own rules are in `vlan`, `macvlan` and `ipvlan`.
"""

from __future__ import annotations

from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.packet import Frame, Packet
from kubenet_lab.trace import Step
from kubenet_lab.walk import ipvlan, links, macvlan
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb

Uppers = list[tuple[Netns, Link]]


def arrived(w: Walk, ns: Netns, link: Link, frame: Frame) -> bool:
    """Offer a frame to the devices on a link; True when one took it, False when the link itself goes on with it."""
    uppers = w.network.uppers(ns.name, link.name)
    if frame.vlan:
        for home, upper in uppers:
            if upper.vlan is not None and upper.vlan.id == frame.vlan:
                _untag(w, link, home, upper, frame)
                return True
    if link.master:
        return False
    for _home, upper in uppers:
        if upper.macvlan is not None:
            return macvlan.arrived(w, uppers, frame)
        if upper.ipvlan is not None:
            return ipvlan.arrived(w, ns, link, uppers, frame)
    return False


def _untag(w: Walk, link: Link, home: Netns, upper: Link, frame: Frame) -> None:
    """`vlan_do_receive`: the tag goes, and the frame goes on as if it had come in by the VLAN device."""
    if not upper.up:
        w.end("lost", "link-down", home, upper.name, upper)
        return
    w.steps.append(Step("vlan", link.name, upper, f"tag {frame.vlan}: for {upper.name}"))
    plain = Frame(frame.src, frame.dst, frame.body, 0, frame.size)
    # Who the frame is for was decided by the lower link's MAC; the device's own, where it has one, is good as well.
    ours = links.is_group(frame.dst) or frame.dst in (link.mac, upper.mac)
    links.receive(w, home, upper.name, plain, host=ours, inside=True)


def transmit(w: Walk, ns: Netns, link: Link, frame: Frame, skb: Skb | None) -> None:
    """Send a frame out of a macvlan, ipvlan or VLAN device."""
    found = w.network.below(link)
    if found is None:
        w.end("lost", "no-carrier", ns, link.name, link)
        return
    below, under = found
    if link.vlan is not None:
        if frame.vlan:
            w.end("not modelled", "not-modelled", ns, link.name, link, "a tag in a tag (802.1ad)")
            return
        w.steps.append(Step("vlan", link.name, link, f"tag {link.vlan.id} put on"))
        frame = Frame(frame.src, frame.dst, frame.body, link.vlan.id, frame.size)
        out(w, ns, below, under, frame)
    elif link.macvlan is not None:
        macvlan.transmit(w, ns, link, below, under, frame)
    else:
        ipvlan.transmit(w, ns, link, below, under, frame, skb)


def out(w: Walk, ns: Netns, below: Netns, under: Link, frame: Frame) -> None:
    """`dev_queue_xmit` on the link below, which may be in another namespace."""
    if below is not ns:
        body = frame.body
        w.begin_hop(below, "", body if isinstance(body, Packet) else w.trace.packet)
    links.transmit(w, below, under.name, frame)


def hears(network: Network, ns: str, link: str, mac: str) -> bool:
    """True when a link takes frames for a MAC that is not its own, for a device on it.

    A passthru device makes the link promiscuous; but a switch sends it only what it knows to be there, and its MAC is
    the link's own.
    """
    for home, upper in network.uppers(ns, link):
        if not upper.up:
            continue
        if upper.mac == mac:
            return True
        if upper.master or hears(network, home.name, upper.name, mac):
            return True  # a bridge makes its ports promiscuous, and they the link below
    return False
