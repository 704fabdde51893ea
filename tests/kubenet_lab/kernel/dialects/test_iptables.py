"""`iptables-save` text: read, print, restore, and say what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kubenet_lab.errors import InputError
from kubenet_lab.kernel.dialects import iptables
from kubenet_lab.kernel.netfilter import (
    MATCHES,
    TARGETS,
    NetfilterError,
    Ruleset,
    UnknownMatch,
    UnknownTarget,
)
from tests.oracles import cases, open_case
from tests.oracles.rule_text import SHARED

FORMS = Path(__file__).with_name("iptables_forms.txt")
FAMILIES = ((4, "iptables"), (6, "ip6tables"))


class Form(NamedTuple):
    """One recorded row: what was written, and what the real iptables-save printed for it."""

    family: int
    table: str
    chain: str
    written: str
    printed: list[str] | None


def forms() -> list[Form]:
    """Read the recorded rows; `printed` is None where the real tool refused the rule."""
    rows = []
    for line in FORMS.read_text().splitlines():
        if line.startswith("#"):
            continue
        place, written, printed = line.split(" | ")
        family, table, chain = place.split()
        shown = None if printed == "FAIL" else printed.split(" ;; ")
        rows.append(Form(int(family), table, chain, written, shown))
    return rows


def made(form: Form) -> list[str]:
    """Give a row's rule to the dialect and return what it prints for it."""
    text = f"*{form.table}\n:foochain - [0:0]\n-A {form.chain} {form.written}\nCOMMIT\n"
    ruleset = iptables.restore(Ruleset(form.family), text)
    return [rule.text(form.family).lstrip() for rule in ruleset.rules(form.table, form.chain)]


@pytest.mark.parametrize("form", forms(), ids=lambda form: f"{form.family} {form.written}")
def test_a_rule_prints_as_the_real_tool_prints_it(form: Form) -> None:
    if form.printed is None:
        with pytest.raises(InputError):
            made(form)
        return
    assert made(form) == form.printed
    for printed in form.printed:
        again = form._replace(written=printed)
        assert made(again) == [printed], "what is printed reads back as itself"


def test_every_match_and_target_is_among_the_forms() -> None:
    seen: Counter[type] = Counter()
    for form in forms():
        if form.printed is None:
            continue
        rule = iptables.rule(form.printed[0], form.family)
        seen.update(type(match) for match in rule.matches)
        seen[type(rule.target)] += 1
    # A named object, a match this kernel lacks (tests/kubenet_lab/kernel/test_ipvs.py), a target it refuses.
    by_oracle_or_error = {"NfAcct", "Ipvs", "Queue"}
    missing = [kind.__name__ for kind in (*MATCHES, *TARGETS) if not seen[kind]]
    assert set(missing) <= by_oracle_or_error


# -- the dumps of real kube-proxy nodes ------------------------------------------------------------


def dumps(name: str) -> list[tuple[int, str]]:
    """Return every `iptables-save` text of a case."""
    recorded = open_case("kube-proxy", name)["iptables"]
    found = []
    for state in (recorded, recorded.get("after", {})):
        for family, tool in FAMILIES:
            if f"{tool}-save" in state.get("saved", {}):
                found.append((family, "\n".join(state["saved"][f"{tool}-save"])))
    return found


@pytest.mark.parametrize("name", cases("kube-proxy"))
def test_a_dump_prints_back_byte_for_byte(name: str) -> None:
    texts = dumps(name)
    assert texts
    for family, text in texts:
        assert iptables.save(iptables.load(text, family)) == text


@pytest.mark.parametrize("name", cases("kube-proxy"))
def test_what_kube_proxy_writes_becomes_what_the_kernel_saved(name: str) -> None:
    recorded = open_case("kube-proxy", name)["iptables"]
    for family, tool in FAMILIES:
        if f"{tool}-restore" not in recorded["written"]:
            continue
        ours = iptables.restore(Ruleset(family), "\n".join(recorded["written"][f"{tool}-restore"]))
        real = iptables.load("\n".join(recorded["saved"][f"{tool}-save"]), family)
        for table in ours.tables.values():
            for chain in table.chains.values():
                if not chain.rules:  # jumps from built-in chains are made by other commands
                    continue
                wanted, got = (
                    [rule.text(family) for rule in rules]
                    for rules in (real.rules(table.name, chain.name), chain.rules)
                )
                if chain.name in SHARED:  # the recording wrote its Services in a random order
                    wanted, got = sorted(wanted), sorted(got)
                assert got == wanted, f"{table.name} {chain.name}"


