"""flanneld's rules: who is masqueraded, and that pods may be forwarded; for iptables and for nftables.

The two are not the same: the fourth rule differs, as recorded. Source: `pkg/trafficmngr/{iptables,nftables}`
(v0.28).
"""

from __future__ import annotations

from kubenet_lab.cni.flannel.config import Flags
from kubenet_lab.cni.plugin import add_lines, chain_lines, has_chain
from kubenet_lab.kernel.netfilter import Ruleset
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.put_off import peek

RESYNC = 5.0
"""Seconds between two looks at the rules (`--iptables-resync`)."""
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
_CHAINS = (("nat", "POSTROUTING", "FLANNEL-POSTRTG"), ("filter", "FORWARD", "FLANNEL-FWD"))


def iptables_lines(network: str, own: str, fam: int, flags: Flags) -> dict[str, list[str]]:
    """Return the lines for each table; `own` is the node's subnet, "" where it has none of this family."""
    out: dict[str, list[str]] = {}
    if flags.ip_masq:
        note = '-m comment --comment "flanneld masq"'
        mine, to_me = (f"-s {own} ", f"-d {own} ") if own else ("", "")
        random = " --random-fully" if flags.ip_masq_random_fully else ""
        chain = "-A FLANNEL-POSTRTG"
        out["nat"] = [
            f"-A POSTROUTING {note} -j FLANNEL-POSTRTG",
            f"{chain} -m mark --mark 0x4000/0x4000 {note} -j RETURN",
            f"{chain} {mine}-d {network} {note} -j RETURN",
            f"{chain} -s {network} {to_me}{note} -j RETURN",
            f"{chain} ! -s {network} {to_me}{note} -j RETURN",
            f"{chain} -s {network} ! -d {_MULTICAST[fam]} {note} -j MASQUERADE{random}",
            f"{chain} ! -s {network} -d {network} {note} -j MASQUERADE{random}",
        ]
    if flags.forward_rules:
        note = '-m comment --comment "flanneld forward"'
        out["filter"] = [
            f"-A FORWARD {note} -j FLANNEL-FWD",
            f"-A FLANNEL-FWD -s {network} {note} -j ACCEPT",
            f"-A FLANNEL-FWD -d {network} {note} -j ACCEPT",
        ]
    return out


def ensure_iptables(ns: Netns, network: str, own: str, fam: int, flags: Flags) -> None:
    """Add what is missing; rules of an earlier run stay when flanneld stops."""
    text = ""
    for table, lines in iptables_lines(network, own, fam, flags).items():
        builtin, chain = next((b, c) for t, b, c in _CHAINS if t == table)
        present = set(chain_lines(ns, fam, table, builtin)) | set(chain_lines(ns, fam, table, chain))
        missing = [line for line in lines if line not in present]
        if missing:
            declared = "" if has_chain(ns, fam, table, chain) else f":{chain} - [0:0]\n"
            text += f"*{table}\n{declared}" + "".join(f"{line}\n" for line in missing) + "COMMIT\n"
    if text:
        add_lines(ns, fam, text)


def iptables_missing(ns: Netns, fam: int, flags: Flags) -> bool:
    """Whether somebody took rules away. Rules nobody has looked at yet are as they were written."""
    if peek(ns, "_build_rules") is not None:
        return False
    rules: dict[int, Ruleset] = peek(ns, "_iptables") or ns.iptables
    for table, builtin, chain in _CHAINS:
        if not (flags.ip_masq if table == "nat" else flags.forward_rules):
            continue
        found = rules[fam].tables.get(table)
        if found is None or chain not in found.chains or not found.chains[chain].rules:
            return True
        if not any(getattr(rule.target, "chain", "") == chain for rule in found.chains[builtin].rules):
            return True
    return False


def nftables_text(network: str, own: str, fam: int, flags: Flags) -> str:
    """Return the whole of one family's table as `nft -f` commands."""
    word = "ip" if fam == 4 else "ip6"
    table = f"{word} flannel-ipv{fam}"
    lines = [f'add table {table} {{ comment "rules for flannel-ipv{fam}"; }}']
    if flags.ip_masq and network:
        random = " fully-random" if flags.ip_masq_random_fully else ""
        lines += [
            f'add chain {table} postrtg {{ comment "chain to manage traffic masquerading by flannel"; '
            "type nat hook postrouting priority srcnat; }",
            f"flush chain {table} postrtg",
            f"add rule {table} postrtg meta mark 0x4000 return",
            f"add rule {table} postrtg {word} saddr {own} {word} daddr {network} return",
            f"add rule {table} postrtg {word} saddr {network} {word} daddr {own} return",
            f"add rule {table} postrtg {word} saddr != {own} {word} daddr {network} return",
            f"add rule {table} postrtg {word} saddr {network} {word} daddr != {_MULTICAST[fam]} masquerade{random}",
            f"add rule {table} postrtg {word} saddr != {network} {word} daddr {network} masquerade{random}",
        ]
    if flags.forward_rules and network:
        lines += [
            f'add chain {table} forward {{ comment "chain to accept flannel traffic"; '
            "type filter hook forward priority filter; }",
            f"flush chain {table} forward",
            f"add rule {table} forward {word} saddr {network} accept",
            f"add rule {table} forward {word} daddr {network} accept",
        ]
    return "\n".join(lines) + "\n"


def ensure_nftables(ns: Netns, texts: list[str]) -> None:
    """Write the tables anew, in one transaction."""
    from kubenet_lab.kernel.dialects import nft

    ns.set_nftables(nft.apply(ns.nftables, "".join(texts)))
