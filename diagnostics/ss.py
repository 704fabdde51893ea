"""`ss`: sockets that listen (iproute2 6.1)."""

from __future__ import annotations

from diagnostics.tool import Call, NotModelled, Options, Result, Tool, Usage, service
from kubenet_lab.kernel.dialects import ss

_FLAGS = {
    "-l": "l",
    "--listening": "l",
    "-t": "t",
    "--tcp": "t",
    "-u": "u",
    "--udp": "u",
    "-n": "n",
    "--numeric": "n",
    "-a": "a",
    "--all": "a",
    "-4": "4",
    "--ipv4": "4",
    "-6": "6",
    "--ipv6": "6",
    "-H": "H",
    "--no-header": "H",
    "-V": "V",
    "--version": "V",
}
_OTHER = [
    "-p",
    "-e",
    "-m",
    "-i",
    "-o",
    "-s",
    "-r",
    "-x",
    "-w",
    "-S",
    "-d",
    "-0",
    "-K",
    "-E",
    "-Z",
    "-z",
    "-N",
    "-b",
    "-O",
    "-T",
    "-P",
    "-M",
]


def run(call: Call) -> Result:
    """`ss -ltnu [-4|-6] [-H] [sport = :PORT]`."""

    def unknown(option: str) -> Exception:
        if option in _OTHER or option.startswith("--"):
            return NotModelled(f"option {option}")
        return Usage(f"ss: invalid option -- '{option[1:]}'\n", 255)

    options = Options(call.argv, _FLAGS, {}, unknown, unknown)
    if options.has("V"):
        return Result("ss utility, iproute2-6.1.0\n")
    tcp, udp = options.has("t"), options.has("u")
    if not tcp and not udp:
        raise NotModelled("sockets other than TCP and UDP; ask with -t, -u or both")
    family = 4 if options.has("4") else 6 if options.has("6") else 0
    found = ss.select(call.ns, tcp=tcp, udp=udp, family=family)
    if not options.has("l") and not options.has("a"):
        # Without -l only connections are shown, and an open connection is not a thing the model keeps.
        found = []
    port = _port(options.operands)
    if port:
        found = [socket for socket in found if socket.port == port]
    name = None if options.has("n") else lambda proto, number: service(number, proto)
    text = ss.show(found, netid=tcp and udp, header=not options.has("H"), port_name=name)
    rows = [
        {k: getattr(s, k) for k in ("proto", "address", "port", "process", "backlog_full")} for s in found
    ]
    return Result(text, rows=rows)


def _port(words: list[str]) -> int:
    """Read the one filter that is modelled: `sport = :PORT`, `( sport = :PORT )`, `sport :PORT`."""
    rest = [
        word
        for word in " ".join(words).replace("(", " ").replace(")", " ").split()
        if word not in ("=", "==", "eq")
    ]
    if not rest:
        return 0
    if len(rest) == 2 and rest[0] in ("sport", "src") and rest[1].startswith(":") and rest[1][1:].isdigit():
        return int(rest[1][1:])
    raise NotModelled(f'filter {" ".join(words)!r}; only "sport = :PORT"')


TOOL = Tool("ss", "sockets that listen, and the addresses they are bound to", run)
