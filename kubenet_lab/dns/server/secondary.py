"""The `secondary` plugin (https://coredns.io/plugins/secondary/): zones copied from another server."""

from __future__ import annotations

from kubenet_lab.dns.server.corefile import Controller, CorefileError
from kubenet_lab.dns.server.plugin import Plugin


class Secondary(Plugin):
    """Its stanza is read, and then refused: zone transfers into this server are not modelled."""

    name = "secondary"

    @classmethod
    def setup(cls, controller: Controller) -> Secondary:
        """Read the stanza. Raises CorefileError."""
        c = controller
        while c.next():
            c.args()
            sources = 0
            while c.next_block():
                if c.value != "transfer":
                    raise c.error(f"unknown property '{c.value}'")
                words = c.args()
                sources += len(words) - 1 if words[:1] == ["from"] else 0
            if not sources:
                raise c.error("secondary zones require a transfer from property")
        raise CorefileError("transfer from: not modelled")
