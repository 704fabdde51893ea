"""`ping`: ICMP echo, with what comes back or does not (iputils 20221126).

Round-trip times follow the clock of `trace.captures`: 20 microseconds for each frame on a link. Simulated
time passes as it would: an interval between packets, and the wait for an answer that never comes.
"""

from __future__ import annotations

from diagnostics.tool import Call, NotModelled, Options, Result, Tool, Usage, reverse
from kubenet_lab.dns.client import lookup
from kubenet_lab.packet.ip import canonical, family
from kubenet_lab.packet.packet import ICMP, ICMPV6, Packet
from kubenet_lab.trace import Trace, captures
from kubenet_lab.walk.exchange import Exchange, exchange

FRAME_TIME = 20e-6
"""Seconds a frame takes, as in `trace.captures`."""

_FLAGS = {
    letter: letter[1]
    for letter in (
        "-q",
        "-n",
        "-4",
        "-6",
        "-b",
        "-O",
        "-v",
        "-U",
        "-h",
        "-V",
        "-A",
        "-a",
        "-D",
        "-f",
        "-R",
        "-d",
        "-r",
        "-L",
        "-B",
        "-C",
        "-H",
    )
}
_VALUES = {
    letter: letter[1]
    for letter in (
        "-c",
        "-i",
        "-W",
        "-w",
        "-s",
        "-M",
        "-t",
        "-I",
        "-m",
        "-Q",
        "-p",
        "-l",
        "-S",
        "-T",
        "-e",
        "-F",
        "-N",
    )
}
_MODELLED = frozenset("qn46bciWwsMtIm")

_UNREACHABLE = {
    0: "Destination Net Unreachable",
    1: "Destination Host Unreachable",
    2: "Destination Protocol Unreachable",
    3: "Destination Port Unreachable",
    5: "Source Route Failed",
    6: "Destination Net Unknown",
    7: "Destination Host Unknown",
    8: "Source Host Isolated",
    9: "Destination Net Prohibited",
    10: "Destination Host Prohibited",
    11: "Destination Net Unreachable for Type of Service",
    12: "Destination Host Unreachable for Type of Service",
    13: "Packet filtered",
    14: "Precedence Violation",
    15: "Precedence Cutoff",
}
_UNREACHABLE6 = {
    0: "No route",
    1: "Administratively prohibited",
    2: "Beyond scope of source address",
    3: "Address unreachable",
    4: "Port unreachable",
    5: "Source address failed ingress/egress policy",
    6: "Reject route to destination",
}
_CONNECT = {
    "ENETUNREACH": "ping: connect: Network is unreachable\n",
    "EHOSTUNREACH": "ping: connect: No route to host\n",
    "EINVAL": "ping: connect: Invalid argument\n",
    "EACCES": "ping: Do you want to ping broadcast? Then -b. If not, check your local firewall rules\n",
    "EADDRNOTAVAIL": "ping: connect: Cannot assign requested address\n",
}
"""What connect(2) fails with before any packet is sent, by errno."""
_ON_CONNECT = frozenset({"no-route", "route-unreachable", "route-prohibit", "route-blackhole", "no-source"})


def error_text(packet: Packet) -> str:
    """Return what `ping` says of an ICMP error."""
    kind, code = packet.icmp_type, packet.icmp_code
    if packet.proto == ICMPV6:
        if kind == 1:
            return f"Destination unreachable: {_UNREACHABLE6.get(code, f'Unknown code {code}')}"
        if kind == 2:
            return f"Packet too big: mtu={packet.icmp_mtu}"
        return "Time exceeded: Hop limit" if kind == 3 else f"Unknown type {kind}"
    if kind == 3 and code == 4:
        return f"Frag needed and DF set (mtu = {packet.icmp_mtu})"
    if kind == 3:
        return _UNREACHABLE.get(code, f"Dest Unreachable, Bad Code: {code}")
    return "Time to live exceeded" if kind == 11 else f"Bad ICMP type: {kind}"


