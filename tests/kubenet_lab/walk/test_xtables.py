"""The iptables evaluator: each row is rules, a packet, and what must come of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubenet_lab.kernel.conntrack import Flow
from kubenet_lab.kernel.dialects.iptables import load, restore, rule
from kubenet_lab.kernel.ipset import IpSet
from kubenet_lab.kernel.ipvs import Conn
from kubenet_lab.kernel.netfilter import MATCHES, TARGETS, Goto, Jump, Ruleset
from kubenet_lab.kernel.netfilter.targets import Accept, Drop, Return
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet import ACK, ICMP, ICMPV6, SYN, TCP, UDP, Packet
from kubenet_lab.trace import RuleRef, Step
from kubenet_lab.walk.skb import Skb
from kubenet_lab.walk.xt_matches import address_type
from kubenet_lab.walk.xtables import NatRange, NotModelled, ReadyRule, evaluate, run_hook

CLIENT, SERVICE = "10.244.0.7", "10.96.0.100"


class Context:
    """Stands in for the walk: notes what was hit, and takes or leaves random rules as told."""

    def __init__(self, choose: bool = True, now: float = 0.0) -> None:
        self.now = now
        self.tried = 0
        self.steps: list[Step] = []
        self.asked: list[float] = []
        self._choose = choose
        self.choose = self._chosen

    def _chosen(self, rule: Any, probability: float) -> bool:
        self.asked.append(probability)
        return self._choose

    @property
    def hits(self) -> list[tuple[str, int, str]]:
        """(chain, rule number, outcome) of every rule that fitted."""
        return [(step.entry.chain, step.entry.number, step.note) for step in self.steps]


def node() -> Netns:
    """A node with one network card and a pod bridge."""
    ns = Netns("node-1")
    for name, cidrs in (
        ("lo", ("127.0.0.1/8",)),
        ("eth0", ("192.168.1.10/24", "fd00:192:168:1::10/64")),
        ("cni0", ("10.244.0.1/24",)),
    ):
        if name not in ns.links:
            ns.add_link(name, "bridge" if name == "cni0" else "physical")
        ns.set_link(name, up=True)
        for cidr in cidrs:
            if not any(str(a).startswith(cidr) for a in ns.addrs(name)):
                ns.add_address(name, cidr)
    ns.ipsets = {
        "pods": IpSet("pods", "hash:net").add("10.244.0.0/16").add("10.244.9.0/24", "nomatch"),
        "services": IpSet("services", "hash:ip,port").add("10.96.0.100,tcp:80"),
        "ports": IpSet("ports", "bitmap:port").add("80"),
        "six": IpSet("six", "hash:ip", "inet6").add("fd00::1"),
        "all": IpSet("all", "list:set").add("pods").add("six"),
    }
    return ns


def a_flow(**changes: Any) -> Flow:
    """The connection of the default packet, translated to a backend."""
    fields: dict[str, Any] = {
        "orig": (TCP, CLIENT, SERVICE, 33333, 80, 0),
        "reply": (TCP, "10.244.1.5", CLIENT, 8080, 33333, 0),
        "dst_nat": True,
    }
    return Flow(**{**fields, **changes})


VIRTUAL = Conn(
    protocol=TCP,
    client=(CLIENT, 33333),
    virtual=(SERVICE, 80),
    real=("10.244.1.5", 8080),
    service=(TCP, SERVICE, 80),
)
"""The default packet's connection in IPVS."""


def a_packet(**changes: Any) -> Packet:
    fields: dict[str, Any] = {
        "src": CLIENT,
        "dst": SERVICE,
        "proto": TCP,
        "sport": 33333,
        "dport": 80,
        "flags": SYN,
        "mss": 1460,
    }
    return Packet(**{**fields, **changes})


def skb_of(ns: Netns, changes: dict[str, Any]) -> Skb:
    """Make a packet in flight; keys of the packet and of the skb may be mixed."""
    own = {key: value for key, value in changes.items() if key in Skb.__slots__}
    skb = Skb(
        a_packet(**{key: value for key, value in changes.items() if key not in own}),
        ns,
        own.get("indev", "cni0"),
    )
    for key, value in own.items():
        setattr(skb, key, value)
    return skb


def fits(
    text: str,
    changes: dict[str, Any],
    *,
    family: int = 4,
    ctx: Context | None = None,
    ns: Netns | None = None,
) -> bool:
    """Return True when a rule with these conditions fits the packet."""
    space = ns or node()
    ruleset = restore(
        Ruleset(family),
        f"*mangle\n:x - [0:0]\n-A POSTROUTING -j x\n-A x {text} -j ACCEPT\n-A x -j DROP\nCOMMIT\n",
    )
    space.set_iptables(family, ruleset)
    return (
        run_hook(skb_of(space, changes), family, "mangle", "POSTROUTING", ctx or Context()).kind == "ACCEPT"
    )


UDP_PACKET = {"proto": UDP, "dport": 53, "flags": 0, "mss": 0}
PING = {"proto": ICMP, "icmp_type": 8, "sport": 0, "dport": 0, "flags": 0, "mss": 0}
TRACKED: dict[str, Any] = {"ctinfo": "ESTABLISHED", "reply": True}

