"""Text to documents: YAML read as kubectl reads it, or JSON, with a place for every field.

kubectl turns YAML into JSON with go-yaml, whose rules are its own mixture of YAML 1.1 and 1.2: `yes` and `on`
are booleans, `0120` is octal, `8_0` is 80, `1.0` is 1, `12:30` and `2024-01-01` stay text, keys become text,
`<<` merges. PyYAML's C loader does the work; only its idea of what a plain scalar means is replaced. Places
are not carried along: when there is a fault, the text is composed once more and the field looked up
(`Document.place`).
"""

from __future__ import annotations

import codecs
import functools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from kubenet_lab.errors import Fault

Path = tuple[str | int, ...]

MAX_EXPANDED = 2_000_000
"""Values a document may have once its anchors are expanded; more is an alias bomb."""

MAX_DEPTH = 200
"""Levels of nesting a document may have."""

MAX_YAML_VALUES = 500_000
"""Lines and commas a YAML document may have: each may become a node, which takes about a kilobyte."""

MAX_PLACED_BYTES = 8_000_000
"""A document larger than this is not read a second time to find a fault's line."""

MIN_JSON_BYTES_A_VALUE = 12
"""A large JSON text with less than this many bytes a value is no manifest: there is no room for field names."""

_BOOLEANS = {
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE"), False),
}
_NUMBER = re.compile(
    r"^[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0o[0-7_]+|[0-9][0-9_]*"
    r"|(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?)$"
)


MADE_OF: dict[str | int, str] = {"clusterIPs": "clusterIP", "podCIDRs": "podCIDR", "podIPs": "podIP"}
"""Lists that the API server fills from an older field of one value, and that field."""


class Document(Struct, frozen=True):
    """One document of a text.

    Attributes:
        value: What it says, as dicts, lists and scalars; None for a document of comments.
        number: From 1, counting all documents of the text.
        line: The line its own text begins at, from 0.
        text: Its own text, to look places up in.
        duplicates: Paths of keys that came twice; the last one counts.
        of: `apiVersion` and `kind` of the JSON list whose item this is; empty for a document of its own.
        origin: Where an item begins, from 0; looked up when it is asked for.
    """

    value: Any
    number: int
    line: int
    text: str | bytes
    duplicates: tuple[Path, ...] = ()
    of: dict[str, str] = {}
    origin: Callable[[], tuple[int, int]] | None = None

    def place(self, path: Path, key: bool = False) -> tuple[int, int]:
        """Line and column, both from 1, of the value at a path, or of its key.

        Of the deepest part that is there.

        (0, 0) where the text cannot be composed.
        """
        mark, _ = self._look(path, key)
        if mark is None:
            if self.origin is None:
                return (0, 0)
            line, column = self.origin()
            return (line + 1, column + 1)
        line, column = self.origin() if self.origin else (self.line, 0)
        return (line + mark.line + 1, mark.column + 1 + (0 if mark.line else column))

    @property
    def has_nulls(self) -> bool:
        """Whether there may be a null in it; a quick answer that may be wrong only in saying yes."""
        return isinstance(self.text, str) or b"null" in self.text

    def written(self, path: Path) -> str:
        """The plain scalar at a path, letter by letter; empty where there is none."""
        _, node = self._look(path, False)
        value = getattr(node, "value", "")
        return value if isinstance(value, str) else ""

    def _look(self, path: Path, key: bool) -> tuple[Any, Any]:
        """The mark of the deepest part of a path that is there, and the node at its end or None."""
        import yaml

        if len(self.text) > MAX_PLACED_BYTES:
            return None, None
        try:
            node = _compose(self.text if isinstance(self.text, str) else self.text.decode())
        except (yaml.YAMLError, RecursionError):
            return None, None
        mark = node.start_mark if node is not None else None
        for step in path:
            if isinstance(node, yaml.MappingNode):
                found = [(name, value) for name, value in node.value if name.value == str(step)]
                if not found:
                    # The server judges the list it made of the one that was written; the fault stands at that one.
                    made_of = [(name, value) for name, value in node.value if name.value == MADE_OF.get(step)]
                    return (made_of[-1][1].start_mark if made_of else mark), None
                name, node = found[-1]
                mark = name.start_mark if key or not isinstance(node, yaml.ScalarNode) else node.start_mark
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                mark = node.start_mark
            else:
                return mark, None
        return mark, node


