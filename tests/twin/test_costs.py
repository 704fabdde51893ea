"""Ways that differ much in price differ in the kernel, in the same order.

How long they take, and how much a stream carries, is the benchmark's (`tests.benchmarks.hops`).
"""

from __future__ import annotations

from kubenet_lab import cost
from kubenet_lab.cost import probe
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.exercises.nb26 import pings
from kubenet_lab.scenarios import shop
from kubenet_lab.scenarios.planes import alone
from kubenet_lab.twin import Twin


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


def test_a_thousand_services_are_a_list_to_iptables_and_one_look_up_to_nftables(kernel: None) -> None:
    """A first packet takes longer past the rules of iptables, as the model's steps make it."""
    made, took = {}, {}
    for proxy in ("iptables", "nftables"):
        network = alone(proxy, 1000)
        made[proxy] = cost.latency(pings(network, "node-1", "127.0.0.1")["first"]).us
        with Twin(network) as twin:
            took[proxy] = probe.best(twin, "node-1", "127.0.0.1", probe.FIRST, pings=200, tries=3)
    assert made["iptables"] > made["nftables"]
    assert took["iptables"] > took["nftables"], f"priced {made}, took {took}"
