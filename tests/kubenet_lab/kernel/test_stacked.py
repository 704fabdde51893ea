"""Devices on other links: what they take over from them, what is refused, and what is left of them.

What macvlan does was compared with the kernel (tests/transcripts/ip/macvlan.txt); ipvlan and VLAN follow their drivers.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kubenet_lab.kernel.dialects import ip_link
from kubenet_lab.kernel.dump import dump, load
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.link import IpvlanOptions, Link, MacvlanOptions, Peer, VlanOptions
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet import mac_from
from kubenet_lab.twin.plan import plan

ETH0 = Peer("host", "eth0")


def world() -> Network:
    net = Network()
    net.add_wire("lan")
    host = net.add_netns("host")
    host.add_link("eth0", "physical", mac="0a:00:00:00:00:01")
    net.plug("lan", "host", "eth0")
    host.set_link("eth0", up=True)
    net.add_netns("pod", "host")
    return net


def vlan(net: Network, vid: int = 100) -> Link:
    return net.add_upper("pod", "eth0", VlanOptions(ETH0, vid))


def test_a_vlan_device_goes_down_and_up_with_its_link() -> None:
    net = world()
    assert not vlan(net).up
    net.ns("pod").set_link("eth0", up=True)
    net.ns("host").set_link("eth0", up=False)
    assert not net.ns("pod").links["eth0"].up
    with pytest.raises(KernelError, match="Network is down"):
        net.ns("pod").set_link("eth0", up=True)
    net.ns("host").set_link("eth0", up=True)
    assert net.ns("pod").links["eth0"].running


def test_mtu_and_mac_follow() -> None:
    net = world()
    vlan(net)
    net.add_upper("pod", "ip0", IpvlanOptions(ETH0))
    net.ns("host").set_link("eth0", mtu=1400, mac="0a:00:00:00:00:02")
    assert [(one.mtu, one.mac) for one in net.ns("pod").links.values() if one.lower] == [
        (1400, "0a:00:00:00:00:02")
    ] * 2
    net.ns("host").set_link("eth0", mtu=1500)
    # ipvlan keeps to its link's MTU, the others only never have a larger one.
    assert [one.mtu for one in net.ns("pod").links.values() if one.lower] == [1400, 1500]
    with pytest.raises(KernelError, match="Numerical result out of range"):
        net.ns("pod").set_link("eth0", mtu=1501)
    net.ns("pod").set_link("eth0", mac="0a:00:00:00:00:09")
    net.ns("host").set_link("eth0", mac="0a:00:00:00:00:03")
    assert net.ns("pod").links["eth0"].mac == "0a:00:00:00:00:09"


def _join_bridge(net: Network) -> None:
    net.ns("host").add_link("br0", "bridge")
    net.ns("host").set_link("eth0", master="br0")


@pytest.mark.parametrize(
    ("first", "then", "errno"),
    [
        (vlan, vlan, "EEXIST"),
        (vlan, lambda net: net.add_upper("pod", "v", VlanOptions(ETH0, 100)), "EEXIST"),
        (
            lambda net: net.add_upper("pod", "m", MacvlanOptions(ETH0)),
            lambda net: net.add_upper("pod", "i", IpvlanOptions(ETH0)),
            "EBUSY",
        ),
        (
            lambda net: net.add_upper("pod", "i", IpvlanOptions(ETH0)),
            lambda net: net.add_upper("pod", "m", MacvlanOptions(ETH0)),
            "EBUSY",
        ),
        (_join_bridge, lambda net: net.add_upper("pod", "m", MacvlanOptions(ETH0)), "EBUSY"),
        (lambda net: net.add_upper("pod", "i", IpvlanOptions(ETH0)), _join_bridge, "EBUSY"),
        (
            lambda net: None,
            lambda net: net.add_upper("pod", "i", IpvlanOptions(Peer("host", "lo"))),
            "EINVAL",
        ),
        (
            lambda net: None,
            lambda net: net.add_upper("pod", "v", VlanOptions(Peer("host", "x"), 1)),
            "ENODEV",
        ),
    ],
)
def test_refused(first: Callable[[Network], object], then: Callable[[Network], object], errno: str) -> None:
    net = world()
    first(net)
    with pytest.raises(KernelError) as caught:
        then(net)
    assert caught.value.errno == errno


def test_a_vlan_device_is_no_rival_of_a_bridge() -> None:
    """`eth0` may be a bridge's port and have VLAN devices, which get their frames first."""
    net = world()
    vlan(net)
    _join_bridge(net)
    assert net.ns("host").links["eth0"].master == "br0"


