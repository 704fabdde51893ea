"""What plugins say of configurations with values of the wrong kind: as Debian's executables say it (tests/twin)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubenet_lab.cni.fields import decoded
from kubenet_lab.cni.plugin import CniError
from kubenet_lab.cni.runtime import NetworkConf, Runtime, parse
from kubenet_lab.control.machine import build_node
from kubenet_lab.kernel.network import Network

Json = dict[str, Any]
IPAM: Json = {
    "type": "host-local",
    "dataDir": "/run/cni/networks",
    "ranges": [[{"subnet": "10.22.0.0/24"}]],
}


def bridge(**more: Any) -> Json:
    return {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipam": IPAM, **more}


def ipam(**more: Any) -> Json:
    return bridge(ipam={**IPAM, **more})


def of(kind: str, **more: Any) -> Json:
    return {"type": kind, **more}


NETCONF = "failed to load netconf: json: cannot unmarshal "
PORTMAP = "failed to parse config: failed to parse network configuration: json: cannot unmarshal "
NOT_RATES = "failed to parse network configuration: json: cannot unmarshal "
CANNOT = "json: cannot unmarshal "
MAC = 'struct { Mac string "json:\\"mac,omitempty\\"" }'

ROWS: list[tuple[Json, str]] = [
    (bridge(mtu="1500"), f"{NETCONF}string into Go struct field NetConf.mtu of type int"),
    (bridge(mtu=1.5), f"{NETCONF}number 1.5 into Go struct field NetConf.mtu of type int"),
    (bridge(mtu=1e30), f"{NETCONF}number 1e+30 into Go struct field NetConf.mtu of type int"),
    (bridge(mtu=[1]), f"{NETCONF}array into Go struct field NetConf.mtu of type int"),
    (bridge(mtu=True), f"{NETCONF}bool into Go struct field NetConf.mtu of type int"),
    (bridge(mtu="x", bridge=5), f"{NETCONF}number into Go struct field NetConf.bridge of type string"),
    (bridge(isGateway="true"), f"{NETCONF}string into Go struct field NetConf.isGateway of type bool"),
    (bridge(ipam="host-local"), f"{NETCONF}string into Go struct field NetConf.ipam of type types.IPAM"),
    (bridge(ipam={"type": 5}), f"{NETCONF}number into Go struct field IPAM.ipam.type of type string"),
    (bridge(dns=[]), f"{NETCONF}array into Go struct field NetConf.dns of type types.DNS"),
    (
        bridge(dns={"nameservers": "1.1.1.1"}),
        f"{NETCONF}string into Go struct field DNS.dns.nameservers of type []string",
    ),
    (
        bridge(args={"cni": 5}),
        f"{NETCONF}number into Go struct field .args.cni of type main.BridgeArgs",
    ),
    (bridge(runtimeConfig=5), f"{NETCONF}number into Go struct field NetConf.runtimeConfig of type {MAC}"),
    (ipam(ranges=5), f"{CANNOT}number into Go struct field IPAMConfig.ipam.ranges of type []allocator.RangeSet"),
    (
        ipam(ranges=[{"subnet": "10.22.0.0/24"}]),
        f"{CANNOT}object into Go struct field IPAMConfig.ipam.ranges of type allocator.RangeSet",
    ),
    (ipam(ranges=[[5]]), f"{CANNOT}number into Go struct field IPAMConfig.ipam.ranges of type allocator.Range"),
    (
        ipam(ranges=[[{"subnet": 5}]]),
        f"{CANNOT}number into Go struct field Range.ipam.ranges.subnet of type string",
    ),
    (
        ipam(ranges=[[{"subnet": "10.22.0.0/24", "gateway": 5}]]),
        f"{CANNOT}number into Go struct field Range.ipam.ranges.gateway of type net.IP",
    ),
    (ipam(ranges=[[{"subnet": "10.22.0.0/24", "rangeStart": "x"}]]), "invalid IP address: x"),
    (ipam(routes=5), f"{CANNOT}number into Go struct field IPAMConfig.ipam.routes of type []*types.Route"),
    (ipam(routes=["x"]), f"{CANNOT}string into Go struct field IPAMConfig.ipam.routes of type types.route"),
    (ipam(routes=[{"dst": 5}]), f"{CANNOT}number into Go struct field IPAMConfig.ipam.routes of type string"),
    (ipam(routes=[{"dst": "10.1.1.1"}]), "invalid CIDR address: 10.1.1.1"),
    (ipam(routes=[{}]), "invalid CIDR address: <nil>"),
    (ipam(routes=[{"dst": "0.0.0.0/0", "gw": "x"}]), "invalid IP address: x"),
    (ipam(resolvConf="/nope"), "open /nope: no such file or directory"),
    (
        bridge(runtimeConfig={"ips": [5]}),
        f"{CANNOT}number into Go struct field .runtimeConfig.ips of type *ip.IP",
    ),
    (
        bridge(ipam={"type": "static", "addresses": [{"address": 5}]}),
        f"{CANNOT}number into Go struct field Address.ipam.addresses.address of type string",
    ),
    (of("macvlan", master=5), f"{NETCONF}number into Go struct field NetConf.master of type string"),
    (of("portmap", snat="yes"), f"{PORTMAP}string into Go struct field PortMapConf.snat of type bool"),
    (
        of("portmap", runtimeConfig={"portMappings": [{"hostPort": "80"}]}),
        f"{PORTMAP}string into Go struct field PortMapEntry.runtimeConfig.portMappings.hostPort of type int",
    ),
    (
        of("tuning", sysctl={"net.ipv4.ip_forward": 1}),
        f"{NETCONF}number into Go struct field TuningConf.sysctl of type string",
    ),
    (
        of("bandwidth", ingressRate=-5, ingressBurst=5),
        f"{NOT_RATES}number -5 into Go struct field PluginConf.ingressRate of type uint64",
    ),
    (of("firewall", backend=5), f"{NETCONF}number into Go struct field FirewallNetConf.backend of type string"),
    (of("vrf", table="x"), f"{NETCONF}string into Go struct field VRFNetConf.table of type uint32"),
    (
        of("loopback", prevResult=5),
        "failed to parse network config: json: cannot unmarshal number into Go struct field NetConf.prevResult "
        "of type map[string]interface {}",
    ),
]  # fmt: skip
"""A plugin's configuration, and what it says on ADD."""

