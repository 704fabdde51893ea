"""What a policy is asked about: pods and addresses, namespaces, nodes, and the rules in one form.

The three families of policies (NetworkPolicy; AdminNetworkPolicy with BaselineAdminNetworkPolicy; ClusterNetworkPolicy)
are brought into one form here, `Policy` with `Rule`s, after the API server's defaults, so that whoever judges, explains
or programs them reads one language.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.objects import (
    AdminNetworkPolicy,
    AnyObject,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
    LabelSelector,
    Namespace,
    NetworkPolicy,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    Node,
    Pod,
)
from kubenet_lab.objects.adminpolicy import (
    AdminNetworkPolicyPort,
    AdminNetworkPolicyRule,
    AdminPolicyPeer,
    AdminPolicySubject,
    ClusterNetworkPolicyProtocol,
    ClusterNetworkPolicyRule,
)
from kubenet_lab.packet.ip import canonical, family, prefix

NAME_LABEL = "kubernetes.io/metadata.name"
"""The label the API server puts on every namespace: its name."""

PROTOCOLS = ("TCP", "UDP", "SCTP")
LAST_PORT = 65535
INGRESS, EGRESS = "Ingress", "Egress"
DIRECTIONS = (INGRESS, EGRESS)
ADMIN, NETWORK, BASELINE = "Admin", "NetworkPolicy", "Baseline"
ACCEPT, DENY, PASS = "Accept", "Deny", "Pass"
EVERYTHING = LabelSelector()


class NamedPort(Struct, frozen=True, order=True):
    """A container's port; the name is empty where it has none."""

    number: int
    protocol: str
    name: str = ""


class Endpoint(Struct, frozen=True):
    """One who sends or is sent to: a pod, or an address of the outside.

    Attributes:
        name: "namespace/pod", or the address.
        namespace: Empty for an address.
        ips: A pod's addresses, the primary family first; none for a pod that has not been given one yet.
        ports: What its containers declare.
        node: The node a pod runs on.
        host_network: Whether it uses its node's network, and so its node's addresses.
        owner: What made the pod, "Deployment/web"; empty for one that stands alone.
    """

    name: str
    namespace: str = ""
    labels: Mapping[str, str] = {}
    ips: tuple[str, ...] = ()
    ports: tuple[NamedPort, ...] = ()
    node: str = ""
    host_network: bool = False
    owner: str = ""

    @property
    def is_pod(self) -> bool:
        """False for an address of the outside."""
        return bool(self.namespace)

    @property
    def selectable(self) -> bool:
        """Whether label selectors find it: pods of the pod network. One in its node's network is the node to others."""
        return bool(self.namespace) and not self.host_network

    def address(self, of_family: int = 0) -> str:
        """Its address of a family (4 or 6), or its primary one; empty where it has none."""
        return next((ip for ip in self.ips if not of_family or family(ip) == of_family), "")


class Peer(Struct, frozen=True):
    """The other side as one rule names it. Exactly one of the four kinds is there.

    Attributes:
        namespace: Pods of just this namespace (a NetworkPolicy's own); empty where `namespaces` says which.
        namespaces, pods: Pods by the labels of their namespace and by their own.
        block, excepted: Addresses; those of `excepted` not.
        nodes: The addresses of these nodes.
        domains: Names outside; no address is known to be meant.
    """

    namespace: str = ""
    namespaces: LabelSelector | None = None
    pods: LabelSelector | None = None
    block: str = ""
    excepted: tuple[str, ...] = ()
    nodes: LabelSelector | None = None
    domains: tuple[str, ...] = ()


class Ports(Struct, frozen=True):
    """Destination ports: `first` to `last` of a protocol, or those a destination's containers name so.

    With a name, an empty protocol is any.
    """

    protocol: str
    first: int = 0
    last: int = LAST_PORT
    name: str = ""


class Rule(Struct, frozen=True):
    """One rule of a policy.

    Attributes:
        index: From 0, in its direction's list.
        action: What befalls the traffic it fits; a NetworkPolicy's rules accept.
        peers: Who is meant; None is everybody. A peer's place in the tuple is its place in the manifest.
        ports: Which ports; None is every port of every protocol.
        parts: For each peer, where it stands in the manifest (`from[1].networks[0]`).
        name: The name an administrator's rule can have.
    """

    index: int
    action: str
    peers: tuple[Peer, ...] | None
    ports: tuple[Ports, ...] | None
    parts: tuple[str, ...] = ()
    name: str = ""


