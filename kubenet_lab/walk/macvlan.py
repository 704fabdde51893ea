"""macvlan: several MACs on one link, each with a device of its own, and a switch between them that knows all of them.

drivers/net/macvlan.c (`macvlan_queue_xmit`, `macvlan_handle_frame`). What surprises most: the link below takes no part.
What a device sends to its host's own MAC, or broadcasts, leaves by the cable, and no cable brings a frame back.
"""

from __future__ import annotations

from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.packet import Frame
from kubenet_lab.trace import Step
from kubenet_lab.walk import links, stacked
from kubenet_lab.walk.engine import Walk

ALL = ("private", "vepa", "passthru", "bridge")


def _mode(upper: Link) -> str:
    return upper.macvlan.mode if upper.macvlan is not None and upper.up else ""


def _with_mac(uppers: stacked.Uppers, mac: str) -> tuple[Netns, Link] | None:
    """`macvlan_hash_lookup`: the device that is up and has this MAC."""
    return next((one for one in uppers if one[1].mac == mac and _mode(one[1])), None)


def transmit(w: Walk, ns: Netns, link: Link, below: Netns, under: Link, frame: Frame) -> None:
    """Send from a device: in mode bridge its siblings get it directly, in every other mode only the cable does."""
    assert link.macvlan is not None
    if link.macvlan.mode == "bridge":
        uppers = w.network.uppers(below.name, under.name)
        if links.is_group(frame.dst):
            _broadcast(w, uppers, link, ("bridge",), frame)
        else:
            found = _with_mac(uppers, frame.dst)
            if found is not None and _mode(found[1]) == "bridge":
                if not under.up:
                    w.end("lost", "link-down", below, under.name, under)
                    return
                w.steps.append(Step("macvlan", under.name, found[1], f"{frame.dst} is a sibling's MAC"))
                # It comes in by the link below once more, so that what listens there sees it (`dev_forward_skb`).
                links.receive(w, below, under.name, frame)
                return
    stacked.out(w, ns, below, under, frame)


def arrived(w: Walk, uppers: stacked.Uppers, frame: Frame) -> bool:
    """Give a frame that came in by the link below to the device it is for; False leaves it to that link."""
    if not links.is_group(frame.dst):
        first = next(one for one in uppers if one[1].macvlan is not None)
        passthru = first[1].macvlan is not None and first[1].macvlan.mode == "passthru"
        found = first if passthru else _with_mac(uppers, frame.dst)
        if found is None:
            return False
        if not found[1].up:
            w.end("lost", "link-down", found[0], found[1].name, found[1])
            return True
        w.steps.append(Step("macvlan", found[1].name, found[1], "the frame is for this macvlan device"))
        links.receive(w, found[0], found[1].name, frame, host=True, inside=True)
        return True
    sender = _with_mac(uppers, frame.src)
    mode = _mode(sender[1]) if sender is not None else ""
    if sender is not None and mode in ("private", "passthru"):
        # A switch sent it back: a private device hears itself, and nobody else does.
        links.receive(w, sender[0], sender[1].name, frame, host=True, inside=True)
        return True
    # One from outside is for all. Of a sibling's that came back, ports in mode bridge saw what mode bridge sent.
    modes = ALL if sender is None else ("vepa", "bridge") if mode == "vepa" else ("vepa",)
    _broadcast(w, uppers, sender[1] if sender is not None else None, modes, frame)
    return False


def _broadcast(
    w: Walk, uppers: stacked.Uppers, sender: Link | None, modes: tuple[str, ...], frame: Frame
) -> None:
    """`macvlan_broadcast`: a copy for each device of these modes but the one that sent it."""
    here, steps = w.hop, w.steps
    for home, upper in uppers:
        if upper is not sender and _mode(upper) in modes:
            links.receive(w, home, upper.name, frame, host=True, inside=True)
            w.hop, w.steps = here, steps
