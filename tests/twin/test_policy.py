"""Two roads to a policy's verdict: the tables of the oracles, and packets through the rules an agent programs.

A sample by default; `KUBENET_ALL_POLICY_WORLDS=1` sends packets through every recorded world an agent can express.
"""

from __future__ import annotations

import os

import pytest

from kubenet_lab.policy.rules import NotExpressible, iptables_rules
from kubenet_lab.policy.world import NETWORK
from tests.kubenet_lab.policy.worlds import Json, tables, world_of
from tests.oracles import open_case
from tests.twin.policy_lab import Model, Prober, probes_of, rules_of

ALL = bool(os.environ.get("KUBENET_ALL_POLICY_WORLDS"))
KINDS = {"iptables": ("random-", "disagreements-"), "nftables": ("random-", "disagreements-", "tiers-")}


def worlds(agent: str, every: int) -> list[tuple[str, Json]]:
    """The recorded worlds an agent can program, or every so-manieth of them."""
    found = []
    for kind in KINDS[agent]:
        for name in tables(kind)[:: 1 if ALL else every]:
            case = open_case("policy", name)
            if agent == "nftables" or not any(case.get(field) for field in ("anps", "banp", "cnps")):
                found.append((name, case))
    return found


@pytest.mark.parametrize("agent", KINDS)
def test_packets_in_the_model_end_as_the_tables_say(agent: str) -> None:
    model, sent = Model(), 0
    for name, case in worlds(agent, 150):
        world = world_of(case)
        want = case.get("expected") or case["correct"]
        model.write(rules_of(world, agent))
        for (i, j, probe), packet in probes_of(world, case["probes"]).items():
            assert model.arrives(packet) == (want[probe][i][j] == "."), (name, packet)
            sent += 1
    assert sent > 2000


@pytest.mark.parametrize("agent", KINDS)
def test_packets_in_the_kernel_end_as_the_tables_say(agent: str) -> None:
    sent = 0
    with Prober() as prober:
        for name, case in worlds(agent, 60):
            world = world_of(case)
            want = case.get("expected") or case["correct"]
            probes = probes_of(world, case["probes"])
            got = prober.ask(rules_of(world, agent), list(probes.values()))
            for ((i, j, probe), packet), arrived in zip(probes.items(), got, strict=True):
                assert arrived == (want[probe][i][j] == "."), (name, packet)
                sent += 1
    assert sent > 5000


def test_an_iptables_agent_says_that_it_does_not_read_administrators_policies() -> None:
    case = open_case("policy", tables("tiers-")[0])
    world = world_of(case)
    assert any(policy.tier != NETWORK for policy in world.policies)
    with pytest.raises(NotExpressible, match="reads NetworkPolicies only"):
        iptables_rules(world, "")
