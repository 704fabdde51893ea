"""What a step means, in sentences that somebody who has never read the code understands.

The kernel's own words (a rule, a route, an entry) are kept beside the sentence, never replaced by it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet.packet import (
    ACK,
    ICMP,
    ICMPV6,
    IPIP,
    RST,
    SCTP,
    SYN,
    TCP,
    UDP,
    Packet,
    WireguardMessage,
    endpoint,
    icmp_name,
    proto_name,
    sctp_name,
    tunnel_name,
)
from kubenet_lab.trace import REASONS, Hop, Place, RuleRef, Step, Trace
from kubenet_lab.views import bpf_words, nft_words
from kubenet_lab.walk.nft import NftRef

Names = Mapping[str, str]
"""Address -> "pod default/backend-1", "Service default/backend", "node node-1"."""


def place_name(netns: str) -> str:
    """Return "pod frontend" for the namespace "default/frontend", and a host's name as it is."""
    space, slash, name = netns.partition("/")
    if not slash:
        return netns
    return f"pod {name}" if space == "default" else f"pod {netns}"


def who(address: str, names: Names) -> str:
    """Return who owns an address: "Service backend (10.96.0.100)", or the bare address."""
    label = names.get(address, "")
    return f"{short(label)} ({address})" if label else address


def short(label: str) -> str:
    """Return a label without the namespace `default`, and a node without the word before its name."""
    kind, _, name = label.partition(" ")
    if kind == "node":
        node, _, device = name.partition(" ")
        return f"{node}'s {device}" if device else node
    return f"{kind} {name.removeprefix('default/')}".strip()


def spot_words(place: Place) -> str:
    """Return where something was decided: "pod backend", "node-1, FORWARD filter"."""
    spot = "" if place.spot == "socket" else place.spot
    return f"{place_name(place.netns)}, {spot}" if spot else place_name(place.netns)


def socket_words(socket: Socket) -> str:
    """Return "socket [::]:8080 (backend)"."""
    process = f" ({socket.process})" if socket.process else ""
    return f"socket {endpoint(socket.address, socket.port)}{process}"


def whom(address: str, port: int, names: Names) -> str:
    """Return who owns an address, and the port when there is one."""
    return f"{who(address, names)}" + (f" port {port}" if port else "")


def segment(packet: Packet) -> str:
    """Return what kind of packet it is, in words."""
    if packet.inner is not None:
        name = tunnel_name(packet)
        return f"{'an' if name == 'IPIP' else 'a'} {name} packet"
    if packet.proto == TCP:
        if packet.flags & RST:
            return "a TCP reset (RST: go away)"
        if packet.flags & SYN:
            return "a TCP SYN-ACK (yes, let us talk)" if packet.flags & ACK else "a TCP SYN (shall we talk?)"
        return "a TCP segment"
    if packet.proto == UDP:
        return "a DNS message over UDP" if 53 in (packet.sport, packet.dport) else "a UDP datagram"
    if packet.proto == SCTP:
        return f"an SCTP {sctp_name(packet) or 'packet'}"
    if packet.proto in (ICMP, ICMPV6):
        name = icmp_name(packet)
        return f"a ping ({name})" if "echo" in name else f"an ICMP error ({name})"
    return f"a {proto_name(packet.proto)} packet"


def headline(packet: Packet, names: Names) -> str:
    """Return a packet in a phrase: what, from whom, to whom."""
    return f"{segment(packet)} from {whom(packet.src, packet.sport, names)} to {whom(packet.dst, packet.dport, names)}"


def target_of(ref: RuleRef) -> tuple[str, str]:
    """Return (target, its options) of a rule: ("DNAT", "--to-destination 10.244.1.2:8080"); ("", "") without one."""
    found = re.search(r"(?:^|\s)-([jg]) (\S+)\s*(.*)$", str(ref.rule))
    return (found[2], found[3]) if found else ("", "")


