"""`kubectl get` beside what kubectl printed of the same objects."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import pytest
from oracles import open_case

from diagnostics import kubectl

CASE = open_case("kubectl", "get")
RESOURCES = {kind.kind: kind.resource for kind in kubectl.KINDS}


class Recorded:
    """The recorded objects, behind the API that kubectl sees."""

    def list(self, kind: str, namespace: str | None) -> list[dict[str, Any]]:
        group = next(k.api_version for k in kubectl.KINDS if k.kind == kind)
        found = [{"apiVersion": group, "kind": kind, **item} for item in CASE["objects"][RESOURCES[kind]]]
        return [item for item in found if namespace in (None, item["metadata"].get("namespace"))]


def created() -> float:
    """Return the moment the objects were made."""
    text = CASE["objects"]["pods"][0]["metadata"]["creationTimestamp"]
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def masked(text: str) -> str:
    """Hide ages, which depend on the clock of the recording, and the width they give a column."""
    text = re.sub(r"\b(\d+[smhdy]){1,2}\b", "AGE", text)
    return re.sub(r" +", " ", text)


TABLES = [
    call
    for call in CASE["kubectl"]
    if call["args"][0] == "get"
    and call["args"][1].split("/")[0]
    in (
        "pods",
        "pod",
        "svc",
        "endpointslices",
        "nodes",
        "deploy",
        "ns",
        "netpol",
        "pods,svc",
        "nope",
        "svc/nope",
    )
    and not any(word.startswith(("jsonpath", "custom-columns")) for word in call["args"])
    and "-A" not in call["args"]
]


@pytest.mark.parametrize("call", TABLES, ids=[" ".join(call["args"][1:]) for call in TABLES])
def test_get_prints_what_kubectl_printed(call: dict[str, Any]) -> None:
    done = kubectl.run(Recorded(), call["args"], now=created() + 4)
    assert masked(done.out) == masked(call["stdout"])
    assert done.exit_code == call["exit"]
    assert done.err == call.get("stderr", "")


def test_the_calls_are_many() -> None:
    assert len(TABLES) > 20


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["describe", "pod", "x"], "kubectl: not modelled: kubectl describe\n"),
        (["get", "pods", "-w"], "kubectl: not modelled: option -w\n"),
        (["get", "pods", "-o", "jsonpath={.items}"], "kubectl: not modelled: option -o jsonpath\n"),
    ],
)
def test_what_is_not_modelled_is_refused_by_name(argv: list[str], message: str) -> None:
    done = kubectl.run(Recorded(), argv)
    assert (done.err, done.exit_code) == (message, 64)


def test_network_policies_have_their_selector() -> None:
    """Printers of pkg/printers/internalversion, printNetworkPolicy: metav1.FormatLabelSelector."""
    expressions = [
        {"key": "tier", "operator": "NotIn", "values": ["b", "a"]},
        {"key": "old", "operator": "DoesNotExist"},
        {"key": "app", "operator": "Exists"},
    ]
    selectors = {
        "one": {"matchLabels": {"app": "web"}},
        "every": {},
        "more": {"matchExpressions": expressions, "matchLabels": {"zone": "z"}},
    }

    class Policies:
        def list(self, kind: str, namespace: str | None) -> list[dict[str, Any]]:
            assert kind == "NetworkPolicy"
            return [
                {
                    "kind": kind,
                    "metadata": {"name": name, "namespace": "default"},
                    "spec": {"podSelector": one},
                }
                for name, one in selectors.items()
            ]

    done = kubectl.run(Policies(), ["get", "netpol"], now=0)
    assert [" ".join(line.split()) for line in done.out.splitlines()] == [
        "NAME POD-SELECTOR AGE",
        "one app=web <unknown>",
        "every <none> <unknown>",
        "more app,!old,tier notin (a,b),zone=z <unknown>",
    ]
