"""A small shell: command lines with quotes, pipes and lists, run in a modelled namespace.

`run(network, "default/frontend", "ping -c 1 backend | tail -2")`. Besides the tools it has the filters one
reads their output with. What the shell does not model (variables, files, loops) it refuses by name.
"""

from __future__ import annotations

import re
import shlex

from diagnostics import BY_NAME
from diagnostics.tool import NOT_MODELLED, Call, NotModelled, Options, Result, Tool, Usage
from kubenet_lab.kernel.network import Network
from kubenet_lab.trace import Trace
from kubenet_lab.trace import captures as frames_of
from kubenet_lab.walk.engine import Walk

FRAME_TIME = 20e-6
"""Seconds a frame takes, as in `trace.captures`."""

_NETSHOOT = """
    ab apachebench arping bandwhich bird drill ethtool file fping grpcurl host http httpie iftop iperf iperf3
    iptraf-ng jq mtr nc ncat nft ngrep nmap nping openssl route arp ifconfig netstat scapy socat ssh strace
    tcptraceroute termshark traceroute tracepath tshark vim websocat wget kubectl ipset ipvsadm
"""
NETSHOOT = frozenset(_NETSHOOT.split())
"""Programs of the netshoot image that are known and not modelled here."""


History = list[tuple[float, Trace]]
"""Packets sent so far, each with its time. Commands add theirs to it; `tcpdump` shows what is in it."""


def run(
    network: Network,
    netns: str,
    line: str,
    *,
    walk: Walk | None = None,
    now: float = 0.0,
    stdin: str = "",
    history: History | None = None,
) -> Result:
    """Run a command line and return what the terminal shows, the last exit status, and every packet sent.

    `tcpdump ... &` captures while the commands after it run, and prints when the line ends or `wait` is
    reached.

    Args:
        network: The world.
        netns: Name of the namespace.
        line: One or more commands, joined by `|`, `&&`, `||`, `;`, `&` or line ends.
        walk: Carries packets and holds the clock; a new one at `now` when None.
        now: Simulated seconds, for a new walk.
        stdin: Standard input of the first command.
        history: Packets sent before, for `tcpdump`; those of this line are added.

    Raises:
        NotFound: There is no such namespace.
    """
    network.ns(netns)
    walk = walk or Walk(network, now=now)
    history = [] if history is None else history
    try:
        steps = _parse(line)
    except ValueError as error:
        return Result(err=f"sh: syntax error: {error}\n", exit_code=2)
    total = Result()
    screen: list[str] = []
    captures: list[tuple[list[str], int]] = []

    def add(done: Result) -> None:
        nonlocal total
        screen.append(done.text)
        traces = [*total.traces, *done.traces]
        total = Result(total.out + done.out, total.err + done.err, done.exit_code, done.rows, traces)

    def stop() -> None:
        """End every capture in the background: each prints what it has seen."""
        for words, begin in captures:
            add(_command(network, netns, words, walk, "", history[begin:]))
        captures.clear()

    for joint, pipeline, background in steps:
        if (joint == "&&" and total.exit_code != 0) or (joint == "||" and total.exit_code == 0):
            continue
        first = pipeline[0][0]
        if background:
            if first[0] != "tcpdump" or len(pipeline) > 1:
                add(Result(err=f"sh: not modelled: {first[0]} in the background\n", exit_code=NOT_MODELLED))
            else:
                captures.append((first, len(history)))
            continue
        if first[0] in ("wait", "kill"):
            stop()
            continue
        began = walk.now
        done = _pipeline(network, netns, pipeline, walk, stdin, history)
        stdin = ""
        for trace in done.traces:
            history.append((began, trace))
            began += len(frames_of([trace])) * FRAME_TIME
        add(done)
    stop()
    total.screen = "".join(screen)
    return total


Command = tuple[list[str], list[str]]
"""(words, redirections)."""


