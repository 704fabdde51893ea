"""The shop's flows and the Services table over other pod networks than Flannel's vxlan: what a row is there, and why.

What the tables say of Flannel's own addresses stands for what a network has in their place: 10.244.N.0 is flannel.1's,
the node's end of the tunnel; 10.244.N.1 is cni0's. Where something comes out otherwise it is listed, with its cause.
"""

from __future__ import annotations

import re
from functools import cache

from msgspec.structs import replace

from kubenet_lab import Cluster
from kubenet_lab.kernel.network import Network
from kubenet_lab.scenarios.shop import MANIFEST
from tests.flows import services, test_calico
from tests.flows.flows import DIFFERENT, INSTEAD, ROWS, Row, address
from tests.flows.services_worlds import ADDRESSES, BY_NODE_1, BY_NODE_3, MACHINES, OBJECTS, SERVERS, written
from tests.flows.services_worlds import services as manifest
from tests.flows.worlds import EXTRA, SHOP

SHOP_ROWS = [row for row in ROWS if row.world == SHOP]
SERVICE_ROWS = [row for row in services.ROWS if row.world == OBJECTS]
HOST_GW, BRIDGE = "flannel-host-gw", "bridge"
BRIDGED = frozenset({"flannel", HOST_GW, BRIDGE, "flannel-wireguard"})
"""Networks whose nodes have cni0."""
TUNNELS = {"flannel": "flannel.1", "calico-ipip": "tunl0", "calico-vxlan": "vxlan.calico"}

WITHOUT_TUNNEL = test_calico.FITS
"""Nothing is put in front of a packet, so it may be as big as the wire's."""
ONE_NODE = {
    # A machine alone has no route to pods of others: its gateway says that nobody does.
    "unknown address of a remote node's pods": {"icmp": (3, 0, "192.168.1.1")},
    "unknown address of a remote node's pods, UDP": {"icmp": (3, 0, "192.168.1.1")},
    "pod network of no node": {"end": "unreachable", "icmp": (3, 0, "192.168.1.1")},
    # There is no second machine on the wire.
    "refused by a node": {"end": "unreachable", "icmp": (3, 1, "192.168.1.10")},
}
NEEDS_DATABASE = "TTL 1, TCP to a Service"
"""The database has node-3 written in its manifest, and on one node it waits for ever."""


@cache
def shop(cni: str, mode: str) -> Network:
    """The shop; over `bridge` on one node."""
    if cni != BRIDGE:
        return Cluster.from_files(MANIFEST, EXTRA, proxy=mode, cni=cni).network
    return Cluster.from_files(
        MANIFEST, EXTRA.replace("node-2", "node-1"), proxy=mode, cni=cni, nodes=1
    ).network


def rows_of(cni: str) -> list[Row]:
    """The shop's rows that a network has the machines for."""
    if cni != BRIDGE:
        return SHOP_ROWS
    others = re.compile(r"node-[23]|database|192\.168\.1\.30")
    return [
        row
        for row in SHOP_ROWS
        if row.name != NEEDS_DATABASE
        and not any(others.search(name) for name in (row.src, row.dst, *row.servers, *row.sources))
    ]


def expected(row: Row, cni: str, mode: str, network: Network) -> Row:
    """Return a row of the shop as it ends over host-gw, or over one node's bridge."""
    row = replace(row, **INSTEAD.get(mode, {}).get(row.name, {}))
    if row.name in DIFFERENT.get(mode, {}):
        row = replace(row, end=DIFFERENT[mode][row.name], icmp=(3, 3, "10.244.0.1"))
    if cni == BRIDGE:
        row = replace(row, **ONE_NODE.get(row.name, {}))
    else:
        row = replace(row, **WITHOUT_TUNNEL.get(row.name, {}))
    icmp = row.icmp and (*row.icmp[:2], stands_for(row.icmp[2], cni, network))
    return replace(row, icmp=icmp, sources=tuple(stands_for(one, cni, network) for one in row.sources))


