"""`birdc`: asks the BIRD of a node, over its control socket (BIRD 1.6 and 2.0).

Calico's image has `birdcl` and `birdcl6`, the same client without line editing: BIRD 1.6 is one program a family.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from diagnostics.tool import NOT_MODELLED, Call, NotModelled, Result, Tool, Usage
from kubenet_lab.kernel.socket import UNIX

PLACES = {4: ("/var/run/calico/bird.ctl", "/run/bird/bird.ctl"), 6: ("/var/run/calico/bird6.ctl",)}
"""Where the client looks: in Calico's image and in Debian's package."""


def _run(name: str, family: int) -> Callable[[Call], Result]:
    def run(call: Call) -> Result:
        """`birdc [-s SOCKET] [-r] show protocols [all] [NAME] | show route [FILTERS]`."""
        words, path = list(call.argv), ""
        while words and words[0].startswith("-"):
            option = words.pop(0)
            if option == "-s" and words:
                path = words.pop(0)
            elif option == "-v":
                raise NotModelled("option -v (reply codes)")
            elif option != "-r":
                usage = f"Usage: {name} [-s <control-socket>] [-v] [-r] [-l]\n"
                raise Usage(f"{name}: invalid option -- '{option.lstrip('-')}'\n{usage}", 1)
        sockets = {one.address: one for one in call.ns.sockets.get((UNIX, 0), ())}
        path = path or next((one for one in PLACES[family] if one in sockets), PLACES[family][0])
        found = sockets.get(path)
        if found is None or found.handler is None:
            text = f"Unable to connect to server control socket ({path}): No such file or directory\n"
            return Result(err=text, exit_code=1)
        if not words:
            raise NotModelled("talking with BIRD line by line; give it a command")
        given = found.handler(words)
        if given.code == NOT_MODELLED:
            raise NotModelled(given.text)
        return Result(given.text, exit_code=given.code, rows=_rows(given.text))

    return run


_ROW = re.compile(
    r"(?P<name>\S+) +(?P<proto>\S+) +(?P<table>\S+) +(?P<state>up|start|down) +(?P<since>[\d:.]+) *(?P<info>.*)"
)


def _rows(text: str) -> list[dict[str, str]]:
    """The lines of `show protocols` as values."""
    return [found.groupdict() for line in text.splitlines() if (found := _ROW.fullmatch(line))]


TOOLS = tuple(
    Tool(name, f"BIRD's sessions and routes{' (IPv6)' if family == 6 else ''}", _run(name, family))
    for name, family in (("birdc", 4), ("birdcl", 4), ("birdc6", 6), ("birdcl6", 6))
)
