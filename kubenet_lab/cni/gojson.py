"""What Go's encoding/json says about a text that is no JSON: plugins and runtimes print its words.

Source: `encoding/json/scanner.go`; the texts are held against recorded ones.
"""

from __future__ import annotations

from typing import Any

_SPACE = " \t\r\n"
_LITERALS = {"t": "true", "f": "false", "n": "null"}
_ESCAPES = 'bfnrt\\/"u'
_DIGITS = frozenset("0123456789")
DEEPEST = 200
"""Values in values that are read; Go's limit is 10,000, which Python's own readers do not reach."""


class _Wrong(Exception):
    """The scanner stopped; the message is Go's."""


def kind_of(value: Any) -> str:
    """Return Go's word for a JSON value that is of another kind than was asked for."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    words: tuple[tuple[Any, str], ...] = (
        (dict, "object"),
        (list, "array"),
        (str, "string"),
        ((int, float), "number"),
    )
    return next(word for kind, word in words if isinstance(value, kind))


def go_type(value: Any) -> str:
    """Return how `%T` prints a value that was decoded into an interface."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "bool"
    words: tuple[tuple[Any, str], ...] = (
        (dict, "map[string]interface {}"),
        (list, "[]interface {}"),
        (str, "string"),
        ((int, float), "float64"),
    )
    return next(word for kind, word in words if isinstance(value, kind))


def fault_of(text: str) -> str:
    """Return what json.Unmarshal says about a text, "" when it is JSON."""
    scan = _Scanner(text)
    try:
        scan.value("looking for beginning of value")
        scan.space()
        if scan.at < len(text):
            raise scan.invalid("after top-level value")
    except _Wrong as wrong:
        return str(wrong)
    return ""


def _quote(char: str) -> str:
    if char == "'":
        return "'\\''"
    if char == '"':
        return "'\"'"
    # The scanner stops at a byte, and shows that as if it were a character.
    byte = chr(char.encode("utf-8", "surrogatepass")[0])
    return repr(byte) if byte != "\\" else "'\\\\'"


class _Scanner:
    """Walks a text and stops at the character Go's scanner stops at."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.depth = text, 0, 0

    def invalid(self, context: str) -> _Wrong:
        if self.at >= len(self.text):
            return _Wrong("unexpected end of JSON input")
        return _Wrong(f"invalid character {_quote(self.text[self.at])} {context}")

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def space(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in _SPACE:
            self.at += 1

    def value(self, context: str) -> None:
        self.space()
        char = self.peek()
        if char in ("{", "["):
            self.depth += 1
            if self.depth > DEEPEST:
                raise _Wrong("exceeded max depth")
            if char == "{":
                self.members()
            else:
                self.items()
            self.depth -= 1
        elif char == '"':
            self.string()
        elif char in _LITERALS and char:
            self.literal(_LITERALS[char])
        elif char == "-" or char in _DIGITS:
            self.number()
        else:
            raise self.invalid(context)

    def members(self) -> None:
        self.at += 1
        self.space()
        if self.peek() == "}":
            self.at += 1
            return
        while True:
            self.space()
            if self.peek() != '"':
                raise self.invalid("looking for beginning of object key string")
            self.string()
            self.space()
            if self.peek() != ":":
                raise self.invalid("after object key")
            self.at += 1
            self.value("looking for beginning of value")
            self.space()
            if self.peek() == "}":
                self.at += 1
                return
            if self.peek() != ",":
                raise self.invalid("after object key:value pair")
            self.at += 1

    def items(self) -> None:
        self.at += 1
        self.space()
        if self.peek() == "]":
            self.at += 1
            return
        while True:
            self.value("looking for beginning of value")
            self.space()
            if self.peek() == "]":
                self.at += 1
                return
            if self.peek() != ",":
                raise self.invalid("after array element")
            self.at += 1

    def string(self) -> None:
        self.at += 1
        while (char := self.peek()) != '"':
            if not char or char < " ":
                raise self.invalid("in string literal")
            self.at += 1
            if char == "\\":
                escape = self.peek()
                if not escape or escape not in _ESCAPES:
                    raise self.invalid("in string escape code")
                self.at += 1
                for _ in range(4 if escape == "u" else 0):
                    if self.peek() not in tuple("0123456789abcdefABCDEF"):
                        raise self.invalid("in \\u hexadecimal character escape")
                    self.at += 1
        self.at += 1

    def literal(self, word: str) -> None:
        for number, char in enumerate(word):
            if self.peek() != char:
                raise self.invalid(f"in literal {word} (expecting {_quote(word[number])})")
            self.at += 1

    def digits(self, context: str) -> None:
        if self.peek() not in _DIGITS:
            raise self.invalid(context)
        while self.peek() in _DIGITS:
            self.at += 1

    def number(self) -> None:
        if self.peek() == "-":
            self.at += 1
            if self.peek() not in _DIGITS:
                raise self.invalid("in numeric literal")
        if self.peek() == "0":
            self.at += 1
        else:
            self.digits("in numeric literal")
        if self.peek() == ".":
            self.at += 1
            self.digits("after decimal point in numeric literal")
        if self.peek() and self.peek() in "eE":
            self.at += 1
            if self.peek() and self.peek() in "+-":
                self.at += 1
            self.digits("in exponent of numeric literal")
