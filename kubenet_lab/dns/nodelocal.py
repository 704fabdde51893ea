"""NodeLocal DNSCache: node-cache on every node, in front of CoreDNS (KEP-1024).

node-cache runs on the node's own network. It makes a dummy interface, `nodelocaldns`, gives it its link-local
address and the address of the Service kube-dns, and so *is* that Service for the pods of its node: no DNAT, and with
its NOTRACK rules no conntrack entry either, which ends the race of parallel queries. What its cache does not know it
asks over TCP at the Service kube-dns-upstream. When it ends it takes interface and rules away, and the Service's rules
apply again.

Source: https://github.com/kubernetes/dns (cmd/node-cache), and
https://kubernetes.io/docs/tasks/administer-cluster/nodelocaldns/.
"""

from __future__ import annotations

from kubenet_lab.daemon import World
from kubenet_lab.dns.client import upstream_from
from kubenet_lab.dns.server.coredns import CoreDNS
from kubenet_lab.dns.server.corefile import CorefileError
from kubenet_lab.dns.server.view import ServiceView
from kubenet_lab.kernel.dialects import iptables
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.put_off import peek
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.objects import Pod, Service
from kubenet_lab.packet.ip import family, mac_from
from kubenet_lab.packet.packet import TCP, UDP

DEVICE = "nodelocaldns"
LABEL = ("k8s-app", "node-local-dns")
PROGRAM = "node-cache"
SKIP, ALLOW = "NodeLocal DNS Cache: skip conntrack", "NodeLocal DNS Cache: allow DNS traffic"
HEALTH_PORT = 8080


def rules(address: str) -> str:
    """Return what node-cache adds for one of its addresses, as `iptables-restore --noflush` takes it."""
    lines: dict[str, list[str]] = {"raw": [], "filter": []}
    skip, allow = f'-m comment --comment "{SKIP}" -j NOTRACK', f'-m comment --comment "{ALLOW}" -j ACCEPT'
    host = f"{address}/{32 if family(address) == 4 else 128}"
    for proto in ("tcp", "udp"):
        match = f"-p {proto} -m {proto}"
        lines["raw"].append(f"-A PREROUTING -d {host} {match} --dport 53 {skip}")
        lines["raw"].append(f"-A OUTPUT -s {host} {match} --sport 53 {skip}")
        lines["raw"].append(f"-A OUTPUT -d {host} {match} --dport 53 {skip}")
        lines["filter"].append(f"-A INPUT -d {host} {match} --dport 53 {allow}")
        lines["filter"].append(f"-A OUTPUT -s {host} {match} --sport 53 {allow}")
    for way, end in (("-d", "--dport"), ("-s", "--sport")):
        lines["raw"].append(f"-A OUTPUT {way} {host} -p tcp -m tcp {end} {HEALTH_PORT} {skip}")
    return "".join(f"*{table}\n" + "\n".join(found) + "\nCOMMIT\n" for table, found in lines.items())


class NodeLocalDns:
    """node-cache of every node that has a running pod of the DaemonSet; does nothing in a cluster without it."""

    next = None

    def __init__(self, world: World) -> None:
        self.world = world
        self.servers: dict[str, CoreDNS] = {}
        """node-cache's CoreDNS by node."""
        self._pods: dict[str, Pod] = {}
        self._watch = world.store.watch("Pod", "kube-system")
        self._lists = True

    def reconcile(self) -> bool:
        """Start node-cache where its pod runs, stop it where that is gone."""
        self._hear()
        wanted = {
            pod.spec.node_name
            for pod in self._pods.values()
            if pod.status.phase == "Running" and pod.spec.node_name in self.world.network.netns
        }
        changed = False
        for node in sorted(set(self.servers) - wanted):
            self._stop(self.world.network.ns(node))
            changed = True
        for node in sorted(wanted - set(self.servers)):
            changed |= self._start(node)
        return changed

    def forget(self, node: str) -> None:
        """The machine is gone, and with it all that node-cache made."""
        self.servers.pop(node, None)

    def restart(self) -> None:
        """Read pods and machines anew, and start node-cache anew where its pod runs."""
        self.servers.clear()
        self._pods.clear()
        self._lists = True
        self._watch.poll()
        for space in self.world.network.netns.values():
            if space.name == space.host:
                _close(space)
        self.reconcile()

    def _hear(self) -> None:
        if self._lists:
            self._lists = False
            for pod in self.world.store.list(Pod, "kube-system"):
                self._note(pod)
        for event in self._watch.poll():
            if event.type == "DELETED":
                self._pods.pop(event.object.name, None)
            elif isinstance(event.object, Pod):
                self._note(event.object)

    def _note(self, pod: Pod) -> None:
        if pod.metadata.labels.get(LABEL[0]) == LABEL[1]:
            self._pods[pod.name] = pod

    def _start(self, node: str) -> bool:
        """Make interface, rules and sockets. Not yet, while the Service it asks has no address."""
        space = self.world.network.ns(node)
        text = self._corefile(space)
        if not text:
            return False
        try:
            server = CoreDNS(
                text,
                ServiceView(),
                upstream_from(self.world.network, node, lambda: self.world.now, self.world.seed),
                local_ips=self._addresses(node),
                files=dict(space.files),
                hostname=node,
                seed=self.world.seed,
            )
        except CorefileError as error:
            # node-cache ends and is started again; the kubelet's part of that is not played here.
            space.files["/var/log/node-cache"] = f"{error}\n"
            return False
        self.servers[node] = server
        if DEVICE not in space.links:
            space.add_link(DEVICE, "dummy", mac=mac_from(node, DEVICE), noarp=True)
            for address in self._addresses(node):
                space.add_address(DEVICE, f"{address}/{32 if family(address) == 4 else 128}")
                fam = family(address)
                space.set_iptables(fam, iptables.restore(space.iptables[fam], rules(address), noflush=True))
        for address in self._addresses(node):
            for proto in (UDP, TCP):
                space.listen(Socket(proto, address, 53, PROGRAM, handler=server.handle))
        return True

    def _stop(self, space: Netns) -> None:
        """Take away what `_start` made, as node-cache does when it is told to end."""
        server = self.servers.pop(space.name)
        _close(space)
        for address in server.local_ips:
            fam = family(address)
            ruleset = space.iptables[fam]
            text = rules(address).replace("-A ", "-D ")
            space.set_iptables(fam, iptables.restore(ruleset, text, noflush=True))
        if DEVICE in space.links:
            space.delete_link(DEVICE)

    def _addresses(self, node: str) -> tuple[str, ...]:
        """node-cache's `-localip`, of the pod on that node."""
        pod = next(p for p in self._pods.values() if p.spec.node_name == node)
        args = [*pod.spec.containers[0].args]
        given = args[args.index("-localip") + 1] if "-localip" in args else "169.254.20.10"
        return tuple(given.split(","))

    def _corefile(self, space: Netns) -> str:
        found = self.world.store.find("ConfigMap", "node-local-dns", "kube-system")
        service = self.world.store.find(Service, "kube-dns-upstream", "kube-system")
        text = str(found.data.get("Corefile", "")) if found is not None else ""
        if service is None or not service.addresses:
            return ""
        text = text.replace("__PILLAR__CLUSTER__DNS__", service.addresses[0])
        return text.replace("__PILLAR__UPSTREAM__SERVERS__", "/etc/resolv.conf")


def _close(space: Netns) -> None:
    """Close node-cache's sockets: its process has ended."""
    there = peek(space, "sockets").values()
    for socket in [s for group in there for s in group if s.process == PROGRAM]:
        space.close(socket)
