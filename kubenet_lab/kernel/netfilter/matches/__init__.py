"""The matches, one a file. `MATCHES` lists them; a new match is a new file and a new line here."""

from __future__ import annotations

from kubenet_lab.kernel.netfilter.extension import Match
from kubenet_lab.kernel.netfilter.matches.addrtype import AddrType
from kubenet_lab.kernel.netfilter.matches.comment import Comment
from kubenet_lab.kernel.netfilter.matches.connmark import ConnMark
from kubenet_lab.kernel.netfilter.matches.conntrack import Conntrack
from kubenet_lab.kernel.netfilter.matches.dscp import Dscp
from kubenet_lab.kernel.netfilter.matches.hashlimit import HashLimit
from kubenet_lab.kernel.netfilter.matches.hl import HopLimit
from kubenet_lab.kernel.netfilter.matches.icmp import Icmp
from kubenet_lab.kernel.netfilter.matches.icmp6 import Icmp6
from kubenet_lab.kernel.netfilter.matches.iprange import IpRange
from kubenet_lab.kernel.netfilter.matches.ipvs import Ipvs
from kubenet_lab.kernel.netfilter.matches.length import Length
from kubenet_lab.kernel.netfilter.matches.limit import Limit
from kubenet_lab.kernel.netfilter.matches.mac import Mac
from kubenet_lab.kernel.netfilter.matches.mark import Mark
from kubenet_lab.kernel.netfilter.matches.multiport import Multiport
from kubenet_lab.kernel.netfilter.matches.nfacct import NfAcct
from kubenet_lab.kernel.netfilter.matches.owner import Owner
from kubenet_lab.kernel.netfilter.matches.physdev import PhysDev
from kubenet_lab.kernel.netfilter.matches.pkttype import PktType
from kubenet_lab.kernel.netfilter.matches.recent import Recent
from kubenet_lab.kernel.netfilter.matches.rpfilter import RpFilter
from kubenet_lab.kernel.netfilter.matches.sctp import Sctp
from kubenet_lab.kernel.netfilter.matches.set import SetMatch
from kubenet_lab.kernel.netfilter.matches.socket import SocketMatch
from kubenet_lab.kernel.netfilter.matches.state import State
from kubenet_lab.kernel.netfilter.matches.statistic import Statistic
from kubenet_lab.kernel.netfilter.matches.string import String
from kubenet_lab.kernel.netfilter.matches.tcp import Tcp
from kubenet_lab.kernel.netfilter.matches.tcpmss import TcpMss
from kubenet_lab.kernel.netfilter.matches.time import Time
from kubenet_lab.kernel.netfilter.matches.tos import Tos
from kubenet_lab.kernel.netfilter.matches.ttl import Ttl
from kubenet_lab.kernel.netfilter.matches.u32 import U32
from kubenet_lab.kernel.netfilter.matches.udp import Udp
from kubenet_lab.kernel.netfilter.matches.unknown import UnknownMatch

MATCHES: tuple[type[Match], ...] = (
    AddrType,
    Comment,
    ConnMark,
    Conntrack,
    Dscp,
    HashLimit,
    HopLimit,
    Icmp,
    Icmp6,
    IpRange,
    Ipvs,
    Length,
    Limit,
    Mac,
    Mark,
    Multiport,
    NfAcct,
    Owner,
    PhysDev,
    PktType,
    Recent,
    RpFilter,
    Sctp,
    SetMatch,
    SocketMatch,
    State,
    Statistic,
    String,
    Tcp,
    TcpMss,
    Time,
    Tos,
    Ttl,
    U32,
    Udp,
)

__all__ = [
    "MATCHES",
    "U32",
    "AddrType",
    "Comment",
    "ConnMark",
    "Conntrack",
    "Dscp",
    "HashLimit",
    "HopLimit",
    "Icmp",
    "Icmp6",
    "IpRange",
    "Ipvs",
    "Length",
    "Limit",
    "Mac",
    "Mark",
    "Multiport",
    "NfAcct",
    "Owner",
    "PhysDev",
    "PktType",
    "Recent",
    "RpFilter",
    "Sctp",
    "SetMatch",
    "SocketMatch",
    "State",
    "Statistic",
    "String",
    "Tcp",
    "TcpMss",
    "Time",
    "Tos",
    "Ttl",
    "Udp",
    "UnknownMatch",
]
