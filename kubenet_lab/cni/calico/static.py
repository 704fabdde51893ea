"""Felix's chains that do not depend on endpoints or policies: what is hooked into the tables, and NAT.

Source: `felix/rules/{static,nat}.go`.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubenet_lab.cni.calico import names
from kubenet_lab.cni.calico.chains import VXLAN_PORT, FelixConfig
from kubenet_lab.cni.calico.rules import Chain, Criterion, Rule, mark_clear, mark_set

POOLS, MASQ_POOLS = "network-ip-pools", "masq-ipam-pools"
"""IP sets: all pools, and those whose pods are masqueraded outside of them."""
HOSTS, VXLAN_HOSTS, THIS_HOST = "all-hosts-net", "all-vxlan-net", "this-host"
DSCP = "dscp-src-net"
NODE_PORTS = ((30000, 32767),)
_VXLAN = (("proto", 17), ("ports", "dst", ((VXLAN_PORT, VXLAN_PORT),)))
_LOCAL_DST: Criterion = ("addrtype", "dst", "LOCAL")
_LOCAL_SRC: Criterion = ("addrtype", "src", "LOCAL")


def _interfaces(config: FelixConfig) -> list[str]:
    return [f"{prefix}+" for prefix in config.prefixes]


def _set(side: str, name: str, family: int, negated: bool = False) -> Criterion:
    found = names.ipset(name, family)
    return ("set", side, found, True) if negated else ("set", side, found)


def _vxlan(config: FelixConfig, family: int) -> bool:
    return config.vxlan if family == 4 else config.vxlan6


def filter_chains(config: FelixConfig, family: int) -> list[Chain]:
    """Return the filter table's chains."""
    out = [
        _forward(config),
        _input(config, family),
        _to_host(config, family),
        _failsafe("cali-failsafe-in", config.failsafe_in, ()),
        _output(config, family),
        _failsafe("cali-failsafe-out", config.failsafe_out, ()),
    ]
    if config.ipvs:
        out += [_forward_check(family), _forward_endpoint_mark(config)]
    return out


def _forward(config: FelixConfig) -> Chain:
    rules = [
        Rule((), ("clear-mark", config.all_bits & ~config.accept)),
        Rule((mark_clear(config.accept),), ("jump", "cali-from-hep-forward")),
    ]
    for name in _interfaces(config):
        rules.append(Rule((("in", name),), ("jump", "cali-from-wl-dispatch")))
        rules.append(Rule((("out", name),), ("jump", "cali-to-wl-dispatch")))
    rules += [Rule((), ("jump", "cali-to-hep-forward")), Rule((), ("jump", "cali-cidr-block"))]
    return Chain("cali-FORWARD", tuple(rules))


def forward_append(config: FelixConfig) -> Chain:
    """Return what goes to the end of FORWARD itself: what a policy has accepted is accepted for good."""
    return Chain(
        "FORWARD",
        (
            Rule((mark_set(config.accept),), config.allow, ("Policy explicitly accepted packet.",)),
            Rule((), ("set-mark", config.accept)),
        ),
    )


def _host_end(config: FelixConfig, first: Criterion, action: Criterion) -> list[Rule]:
    match = () if first == () else (first,)
    goal = "cali-from-host-endpoint" if first == () else "cali-to-host-endpoint"
    return [
        Rule((), ("clear-mark", config.all_bits)),
        Rule(match, ("jump", goal)),
        Rule((mark_set(config.accept),), action, ("Host endpoint policy accepted packet.",)),
    ]


def _input(config: FelixConfig, family: int) -> Chain:
    rules: list[Rule] = []
    if family == 4 and config.ipip:
        rules += [
            Rule(
                (("proto", 4), _set("src", HOSTS, family), _LOCAL_DST),
                config.allow,
                ("Allow IPIP packets from Calico hosts",),
            ),
            Rule((("proto", 4),), config.deny, (f"{config.deny_word} IPIP packets from non-Calico hosts",)),
        ]
    if _vxlan(config, family):
        action, word = (("drop",), "Drop") if family == 4 else (config.deny, config.deny_word)
        rules += [
            Rule(
                (*_VXLAN, _set("src", VXLAN_HOSTS, family), _LOCAL_DST),
                config.allow,
                (f"Allow IPv{family} VXLAN packets from allowed hosts",),
            ),
            Rule(
                (*_VXLAN, _LOCAL_DST), action, (f"{word} IPv{family} VXLAN packets from non-allowed hosts",)
            ),
        ]
    if config.ipvs:
        rules += [
            Rule((), ("clear-mark", config.endpoint)),
            Rule((), ("jump", "cali-forward-check")),
            Rule((("not-mark", 0, config.endpoint),), ("return",)),
        ]
    rules += [Rule((("in", name),), ("goto", "cali-wl-to-host")) for name in _interfaces(config)]
    rules.append(Rule((mark_set(config.accept),), config.allow))
    rules += _host_end(config, (), config.allow)
    return Chain("cali-INPUT", tuple(rules))


