"""Upstreams that are slow, silent, dead and well again."""

from __future__ import annotations

from kubenet_lab.dns.records import Query, Record, Response, reply
from kubenet_lab.dns.server.coredns import CoreDNS
from kubenet_lab.dns.server.view import ServiceView
from tests.kubenet_lab.dns.answers import query_of, server
from tests.kubenet_lab.dns.upstreams import World, ask
from tests.oracles import open_case


def test_a_silent_upstream_costs_the_recorded_seconds() -> None:
    """Two attempts of two seconds, then, with the server known to be down, one."""
    running = server(open_case("dns", "corefiles")["forward-timeout"], "world-main")
    now = 0.0
    for row in open_case("dns", "answers-forward-timeout")["worlds"]["world-main"]:
        protocol = "tcp" if row["query"].get("tcp") else "udp"
        answer = running.answer(query_of(row), now=now, protocol=protocol)
        assert answer is not None
        assert (answer.rcode, answer.delay) == (
            row["response"]["rcode"],
            row["response"].get("seconds", 0),
        ), row
        # The clock goes on by what the query took; a SERVFAIL stays in the cache for five seconds.
        now += answer.delay


def test_a_dead_upstream_is_passed_over_until_it_lives_again() -> None:
    world = World()
    running = world.server()
    world.dead = {"10.0.0.1"}
    assert ask(running, 0.0).addresses == ("10.0.0.2",)
    assert world.asked == ["10.0.0.1", "10.0.0.2"]
    # Checks at 0, .5 and 1 second fail: it is down.
    world.asked.clear()
    assert ask(running, 2.0).addresses == ("10.0.0.2",)
    assert world.asked == ["10.0.0.2"]
    world.dead = set()
    world.asked.clear()
    assert ask(running, 3.0).addresses == ("10.0.0.1",)
    assert world.asked == ["10.0.0.1"]


def test_a_silent_first_upstream_makes_everybody_wait_once() -> None:
    world = World()
    world.silent = {"10.0.0.1"}
    running = world.server()
    assert ask(running, 0.0).delay == 2.0
    # Failed checks end at 3, 4.5 and 6 seconds.
    assert ask(running, 10.0).delay == 0.0


def test_with_all_down_one_is_tried_and_the_failure_is_logged() -> None:
    world = World()
    world.dead = {"10.0.0.1", "10.0.0.2"}
    running = world.server()
    assert ask(running, 0.0).rcode == "SERVFAIL"
    assert len(world.asked) == 4
    world.asked.clear()
    assert ask(running, 5.0).rcode == "SERVFAIL"
    assert len(world.asked) == 1
    assert running.log[-1].startswith("[ERROR] plugin/errors: 2 example.com. A: read udp 10.244.0.2:")
    assert running.log[-1].endswith(":53: read: connection refused")


def test_round_robin_takes_turns_and_names_outside_the_zone_fail() -> None:
    world = World()
    running = world.server("policy round_robin\n        except internal.example")
    assert {ask(running, 0.0).addresses for _ in range(2)} == {("10.0.0.1",), ("10.0.0.2",)}
    answer = running.answer(Query("x.internal.example."))
    assert answer is not None
    assert answer.rcode == "SERVFAIL"


def test_max_fails_counts_checks_and_0_asks_for_none() -> None:
    for fails, asked in ((1, ["10.0.0.2"]), (5, ["10.0.0.1", "10.0.0.2"]), (0, ["10.0.0.1", "10.0.0.2"])):
        world = World()
        world.dead = {"10.0.0.1"}
        running = world.server(f"policy sequential\n        max_fails {fails}")
        ask(running, 0.0)
        world.asked.clear()
        ask(running, 0.6)
        assert world.asked == asked, f"max_fails {fails}"


