"""WireGuard: a packet is sealed for the peer whose allowed-ips hold its destination, and sent by UDP.

drivers/net/wireguard/{device,send,receive,socket}.c, https://www.wireguard.com/papers/wireguard.pdf. No cipher runs
here: that a message can be opened by one peer only is kept by the public keys it names. A session begins with a
handshake, whose two messages are walked like any packet and stand in the trace of the packet that needed it; who
started a session begins a new one after 120 s, and nobody takes a key older than 180 s. Not modelled: cookies under
load, the preshared key, keepalives that a timer sends (persistent or not), and packets that wait: without an answer to
the first handshake message the packet is taken as lost.
"""

from __future__ import annotations

from zlib import crc32

from msgspec.structs import replace

from kubenet_lab.kernel.link import Link, WireguardOptions, WireguardPeer
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.wireguard import Session, peer_by_key, peer_for
from kubenet_lab.packet.packet import UDP, Frame, Packet, WireguardMessage, endpoint
from kubenet_lab.trace import Step, Trace
from kubenet_lab.walk import deliver, routing
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb

INITIATION, RESPONSE, DATA = 1, 2, 4
SIZES = {INITIATION: 148, RESPONSE: 92}
"""Bytes of the handshake's messages (`struct message_handshake_initiation`, `..._response`)."""
DATA_OVERHEAD = 32
"""A data message's header of 16 bytes and its authentication tag of 16."""
PADDING = 16
"""Packets are filled up to a multiple of this, but not beyond the device's MTU."""


