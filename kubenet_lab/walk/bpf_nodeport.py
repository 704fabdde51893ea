"""Services for callers outside, packet by packet, on a node's own link (bpf/bpf_host.c, bpf/lib/nodeport.h).

    cil_from_netdev   a frontend's packet gets its backend; one here goes on up the stack with the client's address,
                      one elsewhere leaves again with this node's address (SNAT) or the client's (DSR)
                      a reply from a backend elsewhere: SNAT and backend undone, sent on to the client
    cil_to_netdev     a reply of a backend here, or of one that was called by DSR: it gets the frontend's address

Netfilter sees none of the translation: ingress comes before it, egress after it.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.kernel.bpf import (
    HOST,
    NAT_PORTS,
    REMOTE_NODE,
    WORLD,
    BpfState,
    CtKey,
    FamilyMaps,
    MapEntry,
    NatEntry,
    NatKey,
    SourceRange,
    in_block,
)
from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.ip import prefix
from kubenet_lab.packet.packet import ICMP, ICMPV6, SYN, TCP, DsrOption, Frame, Packet
from kubenet_lab.walk import bpf, bpf_lb, bpf_lxc, bpf_overlay
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb

COLLISION_RETRIES = 32
"""Ports SNAT tries before it gives up (SNAT_COLLISION_RETRIES)."""


def uses_dsr(state: BpfState, proto: int) -> bool:
    """True when packets of a protocol reach backends elsewhere with the client's address."""
    mode = state.datapath.mode
    return mode == "dsr" or (mode == "hybrid" and proto == TCP)


def from_netdev(
    w: Walk, ns: Netns, state: BpfState, link: Link, frame: Frame, _skb: Skb | None
) -> Frame | None:
    """`cil_from_netdev` at tcx ingress of the node's own link: Services, then, with host routing, pods of this node."""
    on = service(w, ns, state, link, frame, "cil_from_netdev")
    if on is None or not state.datapath.host_routing or not isinstance(on.body, Packet):
        return on
    pkt = on.body
    there = state.endpoints.get(pkt.dst)
    w.tried += 1
    if there is None or there.host:
        return on
    bpf_lxc.deliver_to(w, ns, state, pkt.dst, there, on, pkt, state.identity(pkt.src), "cil_from_netdev")
    return None


def service(w: Walk, ns: Netns, state: BpfState, link: Link, frame: Frame, program: str) -> Frame | None:
    """`nodeport_lb4`: a packet from outside, or a reply on its way out again."""
    pkt = frame.body
    assert isinstance(pkt, Packet)
    compiled = state.datapath
    if not (compiled.node_port or compiled.masquerade) or pkt.dst == "255.255.255.255":
        return frame
    maps = state.maps(pkt.family)
    if not compiled.node_port:
        return reverse(w, ns, state, maps, frame, program)
    if not bpf_lb.serves(state, pkt.proto):
        return reverse(w, ns, state, maps, frame, program) if pkt.proto in (ICMP, ICMPV6) else frame
    found = bpf_lb.lookup_service(w, maps, pkt.dst, pkt.dport, pkt.proto, east_west=False)
    if found is None:
        if pkt.dsr is not None and pkt.inner is None:
            return _dsr_arrives(w, state, maps, frame, program)
        return reverse(w, ns, state, maps, frame, program)
    key, svc = found
    frontend = MapEntry(maps.name("services"), key, svc)
    w.step("bpf", program, frontend)
    if "check source-range" in svc.flags:
        allowed = _source_range(w, maps, svc.rev_nat, pkt.src)
        if allowed is None:
            bpf.drop(w, ns, program, "bpf-source-range", frontend, "Not in source range")
            return None
        w.step("bpf", program, allowed, note="the client is in a source range")
    chosen = bpf_lb.balance(w, state, maps, key, svc, pkt)
    if chosen is None:
        _no_backend(w, ns, state, link, frame, program, frontend)
        return None
    if not svc.routable:
        bpf.drop(w, ns, program, "bpf-cluster-ip", frontend, "Is a ClusterIP")
        return None
    _number, backend, why = chosen
    after = replace(pkt, dst=backend.address, dport=backend.port)
    w.step("bpf", program, why, note=f"to {backend}", before=pkt, after=after)
    w.tried += 1
    here = state.endpoints.get(backend.address)
    if here is not None or not uses_dsr(state, pkt.proto):
        _track(w, maps, after, svc.rev_nat)
    if here is not None:
        w.step(
            "bpf", program, MapEntry("cilium_lxc", backend.address, here), note="the backend is on this node"
        )
        return bpf.rewritten(frame, after)
    if uses_dsr(state, pkt.proto):
        option: DsrOption | None = DsrOption(key.address, key.port)
        if pkt.proto == TCP and not pkt.flags & SYN:
            option = None  # the connection is known at the backend
        told = f", {option} travels along" if option is not None else ""
        w.step("bpf", program, note=f"DSR: the client's address stays{told}")
        if state.datapath.dispatch == "geneve":
            remote = state.identify(after.dst).value
            if remote is None or not remote.tunnel:
                bpf.drop(w, ns, program, "bpf-no-route", None, "No tunnel/encapsulation endpoint")
            else:
                bpf_overlay.encapsulate(w, ns, state, remote.tunnel, WORLD, frame, after, option)
            return None
        after = replace(after, dsr=option)
    else:
        remote = state.identify(after.dst).value
        if state.datapath.tunnel and remote is not None and remote.tunnel:
            sent = snat(w, ns, state, maps, after, program, state.datapath.gateway.get(maps.family, ""))
            if sent is not None:
                bpf_overlay.encapsulate(w, ns, state, remote.tunnel, WORLD, frame, sent)
            return None
        sent = snat(w, ns, state, maps, after, program)
        if sent is None:
            return None
        after = sent
    bpf.fib_redirect(w, ns, program, frame, after)
    return None


