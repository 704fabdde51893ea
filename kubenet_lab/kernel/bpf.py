"""BPF state of a host: the maps of Cilium's programs as typed values, and where each program is attached.

The kernel knows maps of bytes and programs of instructions; here a map is a dict from a frozen key to a frozen value,
and a program is a name whose steps `kubenet_lab.walk.bpf` takes. Maps are pinned in `/sys/fs/bpf/tc/globals`; names,
keys and values follow Cilium's `bpf/lib/{lb,nat,conntrack,eps,policy}.h`. Text as `cilium-dbg` prints it is in
`kernel/dialects/cilium.py`. man 2 bpf, man 8 tc-bpf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from msgspec import Struct

from kubenet_lab.kernel.bpf_maglev import TABLE_SIZE, lookup_table
from kubenet_lab.packet.ip import IP_INT, prefix
from kubenet_lab.packet.packet import PROTO_NAMES, TCP, endpoint

# -- security identities ----------------------------------------------------------------------------------------------

UNKNOWN, HOST, WORLD, UNMANAGED, HEALTH, INIT, REMOTE_NODE, KUBE_APISERVER, INGRESS = range(9)
RESERVED = {
    UNKNOWN: "unknown",
    HOST: "host",
    WORLD: "world",
    UNMANAGED: "unmanaged",
    HEALTH: "health",
    INIT: "init",
    REMOTE_NODE: "remote-node",
    KUBE_APISERVER: "kube-apiserver",
    INGRESS: "ingress",
}
"""Identities below 100 mean the same in every cluster (pkg/identity/numericidentity.go)."""

EXTERNAL, INTERNAL = 0, 1
"""Look-up scopes of a frontend: packets from outside the cluster, and from within."""

MARK_IDENTITY = 0xF00
"""Mark of a packet that a pod's program let up the host's stack; the pod's identity is in the upper half."""

LOOPBACK4 = "169.254.42.1"
"""Source of a pod that reaches itself, where its packets are translated (--ipv4-service-loopback-address)."""

NODE_PORTS = (30000, 32767)
NAT_PORTS = (32768, 65535)
"""Source ports that SNAT may use: above the node ports (`NODEPORT_PORT_MIN_NAT`)."""

CT_TCP, CT_ANY, CT_SYN, CT_CLOSE = 8000.0, 60.0, 60.0, 10.0
"""Seconds an entry of the connection table lives (--bpf-ct-timeout-regular-tcp, -any, -tcp-syn, -tcp-fin)."""


def proto_text(proto: int) -> str:
    """Return "TCP" for 6, "ANY" for 0."""
    return PROTO_NAMES.get(proto, str(proto)).upper() if proto else "ANY"


# -- the load balancer's maps -----------------------------------------------------------------------------------------


class LbKey(Struct, frozen=True, gc=False):
    """Key of `cilium_lb4_services_v2`. Slot 0 is the frontend itself, slots 1..count name its backends."""

    address: str
    port: int
    proto: int
    slot: int = 0
    scope: int = EXTERNAL

    def __str__(self) -> str:
        scope = "/i" if self.scope == INTERNAL else ""
        return f"{endpoint(self.address, self.port)}/{proto_text(self.proto)}{scope} ({self.slot})"


class LbService(Struct, frozen=True, gc=False):
    """Value of `cilium_lb4_services_v2`: of a frontend (slot 0) its kind and count, of another slot a backend's id.

    `kind` is ClusterIP, NodePort, LoadBalancer, ExternalIPs; `flags` are of: Local, InternalLocal, two-scopes,
    sessionAffinity, check source-range, dsr. `routable` frontends are served to packets from outside.
    """

    count: int = 0
    backend: int = 0
    rev_nat: int = 0
    kind: str = "ClusterIP"
    flags: frozenset[str] = frozenset()
    routable: bool = False
    affinity_seconds: int = 0
    algorithm: str = "random"
    """How packets from outside are spread: "random" or "maglev" (--bpf-lb-algorithm)."""

    @property
    def flag_text(self) -> str:
        """ "NodePort, Local, two-scopes", as `cilium-dbg bpf lb list` prints it (pkg/loadbalancer ServiceFlags)."""
        out = [self.kind]
        out += [
            flag for flag in ("Local", "InternalLocal", "two-scopes", "sessionAffinity") if flag in self.flags
        ]
        if not self.routable:
            out.append("non-routable")
        out += [flag for flag in ("check source-range", "dsr") if flag in self.flags]
        return ", ".join(out)

    def __str__(self) -> str:
        if self.backend:
            return f"backend {self.backend}"
        return f"{self.count} backends, rev_nat {self.rev_nat} [{self.flag_text}]"


