"""What an agent on a node programs for policies: iptables with IP sets, or nftables. The other road to a verdict.

`iptables_rules` does it as kube-router does: a chain for each policy that marks what it accepts, a firewall chain for
each pod of the node that asks the policies about it, IP sets for the peers. It knows NetworkPolicies only.

`nftables_rules` says in plain nftables what kube-network-policies decides. That agent itself sends first packets to a
program (`queue num 100`) that looks policies up; rules with the same effect are written here, so that a packet's way
can be read: a verdict map leads to a chain for each set of pods that the same policies are about. All tiers are in it.

Both are pure functions from a `World` to text in the kernel's dialects; `policy.agent` writes it into a node. Neither
uses `policy.evaluate`: tests walk packets through these rules and compare. Sources: the documentation and rule dumps of
kube-router (network policy controller) and kube-network-policies, iptables-extensions(8), ipset(8), nft(8).
"""

from __future__ import annotations

import hashlib
from base64 import b32encode
from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from kubenet_lab.packet.ip import family, ip_int, ip_text, prefix
from kubenet_lab.policy.world import (
    ACCEPT,
    ADMIN,
    BASELINE,
    DENY,
    DIRECTIONS,
    EGRESS,
    INGRESS,
    LAST_PORT,
    NETWORK,
    PROTOCOLS,
    Endpoint,
    Peer,
    Policy,
    Ports,
    Rule,
    World,
    fits_labels,
)

ACCEPTED = "0x10000/0x10000"
"""The mark by which a policy's chain says yes."""
PASSED = "0x20000/0x20000"
"""The mark of what a pod's firewall let through; accepted at the end, when both pods have been asked."""
TABLE = "kube-network-policies"


class NotExpressible(Exception):
    """Policies that an agent cannot program: it does not know their kind."""


class Programmed(Struct, frozen=True):
    """Rules of one family as `iptables-restore --noflush` and `ipset restore` take them.

    Attributes:
        rules: Text of the filter table: the agent's chains, and the jumps to them at the top of the built-in ones.
        sets: Text that makes the sets the rules look into.
        chains: The agent's own chains, in the order in which they are declared.
    """

    rules: str
    sets: str
    chains: tuple[str, ...]


def _hash(*words: str) -> str:
    return b32encode(hashlib.sha256("".join(words).encode()).digest()).decode()[:16]


# -- whom a rule means, as addresses ----------------------------------------------------------------------------------


class _Addresses:
    """Peers of a world as addresses of one family. Agents know pods by their labels and packets by addresses."""

    def __init__(self, world: World, fam: int) -> None:
        self.world, self.fam = world, fam
        self.pods = [
            (endpoint, address)
            for endpoint in world.endpoints
            if endpoint.selectable and (address := endpoint.address(fam))
        ]

    def pods_of(self, peer: Peer) -> list[tuple[Endpoint, str]]:
        """The pods a peer selects by labels, with their addresses."""
        if peer.pods is None:
            return []
        spaces = {
            name
            for name, labels in self.world.namespaces.items()
            if name == peer.namespace
            or (not peer.namespace and peer.namespaces is not None and fits_labels(peer.namespaces, labels))
        }
        return [
            (pod, address)
            for pod, address in self.pods
            if pod.namespace in spaces and fits_labels(peer.pods, pod.labels)
        ]

    def nodes(self, peer: Peer) -> list[str]:
        """The addresses of the nodes a peer names."""
        if peer.nodes is None:
            return []
        return [
            ip
            for node in self.world.nodes
            if fits_labels(peer.nodes, node.labels)
            for ip in node.ips
            if family(ip) == self.fam
        ]

    def declaring(self, ports: Ports) -> dict[tuple[int, str], list[str]]:
        """(number, protocol) a port's name stands for, with the addresses of the pods where it does."""
        found: dict[tuple[int, str], list[str]] = {}
        for pod, address in self.pods:
            for port in pod.ports:
                if port.name == ports.name and ports.protocol in ("", port.protocol):
                    found.setdefault((port.number, port.protocol), []).append(address)
        return found


def _about(world: World, pod: Endpoint, direction: str, tier: str) -> list[Policy]:
    """The policies of a tier that have a word on a pod's traffic in a direction, in order."""
    found = []
    for policy in world.policies:
        if policy.tier != tier or (tier == NETWORK and direction not in policy.isolates):
            continue
        subject = policy.subject
        labels = world.namespaces[pod.namespace]
        inside = (
            pod.namespace == subject.namespace
            if subject.namespace
            else subject.namespaces is not None and fits_labels(subject.namespaces, labels)
        )
        if inside and subject.pods is not None and fits_labels(subject.pods, pod.labels):
            found.append(policy)
    return found


