"""`nft -j` against what nft 1.0.6 printed, and documents read back."""

from __future__ import annotations

import json

import pytest

from kubenet_lab.errors import InputError
from kubenet_lab.kernel.dialects import nft
from kubenet_lab.kernel.nftables import Ruleset
from tests.oracles import cases, open_case

RECORDED = ("rules-ip", "rules-other-families", "sets-and-flags")


def recorded(case: str) -> tuple[Ruleset, str]:
    """The rules, and what nft printed of them. It dies half-way over the flags of a dormant table, so none is there."""
    found = open_case("nftables", case)
    ruleset = Ruleset()
    for line in found["written"]:
        if "flags dormant" not in line:
            ruleset = nft.apply(ruleset, line)
    return ruleset, found["json"]


@pytest.mark.parametrize("case", RECORDED)
def test_json_is_what_nft_prints(case: str) -> None:
    ruleset, printed = recorded(case)
    ours, theirs = json.loads(nft.to_json(ruleset)), json.loads(printed)
    for mine, other in zip(ours["nftables"], theirs["nftables"], strict=True):
        assert json.dumps(mine) == json.dumps(other)
    assert nft.to_json(ruleset) == printed


@pytest.mark.parametrize("case", RECORDED)
def test_a_json_listing_loads(case: str) -> None:
    ruleset, printed = recorded(case)
    again = nft.load_json(printed)
    first = nft.to_json(again)
    assert nft.to_json(nft.load_json(first)) == first
    ours = nft.list_ruleset(again).splitlines()
    listed = nft.list_ruleset(ruleset)
    known = {*listed.splitlines(), *nft.list_ruleset(nft.load(listed)).splitlines()}
    new = [line for line in ours if line not in known and "type " not in line]
    assert not new, f"lines that nobody wrote: {new}"
    assert len(ours) > len(listed.splitlines()) * 0.95


@pytest.mark.parametrize("case", cases("kube-proxy", "random-")[:12] or cases("kube-proxy")[:12])
def test_kube_proxy_rules_survive_json(case: str) -> None:
    saved = open_case("kube-proxy", case)["nftables"]["saved"]["nft list ruleset"]
    ruleset = nft.load("\n".join(saved))
    document = json.loads(nft.to_json(ruleset))
    again = nft.load_json(json.dumps(document))
    for table in again.tables.values():
        was = ruleset.tables[table.family, table.name]
        assert list(table.chains) == list(was.chains)
        for chain in table.chains.values():
            assert [str(rule) for rule in chain.rules] == [str(rule) for rule in was.chains[chain.name].rules]
        for one in table.sets.values():
            assert one.elements == was.sets[one.name].elements


def test_commands_of_a_document() -> None:
    chain = {
        "family": "inet",
        "table": "t",
        "name": "c",
        "type": "filter",
        "hook": "input",
        "prio": 0,
        "policy": "drop",
    }
    element = {
        "family": "inet",
        "table": "t",
        "name": "s",
        "elem": [{"prefix": {"addr": "10.0.0.0", "len": 8}}],
    }
    document = {
        "nftables": [
            {"add": {"table": {"family": "inet", "name": "t", "comment": "mine"}}},
            {"add": {"chain": chain}},
            {"add": {"set": {"family": "inet", "table": "t", "name": "s", "type": "ipv4_addr", "flags": ["interval"]}}},
            {"add": {"element": element}},
            {"add": {"rule": {"family": "inet", "table": "t", "chain": "c", "comment": "why", "expr": [
                {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": "@s"}},
                {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": ["established", "related"]}},
                {"counter": None}, {"accept": None}]}}},
            {"insert": {"rule": {"family": "inet", "table": "t", "chain": "c", "expr": [{"drop": None}]}}},
        ]
    }  # fmt: skip
    ruleset = nft.apply_json(Ruleset(), json.dumps(document))
    text = nft.list_ruleset(ruleset)
    assert (
        '\t\tdrop\n\t\tip saddr @s ct state established,related counter packets 0 bytes 0 accept comment "why"\n'
        in text
    )
    handle = ruleset.tables["inet", "t"].chains["c"].rules[0].handle
    gone = {
        "nftables": [{"delete": {"rule": {"family": "inet", "table": "t", "chain": "c", "handle": handle}}}]
    }
    assert "\t\tdrop\n" not in nft.list_ruleset(nft.apply_json(ruleset, json.dumps(gone)))
    flushed = nft.apply_json(ruleset, '{"nftables": [{"flush": {"ruleset": null}}]}')
    assert nft.list_ruleset(flushed) == ""


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "JSON parsing error"),
        ("[]", "a list"),
        ('{"nftables": [{"add": {"rule": {"family": "ip"}}}]}', r"nftables\[0\]"),
        ('{"nftables": [{"add": {"chain": {"family": "ip", "table": "no", "name": "c"}}}]}', "No such file"),
    ],
)
def test_bad_documents_say_what_is_wrong(document: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        nft.apply_json(Ruleset(), document)
