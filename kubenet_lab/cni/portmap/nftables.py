"""portmap's nftables backend: one table a family that all containers share; a rule's comment names its container.

Source: `plugins/meta/portmap/portmap_nftables.go` (v1.9.1).
"""

from __future__ import annotations

from kubenet_lab.cni.masquerade import remove_commented
from kubenet_lab.cni.plugin import Call, CniError
from kubenet_lab.cni.portmap.config import Config

TABLE = "cni_hostport"
_OWNED = ("hostports", "hostip_hostports", "masquerading")
"""Chains with rules of single containers."""


def _family(fam: int) -> str:
    return "ip" if fam == 4 else "ip6"


def add(call: Call, conf: Config, fam: int, cidr: str) -> None:
    """Forward the ports to one address."""
    from kubenet_lab.kernel.dialects import nft

    word, address = _family(fam), cidr.partition("/")[0]
    table, comment = f"{word} {TABLE}", f'comment "{call.container_id}"'
    conditions = " ".join(conf.conditions_v4 if fam == 4 else conf.conditions_v6)
    target = address if fam == 4 else f"[{address}]"
    lines = [
        f'add table {table} {{ comment "CNI portmap plugin"; }}',
        f"add chain {table} hostports",
        f"add chain {table} hostip_hostports",
        f"add chain {table} hostports_all",
        f"flush chain {table} hostports_all",
        f"add rule {table} hostports_all jump hostip_hostports",
        f"add rule {table} hostports_all jump hostports",
    ]
    # dstnat is a name for prerouting only; at output the number says the same.
    for chain, priority in (("prerouting", "dstnat"), ("output", "-100")):
        lines += [
            f"add chain {table} {chain} {{ type nat hook {chain} priority {priority}; }}",
            f"flush chain {table} {chain}",
            f"add rule {table} {chain} {conditions} fib daddr type local jump hostports_all",
        ]
    if conf.snat:
        lines.append(f"add chain {table} masquerading {{ type nat hook postrouting priority srcnat; }}")
    for item in conf.mappings:
        if item.on(fam) != "-":
            where = f"{word} daddr {item.on(fam)} " if item.on(fam) else ""
            lines.append(
                f"add rule {table} hostports {where}{item.protocol} dport {item.host_port} "
                f"dnat to {target}:{item.container_port} {comment}"
            )
    if conf.snat:
        for source in (address, "127.0.0.1") if fam == 4 else (address,):
            lines.append(
                f"add rule {table} masquerading {word} saddr {source} {word} daddr {address} masquerade {comment}"
            )
    call.node.set_nftables(nft.apply(call.node.nftables, "\n".join(lines) + "\n", now=call.now))


def remove(call: Call) -> None:
    """Delete a container's rules in both families; tables and chains stay."""
    for word in ("ip", "ip6"):
        remove_commented(call, word, TABLE, _OWNED, call.container_id)


def check(call: Call, conf: Config, fam: int) -> None:
    """Fail when a chain has fewer rules of the container than it should."""
    wanted = {"hostports": sum(item.on(fam) != "-" for item in conf.mappings)}
    if conf.snat:
        wanted["masquerading"] = 2 if fam == 4 else 1
    table = call.node.nftables.tables.get((_family(fam), TABLE)) if call.node.has_nftables else None
    for chain, number in wanted.items():
        rules = table.chains[chain].rules if table is not None and chain in table.chains else ()
        if sum(rule.comment == call.container_id for rule in rules) < number:
            raise CniError(f'missing hostport rules in "{chain}" chain')
