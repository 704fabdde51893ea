"""A Corefile read as CoreDNS reads it, refused with CoreDNS's own words (https://coredns.io/manual/configuration/).

Three layers, as in the real thing: words with their lines, server blocks with their directives, and a
`Controller` each plugin takes its stanza from. What real CoreDNS silently accepts (a server for the zone
"errors", a stray brace that becomes the zone "}") is accepted here too.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Mapping

from msgspec import Struct

from kubenet_lab.dns.names import absolute
from kubenet_lab.errors import KubenetLabError

KUBEADM = """.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
"""
"""The Corefile kubeadm 1.37 writes into ConfigMap kube-system/coredns, for the domain cluster.local."""

PATH = "/etc/coredns/Corefile"
_PORTS = {"dns": "53", "tls": "853", "quic": "853", "grpc": "443", "https": "443", "https3": "443"}
_MAX_IMPORTS = 10000


class CorefileError(KubenetLabError):
    """A Corefile CoreDNS would refuse; `str()` is what it prints before it exits 1.

    `line` is where reading stopped, also where the message itself names none; 0 when that is unknown.
    """

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


class Token(Struct, frozen=True):
    """A word, the line it began on, its file, and how many line breaks it holds (if it was quoted)."""

    text: str
    line: int
    file: str = PATH

    @property
    def last_line(self) -> int:
        """The line it ends on."""
        return self.line + self.text.count("\n")


class ServerBlock(Struct):
    """Keys as written, and each directive's words in the order they were written."""

    keys: list[str]
    directives: dict[str, list[Token]]


class Zone(Struct, frozen=True):
    """What one key of a block serves: `str()` is how CoreDNS prints it."""

    name: str
    port: str
    transport: str = "dns"

    def __str__(self) -> str:
        return f"{self.transport}://{self.name}:{self.port}"


def tokenize(text: str, file: str = PATH) -> list[Token]:
    """Words of a Corefile: split at blanks, `"` quotes, `#` begins a comment wherever it stands."""
    tokens: list[Token] = []
    word: list[str] = []
    line, start = 1, 1
    quoted = escaped = comment = False
    for char in text.removeprefix("\ufeff"):
        if quoted:
            if not escaped and char == "\\":
                escaped = True
                continue
            if not escaped and char == '"':
                quoted = False
                tokens.append(Token("".join(word), start, file))
                word = []
                continue
            if char == "\n":
                line += 1
            if escaped and char != '"':
                word.append("\\")
            word.append(char)
            escaped = False
            continue
        if char.isspace():
            if char == "\r":
                continue
            if word:
                tokens.append(Token("".join(word), start, file))
                word = []
            if char == "\n":
                line += 1
                comment = False
            continue
        if char == "#":
            comment = True
        if comment:
            continue
        if not word:
            start = line
            if char == '"':
                quoted = True
                continue
        word.append(char)
    if word:
        tokens.append(Token("".join(word), start, file))
    return tokens


