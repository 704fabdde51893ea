"""A lookup under one's hands: type a name, slide ndots, change namespace and resolver, and read every query."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import ipywidgets as w

from kubenet_lab.views.dns_steps import TITLES, DnsSteps
from kubenet_lab.widgets.exercise import STYLE
from kubenet_lab.widgets.guard import Guard

LookUp = Callable[..., DnsSteps]
"""(name, namespace=, libc=, policy=, ndots=) -> what was asked."""


class DnsStepper(w.VBox):  # type: ignore[misc]
    """The list of queries of one lookup.

    Args:
        look_up: Makes the lookup.
        name: What is looked up first.
        namespaces, policies: What the lists offer.
    """

    def __init__(
        self,
        look_up: LookUp,
        name: str = "backend",
        namespaces: tuple[str, ...] = ("default", "production"),
        policies: tuple[str, ...] = ("ClusterFirst", "Default"),
    ) -> None:
        self._look_up = look_up
        style = {"description_width": "initial"}
        self.name = w.Text(value=name, description="name", continuous_update=False, style=style)
        self.namespace = w.Dropdown(options=list(namespaces), description="asked from namespace", style=style)
        self.policy = w.Dropdown(options=list(policies), description="dnsPolicy", style=style)
        self.resolver = w.Dropdown(
            options=[(title, key) for key, title in TITLES.items()], description="resolver", style=style
        )
        self.ndots = w.IntSlider(value=5, min=0, max=6, description="ndots", style=style)
        self.picture = w.HTML(layout=w.Layout(width="auto", overflow="visible"))
        self.words = w.HTML(layout=w.Layout(width="auto", overflow="visible"))
        for one in (self.name, self.namespace, self.policy, self.resolver, self.ndots):
            one.observe(lambda _change: self.draw(), "value")
        row = w.Layout(flex_flow="row wrap")
        super().__init__(
            [
                w.HTML(STYLE),
                w.HBox([self.name, self.ndots], layout=row),
                w.HBox([self.namespace, self.policy, self.resolver], layout=row),
                self.picture,
                self.words,
                Guard(),
            ]
        )
        self.add_class("knl-bench")
        self.draw()

    @property
    def found(self) -> DnsSteps:
        """The lookup that is shown."""
        return self._found

    def draw(self) -> None:
        """Look the name up and show what was asked."""
        name = self.name.value.strip()
        if not name:
            self.picture.value, self.words.value = "<p>Type a name.</p>", ""
            return
        self._found = self._look_up(
            name,
            namespace=self.namespace.value,
            libc=self.resolver.value,
            policy=self.policy.value,
            ndots=self.ndots.value,
        )
        self.picture.value = self._found._repr_html_()
        text = escape(self._found.text(), quote=False)
        self.words.value = (
            "<details><summary>The same as text</summary>"
            f'<pre style="overflow-x:auto;line-height:1.4">{text}</pre></details>'
        )

    def __repr__(self) -> str:
        return f"DnsStepper({self._found.name}: {len(self._found.queries)} queries, {self._found.result})"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        found = super()._repr_mimebundle_(**options)
        data = dict(found[0] if isinstance(found, tuple) else found or {})
        return {**data, "text/html": self.picture.value + self.words.value, "text/plain": repr(self)}
