"""Felix's chains for endpoints, policies and profiles, as rules.

A policy's chain sets the accept, pass or drop bit and returns; the endpoint's chain looks at the bits after each
policy. Source: `felix/rules/{policy,endpoints,dispatch}.go`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import Struct

from kubenet_lab.cni.calico import names
from kubenet_lab.cni.calico.graph import (
    EndpointInfo,
    Picture,
    PolicyKey,
    Ports,
    ProfileInfo,
    RuleInfo,
    TierInfo,
)
from kubenet_lab.cni.calico.rules import Chain, Criterion, Rule, mark_clear, mark_set
from kubenet_lab.errors import InputError

VXLAN_PORT = 4789
FAILSAFE_IN = (
    ("tcp", 22), ("udp", 68), ("tcp", 179), ("tcp", 2379), ("tcp", 2380), ("tcp", 5473), ("tcp", 6443),
    ("tcp", 6666), ("tcp", 6667),
)  # fmt: skip
FAILSAFE_OUT = (
    ("udp", 53), ("udp", 67), ("tcp", 179), ("tcp", 2379), ("tcp", 2380), ("tcp", 5473), ("tcp", 6443),
    ("tcp", 6666), ("tcp", 6667),
)  # fmt: skip
_ACTIONS = {"ACCEPT": "accept", "DROP": "drop", "RETURN": "return", "REJECT": "reject"}
FNV_BASIS, FNV_PRIME = 0x811C9DC5, 0x01000193


class FelixConfig(Struct, frozen=True, kw_only=True):
    """Felix's configuration, what of it shows in rules. Actions are DROP, ACCEPT, RETURN or REJECT.

    `mark_mask` is cut into single bits: accept, pass, drop, scratch0, scratch1; the rest are for endpoints (IPVS).
    """

    nft: bool = False
    mark_mask: int = 0xFFFF0000
    prefixes: tuple[str, ...] = ("cali",)
    endpoint_to_host: str = "DROP"
    filter_allow: str = "ACCEPT"
    filter_deny: str = "DROP"
    drop_invalid: bool = True
    failsafe_in: tuple[tuple[str, int], ...] = FAILSAFE_IN
    failsafe_out: tuple[tuple[str, int], ...] = FAILSAFE_OUT
    vxlan: bool = False
    vxlan6: bool = False
    vxlan_address: str = ""
    vxlan_address6: str = ""
    ipip: bool = False
    ipip_address: str = ""
    ipvs: bool = False
    nat_ports: str = ""
    nat_address: str = ""
    log_prefix: str = "calico-packet"

    def __post_init__(self) -> None:
        if bin(self.mark_mask).count("1") < 6:
            raise InputError(f"felix: IptablesMarkMask {self.mark_mask:#x} has fewer than 6 bits")
        for action in (self.endpoint_to_host, self.filter_allow, self.filter_deny):
            if action not in _ACTIONS:
                raise InputError(f"felix: action {action!r} is not one of {', '.join(_ACTIONS)}")

    def _bit(self, number: int) -> int:
        return [1 << n for n in range(32) if self.mark_mask >> n & 1][number]

    @property
    def accept(self) -> int:
        """Mark bit: a policy or profile accepted."""
        return self._bit(0)

    @property
    def next_tier(self) -> int:
        """Mark bit: on to the next tier."""
        return self._bit(1)

    @property
    def drop_bit(self) -> int:
        """Mark bit: a policy denied."""
        return self._bit(2)

    @property
    def scratch0(self) -> int:
        """Mark bit: all blocks of a rule that needs several match."""
        return self._bit(3)

    @property
    def scratch1(self) -> int:
        """Mark bit: this block of such a rule matches."""
        return self._bit(4)

    @property
    def endpoint(self) -> int:
        """Mark bits that say which endpoint a packet came from, for IPVS."""
        return self.mark_mask & ~sum(self._bit(n) for n in range(5))

    @property
    def not_calico(self) -> int:
        """Endpoint mark of what came from elsewhere: the lowest of those bits."""
        return self.endpoint & -self.endpoint

    @property
    def all_bits(self) -> int:
        """The bits that chains use among themselves."""
        return self.accept | self.next_tier | self.scratch0 | self.scratch1

    @property
    def deny(self) -> Criterion:
        """The action that denies."""
        return (_ACTIONS[self.filter_deny],)

    @property
    def allow(self) -> Criterion:
        """The action that allows, in the filter table."""
        return (_ACTIONS[self.filter_allow],)

    @property
    def deny_word(self) -> str:
        """How comments call the denying action."""
        return self.filter_deny.capitalize()

    @property
    def chain_length(self) -> int:
        """Longest chain name."""
        return names.NFT_CHAIN if self.nft else names.IPTABLES_CHAIN

    def endpoint_marks(self, interfaces: Iterable[str]) -> dict[str, int]:
        """Return the mark of each endpoint: its name's FNV hash gives a number, the next free one is taken."""
        shift = (self.endpoint & -self.endpoint).bit_length() - 1
        total = 1 << bin(self.endpoint).count("1")
        taken, out = {1}, {}
        for name in interfaces:
            number = FNV_BASIS
            for byte in name.encode():
                number = number * FNV_PRIME & 0xFFFFFFFF ^ byte
            place = next(
                (n for n in ((number + step) % total for step in range(total)) if n and n not in taken), 0
            )
            if place:
                taken.add(place)
                out[name] = place << shift
        return out


