"""One case in the model and in the kernel: what leaves and enters the router, as the last hook sees it."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from types import TracebackType
from typing import Any, NamedTuple, Self

from kubenet_lab.kernel.dialects import ipset, nft
from kubenet_lab.kernel.dialects.iptables import load
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.route import RouteRule
from kubenet_lab.packet.ip import mac_from, prefix
from kubenet_lab.packet.packet import Frame, Packet
from kubenet_lab.twin import Twin
from kubenet_lab.walk import hooks
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb
from tests.twin.generator import Case, Sent
from tests.twin.lab import PROBE, SIDES, lab

GRACE = 0.002
"""Seconds without a further packet after which a case's packet has done all it does: the path is synchronous.
"""

EMPTY = "".join(f"*{table}\nCOMMIT\n" for table in ("raw", "mangle", "nat", "filter"))
INPUT_GROUP, POSTROUTING_GROUP = 2, 3


class Inner(NamedTuple):
    """The packet an ICMP error quotes."""

    src: str
    dst: str
    proto: int
    sport: int
    dport: int


class Event(NamedTuple):
    """A packet as it passed a hook of the router for the last time; an ICMP message's ports are its id and 0."""

    hook: str
    mark: int
    src: str
    dst: str
    proto: int
    sport: int
    dport: int
    flags: int
    icmp: tuple[int, int]
    ttl: int
    tos: int
    mss: int
    quoted: Inner | None

    def __str__(self) -> str:
        kind = f"icmp {self.icmp[0]}/{self.icmp[1]}" if self.proto in (1, 58) else f"flags {self.flags:#x}"
        quoted = f" about {tuple(self.quoted)}" if self.quoted else ""
        return (
            f"{self.hook} mark {self.mark:#x} {self.src}:{self.sport} > {self.dst}:{self.dport} proto {self.proto} "
            f"{kind} ttl {self.ttl} tos {self.tos:#x} mss {self.mss}{quoted}"
        )


class Result(NamedTuple):
    """What both worlds made of a case; events in order of their text, a packet at a time."""

    case: Case
    model: list[list[Event]]
    kernel: list[list[Event]]
    not_modelled: str
    model_text: str

    @property
    def equal(self) -> bool:
        """True when every packet had the same effects in both."""
        return self.model == self.kernel

    def text(self) -> str:
        """The case and both sides."""
        out = [self.case.text(), ""]
        for number, (model, kernel) in enumerate(zip(self.model, self.kernel, strict=True)):
            out.append(f"packet {number}: {'equal' if model == kernel else 'DIFFERS'}")
            out += [f"  model  {event}" for event in model] + [f"  kernel {event}" for event in kernel]
        return "\n".join([*out, self.model_text])


