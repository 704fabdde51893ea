"""Names that Calico makes: links, chains, sets, and the hashes in rule comments.

Source: https://github.com/projectcalico/calico (v3.32), `libcalico-go/lib/hash`, `felix/generictables`,
`libcalico-go/lib/backend/k8s/conversion`.
"""

from __future__ import annotations

import hashlib
from base64 import urlsafe_b64encode

IPTABLES_CHAIN = 28
"""Longest name of an iptables chain."""
NFT_CHAIN = 256
"""Longest name of an nftables chain that Felix gives."""
IPSET = 31
"""Longest name of an IP set."""

SHORT_KINDS = {
    "NetworkPolicy": "np",
    "GlobalNetworkPolicy": "gnp",
    "KubernetesNetworkPolicy": "knp",
    "KubernetesClusterNetworkPolicy": "kcnp",
}


def base64(data: bytes) -> str:
    """Return the alphabet of URLs, without padding."""
    return urlsafe_b64encode(data).decode().rstrip("=")


def unique_id(prefix: str, content: str) -> str:
    """Return "PREFIX:" and a SHA-224 of prefix and content: what an IP set is called inside Felix."""
    return f"{prefix}:{base64(hashlib.sha224(f'{prefix}:{content}'.encode()).digest())}"


def limited(prefix: str, suffix: str, length: int) -> str:
    """Return prefix and suffix, or where that is too long the prefix, "_" and as much of a hash as fits."""
    whole = prefix + suffix
    if len(whole) > length or (len(whole) == length and suffix.startswith("_")):
        digest = base64(hashlib.sha256(suffix.encode()).digest())
        return f"{prefix}_{digest[: length - 1 - len(prefix)]}"
    return whole


def interface(namespace: str, pod: str, prefix: str = "cali") -> str:
    """Return the host's end of a pod's veth pair: the prefix and 11 digits of SHA-1 of "namespace.pod"."""
    return prefix + hashlib.sha1(f"{namespace}.{pod}".encode()).hexdigest()[:11]


def workload_endpoint(node: str, pod: str, endpoint: str = "eth0") -> str:
    """Return the name of a pod's WorkloadEndpoint; dashes inside the parts are doubled."""
    parts = (node, "k8s", pod, endpoint)
    return "-".join(part.replace("-", "--") for part in parts)


def policy_id(kind: str, namespace: str, name: str) -> str:
    """Return "knp/prod/allow-web": what a policy's chains are called after."""
    short = SHORT_KINDS.get(kind, kind)
    return f"{short}/{namespace}/{name}" if namespace else f"{short}/{name}"


def ipset(set_id: str, family: int) -> str:
    """Return a set's name in the kernel: "cali40s:..." or "cali60s:...", cut to what fits."""
    return f"cali{family}0{set_id}"[:IPSET]


def nft_set(name: str) -> str:
    """Return a set's name in nftables, which allows no colon."""
    return name.replace(":", "-")


def rule_hashes(chain: str, rules: list[str]) -> list[str]:
    """Return a hash a rule, each covering the chain's name and all rules before: 16 characters of SHA-224.

    Felix finds by them which rules of a chain it has to write again.
    """
    digest = hashlib.sha224(chain.encode()).digest()
    out = []
    for rule in rules:
        digest = hashlib.sha224(digest + rule.encode()).digest()
        out.append(base64(digest)[:16])
    return out


def group_id(selector: str, direction: str, policies: list[tuple[str, str, str]], length: int) -> str:
    """Return the part of a policy group's chain name that tells it from others (SHA3-224).

    `policies` are (kind, namespace, name).
    """
    lines = [selector, direction, str(len(policies))]
    lines += [f"{{Name: {name}, Namespace: {ns}, Kind: {kind}}}" for kind, ns, name in policies]
    return base64(hashlib.sha3_224("".join(f"{line}\n" for line in lines).encode()).digest())[:length]
