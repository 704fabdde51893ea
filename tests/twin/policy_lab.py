"""The second road to a policy's verdict: packets through an agent's rules, in the model and in a real kernel."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from kubenet_lab.kernel.dialects import ipset, iptables, nft
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.packet import SCTP, SYN, TCP, UDP, Frame, Packet
from kubenet_lab.policy.rules import iptables_rules, nftables_rules
from kubenet_lab.policy.world import World
from kubenet_lab.twin.twin import _unshare
from kubenet_lab.walk.engine import Walk

PROTOCOLS = {"TCP": TCP, "UDP": UDP, "SCTP": SCTP}
Probe = tuple[str, str, int, str]
"""Source and destination address, port, protocol."""


def rules_of(world: World, agent: str) -> dict[str, str]:
    """What an agent writes for a world, as the tools take it."""
    if agent == "nftables":
        return {"nft": nftables_rules(world, "")}
    made = {fam: iptables_rules(world, "", fam) for fam in (4, 6)}
    return {
        "iptables4": made[4].rules,
        "iptables6": made[6].rules,
        "sets": made[4].sets + made[6].sets,
    }


def probes_of(world: World, names: list[str]) -> dict[tuple[int, int, str], Probe]:
    """The packets that ask a world's table: (source, destination, probe) -> what to send.

    A pod's packets to itself never reach the node, and nobody forwards from outside to outside.
    """
    found = {}
    for i, source in enumerate(world.endpoints):
        for j, target in enumerate(world.endpoints):
            if i == j or not (source.is_pod or target.is_pod) or not source.ips or not target.ips:
                continue
            if (":" in source.ips[0]) != (":" in target.ips[0]):
                continue
            for name in names:
                port, protocol = name.split("/")
                found[i, j, name] = (source.ips[0], target.ips[0], int(port), protocol)
    return found


class Model:
    """The three namespaces of `policy_prober` in the model."""

    def __init__(self) -> None:
        self.network = Network()
        node = self.network.add_netns("node")
        node.set_sysctl("net.ipv4.ip_forward", 1)
        node.set_sysctl("net.ipv6.conf.all.forwarding", 1)
        for side, host, other in (
            ("out", "02:00:00:00:00:02", "02:00:00:00:00:01"),
            ("in", "02:00:00:00:00:03", "02:00:00:00:00:04"),
        ):
            self.network.add_netns(side)
            self.network.add_veth("node", f"n{side}", side, "eth0", mac_a=host, mac_b=other)
            node.set_link(f"n{side}", up=True)
            self.network.ns(side).set_link("eth0", up=True)
        for address, far in (("169.254.1.1/32", "169.254.1.2"), ("fd99::1/128", "fd99::2")):
            node.add_address("nin", address)
            node.add_route("default" if "." in far else "::/0", via=far, dev="nin", onlink=True)
            node.set_neighbour("nin", far, "02:00:00:00:00:04")
        self.node = node
        self.empty = node.snapshot()

    def write(self, rules: dict[str, str]) -> None:
        """Swap all rules of the node for these."""
        self.node.restore(self.empty)
        if rules.get("sets"):
            self.node.ipsets = ipset.load(rules["sets"])
        for fam, word in ((4, "iptables4"), (6, "iptables6")):
            if rules.get(word):
                self.node.set_iptables(
                    fam, iptables.restore(self.node.iptables[fam], rules[word], strict=True)
                )
        if rules.get("nft"):
            self.node.set_nftables(nft.apply(self.node.nftables, rules["nft"]))

    def arrives(self, probe: Probe, sport: int = 40000) -> bool:
        """Whether a first packet is let through; it is forgotten again."""
        source, target, port, protocol = probe
        flags = SYN if protocol == "TCP" else 0
        packet = Packet(source, target, PROTOCOLS[protocol], sport=sport, dport=port, flags=flags)
        trace = Walk(self.network).deliver(
            "node", "nout", Frame("02:00:00:00:00:01", "02:00:00:00:00:02", packet)
        )
        return any(hop.netns == "in" for hop in trace.hops)


class Prober:
    """The same in this machine's kernel; a context manager."""

    def __enter__(self) -> Self:
        argv = [*_unshare(), sys.executable, "-I", str(Path(__file__).with_name("policy_prober.py"))]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()
        self._sport = 2000
        return self

    def __exit__(self, *_error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def ask(self, rules: dict[str, str], probes: list[Probe]) -> list[bool]:
        """Write the rules and send every probe; whether each arrived."""
        assert self._process.stdin is not None
        # A new source port each time, so that no connection of an earlier world is still known.
        self._sport += 1
        asked = {"rules": rules, "probes": probes, "sport": self._sport}
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        arrived = set(self._read()["arrived"])
        return [number in arrived for number in range(len(probes))]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the prober ended"}
        if "error" in answer:
            raise AssertionError(answer["error"])
        return answer
