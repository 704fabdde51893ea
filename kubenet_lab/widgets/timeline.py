"""A Service second by second with a clock: drag it or let it run, and read what is true and what is felt."""

from __future__ import annotations

from typing import Any

import traitlets

from kubenet_lab.views.timeline import Second, TimeLine, columns, state_of, tail, timeline_svg
from kubenet_lab.widgets.base import Widget, script


class TimelineClock(Widget):
    """The picture of `views.timeline` with a clock over it, by mouse, arrow keys, Home, End and space.

    Args:
        line: What happened.
        second: The second shown first; by default the first in which something was done, or the first of all.
    """

    _esm = script("timeline")
    svg = traitlets.Unicode().tag(sync=True)
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    place = traitlets.Dict().tag(sync=True)
    second = traitlets.Int(0).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    pace = traitlets.Int(900, help="Milliseconds a second is shown while playing.").tag(sync=True)

    def __init__(self, line: TimeLine, second: int | None = None) -> None:
        self.line = line
        done = next((n for n, s in enumerate(line.seconds) if s.did), 0)
        left, wide = columns(line)
        super().__init__(
            svg=timeline_svg(line),
            rows=rows(line),
            place={"left": left, "wide": wide},
            second=done if second is None else second,
            words=str(line),
        )

    def still(self) -> str:
        """Return the picture."""
        return self.line._repr_html_()

    def describe(self) -> str:
        """Return what the callers felt."""
        return f"TimelineClock({self.line})"


def rows(line: TimeLine) -> list[dict[str, Any]]:
    """Return what is said of each second."""
    seen: set[str] = set()
    out = []
    for second in line.seconds:
        out.append(_row(line, second, seen))
        seen |= {pod.name for pod in second.moment.pods if pod.ready}
    return out


def _row(line: TimeLine, second: Second, seen: set[str]) -> dict[str, Any]:
    calls: dict[str, int] = {}
    for call in second.calls:
        key = f"answered by {tail(call.pod)}" if call.good else call.verdict
        calls[key] = calls.get(key, 0) + 1
    pods = [
        {
            "name": tail(pod.name),
            "state": state_of(pod, pod.name in seen),
            "ip": pod.ip,
            "image": pod.image.rpartition("/")[2],
            "slice": "ready"
            if pod.ip in second.ready
            else "not ready"
            if _in_slice(second, pod.ip)
            else "not in it",
            "rules": "named" if pod.ip in second.named else "not named",
        }
        for pod in second.moment.pods
    ]
    gone = sorted(second.named - {pod.ip for pod in second.moment.pods})
    return {
        "second": second.moment.second,
        "did": second.did,
        "pods": pods,
        "gone": gone,
        "dead": sorted(second.named & second.dead),
        "late": second.ready != second.named,
        "lost": sum(not call.good for call in second.calls),
        "calls": calls,
        "node": line.node,
    }


def _in_slice(second: Second, ip: str) -> bool:
    return any(endpoint.address == ip for endpoint in second.moment.endpoints)
