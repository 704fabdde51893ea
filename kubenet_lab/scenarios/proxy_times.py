"""What callers feel while kube-proxy waits, fails, is stopped, or makes the kernel forget: scenes in time.

Each scene builds a shop, lets something happen, and returns its seconds as a `TimeLine`, which draws itself:

    stopped("nftables")
    flushed()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from kubenet_lab import manifests
from kubenet_lab.cluster import Cluster
from kubenet_lab.control import Settings
from kubenet_lab.control.replay import moment
from kubenet_lab.dns.records import Query
from kubenet_lab.kernel.netfilter import Ruleset
from kubenet_lab.kernel.nftables import Ruleset as NftRuleset
from kubenet_lab.objects import Service
from kubenet_lab.packet.packet import SYN, TCP, UDP, Packet
from kubenet_lab.scenarios.shop import MANIFEST
from kubenet_lab.views.timeline import Call, Second, TimeLine
from kubenet_lab.walk.exchange import exchange

NODE, CALLER = "node-1", "default/frontend"

Act = Callable[[], Any]
Acts = Mapping[int, tuple[str, Act]]
"""Second -> (what is done, in words; the deed)."""


def deployment(replicas: int) -> str:
    """The backend's Deployment with so many replicas."""
    return (
        f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: backend}}\nspec:\n  replicas: {replicas}\n"
        "  selector: {matchLabels: {app: backend}}\n  template:\n    metadata: {labels: {app: backend}}\n"
        "    spec:\n      containers:\n"
        "      - {name: backend, image: 'shop/backend:1.0', ports: [{name: http, containerPort: 8080}]}"
    )


def _shop(*flags: str, proxy: str = "iptables", seed: int = 0, **service: Any) -> Cluster:
    """The shop with kube-proxy's flags, and fields of the backend's Service other than usual."""
    objects = []
    for one in manifests.load(MANIFEST):
        if isinstance(one, Service) and one.name == "backend":
            one = replace(one, spec=replace(one.spec, **service))
        objects.append(one)
    return Cluster.from_objects(objects, proxy=proxy, seed=seed, settings=Settings(kube_proxy=flags))


def watch(
    world: Cluster,
    service: str,
    seconds: int,
    acts: Acts,
    *,
    calls: int = 6,
    namespace: str = "default",
    port: int = 0,
    silent: range = range(0),
) -> TimeLine:
    """Let time pass: at each second do what is to be done, note how the Service stands, and call it.

    `port` is the caller's own port, so that all calls are one connection (UDP); 0 takes a new one each time. In the
    seconds `silent` nobody calls.
    """
    found = world.store.get(Service, service, namespace)
    address, goal = found.addresses[0], found.spec.ports[0]
    names = {ip: pod.name for pod in world.store.list("Pod", namespace) for ip in pod.ips}
    rows = []
    for second in range(seconds + 1):
        if second:
            world.advance(1)
        did, act = acts.get(second, ("", None))
        if act is not None:
            act()
        now = moment(world, service, namespace, node=NODE)
        names |= {ip: pod.name for pod in world.store.list("Pod", namespace) for ip in pod.ips}
        felt = []
        for _ in range(0 if second in silent else calls):
            done = exchange(world.walk(), CALLER, _request(address, goal.protocol, port, goal.port))
            pod = done.server_ns.partition("/")[2] if done.ok else ""
            felt.append(Call(done.verdict, pod))
        living = {ip for pod in now.pods for ip in [pod.ip] if pod.state == "Running"}
        row = Second(replace(now, second=float(second)), tuple(felt), did)
        rows.append(replace(row, dead=row.named - living))
    return TimeLine(service, NODE, CALLER.partition("/")[2], tuple(rows), who=True)


def _request(address: str, protocol: str, sport: int, dport: int) -> Packet:
    """A connection's first packet, or a question for a name server."""
    if protocol != "UDP":
        return Packet("", address, TCP, sport, dport, flags=SYN)
    asked = Query("backend.default.svc.cluster.local.", "A")
    return Packet("", address, UDP, sport, dport, message=asked, payload_size=asked.wire_length)


