"""A pod's programs: what it sends, what it is sent, and what its policy map says (bpf/bpf_lxc.c, bpf_host.c).

    cil_from_container  Services (where sockets do not translate them), the pod's egress policy, then: another pod here,
                        a node's tunnel, or the host's own stack
    cil_lxc_policy      before a pod here is sent something: its ingress policy, and Services undone for answers
    cil_from_host       what the host's stack sends to cilium_host: to a pod here, or into the tunnel
    cil_to_host         lets everything in

A connection is judged once. An entry of the connection table lets the rest of it pass, in both directions; errors about
it, too. Between two pods of a node a packet meets no bridge, no netfilter and no routing table.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.kernel.bpf import (
    HOST,
    LOOPBACK4,
    MARK_IDENTITY,
    BpfState,
    CtKey,
    EndpointEntry,
    FamilyMaps,
    MapEntry,
    PolicyEntry,
)
from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.http import Response
from kubenet_lab.packet.packet import ICMP, ICMPV6, PSH, Frame, Packet
from kubenet_lab.walk import bpf, bpf_lb, bpf_nodeport, bpf_overlay, links
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb


def ct_key(pkt: Packet, way: str) -> CtKey:
    """Return a packet's key; an echo's identifier stands for both ports."""
    if pkt.proto in (ICMP, ICMPV6):
        return CtKey(pkt.proto, pkt.src, pkt.dst, pkt.icmp_id, pkt.icmp_id, way)
    return CtKey(pkt.proto, pkt.src, pkt.dst, pkt.sport, pkt.dport, way)


def _turned(key: CtKey, way: str) -> CtKey:
    return CtKey(key.proto, key.dst, key.src, key.dport, key.sport, way)


def _related(w: Walk, maps: FamilyMaps, pkt: Packet) -> bool:
    """CT_RELATED: an ICMP error about a packet of a known connection."""
    if pkt.quoted is None:
        return False
    for way in ("OUT", "IN"):
        key = ct_key(pkt.quoted, way)
        for one in (key, _turned(key, way)):
            w.tried += 1
            entry = maps.ct.get(one)
            if entry is not None and entry.expires > w.now:
                return True
    return False


# -- what a pod sends -------------------------------------------------------------------------------------------------


def from_container(
    w: Walk, ns: Netns, state: BpfState, link: Link, frame: Frame, _skb: Skb | None
) -> Frame | None:
    """`cil_from_container` at tcx ingress of the pod's end on the host."""
    pkt, name = frame.body, "cil_from_container"
    assert isinstance(pkt, Packet)
    found = state.endpoint_at(link.name, pkt.family)
    if found is None:
        return frame
    address, entry = found
    if pkt.src != address:
        if pkt.family == 6 and pkt.src.startswith("fe80:"):
            return frame
        bpf.drop(w, ns, name, "bpf-source", MapEntry("cilium_lxc", address, entry), "Invalid source ip")
        return None
    maps = state.maps(pkt.family)
    if pkt.dst == LOOPBACK4:
        return _from_itself(w, ns, state, maps, entry, frame, pkt)
    translated = _service(w, ns, state, maps, link, frame, pkt)
    if translated is None:
        return None
    pkt, number, looped = translated
    if not _let_out(w, ns, state, maps, entry, pkt, number, looped):
        return None
    if looped:
        deliver_to(w, ns, state, pkt.dst, state.endpoints[pkt.dst], frame, pkt, HOST, name)
        return None
    named = bpf_nodeport.frontend_of(w, maps, pkt, name)
    if named is not None:
        return _answer_outside(w, ns, state, frame, named, entry)
    return onward(w, ns, state, frame, pkt, entry.identity, name)


def _answer_outside(
    w: Walk, ns: Netns, state: BpfState, frame: Frame, pkt: Packet, entry: EndpointEntry
) -> Frame | None:
    """A node port's answer leaves from here at once, by the routing table."""
    if pkt.dst in state.endpoints or state.identify(pkt.dst).value.tunnel:
        return onward(w, ns, state, frame, pkt, entry.identity, "cil_from_container")
    bpf.fib_redirect(w, ns, "cil_from_container", frame, pkt)
    return None


