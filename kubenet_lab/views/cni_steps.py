"""How a pod gets its network, and loses it: the moments of a recording as steps with commands, changes and a picture.

What the kernel does by itself after an edit (link-local addresses, the table `local`, carriers) is kept apart from what
somebody did, and has no command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.kernel.address import Address
from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.route import Route
from kubenet_lab.views.state_diff import ADDED, CHANGED, REMOVED, SIGNS, Change, state_changes
from kubenet_lab.views.theme import Box, Svg, image, text_width, wrap

if TYPE_CHECKING:
    from kubenet_lab.control.recording import Moment

RESERVED, CACHE, CONF = "/var/lib/cni/networks/", "/var/lib/cni/results/", "/etc/cni/net.d/"


class Step(Struct, frozen=True, kw_only=True):
    """One step of a pod's start or end.

    Attributes:
        actor: Who acts: kubelet, containerd, or a plugin.
        depth: 0 for kubelet and runtime, 1 for a plugin, 2 for one that a plugin runs.
        title, told: What happens, in few words and in a sentence.
        changes: What somebody changed; `also`: what the kernel did in consequence.
        shell: The commands that do the same, or how the plugin is executed, or what it printed.
        state: The node's and the pod's state afterwards (`kernel.dump`).
    """

    actor: str
    depth: int = 0
    title: str
    told: str
    changes: tuple[Change, ...] = ()
    also: tuple[Change, ...] = ()
    shell: str = ""
    state: Mapping[str, Any] = {}
    failed: bool = False


def cni_steps(moments: Sequence[Moment]) -> list[Step]:
    """Return a recording as steps. Edits that only follow from the one before are taken into it."""
    steps: list[Step] = []
    asked = ""
    state: Mapping[str, Any] = next((m.before for m in moments if m.before), {})
    for moment in moments:
        if moment.verb != "edits":
            asked = moment.command or asked
            steps.append(_said(moment, state))
            continue
        state = moment.after
        for own, also in _parts(state_changes(moment.before, moment.after)):
            last = steps[-1] if steps else None
            if last is not None and last.actor == moment.actor and last.changes and _follows(own, last):
                changes = (*last.changes, *own)
                title, told = _tell(changes, state)
                steps[-1] = replace(
                    last,
                    title=title,
                    told=told,
                    changes=changes,
                    also=(*last.also, *also),
                    shell=_shell(changes),
                    state=state,
                )
                continue
            title, told = _tell(own or also, state)
            steps.append(
                Step(
                    actor=moment.actor,
                    depth=moment.depth,
                    state=state,
                    title=title,
                    told=told,
                    changes=own,
                    also=also,
                    shell=_shell(own),
                )
            )
    return _quiet_plugins(steps)


def _quiet_plugins(steps: list[Step]) -> list[Step]:
    """A plugin that ended as it began, without a word between, is one step."""
    out: list[Step] = []
    for step in steps:
        last = out[-1] if out else None
        if (
            last is not None
            and step.title.endswith("is done")
            and last.title.startswith(f"Run {step.actor} ")
            and not step.changes
        ):
            out[-1] = replace(last, told=f"{last.told} It has nothing to do here, and ends well.")
        else:
            out.append(step)
    return out


def _said(moment: Moment, state: Mapping[str, Any]) -> Step:
    """Return the step of somebody who asks, executes or ends."""
    verb, actor, command = moment.verb, moment.actor, moment.command
    if verb == "asks":
        told = {
            "RunPodSandbox": "The scheduler has put the pod on this node. The kubelet asks the container "
            "runtime for a sandbox: the place in which the pod's containers will live. The kubelet itself never calls "
            "a CNI plugin.",
            "StopPodSandbox": "The pod is to go. The kubelet asks the runtime to take its sandbox down.",
        }[command]
        title = f"Ask for {'a sandbox' if command == 'RunPodSandbox' else 'the end of the sandbox'}"
        return Step(actor=actor, title=title, told=told, shell=f"CRI call {command}", state=state)
    if verb == "runs":
        word = {
            "ADD": "connect this container",
            "DEL": "disconnect it",
            "CHECK": "say whether all is still there",
        }
        told = (
            f"{actor} executes {moment.what}, a program in /opt/cni/bin: parameters in the environment, the "
            f"configuration on standard input. CNI_COMMAND={command} means: {word.get(command, command)}."
        )
        title = f"Run {moment.what} ({command})"
        return Step(actor=actor, depth=moment.depth, title=title, told=told, shell=moment.told, state=state)
    if verb == "fails":
        told = "The program ends with status 1 and says why. What it did before stays as it is."
        title = f"{actor} fails"
        if moment.what:
            title = f"Find no {moment.what}"
            told = (
                f"{actor} looks for the executable /opt/cni/bin/{moment.what} and does not find it. "
                f"{command} ends here. What was done before stays as it is."
            )
        return Step(
            actor=actor,
            depth=moment.depth,
            title=title,
            told=told,
            shell=moment.told,
            state=state,
            failed=True,
        )
    told = (
        "The program prints its result and ends. From now on no packet ever meets it."
        if moment.told
        else ("The program ends well; there is nothing to print.")
    )
    return Step(
        actor=actor, depth=moment.depth, title=f"{actor} is done", told=told, shell=moment.told, state=state
    )


# -- whose doing a change is -------------------------------------------------------------------------------------------


def _by_kernel(change: Change) -> bool:
    """Whether a change follows from another by the kernel's own rules."""
    what = change.what
    if change.kind == "routing rule" or what.startswith(("local ", "broadcast ", "fe80:")):
        return True
    if change.kind == "fdb entry":
        return True
    if change.kind == "address":
        return what.endswith(" dev lo")
    if change.kind == "link" and change.word == ADDED and what.startswith("lo "):
        return True
    if change.kind == "link" and change.word == CHANGED:
        return what.replace(" no carrier", "") == change.was.replace(" no carrier", "")
    if change.kind == "route":
        # A connected route comes with its address; one that somebody wrote has a gateway, or no source.
        return " via " not in what and " src " in what
    return False


