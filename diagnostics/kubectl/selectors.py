"""Label and field selectors of the API (`-l app=web,tier!=db`, `--field-selector status.phase=Running`)."""

from __future__ import annotations

import re
from typing import Any


def labels_match(item: dict[str, Any], selector: str) -> bool:
    """Return True when the object's labels fit: `k=v`, `k==v`, `k!=v`, `k in (a,b)`, `k notin (a,b)`, `k`,
    `!k`.
    """
    labels = item["metadata"].get("labels") or {}
    for part in re.findall(r"[^,(]+(?:\([^)]*\))?", selector):
        text = part.strip()
        if text and not _fits(labels, text):
            return False
    return True


def _fits(labels: dict[str, str], text: str) -> bool:
    among = re.fullmatch(r"(\S+)\s+(in|notin)\s+\(([^)]*)\)", text)
    if among:
        values = {value.strip() for value in among[3].split(",")}
        inside = labels.get(among[1]) in values
        return inside if among[2] == "in" else not inside
    if "!=" in text:
        key, _, value = text.partition("!=")
        return labels.get(key.strip()) != value.strip()
    if "=" in text:
        key, _, value = text.replace("==", "=").partition("=")
        return labels.get(key.strip()) == value.strip()
    if text.startswith("!"):
        return text[1:].strip() not in labels
    return text in labels


def fields_match(item: dict[str, Any], selector: str) -> bool:
    """Return True when the object's fields fit: `path=value`, `path!=value`."""
    for part in filter(None, selector.split(",")):
        path, op, value = re.split(r"(!=|==|=)", part, maxsplit=1)
        found: Any = item
        for word in path.strip().split("."):
            found = (found or {}).get(word) if isinstance(found, dict) else None
        if (str(found or "") == value.strip()) != (op != "!="):
            return False
    return True
