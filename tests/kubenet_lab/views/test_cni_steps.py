"""A recording of a pod's life: who did what in which order, and what of it is told."""

from __future__ import annotations

from itertools import pairwise

import pytest

from kubenet_lab.course.exercises.nb03 import live, new_pod, one_node, with_typo
from kubenet_lab.kernel.dump import dump_netns
from kubenet_lab.views.cni_steps import cni_state_svg, cni_steps, cni_steps_html, cni_steps_text, slots_of


def test_the_actors_of_a_start_are_in_the_order_of_the_protocol() -> None:
    steps = cni_steps(live().moments)
    assert [
        (s.actor, s.depth) for s in steps if s.title.startswith(("Ask", "Run", "Make", "Reserve", "Write"))
    ] == [
        ("kubelet", 0),
        ("containerd", 0),
        ("containerd", 0),
        ("bridge", 1),
        ("bridge", 1),
        ("bridge", 1),
        ("host-local", 2),
        ("containerd", 0),
        ("kubelet", 0),
    ]


def test_the_states_of_a_recording_follow_one_another_and_end_in_the_kernels() -> None:
    life = live()
    edits = [m for m in life.moments if m.verb == "edits"]
    assert all(a.after == b.before for a, b in pairwise(edits))
    spaces = [life.cluster.network.ns(name) for name in ("node-1", "default/newborn")]
    assert edits[-1].after["namespaces"] == [dump_netns(space) for space in spaces]


def test_a_recorder_leaves_nothing_behind() -> None:
    life = live()
    for space in life.cluster.network.netns.values():
        assert not {"_changed", "set_iptables"} & set(vars(space))


def test_a_second_pod_finds_the_bridge_and_its_address_there() -> None:
    life = live()
    titles = [s.title for s in cni_steps(live(life.cluster, new_pod("second")).moments)]
    assert "Make a veth pair" in titles
    assert "Make the bridge" not in titles
    assert "Give the bridge the gateway's address" not in titles


def test_every_command_of_the_start_but_the_plugins_is_one_that_somebody_could_type() -> None:
    for step in cni_steps(live().moments):
        if step.changes and step.shell:
            for line in step.shell.splitlines():
                assert line.startswith(("# in ", "ip ", "iptables ", "bridge ", "sysctl ")), line


def test_a_host_port_is_opened_by_portmap() -> None:
    steps = cni_steps(live(pod=new_pod(host_port=8080)).moments)
    [step] = [s for s in steps if s.title == "Open the host port"]
    assert step.actor == "portmap"
    assert any("--to-destination 10.244.0.2:8080" in c.what for c in step.changes)


def test_a_stopped_pod_leaves_the_node_as_it_was_but_for_the_bridge() -> None:
    life = live(until_death=True)
    steps = cni_steps(life.moments)
    assert [s.actor for s in steps if "(DEL)" in s.title] == ["containerd", "containerd", "bridge"]
    assert "default/newborn" not in life.cluster.network.netns
    assert not [p for p in life.cluster.network.ns("node-1").files if "/10.244" in p or "/results/" in p]


def test_a_failed_add_is_told_and_cleaned_up_by_del() -> None:
    steps = cni_steps(live(with_typo()).moments)
    [failed] = [s for s in steps if s.failed]
    assert failed.title == "tuning fails"
    assert "tcp_syncokies: no such file or directory" in failed.shell
    after = [s.title for s in steps[steps.index(failed) :]]
    assert "Give the address back" in after
    assert "Remove the network namespace" in after


def test_an_executable_that_is_not_there_is_missed_by_the_runtime() -> None:
    world = one_node()
    world.network.ns("node-1").files["/opt/cni/bin/.missing"] = "/opt/cni/bin/portmap\n"
    failed = [s for s in cni_steps(live(world).moments) if s.failed]
    assert {(s.actor, s.title) for s in failed} == {("containerd", "Find no portmap")}


def test_pictures_keep_their_rows_and_mark_what_is_new() -> None:
    steps = cni_steps(live().moments)
    slots = slots_of([s.state for s in steps])
    at = next(n for n, s in enumerate(steps) if s.title == "Give the pod a default route")
    svg = cni_state_svg(steps[at].state, steps[at - 1].state, slots)
    assert "pod newborn: route default via 10.244.0.1 (new)" in svg
    assert svg.count(">new<") == 1
    assert "no network namespace" in cni_state_svg(steps[0].state, None, slots)


@pytest.mark.parametrize("words", [cni_steps_text, cni_steps_html])
def test_text_and_table_name_every_step(words: object) -> None:
    steps = cni_steps(live().moments)
    told = words(steps, "a pod is born")  # type: ignore[operator]
    assert all(step.title.replace("'", "&#x27;") in told or step.title in told for step in steps)
