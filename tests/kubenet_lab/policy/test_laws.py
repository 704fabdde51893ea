"""Laws that hold for any policies: union, order, names."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from kubenet_lab.objects import from_manifest
from kubenet_lab.policy.evaluate import table
from kubenet_lab.policy.world import World, policy_of
from kubenet_lab.reach import Reach
from tests.kubenet_lab.policy.worlds import world_of

PROBES = ["80/TCP", "53/UDP"]
LABELS = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["a", "b"]), max_size=2)
SELECTORS = st.one_of(
    st.just({}),
    LABELS.map(lambda labels: {"matchLabels": labels}),
    st.builds(
        lambda key, op: {"matchExpressions": [{"key": key, "operator": op}]},
        st.sampled_from(["app", "tier"]),
        st.sampled_from(["Exists", "DoesNotExist"]),
    ),
    st.builds(
        lambda key, op, values: {"matchExpressions": [{"key": key, "operator": op, "values": values}]},
        st.sampled_from(["app", "tier"]),
        st.sampled_from(["In", "NotIn"]),
        st.lists(st.sampled_from(["a", "b"]), min_size=1, max_size=2, unique=True),
    ),
)
PEERS = st.one_of(
    SELECTORS.map(lambda chosen: {"podSelector": chosen}),
    st.just({"namespaceSelector": {}}),
    st.builds(
        lambda space, pods: {"namespaceSelector": {"matchLabels": {"team": space}}, "podSelector": pods},
        st.sampled_from(["red", "blue"]),
        SELECTORS,
    ),
    st.sampled_from(
        [{"ipBlock": {"cidr": "10.0.0.0/30"}}, {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.2/32"]}}]
    ),
)
PORTS = st.sampled_from([{"port": 80}, {"protocol": "UDP"}, {"port": 50, "endPort": 90}, {"port": "http"}])


def rules(field: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    rule = st.fixed_dictionaries(
        {}, optional={field: st.lists(PEERS, max_size=2), "ports": st.lists(PORTS, max_size=2)}
    )
    return st.lists(rule, max_size=2)


POLICIES = st.lists(
    st.tuples(
        st.sampled_from(["x", "y"]),
        st.fixed_dictionaries(
            {
                "podSelector": SELECTORS,
                "policyTypes": st.sampled_from([["Ingress"], ["Egress"], ["Ingress", "Egress"]]),
            },
            optional={"ingress": rules("from"), "egress": rules("to")},
        ),
    ),
    max_size=4,
)
PODS = st.lists(LABELS, min_size=3, max_size=5)


def build(pods: list[dict[str, str]], policies: list[Any]) -> World:
    return world_of(
        {
            "namespaces": {"x": {"team": "red"}, "y": {"team": "blue"}},
            "pods": [
                {
                    "namespace": "xy"[number % 2],
                    "name": f"p{number}",
                    "labels": labels,
                    "ip": f"10.0.0.{number + 1}",
                    "ports": [{"port": 80, "protocol": "TCP", "name": "http" if number % 3 else ""}],
                }
                for number, labels in enumerate(pods)
            ],
            "policies": [
                {
                    "apiVersion": "networking.k8s.io/v1",
                    "kind": "NetworkPolicy",
                    "metadata": {"name": f"n{number}", "namespace": space},
                    "spec": spec,
                }
                for number, (space, spec) in enumerate(policies)
            ],
            "external": ["8.8.8.8"],
        }
    )


@settings(max_examples=60, deadline=None)
@given(PODS, POLICIES)
def test_both_roads_to_a_table_agree(pods: list[dict[str, str]], policies: list[Any]) -> None:
    world = build(pods, policies)
    assert Reach(world).table(PROBES) == table(world, PROBES)


@settings(max_examples=60, deadline=None)
@given(PODS, POLICIES, st.randoms(use_true_random=False))
def test_the_union_is_free_of_order(pods: list[dict[str, str]], policies: list[Any], chance: Any) -> None:
    mixed = list(policies)
    chance.shuffle(mixed)
    assert Reach(build(pods, policies)).table(PROBES) == Reach(build(pods, mixed)).table(PROBES)


@settings(max_examples=60, deadline=None)
@given(PODS, POLICIES, st.data())
def test_a_policy_more_opens_only_what_another_policy_had_closed(
    pods: list[dict[str, str]], policies: list[Any], data: st.DataObject
) -> None:
    """A pod that nobody else isolated is never opened by one more policy, and one that is selected never closed."""
    world = build(pods, policies)
    if not world.policies:
        return
    extra = world.policies[data.draw(st.integers(0, len(world.policies) - 1))]
    before = Reach(world.with_policies([policy for policy in world.policies if policy is not extra]))
    after, index = Reach(world), Reach(world).index
    for probe in PROBES:
        number, protocol = probe.split("/")
        for source in world.endpoints:
            for target in world.endpoints:
                flow = (source.name, target.name, int(number), protocol)
                old, new = before.verdict(*flow), after.verdict(*flow)
                for side, pod, direction in ((0, source, "Egress"), (1, target, "Ingress")):
                    at = index.class_of[world.endpoints.index(pod)]
                    held = any(
                        direction in policy.isolates and index.peer(policy.subject) >> at & 1
                        for policy in world.policies
                        if policy is not extra
                    )
                    if held:
                        assert new[side] or not old[side], "a union never closes"
                    else:
                        assert old[side] or not new[side], "an open pod cannot be opened further"


@settings(max_examples=40, deadline=None)
@given(PODS, POLICIES)
def test_names_do_not_matter(pods: list[dict[str, str]], policies: list[Any]) -> None:
    world = build(pods, policies)
    renamed = replace(
        world,
        endpoints=tuple(
            replace(end, name=f"{end.namespace}/q-{end.name.rpartition('/')[2]}") if end.is_pod else end
            for end in world.endpoints
        ),
        policies=tuple(replace(policy, name=f"z{policy.name}") for policy in world.policies),
    )
    assert Reach(renamed).table(PROBES) == Reach(world).table(PROBES)
    assert table(renamed, PROBES) == table(world, PROBES)


def test_a_policy_object_that_is_none() -> None:
    assert (
        policy_of(from_manifest({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}})) is None
    )
