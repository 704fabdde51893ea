"""What the cells of 16_four_planes call."""

from __future__ import annotations

from functools import cache
from typing import Any

from kubenet_lab.course.exercises.nb16 import ADDRESS, TITLES, turns, ward
from kubenet_lab.course.lesson import Texts, step
from kubenet_lab.course.table import Table
from kubenet_lab.kernel.dialects import iptables, ipvsadm, nft
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.scenarios import shop
from kubenet_lab.scenarios.planes import FourPlanes, cost
from kubenet_lab.views.planes import Planes

__all__ = ["call", "compare", "costs", "promise", "step", "turns_of", "ward"]


@cache
def _worlds() -> FourPlanes:
    return FourPlanes(counts=())


def compare() -> Any:
    """Return the four data planes side by side, with a choice of callers and targets."""
    from kubenet_lab.widgets.planes import PlanesExplorer

    return PlanesExplorer(_worlds())


def call(source: str = "frontend", target: str = f"http://{ADDRESS}") -> Planes:
    """Make one call in all four and compare."""
    return _worlds().connect(source, target)


def costs(*counts: int) -> Table:
    """Count what each data plane compares, for several numbers of Services."""
    rows = tuple((title, *(f"{cost(mode, n):,}" for n in counts)) for mode, title in TITLES.items())
    heads = ("", *(f"{n:,} Services" for n in counts))
    return Table(heads, rows, "Entries compared for a first packet to the last Service", numbers=True)


def _lines(text: str, *words: str) -> str:
    return "\n".join(line for line in text.splitlines() if any(word in line for word in words))


def promise() -> Texts:
    """Return where each data plane has written the Service down, as its own tool prints it on node-1."""
    spaces: dict[str, Netns] = {mode: shop(proxy=mode).network.ns("node-1") for mode in TITLES}
    ruleset = nft.list_ruleset(spaces["nftables"].nftables)
    servers = ipvsadm.listing(spaces["ipvs"].ipvs).splitlines()
    at = next(i for i, line in enumerate(servers) if ADDRESS in line)
    return Texts(
        {
            "iptables-save -t nat": _lines(
                iptables.save(spaces["iptables"].iptables[4]), f"-d {ADDRESS}/32", "backend:http ->"
            ),
            "nft list map ip kube-proxy service-ips": _lines(ruleset, f"{ADDRESS} . tcp").strip(),
            "ipvsadm -Ln": "\n".join(servers[at : at + 4]),
            "cilium-dbg bpf lb list": _lines(_lb_list(spaces["ebpf"]), ADDRESS),
        }
    )


def _lb_list(space: Netns) -> str:
    from kubenet_lab.kernel.dialects import cilium

    return cilium.lb_list(space.bpf) if space.bpf is not None else ""


def turns_of(calls: int = 9) -> Texts:
    """Return whom a row of calls met, in each data plane."""
    return Texts({TITLES[mode]: " → ".join(turns(mode, calls)) for mode in TITLES})
