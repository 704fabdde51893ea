"""Text to objects and back.

`load("shop.yaml")` reads files, folders, standard input (`-`) or text and raises `InputError` with every
fault and its place; `dump(objects)` writes YAML or JSON.
"""

from __future__ import annotations

from kubenet_lab.manifests.dump import dump
from kubenet_lab.manifests.load import Checked, Manifests, ManifestWarning, Refusal, check, load, placed, read

__all__ = [
    "Checked",
    "ManifestWarning",
    "Manifests",
    "Refusal",
    "check",
    "dump",
    "load",
    "placed",
    "read",
]
