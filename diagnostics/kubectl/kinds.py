"""The kinds `get` knows, each with its names and printer columns."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple

from diagnostics.kubectl.table import age

Object = dict[str, Any]
Cell = Callable[[Object, float], object]
NONE = "<none>"


class Column(NamedTuple):
    """One printer column; `wide` ones are shown by `-o wide` only."""

    name: str
    cell: Cell
    wide: bool = False


class Kind(NamedTuple):
    """A kind with the names it goes by."""

    kind: str
    resource: str
    short: tuple[str, ...]
    namespaced: bool
    api_version: str
    columns: tuple[Column, ...]

    @property
    def full_name(self) -> str:
        """Return "pod" or "deployment.apps", as `-o name` begins."""
        group = self.api_version.rpartition("/")[0]
        return f"{self.kind.lower()}.{group}" if group else self.kind.lower()


def _age_of(text: str | None, now: float) -> str:
    if not text:
        return "<unknown>"
    return age(now - datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def _age(item: Object, now: float) -> str:
    return _age_of(item["metadata"].get("creationTimestamp"), now)


def _name(item: Object, now: float) -> str:
    return str(item["metadata"]["name"])


def _status(item: Object) -> Object:
    return item.get("status") or {}


def _spec(item: Object) -> Object:
    return item.get("spec") or {}


# -- pods ----------------------------------------------------------------------------------------------------


def _is_sidecar(item: Object, name: str) -> bool:
    return any(
        c.get("name") == name and c.get("restartPolicy") == "Always"
        for c in _spec(item).get("initContainers") or []
    )


class PodState(NamedTuple):
    """What the printer works out of a pod's containers."""

    reason: str
    ready: int
    total: int
    restarts: int
    last_restart: str


