"""The rules of one node as text, straight from objects: what `kubenet-lab rules` prints.

No cluster is built: Services and EndpointSlices go in as they are, no slice is made and no address allocated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from kubenet_lab.errors import NotFound
from kubenet_lab.kernel.dialects.iptables import save
from kubenet_lab.kernel.ipset import IpSet
from kubenet_lab.kernel.ipvs import IpvsTable, VirtualServer
from kubenet_lab.kernel.netfilter import Ruleset
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.objects import AnyObject, EndpointSlice, Json, Node, Service, default_nodes, from_manifest
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode, duration_text
from kubenet_lab.proxy.iptables import KubeProxyIptables
from kubenet_lab.proxy.ipvs import KubeProxyIpvs, state_document, sysctl_path
from kubenet_lab.proxy.ipvs_rules import DUMMY
from kubenet_lab.proxy.nftables import KubeProxyNftables
from kubenet_lab.proxy.nftables_rules import TABLE

CLUSTER_CIDRS = ("10.244.0.0/16", "fd00:10:244::/56")
"""Where pods' addresses come from unless a flag says otherwise, one block a family."""

SERVICE_CIDRS = ("10.96.0.0/16", "fd00:10:96::/112")
"""Where Services' addresses come from."""

MODES = ("iptables", "nftables", "ipvs")
"""kube-proxy's modes (`--proxy-mode`) that can be rendered."""

As = Literal["written", "saved"]
Objects = Iterable[AnyObject | Json]

RESTORE = {4: "iptables-restore", 6: "ip6tables-restore"}
SAVE = {4: "iptables-save", 6: "ip6tables-save"}


def lab_nodes(count: int = 3) -> list[Node]:
    """Return the nodes of a world that names none, in both families, with pod blocks (a /24 and a /64)."""
    return [
        node.with_pod_cidrs((f"10.244.{i}.0/24", f"fd00:10:244:{i:x}::/64" if i else "fd00:10:244::/64"))
        for i, node in enumerate(default_nodes(count, dual_stack=True))
    ]


def _typed(objects: Objects) -> list[AnyObject]:
    return [from_manifest(given) if isinstance(given, dict) else given for given in objects]


def proxy_node(objects: Objects, name: str) -> ProxyNode:
    """Return the node called `name` among the objects, or of the three lab nodes if there is no Node at all.

    Raises NotFound.
    """
    nodes = [given for given in _typed(objects) if isinstance(given, Node)] or lab_nodes()
    for node in nodes:
        if node.name == name:
            return ProxyNode.from_node(node)
    raise NotFound("Node", name, resource="nodes", known=[node.name for node in nodes])


def _watched(objects: Iterable[AnyObject]) -> tuple[list[Service], list[EndpointSlice]]:
    everything = list(objects)
    return (
        [given for given in everything if isinstance(given, Service)],
        [given for given in everything if isinstance(given, EndpointSlice)],
    )


class _IpvsNode(NamedTuple):
    """A node in IPVS mode after a sync, and what was there before it.

    `texts` are the iptables texts by family, `written` those of the last sync alone.
    """

    proxy: KubeProxyIpvs
    space: Netns
    texts: dict[int, list[str]]
    sets: dict[str, IpSet]
    bound: list[str]
    table: IpvsTable
    written: dict[int, list[str]] = {}

    def document(self) -> dict[str, Any]:
        """The members of an IPVS case, as lists and numbers."""
        timeouts = self.proxy.config.ipvs_timeouts
        terminating = self.proxy.terminating
        return {
            **state_document(self.space),
            "iptables": {f"IPv{f}": "\n".join(self.texts[f]) for f in (4, 6)},
            "healthCheckNodePorts": [
                {"service": check.service, "port": check.port, "localEndpoints": check.local_endpoints}
                for check in self.proxy.health_checks()
            ],
            "sysctls": {sysctl_path(name): value for name, value in self.proxy.sysctls.items()},
            **({"ipvsTimeouts": [*map(duration_text, timeouts)]} if any(timeouts) else {}),
            **({"terminatingRealServers": terminating} if terminating else {}),
        }

    def written_lines(self, fam: int) -> list[str]:
        """What kube-proxy does in one family, as commands of the tools: sets, addresses, virtual servers, rules."""
        from kubenet_lab.kernel.dialects import ipset

        here = "inet6" if fam == 6 else "inet"
        out: list[str] = []
        for name, made in self.space.ipsets.items():
            if (name.startswith("KUBE-6-")) != (fam == 6):
                continue
            before = self.sets.get(name)
            if before is None:
                out += ipset.save({name: made}).splitlines()
            else:
                out += [f"add {name} {one}" for one in made.entries if one not in before.entries]
                out += [f"del {name} {one}" for one in before.entries if one not in made.entries]
        bound = [a.local for a in self.space.addrs(DUMMY, fam)]
        addresses = [f"address add {one} dev {DUMMY}" for one in bound if one not in self.bound]
        addresses += [
            f"address del {one} dev {DUMMY}"
            for one in self.bound
            if one not in bound and (":" in one) == (here == "inet6")
        ]
        return [
            *_section("ipset restore", out),
            *_section("ip -batch -", addresses),
            *_section("ipvsadm -R", _ipvsadm_changes(self.table, self.space.ipvs, fam)),
            *_section(f"{RESTORE[fam]} --noflush --counters", self.written.get(fam, [""])[:-1]),
            "",
        ]

    def saved_lines(self, fam: int) -> list[str]:
        """What `ipvsadm -Sn`, `ipset save` and `iptables-save` print then, for one family."""
        from kubenet_lab.kernel.dialects import ipset, ipvsadm

        sets = {
            name: made for name, made in self.space.ipsets.items() if name.startswith("KUBE-6-") == (fam == 6)
        }
        return [
            *_section("ipvsadm -Sn", ipvsadm.save(_of_family(self.space.ipvs, fam)).splitlines()),
            *_section("ipset save", ipset.save(sets).splitlines()),
            *_section(SAVE[fam], save(self.space.iptables[fam]).splitlines()),
            "",
        ]


