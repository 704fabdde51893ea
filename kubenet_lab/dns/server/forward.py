"""The `forward` plugin (https://coredns.io/plugins/forward/): an upstream's answer, passed on as it is."""

from __future__ import annotations

import re
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.dns.names import absolute, is_subdomain, parse_ip
from kubenet_lab.dns.records import RCODES, Query, Response
from kubenet_lab.dns.server.corefile import (
    Controller,
    CorefileError,
    duration,
    integer,
    normalize,
    transport_of,
)
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request, Upstream

READ_TIMEOUT = 2.0
DEADLINE = 5.0
CHECK_TIMEOUT = 1.0
CHECK_INTERVAL = 0.5
_ATTEMPTS_EACH = 2
_MAX_UPSTREAMS = 15


class Options(Struct, frozen=True):
    """A parsed stanza: names below `zone` but not below `but` go to one of `servers` ("10.0.0.53:53")."""

    zone: str
    servers: tuple[str, ...]
    but: tuple[str, ...] = ()
    policy: str = "random"
    max_fails: int = 2
    max_concurrent: int = 0
    failover: tuple[str, ...] = ()
    next: tuple[str, ...] = ()
    next_on_nodata: bool = False
    failfast: bool = False
    max_attempts: int = -1
    """0: as many as there is time for; negative: twice as many as servers."""
    read_timeout: float = READ_TIMEOUT
    check_interval: float = CHECK_INTERVAL
    check_domain: str = "."
    check_recursion: bool = True
    source: str = ""
    force_tcp: bool = False
    prefer_udp: bool = False


class _Probe(Struct):
    """A health check under way: the next question is sent at `next`."""

    next: float


