"""Explanations name the rule that decided, and every change they offer does what it says."""

from __future__ import annotations

import pytest

from kubenet_lab import manifests
from kubenet_lab.policy.explain import Explanation, explain
from kubenet_lab.policy.workloads import with_pods
from kubenet_lab.policy.world import CLUSTER, World
from kubenet_lab.scenarios.shop import MANIFEST as SHOP
from tests.kubenet_lab.policy.worlds import tables, world_of
from tests.oracles import open_case

HEAD = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: NAME}\nspec:\n"
DATABASE = HEAD.replace("NAME", "database") + (
    "  podSelector: {matchLabels: {app: database}}\n"
    "  ingress:\n"
    "  - from: [{podSelector: {matchLabels: {app: backend}}}]\n"
    "    ports: [{port: 5432}]\n"
)
QUIET = (
    HEAD.replace("NAME", "quiet") + "  podSelector: {matchLabels: {app: frontend}}\n  policyTypes: [Egress]\n"
)


def shop(*texts: str) -> World:
    objects = manifests.load(SHOP, *texts)
    return World.from_objects(with_pods(objects), conventions=CLUSTER)


def ask(world: World, source: str, destination: str, port: int) -> Explanation:
    names = {e.name: e for e in world.endpoints} | {
        e.owner.rpartition("/")[2]: e for e in world.endpoints if e.owner
    }
    ends = [names.get(name) or world.endpoint(name) for name in (source, destination)]
    return explain(world, *ends, port, place=lambda policy, field: f"{policy.name}.yaml {field}")


def test_a_denied_flow_names_policy_rule_and_what_does_not_fit() -> None:
    told = ask(shop(DATABASE), "frontend", "database", 5432)
    assert not told.allowed
    text = told.text()
    assert "DENIED by the ingress of default/database" in text
    assert "ingress rule 1 lets through only from pods with app=backend" in text
    assert "[database.yaml spec.ingress[0]]" in text
    assert "default/frontend has app=frontend" in text
    assert any(flip.text.startswith("give default/frontend the labels app=backend") for flip in told.flips)
    assert any(flip.text == "delete NetworkPolicy default/database" for flip in told.flips)


def test_an_allowed_flow_names_the_rule_that_let_it_through() -> None:
    told = ask(shop(DATABASE), "backend", "database", 5432)
    assert told.allowed
    (reason,) = [reason for reason in told.ingress if reason.field]
    assert (reason.policy, reason.field) == ("NetworkPolicy default/database", "spec.ingress[0].from[0]")
    assert any(flip.text == "remove ingress rule 1 of NetworkPolicy default/database" for flip in told.flips)


def test_a_wrong_port_is_told_from_a_wrong_peer() -> None:
    told = ask(shop(DATABASE), "backend", "database", 5433)
    assert "port 5433/TCP is not meant" in told.text()
    assert any(flip.text.startswith("add port 5433/TCP to ingress rule 1") for flip in told.flips)


def test_when_both_ends_deny_no_change_alone_is_enough() -> None:
    told = ask(shop(DATABASE, QUIET), "frontend", "database", 5432)
    assert told.judgement.letter == "B"
    assert told.flips
    assert not any(flip.complete for flip in told.flips)
    assert "Both ends deny" in told.text()


def test_a_named_port_that_is_another_number_there_is_told() -> None:
    named = DATABASE.replace("port: 5432", "port: postgres")
    assert ask(shop(named), "backend", "database", 5432).allowed
    assert '"postgres" is 5432/TCP at default/database' in ask(shop(named), "backend", "database", 80).text()
    missing = DATABASE.replace("port: 5432", "port: mysql")
    assert 'declares no port named "mysql"' in ask(shop(missing), "backend", "database", 5432).text()


@pytest.mark.parametrize("kind", ["random-", "tiers-"])
def test_every_change_offered_turns_the_flow_in_recorded_worlds(kind: str) -> None:
    """`explain` judges each change itself; here the words are held to be there wherever one side alone denies."""
    seen = 0
    for name in tables(kind)[::60]:
        world = world_of(open_case("policy", name))
        for source in world.endpoints[:4]:
            for destination in world.endpoints[:4]:
                told = explain(world, source, destination, 80)
                if told.judgement.letter in "IE":
                    assert told.flips, (name, told.text())
                    seen += 1
    assert seen > 20