def _section(command: str, lines: list[str]) -> list[str]:
    return [f"# {command}", *lines] if lines else []


def _of_family(table: IpvsTable, fam: int) -> IpvsTable:
    made = IpvsTable()
    made.services = {key: one for key, one in table.services.items() if one.family == fam}
    made.reals = {key: table.reals[key] for key in made.services}
    return made


def _ipvsadm_changes(before: IpvsTable, after: IpvsTable, fam: int) -> list[str]:
    """Return the ipvsadm command lines that lead from one table to another."""
    from kubenet_lab.kernel.dialects import ipvsadm
    from kubenet_lab.kernel.ipvs import RealServer, socket_text

    def lines(virtual: VirtualServer, reals: dict[Any, RealServer]) -> list[str]:
        one = IpvsTable()
        one.services, one.reals = {virtual.key: virtual}, {virtual.key: reals}
        return ipvsadm.save(one).splitlines()

    out: list[str] = []
    for virtual in ipvsadm.sorted_services(_of_family(after, fam)):
        key, old = virtual.key, before.services.get(virtual.key)
        if old is None:
            out += lines(virtual, after.reals[key])
            continue
        if old != virtual:
            out.append("-E" + lines(virtual, {})[0][2:])
        have, want = before.reals[key], after.reals[key]
        new = {server: real for server, real in want.items() if server not in have}
        other = {server: real for server, real in want.items() if have.get(server, real) != real}
        out += lines(virtual, new)[1:]
        out += ["-e" + line[2:] for line in lines(virtual, other)[1:]]
        where = " ".join(lines(virtual, {})[0].split()[1:3])
        out += [f"-d {where} -r {socket_text(*server)}" for server in have if server not in want]
    for virtual in ipvsadm.sorted_services(_of_family(before, fam)):
        if virtual.key not in after.services:
            out.append("-D " + " ".join(lines(virtual, {})[0].split()[1:3]))
    return out


def node_space(node: ProxyNode) -> Netns:
    """Return a node's kernel as kube-proxy finds it: its own addresses on eth0, and nothing else."""
    space = Netns(node.name)
    space.add_link("eth0", "physical", mac="02:00:00:00:00:01", up=True)
    present = {a.local for a in space.addrs()}
    for address in dict.fromkeys((*node.interface_addresses, *node.ips)):
        if address not in present:
            space.add_address("eth0", f"{address}/{64 if ':' in address else 24}")
    return space


class _World(Struct, frozen=True):
    """What one kube-proxy sees: its node, its settings, and the states of the API in turn."""

    node: ProxyNode
    config: KubeProxyConfig
    states: list[tuple[list[Service], list[EndpointSlice]]]

    @classmethod
    def of(cls, objects: Objects, node: str, flags: Iterable[str], before: Objects | None) -> _World:
        everything = _typed(objects)
        config = KubeProxyConfig.from_flags(flags, cluster_cidrs=CLUSTER_CIDRS, service_cidrs=SERVICE_CIDRS)
        states = [everything] if before is None else [_typed(before), everything]
        return cls(proxy_node(everything, node), config, [*map(_watched, states)])

    def iptables_written(self) -> dict[int, list[str]]:
        proxy = KubeProxyIptables(self.node, self.config)
        written = [proxy.sync(*state) for state in self.states][-1]
        texts = {4: written.iptables_restore, 6: written.ip6tables_restore}
        return {f: text for f, text in texts.items() if text is not None}

    def iptables_saved(self) -> dict[int, list[str]]:
        proxy = KubeProxyIptables(self.node, self.config)
        rulesets = {4: Ruleset(4), 6: Ruleset(6)}
        for state in self.states:
            rulesets = proxy.reconcile(rulesets, *state)
        return {f: save(ruleset).split("\n") for f, ruleset in rulesets.items()}

    def nftables_written(self) -> dict[int, list[list[str]]]:
        proxy = KubeProxyNftables(self.node, self.config)
        written = [proxy.sync(*state) for state in self.states][-1]
        return {4: written.ip, 6: written.ip6}

    def ipvs(self, active: int = 0) -> _IpvsNode:
        """Program a node in IPVS mode; before the last sync every real server has `active` active connections."""
        proxy = KubeProxyIpvs(self.node, self.config)
        now = _IpvsNode(proxy, node_space(self.node), {}, {}, [], IpvsTable())
        for number, state in enumerate(self.states):
            if number:
                space = now.space
                for key, reals in space.ipvs.reals.items():
                    for server in reals if active else ():
                        space.ipvs.counts[key, server] = [active, 0, 0]
                bound = [a.local for a in space.addrs(DUMMY)]
                now = now._replace(sets=dict(space.ipsets), bound=bound, table=space.ipvs.copy(), written={})
            now.texts.update(written := proxy.sync(now.space, *state))
            now = now._replace(written=written)
        return now

    def nftables_saved(self) -> dict[int, list[str]]:
        from kubenet_lab.kernel import nftables
        from kubenet_lab.kernel.dialects.nft import list_table

        proxy = KubeProxyNftables(self.node, self.config)
        ruleset = nftables.Ruleset()
        for state in self.states:
            ruleset = proxy.reconcile(ruleset, *state)
        return {f: list_table(ruleset, ip, TABLE).split("\n") for f, ip in ((4, "ip"), (6, "ip6"))}


