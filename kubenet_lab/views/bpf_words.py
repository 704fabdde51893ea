"""What a BPF program did, in words: which map it asked, and what the entry there made of the packet."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from kubenet_lab.kernel.bpf import IpcacheEntry, LbService, MapEntry, PolicyKey
from kubenet_lab.packet.packet import endpoint
from kubenet_lab.trace import Hop, Step

Names = Mapping[str, str]

HOOKS = {
    "cil_sock4": "hangs at the root cgroup and runs inside the system call",
    "cil_sock6": "hangs at the root cgroup and runs inside the system call",
    "cil_from_netdev": "hangs at the ingress of the node's own link, before netfilter",
    "cil_to_netdev": "hangs at the egress of the node's own link, after netfilter",
    "cil_from_container": "hangs at the host's end of the pod's veth and sees what the pod sends",
    "cil_to_container": "hangs at the host's end of the pod's veth and sees what the pod is sent",
    "cil_lxc_policy": "is the pod's own program: it judges what the pod is sent",
    "cil_from_overlay": "hangs at the ingress of the tunnel's link",
    "cil_to_overlay": "hangs at the egress of the tunnel's link",
    "cil_from_host": "hangs at cilium_host and sees what the host sends to pods",
    "cil_to_host": "hangs at cilium_net and sees what pods send to the host",
}
"""Where a program hangs, by how its name begins."""


def where(program: str) -> str:
    """Return where a program hangs, in words; "" for one that is not known."""
    return next((text for start, text in HOOKS.items() if program.startswith(start)), "")


def sentence(step: Step, hop: Hop, names: Names, name: Callable[[str, Names], str]) -> str:
    """Return what a step of kind "bpf" means. `name` says an address in words."""
    program = step.spot.split()[0] if step.spot else "a program"
    entry = step.entry
    if step.before is not None and step.after is not None:
        return f"The BPF program {program} rewrites {_change(step, names, name)}{_because(entry)}."
    if isinstance(entry, MapEntry):
        found = f"asks the map {entry.map} for {entry.key} and finds {_found(entry)}"
        return f"The BPF program {program} {found}{': ' + step.note if step.note else ''}."
    return f"The BPF program {program}: {step.note or entry}."


def _found(entry: MapEntry) -> str:
    value = entry.value
    if value is None:
        return "nothing"
    if isinstance(value, LbService) and not value.backend:
        many = "1 backend" if value.count == 1 else f"{value.count} backends"
        return f"a frontend of kind {value.kind} with {many}"
    if isinstance(value, IpcacheEntry):
        return f"identity {value.identity}" + (f" behind node {value.tunnel}" if value.tunnel else "")
    return str(value)


def _because(entry: object) -> str:
    return f", as {entry.map}[{entry.key}] says" if isinstance(entry, MapEntry) else ""


def _change(step: Step, names: Names, name: Callable[[str, Names], str]) -> str:
    before, after = step.before, step.after
    assert before is not None
    assert after is not None
    parts = []
    if (before.dst, before.dport) != (after.dst, after.dport):
        parts.append(
            f"the destination from {endpoint(before.dst, before.dport)} to {_end(after.dst, after.dport, names, name)}"
        )
    if (before.src, before.sport) != (after.src, after.sport):
        parts.append(
            f"the source from {endpoint(before.src, before.sport)} to {_end(after.src, after.sport, names, name)}"
        )
    return " and ".join(parts) or "a header"


def _end(address: str, port: int, names: Names, name: Callable[[str, Names], str]) -> str:
    known = name(address, names)
    return endpoint(address, port) if known == address else f"{known} port {port}"


def title(step: Step) -> str:
    """Return what a step of kind "bpf" is in two or three words."""
    program = step.spot
    if step.before is not None:
        if program.startswith("cil_sock"):
            return "Reply renamed" if "recvmsg" in program else "Backend at the socket"
        if step.before.dst != getattr(step.after, "dst", ""):
            return "Backend drawn (BPF)"
        return "Source rewritten (BPF)"
    if isinstance(step.entry, MapEntry) and "services" in step.entry.map:
        return "Service found (BPF)"
    if isinstance(step.entry, MapEntry) and "policy" in step.entry.map:
        return "Policy map asked"
    return "BPF program"


def is_main(step: Step) -> bool:
    """True for the steps that tell the story: rewrites, verdicts of a policy, ways past netfilter."""
    if step.before is not None or step.note.startswith("redirect"):
        return True
    if not isinstance(step.entry, MapEntry) or not isinstance(step.entry.key, PolicyKey):
        return False
    return bool(step.entry.key.identity or step.entry.key.proto) or step.entry.value is None


_COMMANDS = (
    ("_ct", "cilium-dbg bpf ct list global"),
    ("snat", "cilium-dbg bpf nat list"),
    ("ipcache", "cilium-dbg bpf ipcache list"),
    ("cilium_lxc", "cilium-dbg bpf endpoint list"),
    ("policy", "cilium-dbg bpf policy get --all"),
    ("maglev", "cilium-dbg bpf lb maglev list"),
    ("source_range", "cilium-dbg bpf lb source-ranges list"),
    ("_lb", "cilium-dbg bpf lb list"),
)
"""Part of a map's name -> the command that prints it."""


def command(entry: object) -> str:
    """Return the command that shows the map an entry stands in, "" for none."""
    if not isinstance(entry, MapEntry):
        return ""
    return next((text for part, text in _COMMANDS if part in entry.map), "")
