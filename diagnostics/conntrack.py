"""`conntrack`: list, count, delete and flush tracked connections (conntrack-tools 1.4.7)."""

from __future__ import annotations

from diagnostics.tool import Call, NotModelled, Options, Result, Tool, Usage
from kubenet_lab.kernel.conntrack import Flow
from kubenet_lab.kernel.dialects import conntrack
from kubenet_lab.packet.ip import canonical
from kubenet_lab.packet.packet import ICMP, ICMPV6, PROTO_NUMBERS, TCP, UDP

BANNER = "conntrack v1.4.7 (conntrack-tools): "
HINT = "Try `conntrack -h' or 'conntrack --help' for more information.\n"

_FLAGS = {
    "-L": "L",
    "--dump": "L",
    "-D": "D",
    "--delete": "D",
    "-F": "F",
    "--flush": "F",
    "-C": "C",
    "--count": "C",
    "-S": "S",
    "--stats": "S",
    "-G": "G",
    "--get": "G",
    "-E": "E",
    "--event": "E",
    "-I": "I",
    "--create": "I",
    "-U": "U",
    "--update": "U",
    "-V": "V",
    "--version": "V",
    "-z": "z",
    "--zero": "z",
    "-h": "h",
    "--help": "h",
}
_VALUES = {
    "-s": "s",
    "--src": "s",
    "--orig-src": "s",
    "-d": "d",
    "--dst": "d",
    "--orig-dst": "d",
    "-r": "r",
    "--reply-src": "r",
    "-q": "q",
    "--reply-dst": "q",
    "-p": "p",
    "--proto": "p",
    "--protonum": "p",
    "-f": "f",
    "--family": "f",
    "-m": "m",
    "--mark": "m",
    "-w": "w",
    "--zone": "w",
    "-o": "o",
    "--output": "o",
    "-u": "u",
    "--status": "u",
    "-t": "t",
    "--timeout": "t",
    "-e": "e",
    "--event-mask": "e",
    "-b": "b",
    "--buffer-size": "b",
}
_PORTS = {
    "--sport": "sport",
    "--orig-port-src": "sport",
    "--dport": "dport",
    "--orig-port-dst": "dport",
    "--reply-port-src": "rsport",
    "--reply-port-dst": "rdport",
}
_ICMP = {"--icmp-type": "type", "--icmp-code": "code", "--icmp-id": "id"}
_NATS = {"-n": "n", "--src-nat": "n", "-g": "g", "--dst-nat": "g", "-j": "j", "--any-nat": "j"}


def _fail(message: str) -> Usage:
    return Usage(f"{BANNER}{message}\n{HINT}", 2)


def run(call: Call) -> Result:
    """`conntrack -L|-D|-F|-C [table] [filters]`."""
    argv, nats = _take_nats(list(call.argv))
    proto = _protocol(argv)
    values = dict(_VALUES)
    if proto in (TCP, UDP, PROTO_NUMBERS["sctp"]):
        values |= _PORTS
    if proto == TCP:
        values["--state"] = "state"
    if proto in (ICMP, ICMPV6):
        values |= _ICMP

    def unknown(option: str) -> Exception:
        return _fail(f"unknown option `{option}'")

    def missing(option: str) -> Exception:
        return _fail(f"option `{option}' requires an argument")

    options = Options(argv, _FLAGS, values, unknown, missing)
    commands = [name for name in "LDFCSGEIU" if options.has(name)]
    if options.has("V"):
        return Result("conntrack v1.4.7 (conntrack-tools)\n")
    if options.has("h") or not commands:
        raise NotModelled("the usage text; see conntrack(8)")
    if len(commands) > 1:
        raise _fail("Can't use two different commands")
    table = options.operands[0] if options.operands else "conntrack"
    if table not in ("conntrack",):
        raise NotModelled(f"table {table}")
    command = commands[0]
    if command in "SGEIU" or options.has("z"):
        raise NotModelled(f"option -{command if command in 'SGEIU' else 'z'}")
    for option in "sdrq":
        for given in options.all(option):
            _address(given)
    ns = call.ns
    ns.conntrack.expire(call.now)
    if command == "F":
        ns.conntrack.flush()
        return Result(err=f"{BANNER}connection tracking table has been emptied.\n")
    if command == "C":
        return Result(f"{len(ns.conntrack)}\n")
    for option in ("o", "u", "t", "e"):
        for value in options.all(option):
            if option != "o" or set(value.split(",")) - {"extended", "id"}:
                raise NotModelled(f"option -{option} {value}")
    found = [flow for flow in ns.conntrack if _fits(flow, options, nats, proto)]
    kinds = set(options.get("o").split(","))
    text = conntrack.show(found, call.now, extended="extended" in kinds, ident="id" in kinds)
    rows = [_row(flow, call.now) for flow in found]
    what = "shown" if command == "L" else "deleted"
    if command == "D":
        for flow in found:
            ns.conntrack.delete(flow)
    code = 1 if command == "D" and not found else 0
    return Result(text, f"{BANNER}{len(found)} flow entries have been {what}.\n", code, rows)


