"""Felix's calculation: from everything in the API to what one node has to do.

`calculate(objects, node)` is pure: manifests in, a `Picture` out, with the endpoints on the node, the policies that
select them, the IP sets their rules need, and the profiles. Nothing else of the cluster matters to the node. Source:
`felix/calc` (active rules calculator, rule scanner, policy resolver), `felix/labelindex`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import Struct

from kubenet_lab.cni.calico import clusterpolicy, convert
from kubenet_lab.cni.calico.convert import Json
from kubenet_lab.cni.calico.names import unique_id
from kubenet_lab.cni.calico.selector import ALL, Node, parse
from kubenet_lab.packet.ip import prefix

Ports = tuple[tuple[int, int], ...]


class PolicyKey(Struct, frozen=True, order=True):
    """What a policy is called."""

    kind: str
    name: str
    namespace: str = ""


class RuleInfo(Struct, frozen=True, kw_only=True):
    """One rule with selectors and named ports replaced by the ids of IP sets. Protocols are names or numbers."""

    action: str
    family: int = 0
    protocol: str | int | None = None
    not_protocol: str | int | None = None
    src_nets: tuple[str, ...] = ()
    dst_nets: tuple[str, ...] = ()
    not_src_nets: tuple[str, ...] = ()
    not_dst_nets: tuple[str, ...] = ()
    src_ports: Ports = ()
    dst_ports: Ports = ()
    not_src_ports: Ports = ()
    not_dst_ports: Ports = ()
    src_sets: tuple[str, ...] = ()
    dst_sets: tuple[str, ...] = ()
    not_src_sets: tuple[str, ...] = ()
    not_dst_sets: tuple[str, ...] = ()
    src_port_sets: tuple[str, ...] = ()
    dst_port_sets: tuple[str, ...] = ()
    not_src_port_sets: tuple[str, ...] = ()
    not_dst_port_sets: tuple[str, ...] = ()
    icmp: tuple[int, int | None] | None = None
    not_icmp: tuple[int, int | None] | None = None
    original: Json = {}


class PolicyInfo(Struct, frozen=True, kw_only=True):
    """A policy as Felix works with it. `selector` is canonical."""

    key: PolicyKey
    selector: str
    tier: str = "default"
    order: float = math.inf
    inbound: tuple[RuleInfo, ...] = ()
    outbound: tuple[RuleInfo, ...] = ()
    ingress: bool = True
    egress: bool = False
    untracked: bool = False
    pre_dnat: bool = False
    on_forward: bool = False


class TierInfo(Struct, frozen=True):
    """The policies of one tier that select an endpoint, in order."""

    name: str
    default_action: str
    ingress: tuple[PolicyKey, ...] = ()
    egress: tuple[PolicyKey, ...] = ()


class EndpointInfo(Struct, frozen=True, kw_only=True):
    """An endpoint of the node: a pod's, or a host's (`host` True, then `name` is its interface or "*")."""

    id: str
    name: str
    addresses: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    tiers: tuple[TierInfo, ...] = ()
    untracked: tuple[TierInfo, ...] = ()
    pre_dnat: tuple[TierInfo, ...] = ()
    forward: tuple[TierInfo, ...] = ()
    host: bool = False


class SetInfo(Struct, frozen=True):
    """An IP set: `kind` is NET or IP_AND_PORT, members sorted."""

    id: str
    kind: str
    members: tuple[str, ...] = ()


class ProfileInfo(Struct, frozen=True):
    """Rules that hold where no policy selects an endpoint. `missing` is one nobody has made: it denies."""

    name: str
    inbound: tuple[RuleInfo, ...] = ()
    outbound: tuple[RuleInfo, ...] = ()
    missing: bool = False


class Picture(Struct, frozen=True):
    """All that the node's Felix programs beside its static chains and routes."""

    endpoints: tuple[EndpointInfo, ...] = ()
    policies: Mapping[PolicyKey, PolicyInfo] = {}
    sets: tuple[SetInfo, ...] = ()
    profiles: tuple[ProfileInfo, ...] = ()


class _Thing(Struct, frozen=True):
    """Something with labels and addresses that selectors find."""

    labels: Mapping[str, str]
    addresses: tuple[str, ...]
    ports: tuple[tuple[str, str, int], ...] = ()


DEFAULT_ALLOW = "projectcalico-default-allow"


def endpoint_of(pod: Json) -> Json | None:
    """Return a pod's workload endpoint, None for a pod that has none (yet, or any more)."""
    return convert.workload_endpoint(pod) if convert.valid_endpoint(pod) else None


