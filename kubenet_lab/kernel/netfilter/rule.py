"""A rule: header conditions, matches in order, and a target.

Header fields follow `struct ipt_ip` and `struct ip6t_ip6`: they are compared before any match.
"""

from __future__ import annotations

from msgspec import Struct

from kubenet_lab.kernel.netfilter.extension import Match, Target
from kubenet_lab.kernel.netfilter.ports import protocol_name


class Rule(Struct, frozen=True):
    """One rule of a chain, without its place and without its counters.

    Attributes:
        src, dst: Block like "10.244.0.0/16"; "" for every address.
        indev, outdev: Interface name, with a `+` at the end for every name that begins so; "" for every
        interface.
        proto: Protocol number; 0 for every protocol.
        fragment: `-f`: second and further fragments only (IPv4).
        matches: The extensions after `-m`, in order.
        target: What happens; None when the rule only counts.
    """

    src: str = ""
    dst: str = ""
    indev: str = ""
    outdev: str = ""
    proto: int = 0
    matches: tuple[Match, ...] = ()
    target: Target | None = None
    fragment: bool = False
    not_src: bool = False
    not_dst: bool = False
    not_indev: bool = False
    not_outdev: bool = False
    not_proto: bool = False
    not_fragment: bool = False

    def text(self, family: int) -> str:
        """Return what iptables-save prints after "-A CHAIN", with a blank before each word."""
        out = ""
        if self.src:
            out += f" ! -s {self.src}" if self.not_src else f" -s {self.src}"
        if self.dst:
            out += f" ! -d {self.dst}" if self.not_dst else f" -d {self.dst}"
        if self.indev:
            out += f" ! -i {self.indev}" if self.not_indev else f" -i {self.indev}"
        if self.outdev:
            out += f" ! -o {self.outdev}" if self.not_outdev else f" -o {self.outdev}"
        if self.proto:
            out += (
                f" ! -p {protocol_name(self.proto)}" if self.not_proto else f" -p {protocol_name(self.proto)}"
            )
        if self.fragment or self.not_fragment:
            out += " ! -f" if self.not_fragment else " -f"
        for match in self.matches:
            out += match.text(family)
        if self.target is not None:
            out += self.target.text(family)
        return out

    @property
    def family(self) -> int:
        """4 or 6 where an address or a match tells it, else 4."""
        return 6 if ":" in self.src or ":" in self.dst else 4

    @property
    def comment(self) -> str:
        """The text of the first `-m comment`, or ""."""
        for match in self.matches:
            if match.NAME == "comment":
                return str(getattr(match, "comment", ""))
        return ""

    def __str__(self) -> str:
        return self.text(self.family).lstrip()
