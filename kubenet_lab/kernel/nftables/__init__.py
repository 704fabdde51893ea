"""nftables: tables, chains, rules as typed expressions and statements, sets and maps, edited in transactions.

`datatypes` (what a constant is), `expressions` (what is looked at), `statements` (what is done), `objects` (tables,
chains, sets), `ruleset` (all of a namespace, and its edits). Text and JSON are in `kernel.dialects.nft`.
"""

from kubenet_lab.kernel.nftables.objects import Chain, Flowtable, NamedObject, Rule, Set, Table
from kubenet_lab.kernel.nftables.ruleset import Edit, NftError, Ruleset

__all__ = ["Chain", "Edit", "Flowtable", "NamedObject", "NftError", "Rule", "Ruleset", "Set", "Table"]
