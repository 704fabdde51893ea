"""A packet in flight inside one namespace: the walk's counterpart of the kernel's `struct sk_buff`."""

from __future__ import annotations

from kubenet_lab.kernel.conntrack import Flow
from kubenet_lab.kernel.ipvs import Conn
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.packet.packet import Arp, Packet


class Skb:
    """Mutable while one namespace handles it; everything it refers to is a frozen value or kernel state."""

    __slots__ = (
        "arp",
        "ct",
        "ctinfo",
        "dst_mac",
        "gid",
        "indev",
        "ipvs",
        "length",
        "mark",
        "notrack",
        "ns",
        "outdev",
        "physin",
        "physout",
        "pkt",
        "reply",
        "src_mac",
        "uid",
        "zone",
    )

    def __init__(self, pkt: Packet, ns: Netns, indev: str = "", length: int = 0) -> None:
        self.pkt = pkt
        self.length = length or pkt.length
        """Bytes of the IP packet; rewrites never change it, so it is counted once."""
        self.ns = ns
        self.indev = indev
        self.outdev = ""
        self.physin = ""
        self.physout = ""
        self.src_mac = ""
        self.dst_mac = ""
        self.arp: Arp | None = None
        """The ARP message of a frame that carries one; `pkt` is then a packet of no family."""
        self.mark = 0
        self.ct: Flow | None = None
        self.ctinfo = ""
        self.ipvs: Conn | None = None
        """The IPVS connection of a packet that IPVS translated (`ipvs_property`): it looks at none twice."""
        self.reply = False
        self.uid: int | None = None
        self.gid: int | None = None
        self.notrack = False
        self.zone = 0
