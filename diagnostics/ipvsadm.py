"""`ipvsadm`: list, save and change virtual servers and their connections (ipvsadm 1.31)."""

from __future__ import annotations

from typing import Any

from diagnostics.tool import Call, NotModelled, Result, Tool, Usage
from kubenet_lab.kernel.dialects import ipvsadm
from kubenet_lab.kernel.ipvs import IpvsError, IpvsTable, VirtualServer, socket_text

HINT = "Try `ipvsadm -h' or 'ipvsadm --help' for more information.\n"
_LONG = {"--list": "-L", "--save": "-S", "--connection": "-c", "--numeric": "-n", "--restore": "-R"}
_FORMS = {"--stats": "stats", "--thresholds": "thresholds", "--persistent-conn": "persistent-conn"}
_VALUES = "tufsMbrwxy"
"""Letters of short options that take a value."""
_OTHER = {
    "--rate": "rates: nobody counts seconds here; see --stats",
    "--daemon": "the synchronization daemon",
    "--start-daemon": "the synchronization daemon",
    "--stop-daemon": "the synchronization daemon",
    "-R": "reading from standard input",
    "--exact": "counters that are not cut; they are whole up to 8 digits",
}


def run(call: Call) -> Result:
    """`ipvsadm -Ln|-Lnc|-Sn|-A|-E|-D|-a|-e|-d|-C|-Z ...`."""
    words = _words(call.argv)
    for word in words:
        if word in _OTHER:
            raise NotModelled(f"option {word}: {_OTHER[word]}")
    if "-h" in words or "--help" in words:
        raise NotModelled("the usage text; see ipvsadm(8)")
    now = call.walk.now
    if "--set" in words:
        return _set(call, words)
    if "-S" in words:
        _numeric(words)
        return Result(ipvsadm.save(_table(call)))
    if not words or {"-L", "-l"} & {*words}:
        return _list(call, words, now)
    try:
        command = ipvsadm.Command(words)
        command.apply(call.ns.ipvs)
    except IpvsError as error:
        return Result(err=f"{error}\n", exit_code=255)
    return Result()


def _words(argv: list[str] | tuple[str, ...]) -> list[str]:
    """Take short options apart that were written together ("-Lnc")."""
    out: list[str] = []
    for word in argv:
        name = word.partition("=")[0]
        if word.startswith("--"):
            out.append(_LONG.get(name, word))
        elif word.startswith("-") and len(word) > 2 and word[1].isalpha():
            for at, letter in enumerate(word[1:], 1):
                out.append(f"-{letter}")
                if letter in _VALUES and at + 1 < len(word):
                    out.append(word[at + 1 :])
                    break
        else:
            out.append(word)
    return out


def _numeric(words: list[str]) -> None:
    if "-n" not in words:
        raise NotModelled("names for addresses and ports; add -n")


def _table(call: Call) -> IpvsTable:
    """What IPVS has; looking does not load the module."""
    return call.ns.ipvs if call.ns.has_ipvs else IpvsTable()


def _list(call: Call, words: list[str], now: float) -> Result:
    table = _table(call)
    if "--timeout" in words:
        return Result(ipvsadm.timeouts(table))
    _numeric(words)
    if "-c" in words:
        text = ipvsadm.connections(table, now)
        return Result(text, rows=[_connection(conn) for conn in table])
    only: VirtualServer | None = None
    rest = [word for word in words if word not in ("-L", "-l", "-n", *_FORMS, "--sort", "--nosort")]
    if rest:
        try:
            only = table.service(ipvsadm.Command(rest).key)
        except IpvsError as error:
            return Result(err=f"{error}\n", exit_code=255)
    form = next((_FORMS[word] for word in words if word in _FORMS), "")
    text = ipvsadm.listing(table, now, only=only, form=form)
    services = [only] if only is not None else ipvsadm.sorted_services(table)
    rows = [row for virtual in services for row in _rows(table, virtual)]
    return Result(text, rows=rows)


def _connection(conn: Any) -> dict[str, Any]:
    return {
        "protocol": conn.protocol,
        "client": socket_text(*conn.client),
        "virtual": socket_text(*conn.virtual),
        "real": socket_text(*conn.real),
        "state": conn.shown_state,
        "expires": conn.expires,
        "template": conn.template,
    }


def _rows(table: IpvsTable, virtual: VirtualServer) -> list[dict[str, Any]]:
    """One row a real server; a virtual server without any has one row with None in its place."""
    head = {
        "virtual": f"mark {virtual.fwmark}" if virtual.fwmark else socket_text(virtual.address, virtual.port),
        "protocol": virtual.protocol,
        "scheduler": virtual.scheduler,
        "persistent": virtual.persistent,
    }
    out = []
    for server, real in table.reals[virtual.key].items():
        active, inactive, _ = table.connections(virtual.key, server)
        out.append(
            {
                **head,
                "real": socket_text(*server),
                "weight": real.weight,
                "active": active,
                "inactive": inactive,
            }
        )
    return out or [{**head, "real": None, "weight": None, "active": 0, "inactive": 0}]


def _set(call: Call, words: list[str]) -> Result:
    numbers = words[words.index("--set") + 1 :]
    if len(numbers) != 3 or not all(number.isdecimal() for number in numbers):
        raise Usage("--set option requires 3 timeout values\n", 2)
    call.ns.ipvs.set_timeouts(*map(int, numbers))
    return Result()


TOOL = Tool("ipvsadm", "virtual servers of IPVS, their real servers and connections", run)
