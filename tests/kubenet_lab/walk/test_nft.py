"""The nftables evaluator: each row is a rule, a packet, and whether the rule fits it; then whole worlds."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from msgspec.structs import replace

from kubenet_lab.kernel.conntrack import Flow
from kubenet_lab.kernel.dialects import nft
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.nftables import Ruleset
from kubenet_lab.packet import ACK, ICMP, ICMPV6, SYN, TCP, UDP, Packet
from kubenet_lab.trace import RuleRef, Step
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.nft import evaluate
from kubenet_lab.walk.nft_expressions import jhash
from kubenet_lab.walk.skb import Skb
from kubenet_lab.walk.xtables import NotModelled, Verdict
from tests.flows.worlds import RULES, SERVICE, UNSERVED, two_nodes

CLIENT, POD = "10.244.0.7", "10.244.1.5"


class Context:
    """Stands in for the walk."""

    def __init__(self, now: float = 0.0, choose: Any = lambda rule, probability: True) -> None:
        self.now, self.choose = now, choose
        self.tried = 0
        self.steps: list[Step] = []


def node() -> Netns:
    ns = Netns("node-1")
    ns.add_link("eth0", "physical")
    ns.add_link("cni0", "bridge")
    for name, cidr in (
        ("eth0", "192.168.1.10/24"),
        ("eth0", "fd00:192:168:1::10/64"),
        ("cni0", "10.244.0.1/24"),
    ):
        ns.set_link(name, up=True)
        ns.add_address(name, cidr)
    ns.add_route("default", via="192.168.1.1", dev="eth0")
    return ns


def an_skb(ns: Netns, packet: Packet, **fields: Any) -> Skb:
    skb = Skb(packet, ns, fields.pop("indev", "cni0"))
    for name, value in fields.items():
        setattr(skb, name, value)
    return skb


def a_flow(**changes: Any) -> Flow:
    fields: dict[str, Any] = {
        "orig": (TCP, CLIENT, SERVICE, 33333, 80, 0),
        "reply": (TCP, POD, CLIENT, 8080, 33333, 0),
        "dst_nat": True,
        "expires": 30.0,
    }
    return Flow(**{**fields, **changes})


def chain(rules: str, family: str = "ip", extra: str = "", policy: str = "drop") -> Ruleset:
    return nft.load(
        f"table {family} t {{\n{extra}\n\tchain c {{\n\t\ttype filter hook forward priority 0; policy {policy};\n"
        f"{rules}\n\t}}\n}}\n"
    )


def run(ruleset: Ruleset, skb: Skb, ctx: Context | None = None) -> Verdict:
    (table,) = ruleset.tables.values()
    return evaluate(ruleset, table, table.chains["c"], skb, "FORWARD", ctx or Context())


SYN_PACKET = Packet(CLIENT, SERVICE, TCP, 33333, 80, flags=SYN, mss=1460, tos=0x48)
SIX = Packet("fd00:10:244::7", "fd00:10:96::64", TCP, 33333, 80, flags=SYN)
PING = Packet(CLIENT, POD, ICMP, icmp_type=8, icmp_id=7)
QUERY = Packet(CLIENT, "10.96.0.10", UDP, 40000, 53, payload_size=40)
TRACKED = {"ct": a_flow(), "ctinfo": "NEW"}
REPLY = {"ct": a_flow(seen_reply=True, confirmed=True, mark=0x4000), "ctinfo": "ESTABLISHED", "reply": True}

FITS: tuple[tuple[str, Packet, dict[str, Any], bool], ...] = (
    ("ip saddr 10.244.0.0/16", SYN_PACKET, {}, True),
    ("ip saddr != 10.244.0.0/16", SYN_PACKET, {}, False),
    ("ip saddr 10.244.0.1-10.244.0.9", SYN_PACKET, {}, True),
    ("ip daddr { 10.96.0.0/16, 172.16.0.0/12 }", SYN_PACKET, {}, True),
    ("ip daddr != { 10.96.0.0/16, 172.16.0.0/12 }", SYN_PACKET, {}, False),
    ("ip daddr { 10.96.0.101, 10.96.0.100 }", SYN_PACKET, {}, True),
    ("tcp dport 80", SYN_PACKET, {}, True),
    ("tcp dport 80", QUERY, {}, False),
    ("tcp dport != 81", QUERY, {}, False),
    ("udp dport 53", QUERY, {}, True),
    ("th dport 53", QUERY, {}, True),
    ("meta l4proto { tcp, udp } th dport { 53, 80 }", SYN_PACKET, {}, True),
    ("tcp dport 80-90", SYN_PACKET, {}, True),
    ("tcp dport < 81", SYN_PACKET, {}, True),
    ("tcp sport >= 40000", SYN_PACKET, {}, False),
    ("tcp flags syn", SYN_PACKET, {}, True),
    ("tcp flags & (syn|ack) == syn", SYN_PACKET, {}, True),
    ("tcp flags & (syn|ack) == syn", replace(SYN_PACKET, flags=SYN | ACK), {}, False),
    ("tcp flags ! ack,rst", SYN_PACKET, {}, True),
    ("tcp flags == syn", SYN_PACKET, {}, True),
    ("icmp type echo-request", PING, {}, True),
    ("icmp type { echo-reply, destination-unreachable }", PING, {}, False),
    ("icmp id 7", PING, {}, True),
    ("ip protocol icmp", PING, {}, True),
    ("ip ttl 64", PING, {}, True),
    ("ip dscp af21", SYN_PACKET, {}, True),
    ("ip dscp 0x12", SYN_PACKET, {}, True),
    ("ip length 28", PING, {}, True),
    ("udp length 48", QUERY, {}, True),
    ("meta length > 40", SYN_PACKET, {}, True),
    ("iifname cni0", SYN_PACKET, {}, True),
    ('iifname "cni*" oifname "eth0"', SYN_PACKET, {"outdev": "eth0"}, True),
    ("oifname != eth0", SYN_PACKET, {}, False),
    ("iif cni0", SYN_PACKET, {}, True),
    ("iifname . ip saddr { \"cni0\" . 10.244.0.7 }", SYN_PACKET, {}, True),
    ("meta mark 0x4000", SYN_PACKET, {"mark": 0x4000}, True),
    ("meta mark & 0x4000 != 0", SYN_PACKET, {"mark": 0xC000}, True),
    ("meta mark & 0xff == 0", SYN_PACKET, {"mark": 0xC000}, True),
    ("meta skuid 1000", SYN_PACKET, {"uid": 1000}, True),
    ("meta skuid 0", SYN_PACKET, {}, False),
    ("meta pkttype host", SYN_PACKET, {}, True),
    ("meta iiftype ether", SYN_PACKET, {}, True),
    ("meta protocol ip", SYN_PACKET, {}, True),
    ("ct state new", SYN_PACKET, TRACKED, True),
    ("ct state established,related", SYN_PACKET, TRACKED, False),
    ("ct state { new, related }", SYN_PACKET, TRACKED, True),
    ("ct state invalid", SYN_PACKET, {}, True),
    ("ct state untracked", SYN_PACKET, {"ctinfo": "UNTRACKED"}, True),
    ("ct status dnat", SYN_PACKET, TRACKED, True),
    ("ct status & (dnat | snat) == dnat", SYN_PACKET, TRACKED, True),
    ("ct direction reply", SYN_PACKET, REPLY, True),
    ("ct mark 0x4000", SYN_PACKET, REPLY, True),
    ("ct mark 0", SYN_PACKET, {}, False),
    ("ct original ip daddr 10.96.0.100", SYN_PACKET, REPLY, True),
    ("ct reply ip saddr 10.244.1.0/24", SYN_PACKET, REPLY, True),
    ("meta l4proto tcp ct original proto-dst 80", SYN_PACKET, REPLY, True),
    ("ct expiration 20s-40s", SYN_PACKET, TRACKED, True),
    ("ct bytes 0", SYN_PACKET, TRACKED, True),
    ("fib daddr type local", replace(SYN_PACKET, dst="192.168.1.10"), {}, True),
    ("fib daddr type local", SYN_PACKET, {}, False),
    ("fib daddr type { broadcast, multicast }", replace(QUERY, dst="224.0.0.1"), {}, True),
    ("fib saddr . iif oif missing", SYN_PACKET, {"indev": "eth0"}, True),
    ("fib saddr . iif oif exists", SYN_PACKET, {}, True),
    ("fib daddr oifname eth0", SYN_PACKET, {}, True),
    ("tcp option maxseg size 1460", SYN_PACKET, {}, True),
    ("tcp option maxseg exists", replace(SYN_PACKET, mss=0), {}, False),
    ("ether saddr 0a:58:0a:f4:00:07", SYN_PACKET, {"src_mac": "0a:58:0a:f4:00:07"}, True),
    ("ether saddr 0a:58:0a:f4:00:07", SYN_PACKET, {}, False),
    ("ip daddr . tcp dport { 10.96.0.100 . 80, 10.96.0.1 . 443 }", SYN_PACKET, {}, True),
    ("ip daddr . tcp dport { 10.96.0.0/24 . 80-90 }", SYN_PACKET, {}, True),
    ("ip daddr . tcp dport != { 10.96.0.100 . 80 }", SYN_PACKET, {}, False),
    ("ip saddr & 0.0.0.255 == 0.0.0.7", SYN_PACKET, {}, True),
    ("numgen inc mod 2 0", SYN_PACKET, {}, True),
    ("numgen random mod 3 < 1", SYN_PACKET, {}, True),
)  # fmt: skip


@pytest.mark.parametrize(("rule", "packet", "fields", "fits"), FITS)
def test_a_rule_fits_or_not(rule: str, packet: Packet, fields: dict[str, Any], fits: bool) -> None:
    ruleset = chain(f"\t\t{rule} accept")
    verdict = run(ruleset, an_skb(node(), packet, **fields))
    assert verdict.kind == ("ACCEPT" if fits else "DROP"), nft.list_ruleset(ruleset)


INET: tuple[tuple[str, Packet, bool], ...] = (
    ("ip saddr 10.244.0.7", SYN_PACKET, True),
    ("ip saddr 10.244.0.7", SIX, False),
    ("ip6 daddr fd00:10:96::/112", SIX, True),
    ("ip6 daddr != fd00:10:96::/112", SYN_PACKET, False),
    ("tcp dport 80", SIX, True),
    ("meta nfproto ipv6", SIX, True),
    ("meta nfproto ipv4 tcp dport 80", SIX, False),
    ("icmpv6 type echo-request", Packet("fd00::1", "fd00::2", ICMPV6, icmp_type=128), True),
    ("ip6 hoplimit 64 ip6 nexthdr tcp", SIX, True),
)


@pytest.mark.parametrize(("rule", "packet", "fits"), INET)
def test_inet_rules_look_at_their_family_only(rule: str, packet: Packet, fits: bool) -> None:
    assert run(chain(f"\t\t{rule} accept", "inet"), an_skb(node(), packet)).kind == (
        "ACCEPT" if fits else "DROP"
    )


def test_jumps_come_back_and_gotos_do_not() -> None:
    extra = "\tchain away {\n\t\tip saddr 10.244.0.7 meta mark set 1\n\t}\n"
    skb = an_skb(node(), SYN_PACKET)
    ctx = Context()
    ruleset = chain("\t\tjump away\n\t\tmeta mark 1 counter accept", extra=extra)
    assert run(ruleset, skb, ctx).kind == "ACCEPT"
    assert [str(step.entry) for step in ctx.steps] == [
        "ip t c rule 1: jump away",
        "ip t away rule 1: ip saddr 10.244.0.7 meta mark set 0x00000001",
        "ip t c rule 2: meta mark 0x00000001 counter packets 0 bytes 0 accept",
    ]
    assert all(isinstance(step.entry, RuleRef) for step in ctx.steps)
    assert ctx.tried == 3
    assert "counter packets 1 bytes 44 accept" in nft.list_ruleset(ruleset)
    assert run(chain("\t\tgoto away\n\t\taccept", extra=extra), an_skb(node(), SYN_PACKET)).kind == "DROP"


def test_return_ends_a_chain_and_the_policy_decides() -> None:
    verdict = run(chain("\t\treturn\n\t\taccept"), an_skb(node(), SYN_PACKET))
    assert (verdict.kind, str(verdict.rule)) == ("DROP", "ip t c policy drop")


def test_verdict_maps_and_their_default() -> None:
    extra = "\tchain web {\n\t\taccept\n\t}\n"
    services = "10.96.0.100 . tcp . 80 : jump web, 10.96.0.1 . tcp . 443 : drop"
    rules = f"\t\tip daddr . meta l4proto . th dport vmap {{ {services} }}"
    assert run(chain(rules, extra=extra), an_skb(node(), SYN_PACKET)).kind == "ACCEPT"
    assert run(chain(rules, extra=extra, policy="accept"), an_skb(node(), QUERY)).kind == "ACCEPT"
    assert (
        run(chain("\t\ttcp dport vmap { 81 : drop, * : accept }"), an_skb(node(), SYN_PACKET)).kind
        == "ACCEPT"
    )


def test_named_sets_follow_later_transactions() -> None:
    ruleset = chain(
        "\t\tip saddr @pods accept", extra="\tset pods {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t}\n"
    )
    assert run(ruleset, an_skb(node(), SYN_PACKET)).kind == "DROP"
    ruleset = nft.apply(ruleset, "add element ip t pods { 10.244.0.0/24 }")
    assert run(ruleset, an_skb(node(), SYN_PACKET)).kind == "ACCEPT"
    ruleset = nft.apply(ruleset, "delete element ip t pods { 10.244.0.0/24 }")
    assert run(ruleset, an_skb(node(), SYN_PACKET)).kind == "DROP"


def test_affinity_sets_forget_after_their_time() -> None:
    extra = "\tset seen {\n\t\ttype ipv4_addr\n\t\tflags dynamic\n\t\ttimeout 10s\n\t}\n"
    ruleset = chain("\t\tip saddr @seen accept\n\t\tupdate @seen { ip saddr }", extra=extra)
    assert run(ruleset, an_skb(node(), SYN_PACKET), Context(0.0)).kind == "DROP"
    assert "10.244.0.7 expires 10s" in nft.list_ruleset(ruleset)
    assert run(ruleset, an_skb(node(), SYN_PACKET), Context(9.0)).kind == "ACCEPT"
    assert run(ruleset, an_skb(node(), SYN_PACKET), Context(10.5)).kind == "DROP"
    assert "elements" not in nft.list_ruleset(ruleset, now=30.0)


def test_limit_lets_a_burst_through_and_then_its_rate() -> None:
    ruleset = chain("\t\tlimit rate 1/second burst 3 packets accept")
    said = [run(ruleset, an_skb(node(), PING), Context(now)).kind for now in (0, 0, 0, 0, 1.0, 1.5, 2.0)]
    assert said == ["ACCEPT", "ACCEPT", "ACCEPT", "DROP", "ACCEPT", "DROP", "ACCEPT"]


def test_quota_runs_out() -> None:
    ruleset = chain("\t\tquota 60 bytes accept")
    assert [run(ruleset, an_skb(node(), PING)).kind for _ in range(3)] == ["ACCEPT", "ACCEPT", "DROP"]
    assert "quota 60 bytes used 60 bytes" in nft.list_ruleset(ruleset)


def test_named_counters_count() -> None:
    ruleset = chain('\t\tcounter name "all" accept', extra="\tcounter all {\n\t}\n")
    run(ruleset, an_skb(node(), PING))
    assert "packets 1 bytes 28" in nft.list_ruleset(ruleset)


@pytest.mark.parametrize(
    ("rule", "family", "packet", "icmp"),
    [
        ("reject", "ip", SYN_PACKET, (3, 3)),
        ("reject", "inet", SIX, (1, 4)),
        ("reject with icmpx host-unreachable", "inet", SIX, (1, 3)),
        ("reject with icmp admin-prohibited", "ip", SYN_PACKET, (3, 13)),
        ("reject with tcp reset", "ip", SYN_PACKET, None),
    ],
)
def test_reject_says_which_error(
    rule: str, family: str, packet: Packet, icmp: tuple[int, int] | None
) -> None:
    verdict = run(chain(f"\t\t{rule}", family, policy="accept"), an_skb(node(), packet))
    assert (verdict.kind, verdict.icmp) == ("REJECT", icmp)


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        ("meta mark set 0x10", {}, {"mark": 0x10}),
        ("meta mark set meta mark or 0x4000", {"mark": 1}, {"mark": 0x4001}),
        ("meta mark set meta mark xor 0x4000", {"mark": 0x4001}, {"mark": 1}),
        ("meta mark set meta mark and 0xff or 0x100", {"mark": 0xFFF}, {"mark": 0x1FF}),
        ("meta mark set ip saddr map { 10.244.0.7 : 5 }", {}, {"mark": 5}),
        ("notrack", {}, {"notrack": True}),
        ("ct zone set 3", {}, {"zone": 3}),
    ],
)
def test_what_rules_write(rule: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    skb = an_skb(node(), SYN_PACKET, **before)
    run(chain(f"\t\t{rule}"), skb)
    assert {name: getattr(skb, name) for name in after} == after


def test_header_fields_are_written() -> None:
    skb = an_skb(node(), SYN_PACKET)
    run(chain("\t\tip dscp set cs1\n\t\tip ttl set 5\n\t\ttcp option maxseg size set 1400"), skb)
    assert (skb.pkt.tos, skb.pkt.ttl, skb.pkt.mss) == (0x20, 5, 1400)


def test_numgen_shares_evenly_and_inc_goes_round() -> None:
    extra = "".join(f"\tchain e{i} {{\n\t\tmeta mark set {i + 1} accept\n\t}}\n" for i in range(3))
    rules = "\t\tnumgen {} mod 3 vmap {{ 0 : goto e0, 1 : goto e1, 2 : goto e2 }}"
    walk = Walk(Network(), seed=4)
    ctx = Context(choose=walk.choose)
    marks: Counter[int] = Counter()
    ruleset = chain(rules.format("random"), extra=extra)
    for _ in range(3000):
        skb = an_skb(node_once, SYN_PACKET)
        run(ruleset, skb, ctx)
        marks[skb.mark] += 1
    assert sorted(marks) == [1, 2, 3]
    assert all(900 < count < 1100 for count in marks.values()), marks
    ruleset = chain(rules.format("inc"), extra=extra)
    order = []
    for _ in range(4):
        skb = an_skb(node_once, SYN_PACKET)
        run(ruleset, skb, ctx)
        order.append(skb.mark)
    assert order == [1, 2, 3, 1]


node_once = node()


def test_jhash_spreads() -> None:
    """That it is the kernel's hash, bit by bit, is what tests/twin/test_nft_property.py compares."""
    assert jhash(b"", 0) == 0xDEADBEEF, "the initial value of include/linux/jhash.h"
    hashed = {jhash(bytes([10, 244, 0, host]), 7) % 16 for host in range(1, 200)}
    assert hashed == set(range(16))
    assert jhash(b"\x0a\xf4\x00\x07", 0) != jhash(b"\x0a\xf4\x00\x07", 1)


