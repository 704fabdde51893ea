"""Debian's own dig, nslookup, host, getent and curl against our server, beside their transcripts with the real one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kubenet_lab.twin import unavailable
from tests.oracles import open_case

TEXTS = open_case("dns-tools", "transcripts")
ROOT = Path(__file__).parents[3]
RESOLV = "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
TOOLS = ("dig", "nslookup", "host", "getent", "curl", "python3")
MODES = {
    "fail-nxdomain": "NXDOMAIN",
    "fail-servfail": "SERVFAIL",
    "fail-refused": "REFUSED",
    "fail-refused-port": "closed",
}
SKIPPED = re.compile(r"10\.0\.0\.57|\+trace|:8080/|:8181/|:9153/")
"""Calls that wait for seconds, and those of HTTP, which `kubenet-lab coredns` does not serve (test_process.py)."""
ELSEWHERE = {
    "nslookup -port=5353 -timeout=1 -retry=0 backend.shop": "dropped packets there, refuses here",
    "dig -p 5353 +time=1 +tries=1 backend.shop.svc.cluster.local": "dropped packets there, refuses here",
}


def recorded(name: str) -> list[tuple[str, str, int]]:
    """(command, output, exit status) of every call of a transcript whose program is installed here."""
    out = []
    for step in re.split(r"^\$ ", TEXTS[name], flags=re.M)[1:]:
        command, _, rest = step.partition("\n")
        found = re.search(r"^\[exit (\d+)\]\n?", rest, flags=re.M)
        tool = command.split()[0]
        if (
            found
            and tool in TOOLS
            and shutil.which(tool)
            and not SKIPPED.search(command)
            and command not in ELSEWHERE
        ):
            out.append((command, rest[: found.start()], int(found[1])))
    return out


def masked(text: str) -> list[str]:
    """Hide what differs from run to run, and the order of records, which is random by design."""
    text = re.sub(r"id: \w+", "id: ID", text)
    text = re.sub(r"Query time: \w+ msec", "Query time: N msec", text)
    text = re.sub(r"WHEN: .*", "WHEN: TIME", text)
    text = re.sub(r"in \w+ ms\.?", "in N ms.", text)
    text = re.sub(r"(hostmaster\.cluster\.local\.|nstld\.verisign-grs\.com\.) \w+ ", r"\1 SERIAL ", text)
    text = re.sub(r"serial = \d+", "serial = SERIAL", text)
    text = re.sub(r"(\s)\d+(\s+IN\s)", r"\1TTL\2", text)
    text = re.sub(r"_time: !!timestamp .*", "_time: TIME", text)
    # How many addresses fit behind a thousand names depends on the order of the names.
    text = re.sub(
        r"ANSWER: 1000, AUTHORITY: 0, ADDITIONAL: 1\d\d$", "ANSWER: 1000, ADDITIONAL: MANY", text, flags=re.M
    )
    text = re.sub(r"; COOKIE: .*\n", "", text)
    text = re.sub(r"[ \t]+", " ", text)
    return sorted(text.splitlines())


@pytest.fixture(scope="module")
def root() -> None:
    reason = unavailable()
    if reason and os.environ.get("KUBENET_NO_SKIP") == "1":
        pytest.fail(f"no network namespaces on this machine: {reason}")
    if reason:
        pytest.skip(f"no network namespaces on this machine: {reason}")


def play(name: str, commands: list[str], **plan: str) -> list[tuple[str, int]]:
    """Run commands in the playground."""
    wish = {
        "world": "world-main",
        "corefile": "kubeadm",
        "resolv_conf": RESOLV,
        "mode": "coredns",
        "commands": commands,
        **plan,
    }
    done = subprocess.run(
        ["unshare", "--net", "--mount", sys.executable, "-m", "tests.kubenet_lab.dns.playground"],
        input=json.dumps(wish),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [(text, code) for text, code in json.loads(done.stdout)]


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("name", "plan"),
    [
        ("dig", {}),
        ("nslookup", {}),
        ("host", {}),
        ("clients-ok", {}),
        ("no-search", {"resolv_conf": "nameserver 10.96.0.10\n"}),
        ("truncation", {"world": "world-big"}),
        *((name, {"mode": mode}) for name, mode in MODES.items()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_programs_print_what_they_printed_with_the_real_server(
    root: None, name: str, plan: dict[str, str]
) -> None:
    calls = recorded(name)
    assert len(calls) >= 4
    wrong = []
    outputs = play(name, [command for command, _, _ in calls], **plan)
    for (command, want, code), (got, status) in zip(calls, outputs, strict=True):
        if masked(got) != masked(want) or status != code:
            lost = [line for line in masked(want) if line not in masked(got)]
            new = [line for line in masked(got) if line not in masked(want)]
            wrong.append(f"$ {command}\n  recorded {lost} [{code}]\n  here     {new} [{status}]")
    assert not wrong, f"{len(wrong)} of {len(calls)} differ:\n" + "\n".join(wrong)
