"""Where nothing may skip (KUBENET_NO_SKIP=1, as in .ci/run), a skip is a failure that says why."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

FILES = {
    "test_body.py": "import pytest\ndef test_it(): pytest.skip('no kernel here')\n",
    "test_mark.py": "import pytest\n@pytest.mark.skipif(True, reason='no kernel here')\ndef test_it(): ...\n",
    "test_module.py": "import pytest\npytest.skip('no kernel here', allow_module_level=True)\n",
    "test_import.py": "import pytest\npytest.importorskip('no_kernel_here', reason='no kernel here')\n",
}


def ended(folder: Path, no_skip: str) -> tuple[int, str]:
    """Run the files above in a Python of their own; return the status and what was printed."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:nbval",
    ]
    # Not the caller's options: they may name this very file.
    # With CI set, pytest says every message twice.
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "BUILD_NUMBER")}
    environment = {**kept, "KUBENET_NO_SKIP": no_skip, "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        [*command, "--continue-on-collection-errors", f"--rootdir={folder}", "-c", os.devnull, str(folder)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_a_skip_fails_where_nothing_may_skip(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    status, out = ended(tmp_path, "1")
    assert status == 1, out
    for name in FILES:
        assert name in out
    assert out.count("skipped where nothing may skip (KUBENET_NO_SKIP=1): ") == len(FILES)
    status, out = ended(tmp_path, "0")
    assert status == 0, out
    assert "4 skipped" in out


def test_ci_is_a_program_and_checks_what_it_should() -> None:
    script = ROOT / ".ci" / "run"
    text = script.read_text(encoding="utf-8")
    assert os.name == "nt" or os.access(script, os.X_OK)
    for step in ("export KUBENET_NO_SKIP=1", "ruff check .", "ruff format --check .", "\nmypy\n"):
        assert step in text
