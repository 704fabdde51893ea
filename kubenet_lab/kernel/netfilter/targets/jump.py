"""`-j CHAIN` and `-g CHAIN`: go on in a user-defined chain."""

from __future__ import annotations

from kubenet_lab.kernel.netfilter.extension import Target


class Jump(Target, frozen=True):
    """Go on in `chain` and come back at its end."""

    chain: str = ""

    @property
    def name(self) -> str:
        """The chain's name."""
        return self.chain


class Goto(Target, frozen=True):
    """Go on in `chain`; its end returns to where the present chain was called from."""

    chain: str = ""

    @property
    def name(self) -> str:
        """The chain's name."""
        return self.chain

    def text(self, family: int) -> str:
        """Return " -g CHAIN"."""
        return f" -g {self.chain}"