def _parse(line: str) -> list[tuple[str, list[Command], bool]]:
    """Split a line into pipelines, each with the joint before it.

    Raises ValueError for what is no shell syntax.
    """
    line = re.sub(r"\\\n", " ", line)
    lexer = shlex.shlex("\n".join(_statements(line)), posix=True, punctuation_chars="|&;<>\n")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = "#"
    steps: list[tuple[str, list[Command], bool]] = []
    joint = ";"
    words: list[str] = []
    redirections: list[str] = []
    pipeline: list[Command] = []

    def close(end: str) -> None:
        nonlocal joint, words, redirections, pipeline
        if words:
            pipeline.append((words, redirections))
        elif pipeline or end in ("|", "&&", "||"):
            raise ValueError(f"a command is missing before {end!r}")
        words, redirections = [], []
        if end != "|":
            if pipeline:
                steps.append((joint, pipeline, end == "&"))
            pipeline = []
            joint = end if end in ("&&", "||") else ";"

    tokens = list(lexer)
    at = 0
    while at < len(tokens):
        token = tokens[at]
        at += 1
        # Operators that touch come as one token: "&" and the line's end, for one.
        bare = token.strip("\n")
        if bare in ("|", "&&", "||", "&") or set(token) <= {"\n", ";"}:
            close(bare if bare in ("|", "&&", "||", "&") else ";")
        elif token in (">", ">>", "<", ">&", ">|", "<<", "<<<"):
            number = (
                words.pop()
                if (words and words[-1].isdigit() and token == ">")
                or (words and token == ">&" and words[-1].isdigit())
                else "1"
            )
            if at >= len(tokens):
                raise ValueError(f"a name is missing after {token!r}")
            redirections.append(f"{number}{token}{tokens[at]}")
            at += 1
        else:
            words.append(token)
    close(";")
    return steps


def _statements(line: str) -> list[str]:
    return line.split("\n")


def _pipeline(
    network: Network, netns: str, pipeline: list[Command], walk: Walk, stdin: str, history: History
) -> Result:
    errors: list[str] = []
    result = Result()
    text = stdin
    traces = []
    for at, (words, redirections) in enumerate(pipeline):
        result = _command(network, netns, words, walk, text, history)
        traces += result.traces
        for what in redirections:
            if what in ("2>&1",):
                result = Result(result.text, "", result.exit_code, result.rows, result.traces)
            elif what in ("1>/dev/null", "1>>/dev/null"):
                result = Result("", result.err, result.exit_code, result.rows, result.traces)
            elif what in ("2>/dev/null", "2>>/dev/null"):
                result = Result(result.out, "", result.exit_code, result.rows, result.traces)
            elif what in ("1>&2",):
                result = Result("", result.text, result.exit_code, result.rows, result.traces)
            else:
                message = f"sh: not modelled: redirection {what}\n"
                return Result("", "".join(errors) + message, NOT_MODELLED, [], traces)
        if at + 1 < len(pipeline):
            errors.append(result.err)
            text = result.out
    if len(pipeline) == 1:
        result.traces = traces
        return result
    rows = result.rows if len(pipeline) == 1 else []
    before = "".join(errors)
    return Result(
        result.out, before + result.err, result.exit_code, rows, traces, screen=before + result.text
    )


def _command(
    network: Network, netns: str, words: list[str], walk: Walk, stdin: str, history: History
) -> Result:
    name, *argv = words
    if name in ("sudo", "command", "exec") and argv:
        name, *argv = argv
    bare = name.rsplit("/", 1)[-1]
    tool = BY_NAME.get(bare) or FILTERS.get(bare)
    if tool is not None:
        return tool.run(network, netns, argv, walk=walk, stdin=stdin, history=history)
    if bare in NETSHOOT:
        return Result(err=f"{bare}: not modelled\n", exit_code=NOT_MODELLED)
    if "=" in name or "$" in name:
        return Result(err=f"sh: not modelled: {name} (variables)\n", exit_code=NOT_MODELLED)
    return Result(err=f"sh: {name}: not found\n", exit_code=127)


