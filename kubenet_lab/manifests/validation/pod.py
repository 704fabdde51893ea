"""Pods, and the pods in a workload's template (`ValidatePodSpec`): what touches networking, and the basics."""

from __future__ import annotations

from kubenet_lab.manifests.schema import Path
from kubenet_lab.manifests.validation.cause import (
    Causes,
    Json,
    duplicate,
    forbidden,
    invalid,
    invalids,
    required,
    unsupported,
)
from kubenet_lab.manifests.validation.metadata import annotation_keys, labels
from kubenet_lab.manifests.validation.service import PROTOCOLS
from kubenet_lab.manifests.validation.values import (
    NOT_NEGATIVE,
    PORT,
    dns_label,
    dns_subdomain,
    environment_name,
    header_name,
    ip_address,
    label_value,
    port_name,
    port_or_name,
    qualified_name,
    search_domain,
)

DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
RESTART_POLICIES = ("Always", "OnFailure", "Never")
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
MESSAGE_POLICIES = ("File", "FallbackToLogsOnError")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_NUMBERS = (
    ("initialDelaySeconds", 0),
    ("timeoutSeconds", 1),
    ("periodSeconds", 10),
    ("successThreshold", 1),
    ("failureThreshold", 3),
)


def pod(document: Json) -> Causes:
    """What is wrong with a Pod."""
    return pod_spec(document.get("spec") or {}, ("spec",), pod=True) + _pod_ips(document.get("status") or {})


def _pod_ips(status: Json) -> Causes:
    """A new Pod's status is not looked at by the server, and in an update of it; a dump is both."""
    given = [item.get("ip") or "" for item in status.get("podIPs") or []] or [status.get("podIP") or ""]
    found: Causes = []
    for index, value in enumerate(given):
        if value:
            found += invalids(("status", "podIPs", index), value, ip_address(value))
    return found


def template(given: Json, path: Path) -> Causes:
    """What is wrong with a workload's pod template."""
    found: Causes = []
    meta = given.get("metadata") or {}
    if meta.get("labels"):
        found += labels(meta["labels"], (*path, "labels"))
    if meta.get("annotations"):
        found += annotation_keys(meta["annotations"], (*path, "annotations"))
    return found + pod_spec(given.get("spec") or {}, (*path, "spec"))


def pod_spec(spec: Json, path: Path, pod: bool = False) -> Causes:
    """What is wrong with a pod's spec; `pod` says it is not a template."""
    containers, found = spec.get("containers") or [], Causes()
    host_network = bool(spec.get("hostNetwork"))
    grace = spec.get("terminationGracePeriodSeconds")
    grace = 30 if grace is None else grace
    if not containers:
        found.append(required((*path, "containers"), help="a pod has at least one container"))
    names: set[str] = set()
    ports: set[str] = set()
    for index, item in enumerate(containers):
        here: Path = (*path, "containers", index)
        found += _container(item, here, host_network)
        name = item.get("name") or ""
        if name in names:
            found.append(duplicate((*here, "name"), name))
        names.add(name)
        found += _probes(item, here, grace)
        if item.get("restartPolicy"):
            # Per-container policies are allowed since 1.35 (KEP-5307).
            found += _restart_policy(item["restartPolicy"], (*here, "restartPolicy"))
    for index, item in enumerate(containers):
        if item.get("ports"):
            found += _host_ports(item["ports"], (*path, "containers", index), ports, host_network)
    for index, item in enumerate(spec.get("initContainers") or []):
        here = (*path, "initContainers", index)
        found += _init_container(item, here, host_network, names, grace)
    if host_network:
        found += _host_network(containers, path)
    policy = spec.get("restartPolicy") or "Always"
    found += _restart_policy(policy, (*path, "restartPolicy"))
    dns = spec.get("dnsPolicy") or "ClusterFirst"
    if dns not in DNS_POLICIES:
        found.append(unsupported((*path, "dnsPolicy"), dns, DNS_POLICIES))
    if spec.get("nodeSelector"):
        found += labels(spec["nodeSelector"], (*path, "nodeSelector"))
    if dns == "None" or spec.get("dnsConfig") is not None:
        found += _dns_config(spec.get("dnsConfig"), dns, (*path, "dnsConfig"))
    for index, gate in enumerate(spec.get("readinessGates") or []):
        kind = gate.get("conditionType") or ""
        found += invalids((*path, "readinessGates", index, "conditionType"), kind, qualified_name(kind))
    found += _gates(spec.get("schedulingGates") or [], (*path, "schedulingGates"))
    for field in ("serviceAccountName", "nodeName"):
        if spec.get(field):
            found += invalids((*path, field), spec[field], dns_subdomain(spec[field]))
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= 2147483647:
        text = "must be between 1 and 2147483647, inclusive"
        found.append(invalid((*path, "activeDeadlineSeconds"), deadline, text))
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            found += invalids((*path, field), spec[field], dns_label(spec[field]))
    for index, toleration in enumerate(spec.get("tolerations") or []):
        found += _toleration(toleration, (*path, "tolerations", index))
    for index, alias in enumerate(spec.get("hostAliases") or []):
        here = (*path, "hostAliases", index)
        address = alias.get("ip") or ""
        found += invalids((*here, "ip"), address, ip_address(address))
        for number, name in enumerate(alias.get("hostnames") or []):
            found += invalids((*here, "hostnames", number), name, dns_subdomain(name))
    for field in ("priorityClassName", "runtimeClassName"):
        if spec.get(field):
            found += invalids((*path, field), spec[field], dns_subdomain(spec[field]))
    if pod:
        found += _only_pods(spec, path)
    return found


