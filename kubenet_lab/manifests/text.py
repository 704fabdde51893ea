"""Text to documents: YAML read as kubectl reads it, or JSON, with a place for every field.

kubectl turns YAML into JSON with go-yaml, whose rules are its own mixture of YAML 1.1 and 1.2: `yes` and `on`
are booleans, `0120` is octal, `8_0` is 80, `1.0` is 1, `12:30` and `2024-01-01` stay text, keys become text,
`<<` merges. PyYAML's C loader does the work; only its idea of what a plain scalar means is replaced. Places
are not carried along: when there is a fault, the text is composed once more and the field looked up
(`Document.place`).
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from msgspec import Struct

from kubenet_lab.errors import Fault

Path = tuple[str | int, ...]

MAX_EXPANDED = 2_000_000
"""Values a document may have once its anchors are expanded; more is an alias bomb."""

MAX_DEPTH = 200
"""Levels of nesting a document may have."""

_BOOLEANS = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE"), False),
}
_NUMBER = re.compile(
    r"^[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o[0-7_]+|[0-9][0-9_]*"
    r"|(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?)$"
)


class Document(Struct, frozen=True):
    """One document of a text.

    Attributes:
        value: What it says, as dicts, lists and scalars; None for a document of comments.
        number: From 1, counting all documents of the text.
        line: The line its own text begins at, from 0.
        text: Its own text, to look places up in.
        duplicates: Paths of keys that came twice; the last one counts.
    """

    value: Any
    number: int
    line: int
    text: str
    duplicates: tuple[Path, ...] = ()

    def place(self, path: Path, key: bool = False) -> tuple[int, int]:
        """Line and column, both from 1, of the value at a path, or of its key.

        Of the deepest part that is there.

        (0, 0) where the text cannot be composed.
        """
        mark, _ = self._look(path, key)
        return (self.line + mark.line + 1, mark.column + 1) if mark else (0, 0)

    def written(self, path: Path) -> str:
        """The plain scalar at a path, letter by letter; empty where there is none."""
        _, node = self._look(path, False)
        value = getattr(node, "value", "")
        return value if isinstance(value, str) else ""

    def _look(self, path: Path, key: bool) -> tuple[Any, Any]:
        """The mark of the deepest part of a path that is there, and the node at its end or None."""
        import yaml

        try:
            node = _compose(self.text)
        except (yaml.YAMLError, RecursionError):
            return None, None
        mark = node.start_mark if node is not None else None
        for step in path:
            if isinstance(node, yaml.MappingNode):
                found = [(name, value) for name, value in node.value if name.value == str(step)]
                if not found:
                    return mark, None
                name, node = found[-1]
                mark = name.start_mark if key or not isinstance(node, yaml.ScalarNode) else node.start_mark
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                mark = node.start_mark
            else:
                return mark, None
        return mark, node


def documents(text: str, file: str) -> Iterator[Document | Fault]:
    """The documents of a text in order; a document that cannot be read comes as its `Fault`."""
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        yield Fault("the input is binary, not YAML or JSON", file=file, help="give a text file of manifests")
        return
    if text.lstrip()[:1] == "{":
        document = _json_document(text)
        if document is not None:
            yield document
            return
    for count, (line, part) in enumerate(_split(text), 1):
        yield _yaml_document(part, count, line, file)


def _split(text: str) -> Iterator[tuple[int, str]]:
    """The parts between `---` lines, each with its first line's number.

    As kubectl does, before any of them is parsed.
    """
    start, lines = 0, text.splitlines(keepends=True)
    seen = False
    for index, line in enumerate(lines):
        if line.startswith("---") and (not line[3:].strip() or line[3:].lstrip().startswith("#")):
            part = "".join(lines[start:index])
            # What stands before the first `---` is a document only if it says something.
            if seen or part.strip():
                yield start, part
            start, seen = index + 1, True
    part = "".join(lines[start:])
    if part.strip() or not seen:
        yield start, part


def _json_document(text: str) -> Document | None:
    """The text as one JSON value, or None where it is not one (it may still be YAML in flow style)."""
    duplicated = False

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal duplicated
        value = dict(items)
        duplicated = duplicated or len(value) != len(items)
        return value

    try:
        value = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return None
    return None if duplicated else Document(value, 1, 0, text)


def _yaml_document(text: str, number: int, line: int, file: str) -> Document | Fault:
    import yaml

    loader = _loader()(text)
    try:
        if _may_be_deep(text) and _depth(text) > MAX_DEPTH:
            raise RecursionError
        value = loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        # A bracket that is never closed is noticed at the end; the place to look at is where it was opened.
        opened = getattr(error, "context_mark", None)
        shown = opened if opened and mark and mark.line >= len(text.splitlines()) else mark
        at = (line + shown.line + 1, shown.column + 1) if shown else (line + 1, 1)
        if "recursive" in problem:
            problem = "anchor value contains itself"
        # go-yaml counts in the document, from 1 for errors of its scanner, from 0 for those of its parser.
        spoken = mark.line + isinstance(error, yaml.scanner.ScannerError) if mark else 0
        where = f"line {spoken}: " if spoken else ""
        message = f"error converting YAML to JSON: yaml: {where}{problem}"
        return Fault(message, file, at[0], at[1], number, help=_syntax_help(problem, text, at[0] - line))
    except RecursionError:
        message = "error converting YAML to JSON: the document is nested too deeply"
        return Fault(message, file, line + 1, 1, number, help="a manifest is at most some ten levels deep")
    finally:
        loader.dispose()
    if "*" in text and (expanded := _expanded_size(value)) is not None:
        message = f"error converting YAML to JSON: yaml: {expanded}"
        return Fault(message, file, line + 1, 1, number, help="write the repeated parts out")
    return Document(value, number, line, text, tuple(loader.duplicates(text)))


def _may_be_deep(text: str) -> bool:
    """Whether a text has the brackets, or a line with the room, that deep nesting takes."""
    return text.count("[") + text.count("{") > MAX_DEPTH or any(
        len(line) > MAX_DEPTH for line in text.splitlines()
    )


def _depth(text: str) -> int:
    """How deep a text nests, as far as it can be scanned.

    The parser itself recurses in C and would crash the process.
    """
    import yaml

    opening = (
        yaml.BlockMappingStartToken,
        yaml.BlockSequenceStartToken,
        yaml.FlowMappingStartToken,
        yaml.FlowSequenceStartToken,
    )
    closing = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
    depth = deepest = 0
    try:
        for token in yaml.scan(text, Loader=_loader()):
            depth += isinstance(token, opening) - isinstance(token, closing)
            deepest = max(deepest, depth)
            if deepest > MAX_DEPTH:
                break
    except yaml.YAMLError:
        pass  # the parser will meet the same error at the same place, and tell it better
    return deepest


def _syntax_help(problem: str, text: str, line: int) -> str:
    lines = text.splitlines()
    here = lines[min(line, len(lines)) - 1] if lines else ""
    if "\t" in here[: len(here) - len(here.lstrip())]:
        return "indent with spaces; YAML does not allow tabs there"
    if "did not find expected key" in problem or "mapping values" in problem or "block" in problem:
        return "keys of one object begin in the same column, and a value that holds `: ` needs quotes"
    if "expected ',' or" in problem:
        return "close the bracket that is open"
    return "check the indentation and quotes here and on the line above"


def _expanded_size(value: Any) -> str | None:
    """What is wrong with a document's anchors: expanded they are too many values, or one holds itself."""
    sizes: dict[int, int] = {}
    open_ids: set[int] = set()

    def size(item: Any) -> int:
        if not isinstance(item, dict | list):
            return 1
        if id(item) in open_ids:
            raise _OwnAnchor
        if id(item) not in sizes:
            open_ids.add(id(item))
            sizes[id(item)] = 1 + sum(
                size(child) for child in (item.values() if isinstance(item, dict) else item)
            )
            open_ids.discard(id(item))
        return sizes[id(item)]

    try:
        return "document contains excessive aliasing" if size(value) > MAX_EXPANDED else None
    except _OwnAnchor:
        return "anchor value contains itself"


