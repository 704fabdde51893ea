"""kube-proxy's command line flags and what it knows of its node.

Flags: the "kube-proxy" page of Kubernetes' command line reference, version 1.37.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

from msgspec import Struct

from kubenet_lab.clock import duration
from kubenet_lab.errors import Fault, InputError
from kubenet_lab.kernel.ipvs import SCHEDULERS
from kubenet_lab.objects import Json, Node, from_manifest
from kubenet_lab.packet.ip import PREFIX, canonical, family, prefix

SOURCE = "<kube-proxy flags>"
"""What faults name as their file."""

DETECT_MODES = ("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix", "None")
"""How a pod's traffic is told from other; "None" is what is left where the cluster has no CIDR to tell it by."""


class KubeProxyConfig(Struct, frozen=True):
    """kube-proxy's settings; the defaults are the program's.

    `nfacct` and `random_fully` are features of the kernel and of iptables rather than flags: kube-proxy
    leaves out what they lack. `conntrack_tcp_be_liberal` is what the sysctl `nf_conntrack_tcp_be_liberal`
    says, `service_cidrs` what the API's ServiceCIDR objects say: only nftables mode reads them.
    """

    cluster_cidrs: tuple[str, ...] = ()
    detect_local_mode: str = "ClusterCIDR"
    pod_bridge_interface: str = ""
    pod_interface_name_prefix: str = ""
    masquerade_all: bool = False
    masquerade_bit: int = 14
    nodeport_addresses: tuple[str, ...] = ()
    localhost_nodeports: bool = True
    conntrack_tcp_be_liberal: bool = False
    nfacct: bool = True
    random_fully: bool = True
    service_cidrs: tuple[str, ...] = ()
    ipvs_scheduler: str = "rr"
    ipvs_strict_arp: bool = False
    ipvs_exclude_cidrs: tuple[str, ...] = ()
    ipvs_timeouts: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """`--ipvs-tcp-timeout`, `--ipvs-tcpfin-timeout` and `--ipvs-udp-timeout` in s; 0 leaves the kernel's."""

    @classmethod
    def from_flags(cls, flags: Iterable[str], **defaults: Any) -> KubeProxyConfig:
        """Read flags as on kube-proxy's command line ("--masquerade-all", "--cluster-cidr=10.244.0.0/16").

        `defaults` are fields for what no flag sets. Raises InputError with a fault for every flag that is
        wrong.
        """
        fields: dict[str, Any] = dict(defaults)
        faults: list[Fault] = []
        for flag in flags:
            name, equals, value = flag.removeprefix("--").partition("=")
            if flag.startswith("--") and name in IGNORED_FLAGS:
                continue
            known = FLAGS.get(name) if flag.startswith("--") else None
            if known is None:
                close = get_close_matches(name, FLAGS, 1)
                advice = f"did you mean --{close[0]}?" if close else f"known flags: --{', --'.join(FLAGS)}"
                faults.append(Fault(f"unknown flag: {flag}", file=SOURCE, path=flag, help=advice))
            elif not equals and known[1] is not _bool:
                faults.append(
                    Fault(
                        f"flag needs a value: {flag}",
                        SOURCE,
                        path=flag,
                        help=f"--{name}=VALUE",
                    )
                )
            else:
                try:
                    read = known[1](value if equals else "true")
                    if known[0] == "ipvs_timeouts":
                        times = [*fields.get("ipvs_timeouts", (0.0, 0.0, 0.0))]
                        times[_IPVS_TIMEOUTS.index(name)] = read
                        read = tuple(times)
                    fields[known[0]] = read
                except ValueError as error:
                    faults.append(
                        Fault(
                            f"invalid value in {flag}",
                            SOURCE,
                            path=flag,
                            help=str(error),
                        )
                    )
        mode = fields.get("detect_local_mode")
        for needed, field in (
            ("BridgeInterface", "pod_bridge_interface"),
            ("InterfaceNamePrefix", "pod_interface_name_prefix"),
        ):
            if mode == needed and not fields.get(field):
                advice = f"add --{field.replace('_', '-')}=NAME: the interface that pods' packets come in by"
                faults.append(
                    Fault(
                        f"--detect-local-mode={mode} tells nothing alone",
                        SOURCE,
                        help=advice,
                    )
                )
        if faults:
            raise InputError(faults)
        return cls(**fields)

    @property
    def masquerade_mark(self) -> str:
        """The mark of packets to be masqueraded, as kube-proxy writes it: "0x00004000"."""
        return f"0x{1 << self.masquerade_bit:08x}"