# -- iptables ---------------------------------------------------------------------------------------------------------


def iptables_rules(world: World, node: str, fam: int = 4) -> Programmed:
    """Program NetworkPolicies for the pods of one node, one family.

    Args:
        world: Pods of all nodes, and the policies.
        node: Whose pods are guarded; "" for all there are.
        fam: 4 or 6.

    Raises:
        NotExpressible: There are policies of administrators' tiers, which such an agent does not read.
    """
    others = [policy for policy in world.policies if policy.tier != NETWORK]
    if others:
        raise NotExpressible(f"an iptables agent reads NetworkPolicies only, not {others[0].title}")
    made = _Iptables(world, fam)
    return made.program([(pod, ip) for pod, ip in made.addresses.pods if node in ("", pod.node)])


class _Iptables:
    def __init__(self, world: World, fam: int) -> None:
        self.world, self.fam = world, fam
        self.addresses = _Addresses(world, fam)
        self.sets: dict[str, list[str]] = {}
        self.policies: dict[str, list[str]] = {}

    def program(self, pods: Sequence[tuple[Endpoint, str]]) -> Programmed:
        firewalls: dict[str, list[str]] = {}
        jumps: dict[str, list[str]] = {"FORWARD": [], "OUTPUT": []}
        for pod, address in pods:
            asked = {direction: _about(self.world, pod, direction, NETWORK) for direction in DIRECTIONS}
            if not any(asked.values()):
                continue
            chain = f"KUBE-POD-FW-{_hash(*pod.name.split('/'))}"
            firewalls[chain] = self._firewall(chain, pod, address, asked)
            bare = pod.name.partition("/")[2]
            note = _note(
                f"rule to jump traffic of POD name:{bare} namespace: {pod.namespace} to chain {chain}"
            )
            jumps["FORWARD"] += [
                f"-A KUBE-ROUTER-FORWARD {end} {address} {note} -j {chain}" for end in ("-d", "-s")
            ]
            jumps["OUTPUT"].append(f"-A KUBE-ROUTER-OUTPUT -d {address} {note} -j {chain}")
        done = f"-m mark --mark {PASSED} -j ACCEPT"
        if firewalls:
            note = _note("rule to explicitly ACCEPT traffic that comply to network policies")
            jumps["FORWARD"].append(f"-A KUBE-ROUTER-FORWARD {note} {done}")
        chains = [
            "KUBE-NWPLCY-DEFAULT",
            *self.policies,
            *firewalls,
            "KUBE-ROUTER-FORWARD",
            "KUBE-ROUTER-OUTPUT",
        ]
        lines = ["*filter", *(f":{chain} - [0:0]" for chain in chains)]
        for builtin in ("FORWARD", "OUTPUT"):
            lines.append(f'-I {builtin} 1 -m comment --comment "kube-router netpol" -j KUBE-ROUTER-{builtin}')
        note = _note("rule to mark traffic matching a network policy")
        lines.append(f"-A KUBE-NWPLCY-DEFAULT {note} -j MARK --set-xmark {ACCEPTED}")
        lines += [
            line
            for rules in (*self.policies.values(), *firewalls.values(), *jumps.values())
            for line in rules
        ]
        lines.append("COMMIT")
        return Programmed("\n".join(lines) + "\n", self._sets_text(), tuple(chains))

    def _firewall(self, chain: str, pod: Endpoint, address: str, asked: dict[str, list[Policy]]) -> list[str]:
        reject = "icmp-port-unreachable" if self.fam == 4 else "icmp6-port-unreachable"
        open_ones = _note("rule for stateful firewall for pod")
        broken = _note("rule to drop invalid state for pod")
        local = _note("rule to permit the traffic traffic to pods when source is the pod's local node")
        rules = [
            f"{open_ones} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            f"{broken} -m conntrack --ctstate INVALID -j DROP",
            f"-d {address} {local} -m addrtype --src-type LOCAL -j ACCEPT",
        ]
        for direction, end in ((INGRESS, "-d"), (EGRESS, "-s")):
            policies = asked[direction]
            for policy in policies:
                note = _note(f"run through nw policy {policy.name}")
                rules.append(f"{end} {address} {note} -j {self._policy(policy, direction)}")
            if not policies:
                note = _note(f"run through default {direction.lower()} network policy chain")
                rules.append(f"{end} {address} {note} -j KUBE-NWPLCY-DEFAULT")
        bare = pod.name.partition("/")[2]
        refused = _note(f"rule to REJECT traffic destined for POD name:{bare} namespace: {pod.namespace}")
        passed = _note("set mark to ACCEPT traffic that comply to network policies")
        rules += [
            f"{refused} -m mark ! --mark {ACCEPTED} -j REJECT --reject-with {reject}",
            "-j MARK --set-xmark 0x0/0x10000",
            f"{passed} -j MARK --set-xmark {PASSED}",
        ]
        return [f"-A {chain} {rule}" for rule in rules]

    def _policy(self, policy: Policy, direction: str) -> str:
        """The chain of a policy's rules of one direction; a rule that fits marks the packet and ends the chain."""
        name = f"KUBE-NWPLCY-{_hash(policy.namespace, policy.name, direction)}"
        if name in self.policies:
            return name
        self.policies[name] = rules = []
        for rule in policy.rules(direction):
            which = f"{direction.lower()} rule {rule.index} of policy {policy.name}"
            note = _note(f"rule to ACCEPT traffic of {which} namespace {policy.namespace}")
            for match in self._matches(policy, rule, direction):
                rules.append(f"-A {name} {match}{note} -j MARK --set-xmark {ACCEPTED}")
                rules.append(f"-A {name} {match}-m mark --mark {ACCEPTED} -j RETURN")
        return name

    def _matches(self, policy: Policy, rule: Rule, direction: str) -> Iterator[str]:
        side = "src" if direction == INGRESS else "dst"
        key = f"{policy.namespace}/{policy.name}/{direction}/{rule.index}"
        for number, peers in enumerate(self._peers(rule, key, side)):
            for at, (ports, holders) in enumerate(self._ports(rule)):
                if holders is None:
                    yield f"{peers}{ports}"
                elif holders:
                    name = self._set("KUBE-DST-", f"{key}/{number}/named/{at}", holders)
                    yield f"{peers}-m set --match-set {name} dst {ports}"

    def _peers(self, rule: Rule, key: str, side: str) -> Iterator[str]:
        if rule.peers is None:
            yield ""
            return
        prefix_ = "KUBE-SRC-" if side == "src" else "KUBE-DST-"
        pods = [address for peer in rule.peers for _pod, address in self.addresses.pods_of(peer)]
        if pods:
            yield f"-m set --match-set {self._set(prefix_, f'{key}/pods', pods)} {side} "
        for number, peer in enumerate(rule.peers):
            if peer.block and family(peer.block) == self.fam:
                name = self._set(prefix_, f"{key}/block/{number}", list(_set_entries(peer, self.fam)))
                yield f"-m set --match-set {name} {side} "

    def _ports(self, rule: Rule) -> Iterator[tuple[str, list[str] | None]]:
        """A port match each, with the destinations for which it holds (None: all)."""
        if rule.ports is None:
            yield "", None
            return
        for ports in rule.ports:
            if not ports.name:
                yield _dport(ports.protocol, ports.first, ports.last), None
                continue
            for (number, protocol), holders in self.addresses.declaring(ports).items():
                yield _dport(protocol, number, number), holders

    def _set(self, prefix_: str, key: str, entries: list[str]) -> str:
        name = f"{'inet6:' if self.fam == 6 else ''}{prefix_}{_hash(key)}"
        self.sets[name] = list(dict.fromkeys(entries))
        return name

    def _sets_text(self) -> str:
        kind = "inet6" if self.fam == 6 else "inet"
        lines = []
        for name, entries in self.sets.items():
            size = max(65536, len(entries))
            lines.append(f"create {name} hash:net family {kind} hashsize 1024 maxelem {size}")
            lines += [f"add {name} {entry}" for entry in entries]
        return "".join(f"{line}\n" for line in lines)


