"""`curl`: a call over HTTP, or how it failed (curl 7.88.1).

What answers is what listens: a model's TCP listener accepts, and its program says who it is and whom it
sees, as the program of a pod does in the twin. Output is that of a terminal: no progress meter, line ends
as a terminal shows them.
"""

from __future__ import annotations

import re
from typing import Any

from diagnostics.tool import Call, NotModelled, Options, Result, Tool, Usage
from kubenet_lab.dns.client import lookup
from kubenet_lab.packet.http import Response
from kubenet_lab.packet.ip import canonical, family
from kubenet_lab.packet.packet import ACK, FIN, PSH, SYN, TCP, Packet
from kubenet_lab.trace import Trace
from kubenet_lab.walk.exchange import Exchange, exchange, flatten
from kubenet_lab.walk.http import ask

PORTS = {"http": 80, "https": 443, "ftp": 21, "telnet": 23}
PATIENCE = 300.0
"""Seconds curl gives a connection without --connect-timeout."""

_FLAGS = {
    "-s": "s",
    "--silent": "s",
    "-S": "S",
    "--show-error": "S",
    "-v": "v",
    "--verbose": "v",
    "-i": "i",
    "--include": "i",
    "-I": "I",
    "--head": "I",
    "-f": "f",
    "--fail": "f",
    "-L": "L",
    "--location": "L",
    "-4": "4",
    "--ipv4": "4",
    "-6": "6",
    "--ipv6": "6",
    "-k": "k",
    "--insecure": "k",
    "-V": "V",
    "--version": "V",
    "--http1.1": "h",
    "-N": "N",
    "--no-buffer": "N",
}
_VALUES = {
    "-m": "m",
    "--max-time": "m",
    "--connect-timeout": "c",
    "-o": "o",
    "--output": "o",
    "-w": "w",
    "--write-out": "w",
    "-H": "H",
    "--header": "H",
    "-X": "X",
    "--request": "X",
    "-d": "d",
    "--data": "d",
    "--resolve": "r",
    "-A": "A",
    "--user-agent": "A",
    "--url": "u",
    "--interface": "if",
}
_HINT = "curl: try 'curl --help' or 'curl --manual' for more information\n"

_OS_ERRORS = {
    "ECONNREFUSED": "Connection refused",
    "EHOSTUNREACH": "No route to host",
    "ENETUNREACH": "Network is unreachable",
    "EACCES": "Permission denied",
    "EINVAL": "Invalid argument",
    "EADDRNOTAVAIL": "Cannot assign requested address",
    "EPERM": "Operation not permitted",
    "EMSGSIZE": "Message too long",
    "ETIMEDOUT": "Connection timed out",
}


class _Stop(Exception):
    """The transfer ended early: exit status and message."""

    def __init__(self, code: int, message: str) -> None:
        self.code, self.message = code, message
        super().__init__(message)


def run(call: Call) -> Result:
    """`curl [-s] [-v] [--connect-timeout S] URL...`."""

    def unknown(option: str) -> Exception:
        if option in (
            "--progress-bar",
            "--retry",
            "--proxy",
            "-x",
            "--cacert",
            "--cert",
            "-u",
            "--user",
            "--compressed",
            "-T",
            "-F",
            "-b",
            "-c",
            "-e",
            "-x",
            "-#",
            "--data-binary",
            "--data-raw",
            "-g",
            "--globoff",
            "-O",
            "--http2",
            "--unix-socket",
            "-K",
            "-q",
            "-r",
        ):
            return NotModelled(f"option {option}")
        return Usage(f"curl: option {option}: is unknown\n{_HINT}", 2)

    def missing(option: str) -> Exception:
        return Usage(f"curl: option {option}: requires parameter\n{_HINT}", 2)

    options = Options(call.argv, _FLAGS, _VALUES, unknown, missing)
    if options.has("V"):
        return Result("curl 7.88.1\n")
    urls = [*options.all("u"), *options.operands]
    if not urls:
        raise Usage(_HINT, 2)
    if options.has("if"):
        raise NotModelled("option --interface")
    total = Result()
    screen = ""
    for url in urls:
        one = _Transfer(call, options, url)
        code = one.run()
        total.out += one.out
        total.err += one.err
        screen += one.screen
        total.exit_code = code
        total.rows.append(one.row)
        total.traces += one.traces
    total.screen = screen
    return total


