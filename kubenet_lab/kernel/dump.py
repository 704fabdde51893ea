"""The whole state of a network as one JSON-ready document, and back: `load(dump(network))` dumps the same.

Documents are sorted by name, so that two states compare line by line. Rules are in it as `iptables-save` text with
counters and as `nft list ruleset` text; everything else as plain fields, where a field at its default is left out.
A socket's handler is code and stays behind: a loaded listener accepts and answers nothing by itself.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from kubenet_lab.errors import Fault, InputError
from kubenet_lab.kernel.address import Address
from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.conntrack import Flow
from kubenet_lab.kernel.ipvs import Conn, IpvsTable
from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.neighbour import Neighbour
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network, Wire
from kubenet_lab.kernel.route import Route, RouteRule
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.kernel.wireguard import Session

FORMAT = "kubenet-lab network 1"
"""First member of every document; a later form gets another number."""

T = TypeVar("T")


def dump(network: Network) -> dict[str, Any]:
    """Return a network's state as dicts, lists, strings and numbers that `json.dumps` takes."""
    return {
        "format": FORMAT,
        "wires": [_plain(network.wires[name]) for name in sorted(network.wires)],
        "namespaces": [dump_netns(network.netns[name]) for name in sorted(network.netns)],
    }


def dump_netns(ns: Netns) -> dict[str, Any]:
    """Return one namespace's state; see `dump`."""
    from kubenet_lab.kernel.dialects import ipset, iptables, nft

    document: dict[str, Any] = {
        "name": ns.name,
        "host": ns.host,
        "links": [_plain(link) for link in sorted(ns.links.values(), key=lambda one: one.index)],
        "addresses": [_plain(a) for name in sorted(ns.addresses) for a in ns.addresses[name]],
        "rules": [_plain(rule) for fam in (4, 6) for rule in ns.rules[fam]],
        "routes": [
            _plain(route) for key in sorted(ns.routes) for route in _sorted_routes(ns.routes[key].values())
        ],
        "neighbours": [_plain(ns.neighbours[key]) for key in sorted(ns.neighbours)],
        "fdb": [_plain(entry) for key in sorted(ns.fdb) for entry in ns.fdb[key]],
        "sysctls": {key: ns.sysctls[key] for key in sorted(ns.sysctls)},
        "sockets": [
            _plain(socket, "handler", "upstream") for key in sorted(ns.sockets) for socket in ns.sockets[key]
        ],
        "files": {name: ns.files[name] for name in sorted(ns.files)},
        "wireguard": [
            {"link": dev, "peer": peer, **_plain(ns.wireguard[dev, peer])}
            for dev, peer in sorted(ns.wireguard)
        ],
        "conntrack": [_plain(flow) for flow in sorted(ns.conntrack, key=lambda one: one.id)],
        "conntrack_drops": ns.conntrack.drops,
        "next_port": {str(proto): ns.next_port[proto] for proto in sorted(ns.next_port)},
        "pmtu": {dst: list(ns.pmtu[dst]) for dst in sorted(ns.pmtu)},
        "ipsets": ipset.save(ns.ipsets).splitlines(),
        "iptables": {str(fam): iptables.save(ns.iptables[fam], counters=True).splitlines() for fam in (4, 6)},
    }
    if ns.has_ipvs:
        document["ipvs"] = _dump_ipvs(ns.ipvs)
    if ns.has_nftables:
        document["nftables"] = nft.list_ruleset(ns.nftables).splitlines()
    return document


def _dump_ipvs(table: IpvsTable) -> dict[str, Any]:
    """Virtual servers as `ipvsadm -Sn` text, connections as fields; which template a connection has is its key."""
    from kubenet_lab.kernel.dialects import ipvsadm

    connections = []
    for conn in sorted(table, key=lambda one: (one.template, one.incoming)):
        fields = _plain(conn, "control", "controlled")
        if conn.control is not None:
            fields["control"] = list(conn.control.incoming)
        connections.append(fields)
    return {
        "services": ipvsadm.save(table).splitlines(),
        "timeouts": [table.timeouts.tcp, table.timeouts.tcp_fin, table.timeouts.udp],
        "connections": connections,
    }


