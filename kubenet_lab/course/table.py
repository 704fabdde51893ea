"""The small table that many a cell shows."""

from __future__ import annotations

from html import escape

from msgspec import Struct


class Table(Struct, frozen=True):
    """Rows of words under heads, as text and as HTML.

    With `numbers`, all columns but the first stand to the right.
    """

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""
    note: str = ""
    numbers: bool = False

    def __str__(self) -> str:
        lines = (self.heads, *self.rows)
        wide = [max(len(line[i]) for line in lines) for i in range(len(self.heads))]
        out = [
            "  ".join(
                word.rjust(width) if column and self.numbers else word.ljust(width)
                for column, (word, width) in enumerate(zip(line, wide, strict=True))
            ).rstrip()
            for line in lines
        ]
        if self.title:
            out = [self.title, *("  " + line for line in out)]
        return "\n".join([*out, *([self.note] if self.note else [])])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        def line(tag: str, words: tuple[str, ...]) -> str:
            cells = ""
            for column, word in enumerate(words):
                side = "right" if column and self.numbers else "left"
                style = f"text-align:{side};vertical-align:top;padding:4px 10px"
                if " " not in word and len(word) <= 24:
                    style += ";white-space:nowrap"  # A name such as node-1 stays whole.
                cells += f'<{tag} style="{style}">{escape(word)}</{tag}>'
            return f"<tr>{cells}</tr>"

        title = f"<p><b>{escape(self.title)}</b></p>" if self.title else ""
        body = line("th", self.heads) + "".join(line("td", row) for row in self.rows)
        note = f'<p style="max-width:900px">{escape(self.note)}</p>' if self.note else ""
        return f"{title}<table>{body}</table>{note}"
