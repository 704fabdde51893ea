"""`calicoctl node status` and `calicoctl ipam show|check|release`, as a machine's administrator runs them.

`node status` asks BIRD over its control socket on that machine; `ipam` reads and writes the datastore.
Source: `calicoctl/calicoctl/commands` of https://github.com/projectcalico/calico (v3.32); tables as its table writer
draws them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median_high

from kubenet_lab.cni.calico.datastore import Datastore
from kubenet_lab.cni.calico.ipam import HANDLES, Ipam
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.socket import UNIX
from kubenet_lab.packet.ip import ip_text, prefix

KINDS = {"Mesh": "node-to-node mesh", "Node": "node specific", "Global": "global"}
SOCKETS = {4: "/var/run/calico/bird.ctl", 6: "/var/run/calico/bird6.ctl"}
CONFLIST = "/etc/cni/net.d/10-calico.conflist"
TUNNELS = ("IPv4IPIPTunnelAddr", "IPv4VXLANTunnelAddr", "IPv6VXLANTunnelAddr")


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


def node_status(node: Netns) -> str:
    """`calicoctl node status` on a node."""
    if CONFLIST not in node.files:
        return "Calico process is not running.\n"
    sockets = {one.address: one for one in node.sockets.get((UNIX, 0), ())}
    parts = ["Calico process is running."]
    for family, path in SOCKETS.items():
        found = sockets.get(path)
        if found is None or found.handler is None:
            if family == 4:
                return "\n\n".join([*parts, "The BGP backend process (BIRD) is not running."]) + "\n"
            continue
        rows = _peers(found.handler(("show", "protocols")).text, family)
        shown = f"No IPv{family} peers found."
        if rows:
            shown = table(("PEER ADDRESS", "PEER TYPE", "STATE", "SINCE", "INFO"), rows)
        parts.append(f"IPv{family} BGP status\n{shown}")
    return "\n\n".join(parts) + "\n"


def _peers(text: str, family: int) -> list[tuple[str, ...]]:
    """Read the BGP lines of `show protocols`, as calicoctl does: the name of a protocol has the peer's address."""
    rows: list[tuple[str, ...]] = []
    for line in text.splitlines():
        words = line.split()
        kind, _, address = words[0].partition("_") if words else ("", "", "")
        if kind in KINDS and words[1] == "BGP":
            peer = address.replace("_", "." if family == 4 else ":")
            rows.append((peer, KINDS[kind], words[3], words[4], " ".join(words[5:])))
    return rows


def ipam_show(network: Network, *, blocks: bool = False) -> str:
    """`calicoctl ipam show [--show-blocks]`. Raises NoApiServer."""
    rows: list[tuple[str, ...]] = []
    ipam = Ipam(network)
    held = ipam.all_blocks()
    for pool in ipam.pools():
        whole = prefix(pool.cidr)
        inside = [
            b for b in held if prefix(b["cidr"]).net & whole.mask == whole.net and _family(b) == whole.family
        ]
        rows.append(_row("IP Pool", pool.cidr, sum(len(b["allocations"]) for b in inside)))
        if blocks:
            inside.sort(key=lambda b: prefix(b["cidr"]).net)
            rows += [_row("Block", b["cidr"], len(b["allocations"])) for b in inside]
    return table(("GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE"), rows) + "\n"


def ipam_show_address(network: Network, address: str) -> str:
    """`calicoctl ipam show --ip=ADDRESS`. Raises NoApiServer."""
    entry = Ipam(network).allocation(address)
    if entry is None:
        return f"{address} is not assigned\n"
    notes = "".join(f"  {key}: {value}\n" for key, value in sorted(entry.items()) if key != "handle")
    return f"IP {address} is in use\nAttributes:\n{notes}"


def ipam_release(network: Network, address: str) -> str:
    """`calicoctl ipam release --ip=ADDRESS`: take an address back, whoever has it. Raises NoApiServer."""
    if Ipam(network).release_address(address):
        return f"Successfully released IP address {address}\n"
    return f"IP address {address} is not assigned\n"


