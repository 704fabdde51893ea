"""What happened to a packet: Trip > Trace > Hop > Step, each with its reason and the very entry that decided.

A `Step` keeps references to kernel values (a Route, a Rule, an FdbEntry) and becomes words only when somebody reads
it, so that a walk costs what the path costs and not what its prose costs. Names of pods and Services are unknown
here; views add them from a map they are given.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from msgspec import Struct

from kubenet_lab.packet.packet import Frame, Packet, describe

DELIVERED, DROPPED, REJECTED, LOST, NOT_MODELLED = "delivered", "dropped", "rejected", "lost", "not modelled"
"""Verdicts of one packet. Rejected: an error packet was sent back. Lost: nothing in the network took it on."""

REASONS: dict[str, str] = {
    "socket": "a socket took it",
    "raw-socket": "the kernel itself answered it",
    "bridged-to-nobody": "no port of the bridge has that MAC",
    "no-listener": "nothing listens on that port: TCP answers with RST, UDP with ICMP port unreachable",
    "no-connection": "the listener knows no such connection: TCP answers with RST",
    "backlog-full": "the listener's accept queue is full, so the SYN was dropped",
    "rule-drop": "a netfilter rule dropped it",
    "rule-reject": "a netfilter rule rejected it and sent an error back",
    "policy-drop": "no rule decided and the chain's policy is DROP",
    "no-route": "no route leads to that address",
    "route-blackhole": "the route is a blackhole",
    "route-unreachable": "the route says unreachable",
    "route-prohibit": "the route says prohibit",
    "not-forwarding": "ip_forward is 0, so this host does not forward packets of others",
    "rp-filter": "reverse path filter: the source is not reachable through the interface it came in by",
    "martian-source": "the source address cannot be on the wire (loopback, own, or broadcast address)",
    "martian-destination": "the destination must not come from the wire (127.0.0.0/8)",
    "ttl-exceeded": "its TTL ran out",
    "too-big": "it is bigger than the next link's MTU and must not be fragmented",
    "too-big-for-link": "it is bigger than the link takes and nobody says so",
    "neighbour-failed": "nobody answered the ARP request for the next hop",
    "not-my-mac": "the frame is for another MAC",
    "link-down": "the link is down",
    "no-carrier": "the other end of the link is down",
    "no-vtep": "the VXLAN device has no FDB entry for that MAC",
    "vni-unknown": "no VXLAN device here has that VNI",
    "vlan-unknown": "no device here takes frames with that VLAN tag",
    "vlan-filtered": "the bridge filters VLANs, and its port is in none that fits",
    "ipvlan-private": "ipvlan's flag private: its devices do not hear each other",
    "ipvlan-l3": "an ipvlan device in mode l3 or l3s sends neither ARP nor broadcasts",
    "wireguard-no-peer": "no peer's allowed-ips hold that address (required key not available)",
    "wireguard-no-endpoint": "nobody knows where that peer is: it has no endpoint and was never heard of",
    "wireguard-no-handshake": "the peer does not answer the handshake: the packet waits, and is given up after 90 s",
    "wireguard-stranger": "no peer here has the key of who sent it, or it was made for another key",
    "wireguard-no-session": "it belongs to no session that is known here",
    "wireguard-source": "the peer's allowed-ips do not hold the source address it sent from",
    "wireguard-handshake": "WireGuard took the handshake message",
    "conntrack-full": "the conntrack table is full",
    "conntrack-clash": "another connection took the same tuple",
    "conntrack-invalid": "it belongs to no known connection",
    "ipvs-no-server": "the virtual server has no real server to send it to: IPVS answers with ICMP port unreachable",
    "ipvs-server-gone": "its connection's real server is gone: IPVS drops this packet and forgets the connection",
    "ipvs-old-connection": "its port was used before, and conntrack still knows that connection: IPVS drops the packet",
    "icmp-ignored": "sysctl says not to answer pings",
    "broadcast": "broadcasts are not answered here",
    "no-protocol": "nothing here speaks that protocol",
    "not-for-anyone": "the reply matches no open request",
    "hairpin-off": "it would leave by the bridge port it came in by, and hairpin is off there",
    "loop": "it went round too many times",
    "not-modelled": "this part of the kernel is not modelled",
    "no-source": "no address fits as its source",
    "bpf-no-backend": "the Service has no backend, and a BPF program refused: ICMP, or connect() fails",
    "bpf-source-range": "a BPF program dropped it: the client is in none of the Service's source ranges",
    "bpf-cluster-ip": "a BPF program dropped it: cluster IPs do not serve packets from outside",
    "bpf-no-route": "a BPF program asked the routing table, which knows no way",
    "bpf-source": "a BPF program dropped it: the pod sent from an address that is not its own",
    "l7-denied": "the proxy refused the request",
    "bpf-policy": "an endpoint's policy map allows no such packet",
    "isolated-port": "both bridge ports are isolated from each other",
    "no-answer": "it was delivered, and nobody answered",
}
"""Every reason a packet can end with, in a sentence."""


class Place(NamedTuple):
    """Where something happened: a namespace and a spot in it ("FORWARD filter", "route", "cni0")."""

    netns: str
    spot: str

    def __str__(self) -> str:
        return f"{self.netns}, {self.spot}" if self.spot else self.netns


class RuleRef(NamedTuple):
    """A netfilter rule by place. `number` counts from 1 as `iptables -L --line-numbers` does; 0 is the policy."""

    table: str
    chain: str
    number: int
    rule: Any

    def __str__(self) -> str:
        if self.number == 0:
            return f"{self.table} {self.chain} policy {self.rule}"
        return (
            f"{self.table} {self.chain} rule {self.number}: -A {self.chain}{self.rule.text(self.rule.family)}"
        )


class Step(Struct, gc=False):
    """One thing the kernel did. `entry` is what decided (Route, RuleRef, Neighbour, FdbEntry, Socket, Frame...).

    `kind` is one of: send, receive, route, neighbour, arp, hook, rule, nat, conntrack, bridge, fdb, encapsulate,
    decapsulate, vlan, macvlan, ipvlan, wireguard, handshake, bpf, ipvs, ttl, mtu, transmit, deliver, answer, end.
    `spot` names the hook, link or table. `before`/`after` are the packet's headers where the step changed them.
    """

    kind: str
    spot: str
    entry: Any = None
    note: str = ""
    before: Packet | None = None
    after: Packet | None = None

    @property
    def text(self) -> str:
        """The step in one line."""
        head = f"{self.kind} {self.spot}".strip()
        shown = None if isinstance(self.entry, Trace) else self.entry
        parts = [str(part) for part in (self.note, shown) if part not in ("", None)]
        line = f"{head}: {' - '.join(parts)}" if parts else head
        if self.after is not None and self.before is not None:
            line += f"  [{describe(self.before)}  =>  {describe(self.after)}]"
        return line

    def __str__(self) -> str:
        return self.text


class Hop(Struct, gc=False):
    """A packet's stay in one namespace, from entering (or being made) to leaving (or ending)."""

    netns: str
    host: str
    indev: str
    packet: Packet
    steps: list[Step]
    outdev: str = ""
    encapsulated: bool = False
    """True while the packet seen here is the outer packet of a tunnel."""

    def __str__(self) -> str:
        way = f"{self.indev or '(local)'} -> {self.outdev or '(local)'}"
        return f"{self.netns} [{way}] {self.packet}"


