"""Questions, records and answers as frozen values; the wire form is made elsewhere (`message.py`).

Types, classes and rcodes are their mnemonics ("A", "IN", "NXDOMAIN"), record data is master-file text
("10.96.0.10", "0 100 80 backend.default.svc.cluster.local."): what a person reads is what is compared. One
never modelled is written as RFC 3597 says, "TYPE65280".
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.dns.names import parse_ip, wire_name_length

TYPES: dict[str, int] = {
    "A": 1, "NS": 2, "CNAME": 5, "SOA": 6, "NULL": 10, "WKS": 11, "PTR": 12, "HINFO": 13, "MX": 15, "TXT": 16,
    "AAAA": 28, "LOC": 29, "SRV": 33, "NAPTR": 35, "OPT": 41, "DS": 43, "SSHFP": 44, "RRSIG": 46, "NSEC": 47,
    "DNSKEY": 48, "TLSA": 52, "SVCB": 64, "HTTPS": 65, "SPF": 99, "TSIG": 250, "IXFR": 251, "AXFR": 252,
    "MAILB": 253, "ANY": 255, "URI": 256, "CAA": 257,
}  # fmt: skip
CLASSES: dict[str, int] = {"IN": 1, "CH": 3, "HS": 4, "NONE": 254, "ANY": 255}
RCODES: dict[str, int] = {
    "NOERROR": 0, "FORMERR": 1, "SERVFAIL": 2, "NXDOMAIN": 3, "NOTIMP": 4, "REFUSED": 5, "YXDOMAIN": 6,
    "YXRRSET": 7, "NXRRSET": 8, "NOTAUTH": 9, "NOTZONE": 10, "BADVERS": 16,
}  # fmt: skip
OPCODES: dict[str, int] = {"QUERY": 0, "IQUERY": 1, "STATUS": 2, "NOTIFY": 4, "UPDATE": 5}

TYPE_NAMES = {number: name for name, number in TYPES.items()}
CLASS_NAMES = {number: name for name, number in CLASSES.items()}
RCODE_NAMES = {number: name for name, number in RCODES.items()}
OPCODE_NAMES = {number: name for name, number in OPCODES.items()}

HEADER_LENGTH = 12
OPT_LENGTH = 11
MIN_UDP_SIZE = 512
MAX_SIZE = 65535
_MAX_POINTER = 16384


class Edns(Struct, frozen=True):
    """The OPT pseudo record (RFC 6891).

    Attributes:
        payload: Octets of UDP message the sender can take.
        do: It wants DNSSEC records.
        version: 0; anything else is answered BADVERS.
        options: (code, data) pairs of a query. CoreDNS copies none into its answers.
    """

    payload: int = 1232
    do: bool = False
    version: int = 0
    options: tuple[tuple[int, bytes], ...] = ()

    @property
    def wire_length(self) -> int:
        """Octets of the record."""
        return OPT_LENGTH + sum(4 + len(data) for _, data in self.options)


class Query(Struct, frozen=True):
    """One question to one server: what `dig NAME TYPE` sends.

    Attributes:
        name: Absolute, in the case it is asked.
        type, cls, opcode: Mnemonics.
        id: 16 bits; the answer carries it back.
        rd, ad, cd: Header bits as set by the asker.
        edns: The OPT record, if one is sent.
    """

    name: str
    type: str = "A"
    id: int = 0
    rd: bool = True
    edns: Edns | None = None
    cls: str = "IN"
    opcode: str = "QUERY"
    ad: bool = False
    cd: bool = False

    @property
    def wire_length(self) -> int:
        """Octets of the message on the wire (the UDP payload; TCP adds two)."""
        length = HEADER_LENGTH + wire_name_length(self.name) + 4
        return length + self.edns.wire_length if self.edns is not None else length

    def to_wire(self) -> bytes:
        """Return the message's octets, for who needs bytes (a capture file)."""
        from kubenet_lab.dns.message import to_wire

        return to_wire(self)

    def __str__(self) -> str:
        return f"{self.name} {self.cls} {self.type}"


class Record(Struct, frozen=True):
    """One resource record; `str()` is its master-file line.

    Attributes:
        name: Owner.
        type: Mnemonic.
        ttl: Seconds.
        data: RDATA as master-file text, names in it absolute.
        cls: Class mnemonic.
    """

    name: str
    type: str
    ttl: int
    data: str
    cls: str = "IN"

    @property
    def target(self) -> str:
        """The name a CNAME, NS, PTR, MX or SRV record points at; "" for the others."""
        if self.type in ("CNAME", "NS", "PTR", "SRV", "MX"):
            return self.data.rsplit(" ", 1)[-1]
        return ""

    def __str__(self) -> str:
        return f"{self.name} {self.ttl} {self.cls} {self.type} {self.data}"


