"""The `bind` plugin (https://coredns.io/plugins/bind/): addresses the server listens on."""

from __future__ import annotations

from kubenet_lab.dns.names import parse_ip
from kubenet_lab.dns.server.corefile import Controller, CorefileError
from kubenet_lab.dns.server.plugin import Plugin


class Bind(Plugin):
    """Serves no queries; the block answers only what comes to one of its addresses."""

    name = "bind"

    @classmethod
    def setup(cls, controller: Controller) -> None:
        """Read the stanza. Raises CorefileError for an address or interface this host does not have."""
        from kubenet_lab.dns.server.coredns import environment_of

        c = controller
        environment = environment_of(c)
        local = {"127.0.0.1", "::1", "0.0.0.0", "::", *environment.local_ips}
        found: list[str] = []
        while c.next():
            words = c.args()
            if not words:
                raise CorefileError("at least one address or interface name is expected")
            for word in words:
                if word in environment.interfaces:
                    found += environment.interfaces[word]
                elif not parse_ip(word):
                    raise CorefileError(f'not a valid IP address or interface name: "{word}"')
                else:
                    found.append(parse_ip(word))
            while c.next_block():
                if c.value != "except":
                    raise c.error(f"invalid option {c.value!r}")
                without = c.args()
                found = [each for each in found if each not in without]
        environment.binds[c.zones] = tuple(found)
        environment.unbound += [each for each in found if each not in local and not each.startswith("127.")]
