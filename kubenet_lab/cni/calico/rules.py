"""A rule of Felix as a value, and its text for iptables-restore and for nft.

A match is a tuple of criteria, each a name and its arguments; an action likewise. Both dialects render the same
values, so a policy means the same in either. Source: `felix/iptables` and `felix/nftables` (match_builder.go,
actions.go, renderer.go).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from kubenet_lab.cni.calico.names import nft_set, rule_hashes

Criterion = tuple[Any, ...]
PREFIX = "cali:"
_UNSAFE = re.compile(r"[^\w @%+=:,./-]")
TRANSPORT = {6: "tcp", 17: "udp", 132: "sctp"}


class Rule(Struct, frozen=True):
    """One rule: criteria in order, what to do (or nothing, for a rule that only carries a comment), comments."""

    match: tuple[Criterion, ...] = ()
    action: Criterion | None = None
    comments: tuple[str, ...] = ()


class Chain(Struct, frozen=True):
    """A chain and its rules."""

    name: str
    rules: tuple[Rule, ...] = ()


def mark_set(bit: int) -> Criterion:
    """The bit is set."""
    return ("mark", bit, bit)


def mark_clear(bits: int) -> Criterion:
    """None of the bits is set."""
    return ("mark", 0, bits)


def ports(numbers: tuple[tuple[int, int], ...], between: str, joint: str) -> str:
    """Return port ranges as text."""
    return joint.join(str(a) if a == b else f"{a}{between}{b}" for a, b in numbers)


# -- iptables --------------------------------------------------------------------------------------------------------

_NOT = {True: "! ", False: ""}


def _mark(value: int) -> str:
    return f"{value:#x}" if value else "0"


def _ipt_addrtype(side: str, kind: str, negated: bool = False, limit: bool = False) -> str:
    tail = " --limit-iface-out" if limit else ""
    return f"-m addrtype {_NOT[negated]}--{side}-type {kind}{tail}"


def _ipt_ports(side: str, ranges: tuple[tuple[int, int], ...], negated: bool = False) -> str:
    word = "source" if side == "src" else "destination"
    return f"-m multiport {_NOT[negated]}--{word}-ports {ports(ranges, ':', ',')}"


def _ipt_icmp(family: int, kind: int, code: int | None, negated: bool = False) -> str:
    module, option = ("icmp", "--icmp-type") if family == 4 else ("icmp6", "--icmpv6-type")
    return f"-m {module} {_NOT[negated]}{option} {kind}" + ("" if code is None else f"/{code}")


IPTABLES: dict[str, Callable[..., str]] = {
    "mark": lambda value, mask: f"-m mark --mark {_mark(value)}/{mask:#x}",
    "not-mark": lambda value, mask: f"-m mark ! --mark {_mark(value)}/{mask:#x}",
    "in": lambda name: f"--in-interface {name.replace('*', '+')}",
    "out": lambda name: f"--out-interface {name.replace('*', '+')}",
    "rpf-failed": lambda: "-m rpfilter --invert --validmark",
    "addrtype": _ipt_addrtype,
    "ctstate": lambda names: f"-m conntrack --ctstate {names}",
    "ctstatus": lambda name, negated=False: f"-m conntrack {_NOT[negated]}--ctstate {name}",
    "proto": lambda proto, negated=False: f"{_NOT[negated]}-p {proto}",
    "net": lambda side, net, negated=False: (
        f"{_NOT[negated]}--{'source' if side == 'src' else 'destination'} {net}"
    ),
    "set": lambda side, name, negated=False: f"-m set {_NOT[negated]}--match-set {name} {side}",
    "portset": lambda side, name, negated=False: f"-m set {_NOT[negated]}--match-set {name} {side},{side}",
    "ports": _ipt_ports,
    "dport": lambda port: f"--dport {port}",
    "icmp": _ipt_icmp,
}

_FULLY = " --random-fully"
IPTABLES_ACTIONS: dict[str, Callable[..., str]] = {
    "accept": lambda: "--jump ACCEPT",
    "drop": lambda: "--jump DROP",
    "reject": lambda: "--jump REJECT",
    "return": lambda: "--jump RETURN",
    "jump": lambda chain: f"--jump {chain}",
    "goto": lambda chain: f"--goto {chain}",
    "set-mark": lambda bits: f"--jump MARK --set-mark {bits:#x}/{bits:#x}",
    "clear-mark": lambda bits: f"--jump MARK --set-mark 0/{bits:#x}",
    "masked-mark": lambda value, mask: f"--jump MARK --set-mark {value:#x}/{mask:#x}",
    "notrack": lambda: "--jump NOTRACK",
    "log": lambda prefix: f'--jump LOG --log-prefix "{prefix}: " --log-level 5',
    "masquerade": lambda to="": "--jump MASQUERADE" + (f" --to-ports {to}" if to else "") + _FULLY,
    "snat": lambda to: f"--jump SNAT --to-source {to}{_FULLY}",
    "dnat": lambda to: f"--jump DNAT --to-destination {to}",
}


def _fragment(criterion: Criterion, table: dict[str, Callable[..., str]]) -> str:
    return table[criterion[0]](*criterion[1:])


def _iptables(chain: str, rule: Rule, own: str) -> str:
    words = ["-A", chain, own]
    words += [f'-m comment --comment "{_UNSAFE.sub("_", text)[:256]}"' for text in rule.comments]
    words += [_fragment(criterion, IPTABLES) for criterion in rule.match]
    if rule.action is not None:
        words.append(_fragment(rule.action, IPTABLES_ACTIONS))
    return " ".join(word for word in words if word)


def iptables_rules(chain: Chain) -> list[str]:
    """Return a chain's rules as lines of `iptables-restore`, each with its hash in a comment."""
    hashes = rule_hashes(chain.name, [_iptables(chain.name, rule, "HASH") for rule in chain.rules])
    return [
        _iptables(chain.name, rule, f'-m comment --comment "{PREFIX}{own}"')
        for rule, own in zip(chain.rules, hashes, strict=True)
    ]