class Forward(Plugin):
    """`upstream` is asked (query, server) and answers, keeps silent (None) or raises ConnectionRefusedError.

    A server that failed is asked `. NS` again and again, half a second apart, until it answers; after more
    than `max_fails` failures of that kind it counts as down. With all of them down, one is tried all the same.
    `fails` counts by server.
    """

    name = "forward"

    def __init__(self, options: Options, upstream: Upstream, local_ip: str = "127.0.0.1") -> None:
        self.options = options
        self.upstream = upstream
        self.local_ip = local_ip
        self.fails: dict[str, int] = {}
        self._probes: dict[str, _Probe] = {}
        self._turn = 0
        self._flying: list[float] = []

    def serve(self, request: Request) -> Response | Failure:
        """Ask the upstreams in turn until one answers, unless too many questions are under way."""
        options = self.options
        if not is_subdomain(options.zone, request.name) or any(
            is_subdomain(zone, request.name) for zone in options.but
        ):
            return self.pass_on(request)
        if not options.max_concurrent:
            return self._exchange(request)
        self._flying = [end for end in self._flying if end > request.now]
        if len(self._flying) >= options.max_concurrent:
            return Failure("REFUSED", f"concurrent queries exceeded maximum {options.max_concurrent}")
        answer = self._exchange(request)
        self._flying.append(request.now + answer.delay)
        return answer

    def _exchange(self, request: Request) -> Response | Failure:
        options = self.options
        query = request.query
        asked_query = replace(query, ad=True) if request.ad and not query.ad else query
        servers = self._order(request)
        elapsed = 0.0
        error = ""
        attempts = down = refused_over = index = 0
        most = options.max_attempts if options.max_attempts >= 0 else _ATTEMPTS_EACH * len(servers)
        while elapsed < DEADLINE and (not most or attempts < most):
            if index >= len(servers):
                index = down = 0
            server = servers[index]
            index += 1
            if self.is_down(server, request.now + elapsed):
                down += 1
                if down < len(servers):
                    continue
                if options.failfast:
                    break
                server = request.rng.choice(servers) if len(servers) > 1 else server
            try:
                answer = self._ask(asked_query, server, request.protocol)
            except ConnectionRefusedError:
                answer, error = None, f"read udp {self._source(query)}->{server}: read: connection refused"
            else:
                if answer is None:
                    error = f"read udp {self._source(query)}->{server}: i/o timeout"
                    elapsed += options.read_timeout
            if answer is None:
                if options.max_fails:
                    self._probes.setdefault(server, _Probe(request.now + elapsed))
                attempts += 1
                if down < len(servers):
                    continue
                break
            if answer.rcode in options.failover:
                refused_over += 1
                if refused_over < len(servers):
                    elapsed += answer.delay
                    continue
            other = answer.rcode in options.next or (
                options.next_on_nodata and answer.rcode == "NOERROR" and not answer.answer
            )
            if other and isinstance(self.next, Forward):
                return self.pass_on(request)
            return replace(
                answer,
                question=query if answer.question is not None else None,
                id=query.id,
                delay=elapsed + answer.delay,
            )
        return Failure("SERVFAIL", error or "no healthy proxies", elapsed)

    def _ask(self, query: Query, server: str, protocol: str) -> Response | None:
        """One query to one upstream, over the client's transport unless an option says otherwise."""
        options = self.options
        if options.force_tcp:
            return self.upstream(query, server, "tcp")
        if not options.prefer_udp:
            return self.upstream(query, server, protocol)
        answer = self.upstream(query, server, "udp")
        cut = answer is not None and answer.tc
        return self.upstream(query, server, "tcp") if cut else answer

    def is_down(self, server: str, now: float) -> bool:
        """Has this server failed too many health checks by `now`? Those due until then are made."""
        probe = self._probes.get(server)
        if probe is not None and now >= probe.next:
            lasts = self._check(server)
            if lasts < 0:
                del self._probes[server]
                self.fails[server] = 0
            else:
                # Checks that were due in between would have failed too, as far as can be known now.
                done = (
                    int((now - probe.next - lasts) / (lasts + self.options.check_interval or 1)) + 1
                    if now >= probe.next + lasts
                    else 0
                )
                self.fails[server] = self.fails.get(server, 0) + done
                probe.next += done * (lasts + self.options.check_interval)
        return 0 < self.options.max_fails < self.fails.get(server, 0)

    def _check(self, server: str) -> float:
        """One health check: how many seconds it took to fail, or -1 if the server answers, whatever it says."""
        question = Query(self.options.check_domain, "NS", rd=self.options.check_recursion)
        try:
            return -1 if self.upstream(question, server, "udp") is not None else CHECK_TIMEOUT
        except ConnectionRefusedError:
            return 0

    def _source(self, query: Query) -> str:
        # The real port is the kernel's choice; this one is at least the same every time.
        return f"{self.options.source or self.local_ip}:{32768 + query.id % 28232}"

    def _order(self, request: Request) -> list[str]:
        servers = list(self.options.servers)
        if len(servers) > 1 and self.options.policy == "random":
            request.rng.shuffle(servers)
        elif self.options.policy == "round_robin":
            self._turn = (self._turn + 1) % len(servers)
            servers = servers[self._turn :] + servers[: self._turn]
        return servers

    @classmethod
    def setup(cls, controller: Controller) -> Plugin:
        """Read the stanza. Raises CorefileError."""
        from kubenet_lab.dns.server.coredns import Environment

        environment = controller.environment
        assert isinstance(environment, Environment)
        local = environment.local_ips[0] if environment.local_ips else "127.0.0.1"
        made = [cls(options, environment.upstream, local) for options in _parse(controller)]
        for first, second in pairwise(made):
            first.next = second
        return made[0]


def _parse(c: Controller) -> list[Options]:
    found: list[Options] = []
    while c.next():
        if not c.next_arg():
            raise c.arg_error()
        zones = normalize(c.value)
        if not zones:
            raise CorefileError(f"unable to normalize '{c.value}'")
        to = c.args()
        if not to:
            raise c.arg_error()
        fields: dict[str, object] = {}
        while c.next_block():
            _option(c, fields)
        servers: list[str] = []
        for word in to:
            servers += _servers(word, c)
        servers = list(dict.fromkeys(servers))
        if not servers:
            raise CorefileError("no valid upstream addresses found")
        if len(servers) > _MAX_UPSTREAMS:
            raise CorefileError(f"more than {_MAX_UPSTREAMS} TOs configured: {len(servers)}")
        found.append(Options(zone=zones[0], servers=tuple(servers), **fields))  # type: ignore[arg-type]
    return found


