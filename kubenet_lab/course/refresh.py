"""Runs notebooks and stores what they show: `python -m kubenet_lab.course.refresh notebooks/*.ipynb`.

A stored output is what GitHub shows, and what a learner sees before the first run; tests hold it equal to what the
model does today. Widgets are stored as their still pictures: a widget without its kernel would show an error.
Exercises are stored unanswered.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kubenet_lab.course.answers import VARIABLE
from kubenet_lab.course.sheet import STRICT

WIDGET = "application/vnd.jupyter.widget-view+json"


def run(path: Path, *, seconds: int = 120) -> Any:
    """Execute a notebook in a fresh kernel, unanswered, and return it with its outputs. Raises on a failing cell."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    before = {name: os.environ.get(name) for name in (VARIABLE, STRICT)}
    os.environ[VARIABLE] = "off"
    os.environ.pop(STRICT, None)
    try:
        client = NotebookClient(
            notebook,
            timeout=seconds,
            kernel_name="python3",
            resources={"metadata": {"path": str(path.parent)}},
        )
        client.execute()
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    return still(notebook)


def still(notebook: Any) -> Any:
    """Return the notebook with widgets as still pictures and without anything that differs from run to run."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            output.get("data", {}).pop(WIDGET, None)
            output.get("metadata", {}).clear()
    return notebook


def main(arguments: Sequence[str]) -> int:
    """Refresh the notebooks named."""
    import nbformat

    for name in arguments:
        path = Path(name)
        nbformat.write(run(path), path)
        sys.stdout.write(f"{path}: refreshed, {path.stat().st_size // 1024} KiB\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
