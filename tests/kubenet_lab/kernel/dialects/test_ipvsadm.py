"""ipvsadm's text: lists in its columns and order, and what -S printed reads back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubenet_lab.errors import InputError
from kubenet_lab.kernel.dialects import ipvsadm
from kubenet_lab.kernel.ipvs import SCHEDULER_FLAGS, SCHEDULERS, Conn, IpvsTable, RealServer, VirtualServer
from kubenet_lab.packet.packet import SCTP, TCP, UDP

SAVED = """\
-A -t 172.18.0.2:30080 -s rr
-a -t 172.18.0.2:30080 -r 10.244.0.5:8080 -m -w 1
-A -t 10.96.0.1:443 -s rr -p 10800
-a -t 10.96.0.1:443 -r 172.18.0.2:6443 -m -w 1
-A -t 10.96.0.10:9153 -s mh -b mh-port
-A -u 10.96.0.10:53 -s rr -p 60 -M 255.255.255.0 -o
-a -u 10.96.0.10:53 -r 10.244.0.3:53 -m -w 0
-A --sctp-service 10.96.0.20:9000 -s wlc
-a --sctp-service 10.96.0.20:9000 -r 10.244.0.7:9000 -g -w 5 -x 10 -y 2
-A -t [fd00:10:96::1]:443 -s rr
-a -t [fd00:10:96::1]:443 -r [fd00::2]:6443 -m -w 1
-A -f 7 -s sh -b sh-fallback,sh-port
-A -f 9 -6 -s rr -p 30 -M 64
"""

LISTED = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  172.18.0.2:30080 rr
  -> 10.244.0.5:8080              Masq    1      0          1         
TCP  10.96.0.1:443 rr persistent 10800
  -> 172.18.0.2:6443              Masq    1      0          0         
TCP  10.96.0.10:9153 mh (mh-port)
UDP  10.96.0.10:53 rr persistent 60 mask 255.255.255.0 ops
  -> 10.244.0.3:53                Masq    0      0          0         
SCTP 10.96.0.20:9000 wlc
  -> 10.244.0.7:9000              Route   5      0          0         
TCP  [fd00:10:96::1]:443 rr
  -> [fd00::2]:6443               Masq    1      0          0         
FWM  7 sh (sh-fallback,sh-port)
FWM  9 IPv6 rr persistent 30 mask 64
"""  # noqa: W291 - ipvsadm pads its last column


def test_a_saved_table_reads_back() -> None:
    table = ipvsadm.load(SAVED)
    assert ipvsadm.save(table) == SAVED
    assert ipvsadm.load(ipvsadm.save(table)) == table


def test_the_list() -> None:
    """10.96.0.1 comes after 172.18.0.2: ipvsadm takes the difference of two addresses for an int."""
    table = ipvsadm.load(SAVED)
    conn = Conn(
        protocol=TCP,
        client=("192.0.2.1", 4000),
        virtual=("172.18.0.2", 30080),
        real=("10.244.0.5", 8080),
        service=(TCP, "172.18.0.2", 30080),
    )
    table.connect(conn, 0.0)
    assert ipvsadm.listing(table, 0.0) == LISTED
    one = ipvsadm.listing(table, 0.0, only=table.services[TCP, "10.96.0.1", 443])
    assert one.splitlines()[-1].split() == ["->", "172.18.0.2:6443", "Masq", "1", "0", "0"]
    assert "version" not in one


def test_the_connections() -> None:
    table = ipvsadm.load(SAVED)
    key = (TCP, "172.18.0.2", 30080)
    conn = Conn(
        protocol=TCP, client=("192.0.2.1", 4000), virtual=key[1:], real=("10.244.0.5", 8080), service=key
    )
    table.advance(table.connect(conn, 0.0), 2, 60, 0.0)
    assert ipvsadm.connections(table, 5.0).splitlines() == [
        "IPVS connection entries",
        "pro expire state       source             virtual            destination",
        "TCP 00:55  SYN_RECV    192.0.2.1:4000     172.18.0.2:30080   10.244.0.5:8080",
    ]
    assert len(ipvsadm.connections(table, 61.0).splitlines()) == 2


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-A -t 10.96.0.1:443 -s best", "Scheduler"),
        ("-A -t 10.96.0.1:99999 -s rr", "illegal virtual server"),
        ("-A -t web:80 -s rr", "illegal virtual server"),
        ("-a -t 10.96.0.1:443 -r 10.0.0.1:1 -m", "No such service"),
        ("-A -s rr", "You need to supply"),
        ("-A -t 10.96.0.1:443 -D", "multiple commands"),
        ("-A -t 10.96.0.1:443 -q", "unknown option"),
        ("-A -t 10.96.0.1:443 -s rr -b mh-port", "scheduler flags"),
        ("-A -t 10.96.0.1:443 -p 60 -M 255.0.255.0", "illegal netmask"),
        ("-t 10.96.0.1:443", "No command"),
        ("-A -t", "missing argument"),
    ],
)
def test_refusals(line: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ipvsadm.load(line + "\n")


def test_every_fault_is_told_and_nothing_changes() -> None:
    table = ipvsadm.load(SAVED)
    with pytest.raises(InputError) as caught:
        ipvsadm.restore(table, "-D -t 10.96.0.1:443\n-D -t 1.2.3.4:5\n-X\n")
    assert [fault.line for fault in caught.value.faults] == [2, 3]
    assert ipvsadm.save(table) == SAVED


servers = st.builds(
    RealServer,
    address=st.sampled_from(["10.0.0.1", "10.0.0.2", "200.1.1.1"]),
    port=st.integers(1, 65535),
    weight=st.integers(0, 65535),
    upper=st.integers(0, 5),
    lower=st.integers(0, 5),
)


@st.composite
def tables(draw: st.DrawFn) -> IpvsTable:
    table = IpvsTable()
    for number in range(draw(st.integers(0, 6))):
        scheduler = draw(st.sampled_from(SCHEDULERS))
        flags = draw(st.sampled_from([0, 4, *SCHEDULER_FLAGS.get(scheduler, {}).values()]))
        virtual = VirtualServer(
            draw(st.sampled_from([TCP, UDP, SCTP])),
            draw(st.sampled_from(["10.96.0.1", "192.168.1.1", "fd00::1", "8000::1"])),
            1000 + number,
            scheduler,
            draw(st.sampled_from([0, 60, 10800])),
            flags=flags,
        )
        table.add_service(virtual)
        for real in draw(st.lists(servers, max_size=3, unique_by=lambda one: one.server)):
            table.add_server(virtual.key, real)
    return table


@given(tables())
@settings(max_examples=60, deadline=None)
def test_any_table_reads_back(table: IpvsTable) -> None:
    assert ipvsadm.load(ipvsadm.save(table)) == table
