"""Felix on one node: writes the picture (`graph`) into the kernel as chains, IP sets and routes.

Chains are kept in step by difference, as the real one does with iptables-restore: what did not change is not written,
what is not wanted any more is emptied and deleted. A node's first rules are only written when somebody looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from kubenet_lab.cni.calico import chains, names, nftables, static
from kubenet_lab.cni.calico.chains import FelixConfig
from kubenet_lab.cni.calico.graph import Picture
from kubenet_lab.cni.calico.ipam import IpPool
from kubenet_lab.cni.calico.rules import Chain, Rule, iptables_rules
from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.dialects import iptables
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.ipset import IpSet
from kubenet_lab.kernel.netfilter import Ruleset
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.route import TABLE_MAIN, Route
from kubenet_lab.packet.ip import prefix

NORMAL_METRIC = 1024
"""Of routes to the node's own pods (Felix's IPv4NormalRoutePriority)."""
TUNNEL, SAME_SUBNET = "boot", "80"
"""Route protocols: Felix leaves the usual one to routes through the tunnel, and has a number for the others."""
VXLAN_DEVICE, VXLAN6_DEVICE, IPIP_DEVICE = "vxlan.calico", "vxlan-v6.calico", "tunl0"
SET_SIZE = ("hashsize", "1024", "maxelem", "1048576")
METRIC6 = 1024
"""What the kernel gives an IPv6 route that is told no metric."""
HOOKS = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "POSTROUTING"),
    "nat": ("PREROUTING", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}
"""Built-in chains whose first rule jumps to Felix's chain of the same name."""


class Vtep(Struct, frozen=True):
    """A node's end of the VXLAN of a family: the address and MAC of vxlan.calico, and where to send."""

    node: str
    address: str
    mac: str
    host: str

    @property
    def device(self) -> str:
        """The link of its family."""
        return VXLAN6_DEVICE if ":" in self.address else VXLAN_DEVICE


class Programmed(Struct, frozen=True):
    """Everything a node's Felix is to program, beside the pods' own routes."""

    picture: Picture
    config: FelixConfig
    pools: tuple[IpPool, ...] = ()
    hosts: tuple[str, ...] = ()
    """Addresses of all nodes."""
    own: tuple[str, ...] = ()
    """Addresses of this host."""
    vteps: tuple[Vtep, ...] = ()
    blocks: tuple[tuple[str, str], ...] = ()
    """(block, node it belongs to) of pools that Felix routes (VXLAN)."""
    borrowed: tuple[tuple[str, str], ...] = ()
    """(address, node whose pod has it) where the block is another node's."""
    subnets: tuple[str, ...] = ()
    """Networks this host is in, for CrossSubnet."""


def wanted_chains(picture: Picture, config: FelixConfig, family: int, *, nat: bool) -> dict[str, list[Chain]]:
    """Return all of Felix's chains by table: the pure function from objects (a `Picture`) to rules."""
    hosts = chains.host_chains(picture, config)
    dispatch = hosts["dispatch"]
    # Every table has the dispatch chains it jumps to; they are empty without host endpoints.
    to_host = [c for c in dispatch if c.name.startswith("cali-to-host-endpoint")]
    from_host = [c for c in dispatch if c.name.startswith("cali-from-host-endpoint")]
    policies = [
        *chains.policy_chains(picture, config, family),
        *chains.group_chains(picture, config),
        *chains.profile_chains(picture.profiles, config, family),
    ]
    marks = chains.mark_dispatch(picture, config) if config.ipvs else []
    out = {
        "filter": [
            *static.filter_chains(config, family),
            Chain("cali-cidr-block"),
            *dispatch,
            *hosts["filter"],
            *chains.workload_dispatch(picture, config),
            *chains.workload_chains(picture, config),
            *policies,
            *marks,
        ],
        "nat": [
            *static.nat_chains(config, family),
            static.nat_outgoing(config, family, active=nat),
            Chain("cali-fip-dnat"),
            Chain("cali-fip-snat"),
        ],
        "mangle": [
            *static.mangle_chains(config, family),
            Chain("cali-egress-dscp"),
            *to_host,
            *from_host,
            *hosts["mangle"],
        ],
        "raw": [
            *static.raw_chains(config, family),
            Chain("cali-rpf-skip"),
            *to_host,
            *from_host,
            *hosts["raw"],
        ],
    }
    if hosts["filter"]:
        for table in ("mangle", "raw"):
            known = {chain.name for chain in out[table]}
            out[table] += [chain for chain in policies if chain.name not in known]
    return out


