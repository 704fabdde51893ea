"""`ipvsadm` text (1.31): `-Ln` and its variants, `-Lnc`, `-Sn` and what `-R` reads.

`load(save(table)) == table`. Time-outs are no part of `-S`; `ipvsadm -L --timeout` prints them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cmp_to_key

from kubenet_lab.errors import Fault, InputError
from kubenet_lab.kernel.ipvs import (
    ONE_PACKET,
    SCHEDULER_FLAGS,
    Conn,
    IpvsError,
    IpvsTable,
    RealServer,
    ServiceKey,
    Stats,
    VirtualServer,
    socket_text,
)
from kubenet_lab.packet.ip import IP_INT, canonical
from kubenet_lab.packet.packet import SCTP, TCP, UDP

TITLE = "IP Virtual Server version 1.2.1 (size=4096)\n"
_LIST = (
    "Prot LocalAddress:Port Scheduler Flags\n"
    "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
)
_STATS = "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n  -> RemoteAddress:Port\n"
_THRESHOLDS = (
    "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n  -> RemoteAddress:Port\n"
)
_PERSISTENT = (
    "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n  -> RemoteAddress:Port\n"
)
CONNECTIONS = (
    "IPVS connection entries\npro expire state       source             virtual            destination\n"
)

_PROTOCOLS = {TCP: "TCP", UDP: "UDP", SCTP: "SCTP"}
_OPTIONS = {TCP: "-t", UDP: "-u", SCTP: "--sctp-service"}
_FORWARDS = {"masq": "Masq", "route": "Route", "tunnel": "Tunnel"}
_SWITCHES = {"masq": "-m", "route": "-g", "tunnel": "-i"}


def _wrapped(number: int) -> int:
    """A 32-bit difference as C's int has it."""
    return (number + (1 << 31)) % (1 << 32) - (1 << 31)


def _compare(one: VirtualServer, other: VirtualServer) -> int:
    """`ipvs_cmp_services`: the difference of two addresses is an int, so that 10.96.0.1 comes after 192.168.1.10."""
    for a, b in (
        (one.fwmark, other.fwmark),
        (one.family, other.family),
        (one.protocol, other.protocol),
    ):
        if a != b:
            return a - b
    if not one.fwmark:
        first, second = IP_INT[one.address], IP_INT[other.address]
        for shift in (96, 64, 32, 0) if one.family == 6 else (0,):
            difference = _wrapped((first >> shift & 0xFFFFFFFF) - (second >> shift & 0xFFFFFFFF))
            if difference:
                return difference
    return one.port - other.port


def sorted_services(table: IpvsTable) -> list[VirtualServer]:
    """Return the virtual servers in the order in which ipvsadm lists them."""
    services = table.services.values()
    if not table.marks and all(one.family == 4 for one in services):
        numbers = [IP_INT[one.address] for one in services]
        if not numbers or max(numbers) - min(numbers) < 1 << 31:  # then nothing wraps
            return sorted(services, key=lambda one: (one.protocol, IP_INT[one.address], one.port))
    return sorted(services, key=cmp_to_key(_compare))


def _sorted_reals(table: IpvsTable, key: ServiceKey) -> list[RealServer]:
    reals = table.reals[key].values()
    numbers = [IP_INT[real.address] for real in reals]
    if not numbers or max(numbers) - min(numbers) < 1 << 31:  # then nothing wraps
        return sorted(reals, key=lambda real: (IP_INT[real.address], real.port))

    def compare(one: RealServer, other: RealServer) -> int:
        first, second = IP_INT[one.address], IP_INT[other.address]
        for shift in (96, 64, 32, 0):
            difference = _wrapped((first >> shift & 0xFFFFFFFF) - (second >> shift & 0xFFFFFFFF))
            if difference:
                return difference
        return one.port - other.port

    return sorted(reals, key=cmp_to_key(compare))


def _name(virtual: VirtualServer) -> str:
    if virtual.fwmark:
        return f"FWM  {virtual.fwmark}{' IPv6' if virtual.fwmark_family == 6 else ''}"
    return f"{_PROTOCOLS[virtual.protocol]:<4} {socket_text(virtual.address, virtual.port)}"


def _flags(virtual: VirtualServer) -> str:
    out = ""
    if virtual.persistent:
        out += f" persistent {virtual.persistent}"
        if virtual.netmask:
            out += f" mask {_mask(virtual)}"
    if virtual.flags & ONE_PACKET:
        out += " ops"
    names = virtual.flag_names
    return f"{out} ({','.join(names)})" if names else out