# conditions, what differs from the default packet, does it fit
CONDITIONS: list[tuple[str, dict[str, Any], bool]] = [
    ("", {}, True),
    ("-s 10.244.0.0/16", {}, True),
    ("! -s 10.244.0.0/16", {}, False),
    ("-s 10.244.0.7", {}, True),
    ("! -d 10.96.0.100", {}, False),
    ("-d 10.96.0.0/12", {"dst": "10.112.0.1"}, False),
    ("-d 10.0.0.100/255.0.0.255", {}, True),
    ("-i cni0", {}, True),
    ("-i cni+", {}, True),
    ("! -i cni+", {}, False),
    ("-o eth0", {"outdev": "eth0"}, True),
    ("! -o eth0", {"outdev": "cni0"}, True),
    ("-p udp", {}, False),
    ("! -p udp", {}, True),
    ("-f", {}, False),
    ("! -f", {}, True),
    ("-m comment --comment note", {}, True),
    ("-p tcp --dport 80", {}, True),
    ("-p tcp --dport 81:90", {}, False),
    ("-p tcp ! --dport 81:90", {}, True),
    ("-p tcp --sport 1024:", {}, True),
    ("-p tcp --syn", {}, True),
    ("-p tcp --syn", {"flags": SYN | ACK}, False),
    ("-p tcp ! --syn", {"flags": ACK}, True),
    ("-p tcp --tcp-flags ALL SYN,ACK", {"flags": SYN | ACK}, True),
    ("-p tcp --tcp-option 2", {}, True),
    ("-p tcp ! --tcp-option 2", {"mss": 0}, True),
    ("-p udp --dport 53", UDP_PACKET, True),
    ("-p udp --sport 53", UDP_PACKET, False),
    ("-p sctp --dport 80", {"proto": 132}, True),
    ("-p icmp --icmp-type echo-request", PING, True),
    ("-p icmp --icmp-type 8/1", PING, False),
    ("-p icmp ! --icmp-type 0", PING, True),
    ("-p icmp --icmp-type any", PING, True),
    ("-p tcp -m multiport --dports 79,80", {}, True),
    ("-p tcp -m multiport --sports 79,80", {}, False),
    ("-p tcp -m multiport --ports 30000:40000", {}, True),
    ("-p tcp -m multiport ! --dports 443", {}, True),
    ("-m iprange --src-range 10.244.0.1-10.244.0.9", {}, True),
    ("-m iprange ! --dst-range 10.96.0.1-10.96.0.9", {}, True),
    ("-m addrtype --dst-type LOCAL", {"dst": "192.168.1.10"}, True),
    ("-m addrtype --dst-type LOCAL", {}, False),
    ("-m addrtype ! --src-type LOCAL", {}, True),
    ("-m addrtype --dst-type BROADCAST", {"dst": "192.168.1.255"}, True),
    ("-m addrtype --dst-type MULTICAST", {"dst": "224.0.0.1"}, True),
    ("-m addrtype --dst-type UNICAST,LOCAL", {}, True),
    ("-m addrtype --dst-type LOCAL --limit-iface-out", {"dst": "192.168.1.10", "outdev": "eth0"}, True),
    ("-m addrtype --dst-type LOCAL --limit-iface-out", {"dst": "192.168.1.10", "outdev": "cni0"}, False),
    ("-m mark --mark 0x4000/0x4000", {"mark": 0xC000}, True),
    ("-m mark --mark 0x4000", {"mark": 0xC000}, False),
    ("-m mark ! --mark 0x4000/0x4000", {}, True),
    ("-m connmark --mark 5", {"ct": a_flow(mark=5)}, True),
    ("-m connmark ! --mark 5", {}, False),
    ("-m conntrack --ctstate NEW", {"ct": a_flow(), "ctinfo": "NEW"}, True),
    ("-m conntrack --ctstate RELATED,ESTABLISHED", {"ct": a_flow(), "ctinfo": "NEW"}, False),
    ("-m conntrack --ctstate INVALID", {"ctinfo": "INVALID"}, True),
    ("-m conntrack --ctstate INVALID", {"ctinfo": "UNTRACKED"}, False),
    ("-m conntrack --ctstate UNTRACKED", {"ctinfo": "UNTRACKED"}, True),
    ("-m conntrack --ctstate DNAT", {"ct": a_flow(), "ctinfo": "NEW"}, True),
    ("-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT", {"ct": a_flow(), "ctinfo": "NEW"}, False),
    ("-m conntrack --ctstate SNAT", {"ct": a_flow(), "ctinfo": "NEW"}, False),
    ("-m conntrack --ctdir REPLY", {"ct": a_flow(), **TRACKED}, True),
    ("-m conntrack --ctdir ORIGINAL", {"ct": a_flow(), **TRACKED}, False),
    ("-m conntrack --ctdir ORIGINAL", {}, False),
    ("-m conntrack --ctproto tcp", {"ct": a_flow()}, True),
    ("-m conntrack --ctorigdst 10.96.0.0/12 --ctorigdstport 80", {"ct": a_flow()}, True),
    ("-m conntrack --ctorigdst 10.96.0.0/12 --ctorigdstport 81", {"ct": a_flow()}, False),
    ("-m conntrack ! --ctorigsrc 10.244.0.7", {"ct": a_flow()}, False),
    ("-m conntrack --ctreplsrc 10.244.1.5 --ctreplsrcport 8080", {"ct": a_flow()}, True),
    ("-m conntrack --ctrepldst 10.244.0.7 --ctrepldstport 30000:40000", {"ct": a_flow()}, True),
    ("-m conntrack --ctstatus SEEN_REPLY,ASSURED", {"ct": a_flow(seen_reply=True)}, True),
    ("-m conntrack ! --ctstatus CONFIRMED", {"ct": a_flow()}, True),
    ("-m conntrack --ctexpire 100:200", {"ct": a_flow(expires=150.0)}, True),
    ("-m conntrack --ctexpire 5", {"ct": a_flow(expires=150.0)}, False),
    ("-m state --state NEW", {"ct": a_flow(), "ctinfo": "NEW"}, True),
    ("-m state ! --state NEW", {"ct": a_flow(), "ctinfo": "NEW"}, False),
    ("-m set --match-set pods src", {}, True),
    ("-m set --match-set pods src", {"src": "10.244.9.9"}, False),
    ("-m set ! --match-set pods dst", {}, True),
    ("-m set --match-set services dst,dst", {}, True),
    ("-m set --match-set services dst,src", {}, False),
    ("-m set --match-set ports dst", {}, True),
    ("-m set --match-set six src", {}, False),
    ("-m set --match-set all src", {}, True),
    ("-m physdev --physdev-in veth1 --physdev-is-bridged", {"physin": "veth1", "physout": "veth2"}, True),
    ("-m physdev --physdev-in veth+", {"physin": "veth1"}, True),
    ("-m physdev ! --physdev-out veth2", {"physin": "veth1", "physout": "veth2"}, False),
    ("-m physdev --physdev-is-bridged", {"physin": "veth1"}, False),
    ("-m physdev ! --physdev-is-bridged", {}, True),
    ("-m physdev --physdev-is-in", {}, False),
    ("-m owner --uid-owner 1000", {"uid": 1000, "gid": 1000}, True),
    ("-m owner --uid-owner 0-999", {"uid": 1000, "gid": 1000}, False),
    ("-m owner ! --gid-owner 5", {"uid": 0, "gid": 0}, True),
    ("-m owner --uid-owner 0", {}, False),
    ("-m owner ! --uid-owner 0", {}, True),
    ("-m owner --socket-exists", {"uid": 0}, True),
    ("-m owner ! --socket-exists", {}, True),
    ("-m length --length 44", {}, True),
    ("-m length --length 45:", {}, False),
    ("-p tcp -m tcpmss --mss 1400:1500", {}, True),
    ("-p tcp -m tcpmss ! --mss 1400:1500", {"mss": 0}, True),
    ("-m ttl --ttl-gt 60", {}, True),
    ("-m ttl --ttl-lt 60", {}, False),
    ("-m ttl ! --ttl-eq 64", {}, False),
    ("-m dscp --dscp-class EF", {"tos": 46 << 2}, True),
    ("-m tos --tos 0x10/0x1f", {"tos": 0x30}, True),
    ("-m mac --mac-source 0a:58:0a:f4:00:07", {"src_mac": "0a:58:0a:f4:00:07"}, True),
    ("-m mac ! --mac-source 0a:58:0a:f4:00:07", {}, False),
    ("-m pkttype --pkt-type broadcast", {"dst_mac": "ff:ff:ff:ff:ff:ff"}, True),
    ("-m pkttype --pkt-type unicast", {"dst_mac": "0a:58:0a:f4:00:01"}, True),
    ("-m nfacct --nfacct-name hits", {}, True),
    ("-m ipvs --ipvs", {}, False),
    ("-m ipvs ! --ipvs", {}, True),
    ("-m ipvs --ipvs", {"ipvs": VIRTUAL}, True),
    ("-m ipvs --vaddr 10.96.0.100 --vproto tcp --vport 80", {"ipvs": VIRTUAL}, True),
    ("-m ipvs --vaddr 10.96.0.100 --vproto tcp --vport 80", {}, False),
    ("-m ipvs --vaddr 10.96.0.0/16 --vmethod MASQ", {"ipvs": VIRTUAL}, True),
    ("-m ipvs ! --vaddr 10.96.0.0/16", {"ipvs": VIRTUAL}, False),
    ("-m ipvs --vport 81", {"ipvs": VIRTUAL}, False),
    ("-m ipvs --vdir ORIGINAL", {"ipvs": VIRTUAL, "ct": a_flow()}, True),
    ("-m ipvs --vdir REPLY", {"ipvs": VIRTUAL, "ct": a_flow()}, False),
    ("-m statistic --mode random --probability 0.5", {}, True),
    ("-m statistic --mode nth --every 2 --packet 0", {}, True),
    ("-m statistic --mode nth --every 2 --packet 1", {}, False),
    ("-m limit --limit 5/min", {}, True),
    ("-m hashlimit --hashlimit-upto 5/min --hashlimit-mode srcip --hashlimit-name h", {}, True),
    ("-m hashlimit --hashlimit-above 5/min --hashlimit-mode srcip --hashlimit-name h", {}, False),
    ("-m recent --set --name x", {}, True),
    ("-m recent --rcheck --name x", {}, False),
]


