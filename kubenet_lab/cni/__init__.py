"""Pod networks: the CNI protocol, the runtime's side of it, and one folder a plugin. See README.md."""

from __future__ import annotations

from kubenet_lab.cni.bridge.plugin import PLUGIN as BRIDGE
from kubenet_lab.cni.flannel.plugin import PLUGIN as FLANNEL
from kubenet_lab.cni.ipam.host_local import PLUGIN as HOST_LOCAL
from kubenet_lab.cni.loopback.plugin import PLUGIN as LOOPBACK
from kubenet_lab.cni.plugin import CniError, Plugin, Result
from kubenet_lab.cni.portmap.plugin import PLUGIN as PORTMAP

PLUGINS: tuple[Plugin, ...] = (LOOPBACK, BRIDGE, HOST_LOCAL, FLANNEL, PORTMAP)
"""What is installed in /opt/cni/bin of every node."""

__all__ = ["PLUGINS", "CniError", "Plugin", "Result"]
