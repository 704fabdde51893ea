"""Names in the kernel: real resolvers in a pod ask our CoreDNS through the Service's address, and tcpdump counts."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kubenet_lab import scenarios
from kubenet_lab.cluster import Cluster
from kubenet_lab.dns.client import lookup
from kubenet_lab.twin import Twin

PRODUCTION = """
apiVersion: v1
kind: Namespace
metadata: {name: production}
---
apiVersion: v1
kind: Service
metadata: {name: database, namespace: production}
spec: {clusterIP: 10.96.0.201, ports: [{port: 5432}]}
"""
NAMES = {
    "backend": 2,
    "backend.default": 4,
    "backend.default.svc.cluster.local": 8,
    "backend.default.svc.cluster.local.": 2,
    "database": 2,
    "database.production": 4,
    "database.production.svc.cluster.local.": 2,
    "api.github.com": 8,
    "api.github.com.": 2,
    "nosuch": 8,
    "10.96.0.100": 0,
    "localhost": 0,
}
"""The seed's names and their kin, and how many queries glibc sends for each from namespace `default`."""

ASKING = re.compile(r" > \S+\.53: \d+\+? (?:\[\S+\] )?(A|AAAA)\? (\S+) ")


@contextmanager
def capture(twin: Twin, pod: str) -> Iterator[Path]:
    """`tcpdump -ni eth0 udp dst port 53` in a pod, entered from outside: it gives root away, which root of a user
    namespace cannot.
    """
    if os.getuid():
        pytest.skip("tcpdump needs this machine's root")
    inside = f"/proc/{twin.pid}/root/run/netns/{twin.plan.netns[twin.find(pod)]}"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "packets"
        command = ["nsenter", f"--net={inside}", "tcpdump", "-Z", "root", "-lni", "eth0", "udp dst port 53"]
        with (
            out.open("w") as file,
            subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, text=True) as watcher,
        ):
            assert watcher.stderr is not None
            assert any("listening on" in line for line in watcher.stderr)
            yield out
            watcher.terminate()


@pytest.fixture(scope="module")
def shop() -> Cluster:
    made = scenarios.shop()
    made.apply(PRODUCTION)
    return made


@pytest.fixture(scope="module")
def kernel_shop(kernel: None, shop: Cluster) -> Iterator[tuple[Twin, str]]:
    with Twin(shop.network, strict=False) as twin:
        yield twin, shop.namespace_of("frontend")


def test_the_queries_on_the_wire_are_the_models(shop: Cluster, kernel_shop: tuple[Twin, str]) -> None:
    """One getaddrinfo for each name, as curl and every libc program does it; tcpdump in the pod sees the queries."""
    twin, pod = kernel_shop
    ask = (
        "import socket, sys\n"
        "for name in sys.argv[1:]:\n"
        "    try: print(name, socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)[0][4][0])\n"
        "    except OSError as error: print(name, error.args[0])\n"
    )
    with capture(twin, pod) as packets:
        printed = twin.run(pod, f"python3 -c '{ask}' {' '.join(NAMES)}").stdout
        time.sleep(0.3)
        seen = [(name, kind) for kind, name in ASKING.findall(packets.read_text())]
    answers = dict(line.split() for line in printed.splitlines())
    ns = shop.network.ns(pod)
    expected: list[tuple[str, str]] = []
    for name, count in NAMES.items():
        found = lookup(shop.walk(), ns, name)
        assert len(found.queries) == count, name
        expected += [(query.name, query.type) for query in found.queries]
        assert answers[name] == (found.addresses[0] if found.addresses else "-2"), name
    assert seen == expected
    assert len(seen) == sum(NAMES.values())


def test_dig_getent_and_curl_get_the_models_answers(kernel_shop: tuple[Twin, str]) -> None:
    twin, pod = kernel_shop
    assert twin.run(pod, "getent hosts database.production").stdout.split() == [
        "10.96.0.201",
        "database.production.svc.cluster.local",
    ]
    assert twin.run(pod, "dig +short +search backend.default").stdout == "10.96.0.100\n"
    long = twin.run(pod, "dig +tcp backend.default.svc.cluster.local").stdout
    assert "status: NOERROR" in long
    assert "SERVER: 10.96.0.10#53(10.96.0.10) (TCP)" in long
    assert "status: NXDOMAIN" in twin.run(pod, "dig nosuch.default.svc.cluster.local").stdout
    assert "hello" in twin.run(pod, "curl -s --max-time 5 http://backend").stdout
    refused = twin.run(pod, "curl -sS --max-time 5 http://nosuch")
    assert (refused.exit_code, refused.stderr) == (6, "curl: (6) Could not resolve host: nosuch\n")


def test_curl_reads_coredns_health(shop: Cluster, kernel_shop: tuple[Twin, str]) -> None:
    twin, _ = kernel_shop
    replica = shop.pod(min(shop.core_dns.running)).ips[0]
    text = twin.run("node-1", f"curl -s --max-time 5 http://{replica}:9153/metrics").stdout
    assert "coredns_dns_requests_total{" in text
