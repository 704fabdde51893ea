"""Netfilter as `iptables` sees it: rules, chains, tables, and the edits that change them.

Read in this order: `rule.py` (one rule), `extension.py` (what a match or target is), `matches/` and
`targets/` (one a file), `ruleset.py` (tables and transactions). Text is in
`kubenet_lab.kernel.dialects.iptables`.
"""

from __future__ import annotations

from kubenet_lab.kernel.netfilter.extension import Match, Target
from kubenet_lab.kernel.netfilter.matches import MATCHES, UnknownMatch
from kubenet_lab.kernel.netfilter.rule import Rule
from kubenet_lab.kernel.netfilter.ruleset import (
    BUILTIN,
    HOOKS,
    PRINT_ORDER,
    Chain,
    Counter,
    Edit,
    NetfilterError,
    Ruleset,
    Table,
)
from kubenet_lab.kernel.netfilter.targets import TARGETS, Goto, Jump, UnknownTarget

__all__ = [
    "BUILTIN",
    "HOOKS",
    "MATCHES",
    "PRINT_ORDER",
    "TARGETS",
    "Chain",
    "Counter",
    "Edit",
    "Goto",
    "Jump",
    "Match",
    "NetfilterError",
    "Rule",
    "Ruleset",
    "Table",
    "Target",
    "UnknownMatch",
    "UnknownTarget",
]
