"""Mistakes people make: the API server's sentence, and what traffic does, tried on the model where it is accepted."""

from __future__ import annotations

import warnings

import pytest

from kubenet_lab import manifests
from kubenet_lab.errors import InputError
from kubenet_lab.policy.evaluate import judge
from kubenet_lab.policy.mistakes import meaning
from kubenet_lab.policy.workloads import with_pods
from kubenet_lab.policy.world import World
from kubenet_lab.scenarios.shop import MANIFEST as SHOP

HEAD = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:\n"
ADMIN = (
    "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: p}\n"
    "spec: {subject: {namespaces: {}}, priority: %s}\n"
)
RULE = HEAD + "  podSelector: {matchLabels: {app: database}}\n  ingress:\n  - "


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            HEAD + "  podSelector: {matchExpressions: [{key: app, operator: Is, values: [a]}]}\n",
            'spec.podSelector.matchExpressions[0].operator: Invalid value: "Is": not a valid selector operator',
        ),
        (
            HEAD + "  podSelector: {matchExpressions: [{key: app, operator: In}]}\n",
            "Required value: must be specified when `operator` is 'In' or 'NotIn'",
        ),
        (
            RULE + "from: [{ipBlock: {cidr: 10.0.0.0/8, except: [192.168.0.0/16]}}]\n",
            'Invalid value: "192.168.0.0/16": must be a strict subset of `cidr`',
        ),
        (RULE + "from: [{ipBlock: {cidr: 10.0.0.0}}]\n", 'Invalid value: "10.0.0.0"'),
        (
            RULE + "ports: [{port: 80, endPort: 79}]\n",
            "Invalid value: 79: must be greater than or equal to `port`",
        ),
        (RULE + "ports: [{port: http, endPort: 90}]\n", "may not be specified when `port` is non-numeric"),
        (RULE + "ports: [{endPort: 90}]\n", "may not be specified when `port` is not specified"),
        (RULE + "ports: [{port: '80'}]\n", 'Invalid value: "80": must contain at least one letter'),
        (
            RULE + "ports: [{port: 80, protocol: tcp}]\n",
            'Unsupported value: "tcp": supported values: "TCP", "UDP", "SCTP"',
        ),
        (RULE + "from: [{}]\n", "Required value: must specify a peer"),
        (
            RULE + "from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]\n",
            "Forbidden: may not specify both ipBlock and another peer",
        ),
        (HEAD + "  podSelector: {}\n  policyTypes: [ingress]\n", 'Unsupported value: "ingress"'),
        # The server decodes before it looks at fields.
        (RULE + "from: {podSelector: {}}\n", "spec.ingress[0].from"),
        (HEAD + "  podSelector: {}\n  ingress:\n    from: []\n", "spec.ingress"),
        (
            HEAD.replace("/v1", "/v1beta7") + "  podSelector: {}\n",
            'no matches for kind "NetworkPolicy" in version "networking.k8s.io/v1beta7"',
        ),
    ],
)
def test_what_the_server_refuses_leaves_traffic_as_it_was(text: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        manifests.load(text)
    assert says in str(caught.value)
    assert all(fault.line for fault in caught.value.faults)
    assert all("traffic stays as it is" in meaning(fault) for fault in caught.value.faults)


@pytest.mark.parametrize(
    ("text", "means", "frontend", "backend"),
    [
        (
            RULE + "form: [{podSelector: {matchLabels: {app: backend}}}]\n    ports: [{port: 5432}]\n",
            "a rule without `from` is about everybody",
            True,
            True,
        ),
        (
            RULE + "ports:\n    - port: 5432\n      from: [{podSelector: {matchLabels: {app: backend}}}]\n",
            "peers written under `ports` are lost",
            True,
            True,
        ),
        (
            RULE + "from: [{podSelector: {matchLabels: {app: backend}}}]\n    port: [{port: 80}]\n",
            "a rule without `ports` is about every port",
            False,
            True,
        ),
        (
            HEAD + "  podselector: {matchLabels: {app: frontend}}\n  ingress: []\n",
            "a policy without `podSelector` is about every pod of its namespace",
            False,
            False,
        ),
        (
            HEAD + "  podSelector: {matchLabels: {app: database}}\n  ingres: [{}]\n",
            "a direction that is isolated and has no rules lets nothing through",
            False,
            False,
        ),
        (
            RULE + "from: [{podSelector: {matchlabels: {app: backend}}}]\n",
            "an empty selector selects everything",
            True,
            True,
        ),
        (
            HEAD + "  podSelector: {matchLabels: {app: database}}\n  policyType: [Egress]\n  egress: [{}]\n",
            "without `policyTypes` it isolates ingress",
            False,
            False,
        ),
    ],
)
def test_a_field_that_is_dropped_changes_who_gets_in(
    text: str, means: str, frontend: bool, backend: bool
) -> None:
    with pytest.raises(InputError) as caught:
        manifests.load(text)
    assert any(means in meaning(fault) for fault in caught.value.faults), [
        meaning(f) for f in caught.value.faults
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        policies = manifests.load(text, lenient=True)
    world = World.from_objects([*with_pods(manifests.load(SHOP)), *policies])
    names = {
        name: next(e for e in world.endpoints if name in e.name)
        for name in ("frontend", "backend", "database")
    }
    for name, wanted in (("frontend", frontend), ("backend", backend)):
        assert judge(world, names[name], names["database"], 5432).allowed is wanted, name


def test_a_fault_elsewhere_has_no_meaning_for_policies() -> None:
    with pytest.raises(InputError) as caught:
        manifests.load("apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {portz: []}\n")
    assert {fault.kind for fault in caught.value.faults} == {"Service"}
    assert not any(meaning(fault) for fault in caught.value.faults)


@pytest.mark.parametrize(
    ("text", "help"),
    [
        (RULE + "ports: [80]\n", 'each entry of ports is an object: write its fields after "- "'),
        (RULE + "ports: [{port: 80, endPort: 79}]\n", "write 80 or more"),
        (RULE + "ports: [{port: http, endPort: 90}]\n", "write port as a number"),
        (ADMIN % "2000, ingress: [{action: Deny, from: [{namespaces: {}}]}]", "write 1000 or less"),
        (ADMIN % "1, ingress: [{action: Deny}]", "add from:"),
        (ADMIN % "1, ingress: [{action: Deny, from: []}]", "list at least 1"),
    ],
)
def test_every_refusal_has_a_remedy(text: str, help: str) -> None:
    with pytest.raises(InputError) as refused:
        manifests.read(text)
    assert help in [fault.help for fault in refused.value.faults]
