"""`%load_ext diagnostics`: `%kubectl` and `%%netshoot` for a notebook.

They work on the cluster the notebook has: the one variable that is a cluster, or the one `%cluster NAME`
chose. A magic gives back a `Result`, which shows as the terminal would and keeps rows and packets for
later:
`answer = %netshoot frontend dig +short backend`.
"""

from __future__ import annotations

import shlex
from typing import Any

from diagnostics import kubectl, shell
from diagnostics.tool import Result
from kubenet_lab.clock import START
from kubenet_lab.walk.engine import Walk


class StoreApi:
    """A cluster's store as the API that kubectl sees: manifests, and nothing else of it."""

    def __init__(self, store: Any) -> None:
        self.store = store

    def list(self, kind: str, namespace: str | None) -> list[dict[str, Any]]:
        """Return the manifests of a kind, sorted by namespace and name."""
        found = [item.to_manifest() for item in self.store.list(kind, namespace)]
        return sorted(
            found, key=lambda item: (item["metadata"].get("namespace", ""), item["metadata"]["name"])
        )


class Session:
    """What the magics share: the notebook's variables, the chosen cluster, and one walk and history for each."""

    def __init__(self, variables: dict[str, Any]) -> None:
        self.variables = variables
        self.chosen = ""
        self._walks: dict[int, tuple[Any, Walk, shell.History]] = {}

    def cluster(self) -> Any:
        """Return the cluster to work on. Raises ValueError, which says how to choose one."""
        found = {
            name: value
            for name, value in self.variables.items()
            if not name.startswith("_") and hasattr(value, "network") and hasattr(value, "store")
        }
        if self.chosen in found:
            return found[self.chosen]
        different = {id(value): value for value in found.values()}
        if len(different) == 1:
            return next(iter(different.values()))
        if not different:
            raise ValueError("no cluster in this notebook; make one: shop = scenarios.shop()")
        raise ValueError(
            f"several clusters here ({', '.join(sorted(found))}); choose one: %cluster {min(found)}"
        )

    def walk(self, cluster: Any) -> tuple[Walk, shell.History]:
        """Return the walk and the history of a cluster's commands; a walk never lags behind the cluster's
        clock.
        """
        held = self._walks.get(id(cluster))
        if held is None or held[0] is not cluster or held[1].network is not cluster.network:
            held = self._walks[id(cluster)] = (cluster, Walk(cluster.network, now=cluster.now), [])
        held[1].now = max(held[1].now, cluster.now)
        return held[1], held[2]

    def kubectl(self, line: str) -> Result:
        """`%kubectl get pods -o wide`."""
        cluster = self.cluster()
        return kubectl.run(StoreApi(cluster.store), shlex.split(line), now=START.timestamp() + cluster.now)

    def netshoot(self, line: str, cell: str | None = None) -> Result:
        """`%netshoot POD COMMAND`, or `%%netshoot POD` above a cell of commands. `node/NAME` is a node."""
        place, _, command = line.strip().partition(" ")
        cluster = self.cluster()
        if not place:
            raise ValueError("say where: %%netshoot frontend")
        walk, history = self.walk(cluster)
        text = command if cell is None else f"{command}\n{cell}" if command else cell
        return shell.run(cluster.network, place_of(cluster, place), text, walk=walk, history=history)


def place_of(cluster: Any, place: str) -> str:
    """Return the namespace that a word names: a pod ("frontend", "shop/web"), a Deployment's first, or
    "node/NAME".
    """
    names = cluster.network.netns
    if place.startswith("node/") and place[5:] in names:
        return place[5:]
    if place in names:
        return place
    pod = cluster.pod(place)
    return f"{pod.metadata.namespace}/{pod.metadata.name}"


def register(ipython: Any) -> None:
    """Register the magics with an IPython shell."""
    session = Session(ipython.user_ns)

    def choose(line: str) -> None:
        """`%cluster NAME`: work on the cluster in that variable from now on."""
        session.chosen = line.strip()
        session.cluster()

    ipython.register_magic_function(session.kubectl, "line", "kubectl")
    ipython.register_magic_function(session.netshoot, "line_cell", "netshoot")
    ipython.register_magic_function(choose, "line", "cluster")
