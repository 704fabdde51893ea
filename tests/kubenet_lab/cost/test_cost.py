"""Prices: fitted to measured round trips, of the right shape, and silent about what nobody measured."""

from __future__ import annotations

import math

import pytest
from msgspec.structs import replace

from kubenet_lab import cost
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.packet.packet import ACK, ICMP, PSH, Packet
from kubenet_lab.scenarios import shop
from kubenet_lab.scenarios.planes import alone
from kubenet_lab.scenarios.planes import cost as compared
from kubenet_lab.trace import Trace
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import exchange


def rows(**price: float) -> list[cost.Measured]:
    """Round trips that cost exactly these prices."""
    steps = [
        {"packet": 2, "link": 2},
        {"packet": 2, "link": 4, "rule": 10},
        {"packet": 2, "link": 4, "rule": 1000},
        {"packet": 2, "link": 8, "rule": 30, "tunnel": 4},
        {"packet": 4, "link": 9, "rule": 7, "tunnel": 4},
    ]
    times = [sum(price[kind] * count for kind, count in found.items()) for found in steps]
    return [
        cost.Measured("n", "p", str(n), "later", us, found)
        for n, (us, found) in enumerate(zip(times, steps, strict=True))
    ]


def test_the_fit_finds_the_prices_behind_the_times() -> None:
    price = {"packet": 2.0, "link": 0.5, "rule": 0.01, "tunnel": 0.75}
    found = cost.fit(rows(**price))
    assert found.us == pytest.approx(price, abs=1e-3)
    assert found.worst < 0.001


def test_one_way_measured_in_a_busy_moment_moves_nothing() -> None:
    price = {"packet": 2.0, "link": 0.5, "rule": 0.01, "tunnel": 0.75}
    measured = rows(**price) * 3
    measured[1] = replace(measured[1], us=measured[1].us * 3)
    found = cost.fit(measured)
    assert found.us == pytest.approx(price, rel=0.03)
    assert found.usual < 0.01 < found.worst


def test_no_price_is_below_zero_and_only_what_was_met_has_one() -> None:
    measured = [
        cost.Measured("n", "p", "a", "later", 10.0, {"link": 2}),
        cost.Measured("n", "p", "b", "later", 5.0, {"link": 2, "nat": 2}),
    ]
    found = cost.fit(measured).us
    assert found.keys() == {"link", "nat"}
    assert min(found.values()) == 0
    with pytest.raises(ValueError, match="nothing was measured"):
        cost.fit([])


def test_the_recorded_run_prices_all_and_ipvs_is_an_estimate() -> None:
    prices = cost.recorded()
    assert prices.us.keys() == cost.KINDS.keys()
    assert prices.estimated.keys() == {"ipvs"}
    assert prices.us["ipvs"] == prices.us["nat"]
    assert prices.usual < 0.1, "half of the ways are explained within a tenth"
    assert min(prices.us.values()) >= 0
    table = str(prices)
    assert "not measured" not in table
    assert f"about {prices.us['ipvs']:.3f} us" in table
    assert "about: a packet taken by IPVS: no kernel with IPVS was there to measure it" in table
    assert "Linux" in table
    assert all(meaning in table for meaning in cost.KINDS.values())


def test_a_kind_without_a_price_is_said_to_be_not_measured() -> None:
    few = cost.fit([cost.Measured("n", "p", "a", "later", 10.0, {"packet": 2, "link": 2})])
    assert str(few).count("not measured") == len(cost.KINDS) - 2
    ping = shop(proxy="ebpf").connect("frontend", "http://10.96.0.100").exchange
    assert ping is not None
    bill = cost.latency(ping.traces, few)
    assert {"bpf", "program"} <= set(bill.unpriced)
    assert "not measured" in bill.text().splitlines()[-1]
    assert bill.us == pytest.approx(sum(s.us for s in bill.shares if s.us is not None))


def test_a_program_is_paid_once_and_each_decision_in_it() -> None:
    world = shop(cni="cilium", proxy="ebpf")
    far = backend_on(world, "node-2").ips[0]
    trip = world.connect("frontend", f"tcp://{far}:8080").exchange
    assert trip is not None
    steps = [step.spot for hop in trip.request.hops for step in hop.steps if step.kind == "bpf"]
    found = cost.counts([trip.request])
    assert found["bpf"] == len(steps)
    assert found["program"] == len(dict.fromkeys(steps)) == 4, "no program is begun twice on this way"


def test_what_a_program_costs_is_of_the_size_others_found() -> None:
    """A program that reads a few fields takes some ten ns (the kernel's commit 492ecee892c2, "program stats")."""
    us = cost.recorded().us
    assert 0.005 < us["bpf"] < 0.05
    assert us["bpf"] < us["program"] < us["match"], "a program is begun for less than a rule's match costs"


WELL_APART = 1.25
"""Ways whose times differ by so much are never in the wrong order."""