def _service(
    w: Walk, ns: Netns, state: BpfState, maps: FamilyMaps, link: Link, frame: Frame, pkt: Packet
) -> tuple[Packet, int, bool] | None:
    """`__per_packet_lb_svc_xlate_4`: where sockets are not given backends, packets are.

    Return the packet, the frontend's reverse NAT number (0 for none), and whether the pod calls itself: then it gets
    LOOPBACK4 as its source, so that its own stack sends the answer back out. None when there is no backend.
    """
    name = "cil_from_container"
    if state.datapath.socket_lb == "full" or not bpf_lb.serves(state, pkt.proto):
        return pkt, 0, False
    found = bpf_lb.lookup_service(w, maps, pkt.dst, pkt.dport, pkt.proto, east_west=True)
    if found is None:
        return pkt, 0, False
    key, service = found
    frontend = MapEntry(maps.name("services"), key, service)
    chosen = bpf_lb.balance(w, state, maps, key, service, pkt)
    if chosen is None:
        if state.datapath.no_backend == "reject":
            w.end("rejected", "bpf-no-backend", ns, f"{name} tail_no_service", frontend)
            bpf.answer(w, ns, link, frame, bpf.unreachable(pkt))
        else:
            bpf.drop(w, ns, name, "bpf-no-backend", frontend, "Service backend not found")
        return None
    _number, backend, why = chosen
    looped = backend.address == pkt.src and maps.family == 4
    after = replace(pkt, dst=backend.address, dport=backend.port, src=LOOPBACK4 if looped else pkt.src)
    w.step("bpf", name, frontend)
    w.step("bpf", name, why, note=f"to {backend}", before=pkt, after=after)
    return after, service.rev_nat, looped


def _let_out(
    w: Walk,
    ns: Netns,
    state: BpfState,
    maps: FamilyMaps,
    entry: EndpointEntry,
    pkt: Packet,
    number: int,
    looped: bool,
) -> bool:
    """The sender's egress policy, for the first packet of a connection. False when it ended here."""
    name = "cil_from_container"
    out = ct_key(pkt, "OUT")
    known = bpf_lb.ct_lookup(w, maps, out, pkt)
    if known is not None and known.rev_nat == number:
        return not known.proxy_port or _through_proxy(w, ns, state, known.proxy_port, pkt, name)
    answered = _turned(out, "IN")
    if bpf_lb.ct_lookup(w, maps, answered, pkt) is not None or _related(w, maps, pkt):
        return True
    flags = frozenset({"LBLoopback"}) if looped else frozenset()
    if looped:
        bpf_lb.ct_create(w, maps, out, pkt, rev_nat=number, flags=flags, source_identity=entry.identity)
        return True
    who = state.identify(pkt.dst)
    identity = state.identity(pkt.dst)
    verdict = judge(w, state, entry.id, False, identity, pkt, name, f"to {who.key}, identity {identity}")
    if verdict is None or verdict.deny:
        _denied(w, ns, state, entry.id, False, identity, pkt, name)
        return False
    bpf_lb.ct_create(
        w, maps, out, pkt, rev_nat=number, source_identity=entry.identity, proxy_port=verdict.proxy_port
    )
    return not verdict.proxy_port or _through_proxy(w, ns, state, verdict.proxy_port, pkt, name)


def judge(
    w: Walk, state: BpfState, number: int, ingress: bool, identity: int, pkt: Packet, program: str, note: str
) -> PolicyEntry | None:
    """Ask a policy map and write the step; None where no entry fits."""
    w.tried += 1
    port = pkt.icmp_type if pkt.proto in (ICMP, ICMPV6) else pkt.dport
    found = state.verdict(number, ingress, identity, pkt.proto, port)
    value: PolicyEntry | None = found.value
    if value is not None and not value.deny:
        w.step("bpf", program, found, note=note)
    return value