CHAINS: tuple[tuple[str, str], ...] = (
    ("KUBE-SERVICES", "the list of all Services"),
    ("KUBE-SVC-", "a Service's list of backends"),
    ("KUBE-SEP-", "one backend of a Service"),
    ("KUBE-MARK-MASQ", "mark for masquerade"),
    ("KUBE-POSTROUTING", "masquerade what was marked"),
    ("KUBE-NODEPORTS", "node ports"),
    ("KUBE-FORWARD", "let forwarded Service traffic pass"),
    ("KUBE-FIREWALL", "kubelet's and kube-proxy's firewall"),
    ("KUBE-PROXY-FIREWALL", "load balancer source ranges"),
    ("KUBE-EXTERNAL-SERVICES", "Services seen from outside"),
    ("KUBE-PROXY-CANARY", "kube-proxy's canary"),
    ("KUBE-KUBELET-CANARY", "kubelet's canary"),
    ("KUBE-EXT-", "a Service seen from outside"),
    ("KUBE-FW-", "a load balancer's firewall"),
    ("KUBE-SVL-", "a Service's backends on this node"),
    ("FLANNEL-POSTRTG", "Flannel's masquerade rules"),
    ("FLANNEL-FWD", "Flannel lets pod traffic pass"),
)
"""What a chain is for, by the start of its name."""


def chain_meaning(chain: str) -> str:
    """Return what a chain of kube-proxy or Flannel is for, in iptables or in nftables, or ""."""
    known = next((words for start, words in CHAINS if chain.startswith(start)), "")
    return known or nft_words.chain_meaning(chain)


def _chain(chain: str) -> str:
    meaning = chain_meaning(chain)
    return f"{chain} ({meaning})" if meaning else chain


def _comment(ref: RuleRef) -> str:
    comment = getattr(ref.rule, "comment", "")
    return f" Its comment: “{comment}”." if comment else ""


def _rule(step: Step, hop: Hop, names: Names) -> str:
    ref = step.entry
    if isinstance(ref, NftRef):
        return nft_words.sentence(ref, lambda address: _named(address, names))
    if not isinstance(ref, RuleRef):
        return _plain(step, hop, names)
    if ref.number == 0:
        return f"No rule of {ref.chain} ({ref.table}) decided, so the chain's policy did: {ref.rule}."
    target, options = target_of(ref)
    where = f"Rule {ref.number} of {_chain(ref.chain)} in table {ref.table}"
    tail = _comment(ref)
    chance = re.search(r"--mode random --probability (\S+)", str(ref.rule))
    drawn = f" It takes {float(chance[1]):.0%} of what comes by; the draw fell on it." if chance else ""
    if target == "DNAT":
        to = options.split("--to-destination ")[-1].split()[0] if "--to-destination" in options else options
        address = to.strip("[]").rpartition(":")[0].strip("[]") or to
        return f"{where} matches: send it to {to}{_named(address, names)} instead (DNAT).{drawn}{tail}"
    if target == "MASQUERADE":
        return f"{where} matches: put this host's own address in as the source (MASQUERADE).{tail}"
    if target == "SNAT":
        return f"{where} matches: change the source ({options}).{tail}"
    if target == "DROP":
        return f"{where} matches: drop it without a word.{tail}"
    if target == "REJECT":
        return f"{where} matches: refuse it and send an error back ({options or 'port unreachable'}).{tail}"
    if target == "ACCEPT":
        return f"{where} matches: let it pass.{tail}"
    if target == "RETURN":
        return f"{where} matches: stop here and go back to the calling chain.{tail}"
    if target == "MARK":
        return f"{where} matches: put a mark on it for later rules ({options}).{tail}"
    if not target:
        return f"{where} matches and only counts.{tail}"
    if target.isupper() and "-" not in target and not chain_meaning(target):
        return f"{where} matches: {target} {options}".rstrip() + f".{tail}"
    return f"{where} matches: go on in chain {_chain(target)}.{drawn}{tail}"


def _named(address: str, names: Names) -> str:
    label = names.get(address, "")
    return f", {short(label)}," if label else ""


def _send(step: Step, hop: Hop, names: Names) -> str:
    return f"{place_name(hop.netns)} sends {headline(hop.packet, names)}."