def _number(options: Options, name: str, default: str, low: int, high: int) -> int:
    text = options.get(name, default)
    try:
        value = int(text, 0)
    except ValueError:
        raise Usage(f"ping: invalid argument: '{text}'\n", 1) from None
    if not low <= value <= high:
        raise Usage(f"ping: invalid argument: '{text}': out of range: {low} <= value <= {high}\n", 1)
    return value


def run(call: Call) -> Result:
    """`ping -c COUNT [-s SIZE] [-M do] [-t TTL] [-I DEV] DESTINATION`."""

    def unknown(option: str) -> Exception:
        return NotModelled(f"option {option}")

    options = Options(call.argv, _FLAGS, _VALUES, unknown, unknown)
    for name, _ in options.given:
        if name == "V":
            return Result(
                "ping from iputils 20221126\n"
                "libcap: yes, IDN: yes, NLS: no, error.h: yes, getrandom(): yes, __fpending(): yes\n"
            )
        if name not in _MODELLED:
            raise NotModelled(f"option -{name}")
    if not options.operands:
        raise Usage("ping: usage error: Destination address required\n", 1)
    if len(options.operands) > 1:
        raise NotModelled("several destinations (loose source routing)")
    if options.get("M", "want") not in ("do", "dont", "want"):
        raise Usage(f"ping: invalid -M argument: {options.get('M')}\n", 2)
    if not options.has("c") and not options.has("w"):
        raise NotModelled("ping without end; add -c COUNT")
    return _Ping(call, options).run()


