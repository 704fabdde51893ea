"""kube-proxy's IPVS mode over time: partial syncs, restarts, strangers, terminating servers, clean-up, the command."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from kubenet_lab.cli import app
from kubenet_lab.errors import InputError
from kubenet_lab.kernel.dialects import ipset, ipvsadm
from kubenet_lab.kernel.dialects.iptables import save
from kubenet_lab.kernel.ipvs import Conn, RealServer, VirtualServer
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.packet import ACK, RST, SYN, TCP
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode, duration_text
from kubenet_lab.proxy.ipvs import KubeProxyIpvs, cleanup, state_document
from kubenet_lab.proxy.render import node_space, rules_document
from tests.kubenet_lab.proxy.test_ipvs_oracle import comparable
from tests.oracles import cases, open_case

NODE = ProxyNode("node-1", ("192.168.1.10",), ("10.244.0.0/24",))
KEY = (TCP, "10.96.0.100", 80)
CONFIG = KubeProxyConfig(cluster_cidrs=("10.244.0.0/16",))


def service(name: str = "web", ip: str = "10.96.0.100", **spec: Any) -> dict[str, Any]:
    ports = [{"port": 80, "targetPort": 8080, "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "ports": ports, **spec},
    }


def slice_of(*addresses: str, name: str = "web") -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": [a], "conditions": {"ready": True}, "nodeName": "node-1"} for a in addresses
        ],
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
    }


def state(space: Netns) -> tuple[Any, ...]:
    """Everything kube-proxy has made, comparable."""
    return (state_document(space), *(save(space.iptables[f]) for f in (4, 6)))


def test_partial_syncs_lead_where_a_full_one_does() -> None:
    """Every step of a history ends like a start from nothing with the same objects."""
    history = [
        ([service()], [slice_of("10.244.0.5", "10.244.1.6")]),
        ([service(), service("api", "10.96.0.101", externalIPs=["198.51.100.7"])], [slice_of("10.244.0.5")]),
        ([service(), service("api", "10.96.0.101", type="NodePort")],
         [slice_of("10.244.0.5"), slice_of("10.244.0.9", name="api")]),
        ([service("api", "10.96.0.101", externalIPs=["198.51.100.7"])], [slice_of("10.244.0.9", name="api")]),
        ([service("api", "10.96.0.102", externalIPs=["198.51.100.7", "192.168.1.10"])], []),
        ([], []),
    ]  # fmt: skip
    proxy, space = KubeProxyIpvs(NODE, CONFIG), node_space(NODE)
    for services, slices in history:
        proxy.sync(space, services, slices)
        other = node_space(NODE)
        KubeProxyIpvs(NODE, CONFIG).sync(other, services, slices)
        assert state(space) == state(other)


def test_two_claims_on_one_address_and_port() -> None:
    """One has it; when that one goes, the other gets it."""
    one, other = (
        service(n, ip, externalIPs=["198.51.100.7"]) for n, ip in (("a", "10.96.0.1"), ("b", "10.96.0.2"))
    )
    slices = [slice_of("10.244.0.5", name="a"), slice_of("10.244.0.6", name="b")]
    proxy, space = KubeProxyIpvs(NODE, CONFIG), node_space(NODE)
    proxy.sync(space, [one, other], slices)
    shared = space.ipvs.reals[TCP, "198.51.100.7", 80]
    assert list(shared) == [("10.244.0.6", 8080)]
    proxy.sync(space, [one], slices)
    assert list(space.ipvs.reals[TCP, "198.51.100.7", 80]) == [("10.244.0.5", 8080)]


def test_a_real_server_ends_with_its_connections() -> None:
    proxy, space = KubeProxyIpvs(NODE, CONFIG), node_space(NODE)
    proxy.sync(space, [service()], [slice_of("10.244.0.5", "10.244.0.6")])
    conn = Conn(
        protocol=TCP, client=("10.244.0.9", 5000), virtual=KEY[1:], real=("10.244.0.6", 8080), service=KEY
    )
    table = space.ipvs
    table.advance(table.connect(conn, 0.0), SYN, 60, 0.0)
    table.advance(conn, ACK, 40, 0.0)
    proxy.sync(space, [service()], [slice_of("10.244.0.5")])
    assert proxy.terminating == ["10.96.0.100:80/TCP/10.244.0.6:8080"]
    assert table.real(KEY, ("10.244.0.6", 8080)).weight == 0
    assert proxy.end_terminating(space, 60.0) == 0
    table.advance(conn, RST, 40, 60.0)
    assert proxy.end_terminating(space, 65.0) == 0, "closed connections count until they expire"
    assert proxy.end_terminating(space, 120.0) == 1
    assert proxy.terminating == []
    assert ("10.244.0.6", 8080) not in table.reals[KEY]


def test_an_endpoint_that_comes_back_takes_its_place_again() -> None:
    proxy, space = KubeProxyIpvs(NODE, CONFIG), node_space(NODE)
    both = [slice_of("10.244.0.5", "10.244.0.6")]
    proxy.sync(space, [service()], both)
    space.ipvs.counts[KEY, ("10.244.0.6", 8080)] = [1, 0, 0]
    proxy.sync(space, [service()], [slice_of("10.244.0.5")])
    assert proxy.terminating
    proxy.sync(space, [service()], both)
    assert (proxy.terminating, space.ipvs.real(KEY, ("10.244.0.6", 8080)).weight) == ([], 1)


def test_a_restarted_one_finds_what_was_there() -> None:
    """It deletes strangers, but not those in --ipvs-exclude-cidrs, and gives its own their weight back."""
    space = node_space(NODE)
    KubeProxyIpvs(NODE, CONFIG).sync(space, [service()], [slice_of("10.244.0.5")])
    wanted = state(space)
    space.ipvs.edit_server(KEY, RealServer("10.244.0.5", 8080, 0))
    for address in ("10.96.9.9", "172.31.0.9", "fd00::9"):
        space.ipvs.add_service(VirtualServer(TCP, address, 80))
    config = KubeProxyConfig(cluster_cidrs=("10.244.0.0/16",), ipvs_exclude_cidrs=("172.31.0.0/16",))
    KubeProxyIpvs(NODE, config).sync(space, [service()], [slice_of("10.244.0.5")])
    assert [key[1] for key in space.ipvs.services] == ["10.96.0.100", "172.31.0.9"]
    space.ipvs.delete_service((TCP, "172.31.0.9", 80))
    assert state(space) == wanted


def test_a_full_sync_mends_what_others_broke() -> None:
    proxy, space = KubeProxyIpvs(NODE, CONFIG), node_space(NODE)
    objects = [service()], [slice_of("10.244.0.5")]
    proxy.sync(space, *objects)
    wanted = state(space)
    space.ipvs.clear()
    space.bind_hosts("kube-ipvs0", remove=["10.96.0.100"])
    space.ipsets = ipset.load("create KUBE-CLUSTER-IP hash:ip,port\n")
    proxy.sync(space, *objects, full=True)
    assert state(space) == wanted


def test_a_new_address_of_the_node_serves_node_ports() -> None:
    proxy, space = KubeProxyIpvs(NODE, CONFIG), node_space(NODE)
    port = {"port": 80, "targetPort": 8080, "protocol": "TCP", "nodePort": 31000}
    objects = [service(type="NodePort", ports=[port])], [slice_of("10.244.0.5")]
    proxy.sync(space, *objects)
    space.add_address("eth0", "192.168.7.10/24")
    proxy.sync(space, *objects)
    served = {key[1] for key in space.ipvs.services if key[2] == 31000}
    assert served == {"192.168.1.10", "192.168.7.10"}


def test_cleanup_leaves_nothing() -> None:
    space = node_space(NODE)
    before = (save(space.iptables[4]), dict(space.links), dict(space.ipsets))
    KubeProxyIpvs(NODE, CONFIG).sync(space, [service()], [slice_of("10.244.0.5")])
    cleanup(space)
    assert (space.links, space.ipsets) == before[1:]
    assert not space.ipvs
    assert "KUBE" not in save(space.iptables[4])


def test_flags() -> None:
    config = KubeProxyConfig.from_flags(
        ["--ipvs-scheduler=mh", "--ipvs-udp-timeout=1h30m", "--ipvs-sync-period=30s", "--ipvs-tcp-timeout=0"]
    )
    assert config.ipvs_scheduler == "mh"
    assert [*map(duration_text, config.ipvs_timeouts)] == ["0s", "0s", "1h30m0s"]
    for flag in ("--ipvs-scheduler=best", "--ipvs-udp-timeout=5", "--ipvs-strict-arp=maybe"):
        with pytest.raises(InputError):
            KubeProxyConfig.from_flags([flag])
    space = node_space(NODE)
    KubeProxyIpvs(NODE, config).sync(space, [service()], [slice_of("10.244.0.5")])
    assert "-A -t 10.96.0.100:80 -s mh -b mh-port\n" in ipvsadm.save(space.ipvs)


def objects_of(recorded: dict[str, Any]) -> list[dict[str, Any]]:
    return [*(recorded["services"] or []), *(recorded["endpointSlices"] or [])]


@pytest.mark.parametrize(
    "name", [*[n for n in cases("kube-proxy-ipvs") if n != "jumps"][::7], "ipvs-graceful-all"]
)
def test_the_document_is_a_recorded_case(name: str) -> None:
    """`kubenet-lab rules -o json`: the nodes are the lab's where the objects name none."""
    case = open_case("kube-proxy-ipvs", name)
    for recorded, before in [(case, None), *([(case["after"], objects_of(case))] if "after" in case else [])]:
        made = rules_document(
            objects_of(recorded), case["node"], case["flags"], ("ipvs",), before,
            active=case.get("activeConnections", 0),
        )["ipvs"]  # fmt: skip
        for member in (
            "virtualServers",
            "ipsets",
            "kubeIpvs0",
            "healthCheckNodePorts",
            "terminatingRealServers",
        ):
            assert made.get(member) == recorded.get(member), member
        assert {f: comparable(text) for f, text in made["iptables"].items()} == recorded["iptables"]
        assert (made["sysctls"], made.get("ipvsTimeouts")) == (case["sysctls"], case.get("ipvsTimeouts"))


