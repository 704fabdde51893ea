"""The worlds of the Services table: one of objects (IPv4), one made by hand (IPv4 and IPv6).

Both have node-1 to node-3, a host outside, and per node what the names of places say:

    client-1  node-1   calls; serves nothing       web-1, web-2     node-1, node-2   TCP 8080, UDP 5353, SCTP 9000
    client-2  node-2                               solo-2           node-2           the same, alone behind its Services
    client-3  node-3                               leaving-1, -2    node-1, node-2   the same, about to end
"""

from __future__ import annotations

from kubenet_lab.cluster import PROXIES, Cluster
from kubenet_lab.kernel.dialects.iptables import load as load_iptables
from kubenet_lab.kernel.link import BridgeOptions, BridgePort
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.manifests import load
from kubenet_lab.objects import EndpointSlice, Service
from kubenet_lab.packet.ip import canonical, mac_from
from kubenet_lab.packet.packet import SCTP as SCTP_NUMBER
from kubenet_lab.packet.packet import TCP, UDP
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode
from kubenet_lab.proxy.services import ServiceTracker
from tests.flows.worlds import echo

CLIENTS = {"client-1": "node-1", "client-2": "node-2", "client-3": "node-3"}
SERVERS = {
    "web-1": "node-1",
    "web-2": "node-2",
    "solo-2": "node-2",
    "leaving-1": "node-1",
    "leaving-2": "node-2",
}
ZONES = {"node-1": "east", "node-2": "west", "node-3": "east"}
ADDRESSES = {"node-1": "192.168.1.10", "node-2": "192.168.1.20", "node-3": "192.168.1.30"}

BY_NODE_1, BY_NODE_3 = "198.51.100.0/26", "198.51.100.64/26"
"""Addresses that the router sends to node-1 (which has endpoints) and to node-3 (which has none)."""

_PORTS = {"web": 8080, "echo": 5353, "sctp": 9000}
_PROTOCOLS = {"web": "TCP", "echo": "UDP", "sctp": "SCTP"}


def _node(name: str) -> str:
    return (
        f"apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{kubernetes.io/hostname: {name}, "
        f"topology.kubernetes.io/zone: {ZONES[name]}}}}}\n"
        f"status: {{addresses: [{{type: InternalIP, address: {ADDRESSES[name]}}}]}}\n---\n"
    )


def _pod(name: str, node: str, ports: str) -> str:
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name.split('-')[0]}}}}}\n"
        f"spec: {{nodeName: {node}, containers: [{{name: main, image: example/main:1{ports}}}]}}\n---\n"
    )


_SERVED = ", ports: [{}]".format(
    ", ".join(
        f"{{name: {name}, containerPort: {port}, protocol: {_PROTOCOLS[name]}}}"
        for name, port in _PORTS.items()
    )
)
MACHINES = "".join(
    [
        *map(_node, ADDRESSES),
        *(_pod(name, node, "") for name, node in CLIENTS.items()),
        *(_pod(name, node, _SERVED) for name, node in SERVERS.items()),
    ]
)
"""Nodes and pods, as manifests."""

WEB = "{name: web, port: 80, targetPort: 8080}"
ECHO = "{name: echo, port: 53, targetPort: 5353, protocol: UDP}"
SCTP = "{name: sctp, port: 9000, targetPort: 9000, protocol: SCTP}"


def service(name: str, ip: str, spec: str = "", ports: str = WEB, app: str = "web", status: str = "") -> str:
    """Return a Service's manifest; `app` "" leaves the selector out, so that its slices are written by hand."""
    selector = f"selector: {{app: {app}}}, " if app else ""
    lines = [
        "apiVersion: v1\nkind: Service",
        f"metadata: {{name: {name}}}",
        f"spec: {{clusterIP: {ip}, {selector}ports: [{ports}]{spec}}}",
        *([f"status: {{loadBalancer: {{ingress: [{status}]}}}}"] if status else []),
    ]
    return "\n".join(lines) + "\n---\n"


def node_port(number: int, name: str = "web") -> str:
    """Return a Service port with its node port."""
    return f"{{name: {name}, port: 80, targetPort: 8080, nodePort: {number}}}"


