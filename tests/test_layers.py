"""Who may import whom: DESIGN's table as data, held by reading every import statement."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

KUBERNETES = (
    "objects",
    "manifests",
    "store",
    "control",
    "cni",
    "proxy",
    "policy",
    "dns",
    "faults",
    "cluster",
    "scenarios",
)
KERNEL = ("kernel", "walk", "trace")

# module prefix -> prefixes it must never import
FORBIDDEN: dict[str, tuple[str, ...]] = {
    **{
        f"kubenet_lab.{low}": tuple(f"kubenet_lab.{high}" for high in KUBERNETES)
        for low in ("packet", *KERNEL)
    },
    "kubenet_lab.objects": tuple(f"kubenet_lab.{name}" for name in ("packet", *KERNEL)),
    "kubenet_lab.manifests": tuple(f"kubenet_lab.{name}" for name in ("packet", *KERNEL)),
    "kubenet_lab.store": tuple(f"kubenet_lab.{name}" for name in ("packet", *KERNEL)),
    "kubenet_lab.policy.evaluate": ("kubenet_lab.policy.rules",),
    "kubenet_lab.views": (
        "kubenet_lab.widgets",
        "kubenet_lab.cluster",
        "kubenet_lab.store",
        "kubenet_lab.faults",
    ),
    "kubenet_lab.bgp": tuple(f"kubenet_lab.{name}" for name in KUBERNETES),
    "kubenet_lab.twin": tuple(f"kubenet_lab.{name}" for name in KUBERNETES),
    "kubenet_lab.cost": tuple(f"kubenet_lab.{name}" for name in (*KUBERNETES, "views")),
    "kubenet_lab.walk": ("kubenet_lab.views", "kubenet_lab.twin"),
    "kubenet_lab.kernel": ("kubenet_lab.walk", "kubenet_lab.trace", "kubenet_lab.views", "kubenet_lab.twin"),
    "kubenet_lab.packet": ("kubenet_lab.kernel", "kubenet_lab.walk", "kubenet_lab.trace"),
    "kubenet_lab": ("diagnostics", "IPython", "notebooks"),
    "diagnostics": tuple(
        f"kubenet_lab.{name}" for name in ("faults", "store", "objects", "control", "cluster", "scenarios")
    ),
}
# Within diagnostics, the magics bind tools to a learner's cluster; they get it handed, and may not import it either.

WIDGET_LIBRARIES = ("ipywidgets", "anywidget", "traitlets")
WIDGET_HOMES = ("kubenet_lab.widgets", "diagnostics.widget", "diagnostics.magics")

# Folders whose members are siblings: none imports another; what they share is named here.
SIBLINGS: dict[str, frozenset[str]] = {
    "kubenet_lab.cni": frozenset(
        {
            "plugin",
            "runtime",
            "ipam",
            "pod_network",
            "interface",
            "masquerade",
            "gojson",
            "fields",
            "static_network",
        }
    ),
    "kubenet_lab.faults": frozenset({"fault"}),
    "diagnostics": frozenset({"tool", "shell", "magics", "kubectl", "doctor"}),
}

CLOCKS = re.compile(r"\b(time\.time\(|time\.monotonic\(|datetime\.(now|utcnow|today)\(|date\.today\()")
CHANCE = re.compile(
    r"\brandom\.(random|randint|randrange|choice|choices|shuffle|sample|seed|getrandbits)\(|os\.urandom\(|uuid\.uuid[14]\("
)
REAL_WORLD = (
    "kubenet_lab/twin/",
    "kubenet_lab/cli",
    "kubenet_lab/course/",
    "kubenet_lab/apiserver/",
    "kubenet_lab/dns/server/live.py",
)
"""Where the real machine is spoken to, and real time is needed."""


def modules() -> list[tuple[str, Path]]:
    out = []
    for package in ("kubenet_lab", "diagnostics"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            out.append((name.removesuffix(".__init__"), path))
    return out


def imports(path: Path) -> set[str]:
    """Every module an import statement names, at any depth of the file; imports for type checking alone excepted."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skipped |= {id(child) for child in ast.walk(node)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full, so that this test can read them"
            assert node.module
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


MODULES = modules()


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_imports_only_what_its_layer_may(name: str, path: Path) -> None:
    used = imports(path)
    for prefix, banned in FORBIDDEN.items():
        if under(name, prefix):
            bad = sorted(u for u in used for b in banned if under(u, b))
            assert not bad, f"{name} must not import {bad}"
    if not any(under(name, home) for home in WIDGET_HOMES):
        bad = sorted(u for u in used for library in WIDGET_LIBRARIES if under(u, library))
        assert not bad, f"{name} must not import {bad}: widgets live in {WIDGET_HOMES}"
    for folder, shared in SIBLINGS.items():
        if under(name, folder) and name != folder:
            me = name.removeprefix(folder + ".").split(".")[0]
            others = {u.removeprefix(folder + ".").split(".")[0] for u in used if u.startswith(folder + ".")}
            bad = sorted(others - shared - {me}) if me not in shared else []
            assert not bad, f"{name} must not import its siblings {bad}"


@pytest.mark.parametrize(("name", "path"), MODULES, ids=[name for name, _ in MODULES])
def test_time_and_chance_are_arguments(name: str, path: Path) -> None:
    relative = path.relative_to(ROOT).as_posix()
    if relative.startswith(REAL_WORLD):
        return
    text = path.read_text(encoding="utf-8")
    for pattern in (CLOCKS, CHANCE):
        hit = pattern.search(text)
        assert not hit, f"{name} uses {hit.group(0)!r}: time and chance are arguments with seeded defaults"


def test_the_table_names_real_modules() -> None:
    names = {name for name, _ in MODULES}
    for low in ("packet", *KERNEL, "objects", "manifests", "store"):
        assert any(under(name, f"kubenet_lab.{low}") for name in names), low