def _mask(virtual: VirtualServer) -> str:
    if virtual.family == 6:
        return str(virtual.netmask)
    number = 0xFFFFFFFF << (32 - virtual.netmask) & 0xFFFFFFFF
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


def listing(
    table: IpvsTable,
    now: float = 0.0,
    *,
    only: VirtualServer | None = None,
    form: str = "",
) -> str:
    """`ipvsadm -Ln`: every virtual server, or `only` one, with its real servers.

    `form` is "" or "stats", "thresholds", "persistent-conn", as the options are called. Connections that have expired
    at simulated time `now` are forgotten first.
    """
    table.expire(now)
    heads = {"": _LIST, "stats": _STATS, "thresholds": _THRESHOLDS, "persistent-conn": _PERSISTENT}
    out = [TITLE if only is None else "", heads[form]]
    for virtual in [only] if only is not None else sorted_services(table):
        key = virtual.key
        if form == "stats":
            out.append(f"{_name(virtual):<33}{_numbers(table.stats.get((key, None)))}\n")
        else:
            out.append(f"{_name(virtual)} {virtual.scheduler}{_flags(virtual)}\n")
        for real in _sorted_reals(table, key):
            place = socket_text(real.address, real.port)
            active, inactive, persistent = table.connections(key, real.server)
            if form == "stats":
                out.append(f"  -> {place:<28}{_numbers(table.stats.get((key, real.server)))}\n")
            elif form == "thresholds":
                out.append(
                    f"  -> {place:<28} {real.upper:<10} {real.lower:<10} {active:<10} {inactive:<10}\n"
                )
            elif form == "persistent-conn":
                out.append(
                    f"  -> {place:<28} {real.weight:<9} {persistent:<11} {active:<10} {inactive:<10}\n"
                )
            else:
                forward = _FORWARDS[real.forward]
                out.append(f"  -> {place:<28} {forward:<7} {real.weight:<6} {active:<10} {inactive:<10}\n")
    return "".join(out)


def _numbers(stats: Stats | None) -> str:
    stats = stats or Stats()
    counted = (stats.conns, stats.in_packets, stats.out_packets, stats.in_bytes, stats.out_bytes)
    return "".join(_large(number) for number in counted)


def _large(number: int) -> str:
    """Eight characters, with K, M, G or T where the number is longer."""
    for limit, divisor, unit in (
        (10**8, 1, ""),
        (10**11, 10**3, "K"),
        (10**14, 10**6, "M"),
        (10**17, 10**9, "G"),
    ):
        if number < limit:
            return f" {number // divisor:>8}" if not unit else f" {number // divisor:>7}{unit}"
    return f" {number // 10**12:>7}T"


def connections(table: IpvsTable, now: float) -> str:
    """`ipvsadm -Lnc`: every connection and persistence template at simulated time `now` in s."""
    table.expire(now)
    out = [CONNECTIONS]
    for conn in table:
        out.append(_connection(conn, now))
    return "".join(out)


def _connection(conn: Conn, now: float) -> str:
    left = max(0, int(conn.expires - now))
    places = [socket_text(*place) for place in (conn.client, conn.virtual, conn.real)]
    if conn.service[0] == 0 and conn.template:
        places[1] = f"0.0.0.{conn.service[2]}:0"
    protocol = _PROTOCOLS.get(conn.protocol, "IP")
    return (
        f"{protocol:<3} {left // 60:02d}:{left % 60:02d}  {conn.shown_state:<11} "
        f"{places[0]:<18} {places[1]:<18} {places[2]}\n"
    )


def timeouts(table: IpvsTable) -> str:
    """`ipvsadm -L --timeout`."""
    now = table.timeouts
    return f"Timeout (tcp tcpfin udp): {now.tcp} {now.tcp_fin} {now.udp}\n"


def save(table: IpvsTable) -> str:
    """`ipvsadm -Sn`: an -A line a virtual server, each followed by the -a lines of its real servers."""
    out = []
    for virtual in sorted_services(table):
        where = _option(virtual)
        line = f"-A {where} -s {virtual.scheduler}"
        if virtual.persistent:
            line += f" -p {virtual.persistent}"
            if virtual.netmask:
                line += f" -M {_mask(virtual)}"
        if virtual.flags & ONE_PACKET:
            line += " -o"
        if virtual.flag_names:
            line += f" -b {','.join(virtual.flag_names)}"
        out.append(line)
        for real in _sorted_reals(table, virtual.key):
            place = socket_text(real.address, real.port)
            line = f"-a {where} -r {place} {_SWITCHES[real.forward]} -w {real.weight}"
            if real.upper or real.lower:
                line += f" -x {real.upper} -y {real.lower}"
            out.append(line)
    return "\n".join(out) + "\n" if out else ""


