"""Rows as pandas DataFrames; pandas is imported when the first one is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kubenet_lab.views.state_diff import Change
from kubenet_lab.views.trip_steps import story

if TYPE_CHECKING:
    from kubenet_lab.trip import Trip


def frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Any:
    """Return rows as a DataFrame with these columns, also when there are none."""
    import pandas

    return pandas.DataFrame(list(rows), columns=list(columns))


STEP_COLUMNS = ("packet", "place", "step", "what", "entry", "main", "src", "dst", "layer", "netns", "spot")


def steps_frame(trip: Trip, names: Mapping[str, str] | None = None) -> Any:
    """Return a trip as a DataFrame, one row a step, in order.

    Columns: packet ("The call", ...), place, step (its title), what (the sentence), entry (what decided), main (does
    it tell the story), src and dst (of the outermost IP header after the step), layer, netns, spot.
    """
    told = story(trip, names)
    rows = []
    for row in told.rows:
        ip = next((h for h in row.headers if h.name in ("IPv4", "IPv6") and h.mark != "removed"), None)
        fields = {field.name: field.value for field in ip.fields} if ip is not None else {}
        rows.append(
            {
                "packet": told.legs[row.leg].title,
                "place": row.place,
                "step": row.title,
                "what": row.sentence,
                "entry": row.entry,
                "main": row.main,
                "src": fields.get("from", ""),
                "dst": fields.get("to", ""),
                "layer": row.layer,
                "netns": row.netns,
                "spot": row.spot,
            }
        )
    return frame(rows, STEP_COLUMNS)


def changes_frame(found: Iterable[Change]) -> Any:
    """Return what an action changed as a DataFrame, one row a change."""
    rows = [{name: getattr(change, name) for name in Change.__struct_fields__} for change in found]
    return frame(rows, Change.__struct_fields__)
