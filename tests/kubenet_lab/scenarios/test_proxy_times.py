"""Scenes of kube-proxy in time: what callers feel second by second, and the picture of it."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from kubenet_lab.cluster import PROXIES
from kubenet_lab.scenarios import proxy_times
from kubenet_lab.views.timeline import TimeLine, timeline_svg


def late(line: TimeLine) -> list[int]:
    """Seconds in which the node's rules are not what the slices say."""
    return [int(s.moment.second) for s in line.seconds if s.ready != s.named]


def answering(line: TimeLine) -> list[set[str]]:
    """Which pods answered in each second."""
    return [{call.pod for call in second.calls if call.good} for second in line.seconds]


def drawn(line: TimeLine) -> str:
    svg = timeline_svg(line)
    ET.fromstring(svg)
    assert "how many calls it answered" in svg
    return svg


@pytest.mark.parametrize("proxy", PROXIES)
def test_stopped_and_then_pods_are_replaced(proxy: str) -> None:
    line = proxy_times.stopped(proxy)
    assert not any(second < 5 or second >= 14 for second in line.bad_seconds)
    assert late(line) == list(range(5, 14))
    dead = [len(second.dead) for second in line.seconds]
    assert dead == [0] * 5 + [1] * 3 + [2] * 3 + [3] * 3 + [0] * 4
    assert [sum(not c.good for c in line.seconds[s].calls) for s in (11, 12, 13)] == [9, 9, 9]
    chances = [sum(p for a, p in s.moment.targets if a in s.dead) for s in line.seconds]
    assert [round(100 * chances[s]) for s in (4, 5, 8, 11, 14)] == [0, 33, 67, 100, 0]
    assert "and nobody answers there" in drawn(line)


def test_flushed_until_the_canary_is_missed() -> None:
    line = proxy_times.flushed()
    assert line.bad_seconds == [4, 5, 6, 7, 8, 9]
    assert late(line) == [4, 5, 6, 7, 8, 9]
    assert "10 s …" in str(line)
    drawn(line)


def test_flushed_in_nftables_mode_until_the_next_change_has_failed() -> None:
    line = proxy_times.flushed("nftables")
    assert line.bad_seconds == list(range(4, 17))
    assert len(line.seconds[17].named) == 4
    drawn(line)


def test_changes_within_the_least_time_are_written_together() -> None:
    line = proxy_times.batched()
    assert [len(s.named) for s in line.seconds] == [3, 3, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2]
    assert late(line) == [3, 4, 5, 6]
    drawn(line)


def test_a_restart_catches_up_and_goes_on() -> None:
    line = proxy_times.restarted()
    assert late(line) == [4, 5, 6]
    assert all(second >= 4 and second < 7 for second in line.bad_seconds)
    drawn(line)


def test_a_udp_client_s_connection_leads_nowhere_until_it_is_forgotten() -> None:
    line = proxy_times.forgotten()
    assert line.bad_seconds == [7, 8, 9, 10]
    before, after = answering(line)[0], answering(line)[11]
    assert len(before) == len(after) == 1
    assert before != after
    assert all(pods == after for pods in answering(line)[11:]), "the new entry holds as the old one did"
    drawn(line)


def test_affinity_ends_with_a_long_silence() -> None:
    line = proxy_times.affinity(4)
    found = answering(line)
    assert all(pods == found[0] for pods in found[:5])
    assert found[5:10] == [set()] * 5
    assert all(pods == found[10] for pods in found[10:])
    assert len(found[0]) == len(found[10]) == 1
    assert found[0] != found[10]
    drawn(line)


def test_affinity_outlasts_a_short_silence() -> None:
    """Calls every few seconds renew it; as long as the time-out is longer, the same pod answers."""
    line = proxy_times.affinity(60)
    found = answering(line)
    assert found[0]
    assert {frozenset(pods) for pods in found if pods} == {frozenset(found[0])}
