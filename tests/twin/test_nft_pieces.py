"""A ruleset that is more than nft's netlink buffer takes at once: the twin hands it over in pieces."""

from __future__ import annotations

from kubenet_lab.kernel.dialects import nft
from kubenet_lab.scenarios.planes import alone
from kubenet_lab.twin import Twin
from kubenet_lab.twin.agent import commands
from tests.twin.lab import lab

EVERYTHING = """
table ip sleeping {
	comment "not now"
	flags dormant
	chain c {
		type filter hook input priority filter; policy accept;
		tcp dport 1 drop
	}
}
table inet t {
	comment "all that has a name"
	counter seen {
		comment "elements = { 1 }"
		packets 0 bytes 0
	}
	limit slow {
		rate 10/second
	}
	set ports {
		type inet_service
		elements = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 }
	}
	set blocks {
		type ipv4_addr
		flags interval
		comment "a, b"
		elements = { 10.0.0.0/8 comment "a, b", 172.16.0.0/12, 192.168.0.0/16 }
	}
	set met {
		type ipv4_addr
		size 65535
		flags dynamic
	}
	map where {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.0.0.1 . tcp . 80 : goto last, 10.0.0.2 . tcp . 80 : jump middle }
	}
	map counters {
		type inet_service : counter
		elements = { 80 : "seen" }
	}
	chain first {
		comment "type filter"
		type filter hook prerouting priority filter - 5; policy accept;
		ip daddr . meta l4proto . th dport vmap @where
		tcp dport @ports ip saddr != { 10.0.0.1, 10.0.0.2 } jump middle comment "add rule"
		ip saddr @blocks counter name tcp dport map @counters
	}
	chain middle {
		add @met { ip saddr } limit name "slow" goto last
		numgen random mod 2 vmap { 0 : accept, 1 : goto last }
	}
	chain last {
		counter packets 0 bytes 0
		drop
	}
}
table netdev n {
	chain c {
		type filter hook ingress device "in0" priority filter; policy accept;
		meta protocol ip ip saddr 10.9.0.0/16 drop
	}
}
"""


def test_commands_make_the_same_ruleset() -> None:
    text = nft.list_ruleset(nft.load(EVERYTHING))
    split = commands(text)
    assert sum(one.startswith("add rule") for one in split) == 9
    assert sum(one.startswith("add element") for one in split) == 8
    assert nft.list_ruleset(nft.load("\n".join(split))) == text


def test_another_form_is_not_split() -> None:
    assert commands("flush ruleset\n" + EVERYTHING) == []
    assert commands("add table ip t\nadd chain ip t c\n") == []


def test_kernel_makes_the_same_of_one_command_after_the_other(kernel: None) -> None:
    """Compared as text: nft's JSON says something at random of a dormant table."""
    text = nft.list_ruleset(nft.load(EVERYTHING))
    with Twin(lab()) as twin:
        for one in commands(text):
            (done,) = twin.exec([("router", ["nft", "-f", "-"], one)])
            assert (done.exit_code, done.stderr) == (0, ""), one
        (done,) = twin.exec([("router", ["nft", "list", "ruleset"], "")])
        assert done.stdout == text


def test_hundreds_of_services_load(kernel: None) -> None:
    with Twin(alone("nftables", 400)) as twin:
        assert twin.missing == []
        assert twin.differences() == []