def _track(w: Walk, maps: FamilyMaps, pkt: Packet, number: int) -> None:
    """Keep the connection to the backend, and by which frontend it came."""
    key = CtKey(pkt.proto, pkt.src, pkt.dst, pkt.sport, pkt.dport, "OUT")
    known = bpf_lb.ct_lookup(w, maps, key, pkt)
    if known is None or known.rev_nat != number:
        bpf_lb.ct_create(
            w, maps, key, pkt, rev_nat=number, flags=frozenset({"NodePort"}), source_identity=WORLD
        )


def _source_range(w: Walk, maps: FamilyMaps, number: int, client: str) -> MapEntry | None:
    """The longest block of a frontend's source ranges that holds the client."""
    w.tried += 1
    fitting = [key for key in maps.source_ranges if key.rev_nat == number and client in prefix(key.block)]
    if not fitting:
        return None
    best = max(fitting, key=lambda key: prefix(key.block).length)
    return MapEntry(maps.name("source_ranges"), SourceRange(number, best.block), "allowed")


def _no_backend(
    w: Walk, ns: Netns, state: BpfState, link: Link, frame: Frame, program: str, frontend: MapEntry
) -> None:
    pkt = frame.body
    assert isinstance(pkt, Packet)
    if state.datapath.no_backend == "reject":
        w.end("rejected", "bpf-no-backend", ns, f"{program} tail_no_service", frontend)
        bpf.answer(w, ns, link, frame, bpf.unreachable(pkt))
    else:
        bpf.drop(w, ns, program, "bpf-no-backend", frontend, "Service backend not found")


# -- SNAT -------------------------------------------------------------------------------------------------------------


def snat(
    w: Walk, ns: Netns, state: BpfState, maps: FamilyMaps, pkt: Packet, program: str, address: str = ""
) -> Packet | None:
    """`snat_v4_nat`: give a packet this node's address, and a port that leads its reply back. None when none is left.

    The client's own port is kept where it lies in NAT_PORTS and is free. `address` is for a backend behind the tunnel:
    cilium_host's, so that the reply comes back through the tunnel.
    """
    address = address or state.datapath.direct.get(maps.family, "")
    if not address:
        bpf.drop(w, ns, program, "no-source", None, "No mapping for NAT masquerade")
        return None
    ping = pkt.proto in (ICMP, ICMPV6)
    sport, dport = (pkt.icmp_id, 0) if ping else (pkt.sport, pkt.dport)
    key = NatKey(pkt.proto, pkt.src, pkt.dst, sport, dport, "OUT")
    w.tried += 1
    entry = maps.snat.get(key)
    if entry is None:
        port = _free_port(w, maps, pkt, address, sport, dport)
        if not port:
            bpf.drop(w, ns, program, "conntrack-clash", None, "No mapping for NAT masquerade")
            return None
        entry = maps.snat[key] = NatEntry(address, port, "OUT", w.now)
        back = NatKey(pkt.proto, pkt.dst, address, dport, port, "IN")
        maps.snat[back] = NatEntry(pkt.src, sport, "IN", w.now)
    after = (
        replace(pkt, src=entry.address, icmp_id=entry.port)
        if ping
        else replace(pkt, src=entry.address, sport=entry.port)
    )
    w.step("bpf", program, MapEntry(maps.name("snat"), key, entry), before=pkt, after=after)
    return after


