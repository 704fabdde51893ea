"""CoreDNS in a running cluster over time: the API cut, replicas that hang, lost packets, little memory."""

from __future__ import annotations

from collections import Counter

import pytest

from kubenet_lab import manifests, scenarios
from kubenet_lab.cluster import COREDNS, Cluster
from kubenet_lab.control import Settings
from kubenet_lab.dns.client import Lookup, lookup
from kubenet_lab.dns.records import Query
from kubenet_lab.dns.server import memory
from kubenet_lab.scenarios.shop import MANIFEST
from kubenet_lab.walk.http import get

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: late}
spec: {clusterIP: 10.96.0.77, ports: [{port: 80}]}
"""
PROBES = """
        livenessProbe: {httpGet: {path: /health, port: 8080}, initialDelaySeconds: 60, failureThreshold: 5}
        readinessProbe: {httpGet: {path: /ready, port: 8181}}
"""


@pytest.fixture
def shop() -> Cluster:
    return scenarios.shop()


def probed(**options: object) -> Cluster:
    """A cluster whose CoreDNS is probed as kubeadm has it."""
    text = COREDNS.read_text()
    image = "        image: coredns/coredns:1.15.0\n"
    assert image in text
    early = SERVICE.replace("late", "early").replace(".77", ".78")
    given = [*manifests.load(text.replace(image, image + PROBES)), *manifests.load(MANIFEST, early)]
    return Cluster.from_objects(given, **options)  # type: ignore[arg-type]


def replicas(cluster: Cluster) -> list[str]:
    return sorted(cluster.core_dns.running)


def ask(cluster: Cluster, pod: str, name: str) -> str:
    """The rcode of a replica's answer, "" for silence."""
    process = cluster.core_dns.running[pod].process
    if process is None or not process.serving:
        return ""
    answer = process.server.answer(Query(f"{name}.default.svc.cluster.local."), now=cluster.now)
    return answer.rcode if answer is not None else ""


def look_up(cluster: Cluster, name: str, pod: str = "frontend", libc: str = "glibc") -> Lookup:
    return lookup(cluster.walk(), cluster.network.ns(cluster.namespace_of(pod)), name, libc)


def waited(found: Lookup) -> float:
    assert found.resolution is not None
    return found.resolution.seconds


def curl(cluster: Cluster, pod: str, port: int, path: str) -> tuple[int, str]:
    got = get(cluster.walk(), "node-1", cluster.pod(pod).ips[0], port, path)
    return got.status, got.response.body if got.response is not None else got.exchange.verdict


def test_http_of_a_coredns_pod() -> None:
    cluster = probed()
    pod = replicas(cluster)[0]
    assert curl(cluster, pod, 8080, "/health") == (200, "OK")
    assert curl(cluster, pod, 8181, "/ready") == (200, "OK")
    status, text = curl(cluster, pod, 9153, "/metrics")
    assert status == 200
    assert "coredns_dns_requests_total" in text


def test_an_api_cut_shows_after_a_restart() -> None:
    """What is known stays known, what is new is NXDOMAIN; a replica that restarts says SERVFAIL and is never ready."""
    cluster = probed()
    first, second = replicas(cluster)
    with cluster.fault("coredns-without-api"):
        cluster.apply(SERVICE)
        assert (ask(cluster, first, "early"), ask(cluster, first, "late")) == ("NOERROR", "NXDOMAIN")
        cluster.advance(30)
        cluster.crash(first)
        cluster.advance(3)
        assert ask(cluster, first, "early") == ""
        assert curl(cluster, first, 8181, "/ready") == (503, "kubernetes")
        assert curl(cluster, first, 8080, "/health") == (200, "OK")
        cluster.advance(5)
        assert ask(cluster, first, "early") == "SERVFAIL"
        assert not cluster.pod(first).ready
        assert (ask(cluster, second, "early"), cluster.pod(second).ready) == ("NOERROR", True)
        # The Service leads to the other replica alone, so that nobody meets the SERVFAIL.
        assert [look_up(cluster, "early").failure for _ in range(4)] == [""] * 4
        cluster.advance(5)
        words = [event.message for pod, event in cluster.events if pod == first]
        assert "Readiness probe failed: HTTP probe failed with statuscode: 503" in words
    assert (ask(cluster, first, "late"), ask(cluster, second, "late")) == ("NOERROR", "NOERROR")
    cluster.advance(15)
    assert cluster.pod(first).ready


