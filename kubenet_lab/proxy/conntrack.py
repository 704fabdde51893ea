"""Connections that kube-proxy makes the kernel forget after a sync.

A UDP "connection" lasts as long as its packets keep coming, and its destination was chosen with the first
one. When that endpoint is gone, or was never there, the entry would send packets into nothing for ever; TCP
notices by itself. What kube-proxy does by netlink equals `conntrack -D -p udp --orig-dst ADDRESS
--orig-port-dst PORT --reply-src ENDPOINT --reply-port-src PORT`. It looks only after a sync in which endpoints of a
Service with a UDP port changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kubenet_lab.kernel.conntrack import Flow
from kubenet_lab.packet.packet import UDP
from kubenet_lab.proxy.services import Named, ServiceMap


def stale_flows(flows: Iterable[Flow], services: ServiceMap) -> list[Flow]:
    """Return the UDP flows to a Service's address or node port that no serving endpoint of it answers.

    Traffic policies, hints and termination do not matter: they choose for new connections only. A node port
    is recognised by its number alone, whatever the address. A Service that no endpoint serves is passed over.
    """
    by_address: dict[tuple[str, int], set[tuple[str, int]]] = {}
    by_node_port: dict[int, set[tuple[str, int]]] = {}
    for key, port in services.ports.items():
        if port.key.protocol != "UDP":
            continue
        serving = {(e.address, e.port) for e in services.endpoints.get(key, ()) if e.serving}
        if not serving:
            continue
        for address in (port.cluster_ip, *port.load_balancer_ips, *port.external_ips):
            by_address[address, port.port] = serving
        if port.node_port:
            by_node_port[port.node_port] = serving
    stale = []
    for flow in flows:
        protocol, _, destination, _, destination_port, _ = flow.orig
        if protocol != UDP or (":" in destination) != (services.family == 6):
            continue
        answers = flow.reply[1], flow.reply[3]
        wanted = by_address.get((destination, destination_port)), by_node_port.get(destination_port)
        if any(serving is not None and answers not in serving for serving in wanted):
            stale.append(flow)
    return stale


def udp_changed(
    before: Mapping[int, ServiceMap], after: Mapping[int, ServiceMap], changed: Mapping[int, set[Named]]
) -> frozenset[int]:
    """Return the IP families (4, 6) in which endpoints of a changed Service with a UDP port are not as before."""
    found = set()
    for family, names in changed.items():
        old, new = before[family].endpoints, after[family].endpoints
        if not names or old is new:
            continue
        keys = {key[:2] for part in (old, new) for key in part if key.protocol == "UDP" and key[:2] in names}
        changes = {
            key[:2] for part in (old, new) for key in part if key[:2] in keys and old.get(key) != new.get(key)
        }
        if changes:
            found.add(family)
    return frozenset(found)
