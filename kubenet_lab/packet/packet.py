"""Header values of a packet, of an Ethernet frame and of ARP.

One flat, frozen value a packet: a rewrite (TTL, DNAT) is `replace(packet, ttl=63)`. Bytes exist only at the edge
(`packet.wire`). Fields follow RFC 791, 8200, 9293, 768, 792, 4443, 826 and 7348.
"""

from __future__ import annotations

import struct
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

ICMP, IPIP, TCP, UDP, ICMPV6, SCTP = 1, 4, 6, 17, 58, 132
PROTO_NAMES = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPV6: "icmpv6", SCTP: "sctp"}
PROTO_NUMBERS = {name: number for number, name in PROTO_NAMES.items()}

FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32

GENEVE_PORT = 6081

ETH_IPV4, ETH_ARP, ETH_IPV6 = 0x0800, 0x0806, 0x86DD
BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"

ICMP_ECHO_REPLY, ICMP_UNREACHABLE, ICMP_ECHO, ICMP_TIME_EXCEEDED = 0, 3, 8, 11
ICMP6_UNREACHABLE, ICMP6_TOO_BIG, ICMP6_TIME_EXCEEDED, ICMP6_ECHO, ICMP6_ECHO_REPLY = 1, 2, 3, 128, 129
ICMP6_NEIGHBOUR_SOLICIT, ICMP6_NEIGHBOUR_ADVERT = 135, 136


class DsrOption(Struct, frozen=True, gc=False):
    """The frontend a load balancer called, as Cilium's IP option 154 or IPv6 destination option 27 carries it.

    On a Geneve packet it is Geneve's option (class 0x14b, type 0x81).
    """

    address: str
    port: int

    def __str__(self) -> str:
        return f"option DSR {endpoint(self.address, self.port)}"


class WireguardMessage(Struct, frozen=True, gc=False):
    """What a UDP datagram of WireGuard's is to those who look at it from outside, and to whom it is sealed.

    `type` is 1 (handshake initiation), 2 (response) or 4 (data); `length` its bytes. `sender` and `receiver` are the
    numbers that the two sides gave the session. `key` and `to` are the public keys it was made with and for: what only
    the receiver can tell, so they are not among the bytes.
    """

    type: int
    length: int
    receiver: int = 0
    sender: int = 0
    counter: int = 0
    key: str = ""
    to: str = ""

    def to_wire(self) -> bytes:
        """Return the message as it looks on the wire: its header, and sealed bytes that stand for no plaintext.

        Nothing is encrypted here; what is sealed in reality is a pattern derived from the header, of the right length.
        """
        from hashlib import shake_128

        head = struct.pack("<I", self.type)
        if self.type == 4:
            head += struct.pack("<IQ", self.receiver, self.counter)
        elif self.type == 2:
            head += struct.pack("<II", self.sender, self.receiver)
        else:
            head += struct.pack("<I", self.sender)
        return head + shake_128(head).digest(self.length - len(head))

    def __str__(self) -> str:
        if self.type == 4:
            return f"WireGuard data, receiver {self.receiver:#010x}, counter {self.counter}"
        name = {1: "handshake initiation", 2: "handshake response"}.get(self.type, f"type {self.type}")
        return f"WireGuard {name}"


