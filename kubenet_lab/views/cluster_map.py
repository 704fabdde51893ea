"""The map of a cluster: nodes left to right, pods on top, bridge, kernel and devices beneath, the wire at the bottom.

`model_of` reads a network, `lay_out` gives every thing a place, `map_svg` draws. The shape is always the same, so
plain arithmetic places things better than a general graph layout, and costs a few milliseconds.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from msgspec import Struct

from kubenet_lab.trace import Hop, Trace
from kubenet_lab.views.theme import Box, Picture, Point, Svg, image, role_of, text_width, wrap

if TYPE_CHECKING:
    from kubenet_lab.kernel.link import Link
    from kubenet_lab.kernel.netns import Netns
    from kubenet_lab.kernel.network import Network

WIDTH = 1000.0
"""Width of the picture in pixels, so that it fits a 1024 pixel screen."""

_TUNNELS = ("vxlan", "ipip", "wireguard", "geneve", "gre")
_PAD = 10.0
_LANE = 4.0
_DROP = 15.0
_BYPASS = 28.0


class MapPod(Struct, frozen=True):
    """A pod: its namespace in the network ("default/frontend") and the node's end of its veth pair."""

    netns: str
    address: str = ""
    link: str = ""
    port: str = ""
    master: str = ""


class MapDevice(Struct, frozen=True):
    """A bridge, tunnel or physical device of a node. `note` says the most useful thing about it."""

    name: str
    kind: str
    address: str = ""
    note: str = ""
    wire: str = ""
    up: bool = True


class MapNode(Struct, frozen=True):
    """A node, or another host on the wire (`role` "router" or "host")."""

    name: str
    role: str = "node"
    address: str = ""
    pods: tuple[MapPod, ...] = ()
    devices: tuple[MapDevice, ...] = ()


class MapService(Struct, frozen=True):
    """A Service and its virtual address."""

    name: str
    address: str


class MapModel(Struct, frozen=True):
    """What the map shows, and nothing else."""

    nodes: tuple[MapNode, ...] = ()
    hosts: tuple[MapNode, ...] = ()
    services: tuple[MapService, ...] = ()


def _first_address(ns: Netns, dev: str) -> str:
    for address in ns.addresses.get(dev, ()):
        if address.family == 4 or address.scope == "global":
            return address.local
    return ""


def _device(ns: Netns, link: Link) -> MapDevice:
    address = next(
        (f"{a.local}/{a.length}" for a in ns.addresses.get(link.name, ()) if a.scope != "link"), ""
    )
    note = ""
    if link.vxlan is not None:
        name = {"geneve": "Geneve"}.get(link.kind, "VXLAN")
        note = f"{name}, VNI {link.vxlan.vni}" if not link.vxlan.external else f"{name}, set by BPF"
    elif link.kind == "bridge":
        note = "bridge"
    elif link.wireguard is not None:
        count = len(link.wireguard.peers)
        note = f"WireGuard, {count} peer{'' if count == 1 else 's'}"
    elif link.lower is not None:
        note = f"VLAN {link.vlan.id}" if link.vlan is not None else link.kind
        note += f" on {link.lower.link}"
    return MapDevice(link.name, link.kind, address, note, link.wire, link.up)


def _host(ns: Netns, role: str, pods: Iterable[MapPod]) -> MapNode:
    shown = [link for link in ns.links.values() if link.kind not in ("loopback", "veth")]
    devices = tuple(_device(ns, link) for link in shown)
    uplink = next((d for d in devices if d.wire and d.address), None)
    return MapNode(ns.name, role, uplink.address.partition("/")[0] if uplink else "", tuple(pods), devices)


def model_of(network: Network, names: Mapping[str, str] | None = None) -> MapModel:
    """Read the map off a network. `names` (address -> "Service default/backend") adds what the kernel cannot know.

    A host with pods, a bridge or a tunnel is a node; a host that others use as their default gateway is a router.
    """
    names = names or {}
    pods: dict[str, list[MapPod]] = {}
    gateways: set[str] = set()
    for ns in network.netns.values():
        for route in ns.routes.get((4, 254), {}).values():
            if ns.name == ns.host and route.via and not route.onlink and route.dst == "0.0.0.0/0":
                gateways.add(route.via)
        if ns.name == ns.host:
            continue
        link = next((link for link in ns.links.values() if link.peer is not None), None)
        port = link.peer.link if link is not None and link.peer is not None else ""
        host = network.netns.get(ns.host)
        master = host.links[port].master if host is not None and port in host.links else ""
        address = _first_address(ns, link.name) if link is not None else ""
        pods.setdefault(ns.host, []).append(
            MapPod(ns.name, address, link.name if link is not None else "", port, master)
        )
    nodes, hosts = [], []
    for ns in network.netns.values():
        if ns.name != ns.host:
            continue
        own = [a.local for entries in ns.addresses.values() for a in entries]
        kinds = {link.kind for link in ns.links.values()}
        if (
            ns.name in pods
            or "bridge" in kinds
            or kinds & set(_TUNNELS)
            or any(names.get(a, "").startswith("node ") for a in own)
        ):
            nodes.append(_host(ns, "node", pods.get(ns.name, ())))
        else:
            hosts.append(_host(ns, "router" if gateways.intersection(own) else "host", ()))
    services = [
        MapService(label.partition(" ")[2], address)
        for address, label in names.items()
        if label.startswith("Service ")
    ]
    return MapModel(tuple(nodes), tuple(hosts), tuple(services))


def key(netns: str, link: str = "") -> str:
    """Return the name of a place on the map: a namespace, or a link in it."""
    return f"{netns}#{link}"