class Response(Struct, frozen=True):
    """An answer.

    Attributes:
        question: The query this answers; None if the message has no question section (FORMERR, NOTIMP).
        rcode: Mnemonic.
        answer, authority, additional: Records; the OPT record is `edns`.
        aa, tc, ra, ad: Header bits the server sets. RD and CD are copies of the query's.
        compressed: Names are compressed on the wire. CoreDNS does so only when the message would not fit.
        delay: Seconds the server took, simulated.
        id, rd, cd, opcode: The query's, kept here because `question` can be None.
    """

    question: Query | None
    rcode: str = "NOERROR"
    answer: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    aa: bool = False
    tc: bool = False
    ra: bool = False
    ad: bool = False
    rd: bool = False
    cd: bool = False
    id: int = 0
    opcode: str = "QUERY"
    edns: Edns | None = None
    compressed: bool = False
    delay: float = 0.0

    @property
    def flags(self) -> str:
        """Set header bits in header order, as `dig` prints them: "qr aa rd"."""
        bits = [
            ("aa", self.aa),
            ("tc", self.tc),
            ("rd", self.rd),
            ("ra", self.ra),
            ("ad", self.ad),
            ("cd", self.cd),
        ]
        return " ".join(["qr", *(name for name, value in bits if value)])

    def to_wire(self) -> bytes:
        """Return the message's octets, for who needs bytes (a capture file)."""
        from kubenet_lab.dns.message import to_wire

        return to_wire(self)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses in the answer section, in order."""
        return tuple(record.data for record in self.answer if record.type in ("A", "AAAA"))

    @property
    def wire_length(self) -> int:
        """Octets of the message on the wire (the UDP payload; TCP adds two)."""
        return message_length(self)


def reply(query: Query, rcode: str = "NOERROR", **fields: object) -> Response:
    """An empty answer to `query` with RD, CD, id and opcode copied (RFC 1035 section 4.1.1)."""
    asked = query.opcode == "QUERY"
    return Response(
        question=query,
        rcode=rcode,
        id=query.id,
        opcode=query.opcode,
        rd=query.rd and asked,
        cd=query.cd and asked,
        **fields,  # type: ignore[arg-type]
    )


def type_number(name: str) -> int:
    """The number of a type mnemonic, "TYPE123" included. Raises KeyError for an unknown word."""
    number = TYPES.get(name)
    if number is not None:
        return number
    if name.startswith("TYPE") and name[4:].isdigit():
        return int(name[4:])
    raise KeyError(name)


def message_length(message: Response, compressed: bool | None = None) -> int:
    """Octets of an answer; `compressed` overrules the message's own setting."""
    if message.compressed if compressed is None else compressed:
        seen: dict[str, int] | None = {}
    else:
        seen = None
    length = HEADER_LENGTH
    if message.question is not None:
        length += name_length(message.question.name, length, seen, True) + 4
    for section in (message.answer, message.authority, message.additional):
        for record in section:
            length += record_length(record, length, seen)
    return length + message.edns.wire_length if message.edns is not None else length


def name_length(name: str, offset: int, seen: dict[str, int] | None, compress: bool) -> int:
    """Octets of `name` at `offset`; new suffixes go into `seen`, known ones cost a pointer if `compress`.

    Suffixes are compared with their case, as the Go library CoreDNS uses does.
    """
    if name == "." or not name:
        return 1
    if seen is None:
        return wire_name_length(name)
    rest = labels_from(name)
    length = 0
    for suffix, size in rest:
        if suffix in seen:
            if compress:
                return length + 2
        elif offset + length < _MAX_POINTER:
            seen[suffix] = offset + length
        length += size
    return length + 1


def labels_from(name: str) -> list[tuple[str, int]]:
    """Every suffix of `name` with the octets of its first label (length octet included)."""
    from kubenet_lab.dns.names import label_bytes, labels

    parts = labels(name)
    out: list[tuple[str, int]] = []
    rest = name
    for part in parts:
        out.append((rest, 1 + len(label_bytes(part))))
        rest = rest[len(part) + 1 :]
    return out


def record_length(record: Record, offset: int, seen: dict[str, int] | None) -> int:
    """Octets of a record at `offset` (RFC 1035 section 4.1.3)."""
    length = name_length(record.name, offset, seen, True) + 10
    return length + _data_length(record, offset + length, seen)


def _data_length(record: Record, offset: int, seen: dict[str, int] | None) -> int:
    kind, data = record.type, record.data
    if kind == "A":
        return 4
    if kind == "AAAA":
        return 16
    if kind in ("CNAME", "NS", "PTR"):
        return name_length(data, offset, seen, True)
    if kind == "SRV":
        # RFC 2782 forbids compressing the target; a pointer to it is still allowed.
        return 6 + name_length(data.rsplit(" ", 1)[1], offset + 6, seen, False)
    if kind == "MX":
        return 2 + name_length(data.rsplit(" ", 1)[1], offset + 2, seen, True)
    if kind == "SOA":
        mname, rname, _ = data.split(" ", 2)
        length = name_length(mname, offset, seen, True)
        length += name_length(rname, offset + length, seen, True)
        return length + 20
    from kubenet_lab.dns.message import data_to_wire

    return len(data_to_wire(record))


def truncate(message: Response, size: int) -> Response:
    """The answer cut to `size` octets: whole, else compressed, else cut record by record with TC set.

    Answers go before authority before additional; the OPT record always stays. As `Msg.Truncate` of the Go
    library CoreDNS is built on.
    """
    size = max(size, MIN_UDP_SIZE)
    if message_length(message, False) <= size:
        return replace(message, compressed=False) if message.compressed else message
    if message.edns is not None:
        size -= message.edns.wire_length
    seen: dict[str, int] = {}
    length = HEADER_LENGTH
    if message.question is not None:
        length += name_length(message.question.name, length, seen, True) + 4
    kept: list[tuple[Record, ...]] = []
    cut = False
    for section in (message.answer, message.authority, message.additional):
        count = 0
        if length < size:
            for record in section:
                length += record_length(record, length, seen)
                if length > size:
                    length = size
                    break
                count += 1
                if length == size:
                    break
        cut = cut or count < len(section)
        kept.append(section[:count])
    return replace(
        message, answer=kept[0], authority=kept[1], additional=kept[2], tc=message.tc or cut, compressed=True
    )


def address_type(text: str) -> tuple[str, str]:
    """("A", canonical), ("AAAA", canonical) or ("CNAME", text) for what a Service or slice calls its host."""
    canonical = parse_ip(text)
    if not canonical:
        return "CNAME", text
    return ("AAAA" if ":" in canonical else "A"), canonical
