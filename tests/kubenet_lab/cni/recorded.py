"""Our kernel state in the recordings' shape, and a comparison that knows their placeholders."""

from __future__ import annotations

import re
from typing import Any

from kubenet_lab.cni.plugin import Call, CniError, Result
from kubenet_lab.cni.runtime import Runtime
from kubenet_lab.kernel.dialects import iptables, nft
from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.route import TABLE_NAMES, Route, RouteRule
from kubenet_lab.packet.ip import IP_INT, eui64

Json = dict[str, Any]

_MASK = re.compile(r"fe80::eui64\((<MAC\d+>)\)|(<(?:MAC|veth)\d+>)")


def _mac_of(link_local: str) -> str:
    """Return the MAC behind an EUI-64 link-local address."""
    tail = (IP_INT[link_local] & (1 << 64) - 1).to_bytes(8, "big")
    return ":".join(f"{b:02x}" for b in (tail[0] ^ 2, tail[1], tail[2], *tail[5:]))


class Masks:
    """Which of our values stands for which placeholder of a recording; each must stay the same throughout."""

    def __init__(self) -> None:
        self.bound: dict[str, str] = {}

    def match(self, recorded: Any, ours: Any, path: str) -> None:
        """Assert that two values are equal up to placeholders, binding those that are still free."""
        if isinstance(recorded, dict) and isinstance(ours, dict):
            assert recorded.keys() == ours.keys(), f"{path}: {recorded} != {ours}"
            for key, value in recorded.items():
                self.match(value, ours[key], f"{path}.{key}")
        elif isinstance(recorded, list) and isinstance(ours, list):
            assert len(recorded) == len(ours), f"{path}: recorded {recorded}\n ours {ours}"
            for number, (one, other) in enumerate(zip(recorded, ours, strict=True)):
                self.match(one, other, f"{path}[{number}]")
        elif isinstance(recorded, str) and isinstance(ours, str):
            self._text(recorded, ours, path)
        else:
            assert recorded == ours, f"{path}: recorded {recorded!r}, ours {ours!r}"

    def _text(self, recorded: str, ours: str, path: str) -> None:
        pattern, end, names = "", 0, []
        for found in _MASK.finditer(recorded):
            pattern += re.escape(recorded[end : found.start()])
            end = found.end()
            names.append((found[1] or found[2], bool(found[1])))
            pattern += (
                r"(fe80::[0-9a-f:]+)" if found[1] else r"((?:[0-9a-f]{2}:){5}[0-9a-f]{2}|veth[0-9a-f]{8})"
            )
        hit = re.fullmatch(pattern + re.escape(recorded[end:]), ours)
        assert hit, f"{path}: recorded {self.fill(recorded)!r}, ours {ours!r}"
        for (name, derived), value in zip(names, hit.groups(), strict=True):
            value = _mac_of(value) if derived else value
            bound = self.bound.setdefault(name, value)
            assert bound == value, f"{path}: {name} was {bound}, here it is {value} ({recorded!r})"

    def fill(self, recorded: Any) -> Any:
        """Return a recorded value with our values for placeholders, invented ones where none is known."""
        if isinstance(recorded, dict):
            return {key: self.fill(value) for key, value in recorded.items()}
        if isinstance(recorded, list):
            return [self.fill(value) for value in recorded]
        if not isinstance(recorded, str):
            return recorded

        def put(found: re.Match[str]) -> str:
            name = found[1] or found[2]
            value = self.bound.get(name, "ee:ee:ee:ee:ee:ee" if "MAC" in name else "vethffffffff")
            return eui64(value) if found[1] else value

        return _MASK.sub(put, recorded)

    def check_distinct(self) -> None:
        """Assert that no two placeholders stand for one value."""
        assert len(set(self.bound.values())) == len(self.bound), self.bound


# -- our state in the recording's shape --------------------------------------------------------------------


def state(ns: Netns) -> Json:
    """Return what is compared: links, addresses, routes, permanent neighbours, unicast FDB, rules."""
    return {
        "link": [_link(link) for link in ns.links.values()],
        "addr": [{"ifname": name, "addr_info": _addresses(ns, name)} for name in ns.links],
        "route": [_route(r) for r in ns.route_list(4)],
        "route6": [_route(r) for r in ns.route_list(6)],
        "neigh": sorted(
            f"{n.address} dev {n.dev} {n.mac}" for n in ns.neighbours.values() if n.state == "PERMANENT"
        ),
        "fdb": sorted(
            (
                {"mac": e.mac, "ifname": e.dev, "dst": e.dst, "master": e.master, "state": e.state}
                for entries in reversed(ns.fdb.values())
                for e in entries
            ),
            key=lambda e: (list(ns.links).index(e["ifname"]), e["state"], e["dst"]),
        ),
        "iptables_save": iptables.save(ns.iptables[4]).splitlines(),
        "ip6tables_save": iptables.save(ns.iptables[6]).splitlines(),
        "nft": nft.list_ruleset(ns.nftables).splitlines() if ns.has_nftables else [],
        "rule": [_rule(rule) for rule in ns.rules[4]],
        "route_other_tables": [
            _route(r) | {"table": str(table)}
            for fam in (4, 6)
            for table in sorted({t for _, t in ns.routes if t not in (254, 255)})
            for r in ns.route_list(fam, table)
        ],
    }