# -- filters -------------------------------------------------------------------------------------------------


def _options(call: Call, flags: str, values: str = "", long: dict[str, str] | None = None) -> Options:
    def unknown(option: str) -> Exception:
        return NotModelled(f"option {option}")

    spelled = {f"-{letter}": letter for letter in flags} | (long or {})
    return Options(call.argv, spelled, {f"-{letter}": letter for letter in values}, unknown, unknown)


def _input(call: Call, files: list[str]) -> str:
    """Return the text a filter works on: its files or standard input."""
    if not files:
        return call.stdin
    out = ""
    for name in files:
        if name == "-":
            out += call.stdin
        elif name in call.ns.files:
            out += call.ns.files[name]
        elif name.startswith("/proc/sys/"):
            out += _proc_sys(call, name)
        else:
            raise Usage(f"cat: {name}: No such file or directory\n", 1)
    return out


def _proc_sys(call: Call, name: str) -> str:
    from kubenet_lab.kernel.dialects import sysctl

    try:
        return sysctl.value(call.ns, name.removeprefix("/proc/sys/")) + "\n"
    except KeyError:
        raise Usage(f"cat: {name}: No such file or directory\n", 1) from None


def _cat(call: Call) -> Result:
    return Result(_input(call, _options(call, "").operands))


def _grep(call: Call) -> Result:
    long = {
        "--color": "color",
        "--color=auto": "color",
        "--ignore-case": "i",
        "--invert-match": "v",
        "--count": "c",
    }
    options = _options(call, "ivcnoEFqwx", "eABCm", long)
    patterns = options.all("e") or options.operands[:1]
    if not patterns:
        raise Usage(
            "Usage: grep [OPTION]... PATTERNS [FILE]...\nTry 'grep --help' for more information.\n", 2
        )
    files = options.operands if options.has("e") else options.operands[1:]
    if any(options.has(letter) for letter in "ABC"):
        raise NotModelled("context lines (-A, -B, -C)")
    parts = []
    for pattern in patterns:
        if options.has("F"):
            pattern = re.escape(pattern)
        elif not options.has("E"):
            pattern = _basic(pattern)
        if options.has("w"):
            pattern = rf"\b(?:{pattern})\b"
        parts.append(rf"^(?:{pattern})$" if options.has("x") else pattern)
    try:
        wanted = re.compile(
            "|".join(f"(?:{part})" for part in parts), re.IGNORECASE if options.has("i") else 0
        )
    except re.error as error:
        raise Usage(f"grep: {error}\n", 2) from None
    lines = _input(call, files).splitlines()
    hits = [(n, line) for n, line in enumerate(lines, 1) if bool(wanted.search(line)) != options.has("v")]
    if options.has("m"):
        hits = hits[: int(options.get("m"))]
    code = 0 if hits else 1
    if options.has("q"):
        return Result(exit_code=code)
    if options.has("c"):
        return Result(f"{len(hits)}\n", exit_code=code)
    out = ""
    for number, line in hits:
        head = f"{number}:" if options.has("n") else ""
        shown = [match.group() for match in wanted.finditer(line)] if options.has("o") else [line]
        out += "".join(f"{head}{text}\n" for text in shown)
    return Result(out, exit_code=code)


def _basic(pattern: str) -> str:
    """Turn a POSIX basic expression into Python's: there `\\|` and `\\(` are the operators, `|` a letter."""
    out, at = "", 0
    while at < len(pattern):
        letter = pattern[at]
        if letter == "\\" and at + 1 < len(pattern):
            after = pattern[at + 1]
            out += after if after in "|()+?{}" else "\\" + after
            at += 2
            continue
        if letter == "[":
            end = pattern.find("]", at + 2)
            if end > 0:
                out += pattern[at : end + 1]
                at = end + 1
                continue
        out += "\\" + letter if letter in "|()+?{}" else letter
        at += 1
    return out


