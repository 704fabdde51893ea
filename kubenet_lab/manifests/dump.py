"""Objects to text: YAML or JSON as `kubectl get -o yaml|json` lays it out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from kubenet_lab.objects import AnyObject


def dump(objects: AnyObject | Iterable[AnyObject], format: str = "yaml") -> str:
    """One object as a document; several as `---` documents (yaml) or one `List` (json).

    Args:
        format: `yaml` or `json`.

    Raises:
        ValueError: Another format.
    """
    many = [objects] if hasattr(objects, "to_manifest") else list(objects)
    manifests: list[dict[str, Any]] = [_sorted(obj.to_manifest()) for obj in many]
    if format == "json":
        one = len(manifests) == 1 and hasattr(objects, "to_manifest")
        shown: Any = manifests[0] if one else {"apiVersion": "v1", "kind": "List", "items": manifests}
        return msgspec.json.format(msgspec.json.encode(shown), indent=4).decode() + "\n"
    if format == "yaml":
        return "---\n".join(_yaml(manifest) for manifest in manifests)
    raise ValueError(f"format is yaml or json, not {format!r}")


def _sorted(value: Any) -> Any:
    """Keys in alphabetical order, as kubectl prints them."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def _yaml(manifest: dict[str, Any]) -> str:
    import yaml

    from kubenet_lab.manifests.text import reads_as_text

    base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)

    class Dumper(base):  # type: ignore[misc]
        """Quotes exactly the texts that kubectl would not read back as text."""

        def ignore_aliases(self, data: Any) -> bool:
            """Anchors would be right, and hard to read."""
            return True

    def text(dumper: Any, value: str) -> Any:
        style = "|" if "\n" in value else None if reads_as_text(value) else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    dumped: str = yaml.dump(manifest, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1_000_000)
    return dumped
