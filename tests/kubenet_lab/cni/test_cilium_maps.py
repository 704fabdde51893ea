"""Policy maps say of recorded random worlds what the API's documentation says, but where Cilium is known to differ."""

from __future__ import annotations

from typing import Any

import pytest

from kubenet_lab.cni.cilium.identity import Identities, labels_of
from kubenet_lab.cni.cilium.networkpolicy import entries_of
from kubenet_lab.cni.cilium.policymap import Redirects, blocks_of, policy_map, port_prefixes
from kubenet_lab.cni.cilium.rules import CidrRule, PolicyEntry
from kubenet_lab.kernel.bpf import BpfState, IpcacheEntry, PolicyKey
from kubenet_lab.kernel.bpf import PolicyEntry as MapValue
from kubenet_lab.objects import NetworkPolicy, Pod
from kubenet_lab.objects.namespace import Namespace
from kubenet_lab.packet.ip import canonical, prefix
from kubenet_lab.packet.packet import PROTO_NUMBERS
from tests.kubenet_lab.policy.worlds import objects
from tests.oracles import cases, open_case

SAMPLE = cases("policy", "random-")[::7]


class Maps:
    """The agent's work on the objects of a recorded world, without a cluster."""

    def __init__(self, case: dict[str, Any]) -> None:
        made = objects(case)
        spaces = {one.name: one for one in made if isinstance(one, Namespace)}
        self.pods = {f"{p.namespace}/{p.name}": p for p in made if isinstance(p, Pod)}
        self.entries: list[PolicyEntry] = []
        self.unlisted = False
        """Whether a policy has rules of a direction that its policyTypes do not name."""
        for one in made:
            if isinstance(one, NetworkPolicy):
                self.entries += entries_of(one, "default")
                types = one.spec.policy_types
                self.unlisted |= bool(types) and (
                    (bool(one.spec.ingress) and "Ingress" not in types)
                    or (bool(one.spec.egress) and "Egress" not in types)
                )
        self.identities, self.state = Identities(), BpfState()
        for block in blocks_of(self.entries):
            self.state.set_ipcache(block, IpcacheEntry(self.identities.block(block)))
        self.labels = {name: labels_of(pod, spaces.get(pod.namespace)) for name, pod in self.pods.items()}
        self.numbers = {name: self.identities.number(labels) for name, labels in self.labels.items()}
        named: dict[tuple[str, str], set[int]] = {}
        own: dict[str, dict[tuple[str, str], set[int]]] = {}
        for name, pod in self.pods.items():
            for container in pod.spec.containers:
                for port in container.ports:
                    if port.name:
                        key = (port.name, port.protocol or "TCP")
                        named.setdefault(key, set()).add(port.container_port)
                        own.setdefault(name, {}).setdefault(key, set()).add(port.container_port)
        everywhere = {key: frozenset(numbers) for key, numbers in named.items()}
        for at, name in enumerate(self.pods, 1):
            mine = {key: frozenset(numbers) for key, numbers in own.get(name, {}).items()}
            self.state.policies[at] = policy_map(
                self.labels[name], self.entries, self.identities, mine, everywhere, Redirects()
            )
        self.at = {name: at for at, name in enumerate(self.pods, 1)}

    def identity(self, name: str) -> int:
        return self.numbers[name] if name in self.numbers else self.state.identity(canonical(name))

    def letter(self, source: str, destination: str, port: int, protocol: str) -> str:
        """The table judges a pod's call of itself like any other; no packet of it would meet a program."""
        if source not in self.pods and destination not in self.pods:
            return "-"
        proto, out = PROTO_NUMBERS[protocol.lower()], ""
        if source in self.pods and not self.lets(self.at[source], False, destination, proto, port):
            out += "E"
        if destination in self.pods and not self.lets(self.at[destination], True, source, proto, port):
            out += "I"
        return {"": ".", "E": "E", "I": "I", "EI": "B"}[out]

    def lets(self, endpoint: int, ingress: bool, other: str, proto: int, port: int) -> bool:
        found = self.state.verdict(endpoint, ingress, self.identity(other), proto, port).value
        return found is not None and not found.deny

    def known_to_differ(self, source: str, destination: str) -> bool:
        """Cilium's own ways.

        A block never means a pod (policy-cidr-match-mode). Rules of a direction that policyTypes leaves out count, too
        (pkg/k8s/network_policy.go reads all rules). A name of a port in an egress rule stands for the number that pods
        give it, whether or not the destination has such a name; for none where they give it several.
        """
        pods = [self.pods[name] for name in (source, destination) if name in self.pods]
        for entry in self.entries:
            if not entry.ingress and any(not p.port.isdecimal() for p in entry.ports or ()):
                return True
            for peer in entry.peers or ():
                if isinstance(peer, CidrRule):
                    block = prefix(peer.cidr)
                    if any(ip in block for pod in pods for ip in pod.ips):
                        return True
        return self.unlisted


@pytest.mark.parametrize("name", SAMPLE)
def test_verdicts_are_those_of_the_recorded_table(name: str) -> None:
    case = open_case("policy", name)
    maps = Maps(case)
    wrong = []
    for probe, rows in case["expected"].items():
        number, _, protocol = probe.partition("/")
        for source, row in zip(case["order"], rows, strict=True):
            for destination, wanted in zip(case["order"], row, strict=True):
                got = maps.letter(source, destination, int(number), protocol)
                if got != wanted and not maps.known_to_differ(source, destination):
                    wrong.append(f"{probe} {source} -> {destination}: {got} instead of {wanted}")
    assert not wrong, "\n".join(wrong[:20])


def test_most_of_the_table_is_judged() -> None:
    """What is known to differ is the exception, or the test above would say little."""
    judged = total = 0
    for name in SAMPLE[:40]:
        case = open_case("policy", name)
        maps = Maps(case)
        for source in case["order"]:
            for destination in case["order"]:
                total += 1
                judged += not maps.known_to_differ(source, destination)
    assert judged / total > 0.4, f"{judged} of {total}"


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (80, 80, [(80, 16)]),
        (1000, 1015, [(1000, 13), (1008, 13)]),
        (1, 65535, [(1 << n, 16 - n) for n in range(16)]),
        (30000, 30010, [(30000, 13), (30008, 15), (30010, 16)]),
        (2000, 1000, []),
    ],
)
def test_ranges_become_prefixes(low: int, high: int, wanted: list[tuple[int, int]]) -> None:
    found = port_prefixes(low, high)
    assert found == wanted
    assert sum(1 << 16 - bits for _port, bits in found) == max(0, high - low + 1)


def test_the_most_specific_grant_wins_and_a_denial_beats_all() -> None:
    state = BpfState()
    state.policies[1] = {
        PolicyKey(True): MapValue(),
        PolicyKey(True, 300, 6, 80, 16): MapValue(proxy_port=10000),
        PolicyKey(True, 0, 6, 80, 16): MapValue(),
        PolicyKey(True, 400): MapValue(deny=True),
    }
    assert state.verdict(1, True, 300, 6, 80).value == MapValue(proxy_port=10000)
    assert state.verdict(1, True, 300, 6, 81).key == PolicyKey(True)
    assert state.verdict(1, True, 400, 6, 80).value == MapValue(deny=True)
    assert state.verdict(1, False, 300, 6, 80).value is None