def _to_host(config: FelixConfig, family: int) -> Chain:
    rules = []
    if family == 6:
        # A pod may always find its router and its neighbours.
        rules = [
            Rule((("proto", 58), ("icmp", 6, kind, None)), config.allow)
            for kind in (130, 131, 132, 133, 135, 136)
        ]
    rules.append(Rule((), ("jump", "cali-from-wl-dispatch")))
    action = {"ACCEPT": "accept", "DROP": "drop", "RETURN": "return", "REJECT": "reject"}[
        config.endpoint_to_host
    ]
    rules.append(Rule((), (action,), ("Configured DefaultEndpointToHostAction",)))
    return Chain("cali-wl-to-host", tuple(rules))


def _failsafe(chain: str, ports: Sequence[tuple[str, int]], answers: Sequence[tuple[str, int]]) -> Chain:
    rules = [
        Rule((("proto", proto), ("ports", side, ((port, port),))), ("accept",))
        for side, listed in (("dst", ports), ("src", answers))
        for proto, port in listed
    ]
    return Chain(chain, tuple(rules))


def _output(config: FelixConfig, family: int) -> Chain:
    rules = [Rule((mark_set(config.accept),), config.allow)]
    if config.ipvs:
        rules.append(Rule((("not-mark", 0, config.endpoint),), ("goto", "cali-forward-endpoint-mark")))
    rules += [Rule((("out", name),), ("return",)) for name in _interfaces(config)]
    if family == 4 and config.ipip:
        rules.append(
            Rule(
                (("proto", 4), _set("dst", HOSTS, family), _LOCAL_SRC),
                config.allow,
                ("Allow IPIP packets to other Calico hosts",),
            )
        )
    if _vxlan(config, family):
        rules.append(
            Rule(
                (*_VXLAN, _LOCAL_SRC, _set("dst", VXLAN_HOSTS, family)),
                config.allow,
                (f"Allow IPv{family} VXLAN packets to other allowed hosts",),
            )
        )
    rules += _host_end(config, ("ctstatus", "DNAT", True), config.allow)
    return Chain("cali-OUTPUT", tuple(rules))


def _forward_check(family: int) -> Chain:
    node_port = (("ports", "dst", NODE_PORTS), _set("dst", THIS_HOST, family))
    rules = [Rule((("ctstate", "RELATED,ESTABLISHED"),), ("return",))]
    rules += [
        Rule(
            (("proto", proto), *node_port),
            ("goto", "cali-set-endpoint-mark"),
            ("To kubernetes NodePort service",),
        )
        for proto in ("tcp", "udp")
    ]
    rules.append(
        Rule(
            (_set("dst", THIS_HOST, family, negated=True),),
            ("jump", "cali-set-endpoint-mark"),
            ("To kubernetes service",),
        )
    )
    return Chain("cali-forward-check", tuple(rules))


def _forward_endpoint_mark(config: FelixConfig) -> Chain:
    rules = [Rule((("not-mark", config.not_calico, config.endpoint),), ("jump", "cali-from-endpoint-mark"))]
    rules += [Rule((("out", name),), ("jump", "cali-to-wl-dispatch")) for name in _interfaces(config)]
    rules += [
        Rule((), ("jump", "cali-to-hep-forward")),
        Rule((), ("clear-mark", config.endpoint)),
        Rule((mark_set(config.accept),), config.allow, ("Policy explicitly accepted packet.",)),
    ]
    return Chain("cali-forward-endpoint-mark", tuple(rules))


