"""Who could reach a workload tomorrow: pods and namespaces that do not exist yet, and the whole outside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.objects import LabelSelector
from kubenet_lab.packet.ip import ip_text
from kubenet_lab.policy import words
from kubenet_lab.policy.world import NAME_LABEL, Endpoint, Peer, World
from kubenet_lab.reach.listing import merged, node_name, ports_text
from kubenet_lab.reach.matrix import Reach, Span

NEW = "new-namespace"
MOST_PAIRS = 100_000
"""Above this many pairs of a pod and a newcomer only the plainest are tried: the outside, and a new namespace."""


class Exposure(Struct, frozen=True, order=True):
    """What a workload is open to, beyond who is there today.

    Attributes:
        workload: Its name in a listing.
        direction: "Ingress": who could reach it; "Egress": whom it could reach.
        whom: In words: "any address outside", "any pod of a new namespace", ...
        ports: Which ports.
    """

    workload: str
    direction: str
    whom: str
    ports: tuple[Span, ...]

    def __str__(self) -> str:
        way = "can be reached by" if self.direction == "Ingress" else "can reach"
        return f"{self.workload} {way} {self.whom} : {ports_text(self.ports)}"


class _Newcomer(Struct, frozen=True):
    """An endpoint made to try with."""

    endpoint: Endpoint
    whom: str
    labels: dict[str, str] = {}
    plain: bool = False


def exposure(world: World) -> tuple[Exposure, ...]:
    """What each workload is open to if somebody adds a pod or a namespace, or calls from outside.

    Tried with pods made for the purpose: one without labels in a new namespace and in each that exists, and one for
    each selector the rules have. What is open to every pod of a new namespace is not repeated for the others, nor what
    is open to every pod of a namespace for those of its pods that have labels. In worlds of more than `MOST_PAIRS` only
    the outside and a new namespace are tried.
    """
    pods = tuple(endpoint for endpoint in world.endpoints if endpoint.is_pod)
    newcomers = list(_newcomers(world))
    if len(pods) * len(newcomers) > MOST_PAIRS:
        newcomers = newcomers[:2]
    reach = Reach(_with(world, pods, newcomers))
    classes = {endpoint.name: reach.index.class_of[at] for at, endpoint in enumerate(reach.world.endpoints)}
    found: set[Exposure] = set()
    for pod in pods:
        for direction in ("Ingress", "Egress"):
            told: dict[str, tuple[Span, ...]] = {}
            for item in newcomers:
                pair = (classes[item.endpoint.name], classes[pod.name])
                ports = _open(reach, *(pair if direction == "Ingress" else reversed(pair)))
                space = item.endpoint.namespace
                if item.plain:
                    told[space] = ports
                covered = item.endpoint.is_pod and space != NEW and ports == told.get(NEW)
                covered |= bool(space) and not item.plain and ports == told.get(space)
                if ports and not covered:
                    found.add(Exposure(node_name(pod), direction, item.whom, ports))
    return tuple(sorted(found))


def with_newcomers(world: World) -> World:
    """The world with everybody in it who may come: what is the same there is the same for good."""
    from kubenet_lab.reach.listing import outside_ranges

    ranges = [ip_text(first, of) for of, first, _last in outside_ranges(world)]
    known = {ip for endpoint in world.endpoints for ip in endpoint.ips}
    outside = tuple(Endpoint(ip, ips=(ip,)) for ip in ranges if ip not in known)
    return _with(world, (*world.endpoints, *outside), list(_newcomers(world)))


def _with(world: World, endpoints: tuple[Endpoint, ...], newcomers: Sequence[_Newcomer]) -> World:
    spaces = {
        **world.namespaces,
        **{item.endpoint.namespace: item.labels for item in newcomers if item.labels},
    }
    return replace(world, endpoints=(*endpoints, *(item.endpoint for item in newcomers)), namespaces=spaces)


def _open(reach: Reach, source: int, target: int) -> tuple[Span, ...]:
    """The ports open between two classes."""
    kinds = reach.kinds().items()
    return merged(span for kind, spans in kinds if reach.row(kind, source) >> target & 1 for span in spans)


def _newcomers(world: World) -> Iterator[_Newcomer]:
    """Who to try with, the plainest first."""
    known = {ip for endpoint in world.endpoints for ip in endpoint.ips}
    outside = next(ip for ip in (f"198.18.{number}.1" for number in range(256)) if ip not in known)
    yield _Newcomer(Endpoint(outside, ips=(outside,)), "any address outside that no rule names")
    yield _Newcomer(Endpoint(f"{NEW}/pod", NEW), "any pod of a new namespace", {NAME_LABEL: NEW}, True)
    for space in world.namespaces:
        yield _Newcomer(Endpoint(f"{space}/new-pod", space), f"any new pod of namespace {space}", plain=True)
    seen: set[str] = set()
    for policy in world.policies:
        for rule in (*policy.ingress, *policy.egress):
            for peer in rule.peers or ():
                who = words.peer(peer)
                if peer.pods is None or who in seen:
                    continue
                seen.add(who)
                made = _made_for(world, peer, who, len(seen))
                if made is not None:
                    yield made


def _made_for(world: World, peer: Peer, who: str, number: int) -> _Newcomer | None:
    """A pod that a peer means; None where no pod can be made for it, or the plain ones are such."""
    pods = _labels(peer.pods)
    labels = {} if peer.namespace else _labels(peer.namespaces)
    if pods is None or labels is None:
        return None
    space = peer.namespace or labels.get(NAME_LABEL, "")
    if space in world.namespaces:
        return _Newcomer(Endpoint(f"{space}/new-pod-{number}", space, pods), f"new {who}") if pods else None
    if not labels and not pods:
        return None
    space = space or f"{NEW}-{number}"
    return _Newcomer(Endpoint(f"{space}/pod", space, pods), f"new {who}", {**labels, NAME_LABEL: space})


def _labels(selector: LabelSelector | None) -> dict[str, str] | None:
    """Labels that a selector fits."""
    if selector is None:
        return None
    labels = dict(selector.match_labels)
    for item in selector.match_expressions:
        if item.operator == "In":
            labels.setdefault(item.key, item.values[0])
        elif item.operator == "Exists":
            labels.setdefault(item.key, "any")
    return labels if selector.matches(labels) else None