def _straight(points: list[Point]) -> list[Point]:
    """Leave out where a line runs on and comes straight back: from port to port along a bridge's bus."""
    out: list[Point] = []
    for point in points:
        while len(out) > 1 and _back(out[-2], out[-1], point):
            out.pop()
        out.append(point)
    return out


def _back(a: Point, b: Point, c: Point) -> bool:
    (ax, ay), (bx, by) = _unit(a, b), _unit(b, c)
    return ax * bx + ay * by < -0.99


class Layout:
    """Every place of the map with its coordinates, and the ways between neighbouring places."""

    def __init__(self) -> None:
        self.points: dict[str, Point] = {}
        self.boxes: dict[str, Box] = {}
        self.ways: dict[str, dict[str, tuple[Point, ...]]] = {}
        self.height = 0.0
        self._routes: dict[tuple[str, str], list[Point]] = {}

    def join(self, a: str, b: str, between: Sequence[Point] = ()) -> None:
        """Connect two places, through corner points seen from `a`."""
        self.ways.setdefault(a, {})[b] = tuple(between)
        self.ways.setdefault(b, {})[a] = tuple(reversed(between))

    def route(self, a: str, b: str) -> list[Point]:
        """Return the points from place `a` to place `b` over the fewest places; [] when there is no way."""
        found = self._routes.get((a, b))
        if found is not None:
            return found
        came: dict[str, str] = {a: ""}
        queue = deque([a])
        while queue and b not in came:
            here = queue.popleft()
            for there in self.ways.get(here, ()):
                if there not in came:
                    came[there] = here
                    queue.append(there)
        points: list[Point] = []
        if b in came:
            stops = [b]
            while stops[-1] != a:
                stops.append(came[stops[-1]])
            stops.reverse()
            points = [self.points[a]]
            for here, there in pairwise(stops):
                points += [*self.ways[here][there], self.points[there]]
            points = _straight(points)
        self._routes[a, b] = points
        return points


_SAFE = "[bcdfghjklmnpqrstvwxz2456789]"
_SUFFIX = re.compile(rf"-(?:{_SAFE}{{6,10}}-{_SAFE}{{5}}|{_SAFE}{{5}}|\d+)$")
"""What controllers append to a workload's name: letters that spell no words, or a StatefulSet's number.

Deployment: template hash and five letters; DaemonSet: five letters (apimachinery's util/rand `SafeEncodeString`).
"""


def short_name(netns: str) -> tuple[str, str, str]:
    """Return (workload, suffix, namespace to show) of a pod: ("coredns", "-668d6bf9bc-x2x8k", "kube-system").

    The namespace `default` is not shown; the suffix is "" where no controller named the pod.
    """
    space, _, name = netns.rpartition("/")
    found = _SUFFIX.search(name)
    at = found.start() if found is not None and found.start() else len(name)
    return name[:at], name[at:], "" if space == "default" else space


def brief_suffix(suffix: str) -> str:
    """Return a suffix without its template hash: "…-x2x8k"."""
    return "…-" + suffix.rpartition("-")[2] if suffix.count("-") > 1 else suffix


Line = tuple[str, float, bool, bool, str]
"""(text, size, bold, monospaced, class)."""


class _Grid(Struct):
    """How pods stand on every node of a map: cards of one size in columns, the last row just above the bridge."""

    columns: int
    width: float
    height: float
    gutter: float = 0.0
    """Room left of each card for the cable of the pods above one another; 0 where one row holds all."""
    whole: bool = True
    """Suffixes are shown with their template hash."""
    dense: bool = False
    """Many pods: a card is two lines, and what does not fit them is cut with an ellipsis."""

    @property
    def gap(self) -> float:
        """Room between two rows."""
        return _GAP / 2 if self.dense else _GAP


_GAP, _INSET = 8.0, 7.0
_MANY_ROWS = 5
_NAME, _SMALL, _ADDRESS = 12.0, 10.5, 11.0
_ICON_ROOM = 16.0


def _name_lines(workload: str, room: float) -> list[str]:
    return wrap(workload, room - (_ICON_ROOM if role_of(workload) else 0.0), _NAME, bold=True, breaks="-.")


def _cut(text: str, room: float, size: float, *, bold: bool = False) -> str:
    """Return a text that fits, with an ellipsis where letters had to go; "" where hardly one fits."""
    if text_width(text, size, bold=bold) <= room:
        return text
    while text and text_width(text + "…", size, bold=bold) > room:
        text = text[:-1]
    return text + "…" if len(text) > 1 else ""


class _Words(Struct):
    """What stands on a pod's card: rows of lines side by side, at its top and at its foot."""

    head: list[list[Line]]
    foot: list[list[Line]]

    @property
    def height(self) -> float:
        """How much of a card it needs."""
        return _rows_height(self.head) + _rows_height(self.foot) + 10


def _rows_height(rows: Iterable[list[Line]]) -> float:
    return sum(max(line[1] for line in row) + 3.5 for row in rows)


