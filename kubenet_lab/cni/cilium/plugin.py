"""cilium-cni: asks the node's agent for an address, makes the veth pair, sets the pod's routes, and has the agent make
an endpoint of it. Source: plugins/cilium-cni of Cilium.

    pod eth0   10.244.0.5/32, default via 10.244.0.1 (cilium_host's address) mtu 1450
    host       lxc<hash>, no address; tc programs do the rest

The agent's memory is two files of the model's host: `IPAM` (its pool, who has which address) and `SOCKET`.
"""

from __future__ import annotations

import hashlib
import json

from kubenet_lab.cni.plugin import (
    PLUGIN_NOT_AVAILABLE,
    Call,
    CniError,
    Interface,
    Ip,
    Json,
    Plugin,
    Result,
    RouteEntry,
)
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.put_off import peek
from kubenet_lab.packet.ip import ip_text, mac_from, prefix

SOCKET = "/var/run/cilium/cilium.sock"
IPAM = "/var/run/cilium/state/ipam.json"


def lxc_name(container_id: str, ifname: str) -> str:
    """The pod's end on the host: "lxc" and twelve digits of a hash (pkg/datapath/connector, Endpoint2IfName)."""
    return "lxc" + hashlib.sha256(f"{container_id}:{ifname}".encode()).hexdigest()[:12]


def _agent(call: Call) -> Json:
    """What the agent answers to GET /config. Raises CniError when none runs."""
    text = call.files.get(SOCKET)
    if text is None:
        raise CniError(
            "unable to connect to Cilium agent: failed to create cilium agent client after 30.000000 seconds timeout: "
            f'Get "http://localhost/v1/config": dial unix {SOCKET}: connect: no such file or directory\n'
            "Is the agent running?"
        )
    config: Json = json.loads(text)
    return config


def _allocate(files: dict[str, str], owner: str, wanted: str = "") -> str:
    """POST /ipam: the next free address of the node's pool (a random one in reality). Raises CniError."""
    memory = json.loads(files[IPAM])
    block, taken = prefix(memory["pool"]), memory["allocated"]
    if wanted:
        if taken.get(wanted, owner) != owner or wanted not in block:
            raise CniError(
                "unable to allocate IP via local cilium agent: [POST /ipam/{ip}][500] postIpamIpFailure  "
                f"provided IP {'is not in the valid range' if wanted not in block else 'is already allocated'}"
            )
        address = wanted
    else:
        size = 1 << (32 - block.length)
        free = (ip_text(block.net + n, 4) for n in range(1, size - 1))
        address = next((one for one in free if one not in taken), "")
        if not address:
            raise CniError(
                "unable to allocate IP via local cilium agent: [POST /ipam][502] postIpamFailure  range is full"
            )
    taken[address] = owner
    files[IPAM] = json.dumps(memory)
    return address


def _release(node: Netns, owner: str) -> None:
    """DELETE /ipam/{ip}, for whatever an owner has."""
    memory = json.loads(node.files[IPAM])
    memory["allocated"] = {ip: who for ip, who in memory["allocated"].items() if who != owner}
    node.files[IPAM] = json.dumps(memory)


def _owner(call: Call) -> str:
    return f"{call.container_id}:{call.ifname}"


def add(call: Call) -> Result:
    """Address, veth pair, routes, endpoint. An address that was given is kept when a later step fails."""
    agent = _agent(call)
    sandbox, node = call.sandbox(), call.node
    address = _address(call) if call.answer is None else call.answer.ips[0].address
    host_end = lxc_name(call.container_id, call.ifname)
    if call.ifname in sandbox.links:
        raise CniError(
            f'unable to set up veth on host side: unable to create veth pair: failed to rename "{host_end}" to '
            f'"{call.ifname}": file exists'
        )
    mac = mac_from(sandbox.name, call.ifname)
    host_mac = mac_from(node.name, host_end)
    call.network.add_veth(
        sandbox.name, call.ifname, node.name, host_end, mac_a=mac, mac_b=host_mac, mtu=agent["deviceMTU"]
    )
    node.set_link(host_end, up=True)
    sandbox.set_link(call.ifname, up=True)
    sandbox.add_address(call.ifname, f"{address}/32")
    gateway = str(agent["router"])
    sandbox.add_route(f"{gateway}/32", dev=call.ifname)
    mtu = int(agent["routeMTU"]) if agent["routeMTU"] != agent["deviceMTU"] else 0
    sandbox.add_route("default", via=gateway, dev=call.ifname, mtu=mtu)
    return Result(
        interfaces=(
            Interface(host_end, host_mac),
            Interface(call.ifname, mac, call.netns),
        ),
        ips=(Ip(f"{address}/32", gateway, 1),),
        routes=(RouteEntry(f"{gateway}/32"), RouteEntry("0.0.0.0/0", gateway)),
    )


def plan(call: Call) -> Result | None:
    """Ask the agent for the address, where nothing can be in the way of the pair."""
    if _agent(call) and lxc_name(call.container_id, call.ifname) in peek(call.node, "links"):
        return None
    return Result(ips=(Ip(_address(call)),))


def _address(call: Call) -> str:
    given = dict(pair.split("=", 1) for pair in call.args.split(";") if "=" in pair)
    return _allocate(call.files, _owner(call), given.get("IP", ""))


def delete(call: Call) -> None:
    """Give the address back and remove the pair; what is gone already is no error, nor is an agent that is away."""
    if IPAM in call.node.files:
        _release(call.node, _owner(call))
    host_end = lxc_name(call.container_id, call.ifname)
    if host_end in call.node.links:
        call.node.delete_link(host_end)


def check(call: Call) -> None:
    """Compare the interface and its addresses with `prevResult`. Raises CniError."""
    result = call.prev_result()
    if result is None:
        raise CniError("failed to parse prev result: prevResult is missing")
    sandbox = call.sandbox()
    if call.ifname not in sandbox.links:
        raise CniError(f"cannot find container link {call.ifname}")
    present = {f"{a.local}/{a.length}" for a in sandbox.addrs(call.ifname)}
    for ip in result.ips:
        if ip.address not in present:
            raise CniError(f"expected ip {ip.address} not found on interface {call.ifname}")


def status(call: Call) -> None:
    """STATUS: the agent must answer. Raises CniError with code 50, "plugin not available"."""
    try:
        _agent(call)
    except CniError as fault:
        raise CniError("DaemonDown", PLUGIN_NOT_AVAILABLE, fault.msg) from fault


PLUGIN = Plugin(name="cilium-cni", add=add, delete=delete, check=check, status=status, plan=plan)
