"""The judges of 03_a_pod_is_born: what they accept, and what they say of what they do not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubenet_lab.course.exercises import nb03
from kubenet_lab.course.lessons import nb03 as lesson
from kubenet_lab.errors import InputError

RIGHT: list[str] = list(nb03.LINES)


def _moved(line: str, to: int) -> str:
    left = [one for one in RIGHT if one != line]
    return "\n".join([*left[:to], line, *left[to:]])


@pytest.mark.parametrize(
    ("answer", "passed", "says"),
    [
        ("\n".join(RIGHT), True, "as the recording shows"),
        ("\n".join(f"{n}. {line}" for n, line in enumerate(RIGHT, 1)), True, ""),
        # A plugin could as well ask for the address first.
        (_moved("bridge makes the veth pair", 5), True, ""),
        (_moved("the runtime makes a network namespace", 3), False, "has happened already"),
        (_moved("the containers start", 0), False, "When “the containers start”"),
        ("\n".join(RIGHT[1:]), False, "is missing or there twice"),
    ],
)
def test_the_order_of_the_actors(answer: str, passed: bool, says: str) -> None:
    found = nb03.ORDER.judge(answer)
    assert (found.passed, says in found.text) == (passed, True), found.text


def test_a_line_that_is_none_is_named() -> None:
    with pytest.raises(InputError, match="kube-proxy does it"):
        nb03.ORDER.judge("\n".join([*RIGHT, "kube-proxy does it"]))


def _list(first: dict[str, Any], *more: dict[str, Any]) -> str:
    ipam = {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]]}
    return json.dumps({"cniVersion": "1.0.0", "name": "mine", "plugins": [{"ipam": ipam, **first}, *more]})


PORTMAP = {"type": "portmap", "capabilities": {"portMappings": True}}
BRIDGE = {"type": "bridge", "isDefaultGateway": True, "ipMasq": True}


@pytest.mark.parametrize(
    ("answer", "passed", "says"),
    [
        (_list(BRIDGE, PORTMAP), True, "can be reached"),
        (_list({**BRIDGE, "type": "bridge", "ipMasqBackend": "nftables"}, PORTMAP), True, ""),
        (nb03.TEMPLATE, False, "web got 192.168.1.2"),
        (_list({"type": "bridge"}, PORTMAP), False, "node-1 itself to web"),
        (_list({"type": "bridge", "isGateway": True}, PORTMAP), False, "client to a server outside"),
        (_list({"type": "bridge", "isDefaultGateway": True}, PORTMAP), False, "client to a server outside"),
        (_list(BRIDGE), False, "the node's port 8080"),
        (_list(BRIDGE, {"type": "portmap"}), False, "the node's port 8080"),
        (_list(BRIDGE, {"type": "portmop"}), False, 'failed to find plugin "portmop"'),
        (_list(BRIDGE)[:-2], False, "unexpected end of JSON input"),
    ],
)
def test_a_conflist_is_judged_by_what_its_pods_reach(answer: str, passed: bool, says: str) -> None:
    found = nb03.WRITE.judge(answer)
    assert (found.passed, says in found.text) == (passed, True), found.text


@pytest.mark.parametrize(
    ("choice", "text", "passed", "says"),
    [
        ("first", "rm /etc/cni/net.d/05-old.conflist", True, "Found and mended"),
        ("first", "sudo mv /etc/cni/net.d/05-old.conflist /root/05-old.conflist", True, ""),
        ("first", "mv /etc/cni/net.d/05-old.conflist /etc/cni/net.d/99-old.conflist", True, ""),
        ("first", "rm /etc/cni/net.d/10-bridge.conflist", False, "does not help yet"),
        ("none", "rm /etc/cni/net.d/05-old.conflist", False, "no network config found"),
        ("binary", "rm /etc/cni/net.d/05-old.conflist", False, "kubelet is posting ready status"),
        ("agent", "rm /etc/cni/net.d/05-old.conflist", False, "kubelet is posting ready status"),
    ],
)
def test_the_cause_and_its_remedy(choice: str, text: str, passed: bool, says: str) -> None:
    found = nb03.FIND_IT.judge({"choice": choice, "text": text})
    assert (found.passed, says in found.text) == (passed, True), found.text


@pytest.mark.parametrize("text", ["rm /etc/nothing", "reboot"])
def test_a_remedy_that_cannot_be_run_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        nb03.FIND_IT.judge({"choice": "first", "text": text})


def test_status_is_what_each_plugin_makes_of_it() -> None:
    rows = {row[0]: row[2:] for row in lesson.asked().rows}
    assert rows == {
        "nothing": ("ready", "Ready", "runs"),
        "bridge: no address left": ("ready", "Ready", "FailedCreatePodSandBox"),
        "flannel: no subnet.env, flanneld has not run": ("ready", "Ready", "FailedCreatePodSandBox"),
        "bridge: the executable host-local is missing": (
            'error 999: failed to find plugin "host-local" in path [/opt/cni/bin]',
            "NotReady",
            "NetworkNotReady",
        ),
        "cilium: the agent is down": (
            "error 50: DaemonDown (unable to connect to Cilium agent)",
            "NotReady",
            "NetworkNotReady",
        ),
        "the same, with the list's version as Cilium writes it": (
            "not asked",
            "Ready",
            "FailedCreatePodSandBox",
        ),
    }


def test_where_the_real_plugins_cannot_be_run_a_sentence_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(lesson.really("{")).startswith("Not run: error parsing configuration list")
    assert str(lesson.really(_list({"type": "bridge"}, {"type": "calico"}))) == (
        "Not run here: calico is none of the plugins that write only into the namespaces they are run in."
    )
    monkeypatch.setattr(lesson, "unavailable", lambda: "a twin needs a Linux kernel; this is darwin")
    assert str(lesson.really()) == "Not run here: a twin needs a Linux kernel; this is darwin."
    monkeypatch.setattr(lesson, "unavailable", lambda: "")
    monkeypatch.setattr("kubenet_lab.twin.executables.FOLDERS", ())
    assert "containernetworking-plugins) are not installed" in str(lesson.really())
