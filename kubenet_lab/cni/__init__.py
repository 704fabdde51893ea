"""Pod networks: the CNI protocol, the runtime's side of it, and one folder a plugin. See README.md."""

from __future__ import annotations

from kubenet_lab.cni.bridge.plugin import PLUGIN as BRIDGE
from kubenet_lab.cni.calico.plugin import PLUGINS as CALICO
from kubenet_lab.cni.cilium.plugin import PLUGIN as CILIUM
from kubenet_lab.cni.flannel.plugin import PLUGIN as FLANNEL
from kubenet_lab.cni.ipam.dhcp import PLUGIN as DHCP
from kubenet_lab.cni.ipam.host_local import PLUGIN as HOST_LOCAL
from kubenet_lab.cni.ipam.static import PLUGIN as STATIC
from kubenet_lab.cni.loopback.plugin import PLUGIN as LOOPBACK
from kubenet_lab.cni.main.dummy import PLUGINS as LONELY
from kubenet_lab.cni.main.host_device import PLUGIN as HOST_DEVICE
from kubenet_lab.cni.main.ptp import PLUGIN as PTP
from kubenet_lab.cni.main.stacked import PLUGINS as STACKED
from kubenet_lab.cni.meta.bandwidth import PLUGIN as BANDWIDTH
from kubenet_lab.cni.meta.firewall import PLUGIN as FIREWALL
from kubenet_lab.cni.meta.sbr import PLUGIN as SBR
from kubenet_lab.cni.meta.tuning import PLUGIN as TUNING
from kubenet_lab.cni.meta.vrf import PLUGIN as VRF
from kubenet_lab.cni.plugin import CniError, Plugin, Result
from kubenet_lab.cni.portmap.plugin import PLUGIN as PORTMAP
from kubenet_lab.cni.sample import PLUGIN as SAMPLE

PLUGINS: tuple[Plugin, ...] = (
    LOOPBACK,
    BRIDGE,
    PTP,
    *STACKED,
    HOST_DEVICE,
    *LONELY,
    HOST_LOCAL,
    STATIC,
    DHCP,
    PORTMAP,
    FIREWALL,
    TUNING,
    BANDWIDTH,
    SBR,
    VRF,
    FLANNEL,
    *CALICO,
    CILIUM,
    SAMPLE,
)
"""What is installed in /opt/cni/bin of every node."""

__all__ = ["PLUGINS", "CniError", "Plugin", "Result"]