def _card_words(pod: MapPod, room: float, grid: _Grid, mark: str, fault: str) -> _Words:
    workload, suffix, space = short_name(pod.netns)
    suffix = suffix if grid.whole else brief_suffix(suffix)
    head: list[list[Line]]
    foot: list[list[Line]] = []
    for text, tone in ((mark, "t-request"), ("✕ fault" if fault else "", "t-fault")):
        if text:
            foot += [[(line, 11, True, False, tone)] for line in wrap(text, room, 11, bold=True)]
    addresses = wrap(pod.address, room, _ADDRESS, mono=True, breaks=":.") if pod.address else []
    foot += [[(line, _ADDRESS, False, True, "")] for line in addresses]
    if not grid.dense:
        head = [[(line, _NAME, True, False, "")] for line in _name_lines(workload, room)]
        for text in (suffix, space):
            if text:
                head += [
                    [(line, _SMALL, False, False, "t-soft")] for line in wrap(text, room, _SMALL, breaks="-.")
                ]
        return _Words(head, foot)
    left = room - (_ICON_ROOM if role_of(workload) else 0.0)
    name = _cut(workload, left, 11, bold=True)
    head = [[(name, 11, True, False, "")]]
    left -= text_width(name, 11, bold=True) + 2
    if suffix and (text := _cut(brief_suffix(suffix), left, _SMALL)):
        head[0].append((text, _SMALL, False, False, "t-soft"))
    if space and addresses:
        left = room - text_width(addresses[-1], _ADDRESS, mono=True) - 6
        if text := _cut(space, left, _SMALL):
            foot[-1].append((text, _SMALL, False, False, "t-soft"))
    return _Words(head, foot)


