"""What a learner has answered, in one small JSON file of the workspace: `.kubenet/progress.json`.

Answers live there and never in a notebook, so that a notebook can be replaced by a newer one. The file is written
whole and put in place at once (`os.replace`), so a kernel that dies half-way leaves the old one.

The environment variable KUBENET_PROGRESS names another file, or is "off": then nothing is read or written.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

VARIABLE = "KUBENET_PROGRESS"
FOLDER = ".kubenet"
FILE = "progress.json"

PASSED, TRIED, NEW = "passed", "tried", "new"
"""Where an exercise stands."""


class Entry(Struct, frozen=True, omit_defaults=True):
    """One exercise's row: how it stands, the last answer, how often it was checked, how many hints were read."""

    status: str = NEW
    answer: Any = None
    attempts: int = 0
    hints: int = 0


class _Document(Struct, omit_defaults=True):
    exercises: dict[str, Entry] = {}


def place(start: Path | None = None) -> Path | None:
    """Return the progress file's path, or None when progress is off.

    The workspace is the nearest folder upwards that has a `.kubenet` folder (the launcher makes one); without one,
    the current folder becomes it.
    """
    named = os.environ.get(VARIABLE, "")
    if named == "off":
        return None
    if named:
        return Path(named)
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / FOLDER).is_dir():
            return folder / FOLDER / FILE
    return here / FOLDER / FILE


class Progress:
    """The progress file. Every read is fresh, so two notebooks open side by side see each other's answers.

    Args:
        path: The file; None keeps everything in this object's memory.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.trouble = ""
        """What went wrong with the file, in a sentence for the learner; "" when all is well."""
        self._memory: dict[str, Entry] = {}

    def all(self) -> dict[str, Entry]:
        """Return every row. A file that cannot be understood is kept beside as `progress.json.broken`."""
        if self.path is None:
            return dict(self._memory)
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=_Document).exercises
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except (msgspec.MsgspecError, UnicodeDecodeError) as fault:
            broken = self.path.with_name(self.path.name + ".broken")
            os.replace(self.path, broken)
            why = f"{self.path.name} could not be read ({fault})"
            self.trouble = f"{why}; it was kept as {broken.name} and a new one begun"
            return {}

    def entry(self, exercise: str) -> Entry:
        """Return one exercise's row; an empty one before the first try."""
        return self.all().get(exercise, Entry())

    def checked(self, exercise: str, answer: Any, passed: bool) -> Entry:
        """Note an answer. What has been passed stays passed, with the answer that passed."""
        old = self.entry(exercise)
        if old.status == PASSED and not passed:
            return self._put(exercise, replace(old, attempts=old.attempts + 1))
        made = replace(old, status=PASSED if passed else TRIED, answer=answer, attempts=old.attempts + 1)
        return self._put(exercise, made)

    def hinted(self, exercise: str, count: int) -> Entry:
        """Note how many hints have been read."""
        return self._put(exercise, replace(self.entry(exercise), hints=count))

    def forget(self, exercise: str) -> None:
        """Begin an exercise anew."""
        rows = self.all()
        rows.pop(exercise, None)
        self._write(rows)

    def _put(self, exercise: str, entry: Entry) -> Entry:
        self._write({**self.all(), exercise: entry})
        return entry

    def _write(self, rows: dict[str, Entry]) -> None:
        if self.path is None:
            self._memory = rows
            return
        text = (
            json.dumps(msgspec.to_builtins(_Document(rows)), indent=1, sort_keys=True, ensure_ascii=False)
            + "\n"
        )
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=FILE)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(name, self.path)
        except OSError as fault:
            # A read-only workspace must not keep anybody from learning; the answer counts until the kernel stops.
            self.trouble = f"your answers cannot be saved: {fault}"
            self._memory = rows
            self.path = None
