"""`ipset`: list, test, save and change IP sets (ipset 7.17)."""

from __future__ import annotations

from typing import Any

from diagnostics.tool import Call, NotModelled, Result, Tool
from kubenet_lab.errors import InputError
from kubenet_lab.kernel.dialects import ipset
from kubenet_lab.kernel.ipset import IpSet, IpSetError

VERSION = "ipset v7.17, protocol version: 7\n"
_PREFIX = "ipset v7.17: "
_COMMANDS = {
    "list": "list", "-L": "list", "--list": "list", "save": "save", "-S": "save", "--save": "save",
    "test": "test", "-T": "test", "--test": "test", "version": "version", "-v": "version", "--version": "version",
    "create": "create", "-N": "create", "--create": "create", "add": "add", "-A": "add", "--add": "add",
    "del": "del", "-D": "del", "--del": "del", "flush": "flush", "-F": "flush", "--flush": "flush",
    "destroy": "destroy", "-X": "destroy", "--destroy": "destroy", "swap": "swap", "-W": "swap", "--swap": "swap",
}  # fmt: skip
_NOT_MODELLED = ("restore", "-R", "rename", "-E", "help", "-h", "--help")
_REVISIONS = {
    "hash:ip": 6, "hash:ip,port": 7, "hash:ip,port,ip": 6, "hash:ip,port,net": 8, "hash:net": 7, "hash:net,port": 8,
    "hash:net,iface": 8, "bitmap:ip": 3, "bitmap:port": 3, "list:set": 3,
}  # fmt: skip
"""Revisions of the set types that Linux 6.18 and ipset 7.17 agree on; 0 is printed for those not asked."""


def run(call: Call) -> Result:
    """`ipset list|save|test|create|add|del|flush|destroy|swap ...`."""
    words = [*call.argv]
    exist = any(word in ("-exist", "-!") for word in words)
    names_only = any(word in ("-n", "-name") for word in words)
    terse = any(word in ("-t", "-terse") for word in words)
    words = [word for word in words if word not in ("-exist", "-!", "-n", "-name", "-t", "-terse")]
    if any(
        word in ("-o", "-output", "-q", "-quiet", "-r", "-resolve", "-s", "-sorted", "-f") for word in words
    ):
        raise NotModelled(f"options among {' '.join(words)!r}")
    if not words or words[0] in _NOT_MODELLED:
        raise NotModelled(f"ipset {words[0] if words else 'without a command'}")
    command = _COMMANDS.get(words[0])
    if command is None:
        hint = "Try `ipset help' for more information.\n"
        return Result(err=f"{_PREFIX}No command specified: unknown argument {words[0]}\n{hint}", exit_code=2)
    sets = call.ns.ipsets
    rest = words[1:]
    if command == "version":
        return Result(VERSION)
    if command in ("list", "save"):
        if rest and rest[0] not in sets:
            return _fail("The set with the given name does not exist")
        chosen = [sets[rest[0]]] if rest else sorted(sets.values(), key=lambda made: made.type == "list:set")
        if command == "save":
            return Result(ipset.save({made.name: made for made in chosen}))
        if names_only:
            return Result("".join(f"{made.name}\n" for made in chosen))
        text = "\n".join(_shown(call, made, terse) for made in chosen)
        return Result(text, rows=[row for made in chosen for row in _rows(made)])
    if command == "test":
        return _test(sets, rest)
    used = [name for name in (rest[:1] or sets) if name in sets and _references(call, name)]
    if command == "destroy" and used:
        return _fail("Set cannot be destroyed: it is in use by a kernel component")
    try:
        line = " ".join([command, *rest])
        call.ns.ipsets = ipset.restore(sets, line, exist=exist)
    except (IpSetError, InputError) as error:
        faults = error.faults if isinstance(error, InputError) else ()
        return _fail(faults[0].message if faults else str(error))
    return Result()


def _fail(message: str) -> Result:
    return Result(err=f"{_PREFIX}{message}\n", exit_code=1)


def _test(sets: dict[str, IpSet], words: list[str]) -> Result:
    if len(words) < 2:
        return _fail("Missing mandatory argument to command test")
    name, element = words[0], words[1]
    if name not in sets:
        return _fail("The set with the given name does not exist")
    try:
        element = sets[name].canonical(element)
    except IpSetError as error:
        return _fail(str(error))
    if element in sets[name]:
        return Result(err=f"Warning: {element} is in set {name}.\n")
    return Result(err=f"{element} is NOT in set {name}.\n", exit_code=1)


def _shown(call: Call, made: IpSet, terse: bool) -> str:
    """One set as `ipset list` prints it; its size in memory and bucket size are the kernel's affair and left out."""
    family = f"family {made.family} " if made.family else ""
    entries = [" ".join([element, *options]) for element, options in made.entries.items()]
    lines = [
        f"Name: {made.name}",
        f"Type: {made.type}",
        f"Revision: {_REVISIONS.get(made.type, 0)}",
        f"Header: {family}{' '.join(made.settings)}",
        f"References: {_references(call, made.name)}",
        f"Number of entries: {len(made.entries)}",
    ]
    if not terse:
        lines += ["Members:", *entries]
    return "\n".join(lines) + "\n"


def _references(call: Call, name: str) -> int:
    """How many rules and sets of sets use a set."""
    rules = 0
    for fam in (4, 6):
        for _table, _chain, _number, rule in call.ns.iptables[fam]:
            rules += sum(getattr(match, "set_name", "") == name for match in rule.matches)
    listed = sum(name in other.entries for other in call.ns.ipsets.values() if other.type == "list:set")
    return rules + listed


def _rows(made: IpSet) -> list[dict[str, Any]]:
    return [{"set": made.name, "type": made.type, "element": element} for element in made.entries]


TOOL = Tool("ipset", "named sets of addresses and ports that rules look up", run)