class Policy(Struct, frozen=True):
    """A policy of any kind.

    Attributes:
        kind, namespace, name: The object.
        tier: "Admin", "NetworkPolicy" or "Baseline", asked in this order.
        priority: Within Admin and Baseline: lower is asked first.
        subject: Whom it is about.
        ingress, egress: Its rules.
        isolates: For a NetworkPolicy: the directions in which its pods get nothing but what some rule accepts.
    """

    kind: str
    name: str
    tier: str
    subject: Peer
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    namespace: str = ""
    priority: int = 0
    isolates: tuple[str, ...] = ()

    def rules(self, direction: str) -> tuple[Rule, ...]:
        """Its rules of a direction; none of one that a NetworkPolicy's `policyTypes` do not name."""
        if self.tier == NETWORK and direction not in self.isolates:
            return ()
        return self.ingress if direction == INGRESS else self.egress

    @property
    def title(self) -> str:
        """As people name it: "shop/db-policy", or "AdminNetworkPolicy keep-out"."""
        return f"{self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    @property
    def sort_key(self) -> tuple[int, str, str]:
        """The order within a tier. That of equal priorities is open in the API; here it is by name."""
        return (self.priority, self.name, self.kind)


class Conventions(Struct, frozen=True):
    """What the API leaves to whoever implements it, said aloud.

    Attributes:
        block_matches_pods: An `ipBlock` or `networks` peer matches pods by their addresses as well. Some data planes do
            not do that.
        self_allowed: "A pod cannot block access to itself": traffic of a pod to its own address stays in the pod and no
            agent sees it. Truth tables usually evaluate it like any other.
        node_allowed: Traffic between a pod and the node it runs on is let through, so that the kubelet can probe.
        family: Which address of a pod with two `ipBlock`s look at (4 or 6); 0 is its primary one.
    """

    block_matches_pods: bool = True
    self_allowed: bool = False
    node_allowed: bool = False
    family: int = 0


TABLE = Conventions()
"""Policies and nothing else: what truth tables of conformance tests show."""

CLUSTER = Conventions(self_allowed=True, node_allowed=True)
"""As a cluster behaves."""


class NodeAddresses(Struct, frozen=True):
    """A node as policies see it."""

    name: str
    labels: Mapping[str, str]
    ips: tuple[str, ...]


class World(Struct, frozen=True):
    """Everything a verdict depends on.

    Attributes:
        endpoints: Pods by name, then outside addresses in the order they were asked for.
        namespaces: Labels of each namespace that exists or has a pod.
        nodes: The nodes.
        policies: In the order they are asked: Admin by priority, NetworkPolicies, Baseline by priority.
        conventions: See there.
    """

    endpoints: tuple[Endpoint, ...]
    namespaces: Mapping[str, Mapping[str, str]]
    nodes: tuple[NodeAddresses, ...] = ()
    policies: tuple[Policy, ...] = ()
    conventions: Conventions = TABLE

    @classmethod
    def from_objects(
        cls,
        objects: Iterable[AnyObject],
        external: Sequence[str] = (),
        conventions: Conventions = TABLE,
    ) -> World:
        """Gather pods, namespaces, nodes and policies; other kinds play no part.

        Pods that have ended are left out. `external` are addresses to judge beside the pods. Raises ValueError for one
        that is no address.
        """
        pods: dict[str, Endpoint] = {}
        named: dict[str, Mapping[str, str]] = {}
        nodes: list[NodeAddresses] = []
        policies: list[Policy] = []
        for obj in objects:
            if isinstance(obj, Pod):
                if not obj.finished:
                    pods[f"{obj.namespace}/{obj.name}"] = endpoint_of(obj)
            elif isinstance(obj, Namespace):
                named[obj.name] = obj.metadata.labels
            elif isinstance(obj, Node):
                nodes.append(NodeAddresses(obj.name, obj.metadata.labels, obj.internal_ips))
            else:
                policy = policy_of(obj)
                if policy is not None:
                    policies.append(policy)
        outside = tuple(Endpoint(ip, ips=(ip,)) for ip in map(canonical, external))
        return cls(
            (*(pods[name] for name in sorted(pods)), *outside),
            namespaces_of(named, pods.values(), policies),
            tuple(nodes),
            in_order(policies),
            conventions,
        )

    def endpoint(self, name: str) -> Endpoint:
        """Find an endpoint by "namespace/pod", a pod's bare name if it is the only one so called, or an address.

        An address that no endpoint has is one of the outside. Raises KeyError for what is neither.
        """
        for found in self.endpoints:
            if found.name == name:
                return found
        bare = [found for found in self.endpoints if found.is_pod and found.name.rpartition("/")[2] == name]
        if len(bare) == 1:
            return bare[0]
        try:
            address = canonical(name)
        except ValueError:
            raise KeyError(name) from None
        for found in self.endpoints:
            if address in found.ips and not found.host_network:
                return found
        return Endpoint(address, ips=(address,))

    def with_policies(self, policies: Iterable[Policy]) -> World:
        """The same world under other policies."""
        return replace(self, policies=in_order(policies))


