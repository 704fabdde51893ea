"""Answers to choose one from."""

from __future__ import annotations

from collections.abc import Sequence

import traitlets

from kubenet_lab.widgets.base import HERE, Widget


class Choices(Widget):
    """A group of radio buttons; `value` is the key of the chosen one, "" while none is.

    ipywidgets' RadioButtons are no group to the browser, so arrow keys do not move in them.

    Args:
        options: (key, HTML) pairs, in order.
        label: What a screen reader says first.
    """

    _esm = HERE / "choices.js"
    _css = (
        ".knl-choices{border:0;margin:6px 0;padding:0}"
        ".knl-choices legend{position:absolute;clip-path:inset(50%);width:1px;height:1px;overflow:hidden}"
        ".knl-choices label{display:flex;gap:10px;align-items:baseline;padding:3px 0;line-height:1.45;cursor:pointer;"
        "font-size:var(--jp-ui-font-size1,13px)}"
        ".knl-choices input{margin:0;flex:0 0 auto;position:relative;top:1px}"
        ".knl-choices input:focus-visible{outline:3px solid #e69f00;outline-offset:1px}"
    )
    options = traitlets.List(traitlets.List(traitlets.Unicode())).tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    value = traitlets.Unicode("").tag(sync=True)

    def __init__(self, options: Sequence[tuple[str, str]], label: str = "answers") -> None:
        super().__init__(options=[list(pair) for pair in options], label=label)

    def still(self) -> str:
        """Return the answers as a list."""
        return f"<ul>{''.join(f'<li>{html}</li>' for _key, html in self.options)}</ul>"

    def describe(self) -> str:
        """Return the keys."""
        return f"Choices({', '.join(key for key, _html in self.options)})"
