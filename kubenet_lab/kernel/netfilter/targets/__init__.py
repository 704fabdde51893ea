"""The targets, one a file. `TARGETS` lists them; a new target is a new file and a new line here."""

from __future__ import annotations

from kubenet_lab.kernel.netfilter.extension import Target
from kubenet_lab.kernel.netfilter.targets.connmark import ConnMarkTarget
from kubenet_lab.kernel.netfilter.targets.ct import Ct, NoTrack
from kubenet_lab.kernel.netfilter.targets.dnat import Dnat
from kubenet_lab.kernel.netfilter.targets.hl import HopLimitTarget
from kubenet_lab.kernel.netfilter.targets.jump import Goto, Jump
from kubenet_lab.kernel.netfilter.targets.log import Log
from kubenet_lab.kernel.netfilter.targets.mark import MarkTarget
from kubenet_lab.kernel.netfilter.targets.masquerade import Masquerade
from kubenet_lab.kernel.netfilter.targets.netmap import Netmap
from kubenet_lab.kernel.netfilter.targets.nflog import NfLog
from kubenet_lab.kernel.netfilter.targets.nfqueue import NfQueue
from kubenet_lab.kernel.netfilter.targets.redirect import Redirect
from kubenet_lab.kernel.netfilter.targets.reject import Reject
from kubenet_lab.kernel.netfilter.targets.snat import Snat
from kubenet_lab.kernel.netfilter.targets.tcpmss import TcpMssTarget
from kubenet_lab.kernel.netfilter.targets.trace import TraceTarget
from kubenet_lab.kernel.netfilter.targets.ttl import TtlTarget
from kubenet_lab.kernel.netfilter.targets.unknown import UnknownTarget
from kubenet_lab.kernel.netfilter.targets.verdict import Accept, Drop, Queue, Return

TARGETS: tuple[type[Target], ...] = (
    Accept,
    Drop,
    Return,
    Queue,
    Reject,
    MarkTarget,
    ConnMarkTarget,
    Ct,
    NoTrack,
    Dnat,
    Snat,
    Masquerade,
    Redirect,
    Netmap,
    TcpMssTarget,
    TtlTarget,
    HopLimitTarget,
    Log,
    NfLog,
    NfQueue,
    TraceTarget,
)

__all__ = [
    "TARGETS",
    "Accept",
    "ConnMarkTarget",
    "Ct",
    "Dnat",
    "Drop",
    "Goto",
    "HopLimitTarget",
    "Jump",
    "Log",
    "MarkTarget",
    "Masquerade",
    "Netmap",
    "NfLog",
    "NfQueue",
    "NoTrack",
    "Queue",
    "Redirect",
    "Reject",
    "Return",
    "Snat",
    "TcpMssTarget",
    "TraceTarget",
    "TtlTarget",
    "UnknownTarget",
]