def wanted_sets(wanted: Programmed, family: int) -> dict[str, IpSet]:
    """Return all of Felix's IP sets of a family, by name in the kernel."""
    kind = "inet6" if family == 6 else "inet"
    mine = [pool for pool in wanted.pools if pool.family == family]

    def of(text: str) -> bool:
        address, _, _port = text.partition(",")  # "10.244.1.2,tcp:8080" has a colon, too
        return (":" in address) == (family == 6)

    out: dict[str, IpSet] = {}

    def put(name: str, form: str, members: list[str]) -> None:
        known = names.ipset(name, family)
        made = IpSet(known, form, kind, SET_SIZE)
        out[known] = made.update([(member, ()) for member in members if of(member)], exist=True)

    put(static.POOLS, "hash:net", [pool.cidr for pool in mine])
    put(
        static.MASQ_POOLS, "hash:net", [pool.cidr for pool in mine if pool.nat_outgoing and not pool.disabled]
    )
    put(static.THIS_HOST, "hash:ip", list(wanted.own))
    put(static.DSCP, "hash:net", [])
    if wanted.config.ipip:
        put(static.HOSTS, "hash:net", list(wanted.hosts))
    if wanted.config.vxlan6 if family == 6 else wanted.config.vxlan:
        put(static.VXLAN_HOSTS, "hash:net", [vtep.host for vtep in wanted.vteps])
    for found in wanted.picture.sets:
        form = "hash:ip,port" if found.kind == "IP_AND_PORT" else "hash:net"
        put(found.id, form, list(found.members))
    return out


def _nft_family(family: int) -> str:
    return "ip6" if family == 6 else "ip"


