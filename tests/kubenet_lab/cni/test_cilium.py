"""Cilium as a pod network: its plugin, its devices and maps, policies on the way of packets, the proxy, the tunnels."""

from __future__ import annotations

import json
from functools import partial

import pytest
from msgspec.structs import replace

from kubenet_lab.cluster import CNIS, PROXIES, Cluster
from kubenet_lab.cni.cilium.ciliumpolicy import allows, not_modelled
from kubenet_lab.cni.cilium.network import Cilium, CiliumOptions
from kubenet_lab.cni.cilium.plugin import IPAM, SOCKET
from kubenet_lab.cni.cilium.rules import HttpRule
from kubenet_lab.cni.plugin import CniError
from kubenet_lab.cni.runtime import Runtime, node_network
from kubenet_lab.errors import InputError
from kubenet_lab.kernel.bpf import BpfState, Datapath
from kubenet_lab.kernel.dialects import cilium, ip_link, ip_route
from kubenet_lab.objects import from_manifest
from kubenet_lab.packet.http import Request
from kubenet_lab.packet.packet import SYN, TCP, UDP, Packet
from kubenet_lab.proxy.ebpf import EbpfOptions, ProxyEbpf
from kubenet_lab.scenarios.shop import MANIFEST
from kubenet_lab.trip import Trip
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import exchange
from kubenet_lab.walk.http import get

BACKENDS_ONLY_FROM_FRONTEND = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: backend}
spec:
  podSelector: {matchLabels: {app: backend}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: frontend}}}]
    ports: [{port: 8080}]
"""
NODE_PORTS = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: echo}
  ports:
  - {name: web, port: 80, targetPort: 8080, nodePort: 30080}
  - {name: echo, port: 7, protocol: UDP, nodePort: 30007}
---
apiVersion: v1
kind: Pod
metadata: {name: echo-1, labels: {app: echo}}
spec:
  nodeName: node-1
  containers: [{name: e, image: echo, ports: [{containerPort: 7, protocol: UDP}, {containerPort: 8080}]}]
"""
L7 = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: only-public, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: backend}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: frontend}}]
    toPorts:
    - ports: [{port: "8080", protocol: TCP}]
      rules: {http: [{method: GET, path: "/public/.*"}]}