def _route(step: Step, hop: Hop, names: Names) -> str:
    route, here = step.entry, place_name(hop.netns)
    if route is None:
        return f"{here} takes it for itself." if step.note == "for this host" else f"{here} finds no route."
    if getattr(route, "type", "") in ("local", "broadcast"):
        return f"The address belongs to {here}: it is delivered here, not passed on."
    via, dev = getattr(route, "via", ""), getattr(route, "dev", "")
    outer = "Now the outer packet needs a route. " if hop.encapsulated else ""
    again = "Its destination changed, so the route is looked up again. " if "again" in step.note else ""
    towards = (
        f" to the next hop {who(via, names)}" if via else ", where the destination is a direct neighbour"
    )
    return f"{outer}{again}{here} looks into its route table: it leaves through {dev}{towards}."


def _neighbour(step: Step, hop: Hop, names: Names) -> str:
    mac = getattr(step.entry, "mac", "")
    address = getattr(step.entry, "address", "")
    if not mac:
        return f"{place_name(hop.netns)} has no MAC address for {who(address, names)}."
    return f"{place_name(hop.netns)} knows the MAC address of {who(address, names)} on {step.spot}: {mac}."


def _arp(step: Step, hop: Hop, names: Names) -> str:
    here = place_name(hop.netns)
    if not isinstance(step.entry, Trace):
        return f"ARP on {step.spot} in {here}: {step.note or step.entry}."
    question = f"{here} asks everybody on {step.spot}: who has {who(step.entry.packet.dst, names)}?"
    if step.note.startswith("nobody"):
        return f"{question} Nobody answers."
    found = re.search(r"lladdr (\S+)", step.note)
    return f"{question} It learns the MAC address {found[1] if found else step.note}."


def _nat(step: Step, hop: Hop, names: Names) -> str:
    before, after = step.before, step.after
    if before is None or after is None:
        return _plain(step, hop, names)
    if step.spot.startswith("source"):
        side, old, new = "source", (before.src, before.sport), (after.src, after.sport)
    else:
        side, old, new = "destination", (before.dst, before.dport), (after.dst, after.dport)
    was, now = (_end_point(*end, names) for end in (old, new))
    return f"{place_name(hop.netns)} rewrites the {side}: {was} becomes {now}."


def _end_point(address: str, port: int, names: Names) -> str:
    """Return "10.96.0.100:80 (Service backend)"."""
    text = endpoint(address, port) if port else address
    label = names.get(address, "")
    return f"{text} ({short(label)})" if label else text


_CONNTRACK = {
    "new": "{here} has not seen this connection before and starts an entry for it in its conntrack table.",
    "original": "{here} knows this connection and treats the packet as it treated the first one.",
    "reply": "{here} recognises it as the answer of a connection in its conntrack table and undoes what was rewritten.",
    "related": "{here} recognises it as an error about a connection in its conntrack table.",
    "invalid": "It fits no connection that {here} knows: {note}.",
    "confirmed": "The packet made it through, so {here} keeps the connection in its conntrack table.",
    "defragment": "{here} puts the fragments together before it looks at them.",
}


def _conntrack(step: Step, hop: Hop, names: Names) -> str:
    template = _CONNTRACK.get(step.spot)
    return (
        template.format(here=place_name(hop.netns), note=step.note) if template else _plain(step, hop, names)
    )


def _fdb(step: Step, hop: Hop, names: Names) -> str:
    entry = step.entry
    if " learns" in step.spot:
        return f"The bridge {step.spot.split()[0]} learns that {entry.mac} is behind its port {entry.dev}."
    if getattr(entry, "dst", ""):
        far = who(entry.dst, names)
        return f"The device {step.spot} looks up who has the MAC {entry.mac}: {far}. That is where the tunnel goes."
    mac, port = getattr(entry, "mac", entry), getattr(entry, "dev", "")
    return f"The bridge {step.spot} knows that {mac} is behind its port {port}."