# -- policies and profiles -------------------------------------------------------------------------------------------


def policy_chain(prefix: str, key: PolicyKey, config: FelixConfig) -> str:
    """Return the name of a policy's chain: cali-pi- for what comes in to its endpoints, cali-po- for what leaves."""
    return names.limited(prefix, names.policy_id(key.kind, key.namespace, key.name), config.chain_length)


def policy_chains(picture: Picture, config: FelixConfig, family: int) -> list[Chain]:
    """Return both chains of every policy."""
    out = []
    for key, policy in sorted(picture.policies.items(), key=lambda item: _short(item[0])):
        called = f"{key.namespace}/{key.name}" if key.namespace else key.name
        for prefix, word, rules in (
            ("cali-pi-", "ingress", policy.inbound),
            ("cali-po-", "egress", policy.outbound),
        ):
            out.append(
                Chain(
                    policy_chain(prefix, key, config),
                    _ruled(rules, config, family, f"{key.kind} {called} {word}"),
                )
            )
    return out


def _short(key: PolicyKey) -> str:
    return names.policy_id(key.kind, key.namespace, key.name)


def profile_chains(profiles: Iterable[ProfileInfo], config: FelixConfig, family: int) -> list[Chain]:
    """Return both chains of every profile; one that nobody made denies everything."""
    deny = (RuleInfo(action="deny"),)
    out = []
    for profile in profiles:
        for prefix, word, rules in (
            ("cali-pri-", "ingress", profile.inbound),
            ("cali-pro-", "egress", profile.outbound),
        ):
            name = names.limited(prefix, profile.name, config.chain_length)
            comment = f"Profile {profile.name} {word}"
            out.append(Chain(name, _ruled(deny if profile.missing else rules, config, family, comment)))
    return out


def _ruled(rules: Sequence[RuleInfo], config: FelixConfig, family: int, comment: str) -> tuple[Rule, ...]:
    out = [rule for info in rules for rule in _rule(info, config, family)]
    while out and out[-1].action == ("return",):
        out.pop()  # the end of the chain returns as well
    first = out[0] if out else Rule()
    return (Rule(first.match, first.action, (*first.comments, comment)), *out[1:])


def _of_family(nets: tuple[str, ...], family: int, negated: bool) -> tuple[str, ...] | None:
    """Return the prefixes of one family, or None when the whole rule says nothing in this family."""
    if not nets:
        return ()
    kept = tuple(net for net in nets if (":" in net) == (family == 6))
    if negated and ("0.0.0.0/0" if family == 4 else "::/0") in kept:
        return None
    return kept or None


def split_ports(ranges: Ports) -> list[Ports]:
    """Cut a list of ports into pieces that `-m multiport` takes: 15 slots, a range needs two."""
    out: list[list[tuple[int, int]]] = []
    left = 0
    for first, last in ranges:
        need = 1 if first == last else 2
        if left < need:
            out.append([])
            left = 15
        out[-1].append((first, last))
        left -= need
    return [tuple(piece) for piece in out]


