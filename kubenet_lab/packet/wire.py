"""Packets, frames and ARP messages as bytes, and capture files: the only place where bytes are made or read.

Scapy does the work and is imported when it is first needed (about 0.2 s). Every address is given
explicitly: left alone, scapy would fill in those of the machine it runs on. Formats: RFC 791, 8200, 9293,
768, 792, 4443, 4861, 826, 7348, 8926; files in libpcap format
(https://www.ietf.org/archive/id/draft-gharris-opsawg-pcap-01.html), link type Ethernet.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from kubenet_lab.errors import KubenetLabError
from kubenet_lab.packet.ip import IP_INT, ip_text
from kubenet_lab.packet.packet import (
    GENEVE_PORT,
    ICMP,
    ICMP6_NEIGHBOUR_ADVERT,
    ICMP6_NEIGHBOUR_SOLICIT,
    ICMPV6,
    IPIP,
    RST,
    SCTP,
    TCP,
    UDP,
    Arp,
    DsrOption,
    Frame,
    Packet,
    WireguardMessage,
)

WINDOW = 64240
"""TCP window of a Linux SYN on a link with MTU 1500; windows are not modelled and decide nothing here."""

NO_MAC = "00:00:00:00:00:00"
"""Of frames that have no link layer: what an IPIP packet carries, and what a WireGuard device sends."""
VXLAN_PORTS = frozenset({4789, 8472})
"""UDP ports that `read_packet` takes for VXLAN: IANA's and the Linux kernel's older default."""

ETH_BRIDGED = 0x6558
"""Protocol of a Geneve packet that carries an Ethernet frame."""
DSR_OPTION4, DSR_OPTION6, DSR_GENEVE = 0x9A, 0x1B, b"\x01\x4b\x81"
"""Types of Cilium's DSR option: of IPv4, of IPv6's destination options, and class and type of Geneve's."""

_ERRORS4 = frozenset({3, 4, 5, 11, 12})
_ERRORS6 = frozenset({1, 2, 3, 4})
_ECHOES = frozenset({0, 8, 128, 129})


class WireError(KubenetLabError):
    """Bytes that are no packet, or one whose form is not modelled."""


class LaterFragment(WireError):
    """A fragment after the first: it has no transport header, so no packet can be made of it alone."""


class Captured(NamedTuple):
    """One record of a capture file: seconds since the epoch of the file, and the bytes of the frame."""

    time: float
    data: bytes

    @property
    def frame(self) -> Frame:
        """The bytes as a frame. Raises WireError for what is not modelled."""
        return read_frame(self.data)


@cache
def _scapy() -> Any:
    """Import what is used of scapy, without its route tables and its messages."""
    import logging

    logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
    logging.getLogger("scapy.loading").setLevel(logging.ERROR)
    from scapy.config import conf

    conf.route_autoload = False
    conf.route6_autoload = False
    from scapy.layers import inet, inet6, l2, vxlan
    from scapy.packet import Raw

    return SimpleNamespace(inet=inet, inet6=inet6, l2=l2, vxlan=vxlan, Raw=Raw)


# -- writing -------------------------------------------------------------------------------------------------


def payload_of(packet: Packet) -> bytes:
    """Return the bytes the application sent.

    A typed message that has a `to_wire` method is encoded; a payload of which only the size is known is
    filled with the pattern `ping` uses.
    """
    if packet.payload:
        return packet.payload
    encode = getattr(packet.message, "to_wire", None)
    if encode is not None:
        return bytes(encode())
    return bytes(at & 255 for at in range(packet.payload_size))


def packet_bytes(packet: Packet) -> bytes:
    """Return a whole IP packet, checksums included."""
    return bytes(_ip(packet))


def frame_bytes(frame: Frame) -> bytes:
    """Return an Ethernet frame without its check sequence.

    Of a packet in fragments this is the whole, unfragmented.
    """
    s = _scapy()
    macs = {"src": frame.src or NO_MAC, "dst": frame.dst or NO_MAC}
    head = s.l2.Ether(**macs, type=frame.ethertype)
    if frame.vlan:
        head = s.l2.Ether(**macs, type=0x8100) / s.l2.Dot1Q(vlan=frame.vlan, type=frame.ethertype)
    if isinstance(frame.body, Arp):
        if ":" in frame.body.target_ip:
            head[s.l2.Ether].type = 0x86DD
            return bytes(head / _discovery(frame.body))
        return bytes(head / _arp(frame.body))
    return bytes(head / _ip(frame.body))


