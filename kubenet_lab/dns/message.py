"""DNS messages as octets, both ways (RFC 1035 section 4): the only place that touches the wire form.

Used at the edges: pcap files, the live server, hostile packets. Record data goes through dnspython; header,
names and compression are written here, because CoreDNS compresses in its own way (only when it must, and
with the case kept).
"""

from __future__ import annotations

import struct

from kubenet_lab.dns.names import label_bytes, label_text, labels
from kubenet_lab.dns.records import (
    CLASS_NAMES,
    CLASSES,
    OPCODE_NAMES,
    OPCODES,
    RCODE_NAMES,
    RCODES,
    TYPE_NAMES,
    Edns,
    Query,
    Record,
    Response,
    type_number,
)
from kubenet_lab.errors import KubenetLabError

QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
_OPT = 41
_MAX_POINTER = 16384


class BadMessage(KubenetLabError):
    """Octets that are no DNS message, or one that cannot be written (a name with an empty label, ...)."""


def to_wire(message: Query | Response) -> bytes:
    """The octets of a message. Raises BadMessage when a name or record data cannot be written."""
    out = bytearray()
    if isinstance(message, Query):
        bits = _opcode(message.opcode) << 11
        bits |= (RD if message.rd else 0) | (AD if message.ad else 0) | (CD if message.cd else 0)
        out += struct.pack("!6H", message.id, bits, 1, 0, 0, 1 if message.edns else 0)
        _write_name(out, message.name, None, True)
        out += struct.pack("!2H", _type(message.type), _class(message.cls))
        if message.edns:
            out += _edns(message.edns, 0)
        return bytes(out)
    rcode = RCODES[message.rcode]
    bits = QR | _opcode(message.opcode) << 11 | (rcode & 0xF)
    for bit, on in (
        (AA, message.aa), (TC, message.tc), (RD, message.rd),
        (RA, message.ra), (AD, message.ad), (CD, message.cd),
    ):  # fmt: skip
        bits |= bit if on else 0
    counts = [
        len(message.answer),
        len(message.authority),
        len(message.additional) + (1 if message.edns else 0),
    ]
    out += struct.pack("!6H", message.id, bits, 1 if message.question else 0, *counts)
    seen: dict[str, int] | None = {} if message.compressed else None
    if message.question:
        _write_name(out, message.question.name, seen, True)
        out += struct.pack("!2H", _type(message.question.type), _class(message.question.cls))
    for section in (message.answer, message.authority, message.additional):
        for record in section:
            _write_name(out, record.name, seen, True)
            out += struct.pack("!2HIH", _type(record.type), _class(record.cls), record.ttl, 0)
            start = len(out)
            _write_data(out, record, seen)
            out[start - 2 : start] = struct.pack("!H", len(out) - start)
    if message.edns:
        out += _edns(message.edns, rcode >> 4)
    if len(out) > 65535:
        raise BadMessage(f"message of {len(out)} octets: at most 65535 fit")
    return bytes(out)


