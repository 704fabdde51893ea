"""Upstreams that are slow, silent, dead and well again."""

from __future__ import annotations

from kubenet_lab.dns.records import Query, Record, Response, reply
from kubenet_lab.dns.server.coredns import CoreDNS
from kubenet_lab.dns.server.view import ServiceView
from tests.kubenet_lab.dns.answers import query_of, server
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


class World:
    """Two upstreams that can be switched off and on."""

    def __init__(self) -> None:
        self.dead: set[str] = set()
        self.silent: set[str] = set()
        self.asked: list[str] = []

    def upstream(self, query: Query, address: str, protocol: str) -> Response | None:
        host = address.rsplit(":", 1)[0]
        if query.name != ".":
            self.asked.append(host)
        if host in self.dead:
            raise ConnectionRefusedError
        if host in self.silent:
            return None
        return reply(query, answer=(Record(query.name, "A", 60, host),), ra=True)

    def server(self, options: str = "policy sequential") -> CoreDNS:
        corefile = f".:53 {{\n    errors\n    forward . 10.0.0.1 10.0.0.2 {{\n        {options}\n    }}\n}}\n"
        return CoreDNS(corefile, ServiceView(), self.upstream, local_ips=("10.244.0.2",))


def ask(running: CoreDNS, now: float) -> Response:
    answer = running.answer(Query("example.com."), now=now)
    assert answer is not None
    return answer


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