def ipam_check(network: Network, *, show: bool = False) -> str:
    """`calicoctl ipam check [--show-problem-ips]`: what is allocated and not in use, and the other way round.

    The real one compares with the WorkloadEndpoints of the API, this one with the addresses that pods' namespaces have.
    Raises NoApiServer.
    """
    ipam, out = Ipam(network), ["Checking IPAM for inconsistencies...", ""]
    held: dict[str, tuple[str, str, str]] = {}
    blocks = ipam.all_blocks()
    out += ["Loading all IPAM blocks...", f"Found {len(blocks)} IPAM blocks."]
    for block in blocks:
        whole = prefix(block["cidr"])
        out.append(f" IPAM block {block['cidr']} affinity={block['affinity'] or '<none>'}:")
        for number, entry in block["allocations"].items():
            address = ip_text(whole.net + int(number), whole.family)
            pod = f"{entry.get('namespace', '')}/{entry['pod']}" if "pod" in entry else entry.get("type", "?")
            held[address] = (entry["node"], entry["handle"], pod)
    out += [f"IPAM blocks record {len(held)} allocations.", "", "Loading all IPAM pools..."]
    pools = [pool for pool in ipam.pools() if not pool.disabled]
    out += [*(f"  {pool.cidr}" for pool in pools), f"Found {len(pools)} active IP pools.", ""]
    tunnels = _tunnels(network)
    pods = _pods(network)
    used = tunnels | pods
    out += ["Loading all nodes.", f"Found {len(tunnels)} node tunnel IPs.", ""]
    out += ["Loading all workload endpoints.", f"Found {len(pods)} workload IPs."]
    out += [f"Workloads and nodes are using {len(used)} IPs.", ""]
    counts = Counter(node for node, _handle, _pod in held.values() if node)
    out.append("Looking for top (up to 20) nodes by allocations...")
    top = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:20]
    out += [f"  {node} has {number} allocations" for node, number in top]
    most, middle = max(counts.values(), default=0), median_high(counts.values()) if counts else 0
    out += [f"Node with most allocations has {most}; median is {middle}", ""]

    leaked = [address for address in held if address not in used]
    out.append("Scanning for IPs that are allocated but not actually in use...")
    if show:
        out += [f"  {address} leaked; attrs {held[address][2]}" for address in leaked]
    out.append(f"Found {len(leaked)} IPs that are allocated in IPAM but not actually in use.")
    out.append("Scanning for IPs that are in use by a workload or node but not allocated in IPAM...")
    lost = [address for address in sorted(used) if address not in held]
    outside = [address for address in lost if not any(address in prefix(pool.cidr) for pool in pools)]
    inside = [address for address in lost if address not in outside]
    if show:
        out += [
            f"  {address} in use and in active IPAM pool but has no IPAM allocation" for address in inside
        ]
    out += [f"Found {len(outside)} in-use IPs that are not in active IP pools."]
    out += [
        f"Found {len(inside)} in-use IPs that are in active IP pools but have no corresponding IPAM allocation.",
        "",
    ]

    handles = ipam.store.list(HANDLES)
    named = {handle for _node, handle, _pod in held.values()}
    idle = [handle for handle in handles if handle not in named]
    missing = sorted(handle for handle in named if handle not in handles)
    out += ["Scanning for IPAM handles with no matching IPs..."]
    matched = len(handles) - len(idle)
    out += [f"Found {len(idle)} handles with no matching IPs (and {matched} handles with matches)."]
    out += ["Scanning for IPs with missing handle..."]
    out += [f"Found {len(missing)} handles mentioned in blocks with no matching handle resource."]
    problems = len(leaked) + len(lost) + len(idle) + len(missing)
    return "\n".join([*out, f"Check complete; found {problems} problems."]) + "\n"


def _tunnels(network: Network) -> set[str]:
    out = set()
    for document in Datastore(network).list("nodes").values():
        notes = document.get("annotations") or {}
        out |= {notes[key] for name in TUNNELS if (key := f"projectcalico.org/{name}") in notes}
    return out


def _pods(network: Network) -> set[str]:
    """Addresses of pods: of namespaces that are not their machine's own."""
    return {
        address.local
        for name, space in network.netns.items()
        if name != space.host
        for address in space.addrs(None, None)
        if address.scope == "global"
    }


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