@pytest.mark.parametrize(
    "rule",
    [
        "queue to 1",
        "@nh,96,8 10",
        "tproxy to :5",
        "dup to 10.0.0.1",
        "exthdr frag exists",
        "socket transparent 1 accept",
        "tcp flags syn synproxy mss 1460 wscale 7",
    ],
)
def test_what_is_not_modelled_says_so_when_a_packet_comes(rule: str) -> None:
    family = "inet" if "exthdr" in rule else "ip"
    needs = "meta l4proto tcp " if "tproxy" in rule else ""
    ruleset = chain(f"\t\t{needs}{rule}", family)
    assert rule.split()[0] in nft.list_ruleset(ruleset)
    with pytest.raises(NotModelled, match="not modelled"):
        run(ruleset, an_skb(node(), SYN_PACKET))


OBJECTS = """	flowtable f {
		hook ingress priority filter
		devices = { "eth0" }
	}
	ct helper ftp {
		type "ftp" protocol tcp
		l3proto ip
	}
	ct timeout short {
		protocol tcp
		l3proto ip
		policy = { established : 60 }
	}
	ct expectation e {
		protocol udp
		dport 9876
		timeout 2m
		size 12
		l3proto ip
	}
	secmark ssh {
		"system_u:object_r:ssh_server_packet_t:s0"
	}
"""


