"""IPv6 flows through a router, in model and kernel: the lab of the property test with a few rules and routes."""

from __future__ import annotations

import pytest

from kubenet_lab.kernel.dialects.iptables import load
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.packet import ICMPV6, TCP, UDP
from kubenet_lab.twin import Comparison, Flow, Twin
from tests.twin.lab import SMALL_MTU, lab

RULES = """*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -d fd09::1/128 -p tcp -m tcp --dport 8000 -j DNAT --to-destination [fd02::2]:80
-A OUTPUT -d fd09::1/128 -p tcp -m tcp --dport 8000 -j DNAT --to-destination [fd02::2]:80
-A POSTROUTING -o out1 -j MASQUERADE
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A FORWARD -p udp -m udp --dport 99 -j REJECT --reject-with icmp6-adm-prohibited
-A FORWARD -p tcp -m tcp --dport 99 -j REJECT --reject-with tcp-reset
-A FORWARD -p tcp -m tcp --dport 98 -j DROP
COMMIT
"""

FLOWS = {
    "connect": (Flow(ns="client", dst="fd02::2", port=80), "connected"),
    "refused": (Flow(ns="client", dst="fd02::2", port=81), "refused"),
    "refused, UDP": (Flow(ns="client", dst="fd02::2", port=81, proto=UDP), "refused"),
    "ping": (Flow(ns="client", dst="fd02::2", proto=ICMPV6, size=56), "answered"),
    "ping the router": (Flow(ns="client", dst="fd02::1", proto=ICMPV6, size=56), "answered"),
    "masqueraded": (Flow(ns="client", dst="fd03::2", port=80), "connected"),
    "translated": (Flow(ns="client", dst="fd09::1", port=8000), "connected"),
    "translated, from the router": (Flow(ns="router", dst="fd09::1", port=8000), "connected"),
    "rejected, UDP": (Flow(ns="client", dst="fd02::2", port=99, proto=UDP), "unreachable"),
    "reset": (Flow(ns="client", dst="fd02::2", port=99), "refused"),
    "dropped": (Flow(ns="client", dst="fd02::2", port=98), "timed out"),
    "hop limit": (Flow(ns="client", dst="fd02::2", proto=ICMPV6, size=56, ttl=1), "ttl exceeded"),
    "too big": (Flow(ns="client", dst="fd03::2", proto=ICMPV6, size=SMALL_MTU, df=True), "message too long"),
    "no route": (Flow(ns="client", dst="fd77::1", port=80), "unreachable"),
    "unreachable route": (Flow(ns="client", dst="fd51::1", port=80), "unreachable"),
    "prohibit route": (Flow(ns="client", dst="fd52::1", port=80), "unreachable"),
    "blackhole route": (Flow(ns="client", dst="fd53::1", port=80), "timed out"),
    "nobody there": (Flow(ns="client", dst="fd02:0:0:0:1::1", port=80), "unreachable"),
}


def world() -> Network:
    net = lab()
    router = net.ns("router")
    router.set_iptables(6, load(RULES, 6))
    # Without it a translated packet of the router's own has no way, and no source, before its rules are asked.
    router.add_route("fd09::/64", via="fd02::2", dev="out0")
    for block, kind in (("fd51::/64", "unreachable"), ("fd52::/64", "prohibit"), ("fd53::/64", "blackhole")):
        router.add_route(block, type=kind)
    return net


@pytest.fixture(scope="module")
def compared(kernel: None) -> dict[str, Comparison]:
    with Twin(world()) as twin:
        return dict(zip(FLOWS, twin.compare([flow for flow, _end in FLOWS.values()]), strict=True))


@pytest.mark.parametrize("name", FLOWS)
def test_model_and_kernel_agree(name: str, compared: dict[str, Comparison]) -> None:
    assert compared[name].equal, f"\n{compared[name]}"
    assert {o.end for o in compared[name].kernel} == {FLOWS[name][1]}


def test_protocols_are_all_there() -> None:
    assert {flow.proto for flow, _end in FLOWS.values()} == {TCP, UDP, ICMPV6}
