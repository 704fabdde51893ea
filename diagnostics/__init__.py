"""The tools of a network engineer, run inside a modelled namespace: `ping`, `dig`, `ip`, `tcpdump` and
friends.

`shell.run(network, "default/frontend", "dig +short backend")` runs a command line; `%load_ext diagnostics`
gives a notebook `%kubectl` and `%%netshoot`. See README.md for what each tool can do.
"""

from __future__ import annotations

from typing import Any

from diagnostics import (
    birdc,
    bridge,
    calicoctl,
    cilium_dbg,
    conntrack,
    curl,
    dig,
    ip,
    ipset,
    iptables,
    ipvsadm,
    nft,
    nslookup,
    ping,
    ss,
    sysctl,
    tcpdump,
)
from diagnostics.tool import Result, Tool

TOOLS: tuple[Tool, ...] = (
    ping.TOOL,
    curl.TOOL,
    nslookup.TOOL,
    dig.TOOL,
    tcpdump.TOOL,
    ip.TOOL,
    bridge.TOOL,
    ss.TOOL,
    sysctl.TOOL,
    conntrack.TOOL,
    *iptables.TOOLS,
    nft.TOOL,
    ipset.TOOL,
    ipvsadm.TOOL,
    cilium_dbg.TOOL,
    calicoctl.TOOL,
    *birdc.TOOLS,
)
"""Every tool, by the order in which the README lists them."""

BY_NAME: dict[str, Tool] = {tool.name: tool for tool in TOOLS}

__all__ = ["BY_NAME", "TOOLS", "Result", "Tool", "load_ipython_extension"]


def load_ipython_extension(ipython: Any) -> None:
    """`%load_ext diagnostics`: register `%kubectl` and `%%netshoot`."""
    from diagnostics.magics import register

    register(ipython)
