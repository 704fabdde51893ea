"""How far somebody gets who has taken over one pod."""

from __future__ import annotations

from msgspec import Struct

from kubenet_lab.policy.world import World
from kubenet_lab.reach.matrix import Reach


class Hop(Struct, frozen=True):
    """One step: from a pod to a port of another."""

    source: str
    destination: str
    port: int
    protocol: str

    def __str__(self) -> str:
        return f"{self.source} -> {self.destination}:{self.port}/{self.protocol}"


class Attack(Struct, frozen=True):
    """What can be reached from one pod, taking over pod after pod.

    Attributes:
        start: The pod that was taken over.
        paths: For each pod reached, the shortest way to it, in the order of length and name.
        safe: The pods that cannot be reached.
    """

    start: str
    paths: dict[str, tuple[Hop, ...]]
    safe: tuple[str, ...]

    def text(self) -> str:
        """One pod a line, with the way to it."""
        lines = [f"From {self.start}, {len(self.paths)} other pods can be reached:"]
        for hops in self.paths.values():
            lines.append(
                "  "
                + " -> ".join([hops[0].source, *(f"{h.destination}:{h.port}/{h.protocol}" for h in hops)])
            )
        lines.append(f"Out of reach: {', '.join(self.safe) or 'none'}.")
        return "\n".join(lines) + "\n"


def attack(world: World, start: str, *, any_port: bool = False) -> Attack:
    """Every pod that can be reached from one, hop by hop, over ports that containers declare.

    An attacker on a pod can open connections to whatever policies allow; a pod that is reached on a port on which
    something listens counts as taken over next. That is the worst case: whether the program there can be broken into,
    no manifest says.

    Args:
        start: "namespace/pod".
        any_port: Count any open port as a way in, whether declared or not.

    Raises:
        KeyError: There is no such pod.
    """
    reach = Reach(world)
    pods = [endpoint for endpoint in world.endpoints if endpoint.is_pod]
    if start not in {pod.name for pod in pods}:
        raise KeyError(start)
    paths: dict[str, tuple[Hop, ...]] = {}
    frontier, seen = [start], {start}
    while frontier:
        found: list[str] = []
        for source in frontier:
            for pod in pods:
                if pod.name in seen:
                    continue
                ports = [(port.number, port.protocol) for port in pod.ports]
                if any_port:
                    ports += [(max(span.first, 1), span.protocol) for span in reach.spans if span.last]
                for number, protocol in ports:
                    if reach.allowed(source, pod.name, number, protocol):
                        paths[pod.name] = (*paths.get(source, ()), Hop(source, pod.name, number, protocol))
                        seen.add(pod.name)
                        found.append(pod.name)
                        break
        frontier = found
    return Attack(start, paths, tuple(pod.name for pod in pods if pod.name not in seen))
