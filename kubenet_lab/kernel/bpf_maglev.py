"""Maglev's table and the two hashes that Cilium puts into it.

Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), section 3.4; Cilium's
`pkg/maglev` and `bpf/lib/hash.h`. A backend's permutation comes from murmur3 (128 bits, x64) of its name, a packet's
place in the table from jhash of its addresses and ports, each with a part of `--bpf-lb-maglev-hash-seed`.

What may differ from a real node: the text that is hashed for a backend (its name in Cilium carries, by version, more
than address, port and protocol), so that the very backend of one flow can differ; shares, consistency among nodes and
the few flows that move when a backend goes do not. Weights are not modelled: Services have none.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping

TABLE_SIZE = 16381
"""--bpf-lb-maglev-table-size: a prime, at least 100 times the backends of a Service."""
SEED = "JLfvgnHc2kaSUFaI"
"""--bpf-lb-maglev-hash-seed: the default, so that nodes agree without being told."""

_SEEDS = struct.unpack(">III", base64.b64decode(SEED))
_M64 = (1 << 64) - 1
_M32 = (1 << 32) - 1


def murmur3_128(data: bytes, seed: int) -> tuple[int, int]:
    """Return MurmurHash3_x64_128 of some bytes as two 64-bit numbers (A. Appleby, public domain)."""
    c1, c2 = 0x87C37B91114253D5, 0x4CF5AD432745937F
    h1 = h2 = seed
    whole = len(data) & ~15
    for at in range(0, whole, 16):
        k1, k2 = struct.unpack_from("<QQ", data, at)
        h1 ^= _mixed(k1, c1, 31, c2)
        h1 = (_rotl(h1, 27) + h2) * 5 + 0x52DCE729 & _M64
        h2 ^= _mixed(k2, c2, 33, c1)
        h2 = (_rotl(h2, 31) + h1) * 5 + 0x38495AB5 & _M64
    tail = data[whole:]
    if len(tail) > 8:
        h2 ^= _mixed(int.from_bytes(tail[8:], "little"), c2, 33, c1)
    if tail:
        h1 ^= _mixed(int.from_bytes(tail[:8], "little"), c1, 31, c2)
    h1 ^= len(data)
    h2 ^= len(data)
    h1 = h1 + h2 & _M64
    h2 = h2 + h1 & _M64
    h1, h2 = _finished(h1), _finished(h2)
    h1 = h1 + h2 & _M64
    return h1, h2 + h1 & _M64


def _rotl(value: int, bits: int) -> int:
    return (value << bits | value >> 64 - bits) & _M64


def _mixed(value: int, first: int, bits: int, second: int) -> int:
    return _rotl(value * first & _M64, bits) * second & _M64


def _finished(value: int) -> int:
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD & _M64
    value ^= value >> 33
    value = value * 0xC4CEB9FE1A85EC53 & _M64
    return value ^ value >> 33


def _rol(value: int, bits: int) -> int:
    return (value << bits | value >> 32 - bits) & _M32


def jhash_3words(a: int, b: int, c: int, seed: int) -> int:
    """Return the kernel's `jhash_3words` (include/linux/jhash.h, Bob Jenkins' lookup3)."""
    start = 0xDEADBEEF + (3 << 2) + seed & _M32
    return _jhash_final(a + start & _M32, b + start & _M32, c + start & _M32)


def _jhash_final(a: int, b: int, c: int) -> int:
    c = (c ^ b) - _rol(b, 14) & _M32
    a = (a ^ c) - _rol(c, 11) & _M32
    b = (b ^ a) - _rol(a, 25) & _M32
    c = (c ^ b) - _rol(b, 16) & _M32
    a = (a ^ c) - _rol(c, 4) & _M32
    b = (b ^ a) - _rol(a, 14) & _M32
    return (c ^ b) - _rol(b, 24) & _M32


def _jhash_mix(a: int, b: int, c: int) -> tuple[int, int, int]:
    for left, right in ((4, 6), (16, 19)):
        a = (a - c & _M32) ^ _rol(c, left)
        c = c + b & _M32
        b = (b - a & _M32) ^ _rol(a, right)
        a = a + c & _M32
        c = (c - b & _M32) ^ _rol(b, 8 if left == 4 else 4)
        b = b + a & _M32
    return a, b, c


def flow_hash(source: bytes, sport: int, dport: int, proto: int) -> int:
    """Return where in a table a packet falls before the modulus: `__hash_from_tuple_v4` or `_v6`.

    `source` is the client's address as on the wire, 4 or 16 bytes. With session affinity the caller gives `sport` 0,
    so that all flows of a client meet one backend.
    """
    swap = int.from_bytes
    ports = swap(dport.to_bytes(2, "big"), "little") << 16 | swap(sport.to_bytes(2, "big"), "little")
    if len(source) == 4:
        return jhash_3words(swap(source, "little"), ports, proto, _SEEDS[1])
    first, second, third, fourth = struct.unpack("<4I", source)
    a, b, c = _jhash_mix(first, second, third)
    a, b, c = _jhash_mix(a + fourth & _M32, b + ports & _M32, c + proto & _M32)
    return _jhash_final(a + _SEEDS[2] & _M32, b, c)


def permutation(name: str, size: int) -> tuple[int, int]:
    """Return a backend's (offset, skip): it wants places offset, offset + skip, ... of the table."""
    first, second = murmur3_128(name.encode(), _SEEDS[0])
    return first % size, second % (size - 1) + 1


def lookup_table(backends: Mapping[str, int], size: int = TABLE_SIZE) -> tuple[int, ...]:
    """Return a table of `size` ids. `backends` maps names to ids; they take turns in the order of their names.

    `size` must be a prime. () without backends.
    """
    if not backends:
        return ()
    names = sorted(backends)
    walks = [permutation(name, size) for name in names]
    place = [offset for offset, _skip in walks]
    ids = [backends[name] for name in names]
    table = [0] * size
    taken = bytearray(size)
    count = len(names)
    for number in range(size):
        turn = number % count
        skip, at = walks[turn][1], place[turn]
        while taken[at]:
            at = (at + skip) % size
        table[at] = ids[turn]
        taken[at] = 1
        place[turn] = (at + skip) % size
    return tuple(table)
