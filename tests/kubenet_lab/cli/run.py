"""The command line in this process: what it printed, and how it ended."""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr
from typing import NamedTuple

import pytest

from kubenet_lab.cli import main


class Ran(NamedTuple):
    status: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()


def run(*argv: str, stdin: str = "") -> Ran:
    out, err = io.BytesIO(), io.StringIO()
    stream = io.TextIOWrapper(out, encoding="utf-8", newline="\n")
    before_out, before_in = sys.stdout, sys.stdin
    sys.stdout, sys.stdin = stream, io.StringIO(stdin)
    try:
        with redirect_stderr(err), pytest.raises(SystemExit) as end:
            main([str(word) for word in argv])
        stream.flush()
    finally:
        sys.stdout, sys.stdin = before_out, before_in
    code = end.value.code
    return Ran(code if isinstance(code, int) else 0 if code is None else 1, out.getvalue(), err.getvalue())
