"""A Service's nat chains as a picture: what each rule takes of the packets that reach it, and what it leaves.

Everything is read off a ruleset: probabilities as the kernel holds them, counters as `iptables -v` shows them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from msgspec import Struct

from kubenet_lab.kernel.netfilter import Jump, Ruleset
from kubenet_lab.kernel.netfilter.matches import Statistic
from kubenet_lab.kernel.netfilter.targets import Dnat, Reject
from kubenet_lab.views.theme import Box, Picture, Svg, wrap
from kubenet_lab.views.words import short

if TYPE_CHECKING:
    from kubenet_lab.kernel.netfilter import Rule

WIDTH = 1000.0


class EndpointRule(Struct, frozen=True):
    """One rule of a KUBE-SVC chain that leads to an endpoint.

    `chance` is the probability written in the rule, 1.0 for a rule without a condition; `share` is the part of all
    packets that it takes; `hits` counts those it has taken.
    """

    number: int
    text: str
    chance: float
    printed: str
    share: float
    chain: str
    to: str
    label: str
    hits: int


class ServiceRules(Struct, frozen=True):
    """The rules that lead from a Service's address to its endpoints, or the rule that refuses."""

    address: str
    label: str
    entry: str
    chain: str
    marks: str
    endpoints: tuple[EndpointRule, ...]
    refusal: str = ""

    @property
    def lines(self) -> list[str]:
        """The rules as `iptables-save` prints them, in the order a packet meets them."""
        return [
            line for line in (self.refusal, self.entry, self.marks, *(e.text for e in self.endpoints)) if line
        ]

    def __str__(self) -> str:
        if not self.entry:
            return f"{self.label or self.address}: no rule in nat leads anywhere. {self.refusal}".strip()
        rows = [f"{self.label or self.address}: {len(self.endpoints)} endpoints, chain {self.chain}"]
        for one in self.endpoints:
            hits = f", {one.hits} taken" if one.hits else ""
            rows.append(
                f"  rule {one.number}: {one.printed} -> {one.label} ({one.to}), {one.share:.4%} of all{hits}"
            )
        return "\n".join(rows)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return service_rules_picture(self)._repr_html_()


def _of(rule: Rule, address: str, port: int) -> bool:
    if rule.dst.partition("/")[0] != address or rule.not_dst:
        return False
    ports = [getattr(match, "dport", None) for match in rule.matches if hasattr(match, "dport")]
    return not port or not ports or (port, port) in ports


def service_rules(
    rules: Ruleset, address: str, port: int = 0, names: Mapping[str, str] | None = None
) -> ServiceRules:
    """Read a Service's chains. `address` is its ClusterIP; `port` chooses among several ports, 0 the first.

    `names` is address -> "pod default/backend-1".
    """
    names = names or {}
    label = short(names.get(address, ""))
    refusal = next(
        (
            f"-A KUBE-SERVICES {rule}"
            for rule in rules.rules("filter", "KUBE-SERVICES")
            if _of(rule, address, port) and isinstance(rule.target, Reject)
        ),
        "",
    )
    for rule in rules.rules("nat", "KUBE-SERVICES"):
        if _of(rule, address, port) and isinstance(rule.target, Jump):
            return _chain(rules, rule, rule.target.chain, address, label, refusal, names)
    return ServiceRules(address, label, "", "", "", (), refusal)


def _chain(
    rules: Ruleset, entry: Rule, chain: str, address: str, label: str, refusal: str, names: Mapping[str, str]
) -> ServiceRules:
    counters = rules.counters.get(("nat", chain))
    left, marks, ends = 1.0, "", []
    for number, rule in enumerate(rules.rules("nat", chain), 1):
        line = f"-A {chain} {rule}"
        if not isinstance(rule.target, Jump):
            continue
        to = _destination(rules, rule.target.chain)
        if not to:
            marks = marks or line
            continue
        match = next((m for m in rule.matches if isinstance(m, Statistic)), None)
        chance = match.probability if match is not None and match.mode == "random" else 1.0
        printed = match.text(4).strip() if match is not None else "no condition"
        printed = printed.removeprefix("-m statistic --mode random ")
        owner = short(names.get(to.rpartition(":")[0], ""))
        hits = counters[number][0] if counters else 0
        ends.append(
            EndpointRule(number, line, chance, printed, left * chance, rule.target.chain, to, owner, hits)
        )
        left *= 1 - chance
    return ServiceRules(address, label, f"-A KUBE-SERVICES {entry}", chain, marks, tuple(ends), refusal)


def _destination(rules: Ruleset, chain: str) -> str:
    for rule in rules.rules("nat", chain):
        if isinstance(rule.target, Dnat):
            ports = rule.target.ports
            return f"{rule.target.addr_min}:{ports[0]}" if ports else rule.target.addr_min
    return ""


