"""The composition root: a cluster is a store, a network and a clock, and this module alone knows what joins them.

objects -> store -> control loops -> machines, CNI, kubelet, kube-proxy, CoreDNS -> kernel state -> walk -> trip
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from kubenet_lab import control, manifests
from kubenet_lab.announce import BgpAnnouncer, Layer2Announcer
from kubenet_lab.clock import Clock
from kubenet_lab.cni.bridge.network import Bridge
from kubenet_lab.cni.calico.network import Calico, CalicoIpip, CalicoVxlan
from kubenet_lab.cni.cilium.network import Cilium, CiliumNative
from kubenet_lab.cni.flannel.network import Flannel, FlannelHostGw, FlannelWireguard
from kubenet_lab.cni.nothing import NoNetwork
from kubenet_lab.cni.pod_network import MakePodNetwork
from kubenet_lab.cni.runtime import Runtime
from kubenet_lab.cni.sample import Sample
from kubenet_lab.control import Settings, deletion, kubelet, machine
from kubenet_lab.control.cloud_lb import CloudSettings
from kubenet_lab.control.cloud_lb_machine import CloudLoadBalancer
from kubenet_lab.control.load_balancer import LoadBalancer, MakeLoadBalancer
from kubenet_lab.control.pod_workers import PodWorkers
from kubenet_lab.daemon import Daemon, World
from kubenet_lab.dns.daemon import ClusterDns
from kubenet_lab.dns.nodelocal import NodeLocalDns
from kubenet_lab.dns.server.coredns import CoreDNS
from kubenet_lab.errors import DidNotSettle, InputError, NotFound, NotRunning
from kubenet_lab.errors import Fault as Malformed
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.put_off import files_now, host_addresses
from kubenet_lab.kernel.socket import Handler
from kubenet_lab.objects import AnyObject, Node, Pod, Service
from kubenet_lab.objects.node import default_nodes
from kubenet_lab.objects.pod import ListeningPort
from kubenet_lab.packet.ip import prefix
from kubenet_lab.packet.packet import ICMP, ICMPV6, SYN, TCP, UDP, Packet
from kubenet_lab.policy.agent import IptablesAgents, NftablesAgents
from kubenet_lab.proxy.daemon import KubeProxies, KubeProxyView
from kubenet_lab.proxy.ebpf import ProxyEbpf
from kubenet_lab.proxy.iptables import KubeProxyIptables
from kubenet_lab.proxy.ipvs import KubeProxyIpvs
from kubenet_lab.proxy.mode import MakeProxy
from kubenet_lab.proxy.nftables import KubeProxyNftables
from kubenet_lab.store import Store
from kubenet_lab.target import Target, parse_target
from kubenet_lab.trip import Trip
from kubenet_lab.walk.deliver import own_mss
from kubenet_lab.walk.engine import Chooser, Walk
from kubenet_lab.walk.exchange import Exchange, exchange

if TYPE_CHECKING:
    from kubenet_lab.faults import Fault
    from kubenet_lab.policy.explain import Explanation
    from kubenet_lab.policy.world import World as PolicyWorld
    from kubenet_lab.reach import Reach
    from kubenet_lab.twin import Twin

CLUSTER_DNS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"
MOST_ROUNDS = 10_000
"""Rounds after which loops and agents are taken to work against each other; a StatefulSet makes one pod a round."""
COREDNS = Path(__file__).parent / "scenarios" / "coredns.yaml"
"""CoreDNS as kubeadm installs it."""


class Cluster:
    """A running cluster.

    Args:
        objects: What `kubectl apply` would bring; Nodes among them, or `nodes` of them are made.
        nodes: How many nodes to make where the objects name none.
        seed: One seed gives one world.
        cni: The pod network, a name in `CNIS`.
        proxy: The Service data plane, a name in `PROXIES`.
        policy: Who enforces NetworkPolicy beside the pod network, a name in `POLICY_AGENTS`; "none": nobody.
        load_balancer: Who serves Services of type LoadBalancer, a name in `LOAD_BALANCERS`; "none": nobody.
        settings: What the control plane was started with.

    Raises:
        InputError: For what the API server or a loop refuses; nothing has been built then.
    """

    def __init__(
        self,
        objects: Iterable[AnyObject] = (),
        *,
        nodes: int = 3,
        seed: int = 0,
        cni: str = "flannel",
        proxy: str = "iptables",
        policy: str = "none",
        load_balancer: str = "none",
        settings: Settings | None = None,
    ) -> None:
        _one_of("cni", cni, CNIS)
        _one_of("proxy", proxy, PROXIES)
        _one_of("policy", policy, ("none", *POLICY_AGENTS))
        _one_of("load_balancer", load_balancer, ("none", *LOAD_BALANCERS))
        self.seed = seed
        self.cni = cni
        self.proxy = proxy
        self.policy = policy
        self.settings = settings or Settings()
        self.clock = Clock()
        self.store = Store(seed=seed, clock=self.clock)
        self.network = Network()
        self.events: list[tuple[str, kubelet.Event]] = []
        """(pod, event) in order: what `kubectl get events` would show."""
        self._machine_names: set[str] = set()
        self._running: dict[str, Pod] = {}
        self._to_start: dict[str, None] = {}
        """Pods that no kubelet has started yet."""
        self._pods_heard = self.store.watch("Pod")
        self._machines_heard = False
        """Whether machines, daemons and kubelets were asked since the transaction began."""
        self._workers = PodWorkers(
            self.store,
            self.network,
            self.settings,
            lambda pod, event: self.events.append((pod, event)),
            seed,
            self._handler,
        )
        world = World(
            self.store,
            self.network,
            self.settings.cluster_cidr,
            self.settings.service_cluster_ip_range,
            seed,
        )
        self.pod_network = CNIS[cni](world)
        self.node_dns = NodeLocalDns(world)
        self.core_dns = ClusterDns(world, self._program_ended, self.settings.coredns_watch_seconds)
        """CoreDNS in its pods: processes, what they know of the API, memory."""
        self.daemons: list[Daemon] = [self.pod_network, self.node_dns, self.core_dns]
        """Whatever runs on the nodes beside kubelet and kube-proxy, in the order in which they are asked."""
        if policy != "none":
            self.daemons.append(POLICY_AGENTS[policy](world))
        self.load_balancer: LoadBalancer | None = None
        if load_balancer != "none":
            self.load_balancer = LOAD_BALANCERS[load_balancer](world)
            self.daemons.append(self.load_balancer)
        self.kube_proxies = KubeProxies(
            world,
            PROXIES,
            proxy,
            flags=self.settings.kube_proxy,
            latency=self.settings.sync_seconds,
            start_seconds=self.settings.start_seconds,
        )
        """The Service data plane's program on every node: when it syncs, stops and starts."""
        self._built = False
        self._calls = 0
        self._labels: dict[str, str] | None = None
        wanted = list(objects)
        if not any(isinstance(obj, Node) for obj in wanted):
            wanted = [*default_nodes(nodes, dual_stack=len(self.settings.cluster_cidr) > 1), *wanted]
        with _no_collecting():
            self.store.apply_all(wanted)
            self.settle()
        self._built = True

    @classmethod
    def from_files(
        cls, *paths: str | Path, nodes: int = 3, lenient: bool = False, dns: bool = True, **options: Any
    ) -> Cluster:
        """Build a cluster from manifests: files, folders, "-" for standard input, or YAML text.

        CoreDNS as kubeadm installs it is added unless the manifests bring a Service `kube-system/kube-dns`, or `dns`
        is False. Raises InputError with every fault, before anything is built.
        """
        return cls.from_objects(manifests.load(*paths, lenient=lenient), nodes=nodes, dns=dns, **options)

    @classmethod
    def from_objects(
        cls, objects: Iterable[AnyObject], *, nodes: int = 3, dns: bool = True, **options: Any
    ) -> Cluster:
        """Build a cluster from objects that were read already, as `from_files` does.

        They may be a dump (`kubectl get -A -o json`), whole or in part: pods keep their nodes and addresses, and an
        owner that was not dumped is not taken for one that was deleted.
        """
        given = _unlisted_owners([*objects])
        if dns and not any(_is(obj, "Service", "kube-dns") for obj in given):
            given = [*manifests.load(COREDNS), *given]
        elif dns and not any(_is(obj, "ConfigMap", "coredns") for obj in given):
            # CoreDNS without its Corefile: `kubectl get all` leaves it out. kubeadm's stands in for it.
            given = [*(obj for obj in manifests.load(COREDNS) if obj.kind == "ConfigMap"), *given]
        options.setdefault("settings", _settings_of(given))
        return cls(given, nodes=nodes, **options)

    def __repr__(self) -> str:
        pods, services = len(self.store.list("Pod")), len(self.store.list("Service"))
        nodes = len(self.store.list("Node"))
        return f"<Cluster of {nodes} nodes, {pods} pods, {services} Services; {self.cni}, {self.proxy}>"

    # -- changing it ----------------------------------------------------------------------------------------------

    def apply(self, *sources: str | Path, lenient: bool = False) -> list[AnyObject]:
        """`kubectl apply -f SOURCE`: files, folders or YAML text; then let every loop and agent do its part.

        Raises InputError (nothing has changed then) or what the API server answers.
        """
        return self.apply_objects(manifests.load(*sources, lenient=lenient))

    def apply_objects(self, objects: Iterable[AnyObject]) -> list[AnyObject]:
        """`apply` for objects that were read already; all or nothing."""
        with self._wish():
            done = self.store.apply_all(objects)
            self.settle()
        return done

    def delete(
        self, kind: str, name: str, namespace: str = "default", *, propagation: str = "Background"
    ) -> None:
        """`kubectl delete KIND NAME -n NAMESPACE [--cascade=background|foreground|orphan]`. Raises NotFound."""
        place = "" if kind in ("Node", "Namespace") else namespace
        with self._wish():
            wished = deletion.wish(
                self.store, kind, name, place, propagation=propagation, settings=self.settings
            )
            control.apply(self.store, wished)
            self.settle()

    def advance(self, seconds: float) -> None:
        """Let simulated time pass; what falls due on the way happens at its moment, then all settles.

        Kubelets probe their pods, restart containers and end deleted pods at their moments (`control.pod_workers`).
        Raises ValueError for a negative time.
        """
        end = self.clock.after(seconds).now
        while True:
            daemons = (daemon.next for daemon in self.daemons)
            due = (control.next_due(self.store), self._workers.next, self.kube_proxies.next, *daemons)
            moment = min([end, *(max(at, self.now) for at in due if at is not None)])
            self.clock = self.store.clock = Clock(moment)
            self.settle()
            if moment >= end:
                return

    def crash(self, pod: str, container: str = "", *, exit_code: int = 1, namespace: str = "default") -> None:
        """`kubectl exec POD -c CONTAINER -- kill 1`: a program ends; its kubelet sees to the rest as time passes.

        `container` is by default the pod's first. Raises NotFound, or NotRunning when it is down already.
        """
        with self.transaction():
            found = self.pod(pod, namespace)
            control.apply(self.store, self._workers.crash(found, container, exit_code, now=self.now))
            self.settle()

    def reboot(self, node: str) -> None:
        """`reboot` on a node: rules, routes, connections and sandboxes are gone, and all of it is made anew.

        The machine is up again at once, and its pods get new sandboxes. Not modelled: how long it is away, and that its
        containers count one restart more. Raises NotFound.
        """
        self.node(node)
        with self.transaction():
            for key in [key for key, pod in self._running.items() if pod.spec.node_name == node]:
                kubelet.stop_pod(self.network, self._running.pop(key), now=self.now)
                self._to_start[key] = None
            self._switch_off(node)
            self.settle()

    def stop_kube_proxy(self, node: str = "") -> None:
        """End kube-proxy on a node, or on all: the kernel keeps its rules, and nobody changes them. Raises NotFound."""
        self.kube_proxies.stop(node)

    def start_kube_proxy(self, node: str = "", *, mode: str = "") -> None:
        """Start kube-proxy on a node, or on all, perhaps in another mode (a name in `PROXIES`). Raises NotFound."""
        self.kube_proxies.start(node, mode=mode)

    def restart_kube_proxy(self, node: str = "") -> None:
        """`kubectl rollout restart daemonset/kube-proxy`, on one node or all. Raises NotFound."""
        self.kube_proxies.restart(node)

    def clean_up_kube_proxy(self, node: str = "") -> None:
        """`kube-proxy --cleanup` on a node, or on all. Raises NotFound."""
        self.kube_proxies.clean_up(node)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Let the world be as before when something inside fails."""
        with _no_collecting():
            yield from self._transaction()

    @contextmanager
    def _wish(self) -> Iterator[None]:
        """A transaction that only writes objects, and settles: what the control plane refuses no machine has seen."""
        with _no_collecting():
            yield from self._transaction(wish=True)

    def _transaction(self, wish: bool = False) -> Iterator[None]:
        before, self._machines_heard = self._machines_heard, False
        store, network = self.store.snapshot(), self.network.snapshot()
        running, labels, events = dict(self._running), self._labels, len(self.events)
        machines = set(self._machine_names)
        workers, proxies = self._workers.snapshot(), self.kube_proxies.snapshot()
        try:
            yield
        except BaseException:
            self.store.restore(store)
            if wish and not self._machines_heard:
                raise
            self.network.restore(network)
            self._running, self._labels, self._machine_names = running, labels, machines
            self._pods_heard.poll()
            present = (f"{pod.namespace}/{pod.name}" for pod in self.store.list(Pod))
            self._to_start = {key: None for key in present if key not in running}
            self._workers.restore(workers)
            self.kube_proxies.restore(proxies)
            del self.events[events:]
            self._restart_agents()
            raise
        finally:
            self._machines_heard |= before

    def _restart_agents(self) -> None:
        """After a restore the daemons read the API and the kernel anew, as restarted ones do."""
        for daemon in self.daemons:
            daemon.restart()

    def settle(self) -> None:
        """Run control loops and node agents until nothing changes (`cluster.py`'s list of steps, in order)."""
        for _round in range(MOST_ROUNDS):
            done = control.settle(self.store, self.settings)
            changes = bool(done)
            self._machines_heard = True
            changes |= self._machines()
            changes |= self._daemons()
            changes |= self._kubelets()
            if not changes:
                break
        else:
            raise DidNotSettle(MOST_ROUNDS, str(done[-1]) if done else "a node agent's")
        self.kube_proxies.reconcile()
        if self.load_balancer is not None:
            self.load_balancer.settled()
        self._labels = None

    def _machines(self) -> bool:
        """A Node object is a machine: build the new ones, switch off the deleted ones."""
        nodes = {node.name: node for node in self.store.list(Node)}
        changed = False
        for name in [name for name in self._machine_names if name not in nodes]:
            self._switch_off(name)
            changed = True
        for name, node in nodes.items():
            if name in self.network.netns:
                continue
            address = next((ip for ip in node.internal_ips if ":" not in ip), "")
            if not address:
                raise InputError(
                    f"Node {name}: status.addresses has no IPv4 InternalIP; the nodes' network here is IPv4"
                )
            six = next((f"{ip}/64" for ip in node.internal_ips if ":" in ip), "")
            machine.check_address(name, address)
            space = machine.build_node(self.network, name, f"{address}/24", address6=six)
            self.pod_network.prepare(node, space)
            self._machine_names.add(name)
            changed = True
        return changed

    def _switch_off(self, name: str) -> None:
        """A machine is off: its kernel's state is gone, and so is whatever ran there."""
        machine.remove_node(self.network, name)
        self._machine_names.discard(name)
        for daemon in self.daemons:
            daemon.forget(name)
        self.kube_proxies.forget(name)

    def _daemons(self) -> bool:
        """The daemons of all nodes, then the kubelets' word on whether their node has a network."""
        changed = False
        for daemon in self.daemons:
            changed |= daemon.reconcile()
        for node in self.store.list(Node):
            judged = kubelet.node_condition(node, self.network)
            if judged is not node:
                self.store.update(judged)
                changed = True
        return changed

    def _kubelets(self) -> bool:
        """Start pods that were bound to a node, stop those that were deleted, do what is due to those that run."""
        changed = bool(control.apply(self.store, self._workers.run(self.now)))
        again = self._workers.again(self.now)
        heard = dict.fromkeys(
            (event.object.namespace, event.object.name) for event in self._pods_heard.poll()
        )
        for namespace, name in [*heard, *(tuple(key.split("/", 1)) for key in sorted(again))]:
            key, pod = f"{namespace}/{name}", self.store.find(Pod, name, namespace)
            old = self._running.get(key)
            if old is not None and (
                pod is None or pod.metadata.uid != old.metadata.uid or pod.finished or key in again
            ):
                kubelet.stop_pod(self.network, old, now=self.now)
                del self._running[key]
                changed = True
            if pod is None:
                self._to_start.pop(key, None)
            elif key not in self._running:
                self._to_start[key] = None
        runtimes: dict[str, Runtime] = {}
        files = self._files()
        wanted = [pod for pod in self.store.list(Pod) if self._startable(pod)] if self._to_start else []
        # Pods that had an address before (a dump's) come first, so that nobody else is given it.
        for pod in sorted(wanted, key=lambda pod: not pod.ips):
            key = f"{pod.namespace}/{pod.name}"
            node = self.store.get(Node, pod.spec.node_name)
            runtime = runtimes.setdefault(node.name, Runtime(self.network, node.name))
            started = kubelet.start_pod(
                self.network,
                pod,
                node,
                files=files,
                handlers=self._handler,
                runtime=runtime,
                now=self.now,
                timed=self._built,
                put_off=True,
            )
            told = self._workers.started(pod, started, self.now, timed=self._built)
            self.events += [(key, event) for event in started.events]
            self._running[key] = pod
            del self._to_start[key]
            if told != pod:
                self.store.update(told)
                changed = True
        return changed

    def _startable(self, pod: Pod) -> bool:
        """Whether a kubelet has to start a pod that waits for one."""
        return (
            f"{pod.namespace}/{pod.name}" in self._to_start
            and pod.spec.node_name in self.network.netns
            and not pod.finished
        )

    def _files(self) -> kubelet.Files:
        """What makes the files the kubelets write for pods that they start now."""
        from kubenet_lab.dns.resolvconf import RESOLV_CONF, KubeletDns, hosts_text, pod_dns

        server = self.cluster_dns

        def files(pod: Pod) -> Mapping[str, str]:
            host = files_now(self.network.ns(pod.spec.node_name)).get(RESOLV_CONF, "")
            dns = pod_dns(pod, KubeletDns((server,), CLUSTER_DOMAIN, host))
            return {RESOLV_CONF: dns.text(host), "/etc/hosts": hosts_text(pod, pod.ips, CLUSTER_DOMAIN)}

        return files

    @property
    def cluster_dns(self) -> str:
        """The kubelets' `clusterDNS`: the address of Service kube-system/kube-dns, or where kubeadm puts it."""
        service = self.store.find(Service, "kube-dns", "kube-system")
        return service.addresses[0] if service is not None and service.addresses else CLUSTER_DNS

    def _handler(self, pod: Pod, port: ListeningPort) -> Handler | None:
        """The program behind a port: CoreDNS by its image; any other UDP server sends back what it got."""
        return self.core_dns.handler(pod, port) or (_echo if port.protocol == "UDP" else None)

    def _program_ended(self, pod: Pod, container: str, exit_code: int, reason: str) -> None:
        """A program ended by itself; its kubelet has to hear of it."""
        changes = self._workers.crash(
            self.store.get(Pod, pod.name, pod.namespace), container, exit_code, now=self.now, reason=reason
        )
        control.apply(self.store, changes)

    @property
    def dns(self) -> dict[str, CoreDNS]:
        """CoreDNS servers that run, by pod ("kube-system/coredns-...")."""
        return self.core_dns.servers

    # -- looking at it --------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Simulated time in s."""
        return self.clock.now

    def node(self, name: str) -> NodeView:
        """Return a node by name. Raises NotFound."""
        if self.store.find(Node, name) is None:
            raise NotFound("Node", name, resource="nodes", known=[n.name for n in self.store.list(Node)])
        return NodeView(self.network.ns(name), lambda: self.now)

    def kube_proxy(self, node: str) -> KubeProxyView:
        """Return how kube-proxy stands on a node: state, moments, counts, log. Raises NotFound."""
        return self.kube_proxies.view(node)

    def pod(self, name: str, namespace: str = "default") -> Pod:
        """Return a pod by name, "namespace/name", or the name of its Deployment (then its first pod).

        Raises NotFound with the names that come close.
        """
        if "/" in name:
            namespace, name = name.split("/", 1)
        found = self.store.find(Pod, name, namespace)
        if found is not None:
            return found
        pods = self.store.list(Pod, namespace)
        owned = sorted((p for p in pods if name and _workload(p) == name), key=lambda p: p.name)
        if owned:
            return owned[0]
        raise NotFound("Pod", name, namespace, "pods", known=[p.name for p in pods])

    def namespace_of(self, source: str) -> str:
        """Return the network namespace a caller is in.

        `source` is "pod", "namespace/pod", "node/NAME", or an address outside the cluster.

        Raises:
            NotFound: There is no such pod or node.
            NotRunning: The pod has no network.
            InputError: No host outside can have that address.
        """
        if source.startswith("node/"):
            return self.node(source.removeprefix("node/")).ns.name
        if _is_address(source):
            return self._caller_at(source)
        pod = self.pod(source)
        name = kubelet.netns_name(pod)
        if not name or name not in self.network.netns:
            raise NotRunning(f"{pod.namespace}/{pod.name}", self._why_not_running(pod))
        return name

    def _why_not_running(self, pod: Pod) -> str:
        node, key = pod.spec.node_name, f"{pod.namespace}/{pod.name}"
        if pod.finished:
            return f"it has {pod.status.phase.lower()}"
        if not node:
            told = [c.message for c in pod.status.conditions if c.type == "PodScheduled" and c.message]
            return told[0] if told else "no node fits it"
        if self.store.find(Node, node) is None:
            names = ", ".join(other.name for other in self.store.list(Node))
            return f"it is bound to node {node}, which does not exist; there are: {names}"
        told = [event.message for name, event in self.events if name == key]
        said = self.pod_network.last_words(node)
        log = f" ({said})" if said else ""
        return (told[-1] if told else "its sandbox could not be made") + log

    def _caller_at(self, address: str) -> str:
        special = _special(address)
        if special:
            raise _no_caller(address, special)
        owner = self.network.find_address(address)
        if owner is not None:
            return owner.name
        why = self._nobodys(address)
        if why:
            raise _no_caller(address, why)
        # A caller somewhere outside: one more address of the host outside, which the router then knows the way to.
        outside, router = self.network.ns(machine.OUTSIDE), self.network.ns(machine.ROUTER)
        fam = 6 if ":" in address else 4
        whole = f"{address}/{32 if fam == 4 else 128}"
        inside = [a.network for ns in (router, outside) for a in ns.addrs(fam=fam) if a.dev != "lo"]
        outside.add_address("eth0", whole)
        if not any(address in block for block in inside):
            way = machine.OUTSIDE_ADDRESS if fam == 4 else machine.OUTSIDE_ADDRESS6
            router.add_route(whole, via=way, dev="eth1")
        return outside.name

    def _nobodys(self, address: str) -> str:
        """Why an address that no machine has cannot be one outside the cluster; "" when it can."""
        known = self.names().get(address)
        if known is not None:
            return f"it is {known}, which sends nothing"
        if any(address in prefix(block) for block in self.settings.service_cluster_ip_range):
            return "it is in the Services' range, and Services send nothing"
        if any(address in prefix(block) for block in self.settings.cluster_cidr):
            return "it is in the pods' range, and no pod has it"
        nodes = [
            a.network for node in self.store.list(Node) for a in self.network.ns(node.name).addrs("eth0")
        ]
        if any(address in block for block in nodes):
            return "it is in the nodes' network, and no machine there has it"
        outside = self.network.ns(machine.OUTSIDE)
        if ":" in address and not any(a.scope == "global" for a in outside.addrs("eth0", 6)):
            return "the world outside speaks IPv4 here"
        return ""

    def names(self) -> dict[str, str]:
        """Return what each address is: "pod default/frontend", "Service default/backend", "node node-1"..."""
        if self._labels is None:
            labels: dict[str, str] = {}
            for name, ns in self.network.netns.items():
                if "/" not in name:
                    kind = "node " if name in self._machine_names else ""
                    for address in host_addresses(ns):
                        if address.dev != "lo" and address.scope != "link":
                            dev = "" if address.dev == "eth0" else f" {address.dev}"
                            labels[address.local] = f"{kind}{name}{dev}"
            for service in self.store.list(Service):
                given = (service.status.load_balancer or {}).get("ingress") or ()
                for ip in (*service.addresses, *(item["ip"] for item in given if item.get("ip"))):
                    labels[ip] = f"Service {service.namespace}/{service.name}"
            for pod in self.store.list(Pod):
                if not pod.spec.host_network:
                    for ip in pod.ips:
                        labels[ip] = f"pod {pod.namespace}/{pod.name}"
            self._labels = labels
        return self._labels

    # -- calls ----------------------------------------------------------------------------------------------------

    def walk(self, choose: Chooser | None = None) -> Walk:
        """Return a walk through this cluster's network at the present moment."""
        self._calls += 1
        return Walk(self.network, now=self.now, choose=choose, seed=self.seed * 1_000_003 + self._calls)

    def connect(
        self,
        source: str,
        target: str,
        *,
        size: int = 0,
        choose: Chooser | None = None,
        port: int | None = None,
    ) -> Trip:
        """Make one call: look the name up, send the request, take the answer.

        Args:
            source: "pod", "namespace/pod", "node/NAME", or an address outside the cluster.
            target: A URL ("http://backend", "tcp://10.96.0.1:443", "udp://10.96.0.10:53"), "host:port", or an address
                (which is pinged).
            size: Payload bytes for UDP and ping.
            choose: Decides random rules; by default seeded.
            port: Overrides the target's port.
        """
        goal = parse_target(target)
        if port is not None:
            goal = replace(goal, port=port)
        return self._call(source, goal, size, choose, "want")

    def ping(
        self, source: str, host: str, *, size: int = 56, df: bool = False, choose: Chooser | None = None
    ) -> Trip:
        """`ping -c1 -s SIZE [-M do] HOST` from a pod or node."""
        return self._call(source, Target(host, host, 0, "icmp"), size, choose, "do" if df else "want")

    # -- policies -------------------------------------------------------------------------------------------------

    def policy_world(self, external: Iterable[str] = ()) -> PolicyWorld:
        """What policies are asked about here: pods, namespaces, nodes, and the policies themselves.

        `external` are outside addresses to ask about beside the pods.
        """
        from kubenet_lab.policy.agent import WATCHED
        from kubenet_lab.policy.world import CLUSTER
        from kubenet_lab.policy.world import World as PolicyWorld

        objects = [obj for kind in WATCHED for obj in self.store.list(kind)]
        return PolicyWorld.from_objects(objects, tuple(external), CLUSTER)

    def reach(self, external: Iterable[str] = ()) -> Reach:
        """Who may reach whom by the policies there are, all pairs and all ports at once.

        It says what policies mean, not what is enforced: `unenforced` tells whether anybody does.
        """
        from kubenet_lab.reach import Reach

        return Reach(self.policy_world(external))

    def explain(self, source: str, destination: str, port: int, protocol: str = "TCP") -> Explanation:
        """Why policies allow or deny a connection. Raises KeyError for what is neither a pod nor an address."""
        from kubenet_lab.policy.explain import explain

        world = self.policy_world()
        return explain(world, world.endpoint(source), world.endpoint(destination), port, protocol)

    @property
    def unenforced(self) -> list[str]:
        """Why policies here are without effect, in sentences; empty where somebody enforces them, or there are none."""
        from kubenet_lab.policy.agent import WATCHED
        from kubenet_lab.reach.findings import inert

        objects = [obj for kind in WATCHED for obj in self.store.list(kind)]
        return inert(objects, self.cni) if self.policy == "none" else []

    def _call(self, source: str, goal: Target, size: int, choose: Chooser | None, pmtudisc: str) -> Trip:
        from kubenet_lab.dns.client import lookup

        ns = self.namespace_of(source)
        walk = self.walk(choose)
        found = lookup(walk, self.network.ns(ns), goal.host)
        done: Exchange | None = None
        if found.addresses:
            address = found.addresses[0]
            done = exchange(
                walk, ns, self._request(ns, goal, address, size, self._source(source, ns)), pmtudisc=pmtudisc
            )
        return Trip(
            self._whole(source, ns),
            ns,
            goal.text,
            goal.host,
            goal.port,
            goal.protocol,
            found.addresses[0] if found.addresses else "",
            found.queries,
            done,
            found.failure,
            self.names(),
            (done.server_ns or None) if done is not None and done.ok else None,
        )

    def _request(self, ns: str, goal: Target, address: str, size: int, source: str) -> Packet:
        if goal.protocol == "icmp":
            kind = (ICMPV6, 128) if ":" in address else (ICMP, 8)
            return Packet(source, address, kind[0], icmp_type=kind[1], icmp_seq=1, payload_size=size)
        if goal.protocol == "udp":
            return Packet(source, address, UDP, 0, goal.port, payload_size=size)
        mss = own_mss(self.network.ns(ns), address, source)
        return Packet(source, address, TCP, 0, goal.port, flags=SYN, mss=mss)

    def _whole(self, source: str, ns: str) -> str:
        return ns if "/" in ns else source

    def _source(self, source: str, ns: str) -> str:
        """An outside caller speaks from the very address it was named by."""
        return source if _is_address(source) and ns == machine.OUTSIDE else ""

    # -- breaking it ----------------------------------------------------------------------------------------------

    @contextmanager
    def fault(self, name: str, **details: Any) -> Iterator[Fault]:
        """Break something for the length of a `with` block: `with shop.fault("fdb-entry-missing"): ...`."""
        from kubenet_lab.faults import make

        fault = make(name, **details)
        undo = fault.inject(self)
        try:
            yield fault
        finally:
            undo()

    def twin(self, **options: Any) -> Twin:
        """Return the same cluster in this machine's kernel (Linux), as a context manager."""
        from kubenet_lab.twin import Twin

        return Twin(self.network, **{"now": self.now, **options})

    # -- pictures -------------------------------------------------------------------------------------------------

    def map(self) -> Any:
        """Return the picture of the cluster."""
        from kubenet_lab.views import cluster_picture

        return cluster_picture(self.network, self.names())

    def _repr_html_(self) -> str:
        from kubenet_lab.views import cluster_html

        return cluster_html(self.network, self.names())


class NodeView:
    """A node's texts, as its own tools print them."""

    def __init__(self, ns: Netns, now: Callable[[], float] = lambda: 0.0) -> None:
        self.ns = ns
        self.name = ns.name
        self._now = now

    def __repr__(self) -> str:
        return f"<node {self.name}>"

    def iptables_save(self, family: int = 4) -> str:
        """`iptables-save` (or `ip6tables-save`) on this node."""
        from kubenet_lab.kernel.dialects.iptables import save

        return save(self.ns.iptables[family])

    def nft_list_ruleset(self) -> str:
        """`nft list ruleset` on this node."""
        from kubenet_lab.kernel.dialects.nft import list_ruleset

        return list_ruleset(self.ns.nftables, now=self._now())

    def ip_addr(self) -> str:
        """`ip addr` on this node."""
        from kubenet_lab.kernel.dialects import ip_addr

        return ip_addr.show(self.ns)

    def ip_route(self, family: int = 4) -> str:
        """`ip route` (or `ip -6 route`) on this node."""
        from kubenet_lab.kernel.dialects import ip_route

        return ip_route.show(self.ns, family=family)

    def ip_neigh(self) -> str:
        """`ip neigh` on this node."""
        from kubenet_lab.kernel.dialects import ip_neigh

        return ip_neigh.show(self.ns)

    def bridge_fdb(self) -> str:
        """`bridge fdb` on this node."""
        from kubenet_lab.kernel.dialects import bridge_fdb

        return bridge_fdb.show(self.ns)

    def conntrack(self, now: float = 0.0) -> str:
        """`conntrack -L` on this node."""
        from kubenet_lab.kernel.dialects import conntrack

        return conntrack.show(self.ns.conntrack, now)


CNIS: dict[str, MakePodNetwork] = {
    "flannel": Flannel,
    "flannel-host-gw": FlannelHostGw,
    "flannel-wireguard": FlannelWireguard,
    "bridge": Bridge,
    "calico": Calico,
    "calico-ipip": CalicoIpip,
    "calico-vxlan": CalicoVxlan,
    "cilium": Cilium,
    "cilium-native": CiliumNative,
    "sample": Sample,
    "none": NoNetwork,
}
"""Pod networks by the name that `--cni` takes."""
PROXIES: dict[str, MakeProxy] = {
    "iptables": KubeProxyIptables,
    "nftables": KubeProxyNftables,
    "ipvs": KubeProxyIpvs,
    "ebpf": ProxyEbpf,
}
"""Service data planes by the name that `--proxy` takes."""
POLICY_AGENTS: dict[str, Callable[[World], Daemon]] = {"iptables": IptablesAgents, "nftables": NftablesAgents}
"""Who enforces NetworkPolicy where the pod network does not."""
LOAD_BALANCERS: dict[str, MakeLoadBalancer] = {
    "cloud": CloudLoadBalancer,
    "cloud-proxy": partial(CloudLoadBalancer, settings=CloudSettings(ip_mode="Proxy")),
    "l2": Layer2Announcer,
    "bgp": BgpAnnouncer,
}
"""Who gives Services of type LoadBalancer an address, and brings packets for it to the nodes."""


@contextmanager
def _no_collecting() -> Iterator[None]:
    """Building a world makes a million values and no garbage; looking for some would take a third of the time.

    What was made is old then: else the collector would go through all of it twice more, at the first chance.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            if not gc.get_freeze_count():
                gc.freeze()
                gc.unfreeze()
            gc.enable()


def _one_of(name: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise InputError(f"{name}={value!r} is not modelled; write one of: {', '.join(known)}")


def _echo(packet: Packet, now: float) -> Packet:
    return packet


def _is(obj: AnyObject, kind: str, name: str) -> bool:
    return obj.kind == kind and obj.name == name and obj.namespace == "kube-system"


def _settings_of(objects: Iterable[AnyObject]) -> Settings:
    """What the control plane was started with, as far as a dump tells.

    Pod blocks of nodes and addresses of stored Services outside the usual ranges come from other ranges: the /16
    around them, or what holds them all. (A Service that was never stored is asking, and may be refused.)
    """
    settings = Settings()
    blocks = [
        c for o in objects if isinstance(o, Node) for c in (o.spec.pod_cidrs or (o.spec.pod_cidr,)) if c
    ]
    stored = [o for o in objects if isinstance(o, Service) and o.metadata.uid]
    addresses = [ip for service in stored for ip in service.addresses]
    return replace(
        settings,
        cluster_cidr=(_range_around(blocks, settings.cluster_cidr[0]),),
        service_cluster_ip_range=(_range_around(addresses, settings.service_cluster_ip_range[0]),),
    )


def _range_around(texts: Iterable[str], usual: str) -> str:
    """Return the usual IPv4 range if it holds all of these blocks and addresses, else one that does."""
    from ipaddress import IPv4Network

    try:
        blocks = [IPv4Network(text) for text in texts if text not in ("", "None") and ":" not in text]
    except ValueError:
        return usual  # the loops name what is wrong with it
    if all(block.subnet_of(IPv4Network(usual)) for block in blocks):
        return usual
    whole = blocks[0].supernet(new_prefix=min(16, blocks[0].prefixlen))
    while not all(block.subnet_of(whole) for block in blocks):
        whole = whole.supernet()
    return str(whole)


def _unlisted_owners(objects: list[AnyObject]) -> list[AnyObject]:
    """Take the uid off references to owners that are not among the objects: nobody can say that they are gone."""
    listed = {obj.metadata.uid for obj in objects}
    out: list[AnyObject] = []
    for obj in objects:
        owners = obj.metadata.owner_references
        if any(owner.uid not in listed for owner in owners):
            kept = tuple(owner if owner.uid in listed else replace(owner, uid="") for owner in owners)
            out.append(obj.with_metadata(owner_references=kept))
        else:
            out.append(obj)
    return out


def _workload(pod: Pod) -> str:
    """The name of the Deployment (or other owner) a pod belongs to."""
    owner = pod.metadata.controller
    if owner is None:
        return ""
    template_hash = pod.metadata.labels.get("pod-template-hash", "")
    return owner.name.removesuffix(f"-{template_hash}") if template_hash else owner.name


def _special(address: str) -> str:
    """Why no packet of another host can come from an address; "" when it can."""
    from ipaddress import ip_address

    ip = ip_address(address)
    kinds = {
        "a loopback": ip.is_loopback,
        "a multicast": ip.is_multicast,
        "the unspecified": ip.is_unspecified,
        "a link-local": ip.is_link_local,
        "the broadcast": address == "255.255.255.255",
    }
    return next((f"it is {kind} address" for kind, holds in kinds.items() if holds), "")


def _no_caller(address: str, why: str) -> InputError:
    help = "write a pod, node/NAME, or the address of a host outside the cluster, such as 203.0.113.77"
    return InputError([Malformed(f"nobody calls from {address}: {why}", "<source>", help=help)])


def _is_address(text: str) -> bool:
    from kubenet_lab.packet.ip import ip_int

    try:
        ip_int(text)
    except ValueError:
        return False
    return True
