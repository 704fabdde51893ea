"""`-m ipvs`: what IPVS did with a packet (iptables-extensions(8))."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Match, Option, no, once
from kubenet_lab.packet.ip import PREFIX
from kubenet_lab.packet.packet import PROTO_NUMBERS

DIRECTIONS = ("ORIGINAL", "REPLY")
METHODS = ("GATE", "IPIP", "MASQ")


class Ipvs(Match, frozen=True):
    """Conditions on the virtual server and connection of a packet that passed IPVS; unset ones are no condition.

    `present` is `--ipvs` alone: True for "it passed", False for `! --ipvs`. `negated` names the options with a "!".
    """

    NAME: ClassVar[str] = "ipvs"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--ipvs", 0),
        Option("--vproto"),
        Option("--vaddr"),
        Option("--vport"),
        Option("--vdir"),
        Option("--vmethod"),
        Option("--vportctl"),
    )

    present: bool | None = None
    proto: int = 0
    address: str = ""
    port: int = 0
    direction: str = ""
    method: str = ""
    control_port: int = 0
    negated: tuple[str, ...] = ()

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read the options; one at least must be there."""
        found = once(given, cls.NAME)
        if not found:
            raise BadOption("-m ipvs", "ipvs: at least one option is required", "add --ipvs")
        here = found.get("--ipvs")
        words = {name: found[name].value for name in found if name != "--ipvs"}
        return cls(
            None if here is None else not here.negated,
            _protocol(words["--vproto"]) if "--vproto" in words else 0,
            _address(words["--vaddr"], family) if "--vaddr" in words else "",
            _port(words["--vport"], "--vport") if "--vport" in words else 0,
            _one_of(words["--vdir"], DIRECTIONS, "--vdir") if "--vdir" in words else "",
            _one_of(words["--vmethod"], METHODS, "--vmethod") if "--vmethod" in words else "",
            _port(words["--vportctl"], "--vportctl") if "--vportctl" in words else 0,
            tuple(name for name in words if found[name].negated),
        )

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        out = "" if self.present is None else f"{no(not self.present)} --ipvs"
        for name, value in (
            ("--vproto", self.proto),
            ("--vaddr", self.address),
            ("--vport", self.port),
            ("--vdir", self.direction),
            ("--vmethod", self.method),
            ("--vportctl", self.control_port),
        ):
            if value:
                out += f"{no(name in self.negated)} {name} {value}"
        return out


def _protocol(text: str) -> int:
    if text.isdecimal() and 0 < int(text) < 256:
        return int(text)
    if text.lower() in PROTO_NUMBERS:
        return PROTO_NUMBERS[text.lower()]
    raise BadOption("--vproto", f"unknown protocol {text!r} specified", "write tcp, udp, sctp or a number")


def _address(text: str, family: int) -> str:
    host, slash, _length = text.partition("/")
    try:
        block = PREFIX[text]
    except ValueError:
        raise BadOption(
            "--vaddr", f"ipvs: bad address {text!r}", "write an address, or address/length"
        ) from None
    if block.family != family:
        raise BadOption("--vaddr", f"ipvs: {text!r} is not of this family", f"write an IPv{family} address")
    if not slash or block.length == (32 if family == 4 else 128):
        return block.text.partition("/")[0]
    return f"{host}/{block.length}"


def _port(text: str, option: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise BadOption(option, f"ipvs: invalid port {text!r}", "write a port from 1 to 65535")
    return int(text)


def _one_of(text: str, known: tuple[str, ...], option: str) -> str:
    if text.upper() not in known:
        raise BadOption(option, f"ipvs: bad value {text!r}", f"write {' or '.join(known)}")
    return text.upper()
