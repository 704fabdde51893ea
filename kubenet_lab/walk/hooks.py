"""Netfilter at each hook, in the kernel's order of priorities.

    PREROUTING   raw -300, conntrack -200, mangle -150, nat (destination) -100
    INPUT        mangle -150, filter 0, security 50, IPVS 98 and 99, nat (source) 100, confirm
    FORWARD      mangle -150, filter 0, security 50, IPVS 99 and 100
    OUTPUT       raw -300, conntrack -200, mangle -150, nat (destination) -100, IPVS -99 and -98, filter 0, security 50
    POSTROUTING  mangle -150, nat (source) 100, confirm

include/uapi/linux/netfilter_ipv4.h. Base chains of nftables stand among these by their own priorities; those of type
nat are asked at the nat hooks, whatever their priority is. Conntrack runs in a namespace only when some rule there
needs it (`nf_ct_netns_get`): a pod without rules tracks nothing. Each function returns False when the packet ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kubenet_lab.kernel.netfilter import Ruleset
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.nftables.objects import Chain, Table
from kubenet_lab.kernel.nftables.ruleset import Ruleset as NftRuleset
from kubenet_lab.packet.packet import ICMP, ICMPV6, RST, TCP, Frame, Packet
from kubenet_lab.walk import deliver, ipvs, nat, nft, routing
from kubenet_lab.walk.conntracking import confirm, track
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb
from kubenet_lab.walk.xtables import ACCEPT, DROP, NAT, REJECT, NatRange, NotModelled, Verdict, evaluate

_TRACKING_MATCHES = frozenset(
    {"conntrack", "state", "connmark", "connbytes", "connlimit", "connlabel", "cluster"}
)
_TRACKING_TARGETS = frozenset(
    {"CONNMARK", "CONNSECMARK", "CT", "DNAT", "SNAT", "MASQUERADE", "REDIRECT", "NETMAP"}
)
"""Targets that need tracking; a nat table without any, or a CT that only says --notrack, does not switch it on."""


Part = Callable[[Walk, Skb], bool]
"""One hook function: False when the packet ended there."""


class Plan:
    """What the hooks of one family have to do, worked out once.

    `parts` is there only where nftables has base chains or IPVS is in use: hook -> everything registered there, by
    priority.
    """

    __slots__ = ("hooks", "idle", "nat", "parts", "tracking")

    def __init__(
        self,
        rules: Ruleset,
        tables: NftRuleset | None,
        fam: int,
        *,
        virtual: bool = False,
        tracked: bool = False,
    ) -> None:
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
        self.tracking = self.tracking or tracked
        chains = _base_chains(tables, fam) if tables else []
        if tables and not self.tracking:
            self.tracking = _nft_tracks(tables, fam)
        self.nat = self.tracking and (
            "nat" in rules.tables or any(chain.type == "nat" for _t, chain in chains)
        )
        self.idle = not self.tracking and not any(self.hooks.values()) and not chains and not virtual
        self.parts: dict[str, tuple[Part, ...]] | None = None
        if chains or virtual:
            tables = tables if tables is not None else NftRuleset()
            self.parts = {hook: _parts(self, tables, chains, fam, hook, virtual) for hook in _NFT_HOOKS}


_NFT_HOOKS = {
    "PREROUTING": "prerouting",
    "INPUT": "input",
    "FORWARD": "forward",
    "OUTPUT": "output",
    "POSTROUTING": "postrouting",
}
_NFT_FAMILIES = {4: ("ip", "inet"), 6: ("ip6", "inet")}


def _base_chains(tables: NftRuleset, fam: int) -> list[tuple[Table, Chain]]:
    hooks = _NFT_HOOKS.values()
    return [
        (table, chain)
        for table, chain in tables.base_chains()
        if table.family in _NFT_FAMILIES[fam] and chain.hook in hooks
    ]


def _nft_tracks(tables: NftRuleset, fam: int) -> bool:
    """True when a rule asks conntrack; a chain of type nat does not by itself, and is not asked without conntrack."""
    return any(
        table.family in _NFT_FAMILIES[fam]
        and any(
            nft.needs_tracking(rule.statements) for chain in table.chains.values() for rule in chain.rules
        )
        for table in tables.tables.values()
    )


def _parts(
    plan: Plan, tables: NftRuleset, chains: list[tuple[Table, Chain]], fam: int, hook: str, virtual: bool
) -> tuple[Part, ...]:
    """Return everything registered at a hook, by priority; of equal ones the later comes first, xtables last.

    `nf_hook_entries_grow` puts a new entry before those of its priority. iptables' tables are taken as the older ones.
    """
    here = [(table, chain) for table, chain in reversed(chains) if chain.hook == _NFT_HOOKS[hook]]
    rows: list[tuple[int, Part]] = []
    for table, chain in here:
        if chain.type != "nat":
            rows.append((chain.priority, _nft_part(tables, table, chain, fam, hook)))
    for name in plan.hooks[hook]:
        if name == "nat":
            continue
        if (name, hook) == ("mangle", "OUTPUT"):
            rows.append((nft.PRIORITIES[name], lambda w, skb: _rerouting(w, skb, fam)))
        else:
            rows.append((nft.PRIORITIES[name], lambda w, skb, name=name: _table(w, skb, fam, name, hook)))  # type: ignore[misc]
    if plan.tracking and hook in ("PREROUTING", "OUTPUT"):
        rows.append((nft.PRIORITIES["conntrack"], track))
    if plan.nat and hook != "FORWARD":
        side = nat.DST if hook in ("PREROUTING", "OUTPUT") else nat.SRC
        nats = sorted((one for one in here if one[1].type == "nat"), key=lambda one: one[1].priority)
        asked = "nat" in plan.hooks[hook]
        at = nft.PRIORITIES["nat-dst" if side == nat.DST else "nat-src"]

        def translate(w: Walk, skb: Skb) -> bool:
            before = skb.pkt.dst
            if not _nat(w, skb, fam, hook, side, asked, nats):
                return False
            return hook != "OUTPUT" or skb.pkt.dst == before or routing.can_go(w, skb)

        rows.append((at, translate))
    if virtual:
        rows += _IPVS.get(hook, ())
    parts = [part for _priority, part in sorted(rows, key=lambda row: row[0])]
    if plan.tracking and hook in ("INPUT", "POSTROUTING"):
        parts.append(confirm)
    return tuple(parts)


def _nft_part(tables: NftRuleset, table: Table, chain: Chain, fam: int, hook: str) -> Part:
    reroutes = chain.type == "route" and hook == "OUTPUT"

    def part(w: Walk, skb: Skb) -> bool:
        before, mark = skb.pkt, skb.mark
        verdict = nft.evaluate(tables, table, chain, skb, hook, w)
        if verdict.kind == DROP:
            _dropped(w, skb, verdict, f"{table.family} {table.name}", chain.name)
            return False
        if verdict.kind == REJECT:
            _rejected(w, skb, fam, verdict, f"{table.family} {table.name}", chain.name)
            return False
        return not reroutes or not _moved(skb, before, mark) or routing.can_go(w, skb)

    return part


_IPVS: dict[str, tuple[tuple[int, Part], ...]] = {
    "INPUT": (
        (98, lambda w, skb: ipvs.reply(w, skb, "INPUT")),
        (99, lambda w, skb: ipvs.request(w, skb, "INPUT")),
    ),
    "FORWARD": (
        (99, lambda w, skb: ipvs.forward_error(w, skb, "FORWARD")),
        (100, lambda w, skb: ipvs.reply(w, skb, "FORWARD")),
    ),
    "OUTPUT": (
        (-99, lambda w, skb: ipvs.reply(w, skb, "OUTPUT")),
        (-98, lambda w, skb: ipvs.request(w, skb, "OUTPUT")),
    ),
}
"""IPVS at the hooks: beside the nat hooks, answers before requests (`ip_vs_ops4`)."""


def _run(parts: tuple[Part, ...], w: Walk, skb: Skb) -> bool:
    return all(part(w, skb) for part in parts)


def _moved(skb: Skb, before: Packet, mark: int) -> bool:
    """True when a hook at OUTPUT changed what routing looks at (`ip_route_me_harder`)."""
    pkt = skb.pkt
    return skb.mark != mark or pkt.dst != before.dst or pkt.src != before.src or pkt.tos != before.tos


def _rerouting(w: Walk, skb: Skb, fam: int) -> bool:
    before, mark = skb.pkt, skb.mark
    if not _table(w, skb, fam, "mangle", "OUTPUT"):
        return False
    return not _moved(skb, before, mark) or routing.can_go(w, skb)


_BRIDGE = 7
"""Key of the bridge family's base chains among a namespace's plans (AF_BRIDGE)."""


def bridged(w: Walk, ns: Netns, hook: str, frame: Frame, indev: str, outdev: str) -> bool:
    """NF_BR_*: nftables' base chains of family bridge see a frame with the bridge's ports as its devices.

    False when the frame ended. ARP passes unasked; what a rule would write into a frame is not modelled.
    """
    chains = ns.plans.get(_BRIDGE)
    if chains is None:
        found = [one for one in ns.nftables.base_chains() if one[0].family == "bridge"]
        found.reverse()  # of equal priorities the later comes first
        chains = ns.plans[_BRIDGE] = sorted(found, key=lambda one: one[1].priority)
    body = frame.body
    if not chains or not isinstance(body, Packet):
        return True
    for table, chain in chains:
        if chain.hook != hook:
            continue
        skb = Skb(body, ns, indev, frame.size)
        skb.outdev, skb.src_mac, skb.dst_mac = outdev, frame.src, frame.dst
        verdict = nft.evaluate(ns.nftables, table, chain, skb, hook.upper(), w)
        if verdict.kind == DROP:
            _dropped(w, skb, verdict, f"{table.family} {table.name}", chain.name)
            return False
        if verdict.kind != ACCEPT or skb.mark or skb.pkt is not body:
            raise NotModelled(verdict.rule, "a bridge chain that does more than accept and drop")
    return True


def plan_of(ns: Netns, fam: int) -> Plan:
    """Return the plan of a namespace's present rules."""
    plan = ns.plans.get(fam)
    if plan is None:
        rules, tables = ns.iptables[fam], ns.nftables if ns.has_nftables else None
        # Conntrack is needed once IPVS is to tell it of its connections (`ip_vs_register_conntrack`).
        tracked = ns.has_ipvs and ns.sysctl("net.ipv4.vs.conntrack") == "1"
        plan = ns.plans[fam] = Plan(rules, tables, fam, virtual=ns.has_ipvs, tracked=tracked)
    return plan


