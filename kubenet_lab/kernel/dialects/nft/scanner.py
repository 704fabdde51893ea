"""nft's words: the text of a file or command cut into tokens, with a place for each.

nft's own scanner (scanner.l) takes the longest match; the order of the alternatives here gives the same.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""
      "[^"\n]*"
    | \[[0-9a-fA-F:.]+\]
    | (?:[0-9a-fA-F]{0,4}:){2,7}(?:\d+\.\d+\.\d+\.\d+|[0-9a-fA-F]{0,4})
    | \d+\.\d+\.\d+\.\d+
    | \d+(?:ms|[dhms])(?:\d+(?:ms|[dhms]))*(?![\w.])
    | 0[xX][0-9a-fA-F]+ | \d+
    | [A-Za-z_][\w/\\.\-]*\*? | \.[A-Za-z_][\w/\\.\-]*
    | == | != | <= | >= | << | >>
    | [{}()\[\],;:.@$=!<>&|^/*+\-\n]
    | \#[^\n]* | \\\n
    | [^\s]
    """,
    re.VERBOSE,
)

END = ""
"""The token after the last one."""


def tokens(text: str) -> list[str]:
    """Return the tokens of a text; a newline is one, a comment none."""
    found = _TOKEN.findall(text)
    if "#" in text or "\\\n" in text:
        found = [one for one in found if one[0] != "#" and one != "\\\n"]
    found.append(END)
    return found


def place(text: str, index: int) -> tuple[int, int]:
    """Return line and column, from 1, of a token by its number in `tokens(text)`."""
    number = -1
    for match in _TOKEN.finditer(text):
        word = match.group()
        if word[0] == "#" or word == "\\\n":
            continue
        number += 1
        if number == index:
            start = match.start()
            break
    else:
        start = len(text.rstrip("\n"))
    return text.count("\n", 0, start) + 1, start - (text.rfind("\n", 0, start) + 1) + 1
