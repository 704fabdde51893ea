"""The three nodes on which BIRD was recorded: blocks, a pod route a node, a session between each two."""

from __future__ import annotations

from kubenet_lab.bgp.config import Config, Peer, Pool
from kubenet_lab.bgp.daemon import Bird
from kubenet_lab.bgp.fabric import Fabric
from kubenet_lab.control import machine
from kubenet_lab.kernel.dialects import ip_route
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.ip import ip_int, mac_from

POOL = Pool("10.244.0.0/16")
BLOCKS = {1: ("10.244.10.0/26",), 2: ("10.244.20.0/26", "10.244.20.64/26"), 3: ("10.244.30.0/26",)}
BLOCKS6 = {1: "fd00:10:244:10::/122", 2: "fd00:10:244:20::/122", 3: "fd00:10:244:30::/122"}


def addresses(*, far: bool = False) -> dict[int, str]:
    return {1: "192.168.1.10", 2: "192.168.1.20", 3: "192.168.2.30" if far else "192.168.1.30"}


def network(nodes: dict[int, str], *, six: bool = False) -> Network:
    net = Network()
    for number, address in nodes.items():
        ns = machine.build_node(net, f"node-{number}", f"{address}/24")
        name = f"cali{number}1"
        net.add_netns(f"pod-{number}1", f"node-{number}")
        net.add_veth(
            ns.name,
            name,
            f"pod-{number}1",
            "eth0",
            mac_a=mac_from(ns.name, name),
            mac_b=mac_from(f"pod-{number}1"),
        )
        ns.set_link(name, up=True)
        net.ns(f"pod-{number}1").set_link("eth0", up=True)
        ns.add_route(f"10.244.{number}0.1", dev=name, metric=1024)
        if six:
            ns.add_address("eth0", f"fd00:192:168:1::{number}0/64")
    return net


def peers(nodes: dict[int, str], own: int, *, passive: bool, six: bool = False) -> tuple[Peer, ...]:
    out = []
    for number, address in nodes.items():
        if number == own:
            continue
        out.append(
            Peer(
                f"Mesh_{address.replace('.', '_')}",
                address,
                64512,
                nodes[own],
                passive=passive and ip_int(nodes[own]) < ip_int(address),
            )
        )
        if six:
            out.append(
                Peer(
                    f"Mesh6_{number}",
                    f"fd00:192:168:1::{number}0",
                    64512,
                    f"fd00:192:168:1::{own}0",
                    add_paths=False,
                    graceful=False,
                )
            )
    return tuple(out)


def reflected(nodes: dict[int, str], own: int) -> tuple[Peer, ...]:
    """node-1 reflects for the others."""
    if own == 1:
        return tuple(
            Peer(f"Node_{a.replace('.', '_')}", a, 64512, nodes[1], rr_client=True, cluster_id="224.0.0.1")
            for n, a in nodes.items()
            if n != 1
        )
    return (Peer("Node_192_168_1_10", nodes[1], 64512, nodes[own]),)


def build(case: str) -> Fabric:
    """The world of a recorded case, every daemon just started."""
    version = 2 if "bird2" in case else 1
    nodes = addresses(far="far" in case)
    six = case.endswith("dual")
    options: dict[str, object] = {"version": version, "filters": "static" if version == 2 else "calico"}
    if "nogr" in case:
        options |= {"graceful_restart": False, "hold_time": 9}
    elif "-gr" in case or case.startswith("rr"):
        options |= {"restart_time": 10, "hold_time": 9}
    fabric = Fabric(network(nodes, six=six))
    for number, address in nodes.items():
        made = (
            reflected(nodes, number)
            if case.startswith("rr")
            else peers(nodes, number, passive=version == 1, six=six)
        )
        blocks = BLOCKS[number] + ((BLOCKS6[number],) if six else ())
        config = Config(address, blocks=blocks, pools=(POOL,), peers=made, **options)  # type: ignore[arg-type]
        Bird(fabric, f"node-{number}", config).start()
    return fabric


def sample(fabric: Fabric) -> dict[str, frozenset[str]]:
    """The routes to pods a node, as the recorder took them."""
    return {
        name: frozenset(
            line.strip() for line in ip_route.show(fabric.network.ns(name)).splitlines() if "10.244." in line
        )
        for name in fabric.daemons
    }
