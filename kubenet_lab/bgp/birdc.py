"""What `birdc` prints: `show protocols [all]` and `show route`, as BIRD 1.6 and BIRD 2 word them.

BIRD 1.6 is one program a family (`bird`, `bird6`); here one object is both, and `family` says which of them is asked.
BIRD 2 is one program for both. Source: recorded output of BIRD 1.6.8 and 2.0.12. Times are simulated and print as the
time of day. The counters of route changes are left out of `show protocols all`: nobody keeps them here.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Struct

from kubenet_lab.bgp.daemon import Bird
from kubenet_lab.bgp.filters import inside
from kubenet_lab.bgp.path import PREFERENCE, Path
from kubenet_lab.bgp.session import Session
from kubenet_lab.clock import timestamp
from kubenet_lab.packet.ip import Prefix, prefix

KERNELS = ("kernel1", "k4", "k6")
VERSIONS = {1: "1.6.8", 2: "2.0.12"}


def banner(bird: Bird) -> str:
    """Return the line with which every answer begins."""
    return f"BIRD {VERSIONS[bird.config.version]} ready."


def _time(bird: Bird, seconds: float) -> str:
    clock = timestamp(seconds)[11:19]
    return clock if bird.config.version == 1 else f"{clock}.{int(seconds * 1000) % 1000:03}"


def session_state(session: Session) -> str:
    """Return what the protocol is: up, start (trying), or down."""
    return "up" if session.up else "start"


def _families(bird: Bird, family: int) -> tuple[int, ...]:
    """Whose protocols and routes are shown: one family's in BIRD 1.6, and in BIRD 2 those there are."""
    if bird.config.version == 1:
        return (family,)
    config = bird.config
    six = any(":" in text for text in (*config.blocks, *(peer.address for peer in config.peers)))
    return (4, 6) if six else (4,)


class _Own(Struct, frozen=True):
    """One of the protocols every node has: its name, kind, family (0 for none), preference and output filter."""

    name: str
    kind: str
    family: int
    preference: int
    output: str = "REJECT"

    @property
    def source(self) -> str:
        return self.kind.lower()


def _own_protocols(bird: Bird, family: int) -> list[_Own]:
    old, calico = bird.config.version == 1, bird.config.filters == "calico"
    export = "calico_kernel_programming" if calico else "(unnamed)"
    out = []
    for fam in _families(bird, family):
        own = (
            ("static1", "kernel1", "direct1")
            if old
            else (f"s{fam}", f"k{fam}", "direct1" if fam == 4 else "d6")
        )
        out += [
            _Own(own[0], "Static", fam, PREFERENCE["static"]),
            _Own(own[1], "Kernel", fam, PREFERENCE["kernel"], export),
        ]
        if fam == 4 or old:
            out.append(_Own("device1", "Device", 0, 240))
        out.append(_Own(own[2], "Direct", fam, PREFERENCE["direct"]))
    return out


def _head(old: bool) -> str:
    return (
        "name     proto    table    state  since       info"
        if old
        else "Name       Proto      Table      State  Since         Info"
    )


def _line(bird: Bird, name: str, kind: str, table: str, state: str, since: float, info: str = "") -> str:
    form = (
        "{:<8} {:<8} {:<8} {:<6} {:<10}  {}"
        if bird.config.version == 1
        else "{:<10} {:<10} {:<10} {:<6} {:<12}  {}"
    )
    return form.format(name, kind, table, state, _time(bird, since), info).rstrip()


def _session_line(bird: Bird, session: Session) -> str:
    info = f"{session.state:<13} {session.last_error}".rstrip()
    table = "master" if bird.config.version == 1 else "---"
    return _line(bird, session.peer.name, "BGP", table, session_state(session), session.since, info)


def names(bird: Bird, family: int = 4) -> list[str]:
    """Return the names of all protocols, in the order in which they are shown."""
    sessions = [name for name, one in bird.sessions.items() if one.peer.family in _families(bird, family)]
    return [own.name for own in _own_protocols(bird, family)] + sessions


