"""The `log` plugin (https://coredns.io/plugins/log/): a line a query, in a format made of `{words}`."""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec import Struct

from kubenet_lab.dns.names import absolute, is_subdomain
from kubenet_lab.dns.records import MIN_UDP_SIZE, Response, reply
from kubenet_lab.dns.server.corefile import Controller, CorefileError
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request
from kubenet_lab.dns.server.response import classify

COMMON = (
    '{remote}:{port} - {>id} "{type} {class} {name} {proto} {size} {>do} {>bufsize}" '
    "{rcode} {>rflags} {rsize} {duration}"
)
COMBINED = COMMON + ' "{>opcode}"'
_CLASSES = ("all", "success", "denial", "error")
_WORD = re.compile(r"\{[^{}]*\}")


class Rule(Struct, frozen=True):
    """Queries below `zone` whose answer is of one of `classes` are written in `format`."""

    zone: str = "."
    format: str = COMMON
    classes: tuple[str, ...] = ("all",)


class Log(Plugin):
    """Logs queries by its rules; the first rule for a name counts."""

    name = "log"

    def __init__(self, rules: tuple[Rule, ...], output: Callable[[str], None]) -> None:
        self.rules = rules
        self.output = output

    def serve(self, request: Request) -> Response | Failure:
        """Pass on; log what was said."""
        rule = next((each for each in self.rules if is_subdomain(each.zone, request.name)), None)
        answer = self.pass_on(request)
        if rule is None:
            return answer
        shown = (
            reply(request.query, answer.rcode, delay=answer.delay) if isinstance(answer, Failure) else answer
        )
        if "all" in rule.classes or _class(shown) in rule.classes:
            self.output("[INFO] " + line(rule.format, request, shown))
        return answer

    @classmethod
    def setup(cls, controller: Controller) -> Log:
        """Read the stanza. Raises CorefileError."""
        from kubenet_lab.dns.server.coredns import Environment

        environment = controller.environment
        assert isinstance(environment, Environment)
        return cls(tuple(_parse(controller)), environment.output)


def line(form: str, request: Request, answer: Response) -> str:
    """`form` with every word replaced; an unknown word becomes "-", as CoreDNS does."""
    query = request.query
    size = query.edns.payload if query.edns is not None else MIN_UDP_SIZE
    flags = answer.flags.split()
    values: dict[str, object] = {
        "remote": f"[{request.client}]" if ":" in request.client else request.client,
        "port": request.port,
        "local": "[::]",
        ">id": query.id,
        "type": query.type,
        "class": query.cls,
        "name": request.name,
        "proto": request.protocol,
        "size": query.wire_length,
        ">do": "true" if query.edns is not None and query.edns.do else "false",
        ">bufsize": 65535 if request.protocol == "tcp" else max(size, MIN_UDP_SIZE),
        ">opcode": 0 if query.opcode == "QUERY" else query.opcode,
        "rcode": answer.rcode,
        ">rflags": ",".join(flags),
        "rsize": answer.wire_length,
        "duration": f"{answer.delay + request.elapsed:.9f}s",
    }
    return _WORD.sub(lambda found: str(values.get(found[0][1:-1], "-")), form)


def _class(answer: Response) -> str:
    kind = classify(answer)
    if kind in ("success", "delegation"):
        return "success"
    return "denial" if kind in ("nxdomain", "nodata") else "error"


def _parse(c: Controller) -> list[Rule]:
    rules: list[Rule] = []
    while c.next():
        args = c.args()
        form = COMMON
        if len(args) > 1 and "{" in args[-1]:
            form = args.pop().replace("{common}", COMMON).replace("{combined}", COMBINED)
        classes: list[str] = []
        while c.next_block():
            if c.value != "class":
                raise c.error(f"unknown property '{c.value}'")
            words = c.args()
            if not words:
                raise c.arg_error()
            for word in words:
                if word not in _CLASSES:
                    raise CorefileError(f"invalid Class: {word}")
            classes += words
        rules += [Rule(absolute(zone).lower(), form, tuple(classes) or ("all",)) for zone in args or ["."]]
    return rules
