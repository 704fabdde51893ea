"""Transcripts: `$ command`, the output it prints on a terminal with both streams, and `[exit N]`.

The same file is replayed twice: by the model's tools in every run, and by the real programs in a real
namespace where the machine has them. `# world: NAME` names the world both start from (`worlds.py`); `#
mask: NAME ...` the parts that are not compared (times, identifiers); `# sorted` says that the kernel prints
lines in hash order.
"""

from __future__ import annotations

import difflib
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import NamedTuple

TRANSCRIPTS = Path(__file__).resolve().parents[1] / "transcripts"

MASKS: dict[str, tuple[str, str]] = {
    "rtt": (r"(time=)[\d.]+( ms)|(rtt min/avg/max/mdev = )[\d./]+|(packet loss, time )\d+", r"\1\3\4~\2"),
    "timers": (
        r"(gc_timer|hello_timer|tcn_timer|forward_delay_timer|topology_change_timer|hold_timer) +[\d.]+",
        r"\1 ~",
    ),
    "json-timers": (r'("(?:gc_timer|hello_timer|tcn_timer|forward_delay_timer)":)[\d.]+', r"\1~"),
    "seconds": (r"^((?:ipv[46] +\d+ )?(?:tcp +6|udp +17|icmp +1|icmpv6 +58)) \d+", r"\1 ~"),
    "icmp-id": (r"\bid=\d+", "id=~"),
    "after": (r"after \d+ (ms|milliseconds)", r"after ~ \1"),
    "sport": (r"\b(sport|dport)=[3-6]\d{4}", r"\1=~"),
    "set-memory": (r"^Size in memory: \d+\n| bucketsize \d+ initval 0x[0-9a-f]+", ""),
    "clock": (r"^\d\d:\d\d:\d\d\.\d{6}", "~"),
}


class Step(NamedTuple):
    """One command of a transcript.

    `where` is the namespace's name before the prompt, "" for the world's own.
    """

    where: str
    command: str
    output: str
    exit_code: int

    def __str__(self) -> str:
        return f"{self.where}$ {self.command}\n{self.output}[exit {self.exit_code}]\n"


class Transcript(NamedTuple):
    """A transcript file, read."""

    name: str
    world: str
    masks: tuple[str, ...]
    sorted_lines: bool
    steps: list[Step]


_PROMPT = re.compile(r"^([a-z0-9-]*)\$ (.*)$")


def read(path: Path) -> Transcript:
    """Read a transcript file."""
    world, masks, in_order = "one", [], True
    steps: list[Step] = []
    where = command = ""
    output: list[str] = []
    for line in path.read_bytes().decode().splitlines(True):
        prompt = _PROMPT.match(line.rstrip("\n"))
        ended = re.match(r"^\[exit (\d+)\]$", line.rstrip("\n"))
        if not command and line.startswith("#"):
            key, _, value = line[1:].strip().partition(": ")
            if key == "world":
                world = value
            elif key == "mask":
                masks += value.split()
            elif key == "sorted":
                in_order = False
        elif prompt and not command:
            where, command = prompt.groups()
            output = []
        elif ended and command:
            steps.append(Step(where, command, "".join(output), int(ended[1])))
            command = ""
        elif command:
            output.append(line)
    assert not command, f"{path}: {command!r} has no [exit N]"
    return Transcript(str(path.relative_to(TRANSCRIPTS)), world, tuple(masks), not in_order, steps)


def all_transcripts() -> list[Path]:
    """Return every transcript file that the tools replay."""
    return sorted(TRANSCRIPTS.rglob("*.txt"))


def compared(text: str, transcript: Transcript) -> str:
    """Return the part of an output that is compared."""
    for name in transcript.masks:
        pattern, repl = MASKS[name]
        text = re.sub(pattern, lambda m, r=repl: m.expand(r) if "\\" in r else r, text, flags=re.M)
    return "".join(sorted(text.splitlines(True))) if transcript.sorted_lines else text


def difference(step: Step, output: str, exit_code: int, transcript: Transcript) -> str:
    """Return a readable difference between a step and what was printed instead, "" when they agree."""
    wanted = compared(step.output, transcript) + f"[exit {step.exit_code}]\n"
    got = compared(output, transcript) + f"[exit {exit_code}]\n"
    if wanted == got:
        return ""
    diff = difflib.unified_diff(wanted.splitlines(True), got.splitlines(True), "transcript", "printed", n=1)
    return f"{step.where}$ {step.command}\n" + "".join(
        line if line.endswith("\n") else line + "\n" for line in diff
    )


@cache
def no_namespaces() -> str:
    """Return why real namespaces cannot be had here, "" where they can."""
    for program in (
        "unshare",
        "ip",
        "bridge",
        "conntrack",
        "ss",
        "sysctl",
        "ping",
        "curl",
        "iptables",
        "tcpdump",
    ):
        if shutil.which(program) is None:
            return f"no {program} on this machine"
    tried = subprocess.run(
        ["unshare", "-Urnm", "sh", "-c", "ip link add v0 type veth peer name v1 && mount -t tmpfs none /run"],
        capture_output=True,
        text=True,
        check=False,
    )
    return "" if tried.returncode == 0 else f"namespaces are not to be had: {tried.stderr.strip()}"


def run_real(setup: str, steps: list[Step]) -> list[tuple[str, int]]:
    """Run commands in fresh real namespaces and return (output, exit status) of each."""
    marker = "\x1e"
    script = [setup]
    for step in steps:
        inside = f"ip netns exec {step.where} " if step.where else ""
        quoted = "'" + step.command.replace("'", "'\\''") + "'"
        script.append(f"{inside}sh -c {quoted} 2>&1; printf '%s%s%s' '{marker}' $? '{marker}'")
    done = subprocess.run(
        ["unshare", "-Urnm", "--fork", "sh", "-c", "\n".join(script)],
        capture_output=True,
        check=False,
        timeout=120,
    )
    parts = done.stdout.decode().split(marker)
    return [(parts[at], int(parts[at + 1])) for at in range(0, len(parts) - 1, 2)]