class _Transfer:
    """One URL."""

    def __init__(self, call: Call, options: Options, url: str) -> None:
        self.call, self.options, self.url = call, options, url
        self.out = self.err = self.screen = ""
        self.traces: list[Trace] = []
        self.row: dict[str, Any] = {"url": url, "code": 0, "remote": "", "exit": 0, "error": ""}
        self.values: dict[str, str] = {
            "http_code": "000",
            "remote_ip": "",
            "remote_port": "0",
            "local_ip": "",
            "local_port": "0",
            "response_code": "000",
            "size_download": "0",
            "url_effective": url,
            "exitcode": "0",
            "errormsg": "",
            "num_connects": "0",
            "scheme": "",
            "method": "GET",
            "content_type": "",
            "time_total": "0.000000",
            "time_connect": "0.000000",
        }
        self.verbose = options.has("v")
        self.began = call.now
        self.limit = self._seconds("m")

    def _seconds(self, name: str) -> float:
        text = self.options.get(name)
        try:
            return float(text) if text else 0.0
        except ValueError:
            flag = "-m, --max-time" if name == "m" else "--connect-timeout"
            raise Usage(f"curl: option {flag}: expected a proper numerical parameter\n{_HINT}", 2) from None

    def say(self, line: str) -> None:
        """Write a line of -v to standard error."""
        if self.verbose:
            self.err += line + "\n"
            self.screen += line + "\n"

    def write(self, text: str) -> None:
        """Write to standard output."""
        self.out += text
        self.screen += text

    def run(self) -> int:
        code, message = 0, ""
        try:
            self._transfer()
        except _Stop as stop:
            code, message = stop.code, stop.message
            if self.verbose and code != 3 and code != 1:
                self.say("* Closing connection 0")
        if self.options.has("w"):
            self._write_out(code, message)
        self.row |= {"exit": code, "error": message}
        if code and (not self.options.has("s") or self.options.has("S")):
            line = f"curl: ({code}) {message}\n"
            self.err += line
            self.screen += line
        return code

    def _write_out(self, code: int, message: str) -> None:
        self.values |= {"exitcode": str(code), "errormsg": message}

        def value(match: re.Match[str]) -> str:
            if match[1] not in self.values:
                raise NotModelled(f"--write-out %{{{match[1]}}}")
            return self.values[match[1]]

        form = self.options.get("w").replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r")
        self.write(re.sub(r"%\{([a-z_]+)\}", value, form).replace("%%", "%"))

    def _transfer(self) -> None:
        scheme, host, port, path = self._split()
        if scheme == "https":
            self.values["scheme"] = "HTTPS"
        addresses = self._resolve(host, port)
        done, address = self._connect(host, port, addresses)
        if scheme in ("ftp", "telnet", "https"):
            raise NotModelled(f"what follows once a {scheme} connection to {address}:{port} stands (it does)")
        self._http(host, port, path, address, done)

    def _split(self) -> tuple[str, str, int, str]:
        scheme, sep, rest = self.url.partition("://")
        if not sep:
            scheme, rest = "http", self.url
        scheme = scheme.lower()
        if scheme not in PORTS:
            raise _Stop(1, f'Protocol "{scheme}" not supported or disabled in libcurl')
        found = re.match(r"^(?:[^@/]*@)?(\[[0-9a-fA-F:.%]+\]|[^:/?#]*)(?::([^/?#]*))?(.*)$", rest)
        bad = _Stop(3, "URL using bad/illegal format or missing URL")
        if found is None or not found[1]:
            raise bad
        port = PORTS[scheme]
        if found[2]:
            if not found[2].isdigit() or int(found[2]) > 65535:
                raise bad
            port = int(found[2])
        path = found[3].partition("#")[0]
        return scheme, found[1].strip("[]"), port, path if path.startswith("/") else f"/{path}"

    def _resolve(self, host: str, port: int) -> list[str]:
        wanted = 4 if self.options.has("4") else 6 if self.options.has("6") else 0
        for entry in self.options.all("r"):
            name, _, rest = entry.partition(":")
            given, _, address = rest.partition(":")
            if name == host and given == str(port):
                return [a.strip("[]") for a in address.split(",")]
        try:
            found: tuple[str, ...] = (canonical(host),)
        except ValueError:
            looked = lookup(self.call.walk, self.call.ns, host)
            self.traces += [trace for query in looked.queries for trace in query.traces]
            spent = looked.resolution.seconds if looked.resolution is not None else 0.0
            limit = self._seconds("c") or self.limit
            if limit and spent > limit:
                self.call.walk.now += limit
                raise _Stop(28, f"Resolving timed out after {limit * 1000 + 1:.0f} milliseconds") from None
            self.call.walk.now += spent
            found = looked.addresses
        fits = [address for address in found if wanted in (0, family(address))]
        if not fits:
            self.say(f"* Could not resolve host: {host}")
            raise _Stop(6, f"Could not resolve host: {host}")
        return fits

    def _connect(self, host: str, port: int, addresses: list[str]) -> tuple[Exchange, str]:
        limit = self._seconds("c") or PATIENCE
        if self.limit:
            limit = min(limit, self.limit)
        began = self.call.now
        error = ""
        for at, address in enumerate(addresses):
            shown = f"[{address}]" if ":" in address else address
            self.say(f"*   Trying {shown}:{port}...")
            left = limit - (self.call.now - began)
            patience = left if at == len(addresses) - 1 else left / 2
            done = exchange(
                self.call.walk,
                self.call.netns,
                Packet("", address, TCP, 0, port, flags=SYN),
                patience=patience,
            )
            self.traces += done.traces
            if done.ok:
                self.call.walk.now += done.seconds
                return done, address
            if done.verdict == "not modelled":
                raise NotModelled(f"{done.decided_by or done.reason} (a packet to {address} met it)")
            self.call.walk.now += min(done.seconds, patience)
            error = done.errno
            if error == "ETIMEDOUT":
                if self._seconds("c"):
                    self.say(
                        f"* ipv{family(address)} connect timeout after {patience * 1000:.0f}ms, move on!"
                    )
            elif done.request.place.netns == self.call.netns and done.request.reason in (
                "no-route",
                "route-prohibit",
                "route-blackhole",
                "route-unreachable",
                "no-source",
            ):
                self.say(f"* Immediate connect fail for {address}: {_OS_ERRORS.get(error, error)}")
            else:
                self.say(f"* connect to {address} port {port} failed: {_OS_ERRORS.get(error, error)}")
        took = (self.call.now - began) * 1000
        if error == "ETIMEDOUT":
            if self.limit and not (self._seconds("c") and self._seconds("c") < self.limit):
                raise _Stop(28, f"Connection timed out after {took + 1:.0f} milliseconds")
            message = f"Failed to connect to {host} port {port} after {took + 1:.0f} ms: Timeout was reached"
            self.say(f"* {message}")
            raise _Stop(28, message)
        message = f"Failed to connect to {host} port {port} after {took:.0f} ms: Couldn't connect to server"
        self.say(f"* {message}")
        raise _Stop(7, message)

    def _http(self, host: str, port: int, path: str, address: str, done: Exchange) -> None:
        method = self.options.get("X") or (
            "HEAD" if self.options.has("I") else "POST" if self.options.has("d") else "GET"
        )
        seen = done.request.delivered_as
        assert seen is not None
        sent = done.request.hops[0].packet if done.request.hops else done.request.packet
        self.say(f"* Connected to {host} ({address}) port {port} (#0)")
        authority = f"[{host}]" if ":" in host else host
        default = port == 80
        fields = {
            "Host": authority if default else f"{authority}:{port}",
            "User-Agent": self.options.get("A", "curl/7.88.1"),
            "Accept": "*/*",
        }
        body = "&".join(self.options.all("d"))
        for given in self.options.all("H"):
            name, _, value = given.partition(":")
            match = next((key for key in fields if key.lower() == name.lower()), name)
            if value.strip():
                fields[match] = value.strip()
            else:
                fields.pop(match, None)
        if body:
            fields.setdefault("Content-Length", str(len(body)))
            fields.setdefault("Content-Type", "application/x-www-form-urlencoded")
        lines = [f"{method} {path} HTTP/1.1", *(f"{key}: {value}" for key, value in fields.items())]
        for line in lines:
            self.say(f"> {line}")
        self.say("> ")
        request = "\r\n".join(lines) + "\r\n\r\n" + body
        told = ask(self.call.walk, done, request.encode())
        if told is None:
            page = f"{done.server_ns.rpartition('/')[2]}: hello, {seen.src}\n" if method != "HEAD" else ""
            own = (
                ("Content-Type", "text/plain"),
                ("Content-Length", str(len(page))),
                ("Connection", "close"),
            )
            told = Response(200, own, page)
        page, answer = told.body, told.fields
        packet = Packet(
            sent.src, address, TCP, sent.sport, port, flags=PSH | ACK, seq=1, ack=1, payload=request.encode()
        )
        self._send(self.call.netns, packet)
        back = Packet(
            seen.dst,
            seen.src,
            TCP,
            seen.dport,
            seen.sport,
            flags=PSH | ACK,
            seq=1,
            ack=1 + len(request),
            payload=told.to_bytes(),
        )
        self._send(done.server_ns, back)
        self._close(done, packet, back)
        self.values |= {
            "http_code": f"{told.status:03}",
            "response_code": f"{told.status:03}",
            "remote_ip": address,
            "remote_port": str(port),
            "local_ip": sent.src,
            "local_port": str(sent.sport),
            "size_download": str(len(page)),
            "num_connects": "1",
            "scheme": "HTTP",
            "method": method,
            "content_type": told.field("Content-Type"),
        }
        self.row |= {
            "code": told.status,
            "remote": f"{address}:{port}",
            "server": done.server_ns,
            "source_seen": seen.src,
            "body": page,
        }
        shown = [told.line, *(f"{key}: {value}" for key, value in answer)]
        for line in shown:
            self.say(f"< {line}")
        self.say("< ")
        if self.options.has("f") and told.status >= 400:
            raise _Stop(22, f"The requested URL returned error: {told.status}")
        to = self.options.get("o")
        if self.options.has("i") or self.options.has("I"):
            self.write("".join(line + "\r\n" for line in [*shown, ""]))
        if not to or to == "-":
            self.write(page)
        elif to != "/dev/null":
            self.call.ns.files[to] = page
        self.say("* Closing connection 0")

    def _close(self, done: Exchange, request: Packet, answer: Packet) -> None:
        """Close the connection as both programs do: the server first, as it said."""
        asked, told = 1 + len(request.payload), 1 + len(answer.payload)
        fin = {"flags": FIN | ACK, "payload": b""}
        for ns, packet in (
            (done.server_ns, answer.replace(seq=told, ack=asked, **fin)),
            (self.call.netns, request.replace(seq=asked, ack=told + 1, **fin)),
            (done.server_ns, answer.replace(seq=told + 1, ack=asked + 1, flags=ACK, payload=b"")),
        ):
            self.traces += flatten(self.call.walk.send(ns, packet, role="data"))

    def _send(self, ns: str, packet: Packet) -> None:
        """Send data on the connection; where it is lost, curl waits until its time is up."""
        trace = self.call.walk.send(ns, packet, role="data")
        self.traces += flatten(trace)
        if trace.delivered:
            return
        if not self.limit:
            raise NotModelled(
                f"an answer that never comes ({trace.place}: {trace.why}); curl waits for ever without -m"
            )
        left = self.limit - (self.call.now - self.began)
        self.call.walk.now += max(left, 0.0)
        raise _Stop(
            28, f"Operation timed out after {self.limit * 1000 + 1:.0f} milliseconds with 0 bytes received"
        )


TOOL = Tool("curl", "call an HTTP server: who answers, or how the connection fails", run)
