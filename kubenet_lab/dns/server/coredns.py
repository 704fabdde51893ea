"""CoreDNS: a Corefile, a view of the cluster and an upstream make a server that answers queries.

    server = CoreDNS(corefile.KUBEADM, view, upstream, local_ips=("10.244.0.2",))
    server.answer(Query("backend.default.svc.cluster.local."), client="10.244.1.2", now=0.0)

equals `dig @10.96.0.10 backend.default.svc.cluster.local` asked from that client.
"""

from __future__ import annotations

import random
import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from msgspec.structs import replace

from kubenet_lab.dns.names import label_bytes, labels
from kubenet_lab.dns.records import MAX_SIZE, MIN_UDP_SIZE, Edns, Query, Record, Response, reply, truncate
from kubenet_lab.dns.server import corefile as _corefile
from kubenet_lab.dns.server.acl import Acl
from kubenet_lab.dns.server.any import Any as AnyPlugin
from kubenet_lab.dns.server.autopath import AutoPath
from kubenet_lab.dns.server.bind import Bind
from kubenet_lab.dns.server.bufsize import Bufsize
from kubenet_lab.dns.server.cache import Cache
from kubenet_lab.dns.server.chaos import Chaos
from kubenet_lab.dns.server.corefile import Controller, CorefileError, Zone
from kubenet_lab.dns.server.dns64 import Dns64
from kubenet_lab.dns.server.erratic import Erratic
from kubenet_lab.dns.server.errors import Errors
from kubenet_lab.dns.server.file import File
from kubenet_lab.dns.server.forward import Forward
from kubenet_lab.dns.server.header import Header
from kubenet_lab.dns.server.health import Health
from kubenet_lab.dns.server.hosts import Hosts
from kubenet_lab.dns.server.k8s_external import K8sExternal
from kubenet_lab.dns.server.kubernetes import Kubernetes
from kubenet_lab.dns.server.loadbalance import LoadBalance
from kubenet_lab.dns.server.local import Local
from kubenet_lab.dns.server.log import Log
from kubenet_lab.dns.server.loop import Loop
from kubenet_lab.dns.server.metadata import Metadata
from kubenet_lab.dns.server.minimal import Minimal
from kubenet_lab.dns.server.nsid import Nsid
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request, Upstream
from kubenet_lab.dns.server.prometheus import Labels, Prometheus, exposition
from kubenet_lab.dns.server.ready import Ready
from kubenet_lab.dns.server.reload import Reload
from kubenet_lab.dns.server.rewrite import Rewrite
from kubenet_lab.dns.server.secondary import Secondary
from kubenet_lab.dns.server.template import Templates
from kubenet_lab.dns.server.transfer import Transfer
from kubenet_lab.dns.server.view import ServiceView
from kubenet_lab.dns.server.view_plugin import View
from kubenet_lab.dns.server.whoami import Whoami

if TYPE_CHECKING:
    from kubenet_lab.packet.packet import Packet

VERSION = "1.15.0"
PLATFORM = "linux/amd64, go1.26.8, "
_MAX_UDP_PAYLOAD = 65507
_MAX_DEPTH = 30
_FRAGMENT_V4, _FRAGMENT_V6 = 1480, 1220

DIRECTIVES: tuple[str, ...] = (
    "root", "metadata", "geoip", "cancel", "proxyproto", "quic", "grpc_server", "https", "https3", "timeouts",
    "multisocket", "tls", "reload", "nsid", "bufsize", "bind", "debug", "trace", "ready", "health", "pprof",
    "shed", "prometheus", "errors", "log", "dnstap", "local", "dns64", "any", "chaos", "loadbalance", "tsig",
    "rewrite", "autopath", "acl", "cache", "header", "dnssec", "minimal", "template", "transfer", "hosts",
    "route53", "azure",
    "clouddns", "k8s_external", "kubernetes", "file", "auto", "secondary", "etcd", "loop", "forward", "grpc",
    "erratic", "whoami", "on", "sign", "view", "nomad",
)  # fmt: skip
"""Every directive CoreDNS knows, in the order plugins run, whatever the Corefile's (plugin.cfg)."""

