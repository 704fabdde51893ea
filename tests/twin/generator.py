"""Random (ruleset, routes, packets) cases over the modelled matches and targets, from a seed.

Rules are made as text, as a person would write them, so that reading them is judged too. Only combinations the real
`iptables-restore` takes are made: a target or match that works at some hooks only is made at those only, and a
user-defined chain belongs to one built-in chain.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from tests.twin.lab import HOSTS, OPEN_PORT, OWN, SIDES, address

TABLES = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}
PORTS = (OPEN_PORT, 81, 443, 2000, 40000)
MARKS = (0x1, 0x2, 0x4000, 0x8000, 0xF0F0, 0xFFFFFFFF)
MASKS = (0x1, 0xFF, 0x4000, 0xF000, 0xFFFFFFFF)
UNROUTED = {4: "10.99.0.9", 6: "fd99::9"}
FAR = {4: ("10.50.0.5", "10.51.0.5", "10.52.0.5"), 6: ("fd50::5", "fd51::5", "fd52::5")}
"""Addresses that only a case's own routes lead to."""

TCP_FLAGS = {"SYN": 2, "ACK": 16, "FIN": 17, "RST": 4, "SYN,ACK": 18, "PSH,ACK": 24, "NULL": 0}
FLAG_TESTS = ("FIN,SYN,RST,ACK SYN", "SYN,RST SYN", "ACK ACK", "ALL NONE", "RST RST")
STATES = ("NEW", "ESTABLISHED", "RELATED,ESTABLISHED", "INVALID", "NEW,UNTRACKED", "DNAT", "SNAT")


class Sent(NamedTuple):
    """A packet to send: from a host's link, or from the router itself (`origin` "router")."""

    origin: str
    src: str
    dst: str
    proto: int
    sport: int
    dport: int
    flags: int = 0
    icmp_type: int = 0
    icmp_id: int = 0
    ttl: int = 64
    tos: int = 0
    mss: int = 0
    size: int = 0
    mark: int = 0
    df: bool = True


class Case(NamedTuple):
    """One thing to try in both worlds."""

    number: int
    family: int
    rules: str
    sets: str
    routes: tuple[str, ...]
    """What follows `ip route add` or `ip rule add`, with that verb."""
    sysctls: tuple[tuple[str, str], ...]
    packets: tuple[Sent, ...]

    def text(self) -> str:
        """Return the case as commands to read."""
        lines = [f"# case {self.number}, IPv{self.family}", *(f"sysctl -w {k}={v}" for k, v in self.sysctls)]
        lines += [f"ip {line}" for line in self.routes]
        return "\n".join([*lines, self.sets.rstrip(), self.rules.rstrip(), *map(str, self.packets)])