def _free_port(w: Walk, maps: FamilyMaps, pkt: Packet, address: str, sport: int, dport: int) -> int:
    low, high = NAT_PORTS
    port = sport if low <= sport <= high else low + w.rng.randrange(high - low + 1)
    for _try in range(COLLISION_RETRIES):
        if NatKey(pkt.proto, pkt.dst, address, dport, port, "IN") not in maps.snat:
            return port
        port = low + w.rng.randrange(high - low + 1)
    return 0


def reverse(
    w: Walk, ns: Netns, state: BpfState, maps: FamilyMaps, frame: Frame, program: str
) -> Frame | None:
    """`tail_nodeport_nat_ingress_ipv4`: undo SNAT; then, for a Service's reply, name the frontend and send it on."""
    pkt = frame.body
    assert isinstance(pkt, Packet)
    if pkt.quoted is not None:
        return _reverse_error(w, maps, frame, program, pkt.quoted)
    ping = pkt.proto in (ICMP, ICMPV6)
    key = NatKey(
        pkt.proto, pkt.src, pkt.dst, 0 if ping else pkt.sport, pkt.icmp_id if ping else pkt.dport, "IN"
    )
    w.tried += 1
    entry = maps.snat.get(key)
    if entry is None or (ping and pkt.icmp_type not in (0, 129)):
        return frame
    after = (
        replace(pkt, dst=entry.address, icmp_id=entry.port)
        if ping
        else replace(pkt, dst=entry.address, dport=entry.port)
    )
    w.step("bpf", program, MapEntry(maps.name("snat"), key, entry), before=pkt, after=after)
    if ping:
        return bpf.rewritten(frame, after)
    named = frontend_of(w, maps, after, program)
    if named is None:
        return bpf.rewritten(frame, after)
    bpf.fib_redirect(w, ns, program, frame, named)
    return None


def _reverse_error(w: Walk, maps: FamilyMaps, frame: Frame, program: str, quoted: Packet) -> Frame:
    """An ICMP error about a packet that left here with this node's address: lead it to the one who sent it.

    The packet it quotes keeps its backend, as in Cilium: a Service's client does not recognise it.
    """
    pkt = frame.body
    assert isinstance(pkt, Packet)
    ping = quoted.proto in (ICMP, ICMPV6)
    ports = (0, quoted.icmp_id) if ping else (quoted.dport, quoted.sport)
    key = NatKey(quoted.proto, quoted.dst, quoted.src, *ports, "IN")
    w.tried += 1
    entry = maps.snat.get(key)
    if entry is None:
        return frame
    inner = replace(quoted, src=entry.address, **{"icmp_id" if ping else "sport": entry.port})
    after = replace(pkt, dst=entry.address, quoted=inner)
    w.step("bpf", program, MapEntry(maps.name("snat"), key, entry), before=pkt, after=after)
    return bpf.rewritten(frame, after)


def frontend_of(w: Walk, maps: FamilyMaps, pkt: Packet, program: str) -> Packet | None:
    """`nodeport_rev_dnat_fwd_ipv4`: give a backend's reply the address that its client called, if it called one."""
    key = CtKey(pkt.proto, pkt.dst, pkt.src, pkt.dport, pkt.sport, "OUT")
    entry = maps.ct.get(key)
    w.tried += 1
    if entry is None or entry.expires <= w.now or "NodePort" not in entry.flags:
        return None
    bpf_lb.ct_lookup(w, maps, key, pkt)
    found = bpf_lb.rev_nat(w, maps, entry.rev_nat)
    if found is None:
        return None
    front, why = found
    after = replace(pkt, src=front.address, sport=front.port)
    w.step("bpf", program, why, before=pkt, after=after)
    return after