def frames_bytes(frame: Frame) -> list[bytes]:
    """Return the frames as they are on the wire: several where the packet travels in IPv4 fragments."""
    whole = frame_bytes(frame)
    body = frame.body
    if isinstance(body, Arp) or not body.fragment or body.family == 6:
        return [whole]
    at = 18 if frame.vlan else 14
    size = (whole[at] & 15) * 4
    head, data = whole[:at], whole[at + size :]
    ip = whole[at : at + size]
    step = (body.fragment - size) // 8 * 8
    out: list[bytes] = []
    for start in range(0, len(data), step):
        part = data[start : start + step]
        more = 0x2000 if start + step < len(data) else 0
        fields = struct.pack("!HHH", size + len(part), struct.unpack("!H", ip[4:6])[0], more | start // 8)
        fresh = bytearray(ip[:2] + fields + ip[8:10] + b"\0\0" + ip[12:])
        fresh[10:12] = struct.pack("!H", _checksum(bytes(fresh)))
        out.append(head + bytes(fresh) + part)
    return out


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _arp(arp: Arp) -> Any:
    return _scapy().l2.ARP(
        op=1 if arp.op == "request" else 2,
        hwsrc=arp.sender_mac,
        psrc=arp.sender_ip,
        hwdst=arp.target_mac,
        pdst=arp.target_ip,
    )


def solicited_group(address: str) -> str:
    """Return the multicast group that listens for solicitations of an IPv6 address (RFC 4291, 2.7.1)."""
    return ip_text(IP_INT["ff02::1:ff00:0"] | IP_INT[address] & 0xFFFFFF, 6)


def _discovery(arp: Arp) -> Any:
    """Return the neighbour discovery message (RFC 4861) that does for IPv6 what the ARP message says."""
    six = _scapy().inet6
    if arp.op == "request":
        group = solicited_group(arp.target_ip)
        body = six.ICMPv6ND_NS(tgt=arp.target_ip) / six.ICMPv6NDOptSrcLLAddr(lladdr=arp.sender_mac)
        return six.IPv6(src=arp.sender_ip, dst=group, hlim=255) / body
    body = six.ICMPv6ND_NA(tgt=arp.sender_ip, R=0, S=1, O=1) / six.ICMPv6NDOptDstLLAddr(lladdr=arp.sender_mac)
    return six.IPv6(src=arp.sender_ip, dst=arp.target_ip, hlim=255) / body


def _ip(packet: Packet) -> Any:
    s = _scapy()
    option = packet.dsr if packet.inner is None else None
    if packet.family == 6:
        head = s.inet6.IPv6(src=packet.src, dst=packet.dst, hlim=packet.ttl, tc=packet.tos, nh=packet.proto)
        if option is not None:
            head.nh = 60
            data = IP_INT[option.address].to_bytes(16, "big") + struct.pack("!HH", option.port, 0)
            told = s.inet6.HBHOptUnknown(otype=DSR_OPTION6, optdata=data)
            head /= s.inet6.IPv6ExtHdrDestOpt(nh=packet.proto, options=[told])
    else:
        flags = "DF" if packet.df else 0
        head = s.inet.IP(
            src=packet.src,
            dst=packet.dst,
            ttl=packet.ttl,
            tos=packet.tos,
            id=packet.ident,
            flags=flags,
            proto=packet.proto,
        )
        if option is not None:
            # Cilium swaps what is in network order already: the wire has both with the low byte first.
            data = struct.pack("<HI", option.port, IP_INT[option.address])
            head.options = [s.inet.IPOption(copy_flag=1, option=DSR_OPTION4 & 31, value=data)]
    return head / _transport(packet)


def _geneve(packet: Packet) -> bytes:
    """The header of Geneve (RFC 8926, 3.4), and Cilium's option if there is one."""
    option = b""
    if packet.dsr is not None:
        address = IP_INT[packet.dsr.address].to_bytes(16 if ":" in packet.dsr.address else 4, "big")
        option = (
            DSR_GENEVE + bytes([len(address) // 4 + 1]) + address + struct.pack("!HH", packet.dsr.port, 0)
        )
    return struct.pack("!BBHI", len(option) // 4, 0, ETH_BRIDGED, packet.vni << 8) + option


def _transport(packet: Packet) -> Any:
    s = _scapy()
    if packet.proto == TCP:
        options = [("MSS", packet.mss)] if packet.mss else []
        tcp = s.inet.TCP(
            sport=packet.sport,
            dport=packet.dport,
            flags=packet.flags,
            seq=packet.seq,
            ack=packet.ack,
            window=0 if packet.flags & RST else WINDOW,
            options=options,
        )
        return tcp / s.Raw(payload_of(packet))
    if packet.proto == UDP:
        udp = s.inet.UDP(sport=packet.sport, dport=packet.dport)
        if isinstance(packet.message, WireguardMessage):
            return udp / s.Raw(packet.message.to_wire())
        if packet.inner is not None and packet.dport == GENEVE_PORT:
            return udp / s.Raw(_geneve(packet) + frame_bytes(packet.inner))
        if packet.inner is not None:
            return udp / s.vxlan.VXLAN(vni=packet.vni, flags=8) / s.Raw(frame_bytes(packet.inner))
        return udp / s.Raw(payload_of(packet))
    if packet.proto == SCTP:
        return s.Raw(struct.pack("!HHII", packet.sport, packet.dport, 0, 0) + payload_of(packet))
    if packet.proto == IPIP and packet.inner is not None:
        assert isinstance(packet.inner.body, Packet)
        return s.Raw(packet_bytes(packet.inner.body))
    if packet.proto == ICMP:
        return _icmp4(packet)
    if packet.proto == ICMPV6:
        return _icmp6(packet)
    return s.Raw(bytes(8) + payload_of(packet))


def _quote(packet: Packet) -> bytes:
    assert packet.quoted is not None
    return packet_bytes(packet.quoted)[:548]


def _icmp4(packet: Packet) -> Any:
    s = _scapy()
    if packet.quoted is not None:
        rest = struct.pack("!HH", 0, packet.icmp_mtu)
        message = struct.pack("!BBH", packet.icmp_type, packet.icmp_code, 0) + rest + _quote(packet)
    else:
        rest = struct.pack("!HH", packet.icmp_id, packet.icmp_seq)
        message = struct.pack("!BBH", packet.icmp_type, packet.icmp_code, 0) + rest + payload_of(packet)
    check = _checksum(message + b"\0" * (len(message) & 1))
    return s.Raw(message[:2] + struct.pack("!H", check) + message[4:])


def _icmp6(packet: Packet) -> Any:
    s = _scapy()
    if packet.quoted is not None:
        rest = struct.pack("!I", packet.icmp_mtu) + _quote(packet)
    else:
        rest = struct.pack("!HH", packet.icmp_id, packet.icmp_seq) + payload_of(packet)
    message = struct.pack("!BBH", packet.icmp_type, packet.icmp_code, 0) + rest
    pseudo = IP_INT[packet.src].to_bytes(16, "big") + IP_INT[packet.dst].to_bytes(16, "big")
    pseudo += struct.pack("!II", len(message), ICMPV6)
    check = _checksum(pseudo + message + b"\0" * (len(message) & 1))
    return s.Raw(message[:2] + struct.pack("!H", check) + message[4:])


# -- reading -------------------------------------------------------------------------------------------------


def read_frame(data: bytes) -> Frame:
    """Read an Ethernet frame. Raises WireError for bytes that are none, and for what is not modelled."""
    if len(data) < 14:
        raise WireError(f"an Ethernet frame has at least 14 bytes, not {len(data)}")
    dst, src = (":".join(f"{byte:02x}" for byte in data[at : at + 6]) for at in (0, 6))
    (kind,) = struct.unpack("!H", data[12:14])
    at, vlan = 14, 0
    if kind == 0x8100 and len(data) >= 18:
        tag, kind = struct.unpack("!HH", data[14:18])
        at, vlan = 18, tag & 0xFFF
    body = data[at:]
    if kind == 0x0806:
        return Frame(src, dst, _read_arp(body), vlan)
    if kind in (0x0800, 0x86DD):
        discovery = _read_discovery(body, src) if kind == 0x86DD else None
        return Frame(src, dst, discovery or read_packet(body), vlan)
    raise WireError(f"not modelled: ethertype {kind:#06x}")


def _read_arp(data: bytes) -> Arp:
    s = _scapy()
    if len(data) < 28:
        raise WireError(f"an ARP message has 28 bytes, not {len(data)}")
    arp = s.l2.ARP(data[:28])
    if arp.op not in (1, 2) or arp.ptype != 0x0800:
        raise WireError(f"not modelled: ARP operation {arp.op} for protocol {arp.ptype:#06x}")
    return Arp("request" if arp.op == 1 else "reply", arp.hwsrc, arp.psrc, arp.hwdst, arp.pdst)


def _read_discovery(data: bytes, mac: str) -> Arp | None:
    if (
        len(data) < 64
        or data[6] != ICMPV6
        or data[40] not in (ICMP6_NEIGHBOUR_SOLICIT, ICMP6_NEIGHBOUR_ADVERT)
    ):
        return None
    src, dst = (ip_text(int.from_bytes(data[at : at + 16], "big"), 6) for at in (8, 24))
    target = ip_text(int.from_bytes(data[48:64], "big"), 6)
    if data[40] == ICMP6_NEIGHBOUR_SOLICIT:
        return Arp("request", mac, src, "00:00:00:00:00:00", target)
    return Arp("reply", mac, target, "00:00:00:00:00:00", dst)


def read_packet(data: bytes) -> Packet:
    """Read an IP packet.

    A transport header that is cut short, as in an ICMP error's quote, is read as far as it goes.

    Raises:
        WireError: The bytes are no IP packet, or it has IPv6 extension headers that are not Cilium's.
        LaterFragment: It is a fragment that does not hold the packet's beginning.
    """
    version = data[0] >> 4 if data else 0
    if version == 4 and len(data) >= 20:
        size = (data[0] & 15) * 4
        tos, total, ident, frag, ttl, proto = struct.unpack("!xBHHHBB", data[:10])
        if frag & 0x1FFF:
            raise LaterFragment("not modelled: a fragment of an IPv4 packet without its beginning")
        src, dst = (ip_text(int.from_bytes(data[at : at + 4], "big"), 4) for at in (12, 16))
        head = Packet(src, dst, proto, ttl=ttl, tos=tos, ident=ident, df=bool(frag & 0x4000))
        if frag & 0x2000:
            head = head.replace(fragment=total)
        if size == 28 and data[20:22] == bytes([DSR_OPTION4, 8]):
            port, address = struct.unpack("<HI", data[22:28])
            head = head.replace(dsr=DsrOption(ip_text(address, 4), port))
        return _read_transport(head, data[size:total], total - size)
    if version == 6 and len(data) >= 40:
        word, length, proto, ttl = struct.unpack("!IHBB", data[:8])
        at = 40
        dsr = None
        if proto == 60 and data[41:44] == bytes([2, DSR_OPTION6, 20]) and len(data) >= 64:
            proto, at = data[40], 64
            dsr = DsrOption(
                ip_text(int.from_bytes(data[44:60], "big"), 6), int.from_bytes(data[60:62], "big")
            )
        if proto in (0, 43, 44, 50, 51, 60):
            raise WireError(f"not modelled: IPv6 extension header {proto}")
        src, dst = (ip_text(int.from_bytes(data[at : at + 16], "big"), 6) for at in (8, 24))
        head = Packet(src, dst, proto, ttl=ttl, tos=word >> 20 & 255, dsr=dsr)
        return _read_transport(head, data[at : 40 + length], length + 40 - at)
    raise WireError("these bytes are no IP packet")


def _read_transport(head: Packet, data: bytes, length: int) -> Packet:
    proto = head.proto
    if len(data) < 8:
        return head
    if proto == IPIP:
        return head.replace(inner=Frame(NO_MAC, NO_MAC, read_packet(data)))
    if proto == TCP:
        return _read_tcp(head, data, length)
    if proto == UDP:
        sport, dport = struct.unpack("!HH", data[:4])
        udp = head.replace(sport=sport, dport=dport)
        if dport in VXLAN_PORTS and len(data) >= 30 and data[8] == 8:
            return udp.replace(vni=int.from_bytes(data[12:15], "big"), inner=read_frame(data[16:]))
        if dport == GENEVE_PORT and len(data) >= 30 and data[10:12] == ETH_BRIDGED.to_bytes(2, "big"):
            return _read_geneve(udp, data[8:])
        return _with_payload(udp, data[8:], length - 8)
    if proto == SCTP and len(data) >= 12:
        sport, dport = struct.unpack("!HH", data[:4])
        return _with_payload(head.replace(sport=sport, dport=dport), data[12:], length - 12)
    if proto in (ICMP, ICMPV6):
        kind, code = data[0], data[1]
        message = head.replace(icmp_type=kind, icmp_code=code)
        if kind in (_ERRORS4 if proto == ICMP else _ERRORS6):
            mtu = struct.unpack("!H", data[6:8])[0] if proto == ICMP else struct.unpack("!I", data[4:8])[0]
            return message.replace(icmp_mtu=mtu, quoted=read_packet(data[8:]))
        ident, seq = struct.unpack("!HH", data[4:8])
        return _with_payload(message.replace(icmp_id=ident, icmp_seq=seq), data[8:], length - 8)
    return _with_payload(head, data[8:], length - 8)


def _read_geneve(udp: Packet, data: bytes) -> Packet:
    size = (data[0] & 63) * 4
    option, dsr = data[8 : 8 + size], None
    if option[:3] == DSR_GENEVE and size in (12, 24):
        address = ip_text(int.from_bytes(option[4 : size - 4], "big"), 4 if size == 12 else 6)
        dsr = DsrOption(address, int.from_bytes(option[size - 4 : size - 2], "big"))
    inner = read_frame(data[8 + size :])
    return udp.replace(vni=int.from_bytes(data[4:7], "big"), inner=inner, dsr=dsr)


def _read_tcp(head: Packet, data: bytes, length: int) -> Packet:
    if len(data) < 20:
        sport, dport, seq = struct.unpack("!HHI", data[:8])
        return head.replace(sport=sport, dport=dport, seq=seq)
    tcp = _scapy().inet.TCP(data)
    mss = next((value for name, value in tcp.options if name == "MSS"), 0)
    start = tcp.dataofs * 4
    made = head.replace(
        sport=tcp.sport, dport=tcp.dport, flags=int(tcp.flags) & 63, seq=tcp.seq, ack=tcp.ack, mss=mss
    )
    return _with_payload(made, data[start:], length - start)


def _with_payload(packet: Packet, data: bytes, length: int) -> Packet:
    """Attach a payload; of one cut short only the size is kept."""
    if length <= 0:
        return packet
    return packet.replace(payload=data) if len(data) >= length else packet.replace(payload_size=length)


# -- capture files -------------------------------------------------------------------------------------------

_MAGIC = 0xA1B2C3D4
_ETHERNET = 1
_SNAPLEN = 262144


def pcap_bytes(captures: Iterable[Any]) -> bytes:
    """Return a capture file's content.

    Each capture has `time` in s and `frame` (`kubenet_lab.trace.Capture`).
    """
    out = bytearray(struct.pack("<IHHiIII", _MAGIC, 2, 4, 0, 0, _SNAPLEN, _ETHERNET))
    for capture in captures:
        for data in frames_bytes(capture.frame):
            micros = round(capture.time * 1_000_000)
            out += struct.pack("<IIII", micros // 1_000_000, micros % 1_000_000, len(data), len(data)) + data
    return bytes(out)


def write_pcap(path: str | Path, captures: Iterable[Any]) -> None:
    """Write captures to a file that `tcpdump -r` and Wireshark open."""
    Path(path).write_bytes(pcap_bytes(captures))


def read_pcap(path: str | Path) -> list[Captured]:
    """Read a capture file in libpcap format (either byte order, micro- or nanoseconds).

    Raises:
        WireError: It is none (a pcapng file, for one), is cut short, or was taken on a link that is not
        Ethernet.
    """
    data = Path(path).read_bytes()
    forms = {
        b"\xd4\xc3\xb2\xa1": ("<", 1e6),
        b"\xa1\xb2\xc3\xd4": (">", 1e6),
        b"\x4d\x3c\xb2\xa1": ("<", 1e9),
        b"\xa1\xb2\x3c\x4d": (">", 1e9),
    }
    if data[:4] not in forms or len(data) < 24:
        raise WireError(f"{path}: no capture file in libpcap format")
    order, parts = forms[data[:4]]
    (link,) = struct.unpack(f"{order}I", data[20:24])
    if link & 0xFFFF != _ETHERNET:
        raise WireError(f"{path}: not modelled: link type {link & 0xFFFF}; only Ethernet (1)")
    out: list[Captured] = []
    at = 24
    while at < len(data):
        if at + 16 > len(data):
            raise WireError(f"{path}: cut short in record {len(out) + 1}")
        seconds, fraction, size, _ = struct.unpack(f"{order}IIII", data[at : at + 16])
        at += 16
        if at + size > len(data):
            raise WireError(f"{path}: cut short in record {len(out) + 1}")
        out.append(Captured(seconds + fraction / parts, data[at : at + size]))
        at += size
    return out
