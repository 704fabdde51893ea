"""Reads SVG back: where each text stands, measured with the widest usual font, so that overlaps can be asserted."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import combinations
from typing import NamedTuple

from kubenet_lab.views.theme import text_width

NS = "{http://www.w3.org/2000/svg}"


class Text(NamedTuple):
    words: str
    left: float
    top: float
    right: float
    bottom: float


def texts(svg: str) -> list[Text]:
    """Every text of a picture with its box in pixels."""
    out = []
    for node in ElementTree.fromstring(svg).iter(f"{NS}text"):
        size, kinds = float(node.attrib["font-size"]), node.get("class", "").split()
        words = "".join(node.itertext())
        width = text_width(words.strip(), size, bold="b" in kinds, mono="m" in kinds)
        x, y = float(node.attrib["x"]), float(node.attrib["y"])
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[node.get("text-anchor", "start")]
        out.append(Text(words, left, y - 0.78 * size, left + width, y + 0.22 * size))
    return out


def faults(svg: str) -> list[str]:
    """What is wrong with a picture: texts over one another, or over the edge; [] when all is well."""
    root = ElementTree.fromstring(svg)
    _, _, width, height = (float(part) for part in root.attrib["viewBox"].split())
    out = []
    found = texts(svg)
    assert found, "a picture without words"
    for text in found:
        if text.left < 0 or text.top < 0 or text.right > width or text.bottom > height:
            out.append(f"{text.words!r} leaves the picture: {text}")
    for a, b in combinations(found, 2):
        if (
            a.left < b.right - 0.5
            and b.left < a.right - 0.5
            and a.top < b.bottom - 0.5
            and b.top < a.bottom - 0.5
        ):
            out.append(f"{a.words!r} overlaps {b.words!r}")
    return out


def boxed_faults(
    svg: str,
    classes: tuple[str, ...] = ("f-pod", "f-bridge", "f-band", "f-tunnel", "f-bg", "f-card", "f-service"),
) -> list[str]:
    """Texts that begin inside a box and run over its right edge or below it; the smallest box around counts."""
    boxes = []
    for node in ElementTree.fromstring(svg).iter(f"{NS}rect"):
        if set(node.get("class", "").split()) & set(classes):
            x, y, w, h = (float(node.attrib[k]) for k in ("x", "y", "width", "height"))
            boxes.append((w * h, x, y, x + w, y + h))
    out = []
    for text in texts(svg):
        middle = (text.top + text.bottom) / 2
        around = sorted(b for b in boxes if b[1] <= text.left <= b[3] and b[2] <= middle <= b[4])
        if around and (text.right > around[0][3] + 0.5 or text.bottom > around[0][4] + 0.5):
            out.append(f"{text.words!r} runs out of its box")
    return out