class World:
    """The objects of a cluster, sorted by what Felix uses them for; all nodes' calculations share it.

    `endpoint` makes a pod's endpoint (None for a pod that has none), for who wants to remember them.
    """

    def __init__(
        self,
        objects: Iterable[Json],
        endpoint: Callable[[Json], Json | None] | None = None,
    ) -> None:
        self._endpoint = endpoint or endpoint_of
        self.nodes: dict[str, list[Json]] = {}
        """Node -> its pods' endpoints, by name."""
        self._things: list[_Thing] | None = None
        self._sets: dict[str, SetInfo] = {}
        self._parsed: dict[PolicyKey, tuple[Json, Node]] | None = None
        self.profiles: dict[str, Json] = {}
        self.pods: list[Json] = []
        self.hosts: list[Json] = []
        self.sets: list[Json] = []
        self.tiers: dict[str, tuple[float, str]] = {}
        self.policies: list[tuple[PolicyKey, Json]] = []
        for obj in objects:
            self._take(obj)
        self.inherited = {name: p["spec"].get("labelsToApply") or {} for name, p in self.profiles.items()}
        for pod in sorted(self.pods, key=lambda pod: str(pod["metadata"]["name"])):
            self.nodes.setdefault(pod["spec"]["node"], []).append(pod)

    def _take(self, obj: Json) -> None:
        kind, calico = obj["kind"], "projectcalico.org" in obj.get("apiVersion", "")
        meta = obj.get("metadata") or {}
        if kind == "Namespace":
            made = convert.namespace_profile(obj)
            self.profiles[made["metadata"]["name"]] = made
        elif kind == "ServiceAccount":
            made = convert.account_profile(obj)
            self.profiles[made["metadata"]["name"]] = made
        elif kind == "Pod":
            endpoint = self._endpoint(obj)
            if endpoint is not None:
                self.pods.append(endpoint)
        elif kind == "NetworkPolicy" and not calico:
            made, _fault = convert.network_policy(obj)
            key = PolicyKey("KubernetesNetworkPolicy", meta["name"], made["metadata"]["namespace"])
            self.policies.append((key, convert.policy_v1(made)))
        elif kind == "ClusterNetworkPolicy":
            key = PolicyKey("KubernetesClusterNetworkPolicy", meta["name"], "")
            self.policies.append((key, convert.policy_v1(clusterpolicy.cluster_network_policy(obj))))
        elif calico and kind in ("NetworkPolicy", "GlobalNetworkPolicy"):
            key = PolicyKey(kind, meta["name"], meta.get("namespace") or "")
            self.policies.append((key, convert.policy_v1(obj)))
        elif calico and kind == "Tier":
            spec = obj.get("spec") or {}
            order = spec.get("order")
            self.tiers[meta["name"]] = (
                math.inf if order is None else order,
                spec.get("defaultAction") or "Deny",
            )
        elif calico and kind == "Profile":
            self.profiles[meta["name"]] = obj
        elif kind == "HostEndpoint":
            self.hosts.append(obj)
        elif kind in ("NetworkSet", "GlobalNetworkSet"):
            self.sets.append(obj)

    def labels(self, own: Mapping[str, str], profiles: Iterable[str]) -> dict[str, str]:
        """Return an endpoint's labels with those its profiles pass on; its own win."""
        out: dict[str, str] = {}
        for name in reversed(list(profiles)):
            out |= self.inherited.get(name, {})
        return out | dict(own)

    @property
    def ordered(self) -> dict[PolicyKey, tuple[Json, Node]]:
        """Valid policies with their selectors, in the order in which they are tried."""
        if self._parsed is None:
            found = {
                key: (policy, parse(policy["selector"])) for key, policy in self.policies if _valid(policy)
            }
            keys = sorted(found, key=lambda key: self._place(key, found[key][0]))
            self._parsed = {key: found[key] for key in keys}
        return self._parsed

    def tier(self, name: str) -> tuple[float, str]:
        """Return a tier's order and default action."""
        return self.tiers.get(name) or clusterpolicy.BUILT_IN.get(name, (math.inf, "Deny"))

    def _place(self, key: PolicyKey, policy: Json) -> tuple[float, str, float, str]:
        tier, order = policy["tier"], policy.get("order")
        named = f"{key.name}/{key.namespace}/{key.kind}"
        return (self.tier(tier)[0], tier, math.inf if order is None else order, named)

    def members(self, name: str, selector: Node, protocol: str, port: str) -> SetInfo:
        """Return an IP set with its members, worked out once for all nodes."""
        known = self._sets.get(name)
        if known is not None:
            return known
        if self._things is None:
            self._things = self._list_things()
        found: dict[str, None] = {}
        for thing in self._things:
            if not selector.matches(thing.labels):
                continue
            if not port:
                found.update(dict.fromkeys(thing.addresses))
                continue
            for called, proto, number in thing.ports:
                if called == port and proto == protocol:
                    for address in thing.addresses:
                        found[f"{address.partition('/')[0]},{proto}:{number}"] = None
        made = self._sets[name] = SetInfo(name, "IP_AND_PORT" if port else "NET", tuple(sorted(found)))
        return made

    def picture(self, node: str) -> Picture:
        """Return what one node's Felix computes."""
        return _Calculation(self, node).picture()

    def _list_things(self) -> list[_Thing]:
        out = []
        for pod in self.pods:
            spec = pod["spec"]
            named = tuple(
                (port["name"], port["protocol"].lower(), port["port"]) for port in spec.get("ports") or ()
            )
            labels = self.labels(pod["metadata"]["labels"], spec["profiles"])
            out.append(_Thing(labels, tuple(spec.get("ipNetworks") or ()), named))
        for host in self.hosts:
            spec = host.get("spec") or {}
            addresses = tuple(f"{ip}/{128 if ':' in ip else 32}" for ip in spec.get("expectedIPs") or ())
            named = tuple((p["name"], p["protocol"].lower(), p["port"]) for p in spec.get("ports") or ())
            labels = self.labels(host["metadata"].get("labels") or {}, spec.get("profiles") or ())
            out.append(_Thing(labels, addresses, named))
        for nets in self.sets:
            meta, profiles = nets["metadata"], []
            labels = dict(meta.get("labels") or {})
            if nets["kind"] == "NetworkSet":
                labels[convert.NAMESPACE] = meta.get("namespace") or "default"
                profiles = [f"kns.{labels[convert.NAMESPACE]}"]
            found = (str(prefix(net)) for net in (nets.get("spec") or {}).get("nets") or ())
            out.append(_Thing(self.labels(labels, profiles), tuple(found)))
        return out


