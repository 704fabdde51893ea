"""The twin: a network's state in this machine's kernel, and commands and packets run in it.

Needs Linux with user namespaces (or root), `unshare`, `ip`, and `iptables-restore` where there are rules. Nothing is
changed outside: the namespaces belong to one child process and vanish with it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from msgspec import Struct

from kubenet_lab.errors import KubenetLabError, NotFound
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.packet import Packet
from kubenet_lab.twin.flow import Comparison, Flow
from kubenet_lab.twin.plan import Missing, Plan, plan

if TYPE_CHECKING:
    from kubenet_lab.twin.readback import State

_AGENT = Path(__file__).with_name("agent.py")
_SPACES = ["--net", "--mount", "--pid", "--fork", "--kill-child"]


class TwinError(KubenetLabError):
    """The twin could not be made or has ended; `missing` names what the machine lacks."""

    def __init__(self, message: str, missing: Sequence[Missing] = ()) -> None:
        self.missing = tuple(missing)
        super().__init__("\n  ".join([message, *map(str, missing)]))


class Completed(Struct, frozen=True):
    """What a command printed and how it ended; 124 when it was stopped for taking too long."""

    stdout: str
    stderr: str
    exit_code: int

    def __str__(self) -> str:
        return self.stdout


def unavailable() -> str:
    """Return why this machine cannot have a twin, or "" when it can. Starts nothing that stays."""
    if not sys.platform.startswith("linux"):
        return f"a twin needs a Linux kernel; this is {sys.platform}"
    for program in ("unshare", "ip", "bridge", "iptables-restore", "conntrack"):
        if shutil.which(program, path=_path()) is None:
            return f"the program {program!r} is not installed"
    return "" if _unshare() else _REFUSED


_ADDED = re.compile(r"ip link add .*?name (\S+)(?: netns (\S+))? .*type (\S+)")


def _causes(failed: list[Missing], made: Plan) -> list[Missing]:
    """Name a link that the kernel did not make once, and leave out what failed because it is not there."""
    files = {file: name for name, file in made.netns.items()}
    gone: dict[tuple[str, str], Missing] = {}
    for item in failed:
        found = _ADDED.match(item.what)
        if found is not None:
            name, file, kind = found.groups()
            ns = files.get(file or "", item.ns)
            why = f"this kernel has none ({item.why})" if "Unknown device type" in item.why else item.why
            gone[ns, name] = Missing(ns, f"link {name} of kind {kind}", why)

    def follows(item: Missing) -> bool:
        words = item.what.replace("/", " ").split()
        return any(ns == item.ns and name in words for ns, name in gone)

    return [*gone.values(), *(i for i in failed if not _ADDED.match(i.what) and not follows(i))]


_REFUSED = (
    "this machine does not let a process make its own network namespaces (unshare --user --map-root-user "
    "--net --mount --pid was refused); allow user namespaces or run as root"
)


def _path() -> str:
    """Return PATH with the folders of administrators' programs, which a user's PATH may lack."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def _unshare() -> list[str]:
    """Return the `unshare` command that works here, or [] when none does."""
    for extra in (["--user", "--map-root-user"], []):
        argv = ["unshare", *extra, *_SPACES]
        try:
            done = subprocess.run(
                [*argv, "true"], capture_output=True, check=False, env={**os.environ, "PATH": _path()}
            )
        except FileNotFoundError:
            return []
        if done.returncode == 0:
            return argv
    return []