def nat_chains(config: FelixConfig, family: int) -> list[Chain]:
    """Return the nat table's chains beside cali-nat-outgoing."""
    post = [Rule((), ("jump", "cali-fip-snat")), Rule((), ("jump", "cali-nat-outgoing"))]
    tunnels = []
    if family == 4 and config.ipip and config.ipip_address:
        tunnels.append("tunl0")
    if family == 4 and config.vxlan and config.vxlan_address:
        tunnels.append("vxlan.calico")
    if family == 6 and config.vxlan6 and config.vxlan_address6:
        tunnels.append("vxlan-v6.calico")
    for tunnel in tunnels:
        # A node's process that speaks to a Service has chosen its source before DNAT: the tunnel needs its own.
        post.append(
            Rule((("out", tunnel), ("addrtype", "src", "LOCAL", True, True), _LOCAL_SRC), ("masquerade",))
        )
    return [
        Chain("cali-PREROUTING", (Rule((), ("jump", "cali-fip-dnat")),)),
        Chain("cali-POSTROUTING", tuple(post)),
        Chain("cali-OUTPUT", (Rule((), ("jump", "cali-fip-dnat")),)),
    ]


def nat_outgoing(config: FelixConfig, family: int, *, active: bool) -> Chain:
    """Return cali-nat-outgoing: pods of masquerading pools that leave all pools."""
    base = (_set("src", MASQ_POOLS, family), _set("dst", POOLS, family, negated=True))
    rules: list[Rule] = []
    if active:
        plain: Criterion = ("snat", config.nat_address) if config.nat_address else ("masquerade",)
        if config.nat_ports:
            ports = config.nat_ports.replace(":", "-")
            ranged: Criterion = (
                ("snat", f"{config.nat_address}:{ports}") if config.nat_address else ("masquerade", ports)
            )
            for proto in ("tcp", "udp"):
                rules += [
                    Rule((*base, ("proto", proto)), ranged),
                    Rule((*base, ("proto", proto)), ("return",)),
                ]
        rules.append(Rule(base, plain))
    return Chain("cali-nat-outgoing", tuple(rules))


def mangle_chains(config: FelixConfig, family: int) -> list[Chain]:
    """Return the mangle table's chains."""
    accepted = mark_set(config.accept)
    pre = [
        Rule((("ctstate", "RELATED,ESTABLISHED"),), ("accept",)),
        Rule((accepted,), ("accept",)),
        Rule((), ("jump", "cali-from-host-endpoint")),
        Rule((accepted,), ("accept",), ("Host endpoint policy accepted packet.",)),
    ]
    leaving = (
        _set("src", DSCP, family),
        _set("dst", POOLS, family, negated=True),
        _set("dst", THIS_HOST, family, negated=True),
    )
    post = [
        Rule(leaving, ("jump", "cali-egress-dscp"), ("set dscp for traffic leaving cluster.",)),
        Rule((accepted,), ("return",)),
    ]
    if config.ipvs:
        post.append(Rule((("not-mark", 0, config.endpoint),), ("return",)))
    post += _host_end(config, ("ctstatus", "DNAT"), ("return",))
    return [
        _failsafe("cali-failsafe-in", config.failsafe_in, ()),
        _failsafe("cali-failsafe-out", config.failsafe_out, ()),
        Chain("cali-PREROUTING", tuple(pre)),
        Chain("cali-POSTROUTING", tuple(post)),
    ]


def raw_chains(config: FelixConfig, family: int) -> list[Chain]:
    """Return the raw table's chains: the reverse path check of what pods send, and no tracking of VXLAN."""
    clear = Rule((), ("clear-mark", config.all_bits))
    pod, accepted = mark_set(config.scratch0), mark_set(config.accept)
    untracked = (
        [Rule((("proto", "udp"), ("dport", VXLAN_PORT)), ("notrack",))] if _vxlan(config, family) else []
    )
    pre = [clear, *untracked]
    pre += [Rule((("in", name),), ("set-mark", config.scratch0)) for name in _interfaces(config)]
    pre += [
        Rule((pod,), ("jump", "cali-rpf-skip")),
        Rule((pod, ("rpf-failed",)), config.deny),
        Rule((mark_clear(config.scratch0),), ("jump", "cali-from-host-endpoint")),
        Rule((accepted,), ("accept",)),
    ]
    wireguard = [
        Rule((("in", name),), ("return",))
        for name in ("lo", "wireguard.cali", "wg-v6.cali", *_interfaces(config))
    ]
    wireguard.append(Rule((), ("set-mark", 0)))
    out = [clear, Rule((), ("jump", "cali-to-host-endpoint")), *untracked, Rule((accepted,), ("accept",))]
    return [
        _failsafe("cali-failsafe-in", config.failsafe_in, config.failsafe_out),
        _failsafe("cali-failsafe-out", config.failsafe_out, config.failsafe_in),
        Chain("cali-PREROUTING", tuple(pre)),
        Chain("cali-wireguard-incoming-mark", tuple(wireguard)),
        Chain("cali-OUTPUT", tuple(out)),
    ]
