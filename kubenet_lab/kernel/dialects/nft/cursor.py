"""Where a reader of nft's text stands: the tokens, and the words every part of the grammar takes from them."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

from kubenet_lab.kernel.dialects.nft.scanner import END, tokens
from kubenet_lab.kernel.nftables.ruleset import Edit


class SyntaxFault(Exception):
    """A text that nft refuses. `index` is the number of the token it is about."""

    def __init__(self, message: str, index: int, help: str = "") -> None:
        super().__init__(message)
        self.message, self.index, self.help = message, index, help


class Cursor:
    """The tokens of a text and a place among them; what the text changes, and the table it is in."""

    def __init__(
        self,
        text: str,
        edit: Edit,
        defines: dict[str, str] | None = None,
        on_list: Callable[[list[str]], None] | None = None,
    ) -> None:
        self.words = tokens(text)
        self.at = 0
        self.edit = edit
        self.defines: dict[str, list[str]] = {k: tokens(v)[:-1] for k, v in (defines or {}).items()}
        self.on_list = on_list
        self.family = "ip"
        self.table = ""

    @property
    def word(self) -> str:
        """The next token; a `$name` is opened here."""
        word = self.words[self.at]
        if word == "$":
            self._open_variable()
            return self.word
        return word

    def _open_variable(self) -> None:
        name = self.words[self.at + 1]
        value = self.defines.get(name)
        if value is None:
            near = get_close_matches(name, list(self.defines), 1)
            hint = f"; did you mean identifier ‘{near[0]}’?" if near else ""
            raise SyntaxFault(f"unknown identifier '{name}'{hint}", self.at + 1)
        self.words[self.at : self.at + 2] = value

    def peek(self, ahead: int = 1) -> str:
        """Return a later token."""
        index = self.at + ahead
        return self.words[index] if index < len(self.words) else END

    def take(self) -> str:
        """Return the next token and go on."""
        word = self.word
        self.at += 1
        return word

    def try_take(self, *words: str) -> bool:
        """Go on when the next token is one of these."""
        if self.word in words:
            self.at += 1
            return True
        return False

    def expect(self, *words: str) -> str:
        """Take one of these tokens, or refuse the text."""
        if self.word not in words:
            raise self.unexpected(words[0] if len(words) == 1 else "")
        return self.take()

    def unexpected(self, wanted: str = "") -> SyntaxFault:
        """Return the fault for a token that cannot stand here."""
        word = self.word
        shown = {"\n": "newline", END: "end of file", ",": "comma", ":": "colon", ".": "."}.get(word, word)
        names = {":": "colon", ",": "comma", "{": "'{'", "}": "'}'"}
        tail = f", expecting {names.get(wanted, wanted)}" if wanted else ""
        return SyntaxFault(f"syntax error, unexpected {shown}{tail}", self.at)

    def fault(self, message: str, help: str = "", back: int = 1) -> SyntaxFault:
        """Return a fault about the token taken last."""
        return SyntaxFault(message, max(0, self.at - back), help)

    def newlines(self) -> None:
        """Skip newlines."""
        while self.words[self.at] == "\n":
            self.at += 1

    def separators(self) -> None:
        """Skip newlines and semicolons."""
        while self.words[self.at] in ("\n", ";"):
            self.at += 1

    def identifier(self) -> str:
        """Take a name."""
        word = self.word
        if not word or not (word[0].isalpha() or word[0] in "_."):
            raise self.unexpected("string")
        self.at += 1
        return word

    def string(self) -> str:
        """Take a name or a quoted text."""
        word = self.take()
        if word[:1] == '"':
            return word[1:-1]
        if not word or word in "\n;{}":
            self.at -= 1
            raise self.unexpected("string")
        return word

    def number(self) -> int:
        """Take a number, decimal or hexadecimal."""
        word = self.word
        try:
            found = int(word, 16) if word[:2] in ("0x", "0X") else int(word)
        except ValueError:
            raise self.unexpected("number") from None
        self.at += 1
        return found

    def _comment(self) -> str:
        text = self.string()
        if len(text) > 128:
            raise self.fault("comment too long, 128 characters maximum allowed")
        return text

    def _end(self) -> None:
        """The end of a line in a block."""
        if self.words[self.at] not in ("\n", ";", "}"):
            raise self.unexpected()

    def _skip_rule(self) -> None:
        depth = 0
        while depth or self.words[self.at] not in ("\n", ";", "}"):
            word = self.words[self.at]
            if word == END:
                raise self.unexpected("'}'")
            depth += {"{": 1, "}": -1}.get(word, 0)
            self.at += 1
