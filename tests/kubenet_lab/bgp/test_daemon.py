"""What sessions and the table do, as rows of small worlds."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from kubenet_lab.bgp import birdc
from kubenet_lab.bgp.config import Config, FilterRule, Peer, Pool
from kubenet_lab.bgp.daemon import Bird
from kubenet_lab.bgp.fabric import Fabric
from kubenet_lab.cni.plugin import add_lines
from kubenet_lab.control import machine
from kubenet_lab.errors import InputError
from kubenet_lab.kernel.dialects import ip_route
from kubenet_lab.kernel.network import Network
from tests.kubenet_lab.bgp.worlds import build

ANY = Pool("10.0.0.0/8")


def nodes(count: int) -> tuple[Fabric, list[str]]:
    network = Network()
    addresses = [f"192.168.1.{10 * n}" for n in range(1, count + 1)]
    for n, address in enumerate(addresses, 1):
        machine.build_node(network, f"node-{n}", f"{address}/24")
    return Fabric(network), addresses


def speak(fabric: Fabric, ns: str, router: str, asn: int, *peers: Peer, **options: object) -> Bird:
    bird = Bird(fabric, ns, Config(router, asn=asn, pools=(ANY,), peers=peers, **options))  # type: ignore[arg-type]
    bird.start()
    return bird


def routes(fabric: Fabric, node: str) -> list[str]:
    text = ip_route.show(fabric.network.ns(node))
    return [" ".join(line.split()) for line in text.replace("\n\t", " ").splitlines() if "proto bird" in line]


def test_two_ways_of_equal_cost_become_one_route_with_two_legs() -> None:
    """Both other nodes announce one prefix: `merge paths` gives the kernel a multipath route."""
    fabric, (a, b, c) = nodes(3)
    peer = {x: Peer(f"P{x}", x, 64512) for x in (a, b, c)}
    speak(fabric, "node-1", a, 64512, peer[b], peer[c])
    speak(fabric, "node-2", b, 64512, peer[a], blocks=("10.9.0.0/24",))
    speak(fabric, "node-3", c, 64512, peer[a], blocks=("10.9.0.0/24",))
    fabric.run(5.0)
    assert routes(fabric, "node-1") == [
        "10.9.0.0/24 proto bird metric 1024 "
        "nexthop via 192.168.1.20 dev eth0 weight 1 nexthop via 192.168.1.30 dev eth0 weight 1"
    ]
    fabric.daemons["node-2"].shutdown()
    fabric.settle()
    assert routes(fabric, "node-1") == ["10.9.0.0/24 via 192.168.1.30 dev eth0 proto bird metric 1024"]


def test_the_shorter_as_path_wins() -> None:
    """node-1 hears 10.9.0.0/24 from its owner AS 3 and by way of AS 2."""
    fabric, (a, b, c) = nodes(3)
    one = speak(fabric, "node-1", a, 1, Peer("two", b, 2), Peer("three", c, 3))
    speak(fabric, "node-2", b, 2, Peer("one", a, 1), Peer("three", c, 3))
    speak(fabric, "node-3", c, 3, Peer("one", a, 1), Peer("two", b, 2), blocks=("10.9.0.0/24",))
    fabric.run(8.0)
    found = [path.attributes.as_path for path in one.table["10.9.0.0/24"] if path.attributes]
    assert found == [(3,), (2, 3)]
    assert "[AS3i]" in birdc.show_route(one)


def test_an_as_does_not_take_its_own_routes_back() -> None:
    """Two sites of AS 1 behind AS 2: each refuses the other's routes unless told to allow its own AS."""
    fabric, (a, b, c) = nodes(3)
    left = speak(fabric, "node-1", a, 1, Peer("mid", b, 2))
    speak(fabric, "node-2", b, 2, Peer("left", a, 1), Peer("right", c, 1))
    speak(fabric, "node-3", c, 1, Peer("mid", b, 2), blocks=("10.9.0.0/24",))
    fabric.run(8.0)
    assert "10.9.0.0/24" not in left.table
    left.configure(replace(left.config, peers=(Peer("mid", b, 2, allow_own_as=1),)))
    fabric.run(16.0)
    assert "10.9.0.0/24" in left.table


def test_routes_from_inside_do_not_go_on_inside_without_a_reflector() -> None:
    fabric, (a, b, c) = nodes(3)
    middle = (Peer("left", a, 64512), Peer("right", c, 64512))
    speak(fabric, "node-1", a, 64512, Peer("mid", b, 64512))
    bird = speak(fabric, "node-2", b, 64512, *middle)
    speak(fabric, "node-3", c, 64512, Peer("mid", b, 64512), blocks=("10.9.0.0/24",))
    fabric.run(5.0)
    assert routes(fabric, "node-2")
    assert not routes(fabric, "node-1")
    clients = tuple(replace(peer, rr_client=True, cluster_id="1.0.0.1") for peer in middle)
    bird.configure(replace(bird.config, peers=clients))
    fabric.run(12.0)
    assert routes(fabric, "node-1") == ["10.9.0.0/24 via 192.168.1.30 dev eth0 proto bird metric 1024"]
    path = fabric.daemons["node-1"].table["10.9.0.0/24"][0]
    assert path.attributes is not None
    assert (path.attributes.originator_id, path.attributes.cluster_list) == (c, ("1.0.0.1",))


