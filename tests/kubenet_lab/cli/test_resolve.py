"""`kubenet-lab resolve` and what `coredns` refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kubenet_lab.scenarios.shop import MANIFEST
from tests.kubenet_lab.cli.run import run

SHOP = str(MANIFEST)

QUERIES = {
    "backend": ["backend.default.svc.cluster.local. 10.96.0.100"],
    "backend.default.svc.cluster.local.": ["backend.default.svc.cluster.local. 10.96.0.100"],
    "example.com": [
        "example.com.default.svc.cluster.local. NXDOMAIN",
        "example.com.svc.cluster.local. NXDOMAIN",
        "example.com.cluster.local. NXDOMAIN",
        "example.com. 203.0.113.10",
    ],
    "10.0.0.1": [],
}


@pytest.mark.parametrize(("name", "expected"), QUERIES.items())
@pytest.mark.parametrize("libc", ["glibc", "musl"])
def test_every_query_is_told_in_order(name: str, expected: list[str], libc: str) -> None:
    ran = run("resolve", name, "--from", "frontend", "-f", SHOP, "--libc", libc, "-o", "json")
    told = json.loads(ran.out)
    asked = [
        f"{q['name']} {', '.join(q['addresses']) or q['rcode']}" for q in told["queries"] if q["type"] == "A"
    ]
    assert (ran.status, asked) == (0, expected)
    assert len(told["queries"]) == 2 * len(expected)
    assert {q["server"] for q in told["queries"]} <= {"10.96.0.10"}
    assert told["addresses"]


def test_a_name_nobody_has_is_an_answer_too() -> None:
    ran = run("resolve", "nosuch", "--from", "frontend", "-f", SHOP)
    assert ran.status == 0
    text = ran.out.decode()
    assert "nosuch: Name or service not known (EAI_NONAME, 8 queries" in text
    assert text.count("NXDOMAIN") == 8


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["resolve", "x", "--from", "nobody", "-f", SHOP], ["nobody", "write namespace/pod"]),
        (["resolve", "x", "--from", "frontend"], ["-f"]),
        (["resolve", "x", "-f", SHOP], ["--from"]),
        (["coredns"], ["--corefile FILE"]),
        (["coredns", "--corefile", "nothing-here"], ["nothing-here", "no such file"]),
    ],
)
def test_bad_arguments_are_named(argv: list[str], words: list[str]) -> None:
    ran = run(*argv)
    assert (ran.status, ran.out) == (2, b"")
    for word in words:
        assert word in ran.err


def test_a_refused_corefile_ends_with_corednss_own_words(tmp_path: Path) -> None:
    path = tmp_path / "Corefile"
    path.write_text(".:53 {\n    forwad . 10.0.0.1\n}\n")
    ran = run("coredns", "--corefile", str(path), "--port", "0")
    assert ran.status == 1
    assert "Corefile:2 - Error during parsing: Unknown directive 'forwad'" in ran.err


@pytest.mark.parametrize(
    ("files", "argv", "words"),
    [
        ({"Corefile/x": ""}, [], ["Corefile: the file cannot be read: Is a directory"]),
        ({}, ["-f", "nothing.yaml"], ['the path "nothing.yaml" does not exist']),
        (
            {"folder/notes.txt": ""},
            ["-f", "folder"],
            ["folder: error reading [folder]", "the folder holds no such file"],
        ),
        (
            {"a.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: '80'}\n"},
            ["-f", "a.yaml"],
            ['a.yaml:4:15: Service "a": ', "Go struct field ServiceSpec.spec.ports", "ports is a list"],
        ),
        (
            {"a.yaml": "apiVersion: v1\nkind: Pod\nmetadata: web\n"},
            ["-f", "a.yaml"],
            ["a.yaml:3:11: Pod: ", "metadata is an object"],
        ),
        (
            {},
            ["--local-ip", "10.244.0"],
            ["--local-ip: '10.244.0' is not an IP address", "for example 10.244.0.2"],
        ),
    ],
)
def test_what_coredns_cannot_use_is_named(
    files: dict[str, str], argv: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in {"Corefile": ".:53 {\n    whoami\n}\n", **files}.items():
        if f"{name}/x" not in files:
            Path(name).parent.mkdir(exist_ok=True)
            Path(name).write_text(text)
    ran = run("coredns", "--corefile", "Corefile", "--port", "0", *argv)
    assert (ran.status, ran.out) == (2, b""), ran.err
    for word in words:
        assert word in ran.err


def test_octets_that_are_no_text_are_words_of_a_corefile(tmp_path: Path) -> None:
    path = tmp_path / "Corefile"
    path.write_bytes(b".:53 {\n    who\xffami\n}\n")
    ran = run("coredns", "--corefile", str(path), "--port", "0")
    assert (ran.status, ran.out) == (1, b"")
    assert "Corefile:2 - Error during parsing: Unknown directive 'who\ufffdami'" in ran.err


def test_an_address_that_is_not_there_is_not_a_taken_port(tmp_path: Path) -> None:
    path = tmp_path / "Corefile"
    path.write_text(".:53 {\n    whoami\n}\n")
    ran = run("coredns", "--corefile", str(path), "--port", "0", "--bind", "192.0.2.1")
    assert (ran.status, ran.err) == (1, "error: 192.0.2.1:0: Cannot assign requested address\n")
