"""Small worlds made by hand from kernel edits alone: no objects, no control loops."""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.dialects.iptables import load
from kubenet_lab.kernel.link import BridgeOptions, BridgePort, VxlanOptions
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet.ip import mac_from
from kubenet_lab.packet.packet import TCP, UDP, Packet

PODS = {
    "default/frontend": ("node-1", "10.244.0.2"),
    "default/backend-1": ("node-1", "10.244.0.3"),
    "default/backend-2": ("node-2", "10.244.1.2"),
}
NODES = {"node-1": ("192.168.1.10", 0), "node-2": ("192.168.1.20", 1)}
GATEWAY = "192.168.1.1"
SERVICE = "10.96.0.100"


UNSERVED = "10.96.0.200"

RULES = """*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-SEP-1 - [0:0]
:KUBE-SEP-2 - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A POSTROUTING -s 10.244.0.0/16 ! -d 10.244.0.0/16 -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
-A KUBE-SEP-1 -s 10.244.0.3/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-1 -p tcp -m tcp -j DNAT --to-destination 10.244.0.3:8080
-A KUBE-SEP-2 -s 10.244.1.2/32 -j KUBE-MARK-MASQ
-A KUBE-SEP-2 -p tcp -m tcp -j DNAT --to-destination 10.244.1.2:8080
-A KUBE-SERVICES -d 10.96.0.100/32 -p tcp -m tcp --dport 80 -j KUBE-SVC
-A KUBE-SVC ! -s 10.244.0.0/16 -d 10.96.0.100/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC -m statistic --mode random --probability 0.50000000000 -j KUBE-SEP-1
-A KUBE-SVC -j KUBE-SEP-2
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.200/32 -p tcp -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
COMMIT
"""
"""What kube-proxy makes of one Service with two endpoints and one with none, chain names shortened."""


def echo(packet: Packet, _now: float) -> Packet:
    """A UDP server that says back what it hears."""
    return Packet(
        packet.dst, packet.src, packet.proto, payload=packet.payload, payload_size=packet.payload_size
    )


def two_nodes() -> Network:
    """Two nodes and a gateway on a wire, Flannel's vxlan between cni0 bridges, three pods, servers on 8080
    and 5353.
    """
    net = Network()
    net.add_wire("underlay")
    gateway = net.add_netns("gateway")
    gateway.add_link("eth0", "physical", mac=mac_from("gateway", "eth0"))
    net.plug("underlay", "gateway", "eth0")
    gateway.set_link("eth0", up=True)
    gateway.add_address("eth0", f"{GATEWAY}/24")
    gateway.listen(Socket(TCP, "0.0.0.0", 6443, "server"))
    for name, (address, number) in NODES.items():
        node = net.add_netns(name)
        node.set_sysctl("net.ipv4.ip_forward", 1)
        node.add_link("eth0", "physical", mac=mac_from(name, "eth0"))
        net.plug("underlay", name, "eth0")
        node.set_link("eth0", up=True)
        node.add_address("eth0", f"{address}/24")
        node.add_route("default", via=GATEWAY, dev="eth0")
        node.add_link("cni0", "bridge", mac=mac_from(name, "cni0"), mtu=1450, bridge=BridgeOptions())
        node.set_link("cni0", up=True)
        node.add_address("cni0", f"10.244.{number}.1/24")
        node.add_link(
            "flannel.1", "vxlan", mac=mac_from(name, "flannel.1"), mtu=1450,
            vxlan=VxlanOptions(vni=1, local=address, link="eth0", port=8472),
        )  # fmt: skip
        node.set_iptables(4, load(RULES, 4))
        node.set_link("flannel.1", up=True)
        node.add_address("flannel.1", f"10.244.{number}.0/32")
        for other, (remote, far) in NODES.items():
            if other != name:
                mac = mac_from(other, "flannel.1")
                node.set_neighbour("flannel.1", f"10.244.{far}.0", mac)
                node.add_fdb(FdbEntry("flannel.1", mac, dst=remote, state="permanent"))
                node.add_route(f"10.244.{far}.0/24", via=f"10.244.{far}.0", dev="flannel.1", onlink=True)
    for name, (node_name, address) in PODS.items():
        pod = net.add_netns(name, node_name)
        host_end = "veth" + mac_from(name)[-8:].replace(":", "")
        net.add_veth(
            node_name,
            host_end,
            name,
            "eth0",
            mac_a=mac_from(name, "host"),
            mac_b=mac_from(name, "eth0"),
            mtu=1450,
        )
        net.ns(node_name).set_link(host_end, up=True, master="cni0", port=BridgePort(hairpin=True))
        pod.set_link("eth0", up=True)
        pod.add_address("eth0", f"{address}/24")
        pod.add_route("default", via=address.rpartition(".")[0] + ".1", dev="eth0")
        pod.files["/etc/resolv.conf"] = (
            "search default.svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
        )
        pod.files["/etc/hosts"] = f"127.0.0.1\tlocalhost\n{address}\t{name.partition('/')[2]}\n"
        if "backend" in name:
            pod.listen(Socket(TCP, "0.0.0.0", 8080, "server"))
            pod.listen(Socket(UDP, "0.0.0.0", 5353, "server", handler=echo))
    return net


