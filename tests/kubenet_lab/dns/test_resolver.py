"""glibc's getaddrinfo, against what a real one sent and returned."""

from __future__ import annotations

from typing import Any

import pytest

from kubenet_lab.dns.lookup import Resolution, ResolvConf, Unreachable, Via
from kubenet_lab.dns.records import Query, Response
from kubenet_lab.dns.resolver import getaddrinfo
from kubenet_lab.dns.server.coredns import CoreDNS
from kubenet_lab.dns.server.corefile import KUBEADM
from kubenet_lab.dns.server.view import ServiceView
from tests.kubenet_lab.dns.libc import Server, conf_text, lines, same
from tests.oracles import open_case

HOSTS = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n10.244.9.5 client\n"
CLUSTER = (
    "search default.svc.cluster.local svc.cluster.local cluster.local\n"
    "nameserver 10.96.0.10\noptions ndots:5\n"
)


def lookup(row: dict[str, Any], inputs: dict[str, Any], seed: int) -> tuple[Resolution, list[str]]:
    environment = row.get("env") or {}
    conf = conf_text(inputs, row["conf"])
    nss, hosts = row.get("nss_variant"), row.get("hosts_variant")
    result = getaddrinfo(
        row["name"],
        conf,
        Server(row["behaviour"]).send,
        hosts=inputs["hosts"][hosts] if hosts else HOSTS,
        nsswitch=inputs["nsswitch"][nss] if nss else "hosts: files dns\n",
        host_conf=row.get("hostconf", "multi on\n"),
        family=row.get("family") or "unspec",
        flags=frozenset((row.get("flags") or "-").split(",")) - {"-"},
        environment=environment,
        seed=seed,
    )
    return result, lines(result, ResolvConf.from_text(conf, environment).options)


def difference(row: dict[str, Any], result: Resolution, queries: list[str]) -> str:
    wanted = row.get("error", "").split(" ")[0]
    error = {"HANGS": "TIMEOUT"}.get(result.error, result.error)
    race = bool(row["behaviour"].startswith("tc") or row.get("order_varies"))
    if error != wanted:
        return f"error {wanted!r}, got {error!r}"
    if error and error != "TIMEOUT" and result.message not in row["error"]:
        return f"text {row['error']!r}, got {result.message!r}"
    if list(result.addresses) != row.get("addresses", []):
        return f"addresses {row.get('addresses')}, got {result.addresses}"
    if row.get("canonname", result.canonname) != result.canonname:
        return f"canonical name {row['canonname']}, got {result.canonname}"
    if not same(row["queries"], queries, race):
        return "queries\n    " + "\n    ".join(row["queries"]) + "\n  got\n    " + "\n    ".join(queries)
    if error != "TIMEOUT" and abs(result.seconds - row["seconds"]) > 0.35:
        return f"{row['seconds']} s, got {result.seconds}"
    return ""


def judge(row: dict[str, Any], inputs: dict[str, Any]) -> str:
    """`rotate` begins at a random server: any of the three may have been the recorded one."""
    runs = [
        lookup(row, inputs, seed) for seed in (range(12) if row["conf"].startswith("rotate") else range(1))
    ]
    rows = [row, {**row, **row["other_run"]}] if "other_run" in row else [row]
    found = [difference(each, *run) for each in rows for run in runs]
    return "" if "" in found else f"{row['conf']} {row['behaviour']} {row['name']}: {found[0]}"


def test_every_recorded_lookup() -> None:
    inputs, rows = open_case("dns", "inputs"), open_case("dns", "glibc")
    wrong = [text for row in rows if (text := judge(row, inputs))]
    assert len(rows) > 2000
    assert not wrong, f"{len(wrong)} of {len(rows)} differ:\n" + "\n".join(wrong[:5])


@pytest.fixture
def coredns() -> CoreDNS:
    services = [("backend", "default", "10.96.0.100"), ("database", "production", "10.96.0.101")]
    objects: list[dict[str, Any]] = [
        {"kind": "Namespace", "metadata": {"name": name}} for name in ("default", "production")
    ]
    objects += [
        {
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"clusterIP": ip, "ports": [{"port": 80}]},
        }
        for name, namespace, ip in services
    ]
    return CoreDNS(KUBEADM, ServiceView.from_objects(objects), upstream)


def upstream(query: Query, server: str, protocol: str) -> Response:
    from kubenet_lab.dns.records import Record, reply

    if query.name == "api.github.com." and query.type == "A":
        return reply(query, answer=(Record(query.name, "A", 60, "140.82.121.6"),), ra=True)
    rcode = "NOERROR" if query.name == "api.github.com." else "NXDOMAIN"
    soa = Record(".", "SOA", 86400, "a. b. 1 2 3 4 5")
    return reply(query, rcode, authority=(soa,), ra=True)


@pytest.mark.parametrize(
    ("name", "count", "address"),
    [
        ("backend", 2, "10.96.0.100"),
        ("backend.default", 4, "10.96.0.100"),
        ("database.production", 4, "10.96.0.101"),
        ("backend.default.svc.cluster.local", 8, "10.96.0.100"),
        ("backend.default.svc.cluster.local.", 2, "10.96.0.100"),
        ("api.github.com", 8, "140.82.121.6"),
    ],
)
def test_a_pod_asks_this_often(coredns: CoreDNS, name: str, count: int, address: str) -> None:
    def send(query: Query, server: str, via: Via) -> Response | Unreachable | None:
        return coredns.answer(query, "10.244.1.2", via.now, via.protocol)

    found = getaddrinfo(name, CLUSTER, send)
    assert found.addresses == (address,)
    assert len(found.queries) == count, "\n".join(
        f"{each.type} {each.name} {each.outcome}" for each in found.queries
    )
    assert found.seconds == 0


def test_lost_answers_cost_five_seconds_each(coredns: CoreDNS) -> None:
    """The first packet of each kind is lost: the caller waits the whole timeout, then asks again."""
    lost: set[str] = set()

    def send(query: Query, server: str, via: Via) -> Response | None:
        if query.type not in lost:
            lost.add(query.type)
            return None
        return coredns.answer(query, "10.244.1.2", via.now, via.protocol)

    found = getaddrinfo("backend", CLUSTER, send)
    assert found.addresses == ("10.96.0.100",)
    assert found.seconds == 5.0
    assert [each.outcome for each in found.queries] == ["no answer", "no answer", "10.96.0.100", "NODATA"]
