"""`macspoofchk`: frames of a container that carry another MAC than its own are dropped, by nftables in the bridge.

Source: `plugins/pkg/link/spoofcheck.go` (v1.9.1).
"""

from __future__ import annotations

from kubenet_lab.cni.plugin import Call


def _chain(call: Call) -> str:
    return f"cni-br-iface-{call.container_id}-{call.ifname}"


def _comment(call: Call) -> str:
    return f"macspoofchk-{call.container_id}-{call.ifname}"


def add(call: Call, port: str, mac: str) -> None:
    """Let only this MAC in from a port."""
    from kubenet_lab.kernel.dialects import nft

    own, comment = _chain(call), f'comment "{_comment(call)}"'
    text = f"""
add table bridge nat
add chain bridge nat PREROUTING {{ type filter hook prerouting priority dstnat; }}
add chain bridge nat {own}
add chain bridge nat {own}-mac
flush chain bridge nat {own}
flush chain bridge nat {own}-mac
add rule bridge nat PREROUTING iifname "{port}" jump {own} {comment}
add rule bridge nat {own} jump {own}-mac {comment}
add rule bridge nat {own}-mac ether saddr {mac} return {comment}
add rule bridge nat {own}-mac drop {comment}
"""
    call.node.set_nftables(nft.apply(call.node.nftables, text, now=call.now))


def remove(call: Call) -> None:
    """Remove a container's chains and the rule that leads to them; the table and PREROUTING stay."""
    from kubenet_lab.kernel.dialects import nft

    table = call.node.nftables.tables.get(("bridge", "nat")) if call.node.has_nftables else None
    if table is None or _chain(call) not in table.chains:
        return
    text = "".join(
        f"delete rule bridge nat PREROUTING handle {rule.handle}\n"
        for rule in table.chains["PREROUTING"].rules
        if rule.comment == _comment(call)
    )
    text += f"flush chain bridge nat {_chain(call)}\ndelete chain bridge nat {_chain(call)}\n"
    text += f"delete chain bridge nat {_chain(call)}-mac\n"
    call.node.set_nftables(nft.apply(call.node.nftables, text, now=call.now))