def service_rules_picture(found: ServiceRules) -> Picture:
    """Draw the chains; see `service_rules_svg`."""
    return Picture(service_rules_svg(found), str(found))


_BAR_X, _BAR_W = 250.0, 330.0
_END_X = 610.0


def service_rules_svg(found: ServiceRules) -> str:
    """Draw the chains, one row a rule.

    The bar is all packets that come to the Service: what earlier rules took is empty, what this rule takes is
    filled, what it leaves for the rules below is pale.
    """
    svg = Svg(WIDTH)
    name = found.label or "the Service"
    y = 12.0
    if not found.entry:
        return _refusing(svg, found, name, y)
    svg.rect(Box(12, y, WIDTH - 24, 52), "f-service s-serviceline", extra=' stroke-width="1.5"')
    svg.text(26, y + 21, f"KUBE-SERVICES: a new connection to {found.address}, {name}", 14, bold=True)
    svg.text(
        26, y + 41, f"jumps to {found.chain}, which asks its rules one after the other, top to bottom:", 12
    )
    y += 66
    total = sum(one.hits for one in found.endpoints)
    svg.text(26, y + 12, "rule and its condition", 11.5, cls="t-soft")
    svg.text(_BAR_X, y + 12, "■ takes   □ leaves for the rules below", 11.5, cls="t-soft")
    svg.text(_END_X, y + 12, "endpoint chain: rewrites the destination (DNAT)", 11.5, cls="t-soft")
    y += 22
    if found.marks:
        svg.rect(Box(12, y, WIDTH - 24, 30), "f-card s-line")
        svg.text(24, y + 20, "rule 1", 13, bold=True)
        words = "a caller from outside the pod network is marked for masquerade; the packet then goes on to rule 2"
        svg.text(_BAR_X, y + 20, words, 12)
        y += 38
    left = 1.0
    for one in found.endpoints:
        y = _row(svg, one, y, left, total)
        left -= one.share
    if left > 1e-9:
        svg.text(
            26,
            y + 14,
            f"{left:.1%} reach the end of the chain: no rule rewrites them.",
            12.5,
            bold=True,
            cls="t-fault",
        )
        y += 24
    elif not found.endpoints:
        svg.text(
            26, y + 14, "The chain has no rule that leads to an endpoint.", 12.5, bold=True, cls="t-fault"
        )
        y += 24
    return svg.document(y + 8, f"The rules of {name}", str(found))


def _row(svg: Svg, one: EndpointRule, y: float, left: float, total: int) -> float:
    height = 56.0
    svg.rect(Box(12, y, _BAR_X - 30, height), "f-card s-line")
    svg.text(24, y + 20, f"rule {one.number}", 13, bold=True)
    for n, line in enumerate(wrap(one.printed, _BAR_X - 52, 11, mono=True)[:2]):
        svg.text(24, y + 37 + 14 * n, line, 11, mono=True)
    start = _BAR_X + (1 - left) * _BAR_W
    svg.rect(Box(_BAR_X, y + 26, _BAR_W, 20), "f-bg s-line", radius=3)
    if left > 1e-9:
        svg.rect(Box(start, y + 26, left * _BAR_W, 20), "f-pod s-podline", radius=3)
    if one.share > 0:
        svg.rect(Box(start, y + 26, max(one.share * _BAR_W, 1), 20), "t-podline s-podline", radius=3)
    took = "all of what is left" if one.chance >= 1 else f"{one.chance:.2%} of what is left"
    svg.text(_BAR_X, y + 17, f"takes {took} = {one.share:.2%} of all", 12)
    svg.line([(_BAR_X + _BAR_W + 4, y + 36), (_END_X - 6, y + 36)], "s-podline", 1.5)
    svg.arrow((_END_X - 2, y + 36), (1, 0), "t-podline")
    svg.rect(Box(_END_X, y, WIDTH - 12 - _END_X, height), "f-pod s-podline")
    svg.text(_END_X + 12, y + 18, one.label or one.to, 12.5, bold=True)
    svg.text(_END_X + 12, y + 34, f"becomes {one.to}", 11, mono=True)
    svg.text(_END_X + 12, y + 49, one.chain, 10.5, mono=True, cls="t-soft")
    if total:
        svg.text(WIDTH - 24, y + 34, f"{one.hits:,}", 14, bold=True, anchor="end")
        svg.text(WIDTH - 24, y + 49, f"{one.hits / total:.2%}", 11, anchor="end")
    return y + height + 8