def test_health_check_sets_how_often_whom_and_how() -> None:
    questions: list[Query] = []
    world = World()
    world.dead = {"10.0.0.1"}
    running = world.server("policy sequential\n        health_check 10s no_rec domain example.org")

    def upstream(query: Query, address: str, protocol: str) -> Response | None:
        questions.append(query)
        return world.upstream(query, address, protocol)

    running.plugin("forward").upstream = upstream
    ask(running, 0.0)
    world.asked.clear()
    # Checks at 0, 10 and 20 seconds: the third makes it one that is down.
    ask(running, 19.0)
    assert world.asked == ["10.0.0.1", "10.0.0.2"]
    world.asked.clear()
    ask(running, 21.0)
    assert world.asked == ["10.0.0.2"]
    check = next(query for query in questions if query.type == "NS")
    assert (check.name, check.rd) == ("example.org.", False)


def test_read_timeout_and_attempts_bound_the_wait() -> None:
    world = World()
    world.silent = {"10.0.0.1", "10.0.0.2"}
    assert ask(world.server("read_timeout 500ms"), 0.0).delay == 2.0
    assert ask(world.server("read_timeout 500ms\n        max_connect_attempts 1"), 0.0).delay == 0.5
    assert ask(world.server("read_timeout 500ms\n        max_connect_attempts 0"), 0.0).delay == 5.0


def test_more_questions_at_once_than_allowed_are_refused() -> None:
    world = World()
    world.delay = 0.2
    running = world.server("max_concurrent 2")
    assert [ask(running, at).rcode for at in (0.0, 0.1, 0.15, 0.21)] == [
        "NOERROR",
        "NOERROR",
        "REFUSED",
        "NOERROR",
    ]
    assert "concurrent queries exceeded maximum 2" in running.log[-1]


def test_failfast_asks_nobody_when_all_are_down() -> None:
    world = World()
    world.dead = {"10.0.0.1", "10.0.0.2"}
    running = world.server("failfast_all_unhealthy_upstreams")
    ask(running, 0.0)
    world.asked.clear()
    assert ask(running, 5.0).rcode == "SERVFAIL"
    assert world.asked == []
    assert running.log[-1].endswith("no healthy proxies")


def test_failover_goes_on_after_an_rcode_and_next_to_the_next_forward() -> None:
    def upstream(query: Query, address: str, protocol: str) -> Response:
        host = address.rsplit(":", 1)[0]
        if host == "10.0.0.1":
            return reply(query, "SERVFAIL")
        if host == "10.0.0.3":
            return reply(query)
        return reply(query, answer=(Record(query.name, "A", 60, host),))

    def asked(*blocks: str) -> Response:
        corefile = ".:53 {\n" + "".join(f"    forward . {block}\n" for block in blocks) + "}\n"
        return ask(CoreDNS(corefile, ServiceView(), upstream, local_ips=("10.244.0.2",)), 0.0)

    policy = "        policy sequential\n"
    assert asked(f"10.0.0.1 10.0.0.2 {{\n{policy}    }}").rcode == "SERVFAIL"
    assert asked(f"10.0.0.1 10.0.0.2 {{\n{policy}        failover servfail\n    }}").addresses == (
        "10.0.0.2",
    )
    assert asked("10.0.0.1 {\n        next SERVFAIL\n    }", "10.0.0.2").addresses == ("10.0.0.2",)
    assert asked("10.0.0.3", "10.0.0.2").addresses == ()
    assert asked("10.0.0.3 {\n        next_on_nodata\n    }", "10.0.0.2").addresses == ("10.0.0.2",)


def test_the_transport_is_the_client_s_unless_an_option_says_otherwise() -> None:
    for options, protocol, used in (
        ("policy sequential", "udp", "udp"),
        ("policy sequential", "tcp", "tcp"),
        ("force_tcp", "udp", "tcp"),
        ("prefer_udp", "tcp", "udp"),
    ):
        world = World()
        running = world.server(options)
        running.answer(Query("example.com."), protocol=protocol)
        assert world.protocols == [used], options
