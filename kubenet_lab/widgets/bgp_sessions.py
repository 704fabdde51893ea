"""Who speaks BGP with whom, alive: pick a session, cut it, let time pass, and see which routes go with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import traitlets

from kubenet_lab.bgp.fabric import Fabric
from kubenet_lab.faults import make
from kubenet_lab.trip import Trip
from kubenet_lab.views.bgp_map import BgpMap, End, bgp_map, bgp_map_svg, changes
from kubenet_lab.views.theme import image
from kubenet_lab.widgets.base import Widget, script

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster

Undo = Callable[[], None]
LONGEST = 600.0
"""Seconds after which "until something happens" gives up: nothing but attempts to connect."""


class BgpSessions(Widget):
    """The map of `views.bgp_map` with a clock and a way to break things; mouse, Tab and Enter, arrow keys in the list.

    A session is cut by a firewall on one node (the fault `bgp-session-lost`); a BIRD may also be stopped, which it
    tells its neighbours, or killed, which it cannot. Nothing is played back: each press changes the world, and the
    speakers and the kernel are read again.

    Args:
        world: A cluster with Calico that speaks BGP.
        calls: Label -> a call to be made anew after each change: `{"frontend -> backend": lambda: ...}`.
        picked: The session chosen first, "node-1|node-2"; by default the first there is.

    Raises ValueError where nobody speaks BGP.
    """

    _esm = script("bgp_sessions")
    svg = traitlets.Unicode().tag(sync=True)
    sessions = traitlets.List(traitlets.Dict(), help="All sessions: key, label, state in words.").tag(
        sync=True
    )
    picked = traitlets.Unicode().tag(sync=True)
    detail = traitlets.Dict(help="The picked session: its rows for both sides, and what can be done.").tag(
        sync=True
    )
    history = traitlets.List(traitlets.Dict(), help="What happened: at (s), what.").tag(sync=True)
    felt = traitlets.List(traitlets.Dict(), help="The calls: label, verdict, good.").tag(sync=True)
    clock = traitlets.Unicode().tag(sync=True)

    def __init__(
        self, world: Cluster, calls: Mapping[str, Callable[[], Trip]] | None = None, picked: str = ""
    ) -> None:
        self.world, self.calls = world, dict(calls or {})
        self._began = world.now
        self._cuts: dict[str, Undo] = {}
        self.found: BgpMap = bgp_map(self._fabric)
        if not self.found.lines:
            raise ValueError("nobody speaks BGP here: Calico with VXLAN needs none, other networks have none")
        super().__init__(picked=picked or self.found.lines[0].key)
        self.found.line(self.picked)
        self._draw()
        self.observe(lambda _change: self._draw(), "picked")
        self.on_msg(self._told)

    @property
    def _fabric(self) -> Fabric:
        fabric = getattr(self.world.pod_network, "fabric", None)
        if not isinstance(fabric, Fabric):
            raise ValueError("nobody speaks BGP here: Calico with VXLAN needs none, other networks have none")
        return fabric

    # -- what can be done ---------------------------------------------------------------------------------------

    def _told(self, _widget: Any, content: Mapping[str, Any], _buffers: Any) -> None:
        act, value = str(content.get("act")), content.get("value")
        if act == "wait":
            self.wait(float(str(value)))
        elif act == "next":
            self.until_something()
        elif act in ("cut", "mend"):
            getattr(self, act)()
        elif act in ("stop", "kill", "start"):
            getattr(self, act)(str(value))

    def cut(self) -> None:
        """Let a firewall drop the packets of the picked session, on its first side's node."""
        line = self.found.line(self.picked)
        if line.key in self._cuts or not line.ends:
            return
        end = next((e for e in line.ends if e.speaker in self._nodes()), line.ends[0])
        undo = make("bgp-session-lost", node=end.speaker, peer=end.address).inject(self.world)
        self._cuts[line.key] = undo
        self._after(f"{end.speaker}'s firewall now drops TCP port 179 from {end.far}")

    def mend(self) -> None:
        """Take that firewall away again."""
        undo = self._cuts.pop(self.picked, None)
        if undo is None:
            return
        undo()
        self._after(f"the firewall lets {self.picked.replace('|', ' – ')} through again")

    def stop(self, speaker: str) -> None:
        """`kill -TERM` a speaker: it tells its neighbours that it goes."""
        self._fabric.daemons[speaker].shutdown()
        self._after(f"BIRD on {speaker} is told to end (SIGTERM), and tells its neighbours")

    def kill(self, speaker: str) -> None:
        """`kill -9` a speaker: its neighbours only see their connections break."""
        self._fabric.daemons[speaker].kill()
        self._after(f"BIRD on {speaker} is killed (SIGKILL): connections break without a word")

    def start(self, speaker: str) -> None:
        """Start a speaker again."""
        self._fabric.daemons[speaker].start()
        self._after(f"BIRD on {speaker} is started")

    def wait(self, seconds: float) -> None:
        """Let time pass; what happens meanwhile is noted at its own moment."""
        end = self.world.now + seconds
        while self.world.now < end:
            due = self._fabric.wake
            step = (
                end - self.world.now
                if due is None
                else min(max(due - self.world.now, 0.001), end - self.world.now)
            )
            self.world.advance(step)
            self._note()
        self._draw()

    def until_something(self) -> None:
        """Let time pass until a session or a route changes."""
        known, end = len(self.history), self.world.now + LONGEST
        while len(self.history) == known and self.world.now < end:
            due = self._fabric.wake
            if due is None:
                self._say("nothing will happen by itself: all sessions only keep alive")
                break
            self.world.advance(max(due - self.world.now, 0.001))
            self._note()
        else:
            if len(self.history) == known:
                self._say(f"{LONGEST:.0f} s later nothing has changed; who is down keeps trying")
        self._draw()

    def _nodes(self) -> set[str]:
        return {node.name for node in self.world.store.list("Node")}

    # -- what is shown ------------------------------------------------------------------------------------------

    def _after(self, what: str) -> None:
        self._say(what)
        self.world.settle()
        self._fabric.settle()
        self._note()
        self._draw()

    def _say(self, what: str) -> None:
        self.history = [*self.history, {"at": f"{self.world.now - self._began:.0f} s", "what": what}]

    def _note(self) -> None:
        before, self.found = self.found, bgp_map(self._fabric)
        for what in changes(before, self.found):
            self._say(what)

    def _draw(self) -> None:
        self.found = found = bgp_map(self._fabric)
        with self.hold_trait_notifications():
            self.svg = bgp_map_svg(found, self.picked)
            self.sessions = [
                {"key": line.key, "label": line.pair, "state": line.words()} for line in found.lines
            ]
            self.detail = self._detail(found)
            self.felt = [
                {
                    "label": label,
                    "good": trip.delivered,
                    "verdict": trip.verdict,
                    "why": "" if trip.delivered else trip.why,
                }
                for label, call in self.calls.items()
                for trip in (call(),)
            ]
            self.clock = f"{self.world.now - self._began:.0f} s"
            self.words = self.text()

    def _detail(self, found: BgpMap) -> dict[str, Any]:
        speakers = [
            {"name": who.name, "runs": who.runs}
            for who in found.speakers
            if who.name in self.picked.split("|")
        ]
        base = {"speakers": speakers, "cut": self.picked in self._cuts}
        try:
            line = found.line(self.picked)
        except KeyError:
            return {
                **base,
                "title": f"{self.picked.replace('|', ' – ')}: neither side runs",
                "heads": [],
                "rows": [],
            }
        rows = [
            ["state", *(_state(end) for end in line.ends)],
            ["timers", *(end.timers() or "–" for end in line.ends)],
            ["learned by it", *(", ".join(end.learned) or "nothing" for end in line.ends)],
            ["told over it", *(", ".join(end.told) or "nothing" for end in line.ends)],
        ]
        heads = [f"{end.speaker}'s side ({end.protocol})" for end in line.ends]
        return {
            **base,
            "title": f"{line.pair}, {line.kind}: {line.words()}",
            "heads": heads,
            "rows": rows,
        }

    def text(self) -> str:
        """Return everything that is shown, as text."""
        detail = self.detail
        out = [f"{self.clock} after the beginning", str(self.found), "", str(detail["title"])]
        for row in detail["rows"]:
            out += [
                f"  {head}: {row[0]}: {cell}" for head, cell in zip(detail["heads"], row[1:], strict=True)
            ]
        out += ["", *(f"{one['label']}: {one['verdict']} {one['why']}".rstrip() for one in self.felt)]
        out += ["", *(f"{one['at']}: {one['what']}" for one in self.history)]
        return "\n".join(out).rstrip()

    def still(self) -> str:
        """Return the map, and the words under it."""
        return (
            image(bgp_map_svg(self.found, self.picked), str(self.found))
            + f"<details><summary>Everything as text</summary><pre>{escape(self.text())}</pre></details>"
        )

    def describe(self) -> str:
        """Return how many sessions stand."""
        up = sum(line.up for line in self.found.lines)
        return f"BgpSessions({up} of {len(self.found.lines)} established, {self.clock})"


def _state(end: End) -> str:
    return f"{end.state} ({end.why})" if end.why and not end.up else end.state