def documents(text: str | bytes, file: str) -> Iterator[Document | Fault]:
    """The documents of a text in order; a document that cannot be read comes as its `Fault`.

    A JSON list comes item by item, so that a dump of a cluster is never in memory as a whole.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) and _is_json(text) else text
    if isinstance(data, bytes):
        data = data.removeprefix(codecs.BOM_UTF8)
        if data.lstrip()[:1] == b"{":
            found = _json_documents(data, file)
            if found is not None:
                yield from found
                return
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            yield _not_utf8(data, error, file)
            return
    else:
        text = data
    text = text.removeprefix("\ufeff")
    if "\0" in text:
        yield Fault("the input is binary, not YAML or JSON", file=file, help="give a text file of manifests")
        return
    for count, (line, part) in enumerate(_split(text), 1):
        if part and not part.isspace():
            yield _yaml_document(part, count, line, file)


def _is_json(text: str) -> bool:
    return text.removeprefix("\ufeff").lstrip()[:1] == "{"


def _not_utf8(data: bytes, error: UnicodeDecodeError, file: str) -> Fault:
    message = f"the file is not UTF-8 text: byte {error.start} is {data[error.start]:#04x}"
    help = "save it as UTF-8"
    for mark, name in (
        (codecs.BOM_UTF16_LE, "UTF-16"),
        (codecs.BOM_UTF16_BE, "UTF-16"),
        (b"\x1f\x8b", "gzip"),
    ):
        if data.startswith(mark):
            help = (
                "it is compressed: unpack it first" if name == "gzip" else f"it is {name}: save it as UTF-8"
            )
    line = data.count(b"\n", 0, error.start) + 1
    return Fault(message, file, line, error.start - data.rfind(b"\n", 0, error.start), help=help)


_SEPARATOR = re.compile(r"^---(?=\s*$|[ \t]*#).*$\n?", re.MULTILINE)


def _split(text: str) -> Iterator[tuple[int, str]]:
    """The parts between `---` lines, each with its first line's number.

    As kubectl does, before any of them is parsed.
    """
    start = line = 0
    for match in _SEPARATOR.finditer(text):
        part = text[start : match.start()]
        # What stands before the first `---` is a document only if it says something.
        if start or part.strip():
            yield line, part
        line += text.count("\n", start, match.end())
        start = match.end()
    part = text[start:]
    if part.strip() or not start:
        yield line, part


class _Listing(Struct):
    """A list's head, and its items as they stand in the text."""

    apiVersion: str = ""
    kind: str = ""
    items: list[msgspec.Raw] | None = None


_LISTING = msgspec.json.Decoder(_Listing)
_ANY = msgspec.json.Decoder()


def _json_documents(data: bytes, file: str) -> Iterator[Document | Fault] | None:
    """The objects of a JSON text, or None where it is not one (it may still be YAML in flow style)."""
    if len(data) > 1_000_000 and data.count(b",") * MIN_JSON_BYTES_A_VALUE > len(data):
        message = "the input has more values than a manifest of its size can have"
        return iter([Fault(message, file, help="give a file of manifests")])
    try:
        listing = _LISTING.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        return _json_stream(data, file, error)
    if listing.kind.endswith("List") and listing.items is not None:
        return _items(data, listing, listing.items, file)
    document = _json_document(data, 1, 0)
    return None if document is None else iter([document])


def _json_stream(data: bytes, file: str, error: Exception) -> Iterator[Document | Fault] | None:
    """Several JSON objects one after the other; None where it is not JSON at all."""
    if len(data) > MAX_YAML_VALUES:
        # Too large to be tried as YAML; so what is wrong with it as JSON is what there is to say.
        match = re.search(r"byte (\d+)", str(error))
        at = int(match[1]) if match else len(data)
        line = data.count(b"\n", 0, at) + 1
        message = f"error parsing JSON: {error}"
        return iter([Fault(message, file, line, at - data.rfind(b"\n", 0, at), help="is the file whole?")])
    if not re.search(rb"\}\s*\{", data):
        return None
    found: list[Document | Fault] = []
    decoder = json.JSONDecoder()
    try:
        text = data.decode("utf-8")
        at = len(text) - len(text.lstrip())
        while at < len(text):
            _, end = decoder.raw_decode(text, at)
            document = _json_document(text[at:end].encode(), len(found) + 1, text.count("\n", 0, at))
            if document is None:
                return None
            found.append(document)
            at = end + len(text[end:]) - len(text[end:].lstrip())
    except (ValueError, RecursionError):
        return None
    return iter(found)


