"""`ipset save` and `ipset restore` text (ipset 7.17)."""

from __future__ import annotations

from collections.abc import Mapping

from kubenet_lab.errors import Fault, InputError
from kubenet_lab.kernel.dialects.iptables import split
from kubenet_lab.kernel.ipset import IpSet, IpSetError
from kubenet_lab.kernel.netfilter.extension import quoted


def save(sets: Mapping[str, IpSet]) -> str:
    """`ipset save`: a create line a set, each followed by its elements; sets of sets come last."""
    out: list[str] = []
    for made in sorted(sets.values(), key=lambda s: s.type == "list:set"):
        family = ["family", made.family] if made.family else []
        out.append(" ".join(["create", made.name, made.type, *family, *made.settings]))
        for element, options in made.entries.items():
            out.append(" ".join(["add", made.name, element, *_printed(options)]))
    return "\n".join(out) + "\n" if out else ""


def _printed(options: tuple[str, ...]) -> list[str]:
    return [
        f'"{word}"' if place and options[place - 1] == "comment" else quoted(word)
        for place, word in enumerate(options)
    ]


def load(text: str, *, file: str = "<text>") -> dict[str, IpSet]:
    """Read an `ipset save` dump. Raises InputError with every fault."""
    return restore({}, text, file=file)


def restore(
    sets: Mapping[str, IpSet], text: str, *, exist: bool = False, file: str = "<text>"
) -> dict[str, IpSet]:
    """`ipset restore [-exist]`: return the sets after the text's commands (create, add, del, flush, destroy).

    Raises InputError with every fault; then nothing is changed.
    """
    now = dict(sets)
    pending: dict[str, list[tuple[str, tuple[str, ...]]]] = {}
    faults: list[Fault] = []

    def settle(name: str) -> None:
        if name in pending:
            now[name] = now[name].update(pending.pop(name), exist=exist)

    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            words = [word.value for word in split(line)]
            here = exist or "-exist" in words or "-!" in words
            words = [word for word in words if word not in ("-exist", "-!")]
            command, name = words[0].lstrip("-"), words[1] if len(words) > 1 else ""
            if command in ("create", "N", "n"):
                _create(now, name, words[2:], here)
                continue
            if command in ("flush", "F") and not name:
                pending.clear()
                now = {key: value.flush() for key, value in now.items()}
                continue
            if name not in now:
                raise IpSetError("The set with the given name does not exist")
            if command in ("add", "A"):
                element, options = words[2], tuple(words[3:])
                if here != exist:
                    settle(name)
                    now[name] = now[name].add(element, *options, exist=True)
                else:
                    now[name].check(element)
                    pending.setdefault(name, []).append((element, options))
                continue
            settle(name)
            if command in ("del", "D"):
                now[name] = now[name].delete(words[2], exist=here)
            elif command in ("flush", "F"):
                now[name] = now[name].flush()
            elif command in ("destroy", "X"):
                del now[name]
            elif command in ("swap", "W"):
                _swap(now, name, words[2])
            else:
                raise IpSetError(f"No command specified: unknown argument {command}")
        except (IpSetError, InputError) as error:
            faults.append(Fault(str(error), file, number, path=line, help="see ipset(8)"))
        except IndexError:
            faults.append(
                Fault(
                    "Syntax error: the line ends too soon",
                    file,
                    number,
                    path=line,
                    help="write add NAME ELEMENT",
                )
            )
    for name in list(pending):
        try:
            settle(name)
        except IpSetError as error:
            faults.append(Fault(str(error), file, path=name, help="remove the element that is there twice"))
    if faults:
        raise InputError(faults)
    return now


def _create(sets: dict[str, IpSet], name: str, words: list[str], exist: bool) -> None:
    kind, settings = words[0], words[1:]
    family = "inet"
    if "family" in settings:
        at = settings.index("family")
        family = {"ipv4": "inet", "ipv6": "inet6"}.get(settings[at + 1], settings[at + 1])
        del settings[at : at + 2]
    if kind.startswith("hash:"):
        for key, value in (("maxelem", "65536"), ("hashsize", "1024")):
            if key not in settings:
                settings = [key, value, *settings]
    made = IpSet(name, kind, family, tuple(settings))
    if name in sets:
        old = sets[name]
        if exist and (old.type, old.family) == (made.type, made.family):
            return
        raise IpSetError("Set cannot be created: set with the same name already exists")
    sets[name] = made


def _swap(sets: dict[str, IpSet], one: str, other: str) -> None:
    if other not in sets:
        raise IpSetError("The set with the given name does not exist")
    first, second = sets[one], sets[other]
    if first.type != second.type:
        raise IpSetError("The sets cannot be swapped: their type does not match")
    sets[one] = IpSet(one, second.type, second.family, second.settings, second.entries)
    sets[other] = IpSet(other, first.type, first.family, first.settings, first.entries)
