"""nft text against what nft 1.0.6 printed: kube-proxy, Flannel and the CNI plugins, and one rule of every kind."""

from __future__ import annotations

import pytest

from kubenet_lab.errors import InputError
from kubenet_lab.kernel.dialects import nft
from kubenet_lab.kernel.nftables import NftError, Ruleset
from tests.oracles import cases, open_case

KUBE_PROXY = [case for case in cases("kube-proxy") if "nftables" in open_case("kube-proxy", case)]
RECORDED = ("rules-ip", "rules-other-families", "sets-and-flags")


def text(lines: list[str] | str) -> str:
    return lines if isinstance(lines, str) else "\n".join(lines)


def applied(transactions: list[list[str] | str], ruleset: Ruleset) -> Ruleset:
    for one in transactions:
        ruleset = nft.apply(ruleset, text(one))
    return ruleset


@pytest.mark.parametrize("case", KUBE_PROXY)
def test_kube_proxy_dump_prints_as_it_was(case: str) -> None:
    saved = text(open_case("kube-proxy", case)["nftables"]["saved"]["nft list ruleset"])
    assert nft.list_ruleset(nft.load(saved)) == saved


@pytest.mark.parametrize("case", KUBE_PROXY)
def test_kube_proxy_transactions_make_the_recorded_rules(case: str) -> None:
    recorded = open_case("kube-proxy", case)["nftables"]
    ruleset = applied(recorded["written"]["nft"], Ruleset())
    saved = text(recorded["saved"]["nft list ruleset"])
    assert nft.list_table(ruleset, "ip", "kube-proxy") + nft.list_table(ruleset, "ip6", "kube-proxy") == saved
    if "after" in recorded:
        later = applied(recorded["after"]["written"]["nft"], ruleset)
        assert nft.list_ruleset(later) == text(recorded["after"]["saved"]["nft list ruleset"])
        assert nft.list_ruleset(ruleset) == saved, "a transaction must leave the old ruleset alone"


@pytest.mark.parametrize("case", cases("nftables", "flannel-"))
def test_flannel_dump_prints_as_it_was(case: str) -> None:
    for dump in open_case("nftables", case)["dumps"]:
        assert nft.list_ruleset(nft.load(dump)) == dump


@pytest.mark.parametrize("case", ["bridge-ipmasq-nftables", "portmap-dual-stack-nft", "bridge-macspoofchk"])
def test_plugins_dump_prints_as_it_was(case: str) -> None:
    lines = open_case("cni-plugins", case)["pods"]["pod-1"]["host_diff"]["nft"]["+"]
    dump = text(lines).replace("<veth1>", "veth1").replace("<MAC1>", "0a:58:0a:16:00:02") + "\n"
    assert nft.list_ruleset(nft.load(dump)) == dump


def one_by_one(lines: list[str]) -> Ruleset:
    ruleset = Ruleset()
    for line in lines:
        ruleset = nft.apply(ruleset, line)
    return ruleset


@pytest.mark.parametrize("case", RECORDED)
def test_each_kind_of_rule_lists_as_nft_lists_it(case: str) -> None:
    recorded = open_case("nftables", case)
    ruleset = one_by_one(recorded["written"])
    assert nft.list_ruleset(ruleset).splitlines() == recorded["listed"].splitlines()
    assert nft.list_ruleset(ruleset, handles=True).splitlines() == recorded["with_handles"].splitlines()
    again = nft.load(recorded["listed"])
    assert nft.list_ruleset(again).splitlines() == recorded["listed_again"].splitlines(), (
        "a listing must load"
    )


@pytest.mark.parametrize("case", RECORDED)
def test_what_nft_refuses_is_refused(case: str) -> None:
    recorded = open_case("nftables", case)
    ruleset = one_by_one(recorded["written"])
    # What only the recording kernel refused ("Could not process rule") another may take.
    wrong = [
        line for line, words in recorded["refused"].items() if not words.startswith("Could not process rule")
    ]
    for line in wrong:
        with pytest.raises(InputError):
            nft.apply(ruleset, line)
    assert nft.list_ruleset(ruleset) == recorded["listed"]


@pytest.mark.parametrize(
    ("bad", "place", "words"),
    [
        ("add table ip t\nadd chain ip t c {", (2, 19), "unexpected end of file"),
        ("table ip t {\n\tchain c {\n\t\tip saddr 10.0.0.1 acept\n\t}\n}\n", (3, 21), "unexpected acept"),
        ("add rule ip t c accept", (1, 1), "No such file or directory: table ip t"),
        ("add table ip t\nadd chain ip t c\nadd rule ip t c ip saddr fd00::1", (3, 26), "Address family"),
        (
            "add table ip t\nadd chain ip t c\nadd rule ip t c tcp dport 70000",
            (3, 27),
            "Service out of range",
        ),
        ("add table ip t\nadd chain ip t c\nadd rule ip t c jump nowhere", (3, 1), "chain nowhere"),
        ("add table ip t { chain", (1, 23), "unexpected end of file"),
    ],
)
def test_a_bad_text_says_where_and_changes_nothing(bad: str, place: tuple[int, int], words: str) -> None:
    before = nft.load("add table ip kept")
    with pytest.raises(InputError) as caught:
        nft.apply(before, bad, file="rules.nft")
    fault = caught.value.faults[0]
    assert (fault.line, fault.column) == place
    assert words in fault.message
    assert fault.file == "rules.nft"
    assert nft.list_ruleset(before) == "table ip kept {\n}\n"


def test_a_dump_of_any_length_cut_anywhere_is_refused_or_loads() -> None:
    dump = text(open_case("kube-proxy", "affinity")["nftables"]["saved"]["nft list ruleset"])
    whole = nft.load(dump)
    refused = 0
    for end in range(0, len(dump), 97):
        try:
            part = nft.load(dump[:end])
        except InputError as error:
            refused += error.faults[0].line > 0
        else:
            assert all(key in whole.tables for key in part.tables)
    assert refused > len(dump) // 97 * 0.9, "nearly every cut is inside a block"


def test_defines_stand_for_their_text() -> None:
    ruleset = nft.load(
        "define pods = 10.244.0.0/16\ndefine ports = { 80, 443 }\n"
        "table ip t {\n\tchain c {\n\t\tip saddr $pods tcp dport $ports accept\n\t}\n}\n"
    )
    assert "ip saddr 10.244.0.0/16 tcp dport { 80, 443 } accept" in nft.list_ruleset(ruleset)
    with pytest.raises(InputError, match="did you mean identifier"):
        nft.load(
            "define pods = 10.0.0.0/8\nadd table ip t\nadd chain ip t c\nadd rule ip t c ip saddr $pod accept"
        )


def test_lists_of_parts() -> None:
    ruleset = nft.load(
        "table ip t {\n\tset s {\n\t\ttype ipv4_addr\n\t\telements = { 10.0.0.2, 10.0.0.1 }\n\t}\n\n"
        "\tchain c {\n\t\tip saddr @s accept\n\t}\n}\n"
    )
    assert (
        nft.list_chain(ruleset, "ip", "t", "c")
        == "table ip t {\n\tchain c {\n\t\tip saddr @s accept\n\t}\n}\n"
    )
    assert nft.list_set(ruleset, "ip", "t", "s") == (
        "table ip t {\n\tset s {\n\t\ttype ipv4_addr\n\t\telements = { 10.0.0.1, 10.0.0.2 }\n\t}\n}\n"
    )
    with pytest.raises(NftError):
        nft.list_chain(ruleset, "ip", "t", "d")
