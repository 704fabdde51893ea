"""Where a command's answer goes: standard output, or the file after `--output`."""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path
from typing import Any

import typer

from kubenet_lab.errors import Fault, InputError


def write(content: str | bytes, target: Path | None) -> None:
    """Write the answer as it is, byte for byte; text is UTF-8.

    Raises InputError when the file cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    if target is None:
        typer.echo(data, nl=False)
        return
    try:
        target.write_bytes(data)
    except OSError as error:
        raise InputError([Fault(f"cannot be written: {error.strerror}", str(target))]) from error


def json_text(document: Any) -> str:
    """One JSON document, two spaces deep, with its final newline."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def page(title: str, body: str) -> str:
    """A whole HTML page: no script, nothing to fetch, light and dark."""
    style = (
        "body{font-family:sans-serif;max-width:1080px;margin:1em auto;padding:0 1em;color-scheme:light dark}"
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{style}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def is_terminal() -> bool:
    """Whether standard output is a screen, where bytes would do harm."""
    return sys.stdout.isatty()