def _parts(found: Iterable[Change]) -> list[tuple[tuple[Change, ...], tuple[Change, ...]]]:
    """Return the changes of one edit as (somebody's, the kernel's), the pod's files and programs each for itself."""
    rows = list(found)
    if len({c.where for c in rows if c.kind == "network namespace"}):
        gone = [c for c in rows if c.kind == "network namespace" or _path_of(c).startswith("/var/run/netns/")]
        return [(tuple(gone), tuple(c for c in rows if c not in gone))]
    groups: dict[str, list[Change]] = {}
    for change in rows:
        path = _path_of(change)
        name = path if path.startswith("/etc/") else change.kind if change.kind == "socket" else ""
        groups.setdefault(name, []).append(change)
    parts = []
    for name in sorted(groups, key=lambda one: (one == "socket", "hosts" in one, one)):
        own = tuple(c for c in groups[name] if not _by_kernel(c))
        parts.append((own, tuple(c for c in groups[name] if c not in own)))
    return parts


def _path_of(change: Change) -> str:
    return change.kind.removeprefix("line of ") if change.kind.startswith("line of ") else ""


def _follows(own: tuple[Change, ...], last: Step) -> bool:
    """Whether an edit only finishes the one before: nothing of its own, or `up` for what was just made."""
    made = {(c.where, c.what.split()[0]) for c in last.changes if c.kind == "link"}
    addressed = {(c.where, c.what.split()[-1]) for c in last.changes if c.kind == "address"}
    return all(
        c.kind == "link"
        and c.word == CHANGED
        and " master " not in c.what
        and (c.where, c.what.split()[0]) in made | addressed
        for c in own
    )