@pytest.mark.parametrize(
    "rule",
    [
        "flow add @f",
        'ct helper set "ftp"',
        'ct timeout set "short"',
        'ct expectation set "e"',
        'meta secmark set "ssh"',
    ],
)
def test_what_would_change_a_connections_fate_is_not_passed_over(rule: str) -> None:
    ruleset = chain(f"\t\t{rule}\n\t\taccept", extra=OBJECTS)
    assert rule in nft.list_ruleset(ruleset)
    with pytest.raises(NotModelled, match="not modelled"):
        run(ruleset, an_skb(node(), SYN_PACKET))


def test_ten_thousand_services_cost_what_ten_do() -> None:
    elements = ", ".join(
        f"10.{96 + (i >> 16)}.{i >> 8 & 255}.{i & 255} . tcp . 80 : goto svc" for i in range(10_000)
    )
    extra = (
        "\tmap services {\n\t\ttype ipv4_addr . inet_proto . inet_service : verdict\n\t\telements = { "
        + elements + " }\n\t}\n\tchain svc {\n\t\taccept\n\t}\n"
    )  # fmt: skip
    ctx = Context()
    assert (
        run(
            chain("\t\tip daddr . meta l4proto . th dport vmap @services", extra=extra),
            an_skb(node(), SYN_PACKET),
            ctx,
        ).kind
        == "ACCEPT"
    )
    assert ctx.tried == 2


