"""A pod's start and end on one node, moment by moment: who acted, what it was told, and the state before and after.

A `Recorder` is handed to `kubelet.start_pod` and `stop_pod` by its `runtime`, which runs the plugins as any runtime
does and notes every execution; kernel edits are noted as the kernel makes them, in the name of whoever is running.
Nothing is guessed: what no component did has no moment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from msgspec import Struct

from kubenet_lab.cni import PLUGINS
from kubenet_lab.cni.plugin import Call, CniError, Plugin, Result
from kubenet_lab.cni.process import printed, result_text
from kubenet_lab.cni.runtime import BIN_DIR, MISSING, Runtime
from kubenet_lab.kernel.dump import dump_netns
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network

KUBELET, CONTAINERD = "kubelet", "containerd"
ASKS, RUNS, EDITS, ANSWERS, FAILS = "asks", "runs", "edits", "answers", "fails"


class Moment(Struct, frozen=True):
    """One thing that happened.

    Attributes:
        actor: "kubelet", "containerd", or the plugin's name.
        verb: ASKS (the kubelet asks the runtime for something), RUNS (the actor executes `what`), EDITS (it changed the
            state), ANSWERS or FAILS (a plugin ended).
        what: The plugin that is executed, or is not there to be executed (FAILS), or who is asked; "" otherwise.
        command: CNI_COMMAND, where a plugin is executed or ends; the call of the CRI, where the runtime is asked.
        told: The plugin's environment and standard input, or what it printed.
        before, after: Dumps of the node and its pod (`kernel.dump`) around an edit.
        depth: 0 for kubelet and runtime, 1 for a plugin, 2 for one that a plugin runs.
    """

    actor: str
    verb: str
    what: str = ""
    command: str = ""
    told: str = ""
    before: Mapping[str, Any] = {}
    after: Mapping[str, Any] = {}
    depth: int = 0


class Recorder:
    """Notes what happens on a node and in one pod's namespace while it is `watching`.

    Args:
        network: The world.
        host: The node.
        sandbox: The pod's network namespace ("default/frontend"), which may not be there yet.
        plugins: What is installed in /opt/cni/bin.
    """

    def __init__(
        self, network: Network, host: str, sandbox: str, plugins: tuple[Plugin, ...] = PLUGINS
    ) -> None:
        self.network, self.host, self.sandbox = network, host, sandbox
        self.moments: list[Moment] = []
        self.runtime = _Recording(network, host, plugins)
        self.runtime.recorder = self
        self._actors = [KUBELET]
        self._last: Mapping[str, Any] = {}
        self._watched: list[Netns] = []

    @contextmanager
    def watching(self) -> Iterator[Recorder]:
        """Note every edit of the two namespaces until the end of the block."""
        self._last = self._state()
        self.watch()
        try:
            yield self
            self.note()
        finally:
            for space in self._watched:
                for name in ("_changed", "set_iptables"):
                    space.__dict__.pop(name, None)
            self._watched.clear()

    @property
    def actor(self) -> str:
        """Who is running."""
        return self._actors[-1]

    @contextmanager
    def by(self, actor: str) -> Iterator[None]:
        """Do what the block does in somebody's name."""
        self.note()
        self._actors.append(actor)
        try:
            yield
        finally:
            self.note()
            self._actors.pop()

    def take_over(self, actor: str) -> None:
        """Have somebody act from now on, until the next one takes over."""
        self.note()
        self._actors[0] = actor

    def note(self) -> None:
        """Write down what has changed since the last moment, in the name of whoever is running."""
        now = self._state()
        if now != self._last:
            before, self._last = self._last, now
            self.moments.append(Moment(self.actor, EDITS, before=before, after=now, depth=self._depth))

    def say(self, verb: str, what: str = "", command: str = "", told: str = "") -> None:
        """Write down an execution or its end."""
        self.note()
        self.moments.append(Moment(self.actor, verb, what, command, told, depth=self._depth))

    @property
    def _depth(self) -> int:
        return len([name for name in self._actors if name not in (KUBELET, CONTAINERD)])

    def _state(self) -> dict[str, Any]:
        spaces = (self.network.netns.get(name) for name in (self.host, self.sandbox))
        return {"namespaces": [dump_netns(space) for space in spaces if space is not None]}

    def watch(self) -> None:
        """Have the two namespaces tell when they change. A namespace that comes later is watched from then on."""
        for name in (self.host, self.sandbox):
            space = self.network.netns.get(name)
            if space is not None and space not in self._watched:
                self._watched.append(space)
                for method in ("_changed", "set_iptables"):
                    space.__dict__[method] = self._telling(getattr(space, method))

    def _telling(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def told(*given: Any) -> Any:
            out = real(*given)
            if self._whole():
                self.note()
            return out

        return told

    def _whole(self) -> bool:
        """False between the two halves of one command: a veth end without its other end."""
        for space in self._watched:
            for link in space.links.values():
                far = self.network.netns.get(link.peer.netns) if link.peer is not None else None
                if link.peer is not None and (far is None or link.peer.link not in far.links):
                    return False
        return True


class _Recording(Runtime):
    """A runtime that tells a recorder what it does."""

    recorder: Recorder

    def make_sandbox(self, name: str, container_id: str) -> str:
        # The runtime is at work from here to the end of ADD; bringing `lo` up, in between, is its doing too.
        self.recorder.say(ASKS, CONTAINERD, "RunPodSandbox")
        self.recorder.take_over(CONTAINERD)
        path = super().make_sandbox(name, container_id)
        self.recorder.note()
        self.recorder.watch()
        return path

    def add(self, *given: Any, **named: Any) -> Result:
        with self.recorder.by(CONTAINERD):
            result = super().add(*given, **named)
        self.recorder.take_over(KUBELET)
        return result

    def delete(self, *given: Any, **named: Any) -> None:
        if self.recorder.actor == KUBELET:
            self.recorder.say(ASKS, CONTAINERD, "StopPodSandbox")
        with self.recorder.by(CONTAINERD):
            super().delete(*given, **named)

    def remove_sandbox(self, path: str) -> None:
        with self.recorder.by(CONTAINERD):
            super().remove_sandbox(path)
        self.recorder.take_over(KUBELET)

    def run(self, plugin: str, call: Call) -> Result | None:
        recorder = self.recorder
        if (
            plugin not in self.plugins
            or f"{BIN_DIR}/{plugin}" in self.node.files.get(MISSING, "").splitlines()
        ):
            try:
                return super().run(plugin, call)
            except CniError as fault:
                recorder.say(FAILS, plugin, call.command, str(fault))
                raise
        recorder.say(RUNS, plugin, call.command, _standard_input(plugin, call))
        with recorder.by(plugin):
            try:
                result = super().run(plugin, call)
            except CniError as fault:
                recorder.say(FAILS, "", call.command, printed(fault.to_json()))
                raise
            version = str(call.conf.get("cniVersion") or "")
            recorder.say(ANSWERS, "", call.command, result_text(result, version) if result else "")
        return result


def _standard_input(plugin: str, call: Call) -> str:
    """The execution as a shell line: environment, executable, configuration on standard input."""
    pairs = {
        "CNI_COMMAND": call.command,
        "CNI_CONTAINERID": call.container_id,
        "CNI_NETNS": call.netns,
        "CNI_IFNAME": call.ifname,
        "CNI_ARGS": f"'{call.args}'" if call.args else "",
        "CNI_PATH": "/opt/cni/bin",
    }
    words = " \\\n".join(f"{name}={value}" for name, value in pairs.items() if value)
    body = json.dumps(call.conf, indent=2, ensure_ascii=False)
    return f"{words} \\\n/opt/cni/bin/{plugin} <<'EOF'\n{body}\nEOF"