def _shell(changes: Iterable[Change]) -> str:
    """Return the commands that make these changes, each thing once: a pair is made, and goes, by one of its ends."""
    lines, where = [], ""
    seen: set[str] = set()
    for change in changes:
        if change.kind == "link" and change.word != CHANGED:
            if change.what.partition(" peer ")[2].split(" ")[0] in seen:
                continue
            seen.add(change.what.split()[0])
        elif change.word == REMOVED and seen and change.kind in ("address", "route"):
            continue
        if not change.command:
            continue
        if change.where != where and change.kind != "network namespace":
            where = change.where
            lines.append(f"# in {where}")
        lines.append(change.command)
    return "\n".join(lines)


# -- what it means -----------------------------------------------------------------------------------------------------

_Row = tuple[Callable[[Change], bool], str, str]


def _is(kind: str, word: str, begins: str = "", has: str = "") -> Callable[[Change], bool]:
    return lambda c: (
        c.kind.startswith(kind) and c.word == word and c.what.startswith(begins) and has in c.what
    )


_MEANINGS: tuple[_Row, ...] = (
    (
        _is("network namespace", ADDED),
        "Make a network namespace",
        "containerd makes an empty network namespace and binds it to a path on the node, so that it stays "
        "even while no process is in it. Inside there is a loopback, still down, and nothing else. The "
        "pod's containers will all join it.",
    ),
    (
        _is("network namespace", REMOVED),
        "Remove the network namespace",
        "containerd lets go of the namespace.",
    ),
    (
        _is("link", CHANGED, "lo "),
        "Bring the loopback up",
        "`lo` goes up: 127.0.0.1 works inside the pod. (containerd runs the plugin `loopback` for this.)",
    ),
    (
        _is("link", ADDED, has=" bridge "),
        "Make the bridge",
        "The first pod of this node: there is no bridge yet. The plugin makes one, a switch in software.",
    ),
    (
        _is("link", ADDED, has=" veth "),
        "Make a veth pair",
        "A cable with two ends, made in one go: one end is the pod's `eth0`, the other stays on the node. "
        "What goes in at one end comes out at the other.",
    ),
    (
        _is("link", CHANGED, has=" master "),
        "Plug the node's end into the bridge",
        "The node's end becomes a port of the bridge. Now the pod hangs on the same switch as its "
        "neighbours. (And the bridge takes over the MAC of its lowest port, until somebody sets one.)",
    ),
    (
        _is("link", REMOVED, has=" veth "),
        "Delete the pair",
        "One end is deleted, and the other goes with it: address, routes and bridge port too.",
    ),
    (
        lambda c: _path_of(c).startswith(RESERVED) and c.word == ADDED,
        "Reserve an address",
        "host-local keeps its books as files: one file an address, named after it, with the container's id "
        "in it. The next free one is taken. Nobody else on earth is asked: each node has a range of its own.",
    ),
    (
        lambda c: _path_of(c).startswith(RESERVED) and c.word == REMOVED,
        "Give the address back",
        "The file is deleted: the address is free again.",
    ),
    (
        _is("address", ADDED, has=" dev eth0"),
        "Give the pod its address",
        "The pod's `eth0` gets the address, and goes up. The kernel adds the route to the neighbours on the same "
        "bridge by itself.",
    ),
    (
        _is("route", ADDED, begins="default "),
        "Give the pod a default route",
        "Everything that is not a neighbour goes to the gateway: an address that the bridge is about to get.",
    ),
    (
        _is("address", ADDED, has=" dev cni0"),
        "Give the bridge the gateway's address",
        "The bridge gets the gateway's address, so the node itself is in the pods' network. Only the first pod of a "
        "node sees this step.",
    ),
    (
        lambda c: c.kind.startswith("iptables") and "CNI-HOSTPORT" in c.what and c.word == ADDED,
        "Open the host port",
        "What comes to the node's port is sent on to the pod's.",
    ),
    (
        lambda c: c.kind.startswith("iptables") and "CNI-" in c.what and c.word == ADDED,
        "Lend the pod the node's address for the world outside",
        "What this pod sends beyond its own subnet leaves with the node's address (`ipMasq`).",
    ),
    (
        lambda c: c.kind.startswith("iptables") and c.word == REMOVED,
        "Take the pod's rules away",
        "The rules that were made for this pod go.",
    ),
    (
        lambda c: _path_of(c).startswith(CACHE) and c.word == ADDED,
        "Remember the result",
        "containerd keeps the result of the whole chain, for CHECK and DEL, and tells the kubelet the address.",
    ),
    (
        lambda c: _path_of(c).startswith(CACHE) and c.word == REMOVED,
        "Forget the result",
        "What was kept for CHECK and DEL is not needed any more.",
    ),
    (
        lambda c: _path_of(c) == "/etc/resolv.conf",
        "Decide on /etc/resolv.conf",
        "The kubelet works out which name server and search list the pod gets; the runtime puts the file "
        "there. No CNI plugin has a say in it.",
    ),
    (
        lambda c: _path_of(c) == "/etc/hosts",
        "Write /etc/hosts",
        "The kubelet writes the pod's own name and its new address.",
    ),
    (
        lambda c: c.kind == "socket",
        "Start the containers",
        "They join the sandbox's namespace, and their programs listen.",
    ),
    (_is("sysctl", ADDED), "Set a kernel parameter", "A switch of the kernel is set."),
)