def _denied(
    w: Walk, ns: Netns, state: BpfState, number: int, ingress: bool, identity: int, pkt: Packet, program: str
) -> None:
    port = pkt.icmp_type if pkt.proto in (ICMP, ICMPV6) else pkt.dport
    found = state.verdict(number, ingress, identity, pkt.proto, port)
    why = "Policy denied by denylist" if found.value is not None else "Policy denied"
    bpf.drop(
        w,
        ns,
        program,
        "bpf-policy",
        found,
        f"{why} ({'ingress' if ingress else 'egress'}, identity {identity})",
    )


def onward(
    w: Walk, ns: Netns, state: BpfState, frame: Frame, pkt: Packet, identity: int, program: str
) -> Frame | None:
    """To another pod here, into the tunnel, or up the host's stack (then the frame is returned)."""
    w.tried += 1
    there = state.endpoints.get(pkt.dst)
    if there is not None and not there.host:
        deliver_to(w, ns, state, pkt.dst, there, frame, pkt, identity, program)
        return None
    if there is None and state.datapath.tunnel:
        found = state.identify(pkt.dst)
        w.tried += 1
        if found.value is not None and found.value.tunnel:
            w.step("bpf", program, found, note="behind another node: into the tunnel")
            bpf_overlay.encapsulate(w, ns, state, found.value.tunnel, identity, frame, pkt)
            return None
    if there is None and state.datapath.host_routing and program == "cil_from_container":
        bpf.fib_redirect(w, ns, program, frame, pkt, translated=False)
        return None
    if program == "cil_from_container":
        w.program_mark = (identity & 0xFFFF) << 16 | MARK_IDENTITY
    return bpf.rewritten(frame, pkt)


# -- what a pod is sent -----------------------------------------------------------------------------------------------


def deliver_to(
    w: Walk,
    ns: Netns,
    state: BpfState,
    address: str,
    entry: EndpointEntry,
    frame: Frame,
    pkt: Packet,
    identity: int,
    program: str,
) -> None:
    """`ipv4_local_delivery`, then `cil_lxc_policy`: count the TTL, judge, and put the packet into the pod.

    A TTL that runs out here is told to nobody.
    """
    if pkt.ttl <= 1:
        bpf.drop(w, ns, program, "ttl-exceeded", None, "TTL exceeded, and no ICMP error is sent")
        return
    pkt = replace(pkt, ttl=pkt.ttl - 1)
    w.step("bpf", program, MapEntry("cilium_lxc", address, entry), note="a pod of this node")
    maps = state.maps(pkt.family)
    let = _let_in(w, ns, state, maps, entry, pkt, identity)
    if let is None:
        return
    out = replace(frame, src=entry.node_mac, dst=entry.mac, body=let)
    w.step("bpf", "cil_lxc_policy", note=f"redirect to {entry.dev}, past netfilter")
    links.transmit(w, ns, entry.dev, out, None, past_bpf=True)


def _let_in(
    w: Walk, ns: Netns, state: BpfState, maps: FamilyMaps, entry: EndpointEntry, pkt: Packet, identity: int
) -> Packet | None:
    """The receiver's ingress policy. An answer gets its Service's address back. None when it ended here."""
    name = "cil_lxc_policy"
    into = ct_key(pkt, "IN")
    mine = _turned(into, "OUT")
    answered = bpf_lb.ct_lookup(w, maps, mine, pkt)
    if answered is not None:
        return _renamed(w, maps, pkt, answered.rev_nat, name)
    known = bpf_lb.ct_lookup(w, maps, into, pkt)
    if known is not None:
        if known.proxy_port and not _through_proxy(w, ns, state, known.proxy_port, pkt, name):
            return None
        return pkt
    if _related(w, maps, pkt) or pkt.src == LOOPBACK4:
        return pkt
    verdict = judge(w, state, entry.id, True, identity, pkt, name, f"from {pkt.src}, identity {identity}")
    if verdict is None or verdict.deny:
        _denied(w, ns, state, entry.id, True, identity, pkt, name)
        return None
    bpf_lb.ct_create(w, maps, into, pkt, source_identity=identity, proxy_port=verdict.proxy_port)
    if verdict.proxy_port and not _through_proxy(w, ns, state, verdict.proxy_port, pkt, name):
        return None
    return pkt


