"""A dump of a large cluster, read and checked: `python -m tests.benchmarks.objects [PODS]`.

10,000 Services and 5,000 Nodes go with 150,000 Pods; fewer Pods have fewer of both.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from kubenet_lab.manifests import read
from kubenet_lab.manifests.load import without_collector
from tests.benchmarks.__main__ import row


def node(number: int) -> dict[str, Any]:
    """A node as its kubelet reports it."""
    cidr = f"10.{number // 256}.{number % 256}.0/24"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"node-{number}", "labels": {"topology.kubernetes.io/zone": "a"}},
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.1.1"}]},
    }


def service(number: int) -> dict[str, Any]:
    """A Service with one port."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"svc-{number}", "namespace": "default"},
        "spec": {
            "selector": {"app": f"a{number}"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    }


def pod(number: int, services: int) -> dict[str, Any]:
    """A running pod, behind one of the Services."""
    container = {
        "name": "web",
        "image": "nginx:1.27",
        "ports": [{"containerPort": 8080, "name": "http", "protocol": "TCP"}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
        "env": [{"name": "A", "value": "b"}],
        "resources": {"requests": {"cpu": "100m"}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"pod-{number}",
            "namespace": "default",
            "labels": {"app": f"a{number % services}", "pod-template-hash": "abc"},
        },
        "spec": {"nodeName": f"node-{number % 5000}", "containers": [container], "dnsPolicy": "ClusterFirst"},
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": "10.244.0.5"}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "web", "ready": True, "image": "nginx:1.27", "restartCount": 0}],
        },
    }


def dump(pods: int, services: int, nodes: int) -> Iterator[dict[str, Any]]:
    """All objects, one at a time."""
    yield from map(node, range(nodes))
    yield from map(service, range(services))
    yield from (pod(number, services) for number in range(pods))


def main(pods: int) -> None:
    """Write the dump, read it, and print what that took."""
    services, nodes = max(1, pods // 15), max(1, pods // 30)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "dump.json"
        with file.open("w") as writer:
            writer.write('{"apiVersion": "v1", "kind": "List", "items": [')
            comma = ""
            for item in dump(pods, services, nodes):
                writer.write(comma + json.dumps(item))
                comma = ",\n"
            writer.write("]}")
        size = file.stat().st_size / 1e6
        begin = time.perf_counter()
        found = read(file)
        took = time.perf_counter() - begin
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        data = file.read_bytes()
        with without_collector():
            begin = time.perf_counter()
            msgspec.json.decode(data)
            parser = time.perf_counter() - begin
    what = f"{pods:,} Pods, {services:,} Services, {nodes:,} Nodes ({size:.0f} MB)"
    row(f"{what}: read and checked", f"{took:.1f} s", "30 s for 150,000 Pods")
    row("of it, the JSON parser alone", f"{100 * parser / took:.0f} %", "")
    row("memory at its peak", f"{memory:.0f} MB", "1,500 MB")
    assert len(found.objects) == pods + services + nodes


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 150_000)
