"""IP Virtual Server: virtual servers, their real servers, schedulers and connections of one namespace (ipvsadm(8)).

A virtual server is an address, port and protocol (or a firewall mark) that the kernel shares out: the scheduler picks
one of its real servers for a new connection, and the connection entry keeps it there. Semantics:
net/netfilter/ipvs/ip_vs_{ctl,conn,rr,wrr,lc,wlc,sh,dh,sed,nq,mh,lblc,lblcr,fo,ovf}.c and ip_vs_proto_{tcp,udp,sctp}.c;
Documentation/networking/ipvs-sysctl.rst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import gcd
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.errors import KubenetLabError
from kubenet_lab.packet.ip import IP_INT, PREFIX, ip_text
from kubenet_lab.packet.packet import ACK, FIN, RST, SCTP, SYN, TCP, UDP

PERSISTENT, ONE_PACKET, SCHED_1, SCHED_2, SCHED_3 = 0x1, 0x4, 0x8, 0x10, 0x20
"""Flags of a virtual server (include/uapi/linux/ip_vs.h). The SCHED ones mean what its scheduler says."""

SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "mh", "sed", "nq", "fo", "ovf")
SCHEDULER_FLAGS = {
    "sh": {"sh-fallback": SCHED_1, "sh-port": SCHED_2},
    "mh": {"mh-fallback": SCHED_1, "mh-port": SCHED_2},
}
"""Names of flags by scheduler, as `ipvsadm -b` takes them."""

FORWARDS = ("masq", "route", "tunnel")
"""How packets reach a real server: translated, sent on to its MAC as they are, or wrapped."""

TEMPLATE = "NONE"
"""State of a persistence template that no connection assured yet; "ASSURED" afterwards."""

ServiceKey = tuple[int, str, int]
"""(protocol, address, port), or (0, "4" or "6", mark) of a virtual server by firewall mark."""
Server = tuple[str, int]
"""(address, port) of a real server."""
ConnKey = tuple[int, str, int, str, int]
"""(protocol, source, source port, destination, destination port)."""

_NAMES = {TCP: "TCP", UDP: "UDP", SCTP: "SCTP", 0: "IP"}


class IpvsError(KubenetLabError):
    """An edit was refused; the text is ipvsadm's."""


class VirtualServer(Struct, frozen=True, gc=False):
    """One virtual server (`ipvsadm -A`).

    Attributes:
        protocol: 6, 17 or 132; 0 with `fwmark`.
        persistent: Seconds that a client keeps its real server (`-p`), 0 for no persistence.
        netmask: Prefix length of what counts as one client (`-M`); 0 for a single address.
        flags: `ONE_PACKET` and the scheduler's flags; PERSISTENT is implied by `persistent`.
        fwmark: The firewall mark it serves instead of an address (`-f`), in family `fwmark_family`.
    """

    protocol: int
    address: str
    port: int
    scheduler: str = "rr"
    persistent: int = 0
    netmask: int = 0
    flags: int = 0
    fwmark: int = 0
    fwmark_family: int = 4

    @property
    def key(self) -> ServiceKey:
        """What identifies it."""
        if self.fwmark:
            return (0, str(self.fwmark_family), self.fwmark)
        return (self.protocol, self.address, self.port)

    @property
    def family(self) -> int:
        """4 or 6."""
        return self.fwmark_family if self.fwmark else 6 if ":" in self.address else 4

    @property
    def all_flags(self) -> int:
        """The flags as the kernel's number, PERSISTENT among them."""
        return self.flags | (PERSISTENT if self.persistent else 0)

    @property
    def flag_names(self) -> tuple[str, ...]:
        """The scheduler's flags by name."""
        known = SCHEDULER_FLAGS.get(self.scheduler, {})
        return tuple(name for name, bit in known.items() if self.flags & bit)

    def __str__(self) -> str:
        if self.fwmark:
            return f"FWM {self.fwmark}{' IPv6' if self.fwmark_family == 6 else ''} {self._how}"
        return f"{_NAMES[self.protocol]} {socket_text(self.address, self.port)} {self._how}"

    @property
    def _how(self) -> str:
        return f"{self.scheduler} persistent {self.persistent}" if self.persistent else self.scheduler


class RealServer(Struct, frozen=True, gc=False):
    """One real server of a virtual server (`ipvsadm -a`). `upper` and `lower` are the thresholds `-x` and `-y`."""

    address: str
    port: int
    weight: int = 1
    forward: str = "masq"
    upper: int = 0
    lower: int = 0

    @property
    def server(self) -> Server:
        """What identifies it among those of its virtual server."""
        return (self.address, self.port)

    def __str__(self) -> str:
        return f"{socket_text(self.address, self.port)} {self.forward} weight {self.weight}"


