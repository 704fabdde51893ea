"""`ip`: links, addresses, routes, rules and neighbours of a namespace, shown and edited (iproute2 6.1)."""

from __future__ import annotations

from collections.abc import Callable

from diagnostics.ip import addr, link, neigh, route, rule
from diagnostics.ip.common import Ask, Refused, unmodelled
from diagnostics.tool import Call, NotModelled, Result, Tool, Usage
from kubenet_lab.kernel.errors import KernelError

VERSION = "ip utility, iproute2-6.1.0, libbpf 1.1.2\n"

OBJECTS: tuple[tuple[str, Callable[[Ask, list[str]], Result] | None], ...] = (
    ("address", addr.run),
    ("addrlabel", None),
    ("maddress", None),
    ("route", route.run),
    ("rule", rule.run),
    ("neighbor", neigh.run),
    ("neighbour", neigh.run),
    ("ntable", None),
    ("link", link.run),
    ("l2tp", None),
    ("tunnel", None),
    ("tuntap", None),
    ("token", None),
    ("tcp_metrics", None),
    ("monitor", None),
    ("xfrm", None),
    ("mroute", None),
    ("netns", None),
    ("netconf", None),
    ("vrf", None),
    ("nexthop", None),
    ("mptcp", None),
    ("help", None),
    ("stats", None),
)
"""What `ip` knows, in the order in which it tries an abbreviation; None for what is not modelled."""


def run(call: Call) -> Result:
    """`ip [OPTIONS] OBJECT COMMAND`."""
    ask = Ask(call)
    words = list(call.argv)
    while words and words[0].startswith("-"):
        option = words.pop(0)
        name = "-" + option.lstrip("-")
        if name in ("-4", "-6", "-0"):
            ask.family = int(name[1:])
        elif name in ("-f", "-family"):
            ask.family = {"inet": 4, "inet6": 6}.get(words.pop(0) if words else "", 0)
        elif name in ("-j", "-js", "-json"):
            ask.json = True
        elif name in ("-p", "-pretty"):
            ask.pretty = True
        elif name in ("-d", "-de", "-details"):
            ask.details = True
        elif name in ("-br", "-brief"):
            ask.brief = True
        elif name in ("-o", "-oneline"):
            ask.oneline = True
        elif name in ("-c", "-color", "-n", "-N") and name != "-n":
            continue
        elif name == "-V":
            return Result(VERSION)
        elif name in ("-s", "-stats", "-statistics"):
            raise NotModelled(f"option {option} (counters of links are not kept)")
        elif name in (
            "-n",
            "-netns",
            "-b",
            "-batch",
            "-force",
            "-t",
            "-ts",
            "-a",
            "-all",
            "-rc",
            "-l",
            "-r",
            "-h",
            "-iec",
        ):
            raise NotModelled(f"option {option}")
        else:
            raise Usage(f'Option "{option}" is unknown, try "ip -help".\n', 255)
    if not words:
        raise NotModelled("the usage text; see ip(8)")
    given = words.pop(0)
    for name, act in OBJECTS:
        if name.startswith(given):
            if act is None:
                raise NotModelled(f"ip {name}")
            try:
                return act(ask, words)
            except KernelError as error:
                text = str(error).partition(": " + error.what)[0] if error.what else str(error)
                if error.errno == "EADDRINUSE":  # a MAC's: `KernelError` has the words for a socket's
                    text = "RTNETLINK answers: Address already in use"
                raise Usage(text + "\n", 2) from None
            except Refused as refused:
                raise Usage(refused.text, refused.exit_code) from None
    raise Usage(f'Object "{given}" is unknown, try "ip help".\n', 1)


TOOL = Tool("ip", "links, addresses, routes, rules and neighbours of this namespace", run)

__all__ = ["TOOL", "unmodelled"]
