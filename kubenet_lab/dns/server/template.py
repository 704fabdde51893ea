"""The `template` plugin (https://coredns.io/plugins/template/): answers written from the question by a template.

Of Go's text/template what such answers use is understood: fields of the question, groups of the match, and
`if`/`else`/`end`, `index`, `parseInt`; anything else is refused as not modelled.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec import Struct

from kubenet_lab.dns.names import absolute, closest_zone, is_subdomain
from kubenet_lab.dns.records import CLASSES, RCODES, Record, Response, reply, type_number
from kubenet_lab.dns.server.corefile import Controller, CorefileError
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request

Text = Callable[["Data"], str]
_ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)


class Data(Struct, frozen=True):
    """What a template can name: `.Zone`, `.Name`, `.Class`, `.Type`, `.Match`, `.Group`, `.Remote`, `.Question`."""

    zone: str
    name: str
    cls: str
    type: str
    match: tuple[str, ...]
    group: dict[str, str]
    remote: str


class Template(Struct, frozen=True):
    """One stanza, read."""

    zones: tuple[str, ...]
    cls: str
    type: str
    patterns: tuple[re.Pattern[str], ...]
    answer: tuple[Text, ...] = ()
    additional: tuple[Text, ...] = ()
    authority: tuple[Text, ...] = ()
    rcode: str = "NOERROR"
    fallthrough: tuple[str, ...] | None = None

    def matches(self, request: Request) -> tuple[Data | None, bool]:
        """(what the templates are filled with or None, whether the question falls through to the next)."""
        query = request.query
        zone = closest_zone(self.zones, request.name)
        if not zone:
            return None, True
        if self.cls not in ("ANY", query.cls) or self.type not in ("ANY", query.type):
            return None, True
        for pattern in self.patterns:
            found = pattern.search(request.name)
            if found is not None:
                group = {str(i): text or "" for i, text in enumerate((found[0], *found.groups()))}
                group |= {name: text or "" for name, text in found.groupdict().items()}
                texts = tuple(text or "" for text in (found[0], *found.groups()))
                return Data(zone, request.name, query.cls, query.type, texts, group, request.client), False
        through = self.fallthrough
        return None, through is not None and any(is_subdomain(z, request.name) for z in through)


class Templates(Plugin):
    """The stanzas of a server block, tried in order."""

    name = "template"

    def __init__(self, templates: tuple[Template, ...]) -> None:
        self.templates = templates

    def serve(self, request: Request) -> Response | Failure:
        """Answer by the first template that fits."""
        for template in self.templates:
            data, through = template.matches(request)
            if data is None:
                if through:
                    continue
                return Failure("NXDOMAIN", "plugin/template: no template matched")
            if template.rcode == "SERVFAIL":
                return Failure("SERVFAIL")
            return self._answer(template, data, request)
        return self.pass_on(request)

    def _answer(self, template: Template, data: Data, request: Request) -> Response | Failure:
        sections: list[tuple[Record, ...]] = []
        for texts in (template.answer, template.additional, template.authority):
            try:
                sections.append(tuple(record(text(data)) for text in texts))
            except ValueError as error:
                return Failure("SERVFAIL", f"plugin/template: {error}")
        answers = list(sections[0])
        for each in sections[0]:
            if each.type == "CNAME" and request.query.type in ("A", "AAAA"):
                found = request.lookup(request, each.target, request.query.type)
                answers += found.answer if found is not None else ()
        return reply(
            request.query,
            template.rcode,
            answer=tuple(answers),
            additional=sections[1],
            authority=sections[2],
            aa=True,
        )

    @classmethod
    def setup(cls, controller: Controller) -> Templates:
        """Read all stanzas of the block. Raises CorefileError."""
        c = controller
        found: list[Template] = []
        while c.next():
            found.append(_stanza(c))
        return cls(tuple(found))


def _stanza(c: Controller) -> Template:
    if not c.next_arg():
        raise c.arg_error()
    cls = c.value
    if cls not in CLASSES:
        raise c.error(f"invalid query class {cls}")
    if not c.next_arg():
        raise c.arg_error()
    kind = c.value
    try:
        type_number(kind)
    except KeyError:
        raise c.error(f"invalid RR class {kind}") from None
    zones = c.zones_or(c.args())
    patterns: list[re.Pattern[str]] = []
    texts: dict[str, list[Text]] = {"answer": [], "additional": [], "authority": []}
    rcode, fallthrough = "NOERROR", None
    while c.next_block():
        word, words = c.value, c.args()
        if word == "match":
            if not words:
                raise c.arg_error()
            patterns += [_pattern(c, text) for text in words]
        elif word in texts:
            if not words:
                raise c.arg_error()
            texts[word] += [_compile(c, word, text) for text in words]
        elif word == "rcode":
            if not words:
                raise c.arg_error()
            if words[0] not in RCODES:
                raise c.error(f"unknown rcode {words[0]}")
            rcode = words[0]
        elif word == "fallthrough":
            fallthrough = c.fallthrough(words)
        elif word == "ederror":
            raise CorefileError("ederror: not modelled")
        elif word != "upstream":
            raise c.arg_error()
    return Template(
        zones, cls, kind, tuple(patterns) or (re.compile(".*"),),
        tuple(texts["answer"]), tuple(texts["additional"]), tuple(texts["authority"]), rcode, fallthrough,
    )  # fmt: skip


def _pattern(c: Controller, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise c.error(f"could not parse regex: {text}, {go_regexp_error(text, error)}") from None


def go_regexp_error(text: str, error: re.error) -> str:
    """Say what Go's regexp package says of a broken pattern."""
    if "missing ), unterminated subpattern" in error.msg:
        return f"error parsing regexp: missing closing ): `{text}`"
    if "unbalanced parenthesis" in error.msg:
        return f"error parsing regexp: unexpected ): `{text}`"
    if "unterminated character set" in error.msg:
        return f"error parsing regexp: missing closing ]: `{text[error.pos or 0 :]}`"
    if "nothing to repeat" in error.msg:
        return f"error parsing regexp: missing argument to repetition operator: `{text[error.pos or 0]}`"
    return f"error parsing regexp: {error.msg}: `{text}`"