@pytest.mark.parametrize(
    ("text", "changes", "fit"), CONDITIONS, ids=[f"{t} {list(c)}" for t, c, _ in CONDITIONS]
)
def test_conditions(text: str, changes: dict[str, Any], fit: bool) -> None:
    assert fits(text, changes) is fit


SIX = {"src": "fd00::7", "dst": "fd00:10:96::100"}
CONDITIONS_6: list[tuple[str, dict[str, Any], bool]] = [
    ("-s fd00::/64 -d fd00:10:96::100 -p tcp --dport 80", SIX, True),
    ("! -s fd00::/64", SIX, False),
    ("-p icmpv6 --icmpv6-type echo-request", {**SIX, "proto": ICMPV6, "icmp_type": 128}, True),
    ("-p icmpv6 --icmpv6-type no-route", {**SIX, "proto": ICMPV6, "icmp_type": 1, "icmp_code": 4}, False),
    ("-m hl --hl-eq 64", SIX, True),
    ("-m set --match-set six src", {**SIX, "src": "fd00::1"}, True),
    ("-m addrtype --dst-type LOCAL", {**SIX, "dst": "fd00:192:168:1::10"}, True),
    ("-m addrtype --dst-type MULTICAST", {**SIX, "dst": "ff02::1"}, True),
    ("-m iprange --src-range fd00::1-fd00::9", SIX, True),
]


