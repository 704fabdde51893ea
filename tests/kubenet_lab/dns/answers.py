"""Recorded CoreDNS answers held against the model's: one row in, a readable difference or "" out."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from kubenet_lab.dns.message import BadMessage, receive, to_wire
from kubenet_lab.dns.records import Edns, Query, Response
from kubenet_lab.dns.server.coredns import CoreDNS
from kubenet_lab.dns.server.view import ServiceView
from tests.kubenet_lab.dns.recursor import Recursor
from tests.oracles import open_case

SERIAL = 1_700_000_000
OPTIONS = {
    "nsid": (3, b""),
    "ecs": (8, b"\0\1\x18\0\n\1\2"),
    "cookie": (10, b"12345678"),
    "unknown": (65001, b"x"),
}
OPCODES = {"IQUERY": "IQUERY", "STATUS": "STATUS", "NOTIFY": "NOTIFY", "UPDATE": "UPDATE", "DSO": "OPCODE6"}


def server(corefile: str, world: str, resolv_conf: str = "nameserver 10.0.0.53\n") -> CoreDNS:
    """The recorded server: its Corefile over one of the recorded worlds."""
    view = ServiceView.from_objects(open_case("dns", world), SERIAL)
    zones = open_case("dns", "zones")
    recursor = Recursor(zones)
    files = {
        "/etc/resolv.conf": resolv_conf,
        "/etc/autopath.conf": zones["autopath.conf"],
        "/etc/coredns/example.com.zone": zones["example.com.zone"],
    }
    return CoreDNS(corefile, view, recursor.ask, local_ips=("10.244.0.2",), files=files, hostname="vm")


def query_of(row: dict[str, Any]) -> Query:
    """The query of a row as the recording client sent it."""
    asked = row["query"]
    edns = None
    if "edns" in asked:
        options = (OPTIONS[asked["opts"]],) if "opts" in asked else ()
        edns = Edns(asked["edns"], bool(asked.get("do")), asked.get("ednsver", 0), options)
    opcode = asked.get("opcode", "QUERY")
    return Query(
        name=asked["name"], type=asked["type"], id=7, rd=asked.get("rd", 1) == 1, edns=edns,
        cls=asked.get("cls", "IN"),
        opcode=OPCODES.get(opcode, f"OPCODE{opcode}" if opcode.isdigit() else opcode),
        ad=bool(asked.get("ad")), cd=bool(asked.get("cd")),
    )  # fmt: skip


def shown(answer: Response | None) -> dict[str, Any]:
    """An answer in the shape of a recorded one."""
    if answer is None:
        return {"error": "timeout"}
    out: dict[str, Any] = {"rcode": answer.rcode, "flags": answer.flags}
    for section in ("answer", "authority", "additional"):
        records = [_text(str(record)) for record in getattr(answer, section)]
        if records:
            out[section] = sorted(records)
    if answer.edns is not None:
        out["edns"] = {"version": answer.edns.version, "payload": answer.edns.payload, "do": answer.edns.do}
        if answer.edns.options:
            out["edns"]["options"] = [f"{code}:{data.hex()}" for code, data in answer.edns.options]
    out["len"] = len(to_wire(answer))
    assert out["len"] == answer.wire_length, (out["len"], answer.wire_length, str(answer.question))
    return out


def _text(line: str) -> str:
    line = line.replace(f" {SERIAL} ", " SERIAL ")
    soa = "cluster.local. 30 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. SERIAL 7200 1800 86400 30"
    line = line.replace(" SRV 0 0 4711 .", " SRV 0 0 PORT .")
    return "$SOA" if line == soa else line


def _unsendable(query: Query) -> bytes:
    """A query whose name has a label over 63 or more than 255 octets, written all the same."""
    name = b"".join(bytes([len(label)]) + label.encode() for label in query.name.rstrip(".").split("."))
    return to_wire(Query(".", query.type, query.id))[:12] + name + b"\0\0\1\0\1"


class Judge:
    """Asks a server the rows of one world in order, on a clock inferred from the recorded TTLs.

    The recording did not note when a query was sent, and rows that came twice were left out. A cached TTL
    tells both: one that is below its start on the first asking was asked that long before; one that is below
    the model's moves the clock on, never back.
    """

    def __init__(self, server: CoreDNS) -> None:
        self.server = server
        self.now = 100.0

    def difference(self, row: dict[str, Any]) -> str:
        """What differs between the recorded answer and the model's, or ""."""
        want = dict(row["response"])
        asked = row["query"]
        try:
            got = self._on_time(asked, query_of(row), _ttl(want))
        except BadMessage:
            # Such a name cannot be asked in a typed query; in octets the server refuses it.
            got = shown(receive(_unsendable(query_of(row))))  # type: ignore[arg-type]
        for section in ("answer", "additional"):
            # The order of addresses is random by design.
            if section in want:
                want[section] = sorted(want[section])
        if want.pop("truncated_subset", None):
            for section in ("answer", "additional"):
                records = got.pop(section, None)
                if records:
                    got[f"{section}_count"] = len(records)
        want.pop("opcode", None)
        if "len" not in want or row.get("nondeterministic"):
            for each in (want, got):
                each.pop("len", None)
                each.pop("additional_count", None)
        want.pop("seconds", None)
        want.pop("messages", None)
        want.pop("question", None)
        return "" if got == want else f"{asked}\n  want {want}\n  got  {got}"

    def answer(self, row: dict[str, Any]) -> dict[str, Any]:
        """The model's own answer to a row's query, in the shape of a recorded one."""
        return self._ask(query_of(row), row["query"])

    def _on_time(self, asked: dict[str, Any], query: Query, wanted: int | None) -> dict[str, Any]:
        to_wire(query)
        got = self._ask(query, asked)
        if wanted is None or _ttl(got) in (None, wanted):
            return got
        cache = next((plugin for plugin in self.server.servers["."].chain if plugin.name == "cache"), None)
        if cache is None:
            return got
        if (
            max(
                (item.stored for store in (cache.success, cache.denial) for item in store.values()), default=0
            )
            == self.now
        ):
            before = self.now - (_ttl(got) or 0) + wanted
            for store in (cache.success, cache.denial):
                for key in [key for key, item in store.items() if item.stored == self.now]:
                    del store[key]
            self.server.answer(replace(query, name=query.name.lower()), now=before)
            got = self._ask(query, asked)
        start = self.now
        while _ttl(got) != wanted and self.now < start + 31:
            self.now += 0.05
            got = self._ask(query, asked)
        return got

    def _ask(self, query: Query, asked: dict[str, Any]) -> dict[str, Any]:
        client = asked.get("src", "10.244.9.5")
        answer = self.server.answer(query, client, self.now, "tcp" if asked.get("tcp") else "udp", 4711)
        return shown(answer)


def _ttl(response: dict[str, Any]) -> int | None:
    for section in ("answer", "authority"):
        for line in response.get(section, ()):
            return 30 if line == "$SOA" else int(line.split()[1])
    return None