def slice_of(service_name: str, endpoints: list[str]) -> str:
    """Return a hand-written IPv4 slice; each endpoint is YAML in braces, without them."""
    listed = ", ".join(f"{{{one}}}" for one in endpoints)
    return (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n"
        f"metadata: {{name: {service_name}-1, labels: {{kubernetes.io/service-name: {service_name}}}}}\n"
        f"endpoints: [{listed}]\nports: [{{name: web, port: 8080, protocol: TCP}}]\n---\n"
    )


def endpoint(pod: str, address: str, *, state: str = "ready", hints: str = "") -> str:
    """Return an endpoint; `state` is ready, serving (terminating, still serving) or gone (terminating, not serving)."""
    node = SERVERS[pod]
    ready, serving, ending = state == "ready", state in ("ready", "serving"), state != "ready"
    conditions = f"ready: {_yes(ready)}, serving: {_yes(serving)}, terminating: {_yes(ending)}"
    return f"addresses: [{address}], nodeName: {node}, zone: {ZONES[node]}, conditions: {{{conditions}}}" + (
        f", hints: {{{hints}}}" if hints else ""
    )


def _yes(flag: bool) -> str:
    return "true" if flag else "false"


NP, LB = ", type: NodePort", ", type: LoadBalancer"
E_LOCAL, I_LOCAL = ", externalTrafficPolicy: Local", ", internalTrafficPolicy: Local"
AFFINITY = ", sessionAffinity: ClientIP"


def services(pods: dict[str, str]) -> str:
    """Return every Service of the table; `pods` are the addresses of the servers, for the slices made by hand."""

    def at(pod: str, **options: str) -> str:
        return endpoint(pod, pods[pod], **options)

    zone = "forZones: [{{name: {}}}]"
    node = "forNodes: [{{name: {}}}]"
    return "".join([
        # ClusterIP.
        service("plain", "10.96.2.1", ports=f"{WEB}, {ECHO}, {SCTP}"),
        service("solo", "10.96.2.2", ports=f"{WEB}, {ECHO}", app="solo"),
        service("sticky", "10.96.2.3", AFFINITY),
        service("inside", "10.96.2.4", I_LOCAL),
        service("inside-solo", "10.96.2.5", I_LOCAL, app="solo"),
        service("nobody", "10.96.2.6", ports=f"{WEB}, {ECHO}, {SCTP}", app="nobody"),
        service("inside-nobody", "10.96.2.7", I_LOCAL, app="nobody"),
        service("headless", "None"),
        # NodePort.
        service("port", "10.96.3.1", NP, f"{node_port(30301)}, "
                "{name: echo, port: 53, targetPort: 5353, protocol: UDP, nodePort: 30311}"),
        service("port-local", "10.96.3.2", NP + E_LOCAL, node_port(30302)),
        service("port-sticky", "10.96.3.3", NP + AFFINITY, node_port(30303)),
        service("port-local-sticky", "10.96.3.4", NP + E_LOCAL + AFFINITY, node_port(30304)),
        service("port-both-local", "10.96.3.5", NP + E_LOCAL + I_LOCAL, node_port(30305)),
        service("port-nobody", "10.96.3.6", NP, node_port(30306), app="nobody"),
        service("port-local-nobody", "10.96.3.7", NP + E_LOCAL, node_port(30307), app="nobody"),
        service("port-solo", "10.96.3.8", NP, node_port(30308), app="solo"),
        # LoadBalancer. The first VIPs come in by node-1, those from .65 on by node-3.
        service("vip", "10.96.4.1", LB, node_port(30401), status="{ip: 198.51.100.1}, {ip: 198.51.100.65}"),
        service("vip-local", "10.96.4.2", LB + E_LOCAL + ", healthCheckNodePort: 30499", node_port(30402),
                status="{ip: 198.51.100.2}, {ip: 198.51.100.66}"),
        service("vip-near", "10.96.4.3", LB + ", loadBalancerSourceRanges: [203.0.113.0/24]", node_port(30403),
                status="{ip: 198.51.100.3}"),
        service("vip-far", "10.96.4.4", LB + ", loadBalancerSourceRanges: [10.0.0.0/8]", node_port(30404),
                status="{ip: 198.51.100.4}"),
        service("vip-proxy", "10.96.4.5", LB, node_port(30405), status="{ip: 198.51.100.5, ipMode: Proxy}"),
        service("vip-no-ports", "10.96.4.6", LB + ", allocateLoadBalancerNodePorts: false",
                status="{ip: 198.51.100.6}"),
        service("vip-nobody", "10.96.4.7", LB, node_port(30407), app="nobody", status="{ip: 198.51.100.7}"),
        service("vip-local-sticky", "10.96.4.8", LB + E_LOCAL + AFFINITY + ", healthCheckNodePort: 30498",
                node_port(30408), status="{ip: 198.51.100.8}, {ip: 198.51.100.72}"),
        service("vip-pending", "10.96.4.9", LB, node_port(30409)),
        # External IPs.
        service("external", "10.96.5.1", ", externalIPs: [198.51.100.21, 198.51.100.85]"),
        service("external-local", "10.96.5.2", ", externalIPs: [198.51.100.22, 198.51.100.86]" + E_LOCAL),
        service("external-nobody", "10.96.5.3", ", externalIPs: [198.51.100.23]", app="nobody"),
        service("external-solo-udp", "10.96.5.4", ", externalIPs: [198.51.100.24]", ECHO, app="solo"),
        # Endpoints that end.
        service("ending", "10.96.6.1", NP, node_port(30601), app=""),
        slice_of("ending", [at("leaving-1", state="serving"), at("leaving-2", state="serving")]),
        service("ending-some", "10.96.6.2", NP, node_port(30602), app=""),
        slice_of("ending-some", [at("leaving-1", state="serving"), at("web-2")]),
        service("gone", "10.96.6.3", NP, node_port(30603), app=""),
        slice_of("gone", [at("leaving-1", state="gone"), at("leaving-2", state="gone")]),
        service("ending-local", "10.96.6.4", NP + E_LOCAL, node_port(30604), app=""),
        slice_of("ending-local", [at("leaving-1", state="serving"), at("web-2")]),
        # Hints.
        service("zones", "10.96.7.1", app=""),
        slice_of("zones", [at("web-1", hints=zone.format("east")), at("web-2", hints=zone.format("west"))]),
        service("zones-half", "10.96.7.2", app=""),
        slice_of("zones-half", [at("web-1", hints=zone.format("east")), at("web-2")]),
        service("zone-west", "10.96.7.3", app=""),
        slice_of("zone-west", [at("web-1", hints=zone.format("west")), at("web-2", hints=zone.format("west"))]),
        service("nodes", "10.96.7.4", app=""),
        slice_of("nodes", [at("web-1", hints=f"{node.format('node-1')}, {zone.format('east')}"),
                           at("web-2", hints=f"{node.format('node-2')}, {zone.format('west')}")]),
        # No rules at all.
        "apiVersion: v1\nkind: Service\nmetadata: {name: elsewhere}\n"
        "spec: {type: ExternalName, externalName: www.example.com}\n---\n",
    ])  # fmt: skip


