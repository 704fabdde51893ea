"""The worlds transcripts start from, each twice: as a shell script for the real kernel, and as a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kubenet_lab.kernel.network import Network


class World(NamedTuple):
    """`script` builds the real one; `build` the model; commands without a namespace run in `home`."""

    script: str
    build: Callable[[], Network]
    home: str


def one() -> Network:
    """Return one host with nothing but lo.

    Duplicate address detection is off in the real one, as in the model.
    """
    network = Network()
    network.add_netns("host")
    return network


ONE = """
ip link set lo up
sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
"""

WORLDS: dict[str, World] = {
    "one": World(ONE, one, "host"),
}
