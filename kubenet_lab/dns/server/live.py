"""CoreDNS on real sockets: the same code, asked by any client over UDP and TCP.

    kubenet-lab coredns --corefile Corefile -f objects.yaml --port 5300

The server stops on SIGTERM and SIGINT. What it does not know goes to the upstreams its Corefile names, over real
sockets.
"""

from __future__ import annotations

import errno
import select
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path
from typing import Any

from kubenet_lab.dns.message import BadMessage, from_wire, to_wire
from kubenet_lab.dns.records import Query, Response
from kubenet_lab.dns.server.coredns import CoreDNS, no_upstream
from kubenet_lab.dns.server.corefile import CorefileError
from kubenet_lab.dns.server.plugin import Upstream
from kubenet_lab.dns.server.view import ServiceView
from kubenet_lab.errors import Fault, InputError

_TIMEOUT = 2.0
_WORKERS = 64
_MAX_TCP = 65535 + 2


def ask_upstream(query: Query, server: str, protocol: str = "udp") -> Response | None:
    """One query on a real socket: the answer, or None after two seconds. Raises ConnectionRefusedError."""
    host, _, port = server.rpartition(":")
    host = host.strip("[]")
    tcp = protocol == "tcp"
    kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind) as asking:
        asking.settimeout(_TIMEOUT)
        try:
            asking.connect((host, int(port)))
            asked = to_wire(query)
            if tcp:
                asking.sendall(len(asked).to_bytes(2, "big") + asked)
                answer = from_wire(_exactly(asking, int.from_bytes(_exactly(asking, 2), "big")))
            else:
                asking.send(asked)
                answer = from_wire(asking.recv(65535))
        except ConnectionRefusedError:
            raise
        except (OSError, BadMessage):
            return None
    return answer if isinstance(answer, Response) and answer.id == query.id else None


def _exactly(connection: socket.socket, count: int) -> bytes:
    """Read so many octets. Raises OSError when the other side ends before."""
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise OSError("connection ended early")
        data += more
    return data


class Turn:
    """Who may be inside the server: one at a time, except while it waits for an upstream.

    So a silent upstream keeps only those waiting who asked for it, as in the real server.
    """

    def __init__(self, ask: Upstream) -> None:
        self.ask = ask
        self.lock = threading.Lock()

    def upstream(self, query: Query, server: str, protocol: str) -> Response | None:
        """`ask`, with the turn given away meanwhile."""
        self.lock.release()
        try:
            return self.ask(query, server, protocol)
        finally:
            self.lock.acquire()

    def answer(
        self, server: CoreDNS, data: bytes, address: Sequence[Any], now: float, protocol: str
    ) -> bytes | None:
        """The server's answer, once it is this caller's turn."""
        with self.lock:
            return server.answer_wire(data, _plain(address[0]), now, protocol, address[1])


def serve(
    server: CoreDNS,
    udp: socket.socket,
    tcp: socket.socket,
    clock: Callable[[], float] = time.monotonic,
    stop: Sequence[Any] = (),
    turn: Turn | None = None,
) -> None:
    """Answer on bound sockets (`tcp` listening) until one of `stop` becomes readable; blocks.

    Args:
        clock: Gives the seconds cached TTLs are counted by.
        stop: Files or sockets; what is read from one does not matter, only that it ends or speaks.
        turn: Whose `upstream` the server asks, if it asks any.
    """
    turn = turn or Turn(no_upstream)
    with selectors.DefaultSelector() as selector, ThreadPoolExecutor(_WORKERS) as workers:
        udp.setblocking(False)
        tcp.setblocking(False)
        selector.register(udp, selectors.EVENT_READ, "udp")
        selector.register(tcp, selectors.EVENT_READ, "tcp")
        for each in stop:
            selector.register(each, selectors.EVENT_READ, "stop")
        while True:
            for key, _ in selector.select():
                if key.data == "stop":
                    return
                if key.data == "udp":
                    _datagram(server, udp, clock, turn, workers)
                elif key.data == "tcp":
                    connection, address = tcp.accept()
                    connection.setblocking(False)
                    selector.register(connection, selectors.EVENT_READ, _Connection(connection, address[:2]))
                elif not key.data.read(server, clock, turn, workers):
                    selector.unregister(key.fileobj)
                    key.data.socket.close()


def _datagram(
    server: CoreDNS, udp: socket.socket, clock: Callable[[], float], turn: Turn, workers: ThreadPoolExecutor
) -> None:
    try:
        data, address = udp.recvfrom(65535)
    except (BlockingIOError, ConnectionError):
        # An ICMP error for an earlier answer is reported here; its asker is gone.
        return

    def reply() -> None:
        answer = turn.answer(server, data, address, clock(), "udp")
        if answer is not None:
            udp.sendto(answer, address)

    workers.submit(reply)


