"""IPVS's table: edits and their refusals, schedulers, connections, templates and their time-outs."""

from __future__ import annotations

from collections import Counter

import pytest

from kubenet_lab.errors import InputError
from kubenet_lab.kernel.dialects.iptables import rule
from kubenet_lab.kernel.ipvs import (
    MAGLEV_SIZE,
    SCHED_1,
    SCHED_2,
    SCHEDULERS,
    Conn,
    IpvsError,
    IpvsTable,
    RealServer,
    VirtualServer,
)
from kubenet_lab.packet.packet import ACK, FIN, RST, SYN, TCP, UDP

VIP = "10.96.0.100"
KEY = (TCP, VIP, 80)


def table_of(scheduler: str, *weights: int, flags: int = 0, persistent: int = 0) -> IpvsTable:
    """A virtual server with real servers 10.244.0.1, .2, ... of these weights; the first is the kernel's first."""
    table = IpvsTable()
    table.add_service(VirtualServer(TCP, VIP, 80, scheduler, persistent, flags=flags))
    for number, weight in reversed([*enumerate(weights, 1)]):
        table.add_server(KEY, RealServer(f"10.244.0.{number}", 8080, weight))
    return table


def pick(table: IpvsTable, client: str = "10.244.9.9", port: int = 1000, to: str = VIP) -> int:
    """Number of the real server that is picked; 0 for none."""
    real = table.schedule(KEY, (client, port), to, 0.0)
    return int(real.address.rpartition(".")[2]) if real else 0


def conn(server: int, port: int = 1000, **fields: object) -> Conn:
    """A connection to a real server by number."""
    return Conn(
        protocol=TCP,
        client=("10.244.9.9", port),
        virtual=(VIP, 80),
        real=(f"10.244.0.{server}", 8080),
        service=KEY,
        **fields,  # type: ignore[arg-type]
    )


def active(table: IpvsTable, server: int, count: int) -> None:
    """Give a real server so many active connections."""
    for number in range(count):
        table.advance(table.connect(conn(server, 2000 + 100 * server + number), 0.0), SYN, 60, 0.0)


@pytest.mark.parametrize(
    ("scheduler", "weights", "picked"),
    [
        ("rr", (1, 1, 1), [1, 2, 3, 1, 2, 3]),
        ("rr", (1, 0, 1), [1, 3, 1, 3]),
        ("rr", (0, 0), [0, 0]),
        # ipvsadm(8): of weights 4, 3 and 2 the order is AABABCABC.
        ("wrr", (4, 3, 2), [1, 1, 2, 1, 2, 3, 1, 2, 3, 1, 1, 2]),
        ("wrr", (2, 2), [1, 2, 1, 2]),
        ("wrr", (0, 5), [2, 2]),
        ("wrr", (0, 0), [0]),
        ("fo", (1, 3, 2), [2, 2]),
        ("ovf", (1, 3, 2), [2, 2]),
        ("lc", (1, 1), [1, 1]),
    ],
)
def test_turns(scheduler: str, weights: tuple[int, ...], picked: list[int]) -> None:
    table = table_of(scheduler, *weights)
    assert [pick(table) for _ in picked] == picked


@pytest.mark.parametrize(
    ("scheduler", "weights", "busy", "picked"),
    [
        ("lc", (1, 1, 1), (2, 1, 3), 2),
        ("lc", (9, 1), (2, 1), 2),
        ("wlc", (9, 1), (2, 1), 1),
        ("wlc", (1, 1), (0, 0), 1),
        ("sed", (1, 3), (0, 1), 2),
        ("nq", (1, 9), (0, 1), 1),
        ("nq", (1, 9), (1, 1), 2),
        ("ovf", (1, 2), (0, 2), 1),
        ("ovf", (1, 2), (1, 2), 0),
        ("fo", (1, 2), (0, 9), 2),
    ],
)
def test_load(scheduler: str, weights: tuple[int, ...], busy: tuple[int, ...], picked: int) -> None:
    table = table_of(scheduler, *weights)
    for number, count in enumerate(busy, 1):
        active(table, number, count)
    assert pick(table) == picked