def _count(call: Call, options: Options, name: str) -> int:
    given = options.get("n")
    if not given:
        short = next((word[1:] for word in call.argv if re.fullmatch(r"-\d+", word)), "")
        given = short or "10"
    try:
        return int(given)
    except ValueError:
        raise Usage(f"{name}: invalid number of lines: '{given}'\n", 1) from None


def _head(call: Call) -> Result:
    options = _options(call, "0123456789q", "n")
    return Result("".join(_input(call, options.operands).splitlines(True)[: _count(call, options, "head")]))


def _tail(call: Call) -> Result:
    options = _options(call, "0123456789q", "n")
    lines = _input(call, options.operands).splitlines(True)
    if options.get("n").startswith("+"):
        return Result("".join(lines[int(options.get("n")[1:]) - 1 :]))
    number = _count(call, options, "tail")
    return Result("".join(lines[-number:] if number else []))


def _wc(call: Call) -> Result:
    options = _options(call, "lwc")
    text = _input(call, options.operands)
    numbers = {"l": text.count("\n"), "w": len(text.split()), "c": len(text.encode())}
    asked = [letter for letter in "lwc" if options.has(letter)] or list("lwc")
    if len(asked) == 1:
        return Result(f"{numbers[asked[0]]}\n")
    return Result("".join(f"{numbers[letter]:>8}" for letter in asked).removeprefix(" ") + "\n")


def _sort(call: Call) -> Result:
    options = _options(call, "rnuV", "k")
    if options.has("k") or options.has("V"):
        raise NotModelled("sort keys (-k, -V)")
    lines = _input(call, options.operands).splitlines()

    def number(line: str) -> tuple[float, str]:
        found = re.match(r"\s*-?\d+(\.\d+)?", line)
        return (float(found.group()) if found else 0.0, line)

    lines = sorted(
        set(lines) if options.has("u") else lines,
        key=number if options.has("n") else None,
        reverse=options.has("r"),
    )
    return Result("".join(line + "\n" for line in lines))


def _uniq(call: Call) -> Result:
    options = _options(call, "c")
    groups: list[list[str]] = []
    for line in _input(call, options.operands).splitlines():
        if groups and groups[-1][0] == line:
            groups[-1].append(line)
        else:
            groups.append([line])
    return Result("".join(f"{len(g):>7} {g[0]}\n" if options.has("c") else f"{g[0]}\n" for g in groups))


def _echo(call: Call) -> Result:
    return Result(" ".join(call.argv) + "\n")


def _sleep(call: Call) -> Result:
    """Let simulated time pass."""
    total = 0.0
    for word in call.argv:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", word)
        if found is None:
            raise Usage(f"sleep: invalid time interval '{word}'\n", 1)
        total += float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]
    call.walk.now += total
    return Result()


def _hostname(call: Call) -> Result:
    return Result(call.netns.rsplit("/", 1)[-1] + "\n")


FILTERS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool("cat", "print files of the namespace (/etc/resolv.conf, /proc/sys/...)", _cat),
        Tool("grep", "lines that match", _grep),
        Tool("head", "the first lines", _head),
        Tool("tail", "the last lines", _tail),
        Tool("wc", "count lines, words, bytes", _wc),
        Tool("sort", "sort lines", _sort),
        Tool("uniq", "drop or count repeated lines", _uniq),
        Tool("echo", "print the arguments", _echo),
        Tool("sleep", "let simulated time pass", _sleep),
        Tool("hostname", "the host or pod's name", _hostname),
        Tool("true", "succeed", lambda call: Result()),
        Tool("false", "fail", lambda call: Result(exit_code=1)),
    )
}
"""What reads or arranges the tools' output."""