def test_one_replica_may_be_cut_off_alone(shop: Cluster) -> None:
    first, second = replicas(shop)
    with shop.fault("coredns-without-api", pod=first):
        shop.apply(SERVICE)
        assert (ask(shop, first, "late"), ask(shop, second, "late")) == ("NXDOMAIN", "NOERROR")
    assert ask(shop, first, "late") == "NOERROR"


def test_a_watch_that_lags() -> None:
    cluster = scenarios.shop(settings=Settings(coredns_watch_seconds=2.0))
    pod = replicas(cluster)[0]
    cluster.advance(10)
    cluster.apply(SERVICE)
    cluster.advance(1.5)
    assert ask(cluster, pod, "late") == "NXDOMAIN"
    cluster.advance(1.0)
    assert ask(cluster, pod, "late") == "NOERROR"


def test_a_deleted_replica_serves_on_for_five_seconds(shop: Cluster) -> None:
    """Lameduck: it is out of the Service at once, and answers who asks it still."""
    pod = replicas(shop)[0]
    address = shop.pod(pod).ips[0]
    shop.delete("Pod", pod.partition("/")[2], "kube-system")
    shop.advance(4)
    assert pod in replicas(shop)
    slices = [s for s in shop.store.list("EndpointSlice", "kube-system") if s.name.startswith("kube-dns")]
    ends = {a: e.conditions for s in slices for e in s.endpoints for a in e.addresses}
    assert ends[address].ready is False
    assert ask(shop, pod, "backend") == "NOERROR"
    assert shop.core_dns.running[pod].process.draining is not None  # type: ignore[union-attr]
    shop.advance(2)
    assert pod not in replicas(shop)
    assert len(replicas(shop)) == 2


def test_one_silent_replica_of_two_delays_half_of_the_first_tries(shop: Cluster) -> None:
    """A query meets the silent one with 1/2; glibc's next try goes by a new socket only when it was refused."""
    first = Counter(round(waited(look_up(shop, "backend"))) for _ in range(40))
    assert set(first) == {0}
    with shop.fault("coredns-replica-silent"):
        times = []
        for _ in range(60):
            times.append(round(waited(look_up(shop, "backend"))))
            shop.advance(31)
    share = sum(1 for each in times if each >= 5) / len(times)
    assert 0.3 < share < 0.7, Counter(times)
    assert set(times) <= {0, 5, 10, 15, 20}


def test_an_upstream_that_is_slow_or_dead(shop: Cluster) -> None:
    with shop.fault("upstream-dns-silent", seconds=0.4):
        found = look_up(shop, "example.com")
        assert found.addresses
        assert 0.4 <= waited(found) < 2.0
    shop.advance(40)
    with shop.fault("upstream-dns-silent"):
        assert look_up(shop, "backend").addresses
        assert look_up(shop, "example.com").failure in ("dns-failure", "dns-timeout")
    shop.advance(60)
    assert look_up(shop, "example.com").addresses


def test_lost_packets_cost_five_seconds_each(shop: Cluster) -> None:
    with shop.fault("dns-packets-lost", share=0.3):
        times = []
        for _ in range(60):
            times.append(round(waited(look_up(shop, "backend"))))
            shop.advance(31)
    slow = sum(1 for each in times if each >= 5) / len(times)
    # Either of two queries is lost with 0.3: one lookup in two waits.
    assert 0.3 < slow < 0.75, Counter(times)
    assert waited(look_up(shop, "backend")) == 0


RACES = [
    # kernel, libc, options, seconds
    ("drop", "glibc", "", {5.0}),
    ("drop", "glibc", " single-request-reopen", {0.0}),
    ("drop", "glibc", " single-request", {0.0}),
    ("drop", "musl", "", {2.5}),
    ("drop", "go", "", {0.0}),
    ("merge", "glibc", "", {0.0, 5.0}),
    ("insert", "glibc", "", {0.0}),
]