def socket_text(address: str, port: int) -> str:
    """Return "10.96.0.1:443" or "[fd00::1]:443"."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class ConnRecord(NamedTuple):
    """What a connection entry was at one moment, as a trace keeps it."""

    protocol: int
    client: Server
    virtual: Server
    real: Server
    state: str

    def __str__(self) -> str:
        parts = (socket_text(*self.client), socket_text(*self.virtual), socket_text(*self.real))
        return f"{_NAMES.get(self.protocol, str(self.protocol))} {self.state} {' '.join(parts)}"


class Conn(Struct, kw_only=True):
    """One connection entry, or a persistence template (`template`). Mutable: it lives in one table.

    `tracked` is IP_VS_CONN_F_NFCT: conntrack follows the connection too. `control` is the template a connection came
    from, and `controlled` counts a template's connections: it cannot expire before them.
    """

    protocol: int
    client: Server
    virtual: Server
    real: Server
    service: ServiceKey
    forward: str = "masq"
    state: str = TEMPLATE
    expires: float = 0.0
    """Simulated time in s at which the entry dies."""
    template: bool = False
    tracked: bool = False
    inactive: bool = True
    one_packet: bool = False
    control: Conn | None = None
    controlled: int = 0
    assured: bool = False

    @property
    def incoming(self) -> ConnKey:
        """The key of the client's packets."""
        return (self.protocol, *self.client, *self.virtual)

    @property
    def outgoing(self) -> ConnKey:
        """The key of the real server's packets."""
        return (self.protocol, *self.real, *self.client)

    @property
    def shown_state(self) -> str:
        """The state as `ipvsadm -Lc` prints it."""
        return "ASSURED" if self.template and self.assured else self.state

    def record(self) -> ConnRecord:
        """Return the entry as it is now."""
        return ConnRecord(self.protocol, self.client, self.virtual, self.real, self.shown_state)

    def __str__(self) -> str:
        return str(self.record())


# -- states of connections ------------------------------------------------------------------------------------------

_TCP_STATES = (
    "NONE", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK",
    "LISTEN", "SYNACK",
)  # fmt: skip
_CODES = dict(
    zip(("NO", "ES", "SS", "SR", "FW", "TW", "CL", "CW", "LA", "LI", "SA"), _TCP_STATES, strict=True)
)


def _row(text: str) -> dict[str, str]:
    return dict(zip(_TCP_STATES, (_CODES[code] for code in text.split()), strict=True))


_TCP = {
    ("in", "syn"): _row("SR ES ES SR SR SR SR SR SR SR SR"),
    ("in", "fin"): _row("CL CW SS TW TW TW CL CW LA LI TW"),
    ("in", "ack"): _row("CL ES SS ES FW TW CL CW CL LI ES"),
    ("in", "rst"): _row("CL CL CL SR CL CL CL CL LA LI SR"),
    ("out", "syn"): _row("SS ES SS SR SS SS SS SS SS LI SR"),
    ("out", "fin"): _row("TW FW SS TW FW TW CL TW LA LI TW"),
    ("out", "ack"): _row("ES ES SS ES FW TW CL CW LA ES ES"),
    ("out", "rst"): _row("CL CL SS CL CL TW CL CL CL CL CL"),
    ("only", "syn"): _row("SR ES ES SR SR SR SR SR SR SR SR"),
    ("only", "fin"): _row("CL FW SS TW FW TW CL CW LA LI TW"),
    ("only", "ack"): _row("CL ES SS ES FW TW CL CW CL LI ES"),
    ("only", "rst"): _row("CL CL CL SR CL CL CL CL LA LI CL"),
}
"""(direction, kind of segment) -> state -> next state; "only" where answers do not come back this way."""

_TCP_TIMEOUTS = {
    "NONE": 2.0, "ESTABLISHED": 900.0, "SYN_SENT": 120.0, "SYN_RECV": 60.0, "FIN_WAIT": 120.0, "TIME_WAIT": 120.0,
    "CLOSE": 10.0, "CLOSE_WAIT": 60.0, "LAST_ACK": 30.0, "LISTEN": 120.0, "SYNACK": 120.0,
}  # fmt: skip
_TCP_ACTIVE = frozenset({"ESTABLISHED", "SYN_SENT", "SYN_RECV", "SYNACK"})
_SCTP_TIMEOUT = 900.0
TEMPLATE_RETRY = 60.0
"""Seconds a template whose connections still live is asked again (`ip_vs_conn_expire`)."""


class Timeouts(Struct, frozen=True):
    """`ipvsadm -L --timeout`: seconds that idle connections are kept."""

    tcp: int = 900
    tcp_fin: int = 120
    udp: int = 300