def _tell(changes: tuple[Change, ...], state: Mapping[str, Any]) -> tuple[str, str]:
    """Return title and sentence of a group of changes: the first meaning in the table that any of them has."""
    for test, title, told in _MEANINGS:
        if any(test(change) for change in changes):
            return title, told
    first = changes[0]
    more = f", and {len(changes) - 1} more" if len(changes) > 1 else ""
    return f"{first.word} {first.kind}".capitalize(), f"{first.what}{more}."


# -- the picture -------------------------------------------------------------------------------------------------------

_WIDTH, _GAP, _PAD, _ROW = 760.0, 70.0, 12.0, 34.0


class _Item(Struct, frozen=True):
    """One row of a box: a link, a route, a file, rules."""

    key: tuple[str, str]
    head: str
    text: str


def _space(state: Mapping[str, Any], node: bool) -> Mapping[str, Any] | None:
    spaces = state.get("namespaces", ())
    return next((s for s in spaces if (s["name"] == s["host"]) == node), None)


def _links(space: Mapping[str, Any]) -> dict[str, Link]:
    return {link.name: link for item in space.get("links", ()) if (link := msgspec.convert(item, Link))}


def _items(space: Mapping[str, Any]) -> list[_Item]:
    """Return what is in a namespace, as rows."""
    addresses = [msgspec.convert(item, Address) for item in space.get("addresses", ())]
    out = []
    for link in _links(space).values():
        own = [f"{a.local}/{a.length}" for a in addresses if a.dev == link.name and a.scope != "link"]
        own = [a for a in own if not a.startswith(("fe80:", "::1"))]
        words = [link.kind if link.kind != "ether" else "", "up" if link.up else "down", *own]
        if link.master:
            # The name of the node's end says what it is; there is no room to say it again.
            words[0] = f"port of {link.master}"
        out.append(_Item(("link", link.name), link.name, " · ".join(filter(None, words))))
    for item in space.get("routes", ()):
        route = msgspec.convert(item, Route)
        if route.table == 254 and route.family == 4:
            where = f"via {route.via}" if route.via else f"dev {route.dev}"
            name = "default" if route.dst == "0.0.0.0/0" else route.dst
            out.append(_Item(("route", name), "route", f"{name} {where}"))
    out += _rule_items(space)
    files = space.get("files", {})
    for path in sorted(files):
        if path.startswith(RESERVED) and path.rpartition("/")[2][:1].isdigit():
            out.append(_Item(("file", path), "taken", path.rpartition("/")[2]))
    resolv = files.get("/etc/resolv.conf", "") if space["name"] != space["host"] else ""
    if resolv:
        server = next((line for line in resolv.splitlines() if line.startswith("nameserver")), "")
        out.append(_Item(("file", "resolv.conf"), "resolv.conf", server))
    for item in space.get("sockets", ()):
        if space["name"] != space["host"]:
            out.append(_Item(("socket", str(item["port"])), "listens", f"port {item['port']}"))
    return out