def in_order(policies: Iterable[Policy]) -> tuple[Policy, ...]:
    """Policies in the order in which they are asked."""
    tiers = {ADMIN: 0, NETWORK: 1, BASELINE: 2}

    def key(policy: Policy) -> tuple[int, int, str, str]:
        if policy.tier == NETWORK:
            return (1, 0, policy.namespace, policy.name)
        return (tiers[policy.tier], *policy.sort_key)

    return tuple(sorted(policies, key=key))


def namespaces_of(
    named: Mapping[str, Mapping[str, str]], pods: Iterable[Endpoint], policies: Iterable[Policy] = ()
) -> dict[str, Mapping[str, str]]:
    """Labels of every namespace that is mentioned, with the one the API server adds."""
    mentioned = {pod.namespace for pod in pods} | {
        policy.namespace for policy in policies if policy.namespace
    }
    return {name: {**named.get(name, {}), NAME_LABEL: name} for name in sorted({*named, *mentioned} - {""})}


def endpoint_of(pod: Pod) -> Endpoint:
    """A pod as policies see it."""
    ports = tuple(
        NamedPort(port.container_port, port.protocol or "TCP", port.name)
        for container in pod.serving_containers
        for port in container.ports
    )
    return Endpoint(
        f"{pod.namespace}/{pod.name}",
        pod.namespace,
        pod.metadata.labels,
        tuple(map(canonical, pod.ips)),
        ports,
        pod.spec.node_name,
        bool(pod.spec.host_network),
        _owner(pod),
    )


def _owner(pod: Pod) -> str:
    """What a pod belongs to as its writer thinks of it: the Deployment, not its ReplicaSet."""
    owner = pod.metadata.controller
    if owner is None:
        return ""
    suffix = f"-{pod.metadata.labels.get('pod-template-hash', '')}"
    if owner.kind == "ReplicaSet" and len(suffix) > 1 and owner.name.endswith(suffix):
        return f"Deployment/{owner.name.removesuffix(suffix)}"
    return f"{owner.kind}/{owner.name}"


def policy_of(obj: AnyObject) -> Policy | None:
    """An object as a `Policy`; None for a kind that is none."""
    if isinstance(obj, NetworkPolicy):
        return _network_policy(obj)
    if isinstance(obj, AdminNetworkPolicy | BaselineAdminNetworkPolicy):
        tier = ADMIN if isinstance(obj, AdminNetworkPolicy) else BASELINE
        spec = obj.spec
        return Policy(
            obj.kind,
            obj.name,
            tier,
            _subject(spec.subject),
            tuple(_admin_rule(rule, i) for i, rule in enumerate(spec.ingress)),
            tuple(_admin_rule(rule, i) for i, rule in enumerate(spec.egress)),
            priority=obj.spec.priority if isinstance(obj, AdminNetworkPolicy) else 0,
        )
    if isinstance(obj, ClusterNetworkPolicy):
        return Policy(
            obj.kind,
            obj.name,
            obj.spec.tier,
            _subject(obj.spec.subject),
            tuple(_cluster_rule(rule, i) for i, rule in enumerate(obj.spec.ingress)),
            tuple(_cluster_rule(rule, i) for i, rule in enumerate(obj.spec.egress)),
            priority=obj.spec.priority,
        )
    return None


def _network_policy(obj: NetworkPolicy) -> Policy:
    spec, own = obj.spec, obj.namespace
    # The default: Ingress always, Egress where there is an egress rule.
    types = spec.policy_types or ((INGRESS, EGRESS) if spec.egress else (INGRESS,))

    def rule(
        index: int, field: str, peers: Sequence[NetworkPolicyPeer], ports: Sequence[NetworkPolicyPort]
    ) -> Rule:
        return Rule(
            index,
            ACCEPT,
            tuple(_peer(peer, own) for peer in peers) or None,
            tuple(_ports(port) for port in ports) or None,
            tuple(f"{field}[{number}]" for number in range(len(peers))),
        )

    return Policy(
        obj.kind,
        obj.name,
        NETWORK,
        Peer(own, pods=spec.pod_selector or EVERYTHING),
        tuple(rule(i, "from", given.from_, given.ports) for i, given in enumerate(spec.ingress)),
        tuple(rule(i, "to", given.to, given.ports) for i, given in enumerate(spec.egress)),
        own,
        isolates=tuple(direction for direction in DIRECTIONS if direction in types),
    )


