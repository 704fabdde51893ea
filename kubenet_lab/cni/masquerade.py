"""`ipMasq`: what a container sends out of its own subnet gets the node's address, in iptables or in nftables.

Source: `plugins/pkg/ip/ipmasq_{iptables,nftables}_linux.go` (v1.9.1).
"""

from __future__ import annotations

from kubenet_lab.cni.interface import hash_with_prefix
from kubenet_lab.cni.plugin import Call, CniError, add_lines, chain_lines, has_chain
from kubenet_lab.packet.ip import family, prefix

_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
TABLE = "cni_plugins_masquerade"
"""The nftables table, of family inet, that all containers share."""


def masquerade_chain(name: str, container_id: str) -> str:
    """The iptables chain of one container: "CNI-" and 24 hex digits of sha512(network name + container)."""
    return hash_with_prefix(28, "CNI-", f"{name}{container_id}")


def add(call: Call, cidr: str, backend: str | None = None) -> None:
    """Masquerade one address of the container. `backend` is iptables (also for None) or nftables. Raises CniError."""
    if backend in (None, "", "iptables"):
        _add_iptables(call, cidr)
    elif backend == "nftables":
        _add_nftables(call, cidr)
    else:
        raise CniError(f'unknown ipmasq backend "{backend}"')


def remove(call: Call, cidr: str) -> None:
    """Take the rules of one address away from both backends; that they are not there is no error."""
    chain = masquerade_chain(call.name, call.container_id)
    fam, address = family(cidr), cidr.partition("/")[0]
    jumps = [
        line for line in chain_lines(call.node, fam, "nat", "POSTROUTING") if line.endswith(f"-j {chain}")
    ]
    own = f"-s {address}/{32 if fam == 4 else 128} "
    lines = "".join(f"-D{line[2:]}\n" for line in jumps if own in line)
    if has_chain(call.node, fam, "nat", chain):
        lines += f"-F {chain}\n"
        lines += f"-X {chain}\n" if len(jumps) == lines.count("-D ") else ""
    # Looking for a chain makes iptables-nft create its table, even where nothing is found.
    add_lines(call.node, fam, f"*nat\n{lines}COMMIT\n")
    _remove_nftables(call)


def _names(call: Call) -> tuple[str, str]:
    chain = masquerade_chain(call.name, call.container_id)
    return chain, f'-m comment --comment "name: \\"{call.name}\\" id: \\"{call.container_id}\\""'


def _add_iptables(call: Call, cidr: str) -> None:
    """One chain a container: accept inside the subnet, masquerade the rest but multicast."""
    chain, comment = _names(call)
    fam, address = family(cidr), cidr.partition("/")[0]
    add_lines(
        call.node,
        fam,
        f"*nat\n:{chain} - [0:0]\n"
        f"-A {chain} -d {prefix(cidr)} {comment} -j ACCEPT\n"
        f"-A {chain} ! -d {_MULTICAST[fam]} {comment} -j MASQUERADE\n"
        f"-A POSTROUTING -s {address} {comment} -j {chain}\nCOMMIT\n",
    )


def _instance(call: Call) -> str:
    network = hash_with_prefix(16, "", call.name)
    return f"{network}-{hash_with_prefix(16, '', f'{call.ifname}:{call.container_id}')}"


def _add_nftables(call: Call, cidr: str) -> None:
    """One rule an address in a chain that all containers share."""
    from kubenet_lab.kernel.dialects import nft

    fam = family(cidr)
    word, address = "ip" if fam == 4 else "ip6", cidr.partition("/")[0]
    comment = f"{_instance(call)}, net: {call.name}, if: {call.ifname}, id: {call.container_id}"
    checks = "Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet"
    text = f"""
add table inet {TABLE} {{ comment "Masquerading for plugins from github.com/containernetworking/plugins"; }}
add chain inet {TABLE} masq_checks {{ comment "{checks}"; }}
add chain inet {TABLE} postrouting {{ type nat hook postrouting priority srcnat; }}
flush chain inet {TABLE} postrouting
add rule inet {TABLE} postrouting ip daddr {_MULTICAST[4]} return
add rule inet {TABLE} postrouting ip6 daddr {_MULTICAST[6]} return
add rule inet {TABLE} postrouting goto masq_checks
add rule inet {TABLE} masq_checks {word} saddr {address} {word} daddr != {prefix(cidr)} masquerade comment "{comment}"
"""
    call.node.set_nftables(nft.apply(call.node.nftables, text, now=call.now))


def _remove_nftables(call: Call) -> None:
    remove_commented(call, "inet", TABLE, ("masq_checks",), _instance(call), whole=False)


def remove_commented(
    call: Call, fam: str, table: str, chains: tuple[str, ...], comment: str, *, whole: bool = True
) -> None:
    """`nft delete rule` for every rule whose comment is this one (or, not `whole`, begins with it)."""
    from kubenet_lab.kernel.dialects import nft

    if not call.node.has_nftables:
        return
    found = call.node.nftables.tables.get((fam, table))
    if found is None:
        return
    text = "".join(
        f"delete rule {fam} {table} {chain} handle {rule.handle}\n"
        for chain in chains
        if chain in found.chains
        for rule in found.chains[chain].rules
        if (rule.comment == comment if whole else (rule.comment or "").startswith(comment))
    )
    if text:
        call.node.set_nftables(nft.apply(call.node.nftables, text, now=call.now))
