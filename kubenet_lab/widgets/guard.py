"""An invisible member of a panel that lets the panel's fields be used by keyboard."""

from __future__ import annotations

from kubenet_lab.widgets.base import HERE, Widget


class Guard(Widget):
    """Keeps JupyterLab's shortcuts out of the panel around it.

    In command mode JupyterLab takes arrow keys and Enter for itself, also from a focused radio button; the attribute
    `data-lm-suppress-shortcuts` on an ancestor tells it not to (Lumino, `CommandRegistry`).
    """

    _esm = HERE / "guard.js"
    _css = ""

    def still(self) -> str:
        """Return nothing: there is nothing to see."""
        return ""

    def describe(self) -> str:
        """Return its name."""
        return "Guard()"
