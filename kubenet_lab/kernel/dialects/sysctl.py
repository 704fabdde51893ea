"""`sysctl -a`: kernel parameters as text, both ways (procps-ng 4.0)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from kubenet_lab.errors import Fault
from kubenet_lab.kernel import sysctl
from kubenet_lab.kernel.dialects import iproute2
from kubenet_lab.kernel.dialects.iproute2 import Unmodelled, Wrong
from kubenet_lab.kernel.netns import Netns


def path(key: str) -> str:
    """Return the file of a parameter below /proc/sys.

    A key is written with dots, and a dot inside a name (the link `eth0.5`) then as a slash; or with slashes,
    and then a dot is a dot.
    """
    if "/" in key and ("." not in key or key.index("/") < key.index(".")):
        return key
    return key.translate(str.maketrans("./", "/."))


def canonical(key: str) -> str:
    """Return a key with dots between its parts, whichever way it was written."""
    return path(key).translate(str.maketrans("/.", "./"))


def known(ns: Netns) -> list[str]:
    """Return every modelled parameter, sorted as `sysctl -a` does; per-interface ones for each link."""
    keys = set(sysctl.DEFAULTS) | set(ns.sysctls) | set(sysctl.ALIASES)
    for key in tuple(keys):
        head, sep, name = key.partition(".conf.default.")
        if sep:
            keys |= {f"{head}.conf.{link.translate(str.maketrans('.', '/'))}.{name}" for link in ns.links}
    return sorted(keys)


def value(ns: Netns, key: str) -> str:
    """Return a parameter's value. Raises KeyError for one that does not exist, or whose link does not."""
    key = canonical(key)
    found = re.match(r"net\.ipv[46]\.conf\.([^.]+)\.", key)
    if found and found[1] not in ("all", "default") and found[1].replace("/", ".") not in ns.links:
        raise KeyError(key)
    return ns.sysctl(key.replace("/", "."))


def show(ns: Netns, keys: Iterable[str] | None = None) -> str:
    """Return `sysctl KEY...`, or `sysctl -a` of what is modelled.

    Raises KeyError for a key that does not exist.
    """
    return "".join(f"{canonical(key)} = {value(ns, key)}\n" for key in (known(ns) if keys is None else keys))


def parse(text: str, *, file: str = "<text>", unknown: list[Fault] | None = None) -> dict[str, str]:
    """Read the output of `sysctl -a`, or a file of /etc/sysctl.d, into key -> value.

    Raises:
        InputError: With every line that cannot be read and, unless `unknown` is a list that takes them, every
            parameter that is not modelled.
    """
    notes = Unmodelled(file, unknown)
    out: dict[str, str] = {}
    for at, line in iproute2.lines_of(text):
        stripped = line.strip()
        if stripped[0] in "#;":
            continue
        key, equals, got = stripped.lstrip("-").partition("=")
        key = key.strip()
        if not equals or not key or " " in key:
            notes.fault(Wrong('a parameter is written "net.ipv4.ip_forward = 1"', key or "key"), at)
            continue
        key = canonical(key).replace("/", ".")
        try:
            sysctl.default(sysctl.ALIASES.get(key, key))
        except KeyError:
            notes.carry(key, at, key)
            continue
        out[key] = got.strip()
    notes.finish()
    return out