@pytest.mark.parametrize("scheduler", ["sh", "mh", "dh"])
def test_hashing_keeps_a_client_and_spreads_many(scheduler: str) -> None:
    table = table_of(scheduler, 1, 1, 1)
    clients = [f"10.244.{n // 250}.{n % 250 + 1}" for n in range(900)]
    vips = clients if scheduler == "dh" else [VIP] * 900
    found = [pick(table, client, to=to) for client, to in zip(clients, vips, strict=True)]
    assert found == [pick(table, client, 7, to=to) for client, to in zip(clients, vips, strict=True)]
    assert min(Counter(found).values()) > 200


def test_a_port_counts_only_with_its_flag() -> None:
    for scheduler in ("sh", "mh"):
        assert len({pick(table_of(scheduler, 1, 1, 1), port=n) for n in range(50)}) == 1
        assert len({pick(table_of(scheduler, 1, 1, 1, flags=SCHED_2), port=n) for n in range(50)}) == 3


def test_a_dead_bucket_answers_only_with_fallback() -> None:
    for scheduler in ("sh", "mh"):
        for flags, wanted in ((0, 0), (SCHED_1, 3)):
            table = table_of(scheduler, 1, 1, 1, flags=flags)
            dead = pick(table)
            for number in {1, 2, 3} - {3 if dead != 3 else 1}:
                # An overloaded one keeps its places in the table, unlike one without weight.
                table.edit_server(KEY, RealServer(f"10.244.0.{number}", 8080, 1, upper=1))
                active(table, number, 1)
            left = 3 if dead != 3 else 1
            assert pick(table) == (left if wanted else 0)


def test_maglev_is_even_and_moves_little() -> None:
    table = table_of("mh", 1, 1, 1, 1)
    pick(table)
    before = table.memory[KEY]
    assert isinstance(before, list)
    assert len(before) == MAGLEV_SIZE
    counts = Counter(before).values()
    assert max(counts) - min(counts) <= 1
    table.delete_server(KEY, ("10.244.0.4", 8080))
    pick(table)
    after = table.memory[KEY]
    assert isinstance(after, list)
    moved = sum(a != b for a, b in zip(before, after, strict=True) if a != ("10.244.0.4", 8080))
    assert moved < MAGLEV_SIZE // 4


def test_locality_keeps_an_address_until_its_server_is_crowded() -> None:
    for scheduler in ("lblc", "lblcr"):
        table = table_of(scheduler, 1, 1)
        first = pick(table, to="198.51.100.1")
        assert {pick(table, to="198.51.100.1") for _ in range(5)} == {first}
        active(table, first, 2)
        assert pick(table, to="198.51.100.1") == 3 - first


def test_a_deleted_server_leaves_round_robin_where_it_was() -> None:
    table = table_of("rr", 1, 1, 1)
    assert [pick(table), pick(table)] == [1, 2]
    table.delete_server(KEY, ("10.244.0.2", 8080))
    assert [pick(table), pick(table)] == [3, 1]


def test_every_scheduler_is_there() -> None:
    for scheduler in SCHEDULERS:
        assert pick(table_of(scheduler, 1)) == 1, scheduler


def test_thresholds() -> None:
    table = table_of("rr", 1, 1)
    table.edit_server(KEY, RealServer("10.244.0.1", 8080, upper=2))
    active(table, 1, 2)
    assert [pick(table) for _ in range(3)] == [2, 2, 2]


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.add_service(VirtualServer(TCP, VIP, 80)), "Service already exists"),
        (lambda t: t.delete_service((TCP, VIP, 81)), "No such service"),
        (lambda t: t.add_server(KEY, RealServer("10.244.0.1", 8080)), "Destination already exists"),
        (lambda t: t.delete_server(KEY, ("10.244.0.9", 8080)), "No such destination"),
        (lambda t: t.add_service(VirtualServer(TCP, VIP, 81, "best")), "Scheduler"),
        (lambda t: t.add_service(VirtualServer(1, VIP, 81)), "Protocol"),
        (lambda t: t.add_service(VirtualServer(TCP, VIP, 0)), "Zero port"),
    ],
)
def test_refusals(edit: object, words: str) -> None:
    table = table_of("rr", 1)
    before = table.copy()
    with pytest.raises(IpvsError, match=words):
        edit(table)  # type: ignore[operator]
    assert table == before


