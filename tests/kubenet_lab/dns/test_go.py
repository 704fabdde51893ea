"""Go's resolver, against what a real Go program sent and printed."""

from __future__ import annotations

import re
from typing import Any

from msgspec.structs import replace

from kubenet_lab.dns.go import getaddrinfo
from kubenet_lab.dns.lookup import Resolution, Unreachable, Via
from kubenet_lab.dns.records import Query, Response
from tests.kubenet_lab.dns.libc import SERVERS, Server, conf_text
from tests.kubenet_lab.dns.test_resolver import HOSTS
from tests.oracles import open_case


class Echo(Server):
    """The recorded server, which echoes the OPT record Go always sends."""

    def send(self, query: Query, server: str, via: Via) -> Response | Unreachable | None:
        answer = super().send(query, server, via)
        return replace(answer, edns=query.edns) if isinstance(answer, Response) else answer


def lines(resolution: Resolution) -> list[str]:
    """Queries as the recording writes them; A and AAAA that were under way together as A|AAAA."""
    out: list[tuple[str, str, str]] = []
    for each in resolution.queries:
        if each.server not in SERVERS or each.rcode == "reset":
            continue
        where = f"{each.protocol} ns{SERVERS.index(each.server)} +{each.at:.1f}"
        partner = (each.name, "A", where)
        if each.type == "AAAA" and partner in out:
            out[len(out) - 1 - out[::-1].index(partner)] = (each.name, "A|AAAA", where)
        else:
            out.append((each.name, each.type, where))
    return [" ".join(each) for each in out]


def apart(queries: list[str]) -> list[tuple[str, float]]:
    out = []
    for line in queries:
        name, kinds, protocol, server, at, *_more = line.split(" ")
        out += [(f"{name} {kind} {protocol} {server}", float(at[1:])) for kind in kinds.split("|")]
    return sorted(out, key=lambda each: (round(each[1]), each[0]))


def same(recorded: list[str], ours: list[str]) -> bool:
    want, got = apart(recorded), apart(ours)
    return [text for text, _ in want] == [text for text, _ in got] and all(
        abs(one - other) < 0.3 for (_, one), (_, other) in zip(want, got, strict=True)
    )


def lottery(row: dict[str, Any]) -> bool:
    """Two runs differed, or which of A and AAAA came last did."""
    varied = (
        "other_run" in row or row.get("servers_vary") or row.get("order_varies") or row.get("queries_vary")
    )
    return bool(varied) or (row["behaviour"] == "refused-aaaa" and "error" in row)


def judge(row: dict[str, Any], inputs: dict[str, Any]) -> str:
    hosts, nss = row.get("hosts_variant"), row.get("nss_variant")
    result = getaddrinfo(
        row["name"],
        conf_text(inputs, row["conf"]),
        Echo(row["behaviour"]).send,
        hosts=inputs["hosts"][hosts] if hosts else HOSTS,
        nsswitch=inputs["nsswitch"][nss] if nss else "hosts: files dns\n",
        family=row.get("family") or "unspec",
    )
    fault = ""
    # Whether a connection that is reset was being written to or read from is a race.
    wanted = row.get("error", "").partition(" | ")[0]
    if wanted.endswith("connection reset by peer"):
        wanted = re.sub(r"(write|dial|read) tcp .*", "connection reset", wanted)
    said = re.sub(r"127.0.0.1:\d{5}->", "127.0.0.1:PORT->", result.text)
    said = re.sub(r"(write|dial|read) tcp .* connection reset by peer", "connection reset", said)
    if row["conf"].startswith("rotate"):
        # Whose answer came last, and so which server is named, is a race.
        wanted, said = (re.sub(r"127.0.0.[123]", "SERVER", text) for text in (wanted, said))
    if wanted != said:
        fault = f"error {wanted!r}, got {said!r}"
    elif list(result.addresses) != row.get("addresses", []):
        fault = f"addresses {row.get('addresses')}, got {result.addresses}"
    elif not same(row["queries"], lines(result)):
        fault = (
            "queries\n    " + "\n    ".join(row["queries"]) + "\n  got\n    " + "\n    ".join(lines(result))
        )
    elif abs(result.seconds - row["seconds"]) > 0.35:
        fault = f"{row['seconds']} s, got {result.seconds}"
    return f"{row['conf']} {row['behaviour']} {row['name']}: {fault}" if fault else ""


def test_every_recorded_lookup() -> None:
    inputs, rows = open_case("dns", "inputs"), open_case("dns", "go")
    rows = [row for row in rows if not lottery(row)]
    wrong = [text for row in rows if (text := judge(row, inputs))]
    assert len(rows) > 1900
    assert not wrong, f"{len(wrong)} of {len(rows)} differ:\n" + "\n".join(wrong[:25])