@pytest.mark.parametrize(("kernel", "libc", "options", "seconds"), RACES)
def test_the_five_seconds(shop: Cluster, kernel: str, libc: str, options: str, seconds: set[float]) -> None:
    files = shop.network.ns(shop.namespace_of("frontend")).files
    files["/etc/resolv.conf"] = files["/etc/resolv.conf"].replace("ndots:5", f"ndots:5{options}")
    got = set()
    with shop.fault("parallel-queries-race", kernel=kernel):
        for _ in range(8):
            found = look_up(shop, "backend", libc=libc)
            assert found.addresses == ("10.96.0.100",)
            got.add(waited(found))
            shop.advance(40)
    assert got == seconds


def test_nodelocal_dns_cache_ends_the_race() -> None:
    cluster = scenarios.shop()
    cluster.apply(COREDNS.with_name("nodelocaldns.yaml"))
    with cluster.fault("parallel-queries-race"):
        assert waited(look_up(cluster, "backend")) == 0


def test_a_changed_corefile_arrives_with_the_volume_and_the_next_look(shop: Cluster) -> None:
    shop.advance(10)
    pod = replicas(shop)[0]
    conf = shop.store.get("ConfigMap", "coredns", "kube-system")
    text = conf.data["Corefile"].replace("ttl 30", "ttl 7")
    shop.apply_objects([conf.__class__(metadata=conf.metadata, data={"Corefile": text})])

    def ttl() -> int:
        answer = shop.dns[pod].answer(Query("backend.default.svc.cluster.local."), now=shop.now)
        assert answer is not None
        return answer.answer[0].ttl

    assert ttl() == 30
    # A minute for the kubelet, and at most 37.5 s until `reload` looks.
    shop.advance(98)
    assert ttl() == 7
    assert "[INFO] Reloading complete" in shop.dns[pod].log


def test_a_corefile_it_refuses_ends_the_container() -> None:
    text = COREDNS.read_text().replace("        loop\n", "        lop\n")
    cluster = Cluster.from_objects(manifests.load(text))
    pod = replicas(cluster)[0]
    status = cluster.pod(pod).status.container_statuses[0]
    assert status.state["terminated"]["exitCode"] == 1
    assert "Unknown directive 'lop'" in cluster.core_dns.running[pod].log[-1]
    cluster.advance(30)
    assert cluster.pod(pod).status.container_statuses[0].restart_count >= 1
    assert not cluster.pod(pod).ready


def test_memory_after_the_makers_formula() -> None:
    assert memory.megabytes(150_000, 8_200) == pytest.approx(158.2 + 54)
    assert memory.megabytes(150_000, 8_200, autopath=True) == pytest.approx(158_200 / 250 + 56)
    assert memory.megabytes(0, 0, cache_filled=0, queries_per_second=0) == 19
    assert memory.octets("170Mi") == 170 * 2**20


def test_a_limit_kills_all_replicas_one_after_the_other() -> None:
    """OOMKilled: what they need grows with load and objects, and nobody is told before."""
    limited = COREDNS.read_text().replace(
        "        image: coredns/coredns:1.15.0\n",
        "        image: coredns/coredns:1.15.0\n        resources: {limits: {memory: 23M}}\n",
    )
    cluster = Cluster.from_objects(manifests.load(limited))
    cluster.advance(20)
    assert all(cluster.core_dns.memory(pod) < 23 for pod in replicas(cluster))
    pod = replicas(cluster)[0]
    cluster.core_dns.load[pod] = 30_000
    cluster.advance(1)
    state = cluster.pod(pod).status.container_statuses[0].state
    assert (state["terminated"]["reason"], state["terminated"]["exitCode"]) == ("OOMKilled", 137)
    cluster.core_dns.load.clear()
    cluster.advance(30)
    assert "running" in cluster.pod(pod).status.container_statuses[0].state
    assert cluster.core_dns.running[pod].process is not None
