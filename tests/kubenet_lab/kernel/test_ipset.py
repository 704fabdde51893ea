"""IP sets: elements, look-ups and `ipset save` text, as ipset 7.17 has them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from kubenet_lab.errors import InputError
from kubenet_lab.kernel.dialects import ipset
from kubenet_lab.kernel.ipset import IpSet, IpSetError, port_part

COMMANDS = """\
create a hash:ip
add a 10.0.0.1
add a 10.0.0.8/30
create b hash:net family inet6 timeout 0 counters comment
add b fd00::/64 comment "x y"
create c hash:ip,port
add c 10.0.0.1,tcp:80
add c 10.0.0.1,udp:53
add c 10.0.0.1,icmp:ping
create d hash:ip,port,ip
add d 10.0.0.1,tcp:80,10.0.0.1
create e hash:ip,port,net
add e 10.0.0.1,tcp:80,10.0.0.0/8
create f bitmap:port range 0-65535
add f 30080
create g hash:net,port
add g 10.0.0.0/8,sctp:80
create h hash:net,iface
add h 10.0.0.0/8,eth0
create l hash:ip netmask 24
add l 10.1.2.3
create m hash:net
add m 0.0.0.0/1
add m 10.0.0.0/8 nomatch
add m 1.2.3.4
create k list:set
add k a
"""


@pytest.mark.parametrize(
    ("name", "parts", "found"),
    [
        ("a", ("10.0.0.9",), True),
        ("a", ("10.0.0.12",), False),
        ("b", ("fd00::77",), True),
        ("b", ("fd01::77",), False),
        ("c", ("10.0.0.1", "tcp:80"), True),
        ("c", ("10.0.0.1", "udp:80"), False),
        ("c", ("10.0.0.1", port_part(1, 0, 8, 0)), True),
        ("d", ("10.0.0.1", "tcp:80", "10.0.0.1"), True),
        ("e", ("10.0.0.1", "tcp:80", "10.77.0.1"), True),
        ("e", ("10.0.0.1", "tcp:80", "11.77.0.1"), False),
        ("f", ("udp:30080",), True),
        ("g", ("10.9.9.9", "sctp:80"), True),
        ("h", ("10.9.9.9", "eth1"), False),
        ("l", ("10.1.2.200",), True),
        ("m", ("9.9.9.9",), True),
        ("m", ("10.9.9.9",), False),
    ],
)
def test_lookups(name: str, parts: tuple[str, ...], found: bool) -> None:
    assert (ipset.load(COMMANDS)[name].find(parts) is not None) == found


def test_nomatch_elements_are_found_on_demand() -> None:
    assert ipset.load(COMMANDS)["m"].find(("10.9.9.9",), nomatch=True) == "10.0.0.0/8"


def test_sets_are_values() -> None:
    empty = IpSet("x", "hash:ip")
    one = empty.add("10.0.0.1")
    assert "10.0.0.1" not in empty
    assert "10.0.0.1" in one
    assert one.delete("10.0.0.1") == empty
    assert one.add("10.0.0.1", exist=True) == one


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("add a 10.0.0.1", "it's already added"),
        ("add zz 10.0.0.1", "The set with the given name does not exist"),
        ("add a fd00::1", "cannot parse fd00::1: resolving to IPv4 address failed"),
        ("add a foo", "cannot parse foo"),
        ("del a 10.9.9.9", "it's not added"),
        ("create a hash:ip", "set with the same name already exists"),
        ("create q hash:foo", "typename 'hash:foo' is unknown"),
        ("add c 10.0.0.1", "needs 2 parts"),
        ("frob a", "unknown argument frob"),
        ("add a", "ends too soon"),
    ],
)
def test_refused_commands_name_their_line(line: str, words: str) -> None:
    sets = ipset.load(COMMANDS)
    with pytest.raises(InputError) as caught:
        ipset.restore(sets, f"create other hash:ip\n{line}\n")
    assert words in str(caught.value)
    assert "other" not in sets


def test_a_full_set_says_so() -> None:
    with pytest.raises(IpSetError, match="Hash is full"):
        IpSet("s", "hash:ip", settings=("hashsize", "1024", "maxelem", "1")).add("10.0.0.1").add("10.0.0.2")


@pytest.mark.kernel
def test_the_real_tool_saves_the_same_elements() -> None:
    if shutil.which("ipset") is None or shutil.which("unshare") is None:
        pytest.skip("ipset or unshare is not installed")
    if subprocess.run(["unshare", "-Urnm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make user and network namespaces")
    command = ["unshare", "-Urnm", "sh", "-c", "ipset restore && ipset save"]
    real = subprocess.run(command, input=COMMANDS, capture_output=True, text=True, check=True).stdout
    ours = ipset.load(COMMANDS)
    theirs = ipset.load(real)
    assert {n: sorted(s.entries) for n, s in ours.items()} == {
        n: sorted(s.entries) for n, s in theirs.items()
    }
    assert ipset.save(theirs) == real
