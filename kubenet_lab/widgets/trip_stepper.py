"""One call, step by step: the packet moves over the map, its headers open beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import traitlets

from kubenet_lab.trip import Trip
from kubenet_lab.views.cluster_map import Layout, key, lay_out, map_svg, model_of, spot_key
from kubenet_lab.views.text import story_text
from kubenet_lab.views.theme import Point
from kubenet_lab.views.trip_picture import trip_html
from kubenet_lab.views.trip_steps import Story, story
from kubenet_lab.widgets.base import Widget, script
from kubenet_lab.widgets.cluster_map import names_of, network_of

LETTER_WIDTH, LETTER_HEIGHT = 20, 14
"""Of the letter that trip_stepper.js draws, in px of the map."""


class TripStepper(Widget):
    """Walks a reader through a trip: forward, back, play, jump; by mouse, and by arrow keys, Home, End and space.

    `step` is the index of the row shown (see `views.trip_steps.StepRow.index`); set it to jump. `every_step` shows all
    of the kernels' steps instead of the main ones; `layer` keeps one ("" all, ends, routes, rules, tunnel, links).

    Args:
        trip: The call.
        world: The Network it went through, or the Cluster.
        names: Address -> label; by default the trip's own.
        faults: What is broken, as in `views.cluster_map.map_svg`.
        step: The row to begin with.
    """

    _esm = script("trip_stepper")
    svg = traitlets.Unicode().tag(sync=True)
    told = traitlets.Dict().tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)
    playing = traitlets.Bool(False).tag(sync=True)
    every_step = traitlets.Bool(False).tag(sync=True)
    layer = traitlets.Unicode("").tag(sync=True)
    pace = traitlets.Int(2200, help="Milliseconds a step is shown while playing.").tag(sync=True)

    def __init__(
        self,
        trip: Trip,
        world: Any,
        names: Mapping[str, str] | None = None,
        *,
        faults: Mapping[str, str] | None = None,
        step: int | None = None,
    ) -> None:
        self.trip = trip
        self._names = trip.names if names is None else names
        self._story = story(trip, self._names)
        model = model_of(network_of(world), self._names or names_of(world))
        marks = marks_of(trip)
        traces = [leg.trace for leg in self._story.legs]
        layout = lay_out(model, traces, marks=marks, faults=faults)
        main = self._story.main_rows
        super().__init__(
            svg=map_svg(
                model,
                traces,
                marks=marks,
                faults=faults,
                title=self._story.headline,
            ),
            told=document(self._story, layout),
            step=step if step is not None else main[0].index if main else 0,
            words=f"{story_text(self._story)}\n\nEvery step:\n{trip.text()}",
        )

    def still(self) -> str:
        """Return the whole trip as a picture and a table."""
        return trip_html(self.trip, self._names)

    def describe(self) -> str:
        """Return what happened."""
        return f"TripStepper({self._story.headline})"


def marks_of(trip: Trip) -> dict[str, str]:
    """Return the words put on the map for a trip: who called, what was called, who answered."""
    # A host outside has several addresses, and the map names one of them: the caller's is the one it was named by.
    address = "/" not in trip.source and any(sign in trip.source for sign in ".:")
    named = f" {trip.source}" if address else ""
    marks = {trip.source_ns: f"▸ caller{named}"}
    if trip.address:
        marks[trip.address] = "called"
    if trip.exchange is not None and trip.exchange.server_ns and trip.exchange.server_ns != trip.source_ns:
        marks[trip.exchange.server_ns] = "▸ server"
    return marks


def document(told: Story, layout: Layout) -> dict[str, Any]:
    """Return what the browser needs to tell the story: rows with their way over the map, headers kept once."""
    kept: dict[Any, int] = {}
    rows = []
    beside = _beside(layout)
    where = ""
    leg = -1
    for row in told.rows:
        hop = told.legs[row.leg].trace.hops[row.hop]
        if row.leg != leg:
            leg, where = row.leg, ""
        place = told.legs[row.leg].trace.place
        spot = place.spot if row.kind == "end" and place.netns == row.netns else row.spot
        here = spot_key(layout, hop, spot) or where
        path = [[round(x), round(y)] for x, y in (beside.get(p, p) for p in _path(layout, where, here))]
        where = here
        rows.append(
            {
                "leg": row.leg,
                "hop": row.hop,
                "place": row.place,
                "layer": row.layer,
                "main": row.main,
                "title": row.title,
                "sentence": row.sentence,
                "entry": row.entry,
                "command": row.command,
                "conntrack": row.conntrack,
                "headers": kept.setdefault(row.headers, len(kept)),
                "path": path,
                "outer": row.outer,
                "at": _box(layout, here),
            }
        )
    return {
        "headline": told.headline,
        "delivered": told.delivered,
        "why": told.why,
        "decided": "" if told.delivered else told.decided_by,
        "place": told.place,
        "needed": told.needed,
        "lookups": list(told.lookups),
        "legs": [{"title": leg.title, "role": leg.role, "lookup": leg.lookup} for leg in told.legs],
        "rows": rows,
        "headers": [
            [
                {
                    "name": h.name,
                    "depth": h.depth,
                    "mark": h.mark,
                    "fields": [list(field) for field in h.fields],
                }
                for h in headers
            ]
            for headers in kept
        ],
    }


def _box(layout: Layout, here: str) -> str:
    """Return the key of the thing on the map that a place belongs to: a veth's bridge, a pod, a device."""
    if here in layout.boxes or not here:
        return here
    netns = key(here.partition("#")[0])
    near = [place for place in layout.ways.get(here, ()) if place in layout.boxes and place.startswith(netns)]
    return near[0] if near else netns


def _beside(layout: Layout) -> dict[Point, Point]:
    """Where a letter rests that is at a box's door: outside of the box, whose last line it would cover."""
    found: dict[Point, Point] = {}
    for name, box in layout.boxes.items():
        x, y = door = layout.points[name]
        if door == (box.cx, box.bottom):
            found[door] = (x, y + LETTER_HEIGHT / 2 + 1)
        elif door == (box.x, box.cy):
            found[door] = (x - LETTER_WIDTH / 2 - 1, y)
    return found


def _path(layout: Layout, before: str, here: str) -> list[Point]:
    if not here:
        return []
    return (layout.route(before, here) if before else []) or [layout.points[here]]
