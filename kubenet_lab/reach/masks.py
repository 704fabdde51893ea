"""Sets of endpoints as bits of one number, found through an index of labels and a sorted list of addresses.

Bit k of a mask stands for class k: endpoints that no policy can tell apart. `Index` answers which classes a selector, a
block or a name means, and remembers it; an edited policy therefore costs only what is new in it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from kubenet_lab.objects import LabelSelector
from kubenet_lab.packet.ip import family, ip_int, prefix
from kubenet_lab.policy.world import Endpoint, NamedPort, Peer, Policy, Ports, World, fits_labels

_encode = msgspec.json.encode


def bits(mask: int) -> Iterator[int]:
    """Positions of the ones, lowest first."""
    text = bin(mask)[:1:-1]
    at = text.find("1")
    while at >= 0:
        yield at
        at = text.find("1", at + 1)


class Index:
    """Endpoints of a world in classes, and which classes a peer or a port means.

    Attributes:
        classes: One endpoint of each class.
        members: For each class, the positions of its endpoints in `world.endpoints`.
        class_of: For each endpoint, its class.
        everybody: The mask of all classes.
        pods: The mask of those that selectors can find.
    """

    def __init__(self, world: World) -> None:
        self.endpoints = world.endpoints
        self.conventions = world.conventions
        self.nodes = world.nodes
        self.namespaces = world.namespaces
        self.blocks = _blocks(world.policies)
        marks = self._marks()
        order: dict[object, int] = {}
        self.classes: list[Endpoint] = []
        self.members: list[list[int]] = []
        self.class_of: list[int] = []
        ports: dict[tuple[NamedPort, ...], int] = {}
        labels: dict[bytes, int] = {}
        for position, endpoint in enumerate(self.endpoints):
            if endpoint.selectable:
                told = labels.setdefault(_encode(endpoint.labels, order="sorted"), len(labels))
                key: object = (
                    endpoint.namespace,
                    told,
                    ports.setdefault(endpoint.ports, len(ports)),
                    marks.get(position),
                    endpoint.node if self.conventions.node_allowed else "",
                )
            else:
                key = endpoint.name
            number = order.setdefault(key, len(order))
            if number == len(self.classes):
                self.classes.append(endpoint)
                self.members.append([])
            self.members[number].append(position)
            self.class_of.append(number)
        self.everybody = (1 << len(self.classes)) - 1
        self._peers: dict[bytes, int] = {}
        self._selected: dict[bytes, int] = {}
        self._spaces: dict[bytes, int] = {}
        self._index()

    def serves(self, world: World) -> bool:
        """Whether these classes still tell apart what a world's policies do; endpoints must be the same."""
        same = (
            world.endpoints is self.endpoints
            and world.namespaces == self.namespaces
            and world.conventions == self.conventions
            and world.nodes == self.nodes
        )
        return same and _blocks(world.policies) <= self.blocks

    def _index(self) -> None:
        keys: dict[str, dict[str, int]] = {}
        groups: dict[bytes, tuple[Mapping[str, str], list[int]]] = {}
        spaces: dict[str, list[int]] = {name: [] for name in self.namespaces}
        named: dict[NamedPort, list[int]] = {}
        pods: list[int] = []
        for number, endpoint in enumerate(self.classes):
            for port in endpoint.ports:
                if port.name:
                    named.setdefault(port, []).append(number)
            if not endpoint.selectable:
                continue
            pods.append(number)
            spaces[endpoint.namespace].append(number)
            groups.setdefault(_encode(endpoint.labels, order="sorted"), (endpoint.labels, []))[1].append(
                number
            )
        self.pods = mask_of(pods)
        for labels, numbers in groups.values():
            mask = mask_of(numbers)
            for key, value in labels.items():
                values = keys.setdefault(key, {})
                values[value] = values.get(value, 0) | mask
        self._labels = keys
        self._holders = {key: _union(values.values()) for key, values in keys.items()}
        self._space = {name: mask_of(numbers) for name, numbers in spaces.items()}
        self.named = {port: mask_of(numbers) for port, numbers in named.items()}
        self._addresses = {
            of: sorted(
                (ip_int(address), number)
                for number, endpoint in enumerate(self.classes)
                if (address := self._address(endpoint)) and family(address) == of
            )
            for of in (4, 6)
        }

    def _address(self, endpoint: Endpoint) -> str:
        return endpoint.address(self.conventions.family if endpoint.is_pod else 0)

    def _marks(self) -> dict[int, tuple[int, ...]]:
        """For each pod, which of the blocks that policies name it is in."""
        if not self.blocks or not self.conventions.block_matches_pods:
            return {}
        addresses = {
            of: sorted(
                (ip_int(address), position)
                for position, endpoint in enumerate(self.endpoints)
                if endpoint.selectable and (address := self._address(endpoint)) and family(address) == of
            )
            for of in (4, 6)
        }
        found: dict[int, list[int]] = {}
        for number, text in enumerate(sorted(self.blocks)):
            for position in _within(addresses, text):
                found.setdefault(position, []).append(number)
        return {position: tuple(numbers) for position, numbers in found.items()}

    def selected(self, selector: LabelSelector) -> int:
        """The classes of pods whose labels a selector fits."""
        key = _encode(selector)
        mask = self._selected.get(key)
        if mask is None:
            mask = self._selected[key] = self._select(selector)
        return mask

    def _select(self, selector: LabelSelector) -> int:
        mask = self.pods
        for name, value in selector.match_labels.items():
            mask &= self._labels.get(name, {}).get(value, 0)
        for requirement in selector.match_expressions:
            holders = self._holders.get(requirement.key, 0)
            if requirement.operator == "Exists":
                mask &= holders
            elif requirement.operator == "DoesNotExist":
                mask &= ~holders
            elif requirement.operator not in ("In", "NotIn"):
                return 0
            else:
                values = self._labels.get(requirement.key, {})
                listed = _union(values.get(value, 0) for value in requirement.values)
                mask &= listed if requirement.operator == "In" else ~listed
        return mask

    def in_namespaces(self, selector: LabelSelector) -> int:
        """The classes of pods in namespaces whose labels a selector fits."""
        key = _encode(selector)
        mask = self._spaces.get(key)
        if mask is None:
            fitting = (name for name, labels in self.namespaces.items() if fits_labels(selector, labels))
            mask = self._spaces[key] = _union(self._space.get(name, 0) for name in fitting)
        return mask

    def peer(self, peer: Peer) -> int:
        """The classes a peer means."""
        key = _encode(peer)
        mask = self._peers.get(key)
        if mask is None:
            mask = self._peers[key] = self._peer(peer)
        return mask

    def _peer(self, peer: Peer) -> int:
        if peer.block:
            mask = mask_of(_within(self._addresses, peer.block))
            for hole in peer.excepted:
                mask &= ~mask_of(_within(self._addresses, hole))
            return mask if self.conventions.block_matches_pods else mask & ~self.pods
        if peer.nodes is not None:
            ips = {ip for node in self.nodes if fits_labels(peer.nodes, node.labels) for ip in node.ips}
            return mask_of(
                number
                for number, endpoint in enumerate(self.classes)
                if not endpoint.selectable and not ips.isdisjoint(endpoint.ips)
            )
        if peer.pods is None:
            return 0
        if peer.namespace:
            return self._space.get(peer.namespace, 0) & self.selected(peer.pods)
        assert peer.namespaces is not None
        return self.in_namespaces(peer.namespaces) & self.selected(peer.pods)

    def named_ports(self, ports: Ports) -> Iterator[tuple[NamedPort, int]]:
        """The container ports a name stands for, with the classes that declare them."""
        for port, mask in self.named.items():
            if port.name == ports.name and ports.protocol in ("", port.protocol):
                yield port, mask


def mask_of(numbers: Iterable[int]) -> int:
    """The mask with ones at these positions."""
    found = sorted(set(numbers))
    if not found:
        return 0
    data = bytearray(found[-1] // 8 + 1)
    for number in found:
        data[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(data, "little")


def _union(masks: Iterable[int]) -> int:
    total = 0
    for mask in masks:
        total |= mask
    return total


def _blocks(policies: Sequence[Policy]) -> frozenset[str]:
    """Every block and every hole in one that the policies name."""
    found: set[str] = set()
    for policy in policies:
        for rule in (*policy.ingress, *policy.egress):
            for peer in rule.peers or ():
                if peer.block:
                    found.update((peer.block, *peer.excepted))
    return frozenset(found)


def _within(addresses: Mapping[int, Sequence[tuple[int, int]]], text: str) -> Iterator[int]:
    """What stands beside the addresses of a block in a sorted list."""
    block = prefix(text)
    listed = addresses[block.family]
    size = 1 << ((32 if block.family == 4 else 128) - block.length)
    for at in range(bisect_left(listed, (block.net, -1)), bisect_left(listed, (block.net + size, -1))):
        yield listed[at][1]