"""


def shop(proxy: str = "ebpf", *more: str) -> Cluster:
    return Cluster.from_files(MANIFEST, *more, cni="cilium", proxy=proxy)


def state(cluster: Cluster, node: str) -> BpfState:
    found = cluster.network.ns(node).bpf
    assert found is not None
    return found.look()


def text(trip: Trip) -> str:
    return trip.text()


def backend_on(cluster: Cluster, node: str) -> str:
    pods = [
        p for p in cluster.store.list("Pod", "default") if p.spec.node_name == node and "backend" in p.name
    ]
    return str(pods[0].ips[0])


# -- the plugin -------------------------------------------------------------------------------------------------------


def test_what_a_pod_gets() -> None:
    cluster = shop()
    pod = cluster.network.ns(cluster.namespace_of("frontend"))
    assert (
        ip_route.show(pod) == "default via 10.244.0.1 dev eth0 mtu 1450 \n10.244.0.1 dev eth0 scope link \n"
    )
    assert [f"{a.local}/{a.length}" for a in pod.addrs("eth0", 4)] == ["10.244.0.2/32"]
    peer = pod.links["eth0"].peer
    assert peer is not None
    assert peer.link.startswith("lxc")
    assert len(peer.link) == 15


def test_the_host_s_devices_and_routes() -> None:
    cluster = shop()
    node = cluster.network.ns("node-2")
    assert node.links["cilium_host"].noarp
    assert node.links["cilium_vxlan"].vxlan is not None
    assert node.links["cilium_vxlan"].vxlan.external
    shown = ip_link.show(node, details_=True)
    # As `ip link add cilium_vxlan type vxlan external dstport 8472` shows it on Linux.
    assert "    vxlan external id 0 srcport 0 0 dstport 8472 nolearning ttl auto ageing 300 udpcsum" in shown
    routes = ip_route.show(node).splitlines()
    assert "10.244.1.0/24 via 10.244.1.1 dev cilium_host proto kernel src 10.244.1.1 " in routes
    assert "10.244.0.0/24 via 10.244.1.1 dev cilium_host proto kernel src 10.244.1.1 mtu 1450 " in routes


def test_without_an_agent_the_plugin_says_so() -> None:
    cluster = shop()
    runtime = Runtime(cluster.network, "node-1")
    node = runtime.node
    del node.files[SOCKET]
    path = runtime.make_sandbox("default/late", "late-1")
    with pytest.raises(CniError, match="Is the agent running"):
        runtime.add(node_network(node), "late-1", path)
    conf = replace(node_network(node), version="1.1.0")
    with pytest.raises(CniError, match="DaemonDown; unable to connect to Cilium agent") as said:
        runtime.status(conf)
    assert said.value.code == 50


def test_a_full_pool_and_an_address_given_back() -> None:
    cluster = shop()
    runtime = Runtime(cluster.network, "node-1")
    node, conf = runtime.node, node_network(runtime.node)
    memory = json.loads(node.files[IPAM])
    memory["allocated"] |= {f"10.244.0.{n}": "somebody" for n in range(2, 254)}
    node.files[IPAM] = json.dumps(memory)
    path = runtime.make_sandbox("default/last", "last")
    result = runtime.add(conf, "last", path)
    assert result.ips[0].address == "10.244.0.254/32"
    other = runtime.make_sandbox("default/late", "late")
    with pytest.raises(CniError, match="range is full"):
        runtime.add(conf, "late", other)
    runtime.delete(conf, "last", path)
    runtime.delete(conf, "last", path)
    assert "10.244.0.254" not in json.loads(node.files[IPAM])["allocated"]
    assert runtime.add(conf, "late", other).ips[0].address == "10.244.0.254/32"


def test_nodes_come_and_go() -> None:
    cluster = shop()
    cluster.apply(
        "apiVersion: v1\nkind: Node\nmetadata: {name: node-4}\n"
        "status: {addresses: [{type: InternalIP, address: 192.168.1.40}]}\n"
    )
    assert "10.244.3.0/24 via 10.244.0.1" in ip_route.show(cluster.network.ns("node-1"))
    assert "192.168.1.40" in cilium.ipcache_list(state(cluster, "node-1"))
    cluster.delete("Node", "node-4")
    assert "10.244.3.0/24" not in ip_route.show(cluster.network.ns("node-1"))
    assert "192.168.1.40" not in cilium.ipcache_list(state(cluster, "node-1"))


# -- maps -------------------------------------------------------------------------------------------------------------


def test_one_identity_a_set_of_labels() -> None:
    cluster = shop()
    seen = state(cluster, "node-1")
    lines = cilium.identity_list(seen)
    assert "k8s:app=backend" in lines
    assert "k8s:io.kubernetes.pod.namespace=default" in lines
    assert "pod-template-hash" not in lines
    numbers = {seen.identity(backend_on(cluster, f"node-{n}")) for n in (1, 2, 3)}
    assert len(numbers) == 1
    assert numbers != {seen.identity("10.244.0.2")}
    assert [seen.identity(ip) for ip in ("192.168.1.10", "192.168.1.20", "192.168.1.1", "198.51.100.1")] == [
        1,
        6,
        7,
        2,
    ]


def test_remote_pods_stand_behind_their_node() -> None:
    cluster = shop()
    remote = backend_on(cluster, "node-2")
    line = next(
        x for x in cilium.ipcache_list(state(cluster, "node-1")).splitlines() if x.startswith(f"{remote}/32")
    )
    assert "tunnelendpoint=192.168.1.20" in line


def test_a_policy_becomes_entries_of_its_pods_maps() -> None:
    cluster = shop("ebpf", BACKENDS_ONLY_FROM_FRONTEND)
    seen = state(cluster, "node-1")
    number = seen.endpoints[backend_on(cluster, "node-1")].id
    rows = cilium.policy_get(seen, number).splitlines()
    heads = "POLICY DIRECTION LABELS (source:key[=value]) PORT/PROTO PROXY PORT AUTH TYPE PREFIX"
    assert rows[0].split() == heads.split()
    told = [row.split() for row in rows[1:] if row.startswith(("Allow", "Deny"))]
    assert ["Allow", "Ingress", "reserved:host", "ANY", "NONE", "disabled", "0"] in told
    assert any(row[1] == "Ingress" and row[3] == "8080/TCP" and row[-1] == "24" for row in told)
    assert ["Allow", "Egress", "ANY", "ANY", "NONE", "disabled", "0"] in told


# -- policies on the way ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("proxy", ["ebpf", "iptables"])
def test_who_may_and_who_may_not(proxy: str) -> None:
    cluster = shop(proxy, BACKENDS_ONLY_FROM_FRONTEND)
    for node in ("node-1", "node-2"):
        there = f"http://{backend_on(cluster, node)}:8080"
        assert cluster.connect("frontend", there).delivered
        refused = cluster.connect("database", there)
        assert (refused.verdict, refused.reason) == ("timed out", "bpf-policy")
        assert str(refused.decided_by).startswith("cilium_policy_v2_")
        assert refused.place.netns == node
        # The node itself reaches its pods; other nodes are not let in.
        assert cluster.connect(f"node/{node}", there).delivered
        assert not cluster.connect("node/node-3", there).delivered
    assert not cluster.connect("frontend", f"http://{backend_on(cluster, 'node-1')}:81").delivered
    assert cluster.connect("frontend", "http://backend").delivered


def test_answers_pass_and_a_new_policy_is_followed() -> None:
    """Egress of the frontend is closed but for the backends: their answers come in by the connection's entry."""
    cluster = shop()
    assert cluster.connect("frontend", "tcp://10.96.0.200:5432").delivered
    cluster.apply(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: out}\n"
        "spec: {podSelector: {matchLabels: {app: frontend}}, policyTypes: [Ingress, Egress], "
        "egress: [{to: [{podSelector: {matchLabels: {app: backend}}}]}]}\n"
    )
    assert cluster.connect("frontend", "http://10.96.0.100").delivered
    stopped = cluster.connect("frontend", "tcp://10.96.0.200:5432")
    assert stopped.reason == "bpf-policy"
    assert "egress" in text(stopped)
    cluster.delete("NetworkPolicy", "out")
    assert cluster.connect("frontend", "tcp://10.96.0.200:5432").delivered