def test_states_of_a_connection() -> None:
    table = table_of("rr", 1)
    one = table.connect(conn(1), 0.0)
    seen = []
    for flags, answer in (
        (SYN, False),
        (SYN | ACK, True),
        (ACK, False),
        (FIN | ACK, False),
        (FIN | ACK, True),
        (ACK, False),
    ):
        table.advance(one, flags, 40, 10.0, answer=answer)
        seen.append((one.state, table.connections(KEY, one.real)[:2]))
    assert seen == [
        ("SYN_RECV", (1, 0)),
        ("SYN_RECV", (1, 0)),
        ("ESTABLISHED", (1, 0)),
        ("CLOSE_WAIT", (0, 1)),
        ("TIME_WAIT", (0, 1)),
        ("TIME_WAIT", (0, 1)),
    ]
    assert one.expires == 10.0 + 120
    table.advance(one, RST, 40, 10.0)
    assert (one.state, one.expires) == ("CLOSE", 20.0)
    assert table.expire(19.9) == 0
    assert table.expire(20.0) == 1
    assert table.connections(KEY, one.real) == (0, 0, 0)


def test_timeouts_can_be_set() -> None:
    table = table_of("rr", 1)
    table.set_timeouts(tcp=60, udp=10)
    one = table.connect(conn(1), 0.0)
    table.advance(one, SYN, 60, 0.0)
    table.advance(one, ACK, 40, 0.0)
    assert (one.state, one.expires) == ("ESTABLISHED", 60.0)
    assert (table.timeouts.tcp_fin, table.timeouts.udp) == (120, 10)


def test_a_template_outlives_its_connections() -> None:
    table = table_of("rr", 1, persistent=50)
    template = table.connect(conn(1, 0, template=True), 0.0)
    one = table.connect(conn(1, control=template), 0.0)
    table.advance(one, SYN, 60, 0.0)
    table.advance(one, ACK, 40, 0.0)
    assert template.shown_state == "ASSURED"
    assert table.connections(KEY, one.real) == (1, 0, 1)
    assert table.template(template.incoming, 60.0) is template, "its connection lives"
    table.forget(one)
    assert table.template(template.incoming, 200.0) is None
    assert table.connections(KEY, one.real) == (0, 0, 0)


def test_a_copy_is_independent() -> None:
    table = table_of("rr", 1, 1)
    pick(table)
    template = table.connect(conn(1, 0, template=True), 0.0)
    one = table.connect(conn(1, control=template), 0.0)
    twin = table.copy()
    assert twin == table
    other = twin.client_conn(one.incoming, 0.0)
    assert other is not None
    assert other is not one
    assert other.control is twin.template(template.incoming, 0.0) is not template
    twin.delete_service(KEY)
    assert pick(table) == 2
    assert table.available(one) is not None


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("--ipvs", "--ipvs"),
        ("! --ipvs", "! --ipvs"),
        ("--vproto tcp", "--vproto 6"),
        ("! --vproto TCP", "! --vproto 6"),
        ("--vproto 23", "--vproto 23"),
        ("--vaddr 1.2.3.4", "--vaddr 1.2.3.4"),
        ("--vaddr 1.2.3.4/255.255.255.0", "--vaddr 1.2.3.4/24"),
        ("--vport 80 --vdir original --vmethod masq", "--vport 80 --vdir ORIGINAL --vmethod MASQ"),
        ("! --vportctl 21", "! --vportctl 21"),
        ("--vport 0", None),
        ("--vaddr fd00::1", None),
        ("--vdir sideways", None),
        ("", None),
    ],
)
def test_the_match_as_iptables_prints_it(written: str, printed: str | None) -> None:
    """The forms of iptables' own tests (extensions/libxt_ipvs.t)."""
    if printed is None:
        with pytest.raises(InputError):
            rule(f"-m ipvs {written} -j ACCEPT", 4)
        return
    assert rule(f"-m ipvs {written} -j ACCEPT", 4).text(4).strip() == f"-m ipvs {printed} -j ACCEPT"


def test_finding_by_mark_port_and_any_port() -> None:
    table = table_of("rr", 1)
    every = VirtualServer(UDP, VIP, 0, persistent=10)
    marked = VirtualServer(0, "", 0, fwmark=7)
    table.add_service(every)
    table.add_service(marked)
    assert table.find(UDP, VIP, 5353) is every
    assert table.find(TCP, VIP, 80, mark=7) is marked
    assert table.find(TCP, VIP, 80, mark=8) is table.services[KEY]
    assert table.find(TCP, VIP, 81) is None
    table.delete_service(marked.key)
    assert table.find(TCP, VIP, 80, mark=7) is table.services[KEY]