def _option(virtual: VirtualServer) -> str:
    if virtual.fwmark:
        return f"-f {virtual.fwmark}{' -6' if virtual.fwmark_family == 6 else ''}"
    return f"{_OPTIONS[virtual.protocol]} {socket_text(virtual.address, virtual.port)}"


# -- reading --------------------------------------------------------------------------------------------------------

_COMMANDS = {
    "-A": "A", "--add-service": "A", "-E": "E", "--edit-service": "E", "-D": "D", "--delete-service": "D",
    "-a": "a", "--add-server": "a", "-e": "e", "--edit-server": "e", "-d": "d", "--delete-server": "d",
    "-C": "C", "--clear": "C", "-Z": "Z", "--zero": "Z",
}  # fmt: skip
_WITH_VALUE = {
    "-t": "t", "--tcp-service": "t", "-u": "u", "--udp-service": "u", "--sctp-service": "sctp",
    "-f": "f", "--fwmark-service": "f", "-s": "s", "--scheduler": "s", "-M": "M", "--netmask": "M",
    "-b": "b", "--sched-flags": "b", "-r": "r", "--real-server": "r", "-w": "w", "--weight": "w",
    "-x": "x", "--u-threshold": "x", "-y": "y", "--l-threshold": "y",
}  # fmt: skip
_ALONE = {
    "-o": "o", "--ops": "o", "-6": "6", "--ipv6": "6", "-g": "route", "--gatewaying": "route",
    "-i": "tunnel", "--ipip": "tunnel", "-m": "masq", "--masquerading": "masq", "-n": "n", "--numeric": "n",
}  # fmt: skip
DEFAULT_PERSISTENCE = 360
"""Seconds of `-p` without a number."""


