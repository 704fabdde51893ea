"""BPF maps as `cilium-dbg` prints them: `bpf lb|ct|nat|ipcache|endpoint|policy` and `service list`.

Columns as Go's text/tabwriter sets them: three spaces between cells, every cell padded, sorted by the first one.
https://docs.cilium.io/en/stable/cmdref/cilium-dbg/. What the model does not count (bytes, TCP flags seen, reports) is
left out of a line rather than printed as 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kubenet_lab.kernel.bpf import (
    RESERVED,
    BpfState,
    CtEntry,
    LbKey,
    PolicyKey,
    proto_text,
    slot_of,
    sort_key,
)
from kubenet_lab.packet.packet import endpoint

_CT_FLAGS = {
    "RxClosing": 0x1,
    "TxClosing": 0x2,
    "LBLoopback": 0x8,
    "SeenNonSyn": 0x10,
    "NodePort": 0x20,
    "ProxyRedirect": 0x40,
    "DSR": 0x80,
}


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Lay rows out as tabwriter does with minimal width 5 and padding 3."""
    widths = [max(5, *(len(row[i]) for row in rows)) + 3 for i in range(len(rows[0]) - 1)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)]
        lines.append(("".join(cells) + row[-1]).rstrip() + "\n")
    return "".join(lines)


def lb_list(state: BpfState) -> str:
    """`cilium-dbg bpf lb list`: every frontend, and its backends by slot."""
    rows = [("SERVICE ADDRESS", "BACKEND ADDRESS (REVNAT_ID) (SLOT)")]
    entries: list[tuple[str, str]] = []
    for family in (4, 6):
        maps = state.maps(family)
        names = {number: str(backend) for number, backend in maps.backends.items()}
        nothing = "[::]:0" if family == 6 else "0.0.0.0:0"
        for key, value in maps.services.items():
            if key.slot:
                continue
            front, services = str(key)[:-3], maps.services
            entries.append((f"{front}(0)", f"{nothing} ({value.rev_nat}) (0) [{value.flag_text}]"))
            for slot in range(1, value.count + 1):
                number = services[slot_of(key, slot)].backend
                name = names.get(number)
                text = f"{name} ({value.rev_nat}) ({slot})" if name else f"backend {number} not found"
                entries.append((f"{front}({slot})", text))
    return _table(rows + sorted(entries))


def lb_maglev_list(state: BpfState) -> str:
    """`cilium-dbg bpf lb maglev list`: how much of each frontend's table every backend holds."""
    rows = [("SERVICE ID", "BACKENDS")]
    for family in (4, 6):
        for number, table in sorted(state.maps(family).maglev.items()):
            held = {backend: table.count(backend) for backend in sorted(set(table))}
            rows.append(
                (f"{number}/v{family}", ", ".join(f"{b}: {n} of {len(table)}" for b, n in held.items()))
            )
    return _table(rows)


def lb_source_ranges_list(state: BpfState) -> str:
    """`cilium-dbg bpf lb source-ranges list`."""
    return "".join(
        f"{key}\n" for family in (4, 6) for key in sorted(state.maps(family).source_ranges, key=str)
    )


def service_list(state: BpfState) -> str:
    """`cilium-dbg service list`: frontends by id, one backend a line."""
    rows = [("ID", "Frontend", "Service Type", "Backend")]
    found: list[tuple[int, LbKey, int]] = []
    for family in (4, 6):
        services = state.maps(family).services
        found += [(value.rev_nat, key, family) for key, value in services.items() if not key.slot]
    for number, key, family in sorted(found, key=lambda row: row[0]):
        maps = state.maps(family)
        service = maps.services[key]
        text = str(key).removesuffix(" (0)")
        lines = []
        for slot in range(1, service.count + 1):
            backend = maps.backends.get(maps.services[slot_of(key, slot)].backend)
            lines.append(f"{slot} => {backend} ({backend.state})" if backend else f"{slot} => ?")
        for at, line in enumerate(lines or [""]):
            rows.append((str(number), text, service.kind, line) if not at else ("", "", "", line))
    return _table(rows)


def ct_list(state: BpfState, now: float = 0.0) -> str:
    """`cilium-dbg bpf ct list global`: live connections. `now` in s."""
    lines = []
    for family in (4, 6):
        for key, entry in state.maps(family).ct.items():
            if entry.expires > now:
                lines.append(f"{key} {_ct(entry)}\n")
    return "".join(lines)


