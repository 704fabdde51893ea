"""The evaluator, held to what independent engines say of recorded worlds, cell by cell."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from kubenet_lab.objects import from_manifest
from kubenet_lab.policy.evaluate import judge, parse_port, table
from kubenet_lab.policy.world import CLUSTER, Conventions, World
from tests.kubenet_lab.policy.worlds import Json, differences, steps, tables, world_of
from tests.oracles import cases, open_case

EVERY = 1 if os.environ.get("KUBENET_ALL_POLICY_WORLDS") else 8
"""The evaluator goes flow by flow; `tests/kubenet_lab/reach` runs all worlds, this one in eight."""


@pytest.mark.parametrize("kind", ["random-", "tiers-", "disagreements-", "edges-"])
def test_recorded_worlds(kind: str) -> None:
    names = tables(kind)[:: EVERY if kind != "edges-" else 1]
    assert names
    for name in names:
        case = open_case("policy", name)
        want = case.get("expected") or case["correct"]
        got = table(world_of(case), case["probes"])
        assert not differences(case, got, want), f"{name}: {case['policies']}"


def test_every_cyclonus_step() -> None:
    seen = 0
    for name, case in steps()[:: 1 if EVERY == 1 else 4]:
        world = world_of(case)
        assert [endpoint.name for endpoint in world.endpoints] == case["podOrder"]
        for probe, want in case["expected"].items():
            for i, source in enumerate(world.endpoints):
                for j, destination in enumerate(world.endpoints):
                    found = judge(world, source, destination, *parse_port(probe))
                    words = (found.ingress.allowed, found.egress.allowed, found.allowed)
                    cells = (want["ingress"][i][j], want["egress"][i][j], want["combined"][i][j])
                    assert words == tuple(cell == "." for cell in cells), (name, probe, source, destination)
                    seen += 1
    assert seen > 10_000


# -- what engines differ in, decided ----------------------------------------------------------------------------------


def disagreements(engine: str, kind: str) -> list[Json]:
    """The worlds on which an engine deviates in one way alone, and all its deviating cells are recorded."""
    found = []
    for name in cases("policy", "disagreements-"):
        case = open_case("policy", name)
        differs = case["differs"].get(engine)
        if differs and differs["types"] == [kind] and differs["n"] == len(differs["cells"]):
            found.append(case)
    return found


def engine_table(case: Json, engine: str) -> dict[str, list[str]]:
    """What an engine said, put together from the right table and the cells in which it differs."""
    rows = {probe: [list(row) for row in case["correct"][probe]] for probe in case["probes"]}
    for probe, i, j, letter in case["differs"][engine]["cells"]:
        rows[probe][i][j] = letter
    return {probe: ["".join(row) for row in given] for probe, given in rows.items()}


def combined(given: dict[str, list[str]]) -> dict[str, list[str]]:
    """Allowed or not, as analyzers tell it."""
    fold = str.maketrans("IEB", "XXX")
    return {probe: [row.translate(fold) for row in rows] for probe, rows in given.items()}


@pytest.mark.parametrize("engine", ["network-config-analyzer", "netpol-analyzer"])
def test_a_block_matches_pods_by_convention_and_the_switch_gives_the_analyzers_answer(engine: str) -> None:
    """`ipnopod`: the API does not exempt pods from an ipBlock; two analyzers do."""
    found = disagreements(engine, "ipnopod")
    assert len(found) > 20
    for case in found:
        world = world_of(case, Conventions(block_matches_pods=False))
        got, want = combined(table(world, case["probes"])), combined(engine_table(case, engine))
        for probe in want:
            for i, row in enumerate(want[probe]):
                # Self cells are not reported by one of the two.
                hidden = [j for j in range(len(row)) if j != i]
                assert [got[probe][i][j] for j in hidden] == [row[j] for j in hidden], (case["id"], probe, i)


def test_every_kind_of_disagreement_is_there_and_decided_as_recorded() -> None:
    """The deviating answer is never ours, whatever the kind."""
    kinds: Counter[str] = Counter()
    for name in cases("policy", "disagreements-"):
        case = open_case("policy", name)
        world = world_of(case)
        for engine, differs in case["differs"].items():
            kinds.update(differs["types"])
            for probe, i, j, letter in differs["cells"][:3]:
                source, destination = world.endpoints[i], world.endpoints[j]
                got = judge(world, source, destination, *parse_port(probe)).letter
                assert got == case["correct"][probe][i][j], (name, engine, differs["types"])
                assert got != letter, (name, engine)
    assert {
        "ipnopod", "existsns", "notin", "egresskey", "emptyval", "v6zero", "nsempty",
        "npskip", "nodelabels", "namedany", "nonodes", "netnopod", "namedsuffix",
    } <= set(kinds)  # fmt: skip


POLICY = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy"}


def small(*specs: Json, **pod: Json) -> World:
    """Two pods x/a (app=a) and x/b (app=b), and the policies of these specs in x."""
    base = {
        "namespaces": {"x": {}, "y": {"team": "red"}},
        "nodes": [{"name": "node1", "labels": {}, "ips": ["192.0.2.11"]}],
        "pods": [
            {"namespace": "x", "name": "a", "labels": {"app": "a"}, "ip": "10.0.0.1", "ports": []},
            {"namespace": "x", "name": "b", "labels": {"app": "b"}, "ip": "10.0.0.2", "ports": []},
        ],
        "policies": [
            {**POLICY, "metadata": {"name": f"p{number}", "namespace": "x"}, "spec": spec}
            for number, spec in enumerate(specs)
        ],
        "external": ["192.0.2.11"],
    }
    return world_of(base, CLUSTER)


DENY_IN = {"podSelector": {}, "policyTypes": ["Ingress"]}


def test_a_pod_always_reaches_itself_in_a_cluster() -> None:
    world = small(DENY_IN)
    a, b = world.endpoint("x/a"), world.endpoint("x/b")
    assert judge(world, a, a, 80).ingress.why == "itself"
    assert not judge(world, b, a, 80).allowed


def test_a_pods_own_node_is_let_in_and_another_is_not() -> None:
    world = small(DENY_IN)
    node, elsewhere = world.endpoint("192.0.2.11"), world.endpoint("192.0.2.99")
    assert judge(world, node, world.endpoint("x/a"), 80).ingress.why == "own node"
    assert not judge(world, elsewhere, world.endpoint("x/a"), 80).allowed


def test_a_pod_in_its_nodes_network_is_the_node_to_others() -> None:
    pod = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "n", "namespace": "x", "labels": {"app": "b"}},
        "spec": {"hostNetwork": True, "nodeName": "other", "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": "Running", "podIP": "192.0.2.12", "podIPs": [{"ip": "192.0.2.12"}]},
    }  # fmt: skip
    from_b = {"podSelector": {"matchLabels": {"app": "a"}}, "ingress": [{"from": [{"podSelector": {}}]}]}
    given = small(from_b)
    made = World.from_objects([from_manifest(pod)], conventions=CLUSTER)
    world = World(
        (*given.endpoints, *made.endpoints), given.namespaces, given.nodes, given.policies, given.conventions
    )
    host, a = world.endpoint("x/n"), world.endpoint("x/a")
    assert not judge(world, host, a, 80).ingress.allowed, "its labels do not count"
    assert judge(world, a, host, 80).ingress.why == "host network", "no policy is about it"


@pytest.mark.parametrize(
    ("text", "want"),
    [("80/TCP", (80, "TCP")), ("53/udp", (53, "UDP")), ("0", (0, "TCP")), ("65535/SCTP", (65535, "SCTP"))],
)
def test_ports_are_read(text: str, want: tuple[int, str]) -> None:
    assert parse_port(text) == want


@pytest.mark.parametrize("text", ["", "x", "80/ICMP", "65536", "-1", "8 0", "80/TCP/UDP", "٨"])
def test_ports_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="is"):
        parse_port(text)
