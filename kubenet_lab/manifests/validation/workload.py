"""Deployment, ReplicaSet, StatefulSet, DaemonSet, Job (`pkg/apis/{apps,batch}/validation`)."""

from __future__ import annotations

from typing import Any

from kubenet_lab.manifests.schema import Path
from kubenet_lab.manifests.validation.cause import (
    Causes,
    Json,
    forbidden,
    invalid,
    invalids,
    required,
    unsupported,
)
from kubenet_lab.manifests.validation.metadata import selector, selects
from kubenet_lab.manifests.validation.pod import template
from kubenet_lab.manifests.validation.values import NOT_NEGATIVE, count_or_percent, dns_label

SPEC: Path = ("spec",)
TEMPLATE: Path = ("spec", "template")
POD: Path = ("spec", "template", "spec")


def deployment(document: Json) -> Causes:
    """What is wrong with a Deployment."""
    spec = document.get("spec") or {}
    found = _not_negative(spec, "replicas")
    found += _selector_and_template(spec, "deployment", "ReplicaSet")
    found += _strategy(spec.get("strategy") or {})
    found += _not_negative(spec, "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")
    deadline, ready = spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds") or 0
    deadline = 600 if deadline is None else deadline
    if deadline <= ready:
        found.append(
            invalid((*SPEC, "progressDeadlineSeconds"), deadline, "must be greater than minReadySeconds")
        )
    return found


def replica_set(document: Json) -> Causes:
    """What is wrong with a ReplicaSet."""
    spec = document.get("spec") or {}
    found = _not_negative(spec, "replicas", "minReadySeconds")
    # The server's word for both kinds is deployment.
    return found + _selector_and_template(spec, "deployment", "ReplicaSet")


def stateful_set(document: Json) -> Causes:
    """What is wrong with a StatefulSet."""
    spec = document.get("spec") or {}
    found: Causes = []
    policy = spec.get("podManagementPolicy") or "OrderedReady"
    if policy not in ("OrderedReady", "Parallel"):
        text = "must be 'OrderedReady' or 'Parallel'"
        found.append(invalid((*SPEC, "podManagementPolicy"), policy, text))
    found += _stateful_strategy(spec.get("updateStrategy") or {})
    found += _not_negative(spec, "replicas", "minReadySeconds")
    start = (spec.get("ordinals") or {}).get("start") or 0
    if start < 0:
        found.append(invalid((*SPEC, "ordinals", "start"), start, NOT_NEGATIVE))
    name = spec.get("serviceName") or ""
    if name:
        found += invalids((*SPEC, "serviceName"), name, dns_label(name))
    return found + _selector_and_template(spec, "statefulset", "StatefulSet")


def daemon_set(document: Json) -> Causes:
    """What is wrong with a DaemonSet."""
    spec = document.get("spec") or {}
    given = spec.get("selector")
    found = selector(given, (*SPEC, "selector"))
    found += _mismatch(given, spec)
    if given is not None and _empty(given):
        found.append(invalid((*SPEC, "selector"), given, "empty selector is invalid for daemonset"))
    found += template(spec.get("template") or {}, TEMPLATE)
    found += _always(spec, "DaemonSet")
    found += _not_negative(spec, "minReadySeconds")
    found += _daemon_strategy(spec.get("updateStrategy") or {})
    return found + _not_negative(spec, "revisionHistoryLimit")


def job(document: Json) -> Causes:
    """What is wrong with a Job."""
    spec = document.get("spec") or {}
    found = _not_negative(
        spec,
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    )
    mode = spec.get("completionMode")
    if mode is not None and mode not in ("NonIndexed", "Indexed"):
        found.append(unsupported((*SPEC, "completionMode"), mode, ("Indexed", "NonIndexed")))
    if mode == "Indexed" and spec.get("completions") is None:
        text = "when completion mode is Indexed"
        found.append(required((*SPEC, "completions"), text))
    if spec.get("manualSelector"):
        found += selector(spec.get("selector"), (*SPEC, "selector"))
        found += _mismatch(spec.get("selector"), spec)
    pod_template = spec.get("template") or {}
    found += template(pod_template, TEMPLATE)
    policy = (pod_template.get("spec") or {}).get("restartPolicy") or "Always"
    if policy not in ("OnFailure", "Never"):
        text = 'valid values: "OnFailure", "Never"'
        found.append(required((*POD, "restartPolicy"), text, "write restartPolicy: Never or OnFailure"))
    return found


def cron_job(document: Json) -> Causes:
    """What is wrong with the pods of a CronJob."""
    spec: Json = ((document.get("spec") or {}).get("jobTemplate") or {}).get("spec") or {}
    return template(spec.get("template") or {}, ("spec", "jobTemplate", "spec", "template"))


def _not_negative(spec: Json, *fields: str) -> Causes:
    return [
        invalid((*SPEC, field), spec[field], NOT_NEGATIVE)
        for field in fields
        if spec.get(field) is not None and spec[field] < 0
    ]


def _empty(given: Json) -> bool:
    return not (given.get("matchLabels") or given.get("matchExpressions"))


def _selector_and_template(spec: Json, word: str, kind: str) -> Causes:
    given, found = spec.get("selector"), Causes()
    if given is None:
        hint = "selector.matchLabels repeats the labels of the template"
        found.append(required((*SPEC, "selector"), help=hint))
    else:
        found += selector(given, (*SPEC, "selector"))
        if _empty(given):
            found.append(invalid((*SPEC, "selector"), given, f"empty selector is invalid for {word}"))
    if given and selects(given, {}) is None:
        text = "invalid label selector" if kind == "ReplicaSet" else ""
        return [*found, invalid((*SPEC, "selector"), given, text)]
    found += _mismatch(given, spec)
    found += template(spec.get("template") or {}, TEMPLATE)
    return found + _always(spec, kind)


