"""Policies from a list of flows do exactly what was asked for."""

from __future__ import annotations

import random

from kubenet_lab import manifests
from kubenet_lab.policy.advice import Flow, allow_only, default_deny
from kubenet_lab.policy.evaluate import judge
from kubenet_lab.policy.workloads import with_pods
from kubenet_lab.policy.world import World, policy_of
from kubenet_lab.scenarios.shop import MANIFEST as SHOP
from tests.kubenet_lab.policy.worlds import tables, world_of
from tests.oracles import open_case


def shop() -> World:
    return World.from_objects(with_pods(manifests.load(SHOP)))


def backends(world: World) -> list[str]:
    return [endpoint.name for endpoint in world.endpoints if "backend" in endpoint.name]


def test_the_shops_flows_and_no_other() -> None:
    world = shop()
    flows = [Flow("default/frontend", name, 8080) for name in backends(world)]
    flows += [Flow(name, "default/database", 5432) for name in backends(world)]
    advice = allow_only(world, flows)
    assert not advice.missing
    assert not advice.surplus
    assert [policy.name for policy in advice.policies] == [
        "default-deny",
        "allow-backend",
        "allow-database",
        "allow-frontend",
    ]
    # What is printed is what the API server takes, and means the same.
    again = manifests.load(advice.text())
    assert [obj.to_manifest() for obj in again] == [policy.to_manifest() for policy in advice.policies]
    after = World.from_objects([*with_pods(manifests.load(SHOP)), *again])
    assert not judge(after, after.endpoint("frontend"), after.endpoint("database"), 5432).allowed
    assert not judge(after, after.endpoint("frontend"), after.endpoint(backends(after)[0]), 22).allowed


def test_replicas_are_opened_together_and_that_is_said() -> None:
    world = shop()
    first, *others = backends(world)
    advice = allow_only(world, [Flow(first, "default/database", 5432)])
    assert not advice.missing
    assert {flow.source for flow in advice.surplus} == set(others)


def test_default_deny_leaves_dns_and_nothing_else() -> None:
    coredns = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: coredns, namespace: kube-system, labels: {k8s-app: kube-dns}}\n"
        "spec: {containers: [{name: c, image: c}]}\n"
    )
    objects = [*with_pods(manifests.load(SHOP, coredns)), default_deny("default")]
    world = World.from_objects(objects)
    frontend, server = world.endpoint("frontend"), world.endpoint("kube-system/coredns")
    assert judge(world, frontend, server, 53, "UDP").allowed
    assert judge(world, frontend, server, 53, "TCP").allowed
    assert not judge(world, frontend, server, 80).allowed
    assert not judge(world, server, frontend, 80).allowed
    assert policy_of(default_deny("default", dns=False)) is not None


def test_any_list_of_flows_between_recorded_pods_works() -> None:
    """Whatever is asked for is allowed, and what more is open only pods with the same labels can have brought."""
    chance = random.Random(5)
    for name in tables("random-")[::90]:
        world = world_of(open_case("policy", name)).with_policies([])
        pods = [endpoint for endpoint in world.endpoints if endpoint.is_pod]
        flows = []
        for _ in range(4):
            source, destination = chance.sample(pods, 2)
            flows.append(Flow(source.name, destination.name, chance.choice((80, 443))))
        advice = allow_only(world, flows)
        assert not advice.missing, name
        labels = {(pod.namespace, tuple(sorted(pod.labels.items()))) for pod in pods}
        if len(labels) == len(pods) and all(pod.labels for pod in pods):
            for flow in advice.surplus:
                source, destination = world.endpoint(flow.source), world.endpoint(flow.destination)
                kin = [pod for pod in pods if pod is not source and _covers(pod, source)] + [
                    pod for pod in pods if pod is not destination and _covers(pod, destination)
                ]
                assert kin, (name, flow)


def _covers(pod: object, other: object) -> bool:
    """Whether a selector made of all of a pod's labels also means another pod."""
    mine, theirs = pod.labels, other.labels  # type: ignore[attr-defined]
    same = pod.namespace == other.namespace  # type: ignore[attr-defined]
    return same and all(theirs.get(key) == value for key, value in mine.items())
