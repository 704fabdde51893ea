"""A node's rules as a tree to fold, search and follow one packet through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import traitlets

from kubenet_lab.trace import Trace
from kubenet_lab.trip import Trip
from kubenet_lab.views.rules_tree import RulesTree, details, rules_tree, rules_tree_html
from kubenet_lab.widgets.base import Widget, script
from kubenet_lab.widgets.cluster_map import names_of, network_of


class RuleTree(Widget):
    """The chains of one node, with odds, packets and maps; what a call met is open and marked.

    By mouse, and by keyboard as any tree: arrows move, open and close, Home and End jump, / goes to the search. `query`
    keeps what holds a text, `only_path` what the call met; both may be set from Python.

    Args:
        world: The Network or Cluster.
        node: Whose rules, "node-1".
        family: 4 or 6.
        mode: iptables, nftables, ipvs or ebpf; by default what the node's state speaks of.
        calls: Trips (or traces) whose requests are followed.
    """

    _esm = script("rules_explorer")
    title = traitlets.Unicode().tag(sync=True)
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    query = traitlets.Unicode("").tag(sync=True)
    only_path = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        world: Any,
        node: str = "node-1",
        *,
        family: int = 4,
        mode: str = "",
        calls: Trip | Trace | Iterable[Trip | Trace] = (),
        query: str = "",
        only_path: bool = False,
    ) -> None:
        given = [calls] if isinstance(calls, (Trip, Trace)) else list(calls)
        traces = [trace for one in given for trace in _requests(one)]
        self.tree: RulesTree = rules_tree(
            network_of(world).ns(node), family, mode, traces=traces, names=names_of(world)
        )
        super().__init__(
            title=f"{node}: {self.tree.mode}, IPv{family}",
            rows=_rows(self.tree),
            query=query,
            only_path=only_path,
            words=self.tree.text(),
        )

    def still(self) -> str:
        """Return the tree as lists that fold without a script."""
        return rules_tree_html(self.tree)

    def describe(self) -> str:
        """Return whose rules, and how many lines."""
        return f"RuleTree({self.title}: {len(self.rows)} lines)"


def _requests(call: Trip | Trace) -> list[Trace]:
    if isinstance(call, Trace):
        return [call]
    return [call.exchange.request] if call.exchange is not None else []


def _rows(tree: RulesTree) -> list[dict[str, Any]]:
    """One row a line, from top to bottom; `depth` says what hangs below what."""
    return [
        {
            "depth": depth,
            "kind": one.kind,
            "text": one.text,
            "words": "  ".join(details(one)),
            "share": one.share,
            "hits": one.hits or 0,
            "met": one.met,
        }
        for depth, one in tree.branches()
    ]