class LbBackend(Struct, frozen=True, gc=False):
    """Value of `cilium_lb4_backends_v3`. `state` is active or terminating."""

    address: str
    port: int
    proto: int
    state: str = "active"

    def __str__(self) -> str:
        return f"{endpoint(self.address, self.port)}/{proto_text(self.proto)}"


class RevNat(Struct, frozen=True, gc=False):
    """Value of `cilium_lb4_reverse_nat`: the frontend that answers must seem to come from."""

    address: str
    port: int

    def __str__(self) -> str:
        return endpoint(self.address, self.port)


class SourceRange(Struct, frozen=True, gc=False):
    """Key of `cilium_lb4_source_range`, a longest-prefix trie: a client block that may use a frontend."""

    rev_nat: int
    block: str

    def __str__(self) -> str:
        return f"{self.rev_nat} {self.block}"


class AffinityKey(Struct, frozen=True, gc=False):
    """Key of `cilium_lb4_affinity`: a client is an address, or at the socket a whole network namespace."""

    client: str
    netns: bool
    rev_nat: int

    def __str__(self) -> str:
        return f"{'netns ' if self.netns else ''}{self.client} rev_nat {self.rev_nat}"


class AffinityValue(Struct, frozen=True, gc=False):
    """Value of `cilium_lb4_affinity`. `last_used` in s."""

    backend: int
    last_used: float

    def __str__(self) -> str:
        return f"backend {self.backend}, used at {self.last_used:g} s"


class SocketKey(Struct, frozen=True, gc=False):
    """Key of `cilium_lb4_reverse_sk`: a socket (its cookie: here namespace, protocol and port) and its real peer."""

    netns: str
    proto: int
    sport: int
    address: str
    port: int

    def __str__(self) -> str:
        return f"socket {self.netns}:{self.sport}/{proto_text(self.proto)} to {endpoint(self.address, self.port)}"


# -- connections and their translation --------------------------------------------------------------------------------


class CtKey(Struct, frozen=True, gc=False):
    """Key of `cilium_ct4_global`. `way` is OUT (from a pod, or to a backend), IN (into a pod) or SVC."""

    proto: int
    src: str
    dst: str
    sport: int
    dport: int
    way: str

    @property
    def turned(self) -> CtKey:
        """The key with both ends exchanged."""
        return CtKey(self.proto, self.dst, self.src, self.dport, self.sport, self.way)

    def __str__(self) -> str:
        return (
            f"{proto_text(self.proto)} {self.way} "
            f"{endpoint(self.src, self.sport)} -> {endpoint(self.dst, self.dport)}"
        )


class CtEntry(Struct, frozen=True, gc=False):
    """Value of `cilium_ct4_global`. `expires` in s; `rev_nat` 0 where no Service was called."""

    expires: float
    rev_nat: int = 0
    backend: int = 0
    flags: frozenset[str] = frozenset()
    """Of: NodePort, LBLoopback, SeenNonSyn, ProxyRedirect, DSR, RxClosing, TxClosing."""
    source_identity: int = 0
    packets: int = 1
    proxy_port: int = 0

    def __str__(self) -> str:
        flags = f" [ {' '.join(sorted(self.flags))} ]" if self.flags else ""
        return (
            f"expires={self.expires:g} RevNAT={self.rev_nat} SourceSecurityID={self.source_identity}{flags}"
        )


class NatKey(Struct, frozen=True, gc=False):
    """Key of `cilium_snat_v4_external`: a connection as it looks before (OUT) or after (IN) translation."""

    proto: int
    src: str
    dst: str
    sport: int
    dport: int
    way: str

    def __str__(self) -> str:
        return (
            f"{proto_text(self.proto)} {self.way} "
            f"{endpoint(self.src, self.sport)} -> {endpoint(self.dst, self.dport)}"
        )


