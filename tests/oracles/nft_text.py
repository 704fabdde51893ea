"""Compare two lists of nft transactions where the order of different Services does not count.

kube-proxy walks its Services in Go's random map order. So the commands of different service ports may come in any
order, while those of one keep theirs; which port adds an element that several share (a cluster IP) depends on that
order too. What belongs to no Service keeps its place. What is taken away at the end comes in any order.

Where a port uses both traffic policies, the endpoints of the two are merged in a Go map as well, so their chains and
affinity sets come in any order; elsewhere endpoints are sorted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

_SHARED = re.compile(
    r"add element ip6? kube-proxy (?:cluster-ips|service-ips|firewall-ips|no-endpoint-services|no-endpoint-nodeports"
    r"|service-nodeports|hairpin-connections) "
)
_OWN = re.compile(r"(?:add|flush) (?:chain|rule|set) ip6? kube-proxy ([a-z]+-[A-Z2-7]{8}-[^ ]+)")
_GOES_ON = re.compile(r": goto ([a-z]+-[A-Z2-7]{8}-[^ ]+) }$")
_LABEL = re.compile(r' comment "([^"]+/[^"]+)" : ')
_GONE = re.compile(
    r"delete element |delete set ip6? kube-proxy affinity-|(?:flush|delete) chain ip6? kube-proxy [^ ]+/"
)

Groups = dict[str, list[str]]


def parse(lines: Iterable[str]) -> Groups:
    """Return the commands by what they are about.

    "" has those of no Service, in order. Each chain and affinity set of a Service has its commands in order. Each
    shared set or map has the elements added, sorted; "gone" what is taken away, sorted.
    """
    found: Groups = {"": []}
    for line in lines:
        own = _OWN.match(line)
        if own and (line.startswith("add") or own[1] in found):
            found.setdefault(own[1], []).append(line)
        elif _SHARED.match(line):
            found.setdefault("elements of " + line.split()[4], []).append(line)
        elif _GONE.match(line):
            found.setdefault("gone", []).append(line)
        else:
            found[""].append(line)
    return {
        key: sorted(some) if key.startswith("elements") or key == "gone" else some
        for key, some in found.items()
    }


def order(lines: Iterable[str]) -> Groups:
    """Return the commands of each service port in order, without the elements it may share with others.

    A port is known by "namespace/name/protocol/port", which the names of its chains say, or by its label where an
    element goes to no chain of its own.
    """
    ports: Groups = {}
    for line in lines:
        chain = _OWN.match(line) or _GOES_ON.search(line)
        label = _LABEL.search(line)
        if chain and not _GONE.match(line):
            ports.setdefault(_port(chain[1]), []).append(line)
        elif label and _SHARED.match(line):
            ports.setdefault(label[1], []).append(line)
    for port, some in ports.items():
        if {"service", "local"} <= {chain[1].split("-")[0] for chain in map(_OWN.match, some) if chain}:
            ports[port] = list(_any_endpoint_first(some))
    return ports


def _port(chain: str) -> str:
    return chain.split("-", 2)[2].split("__")[0]


def _any_endpoint_first(lines: Iterable[str]) -> Iterable[str]:
    """Sort each run of commands about endpoints by endpoint."""

    def endpoint(line: str) -> str:
        own = _OWN.match(line)
        return own[1].split("-", 1)[1] if own and own[1].startswith(("endpoint-", "affinity-")) else ""

    for about, run in groupby(lines, lambda line: bool(endpoint(line))):
        commands = list(run)
        yield from sorted(commands, key=endpoint) if about else commands


def difference(ours: Sequence[Sequence[str]], theirs: Sequence[Any]) -> str:
    """Return "" if two lists of transactions are equal, else what differs ("-" recorded, "+" ours).

    A recorded transaction without a command (kube-proxy looked again and found nothing to do) is passed over.
    """
    recorded = [text for text in theirs if text]
    if len(ours) != len(recorded):
        return f"recorded {len(recorded)} transactions, ours are {len(ours)}"
    found = []
    for left, right in zip(recorded, ours, strict=True):
        for what, a, b in (("", parse(left), parse(right)), ("order in ", order(left), order(right))):
            for key in {**a, **b}:
                one, two = a.get(key, []), b.get(key, [])
                if one == two:
                    continue
                found.append(f"{what}{key or 'what belongs to no Service'}:")
                found += [f"  - {line}" for line in one if line not in two]
                found += [f"  + {line}" for line in two if line not in one]
                if sorted(one) == sorted(two):
                    found += [
                        "  same lines, other order:",
                        *(f"  - {x}" for x in one),
                        *(f"  + {x}" for x in two),
                    ]
    return "\n".join(found)


_HEAD = re.compile(r"^(?:\t?)([a-z]+(?: ip6?)? [^ ]+(?: [^ ]+)?) {$")


def listed(lines: Iterable[str]) -> Groups:
    """Return what `nft list` prints, by table and object: {"table ip kube-proxy / chain services": [line, ...]}.

    Elements are one a line; their order is nft's, which sorts them. The key "fixed" has the objects of no Service,
    whose order is the one they were made in.
    """
    found: Groups = {"fixed": []}
    table = current = ""
    for line in "\n".join(lines).replace(",\n\t\t\t     ", ", ").split("\n"):
        head = _HEAD.match(line)
        if head:
            table = head[1] if not line.startswith("\t") else table
            current = table if not line.startswith("\t") else f"{table} / {head[1]}"
            found[current] = []
            if not re.search(r"-[A-Z2-7]{8}-", current):
                found["fixed"].append(current)
        elif line.startswith("\t\telements = { "):
            inside = line.removeprefix("\t\telements = { ").removesuffix(" }")
            found[current] += [f"\t\telement {one}" for one in inside.split(", ")]
        elif line.strip():
            found.setdefault(table if line == "}" else current, []).append(line)
    return found


def listed_difference(ours: Sequence[str], theirs: Sequence[str]) -> str:
    """Return "" if two texts of `nft list` are equal, else what differs ("-" recorded, "+" ours)."""
    a, b = listed(theirs), listed(ours)
    found = []
    for key in {**a, **b}:
        one, two = a.get(key), b.get(key)
        if one != two:
            found.append(f"{key}:")
            found += [f"  - {line}" for line in one or ["nothing"] if line not in (two or ())]
            found += [f"  + {line}" for line in two or ["nothing"] if line not in (one or ())]
            if one and two and sorted(one) == sorted(two):
                found += [
                    "  same lines, other order:",
                    *(f"  - {x}" for x in one),
                    *(f"  + {x}" for x in two),
                ]
    return "\n".join(found)
