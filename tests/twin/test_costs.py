"""Ways that differ much in price differ in the kernel, in the same order, and streams in their throughput.

How long they take is the benchmark's.
"""

from __future__ import annotations

from kubenet_lab import cost
from kubenet_lab.cost import probe
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.exercises.nb26 import pings, talk
from kubenet_lab.scenarios import shop
from kubenet_lab.scenarios.planes import alone
from kubenet_lab.twin import Twin
from tests.benchmarks.hops import stream


def test_the_kernel_puts_ways_in_the_order_of_their_prices(kernel: None) -> None:
    world = shop()
    own = world.pod("frontend").ips[0]
    ways = {
        "itself": own,
        "same node": backend_on(world, "node-1").ips[0],
        "other node, in VXLAN": backend_on(world, "node-2").ips[0],
    }
    priced = {}
    for way, address in ways.items():
        for _ in range(2):  # the second time neighbours are known
            ping = world.ping("frontend", address).exchange
        assert ping is not None
        priced[way] = cost.latency(ping.traces).us
    with world.twin() as twin:
        took = {
            way: probe.best(twin, "default/frontend", address, pings=100, tries=5)
            for way, address in ways.items()
        }
    order = sorted(priced, key=lambda way: priced[way])
    assert order == sorted(took, key=lambda way: took[way]), f"priced {priced}, took {took}"


def test_a_stream_to_another_node_is_as_much_slower_as_derived(kernel: None) -> None:
    """Through VXLAN, in segments of 64 KiB: two fifths of the derived at least, and no more than half as much again.

    The ratio of two streams, as a machine's own speed is not the model's; they take turns, and the best of each
    counts, for others may be at work here.
    """
    world = shop()
    made, took = {}, {}
    with world.twin() as twin:
        for _ in range(3):
            for way, node in (("same", "node-1"), ("other", "node-2")):
                pod = backend_on(world, node)
                sent = stream(twin, f"default/{pod.name}", pod.ips[0], 0.3)
                took[way] = max(sent, took.get(way, 0.0))
                trace = talk(world.network, "default/frontend", pod.ips[0], 8080)["later"]
                made[way] = cost.throughput(trace, mtu=1450).mbit_s
    derived, found = made["other"] / made["same"], took["other"] / took["same"]
    assert derived / 2.5 < found < derived * 1.5, f"derived {made}, took {took}"


def test_a_thousand_services_are_a_list_to_iptables_and_one_look_up_to_nftables(kernel: None) -> None:
    """A first packet's time past them, as the model's steps make it."""
    made, took = {}, {}
    for proxy in ("iptables", "nftables"):
        network = alone(proxy, 1000)
        made[proxy] = cost.latency(pings(network, "node-1", "127.0.0.1")["first"]).us
        with Twin(network) as twin:
            took[proxy] = probe.best(twin, "node-1", "127.0.0.1", probe.FIRST, pings=200, tries=3)
    ratio = {key: us["iptables"] / us["nftables"] for key, us in (("made", made), ("took", took))}
    assert 1.8 < ratio["made"] < 2.6
    assert ratio["made"] / 1.4 < ratio["took"] < ratio["made"] * 1.4, f"priced {made}, took {took}"