class NatEntry(Struct, frozen=True, gc=False):
    """Value of `cilium_snat_v4_external`: what the source (OUT) or the destination (IN) becomes."""

    address: str
    port: int
    way: str
    created: float = 0.0

    def __str__(self) -> str:
        return f"XLATE_{'SRC' if self.way == 'OUT' else 'DST'} {endpoint(self.address, self.port)}"


# -- who is who -------------------------------------------------------------------------------------------------------


class IpcacheEntry(Struct, frozen=True, gc=False):
    """Value of `cilium_ipcache_v2`, keyed by prefix: whose address it is, and behind which node."""

    identity: int
    tunnel: str = ""
    """The node's address, "" for a local address or without a tunnel."""

    def __str__(self) -> str:
        return (
            f"identity={self.identity} encryptkey=0 tunnelendpoint={self.tunnel or '0.0.0.0'} "
            f"flags={'hastunnel' if self.tunnel else '<none>'}"
        )


class EndpointEntry(Struct, frozen=True, gc=False):
    """Value of `cilium_lxc`, keyed by address: a local pod's way in, or the host itself (`ifindex` 0)."""

    id: int = 0
    ifindex: int = 0
    dev: str = ""
    """The link of `ifindex`: the pod's end on the host."""
    mac: str = ""
    node_mac: str = ""
    identity: int = 0
    host: bool = False

    def __str__(self) -> str:
        if self.host:
            return "(localhost)"
        return (
            f"id={self.id:<5} sec_id={self.identity:<5} flags=0x0000 ifindex={self.ifindex:<3} "
            f"mac={self.mac.upper()} nodemac={self.node_mac.upper()}"
        )


class PolicyKey(Struct, frozen=True, gc=False):
    """Key of an endpoint's policy map `cilium_policy_v2_*`, a trie over protocol and port.

    `ingress` tells the direction; identity, proto and port 0 stand for any. `port_bits` is the length of the
    port's prefix: 16 for one port, 0 for any.
    """

    ingress: bool
    identity: int = 0
    proto: int = 0
    port: int = 0
    port_bits: int = 0

    def __str__(self) -> str:
        ports = "ANY"
        if self.proto:
            last = self.port + (1 << 16 - self.port_bits) - 1 if self.port_bits else 0
            span = "" if last == self.port else f"-{last}"
            ports = (
                f"{self.port}{span}/{proto_text(self.proto)}" if self.port_bits else proto_text(self.proto)
            )
        return f"{'Ingress' if self.ingress else 'Egress'} {self.identity or 'ANY'} {ports}"


class PolicyEntry(Struct, frozen=True, gc=False):
    """Value of a policy map. `proxy_port` is where an L7 rule sends the connection, 0 without."""

    deny: bool = False
    proxy_port: int = 0

    def __str__(self) -> str:
        return (
            "Deny" if self.deny else f"Allow{f' to proxy port {self.proxy_port}' if self.proxy_port else ''}"
        )


class MapEntry(NamedTuple):
    """An entry by the map it stands in: what a step of the walk names as its reason. `value` None is a miss."""

    map: str
    key: Any
    value: Any

    def __str__(self) -> str:
        return f"{self.map}[{self.key}] {'= ' + str(self.value) if self.value is not None else 'not found'}"


# -- programs ---------------------------------------------------------------------------------------------------------

SOCKET_PROGRAMS = (
    "cil_sock4_connect",
    "cil_sock4_sendmsg",
    "cil_sock4_recvmsg",
    "cil_sock4_getpeername",
    "cil_sock4_post_bind",
)
"""Attached to the root cgroup, so that every socket of the host's processes and pods meets them (bpf_sock.c)."""


class Attachment(Struct, frozen=True):
    """One program at one hook, as `bpftool net` or `bpftool cgroup tree` lists it.

    `hook` is cgroup, tcx/ingress, tcx/egress or xdp; `dev` is the link, "" for the cgroup.
    """

    hook: str
    program: str
    dev: str = ""

    def __str__(self) -> str:
        return f"{self.dev or '/sys/fs/cgroup'} {self.hook} {self.program}"


