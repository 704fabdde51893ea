"""What `birdc` prints: `show protocols` and `show route`, as BIRD 1.6 and BIRD 2 word them.

Source: recorded output of BIRD 1.6.8 and 2.0.12. Times are simulated and print as the time of day.
"""

from __future__ import annotations

from kubenet_lab.bgp.daemon import Bird
from kubenet_lab.bgp.path import Path
from kubenet_lab.bgp.session import Session
from kubenet_lab.clock import timestamp
from kubenet_lab.packet.ip import prefix

VERSIONS = {1: "1.6.8", 2: "2.0.12"}


def _banner(bird: Bird) -> str:
    return f"BIRD {VERSIONS[bird.config.version]} ready."


def _time(bird: Bird, seconds: float) -> str:
    clock = timestamp(seconds)[11:19]
    return clock if bird.config.version == 1 else f"{clock}.{int(seconds * 1000) % 1000:03}"


def session_state(session: Session) -> str:
    """Return what the protocol is: up, start (trying), or down."""
    return "up" if session.up else "start"


def show_protocols(bird: Bird) -> str:
    """`birdc show protocols`."""
    old = bird.config.version == 1
    if old:
        lines = ["name     proto    table    state  since       info"]
        own = [("static1", "Static"), ("kernel1", "Kernel"), ("device1", "Device"), ("direct1", "Direct")]
        table, form = "master", "{:<8} {:<8} {:<8} {:<6} {:<10}  {}"
    else:
        lines = ["Name       Proto      Table      State  Since         Info"]
        own = [("s4", "Static"), ("k4", "Kernel"), ("device1", "Device"), ("direct1", "Direct")]
        table, form = "master4", "{:<10} {:<10} {:<10} {:<6} {:<12}  {}"
    for name, proto in own:
        home = "---" if not old and proto in ("Device", "Direct") else table
        lines.append(form.format(name, proto, home, "up", _time(bird, bird.started), "").rstrip())
    for session in bird.bgp_sessions():
        info = f"{session.state:<13} {session.last_error}".rstrip()
        lines.append(
            form.format(
                session.peer.name,
                "BGP",
                table if old else "---",
                session_state(session),
                _time(bird, session.since),
                info,
            )
        )
    return "\n".join([_banner(bird), *lines]) + "\n"


def _origin(path: Path) -> str:
    assert path.attributes is not None
    last = f"AS{path.attributes.as_path[-1]}" if path.attributes.as_path else ""
    return f" [{last}{path.attributes.origin[0].lower()}]"


def _since(bird: Bird, path: Path) -> str:
    return _time(bird, path.session.since if path.session is not None else bird.started)


def _way(path: Path) -> str:
    if path.source == "static":
        return "blackhole"
    if path.resolved is None:
        return "unreachable"
    via, dev = path.resolved
    return f"via {via} on {dev}" if via else f"dev {dev}"


def _from(path: Path) -> str:
    """BIRD names the neighbour where it is not the gateway."""
    if path.session is None or (path.resolved is not None and path.resolved[0] == path.session.peer.address):
        return ""
    return f" from {path.session.peer.address}"


def _old_line(bird: Bird, dst: str, path: Path, best: bool) -> str:
    distance = ""
    if path.source == "bgp":
        distance = "/?" if path.igp_metric is None else f"/{path.igp_metric}"
    tail = f"({path.preference}{distance}){_origin(path) if path.source == 'bgp' else ''}"
    mark = " *" if best else ""
    return f"{dst if best else '':<18} {_way(path)} [{path.protocol} {_since(bird, path)}{_from(path)}]{mark} {tail}"


def _new_line(bird: Bird, dst: str, path: Path, best: bool) -> str:
    kind = {"static": "blackhole"}.get(path.source, "unicast" if path.resolved is not None else "unreachable")
    distance = ""
    if path.source == "bgp":
        distance = "/?" if path.igp_metric is None else f"/{path.igp_metric}" if path.igp_metric else ""
    tail = f"({path.preference}{distance}){_origin(path) if path.source == 'bgp' else ''}"
    mark = " *" if best else ""
    line = (
        f"{dst if best else '':<20} {kind} [{path.protocol} {_since(bird, path)}{_from(path)}]{mark} {tail}"
    )
    return line if kind != "unicast" else f"{line}\n\t{_way(path)}"


def _attributes(path: Path, version: int) -> list[str]:
    types = {
        "static": "static unicast univ",
        "direct": "device unicast univ",
        "kernel": "inherit unicast univ",
    }
    kind = types.get(path.source, "BGP unicast univ")
    out = [f"\tType: {kind if version == 1 else kind.replace('unicast ', '')}"]
    a = path.attributes
    if path.source == "kernel":
        out += ["\tKernel.source: 3", f"\tKernel.metric: {path.metric or 0}"]
        if version == 2 and not path.via:
            out.append("\tKernel.scope: 253")
    if a is not None:
        out += [f"\tBGP.origin: {a.origin}", f"\tBGP.as_path: {' '.join(map(str, a.as_path))}".rstrip()]
        out.append(f"\tBGP.next_hop: {a.next_hop}")
        if a.med is not None:
            out.append(f"\tBGP.med: {a.med}")
        out.append(f"\tBGP.local_pref: {100 if a.local_pref is None else a.local_pref}")
        if a.communities:
            out.append("\tBGP.community: " + " ".join(f"({asn},{value})" for asn, value in a.communities))
        if a.originator_id:
            out.append(f"\tBGP.originator_id: {a.originator_id}")
        if a.cluster_list:
            out.append(f"\tBGP.cluster_list: {' '.join(a.cluster_list)}")
    return out


def show_route(bird: Bird, *, every: bool = False) -> str:
    """`birdc show route [all]`: every path, the best of a prefix with a star. Sorted (BIRD goes by its hash table)."""
    lines = [_banner(bird)]
    version = bird.config.version
    for fam in (4, 6):
        found = sorted(
            (block for block in map(prefix, bird.table) if block.family == fam),
            key=lambda block: (block.net, block.length),
        )
        if not found:
            continue
        if version == 2:
            lines.append(("" if len(lines) == 1 else "\n") + f"Table master{fam}:")
        for block in found:
            for number, path in enumerate(bird.table[block.text]):
                write = _old_line if version == 1 else _new_line
                lines.append(write(bird, block.text, path, number == 0))
                if every:
                    lines += _attributes(path, version)
    return "\n".join(lines) + "\n"
