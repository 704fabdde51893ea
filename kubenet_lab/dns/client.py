"""A program's name lookup over the network: the resolver's queries as packets from its own namespace.

`getaddrinfo` decides what to ask; each question walks to the name server like any datagram, and what comes back (an
answer, an ICMP error, nothing) is what the resolver gets.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from kubenet_lab.dns import go, musl
from kubenet_lab.dns.lookup import Resolution, Unreachable, Via
from kubenet_lab.dns.records import Query as Question
from kubenet_lab.dns.records import Response
from kubenet_lab.dns.resolver import getaddrinfo
from kubenet_lab.dns.server.plugin import Upstream
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.ip import ip_int
from kubenet_lab.packet.packet import SYN, TCP, UDP, Packet
from kubenet_lab.trace import Query
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import exchange

RESOLV_CONF, HOSTS, NSSWITCH = "/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf"


class Lookup(Struct):
    """What a lookup came to: addresses in the order a program tries them, and every query with its packets.

    `failure` is "" or a key of `trip.REASONS_OF_NAMES`.
    """

    addresses: tuple[str, ...]
    queries: list[Query]
    failure: str = ""
    resolution: Resolution | None = None


def lookup(walk: Walk, ns: Netns, name: str, libc: str = "glibc", *, resolv_conf: str = "") -> Lookup:
    """Look a name up as a program in `ns` does: `getent ahosts NAME` there. An address needs no question.

    `libc` is "glibc", "musl" (Alpine) or "go" (a Go program without cgo). `resolv_conf` stands in for the
    namespace's file.
    """
    try:
        ip_int(name)
    except ValueError:
        pass
    else:
        return Lookup((name,), [])
    asker = Asker(walk, ns)
    conf = resolv_conf or ns.files.get(RESOLV_CONF, "")
    hosts = ns.files.get(HOSTS, "127.0.0.1\tlocalhost\n::1\tlocalhost\n")

    def usable(address: str) -> bool:
        return ns.lookup(address) is not None

    if libc == "musl":
        found = musl.getaddrinfo(name, conf, asker.send, hosts=hosts, now=walk.now, usable=usable)
    elif libc == "go":
        local = next((a.local for a in ns.addrs("eth0")), "127.0.0.1")
        nsswitch = ns.files.get(NSSWITCH, "hosts: files dns\n")
        found = go.getaddrinfo(
            name, conf, asker.send, hosts=hosts, nsswitch=nsswitch, now=walk.now, local=local, usable=usable
        )
    else:
        nsswitch = ns.files.get(NSSWITCH, "hosts: files dns\n")
        found = getaddrinfo(
            name, conf, asker.send, hosts=hosts, nsswitch=nsswitch, now=walk.now, usable=usable
        )
    return Lookup(
        found.addresses, asker.queries, "" if found.addresses else _failure(found, asker.queries), found
    )


def _failure(found: Resolution, queries: list[Query]) -> str:
    if found.error == "EAI_AGAIN":
        rcodes = {query.rcode for query in queries}
        if "timeout" in rcodes:
            return "dns-timeout"
        return "dns-unreachable" if rcodes & {"refused", "unreachable", "not permitted"} else "dns-failure"
    return "no-address" if found.error == "EAI_NODATA" else "no-such-name"


class Asker:
    """Carries questions to name servers and remembers each with its packets."""

    def __init__(self, walk: Walk, ns: Netns) -> None:
        self.walk = walk
        self.ns = ns
        self.queries: list[Query] = []
        self._ports: dict[int, int] = {}

    def send(self, question: Question, server: str, via: Via) -> Response | Unreachable | None:
        """Send one question; the answer, an error the network reported, or None for silence (`lookup.Send`)."""
        tcp = via.protocol == "tcp"
        proto = TCP if tcp else UDP
        port = self._ports.get(via.socket, 0)
        asked = Packet(
            "",
            server.partition("%")[0],
            proto,
            port,
            53,
            flags=SYN if tcp else 0,
            message=question,
            payload_size=0 if tcp else question.wire_length,
        )
        self.walk.now = via.now
        self.walk.racing = self.walk.network.race if via.parallel and not tcp else ""
        try:
            done = exchange(self.walk, self.ns.name, asked)
        finally:
            self.walk.racing = ""
        self._ports[via.socket] = done.request.packet.sport
        answer: Response | Unreachable | None = None
        rcode, answers = "timeout", []
        if done.ok and tcp:
            answer = self._over_tcp(question, done.server_ns, done.request.delivered_as)
        elif done.ok and done.answer is not None and isinstance(done.answer.message, Response):
            answer = done.answer.message
        elif done.verdict in ("refused", "unreachable", "not permitted", "message too long"):
            answer = Unreachable(done.seconds, done.verdict)
        if isinstance(answer, Response):
            rcode, answers = answer.rcode, list(answer.addresses)
        elif isinstance(answer, Unreachable):
            rcode = done.verdict
        waited = answer.delay if answer is not None else done.seconds
        self.queries.append(Query(question.name, question.type, server, rcode, answers, waited, done.traces))
        return answer

    def _over_tcp(self, question: Question, server_ns: str, seen: Packet | None) -> Response | None:
        """Once the connection stands, the server that took it answers on it."""
        if seen is None:
            return None
        socket = self.walk.network.ns(server_ns).socket_for(TCP, seen.dst, seen.dport)
        if socket is None or socket.handler is None:
            return None
        answer = socket.handler(seen, self.walk.now)
        return answer.message if answer is not None and isinstance(answer.message, Response) else None


def upstream_from(network: Network, ns: str, now: Callable[[], float], seed: int = 0) -> Upstream:
    """Return how a name server in `ns` asks others: by packets that walk from there."""

    def ask(query: Question, server: str, protocol: str) -> Response | None:
        asker = Asker(Walk(network, now=now(), seed=seed), network.ns(ns))
        host = server.rpartition(":")[0].strip("[]") or server
        answer = asker.send(query, host, Via(protocol, 1, now()))
        if isinstance(answer, Unreachable):
            if answer.reason == "refused":
                raise ConnectionRefusedError(server)
            return None
        return answer

    return ask
