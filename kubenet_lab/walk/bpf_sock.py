"""Socket-level translation: connect() and sendmsg() rewrite the address before there is a packet (bpf/bpf_sock.c).

The programs hang at the root cgroup, so they see the system calls of the host's processes and of its pods. The packet
on the wire already carries the backend, no reply needs translating, and conntrack hears of no Service. The application
is kept in its belief: `getpeername()` and, for datagrams, `recvmsg()` say the Service's address.

A datagram socket keeps its backend as long as the Service's slots stay: the program takes the socket's cookie modulo
the count. That cookie is a number of the kernel's that nobody can foretell, so chance stands for it at a socket's first
datagram.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.kernel.bpf import (
    EXTERNAL,
    HOST,
    INTERNAL,
    KUBE_APISERVER,
    NODE_PORTS,
    REMOTE_NODE,
    BpfState,
    FamilyMaps,
    LbKey,
    LbService,
    MapEntry,
    RevNat,
    SocketKey,
    slot_of,
)
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.ip import prefix
from kubenet_lab.packet.packet import TCP, UDP, Packet
from kubenet_lab.walk import bpf_lb
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb

_LOOPBACK4 = prefix("127.0.0.0/8")


def state_of(ns: Netns) -> BpfState | None:
    """Return the state of the host whose cgroup the processes of a namespace are in, None without programs there."""
    if ns.bpf is not None:
        return ns.bpf if ("", "cgroup") in ns.bpf.attachments else None
    if ns.network is None or ns.host == ns.name:
        return None
    host = ns.network.netns.get(ns.host)
    if host is None or host.bpf is None or ("", "cgroup") not in host.bpf.attachments:
        return None
    return host.bpf


def connect(w: Walk, ns: Netns, state: BpfState, pkt: Packet) -> tuple[Packet, RevNat | None] | None:
    """`cil_sock4_connect`, `cil_sock4_sendmsg`: return the packet with its backend, and what was called.

    None when the call fails: a Service without backends gives EHOSTUNREACH. SCTP and ICMP are not looked at.
    """
    if pkt.proto not in (TCP, UDP):
        return pkt, None
    in_host = ns.bpf is state
    if state.datapath.socket_lb == "host-only" and not in_host:
        return pkt, None
    family = pkt.family if pkt.src else (6 if ":" in pkt.dst else 4)
    maps = state.maps(family)
    program = f"cil_sock{family}_{'connect' if pkt.proto == TCP else 'sendmsg'}"
    found = bpf_lb.lookup_service(w, maps, pkt.dst, pkt.dport, pkt.proto, east_west=True)
    if found is None and state.datapath.node_port:
        found = _wildcard(w, state, maps, pkt, in_host)
    if found is None:
        return pkt, None
    key, service = found
    frontend = MapEntry(maps.name("services"), key, service)
    if not service.count:
        w.step("send", "socket", pkt)
        w.end("dropped", "bpf-no-backend", ns, program, frontend)
        return None
    if service.kind == "ExternalIPs" and state.identity(pkt.dst) != HOST:
        # Else a Service could draw traffic for any public address to itself (CVE-2020-8554).
        w.step("bpf", program, frontend, note="left alone: an external IP that is not this host's")
        return pkt, None
    number, entry = _backend(w, ns, maps, key, service, pkt)
    w.tried += 1
    backend = maps.backends.get(number)
    if backend is None:
        w.step("send", "socket", pkt)
        w.end("dropped", "bpf-no-backend", ns, program, MapEntry(maps.name("backends"), number, None))
        return None
    after = replace(pkt, dst=backend.address, dport=backend.port)
    w.step("bpf", program, frontend)
    w.step("bpf", program, entry, note=f"the socket is given {backend}", before=pkt, after=after)
    return after, RevNat(pkt.dst, pkt.dport)


def _wildcard(
    w: Walk, state: BpfState, maps: FamilyMaps, pkt: Packet, in_host: bool
) -> tuple[LbKey, LbService] | None:
    """`sock4_wildcard_lookup`: a node port at the address of any node, and at the loopback address of this one."""
    if not NODE_PORTS[0] <= pkt.dport <= NODE_PORTS[1]:
        return None
    loopback = pkt.dst == "::1" or (maps.family == 4 and pkt.dst in _LOOPBACK4)
    if not (in_host and loopback):
        w.tried += 1
        if state.identity(pkt.dst) not in (HOST, REMOTE_NODE, KUBE_APISERVER):
            return None
    anywhere = "::" if maps.family == 6 else "0.0.0.0"
    found = bpf_lb.lookup_service(w, maps, anywhere, pkt.dport, pkt.proto, east_west=True)
    return found if found is not None and found[1].kind == "NodePort" else None


def _backend(
    w: Walk, ns: Netns, maps: FamilyMaps, key: LbKey, service: LbService, pkt: Packet
) -> tuple[int, MapEntry]:
    sticky = "sessionAffinity" in service.flags
    if sticky:
        number = bpf_lb.affinity(w, maps, service, ns.name, True)
        if number:
            return number, MapEntry(
                maps.name("affinity"), f"netns {ns.name} rev_nat {service.rev_nat}", number
            )
    number, entry = 0, MapEntry("", "", None)
    if pkt.proto == UDP and pkt.sport:
        number, entry = _same_slot(ns, maps, key, service, pkt)
    if not number:
        slot = bpf_lb.pick_slot(w, maps, key, service)
        number, entry = (
            maps.services[slot].backend,
            MapEntry(maps.name("services"), slot, maps.services[slot]),
        )
        w.tried += 1
    if sticky:
        bpf_lb.keep_affinity(w, maps, service, ns.name, True, number)
    return number, entry


def _same_slot(
    ns: Netns, maps: FamilyMaps, key: LbKey, service: LbService, pkt: Packet
) -> tuple[int, MapEntry]:
    """The backend that this datagram socket was given before for this frontend, 0 for none."""
    for slot in range(1, service.count + 1):
        number = maps.services[slot_of(key, slot)].backend
        backend = maps.backends.get(number)
        if backend is None:
            continue
        known = SocketKey(ns.name, UDP, pkt.sport, backend.address, backend.port)
        seen = maps.reverse_sk.get(known)
        if seen is not None and (seen.address, seen.port) == (pkt.dst, pkt.dport):
            return number, MapEntry(maps.name("reverse_sk"), known, seen)
    return 0, MapEntry("", "", None)


def remember(w: Walk, ns: Netns, state: BpfState, pkt: Packet, called: RevNat) -> None:
    """`sock4_update_revnat`: once the socket has its port, keep what it called, for getpeername() and recvmsg()."""
    maps = state.maps(pkt.family)
    key = SocketKey(ns.name, pkt.proto, pkt.sport, pkt.dst, pkt.dport)
    maps.reverse_sk[key] = called
    for step in reversed(w.steps):
        if step.kind == "bpf" and step.before is not None and step.after is not None:
            # written before the socket had an address
            step.before = replace(step.before, src=pkt.src, sport=pkt.sport)
            step.after = pkt
            break
    what = "getpeername()" if pkt.proto == TCP else "recvmsg()"
    w.step(
        "bpf",
        f"cil_sock{maps.family}_{'connect' if pkt.proto == TCP else 'sendmsg'}",
        MapEntry(maps.name("reverse_sk"), key, called),
        note=f"{what} will name the Service",
    )


def received(w: Walk, skb: Skb) -> None:
    """`cil_sock4_recvmsg`: let a datagram seem to come from the address its socket called."""
    state = state_of(skb.ns)
    if state is None:
        return
    pkt = skb.pkt
    maps = state.maps(pkt.family)
    key = SocketKey(skb.ns.name, pkt.proto, pkt.dport, pkt.src, pkt.sport)
    called = maps.reverse_sk.get(key)
    if called is None:
        return
    scopes = (LbKey(called.address, called.port, pkt.proto, 0, scope) for scope in (EXTERNAL, INTERNAL))
    anywhere = LbKey("::" if maps.family == 6 else "0.0.0.0", called.port, pkt.proto)
    if not any(maps.services.get(one) for one in (*scopes, anywhere)):
        del maps.reverse_sk[key]  # the Service is gone
        return
    w.tried += 1
    skb.pkt = replace(pkt, src=called.address, sport=called.port)
    w.step(
        "bpf",
        f"cil_sock{maps.family}_recvmsg",
        MapEntry(maps.name("reverse_sk"), key, called),
        before=pkt,
        after=skb.pkt,
    )