def show_protocols(
    bird: Bird, family: int = 4, *, every: bool = False, only: Collection[str] | None = None
) -> str:
    """`birdc show protocols [all] [NAME]`; `only` are the names to show, by default all."""
    old = bird.config.version == 1
    found: list[tuple[str, list[str], list[str]]] = []
    for own in _own_protocols(bird, family):
        table = "master" if old else "---" if own.kind in ("Device", "Direct") else f"master{own.family}"
        line = _line(bird, own.name, own.kind, table, "up", bird.started)
        found.append((own.name, [line], _own_details(bird, own)))
    for session in bird.bgp_sessions():
        if session.peer.family in _families(bird, family):
            found.append((session.peer.name, [_session_line(bird, session)], _details(bird, session)))
    if only is not None:
        found = [one for one in found if one[0] in only]
    lines = [banner(bird), _head(old)]
    for _name, summary, details in found:
        lines += [*summary, *details, ""] if every else summary
    return "\n".join(lines) + "\n"


def _own_details(bird: Bird, own: _Own) -> list[str]:
    paths = [
        (path, number)
        for dst, known in bird.table.items()
        if (":" in dst) == (own.family == 6)
        for number, path in enumerate(known)
        if path.source == own.source and own.family
    ]
    told = 0
    if own.kind == "Kernel":
        told = sum((":" in dst) == (own.family == 6) for dst in bird.installed)
    counts = (len(paths), told, sum(number == 0 for _path, number in paths))
    if bird.config.version == 1:
        return _basic("  ", own.preference, "ACCEPT", own.output, counts)
    if not own.family:
        return []
    return _channel(own.family, _basic("    ", own.preference, "ACCEPT", own.output, counts))


def _basic(indent: str, preference: int, read: str, write: str, counts: tuple[int, int, int]) -> list[str]:
    return [
        f"{indent}Preference:     {preference}",
        f"{indent}Input filter:   {read}",
        f"{indent}Output filter:  {write}",
        f"{indent}Routes:         {counts[0]} imported, {counts[1]} exported, {counts[2]} preferred",
    ]


def _channel(family: int, lines: list[str], *, state: str = "UP") -> list[str]:
    return [
        f"  Channel ipv{family}",
        f"    State:          {state}",
        f"    Table:          master{family}",
        *lines,
    ]


def _details(bird: Bird, session: Session) -> list[str]:
    """What `show protocols all` says of a BGP session (bgp_show_proto_info)."""
    old, calico = bird.config.version == 1, bird.config.filters == "calico"
    peer = session.peer
    paths = [known for known in bird.table.values() if any(path.session is session for path in known)]
    told = sum(len(ways) for ways in bird.told(session).values())
    heard = sum(path.session is session for known in paths for path in known)
    counts = (heard, told, sum(known[0].session is session for known in paths))
    read, write = ("(unnamed)", "(unnamed)") if calico else ("ACCEPT", "to_peers")
    basic = _basic("  " if old else "    ", PREFERENCE["bgp"], read, write, counts)
    lines = [f"  BGP state:          {session.state}", f"    Neighbor address: {peer.address}"]
    lines.append(f"    Neighbor AS:      {peer.asn}")
    if not old:
        lines.append(f"    Local AS:         {bird.config.asn}")
    if session.restarting:
        lines.append("    Neighbor graceful restart active")
    if session.up:
        lines += _up(bird, session)
    else:
        lines += _waits(bird, session)
    if session.last_error and not session.up:
        lines.append(f"    Last error:       {session.last_error}")
    if old:
        return ["  Description:    Connection to BGP peer", *basic, *lines]
    if session.up:
        lines += [*_channel(peer.family, basic), f"    BGP Next hop:   {session.local}"]
    else:
        lines += _channel(peer.family, basic[:-1], state="DOWN")
    return [*lines, f"    IGP IPv{peer.family} table: master{peer.family}"]


def _waits(bird: Bird, session: Session) -> list[str]:
    config, out = bird.config, []
    spaced = _seconds if bird.config.version == 1 else _decimals
    if session.state == "Idle" and session.connect_left:
        out.append(f"    Error wait:       {spaced(session.connect_left)}/{_seconds(session.error_wait)}")
    if session.state == "Active" and session.connect_left:
        out.append(f"    Connect delay:    {spaced(session.connect_left)}/{_seconds(config.connect_delay)}")
    if session.restarting:
        out.append(f"    Restart timer:    {spaced(session.restart_left)}/-")
    return out


