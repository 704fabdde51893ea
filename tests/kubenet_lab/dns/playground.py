"""A pod's surroundings for real programs: a network and resolv.conf of their own, and our server at 10.96.0.10.

    unshare --net --mount python -m tests.kubenet_lab.dns.playground < plan.json > outputs.json

The plan: {"world", "corefile", "resolv_conf", "mode", "commands"}; `mode` is "coredns", or how the server treats every
query: NXDOMAIN, SERVFAIL, REFUSED, "closed". Out come [output, exit status] of every command, both streams together.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from kubenet_lab.dns.message import receive, to_wire
from kubenet_lab.dns.records import Query, Response, reply
from kubenet_lab.dns.server.coredns import CoreDNS
from kubenet_lab.dns.server.live import Turn, open_sockets, serve
from kubenet_lab.dns.server.view import ServiceView
from tests.kubenet_lab.dns.answers import SERIAL
from tests.kubenet_lab.dns.recursor import Recursor
from tests.oracles import open_case

OWN = ("10.96.0.10", "10.244.0.2")
OTHERS = ("10.0.0.55", "10.0.0.56")
SILENT, CLOSED = ("10.0.0.57", "10.244.0.77"), "10.0.0.58"


class Other:
    """A server that answers by a function of the question."""

    def __init__(self, say: Callable[[Query], Response | None]) -> None:
        self.say = say

    def answer_wire(
        self, data: bytes, client: str = "", now: float = 0.0, protocol: str = "udp", port: int = 0
    ) -> bytes | None:
        message = receive(data)
        answer = self.say(message) if isinstance(message, Query) else message
        if answer is not None and isinstance(message, Query) and message.edns is not None:
            answer = replace(answer, edns=message.edns)
        return None if answer is None else to_wire(answer)


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def network() -> None:
    """All addresses of the recorded network on this namespace's loopback, and the client's as preferred source."""
    run("ip", "link", "set", "lo", "up")
    for address in (*OWN, *OTHERS, *SILENT, CLOSED, "10.244.9.5"):
        run("ip", "addr", "add", f"{address}/32", "dev", "lo")


def files(resolv_conf: str) -> None:
    """The pod's own files over the machine's: only in this mount namespace."""
    run("mount", "--make-rprivate", "/")
    texts = {
        "/etc/resolv.conf": resolv_conf,
        "/etc/hosts": "127.0.0.1\tlocalhost\n::1\tlocalhost\n10.244.9.5\tclient\n",
        "/etc/nsswitch.conf": "hosts: files dns\n",
    }
    for path, text in texts.items():
        with tempfile.NamedTemporaryFile("w", delete=False) as made:
            made.write(text)
        run("chmod", "644", made.name)
        run("mount", "--bind", made.name, path)


def start(server: Any, address: str, turn: Turn | None = None) -> None:
    udp, tcp = open_sockets(address, 53)
    threading.Thread(target=serve, args=(server, udp, tcp), kwargs={"turn": turn}, daemon=True).start()


def servers(plan: dict[str, Any]) -> None:
    recursor = Recursor(open_case("dns", "zones"))
    turn = Turn(recursor.ask)
    if plan["mode"] == "coredns":
        view = ServiceView.from_objects(open_case("dns", plan["world"]), SERIAL)
        corefile = open_case("dns", "corefiles")[plan["corefile"]]
        resolv = {"/etc/resolv.conf": "nameserver 10.0.0.53\n"}
        # The recordings show the records of one name sorted or masked: no seed is the right one.
        made = CoreDNS(
            corefile, view, turn.upstream, local_ips=("10.244.0.2",), files=resolv, hostname="vm", seed=1
        )
        for address in OWN:
            start(made, address, turn)
    elif plan["mode"] != "closed":
        start(Other(lambda query: reply(query, plan["mode"], aa=plan["mode"] != "SERVFAIL")), OWN[0])
    for address in OTHERS:
        start(Other(lambda query, address=address: recursor.ask(query, f"{address}:53")), address)  # type: ignore[misc]
    for address in SILENT:
        silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        silent.bind((address, 53))
        # Held open by its file descriptor for as long as this process lives.
        silent.detach()


def main() -> None:
    plan = json.load(sys.stdin)
    network()
    files(plan["resolv_conf"])
    servers(plan)
    time.sleep(0.05)
    out = []
    for command in plan["commands"]:
        done = subprocess.run(
            ["sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=90,
        )
        out.append([done.stdout.decode(errors="replace"), done.returncode])
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