def test_priced_ways_have_the_order_of_the_measured_ones() -> None:
    prices = cost.recorded().us
    for which in ("first", "later"):
        ways = [
            r for r in cost.run() if r.packet == which and (r.network, r.proxy) == ("flannel", "iptables")
        ]
        priced = [sum(prices[kind] * n for kind, n in row.steps.items()) for row in ways]
        for one, here in zip(ways, priced, strict=True):
            for other, there in zip(ways, priced, strict=True):
                if one.us * WELL_APART < other.us:
                    assert here < there, f"{one.way} and {other.way}"


def test_the_recorded_steps_are_those_the_model_takes_today() -> None:
    world = shop()
    far = backend_on(world, "node-2").ips[0]
    ping = Packet("", far, ICMP, icmp_type=8, icmp_seq=1, payload_size=56)
    for _ in range(2):
        first = exchange(Walk(world.network), "default/frontend", ping)
    (row,) = (
        r
        for r in cost.run()
        if (r.network, r.proxy, r.way, r.packet) == ("flannel", "iptables", "pod to pod, other node", "first")
    )
    assert cost.counts(first.traces) == row.steps


def later(traces: list[Trace], ns: str, world: object) -> list[Trace]:
    """The next packet of the connection whose first packet is `traces[0]`, and its answer."""
    packet = replace(traces[0].packet, flags=ACK | PSH, payload_size=100, mss=0)
    return exchange(Walk(world.network), ns, packet).traces  # type: ignore[attr-defined]


@pytest.mark.parametrize("proxy", ["iptables", "nftables"])
def test_later_packets_of_a_connection_try_no_nat_rules(proxy: str) -> None:
    world = shop(proxy=proxy)
    world.connect("frontend", "http://10.96.0.100")
    call = world.connect("frontend", "http://10.96.0.100").exchange
    assert call is not None
    first = cost.counts(call.traces[:1])
    after = cost.counts(later(call.traces, "default/frontend", world)[:1])
    assert first["connection"] >= 1
    assert "connection" not in after
    assert after["nat"] == first["nat"], "conntrack rewrites what rules had chosen"
    assert after["rule"] < first["rule"]
    assert after["match"] < first["match"]


@pytest.mark.parametrize("proxy", ["iptables", "nftables"])
def test_services_cost_the_first_packet_only_and_only_where_rules_are_a_list(proxy: str) -> None:
    found = {}
    for services in (10, 110):
        network = alone(proxy, services)
        ping = Packet("", "127.0.0.1", ICMP, icmp_type=8, icmp_seq=1, payload_size=56)
        first = exchange(Walk(network), "node-1", ping)
        after = exchange(Walk(network), "node-1", replace(first.request.packet, icmp_seq=2))
        found[services] = (cost.counts(first.traces), cost.counts(after.traces))
    assert found[10][1] == found[110][1]
    more = found[110][0]["rule"] - found[10][0]["rule"]
    assert more == (100 if proxy == "iptables" else 0)


LAB = {1_000: (53, 30), 5_000: (119, 30), 10_000: (262, 30), 30_000: (554, 30)}
"""connect() to the last of so many Services, p50 in us, and with one Service (iptables-nft, Linux 6.18, 2 CPUs)."""
KEP = {5_000: 49, 10_000: 61, 30_000: 274}
"""First-packet round trip, p50 in us: the chart of KEP-3866. nftables: 14 at any number."""


def test_what_a_service_more_costs_is_what_others_measured_too() -> None:
    each = compared("iptables", 110) - compared("iptables", 10)
    us = cost.recorded().us["rule"] * each / 100
    assert each == 100
    for services, (many, one) in LAB.items():
        assert us * services == pytest.approx(many - one, rel=0.7), services
    for services, kep in KEP.items():
        assert (kep - 14) / 3 < us * services < (kep - 14) * 3, services


def test_the_recorded_run_has_the_growth_itself() -> None:
    first = {
        r.services: r.us for r in cost.run() if (r.proxy, r.packet) == ("iptables", "first") and r.services
    }
    after = {
        r.services: r.us for r in cost.run() if (r.proxy, r.packet) == ("iptables", "later") and r.services
    }
    assert first[10_000] > 5 * first[10]
    assert after[10_000] < 1.2 * after[10]
    maps = {
        r.services: r.us for r in cost.run() if (r.proxy, r.packet) == ("nftables", "first") and r.services
    }
    assert {10, 200, 1000, 5000} <= maps.keys()
    assert max(maps.values()) < 1.2 * min(maps.values())


@pytest.mark.parametrize("services", [1000, 5000])
def test_many_services_were_measured_as_the_steps_make_them(services: int) -> None:
    """The model's count times the prices: a list for iptables, one look-up for nftables."""
    price = cost.recorded().us
    found = {
        r.proxy: (r.us, sum(price[kind] * n for kind, n in r.steps.items()))
        for r in cost.run()
        if (r.services, r.packet) == (services, "first")
    }
    for measured, made in found.values():
        assert made == pytest.approx(measured, rel=0.1)
    assert found["iptables"][0] > 2 * found["nftables"][0]


