"""`-j NFLOG`: hand a copy of the packet to a listener in user space; the next rule goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import (
    BadOption,
    Given,
    Option,
    Target,
    number,
    once,
    plain,
    quoted,
)


class NfLog(Target, frozen=True):
    """`size` None copies the whole packet."""

    NAME: ClassVar[str] = "NFLOG"
    OPTIONS: ClassVar[tuple[Option, ...]] = tuple(
        Option(f"--nflog-{name}") for name in ("group", "prefix", "range", "size", "threshold")
    )

    group: int = 0
    prefix: str = ""
    size: int | None = None
    threshold: int = 0

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read the `--nflog-...` options; `--nflog-range` has no effect and is dropped, as iptables does."""
        found = once(given, cls.NAME)
        plain(found, found, cls.NAME)
        prefix = found["--nflog-prefix"].value if "--nflog-prefix" in found else ""
        if len(prefix.encode()) > 127:
            raise BadOption("--nflog-prefix", "NFLOG: prefix holds at most 127 bytes", "shorten it")

        def read(name: str, high: int, default: int | None) -> int | None:
            return number(found[name].value, name, cls.NAME, high) if name in found else default

        read("--nflog-range", 0xFFFFFFFF, None)
        threshold = read("--nflog-threshold", 65535, 0)
        return cls(
            read("--nflog-group", 65535, 0) or 0,
            prefix,
            read("--nflog-size", 0xFFFFFFFF, None),
            threshold or 0,
        )

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        out = f" --nflog-prefix {quoted(self.prefix)}" if self.prefix else ""
        out += f" --nflog-group {self.group}" if self.group else ""
        out += f" --nflog-size {self.size}" if self.size is not None else ""
        return out + (f" --nflog-threshold {self.threshold}" if self.threshold else "")
