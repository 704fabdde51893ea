"""What every tool is: a name, and a function from (network, namespace, arguments) to what the terminal shows.

A tool sees what the same program would see in that namespace: its kernel state, the files beside it, and
what comes back over the network when it sends packets. Its text is what a terminal would show. An option
that is not modelled is refused by name, never ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Struct

from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.trace import Trace
from kubenet_lab.walk.engine import Walk

if TYPE_CHECKING:
    from kubenet_lab.dns.records import Query, Response

NOT_MODELLED = 64
"""Exit status of a refused option: EX_USAGE of sysexits.h, which none of the modelled tools uses itself."""


class Result(Struct):
    """What a command printed and did.

    Attributes:
        out: Standard output.
        err: Standard error.
        exit_code: Exit status.
        rows: The same facts as values, for a DataFrame: one dict a row.
        traces: Packets that were sent, in order.
        err_first: True where standard error comes before standard output on the terminal.
        screen: Both in the order they were written, where that is neither one after the other.
    """

    out: str = ""
    err: str = ""
    exit_code: int = 0
    rows: list[dict[str, Any]] = []
    traces: list[Trace] = []
    err_first: bool = False
    screen: str = ""

    @property
    def text(self) -> str:
        """What the terminal shows."""
        if self.screen:
            return self.screen
        return self.err + self.out if self.err_first else self.out + self.err

    def __str__(self) -> str:
        return self.text

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show what the terminal shows, in a notebook."""
        printer.text(self.text.rstrip("\n"))

    def table(self) -> Any:
        """Return `rows` as a pandas DataFrame."""
        import pandas

        return pandas.DataFrame(self.rows)


class NotModelled(Exception):
    """An option, or a combination of some, that the real tool has and this one has not."""


class Usage(Exception):
    """A command line the real tool refuses too: what it then prints, and its exit status."""

    def __init__(self, text: str, exit_code: int = 1, traces: list[Trace] | None = None) -> None:
        self.text, self.exit_code, self.traces = text, exit_code, traces or []
        super().__init__(text)


class Call(Struct):
    """One run of a tool: where, on what, and with which walk its packets travel."""

    network: Network
    netns: str
    argv: list[str]
    walk: Walk
    stdin: str = ""
    history: list[tuple[float, Trace]] = []
    """Packets sent before, each with its time: what a capture that was running would have seen."""

    @property
    def ns(self) -> Netns:
        """The namespace the tool runs in."""
        return self.network.ns(self.netns)

    @property
    def now(self) -> float:
        """Simulated seconds."""
        return self.walk.now


class Tool(Struct, frozen=True):
    """A program by name. `summary` says in a line what it is good for; `body` does the work."""

    name: str
    summary: str
    body: Callable[[Call], Result]

    def run(
        self,
        network: Network,
        netns: str,
        argv: list[str] | tuple[str, ...] = (),
        *,
        walk: Walk | None = None,
        now: float = 0.0,
        stdin: str = "",
        history: list[tuple[float, Trace]] | None = None,
    ) -> Result:
        """Run the tool in a namespace.

        Args:
            network: The world.
            netns: Name of the namespace ("node-1", "default/frontend").
            argv: Arguments, without the tool's name.
            walk: Carries its packets; commands that share one share a clock. A new one at `now` when None.
            now: Simulated seconds, for a new walk.
            stdin: Standard input.
            history: Packets sent before, each with its time, for tools that show them (`tcpdump -i`).

        Raises:
            NotFound: There is no such namespace.
        """
        network.ns(netns)
        call = Call(network, netns, list(argv), walk or Walk(network, now=now), stdin, history or [])
        try:
            return self.body(call)
        except NotModelled as missing:
            return Result(err=f"{self.name}: not modelled: {missing}\n", exit_code=NOT_MODELLED)
        except Usage as usage:
            return Result(err=usage.text, exit_code=usage.exit_code, traces=usage.traces)


class Asked(NamedTuple):
    """What came of one question to one name server; `problem` is "" or dig's word for what went wrong."""

    response: Response | None
    problem: str
    traces: list[Trace]
    seconds: float


_PROBLEMS = {
    "ECONNREFUSED": "connection refused",
    "EHOSTUNREACH": "host unreachable",
    "ENETUNREACH": "network unreachable",
    "EACCES": "permission denied",
    "EPERM": "permission denied",
    "EMSGSIZE": "message too long",
}


def ask(
    call: Call, query: Query, server: str, *, port: int = 53, tcp: bool = False, timeout: float = 5.0
) -> Asked:
    """Send a question to a name server as a packet of its own, and return what came back.

    Time passes: simulated time goes on by the timeout when nothing comes.
    """
    from kubenet_lab.dns.records import Response
    from kubenet_lab.packet.packet import SYN, TCP, UDP, Packet
    from kubenet_lab.walk.exchange import exchange

    packet = Packet("", server, TCP if tcp else UDP, 0, port, flags=SYN if tcp else 0)
    if not tcp:
        packet = packet.replace(message=query, payload_size=query.wire_length)
    done = exchange(call.walk, call.netns, packet, patience=timeout)
    if not done.ok:
        call.walk.now += min(done.seconds, timeout)
        if done.verdict == "not modelled":
            raise NotModelled(f"{done.decided_by or done.reason} (a packet to {server} met it)")
        return Asked(None, _PROBLEMS.get(done.errno, "timed out"), done.traces, done.seconds)
    message = done.answer.message if done.answer is not None else None
    if tcp:
        message = None
        seen = done.request.delivered_as
        listener = (
            call.network.ns(done.server_ns).socket_for(TCP, seen.dst, seen.dport)
            if seen is not None
            else None
        )
        if seen is not None and listener is not None and listener.handler is not None:
            answer = listener.handler(seen.replace(message=query, payload_size=query.wire_length), call.now)
            message = answer.message if answer is not None else None
    if not isinstance(message, Response):
        call.walk.now += timeout
        return Asked(None, "timed out", done.traces, timeout)
    call.walk.now += message.delay
    return Asked(message, "", done.traces, message.delay)


