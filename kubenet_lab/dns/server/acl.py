"""The `acl` plugin (https://coredns.io/plugins/acl/): who may ask what; the first rule that fits decides."""

from __future__ import annotations

import ipaddress

from msgspec import Struct

from kubenet_lab.dns.names import is_subdomain
from kubenet_lab.dns.records import Edns, Response, reply, type_number
from kubenet_lab.dns.server.corefile import Controller
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request

BLOCKED, FILTERED = b"\x00\x0f", b"\x00\x11"
"""Extended DNS Errors (RFC 8914): 15 "Blocked" goes with REFUSED, 17 "Filtered" with an empty answer."""
_EDE = 15
ACTIONS = ("allow", "block", "filter", "drop")
_PAYLOAD = 4096
"""What CoreDNS announces in an OPT record of its own making."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Policy(Struct, frozen=True):
    """One line: an action, and the types and networks it is for; () is any."""

    action: str
    types: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()

    def fits(self, kind: str, client: str) -> bool:
        """Is the policy for this type of question from this address?"""
        if self.types and kind not in self.types:
            return False
        if not self.networks:
            return True
        address = ipaddress.ip_address(client)
        return any(address in network for network in self.networks)


class Rule(Struct, frozen=True):
    """The policies of some zones."""

    zones: tuple[str, ...]
    policies: tuple[Policy, ...]


class Acl(Plugin):
    """Lets through, refuses, answers empty, or stays silent."""

    name = "acl"

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules

    def serve(self, request: Request) -> Response | Failure:
        """Let the first policy of each rule decide; the first rule that does not allow ends it."""
        query = request.query
        for rule in self.rules:
            if not any(is_subdomain(zone, request.name) for zone in rule.zones):
                continue
            action = next((p.action for p in rule.policies if p.fits(query.type, request.client)), "allow")
            if action == "drop":
                return Failure("NOERROR", silent=True)
            if action == "block":
                return reply(query, "REFUSED", edns=Edns(_PAYLOAD, True, 0, ((_EDE, BLOCKED),)))
            if action == "filter":
                return reply(query, edns=Edns(_PAYLOAD, True, 0, ((_EDE, FILTERED),)))
        return self.pass_on(request)

    @classmethod
    def setup(cls, controller: Controller) -> Acl:
        """Read the stanza. Raises CorefileError."""
        c = controller
        rules: list[Rule] = []
        while c.next():
            zones = c.zones_or(c.args())
            policies: list[Policy] = []
            while c.next_block():
                policies.append(_policy(c))
            rules.append(Rule(zones, tuple(policies)))
        return cls(tuple(rules))


def _policy(c: Controller) -> Policy:
    action = c.value
    if action not in ACTIONS:
        raise c.error(f"unexpected token {_quoted(action)}; expect 'allow', 'block', 'filter' or 'drop'")
    words = c.args()
    types: list[str] = []
    networks: list[Network] = []
    any_type = any_network = False
    section = ""
    for word in words:
        if word in ("type", "net"):
            section = word
        elif section == "type":
            if word == "*":
                any_type = True
                continue
            try:
                type_number(word)
            except KeyError:
                raise c.error(f"unexpected token {_quoted(word)}; expect legal QTYPE") from None
            types.append(word)
        elif section == "net":
            if word == "*":
                any_network = True
                continue
            try:
                networks.append(ipaddress.ip_network(word, strict=False))
            except ValueError:
                raise c.error(f"illegal CIDR notation {_quoted(word)}") from None
        else:
            raise c.error(f"unexpected token {_quoted(word)}; expect 'type | net'")
    return Policy(action, () if any_type else tuple(types), () if any_network else tuple(networks))


def _quoted(word: str) -> str:
    from json import dumps

    return dumps(word)
