"""firewall: lets a container's packets through a FORWARD chain that drops, and may shut bridges off from each other.

Modelled is the iptables backend; firewalld runs on no machine here, so the default is iptables too.
Source: `plugins/meta/firewall` (v1.9.1); https://www.cni.dev/plugins/current/meta/firewall/
"""

from __future__ import annotations

from kubenet_lab.cni.plugin import Call, CniError, Plugin, Result, add_lines, chain_lines, has_chain
from kubenet_lab.packet.ip import family

CHAIN, ADMIN = "CNI-FORWARD", "CNI-ADMIN"
STAGES = ("CNI-ISOLATION-STAGE-1", "CNI-ISOLATION-STAGE-2")
POLICIES = ("", "open", "same-bridge", "isolated")


def _comment(text: str) -> str:
    return f'-m comment --comment "{text}"'


def _admin(call: Call) -> str:
    return str(call.conf.get("iptablesAdminChainName") or ADMIN)


def _policy(call: Call) -> str:
    policy = str(call.conf.get("ingressPolicy") or "")
    if policy not in POLICIES:
        raise CniError(f'unknown ingress policy: "{policy}"')
    return policy


def _backend(call: Call) -> None:
    if call.conf.get("backend") == "firewalld":
        raise CniError("could not connect to D-Bus system bus: firewalld is not modelled")


def _rules(ip: str) -> tuple[str, str]:
    own = f"{ip}/{32 if family(ip) == 4 else 128}"
    return (f"-d {own} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT", f"-s {own} -j ACCEPT")


def _addresses(result: Result) -> list[str]:
    return [ip.address.partition("/")[0] for ip in result.ips]


def add(call: Call) -> Result:
    """Open FORWARD for the container's addresses; with `ingressPolicy`, close it between bridges."""
    result = call.prev_result()
    if result is None:
        raise CniError("missing prevResult from earlier plugin")
    _backend(call)
    for fam in (4, 6):
        own = [ip for ip in _addresses(result) if family(ip) == fam]
        if own:
            _open(call, fam, own)
    policy = _policy(call)
    if policy in ("same-bridge", "isolated"):
        if not result.interfaces:
            raise CniError(
                f'interface needs to be set for ingress policy "{policy}", make sure to chain "firewall" plugin '
                'with "bridge"'
            )
        if not result.interfaces[0].name:
            raise CniError("got empty bridge name")
        for fam in sorted({family(ip) for ip in _addresses(result)}):
            _isolate(call, fam, result.interfaces[0].name, policy)
    return result


def _ensure(call: Call, fam: int, chains: tuple[str, ...]) -> str:
    return "".join(
        f":{chain} - [0:0]\n" for chain in chains if not has_chain(call.node, fam, "filter", chain)
    )


def _first(call: Call, fam: int, chain: str, rule: str) -> str:
    """A rule at the head of a chain, unless it is in it already."""
    present = f"-A {chain} {rule}" in chain_lines(call.node, fam, "filter", chain)
    return "" if present else f"-I {chain} 1 {rule}\n"


def _last(call: Call, fam: int, chain: str, rule: str) -> str:
    present = f"-A {chain} {rule}" in chain_lines(call.node, fam, "filter", chain)
    return "" if present else f"-A {chain} {rule}\n"


def _open(call: Call, fam: int, own: list[str]) -> None:
    admin = _admin(call)
    lines = _ensure(call, fam, (CHAIN, admin))
    lines += _first(call, fam, "FORWARD", f"{_comment('CNI firewall plugin rules')} -j {CHAIN}")
    lines += _first(call, fam, CHAIN, f"{_comment('CNI firewall plugin admin overrides')} -j {admin}")
    lines += "".join(_last(call, fam, CHAIN, rule) for ip in own for rule in _rules(ip))
    add_lines(call.node, fam, f"*filter\n{lines}COMMIT\n")


def _isolate(call: Call, fam: int, bridge: str, policy: str) -> None:
    """Two stages, as Docker's: what comes from a bridge and leaves by another one is dropped."""
    one, two = STAGES
    own = _comment(f"CNI firewall plugin rules (ingressPolicy: {policy})")
    both = _comment("CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)")
    lines = _ensure(call, fam, STAGES)
    lines += _first(call, fam, "FORWARD", f"{both} -j {one}")
    lines += _first(call, fam, one, f"-i {bridge} ! -o {bridge} {own} -j {two}")
    if policy == "isolated":
        lines += _first(call, fam, one, f"-i {bridge} -o {bridge} {own} -j DROP")
    lines += _last(call, fam, one, f"{both} -j RETURN")
    lines += _first(call, fam, two, f"-o {bridge} {both} -j DROP")
    lines += _last(call, fam, two, f"{both} -j RETURN")
    add_lines(call.node, fam, f"*filter\n{lines}COMMIT\n")


def delete(call: Call) -> None:
    """Remove the container's rules; chains and the rules between bridges stay."""
    _backend(call)
    _policy(call)
    result = call.prev_result() or Result()
    for ip in _addresses(result):
        fam = family(ip)
        present = chain_lines(call.node, fam, "filter", CHAIN)
        lines = "".join(f"-D {CHAIN} {rule}\n" for rule in _rules(ip) if f"-A {CHAIN} {rule}" in present)
        if lines:
            add_lines(call.node, fam, f"*filter\n{lines}COMMIT\n")


def check(call: Call) -> None:
    """Fail unless the chains hang together and the container's rules are in them."""
    result = call.prev_result()
    if result is None:
        raise CniError("missing prevResult from earlier plugin")
    _backend(call)
    for ip in _addresses(result):
        fam = family(ip)
        wanted = [
            ("FORWARD", f"{_comment('CNI firewall plugin rules')} -j {CHAIN}"),
            (CHAIN, f"{_comment('CNI firewall plugin admin overrides')} -j {_admin(call)}"),
        ]
        for chain, rule in wanted:
            if f"-A {chain} {rule}" not in chain_lines(call.node, fam, "filter", chain):
                words = rule.replace('"', "")
                raise CniError(f"expected {chain} rule [{words}] not found")
        for rule in _rules(ip):
            if f"-A {CHAIN} {rule}" not in chain_lines(call.node, fam, "filter", CHAIN):
                raise CniError(f"expected rule [{rule}] not found")


PLUGIN = Plugin(name="firewall", add=add, delete=delete, check=check, versions=("0.4.0", "1.0.0", "1.1.0"))