def calculate(objects: Iterable[Json], node: str) -> Picture:
    """Return what a node's Felix computes from all objects (manifests). Raises InputError for a bad selector."""
    return World(objects).picture(node)


class _Calculation:
    def __init__(self, world: World, node: str) -> None:
        self.world = world
        self.node = node
        self.sets: dict[str, tuple[Node, str, str]] = {}
        """Set id -> (selector, protocol, named port)."""

    def picture(self) -> Picture:
        world = self.world
        policies = world.ordered
        endpoints: list[EndpointInfo] = []
        active: dict[PolicyKey, PolicyInfo] = {}
        used: dict[str, None] = {}

        def info(key: PolicyKey) -> PolicyInfo:
            if key not in active:
                active[key] = self._policy(key, *policies[key])
            return active[key]

        for pod in world.nodes.get(self.node, ()):
            spec = pod["spec"]
            if not spec.get("ipNetworks"):
                continue
            labels = world.labels(pod["metadata"]["labels"], spec["profiles"])
            mine = [key for key in policies if policies[key][1].matches(labels)]
            tiers = self._tiers([info(key) for key in mine])
            endpoints.append(
                EndpointInfo(
                    id=f"{pod['metadata']['namespace']}/{spec['pod']}",
                    name=spec["interfaceName"],
                    addresses=tuple(spec["ipNetworks"]),
                    profiles=tuple(spec["profiles"]),
                    tiers=tiers,
                )
            )
            used.update(dict.fromkeys(spec["profiles"]))
        for host in world.hosts:
            spec = host.get("spec") or {}
            if spec.get("node") != self.node:
                continue
            profiles = tuple(spec.get("profiles") or ())
            labels = world.labels(host["metadata"].get("labels") or {}, profiles)
            infos = [info(key) for key in policies if policies[key][1].matches(labels)]
            normal = [p for p in infos if not p.untracked and not p.pre_dnat]
            endpoints.append(
                EndpointInfo(
                    id=host["metadata"]["name"],
                    name=spec.get("interfaceName") or "*",
                    addresses=tuple(spec.get("expectedIPs") or ()),
                    profiles=profiles,
                    tiers=self._tiers(normal),
                    untracked=self._tiers([p for p in infos if p.untracked], "Pass"),
                    pre_dnat=self._tiers([p for p in infos if p.pre_dnat], "Pass"),
                    forward=self._tiers([p for p in normal if p.on_forward]),
                    host=True,
                )
            )
            used.update(dict.fromkeys(profiles))
        profiles_ = tuple(self._profile(name) for name in used)
        return Picture(tuple(endpoints), active, self._members(), profiles_)

    # -- policies -----------------------------------------------------------------------------------------------

    def _tiers(self, policies: list[PolicyInfo], action: str = "") -> tuple[TierInfo, ...]:
        names = list(dict.fromkeys(policy.tier for policy in policies))
        return tuple(
            TierInfo(
                name,
                action or self.world.tier(name)[1],
                tuple(p.key for p in policies if p.tier == name and p.ingress),
                tuple(p.key for p in policies if p.tier == name and p.egress),
            )
            for name in names
        )

    def _policy(self, key: PolicyKey, policy: Json, selector: Node) -> PolicyInfo:
        order = policy.get("order")
        return PolicyInfo(
            key=key,
            selector=str(selector),
            tier=policy["tier"],
            order=math.inf if order is None else order,
            inbound=tuple(self._rule(rule) for rule in policy.get("inbound_rules") or ()),
            outbound=tuple(self._rule(rule) for rule in policy.get("outbound_rules") or ()),
            ingress="ingress" in policy["types"],
            egress="egress" in policy["types"],
            untracked=bool(policy.get("untracked")),
            pre_dnat=bool(policy.get("pre_dnat")),
            on_forward=bool(policy.get("apply_on_forward")),
        )

    def _profile(self, name: str) -> ProfileInfo:
        if name == DEFAULT_ALLOW and name not in self.world.profiles:
            return ProfileInfo(name, missing=True)
        profile = self.world.profiles.get(name)
        if profile is None:
            return ProfileInfo(name, missing=True)
        rules = convert.policy_v1({"metadata": {}, "spec": profile["spec"]})
        return ProfileInfo(
            name,
            tuple(self._rule(rule) for rule in rules.get("inbound_rules") or ()),
            tuple(self._rule(rule) for rule in rules.get("outbound_rules") or ()),
        )

    # -- rules and their sets -----------------------------------------------------------------------------------

    def _rule(self, rule: Json) -> RuleInfo:
        fields: dict[str, Any] = {"action": rule["action"], "family": rule.get("ip_version") or 0}
        protocol = rule.get("protocol")
        if not fields["family"] and (protocol in ("icmp", "icmpv6")):
            fields["family"] = 4 if protocol == "icmp" else 6
        for side in ("src", "dst"):
            selector, negated = self._selectors(rule, side)
            for bang, word in (("", ""), ("!", "not_")):
                numbers, named = _split(rule.get(f"{bang}{side}_ports") or ())
                fields[f"{word}{side}_ports"] = numbers
                fields[f"{word}{side}_port_sets"] = tuple(
                    self._named(name, selector or ALL, protocol) for name in named
                )
                fields[f"{word}{side}_nets"] = tuple(rule.get(f"{bang}{side}_nets") or ())
            # A named port's set holds only what the selector selects: the selector has been said with it.
            if selector is not None and (fields[f"{side}_ports"] or not fields[f"{side}_port_sets"]):
                fields[f"{side}_sets"] = (self._set(selector),)
            if negated is not None:
                fields[f"not_{side}_sets"] = (self._set(negated),)
        for bang, word in (("", "icmp"), ("!", "not_icmp")):
            if rule.get(f"{bang}icmp_type") is not None:
                fields[word] = (rule[f"{bang}icmp_type"], rule.get(f"{bang}icmp_code"))
        return RuleInfo(protocol=protocol, not_protocol=rule.get("!protocol"), original=rule, **fields)

    def _selectors(self, rule: Json, side: str) -> tuple[Node | None, Node | None]:
        """Return what a side must and must not be; both in one where the first is there."""
        positive, negative = rule.get(f"{side}_selector") or "", rule.get(f"!{side}_selector") or ""
        if positive and negative:
            return parse(f"({positive}) && (!({negative}))"), None
        return parse(positive) if positive else None, parse(negative) if negative else None

    def _set(self, selector: Node) -> str:
        name = selector.unique_id
        self.sets[name] = (selector, "", "")
        return name

    def _named(self, port: str, selector: Node, protocol: str | int | None) -> str:
        word = str(protocol) if protocol is not None else "none"
        name = unique_id("n", f"{selector.unique_id},{word},{port}")
        self.sets[name] = (selector, word, port)
        return name

    def _members(self) -> tuple[SetInfo, ...]:
        return tuple(self.world.members(name, *found) for name, found in sorted(self.sets.items()))


def _valid(policy: Json) -> bool:
    """False for a policy that Felix's validation filter throws away whole: one with a port 0."""
    rules = [*(policy.get("inbound_rules") or ()), *(policy.get("outbound_rules") or ())]
    ports = [
        port for rule in rules for key, value in rule.items() if key.endswith("_ports") for port in value
    ]
    return not any(str(port).partition(":")[0] == "0" for port in ports)


def _split(ports: Iterable[int | str]) -> tuple[Ports, list[str]]:
    """Return (ranges, names) of a list like [80, "443:445", "http"]."""
    numbers, named = [], []
    for port in ports:
        first, _, last = str(port).partition(":")
        if first.isdigit():
            numbers.append((int(first), int(last or first)))
        else:
            named.append(str(port))
    return tuple(numbers), named