def _rule_items(space: Mapping[str, Any]) -> list[_Item]:
    lines = [line for line in space.get("iptables", {}).get("4", ()) if "-A CNI-" in line]
    ports = [line for line in lines if "-A CNI-DN-" in line and "DNAT" in line]
    masks = {
        line.split("-A ")[1].split(" ")[0]
        for line in lines
        if "-j MASQUERADE" in line and "HOSTPORT" not in line
    }
    out = []
    if masks:
        out.append(_Item(("nat", "masq"), "nat", f"masquerade, {len(masks)} chain{'s' * (len(masks) > 1)}"))
    if ports:
        out.append(_Item(("nat", "port"), "nat", f"host port, {len(ports)} rule{'s' * (len(ports) > 1)}"))
    return out


class Slots(Struct, frozen=True):
    """Which row of a picture belongs to what, the same in all pictures of one recording."""

    node: tuple[tuple[str, str], ...]
    pod: tuple[tuple[str, str], ...]
    names: tuple[str, str]


def slots_of(states: Iterable[Mapping[str, Any]]) -> Slots:
    """Return the rows of all states together, in the order in which they appear."""
    found: tuple[dict[tuple[str, str], None], dict[tuple[str, str], None]] = ({}, {})
    names = ["node", "pod"]
    for state in states:
        for at, node in enumerate((True, False)):
            space = _space(state, node)
            if space is not None:
                names[at] = space["name"]
                found[at].update(dict.fromkeys(item.key for item in _items(space)))
    order = {"link": 0, "route": 1, "nat": 2, "file": 3, "socket": 4}
    rows = [tuple(sorted(part, key=lambda key: order[key[0]])) for part in found]
    return Slots(rows[0], rows[1], (names[0], names[1]))


def cni_state_svg(
    state: Mapping[str, Any], before: Mapping[str, Any] | None = None, slots: Slots | None = None
) -> str:
    """Return a node and its pod as a picture; rows that `before` did not have say so."""
    slots = slots or slots_of([state])
    wide = (_WIDTH - _GAP - 2 * _PAD) / 2
    rows = max(len(slots.node), len(slots.pod), 3)
    high = 46 + rows * _ROW
    svg = Svg(_WIDTH)
    boxes = (Box(_PAD, _PAD, wide, high), Box(_PAD + wide + _GAP, _PAD, wide, high))
    spots: dict[tuple[int, str], Box] = {}
    told = []
    for at, (box, keys, node) in enumerate(((boxes[0], slots.node, True), (boxes[1], slots.pod, False))):
        space = _space(state, node)
        there = space is not None
        cls = "f-card s-line" if node else "f-pod s-podline"
        svg.rect(box, cls if there else "nof s-line", 8, "" if there else ' stroke-dasharray="5 5"')
        title = f"node {slots.names[0]}" if node else f"pod {slots.names[1].rpartition('/')[2]}"
        svg.text(box.x + 12, box.y + 22, title, 14, bold=True)
        if space is None:
            svg.text(box.x + 12, box.y + 48, "no network namespace", 13, cls="t-soft")
            told.append(f"{title}: no network namespace")
            continue
        earlier = _space(before, node) if before else None
        had = {item.key: item for item in _items(earlier)} if earlier is not None else {}
        now = {item.key: item for item in _items(space)}
        for row, key in enumerate(keys):
            if key not in now:
                continue
            item = now[key]
            place = Box(box.x + 10, box.y + 34 + row * _ROW, box.w - 20, _ROW - 6)
            mark = (
                "" if before is None else "new" if key not in had else "changed" if had[key] != item else ""
            )
            bridge = key[0] == "link" and item.text.startswith("bridge")
            ground = (
                "f-changed s-serviceline" if mark else "f-bridge s-bridgeline" if bridge else "f-bg s-line"
            )
            svg.rect(place, ground, 5)
            room = place.w - 16 - (text_width(mark, 11, bold=True) + 8 if mark else 0)
            head = text_width(item.head, 12.5, bold=True) + 10
            svg.text(place.x + 8, place.cy + 4.5, item.head, 12.5, bold=True)
            text = wrap(item.text, max(room - head, 40), 12, mono=True)[0]
            svg.text(place.x + 8 + head, place.cy + 4.5, text, 12, mono=True)
            if mark:
                svg.text(
                    place.right - 8, place.cy + 4, mark, 11, bold=True, anchor="end", cls="t-serviceline"
                )
            if key[0] == "link":
                spots[at, key[1]] = place
            told.append(f"{title}: {item.head} {item.text}{f' ({mark})' if mark else ''}")
    _cables(svg, state, spots)
    return svg.document(high + 2 * _PAD, f"{slots.names[0]} and {slots.names[1]}", "; ".join(told))


