"""What each target does: one function a target, from typed fields to an action on a packet.

The sources are the kernel's net/netfilter/xt_*.c and net/ipv4/netfilter/ipt_*.c, each by the target's name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from kubenet_lab.kernel.netfilter import targets as t
from kubenet_lab.kernel.netfilter.addresses import ALL_ONES, block_numbers
from kubenet_lab.kernel.netfilter.extension import Target
from kubenet_lab.packet.ip import IP_INT, ip_text
from kubenet_lab.walk.skb import Skb
from kubenet_lab.walk.xtables import (
    ACCEPT,
    DECIDE,
    DROP,
    FINAL,
    NAT,
    PASS,
    REJECT,
    Act,
    Decide,
    HookContext,
    NatRange,
    NotModelled,
    Site,
    Verdict,
)

Ready = tuple[int, str, Act | None, Verdict | Decide | None]
"""(kind of action, what to show, what to do, verdict)."""


def ready_target(site: Site, target: Target | None) -> Ready:
    """Return what a rule does with a packet that fits it."""
    if target is None:
        return PASS, "continue", None, None
    return _READY.get(type(target), _unknown)(target, site)


def _final(kind: str) -> Callable[[Any, Site], Ready]:
    return lambda target, site: (FINAL, kind, None, Verdict(kind, site.ref, target))


def _reject(target: t.Reject, site: Site) -> Ready:
    icmp = None if target.tcp_reset else target.icmp(site.family)
    return FINAL, f"REJECT{target.options(site.family)}", None, Verdict(REJECT, site.ref, target, icmp)


def _nat(target: Target, site: Site, range: NatRange) -> Ready:
    return (
        FINAL,
        f"{target.NAME}{target.options(site.family)}",
        None,
        Verdict(NAT, site.ref, target, None, range),
    )


def _address_nat(target: t.Dnat | t.Snat, site: Site) -> Ready:
    side = "dst" if isinstance(target, t.Dnat) else "src"
    ports, base = target.ports, target.base
    flags = (target.random, target.random_fully, target.persistent)
    return _nat(
        target, site, NatRange(target.NAME, side, target.addr_min, target.addr_max, ports, base, *flags)
    )


def _port_nat(target: t.Masquerade | t.Redirect, site: Site) -> Ready:
    side = "src" if isinstance(target, t.Masquerade) else "dst"
    range = NatRange(
        target.NAME, side, ports=target.ports, random=target.random, random_fully=target.random_fully
    )
    return _nat(target, site, range)


def _netmap(target: t.Netmap, site: Site) -> Ready:
    net, mask = block_numbers(target.to)
    family = site.family
    host = mask ^ ALL_ONES[family]

    def decide(skb: Skb, hook: str) -> Verdict:
        side = "dst" if hook in ("PREROUTING", "OUTPUT") else "src"
        address = ip_text(IP_INT[skb.pkt.dst if side == "dst" else skb.pkt.src] & host | net, family)
        return Verdict(NAT, site.ref, target, None, NatRange("NETMAP", side, address, address))

    return DECIDE, f"NETMAP{target.options(family)}", None, decide


def _mark(target: t.MarkTarget, site: Site) -> Ready:
    keep, value = target.mask ^ 0xFFFFFFFF, target.value

    def act(skb: Skb, ctx: HookContext) -> str:
        before = skb.mark
        skb.mark = after = before & keep ^ value
        return f"MARK 0x{before:x} -> 0x{after:x}"

    return PASS, "MARK", act, None


def _connmark(target: t.ConnMarkTarget, site: Site) -> Ready:
    value, ctmask, nfmask, shift, action = (
        target.value,
        target.ctmask,
        target.nfmask,
        target.shift,
        target.action,
    )

    def shifted(mark: int) -> int:
        return (mark << shift if shift > 0 else mark >> -shift) & 0xFFFFFFFF

    def act(skb: Skb, ctx: HookContext) -> str:
        flow = skb.ct
        if flow is None:
            return "CONNMARK: not tracked"
        if action == "restore":
            before = skb.mark
            skb.mark = (before & ~nfmask ^ shifted(flow.mark & ctmask)) & 0xFFFFFFFF
            return f"CONNMARK restore: mark 0x{before:x} -> 0x{skb.mark:x}"
        before = flow.mark
        if action == "set":
            flow.mark = shifted((before & ~ctmask ^ value) & 0xFFFFFFFF)
        else:
            flow.mark = (before & ~ctmask ^ shifted(skb.mark & nfmask)) & 0xFFFFFFFF
        return f"CONNMARK {action}: connection mark 0x{before:x} -> 0x{flow.mark:x}"

    return PASS, "CONNMARK", act, None


def _undecided(skb: Skb) -> bool:
    """True while no rule and no connection has said how to track the packet: the first CT target counts."""
    return skb.ct is None and skb.ctinfo in ("", "INVALID") and not skb.notrack and not skb.zone


def _ct(target: t.Ct, site: Site) -> Ready:
    if target.zone and (target.zone_side or target.zone == "mark"):
        return PASS, "CT", _stop(site, f"CT{target.options(site.family)}"), None
    zone = int(target.zone) if target.zone else 0

    def act(skb: Skb, ctx: HookContext) -> str:
        if _undecided(skb):
            if target.notrack:
                skb.notrack = True
            if zone:
                skb.zone = zone
        return f"CT{target.options(site.family)}"

    return PASS, "CT", act, None


def _notrack(target: t.NoTrack, site: Site) -> Ready:
    def act(skb: Skb, ctx: HookContext) -> str:
        if _undecided(skb):
            skb.notrack = True
        return "NOTRACK"

    return PASS, "NOTRACK", act, None


def _ttl(target: t.TtlTarget, site: Site) -> Ready:
    op, value = target.op, target.value

    def act(skb: Skb, ctx: HookContext) -> str:
        before = skb.pkt.ttl
        after = value if op == "set" else max(0, before - value) if op == "dec" else min(255, before + value)
        if after != before:
            skb.pkt = replace(skb.pkt, ttl=after)
        return f"{target.NAME} {before} -> {after}"

    return PASS, target.NAME, act, None


def _tcpmss(target: t.TcpMssTarget, site: Site) -> Ready:
    header = 40 if site.family == 4 else 60

    def act(skb: Skb, ctx: HookContext) -> str:
        pkt = skb.pkt
        wanted = target.mss or min(_mtu(skb, pkt.dst, skb.outdev), _mtu(skb, pkt.src, "")) - header
        if not pkt.mss:
            # The option is added where no data would have to move, and never above the protocol's default.
            if skb.length > header:
                return "TCPMSS: there is data after the header, so the option cannot be added"
            skb.pkt = replace(pkt, mss=min(wanted, 536 if site.family == 4 else 1220))
            return f"TCPMSS option added: {skb.pkt.mss}"
        if pkt.mss <= wanted:
            return f"TCPMSS: {pkt.mss} is small enough"
        skb.pkt = replace(pkt, mss=wanted)
        return f"TCPMSS {pkt.mss} -> {wanted}"

    return PASS, "TCPMSS", act, None


def _mtu(skb: Skb, address: str, dev: str) -> int:
    """Return the MTU of the route to an address."""
    way = skb.ns.lookup(address, oif=dev)
    if way is None or way.route.type not in ("unicast", "local"):
        return 65535
    by = "lo" if way.route.type == "local" else way.dev or dev or way.route.dev
    return way.route.mtu or skb.ns.links[by].mtu


def _passes(target: Target, site: Site) -> Ready:
    return PASS, f"{target.NAME}{target.options(site.family)}", None, None


def _stop(site: Site, what: str) -> Act:
    def act(skb: Skb, ctx: HookContext) -> str:
        raise NotModelled(site.ref, what)

    return act


def _unknown(target: Target, site: Site) -> Ready:
    return PASS, target.name, _stop(site, f"-j {target.name}"), None


_READY: dict[type[Target], Callable[[Any, Site], Ready]] = {
    t.Accept: _final(ACCEPT),
    t.Drop: _final(DROP),
    t.Queue: _unknown,
    t.Reject: _reject,
    t.MarkTarget: _mark,
    t.ConnMarkTarget: _connmark,
    t.Ct: _ct,
    t.NoTrack: _notrack,
    t.Dnat: _address_nat,
    t.Snat: _address_nat,
    t.Masquerade: _port_nat,
    t.Redirect: _port_nat,
    t.Netmap: _netmap,
    t.TcpMssTarget: _tcpmss,
    t.TtlTarget: _ttl,
    t.HopLimitTarget: _ttl,
    t.Log: _passes,
    t.NfLog: _passes,
    t.NfQueue: _unknown,
    t.TraceTarget: _passes,
    t.UnknownTarget: _unknown,
}