def _seconds(value: float) -> str:
    return f"{value:.0f}"


def _decimals(value: float) -> str:
    return f"{value:.3f}"


def _up(bird: Bird, session: Session) -> list[str]:
    peer, far = session.peer, session.neighbour
    assert far is not None
    old = bird.config.version == 1
    kind = "external multihop" if session.external else "internal multihop"
    reflector = " route-reflector" if peer.rr_client else ""
    spaced = _seconds if old else _decimals
    shown = spaced(session.hold_left)
    beat = spaced(session.keepalive_left)
    out = [f"    Neighbor ID:      {session.neighbour_id}"]
    if old:
        restart = " restart-able llgr-aware" if far.restart_time is not None else " restart-aware llgr-aware"
        paths = " add-path-rx add-path-tx" if far.add_paths else ""
        caps = f" refresh enhanced-refresh{restart if far.aware else ''} AS4{paths}"
        out.append(f"    Neighbor caps:   {caps}")
    else:
        own = bird.config.restart_time if bird.config.graceful_restart and peer.graceful else None
        out += _capabilities("Local", peer.family, own, bird.config.graceful_restart, peer.add_paths)
        out += _capabilities("Neighbor", peer.family, far.restart_time, far.aware, far.add_paths)
    extra = " add-path-rx add-path-tx" if old and session.add_paths else ""
    return [
        *out,
        f"    Session:          {kind}{reflector} AS4{extra}",
        f"    Source address:   {session.local}",
        f"    Hold timer:       {shown}/{session.hold_time}",
        f"    Keepalive timer:  {beat}/{session.keepalive_time:.0f}",
    ]


def _capabilities(whose: str, family: int, restart: int | None, aware: bool, add_paths: bool) -> list[str]:
    out = [f"    {whose} capabilities", "      Multiprotocol", f"        AF announced: ipv{family}"]
    out.append("      Route refresh")
    if aware:
        out.append("      Graceful restart")
    if restart is not None:
        out += [
            f"        Restart time: {restart}",
            f"        AF supported: ipv{family}",
            "        AF preserved:",
        ]
    out.append("      4-octet AS numbers")
    if add_paths:
        out += ["      ADD-PATH", f"        RX: ipv{family}", f"        TX: ipv{family}"]
    out.append("      Enhanced refresh")
    if aware:
        out.append("      Long-lived graceful restart")
    return out


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


def _old_line(bird: Bird, dst: str, path: Path, best: bool, first: bool) -> str:
    distance = ""
    if path.source == "bgp":
        distance = "/?" if path.igp_metric is None else f"/{path.igp_metric}"
    tail = f"({path.preference}{distance}){_origin(path) if path.source == 'bgp' else ''}"
    mark = " *" if best else ""
    return f"{dst if first else '':<18} {_way(path)} [{path.protocol} {_since(bird, path)}{_from(path)}]{mark} {tail}"