def test_the_mode_of_ipvlan_is_the_links() -> None:
    net = world()
    net.add_upper("pod", "a", IpvlanOptions(ETH0))
    assert net.ns("pod").links["a"].asks
    net.add_upper("pod", "b", IpvlanOptions(ETH0, "l3", "private"))
    assert [
        (one.ipvlan.mode, one.ipvlan.flag, one.asks) for _ns, one in net.uppers("host", "eth0") if one.ipvlan
    ] == [("l3", "private", False)] * 2
    net.add_upper("pod", "c", IpvlanOptions(Peer("pod", "a"), "l2"))
    assert net.ns("pod").links["c"].lower == ETH0


def test_addresses_of_ipvlan_belong_to_one_device() -> None:
    net = world()
    for name in ("a", "b"):
        net.add_upper("pod", name, IpvlanOptions(ETH0))
        net.ns("pod").set_link(name, up=True)
    pod = net.ns("pod")
    pod.add_address("a", "192.0.2.1/24")
    with pytest.raises(KernelError) as caught:
        pod.add_address("b", "192.0.2.1/24")
    assert caught.value.errno == "EADDRINUSE"
    # addrconf_ifid_eui48: a number in place of ff:fe, and the universal bit as it is.
    assert [a.local for a in pod.addrs("a", 6)] == ["fe80::a00:0:100:1"]
    assert [a.local for a in pod.addrs("b", 6)] == ["fe80::a00:0:200:1"]


@pytest.mark.parametrize("gone", ["eth0", "pod", "host"])
def test_what_is_left(gone: str) -> None:
    net = world()
    net.add_upper("pod", "m", MacvlanOptions(ETH0), mac=mac_from("m"))
    net.ns("pod").set_link("m", up=True)
    vlan(net)
    assert [entry.mac for group in net.ns("host").fdb.values() for entry in group] == [mac_from("m")]
    if gone == "eth0":
        net.ns("host").delete_link("eth0")
        assert list(net.ns("pod").links) == ["lo"]
    else:
        net.delete_netns(gone)
    assert not net.stacks
    if gone != "host":
        assert not net.ns("host").fdb


def test_a_link_that_moves_keeps_what_sits_on_it() -> None:
    net = world()
    net.add_upper("pod", "m", MacvlanOptions(ETH0), mac=mac_from("m"))
    net.add_netns("other", "host")
    net.move_link("host", "eth0", "other", "lan0")
    assert net.ns("pod").links["m"].lower == Peer("other", "lan0")
    assert list(net.stacks) == [("other", "lan0")]
    net.move_link("pod", "m", "host", "mac0")
    assert net.stacks == {("other", "lan0"): (("host", "mac0"),)}


def test_stacks_are_state() -> None:
    """Snapshots and documents bring the devices back on their links."""
    net = world()
    before = net.snapshot()
    vlan(net)
    stacks = dict(net.stacks)
    assert load(dump(net)).stacks == stacks
    after = net.snapshot()
    net.restore(before)
    assert not net.stacks
    net.restore(after)
    assert net.stacks == stacks
    pod = net.ns("pod")
    saved = pod.snapshot()
    pod.delete_link("eth0")
    assert not net.stacks
    pod.restore(saved)
    assert net.stacks == stacks


def test_the_twin_makes_them_from_below() -> None:
    """A device on a device comes after it, from its namespace into its own; they go up last."""
    net = world()
    net.add_upper("pod", "v", VlanOptions(ETH0, 7))
    net.add_netns("deep", "host")
    net.add_upper("deep", "m", MacvlanOptions(Peer("pod", "v"), "private"), mac="0a:00:00:00:00:0f")
    net.ns("pod").set_link("v", up=True)
    steps = [
        (number, ns, line)
        for number, phase in enumerate(plan(net).phases)
        for ns, jobs in phase.items()
        for kind, body in jobs
        if kind == "ip"
        for line in body
        if "type vlan" in line or "type macvlan" in line or line.endswith((" v up", " m down"))
    ]
    assert steps == [
        (
            1,
            "host",
            "link add link eth0 name v netns pod index 2 mtu 1500 address 0a:00:00:00:00:01 type vlan id 7",
        ),
        (
            2,
            "pod",
            "link add link v name m netns deep index 2 mtu 1500 address 0a:00:00:00:00:0f type macvlan mode private",
        ),
        (4, "pod", "link set dev v up"),
        (4, "deep", "link set dev m down"),
    ]


def test_how_they_are_shown() -> None:
    net = world()
    vlan(net)
    net.add_upper("host", "eth0.5", VlanOptions(ETH0, 5))
    net.ns("host").set_link("eth0.5", up=True)
    shown = ip_link.show(net.ns("pod"), links=[net.ns("pod").links["eth0"]], details_=True)
    assert shown.startswith("2: eth0@if2: <BROADCAST,MULTICAST> mtu 1500 qdisc noop state DOWN")
    assert "vlan protocol 802.1Q id 100 <REORDER_HDR>" in shown
    (there,) = [
        one for one in ip_link.parse(ip_link.show(net.ns("host"), details_=True)) if one.name == "eth0.5"
    ]
    assert there.vlan is not None
    assert there.vlan.id == 5