@pytest.mark.parametrize(("text", "changes", "fit"), CONDITIONS_6)
def test_conditions_of_ipv6(text: str, changes: dict[str, Any], fit: bool) -> None:
    assert fits(text, changes, family=6) is fit


NOT_MODELLED = [
    ('-m u32 --u32 "6&0xFF=0x6"', "u32"),
    ("-m string --string x --algo bm", "string"),
    ("-m time --timestart 10:00", "time"),
    ("-m policy --dir in --pol ipsec", "policy"),
    ("-p tcp --tcp-option 8", "--tcp-option 8"),
    ("-m set --match-set gone src", "the set gone does not exist"),
    ("-m hashlimit --hashlimit-upto 1mb/s --hashlimit-name h", "hashlimit by bytes"),
]


@pytest.mark.parametrize(("text", "what"), NOT_MODELLED)
def test_what_is_not_modelled_stops_only_packets_that_need_it(text: str, what: str) -> None:
    with pytest.raises(NotModelled, match=what) as caught:
        fits(text, {})
    assert (caught.value.entry.chain, caught.value.entry.number) == ("x", 1)
    assert fits(f"{text} -m mark --mark 7", {}) is False, "a cheaper condition already rules the packet out"
    assert fits(f"-s 1.2.3.4 {text}", {}) is False


def test_every_match_and_target_has_been_seen_here() -> None:
    texts = [(text, 4) for text, _, _ in CONDITIONS] + [(text, 6) for text, _, _ in CONDITIONS_6]
    seen = {type(m) for text, family in texts for m in rule(text, family).matches}
    seen |= {type(m) for text, _ in NOT_MODELLED for m in rule(text).matches}
    apart = {"RpFilter", "SocketMatch"}
    assert {m.__name__ for m in MATCHES if m not in seen} <= apart
    done = {type(rule(target, family).target) for family, target, *_ in ENDS}
    done |= {type(rule(target, family).target) for family, target, *_ in CHANGES}
    done |= {type(rule(target).target) for target in ("-j QUEUE", "-j NFQUEUE", "-j RETURN")}
    assert [t.__name__ for t in TARGETS if t not in done] == []


# -- targets --------------------------------------------------------------------------------------------

