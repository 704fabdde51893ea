"""Compare two rule texts (restore or save form) where the order of different Services does not count.

kube-proxy walks its Services in Go's random map order. So in chains that all Services share, the lines of
different Services may be interleaved in any way; the lines of one service port keep their order there, lines
that belong to no Service keep their place, and every other chain is compared line by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from operator import itemgetter

SHARED = (
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-PROXY-FIREWALL",
)
_LABEL = re.compile(r'--comment "?([^\s":/]+/[^\s"]+)')

Chains = dict[tuple[str, str], list[str]]


def parse(lines: Iterable[str]) -> Chains:
    """Return the lines of a text by (table, chain); key ("", "") has tables and their ends, in order."""
    chains: Chains = {("", ""): []}
    table = ""
    for line in lines:
        if line.startswith("*"):
            table = line[1:]
            chains["", ""].append(line)
        elif line.startswith(":"):
            chains.setdefault((table, line[1:].split()[0]), []).append(line)
        elif line.startswith(("-A ", "-X ")):
            chains.setdefault((table, line.split()[1]), []).append(line)
        else:
            chains["", ""].append(f"{table} {line}")
    return chains


def _ordered(chain: str, lines: list[str]) -> list[str]:
    """Sort the lines of a shared chain by service port; lines of no Service keep their place."""
    if chain not in SHARED:
        return lines
    runs: list[list[tuple[str, str]]] = [[]]
    for line in lines:
        label = _LABEL.search(line)
        if label is None:
            runs += [[("", line)], []]
        else:
            runs[-1].append((label[1], line))
    return [line for run in runs for _, line in sorted(run, key=itemgetter(0))]


def declared_in_order(lines: Iterable[str]) -> list[str]:
    """Return the declarations of chains that belong to no Service, in their order: it is fixed."""
    return [
        line
        for line in lines
        if line.startswith((":", "*")) and not re.match(r":KUBE-(SVC|SVL|SEP|EXT|FW)-", line)
    ]


def difference(ours: list[str] | None, theirs: list[str] | None) -> str:
    """Return "" if two texts are equal, else what differs, chain by chain ("-" recorded, "+" ours)."""
    if ours is None or theirs is None:
        return "" if ours == theirs else f"recorded: {theirs and theirs[:3]}; ours: {ours and ours[:3]}"
    found = []
    a, b = parse(theirs), parse(ours)
    if declared_in_order(theirs) != declared_in_order(ours):
        found.append(f"chains declared:\n  - {declared_in_order(theirs)}\n  + {declared_in_order(ours)}")
    for key in {**a, **b}:
        left, right = _ordered(key[1], a.get(key, [])), _ordered(key[1], b.get(key, []))
        if left == right:
            continue
        found.append(f"{key[0]} {key[1]}:")
        found += [f"  - {line}" for line in left if line not in right]
        found += [f"  + {line}" for line in right if line not in left]
        if sorted(left) == sorted(right):
            found += [
                "  same lines, other order:",
                *(f"  - {x}" for x in left),
                *(f"  + {x}" for x in right),
            ]
    return "\n".join(found)
