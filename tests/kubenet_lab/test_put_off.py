"""What is put off until somebody looks comes out as if it had been done at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kubenet_lab import Cluster
from kubenet_lab.cluster import CNIS, POLICY_AGENTS, PROXIES
from kubenet_lab.control import kubelet
from kubenet_lab.errors import KubenetLabError
from kubenet_lab.kernel import put_off
from kubenet_lab.kernel.dump import dump_netns
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.scenarios import shop

MORE = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: more}
spec:
  replicas: 9
  selector: {matchLabels: {app: more}}
  template:
    metadata: {labels: {app: more}}
    spec: {containers: [{name: web, image: web:1, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: more}
spec: {selector: {app: more}, ports: [{port: 80}]}
"""
SCALED = MORE.replace("replicas: 9", "replicas: 17")


def state(space: Netns) -> dict[str, Any]:
    """Everything of a namespace that decides about packets or that a tool shows, comparable, and in its order."""
    space.iptables  # noqa: B018
    if space.has_nftables:
        space.nftables  # noqa: B018
    found = dump_netns(space)
    found["order"] = {key: list(table) for key, table in space.routes.items()}
    return found


def world(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """The state of all namespaces."""
    return {name: state(space) for name, space in cluster.network.netns.items()}


def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubelet, "_reserve", lambda *_: None)


def built(cni: str, proxy: str, policy: str = "none") -> Cluster:
    return shop(cni=cni, proxy=proxy, policy=policy)


def same(first: dict[str, dict[str, Any]], second: dict[str, dict[str, Any]]) -> None:
    assert list(first) == list(second)
    for name, there in first.items():
        for part, value in there.items():
            assert value == second[name][part], f"{part} of {name}"


def apply(cluster: Cluster) -> None:
    cluster.apply(MORE)


def apply_and_scale(cluster: Cluster) -> None:
    cluster.apply(MORE)
    cluster.apply(SCALED)


def look_between(cluster: Cluster) -> None:
    cluster.apply(MORE)
    assert cluster.node("node-1").ns.links
    cluster.apply(SCALED)
    cluster.delete("Deployment", "more")


@pytest.mark.parametrize("steps", [apply, apply_and_scale, look_between])
@pytest.mark.parametrize("cni", [name for name in CNIS if name != "none"])
def test_what_is_made_later_is_what_is_made_at_once(
    cni: str, steps: Callable[[Cluster], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for proxy in PROXIES if steps is apply else ("iptables",):
        lazy = built(cni, proxy)
        steps(lazy)
        with monkeypatch.context() as patch:
            at_once(patch)
            eager = built(cni, proxy)
            steps(eager)
        same(world(eager), world(lazy))


@pytest.mark.parametrize("cni", ["bridge", "flannel", "flannel-host-gw"])
def test_pods_wait_until_somebody_looks(cni: str) -> None:
    cluster = built(cni, "iptables")
    cluster.apply(MORE)
    waiting = [name for name, space in cluster.network.netns.items() if put_off.waits(space)]
    assert len([name for name in waiting if name.startswith("default/more")]) > 2, waiting
    assert cluster.ping("frontend", cluster.pod("more").ips[0]).verdict == "answered"


@pytest.mark.parametrize("agent", POLICY_AGENTS)
def test_policy_agents_see_the_same(agent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = built("flannel", "iptables", agent)
    lazy.apply(MORE)
    at_once(monkeypatch)
    eager = built("flannel", "iptables", agent)
    eager.apply(MORE)
    same(world(eager), world(lazy))


@pytest.mark.parametrize("cni", ["bridge", "flannel"])
def test_a_change_that_is_taken_back_makes_nothing(cni: str) -> None:
    cluster = built(cni, "iptables")
    cluster.apply(MORE)
    waiting = {name for name, space in cluster.network.netns.items() if put_off.waits(space)}
    before = {name: cluster.pod(name).ips for name in (p.name for p in cluster.store.list("Pod", "default"))}

    def scale_look_and_fail() -> None:
        with cluster.transaction():
            cluster.apply(SCALED)
            assert world(cluster)
            raise KubenetLabError("no")

    with pytest.raises(KubenetLabError):
        scale_look_and_fail()
    after = {name: cluster.pod(name).ips for name in (p.name for p in cluster.store.list("Pod", "default"))}
    assert after == before
    assert {name for name in cluster.network.netns if name.startswith("default/")} >= {
        name for name in waiting if name.startswith("default/")
    }
    again = built(cni, "iptables")
    again.apply(MORE)
    one, other = world(again), world(cluster)
    for name in one:
        for part in ("links", "addresses", "fdb", "files"):
            assert one[name][part] == other[name][part], f"{part} of {name}"


def test_an_address_is_found_without_making_its_pod() -> None:
    cluster = built("flannel", "iptables")
    cluster.apply(MORE)
    pods = [pod for pod in cluster.store.list("Pod", "default") if pod.name.startswith("more")]
    waiting = [pod for pod in pods if put_off.waits(cluster.network.ns(f"default/{pod.name}"))]
    assert waiting
    for pod in waiting:
        found = cluster.network.find_address(pod.ips[0])
        assert found is cluster.network.ns(f"default/{pod.name}")
        assert found is not None
        assert put_off.waits(found)
        assert put_off.addresses_of(found) == list(pod.ips)
    assert cluster.network.find_address("203.0.113.77") is None
    space = cluster.network.ns(f"default/{waiting[0].name}")
    assert space.links
    assert set(waiting[0].ips) < set(put_off.addresses_of(space))


@pytest.mark.parametrize("cni", ["flannel", "calico", "cilium"])
def test_what_the_control_plane_refuses_makes_nothing(cni: str) -> None:
    cluster = built(cni, "iptables")
    cluster.apply(MORE)
    before = {name for name, space in cluster.network.netns.items() if put_off.waits(space)}
    assert before
    taken = MORE.replace("name: more", "name: other").replace(
        "spec: {selector", "spec: {clusterIP: 1.2.3.4, selector"
    )
    with pytest.raises(KubenetLabError, match=r"1\.2\.3\.4"):
        cluster.apply(taken)
    assert {name for name, space in cluster.network.netns.items() if put_off.waits(space)} == before
    assert not any(pod.name.startswith("other") for pod in cluster.store.list("Pod"))
    cluster.apply(SCALED)
    again = built(cni, "iptables")
    again.apply(MORE)
    again.apply(SCALED)
    assert [p.ips for p in again.store.list("Pod")] == [p.ips for p in cluster.store.list("Pod")]