def from_wire(data: bytes) -> Query | Response:
    """The message in `data`: a Response if its QR bit is set, else a Query. Raises BadMessage."""
    if len(data) < 12:
        raise BadMessage(f"{len(data)} octets: a header alone has 12")
    ident, bits, qdcount, ancount, nscount, arcount = struct.unpack("!6H", data[:12])
    offset = 12
    question: Query | None = None
    opcode = OPCODE_NAMES.get(bits >> 11 & 0xF, f"OPCODE{bits >> 11 & 0xF}")
    for _ in range(qdcount):
        name, offset = _read_name(data, offset)
        kind, cls = _unpack("!2H", data, offset)
        offset += 4
        question = question or Query(
            name=name, type=TYPE_NAMES.get(kind, f"TYPE{kind}"), cls=CLASS_NAMES.get(cls, f"CLASS{cls}"),
            id=ident, opcode=opcode, rd=bool(bits & RD), ad=bool(bits & AD), cd=bool(bits & CD),
        )  # fmt: skip
    sections: list[tuple[Record, ...]] = []
    edns: Edns | None = None
    high = 0
    for count in (ancount, nscount, arcount):
        records: list[Record] = []
        for _ in range(count):
            name, offset = _read_name(data, offset)
            kind, cls, ttl, length = _unpack("!2HIH", data, offset)
            offset += 10
            if offset + length > len(data):
                raise BadMessage(f"record data of {name} ends after the message")
            if kind == _OPT:
                edns = edns or Edns(payload=cls, do=bool(ttl & 0x8000), version=ttl >> 16 & 0xFF)
                high = ttl >> 24
            else:
                records.append(_read_record(data, offset, length, name, kind, cls, ttl))
            offset += length
        sections.append(tuple(records))
    if not bits & QR:
        if question is None:
            raise BadMessage("a query without a question")
        return Query(
            question.name,
            question.type,
            ident,
            question.rd,
            edns,
            question.cls,
            opcode,
            question.ad,
            question.cd,
        )
    rcode = RCODE_NAMES.get(bits & 0xF | high << 4, f"RCODE{bits & 0xF | high << 4}")
    return Response(
        question=question, rcode=rcode, answer=sections[0], authority=sections[1], additional=sections[2],
        aa=bool(bits & AA), tc=bool(bits & TC), ra=bool(bits & RA), ad=bool(bits & AD), rd=bool(bits & RD),
        cd=bool(bits & CD), id=ident, opcode=opcode, edns=edns,
    )  # fmt: skip


def receive(data: bytes) -> Query | Response | None:
    """What a CoreDNS listener makes of a packet: a query to serve, an answer to send at once, or silence.

    Under 12 octets and answers (QR set) are dropped; an opcode other than QUERY and NOTIFY is NOTIMP; not
    exactly one question, too many records or anything unreadable is FORMERR; a header that promises a
    question and ends is SERVFAIL. All three have no question section.
    """
    if len(data) < 12:
        return None
    ident, bits, qdcount, ancount, nscount, arcount = struct.unpack("!6H", data[:12])
    if bits & QR:
        return None
    number = bits >> 11 & 0xF
    error = Response(question=None, id=ident, rd=bool(bits & RD), cd=bool(bits & CD), rcode="FORMERR")
    if number not in (0, 4):
        return Response(
            question=None, id=ident, rd=error.rd, cd=error.cd, ad=bool(bits & AD), rcode="NOTIMP",
            opcode=OPCODE_NAMES.get(number, f"OPCODE{number}"),
        )  # fmt: skip
    if qdcount != 1 or ancount > 1 or nscount > 1 or arcount > 2:
        return error
    if len(data) == 12:
        return Response(question=None, id=ident, rd=error.rd, cd=error.cd, rcode="SERVFAIL")
    try:
        query = from_wire(data)
    except BadMessage:
        return error
    return query if isinstance(query, Query) else error


def data_to_wire(record: Record) -> bytes:
    """The RDATA of a record, names uncompressed. Raises BadMessage."""
    out = bytearray()
    _write_data(out, record, None)
    return bytes(out)


def _opcode(name: str) -> int:
    return OPCODES[name] if name in OPCODES else int(name.removeprefix("OPCODE"))


def _class(name: str) -> int:
    return CLASSES[name] if name in CLASSES else int(name.removeprefix("CLASS"))


def _type(name: str) -> int:
    try:
        return type_number(name)
    except KeyError:
        raise BadMessage(f"unknown record type {name!r}") from None


def _edns(edns: Edns, high: int) -> bytes:
    ttl = high << 24 | edns.version << 16 | (0x8000 if edns.do else 0)
    options = b"".join(struct.pack("!2H", code, len(data)) + data for code, data in edns.options)
    return b"\0" + struct.pack("!2HIH", _OPT, edns.payload, ttl, len(options)) + options


def _write_name(out: bytearray, name: str, seen: dict[str, int] | None, compress: bool) -> None:
    start = len(out)
    rest = name
    for label in labels(name):
        octets = label_bytes(label)
        if not 0 < len(octets) < 64:
            raise BadMessage(f"bad name {name!r}: a label has 1 to 63 octets")
        if seen is not None:
            if rest in seen:
                if compress:
                    out += struct.pack("!H", 0xC000 | seen[rest])
                    return
            elif len(out) < _MAX_POINTER:
                seen[rest] = len(out)
        out.append(len(octets))
        out += octets
        rest = rest[len(label) + 1 :]
    out.append(0)
    if len(out) - start > 255:
        raise BadMessage(f"bad name {name!r}: longer than 255 octets")