def _rule(rule: RouteRule) -> Json:
    """One rule of `ip -j rule`."""
    source = rule.src.removesuffix("/32") or "all"
    return {"priority": rule.priority, "src": source, "table": TABLE_NAMES.get(rule.table, str(rule.table))}


def qdiscs(ns: Netns) -> list[Json]:
    """Return the queueing disciplines that somebody set, as `tc -j qdisc` shows them."""
    return [
        {"dev": link.name, "kind": q.kind, "handle": q.handle, "parent": q.parent}
        | {"rate": q.rate, "burst": q.burst, "lat": q.latency}
        for link in ns.links.values()
        for q in link.qdiscs
    ]


def recorded_qdiscs(items: list[Json]) -> list[Json]:
    """Return the recorded counterpart of `qdiscs`."""
    return [
        {"dev": q["dev"], "kind": q["kind"], "handle": q["handle"], "parent": q.get("parent", "root")}
        | {key: q["options"].get(key, 0) for key in ("rate", "burst", "lat")}
        for q in items
        if q["kind"] in ("tbf", "ingress")
    ]


def _link(link: Link) -> Json:
    body: Json = {"ifname": link.name, "flags": sorted(link.flags), "mtu": link.mtu, "address": link.mac}
    body["txqlen"] = link.txqlen
    body |= {
        "operstate": link.operstate,
        "master": link.master,
        "kind": "" if link.kind in ("loopback", "physical") else link.kind,
    }
    if link.vxlan is not None:
        v = link.vxlan
        body["vxlan"] = {
            "id": v.vni,
            "local": v.local,
            "link": v.link,
            "port": v.port,
            "learning": v.learning,
            "ttl": v.ttl,
            "df": v.df,
        }
    if link.macvlan is not None:
        body["mode"] = link.macvlan.mode
    if link.port is not None:
        body["hairpin"], body["isolated"] = link.port.hairpin, link.port.isolated
    return body


def _addresses(ns: Netns, name: str) -> list[Json]:
    found = [
        {
            "local": a.local,
            "prefixlen": a.length,
            "scope": a.scope,
            "label": a.label,
            "broadcast": a.broadcast,
        }
        for a in ns.addrs(name)
    ]
    return sorted(found, key=lambda a: (":" in a["local"], a["scope"]))


def _route(route: Route) -> Json:
    return {
        "type": "" if route.type == "unicast" else route.type,
        "dst": "default"
        if route.dst in ("0.0.0.0/0", "::/0")
        else route.dst.removesuffix("/32").removesuffix("/128"),
        "gateway": route.via,
        "dev": route.dev,
        "protocol": "" if route.proto == "boot" else route.proto,
        "scope": "" if route.scope == "global" else route.scope,
        "prefsrc": route.prefsrc,
        "metric": route.metric,
        "flags": ["onlink"] if route.onlink else [],
    }


# -- the recording in the same shape -----------------------------------------------------------------------


def recorded_state(body: Json) -> Json:
    """Return the recorded counterpart of `state`; parts that were not recorded are left out."""
    out: Json = {}
    if "link" in body:
        out["link"] = [recorded_link(item) for item in body["link"]]
    if "addr" in body:
        out["addr"] = [
            {"ifname": i["ifname"], "addr_info": [recorded_address(a) for a in i["addr_info"]]}
            for i in body["addr"]
        ]
    for key in ("route", "route6"):
        if key in body:
            out[key] = [recorded_route(item) for item in body[key]]
    if "neigh" in body:
        out["neigh"] = sorted(
            f"{n['dst']} dev {n['dev']} {n['lladdr']}" for n in body["neigh"] if "PERMANENT" in n["state"]
        )
    if "fdb" in body:
        names = list(dict.fromkeys(item["ifname"] for item in body["fdb"]))
        out["fdb"] = sorted(
            (
                recorded_fdb(item)
                for item in body["fdb"]
                if not item["mac"].startswith(("33:33:", "01:00:5e:"))
            ),
            key=lambda e: (names.index(e["ifname"]), e["state"], e["dst"]),
        )
    for key in ("iptables_save", "ip6tables_save", "nft"):
        if key in body:
            out[key] = body[key]
    if "rule" in body:
        out["rule"] = [{key: rule[key] for key in ("priority", "src", "table")} for rule in body["rule"]]
    if "route_other_tables" in body:
        out["route_other_tables"] = [
            recorded_route(item) | {"table": item["table"]} for item in body["route_other_tables"]
        ]
    return out