class Datapath(Struct, frozen=True):
    """What Cilium's agent compiled into the programs: the head files `node_config.h` and `ep_config.h` as values."""

    socket_lb: str = "full"
    """"full": sockets of host and pods; "host-only": the host's alone, pods' packets are translated one by one at
    their veth (--bpf-lb-sock-hostns-only); "" none."""
    node_port: bool = True
    mode: str = "snat"
    """How packets reach backends elsewhere: "snat", "dsr" or "hybrid", which is DSR for TCP (--bpf-lb-mode)."""
    dispatch: str = "opt"
    """How DSR tells the backend's node which frontend was called: "opt", an option of the IP header, or "geneve", an
    option of the tunnel's header (--bpf-lb-dsr-dispatch)."""
    no_backend: str = "reject"
    """"reject" answers with ICMP, "drop" does not (--service-no-backend-response)."""
    sctp: bool = False
    tunnel: str = ""
    """The overlay's protocol, "vxlan" or "geneve"; "" for routes of the underlying network."""
    tunnel_dev: str = ""
    masquerade: bool = False
    """Masquerade pods' packets for addresses outside in BPF (--enable-bpf-masquerade)."""
    native_cidrs: dict[int, str] = {}
    """By family: the block that is never masqueraded (--ipv4-native-routing-cidr)."""
    direct: dict[int, str] = {}
    """By family: the node's address that SNAT and masquerading use (IPV4_DIRECT_ROUTING)."""
    gateway: dict[int, str] = {}
    """By family: the address of cilium_host, which SNAT uses for backends behind the tunnel (IPV4_GATEWAY)."""
    enforcement: bool = False
    """Pods have endpoints and policy maps: Cilium is the pod network."""

    @property
    def unfit(self) -> str:
        """Why the agent does not start with these settings; "" when it does (pkg/kpr/initializer)."""
        if self.mode == "snat":
            return ""
        head = f'Node Port "{self.mode}" mode'
        if self.tunnel == "vxlan":
            return f"{head} cannot be used with vxlan tunneling."
        if self.dispatch == "ipip":
            return "DSR dispatch mode ipip only supported for --datapath-mode=lb-only (not modelled)"
        if self.tunnel and self.dispatch != "geneve":
            return f"{head} with {self.dispatch} dispatch cannot be used with {self.tunnel} tunneling."
        if self.dispatch == "geneve" and not self.tunnel:
            return f"{head} with geneve dispatch and native routing is not modelled"
        return ""

    @property
    def host_routing(self) -> bool:
        """True where pods' packets pass the host's stack by (eBPF host routing): kube-proxy and iptables' masquerading
        must both be replaced. Else netfilter and routing see what comes from and goes to other machines."""
        return self.enforcement and self.node_port and self.masquerade


class FamilyMaps:
    """The maps of one IP family. Every field is a dict from frozen keys to frozen values."""

    __slots__ = (
        "affinity",
        "affinity_match",
        "backends",
        "ct",
        "family",
        "maglev",
        "rev_nat",
        "reverse_sk",
        "services",
        "snat",
        "source_ranges",
    )

    def __init__(self, family: int) -> None:
        self.family = family
        self.services: dict[LbKey, LbService] = {}
        self.backends: dict[int, LbBackend] = {}
        self.rev_nat: dict[int, RevNat] = {}
        self.maglev: dict[int, tuple[int, ...]] = {}
        """By frontend: its table of backend ids; filled when a packet first needs it."""
        self.source_ranges: dict[SourceRange, bool] = {}
        self.affinity: dict[AffinityKey, AffinityValue] = {}
        self.affinity_match: set[tuple[int, int]] = set()
        """(frontend, backend) pairs that affinity may still use."""
        self.reverse_sk: dict[SocketKey, RevNat] = {}
        self.ct: dict[CtKey, CtEntry] = {}
        self.snat: dict[NatKey, NatEntry] = {}

    def copy(self) -> FamilyMaps:
        """Return an independent copy; keys and values are shared, they are frozen."""
        twin = FamilyMaps(self.family)
        for name in self.__slots__:
            value = getattr(self, name)
            if name != "family":
                setattr(twin, name, value.copy())
        return twin

    def name(self, what: str) -> str:
        """Return a map's pinned name: "services" -> "cilium_lb4_services_v2"."""
        return f"cilium_{_NAMES[what].format(self.family)}"


