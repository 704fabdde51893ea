"""The `errors` plugin (https://coredns.io/plugins/errors/): a query that fails inside leaves a line."""

from __future__ import annotations

from collections.abc import Callable

from kubenet_lab.dns.records import RCODES, Response
from kubenet_lab.dns.server.corefile import Controller, CorefileError, duration
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request


class Errors(Plugin):
    """Logs the error of a query that got no answer."""

    name = "errors"

    def __init__(self, output: Callable[[str], None]) -> None:
        self.output = output

    def serve(self, request: Request) -> Response | Failure:
        """Pass on; log what failed."""
        answer = self.pass_on(request)
        if isinstance(answer, Failure) and answer.error:
            query = request.query
            self.output(
                f"[ERROR] plugin/errors: {RCODES[answer.rcode]} {request.name} {query.type}: {answer.error}"
            )
        return answer

    @classmethod
    def setup(cls, controller: Controller) -> Errors:
        """Read the stanza. Raises CorefileError."""
        from kubenet_lab.dns.server.coredns import Environment

        c = controller
        seen = False
        while c.next():
            if seen:
                raise CorefileError("this plugin can only be used once per Server Block")
            seen = True
            args = c.args()
            if len(args) > 1:
                raise c.arg_error()
            if args and args[0] != "stdout":
                raise c.error(f"invalid log file: {args[0]}")
            while c.next_block():
                if c.value == "consolidate":
                    words = c.args()
                    if not 2 <= len(words) <= 4:
                        raise c.arg_error()
                    try:
                        duration(words[0])
                    except CorefileError as error:
                        raise c.error(str(error)) from None
                elif c.value != "stacktrace":
                    raise c.syntax_error(f"Unknown field {c.value}")
        assert isinstance(c.environment, Environment)
        return cls(c.environment.output)
