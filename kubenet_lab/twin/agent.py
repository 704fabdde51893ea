"""The process that owns a twin: every namespace, server and command of it lives and dies here.

Started by `kubenet_lab.twin.twin` as `unshare --user --net --mount --pid ... python agent.py`, never imported by it.
It uses the standard library only, so that it starts in a few hundredths of a second. It is process 1 of its own PID
namespace: when it ends, for whatever reason, the kernel ends all that it started, and the network namespaces go with
them. It ends when its standard input closes, that is, when the parent does.

It speaks JSON, one message a line. In: `{"id": 1, "op": "build", ...}`; out: `{"id": 1, "result": ...}` or
`{"id": 1, "error": "..."}`. A datagram for a socket that has a handler goes the other way:
`{"ask": 7, "socket": 3, "payload": "<hex>", ...}`, answered by `{"answer": 7, "payload": "<hex>" | null}`.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

CLONE_NEWNET = 0x40000000
IP_MTU_DISCOVER, PMTU_DONT, PMTU_DO = 10, 0, 2
IP_RECVERR, IPV6_RECVERR, IPV6_MTU_DISCOVER = 11, 25, 23
IP_PKTINFO, IPV6_RECVPKTINFO, IPV6_PKTINFO = 8, 49, 50
MSG_ERRQUEUE = 0x2000
SO_EE_ORIGIN_LOCAL, SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6 = 1, 2, 3
ETH_P_ALL = 3
NFULA_PACKET_HDR, NFULA_MARK, NFULA_IFINDEX_INDEV, NFULA_IFINDEX_OUTDEV, NFULA_PAYLOAD, NFULA_PREFIX = (
    1,
    2,
    4,
    5,
    9,
    10,
)

_libc = ctypes.CDLL(None, use_errno=True)


def setns(fd: int) -> None:
    """Move the calling thread into a network namespace (setns(2); `os.setns` came with Python 3.12)."""
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")


class Agent:
    """Namespaces by name, the servers in them, and the requests served over standard input and output."""

    def __init__(self) -> None:
        self.home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self.fds: dict[str, int] = {}
        self.paths: dict[str, str] = {}
        self.files: dict[str, dict[str, str]] = {}
        self.servers = Servers(self)
        self.watches: dict[str, Watch] = {}
        self.out = threading.Lock()
        self.senders: dict[str, socket.socket] = {}
        self.waiting: dict[int, Callable[[bytes | None], None]] = {}
        self.asked = 0
        self.echo_id = 0
        self.ids = threading.Lock()
        self.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    @contextmanager
    def inside(self, ns: str) -> Iterator[None]:
        """Do something in a namespace; sockets and processes made there stay there."""
        setns(self.fds[ns])
        try:
            yield
        finally:
            setns(self.home)

    def say(self, message: dict[str, Any]) -> None:
        """Send one message to the parent."""
        text = json.dumps(message)
        with self.out:
            self.stdout.write(text + "\n")
            self.stdout.flush()

    def ask(self, message: dict[str, Any], then: Callable[[bytes | None], None]) -> None:
        """Ask the parent for a server's answer; `then` gets its bytes, or None for silence."""
        with self.ids:
            self.asked += 1
            number = self.asked
            self.waiting[number] = then
        self.say({"ask": number, **message})

    def serve(self) -> None:
        """Answer requests until standard input closes."""
        for line in sys.stdin:
            message = json.loads(line)
            if "answer" in message:
                then = self.waiting.pop(message["answer"], None)
                if then is not None:
                    try:
                        then(None if message["payload"] is None else bytes.fromhex(message["payload"]))
                    except OSError as problem:  # the client has gone, or a rule forbids the answer
                        note(f"answer not sent: {problem}")
                continue
            threading.Thread(target=self.handle, args=(message,), daemon=True).start()

    def handle(self, message: dict[str, Any]) -> None:
        """Do one request and send its result."""
        try:
            operation = getattr(self, f"op_{message['op']}")
            result = operation(**{k: v for k, v in message.items() if k not in ("id", "op")})
            self.say({"id": message["id"], "result": result})
        except Exception as problem:  # noqa: BLE001 - whatever it is, the parent raises it again
            where = traceback.extract_tb(problem.__traceback__)[-1]
            self.say(
                {"id": message["id"], "error": f"{type(problem).__name__}: {problem} (line {where.lineno})"}
            )

    # -- building ---------------------------------------------------------------------------------------

    def op_hello(self) -> dict[str, Any]:
        """Make /run private and return this process's PID as the parent sees it (/proc is the parent's)."""
        resolv = os.path.realpath("/etc/resolv.conf")
        mount("tmpfs", "/run", "tmpfs")
        if resolv.startswith("/run/"):
            os.makedirs(os.path.dirname(resolv), exist_ok=True)
            with open(resolv, "w", encoding="utf-8"):
                pass
        os.makedirs("/run/netns")
        with open("/run/nsswitch.conf", "w", encoding="ascii") as stream:
            stream.write("passwd: files\ngroup: files\nhosts: files dns\n")
        return {"pid": int(os.readlink("/proc/self"))}

    def op_build(
        self,
        netns: dict[str, str],
        root: list[str],
        phases: list[dict[str, Any]],
        sockets: list[dict[str, Any]],
    ) -> list[dict[str, str]]:
        """Make namespaces, run each phase's jobs in parallel, open the sockets; return what failed."""
        missing = batch("", "ip", [f"netns add {file}" for file in netns.values()])
        for name, file in netns.items():
            self.paths[name] = f"/run/netns/{file}"
            self.fds[name] = os.open(self.paths[name], os.O_RDONLY | os.O_CLOEXEC)
        missing += batch("", "ip", root)
        with ThreadPoolExecutor(4) as pool:
            for phase in phases:
                for failed in pool.map(lambda item: self.job(*item), phase.items()):
                    missing += failed
        for wanted in sockets:
            try:
                with self.inside(wanted["ns"]):
                    self.servers.open(wanted)
            except OSError as problem:
                what = f"socket {wanted['proto']} {wanted['address']}:{wanted['port']}"
                missing.append({"ns": wanted["ns"], "what": what, "why": str(problem)})
        self.servers.start()
        return missing

    def job(self, ns: str, steps: list[list[Any]]) -> list[dict[str, str]]:
        """Run one namespace's steps of a phase, in order."""
        failed: list[dict[str, str]] = []
        with self.inside(ns):
            for kind, body in steps:
                if kind in ("ip", "ip -6", "bridge"):
                    failed += batch(ns, kind, body)
                elif kind == "sysctl":
                    failed += sysctls(ns, body)
                elif kind == "nfacct":
                    failed += accounts(ns, body)
                elif kind == "files":
                    self.files[ns] = self.write_files(ns, body)
                    failed += [
                        {"ns": ns, "what": f"file {path}", "why": "this machine has none to bind it over"}
                        for path in body
                        if not os.path.exists(path)
                    ]
                else:
                    failed += restore(ns, kind, body)
        return failed

    def write_files(self, ns: str, files: dict[str, str]) -> dict[str, str]:
        """Store a namespace's own /etc/resolv.conf and hosts, to be bound over this machine's for commands."""
        folder = f"/run/files/{os.path.basename(self.paths[ns])}"
        os.makedirs(folder, exist_ok=True)
        made = {}
        for number, (path, text) in enumerate(files.items()):
            made[path] = f"{folder}/{number}"
            with open(made[path], "w", encoding="utf-8") as stream:
                stream.write(text)
        return made

    # -- commands ---------------------------------------------------------------------------------------

    def op_exec(self, commands: list[list[Any]]) -> list[list[Any]]:
        """Run [namespace, argv, stdin] commands side by side; return [stdout, stderr, exit code] of each."""

        def one(command: list[Any]) -> list[Any]:
            ns, argv, text = command
            with self.inside(ns):
                done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
            return [done.stdout, done.stderr, done.returncode]

        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(one, commands))

    def op_run(self, ns: str, command: str, stdin: str, timeout: float) -> list[Any]:
        """Run a shell command as in a pod: its network namespace and its own files under /etc."""
        with self.inside(ns):
            child = subprocess.Popen(
                self.shell(ns, ["sh", "-c", command]),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        try:
            stdout, stderr = child.communicate(stdin, timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            stdout, stderr = child.communicate()
            return [stdout, f"{stderr}twin: stopped after {timeout:g} s\n", 124]
        return [stdout, stderr, child.returncode if child.returncode >= 0 else 128 - child.returncode]

    def shell(self, ns: str, argv: list[str]) -> list[str]:
        """Return argv wrapped so that it sees the files and devices of the namespace its caller is in."""
        files = {**self.files.get(ns, {}), "/etc/nsswitch.conf": "/run/nsswitch.conf"}
        binds = [f"mount --bind {ours} {path}" for path, ours in files.items() if os.path.exists(path)]
        script = "; ".join([*binds, "mount -t sysfs sysfs /sys 2>/dev/null", 'exec "$@"'])
        return ["unshare", "--mount", "sh", "-c", script, "sh", *argv]

    def op_argv(self, ns: str, argv: list[str]) -> list[str]:
        """Return argv wrapped for a caller that has joined this process's namespaces, but no network's yet."""
        return ["nsenter", f"--net={self.paths[ns]}", *self.shell(ns, argv)]

    # -- probes -----------------------------------------------------------------------------------------

    def op_probe(self, flows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
        """Send each flow's packets, flows side by side, repeats in turn; return what each met."""
        results: list[list[dict[str, Any]]] = [[] for _ in flows]

        def one(number: int, flow: dict[str, Any]) -> None:
            for _ in range(flow["count"]):
                results[number].append(self.probe(flow))

        threads = [threading.Thread(target=one, args=item, daemon=True) for item in enumerate(flows)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for number, flow in enumerate(flows):
            for result in results[number]:
                self.servers.seen_by(result, flow)
        return results

    def probe(self, flow: dict[str, Any]) -> dict[str, Any]:
        """Make one attempt as its caller would and say how it ended, in the caller's words."""
        v6 = ":" in flow["dst"]
        kind = socket.SOCK_STREAM if flow["proto"] == 6 else socket.SOCK_DGRAM
        number = 0 if flow["proto"] in (6, 17) else 58 if v6 else 1
        with self.inside(flow["ns"]):
            s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, kind, number)
        result: dict[str, Any] = {
            "end": "timed out",
            "errno": "",
            "icmp": None,
            "local": None,
            "nonce": "",
            "answer": "",
        }
        with s:
            level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
            s.setsockopt(level, IPV6_RECVERR if v6 else IP_RECVERR, 1)
            if flow["proto"] != 6:
                s.setsockopt(
                    level, IPV6_MTU_DISCOVER if v6 else IP_MTU_DISCOVER, PMTU_DO if flow["df"] else PMTU_DONT
                )
            if flow["ttl"]:
                s.setsockopt(level, socket.IPV6_UNICAST_HOPS if v6 else socket.IP_TTL, flow["ttl"])
            if flow["mark"]:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", flow["mark"]))
            s.settimeout(flow["timeout"])
            try:
                # Bound first, so that the port (of a ping, its identifier) is still known when connect fails.
                s.bind((flow["src"] or ("::" if v6 else "0.0.0.0"), flow["sport"]))
                result["local"] = list(s.getsockname()[:2])
                s.connect((flow["dst"], flow["port"]))
                result["local"] = list(s.getsockname()[:2])
                {6: self.probe_tcp, 17: self.probe_udp}.get(flow["proto"], self.probe_echo)(s, flow, result)
            except TimeoutError:
                result["errno"] = "" if result["end"] == "connected" else "ETIMEDOUT"
            except OSError as problem:
                result["errno"] = errno.errorcode.get(problem.errno or 0, str(problem.errno))
                result["end"] = ENDS.get(result["errno"], result["errno"])
            if result["local"] is None:
                result["local"] = list(s.getsockname()[:2])
            result["icmp"] = queued_error(s)
        return result

    def nonce(self) -> int:
        """Return a number no other probe of this twin uses."""
        with self.ids:
            self.echo_id += 1
            return self.echo_id

    def probe_tcp(self, s: socket.socket, flow: dict[str, Any], result: dict[str, Any]) -> None:
        """The connection stands; say a word so that the server's record can be found."""
        result["end"] = "connected"
        word = bytes.fromhex(flow["payload"]) or b"PROBE %08x\n" % self.nonce()
        result["nonce"] = word.hex()
        s.sendall(word)
        result["answer"] = s.recv(65536).hex()

    def probe_udp(self, s: socket.socket, flow: dict[str, Any], result: dict[str, Any]) -> None:
        """Send one datagram and wait for one."""
        word = b"PROBE %08x\n" % self.nonce()
        if flow["payload"]:
            word = self.nonce().to_bytes(2, "big") + bytes.fromhex(flow["payload"])[2:]
        word += bytes(max(0, flow["size"] - len(word)))
        result["nonce"] = word.hex()
        s.send(word)
        result["answer"] = s.recv(65536).hex()
        result["end"] = "answered"

    def probe_echo(self, s: socket.socket, flow: dict[str, Any], result: dict[str, Any]) -> None:
        """Send an ICMP echo request from a ping socket (icmp(7)) and wait for its reply."""
        kind = 128 if s.family == socket.AF_INET6 else 8
        s.send(struct.pack("!BBHHH", kind, 0, 0, 0, 1) + bytes(flow["size"]))
        s.recv(65536)
        result["end"] = "answered"

    # -- the property harness: own bytes in, every hook's view out --------------------------------------

    def op_watch(self, ns: str, groups: list[int]) -> None:
        """Listen to NFLOG groups in a namespace (nft `log group N queue-threshold 1`)."""
        with self.inside(ns):
            self.watches[ns] = Watch(groups)

    def op_case(self, ns: str, steps: list[list[Any]], grace: float) -> list[Any]:
        """Run steps one after the other and return each one's result.

        Steps: ["restore", tool, text]; ["ip", lines]; ["sysctl", pairs]; ["ipset", word]; ["flush"] (conntrack);
        ["frame", ns, link, hex] sends an Ethernet frame; ["raw", ns, hex, mark] an IP packet from a local socket.
        The last two return [error, what the watched namespace logged], the latter a list of
        [group, mark, indev, outdev, packet hex].
        """
        watch = self.watches[ns]
        out: list[Any] = []
        for kind, *rest in steps:
            if kind == "restore":
                with self.inside(ns):
                    out.append(restore(ns, rest[0], rest[1]))
            elif kind in ("ip", "ip -6"):
                with self.inside(ns):
                    out.append(batch(ns, kind, rest[0]))
            elif kind == "sysctl":
                with self.inside(ns):
                    out.append(sysctls(ns, rest[0]))
            elif kind == "ipset":
                with self.inside(ns):
                    subprocess.run(["ipset", *rest], check=True)
                out.append(None)
            elif kind == "flush":
                with self.inside(ns):
                    flush_conntrack()
                out.append(None)
            else:
                watch.drain()
                problem = ""
                try:
                    self.emit(kind, rest)
                except OSError as error:
                    problem = errno.errorcode.get(error.errno or 0, str(error.errno))
                out.append([problem, watch.collect(grace)])
        return out

    def emit(self, kind: str, rest: list[Any]) -> None:
        """Send one frame or one locally made packet."""
        if kind == "frame":
            key = f"{rest[0]}/{rest[1]}"
            sender = self.senders.get(key)
            if sender is None:
                with self.inside(rest[0]):
                    sender = self.senders[key] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
                    sender.bind((rest[1], 0))
            sender.send(bytes.fromhex(rest[2]))
            return
        ns, text, mark = rest[0], rest[1], rest[2]
        data = bytes.fromhex(text)
        v6 = data[0] >> 4 == 6
        with self.inside(ns):
            s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, 255)
        with s:
            if mark:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", mark))
            # Bound, so that the kernel looks for a route with the packet's own source.
            s.bind((socket.inet_ntop(s.family, data[8:24] if v6 else data[12:16]), 0))
            host = socket.inet_ntop(s.family, data[24:40] if v6 else data[16:20])
            s.sendto(data, (host, 0))


ENDS = {
    "ECONNREFUSED": "refused",
    "EHOSTUNREACH": "unreachable",
    "ENETUNREACH": "unreachable",
    "EACCES": "unreachable",
    "EINVAL": "unreachable",
    "ENOPROTOOPT": "unreachable",
    "EMSGSIZE": "message too long",
    "ETIMEDOUT": "timed out",
    "EPERM": "not permitted",
}
"""Errors of connect, send and recv in the words of `kubenet_lab.walk.exchange`."""


def queued_error(s: socket.socket) -> list[Any] | None:
    """Return the ICMP error behind a failure: [type, code, who sent it, MTU] (IP_RECVERR, ip(7)), or None."""
    found: list[Any] | None = None
    s.setblocking(False)  # with a timeout set, Python would first wait for something to read
    while True:
        try:
            _data, ancillary, _flags, _address = s.recvmsg(512, 512, MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except OSError:
            return found
        for level, kind, body in ancillary:
            if (level, kind) not in ((socket.IPPROTO_IP, IP_RECVERR), (socket.IPPROTO_IPV6, IPV6_RECVERR)):
                continue
            _errno, origin, icmp_type, code, _pad, info, _data2 = struct.unpack("=IBBBBII", body[:16])
            if origin in (SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6):
                v6 = origin == SO_EE_ORIGIN_ICMP6
                family, at, length = (socket.AF_INET6, 24, 16) if v6 else (socket.AF_INET, 20, 4)
                found = [icmp_type, code, socket.inet_ntop(family, body[at : at + length]), info]


class Servers:
    """Every listening socket of the model, open in its namespace, served by one thread."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.selector = selectors.DefaultSelector()
        self.log: dict[str, list[dict[str, Any]]] = {}
        self.fillers: list[socket.socket] = []
        self.lock = threading.Lock()
        self.started = False

    def open(self, wanted: dict[str, Any]) -> None:
        """Bind one socket in the present namespace. Raises OSError."""
        v6 = ":" in wanted["address"]
        family = socket.AF_INET6 if v6 else socket.AF_INET
        kind = socket.SOCK_STREAM if wanted["proto"] == 6 else socket.SOCK_DGRAM
        s = socket.socket(family, kind)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if v6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        s.bind((wanted["address"], wanted["port"]))
        if kind == socket.SOCK_DGRAM:
            if not v6:
                s.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
            else:
                s.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
            s.setblocking(False)
            self.selector.register(s, selectors.EVENT_READ, lambda: self.datagram(s, wanted))
            return
        s.listen(0 if wanted["backlog_full"] else 128)
        if wanted["backlog_full"]:
            for _ in range(2):
                filler = socket.socket(family, kind)
                filler.setblocking(False)
                filler.connect_ex(
                    (
                        "::1" if v6 else "127.0.0.1" if wanted["address"] == "0.0.0.0" else wanted["address"],
                        wanted["port"],
                    )
                )
                self.fillers.append(filler)
            self.fillers.append(s)
            return
        s.setblocking(False)
        self.selector.register(s, selectors.EVENT_READ, lambda: self.accept(s, wanted))

    def start(self) -> None:
        """Begin to serve."""
        if not self.started:
            self.started = True
            threading.Thread(target=self.loop, daemon=True).start()

    def loop(self) -> None:
        """Serve for ever."""
        while True:
            for key, _events in self.selector.select():
                try:
                    key.data()
                except OSError as problem:  # a client that went away, or an answer a rule forbids
                    note(str(problem))

    def forget(self, thing: Any) -> None:
        """Close a connection."""
        self.selector.unregister(thing)
        thing.close()

    def record(self, word: bytes, wanted: dict[str, Any], peer: Any, local: Any) -> None:
        """Remember who said `word` to which server, as that server saw it."""
        seen = {"server": wanted["ns"], "source": plain(peer[0]), "sport": peer[1], "local": plain(local)}
        with self.lock:
            self.log.setdefault(word.hex(), []).append(seen)

    def seen_by(self, result: dict[str, Any], flow: dict[str, Any]) -> None:
        """Add to a probe's result which server saw it, and from where."""
        with self.lock:
            seen = self.log.get(result["nonce"], []) if result["nonce"] else []
        result["server"] = seen[-1]["server"] if seen else ""
        result["source_seen"] = seen[-1]["source"] if seen else ""

    def datagram(self, s: socket.socket, wanted: dict[str, Any]) -> None:
        """Take a datagram; send what the model's handler answers, if any, from the address asked."""
        data, ancillary, _flags, peer = s.recvmsg(65536, 256)
        local = ""
        reply: list[tuple[int, int, bytes]] = []
        for level, kind, body in ancillary:
            if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
                local = socket.inet_ntop(socket.AF_INET, body[8:12])
                reply = [(level, kind, struct.pack("=I", 0) + body[8:12] + bytes(4))]
            elif (level, kind) == (socket.IPPROTO_IPV6, IPV6_PKTINFO):
                local = socket.inet_ntop(socket.AF_INET6, body[:16])
                reply = [(level, kind, body[:16] + struct.pack("=I", 0))]
        self.record(data, wanted, peer, local)
        if wanted["handler"]:

            def send(answer: bytes | None) -> None:
                if answer is not None:
                    s.sendmsg([answer], reply, 0, peer)

            self.agent.ask(question(wanted, data, peer, local), send)

    def accept(self, s: socket.socket, wanted: dict[str, Any]) -> None:
        """Take a connection."""
        connection, peer = s.accept()
        connection.setblocking(False)
        self.selector.register(
            connection, selectors.EVENT_READ, lambda: self.segment(connection, wanted, peer)
        )

    def segment(self, connection: socket.socket, wanted: dict[str, Any], peer: Any) -> None:
        """Answer what a client says: a probe's word, an HTTP request, a handler's message, else an echo."""
        try:
            data = connection.recv(65536)
        except ConnectionError:  # reset by the client
            data = b""
        if not data:
            self.forget(connection)
            return
        local = plain(connection.getsockname()[0])
        self.record(data, wanted, peer, local)
        if data.startswith(b"PROBE "):
            connection.sendall(data)
        elif wanted["handler"] and data.split(b" ", 1)[0] in METHODS:

            def respond(answer: bytes | None) -> None:
                # The client may have gone meanwhile; else it closes when it has read, and is forgotten then.
                with suppress(OSError):
                    if answer is not None:
                        connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)

            self.agent.ask(question(wanted, data, peer, local), respond)
        elif wanted["handler"]:

            def send(answer: bytes | None) -> None:
                if answer is not None:
                    connection.sendall(len(answer).to_bytes(2, "big") + answer)

            self.agent.ask(question(wanted, data[2:], peer, local), send)
        elif data.split(b" ", 1)[0] in METHODS:
            body = (
                b""
                if data.startswith(b"HEAD")
                else wanted["page"].replace("{source}", plain(peer[0])).encode()
            )
            fields = f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close"
            connection.sendall(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode() + body)
            self.forget(connection)
        else:
            connection.sendall(data)


METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH")
"""What an HTTP request begins with."""


def note(text: str) -> None:
    """Write a line to standard error, which is the parent's."""
    sys.stderr.write(f"twin: {text}\n")
    sys.stderr.flush()


def plain(address: str) -> str:
    """Return an IPv4 address for an IPv4-mapped IPv6 one."""
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def question(wanted: dict[str, Any], data: bytes, peer: Any, local: str) -> dict[str, Any]:
    """Return what the parent needs to call a handler."""
    return {
        "socket": wanted["id"],
        "payload": data.hex(),
        "src": plain(peer[0]),
        "sport": peer[1],
        "dst": plain(local),
        "dport": wanted["port"],
        "proto": wanted["proto"],
    }


class Watch:
    """NFLOG messages of some groups, read from netlink (linux/netfilter/nfnetlink_log.h)."""

    def __init__(self, groups: list[int]) -> None:
        self.sockets = {}
        for group in groups:
            s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
            s.bind((0, 0))
            s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            self._configure(s, group, 1, struct.pack("=B3x", 1))
            self._configure(s, group, 2, struct.pack("!IBx", 0xFFFF, 2) + bytes(0))
            s.setblocking(False)
            self.sockets[group] = s

    @staticmethod
    def _configure(s: socket.socket, group: int, attribute: int, value: bytes) -> None:
        value = value[:1] if attribute == 1 else value[:6]
        body = struct.pack("=HH", 4 + len(value), attribute) + value + bytes(-len(value) % 4)
        message = struct.pack("=BBH", 0, 0, socket.htons(group)) + body
        s.send(struct.pack("=IHHII", 16 + len(message), 4 << 8 | 1, 5, 1, 0) + message)
        answer = s.recv(4096)
        (code,) = struct.unpack("=i", answer[16:20])
        if code:
            raise OSError(-code, f"NFLOG group {group}: {os.strerror(-code)}")

    def drain(self) -> None:
        """Forget what came before."""
        self.read()

    def read(self) -> list[list[Any]]:
        """Return what is there now."""
        out: list[list[Any]] = []
        for group, s in self.sockets.items():
            while True:
                try:
                    data = s.recv(1 << 17)
                except BlockingIOError:
                    break
                out += parse_log(group, data)
        return out

    def collect(self, grace: float) -> list[list[Any]]:
        """Return what arrives until nothing has for `grace` s; the path is synchronous, so most is there."""
        out = self.read()
        while select.select(list(self.sockets.values()), [], [], grace)[0]:
            out += self.read()
        return out


def parse_log(group: int, data: bytes) -> list[list[Any]]:
    """Return [group, mark, indev index, outdev index, packet hex] of each NFLOG message in a datagram."""
    out: list[list[Any]] = []
    at = 0
    while at + 16 <= len(data):
        length, kind = struct.unpack("=IH", data[at : at + 6])
        if kind == 4 << 8:
            fields: dict[int, bytes] = {}
            spot, end = at + 20, at + length
            while spot + 4 <= end:
                size, attribute = struct.unpack("=HH", data[spot : spot + 4])
                fields[attribute & 0x7FFF] = data[spot + 4 : spot + size]
                spot += size + -size % 4
            numbers = [
                int.from_bytes(fields.get(a, b""), "big")
                for a in (NFULA_MARK, NFULA_IFINDEX_INDEV, NFULA_IFINDEX_OUTDEV)
            ]
            out.append([group, *numbers, fields.get(NFULA_PAYLOAD, b"").hex()])
        at += length + -length % 4
    return out


def flush_conntrack() -> None:
    """`conntrack -F` in the present namespace: IPCTNL_MSG_CT_DELETE without a tuple."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as s:
        s.send(struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 5, 1, 0, 0, 0, 0))
        code = struct.unpack("=i", s.recv(4096)[16:20])[0]
    if code:
        raise OSError(-code, f"conntrack flush: {os.strerror(-code)}")


def mount(source: str, target: str, kind: str) -> None:
    """mount(2)."""
    if _libc.mount(source.encode(), target.encode(), kind.encode(), 0, None) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mount {kind} on {target}: {os.strerror(code)}")


def batch(ns: str, tool: str, lines: list[str]) -> list[dict[str, str]]:
    """`ip -force -batch -` or `bridge ...` in the present namespace; return what it refused and why."""
    if not lines:
        return []
    argv = [*tool.split(), "-force", "-batch", "-"]
    try:
        done = subprocess.run(
            argv, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return [{"ns": ns, "what": tool, "why": "the program is not installed"}]
    failed = []
    words: list[str] = []
    for line in done.stderr.splitlines():
        if line.startswith("Command failed -:"):
            number = int(line.rpartition(":")[2])
            failed.append({"ns": ns, "what": f"{tool} {lines[number - 1]}", "why": " ".join(words)})
            words = []
        else:
            words.append(line.strip())
    if done.returncode and not failed:
        failed.append({"ns": ns, "what": tool, "why": done.stderr.strip()})
    return failed


def sysctls(ns: str, wanted: list[list[str]]) -> list[dict[str, str]]:
    """`sysctl -w` of [path under /proc/sys, value] pairs that differ; return those refused."""
    failed = []
    for path, value in wanted:
        file = f"/proc/sys/{path}"
        try:
            with open(file, encoding="ascii") as stream:
                if stream.read().split() == value.split():
                    continue
            with open(file, "w", encoding="ascii") as stream:
                stream.write(value)
        except OSError as problem:
            failed.append(
                {"ns": ns, "what": f"sysctl {path}={value}", "why": os.strerror(problem.errno or 0)}
            )
    return failed


def accounts(ns: str, names: list[str]) -> list[dict[str, str]]:
    """`nfacct add NAME` for each: the objects that `-m nfacct` counts into
    (linux/netfilter/nfnetlink_acct.h).

    The tool is rarely installed (kube-proxy makes its objects by netlink too), so this is the message itself.
    """

    def attribute(kind: int, data: bytes) -> bytes:
        return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)

    failed: list[dict[str, str]] = []
    for name in names:
        body = (
            bytes(4) + attribute(1, name.encode() + b"\0") + attribute(2, bytes(8)) + attribute(3, bytes(8))
        )
        # NFNL_SUBSYS_ACCT is 7, its first message NFNL_MSG_ACCT_NEW; REQUEST | ACK | CREATE.
        head = struct.pack("=IHHII", 16 + len(body), 7 << 8, 0x1 | 0x4 | 0x400, 1, 0)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as s:
            s.send(head + body)
            problem = -struct.unpack("=i", s.recv(4096)[16:20])[0]
        if problem not in (0, errno.EBUSY):  # EBUSY: it is there already
            failed.append({"ns": ns, "what": f"nfacct add {name}", "why": os.strerror(problem)})
    return failed


def restore(ns: str, tool: str, text: str, *, whole: bool = True) -> list[dict[str, str]]:
    """`ip[6]tables-restore`, `ipset restore` or `nft -f -` of a text; `whole`: it may be tried again in pieces."""
    argv = {"ipset": ["ipset", "restore"], "nft": ["nft", "-f", "-"]}.get(tool, tool.split())
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return [{"ns": ns, "what": tool, "why": "the program is not installed"}]
    if done.returncode == 0:
        return []
    if whole and "Message too long" in done.stderr and tool.endswith("tables-restore"):
        # A user namespace may not make the netlink buffer bigger than net.core.wmem_max: so in pieces.
        return [
            failed
            for flag, piece in pieces(text)
            for failed in restore(ns, f"{tool}{flag}", piece, whole=False)
        ]
    if whole and "Message too long" in done.stderr and tool == "nft" and (split := commands(text)):
        return transactions(ns, split)
    return [{"ns": ns, "what": tool, "why": done.stderr.strip() or f"exit status {done.returncode}"}]


PIECE = 250
"""Rules of one piece: some 100 KiB of netlink messages."""


def pieces(text: str) -> list[tuple[str, str]]:
    """Return an `iptables-save` text as several, each with its flag: a table's chains, then its rules by turns.

    What was restored of a table before is flushed by the first.
    """
    out: list[tuple[str, str]] = []
    table = ""
    chains: list[str] = []
    rules: list[str] = []
    for line in text.splitlines():
        if line.startswith("*"):
            table, chains, rules = line, [], []
        elif line.startswith(":"):
            chains.append(line)
        elif line == "COMMIT":
            for lines in (chains, rules):
                for at in range(0, len(lines), PIECE):
                    flag = " --noflush" if at or lines is rules else ""
                    out.append((flag, "\n".join([table, *lines[at : at + PIECE], "COMMIT\n"])))
        elif not line.startswith("#"):
            rules.append(line)
    return out


def transactions(ns: str, split: list[str]) -> list[dict[str, str]]:
    """Hand commands to nft, in halves where one transaction is more than its netlink buffer takes.

    Such a transaction fails before the kernel sees any of it, so its halves start from the same state.
    """
    failed = restore(ns, "nft", "\n".join(split), whole=False)
    if len(split) == 1 or not any("Message too long" in one["why"] for one in failed):
        return failed
    half = len(split) // 2
    return transactions(ns, split[:half]) or transactions(ns, split[half:])


def commands(text: str) -> list[str]:
    """Return what `nft list ruleset` prints as commands that may go to nft one by one; [] for a text in another form.

    First all that has a name, each in its table, then the elements of sets and maps, which may name chains,
    then the rules, which may name all of it.
    """
    named: list[str] = []
    elements: list[str] = []
    rules: list[str] = []
    table = name = kind = ""
    head: list[str] = []
    block: list[str] = []
    listing = False
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        if not line.startswith("\t"):
            if words[0] == "table" and words[-1] == "{":
                table, head = f"{words[1]} {words[2]}", []
                named.append(f"{line}\n}}")
            elif line != "}":
                return []
        elif not line.startswith("\t\t"):
            if words[-1] == "{":
                kind, name, block = words[0], words[1], [line]
            elif line == "\t}":
                named.append("\n".join([f"table {table} {{", *head, *block, line, "}"]))
            else:  # of the table itself; said again with every block, since a table without "dormant" wakes up
                head.append(line)
                named[-1] = "\n".join([f"table {table} {{", *head, "}"])
        elif listing or (kind in ("set", "map") and words[:3] == ["elements", "=", "{"]):
            listing = line.endswith(",")
            some = line.strip().removeprefix("elements = {").removesuffix("," if listing else "}")
            elements.append(f"add element {table} {name} {{ {some.strip()} }}")
        elif kind == "chain" and words[0] not in ("type", "comment", "flags"):
            rules.append(f"add rule {table} {name} {line.strip()}")
        else:
            block.append(line)
    return named + elements + rules


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Agent().serve()
    os._exit(0)  # at once: what still runs here ends with this process