class _Blocks:
    """A rule that one line cannot say: blocks of lines whose results are and-ed in mark bits."""

    def __init__(self, config: FelixConfig) -> None:
        self.config = config
        self.rules: list[Rule] = []
        self._positive = False

    def _begin(self, value: int) -> None:
        if not self.rules:
            bits = self.config.scratch0 | self.config.scratch1
            self.rules.append(Rule((), ("masked-mark", value, bits)))

    def any_of(self, matches: Iterable[tuple[Criterion, ...]]) -> None:
        """At least one of the matches."""
        self._begin(0)
        bit = self.config.scratch1 if self._positive else self.config.scratch0
        self.rules += [Rule(match, ("set-mark", bit)) for match in matches]
        if self._positive:
            self.rules.append(Rule((mark_clear(self.config.scratch1),), ("clear-mark", self.config.scratch0)))
        self._positive = True

    def none_of(self, matches: Iterable[tuple[Criterion, ...]]) -> None:
        """None of the matches."""
        self._begin(self.config.scratch0)
        self.rules += [Rule(match, ("clear-mark", self.config.scratch0)) for match in matches]


def _rule(info: RuleInfo, config: FelixConfig, family: int) -> list[Rule]:
    """Return the lines of one rule in one family; none when it is about the other."""
    if info.family and info.family != family:
        return []
    nets: dict[str, tuple[str, ...]] = {}
    for word in ("src_nets", "dst_nets", "not_src_nets", "not_dst_nets"):
        kept = _of_family(getattr(info, word), family, word.startswith("not"))
        if kept is None:
            return []
        nets[word] = kept
    blocks = _Blocks(config)
    proto: tuple[Criterion, ...] = (("proto", info.protocol),) if info.protocol is not None else ()

    def named(ids: tuple[str, ...]) -> list[str]:
        return [names.ipset(set_id, family) for set_id in ids]

    left: dict[str, tuple[Ports, list[str]]] = {}
    for side in ("src", "dst"):
        ranges, sets = getattr(info, f"{side}_ports"), named(getattr(info, f"{side}_port_sets"))
        pieces = split_ports(ranges)
        if len(pieces) + len(sets) > 1:
            blocks.any_of(
                [
                    *((*proto, ("ports", side, piece)) for piece in pieces),
                    *((("portset", side, name),) for name in sets),
                ]
            )
            left[side] = ((), [])
        else:
            left[side] = (ranges, sets)
    for side in ("src", "dst"):
        if len(nets[f"{side}_nets"]) > 1:
            blocks.any_of([(("net", side, net),) for net in nets[f"{side}_nets"]])
            nets[f"{side}_nets"] = ()
    for side in ("src", "dst"):
        negative = nets[f"not_{side}_nets"]
        if negative and len(nets[f"{side}_nets"]) + len(negative) > 1:
            blocks.none_of([(("net", side, net),) for net in negative])
            nets[f"not_{side}_nets"] = ()
    match: list[Criterion] = [*proto]
    for side in ("src", "dst"):
        match += [("net", side, net) for net in nets[f"{side}_nets"]]
        match += [("set", side, name) for name in named(getattr(info, f"{side}_sets"))]
        ranges, sets = left[side]
        match += [("ports", side, ranges)] if ranges else []
        match += [("portset", side, name) for name in sets]
    if info.icmp is not None:
        match.append(("icmp", family, *info.icmp))
    if info.not_protocol is not None:
        match.append(("proto", info.not_protocol, True))
    for side in ("src", "dst"):
        match += [("net", side, net, True) for net in nets[f"not_{side}_nets"]]
        match += [("set", side, name, True) for name in named(getattr(info, f"not_{side}_sets"))]
        match += [("ports", side, piece, True) for piece in split_ports(getattr(info, f"not_{side}_ports"))]
        match += [("portset", side, name, True) for name in named(getattr(info, f"not_{side}_port_sets"))]
    if info.not_icmp is not None:
        match.append(("icmp", family, *info.not_icmp, True))
    if blocks.rules:
        match.append(mark_set(config.scratch0))
    return [*blocks.rules, *_verdict(info.action, tuple(match), config)]