def test_a_wrong_as_number_never_gets_a_session() -> None:
    fabric, (a, b) = nodes(2)
    one = speak(fabric, "node-1", a, 1, Peer("two", b, 99))
    speak(fabric, "node-2", b, 2, Peer("one", a, 1))
    fabric.run(30.0)
    assert not one.sessions["two"].up
    assert "Bad peer AS: 2" in birdc.show_protocols(one)


def test_a_rule_that_drops_port_179_costs_the_session_after_the_hold_time() -> None:
    fabric = build("mesh-bird16-nogr")
    fabric.run(9.0)
    rule = "-A INPUT -p tcp -m tcp --dport 179 -j DROP"
    add_lines(fabric.network.ns("node-2"), 4, f"*filter\n{rule}\nCOMMIT\n")
    fabric.run(20.0)
    assert "BGP Error: Hold timer expired" in birdc.show_protocols(fabric.daemons["node-1"])
    assert not any("10.244.20." in line for line in routes(fabric, "node-1"))
    # As BIRD 2.0.12 said in the same case, for as long as it was watched: who calls hears nothing, not even an error.
    caller, waiting = fabric.daemons["node-2"], fabric.daemons["node-1"]
    for moment in (40.0, 60.0, 61.0, 77.0):
        fabric.run(moment)
        (line,) = (one for one in birdc.show_protocols(caller).splitlines() if "192_168_1_10" in one)
        assert line.endswith("Connect       BGP Error: Hold timer expired"), line
    (line,) = (one for one in birdc.show_protocols(waiting).splitlines() if "192_168_1_20" in one)
    assert line.endswith("Passive       BGP Error: Hold timer expired"), line


def test_a_silent_neighbour_is_called_again_as_soon_as_it_can_hear() -> None:
    fabric = build("mesh-bird16-nogr")
    node = fabric.network.ns("node-2")
    fabric.run(9.0)
    before = node.iptables[4]
    add_lines(node, 4, "*filter\n-A INPUT -p tcp -m tcp --dport 179 -j DROP\nCOMMIT\n")
    fabric.run(40.0)
    node.set_iptables(4, before)
    fabric.run(46.0)
    session = fabric.daemons["node-2"].sessions["Mesh_192_168_1_10"]
    assert session.up
    assert session.since > 40.0, "since when it is up"


def test_rules_of_nftables_count_too() -> None:
    from kubenet_lab.kernel.dialects import nft

    fabric = build("mesh-bird16-nogr")
    fabric.run(9.0)
    node = fabric.network.ns("node-2")
    rule = "add rule inet wall in tcp dport 179 drop"
    hook = "{ type filter hook input priority 0 ; }"
    node.set_nftables(
        nft.apply(node.nftables, f"add table inet wall\nadd chain inet wall in {hook}\n{rule}\n")
    )
    fabric.run(30.0)
    assert not fabric.daemons["node-1"].sessions["Mesh_192_168_1_20"].up


def test_filters_of_a_peer_are_tried_first() -> None:
    fabric, (a, b) = nodes(2)
    deny = (FilterRule("10.9.1.0/24", "Reject"),)
    speak(fabric, "node-1", a, 64512, Peer("two", b, 64512, imports=deny))
    speak(fabric, "node-2", b, 64512, Peer("one", a, 64512), blocks=("10.9.0.0/24", "10.9.1.0/24"))
    fabric.run(5.0)
    assert [line.split()[0] for line in routes(fabric, "node-1")] == ["10.9.0.0/24"]


@pytest.mark.parametrize(
    ("cross", "wanted"),
    [
        (False, "10.9.0.0/24 via 192.168.1.20 dev tunl0 proto bird metric 1024 onlink"),
        (True, "10.9.0.0/24 via 192.168.1.20 dev eth0 proto bird metric 1024"),
    ],
)
def test_ipip_takes_the_tunnel_unless_the_next_hop_is_near(cross: bool, wanted: str) -> None:
    fabric, (a, b) = nodes(2)
    ns = fabric.network.ns("node-1")
    ns.add_link("tunl0", "ipip", mtu=1480, up=True)
    pool = Pool("10.0.0.0/8", tunnel="tunl0", cross_subnet=cross)
    bird = Bird(
        fabric,
        "node-1",
        Config(a, pools=(pool,), peers=(Peer("two", b, 64512),), local_subnet="192.168.1.0/24"),
    )
    bird.start()
    speak(fabric, "node-2", b, 64512, Peer("one", a, 64512), blocks=("10.9.0.0/24",))
    fabric.run(5.0)
    assert routes(fabric, "node-1") == [wanted]


def test_one_seed_is_one_world() -> None:
    texts = []
    for _ in range(2):
        fabric = build("rr-bird16")
        fabric.run(60.0)
        texts.append("".join(birdc.show_protocols(bird) for bird in fabric.daemons.values()))
    assert texts[0] == texts[1]


def test_bad_configurations_are_refused() -> None:
    for options in ({"hold_time": 1}, {"blocks": ("10.0.0.0/33",)}, {"filters": "none"}):
        with pytest.raises(InputError):
            Config("192.168.1.10", **options)  # type: ignore[arg-type]
