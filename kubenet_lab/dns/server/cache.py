"""The `cache` plugin (https://coredns.io/plugins/cache/): answers by name, type, class, DO and CD.

Every answer that passes has all its TTLs set to one value, the least of them within the configured limits,
whether it is kept or not.
"""

from __future__ import annotations

from math import ceil

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.dns.names import absolute, is_subdomain
from kubenet_lab.dns.records import Record, Response, reply
from kubenet_lab.dns.server.corefile import Controller, CorefileError, duration, integer
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request
from kubenet_lab.dns.server.response import classify

_MIN_TTL = 5
_OPTIONS = frozenset(
    {"success", "denial", "servfail", "disable", "keepttl", "prefetch", "serve_stale", "serve_stale_policy"}
)
Key = tuple[str, str, str, bool, bool]


class Options(Struct, frozen=True):
    """A parsed stanza; TTLs and durations in seconds."""

    zones: tuple[str, ...]
    success_capacity: int = 10000
    success_ttl: int = 3600
    success_min_ttl: int = _MIN_TTL
    denial_capacity: int = 10000
    denial_ttl: int = 1800
    denial_min_ttl: int = _MIN_TTL
    servfail_ttl: float = 5
    no_success: tuple[str, ...] = ()
    no_denial: tuple[str, ...] = ()
    keep_ttl: bool = False
    prefetch: int = 0
    prefetch_duration: float = 60.0
    prefetch_percentage: int = 10
    stale_up_to: float = 0.0
    verify_stale: bool = False


class Popularity(Struct):
    """How often an answer was asked for since `since`."""

    since: float
    hits: int = 1


class Item(Struct, frozen=True):
    """A kept answer, without its OPT record."""

    response: Response
    stored: float
    ttl: int

    def left(self, now: float) -> int:
        """Seconds of life left at `now`."""
        return self.ttl - int(now - self.stored)


