"""Calico's selectors: `app == 'web' && has(tier) && env in {'prod', 'stage'}`.

Two that mean the same after reading have the same canonical text, and by that the same IP set. Source:
https://docs.tigera.io/calico/latest/reference/resources/globalnetworkpolicy#selectors and
`libcalico-go/lib/selector`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from msgspec import Struct

from kubenet_lab.cni.calico.names import unique_id
from kubenet_lab.errors import InputError

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'[^']*'|\"[^\"]*\")|(?P<op>&&|\|\||==|!=|[!(){},])"
    r"|(?P<has>has\(\s*(?P<key>[a-zA-Z0-9_./-]+)\s*\))|(?P<fn>all|global)\(\s*\)"
    r"|(?P<word>not\s+in\b|in\b|contains\b|starts\s+with\b|ends\s+with\b)|(?P<label>[a-zA-Z0-9_./-]+))"
)


class Node(Struct, frozen=True):
    """A part of a selector. `op` is and, or, not, has, all, global, or a comparison's word; `values` are sorted."""

    op: str
    label: str = ""
    values: tuple[str, ...] = ()
    parts: tuple[Node, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Evaluate against labels."""
        op = self.op
        if op == "and":
            return all(part.matches(labels) for part in self.parts)
        if op == "or":
            return any(part.matches(labels) for part in self.parts)
        if op == "not":
            return not self.parts[0].matches(labels)
        if op in ("all", "global"):
            return True
        value = labels.get(self.label)
        if op == "has":
            return value is not None
        if op == "!=":
            return value != self.values[0]
        if op == "not in":
            return value not in self.values
        if value is None:
            return False
        if op in ("==", "in"):
            return value in self.values
        other = self.values[0]
        return {
            "contains": other in value,
            "starts with": value.startswith(other),
            "ends with": value.endswith(other),
        }[op]

    def __str__(self) -> str:
        op = self.op
        if op in ("and", "or"):
            word = " && " if op == "and" else " || "
            return f"({word.join(str(part) for part in self.parts)})"
        if op == "not":
            return f"!{self.parts[0]}"
        if op in ("all", "global"):
            return f"{op}()"
        if op == "has":
            return f"has({self.label})"
        quoted = [f"'{value}'" if '"' in value else f'"{value}"' for value in self.values]
        if op in ("in", "not in"):
            return f"{self.label} {op} {{{', '.join(quoted)}}}"
        return f"{self.label} {op} {quoted[0]}"

    def prefixed(self, prefix: str) -> Node:
        """Return the selector with a prefix before every label, for labels that come from a namespace."""
        label = prefix + self.label if self.label else ""
        return Node(self.op, label, self.values, tuple(part.prefixed(prefix) for part in self.parts))

    @property
    def unique_id(self) -> str:
        """Id of the IP set with everything this selects."""
        return unique_id("s", str(self))


ALL = Node("all")


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if found is None:
                raise self.wrong(f"unexpected characters at {text[at:]!r}")
            kind = found.lastgroup or ""
            kind = "has" if kind == "key" else kind
            value = found.group("key") if kind == "has" else found.group(kind)
            self.tokens.append((kind, " ".join(value.split()) if kind == "word" else value))
            at = found.end()

    def wrong(self, why: str) -> InputError:
        return InputError(f"selector {self.text!r}: {why}")

    def peek(self) -> tuple[str, str]:
        return self.tokens[0] if self.tokens else ("end", "")

    def take(self, kind: str, value: str = "") -> str:
        got = self.peek()
        if got[0] != kind or (value and got[1] != value):
            raise self.wrong(f"expected {value or kind}, not {got[1] or 'the end'}")
        self.tokens.pop(0)
        return got[1]

    def joined(self, word: str, op: str) -> Node:
        parts = [self.joined("&&", "and") if op == "or" else self.operation()]
        while self.peek() == ("op", word):
            self.take("op", word)
            parts.append(self.joined("&&", "and") if op == "or" else self.operation())
        return parts[0] if len(parts) == 1 else Node(op, parts=tuple(parts))

    def operation(self) -> Node:
        negated = False
        while self.peek() == ("op", "!"):
            self.take("op", "!")
            negated = not negated
        kind, value = self.peek()
        if kind == "op" and value == "(":
            self.take("op", "(")
            node = self.joined("||", "or")
            self.take("op", ")")
        elif kind == "has":
            node = Node("has", self.take("has"))
        elif kind == "fn":
            node = Node(self.take("fn"))
        elif kind in ("label", "word"):
            self.tokens.pop(0)
            node = self.comparison(value)
        else:
            raise self.wrong(f"unexpected {value or 'end'}")
        return Node("not", parts=(node,)) if negated else node

    def comparison(self, label: str) -> Node:
        kind, op = self.peek()
        if (kind, op) not in (("op", "=="), ("op", "!=")) and kind != "word":
            raise self.wrong(f"expected == or != after {label}")
        self.tokens.pop(0)
        if op not in ("in", "not in"):
            return Node(op, label, (self.take("text")[1:-1],))
        self.take("op", "{")
        values = []
        while self.peek()[0] == "text":
            values.append(self.take("text")[1:-1])
            if self.peek() != ("op", ","):
                break
            self.take("op", ",")
        self.take("op", "}")
        return Node(op, label, tuple(sorted(set(values))))


@lru_cache(maxsize=65536)
def parse(text: str) -> Node:
    """Read a selector; an empty one is `all()`. Raises InputError."""
    if not text.strip():
        return ALL
    reader = _Reader(text)
    node = reader.joined("||", "or")
    if reader.tokens:
        raise reader.wrong(f"unexpected content at the end: {reader.tokens[0][1]}")
    return node
