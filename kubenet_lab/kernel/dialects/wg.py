"""`wg show`: WireGuard devices, their peers, handshakes and traffic, as wireguard-tools print them (`src/show.c`)."""

from __future__ import annotations

from kubenet_lab.kernel.link import Link, WireguardOptions, WireguardPeer
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.wireguard import Session

_UNITS = ((365 * 86400, "year"), (86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


def _ago(seconds: float) -> str:
    """Return "1 minute, 3 seconds ago", "Now" for less than a second."""
    left = int(seconds)
    if not left:
        return "Now"
    parts = []
    for size, name in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {name}{'s' if count > 1 else ''}")
    return f"{', '.join(parts)} ago"


def _bytes(count: int) -> str:
    """Return "412 B", "1.21 KiB"."""
    if count < 1024:
        return f"{count} B"
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count >= 1024**power:
            return f"{count / 1024**power:.2f} {unit}"
    raise AssertionError(count)


def _peer(peer: WireguardPeer, seen: Session | None, now: float) -> list[str]:
    lines = [f"peer: {peer.public_key}"]
    endpoint = (seen.endpoint if seen is not None else "") or peer.endpoint
    if endpoint:
        lines.append(f"  endpoint: {endpoint}")
    lines.append(f"  allowed ips: {', '.join(peer.allowed_ips) or '(none)'}")
    if seen is not None and seen.handshake is not None:
        lines.append(f"  latest handshake: {_ago(now - seen.handshake)}")
    if seen is not None and (seen.received or seen.sent):
        lines.append(f"  transfer: {_bytes(seen.received)} received, {_bytes(seen.sent)} sent")
    if peer.keepalive:
        lines.append(f"  persistent keepalive: every {_ago(peer.keepalive).removesuffix(' ago')}")
    return lines


def _device(ns: Netns, link: Link, options: WireguardOptions, now: float) -> list[list[str]]:
    head = [f"interface: {link.name}", f"  public key: {options.public_key}", "  private key: (hidden)"]
    head.append(f"  listening port: {options.port}")
    if options.fwmark:
        head.append(f"  fwmark: {options.fwmark:#x}")

    def order(peer: WireguardPeer) -> float:
        seen = ns.wireguard.get((link.name, peer.public_key))
        return -seen.handshake if seen is not None and seen.handshake is not None else 1.0

    peers = sorted(options.peers, key=order)
    return [head, *(_peer(peer, ns.wireguard.get((link.name, peer.public_key)), now) for peer in peers)]


def show(ns: Netns, *, dev: str = "", now: float = 0.0) -> str:
    """Return `wg show [DEV]` of a namespace at a moment of simulated time (s); peers by their latest handshake."""
    blocks = [
        block
        for link in ns.links.values()
        if link.wireguard is not None and dev in ("", link.name)
        for block in _device(ns, link, link.wireguard, now)
    ]
    return "\n".join("".join(line + "\n" for line in block) for block in blocks)