def _encapsulate(step: Step, hop: Hop, names: Names) -> str:
    outer = step.after
    if outer is None:
        return f"Device {step.spot} wraps the packet."
    ends = f"from {who(outer.src, names)} to {who(outer.dst, names)}"
    if isinstance(outer.message, WireguardMessage):
        return (
            f"The device {step.spot} seals the packet and puts it into a new one {ends}: a letter in a letter that "
            f"only the peer can open (WireGuard, UDP port {outer.dport})."
        )
    if outer.proto == IPIP:
        return (
            f"The device {step.spot} puts the packet into a new packet {ends}: a letter in a letter (IPIP)."
        )
    return (
        f"The device {step.spot} puts the whole frame into a new packet {ends}: "
        f"a letter in a letter ({tunnel_name(outer)}, UDP port {outer.dport})."
    )


def _end(step: Step, hop: Hop, names: Names) -> str:
    sentence = REASONS.get(step.spot, step.spot)
    detail = f" ({step.note})" if step.note and step.note not in sentence else ""
    return f"It ends here, in {place_name(hop.netns)}: {sentence}{detail}."


def _deliver(step: Step, hop: Hop, names: Names) -> str:
    if step.note == "raw-socket":
        return f"It has arrived: {place_name(hop.netns)} takes it ({step.entry})."
    taker = socket_words(step.entry) if isinstance(step.entry, Socket) else step.entry
    return f"It has arrived: {place_name(hop.netns)} takes it, {taker}."


def _ttl(step: Step, hop: Hop, names: Names) -> str:
    if step.before is not None and step.after is not None:
        ttls = f"from {step.before.ttl} to {step.after.ttl}"
        return f"{place_name(hop.netns)} passes on somebody else's packet, so its TTL goes {ttls}."
    return f"{place_name(hop.netns)} counts the TTL down."


def _plain(step: Step, hop: Hop, names: Names) -> str:
    return f"{step.text[:1].upper()}{step.text[1:]}."


def _bridge(step: Step, hop: Hop, names: Names) -> str:
    return f"The bridge {step.spot} in {place_name(hop.netns)}: {step.note or 'passes it on'}."


def _device(step: Step, hop: Hop, names: Names) -> str:
    return f"The {step.kind} device {step.spot} in {place_name(hop.netns)}: {step.note}."


def _handshake(step: Step, hop: Hop, names: Names) -> str:
    return f"WireGuard on {step.spot} agrees on a key first, by two messages: {step.note}."


def _ipvs(step: Step, hop: Hop, names: Names) -> str:
    here, before, after = place_name(hop.netns), step.before, step.after
    if before is None or after is None:
        return (
            f"IPVS in {here} has a virtual server for it, and its scheduler {step.spot} chose: {step.note}."
        )
    parts = []
    for side, old, new in (
        ("source", (before.src, before.sport), (after.src, after.sport)),
        ("destination", (before.dst, before.dport), (after.dst, after.dport)),
    ):
        if old != new:
            parts.append(f"the {side} {_end_point(*old, names)} becomes {_end_point(*new, names)}")
    changed = ", ".join(parts) or "nothing changes in its addresses"
    return f"IPVS in {here} finds the {step.spot}'s connection in its table: {changed}."


_SENTENCES: dict[str, Callable[[Step, Hop, Names], str]] = {
    "send": _send,
    "route": _route,
    "neighbour": _neighbour,
    "arp": _arp,
    "rule": _rule,
    "nat": _nat,
    "conntrack": _conntrack,
    "fdb": _fdb,
    "bridge": _bridge,
    "vlan": _device,
    "macvlan": _device,
    "ipvlan": _device,
    "wireguard": lambda step, hop, names: f"WireGuard on {step.spot} chooses a peer: {step.note}.",
    "handshake": _handshake,
    "encapsulate": _encapsulate,
    "ipvs": _ipvs,
    "bpf": lambda step, hop, names: bpf_words.sentence(step, hop, names, who),
    "decapsulate": lambda step, hop, names: (
        f"The device {step.spot} opens the outer packet and takes the frame out that was inside."
    ),
    "ttl": _ttl,
    "mtu": lambda step, hop, names: f"Size check in {place_name(hop.netns)}: {step.note or step.entry}.",
    "transmit": lambda step, hop, names: f"It leaves {place_name(hop.netns)} through {step.spot}.",
    "receive": lambda step, hop, names: f"It comes into {place_name(hop.netns)} through {step.spot}.",
    "hook": lambda step, hop, names: (
        f"Netfilter hook {step.spot} in {place_name(hop.netns)}{': ' + step.note if step.note else ''}."
    ),
    "deliver": _deliver,
    "answer": _plain,
    "end": _end,
}