# family, target, table and hook, verdict, ICMP error or range
ENDS: list[tuple[int, str, str, str, str, Any]] = [
    (4, "-j ACCEPT", "filter", "FORWARD", "ACCEPT", None),
    (4, "-j DROP", "filter", "FORWARD", "DROP", None),
    (4, "-j REJECT", "filter", "FORWARD", "REJECT", (3, 3)),
    (4, "-j REJECT --reject-with icmp-net-unreachable", "filter", "FORWARD", "REJECT", (3, 0)),
    (4, "-j REJECT --reject-with icmp-host-unreachable", "filter", "FORWARD", "REJECT", (3, 1)),
    (4, "-j REJECT --reject-with icmp-proto-unreachable", "filter", "FORWARD", "REJECT", (3, 2)),
    (4, "-j REJECT --reject-with icmp-net-prohibited", "filter", "FORWARD", "REJECT", (3, 9)),
    (4, "-j REJECT --reject-with icmp-host-prohibited", "filter", "FORWARD", "REJECT", (3, 10)),
    (4, "-j REJECT --reject-with icmp-admin-prohibited", "filter", "FORWARD", "REJECT", (3, 13)),
    (4, "-p tcp -j REJECT --reject-with tcp-reset", "filter", "FORWARD", "REJECT", None),
    (6, "-j REJECT", "filter", "FORWARD", "REJECT", (1, 4)),
    (6, "-j REJECT --reject-with icmp6-no-route", "filter", "FORWARD", "REJECT", (1, 0)),
    (6, "-j REJECT --reject-with icmp6-adm-prohibited", "filter", "FORWARD", "REJECT", (1, 1)),
    (6, "-j REJECT --reject-with icmp6-addr-unreachable", "filter", "FORWARD", "REJECT", (1, 3)),
    (6, "-j REJECT --reject-with icmp6-policy-fail", "filter", "FORWARD", "REJECT", (1, 5)),
    (6, "-j REJECT --reject-with icmp6-reject-route", "filter", "FORWARD", "REJECT", (1, 6)),
    (4, "-p tcp -j DNAT --to-destination 10.244.1.5:8080", "nat", "PREROUTING", "NAT",
     NatRange("DNAT", "dst", "10.244.1.5", "10.244.1.5", (8080, 8080))),
    (4, "-j DNAT --to-destination 10.0.0.1-10.0.0.9 --persistent", "nat", "OUTPUT", "NAT",
     NatRange("DNAT", "dst", "10.0.0.1", "10.0.0.9", persistent=True)),
    (6, "-p tcp -j DNAT --to-destination [fd00::5]:80-90/80", "nat", "PREROUTING", "NAT",
     NatRange("DNAT", "dst", "fd00::5", "fd00::5", (80, 90), 80)),
    (4, "-j SNAT --to-source 192.168.1.10 --random", "nat", "POSTROUTING", "NAT",
     NatRange("SNAT", "src", "192.168.1.10", "192.168.1.10", random=True)),
    (4, "-j MASQUERADE --random-fully", "nat", "POSTROUTING", "NAT", NatRange("MASQUERADE", "src", random_fully=True)),
    (4, "-p tcp -j REDIRECT --to-ports 15001", "nat", "PREROUTING", "NAT",
     NatRange("REDIRECT", "dst", ports=(15001, 15001))),
    (4, "-j NETMAP --to 10.200.0.0/16", "nat", "PREROUTING", "NAT",
     NatRange("NETMAP", "dst", "10.200.0.100", "10.200.0.100")),
    (4, "-j NETMAP --to 10.200.0.0/16", "nat", "POSTROUTING", "NAT",
     NatRange("NETMAP", "src", "10.200.0.7", "10.200.0.7")),
]  # fmt: skip


@pytest.mark.parametrize(("family", "target", "table", "hook", "kind", "more"), ENDS)
def test_targets_that_end_a_table(
    family: int, target: str, table: str, hook: str, kind: str, more: Any
) -> None:
    ns = node()
    ns.set_iptables(
        family, restore(Ruleset(family), f"*{table}\n-A {hook} {target}\n-A {hook} -j RETURN\nCOMMIT\n")
    )
    ctx = Context()
    verdict = run_hook(skb_of(ns, SIX if family == 6 else {}), family, table, hook, ctx)
    assert verdict.kind == kind
    assert (verdict.rule.table, verdict.rule.chain, verdict.rule.number) == (table, hook, 1)
    assert (verdict.range if kind == "NAT" else verdict.icmp) == more
    assert verdict.tcp_reset == ("tcp-reset" in target)
    assert [hit[:2] for hit in ctx.hits] == [(hook, 1)]


# family, target, table, what the packet has before, attribute (of packet, skb or flow), its value after
CHANGES: list[tuple[int, str, str, dict[str, Any], str, Any]] = [
    (4, "-j MARK --or-mark 0x4000", "mangle", {"mark": 1}, "mark", 0x4001),
    (4, "-j MARK --xor-mark 0x4000", "mangle", {"mark": 0x4001}, "mark", 1),
    (4, "-j MARK --and-mark 0xff", "mangle", {"mark": 0x1234}, "mark", 0x34),
    (4, "-j MARK --set-mark 2/3", "mangle", {"mark": 0xF5}, "mark", 0xF6),
    (4, "-j CONNMARK --set-mark 7", "mangle", {"ct": a_flow()}, "ct.mark", 7),
    (
        4,
        "-j CONNMARK --save-mark --mask 0xff",
        "mangle",
        {"mark": 0x1FF, "ct": a_flow(mark=0x100)},
        "ct.mark",
        0x1FF,
    ),
    (
        4,
        "-j CONNMARK --restore-mark --mask 0xf0",
        "mangle",
        {"mark": 1, "ct": a_flow(mark=0xFF)},
        "mark",
        0xF1,
    ),
    (4, "-j CONNMARK --restore-mark", "mangle", {"mark": 1}, "mark", 1),
    (4, "-j CT --notrack", "raw", {}, "notrack", True),
    (4, "-j NOTRACK", "raw", {}, "notrack", True),
    (4, "-j CT --zone 5", "raw", {}, "zone", 5),
    (4, "-j TTL --ttl-dec 10", "mangle", {}, "pkt.ttl", 54),
    (4, "-j TTL --ttl-inc 255", "mangle", {}, "pkt.ttl", 255),
    (6, "-j HL --hl-set 3", "mangle", SIX, "pkt.ttl", 3),
    (4, "-p tcp --syn -j TCPMSS --set-mss 1360", "mangle", {}, "pkt.mss", 1360),
    (4, "-p tcp --syn -j TCPMSS --set-mss 9000", "mangle", {}, "pkt.mss", 1460),
    (
        4,
        "-p tcp --syn -j TCPMSS --clamp-mss-to-pmtu",
        "mangle",
        {"dst": "192.168.1.20", "mss": 8960},
        "pkt.mss",
        1460,
    ),
    (4, '-j LOG --log-prefix "x "', "filter", {}, "mark", 0),
    (4, "-j NFLOG --nflog-group 3", "filter", {}, "mark", 0),
    (4, "-j TRACE", "raw", {}, "mark", 0),
]


