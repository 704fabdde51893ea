"""A match nobody wrote a file for: carried and printed as it was read."""

from __future__ import annotations

from kubenet_lab.kernel.netfilter.extension import Match


class UnknownMatch(Match, frozen=True):
    """A match that is not modelled.

    `arguments` are the words after `-m NAME`, quoted as they were read; an evaluation that needs it ends
    the walk.
    """

    match_name: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As `-m` takes it."""
        return self.match_name

    def options(self, family: int) -> str:
        """Return the arguments unchanged."""
        return "".join(f" {word}" for word in self.arguments)