def flannel_dumps() -> Iterator[tuple[int, str]]:
    """Find every dump of a node that ran Flannel."""
    todo: list[Any] = [open_case("cni-flannel", name) for name in cases("cni-flannel")]
    while todo:
        here = todo.pop()
        if isinstance(here, dict):
            for family, key in ((4, "iptables_save"), (6, "ip6tables_save")):
                if isinstance(here.get(key), list):
                    yield family, "".join(f"{line}\n" for line in here[key] if line)
            todo += here.values()
        elif isinstance(here, list):
            todo += here


def test_the_dumps_of_flannel_nodes_print_back_byte_for_byte() -> None:
    found = [dump for dump in flannel_dumps() if dump[1]]
    assert found
    for family, text in found:
        assert iptables.save(iptables.load(text, family)) == text


# -- whole texts -----------------------------------------------------------------------------------


def test_comments_counters_and_blank_lines_are_read() -> None:
    text = (
        "# Generated by iptables-save v1.8.9 on Tue Nov 24 06:05:11 2026\n*filter\n:INPUT DROP [5:10]\n"
        ":FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n\n"
        "[7:420] -A INPUT -p tcp -m tcp --dport 80 -j ACCEPT\nCOMMIT\n"
        "# Completed on Tue Nov 24 06:05:11 2026\n"
    )
    ruleset = iptables.load(text, 4)
    kept = "".join(f"{line}\n" for line in text.splitlines() if line and not line.startswith("#"))
    assert iptables.save(ruleset, counters=True) == kept
    assert "[7:420]" not in iptables.save(ruleset)
    assert iptables.save(ruleset, table="nat") == ""


def test_tables_and_chains_print_in_the_real_order() -> None:
    text = "".join(
        f"*{table}\n:b - [0:0]\n:A - [0:0]\nCOMMIT\n"
        for table in ("nat", "raw", "security", "filter", "mangle")
    )
    lines = iptables.save(iptables.restore(Ruleset(4), text)).splitlines()
    assert [line for line in lines if line[0] == "*"] == ["*mangle", "*security", "*raw", "*filter", "*nat"]
    at = lines.index("*nat")
    assert [line.split()[0] for line in lines[at + 1 : at + 7]] == [
        ":PREROUTING",
        ":INPUT",
        ":OUTPUT",
        ":POSTROUTING",
        ":A",
        ":b",
    ]


def test_noflush_empties_declared_chains_only() -> None:
    before = iptables.restore(
        Ruleset(4),
        "*filter\n:mine - [0:0]\n:other - [0:0]\n-A INPUT -j mine\n-A mine -j DROP\n"
        "-A other -j DROP\nCOMMIT\n",
    )
    after = iptables.restore(before, "*filter\n:INPUT DROP [0:0]\n:mine - [0:0]\n-A mine -j ACCEPT\nCOMMIT\n")
    assert iptables.save(after).splitlines() == [
        "*filter",
        ":INPUT DROP [0:0]",
        ":FORWARD ACCEPT [0:0]",
        ":OUTPUT ACCEPT [0:0]",
        ":mine - [0:0]",
        ":other - [0:0]",
        "-A INPUT -j mine",
        "-A mine -j ACCEPT",
        "-A other -j DROP",
        "COMMIT",
    ]
    whole = iptables.restore(before, "*filter\n:mine - [0:0]\nCOMMIT\n", noflush=False)
    assert iptables.save(whole).count("\n") == 6, "without noflush the table starts empty"


def test_a_restore_with_a_fault_changes_nothing() -> None:
    before = iptables.restore(Ruleset(4), "*filter\n-A INPUT -j DROP\nCOMMIT\n")
    text = iptables.save(before)
    with pytest.raises(InputError):
        iptables.restore(
            before, "*filter\n-F INPUT\n-A INPUT -j ACCEPT\n-A INPUT -p tcp --dprt 80 -j ACCEPT\nCOMMIT\n"
        )
    assert iptables.save(before) == text