def _note(text: str) -> str:
    """A comment, cut where iptables does not take more."""
    return f'-m comment --comment "{text[:255]}"'


def _dport(protocol: str, first: int, last: int) -> str:
    word = protocol.lower()
    if (first, last) == (0, LAST_PORT):
        return f"-p {word} "
    return f"-p {word} -m {word} --dport {first if first == last else f'{first}:{last}'} "


def _set_entries(peer: Peer, fam: int) -> Iterator[str]:
    """A block as entries of a hash:net set, which cannot hold a prefix of no length: two halves stand for it."""
    block = prefix(peer.block)
    holes = {prefix(hole).text for hole in peer.excepted}
    halves = ("0.0.0.0/1", "128.0.0.0/1") if fam == 4 else ("::/1", "8000::/1")
    for text in (block.text,) if block.length else halves:
        if text not in holes:
            yield text
    for text in sorted(holes):
        if not (not block.length and text in halves):
            yield f"{text} nomatch"


# -- nftables ---------------------------------------------------------------------------------------------------------


def nftables_rules(world: World, node: str) -> str:
    """Program policies of all tiers for the pods of one node, both families, as `nft -f` takes it.

    The table is written anew as a whole, in one transaction. Denied packets are dropped, without a word to the sender.

    Args:
        world: Pods of all nodes, and the policies.
        node: Whose pods are guarded; "" for all there are.
    """
    return _Nftables(world).program(node)


