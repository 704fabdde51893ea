"""Names of the chains kube-proxy makes for a service port, in iptables and nftables mode.

The names are hashes, so that they fit iptables' limit of 28 characters (`iptables(8)`, option `-N`), and hash
what a service port is called in logs and comments: `namespace/name:port`.
"""

from __future__ import annotations

import hashlib
from base64 import b32encode

IPTABLES_PREFIXES = {
    "cluster": "KUBE-SVC-",
    "local": "KUBE-SVL-",
    "external": "KUBE-EXT-",
    "firewall": "KUBE-FW-",
    "endpoint": "KUBE-SEP-",
}
"""Purpose -> prefix: every endpoint, the node's own, traffic from outside, source ranges, one endpoint."""

SERVICE_PREFIXES = (*IPTABLES_PREFIXES.values(), "KUBE-XLB-")
"""What the name of a chain of one Service begins with; KUBE-XLB- was written before Kubernetes 1.24."""

_NFTABLES_LIMIT = 240


def _hash(text: str, length: int) -> str:
    # 5 bytes make 8 characters of base32; the rest of the digest is not needed.
    return b32encode(hashlib.sha256(text.encode()).digest()[: length * 5 // 8]).decode()


def service_port_name(namespace: str, name: str, port_name: str = "") -> str:
    """Return what kube-proxy calls a service port in comments and hashes, like "default/web:http"."""
    return f"{namespace}/{name}:{port_name}" if port_name else f"{namespace}/{name}"


def endpoint_text(address: str, port: int) -> str:
    """Return "10.244.0.5:8080", or "[fd00::5]:8080"."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def iptables_hash(service_port: str, protocol: str) -> str:
    """Return the 16 characters that the SVC, SVL, EXT and FW chains of one service port share.

    `service_port` is as `service_port_name` gives it, `protocol` in any case.
    """
    return _hash(service_port + protocol.lower(), 16)


def iptables_chain(purpose: str, service_port: str, protocol: str, endpoint: str = "") -> str:
    """Return the name of one chain; `purpose` is a key of `IPTABLES_PREFIXES`.

    `endpoint` ("10.244.0.5:8080") is hashed too, for purpose "endpoint" only.
    """
    hashed = service_port + protocol.lower() + (endpoint if purpose == "endpoint" else "")
    return IPTABLES_PREFIXES[purpose] + _hash(hashed, 16)


def is_service_chain(chain: str) -> bool:
    """Tell whether kube-proxy may delete this nat chain once no Service needs it."""
    return chain.startswith(SERVICE_PREFIXES)


def is_nftables_service_chain(chain: str) -> bool:
    """Tell whether a chain of the table kube-proxy belongs to one Service: only then it has a slash."""
    return "/" in chain


def nftables_base(namespace: str, name: str, port_name: str, protocol: str, endpoint: str = "") -> str:
    """Return what the names of all chains of a service port, or of one `endpoint` of it, share.

    `endpoint` is as in "10.244.0.5:8080"; a colon may not stand in a name, so in IPv6 it becomes a dot.
    """
    readable = f"{namespace}/{name}/{protocol.lower()}/{port_name}"
    if endpoint:
        address, _, port = endpoint.rpartition(":")
        readable += f"__{address.strip('[]').replace(':', '.')}/{port}"
    full = f"{_hash(readable, 8)}-{readable}"
    return full if len(full) <= _NFTABLES_LIMIT else full[: _NFTABLES_LIMIT - 3] + "..."


def nftables_name(purpose: str, base: str) -> str:
    """Return the name of a chain (for purpose "affinity", a set), given what `nftables_base` gave.

    `purpose` is cluster, local, external, firewall, endpoint or affinity; the last two need an endpoint's base.
    """
    return f"{'service' if purpose == 'cluster' else purpose}-{base}"


def nftables_chain(
    purpose: str, namespace: str, name: str, port_name: str, protocol: str, endpoint: str = ""
) -> str:
    """Return the whole name at once; the arguments are those of `nftables_name` and `nftables_base`."""
    return nftables_name(purpose, nftables_base(namespace, name, port_name, protocol, endpoint))
