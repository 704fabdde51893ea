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
_POSITIVE = frozenset({"success", "delegation"})
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
    verify_timeout: float = 0.0
    """0: as long as the upstream takes."""
    stale_ttl: int = 0
    failure_recheck: float = 0.0
    prefer_positive: bool = False


class Item(Struct):
    """A kept answer, without its OPT record, and how it fares."""

    response: Response
    stored: float
    ttl: int
    good: Item | None = None
    """The answer it replaced, where this one is positive but answers nothing (`prefer_positive`)."""
    hits: int = 0
    """How often in a row it was asked for; counted for `prefetch` only."""
    asked: float = float("-inf")
    refreshing: float = float("-inf")
    """Until when it is being asked for anew, or must not be."""

    def left(self, now: float) -> int:
        """Seconds of life left at `now`."""
        return self.ttl - int(now - self.stored)

    def count(self, gap: float, now: float) -> int:
        """One more query; a pause longer than `gap` seconds begins the count again."""
        self.hits = self.hits + 1 if now - self.asked <= gap else 1
        self.asked = now
        return self.hits


class Arrival(Struct, frozen=True):
    """What a refresh behind the client's back will have brought at `at`."""

    at: float
    key: Key
    item: Item


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
        self._arrivals: list[Arrival] = []

    def serve(self, request: Request) -> Response | Failure:
        """Answer from the cache, or pass on and keep."""
        options = self.options
        name = request.name
        if options.zones != (".",) and not any(is_subdomain(zone, name) for zone in options.zones):
            return self.pass_on(request)
        query = request.query
        key = (name, query.type, query.cls, query.edns is not None and query.edns.do, query.cd)
        if self._arrivals:
            self._arrive(request.now)
        item = self._get(key, request.now)
        if item is None:
            self.misses += 1
            answer = self._ask(request)
            return self._keep(answer, key, request)
        self.hits += 1
        left = item.left(request.now)
        if left <= 0:
            return self._stale(item, key, request)
        answer = _again(item, request, item.ttl if options.keep_ttl else left)
        if self._wanted_soon(item, request.now) and request.now >= item.refreshing:
            self._refresh(item, key, request, any_answer=True)
        return answer

    def _stale(self, item: Item, key: Key, request: Request) -> Response | Failure:
        """Answer after the time; ask anew before (`verify`) or behind the client's back."""
        options = self.options
        waited = 0.0
        if request.now >= item.refreshing:
            if not options.verify_stale:
                self._refresh(item, key, request, any_answer=False)
            else:
                fresh = self._ask(request)
                took = fresh.delay
                item.refreshing = request.now + took
                if self._replaces(fresh) and (not options.verify_timeout or took <= options.verify_timeout):
                    return self._keep(fresh, key, request)
                waited = min(took, options.verify_timeout or took)
                self._later(fresh, item, key, request, any_answer=False)
        self.stale += 1
        return replace(_again(item, request, options.stale_ttl), delay=waited)

    def _wanted_soon(self, item: Item, now: float) -> bool:
        """Is the answer popular, and its time nearly over?"""
        options = self.options
        if options.prefetch <= 0:
            return False
        hits = item.count(options.prefetch_duration, now)
        return hits >= options.prefetch and item.left(now) <= ceil(
            options.prefetch_percentage / 100 * item.ttl
        )

    def _ask(self, request: Request) -> Response | Failure:
        """Ask the rest of the chain."""
        # What is kept must serve whoever wants the AD bit later.
        request.ad = True
        return self.pass_on(request)

    def _refresh(self, item: Item, key: Key, request: Request, any_answer: bool) -> None:
        """Ask behind the client's back; one at a time for each answer."""
        self.prefetches += 1
        fresh = self._ask(request)
        item.refreshing = request.now + fresh.delay
        self._later(fresh, item, key, request, any_answer)

    def _replaces(self, answer: Response | Failure) -> bool:
        """May an answer take the place of a stale one (RFC 8767, section 4)?"""
        if isinstance(answer, Failure) or answer.tc or classify(answer) in ("other", "meta"):
            return False
        if self.options.prefer_positive:
            return _kind(answer) == "success" and _answers(answer)
        return answer.rcode in ("NOERROR", "NXDOMAIN")

    def _later(
        self, fresh: Response | Failure, item: Item, key: Key, request: Request, any_answer: bool
    ) -> None:
        """Keep what a refresh brought from the moment it comes."""
        replaces = any_answer or self._replaces(fresh)
        if not replaces and self.options.failure_recheck > 0:
            item.refreshing += self.options.failure_recheck
        if isinstance(fresh, Failure) and (fresh.silent or not any_answer):
            return
        if not replaces and not self.options.prefer_positive:
            return
        answer = reply(request.query, fresh.rcode, delay=fresh.delay) if isinstance(fresh, Failure) else fresh
        kept = self._item(answer, key, request)
        if kept is not None:
            if replaces:
                kept.hits, kept.asked = item.hits, item.asked
            self._arrivals.append(Arrival(kept.stored, key, kept))
            self._arrive(request.now)

    def _arrive(self, now: float) -> None:
        """Put away what refreshes have brought by now."""
        for arrival in [arrival for arrival in self._arrivals if arrival.at <= now]:
            self._put(arrival.key, arrival.item, refresh=True)
        self._arrivals = [arrival for arrival in self._arrivals if arrival.at > now]

    def _keep(self, answer: Response | Failure, key: Key, request: Request) -> Response | Failure:
        """Keep an answer that goes to the client, and give what he gets."""
        if isinstance(answer, Failure):
            if not answer.silent:
                # A failure inside the server is remembered too, or every retry would wait for the upstream.
                failure = reply(request.query, answer.rcode, delay=answer.delay)
                item = self._item(failure, key, request)
                if item is not None:
                    self._put(key, item)
            return answer
        item = self._item(answer, key, request)
        if item is not None:
            self._put(key, item)
        answer = _with_ttl(answer, int(self._ttl(answer)))
        if answer.ad and not request.query.ad and not key[3]:
            answer = replace(answer, ad=False)
        return answer

    def _get(self, key: Key, now: float) -> Item | None:
        stale = self.options.stale_up_to
        found = self.success.get(key)
        if self.options.prefer_positive and found is not None:
            good = found if _answers(found.response) else found.good
            if good is not None and good.left(now) > -stale:
                return good
        if found is not None and found.left(now) <= -stale:
            found = None
        denied = self.denial.get(key)
        if denied is not None and denied.left(now) > -stale:
            # SERVFAIL passes; a good answer does not lose its place to it.
            return found if denied.response.rcode == "SERVFAIL" and found is not None else denied
        return found

    def _ttl(self, answer: Response) -> float:
        """The one TTL of an answer, s."""
        options = self.options
        kind = _kind(answer)
        if kind in ("nxdomain", "nodata"):
            return _clamp(_least(answer, options.denial_ttl), options.denial_min_ttl, options.denial_ttl)
        if kind == "servererror":
            return options.servfail_ttl
        least = _least(answer, options.success_ttl) if kind == "success" else _MIN_TTL
        return _clamp(least, options.success_min_ttl, options.success_ttl)

    def _item(self, answer: Response, key: Key, request: Request) -> Item | None:
        """What is kept of an answer; None where nothing is."""
        options = self.options
        kind = _kind(answer)
        ttl = self._ttl(answer)
        if answer.tc or ttl <= 0 or kind in ("other", "meta") or answer.opcode != "QUERY":
            return None
        if not _has_soa(answer) and (kind == "nxdomain" or (kind == "success" and _misses(answer))):
            return None
        but = options.no_success if kind in _POSITIVE else options.no_denial
        if any(is_subdomain(zone, key[0]) for zone in but):
            return None
        kept = replace(_with_ttl(answer, int(ttl)), edns=None)
        return Item(kept, request.now + answer.delay, int(ttl))

    def _put(self, key: Key, item: Item, refresh: bool = False) -> None:
        options = self.options
        positive = _kind(item.response) in _POSITIVE
        store = self.success if positive else self.denial
        capacity = options.success_capacity if positive else options.denial_capacity
        if len(store) >= capacity and key not in store:
            # Which one goes is random in CoreDNS; the oldest is as good and repeatable.
            del store[next(iter(store))]
        if positive:
            answers = _answers(item.response)
            before = self.success.get(key)
            if options.prefer_positive and not answers and before is not None:
                item.good = before if _answers(before.response) else before.good
            if answers if options.prefer_positive else refresh:
                self.denial.pop(key, None)
        store[key] = item

    @classmethod
    def setup(cls, controller: Controller) -> Cache:
        """Read the stanza. Raises CorefileError."""
        return cls(_parse(controller))


