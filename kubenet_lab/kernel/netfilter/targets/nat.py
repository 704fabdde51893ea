"""What the NAT targets share: the range of addresses and ports a connection is rewritten into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.addresses import address
from kubenet_lab.kernel.netfilter.extension import BadOption, Given, Option, Target, needed, once, plain
from kubenet_lab.kernel.netfilter.ports import SERVICES, Range, port

FLAGS = (Option("--random", 0), Option("--random-fully", 0), Option("--persistent", 0))


def read_ports(text: str, option: str) -> Range:
    """Return (first, last) of "80" or "80-90". Raises BadOption."""
    low, dash, high = (text, "", "") if text in SERVICES else text.partition("-")
    if dash and not (low.isdigit() and high.isdigit()):
        bad = high if low.isdigit() else text
        raise BadOption(option, f"Port `{bad}' not valid", "write ports as numbers: 1024-2048")
    try:
        first = port(low, option)
        last = port(high, option) if dash else first
    except BadOption:
        raise BadOption(option, f"Port `{high or low}' not valid", "write a port from 0 to 65535") from None
    if last < first:
        raise BadOption(option, f"Port range `{text}' funky", f"write {last}-{first}")
    return (first, last)


def ports_text(ports: Range) -> str:
    """Return "80" or "80-90"."""
    return str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"


class AddressNat(Target, frozen=True):
    """SNAT and DNAT. Addresses "" keep the packet's own; `ports` None keeps the port.

    `base` 0 is no shifted range.
    """

    TABLES: ClassVar[tuple[str, ...]] = ("nat",)
    TO: ClassVar[str] = ""

    addr_min: str = ""
    addr_max: str = ""
    ports: Range | None = None
    base: int = 0
    random: bool = False
    random_fully: bool = False
    persistent: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--to-... [ADDRESS[-ADDRESS]][:PORT[-PORT]]` and the flags."""
        found = once(given, cls.NAME)
        plain(found, found, cls.NAME)
        text = needed(found, cls.TO, cls.NAME).value
        ports: Range | None = None
        base = 0
        if family == 6 and text.startswith("["):
            hosts, _, rest = text[1:].partition("]")
            rest = rest.removeprefix(":")
        elif family == 6:
            hosts, rest = text, ""
        else:
            hosts, _, rest = text.partition(":")
        if rest:
            main, slash, shift = rest.partition("/")
            ports = read_ports(main, cls.TO)
            if slash:
                base = read_ports(shift, cls.TO)[0]
                if base == 0:
                    raise BadOption(cls.TO, "Port `0' not valid", "write a base port from 1 to 65535")
        first, _, last = hosts.partition("-")
        low = address(first, family, cls.TO) if first else ""
        high = address(last, family, cls.TO) if last else low
        return cls(low, high, ports, base, *(flag.name in found for flag in FLAGS))

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        hosts = self.addr_min if self.addr_min == self.addr_max else f"{self.addr_min}-{self.addr_max}"
        if self.ports is not None:
            if family == 6 and hosts:
                hosts = f"[{hosts}]"
            hosts += f":{ports_text(self.ports)}"
            hosts += f"/{self.base}" if self.base else ""
        out = f" {self.TO} {hosts}"
        return (
            out
            + " --random" * self.random
            + " --random-fully" * self.random_fully
            + " --persistent" * self.persistent
        )


class PortNat(Target, frozen=True):
    """MASQUERADE and REDIRECT: the address is the node's own, only ports can be given."""

    TABLES: ClassVar[tuple[str, ...]] = ("nat",)

    ports: Range | None = None
    random: bool = False
    random_fully: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--to-ports PORT[-PORT]` and the flags."""
        found = once(given, cls.NAME)
        plain(found, found, cls.NAME)
        ports = read_ports(found["--to-ports"].value, "--to-ports") if "--to-ports" in found else None
        return cls(ports, "--random" in found, "--random-fully" in found)

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        out = f" --to-ports {ports_text(self.ports)}" if self.ports is not None else ""
        return out + " --random" * self.random + " --random-fully" * self.random_fully