PLUGIN_CONF = "error parsing configuration: json: cannot unmarshal "
LISTED: list[tuple[Json, str]] = [
    (bridge(ipam="host-local"), "string into Go struct field PluginConf.ipam of type types.IPAM"),
    (bridge(dns=[]), "array into Go struct field PluginConf.dns of type types.DNS"),
    (bridge(capabilities=["x"]), "array into Go struct field PluginConf.capabilities of type map[string]bool"),
    (bridge(capabilities={"x": 1}), "number into Go struct field PluginConf.capabilities of type bool"),
    (bridge(cniVersion=1), "number into Go struct field PluginConf.cniVersion of type string"),
]  # fmt: skip
"""What the runtime's library refuses before a plugin is executed."""


def machine() -> Network:
    network = Network()
    build_node(network, "node-1")
    network.add_netns("c1", "node-1")
    network.ns("node-1").files["/run/netns/c1"] = "c1"
    return network


@pytest.mark.parametrize(("body", "said"), ROWS, ids=[said for _body, said in ROWS])
def test_a_value_of_the_wrong_kind_is_named(body: Json, said: str) -> None:
    network = machine()
    runtime = Runtime(network, "node-1")
    conf = NetworkConf("net1", "1.0.0", (body,))
    with pytest.raises(CniError) as fault:
        runtime.add(conf, "c1", "/run/netns/c1")
    cause = fault.value.__cause__
    assert isinstance(cause, CniError)
    assert cause.to_json() == {"code": 999, "msg": said}
    assert not [path for path in network.ns("node-1").files if "/networks/net1/10." in path]


@pytest.mark.parametrize(("body", "said"), LISTED, ids=[said for _body, said in LISTED])
def test_what_no_runtime_takes_is_refused_in_the_list(body: Json, said: str) -> None:
    text = json.dumps({"cniVersion": "1.0.0", "name": "net1", "plugins": [body]})
    with pytest.raises(CniError) as fault:
        parse(text)
    assert fault.value.msg == f"failed to parse plugin config 0: {PLUGIN_CONF}{said}"


@pytest.mark.parametrize("more", [{"mtu": None}, {"vlan": None, "hairpinMode": None}, {"dns": None}])
def test_null_is_as_if_the_key_were_not_there(more: Json) -> None:
    plain, null = machine(), machine()
    for network, extra in ((plain, {}), (null, more)):
        Runtime(network, "node-1").add(
            NetworkConf("net1", "1.0.0", (bridge(**extra),)), "c1", "/run/netns/c1"
        )
    assert plain.ns("c1").route_list() == null.ns("c1").route_list()
    assert list(plain.ns("node-1").links.values()) == list(null.ns("node-1").links.values())


def test_numbers_beyond_any_size_are_read() -> None:
    said, _conf = decoded("bridge", bridge(mtu=10**40))
    assert said == f"{NETCONF}number {10**40} into Go struct field NetConf.mtu of type int"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("null", "no name"),
        ("[" * 100_000, "exceeded max depth"),
        ('{"a":' * 300 + "1" + "}" * 300, "exceeded max depth"),
        ("\ufeff{}", "invalid character 'ï' looking for beginning of value"),
        ("{²", "invalid character 'Â' looking for beginning of object key string"),
        ('{"a": ²}', "invalid character 'Â' looking for beginning of value"),
    ],
)
def test_texts_that_are_no_list(text: str, said: str) -> None:
    with pytest.raises(CniError) as fault:
        parse(text)
    assert fault.value.msg == f"error parsing configuration list: {said}"
