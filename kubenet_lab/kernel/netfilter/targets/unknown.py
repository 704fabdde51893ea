"""A target nobody wrote a file for: carried and printed as it was read."""

from __future__ import annotations

from kubenet_lab.kernel.netfilter.extension import Target


class UnknownTarget(Target, frozen=True):
    """A target that is not modelled; `arguments` are the words after `-j NAME`, quoted as they were read."""

    target_name: str = ""
    arguments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """As `-j` takes it."""
        return self.target_name

    def options(self, family: int) -> str:
        """Return the arguments unchanged."""
        return "".join(f" {word}" for word in self.arguments)
