"""Services (`ValidateService`, and what the allocator checks before it allocates)."""

from __future__ import annotations

from typing import Any

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
from kubenet_lab.manifests.validation.metadata import labels
from kubenet_lab.manifests.validation.values import (
    PORT,
    cidr,
    dns_label,
    dns_subdomain,
    family,
    ip_address,
    ordinary_ip,
    port_name,
    qualified_name,
)

TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
PROTOCOLS = ("SCTP", "TCP", "UDP")
TRAFFIC_POLICIES = ("Cluster", "Local")
FAMILIES = ("IPv4", "IPv6")
FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")
MAX_AFFINITY_SECONDS = 86400
SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
TOPOLOGY_MODE = "service.kubernetes.io/topology-mode"
TOPOLOGY_HINTS = "service.kubernetes.io/topology-aware-hints"
SPEC: Path = ("spec",)
_LB_ONLY = "may only be used when `type` is 'LoadBalancer'"


def service(document: Json) -> Causes:
    """What is wrong with a Service."""
    spec: Json = document.get("spec") or {}
    kind, ports = spec.get("type") or "ClusterIP", spec.get("ports") or []
    single, cluster_ips = spec.get("clusterIP") or "", spec.get("clusterIPs") or []
    if single and not cluster_ips:
        cluster_ips = [single]
    headless = cluster_ips[:1] == ["None"] and len(cluster_ips) == 1
    found: Causes = []
    if kind != "ExternalName" and (cluster_ips or "ipFamilies" in spec or "ipFamilyPolicy" in spec):
        found += _addresses(spec, single, cluster_ips, headless)
    annotations: Json = (document.get("metadata") or {}).get("annotations") or {}
    if annotations:
        found += _topology(annotations)
    if not ports and not headless and kind != "ExternalName":
        hint = "a Service needs a port unless it is headless (clusterIP: None)"
        found.append(required((*SPEC, "ports"), help=hint))
    if headless and kind in ("LoadBalancer", "NodePort"):
        text = f"may not be set to 'None' for {kind} services"
        found.append(invalid((*SPEC, "clusterIPs", 0), "None", text, f"leave clusterIP out, or {kind}"))
    if kind == "ExternalName":
        found += _external(spec, cluster_ips)
    names: set[str] = set()
    for index, port in enumerate(ports):
        found += _port(port, (*SPEC, "ports", index), len(ports) > 1, names)
    if spec.get("selector"):
        found += labels(spec["selector"], (*SPEC, "selector"))
    found += _affinity(spec)
    for index, address in enumerate(spec.get("externalIPs") or []):
        wrong = ip_address(address) or ordinary_ip(address)
        found += invalids((*SPEC, "externalIPs", index), address, wrong)
    if kind not in TYPES:
        found.append(unsupported((*SPEC, "type"), kind, TYPES))
    found += _conflicts(ports, kind)
    found += _load_balancer(spec, kind, annotations)
    found += _traffic(spec, kind)
    return found


def _topology(annotations: Json) -> Causes:
    mode, hints = annotations.get(TOPOLOGY_MODE), annotations.get(TOPOLOGY_HINTS)
    if mode is None or hints is None or mode == hints:
        return []
    text = f"must match annotations[{TOPOLOGY_HINTS}] when both are specified"
    return [invalid(("metadata", f"annotations[{TOPOLOGY_MODE}]"), mode, text)]


def _addresses(spec: Json, single: str, cluster_ips: list[str], headless: bool) -> Causes:
    """`clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` among themselves."""
    place, found = (*SPEC, "clusterIPs"), Causes()
    families, policy = spec.get("ipFamilies") or [], spec.get("ipFamilyPolicy")

    def refuse(path: Path, value: Any, text: str, help: str = "") -> None:
        found.append(invalid(path, value, text, help, early=True))

    if single and cluster_ips[0] != single:
        refuse(place, cluster_ips, "first value must match `clusterIP`", f"begin the list with {single}")
    elif cluster_ips and not single:
        text = "must be empty when `clusterIP` is not specified"
        refuse(place, cluster_ips, text, f"add clusterIP: {cluster_ips[0]}")
    for index, name in enumerate(families):
        if name not in FAMILIES:
            found.append(unsupported((*SPEC, "ipFamilies", index), name, FAMILIES, early=True))
        if name in families[:index]:
            found.append(duplicate((*SPEC, "ipFamilies", index), name, early=True))
    if policy is not None and policy not in FAMILY_POLICIES:
        found.append(unsupported((*SPEC, "ipFamilyPolicy"), policy, FAMILY_POLICIES, early=True))
    readable = True
    for index, address in enumerate(cluster_ips):
        if index == 0 and address == "None":
            if len(cluster_ips) > 1:
                readable = False
                refuse(place, cluster_ips, "'None' must be the first and only value")
            continue
        for text in ip_address(address):
            readable = False
            refuse((*place, index), address, text)
    if len(cluster_ips) > 2:
        refuse(place, cluster_ips, "may only hold up to 2 values", "one address a family")
    if not readable:
        return found
    if len(cluster_ips) > 1 and len({family(address) for address in cluster_ips}) < 2:
        text = "may specify no more than one IP for each IP family"
        refuse(place, cluster_ips, text, "one IPv4 and one IPv6 address")
    if not headless:
        for index, (address, wanted) in enumerate(zip(cluster_ips, families, strict=False)):
            if wanted in FAMILIES and family(address) != wanted:
                text = f"expected an {wanted} value as indicated by `ipFamilies[{index}]`"
                refuse((*place, index), address, text, f"give an {wanted} address, or another family")
    if not found:
        found += _single_stack(spec, cluster_ips, families, policy)
    return found


