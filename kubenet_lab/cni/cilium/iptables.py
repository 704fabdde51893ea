"""The iptables rules of Cilium's agent: masquerading, and what must pass the host's stack (pkg/datapath/iptables)."""

from __future__ import annotations

from kubenet_lab.cni.plugin import add_lines
from kubenet_lab.kernel.netns import Netns

CHAINS = {
    "nat": (("POSTROUTING", "post"), ("PREROUTING", "pre"), ("OUTPUT", "output")),
    "filter": (("FORWARD", "forward"), ("INPUT", "input"), ("OUTPUT", "output")),
}
_NAMES = {
    ("nat", "post"): "CILIUM_POST_nat",
    ("nat", "pre"): "CILIUM_PRE_nat",
    ("nat", "output"): "CILIUM_OUTPUT_nat",
    ("filter", "forward"): "CILIUM_FORWARD",
    ("filter", "input"): "CILIUM_INPUT",
    ("filter", "output"): "CILIUM_OUTPUT",
}
_FORWARD = (
    ("-o cilium_host", "cilium: any->cluster on cilium_host forward accept"),
    ("-i cilium_host", "cilium: cluster->any on cilium_host forward accept (nodeport)"),
    ("-i lxc+", "cilium: cluster->any on lxc+ forward accept"),
    ("-i cilium_net", "cilium: cluster->any on cilium_net forward accept (nodeport)"),
)


def _masquerading(block: str, native: str, router: str, masquerade: bool) -> list[tuple[str, str, str]]:
    """(what it matches, comment, target) of CILIUM_POST_nat.

    The rule for what a pod sent and kube-proxy translated keeps the answer on its way through the host: between two
    pods of a node it would pass by, untranslated.
    """
    to_router = f"SNAT --to-source {router}"
    rows = [
        (
            "-s 127.0.0.1/32 -o cilium_host",
            "cilium host->cluster from 127.0.0.1 masquerade",
            to_router,
        ),
        (
            "-m mark --mark 0xf00/0xf00 -o cilium_host -m conntrack --ctstate DNAT",
            "hairpin traffic that originated from a local pod",
            to_router,
        ),
    ]
    if masquerade:
        outside = f"-s {block} ! -d {native} ! -o cilium_+"
        rows.insert(0, (outside, "cilium masquerade non-cluster", "MASQUERADE"))
    return rows


def install(space: Netns, *, block: str, native: str, router: str, masquerade: bool) -> None:
    """Write the agent's chains, and put its jumps first in the built-in ones.

    `block` is the node's, `native` what is never masqueraded, `router` cilium_host's address.
    """
    for table, hooks in CHAINS.items():
        lines = [f"*{table}", *(f":{_NAMES[table, key]} - [0:0]" for _hook, key in hooks)]
        if table == "nat":
            lines += [
                f'-A CILIUM_POST_nat {match} -m comment --comment "{comment}" -j {target}'
                for match, comment, target in _masquerading(block, native, router, masquerade)
            ]
        else:
            lines += [
                f'-A CILIUM_FORWARD {match} -m comment --comment "{comment}" -j ACCEPT'
                for match, comment in _FORWARD
            ]
        lines += [
            f'-I {hook} -m comment --comment "cilium-feeder: {_NAMES[table, key]}" -j {_NAMES[table, key]}'
            for hook, key in hooks
        ]
        add_lines(space, 4, "\n".join([*lines, "COMMIT", ""]))
