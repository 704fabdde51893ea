"""What the cache gives, keeps and asks for again as time goes on (CoreDNS's plugin/cache)."""

from __future__ import annotations

import pytest

from kubenet_lab.dns.records import Query, Record, Response, reply
from kubenet_lab.dns.server.coredns import CoreDNS
from kubenet_lab.dns.server.corefile import CorefileError
from kubenet_lab.dns.server.view import ServiceView
from tests.kubenet_lab.dns.upstreams import SOA, World, ask


def cached(world: World, *lines: str) -> CoreDNS:
    inside = "".join(f"    {line}\n" for line in lines)
    return world.server("policy sequential", f"cache 30 {{\n{inside}}}")


def ttl(answer: Response) -> int:
    return answer.answer[0].ttl


def test_the_ttl_is_capped_runs_down_and_ends() -> None:
    world = World()
    running = cached(world)
    assert [ttl(ask(running, at)) for at in (0, 1, 29.5, 30, 31)] == [30, 29, 1, 30, 29]
    assert len(world.asked) == 2


def test_keepttl_does_not_age() -> None:
    running = cached(World(), "keepttl")
    assert [ttl(ask(running, at)) for at in (0, 20, 29)] == [30, 30, 30]


def test_a_servfail_is_kept_five_seconds_and_does_not_hide_a_good_answer() -> None:
    world = World()
    running = cached(world)
    world.rcode = "SERVFAIL"
    assert [ask(running, at).rcode for at in (0, 4)] == ["SERVFAIL"] * 2
    assert len(world.asked) == 1
    world.rcode = "NOERROR"
    assert ask(running, 5).rcode == "NOERROR"


def test_prefetch_asks_for_what_is_popular_before_it_ends() -> None:
    world = World()
    running = cached(world, "prefetch 3 10s 20%")
    # The first question fills the cache and does not count; the fourth falls into the last six seconds.
    assert [ttl(ask(running, at)) for at in (0, 8, 16, 25)] == [30, 22, 14, 5]
    assert len(world.asked) == 2
    # The new answer is 30 s old at 55, and was asked for often enough to be fetched again in its last six.
    assert [ttl(ask(running, at)) for at in (34, 43, 50)] == [21, 12, 5]
    assert len(world.asked) == 3


def test_a_pause_ends_popularity() -> None:
    world = World()
    running = cached(world, "prefetch 3 10s 20%")
    for at in (0, 8, 16, 27):
        ask(running, at)
    assert len(world.asked) == 1


def test_a_prefetch_is_asked_for_once_while_it_is_under_way() -> None:
    world = World()
    running = cached(world, "prefetch 1 1m 50%")
    ask(running, 0)
    world.delay = 1.5
    assert [ttl(ask(running, at)) for at in (20, 20.5, 21, 22)] == [10, 10, 9, 30]
    assert len(world.asked) == 2


def test_serve_stale_answers_at_once_with_ttl_0_and_refreshes_behind() -> None:
    world = World()
    running = cached(world, "serve_stale 1h")
    ask(running, 0)
    world.delay = 0.5
    stale = ask(running, 40)
    assert (ttl(stale), stale.delay) == (0, 0.0)
    assert [ttl(ask(running, at)) for at in (40.2, 41)] == [0, 30]
    assert len(world.asked) == 2


def test_serve_stale_outlives_dead_upstreams_for_its_time() -> None:
    world = World()
    running = cached(world, "serve_stale 1m")
    ask(running, 0)
    world.dead = {"10.0.0.1", "10.0.0.2"}
    assert [ask(running, at).rcode for at in (35, 36, 41, 89, 90)] == ["NOERROR"] * 4 + ["SERVFAIL"]


def test_verify_asks_first_and_falls_back() -> None:
    world = World()
    running = cached(world, "serve_stale 1h verify")
    ask(running, 0)
    assert ttl(ask(running, 40)) == 30
    world.rcode = "SERVFAIL"
    assert [(answer.rcode, ttl(answer)) for answer in (ask(running, 71), ask(running, 73))] == [
        ("NOERROR", 0)
    ] * 2
    world.rcode = "NXDOMAIN"
    assert ask(running, 80).rcode == "NXDOMAIN"


def test_verify_waits_no_longer_than_told() -> None:
    world = World()
    running = cached(world, "serve_stale 1h verify 100ms 30s 10s")
    ask(running, 0)
    world.delay = 1.0
    stale = ask(running, 40)
    assert (ttl(stale), stale.delay) == (30, 0.1)
    assert ttl(ask(running, 42)) == 29, "the answer that came late is kept"
    world.rcode = "SERVFAIL"
    asked = len(world.asked)
    assert [ask(running, at).delay for at in (80, 81.5, 90, 91.1)] == [0.1, 0.0, 0.0, 0.1]
    assert len(world.asked) == asked + 2, "ten seconds after a failure nobody is asked"


def test_a_denial_hides_a_stale_answer_unless_the_good_one_is_preferred() -> None:
    for lines, rcodes in (
        (("serve_stale 1h",), ["NOERROR", "NXDOMAIN"]),
        (("serve_stale 1h", "serve_stale_policy prefer_positive"), ["NOERROR", "NOERROR"]),
    ):
        world = World()
        running = cached(world, *lines)
        ask(running, 0)
        world.rcode = "NXDOMAIN"
        assert [ask(running, at).rcode for at in (40, 41)] == rcodes
        world.rcode = "NOERROR"
        # The denial is one of 30 s; it ends, and what is good takes its place for good.
        assert [ask(running, at).rcode for at in (72, 73)][-1] == "NOERROR"


def test_a_chain_that_leads_nowhere_is_not_kept_and_is_nodata_with_its_soa() -> None:
    asked: list[str] = []
    authority: list[Record] = []

    def upstream(query: Query, address: str, protocol: str) -> Response:
        asked.append(query.name)
        alias = Record(query.name, "CNAME", 60, "elsewhere.example.com.")
        return reply(query, answer=(alias,), authority=tuple(authority), ra=True)

    corefile = ".:53 {\n    cache 30\n    forward . 10.0.0.1\n}\n"
    running = CoreDNS(corefile, ServiceView(), upstream, local_ips=("10.244.0.2",))
    for at in (0, 1):
        ask(running, at)
    assert len(asked) == 2
    authority.append(SOA)
    for at in (2, 3):
        ask(running, at)
    assert len(asked) == 3
    assert list(running.plugin("cache").denial) == [("example.com.", "A", "IN", False, False)]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("serve_stale -1s", "invalid negative duration for serve_stale"),
        ("serve_stale 1h soon", "invalid value for serve_stale refresh mode: soon"),
        ("serve_stale 1h verify -1s", "invalid negative timeout for serve_stale verify"),
        ("serve_stale 1h immediate 1500ms", "serve_stale response TTL must be a whole number of seconds"),
        ("serve_stale 1h verify 0 30s 6m", "serve_stale failure recheck cannot exceed 5 minutes"),
        ("serve_stale 1h immediate x", 'invalid serve_stale response TTL: time: invalid duration "x"'),
        ("serve_stale_policy prefer_positive", "serve_stale_policy requires serve_stale"),
        ("serve_stale_policy newest", "invalid serve_stale_policy: newest"),
    ],
)
def test_wrong_options_are_refused(line: str, says: str) -> None:
    with pytest.raises(CorefileError) as error:
        cached(World(), line)
    assert says in str(error.value)
