"""The two words a notebook uses: `exercise(id)` and `progress()`."""

from __future__ import annotations

from html import escape
from importlib import import_module

from msgspec import Struct

from kubenet_lab.course.answers import PASSED, TRIED
from kubenet_lab.course.sheet import KINDS, Exercise, Sheet, progress_file, sheet
from kubenet_lab.errors import NotFound

NOTEBOOKS: dict[str, str] = {
    "00": "00_start_here",
    "02": "02_four_rules",
    "03": "03_a_pod_is_born",
    "04": "04_same_node",
    "05": "05_across_nodes",
    "06": "06_flannel",
    "07": "07_calico",
    "08": "08_cilium",
    "09": "09_choose_a_network",
    "10": "10_why_services",
    "11": "11_cluster_ip",
    "12": "12_iptables_line_by_line",
    "13": "13_there_and_back",
    "14": "14_outside",
    "15": "15_other_services",
    "16": "16_four_planes",
    "17": "17_names",
    "18": "18_coredns_inside",
    "19": "19_the_shop",
    "20": "20_firewall",
    "21": "21_the_breach",
    "26": "26_how_fast",
}
"""Every notebook that has exercises, in the order of the course: number -> file name without its ending."""


def exercises_of(number: str) -> tuple[Exercise, ...]:
    """Return one notebook's exercises, in its order. Raises NotFound."""
    if number not in NOTEBOOKS:
        raise NotFound("notebook", number, known=NOTEBOOKS)
    found: tuple[Exercise, ...] = import_module(f"kubenet_lab.course.exercises.nb{number}").EXERCISES
    return found


def all_exercises() -> list[Exercise]:
    """Return every exercise of the course, in order."""
    return [one for number in NOTEBOOKS for one in exercises_of(number)]


def find(name: str) -> Exercise:
    """Return an exercise by its id ("05-routes"). Raises NotFound, naming those that come close."""
    number = name.partition("-")[0]
    known = exercises_of(number) if number in NOTEBOOKS else all_exercises()
    for one in known:
        if one.id == name:
            return one
    raise NotFound("exercise", name, known=[one.id for one in known])


def exercise(name: str) -> Sheet:
    """Lay an exercise on the desk, by its id. Raises NotFound."""
    return sheet(find(name))


class Line(Struct, frozen=True):
    """One exercise of the overview."""

    id: str
    kind: str
    title: str
    status: str


class Overview(Struct, frozen=True):
    """How far a learner has come."""

    notebooks: dict[str, tuple[Line, ...]]
    trouble: str = ""

    @property
    def solved(self) -> int:
        """Number of solved exercises."""
        return sum(line.status == "solved" for lines in self.notebooks.values() for line in lines)

    @property
    def total(self) -> int:
        """Number of exercises."""
        return sum(len(lines) for lines in self.notebooks.values())

    def __repr__(self) -> str:
        rows = [f"{self.solved} of {self.total} exercises solved"]
        for name, lines in self.notebooks.items():
            rows += [
                f"{name}:",
                *(f"  {_SIGN[line.status]} {KINDS[line.kind]}: {line.title}" for line in lines),
            ]
        return "\n".join(rows + ([self.trouble] if self.trouble else []))

    def _repr_html_(self) -> str:
        rows = ""
        for name, lines in self.notebooks.items():
            for place, line in enumerate(lines):
                head = f'<th rowspan="{len(lines)}" style="text-align:left;vertical-align:top">{escape(name)}</th>'
                cells = (f"{_SIGN[line.status]} {line.status}", KINDS[line.kind], line.title)
                filled = "".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in cells)
                rows += f"<tr>{head if place == 0 else ''}{filled}</tr>"
        trouble = f"<p><b>{escape(self.trouble)}</b></p>" if self.trouble else ""
        return (
            f"<p><b>{self.solved} of {self.total} exercises solved</b></p>{trouble}"
            '<table><tr><th style="text-align:left">notebook</th><th>how it stands</th><th>kind</th>'
            f'<th style="text-align:left">exercise</th></tr>{rows}</table>'
        )


_SIGN = {"solved": "✓", "tried": "…", "to do": "○"}
_STATUS = {PASSED: "solved", TRIED: "tried"}


def progress() -> Overview:
    """Return how far you have come, notebook by notebook."""
    held = progress_file()
    rows = held.all()

    def line(one: Exercise) -> Line:
        status = _STATUS.get(rows[one.id].status, "to do") if one.id in rows else "to do"
        return Line(one.id, one.kind, one.title, status)

    return Overview(
        {NOTEBOOKS[n]: tuple(line(one) for one in exercises_of(n)) for n in NOTEBOOKS}, held.trouble
    )
