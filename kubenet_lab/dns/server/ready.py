"""The `ready` plugin (https://coredns.io/plugins/ready/): HTTP 200 on :8181 once all plugins are ready."""

from __future__ import annotations

from kubenet_lab.dns.server.corefile import Controller, CorefileError, check_address, port_of
from kubenet_lab.dns.server.plugin import Plugin

PORT = 8181


class Ready(Plugin):
    """Serves no queries; `CoreDNS.ready()` is its answer."""

    name = "ready"

    @classmethod
    def setup(cls, controller: Controller) -> None:
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
            assert isinstance(c.environment, Environment)
            c.environment.http["ready"] = port_of(check_address(args[0])) if args else PORT
            while c.next_block():
                if c.value != "monitor":
                    raise c.error(f"unknown property '{c.value}'")
                words = c.args()
                if len(words) != 1:
                    raise c.arg_error()
                if words[0] not in ("until-ready", "continuously"):
                    raise c.error(f"monitor type '{words[0]}' not supported")