def _verdict(action: str, match: tuple[Criterion, ...], config: FelixConfig) -> list[Rule]:
    if action == "log":
        return [Rule(match, ("log", config.log_prefix))]
    bit, then = {
        "allow": (config.accept, ("return",)),
        "next-tier": (config.next_tier, ("return",)),
        "deny": (config.drop_bit, config.deny),
    }[action]
    return [Rule(match, ("set-mark", bit)), Rule((mark_set(bit),), then)]


# -- endpoints -------------------------------------------------------------------------------------------------------

NORMAL, UNTRACKED, PRE_DNAT, FORWARD = "normal", "untracked", "pre-dnat", "forward"


class Group(Struct, frozen=True):
    """Policies that follow each other and select the same endpoints: they share a chain."""

    selector: str
    policies: tuple[PolicyKey, ...]

    def chain(self, inbound: bool) -> str:
        """Return the chain's name."""
        prefix = "cali-gi-" if inbound else "cali-go-"
        keys = [(key.kind, key.namespace, key.name) for key in self.policies]
        room = names.IPTABLES_CHAIN - len(prefix)
        return prefix + names.group_id(self.selector, "inbound" if inbound else "outbound", keys, room)


def groups(keys: Sequence[PolicyKey], picture: Picture) -> list[Group]:
    """Gather policies that follow each other and have the same selector."""
    out: list[Group] = []
    for key in keys:
        selector = picture.policies[key].selector
        if out and out[-1].selector == selector:
            out[-1] = Group(selector, (*out[-1].policies, key))
        else:
            out.append(Group(selector, (key,)))
    return out


def group_chains(picture: Picture, config: FelixConfig) -> list[Chain]:
    """Return the chains of all groups of more than one policy."""
    out: dict[str, Chain] = {}
    for endpoint in picture.endpoints:
        for tiers in (endpoint.tiers, endpoint.untracked, endpoint.pre_dnat, endpoint.forward):
            for tier in tiers:
                for inbound, keys in ((True, tier.ingress), (False, tier.egress)):
                    for group in groups(keys, picture):
                        if len(group.policies) > 1:
                            chain = group.chain(inbound)
                            out[chain] = Chain(chain, _group_rules(group, inbound, config))
    return [out[name] for name in sorted(out)]


def _group_rules(group: Group, inbound: bool, config: FelixConfig) -> tuple[Rule, ...]:
    out = []
    verdict = config.next_tier | config.accept
    for number, key in enumerate(group.policies):
        if number and number % 5 == 0:
            out.append(Rule((("not-mark", 0, verdict),), ("return",), ("Return on verdict",)))
        match = () if number % 5 == 0 else (mark_clear(verdict),)
        chain = policy_chain("cali-pi-" if inbound else "cali-po-", key, config)
        out.append(Rule(match, ("jump", chain)))
    return tuple(out)


def endpoint_chain(
    prefix: str,
    endpoint: EndpointInfo,
    tiers: Sequence[TierInfo],
    picture: Picture,
    config: FelixConfig,
    *,
    inbound: bool,
    kind: str = NORMAL,
    failsafe: str = "",
    allow: Criterion | None = None,
    from_pod: bool = False,
) -> Chain:
    """Return one chain of an endpoint. `inbound` takes its policies' ingress rules."""
    allow = allow or config.allow
    rules: list[Rule] = []
    if kind != UNTRACKED:
        established = ("ctstate", "RELATED,ESTABLISHED")
        if allow != ("accept",):
            rules.append(Rule((established,), ("set-mark", config.accept)))
        rules.append(Rule((established,), allow))
        if config.drop_invalid:
            rules.append(Rule((("ctstate", "INVALID"),), config.deny))
    if failsafe:
        rules.append(Rule((), ("jump", failsafe)))
    rules.append(Rule((), ("clear-mark", config.accept | config.next_tier)))
    if from_pod:
        word = config.deny_word
        rules += [
            Rule(
                (("proto", 17), ("ports", "dst", ((VXLAN_PORT, VXLAN_PORT),))),
                config.deny,
                (f"{word} VXLAN encapped packets originating in workloads",),
            ),
            Rule((("proto", 4),), config.deny, (f"{word} IPinIP encapped packets originating in workloads",)),
        ]
    for tier in tiers:
        rules += _tier_rules(tier, picture, config, inbound, kind)
    if not tiers and kind == FORWARD:
        rules += [
            Rule((), ("set-mark", config.accept), ("Allow forwarded traffic by default",)),
            Rule((), ("return",), ("Return for accepted forward traffic",)),
        ]
    if kind == NORMAL:
        for profile in endpoint.profiles:
            chain = names.limited("cali-pri-" if inbound else "cali-pro-", profile, config.chain_length)
            rules += [
                Rule((), ("jump", chain)),
                Rule((mark_set(config.accept),), ("return",), ("Return if profile accepted",)),
            ]
        rules.append(Rule((), config.deny, (f"{config.deny_word} if no profiles matched",)))
    called = "any-interface-at-all" if endpoint.name == "*" else endpoint.name
    return Chain(names.limited(prefix, called, config.chain_length), tuple(rules))


