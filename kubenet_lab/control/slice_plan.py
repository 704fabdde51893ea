"""What a run of the endpoint slice controller means to do with the slices of one Service and family."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct, field
from msgspec.structs import replace

from kubenet_lab.objects import Endpoint, EndpointHints, EndpointSlice


class SlicePlan(Struct):
    """Slices by what becomes of them; hints move slices from `unchanged` to `update`."""

    create: list[EndpointSlice] = field(default_factory=list)
    update: list[EndpointSlice] = field(default_factory=list)
    unchanged: list[EndpointSlice] = field(default_factory=list)
    delete: list[EndpointSlice] = field(default_factory=list)

    def rehint(self, hint: Callable[[Endpoint], EndpointHints | None]) -> None:
        """Give the endpoints of the slices that are written anyway the hints that `hint` says."""
        self.create = [rehinted(item, hint) for item in self.create]
        self.update = [rehinted(item, hint) for item in self.update]

    def touch(self, wrong: Callable[[EndpointSlice], bool]) -> None:
        """Let the unchanged slices that are `wrong` be written too."""
        self.update += [item for item in self.unchanged if wrong(item)]
        self.unchanged = [item for item in self.unchanged if not wrong(item)]

    def without_hints(self) -> None:
        """Take all hints away."""
        self.touch(lambda item: any(endpoint.hints is not None for endpoint in item.endpoints))
        self.rehint(lambda endpoint: None)


def rehinted(item: EndpointSlice, hint: Callable[[Endpoint], EndpointHints | None]) -> EndpointSlice:
    """The slice with the hints that `hint` says."""
    hints = [hint(endpoint) for endpoint in item.endpoints]
    if all(new == endpoint.hints for new, endpoint in zip(hints, item.endpoints, strict=True)):
        return item
    endpoints = tuple(replace(e, hints=new) for e, new in zip(item.endpoints, hints, strict=True))
    return replace(item, endpoints=endpoints)


def surely_ready(endpoint: Endpoint) -> bool:
    """Whether the condition `ready` says so: for hints, an endpoint that says nothing does not count."""
    return endpoint.conditions.ready is True