def test_a_block_means_the_world_and_no_pods() -> None:
    cluster = shop(
        "ebpf",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: out}\n"
        "spec: {podSelector: {matchLabels: {app: frontend}}, policyTypes: [Egress], "
        "egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [203.0.113.0/25]}}]}]}\n",
    )
    assert cluster.connect("frontend", "http://203.0.113.10").reason == "bpf-policy"
    assert cluster.connect("frontend", f"http://{backend_on(cluster, 'node-1')}:8080").reason == "bpf-policy"
    seen = state(cluster, "node-1")
    assert seen.identity("203.0.113.10") == 16777217


def test_the_sender_s_identity_travels_in_the_tunnel() -> None:
    cluster = shop()
    trip = cluster.connect("frontend", f"http://{backend_on(cluster, 'node-2')}:8080")
    identity = state(cluster, "node-1").identity("10.244.0.2")
    assert f"VXLAN {identity} [" in text(trip)
    assert "cil_from_overlay" in text(trip)


# -- L7 ---------------------------------------------------------------------------------------------------------------


def test_the_proxy_judges_each_request() -> None:
    cluster = shop("ebpf", L7)
    source = cluster.namespace_of("frontend")
    for node in ("node-1", "node-2"):
        there = backend_on(cluster, node)
        told = {
            (method, path): get(cluster.walk(), source, there, 8080, path, method=method)
            for method, path in (("GET", "/public/a"), ("GET", "/private"), ("POST", "/public/a"))
        }
        assert all(one.exchange.ok for one in told.values())
        assert [one.status for one in told.values()] == [0, 403, 403]
    assert told["GET", "/private"].response is not None
    assert told["GET", "/private"].response.body == "Access denied\r\n"
    assert not get(cluster.walk(), cluster.namespace_of("database"), there, 8080, "/public/a").exchange.ok
    through = get(cluster.walk(), source, "10.96.0.100", 80, "/private")
    assert through.status == 403
    assert "redirect to the proxy's port 10000" in cluster.connect("frontend", f"http://{there}:8080").text()


def test_what_the_proxy_compares() -> None:
    rule = HttpRule("GET", "/v[12]/.*", "shop\\.example", ("X-Token: secret", "x-id"))
    fields = {"host": "shop.example:80", "x-token": "secret", "x-id": "7"}
    assert allows(rule, Request("GET", "/v1/a", fields))
    for request in (
        Request("PUT", "/v1/a", fields),
        Request("GET", "/v3/a", fields),
        Request("GET", "/v1/a", fields | {"host": "other"}),
        Request("GET", "/v1/a", fields | {"x-token": "other"}),
        Request("GET", "/v1/a", {name: value for name, value in fields.items() if name != "x-id"}),
    ):
        assert not allows(rule, request)
    assert allows(HttpRule(), Request())