class _OwnAnchor(Exception):
    """An anchor inside the value it names."""


@functools.lru_cache(maxsize=4)
def _compose(text: str) -> Any:
    """The text as nodes with marks; kept, because faults come in crowds."""
    loader = _loader()(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


@functools.cache
def _loader() -> Any:
    """The loader class; made on first use, because importing yaml takes a while."""
    import yaml

    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class KubectlLoader(base):  # type: ignore[misc]
        """kubectl's scalar rules on PyYAML's C parser."""

        yaml_implicit_resolvers: ClassVar[dict[str, list[Any]]] = {}

        def __init__(self, stream: str) -> None:
            super().__init__(stream)
            self.twice: list[Any] = []

        def duplicates(self, text: str) -> list[Path]:
            """Paths of the keys that came twice."""
            return list(_duplicate_paths(_compose(text), ())) if self.twice else []

    def boolean(loader: Any, node: Any) -> bool:
        return _BOOLEANS[node.value]

    def mapping(loader: Any, node: Any) -> dict[str, Any]:
        merged = any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value)
        if merged:
            loader.flatten_mapping(node)
        result: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:str":
                name = key.value
            else:
                name = _key_text(loader.construct_object(key, deep=True))
            if name in result and not merged:
                loader.twice.append(name)
            result[name] = loader.construct_object(value, deep=True)
        return result

    def sequence(loader: Any, node: Any) -> list[Any]:
        return [loader.construct_object(item, deep=True) for item in node.value]

    def add(tag: str, pattern: re.Pattern[str], first: str | Sequence[str]) -> None:
        KubectlLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", pattern, list(first))

    add("bool", re.compile(f"^(?:{'|'.join(_BOOLEANS)})$"), "yYnNtTfFoO")
    add("merge", re.compile("^<<$"), "<")
    add("null", re.compile("^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
    add("int", _NUMBER, "-+.0123456789")
    KubectlLoader.add_constructor("tag:yaml.org,2002:bool", boolean)
    KubectlLoader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: number(node.value))
    KubectlLoader.add_constructor("tag:yaml.org,2002:map", mapping)
    KubectlLoader.add_constructor("tag:yaml.org,2002:seq", sequence)
    return KubectlLoader


def number(text: str) -> int | float:
    """A plain YAML number as go-yaml reads it: `0120` is 80, `1.0` is 1, `8_0` is 80, `0900` (no octal) is
    900.
    """
    plain = text.replace("_", "")
    sign, digits = (-1 if plain[0] == "-" else 1), plain.lstrip("+-")
    try:
        if digits[:2] in ("0b", "0x", "0o"):
            whole = sign * int(digits, 0)
        elif len(digits) > 1 and digits[0] == "0" and digits.isdigit():
            whole = sign * int(digits, 8)
        else:
            whole = sign * int(digits)
        return whole if -(2**63) <= whole < 2**63 else float(whole)
    except (ValueError, OverflowError):
        real = float(plain)
        return int(real) if real.is_integer() and abs(real) < 1e21 else real


def _key_text(key: Any) -> str:
    if key is True or key is False:
        return str(key).lower()
    return "null" if key is None else str(key)


def _duplicate_paths(node: Any, path: Path) -> Iterator[Path]:
    import yaml

    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            here = (*path, str(key.value))
            if key.value in seen:
                yield here
            seen.add(str(key.value))
            yield from _duplicate_paths(value, here)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _duplicate_paths(item, (*path, index))


def reads_as_text(value: str) -> bool:
    """Whether a plain scalar of these characters is text to kubectl, and not a number, boolean or null."""
    return (
        value not in _BOOLEANS
        and not _NUMBER.match(value)
        and value not in ("~", "null", "Null", "NULL", "", "<<")
    )
