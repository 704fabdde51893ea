"""`ss -ltnu`: bound sockets as text, both ways (iproute2 6.1, `misc/ss.c`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kubenet_lab.errors import Fault
from kubenet_lab.kernel.dialects import iproute2
from kubenet_lab.kernel.dialects.iproute2 import Unmodelled, Words, Wrong
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet.packet import TCP, UDP

BACKLOG = 4096
"""Length of a listener's accept queue, net.core.somaxconn of Linux since 5.4, which servers ask for by
default.
"""

STATES = {TCP: "LISTEN", UDP: "UNCONN"}
NETIDS = {TCP: "tcp", UDP: "udp"}


def select(ns: Netns, *, tcp: bool = True, udp: bool = True, family: int = 0) -> list[Socket]:
    """Return bound sockets in the tool's order: UDP before TCP, IPv4 before IPv6, then as they were bound."""
    out: list[Socket] = []
    for proto, wanted in ((UDP, udp), (TCP, tcp)):
        if not wanted:
            continue
        found = [s for (number, _), group in ns.sockets.items() if number == proto for s in group]
        out += [s for s in found if ":" not in s.address and family in (0, 4)]
        out += [s for s in found if ":" in s.address and family in (0, 6)]
    return out


def _local(socket: Socket) -> str:
    if socket.address == "::":
        return "*"
    return f"[{socket.address}]" if ":" in socket.address else socket.address


def _any(socket: Socket) -> str:
    if socket.address == "::":
        return "*"
    return "[::]" if ":" in socket.address else "0.0.0.0"


def show(
    sockets: Iterable[Socket],
    *,
    netid: bool = False,
    header: bool = True,
    port_name: Callable[[int, int], str] | None = None,
) -> str:
    """Return `ss -ltn`, `-lun` or `-ltun` of some sockets.

    Args:
        sockets: What to print, in order.
        netid: Print the protocol's column, as `-ltun` does.
        header: False is `-H`.
        port_name: (protocol, port) -> its name, for output without `-n`; numbers when None.

    A TCP listener's Recv-Q is the number of connections that wait to be accepted: its whole queue where the
    model says it is full, else 0.
    """
    rows: list[list[str]] = []
    if header:
        rows.append(
            [
                "Netid",
                "State",
                "Recv-Q",
                "Send-Q",
                "Local Address:",
                "Port",
                "Peer Address:",
                "Port",
                "Process",
            ]
        )
    for socket in sockets:
        listening = socket.proto == TCP
        waiting = BACKLOG + 1 if socket.backlog_full else 0
        port = port_name(socket.proto, socket.port) if port_name is not None else str(socket.port)
        state = STATES.get(socket.proto, "UNCONN")
        rows.append(
            [
                NETIDS.get(socket.proto, "raw"),
                state,
                f"{waiting:<6}",
                f"{BACKLOG if listening else 0:<6}",
                f"{_local(socket)}:",
                port,
                f"{_any(socket)}:",
                "*",
                "",
            ]
        )
    widths = [max((len(row[at]) for row in rows), default=0) for at in range(9)]
    out: list[str] = []
    for row in rows:
        cells = [
            text.rjust(width) if at in (4, 6) else text.ljust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        head = " ".join(cells[0 if netid else 1 : 4])
        out.append(f"{head} {cells[4]}{cells[5]} {cells[6]}{cells[7]}{cells[8]}\n")
    return "".join(out)


def parse(
    text: str, *, proto: int = TCP, file: str = "<text>", unknown: list[Fault] | None = None
) -> list[Socket]:
    """Read the output of `ss -ltn`, `-lun` or `-ltun` into bound sockets.

    `proto` is that of a text without a Netid column. Connections (ESTAB and the like) and sockets that take
    IPv6 only (`[::]`) are not modelled.

    Raises:
        InputError: With every fault; see `ip_route.parse` for `unknown`.
    """
    notes = Unmodelled(file, unknown)
    out: list[Socket] = []
    numbers = {name: number for number, name in NETIDS.items()}
    for at, line in iproute2.lines_of(text):
        if line.split()[0] in ("State", "Netid"):
            continue
        try:
            items = Words(line)
            number = proto
            if items.peek() in numbers:
                number = numbers[items.take("Netid")]
            state = items.take("State")
            if state not in ("LISTEN", "UNCONN"):
                if state.isupper():
                    notes.carry(f"a socket in state {state}", at, "State")
                    continue
                raise Wrong(f"State must be LISTEN or UNCONN, not {state!r}", "State")
            waiting, room = items.number("Recv-Q"), items.number("Send-Q")
            host, colon, port = items.take("Local Address:Port").rpartition(":")
            if not colon:
                raise Wrong('the local address is written "0.0.0.0:80"', "Local Address:Port")
            if host == "[::]":
                notes.carry("a socket that takes IPv6 only", at, "Local Address:Port")
            host, _, scope = host.strip("[]").partition("%")
            if scope:
                notes.carry(f"a socket bound to device {scope}", at, "Local Address:Port")
            address = "::" if host == "*" else iproute2.address(host, "Local Address:Port")
            full = state == "LISTEN" and waiting > room > 0
            out.append(
                Socket(number, address, iproute2.number(port, "Local Address:Port"), backlog_full=full)
            )
        except Wrong as wrong:
            notes.fault(wrong, at)
    notes.finish()
    return out