def reverse(call: Call, address: str) -> tuple[str, list[Trace]]:
    """Return the name of an address as getnameinfo(3) finds it, "" for none, and the packets that took."""
    from kubenet_lab.dns.lookup import ResolvConf
    from kubenet_lab.dns.names import reverse_name
    from kubenet_lab.dns.records import Query

    for line in call.ns.files.get("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n").splitlines():
        words = line.partition("#")[0].split()
        if len(words) > 1 and words[0] == address:
            return words[1], []
    conf = call.ns.files.get("/etc/resolv.conf", "")
    if not conf:
        return "", []
    traces: list[Trace] = []
    for server in ResolvConf.from_text(conf).nameservers:
        asked = ask(call, Query(reverse_name(address), "PTR"), server)
        traces += asked.traces
        if asked.response is not None:
            names = [record.data.rstrip(".") for record in asked.response.answer if record.type == "PTR"]
            return (names[0] if names else ""), traces
    return "", traces


class Options:
    """Splits arguments as getopt(3) does, for tools whose options are letters and words.

    Args:
        argv: The arguments.
        flags: Options without a value: every spelling -> the option's name.
        values: Options with one: every spelling -> the option's name.
        unknown: (option) -> the exception that refuses it.
        permute: Options may follow operands; False stops at the first operand.
    """

    def __init__(
        self,
        argv: list[str],
        flags: dict[str, str],
        values: dict[str, str],
        unknown: Callable[[str], Exception],
        missing: Callable[[str], Exception],
        *,
        permute: bool = True,
    ) -> None:
        self.given: list[tuple[str, str]] = []
        self.operands: list[str] = []
        rest = list(argv)
        while rest:
            word = rest.pop(0)
            if word == "--":
                self.operands += rest
                break
            if word.startswith("--"):
                name, equals, value = word.partition("=")
                if name in values:
                    if not equals:
                        if not rest:
                            raise missing(name)
                        value = rest.pop(0)
                    self.given.append((values[name], value))
                elif name in flags and not equals:
                    self.given.append((flags[name], ""))
                else:
                    raise unknown(name)
            elif word.startswith("-") and len(word) > 1:
                letters = word[1:]
                while letters:
                    name, letters = "-" + letters[0], letters[1:]
                    if name in values:
                        if not letters and not rest:
                            raise missing(name)
                        self.given.append((values[name], letters or rest.pop(0)))
                        letters = ""
                    elif name in flags:
                        self.given.append((flags[name], ""))
                    else:
                        raise unknown(name)
            else:
                self.operands.append(word)
                if not permute:
                    self.operands += rest
                    break

    def has(self, name: str) -> bool:
        """True when an option was given."""
        return any(given == name for given, _ in self.given)

    def get(self, name: str, default: str = "") -> str:
        """Return the value last given for an option."""
        return next((value for given, value in reversed(self.given) if given == name), default)

    def all(self, name: str) -> list[str]:
        """Return every value given for an option, in order."""
        return [value for given, value in self.given if given == name]


SERVICES: dict[int, dict[int, str]] = {
    6: {
        20: "ftp-data",
        21: "ftp",
        22: "ssh",
        23: "telnet",
        25: "smtp",
        53: "domain",
        80: "http",
        88: "kerberos",
        110: "pop3",
        111: "sunrpc",
        143: "imap2",
        161: "snmp",
        179: "bgp",
        389: "ldap",
        443: "https",
        465: "submissions",
        514: "shell",
        587: "submission",
        636: "ldaps",
        853: "domain-s",
        873: "rsync",
        993: "imaps",
        995: "pop3s",
        2049: "nfs",
        3306: "mysql",
        5432: "postgresql",
        5672: "amqp",
        6379: "redis",
        8080: "http-alt",
        8081: "tproxy",
        9418: "git",
    },
    17: {
        21: "fsp",
        53: "domain",
        67: "bootps",
        68: "bootpc",
        69: "tftp",
        88: "kerberos",
        111: "sunrpc",
        123: "ntp",
        161: "snmp",
        389: "ldap",
        443: "https",
        514: "syslog",
        636: "ldaps",
        853: "domain-s",
        2049: "nfs",
        5353: "mdns",
    },
}
"""Names of /etc/services (Debian 12) by protocol and port, for ports seen in clusters; `-n` asks for numbers.
"""


def service(port: int, proto: int = 6) -> str:
    """Return a port's name in /etc/services, or its number."""
    return SERVICES.get(proto, {}).get(port, str(port))