def test_entities_denials_and_what_is_not_read() -> None:
    cluster = shop(
        "ebpf",
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: default}\n"
        "spec:\n  endpointSelector: {matchLabels: {app: frontend}}\n"
        "  egress: [{toEntities: [world, cluster]}]\n"
        "  egressDeny: [{toPorts: [{ports: [{port: '5432', protocol: TCP}]}]}]\n",
    )
    assert cluster.connect("frontend", "http://203.0.113.10").delivered
    assert cluster.connect("frontend", "http://backend").delivered
    denied = cluster.connect("frontend", "tcp://10.96.0.200:5432")
    assert denied.reason == "bpf-policy"
    assert "denylist" in text(denied)
    made = from_manifest(
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "x", "namespace": "default"},
            "spec": {
                "endpointSelector": {},
                "egress": [{"toFQDNs": [{"matchName": "a.example"}]}, {"toPorts": [{"rules": {"dns": []}}]}],
            },
        }
    )
    assert not_modelled(made) == ["toFQDNs", "rules.dns"]  # type: ignore[arg-type]


def test_a_denial_of_nobody_else_closes_nothing_when_told_so() -> None:
    cluster = shop(
        "ebpf",
        "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: p, namespace: default}\n"
        "spec:\n  endpointSelector: {matchLabels: {app: backend}}\n  enableDefaultDeny: {ingress: false}\n"
        "  ingressDeny: [{fromEndpoints: [{matchLabels: {app: database}}]}]\n",
    )
    there = f"http://{backend_on(cluster, 'node-2')}:8080"
    assert cluster.connect("frontend", there).delivered
    assert cluster.connect("database", there).reason == "bpf-policy"


# -- other settings ---------------------------------------------------------------------------------------------------


def test_geneve_and_native_routing() -> None:
    CNIS["cilium-geneve"] = lambda world: Cilium(world, CiliumOptions(tunnel="geneve"))
    try:
        cluster = Cluster.from_files(MANIFEST, cni="cilium-geneve", proxy="ebpf")
    finally:
        del CNIS["cilium-geneve"]
    trip = cluster.connect("frontend", f"http://{backend_on(cluster, 'node-2')}:8080")
    assert trip.delivered
    outer = next(s.after for _, _, s in trip.steps() if s.kind == "encapsulate")
    assert outer is not None
    assert outer.dport == 6081
    node = cluster.network.ns("node-1")
    shown = ip_link.show(node, details_=True)
    assert "    geneve external id 0 ttl auto dstport 6081 udp6zerocsumrx " in shown
    for form in (shown, ip_link.show(node, details_=True, json=True)):
        back = next(link for link in ip_link.parse(form) if link.name == "cilium_geneve")
        assert (back.kind, back.vxlan) == ("geneve", node.links["cilium_geneve"].vxlan)
    native = Cluster.from_files(MANIFEST, cni="cilium-native", proxy="ebpf")
    assert "10.244.1.0/24 via 192.168.1.20 dev eth0" in ip_route.show(native.network.ns("node-1"))
    trip = native.connect("frontend", f"http://{backend_on(native, 'node-2')}:8080")
    assert trip.delivered
    assert all(step.kind not in ("encapsulate", "rule", "conntrack") for _, _, step in trip.steps())


def dsr_by_geneve(masquerade: str, mode: str) -> Cluster:
    CNIS["cilium-geneve"] = lambda world: Cilium(world, CiliumOptions(tunnel="geneve", masquerade=masquerade))
    PROXIES["ebpf-dsr"] = partial(ProxyEbpf, options=EbpfOptions(mode=mode, dispatch="geneve"))
    try:
        return Cluster.from_files(MANIFEST, NODE_PORTS, cni="cilium-geneve", proxy="ebpf-dsr")
    finally:
        del CNIS["cilium-geneve"], PROXIES["ebpf-dsr"]


