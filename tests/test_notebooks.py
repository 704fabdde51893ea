"""What every notebook must be, before it is run. `notebooks/conftest.py` runs them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubenet_lab.course.desk import NOTEBOOKS, all_exercises, exercises_of

FOLDER = Path(__file__).parents[1] / "notebooks"
FILES = sorted(FOLDER.glob("*.ipynb"))


def _cells(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    return cells


def _source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def _data(cell: dict[str, Any]) -> list[dict[str, Any]]:
    return [output.get("data", {}) for output in cell.get("outputs", [])]


notebook = pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)


def test_the_readme_lists_them_in_order() -> None:
    listed = re.findall(r"\]\((\d\d_[a-z0-9_]+\.ipynb)\)", (FOLDER / "README.md").read_text())
    assert listed == [path.name for path in FILES] == [f"{name}.ipynb" for name in NOTEBOOKS.values()]


@notebook
def test_it_asks_a_question_and_ends_with_what_to_keep(path: Path) -> None:
    cells = _cells(path)
    assert re.match(r"# .+\?$", _source(cells[0]).splitlines()[0])
    assert "minutes" in _source(cells[0])
    last = _source(cells[-1])
    assert last.startswith("## Three sentences to keep")
    assert len(re.findall(r"^\d\. ", last, re.MULTILINE)) == 3
    assert "**Next question:**" in last


@notebook
def test_its_first_code_cell_is_a_picture_that_is_stored(path: Path) -> None:
    first = next(cell for cell in _cells(path) if cell["cell_type"] == "code")
    assert "first-picture" in first["metadata"]["tags"]
    assert any("<img" in "".join(data.get("text/html", "")) for data in _data(first))


@notebook
def test_its_exercises_are_those_of_its_module_in_order(path: Path) -> None:
    sources = [_source(cell) for cell in _cells(path) if cell["cell_type"] == "code"]
    shown = re.findall(r'exercise\("([\w-]+)"\)', "\n".join(sources))
    assert shown == [one.id for one in exercises_of(path.name[:2])]


@notebook
def test_only_the_first_notebook_has_nothing_to_repeat(path: Path) -> None:
    tags = {tag for cell in _cells(path) for tag in cell["metadata"].get("tags", [])}
    assert ("recall" in tags) == (not path.name.startswith("00"))


@notebook
def test_cells_are_small(path: Path) -> None:
    for cell in _cells(path):
        if cell["cell_type"] == "code":
            assert len(_source(cell).splitlines()) <= 8, _source(cell)
            assert max(len(line) for line in _source(cell).splitlines()) <= 106, _source(cell)


@notebook
def test_what_is_stored_needs_no_kernel_and_knows_no_machine(path: Path) -> None:
    text = path.read_text()
    assert "widget-view" not in text
    assert not re.search(r"/(home|root|work|Users|tmp)/", text)
    assert "Traceback" not in text
    document = json.loads(text)
    assert document["metadata"]["kernelspec"]["name"] == "python3"
    assert "widgets" not in document["metadata"]
    ids = [cell["id"] for cell in document["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in document["cells"]:
        for output in cell.get("outputs", []):
            assert output["output_type"] != "error"


@notebook
def test_exercises_are_stored_unanswered(path: Path) -> None:
    for cell in _cells(path):
        if "exercise" in cell["metadata"].get("tags", []):
            (data,) = _data(cell)
            assert "(to do)" in "".join(data["text/html"])


@notebook
def test_links_to_notebooks_lead_somewhere(path: Path) -> None:
    for cell in _cells(path):
        if cell["cell_type"] == "markdown":
            for target in re.findall(r"\]\(((?!https?:)[^)]+)\)", _source(cell)):
                assert (FOLDER / target).exists(), target


def test_every_item_has_its_cells() -> None:
    items = yaml.safe_load((FOLDER / "coverage.yaml").read_text())
    tags = {
        path.stem: {tag for cell in _cells(path) for tag in cell["metadata"].get("tags", [])}
        for path in FILES
    }
    for item, place in items.items():
        assert place["tag"] in tags[place["notebook"]], item
    named = {tag for found in tags.values() for tag in found if re.fullmatch(r"[ST]-[A-Z0-9-]*\d+", tag)}
    assert named == items.keys()


def test_the_course_has_no_exercise_that_no_notebook_shows() -> None:
    text = "\n".join(path.read_text() for path in FILES)
    for one in all_exercises():
        assert f'exercise(\\"{one.id}\\")' in text, one.id
