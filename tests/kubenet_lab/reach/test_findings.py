"""What is odd about policies, who is exposed, how far an attacker gets, what changes."""

from __future__ import annotations

import pytest

from kubenet_lab import manifests
from kubenet_lab.policy.workloads import with_pods
from kubenet_lab.policy.world import World
from kubenet_lab.reach import Reach
from kubenet_lab.reach.attack import attack
from kubenet_lab.reach.exposure import exposure
from kubenet_lab.reach.findings import findings, inert
from kubenet_lab.reach.listing import diff
from kubenet_lab.scenarios.shop import MANIFEST as SHOP

HEAD = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:\n"
ADMIN = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: NAME}\nspec:\n"
WALL = (
    HEAD
    + "  podSelector: {matchLabels: {app: database}}\n"
    + "  ingress: [{from: [{podSelector: {matchLabels: {app: backend}}}], ports: [{port: 5432}]}]\n"
)


def shop(*texts: str) -> World:
    return World.from_objects(with_pods(manifests.load(SHOP, *texts)))


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        (HEAD + "  podSelector: {matchLabels: {app: databse}}\n", "selects-nothing", "is about pods with app=databse"),
        (
            HEAD + "  podSelector: {}\n  ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]\n",
            "means-nobody",
            "ingress rule 1 means pods with app=web in namespace default, and there is none",
        ),
        (
            HEAD + "  podSelector: {matchLabels: {app: database}}\n  ingress: [{ports: [{port: http}]}]\n",
            "no-such-port",
            'the port named "http" (TCP) is declared by no container',
        ),
        (
            HEAD + "  podSelector: {}\n  policyTypes: [Ingress]\n  ingress: [{}]\n  egress: [{}]\n",
            "ignored-rules",
            "policyTypes do not name Egress",
        ),
        (
            HEAD
            + "  podSelector: {}\n  ingress:\n  - from: [{podSelector: {}}]\n"
            + "  - from: [{podSelector: {matchLabels: {app: frontend}}}]\n",
            "redundant",
            "ingress rule 2 adds nothing",
        ),
        (
            HEAD
            + "  podSelector: {}\n  policyTypes: [Egress]\n"
            + "  egress: [{to: [{podSelector: {}}], ports: [{port: 8080}]}]\n",
            "no-dns",
            "no policy lets them ask any DNS server (53/UDP)",
        ),
        (
            HEAD
            + "  podSelector: {}\n  ingress:\n  - from:\n    - namespaceSelector: {matchLabels: {team: a}}\n"
            + "    - podSelector: {matchLabels: {app: frontend}}\n",
            "two-peers",
            "OR pods with app=frontend in namespace default",
        ),
        (
            ADMIN.replace("NAME", "a")
            + "  tier: Admin\n  priority: 1\n  subject: {namespaces: {}}\n  ingress:\n"
            + "  - {action: Deny, from: [{namespaces: {}}]}\n  - {action: Accept, from: [{namespaces: {}}]}\n",
            "shadowed",
            "ingress rule 2 is never reached",
        ),
    ],
)  # fmt: skip
def test_oddities_are_told(text: str, kind: str, says: str) -> None:
    found = [item for item in findings(Reach(shop(text))) if item.kind == kind]
    assert found, [item.text for item in findings(Reach(shop(text)))]
    assert says in found[0].text


def test_a_sound_policy_has_nothing_odd() -> None:
    assert findings(Reach(shop(WALL))) == []


def test_a_policy_without_which_all_is_the_same_is_redundant() -> None:
    twice = WALL + "---\n" + WALL.replace("name: p", "name: q")
    kinds = [(item.kind, item.policy) for item in findings(Reach(shop(twice)))]
    assert ("redundant", "NetworkPolicy default/p") in kinds
    assert ("redundant", "NetworkPolicy default/q") in kinds


def test_flannel_enforces_nothing_and_that_is_said() -> None:
    objects = manifests.load(WALL)
    assert "enforces no policy" in inert(objects, "flannel")[0]
    assert inert(objects, "calico") == []
    calico = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: g}\nspec: {}\n"
    assert "Calico's own: it has no part" in inert(manifests.load(calico))[0]


def test_exposure_tells_who_could_come() -> None:
    told = [str(item) for item in exposure(shop(WALL)) if item.workload == "default/database[Pod]"]
    assert (
        "default/database[Pod] can be reached by new pods with app=backend in namespace default : TCP 5432"
        in told
    )
    assert not any("can be reached by any" in line for line in told)
    opened = [str(item) for item in exposure(shop()) if item.workload == "default/database[Pod]"]
    assert "default/database[Pod] can be reached by any pod of a new namespace : All Connections" in opened


def test_a_wall_lengthens_the_way_to_the_database_and_does_not_end_it() -> None:
    before, after = attack(shop(), "default/frontend"), attack(shop(WALL), "default/frontend")
    assert len(before.paths["default/database"]) == 1
    assert len(after.paths["default/database"]) == 2
    assert "backend" in after.paths["default/database"][0].destination
    with pytest.raises(KeyError):
        attack(shop(), "default/nobody")


def test_a_difference_tells_what_opens_and_what_closes() -> None:
    changes = {(c.source, c.destination): str(c)[0] for c in diff(shop(), shop(WALL))}
    assert changes["default/frontend[Pod]", "default/database[Pod]"] == "-"
    assert changes["default/backend[Deployment]", "default/database[Pod]"] == "~"
    assert ("default/database[Pod]", "default/frontend[Pod]") not in changes