@pytest.mark.parametrize("masquerade", ["bpf", "iptables"])
@pytest.mark.parametrize("mode", ["dsr", "hybrid"])
def test_dsr_through_the_tunnel(mode: str, masquerade: str) -> None:
    cluster = dsr_by_geneve(masquerade, mode)
    for proto, port in ((TCP, 30080), (UDP, 30007)):
        call = Packet("", "192.168.1.30", proto, 0, port, flags=SYN if proto == TCP else 0)
        met = exchange(Walk(cluster.network, seed=1), "outside", call)
        way = met.traces[0].text()
        by_dsr = mode == "dsr" or proto == TCP
        assert met.answer is not None, way
        assert (met.answer.src, met.answer.sport) == ("192.168.1.30", port)
        assert met.source_seen == ("203.0.113.10" if by_dsr else "10.244.2.1")
        assert (f"Geneve 2 option DSR 192.168.1.30:{port} [" in way) == by_dsr
        # https://github.com/cilium/cilium/issues/32189
        assert ("up the host's stack" in way) == (by_dsr and masquerade == "iptables")
        reply = next(trace for trace in met.traces if trace.role == "reply")
        assert ("node-3" in {hop.netns for hop in reply.hops}) != by_dsr


@pytest.mark.parametrize(
    ("tunnel", "mode", "dispatch", "why"),
    [
        ("vxlan", "dsr", "opt", 'Node Port "dsr" mode cannot be used with vxlan tunneling.'),
        ("vxlan", "hybrid", "geneve", 'Node Port "hybrid" mode cannot be used with vxlan tunneling.'),
        (
            "geneve",
            "dsr",
            "opt",
            'Node Port "dsr" mode with opt dispatch cannot be used with geneve tunneling.',
        ),
        ("", "dsr", "ipip", "only supported for --datapath-mode=lb-only"),
        ("", "dsr", "geneve", "native routing is not modelled"),
        ("", "dsr", "opt", ""),
        ("vxlan", "snat", "opt", ""),
        ("geneve", "hybrid", "geneve", ""),
    ],
)
def test_which_modes_fit_which_tunnel(tunnel: str, mode: str, dispatch: str, why: str) -> None:
    assert why in Datapath(mode=mode, dispatch=dispatch, tunnel=tunnel).unfit
    assert bool(why) == bool(Datapath(mode=mode, dispatch=dispatch, tunnel=tunnel).unfit)


def test_an_agent_with_settings_that_do_not_fit_does_not_start() -> None:
    PROXIES["ebpf-dsr"] = partial(ProxyEbpf, options=EbpfOptions(mode="dsr"))
    try:
        with pytest.raises(InputError, match="vxlan tunneling"):
            Cluster.from_files(MANIFEST, cni="cilium", proxy="ebpf-dsr")
    finally:
        del PROXIES["ebpf-dsr"]


def test_masquerading_in_bpf_comes_back() -> None:
    native = Cluster.from_files(MANIFEST, cni="cilium-native", proxy="ebpf")
    for target in ("http://203.0.113.10", "203.0.113.10"):
        trip = native.connect("frontend", target) if "http" in target else native.ping("frontend", target)
        assert trip.delivered, text(trip)
        assert trip.source_seen == "192.168.1.10"
    seen = native.network.ns("node-1").bpf
    assert seen is not None
    assert "XLATE_SRC 192.168.1.10" in cilium.nat_list(seen)


def test_a_pod_that_lies_about_its_address() -> None:
    cluster = shop()
    pod = cluster.network.ns(cluster.namespace_of("frontend"))
    pod.add_address("eth0", "10.244.0.99/32")
    lie = Packet("10.244.0.99", backend_on(cluster, "node-1"), TCP, 0, 8080, flags=SYN)
    assert cluster.walk().send(pod.name, lie).reason == "bpf-source"


def test_one_call_back_in_time() -> None:
    """A world that is set back has its maps set back: a cluster's transaction that fails leaves no trace."""
    cluster = shop()
    before = cilium.ipcache_list(state(cluster, "node-1"))
    with pytest.raises(RuntimeError):
        _fail_half_way(cluster)
    assert cilium.ipcache_list(state(cluster, "node-1")) == before
    assert cluster.connect("database", f"http://{backend_on(cluster, 'node-2')}:8080").delivered


def _fail_half_way(cluster: Cluster) -> None:
    with cluster.transaction():
        cluster.apply(BACKENDS_ONLY_FROM_FRONTEND)
        cluster.delete("Pod", cluster.pod("database").name)
        raise RuntimeError