def pod_state(item: Object) -> PodState:
    """Return a pod's STATUS, READY and RESTARTS (printers.go, printPod)."""
    status, spec = _status(item), _spec(item)
    reason = str(status.get("reason") or status.get("phase") or "")
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    total = len(spec.get("containers") or [])
    inits = spec.get("initContainers") or []
    total += sum(1 for c in inits if c.get("restartPolicy") == "Always")
    restarts, sidecar_restarts, last, ready = 0, 0, "", 0
    initializing = False
    for at, container in enumerate(status.get("initContainerStatuses") or []):
        restarts += container.get("restartCount", 0)
        last = max(last, _finished(container))
        sidecar = _is_sidecar(item, container.get("name", ""))
        if sidecar:
            sidecar_restarts += container.get("restartCount", 0)
        state = container.get("state") or {}
        ended, waiting = state.get("terminated"), state.get("waiting")
        if ended is not None and ended.get("exitCode", 0) == 0:
            continue
        if sidecar and container.get("started"):
            ready += 1 if container.get("ready") else 0
            continue
        initializing = True
        if ended is not None:
            reason = "Init:" + (ended.get("reason") or _exit(ended))
        elif waiting is not None and waiting.get("reason") and waiting["reason"] != "PodInitializing":
            reason = "Init:" + waiting["reason"]
        else:
            reason = f"Init:{at}/{len(inits)}"
        break
    initialized = any(
        c.get("type") == "Initialized" and c.get("status") == "True" for c in status.get("conditions") or []
    )
    if not initializing or initialized:
        restarts, running = sidecar_restarts, False
        for container in reversed(status.get("containerStatuses") or []):
            restarts += container.get("restartCount", 0)
            last = max(last, _finished(container))
            state = container.get("state") or {}
            ended, waiting = state.get("terminated"), state.get("waiting")
            if waiting is not None and waiting.get("reason"):
                reason = waiting["reason"]
            elif ended is not None:
                reason = ended.get("reason") or _exit(ended)
            elif container.get("ready") and state.get("running") is not None:
                running = True
                ready += 1
        if reason == "Completed" and running:
            is_ready = any(
                c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or []
            )
            reason = "Running" if is_ready else "NotReady"
    if item["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ("Failed", "Succeeded"):
            reason = "Terminating"
    return PodState(reason, ready, total, restarts, last)


def _finished(container: Object) -> str:
    ended = (container.get("lastState") or {}).get("terminated") or {}
    return str(ended.get("finishedAt") or "")


def _exit(ended: Object) -> str:
    return f"Signal:{ended['signal']}" if ended.get("signal") else f"ExitCode:{ended.get('exitCode', 0)}"


def _restarts(item: Object, now: float) -> str:
    state = pod_state(item)
    if state.restarts and state.last_restart:
        return f"{state.restarts} ({_age_of(state.last_restart, now)} ago)"
    return str(state.restarts)


def _pod_ip(item: Object, now: float) -> str:
    addresses = _status(item).get("podIPs") or []
    return str(addresses[0]["ip"]) if addresses else NONE


def _gates(item: Object, now: float) -> str:
    gates = _spec(item).get("readinessGates") or []
    if not gates:
        return NONE
    true = {c["type"] for c in _status(item).get("conditions") or [] if c.get("status") == "True"}
    return f"{sum(gate.get('conditionType') in true for gate in gates)}/{len(gates)}"


POD = Kind(
    "Pod",
    "pods",
    ("po",),
    True,
    "v1",
    (
        Column("Name", _name),
        Column("Ready", lambda item, now: "{0.ready}/{0.total}".format(pod_state(item))),
        Column("Status", lambda item, now: pod_state(item).reason),
        Column("Restarts", _restarts),
        Column("Age", _age),
        Column("IP", _pod_ip, True),
        Column("Node", lambda item, now: _spec(item).get("nodeName") or NONE, True),
        Column("Nominated Node", lambda item, now: _status(item).get("nominatedNodeName") or NONE, True),
        Column("Readiness Gates", _gates, True),
    ),
)

# -- services ------------------------------------------------------------------------------------------------


def _cluster_ip(item: Object, now: float) -> str:
    addresses = _spec(item).get("clusterIPs") or []
    return str(addresses[0]) if addresses else str(_spec(item).get("clusterIP") or NONE)


def _external_ip(item: Object, now: float) -> str:
    spec = _spec(item)
    kind = spec.get("type", "ClusterIP")
    external = list(spec.get("externalIPs") or [])
    if kind == "ExternalName":
        return str(spec.get("externalName", ""))
    if kind == "LoadBalancer":
        ingress = ((_status(item).get("loadBalancer") or {}).get("ingress")) or []
        got = [str(one.get("ip") or one.get("hostname")) for one in ingress]
        if got or external:
            return ",".join([*got, *external])
        return "<pending>"
    return ",".join(external) or NONE


def _service_ports(item: Object, now: float) -> str:
    out = []
    for port in _spec(item).get("ports") or []:
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        out.append(f"{port['port']}{node}/{port.get('protocol', 'TCP')}")
    return ",".join(out) or NONE


def _selector(selector: Object | None) -> str:
    return ",".join(f"{key}={selector[key]}" for key in sorted(selector)) if selector else NONE


SERVICE = Kind(
    "Service",
    "services",
    ("svc",),
    True,
    "v1",
    (
        Column("Name", _name),
        Column("Type", lambda item, now: _spec(item).get("type", "ClusterIP")),
        Column("Cluster-IP", _cluster_ip),
        Column("External-IP", _external_ip),
        Column("Port(s)", _service_ports),
        Column("Age", _age),
        Column("Selector", lambda item, now: _selector(_spec(item).get("selector")), True),
    ),
)

# -- endpoint slices -----------------------------------------------------------------------------------------


def _more(values: list[str], most: int = 3) -> str:
    shown = ",".join(values[:most])
    return f"{shown} + {len(values) - most} more..." if len(values) > most else shown


def _slice_ports(item: Object, now: float) -> str:
    ports = item.get("ports") or []
    if not ports:
        return "<unset>"
    return _more([str(p["port"]) if p.get("port") is not None else (p.get("name") or "*") for p in ports])


def _slice_endpoints(item: Object, now: float) -> str:
    endpoints = [",".join(e.get("addresses") or []) for e in item.get("endpoints") or []]
    return _more(endpoints) if endpoints else "<unset>"


ENDPOINT_SLICE = Kind(
    "EndpointSlice",
    "endpointslices",
    (),
    True,
    "discovery.k8s.io/v1",
    (
        Column("Name", _name),
        Column("AddressType", lambda item, now: item.get("addressType", "")),
        Column("Ports", _slice_ports),
        Column("Endpoints", _slice_endpoints),
        Column("Age", _age),
    ),
)

# -- nodes ---------------------------------------------------------------------------------------------------


def _node_status(item: Object, now: float) -> str:
    words = []
    for condition in _status(item).get("conditions") or []:
        if condition.get("type") == "Ready":
            words.append("Ready" if condition.get("status") == "True" else "NotReady")
    words = words or ["Unknown"]
    if _spec(item).get("unschedulable"):
        words.append("SchedulingDisabled")
    return ",".join(words)


def _roles(item: Object, now: float) -> str:
    roles = set()
    for key, value in (item["metadata"].get("labels") or {}).items():
        if key.startswith("node-role.kubernetes.io/"):
            roles.add(key.removeprefix("node-role.kubernetes.io/"))
        elif key == "kubernetes.io/role" and value:
            roles.add(value)
    return ",".join(sorted(roles - {""})) or NONE


def _node_address(kind: str) -> Cell:
    def cell(item: Object, now: float) -> str:
        return next(
            (str(a["address"]) for a in _status(item).get("addresses") or [] if a.get("type") == kind), NONE
        )

    return cell


def _info(field: str) -> Cell:
    return lambda item, now: (_status(item).get("nodeInfo") or {}).get(field) or "<unknown>"


NODE = Kind(
    "Node",
    "nodes",
    ("no",),
    False,
    "v1",
    (
        Column("Name", _name),
        Column("Status", _node_status),
        Column("Roles", _roles),
        Column("Age", _age),
        Column("Version", lambda item, now: (_status(item).get("nodeInfo") or {}).get("kubeletVersion", "")),
        Column("Internal-IP", _node_address("InternalIP"), True),
        Column("External-IP", _node_address("ExternalIP"), True),
        Column("OS-Image", _info("osImage"), True),
        Column("Kernel-Version", _info("kernelVersion"), True),
        Column("Container-Runtime", _info("containerRuntimeVersion"), True),
    ),
)

# -- deployments, namespaces ---------------------------------------------------------------------------------


def _containers(item: Object) -> list[Object]:
    return ((_spec(item).get("template") or {}).get("spec") or {}).get("containers") or []


def _match_labels(item: Object, now: float) -> str:
    return _selector((_spec(item).get("selector") or {}).get("matchLabels"))


DEPLOYMENT = Kind(
    "Deployment",
    "deployments",
    ("deploy",),
    True,
    "apps/v1",
    (
        Column("Name", _name),
        Column(
            "Ready",
            lambda item, now: f"{_status(item).get('readyReplicas', 0)}/{_spec(item).get('replicas', 1)}",
        ),
        Column("Up-to-date", lambda item, now: _status(item).get("updatedReplicas", 0)),
        Column("Available", lambda item, now: _status(item).get("availableReplicas", 0)),
        Column("Age", _age),
        Column("Containers", lambda item, now: ",".join(c["name"] for c in _containers(item)), True),
        Column("Images", lambda item, now: ",".join(c.get("image", "") for c in _containers(item)), True),
        Column("Selector", _match_labels, True),
    ),
)

NAMESPACE = Kind(
    "Namespace",
    "namespaces",
    ("ns",),
    False,
    "v1",
    (
        Column("Name", _name),
        Column("Status", lambda item, now: _status(item).get("phase", "Active")),
        Column("Age", _age),
    ),
)

# -- network policies ----------------------------------------------------------------------------------------


def _label_selector(selector: Object) -> str:
    """Return a selector as FormatLabelSelector writes it: "app=web,tier in (a,b),!old"."""
    forms = {"In": "{0} in ({1})", "NotIn": "{0} notin ({1})", "Exists": "{0}", "DoesNotExist": "!{0}"}
    asked = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for one in selector.get("matchExpressions") or []:
        values = ",".join(sorted(one.get("values") or []))
        asked.append((one["key"], forms[one["operator"]].format(one["key"], values)))
    return ",".join(text for _key, text in sorted(asked)) or NONE


NETWORK_POLICY = Kind(
    "NetworkPolicy",
    "networkpolicies",
    ("netpol",),
    True,
    "networking.k8s.io/v1",
    (
        Column("Name", _name),
        Column("Pod-Selector", lambda item, now: _label_selector(_spec(item).get("podSelector") or {})),
        Column("Age", _age),
    ),
)

KINDS: tuple[Kind, ...] = (POD, SERVICE, ENDPOINT_SLICE, NODE, DEPLOYMENT, NAMESPACE, NETWORK_POLICY)
"""Every kind `get` prints."""


def find_kind(word: str) -> Kind | None:
    """Return the kind a word names: "pods", "pod", "po", "Pod", "deployments.apps"."""
    lower = word.lower()
    for kind in KINDS:
        group = kind.api_version.rpartition("/")[0]
        names = {kind.resource, kind.kind.lower(), *kind.short}
        if lower in names or (group and lower in {f"{name}.{group}" for name in names}):
            return kind
    return None