def test_every_fault_is_told_with_line_place_and_remedy() -> None:
    text = "\n".join(
        [
            "*filter",
            ":KUBE-SERVICES - [0:0]",
            "-A KUBE-SERVICES -p tcp -m tcp --dprt 80 -j ACCEPT",
            "-A KUBE-SERVICES -m contrack --ctstate NEW -j ACCEPT",
            "-A INPUT -j KUBE-SERVICE",
            "-A INPUT -d 10.96.0.300 -j DROP",
            "-A INPUT -m conntrack --ctstate ESTABLISHD -j ACCEPT",
            "-A KUBE-SERVICE -j ACCEPT",
            "-A INPUT --dport 80 -j ACCEPT",
            '-A INPUT -m comment --comment "open',
            "-A INPUT -j MASQUERADE",
            "-A INPUT -d fd00::1 -j DROP",
            "COMMIT",
            "*nat",
            "-A POSTROUTING -j SNAT --to-source 10.0.0.1:80",
        ]
    )
    with pytest.raises(InputError) as caught:
        iptables.load(text, 4, file="node-1.rules")
    faults = caught.value.faults
    told = {fault.line: (fault.message, fault.help) for fault in faults}
    assert all(fault.file == "node-1.rules" for fault in faults)
    assert sorted(told) == [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15]
    assert told[3] == ('unknown option "--dprt"', "write --dport")
    assert told[4] == ("Couldn't load match `contrack':No such file or directory", "write -m conntrack")
    assert told[5] == ("Chain 'KUBE-SERVICE' does not exist", "write -j KUBE-SERVICES")
    assert told[6] == ("host/network `10.96.0.300' not found", "write an IPv4 address like 10.244.1.5")
    assert told[7] == ('Bad ctstate "ESTABLISHD"', "write ESTABLISHED")
    assert "did you mean KUBE-SERVICES?" in told[8][1]
    assert told[9][1] == "write -m tcp (and -p tcp) before --dport"
    assert "quote" in told[10][0]
    assert told[11][1] == "put the rule into *nat"
    assert told[12][1] == "this is an IPv6 address: put the rule into ip6tables"
    messages = [fault.message for fault in faults if fault.line == 15]
    assert any("COMMIT expected" in message for message in messages)
    assert any("Need TCP" in message for message in messages)
    third = next(fault for fault in faults if fault.line == 3)
    assert third.path == "-A KUBE-SERVICES -p tcp -m tcp --dprt 80 -j ACCEPT"
    assert third.path[third.column - 1 :].startswith("--dprt")


def test_one_typo_gives_one_fault() -> None:
    with pytest.raises(InputError) as caught:
        iptables.load("*filter\n-A INPUT -m contrack --ctstate NEW,RELATED -j ACCEPT\nCOMMIT\n", 4)
    assert len(caught.value.faults) == 1


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("-A INPUT -j ACCEPT\n", "outside of a table"),
        ("*fliter\nCOMMIT\n", "table 'fliter' does not exist"),
        ("*filter\n:INPUT\nCOMMIT\n", "is not of the form"),
        ("*filter\n:INPUT FOO [0:0]\nCOMMIT\n", "Policy 'FOO' invalid"),
        ("*filter\n[x] -A INPUT\nCOMMIT\n", "counters are not of the form"),
        (
            "*filter\n:x - [0:0]\n-A INPUT -g x\n-X x\nCOMMIT\n",
            "CHAIN_DEL failed (Device or resource busy): chain x",
        ),
        ("*filter\n:x - [0:0]\n-A INPUT -j x\n-A x -j x\nCOMMIT\n", "Too many levels of symbolic links"),
        ("*filter\n:LOG - [0:0]\nCOMMIT\n", "may not clash with target name"),
        ("*filter\n-D INPUT -j DROP\nCOMMIT\n", "Bad rule (does a matching rule exist in that chain?)."),
        ("*filter\n*nat\nCOMMIT\n", "was not committed"),
        ("*filter\nfoo INPUT\nCOMMIT\n", "no command specified"),
    ],
)
def test_texts_that_are_refused(text: str, wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        iptables.restore(Ruleset(4), text)
    assert any(wanted in fault.message and fault.help for fault in caught.value.faults) or wanted in str(
        caught.value
    )


# -- what is not modelled --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "-A INPUT -m policy --dir in --pol ipsec -j ACCEPT",
        "-A INPUT -p tcp -m tcp --dport 22 -m geoip ! --source-country DE,FR -j DROP",
        '-A INPUT -m bpf --bytecode "4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0" -j ACCEPT',
        "-A INPUT -s 10.0.0.0/8 -m connlimit --connlimit-above 5 --connlimit-mask 32 -j DROP",
        "-A INPUT -p udp -j TEE --gateway 10.0.0.9",
        '-A INPUT -m limit --limit 5/min -m newthing --text "a b" ! --flag -j LOG --log-prefix "x: "',
        "-A INPUT -m length --length 100 --entirely-new-switch 5 -j ACCEPT",
        "-A INPUT -j IDLETIMER --timeout 5 --label wlan",
    ],
)
def test_the_unknown_is_carried_and_prints_back_unchanged(line: str) -> None:
    text = f"*filter\n:INPUT ACCEPT [0:0]\n{line}\nCOMMIT\n"
    ruleset = iptables.load(text, 4)
    assert iptables.save(ruleset) == text
    (rule,) = ruleset.rules("filter", "INPUT")
    carried = [m for m in rule.matches if isinstance(m, UnknownMatch)] or isinstance(
        rule.target, UnknownTarget
    )
    assert carried
    with pytest.raises(InputError):
        iptables.load(text, 4, strict=True)


