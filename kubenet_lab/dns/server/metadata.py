"""The `metadata` plugin (https://coredns.io/plugins/metadata/): lets plugins tell others what they know of a query."""

from __future__ import annotations

from kubenet_lab.dns.server.corefile import Controller
from kubenet_lab.dns.server.plugin import Plugin


class Metadata(Plugin):
    """Passes every query on: what it collects is only read by logs and rules that name it."""

    name = "metadata"

    @classmethod
    def setup(cls, controller: Controller) -> Metadata:
        """Read the stanza: [ZONES...]. Raises CorefileError."""
        c = controller
        while c.next():
            c.args()
            if c.next_block():
                raise c.arg_error()
        return cls()