class Stats(Struct):
    """Counters of a virtual or real server (`ipvsadm -L --stats`)."""

    conns: int = 0
    in_packets: int = 0
    out_packets: int = 0
    in_bytes: int = 0
    out_bytes: int = 0


# -- the table ------------------------------------------------------------------------------------------------------


class IpvsTable:
    """Everything IPVS knows in one namespace.

    Attributes:
        services: Virtual servers by key, oldest first.
        reals: Their real servers, oldest first; the kernel's own list has the youngest first.
        memory: What a scheduler remembers of a virtual server.
    """

    __slots__ = (
        "_next_expiry",
        "by_client",
        "by_real",
        "counts",
        "marks",
        "memory",
        "reals",
        "services",
        "stats",
        "templates",
        "timeouts",
    )

    def __init__(self) -> None:
        self.services: dict[ServiceKey, VirtualServer] = {}
        self.reals: dict[ServiceKey, dict[Server, RealServer]] = {}
        self.by_client: dict[ConnKey, Conn] = {}
        self.by_real: dict[ConnKey, Conn] = {}
        self.templates: dict[ConnKey, Conn] = {}
        self.counts: dict[tuple[ServiceKey, Server], list[int]] = {}
        """(virtual server, real server) -> [active, inactive, persistent] connections."""
        self.stats: dict[tuple[ServiceKey, Server | None], Stats] = {}
        self.memory: dict[ServiceKey, object] = {}
        self.timeouts = Timeouts()
        self.marks = 0
        """How many virtual servers go by a firewall mark: without any, marks are not looked at."""
        self._next_expiry = float("inf")

    def __bool__(self) -> bool:
        return bool(self.services or self.by_client or self.templates)

    def __eq__(self, other: object) -> bool:
        """Whether virtual servers, real servers and time-outs are the same; connections do not count."""
        if not isinstance(other, IpvsTable):
            return NotImplemented
        return (self.services, self.reals, self.timeouts) == (other.services, other.reals, other.timeouts)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<IpvsTable of {len(self.services)} virtual servers, {len(self.by_client)} connections>"

    # Edits

    def add_service(self, service: VirtualServer) -> None:
        """`ipvsadm -A`. Raises IpvsError."""
        _check(service)
        key = service.key
        if key in self.services:
            raise IpvsError("Service already exists")
        self.services[key] = service
        self.reals[key] = {}
        self.marks += bool(service.fwmark)

    def edit_service(self, service: VirtualServer) -> None:
        """`ipvsadm -E`: its connections stay. A new scheduler starts from nothing. Raises IpvsError."""
        _check(service)
        old = self.service(service.key)
        self.services[service.key] = service
        if old.scheduler != service.scheduler:
            self.memory.pop(service.key, None)

    def delete_service(self, key: ServiceKey) -> None:
        """`ipvsadm -D`: its real servers go too; its connections end with their next packet. Raises IpvsError."""
        self.marks -= bool(self.service(key).fwmark)
        del self.services[key]
        for server in self.reals.pop(key):
            self.counts.pop((key, server), None)
            self.stats.pop((key, server), None)
        self.stats.pop((key, None), None)
        self.memory.pop(key, None)

    def add_server(self, key: ServiceKey, real: RealServer) -> None:
        """`ipvsadm -a`. Raises IpvsError."""
        self.service(key)
        if real.server in self.reals[key]:
            raise IpvsError("Destination already exists")
        if real.forward not in FORWARDS:
            raise IpvsError(f"forwarding method {real.forward!r} is none of {', '.join(FORWARDS)}")
        if not 0 <= real.weight <= 65535:
            raise IpvsError("illegal weight specified")
        self.reals[key][real.server] = real
        self._servers_changed(key)

    def edit_server(self, key: ServiceKey, real: RealServer) -> None:
        """`ipvsadm -e`. Raises IpvsError."""
        self.real(key, real.server)
        self.reals[key][real.server] = real
        self._servers_changed(key)

    def delete_server(self, key: ServiceKey, server: Server) -> None:
        """`ipvsadm -d`: what its connections do then, `expire_nodest_conn` says. Raises IpvsError."""
        self.real(key, server)
        memory = self.memory.get(key)
        if isinstance(memory, _RoundRobin) and memory.last == server:
            order = [*self.reals[key]]
            at = order.index(server)
            memory.last = order[at + 1] if at + 1 < len(order) else None
        del self.reals[key][server]
        self.counts.pop((key, server), None)
        self.stats.pop((key, server), None)
        self._servers_changed(key)

    def set_timeouts(self, tcp: int = 0, tcp_fin: int = 0, udp: int = 0) -> None:
        """`ipvsadm --set TCP TCPFIN UDP`, in seconds; 0 leaves one as it is."""
        now = self.timeouts
        self.timeouts = Timeouts(tcp or now.tcp, tcp_fin or now.tcp_fin, udp or now.udp)

    def clear(self) -> None:
        """`ipvsadm -C`."""
        for key in list(self.services):
            self.delete_service(key)

    def zero(self, key: ServiceKey | None = None) -> None:
        """`ipvsadm -Z`: set the counters to zero, of one virtual server or of all. Raises IpvsError."""
        if key is None:
            self.stats.clear()
            return
        self.service(key)
        for place in [place for place in self.stats if place[0] == key]:
            del self.stats[place]

    def _servers_changed(self, key: ServiceKey) -> None:
        if not isinstance(self.memory.get(key), _RoundRobin):
            self.memory.pop(key, None)

    # Looking

    def service(self, key: ServiceKey) -> VirtualServer:
        """Return a virtual server. Raises IpvsError."""
        try:
            return self.services[key]
        except KeyError:
            raise IpvsError("No such service") from None

    def real(self, key: ServiceKey, server: Server) -> RealServer:
        """Return a real server. Raises IpvsError."""
        self.service(key)
        try:
            return self.reals[key][server]
        except KeyError:
            raise IpvsError("No such destination") from None

    def find(self, protocol: int, address: str, port: int, mark: int = 0) -> VirtualServer | None:
        """Return the virtual server a packet is for: by its mark, its address and port, or port 0 (every port)."""
        services = self.services
        if mark and self.marks:
            marked = services.get((0, "6" if ":" in address else "4", mark))
            if marked is not None:
                return marked
        found = services.get((protocol, address, port))
        return found if found is not None else services.get((protocol, address, 0))

    def connections(self, key: ServiceKey, server: Server) -> tuple[int, int, int]:
        """Return how many active, inactive and persistent connections a real server has."""
        active, inactive, persistent = self.counts.get((key, server), (0, 0, 0))
        return active, inactive, persistent

    def available(self, conn: Conn) -> RealServer | None:
        """Return a connection's real server, None when it was taken away since."""
        return self.reals.get(conn.service, {}).get(self._server(conn))

    def _server(self, conn: Conn) -> Server:
        """Which real server a connection counts for: one of port 0 has those of every port (`ip_vs_find_dest`)."""
        reals, every = self.reals.get(conn.service, {}), (conn.real[0], 0)
        return every if conn.real not in reals and every in reals else conn.real

    def __iter__(self) -> Iterator[Conn]:
        yield from (*self.by_client.values(), *self.templates.values())

    # Connections

    def client_conn(self, key: ConnKey, now: float) -> Conn | None:
        """Return the live connection a client's packet belongs to."""
        return self._live(self.by_client.get(key), now)

    def server_conn(self, key: ConnKey, now: float) -> Conn | None:
        """Return the live connection a real server's packet belongs to."""
        return self._live(self.by_real.get(key), now)

    def template(self, key: ConnKey, now: float) -> Conn | None:
        """Return the live template of a client: its key has source port 0."""
        return self._live(self.templates.get(key), now)

    def _live(self, conn: Conn | None, now: float) -> Conn | None:
        if conn is None or conn.expires > now:
            return conn
        if conn.controlled:
            self.expire(now)  # its connections may be due as well
            if conn.controlled:
                conn.expires = now + TEMPLATE_RETRY
                return conn
        self.forget(conn)
        return None

    def connect(self, conn: Conn, now: float) -> Conn:
        """Enter a new connection or template. Its time starts now."""
        if not conn.template:
            for place in ((conn.service, self._server(conn)), (conn.service, None)):
                self.stats.setdefault(place, Stats()).conns += 1
        self._touch(conn, now)
        self.enter(conn)
        return conn

    def enter(self, conn: Conn) -> None:
        """Enter a connection or template as it is."""
        if conn.template:
            self.templates[conn.incoming] = conn
        else:
            self.by_client[conn.incoming] = conn
            self.by_real[conn.outgoing] = conn
            if conn.control is not None:
                conn.control.controlled += 1
        self._count(conn, 2 if conn.template else 1 if conn.inactive else 0, 1)
        self._next_expiry = min(self._next_expiry, conn.expires)

    def _count(self, conn: Conn, which: int, by: int) -> None:
        if self.available(conn) is not None:
            counted = self.counts.setdefault((conn.service, self._server(conn)), [0, 0, 0])
            counted[which] = max(0, counted[which] + by)

    def _touch(self, conn: Conn, now: float) -> None:
        conn.expires = now + self.timeout(conn)
        self._next_expiry = min(self._next_expiry, conn.expires)

    def timeout(self, conn: Conn) -> float:
        """Return how many seconds an entry in its state is kept without a packet."""
        if conn.template:
            service = self.services.get(conn.service)
            return float(service.persistent if service is not None else TEMPLATE_RETRY)
        if conn.protocol == UDP:
            return float(self.timeouts.udp)
        if conn.protocol != TCP:
            return _SCTP_TIMEOUT
        if conn.state == "ESTABLISHED":
            return float(self.timeouts.tcp)
        return float(self.timeouts.tcp_fin) if conn.state == "FIN_WAIT" else _TCP_TIMEOUTS[conn.state]

    def advance(self, conn: Conn, flags: int, size: int, now: float, *, answer: bool = False) -> None:
        """Let a packet change a connection's state and counters (`ip_vs_set_state`, `ip_vs_in_stats`).

        `flags` are those of a TCP segment, `size` the packet's length in bytes, `answer` a real server's packet.
        """
        for place in ((conn.service, self._server(conn)), (conn.service, None)):
            stats = self.stats.setdefault(place, Stats())
            if answer:
                stats.out_packets += 1
                stats.out_bytes += size
            else:
                stats.in_packets += 1
                stats.in_bytes += size
        if conn.protocol == TCP:
            kind = "rst" if flags & RST else "syn" if flags & SYN else "fin" if flags & FIN else "ack"
            way = "out" if answer else "in" if conn.forward == "masq" else "only"
            # A segment without any of these flags is taken for the end.
            state = _TCP[way, kind][conn.state] if flags & (RST | SYN | FIN | ACK) else "CLOSE"
            active = state in _TCP_ACTIVE
            if state != conn.state and active == conn.inactive:
                self._count(conn, 1 if conn.inactive else 0, -1)
                self._count(conn, 0 if conn.inactive else 1, 1)
                conn.inactive = not active
            conn.state = state
            if state == "ESTABLISHED" and conn.control is not None:
                conn.control.assured = True
        elif conn.protocol == UDP:
            conn.state = "UDP"
            if conn.control is not None:
                conn.control.assured = True
        else:
            conn.state = "ESTABLISHED" if answer or conn.state == "ESTABLISHED" else "INIT1"
        self._touch(conn, now)
        if conn.control is not None:
            self._touch(conn.control, now)

    def forget(self, conn: Conn) -> None:
        """Remove an entry; its counters and its template hear of it."""
        if conn.template:
            if self.templates.get(conn.incoming) is conn:
                del self.templates[conn.incoming]
                self._count(conn, 2, -1)
            return
        if self.by_client.get(conn.incoming) is not conn:
            return
        del self.by_client[conn.incoming]
        if self.by_real.get(conn.outgoing) is conn:
            del self.by_real[conn.outgoing]
        self._count(conn, 1 if conn.inactive else 0, -1)
        if conn.control is not None:
            conn.control.controlled -= 1

    def expire(self, now: float) -> int:
        """Remove every entry whose time has come and return how many."""
        if now < self._next_expiry:
            return 0
        dead = [conn for conn in self.by_client.values() if conn.expires <= now]
        for conn in dead:
            self.forget(conn)
        for conn in [conn for conn in self.templates.values() if conn.expires <= now]:
            if conn.controlled:
                conn.expires = now + TEMPLATE_RETRY
            else:
                self.forget(conn)
                dead.append(conn)
        self._next_expiry = min((conn.expires for conn in self), default=float("inf"))
        return len(dead)

    def schedule(self, key: ServiceKey, source: Server, destination: str, now: float) -> RealServer | None:
        """Let a virtual server's scheduler pick a real server for a new connection; None when none will do.

        `source` is the client, `destination` the address it called (lblc and dh go by it). Raises IpvsError for a
        virtual server that is not there.
        """
        service = self.service(key)
        self.expire(now)
        return _SCHEDULE[service.scheduler](self, service, source, destination)

    def usable(self, key: ServiceKey, *, weight: bool = True) -> list[RealServer]:
        """Return the real servers in the kernel's order that are not overloaded, and have a weight if asked."""
        out = []
        for server, real in reversed(self.reals[key].items()):
            if weight and real.weight <= 0:
                continue
            if real.upper and sum(self.connections(key, server)[:2]) >= real.upper:
                continue
            out.append(real)
        return out

    def copy(self) -> IpvsTable:
        """Return an independent copy, connections included."""
        twin = IpvsTable()
        twin.services = dict(self.services)
        twin.reals = {key: dict(reals) for key, reals in self.reals.items()}
        twin.timeouts, twin.marks, twin._next_expiry = self.timeouts, self.marks, self._next_expiry
        twin.counts = {place: list(counted) for place, counted in self.counts.items()}
        twin.stats = {place: replace(stats) for place, stats in self.stats.items()}
        twin.memory = {
            key: _RoundRobin(memory.last, memory.weight) if isinstance(memory, _RoundRobin) else memory
            for key, memory in self.memory.items()
        }
        made = {id(conn): replace(conn) for conn in self}
        for conn in made.values():
            if conn.control is not None:
                conn.control = made.get(id(conn.control))
        twin.by_client = {key: made[id(conn)] for key, conn in self.by_client.items()}
        twin.by_real = {key: made[id(conn)] for key, conn in self.by_real.items()}
        twin.templates = {key: made[id(conn)] for key, conn in self.templates.items()}
        return twin