def _refusing(svg: Svg, found: ServiceRules, name: str, y: float) -> str:
    if found.refusal:
        head = f"filter KUBE-SERVICES: a new connection to {found.address}, {name}, is refused"
        lines = wrap(found.refusal, WIDTH - 60, 11, mono=True)
        tail = "No nat chain exists: there is nothing to choose from. The refusal goes back at once."
    else:
        head, lines = f"No rule mentions {found.address}", []
        tail = "A packet for it follows the ordinary routes, and nobody there owns the address."
    svg.rect(Box(12, y, WIDTH - 24, 56 + 15 * len(lines)), "f-faultbg s-fault", extra=' stroke-width="1.5"')
    svg.text(26, y + 22, head, 14, bold=True)
    for n, line in enumerate(lines):
        svg.text(26, y + 42 + 15 * n, line, 11, mono=True)
    svg.text(26, y + 43 + 15 * len(lines), tail, 12)
    return svg.document(y + 68 + 15 * len(lines), f"The rules of {name}", str(found))


# -- counts against theory ---------------------------------------------------------------------------------------


class Spread(Struct, frozen=True):
    """Packets counted, and what an equal share would be. `labels` names the destinations."""

    counts: dict[str, int]
    labels: dict[str, str]

    @property
    def total(self) -> int:
        """How many packets."""
        return sum(self.counts.values())

    @property
    def chi_square(self) -> float:
        """Sum of (counted - expected)² / expected, for equal shares."""
        expected = self.total / len(self.counts)
        return sum((n - expected) ** 2 / expected for n in self.counts.values())

    @property
    def by_chance(self) -> float:
        """Probability that equal shares would give counts at least this uneven."""
        return chi_square_tail(self.chi_square, len(self.counts) - 1)

    @property
    def words(self) -> str:
        """What the numbers say, in a sentence."""
        expected = self.total / len(self.counts)
        worst = max(abs(n - expected) for n in self.counts.values())
        runs = round(self.by_chance * 100)
        often = (
            f"about {runs} of 100" if 1 <= runs <= 99 else "fewer than 1 of 100" if runs < 1 else "nearly all"
        )
        verdict = (
            "that is chance, not a preference"
            if self.by_chance > 0.01
            else "that is more than chance: the shares differ"
        )
        return (
            f"Equal shares would be {expected:,.0f} each; the largest difference is {worst:,.0f}. With equal shares, "
            f"{often} "
            f"such runs come out at least this uneven: {verdict}."
        )

    def __str__(self) -> str:
        rows = [f"{self.total:,} packets"]
        rows += [
            f"  {self.labels.get(to, to)}: {n:,} ({n / self.total:.2%})" for to, n in self.counts.items()
        ]
        return "\n".join([*rows, self.words])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from kubenet_lab.views.theme import image

        return image(spread_svg(self), str(self)) + f"<p>{self.words}</p>"


def spread_svg(found: Spread) -> str:
    """Draw a bar for each destination, with a line where an equal share would end."""
    svg = Svg(WIDTH)
    expected = found.total / len(found.counts)
    scale = 470 / max(*found.counts.values(), expected)
    y = 14.0
    svg.text(14, y + 12, f"{found.total:,} first packets, counted by destination", 14, bold=True)
    y += 28
    top = y
    for to, count in found.counts.items():
        svg.text(14, y + 14, found.labels.get(to, to), 12.5, bold=True)
        svg.text(14, y + 29, to or "not rewritten", 11, mono=True)
        svg.rect(Box(330, y + 4, max(count * scale, 1), 24), "t-podline s-podline", radius=3)
        svg.text(
            330 + max(count * scale, expected * scale) + 12,
            y + 21,
            f"{count:,} = {count / found.total:.2%}",
            13,
            bold=True,
        )
        y += 38
    x = 330 + expected * scale
    svg.line([(x, top - 2), (x, y + 2)], "s-ink", 1.5, ' stroke-dasharray="4 3"')
    svg.text(x, y + 16, f"equal share {expected:,.0f}", 11.5, anchor="middle")
    return svg.document(y + 28, "Packets by destination", str(found))


def chi_square_tail(value: float, freedom: int) -> float:
    """Return P(X >= value) of a chi-square variable: the regularised upper incomplete gamma function Q(k/2, x/2).

    Abramowitz and Stegun 26.4.4 and 26.4.5: a finite sum, by whether the degrees of freedom are even or odd.
    """
    if freedom <= 0 or value <= 0:
        return 1.0
    half = value / 2
    if freedom % 2 == 0:
        term = total = 1.0
        for k in range(1, freedom // 2):
            term *= half / k
            total += term
        return min(1.0, math.exp(-half) * total)
    total, term = 0.0, math.sqrt(value)
    for k in range(1, (freedom - 1) // 2 + 1):
        total += term
        term *= value / (2 * k + 1)
    return min(1.0, math.erfc(math.sqrt(half)) + math.sqrt(2 / math.pi) * math.exp(-half) * total)
