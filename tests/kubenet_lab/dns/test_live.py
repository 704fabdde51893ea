"""The server on real sockets, asked by dnspython, a client we did not write, and stopped in both ways."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import pytest
import yaml

from kubenet_lab.dns.server.coredns import CoreDNS
from kubenet_lab.dns.server.corefile import KUBEADM
from kubenet_lab.dns.server.live import Turn, ask_upstream, open_sockets, serve
from kubenet_lab.dns.server.view import ServiceView
from tests.oracles import open_case


@pytest.fixture
def process(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    corefile, manifests = tmp_path / "Corefile", tmp_path / "objects.yaml"
    corefile.write_text(KUBEADM)
    manifests.write_text(yaml.safe_dump_all(open_case("dns", "world-big")[:40]))
    command = [sys.executable, "-m", "kubenet_lab", "coredns", "--corefile", str(corefile)]
    command += ["-f", str(manifests), "--port", "0"]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with started:
        yield started
        if started.poll() is None:
            started.kill()


def port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    first = process.stdout.readline()
    assert first.startswith("listening on 127.0.0.1:")
    return int(first.rsplit(":", 1)[1])


def test_a_real_client_gets_the_models_answers(process: subprocess.Popen[str]) -> None:
    where = port(process)
    query = dns.message.make_query("b20.shop.svc.cluster.local.", "A")
    answer = dns.query.udp(query, "127.0.0.1", timeout=5, port=where)
    assert answer.flags & dns.flags.AA
    assert len(answer.answer[0]) == 20
    assert dns.query.tcp(query, "127.0.0.1", timeout=5, port=where).answer == answer.answer
    many = dns.message.make_query("b150.shop.svc.cluster.local.", "A")
    assert dns.query.udp(many, "127.0.0.1", timeout=5, port=where).flags & dns.flags.TC
    assert len(dns.query.tcp(many, "127.0.0.1", timeout=5, port=where).answer[0]) == 150
    missing = dns.message.make_query("nosuch.shop.svc.cluster.local.", "A")
    assert dns.query.udp(missing, "127.0.0.1", timeout=5, port=where).rcode() == dns.rcode.NXDOMAIN
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0


def test_it_stops_on_ctrl_c_and_takes_a_second_port_only_when_free(process: subprocess.Popen[str]) -> None:
    where = port(process)
    again = [*process.args, "--port", str(where)]  # type: ignore[misc]
    taken = subprocess.run(
        again, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL, check=False
    )
    assert (taken.returncode, taken.stdout) == (1, "")
    assert f"127.0.0.1:{where}: Address already in use" in taken.stderr
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0


def test_a_silent_upstream_delays_only_its_own_askers(tmp_path: Path) -> None:
    """Cluster names are answered at once while an outside name waits."""
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 0))
    corefile = KUBEADM.replace("forward . /etc/resolv.conf", f"forward . 127.0.0.1:{silent.getsockname()[1]}")
    view = ServiceView.from_objects(open_case("dns", "world-main"))
    turn = Turn(ask_upstream)
    udp, tcp = open_sockets("127.0.0.1", 0)
    where = udp.getsockname()[1]
    woken, waker = socket.socketpair()
    running = threading.Thread(
        target=serve,
        args=(CoreDNS(corefile, view, turn.upstream), udp, tcp),
        kwargs={"stop": [woken], "turn": turn},
    )
    running.start()
    try:
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        asking.sendto(dns.message.make_query("example.com.", "A").to_wire(), ("127.0.0.1", where))
        query = dns.message.make_query("backend.shop.svc.cluster.local.", "A")
        began = time.monotonic()
        assert dns.query.udp(query, "127.0.0.1", timeout=5, port=where).answer
        assert time.monotonic() - began < 1
    finally:
        waker.send(b".")
        running.join(10)
        for each in (silent, asking, udp, tcp, woken, waker):
            each.close()
    assert not running.is_alive()


def test_a_refused_corefile_is_told_with_its_line(tmp_path: Path) -> None:
    """CoreDNS's own words first; they name no line when it is a plugin that refuses."""
    corefile = tmp_path / "Corefile"
    for text, line, words in (
        (
            ".:53 {\n    cache 30 {\n        serve_stale 1h verify 0 1500ms\n    }\n}\n",
            3,
            "whole number of seconds",
        ),
        (
            ".:53 {\n    errors\n    forward . 10.0.0.1 {\n        max_concurrent many\n    }\n}\n",
            4,
            'parsing "many"',
        ),
    ):
        corefile.write_text(text)
        command = [sys.executable, "-m", "kubenet_lab", "coredns", "--corefile", str(corefile), "--port", "0"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert words in done.stderr.splitlines()[0]
        assert f"{corefile}:{line}; its options: https://coredns.io/plugins/" in done.stderr
