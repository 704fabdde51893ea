"""musl's getaddrinfo, against what a real one sent and returned."""

from __future__ import annotations

from typing import Any

from kubenet_lab.dns.musl import ERRORS, getaddrinfo
from tests.kubenet_lab.dns.libc import Server, conf_text, lines, same
from tests.kubenet_lab.dns.test_resolver import HOSTS
from tests.oracles import open_case

NOT_MODELLED = {"search-dot": "an empty label is sent as an invalid packet"}


SEVERAL = ("ns3", "ns4", "rotate3", "nosearch+ns", "ns-dead-first", "ns-ipv6-v4")


def lottery(row: dict[str, Any]) -> bool:
    """One of several servers differs, or the first datagram does: the result itself is luck."""
    return row["conf"].startswith(SEVERAL) and row["behaviour"].endswith(("-ns0", "-once"))


def judge(row: dict[str, Any], inputs: dict[str, Any]) -> str:
    hosts = row.get("hosts_variant")
    result = getaddrinfo(
        row["name"],
        conf_text(inputs, row["conf"]),
        Server(row["behaviour"]).send,
        hosts=inputs["hosts"][hosts] if hosts else HOSTS,
        family=row.get("family") or "unspec",
        flags=frozenset((row.get("flags") or "-").split(",")) - {"-"},
    )
    wanted = row.get("error", "").split(" ")[0]
    # Several servers are asked at once, on one socket: what arrives first is a race, and after SERVFAIL even
    # how often each of them is asked again.
    several = row["conf"].startswith(SEVERAL)
    queries = lines(result, frozenset())
    if several and row["behaviour"].startswith("servfail"):
        agree = {line.split(" ")[0] for line in queries} == {line.split(" ")[0] for line in row["queries"]}
    else:
        race = several or row.get("order_varies") or row.get("queries_vary")
        agree = same(row["queries"], queries, bool(race))
    fault = ""
    if result.error != wanted or (wanted and ERRORS[wanted] not in row["error"]):
        fault = f"error {wanted!r}, got {result.error!r}"
    elif list(result.addresses) != row.get("addresses", []):
        fault = f"addresses {row.get('addresses')}, got {result.addresses}"
    elif row.get("canonname", result.canonname) != result.canonname:
        fault = f"canonical name {row['canonname']}, got {result.canonname}"
    elif not agree:
        fault = "queries\n    " + "\n    ".join(row["queries"]) + "\n  got\n    " + "\n    ".join(queries)
    elif abs(result.seconds - row["seconds"]) > 0.35:
        fault = f"{row['seconds']} s, got {result.seconds}"
    return f"{row['conf']} {row['behaviour']} {row['name']}: {fault}" if fault else ""


def test_every_recorded_lookup() -> None:
    inputs, rows = open_case("dns", "inputs"), open_case("dns", "musl")
    rows = [row for row in rows if row["conf"] not in NOT_MODELLED and not lottery(row)]
    wrong = [text for row in rows if (text := judge(row, inputs))]
    assert len(rows) > 2000
    assert not wrong, f"{len(wrong)} of {len(rows)} differ:\n" + "\n".join(wrong[:12])
