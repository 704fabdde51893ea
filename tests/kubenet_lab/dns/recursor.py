"""The upstream servers of the recorded runs, as far as their zone files define them.

10.0.0.53 and 10.0.0.60 look like recursive resolvers over example.com, 10.0.0.54 is authoritative for
corp.example, .55 refuses, .56 fails, .57 is silent, .58 is a closed port.
"""

from __future__ import annotations

from kubenet_lab.dns.records import Query, Record, Response, reply

ROOT_SOA = Record(
    ".", "SOA", 86400, "a.root-servers.net. nstld.verisign-grs.com. 2024010101 1800 900 604800 86400"
)
_RCODES = {"servfail": "SERVFAIL", "refused": "REFUSED", "notimp": "NOTIMP"}


class Recursor:
    """`ask(query, server)` answers as that server did."""

    def __init__(self, zones: dict[str, str]) -> None:
        self.example = ZoneFile("example.com.", zones["example.com.zone"])
        self.corp = ZoneFile("corp.example.", zones["corp.example.zone"])

    def ask(self, query: Query, server: str, protocol: str = "udp") -> Response | None:
        host = server.rsplit(":", 1)[0]
        if host == "10.0.0.57":
            return None
        if host == "10.0.0.59":
            if protocol == "udp":
                return reply(query, tc=True, ra=True)
            address = (Record(query.name, "A", 60, "192.0.2.59"),) if query.type == "A" else ()
            return reply(query, answer=address, ra=True)
        if host == "10.0.0.58":
            raise ConnectionRefusedError
        if query.cls != "IN":
            return reply(query, "REFUSED")
        if host == "10.0.0.55":
            return reply(query, "REFUSED", aa=True)
        if host == "10.0.0.56":
            return reply(query, "SERVFAIL")
        name = query.name.lower()
        if host == "10.0.0.54":
            if name.endswith("corp.example."):
                return self.corp.answer(query)
            return reply(query, "REFUSED", aa=True)
        if query.type in ("AXFR", "IXFR") and name != "in-addr.arpa.":
            return reply(query, "REFUSED")
        if name == "whoami.up.":
            if query.type not in ("TXT", "ANY"):
                return reply(query, "SERVFAIL")
            up = "up60" if host == "10.0.0.60" else "up53"
            return reply(query, answer=(Record(query.name, "TXT", 60, f'"{up}"'),), ra=True)
        if name.endswith(".example.com.") or name == "example.com.":
            for word, rcode in _RCODES.items():
                if name == f"{word}.example.com." or name.endswith(f".{word}.example.com."):
                    return reply(query, rcode, ra=rcode != "SERVFAIL")
            return self.example.answer(query, aa=False, ra=True)
        return reply(query, "NXDOMAIN", authority=(ROOT_SOA,), ra=True)


class ZoneFile:
    """An authoritative zone: wildcards, empty non-terminals, CNAMEs followed inside the zone."""

    def __init__(self, origin: str, text: str) -> None:
        self.origin = origin
        self.records: dict[str, list[Record]] = {}
        for line in text.splitlines():
            words = line.split(None, 4)
            if len(words) < 5:
                continue
            owner, ttl, cls, kind, data = words
            data = data.replace("alpn=h2", 'alpn="h2"')
            name = origin if owner == "@" else owner if owner.endswith(".") else f"{owner}.{origin}"
            self.records.setdefault(name, []).append(Record(name, kind, int(ttl), data, cls))
        self.names = {name[at:] for name in self.records for at in _cuts(name) if name[at:].endswith(origin)}

    def answer(self, query: Query, aa: bool = True, ra: bool = False) -> Response:
        name, chain = query.name.lower(), []
        while True:
            owned = self._find(name, query.name if not chain else name)
            if owned is None:
                return reply(query, "NXDOMAIN", answer=tuple(chain), authority=self._of("SOA"), aa=aa, ra=ra)
            wanted = [each for each in owned if each.type == query.type]
            alias = next((each for each in owned if each.type == "CNAME"), None)
            if wanted or alias is None:
                break
            chain.append(alias)
            name = alias.data
            if not name.endswith(self.origin):
                # The server asks itself for the target, and knows nothing of other zones.
                return reply(query, "NXDOMAIN", answer=tuple(chain), authority=self._of("SOA"), aa=aa, ra=ra)
        if not wanted and not chain:
            return reply(query, authority=self._of("SOA"), aa=aa, ra=ra)
        authority = self._of("NS")
        if query.type == "NS":
            # One CNAME to a name without NS records is answered with the SOA, two are not: as recorded.
            authority = (
                () if query.name.lower() == self.origin else self._of("SOA" if len(chain) == 1 else "NS")
            )
        glue = [
            record
            for each in wanted
            if each.type in ("NS", "MX", "SRV")
            for record in self.records.get(each.target, ())
            if record.type in ("A", "AAAA")
        ]
        answer = (*chain, *wanted)
        return reply(query, answer=answer, authority=authority, additional=tuple(glue), aa=aa, ra=ra)

    def _of(self, kind: str) -> tuple[Record, ...]:
        return tuple(record for record in self.records[self.origin] if record.type == kind)

    def _find(self, name: str, asked: str) -> list[Record] | None:
        if name in self.records:
            return self.records[name]
        if name in self.names:
            return []
        for at in list(_cuts(name))[1:]:
            star = f"*.{name[at:]}"
            if star in self.records:
                return [Record(asked, each.type, each.ttl, each.data) for each in self.records[star]]
            if name[at:] in self.names:
                return None
        return None


def _cuts(name: str) -> list[int]:
    return [0, *(at + 1 for at, char in enumerate(name[:-1]) if char == ".")]