def _cables(svg: Svg, state: Mapping[str, Any], spots: Mapping[tuple[int, str], Box]) -> None:
    """Draw each veth pair between node and pod."""
    node, pod = _space(state, True), _space(state, False)
    if node is None or pod is None:
        return
    for link in _links(pod).values():
        if link.peer is None or (0, link.peer.link) not in spots or (1, link.name) not in spots:
            continue
        a, b = spots[0, link.peer.link], spots[1, link.name]
        middle = (a.right + b.x) / 2
        points = [(a.right, a.cy), (middle, a.cy), (middle, b.cy), (b.x, b.cy)]
        broken = "" if link.running else ' stroke-dasharray="4 4"'
        svg.line(points, "s-podline", 3, broken)
        svg.text(middle, min(a.cy, b.cy) - 8, "veth", 11.5, anchor="middle", cls="t-podline")


# -- as a whole --------------------------------------------------------------------------------------------------------


class Birth(Struct, frozen=True):
    """A recording to show: its steps, and a headline. In a notebook a picture of the end and a table of the steps."""

    headline: str
    steps: tuple[Step, ...]

    def __repr__(self) -> str:
        return cni_steps_text(self.steps, self.headline)

    def _repr_html_(self) -> str:
        return cni_steps_html(self.steps, self.headline)


def cni_steps_text(steps: Sequence[Step], headline: str = "") -> str:
    """Return steps as numbered lines, with what each changed."""
    lines = [headline] if headline else []
    for number, step in enumerate(steps, 1):
        lines.append(f"{number:3}. {'  ' * step.depth}{step.actor}: {step.title}. {step.told}")
        lines += [f"       {change}" for change in step.changes]
        if step.also:
            lines.append(f"       (and the kernel by itself: {len(step.also)} more)")
    return "\n".join(lines)


_TD = "text-align:left;vertical-align:top;padding:3px 8px;white-space:normal"


def cni_steps_html(steps: Sequence[Step], headline: str = "") -> str:
    """Return steps as HTML that stands alone: the state at the end as a picture, and a table."""
    if not steps:
        return "<p>Nothing happened.</p>"
    slots = slots_of([step.state for step in steps])
    last = steps[-1]
    picture = image(cni_state_svg(last.state, None, slots), f"{headline}: the state at the end")
    rows = ""
    for number, step in enumerate(steps, 1):
        changes = "".join(f"<br/><code>{SIGNS[c.word]} {escape(_brief(c))}</code>" for c in step.changes)
        inset = f"padding-left:{8 + 18 * step.depth}px"
        bad = "✕ " if step.failed else ""
        error = f"<pre>{escape(step.shell)}</pre>" if step.failed else ""
        rows += (
            f'<tr><td style="{_TD}">{number}</td><td style="{_TD};{inset}">{escape(step.actor)}</td>'
            f'<td style="{_TD}"><b>{bad}{escape(step.title)}</b>{changes}{error}</td></tr>'
        )
    return f"<p><b>{escape(headline)}</b></p>{picture}<table><tbody>{rows}</tbody></table>"


def _brief(change: Change) -> str:
    """Return a change in at most a line or two: ids and JSON are cut."""
    path = _path_of(change)
    text = f"{path}: {change.what}" if path else f"{change.kind}: {change.what}"
    text = f"{text} ({change.where})"
    return text if len(text) <= 150 else f"{text[:147]}..."
