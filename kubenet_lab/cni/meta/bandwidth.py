"""bandwidth: token buckets on the host's end of the pair, and on an ifb device for what the container sends.

State only: nothing here delays a packet. `unshapedSubnets` and `shapedSubnets` (classes of HTB) are not modelled.
Source: `plugins/meta/bandwidth` (v1.9.1); https://www.cni.dev/plugins/current/meta/bandwidth/
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.cni import interface
from kubenet_lab.cni.plugin import Call, CniError, Interface, Json, Plugin, Result
from kubenet_lab.kernel.link import Link, Qdisc
from kubenet_lab.packet.ip import mac_from

_KEYS = ("ingressRate", "ingressBurst", "egressRate", "egressBurst")
LATENCY = 25000
"""What a bucket may hold a packet for, in us."""


class Rates(Struct, frozen=True):
    """Bits per second and bits; ingress is what the container receives."""

    ingress_rate: int = 0
    ingress_burst: int = 0
    egress_rate: int = 0
    egress_burst: int = 0


def load(call: Call) -> Rates | None:
    """Read the limits: the configuration's own, else those of `runtimeConfig.bandwidth`. Raises CniError."""
    body: Json = call.conf
    if not any(key in body for key in _KEYS):
        body = (call.conf.get("runtimeConfig") or {}).get("bandwidth") or {}
    for key in ("unshapedSubnets", "shapedSubnets"):
        if body.get(key):
            raise CniError(f"bandwidth: {key} is not modelled")
    if not any(key in body for key in _KEYS):
        return None
    rates = Rates(*(int(body.get(key) or 0) for key in _KEYS))
    for rate, burst in ((rates.ingress_rate, rates.ingress_burst), (rates.egress_rate, rates.egress_burst)):
        if rate and not burst:
            raise CniError("if rate is set, burst must also be set")
        if burst and not rate:
            raise CniError("if burst is set, rate must also be set")
        if burst // 8 >= 1 << 32:
            raise CniError("burst cannot be more than 4GB")
    return None if rates == Rates() else rates


def device(call: Call) -> str:
    """Name of the ifb device of one container."""
    return interface.hash_with_prefix(15, "bwp", f"{call.name}{call.container_id}")


def _host_end(call: Call, result: Result) -> Link:
    if not result.interfaces:
        raise CniError("no interfaces provided")
    peer = call.sandbox().link(call.ifname).peer if call.ifname in call.sandbox().links else None
    if peer is None:
        raise CniError(f"container interface {call.ifname} has no veth peer: <nil>")
    found = next((i for i in result.interfaces if not i.sandbox and i.name == peer.link), None)
    if found is None:
        raise CniError("no veth peer of container interface found in host ns")
    return call.node.link(found.name)


def _bucket(rate: int, burst: int) -> Qdisc:
    return Qdisc("tbf", rate=rate // 8, burst=burst // 8, latency=LATENCY)


def add(call: Call) -> Result:
    """`tc qdisc add dev vethX root tbf ...`, and for egress an ifb device that ingress traffic is sent through."""
    rates = load(call)
    result = call.prev_result()
    if rates is None:
        return result or Result()
    if result is None:
        raise CniError("must be called as chained plugin")
    host = _host_end(call, result)
    qdiscs: tuple[Qdisc, ...] = ()
    if rates.ingress_rate:
        qdiscs = (_bucket(rates.ingress_rate, rates.ingress_burst),)
    if rates.egress_rate:
        name = device(call)
        node = call.node
        node.add_link(name, "ifb", mac=mac_from(node.name, name), mtu=host.mtu, noarp=True)
        node.set_link(name, up=True, qdiscs=(_bucket(rates.egress_rate, rates.egress_burst),))
        qdiscs = (*qdiscs, Qdisc("ingress", "ffff:", "ffff:fff1"))
        made = Interface(name, node.link(name).mac)
        result = replace(result, interfaces=(*result.interfaces, made))
    call.node.set_link(host.name, qdiscs=qdiscs)
    return result


def delete(call: Call) -> None:
    """Delete the ifb device; the buckets went with the pair."""
    load(call)
    if device(call) in call.node.links:
        call.node.delete_link(device(call))


def check(call: Call) -> None:
    """Compare the buckets' rates with the configuration."""
    result = call.prev_result()
    if result is None:
        raise CniError("must be called as a chained plugin")
    rates = load(call) or Rates()
    host = _host_end(call, result)
    if rates.ingress_rate:
        _compare(host, rates.ingress_rate)
    if rates.egress_rate:
        if device(call) not in call.node.links:
            raise CniError("get ifb device: Link not found")
        _compare(call.node.link(device(call)), rates.egress_rate)


def _compare(link: Link, rate: int) -> None:
    if not link.qdiscs:
        raise CniError("Failed to find qdisc")
    for one in link.qdiscs:
        if one.kind == "tbf" and one.rate != rate // 8:
            raise CniError("Rate doesn't match")


PLUGIN = Plugin(
    name="bandwidth",
    add=add,
    delete=delete,
    check=check,
    versions=("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"),
)
