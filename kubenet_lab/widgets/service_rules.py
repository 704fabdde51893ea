"""A Service's rules with a slider for the number of its pods: drag it and kube-proxy writes the chain anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ipywidgets as w
from msgspec.structs import replace

from kubenet_lab.views.service_rules import ServiceRules, service_rules, service_rules_picture
from kubenet_lab.widgets.exercise import STYLE
from kubenet_lab.widgets.guard import Guard

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster


class RulesExplorer(w.VBox):  # type: ignore[misc]
    """The chains of a Service on one node, redrawn as its Deployment is scaled.

    The slider changes `cluster` itself: pods start and stop, endpoint slices follow, kube-proxy writes its rules.

    Args:
        cluster: The world.
        deployment, service: Names in namespace `default`.
        node: Whose rules are shown.
        most: The slider's right end.
    """

    def __init__(
        self, cluster: Cluster, deployment: str = "backend", service: str = "backend", *, node: str = "node-1",
        most: int = 8,
    ) -> None:  # fmt: skip
        self.cluster, self.deployment, self.service, self.node = cluster, deployment, service, node
        self.slider = w.IntSlider(
            value=self._replicas(), min=0, max=most, description="pods behind it", continuous_update=False,
            style={"description_width": "initial"}, layout=w.Layout(width="420px"),
        )  # fmt: skip
        self.picture = w.HTML(layout=w.Layout(width="auto", overflow="visible"))
        self.text = w.HTML(layout=w.Layout(width="auto", overflow="visible"))
        self.slider.observe(lambda change: self.scale(change["new"]), "value")
        super().__init__([w.HTML(STYLE), self.slider, self.picture, self.text, Guard()])
        self.add_class("knl-bench")
        self._draw()

    def _replicas(self) -> int:
        found = self.cluster.store.get("Deployment", self.deployment, "default")
        return int(found.spec.replicas or 0)

    @property
    def rules(self) -> ServiceRules:
        """The rules as they stand."""
        service = self.cluster.store.get("Service", self.service, "default")
        rules = self.cluster.network.ns(self.node).iptables[4]
        return service_rules(rules, service.addresses[0], service.spec.ports[0].port, self.cluster.names())

    def scale(self, replicas: int) -> None:
        """`kubectl scale deployment NAME --replicas N`."""
        found = self.cluster.store.get("Deployment", self.deployment, "default")
        self.cluster.apply_objects([replace(found, spec=replace(found.spec, replicas=replicas))])
        self._draw()

    def _draw(self) -> None:
        from html import escape

        found = self.rules
        self.picture.value = service_rules_picture(found)._repr_html_()
        lines = escape("\n".join(found.lines), quote=False)
        self.text.value = (
            f"<details><summary>Look inside: the lines as iptables-save prints them on {self.node}</summary>"
            f'<pre style="overflow-x:auto;line-height:1.4">{lines}</pre></details>'
        )

    def __repr__(self) -> str:
        return f"RulesExplorer({self.rules})"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        found = super()._repr_mimebundle_(**options)
        data = dict(found[0] if isinstance(found, tuple) else found or {})
        return {**data, "text/html": self.picture.value + self.text.value, "text/plain": repr(self)}
