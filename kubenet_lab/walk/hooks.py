"""Netfilter at each hook, in the kernel's order of priorities.

    PREROUTING   raw -300, conntrack -200, mangle -150, nat (destination) -100
    INPUT        mangle -150, filter 0, security 50, nat (source) 100, confirm
    FORWARD      mangle -150, filter 0, security 50
    OUTPUT       raw -300, conntrack -200, mangle -150, nat (destination) -100, filter 0, security 50
    POSTROUTING  mangle -150, nat (source) 100, confirm

include/uapi/linux/netfilter_ipv4.h. Conntrack runs in a namespace only when some rule there needs it
(`nf_ct_netns_get`): a pod without rules tracks nothing. Each function returns False when the packet ended.
"""

from __future__ import annotations

from kubenet_lab.kernel.netfilter import Ruleset
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.packet import ICMP, ICMPV6, RST, TCP
from kubenet_lab.walk import deliver, nat, routing
from kubenet_lab.walk.conntracking import confirm, track
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb
from kubenet_lab.walk.xtables import ACCEPT, DROP, NAT, REJECT, NatRange, Verdict, evaluate

_TRACKING_MATCHES = frozenset(
    {"conntrack", "state", "connmark", "connbytes", "connlimit", "connlabel", "cluster"}
)
_TRACKING_TARGETS = frozenset(
    {"CONNMARK", "CONNSECMARK", "CT", "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP"}
)
"""Targets that need tracking; a nat table without any, or a CT that only says --notrack, does not switch it on."""


class Plan:
    """What the hooks of one ruleset have to do, worked out once."""

    __slots__ = ("hooks", "idle", "nat", "tracking")

    def __init__(self, rules: Ruleset) -> None:
        self.hooks = rules.hooks
        self.tracking = any(
            any(match.name in _TRACKING_MATCHES for match in rule.matches)
            or (
                rule.target is not None
                and rule.target.name in _TRACKING_TARGETS
                and not getattr(rule.target, "notrack", False)
            )
            for _table, _chain, _number, rule in rules
        )
        self.nat = self.tracking and "nat" in rules.tables
        self.idle = not self.tracking and not any(self.hooks.values())


def plan_of(ns: Netns, fam: int) -> Plan:
    """Return the plan of a namespace's present rules."""
    plan = ns.plans.get(fam)
    if plan is None:
        rules = ns.iptables[fam]
        plan = ns.plans[fam] = Plan(rules)
    return plan


def prerouting(w: Walk, skb: Skb) -> bool:
    """NF_INET_PRE_ROUTING."""
    fam = 6 if ":" in skb.pkt.src else 4
    plan = skb.ns.plans.get(fam) or plan_of(skb.ns, fam)
    if plan.idle:
        return True
    tables = plan.hooks["PREROUTING"]
    if "raw" in tables and not _table(w, skb, fam, "raw", "PREROUTING"):
        return False
    if plan.tracking and not track(w, skb):
        return False
    if "mangle" in tables and not _table(w, skb, fam, "mangle", "PREROUTING"):
        return False
    return not plan.nat or _nat(w, skb, fam, "PREROUTING", nat.DST, "nat" in tables)


def input(w: Walk, skb: Skb) -> bool:
    """NF_INET_LOCAL_IN."""
    fam = 6 if ":" in skb.pkt.src else 4
    plan = skb.ns.plans.get(fam) or plan_of(skb.ns, fam)
    if plan.idle:
        return True
    tables = plan.hooks["INPUT"]
    for table in tables:
        if table != "nat" and not _table(w, skb, fam, table, "INPUT"):
            return False
    if plan.nat and not _nat(w, skb, fam, "INPUT", nat.SRC, "nat" in tables):
        return False
    return not plan.tracking or confirm(w, skb)


def forward(w: Walk, skb: Skb) -> bool:
    """NF_INET_FORWARD."""
    fam = 6 if ":" in skb.pkt.src else 4
    plan = skb.ns.plans.get(fam) or plan_of(skb.ns, fam)
    for table in plan.hooks["FORWARD"]:
        if not _table(w, skb, fam, table, "FORWARD"):
            return False
    return True


def output(w: Walk, skb: Skb) -> bool:
    """NF_INET_LOCAL_OUT."""
    fam = 6 if ":" in skb.pkt.src else 4
    plan = skb.ns.plans.get(fam) or plan_of(skb.ns, fam)
    if plan.idle:
        return True
    tables = plan.hooks["OUTPUT"]
    if "raw" in tables and not _table(w, skb, fam, "raw", "OUTPUT"):
        return False
    if plan.tracking and not track(w, skb):
        return False
    before, mark = skb.pkt, skb.mark
    if "mangle" in tables:
        if not _table(w, skb, fam, "mangle", "OUTPUT"):
            return False
        pkt = skb.pkt
        changed = skb.mark != mark or pkt.dst != before.dst or pkt.src != before.src or pkt.tos != before.tos
        if changed and not routing.can_go(w, skb):
            return False
    if plan.nat:
        if not _nat(w, skb, fam, "OUTPUT", nat.DST, "nat" in tables):
            return False
        if skb.pkt.dst != before.dst and not routing.can_go(w, skb):
            return False
    for table in tables:
        if table in ("filter", "security") and not _table(w, skb, fam, table, "OUTPUT"):
            return False
    return True