class Generator:
    """Cases from a seed; case `n` of a seed is always the same."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def case(self, number: int) -> Case:
        """Return case `number`."""
        return _Maker(random.Random(f"{self.seed}/{number}"), OWN[number % len(OWN)]).case(number)


class _Maker:
    def __init__(self, rng: random.Random, own: int) -> None:
        self.r, self.own = rng, own
        self.fam = 4 if rng.random() < 0.7 else 6
        self.packets: list[Sent] = []

    def case(self, number: int) -> Case:
        self.packets = self.make_packets()
        sets = self.make_sets()
        rules = self.make_rules(number)
        return Case(
            number, self.fam, rules, sets, self.make_routes(), self.make_sysctls(), tuple(self.packets)
        )

    # -- packets ----------------------------------------------------------------------------------------

    def any_address(self) -> str:
        """An address that occurs in this lab, sometimes one of this case's packets."""
        r = self.r
        if self.packets and r.random() < 0.6:
            packet = r.choice(self.packets)
            return r.choice((packet.src, packet.dst))
        side = r.choice(list(SIDES.values()))[1]
        pool = [address(side, h, self.fam) for h in (1, *HOSTS)]
        return r.choice([*pool, UNROUTED[self.fam], *FAR[self.fam]])

    def make_packets(self) -> list[Sent]:
        r, fam = self.r, self.fam
        origin = r.choices(["client", "server", "router"], [7, 2, 2])[0]
        here = SIDES.get(origin, ("", 1))[1]
        src = address(here, self.own if r.random() < 0.85 else self.own - 126, fam)
        if origin == "router":
            src = address(r.choice((1, 2, 3)), 1, fam)
        elif r.random() < 0.08:
            src = r.choice((UNROUTED[fam], address(3, self.own - 126, fam), address(2, self.own, fam)))
        there = r.choice([n for _link, n in SIDES.values() if n != here])
        dst = address(there, r.choice((2, 2, 2, self.own, 3)), fam)
        if r.random() < 0.2:
            dst = address(r.choice((here, there)), 1, fam)
        elif r.random() < 0.25:
            dst = r.choice((*FAR[fam], UNROUTED[fam]))
        proto = r.choices([6, 17, 58 if fam == 6 else 1], [5, 4, 2])[0]
        first = Sent(
            origin, src, dst, proto,
            sport=r.choice((*PORTS, 50000)) if proto in (6, 17) else 0,
            dport=r.choice(PORTS) if proto in (6, 17) else 0,
            flags=TCP_FLAGS[r.choices(list(TCP_FLAGS), [10, 2, 1, 1, 1, 1, 1])[0]] if proto == 6 else 0,
            icmp_type={1: 8, 58: 128}.get(proto, 0) if r.random() < 0.9 else {1: 0, 58: 129}.get(proto, 0),
            icmp_id=r.randrange(1, 60000) if proto in (1, 58) else 0,
            ttl=r.choices([64, 1, 2, 128], [8, 1, 1, 1])[0],
            tos=r.choice((0, 0, 0, 8, 16, 0xB8)),
            size=r.choices((0, 4, 100, 1000, 1350), (3, 3, 2, 1, 1))[0],
            df=fam == 4 and r.random() < 0.7,
            mark=r.choice((0, 0, *MARKS)) if origin == "router" else 0,
        )  # fmt: skip
        if origin == "router" and first.src == first.dst:
            first = first._replace(
                sport=first.dport + 1
            )  # orig and reply tuple alike: the table's hash decides
        if first.flags & 2:
            first = first._replace(mss=r.choice((0, 536, 1460)), size=0)
        out = [first]
        if r.random() < 0.4:
            out.append(first if r.random() < 0.5 or proto == 6 else first._replace(size=first.size + 4))
        if r.random() < 0.15 and proto != 17:  # the kernel lets clashing UDP flows pass, the model drops one
            out.append(first._replace(sport=first.sport + 1, icmp_id=first.icmp_id + 1))
        return out

    # -- routes and parameters --------------------------------------------------------------------------

    def make_routes(self) -> tuple[str, ...]:
        r, fam = self.r, self.fam
        nets = (
            ("10.50.0.0/16", "10.51.0.0/16", "10.52.0.0/16")
            if fam == 4
            else ("fd50::/16", "fd51::/16", "fd52::/16")
        )
        out: list[str] = []
        for net in nets:
            if r.random() < 0.75:
                out.append(f"route add {self.way(net)}")
            if r.random() < 0.15:
                out.append(f"route add {self.way(net)} metric 4000")
        if r.random() < 0.25:
            out.append(f"route add {self.way('0.0.0.0/0' if fam == 4 else '::/0')}")
        if r.random() < 0.35:
            choices = [
                *nets,
                "0.0.0.0/0" if fam == 4 else "::/0",
                f"{self.any_address()}/{32 if fam == 4 else 128}",
            ]
            for net in dict.fromkeys(r.choice(choices) for _ in range(r.choice((1, 2)))):
                out.append(f"route add {self.way(net, throw=True)} table 100")
            selector = r.choice((
                f"fwmark {r.choice(MARKS):#x}/{r.choice(MASKS):#x}",
                f"from {self.any_address()}",
                f"to {self.any_address()}",
                f"iif {r.choice(('in0', 'out0', 'lo'))}",
                "from all",
            ))  # fmt: skip
            action = "lookup 100" if r.random() < 0.85 else r.choice(("unreachable", "prohibit", "blackhole"))
            negated = "not " if r.random() < 0.1 and not selector.startswith("from all") else ""
            out.append(
                f"rule add {negated}pref {r.choice((50, 100, 32767 if fam == 6 else 400))} {selector} {action}"
            )
        return tuple(out)

    def way(self, net: str, throw: bool = False) -> str:
        r = self.r
        kind = r.random()
        if kind < 0.1 and throw:
            return f"throw {net}"
        if kind < 0.3:
            return f"{r.choice(('blackhole', 'unreachable', 'prohibit'))} {net}"
        link, number = r.choice(list(SIDES.values()))
        via = address(number, r.choice(HOSTS), self.fam)
        return f"{net} via {via} dev {link}"

    def make_sysctls(self) -> tuple[tuple[str, str], ...]:
        r = self.r
        out = []
        if self.fam == 4:
            out += [("net.ipv4.conf.in0.rp_filter", str(r.choices((0, 1, 2), (6, 2, 1))[0]))]
            out += [("net.ipv4.ip_forward", "0" if r.random() < 0.04 else "1")]
        return tuple(out)

    # -- rules ------------------------------------------------------------------------------------------

    def make_sets(self) -> str:
        if self.r.random() > 0.25:
            return ""
        family = "inet" if self.fam == 4 else "inet6"
        kinds = {"s-ip": "hash:ip", "s-net": "hash:net", "s-port": "hash:ip,port"}
        lines = [f"create {name} {kind} family {family}" for name, kind in kinds.items()]
        for _ in range(3):
            lines.append(f"add s-ip {self.any_address()} -exist")
            lines.append(
                f"add s-net {self.any_address()}/{self.r.choice((24, 32) if self.fam == 4 else (64, 128))} -exist"
            )
            lines.append(
                f"add s-port {self.any_address()},{self.r.choice(('tcp', 'udp'))}:{self.r.choice(PORTS)} -exist"
            )
        self.sets = True
        return "\n".join(lines) + "\n"

    sets = False

    def make_rules(self, number: int) -> str:
        out: list[str] = []
        busy = self.r.random()
        for table, hooks in TABLES.items():
            declared: list[str] = []
            rules: list[str] = []
            for hook in hooks:
                policy = "DROP" if table == "filter" and self.r.random() < 0.06 else "ACCEPT"
                declared.append(f":{hook} {policy} [0:0]")
                if self.r.random() < (0.45 if busy < 0.8 else 0.9):
                    chain = f"{table[0]}-{hook}-u"
                    uses_chain = self.r.random() < 0.45
                    rules += [
                        self.rule(table, hook, hook, chain if uses_chain else "")
                        for _ in range(self.r.randint(1, 3))
                    ]
                    if uses_chain:
                        declared.append(f":{chain} - [0:0]")
                        rules += [self.rule(table, hook, chain, "") for _ in range(self.r.randint(1, 3))]
            out += [f"*{table}", *declared, *rules, "COMMIT"]
        return "\n".join(out) + "\n"

    def rule(self, table: str, hook: str, chain: str, sub: str) -> str:
        """One rule; `sub` is a chain it may jump to."""
        r = self.r
        words: list[str] = []
        packet = r.choice(self.packets)
        proto = packet.proto if r.random() < 0.85 else r.choice((6, 17))
        if sub and r.random() < 0.6:
            target = f"{r.choices(('-j', '-g'), (4, 1))[0]} {sub}"
            needs = ""
        else:
            target, needs = self.target(table, hook)
        if needs == "tcp":
            proto = 6
        if needs or r.random() < 0.5:
            negated = "! " if not needs and r.random() < 0.1 else ""
            words.append(f"{negated}-p {self.proto_name(proto)}")
            if negated:
                proto = 0
        else:
            proto = 0
        if r.random() < 0.3:
            words.append(self.not_all("-s"))
        if r.random() < 0.3:
            words.append(self.not_all("-d"))
        if hook in ("PREROUTING", "INPUT", "FORWARD") and r.random() < 0.15:
            words.append(f"{self.maybe_not()}-i {r.choice(('in0', 'out0', 'out+', 'lo'))}")
        if hook in ("FORWARD", "OUTPUT", "POSTROUTING") and r.random() < 0.15:
            words.append(f"{self.maybe_not()}-o {r.choice(('in0', 'out0', 'out1', 'out+'))}")
        for _ in range(r.choices((0, 1, 2), (4, 5, 2))[0]):
            words.append(self.match(table, hook, proto, packet))
        if needs == "tcp" and target.startswith("-j TCPMSS"):
            words.append("-m tcp --tcp-flags SYN,RST SYN")
        return " ".join([f"-A {chain}", *[w for w in words if w], target]).rstrip()

    def proto_name(self, proto: int) -> str:
        return {6: "tcp", 17: "udp", 1: "icmp", 58: "ipv6-icmp"}[proto]

    def maybe_not(self) -> str:
        return "! " if self.r.random() < 0.25 else ""

    def not_all(self, option: str) -> str:
        """An address condition; iptables refuses one that excludes every address."""
        block = self.block()
        return f"{option} {block}" if block.endswith("/0") else f"{self.maybe_not()}{option} {block}"

    def block(self) -> str:
        lengths = (32, 32, 24, 16, 8, 0) if self.fam == 4 else (128, 128, 64, 16, 8, 0)
        return f"{self.any_address()}/{self.r.choice(lengths)}"

    def some_block(self) -> str:
        """A block that is not every address: iptables-save has no text for that in some matches."""
        block = self.block()
        return block.removesuffix("/0") if block.endswith("/0") else block

    def port(self, actual: int) -> str:
        r = self.r
        first = actual if actual and r.random() < 0.6 else r.choice(PORTS)
        return (
            str(first)
            if r.random() < 0.7
            else f"{max(0, first - 5)}:{min(65535, first + r.choice((0, 5, 1000)))}"
        )

    def match(self, table: str, hook: str, proto: int, packet: Sent) -> str:
        """One `-m` that fits the protocol and the hook."""
        r, n = self.r, self.maybe_not
        kinds = ("LOCAL", "UNICAST", "LOCAL,UNICAST", "MULTICAST", "BROADCAST" if self.fam == 4 else "LOCAL")
        options: list[Callable[[], str]] = [
            lambda: f"-m mark {n()}--mark {r.choice((0, *MARKS)):#x}/{r.choice(MASKS):#x}",
            lambda: f"-m addrtype {n()}--{r.choice(('src', 'dst'))}-type {r.choice(kinds)}",
            lambda: f"-m length {n()}--length {r.choice(('0:59', '28', '40:100', '100:65535'))}",
            lambda: f"-m tos {n()}--tos {r.choice(('0x10/0x3f', '0x08/0xff', '0x00/0xff'))}",
            lambda: f"-m dscp {n()}--dscp {r.choice(('0x2e', '0x00', '0x04'))}",
            lambda: '-m comment --comment "a \\"b\\" c"',
            lambda: f"-m iprange {n()}--{r.choice(('src', 'dst'))}-range {self.range()}",
            lambda: f"-m statistic --mode nth {n()}--every {r.choice((1, 2, 3))} --packet 0",
            lambda: f"-m pkttype {n()}--pkt-type {r.choice(('unicast', 'broadcast'))}",
            (
                lambda: (
                    f"-m ttl {r.choice(('--ttl-eq', '! --ttl-eq', '--ttl-lt', '--ttl-gt'))} {r.choice((1, 2, 63, 64))}"
                )
            )
            if self.fam == 4
            else (
                lambda: (
                    f"-m hl {r.choice(('--hl-eq', '! --hl-eq', '--hl-lt', '--hl-gt'))} {r.choice((1, 2, 63, 64))}"
                )
            ),
        ]
        if proto == 6:
            options += 2 * [
                lambda: f"-m tcp {n()}--dport {self.port(packet.dport)}",
                lambda: f"-m tcp {n()}--sport {self.port(packet.sport)}",
                lambda: f"-m tcp {n()}--tcp-flags {r.choice(FLAG_TESTS)}",
            ]
            options.append(lambda: f"-m tcpmss {n()}--mss {r.choice(('1460', '500:600', '1:1500'))}")
        if proto == 17:
            options += 3 * [
                lambda: f"-m udp {n()}--dport {self.port(packet.dport)}",
                lambda: f"-m udp {n()}--sport {self.port(packet.sport)}",
            ]
        if proto in (6, 17):
            options.append(
                lambda: f"-m multiport {n()}--{r.choice(('sports', 'dports', 'ports'))} {self.ports(packet)}"
            )
        if proto == 1:
            options += 3 * [
                lambda: f"-m icmp {n()}--icmp-type {r.choice(('8', '0', '3', '3/3', 'any'))}".replace(
                    "! --icmp-type any", "--icmp-type any"
                )
            ]
        if proto == 58:
            options += 3 * [lambda: f"-m icmp6 {n()}--icmpv6-type {r.choice(('128', '129', '1', '1/4'))}"]
        if table != "raw":
            options += 2 * [
                lambda: f"-m conntrack {n()}--ctstate {r.choice(STATES)}",
                lambda: (
                    f"-m conntrack {n()}--ctstatus {r.choice(('CONFIRMED', 'SEEN_REPLY', 'ASSURED', 'NONE'))}"
                ),
                lambda: f"-m conntrack --ctdir {r.choice(('ORIGINAL', 'REPLY'))}",
                lambda: (
                    f"-m conntrack {n()}--ct{r.choice(('orig', 'repl'))}{r.choice(('src', 'dst'))} {self.some_block()}"
                ),
                lambda: f"-m connmark {n()}--mark {r.choice((0, *MARKS)):#x}/{r.choice(MASKS):#x}",
                lambda: (
                    f"-m state {n()}--state {r.choice(('NEW', 'ESTABLISHED', 'RELATED', 'INVALID', 'UNTRACKED'))}"
                ),
            ]
            if proto in (6, 17):
                options.append(
                    lambda: f"-m conntrack --ctproto {proto} {n()}--ctorigdstport {self.port(packet.dport)}"
                )
        options.append(
            lambda: f"-m recent {n()}{self.recent()} --name seen --{r.choice(('rsource', 'rdest'))}"
        )
        options.append(lambda: f"-m limit --limit 1/hour --limit-burst {r.choice((9, 20))}")
        if hook in ("OUTPUT", "POSTROUTING"):
            options.append(
                lambda: f"-m owner {n()}--{r.choice(('uid-owner 0', 'gid-owner 0', 'socket-exists'))}"
            )
        if hook == "PREROUTING" and table in ("raw", "mangle"):
            options.append(
                lambda: (
                    f"-m rpfilter{r.choice(('', ' --loose', ' --validmark'))}{r.choice(('', ' --invert'))}"
                )
            )
        if hook in ("PREROUTING", "INPUT", "FORWARD") and packet.origin != "router":
            options.append(
                lambda: f"-m mac {n()}--mac-source {r.choice((self.mac(packet.origin), '0a:00:00:00:00:01'))}"
            )
        if self.sets:
            options += 3 * [
                lambda: f"-m set {n()}--match-set s-{r.choice(('ip', 'net'))} {r.choice(('src', 'dst'))}",
                lambda: f"-m set {n()}--match-set s-port {r.choice(('src,dst', 'dst,dst', 'src,src'))}",
            ]
        return r.choice(options)()

    def recent(self) -> str:
        check = self.r.choice(("--rcheck", "--update")) + self.r.choice(("", "", " --hitcount 2"))
        return self.r.choice(("--set", "--set", check, "--remove"))

    def mac(self, origin: str) -> str:
        from kubenet_lab.packet.ip import mac_from

        return mac_from(origin, "eth0")

    def range(self) -> str:
        number = self.r.choice((1, 2, 3))
        return f"{address(number, 1, self.fam)}-{address(number, self.r.choice((2, 77, 200)), self.fam)}"

    def ports(self, packet: Sent) -> str:
        picked = {self.port(p) for p in (packet.dport, packet.sport, self.r.choice(PORTS))}
        return ",".join(sorted(picked))

    def target(self, table: str, hook: str) -> tuple[str, str]:
        """Return a target, and "proto" or "tcp" where it needs `-p`."""
        r = self.r
        options: list[tuple[str, str]] = [("-j ACCEPT", ""), ("-j RETURN", ""), ("", "")]
        if table != "nat":
            options += [("-j DROP", "")]
        options += 2 * [(f"-j MARK --set-xmark {r.choice(MARKS):#x}/{r.choice(MASKS):#x}", "")]
        options += [(f"-j MARK --{r.choice(('and', 'or', 'xor'))}-mark {r.choice(MARKS):#x}", "")]
        options += [(f"-j MARK --set-mark {r.choice(MARKS):#x}/{r.choice(MASKS):#x}", "")]
        if table != "raw":
            options += [
                (f"-j CONNMARK --set-xmark {r.choice(MARKS):#x}/{r.choice(MASKS):#x}", ""),
                (f"-j CONNMARK --save-mark --nfmask {r.choice(MASKS):#x} --ctmask {r.choice(MASKS):#x}", ""),
                (
                    f"-j CONNMARK --restore-mark --nfmask {r.choice(MASKS):#x} --ctmask {r.choice(MASKS):#x}",
                    "",
                ),
            ]
        if table == "raw":
            options += [("-j CT --notrack", ""), ("-j NOTRACK", ""), (f"-j CT --zone {r.choice((1, 2))}", "")]
        if table == "mangle":
            name = "TTL --ttl" if self.fam == 4 else "HL --hl"
            # The kernel loses an IPv6 packet's checksum where a hook before a local UDP socket changes its hop limit.
            if self.fam == 4 or hook not in ("PREROUTING", "INPUT"):
                options += 2 * [(f"-j {name}-{r.choice(('set', 'inc', 'dec'))} {r.choice((1, 2, 64))}", "")]
            if hook in ("FORWARD", "OUTPUT", "POSTROUTING"):
                options += [
                    (
                        f"-j TCPMSS {r.choice(('--set-mss 1000', '--set-mss 536', '--clamp-mss-to-pmtu'))}",
                        "tcp",
                    )
                ]
        if table == "filter":
            words = (
                (
                    "icmp-port-unreachable",
                    "icmp-host-prohibited",
                    "icmp-net-unreachable",
                    "icmp-admin-prohibited",
                    "icmp-proto-unreachable",
                )
                if self.fam == 4
                else (
                    "icmp6-port-unreachable",
                    "icmp6-no-route",
                    "icmp6-adm-prohibited",
                    "icmp6-addr-unreachable",
                    "icmp6-policy-fail",
                )
            )
            options += 2 * [
                (f"-j REJECT --reject-with {r.choice(words)}", ""),
                ("-j REJECT --reject-with tcp-reset", "tcp"),
            ]
        if table == "nat":
            port = r.choice(("", f":{r.choice(PORTS)}"))
            host = self.any_address()
            to = f"[{host}]{port}" if self.fam == 6 and port else f"{host}{port}"
            if hook in ("PREROUTING", "OUTPUT"):
                options += 4 * [(f"-j DNAT --to-destination {to}", "proto" if port else "")]
                options += [(f"-j REDIRECT --to-ports {r.choice(PORTS)}", "proto"), ("-j REDIRECT", "")]
                options += [(f"-j NETMAP --to {address(2, 0, self.fam)}/{24 if self.fam == 4 else 64}", "")]
            else:
                options += 4 * [(f"-j SNAT --to-source {to}", "proto" if port else "")]
            if hook == "POSTROUTING":
                options += 3 * [("-j MASQUERADE", "")]
        if hook != "INPUT" or table != "nat":
            options += [('-j NFLOG --nflog-group 9 --nflog-prefix "seen"', "")]
        target, needs = r.choice(options)
        if needs == "proto":
            needs = "tcp" if all(p.proto not in (6, 17) for p in self.packets) else "any"
        return target, needs