KINDS = frozenset(_SENTENCES)
"""Every kind of step that has a sentence of its own."""


def sentence(step: Step, hop: Hop, names: Names) -> str:
    """Return what a step means, in one or two sentences."""
    return _SENTENCES.get(step.kind, _plain)(step, hop, names)


TITLES = {
    "send": "Sent",
    "receive": "Arrives",
    "route": "Route chosen",
    "neighbour": "Next hop's MAC known",
    "arp": "MAC asked for (ARP)",
    "hook": "Netfilter hook",
    "rule": "Rule matches",
    "nat": "Address rewritten",
    "conntrack": "Connection looked up",
    "bridge": "Bridge",
    "vlan": "VLAN tag",
    "macvlan": "macvlan",
    "ipvlan": "ipvlan",
    "wireguard": "Peer chosen",
    "handshake": "Key agreed on",
    "fdb": "Forwarding table",
    "encapsulate": "Wrapped in a tunnel packet",
    "decapsulate": "Unwrapped",
    "ttl": "TTL counted down",
    "mtu": "Size checked",
    "transmit": "Leaves",
    "deliver": "Arrived",
    "answer": "Answered",
    "end": "Ended",
}


def title(step: Step, trace: Trace) -> str:
    """Return what a step is in two or three words."""
    if step.kind == "nat":
        side = step.spot.split()[0] if step.spot else "address"
        return (
            f"{side.capitalize()} translated back"
            if trace.role not in ("request", "onward")
            else f"{side.capitalize()} rewritten"
        )
    if step.kind == "bpf":
        return bpf_words.title(step)
    if step.kind == "rule" and isinstance(step.entry, NftRef):
        return nft_words.title(step.entry) or TITLES["rule"]
    if step.kind == "rule" and isinstance(step.entry, RuleRef):
        target, _ = target_of(step.entry)
        if target in ("DROP", "REJECT", "ACCEPT", "RETURN", "MARK"):
            return f"Rule says {target}"
        if target.startswith(("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-")):
            return "Service recognised"
        if target.startswith("KUBE-SEP-"):
            return "Backend drawn"
    if step.kind == "ipvs":
        return "Real server chosen" if step.before is None else "Rewritten by IPVS"
    if step.kind == "fdb" and getattr(step.entry, "dst", "") != "":
        return "Tunnel's end looked up"
    if step.kind == "fdb":
        return "Bridge learns a MAC" if " learns" in step.spot else "Bridge passes it on"
    if step.kind == "route" and getattr(step.entry, "type", "") == "local":
        return "It is for this host"
    return TITLES.get(step.kind, step.kind)


LAYERS: dict[str, str] = {
    "send": "ends",
    "deliver": "ends",
    "answer": "ends",
    "end": "ends",
    "route": "routes",
    "ttl": "routes",
    "mtu": "routes",
    "hook": "rules",
    "rule": "rules",
    "nat": "rules",
    "conntrack": "rules",
    "bpf": "rules",
    "ipvs": "rules",
    "encapsulate": "tunnel",
    "decapsulate": "tunnel",
    "wireguard": "tunnel",
    "handshake": "tunnel",
    "vlan": "links",
    "macvlan": "links",
    "ipvlan": "links",
    "neighbour": "links",
    "arp": "links",
    "bridge": "links",
    "fdb": "links",
    "transmit": "links",
    "receive": "links",
}
"""Kind of step -> the layer a reader filters by."""

_DECISIVE = ("DROP", "REJECT", "QUEUE", "NFQUEUE")