class Packet(Struct, frozen=True, gc=False):
    """One IP packet with its transport header. `payload` is what the application sent.

    `message` is the same payload as a typed value where a server understands one (a DNS query), so that a walk
    needs no bytes; `payload_size` then gives its length in bytes.
    """

    src: str
    dst: str
    proto: int = TCP
    sport: int = 0
    dport: int = 0
    ttl: int = 64
    tos: int = 0
    ident: int = 0
    df: bool = True
    flags: int = 0
    seq: int = 0
    ack: int = 0
    mss: int = 0
    icmp_type: int = 0
    icmp_code: int = 0
    icmp_id: int = 0
    icmp_seq: int = 0
    icmp_mtu: int = 0
    payload: bytes = b""
    payload_size: int = 0
    message: Any = None
    quoted: Packet | None = None
    inner: Frame | None = None
    vni: int = 0
    fragment: int = 0
    """Bytes of the largest fragment while the packet travels in several; 0 for a whole one."""
    dsr: DsrOption | None = None

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.src else 4

    @property
    def length(self) -> int:
        """Bytes of the whole IP packet, as its total length field would say."""
        size = 40 if ":" in self.src else 20
        if self.dsr is not None:
            size += 24 if ":" in self.dsr.address else 8 if self.inner is None else 12
        proto = self.proto
        if proto == TCP:
            size += 24 if self.mss else 20
        elif proto == SCTP:
            size += 12
        else:
            size += 8
            if self.message.__class__ is WireguardMessage:
                return size + int(self.message.length)
        if self.inner is not None:
            if proto == IPIP:
                assert isinstance(self.inner.body, Packet)
                return size - 8 + self.inner.body.length
            return size + 8 + self.inner.length
        if self.quoted is not None:
            # An error is at most 576 bytes long (RFC 1812, 4.3.2.3), in IPv6 1280 (RFC 4443, 2.4).
            return size + min(self.quoted.length, 1232 if ":" in self.src else 548)
        return size + (len(self.payload) or self.payload_size)

    @property
    def is_icmp_error(self) -> bool:
        """True for the ICMP messages that quote another packet (RFC 1122, 3.2.2)."""
        return self.quoted is not None

    def replace(self, **changes: Any) -> Packet:
        """Return a copy with some fields changed."""
        return replace(self, **changes)

    def __str__(self) -> str:
        return describe(self)


class Arp(Struct, frozen=True, gc=False):
    """An ARP message (RFC 826), or the neighbour discovery message that does its work in IPv6 (RFC 4861)."""

    op: str
    """"request" or "reply"."""
    sender_mac: str
    sender_ip: str
    target_mac: str
    target_ip: str

    length = 28

    def __str__(self) -> str:
        if self.op == "request":
            return f"who has {self.target_ip}? tell {self.sender_ip}"
        return f"{self.sender_ip} is at {self.sender_mac}"


class Frame(Struct, frozen=True, gc=False):
    """An Ethernet II frame."""

    src: str
    dst: str
    body: Packet | Arp
    vlan: int = 0
    size: int = 0
    """Length of the body in bytes where the sender knows it; 0 lets `length` count."""

    @property
    def ethertype(self) -> int:
        """The type field: 0x0800, 0x0806 or 0x86dd."""
        if isinstance(self.body, Arp):
            return ETH_ARP
        return ETH_IPV6 if ":" in self.body.src else ETH_IPV4

    @property
    def length(self) -> int:
        """Bytes on the wire without the check sequence; of the largest fragment where there are several."""
        body = self.body
        if isinstance(body, Packet) and body.fragment:
            return 14 + body.fragment
        return 14 + (self.size or body.length)

    def __str__(self) -> str:
        return f"{self.src} > {self.dst} {self.body}"


def tcp_flags(flags: int) -> str:
    """Return TCP flags as tcpdump prints them: "S", "S.", "R.", "P."."""
    text = "".join(letter for bit, letter in ((FIN, "F"), (SYN, "S"), (RST, "R"), (PSH, "P")) if flags & bit)
    return text + ("." if flags & ACK else "") or "none"


SCTP_INIT, SCTP_INIT_ACK, SCTP_COOKIE_ECHO, SCTP_ABORT = 1, 2, 10, 6
"""Chunk types that open an association or refuse one (RFC 9260, 3.2); a packet's payload begins with its chunk."""
_SCTP_CHUNKS = {
    SCTP_INIT: "INIT",
    SCTP_INIT_ACK: "INIT ACK",
    SCTP_COOKIE_ECHO: "COOKIE ECHO",
    SCTP_ABORT: "ABORT",
}


