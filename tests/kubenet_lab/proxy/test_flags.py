"""kube-proxy's flags walked: what each changes for packets, in every mode that has it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kubenet_lab import scenarios
from kubenet_lab.cluster import Cluster
from kubenet_lab.control import Settings
from kubenet_lab.trip import Trip

NODE_PORT = """
apiVersion: v1
kind: Service
metadata: {name: door}
spec:
  type: NodePort
  clusterIP: 10.96.0.77
  selector: {app: backend}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
"""
OUTSIDE = "203.0.113.10"


def shop(*flags: str, proxy: str = "iptables") -> Cluster:
    cluster = scenarios.shop(proxy=proxy, settings=Settings(kube_proxy=flags))
    cluster.apply(NODE_PORT)
    return cluster


def seen(cluster: Cluster, source: str, target: str) -> str:
    """Whom the server sees, "" where nobody answers; of a pod elsewhere than the caller."""

    def far(_rule: object, _chance: float) -> bool:
        return False  # the last endpoint, which is on node-3

    trip = cluster.connect(source, target, choose=far)
    return trip.exchange.source_seen if trip.exchange is not None and trip.delivered else ""


POD = "http://10.96.0.77"
NODE_1 = "192.168.1.10"

# flags, modes, what is asked, what comes of it with the flag, and without it
ROWS: list[tuple[tuple[str, ...], str, Callable[[Cluster], object], object, object]] = [
    (("--masquerade-all",), "both", lambda c: seen(c, "frontend", POD).startswith("10.244.0.2"), False, True),
    (
        ("--cluster-cidr=10.250.0.0/16",),
        "both",
        lambda c: seen(c, "frontend", POD) == c.pod("frontend").ips[0],
        False,
        True,
    ),
    (
        ("--detect-local-mode=NodeCIDR",),
        "both",
        lambda c: seen(c, "frontend", POD) == c.pod("frontend").ips[0],
        True,
        True,
    ),
    (
        ("--detect-local-mode=BridgeInterface", "--pod-bridge-interface=cni0"),
        "both",
        lambda c: seen(c, "frontend", POD) == c.pod("frontend").ips[0],
        True,
        True,
    ),
    (
        ("--detect-local-mode=BridgeInterface", "--pod-bridge-interface=br0"),
        "both",
        lambda c: seen(c, "frontend", POD) == c.pod("frontend").ips[0],
        False,
        True,
    ),
    (
        ("--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=cni"),
        "both",
        lambda c: seen(c, "frontend", POD) == c.pod("frontend").ips[0],
        True,
        True,
    ),
    (
        ("--nodeport-addresses=10.0.0.0/8",),
        "both",
        lambda c: bool(seen(c, OUTSIDE, f"http://{NODE_1}:30080")),
        False,
        True,
    ),
    (
        ("--nodeport-addresses=192.168.1.0/24",),
        "both",
        lambda c: bool(seen(c, OUTSIDE, f"http://{NODE_1}:30080")),
        True,
        True,
    ),
    (
        ("--nodeport-addresses=primary",),
        "both",
        lambda c: bool(seen(c, OUTSIDE, f"http://{NODE_1}:30080")),
        True,
        True,
    ),
    (
        ("--iptables-localhost-nodeports=false",),
        "iptables",
        lambda c: bool(seen(c, "node/node-1", "http://127.0.0.1:30080")),
        False,
        True,
    ),
    (
        ("--iptables-masquerade-bit=20",),
        "iptables",
        lambda c: (
            seen(c, OUTSIDE, f"http://{NODE_1}:30080") != OUTSIDE,
            "0x100000" in c.node("node-1").iptables_save(),
        ),
        (True, True),
        (True, False),
    ),
    (
        ("--conntrack-tcp-be-liberal",),
        "iptables",
        lambda c: "--ctstate INVALID" in c.node("node-1").iptables_save(),
        False,
        True,
    ),
    (("--healthz-bind-address=0.0.0.0:10300",), "both",
     lambda c: c.connect("node/node-2", f"http://{NODE_1}:10300/healthz").verdict, "connected", "refused"),
    (("--metrics-bind-address=0.0.0.0:10249",), "both",
     lambda c: c.connect("node/node-2", f"http://{NODE_1}:10249/metrics").verdict, "connected", "refused"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "proxy", "asked", "with_it", "without"),
    [
        pytest.param(flags, mode, asked, with_it, without, id=f"{' '.join(flags)} {mode}")
        for flags, modes, asked, with_it, without in ROWS
        for mode in (("iptables", "nftables") if modes == "both" else (modes,))
    ],
)
def test_a_flag_walks(
    flags: tuple[str, ...], proxy: str, asked: Callable[[Cluster], object], with_it: object, without: object
) -> None:
    assert asked(shop(*flags, proxy=proxy)) == with_it
    assert asked(shop(proxy=proxy)) == without


def test_masquerade_all_hides_pods_from_pods() -> None:
    """The server sees its caller's node, by the address the packet leaves it with."""
    cluster = shop("--masquerade-all")
    trip: Trip = cluster.connect("frontend", POD, choose=lambda _rule, _chance: False)
    assert trip.exchange is not None
    node = cluster.pod("frontend").spec.node_name
    own = {a.local for a in cluster.node(node).ns.addrs()}
    assert trip.exchange.source_seen in own
