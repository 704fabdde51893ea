"""Which MAC to send to: neighbour entries, and ARP (or neighbour discovery) where there is none.

RFC 826, RFC 4861; net/core/neighbour.c, net/ipv4/arp.c. A resolution's frames are walked as a trace of their own, so
that they cross bridges and fill FDBs like any other frame, and hang in the packet's trace as one step.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.kernel import sysctl
from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.neighbour import Neighbour
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.put_off import peek
from kubenet_lab.kernel.route import TABLE_LOCAL
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet.packet import BROADCAST_MAC, ETH_ARP, Arp, Frame, Packet
from kubenet_lab.trace import Step, Trace
from kubenet_lab.walk import links, nft_frames
from kubenet_lab.walk.engine import Walk

ZERO = "00:00:00:00:00:00"
LOCK_TIME = 1.0
"""Seconds in which a second answer does not change an entry (net.ipv4.neigh.default.locktime, man 7 arp)."""
GRATUITOUS = "gratuitous-arp"
"""Role of a trace that nobody asked for: an announcement."""


def resolve(w: Walk, ns: Netns, dev: str, address: str, source: str) -> str:
    """Return the MAC for `address` on `dev`, asking if need be; "" when nobody answers."""
    entry = ns.neighbours.get((dev, address))
    if entry is not None and entry.usable:
        w.steps.append(Step("neighbour", dev, entry))
        return entry.mac
    link = ns.links[dev]
    if not link.asks:
        return link.mac or ZERO
    asked = _ask(w, ns, dev, address, source)
    entry = ns.neighbours.get((dev, address))
    if entry is not None and entry.usable:
        w.step("arp", dev, asked, note=str(entry))
        return entry.mac
    ns.neighbours[dev, address] = Neighbour(dev, address, "", "FAILED", w.now)
    w.step("arp", dev, asked, note=f"nobody answered for {address}")
    return ""


def _ask(w: Walk, ns: Netns, dev: str, address: str, source: str) -> Trace:
    link = ns.links[dev]
    own = [a.local for a in ns.addrs(dev, 6 if ":" in address else 4)]
    sender = source if source in own or not own else own[0]
    question = Frame(link.mac, BROADCAST_MAC, Arp("request", link.mac, sender, ZERO, address))
    saved = (w.trace, w.hop, w.steps, w.depth)
    asked = Trace(Packet(sender or address, address, 0), "arp", [], caused=[])
    w.trace = asked
    w.begin_hop(ns, "", asked.packet)
    if _goes_out(w, ns, dev, question):
        links.transmit(w, ns, dev, question)
    w.trace, w.hop, w.steps, w.depth = saved
    return asked


def _goes_out(w: Walk, ns: Netns, dev: str, frame: Frame) -> bool:
    return ns.nftables_built is None or (
        isinstance(frame.body, Arp) and nft_frames.arp(w, ns, "output", dev, frame.body)
    )


def receive_arp(w: Walk, ns: Netns, dev: str, arp: Arp) -> None:
    """Answer a question about an address of ours, or learn from an answer to ours."""
    if ns.nftables_built is not None and not nft_frames.arp(w, ns, "input", dev, arp):
        return
    if not ns.links[dev].asks and ":" not in arp.target_ip:
        w.end("lost", "not-my-mac", ns, dev, note=f"{dev} takes no part in ARP (NOARP)")
        return
    if arp.sender_ip == arp.target_ip:
        _announced(w, ns, dev, arp)
        return
    if arp.op == "reply":
        known = ns.neighbours.get((dev, arp.sender_ip))
        if (
            known is not None
            and known.usable
            and known.mac != arp.sender_mac
            and w.now - known.updated < LOCK_TIME
        ):
            w.step("arp", dev, note=f"{arp}: another answer came first")
            return
        ns.neighbours[dev, arp.sender_ip] = Neighbour(dev, arp.sender_ip, arp.sender_mac, "REACHABLE", w.now)
        w.step("arp", dev, note=str(arp))
        return
    if not _answers(ns, dev, arp) and responder(ns, dev, arp.target_ip) is None:
        w.end("lost", "not-my-mac", ns, dev, note=f"{arp.target_ip} is not mine")
        return
    known = ns.neighbours.get((dev, arp.sender_ip))
    if known is None or known.state != "PERMANENT":
        state = "STALE" if known is None or known.mac != arp.sender_mac else known.state
        ns.neighbours[dev, arp.sender_ip] = Neighbour(dev, arp.sender_ip, arp.sender_mac, state, w.now)
    mac = ns.links[dev].mac
    w.step("arp", dev, note=f"{arp.target_ip} is at {mac}")
    answer = Frame(mac, arp.sender_mac, Arp("reply", mac, arp.target_ip, arp.sender_mac, arp.sender_ip))
    if _goes_out(w, ns, dev, answer):
        links.transmit(w, ns, dev, answer)


def unmoved(w: Walk, ns: Netns, dev: str, frame: Frame) -> bool:
    """Let an ARP question reach a host nobody has looked at yet, without looking, where it does nothing to it.

    False where it might: then the frame has to be received.
    """
    arp = frame.body
    if (
        not isinstance(arp, Arp)
        or arp.op == "reply"
        or arp.sender_ip == arp.target_ip
        or ":" in arp.target_ip
    ):
        return False
    link: Link = peek(ns, "links")[dev]
    if not link.up or link.master or link.kind != "physical" or link.noarp:
        return False
    if frame.vlan or frame.length > link.mtu + 14:
        return False
    if peek(ns, "_nftables") or (ns.name, dev) in w.network.stacks:
        return False
    sysctls = peek(ns, "sysctls")
    if any(sysctls.get(f"net.ipv4.conf.{one}.proxy_arp", "0") != "0" for one in (dev, "all", "default")):
        return False
    if (ETH_ARP, 0) in peek(ns, "sockets") or any(
        a.local == arp.target_ip for assigned in peek(ns, "addresses").values() for a in assigned
    ):
        return False
    if any(route.proto != "kernel" for route in peek(ns, "routes").get((4, TABLE_LOCAL), {}).values()):
        return False
    w.begin_hop(ns, dev, w.trace.packet)
    w.steps.append(Step("receive", dev, frame))
    w.end("lost", "not-my-mac", ns, dev, note=f"{arp.target_ip} is not mine")
    return True


def responder(ns: Netns, dev: str, address: str) -> Socket | None:
    """The program that answers ARP or neighbour discovery for an address its host does not have, if there is one.

    It holds a packet socket (`ss -0`, man 7 packet), as arping, keepalived or MetalLB's speaker do; here the socket's
    process is its name and its address what it answers for. What the kernel itself answers is `_answers`.
    """
    for socket in ns.sockets.get((ETH_ARP, 0), ()):
        if socket.address == address and ns.links[dev].kind != "loopback":
            return socket
    return None


def announce(w: Walk, ns: Netns, dev: str, address: str) -> Trace:
    """`arping -A -I DEV ADDRESS`: tell the wire unasked that an address is at this link's MAC (RFC 5227, 3).

    IPv6's unsolicited neighbour advertisement (RFC 4861, 7.2.6) does the same work.
    """
    mac = ns.links[dev].mac
    w.trace = told = Trace(Packet(address, address, 0), GRATUITOUS, [], caused=[])
    w.depth = 0
    w.begin_hop(ns, "", told.packet)
    told_all = Frame(mac, BROADCAST_MAC, Arp("reply", mac, address, BROADCAST_MAC, address))
    if _goes_out(w, ns, dev, told_all):
        links.transmit(w, ns, dev, told_all)
    return told


def _announced(w: Walk, ns: Netns, dev: str, arp: Arp) -> None:
    """`arp_process` on a gratuitous ARP: it changes an entry that is there and, arp_accept being 0, makes none."""
    known = ns.neighbours.get((dev, arp.sender_ip))
    if known is None or known.state == "PERMANENT":
        w.end("lost", "not-my-mac", ns, dev, note=f"no entry for {arp.sender_ip} to change")
        return
    if known.mac != arp.sender_mac:
        ns.neighbours[dev, arp.sender_ip] = Neighbour(dev, arp.sender_ip, arp.sender_mac, "STALE", w.now)
    w.step("arp", dev, note=str(arp))


def _answers(ns: Netns, dev: str, arp: Arp) -> bool:
    fam = 6 if ":" in arp.target_ip else 4
    if ns.is_local(arp.target_ip):
        if fam == 6:
            return any(a.local == arp.target_ip for a in ns.addrs(dev, 6))
        if (
            ns.sysctl(sysctl.conf(4, dev, "arp_ignore")) == "1"
            or ns.sysctl("net.ipv4.conf.all.arp_ignore") == "1"
        ):
            return any(a.local == arp.target_ip for a in ns.addrs(dev, 4))
        return True
    if fam == 4 and (
        ns.sysctl(sysctl.conf(4, dev, "proxy_arp")) == "1" or ns.sysctl("net.ipv4.conf.all.proxy_arp") == "1"
    ):
        way = ns.lookup(arp.target_ip, iif=dev)
        return way is not None and way.route.type == "unicast" and way.dev != dev
    return False


def age(entry: Neighbour, now: float, reachable: float = 30.0) -> Neighbour:
    """Return the entry as `ip neigh` shows it now: reachable entries go stale after `base_reachable_time`."""
    return (
        replace(entry, state="STALE")
        if entry.state == "REACHABLE" and now - entry.updated > reachable
        else entry
    )