def postrouting(w: Walk, skb: Skb) -> bool:
    """NF_INET_POST_ROUTING."""
    fam = 6 if ":" in skb.pkt.src else 4
    plan = skb.ns.plans.get(fam) or plan_of(skb.ns, fam)
    if plan.idle:
        return True
    tables = plan.hooks["POSTROUTING"]
    if "mangle" in tables and not _table(w, skb, fam, "mangle", "POSTROUTING"):
        return False
    if plan.nat and not _nat(w, skb, fam, "POSTROUTING", nat.SRC, "nat" in tables):
        return False
    return not plan.tracking or confirm(w, skb)


def _table(w: Walk, skb: Skb, fam: int, table: str, hook: str) -> bool:
    verdict = evaluate(skb.ns.iptables[fam], skb, table, hook, w)
    kind = verdict.kind
    if kind == ACCEPT:
        return True
    if kind == DROP:
        _dropped(w, skb, verdict, table, hook)
        return False
    if kind == REJECT:
        _rejected(w, skb, fam, verdict, table, hook)
        return False
    raise AssertionError(kind)


def _nat(w: Walk, skb: Skb, fam: int, hook: str, side: str, has_rules: bool) -> bool:
    """`nf_nat_inet_fn`: rules for a new connection's first packet, the stored translation for every packet."""
    flow = skb.ct
    if flow is None:
        return True
    # A reset that answers a new connection's first packet is the first to meet this hook (IP_CT_RELATED_REPLY).
    fresh = skb.ctinfo == "NEW" or (skb.ctinfo == "RELATED" and not flow.confirmed and skb.pkt.quoted is None)
    if not fresh and not (flow.src_nat or flow.dst_nat):
        return True
    if fresh and not (flow.src_nat_done if side == nat.SRC else flow.dst_nat_done):
        wanted: nat.NatRange | None = None
        if has_rules:
            verdict = evaluate(skb.ns.iptables[fam], skb, "nat", hook, w)
            if verdict.kind == DROP:
                _dropped(w, skb, verdict, "nat", hook)
                return False
            if verdict.kind == NAT:
                assert verdict.range is not None
                wanted = _range(skb, verdict.range)
                if wanted is None:
                    w.end("dropped", "no-source", skb.ns, f"nat {hook}", verdict.rule)
                    return False
        if not nat.setup(w, skb, side, wanted):
            return False
    if flow.src_nat or flow.dst_nat:
        nat.apply(w, skb, side)
    return True


def _dropped(w: Walk, skb: Skb, verdict: Verdict, table: str, hook: str) -> None:
    reason = "policy-drop" if verdict.rule.number == 0 else "rule-drop"
    w.end("dropped", reason, skb.ns, f"{table} {hook}", verdict.rule)


def _rejected(w: Walk, skb: Skb, fam: int, verdict: Verdict, table: str, hook: str) -> None:
    """`nf_send_unreach`, `nf_send_reset`: the error is a packet of this host's own."""
    w.end("rejected", "rule-reject", skb.ns, f"{table} {hook}", verdict.rule)
    if verdict.icmp is not None:
        if skb.uid == deliver.KERNEL and skb.pkt.proto in (ICMP, ICMPV6):
            return  # the kernel's ICMP socket is busy sending the very packet (`icmp_xmit_lock`)
        deliver.icmp_error(w, skb, *verdict.icmp)
        return
    pkt = skb.pkt
    if pkt.proto != TCP or pkt.flags & RST:
        return
    reset = deliver.reset_for(w, pkt)
    # nf_ct_attach: the reset belongs to the connection of the packet it answers, and is translated like its replies.
    w.reply(skb.ns, reset, "error", uid=None, gid=None, flow=skb.ct, flow_reply=not skb.reply)


def _range(skb: Skb, wanted: NatRange) -> nat.NatRange | None:
    """Fill in what the target leaves to the host: MASQUERADE's source, REDIRECT's destination."""
    ns, pkt = skb.ns, skb.pkt
    low, high = wanted.addr_min, wanted.addr_max
    if not low:
        if wanted.kind == "MASQUERADE":
            way = ns.lookup(pkt.dst, oif=skb.outdev)
            low = routing.primary_address(
                ns, skb.outdev, way.via if way is not None and way.via else pkt.dst, pkt.family
            )
            if not low:
                return None
        elif wanted.kind == "REDIRECT":
            low = _redirected(ns, skb)
            if not low:
                return None
        else:
            low = pkt.src if wanted.side == nat.SRC else pkt.dst
        high = low
    return nat.NatRange(
        low,
        high,
        wanted.port_min,
        wanted.port_max,
        wanted.random or wanted.random_fully,
        wanted.persistent,
        wanted.base,
    )


def _redirected(ns: Netns, skb: Skb) -> str:
    """REDIRECT's destination: loopback for what is made here, the incoming link's first address otherwise."""
    six = ":" in skb.pkt.dst
    if not skb.indev:
        return "::1" if six else "127.0.0.1"
    here = [a for a in ns.addrs(skb.indev, 6 if six else 4) if not six or a.scope == "global"]
    return here[0].local if here else ""