class _Connection:
    """A client's TCP connection: messages with their length in front (RFC 7766)."""

    def __init__(self, connection: socket.socket, address: tuple[str, int]) -> None:
        self.socket = connection
        self.address = address
        self.buffer = b""

    def read(
        self, server: CoreDNS, clock: Callable[[], float], turn: Turn, workers: ThreadPoolExecutor
    ) -> bool:
        """Take what has arrived and have it answered, in order; False once the connection is over."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.buffer += data
        messages: list[bytes] = []
        while len(self.buffer) >= 2:
            (length,) = struct.unpack("!H", self.buffer[:2])
            if len(self.buffer) < length + 2:
                break
            messages.append(self.buffer[2 : length + 2])
            self.buffer = self.buffer[length + 2 :]
        if messages:
            out = self.socket.dup()
            workers.submit(self._reply, out, messages, server, clock, turn)
        return bool(data) and len(self.buffer) <= _MAX_TCP

    def _reply(
        self,
        out: socket.socket,
        messages: list[bytes],
        server: CoreDNS,
        clock: Callable[[], float],
        turn: Turn,
    ) -> None:
        # A duplicate of the socket, so that a client which stopped sending still gets its answers.
        with out:
            for message in messages:
                answer = turn.answer(server, message, self.address, clock(), "tcp")
                if answer is not None:
                    _send_all(out, struct.pack("!H", len(answer)) + answer)


def _send_all(out: socket.socket, data: bytes) -> None:
    """Send everything on a socket that does not block; give up on a client that does not read."""
    sent = 0
    while sent < len(data):
        try:
            sent += out.send(data[sent:])
        except BlockingIOError:
            if not select.select([], [out], [], _TIMEOUT)[1]:
                return
        except OSError:
            return


def _plain(address: str) -> str:
    return address.removeprefix("::ffff:").partition("%")[0]


class HostFiles(Mapping[str, str]):
    """The files of this machine, by path. They cannot be listed, only asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, path: str) -> str:
        try:
            return (self.folder / path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            raise KeyError(path) from None

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def matching(self, pattern: str) -> list[str]:
        """Paths that fit a pattern of the shell, from the Corefile's folder."""
        return glob(str(self.folder / pattern))


def _place(error: CorefileError, corefile: Path) -> str:
    """Where CoreDNS stopped reading, which its own words often leave out, and where its options are written down."""
    plugin = str(error).partition(":")[0].removeprefix("plugin/") if str(error).startswith("plugin/") else ""
    page = f"; its options: https://coredns.io/plugins/{plugin}/" if plugin else ""
    return f"    help: {corefile}:{error.line}{page}\n" if error.line else ""


def main(
    corefile: Path,
    manifests: Sequence[str],
    bind: str = "127.0.0.1",
    port: int = 53,
    local_ips: Sequence[str] = (),
) -> int:
    """Serve until a signal comes; 1 for a Corefile that CoreDNS refuses.

    The first line on standard output is `listening on ADDRESS:PORT`; port 0 takes a free one.
    The objects are taken as they are: what the API server would refuse is served too, as CoreDNS does.
    Raises OSError for an address that cannot be bound, InputError for a Corefile that cannot be read and for manifests
    that no client could decode.
    """
    from kubenet_lab.manifests.load import decoded

    try:
        # As in the real server, octets that are no UTF-8 are part of a word like others.
        text = corefile.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        fault = Fault(f"the file cannot be read: {error.strerror}", str(corefile), help="name a Corefile")
        raise InputError([fault]) from error
    view = ServiceView.from_objects(decoded(*manifests), time.time())
    turn = Turn(ask_upstream)
    try:
        server = CoreDNS(
            text,
            view,
            turn.upstream,
            local_ips=tuple(local_ips) or (bind,),
            files=HostFiles(corefile.parent),
            seed=time.time_ns(),
            hostname=socket.gethostname(),
        )
    except CorefileError as error:
        sys.stderr.write(f"{error}\n{_place(error, corefile)}")
        return 1
    udp, tcp = open_sockets(bind, port)
    woken, waker = socket.socketpair()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: waker.send(b"."))
    host, number = udp.getsockname()[:2]
    sys.stdout.write(f"listening on {f'[{host}]' if ':' in host else host}:{number}\n")
    sys.stdout.flush()
    with udp, tcp, woken, waker:
        serve(server, udp, tcp, stop=[woken], turn=turn)
    return 0


def open_sockets(address: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A bound UDP and a listening TCP socket on the same port. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    for _ in range(20):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        tcp = socket.socket(family, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            udp.bind((address, port))
            tcp.bind((address, udp.getsockname()[1]))
            tcp.listen(64)
        except OSError as error:
            udp.close()
            tcp.close()
            if port or error.errno != errno.EADDRINUSE:
                raise
            # The free UDP port was taken for TCP: try another one.
            continue
        return udp, tcp
    raise OSError(f"no port of {address} is free for UDP and TCP alike")