class Harness:
    """The lab in both worlds. `backend` is "legacy" or "nft": which iptables loads the rules."""

    def __init__(self, backend: str = "legacy") -> None:
        self.tools = {4: "iptables-restore", 6: "ip6tables-restore"}
        if backend == "legacy":
            self.tools = {4: "iptables-legacy-restore", 6: "ip6tables-legacy-restore"}
        self.network: Network = lab()
        self.start = self.network.snapshot()
        self.twin = Twin(self.network)
        self.undo: list[list[Any]] = []
        # A half-open connection whose answer a case's rules drop must not be answered again in the next case.
        for side in ("client", "server", "other"):
            self.twin.exec([(side, ["sysctl", "-qw", "net.ipv4.tcp_synack_retries=0"], "")])
        done = self.twin.exec([("router", ["nft", "-f", "-"], PROBE)])[0]
        if done.exit_code:
            raise RuntimeError(f"the probes cannot be loaded: {done.stderr}")
        self.twin.call("watch", ns="router", groups=[INPUT_GROUP, POSTROUTING_GROUP])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.twin.close()

    def run(self, case: Case) -> Result:
        """Try a case in both."""
        kernel = self.in_kernel(case)
        model, missing, text = self.in_model(case)
        return Result(case, model, kernel, missing, text)

    # -- the kernel -------------------------------------------------------------------------------------

    def in_kernel(self, case: Case) -> list[list[Event]]:
        """Load the case, send its packets and return what passed the router.

        What link-local addresses say among themselves (neighbour discovery) is left out.
        """
        steps: list[list[Any]] = []
        rules = [line for line in case.routes if line.startswith("rule")]
        routes = [line for line in case.routes if not line.startswith("rule")]
        tool = "ip" if case.family == 4 else "ip -6"
        if case.sets:
            steps += [["restore", self.tools[fam], EMPTY] for fam in (4, 6)]
            steps += [["ipset", "destroy"], ["restore", "ipset", case.sets]]
        if "-m recent" in case.rules:  # a list lives as long as any rule names it
            steps += [["restore", self.tools[fam], EMPTY] for fam in (4, 6)]
        steps += self.undo
        steps += [["sysctl", [[key.replace(".", "/"), value] for key, value in case.sysctls]]]
        steps += [[tool, routes + rules], ["restore", self.tools[case.family], case.rules], ["flush"]]
        self.undo = [
            [tool, [line.replace(" add ", " del ", 1) for line in [*reversed(rules), *reversed(routes)]]]
        ]
        before = len(steps)
        steps += [self.sending(packet) for packet in case.packets]
        results = self.twin.call("case", ns="router", steps=steps, grace=GRACE)
        refused = [item for result in results[:before] for item in result or []]
        if refused:
            raise AssertionError(f"the kernel refused the case:\n{refused}\n{case.text()}")
        return [
            sorted(
                (e for e in (event_of(*logged) for logged in seen) if not e.src.startswith("fe80:")), key=str
            )
            for _error, seen in results[before:]
        ]

    def sending(self, packet: Sent) -> list[Any]:
        """Return the agent's step that sends a packet."""
        data = wire(packet)
        if packet.origin == "router":
            return ["raw", "router", data.hex(), packet.mark]
        link = SIDES[packet.origin][0]
        macs = [
            bytes.fromhex(mac_from(*at).replace(":", ""))
            for at in (("router", link), (packet.origin, "eth0"))
        ]
        kind = b"\x86\xdd" if data[0] >> 4 == 6 else b"\x08\x00"
        return ["frame", packet.origin, "eth0", (macs[0] + macs[1] + kind + data).hex()]

    # -- the model --------------------------------------------------------------------------------------

    def in_model(self, case: Case) -> tuple[list[list[Event]], str, str]:
        """Load the case, send its packets and return what passed the router, and what was not modelled."""
        network = self.network
        network.restore(self.start)
        router = network.ns("router")
        router.xt_state.clear()
        router.conntrack.flush()
        for key, value in case.sysctls:
            router.set_sysctl(key, value)
        for line in case.routes:
            apply_route(router, line, case.family)
        router.ipsets = ipset.load(case.sets) if case.sets else {}
        self.load_rules(router, case)
        walk = Walk(network)
        seen: list[Event] = []
        out: list[list[Event]] = []
        texts: list[str] = []
        missing = ""
        with watching(seen):
            for packet in case.packets:
                seen.clear()
                body = packet_value(packet)
                if packet.origin == "router":
                    trace = walk.send("router", body, mark=packet.mark, role="raw", pmtudisc="do")
                else:
                    link = SIDES[packet.origin][0]
                    frame = Frame(mac_from(packet.origin, "eth0"), mac_from("router", link), body)
                    trace = walk.deliver("router", link, frame)
                out.append(sorted(seen, key=str))
                for each in every(trace):
                    texts.append(each.text())
                    if each.verdict == "not modelled":
                        missing = missing or each.why
        return out, missing, "\n".join(texts)

    def load_rules(self, router: Netns, case: Case) -> None:
        """`iptables-restore`."""
        router.set_iptables(case.family, load(case.rules, case.family))