_NAMES = {
    "services": "lb{}_services_v2",
    "backends": "lb{}_backends_v3",
    "rev_nat": "lb{}_reverse_nat",
    "maglev": "lb{}_maglev",
    "source_ranges": "lb{}_source_range",
    "affinity": "lb{}_affinity",
    "reverse_sk": "lb{}_reverse_sk",
    "ct": "ct{}_global",
    "snat": "snat_v{}_external",
}


class BpfState:
    """All BPF state of one host: attachments, what was compiled in, and maps.

    `fill` promises the Services' and nodes' part of the maps to the first look, as `Netns.defer_iptables` does.
    """

    def __init__(self, datapath: Datapath | None = None) -> None:
        self.datapath = datapath or Datapath()
        self.attachments: dict[tuple[str, str], str] = {}
        """(link, hook) -> program; the socket programs hang at ("", "cgroup")."""
        self.ipcache: dict[str, IpcacheEntry] = {}
        self.endpoints: dict[str, EndpointEntry] = {}
        self.policies: dict[int, dict[PolicyKey, PolicyEntry]] = {}
        """By endpoint id: its policy map."""
        self.proxies: dict[int, Callable[[bytes], bytes | None]] = {}
        """Listeners of the L7 proxy beside it, by port: a request's bytes -> the answer that refuses it, None to let it
        through."""
        self.labels: dict[int, str] = {}
        """Identity -> labels, as the agent knows them; not a map, but what `cilium-dbg` prints beside numbers."""
        self._families = {4: FamilyMaps(4), 6: FamilyMaps(6)}
        self._fill: Callable[[BpfState], None] | None = None
        self._watched: tuple[Callable[[], object], Callable[[BpfState], None]] | None = None
        self._seen: object = None
        self._blocks: list[tuple[int, str]] | None = None

    def defer(self, fill: Callable[[BpfState], None]) -> None:
        """Leave filling the maps to the first look."""
        self._fill = fill

    @property
    def deferred(self) -> bool:
        """True while nobody has looked at what `defer` promised."""
        return self._fill is not None

    def watch(self, changed: Callable[[], object], told: Callable[[BpfState], None]) -> None:
        """Have `told` bring endpoints, ipcache and policies up to date whenever `changed` says another thing."""
        self._watched, self._seen = (changed, told), None

    def look(self) -> BpfState:
        """Fill the maps if that was left to the first look, and return the state."""
        if self._fill is not None:
            fill, self._fill = self._fill, None
            fill(self)
        if self._watched is not None:
            changed, told = self._watched
            now = changed()
            if now != self._seen:
                self._seen = now
                told(self)
        return self

    def maps(self, family: int) -> FamilyMaps:
        """Return the maps of one family (4 or 6), filled."""
        if self._fill is not None or self._watched is not None:
            self.look()
        return self._families[family]

    def attach(self, hook: str, program: str, dev: str = "") -> None:
        """`bpftool net attach`, `bpftool cgroup attach`: put a program at a hook, over the one there."""
        self.attachments[dev, hook] = program

    def detach(self, dev: str) -> None:
        """A link is gone, and the programs at its hooks with it."""
        for key in [key for key in self.attachments if dev and key[0] == dev]:
            del self.attachments[key]

    def program(self, dev: str, hook: str) -> str:
        """Return the program at a link's hook, "" if there is none."""
        return self.attachments.get((dev, hook), "")

    def list_attachments(self) -> list[Attachment]:
        """Return every attachment, in the order in which they were made."""
        out: list[Attachment] = []
        for (dev, hook), program in self.attachments.items():
            names = SOCKET_PROGRAMS if hook == "cgroup" else (program,)
            out += [Attachment(hook, name, dev) for name in names]
        return out

    def set_ipcache(self, block: str, entry: IpcacheEntry) -> None:
        """`cilium-dbg map update`: say whose a block is."""
        self.ipcache[str(prefix(block))] = entry
        self._blocks = None

    def identify(self, address: str) -> MapEntry:
        """Look an address up in the ipcache: the longest prefix that holds it, or the world."""
        self.look()
        full = f"{address}/{128 if ':' in address else 32}"
        found = self.ipcache.get(full)
        if found is not None:
            return MapEntry("cilium_ipcache_v2", full, found)
        if self._blocks is None:
            wide = [text for text in self.ipcache if not text.endswith("/128" if ":" in text else "/32")]
            self._blocks = sorted((-prefix(text).length, text) for text in wide)
        for _length, text in self._blocks:
            if address in prefix(text):
                return MapEntry("cilium_ipcache_v2", text, self.ipcache[text])
        return MapEntry("cilium_ipcache_v2", full, None)

    def identity(self, address: str) -> int:
        """Return the security identity of an address; WORLD where the ipcache knows none."""
        found = self.identify(address).value
        return found.identity if found is not None else WORLD

    def endpoint_at(self, dev: str, family: int) -> tuple[str, EndpointEntry] | None:
        """Return the pod behind a link, by its address of one family."""
        for address, entry in self.endpoints.items():
            if entry.dev == dev and not entry.host and (":" in address) == (family == 6):
                return address, entry
        return None

    def verdict(self, number: int, ingress: bool, identity: int, proto: int, port: int) -> MapEntry:
        """Ask an endpoint's policy map: the entry that decides for an identity, protocol and port.

        A denial beats every grant; among grants the one with the longer port prefix wins, then the one that names the
        identity (`__policy_can_access`, bpf/lib/policy.h).
        """
        entries = self.policies.get(number, {})
        best: tuple[tuple[int, int, int], PolicyKey] | None = None
        for who in (identity, UNKNOWN):
            keys = [PolicyKey(ingress, who, proto, port & ~((1 << 16 - b) - 1), b) for b in range(16, 0, -1)]
            keys += [PolicyKey(ingress, who, proto), PolicyKey(ingress, who)]
            for key in keys:
                entry = entries.get(key)
                if entry is None:
                    continue
                rank = (int(entry.deny), key.port_bits + bool(key.proto), int(who != UNKNOWN))
                if best is None or rank > best[0]:
                    best = (rank, key)
        name = f"cilium_policy_v2_{number:05}"
        if best is None:
            return MapEntry(name, PolicyKey(ingress, identity, proto, port, 16), None)
        return MapEntry(name, best[1], entries[best[1]])

    def maglev_table(self, family: int, service: LbService, key: LbKey) -> tuple[int, ...]:
        """Return a frontend's Maglev table: `TABLE_SIZE` backend ids."""
        maps = self.maps(family)
        found = maps.maglev.get(service.rev_nat)
        if found is None:
            ids = [maps.services[slot_of(key, n)].backend for n in range(1, service.count + 1)]
            names = {backend_name(maps.backends[i]): i for i in ids}
            found = maps.maglev[service.rev_nat] = lookup_table(names, TABLE_SIZE)
        return found

    def snapshot(self) -> BpfState:
        """Return an independent copy."""
        twin = BpfState(self.datapath)
        twin.attachments = dict(self.attachments)
        twin.ipcache, twin.endpoints = dict(self.ipcache), dict(self.endpoints)
        twin.policies = {number: dict(entries) for number, entries in self.policies.items()}
        twin.labels, twin.proxies = dict(self.labels), dict(self.proxies)
        twin._families = {family: maps.copy() for family, maps in self._families.items()}
        twin._fill, twin._watched, twin._seen = self._fill, self._watched, self._seen
        return twin


def slot_of(key: LbKey, slot: int) -> LbKey:
    """Return the key of another slot of a frontend."""
    return LbKey(key.address, key.port, key.proto, slot, key.scope)


def backend_name(backend: LbBackend) -> str:
    """Return the text that Maglev hashes for a backend: the same on every node."""
    return f"{endpoint(backend.address, backend.port)}/{proto_text(backend.proto)}"


def ct_lifetime(proto: int, syn: bool, closing: bool = False) -> float:
    """Return the seconds a connection may be silent before its entry goes."""
    if proto != TCP:
        return CT_ANY
    return CT_CLOSE if closing else CT_SYN if syn else CT_TCP


def in_block(address: str, block: str) -> bool:
    """True when a block holds an address of the same family."""
    return (":" in address) == (":" in block) and address in prefix(block)


def sort_key(address: str) -> tuple[int, int]:
    """Return a key that sorts addresses of both families by number."""
    return (6 if ":" in address else 4, IP_INT[address])
