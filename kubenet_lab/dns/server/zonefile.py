"""An authoritative zone of a master file (RFC 1035 section 5), as CoreDNS's `file` plugin looks names up in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from kubenet_lab.dns.records import Query, Record

Lookup = Callable[[str, str], tuple[Record, ...]]
"""(name, type) -> the records another zone has, for a CNAME that leads out of this one."""
_LONGEST_CHAIN = 8


class ZoneAnswer(NamedTuple):
    """The sections of an answer; `rcode` is NOERROR or NXDOMAIN."""

    rcode: str
    answer: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()


class ZoneFile:
    """Names with their records; wildcards, empty non-terminals, delegations, CNAMEs followed.

    Raises ValueError (dnspython's words) for a text that is no master file.
    """

    def __init__(self, origin: str, text: str) -> None:
        import dns.exception
        import dns.rdatatype
        import dns.zone

        self.origin = origin
        self.records: dict[str, tuple[Record, ...]] = {}
        try:
            zone = dns.zone.from_text(text, origin=origin, relativize=False, check_origin=False)
        except dns.exception.DNSException as error:
            raise ValueError(str(error)) from error
        for name, node in zone.nodes.items():
            owner = name.to_text().lower()
            found: list[Record] = []
            for rdataset in node.rdatasets:
                kind = dns.rdatatype.to_text(rdataset.rdtype)
                found += [Record(owner, kind, rdataset.ttl, rdata.to_text()) for rdata in rdataset]
            self.records[owner] = tuple(found)
        self.names = {name[at:] for name in self.records for at in _cuts(name) if name[at:].endswith(origin)}

    def answer(self, query: Query, lookup: Lookup | None = None) -> ZoneAnswer:
        """Answer a question for a name in the zone. `lookup` finds what a CNAME leads to outside it."""
        name = query.name.lower()
        chain: list[Record] = []
        while True:
            owned = self._find(name, query.name if not chain else name)
            if owned is None:
                return ZoneAnswer("NXDOMAIN", tuple(chain), self.of("SOA"))
            wanted = tuple(each for each in owned if each.type == query.type)
            alias = next((each for each in owned if each.type == "CNAME"), None)
            if wanted or alias is None:
                break
            chain.append(alias)
            name = alias.data.lower()
            if not name.endswith(self.origin):
                found = lookup(alias.data, query.type) if lookup is not None else None
                if found is None:
                    return ZoneAnswer("NXDOMAIN", tuple(chain), self.of("SOA"))
                return ZoneAnswer("NOERROR", (*chain, *found), self.of("NS" if found else "SOA"))
            if len(chain) > _LONGEST_CHAIN:
                break
        if not wanted and not chain:
            return ZoneAnswer("NOERROR", (), self.of("SOA"))
        authority = self.of("NS")
        if query.type == "NS":
            # One CNAME to a name without NS records is answered with the SOA, two are not: as recorded.
            authority = (
                () if query.name.lower() == self.origin else self.of("SOA" if len(chain) == 1 else "NS")
            )
        glue = tuple(
            record
            for each in wanted
            if each.type in ("NS", "MX", "SRV")
            for record in self.records.get(each.target, ())
            if record.type in ("A", "AAAA")
        )
        return ZoneAnswer("NOERROR", (*chain, *wanted), authority, glue)

    def of(self, kind: str) -> tuple[Record, ...]:
        """Return the records of one type at the zone's apex."""
        return tuple(record for record in self.records.get(self.origin, ()) if record.type == kind)

    def _find(self, name: str, asked: str) -> tuple[Record, ...] | None:
        found = self.records.get(name)
        if found is not None:
            return found
        if name in self.names:
            return ()
        for at in list(_cuts(name))[1:]:
            star = self.records.get(f"*.{name[at:]}")
            if star is not None:
                return tuple(Record(asked, each.type, each.ttl, each.data) for each in star)
            if name[at:] in self.names:
                return None
        return None


def _cuts(name: str) -> Iterator[int]:
    yield 0
    yield from (at + 1 for at, char in enumerate(name[:-1]) if char == ".")