class _Ping:
    """One run of ping."""

    def __init__(self, call: Call, options: Options) -> None:
        self.call = call
        self.name = options.operands[0]
        self.interval = float(options.get("i", "1"))
        self.wait = float(options.get("W", "10"))
        self.deadline = float(options.get("w", "0"))
        self.count = _number(options, "c", "1", 1, 9223372036854775807)
        if self.deadline and not options.has("c"):
            self.count = int(self.deadline / self.interval) + 1
        self.size = _number(options, "s", "56", 0, 127992)
        if self.size > 65507:
            raise NotModelled("payloads over 65507 bytes, which no packet holds")
        self.ttl = _number(options, "t", "64", 0, 255) if options.has("t") else 0
        self.mark = _number(options, "m", "0", 0, 0xFFFFFFFF)
        self.pmtudisc = options.get("M", "want")
        if self.count > 10_000:
            raise NotModelled("more than 10000 packets")
        self.quiet = options.has("q")
        self.numeric = options.has("n")
        self.source, self.device = "", ""
        if options.has("I"):
            self._bind(options.get("I"))
        self.broadcast = options.has("b")
        self.traces: list[Trace] = []
        self.address, self.title = self._resolve(4 if options.has("4") else 6 if options.has("6") else 0)
        self.proto = ICMPV6 if family(self.address) == 6 else ICMP
        self.out: list[str] = []
        self.names: dict[str, str] = {}

    def _bind(self, text: str) -> None:
        try:
            self.source = canonical(text)
        except ValueError:
            self.device = text
            if text not in self.call.ns.links:
                raise Usage(f"ping: SO_BINDTODEVICE {text}: No such device\n", 2) from None
            return
        if not self.call.ns.is_local(self.source):
            raise Usage("ping: bind: Cannot assign requested address\n", 2)

    def _resolve(self, wanted: int) -> tuple[str, str]:
        """Return the destination's address and what stands before it in the first line."""
        try:
            address = canonical(self.name)
        except ValueError:
            pass
        else:
            if wanted not in (0, family(address)):
                raise Usage(f"ping: {self.name}: Address family for hostname not supported\n", 2)
            self.numeric = True
            return address, self.name
        found = lookup(self.call.walk, self.call.ns, self.name)
        self.traces += [trace for query in found.queries for trace in query.traces]
        fits = [address for address in found.addresses if wanted in (0, family(address))]
        if not fits:
            message = (
                found.resolution.message if found.resolution is not None else "Name or service not known"
            )
            raise Usage(f"ping: {self.name}: {message or 'Name or service not known'}\n", 2, self.traces)
        canon = found.resolution.canonname if found.resolution is not None else ""
        return fits[0], canon.rstrip(".") or self.name

    def _who(self, address: str) -> str:
        """Return an address as a line shows it: with its name, unless only numbers are wanted."""
        if self.numeric:
            return address
        if address not in self.names:
            name, traces = reverse(self.call, address)
            self.traces += traces
            self.names[address] = f"{name} ({address})" if name else address
        return self.names[address]

    def _caption(self) -> str:
        bound = (
            f" from {self.source or self._device_address()} {self.device}:"
            if self.source or self.device
            else ""
        )
        if self.proto == ICMPV6:
            return f"PING {self.title}({self.address}){bound} {self.size} data bytes\n"
        return f"PING {self.title} ({self.address}){bound} {self.size}({self.size + 28}) bytes of data.\n"

    def _device_address(self) -> str:
        found = [
            a.local for a in self.call.ns.addrs(self.device, family(self.address)) if a.scope == "global"
        ]
        return found[0] if found else ""

    def run(self) -> Result:
        walk = self.call.walk
        began, sent, times, errors, unanswered, pipe = walk.now, 0, [], 0, 0, 1
        rows: list[dict[str, object]] = []
        ident = self._ident()
        late: list[tuple[float, str]] = []
        for seq in range(1, self.count + 1):
            if self.deadline and walk.now - began > self.deadline:
                break
            if seq > 1:
                walk.now += self.interval
            self._flush(late, walk.now)
            done = self._echo(ident, seq)
            self.traces += done.traces
            if (
                done.errno
                and not sent
                and done.reason in _ON_CONNECT
                and done.request.place.netns == self.call.netns
            ):
                raise Usage(_CONNECT[done.errno], 2, self.traces)
            if not sent:
                self.out.append(self._caption())
            sent += 1
            row: dict[str, object] = {"icmp_seq": seq, "from": "", "ttl": None, "time_ms": None, "error": ""}
            rows.append(row)
            answer = done.answer
            if done.verdict == "answered" and answer is not None:
                rtt = self._rtt(done)
                times.append(rtt)
                unanswered = 0
                row |= {"from": answer.src, "ttl": answer.ttl, "time_ms": rtt}
                if not self.quiet:
                    self.out.append(
                        f"{self.size + 8} bytes from {self._who(answer.src)}: icmp_seq={seq} ttl={answer.ttl} "
                        f"time={_ms(rtt)} ms\n"
                    )
                continue
            unanswered += 1
            if done.verdict == "not modelled":
                raise Usage(f"ping: not modelled: {done.decided_by or done.reason}\n", 64, self.traces)
            line = self._failure(done, seq, row)
            if line and done.seconds > 1e-9:
                late.append((walk.now + done.seconds, line))
                pipe = max(pipe, min(unanswered, int(done.seconds / self.interval) + 1))
                errors += 1
            elif line:
                errors += 1
                unanswered = 0
                if not self.quiet or line.startswith("ping:"):
                    self.out.append(line)
        last = walk.now
        lost = sent - len(times)
        if lost:
            arrived = max((when for when, _ in late), default=walk.now)
            walk.now = min(arrived, last + self.wait) if errors >= lost else last + self.wait
        self._flush(late, walk.now)
        errors -= len(late)
        tail = f"pipe {pipe}" if errors and pipe > 1 else ""
        self.out.append(self._statistics(sent, times, errors, last - began, tail))
        code = 0 if times else 1
        return Result("".join(self.out), exit_code=code, rows=rows, traces=self.traces)

    def _flush(self, late: list[tuple[float, str]], now: float) -> None:
        """Print the errors that have arrived by now."""
        while late and late[0][0] <= now + 1e-9:
            line = late.pop(0)[1]
            if not self.quiet:
                self.out.append(line)

    def _ident(self) -> int:
        """Return the identifier of this run: for ping's datagram socket, the local port the kernel gives it."""
        return self.call.ns.ephemeral_port(self.proto) & 0xFFFF

    def _echo(self, ident: int, seq: int) -> Exchange:
        kind = 128 if self.proto == ICMPV6 else 8
        ttl = self.ttl or int(self.call.ns.sysctl("net.ipv4.ip_default_ttl"))
        packet = Packet(
            self.source,
            self.address,
            self.proto,
            ttl=ttl,
            icmp_type=kind,
            icmp_id=ident,
            icmp_seq=seq,
            payload_size=self.size,
            df=self.pmtudisc != "dont",
        )
        return exchange(
            self.call.walk,
            self.call.netns,
            packet,
            patience=self.wait,
            mark=self.mark,
            pmtudisc=self.pmtudisc,
            oif=self.device,
        )

    @staticmethod
    def _rtt(done: Exchange) -> float:
        """Return milliseconds: the frames on links until the answer was there, each with its time."""
        return max(len(captures(done.traces)), 1) * FRAME_TIME * 1000

    def _failure(self, done: Exchange, seq: int, row: dict[str, object]) -> str:
        answer = done.answer
        if answer is not None:
            row |= {"from": answer.src, "error": error_text(answer)}
            return f"From {self._who(answer.src)} icmp_seq={seq} {error_text(answer)}\n"
        if done.errno == "EMSGSIZE":
            mtu = self._local_mtu()
            row["error"] = f"message too long, mtu={mtu}"
            return f"ping: local error: message too long, mtu={mtu}\n"
        if done.reason == "neighbour-failed" and done.errno == "EHOSTUNREACH":
            own = done.request.packet.src
            if done.request.hops:
                own = done.request.hops[0].packet.src
            what = (
                "Destination Host Unreachable"
                if self.proto == ICMP
                else "Destination unreachable: Address unreachable"
            )
            row |= {"from": own, "error": what}
            return f"From {self._who(own)} icmp_seq={seq} {what}\n"
        row["error"] = done.reason
        return ""

    def _local_mtu(self) -> int:
        ns = self.call.ns
        learned = ns.pmtu.get(self.address)
        if learned is not None and learned[1] > self.call.now:
            return learned[0]
        way = ns.lookup(self.address, src=self.source, oif=self.device, mark=self.mark)
        if way is None:
            return 0
        return way.route.mtu or ns.links[way.dev].mtu

    def _statistics(self, sent: int, times: list[float], errors: int, took: float, tail: str) -> str:
        lost = 100 * (sent - len(times)) / sent
        failed = f" +{errors} errors," if errors else ""
        text = f"\n--- {self.title} ping statistics ---\n"
        text += f"{sent} packets transmitted, {len(times)} received,{failed} {lost:.6g}% packet loss, "
        text += f"time {took * 1000:.0f}ms\n"
        if times:
            mean = sum(times) / len(times)
            spread = max(sum(t * t for t in times) / len(times) - mean * mean, 0.0) ** 0.5
            text += f"rtt min/avg/max/mdev = {min(times):.3f}/{mean:.3f}/{max(times):.3f}/{spread:.3f} ms\n"
            return text
        return text + (f"{tail}\n" if tail else "\n")


def _ms(value: float) -> str:
    """Return milliseconds with the digits ping shows."""
    return (
        f"{value:.3f}"
        if value < 1
        else f"{value:.2f}"
        if value < 10
        else f"{value:.1f}"
        if value < 100
        else f"{value:.0f}"
    )


TOOL = Tool("ping", "is there an answer, from whom, and with which error if not", run)