def written(objects: Objects, node: str, flags: Iterable[str] = ()) -> dict[int, list[str]]:
    """Return what kube-proxy feeds to `iptables-restore` (4) and `ip6tables-restore` (6) at its start.

    Lists of lines; the last, empty, stands for the final newline. Raises NotFound for the node, InputError
    for flags.
    """
    return _World.of(objects, node, flags, None).iptables_written()


def saved(objects: Objects, node: str, flags: Iterable[str] = ()) -> dict[int, list[str]]:
    """Return what `iptables-save` (4) and `ip6tables-save` (6) print then, where nothing else made rules.

    Lists of lines as for `written`, comment lines ("# Generated by ...") left out, and the same errors.
    """
    return _World.of(objects, node, flags, None).iptables_saved()


def rules(
    objects: Objects,
    node: str,
    flags: Iterable[str] = (),
    family: int = 4,
    as_: As = "written",
    *,
    mode: str = "iptables",
    before: Objects | None = None,
    active: int = 0,
) -> list[str]:
    """Return one text: `family` is 4 or 6; `as_` is as kube-proxy writes or as the kernel's tool prints it.

    `mode` is one of `MODES`. With `before`, the objects of an earlier sync, it is what a second sync writes, []
    where it writes nothing, and what is printed then. Several transactions are parted by an empty line.

    In IPVS mode the text has a part for each tool, after a line with its command ("# ipset restore"); `active` is how
    many active connections every real server has when the second sync comes.
    """
    world = _World.of(objects, node, flags, before)
    if mode == "ipvs":
        node_now = world.ipvs(active)
        return node_now.written_lines(family) if as_ == "written" else node_now.saved_lines(family)
    if mode == "iptables":
        return (world.iptables_written() if as_ == "written" else world.iptables_saved()).get(family, [])
    if as_ == "saved":
        return world.nftables_saved()[family]
    return [line for text in world.nftables_written()[family] for line in text]


def rules_document(
    objects: Objects,
    node: str,
    flags: Iterable[str] = (),
    modes: Sequence[str] = ("iptables",),
    before: Objects | None = None,
    *,
    active: int = 0,
) -> dict[str, dict[str, Any]]:
    """Return all texts of some modes, each a list of lines.

    {"iptables": {"written": {"iptables-restore": ..., "ip6tables-restore": ...}, "saved": {"iptables-save": ...,
    "ip6tables-save": ...}}, "nftables": {"written": {"nft": [transaction, ...]}, "saved": {"nft list ruleset":
    ...}}, "ipvs": {"virtualServers", "ipsets", "kubeIpvs0", "iptables", "healthCheckNodePorts", "sysctls", where there
    are any "ipvsTimeouts" and "terminatingRealServers": see `proxy.ipvs.state_document`}}. With `before` they are those
    of a second sync; a family for which it writes nothing has no member. `active` is as for `rules`.
    """
    world = _World.of(objects, node, flags, None if before is None else list(before))
    document: dict[str, dict[str, Any]] = {}
    if "iptables" in modes:
        document["iptables"] = {
            "written": {RESTORE[f]: text for f, text in world.iptables_written().items()},
            "saved": {SAVE[f]: text for f, text in world.iptables_saved().items()},
        }
    if "nftables" in modes:
        document["nftables"] = {
            "written": {"nft": [text for texts in world.nftables_written().values() for text in texts]},
            "saved": {"nft list ruleset": _joined(world.nftables_saved().values())},
        }
    if "ipvs" in modes:
        document["ipvs"] = world.ipvs(active).document()
    return document


def _joined(texts: Iterable[list[str]]) -> list[str]:
    """Return texts one after another: a list's last line, empty, stands for the newline at its end."""
    return [*(line for text in texts for line in text[:-1]), ""]