def _servers(word: str, c: Controller) -> list[str]:
    if word in c.files:
        # A resolv.conf: its nameserver lines are the upstreams.
        lines = [line.split() for line in c.files[word].splitlines()]
        return [
            _join(line[1])
            for line in lines
            if len(line) > 1 and line[0] == "nameserver" and parse_ip(line[1])
        ]
    scheme, host = transport_of(word)
    port = ""
    if found := re.fullmatch(r"\[([^\]]*)\](?::(\d+))?|([^:]*)(?::(\d+))?", host):
        host, port = found[1] or found[3] or "", found[2] or found[4] or ""
    if not parse_ip(host):
        if not host:
            raise CorefileError(f'invalid address: "{word}"')
        raise CorefileError(f'failed to resolve "{word}": lookup {word}.: no such host')
    return [_join(host, port or ("853" if scheme == "tls" else "443" if scheme == "https" else "53"))]


def _join(host: str, port: str = "53") -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _option(c: Controller, fields: dict[str, object]) -> None:
    word = c.value
    if word in ("force_tcp", "prefer_udp"):
        if c.next_arg():
            raise c.arg_error()
        fields[word] = True
    elif word == "except":
        args = c.args()
        if not args:
            raise c.arg_error()
        fields["but"] = tuple(zone for arg in args for zone in normalize(arg))
    elif word in ("failover", "next"):
        args = c.args()
        if not args:
            raise c.arg_error()
        for arg in args:
            if arg.upper() not in RCODES:
                raise CorefileError(f"{arg} is not a valid rcode")
            if word == "failover" and arg.upper() == "NOERROR":
                raise CorefileError("NoError cannot be used in failover")
        fields[word] = tuple(arg.upper() for arg in args)
    elif word == "policy":
        if not c.next_arg():
            raise c.arg_error()
        if c.value not in ("random", "round_robin", "sequential"):
            raise c.error(f"unknown policy '{c.value}'")
        fields["policy"] = c.value
    elif word == "max_fails":
        if not c.next_arg():
            raise c.arg_error()
        fields["max_fails"] = integer(c.value, "strconv.ParseUint")
    elif word == "max_concurrent":
        if not c.next_arg():
            raise c.arg_error()
        count = integer(c.value)
        if count < 0:
            raise CorefileError(f"max_concurrent can't be negative: {count}")
        fields["max_concurrent"] = count
    elif word in ("expire", "max_age"):
        # Connections are not kept from one question to the next, so that neither changes an answer.
        if not c.next_arg():
            raise c.arg_error()
        if duration(c.value) < 0:
            raise CorefileError(f"{word} can't be negative: {c.value}")
    elif word == "read_timeout":
        if not c.next_arg():
            raise c.arg_error()
        fields["read_timeout"] = seconds = duration(c.value)
        if seconds <= 0:
            raise CorefileError(f"read_timeout must be positive: {c.value}")
    elif word == "health_check":
        fields.update(_health_check(c))
    elif word == "max_connect_attempts":
        if not c.next_arg():
            raise c.arg_error()
        fields["max_attempts"] = integer(c.value, "strconv.ParseUint")
    elif word == "max_idle_conns":
        if not c.next_arg():
            raise c.arg_error()
        if (count := integer(c.value)) < 0:
            raise CorefileError(f"max_idle_conns can't be negative: {count}")
    elif word == "source_address":
        if not c.next_arg():
            raise c.arg_error()
        if not parse_ip(c.value):
            raise c.error(f"invalid IP address: {c.value}")
        fields["source"] = c.value
    elif word == "doh_method":
        if not c.next_arg():
            raise c.arg_error()
        if c.value not in ("POST", "GET"):
            raise CorefileError("doh_method must be either POST or GET")
    elif word in ("tls", "tls_servername", "resolver"):
        if not c.args() and word != "tls":
            raise c.arg_error()
    elif word in ("next_on_nodata", "failfast_all_unhealthy_upstreams"):
        if c.next_arg():
            raise c.arg_error()
        fields["next_on_nodata" if word == "next_on_nodata" else "failfast"] = True
    else:
        raise c.error(f"unknown property '{word}'")


def _health_check(c: Controller) -> dict[str, object]:
    words = c.args()
    if not words:
        raise c.arg_error()
    seconds = duration(words.pop(0))
    if seconds < 0:
        raise CorefileError(f"health_check can't be negative: {round(seconds * 1e9)}")
    fields: dict[str, object] = {"check_interval": seconds}
    while words:
        word = words.pop(0)
        if word == "no_rec":
            fields["check_recursion"] = False
        elif word == "domain":
            if not words:
                raise c.arg_error()
            fields["check_domain"] = absolute(words.pop(0)).lower()
        else:
            raise CorefileError(f"health_check: unknown option {word}")
    return fields