# -- single command lines --------------------------------------------------------------------------


def test_command_lines_edit() -> None:
    ruleset = Ruleset(4)
    for line in (
        "iptables -t nat -N KUBE-SERVICES",
        'iptables -w 5 -t nat -A PREROUTING -m comment --comment "service portals" -j KUBE-SERVICES',
        "-t nat -A KUBE-SERVICES -d 10.96.0.1 -p tcp --dport 443 -j DNAT --to-destination 10.0.0.5:6443",
        "-t nat -I KUBE-SERVICES -s 10.0.0.1,10.0.0.2 -j RETURN",
        "-t nat -I KUBE-SERVICES 2 -s 10.0.0.3 -j RETURN",
        "-t nat -D KUBE-SERVICES -s 10.0.0.1 -j RETURN",
        "-t nat -R KUBE-SERVICES 1 -s 10.0.0.4 -j RETURN",
        "-t nat -C KUBE-SERVICES -s 10.0.0.4 -j RETURN",
        "-P FORWARD DROP",
        ["-t", "nat", "-A", "POSTROUTING", "-m", "comment", "--comment", "two words", "-j", "MASQUERADE"],
    ):
        ruleset = iptables.apply(ruleset, line)
    assert iptables.chain_text(ruleset, "nat", "KUBE-SERVICES") == [
        "-N KUBE-SERVICES",
        "-A KUBE-SERVICES -s 10.0.0.4/32 -j RETURN",
        "-A KUBE-SERVICES -s 10.0.0.3/32 -j RETURN",
        "-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 443 -j DNAT --to-destination 10.0.0.5:6443",
    ]
    assert iptables.chain_text(ruleset, "filter", "FORWARD") == ["-P FORWARD DROP"]
    assert ruleset.rules("nat", "POSTROUTING")[0].comment == "two words"
    with pytest.raises(NetfilterError, match="Chain already exists"):
        iptables.apply(ruleset, "-t nat -N KUBE-SERVICES")
    with pytest.raises(NetfilterError, match="does a matching rule exist"):
        iptables.apply(ruleset, "-t nat -C KUBE-SERVICES -s 10.0.0.9 -j RETURN")
    with pytest.raises(NetfilterError, match="No chain/target/match by that name"):
        iptables.apply(ruleset, "-t nat -A KUBE-SERVICE -j RETURN")


PIECES = (
    "-s 10.0.0.0/8",
    "! -d 10.1.2.3",
    "-i eth+",
    "! -o lo",
    "-p tcp",
    "-m mark ! --mark 1/2",
    "-m comment --comment 'x",
    '-m comment --comment "a b"',
    "-j DROP",
    "-j",
    "!",
    "--dport 80",
    "foo",
    "-m tcp",
    "--tcp-flags SYN",
    '"',
    "-g",
    "-p 300",
    "--ctstate NEW",
    "-m conntrack",
    "=",
    "-c 1 2",
)


@example(['-j " " !'])
@example(['-j "" !'])
@given(st.lists(st.sampled_from(PIECES), max_size=8))
def test_any_line_is_refused_as_input_or_read_for_good(pieces: list[str]) -> None:
    text = "*filter\n-A FORWARD " + " ".join(pieces) + "\nCOMMIT\n"
    try:
        ruleset = iptables.restore(Ruleset(4), text)
    except InputError:
        return
    printed = iptables.save(ruleset)
    assert iptables.save(iptables.load(printed, 4)) == printed