def recorded_link(item: Json) -> Json:
    """One item of `ip -d -j link`; eth0 was a veth there and is a physical link here."""
    info = item.get("linkinfo", {})
    kind = info.get("info_kind", "")
    outside = item["ifname"] == "eth0" and "master" not in item
    body: Json = {
        "ifname": item["ifname"],
        "flags": sorted(item["flags"]),
        "mtu": item["mtu"],
        "address": item.get("address", ""),
    }
    body |= {
        "operstate": item["operstate"],
        "master": item.get("master", ""),
        "kind": kind,
        "outside": outside,
    }
    if kind == "vxlan":
        keys = ("id", "link", "port", "learning", "ttl", "df")
        data = info["info_data"]
        body["vxlan"] = {key: data[key] for key in keys} | {"local": data.get("local", data.get("local6"))}
    if kind == "macvlan":
        body["mode"] = info["info_data"]["mode"]
    if "txqlen" in item:
        body["txqlen"] = item["txqlen"]
    if "info_slave_data" in info:
        body["hairpin"], body["isolated"] = (
            info["info_slave_data"]["hairpin"],
            info["info_slave_data"]["isolated"],
        )
    return body


def recorded_address(item: Json) -> Json:
    """One address of `ip -j addr`."""
    return {key: item.get(key, "") for key in ("local", "prefixlen", "scope", "label", "broadcast")}


def recorded_route(item: Json) -> Json:
    """One route of `ip -j route`; `linkdown` depends on when the carrier was noticed."""
    body = {
        key: item.get(key, "") for key in ("type", "dst", "gateway", "dev", "protocol", "scope", "prefsrc")
    }
    return body | {"metric": item.get("metric", 0), "flags": [f for f in item["flags"] if f != "linkdown"]}


def recorded_fdb(item: Json) -> Json:
    """One entry of `bridge -j fdb`."""
    return {key: item.get(key, "") for key in ("mac", "ifname", "dst", "master", "state")}


def compare(masks: Masks, recorded: Json, ours: Json, path: str) -> None:
    """Assert that two states are equal part by part; the machine's cable was a veth there."""
    for key, value in recorded.items():
        mine = ours[key]
        if key == "link":
            for one in value:
                outside = one.pop("outside", False)
                for other in mine:
                    if outside and other["ifname"] == one["ifname"]:
                        one["kind"] = other["kind"]
            names = {one["ifname"] for one in value if "txqlen" not in one}
            mine = [
                {k: v for k, v in other.items() if k != "txqlen"} if other["ifname"] in names else other
                for other in mine
            ]
            if any(name.startswith("<veth") for name in names):
                mine = [
                    {k: v for k, v in other.items() if k != "txqlen"}
                    if other["ifname"].startswith("veth")
                    else other
                    for other in mine
                ]
        masks.match(value, mine, f"{path}.{key}")


def added(before: Json, after: Json) -> Json:
    """Return the items of each part of a state that were not there before."""
    return {key: [item for item in items if item not in before[key]] for key, items in after.items()}


def files_of(ns: Netns) -> dict[str, str]:
    """Return the plugins' files, line ends as in the recording."""
    return {
        path: text.replace("\r\n", "\n")
        for path, text in ns.files.items()
        if path.startswith(("/var/lib/cni/networks", "/var/lib/cni/flannel"))
    }


class Recording(Runtime):
    """A runtime that keeps each plugin's standard input."""

    def __init__(self, network: Network, host: str) -> None:
        super().__init__(network, host)
        self.inputs: list[tuple[str, Json]] = []
        self.depth = 0

    def run(self, plugin: str, call: Call) -> Result | None:
        """Keep the input of plugins of the chain, not of what they delegate to."""
        if self.depth == 0:
            self.inputs.append((plugin, call.conf))
        self.depth += 1
        try:
            return super().run(plugin, call)
        finally:
            self.depth -= 1


def sandbox(network: Network, host: str, name: str) -> str:
    """Make a namespace as `ip netns add` does and return its path."""
    network.add_netns(name, host).set_link("lo", up=False)
    network.ns(name).set_link("lo", up=True)
    network.ns(host).files[f"/run/netns/{name}"] = name
    return f"/run/netns/{name}"


def outcome(runtime: Runtime, command: str, plugin: str, **given: Any) -> tuple[int, Json | str]:
    """Run one plugin and return (exit status, standard output) as recorded."""
    call = Call(command=command, network=runtime.network, host=runtime.host, run=runtime.run, **given)
    try:
        result = runtime.run(plugin, call)
    except CniError as fault:
        return 1, fault.to_json()
    return 0, result.to_json(call.conf.get("cniVersion") or "0.1.0") if result is not None else ""
