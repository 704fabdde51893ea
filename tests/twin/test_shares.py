"""Each endpoint gets its share of the connections: chi-square against equal shares, in the kernel.

One datagram from each source port; the node's conntrack table says where each went.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest

from kubenet_lab.twin import Twin
from tests.flows.shares import FULL, PORT, SIZES, judge, service_ip, world

CONNECTIONS = FULL or 1_000
SEND = """
import socket, sys
for port in range(1024, 1024 + {count}):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("", port))
        s.sendto(b"x", ("{address}", {to}))
"""
_REPLY = re.compile(r"src=\S+ dst=(\S+) sport=\d+ dport=53 (?:\[UNREPLIED\] )?src=(\S+)")


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_shares_of_the_kernel(mode: str, kernel: None) -> None:
    with Twin(world(mode)) as twin:
        for size in SIZES:
            address = service_ip(size)
            twin.exec([("node-1", ["conntrack", "-F"], "")])
            done = twin.run(
                "client",
                "python3 -",
                stdin=SEND.format(count=CONNECTIONS, address=address, to=PORT),
                timeout=60,
            )
            assert (done.stderr, done.exit_code) == ("", 0)
            listed = twin.run("node-1", f"conntrack -L -p udp --orig-dst {address}").stdout
            judge(
                Counter(to for dst, to in _REPLY.findall(listed) if dst == address), size, CONNECTIONS, 1e-6
            )