def _kind(answer: Response) -> str:
    """What the cache takes an answer for: a chain of CNAMEs that ends in nothing, with its SOA, is NODATA."""
    kind = classify(answer)
    return "nodata" if kind == "success" and _has_soa(answer) and _misses(answer) else kind


def _has_soa(answer: Response) -> bool:
    return any(record.type == "SOA" for record in answer.authority)


def _misses(answer: Response) -> bool:
    """Are there answers, none of which answers the question?"""
    return bool(answer.answer) and not _answers(answer)


def _answers(answer: Response) -> bool:
    """Does an answer hold what was asked for, at the end of its chain of CNAMEs (RFC 1034, 3.6.2)?"""
    question = answer.question
    if question is None or answer.rcode != "NOERROR":
        return False
    kinds = {(record.name.lower(), record.type) for record in answer.answer}
    name = question.name.lower()
    if question.type == "ANY":
        return any(owner == name for owner, _ in kinds)
    seen: set[str] = set()
    while (name, question.type) not in kinds:
        targets = {
            record.data.lower()
            for record in answer.answer
            if record.type == "CNAME" and record.name.lower() == name
        }
        if len(targets) != 1 or name in seen:
            return False
        seen.add(name)
        name = targets.pop()
    return True


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
                if "prefer_positive" in fields:
                    raise CorefileError("serve_stale_policy can only be specified once")
                if len(words) != 1:
                    raise c.arg_error()
                if words[0].lower() != "prefer_positive":
                    raise CorefileError(f"invalid serve_stale_policy: {words[0]}")
                fields["prefer_positive"] = True
        if "prefer_positive" in fields and "stale_up_to" not in fields:
            raise CorefileError("serve_stale_policy requires serve_stale")
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
    if len(words) > 5:
        raise c.arg_error()
    seconds = duration(words[0]) if words else 3600.0
    if seconds < 0:
        raise CorefileError("invalid negative duration for serve_stale")
    mode = words[1].lower() if len(words) > 1 else "immediate"
    if mode not in ("immediate", "verify"):
        raise CorefileError(f"invalid value for serve_stale refresh mode: {mode}")
    fields: dict[str, object] = {"stale_up_to": seconds, "verify_stale": mode == "verify"}
    more = words[2:]
    if mode == "verify" and more:
        timeout = _named("serve_stale verify timeout", more.pop(0))
        if timeout < 0:
            raise CorefileError("invalid negative timeout for serve_stale verify")
        fields["verify_timeout"] = timeout
    if len(more) > 2:
        raise c.arg_error()
    if more:
        ttl = _named("serve_stale response TTL", more[0])
        if ttl < 0:
            raise CorefileError("invalid negative response TTL for serve_stale")
        if ttl % 1:
            raise CorefileError("serve_stale response TTL must be a whole number of seconds")
        if ttl >= 1 << 32:
            raise CorefileError("serve_stale response TTL exceeds the DNS TTL range")
        fields["stale_ttl"] = int(ttl)
    if len(more) > 1:
        recheck = _named("serve_stale failure recheck", more[1])
        if recheck < 0:
            raise CorefileError("invalid negative failure recheck for serve_stale")
        if recheck > 300:
            raise CorefileError("serve_stale failure recheck cannot exceed 5 minutes")
        fields["failure_recheck"] = recheck
    return fields


def _named(what: str, word: str) -> float:
    try:
        return duration(word)
    except CorefileError as error:
        raise CorefileError(f"invalid {what}: {error}") from None


def _positive(ttl: int) -> int:
    if ttl <= 0:
        raise CorefileError(f"cache TTL can not be zero or negative: {ttl}")
    return ttl
