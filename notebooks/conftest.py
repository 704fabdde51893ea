"""Runs every notebook twice: unsolved, its stored outputs compared, and solved, every exercise made to pass."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nbval.plugin import IPyNbFile

SOLVED = Path(__file__).parents[1] / "tests" / "kubenet_lab" / "course" / "solved.json"

os.environ.setdefault("KUBENET_PROGRESS", "off")
"""So that a plain `pytest --nbval` neither reads nor writes anybody's answers."""


class _Notebook(IPyNbFile):  # type: ignore[misc]
    """A notebook whose kernel starts with some environment variables of its own."""

    def environment(self) -> dict[str, str]:
        """Return the variables of this run."""
        return {"KUBENET_PROGRESS": "off", "KUBENET_STRICT": "0"}

    def setup(self) -> None:
        """Start the kernel."""
        root = str(Path(__file__).parents[1])
        wanted = {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))}
        wanted |= self.environment()
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            super().setup()
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


_PICTURE = re.compile(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)")
_WORDS = re.compile(r"<text[^>]*>([^<]*)</text>")


def words_of_pictures(text: str) -> str:
    """Return HTML with every picture replaced by the words in it.

    A stored notebook must say what the model says today; a new colour or a box moved aside does not make it wrong.
    """
    return _PICTURE.sub(lambda found: " | ".join(_WORDS.findall(b64decode(found[1]).decode())), text)


class Unsolved(_Notebook):
    """As a learner opens it: nothing answered, nothing fails, and it shows what is stored."""

    def collect(self) -> Iterator[Any]:
        """Compare every output, pictures by their words."""
        for item in super().collect():
            sanitize = item.sanitize
            item.sanitize = lambda text, sanitize=sanitize: sanitize(
                words_of_pictures(text) if isinstance(text, str) else text
            )
            yield item


class Solved(_Notebook):
    """With every answer in the progress file; an exercise that does not pass raises."""

    def environment(self) -> dict[str, str]:
        """Return a fresh copy of the solved progress file, and strict mode."""
        self.folder = tempfile.mkdtemp()
        file = shutil.copy(SOLVED, Path(self.folder) / "progress.json")
        return {"KUBENET_PROGRESS": str(file), "KUBENET_STRICT": "1"}

    def teardown(self) -> None:
        """Stop the kernel and forget the progress."""
        super().teardown()
        shutil.rmtree(self.folder, ignore_errors=True)

    def collect(self) -> Iterator[Any]:
        """Run every cell; what it shows differs from the unsolved notebook, so only errors count."""
        for item in super().collect():
            item.options["check"] = False
            yield item


class Twice(pytest.File):
    """A notebook's two runs."""

    def collect(self) -> Iterator[pytest.Collector]:
        """Yield the unsolved run (the plugin collects that one itself under --nbval) and the solved one."""
        option = self.config.option
        if not (option.nbval or option.nbval_lax):
            yield Unsolved.from_parent(
                self, path=self.path, name="unsolved", nodeid=f"{self.nodeid}::unsolved"
            )
        yield Solved.from_parent(self, path=self.path, name="solved", nodeid=f"{self.nodeid}::solved")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect every notebook."""
    if file_path.suffix != ".ipynb":
        return None
    return Twice.from_parent(parent, path=file_path)
