"""`kubectl get`: what the API holds, printed as kubectl prints it.

It sees the cluster through `Api` alone: manifests by kind and namespace. Printer columns are those of
Kubernetes 1.37 (`pkg/printers/internalversion/printers.go`), widths those of kubectl 1.32.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from diagnostics.kubectl.kinds import KINDS, Kind, find_kind
from diagnostics.kubectl.selectors import fields_match, labels_match
from diagnostics.kubectl.table import render
from diagnostics.tool import NOT_MODELLED, Result


class Api(Protocol):
    """What kubectl needs of an API server."""

    def list(self, kind: str, namespace: str | None) -> list[dict[str, Any]]:
        """Return the manifests of a kind ("Pod"), of one namespace or (None) of all, sorted by namespace
        and name.
        """


class _Failed(Exception):
    def __init__(self, text: str, code: int = 1) -> None:
        self.text, self.code = text, code
        super().__init__(text)


class _NotModelled(Exception):
    pass


FORMATS = (
    "custom-columns,custom-columns-file,go-template,go-template-file,json,jsonpath,jsonpath-as-json,jsonpath-file,"
    "name,template,templatefile,wide,yaml"
)


def run(api: Api, argv: list[str], *, now: float = 0.0, namespace: str = "default") -> Result:
    """Run `kubectl ARGV`.

    Args:
        api: The API.
        argv: Arguments, without "kubectl".
        now: Seconds since the epoch, for ages.
        namespace: The context's namespace, used without `-n`.
    """
    try:
        return _Get(api, argv, now, namespace).run()
    except _Failed as failed:
        return Result(err=failed.text, exit_code=failed.code)
    except _NotModelled as missing:
        return Result(err=f"kubectl: not modelled: {missing}\n", exit_code=NOT_MODELLED)


class _Get:
    """One `kubectl get`."""

    def __init__(self, api: Api, argv: list[str], now: float, namespace: str) -> None:
        self.api, self.now, self.namespace = api, now, namespace
        self.everywhere = self.no_headers = self.show_labels = False
        self.output, self.selector, self.fields, self.sort_by, self.label_columns = "", "", "", "", ""
        self.operands: list[str] = []
        if not argv:
            raise _NotModelled("the usage text")
        if argv[0] != "get":
            raise _NotModelled(f"kubectl {argv[0]}")
        self._read(argv[1:])

    def _read(self, words: list[str]) -> None:
        values = {
            "-n": "namespace",
            "--namespace": "namespace",
            "-o": "output",
            "--output": "output",
            "-l": "selector",
            "--selector": "selector",
            "--field-selector": "fields",
            "--sort-by": "sort_by",
            "-L": "label_columns",
            "--label-columns": "label_columns",
        }
        flags = {
            "-A": "everywhere",
            "--all-namespaces": "everywhere",
            "--no-headers": "no_headers",
            "--show-labels": "show_labels",
        }
        rest = list(words)
        while rest:
            word = rest.pop(0)
            name, equals, value = word.partition("=")
            if name in flags:
                setattr(self, flags[name], value != "false")
            elif name in values:
                if not equals and not rest:
                    raise _Failed(f"error: flag needs an argument: {name}\n")
                setattr(self, values[name], value if equals else rest.pop(0))
            elif word[:2] in ("-n", "-o", "-l", "-L") and not word.startswith("--"):
                setattr(self, values[word[:2]], word[2:])
            elif word in (
                "-w",
                "--watch",
                "--watch-only",
                "-f",
                "-k",
                "--show-kind",
                "--chunk-size",
                "-R",
                "--context",
                "--kubeconfig",
            ):
                raise _NotModelled(f"option {word}")
            elif word.startswith("--"):
                raise _Failed(f"Error: unknown flag: {name}\nSee 'kubectl get --help' for usage.\n")
            elif word.startswith("-"):
                letter = word[1]
                raise _Failed(
                    f"Error: unknown shorthand flag: '{letter}' in {word}\nSee 'kubectl get --help' for usage.\n"
                )
            else:
                self.operands.append(word)
        if self.output and self.output.partition("=")[0] not in FORMATS.split(","):
            allowed = FORMATS
            raise _Failed(
                f'error: unable to match a printer suitable for the output format "{self.output}", '
                f"allowed formats are: {allowed}\n"
            )
        if self.output and self.output not in ("wide", "name", "json", "yaml"):
            raise _NotModelled(f"option -o {self.output.partition('=')[0]}")

    def _wanted(self) -> list[tuple[Kind, list[str]]]:
        """Return the kinds asked for, each with names (none: all of them)."""
        if not self.operands:
            raise _NotModelled("kubectl get without a kind")
        if any("/" in word for word in self.operands):
            out: list[tuple[Kind, list[str]]] = []
            for word in self.operands:
                kind, slash, name = word.partition("/")
                if not slash:
                    raise _Failed(
                        "error: there is no need to specify a resource type as a separate argument when passing "
                        "arguments in resource/name form\n"
                    )
                out.append((self._kind(kind), [name]))
            return out
        kinds = [self._kind(word) for word in self.operands[0].split(",") if word]
        return [(kind, self.operands[1:]) for kind in kinds]

    @staticmethod
    def _kind(word: str) -> Kind:
        kind = find_kind(word)
        if kind is None:
            raise _Failed(f'error: the server doesn\'t have a resource type "{word}"\n')
        return kind

    def run(self) -> Result:
        wanted = self._wanted()
        found: list[tuple[Kind, list[dict[str, Any]]]] = []
        errors = ""
        for kind, names in wanted:
            items = self.api.list(
                kind.kind, None if self.everywhere or not kind.namespaced else self.namespace
            )
            items = [
                item
                for item in items
                if labels_match(item, self.selector) and fields_match(item, self.fields)
            ]
            if names:
                by_name = {item["metadata"]["name"]: item for item in items}
                for name in names:
                    if name not in by_name:
                        group = (
                            kind.resource
                            if "/" not in kind.api_version
                            else f"{kind.resource}.{kind.api_version.partition('/')[0]}"
                        )
                        errors += f'Error from server (NotFound): {group} "{name}" not found\n'
                items = [by_name[name] for name in names if name in by_name]
            if self.sort_by:
                items = _sorted(items, self.sort_by)
            found.append((kind, items))
        single = len(wanted) == 1 and len(wanted[0][1]) == 1
        total = [item for _, items in found for item in items]
        rows = [_row(item) for item in total]
        if errors and not total:
            return Result(err=errors, exit_code=1)
        out = self._print(found, total, single)
        code = 1 if errors else 0
        if not total and self.output not in ("json", "yaml", "name"):
            scoped = any(kind.namespaced for kind, _ in found) and not self.everywhere
            where = f" in {self.namespace} namespace" if scoped else ""
            errors += f"No resources found{where}.\n" if scoped else "No resources found\n"
        return Result(out, errors, code, rows)

    def _print(
        self, found: list[tuple[Kind, list[dict[str, Any]]]], total: list[dict[str, Any]], single: bool
    ) -> str:
        if self.output == "name":
            return "".join(
                f"{kind.full_name}/{item['metadata']['name']}\n" for kind, items in found for item in items
            )
        if self.output in ("json", "yaml"):
            document: Any = (
                total[0]
                if single and total
                else {
                    "apiVersion": "v1",
                    "items": total,
                    "kind": "List",
                    "metadata": {"resourceVersion": ""},
                }
            )
            document = _ordered(document)
            if self.output == "json":
                return json.dumps(document, indent=4, ensure_ascii=False) + "\n"
            return _yaml(document)
        several = len(found) > 1
        tables = []
        for kind, items in found:
            if not items:
                continue
            columns = [c for c in kind.columns if not c.wide or self.output == "wide"]
            head = [c.name.upper() for c in columns]
            body = []
            for item in items:
                cells = [str(c.cell(item, self.now)) for c in columns]
                if several:
                    cells[0] = f"{kind.full_name}/{cells[0]}"
                labels = item["metadata"].get("labels") or {}
                if self.everywhere and kind.namespaced:
                    cells.insert(0, item["metadata"].get("namespace", ""))
                for name in filter(None, self.label_columns.split(",")):
                    cells.append(labels.get(name, ""))
                if self.show_labels:
                    cells.append(",".join(f"{k}={labels[k]}" for k in sorted(labels)) or "<none>")
                body.append(cells)
            if self.everywhere and kind.namespaced:
                head.insert(0, "NAMESPACE")
            head += [name.rpartition("/")[2].upper() for name in filter(None, self.label_columns.split(","))]
            if self.show_labels:
                head.append("LABELS")
            tables.append(render(body if self.no_headers else [head, *body]))
        return "\n".join(tables)


def _ordered(value: Any) -> Any:
    """Sort members by name, as kubectl's printers do."""
    if isinstance(value, dict):
        return {key: _ordered(value[key]) for key in sorted(value) if key != "managedFields"}
    if isinstance(value, list):
        return [_ordered(item) for item in value]
    return value


