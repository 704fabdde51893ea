"""How a real CoreDNS started, reloaded and ended, moment by moment."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kubenet_lab.dns.records import Query, Response
from kubenet_lab.dns.server.corefile import KUBEADM
from kubenet_lab.dns.server.process import Process
from kubenet_lab.dns.server.view import ServiceView
from tests.kubenet_lab.dns.answers import SERIAL, shown
from tests.kubenet_lab.dns.recursor import Recursor
from tests.oracles import open_case

ROWS = {row["name"]: row for row in open_case("dns", "lifecycle")}
CONF = {"/etc/resolv.conf": "nameserver 10.0.0.53\n"}
RELOADING = KUBEADM.replace("    reload\n", "    reload 2s 1s\n")


class Machine:
    """A process, its view of the recorded world, and the recorded upstream."""

    def __init__(self, corefile: str = KUBEADM, synced: bool = True) -> None:
        self.view = (
            ServiceView.from_objects(open_case("dns", "world-main"), SERIAL) if synced else ServiceView(False)
        )
        if not synced:
            self.view.modified = SERIAL
        recursor = Recursor(open_case("dns", "zones"))
        holder: list[Process] = []

        def upstream(query: Query, server: str, protocol: str) -> Response | None:
            if server.startswith(("127.", "10.244.0.2:")):
                # The server asks itself.
                return holder[0].server.answer(query, "10.244.0.2") if holder else None
            return recursor.ask(query, server, protocol)

        self.process = Process(
            corefile, self.view, upstream, local_ips=("10.244.0.2",), files=CONF, hostname="vm"
        )
        holder.append(self.process)

    def ask(self, text: str) -> dict[str, Any]:
        words = text.split()
        if words[0] == "-x":
            words = [".".join(reversed(words[1].split("."))) + ".in-addr.arpa", "PTR"]
        query = Query(f"{words[0]}.", words[1] if len(words) > 1 else "A", 7)
        if not self.process.serving:
            return {"query": text, "rcode": "NO ANSWER", "flags": None, "records": []}
        got = shown(self.process.server.answer(query, "10.244.9.5", 100.0, port=4711))
        records = [*got.get("answer", ()), *got.get("authority", ()), *got.get("additional", ())]
        soa = "cluster.local. 30 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. SERIAL 7200 1800 86400 30"
        return {
            "query": text,
            "rcode": got["rcode"],
            "flags": got["flags"],
            "records": [re.sub(" +", " ", each.replace("$SOA", soa)) for each in records],
        }

    def curl(self, plugin: str) -> str:
        if plugin not in self.process.open_ports().values():
            return " [000]"
        got = self.process.get(plugin, f"/{plugin}")
        return f"{got.body} [{got.status}]"


def same(got: dict[str, Any], want: dict[str, Any]) -> bool:
    plain = {**want, "records": [re.sub(" +", " ", each) for each in want["records"]]}
    return {**got, "records": sorted(got["records"])} == {**plain, "records": sorted(plain["records"])}


def masked(lines: Any) -> list[str]:
    out: list[str] = []
    for line in lines:
        line = re.sub(r"SHA512 = \w+", "SHA512 = HASH", line)
        line = re.sub(r"HINFO \d+\.\d+\.", "HINFO RANDOM.RANDOM.", line)
        out.append(re.sub(r"\((\S+?):\d+ -> :53\)", r"(\1:PORT -> :53)", line))
    return out


def test_without_an_api_server_nothing_for_five_seconds_then_servfail() -> None:
    row = ROWS["api-unreachable"]
    machine = Machine(synced=False)
    process = machine.process
    process.advance(3.0)
    assert machine.curl("health") == row["at3s"]["health"]
    assert machine.curl("ready") == row["at3s"]["ready"]
    assert same(machine.ask(row["at3s"]["dns"]["query"]), row["at3s"]["dns"])
    assert process.next == 5.0
    process.advance(7.0)
    assert machine.curl("health") == row["at7s"]["health"]
    assert machine.curl("ready") == row["at7s"]["ready"]
    for want in row["at7s"]["dns"]:
        got = machine.ask(want["query"])
        assert same(got, want), f"want {want}\ngot  {got}"
    for obj in open_case("dns", "world-main"):
        machine.view.apply(obj, SERIAL)
    machine.view.synced = True
    process.advance(19.0)
    assert machine.curl("ready") == row["api_appears_12s_later"]["ready"]
    for want in row["api_appears_12s_later"]["dns"]:
        assert same(machine.ask(want["query"]), want)
    # The API goes away: the view stays as it is, and so do the answers.
    process.advance(22.0)
    assert machine.curl("ready") == row["api_gone_3s"]["ready"]
    for want in row["api_gone_3s"]["dns"]:
        assert same(machine.ask(want["query"]), want)
    process.terminate(22.0)
    assert process.next == 22.0 + row["SIGTERM"]["seconds"]
    process.advance(27.0)
    assert process.exit_code == row["SIGTERM"]["exit"]
    assert masked(process.log) == row["log"]


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGINT"])
def test_a_signal_leaves_five_seconds_of_answers(signal: str) -> None:
    row = ROWS[signal]
    machine = Machine()
    machine.process.terminate(0.0, signal)
    machine.process.advance(1.5)
    want = row["after_1.5s"]
    assert same(machine.ask(want["dns"]["query"]), want["dns"])
    assert (machine.curl("health"), machine.curl("ready")) == (want["health"], want["ready"])
    machine.process.advance(row["seconds"] - 0.1)
    assert machine.process.serving
    machine.process.advance(row["seconds"])
    assert (machine.process.exit_code, machine.process.serving) == (row["exit"], False)
    assert masked(machine.process.log) == row.get("other_run", row)["log"]


FILES = {
    "reload-good": RELOADING.replace("ttl 30", "ttl 10"),
    "reload-unknown-directive": RELOADING.replace("    loop\n", "    lop\n"),
    "reload-missing-brace": RELOADING.rstrip().removesuffix("}"),
    "reload-bad-arg": RELOADING.replace("ttl 30", "ttl 30s"),
    "reload-empty": "",
    "reload-new-port": RELOADING.replace(".:53", ".:1053"),
    "reload-loop": RELOADING.replace("forward . /etc/resolv.conf", "forward . 10.244.0.2"),
    "reload-whitespace": "# a comment\n\n" + RELOADING.replace("    loop\n", "    loop\n\n"),
    "reload-deleted": None,
    "sigusr1-good": KUBEADM.replace("    reload\n", "").replace("ttl 30", "ttl 10"),
    "sigusr1-bad": KUBEADM.replace("    reload\n", "").replace("    loop\n", "    lop\n"),
}
"""What the Corefile was replaced by, after the words of each row."""


def test_every_recorded_reload_is_tried() -> None:
    assert set(FILES) == {name for name in ROWS if name.startswith(("reload-", "sigusr1-"))}


@pytest.mark.parametrize("name", FILES)
def test_a_changed_corefile_does_what_it_did(name: str) -> None:
    row = ROWS[name]
    machine = Machine(KUBEADM.replace("    reload\n", "") if name.startswith("sigusr1") else RELOADING)
    process = machine.process
    process.log.clear()
    process.write(FILES[name])
    if name.startswith("sigusr1"):
        process.usr1(1.0)
    # Looks come every two seconds, spread by a quarter of a second to either side.
    process.advance(9.0)
    log = [re.sub(r"Corefile:\d+", "Corefile:LINE", line) for line in masked(process.log)]
    want = [re.sub(r"Corefile:\d+", "Corefile:LINE", line) for line in row["log"]]
    assert list(dict.fromkeys(log)) == list(dict.fromkeys(want))
    assert len(log) >= len(want)
    assert (process.running, process.exit_code) == (row["alive"], row["exit"])
    if name == "reload-new-port":
        # The socket on port 53 is closed with the old configuration; nothing serves that zone there any more.
        assert not process.server.servers
        return
    assert same(machine.ask(row["dns"]["query"]), row["dns"])


def test_its_counters_count() -> None:
    machine = Machine()
    for text in (
        "backend.shop.svc.cluster.local",
        "backend.shop.svc.cluster.local AAAA",
        "nosuch.example.com",
    ):
        machine.ask(text)
    text = machine.process.get("prometheus", "/metrics").body
    line = 'coredns_dns_requests_total{family="1",proto="udp",server="dns://:53",type="A",view="",zone="."} 2'
    assert line in text.splitlines()
    # One for the name nobody knows, and one for the query `loop` sent at the start.
    assert 'rcode="NXDOMAIN",server="dns://:53",view="",zone="."} 2' in text
    assert 'type="other",view="",zone="."} 1' in text
    assert machine.process.get("prometheus", "/").status == 404