def _only_pods(spec: Json, path: Path) -> Causes:
    found: Causes = []
    for group in ("containers", "initContainers"):
        for index, item in enumerate(spec.get(group) or []):
            image = item.get("image") or ""
            if image != image.strip():
                text = "must not have leading or trailing whitespace"
                found.append(invalid((*path, group, index, "image"), image, text))
    if spec.get("nodeName") and spec.get("schedulingGates"):
        text = "cannot be set until all schedulingGates have been cleared"
        found.append(forbidden((*path, "nodeName"), text))
    return found


def _container(item: Json, path: Path, host_network: bool) -> Causes:
    found: Causes = []
    name = item.get("name") or ""
    if not name:
        found.append(required((*path, "name")))
    else:
        found += invalids((*path, "name"), name, dns_label(name))
    if not item.get("image"):
        found.append(required((*path, "image")))
    policy = item.get("terminationMessagePolicy")
    if policy and policy not in MESSAGE_POLICIES:
        found.append(unsupported((*path, "terminationMessagePolicy"), policy, MESSAGE_POLICIES))
    if item.get("ports"):
        found += _ports(item["ports"], (*path, "ports"))
    for index, variable in enumerate(item.get("env") or []):
        found += _variable(variable, (*path, "env", index))
    policy = item.get("imagePullPolicy")
    if policy and policy not in PULL_POLICIES:
        found.append(unsupported((*path, "imagePullPolicy"), policy, PULL_POLICIES))
    return found


def _init_container(item: Json, path: Path, host_network: bool, names: set[str], grace: int) -> Causes:
    found = _container(item, path, host_network)
    sidecar = False
    if item.get("restartPolicy"):
        found += _restart_policy(item["restartPolicy"], (*path, "restartPolicy"))
        sidecar = item["restartPolicy"] == "Always"
    name = item.get("name") or ""
    if name in names:
        found.append(duplicate((*path, "name"), name))
    elif name:
        names.add(name)
    if item.get("ports"):
        found += _host_ports(item["ports"], path, set(), host_network)
    if sidecar:
        return found + _probes(item, path, grace)
    text = "may not be set for init containers without restartPolicy=Always"
    for field in ("lifecycle", *_PROBES):
        if item.get(field) is not None:
            found.append(forbidden((*path, field), text, "leave it out, or restartPolicy: Always"))
    return found