def _new_line(bird: Bird, dst: str, path: Path, best: bool, first: bool) -> str:
    kind = {"static": "blackhole"}.get(path.source, "unicast" if path.resolved is not None else "unreachable")
    distance = ""
    if path.source == "bgp":
        distance = "/?" if path.igp_metric is None else f"/{path.igp_metric}" if path.igp_metric else ""
    tail = f"({path.preference}{distance}){_origin(path) if path.source == 'bgp' else ''}"
    mark = " *" if best else ""
    line = (
        f"{dst if first else '':<20} {kind} [{path.protocol} {_since(bird, path)}{_from(path)}]{mark} {tail}"
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


class Asked(Struct, frozen=True, kw_only=True):
    """What `show route` was asked for.

    Attributes:
        prefix: Only this prefix; with `longest` the longest one it is part of (`for`).
        protocol: Only routes this protocol brought.
        export, noexport: Only those a protocol is told, or is not told.
        primary: Only the best of each prefix.
        every: With all attributes.
        count: Only numbers.
        table: Only this table; all when empty.
    """

    prefix: str = ""
    longest: bool = False
    protocol: str = ""
    export: str = ""
    noexport: str = ""
    primary: bool = False
    every: bool = False
    count: bool = False
    table: str = ""


def show_route(bird: Bird, family: int = 4, *, every: bool = False, asked: Asked | None = None) -> str:
    """`birdc show route ...`: every path, the best of a prefix with a star. Sorted (BIRD goes by its hash table).

    Raises KeyError for the name of a protocol there is not, LookupError where the prefix asked for is not in the table.
    """
    asked = asked or Asked(every=every)
    lines = [banner(bird)]
    version = bird.config.version
    total = [0, 0, 0]
    shown: tuple[int, ...] = (4, 6) if version == 2 else (family,)
    if asked.table in ("master4", "master6"):
        shown = (int(asked.table[-1]),)
    goal = asked.export or asked.noexport
    if goal and version == 2:  # the tables that the protocol is joined to
        session = bird.sessions.get(goal)
        six = session.peer.family == 6 if session is not None else goal.endswith("6")
        shown = tuple(fam for fam in shown if (fam == 6) == six)
    if asked.prefix:
        shown = tuple(fam for fam in shown if (fam == 6) == (":" in asked.prefix))
    for fam in shown:
        known = {block: bird.table[block.text] for block in _in_order(bird, fam)}
        chosen = _chosen(bird, fam, known, asked)
        if asked.count and asked.prefix:
            continue  # BIRD counts whole tables only
        if asked.count:
            counts = (
                sum(map(len, chosen.values())),
                len(known) if asked.primary else sum(map(len, known.values())),
                len(known),
            )
            where = f" in table master{fam}" if version == 2 else ""
            lines.append(f"{counts[0]} of {counts[1]} routes for {counts[2]} networks{where}")
            total = [a + b for a, b in zip(total, counts, strict=True)]
            continue
        if not chosen:
            continue
        if version == 2:
            lines.append(("" if len(lines) == 1 else "\n") + f"Table master{fam}:")
        write = _old_line if version == 1 else _new_line
        for block, paths in chosen.items():
            for number, path in paths:
                first = path is paths[0][1]
                line = write(bird, block.text, path, number == 0, first)
                legs = bird.installed[block.text].nexthops if asked.export in KERNELS else ()
                if legs:  # what the kernel protocol gets is merged (`merge paths`)
                    head = line.partition("\n")[0]
                    head = head.replace(_way(path), "multipath") if version == 1 else head
                    line = "\n".join(
                        [head, *(f"\tvia {leg.via} on {leg.dev} weight {leg.weight}" for leg in legs)]
                    )
                lines.append(line)
                if asked.every:
                    lines += _attributes(path, version)
    if asked.count and len(shown) > 1:
        lines.append(f"Total: {total[0]} of {total[1]} routes for {total[2]} networks in {len(shown)} tables")
    return "\n".join(lines) + "\n"


def _in_order(bird: Bird, family: int) -> list[Prefix]:
    found = (block for block in map(prefix, bird.table) if block.family == family)
    return sorted(found, key=lambda block: (block.net, block.length))


def _chosen(
    bird: Bird, family: int, known: dict[Prefix, tuple[Path, ...]], asked: Asked
) -> dict[Prefix, list[tuple[int, Path]]]:
    """Return what is asked for: prefix -> its paths with their places."""
    if asked.prefix:
        wanted = prefix(asked.prefix)
        fits = [block for block in known if (inside(wanted, block) if asked.longest else block == wanted)]
        if not fits:
            raise LookupError(asked.prefix)
        best = max(fits, key=lambda block: block.length)
        known = {best: known[best]}
    known_names = names(bird, family)
    for name in (asked.protocol, asked.export, asked.noexport):
        if name and name not in known_names:
            raise KeyError(name)
    out = {}
    for block, paths in known.items():
        rows = list(enumerate(paths))
        if asked.primary:
            rows = rows[:1]
        if asked.protocol:
            rows = [(number, path) for number, path in rows if path.protocol == asked.protocol]
        if asked.export or asked.noexport:
            goes = _goes(bird, asked.export or asked.noexport, block.text)
            rows = rows[:1] if goes == bool(asked.export) else []
        if rows:
            out[block] = rows
    return out


def _goes(bird: Bird, name: str, dst: str) -> bool:
    session = bird.sessions.get(name)
    if session is not None:
        return dst in bird.told(session)
    return name in KERNELS and dst in bird.installed