class Felix:
    """The daemon on one node. `program` brings the kernel to what is wanted; `refresh` repairs what others broke."""

    def __init__(self, network: Network, node: str) -> None:
        self.network = network
        self.node = node
        self.wanted: Programmed | None = None
        self._written: dict[tuple[int, str], dict[str, list[str]]] = {}
        self._routes: dict[tuple[str, int, str], Route] = {}
        self._left: dict[int, Ruleset] = {}
        self._waiting = False
        """Whether rules wait to be looked at."""
        self._l2: dict[tuple[str, str], Vtep] = {}
        self._nft: dict[int, nftables.Contents] = {}

    @property
    def ns(self) -> Netns:
        """The node's namespace."""
        return self.network.ns(self.node)

    def program(self, wanted: Programmed) -> None:
        """Bring sets, rules and routes in line with what is wanted."""
        first = self.wanted is None
        if wanted == self.wanted:
            self._program_routes(wanted)
            return
        if self.wanted is not None and self.wanted.config.nft != wanted.config.nft:
            self._leave_data_plane()
            first = True
        self.wanted = wanted
        self._program_sets(wanted)
        self._program_routes(wanted)
        ns = self.ns
        if wanted.config.nft:
            self._program_nft(wanted)
            return
        if self._waiting:
            return  # what is then written is the newest
        if first or ns.rules_deferred:  # kube-proxy may have put its own off again since ours were written
            self._waiting = True
            # A world may be set back to before that look, and look again: what was written then is kept for it.
            written = dict(self._written)
            ns.amend_iptables(lambda base: self._build(base, written))
            return
        self._apply()

    def refresh(self) -> bool:
        """The periodic check: write again what is not as it was left. Returns whether anything was."""
        if self.wanted is None:
            return False
        self._program_sets(self.wanted)
        self._program_routes(self.wanted)
        ns = self.ns
        if self.wanted.config.nft:
            return self._refresh_nft()
        if ns.rules_deferred:
            return False
        before = dict(ns.iptables)
        if all(before[fam] is self._left.get(fam) for fam in (4, 6)):
            return False
        after = self._build(before, check=True)
        changed = False
        for fam, rules in after.items():
            if rules != before[fam]:
                ns.set_iptables(fam, rules)
                changed = True
            self._left[fam] = ns.iptables[fam]
        return changed

    # -- nftables -----------------------------------------------------------------------------------------------

    def _nft_contents(self, wanted: Programmed, family: int) -> nftables.Contents:
        nat = any(pool.nat_outgoing for pool in wanted.pools if pool.family == family)
        return nftables.contents(
            wanted_chains(wanted.picture, wanted.config, family, nat=nat),
            HOOKS,
            static.forward_append(wanted.config),
            wanted_sets(wanted, family),
            [pod.name for pod in wanted.picture.endpoints if not pod.host],
            family,
            wanted.config.chain_length,
        )

    def _program_nft(self, wanted: Programmed) -> None:
        """Bring the tables `calico` of both families in line, each in one transaction."""
        from kubenet_lab.kernel.dialects import nft

        ns = self.ns
        for family in (4, 6):
            new = self._nft_contents(wanted, family)
            there = (_nft_family(family), nftables.TABLE) in ns.nftables.tables
            text = nftables.transaction(self._nft.get(family) if there else None, new, family)
            if text:
                ns.set_nftables(nft.apply(ns.nftables, text))
            self._nft[family] = new

    def _refresh_nft(self) -> bool:
        """Write the tables anew where somebody has removed chains or rules."""
        assert self.wanted is not None
        tables, broken = self.ns.nftables.tables, False
        for family, known in list(self._nft.items()):
            table = tables.get((_nft_family(family), nftables.TABLE))
            present = {name: len(chain.rules) for name, chain in table.chains.items()} if table else {}
            if present != {name: len(rules) for name, rules in known.chains.items()}:
                del self._nft[family]
                broken = True
        if broken:
            self._program_nft(self.wanted)
        return broken

    def _leave_data_plane(self) -> None:
        """Remove the rules of the data plane used so far (`nftablesMode` was changed)."""
        from kubenet_lab.kernel.dialects import nft

        ns = self.ns
        assert self.wanted is not None
        if self.wanted.config.nft:
            for family in self._nft:
                if (_nft_family(family), nftables.TABLE) in ns.nftables.tables:
                    table = f"{_nft_family(family)} {nftables.TABLE}"
                    ns.set_nftables(nft.apply(ns.nftables, f"delete table {table}\n"))
            self._nft.clear()
            return
        for family, rules in ns.iptables.items():
            text = "".join(self._without(rules, name) for name in HOOKS)
            if text:
                ns.set_iptables(family, iptables.restore(rules, text, noflush=True))
        self._written.clear()
        self._left.clear()
        self._waiting = False
        kept = {name: one for name, one in ns.ipsets.items() if not name.startswith(("cali40", "cali60"))}
        if kept != ns.ipsets:
            ns.ipsets = kept

    def _without(self, rules: Ruleset, table: str) -> str:
        """Return what takes Felix's chains, and the rules with its comments, out of an iptables table."""
        present = rules.tables[table].chains if table in rules.tables else {}
        out = ""
        for name in present:
            if name.startswith("cali-"):
                continue
            _policy, *lines = iptables.chain_text(rules, table, name)
            places = [n for n, line in enumerate(lines, 1) if '"cali:' in line]
            out += "".join(f"-D {name} {place}\n" for place in reversed(places))
        mine = [name for name in present if name.startswith("cali-")]
        out += "".join(f"-F {name}\n" for name in mine) + "".join(f"-X {name}\n" for name in mine)
        return f"*{table}\n{out}COMMIT\n" if out else ""

    # -- rules --------------------------------------------------------------------------------------------------

    def _build(
        self,
        base: Mapping[int, Ruleset],
        written: Mapping[tuple[int, str], dict[str, list[str]]] | None = None,
        *,
        check: bool = False,
    ) -> dict[int, Ruleset]:
        """Return the rules of both families with Felix's in them; `check` looks at what is really there.

        `written` is what Felix had written into `base`, by default what it wrote last.
        """
        wanted = self.wanted
        assert wanted is not None
        self._waiting = False
        if written is not None:
            self._written = dict(written)
        out = {}
        for fam in (4, 6):
            text = self._text(base[fam], wanted, fam, check=check)
            out[fam] = iptables.restore(base[fam], text, noflush=True) if text else base[fam]
        self._left = dict(out)
        return out

    def _apply(self) -> None:
        ns = self.ns
        before = dict(ns.iptables)
        for fam, rules in self._build(before).items():
            if rules is not before[fam]:
                ns.set_iptables(fam, rules)

    def _text(self, base: Ruleset, wanted: Programmed, family: int, *, check: bool) -> str:
        nat = any(pool.nat_outgoing for pool in wanted.pools if pool.family == family)
        text = ""
        for table, listed in wanted_chains(wanted.picture, wanted.config, family, nat=nat).items():
            lines = {chain.name: iptables_rules(chain) for chain in listed}
            written = self._written.get((family, table), {})
            present = base.tables[table].chains if table in base.tables else {}
            if check:
                written = {
                    name: rules
                    for name, rules in written.items()
                    if name in present and len(present[name].rules) == len(rules)
                }
            changed = [
                name for name, rules in lines.items() if name not in present or written.get(name) != rules
            ]
            gone = [name for name in present if name.startswith("cali-") and name not in lines]
            part = "".join(f":{name} - [0:0]\n" for name in (*changed, *gone))
            part += "".join(f"{line}\n" for name in changed for line in lines[name])
            part += "".join(f"-X {name}\n" for name in gone)
            part += self._hooks(base, table, wanted.config)
            self._written[family, table] = lines
            if part:
                text += f"*{table}\n{part}COMMIT\n"
        return text

    def _hooks(self, base: Ruleset, table: str, config: FelixConfig) -> str:
        """Return the jumps that are missing, or not the first rule of their chain."""
        present = base.tables[table].chains if table in base.tables else {}
        out = ""
        for builtin in HOOKS[table]:
            goal = f"cali-{builtin}"
            rules = present[builtin].rules if builtin in present else ()
            places = [n for n, rule in enumerate(rules, 1) if getattr(rule.target, "chain", "") == goal]
            if places == [1]:
                continue
            out += "".join(f"-D {builtin} {place}\n" for place in reversed(places))
            line = iptables_rules(Chain(builtin, (Rule((), ("jump", goal)),)))[0]
            out += line.replace(f"-A {builtin}", f"-I {builtin} 1", 1) + "\n"
        if table == "filter":
            tail = iptables_rules(static.forward_append(config))
            there = iptables.chain_text(base, "filter", "FORWARD") if "FORWARD" in present else []
            comments = [line.split('"')[1] for line in tail]
            if not all(any(comment in line for line in there) for comment in comments):
                out += "".join(f"{line}\n" for line in tail)
        return out

    # -- sets ---------------------------------------------------------------------------------------------------

    def _program_sets(self, wanted: Programmed) -> None:
        ns = self.ns
        if wanted.config.nft:
            return  # they are in the table
        mine = wanted_sets(wanted, 4) | wanted_sets(wanted, 6)
        others = {
            name: found for name, found in ns.ipsets.items() if not name.startswith(("cali40", "cali60"))
        }
        made = others | {
            name: ns.ipsets[name] if ns.ipsets.get(name) == new else new for name, new in mine.items()
        }
        if made != ns.ipsets:
            ns.ipsets = made

    # -- routes -------------------------------------------------------------------------------------------------

    def _program_routes(self, wanted: Programmed) -> None:
        ns = self.ns
        routes = {route.key: route for route in self.wished_routes(wanted)}
        table = ns.routes.get((4, TABLE_MAIN), {})
        for pod in wanted.picture.endpoints:
            if pod.host or pod.name not in ns.links:
                continue
            key = f"net.ipv4.conf.{pod.name}.rp_filter"
            if ns.sysctls.get(key) != "1":
                ns.set_sysctl(key, 1)
            # The plugin's own route has no metric; Felix replaces it.
            for address in pod.addresses:
                plain = table.get((address, 0, ""))
                if plain is not None and plain.dev == pod.name:
                    ns.program_routes([plain], [])
        gone = [route for key, route in self._routes.items() if routes.get(key) != route]
        new = [
            route
            for key, route in routes.items()
            if ns.routes.get((route.family, TABLE_MAIN), {}).get(key) != route
        ]
        if gone or new:
            for route, _fault in ns.program_routes(gone, new):
                routes.pop(route.key, None)
        self._routes = routes
        self._program_l2(wanted)

    def wished_routes(self, wanted: Programmed) -> list[Route]:
        """Return the routes of the node's pods, and with VXLAN those of blocks and borrowed addresses."""
        ns = self.ns
        out = []
        for pod in wanted.picture.endpoints:
            if not pod.host and pod.name in ns.links:
                out += [
                    Route(
                        address,
                        dev=pod.name,
                        scope="link" if ":" not in address else "global",
                        metric=NORMAL_METRIC,
                    )
                    for address in pod.addresses
                ]
        if not wanted.vteps:
            return out
        vteps = {(vtep.node, vtep.device): vtep for vtep in wanted.vteps}
        for cidr, owner in wanted.blocks:
            six = ":" in cidr
            vtep = vteps.get((owner, VXLAN6_DEVICE if six else VXLAN_DEVICE))
            if owner == self.node:
                out.append(
                    Route(
                        cidr,
                        dev="lo" if six else "",
                        type="blackhole",
                        proto=SAME_SUBNET,
                        metric=METRIC6 if six else 0,
                    )
                )
            elif vtep is not None:
                out.append(self._remote(cidr, vtep, wanted))
        for address, owner in wanted.borrowed:
            six = ":" in address
            vtep = vteps.get((owner, VXLAN6_DEVICE if six else VXLAN_DEVICE))
            if owner != self.node and vtep is not None:
                out.append(self._remote(f"{address}/{128 if six else 32}", vtep, wanted))
        return out

    def _remote(self, cidr: str, vtep: Vtep, wanted: Programmed) -> Route:
        pool = next(
            (p for p in wanted.pools if prefix(cidr).net & prefix(p.cidr).mask == prefix(p.cidr).net), None
        )
        metric = METRIC6 if ":" in cidr else 0
        near = any(vtep.host in prefix(subnet) for subnet in wanted.subnets)
        if pool is not None and pool.vxlan == "CrossSubnet" and near:
            return Route(cidr, dev="eth0", via=vtep.host, proto=SAME_SUBNET, metric=metric, onlink=True)
        return Route(cidr, dev=vtep.device, via=vtep.address, proto=TUNNEL, metric=metric, onlink=True)

    def _program_l2(self, wanted: Programmed) -> None:
        """Neighbours and FDB entries of the other VTEPs: no broadcast ever crosses the tunnel."""
        ns = self.ns
        if not wanted.vteps and not self._l2:
            return
        others = {
            (vtep.node, vtep.device): vtep
            for vtep in wanted.vteps
            if vtep.node != self.node and vtep.device in ns.links
        }
        for key, vtep in list(self._l2.items()):
            if others.get(key) != vtep:
                for undo in (
                    lambda v=vtep: ns.delete_neighbour(v.device, v.address),
                    lambda v=vtep: ns.delete_fdb(v.device, v.mac, v.host),
                ):
                    try:
                        undo()
                    except KernelError:
                        continue  # somebody else has taken it away
        for vtep in others.values():
            known = ns.neighbours.get((vtep.device, vtep.address))
            if known is None or known.mac != vtep.mac:
                ns.set_neighbour(vtep.device, vtep.address, vtep.mac)
            entry = FdbEntry(vtep.device, vtep.mac, dst=vtep.host, state="permanent")
            if entry not in ns.fdb.get(ns.fdb_key(entry), ()):
                ns.add_fdb(entry, replace_existing=True)
        self._l2 = others