def _compile(c: Controller, section: str, text: str) -> Text:
    if text.count("{{") > text.count("}}"):
        raise c.error(f"could not compile template: {text}, template: {section}:1: unclosed action")
    parts: list[str | Text] = []
    at = 0
    for found in _ACTION.finditer(text):
        parts += [text[at : found.start()], _action(found[1])]
        at = found.end()
    parts.append(text[at:])
    return lambda data: "".join(part if isinstance(part, str) else part(data) for part in parts)


def _action(code: str) -> Text:
    fields: dict[str, Text] = {
        ".Zone": lambda data: data.zone,
        ".Name": lambda data: data.name,
        ".Class": lambda data: data.cls,
        ".Type": lambda data: data.type,
        ".Remote": lambda data: data.remote,
    }
    if code in fields:
        return fields[code]
    if code.startswith(".Group."):
        name = code.removeprefix(".Group.")
        return lambda data: data.group.get(name, "<no value>")
    indexed = re.fullmatch(r"index\s+\.(Match|Group)\s+(?:(\d+)|\"(\w+)\")", code)
    if indexed is not None:
        number, word = indexed[2], indexed[3] or indexed[2]
        if indexed[1] == "Match":
            return lambda data: data.match[int(number)]
        return lambda data: data.group.get(word, "")
    parsed = re.fullmatch(r"parseInt\s+\.Group\.(\w+)\s+(\d+)\s+\d+", code)
    if parsed is not None:
        name, base = parsed[1], int(parsed[2])
        return lambda data: str(int(data.group[name], base))
    raise CorefileError(f"action {{{{ {code} }}}}: not modelled")


def record(line: str) -> Record:
    """Read one master-file line. Raises ValueError."""
    words = line.split(None, 1)
    if len(words) < 2:
        raise ValueError(f"not a record: {line}")
    name, rest = words
    ttl, cls = 3600, "IN"
    while True:
        word, _, tail = rest.partition(" ")
        if word.isdigit():
            ttl, rest = int(word), tail.strip()
        elif word.upper() in CLASSES and word.upper() != "ANY":
            cls, rest = word.upper(), tail.strip()
        else:
            break
    kind, _, data = rest.partition(" ")
    try:
        type_number(kind.upper())
    except KeyError:
        raise ValueError(f"dns: unknown type: {kind!r} in {line}") from None
    return Record(absolute(name), kind.upper(), ttl, " ".join(data.split()), cls)