def _host_port(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    return address.strip("[]"), int(port)


def _session(ns: Netns, link: Link, peer: WireguardPeer) -> Session:
    return ns.wireguard.get((link.name, peer.public_key)) or Session(endpoint=peer.endpoint)


def _refuse(w: Walk, ns: Netns, link: Link, pkt: Packet, skb: Skb | None, reason: str, entry: object) -> None:
    """`wg_xmit`'s err_icmp: an error to the caller, and to the packet's sender ICMP host unreachable."""
    w.end("rejected", reason, ns, link.name, entry)
    deliver.icmp_error(w, skb or Skb(pkt, ns), *((3, 1) if pkt.family == 4 else (1, 3)))


def encapsulate(w: Walk, ns: Netns, link: Link, frame: Frame, skb: Skb | None) -> None:
    """`wg_xmit`: choose the peer by the destination, have a session with it, send the sealed packet."""
    pkt, options = frame.body, link.wireguard or WireguardOptions("")
    if not isinstance(pkt, Packet):
        w.end("dropped", "no-protocol", ns, link.name, link, note="only IP goes through a WireGuard device")
        return
    peer = peer_for(options, pkt.dst)
    if peer is None:
        _refuse(w, ns, link, pkt, skb, "wireguard-no-peer", link)
        return
    session = _session(ns, link, peer)
    if not session.endpoint:
        _refuse(w, ns, link, pkt, skb, "wireguard-no-endpoint", peer)
        return
    w.steps.append(Step("wireguard", link.name, peer, f"{pkt.dst} is in this peer's allowed-ips"))
    if not session.usable(w.now) or session.stale(w.now):
        begun = _handshake(w, ns, link, options, peer, session)
        if begun is None and not session.usable(w.now):
            w.end("lost", "wireguard-no-handshake", ns, link.name, peer)
            return
        session = begun or ns.wireguard[link.name, peer.public_key]
    size = frame.size or pkt.length
    size = pkt.fragment or size
    padded = max(size, min(-(-size // PADDING) * PADDING, link.mtu))
    message = WireguardMessage(DATA, padded + DATA_OVERHEAD, session.remote, counter=session.counter)
    ns.wireguard[link.name, peer.public_key] = replace(
        session, counter=session.counter + 1, sent=session.sent + message.length
    )
    _send(w, ns, link, options, session, message, Frame("", "", pkt, 0, frame.size))


def _send(
    w: Walk,
    ns: Netns,
    link: Link,
    options: WireguardOptions,
    session: Session,
    message: WireguardMessage,
    inner: Frame | None = None,
) -> None:
    """`wg_socket_send_skb_to_peer`: from the device's UDP socket, by the routing of the socket's namespace."""
    home = w.network.netns[options.home] if options.home else ns
    remote, port = _host_port(session.endpoint)
    source = session.source if session.source and home.is_local(session.source) else ""
    way = home.lookup(remote, src=source, mark=options.fwmark)
    if way is None or way.route.type not in ("unicast", "local"):
        entry = way.route if way is not None else None
        w.end("dropped", "no-route", home, link.name, entry, note=f"no route to the peer's endpoint {remote}")
        return
    if way.dev == link.name and home is ns:
        w.end(
            "lost",
            "loop",
            home,
            link.name,
            way.route,
            note=f"the way to the endpoint {remote} is the tunnel itself",
        )
        return
    source = source or routing.choose_source(home, way, remote)
    outer = Packet(
        source, remote, UDP, options.port, port, df=False, inner=inner, message=message, ident=w.ident()
    )
    before = inner.body if inner is not None and isinstance(inner.body, Packet) else None
    if before is not None:
        w.step("encapsulate", link.name, link, before=before, after=outer)
    w.begin_hop(home, link.name if home is ns else "", outer, encapsulated=True)
    if before is None:
        w.trace.packet = outer
        w.steps.append(Step("send", link.name, outer))
    w.steps.append(Step("route", "output", way.route))
    carrier = Skb(outer, home)
    carrier.mark = options.fwmark
    carrier.outdev = "lo" if way.route.type == "local" else way.dev
    routing.output(w, carrier, way)


def _walk_message(
    w: Walk, ns: Netns, link: Link, options: WireguardOptions, session: Session, message: WireguardMessage
) -> Trace:
    """Send a handshake message as a packet of its own, and come back to the present one."""
    saved = (w.trace, w.hop, w.steps, w.depth)
    told = Trace(Packet("0.0.0.0", "0.0.0.0", UDP), "handshake", [], caused=[])
    w.trace = told
    _send(w, ns, link, options, session, message)
    if not told.verdict:
        w.end("lost", "bridged-to-nobody", ns, link.name)
    w.trace, w.hop, w.steps, w.depth = saved
    return told


def _number(w: Walk, ns: Netns, link: Link, key: str) -> int:
    """A session's number: random in reality, derived here so that a walk repeats."""
    return crc32(f"{ns.name} {link.name} {key} {w.now} {w.ident()}".encode()) or 1


def _handshake(
    w: Walk, ns: Netns, link: Link, options: WireguardOptions, peer: WireguardPeer, session: Session
) -> Session | None:
    """Begin a session: the initiation goes out, and the response has to come back. None when it does not."""
    key = (link.name, peer.public_key)
    index = _number(w, ns, link, peer.public_key)
    message = WireguardMessage(
        INITIATION, SIZES[INITIATION], sender=index, key=options.public_key, to=peer.public_key
    )
    waiting = replace(session, index=index, sent=session.sent + message.length)
    ns.wireguard[key] = waiting
    told = _walk_message(w, ns, link, options, session, message)
    now = ns.wireguard[key]
    done = now.index == index and now.handshake == w.now and now.remote != 0 and now.initiator
    w.step(
        "handshake", link.name, told, note="a session with the peer" if done else "the peer did not answer"
    )
    if not done:
        ns.wireguard[key] = replace(now, index=session.index)
        return None
    return now


def arrived(w: Walk, skb: Skb, message: WireguardMessage) -> bool:
    """`wg_receive`: a message at a device's UDP port. False when no device that is up has that port here."""
    for name, dev in w.network.wireguards.get(skb.ns.name, ()):
        ns = w.network.netns[name]
        link = ns.links[dev]
        options = link.wireguard
        if options is None or not link.up or options.port != skb.pkt.dport:
            continue
        if message.type == DATA:
            _open(w, skb, ns, link, options, message)
        else:
            _shake(w, skb, ns, link, options, message)
        return True
    return False


def _heard(session: Session, pkt: Packet) -> Session:
    """`wg_socket_set_peer_endpoint`: a peer is where its last authentic message came from."""
    return replace(session, endpoint=endpoint(pkt.src, pkt.sport), source=pkt.dst)


def _shake(
    w: Walk, skb: Skb, ns: Netns, link: Link, options: WireguardOptions, message: WireguardMessage
) -> None:
    peer = peer_by_key(options, message.key) if message.to == options.public_key else None
    if peer is None:
        w.end("dropped", "wireguard-stranger", skb.ns, link.name, link)
        return
    key = (link.name, peer.public_key)
    session = _heard(_session(ns, link, peer), skb.pkt)
    session = replace(session, received=session.received + message.length)
    if message.type == RESPONSE:
        if message.receiver != session.index:
            w.end("dropped", "wireguard-no-session", skb.ns, link.name, link)
            return
        ns.wireguard[key] = replace(
            session, remote=message.sender, handshake=w.now, initiator=True, counter=0
        )
        w.delivered(skb, "wireguard-handshake", peer, link.name)
        return
    w.delivered(skb, "wireguard-handshake", peer, link.name)
    index = _number(w, ns, link, peer.public_key)
    answer = WireguardMessage(
        RESPONSE, SIZES[RESPONSE], message.sender, sender=index, key=options.public_key, to=peer.public_key
    )
    session = replace(
        session, index=index, remote=message.sender, handshake=w.now, initiator=False, counter=0,
        sent=session.sent + answer.length,
    )  # fmt: skip
    ns.wireguard[key] = session
    w.step("handshake", link.name, _walk_message(w, ns, link, options, session, answer), note="the response")


def _open(
    w: Walk, skb: Skb, ns: Netns, link: Link, options: WireguardOptions, message: WireguardMessage
) -> None:
    """`wg_packet_consume_data_done`: whose session it is, whether the source is that peer's, and up the stack."""
    outer = skb.pkt
    for peer in options.peers:
        session = ns.wireguard.get((link.name, peer.public_key))
        if session is not None and session.index == message.receiver and session.usable(w.now):
            break
    else:
        w.end("dropped", "wireguard-no-session", skb.ns, link.name, link)
        return
    session = _heard(session, outer)
    frame = outer.inner
    inner = frame.body if frame is not None else None
    assert isinstance(inner, Packet)
    if peer_for(options, inner.src) is not peer:
        ns.wireguard[link.name, peer.public_key] = session
        w.end("dropped", "wireguard-source", skb.ns, link.name, peer)
        return
    ns.wireguard[link.name, peer.public_key] = replace(session, received=session.received + message.length)
    w.step("decapsulate", link.name, peer, before=outer, after=inner)
    w.begin_hop(ns, link.name, inner)
    w.steps.append(Step("receive", link.name, Frame("", "", inner)))
    routing.receive_ip(w, Skb(inner, ns, link.name))
