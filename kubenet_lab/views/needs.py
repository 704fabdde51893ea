"""What a call that failed would have needed, in words, as far as the packet's own steps tell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kubenet_lab.packet.packet import Packet, endpoint, proto_name
from kubenet_lab.trace import RuleRef, Step, Trace
from kubenet_lab.views.words import Names, place_name, short, who
from kubenet_lab.walk.nft import NftHit, NftRef

if TYPE_CHECKING:
    from kubenet_lab.trip import Trip


def needed(trip: Trip, names: Names) -> str:
    """Return what was missing, as an object of "It would have needed ..."; "" for a call that went well.

    "" also where the steps do not tell: a name that does not exist may be misspelt or not made yet.
    """
    if trip.delivered:
        return ""
    traces = (
        trip.exchange.traces
        if trip.exchange is not None
        else [t for q in trip.queries[-1:] for t in q.traces]
    )
    lost = next((trace for trace in traces if not trace.delivered and trace.role != "arp"), None)
    if lost is None or not lost.hops:
        return ""
    packet, here, reason = _packet(lost), place_name(lost.place.netns), lost.reason
    if reason == "no-vtep":
        return _fdb_entry(lost, names)
    if reason == "no-listener":
        port = f"{endpoint(packet.dst, packet.dport)} ({proto_name(packet.proto)})"
        return f"a process {'in' if '/' in lost.place.netns else 'on'} {here} that listens on {port}"
    if reason == "no-route":
        if names.get(packet.dst, "").startswith("Service "):
            node = next((hop.netns for hop in lost.hops if "/" not in hop.netns), lost.place.netns)
            which = f"{who(packet.dst, names)} port {packet.dport}/{proto_name(packet.proto)}"
            return f"a rule on {node} that rewrites {which} to a backend: none of its rules matched"
        return f"a route on {here} to {packet.dst}"
    if reason in ("rule-drop", "rule-reject") and isinstance(lost.decided_by, RuleRef):
        ref = lost.decided_by
        if "has no endpoints" in getattr(ref.rule, "comment", ""):
            return "a ready pod behind the Service"
        if isinstance(ref, NftRef):
            return _of_nftables(lost, ref, packet, here)
        return f"a rule before rule {ref.number} of {ref.chain} (table {ref.table}) on {here} that accepts it"
    if reason == "policy-drop" and isinstance(lost.decided_by, RuleRef):
        return f"a rule of {lost.decided_by.chain} (table {lost.decided_by.table}) on {here} that accepts it"
    if reason == "neighbour-failed":
        asked = next(
            (s.entry.packet.dst for s in reversed(lost.hops[-1].steps) if isinstance(s.entry, Trace)), ""
        )
        return f"somebody who answers {here}'s ARP request for {who(asked, names)}" if asked else ""
    return _PLAIN.get(reason, "").format(here=here, src=packet.src)


def _of_nftables(lost: Trace, ref: NftRef, packet: Packet, here: str) -> str:
    """Return what a rule of nftables would have had to find: kube-proxy keeps its reasons in maps and chains."""
    found = [s.entry for hop in lost.hops for s in hop.steps if isinstance(s.entry, NftHit)]
    if any(hit.within.startswith("no-endpoint-") for hit in found):
        # Where no node has a pod it rejects; it drops what pods of other nodes could have served.
        local = lost.reason == "rule-drop"
        return "a ready pod behind the Service" + (
            f" on {here}: its traffic policy is Local" if local else ""
        )
    if ref.chain == "cluster-ips-check":
        return f"a Service port {endpoint(packet.dst, packet.dport)}/{proto_name(packet.proto)}"
    if ref.chain.startswith("firewall-"):
        return f"a source range of the load balancer with {packet.src} in it (loadBalancerSourceRanges)"
    return (
        f"a rule before rule {ref.number} of chain {ref.chain} (table {ref.table}) on {here} that accepts it"
    )


_PLAIN = {
    "not-forwarding": "the sysctl net.ipv4.ip_forward = 1 on {here}",
    "rp-filter": "a route on {here} back to {src} through the interface it came in by, or rp_filter 0 or 2 there",
    "hairpin-off": "hairpin on the bridge port it came in by, on {here}",
    "too-big": "a smaller packet, or a larger MTU on the next link of {here}",
}
"""Reason -> what was missing, where the reason alone says it."""


def _packet(trace: Trace) -> Packet:
    """Return the packet as it was at the end, rewrites done and tunnels apart."""
    packet = trace.packet
    for hop in trace.hops:
        for step in hop.steps:
            if step.kind == "nat" and step.after is not None:
                packet = step.after
    return packet


def _fdb_entry(lost: Trace, names: Names) -> str:
    """Return the missing entry: whose MAC it is tells the neighbour entry the packet used just before."""
    place = lost.place
    steps: list[Step] = [step for hop in lost.hops for step in hop.steps]
    used = next((s.entry for s in reversed(steps) if s.kind == "neighbour" and s.spot == place.spot), None)
    mac, vtep = getattr(used, "mac", ""), getattr(used, "address", "")
    entry = f"an FDB entry of {place.spot} on {place.netns}"
    if not mac:
        return entry
    node, _, device = names.get(vtep, "").removeprefix("node ").partition(" ")
    if not device:
        return f"{entry} that says which host has the MAC {mac} of {who(vtep, names)}"
    behind = next((address for address, label in names.items() if label == f"node {node}"), "")
    to = f", so that its packets go to {behind}" if behind else ""
    return f"{entry} for {mac}, the MAC of {short(names[vtep])} ({vtep}){to}"