def prerouting(w: Walk, skb: Skb) -> bool:
    """NF_INET_PRE_ROUTING."""
    fam = 6 if ":" in skb.pkt.src else 4
    plan = skb.ns.plans.get(fam) or plan_of(skb.ns, fam)
    if plan.idle:
        return True
    if plan.parts is not None:
        return _run(plan.parts["PREROUTING"], w, skb)
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
    if plan.parts is not None:
        return _run(plan.parts["INPUT"], w, skb)
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
    if plan.parts is not None:
        return _run(plan.parts["FORWARD"], w, skb)
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
    if plan.parts is not None:
        return _run(plan.parts["OUTPUT"], w, skb)
    tables = plan.hooks["OUTPUT"]
    if "raw" in tables and not _table(w, skb, fam, "raw", "OUTPUT"):
        return False
    if plan.tracking and not track(w, skb):
        return False
    before = skb.pkt
    if "mangle" in tables and not _rerouting(w, skb, fam):
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
    if plan.parts is not None:
        return _run(plan.parts["POSTROUTING"], w, skb)
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


def _nat(
    w: Walk,
    skb: Skb,
    fam: int,
    hook: str,
    side: str,
    has_rules: bool,
    chains: Sequence[tuple[Table, Chain]] = (),
) -> bool:
    """`nf_nat_inet_fn`: rules for a new connection's first packet, the stored translation for every packet.

    `chains` are nftables' nat chains at this hook; the first rules that translate win.
    """
    flow = skb.ct
    if flow is None:
        return True
    # A reset that answers a new connection's first packet is the first to meet this hook (IP_CT_RELATED_REPLY).
    fresh = skb.ctinfo == "NEW" or (skb.ctinfo == "RELATED" and not flow.confirmed and skb.pkt.quoted is None)
    if not fresh and not (flow.src_nat or flow.dst_nat):
        return True
    if fresh and not (flow.src_nat_done if side == nat.SRC else flow.dst_nat_done):
        wanted: nat.NatRange | None = None
        if has_rules or chains:
            table, chain = "nat", hook
            if chains:
                verdict, table, chain = _ask(w, skb, fam, hook, has_rules, chains)
            else:
                verdict = evaluate(skb.ns.iptables[fam], skb, "nat", hook, w)
            if verdict.kind == DROP:
                _dropped(w, skb, verdict, table, chain)
                return False
            if verdict.kind == REJECT:
                _rejected(w, skb, fam, verdict, table, chain)
                return False
            if verdict.kind == NAT:
                assert verdict.range is not None
                wanted = _range(skb, verdict.range)
                if wanted is None:
                    w.end("dropped", "no-source", skb.ns, f"{table} {chain}", verdict.rule)
                    return False
        if not nat.setup(w, skb, side, wanted):
            return False
    if flow.src_nat or flow.dst_nat:
        nat.apply(w, skb, side)
    return True


