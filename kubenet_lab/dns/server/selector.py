"""Label selectors as kubectl writes them, `a=b,c!=d,e in (f,g),!h`: options `labels`, `namespace_labels`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from kubenet_lab.dns.server.corefile import CorefileError

Matcher = Callable[[Mapping[str, str]], bool]
_WORD = re.compile(r"\s*([^\s,()=!]+|==|!=|=|!|,|\(|\))")


def matcher(text: str | None) -> Matcher | None:
    """A function that says whether labels match, or None where everything does. Raises CorefileError."""
    if text is None:
        return None
    words = _WORD.findall(text)
    tests: list[Matcher] = []
    at = 0

    def word() -> str:
        return words[at] if at < len(words) else ""

    while at < len(words):
        negated = word() == "!"
        at += negated
        key = word()
        at += 1
        operator = word()
        if operator in ("=", "==", "!="):
            value = words[at + 1] if at + 1 < len(words) and words[at + 1] != "," else ""
            at += 2 if value else 1
            same = operator != "!="
            tests.append(lambda labels, k=key, v=value, s=same: (labels.get(k) == v) is s)  # type: ignore[misc]
        elif operator in ("in", "notin"):
            at += 1
            if word() != "(":
                raise _refused(text, f"found '{word()}', expected: '('")
            at += 1
            values: set[str] = set()
            while word() != ")":
                if word() not in ("", ","):
                    values.add(word())
                    at += 1
                    if word() in (",", ")"):
                        at += word() == ","
                        continue
                raise _refused(text, f"found '{word()}', expected: ',' or ')'")
            at += 1
            among = operator == "in"
            tests.append(lambda labels, k=key, v=frozenset(values), a=among: (labels.get(k) in v) is a)  # type: ignore[misc]
        else:
            tests.append(lambda labels, k=key, n=negated: (k in labels) is not n)  # type: ignore[misc]
        if word() == ",":
            at += 1
        elif word():
            raise _refused(text, f"found '{word()}', expected: ',' or 'end of string'")
    return lambda labels: all(test(labels) for test in tests)


def _refused(text: str, why: str) -> CorefileError:
    return CorefileError(f'couldn\'t parse the selector string "{text}": unable to parse requirement: {why}')