def _bool(text: str) -> bool:
    if text not in _BOOLS:
        raise ValueError(f"{text!r} is neither true nor false")
    return _BOOLS[text]


_BOOLS = {**dict.fromkeys(("true", "True", "TRUE", "t", "T", "1"), True)} | dict.fromkeys(
    ("false", "False", "FALSE", "f", "F", "0"), False
)


def _cidrs(text: str) -> tuple[str, ...]:
    if "/" not in text:
        raise ValueError(f"{text!r} is not a list of blocks like 10.244.0.0/16")
    return tuple(str(prefix(part.strip())) for part in text.split(","))


def _nodeport_addresses(text: str) -> tuple[str, ...]:
    return (text,) if text == "primary" else (_cidrs(text) if text else ())


def _bit(text: str) -> int:
    if not text.isdecimal() or int(text) > 31:
        raise ValueError(f"{text!r} is not a bit from 0 to 31")
    return int(text)


def _mode(text: str) -> str:
    if text not in DETECT_MODES:
        raise ValueError(f"{text!r} is none of {', '.join(DETECT_MODES)}")
    return text


def _scheduler(text: str) -> str:
    if text not in SCHEDULERS:
        raise ValueError(f"{text!r} is none of {', '.join(SCHEDULERS)}")
    return text


def duration_text(seconds: float) -> str:
    """Return a duration as Go prints it: "15m0s"."""
    if 0 < seconds < 1:
        return f"{seconds * 1e3:g}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    if hours:
        return f"{hours}h{minutes}m{rest:g}s"
    return f"{minutes}m{rest:g}s" if minutes else f"{rest:g}s"


_IPVS_TIMEOUTS = ("ipvs-tcp-timeout", "ipvs-tcpfin-timeout", "ipvs-udp-timeout")

FLAGS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "cluster-cidr": ("cluster_cidrs", _cidrs),
    "detect-local-mode": ("detect_local_mode", _mode),
    "pod-bridge-interface": ("pod_bridge_interface", str),
    "pod-interface-name-prefix": ("pod_interface_name_prefix", str),
    "masquerade-all": ("masquerade_all", _bool),
    "iptables-masquerade-bit": ("masquerade_bit", _bit),
    "nodeport-addresses": ("nodeport_addresses", _nodeport_addresses),
    "iptables-localhost-nodeports": ("localhost_nodeports", _bool),
    "conntrack-tcp-be-liberal": ("conntrack_tcp_be_liberal", _bool),
    "ipvs-scheduler": ("ipvs_scheduler", _scheduler),
    "ipvs-strict-arp": ("ipvs_strict_arp", _bool),
    "ipvs-exclude-cidrs": ("ipvs_exclude_cidrs", _cidrs),
    **dict.fromkeys(_IPVS_TIMEOUTS, ("ipvs_timeouts", duration)),
}
"""Flag -> (field, reader of its value): the flags that change rules."""

