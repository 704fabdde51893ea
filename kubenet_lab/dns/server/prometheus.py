"""The `prometheus` plugin (https://coredns.io/plugins/metrics/): counters over HTTP on :9153.

The directive is read; the counters are not modelled.
"""

from __future__ import annotations

from kubenet_lab.dns.server.corefile import Controller, CorefileError
from kubenet_lab.dns.server.plugin import Plugin


class Prometheus(Plugin):
    """Serves no queries."""

    name = "prometheus"

    @classmethod
    def setup(cls, controller: Controller) -> None:
        """Read the stanza. Raises CorefileError."""
        c = controller
        seen = False
        while c.next():
            if seen:
                raise CorefileError("this plugin can only be used once per Server Block")
            seen = True
            if len(c.args()) > 1:
                raise c.arg_error()
            if c.next_block():
                raise c.arg_error()