# -- whole worlds ------------------------------------------------------------------------------------------------------

NFT_RULES = """table ip kube-proxy {
	set hairpin {
		type ipv4_addr . ipv4_addr . inet_proto . inet_service
		elements = { 10.244.0.3 . 10.244.0.3 . tcp . 8080, 10.244.1.2 . 10.244.1.2 . tcp . 8080 }
	}

	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.0.100 . tcp . 80 : goto service }
	}

	map no-endpoint-services {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.0.200 . tcp . 80 : goto reject-chain }
	}

	chain filter-forward {
		type filter hook forward priority filter; policy accept;
		ct state new ip daddr . meta l4proto . th dport vmap @no-endpoint-services
	}

	chain filter-output {
		type filter hook output priority filter; policy accept;
		ct state new ip daddr . meta l4proto . th dport vmap @no-endpoint-services
	}

	chain nat-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump services
	}

	chain nat-output {
		type nat hook output priority -100; policy accept;
		jump services
	}

	chain nat-postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		meta mark & 0x00004000 != 0x00000000 meta mark set meta mark ^ 0x00004000 masquerade fully-random
		ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin masquerade fully-random
		ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade fully-random
	}

	chain services {
		ip daddr 10.96.0.100 ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x00004000
		ip daddr . meta l4proto . th dport vmap @service-ips
	}

	chain service {
		meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.244.0.3 . 8080, 1 : 10.244.1.2 . 8080 }
	}

	chain reject-chain {
		reject
	}
}
"""
"""What kube-proxy's nftables mode makes of the same Services as `tests.flows.worlds.RULES`."""