class NftHarness(Harness):
    """The lab in both worlds, with rulesets of nftables."""

    def __init__(self) -> None:
        super().__init__("nft")
        self.tools = {4: "nft", 6: "nft"}

    def load_rules(self, router: Netns, case: Case) -> None:
        """`nft -f`."""
        router.set_nftables(nft.load(case.rules))


def every(trace: Any) -> list[Any]:
    """A trace and all it caused."""
    return [trace, *(t for child in trace.caused for t in every(child))]


class watching:
    """Record every packet that passes the router's INPUT or POSTROUTING to its end."""

    def __init__(self, seen: list[Event]) -> None:
        self.seen = seen
        self.input, self.postrouting = hooks.input, hooks.postrouting

    def __enter__(self) -> None:
        def note(name: str, hook: Any) -> Any:
            def wrapped(w: Walk, skb: Skb) -> bool:
                passed: bool = hook(w, skb)
                if passed and skb.ns.name == "router":
                    self.seen.append(event_of_value(name, skb.mark, skb.pkt))
                return passed

            return wrapped

        hooks.input = note("input", self.input)
        hooks.postrouting = note("postrouting", self.postrouting)

    def __exit__(self, *_exc: object) -> None:
        hooks.input, hooks.postrouting = self.input, self.postrouting


def apply_route(ns: Any, line: str, fam: int) -> None:
    """`ip route add ...` or `ip rule add ...` on the model, for the few forms the generator writes."""
    words = line.split()
    kind, rest = words[0], words[2:]
    negated = rest[:1] == ["not"]
    rest = rest[1:] if negated else rest
    if kind == "route":
        kinds = ("blackhole", "unreachable", "prohibit", "throw")
        fields: dict[str, Any] = {"type": rest.pop(0)} if rest[0] in kinds else {}
        dst = rest.pop(0)
        for key, value in zip(rest[::2], rest[1::2], strict=True):
            fields[key] = int(value) if key in ("metric", "table") else value
        ns.add_route(dst, **fields)
        return
    fields = {"family": fam, "invert": negated}
    while rest:
        key = rest.pop(0)
        if key in ("unreachable", "prohibit", "blackhole"):
            fields["action"] = key
            continue
        value = rest.pop(0)
        if key == "pref":
            fields["priority"] = int(value)
        elif key == "lookup":
            fields["table"] = int(value)
        elif key == "fwmark":
            mark, mask = (int(part, 16) for part in value.split("/"))
            fields |= {"fwmark": mark, "fwmask": mask}
        elif key in ("from", "to"):
            if value != "all":
                fields["src" if key == "from" else "dst"] = str(prefix(value))
        else:
            fields[key] = value
    ns.add_rule(RouteRule(**fields))


