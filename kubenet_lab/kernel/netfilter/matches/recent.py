"""`-m recent`: lists of addresses seen lately. kube-proxy keeps session affinity with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.addresses import address
from kubenet_lab.kernel.netfilter.extension import (
    BadOption,
    Given,
    Match,
    Option,
    exclusive,
    no,
    number,
    once,
    plain,
)

ACTIONS = ("--set", "--rcheck", "--update", "--remove")


class Recent(Match, frozen=True):
    """`action` is set, rcheck, update or remove on the list `list_name`.

    `seconds` and `hitcount` 0 are no condition.
    """

    NAME: ClassVar[str] = "recent"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        *(Option(action, 0) for action in ACTIONS),
        Option("--seconds"),
        Option("--reap", 0),
        Option("--hitcount"),
        Option("--rttl", 0),
        Option("--name"),
        Option("--mask"),
        Option("--rsource", 0),
        Option("--rdest", 0),
    )

    action: str = "set"
    list_name: str = "DEFAULT"
    seconds: int = 0
    reap: bool = False
    hitcount: int = 0
    rttl: bool = False
    mask: str = ""
    """"" is the whole address."""
    side: str = "src"
    negated: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read one of `--set --rcheck --update --remove` with its conditions."""
        found = once(given, cls.NAME)
        exclusive(found, ACTIONS, cls.NAME)
        plain(found, [name for name in found if name not in ACTIONS], cls.NAME)
        here = [a for a in ACTIONS if a in found]
        if not here:
            raise BadOption(
                "-m recent",
                "recent: you must specify one of `--set', `--rcheck' `--update' or `--remove'",
                "add one of them",
            )
        exclusive(found, ("--rsource", "--rdest"), cls.NAME)
        if here[0] in ("--set", "--remove"):
            for name in ("--seconds", "--hitcount", "--rttl"):
                exclusive(found, (name, here[0]), cls.NAME)
        if "--reap" in found and "--seconds" not in found:
            raise BadOption("--reap", 'recent: option "--reap" also requires "--seconds".', "add --seconds N")
        mask = address(found["--mask"].value, family, "--mask") if "--mask" in found else ""
        return cls(
            here[0][2:],
            found["--name"].value if "--name" in found else "DEFAULT",
            number(found["--seconds"].value, "--seconds", cls.NAME, low=1) if "--seconds" in found else 0,
            "--reap" in found,
            number(found["--hitcount"].value, "--hitcount", cls.NAME, 65535, 1)
            if "--hitcount" in found
            else 0,
            "--rttl" in found,
            "" if mask == full_mask(family) else mask,
            "dst" if "--rdest" in found else "src",
            found[here[0]].negated,
        )

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        out = f"{no(self.negated)} --{self.action}"
        if self.seconds:
            out += f" --seconds {self.seconds}"
        out += " --reap" * self.reap
        if self.hitcount:
            out += f" --hitcount {self.hitcount}"
        out += " --rttl" * self.rttl
        side = "--rsource" if self.side == "src" else "--rdest"
        return f"{out} --name {self.list_name} --mask {self.mask or full_mask(family)} {side}"


def full_mask(family: int) -> str:
    """Return the mask of a single address, written out."""
    return "255.255.255.255" if family == 4 else ":".join(["ffff"] * 8)