class Cache(Plugin):
    """`success` and `denial` hold what is kept; both can be read to draw the cache."""

    name = "cache"

    def __init__(self, options: Options) -> None:
        self.options = options
        self.success: dict[Key, Item] = {}
        self.denial: dict[Key, Item] = {}
        self.hits = 0
        self.misses = 0
        self.stale = 0
        """Answers given after their time."""
        self.prefetches = 0
        self._asked: dict[Key, Popularity] = {}

    def serve(self, request: Request) -> Response | Failure:
        """Answer from the cache, or pass on and keep."""
        options = self.options
        name = request.name
        if options.zones != (".",) and not any(is_subdomain(zone, name) for zone in options.zones):
            return self.pass_on(request)
        query = request.query
        key = (name, query.type, query.cls, query.edns is not None and query.edns.do, query.cd)
        item = self._get(key, request.now)
        if item is not None:
            self.hits += 1
            left = item.left(request.now)
            if left <= 0:
                return self._stale(item, key, request)
            answer = _again(item, request, item.ttl if options.keep_ttl else left)
            if self._wanted_soon(key, item, request.now):
                self.prefetches += 1
                self._refresh(key, request)
            return answer
        self.misses += 1
        return self._refresh(key, request)

    def _stale(self, item: Item, key: Key, request: Request) -> Response | Failure:
        """Answer after the time, TTL 0; ask anew before (`verify`) or behind the client's back."""
        fresh = self._refresh(key, request)
        good = not isinstance(fresh, Failure) and fresh.rcode in ("NOERROR", "NXDOMAIN")
        if self.options.verify_stale and good:
            return fresh
        self.stale += 1
        return _again(item, request, 0)

    def _wanted_soon(self, key: Key, item: Item, now: float) -> bool:
        """Is the answer popular, and its time nearly over?"""
        options = self.options
        if options.prefetch <= 0:
            return False
        asked = self._asked.get(key)
        if asked is None or now - asked.since > options.prefetch_duration:
            self._asked[key] = asked = Popularity(now, 1)
        else:
            asked.hits += 1
        return asked.hits >= options.prefetch and item.left(now) <= ceil(
            options.prefetch_percentage / 100 * item.ttl
        )

    def _refresh(self, key: Key, request: Request) -> Response | Failure:
        """Ask the rest of the chain, and keep what it says."""
        query = request.query
        # What is kept must serve whoever wants the AD bit later.
        request.ad = True
        answer = self.pass_on(request)
        if isinstance(answer, Failure) and answer.silent:
            return answer
        if isinstance(answer, Failure):
            # A failure inside the server is remembered too, or every retry would wait for the upstream again.
            self._store(key, reply(query, answer.rcode, delay=answer.delay), request)
            return answer
        return self._store(key, answer, request)

    def _get(self, key: Key, now: float) -> Item | None:
        stale = self.options.stale_up_to
        denied = self.denial.get(key)
        if denied is not None and denied.left(now) > -stale:
            if denied.response.rcode == "SERVFAIL":
                good = self.success.get(key)
                if good is not None and good.left(now) > 0:
                    return good
            return denied
        found = self.success.get(key)
        return found if found is not None and found.left(now) > -stale else None

    def _store(self, key: Key, answer: Response, request: Request) -> Response:
        options = self.options
        kind = classify(answer)
        if kind in ("nxdomain", "nodata"):
            ttl: float = _clamp(
                _least(answer, options.denial_ttl), options.denial_min_ttl, options.denial_ttl
            )
        elif kind == "servererror":
            ttl = options.servfail_ttl
        else:
            least = _least(answer, options.success_ttl) if kind == "success" else _MIN_TTL
            ttl = _clamp(least, options.success_min_ttl, options.success_ttl)
        answer = _with_ttl(answer, int(ttl))
        keep = not answer.tc and ttl > 0 and kind not in ("other", "meta") and answer.opcode == "QUERY"
        if kind == "nxdomain" and not any(record.type == "SOA" for record in answer.authority):
            keep = False
        if keep:
            positive = kind in ("success", "delegation")
            but = options.no_success if positive else options.no_denial
            if not any(is_subdomain(zone, key[0]) for zone in but):
                store = self.success if positive else self.denial
                capacity = options.success_capacity if positive else options.denial_capacity
                if len(store) >= capacity and key not in store:
                    # Which one goes is random in CoreDNS; the oldest is as good and repeatable.
                    del store[next(iter(store))]
                store[key] = Item(replace(answer, edns=None), request.now + answer.delay, int(ttl))
        if answer.ad and not request.query.ad and not key[3]:
            answer = replace(answer, ad=False)
        return answer

    @classmethod
    def setup(cls, controller: Controller) -> Cache:
        """Read the stanza. Raises CorefileError."""
        return cls(_parse(controller))


def _least(answer: Response, most: int) -> int:
    ttl = most
    found = False
    for section in (answer.answer, answer.authority, answer.additional):
        for record in section:
            found = True
            if record.ttl < ttl:
                ttl = record.ttl
    return ttl if found else _MIN_TTL


def _clamp(ttl: int, least: int, most: int) -> int:
    return min(max(ttl, least), most)


def _set(records: tuple[Record, ...], ttl: int) -> tuple[Record, ...]:
    if all(record.ttl == ttl for record in records):
        return records
    return tuple(Record(record.name, record.type, ttl, record.data, record.cls) for record in records)


def _with_ttl(answer: Response, ttl: int) -> Response:
    answers = _set(answer.answer, ttl)
    authority = _set(answer.authority, ttl)
    additional = _set(answer.additional, ttl)
    if answers is answer.answer and authority is answer.authority and additional is answer.additional:
        return answer
    return replace(answer, answer=answers, authority=authority, additional=additional)


