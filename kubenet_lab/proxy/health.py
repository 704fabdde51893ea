"""What kube-proxy's HTTP servers say: `:10256/healthz` and `/livez`, `:10249`, and a Service's healthCheckNodePort.

Pure functions from what is asked and what is known to a response. A load balancer asks the first or the last of these
before it sends a node traffic (KEP-3836).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from kubenet_lab.clock import START
from kubenet_lab.packet.http import Response

TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"
"""The taint that the cluster autoscaler puts on a node before it takes it away."""


def go_time(seconds: float | None, began: float) -> str:
    """Print a moment as Go prints its `time.Time` (None is never); `began` is when the process started."""
    if seconds is None:
        return "0001-01-01 00:00:00 +0000 UTC"
    moment = START + timedelta(seconds=seconds)
    fraction = f"{moment.microsecond:06d}".rstrip("0")
    since = seconds - began
    return f"{moment:%Y-%m-%d %H:%M:%S}{'.' if fraction else ''}{fraction} +0000 UTC m=+{since:.9f}"


def respond(
    status: int, body: str, now: float, *more: tuple[str, str], kind: str = "application/json"
) -> Response:
    """Return a response with the header fields that Go's server writes, in its order."""
    date = f"{START + timedelta(seconds=now):%a, %d %b %Y %H:%M:%S} GMT"
    own = sorted([("Content-Type", kind), ("X-Content-Type-Options", "nosniff"), *more])
    return Response(status, (*own, ("Date", date), ("Content-Length", str(len(body)))), body)


def not_found(now: float) -> Response:
    """Return what Go's mux answers for any other path."""
    return respond(404, "404 page not found\n", now, kind="text/plain; charset=utf-8")


def healthz(healthy: bool, updated: float | None, began: float, now: float, eligible: bool) -> Response:
    """`/healthz`: whether the rules are up to date and the node is to stay; 503 otherwise."""
    well = healthy and eligible
    last = go_time(now if well else updated, began)
    body = (
        f'{{"lastUpdated": "{last}","currentTime": "{go_time(now, began)}", '
        f'"nodeEligible": {str(eligible).lower()}}}'
    )
    return respond(200 if well else 503, body, now)


def livez(healthy: bool, updated: float | None, began: float, now: float) -> Response:
    """`/livez`: whether the rules are up to date, whatever becomes of the node."""
    last = go_time(now if healthy else updated, began)
    body = f'{{"lastUpdated": "{last}","currentTime": "{go_time(now, began)}"}}'
    return respond(200 if healthy else 503, body, now)


def service_health(namespace: str, name: str, endpoints: int, healthy: bool, now: float) -> Response:
    """A Service's healthCheckNodePort: 200 where the node has ready endpoints of it and kube-proxy is well."""
    body = (
        "{\n"
        '\t"service": {\n'
        f'\t\t"namespace": "{namespace}",\n'
        f'\t\t"name": "{name}"\n'
        "\t},\n"
        f'\t"localEndpoints": {endpoints},\n'
        f'\t"serviceProxyHealthy": {str(healthy).lower()}\n'
        "}"
    )
    weight = ("X-Load-Balancing-Endpoint-Weight", str(endpoints))
    return respond(200 if endpoints and healthy else 503, body, now, weight)


def metrics_server(path: str, mode: str, numbers: Mapping[str, float], now: float) -> Response:
    """`:10249`: /proxyMode, /healthz and /metrics, the latter in Prometheus' text form.

    Only counters and moments are there: how long a sync takes is not modelled.
    """
    if path == "/proxyMode":
        return respond(200, mode, now, kind="text/plain; charset=utf-8")
    if path == "/healthz":
        return respond(200, "ok", now, kind="text/plain; charset=utf-8")
    if path != "/metrics":
        return not_found(now)
    body = "".join(f"{name} {value:.10g}\n" for name, value in sorted(numbers.items()))
    return respond(200, body, now, kind="text/plain; version=0.0.4; charset=utf-8")
