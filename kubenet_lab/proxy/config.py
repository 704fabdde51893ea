"""kube-proxy's command line flags and what it knows of its node.

Flags: the "kube-proxy" page of Kubernetes' command line reference, version 1.37.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from msgspec import Struct

from kubenet_lab.errors import KubenetLabError
from kubenet_lab.packet.ip import canonical, family, prefix

DETECT_MODES = ("ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix")


class FlagError(KubenetLabError):
    """Flags that kube-proxy would refuse to start with. `problems` has one sentence for each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class KubeProxyConfig(Struct, frozen=True):
    """kube-proxy's settings; the defaults are the program's.

    `nfacct` and `random_fully` are features of the kernel and of iptables rather than flags: kube-proxy leaves out
    what they lack. `conntrack_tcp_be_liberal` is what the sysctl `nf_conntrack_tcp_be_liberal` says.
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

    @classmethod
    def from_flags(cls, flags: Iterable[str], **defaults: Any) -> KubeProxyConfig:
        """Read flags as on kube-proxy's command line ("--masquerade-all", "--cluster-cidr=10.244.0.0/16").

        `defaults` are fields for what no flag sets. Raises FlagError naming every flag that is wrong.
        """
        fields: dict[str, Any] = dict(defaults)
        problems: list[str] = []
        for flag in flags:
            name, equals, value = flag.partition("=")
            name = name.removeprefix("--")
            if name in IGNORED_FLAGS:
                continue
            known = FLAGS.get(name)
            if known is None or not flag.startswith("--"):
                close = get_close_matches(name, FLAGS, 1)
                hint = f"; did you mean --{close[0]}?" if close else f"; known: --{', --'.join(FLAGS)}"
                problems.append(f"{flag}: kube-proxy has no such flag, or it does not change rules{hint}")
                continue
            field, read = known
            if not equals and read is not _bool:
                problems.append(f"{flag}: write --{name}=VALUE")
                continue
            try:
                fields[field] = read(value if equals else "true")
            except ValueError as error:
                problems.append(f"{flag}: {error}")
        mode = fields.get("detect_local_mode")
        for needed, field in (
            ("BridgeInterface", "pod_bridge_interface"),
            ("InterfaceNamePrefix", "pod_interface_name_prefix"),
        ):
            if mode == needed and not fields.get(field):
                problems.append(
                    f"--detect-local-mode={mode}: needs --{field.replace('_', '-')}, which says whose packets are the pods'"
                )
        if problems:
            raise FlagError(problems)
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
}
"""Flag -> (field, reader of its value): the flags that change rules."""

IGNORED_FLAGS = frozenset(
    "bind-address config config-sync-period healthz-bind-address hostname-override iptables-min-sync-period "
    "iptables-sync-period kubeconfig log-flush-frequency master metrics-bind-address proxy-mode v vmodule "
    "write-config-to conntrack-max-per-core conntrack-min conntrack-tcp-timeout-close-wait "
    "conntrack-tcp-timeout-established conntrack-udp-timeout conntrack-udp-timeout-stream feature-gates "
    "kube-api-burst kube-api-content-type kube-api-qps logging-format oom-score-adj profiling "
    "show-hidden-metrics-for-version bind-address-hard-fail cleanup init-only".split()
)
"""Flags that kube-proxy has and that leave its rules as they are."""


class ProxyNode(Struct, frozen=True):
    """The node a kube-proxy runs on.

    `ips` are its InternalIP addresses, `pod_cidrs` the blocks its pods' addresses come from, `interface_addresses`
    all addresses of its links (only `--nodeport-addresses` looks at them), loopback included.
    """

    name: str
    ips: tuple[str, ...] = ()
    pod_cidrs: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}
    interface_addresses: tuple[str, ...] = ()

    @classmethod
    def from_manifest(cls, node: Mapping[str, Any], interface_addresses: Iterable[str] = ()) -> ProxyNode:
        """Read a Node manifest. Without `interface_addresses` the node has its own IPs and loopback."""
        spec = node.get("spec") or {}
        addresses = (node.get("status") or {}).get("addresses") or ()
        ips = tuple(canonical(a["address"]) for a in addresses if a["type"] == "InternalIP")
        cidrs = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
        return cls(
            node["metadata"]["name"],
            ips,
            tuple(cidrs),
            node["metadata"].get("labels") or {},
            tuple(interface_addresses) or ("127.0.0.1", "::1", *ips),
        )

    def ip(self, wanted: int) -> str:
        """Return the node's first address in IP family 4 or 6, "" if it has none."""
        return next((ip for ip in self.ips if family(ip) == wanted), "")