class Cursor:
    """A position in a list of words, with CoreDNS's notion of "same line" and "block"."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.at = -1
        self.nesting = 0

    @property
    def value(self) -> str:
        """The word here; "" before the first and after the last."""
        return self.tokens[self.at].text if 0 <= self.at < len(self.tokens) else ""

    @property
    def line(self) -> int:
        """The line of the word here; 0 if there is none."""
        return self.tokens[self.at].line if 0 <= self.at < len(self.tokens) else 0

    def next(self) -> bool:
        """Go to the next word."""
        if self.at < len(self.tokens) - 1:
            self.at += 1
            return True
        return False

    def next_arg(self) -> bool:
        """Go to the next word if it is on the same line."""
        if self.at < 0:
            self.at += 1
            return True
        if self.at < len(self.tokens) - 1 and self._joined(self.at):
            self.at += 1
            return True
        return False

    def next_block(self) -> bool:
        """Step through the lines of a `{ ... }` block; the brace must open on the same line."""
        if self.nesting:
            self.next()
            if self.value == "}":
                self.nesting -= 1
                return False
            return True
        if not self.next_arg():
            return False
        if self.value != "{":
            self.at -= 1
            return False
        self.next()
        if self.value == "}":
            return False
        self.nesting += 1
        return True

    def args(self) -> list[str]:
        """The rest of this line, up to an opening brace."""
        found: list[str] = []
        while self.next_arg():
            if self.value == "{":
                self.at -= 1
                break
            found.append(self.value)
        return found

    def is_new_line(self) -> bool:
        """Is the word here the first of its line?"""
        return self.at < 1 or not self._joined(self.at - 1)

    def _joined(self, index: int) -> bool:
        first, second = self.tokens[index], self.tokens[index + 1]
        return first.file == second.file and first.last_line == second.line

    def error(self, message: str) -> CorefileError:
        """The error of a bad word: `FILE:LINE - Error during parsing: MESSAGE`."""
        return CorefileError(f"{self._file}:{self.line} - Error during parsing: {message}", self.line)

    def arg_error(self) -> CorefileError:
        """The error of too few or too many words."""
        if self.value == "{":
            return self.error("Unexpected token '{', expecting argument")
        return self.error(f"Wrong argument count or unexpected line ending after '{self.value}'")

    def syntax_error(self, expected: str) -> CorefileError:
        """The error of a brace that is missing."""
        return CorefileError(
            f"{self._file}:{self.line} - Syntax error: Unexpected token '{self.value}', "
            f"expecting '{expected}'",
            self.line,
        )

    @property
    def _file(self) -> str:
        return self.tokens[self.at].file if 0 <= self.at < len(self.tokens) else PATH


class Controller(Cursor):
    """A plugin's stanza: all lines of one directive in one server block, and what the plugin may look at.

    Attributes:
        zones: Zones of the server block, normalised.
        files: Files of the machine by path.
        environment: The things plugins are made of; see `coredns.Environment`.
    """

    def __init__(
        self, tokens: list[Token], zones: tuple[str, ...], environment: object, files: Mapping[str, str]
    ) -> None:
        super().__init__(tokens)
        self.zones = zones
        self.environment = environment
        self.files = files

    def zones_or(self, args: list[str]) -> tuple[str, ...]:
        """The zones in `args`, or the block's own if there are none."""
        return tuple(zone for arg in args for zone in normalize(arg)) if args else self.zones

    def fallthrough(self, args: list[str]) -> tuple[str, ...]:
        """The zones after `fallthrough`: the root, which holds every name, if there are none."""
        return tuple(zone for arg in args or ["."] for zone in normalize(arg))

    def ttl(self, args: list[str]) -> int:
        """The seconds after `ttl` in the stanzas that know Kubernetes. Raises CorefileError."""
        if not args:
            raise self.arg_error()
        ttl = integer(args[0])
        if not 0 <= ttl <= 3600:
            raise self.error(f"ttl must be in range [0, 3600]: {ttl}")
        return ttl


def parse(
    text: str,
    directives: tuple[str, ...] | None,
    files: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
) -> list[ServerBlock]:
    """The server blocks of a Corefile. Raises CorefileError.

    `directives` are the words CoreDNS knows (None: any word will do), `files` what `import` may read, `variables` the
    environment.
    """
    return _Parser(tokenize(text), directives, files or {}, variables or {}).parse()