def _variable(variable: Json, path: Path) -> Causes:
    name = variable.get("name") or ""
    found: Causes = []
    if not name:
        found.append(required((*path, "name")))
    else:
        found += invalids((*path, "name"), name, environment_name(name))
    source = variable.get("valueFrom")
    if source is None:
        return found
    if variable.get("value"):
        found.append(invalid((*path, "valueFrom"), "", "may not be specified when `value` is not empty"))
    given = [field for field, value in source.items() if value is not None]
    if not given:
        kinds = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        found.append(invalid((*path, "valueFrom"), "", kinds))
    elif len(given) > 1:
        text = "may not have more than one field specified at a time"
        found.append(invalid((*path, "valueFrom"), "", text))
    return found


def _ports(ports: list[Json], path: Path) -> Causes:
    found: Causes = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        here: Path = (*path, index)
        name = port.get("name") or ""
        if name:
            wrong = port_name(name)
            if wrong:
                found += invalids((*here, "name"), name, wrong)
            elif name in names:
                found.append(duplicate((*here, "name"), name))
            names.add(name)
        number = port.get("containerPort") or 0
        if not number:
            found.append(required((*here, "containerPort")))
        elif not 1 <= number <= 65535:
            found.append(invalid((*here, "containerPort"), number, PORT))
        host = port.get("hostPort") or 0
        if host and not 1 <= host <= 65535:
            found.append(invalid((*here, "hostPort"), host, PORT))
        protocol = port.get("protocol") or "TCP"
        if protocol not in PROTOCOLS:
            found.append(unsupported((*here, "protocol"), protocol, PROTOCOLS))
    return found


def _host_ports(ports: list[Json], path: Path, taken: set[str], host_network: bool) -> Causes:
    """Ports of the node that two containers ask for; on the host's network each port is one."""
    found: Causes = []
    for index, port in enumerate(ports):
        number = port.get("hostPort") or (port.get("containerPort") if host_network else 0)
        if not number:
            continue
        key = f"{port.get('protocol') or 'TCP'}/{port.get('hostIP') or ''}/{number}"
        if key in taken:
            found.append(duplicate((*path, "ports", index, "hostPort"), key))
        taken.add(key)
    return found


def _host_network(containers: list[Json], path: Path) -> Causes:
    found: Causes = []
    for index, item in enumerate(containers):
        for number, port in enumerate(item.get("ports") or []):
            host = port.get("hostPort") or 0
            if host and host != (port.get("containerPort") or 0):
                place = (*path, "containers", index, "ports", number, "hostPort")
                text = "must match `containerPort` when `hostNetwork` is true"
                found.append(invalid(place, host, text, "leave hostPort out"))
    return found


def _restart_policy(policy: str, path: Path) -> Causes:
    return [] if policy in RESTART_POLICIES else [unsupported(path, policy, RESTART_POLICIES)]


def _probes(item: Json, path: Path, grace: int) -> Causes:
    found: Causes = []
    lifecycle = item.get("lifecycle") or {}
    for moment in ("postStart", "preStop"):
        if lifecycle.get(moment) is not None:
            found += _handler(lifecycle[moment], (*path, "lifecycle", moment), grace)
    for kind in _PROBES:
        probe = item.get(kind)
        if probe is not None:
            found += _probe(probe, (*path, kind), kind, grace)
    return found


def _probe(probe: Json, path: Path, kind: str, grace: int) -> Causes:
    found = _handler(probe, path, grace)
    for field, default in _NUMBERS:
        value = probe.get(field) or default
        if value < 0:
            found.append(invalid((*path, field), value, NOT_NEGATIVE))
    patience = probe.get("terminationGracePeriodSeconds")
    place: Path = (*path, "terminationGracePeriodSeconds")
    if patience is not None and patience <= 0:
        found.append(invalid(place, patience, "must be greater than 0"))
    if kind == "readinessProbe":
        if patience is not None:
            found.append(invalid(place, patience, "must not be set for readinessProbes"))
    elif (probe.get("successThreshold") or 1) != 1:
        found.append(invalid((*path, "successThreshold"), probe["successThreshold"], "must be 1"))
    return found


