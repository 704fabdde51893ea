"""`cilium-dbg`: a node's BPF maps as Cilium's agent prints them."""

from __future__ import annotations

from collections.abc import Callable

from diagnostics.tool import Call, NotModelled, Result, Tool, Usage
from kubenet_lab.kernel.bpf import BpfState
from kubenet_lab.kernel.dialects import cilium

_SUBCOMMANDS: dict[tuple[str, ...], Callable[[BpfState, float], str]] = {
    ("service", "list"): lambda state, _now: cilium.service_list(state),
    ("identity", "list"): lambda state, _now: cilium.identity_list(state),
    ("bpf", "lb", "list"): lambda state, _now: cilium.lb_list(state),
    ("bpf", "lb", "maglev", "list"): lambda state, _now: cilium.lb_maglev_list(state),
    ("bpf", "lb", "source-ranges", "list"): lambda state, _now: cilium.lb_source_ranges_list(state),
    ("bpf", "ct", "list", "global"): lambda state, now: cilium.ct_list(state, now),
    ("bpf", "nat", "list"): lambda state, now: cilium.nat_list(state, now),
    ("bpf", "ipcache", "list"): lambda state, _now: cilium.ipcache_list(state),
    ("bpf", "endpoint", "list"): lambda state, _now: cilium.endpoint_list(state),
}


def run(call: Call) -> Result:
    """`cilium-dbg service list|identity list|bpf lb|ct|nat|ipcache|endpoint list|bpf policy get ID|--all`."""
    words = tuple(word for word in call.argv if not word.startswith("-"))
    if call.ns.bpf is None:
        return Result(
            err='Error: Cannot get config: Get "http://localhost/v1/config": dial unix /var/run/cilium/cilium.sock: '
            "connect: no such file or directory\nIs the agent running?\n",
            exit_code=1,
        )
    state, now = call.ns.bpf.look(), call.walk.now
    shown = _SUBCOMMANDS.get(words)
    if shown is not None:
        return Result(shown(state, now))
    if words[:3] == ("bpf", "policy", "get"):
        return _policy(state, words[3:], "--all" in call.argv)
    known = ", ".join(" ".join(one) for one in (*_SUBCOMMANDS, ("bpf", "policy", "get")))
    raise NotModelled(f"cilium-dbg {' '.join(call.argv)}; there are: {known}")


def _policy(state: BpfState, words: tuple[str, ...], every: bool) -> Result:
    if every:
        parts = (
            f"Endpoint ID: {number}\n{cilium.policy_get(state, number)}" for number in sorted(state.policies)
        )
        return Result("\n\n".join(parts))
    if not words:
        raise Usage("Error: Missing endpoint id argument\n", 1)
    number = int(words[0]) if words[0].isdecimal() else -1
    if number not in state.policies:
        return Result(
            err=f"Error: Failed to open map: endpoint {words[0]} has no policy map here\n", exit_code=1
        )
    return Result(cilium.policy_get(state, number))


TOOL = Tool("cilium-dbg", "BPF maps of a node: Services, connections, identities, policies", run)