def _ct(entry: CtEntry) -> str:
    bits = sum(_CT_FLAGS[flag] for flag in entry.flags)
    names = "".join(f"{flag} " for flag in _CT_FLAGS if flag in entry.flags)
    return (
        f"expires={entry.expires:.0f} Packets={entry.packets} Flags=0x{bits:04x} [ {names}] "
        f"RevNAT={entry.rev_nat} SourceSecurityID={entry.source_identity} BackendID={entry.backend}"
    )


def nat_list(state: BpfState, now: float = 0.0) -> str:
    """`cilium-dbg bpf nat list`: what SNAT (and DSR) made of connections, both directions."""
    return "".join(
        f"{key} {entry} Created={max(0.0, now - entry.created):.0f}sec ago NeedsCT=0\n"
        for family in (4, 6)
        for key, entry in state.maps(family).snat.items()
    )


def ipcache_list(state: BpfState) -> str:
    """`cilium-dbg bpf ipcache list`: whose every known address is."""
    state.look()
    blocks = sorted(state.ipcache, key=lambda block: (sort_key(block.partition("/")[0]), block))
    return _table(
        [("IP PREFIX/ADDRESS", "IDENTITY"), *((block, str(state.ipcache[block])) for block in blocks)]
    )


def endpoint_list(state: BpfState) -> str:
    """`cilium-dbg bpf endpoint list`: the addresses that live on this node."""
    state.look()
    rows = [("IP ADDRESS", "LOCAL ENDPOINT INFO")]
    for address in sorted(state.endpoints, key=sort_key):
        rows.append((endpoint(address, 0), str(state.endpoints[address])))
    return _table(rows)


def policy_get(state: BpfState, number: int) -> str:
    """`cilium-dbg bpf policy get ENDPOINT`: what an endpoint's policy map allows and denies. Raises KeyError."""
    state.look()
    rows: list[tuple[str, ...]] = [
        (
            "POLICY",
            "DIRECTION",
            "LABELS (source:key[=value])",
            "PORT/PROTO",
            "PROXY PORT",
            "AUTH TYPE",
            "PREFIX",
        )
    ]
    entries = state.policies[number]
    for key in sorted(entries, key=lambda key: (not key.ingress, key.identity, key.proto, key.port)):
        entry = entries[key]
        labels = labels_of(state, key.identity)
        for at, label in enumerate(labels):
            head: Iterable[str] = ("Deny" if entry.deny else "Allow", "Ingress" if key.ingress else "Egress")
            tail = (
                policy_port(key),
                str(entry.proxy_port) if entry.proxy_port else "NONE",
                "disabled",
                str((8 if key.proto else 0) + key.port_bits),
            )
            rows.append((*head, label, *tail) if not at else ("", "", label, "", "", "", ""))
    return _table(rows)


def policy_port(key: PolicyKey) -> str:
    """Return "8080/TCP", "ANY", or "1000-1015/UDP"."""
    if not key.proto:
        return "ANY"
    if not key.port_bits:
        return proto_text(key.proto)
    last = key.port + (1 << 16 - key.port_bits) - 1
    return f"{key.port}{'' if last == key.port else f'-{last}'}/{proto_text(key.proto)}"


def labels_of(state: BpfState, identity: int) -> list[str]:
    """Return an identity's labels, one a line: "reserved:host", "k8s:app=web", or "ANY" for 0."""
    if identity == 0:
        return ["ANY"]
    if identity in RESERVED:
        return [f"reserved:{RESERVED[identity]}"]
    return state.labels.get(identity, str(identity)).split(",")


def identity_list(state: BpfState) -> str:
    """`cilium-dbg identity list`: the reserved identities, and those of the pods' labels."""
    state.look()
    rows = [("ID", "LABELS")]
    for number in sorted({*RESERVED, *state.labels} - {0}):
        for at, label in enumerate(labels_of(state, number)):
            rows.append((str(number) if not at else "", label))
    return _table(rows)


def attachments(state: BpfState) -> str:
    """`bpftool net show` and `bpftool cgroup tree` in one: every hook and the program there."""
    return "".join(f"{one}\n" for one in state.list_attachments())