def _take_nats(argv: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Take the NAT options out, whose address may be left away."""
    rest: list[str] = []
    nats: list[tuple[str, str]] = []
    at = 0
    while at < len(argv):
        word = argv[at]
        if word in _NATS:
            value = argv[at + 1] if at + 1 < len(argv) and not argv[at + 1].startswith("-") else ""
            nats.append((_NATS[word], _address(value) if value else ""))
            at += 2 if value else 1
        else:
            rest.append(word)
            at += 1
    return rest, nats


def _protocol(argv: list[str]) -> int:
    for at, word in enumerate(argv):
        name = argv[at + 1] if word in ("-p", "--proto", "--protonum") and at + 1 < len(argv) else ""
        name = word.partition("=")[2] if word.startswith(("--proto=", "--protonum=")) else name
        if name:
            number = PROTO_NUMBERS.get(name.lower(), int(name) if name.isdigit() else -1)
            if number not in PROTO_NUMBERS.values():
                raise _fail(f"`{name}' unsupported protocol")
            return number
    return 0


def _address(text: str) -> str:
    try:
        return canonical(text)
    except ValueError:
        raise _fail(f"Invalid IP address `{text}'") from None


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise NotModelled(f"value {text!r}") from None


def _fits(flow: Flow, options: Options, nats: list[tuple[str, str]], proto: int) -> bool:
    orig, reply = flow.orig, flow.reply
    for option, wanted in (("s", orig[1]), ("d", orig[2]), ("r", reply[1]), ("q", reply[2])):
        if any(_address(given) != wanted for given in options.all(option)):
            return False
    if proto and orig[0] != proto:
        return False
    for option, port in (("sport", orig[3]), ("dport", orig[4]), ("rsport", reply[3]), ("rdport", reply[4])):
        if any(_number(given) != port for given in options.all(option)):
            return False
    for option, part in (("type", orig[4] >> 8), ("code", orig[4] & 255), ("id", orig[3])):
        if any(_number(given) != part for given in options.all(option)):
            return False
    family = options.get("f")
    if family and (family == "ipv6") != (":" in orig[1]):
        return False
    state = options.get("state")
    if state and state != flow.state:
        return False
    for given in options.all("m"):
        value, _, mask = given.partition("/")
        if flow.mark & (_number(mask) if mask else 0xFFFFFFFF) != _number(value):
            return False
    if any(_number(given) != flow.zone for given in options.all("w")):
        return False
    source, destination = flow.src_nat, flow.dst_nat
    for kind, to in nats:
        on_source = source and to in ("", reply[2])
        on_destination = destination and to in ("", reply[1])
        if not {"n": on_source, "g": on_destination, "j": on_source or on_destination}[kind]:
            return False
    return True


def _row(flow: Flow, now: float) -> dict[str, object]:
    orig, reply = flow.orig, flow.reply
    return {
        "proto": orig[0],
        "state": flow.state,
        "timeout": max(0, int(flow.expires - now)),
        "src": orig[1],
        "dst": orig[2],
        "sport": orig[3],
        "dport": orig[4],
        "reply_src": reply[1],
        "reply_dst": reply[2],
        "reply_sport": reply[3],
        "reply_dport": reply[4],
        "unreplied": not flow.seen_reply,
        "assured": flow.assured,
        "mark": flow.mark,
    }


TOOL = Tool("conntrack", "connections the kernel tracks, and what NAT made of them", run)