def _again(item: Item, request: Request, ttl: int) -> Response:
    query = request.query
    asked = query.opcode == "QUERY"
    wants_ad = query.ad or (query.edns is not None and query.edns.do)
    return replace(
        _with_ttl(item.response, ttl),
        question=query,
        id=query.id,
        opcode=query.opcode,
        rd=query.rd and asked,
        cd=query.cd and asked,
        ad=item.response.ad and wants_ad,
        delay=0.0,
    )


def _parse(c: Controller) -> Options:
    options: Options | None = None
    while c.next():
        if options is not None:
            raise CorefileError("this plugin can only be used once per Server Block")
        args = c.args()
        fields: dict[str, object] = {}
        if args and args[0].removeprefix("-").isdigit():
            ttl = integer(args.pop(0))
            _positive(ttl)
            fields["success_ttl"] = fields["denial_ttl"] = ttl
        zones = c.zones_or(args)
        while c.next_block():
            word = c.value
            if word not in _OPTIONS:
                raise c.arg_error()
            words = c.args()
            if word in ("success", "denial"):
                if not words:
                    raise c.arg_error()
                fields[f"{word}_capacity"] = integer(words[0])
                if len(words) > 1:
                    fields[f"{word}_ttl"] = _positive(integer(words[1]))
                if len(words) > 2:
                    least = integer(words[2])
                    if least < 0:
                        raise CorefileError(f"cache min TTL can not be negative: {least}")
                    fields[f"{word}_min_ttl"] = least
            elif word == "servfail":
                if len(words) != 1:
                    raise c.arg_error()
                seconds = duration(words[0])
                if seconds < 0:
                    raise CorefileError("invalid negative ttl for servfail")
                if seconds > 300:
                    raise CorefileError("caching SERVFAIL responses over 5 minutes is not permitted")
                fields["servfail_ttl"] = seconds
            elif word == "disable":
                if not words:
                    raise c.arg_error()
                if words[0] not in ("success", "denial"):
                    raise CorefileError('cache type for disable must be "success" or "denial"')
                but = tuple(absolute(zone).lower() for zone in words[1:]) or (".",)
                fields["no_success" if words[0] == "success" else "no_denial"] = but
            elif word == "keepttl":
                if words:
                    raise c.arg_error()
                fields["keep_ttl"] = True
            elif word == "prefetch":
                fields.update(_prefetch(c, words))
            elif word == "serve_stale":
                fields.update(_serve_stale(c, words))
            else:
                raise CorefileError(f"{word}: not modelled")
        options = Options(zones=zones, **fields)  # type: ignore[arg-type]
    assert options is not None
    return options


def _prefetch(c: Controller, words: list[str]) -> dict[str, object]:
    if not 1 <= len(words) <= 3:
        raise c.arg_error()
    amount = integer(words[0])
    if amount < 0:
        raise CorefileError(f"prefetch amount should be positive: {amount}")
    fields: dict[str, object] = {"prefetch": amount}
    if len(words) > 1:
        fields["prefetch_duration"] = duration(words[1])
    if len(words) > 2:
        if not words[2].endswith("%"):
            raise CorefileError(f"last character of percentage should be `%`, but is: '{words[2][-1]}'")
        percentage = integer(words[2][:-1])
        if not 10 <= percentage <= 90:
            raise CorefileError(f"percentage should fall in range [10, 90]: {percentage}")
        fields["prefetch_percentage"] = percentage
    return fields


def _serve_stale(c: Controller, words: list[str]) -> dict[str, object]:
    if len(words) > 2:
        raise c.arg_error()
    seconds = duration(words[0]) if words else 3600.0
    if seconds < 0:
        raise CorefileError("invalid negative duration for serve_stale")
    mode = words[1].lower() if len(words) > 1 else "immediate"
    if mode not in ("immediate", "verify"):
        raise CorefileError(f"invalid value for serve_stale refresh mode: {mode}")
    return {"stale_up_to": seconds, "verify_stale": mode == "verify"}


def _positive(ttl: int) -> int:
    if ttl <= 0:
        raise CorefileError(f"cache TTL can not be zero or negative: {ttl}")
    return ttl