# -- a packet as bytes, as a value, and as an event -----------------------------------------------------


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + bytes(len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def wire(p: Sent) -> bytes:
    """The packet as bytes, written here a second time so that the model's own writer is no judge of itself."""
    src, dst = ip_address(p.src).packed, ip_address(p.dst).packed
    six = len(src) == 16
    data = bytes(p.size)
    if p.proto == 6:
        options = struct.pack("!BBH", 2, 4, p.mss) if p.mss else b""
        offset = (20 + len(options)) // 4 << 4
        body = struct.pack("!HHIIBBHHH", p.sport, p.dport, 1, 0, offset, p.flags, 1024, 0, 0) + options + data
        at = 16
    elif p.proto == 17:
        body = struct.pack("!HHHH", p.sport, p.dport, 8 + len(data), 0) + data
        at = 6
    else:
        body = struct.pack("!BBHHH", p.icmp_type, 0, 0, p.icmp_id, 1) + data
        at = 2
    pseudo = (
        src
        + dst
        + (struct.pack("!II", len(body), p.proto) if six else struct.pack("!HH", p.proto, len(body)))
    )
    check = checksum(body if p.proto == 1 else pseudo + body)
    if p.proto == 17 and check == 0:
        check = 0xFFFF
    body = body[:at] + struct.pack("!H", check) + body[at + 2 :]
    if six:
        return struct.pack("!IHBB", 6 << 28 | p.tos << 20, len(body), p.proto, p.ttl) + src + dst + body
    head = (
        struct.pack("!BBHHHBBH", 0x45, p.tos, 20 + len(body), 7, 0x4000 if p.df else 0, p.ttl, p.proto, 0)
        + src
        + dst
    )
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def packet_value(p: Sent) -> Packet:
    """The packet as the model's value."""
    return Packet(
        p.src, p.dst, p.proto, p.sport, p.dport, p.ttl, p.tos, 7, p.df, p.flags, 1, 0, p.mss,
        icmp_type=p.icmp_type, icmp_id=p.icmp_id, icmp_seq=1 if p.proto in (1, 58) else 0, payload_size=p.size,
    )  # fmt: skip


def event_of_value(hook: str, mark: int, p: Packet) -> Event:
    """What the model saw."""
    icmp = p.proto in (1, 58)
    quoted = None
    if p.quoted is not None:
        q = p.quoted
        ports = (q.icmp_id, 0) if q.proto in (1, 58) else (q.sport, q.dport)
        quoted = Inner(q.src, q.dst, q.proto, *ports)
    sport, dport = (0 if quoted else p.icmp_id, 0) if icmp else (p.sport, p.dport)
    kind = (p.icmp_type, p.icmp_code) if icmp else (0, 0)
    return Event(hook, mark, p.src, p.dst, p.proto, sport, dport, p.flags, kind, p.ttl, p.tos, p.mss, quoted)


def event_of(group: int, mark: int, _indev: int, _outdev: int, text: str) -> Event:
    """What the kernel logged."""
    data = bytes.fromhex(text)
    src, dst, proto, ttl, tos, body = split_ip(data)
    sport = dport = flags = mss = 0
    icmp, quoted = (0, 0), None
    if proto in (6, 17):
        sport, dport = struct.unpack("!HH", body[:4])
        if proto == 6:
            flags = body[13]
            mss = mss_of(body)
    elif proto in (1, 58):
        icmp = (body[0], body[1])
        if icmp[0] in ((3, 4, 11, 12) if proto == 1 else (1, 2, 3, 4)):
            inner = split_ip(body[8:])
            ports = (
                struct.unpack("!HH", inner[5][:4])
                if inner[2] in (6, 17)
                else (int.from_bytes(inner[5][4:6], "big"), 0)
            )
            quoted = Inner(inner[0], inner[1], inner[2], *ports)
        else:
            sport = int.from_bytes(body[4:6], "big")
    hook = "input" if group == INPUT_GROUP else "postrouting"
    return Event(hook, mark, src, dst, proto, sport, dport, flags, icmp, ttl, tos, mss, quoted)


def split_ip(data: bytes) -> tuple[str, str, int, int, int, bytes]:
    """Source, destination, protocol, TTL, TOS and payload of an IP packet without extension headers."""
    if data[0] >> 4 == 6:
        tos = int.from_bytes(data[:4], "big") >> 20 & 0xFF
        return str(ip_address(data[8:24])), str(ip_address(data[24:40])), data[6], data[7], tos, data[40:]
    start = (data[0] & 15) * 4
    return str(ip_address(data[12:16])), str(ip_address(data[16:20])), data[9], data[8], data[1], data[start:]


def mss_of(segment: bytes) -> int:
    """The MSS option of a TCP header, 0 without one."""
    options = segment[20 : (segment[12] >> 4) * 4]
    while options and options[0]:
        if options[0] == 1:
            options = options[1:]
        elif options[0] == 2:
            return int.from_bytes(options[2:4], "big")
        else:
            options = options[max(2, options[1]) :]
    return 0
