"""Recorded answers of real components, one packed archive a folder; the model is judged by them."""

from __future__ import annotations

import json
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@cache
def _files(folder: str) -> dict[str, bytes]:
    """Return the JSON files of an archive by name without suffix, unpacked once."""
    found = {}
    with tarfile.open(HERE / f"{folder}.tar.xz", "r:xz") as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".json"):
                content = archive.extractfile(member)
                assert content is not None
                found[Path(member.name).stem] = content.read()
    return found


def cases(folder: str, prefix: str = "") -> list[str]:
    """Return the names of a folder's cases that begin with `prefix`, sorted."""
    return sorted(name for name in _files(folder) if name.startswith(prefix))


def open_case(folder: str, name: str) -> Any:
    """Return one recorded case, read anew: the caller may change it."""
    return json.loads(_files(folder)[name])