def of_objects(proxy: str) -> Network:
    """The Services in a cluster with Flannel; the router knows a way to the addresses that are for the nodes."""
    cluster = Cluster.from_files(MACHINES, dns=False, proxy=proxy)
    cluster.apply(services({name: cluster.pod(name).ips[0] for name in SERVERS}))
    router = cluster.network.ns("router")
    router.add_route(BY_NODE_1, via=ADDRESSES["node-1"], dev="eth0")
    router.add_route(BY_NODE_3, via=ADDRESSES["node-3"], dev="eth0")
    return written(cluster.network)


def written(network: Network) -> Network:
    """Let every node's rules be written now, once, and not for each flow that is followed and taken back."""
    for ns in network.netns.values():
        assert ns.iptables is not None
        assert ns.nftables is not None
    return network


# -- the world made by hand: both families, no CNI plugin, routes to every node's pods --------------------------------

DUAL_NODES = {
    "node-1": ("192.168.1.10", "fd00:1::10", 0),
    "node-2": ("192.168.1.20", "fd00:1::20", 1),
    "node-3": ("192.168.1.30", "fd00:1::30", 2),
}
"""Node -> its addresses, and the number of its pods' blocks 10.244.N.0/24 and fd00:244:0:N::/64."""
DUAL_PODS = {
    "client-1": ("node-1", 2),
    "web-1": ("node-1", 3),
    "client-2": ("node-2", 2),
    "web-2": ("node-2", 3),
    "solo-2": ("node-2", 4),
    "client-3": ("node-3", 2),
}
"""Pod -> its node, and the last part of its addresses."""
DUAL_CIDRS = ("10.244.0.0/16", "fd00:244::/56"), ("10.96.0.0/16", "fd00:96::/112")
"""Blocks of the pods and of the Services."""