class Twin:
    """A network in the real kernel. A context manager; leaving it ends everything that runs there.

    Args:
        network: The state to make; it is read once, at the start.
        strict: Raise when something cannot be made; False goes on without it and names it in `missing`.
        now: Simulated time in s at which the state is taken; what has a time-out is given what is left of it.
        clock: Seconds for the servers whose answers depend on time (a DNS cache): a twin runs in real time.

    Raises:
        TwinError: no namespaces here, or (strict) something is missing.
    """

    def __init__(
        self,
        network: Network,
        *,
        strict: bool = True,
        now: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.network = network
        self.plan: Plan = plan(network, now=now)
        self.missing: list[Missing] = list(self.plan.missing)
        self.pid = 0
        self._clock, self._start = clock, clock()
        self._lock = threading.Lock()
        self._next = 0
        self._results: dict[int, Any] = {}
        self._done = threading.Condition()
        self._closed = self._ended = False
        argv = _unshare()
        if not argv:
            raise TwinError(_REFUSED)
        self._process = subprocess.Popen(
            [*argv, sys.executable, "-I", "-S", str(_AGENT)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
            env={**os.environ, "PATH": _path()}, start_new_session=True,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, name="twin", daemon=True)
        self._reader.start()
        try:
            self.pid = self.call("hello")["pid"]
            made = self.plan
            failed = self.call(
                "build", netns=made.netns, root=made.root, phases=made.phases, sockets=made.sockets
            )
            self.missing += _causes([Missing(**item) for item in failed], made)
            if strict and self.missing:
                raise TwinError("this machine's kernel or tools cannot make:", self.missing)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "ended" if self._closed else f"process {self.pid}"
        return f"<Twin of {len(self.network.netns)} namespaces, {state}>"

    def close(self) -> None:
        """End the twin and everything that runs in it."""
        self._closed = True
        process = self._process
        if process.stdin is not None:
            with suppress(BrokenPipeError):  # the child may have ended first
                process.stdin.close()
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join(timeout=2)
        if process.stdout is not None:
            process.stdout.close()

    # -- what people use --------------------------------------------------------------------------------

    def run(self, ns: str, command: str, *, stdin: str = "", timeout: float = 30.0) -> Completed:
        """Run a shell command in a namespace: `kubectl exec POD -- sh -c COMMAND`.

        It sees the namespace's devices, and its /etc/resolv.conf and /etc/hosts. Raises NotFound, TwinError.
        """
        return Completed(*self.call("run", ns=self.find(ns), command=command, stdin=stdin, timeout=timeout))

    def argv(self, ns: str, argv: Sequence[str]) -> list[str]:
        """Return a command line that runs `argv` in a namespace from outside, with the caller's terminal."""
        inner: list[str] = self.call("argv", ns=self.find(ns), argv=list(argv))
        user = ["--user", "--preserve-credentials"] if "--user" in _unshare() else []
        return ["nsenter", f"--target={self.pid}", *user, "--net", "--mount", "--pid", *inner]

    def find(self, name: str) -> str:
        """Return the full name of a namespace: "frontend" is "default/frontend". Raises NotFound."""
        if name in self.plan.netns:
            return name
        ends = [full for full in self.plan.netns if full.partition("/")[2] == name]
        if f"default/{name}" in ends:
            return f"default/{name}"
        if len(ends) == 1:
            return ends[0]
        raise NotFound("network namespace", name)

    def compare(self, flows: Iterable[Flow], *, timeout: float = 1.0) -> list[Comparison]:
        """Try each flow in model and kernel and return the two side by side.

        The model's state is left as it was; the kernel's conntrack tables are emptied first.
        """
        from kubenet_lab.twin.compare import compare

        return compare(self, list(flows), timeout)

    def read(self, ns: str) -> State:
        """Read a namespace's state back with the real tools, as the model's values. Raises NotFound, TwinError."""
        from kubenet_lab.twin.readback import read

        return read(self, [self.find(ns)])[0]

    def differences(self) -> list[str]:
        """Say what the kernel has otherwise than the model, one a line; [] when both are alike."""
        from kubenet_lab.twin.readback import differences, read

        states = read(self, self.network.netns)
        return [line for state in states for line in differences(self.network.ns(state.netns), state)]

    def exec(self, commands: Iterable[tuple[str, Sequence[str], str]]) -> list[Completed]:
        """Run (namespace, argv, stdin) commands side by side as the node's root would."""
        return [
            Completed(*item)
            for item in self.call("exec", commands=[[ns, list(a), text] for ns, a, text in commands])
        ]

    # -- the conversation with the agent ----------------------------------------------------------------

    def call(self, operation: str, **arguments: Any) -> Any:
        """Ask the agent for something and wait for the result. Raises TwinError."""
        with self._lock:
            self._next += 1
            number = self._next
        self._send({"id": number, "op": operation, **arguments})
        with self._done:
            self._done.wait_for(lambda: number in self._results or self._ended)
            if number not in self._results:
                raise TwinError(f"the twin has ended (exit status {self._process.poll()})")
            message = self._results.pop(number)
        if "error" in message:
            raise TwinError(f"{operation}: {message['error']}")
        return message["result"]

    def _send(self, message: dict[str, Any]) -> None:
        stream = self._process.stdin
        if stream is None or stream.closed:
            raise TwinError("the twin has ended")
        try:
            with self._lock:
                stream.write(json.dumps(message) + "\n")
                stream.flush()
        except BrokenPipeError:
            raise TwinError(f"the twin has ended (exit status {self._process.poll()})") from None

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        for line in stream:
            message = json.loads(line)
            if "ask" in message:
                self._answer(message)
                continue
            with self._done:
                self._results[message["id"]] = message
                self._done.notify_all()
        with self._done:
            self._ended = True
            self._done.notify_all()

    def _answer(self, message: dict[str, Any]) -> None:
        """Let the model's own handler answer a datagram that reached its socket in the kernel."""
        request = Packet(
            message["src"], message["dst"], message["proto"], message["sport"], message["dport"],
            payload=bytes.fromhex(message["payload"]),
        )  # fmt: skip
        reply = self.plan.handlers[message["socket"]](request, self._clock() - self._start)
        with suppress(TwinError):  # it may have ended meanwhile: then nobody waits for the answer
            self._send({"answer": message["ask"], "payload": None if reply is None else reply.payload.hex()})


__all__ = ["Completed", "Twin", "TwinError", "unavailable"]