class _Nftables:
    def __init__(self, world: World) -> None:
        self.world = world
        self.addresses = {fam: _Addresses(world, fam) for fam in (4, 6)}
        self.sets: dict[str, tuple[int, list[str]]] = {}
        self.chains: dict[str, list[str]] = {}

    def program(self, node: str) -> str:
        maps: dict[tuple[str, int], list[str]] = {(d, fam): [] for d in DIRECTIONS for fam in (4, 6)}
        for direction in DIRECTIONS:
            for endpoint in self.world.endpoints:
                if not endpoint.selectable or node not in ("", endpoint.node):
                    continue
                for fam in (4, 6):
                    address = endpoint.address(fam)
                    chain = self._pod(endpoint, direction) if address else ""
                    if chain:
                        maps[direction, fam].append(f"{address} : jump {chain}")
        lines = [f"add table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
        for name, (fam, elements) in self.sets.items():
            lines += [f"\tset {name} {{", f"\t\ttype ipv{fam}_addr", "\t\tflags interval"]
            if elements:
                lines.append(f"\t\telements = {{ {', '.join(elements)} }}")
            lines.append("\t}")
        for (direction, fam), elements in maps.items():
            lines += [f"\tmap {direction.lower()}-pods-v{fam} {{", f"\t\ttype ipv{fam}_addr : verdict"]
            if elements:
                lines.append(f"\t\telements = {{ {', '.join(elements)} }}")
            lines.append("\t}")
        for chain, rules in self.chains.items():
            lines += [f"\tchain {chain} {{", *(f"\t\t{rule}" for rule in rules), "\t}"]
        base = [
            "type filter hook forward priority filter - 5; policy accept;",
            "ct state established,related accept",
            "ip saddr vmap @egress-pods-v4",
            "ip6 saddr vmap @egress-pods-v6",
            "ip daddr vmap @ingress-pods-v4",
            "ip6 daddr vmap @ingress-pods-v6",
        ]
        lines += ["\tchain forward {", *(f"\t\t{rule}" for rule in base), "\t}", "}"]
        return "\n".join(lines) + "\n"

    def _pod(self, pod: Endpoint, direction: str) -> str:
        """The chain for one pod's traffic in a direction, shared by all with the same policies; "" for none."""
        admin, network, baseline = (
            _about(self.world, pod, direction, tier) for tier in (ADMIN, NETWORK, BASELINE)
        )
        own = [
            policy
            for policy in (*admin, *network, *baseline)
            if policy.tier == NETWORK or policy.rules(direction)
        ]
        if not own:
            return ""
        admin = [policy for policy in admin if policy in own]
        name = f"{direction.lower()}-{_hash(direction, *(f'{p.kind}/{p.namespace}/{p.name}' for p in own)).lower()}"
        if name in self.chains:
            return name
        after = f"{name}-next"
        rules = self._tier(admin, direction, f"goto {after}") if admin else []
        last = self._network(network, direction) if network else self._tier(baseline, direction, "return")
        if admin:
            # Chains that others go to come first.
            self.chains[after] = last
            self.chains[name] = [*rules, f"goto {after}"]
        else:
            self.chains[name] = last
        return name

    def _network(self, policies: Sequence[Policy], direction: str) -> list[str]:
        """NetworkPolicies add up: the first rule that fits lets the packet through, nothing that fits drops it."""
        rules = []
        for policy in policies:
            for rule in policy.rules(direction):
                note = f'comment "{policy.namespace}/{policy.name} {direction.lower()} rule {rule.index + 1}"'
                rules += [f"{match}return {note}" for match in self._matches(policy, rule, direction)]
        names = ", ".join(f"{policy.namespace}/{policy.name}" for policy in policies)
        return [*rules, f'drop comment "{_short(f"isolated by {names}")}"']

    def _tier(self, policies: Sequence[Policy], direction: str, on_pass: str) -> list[str]:
        """Rules in order of priority: the first that fits accepts, drops, or passes to the next tier."""
        rules = []
        for policy in policies:
            for rule in policy.rules(direction):
                verdict = "return" if rule.action == ACCEPT else "drop" if rule.action == DENY else on_pass
                note = f'comment "{_short(f"{policy.title} {direction.lower()} rule {rule.index + 1}")}"'
                rules += [f"{match}{verdict} {note}" for match in self._matches(policy, rule, direction)]
        return rules

    def _matches(self, policy: Policy, rule: Rule, direction: str) -> Iterator[str]:
        end = "saddr" if direction == INGRESS else "daddr"
        key = f"{policy.kind}/{policy.namespace}/{policy.name}/{direction}/{rule.index}"
        if rule.peers is None:
            yield from self._ports(rule, "", (4, 6), key)
            return
        for fam in (4, 6):
            found = [
                (ip_int(address), ip_int(address))
                for peer in rule.peers
                for address in (
                    *(ip for _pod, ip in self.addresses[fam].pods_of(peer)),
                    *self.addresses[fam].nodes(peer),
                )
            ]
            for peer in rule.peers:
                if peer.block and family(peer.block) == fam:
                    found += _without(peer.block, peer.excepted)
            if found:
                name = self._set(f"{key}/peers/{fam}", fam, _joined(found))
                yield from self._ports(rule, f"{'ip' if fam == 4 else 'ip6'} {end} @{name} ", (fam,), key)

    def _ports(self, rule: Rule, match: str, families: Iterable[int], key: str) -> Iterator[str]:
        if rule.ports is None:
            yield match
            return
        for at, ports in enumerate(rule.ports):
            if not ports.name:
                yield f"{match}{_nft_port(ports.protocol, ports.first, ports.last)}"
                continue
            for fam in families:
                for (number, protocol), holders in self.addresses[fam].declaring(ports).items():
                    numbers = [(ip_int(ip), ip_int(ip)) for ip in holders]
                    name = self._set(f"{key}/named/{at}/{number}/{protocol}/{fam}", fam, _joined(numbers))
                    word = "ip" if fam == 4 else "ip6"
                    yield f"{match}{word} daddr @{name} {_nft_port(protocol, number, number)}"

    def _set(self, key: str, fam: int, intervals: Iterable[tuple[int, int]]) -> str:
        name = f"s-{_hash(key).lower()}"
        elements = []
        for first, last in intervals:
            low, high = ip_text(first, fam), ip_text(last, fam)
            elements.append(low if first == last else f"{low}-{high}")
        self.sets[name] = (fam, elements)
        return name


def _short(text: str) -> str:
    """A comment that nft takes: up to 128 bytes with its end."""
    return text if len(text) < 120 else f"{text[:116]}..."


def _nft_port(protocol: str, first: int, last: int) -> str:
    word = protocol.lower()
    if (first, last) == (0, LAST_PORT):
        return f"meta l4proto {word} "
    return f"{word} dport {first if first == last else f'{first}-{last}'} "


def _without(block: str, holes: Sequence[str]) -> list[tuple[int, int]]:
    """A block without its holes, as intervals of numbers."""
    left = [_interval(block)]
    for hole in holes:
        if family(hole) != family(block):
            continue
        low, high = _interval(hole)
        parts = []
        for first, last in left:
            if high < first or low > last:
                parts.append((first, last))
                continue
            if first < low:
                parts.append((first, low - 1))
            if last > high:
                parts.append((high + 1, last))
        left = parts
    return left


def _interval(text: str) -> tuple[int, int]:
    block = prefix(text)
    size = 1 << ((32 if block.family == 4 else 128) - block.length)
    return block.net, block.net + size - 1


def _joined(intervals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Intervals in order, those that touch made one."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(intervals):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return found


__all__ = ["PROTOCOLS", "NotExpressible", "Programmed", "iptables_rules", "nftables_rules"]