def is_main(step: Step, hop: Hop) -> bool:
    """True for the steps that tell the story; the others are shown on demand."""
    kind = step.kind
    if kind in (
        "vlan",
        "macvlan",
        "ipvlan",
        "handshake",
        "send",
        "nat",
        "ipvs",
        "encapsulate",
        "decapsulate",
        "deliver",
        "answer",
        "end",
    ):
        return True
    if kind == "route":
        sort: str = getattr(step.entry, "type", "unicast")
        return sort not in ("local", "broadcast") and not hop.encapsulated
    if kind == "rule" and isinstance(step.entry, NftRef):
        return nft_words.is_main(step.entry)
    if kind == "rule" and isinstance(step.entry, RuleRef):
        target, _ = target_of(step.entry)
        if step.entry.number == 0:
            return str(step.entry.rule) == "DROP"
        return target in _DECISIVE or target.startswith(("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-SEP-"))
    if kind == "fdb":
        bridged = " learns" not in step.spot and not any(other.kind == "route" for other in hop.steps)
        return bool(getattr(step.entry, "dst", "")) or (bridged and bool(getattr(step.entry, "master", "")))
    if kind == "mtu":
        return True
    if kind == "bpf":
        return bpf_words.is_main(step)
    return kind == "conntrack" and step.spot in ("invalid", "related")


def command(step: Step, hop: Hop, packet: Packet) -> str:
    """Return the command that shows the entry a step used, as you would type it there; "" for none.

    `packet` is the packet at that moment.
    """
    v6 = ":" in packet.src
    if step.kind == "route":
        return f"ip {'-6 ' if v6 else ''}route get {packet.dst}"
    if step.kind == "rule" and isinstance(step.entry, NftRef):
        return nft_words.command(step.entry)
    if step.kind == "rule" and isinstance(step.entry, RuleRef):
        return f"{'ip6tables' if v6 else 'iptables'} -t {step.entry.table} -S {step.entry.chain}"
    if step.kind == "bpf" or (step.kind == "end" and bpf_words.command(step.entry)):
        return bpf_words.command(step.entry)
    if step.kind in ("nat", "conntrack"):
        return "conntrack -L"
    if step.kind == "ipvs":
        return "ipvsadm -Ln" if step.before is None else "ipvsadm -Lnc"
    if step.kind in ("neighbour", "arp"):
        return f"ip neigh show dev {step.spot}"
    if step.kind == "fdb":
        master = getattr(step.entry, "master", "")
        return f"bridge fdb show br {master}" if master else f"bridge fdb show dev {step.spot.split()[0]}"
    if step.kind in ("wireguard", "handshake"):
        return f"wg show {step.spot}"
    if step.kind in ("encapsulate", "decapsulate", "vlan", "macvlan", "ipvlan"):
        return f"ip -d link show {step.spot}"
    if step.kind == "deliver":
        return "ss -lntu"
    return _END_COMMANDS.get(step.spot, "").format(dst=packet.dst) if step.kind == "end" else ""


_END_COMMANDS = {
    "no-listener": "ss -lntu",
    "no-route": "ip route get {dst}",
    "no-vtep": "bridge fdb show",
    "vlan-unknown": "ip -d link show",
    "vlan-filtered": "bridge vlan show",
    "wireguard-no-peer": "wg show all allowed-ips",
    "wireguard-no-endpoint": "wg show all endpoints",
    "wireguard-no-handshake": "wg show",
    "wireguard-stranger": "wg show",
    "wireguard-no-session": "wg show",
    "wireguard-source": "wg show all allowed-ips",
    "not-forwarding": "sysctl net.ipv4.ip_forward",
    "rp-filter": "sysctl -a -r rp_filter",
    "neighbour-failed": "ip neigh show",
    "too-big": "ip -d link show",
    "too-big-for-link": "ip -d link show",
    "link-down": "ip link show",
    "no-carrier": "ip link show",
    "conntrack-full": "conntrack -C",
    "vni-unknown": "ip -d link show type vxlan",
    "hairpin-off": "bridge -d link show",
    "icmp-ignored": "sysctl net.ipv4.icmp_echo_ignore_all",
}
"""Reason of an end -> the command that shows why."""
