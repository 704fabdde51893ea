"""What `calicoctl node status`, `calicoctl ipam show` and `calicoctl ipam show --show-blocks` print.

Source: `calicoctl/calicoctl/commands` of https://github.com/projectcalico/calico (v3.32); tables as its table writer
draws them.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubenet_lab.bgp.session import Session
from kubenet_lab.clock import timestamp
from kubenet_lab.cni.calico.network import Calico
from kubenet_lab.packet.ip import prefix

KINDS = {"Mesh": "node-to-node mesh", "Node": "node specific", "Global": "global"}


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table with frames."""
    widths = [max(len(line[i]) for line in (head, *rows)) + 2 for i in range(len(head))]
    rule = "+" + "+".join("-" * width for width in widths) + "+"

    def line(cells: Sequence[str], *, middle: bool) -> str:
        texts = [
            (" " * ((w - len(c)) // 2) + c).ljust(w) if middle else f" {c} ".ljust(w)
            for c, w in zip(cells, widths, strict=True)
        ]
        return "|" + "|".join(texts) + "|"

    body = [line(row, middle=False) for row in rows]
    return "\n".join([rule, line(head, middle=True), rule, *body, rule])


def session_info(session: Session) -> str:
    """Return a session's last column: Established, or the state with what went wrong."""
    if session.up:
        return "Established"
    return f"{session.state} {session.last_error}".rstrip()


def node_status(network: Calico, node: str) -> str:
    """`calicoctl node status` on a node."""
    bird = network.fabric.daemons.get(node)
    if bird is None:
        return "Calico process is running.\n\nThe BGP backend process (BIRD) is not running.\n"
    rows = [
        (
            session.peer.address,
            KINDS.get(session.peer.name.partition("_")[0], "global"),
            "up" if session.up else "start",
            timestamp(session.since)[11:19],
            session_info(session),
        )
        for session in bird.bgp_sessions()
    ]
    peers = "No IPv4 peers found."
    if rows:
        peers = table(("PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"), rows)
    return (
        f"Calico process is running.\n\nIPv4 BGP status\n{peers}\n\nIPv6 BGP status\nNo IPv6 peers found.\n"
    )


def ipam_show(network: Calico, *, blocks: bool = False) -> str:
    """`calicoctl ipam show [--show-blocks]`."""
    rows: list[tuple[str, ...]] = []
    held = network.ipam.all_blocks()
    for pool in network.pools():
        whole = prefix(pool.cidr)
        inside = [
            b for b in held if prefix(b["cidr"]).net & whole.mask == whole.net and _family(b) == whole.family
        ]
        rows.append(_row("IP Pool", pool.cidr, sum(len(b["allocations"]) for b in inside)))
        if blocks:
            inside.sort(key=lambda b: prefix(b["cidr"]).net)
            rows += [_row("Block", b["cidr"], len(b["allocations"])) for b in inside]
    return table(("GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE"), rows) + "\n"


def _family(block: dict[str, str]) -> int:
    return 6 if ":" in block["cidr"] else 4


def _row(kind: str, cidr: str, used: int) -> tuple[str, ...]:
    whole = prefix(cidr)
    size = 1 << ((128 if whole.family == 6 else 32) - whole.length)
    share = round(100 * used / size)
    return (
        kind,
        cidr,
        _number(size),
        f"{_number(used)} ({share}%)",
        f"{_number(size - used)} ({100 - share}%)",
    )


def _number(value: int) -> str:
    return str(value) if value < 10**6 else f"{value:.4e}".replace("e+0", "e+")