# -- nftables --------------------------------------------------------------------------------------------------------

_NE = {True: "!= ", False: ""}


def _nft_addrtype(side: str, kind: str, negated: bool = False, limit: bool = False) -> str:
    word = "saddr" if side == "src" else "daddr"
    return f"fib {word}{' . oif' if limit else ''} type {_NE[negated]}{kind.lower()}"


def _nft_icmp(family: int, kind: int, code: int | None, negated: bool = False) -> str:
    word = "icmp" if family == 4 else "icmpv6"
    return f"{word} type {_NE[negated]}{kind}" + ("" if code is None else f" code {_NE[negated]}{code}")


NFT: dict[str, Callable[..., str]] = {
    "mark": lambda value, mask: f"meta mark & {mask:#x} == {_mark(value)}",
    "not-mark": lambda value, mask: f"meta mark & {mask:#x} != {_mark(value)}",
    "in": lambda name: f"iifname {name.replace('+', '*')}",
    "out": lambda name: f"oifname {name.replace('+', '*')}",
    "in-map": lambda name, layer="": f"iifname vmap @{layer}-{name}",
    "out-map": lambda name, layer="": f"oifname vmap @{layer}-{name}",
    "rpf-failed": lambda: "fib saddr . mark . iif oif 0",
    "addrtype": _nft_addrtype,
    "ctstate": lambda names: f"ct state {names.lower()}",
    "ctstatus": lambda name, negated=False: f"ct status {_NE[negated]}{name.lower()}",
    "proto": lambda proto, negated=False: f"meta l4proto {_NE[negated]}{proto}",
    "net": lambda side, net, negated=False: f"<IP> {side[0]}addr {_NE[negated]}{net}",
    "set": lambda side, name, negated=False: f"<IP> {side[0]}addr {_NE[negated]}@{nft_set(name)}",
    "portset": lambda side, name, negated=False: (
        f"<IP> {side[0]}addr . meta l4proto . th {side[0]}port {_NE[negated]}@{nft_set(name)}"
    ),
    "ports": lambda side, ranges, negated=False: (
        f"<PROTO> {side[0]}port {_NE[negated]}{{ {ports(ranges, '-', ', ')} }}"
    ),
    "dport": lambda port: f"<PROTO> dport {port}",
    "icmp": _nft_icmp,
}

NFT_ACTIONS: dict[str, Callable[..., str]] = {
    "accept": lambda: "accept",
    "drop": lambda: "drop",
    "reject": lambda: "reject",
    "return": lambda: "return",
    "jump": lambda chain: f"jump {chain}",
    "goto": lambda chain: f"goto {chain}",
    "set-mark": lambda bits: f"meta mark set mark or {bits:#x}",
    "clear-mark": lambda bits: f"meta mark set mark & {bits ^ 0xFFFFFFFF:#x}",
    "masked-mark": lambda value, mask: f"meta mark set mark & {mask ^ 0xFFFFFFFF:#x} ^ {value:#x}",
    "notrack": lambda: "notrack",
    "log": lambda prefix: f'log prefix "{prefix}: " level info',
    "masquerade": lambda to="": "masquerade" + (f" to :{to}" if to else "") + " fully-random",
    "snat": lambda to: f"snat to {to} fully-random",
    "dnat": lambda to: f"dnat to {to}",
}
_NFT_COMMENT = 128


def _nft(rule: Rule, family: int) -> str:
    words = [_fragment(criterion, NFT) for criterion in rule.match]
    if rule.action is not None:
        words += ["counter", _fragment(rule.action, NFT_ACTIONS)]
    if not words:
        return "continue"
    text = " ".join(words).replace("<IP>", "ip6" if family == 6 else "ip")
    proto: Any = next((c[1] for c in rule.match if c[0] == "proto" and len(c) == 2), "")
    return text.replace("<PROTO>", str(TRANSPORT.get(proto, proto)))


def nft_rules(chain: Chain, family: int) -> list[str]:
    """Return a chain's rules as `nft` writes them, each with its hash in the comment."""
    bodies = [_nft(rule, family) for rule in chain.rules]
    out = []
    for body, own, rule in zip(bodies, rule_hashes(chain.name, bodies), chain.rules, strict=True):
        comment = f"{PREFIX}{own};"
        if rule.comments:
            most = (_NFT_COMMENT - len(comment)) // len(rule.comments)
            comment = " ".join([comment, *(_UNSAFE.sub("_", text)[:most] for text in rule.comments)])
        out.append(f'{body} comment "{comment[:_NFT_COMMENT]}"')
    return out
