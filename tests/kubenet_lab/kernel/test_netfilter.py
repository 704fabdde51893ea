"""Rulesets: edits are transactions, what an edit does not touch is shared, counters follow their rules."""

from __future__ import annotations

import pytest

from kubenet_lab.kernel.dialects.iptables import load, rule, save
from kubenet_lab.kernel.netfilter import BUILTIN, HOOKS, Jump, NetfilterError, Rule, Ruleset
from kubenet_lab.kernel.netfilter.matches import Comment, Conntrack, Tcp
from kubenet_lab.kernel.netfilter.targets import Accept, Dnat, Drop


def names(ruleset: Ruleset, table: str) -> list[str]:
    return [chain.name for chain in ruleset.tables[table].in_order()]


def test_a_table_comes_with_its_builtin_chains() -> None:
    for table, builtin in BUILTIN.items():
        ruleset = Ruleset(4).ensure_chain(table, "mine")
        assert names(ruleset, table) == [*builtin, "mine"]
        assert all(table in HOOKS[hook] for hook in builtin)


def test_edits_return_a_new_ruleset_and_share_the_rest() -> None:
    first = Ruleset(4).append("nat", "PREROUTING", Rule(target=Accept())).ensure_chain("filter", "mine")
    second = first.insert("filter", "INPUT", Rule(src="10.0.0.0/8", target=Drop()))
    assert first.rules("filter", "INPUT") == ()
    assert second.rules("filter", "INPUT")[0].src == "10.0.0.0/8"
    assert second.tables["nat"] is first.tables["nat"]
    assert second.tables["filter"].chains["mine"] is first.tables["filter"].chains["mine"]
    assert second.delete("filter", "INPUT", 1) == first


def test_typed_rules_are_what_text_describes() -> None:
    made = Rule(
        dst="10.96.0.100/32",
        proto=6,
        matches=(Comment("default/web cluster IP"), Tcp(dport=(80, 80))),
        target=Jump("KUBE-SVC-X"),
    )
    assert made == rule(
        '-d 10.96.0.100 -p tcp -m comment --comment "default/web cluster IP" --dport 80 -j KUBE-SVC-X'
    )
    assert str(made).startswith("-d 10.96.0.100/32 -p tcp -m comment")
    assert made.comment == "default/web cluster IP"
    six = Rule(proto=6, matches=(Tcp(),), target=Dnat("fd00::5", "fd00::5", (8080, 8080)))
    assert six == rule("-p tcp -m tcp -j DNAT --to-destination [fd00::5]:8080", 6)
    assert Rule(matches=(Conntrack(state=("RELATED", "ESTABLISHED")),)) == rule(
        "-m conntrack --ctstate ESTABLISHED,RELATED"
    )


def test_active_hooks_are_worked_out_once() -> None:
    ruleset = Ruleset(4).ensure_chain("filter", "x").ensure_chain("nat", "y")
    assert not any(ruleset.hooks.values())
    ruleset = ruleset.append("nat", "PREROUTING", Rule(target=Accept())).append("raw", "PREROUTING", Rule())
    assert ruleset.hooks["PREROUTING"] == ("raw", "nat")
    assert ruleset.active("nat", "PREROUTING")
    assert not ruleset.active("filter", "INPUT")
    edit = ruleset.edit()
    edit.set_policy("filter", "FORWARD", "DROP")
    assert edit.commit().hooks["FORWARD"] == ("filter",)


def test_ensure_does_not_repeat_a_rule() -> None:
    jump = Rule(target=Jump("mine"))
    ruleset = Ruleset(4).ensure_chain("filter", "mine").ensure("filter", "INPUT", jump)
    assert ruleset.ensure("filter", "INPUT", jump) is ruleset
    assert ruleset.ensure_chain("filter", "mine") is ruleset
    assert ruleset.has("filter", "INPUT", jump)