def _mismatch(given: Json | None, spec: Json) -> Causes:
    if given is not None and _empty(given):
        return []
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
    if selects(given, labels or {}) is not False:
        return []
    pairs = ", ".join(f"{key}: {value}" for key, value in ((given or {}).get("matchLabels") or {}).items())
    value: Any = dict(sorted(labels.items())) if labels else None
    text = "`selector` does not match template `labels`"
    hint = f"add {pairs} to them" if pairs else ""
    return [invalid((*TEMPLATE, "metadata", "labels"), value, text, hint)]


def _always(spec: Json, kind: str) -> Causes:
    found: Causes = []
    pod = (spec.get("template") or {}).get("spec") or {}
    policy = pod.get("restartPolicy") or "Always"
    if policy != "Always":
        found.append(unsupported((*POD, "restartPolicy"), policy, ("Always",)))
    if pod.get("activeDeadlineSeconds") is not None:
        text = f"activeDeadlineSeconds in {kind} is not Supported"
        found.append(forbidden((*POD, "activeDeadlineSeconds"), text))
    return found


def _share(value: int | str) -> int:
    """The number in `25%` or in 25; 0 where there is none."""
    if isinstance(value, int):
        return value
    digits = value.removesuffix("%")
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _roll_out(given: Json, path: Path, unavailable: int | str, surge: int | str) -> tuple[Causes, int, int]:
    """The two limits of a rolling update, and what they come to."""
    found: Causes = []
    limits = []
    for field, default in (("maxUnavailable", unavailable), ("maxSurge", surge)):
        value = given.get(field)
        limits.append((field, default if value is None else value))
    for field, value in limits:
        found += invalids((*path, field), value, count_or_percent(value))
    return found, _share(limits[0][1]), _share(limits[1][1])


def _over_100(given: Json, path: Path, *fields: str) -> Causes:
    return [
        invalid((*path, field), given[field], "must not be greater than 100%")
        for field in fields
        if isinstance(given.get(field), str) and given[field].endswith("%") and _share(given[field]) > 100
    ]


def _strategy(strategy: Json) -> Causes:
    place = (*SPEC, "strategy")
    kind, rolling = strategy.get("type") or "RollingUpdate", strategy.get("rollingUpdate")
    path: Path = (*place, "rollingUpdate")
    if kind == "Recreate":
        if rolling is None:
            return []
        return [forbidden(path, "may not be specified when strategy `type` is 'Recreate'")]
    if kind != "RollingUpdate":
        # An internal object, which the server prints with its Go names and no defaults.
        limits = None
        if rolling is not None:
            limits = {
                "MaxUnavailable": rolling.get("maxUnavailable") or 0,
                "MaxSurge": rolling.get("maxSurge") or 0,
            }
        shown = {"Type": kind, "RollingUpdate": limits}
        return [unsupported(place, shown, ("Recreate", "RollingUpdate"))]
    rolling = rolling or {}
    found, unavailable, surge = _roll_out(rolling, path, "25%", "25%")
    if unavailable == 0 and surge == 0:
        text = "may not be 0 when `maxSurge` is 0"
        value = rolling.get("maxUnavailable") or 0
        found.append(invalid((*path, "maxUnavailable"), value, text, "let one of the two be 1"))
    return found + _over_100(rolling, path, "maxUnavailable")


def _daemon_strategy(strategy: Json) -> Causes:
    place = (*SPEC, "updateStrategy")
    kind, rolling = strategy.get("type") or "RollingUpdate", strategy.get("rollingUpdate") or {}
    if kind == "OnDelete":
        return []
    if kind != "RollingUpdate":
        shown = {"Type": kind, "RollingUpdate": strategy.get("rollingUpdate")}
        return [unsupported(place, shown, ("RollingUpdate", "OnDelete"))]
    path: Path = (*place, "rollingUpdate")
    found, unavailable, surge = _roll_out(rolling, path, 1, 0)
    found += _over_100(rolling, path, "maxUnavailable", "maxSurge")
    if unavailable and surge:
        text = "may not be set when maxUnavailable is non-zero"
        found.append(invalid((*path, "maxSurge"), rolling.get("maxSurge"), text, "add maxUnavailable: 0"))
    elif not unavailable and not surge:
        found.append(required((*path, "maxUnavailable"), "cannot be 0 when maxSurge is 0"))
    return found


def _stateful_strategy(strategy: Json) -> Causes:
    place = (*SPEC, "updateStrategy")
    kind, rolling = strategy.get("type") or "RollingUpdate", strategy.get("rollingUpdate")
    path: Path = (*place, "rollingUpdate")
    shown = None
    if rolling is not None:
        shown = {"Partition": rolling.get("partition") or 0, "MaxUnavailable": rolling.get("maxUnavailable")}
    if kind == "OnDelete":
        if rolling is None:
            return []
        return [invalid(path, shown, "only allowed for updateStrategy 'RollingUpdate'")]
    if kind != "RollingUpdate":
        value = {"Type": kind, "RollingUpdate": shown}
        return [invalid(place, value, "must be 'RollingUpdate' or 'OnDelete'")]
    found: Causes = []
    partition = (rolling or {}).get("partition") or 0
    if partition < 0:
        found.append(invalid((*path, "partition"), partition, NOT_NEGATIVE))
    limit = (rolling or {}).get("maxUnavailable")
    if limit is not None:
        found += invalids((*path, "maxUnavailable"), limit, count_or_percent(limit))
        if _share(limit) == 0:
            found.append(invalid((*path, "maxUnavailable"), limit, "cannot be 0"))
        found += _over_100(rolling or {}, path, "maxUnavailable")
    return found
