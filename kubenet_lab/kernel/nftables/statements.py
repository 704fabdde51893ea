"""What an nftables rule does: typed, frozen statements in the order of the rule.

Sources: nft(8) "STATEMENTS", libnftables-json(5).
"""

from __future__ import annotations

from msgspec import Struct

from kubenet_lab.kernel.nftables.expressions import Expression, SetLiteral, SetRef, Verdict


class Match(Struct, frozen=True):
    """`left op right`: go on only when it holds.

    `op` is ==, !=, <, >, <=, >=; "in" (any of these bits is set) and "!" (none is) for bitmasks.
    """

    op: str
    left: Expression
    right: Expression


class FlagMatch(Struct, frozen=True):
    """`left VALUE / MASK`: of the bits in the mask, exactly those in the value are set. `op` is == or !=."""

    op: str
    left: Expression
    value: int
    mask: int


class VerdictStatement(Struct, frozen=True):
    """accept, drop, continue, return, jump CHAIN, goto CHAIN."""

    verdict: Verdict


class Vmap(Struct, frozen=True):
    """`key vmap { ... }`: the verdict a map has for a key; go on when it has none."""

    key: Expression
    data: SetRef | SetLiteral


class Counter(Struct, frozen=True):
    """`counter packets P bytes B`: what it starts from; the ruleset keeps the count."""

    packets: int = 0
    bytes: int = 0


class Limit(Struct, frozen=True):
    """`limit rate [over] RATE/UNIT burst B`: packets, or bytes with `of_bytes`. `unit` in s."""

    rate: int
    unit: int
    burst: int = 5
    over: bool = False
    of_bytes: bool = False


class Quota(Struct, frozen=True):
    """`quota [over] BYTES [used U]`."""

    bytes: int
    over: bool = False
    used: int = 0


class ConnLimit(Struct, frozen=True):
    """`ct count [over] N`: how many connections have the key of the set element."""

    count: int
    over: bool = False


class ObjectRef(Struct, frozen=True):
    """`counter name X`, `limit name X`, `quota name X`, `ct helper set X`, ...: an object of the table.

    `kind` is counter, quota, limit, ct helper, ct timeout, ct expectation, secmark or synproxy. `name` may be a map.
    """

    kind: str
    name: Expression


class Log(Struct, frozen=True):
    """`log [prefix P] [group G] [snaplen S] [queue-threshold Q] [level L] [flags F]`; -1 is not given."""

    prefix: str | None = None
    group: int = -1
    snaplen: int = -1
    threshold: int = -1
    level: str = ""
    flags: tuple[str, ...] = ()


class Reject(Struct, frozen=True):
    """`reject [with ...]`. `kind` is tcp reset, icmp, icmpv6 or icmpx; `code` the ICMP code.

    `verbose` prints what is the default, because the rule's family leaves it open.
    """

    kind: str
    code: int = 0
    verbose: bool = False


class Nat(Struct, frozen=True):
    """snat, dnat, masquerade, redirect.

    Attributes:
        kind: Which.
        family: "ip" or "ip6" where it is printed: in an inet table, and with a map of addresses and ports.
        address: A constant, an interval or a map; None leaves it.
        port: Likewise.
        flags: random, fully-random, persistent.
        prefix: Map network to network (`prefix to`).
    """

    kind: str
    family: str = ""
    address: Expression | None = None
    port: Expression | None = None
    flags: tuple[str, ...] = ()
    prefix: bool = False


class Mangle(Struct, frozen=True):
    """`KEY set VALUE`: writes meta mark, ct mark, a header field or a TCP option."""

    key: Expression
    value: Expression


class NoTrack(Struct, frozen=True):
    """`notrack`."""


class SetUpdate(Struct, frozen=True):
    """`add|update|delete @set { key [timeout T] [statements] [: data] }`."""

    op: str
    set: str
    key: Expression
    timeout: int = 0
    statements: tuple[Statement, ...] = ()
    data: Expression | None = None
    comment: str = ""


class Meter(Struct, frozen=True):
    """`meter NAME size N { key statement }`."""

    name: str
    size: int
    key: Expression
    statement: Statement
    timeout: int = 0


class Queue(Struct, frozen=True):
    """`queue [flags F] to N`."""

    number: Expression
    flags: tuple[str, ...] = ()


class Dup(Struct, frozen=True):
    """`dup to ADDRESS [device DEV]`."""

    address: Expression
    device: Expression | None = None


class Fwd(Struct, frozen=True):
    """`fwd [ip|ip6 to ADDRESS device DEV]`, `fwd to DEV`."""

    device: Expression
    family: str = ""
    address: Expression | None = None


class Tproxy(Struct, frozen=True):
    """`tproxy [ip|ip6] to [ADDRESS][:PORT]`."""

    family: str = ""
    address: Expression | None = None
    port: Expression | None = None


class Synproxy(Struct, frozen=True):
    """`synproxy [mss M] [wscale W] [timestamp] [sack-perm]`; -1 is not given."""

    mss: int = -1
    wscale: int = -1
    flags: tuple[str, ...] = ()


class FlowOffload(Struct, frozen=True):
    """`flow add @flowtable`."""

    flowtable: str


class StripOption(Struct, frozen=True):
    """`reset tcp option NAME`."""

    option: Expression


class Xt(Struct, frozen=True):
    """`xt match|target "NAME"`: an xtables extension that only iptables-nft can show in full. Carried."""

    kind: str
    name: str


class Inline(Struct, frozen=True):
    """`jump { ... }`, `goto { ... }`: a chain without a name, bound to its rule."""

    kind: str
    chain: str
    rules: tuple[tuple[tuple[Statement, ...], str], ...]
    """(statements, comment) of each rule."""


Statement = (
    Match | FlagMatch | VerdictStatement | Vmap | Counter | Limit | Quota | ConnLimit | ObjectRef | Log | Reject | Nat
    | Mangle | NoTrack | SetUpdate | Meter | Queue | Dup | Fwd | Tproxy | Synproxy | FlowOffload | StripOption | Xt
    | Inline
)  # fmt: skip

STATEFUL = (Counter, Limit, Quota, ConnLimit)
"""Statements with a memory, which may stand in a set element."""
