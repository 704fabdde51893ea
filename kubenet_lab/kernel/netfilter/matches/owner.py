"""`-m owner`: the user and group of the socket a locally made packet comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, no, number, once
from kubenet_lab.kernel.netfilter.ports import Range


def _ids(text: str, option: str) -> Range:
    if text == "root":
        return (0, 0)
    low, dash, high = text.partition("-")
    first = number(low, option, "owner", 0xFFFFFFFE)
    last = number(high, option, "owner", 0xFFFFFFFE) if dash else first
    if last < first:
        raise BadOption(option, f"owner: range {text} is from high to low", f"write {last}-{first}")
    return (first, last)


def _text(ids: Range) -> str:
    return str(ids[0]) if ids[0] == ids[1] else f"{ids[0]}-{ids[1]}"


class Owner(Match, frozen=True):
    """Ids are (first, last) or None; `socket_exists` is None where it is no condition."""

    NAME: ClassVar[str] = "owner"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--uid-owner"),
        Option("--gid-owner"),
        Option("--socket-exists", 0),
        Option("--suppl-groups", 0),
    )

    uid: Range | None = None
    gid: Range | None = None
    socket_exists: bool | None = None
    suppl_groups: bool = False
    not_uid: bool = False
    not_gid: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read the owner options; user and group as numbers (or `root`)."""
        found = once(given, cls.NAME)
        if not found:
            raise BadOption(
                "-m owner",
                "owner: At least one of --uid-owner, --gid-owner or --socket-exists is required",
                "add one",
            )
        if "--suppl-groups" in found and "--gid-owner" not in found:
            raise BadOption(
                "--suppl-groups", "owner: you need to use --gid-owner first", "add --gid-owner GID before it"
            )
        uid, gid, exists = found.get("--uid-owner"), found.get("--gid-owner"), found.get("--socket-exists")
        return cls(
            _ids(uid.value, "--uid-owner") if uid else None,
            _ids(gid.value, "--gid-owner") if gid else None,
            None if exists is None else not exists.negated,
            "--suppl-groups" in found,
            bool(uid and uid.negated),
            bool(gid and gid.negated),
        )

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        out = "" if self.socket_exists is None else f"{no(not self.socket_exists)} --socket-exists"
        if self.uid is not None:
            out += f"{no(self.not_uid)} --uid-owner {_text(self.uid)}"
        if self.gid is not None:
            out += f"{no(self.not_gid)} --gid-owner {_text(self.gid)}"
        return out + " --suppl-groups" * self.suppl_groups