def _single_stack(spec: Json, cluster_ips: list[str], families: list[str], policy: str | None) -> Causes:
    if policy is None:
        selectorless = cluster_ips == ["None"] and not spec.get("selector")
        policy = "RequireDualStack" if selectorless else "SingleStack"
    if policy != "SingleStack":
        return []
    place, hint = (*SPEC, "ipFamilyPolicy"), "add ipFamilyPolicy: PreferDualStack"
    text = "must be 'RequireDualStack' or 'PreferDualStack' when multiple {} are specified"
    found: Causes = []
    if len(cluster_ips) == 2:
        found.append(invalid(place, policy, text.format("cluster IPs"), hint, early=True))
    if len(families) == 2:
        found.append(invalid(place, policy, text.format("IP families"), hint, early=True))
    return found


def _external(spec: Json, cluster_ips: list[str]) -> Causes:
    found: Causes = []
    text = "may not be set for ExternalName services"
    if cluster_ips:
        found.append(forbidden((*SPEC, "clusterIPs"), text))
    for name in ("ipFamilies", "ipFamilyPolicy"):
        if spec.get(name):
            found.append(forbidden((*SPEC, name), text))
    target = (spec.get("externalName") or "").removesuffix(".")
    if not target:
        found.append(required((*SPEC, "externalName"), help="the name the Service stands for"))
    else:
        found += invalids((*SPEC, "externalName"), target, dns_subdomain(target))
    return found


def _port(port: Json, path: Path, several: bool, names: set[str]) -> Causes:
    found: Causes = []
    name = port.get("name") or ""
    if name:
        found += invalids((*path, "name"), name, dns_label(name))
        if name in names:
            found.append(duplicate((*path, "name"), name, "give each port its own name"))
        names.add(name)
    elif several:
        found.append(required((*path, "name"), help="each of several ports needs a name"))
    number, target = port.get("port") or 0, port.get("targetPort")
    if not 1 <= number <= 65535:
        found.append(invalid((*path, "port"), number, PORT))
    protocol = port.get("protocol") or "TCP"
    if protocol not in PROTOCOLS:
        found.append(unsupported((*path, "protocol"), protocol, PROTOCOLS))
    # Defaults are filled in first: without a target the port is the target, and both are refused.
    if target in (None, "", 0):
        target = number
    if isinstance(target, int):
        if not 1 <= target <= 65535:
            found.append(invalid((*path, "targetPort"), target, PORT))
    elif isinstance(target, str):
        hint = f"write {target} without quotes" if target.isdigit() else ""
        found += invalids((*path, "targetPort"), target, port_name(target), hint)
    protocol_name = port.get("appProtocol")
    if protocol_name is not None:
        found += invalids((*path, "appProtocol"), protocol_name, qualified_name(protocol_name))
    return found


def _affinity(spec: Json) -> Causes:
    affinity = spec.get("sessionAffinity") or "None"
    if affinity not in ("ClientIP", "None"):
        return [unsupported((*SPEC, "sessionAffinity"), affinity, ("ClientIP", "None"))]
    config = spec.get("sessionAffinityConfig")
    if affinity == "None" or config is None:
        return []  # the server drops the configuration of an affinity that is not there
    place, text = (*SPEC, "sessionAffinityConfig"), "when session affinity type is ClientIP"
    client = config.get("clientIP")
    if client is None:
        return [required((*place, "clientIP"), text)]
    seconds = client.get("timeoutSeconds")
    if seconds is None or 0 < seconds <= MAX_AFFINITY_SECONDS:
        return []
    text = f"must be greater than 0 and less than {MAX_AFFINITY_SECONDS}"
    return [invalid((*place, "clientIP", "timeoutSeconds"), seconds, text)]