@pytest.mark.parametrize(("family", "target", "table", "before", "name", "after"), CHANGES)
def test_targets_that_change_a_packet_go_on(
    family: int, target: str, table: str, before: dict[str, Any], name: str, after: Any
) -> None:
    ns = node()
    ns.set_iptables(
        family, restore(Ruleset(family), f"*{table}\n-A OUTPUT {target}\n-A OUTPUT -j DROP\nCOMMIT\n")
    )
    skb = skb_of(ns, before)
    assert run_hook(skb, family, table, "OUTPUT", Context()).kind == "DROP"
    value: Any = skb
    for part in name.split("."):
        value = getattr(value, part)
    assert value == after


@pytest.mark.parametrize(
    "target", ["-j QUEUE", "-j NFQUEUE", "-j TEE --gateway 10.0.0.1", "-j SET --add-set pods src"]
)
def test_targets_that_are_not_modelled_say_so(target: str) -> None:
    ns = node()
    ns.set_iptables(
        4, restore(Ruleset(4), f"*filter\n-A OUTPUT -p udp {target}\n-A OUTPUT {target}\nCOMMIT\n")
    )
    with pytest.raises(NotModelled) as caught:
        run_hook(skb_of(ns, {}), 4, "filter", "OUTPUT", Context())
    assert caught.value.entry.number == 2


# -- chains ---------------------------------------------------------------------------------------------

CHAINS = """\
*filter
:FORWARD DROP [0:0]
:a - [0:0]
:b - [0:0]
:c - [0:0]
-A FORWARD -s 10.0.0.1 -j a
-A FORWARD -s 10.0.0.2 -g b
-A FORWARD -s 10.0.0.3 -j a
-A FORWARD -s 10.0.0.4 -j RETURN
-A FORWARD -j ACCEPT
-A a -p tcp --dport 1 -j RETURN
-A a -p tcp --dport 2 -g c
-A a -p tcp --dport 3 -j c
-A a -p tcp --dport 4 -j DROP
-A a -j MARK --or-mark 1
-A b -j MARK --or-mark 2
-A c -p tcp --dport 3 -j MARK --or-mark 4
COMMIT
"""


@pytest.mark.parametrize(
    ("src", "dport", "kind", "number", "mark", "tried"),
    [
        ("10.0.0.9", 80, "ACCEPT", 5, 0, 5),
        ("10.0.0.1", 1, "ACCEPT", 5, 0, 6),
        ("10.0.0.1", 2, "ACCEPT", 5, 0, 5 + 2 + 1),
        ("10.0.0.1", 3, "ACCEPT", 5, 5, 5 + 5 + 1),
        ("10.0.0.1", 4, "DROP", 4, 0, 1 + 4),
        ("10.0.0.1", 9, "ACCEPT", 5, 1, 5 + 5),
        ("10.0.0.2", 9, "DROP", 0, 2, 2 + 1),
        ("10.0.0.4", 9, "DROP", 0, 0, 4),
    ],
)
def test_jump_goto_return_and_policy(
    src: str, dport: int, kind: str, number: int, mark: int, tried: int
) -> None:
    ns, ctx = node(), Context()
    ns.set_iptables(4, load(CHAINS, 4))
    skb = skb_of(ns, {"src": src, "dport": dport})
    verdict = run_hook(skb, 4, "filter", "FORWARD", ctx)
    assert (verdict.kind, verdict.rule.number, skb.mark, ctx.tried) == (kind, number, mark, tried)
    if number == 0:
        assert str(verdict.rule) == "filter FORWARD policy DROP"


def test_counters_count_what_fitted() -> None:
    ns = node()
    ruleset = load(CHAINS, 4)
    ns.set_iptables(4, ruleset)
    for src in ("10.0.0.1", "10.0.0.4", "10.0.0.4"):
        run_hook(skb_of(ns, {"src": src}), 4, "filter", "FORWARD", Context())
    assert ruleset.count("filter", "FORWARD") == [[2, 88], [1, 44], [0, 0], [0, 0], [2, 88], [1, 44]]
    assert ruleset.count("filter", "a")[5] == [1, 44]
    edited = ruleset.append("filter", "b", rule("-j DROP"))
    ns.set_iptables(4, edited)
    run_hook(skb_of(ns, {"src": "10.0.0.4"}), 4, "filter", "FORWARD", Context())
    assert edited.count("filter", "FORWARD")[4] == [3, 132], "counting goes on after an edit elsewhere"


