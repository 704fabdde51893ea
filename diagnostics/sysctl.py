"""`sysctl`: read and set kernel parameters (procps-ng 4.0)."""

from __future__ import annotations

import re

from diagnostics.tool import Call, NotModelled, Options, Result, Tool
from kubenet_lab.kernel.dialects import sysctl

_FLAGS = {
    "-a": "a",
    "--all": "a",
    "-A": "a",
    "-X": "a",
    "-n": "n",
    "--values": "n",
    "-N": "N",
    "--names": "N",
    "-w": "w",
    "--write": "w",
    "-q": "q",
    "--quiet": "q",
    "-e": "e",
    "--ignore": "e",
    "-b": "b",
    "--binary": "b",
    "-o": "o",
    "-x": "x",
    "-V": "V",
    "--version": "V",
    "--dry-run": "dry",
}


def run(call: Call) -> Result:
    """`sysctl [-n] [-w] KEY[=VALUE]...` and `sysctl -a [-r PATTERN]`."""

    def unknown(option: str) -> Exception:
        return NotModelled(f"option {option}")

    options = Options(call.argv, _FLAGS, {"-r": "r", "--pattern": "r"}, unknown, unknown)
    if options.has("V"):
        return Result("sysctl from procps-ng 4.0.2\n")
    if options.has("a"):
        pattern = options.get("r")
        keys = [key for key in sysctl.known(call.ns) if not pattern or re.search(pattern, key)]
        return Result("".join(_line(key, sysctl.value(call.ns, key), options) for key in keys))
    if not options.operands:
        raise NotModelled("the usage text; see sysctl(8)")
    out, err, code = "", "", 0
    rows: list[dict[str, object]] = []
    for word in options.operands:
        key, equals, value = word.partition("=")
        if options.has("w") and not equals:
            err, code = err + "sysctl: command line(0): invalid syntax, continuing...\n", 1
            break
        try:
            present = sysctl.value(call.ns, key)
            if equals:
                present = value.strip()
                problem = _set(call, key, present, dry=options.has("dry"))
                if problem:
                    err, code = err + problem, 1
                    continue
        except KeyError:
            if not options.has("e"):
                name = sysctl.path(key)
                err, code = err + f"sysctl: cannot stat /proc/sys/{name}: No such file or directory\n", 1
            continue
        name = sysctl.canonical(key)
        rows.append({"key": name, "value": present})
        if not (equals and options.has("q")):
            out += _line(name, present, options)
    return Result(out, err, code, rows)


def _line(key: str, value: str, options: Options) -> str:
    if options.has("N"):
        return f"{key}\n"
    if options.has("b"):
        return value
    return f"{value}\n" if options.has("n") else f"{key} = {value}\n"


def _set(call: Call, key: str, value: str, *, dry: bool) -> str:
    """Set a parameter; return the tool's complaint where the kernel would refuse the value."""
    dotted = sysctl.canonical(key).replace("/", ".")
    numbers = value.split()
    wanted = len(call.ns.sysctl(dotted).split())
    if not numbers or len(numbers) != wanted or not all(re.fullmatch(r"-?\d+", n) for n in numbers):
        return f'sysctl: setting key "{sysctl.canonical(key)}": Invalid argument\n'
    if not dry:
        call.ns.set_sysctl(dotted, "\t".join(numbers))
    return ""


TOOL = Tool("sysctl", "kernel parameters: forwarding, reverse path filter, conntrack timeouts", run)