def _sorted_routes(routes: Any) -> list[Route]:
    return sorted(routes, key=lambda route: (route.dst, route.metric, route.dev))


_FIELDS: dict[type[Any], tuple[msgspec.structs.FieldInfo, ...]] = {}


def _fields(kind: type[Any]) -> tuple[msgspec.structs.FieldInfo, ...]:
    """The fields of a kind of value; to find them msgspec compiles every annotation, each time."""
    if kind not in _FIELDS:
        _FIELDS[kind] = msgspec.structs.fields(kind)
    return _FIELDS[kind]


def _plain(value: Any, *leave: str) -> dict[str, Any]:
    """Return a value's fields without those at their default, tuples as lists."""
    out: dict[str, Any] = {}
    for field in _fields(type(value)):
        if field.name in leave:
            continue
        got = getattr(value, field.name)
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if got == default and type(got) is type(default):
            continue
        out[field.name] = _simple(got)
    return out


def _simple(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return _plain(value)
    if isinstance(value, (tuple, list)):
        return [_simple(item) for item in value]
    return value


class _Reader:
    """Turns members of a document into values and keeps every fault."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Fault] = []

    def fault(self, message: str, path: str) -> None:
        self.faults.append(Fault(message, file=self.file, path=path))

    def rows(self, document: dict[str, Any], key: str, kind: type[T], path: str) -> list[T]:
        found = document.get(key, [])
        if not isinstance(found, list):
            self.fault("a list was expected", f"{path}.{key}")
            return []
        out: list[T] = []
        for at, item in enumerate(found):
            try:
                _check_fields(item, kind)
                out.append(msgspec.convert(item, kind))
            except (msgspec.ValidationError, TypeError) as error:
                self.fault(str(error), f"{path}.{key}[{at}]")
        return out

    def texts(self, document: dict[str, Any], key: str, path: str) -> dict[str, str]:
        try:
            return msgspec.convert(document.get(key, {}), dict[str, str])
        except msgspec.ValidationError as error:
            self.fault(str(error), f"{path}.{key}")
            return {}


def _check_fields(item: Any, kind: type[Any]) -> None:
    """Refuse members that no field takes: a spelling mistake must not vanish."""
    if isinstance(item, dict):
        unknown = sorted(set(item) - {field.name for field in msgspec.structs.fields(kind)})
        if unknown:
            raise msgspec.ValidationError(f"unknown field {', '.join(map(repr, unknown))} of {kind.__name__}")


def load(document: dict[str, Any], *, file: str = "<document>") -> Network:
    """Build the network that a document made by `dump` describes.

    Raises:
        InputError: With every fault the document has, each with its field path (`namespaces[0].links[2]`).
    """
    reader = _Reader(file)
    network = Network()
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise InputError(
            [
                Fault(
                    f'"format" must be {FORMAT!r}', file=file, path="format", help="pass what `dump` returned"
                )
            ]
        )
    for at, item in enumerate(document.get("namespaces", [])):
        path = f"namespaces[{at}]"
        if not isinstance(item, dict) or not isinstance(item.get("name"), str):
            reader.fault("a namespace is an object with a name", path)
        elif item["name"] in network.netns:
            reader.fault(f"a second namespace {item['name']!r}", path)
        else:
            _load_netns(network, item, reader, path)
    for wire in reader.rows(document, "wires", Wire, "document"):
        for ns, link in wire.ports:
            if ns not in network.netns or link not in network.netns[ns].links:
                reader.fault(f"wire {wire.name!r} ends at {link!r} in {ns!r}, which is not there", "wires")
        network.wires[wire.name] = wire
    if reader.faults:
        raise InputError(reader.faults)
    network.restack()
    return network


def _load_netns(network: Network, item: dict[str, Any], reader: _Reader, path: str) -> None:
    from kubenet_lab.kernel.dialects import ipset, iptables, nft

    ns = network.add_netns(item["name"], str(item.get("host", "")))
    # The document says it all, also what the verbs would add by themselves.
    links = reader.rows(item, "links", Link, path)
    ns.links = {link.name: link for link in links}
    ns.addresses = {}
    for address in reader.rows(item, "addresses", Address, path):
        if address.dev not in ns.links:
            reader.fault(f"address {address} is on a link that is not there", f"{path}.addresses")
        ns.addresses[address.dev] = (*ns.addresses.get(address.dev, ()), address)
    rules = reader.rows(item, "rules", RouteRule, path)
    ns.rules = {fam: tuple(rule for rule in rules if rule.family == fam) for fam in (4, 6)}
    ns.routes = {}
    for route in reader.rows(item, "routes", Route, path):
        for dev in (route.dev, *(hop.dev for hop in route.nexthops)):
            if dev and dev not in ns.links:
                reader.fault(f"route {route} leaves by a link that is not there", f"{path}.routes")
        ns.routes.setdefault((route.family, route.table), {})[route.key] = route
    ns.neighbours = {(n.dev, n.address): n for n in reader.rows(item, "neighbours", Neighbour, path)}
    ns.fdb = {}
    for entry in reader.rows(item, "fdb", FdbEntry, path):
        key = ns.fdb_key(entry)
        ns.fdb[key] = (*ns.fdb.get(key, ()), entry)
    ns.sysctls = reader.texts(item, "sysctls", path)
    ns.files = reader.texts(item, "files", path)
    ns.sockets = {}
    for socket in reader.rows(item, "sockets", Socket, path):
        ns.sockets[socket.proto, socket.port] = (*ns.sockets.get((socket.proto, socket.port), ()), socket)
    rows = [dict(row) for row in item.get("wireguard", [])]
    whose = [(row.pop("link", ""), row.pop("peer", "")) for row in rows]
    ns.wireguard = dict(
        zip(whose, reader.rows({"wireguard": rows}, "wireguard", Session, path), strict=False)
    )
    if any(link.lower is not None or link.wireguard is not None for link in links):
        network.stacking[ns.name] = None
    _load_conntrack(ns, item, reader, path)
    try:
        ns.next_port = {
            int(k): v for k, v in msgspec.convert(item.get("next_port", {}), dict[str, int]).items()
        }
        ns.pmtu = msgspec.convert(item.get("pmtu", {}), dict[str, tuple[int, float]])
    except (msgspec.ValidationError, ValueError) as error:
        reader.fault(str(error), f"{path}.next_port")
    try:
        ns.ipsets = ipset.load("\n".join(item.get("ipsets", [])))
        for fam in (4, 6):
            text = "".join(line + "\n" for line in item.get("iptables", {}).get(str(fam), []))
            ns.set_iptables(fam, iptables.load(text, family=fam, file=f"{path}.iptables.{fam}"))
        if item.get("ipvs"):
            ns.set_ipvs(_load_ipvs(item["ipvs"], reader, f"{path}.ipvs"))
        if item.get("nftables"):
            text = "".join(line + "\n" for line in item["nftables"])
            ns.set_nftables(nft.load(text, file=f"{path}.nftables"))
    except InputError as error:
        reader.faults += error.faults


def _load_ipvs(item: dict[str, Any], reader: _Reader, path: str) -> IpvsTable:
    from kubenet_lab.kernel.dialects import ipvsadm

    table = ipvsadm.load("".join(line + "\n" for line in item.get("services", [])), file=path)
    table.set_timeouts(*item.get("timeouts", []))
    rows = [dict(row) for row in item.get("connections", [])]
    controls = [row.pop("control", None) for row in rows]
    conns = reader.rows({"connections": rows}, "connections", Conn, path)
    templates = {conn.incoming: conn for conn in conns if conn.template}
    for conn, control in zip(conns, controls, strict=len(conns) == len(rows)):
        conn.control = templates.get(tuple(control)) if control else None
    for conn in conns:
        table.enter(conn)
    return table


def _load_conntrack(ns: Netns, item: dict[str, Any], reader: _Reader, path: str) -> None:
    flows = reader.rows(item, "conntrack", Flow, path)
    for flow in flows:
        table = ns.conntrack
        table.flows[flow.id] = table.by_tuple[flow.orig] = table.by_tuple[flow.reply] = flow
    ns.conntrack._next_id = max((flow.id for flow in flows), default=0) + 1
    ns.conntrack.drops = int(item.get("conntrack_drops", 0))