def test_an_edit_is_seen_by_the_next_packet() -> None:
    ns = node()
    ns.set_iptables(4, load(CHAINS, 4))
    skb = skb_of(ns, {"src": "10.0.0.9"})
    assert run_hook(skb, 4, "filter", "FORWARD", Context()).kind == "ACCEPT"
    ns.set_iptables(4, ns.iptables[4].insert("filter", "FORWARD", rule("-j DROP")))
    assert run_hook(skb, 4, "filter", "FORWARD", Context()).kind == "DROP"


# -- state that packets leave ---------------------------------------------------------------------------


def test_nth_takes_every_nth_packet() -> None:
    ns = node()
    ns.set_iptables(
        4,
        restore(
            Ruleset(4), "*filter\n-A OUTPUT -m statistic --mode nth --every 3 --packet 1 -j DROP\nCOMMIT\n"
        ),
    )
    kinds = [run_hook(skb_of(ns, {}), 4, "filter", "OUTPUT", Context()).kind for _ in range(7)]
    assert [index for index, kind in enumerate(kinds) if kind == "DROP"] == [1, 4]


def test_random_asks_the_chooser() -> None:
    for text, asked in (("0.25", 0.25), ("1", None)):
        ctx = Context(choose=True)
        assert fits(f"-m statistic --mode random --probability {text}", {}, ctx=ctx)
        assert ctx.asked == ([] if asked is None else [asked])
    ctx = Context(choose=False)
    assert not fits("-m statistic --mode random ! --probability 0.25", {}, ctx=ctx)
    assert ctx.asked == [0.75]


def test_limit_ends_as_not_modelled_when_its_burst_is_used_up() -> None:
    ns = node()
    ns.set_iptables(
        4, restore(Ruleset(4), "*filter\n-A OUTPUT -m limit --limit 1/s --limit-burst 2 -j DROP\nCOMMIT\n")
    )
    for _ in range(2):
        assert run_hook(skb_of(ns, {}), 4, "filter", "OUTPUT", Context()).kind == "DROP"
    with pytest.raises(NotModelled, match="clock"):
        run_hook(skb_of(ns, {}), 4, "filter", "OUTPUT", Context())


AFFINITY = """\
*nat
:svc - [0:0]
:sep - [0:0]
-A OUTPUT -j svc
-A svc -m recent --rcheck --seconds 60 --reap --name sep --rsource -j sep
-A svc -j DROP
-A sep -p tcp -m recent --set --name sep --rsource -m tcp -j DNAT --to-destination 10.244.1.5:8080
COMMIT
"""


def test_recent_remembers_a_client_for_its_seconds() -> None:
    ns = node()
    ns.set_iptables(4, restore(Ruleset(4), AFFINITY))
    ns.xt_state["recent", 4, "sep"] = {CLIENT: (64, (100.0,))}
    for now, kind in ((150.0, "NAT"), (205.0, "NAT"), (300.0, "DROP"), (301.0, "DROP")):
        assert run_hook(skb_of(ns, {}), 4, "nat", "OUTPUT", Context(now=now)).kind == kind, now
    assert run_hook(skb_of(ns, {"src": "10.244.0.8"}), 4, "nat", "OUTPUT", Context(now=150.0)).kind == "DROP"
    assert ns.xt_state["recent", 4, "sep"] == {}, "the stale entry was reaped"


def test_recent_update_remove_hitcount_and_mask() -> None:
    ns = node()
    ctx = Context()
    for text, wanted in (
        ("-m recent --update --name r", False),
        ("-m recent --set --name r --mask 255.255.255.0", True),
        ("-m recent --rcheck --hitcount 2 --name r --mask 255.255.255.0", False),
        ("-m recent --update --name r --mask 255.255.255.0", True),
        ("-m recent --rcheck --hitcount 2 --name r --mask 255.255.255.0", True),
        ("-m recent ! --rcheck --name r --mask 255.255.255.0", False),
        ("-m recent --remove --name r --mask 255.255.255.0", True),
        ("-m recent --rcheck --name r --mask 255.255.255.0", False),
    ):
        assert fits(text, {}, ctx=ctx, ns=ns) is wanted, text
    assert fits("-m nfacct --nfacct-name hits", {}, ns=ns)
    assert ns.xt_state["nfacct", "hits"] == (1, 44)


def test_rpfilter_asks_for_the_way_back() -> None:
    ns = node()
    for text, src, dev, kind in (
        ("-m rpfilter", "10.244.0.7", "cni0", "DROP"),
        ("-m rpfilter", "10.244.0.7", "eth0", "ACCEPT"),
        ("-m rpfilter --loose", "10.244.0.7", "eth0", "DROP"),
        ("-m rpfilter --invert", "10.244.0.7", "eth0", "DROP"),
        ("-m rpfilter", "172.16.0.1", "eth0", "ACCEPT"),
        ("-m rpfilter", "192.168.1.10", "eth0", "ACCEPT"),
        ("-m rpfilter --accept-local", "192.168.1.10", "eth0", "DROP"),
    ):
        ns.set_iptables(4, restore(Ruleset(4), f"*raw\n-A PREROUTING {text} -j DROP\nCOMMIT\n"))
        assert (
            run_hook(skb_of(ns, {"src": src, "indev": dev}), 4, "raw", "PREROUTING", Context()).kind == kind
        ), (text, src)