class Command:
    """One command line of ipvsadm, read: what to do, and to what.

    Raises IpvsError in ipvsadm's words.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.verb = ""
        self.given: dict[str, str] = {}
        self._read(list(words))

    def _read(self, words: list[str]) -> None:
        at = 0
        while at < len(words):
            word = words[at]
            name, equals, attached = word.partition("=") if word.startswith("--") else (word, "", "")
            at += 1
            if name in _COMMANDS:
                if self.verb:
                    raise IpvsError("multiple commands specified")
                self.verb = _COMMANDS[name]
            elif name in _ALONE:
                self.given[_ALONE[name]] = ""
            elif name in ("-p", "--persistent"):
                value = attached if equals else ""
                if not equals and at < len(words) and words[at].isdecimal():
                    value, at = words[at], at + 1
                self.given["p"] = value or str(DEFAULT_PERSISTENCE)
            elif name in _WITH_VALUE:
                if not equals:
                    if at >= len(words):
                        raise IpvsError(f"{name}: missing argument")
                    attached, at = words[at], at + 1
                self.given[_WITH_VALUE[name]] = attached
            else:
                raise IpvsError(f"{word}: unknown option")

    def number(self, option: str, default: int, most: int, what: str) -> int:
        """Return an option's number from 0 to `most`."""
        text = self.given.get(option)
        if text is None:
            return default
        if not text.isdecimal() or int(text) > most:
            raise IpvsError(f"illegal {what} specified")
        return int(text)

    @property
    def key(self) -> ServiceKey:
        """The virtual server it is about."""
        if "f" in self.given:
            mark = self.number("f", 0, 0xFFFFFFFF, "fwmark")
            return (0, "6" if "6" in self.given else "4", mark)
        for option, protocol in (("t", TCP), ("u", UDP), ("sctp", SCTP)):
            if option in self.given:
                address, port = place(self.given[option], "virtual server")
                return (protocol, address, port)
        raise IpvsError("You need to supply the 'tcp-service', 'udp-service' or 'fwmark-service' option")

    @property
    def virtual(self) -> VirtualServer:
        """The virtual server as the options describe it."""
        protocol, address, port = self.key
        scheduler = self.given.get("s", "wlc")
        flags = ONE_PACKET if "o" in self.given else 0
        known = SCHEDULER_FLAGS.get(scheduler, {})
        generic = {"flag-1": 0x8, "flag-2": 0x10, "flag-3": 0x20}
        for name in filter(None, self.given.get("b", "").split(",")):
            bit = known.get(name, generic.get(name))
            if bit is None:
                raise IpvsError(f"invalid scheduler flags {name!r}")
            flags |= bit
        persistent = self.number("p", 0, 31 * 86400, "timeout")
        fwmark = port if not protocol else 0
        family = 6 if (address == "6" if fwmark else ":" in address) else 4
        netmask = _prefix_length(self.given["M"], family) if "M" in self.given else 0
        if netmask == (32 if family == 4 else 128):
            netmask = 0
        if fwmark:
            return VirtualServer(0, "", 0, scheduler, persistent, netmask, flags, fwmark, family)
        return VirtualServer(protocol, address, port, scheduler, persistent, netmask, flags)

    def real(self, virtual: VirtualServer) -> RealServer:
        """The real server as the options describe it."""
        if "r" not in self.given:
            raise IpvsError("You need to supply the 'real-server' option")
        address, port = place(self.given["r"], "real server", virtual.port)
        forward = next((way for way in ("masq", "tunnel", "route") if way in self.given), "route")
        return RealServer(
            address,
            port if forward == "masq" else virtual.port,
            self.number("w", 1, 65535, "weight"),
            forward,
            self.number("x", 0, 0xFFFFFFFF, "u_threshold"),
            self.number("y", 0, 0xFFFFFFFF, "l_threshold"),
        )

    def apply(self, table: IpvsTable) -> None:
        """Do it."""
        if self.verb == "A":
            table.add_service(self.virtual)
        elif self.verb == "E":
            table.edit_service(self.virtual)
        elif self.verb == "D":
            table.delete_service(self.key)
        elif self.verb in ("a", "e", "d"):
            virtual = table.service(self.key)
            real = self.real(virtual)
            if self.verb == "a":
                table.add_server(virtual.key, real)
            elif self.verb == "e":
                table.edit_server(virtual.key, real)
            else:
                table.delete_server(virtual.key, real.server)
        elif self.verb == "C":
            table.clear()
        elif self.verb == "Z":
            table.zero(self.key if {"t", "u", "sctp", "f"} & self.given.keys() else None)
        else:
            raise IpvsError("No command specified: one of -A, -E, -D, -a, -e, -d, -C, -Z")


_PLACE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::(\d+))?|([0-9.]+)(?::(\d+))?", re.ASCII)


def place(text: str, what: str, default_port: int = 0) -> tuple[str, int]:
    """Read "10.96.0.1:443" or "[fd00::1]:443". Raises IpvsError."""
    found = _PLACE.fullmatch(text)
    try:
        if found is None:
            raise ValueError(text)
        address = canonical(found[1] or found[3])
    except ValueError:
        raise IpvsError(f"illegal {what} address[:port] specified") from None
    port = found[2] or found[4]
    if port is not None and int(port) > 65535:
        raise IpvsError(f"illegal {what} address[:port] specified")
    return address, int(port) if port is not None else default_port


def _prefix_length(text: str, family: int) -> int:
    if text.isdecimal() and 0 < int(text) <= (32 if family == 4 else 128):
        return int(text)
    try:
        number = IP_INT[text]
    except ValueError:
        raise IpvsError("illegal netmask specified") from None
    length = number.bit_count()
    if family == 6 or number != 0xFFFFFFFF << (32 - length) & 0xFFFFFFFF or not length:
        raise IpvsError("illegal netmask specified")
    return length


def load(text: str, *, file: str = "<text>") -> IpvsTable:
    """Read what `ipvsadm -Sn` printed. Raises InputError with every fault."""
    return restore(IpvsTable(), text, file=file)


def restore(table: IpvsTable, text: str, *, file: str = "<text>") -> IpvsTable:
    """`ipvsadm -R`: return a copy of the table after the text's commands, one a line.

    Raises InputError with every fault; then nothing is changed. (The real one stops at the first, and what came
    before it stays.)
    """
    now = table.copy()
    faults: list[Fault] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            Command(line.split()).apply(now)
        except IpvsError as error:
            faults.append(Fault(str(error), file, number, path=line, help="see ipvsadm(8)"))
    if faults:
        raise InputError(faults)
    return now
