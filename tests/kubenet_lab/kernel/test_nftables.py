"""Transactions on nftables: what the kernel refuses, what stays when they fail, and what packets have left."""

from __future__ import annotations

import json

import pytest

from kubenet_lab.errors import InputError
from kubenet_lab.kernel.dialects import nft
from kubenet_lab.kernel.dump import dump, load
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.nftables import Chain, NftError, Rule, Ruleset
from kubenet_lab.kernel.nftables.expressions import Verdict
from kubenet_lab.kernel.nftables.statements import VerdictStatement

BASE = """table ip t {
	set s {
		type ipv4_addr
		elements = { 10.0.0.1 }
	}

	map m {
		type inet_service : verdict
		elements = { 80 : jump a }
	}

	chain a {
		accept
	}

	chain b {
		ip saddr @s jump a
		tcp dport vmap @m
	}
}
"""


@pytest.mark.parametrize(
    ("command", "errno"),
    [
        ("delete chain ip t a", "Device or resource busy"),
        ("delete set ip t s", "Device or resource busy"),
        ("delete map ip t m", "Device or resource busy"),
        ("delete chain ip t c", "No such file or directory"),
        ("delete table ip u", "No such file or directory"),
        ("create table ip t", "File exists"),
        ("create chain ip t a", "File exists"),
        ("create element ip t s { 10.0.0.1 }", "File exists"),
        ("add element ip t m { 80 : drop }", "File exists"),
        ("delete element ip t s { 10.0.0.9 }", "No such file or directory"),
        ("add set ip t s { type inet_service ; }", "File exists"),
        ("add rule ip t a jump b", "Too many levels of symbolic links"),
        ("add rule ip t a goto a", "Too many levels of symbolic links"),
        ("delete rule ip t a handle 99", "No such file or directory"),
        ("add rule ip t a jump nowhere", "No such file or directory"),
        ("add rule ip t a ip saddr @nowhere", "No such file or directory"),
        (
            "add chain ip t x { type filter hook input priority 0 ; }\nadd rule ip t a jump x",
            "Operation not supported",
        ),
    ],
)
def test_what_the_kernel_refuses_leaves_everything_as_it_was(command: str, errno: str) -> None:
    ruleset = nft.load(BASE)
    with pytest.raises(InputError, match=errno):
        nft.apply(ruleset, f"add chain ip t new\n{command}\nadd chain ip t newer")
    assert nft.list_ruleset(ruleset) == BASE


def test_what_is_no_longer_used_can_go() -> None:
    ruleset = nft.apply(
        nft.load(BASE), "flush chain ip t b\ndelete map ip t m\ndelete set ip t s\ndelete chain ip t a"
    )
    assert nft.list_ruleset(ruleset) == "table ip t {\n\tchain b {\n\t}\n}\n"


def test_destroy_takes_what_is_there_and_minds_not_what_is_not() -> None:
    ruleset = nft.apply(nft.load(BASE), "destroy table ip none\ndestroy chain ip t none\ndestroy table ip t")
    assert not ruleset


def test_rules_by_handle_and_index() -> None:
    ruleset = nft.load("table ip t {\n\tchain c {\n\t\tip ttl 1\n\t\tip ttl 2\n\t}\n}\n")
    first = ruleset.chain("ip", "t", "c").rules[0].handle
    ruleset = nft.apply(
        ruleset,
        f"insert rule ip t c ip ttl 0\nadd rule ip t c handle {first} ip ttl 11\n"
        f"insert rule ip t c index 1 ip ttl 10\nreplace rule ip t c handle {first} ip ttl 9",
    )
    assert [str(rule) for rule in ruleset.chain("ip", "t", "c").rules] == [
        "ip ttl 0", "ip ttl 10", "ip ttl 9", "ip ttl 11", "ip ttl 2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("added", "ok"),
    [("10.0.0.0/9", False), ("10.255.255.255-11.0.0.1", False), ("11.0.0.0/8", True), ("10.0.0.0/8", True)],
)
def test_intervals_do_not_overlap(added: str, ok: bool) -> None:
    ruleset = nft.load(
        "add table ip t\nadd set ip t s { type ipv4_addr ; flags interval ; elements = { 10.0.0.0/8 } ; }"
    )
    if ok:
        nft.apply(ruleset, f"add element ip t s {{ {added} }}")
        return
    with pytest.raises(InputError, match="File exists"):
        nft.apply(ruleset, f"add element ip t s {{ {added} }}")


