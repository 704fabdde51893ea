"""`dig` and `nslookup` beside what BIND's printed, asking the model's CoreDNS over a modelled wire."""

from __future__ import annotations

import re

import pytest
from oracles import open_case

from diagnostics import shell
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet.packet import TCP, UDP
from tests.kubenet_lab.dns.answers import server

TEXTS = open_case("bind-tools", "transcripts")
RESOLV = "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"

OTHER_SERVERS = re.compile(
    r"@10\.0\.0\.|@10\.244\.0\.77|-p 5353|@kube-dns|@nosuchserver| 10\.0\.0\.5| 10\.244\.0\.2$| kube-dns\."
)
"""Calls that need more name servers than this world has."""


def recorded(tool: str) -> list[tuple[str, str, int]]:
    """Return (command, output, exit status) of every call of a recorded transcript."""
    out = []
    for step in re.split(r"^\$ ", TEXTS[tool], flags=re.M)[1:]:
        command, _, rest = step.partition("\n")
        found = re.search(r"^\[exit (\d+)\]\n?", rest, flags=re.M)
        if found and command.startswith(tool) and not OTHER_SERVERS.search(command):
            out.append((command, rest[: found.start()], int(found[1])))
    return out


def world() -> Network:
    """Return a client and a name server at the cluster's address, on one wire."""
    network = Network()
    network.add_wire("w")
    for name, address in (("client", "10.96.0.9"), ("server", "10.96.0.10")):
        ns = network.add_netns(name)
        ns.add_link("eth0", "physical", mac=f"0a:00:00:00:00:{'01' if name == 'client' else '02'}")
        network.plug("w", name, "eth0")
        ns.set_link("eth0", up=True)
        ns.add_address("eth0", f"{address}/24")
    network.ns("client").files["/etc/resolv.conf"] = RESOLV
    handler = server(open_case("dns", "corefiles")["kubeadm"], "world-main").handle
    for proto in (UDP, TCP):
        network.ns("server").listen(Socket(proto, "::", 53, handler=handler))
    return network


def masked(text: str) -> list[str]:
    """Hide what differs from run to run (oracles' README) and the order of records, which is random by
    design.
    """
    text = re.sub(r"id: \w+", "id: ID", text)
    text = re.sub(r"Query time: \w+ msec", "Query time: N msec", text)
    text = re.sub(r"WHEN: .*", "WHEN: TIME", text)
    text = re.sub(r"in \w+ ms\.", "in N ms.", text)
    text = re.sub(r"(hostmaster\.cluster\.local\.|nstld\.verisign-grs\.com\.) \w+ ", r"\1 SERIAL ", text)
    text = re.sub(r"(\s)\d+(\s+IN\s)", r"\1TTL\2", text)
    text = re.sub(r"; COOKIE: .*\n", "", text)
    text = re.sub(r"[ \t]+", " ", text)
    return sorted(text.splitlines())


@pytest.mark.parametrize(("command", "output", "code"), recorded("dig") + recorded("nslookup"))
def test_the_tools_print_what_binds_printed(command: str, output: str, code: int) -> None:
    done = shell.run(world(), "client", command)
    if done.exit_code == 64:
        assert "not modelled" in done.text
        return
    assert masked(done.text) == masked(output)
    assert done.exit_code == code


def test_most_calls_are_modelled() -> None:
    calls = recorded("dig") + recorded("nslookup")
    network = world()
    refused = [command for command, _, _ in calls if shell.run(network, "client", command).exit_code == 64]
    assert len(calls) > 60
    assert len(refused) < len(calls) / 4, refused
