"""The text equivalents of the pictures, for terminals, screen readers and everybody who prefers words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kubenet_lab.views.cluster_map import MapModel
from kubenet_lab.views.trip_steps import CHANGED, Story, story

if TYPE_CHECKING:
    from kubenet_lab.trip import Trip


def map_text(model: MapModel) -> str:
    """Return the map as indented lines: nodes with their pods and devices, other hosts, Services."""
    lines = []
    for node in model.nodes:
        lines.append(f"{node.name} {node.address}".rstrip())
        lines += [f"  pod {pod.netns} {pod.address}".rstrip() for pod in node.pods]
        for device in node.devices:
            note = f" ({device.note})" if device.note else ""
            wire = f", on wire {device.wire}" if device.wire else ""
            down = "" if device.up else ", down"
            lines.append(f"  {device.name}{note} {device.address}".rstrip() + wire + down)
    for host in model.hosts:
        lines.append(
            f"{host.role} {host.name}: {', '.join(f'{d.name} {d.address}'.rstrip() for d in host.devices)}"
        )
    lines += [f"Service {service.name} {service.address}" for service in model.services]
    return "\n".join(lines)


def story_text(told: Story, *, every_step: bool = False) -> str:
    """Return a trip as numbered sentences, packet by packet; by default only the steps that tell the story."""
    lines = [told.headline + ".", told.why + "."]
    if told.decided_by and not told.delivered:
        lines.append(f"Decided by: {told.decided_by} (in {told.place})")
    if told.needed:
        lines.append(f"It would have needed {told.needed}.")
    lines += [f"Name lookup: {lookup}" for lookup in told.lookups]
    leg = -1
    number = 0
    for row in told.rows if every_step else told.main_rows:
        if row.leg != leg:
            leg, number = row.leg, 0
            lines += ["", told.legs[leg].title + ":"]
        number += 1
        lines.append(f"  {number}. [{row.place}] {row.sentence}")
        lines += [
            f"       {header.name} {field.name}: {field.value}, was {field.was}"
            for header in row.headers
            for field in header.fields
            if field.mark == CHANGED
        ]
    return "\n".join(lines)


def trip_story(trip: Trip, names: Mapping[str, str] | None = None, *, every_step: bool = False) -> str:
    """Return a trip as numbered sentences; see `story_text`."""
    return story_text(story(trip, names), every_step=every_step)
