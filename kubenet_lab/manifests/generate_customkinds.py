"""Writes `customkinds.json`, the bare schemas of custom kinds, from CustomResourceDefinition files.

Run by a developer with the `config/crd/experimental` files of kubernetes-sigs/gateway-api and of
kubernetes-sigs/network-policy-api (those of AdminNetworkPolicy are in its releases before v0.2):

    python -m kubenet_lab.manifests.generate_customkinds FILE...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kubenet_lab.manifests.customkinds import CustomKind, kinds_of
from kubenet_lab.manifests.text import Document, documents


def main(files: list[str]) -> None:
    """Write the table beside this file."""
    found: dict[str, CustomKind] = {}
    for file in files:
        for document in documents(Path(file).read_bytes(), file):
            if isinstance(document, Document) and isinstance(document.value, dict):
                found.update(kinds_of(document.value))
    table = {
        key: {"resource": kind.resource, "namespaced": kind.namespaced, "schema": kind.schema}
        for key, kind in sorted(found.items())
    }
    target = Path(__file__).with_name("customkinds.json")
    target.write_text(json.dumps(table, separators=(",", ":")) + "\n", encoding="utf-8")
    print(f"{len(table)} kinds, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