def worlds() -> tuple[Network, Network]:
    """The same two nodes, with kube-proxy's rules in iptables and in nftables."""
    assert "KUBE-SVC" in RULES
    one, other = two_nodes(), two_nodes()
    for name in ("node-1", "node-2"):
        node_ns = other.ns(name)
        for fam in (4, 6):
            node_ns.set_iptables(fam, type(node_ns.iptables[fam])(fam))
        node_ns.set_nftables(nft.load(NFT_RULES))
    return one, other


FLOWS = [
    ("default/frontend", SERVICE, 80),
    ("default/frontend", UNSERVED, 80),
    ("default/backend-1", SERVICE, 80),
    ("default/backend-2", SERVICE, 80),
    ("node-1", SERVICE, 80),
    ("node-2", UNSERVED, 80),
    ("default/frontend", "10.244.1.2", 8080),
    ("default/frontend", "192.168.1.20", 22),
]


@pytest.mark.parametrize(("source", "address", "port"), FLOWS)
@pytest.mark.parametrize("seed", range(4))
def test_nftables_and_iptables_end_alike(source: str, address: str, port: int, seed: int) -> None:
    ends = []
    for network in worlds():
        walk = Walk(network, seed=seed)
        trace = walk.send(source, Packet("", address, TCP, 0, port, flags=SYN, mss=1460))
        answers = [(t.role, t.verdict, t.reason, t.packet.src, t.packet.flags) for t in trace.caused]
        seen = trace.delivered_as
        ends.append(
            (
                trace.verdict,
                trace.reason,
                seen and (seen.dst, seen.dport),
                seen and seen.src,
                answers,
                trace.text(),
            )
        )
    iptables, nftables = ends
    assert nftables[:3] == iptables[:3], f"{iptables[-1]}\n{nftables[-1]}"
    assert nftables[4] == iptables[4], f"{iptables[-1]}\n{nftables[-1]}"