# -- the shop, and a shop with something odd in every corner --------------------------------------------

SHOP, ODD = "shop", "odd"
BACKEND, DNS, KUBERNETES, EMPTY_SERVICE = "10.96.0.100", "10.96.0.10", "10.96.0.1", "10.96.0.250"

EXTRA = """
apiVersion: v1
kind: Service
metadata: {name: empty}
spec:
  clusterIP: 10.96.0.250
  selector: {app: nobody}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: alone, labels: {app: alone}}
spec:
  nodeName: node-2
  containers: [{name: alone, image: alone, ports: [{containerPort: 8080}]}]
---
apiVersion: v1
kind: Service
metadata: {name: alone}
spec:
  clusterIP: 10.96.0.201
  selector: {app: alone}
  ports: [{port: 80, targetPort: 8080}]
"""


def shop(proxy: str = "iptables") -> Network:
    """The shop, with a Service that has no endpoints and one whose only endpoint may call itself."""
    from kubenet_lab import Cluster
    from kubenet_lab.scenarios.shop import MANIFEST

    return Cluster.from_files(MANIFEST, EXTRA, proxy=proxy).network


def odd(proxy: str = "iptables") -> Network:
    """The shop after some edits that break or bend single flows; the rows of `flows.ROWS` say which."""
    net = shop(proxy)
    pods = {
        (ns.name.partition("/")[2].split("-")[0], ns.host): ns for ns in net.netns.values() if "/" in ns.name
    }
    one, two, three = (net.ns(f"node-{n}") for n in (1, 2, 3))
    for block, kind in (
        ("198.51.100.0/24", "blackhole"),
        ("198.51.101.0/24", "unreachable"),
        ("198.51.102.0/24", "prohibit"),
    ):
        one.add_route(block, type=kind)
    # Answers to node-2's pods would leave node-3 by eth0, so what comes from them by the tunnel is not
    # believed.
    three.delete_route("10.244.1.0/24")
    three.add_route("10.244.1.0/24", via="192.168.1.20", dev="eth0")
    three.set_sysctl("net.ipv4.conf.flannel.1.rp_filter", 1)
    (entry,) = [e for group in one.fdb.values() for e in group if e.dst == "192.168.1.30"]
    one.delete_fdb("flannel.1", entry.mac)
    two.set_link("cni0", mtu=1400)
    slow = pods["backend", "node-1"]
    (listener,) = [s for group in slow.sockets.values() for s in group if s.port == 8080]
    slow.close(listener)
    slow.listen(replace(listener, backlog_full=True))
    slow.set_sysctl("net.ipv4.icmp_echo_ignore_all", 1)
    alone = pods["alone", "node-2"]
    peer = alone.links["eth0"].peer
    assert peer is not None
    port = two.links[peer.link].port
    assert port is not None
    two.set_link(peer.link, port=replace(port, hairpin=False))
    return net


WORLDS = {SHOP: shop, ODD: odd}

UNSETTLED: frozenset[str] = frozenset()
"""Modes whose real differences from the tables nobody has listed yet: take a name out to have it judged."""
