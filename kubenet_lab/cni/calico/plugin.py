"""The CNI plugins calico and calico-ipam.

`calico` makes a veth pair without a bridge: the pod has a /32, its default gateway 169.254.1.1 is nobody's address, and
the host answers ARP for it from caliXXXXXXXXXXX (proxy_arp). Source: `cni-plugin/pkg/{plugin,k8s,dataplane/linux}` of
https://github.com/projectcalico/calico (v3.32).
"""

from __future__ import annotations

from kubenet_lab.cni.calico import names
from kubenet_lab.cni.calico.datastore import Json, NoApiServer
from kubenet_lab.cni.calico.ipam import Asked, Ipam, IpamError
from kubenet_lab.cni.plugin import (
    Call,
    CniError,
    Interface,
    Ip,
    Plugin,
    Result,
    RouteEntry,
)
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.put_off import peek
from kubenet_lab.kernel.route import TABLE_MAIN
from kubenet_lab.packet.ip import family, mac_from

GATEWAY = "169.254.1.1"
HOST_MAC = "ee:ee:ee:ee:ee:ee"
"""MAC of the host's end of every pair: pods never see another."""
MTU_FILE = "/var/lib/calico/mtu"
"""Felix writes there what pods should have."""


def _pod(call: Call) -> tuple[str, str]:
    """(namespace, pod) the runtime told, or the container itself outside Kubernetes."""
    given = dict(pair.partition("=")[::2] for pair in call.args.split(";") if "=" in pair)
    name = given.get("K8S_POD_NAME", "")
    return (given.get("K8S_POD_NAMESPACE", "default"), name) if name else ("default", call.container_id)


def _given(call: Call, key: str) -> str:
    return dict(pair.partition("=")[::2] for pair in call.args.split(";") if "=" in pair).get(key, "")


def handle_id(call: Call) -> str:
    """Return the IPAM handle of an attachment."""
    return f"{call.name}.{call.container_id}"


# -- calico-ipam -----------------------------------------------------------------------------------------------------


def ipam_add(call: Call) -> Result:
    """Give an address a family that is wanted (`assign_ipv4`, on by default, `assign_ipv6`)."""
    conf: Json = call.conf.get("ipam") or {}
    namespace, pod = _pod(call)
    try:
        ipam = Ipam(call.network)
        told = ipam.store.read("namespaces", namespace) or {}
        notes = (ipam.store.read("pods", f"{namespace}.{pod}") or {}).get("annotations") or {}
        notes = {**(told.get("annotations") or {}), **notes}
        node = ipam.store.read("nodes", call.host) or {}
        ips = []
        wanted = _given(call, "IP")
        for fam, on in ((4, conf.get("assign_ipv4", "true")), (6, conf.get("assign_ipv6", "false"))):
            if str(on).lower() != "true" and on is not True:
                continue
            asked = Asked(
                node=call.host,
                handle=handle_id(call),
                attributes={"pod": pod, "namespace": namespace},
                node_labels=node.get("labels") or {},
                namespace_labels=told.get("labels") or {},
                pools=_pools(conf, notes, fam),
            )
            if wanted and family(wanted) == fam:
                ipam.assign_address(wanted, asked)
                ips.append(wanted)
            else:
                ips.append(ipam.assign(asked, fam))
    except IpamError as fault:
        raise CniError(str(fault)) from fault
    except NoApiServer as fault:
        raise CniError("error getting ClusterInformation: connection is refused") from fault
    full = [f"{ip}/{32 if ':' not in ip else 128}" for ip in ips]
    return Result(ips=tuple(Ip(text) for text in full), routes=tuple(RouteEntry(text) for text in full))


def _pools(conf: Json, notes: Json, fam: int) -> tuple[str, ...]:
    """The pools to take from: the pod's (or namespace's) annotation, else the configuration's."""
    import json

    text = notes.get(f"cni.projectcalico.org/ipv{fam}pools")
    if text:
        try:
            return tuple(json.loads(text))
        except ValueError as fault:
            raise CniError(f"failed to parse '{text}' as JSON: {fault}") from fault
    return tuple(conf.get(f"ipv{fam}_pools") or ())


def ipam_delete(call: Call) -> None:
    """Give back what the attachment had; nothing is no error."""
    try:
        Ipam(call.network).release(handle_id(call))
    except NoApiServer as fault:
        raise CniError("error getting ClusterInformation: connection is refused") from fault


def ipam_check(call: Call) -> None:
    """The real plugin's CHECK does nothing and succeeds."""


# -- calico ----------------------------------------------------------------------------------------------------------


def _mtu(call: Call) -> int:
    told = call.files.get(MTU_FILE, "").strip()
    return int(call.conf.get("mtu") or 0) or (int(told) if told.isdigit() else 1500)