def _peer(given: NetworkPolicyPeer, own: str) -> Peer:
    if given.ip_block is not None:
        return Peer(block=prefix(given.ip_block.cidr).text, excepted=given.ip_block.except_)
    if given.namespace_selector is None:
        return Peer(own, pods=given.pod_selector or EVERYTHING)
    return Peer(namespaces=given.namespace_selector, pods=given.pod_selector or EVERYTHING)


def _ports(given: NetworkPolicyPort) -> Ports:
    protocol = given.protocol or "TCP"
    if given.port is None:
        return Ports(protocol)
    if isinstance(given.port, str):
        return Ports(protocol, name=given.port)
    return Ports(protocol, given.port, given.port if given.end_port is None else given.end_port)


def _subject(given: AdminPolicySubject) -> Peer:
    if given.pods is not None:
        return Peer(
            namespaces=given.pods.namespace_selector or EVERYTHING, pods=given.pods.pod_selector or EVERYTHING
        )
    return Peer(namespaces=given.namespaces or EVERYTHING, pods=EVERYTHING)


def _admin_peers(given: Sequence[AdminPolicyPeer], field: str) -> tuple[tuple[Peer, ...], tuple[str, ...]]:
    peers: list[Peer] = []
    parts: list[str] = []
    for index, peer in enumerate(given):
        place = f"{field}[{index}]"
        if peer.networks:
            for number, network in enumerate(peer.networks):
                # The API server takes what an implementation cannot read; it then means no address.
                if is_prefix(network):
                    peers.append(Peer(block=prefix(network).text))
                    parts.append(f"{place}.networks[{number}]")
            continue
        parts.append(place)
        if peer.nodes is not None:
            peers.append(Peer(nodes=peer.nodes))
        elif peer.domain_names:
            peers.append(Peer(domains=peer.domain_names))
        else:
            peers.append(_subject(AdminPolicySubject(namespaces=peer.namespaces, pods=peer.pods)))
    return tuple(peers), tuple(parts)


def is_prefix(text: str) -> bool:
    """Whether a text is an address block."""
    try:
        prefix(text)
    except ValueError:
        return False
    return True


def fits_labels(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether a selector means an object with these labels.

    One with an operator that is none selects nothing: the API server does not look into the selectors of a cluster's
    policies, and an implementation that cannot read one matches nobody.
    """
    try:
        return selector.matches(labels)
    except ValueError:
        return False


def _action(text: str) -> str:
    return ACCEPT if text == "Allow" else text


def _admin_rule(rule: AdminNetworkPolicyRule, index: int) -> Rule:
    peers, parts = _admin_peers(rule.from_ or rule.to, "from" if rule.from_ else "to")
    ports = tuple(map(_admin_ports, rule.ports)) or None
    return Rule(index, _action(rule.action), peers, ports, parts, rule.name)


def _admin_ports(given: AdminNetworkPolicyPort) -> Ports:
    if given.port_number is not None:
        number = given.port_number
        return Ports(number.protocol, number.port, number.port)
    if given.port_range is not None:
        return Ports(given.port_range.protocol, given.port_range.start, given.port_range.end)
    return Ports("", name=given.named_port)


def _cluster_rule(rule: ClusterNetworkPolicyRule, index: int) -> Rule:
    peers, parts = _admin_peers(rule.from_ or rule.to, "from" if rule.from_ else "to")
    ports = tuple(map(_cluster_ports, rule.protocols)) or None
    return Rule(index, _action(rule.action), peers, ports, parts, rule.name)


def _cluster_ports(given: ClusterNetworkPolicyProtocol) -> Ports:
    for protocol, inner in (("TCP", given.tcp), ("UDP", given.udp), ("SCTP", given.sctp)):
        if inner is None:
            continue
        port = inner.destination_port
        if port is None:
            return Ports(protocol)
        if port.range is not None:
            return Ports(protocol, port.range.start, port.range.end)
        if port.number is not None:
            return Ports(protocol, port.number, port.number)
        return Ports(protocol)
    return Ports("", name=given.destination_named_port)