# -- egress -----------------------------------------------------------------------------------------------------------


def to_netdev(
    w: Walk, ns: Netns, state: BpfState, _link: Link, frame: Frame, _skb: Skb | None
) -> Frame | None:
    """`cil_to_netdev` at tcx egress: what a backend here answers gets the frontend's address; pods are masqueraded."""
    pkt = frame.body
    assert isinstance(pkt, Packet)
    maps = state.maps(pkt.family)
    if state.datapath.masquerade and _leaves_the_cluster(state, pkt):
        sent = snat(w, ns, state, maps, pkt, "cil_to_netdev")
        return bpf.rewritten(frame, sent) if sent is not None else None
    if not state.datapath.node_port or not bpf_lb.serves(state, pkt.proto):
        return frame
    named = frontend_of(w, maps, pkt, "cil_to_netdev")
    if named is not None:
        return bpf.rewritten(frame, named)
    if state.datapath.mode != "snat":
        sent = _dsr_answers(w, maps, pkt)
        if sent is not None:
            return bpf.rewritten(frame, sent)
    return frame


def _leaves_the_cluster(state: BpfState, pkt: Packet) -> bool:
    """`snat_v4_needs_masquerade`: a pod of this node calls somebody outside, and it is no answer of its own."""
    source = state.endpoints.get(pkt.src)
    if source is None or source.host or pkt.quoted is not None:
        return False
    native = state.datapath.native_cidrs.get(pkt.family, "")
    if (native and in_block(pkt.dst, native)) or state.identity(pkt.dst) in (HOST, REMOTE_NODE):
        return False
    entry = state.maps(pkt.family).ct.get(bpf_lxc.ct_key(pkt, "IN").turned)
    return entry is None


# -- DSR --------------------------------------------------------------------------------------------------------------


def _dsr_arrives(w: Walk, state: BpfState, maps: FamilyMaps, frame: Frame, program: str) -> Frame:
    """`nodeport_extract_dsr_v4`: keep which frontend a client called, so that the answer goes to it straight."""
    pkt = frame.body
    assert isinstance(pkt, Packet)
    assert pkt.dsr is not None
    key = NatKey(pkt.proto, pkt.dst, pkt.src, pkt.dport, pkt.sport, "OUT")
    entry = maps.snat[key] = NatEntry(pkt.dsr.address, pkt.dsr.port, "OUT", w.now)
    flow = CtKey(pkt.proto, pkt.src, pkt.dst, pkt.sport, pkt.dport, "OUT")
    bpf_lb.ct_create(w, maps, flow, pkt, flags=frozenset({"DSR"}), source_identity=WORLD)
    w.step(
        "bpf", program, MapEntry(maps.name("snat"), key, entry), note="DSR: answers will name the frontend"
    )
    return bpf.rewritten(frame, replace(pkt, dsr=None))


def called_by_dsr(w: Walk, maps: FamilyMaps, flow: CtKey) -> bool:
    """`ct_has_dsr_egress_entry4`: True for a connection that another node led here by DSR."""
    entry = maps.ct.get(flow)
    return entry is not None and entry.expires > w.now and "DSR" in entry.flags


def _dsr_answers(w: Walk, maps: FamilyMaps, pkt: Packet) -> Packet | None:
    """`xlate_dsr_v4`: an answer of a backend that was called by DSR."""
    if not called_by_dsr(w, maps, CtKey(pkt.proto, pkt.dst, pkt.src, pkt.dport, pkt.sport, "OUT")):
        return None
    key = NatKey(pkt.proto, pkt.src, pkt.dst, pkt.sport, pkt.dport, "OUT")
    found = maps.snat.get(key)
    if found is None:
        return None
    after = replace(pkt, src=found.address, sport=found.port)
    w.step("bpf", "cil_to_netdev", MapEntry(maps.name("snat"), key, found), before=pkt, after=after)
    return after


PROGRAMS: dict[str, bpf.Program] = {"cil_from_netdev": from_netdev, "cil_to_netdev": to_netdev}