IGNORED_FLAGS = frozenset(
    {
        "bind-address",
        "bind-address-hard-fail",
        "cleanup",
        "config",
        "config-sync-period",
        "conntrack-max-per-core",
        "conntrack-min",
        "conntrack-tcp-timeout-close-wait",
        "conntrack-tcp-timeout-established",
        "conntrack-udp-timeout",
        "conntrack-udp-timeout-stream",
        "feature-gates",
        "healthz-bind-address",
        "hostname-override",
        "init-only",
        "iptables-min-sync-period",
        "iptables-sync-period",
        "ipvs-min-sync-period",
        "ipvs-sync-period",
        "kube-api-burst",
        "kube-api-content-type",
        "kube-api-qps",
        "kubeconfig",
        "log-flush-frequency",
        "logging-format",
        "master",
        "metrics-bind-address",
        "oom-score-adj",
        "profiling",
        "proxy-mode",
        "show-hidden-metrics-for-version",
        "v",
        "vmodule",
        "write-config-to",
    }
)
"""Flags that kube-proxy has and that leave its rules as they are."""


class ProxyNode(Struct, frozen=True):
    """The node a kube-proxy runs on.

    `ips` are its InternalIP addresses, `pod_cidrs` the blocks its pods' addresses come from,
    `interface_addresses` all addresses of its links (only `--nodeport-addresses` looks at them), loopback
    included.
    """

    name: str
    ips: tuple[str, ...] = ()
    pod_cidrs: tuple[str, ...] = ()
    zone: str = ""
    interface_addresses: tuple[str, ...] = ()

    @classmethod
    def from_node(cls, given: Node | Json, interface_addresses: Iterable[str] = ()) -> ProxyNode:
        """Read a Node. Without `interface_addresses` its links have its own IPs and loopback."""
        node = (
            given if isinstance(given, Node) else from_manifest({"apiVersion": "v1", "kind": "Node", **given})
        )
        if not isinstance(node, Node):
            raise TypeError(f"{node.kind} {node.metadata.name!r} given where a Node belongs")
        ips = tuple(canonical(address) for address in node.internal_ips)
        cidrs = node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ())
        found = tuple(interface_addresses) or ("127.0.0.1", "::1", *ips)
        return cls(node.name, ips, cidrs, node.zone, found)

    def ip(self, wanted: int) -> str:
        """Return the node's first address in IP family 4 or 6, "" if it has none."""
        return next((ip for ip in self.ips if family(ip) == wanted), "")


class PodSource(Struct, frozen=True):
    """How a node's kube-proxy tells that a packet comes from a pod: by source address or by interface.

    `wildcard` means any interface whose name begins with `interface`.
    """

    block: str = ""
    interface: str = ""
    wildcard: bool = False


def pod_source(node: ProxyNode, config: KubeProxyConfig, wanted: int) -> PodSource | None:
    """Return what `--detect-local-mode` means in IP family `wanted` (4 or 6), None where nobody can tell."""
    if config.detect_local_mode == "BridgeInterface":
        return PodSource(interface=config.pod_bridge_interface)
    if config.detect_local_mode == "InterfaceNamePrefix":
        return PodSource(interface=config.pod_interface_name_prefix, wildcard=True)
    if config.detect_local_mode == "None":
        return None
    blocks = config.cluster_cidrs if config.detect_local_mode == "ClusterCIDR" else node.pod_cidrs
    return next((PodSource(block) for block in blocks if family(block) == wanted), None)


def nodeport_blocks(node: ProxyNode, addresses: tuple[str, ...], wanted: int) -> tuple[str, ...]:
    """Return the blocks of addresses that answer on node ports, () for every address.

    `addresses` are `--nodeport-addresses`: blocks, or "primary" alone for the node's own.
    """
    if addresses == ("primary",):
        addresses = tuple(str(prefix(ip)) for ip in node.ips)
    blocks = tuple(block for block in addresses if family(block) == wanted)
    return () if any(prefix(block).length == 0 for block in blocks) else blocks


def nodeport_ips(node: ProxyNode, blocks: tuple[str, ...], wanted: int) -> list[str]:
    """Return the addresses of the node's links that are in one of the blocks, loopback included."""
    return [
        address
        for address in dict.fromkeys(node.interface_addresses)
        if family(address) == wanted and any(address in PREFIX[block] for block in blocks)
    ]