def stands_for(text: str, cni: str, network: Network) -> str:
    """Return what an address of the tables is over a network."""
    found = re.fullmatch(r"10\.244\.(\d)\.([01])", text)
    if found is not None and cni == BRIDGE:
        return f"10.244.0.{found[2]}"
    if found is None or (found[2] == "1" and cni in BRIDGED):
        return text
    node = f"node-{int(found[1]) + 1}"
    device = TUNNELS.get(cni) if found[2] == "0" else None
    return address(network, node) if device is None else network.ns(node).addrs(device, 4)[0].local


# -- the Services table ------------------------------------------------------------------------------------------------


@cache
def served(cni: str, mode: str) -> Network:
    """The machines of the Services table over a network."""
    cluster = Cluster.from_files(MACHINES, dns=False, proxy=mode, cni=cni)
    cluster.apply(manifest({name: cluster.pod(name).ips[0] for name in SERVERS}))
    router = cluster.network.ns("router")
    router.add_route(BY_NODE_1, via=ADDRESSES["node-1"], dev="eth0")
    router.add_route(BY_NODE_3, via=ADDRESSES["node-3"], dev="eth0")
    return written(cluster.network)


NO_CNI0 = {"client-1": "timed out", "node-1": "unreachable"}
"""Calico's nodes have no cni0, so a NodePort has no address 10.244.0.1: the block's blackhole takes the packet."""

UNMASQUERADED = {
    "port-local: client-1 to 192.168.1.30:30302/tcp": (("web-2",), ("192.168.1.10",)),
    "port-local: node-1 to 192.168.1.30:30302/tcp": (("web-2",), ("192.168.1.10",)),
    **dict.fromkeys(
        (
            "port-local: outside to 192.168.1.30:30302/tcp",
            "port-local-sticky: outside to 192.168.1.30:30304/tcp",
            "port-both-local: outside to 192.168.1.30:30305/tcp",
            "vip-local: outside to 198.51.100.66:80/tcp",
            "vip-local: outside to 192.168.1.30:30402/tcp",
            "vip-local-sticky: outside to 198.51.100.72:80/tcp",
            "external-local: outside to 198.51.100.86:80/tcp",
            "ending-local: outside to 192.168.1.30:30604/tcp",
        ),
        (None, ("outside",)),
    ),
}
"""IPVS and externalTrafficPolicy Local, at a node without endpoints: kube-proxy sends it on, and masquerades nothing.

flanneld masquerades whatever comes to pods from outside their network ("! -s 10.244.0.0/16 -d 10.244.0.0/16"), and so
the answer comes back. Felix has no such rule: the server answers the caller itself, from an address it never called.
Row -> (servers that see the call, None for the row's; sources they see).
"""
FROM_THE_VIP = frozenset(
    {"vip-local: node-3 to 198.51.100.2:80/tcp", "external-local: node-3 to 198.51.100.86:80/tcp"}
)
"""The same from the node itself, whose own address the VIP is in IPVS: the answer goes to the VIP, which is elsewhere.

Through a tunnel Felix masquerades what a node sends from another address than the tunnel's.
"""


def service_row(row: services.Row, cni: str, mode: str, network: Network) -> services.Row:
    """Return a row of the Services table as it ends over a network."""
    end, servers, seen = (lambda one: (one.end, one.servers, one.sources))(services.expected(row, mode))
    if cni not in BRIDGED:
        if row.target.startswith("10.244.0.1:"):
            end, servers, seen = NO_CNI0[row.src], (), ()
        elif mode == "ipvs" and row.name in UNMASQUERADED:
            few, seen = UNMASQUERADED[row.name]
            end, servers = "timed out", servers if few is None else few
        elif mode == "ipvs" and row.name in FROM_THE_VIP and cni not in TUNNELS:
            end, servers, seen = "timed out", (), ()
    seen = tuple(stands_for(one, cni, network) for one in seen)
    return services.Row(row.world, row.service, row.src, row.target, end, servers, seen)