def test_hooks_run_by_priority_and_policies_drop() -> None:
    network = two_nodes()
    ns = network.ns("node-1")
    ns.set_nftables(
        nft.load(
            "table inet f {\n\tchain late {\n\t\ttype filter hook forward priority 10; policy drop;\n\t}\n\n"
            "\tchain early {\n\t\ttype filter hook forward priority -10; policy accept;\n"
            "\t\ttcp dport 8080 meta mark set 7\n\t}\n}\n"
        )
    )
    trace = Walk(network).send("default/frontend", Packet("", "10.244.1.2", TCP, 0, 8080, flags=SYN))
    assert (trace.verdict, trace.reason) == ("dropped", "policy-drop")
    assert str(trace.decided_by) == "inet f late policy drop"
    assert "inet f early rule 1" in trace.text()
    assert trace.text().index("early") < trace.text().index("late")


def test_rules_in_a_namespace_come_and_go() -> None:
    network = two_nodes()
    ns = network.ns("node-1")
    before = ns.snapshot()
    ns.set_nftables(
        nft.load("table ip f {\n\tchain c {\n\t\ttype filter hook forward priority 0; policy drop;\n\t}\n}\n")
    )
    ask = Packet("", "10.244.1.2", TCP, 0, 8080, flags=SYN)
    assert Walk(network).send("default/frontend", ask).verdict == "dropped"
    ns.restore(before)
    assert Walk(network).send("default/frontend", ask).verdict == "delivered"
    assert not ns.has_nftables


