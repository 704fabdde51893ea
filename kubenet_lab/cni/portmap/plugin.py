"""portmap: forwards ports of the host to the container (a pod's `hostPort`).

It is chained after the plugin that made the interface. This file is its iptables backend, `nftables.py` the other.
Source: `plugins/meta/portmap` (v1.9.1); https://www.cni.dev/plugins/current/meta/portmap/
"""

from __future__ import annotations

from kubenet_lab.cni.interface import hash_with_prefix
from kubenet_lab.cni.plugin import Call, CniError, Plugin, Result, add_lines, chain_lines, has_chain
from kubenet_lab.cni.portmap import nftables
from kubenet_lab.cni.portmap.config import Config, Mapping, load
from kubenet_lab.kernel.sysctl import conf as sysctl_of
from kubenet_lab.packet.ip import family, prefix

DNAT, SETMARK, MASQ = "CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ"
_PORTS_A_RULE = 15
"""What `-m multiport` takes."""


def chain_name(call: Call) -> str:
    """The container's own chain: "CNI-DN-" and 21 hex digits of sha512(network name + container)."""
    return hash_with_prefix(28, "CNI-DN-", f"{call.name}{call.container_id}")


def add(call: Call) -> Result:
    """Forward the ports to the first address of each family in `prevResult`, and pass that result on."""
    conf = load(call)
    result = call.prev_result()
    if result is None:
        raise CniError("must be called as chained plugin")
    if not conf.mappings:
        return result
    done: set[int] = set()
    for ip in result.ips:
        fam = family(ip.address)
        if fam not in done:
            done.add(fam)
            if conf.backend == "nftables":
                nftables.add(call, conf, fam, ip.address)
            else:
                _forward(call, conf, fam, ip.address)
    return result


def _forward(call: Call, conf: Config, fam: int, cidr: str) -> None:
    mine = [item for item in conf.mappings if item.on(fam) != "-"]
    if not mine:
        return
    address = cidr.partition("/")[0]
    own, node = chain_name(call), call.node
    text = ""
    if conf.snat and not conf.external_set_mark_chain:
        text += _mark_chains(call, conf, fam)
    if conf.snat and fam == 4:
        way = node.lookup(address)
        if way is not None:
            # A packet from 127.0.0.1 is sent on to the pod; without this the kernel drops it as martian.
            node.set_sysctl(sysctl_of(4, way.dev, "route_localnet"), 1)
    if not has_chain(node, fam, "nat", DNAT):
        text += f":{DNAT} - [0:0]\n"
        text += "".join(
            f"-A {hook} -m addrtype --dst-type LOCAL -j {DNAT}\n" for hook in ("PREROUTING", "OUTPUT")
        )
    text += f":{own} - [0:0]\n"
    text += "".join(_entry(call, conf, fam, mine)) + "".join(_targets(conf, fam, mine, own, cidr))
    add_lines(node, fam, f"*nat\n{text}COMMIT\n")


def _mark_chains(call: Call, conf: Config, fam: int) -> str:
    """The chains all containers share: one sets the mark, one masquerades what bears it."""
    bit = 1 << conf.mark_masq_bit
    text = ""
    if not has_chain(call.node, fam, "nat", SETMARK):
        comment = '-m comment --comment "CNI portfwd masquerade mark"'
        text += f":{SETMARK} - [0:0]\n-A {SETMARK} {comment} -j MARK --set-xmark {bit:#x}/{bit:#x}\n"
    if not has_chain(call.node, fam, "nat", MASQ):
        comment = '-m comment --comment "CNI portfwd requiring masquerade"'
        text += f":{MASQ} - [0:0]\n-A {MASQ} -m mark --mark {bit:#x}/{bit:#x} -j MASQUERADE\n"
        text += f"-I POSTROUTING 1 {comment} -j {MASQ}\n"
    return text


def _entry(call: Call, conf: Config, fam: int, mine: list[Mapping]) -> list[str]:
    """The rules that lead into the container's chain, one a protocol and 15 ports."""
    conditions = " ".join(conf.conditions_v4 if fam == 4 else conf.conditions_v6)
    comment = f'-m comment --comment "dnat name: \\"{call.name}\\" id: \\"{call.container_id}\\""'
    rules = []
    for protocol in sorted({item.protocol for item in mine}):
        ports = [str(item.host_port) for item in mine if item.protocol == protocol]
        for start in range(0, len(ports), _PORTS_A_RULE):
            some = ",".join(ports[start : start + _PORTS_A_RULE])
            rules.append(
                f"-A {DNAT} {conditions} -p {protocol} {comment} -m multiport --destination-ports {some} "
                f"-j {chain_name(call)}\n"
            )
    return rules


def _targets(conf: Config, fam: int, mine: list[Mapping], own: str, cidr: str) -> list[str]:
    """The container's chain: mark what comes from itself or the host's loopback, then DNAT."""
    address = cidr.partition("/")[0]
    target = address if fam == 4 else f"[{address}]"
    setmark = conf.external_set_mark_chain or SETMARK
    sources = [str(prefix(cidr))] + (["127.0.0.1"] if fam == 4 else [])
    rules = []
    for item in mine:
        match = f"-p {item.protocol} --dport {item.host_port}" + (
            f" -d {item.on(fam)}" if item.on(fam) else ""
        )
        if conf.snat:
            rules += [f"-A {own} {match} -s {source} -j {setmark}\n" for source in sources]
        rules.append(f"-A {own} {match} -j DNAT --to-destination {target}:{item.container_port}\n")
    return rules


def delete(call: Call) -> None:
    """Remove the container's chain and what leads to it; the shared chains stay."""
    own = chain_name(call)
    for fam in (4, 6):
        entries = [line for line in chain_lines(call.node, fam, "nat", DNAT) if line.endswith(f"-j {own}")]
        if has_chain(call.node, fam, "nat", own):
            text = "".join(f"-D{line[2:]}\n" for line in entries)
            add_lines(call.node, fam, f"*nat\n{text}-F {own}\n-X {own}\nCOMMIT\n")
    nftables.remove(call)


def check(call: Call) -> None:
    """Fail unless the container's chain is there for each address."""
    conf = load(call)
    result = call.prev_result()
    if result is None:
        raise CniError("Required prevResult missing")
    for fam in {family(ip.address) for ip in result.ips} if conf.mappings else set():
        if conf.backend == "nftables":
            nftables.check(call, conf, fam)
            continue
        if not has_chain(call.node, fam, "nat", chain_name(call)):
            raise CniError(f"chain {chain_name(call)} not found in table nat")


PLUGIN = Plugin(name="portmap", add=add, delete=delete, check=check, idle=True)
