"""What an update may change, and what the API server keeps or clears when it does.

`kept(old, new)` is the new object with the allocated values a request may leave out, and without those that
lost their meaning; `refusals(old, new)` lists the changes that are not allowed. Sources: `Validate*Update` of
`pkg/apis/*/validation` and `pkg/registry/core/service` of Kubernetes 1.37, checked against recorded answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from kubenet_lab.errors import Cause
from kubenet_lab.objects.configmap import ConfigMap
from kubenet_lab.objects.defaults import TEMPLATE_GENERATION
from kubenet_lab.objects.endpointslice import EndpointSlice
from kubenet_lab.objects.ingress import IngressClass
from kubenet_lab.objects.node import Node
from kubenet_lab.objects.pod import Container, Pod, PodSpec
from kubenet_lab.objects.secret import Secret
from kubenet_lab.objects.service import Service, ServiceSpec
from kubenet_lab.objects.workload import DaemonSet, Deployment, Job, ReplicaSet, StatefulSet

IMMUTABLE = "field is immutable"
ONCE = "may not change once set"


def kept(old: Any, new: Any) -> Any:
    """The new object as it is stored: with what it may leave out, without what its type no longer has."""
    if type(new) is Service and type(old) is Service and new.spec != old.spec:
        return replace(new, spec=_kept_service(old.spec, new.spec))
    if type(new) is DaemonSet and type(old) is DaemonSet:
        return _counted(old, new)
    return new


def _counted(old: DaemonSet, new: DaemonSet) -> DaemonSet:
    """With the count of its templates, which grows with each new one."""
    count = old.metadata.annotations.get(TEMPLATE_GENERATION, "")
    if not count.isdecimal():
        return new
    if old.spec.template != new.spec.template:
        count = str(int(count) + 1)
    if new.metadata.annotations.get(TEMPLATE_GENERATION) == count:
        return new
    kept: DaemonSet = new.with_metadata(annotations={**new.metadata.annotations, TEMPLATE_GENERATION: count})
    return kept


def refusals(old: Any, new: Any) -> list[Cause]:
    """The changes from `old` to `new` that are refused."""
    check = _CHECKS.get(type(new))
    if check is None or type(old) is not type(new):
        return []
    found: list[Cause] = check(old, new)
    return found


def _invalid(field: str, value: Any, detail: str) -> Cause:
    return Cause(field, f"Invalid value: {_shown(value)}: {detail}")


def _forbidden(field: str, detail: str) -> Cause:
    return Cause(field, f"Forbidden: {detail}", "FieldValueForbidden")


def _shown(value: Any) -> str:
    plain = json.loads(msgspec.json.encode(value))
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


# Services


def _kept_service(old: ServiceSpec, new: ServiceSpec) -> ServiceSpec:
    new = _normal_addresses(old, new)
    external = (old.type == "ExternalName", new.type == "ExternalName")
    changes: dict[str, Any] = {}
    if external == (False, False):
        if not new.cluster_ip and not new.cluster_ips:
            changes |= {"cluster_ip": old.cluster_ip, "cluster_ips": old.cluster_ips}
        if not new.ip_families and not new.ip_family_policy:
            changes |= {"ip_families": old.ip_families, "ip_family_policy": old.ip_family_policy}
        elif new.ip_family_policy is None:
            changes["ip_family_policy"] = old.ip_family_policy
    elif external == (False, True):
        # What was given to the old type goes, unless the request says something new about it.
        if (new.cluster_ip, new.cluster_ips) == (old.cluster_ip, old.cluster_ips):
            changes |= {"cluster_ip": "", "cluster_ips": ()}
        changes |= _dropped(old, new, ip_families=(), ip_family_policy=None, internal_traffic_policy=None)
    changes |= _kept_node_ports(old, new)
    if _needs_health_check(old) and _needs_health_check(new):
        if not new.health_check_node_port:
            changes["health_check_node_port"] = old.health_check_node_port
    elif _needs_health_check(old):
        changes |= _dropped(old, new, health_check_node_port=0)
    if old.type == "LoadBalancer" and new.type != "LoadBalancer":
        changes |= _dropped(old, new, allocate_load_balancer_node_ports=None, load_balancer_class=None)
    if _reachable(old) and not _reachable(new):
        changes |= _dropped(old, new, external_traffic_policy="")
    spec: ServiceSpec = replace(new, **changes) if changes else new
    if spec.ip_family_policy == "SingleStack" and external == (False, False):
        # To say SingleStack is to release the second address, if nothing else is said about it.
        if len(spec.cluster_ips) == 2 and spec.cluster_ips == old.cluster_ips:
            spec = replace(spec, cluster_ips=spec.cluster_ips[:1])
        if len(spec.ip_families) == 2 and spec.ip_families == old.ip_families:
            spec = replace(spec, ip_families=spec.ip_families[:1])
    return spec


def _normal_addresses(old: ServiceSpec, new: ServiceSpec) -> ServiceSpec:
    """`clusterIP` and `clusterIPs` brought together where a request changes one of them."""
    same_list = new.cluster_ips == old.cluster_ips
    if old.cluster_ip and not new.cluster_ip and same_list:
        return replace(new, cluster_ips=())
    if old.cluster_ips and not new.cluster_ips and new.cluster_ip == old.cluster_ip:
        return replace(new, cluster_ip="")
    if new.cluster_ip and new.cluster_ip != old.cluster_ip and same_list:
        return replace(new, cluster_ips=(new.cluster_ip,))
    if new.cluster_ip and not new.cluster_ips:
        return replace(new, cluster_ips=(new.cluster_ip,))
    return new


def _dropped(old: ServiceSpec, new: ServiceSpec, **empty: Any) -> dict[str, Any]:
    return {field: value for field, value in empty.items() if getattr(new, field) == getattr(old, field)}


def _kept_node_ports(old: ServiceSpec, new: ServiceSpec) -> dict[str, Any]:
    if not _has_node_ports(old):
        return {}
    if _has_node_ports(new):
        known = {port.name: port.node_port for port in old.ports}
        used = {port.node_port for port in new.ports}
        ports = []
        for port in new.ports:
            before = known.get(port.name, 0)
            if not port.node_port and before and before not in used:
                port = replace(port, node_port=before)
            ports.append(port)
        return {"ports": tuple(ports)} if tuple(ports) != new.ports else {}
    if [port.node_port for port in old.ports] == [port.node_port for port in new.ports]:
        return {"ports": tuple(replace(port, node_port=0) for port in new.ports)}
    return {}


def _has_node_ports(spec: ServiceSpec) -> bool:
    return spec.type in ("NodePort", "LoadBalancer")


def _needs_health_check(spec: ServiceSpec) -> bool:
    return spec.type == "LoadBalancer" and spec.external_traffic_policy == "Local"


def _reachable(spec: ServiceSpec) -> bool:
    return _has_node_ports(spec) or (spec.type == "ClusterIP" and bool(spec.external_ips))


def _service(old: Service, new: Service) -> list[Cause]:
    before, after = old.spec, new.spec
    if before == after:
        return []
    found: list[Cause] = []
    if "ExternalName" not in (before.type, after.type):
        found += _addresses(before, after)
    both = before.type == after.type == "LoadBalancer"
    if both and before.load_balancer_class != after.load_balancer_class:
        found.append(_invalid("spec.loadBalancerClass", after.load_balancer_class, ONCE))
    if _needs_health_check(before) and _needs_health_check(after):
        given, held = after.health_check_node_port, before.health_check_node_port
        if held and given != held:
            found.append(_forbidden("spec.healthCheckNodePort", IMMUTABLE))
    return found


def _addresses(old: ServiceSpec, new: ServiceSpec) -> list[Cause]:
    """Addresses and families: a second one may come and go, the first one stays."""
    was_headless, is_headless = old.cluster_ips == ("None",), new.cluster_ips == ("None",)
    if was_headless and is_headless:
        return []
    found: list[Cause] = []
    policy, single = new.ip_family_policy, new.ip_family_policy == "SingleStack"
    if not single:
        # These two are told alone, before anything else is looked at.
        text = "must be 'SingleStack' to release the secondary {}"
        reduced = [
            what
            for what, had, has in (
                ("cluster IP", old.cluster_ips, new.cluster_ips),
                ("IP family", old.ip_families, new.ip_families),
            )
            if len(had) == 2 and len(has) == 1 and had[0] == has[0]
        ]
        if reduced:
            return [_invalid("spec.ipFamilyPolicy", policy, text.format(what)) for what in reduced]
    found += _changed(
        "spec.clusterIPs", old.cluster_ips, new.cluster_ips, "primary clusterIP can not be unset"
    )
    if was_headless == is_headless:
        before, after = old.ip_families, new.ip_families
        if (before and after and before[0] != after[0]) or (
            len(before) == len(after) == 2 and before != after
        ):
            found.append(_invalid("spec.ipFamilies[0]", after, ONCE))
    return found


def _changed(field: str, old: tuple[str, ...], new: tuple[str, ...], unset: str) -> list[Cause]:
    if len(old) == len(new):
        return [
            _invalid(f"{field}[{index}]", new, ONCE)
            for index, (before, after) in enumerate(zip(old, new, strict=True))
            if before != after
        ]
    if old and not new:
        return [_invalid(f"{field}[0]", new, unset)]
    return [_invalid(f"{field}[0]", new, ONCE)] if old and old[0] != new[0] else []


# Pods

_UPDATABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def _pod(old: Pod, new: Pod) -> list[Cause]:
    before, after = old.spec, new.spec
    if before is after or before == after:
        return []
    for group, had, has in (
        ("containers", before.containers, after.containers),
        ("initContainers", before.init_containers, after.init_containers),
    ):
        if len(had) != len(has):
            return [_forbidden(f"spec.{group}", "pod updates may not add or remove containers")]
    found: list[Cause] = []
    had_deadline, deadline = before.active_deadline_seconds, after.active_deadline_seconds
    if deadline is None:
        if had_deadline is not None:
            text = "must not update from a positive integer to nil value"
            found.append(_invalid("spec.activeDeadlineSeconds", None, text))
    elif had_deadline is not None and deadline > had_deadline:
        text = "must be less than or equal to previous value"
        return [_invalid("spec.activeDeadlineSeconds", deadline, text)]
    for toleration in before.tolerations:
        unchanged = replace(toleration, toleration_seconds=None)
        if not any(replace(item, toleration_seconds=None) == unchanged for item in after.tolerations):
            text = "existing toleration can not be modified except its tolerationSeconds"
            found.append(_forbidden("spec.tolerations", text))
            break
    munged = _as_before(before, after)
    if munged != before:
        from kubenet_lab.objects.pod_text import difference

        found.append(_forbidden("spec", f"{_UPDATABLE}\n{difference(before, munged)}"))
    return found


def _as_before(before: PodSpec, after: PodSpec) -> PodSpec:
    """The new spec with everything that may change as it was."""

    def images(old: tuple[Container, ...], new: tuple[Container, ...]) -> tuple[Container, ...]:
        return tuple(replace(item, image=was.image) for was, item in zip(old, new, strict=True))

    grace = after.termination_grace_period_seconds
    if (before.termination_grace_period_seconds or 0) < 0 and grace == 1:
        grace = before.termination_grace_period_seconds
    kept: PodSpec = replace(
        after,
        containers=images(before.containers, after.containers),
        init_containers=images(before.init_containers, after.init_containers),
        active_deadline_seconds=before.active_deadline_seconds,
        tolerations=before.tolerations,
        termination_grace_period_seconds=grace,
        # Gates may be removed; the scheduler binds, and debugging adds containers, by way of subresources.
        scheduling_gates=before.scheduling_gates,
        node_name=after.node_name if before.node_name else "",
        ephemeral_containers=before.ephemeral_containers,
    )
    return kept


# Other kinds


def _selector(old: Any, new: Any) -> list[Cause]:
    if old.spec.selector == new.spec.selector:
        return []
    return [_invalid("spec.selector", new.spec.selector, IMMUTABLE)]


def _stateful_set(old: StatefulSet, new: StatefulSet) -> list[Cause]:
    fields = {
        "podManagementPolicy": "pod_management_policy",
        "serviceName": "service_name",
        "selector": "selector",
        "volumeClaimTemplates": "volume_claim_templates",
    }
    return _same(old.spec, new.spec, fields)


def _same(old: Any, new: Any, fields: dict[str, str], path: str = "spec") -> list[Cause]:
    return [
        _invalid(f"{path}.{field}", getattr(new, name), IMMUTABLE)
        for field, name in fields.items()
        if getattr(old, name) != getattr(new, name)
    ]


def _job(old: Job, new: Job) -> list[Cause]:
    before, after = old.spec, new.spec
    if before == after:
        return []
    fields = {
        "selector": "selector",
        "podFailurePolicy": "pod_failure_policy",
        "completionMode": "completion_mode",
        "backoffLimitPerIndex": "backoff_limit_per_index",
        "managedBy": "managed_by",
        "successPolicy": "success_policy",
    }
    elastic = (
        after.completion_mode == "Indexed"
        and after.completions is not None
        and after.completions == after.parallelism
    )
    if not elastic:
        fields["completions"] = "completions"
    # A Job that is suspended and has not run may still get other scheduling directives.
    if not (before.suspend and not old.status.start_time):
        fields["template"] = "template"
    return _same(before, after, fields)


def _endpoint_slice(old: EndpointSlice, new: EndpointSlice) -> list[Cause]:
    # The server leaves the value out of this one.
    return [] if old.address_type == new.address_type else [_invalid("addressType", None, IMMUTABLE)]


def _config_map(old: ConfigMap, new: ConfigMap) -> list[Cause]:
    return _frozen(old, new, {"data": "data", "binaryData": "binary_data"})


def _secret(old: Secret, new: Secret) -> list[Cause]:
    found = [] if old.type == new.type else [_invalid("type", new.type, IMMUTABLE)]
    return found + _frozen(old, new, {"data": "data"})


def _frozen(old: Any, new: Any, fields: dict[str, str]) -> list[Cause]:
    if not old.immutable:
        return []
    text = "field is immutable when `immutable` is set"
    found = [] if new.immutable else [_forbidden("immutable", text)]
    return found + [
        _forbidden(field, text) for field, name in fields.items() if getattr(old, name) != getattr(new, name)
    ]


def _ingress_class(old: IngressClass, new: IngressClass) -> list[Cause]:
    return _same(old.spec, new.spec, {"controller": "controller"})


def _node(old: Node, new: Node) -> list[Cause]:
    if old.spec is new.spec:
        return []
    found: list[Cause] = []
    text = 'node updates may not change {} except from "" to valid'
    if old.spec.pod_cidrs and old.spec.pod_cidrs != new.spec.pod_cidrs:
        found.append(_forbidden("spec.podCIDRs", text.format("podCIDR")))
    if old.spec.provider_id and old.spec.provider_id != new.spec.provider_id:
        found.append(_forbidden("spec.providerID", text.format("providerID")))
    return found


_CHECKS: dict[type, Callable[[Any, Any], list[Cause]]] = {
    Service: _service,
    Pod: _pod,
    Deployment: _selector,
    ReplicaSet: _selector,
    DaemonSet: _selector,
    StatefulSet: _stateful_set,
    Job: _job,
    EndpointSlice: _endpoint_slice,
    ConfigMap: _config_map,
    Secret: _secret,
    IngressClass: _ingress_class,
    Node: _node,
}
