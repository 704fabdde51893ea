"""Messages as octets: against dnspython, against recorded hostile packets, and against noise."""

from __future__ import annotations

import os
import random
import struct

import dns.message
import pytest

from kubenet_lab.dns.message import BadMessage, from_wire, to_wire
from kubenet_lab.dns.records import Edns, Query, Record, Response, message_length, reply, truncate
from kubenet_lab.dns.server.corefile import KUBEADM
from kubenet_lab.packet.packet import TCP, UDP, Packet
from tests.kubenet_lab.dns.answers import server, shown
from tests.oracles import open_case

BASE = Query("backend.shop.svc.cluster.local.", id=0x1234)
WIRE = to_wire(BASE)
QUESTION = WIRE[12:]
OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"


def header(qd: int = 1, an: int = 0, ns: int = 0, ar: int = 0, bits: int = 0x0100) -> bytes:
    return struct.pack("!6H", 0x1234, bits, qd, an, ns, ar)


RAW: dict[str, bytes] = {
    "empty-packet": b"",
    "one-byte": b"\0",
    "eleven-bytes": WIRE[:11],
    "header-only-qd0": header(0),
    "header-only-qd1": header(1),
    "truncated-question": header() + QUESTION[:10],
    "qd2": header(2) + QUESTION + QUESTION[:-4] + b"\0\x1c\0\1",
    "qd2-names": header(2) + QUESTION + b"\1a\0\0\1\0\1",
    "qr1": header(bits=0x8100) + QUESTION,
    "an1": header(an=1) + QUESTION + QUESTION[:-4] + b"\0\1\0\1\0\0\0\x1e\0\4\1\2\3\4",
    "trailing-garbage": WIRE + b"garbage",
    "compression-loop": header() + b"\xc0\x0c\0\1\0\1",
    "label-type-01": header() + b"\x40a\0\0\1\0\1",
    "label-type-10": header() + b"\x80a\0\0\1\0\1",
    "name-too-long": header() + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1",
    "opcode-notify-noquestion": header(0, bits=0x2000),
    "qd0-edns": header(0, ar=1) + OPT,
    "edns-twice": header(ar=2) + QUESTION + OPT + OPT,
    "rcode-nonzero": header(bits=0x0105) + QUESTION,
    "z-bit": header(bits=0x0140) + QUESTION,
    "tc-bit": header(bits=0x0300) + QUESTION,
    "aa-bit": header(bits=0x0500) + QUESTION,
    "qd65535": header(65535) + QUESTION,
}


def test_hostile_packets_get_the_recorded_answer() -> None:
    running = server(KUBEADM, "world-main")
    rows = open_case("dns", "answers-kubeadm")["worlds"]["world-main"]
    judged = set()
    for row in rows:
        name = row["query"].get("raw")
        if name not in RAW:
            continue
        judged.add(name)
        wire = running.answer_wire(RAW[name], "10.244.9.5", 0.0, "tcp" if row["query"].get("tcp") else "udp")
        want = dict(row["response"])
        if "error" in want:
            assert wire is None, name
            continue
        assert wire is not None, name
        answer = from_wire(wire)
        assert isinstance(answer, Response)
        question = [f"{answer.question.name} IN A"] if answer.question else []
        assert question == want.pop("question"), name
        assert {**shown(answer), "len": len(wire)} == want, name
    assert judged == set(RAW)


PACKETS = int(os.environ.get("KUBENET_DNS_PACKETS", "3000"))
"""How many hostile packets; the full run is `KUBENET_DNS_PACKETS=100000`, some 20 s."""


def test_noise_never_harms_the_server() -> None:
    running = server(KUBEADM, "world-main")
    rng = random.Random(7)
    for turn in range(PACKETS):
        if turn % 3:
            data = bytearray(WIRE + OPT if turn % 2 else WIRE)
            data[10:12] = b"\0\1" if turn % 2 else b"\0\0"
            for _ in range(rng.randrange(1, 6)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        else:
            data = bytearray(rng.randbytes(rng.randrange(60)))
        answer = running.answer_wire(bytes(data), now=float(turn))
        assert answer is None or isinstance(from_wire(answer), Response)


RECORDS = (
    Record("a.example.", "A", 30, "192.0.2.1"),
    Record("a.example.", "AAAA", 30, "2001:db8::1"),
    Record("b.example.", "CNAME", 30, "a.example."),
    Record("_x._tcp.b.example.", "SRV", 30, "0 100 80 a.example."),
    Record("example.", "MX", 30, "10 a.example."),
    Record("example.", "TXT", 30, '"one two" "three"'),
    Record("example.", "SOA", 30, "ns.example. hostmaster.example. 1 7200 1800 86400 30"),
    Record("1.2.0.192.in-addr.arpa.", "PTR", 30, "a.example."),
    Record("odd\\032label.e\\.x.", "A", 30, "192.0.2.2"),
)


@pytest.mark.parametrize("compressed", [False, True])
def test_answers_survive_the_wire_and_other_hands(compressed: bool) -> None:
    query = Query("b.example.", "ANY", 77, edns=Edns(1232, True))
    answer = reply(query, answer=RECORDS, aa=True, edns=Edns(1232, True), compressed=compressed)
    wire = to_wire(answer)
    assert len(wire) == answer.wire_length
    assert len(to_wire(query)) == query.wire_length
    back = from_wire(wire)
    assert isinstance(back, Response)
    assert (back.answer, back.edns, back.flags) == (answer.answer, answer.edns, answer.flags)
    theirs = dns.message.from_wire(wire)
    assert sum(len(rrset) for rrset in theirs.answer) == len(RECORDS)
    assert from_wire(theirs.to_wire()).answer == RECORDS  # type: ignore[union-attr]


def test_a_name_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(BadMessage, match="label"):
        to_wire(Query("a..b."))
    with pytest.raises(BadMessage, match="255"):
        to_wire(Query("a." * 130))


def test_truncation_keeps_what_fits() -> None:
    query = Query("many.example.")
    full = reply(query, answer=tuple(Record(query.name, "A", 30, f"192.0.2.{n}") for n in range(100)))
    cut = truncate(full, 512)
    assert (cut.tc, cut.compressed) == (True, True)
    assert message_length(cut) <= 512 < message_length(full, True)
    assert cut.answer == full.answer[: len(cut.answer)]
    assert truncate(full, 65535) == full


def test_a_socket_handler_answers_values_with_values_and_octets_with_octets() -> None:
    running = server(KUBEADM, "world-main")
    asked = Packet("10.244.9.5", "10.244.0.2", UDP, 40000, 53, message=BASE, payload_size=BASE.wire_length)
    answer = running.handle(asked, 0.0)
    assert answer is not None
    assert (answer.src, answer.dst, answer.sport, answer.dport) == ("10.244.0.2", "10.244.9.5", 53, 40000)
    assert answer.message.addresses == ("10.96.10.1",)
    assert answer.payload_size == 94
    octets = running.handle(Packet("10.244.9.5", "10.244.0.2", TCP, 40000, 53, payload=WIRE), 0.0)
    assert octets is not None
    assert from_wire(octets.payload).addresses == ("10.96.10.1",)  # type: ignore[union-attr]
    assert running.handle(Packet("10.244.9.5", "10.244.0.2", UDP, 40000, 53, payload=b"x"), 0.0) is None
