"""Pings timed in the twin: what a way costs in this machine's kernel."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kubenet_lab.twin import Twin

FIRST, LATER = "first", "later"

PING = r"""
import socket, struct, sys, time
address, count, new, start = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "first", int(sys.argv[4])
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
s.connect((address, 0)); s.settimeout(1)
clock = time.perf_counter_ns
def echo(ident, seq):
    body = bytes(56)
    total = 0x0800 + ident + seq
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return struct.pack("!BBHHH", 8, 0, ~total & 0xffff, ident, seq) + body
best = 1 << 60
for n in range(count):
    ident, seq = (start + n, 1) if new else (start, n + 1)
    message, want = echo(ident, seq), struct.pack("!HH", ident, seq)
    begin = clock(); s.send(message)
    while True:
        got = s.recv(200)
        if got[20] == 0 and got[24:28] == want: break
    took = clock() - begin
    if n > 3: best = min(best, took)
print(best / 1000)
"""
"""Round trips timed by the program that pings: each of a connection of its own ("first"), or all of one."""


def python(twin: Twin, ns: str, script: str, *argv: str) -> list[float]:
    """Run a script in a namespace and return the numbers it prints. Raises RuntimeError with what it said instead."""
    done = twin.run(ns, " ".join([sys.executable, "-", *argv]), stdin=script)
    if done.exit_code != 0:
        raise RuntimeError(f"{ns}: {done.stderr.strip()}")
    return [float(word) for word in done.stdout.split()]


def best(twin: Twin, ns: str, address: str, which: str = LATER, *, pings: int = 200, tries: int = 2) -> float:
    """Return the best of many round trips in us: what the way costs when nothing comes between.

    `which` is "first" for packets that are each the first of a connection, "later" for those of one known to conntrack.
    Raises RuntimeError when one is not answered within a second.
    """
    # Each try has identifiers of its own: conntrack remembers those of the tries before.
    starts = (5000 + pings * (2 * n + (which == FIRST)) for n in range(tries))
    return min(python(twin, ns, PING, address, str(pings), which, str(start))[0] for start in starts)