def test_a_chain_of_type_nat_alone_tracks_nothing() -> None:
    """`nf_ct_netns_get` is called by rules that translate or ask conntrack; a nat chain is asked by conntrack only."""
    network = two_nodes()
    for name, rule in (("node-1", "counter"), ("node-2", "counter masquerade")):
        ns = network.ns(name)
        for fam in (4, 6):
            ns.set_iptables(fam, type(ns.iptables[fam])(fam))
        ns.set_nftables(
            nft.load(
                "table ip f {\n\tchain c {\n\t\ttype nat hook postrouting priority 100; policy accept;\n"
                f"\t\t{rule}\n\t}}\n}}\n"
            )
        )
        Walk(network).send(name, Packet("", "192.168.1.1", UDP, 0, 9, payload_size=4))
        assert bool(len(ns.conntrack)) == ("masquerade" in rule)
        assert ("packets 0" in nft.list_ruleset(ns.nftables)) == ("masquerade" not in rule)


def test_bridge_chains_see_ports_and_macs() -> None:
    """What the bridge plugin's `macspoofchk` writes: frames with another source MAC end at the port."""
    network = two_nodes()
    ns = network.ns("node-1")
    port = next(link.peer.link for link in network.ns("default/frontend").links.values() if link.peer)
    mac = next(link.mac for link in network.ns("default/frontend").links.values() if link.peer)
    rules = (
        "table bridge nat {{\n\tchain PREROUTING {{\n\t\ttype filter hook prerouting priority dstnat; policy accept;\n"
        '\t\tiifname "{}" jump check\n\t}}\n\n\tchain check {{\n\t\tether saddr {} return\n\t\tdrop\n\t}}\n}}\n'
    )
    ask = Packet("", "10.244.0.3", TCP, 0, 8080, flags=SYN)
    ns.set_nftables(nft.load(rules.format(port, mac)))
    assert Walk(network).send("default/frontend", ask).verdict == "delivered"
    ns.set_nftables(nft.load(rules.format(port, "0a:00:00:00:00:99")))
    trace = Walk(network).send("default/frontend", ask)
    assert (trace.verdict, str(trace.decided_by)) == ("dropped", "bridge nat check rule 2: drop")
