"""Maglev's table and hashes: published vectors, equal shares, few moves, and the kernel's own jhash."""

from __future__ import annotations

from collections import Counter

import pytest

from kubenet_lab.kernel.bpf_maglev import (
    TABLE_SIZE,
    flow_hash,
    jhash_3words,
    lookup_table,
    murmur3_128,
    permutation,
)
from kubenet_lab.walk.nft_expressions import jhash

BACKENDS = {f"10.244.{n}.2:8080/TCP": n + 1 for n in range(7)}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (b"", (0, 0)),
        (b"hello", (0xCBD8A7B341BD9B02, 0x5B1E906A48AE1D19)),
        (b"The quick brown fox jumps over the lazy dog", (0xE34BBC7BBC071B6C, 0x7A433CA9C49A9347)),
    ],
)
def test_murmur3_gives_the_published_vectors(text: bytes, wanted: tuple[int, int]) -> None:
    assert murmur3_128(text, 0) == wanted


def test_jhash_of_three_words_is_that_of_twelve_bytes() -> None:
    """include/linux/jhash.h: the two entries agree; the other one is tried against the kernel."""
    words = (0x0A000001, 0x1F90C350, 6)
    data = b"".join(word.to_bytes(4, "little") for word in words)
    assert jhash_3words(*words, 0x1234) == jhash(data, 0x1234)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_backend_has_its_share_of_the_table(count: int) -> None:
    table = lookup_table(dict(list(BACKENDS.items())[:count]))
    shares = Counter(table)
    assert len(table) == TABLE_SIZE
    assert len(shares) == count
    assert max(shares.values()) - min(shares.values()) <= 1


def test_a_permutation_visits_every_place() -> None:
    offset, skip = permutation("10.244.0.2:8080/TCP", 251)
    assert len({(offset + n * skip) % 251 for n in range(251)}) == 251


def test_the_order_of_backends_does_not_matter() -> None:
    assert lookup_table(BACKENDS) == lookup_table(dict(reversed(list(BACKENDS.items()))))


def test_few_flows_move_when_a_backend_goes() -> None:
    """The paper's figure 12: of the places of the others, a few in a hundred change hands."""
    before = lookup_table(BACKENDS)
    after = lookup_table({name: n for name, n in BACKENDS.items() if n != 4})
    moved = sum(1 for a, b in zip(before, after, strict=True) if a not in (b, 4))
    assert 4 not in after
    assert moved / TABLE_SIZE < 0.05


def test_flows_of_both_families_spread() -> None:
    for source in (bytes([10, 0, 0, 1]), bytes(15) + b"\x01"):
        places = {flow_hash(source, port, 80, 6) % TABLE_SIZE for port in range(1024, 2024)}
        assert len(places) > 900
        assert flow_hash(source, 0, 80, 6) == flow_hash(source, 0, 80, 6)
