"""A cluster that was given nothing but a bridge a node: see `static_network`."""

from __future__ import annotations

from kubenet_lab.cni.static_network import StaticNetwork


class Bridge(StaticNetwork):
    """One bridge a node, addresses from host-local, `ipMasq`."""
