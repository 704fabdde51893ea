"""Probes that travel: what breaks on the way takes a pod out of its Services, at the second a kubelet says so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kubenet_lab import Cluster, manifests, scenarios
from kubenet_lab.control import probes
from kubenet_lab.control.probes import FAILURE, LIVENESS, READINESS, STARTUP, SUCCESS, UNKNOWN, Outcome, Probe
from kubenet_lab.control.readiness import ready_seconds
from kubenet_lab.kernel.dialects.iptables import apply
from kubenet_lab.kernel.dump import dump
from kubenet_lab.objects import Container, ContainerPort, EndpointSlice, Pod
from kubenet_lab.objects.pod import PodStatus

WEB = """\
apiVersion: v1
kind: Pod
metadata: {{name: web, labels: {{app: web}}}}
spec:
  nodeName: node-2
  {spec}
  containers:
  - {{name: web, image: nginx, ports: [{ports}], {probes}}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: client}}
spec: {{containers: [{{name: sh, image: busybox}}]}}
"""


def text(probes: str = "", spec: str = "", ports: str = "{name: http, containerPort: 8080}") -> str:
    return WEB.format(probes=probes, spec=spec, ports=ports)


def running(probes: str = "", **more: str) -> Cluster:
    """A world in which the pod has been running for long."""
    return Cluster.from_files(text(probes, **more))


def begun(probes: str = "", **more: str) -> Cluster:
    """A world in which the pod has just been made."""
    cluster = Cluster.from_files("apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n")
    cluster.apply(text(probes, **more))
    return cluster


def is_ready(cluster: Cluster) -> bool:
    return cluster.store.get(Pod, "web").ready


def endpoint_ready(cluster: Cluster) -> bool:
    (found,) = [item for item in cluster.store.list(EndpointSlice) if item.service_name == "web"]
    (endpoint,) = found.endpoints
    assert endpoint.conditions.serving is endpoint.conditions.ready
    return bool(endpoint.conditions.ready)


def in_rules(cluster: Cluster) -> bool:
    return '"default/web ->' in cluster.node("node-1").iptables_save()


def said(cluster: Cluster, reason: str = "Unhealthy") -> list[tuple[float, str]]:
    return [(event.at, event.message) for _, event in cluster.events if event.reason == reason]


def seconds_until(cluster: Cluster, wanted: bool, most: int = 60) -> int:
    for second in range(most + 1):
        if is_ready(cluster) is wanted:
            return second
        cluster.advance(1)
    raise AssertionError(f"not {wanted} after {most} s: {cluster.events}")


def drop(cluster: Cluster, rule: str) -> None:
    space = cluster.network.ns("node-2")
    space.set_iptables(4, apply(space.iptables[4], f"iptables {rule}"))


@pytest.mark.parametrize(
    ("probe", "at"),
    [
        ("{tcpSocket: {port: 8080}}", 30),
        ("{httpGet: {port: http}, periodSeconds: 5}", 15),
        ("{httpGet: {port: 8080}, periodSeconds: 5, failureThreshold: 1}", 5),
        ("{grpc: {port: 8080}, periodSeconds: 7, failureThreshold: 2}", 15),
        # What a kubelet cannot send, or what only the program could answer, changes nothing.
        ("{httpGet: {port: nosuch}, periodSeconds: 1}", None),
        ("{httpGet: {port: 8080, host: web.example}, periodSeconds: 1}", None),
        ("{exec: {command: [cat, /tmp/healthy]}, periodSeconds: 1}", None),
        ("{exec: {command: [sh, -c, exit 1]}, periodSeconds: 4}", 12),
        ("{exec: {command: [/bin/false]}, periodSeconds: 4}", 12),
    ],
)
def test_a_pod_that_does_not_listen_leaves_its_service(probe: str, at: int | None) -> None:
    cluster = running(f"readinessProbe: {probe}")
    fault = cluster.fault("pod-not-listening", pod="web")
    with fault:
        for second in range(1, 41):
            cluster.advance(1)
            expected = at is None or second < at
            assert is_ready(cluster) is expected, (second, cluster.events)
            assert endpoint_ready(cluster) is expected
            assert in_rules(cluster) is expected
    if at is not None:
        (why,) = [c for c in cluster.store.get(Pod, "web").status.conditions if c.type == "Ready"]
        assert (why.status, why.reason) == ("False", "ContainersNotReady")
        assert why.message == "containers with unready status: [web]"
        assert why.last_transition_time == f"2026-01-01T00:00:{at:02}Z"


def test_a_pod_that_listens_again_comes_back() -> None:
    cluster = running("readinessProbe: {httpGet: {port: 8080}, periodSeconds: 2, successThreshold: 3}")
    with cluster.fault("pod-not-listening", pod="web"):
        cluster.advance(7)
        assert not is_ready(cluster)
        assert cluster.connect("client", "http://web").verdict == "refused"
    assert seconds_until(cluster, True) == 5, "at 8, 10 and 12 s"
    assert cluster.connect("client", "http://web").delivered
    assert [at for at, _ in said(cluster)] == [2, 4, 6]


@pytest.mark.parametrize(
    ("probe", "at"),
    [
        ("tcpSocket: {port: 8080}, periodSeconds: 5, timeoutSeconds: 1", 16),
        ("httpGet: {port: 8080}, periodSeconds: 5, timeoutSeconds: 3", 18),
        # The next is sent as soon as the last has timed out, and the one after at its tick.
        ("tcpSocket: {port: 8080}, periodSeconds: 2, timeoutSeconds: 3", 11),
    ],
)
@pytest.mark.parametrize("rule", ["-I OUTPUT -d {ip} -j DROP", "-I INPUT -s {ip} -j DROP"])
def test_a_probe_that_is_dropped_on_its_node_does_the_same(rule: str, probe: str, at: int) -> None:
    cluster = running(f"readinessProbe: {{{probe}}}")
    drop(cluster, rule.format(ip=cluster.pod("web").ips[0]))
    assert seconds_until(cluster, False) == at
    assert not endpoint_ready(cluster)
    # Callers on other nodes never met that rule: the pod is well, and nobody is sent to it.
    assert cluster.connect("node/node-1", f"http://{cluster.pod('web').ips[0]}:8080").delivered
    assert cluster.connect("client", "http://web").verdict == "refused"


@pytest.mark.parametrize(
    ("probe", "refused", "dropped"),
    [
        (
            "tcpSocket: {port: 8080}",
            "dial tcp {ip}:8080: connect: connection refused",
            "dial tcp {ip}:8080: i/o timeout",
        ),
        (
            "httpGet: {port: 8080, path: /healthz}",
            'Get "http://{ip}:8080/healthz": dial tcp {ip}:8080: connect: connection refused',
            'Get "http://{ip}:8080/healthz": context deadline exceeded '
            "(Client.Timeout exceeded while awaiting headers)",
        ),
        (
            "httpGet: {port: 8080, scheme: HTTPS}",
            'Get "https://{ip}:8080/": dial tcp {ip}:8080: connect: connection refused',
            'Get "https://{ip}:8080/": context deadline exceeded '
            "(Client.Timeout exceeded while awaiting headers)",
        ),
        (
            "grpc: {port: 8080}",
            'timeout: failed to connect service "{ip}:8080" within 1s: context deadline exceeded',
            'timeout: failed to connect service "{ip}:8080" within 1s: context deadline exceeded',
        ),
    ],
)
def test_events_say_it_as_the_kubelet_does(probe: str, refused: str, dropped: str) -> None:
    cluster = running(f"readinessProbe: {{{probe}, periodSeconds: 5}}")
    ip = cluster.pod("web").ips[0]
    with cluster.fault("pod-not-listening", pod="web"):
        cluster.advance(7)
    drop(cluster, f"-I OUTPUT -d {ip} -j DROP")
    cluster.advance(5)
    words = [message for _, message in said(cluster)]
    assert words == [f"Readiness probe failed: {line.format(ip=ip)}" for line in (refused, dropped)]


def test_what_cannot_be_sent_is_an_error_and_no_failure() -> None:
    cluster = running("livenessProbe: {httpGet: {port: nosuch}, periodSeconds: 5}")
    cluster.advance(60)
    words = (
        'Liveness probe errored and resulted in unknown state: strconv.Atoi: parsing "nosuch": invalid syntax'
    )
    assert {message for _, message in said(cluster)} == {words}
    assert cluster.store.get(Pod, "web").status.container_statuses[0].restart_count == 0


@pytest.mark.parametrize(
    "probes",
    [
        "",
        "readinessProbe: {tcpSocket: {port: 8080}}",
        "readinessProbe: {tcpSocket: {port: 8080}, initialDelaySeconds: 5}",
        "readinessProbe: {tcpSocket: {port: 8080}, initialDelaySeconds: 11, periodSeconds: 4}",
        "readinessProbe: {tcpSocket: {port: 8080}, initialDelaySeconds: 2, periodSeconds: 2, successThreshold: 3}",
        "startupProbe: {tcpSocket: {port: 8080}, initialDelaySeconds: 20}",
        "readinessProbe: {tcpSocket: {port: 8080}, initialDelaySeconds: 5}, "
        "startupProbe: {tcpSocket: {port: 8080}, initialDelaySeconds: 7, periodSeconds: 7}",
        "readinessProbe: {tcpSocket: {port: 8080}, initialDelaySeconds: 30}, "
        "startupProbe: {tcpSocket: {port: 8080}, initialDelaySeconds: 7}",
    ],
)
def test_a_program_that_answers_is_ready_as_soon_as_its_probes_allow(probes: str) -> None:
    """Two roads to one answer: the probes that were sent, and the forecast from the manifest."""
    cluster = begun(probes)
    assert seconds_until(cluster, True) == ready_seconds(cluster.store.get(Pod, "web"))
    status = cluster.store.get(Pod, "web").status.container_statuses[0]
    assert (status.ready, status.started, status.restart_count) == (True, True, 0)


def test_liveness_waits_for_startup() -> None:
    """A program that never comes up is killed by its startup probe, and liveness is never asked for."""
    cluster = begun(
        "startupProbe: {tcpSocket: {port: 8080}, periodSeconds: 5, failureThreshold: 4}, "
        "livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 1}",
        ports="{containerPort: 9090}",
    )
    cluster.advance(16)
    assert {message.split()[0] for _, message in said(cluster)} == {"Startup"}
    assert [at for at, _ in said(cluster)] == [0, 5, 10, 15]
    assert said(cluster, "Killing") == [(15, "Container web failed startup probe, will be restarted")]


@pytest.mark.parametrize(
    ("ports", "image", "listens"),
    [
        ("", "app", True),
        ("{containerPort: 9090}", "app", False),
        ("{containerPort: 9090, protocol: UDP}", "app", True),
        ("{containerPort: 53}", "coredns/coredns:v1.11.1", True),
    ],
)
def test_where_no_port_is_declared_a_probe_says_where_the_program_listens(
    ports: str, image: str, listens: bool
) -> None:
    probe = "readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}"
    cluster = Cluster.from_files(text(probe, ports=ports).replace("image: nginx", f"image: '{image}'"))
    cluster.advance(10)
    assert is_ready(cluster) is listens
    assert cluster.connect("client", f"tcp://{cluster.pod('web').ips[0]}:8080").delivered is listens


def test_a_dumped_pod_that_is_ready_listens_where_it_is_probed() -> None:
    """Somebody has seen its probes succeed, though its manifest does not declare their port."""
    probes = "{tcpSocket: {port: 8081}, periodSeconds: 1}"
    objects = [
        replace(obj, status=PodStatus(phase="Running")).with_status(ready=True)
        if isinstance(obj, Pod) and obj.name == "web"
        else obj
        for obj in manifests.load(text(f"readinessProbe: {probes}, livenessProbe: {probes}"))
    ]
    cluster = Cluster.from_objects(objects)
    cluster.advance(30)
    assert is_ready(cluster)
    assert cluster.events == []


def test_a_pod_of_the_nodes_network_is_probed_at_the_nodes_address() -> None:
    cluster = running("readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}", spec="hostNetwork: true")
    cluster.advance(5)
    assert is_ready(cluster)
    drop(cluster, "-I INPUT -i lo -p tcp --dport 8080 -j DROP")
    cluster.advance(5)
    assert not is_ready(cluster)
    assert said(cluster)[0][1].startswith('Readiness probe failed: Get "http://192.168.1.20:8080/":')


def test_while_no_time_passes_no_probe_is_sent() -> None:
    cluster = running("readinessProbe: {httpGet: {port: 8080}}, livenessProbe: {tcpSocket: {port: 8080}}")
    before = dump(cluster.network)
    with cluster.fault("pod-not-listening", pod="web"):
        for _ in range(3):
            cluster.settle()
        assert is_ready(cluster)
    assert dump(cluster.network) == before
    assert cluster.events == []


def test_the_shop_has_no_probes() -> None:
    shop = scenarios.shop()
    before, version = dump(shop.network), shop.store.version
    shop.advance(3600)
    assert (dump(shop.network), shop.store.version, shop.events) == (before, version, [])


def test_probes_do_not_fill_the_tables_of_their_node() -> None:
    """Their connections are closed: TIME_WAIT, and gone after two minutes."""
    cluster = running("readinessProbe: {httpGet: {port: 8080}, periodSeconds: 10}")
    cluster.advance(600)
    flows = cluster.network.ns("node-2").conntrack.flows.values()
    assert {flow.state for flow in flows} == {"TIME_WAIT"}
    assert max(flow.expires for flow in flows) == cluster.now + 120


def test_probes_leave_the_draws_of_calls_alone() -> None:
    """One seed gives one world, whether or not kubelets were busy meanwhile."""

    def servers(probe: str) -> list[str | None]:
        more = text(probe).replace("name: web,", "name: web2,").replace("node-2", "node-3")
        cluster = Cluster.from_files(text(probe), more.partition("---")[0])
        cluster.advance(30)
        return [cluster.connect("client", "http://web").server for _ in range(12)]

    assert len({*servers("")}) == 2
    assert servers("") == servers("readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}")


def test_long_steps_and_short_ones_end_alike() -> None:
    probes = (
        "readinessProbe: {httpGet: {port: 8080}, periodSeconds: 3}, "
        "livenessProbe: {tcpSocket: {port: 8080}, periodSeconds: 4, timeoutSeconds: 2}"
    )
    long, short = (running(probes) for _ in range(2))
    for cluster in (long, short):
        drop(cluster, f"-I OUTPUT -d {cluster.pod('web').ips[0]} -j DROP")
    long.advance(200)
    for _ in range(800):
        short.advance(0.25)
    assert long.store.list("Pod") == short.store.list("Pod")
    assert long.store.list("EndpointSlice") == short.store.list("EndpointSlice")
    assert long.events == short.events
    assert any(event.reason == "Killing" for _, event in long.events)


def test_a_refused_change_leaves_the_counts_of_probes_as_they_were() -> None:
    cluster, twin = (
        running("readinessProbe: {httpGet: {port: 8080}, periodSeconds: 2, failureThreshold: 4}")
        for _ in range(2)
    )
    with cluster.fault("pod-not-listening", pod="web"), twin.fault("pod-not-listening", pod="web"):
        for second in range(12):
            cluster.advance(1)
            twin.advance(1)
            with pytest.raises(Exception, match="already allocated"):
                cluster.apply(
                    "apiVersion: v1\nkind: Service\nmetadata: {name: b}\n"
                    f"spec: {{clusterIP: {cluster.store.get('Service', 'web', 'default').addresses[0]}, "
                    "ports: [{port: 80}]}\n"
                )
            assert is_ready(cluster) is is_ready(twin) is (second < 7)
    assert cluster.events == twin.events


def container(**probes: Any) -> Container:
    return Container(name="c", ports=(ContainerPort(container_port=80, name="http"),), **probes)


@pytest.mark.parametrize(
    ("body", "probe"),
    [
        ({"tcpSocket": {"port": 80}}, Probe(READINESS, "tcpSocket", 80)),
        ({"httpGet": {"port": "http"}}, Probe(READINESS, "httpGet", 80)),
        (
            {"httpGet": {"port": 1, "path": "ok", "scheme": "HTTPS", "host": "10.0.0.1"}},
            Probe(READINESS, "httpGet", 1, "10.0.0.1", "/ok", "https"),
        ),
        ({"exec": {"command": ["true"]}}, Probe(READINESS, "exec", command=("true",))),
        (
            {
                "grpc": {"port": 9},
                "initialDelaySeconds": 1,
                "periodSeconds": 2,
                "timeoutSeconds": 3,
                "successThreshold": 4,
                "failureThreshold": 5,
                "terminationGracePeriodSeconds": 0,
            },
            replace(
                Probe(READINESS, "grpc", 9),
                initial_delay=1,
                period=2,
                timeout=3,
                success_threshold=4,
                failure_threshold=5,
                grace=0,
            ),
        ),
    ],
)
def test_a_probe_is_read_with_its_defaults(body: dict[str, Any], probe: Probe) -> None:
    assert probes.probes_of(container(readiness_probe=body)) == (probe,)


@given(st.lists(st.sampled_from([SUCCESS, FAILURE, UNKNOWN])), st.integers(1, 4), st.integers(1, 4))
def test_a_result_changes_after_as_many_equal_outcomes_as_its_threshold(
    outcomes: list[str], good: int, bad: int
) -> None:
    worker = probes.fresh(
        Probe(READINESS, "tcpSocket", 1, success_threshold=good, failure_threshold=bad), 0.0
    )
    known: list[str] = []
    result = FAILURE
    for outcome in outcomes:
        worker = probes.judged(worker, Outcome(outcome))
        # An error is as if nothing had been sent.
        known += [outcome] if outcome != UNKNOWN else []
        for wanted, count in ((SUCCESS, good), (FAILURE, bad)):
            if known[-count:] == [wanted] * count:
                result = wanted
        assert worker.result == result


@pytest.mark.parametrize("kind", [STARTUP, LIVENESS])
def test_a_probe_that_ends_its_container_waits_for_the_next_one(kind: str) -> None:
    worker = probes.fresh(Probe(kind, "tcpSocket", 1, failure_threshold=2, period=10), 0.0)
    for _ in range(2):
        worker = probes.ticked(probes.judged(worker, Outcome(FAILURE)), worker.tick, worker.tick)
    assert (worker.result, worker.due) == (FAILURE, float("inf"))
    again = probes.restarted(worker, 33.0)
    assert (again.result, again.due) == (probes.INITIAL[kind], 40.0), "it keeps its ticks"
    assert probes.judged(again, Outcome(FAILURE)).result == probes.INITIAL[kind], "it counts from the start"