def client_network(service: VirtualServer, address: str) -> str:
    """Return what a persistence template knows of a client: its address, or the network that `-M` makes of it."""
    if not service.netmask:
        return address
    return ip_text(PREFIX[f"{address}/{service.netmask}"].net, service.family)


def _check(service: VirtualServer) -> None:
    if service.scheduler not in SCHEDULERS:
        raise IpvsError(f"Scheduler or persistence engine not found: {service.scheduler}")
    if service.protocol not in ((0,) if service.fwmark else (TCP, UDP, SCTP)):
        raise IpvsError("Protocol is none of TCP, UDP and SCTP")
    if not service.port and not service.fwmark and not service.persistent:
        raise IpvsError("Zero port specified for non-persistent service")


# -- schedulers -----------------------------------------------------------------------------------------------------

Scheduler = Callable[[IpvsTable, VirtualServer, Server, str], RealServer | None]


class _RoundRobin(Struct):
    """Where rr and wrr are in their list: the real server picked last, and wrr's present weight."""

    last: Server | None = None
    weight: int = 0


def _after(order: list[RealServer], last: Server | None) -> list[RealServer]:
    """Return the list from the one after `last` round to `last` itself."""
    at = next((number + 1 for number, real in enumerate(order) if real.server == last), 0)
    return order[at:] + order[:at]


