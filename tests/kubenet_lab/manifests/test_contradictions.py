"""Services and slices that contradict each other: what is warned of, and what kube-proxy makes of them all the same."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kubenet_lab import manifests
from kubenet_lab.manifests.contradictions import contradictions
from kubenet_lab.objects import AnyObject, from_manifest
from kubenet_lab.proxy.render import saved
from tests.kubenet_lab.cli.run import run

NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}


def service(name: str = "web", **spec: object) -> dict[str, object]:
    body = {
        "clusterIP": "10.96.0.7",
        "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80}],
        **spec,
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": body,
    }


def sliced(
    of: str = "web", port: str = "http", kind: str = "IPv4", address: str = "10.244.0.9", namespace: str = "shop",
    node: str = "node-1", protocol: str = "TCP",
) -> dict[str, object]:  # fmt: skip
    labels = {"kubernetes.io/service-name": of} if of else {}
    return {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": f"{of or 'x'}-abc", "namespace": namespace, "labels": labels},
        "addressType": kind, "ports": [{"name": port, "port": 8080, "protocol": protocol}],
        "endpoints": [{"addresses": [address], **({"nodeName": node} if node else {})}],
    }  # fmt: skip


def pod(labels: dict[str, str], port: str = "http") -> dict[str, object]:
    container = {"name": "c", "image": "web", "ports": [{"name": port, "containerPort": 8080}]}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "namespace": "shop", "labels": labels},
        "spec": {"containers": [container]},
    }  # fmt: skip


def deployment(labels: dict[str, str], port: str = "http") -> dict[str, object]:
    template = pod(labels, port)
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"matchLabels": labels},
                 "template": {"metadata": {"labels": labels}, "spec": template["spec"]}},
    }  # fmt: skip


PORT = {"name": "http", "port": 80}

# what, objects, field, part of the message, part of the help, what the rules then do ("" for nothing to look at)
ROWS = [
    ("all is well", [service(), sliced(), NODE], "", "", "", "10.244.0.9:8080"),
    ("a headless Service has no rules", [service(clusterIP="None"), sliced(port="other"), NODE], "", "", "", ""),
    (
        "port names that do not match",
        [service(), sliced(port="htpp"), NODE],
        "spec.ports[0].name",
        "no EndpointSlice of it has a TCP port named 'http'",
        "did you mean 'htpp'?",
        "has no endpoints",
    ),
    (
        "one of them without a name",
        [service(ports=[{"port": 80}]), sliced(), NODE],
        "spec.ports[0].name",
        "named ''",
        "there are: 'http'",
        "has no endpoints",
    ),
    (
        "another protocol",
        [service(ports=[{"name": "http", "port": 80, "protocol": "UDP"}]), sliced(), NODE],
        "spec.ports[0].name",
        "UDP port named 'http'",
        "with protocol TCP",
        "has no endpoints",
    ),
    (
        "addresses of another family",
        [service(), sliced(), sliced(kind="IPv6", address="fd00::9"), NODE],
        "addressType",
        "IPv4 addresses only",
        "PreferDualStack",
        "10.244.0.9:8080",
    ),
    (
        "names instead of addresses",
        [service(), sliced(), sliced(kind="FQDN", address="example.com"), NODE],
        "addressType",
        "passes over slices of type FQDN",
        "ExternalName",
        "10.244.0.9:8080",
    ),
    (
        "an endpoint on a node nobody knows",
        [service(), sliced(node="node-l"), NODE],
        "endpoints[0].nodeName",
        "there is no Node 'node-l'",
        "did you mean 'node-1'?",
        "10.244.0.9:8080",
    ),
    (
        "an endpoint of no node, and a Local policy",
        [service(internalTrafficPolicy="Local"), sliced(node=""), NODE],
        "endpoints[0]",
        "no node takes it for its own",
        "write nodeName",
        "has no local endpoints",
    ),
    (
        "two node ports",
        [service(type="NodePort", ports=[{**PORT, "nodePort": 30080}]), sliced(),
         service("api", clusterIP="10.96.0.8", type="NodePort", ports=[{**PORT, "nodePort": 30080}]),
         sliced("api", address="10.244.0.8"), NODE],
        "spec.ports[0].nodePort",
        "node port 30080/TCP is claimed by Service shop/web too (spec.ports[0].nodePort)",
        "best left out",
        "--dport 30080",
    ),
    (
        "one node port, two protocols",
        [service(type="NodePort", ports=[{**PORT, "nodePort": 30080}]), sliced(),
         service("dns", clusterIP="10.96.0.8", type="NodePort",
                 ports=[{**PORT, "protocol": "UDP", "nodePort": 30080}]),
         sliced("dns", address="10.244.0.8", protocol="UDP"), NODE],
        "", "", "", "-p udp",
    ),
    (
        "one externalIP",
        [service(externalIPs=["198.51.100.7"]), sliced(),
         service("api", clusterIP="10.96.0.8", externalIPs=["198.51.100.7"]), sliced("api"), NODE],
        "spec.externalIPs[0]",
        "198.51.100.7:80/TCP is claimed by Service shop/web too",
        "another port or address",
        "-d 198.51.100.7/32",
    ),
    (
        "one clusterIP",
        [service(), sliced(), service("api"), sliced("api"), NODE],
        "spec.clusterIP",
        "10.96.0.7:80/TCP is claimed by Service shop/web too",
        "",
        "shop/api:http cluster IP",
    ),
    (
        "a health check port that is a node port",
        [service(type="LoadBalancer", externalTrafficPolicy="Local", healthCheckNodePort=30080,
                 ports=[{**PORT, "nodePort": 30080}]), sliced(), NODE],
        "spec.healthCheckNodePort",
        "is claimed by this Service too",
        "",
        "",
    ),
    (
        "a slice without a Service's name",
        [service(), sliced(), sliced(""), NODE],
        "metadata.labels",
        "belongs to no Service",
        "kubernetes.io/service-name: NAME",
        "",
    ),
    (
        "a slice without a Service",
        [service(), sliced(), sliced("wbe"), NODE],
        "metadata.labels[kubernetes.io/service-name]",
        "there is no Service shop/wbe",
        "did you mean 'web'?",
        "",
    ),
    (
        "a slice in another namespace",
        [service(), sliced(), sliced(namespace="default"), NODE],
        "metadata.labels[kubernetes.io/service-name]",
        "there is no Service default/web",
        "there is one in namespace shop",
        "",
    ),
    (
        "neither selector nor slice",
        [service(selector={}), NODE],
        "spec.selector",
        "no EndpointSlice names it: every call is refused",
        "kubernetes.io/service-name: web",
        "has no endpoints",
    ),
    (
        "a selector that matches nothing",
        [service(), pod({"app": "wbe"}), NODE],
        "spec.selector",
        "selects none of the pods",
        "pod web-1 has app: wbe",
        "has no endpoints",
    ),
    (
        "a selector with another key",
        [service(), deployment({"name": "web"}), NODE],
        "spec.selector",
        "selects none of the pods",
        "Deployment web has name: web",
        "",
    ),
    (
        "a targetPort nobody has",
        [service(ports=[{**PORT, "targetPort": "web"}]), deployment({"app": "web"}, "www"), NODE],
        "spec.ports[0].targetPort",
        "no TCP port named 'web'",
        "'www'",
        "has no endpoints",
    ),
    ("a targetPort they have", [service(ports=[{**PORT, "targetPort": "www"}]), pod({"app": "web"}, "www"), NODE],
     "", "", "", ""),
    (
        "a thousand ports",
        [service(ports=[{"name": f"p{n}", "port": n} for n in range(1, 1001)]), pod({"app": "web"}), NODE],
        "spec.ports",
        "1000 ports",
        "no ranges",
        "--dport 1000",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("what", "given", "field", "message", "help", "rule"), ROWS, ids=[row[0] for row in ROWS]
)
def test_what_is_warned_of(
    what: str, given: list[dict[str, object]], field: str, message: str, help: str, rule: str
) -> None:
    objects: list[AnyObject] = [from_manifest(one) for one in given]
    found = contradictions(objects)
    assert [one.field for one in found] == ([field] if field else []), [str(one) for one in found]
    for one in found:
        assert message in one.message
        assert help in one.help
        assert any(one.object is obj for obj in objects)
    lines = "\n".join(saved(objects, "node-1")[4])
    assert rule in lines, lines


def test_many_services_take_no_time() -> None:
    objects = [
        from_manifest(
            service(
                f"s{n}", clusterIP=f"10.{96 + n // 65536}.{n // 256 % 256}.{n % 256}", selector={"n": str(n)}
            )
        )
        for n in range(5000)
    ]
    objects += [from_manifest(pod({"n": str(n)})) for n in range(5000)]
    began = time.perf_counter()
    assert contradictions(objects) == []
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    "words", [("rules", "--node", "node-1", "-f"), ("validate",)], ids=["rules", "validate"]
)
def test_the_commands_tell_them_with_their_place(words: tuple[str, ...], tmp_path: Path) -> None:
    file = tmp_path / "set.yaml"
    file.write_text(manifests.dump([from_manifest(service()), from_manifest(sliced("wbe"))]))
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "service-name" in text)
    done = run(*words, str(file))
    assert done.status == 0, done.err
    assert f"warning: {file}:{line}:" in done.err
    assert "there is no Service shop/wbe" in done.err
    assert "help: did you mean 'web'?" in done.err
    assert "wbe" not in done.text


def test_trace_tells_them_too(tmp_path: Path) -> None:
    file = tmp_path / "set.yaml"
    wrong = {**service(), "metadata": {"name": "web", "namespace": "default"}}
    caller = {
        **pod({"app": "wbe"}),
        "metadata": {"name": "caller", "namespace": "default", "labels": {"app": "wbe"}},
    }
    file.write_text(manifests.dump([from_manifest(wrong), from_manifest(caller)]))
    done = run("trace", "caller", "http://web", "-f", str(file))
    assert done.status == 0, done.err
    assert "spec.selector" in done.err
    assert "pod caller has app: wbe" in done.err