def _items(data: bytes, listing: _Listing, items: list[msgspec.Raw], file: str) -> Iterator[Document | Fault]:
    head = {"apiVersion": listing.apiVersion, "kind": listing.kind}
    places = _Places(data, items)
    for index, raw in enumerate(items):
        text = bytes(raw)
        try:
            value = _ANY.decode(text)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            line, column = places.of(index)
            yield Fault(f"error parsing JSON: {error}", file, line + 1, column + 1, 1)
            continue
        origin = functools.partial(places.of, index)
        if _key_count(text) == _key_count(msgspec.json.encode(value)):
            yield Document(value, 1, 0, text, of=head, origin=origin)
            continue
        found = _yaml_document(text.decode(), 1, 0, file)
        if isinstance(found, Document):
            found = Document(found.value, 1, 0, text, found.duplicates, head, origin)
        yield found


class _Places:
    """Where the items of a list begin; found when the first is asked for, as faults are rare."""

    def __init__(self, data: bytes, items: list[msgspec.Raw]) -> None:
        self.data, self.items = data, items
        self.offsets: list[int] = []
        self.last = (0, 0)

    def of(self, index: int) -> tuple[int, int]:
        """Line and column of an item, both from 0."""
        data = self.data
        if not self.offsets:
            at = data.index(b"[", data.index(b'"items"')) if b'"items"' in data else 0
            for raw in self.items:
                at = data.index(raw, at)
                self.offsets.append(at)
                at += len(memoryview(raw))
        at = self.offsets[index]
        before, line = self.last if self.last[0] <= at else (0, 0)
        line += data.count(b"\n", before, at)
        self.last = (at, line)
        start = data.rfind(b"\n", 0, at) + 1
        # On a very long line, of bytes, not of characters, which would have to be decoded.
        return line, len(data[start:at].decode("utf-8", "replace")) if at - start < 10_000 else at - start


def _key_count(text: bytes) -> int:
    """How many keys a JSON text has.

    A quote before a colon ends a key, unless it is escaped. (A key that ends in a backslash, or with a blank
    before its colon, is counted wrong, which only makes the caller look closer.)
    """
    return text.count(b'":') - text.count(b'\\":')


def _json_document(data: bytes, number: int, line: int) -> Document | None:
    """The text as one JSON value, or None where it is not one or has a key twice."""
    try:
        value = _ANY.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None
    if _key_count(data) != _key_count(msgspec.json.encode(value)) and _has_duplicates(data):
        return None
    return Document(value, number, line, data)


def _has_duplicates(data: bytes) -> bool:
    duplicated = False

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal duplicated
        value = dict(items)
        duplicated = duplicated or len(value) != len(items)
        return value

    json.loads(data, object_pairs_hook=pairs)
    return duplicated


def _yaml_document(text: str, number: int, line: int, file: str) -> Document | Fault:
    import yaml

    if len(text) > MAX_YAML_VALUES and text.count("\n") + text.count(",") > MAX_YAML_VALUES:
        message = f"the YAML document has more than {MAX_YAML_VALUES:,} lines and commas"
        hint = "split it with --- lines, or write it as JSON, which is read piece by piece"
        return Fault(message, file, line + 1, 1, number, help=hint)
    try:
        loader = _loader()(text)
    except yaml.YAMLError as error:  # a character YAML does not allow
        return _reader_fault(error, text, line, number, file)
    try:
        if _may_be_deep(text) and _depth(text) > MAX_DEPTH:
            raise RecursionError
        value = loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        if "nesting depth" in problem:  # libyaml since 0.2.6 counts brackets itself, while it looks for a key
            return _too_deep(file, line, number)
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
        return _too_deep(file, line, number)
    finally:
        loader.dispose()
    if "*" in text and (expanded := _expanded_size(value)) is not None:
        message = f"error converting YAML to JSON: yaml: {expanded}"
        return Fault(message, file, line + 1, 1, number, help="write the repeated parts out")
    return Document(value, number, line, text, tuple(loader.duplicates(text)))


def _too_deep(file: str, line: int, number: int) -> Fault:
    message = "error converting YAML to JSON: the document is nested too deeply"
    return Fault(message, file, line + 1, 1, number, help="a manifest is at most some ten levels deep")


def _reader_fault(error: Any, text: str, line: int, number: int, file: str) -> Fault:
    at = getattr(error, "position", 0) or 0
    shown = getattr(error, "character", "")
    character = f"{shown:#04x}" if isinstance(shown, int) else repr(shown)
    row, column = text.count("\n", 0, at), at - text.rfind("\n", 0, at)
    message = "error converting YAML to JSON: yaml: control characters are not allowed"
    return Fault(message, file, line + row + 1, column, number, help=f"remove the character {character}")


_LONG_LINE = re.compile(f"[^\\n]{{{MAX_DEPTH + 1}}}")


def _may_be_deep(text: str) -> bool:
    """Whether a text has the brackets, or a line with the room, that deep nesting takes."""
    return text.count("[") + text.count("{") > MAX_DEPTH or _LONG_LINE.search(text) is not None


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