def _ask(
    w: Walk, skb: Skb, fam: int, hook: str, has_rules: bool, chains: Sequence[tuple[Table, Chain]]
) -> tuple[Verdict, str, str]:
    """Ask xtables' nat table and nftables' nat chains in their order until one does more than accept.

    Return what was said, by which table and chain.
    """
    asked: list[str | tuple[Table, Chain]] = sorted(
        [*(["xtables"] if has_rules else []), *chains], key=_nat_order
    )
    for one in asked:
        if isinstance(one, str):
            said = evaluate(skb.ns.iptables[fam], skb, "nat", hook, w), "nat", hook
        else:
            table, chain = one
            verdict = nft.evaluate(skb.ns.nftables, table, chain, skb, hook, w)
            said = verdict, f"{table.family} {table.name}", chain.name
        if said[0].kind != ACCEPT:
            break
    return said


def _nat_order(one: str | tuple[Table, Chain]) -> int:
    """The priority of xtables' nat table, or of a nat chain; -100 and 100 are never at one hook."""
    if isinstance(one, str):
        return 0
    hook, priority = one[1].hook, one[1].priority
    return priority - (
        nft.PRIORITIES["nat-dst"] if hook in ("prerouting", "output") else nft.PRIORITIES["nat-src"]
    )


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
