"""Notebook 13: judges take every way that works; words on a connection go where they must."""

from __future__ import annotations

import pytest

from kubenet_lab.course.exercises import nb13
from kubenet_lab.course.lessons.nb13 import ADDRESS, Talk, flush_nat, forget, stages, talk_on
from kubenet_lab.course.steer import toward
from kubenet_lab.errors import InputError
from kubenet_lab.scenarios import shop

DNAT = "iptables -t nat -A PREROUTING -d 10.96.0.100 -p tcp --dport 80 -j DNAT --to-destination"


@pytest.mark.parametrize(
    ("answer", "passed", "word"),
    [
        ("sysctl -w net.bridge.bridge-nf-call-iptables=1", True, "true caller"),
        ("sysctl -w net/bridge/bridge-nf-call-iptables=1", True, "true caller"),
        ("iptables -t nat -A POSTROUTING -s 10.244.0.2 -d 10.244.0.4 -j MASQUERADE", True, "The price"),
        ("sysctl -w net.ipv4.ip_forward=1", False, "node-1 still ends as “timed out”"),
        ("", False, "still ends"),
    ],
)
def test_the_short_cut_is_mended_in_every_way_that_works(answer: str, passed: bool, word: str) -> None:
    found = nb13.MEND.judge(f"on node-1\n{answer}")
    assert (found.passed, word in found.text) == (passed, True), found.text


@pytest.mark.parametrize(
    "answer", ["sysctl -w net.bridge.bridge-nf-call-iptable=1", "sysctl net.ipv4.ip_forward", "sysctl"]
)
def test_a_sysctl_that_is_none_is_said_to_be(answer: str) -> None:
    with pytest.raises(InputError, match="sysctl"):
        nb13.MEND.judge(f"on node-1\n{answer}")


@pytest.mark.parametrize(
    ("choice", "text", "passed", "word"),
    [
        ("rules", f"{DNAT} 10.244.1.3:8080", True, "Found and mended"),
        ("rules", f"{DNAT} 10.244.0.4-10.244.0.4:8080", True, "Found and mended"),
        ("rules", f"{DNAT} 10.244.1.3:80", False, "still ends as “refused”"),
        ("rules", "", False, "still ends"),
        ("entries", f"{DNAT} 10.244.1.3:8080", False, "would be: connected"),
        ("sysctl", f"{DNAT} 10.244.1.3:8080", False, "connected or timed out"),
        ("pod", f"{DNAT} 10.244.1.3:8080", False, "refused"),
    ],
)
def test_what_was_lost(choice: str, text: str, passed: bool, word: str) -> None:
    found = nb13.LOST.judge({"choice": choice, "text": f"on node-1\n{text}"})
    assert (found.passed, word in found.text) == (passed, True), found.text


def test_eight_stages_are_those_of_the_walk() -> None:
    rows = stages(shop()).rows
    assert [row.changed for row in rows] == [False, False, False, True, False, False, True, False]
    assert rows[3].entry == rows[6].entry
    assert rows[0].packet.endswith(f"> {ADDRESS}:80")
    assert rows[7].packet.startswith(f"{ADDRESS}:80 >")
    assert "Nat rules asked: 0" in rows[6].what


def test_an_open_connection_outlives_its_rules_and_not_its_entry() -> None:
    world = shop()
    talk = Talk(world)
    assert talk.entry is not None
    flush_nat(world)
    assert talk.answer().delivered_as.src == ADDRESS  # type: ignore[union-attr]
    assert talk.ask().place.netns == f"default/{talk.pod.name}"
    forget(talk)
    assert talk.entry is None
    assert talk.answer().reason == "no-listener"


def test_without_its_entry_a_connection_may_meet_another_pod() -> None:
    world = shop()
    talk = Talk(world, "node-2")
    forget(talk)
    other = next(
        p for p in world.store.list("Pod", "default") if p.spec.node_name == "node-3" and "backend" in p.name
    )
    met = talk.ask(toward(world, other.ips[0]))
    assert (met.place.netns, met.reason) == (f"default/{other.name}", "no-connection")


@pytest.mark.parametrize("deed", ["", "flush nat", "forget"])
def test_what_is_heard(deed: str) -> None:
    lines = talk_on(shop(), deed).lines
    assert lines[0] == "open: connected"
    assert lines[-1].endswith("timed out" if deed == "flush nat" else "connected")
