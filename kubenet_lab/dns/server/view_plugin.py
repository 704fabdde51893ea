"""The `view` plugin (https://coredns.io/plugins/view/): a server block that answers only some of the queries."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from typing import Any

from kubenet_lab.dns.server.corefile import Controller, CorefileError
from kubenet_lab.dns.server.plugin import Plugin, Request

Value = Callable[[Request], Any]
_TOKEN = re.compile(
    r"\s*(?:(\d+(?:\.\d+)?)|'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"|([A-Za-z_]\w*)|(&&|\|\||==|!=|<=|>=|[-!<>()\[\],]))"
)
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "name": lambda request: request.query.name.lower(),
    "type": lambda request: request.query.type,
    "class": lambda request: request.query.cls,
    "client_ip": lambda request: request.client,
    "port": lambda request: str(request.port),
    "proto": lambda request: request.protocol,
    "id": lambda request: request.query.id,
    "opcode": lambda request: request.query.opcode,
    "do": lambda request: request.query.edns is not None and request.query.edns.do,
    "bufsize": lambda request: 512 if request.query.edns is None else request.query.edns.payload,
    "size": lambda request: request.query.wire_length,
    "server_port": lambda request: "53",
    "incidr": lambda request, address, network: (
        ipaddress.ip_address(address) in ipaddress.ip_network(network, strict=False)
    ),
}
"""What an expression can ask of a query."""
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "in": lambda a, b: a in b,
    "matches": lambda a, b: re.search(b, a) is not None,
    "contains": lambda a, b: b in a,
    "startsWith": lambda a, b: a.startswith(b),
    "endsWith": lambda a, b: a.endswith(b),
}


class View(Plugin):
    """Serves no queries itself; `wanted` says whether the block is for a query."""

    name = "view"

    def __init__(self, title: str, expressions: tuple[Value, ...]) -> None:
        self.title = title
        self.expressions = expressions

    def wanted(self, request: Request) -> bool:
        """Are all expressions true of this query?"""
        return all(expression(request) is True for expression in self.expressions)

    @classmethod
    def setup(cls, controller: Controller) -> View:
        """Read the stanza: NAME { expr EXPRESSION }. Raises CorefileError."""
        c = controller
        title, expressions = "", []
        while c.next():
            args = c.args()
            if len(args) != 1:
                raise c.arg_error()
            title = args[0]
            while c.next_block():
                if c.value != "expr":
                    raise c.error(f"unknown property '{c.value}'")
                expressions.append(compile_expression(" ".join(c.args())))
        return cls(title, tuple(expressions))


def compile_expression(text: str) -> Value:
    """Compile an expression of the language https://expr-lang.org, as far as a view needs it. Raises CorefileError."""
    words: list[tuple[str, str]] = []
    at = 0
    while at < len(text.rstrip()):
        found = _TOKEN.match(text, at)
        if found is None:
            raise CorefileError(f"expression {text!r}: not modelled")
        number, single, double, name, sign = found.groups()
        if number is not None:
            words.append(("number", number))
        elif single is not None or double is not None:
            quoted = single if single is not None else double
            words.append(("text", re.sub(r"\\(.)", r"\1", quoted)))
        else:
            words.append(("word", name or sign))
        at = found.end()
    parser = _Parser(words, text)
    value = parser.either()
    if parser.words:
        raise CorefileError(f"expression {text!r}: not modelled")
    return value


class _Parser:
    def __init__(self, words: list[tuple[str, str]], text: str) -> None:
        self.words = words
        self.text = text

    def _take(self, *wanted: str) -> str:
        if self.words and self.words[0][0] == "word" and self.words[0][1] in wanted:
            return self.words.pop(0)[1]
        return ""

    def either(self) -> Value:
        left = self.both()
        while self._take("||", "or"):
            first, second = left, self.both()
            left = _or(first, second)
        return left

    def both(self) -> Value:
        left = self.denied()
        while self._take("&&", "and"):
            first, second = left, self.denied()
            left = _and(first, second)
        return left

    def denied(self) -> Value:
        if self._take("!", "not"):
            value = self.denied()
            return lambda request: not value(request)
        return self.compared()

    def compared(self) -> Value:
        left = self.single()
        sign = self._take(*_COMPARE)
        if not sign:
            return left
        right, compare = self.single(), _COMPARE[sign]
        return lambda request: compare(left(request), right(request))

    def single(self) -> Value:
        if not self.words:
            raise CorefileError(f"expression {self.text!r}: not modelled")
        kind, word = self.words.pop(0)
        if kind == "text":
            return lambda request: word
        if kind == "number":
            number = float(word) if "." in word else int(word)
            return lambda request: number
        if word == "(":
            value = self.either()
            self._expect(")")
            return value
        if word == "[":
            items = self._list("]")
            return lambda request: [item(request) for item in items]
        if word in ("true", "false"):
            return lambda request: word == "true"
        if word not in FUNCTIONS or not self._take("("):
            raise CorefileError(f"expression {self.text!r}: {word}: not modelled")
        function, arguments = FUNCTIONS[word], self._list(")")
        return lambda request: function(request, *(each(request) for each in arguments))

    def _list(self, end: str) -> list[Value]:
        items: list[Value] = []
        while not self._take(end):
            if items:
                self._expect(",")
            items.append(self.either())
        return items

    def _expect(self, sign: str) -> None:
        if not self._take(sign):
            raise CorefileError(f"expression {self.text!r}: not modelled")


def _or(first: Value, second: Value) -> Value:
    return lambda request: first(request) or second(request)


def _and(first: Value, second: Value) -> Value:
    return lambda request: first(request) and second(request)
