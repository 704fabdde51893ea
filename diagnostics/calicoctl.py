"""`calicoctl`: a node's BGP sessions, and who has which address (v3.32).

`node status` asks BIRD on the machine it runs on; `ipam` works with the datastore, from any machine that reaches the
API server. Calico's objects themselves (`calicoctl get`) are custom resources: `kubectl get` shows them.
"""

from __future__ import annotations

from diagnostics.tool import Call, NotModelled, Result, Tool, Usage

FORMS = (
    "node status, ipam show [--show-blocks] [--ip=IP], ipam check [--show-problem-ips], ipam release --ip=IP"
)


def run(call: Call) -> Result:
    """`calicoctl node status | ipam show|check|release [OPTIONS]`."""
    from kubenet_lab.cni.calico import calicoctl
    from kubenet_lab.cni.calico.datastore import NoApiServer

    words = [word for word in call.argv if not word.startswith("-")]
    options = _options(call.argv)
    if "--ip" in options and options["--ip"] in words:
        words.remove(options["--ip"])
    if words == ["node", "status"] and not options:
        if call.netns != call.ns.host:
            raise NotModelled("node status in a pod; run it on a node")
        return Result(calicoctl.node_status(call.ns))
    if words[:1] == ["ipam"] and len(words) == 2:
        try:
            return _ipam(call, words[1], options)
        except NoApiServer:
            why = "connection to the API server refused"
            return Result(err=f"Failed to create Calico API client: {why}\n", exit_code=1)
    raise NotModelled(f"{' '.join(call.argv)}; there are: {FORMS}")


def _options(argv: list[str]) -> dict[str, str]:
    out: dict[str, str] = {}
    for at, word in enumerate(argv):
        if word.startswith("-"):
            name, sign, value = word.partition("=")
            if name == "--ip" and not sign:
                value = argv[at + 1] if at + 1 < len(argv) else ""
            out[name] = value
    return out


def _ipam(call: Call, verb: str, options: dict[str, str]) -> Result:
    from kubenet_lab.cni.calico import calicoctl

    known = {"show": {"--show-blocks", "--ip"}, "check": {"--show-problem-ips"}, "release": {"--ip"}}.get(
        verb
    )
    if known is None or not options.keys() <= known:
        raise NotModelled(f"ipam {verb} {' '.join(options)}; there are: {FORMS}")
    if verb == "check":
        return Result(calicoctl.ipam_check(call.network, show="--show-problem-ips" in options))
    if "--ip" in options:
        address = _address(options["--ip"])
        done = calicoctl.ipam_release if verb == "release" else calicoctl.ipam_show_address
        return Result(done(call.network, address))
    if verb == "release":
        raise NotModelled("ipam release without --ip")
    return Result(calicoctl.ipam_show(call.network, blocks="--show-blocks" in options))


def _address(text: str) -> str:
    from kubenet_lab.packet.ip import canonical

    try:
        return canonical(text)
    except ValueError:
        raise Usage(f"invalid IP address: {text}\n", 1) from None


TOOL = Tool("calicoctl", "Calico's BGP sessions on a node, and who has which address", run)