def test_counters_follow_their_rules_through_edits() -> None:
    ruleset = load(
        "*filter\n:INPUT ACCEPT [1:2]\n:a - [0:0]\n[3:4] -A INPUT -j a\n"
        "[5:6] -A INPUT -j DROP\n[7:8] -A a\nCOMMIT\n",
        4,
    )
    ruleset = ruleset.insert("filter", "INPUT", Rule(indev="lo", target=Accept()))
    edit = ruleset.edit()
    edit.restore_chain("filter", "a")
    edit.append("filter", "a", Rule(target=Drop()))
    ruleset = edit.commit()
    assert save(ruleset, counters=True).splitlines()[1:] == [
        ":INPUT ACCEPT [1:2]",
        ":FORWARD ACCEPT [0:0]",
        ":OUTPUT ACCEPT [0:0]",
        ":a - [0:0]",
        "[0:0] -A INPUT -i lo -j ACCEPT",
        "[3:4] -A INPUT -j a",
        "[5:6] -A INPUT -j DROP",
        "[0:0] -A a -j DROP",
        "COMMIT",
    ]
    edit = ruleset.edit()
    edit.zero("filter")
    edit.delete("filter", "INPUT", 1)
    assert "[0:0] -A INPUT -j a" in save(edit.commit(), counters=True)
    assert ruleset.count("filter", "INPUT")[2] == [3, 4], "the older ruleset keeps its own"


@pytest.mark.parametrize(
    ("verb", "arguments", "words"),
    [
        ("append", ("filter", "nope", Rule()), "No chain/target/match by that name."),
        ("append", ("filter", "INPUT", Rule(target=Jump("nope"))), "Chain 'nope' does not exist"),
        ("insert", ("filter", "INPUT", Rule(), 3), "Index of insertion too big."),
        ("replace", ("filter", "INPUT", 1, Rule()), "Index of replacement too big."),
        ("delete", ("filter", "INPUT", 1), "Index of deletion too big."),
        ("delete", ("filter", "INPUT", Rule()), "Bad rule (does a matching rule exist in that chain?)."),
        ("check", ("filter", "INPUT", Rule()), "Bad rule (does a matching rule exist in that chain?)."),
        ("new_chain", ("filter", "INPUT"), "Chain already exists."),
        ("new_chain", ("filter", "x" * 29), "too long"),
        ("new_chain", ("filter", "-x"), "not allowed to start with"),
        ("new_chain", ("filter", "DNAT"), "may not clash with target name"),
        ("delete_chain", ("filter", "nope"), "No chain/target/match by that name."),
        ("set_policy", ("filter", "INPUT", "REJECT"), "Bad policy name."),
        ("set_policy", ("filter", "mine", "DROP"), "Bad built-in chain name."),
        ("flush", ("fliter", "INPUT"), "table 'fliter' does not exist"),
    ],
)
def test_edits_the_kernel_refuses(verb: str, arguments: tuple[object, ...], words: str) -> None:
    edit = Ruleset(4).ensure_chain("filter", "mine").edit()
    with pytest.raises(NetfilterError) as caught:
        getattr(edit, verb)(*arguments)
    assert words in str(caught.value)


def test_a_chain_in_use_stays_and_a_loop_is_refused() -> None:
    ruleset = Ruleset(4).ensure_chain("filter", "a").ensure_chain("filter", "b")
    ruleset = ruleset.append("filter", "INPUT", Rule(target=Jump("a"))).append(
        "filter", "a", Rule(target=Jump("b"))
    )
    edit = ruleset.edit()
    edit.delete_chain("filter", "b")
    with pytest.raises(NetfilterError, match="Device or resource busy"):
        edit.commit()
    with pytest.raises(NetfilterError, match="Too many levels"):
        ruleset.append("filter", "b", Rule(target=Jump("a")))
    apart = Ruleset(4).ensure_chain("filter", "a")
    apart = apart.append("filter", "a", Rule(target=Jump("a")))
    with pytest.raises(NetfilterError, match="Too many levels"):
        apart.append("filter", "INPUT", Rule(target=Jump("a")))


def test_renaming_takes_the_jumps_along() -> None:
    ruleset = Ruleset(4).ensure_chain("filter", "a").append("filter", "INPUT", Rule(target=Jump("a")))
    edit = ruleset.edit()
    edit.rename_chain("filter", "a", "z")
    renamed = edit.commit()
    assert renamed.rules("filter", "INPUT") == (Rule(target=Jump("z")),)
    assert "a" not in renamed.tables["filter"].chains
