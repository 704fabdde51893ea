"""`tcpdump`: frames as text, from a capture file or from what was sent (tcpdump 4.99.3).

`-r FILE` reads a capture in libpcap format. `-i LINK` shows the frames of that link among the packets sent
so far (`Call.history`); as a command of its own it would print while others run. Times are those of the
simulation.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from diagnostics.tool import Call, NotModelled, Options, Result, Tool, Usage, service
from kubenet_lab.kernel.dialects.ip_link import NO_HARDWARE
from kubenet_lab.packet.ip import canonical, prefix
from kubenet_lab.packet.packet import (
    GENEVE_PORT,
    ICMP,
    ICMPV6,
    PROTO_NUMBERS,
    RST,
    SCTP,
    TCP,
    UDP,
    Arp,
    Frame,
    Packet,
    WireguardMessage,
    tcp_flags,
)
from kubenet_lab.packet.wire import (
    ETH_BRIDGED,
    WINDOW,
    LaterFragment,
    WireError,
    frame_bytes,
    frames_bytes,
    payload_of,
    read_frame,
    read_pcap,
    solicited_group,
)
from kubenet_lab.trace import captures

SNAPLEN = 262144
_FLAGS = {
    letter: letter
    for letter in (
        "-n",
        "-e",
        "-t",
        "-q",
        "-v",
        "-l",
        "-U",
        "-p",
        "-#",
        "-S",
        "-A",
        "-X",
        "-x",
        "-K",
        "-D",
        "-N",
    )
}
_VALUES = {
    letter: letter for letter in ("-i", "-r", "-c", "-w", "-s", "-B", "-C", "-W", "-y", "-Q", "-T", "-Z")
}
_IGNORED = frozenset({"-l", "-U", "-p", "-s", "-K", "-B", "-Z"})
_SHOWN = frozenset({"-n", "-e", "-t", "-#", "-S", "-i", "-r", "-c", "-q"})


class Seen(NamedTuple):
    """A frame and when it was seen; `link` and `direction` where `-i any` tells them."""

    time: float
    frame: Frame
    link: str = ""
    direction: str = ""


def run(call: Call) -> Result:
    """`tcpdump [-nn] [-e] [-c N] -i LINK|-r FILE [FILTER]`."""

    def unknown(option: str) -> Exception:
        return NotModelled(f"option {option}")

    options = Options(call.argv, _FLAGS, _VALUES, unknown, unknown)
    for name, _ in options.given:
        if name not in _IGNORED and name not in _SHOWN:
            raise NotModelled(f"option {name}")
    wanted = Filter(" ".join(options.operands))
    numeric = sum(name == "-n" for name, _ in options.given)
    if options.has("-r"):
        frames, head = _from_file(call, options.get("-r")), ""
        head = (
            f"reading from file {options.get('-r')}, link-type EN10MB (Ethernet), snapshot length {SNAPLEN}\n"
        )
        tail = ""
    else:
        link = options.get("-i", "any")
        frames = _from_link(call, link)
        kind = "LINUX_SLL2 (Linux cooked v2)" if link == "any" else "EN10MB (Ethernet)"
        if link != "any" and call.ns.links[link].kind in NO_HARDWARE:
            kind = "RAW (Raw IP)"
        head = "tcpdump: verbose output suppressed, use -v[v]... for full protocol decode\n"
        head += f"listening on {link}, link-type {kind}, snapshot length {SNAPLEN} bytes\n"
    frames = [seen for seen in frames if wanted(seen.frame)]
    total = len(frames)
    if options.has("-c"):
        frames = frames[: _count(options.get("-c"))]
    printer = _Printer(
        numeric, link_layer=options.has("-e"), absolute=options.has("-S"), quick=options.has("-q")
    )
    lines, rows = [], []
    stamps = sum(name == "-t" for name, _ in options.given)
    for number, seen in enumerate(frames, 1):
        count = f"{number:>5}  " if options.has("-#") else ""
        via = f"{seen.link:<5} {seen.direction.capitalize():<3} " if seen.link else ""
        text = printer.frame(seen.frame)
        lines.append(f"{count}{_stamp(seen.time, stamps)}{via}{text}\n")
        rows.append({"time": seen.time, "link": seen.link, "text": text})
    if not options.has("-r"):
        noun = "packet" if len(frames) == 1 else "packets"
        got = "packet" if total == 1 else "packets"
        tail = (
            f"{len(frames)} {noun} captured\n{total} {got} received by filter\n0 packets dropped by kernel\n"
        )
    out = "".join(lines)
    return Result(out, head + tail, rows=rows, screen=head + out + tail)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise Usage(f"tcpdump: invalid packet count {text}\n", 1)
    return int(text)


def _from_file(call: Call, name: str) -> list[Seen]:
    try:
        return [Seen(record.time, _read(record.data)) for record in read_pcap(Path(name))]
    except FileNotFoundError:
        raise Usage(f"tcpdump: {name}: No such file or directory\n", 1) from None
    except WireError as error:
        if str(error).startswith("not modelled"):
            raise NotModelled(str(error).removeprefix("not modelled: ")) from None
        raise Usage(f"tcpdump: unknown file format: {error}\n", 1) from None


def _read(data: bytes) -> Frame:
    """Read a frame; a fragment without transport header becomes a packet whose `fragment` is -1."""
    try:
        return read_frame(data)
    except LaterFragment:
        src, dst = (".".join(map(str, data[at : at + 4])) for at in (26, 30))
        macs = [":".join(f"{byte:02x}" for byte in data[at : at + 6]) for at in (6, 0)]
        return Frame(macs[0], macs[1], Packet(src, dst, data[23], payload_size=len(data) - 34, fragment=-1))


def _pieces(frame: Frame) -> list[Frame]:
    """Return a frame as it is on the link: several where its packet travels in fragments."""
    if isinstance(frame.body, Arp) or not frame.body.fragment:
        return [frame]
    return [_read(data) for data in frames_bytes(frame)]


def _from_link(call: Call, link: str) -> list[Seen]:
    if link != "any" and link not in call.ns.links:
        raise Usage(f"tcpdump: {link}: No such device exists\n(No such device exists)\n", 1)
    out: list[Seen] = []
    for when, trace in call.history:
        for capture in captures([trace], start=when):
            if capture.netns == call.netns and link in ("any", capture.link):
                any_ = link == "any"
                via = (capture.link, capture.direction) if any_ else ("", "")
                out += [Seen(capture.time, piece, *via) for piece in _pieces(capture.frame)]
    return out


def _stamp(time: float, level: int) -> str:
    """Return a time as -t, -tt, -ttt (not modelled) and -tttt print it."""
    if level == 1:
        return ""
    micros = round(time * 1_000_000)
    if level == 2:
        return f"{micros // 1_000_000}.{micros % 1_000_000:06} "
    if level in (3, 5):
        raise NotModelled("option -ttt")
    moment = datetime.fromtimestamp(micros // 1_000_000, UTC)
    day = moment.strftime("%Y-%m-%d ") if level == 4 else ""
    return f"{day}{moment.strftime('%H:%M:%S')}.{micros % 1_000_000:06} "


# -- text ----------------------------------------------------------------------------------------------------


class _Printer:
    """Prints frames. `numeric` counts -n: 0 names ports, 1 and 2 do not; addresses are never named here."""

    def __init__(self, numeric: int, *, link_layer: bool, absolute: bool, quick: bool) -> None:
        self.numeric, self.link_layer, self.absolute, self.quick = numeric, link_layer, absolute, quick
        self.first: dict[tuple[str, int, str, int], int] = {}

    def frame(self, frame: Frame) -> str:
        """Return the line (or lines) of a frame, without its time."""
        body = frame.body
        if isinstance(body, Arp):
            six = ":" in body.target_ip
            text = self._discovery(body) if six else self._arp(body)
            kind, name = (0x86DD, "IPv6") if six else (0x0806, "ARP")
            label = "" if six and self.link_layer else "IP6 " if six else "" if self.link_layer else "ARP, "
        else:
            kind, name = (0x86DD, "IPv6") if body.family == 6 else (0x0800, "IPv4")
            text = self.packet(body)
            label = "" if self.link_layer else "IP6 " if body.family == 6 else "IP "
        if not self.link_layer:
            return label + text
        if not frame.src:
            return f"ip: {text}"
        length = len(frame_bytes(frame))
        inner = f"ethertype {name} ({kind:#06x})"
        if frame.vlan:
            tag = f"vlan {frame.vlan}, p 0, {inner}, "
            return (
                f"{frame.src} > {frame.dst}, ethertype 802.1Q (0x8100), length {length}: {tag}{label}{text}"
            )
        return f"{frame.src} > {frame.dst}, {inner}, length {length}: {label}{text}"

    @staticmethod
    def _arp(arp: Arp) -> str:
        if arp.op == "request":
            known = (
                ""
                if arp.target_mac == "00:00:00:00:00:00"
                else f" ({arp.target_mac})"
                if arp.target_mac != "ff:ff:ff:ff:ff:ff"
                else ""
            )
            return f"Request who-has {arp.target_ip}{known} tell {arp.sender_ip}, length 28"
        return f"Reply {arp.sender_ip} is-at {arp.sender_mac}, length 28"

    @staticmethod
    def _discovery(arp: Arp) -> str:
        if arp.op == "request":
            group = solicited_group(arp.target_ip)
            return (
                f"{arp.sender_ip} > {group}: ICMP6, neighbor solicitation, who has {arp.target_ip}, length 32"
            )
        return f"{arp.sender_ip} > {arp.target_ip}: ICMP6, neighbor advertisement, tgt is {arp.sender_ip}, length 32"

    def _port(self, number: int, proto: int) -> str:
        return str(number) if self.numeric else service(number, proto)

    def packet(self, packet: Packet) -> str:
        """Return an IP packet's text."""
        proto = packet.proto
        if packet.fragment < 0:
            name = {ICMP: "icmp", TCP: "tcp", UDP: "udp"}.get(proto) if not self.numeric else None
            return f"{packet.src} > {packet.dst}: {name or f'ip-proto-{proto}'}"
        if proto in (TCP, UDP, SCTP):
            sport, dport = self._port(packet.sport, proto), self._port(packet.dport, proto)
            ends = f"{packet.src}.{sport} > {packet.dst}.{dport}"
            if packet.dsr is not None and packet.family == 6:
                ends = f"{packet.src} > {packet.dst}: DSTOPT {sport} > {dport}"
            if proto == TCP:
                return f"{ends}: {self._tcp(packet)}"
            if proto == UDP:
                return f"{ends}: {self._udp(packet)}"
            return f"{ends}: sctp"
        ends = f"{packet.src} > {packet.dst}: "
        if proto == ICMP:
            return ends + self._icmp(packet)
        if proto == ICMPV6:
            return ends + self._icmp6(packet)
        return f"{ends}ip-proto-{proto} {packet.length - (40 if packet.family == 6 else 20)}"

    def _tcp(self, packet: Packet) -> str:
        size = len(payload_of(packet))
        if self.quick:
            return f"tcp {size}"
        key = (packet.src, packet.sport, packet.dst, packet.dport)
        back = (packet.dst, packet.dport, packet.src, packet.sport)
        syn = packet.flags & 2
        seq, ack = packet.seq, packet.ack
        if not self.absolute:
            if syn or (key not in self.first and back not in self.first):
                self.first[key] = seq
                if packet.flags & 16:
                    self.first.setdefault(back, ack - 1)
            else:
                seq -= self.first.get(key, 0)
                ack -= self.first.get(back, 0)
        out = f"Flags [{tcp_flags(packet.flags)}], "
        if size or packet.flags & 7:
            out += f"seq {seq & 0xFFFFFFFF}"
            out += f":{(seq + size) & 0xFFFFFFFF}, " if size else ", "
        if packet.flags & 16:
            out += f"ack {ack & 0xFFFFFFFF}, "
        out += f"win {0 if packet.flags & RST else WINDOW}"
        if packet.mss:
            out += f", options [mss {packet.mss}]"
        out += f", length {size}"
        payload = packet.payload
        if (size and 80 in (packet.sport, packet.dport)) or (size and 8080 in (packet.sport, packet.dport)):
            line = payload.partition(b"\r\n")[0].decode("latin-1")
            http = bool(re.match(r"(GET|POST|HEAD|PUT|DELETE|OPTIONS|HTTP/\d)", line))
            out += f": HTTP: {line}" if http else ": HTTP"
        return out

    def _udp(self, packet: Packet) -> str:
        if isinstance(packet.message, WireguardMessage):
            return f"UDP, length {packet.message.length}"
        if packet.inner is not None:
            inner = _Printer(
                self.numeric, link_layer=self.link_layer, absolute=self.absolute, quick=self.quick
            )
            inner.first = self.first
            if packet.dport == GENEVE_PORT:
                kind = f", proto TEB (0x{ETH_BRIDGED:04x})" if self.link_layer else ""
                size = 0 if packet.dsr is None else 24 if ":" in packet.dsr.address else 12
                told = f", options [{size} bytes]" if size else ""
                return f"Geneve, Flags [none], vni 0x{packet.vni:x}{kind}{told}: {inner.frame(packet.inner)}"
            if packet.dport == 8472:
                head = f"OTV, flags [I] (0x08), overlay 0, instance {packet.vni}"
            else:
                head = f"VXLAN, flags [I] (0x08), vni {packet.vni}"
            return f"{head}\n{inner.frame(packet.inner)}"
        size = len(payload_of(packet))
        if self.quick:
            return f"UDP, length {size}"
        if 53 in (packet.sport, packet.dport) and packet.message is None and packet.payload:
            message = _dns(packet.payload)
            return self._dns(message, size) if message is not None else f"domain, length {size}"
        if packet.message is not None:
            return self._dns(packet.message, size)
        return f"UDP, length {size}"

    @staticmethod
    def _dns(message: Any, size: int) -> str:
        """Return a DNS message as print-domain.c does."""
        from kubenet_lab.dns.records import Query

        if isinstance(message, Query):
            bits = ("+" if message.rd else "") + ("%" if message.cd else "")
            extra = " [1au]" if message.edns is not None else ""
            return f"{message.id}{bits}{extra} {message.type}? {message.name} ({size})"
        question = message.question
        rcode = {
            "NOERROR": "",
            "NXDOMAIN": " NXDomain",
            "SERVFAIL": " ServFail",
            "REFUSED": " Refused",
            "FORMERR": " FormErr",
            "NOTIMP": " NotImp",
        }
        bits = (
            ("*" if message.aa else "")
            + ("" if message.ra else "-")
            + ("|" if message.tc else "")
            + ("$" if message.ad else "")
        )
        additional = len(message.additional) + (1 if message.edns is not None else 0)
        counts = f"{len(message.answer)}/{len(message.authority)}/{additional}"
        asked = "" if question is not None else " [0q]"
        shown = [_record(record) for record in message.answer]
        text = f"{message.id}{rcode.get(message.rcode, ' ' + message.rcode)}{bits}{asked} {counts}"
        if shown:
            text += " " + ", ".join(shown)
        return f"{text} ({size})"

    def _icmp(self, packet: Packet) -> str:
        size = packet.length - 20
        kind, code, quoted = packet.icmp_type, packet.icmp_code, packet.quoted
        if kind in (8, 0):
            word = "request" if kind == 8 else "reply"
            return f"ICMP echo {word}, id {packet.icmp_id}, seq {packet.icmp_seq}, length {size}"
        if kind == 3 and quoted is not None:
            what = {
                0: f"net {quoted.dst} unreachable",
                1: f"host {quoted.dst} unreachable",
                2: f"{quoted.dst} protocol {quoted.proto} unreachable",
                3: self._port_unreachable(quoted),
                4: f"{quoted.dst} unreachable - need to frag (mtu {packet.icmp_mtu})"
                if packet.icmp_mtu
                else f"{quoted.dst} unreachable - need to frag",
                9: f"host {quoted.dst} unreachable - net prohibited",
                10: f"host {quoted.dst} unreachable - admin prohibited",
                13: f"host {quoted.dst} unreachable - admin prohibited filter",
            }.get(code, f"{quoted.dst} unreachable - #{code}")
            return f"ICMP {what}, length {size}"
        if kind == 11:
            return f"ICMP time exceeded {'in-transit' if code == 0 else 'ip reassembly time exceeded'}, length {size}"
        return f"ICMP type-#{kind}, length {size}"

    def _port_unreachable(self, quoted: Packet) -> str:
        if quoted.proto in (TCP, UDP):
            name = "tcp" if quoted.proto == TCP else "udp"
            return f"{quoted.dst} {name} port {self._port(quoted.dport, quoted.proto)} unreachable"
        data = frame_bytes(Frame("00:00:00:00:00:00", "00:00:00:00:00:00", quoted))[14 + 20 + 2 : 14 + 20 + 4]
        return f"{quoted.dst} protocol {quoted.proto} port {int.from_bytes(data, 'big')} unreachable"

    def _icmp6(self, packet: Packet) -> str:
        size = packet.length - 40
        kind, quoted = packet.icmp_type, packet.quoted
        if kind in (128, 129):
            word = "request" if kind == 128 else "reply"
            return f"ICMP6, echo {word}, id {packet.icmp_id}, seq {packet.icmp_seq}, length {size}"
        if kind == 1 and quoted is not None:
            what = {
                0: f"unreachable route {quoted.dst}",
                1: f"unreachable prohibited {quoted.dst}",
                2: f"beyond scope {quoted.dst}, source address {quoted.src}",
                3: f"unreachable address {quoted.dst}",
                4: f"unreachable port, {quoted.dst} {'tcp' if quoted.proto == TCP else 'udp'} port "
                + self._port(quoted.dport, quoted.proto),
            }.get(packet.icmp_code, f"unreachable code-#{packet.icmp_code}")
            return f"ICMP6, destination unreachable, {what}, length {size}"
        if kind == 2:
            return f"ICMP6, packet too big, mtu {packet.icmp_mtu}, length {size}"
        if kind == 3 and quoted is not None:
            return f"ICMP6, time exceeded in-transit for {quoted.dst}, length {size}"
        return f"ICMP6, type-#{kind}, length {size}"


