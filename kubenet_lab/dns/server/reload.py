"""The `reload` plugin (https://coredns.io/plugins/reload/): the Corefile is read again every half minute.

What a reload does is `CoreDNS.reload`; this is the directive.
"""

from __future__ import annotations

from kubenet_lab.dns.server.corefile import Controller, CorefileError, duration
from kubenet_lab.dns.server.plugin import Plugin


class Reload(Plugin):
    """Serves no queries."""

    name = "reload"

    @classmethod
    def setup(cls, controller: Controller) -> None:
        """Read the stanza. Raises CorefileError."""
        from kubenet_lab.dns.server.coredns import Environment

        c = controller
        c.next()
        args = c.args()
        if len(args) > 2:
            raise c.arg_error()
        interval = duration(args[0]) if args else 30.0
        if interval < 2:
            raise CorefileError("interval value must be greater or equal to 2s")
        jitter = duration(args[1]) if len(args) > 1 else 15.0
        if jitter and jitter < 1:
            raise CorefileError("jitter value must be 0 or greater or equal to 1s")
        assert isinstance(c.environment, Environment)
        c.environment.reload = (interval, min(jitter, interval / 2))
