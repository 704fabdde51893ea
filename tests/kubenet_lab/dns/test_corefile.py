"""Corefiles a real CoreDNS accepted or refused, and its words."""

from __future__ import annotations

import re

import pytest

from kubenet_lab.dns.records import Edns, Query, Response
from kubenet_lab.dns.server.coredns import CoreDNS, NotModelled
from kubenet_lab.dns.server.corefile import KUBEADM, CorefileError, tokenize
from kubenet_lab.dns.server.loop import LoopDetected
from kubenet_lab.dns.server.view import ServiceView
from tests.kubenet_lab.dns.answers import server
from tests.oracles import open_case

FILES = {
    "/etc/coredns/empty.conf": "",
    "/etc/resolv.conf": "nameserver 10.0.0.53\n",
    "/etc/coredns/resolv.local": "nameserver 127.0.0.53\n",
}
VARIABLES = {"UPSTREAM_SET": "10.0.0.1"}
ELSEWHERE = {
    "forward-bad-ip": "names the recording machine's own resolver",
    "import-recursive": "names a line no word of the loop stands on",
    "extra-arg": "is about the command line",
}
ROWS = {row["name"]: row for row in open_case("dns", "errors")}
LOOPS = [
    name for name in ROWS if name.startswith("loop-") and ROWS[name]["exit"] == 1 and name != "loop-args"
]


def test_every_refusal_has_the_recorded_text() -> None:
    wrong: list[str] = []
    not_modelled: set[str] = set()
    judged = 0
    for name, row in ROWS.items():
        if row["corefile"] is None or name in LOOPS or name in ELSEWHERE:
            continue
        got = ""
        try:
            CoreDNS(row["corefile"], ServiceView(), files=FILES, variables=VARIABLES)
        except NotModelled as error:
            not_modelled.add(str(error).split(":")[0])
            continue
        except CorefileError as error:
            got = str(error)
        judged += 1
        want = "" if row["exit"] == "running" else "\n".join(row["stderr"])
        if got != want:
            wrong.append(f"{name}: {row['corefile']!r}\n  want {want}\n  got  {got}")
    assert not wrong, "\n".join(wrong)
    assert judged > 125
    assert not_modelled == set()


@pytest.mark.parametrize("name", LOOPS)
def test_a_server_that_forwards_to_itself_dies(name: str) -> None:
    servers: dict[str, CoreDNS] = {}

    def upstream(query: Query, address: str, protocol: str) -> Response | None:
        port = address.rsplit(":", 1)[1]
        return servers[port].answer(query, "127.0.0.1") if address.startswith("127.") else None

    for port in ("53", "1053"):
        servers[port] = CoreDNS(ROWS[name]["corefile"], ServiceView(), upstream, files=FILES, port=port)
    probed = next(each for each in servers.values() if each.servers)
    with pytest.raises(LoopDetected) as caught:
        probed.probe_loop()
    text = re.sub(r"HINFO \d+\.\d+\.", "HINFO RANDOM.RANDOM.", str(caught.value)).replace(
        "127.0.0.1:0", "127.0.0.1:PORT"
    )
    assert text == ROWS[name]["stdout"][-1]


def test_words_of_a_corefile() -> None:
    words = [(token.text, token.line) for token in tokenize('.:53 { # x\n  log . "{name} \\"a\nb"\n}\n')]
    assert words == [(".:53", 1), ("{", 1), ("log", 2), (".", 2), ('{name} "a\nb', 2), ("}", 4)]


def test_a_broken_reload_keeps_the_old_configuration() -> None:
    running = server(KUBEADM, "world-bare")
    assert not running.reload(".:53 {\n    forwad . 10.0.0.1\n}\n")
    assert "Unknown directive 'forwad'" in running.log[-1]
    answer = running.answer(Query("cluster.local.", "SOA"))
    assert answer is not None
    assert answer.rcode == "NOERROR"
    assert running.reload(".:53 {\n    whoami\n}\n")
    answer = running.answer(Query("cluster.local.", "SOA"), client="10.1.2.3")
    assert answer is not None
    assert [record.data for record in answer.additional] == ["10.1.2.3", "0 0 0 ."]


def test_log_lines_are_the_recorded_ones() -> None:
    digging = re.compile(r"^\S+")
    rows = [row for row in open_case("dns", "logs") if isinstance(row, dict) and row.get("queries")]
    judged = 0
    for row in rows:
        try:
            running = server(row["corefile"], "world-main")
        except NotModelled:
            continue
        for command, lines in row["queries"]:
            if digging.match(command) is None or " " in command or command.startswith(("+", "-")):
                continue
            running.log.clear()
            running.answer(Query(f"{command}.", id=54321, edns=Edns(1232)), "10.244.9.5", port=4711)
            ours = [
                re.sub(r"\b\d+\.\d{9}s", "DURATIONs", line).replace(":4711", ":PORT").replace("54321", "ID")
                for line in running.log
            ]
            if any("{" in line or "DURATION" not in line for line in lines):
                continue
            judged += 1
            assert ours == lines, (row["name"], command)
    assert judged > 10


def test_a_loop_nobody_watches_ends_in_servfail() -> None:
    """Without the plugin the server stays up, and every query is lost in the circle."""
    row = ROWS["loop-self-noloop-plugin"]
    running = CoreDNS(
        row["corefile"], ServiceView(), lambda query, address, protocol: running.answer(query, "127.0.0.1")
    )
    answer = running.answer(Query("example.com."))
    assert answer is not None
    assert (answer.rcode, answer.delay >= 4) == ("SERVFAIL", True)