class _Parser(Cursor):
    def __init__(
        self,
        tokens: list[Token],
        directives: tuple[str, ...] | None,
        files: Mapping[str, str],
        variables: Mapping[str, str],
    ) -> None:
        super().__init__(tokens)
        self.directives = None if directives is None else frozenset(directives)
        self.files = files
        self.variables = variables
        self.snippets: dict[str, list[Token]] = {}
        self.imports = 0
        self.ended = False
        self.block = ServerBlock([], {})

    def parse(self) -> list[ServerBlock]:
        blocks: list[ServerBlock] = []
        while self.next():
            self.block = ServerBlock([], {})
            self._one()
            if self.block.keys:
                blocks.append(self.block)
        return blocks

    def _one(self) -> None:
        self._addresses()
        if self.ended:
            return
        keys = self.block.keys
        if len(keys) == 1 and keys[0].startswith("(") and keys[0].endswith(")"):
            name = keys[0][1:-1]
            if name in self.snippets:
                raise self.error(f"redeclaration of previously declared snippet {name}")
            self.snippets[name] = self._snippet()
            self.block.keys = []
            return
        braces = self.value == "{"
        if not braces:
            # A file with one server needs no braces.
            self.at -= 1
        self._directives()
        if braces and self.value != "}":
            raise self.syntax_error("}")

    def _addresses(self) -> None:
        another = False
        while True:
            word = self._expand(self.value)
            if word == "import" and self.is_new_line():
                self._import()
                if not self.next():
                    self.ended = True
                    return
                continue
            if word == "{":
                if another:
                    raise self.error(f"Expected another address but had '{word}' - check for extra comma")
                return
            if word:
                another = word.endswith(",")
                self.block.keys.append(word[:-1] if another else word)
            more = self.next()
            if another and not more:
                raise self.error("Unexpected EOF")
            if not more:
                self.ended = True
                return
            if not another and self.is_new_line():
                return

    def _directives(self) -> None:
        while self.next():
            if self.value == "}":
                return
            if self.value == "import":
                self._import()
                continue
            self._directive()

    def _directive(self) -> None:
        name = self._expand(self.value)
        if self.directives is not None and name not in self.directives:
            raise self.error(f"Unknown directive '{name}'")
        words = self.block.directives.setdefault(name, [])
        words.append(self.tokens[self.at])
        depth = 0
        while self.next():
            if self.value == "{":
                depth += 1
            elif self.is_new_line() and not depth:
                self.at -= 1
                break
            elif self.value == "}" and depth:
                depth -= 1
            elif self.value == "}":
                raise self.error("Unexpected '}' because no matching opening brace")
            elif self.value == "import" and self.is_new_line():
                self._import()
                continue
            token = self.tokens[self.at]
            words.append(Token(self._expand(token.text), token.line, token.file))
        if depth:
            raise self.error("Unexpected EOF")

    def _import(self) -> None:
        """Replace `import WHAT` by the words it names, and stand just before them."""
        if not self.next_arg():
            raise self.arg_error()
        pattern = self._expand(self.value)
        if not pattern:
            raise self.error("Import requires a non-empty filepath")
        if self.next_arg():
            raise self.error("Import takes only one argument (glob pattern or file)")
        if pattern in self.snippets:
            self.imports += 1
            if self.imports > _MAX_IMPORTS:
                raise self.error(f"maximum snippet import depth ({_MAX_IMPORTS}) exceeded")
            words = self.snippets[pattern]
        else:
            names = sorted(_matching(self.files, pattern))
            if not names and not any(char in pattern for char in "*?[]"):
                raise self.error(f"File to import not found: {pattern}")
            words = [token for name in names for token in tokenize(self.files[name], name)]
        self.tokens[self.at - 1 : self.at + 1] = words
        self.at -= 2

    def _snippet(self) -> list[Token]:
        if self.value != "{":
            raise self.syntax_error("{")
        depth = 1
        words: list[Token] = []
        while self.next():
            if self.value == "}":
                depth -= 1
                if not depth:
                    return words
            if self.value == "{":
                depth += 1
            words.append(self.tokens[self.at])
        raise self.syntax_error("}")

    def _expand(self, text: str) -> str:
        """`{$NAME}` and `{%NAME%}` are environment variables; an unset one is empty."""
        if "{" not in text:
            return text
        return re.sub(
            r"\{\$([^}]*)\}|\{%([^}]*)%\}",
            lambda found: self.variables.get(found[1] or found[2] or "", ""),
            text,
        )


def _matching(files: Mapping[str, str], pattern: str) -> list[str]:
    """The files a pattern names. What cannot be listed (a real machine's) says it itself."""
    matching = getattr(files, "matching", None)
    if matching is not None:
        return list(matching(pattern))
    return [name for name in files if fnmatch.fnmatchcase(name, pattern)]


