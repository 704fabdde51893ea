"""`-m string`: a text anywhere in the packet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Self

from kubenet_lab.kernel.netfilter.extension import (
    BadOption,
    Given,
    Match,
    Option,
    exclusive,
    needed,
    no,
    number,
    once,
)


def _unhex(text: str) -> bytes:
    """Read "|de ad|be": hexadecimal pairs between bars, other characters as they are."""
    out, parts = b"", text.split("|")
    for index, part in enumerate(parts):
        if index % 2 == 0:
            out += part.encode()
            continue
        try:
            out += bytes.fromhex(part)
        except ValueError:
            raise BadOption(
                "--hex-string", f"Invalid hex block {part!r}", "write pairs of digits: |0d 0a|"
            ) from None
    return out


class String(Match, frozen=True):
    """`pattern` is looked for between byte `start` and `stop`."""

    NAME: ClassVar[str] = "string"
    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("--string"),
        Option("--hex-string"),
        Option("--algo"),
        Option("--from"),
        Option("--to"),
        Option("--icase", 0),
    )

    pattern: bytes = b""
    algo: str = "bm"
    start: int = 0
    stop: int = 65535
    icase: bool = False
    negated: bool = False

    @classmethod
    def read(cls, given: Sequence[Given], family: int) -> Self:
        """Read `--string` or `--hex-string` with `--algo bm|kmp`."""
        found = once(given, cls.NAME)
        exclusive(found, ("--string", "--hex-string"), cls.NAME)
        option = found.get("--string") or found.get("--hex-string")
        if option is None:
            raise BadOption(
                "-m string", "STRING match: You must specify `--string' or `--hex-string'", "add one of them"
            )
        pattern = option.value.encode() if option.name == "--string" else _unhex(option.value)
        if not 0 < len(pattern) <= 128:
            raise BadOption(option.name, f'STRING too long "{option.value}"', "write 1 to 128 bytes")
        algo = needed(found, "--algo", cls.NAME).value
        if algo not in ("bm", "kmp"):
            raise BadOption("--algo", f'STRING match: unknown algorithm "{algo}"', "write bm or kmp")
        return cls(
            pattern,
            algo,
            number(found["--from"].value, "--from", cls.NAME, 65535) if "--from" in found else 0,
            number(found["--to"].value, "--to", cls.NAME, 65535) if "--to" in found else 65535,
            "--icase" in found,
            option.negated,
        )

    def options(self, family: int) -> str:
        """Return the options as iptables-save prints them."""
        if all(32 <= byte < 127 for byte in self.pattern) and not self.pattern.endswith(b"\\"):
            text = self.pattern.decode().replace("\\", "\\\\").replace('"', '\\"')
            out = f'{no(self.negated)} --string "{text}"'
        else:
            out = f'{no(self.negated)} --hex-string "|{self.pattern.hex()}|"'
        out += f" --algo {self.algo}"
        if self.start:
            out += f" --from {self.start}"
        if self.stop != 65535:
            out += f" --to {self.stop}"
        return out + " --icase" * self.icase