def _place(table: IpvsTable, key: ServiceKey) -> _RoundRobin:
    memory = table.memory.get(key)
    if not isinstance(memory, _RoundRobin):
        memory = table.memory[key] = _RoundRobin()
    return memory


def _rr(table: IpvsTable, service: VirtualServer, source: Server, destination: str) -> RealServer | None:
    memory = _place(table, service.key)
    usable = {real.server for real in table.usable(service.key)}
    for real in _after([*reversed(table.reals[service.key].values())], memory.last):
        if real.server in usable:
            memory.last = real.server
            return real
    return None


def _wrr(table: IpvsTable, service: VirtualServer, source: Server, destination: str) -> RealServer | None:
    """Go round once for each step of weight, from the greatest down; each turn takes those of at least that weight."""
    memory = _place(table, service.key)
    order = [*reversed(table.reals[service.key].values())]
    weights = [real.weight for real in order if real.weight > 0]
    usable = {real.server for real in table.usable(service.key)}
    if not weights or not usable:
        return None
    step, most = gcd(*weights), max(weights)
    at = next((number + 1 for number, real in enumerate(order) if real.server == memory.last), 0)
    if not 0 < memory.weight <= most:
        memory.weight, at = most, 0
    for _turn in range((most // step + 1) * (len(order) + 1)):
        if at >= len(order):
            at = 0
            memory.weight -= step
            if memory.weight <= 0:
                memory.weight = most
        real = order[at]
        if real.weight >= memory.weight and real.server in usable:
            memory.last = real.server
            return real
        at += 1
    return None


def _overhead(table: IpvsTable, key: ServiceKey, real: RealServer) -> int:
    """An active connection costs as much as 256 inactive ones (`ip_vs_dest_conn_overhead`)."""
    active, inactive, _ = table.connections(key, real.server)
    return (active << 8) + inactive


def _least(
    table: IpvsTable, service: VirtualServer, among: list[RealServer], cost: Callable[[RealServer], int]
) -> RealServer | None:
    """Return the real server with the least cost for its weight; of equals the first in the kernel's list."""
    best: RealServer | None = None
    least = 0
    for real in among:
        here = cost(real)
        # Fractions are compared crosswise, as the kernel does, without dividing.
        if best is None or least * real.weight > here * best.weight:
            best, least = real, here
    return best


def _lc(table: IpvsTable, service: VirtualServer, source: Server, destination: str) -> RealServer | None:
    return min(table.usable(service.key), key=lambda real: _overhead(table, service.key, real), default=None)


def _wlc(table: IpvsTable, service: VirtualServer, source: Server, destination: str) -> RealServer | None:
    key = service.key
    return _least(table, service, table.usable(key), lambda real: _overhead(table, key, real))


def _sed(table: IpvsTable, service: VirtualServer, source: Server, destination: str) -> RealServer | None:
    """Shortest expected delay: the connection to come counts too."""
    key = service.key
    return _least(table, service, table.usable(key), lambda real: table.connections(key, real.server)[0] + 1)


def _nq(table: IpvsTable, service: VirtualServer, source: Server, destination: str) -> RealServer | None:
    """Never queue: an idle one at once, else as sed."""
    for real in table.usable(service.key):
        if table.connections(service.key, real.server)[0] == 0:
            return real
    return _sed(table, service, source, destination)


def _fo(table: IpvsTable, service: VirtualServer, source: Server, destination: str) -> RealServer | None:
    """Fail over: always the one with the greatest weight."""
    return max(table.usable(service.key), key=lambda real: real.weight, default=None)


def _ovf(table: IpvsTable, service: VirtualServer, source: Server, destination: str) -> RealServer | None:
    """Overflow: the greatest weight first, as long as it has fewer active connections than its weight."""
    key = service.key
    free = [r for r in table.usable(key) if table.connections(key, r.server)[0] < r.weight]
    return max(free, key=lambda real: real.weight, default=None)


_BUCKETS = 256


def _fold(address: str) -> int:
    number = IP_INT[address]
    folded = 0
    while number:
        folded ^= number & 0xFFFFFFFF
        number >>= 32
    return folded


def _hash32(number: int) -> int:
    """`hash_32(number, 8)`: multiply by the golden ratio, keep the high bits (include/linux/hash.h)."""
    return (number * 0x61C88647 & 0xFFFFFFFF) >> 24


def _hash_table(table: IpvsTable, service: VirtualServer, weighted: bool) -> list[Server | None]:
    memory = table.memory.get(service.key)
    if isinstance(memory, list):
        return memory
    order = list(reversed(table.reals[service.key].values()))
    filled: list[Server | None] = []
    while order and len(filled) < _BUCKETS:
        for real in order:
            filled += [real.server] * (max(1, real.weight) if weighted else 1)
    made = filled[:_BUCKETS] or [None] * _BUCKETS
    table.memory[service.key] = made
    return made


def _at(table: IpvsTable, service: VirtualServer, server: Server | None) -> RealServer | None:
    """Return a real server if it may be used."""
    if server is None:
        return None
    return next((real for real in table.usable(service.key) if real.server == server), None)


def _dh(table: IpvsTable, service: VirtualServer, source: Server, destination: str) -> RealServer | None:
    """Destination hashing."""
    buckets = _hash_table(table, service, weighted=False)
    return _at(table, service, buckets[_hash32(_fold(destination))])


def _sh(table: IpvsTable, service: VirtualServer, source: Server, destination: str) -> RealServer | None:
    """Source hashing; with sh-port the client's port counts too, with sh-fallback another is taken for a dead one."""
    buckets = _hash_table(table, service, weighted=True)
    port = source[1] if service.flags & SCHED_2 else 0
    start = _hash32(port + _fold(source[0]) & 0xFFFFFFFF)
    found = _at(table, service, buckets[start])
    if found is not None or not service.flags & SCHED_1:
        return found
    for offset in range(_BUCKETS):
        step = (offset + start) % _BUCKETS
        bucket = (step + _hash32(port + _fold(source[0]) & 0xFFFFFFFF)) & 0xFF
        found = _at(table, service, buckets[bucket])
        if found is not None:
            return found
    return None


MAGLEV_SIZE = 4093
"""Places of mh's table (CONFIG_IP_VS_MH_TAB_INDEX=12)."""
_MH_KEYS = ((2654435761, 2654435761), (2654446892, 2654446892))
_WORD = 0xFFFFFFFFFFFFFFFF


def _siphash13(number: int, key: tuple[int, int]) -> int:
    """`hsiphash` of a 32-bit number on a 64-bit machine: SipHash-1-3, the low half (lib/siphash.c)."""
    v0, v1 = 0x736F6D6570736575 ^ key[0], 0x646F72616E646F6D ^ key[1]
    v2, v3 = 0x6C7967656E657261 ^ key[0], 0x7465646279746573 ^ key[1]

    def rotate(value: int, bits: int) -> int:
        return (value << bits | value >> 64 - bits) & _WORD

    def turn() -> None:
        nonlocal v0, v1, v2, v3
        v0 = v0 + v1 & _WORD
        v1 = rotate(v1, 13) ^ v0
        v0 = rotate(v0, 32)
        v2 = v2 + v3 & _WORD
        v3 = rotate(v3, 16) ^ v2
        v0 = v0 + v3 & _WORD
        v3 = rotate(v3, 21) ^ v0
        v2 = v2 + v1 & _WORD
        v1 = rotate(v1, 17) ^ v2
        v2 = rotate(v2, 32)

    last = 4 << 56 | number & 0xFFFFFFFF
    v3 ^= last
    turn()
    v0 ^= last
    v2 ^= 0xFF
    for _ in range(3):
        turn()
    return (v0 ^ v1 ^ v2 ^ v3) & 0xFFFFFFFF


def _maglev(table: IpvsTable, service: VirtualServer) -> list[Server | None]:
    """Fill Maglev's table: each real server claims places in an order of its own, by its weight."""
    memory = table.memory.get(service.key)
    if isinstance(memory, list):
        return memory
    order = [real for real in reversed(table.reals[service.key].values()) if real.weight > 0]
    places: list[Server | None] = [None] * MAGLEV_SIZE
    if order:
        divisor = gcd(*(real.weight for real in order))
        numbers = [real.port + _fold(real.address) for real in order]
        at = [_siphash13(number, _MH_KEYS[0]) % MAGLEV_SIZE for number in numbers]
        skips = [_siphash13(number, _MH_KEYS[1]) % (MAGLEV_SIZE - 1) + 1 for number in numbers]
        turns = [which for which, real in enumerate(order) for _turn in range(real.weight // divisor)]
        for taken in range(MAGLEV_SIZE):
            which = turns[taken % len(turns)]
            while places[at[which]] is not None:
                at[which] = (at[which] + skips[which]) % MAGLEV_SIZE
            places[at[which]] = order[which].server
    table.memory[service.key] = places
    return places


def _mh(table: IpvsTable, service: VirtualServer, source: Server, destination: str) -> RealServer | None:
    """Maglev hashing; with mh-port the client's port counts too, with mh-fallback another is taken for a dead one."""
    places = _maglev(table, service)
    number = (source[1] if service.flags & SCHED_2 else 0) + _fold(source[0])
    start = _siphash13(number, _MH_KEYS[0]) % MAGLEV_SIZE
    found = _at(table, service, places[start])
    if found is not None or not service.flags & SCHED_1:
        return found
    for offset in range(MAGLEV_SIZE):
        place = _siphash13(offset + start + number, _MH_KEYS[0]) % MAGLEV_SIZE
        found = _at(table, service, places[place])
        if found is not None:
            return found
    return None


def _lblc(table: IpvsTable, service: VirtualServer, source: Server, destination: str) -> RealServer | None:
    """Locality-based least connection: one destination address keeps its real server until that is overloaded."""
    key = service.key
    memory = table.memory.get(key)
    known: Mapping[str, Server] = memory if isinstance(memory, dict) else {}
    kept = _at(table, service, known.get(destination))
    if kept is not None and not _crowded(table, key, kept):
        return kept
    found = _wlc(table, service, source, destination)
    if found is not None:
        table.memory[key] = {**known, destination: found.server}
    return found


def _lblcr(table: IpvsTable, service: VirtualServer, source: Server, destination: str) -> RealServer | None:
    """As lblc, with a set of real servers for each destination address: it grows when all of them are overloaded."""
    key = service.key
    memory = table.memory.get(key)
    known: Mapping[str, tuple[Server, ...]] = memory if isinstance(memory, dict) else {}
    among = [real for real in table.usable(key) if real.server in known.get(destination, ())]
    kept = _least(table, service, among, lambda real: _overhead(table, key, real))
    if kept is not None and not _crowded(table, key, kept):
        return kept
    found = _wlc(table, service, source, destination)
    if found is not None:
        others = tuple(real.server for real in among if real.server != found.server)
        table.memory[key] = {**known, destination: (*others, found.server)}
    return found


def _crowded(table: IpvsTable, key: ServiceKey, real: RealServer) -> bool:
    """More active connections than its weight, while another has fewer than half of its own (`is_overloaded`)."""
    if table.connections(key, real.server)[0] <= real.weight:
        return False
    return any(
        table.connections(key, other.server)[0] * 2 < other.weight
        for other in table.reals[key].values()
        if other.weight > 0
    )


_SCHEDULE: dict[str, Scheduler] = {
    "rr": _rr,
    "wrr": _wrr,
    "lc": _lc,
    "wlc": _wlc,
    "lblc": _lblc,
    "lblcr": _lblcr,
    "dh": _dh,
    "sh": _sh,
    "mh": _mh,
    "sed": _sed,
    "nq": _nq,
    "fo": _fo,
    "ovf": _ovf,
}
