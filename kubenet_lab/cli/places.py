"""Where a policy and its rules stand in the files of a command."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kubenet_lab.cli.world import Inputs
    from kubenet_lab.manifests.text import Document
    from kubenet_lab.policy.world import Policy

_STEP = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


class Places:
    """Answers "file:line" for a policy's field; the files are read once more when first asked."""

    def __init__(self, inputs: Inputs) -> None:
        self._inputs = inputs
        self._found: dict[tuple[str, str, str], tuple[str, Document, tuple[str | int, ...]]] | None = None

    def __call__(self, policy: Policy, field: str) -> str:
        """The place of a field, or of the deepest part of it that was written; empty where it is not in the files."""
        if self._found is None:
            self._found = self._read()
        found = self._found.get((policy.kind, policy.namespace, policy.name))
        if found is None:
            return ""
        file, document, at = found
        path = [int(step[1]) if step[1] else step[2] for step in _STEP.finditer(field)]
        line, _column = document.place((*at, *path), key=True)
        return f"{file}:{line}" if line else file

    def _read(self) -> dict[tuple[str, str, str], tuple[str, Document, tuple[str | int, ...]]]:
        from kubenet_lab.manifests.text import Document, documents

        found: dict[tuple[str, str, str], tuple[str, Document, tuple[str | int, ...]]] = {}

        def note(value: Any, at: tuple[str | int, ...], file: str, document: Document) -> None:
            if not isinstance(value, dict):
                return
            items = value.get("items")
            if isinstance(items, list) and str(value.get("kind", "")).endswith("List"):
                for index, item in enumerate(items):
                    note(item, (*at, "items", index), file, document)
                return
            kind, metadata = value.get("kind") or document.of.get("kind"), value.get("metadata")
            if not isinstance(kind, str) or not kind.endswith("Policy") or not isinstance(metadata, dict):
                return
            space = (metadata.get("namespace") or "default") if kind == "NetworkPolicy" else ""
            found[kind, str(space), str(metadata.get("name"))] = (file, document, at)

        for file, text in self._inputs.texts():
            for document in documents(text, file):
                if isinstance(document, Document):
                    note(document.value, (), file, document)
        return found