def split_host_port(text: str) -> tuple[list[str], str]:
    """The zones a key stands for (several for a network that ends inside an octet) and its port, or "".

    Raises CorefileError.
    """
    colon = text.rfind(":")
    if text and colon == len(text) - 1:
        raise CorefileError(f'expecting data after last colon: "{text}"')
    port = ""
    if colon >= 0 and re.fullmatch(r"[+-]?\d+", text[colon + 1 :]):
        port = str(int(text[colon + 1 :]))
        text = text[:colon]
    if len(text) > 255:
        raise CorefileError(f"specified zone is too long: {len(text)} > 255")
    if not _is_domain_name(text):
        raise CorefileError(f"zone is not a valid domain name: {text}")
    try:
        network = ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        network = None
    if network is None:
        return [text], port
    step = 8 if network.version == 4 else 4
    prefix = -(-network.prefixlen // step) * step
    hosts = []
    for each in network.subnets(new_prefix=prefix):
        parts = each.network_address.reverse_pointer.split(".")
        hosts.append(".".join(parts[(network.max_prefixlen - prefix) // step :]) + ".")
    return hosts, port


def _is_domain_name(text: str) -> bool:
    if not text:
        return False
    body = text[:-1] if text.endswith(".") else text
    if not body:
        return True
    if any(not part or len(part.encode()) > 63 for part in body.split(".")):
        return False
    return len(body.encode()) < 255


def transport_of(text: str) -> tuple[str, str]:
    """("dns", rest) or the scheme the text begins with."""
    for scheme in ("tls", "dns", "quic", "grpc", "https3", "https", "unix"):
        if text.startswith(f"{scheme}://"):
            return scheme, text[len(scheme) + 3 :]
    return "dns", text


def normalize(text: str) -> list[str]:
    """The zone names a word stands for, absolute and lower case; none if it is no zone."""
    try:
        hosts, _ = split_host_port(transport_of(text)[1])
    except CorefileError:
        return []
    return [absolute(host).lower() for host in hosts]


def zones_of(block: ServerBlock, default_port: str = "53") -> list[Zone]:
    """What a block's keys serve. Raises CorefileError for a key that is no zone or port."""
    zones: list[Zone] = []
    for key in block.keys:
        transport, rest = transport_of(key)
        try:
            hosts, port = split_host_port(rest)
        except CorefileError as error:
            raise CorefileError(f"error inspecting server blocks: {error}") from None
        port = port or (default_port if transport == "dns" else _PORTS[transport])
        zones += [Zone(absolute(host).lower(), port, transport) for host in hosts]
    return zones


_DURATION = re.compile(r"([0-9]*\.?[0-9]*)(ns|us|µs|μs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration(text: str) -> float:
    """Seconds of a Go duration ("5s", "1m30s"). Raises CorefileError with Go's words."""
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    if re.fullmatch(r"[0-9]+\.?[0-9]*", rest):
        raise CorefileError(f'time: missing unit in duration "{text}"')
    total, at = 0.0, 0
    while at < len(rest):
        found = _DURATION.match(rest, at)
        if found is None or not any(char.isdigit() for char in found[1]):
            raise CorefileError(f'time: invalid duration "{text}"')
        total += float(found[1]) * _UNITS[found[2]]
        at = found.end()
    if not rest:
        raise CorefileError(f'time: invalid duration "{text}"')
    return sign * total


def integer(text: str, function: str = "strconv.Atoi") -> int:
    """A whole number. Raises CorefileError with Go's words."""
    if not re.fullmatch(r"[+-]?\d+", text):
        raise CorefileError(f'{function}: parsing "{text}": invalid syntax')
    return int(text)


def port_of(address: str) -> int:
    """The port of HOST:PORT; 0 for what is no number."""
    port = address.rpartition(":")[2]
    return int(port) if port.isdecimal() else 0


def check_address(text: str) -> str:
    """`text` if it is HOST:PORT or :PORT. Raises CorefileError with Go's words."""
    if ":" not in text:
        raise CorefileError(f"address {text}: missing port in address")
    return text