def test_auto_merge_joins_what_touches() -> None:
    ruleset = nft.load("add table ip t\nadd set ip t s { type inet_service ; flags interval ; auto-merge ; }")
    for ports in ("80", "81-90", "85-100", "200"):
        ruleset = nft.apply(ruleset, f"add element ip t s {{ {ports} }}")
    assert "elements = { 80-100, 200 }" in nft.list_ruleset(ruleset)


def test_a_full_set_takes_no_more() -> None:
    with pytest.raises(InputError, match="Too many open files"):
        nft.load(
            "add table ip t\nadd set ip t s { type ipv4_addr ; size 1 ; elements = { 1.1.1.1, 2.2.2.2 } ; }"
        )


def test_a_dormant_table_wakes_up_when_it_is_added_without_its_flag() -> None:
    """As nft 1.0.6 does: it sends a table's flags with every `add table`."""
    asleep = nft.load("table ip t { flags dormant; }")
    assert asleep.tables["ip", "t"].dormant
    assert nft.apply(asleep, "add table ip t { flags dormant; }").tables["ip", "t"].dormant
    assert nft.apply(asleep, "add chain ip t c").tables["ip", "t"].dormant
    assert not nft.apply(asleep, "add table ip t").tables["ip", "t"].dormant
    assert not nft.apply(asleep, "table ip t { chain c { } }").tables["ip", "t"].dormant


def test_an_edit_is_a_value_until_it_is_committed() -> None:
    before = Ruleset()
    edit = before.edit()
    edit.add_table("ip", "t")
    edit.add_chain("ip", "t", Chain("c"))
    made = edit.add_rule("ip", "t", "c", Rule((VerdictStatement(Verdict("drop")),)))
    assert made.handle == 2
    assert not before
    after = edit.commit()
    assert nft.list_ruleset(after) == "table ip t {\n\tchain c {\n\t\tdrop\n\t}\n}\n"
    with pytest.raises(NftError):
        before.chain("ip", "t", "c")


def test_timeouts_run_from_when_elements_came() -> None:
    ruleset = nft.apply(
        Ruleset(),
        "add table ip t\nadd set ip t s { type ipv4_addr ; timeout 1m ; elements = { 1.1.1.1 } ; }",
        now=100.0,
    )
    assert "1.1.1.1 expires 40s" in nft.list_ruleset(ruleset, now=120.0)
    assert "elements" not in nft.list_ruleset(ruleset, now=161.0)


def test_a_namespace_dumps_and_loads_its_tables() -> None:
    network = Network()
    ns = network.add_netns("node-1", "node-1")
    assert "nftables" not in json.dumps(dump(network))
    ns.set_nftables(nft.load(BASE))
    document = json.loads(json.dumps(dump(network)))
    again = load(document)
    assert dump(again) == document
    assert nft.list_ruleset(again.ns("node-1").nftables) == BASE


def test_deferred_rules_are_built_by_the_first_look() -> None:
    network = Network()
    ns = network.add_netns("node-1", "node-1")
    built = []

    def build() -> Ruleset:
        built.append(1)
        return nft.load(BASE)

    ns.defer_nftables(build)
    assert ns.has_nftables
    assert not built
    assert nft.list_ruleset(ns.nftables) == BASE
    assert ns.nftables is ns.nftables
    assert built == [1]