def sctp_chunk(kind: int) -> bytes:
    """Return a chunk of SCTP, 20 bytes for INIT and INIT ACK, 4 for the others (RFC 9260, 3.3)."""
    if kind in (SCTP_INIT, SCTP_INIT_ACK):
        # Initiate tag, receiver window, streams out and in, first TSN.
        return struct.pack("!BBHIIHHI", kind, 0, 20, 1, 106496, 10, 65535, 1)
    return struct.pack("!BBH", kind, 0, 4)


def sctp_name(packet: Packet) -> str:
    """Return the name of the first chunk, as tcpdump prints it, or ""."""
    return _SCTP_CHUNKS.get(packet.payload[0], "") if packet.payload else ""


ICMP_UNREACHABLE_CODES = {
    0: "net unreachable",
    1: "host unreachable",
    2: "protocol unreachable",
    3: "port unreachable",
    4: "fragmentation needed",
    9: "net prohibited",
    10: "host prohibited",
    13: "admin prohibited",
}
ICMP6_UNREACHABLE_CODES = {
    0: "no route",
    1: "admin prohibited",
    2: "beyond scope",
    3: "address unreachable",
    4: "port unreachable",
    5: "policy failed",
    6: "reject route",
}


def icmp_name(packet: Packet) -> str:
    """Return what an ICMP or ICMPv6 message says, in words."""
    kind, code = packet.icmp_type, packet.icmp_code
    if packet.proto == ICMPV6:
        if kind == ICMP6_UNREACHABLE:
            return ICMP6_UNREACHABLE_CODES.get(code, f"unreachable code {code}")
        names = {
            ICMP6_TOO_BIG: f"packet too big (mtu {packet.icmp_mtu})",
            ICMP6_TIME_EXCEEDED: "time exceeded",
            ICMP6_ECHO: "echo request",
            ICMP6_ECHO_REPLY: "echo reply",
        }
        return names.get(kind, f"type {kind} code {code}")
    if kind == ICMP_UNREACHABLE:
        text = ICMP_UNREACHABLE_CODES.get(code, f"unreachable code {code}")
        return f"{text} (mtu {packet.icmp_mtu})" if code == 4 else text
    names = {ICMP_ECHO: "echo request", ICMP_ECHO_REPLY: "echo reply", ICMP_TIME_EXCEEDED: "time exceeded"}
    return names.get(kind, f"type {kind} code {code}")


def describe(packet: Packet) -> str:
    """Return one line: who to whom, protocol, and what kind of segment it is."""
    proto = packet.proto
    if packet.inner is not None:
        name = tunnel_name(packet)
        number = "" if name in ("IPIP", "WireGuard") else f" {packet.vni}"
        option = f" {packet.dsr}" if packet.dsr is not None else ""
        return f"{packet.src} > {packet.dst} {name}{number}{option} [{packet.inner.body}]"
    if proto in (TCP, UDP, SCTP):
        src, dst = endpoint(packet.src, packet.sport), endpoint(packet.dst, packet.dport)
        text = f"{src} > {dst} {PROTO_NAMES[proto].upper()}"
        if proto == SCTP:
            return f"{text} {sctp_name(packet)}".rstrip()
        if packet.message.__class__ is WireguardMessage:
            return f"{text} {packet.message}"
        return f"{text} {tcp_flags(packet.flags)}" if proto == TCP else text
    if proto in (ICMP, ICMPV6):
        return f"{packet.src} > {packet.dst} ICMP {icmp_name(packet)}"
    return f"{packet.src} > {packet.dst} protocol {proto}"


def tunnel_name(packet: Packet) -> str:
    """Return what wraps the inner packet: IPIP, Geneve, WireGuard or VXLAN."""
    if packet.proto == IPIP:
        return "IPIP"
    if packet.message.__class__ is WireguardMessage:
        return "WireGuard"
    return "Geneve" if packet.dport == GENEVE_PORT else "VXLAN"


def endpoint(address: str, port: int) -> str:
    """Return "10.0.0.1:80" or "[fd00::1]:80"."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def proto_name(proto: int) -> str:
    """Return "tcp" for 6, and the number as text for a protocol without a name here."""
    return PROTO_NAMES.get(proto, str(proto))
