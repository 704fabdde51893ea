"""Chance led by the hand: a chooser that sends calls where a lesson needs them, and one that takes every branch."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kubenet_lab.kernel.netfilter import Jump, Ruleset
from kubenet_lab.kernel.netfilter.targets import Dnat
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.packet import SYN, TCP, Packet
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb
from kubenet_lab.walk.xtables import NAT, run_hook

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster

Chooser = Callable[[Any, float], bool]


def endpoint_chains(rules: Ruleset) -> dict[str, str]:
    """Return the nat chains that end in DNAT to one address: chain -> "ADDRESS:PORT"."""
    found: dict[str, str] = {}
    table = rules.tables.get("nat")
    for chain in table.chains.values() if table else ():
        for rule in chain.rules:
            if isinstance(rule.target, Dnat) and rule.target.addr_min:
                ports = rule.target.ports
                found[chain.name] = f"{rule.target.addr_min}:{ports[0]}" if ports else rule.target.addr_min
    return found


def toward(cluster: Cluster, *addresses: str, seed: int = 0) -> Chooser:
    """Return a chooser for `Cluster.connect` that sends Service calls to these pod addresses.

    Where a Service has none of them among its endpoints, chance decides, from the seed. Every node's rules choose
    alike.
    """
    rng = random.Random(seed)
    wanted: set[str] = set()
    siblings: set[str] = set()
    for node in cluster.store.list("Node"):
        rules = cluster.network.ns(node.name).iptables[4]
        ends = endpoint_chains(rules)
        good = {chain for chain, to in ends.items() if to.rpartition(":")[0] in addresses}
        wanted |= good
        for chain in rules.tables["nat"].chains.values():
            jumps = {rule.target.chain for rule in chain.rules if isinstance(rule.target, Jump)}
            if jumps & good:
                siblings |= jumps & ends.keys()

    def choose(rule: Any, probability: float) -> bool:
        chain = getattr(rule.target, "chain", "")
        return chain in wanted if chain in siblings else rng.random() < probability

    return choose


def syn(source: str, address: str, port: int = 80, sport: int = 40000) -> Packet:
    """Return the first packet of a TCP connection."""
    return Packet(source, address, TCP, sport, port, flags=SYN, mss=1460)


def translated(walk: Walk, space: Netns, packet: Packet, hook: str = "PREROUTING") -> str:
    """Return where a node's nat table sends a first packet: "ADDRESS:PORT", or "" when no rule rewrites it.

    Only the nat table is asked, which is why ten thousand packets take well under a second.
    """
    walk.steps = []
    verdict = run_hook(Skb(packet, space, "cni0" if hook == "PREROUTING" else ""), 4, "nat", hook, walk)
    if verdict.kind != NAT or verdict.range is None or verdict.range.side != "dst":
        return ""
    return f"{verdict.range.addr_min}:{verdict.range.port_min or packet.dport}"


def sample(
    cluster: Cluster,
    node: str,
    source: str,
    address: str,
    port: int = 80,
    *,
    packets: int = 10_000,
    seed: int = 1,
) -> Counter[str]:
    """Send so many first packets through a node's nat table: destination -> how many.

    "" counts packets that no rule rewrote. The rules' counters count them, as `iptables -v` would show.
    """
    walk = Walk(cluster.network, now=cluster.now, seed=seed)
    space = cluster.network.ns(node)
    return Counter(
        translated(walk, space, syn(source, address, port, 1024 + number % 64000))
        for number in range(packets)
    )


def branches(cluster: Cluster, node: str, source: str, address: str, port: int = 80) -> dict[str, float]:
    """Take every branch chance could take: destination -> its exact probability by the rules as they stand.

    A chooser that answers by script tries "yes" at each question and then "no"; no random number is drawn.
    """
    shares: dict[str, float] = {}
    open_scripts: list[tuple[bool, ...]] = [()]
    while open_scripts:
        script = open_scripts.pop()
        asked: list[float] = []

        def choose(
            _rule: Any, probability: float, script: tuple[bool, ...] = script, asked: list[float] = asked
        ) -> bool:
            asked.append(probability)
            return script[len(asked) - 1] if len(asked) <= len(script) else True

        walk = Walk(cluster.network, now=cluster.now, choose=choose)
        to = translated(walk, cluster.network.ns(node), syn(source, address, port))
        weight = 1.0
        for number, probability in enumerate(asked):
            taken = script[number] if number < len(script) else True
            weight *= probability if taken else 1 - probability
        shares[to] = shares.get(to, 0.0) + weight
        taken_so_far = [*script, *[True] * (len(asked) - len(script))]
        open_scripts += [(*taken_so_far[:n], False) for n in range(len(script), len(asked))]
    return shares