def test_address_types() -> None:
    ns = node()
    for address, dev, kind in (
        ("192.168.1.10", "", "LOCAL"),
        ("192.168.1.10", "cni0", "UNICAST"),
        ("127.0.0.9", "", "LOCAL"),
        ("192.168.1.255", "", "BROADCAST"),
        ("255.255.255.255", "", "BROADCAST"),
        ("8.8.8.8", "", "UNICAST"),
        ("239.1.1.1", "", "MULTICAST"),
        ("fd00:192:168:1::10", "", "LOCAL"),
        ("fd00:192:168:1::11", "", "UNICAST"),
        ("2001:db8::1", "", "UNREACHABLE"),
        ("ff02::1", "", "MULTICAST"),
    ):
        assert address_type(ns, address, dev) == kind, address


def test_ports_of_a_fragmented_packet_are_not_modelled() -> None:
    with pytest.raises(NotModelled, match="fragments"):
        fits("-p tcp --dport 80", {"fragment": 1400})
    assert fits("-p tcp", {"fragment": 1400})


# -- the index says what a linear walk says -------------------------------------------------------------

ADDRESSES = ["10.96.0.1", "10.96.0.2", "10.96.0.3", "10.244.0.7"]
MATCHED = st.sampled_from(
    ["", "-m mark --mark 1/1", "-m comment --comment x", "-m addrtype --dst-type LOCAL"]
)
PORTS = [
    "",
    "-p tcp",
    "-p udp",
    "! -p tcp",
    "-p tcp --dport 80",
    "-p udp --dport 80",
    "-p tcp --dport 80:81",
    "-p tcp ! --dport 80",
    "-p tcp --sport 80",
]
HEADER = st.tuples(
    st.sampled_from(["", *(f"-d {a}" for a in ADDRESSES), "! -d 10.96.0.1", "-d 10.96.0.0/30"]),
    st.sampled_from(["", *(f"-s {a}" for a in ADDRESSES), "! -s 10.96.0.2"]),
    st.sampled_from(PORTS),
    MATCHED,
)  # fmt: skip
TARGET = st.sampled_from(
    [
        "-j ACCEPT",
        "-j DROP",
        "-j RETURN",
        "-j one",
        "-g one",
        "-j MARK --or-mark 1",
        "-j MARK --xor-mark 3",
        "",
    ]
)
RULES = st.lists(st.tuples(HEADER, TARGET), max_size=18)
INNER = st.lists(
    st.tuples(HEADER, st.sampled_from(["-j ACCEPT", "-j DROP", "-j RETURN", "-j MARK --or-mark 2"])),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(
    RULES,
    INNER,
    st.lists(
        st.tuples(
            st.sampled_from(ADDRESSES),
            st.sampled_from(ADDRESSES),
            st.sampled_from([TCP, UDP]),
            st.sampled_from([80, 81]),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_a_linear_walk_ends_the_same(
    outer: list[tuple[tuple[str, ...], str]],
    inner: list[tuple[tuple[str, ...], str]],
    packets: list[tuple[str, str, int, int]],
) -> None:
    lines = ["*filter", ":one - [0:0]"]
    lines += [f"-A one {' '.join(head)} {target}" for head, target in inner]
    lines += [f"-A OUTPUT {' '.join(head)} {target}" for head, target in outer]
    text = "\n".join([*lines, "COMMIT"])
    ns = NODE
    ruleset = restore(Ruleset(4), text)
    for src, dst, proto, dport in packets * 2:
        ours, slow = Context(), Context()
        first, second = (
            skb_of(ns, {"src": src, "dst": dst, "proto": proto, "dport": dport, "flags": 0}) for _ in range(2)
        )
        verdict = evaluate(ruleset, first, "filter", "OUTPUT", ours, 1)
        assert (verdict.kind, verdict.rule) == linear(ruleset, second, "OUTPUT", slow)
        assert (first.mark, ours.hits, ours.tried) == (second.mark, slow.hits, slow.tried)


def linear(ruleset: Ruleset, skb: Skb, chain: str, ctx: Context) -> tuple[str, RuleRef] | None:
    """Walk a chain rule by rule, as the kernel does."""
    found = ruleset.chain("filter", chain)
    for number, here in enumerate(found.rules, 1):
        ref = RuleRef("filter", chain, number, here)
        ready = ReadyRule(4, ref, here, [0, 0])
        ctx.tried += 1
        if not all(test(skb, ctx) for test in (*ready.keyed, *ready.tests)):
            continue
        outcome = ready.act(skb, ctx) if ready.act is not None else ready.outcome
        ctx.steps.append(Step("rule", ready.spot, ref, outcome))
        if isinstance(here.target, Return):
            break
        if isinstance(here.target, (Accept, Drop)):
            return here.target.NAME, ref
        if isinstance(here.target, (Jump, Goto)):
            below = linear(ruleset, skb, here.target.chain, ctx)
            if below is not None:
                return below
            if isinstance(here.target, Goto):
                break
    return (found.policy, RuleRef("filter", chain, 0, found.policy)) if found.policy else None


NODE = node()
