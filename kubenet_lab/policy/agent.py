"""Policy agents in a cluster: one on every node, which watches the API and writes the node's rules.

Two of them, for pod networks that enforce nothing themselves: `iptables` programs as kube-router does, `nftables`
decides as kube-network-policies does (`policy.rules` tells how each differs from the program it is modelled on). Both
let replies and connections that are open pass: a policy that forbids a connection does not end it. What an agent
programs comes after what the API says by its latency.
"""

from __future__ import annotations

from kubenet_lab.daemon import World as Machines
from kubenet_lab.kernel.netfilter import Ruleset
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.objects import (
    AdminNetworkPolicy,
    AnyObject,
    ApiObject,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
    Namespace,
    NetworkPolicy,
    Node,
    Pod,
)
from kubenet_lab.policy.rules import Programmed, iptables_rules, nftables_rules
from kubenet_lab.policy.world import CLUSTER, NETWORK, World

WATCHED: tuple[type[ApiObject], ...] = (
    Pod,
    Namespace,
    Node,
    NetworkPolicy,
    AdminNetworkPolicy,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
)
"""What an agent looks at."""


class PolicyAgents:
    """The agents of all nodes.

    Args:
        world: API and machines.
        latency: Seconds from a change in the API to the node's rules; each node counts from the change it sees.

    Attributes:
        unread: Policies that such an agent does not read ("AdminNetworkPolicy x"), in force nowhere.
    """

    name = ""

    def __init__(self, world: Machines, latency: float = 0.0) -> None:
        self.world = world
        self.latency = latency
        self.unread: list[str] = []
        self._seen: dict[str, object] = {}
        self._due: dict[str, float] = {}
        self._versions: tuple[object, ...] | None = None

    @property
    def next(self) -> float | None:
        """When the first of the nodes that lag behind is written."""
        return min(self._due.values(), default=None)

    def forget(self, node: str) -> None:
        """A machine is off: its rules went with it."""
        self._seen.pop(node, None)
        self._due.pop(node, None)

    def restart(self) -> None:
        """Read API and kernel anew; what is programmed stays until it is written again."""
        self._seen.clear()
        self._due.clear()
        self._versions = None

    def reconcile(self) -> bool:
        """Write the rules of every node whose pods or policies changed, if its time has come.

        Always False: rules change nothing in the API, so nobody need be asked again.
        """
        objects: list[AnyObject] = [obj for kind in WATCHED for obj in self.world.store.list(kind)]
        versions = tuple(
            (obj.kind, obj.namespace, obj.name, obj.metadata.resource_version) for obj in objects
        )
        if versions == self._versions and not self._due:
            return False
        self._versions = versions
        world = World.from_objects(objects, conventions=CLUSTER)
        self.unread = self._cannot_read(world)
        for node in self.world.store.list(Node):
            space = self.world.network.netns.get(node.name)
            if space is None:
                continue
            wished = self.wished(world, node.name)
            if wished == self._seen.get(node.name):
                self._due.pop(node.name, None)
                continue
            # The first rules come with the agent's start, before the node's pods run.
            due = self._due.setdefault(
                node.name, self.world.now + (self.latency if node.name in self._seen else 0.0)
            )
            if due <= self.world.now:
                self.write(space, wished)
                self._seen[node.name] = wished
                del self._due[node.name]
        return False

    def _cannot_read(self, world: World) -> list[str]:
        return []

    def wished(self, world: World, node: str) -> object:
        """What shall be in a node's kernel."""
        raise NotImplementedError

    def write(self, space: Netns, wished: object) -> None:
        """Bring a node's kernel to that."""
        raise NotImplementedError


class IptablesAgents(PolicyAgents):
    """Per-pod firewall chains, a chain a policy, IP sets (kube-router's network policy controller)."""

    name = "iptables"

    def _cannot_read(self, world: World) -> list[str]:
        return [policy.title for policy in world.policies if policy.tier != NETWORK]

    def wished(self, world: World, node: str) -> dict[int, Programmed]:
        """Rules and sets of both families."""
        readable = world.with_policies([policy for policy in world.policies if policy.tier == NETWORK])
        families = {6 if ":" in ip else 4 for endpoint in world.endpoints for ip in endpoint.ips}
        return {fam: iptables_rules(readable, node, fam) for fam in sorted(families)}

    def write(self, space: Netns, wished: object) -> None:
        """`ipset restore`, then `iptables-restore --noflush`; chains and sets of before that nobody needs go."""
        assert isinstance(wished, dict)
        from kubenet_lab.kernel.dialects import ipset

        sets = dict(space.ipsets)
        ours = [name for name in sets if name.removeprefix("inet6:").startswith(("KUBE-SRC-", "KUBE-DST-"))]
        for name in ours:
            del sets[name]
        for made in wished.values():
            sets.update(ipset.load(made.sets))
        space.ipsets = sets
        for fam in (4, 6):
            made = wished.get(fam)
            if made is None:
                continue

            def edit(
                found: dict[int, Ruleset], fam: int = fam, made: Programmed = made
            ) -> dict[int, Ruleset]:
                return {**found, fam: _swap(found[fam], made)}

            space.amend_iptables(edit)


def _swap(ruleset: Ruleset, made: Programmed) -> Ruleset:
    """The rules with the agent's chains written anew and jumps to them at the top."""
    from kubenet_lab.kernel.dialects import iptables

    table = ruleset.tables.get("filter")
    if table is not None:
        for builtin in ("FORWARD", "OUTPUT"):
            for rule in ruleset.rules("filter", builtin):
                if getattr(rule.target, "chain", "") == f"KUBE-ROUTER-{builtin}":
                    ruleset = ruleset.delete("filter", builtin, rule)
        old = [
            name for name in table.chains if name.startswith(("KUBE-POD-FW-", "KUBE-NWPLCY-", "KUBE-ROUTER-"))
        ]
        edit = ruleset.edit()
        for name in old:
            edit.flush("filter", name)
        for name in old:
            edit.delete_chain("filter", name)
        ruleset = edit.commit()
    return iptables.restore(ruleset, made.rules)


class NftablesAgents(PolicyAgents):
    """One table with a verdict map from pods to chains; all tiers (kube-network-policies, in plain nftables)."""

    name = "nftables"

    def wished(self, world: World, node: str) -> str:
        """The table's text."""
        return nftables_rules(world, node)

    def write(self, space: Netns, wished: object) -> None:
        """`nft -f`: the table is written anew, in one transaction."""
        assert isinstance(wished, str)
        from kubenet_lab.kernel.dialects import nft

        space.set_nftables(nft.apply(space.nftables, wished))
