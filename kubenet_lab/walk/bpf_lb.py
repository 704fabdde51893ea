"""The look-ups every translating program shares: frontend, scope, affinity, backend (Cilium's bpf/lib/lb.h).

A look-up costs the same however many Services there are. `Trace.rules_tried` counts one for each map asked.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.kernel.bpf import (
    EXTERNAL,
    INTERNAL,
    AffinityKey,
    AffinityValue,
    BpfState,
    CtEntry,
    CtKey,
    FamilyMaps,
    LbBackend,
    LbKey,
    LbService,
    MapEntry,
    RevNat,
    ct_lifetime,
    slot_of,
)
from kubenet_lab.kernel.bpf_maglev import flow_hash
from kubenet_lab.packet.ip import IP_INT
from kubenet_lab.packet.packet import ACK, FIN, RST, SCTP, SYN, TCP, UDP, Packet
from kubenet_lab.walk.engine import Walk


def serves(state: BpfState, proto: int) -> bool:
    """True for the protocols that Services are looked up for; SCTP only where it was switched on."""
    return proto in (TCP, UDP) or (proto == SCTP and state.datapath.sctp)


def lookup_service(
    w: Walk, maps: FamilyMaps, address: str, port: int, proto: int, *, east_west: bool
) -> tuple[LbKey, LbService] | None:
    """`lb4_lookup_service`: the frontend an address and port belong to.

    East-west callers (pods and the node itself) are served by the internal scope where a frontend has two.
    """
    key = LbKey(address, port, proto, 0, EXTERNAL)
    w.tried += 1
    service = maps.services.get(key)
    if service is None:
        return None
    if east_west and "two-scopes" in service.flags:
        key = LbKey(address, port, proto, 0, INTERNAL)
        w.tried += 1
        service = maps.services.get(key)
        if service is None:
            return None
    return key, service


def pick_slot(w: Walk, maps: FamilyMaps, key: LbKey, service: LbService) -> LbKey:
    """`get_prandom_u32() % count + 1`: one slot by chance, each as likely as another."""
    count = service.count
    for slot in range(1, count):
        if w.choose(MapEntry(maps.name("services"), slot_of(key, slot), None), 1 / (count - slot + 1)):
            return slot_of(key, slot)
    return slot_of(key, count)


def pick_backend(
    w: Walk, state: BpfState, maps: FamilyMaps, key: LbKey, service: LbService, pkt: Packet
) -> tuple[int, MapEntry]:
    """Return a backend for a new connection from outside, by the frontend's algorithm, and the entry that named it."""
    w.tried += 1
    if service.algorithm == "maglev":
        table = state.maglev_table(maps.family, service, key)
        size = 16 if maps.family == 6 else 4
        sport = 0 if "sessionAffinity" in service.flags else pkt.sport
        place = flow_hash(IP_INT[pkt.src].to_bytes(size, "big"), sport, pkt.dport, pkt.proto) % len(table)
        return table[place], MapEntry(maps.name("maglev"), f"{service.rev_nat} place {place}", table[place])
    slot = pick_slot(w, maps, key, service)
    chosen = maps.services[slot]
    return chosen.backend, MapEntry(maps.name("services"), slot, chosen)


def affinity(w: Walk, maps: FamilyMaps, service: LbService, client: str, netns: bool) -> int:
    """`__lb4_affinity_backend_id`: the backend a client used last, 0 when that is too long ago or it is gone."""
    key = AffinityKey(client, netns, service.rev_nat)
    w.tried += 1
    found = maps.affinity.get(key)
    if found is None:
        return 0
    late = found.last_used + service.affinity_seconds <= w.now
    if late or (service.rev_nat, found.backend) not in maps.affinity_match:
        del maps.affinity[key]
        return 0
    maps.affinity[key] = AffinityValue(found.backend, w.now)
    return found.backend


def keep_affinity(
    w: Walk, maps: FamilyMaps, service: LbService, client: str, netns: bool, backend: int
) -> None:
    """Remember which backend a client was given."""
    maps.affinity[AffinityKey(client, netns, service.rev_nat)] = AffinityValue(backend, w.now)


def ct_lookup(w: Walk, maps: FamilyMaps, key: CtKey, pkt: Packet) -> CtEntry | None:
    """Find a live entry and let this packet keep it alive."""
    w.tried += 1
    entry = maps.ct.get(key)
    if entry is None:
        return None
    if entry.expires <= w.now:
        del maps.ct[key]
        return None
    flags = entry.flags
    closing = pkt.proto == TCP and bool(pkt.flags & (FIN | RST))
    if pkt.proto == TCP and not pkt.flags & SYN:
        flags |= {"SeenNonSyn"}
    syn = pkt.proto == TCP and "SeenNonSyn" not in flags
    fresh = replace(
        entry,
        expires=w.now + ct_lifetime(pkt.proto, syn, closing),
        flags=flags | {"TxClosing"} if closing else flags,
        packets=entry.packets + 1,
    )
    maps.ct[key] = fresh
    return fresh


def ct_create(w: Walk, maps: FamilyMaps, key: CtKey, pkt: Packet, **fields: object) -> MapEntry:
    """Make an entry for a connection's first packet."""
    syn = pkt.proto == TCP and bool(pkt.flags & SYN) and not pkt.flags & ACK
    made = CtEntry(w.now + ct_lifetime(pkt.proto, syn), **fields)  # type: ignore[arg-type]
    maps.ct[key] = made
    return MapEntry(maps.name("ct"), key, made)


def balance(
    w: Walk, state: BpfState, maps: FamilyMaps, key: LbKey, service: LbService, pkt: Packet
) -> tuple[int, LbBackend, MapEntry] | None:
    """`lb4_local`: the backend of a packet's connection, new or known. None when the frontend has no backend.

    A connection keeps its backend by an entry of its own in the connection table (SVC), so that packets after the
    first need no choice; only a new connection is sent away from a backend that terminates.
    """
    flow = CtKey(pkt.proto, pkt.src, pkt.dst, pkt.sport, pkt.dport, "SVC")
    known = ct_lookup(w, maps, flow, pkt)
    opening = pkt.proto == TCP and pkt.flags & (SYN | ACK) == SYN
    sticky = "sessionAffinity" in service.flags
    if known is not None:
        backend = maps.backends.get(known.backend)
        if backend is not None and (backend.state == "active" or not opening):
            if sticky:
                keep_affinity(w, maps, service, pkt.src, False, known.backend)
            return known.backend, backend, MapEntry(maps.name("ct"), flow, known)
    if not service.count:
        return None
    number = affinity(w, maps, service, pkt.src, False) if sticky and known is None else 0
    entry: MapEntry
    if number and number in maps.backends:
        stuck = AffinityKey(pkt.src, False, service.rev_nat)
        entry = MapEntry(maps.name("affinity"), stuck, maps.affinity[stuck])
    else:
        number, entry = pick_backend(w, state, maps, key, service, pkt)
    w.tried += 1
    backend = maps.backends.get(number)
    if backend is None:
        return None
    ct_create(w, maps, flow, pkt, rev_nat=service.rev_nat, backend=number)
    if sticky:
        keep_affinity(w, maps, service, pkt.src, False, number)
    return number, backend, entry


def rev_nat(w: Walk, maps: FamilyMaps, number: int) -> tuple[RevNat, MapEntry] | None:
    """Return the frontend that a reply must seem to come from."""
    w.tried += 1
    found = maps.rev_nat.get(number)
    return (found, MapEntry(maps.name("rev_nat"), number, found)) if found is not None else None