def _yaml(document: Any) -> str:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Block style, lists not indented, double quotes and `|`, as Go's YAML writes them."""

        def choose_scalar_style(self) -> Any:
            style = super().choose_scalar_style()
            if (
                isinstance(self.event, yaml.ScalarEvent)
                and "\n" in self.event.value
                and not self.simple_key_context
            ):
                return "|"
            return '"' if style == "'" else style

    return str(
        yaml.dump(
            document,
            Dumper=Dumper,
            default_flow_style=False,
            sort_keys=False,
            allow_unicode=True,
            width=1 << 30,
        )
    )


def _sorted(items: list[dict[str, Any]], path: str) -> list[dict[str, Any]]:
    words = path.strip("{}").lstrip(".").split(".")

    def key(item: dict[str, Any]) -> Any:
        value: Any = item
        for word in words:
            if "[" in word or not isinstance(value, dict):
                raise _NotModelled(f"option --sort-by {path}")
            value = value.get(word)
        return (value is None, str(value) if not isinstance(value, (int, float)) else f"{value:020}")

    return sorted(items, key=key)


def _row(item: dict[str, Any]) -> dict[str, Any]:
    meta = item["metadata"]
    return {"kind": item.get("kind", ""), "namespace": meta.get("namespace", ""), "name": meta["name"]}


__all__ = ["KINDS", "Api", "run"]