def _tier_rules(
    tier: TierInfo, picture: Picture, config: FelixConfig, inbound: bool, kind: str
) -> list[Rule]:
    keys = tier.ingress if inbound else tier.egress
    if not keys:
        return []
    out = [Rule((), ("clear-mark", config.next_tier), (f"Start of tier {tier.name}",))]
    for group in groups(keys, picture):
        chain = (
            group.chain(inbound)
            if len(group.policies) > 1
            else policy_chain("cali-pi-" if inbound else "cali-po-", group.policies[0], config)
        )
        out.append(Rule((mark_clear(config.next_tier),), ("jump", chain)))
        if kind == UNTRACKED:
            out.append(Rule((mark_set(config.accept),), ("notrack",)))
        out.append(Rule((mark_set(config.accept),), ("return",), ("Return if policy accepted",)))
    if kind in (NORMAL, FORWARD) and tier.default_action != "Pass":
        comment = f"End of tier {tier.name}. {config.deny_word} if no policies passed packet"
        out.append(Rule((mark_clear(config.next_tier),), config.deny, (comment,)))
    return out


def workload_chains(picture: Picture, config: FelixConfig) -> list[Chain]:
    """Return cali-tw- (to the pod) and cali-fw- (from the pod) of every pod, and its endpoint mark for IPVS."""
    out = []
    pods = [endpoint for endpoint in picture.endpoints if not endpoint.host]
    marks = config.endpoint_marks(pod.name for pod in pods) if config.ipvs else {}
    for pod in pods:
        out.append(endpoint_chain("cali-tw-", pod, pod.tiers, picture, config, inbound=True))
        out.append(endpoint_chain("cali-fw-", pod, pod.tiers, picture, config, inbound=False, from_pod=True))
        if pod.name in marks:
            out.append(
                Chain(
                    names.limited("cali-sm-", pod.name, config.chain_length),
                    (Rule((), ("masked-mark", marks[pod.name], config.endpoint)),),
                )
            )
    return out


def host_chains(picture: Picture, config: FelixConfig) -> dict[str, list[Chain]]:
    """Return the chains of host endpoints, by table ("filter", "mangle", "raw") and "dispatch"."""
    out: dict[str, list[Chain]] = {"filter": [], "mangle": [], "raw": [], "dispatch": []}
    hosts = [endpoint for endpoint in picture.endpoints if endpoint.host]
    for host in hosts:

        def chain(
            prefix: str,
            tiers: Sequence[TierInfo],
            inbound: bool,
            kind: str = NORMAL,
            failsafe: str = "",
            allow: Criterion | None = None,
            host: EndpointInfo = host,
        ) -> Chain:
            return endpoint_chain(
                prefix,
                host,
                tiers,
                picture,
                config,
                inbound=inbound,
                kind=kind,
                failsafe=failsafe,
                allow=allow,
            )

        out["filter"] += [
            chain("cali-th-", host.tiers, False, failsafe="cali-failsafe-out"),
            chain("cali-fh-", host.tiers, True, failsafe="cali-failsafe-in"),
            chain("cali-thfw-", host.forward, False, FORWARD),
            chain("cali-fhfw-", host.forward, True, FORWARD),
        ]
        out["mangle"].append(
            chain("cali-fh-", host.pre_dnat, True, PRE_DNAT, "cali-failsafe-in", ("accept",))
        )
        out["raw"] += [
            chain("cali-th-", host.untracked, False, UNTRACKED, "cali-failsafe-out", ("accept",)),
            chain("cali-fh-", host.untracked, True, UNTRACKED, "cali-failsafe-in", ("accept",)),
        ]
    named = [host.name for host in hosts if host.name != "*"]
    wild = any(host.name == "*" for host in hosts)
    for prefix, chain_name, way in (
        ("cali-fhfw-", "cali-from-hep-forward", "in"),
        ("cali-fh-", "cali-from-host-endpoint", "in"),
        ("cali-thfw-", "cali-to-hep-forward", "out"),
        ("cali-th-", "cali-to-host-endpoint", "out"),
    ):
        end: list[Rule] = []
        if wild:
            goal = names.limited(prefix, "any-interface-at-all", config.chain_length)
            end = [Rule((), ("goto", goal))]
        out["dispatch"] += dispatch(chain_name, prefix, way, named, end, config)
    return out