def _delete(world: Cluster, name: str, namespace: str = "default") -> Act:
    return lambda: world.delete("Pod", name, namespace)


def _backends(world: Cluster) -> list[str]:
    return [pod.name for pod in world.store.list("Pod", "default") if "backend" in pod.name]


def stopped(proxy: str = "iptables") -> TimeLine:
    """kube-proxy stops on node-1, then one pod after another is replaced; at last it is started again."""
    world = _shop(proxy=proxy)
    acts: dict[int, tuple[str, Act]] = {
        2: ("kube-proxy stops on node-1", lambda: world.stop_kube_proxy(NODE))
    }
    for number, name in enumerate(_backends(world)):
        acts[5 + 3 * number] = (f"pod {number + 1} is replaced", _delete(world, name))
    acts[14] = ("kube-proxy starts", lambda: world.start_kube_proxy(NODE))
    return watch(world, "backend", 17, acts, calls=9)


def flushed(proxy: str = "iptables") -> TimeLine:
    """Somebody flushes node-1's rules: the canary is missed, or (nftables mode) the next change fails."""
    world = _shop("--iptables-sync-period=10s", proxy=proxy)

    def flush() -> None:
        space = world.node(NODE).ns
        if proxy == "nftables":
            space.set_nftables(NftRuleset())
        for family in (4, 6):
            space.set_iptables(family, Ruleset(family))

    acts: dict[int, tuple[str, Act]] = {4: ("node-1's rules are flushed", flush)}
    if proxy == "nftables":
        acts[7] = ("scaled to 4", lambda: world.apply(deployment(4)))
    return watch(world, "backend", 20, acts)


def batched() -> TimeLine:
    """Scaled thrice in three seconds with `--iptables-min-sync-period=5s`: written once at once, then once for two."""
    world = _shop("--iptables-min-sync-period=5s")
    world.advance(5)
    acts: Acts = {
        2: ("to 4", lambda: world.apply(deployment(4))),
        3: ("to 5", lambda: world.apply(deployment(5))),
        4: ("to 2", lambda: world.apply(deployment(2))),
    }
    return watch(world, "backend", 12, acts)


def restarted() -> TimeLine:
    """kube-proxy is away while a pod is replaced: its start writes everything, the next change only what changed."""
    world = _shop()
    first, second = _backends(world)[:2]
    acts: Acts = {
        2: ("kube-proxy stops", lambda: world.stop_kube_proxy(NODE)),
        4: ("a pod is replaced", _delete(world, first)),
        7: ("kube-proxy starts", lambda: world.start_kube_proxy(NODE)),
        10: ("another is", _delete(world, second)),
    }
    return watch(world, "backend", 13, acts)


def forgotten() -> TimeLine:
    """A client asks CoreDNS from one port again and again, and the pod that answers it goes.

    Its connection is a conntrack entry that leads to that pod. CoreDNS answers through its five seconds of lameduck;
    then nobody does, until kube-proxy's next sync, four seconds later here, makes the kernel forget the entry and the
    next packet chooses anew.
    """
    world = _shop("--iptables-min-sync-period=5s")
    world.advance(5)
    address = world.store.get(Service, "kube-dns", "kube-system").addresses[0]
    done = exchange(world.walk(), CALLER, _request(address, "UDP", 45000, 53))
    chosen = done.request.place.netns.partition("/")[2]
    acts: Acts = {
        1: ("a Service changes", lambda: world.apply(deployment(4))),
        2: ("the pod that answers goes", _delete(world, chosen, "kube-system")),
    }
    return watch(world, "kube-dns", 14, acts, namespace="kube-system", port=45000, calls=3)


def affinity(seconds: int = 4, pause: int = 5) -> TimeLine:
    """`sessionAffinity: ClientIP`: one pod as long as calls come often enough; after a longer pause any may be next."""
    config = {"clientIP": {"timeoutSeconds": seconds}}
    world = _shop(seed=2, session_affinity="ClientIP", session_affinity_config=config)
    acts: Acts = {5: ("silence begins", lambda: None), 5 + pause: ("calls again", lambda: None)}
    return watch(world, "backend", 9 + pause, acts, silent=range(5, 5 + pause))