def test_a_budget_has_each_question_and_the_call() -> None:
    trip = shop().connect("frontend", "http://backend")
    budget = trip.cost()
    titles = list(budget.parts)
    assert [title.split()[0] for title in titles] == ["question", "question", "the"]
    assert budget.us == pytest.approx(sum(part.us for part in budget.parts.values()))
    assert budget.unpriced == ()
    assert "10.96.0.100:80" in titles[-1]
    assert str(budget).splitlines()[-1].startswith("the kernels of the whole call")


def test_what_is_an_estimate_is_said_to_be_one() -> None:
    budget = shop(proxy="ipvs").connect("frontend", "http://10.96.0.100").cost()
    assert budget.unpriced == ()
    assert budget.estimated == ("ipvs",)
    assert "x a packet taken by IPVS" in str(budget)
    assert "us, an estimate" in str(budget)
    assert budget.to_json()["estimated"] == ["ipvs"]
    assert shop().connect("frontend", "http://10.96.0.100").cost().estimated == ()


def test_ipvs_and_nftables_cost_about_the_same() -> None:
    """As measured by others with address translation (Neira, Garcia, Netdev 1.2)."""
    us = {
        proxy: shop(proxy=proxy).connect("frontend", "http://10.96.0.100").cost().us
        for proxy in ("ipvs", "nftables")
    }
    assert us["ipvs"] == pytest.approx(us["nftables"], rel=0.2)


def test_distance_is_paid_once_a_packet_between_machines() -> None:
    world = shop()
    wire = cost.Wire(km=1000, cards_us=10)
    ping = world.ping("frontend", backend_on(world, "node-2").ips[0]).exchange
    near = world.ping("frontend", backend_on(world, "node-1").ips[0]).exchange
    assert ping is not None
    assert near is not None
    echo = [trace for trace in ping.traces if trace.role != "arp"]
    assert cost.latency(echo, wire=wire).wire_us == pytest.approx(2 * (4900 + 10))
    assert cost.latency(near.traces, wire=wire).wire_us == 0
    assert "the wire" in str(cost.latency(echo, wire=wire))


def measured(way: str, *, large: bool = True) -> float:
    """The recorded streams' Mbit/s, the mean of the networks."""
    found = [s.mbit_s for s in cost.streams() if (s.way, s.large_segments) == (way, large)]
    return sum(found) / len(found)


def test_streams_were_as_fast_as_derived() -> None:
    for cni, mtu in (("flannel", 1450), ("flannel-host-gw", 1500)):
        world = shop(cni=cni)
        for node, way in (("node-1", "same node"), ("node-2", "other node")):
            call = world.connect("frontend", f"tcp://{backend_on(world, node).ips[0]}:8080").exchange
            assert call is not None
            trace = later(call.traces, "default/frontend", world)[0]
            for stream in cost.streams():
                if (stream.network, stream.way) != (cni, way):
                    continue
                made = cost.throughput(trace, mtu=mtu, large_segments=stream.large_segments).mbit_s
                least, most = (0.75, 1.25) if stream.large_segments else (0.95, 1.6)
                assert least < stream.mbit_s / made < most, f"{stream} made {made}"


def test_throughput_is_the_processors_within_a_node_and_the_wires_between() -> None:
    world = shop()
    way = {}
    for node in ("node-1", "node-2"):
        call = world.connect("frontend", f"tcp://{backend_on(world, node).ips[0]}:8080").exchange
        assert call is not None
        way[node] = later(call.traces, "default/frontend", world)[0]
    slow, fast = cost.Wire(mbit_s=1_000), cost.Wire(mbit_s=40_000)
    same = [cost.throughput(way["node-1"], mtu=1450, wire=wire) for wire in (slow, fast)]
    assert same[0] == same[1], "no card is on the way"
    assert same[0].limit == "processor"
    assert same[0].mbit_s == pytest.approx(measured("same node"), rel=0.05), "as it was measured"
    far = [cost.throughput(way["node-2"], mtu=1450, wire=wire) for wire in (slow, fast)]
    assert [one.limit for one in far] == ["wire", "processor"]
    assert far[0].mbit_s == pytest.approx(1_000 * 1410 / 1514, rel=0.001), (
        "50 bytes of VXLAN, 40 of TCP and IP"
    )
    alone_ = cost.throughput(way["node-2"], mtu=1450, wire=fast, large_segments=False)
    assert alone_.mbit_s < far[1].mbit_s / 3, "one packet at a time pays the way for every 1,410 bytes"
    assert not math.isinf(alone_.mbit_s)


def test_what_wireguard_costs_is_not_known() -> None:
    """A sealed packet is no VXLAN packet: what the cipher takes was never measured, and is said to be unknown."""
    trip = shop(cni="flannel-wireguard").ping("frontend", "10.244.1.2")
    budget = cost.of_trip(trip)
    assert budget.unpriced == ("sealed",)
    assert "x a packet sealed or opened by WireGuard" in str(budget)
    assert math.isfinite(budget.us)
