"""What a WireGuard device knows of its peers beside their configuration: handshakes, sessions, traffic.

The protocol's keys and ciphers are not modelled; who may decrypt what is, by whose public key a message was made for.
https://www.wireguard.com/papers/wireguard.pdf ; drivers/net/wireguard/messages.h.
"""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.kernel.link import Link, WireguardOptions, WireguardPeer
from kubenet_lab.packet.ip import prefix

REKEY_AFTER = 120.0
"""Seconds after which who began a session begins a new one when it sends (REKEY_AFTER_TIME)."""
REJECT_AFTER = 180.0
"""Seconds after which a session's key is not used any more (REJECT_AFTER_TIME)."""


class Session(Struct, frozen=True):
    """What is known of one peer (`wg show`): where it is, the last handshake, and bytes both ways.

    `endpoint` is where its last authentic message came from ("192.168.1.20:51820"), "" while none did; answers go
    there, and leave by the address `source` that it wrote to. `handshake` is simulated time in s, None before the
    first. `index` is our number of the session, which the peer's messages bear, `remote` the peer's.
    """

    endpoint: str = ""
    source: str = ""
    handshake: float | None = None
    initiator: bool = False
    index: int = 0
    remote: int = 0
    counter: int = 0
    """Messages sent in this session: the nonce of the next one."""
    received: int = 0
    sent: int = 0

    def usable(self, now: float) -> bool:
        """True while there is a key that both sides still take."""
        return self.handshake is not None and self.remote != 0 and now - self.handshake < REJECT_AFTER

    def stale(self, now: float) -> bool:
        """True when who began the session would begin a new one now."""
        return self.initiator and self.handshake is not None and now - self.handshake >= REKEY_AFTER


def peer_for(options: WireguardOptions, address: str) -> WireguardPeer | None:
    """Return the peer whose `allowed-ips` have the longest prefix that holds an address (`wg_allowedips_lookup`).

    Of equal prefixes the last one set counts: a prefix belongs to one peer at a time.
    """
    best, longest = None, -1
    for peer in options.peers:
        for cidr in peer.allowed_ips:
            block = prefix(cidr)
            if block.length >= longest and (":" in cidr) == (":" in address) and address in block:
                best, longest = peer, block.length
    return best


def peer_by_key(options: WireguardOptions, key: str) -> WireguardPeer | None:
    """Return the peer with a public key."""
    return next((peer for peer in options.peers if peer.public_key == key), None)


def after_change(
    sessions: dict[tuple[str, str], Session], old: Link, new: Link
) -> dict[tuple[str, str], Session]:
    """Return what is still known after `wg set` or `ip link set` changed a device.

    A peer that is gone is forgotten; an endpoint that is set counts until the peer is heard from elsewhere; a device
    that goes down (`wg_stop`) or gets another key has no keys to send or read with.
    """
    before, options = old.wireguard, new.wireguard
    if before is None or options is None:
        return {key: seen for key, seen in sessions.items() if key[0] != old.name}
    endpoints = {peer.public_key: peer.endpoint for peer in options.peers}
    earlier = {peer.public_key: peer.endpoint for peer in before.peers}
    out: dict[tuple[str, str], Session] = {}
    for key, seen in sessions.items():
        dev, peer = key
        if dev != old.name:
            out[key] = seen
        elif peer in endpoints:
            if endpoints[peer] and endpoints[peer] != earlier.get(peer):
                seen = replace(seen, endpoint=endpoints[peer], source="")
            if (old.up and not new.up) or options.public_key != before.public_key:
                seen = replace(seen, index=0, remote=0)
            out[key] = seen
    return out