def _dns(payload: bytes) -> Any:
    from kubenet_lab.dns.message import BadMessage, from_wire

    try:
        return from_wire(payload)
    except BadMessage:
        return None


def _record(record: Any) -> str:
    parts = record.data.split()
    if record.type == "SRV":
        return f"SRV {parts[3]}:{parts[2]} {parts[0]} {parts[1]}"
    if record.type in ("A", "AAAA", "CNAME", "PTR", "NS"):
        return f"{record.type} {record.data}"
    return f"{record.type} {record.data}" if record.type == "TXT" else record.type


# -- filters -------------------------------------------------------------------------------------------------

_TOKENS = re.compile(r"\s*(\(|\)|!|&&|\|\||[^\s()!]+)")
Test = Callable[[Frame], bool]


class Filter:
    """A capture filter of pcap-filter(7): protocols, host, net, port, src, dst, and, or, not, parentheses."""

    def __init__(self, text: str) -> None:
        self.words = _TOKENS.findall(text)
        self.at = 0
        self.test: Test = lambda frame: True
        if self.words:
            self.test = self._any()
            if self.at < len(self.words):
                raise self._bad()

    def __call__(self, frame: Frame) -> bool:
        """Return True for a frame the filter lets through."""
        return self.test(frame)

    def _bad(self) -> Usage:
        return Usage("tcpdump: can't parse filter expression: syntax error\n", 1)

    def _peek(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else ""

    def _take(self) -> str:
        word = self._peek()
        if not word:
            raise self._bad()
        self.at += 1
        return word

    def _any(self) -> Test:
        # In pcap-filter "and" and "or" bind alike, from the left.
        left = self._not()
        while self._peek() in ("and", "&&", "or", "||"):
            both = self._take() in ("and", "&&")
            right = self._not()
            left = _both(left, right) if both else _either(left, right)
        return left

    def _not(self) -> Test:
        if self._peek() in ("not", "!"):
            self._take()
            inner = self._not()
            return lambda frame: not inner(frame)
        if self._peek() == "(":
            self._take()
            inner = self._any()
            if self._take() != ")":
                raise self._bad()
            return inner
        return self._primitive()

    def _primitive(self) -> Test:
        word = self._take()
        side = ""
        protocol = ""
        if word == "vlan":
            following = self._peek()
            if not following.isdigit():
                return lambda frame: frame.vlan != 0
            number = int(self._take())
            return lambda frame: frame.vlan == number
        if word in ("ip", "ip6", "arp", "tcp", "udp", "icmp", "icmp6", "sctp", "ether"):
            protocol = word
            if self._peek() not in ("src", "dst", "host", "port", "portrange", "net", "proto"):
                return _protocol(word)
            word = self._take()
        if word in ("src", "dst"):
            side = word
            word = (
                self._take() if self._peek() in ("host", "port", "portrange", "net", "or", "and") else "host"
            )
            if word in ("or", "and"):
                raise NotModelled("filter src or dst")
        made = self._value(word, side)
        return _both(_protocol(protocol), made) if protocol and protocol != "ether" else made

    def _value(self, word: str, side: str) -> Test:
        if word == "host" or (
            word not in ("port", "portrange", "net", "proto", "vxlan", "less", "greater")
            and _is_address(word)
        ):
            text = self._take() if word == "host" else word
            if not _is_address(text):
                raise NotModelled(f"filter host {text} (names)")
            return _host(canonical(text), side)
        if word == "net":
            text = self._take()
            try:
                block = prefix(text if "/" in text else _padded(text))
            except ValueError:
                raise self._bad() from None
            return lambda frame: any(address in block for address in _addresses(frame, side))
        if word == "port":
            port = self._take()
            number = int(port) if port.isdigit() else _named(port)
            return lambda frame: number in _ports(frame, side)
        if word == "portrange":
            low, dash, high = self._take().partition("-")
            if not dash or not low.isdigit() or not high.isdigit():
                raise self._bad()
            return lambda frame: any(int(low) <= port <= int(high) for port in _ports(frame, side))
        if word == "proto":
            name = self._take().lstrip("\\")
            number = PROTO_NUMBERS.get(name, int(name) if name.isdigit() else -1)
            return lambda frame: isinstance(frame.body, Packet) and frame.body.proto == number
        if re.fullmatch(r"[a-z0-9]+\[.*", word) or word in (
            "vxlan",
            "less",
            "greater",
            "broadcast",
            "multicast",
            "gateway",
        ):
            raise NotModelled(f"filter {word}")
        raise self._bad()


def _both(left: Test, right: Test) -> Test:
    return lambda frame: left(frame) and right(frame)


def _either(left: Test, right: Test) -> Test:
    return lambda frame: left(frame) or right(frame)


def _protocol(name: str) -> Test:
    def test(frame: Frame) -> bool:
        body = frame.body
        if isinstance(body, Arp):
            six = ":" in body.target_ip
            return name in ("ip6", "icmp6") if six else name == "arp"
        if name in ("ip", "ip6"):
            return (body.family == 6) == (name == "ip6")
        return body.proto == PROTO_NUMBERS.get("icmpv6" if name == "icmp6" else name, -1)

    return test


def _is_address(text: str) -> bool:
    try:
        canonical(text)
    except ValueError:
        return False
    return True


def _padded(text: str) -> str:
    """Return "10.244.0.0/16" for the net "10.244"."""
    parts = text.split(".")
    return ".".join([*parts, *["0"] * (4 - len(parts))]) + f"/{8 * len(parts)}"


def _named(name: str) -> int:
    for proto in (TCP, UDP):
        for number in range(1, 10000):
            if service(number, proto) == name:
                return number
    raise Usage(f"tcpdump: unknown port '{name}'\n", 1)


def _addresses(frame: Frame, side: str) -> tuple[str, ...]:
    body = frame.body
    src, dst = (body.sender_ip, body.target_ip) if isinstance(body, Arp) else (body.src, body.dst)
    return {"src": (src,), "dst": (dst,)}.get(side, (src, dst))


def _ports(frame: Frame, side: str) -> tuple[int, ...]:
    body = frame.body
    if isinstance(body, Arp) or body.proto not in (TCP, UDP, SCTP) or body.fragment < 0:
        return ()
    return {"src": (body.sport,), "dst": (body.dport,)}.get(side, (body.sport, body.dport))


def _host(address: str, side: str) -> Test:
    return lambda frame: address in _addresses(frame, side)


TOOL = Tool("tcpdump", "the frames themselves, from a link or a capture file", run)
