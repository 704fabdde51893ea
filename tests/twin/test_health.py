"""kube-proxy's health check asked by a real curl through the kernel: the model's handler answers there too."""

from __future__ import annotations

import pytest

from kubenet_lab import scenarios
from kubenet_lab.twin import Twin, unavailable
from kubenet_lab.walk.http import get

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=unavailable())

LOCAL = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  healthCheckNodePort: 32123
  selector: {app: frontend}
  ports: [{port: 80, targetPort: 8080}]
"""


def test_curl_reads_what_the_model_answers() -> None:
    cluster = scenarios.shop()
    cluster.apply(LOCAL)
    nodes = {"192.168.1.10", "192.168.1.20"}
    wanted = {
        (address, port, path): get(cluster.walk(), "outside", address, port, path)
        for address in nodes
        for port, path in ((10256, "/livez"), (32123, "/"))
    }
    assert sorted(got.status for got in wanted.values()) == [200, 200, 200, 503]
    with Twin(cluster.network) as twin:
        for (address, port, path), got in wanted.items():
            form = "%{http_code} %header{x-load-balancing-endpoint-weight}"
            done = twin.run("outside", f"curl -s -m 5 -o /dev/null -w '{form}' http://{address}:{port}{path}")
            assert got.response is not None
            weight = got.response.field("X-Load-Balancing-Endpoint-Weight")
            assert done.stdout.strip() == f"{got.status} {weight}".strip()
