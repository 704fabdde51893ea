"""Random nftables rulesets with routes and packets, from a seed: the cases of `generator` with other rules."""

from __future__ import annotations

import random

from tests.twin.generator import MARKS, MASKS, PORTS, Case, Sent, _Maker
from tests.twin.lab import HOSTS, OWN, address

HOOKS = {
    "prerouting": ("filter", (-300, -160, -90)),
    "input": ("filter", (-10, 0)),
    "forward": ("filter", (-150, 0, 10)),
    "output": ("filter", (-300, -160, 0)),
    "postrouting": ("filter", (-150, 90)),
}
NATS = {"prerouting": -100, "output": -100, "input": 100, "postrouting": 100}
SETS = ("some-addresses", "some-ports")
UNREACHABLE = {
    4: ("host-unreachable", "net-unreachable", "prot-unreachable", "port-unreachable", "admin-prohibited"),
    6: ("no-route", "admin-prohibited", "addr-unreachable", "port-unreachable", "reject-route"),
}


class NftGenerator:
    """Cases from a seed; case `n` of a seed is always the same."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def case(self, number: int) -> Case:
        """Return case `number`."""
        return _NftMaker(random.Random(f"nft/{self.seed}/{number}"), OWN[number % len(OWN)]).case(number)


class _NftMaker(_Maker):
    def make_sets(self) -> str:
        return ""

    def make_rules(self, number: int) -> str:
        r = self.r
        family = "inet" if r.random() < 0.4 else "ip" if self.fam == 4 else "ip6"
        self.table_family = family
        self.ip = "ip" if self.fam == 4 else "ip6"
        head = [f"add table {fam} case\ndelete table {fam} case" for fam in ("ip", "ip6", "inet")]
        out = [f"table {family} case {{", *self.sets_of()]
        for hook, (kind, priorities) in HOOKS.items():
            if r.random() < 0.35:
                self.hook, self.kind = hook, kind
                if hook == "output" and r.random() < 0.4:
                    self.kind = "route"
                priority = r.choice(priorities)
                policy = "drop" if r.random() < 0.08 else "accept"
                out += self.chain(
                    f"{hook}-f",
                    f"type {self.kind} hook {hook} priority {priority}; policy {policy};",
                    priority,
                )
        for hook, priority in NATS.items():
            if r.random() < 0.3:
                self.hook, self.kind = hook, "nat"
                out += self.chain(
                    f"{hook}-n", f"type nat hook {hook} priority {priority}; policy accept;", priority
                )
        return "\n".join([*head, *out, "}"]) + "\n"

    def sets_of(self) -> list[str]:
        addresses = ", ".join(dict.fromkeys(self.any_address() for _ in range(2)))
        ports = ", ".join(str(p) for p in sorted({self.r.choice(PORTS) for _ in range(2)}))
        return [
            f"set some-addresses {{ type ipv{self.fam}_addr; elements = {{ {addresses} }}; }}",
            f"set some-ports {{ type inet_service; flags interval; elements = {{ {ports}, 3000-4000 }}; }}",
            f"set met {{ type ipv{self.fam}_addr; flags dynamic; timeout 1h; }}",
        ]

    def chain(self, name: str, head: str, priority: int) -> list[str]:
        r = self.r
        self.early = priority <= -300
        sub = f"{name}-u" if r.random() < 0.4 else ""
        lines = [f"chain {name} {{ {head}"]
        lines += [self.rule_line(sub) for _ in range(r.randint(1, 3))]
        lines.append("}")
        if sub:
            lines += [f"chain {sub} {{", *[self.rule_line("") for _ in range(r.randint(1, 3))], "}"]
        return lines

    def rule_line(self, sub: str) -> str:
        r = self.r
        packet = r.choice(self.packets)
        words: list[str] = []
        action, needs = self.action(sub)
        name = self.proto_name(packet.proto)
        if needs == "tcp":
            words.append("meta l4proto tcp" if r.random() < 0.5 else "tcp flags & (syn | rst) == syn")
            name = "tcp"
        elif needs == "ports":
            name = name if name in ("tcp", "udp") else "tcp"
            words.append(f"meta l4proto {name}")
        tests = [self.test(packet, name) for _ in range(r.choices((0, 1, 2), (3, 5, 2))[0])]
        # A second test of the protocol makes nft forget the first, which the action needs.
        words += [test for test in tests if not (needs and test.startswith("meta l4proto"))]
        if r.random() < 0.3:
            words.append("counter")
        return " ".join([*words, action]).strip() or "counter"

    # -- what is looked at ----------------------------------------------------------------------------------

    def test(self, packet: Sent, name: str) -> str:
        r = self.r
        negated = "!= " if r.random() < 0.25 else ""
        side, other = r.choice(("saddr", "daddr")), self.any_address()
        any_port = str(packet.dport or r.choice(PORTS)) if r.random() < 0.6 else str(r.choice(PORTS))
        options = [
            f"{self.ip} {side} {negated}{self.block()}",
            f"{self.ip} {side} {negated}{self.any_address()}",
            f"{self.ip} {side} {negated}{self.span()}",
            f"{self.ip} {side} {negated}{{ {self.any_address()}, {self.span()} }}",
            f"{self.ip} {side} {negated}@some-addresses",
            f"meta l4proto {negated}{name}",
            "meta l4proto != { tcp, udp }",
            f"meta mark {r.choice(('', '!= ', '> ', '<= '))}{r.choice((0, *MARKS)):#x}",
            f"meta mark and {r.choice(MASKS):#x} {r.choice(('==', '!='))} {r.choice((0, 1, 0x4000)):#x}",
            f"meta length {r.choice(('< 60', '>= 60', '28', '40-100', '!= 40-100'))}",
            f"{self.ip} {'ttl' if self.fam == 4 else 'hoplimit'} {r.choice(('1', '2', '!= 64', '> 63', '< 64'))}",
            f"{self.ip} dscp {negated}{r.choice(('cs1', 'ef', '0x00', 'cs0'))}",
            f"fib {side} type {negated}{r.choice(('local', 'unicast', '{ local, multicast }'))}",
            f"{self.ip} saddr . {self.ip} daddr {negated}{{ {packet.src} . {packet.dst}, {other} . {other} }}",
            "limit rate 100/hour burst 50 packets",
            f"meta pkttype {negated}host",
        ]
        if self.hook == "prerouting":
            options.append(f"fib saddr . iif oif {r.choice(('exists', 'missing'))}")
        if self.hook in ("prerouting", "input", "forward"):
            options.append(f"iifname {negated}{r.choice(('in0', 'out0', 'lo', chr(34) + 'out*' + chr(34)))}")
        if self.hook in ("forward", "output", "postrouting"):
            options.append(
                f"oifname {negated}{r.choice(('in0', 'out0', 'out1', chr(34) + 'out*' + chr(34)))}"
            )
        if self.hook in ("output", "postrouting"):
            options.append(f"meta skuid {negated}0")
        if name in ("tcp", "udp"):
            options += [
                f"{name} dport {negated}{any_port}",
                f"{name} sport {negated}{packet.sport}",
                f"{name} dport {negated}@some-ports",
                f"{name} dport {r.choice(('<', '>=', '<=', '>'))} {any_port}",
                f"{name} dport {negated}{{ {any_port}, 5000-6000 }}",
                f"{self.ip} daddr . {name} dport {negated}{{ {packet.dst} . {any_port} }}",
                f"{self.ip} daddr . {name} dport {negated}{{ {self.block()} . {any_port}-65535 }}",
                f"th dport {negated}{any_port}",
            ]
        if name == "tcp":
            options += [
                f"tcp flags {r.choice(('syn', '== syn', '! ack', 'syn / syn,ack', '!= syn / syn,ack,rst', 'fin,rst'))}",
                "tcp option maxseg size 500-1000",
            ]
        if name == "icmp":
            options += [
                f"icmp type {negated}{r.choice(('echo-request', 'echo-reply', '{ echo-reply, echo-request }'))}"
            ]
        if name == "ipv6-icmp":
            options += [f"icmpv6 type {negated}{r.choice(('echo-request', '{ echo-reply, echo-request }'))}"]
        if not self.early:
            options += [
                f"ct state {r.choice(('new', 'established,related', 'invalid', '!= new', '{ new, untracked }'))}",
                f"ct status {r.choice(('confirmed', 'seen-reply', 'assured', '! snat', 'dnat'))}",
                f"ct direction {r.choice(('original', 'reply'))}",
                f"ct mark {negated}{r.choice((0, *MARKS)):#x}",
                f"ct mark and {r.choice(MASKS):#x} == 0",
                f"ct {r.choice(('original', 'reply'))} {self.ip} {side} {negated}{self.any_address()}",
            ]
        return r.choice(options)

    def span(self) -> str:
        number = self.r.choice((1, 2, 3))
        low, high = address(number, 2, self.fam), address(number, self.r.choice((77, 200, 253)), self.fam)
        return f"{low}-{high}" if low != high else low

    # -- what is done ---------------------------------------------------------------------------------------

    def action(self, sub: str) -> tuple[str, str]:
        r = self.r
        mark = f"{r.choice(MARKS):#x}"
        options: list[tuple[str, str]] = [
            ("accept", ""),
            ("return", ""),
            ("continue", ""),
            (f"meta mark set {mark}", ""),
            (f"meta mark set meta mark {r.choice(('and', 'or', 'xor'))} {mark}", ""),
            (f"meta mark set meta mark and {r.choice(MASKS):#x} or {mark}", ""),
            (f"meta mark set {self.ip} saddr map {{ {self.packets[0].src} : {mark} }}", ""),
            (f"meta mark set numgen inc mod 3 offset {r.choice((0, 5))}", ""),
            (
                f"meta mark set jhash {self.ip} saddr . {self.ip} daddr mod 16 seed 0x{r.randrange(1 << 30):x}",
                "",
            ),
            (f"meta mark set jhash {self.ip} saddr mod 7 seed 0x{r.randrange(1 << 30):x} offset 3", ""),
            (f"update @met {{ {self.ip} saddr }}", ""),
            (f"{self.ip} daddr @met meta mark set {mark}", ""),
        ]
        if sub:
            options += [(f"jump {sub}", ""), (f"goto {sub}", ""), (f"jump {sub}", "")]
            options += [
                (f"meta l4proto vmap {{ tcp : jump {sub}, udp : {r.choice(('accept', 'return'))} }}", "")
            ]
        if not self.early:
            options += [
                (f"ct mark set {mark}", ""),
                ("ct mark set meta mark", ""),
                ("meta mark set ct mark", ""),
            ]
        if self.kind == "nat":
            return r.choice([*options[:4], *3 * self.nats()])
        options += [("drop", "")]
        if self.early and self.hook in ("prerouting", "output"):
            options += 2 * [("notrack", "")]
        if self.hook != "postrouting":
            options += self.rejects()
        if self.hook in ("forward", "output", "postrouting"):
            options += [(f"tcp option maxseg size set {r.choice((1000, 536))}", "tcp")]
            options += [(f"{self.ip} dscp set {r.choice(('cs1', 'ef'))}", "")]
            if self.fam == 4:
                options += [(f"ip ttl set {r.choice((2, 64))}", "")]
        return r.choice(options)

    def rejects(self) -> list[tuple[str, str]]:
        r = self.r
        kind = "icmp" if self.fam == 4 else "icmpv6"
        out = [
            ("reject", ""),
            (f"reject with {kind} {r.choice(UNREACHABLE[self.fam])}", ""),
            ("reject with tcp reset", "tcp"),
        ]
        if self.table_family == "inet":
            out.append(
                (f"reject with icmpx {r.choice(('host-unreachable', 'no-route', 'admin-prohibited'))}", "")
            )
        return out if self.hook in ("input", "forward", "output") else []

    def nats(self) -> list[tuple[str, str]]:
        r = self.r
        host, port = self.any_address(), r.choice(PORTS)
        shown = f"[{host}]" if self.fam == 6 else host
        family = f"{self.ip} " if self.table_family == "inet" else ""
        if self.hook in ("prerouting", "output"):
            pairs = ", ".join(f"{i} : {address(2, HOSTS[i], self.fam)} . {port}" for i in range(2))
            return [
                (f"dnat {family}to {host}", ""),
                (f"dnat {family}to {shown}:{port}", "ports"),
                ("redirect", ""),
                (f"redirect to :{port}", "ports"),
                (f"dnat {self.ip} addr . port to numgen inc mod 2 map {{ {pairs} }}", "ports"),
                (f"dnat {family}to {self.ip} daddr map {{ {self.packets[0].dst} : {host} }}", ""),
            ]
        out = [(f"snat {family}to {host}", ""), (f"snat {family}to {shown}:{port}", "ports")]
        return out + ([("masquerade", ""), ("masquerade", "")] if self.hook == "postrouting" else [])
