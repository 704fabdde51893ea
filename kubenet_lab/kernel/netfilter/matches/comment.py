"""`-m comment`: a note of up to 255 characters that every packet fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import (
    BadOption,
    Given,
    Match,
    Option,
    needed,
    once,
    plain,
    quoted,
)


class Comment(Match, frozen=True):
    """A note on the rule."""

    NAME: ClassVar[str] = "comment"
    OPTIONS: ClassVar[tuple[Option, ...]] = (Option("--comment"),)

    comment: str = ""

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--comment TEXT`."""
        found = once(given, cls.NAME)
        plain(found, found, cls.NAME)
        text = needed(found, "--comment", cls.NAME).value
        if len(text.encode()) > 255:
            raise BadOption("--comment", "comment: a comment holds at most 255 bytes", "shorten it")
        return cls(text)

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        return f" --comment {quoted(self.comment)}"
