"""The `health` plugin (https://coredns.io/plugins/health/): HTTP 200 on :8080 while the process lives."""

from __future__ import annotations

from kubenet_lab.dns.server.corefile import Controller, CorefileError, check_address, duration, port_of
from kubenet_lab.dns.server.plugin import Plugin

PORT = 8080


class Health(Plugin):
    """Serves no queries: it sets the environment's `lameduck`, seconds of service after SIGTERM."""

    name = "health"

    @classmethod
    def setup(cls, controller: Controller) -> None:
        """Read the stanza. Raises CorefileError."""
        from kubenet_lab.dns.server.coredns import Environment

        c = controller
        while c.next():
            args = c.args()
            if len(args) > 1:
                raise c.arg_error()
            assert isinstance(c.environment, Environment)
            c.environment.http["health"] = port_of(check_address(args[0])) if args else PORT
            while c.next_block():
                if c.value != "lameduck":
                    raise c.error(f"unknown property '{c.value}'")
                words = c.args()
                if len(words) != 1:
                    raise c.arg_error()
                try:
                    seconds = duration(words[0])
                except CorefileError as error:
                    raise CorefileError(
                        f"unable to parse lameduck duration value: '{words[0]}' : {error}"
                    ) from None
                c.environment.lameduck = seconds