class Trace(Struct):
    """One packet from the socket that sent it to its end."""

    packet: Packet
    role: str
    """"request", "reply", "error" (ICMP or RST on its way back), "data", "arp" (asking for a neighbour's MAC),
    "handshake" (WireGuard's own messages), "onward" (the first packet of the connection a proxy opens for one it
    accepted)."""
    hops: list[Hop]
    verdict: str = ""
    reason: str = ""
    place: Place = Place("", "")
    decided_by: Any = None
    delivered_as: Packet | None = None
    """The packet as its receiver saw it, every rewrite done."""
    rules_tried: int = 0
    """How many rules a linear evaluation would have compared, as the kernel does."""
    caused: list[Trace] = []
    """Packets this one gave rise to, in order (reply, ICMP error)."""

    @property
    def delivered(self) -> bool:
        """True when a receiver took it."""
        return self.verdict == DELIVERED

    @property
    def why(self) -> str:
        """The end in a sentence, with the entry that decided."""
        sentence = REASONS.get(self.reason, self.reason)
        return f"{sentence} ({self.decided_by})" if self.decided_by not in (None, "") else sentence

    def steps(self) -> list[tuple[Hop, Step]]:
        """Return every step with its hop, in order."""
        return [(hop, step) for hop in self.hops for step in hop.steps]

    def text(self) -> str:
        """The whole trace, one line a step, indented by hop."""
        lines = [f"{self.role}: {self.packet}"]
        for hop in self.hops:
            lines.append(f"  {hop}")
            lines += [f"    {step}" for step in hop.steps]
        lines.append(f"  => {self.verdict} at {self.place}: {self.why}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()


class Query(Struct):
    """One DNS question of a lookup: what was asked of whom, and what came back."""

    name: str
    type: str
    server: str
    rcode: str
    """NOERROR, NXDOMAIN, SERVFAIL, ... or "timeout" / "refused" when no answer came."""
    answers: list[str]
    seconds: float
    traces: list[Trace]

    def __str__(self) -> str:
        answers = ", ".join(self.answers) or self.rcode
        return f"{self.name} {self.type} @{self.server}: {answers}"


class Capture(NamedTuple):
    """A frame seen on a link: what `tcpdump -i LINK` in that namespace would have got. `time` in s."""

    time: float
    netns: str
    link: str
    direction: str
    frame: Frame


def captures(traces: list[Trace], start: float = 0.0, gap: float = 20e-6) -> list[Capture]:
    """Return every frame of some traces in the order they were on a link, `gap` seconds apart.

    The frames of a neighbour resolution stand where the packet waited for it.
    """
    out: list[Capture] = []

    def collect(trace: Trace) -> None:
        for hop in trace.hops:
            for step in hop.steps:
                if isinstance(step.entry, Trace):
                    collect(step.entry)
                elif isinstance(step.entry, Frame) and step.kind in ("transmit", "receive"):
                    direction = "out" if step.kind == "transmit" else "in"
                    out.append(Capture(start + len(out) * gap, hop.netns, step.spot, direction, step.entry))

    for trace in traces:
        collect(trace)
    return out
