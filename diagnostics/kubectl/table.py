"""Columns as kubectl's tabwriter sets them: three blanks between, the last one not padded."""

from __future__ import annotations


def render(rows: list[list[str]]) -> str:
    """Return rows as lines of aligned columns. A cell's line ends are shown as kubectl does, escaped."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))] if rows else []
    lines = []
    for row in rows:
        padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("   ".join([*padded, row[-1]]) + "\n")
    return "".join(lines)


def age(seconds: float) -> str:
    """Return a duration as `duration.HumanDuration` does (k8s.io/apimachinery)."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    if whole < 120:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 10:
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours, rest = divmod(minutes, 60)
    if hours < 8:
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days, rest = divmod(hours, 24)
    if hours < 192:
        return f"{days}d{rest}h" if rest else f"{days}d"
    if days < 730:
        return f"{days}d"
    years, rest = divmod(days, 365)
    if days < 2920:
        return f"{years}y{rest}d" if rest else f"{years}y"
    return f"{years}y"