def add(call: Call) -> Result:
    """Address, pair, the container's routes, the host's route to the pod."""
    namespace, pod = _pod(call)
    conf: Json = call.conf.get("ipam") or {}
    answer = call.delegate(str(conf.get("type") or "calico-ipam"))
    if answer is None or not answer.ips:
        raise CniError("IPAM plugin returned missing IP config")
    try:
        return _connect(call, answer, names.interface(namespace, pod))
    except (CniError, KernelError):
        call.delegate(str(conf.get("type") or "calico-ipam"), command="DEL")
        raise


def plan(call: Call) -> Result | None:
    """Reserve the addresses, where nothing can be in the way of the pair and of the host's route."""
    namespace, pod = _pod(call)
    node = call.node
    if names.interface(namespace, pod) in peek(node, "links") or not 68 <= _mtu(call) <= 65535:
        return None
    conf: Json = call.conf.get("ipam") or {}
    kind = str(conf.get("type") or "calico-ipam")
    answer = call.delegate(kind, command="ADD")
    tables = [peek(node, "routes").get((fam, TABLE_MAIN), {}) for fam in (4, 6)]
    if answer is None or any(
        dict.__contains__(table, (ip.address, 0, "")) for ip in answer.ips for table in tables
    ):
        call.delegate(kind, command="DEL")
        return None
    return answer


def _connect(call: Call, answer: Result, host_name: str) -> Result:
    node, sandbox, mtu = call.node, call.sandbox(), _mtu(call)
    if host_name in node.links:
        node.delete_link(host_name)
    inside_mac = mac_from(sandbox.name, call.ifname)
    call.network.add_veth(
        node.name, host_name, sandbox.name, call.ifname, mac_a=HOST_MAC, mac_b=inside_mac, mtu=mtu
    )
    node.set_link(host_name, mac=HOST_MAC)
    sysctls(node, host_name, six=any(family(ip.address) == 6 for ip in answer.ips))
    node.set_link(host_name, up=True)
    sandbox.set_link(call.ifname, up=True)
    four = [ip.address.partition("/")[0] for ip in answer.ips if family(ip.address) == 4]
    six = [ip.address.partition("/")[0] for ip in answer.ips if family(ip.address) == 6]
    if four:
        sandbox.add_route(f"{GATEWAY}/32", dev=call.ifname, scope="link")
        sandbox.add_route("0.0.0.0/0", via=GATEWAY, dev=call.ifname)
    for address in four:
        sandbox.add_address(call.ifname, f"{address}/32")
    if six:
        gateway = next(a.local for a in node.addrs(host_name, 6) if a.scope == "link")
        sandbox.add_route("::/0", via=gateway, dev=call.ifname)
    for address in six:
        sandbox.add_address(call.ifname, f"{address}/128")
    sandbox.set_sysctl("net.ipv4.ip_forward", 0)
    for address in (*four, *six):
        _host_route(node, address, host_name)
    return Result(
        interfaces=(Interface(host_name),),
        ips=tuple(Ip(f"{address}/{128 if ':' in address else 32}") for address in (*four, *six)),
    )


def sysctls(node: Netns, host_name: str, *, six: bool = False) -> None:
    """Set what the host's end of a pair needs: answer ARP for everything; with `six` pass on IPv6.

    An IPv6 pod's default route leads to the host's link-local address on the pair, which the host has: what 169.254.1.1
    is in IPv4 needs no trick there. The real plugin sets `proxy_ndp` all the same, which decides nothing as long as
    nobody makes entries for it (`ip neigh add proxy`).

    The real plugin also sets `forwarding` of the link, which ip_forward has set already, and `proxy_delay` to 0: here
    an answer takes no time.
    """
    for key in ("route_localnet", "proxy_arp"):
        node.set_sysctl(f"net.ipv4.conf.{host_name}.{key}", 1)
    if six:
        node.set_sysctl(f"net.ipv6.conf.{host_name}.forwarding", 1)


def _host_route(node: Netns, address: str, dev: str) -> None:
    six = ":" in address
    try:
        node.add_route(f"{address}/{128 if six else 32}", dev=dev, scope="global" if six else "link")
    except KernelError as fault:
        raise CniError(
            f"error adding host side routes for interface: {dev}, error: {fault.strerror}"
        ) from fault


def delete(call: Call) -> None:
    """Give the address back and delete the pair; what is gone already is no error."""
    conf: Json = call.conf.get("ipam") or {}
    call.delegate(str(conf.get("type") or "calico-ipam"))
    sandbox = call.find_sandbox()
    if sandbox is not None and call.ifname in sandbox.links:
        peer = sandbox.link(call.ifname).peer
        sandbox.delete_link(call.ifname)
        if peer is not None and peer.netns == call.host:
            call.node.forget_sysctls(peer.link)


def check(call: Call) -> None:
    """The real plugin's CHECK does nothing and succeeds."""


CALICO = Plugin(name="calico", add=add, delete=delete, check=check, plan=plan)
IPAM = Plugin(name="calico-ipam", add=ipam_add, delete=ipam_delete, check=ipam_check)
PLUGINS = (CALICO, IPAM)