# -- dispatch --------------------------------------------------------------------------------------------------------


def dispatch(
    chain: str, prefix: str, way: str, interfaces: Sequence[str], end: Sequence[Rule], config: FelixConfig
) -> list[Chain]:
    """Return the chains from an interface to its endpoint's chain: a tree by the first letter that differs."""
    interfaces = sorted(set(interfaces))
    common = _common(interfaces)
    bins: dict[str, list[str]] = {}
    for name in interfaces:
        bins.setdefault(name[: len(common) + 1], []).append(name)
    children, root = [], []

    def rule(name: str) -> Rule:
        return Rule(((way, name),), ("goto", names.limited(prefix, name, config.chain_length)))

    for start, members in bins.items():
        if len(members) == 1:
            root.append(rule(members[0]))
            continue
        child = f"{chain}-{start[len(common) :]}"
        root.append(Rule(((way, f"{start}+"),), ("goto", child)))
        children.append(Chain(child, (*(rule(name) for name in members), *end)))
    return [*children, Chain(chain, (*root, *end))]


def _common(texts: Sequence[str]) -> str:
    if not texts:
        return ""
    first, last = min(texts), max(texts)
    size = next(
        (n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(map(len, texts))
    )
    return first[:size]


def workload_dispatch(picture: Picture, config: FelixConfig) -> list[Chain]:
    """Return cali-from-wl-dispatch and cali-to-wl-dispatch; in nftables a verdict map does the work."""
    pods = [endpoint.name for endpoint in picture.endpoints if not endpoint.host]
    end = [Rule((), config.deny, ("Unknown interface",))]
    out = []
    for chain, prefix, way in (
        ("cali-from-wl-dispatch", "cali-fw-", "in"),
        ("cali-to-wl-dispatch", "cali-tw-", "out"),
    ):
        if config.nft:
            out.append(Chain(chain, (Rule(((f"{way}-map", chain),)), *end)))
        else:
            out += dispatch(chain, prefix, way, pods, end, config)
    return sorted(out, key=lambda chain: chain.name)


def mark_dispatch(picture: Picture, config: FelixConfig) -> list[Chain]:
    """Return the chains that tell endpoints apart by mark, which IPVS needs: its packets pass INPUT and OUTPUT."""
    pods = sorted(endpoint.name for endpoint in picture.endpoints if not endpoint.host)
    marks = config.endpoint_marks(pods)
    set_chains = dispatch("cali-set-endpoint-mark", "cali-sm-", "in", pods, (), config)
    unknown = [Rule((("in", f"{start}+"),), config.deny, ("Unknown endpoint",)) for start in config.prefixes]
    other = Rule((), ("masked-mark", config.not_calico, config.endpoint), ("Non-Cali endpoint mark",))
    root = set_chains[-1]
    by_mark = [
        Rule(
            (("mark", marks[name], config.endpoint),),
            ("goto", names.limited("cali-fw-", name, config.chain_length)),
        )
        for name in pods
        if name in marks
    ]
    end = Rule((), config.deny, ("Unknown interface",))
    return [
        *set_chains[:-1],
        Chain(root.name, (*root.rules, *unknown, other)),
        Chain("cali-from-endpoint-mark", (*by_mark, end)),
    ]