def _conflicts(ports: list[Json], kind: str) -> Causes:
    """Node ports where there are none, and ports and node ports that come twice."""
    found: Causes = []
    node_ports: set[tuple[str, int]] = set()
    numbers: dict[int, set[str]] = {}
    if kind == "ClusterIP":
        for index, port in enumerate(ports):
            if port.get("nodePort"):
                text = "may not be used when `type` is 'ClusterIP'"
                place = (*SPEC, "ports", index, "nodePort")
                found.append(forbidden(place, text, "leave it out, or type: NodePort"))
    if len(ports) < 2:
        return found
    allocated: dict[int, int] = {}
    for index, port in enumerate(ports):
        number = port.get("nodePort") or 0
        if not number:
            continue
        key = (port.get("protocol") or "TCP", number)
        place = (*SPEC, "ports", index, "nodePort")
        # Two ports share a node port when the Service's port number is the same: DNS over UDP and TCP.
        if kind in ("NodePort", "LoadBalancer") and allocated.get(number, port.get("port")) != port.get(
            "port"
        ):
            found.append(invalid(place, number, "provided port is already allocated", early=True))
        elif key in node_ports:
            found.append(duplicate(place, number))
        allocated.setdefault(number, port.get("port") or 0)
        node_ports.add(key)
    for index, port in enumerate(ports):
        number, protocol = port.get("port") or 0, port.get("protocol") or "TCP"
        if protocol in numbers.setdefault(number, set()):
            value = {
                "Name": "",
                "Protocol": protocol,
                "AppProtocol": None,
                "Port": number,
                "TargetPort": 0,
                "NodePort": 0,
            }
            found.append(duplicate((*SPEC, "ports", index), value, "one entry a port and protocol"))
        numbers[number].add(protocol)
    return found


def _load_balancer(spec: Json, kind: str, annotations: Json) -> Causes:
    found: Causes = []
    ranges = spec.get("loadBalancerSourceRanges") or []
    if ranges:
        # The server spells this field with a capital letter.
        place: Path = (*SPEC, "LoadBalancerSourceRanges")
        if kind != "LoadBalancer":
            found.append(forbidden(place, _LB_ONLY))
        for index, value in enumerate(ranges):
            found += invalids((*place, index), value.strip(), cidr(value.strip()))
    elif SOURCE_RANGES in annotations:
        place = ("metadata", f"annotations[{SOURCE_RANGES}]")
        if kind != "LoadBalancer":
            found.append(forbidden(place, _LB_ONLY))
        given = (annotations[SOURCE_RANGES] or "").strip()
        for value in given.split(",") if given else ():
            found += invalids(place, value.strip(), cidr(value.strip()))
    if spec.get("allocateLoadBalancerNodePorts") is not None and kind != "LoadBalancer":
        found.append(forbidden((*SPEC, "allocateLoadBalancerNodePorts"), _LB_ONLY))
    name = spec.get("loadBalancerClass")
    if name is not None:
        if kind != "LoadBalancer":
            found.append(forbidden((*SPEC, "loadBalancerClass"), _LB_ONLY))
        else:
            found += invalids((*SPEC, "loadBalancerClass"), name, qualified_name(name))
    return found


def _traffic(spec: Json, kind: str) -> Causes:
    found: Causes = []
    external = spec.get("externalTrafficPolicy") or ""
    reachable = kind in ("LoadBalancer", "NodePort") or (kind == "ClusterIP" and spec.get("externalIPs"))
    if external and not reachable:
        text = "may only be set for externally-accessible services"
        hint = "leave it out, or type: NodePort or LoadBalancer"
        found.append(invalid((*SPEC, "externalTrafficPolicy"), external, text, hint))
    elif external and external not in TRAFFIC_POLICIES:
        found.append(unsupported((*SPEC, "externalTrafficPolicy"), external, TRAFFIC_POLICIES))
    checked = spec.get("healthCheckNodePort") or 0
    if checked and not (kind == "LoadBalancer" and external == "Local"):
        text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        found.append(invalid((*SPEC, "healthCheckNodePort"), checked, text))
    elif checked and not 1 <= checked <= 65535:
        found.append(invalid((*SPEC, "healthCheckNodePort"), checked, PORT))
    internal = spec.get("internalTrafficPolicy")
    if internal is not None and internal not in TRAFFIC_POLICIES:
        found.append(unsupported((*SPEC, "internalTrafficPolicy"), internal, TRAFFIC_POLICIES))
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in DISTRIBUTIONS:
        found.append(unsupported((*SPEC, "trafficDistribution"), distribution, DISTRIBUTIONS))
    return found
