"""Packets as bytes and back, and capture files that the real tcpdump reads."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from diagnostics import tcpdump
from kubenet_lab.dns.message import from_wire
from kubenet_lab.dns.records import Query, Record, Response
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.packet import (
    ACK,
    ICMP,
    ICMPV6,
    PSH,
    RST,
    SYN,
    TCP,
    UDP,
    Arp,
    DsrOption,
    Frame,
    Packet,
)
from kubenet_lab.packet.wire import (
    WireError,
    frame_bytes,
    frames_bytes,
    read_frame,
    read_packet,
    read_pcap,
    write_pcap,
)
from kubenet_lab.trace import Capture

A, B = "0a:00:00:00:00:01", "0a:00:00:00:00:02"
SYN4 = Packet("10.0.0.1", "10.0.0.2", TCP, 40000, 80, flags=SYN, seq=7, mss=1460, ident=5)
DATAGRAM = Packet("10.0.0.1", "10.0.0.2", UDP, 40001, 5000, payload=b"hello", df=False)
QUERY = Query("backend.default.svc.cluster.local.", "A", 4660)

FRAMES: dict[str, Frame] = {
    "syn": Frame(A, B, SYN4),
    "syn-ack": Frame(
        B, A, Packet("10.0.0.2", "10.0.0.1", TCP, 80, 40000, flags=SYN | ACK, seq=9, ack=8, mss=1410)
    ),
    "data": Frame(
        A,
        B,
        Packet(
            "10.0.0.1",
            "10.0.0.2",
            TCP,
            40000,
            80,
            flags=PSH | ACK,
            seq=8,
            ack=10,
            payload=b"GET / HTTP/1.1\r\n\r\n",
        ),
    ),
    "reset": Frame(B, A, Packet("10.0.0.2", "10.0.0.1", TCP, 81, 40000, flags=RST | ACK, ack=8)),
    "udp": Frame(A, B, DATAGRAM),
    "udp6": Frame(A, B, Packet("fd00::1", "fd00::2", UDP, 40001, 5000, payload=b"x")),
    "echo": Frame(
        A, B, Packet("10.0.0.1", "10.0.0.2", ICMP, icmp_type=8, icmp_id=77, icmp_seq=1, payload=bytes(56))
    ),
    "echo6": Frame(
        A, B, Packet("fd00::1", "fd00::2", ICMPV6, icmp_type=129, icmp_id=77, icmp_seq=1, payload=bytes(56))
    ),
    "port-unreachable": Frame(
        B, A, Packet("10.0.0.2", "10.0.0.1", ICMP, icmp_type=3, icmp_code=3, quoted=DATAGRAM, df=False)
    ),
    "too-big": Frame(
        B,
        A,
        Packet("10.0.0.9", "10.0.0.1", ICMP, icmp_type=3, icmp_code=4, icmp_mtu=1450, quoted=SYN4, df=False),
    ),
    "too-big6": Frame(
        B,
        A,
        Packet(
            "fd00::9",
            "fd00::1",
            ICMPV6,
            icmp_type=2,
            icmp_mtu=1450,
            quoted=Packet("fd00::1", "fd00::2", UDP, 1, 2, payload=b"q"),
        ),
    ),
    "ttl": Frame(B, A, Packet("10.0.0.9", "10.0.0.1", ICMP, icmp_type=11, quoted=DATAGRAM, df=False)),
    "arp-request": Frame(
        A, "ff:ff:ff:ff:ff:ff", Arp("request", A, "10.0.0.1", "00:00:00:00:00:00", "10.0.0.2")
    ),
    "arp-reply": Frame(B, A, Arp("reply", B, "10.0.0.2", A, "10.0.0.1")),
    "solicit": Frame(A, "33:33:ff:00:00:02", Arp("request", A, "fd00::1", "00:00:00:00:00:00", "fd00::2")),
    "advert": Frame(B, A, Arp("reply", B, "fd00::2", "00:00:00:00:00:00", "fd00::1")),
    "vxlan": Frame(
        A,
        B,
        Packet("192.168.1.10", "192.168.1.20", UDP, 50000, 8472, vni=1, inner=Frame(B, A, SYN4), df=False),
    ),
    "vxlan-iana": Frame(
        A,
        B,
        Packet("192.168.1.10", "192.168.1.20", UDP, 50000, 4789, vni=4096, inner=Frame(B, A, SYN4), df=False),
    ),
    "vlan": Frame(A, B, SYN4, vlan=7),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_comes_back_from_its_bytes(name: str) -> None:
    frame = FRAMES[name]
    assert read_frame(frame_bytes(frame)) == frame


@pytest.mark.parametrize("name", [name for name in FRAMES if not isinstance(FRAMES[name].body, Arp)])
def test_the_bytes_are_as_many_as_the_model_counts(name: str) -> None:
    frame = FRAMES[name]
    assert len(frame_bytes(frame)) == frame.length + (4 if frame.vlan else 0)


FOUR, SIX = DsrOption("192.168.1.30", 30080), DsrOption("fd00:1::30", 30080)
OUTER = Packet("192.168.1.10", "192.168.1.20", UDP, 50000, 6081, vni=2, inner=Frame(B, A, SYN4), df=False)
SYN6 = Packet("fd00::1", "fd00::2", TCP, 40000, 80, flags=SYN, mss=1440)


TOLD = (
    OUTER,
    OUTER.replace(dsr=FOUR),
    OUTER.replace(dsr=SIX, inner=Frame(B, A, SYN6)),
    OUTER.replace(inner=Frame(B, A, DATAGRAM)),
    OUTER.replace(inner=FRAMES["arp-reply"]),
    SYN4.replace(dsr=FOUR),
    DATAGRAM.replace(dsr=FOUR),
    SYN6.replace(dsr=SIX),
)


@pytest.mark.kernel
@pytest.mark.parametrize("flags", [["-nn", "-t"], ["-nn", "-t", "-e"]])
def test_the_real_tcpdump_reads_geneve_and_the_options(flags: list[str], tmp_path: Path) -> None:
    program = shutil.which("tcpdump")
    if program is None:
        pytest.skip("no tcpdump on this machine")
    path = tmp_path / "told.pcap"
    write_pcap(path, [Capture(0.0, "node-1", "eth0", "out", Frame(A, B, packet)) for packet in TOLD])
    real: Any = subprocess.run([program, *flags, "-r", str(path)], capture_output=True, text=True, check=True)
    network = Network()
    network.add_netns("host")
    assert tcpdump.TOOL.run(network, "host", [*flags, "-r", str(path)]).out == real.stdout


@pytest.mark.parametrize("packet", TOLD)
def test_geneve_and_the_options_that_name_a_frontend(packet: Packet) -> None:
    data = frame_bytes(Frame(A, B, packet))
    assert read_frame(data) == Frame(A, B, packet)
    assert len(data) == 14 + packet.length


def test_how_the_options_look_on_the_wire() -> None:
    """Cilium's bpf/lib/nodeport.h and tunnel.h; IPv4's option has port and address with the low byte first."""
    assert frame_bytes(Frame(A, B, SYN4.replace(dsr=FOUR)))[34:42].hex() == "9a0880751e01a8c0"
    assert frame_bytes(Frame(A, B, SYN6.replace(dsr=SIX)))[54:78].hex() == (
        "06021b14fd0000010000000000000000000000307580" + "0000"
    )
    assert frame_bytes(Frame(A, B, OUTER.replace(dsr=FOUR)))[42:62].hex() == (
        "03006558" + "00000200" + "014b8102" + "c0a8011e" + "75800000"
    )


def test_fragments_carry_the_option() -> None:
    packet = DATAGRAM.replace(dsr=FOUR, payload=bytes(3000), fragment=1400)
    parts = frames_bytes(Frame(A, B, packet))
    assert len(parts) == 3
    assert all(part[14] == 0x47 and part[34] == 0x9A for part in parts)


def test_a_dns_message_is_carried_whole() -> None:
    answer = Response(QUERY, answer=(Record(QUERY.name, "A", 30, "10.96.0.100"),), aa=True, rd=True, id=4660)
    for message in (QUERY, answer):
        packet = Packet(
            "10.0.0.1", "10.0.0.2", UDP, 40000, 53, message=message, payload_size=message.wire_length
        )
        back = read_packet(frame_bytes(Frame(A, B, packet))[14:])
        assert len(back.payload) == message.wire_length
        assert str(from_wire(back.payload)) == str(message)


def test_fragments_add_up_to_the_packet() -> None:
    packet = Packet(
        "10.0.0.1", "10.0.0.2", UDP, 1, 2, payload=bytes(range(256)) * 12, ident=9, df=False, fragment=1400
    )
    parts = frames_bytes(Frame(A, B, packet))
    assert [len(part) - 14 for part in parts] == [1396, 1396, 20 + 3080 - 2 * 1376]
    whole = frame_bytes(Frame(A, B, packet))
    assert b"".join(part[34:] for part in parts) == whole[34:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"short", "an Ethernet frame has at least 14 bytes, not 5"),
        (bytes(12) + b"\x88\xcc" + bytes(50), "not modelled: ethertype 0x88cc"),
        (bytes(12) + b"\x08\x00" + b"\x00" * 30, "these bytes are no IP packet"),
    ],
)
def test_what_is_no_frame_is_said_so(data: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message):
        read_frame(data)


def test_a_capture_file_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "all.pcap"
    write_pcap(path, _captures())
    back = read_pcap(path)
    assert [record.frame for record in back] == list(FRAMES.values())
    assert [round(record.time, 6) for record in back] == [at * 0.5 for at in range(len(FRAMES))]
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(WireError, match="cut short in record"):
        read_pcap(path)


def _captures() -> list[Capture]:
    return [Capture(at * 0.5, "node-1", "eth0", "out", frame) for at, frame in enumerate(FRAMES.values())]


@pytest.mark.kernel
@pytest.mark.parametrize(
    "flags", [["-nn"], ["-nn", "-e"], ["-nn", "-S"], ["-nn", "-t"], ["-nn", "-tttt", "-#"], ["-n"]]
)
def test_the_real_tcpdump_prints_what_ours_prints(flags: list[str], tmp_path: Path) -> None:
    program = shutil.which("tcpdump")
    if program is None:
        pytest.skip("no tcpdump on this machine")
    path = tmp_path / "all.pcap"
    write_pcap(path, _captures())
    real: Any = subprocess.run([program, *flags, "-r", str(path)], capture_output=True, text=True, check=True)
    network = Network()
    network.add_netns("host")
    ours = tcpdump.TOOL.run(network, "host", [*flags, "-r", str(path)])
    assert ours.out == real.stdout
    assert ours.err == real.stderr


def test_a_tag_can_be_asked_for(tmp_path: Path) -> None:
    tagged = [capture for capture in _captures() if capture.frame.vlan]
    counts = {
        text: sum(tcpdump.Filter(text)(one.frame) for one in _captures())
        for text in ("vlan", "vlan 7 and tcp", "vlan 8")
    }
    assert counts == {"vlan": len(tagged), "vlan 7 and tcp": len(tagged), "vlan 8": 0}
    program = shutil.which("tcpdump")
    if program is not None:
        write_pcap(tmp_path / "all.pcap", _captures())
        for text, count in counts.items():
            argv = [program, "-r", str(tmp_path / "all.pcap"), "--count", text]
            printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
            assert printed.split()[0] == str(count)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 18), ("tcp", 4), ("udp port 5000", 2), ("arp", 2), ("icmp", 4), ("ip6", 5), ("host 10.0.0.9", 2),
        ("src host 10.0.0.2 and tcp", 2), ("not tcp and not udp", 10), ("net 192.168.0.0/16", 2),
        ("tcp dst port 80", 2),
        ("port 80 or port 81", 4), ("(port 80 or arp) and host 10.0.0.1", 5), ("portrange 8000-9000", 1), ("icmp6", 4),
        ("ip and udp", 3), ("dst 10.0.0.2", 5),
    ],
)  # fmt: skip
def test_a_filter_lets_through_what_the_real_one_does(text: str, count: int, tmp_path: Path) -> None:
    wanted = tcpdump.Filter(text)
    frames = [capture for capture in _captures() if not capture.frame.vlan]
    assert sum(wanted(capture.frame) for capture in frames) == count
    program = shutil.which("tcpdump")
    if program is not None:
        write_pcap(tmp_path / "all.pcap", frames)
        argv = [program, "-nn", "-t", "-r", str(tmp_path / "all.pcap"), "--count", text]
        printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        assert printed.split()[0] == str(count)
