"""The cluster map, clickable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import traitlets

from kubenet_lab.kernel.network import Network
from kubenet_lab.trace import Trace
from kubenet_lab.views.cluster_map import MapModel, map_svg, model_of
from kubenet_lab.views.text import map_text
from kubenet_lab.views.theme import image
from kubenet_lab.widgets.base import Widget, script


class ClusterMap(Widget):
    """Nodes, pods, devices and Services of a world; a click (or Enter) on one selects it.

    `selected` is "namespace#link" as in `views.cluster_map.key` ("node-1#cni0", "default/frontend#"), or "".
    Observe it to open the object: `m.observe(lambda change: ..., "selected")`.

    Args:
        world: A Network, or anything with `network` and `names()` (a Cluster).
        names: Address -> label; by default the world's own.
        traces: Packets to draw over the map.
        marks, faults: As in `views.cluster_map.map_svg`.
    """

    _esm = script("cluster_map")
    svg = traitlets.Unicode().tag(sync=True)
    selected = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        world: Any,
        names: Mapping[str, str] | None = None,
        *,
        traces: Sequence[Trace] = (),
        marks: Mapping[str, str] | None = None,
        faults: Mapping[str, str] | None = None,
        selected: str = "",
    ) -> None:
        self._world = world
        self._names = names
        self._drawn: dict[str, Any] = {"traces": traces, "marks": marks, "faults": faults}
        self._model = self._read()
        super().__init__(
            svg=map_svg(self._model, **self._drawn), selected=selected, words=map_text(self._model)
        )

    def _read(self) -> MapModel:
        network, names = network_of(self._world), self._names
        return model_of(network, names_of(self._world) if names is None else names)

    def update(self, **drawn: Any) -> None:
        """Read the world again and draw it; `traces`, `marks` and `faults` may be replaced."""
        self._drawn |= drawn
        self._model = self._read()
        with self.hold_trait_notifications():
            self.svg = map_svg(self._model, **self._drawn)
            self.words = map_text(self._model)

    def still(self) -> str:
        """Return the map as an image."""
        return image(
            map_svg(self._model, **self._drawn, selected=self.selected), "Map of the cluster. " + self.words
        )

    def describe(self) -> str:
        """Return what is on the map."""
        pods = sum(len(node.pods) for node in self._model.nodes)
        return f"ClusterMap({len(self._model.nodes)} nodes, {pods} pods)"


def network_of(world: Any) -> Network:
    """Return the network of a cluster, or the network itself."""
    found = world if isinstance(world, Network) else world.network
    assert isinstance(found, Network)
    return found


def names_of(world: Any) -> Mapping[str, str]:
    """Return a cluster's names, or none for a bare network."""
    names: Mapping[str, str] = {} if isinstance(world, Network) else world.names()
    return names