MASQUERADE = """*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -s {block} ! -d {block} -j MASQUERADE
COMMIT
"""
"""Pods leave their network under their node's address, as with any CNI plugin's ipMasq."""


def _pod_addresses(name: str) -> tuple[str, str]:
    node, last = DUAL_PODS[name]
    number = DUAL_NODES[node][2]
    return f"10.244.{number}.{last}", canonical(f"fd00:244:0:{number}::{last}")


def _dual_service(
    name: str, number: int, spec: str = "", ports: str = WEB, pods: tuple[str, ...] = ()
) -> str:
    """Return a dual-stack Service with a slice for each family."""
    four, six = f"10.96.8.{number}", f"fd00:96::8:{number}"
    families = f"clusterIPs: [{four}, '{six}'], ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack"
    status = f"{{ip: 198.51.100.{number}}}, {{ip: '2001:db8:5::{number}'}}" if LB in spec else ""
    text = service(name, four, f", {families}{spec}", ports, "", status)
    protocols = [port for port in ("web", "echo", "sctp") if f"name: {port}" in ports]
    listed = ", ".join(f"{{name: {p}, port: {_PORTS[p]}, protocol: {_PROTOCOLS[p]}}}" for p in protocols)
    for index, kind in enumerate(("IPv4", "IPv6")):
        endpoints = ", ".join(
            f"{{addresses: ['{_pod_addresses(pod)[index]}'], nodeName: {DUAL_PODS[pod][0]}, "
            "conditions: {ready: true}}"
            for pod in pods
        )
        text += (
            f"apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: {kind}\n"
            f"metadata: {{name: {name}-{kind.lower()}, labels: {{kubernetes.io/service-name: {name}}}}}\n"
            f"endpoints: [{endpoints}]\nports: [{listed}]\n---\n"
        )
    return text


def dual_services() -> str:
    """Return the Services of the hand-made world."""
    web, solo = ("web-1", "web-2"), ("solo-2",)
    return "".join([
        _dual_service("plain", 1, "", f"{WEB}, {ECHO}, {SCTP}", web),
        _dual_service("solo", 2, "", f"{WEB}, {ECHO}", solo),
        _dual_service("nobody", 3, "", f"{WEB}, {ECHO}"),
        _dual_service("inside", 4, I_LOCAL, pods=web),
        _dual_service("sticky", 5, AFFINITY, pods=web),
        _dual_service("port", 6, NP, node_port(30806), web),
        _dual_service("port-local", 7, NP + E_LOCAL, node_port(30807), web),
        _dual_service("vip", 8, LB, node_port(30808), web),
        _dual_service("vip-local", 9, LB + E_LOCAL + ", healthCheckNodePort: 30899", node_port(30809), web),
        _dual_service("vip-near", 10, LB + ", loadBalancerSourceRanges: [203.0.113.0/24, '2001:db8:1::/64']",
                      node_port(30810), web),
        _dual_service("vip-far", 11, LB + ", loadBalancerSourceRanges: [10.0.0.0/8, 'fd00:244::/56']",
                      node_port(30811), web),
        _dual_service("external", 12, ", externalIPs: [198.51.100.12, '2001:db8:5::12']", pods=web),
        _dual_service("port-nobody", 13, NP, node_port(30813)),
    ])  # fmt: skip


