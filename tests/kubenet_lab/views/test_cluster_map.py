"""The map stays readable at any size that fits a course: nothing overlaps, nothing is cut."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
from pictures.svg import boxed_faults, faults, texts

from kubenet_lab.packet.packet import SYN, TCP, Packet
from kubenet_lab.trace import Hop, Step, Trace
from kubenet_lab.views.cluster_map import (
    MapDevice,
    MapModel,
    MapNode,
    MapPod,
    MapService,
    key,
    lane,
    lay_out,
    map_svg,
    short_name,
    way,
    way_points,
)
from kubenet_lab.views.theme import role_of, text_width, wrap

LONG = (
    "default/web",
    "kube-system/coredns-668d6bf9bc-abcde",
    "a-long-namespace-name/payment-service-7d9c5b6f4-x2x8k",
)


def model(nodes: int, pods: int, kind: str = "v4") -> MapModel:
    made = []
    for n in range(1, nodes + 1):
        own = [
            MapPod(
                f"{LONG[p % 3]}-{n}-{p}",
                f"10.244.{n}.{p + 2}" if kind == "v4" else f"fd00:10:244:{n}::{p + 2:x}",
                "eth0",
                f"veth{p}",
                "cni0",
            )
            for p in range(pods)
        ]
        devices = (
            MapDevice("eth0", "physical", f"192.168.1.{n * 10}/24", "", "underlay"),
            MapDevice("cni0", "bridge", f"10.244.{n}.1/24", "bridge"),
            MapDevice("flannel.1", "vxlan", f"10.244.{n}.0/32", "VXLAN, VNI 1"),
        )
        made.append(MapNode(f"node-{n}", "node", f"192.168.1.{n * 10}", tuple(own), devices))
    hosts = (
        MapNode(
            "router",
            "router",
            "192.168.1.1",
            (),
            (
                MapDevice("eth0", "physical", "192.168.1.1/24", "", "underlay"),
                MapDevice("eth1", "physical", "203.0.113.1/24", "", "internet"),
            ),
        ),
        MapNode(
            "outside",
            "host",
            "203.0.113.9",
            (),
            (MapDevice("eth0", "physical", "203.0.113.9/24", "", "internet"),),
        ),
    )
    services = tuple(MapService(f"default/service-number-{n}", f"10.96.0.{n}") for n in range(1, 20))
    return MapModel(tuple(made), hosts, services)


def crossing(a: str, b: str, pod_a: str, pod_b: str) -> Trace:
    """A packet from one node to another through flannel, with the hops only."""
    packet = Packet("10.244.1.2", "10.244.2.2", TCP, 1, 80, flags=SYN)
    route = [Step("route", "input")]
    hops = [
        Hop(pod_a, a, "", packet, [Step("send", "socket")], "eth0"),
        Hop(a, a, "veth0", packet, [Step("bridge", "cni0"), *route], "flannel.1"),
        Hop(a, a, "flannel.1", packet, route, "eth0", True),
        Hop(b, b, "eth0", packet, route, "", True),
        Hop(b, b, "flannel.1", packet, route, "veth0"),
        Hop(pod_b, b, "eth0", packet, [Step("deliver", "socket")]),
    ]
    return Trace(packet, "request", hops, "delivered", "socket")


@pytest.mark.parametrize("nodes", [1, 2, 3, 4, 5, 6, 7, 10])
@pytest.mark.parametrize("pods", [0, 1, 3, 7, 20])
def test_no_text_overlaps_or_leaves(nodes: int, pods: int) -> None:
    world = model(nodes, pods)
    marks = {"10.96.0.3": "called", f"{LONG[0]}-1-0": "caller", "outside": "caller"}
    broken = {
        key("node-1", "flannel.1"): "the FDB entry of node-2 is missing",
        key(f"{LONG[0]}-1-0"): "nothing listens on port 8080",
    }
    for svg in (map_svg(world), map_svg(world, marks=marks, faults=broken, selected=key("node-1"))):
        assert faults(svg) == []
        assert boxed_faults(svg) == []


def test_ipv6_addresses_fit() -> None:
    svg = map_svg(model(5, 4, "v6"))
    assert faults(svg) == []
    assert boxed_faults(svg) == []


def test_every_name_is_shown_whole() -> None:
    world = model(3, 5)
    shown = "".join(text.words for text in texts(map_svg(world)))
    for node in world.nodes:
        assert node.address in shown
        for pod in node.pods:
            assert pod.netns.rpartition("/")[2] in shown
            assert pod.address in shown


NS = "{http://www.w3.org/2000/svg}"


def boxes(svg: str, cls: str) -> list[tuple[float, float, float, float]]:
    """Left, top, width and height of every rectangle of a class."""
    return [
        (float(n.attrib["x"]), float(n.attrib["y"]), float(n.attrib["width"]), float(n.attrib["height"]))
        for n in ElementTree.fromstring(svg).iter(f"{NS}rect")
        if cls in n.get("class", "").split()
    ]


@pytest.mark.parametrize(("nodes", "pods"), [(1, 1), (3, 3), (3, 5), (10, 20)])
def test_pods_stand_on_one_grid_above_their_bridge(nodes: int, pods: int) -> None:
    svg = map_svg(model(nodes, pods), marks={f"{LONG[0]}-1-0": "caller"})
    cards, bridges = boxes(svg, "f-pod"), [b for b in boxes(svg, "f-bridge") if b[3] > 10]
    assert len(cards) == nodes * pods
    assert len({(w, h) for _, _, w, h in cards}) == 1
    offsets = set()
    for left, top, width, _ in bridges:
        own = [c for c in cards if left - 1 <= c[0] <= left + width and c[1] < top]
        assert max(round(c[1] + c[3], 1) for c in own if top - c[1] < 250) == round(top - 18, 1)
        offsets |= {round(c[0] - left) for c in own}
    assert len(offsets) <= 4


def test_at_rest_no_line_runs_over_a_bar() -> None:
    world = model(3, 3)
    parts = list(ElementTree.fromstring(map_svg(world)).iter())
    bars = [
        (at, node)
        for at, node in enumerate(parts)
        if set(node.get("class", "").split()) & {"f-bridge", "f-band", "f-tunnel", "f-bg"}
    ]
    assert len(bars) >= 12
    for at, node in enumerate(parts):
        if node.tag != f"{NS}path" or "s-line" not in node.get("class", "").split():
            continue
        points = [tuple(map(float, p.split())) for p in node.attrib["d"].removeprefix("M").split("L")]
        for where, bar in bars:
            x, y, w, h = (float(bar.attrib[name]) for name in ("x", "y", "width", "height"))
            for (ax, ay), (bx, by) in pairwise(points):
                over = (
                    max(ax, bx) > x
                    and min(ax, bx) < x + w
                    and max(ay, by) > y + 0.1
                    and min(ay, by) < y + h - 0.1
                )
                assert not over or at < where, "the bar is drawn later and hides the line"


def test_bridged_packets_run_along_the_bus_and_not_through_the_kernel() -> None:
    world = model(1, 3)
    layout = lay_out(world)
    one, two = (pod.netns for pod in world.nodes[0].pods[::2])
    packet = Packet("10.244.1.2", "10.244.1.3", TCP, 1, 80, flags=SYN)
    hops = [
        Hop(one, "node-1", "", packet, [Step("send", "socket")], "eth0"),
        Hop("node-1", "node-1", "veth0", packet, [Step("bridge", "cni0")], "veth2"),
        Hop(two, "node-1", "eth0", packet, [Step("deliver", "socket")]),
    ]
    points = [p for p, _ in way_points(layout, way(layout, Trace(packet, "request", hops, "delivered")))]
    bus = layout.points[key("node-1", "cni0")][1]
    assert max(y for _, y in points) == bus
    assert [x for x, y in points if y == bus] == [layout.points[key("node-1", f"veth{n}")][0] for n in (0, 2)]


@pytest.mark.parametrize(
    ("netns", "words"),
    [
        ("default/frontend", ("frontend", "", "")),
        ("kube-system/coredns-668d6bf9bc-x2x8k", ("coredns", "-668d6bf9bc-x2x8k", "kube-system")),
        ("default/kube-flannel-ds-8xk2p", ("kube-flannel-ds", "-8xk2p", "")),
        ("default/db-0", ("db", "-0", "")),
        ("default/my-nginx", ("my-nginx", "", "")),
        ("node-1", ("node", "-1", "")),
    ],
)
def test_a_pods_name_is_its_workload_and_a_suffix(netns: str, words: tuple[str, str, str]) -> None:
    assert short_name(netns) == words


@pytest.mark.parametrize(
    ("workload", "role"),
    [
        ("frontend", "frontend"),
        ("shop-api", "backend"),
        ("database", "database"),
        ("coredns", "dns"),
        ("x", ""),
    ],
)
def test_a_role_is_told_by_the_name(workload: str, role: str) -> None:
    assert role_of(workload) == role


def test_many_pods_are_two_lines_each_and_keep_their_addresses() -> None:
    world = model(10, 20)
    svg = map_svg(world)
    assert float(ElementTree.fromstring(svg).attrib["height"]) < 2700
    shown = [text.words for text in texts(svg)]
    for node in world.nodes:
        for pod in node.pods:
            assert pod.address in shown
            assert f'aria-label="pod {pod.netns} {pod.address}"' in svg


def test_a_way_visits_each_place_in_order() -> None:
    world = model(2, 2)
    a, b = (node.pods[0].netns for node in world.nodes)
    layout = lay_out(world)
    visited = [name for name, _ in way(layout, crossing("node-1", "node-2", a, b))]
    assert visited == [
        key(a),
        key(a, "eth0"),
        key("node-1", "veth0"),
        key("node-1", "cni0"),
        key("node-1"),
        key("node-1", "flannel.1"),
        key("node-1", "eth0"),
        key("node-2", "eth0"),
        key("node-2", "flannel.1"),
        key("node-2"),
        key("node-2", "veth0"),
        key(b, "eth0"),
        key(b),
    ]


@pytest.mark.parametrize("nodes", [2, 7])
def test_a_way_is_one_upright_line_and_its_tunnel_part_crosses_the_wire(nodes: int) -> None:
    world = model(nodes, 9)
    last = world.nodes[-1]
    layout = lay_out(world)
    trace = crossing("node-1", last.name, world.nodes[0].pods[0].netns, last.pods[0].netns)
    points = way_points(layout, way(layout, trace))
    assert len(points) > 8
    for ((x1, y1), _), ((x2, y2), _) in pairwise(points):
        assert abs(x1 - x2) < 0.1 or abs(y1 - y2) < 0.1, "a slanted piece"
    lowest = max(points, key=lambda p: p[0][1])
    assert lowest[1], "the lowest point is the wire, and the packet is inside a tunnel there"


def test_lanes_of_two_directions_never_lie_on_each_other() -> None:
    there = [(0.0, 0.0), (0.0, 50.0), (80.0, 50.0), (80.0, 10.0)]
    one, other = lane(there, 4), lane(list(reversed(there)), 4)
    assert not set(one) & set(other)
    assert lane([(0.0, 0.0), (10.0, 0.0)], 4) == [(0.0, 4.0), (10.0, 4.0)]


def test_legend_names_what_is_drawn_and_faults_are_words() -> None:
    world = model(2, 1)
    trace = crossing("node-1", "node-2", world.nodes[0].pods[0].netns, world.nodes[1].pods[0].netns)
    words = [
        t.words for t in texts(map_svg(world, [trace], faults={key("node-2", "flannel.1"): "no FDB entry"}))
    ]
    assert "request" in words
    assert "reply" not in words
    assert "inside a tunnel: a letter in a letter" in words
    assert "✕ fault at node-2 flannel.1: no FDB entry" in words
    assert "✕ fault" in words


def test_the_map_carries_both_sets_of_colours_and_asks_for_nothing() -> None:
    svg = map_svg(model(1, 1))
    assert "prefers-color-scheme:dark" in svg
    assert 'data-jp-theme-light="false"' in svg
    root = ElementTree.fromstring(svg)
    for node in root.iter():
        for value in node.attrib.values():
            assert "http" not in value or value.startswith("http://www.w3.org/")
    assert root.attrib["aria-label"]


@pytest.mark.parametrize(
    "text", ["a-b-c", "backend-7d9c5b6f4-x2x8k", "192.168.100.200", "words with blanks between"]
)
@pytest.mark.parametrize("width", [30, 60, 1000])
def test_wrap_loses_nothing_and_keeps_to_the_width(text: str, width: float) -> None:
    lines = wrap(text, width, 12, breaks=" -.")
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(text_width(line, 12) <= width for line in lines)
