"""The rules of one node as text, straight from objects: what `kubenet-lab rules` prints.

No cluster is built: Services and EndpointSlices go in as they are, no slice is made and no address allocated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from msgspec import Struct

from kubenet_lab.errors import NotFound
from kubenet_lab.kernel.dialects.iptables import save
from kubenet_lab.kernel.netfilter import Ruleset
from kubenet_lab.objects import AnyObject, EndpointSlice, Json, Node, Service, default_nodes, from_manifest
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode
from kubenet_lab.proxy.iptables import KubeProxyIptables
from kubenet_lab.proxy.nftables import KubeProxyNftables
from kubenet_lab.proxy.nftables_rules import TABLE

CLUSTER_CIDRS = ("10.244.0.0/16", "fd00:10:244::/56")
"""Where pods' addresses come from unless a flag says otherwise, one block a family."""

SERVICE_CIDRS = ("10.96.0.0/16", "fd00:10:96::/112")
"""Where Services' addresses come from."""

MODES = ("iptables", "nftables")
"""kube-proxy's modes (`--proxy-mode`) that can be rendered."""

As = Literal["written", "saved"]
Objects = Iterable[AnyObject | Json]

RESTORE = {4: "iptables-restore", 6: "ip6tables-restore"}
SAVE = {4: "iptables-save", 6: "ip6tables-save"}


def lab_nodes(count: int = 3) -> list[Node]:
    """Return the nodes of a world that names none, in both families, with pod blocks (a /24 and a /64)."""
    return [
        node.with_pod_cidrs((f"10.244.{i}.0/24", f"fd00:10:244:{i:x}::/64" if i else "fd00:10:244::/64"))
        for i, node in enumerate(default_nodes(count, dual_stack=True))
    ]


def _typed(objects: Objects) -> list[AnyObject]:
    return [from_manifest(given) if isinstance(given, dict) else given for given in objects]


def proxy_node(objects: Objects, name: str) -> ProxyNode:
    """Return the node called `name` among the objects, or of the three lab nodes if there is no Node at all.

    Raises NotFound.
    """
    nodes = [given for given in _typed(objects) if isinstance(given, Node)] or lab_nodes()
    for node in nodes:
        if node.name == name:
            return ProxyNode.from_node(node)
    raise NotFound("Node", name, resource="nodes", known=[node.name for node in nodes])


def _watched(objects: Iterable[AnyObject]) -> tuple[list[Service], list[EndpointSlice]]:
    everything = list(objects)
    return (
        [given for given in everything if isinstance(given, Service)],
        [given for given in everything if isinstance(given, EndpointSlice)],
    )


class _World(Struct, frozen=True):
    """What one kube-proxy sees: its node, its settings, and the states of the API in turn."""

    node: ProxyNode
    config: KubeProxyConfig
    states: list[tuple[list[Service], list[EndpointSlice]]]

    @classmethod
    def of(cls, objects: Objects, node: str, flags: Iterable[str], before: Objects | None) -> _World:
        everything = _typed(objects)
        config = KubeProxyConfig.from_flags(flags, cluster_cidrs=CLUSTER_CIDRS, service_cidrs=SERVICE_CIDRS)
        states = [everything] if before is None else [_typed(before), everything]
        return cls(proxy_node(everything, node), config, [*map(_watched, states)])

    def iptables_written(self) -> dict[int, list[str]]:
        proxy = KubeProxyIptables(self.node, self.config)
        written = [proxy.sync(*state) for state in self.states][-1]
        texts = {4: written.iptables_restore, 6: written.ip6tables_restore}
        return {f: text for f, text in texts.items() if text is not None}

    def iptables_saved(self) -> dict[int, list[str]]:
        proxy = KubeProxyIptables(self.node, self.config)
        rulesets = {4: Ruleset(4), 6: Ruleset(6)}
        for state in self.states:
            rulesets = proxy.reconcile(rulesets, *state)
        return {f: save(ruleset).split("\n") for f, ruleset in rulesets.items()}

    def nftables_written(self) -> dict[int, list[list[str]]]:
        proxy = KubeProxyNftables(self.node, self.config)
        written = [proxy.sync(*state) for state in self.states][-1]
        return {4: written.ip, 6: written.ip6}

    def nftables_saved(self) -> dict[int, list[str]]:
        from kubenet_lab.kernel import nftables
        from kubenet_lab.kernel.dialects.nft import list_table

        proxy = KubeProxyNftables(self.node, self.config)
        ruleset = nftables.Ruleset()
        for state in self.states:
            ruleset = proxy.reconcile(ruleset, *state)
        return {f: list_table(ruleset, ip, TABLE).split("\n") for f, ip in ((4, "ip"), (6, "ip6"))}


def written(objects: Objects, node: str, flags: Iterable[str] = ()) -> dict[int, list[str]]:
    """Return what kube-proxy feeds to `iptables-restore` (4) and `ip6tables-restore` (6) at its start.

    Lists of lines; the last, empty, stands for the final newline. Raises NotFound for the node, InputError
    for flags.
    """
    return _World.of(objects, node, flags, None).iptables_written()


def saved(objects: Objects, node: str, flags: Iterable[str] = ()) -> dict[int, list[str]]:
    """Return what `iptables-save` (4) and `ip6tables-save` (6) print then, where nothing else made rules.

    Lists of lines as for `written`, comment lines ("# Generated by ...") left out, and the same errors.
    """
    return _World.of(objects, node, flags, None).iptables_saved()


def rules(
    objects: Objects,
    node: str,
    flags: Iterable[str] = (),
    family: int = 4,
    as_: As = "written",
    *,
    mode: str = "iptables",
    before: Objects | None = None,
) -> list[str]:
    """Return one text: `family` is 4 or 6; `as_` is as kube-proxy writes or as the kernel's tool prints it.

    `mode` is one of `MODES`. With `before`, the objects of an earlier sync, it is what a second sync writes, []
    where it writes nothing, and what is printed then. Several transactions are parted by an empty line.
    """
    world = _World.of(objects, node, flags, before)
    if mode == "iptables":
        return (world.iptables_written() if as_ == "written" else world.iptables_saved()).get(family, [])
    if as_ == "saved":
        return world.nftables_saved()[family]
    return [line for text in world.nftables_written()[family] for line in text]


def rules_document(
    objects: Objects,
    node: str,
    flags: Iterable[str] = (),
    modes: Sequence[str] = ("iptables",),
    before: Objects | None = None,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Return all texts of some modes, each a list of lines.

    {"iptables": {"written": {"iptables-restore": ..., "ip6tables-restore": ...}, "saved": {"iptables-save": ...,
    "ip6tables-save": ...}}, "nftables": {"written": {"nft": [transaction, ...]}, "saved": {"nft list ruleset":
    ...}}}. With `before` they are those of a second sync; a family for which it writes nothing has no member.
    """
    world = _World.of(objects, node, flags, None if before is None else list(before))
    document: dict[str, dict[str, dict[str, Any]]] = {}
    if "iptables" in modes:
        document["iptables"] = {
            "written": {RESTORE[f]: text for f, text in world.iptables_written().items()},
            "saved": {SAVE[f]: text for f, text in world.iptables_saved().items()},
        }
    if "nftables" in modes:
        document["nftables"] = {
            "written": {"nft": [text for texts in world.nftables_written().values() for text in texts]},
            "saved": {"nft list ruleset": _joined(world.nftables_saved().values())},
        }
    return document


def _joined(texts: Iterable[list[str]]) -> list[str]:
    """Return texts one after another: a list's last line, empty, stands for the newline at its end."""
    return [*(line for text in texts for line in text[:-1]), ""]
