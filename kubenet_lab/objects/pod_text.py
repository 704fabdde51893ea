"""A pod's spec as the API server prints it when an update may not change it.

The server compares its internal form, whose fields carry Go names and are all written, null or not
(`k8s.io/apimachinery/pkg/util/diff`). Parts this model keeps as they were written (volumes, affinity) show the
fields they have.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from typing import Any

import msgspec

from kubenet_lab.objects.meta import Json
from kubenet_lab.objects.pod import PodSpec

Show = Callable[[Any], Any]


def difference(old: PodSpec, new: PodSpec) -> str:
    """The lines that differ, with three lines around them, as `diff -U 3` writes them without its header."""
    before, after = (json.dumps(_pod(spec), indent=1).splitlines(keepends=True) for spec in (old, new))
    lines = list(difflib.unified_diff(before, after, n=3))[2:]
    return "".join(lines)


def _plain(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


def _pod(spec: PodSpec) -> Json:
    given: Json = _plain(spec)
    # These belong to the security context inside the server.
    context = {**(given.get("securityContext") or {})}
    for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace", "hostUsers"):
        if name in given:
            context[name] = given[name]
    return _shown({**given, "securityContext": context}, _POD_SPEC)


def _shown(given: Json, fields: dict[str, tuple[str, Any, Show | None]]) -> Json:
    """The fields in the server's order: its name, then how an absent one and a present one look."""
    shown: Json = {}
    for name, (go, absent, show) in fields.items():
        value = given.get(name)
        shown[go] = absent if value is None else show(value) if show else value
    return shown


def _struct(**fields: tuple[Any, Show | None] | Any) -> dict[str, tuple[str, Any, Show | None]]:
    """A table from API names; the Go name is the same with a capital, `SPELLED` has the others."""
    table = {}
    for name, rule in fields.items():
        absent, show = rule if isinstance(rule, tuple) else (rule, None)
        table[name] = (_SPELLED.get(name, name[0].upper() + name[1:]), absent, show)
    return table


_SPELLED = {
    "dnsPolicy": "DNSPolicy",
    "dnsConfig": "DNSConfig",
    "os": "OS",
    "tty": "TTY",
    "httpGet": "HTTPGet",
    "tcpSocket": "TCPSocket",
    "httpHeaders": "HTTPHeaders",
    "ip": "IP",
    "fsGroup": "FSGroup",
    "fsGroupChangePolicy": "FSGroupChangePolicy",
    "seLinuxOptions": "SELinuxOptions",
    "seLinuxChangePolicy": "SELinuxChangePolicy",
    "grpc": "GRPC",
}


def _as_written(value: Any) -> Any:
    """A part without a table: capitals on its names."""
    if isinstance(value, dict):
        return {
            _SPELLED.get(key, key[:1].upper() + key[1:]): _as_written(item) for key, item in value.items()
        }
    return [_as_written(item) for item in value] if isinstance(value, list) else value


def _one(fields: dict[str, tuple[str, Any, Show | None]]) -> Show:
    return lambda value: _shown(value, fields)


def _many(fields: dict[str, tuple[str, Any, Show | None]]) -> Show:
    return lambda values: [_shown(value, fields) for value in values]


_PORT = _struct(name="", hostPort=0, containerPort=0, protocol="", hostIP="")
_ENV = _struct(name="", value="", valueFrom=(None, _as_written))
_RESOURCES = _struct(limits=None, requests=None, claims=(None, _as_written))
_HEADER = _struct(name="", value="")
_HTTP = _struct(path="", port=0, host="", scheme="", httpHeaders=(None, _many(_HEADER)))
_HANDLER: dict[str, Any] = {
    "exec": (None, _one(_struct(command=None))),
    "httpGet": (None, _one(_HTTP)),
    "tcpSocket": (None, _one(_struct(port=0, host=""))),
}
_PROBE = _struct(
    **_HANDLER,
    grpc=(None, _one(_struct(port=0, service=None))),
    initialDelaySeconds=0,
    timeoutSeconds=0,
    periodSeconds=0,
    successThreshold=0,
    failureThreshold=0,
    terminationGracePeriodSeconds=None,
)
_HOOK = _struct(**_HANDLER, sleep=(None, _one(_struct(seconds=0))))
_LIFECYCLE = _struct(postStart=(None, _one(_HOOK)), preStop=(None, _one(_HOOK)), stopSignal=None)
_CONTAINER = _struct(
    name="",
    image="",
    command=None,
    args=None,
    workingDir="",
    ports=(None, _many(_PORT)),
    envFrom=(None, _as_written),
    env=(None, _many(_ENV)),
    resources=(_shown({}, _RESOURCES), _one(_RESOURCES)),
    resizePolicy=(None, _as_written),
    restartPolicy=None,
    restartPolicyRules=(None, _as_written),
    volumeMounts=(None, _as_written),
    volumeDevices=(None, _as_written),
    livenessProbe=(None, _one(_PROBE)),
    readinessProbe=(None, _one(_PROBE)),
    startupProbe=(None, _one(_PROBE)),
    lifecycle=(None, _one(_LIFECYCLE)),
    terminationMessagePath="",
    terminationMessagePolicy="",
    imagePullPolicy="",
    securityContext=(None, _as_written),
    stdin=False,
    stdinOnce=False,
    tty=False,
)
_SECURITY = _struct(
    hostNetwork=False,
    hostPID=False,
    hostIPC=False,
    shareProcessNamespace=None,
    hostUsers=None,
    seLinuxOptions=(None, _as_written),
    windowsOptions=(None, _as_written),
    runAsUser=None,
    runAsGroup=None,
    runAsNonRoot=None,
    supplementalGroups=None,
    supplementalGroupsPolicy=None,
    fsGroup=None,
    fsGroupChangePolicy=None,
    sysctls=(None, _as_written),
    seccompProfile=(None, _as_written),
    appArmorProfile=(None, _as_written),
    seLinuxChangePolicy=None,
)
_TOLERATION = _struct(key="", operator="", value="", effect="", tolerationSeconds=None)
_DNS = _struct(nameservers=None, searches=None, options=(None, _many(_struct(name="", value=None))))
_POD_SPEC = _struct(
    volumes=(None, _as_written),
    initContainers=(None, _many(_CONTAINER)),
    containers=(None, _many(_CONTAINER)),
    ephemeralContainers=(None, _as_written),
    restartPolicy="",
    terminationGracePeriodSeconds=None,
    activeDeadlineSeconds=None,
    dnsPolicy="",
    nodeSelector=None,
    serviceAccountName="",
    automountServiceAccountToken=None,
    nodeName="",
    securityContext=(None, _one(_SECURITY)),
    imagePullSecrets=(None, _as_written),
    hostname="",
    subdomain="",
    setHostnameAsFQDN=None,
    affinity=(None, _as_written),
    schedulerName="",
    tolerations=(None, _many(_TOLERATION)),
    hostAliases=(None, _many(_struct(ip="", hostnames=None))),
    priorityClassName="",
    priority=None,
    preemptionPolicy=None,
    dnsConfig=(None, _one(_DNS)),
    readinessGates=(None, _many(_struct(conditionType=""))),
    runtimeClassName=None,
    overhead=None,
    enableServiceLinks=None,
    topologySpreadConstraints=(None, _as_written),
    os=(None, _as_written),
    schedulingGates=(None, _as_written),
    resourceClaims=(None, _as_written),
    resources=(None, _one(_RESOURCES)),
    hostnameOverride=None,
)
