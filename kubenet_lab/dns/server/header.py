"""The `header` plugin (https://coredns.io/plugins/header/): flags of queries and answers set or cleared."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.dns.records import Response
from kubenet_lab.dns.server.corefile import Controller, CorefileError
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request

FLAGS = ("aa", "ra", "rd")


class Rule(Struct, frozen=True):
    """One flag of a header ("aa", "ra" or "rd") and the value it gets."""

    flag: str
    value: bool


class Header(Plugin):
    """Applies `query` rules before the rest of the chain and `response` rules after it."""

    name = "header"

    def __init__(self, queries: tuple[Rule, ...], responses: tuple[Rule, ...]) -> None:
        self.queries = queries
        self.responses = responses

    def serve(self, request: Request) -> Response | Failure:
        """Change the query, pass on, change the answer."""
        for rule in self.queries:
            if rule.flag == "rd":
                request.query = replace(request.query, rd=rule.value)
        answer = self.pass_on(request)
        if isinstance(answer, Failure):
            return answer
        for rule in self.responses:
            if rule.flag == "aa":
                answer = replace(answer, aa=rule.value)
            elif rule.flag == "ra":
                answer = replace(answer, ra=rule.value)
            else:
                answer = replace(answer, rd=rule.value)
        return answer

    @classmethod
    def setup(cls, controller: Controller) -> Header:
        """Read the stanza. Raises CorefileError."""
        c = controller
        rules: dict[str, list[Rule]] = {"query": [], "response": []}
        while c.next():
            if c.args():
                raise c.arg_error()
            while c.next_block():
                which = c.value
                if which not in rules:
                    raise CorefileError(f"setting up rule: unknown/unsupported selector={which}")
                words = c.args()
                if len(words) < 2:
                    raise CorefileError(
                        "setting up rule: invalid length for flags, at least one should be provided"
                    )
                if words[0].lower() not in ("set", "clear"):
                    raise CorefileError(
                        f"setting up rule: unknown flag action={words[0]}, should be set or clear"
                    )
                for flag in words[1:]:
                    if flag.lower() not in FLAGS:
                        raise CorefileError(f"setting up rule: unknown/unsupported flag={flag}")
                    rules[which].append(Rule(flag.lower(), words[0].lower() == "set"))
        return cls(tuple(rules["query"]), tuple(rules["response"]))
