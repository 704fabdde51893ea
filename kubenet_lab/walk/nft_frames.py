"""nftables below the network layer: chains of families netdev and inet at a link, and of family arp.

    netdev, inet   ingress: a frame as it comes from a link, before bridges, IP and every other hook
    netdev         egress: a frame as it is handed to a link
    arp            input, output: ARP messages to and from this host (IPv6's neighbour discovery is no ARP)

net/netfilter/core.c, include/linux/netfilter_netdev.h, net/ipv4/arp.c. Rules that nobody has looked at yet
(kube-proxy's, which has no such chains) are not built for a frame that goes by. A link's own chains of both families
stand in one list, by priority. What such a chain may do here is accept, drop and rewrite headers; a mark, a duplicate
or a redirection is not modelled.
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.nftables.objects import Chain, Table
from kubenet_lab.packet.packet import Arp, Frame, Packet
from kubenet_lab.walk import nft
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.skb import Skb
from kubenet_lab.walk.xtables import ACCEPT, DROP, NotModelled, Verdict

NETDEV, ARP = 5, 3
"""Keys among a namespace's plans (NFPROTO_NETDEV, NFPROTO_ARP)."""

Chains = dict[tuple[str, str], list[tuple[Table, Chain]]]
"""(hook, link) -> base chains by priority; the link is "" for family arp."""

NO_IP = Packet("", "", 0)
"""What an ARP frame is to expressions that look for IP: nothing."""


def at_link(w: Walk, ns: Netns, hook: str, dev: str, frame: Frame) -> Frame | None:
    """Let a frame meet the chains at "ingress" or "egress" of a link; return it as they left it, None if it ended."""
    plan = ns.plans.get(NETDEV)
    if plan is None:
        plan = ns.plans[NETDEV] = _plan(ns, ("netdev", "inet"))
    chains = plan.get((hook, dev)) if plan else None
    if not chains:
        return frame
    body = frame.body
    if isinstance(body, Arp) and ":" in body.target_ip:
        return frame  # neighbour discovery is ICMPv6, which this model asks without packets
    skb = _skb(ns, body, frame.size)
    skb.src_mac, skb.dst_mac = frame.src, frame.dst
    skb.indev, skb.outdev = (dev, "") if hook == "ingress" else ("", dev)
    if not _pass(w, skb, chains, hook.upper()):
        return None
    return frame if skb.pkt is body or isinstance(body, Arp) else replace(frame, body=skb.pkt)


def arp(w: Walk, ns: Netns, hook: str, dev: str, message: Arp) -> bool:
    """NF_ARP_IN and NF_ARP_OUT ("input", "output"); False when the message ended."""
    plan = ns.plans.get(ARP)
    if plan is None:
        plan = ns.plans[ARP] = _plan(ns, ("arp",))
    chains = plan.get((hook, "")) if plan else None
    if not chains or ":" in message.target_ip:
        return True
    skb = _skb(ns, message, 0)
    skb.src_mac = message.sender_mac
    skb.indev, skb.outdev = (dev, "") if hook == "input" else ("", dev)
    return _pass(w, skb, chains, hook.upper())


def _plan(ns: Netns, families: tuple[str, ...]) -> Chains:
    out: Chains = {}
    rules = ns.nftables_built
    if rules is None:
        return out
    for table, chain in reversed(list(rules.base_chains())):  # of equal priorities the later comes first
        if table.family not in families or (
            chain.hook not in ("ingress", "egress") and table.family != "arp"
        ):
            continue
        for dev in chain.devices or ("",):
            out.setdefault((chain.hook, dev), []).append((table, chain))
    for chains in out.values():
        chains.sort(key=lambda one: one[1].priority)
    return out


def _skb(ns: Netns, body: Packet | Arp, size: int) -> Skb:
    if isinstance(body, Packet):
        return Skb(body, ns, "", size)
    skb = Skb(NO_IP, ns, "", body.length)
    skb.arp = body
    return skb


def _pass(w: Walk, skb: Skb, chains: list[tuple[Table, Chain]], hook: str) -> bool:
    rules = skb.ns.nftables_built
    assert rules is not None
    for table, chain in chains:
        verdict = nft.evaluate(rules, table, chain, skb, hook, w)
        if verdict.kind == DROP:
            _dropped(w, skb, verdict, table, chain)
            return False
        if verdict.kind != ACCEPT or skb.mark:
            raise NotModelled(
                verdict.rule, f"a chain of family {table.family} that does more than accept and drop"
            )
    return True


def _dropped(w: Walk, skb: Skb, verdict: Verdict, table: Table, chain: Chain) -> None:
    reason = "policy-drop" if verdict.rule.number == 0 else "rule-drop"
    w.end("dropped", reason, skb.ns, f"{table.family} {table.name} {chain.name}", verdict.rule)