PLUGINS: tuple[type[Plugin], ...] = (
    Metadata, Reload, Nsid, Bufsize, Bind, Ready, Health, Prometheus, Errors, Log, Local, Dns64, AnyPlugin, Chaos,
    LoadBalance, Rewrite, AutoPath, Acl, Cache, Header, Minimal, Templates, Transfer, Hosts, K8sExternal, Kubernetes,
    File, Secondary, Loop, Forward, Erratic, Whoami, View,
)  # fmt: skip
"""The plugins modelled; a Corefile with another one of DIRECTIVES raises NotModelled."""

Found = TypeVar("Found", bound=Plugin)
_BY_NAME = {plugin.name: plugin for plugin in PLUGINS}
_ANY_CLASS = frozenset({"chaos", "forward"})
DEFAULT_FILES: Mapping[str, str] = {"/etc/resolv.conf": "nameserver 192.168.1.1\n"}


IN_CLUSTER: Mapping[str, str] = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


class NotModelled(CorefileError):
    """A Corefile that is right, with a plugin or option this model does not have."""


class Environment:
    """What plugins are made of and what they set up, one for each load of a Corefile."""

    def __init__(
        self,
        view: ServiceView,
        upstream: Upstream,
        local_ips: tuple[str, ...],
        output: Callable[[str], None],
        variables: Mapping[str, str],
        hostname: str = "coredns",
        interfaces: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.view = view
        self.upstream = upstream
        self.local_ips = local_ips
        self.output = output
        self.variables = variables
        self.hostname = hostname
        self.interfaces = interfaces or {"lo": ("127.0.0.1", "::1"), "eth0": local_ips}
        self.binds: dict[tuple[str, ...], tuple[str, ...]] = {}
        """By the zones of a block: the addresses it listens on, where it names any."""
        self.unbound: list[str] = []
        """Addresses to listen on that this host does not have."""
        self.lameduck = 0.0
        self.http: dict[str, int] = {}
        """By plugin (health, ready, prometheus): the TCP port it answers HTTP on."""
        self.reload: tuple[float, float] | None = None
        """How often the Corefile is looked at, and by how much that is spread; s."""


class Server:
    """One zone of one block: the first plugin of its chain, and all of them in order."""

    def __init__(self, zone: Zone, chain: tuple[Plugin, ...]) -> None:
        self.zone = zone
        self.chain = chain
        self.first = chain[0] if chain else None
        self.any_class = any(plugin.name in _ANY_CLASS for plugin in chain)
        self.views = tuple(plugin for plugin in chain if isinstance(plugin, View))


def environment_of(controller: Controller) -> Environment:
    """Return what a plugin's stanza is read with."""
    environment = controller.environment
    assert isinstance(environment, Environment)
    return environment


def no_upstream(query: Query, server: str, protocol: str) -> Response | None:
    """An upstream that never answers."""
    return None


class CoreDNS:
    """A running CoreDNS.

    Args:
        corefile: Its text.
        view: The objects it watches; it may change while the server runs.
        upstream: (query, server, "udp" or "tcp") -> answer, None for silence; raises ConnectionRefusedError if
            the port is closed.
        local_ips: Its own addresses, which tell it which Service it stands behind.
        files: The machine's files by path: /etc/resolv.conf, what `import` names.
        variables: Its environment; by default what every pod has.
        seed: Of the shuffles.
        hostname: The host's name, a pod's own.
        port: The port it serves; blocks on other ports are read and not served.

    Attributes:
        log: The lines it printed, newest last; it begins with `banner`.
        http: By plugin (health, ready, prometheus): the TCP port it answers HTTP on.
        reloads: (interval, spread) in s of the `reload` plugin, None without it.
        servers: By zone name.

    Raises CorefileError with what CoreDNS prints, NotModelled for a plugin this model lacks.
    """

    def __init__(
        self,
        corefile: str,
        view: ServiceView,
        upstream: Upstream = no_upstream,
        *,
        local_ips: tuple[str, ...] = (),
        files: Mapping[str, str] | None = None,
        variables: Mapping[str, str] | None = None,
        seed: int = 0,
        hostname: str = "coredns",
        port: str = "53",
    ) -> None:
        self.hostname = hostname
        self.view = view
        self.upstream = upstream
        self.local_ips = local_ips
        self.files = {**DEFAULT_FILES, **files} if isinstance(files, dict) else files or DEFAULT_FILES
        self.variables = IN_CLUSTER if variables is None else variables
        self.rng = random.Random(seed)
        self.port = port
        self.log: deque[str] = deque(maxlen=10000)
        self.corefile = ""
        self.lameduck = 0.0
        self.servers: dict[str, Server] = {}
        self.blocks: dict[str, list[Server]] = {}
        """Zones that several blocks serve, each for a view of its own."""
        self.http: dict[str, int] = {}
        self.reloads: tuple[float, float] | None = None
        self.banner: list[str] = []
        self._within = threading.local()
        self._load(corefile)
        self.log.extend(self.banner)

    def reload(self, corefile: str) -> bool:
        """Take a changed Corefile, as the `reload` plugin does; False, and a line in the log, if broken.

        The cache starts empty, and a broken file leaves everything as it was.
        """
        if corefile == self.corefile:
            return True
        self.log.append("[INFO] Reloading")
        try:
            self._load(corefile)
        except CorefileError as error:
            self.log.append(f"[ERROR] Restart failed: {error}")
            return False
        if self.reloads is not None:
            self.log.append(self._running)
        self.log.append("[INFO] Reloading complete")
        return True

    def words_of(self, corefile: str) -> list[tuple[list[str], list[tuple[str, list[str]]]]]:
        """What a Corefile says, comments and blanks left out: what `reload` compares.

        Raises CorefileError for a text that cannot be parsed; unknown directives are not looked at yet.
        """
        blocks = _corefile.parse(corefile, None, self.files, self.variables)
        return [
            (
                block.keys,
                [(name, [token.text for token in words]) for name, words in block.directives.items()],
            )
            for block in blocks
        ]

    @property
    def _running(self) -> str:
        from hashlib import sha512

        digest = sha512(repr(self.words_of(self.corefile)).encode()).hexdigest()
        return f"[INFO] plugin/reload: Running configuration SHA512 = {digest}"

    def answer(
        self, query: Query, client: str = "127.0.0.1", now: float = 0.0, protocol: str = "udp", port: int = 0
    ) -> Response | None:
        """The answer to a query, or None for silence. `answer.delay` is how long it took, in seconds."""
        opcode = query.opcode
        if opcode not in ("QUERY", "NOTIFY"):
            return Response(
                question=None,
                id=query.id,
                rd=query.rd,
                cd=query.cd,
                ad=query.ad,
                rcode="NOTIMP",
                opcode=opcode,
            )
        edns = query.edns
        if edns is not None and edns.version:
            return reply(query, "BADVERS", edns=Edns(payload=0))
        name = query.name.lower()
        server = self._server(name, query.type)
        if server is not None and (server.views or server.zone.name in self.blocks):
            server = self._viewed(
                server, Request(query, name, client, protocol, now, self._lookup, self.rng, port)
            )
        if server is None or server.first is None or (query.cls != "IN" and not server.any_class):
            return self._fit(reply(query, "REFUSED"), query, client, protocol)
        depth = getattr(self._within, "depth", 0)
        if depth > _MAX_DEPTH:
            # Queries go round without `loop` to notice: nobody will ever answer this one.
            return None
        request = Request(query, name, client, protocol, now, self._lookup, self.rng, port)
        self._within.depth = depth + 1
        try:
            result = server.first.serve(request)
        finally:
            self._within.depth = depth
        if isinstance(result, Failure):
            if result.silent:
                return None
            result = reply(query, result.rcode, delay=result.delay)
        if request.query.edns is not query.edns and query.edns is not None and request.query.edns is not None:
            # `bufsize` lowers what the client said it takes.
            query = replace(query, edns=replace(query.edns, payload=request.query.edns.payload))
        if request.elapsed:
            result = replace(result, delay=result.delay + request.elapsed)
        return self._fit(result, query, client, protocol)

    def handle(self, packet: Packet, now: float) -> Packet | None:
        """The handler of the server's sockets: the answer's fields as a packet, or None to stay silent.

        A query comes as `packet.message` (a Query) or as bytes in `packet.payload`; the answer goes the way
        the query came.
        """
        from kubenet_lab.packet.packet import TCP

        protocol = "tcp" if packet.proto == TCP else "udp"
        message = packet.message
        if isinstance(message, Query):
            answer = self.answer(message, packet.src, now, protocol, packet.sport)
            if answer is None:
                return None
            return self._back(packet, message=answer, payload_size=answer.wire_length)
        wire = self.answer_wire(packet.payload, packet.src, now, protocol, packet.sport)
        return None if wire is None else self._back(packet, payload=wire, payload_size=len(wire))

    def answer_wire(
        self, data: bytes, client: str = "127.0.0.1", now: float = 0.0, protocol: str = "udp", port: int = 0
    ) -> bytes | None:
        """`answer` for a message in octets, hostile ones included."""
        from kubenet_lab.dns.message import BadMessage, receive, to_wire

        message = receive(data)
        answer = self.answer(message, client, now, protocol, port) if isinstance(message, Query) else message
        if answer is None:
            return None
        try:
            return to_wire(answer)
        except BadMessage:
            # CoreDNS cannot write it either: its client waits in vain.
            return None

    def ready(self) -> tuple[str, ...]:
        """Names of plugins that are not ready: what `curl :8181/ready` prints; empty for 200 OK."""
        return tuple(
            dict.fromkeys(
                plugin.name
                for server in self.servers.values()
                for plugin in server.chain
                if isinstance(plugin, Kubernetes) and not plugin.ready()
            )
        )

    def metrics(self) -> str:
        """What `curl :9153/metrics` prints, as far as it is modelled; counters begin anew with every load."""
        requests: Counter[Labels] = Counter()
        responses: Counter[Labels] = Counter()
        for plugin in self._plugins(Prometheus):
            requests.update(plugin.requests)
            responses.update(plugin.responses)
        entries: dict[Labels, int] = {}
        hits: dict[Labels, int] = {}
        misses: dict[Labels, int] = {}
        for server in self.servers.values():
            for cache in (plugin for plugin in server.chain if isinstance(plugin, Cache)):
                labels = (("server", f"dns://:{self.port}"), ("view", ""), ("zones", server.zone.name))
                for kind, store in (("denial", cache.denial), ("success", cache.success)):
                    entries[labels[0], ("type", kind), *labels[1:]] = len(store)
                hits[labels] = cache.hits
                misses[labels] = cache.misses
        build = (("goversion", "go1.26.8"), ("revision", ""), ("version", VERSION))
        return "".join(
            (
                exposition(
                    "coredns_build_info",
                    "gauge",
                    "A metric with a constant '1' value labeled by version, revision, and goversion from which "
                    "CoreDNS was built.",
                    {build: 1},
                ),
                exposition("coredns_cache_entries", "gauge", "The number of elements in the cache.", entries),
                exposition("coredns_cache_hits_total", "counter", "The count of cache hits.", hits),
                exposition("coredns_cache_misses_total", "counter", "The count of cache misses.", misses),
                exposition(
                    "coredns_dns_requests_total",
                    "counter",
                    "Counter of DNS requests made per zone, protocol and family.",
                    requests,
                ),
                exposition(
                    "coredns_dns_responses_total", "counter", "Counter of response status codes.", responses
                ),
            )
        )

    def cached(self) -> tuple[int, int]:
        """(entries kept, entries the caches can hold)."""
        caches = self._plugins(Cache)
        return (
            sum(len(cache.success) + len(cache.denial) for cache in caches),
            sum(cache.options.success_capacity + cache.options.denial_capacity for cache in caches),
        )

    def _plugins(self, kind: type[Found]) -> list[Found]:
        """All plugins of a kind, each once though several zones share a chain."""
        found = [
            plugin for server in self.servers.values() for plugin in server.chain if isinstance(plugin, kind)
        ]
        return list({id(plugin): plugin for plugin in found}.values())

    def block_of(self, query: Query) -> Server | None:
        """The zone of a server block that a query falls into, None where no block serves it."""
        return self._server(query.name.lower(), query.type)

    def watch(
        self, query: Query, met: list[Plugin], client: str = "127.0.0.1", now: float = 0.0
    ) -> Response | None:
        """`answer`, and in `met` the plugins that the query reached, in order: the last one spoke."""
        block = self.block_of(query)
        chain = block.chain if block is not None else ()
        before = [plugin.__dict__.get("serve") for plugin in chain]

        def noting(plugin: Plugin) -> Callable[[Request], Response | Failure]:
            serve = plugin.serve

            def noted(request: Request) -> Response | Failure:
                if request.query is query or request.query.name == query.name:
                    met.append(plugin)
                return serve(request)

            return noted

        for plugin in chain:
            plugin.__dict__["serve"] = noting(plugin)
        try:
            return self.answer(query, client, now)
        finally:
            for plugin, serve in zip(chain, before, strict=True):
                if serve is None:
                    del plugin.__dict__["serve"]
                else:
                    plugin.__dict__["serve"] = serve

    def probe_loop(self, now: float = 0.0) -> None:
        """The query `loop` sends the server at its start. Raises LoopDetected if it comes back.

        The upstream must lead it back here for that: `upstream` asked at an own address calls `answer`.
        """
        for server in self.servers.values():
            for plugin in server.chain:
                if isinstance(plugin, Loop):
                    zone = "" if plugin.zone == "." else plugin.zone
                    plugin.probe = f"{self.rng.getrandbits(62)}.{self.rng.getrandbits(62)}.{zone}"
                    try:
                        self.answer(Query(plugin.probe, "HINFO"), now=now)
                    finally:
                        plugin.probe = ""

    def plugin(self, name: str, zone: str = ".") -> Any:
        """The plugin called `name` in the chain that serves `zone`. Raises KeyError."""
        for plugin in self.servers[zone].chain:
            if plugin.name == name:
                return plugin
        raise KeyError(name)

    def _back(self, packet: Packet, **fields: Any) -> Packet:
        cleared = {"payload": b"", "message": None, "payload_size": 0, "ttl": 64, **fields}
        return packet.replace(
            src=packet.dst, dst=packet.src, sport=packet.dport, dport=packet.sport, **cleared
        )

    def _server(self, name: str, kind: str) -> Server | None:
        servers = self.servers
        parent: Server | None = None
        if len(servers) == 1:
            return servers.get(".") or _closest(servers, name)
        rest = name
        while rest:
            found = servers.get(rest)
            if found is not None:
                if kind != "DS":
                    return found
                # DS lives in the parent zone; go on and keep the last one that has the name.
                parent = found
            if rest == ".":
                break
            rest = rest.partition(".")[2] or "."
        return parent

    def _viewed(self, server: Server, request: Request) -> Server | None:
        """The block of this zone whose view the query is in."""
        for each in self.blocks.get(server.zone.name, [server]):
            if all(view.wanted(request) for view in each.views):
                return each
        return None

    def _lookup(self, request: Request, name: str, kind: str) -> Response | None:
        query = Query(
            name=name, type=kind, id=request.query.id, rd=request.query.rd, edns=request.query.edns,
            ad=request.query.ad, cd=request.query.cd,
        )  # fmt: skip
        answer = self.answer(query, request.client, request.now, request.protocol, request.port)
        if answer is not None:
            request.elapsed += answer.delay
        return answer

    def _fit(self, answer: Response, query: Query, client: str, protocol: str) -> Response | None:
        """The answer as it leaves: OPT echoed, cut to what the client takes; None if it cannot be written."""
        edns = query.edns
        own = answer.edns.options if answer.edns is not None else ()
        if edns is not None:
            do = edns.do or bool(own)
            answer = replace(answer, edns=Edns(payload=edns.payload, do=do, options=own))
        elif answer.edns is not None and not own:
            answer = replace(answer, edns=None)
        records = (*answer.answer, *answer.authority, *answer.additional)
        if len(records) > 1 or len(answer.question.name if answer.question else "") > 150:
            size = (
                MAX_SIZE if protocol == "tcp" else max(MIN_UDP_SIZE, edns.payload if edns is not None else 0)
            )
            answer = truncate(answer, size)
            if protocol == "udp" and not answer.compressed:
                length = answer.wire_length
                if length > (_FRAGMENT_V6 if ":" in client else _FRAGMENT_V4):
                    answer = replace(answer, compressed=True)
            if protocol == "udp" and answer.wire_length > _MAX_UDP_PAYLOAD:
                return None
        return None if any(not _writable(record) for record in records) else answer

    def _load(self, text: str) -> None:
        blocks = _corefile.parse(text, DIRECTIVES, self.files, self.variables)
        if not blocks and not text.strip():
            blocks = _corefile.parse(f".:{self.port} {{\nwhoami\nlog\n}}", DIRECTIVES)
        environment = Environment(
            self.view, self.upstream, self.local_ips, self.log.append, self.variables, self.hostname
        )
        zones = [_corefile.zones_of(block, self.port) for block in blocks]
        chains: list[list[Plugin]] = [[] for _ in blocks]
        for name in DIRECTIVES:
            for index, block in enumerate(blocks):
                words = block.directives.get(name)
                if words is None:
                    continue
                plugin = self._setup(
                    name, Controller(words, tuple(z.name for z in zones[index]), environment, self.files)
                )
                while plugin is not None:
                    chains[index].append(plugin)
                    plugin = plugin.next
        servers: dict[str, Server] = {}
        printed: list[str] = []
        several: dict[str, list[Server]] = {}
        taken: dict[Zone, bool] = {}
        for block_zones, chain in zip(zones, chains, strict=True):
            for first, second in pairwise(chain):
                first.next = second
            for zone in block_zones:
                if not 0 <= int(zone.port) <= 65535:
                    raise CorefileError(f"address {zone.port}: invalid port")
                viewed = any(isinstance(plugin, View) for plugin in chain)
                if zone in taken and not viewed and not taken[zone]:
                    raise CorefileError(f"cannot serve {zone} - it is already defined")
                taken[zone] = viewed
                printed.append(f"{zone.name}:{zone.port}" if zone.transport == "dns" else str(zone))
                if zone.transport == "dns" and zone.port == self.port:
                    served = Server(zone, tuple(chain))
                    servers[zone.name] = served
                    several.setdefault(zone.name, []).append(served)
        if environment.unbound:
            address = environment.unbound[0]
            where = f"[{address}]" if ":" in address else address
            raise CorefileError(
                f"Listen: listen tcp {where}:{self.port}: bind: cannot assign requested address"
            )
        self.servers = servers
        self.blocks = {name: each for name, each in several.items() if len(each) > 1}
        self.corefile = text
        self.lameduck = environment.lameduck
        self.http = environment.http
        self.reloads = environment.reload
        self.banner = [*printed, f"CoreDNS-{VERSION}", PLATFORM]
        if self.reloads is not None:
            self.banner.insert(len(printed), self._running)

    @staticmethod
    def _setup(name: str, controller: Controller) -> Plugin | None:
        known = _BY_NAME.get(name)
        if known is None:
            raise NotModelled(f"plugin/{name}: not modelled", controller.tokens[0].line)
        try:
            return known.setup(controller)
        except CorefileError as error:
            made = NotModelled if str(error).endswith(": not modelled") else CorefileError
            line = error.line or controller.line or controller.tokens[0].line
            raise made(f"plugin/{name}: {error}", line) from None


def _closest(servers: dict[str, Server], name: str) -> Server | None:
    ((zone, server),) = servers.items()
    return server if name == zone or name.endswith("." + zone) else None


def _writable(record: Record) -> bool:
    if ".." not in record.data and ".." not in record.name:
        return True
    names = [record.name, *([record.target] if record.target else [])]
    return all(0 < len(label_bytes(label)) < 64 for name in names for label in labels(name))