def _handler(given: Json, path: Path, grace: int) -> Causes:
    """What a probe or a lifecycle hook does: exactly one thing."""
    found: Causes = []
    first = True
    for field in ("exec", "httpGet", "tcpSocket", "grpc", "sleep"):
        action = given.get(field)
        if action is None:
            continue
        here: Path = (*path, field)
        if not first:
            found.append(forbidden(here, "may not specify more than 1 handler type", "keep one of them"))
            continue
        first = False
        if field == "exec":
            if not action.get("command"):
                found.append(required((*here, "command")))
        elif field == "sleep":
            seconds = action.get("seconds") or 0
            if not 0 <= seconds <= grace:
                text = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                found.append(invalid(here, seconds, text))
        else:
            port = action.get("port")
            port = 0 if port is None else port
            found += invalids((*here, "port"), port, port_or_name(port))
            if field == "httpGet":
                found += _http(action, here)
    if first:
        hint = "one of exec, httpGet, tcpSocket, grpc"
        found.append(required(path, "must specify a handler type", hint))
    return found


def _http(action: Json, path: Path) -> Causes:
    found: Causes = []
    scheme = action.get("scheme") or "HTTP"
    if scheme not in ("HTTP", "HTTPS"):
        found.append(unsupported((*path, "scheme"), scheme, ("HTTP", "HTTPS")))
    for header in action.get("httpHeaders") or []:
        name = header.get("name") or ""
        found += invalids((*path, "httpHeaders"), name, header_name(name))
    return found


def _dns_config(config: Json | None, policy: str, path: Path) -> Causes:
    found: Causes = []
    servers = (config or {}).get("nameservers") or []
    if policy == "None":
        if config is None:
            return [required(path, "must provide `dnsConfig` when `dnsPolicy` is None")]
        if not servers:
            text = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            return [required((*path, "nameservers"), text)]
    if config is None:
        return found
    if len(servers) > 3:
        found.append(invalid((*path, "nameservers"), servers, "must not have more than 3 nameservers"))
    for index, server in enumerate(servers):
        found += invalids((*path, "nameservers", index), server, ip_address(server))
    searches = config.get("searches") or []
    place: Path = (*path, "searches")
    if len(searches) > 32:
        found.append(invalid(place, searches, "must not have more than 32 search paths"))
    if len(" ".join(searches).encode()) > 2048:
        text = "must not have more than 2048 characters (including spaces) in the search list"
        found.append(invalid(place, searches, text))
    for index, search in enumerate(searches):
        if search != ".":
            search = search.removesuffix(".")
            found += invalids((*place, index), search, search_domain(search))
    for index, option in enumerate(config.get("options") or []):
        if not option.get("name"):
            found.append(required((*path, "options", index), "must not be empty"))
    return found


def _gates(gates: list[Json], path: Path) -> Causes:
    found: Causes = []
    seen: set[str] = set()
    for index, gate in enumerate(gates):
        name = gate.get("name") or ""
        found += invalids((*path, index), name, qualified_name(name))
        if name in seen:
            found.append(duplicate((*path, index), name))
        seen.add(name)
    return found


def _toleration(given: Json, path: Path) -> Causes:
    found: Causes = []
    key, operator, value = given.get("key") or "", given.get("operator") or "", given.get("value") or ""
    effect = given.get("effect") or ""
    if key:
        found += invalids((*path, "key"), key, qualified_name(key))
    elif operator != "Exists":
        text = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        found.append(invalid((*path, "operator"), operator, text))
    if given.get("tolerationSeconds") is not None and effect != "NoExecute":
        text = "effect must be 'NoExecute' when `tolerationSeconds` is set"
        found.append(invalid((*path, "effect"), effect, text))
    if operator in ("", "Equal"):
        found += invalids((*path, "operator"), value, label_value(value))
    elif operator == "Exists":
        if value:
            text = "value must be empty when `operator` is 'Exists'"
            found.append(invalid((*path, "operator"), value, text))
    elif operator not in ("Lt", "Gt"):
        found.append(unsupported((*path, "operator"), operator, ("Equal", "Exists")))
    if effect and effect not in EFFECTS:
        found.append(unsupported((*path, "effect"), effect, EFFECTS))
    return found
