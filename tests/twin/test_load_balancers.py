"""Load balancers in the real kernel: packets for a Service's address walk router, balancer, node and pod there too.

Which leg of a multipath route a flow takes is a secret of each boot, so single flows are not compared: both kernels
must end every call alike, reach the same pods, and show these the same callers.
"""

from __future__ import annotations

import pytest

from kubenet_lab.cluster import Cluster
from kubenet_lab.course.lessons.nb14 import address_of, bare_metal
from kubenet_lab.scenarios.outside import CLIENT, outside
from kubenet_lab.twin import Comparison, Flow, Twin

CALLS = 16
BALANCERS = ("cloud", "bgp")
PODS = {"default/web-2", "default/web-3"}


class Tried:
    """One world in both kernels."""

    def __init__(self, balancer: str) -> None:
        self.world: Cluster = outside() if balancer == "cloud" else bare_metal(balancer)
        self.world.namespace_of(CLIENT)  # the host outside has that address from now on
        flows = {
            name: Flow(ns="outside", src=CLIENT, dst=address_of(self.world, name), port=80, count=CALLS)
            for name in ("anywhere", "nearby")
        }
        flows["a port nobody serves"] = Flow(ns="outside", src=CLIENT, dst=address_of(self.world), port=81)
        flows["a pod's call"] = Flow(ns="default/client-1", dst=address_of(self.world), port=80, count=4)
        with Twin(self.world.network) as twin:
            self.differences = twin.differences()
            found = twin.compare(flows.values())
        self.met: dict[str, Comparison] = dict(zip(flows, found, strict=True))

    def seen(self, name: str) -> set[str]:
        """The sources that the pods saw in the real kernel, as names of machines where they are nodes'."""
        names = self.world.names()
        words = {
            one.source_seen: names.get(one.source_seen, one.source_seen) for one in self.met[name].kernel
        }
        return {word.split(" ")[1] if word.startswith("node ") else word for word in words.values()}


@pytest.fixture(scope="module", params=BALANCERS)
def tried(request: pytest.FixtureRequest, kernel: None) -> Tried:
    """Each load balancer once."""
    return Tried(request.param)


def test_all_of_it_can_be_made_in_the_kernel(tried: Tried) -> None:
    assert tried.differences == []


def test_every_node_passes_calls_on_under_cluster(tried: Tried) -> None:
    met = tried.met["anywhere"]
    assert {one.end for one in (*met.kernel, *met.model)} == {"connected"}
    assert {one.server for one in met.kernel} == PODS
    assert tried.seen("anywhere") <= {"node-1", "node-2", "node-3"}
    assert len(tried.seen("anywhere")) > 1, "more than one node took calls"


def test_no_call_is_lost_under_local_and_each_pod_sees_the_client(tried: Tried) -> None:
    met = tried.met["nearby"]
    assert {one.end for one in (*met.kernel, *met.model)} == {"connected"}, (
        "node-1 has no pod and must get none"
    )
    assert {one.server for one in met.kernel} == PODS
    assert tried.seen("nearby") == {CLIENT}
    assert {one.source_seen for one in met.model} == {CLIENT}


def test_other_ports_end_alike(tried: Tried) -> None:
    met = tried.met["a port nobody serves"]
    assert {one.end for one in met.kernel} == {one.end for one in met.model}


def test_a_pods_own_call_never_leaves_the_nodes(tried: Tried) -> None:
    met = tried.met["a pod's call"]
    assert met.equal, f"\n{met}"
    assert not any(track.ns == "cloud-lb" for one in met.kernel for track in one.conntrack)


def test_what_a_proxy_does_is_named_as_missing(kernel: None) -> None:
    with Twin(outside(load_balancer="cloud-proxy").network, strict=False) as twin:
        assert {str(one) for one in twin.missing} == {
            f"cloud-lb: connections that the proxy on 198.51.100.{n}:80 (cloud-proxy) opens: "
            "the twin's listener answers itself"
            for n in (1, 2)
        }


def test_the_announcing_node_takes_packets_for_an_address_that_no_node_has(kernel: None) -> None:
    """ARP is answered by a program, which the twin has not; the entry it leads to is put into the router by hand."""
    world = bare_metal("l2")
    address = address_of(world)
    world.connect(CLIENT, f"http://{address}")
    router = world.network.ns("router")
    entry = router.neighbours["eth0", address]
    router.set_neighbour("eth0", address, entry.mac)
    assert all(not ns.is_local(address) for ns in world.network.netns.values())
    with Twin(world.network, strict=False) as twin:
        assert {one.what.partition(" on ")[0] for one in twin.missing} == {"socket of protocol 2054"}
        (met,) = twin.compare([Flow(ns="outside", src=CLIENT, dst=address, port=80, count=4)])
    assert met.equal, f"\n{met}"
    assert {(one.end, one.source_seen) for one in met.kernel} == {("connected", CLIENT)}
    (server,) = {one.server for one in met.kernel}
    node = world.network.ns(server).host
    assert world.network.ns(node).links["eth0"].mac == entry.mac