def by_hand(proxy: str) -> Network:
    """Both families, made by kernel edits; the rules are those of kube-proxy's code, node by node."""
    net = Network()
    for wire in ("underlay", "internet"):
        net.add_wire(wire)
    router = net.add_netns("router")
    for dev, wire, cidrs in (
        ("eth0", "underlay", ("192.168.1.1/24", "fd00:1::1/64")),
        ("eth1", "internet", ("203.0.113.1/24", "2001:db8:1::1/64")),
    ):
        _plug(net, "router", dev, wire, cidrs)
    _forward(net, "router")
    for block in ("198.51.100.0/24", "2001:db8:5::/64"):  # the load balancers' addresses: by node-1
        router.add_route(block, via="fd00:1::10" if ":" in block else "192.168.1.10", dev="eth0")
    outside = net.add_netns("outside")
    _plug(net, "outside", "eth0", "internet", ("203.0.113.10/24", "2001:db8:1::10/64"))
    for gateway in ("203.0.113.1", "2001:db8:1::1"):
        outside.add_route("::/0" if ":" in gateway else "default", via=gateway, dev="eth0")
    for name, (four, six, number) in DUAL_NODES.items():
        node = net.add_netns(name)
        _plug(net, name, "eth0", "underlay", (f"{four}/24", f"{six}/64"))
        _forward(net, name)
        node.add_route("default", via="192.168.1.1", dev="eth0")
        node.add_route("::/0", via="fd00:1::1", dev="eth0")
        node.add_link("cni0", "bridge", mac=mac_from(name, "cni0"), bridge=BridgeOptions())
        node.set_link("cni0", up=True)
        node.add_address("cni0", f"10.244.{number}.1/24")
        node.add_address("cni0", canonical(f"fd00:244:0:{number}::1") + "/64")
        for fam, block in ((4, DUAL_CIDRS[0][0]), (6, DUAL_CIDRS[0][1])):
            node.set_iptables(fam, load_iptables(MASQUERADE.format(block=block), fam))
        for other, (far4, far6, far) in DUAL_NODES.items():
            if other != name:
                node.add_route(f"10.244.{far}.0/24", via=far4, dev="eth0")
                node.add_route(canonical(f"fd00:244:0:{far}::") + "/64", via=far6, dev="eth0")
    for name, (node_name, _last) in DUAL_PODS.items():
        _dual_pod(net, name, node_name)
    _proxies(net, proxy)
    return written(net)


def _plug(net: Network, ns: str, dev: str, wire: str, cidrs: tuple[str, ...]) -> None:
    net.ns(ns).add_link(dev, "physical", mac=mac_from(ns, dev))
    net.plug(wire, ns, dev)
    net.ns(ns).set_link(dev, up=True)
    for cidr in cidrs:
        net.ns(ns).add_address(dev, cidr)


def _forward(net: Network, ns: str) -> None:
    net.ns(ns).set_sysctl("net.ipv4.ip_forward", 1)
    net.ns(ns).set_sysctl("net.ipv6.conf.all.forwarding", 1)
    for scope in ("all", "default"):
        net.ns(ns).set_sysctl(f"net.ipv4.conf.{scope}.send_redirects", 0)


def _dual_pod(net: Network, name: str, node: str) -> None:
    pod = net.add_netns(f"default/{name}", node)
    host_end = "veth" + mac_from(name)[-8:].replace(":", "")
    net.add_veth(node, host_end, pod.name, "eth0", mac_a=mac_from(name, "host"), mac_b=mac_from(name, "eth0"))
    net.ns(node).set_link(host_end, up=True, master="cni0", port=BridgePort(hairpin=True))
    pod.set_link("eth0", up=True)
    four, six = _pod_addresses(name)
    pod.add_address("eth0", f"{four}/24")
    pod.add_address("eth0", f"{six}/64")
    pod.add_route("default", via=four.rpartition(".")[0] + ".1", dev="eth0")
    pod.add_route("::/0", via=f"{six.rpartition('::')[0]}::1", dev="eth0")
    if not name.startswith("client"):
        pod.listen(Socket(TCP, "::", _PORTS["web"], "server"))
        pod.listen(Socket(UDP, "::", _PORTS["echo"], "server", handler=echo))
        pod.listen(Socket(SCTP_NUMBER, "::", _PORTS["sctp"], "server"))


def _proxies(net: Network, proxy: str) -> None:
    """One service proxy a node, told of all Services at once."""
    tracker = ServiceTracker()
    objects = load(dual_services())
    tracker.update(
        [one for one in objects if isinstance(one, Service)],
        [one for one in objects if isinstance(one, EndpointSlice)],
    )
    pods, blocks = DUAL_CIDRS
    config = KubeProxyConfig(cluster_cidrs=pods, service_cidrs=blocks)
    for name, (four, six, _number) in DUAL_NODES.items():
        space = net.ns(name)
        addresses = tuple(a.local for a in space.addrs() if a.scope != "link")
        PROXIES[proxy](ProxyNode(name, (four, six), (), ZONES[name], addresses), config).start(space, tracker)


OBJECTS, HAND = "objects", "by hand"
WORLDS = {OBJECTS: of_objects, HAND: by_hand}
"""World -> what builds it for a mode of `PROXIES`."""