def _grid(
    nodes: Sequence[MapNode], inner: float, marks: Mapping[str, str], faults: Mapping[str, str]
) -> _Grid:
    """Return the grid that shows the pods of every node in the fewest rows that leave names and addresses whole."""
    pods = [pod for node in nodes for pod in node.pods]
    if not pods:
        return _Grid(1, inner, 0.0)
    most = max(len(node.pods) for node in nodes)
    columns, dense = 1, False
    for count in range(min(most, 4), 1, -1):
        room = _room(inner, count, most)
        dense = -(-most // count) > _MANY_ROWS
        if all(
            text_width(pod.address, _ADDRESS, mono=True) <= room
            and (dense or _fits(_name_lines(name := short_name(pod.netns)[0], room), name))
            for pod in pods
        ):
            columns = count
            break
    room = _room(inner, columns, most)
    grid = _Grid(
        columns,
        room + 2 * _INSET,
        0.0,
        14.0 if most > columns else 0.0,
        all(text_width(short_name(pod.netns)[1], _SMALL) <= room for pod in pods),
        -(-most // columns) > _MANY_ROWS,
    )
    for pod in pods:
        words = _card_words(pod, room, grid, marks.get(pod.netns, ""), faults.get(key(pod.netns), ""))
        grid.height = max(grid.height, words.height)
    return grid


def _room(inner: float, columns: int, most: int) -> float:
    """Return the width for words on a pod's card."""
    gutter = 14.0 if most > columns else 0.0
    return min((inner - (columns - 1) * _GAP) / columns - gutter, 170.0) - 2 * _INSET


def _fits(lines: Sequence[str], name: str) -> bool:
    """True for a name on at most two lines, broken after a dash or a dot only."""
    return len(lines) == 1 or (len(lines) == 2 and lines[0][-1] in "-.")


class _Painter:
    """Lays out and draws at once, top to bottom; the layout it leaves behind is what paths are drawn on."""

    def __init__(
        self,
        model: MapModel,
        marks: Mapping[str, str],
        faults: Mapping[str, str],
        selected: str,
        lanes: bool = False,
        traces: Sequence[Trace] = (),
    ) -> None:
        self.model = model
        self.lanes = lanes
        self.visited = {hop.netns for trace in traces for hop in trace.hops}
        self.grid = _Grid(1, 0.0, 0.0)
        self.spine = 46.0
        self.marks = marks
        self.faults = faults
        self.selected = selected
        self.svg = Svg(WIDTH)
        self.out = Layout()

    def place(self, name: str, box: Box, point: Point, label: str) -> None:
        netns, _, link = name.partition("#")
        self.out.boxes[name] = box
        self.out.points[name] = point
        self.svg.hit(box, label, netns=netns, link=link)
        if name in self.faults:
            self.svg.rect(Box(box.x - 1, box.y - 1, box.w + 2, box.h + 2), "flt")
        if name == self.selected:
            self.svg.rect(Box(box.x - 2.5, box.y - 2.5, box.w + 5, box.h + 5), "sel", radius=8)

    def services(self, y: float) -> float:
        if not self.model.services:
            return y
        x = _PAD
        caption = "Services (addresses that exist only as rules in every node's kernel)"
        self.svg.text(x, y + 12, caption, 12, cls="t-soft h-bg")
        y += 20
        shown = list(self.model.services)
        marked = [s for s in shown if s.address in self.marks]
        shown = marked + [s for s in shown if s not in marked]
        hidden = max(0, len(shown) - 12)
        for service in shown[:12]:
            mark = self.marks.get(service.address, "")
            name = service.name.removeprefix("default/")
            name_w, address_w = text_width(name, 12, bold=True), text_width(service.address, 11, mono=True)
            mark_w = text_width(f"▸ {mark}", 11, bold=True) + 8 if mark else 0
            role = role_of(service.name.rpartition("/")[2])
            icon_w = 19.0 if role else 0.0
            width = min(icon_w + name_w + address_w + mark_w + 28, WIDTH - 2 * _PAD)
            if x > _PAD and x + width > WIDTH - _PAD:
                x, y = _PAD, y + 30
            box = Box(x, y, width, 24)
            self.svg.rect(box, "f-service s-serviceline", radius=12)
            self.svg.icon(x + 11, y + 6, role)
            at = x + 11 + icon_w
            self.svg.text(at, y + 16, name, 12, bold=True)
            self.svg.text(at + name_w + 7, y + 16, service.address, 11, mono=True)
            if mark:
                at += name_w + address_w + 15
                self.svg.text(at, y + 16, f"▸ {mark}", 11, bold=True, cls="t-request")
            self.place(
                key(f"service:{service.name}"),
                box,
                (box.cx, box.bottom),
                f"Service {service.name} {service.address}",
            )
            x += width + 8
        if hidden:
            more = f"and {hidden} more"
            if x + text_width(more, 12) > WIDTH - _PAD:
                x, y = _PAD, y + 30
            self.svg.text(x + 4, y + 16, more, 12, cls="t-soft")
        return y + 34

    def bar(
        self,
        name: str,
        box_at: tuple[float, float, float],
        title: str,
        details: Sequence[tuple[str, bool]],
        classes: tuple[str, str],
        room: float,
        bus: bool = False,
    ) -> Box:
        """Draw a bridge, the kernel or a device as a bar at (x, y, width), with room above its words for a bus.

        `details` are (text, monospaced); they follow the title on its line where there is room. `classes` are the
        bar's and its words' ground.
        """
        x, y, width = box_at
        cls, ground = classes
        if name in self.faults:
            details = [*details, ("✕ fault", False)]
        pieces = [
            (title, 12.0, True, False),
            *((text, 11.0, text == "✕ fault", mono) for text, mono in details if text),
        ]
        rows: list[list[tuple[str, float, bool, bool, float]]] = [[]]
        used = 0.0
        for text, size, bold, mono in pieces:
            for line in wrap(text, room, size, bold=bold, mono=mono, breaks=" ./:"):
                length = text_width(line, size, bold=bold, mono=mono)
                if rows[-1] and used + length > room:
                    rows.append([])
                    used = 0.0
                rows[-1].append((line, size, bold, mono, used))
                used += length + 9
        top = 17.0 if bus and self.lanes else 6.0
        box = Box(x, y, width, top + 6 + len(rows) * 14.5)
        self.svg.rect(box, cls)
        for index, row in enumerate(rows):
            for line, size, bold, mono, at in row:
                tint = "t-fault" if line == "✕ fault" else "t-soft" if not bold else ""
                self.svg.text(
                    x + 10 + at,
                    y + top + 11 + index * 14.5,
                    line,
                    size,
                    bold=bold,
                    mono=mono,
                    cls=f"{tint} h-{ground}".strip(),
                )
        return box

    def bus(self, box: Box) -> float:
        """Return how far down a bar's bus runs, the line along which it takes packets from pod to pod."""
        return box.y + 9 if self.lanes else box.cy

    def pods(self, node: MapNode, x: float, bottom: float) -> list[tuple[MapPod, Point, list[Point]]]:
        """Draw a node's pods down to `bottom`; return each with its port and the corner points on its way down."""
        grid = self.grid
        rows = -(-len(node.pods) // grid.columns)
        missing = rows * grid.columns - len(node.pods)
        ports: list[tuple[MapPod, Point, list[Point]]] = []
        for index, pod in enumerate(node.pods):
            # The top row is the one with empty places, so that the row at the bridge is full.
            row, column = divmod(index + (missing if index >= grid.columns - missing else 0), grid.columns)
            left = x + column * (grid.gutter + grid.width + _GAP)
            y = bottom - (rows - row) * (grid.height + grid.gap) + grid.gap
            box = Box(left + grid.gutter, y, grid.width, grid.height)
            self.card(pod, box)
            cable = (left + grid.gutter / 2, box.cy)
            port, corners = ((box.x, box.cy), [cable]) if grid.gutter else ((box.cx, box.bottom), [])
            self.place(key(pod.netns), box, port, f"pod {pod.netns} {pod.address}")
            self.out.points[key(pod.netns, pod.link)] = port
            self.out.join(key(pod.netns), key(pod.netns, pod.link))
            ports.append((pod, port, corners))
        return ports

    def card(self, pod: MapPod, box: Box) -> None:
        """Draw a pod's card: name and icon at its top, marks and address at its foot."""
        role = role_of(short_name(pod.netns)[0])
        ground = role or "pod"
        self.svg.rect(box, f"f-pod f-{ground} s-{ground}line", extra=' stroke-width="1.3"')
        self.svg.icon(box.right - _INSET - 12, box.y + 6.5, role)
        words = _card_words(
            pod,
            box.w - 2 * _INSET,
            self.grid,
            self.marks.get(pod.netns, ""),
            self.faults.get(key(pod.netns), ""),
        )
        for rows, y in ((words.head, box.y + 4), (words.foot, box.bottom - 5 - _rows_height(words.foot))):
            for row in rows:
                y += max(line[1] for line in row) + 3.5
                x = box.x + _INSET
                for text, size, bold, mono, cls in row:
                    self.svg.text(x, y - 3, text, size, bold=bold, mono=mono, cls=f"{cls} h-{ground}".strip())
                    x += text_width(text, size, bold=bold, mono=mono) + (6 if mono else 2)

    def head_height(self, node: MapNode, inner: float) -> float:
        one_line = (
            text_width(node.name, 14, bold=True) + text_width(node.address, 11, mono=True) + 12 <= inner
        )
        return 32 if one_line else 46

    def pods_height(self, node: MapNode, inner: float) -> float:
        """Return how much room a node's head and pods need."""
        rows = -(-len(node.pods) // self.grid.columns)
        return self.head_height(node, inner) + max(
            0.0, rows * (self.grid.height + self.grid.gap) - self.grid.gap
        )

    def bars_height(self, node: MapNode, width: float) -> float:
        """Return how much room a node's bars need, by drawing them on a sheet that is thrown away."""
        sheet = _Painter(self.model, self.marks, self.faults, "", self.lanes)
        sheet.grid, sheet.spine = self.grid, self.spine
        return sheet.node(node, 0.0, 0.0, width, 0.0).bottom

    def node(self, node: MapNode, x: float, y: float, width: float, above_bars: float) -> Box:
        """Draw one node's card, its pods ending at `above_bars`; return its box. Lines to the wire come later.

        A packet goes straight down the spine, a column right of all words: bridge, kernel, tunnel, physical device.
        """
        svg, out, inner = self.svg, self.out, width - 2 * _PAD
        slot = len(svg.parts)
        left = x + _PAD
        svg.text(left, y + 20, node.name, 14, bold=True)
        if self.head_height(node, inner) < 40:
            svg.text(x + width - _PAD, y + 20, node.address, 11, mono=True, cls="t-soft", anchor="end")
        else:
            svg.text(left, y + 36, node.address, 11, mono=True, cls="t-soft")
        lines_slot = len(svg.parts)
        lines: list[str] = []
        ports = self.pods(node, left, above_bars)
        bottom = above_bars + 18
        spine, room = left + inner - self.spine, inner - self.spine - 18
        masters = {pod.master for pod in node.pods}
        bars: dict[str, Box] = {}
        kernel = key(node.name)
        for bridge in (d for d in node.devices if d.kind == "bridge"):
            name = key(node.name, bridge.name)
            box = self.bar(
                name,
                (left, bottom, inner),
                f"{bridge.name} bridge",
                [(bridge.address, True)],
                ("f-bridge s-bridgeline", "bridge"),
                room,
                True,
            )
            bars[bridge.name] = box
            self.place(name, box, (spine, self.bus(box)), f"bridge {bridge.name} on {node.name}")
            bottom = box.bottom + _DROP
        band = self.bar(
            kernel,
            (left, bottom, inner),
            "kernel",
            [("routes, rules, conntrack", False)],
            ("f-band s-line", "band"),
            room,
            bool(masters - set(bars)),
        )
        entry = (spine, self.bus(band) if masters - set(bars) else band.cy)
        self.place(kernel, band, entry, f"kernel of {node.name}")
        for device, box in bars.items():
            lines.append(_line([(spine, box.cy), entry]))
            out.join(key(node.name, device), kernel)
        for pod, port, corners in ports:
            bar = bars.get(pod.master, band)
            attach = (corners[-1][0] if corners else port[0], self.bus(bar))
            veth = key(node.name, pod.port)
            out.points[veth] = attach
            out.join(key(pod.netns, pod.link), veth, corners)
            out.join(veth, key(node.name, pod.master) if pod.master in bars else kernel)
            lines.append(_line([port, *corners, attach]))
        for at, top in sorted(
            {(out.points[key(node.name, p.port)][0], bars.get(p.master, band).y) for p, _, _ in ports}
        ):
            plug = "f-bridge s-bridgeline" if any(box.y == top for box in bars.values()) else "f-band s-line"
            svg.rect(Box(at - 5, top - 4, 10, 6), plug, radius=1.5)
        bottom = self.devices(node, left, band, inner, lines)
        card = Box(x, y, width, bottom + _PAD - y)
        svg.parts[lines_slot:lines_slot] = lines
        svg.parts.insert(
            slot,
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{card.w:.1f}" height="{card.h:.1f}" rx="10" class="f-card s-line"/>',
        )
        return card

    def devices(self, node: MapNode, x: float, band: Box, inner: float, lines: list[str]) -> float:
        """Draw tunnels under the kernel, physical devices under them; return where they end.

        Tunnels leave a strip free on their right, where a packet passes that needs none.
        """
        tunnels = [d for d in node.devices if d.kind in _TUNNELS]
        others = [d for d in node.devices if d.kind not in ("bridge", *_TUNNELS)]
        kernel, bottom = key(node.name), band.bottom
        entry = self.out.points[kernel]
        spine, room = x + inner - self.spine, inner - self.spine - 18
        entrances: list[tuple[str, Point]] = []
        for device in tunnels:
            name = key(node.name, device.name)
            down = [("down", False)] if not device.up else []
            details = [(device.note, False), (device.address.partition("/")[0], True), *down]
            box = self.bar(
                name,
                (x, bottom + _DROP, inner - _BYPASS),
                device.name,
                details,
                ("f-tunnel s-tunnelline", "tunnel"),
                room,
            )
            point = (spine, box.cy)
            self.place(name, box, point, f"{device.note} {device.name} on {node.name}")
            lines.append(_line([entry, point]))
            self.out.join(kernel, name)
            entrances.append((name, point))
            bottom = box.bottom
        aside = x + inner - _BYPASS / 2 if tunnels else spine
        for device in others:
            name = key(node.name, device.name)
            details = [(device.address.partition("/")[0], True)] + (
                [("down", False)] if not device.up else []
            )
            box = self.bar(
                name, (x, bottom + _DROP, inner), device.name, details, ("f-bg s-line", "bg"), room
            )
            point = (spine, box.cy)
            self.place(name, box, point, f"{device.name} on {node.name}")
            round_ = [(aside, entry[1]), (aside, box.cy)] if tunnels else []
            lines.append(_line([entry, *round_, point]))
            self.out.join(kernel, name, round_)
            for tunnel, start in entrances:
                lines.append(_line([start, point]))
                self.out.join(tunnel, name)
            bottom = box.bottom
        return bottom

    def draw(self) -> None:
        """Draw everything but paths and the legend."""
        out, svg = self.out, self.svg
        y = self.services(8.0)
        count = len(self.model.nodes)
        rows = max(1, -(-count // 5))
        columns = max(1, -(-count // rows))
        trunk = 22.0 if rows > 1 else 0.0
        usable = WIDTH - 2 * _PAD - trunk
        width = min(400.0, (usable - (columns - 1) * 12) / columns)
        self.grid = _grid(self.model.nodes, width - 2 * _PAD, self.marks, self.faults)
        if not self.grid.gutter and 80 < self.grid.width < 110:
            self.spine = self.grid.width / 2
        wire = next((d.wire for n in self.model.nodes for d in n.devices if d.wire), "")
        wires: list[float] = []
        trunk_x = _PAD + 4
        for row in range(rows):
            nodes = self.model.nodes[row * columns : (row + 1) * columns]
            left = _PAD + trunk + max(0.0, (usable - len(nodes) * width - (len(nodes) - 1) * 12) / 2)
            above = y + max((self.pods_height(node, width - 2 * _PAD) for node in nodes), default=0.0)
            # A node with fewer bars stands lower, so that the physical devices of a row are in line.
            heights = [self.bars_height(node, width) for node in nodes]
            slots = [
                (node, self.node(node, left + index * (width + 12), y, width, above + max(heights) - height))
                for index, (node, height) in enumerate(zip(nodes, heights, strict=True))
            ]
            bottom = max((card.bottom for _, card in slots), default=y)
            wire_y = bottom + 18
            wires.append(wire_y)
            if wire:
                for node, _card in slots:
                    for device in node.devices:
                        if device.wire == wire:
                            name = key(node.name, device.name)
                            x = out.points[name][0]
                            out.points[f"~{row}{node.name}"] = (x, wire_y)
                            svg.line([(x, out.boxes[name].bottom), (x, wire_y)], "s-line", 1.8)
                            out.join(name, f"~{row}{node.name}")
                            out.points[f"~{row}"] = (trunk_x if rows > 1 else _PAD + trunk, wire_y)
                            out.join(f"~{row}{node.name}", f"~{row}")
                            for other, _ in slots:
                                if other is not node and f"~{row}{other.name}" in out.points:
                                    out.join(f"~{row}{other.name}", f"~{row}{node.name}")
                svg.line([(trunk_x if rows > 1 else _PAD, wire_y), (WIDTH - _PAD, wire_y)], "s-ink", 3)
            y = wire_y + 26
        if wire:
            text = f"wire: {wire}"
            svg.text(WIDTH - _PAD, wires[-1] + 18, text, 12, cls="t-soft h-bg", anchor="end")
            for row in range(rows - 1):
                out.join(f"~{row}", f"~{row + 1}")
            if rows > 1:
                svg.line([(trunk_x, wires[0]), (trunk_x, wires[-1])], "s-ink", 3)
        y = self.hosts(wires[-1], wire, y, rows - 1)
        out.height = y

    def hosts(self, wire_y: float, wire: str, y: float, row: int) -> float:
        """Draw routers and outside hosts under the wire: those on it first, those behind them to the right."""
        out, svg = self.out, self.svg
        ordered: list[MapNode] = []
        reached, waiting = {wire}, list(self.model.hosts)
        while waiting:
            near = [h for h in waiting if any(d.wire in reached for d in h.devices)] or waiting[:1]
            # Those that lead nowhere else come first, so that no line to what is behind another runs through them.
            near.sort(key=lambda h: any(d.wire and d.wire not in reached for d in h.devices))
            ordered += near
            reached.update(d.wire for h in near for d in h.devices)
            waiting = [h for h in waiting if h not in near]
        x, bottom = _PAD + 36, y
        seen: dict[str, tuple[str, Box]] = {}
        most = max((sum(bool(d.address) for d in host.devices) for host in ordered), default=0)
        limit = WIDTH - _PAD - text_width(f"wire: {wire}", 12) - 20
        for host in ordered:
            words = [host.name] if host.role == host.name else [host.name, host.role]
            addresses = [f"{d.name} {d.address.partition('/')[0]}" for d in host.devices if d.address]
            width = (
                max(
                    [
                        text_width(words[0], 12, bold=True) + sum(text_width(w, 11) + 8 for w in words[1:]),
                        *(text_width(a, 11, mono=True) for a in addresses),
                    ]
                )
                + 18
            )
            # Under a trip the packet's way runs above the words.
            head = 14.0 if self.visited.intersection(other.name for other in self.model.hosts) else 0.0
            height = head + 26 + 14.5 * most + (15 if key(host.name) in self.faults else 0)
            if x + width > limit and x > _PAD + 36:
                x, y = _PAD + 36, bottom + 14
            box = Box(x, y, width, height)
            svg.rect(box, "f-card s-line")
            way_y = y + 9 if head else box.cy
            svg.text(x + 8, y + head + 17, words[0], 12, bold=True)
            if len(words) > 1:
                svg.text(
                    x + 16 + text_width(words[0], 12, bold=True), y + head + 17, words[1], 11, cls="t-soft"
                )
            for index, address in enumerate(addresses):
                svg.text(x + 8, y + head + 32 + index * 14.5, address, 11, mono=True, cls="t-soft")
            if key(host.name) in self.faults:
                svg.text(x + 8, y + height - 7, "✕ fault", 11, bold=True, cls="t-fault")
            mark = self.marks.get(host.name, "")
            if mark:
                svg.text(x + 8, y + height + 13, mark, 11, bold=True, cls="t-request h-bg")
            self.place(key(host.name), box, (x + 16, way_y), f"{host.role} {host.name}")
            for device in host.devices:
                name = key(host.name, device.name)
                if device.wire == wire and wire:
                    at = (x + 16, wire_y)
                    out.points[name] = (x + 16, box.y)
                    out.join(key(host.name), name)
                    out.points[f"~{row}{host.name}"] = at
                    svg.parts.append(_line([(x + 16, box.y), at]))
                    out.join(name, f"~{row}{host.name}")
                    for other in [
                        k for k in out.points if k.startswith(f"~{row}") and k != f"~{row}{host.name}"
                    ]:
                        out.join(f"~{row}{host.name}", other)
                elif device.wire and device.wire in seen:
                    other_key, other_box = seen[device.wire]
                    out.points[name] = (box.x, way_y)
                    out.join(key(host.name), name)
                    out.join(name, other_key)
                    svg.parts.append(_line([(other_box.right, way_y), (box.x, way_y)]))
                elif device.wire:
                    out.points[name] = (box.right, way_y)
                    out.join(key(host.name), name)
                    seen[device.wire] = (name, box)
            x += width + 60
            bottom = max(bottom, box.bottom + (16 if mark else 0))
        return bottom + 14


def _line(points: Sequence[Point], width: float = 1.8) -> str:
    data = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return f'<path d="{data}" class="nof s-line" stroke-width="{width}"/>'


def spot_key(layout: Layout, hop: Hop, spot: str) -> str:
    """Return the place on the map for a step's spot, or "" when the map does not show it."""
    name = key(hop.netns, spot)
    if spot and name in layout.points:
        return name
    if hop.encapsulated:
        for dev in (hop.outdev, hop.indev):
            if dev and key(hop.netns, dev) in layout.points:
                return key(hop.netns, dev)
    name = key(hop.netns)
    return name if name in layout.points else ""


def way(layout: Layout, trace: Trace) -> list[tuple[str, bool]]:
    """Return the places a trace visits on the map, in order, each with "as a tunnel's outer packet"."""
    out: list[tuple[str, bool]] = []

    def visit(name: str, outer: bool) -> None:
        if name in layout.points and (not out or out[-1][0] != name):
            out.append((name, outer))

    for hop in trace.hops:
        if hop.indev:
            visit(key(hop.netns, hop.indev), hop.encapsulated)
        if not hop.encapsulated:
            bridge = next((s.spot for s in hop.steps if s.kind == "bridge"), "")
            kernel = any(s.kind in ("route", "hook", "rule", "nat", "deliver", "send") for s in hop.steps)
            if bridge and (kernel or not hop.outdev):
                visit(key(hop.netns, bridge), False)
            if kernel:
                visit(key(hop.netns), False)
        if hop.outdev:
            visit(key(hop.netns, hop.outdev), hop.encapsulated)
    return out


def way_points(layout: Layout, places: Sequence[tuple[str, bool]]) -> list[tuple[Point, bool]]:
    """Return the corner points of a way; the flag says that the piece leading there was travelled inside a tunnel."""
    if not places:
        return []
    out: list[tuple[Point, bool]] = [(layout.points[places[0][0]], False)]
    for (a, _), (b, outer) in pairwise(places):
        for point in layout.route(a, b)[1:]:
            if point != out[-1][0]:
                out.append((point, outer))
    return out


def lane(points: Sequence[Point], offset: float) -> list[Point]:
    """Shift an upright polyline to the right of its direction of travel, so that both directions can be seen."""
    out: list[Point] = []
    moves = [_unit(a, b) for a, b in pairwise(points)]
    for index, (x, y) in enumerate(points):
        before = moves[index - 1] if index else None
        after = moves[index] if index < len(moves) else None
        sides = [(-dy * offset, dx * offset) for dx, dy in (m for m in (before, after) if m is not None)]
        if len(sides) == 2 and sides[0] == sides[1]:
            sides = sides[:1]
        if (
            len(sides) == 2
            and abs(sides[0][0] + sides[1][0]) < 0.01
            and abs(sides[0][1] + sides[1][1]) < 0.01
        ):
            out += [(x + sides[0][0], y + sides[0][1]), (x + sides[1][0], y + sides[1][1])]
        else:
            out.append((x + sum(s[0] for s in sides), y + sum(s[1] for s in sides)))
    return out


def _unit(a: Point, b: Point) -> Point:
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = (dx * dx + dy * dy) ** 0.5 or 1.0
    return (dx / length, dy / length)


_STYLES = {
    "request": ("request", ""),
    "reply": ("reply", ' stroke-dasharray="9 5"'),
    "error": ("error", ' stroke-dasharray="3 5"'),
}


def style_of(trace: Trace) -> str:
    """Return "request", "reply" or "error": how a trace's line is drawn."""
    return trace.role if trace.role in _STYLES else "request"


def draw_way(svg: Svg, layout: Layout, trace: Trace) -> set[str]:
    """Draw a trace over the map and return what the legend must explain."""
    points = way_points(layout, way(layout, trace))
    if len(points) < 2:
        return set()
    style = style_of(trace)
    colour, dashes = _STYLES[style]
    shifted = _shift(points)
    used = {style}
    for outer, piece in groupby(pairwise(shifted), lambda ends: ends[1][1]):
        if outer:
            used.add("tunnel")
            ends = list(piece)
            casing = [ends[0][0][0], *(b for _, (b, _) in ends)]
            svg.line(casing, "s-tunnelline", 9, ' opacity="0.45"')
    svg.line([point for point, _ in shifted], f"s-{colour}", 3, dashes)
    for a, b in _runs([point for point, _ in shifted])[:-1]:
        dx, dy = _unit(a, b)
        if abs(b[0] - a[0]) + abs(b[1] - a[1]) > 34:
            svg.arrow(((a[0] + b[0]) / 2 + dx * 4, (a[1] + b[1]) / 2 + dy * 4), (dx, dy), f"t-{colour}", 9)
    (a, _), (b, _) = shifted[-2:]
    svg.arrow(b, _unit(a, b), f"t-{colour}", 9)
    if trace.verdict and not trace.delivered:
        x, y = b
        svg.line([(x - 7, y - 7), (x + 7, y + 7)], "s-fault", 4)
        svg.line([(x - 7, y + 7), (x + 7, y - 7)], "s-fault", 4)
        used.add("end")
    return used


def _runs(points: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Return the straight runs of a line, end to end."""
    out: list[tuple[Point, Point]] = []
    for a, b in pairwise(points):
        if a == b:
            continue
        if out and _unit(*out[-1]) == _unit(a, b):
            out[-1] = (out[-1][0], b)
        else:
            out.append((a, b))
    return out


def _shift(points: Sequence[tuple[Point, bool]]) -> list[tuple[Point, bool]]:
    """Move a way to its lane, keeping each piece's tunnel flag."""
    out: list[tuple[Point, bool]] = []
    bare = [point for point, _ in points]
    for index, (_, outer) in enumerate(points):
        near = lane(bare[max(0, index - 1) : index + 2], _LANE)
        here = near[1:-1] if 0 < index < len(bare) - 1 else ([near[0]] if index == 0 else [near[-1]])
        out += [(point, outer) for point in here]
    return out


_LEGEND = {
    "request": "request",
    "reply": "reply",
    "error": "error sent back (ICMP or RST)",
    "tunnel": "inside a tunnel: a letter in a letter",
    "end": "here it ended",
}


def _legend(svg: Svg, y: float, used: set[str], faults: Mapping[str, str]) -> float:
    x = _PAD
    for name, words in _LEGEND.items():
        if name not in used:
            continue
        if name == "tunnel":
            svg.line([(x, y), (x + 34, y)], "s-tunnelline", 9, ' opacity="0.45"')
            svg.line([(x, y), (x + 34, y)], "s-request", 3)
        elif name == "end":
            svg.line([(x + 12, y - 6), (x + 24, y + 6)], "s-fault", 4)
            svg.line([(x + 12, y + 6), (x + 24, y - 6)], "s-fault", 4)
        else:
            colour, dashes = _STYLES[name]
            svg.line([(x, y), (x + 34, y)], f"s-{colour}", 3, dashes)
            svg.arrow((x + 34, y), (1, 0), f"t-{colour}", 9)
        svg.text(x + 42, y + 4, words, 12)
        x += 42 + text_width(words, 12) + 28
    if used:
        y += 22
    for name, words in faults.items():
        netns, _, link = name.partition("#")
        for line in wrap(f"✕ fault at {netns}{' ' + link if link else ''}: {words}", WIDTH - 2 * _PAD, 12):
            svg.text(_PAD, y + 4, line, 12, cls="t-fault")
            y += 18
    return y


def lay_out(
    model: MapModel,
    traces: Sequence[Trace] = (),
    *,
    marks: Mapping[str, str] | None = None,
    faults: Mapping[str, str] | None = None,
) -> Layout:
    """Return where everything is on the map that `map_svg` draws of the same traces, marks and faults."""
    painter = _Painter(model, marks or {}, faults or {}, "", True, traces)
    painter.draw()
    return painter.out


def map_svg(
    model: MapModel,
    traces: Sequence[Trace] = (),
    *,
    marks: Mapping[str, str] | None = None,
    faults: Mapping[str, str] | None = None,
    selected: str = "",
    title: str = "Cluster map",
) -> str:
    """Return the map as SVG.

    `traces` are drawn over it, each with its direction. `marks` puts a word on a pod, host or Service address
    ("default/frontend" -> "caller"); `faults` maps a `key` to what is broken there; `selected` is a `key`.
    """
    painter = _Painter(model, marks or {}, faults or {}, selected, bool(traces), traces)
    painter.draw()
    used: set[str] = set()
    for number, trace in enumerate(traces):
        painter.svg.parts.append(f'<g class="way" data-leg="{number}">')
        used |= draw_way(painter.svg, painter.out, trace)
        painter.svg.parts.append("</g>")
    height = (
        _legend(painter.svg, painter.out.height + 10, used, faults or {})
        if used or faults
        else painter.out.height - 4
    )
    nodes = "; ".join(f"{n.name} with {', '.join(p.netns for p in n.pods) or 'no pods'}" for n in model.nodes)
    return painter.svg.document(height + 6, title, f"Nodes: {nodes}.")


def cluster_picture(network: Network, names: Mapping[str, str] | None = None) -> Picture:
    """Return the map of a network as a picture that notebooks show."""
    return Picture(map_svg(model_of(network, names)), "Map of the cluster")


def cluster_html(network: Network, names: Mapping[str, str] | None = None) -> str:
    """Return the map of a network as HTML that stands alone: no script, no style sheet, nothing to fetch."""
    model = model_of(network, names)
    nodes = ". ".join(f"{n.name}: {', '.join(p.netns for p in n.pods) or 'no pods'}" for n in model.nodes)
    return image(map_svg(model), f"Map of the cluster. {nodes}.")