def _renamed(w: Walk, maps: FamilyMaps, pkt: Packet, number: int, program: str) -> Packet:
    """`lb4_rev_nat`: a backend's answer seems to come from the Service."""
    found = bpf_lb.rev_nat(w, maps, number) if number else None
    if found is None or pkt.proto in (ICMP, ICMPV6):
        return pkt
    front, why = found
    after = replace(pkt, src=front.address, sport=front.port)
    w.step("bpf", program, why, before=pkt, after=after)
    return after


def _from_itself(
    w: Walk, ns: Netns, state: BpfState, maps: FamilyMaps, entry: EndpointEntry, frame: Frame, pkt: Packet
) -> Frame | None:
    """A pod answers its own call: both addresses are put right and the packet goes back in."""
    name = "cil_from_container"
    key = _turned(ct_key(pkt, "OUT"), "OUT")
    known = bpf_lb.ct_lookup(w, maps, key, pkt)
    found = bpf_lb.rev_nat(w, maps, known.rev_nat) if known is not None else None
    if known is None or found is None:
        return frame
    front, why = found
    after = replace(pkt, src=front.address, sport=front.port, dst=pkt.src, ttl=pkt.ttl - 1)
    w.step("bpf", name, why, note="the pod's answer to itself", before=pkt, after=after)
    out = replace(frame, src=entry.node_mac, dst=entry.mac, body=after)
    links.transmit(w, ns, entry.dev, out, None, past_bpf=True)
    return None


# -- L7 ---------------------------------------------------------------------------------------------------------------


def _through_proxy(w: Walk, ns: Netns, state: BpfState, port: int, pkt: Packet, program: str) -> bool:
    """`ctx_redirect_to_proxy4`: the host's proxy takes the connection, judges each request, and passes it on.

    The proxy keeps the client's address, so both ends see each other. False when a request was refused: the proxy then
    answers itself.
    """
    w.step("bpf", program, note=f"redirect to the proxy's port {port}")
    listener = state.proxies.get(port)
    if listener is None or not pkt.payload or not pkt.flags & PSH:
        return True
    refusal = listener(pkt.payload)
    if refusal is None:
        w.step("bpf", f"proxy {port}", note="the proxy lets the request through")
        return True
    answer = Response.from_bytes(refusal)
    w.end("rejected", "l7-denied", ns, f"proxy {port}", answer, note="the proxy answers itself")
    return False


# -- the host ---------------------------------------------------------------------------------------------------------


def from_host(
    w: Walk, ns: Netns, state: BpfState, _link: Link, frame: Frame, skb: Skb | None
) -> Frame | None:
    """`cil_from_host` at tcx egress of cilium_host. A mark says which pod a packet came from before the stack."""
    pkt = frame.body
    assert isinstance(pkt, Packet)
    marked = skb is not None and skb.mark & MARK_IDENTITY == MARK_IDENTITY
    identity = skb.mark >> 16 if skb is not None and marked else state.identity(pkt.src)
    return onward(w, ns, state, frame, pkt, identity, "cil_from_host")


def to_host(_w: Walk, _ns: Netns, _state: BpfState, _link: Link, frame: Frame, _skb: Skb | None) -> Frame:
    """`cil_to_host` at tcx ingress of cilium_net: without a host policy everything may come in."""
    return frame


PROGRAMS: dict[str, bpf.Program] = {
    "cil_from_container": from_container,
    "cil_from_host": from_host,
    "cil_to_host": to_host,
}