def test_the_command(tmp_path: Any) -> None:
    """Text has a part for each tool; what `saved` prints of virtual servers and sets reads back."""
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    first.write_text(
        json.dumps(
            {"apiVersion": "v1", "kind": "List", "items": [service(), slice_of("10.244.0.5", "10.244.1.6")]}
        )
    )
    second.write_text(
        json.dumps({"apiVersion": "v1", "kind": "List", "items": [service(), slice_of("10.244.0.5")]})
    )

    def run(*argv: str) -> str:
        done = CliRunner().invoke(app, ["rules", "--node", "node-1", *argv])
        assert done.exit_code == 0, done.output
        return done.stdout

    saved = run("-f", str(first), "--mode", "ipvs", "--as", "saved")
    parts = dict(
        zip(
            ["head", *(line for line in saved.splitlines() if line.startswith("# "))],
            _split(saved),
            strict=True,
        )
    )
    assert list(parts) == ["head", "# ipvsadm -Sn", "# ipset save", "# iptables-save"]
    assert len(ipvsadm.load(parts["# ipvsadm -Sn"]).reals[KEY]) == 2
    assert "KUBE-CLUSTER-IP" in ipset.load(parts["# ipset save"])
    changed = run("-f", str(second), "--changed-from", str(first), "--mode", "ipvs")
    forgotten = "# ipset restore\ndel KUBE-LOOP-BACK 10.244.1.6,tcp:8080,10.244.1.6\n# ipvsadm -R\n"
    assert changed.startswith(f"{forgotten}-d -t 10.96.0.100:80 -r 10.244.1.6:8080\n# iptables-restore")
    kept = run("-f", str(second), "--changed-from", str(first), "--mode", "ipvs", "--active-connections", "1")
    assert kept.startswith(f"{forgotten}-e -t 10.96.0.100:80 -r 10.244.1.6:8080 -m -w 0\n")
    both = run("-f", str(first), "--mode", "iptables,nftables,ipvs", "--family", "ipv6")
    assert [line for line in both.splitlines() if line in ("# iptables", "# nftables", "# ipvs")] == [
        "# iptables", "# nftables", "# ipvs",
    ]  # fmt: skip
    assert "KUBE-6-CLUSTER-IP" in both
    assert "10.96.0.100" not in both


def _split(text: str) -> list[str]:
    parts = [""]
    for line in text.splitlines(keepends=True):
        if line.startswith("# "):
            parts.append("")
        else:
            parts[-1] += line
    return parts
