"""Addresses for Services of type LoadBalancer on bare metal, in the manner of MetalLB: by ARP, or by BGP."""

from kubenet_lab.announce.border_gateway import BgpAnnouncer
from kubenet_lab.announce.layer2 import Layer2Announcer

__all__ = ["BgpAnnouncer", "Layer2Announcer"]
