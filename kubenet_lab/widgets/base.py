"""What every widget here shares: its script and style, and a still picture where no kernel or script runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anywidget
import traitlets

from kubenet_lab.views.theme import VARIABLES

HERE = Path(__file__).parent
STYLE = VARIABLES + (HERE / "widgets.css").read_text()
_SHARED = (HERE / "dom.js").read_text()


def script(name: str) -> str:
    """Return a widget's script, after what all of them share: a module in a notebook has no neighbours to import."""
    return _SHARED + (HERE / f"{name}.js").read_text()


class Widget(anywidget.AnyWidget):  # type: ignore[misc]
    """A widget with a still equivalent. Subclasses set `_esm` and override `still` and `describe`."""

    _css = STYLE
    words = traitlets.Unicode("", help="The text equivalent, shown folded under the picture.").tag(sync=True)

    def still(self) -> str:
        """Return the HTML shown where the widget cannot live: GitHub, nbconvert, a notebook that is not trusted."""
        raise NotImplementedError

    def describe(self) -> str:
        """Return one line, the same on every run."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return self.describe()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = super()._repr_mimebundle_(**options)
        if bundle is None:
            return None
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        data["text/html"] = self.still()
        data["text/plain"] = self.describe()
        return bundle
