"""What an nftables ruleset is made of: tables, chains, rules, sets, flowtables and named stateful objects.

All are frozen; an edit of the ruleset makes new ones. Their handles count as the kernel's do.
"""

from __future__ import annotations

from msgspec import Struct

from kubenet_lab.kernel.nftables.expressions import Element, Expression, Key
from kubenet_lab.kernel.nftables.statements import Counter, Limit, Quota, Statement

FAMILIES = ("ip", "ip6", "inet", "arp", "bridge", "netdev")


class Rule(Struct, frozen=True):
    """One rule. `family` is its table's, which its text depends on."""

    statements: tuple[Statement, ...]
    comment: str = ""
    handle: int = 0
    family: str = "ip"

    def text(self, family: object = None) -> str:
        """Return the rule as `nft list` prints it. The argument is there for callers that show any rule."""
        from kubenet_lab.kernel.dialects.nft.printer import rule_text

        return rule_text(self)

    def __str__(self) -> str:
        return self.text()


class Chain(Struct, frozen=True):
    """A chain; a base chain has a type, a hook and a priority, and a policy that is accept or drop.

    `devices` names the links of an ingress or egress chain.
    """

    name: str
    rules: tuple[Rule, ...] = ()
    type: str = ""
    hook: str = ""
    priority: int = 0
    policy: str = ""
    devices: tuple[str, ...] = ()
    comment: str = ""
    handle: int = 0
    offload: bool = False

    @property
    def base(self) -> bool:
        """True for a chain that a hook calls."""
        return bool(self.hook)


class Set(Struct, frozen=True):
    """A named set, or a map when it has data types.

    Attributes:
        name: Its name.
        key: Data types of the key's fields.
        data: Data types a map leads to: ("verdict",), one, or several; () for a set.
        object: Kind of the objects an object map leads to.
        flags: constant, dynamic, interval, timeout.
        elements: By key.
        timeout: ms an element lives unless it says otherwise.
        gc_interval: ms.
        size: Most elements; 0 for no limit.
        policy: "memory" where somebody asked for it.
        comment: Its comment.
        auto_merge: Overlapping and adjacent intervals become one.
        typeof_key: The expressions after `typeof`, which stand for the key's types.
        typeof_data: Likewise for the data.
        data_interval: The data may be intervals.
        statements: What each element gets: counter, limit, ...
        handle: The kernel's number for it.
    """

    name: str
    key: tuple[str, ...]
    data: tuple[str, ...] = ()
    object: str = ""
    flags: tuple[str, ...] = ()
    elements: dict[Key, Element] = {}
    timeout: int = 0
    gc_interval: int = 0
    size: int = 0
    policy: str = ""
    comment: str = ""
    auto_merge: bool = False
    typeof_key: tuple[Expression, ...] = ()
    typeof_data: tuple[Expression, ...] = ()
    data_interval: bool = False
    statements: tuple[Statement, ...] = ()
    handle: int = 0

    @property
    def is_map(self) -> bool:
        """True when its elements lead to something."""
        return bool(self.data or self.object)


class Flowtable(Struct, frozen=True):
    """A flowtable: `hook ingress priority P; devices = { ... }`."""

    name: str
    hook: str = "ingress"
    priority: int = 0
    devices: tuple[str, ...] = ()
    counter: bool = False
    offload: bool = False
    handle: int = 0


class CtHelper(Struct, frozen=True):
    """`ct helper NAME { type "ftp" protocol tcp; l3proto ip; }`."""

    type: str
    protocol: str
    family: str = ""


class CtTimeout(Struct, frozen=True):
    """`ct timeout NAME { protocol tcp; policy = { established : 120 }; }`; seconds by state."""

    protocol: str
    family: str = ""
    policy: tuple[tuple[str, int], ...] = ()


class CtExpectation(Struct, frozen=True):
    """`ct expectation NAME { protocol tcp; dport N; timeout T; size N; }`; the time-out in ms."""

    protocol: str
    dport: int = 0
    timeout: int = 0
    size: int = 0
    family: str = ""


class Secmark(Struct, frozen=True):
    """`secmark NAME { "context" }`."""

    context: str


class SynproxyObject(Struct, frozen=True):
    """`synproxy NAME { mss M wscale W timestamp sack-perm }`."""

    mss: int
    wscale: int
    flags: tuple[str, ...] = ()


class NamedObject(Struct, frozen=True):
    """A stateful object of a table. `kind` as in `ObjectRef.kind`."""

    kind: str
    name: str
    value: Counter | Quota | Limit | CtHelper | CtTimeout | CtExpectation | Secmark | SynproxyObject
    comment: str = ""
    handle: int = 0


class Table(Struct, frozen=True):
    """One table. Dictionaries keep the order in which things were added, which is the order nft lists them in.

    `uses` counts the references to each chain ("name"), set ("@name") and object ("kind name"): what is used cannot be
    deleted.
    """

    family: str
    name: str
    handle: int = 0
    comment: str = ""
    dormant: bool = False
    chains: dict[str, Chain] = {}
    sets: dict[str, Set] = {}
    objects: dict[tuple[str, str], NamedObject] = {}
    flowtables: dict[str, Flowtable] = {}
    uses: dict[str, int] = {}
    next_handle: int = 0