def _write_data(out: bytearray, record: Record, seen: dict[str, int] | None) -> None:
    kind, data = record.type, record.data
    try:
        if kind in ("CNAME", "NS", "PTR"):
            _write_name(out, data, seen, True)
        elif kind == "SRV":
            priority, weight, port, target = data.split(" ")
            out += struct.pack("!3H", int(priority), int(weight), int(port))
            _write_name(out, target, seen, False)
        elif kind == "MX":
            preference, target = data.split(" ")
            out += struct.pack("!H", int(preference))
            _write_name(out, target, seen, True)
        elif kind == "SOA":
            mname, rname, *numbers = data.split(" ")
            _write_name(out, mname, seen, True)
            _write_name(out, rname, seen, True)
            out += struct.pack("!5I", *map(int, numbers))
        else:
            import dns.rdata

            out += dns.rdata.from_text(_class(record.cls), _type(kind), data).to_wire()  # type: ignore[arg-type]
    except (ValueError, struct.error) as error:
        raise BadMessage(f"{record}: {error}") from None
    except Exception as error:
        if type(error).__module__.startswith("dns."):
            raise BadMessage(f"{record}: {error}") from None
        raise


def _unpack(form: str, data: bytes, offset: int) -> tuple[int, ...]:
    try:
        return struct.unpack_from(form, data, offset)
    except struct.error:
        raise BadMessage("the message ends inside a record") from None


def _read_name(data: bytes, offset: int) -> tuple[str, int]:
    parts: list[str] = []
    end = -1
    length = 1
    limit = offset
    while True:
        if offset >= len(data):
            raise BadMessage("a name ends after the message")
        size = data[offset]
        if size >= 0xC0:
            if offset + 1 >= len(data):
                raise BadMessage("a pointer ends after the message")
            end = offset + 2 if end < 0 else end
            offset = (size & 0x3F) << 8 | data[offset + 1]
            if offset >= limit:
                # A pointer must point back: that alone makes a loop impossible.
                raise BadMessage("a compression pointer does not point back")
            limit = offset
            continue
        if size > 63:
            raise BadMessage("a reserved label type")
        offset += 1
        if not size:
            break
        length += size + 1
        if length > 255:
            raise BadMessage("a name longer than 255 octets")
        if offset + size > len(data):
            raise BadMessage("a label ends after the message")
        parts.append(label_text(data[offset : offset + size]))
        offset += size
    return ".".join(parts) + ".", end if end >= 0 else offset


def _read_record(data: bytes, offset: int, length: int, name: str, kind: int, cls: int, ttl: int) -> Record:
    type_name = TYPE_NAMES.get(kind, f"TYPE{kind}")
    cls_name = CLASS_NAMES.get(cls, f"CLASS{cls}")
    if type_name in ("CNAME", "NS", "PTR"):
        text, _ = _read_name(data, offset)
    elif type_name == "SRV":
        target, _ = _read_name(data, offset + 6)
        text = " ".join(map(str, _unpack("!3H", data, offset))) + " " + target
    elif type_name == "MX":
        target, _ = _read_name(data, offset + 2)
        text = f"{_unpack('!H', data, offset)[0]} {target}"
    elif type_name == "SOA":
        mname, after = _read_name(data, offset)
        rname, after = _read_name(data, after)
        text = f"{mname} {rname} " + " ".join(map(str, _unpack("!5I", data, after)))
    elif not length:
        text = ""
    else:
        import dns.exception
        import dns.rdata

        try:
            text = dns.rdata.from_wire(cls, kind, data, offset, length).to_text()  # type: ignore[arg-type]
        except (dns.exception.DNSException, ValueError) as error:
            raise BadMessage(f"{name} {type_name}: {error}") from None
    return Record(name=name, type=type_name, ttl=ttl, data=text, cls=cls_name)
