"""Drives the real JupyterLab in a real headless Chromium: start, open, run all, look.

    with Lab(folder) as lab, lab.open("00_start_here.ipynb") as page:
        page.run_all()
        page.screenshot("shot.png")
        assert page.errors == [] and page.console_errors == [] and page.external == []

The server listens on loopback only, under a token, with settings of its own that leave the user's alone.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
_INSIDE = ("data:", "blob:", "about:", "chrome:", "devtools:")

_SETTINGS: dict[str, dict[str, Any]] = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
    # Every cell stays in the document, so that a screenshot and a selector see what is below the fold.
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
}
_THEME = "@jupyterlab/apputils-extension/themes.jupyterlab-settings"


def chromium() -> str | None:
    """Return the browser to drive, or None where there is none."""
    return next(
        (
            found
            for name in ("chromium", "chromium-browser", "google-chrome")
            if (found := shutil.which(name))
        ),
        None,
    )


def free_port() -> int:
    """Return a loopback port nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Lab:
    """A JupyterLab server over a folder of notebooks.

    Args:
        folder: What the file browser shows; notebooks are opened by their path in it.
        dark: Take JupyterLab's dark theme.
        python: The interpreter that has jupyterlab; its `python3` kernel runs the notebooks.
        env: More environment variables for server and kernels.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        dark: bool = False,
        python: str = sys.executable,
        env: dict[str, str] | None = None,
    ) -> None:
        self.folder = Path(folder).resolve()
        self.dark = dark
        self.python = python
        self.env = env or {}
        self.token = secrets.token_hex(16)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._home = Path(tempfile.mkdtemp(prefix="kubenet-lab-browser-"))
        self._server: subprocess.Popen[bytes] | None = None
        self._playwright: Any = None

    @property
    def log(self) -> str:
        """What the server said."""
        path = self._home / "server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def __enter__(self) -> Lab:
        settings = self._home / "settings"
        wanted = dict(_SETTINGS)
        wanted[_THEME] = {
            "theme": "JupyterLab Dark" if self.dark else "JupyterLab Light",
            "adaptive-theme": False,
        }
        for name, value in wanted.items():
            path = settings / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value))
        env = os.environ | {
            "JUPYTER_CONFIG_DIR": str(self._home / "config"),
            "JUPYTER_DATA_DIR": str(self._home / "data"),
            "JUPYTER_RUNTIME_DIR": str(self._home / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(settings),
            "JUPYTERLAB_WORKSPACES_DIR": str(self._home / "workspaces"),
            "IPYTHONDIR": str(self._home / "ipython"),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        }
        command = [
            self.python, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}", "--ServerApp.port_retries=0",
            f"--IdentityProvider.token={self.token}", f"--ServerApp.root_dir={self.folder}",
            "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            "--LabApp.extension_manager=readonly",
        ]  # fmt: skip
        with (self._home / "server.log").open("wb") as log:
            self._server = subprocess.Popen(
                command, env=env | self.env, stdout=log, stderr=log, cwd=self.folder
            )
        try:
            self._wait_for_server()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _wait_for_server(self, seconds: float = 60) -> None:
        assert self._server is not None
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._server.poll() is not None:
                raise RuntimeError(f"JupyterLab ended with status {self._server.returncode}:\n{self.log}")
            try:
                with urllib.request.urlopen(f"{self.url}/api/status?token={self.token}", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
        raise TimeoutError(f"JupyterLab did not answer in {seconds} s:\n{self.log}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._playwright is not None:
            self._playwright.stop()
            self._playwright = None
        if self._server is not None:
            self._server.terminate()
            try:
                self._server.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._server.kill()
                self._server.wait()
            self._server = None
        shutil.rmtree(self._home, ignore_errors=True)

    def open(self, notebook: str, *, width: int = 1400, height: int = 1700) -> Opened:
        """Open a notebook in a fresh browser and wait until its kernel is idle.

        Raises RuntimeError where there is no Chromium; playwright's TimeoutError when Lab does not come up.
        """
        executable = chromium()
        if executable is None:
            raise RuntimeError("no Chromium found: install chromium, or put it on PATH")
        if self._playwright is None:
            from playwright.sync_api import sync_playwright

            self._playwright = sync_playwright().start()
        context = self._playwright.chromium.launch_persistent_context(
            str(Path(tempfile.mkdtemp(dir=self._home))), executable_path=executable, headless=True, args=list(FLAGS),
            viewport={"width": width, "height": height}, color_scheme="dark" if self.dark else "light",
        )  # fmt: skip
        return Opened(self, context, notebook)


class Opened:
    """A notebook open in Lab. `page` is playwright's Page, for clicks of your own."""

    def __init__(self, lab: Lab, context: Any, notebook: str) -> None:
        self.lab = lab
        self.context = context
        self.page = context.pages[0]
        self.console_errors: list[str] = []
        self.external: list[str] = []
        """URLs asked for beyond the Lab server itself."""
        self.page.on("console", lambda m: self.console_errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda e: self.console_errors.append(str(e)))
        self.page.on("request", self._request)
        self.page.goto(f"{lab.url}/lab/tree/{notebook}?token={lab.token}&reset")
        self.page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        self.wait_idle()

    def _request(self, request: Any) -> None:
        inside = (self.lab.url, self.lab.url.replace("http", "ws", 1), *_INSIDE)
        if not request.url.startswith(inside):
            self.external.append(request.url)

    def __enter__(self) -> Opened:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.context.close()

    def wait_idle(self, seconds: float = 60) -> None:
        """Wait until the kernel is idle (clicking Run earlier opens a "Select Kernel" dialog)."""
        self.page.wait_for_function(
            "() => /\\| Idle/.test(document.body.innerText)",
            timeout=seconds * 1000,
        )

    def run_all(self, seconds: float = 180) -> None:
        """Run > Run All Cells, and wait until no cell is running or waiting."""
        self.page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
        self.page.locator(".lm-Menu-itemLabel", has_text="Run All Cells").first.click()
        self.page.wait_for_function(
            "() => {"
            " const p = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(n => n.textContent);"
            " return p.some(t => /\\d/.test(t)) && !p.some(t => t.includes('*')); }",
            timeout=seconds * 1000,
        )
        self.wait_idle(seconds)
        self.page.wait_for_timeout(700)

    @property
    def errors(self) -> list[str]:
        """The error outputs of cells, as shown."""
        return list(
            self.page.locator(
                ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']"
            ).all_inner_texts()
        )

    @property
    def outputs(self) -> list[str]:
        """The text of every output area, in order."""
        return list(self.page.locator(".jp-OutputArea-output").all_inner_texts())

    @property
    def popups(self) -> list[str]:
        """Toasts and dialogs that are open."""
        return list(self.page.locator(".Toastify__toast, .jp-Dialog").all_inner_texts())

    def screenshot(self, path: str | Path, *, whole: bool = True, wait: float = 0.3) -> Path:
        """Write a PNG; `whole` makes the window as tall as the notebook, so that all of it is in the picture."""
        before = self.page.viewport_size
        if whole:
            tall = self.page.evaluate(
                "() => {"
                " const cells = [...document.querySelectorAll('.jp-Notebook .jp-Cell')];"
                " const c = cells.map(n => n.getBoundingClientRect());"
                " return Math.max(...c.map(r => r.bottom)) - Math.min(...c.map(r => r.top)); }"
            )
            self.page.set_viewport_size({"width": before["width"], "height": min(int(tall) + 160, 16_000)})
        self.page.wait_for_timeout(int(wait * 1000))
        self.page.screenshot(path=str(path))
        if whole:
            self.page.set_viewport_size(before)
        return Path(path)

    def shot_of(self, selector: str, path: str | Path, nth: int = 0) -> Path:
        """Write a PNG of one element."""
        self.page.locator(selector).nth(nth).screenshot(path=str(path))
        return Path(path)


def notebook(path: str | Path, cells: Sequence[str]) -> Path:
    """Write a notebook of code cells, for tests that need one."""
    document = {
        "cells": [
            {
                "cell_type": "code",
                "id": f"cell-{n}",
                "metadata": {},
                "execution_count": None,
                "outputs": [],
                "source": source,
            }
            for n, source in enumerate(cells)
        ],
        "metadata": {
            "kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    target = Path(path)
    target.write_text(json.dumps(document))
    return target
