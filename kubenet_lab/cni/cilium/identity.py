"""Security identities: pods with the same labels are one to the datapath (pkg/identity, pkg/labelsfilter).

Numbers below 256 are reserved; those of labels are the cluster's, those of blocks (from 16777217 on) a node's own. The
real allocator draws a free number by chance; here they go up as labels are first met, so that a world repeats.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kubenet_lab.cni.cilium.rules import ACCOUNT_LABEL, CLUSTER_LABEL, NAMESPACE_LABEL, NAMESPACE_META
from kubenet_lab.kernel.bpf import RESERVED, WORLD
from kubenet_lab.objects.namespace import Namespace
from kubenet_lab.objects.pod import Pod

FIRST, FIRST_LOCAL = 256, 16777217

_LEFT_OUT = re.compile(
    r"(io\.kubernetes|kubernetes\.io|.*beta\.kubernetes\.io|k8s\.io|pod-template-generation|pod-template-hash"
    r"|controller-revision-hash|annotation|controller-uid|batch\.kubernetes\.io/controller-uid|etcd_node"
    r"|statefulset\.kubernetes\.io/pod-name|apps\.kubernetes\.io/pod-index|batch\.kubernetes\.io/job-completion-index)"
)
"""Labels that say nothing of what a pod may do, left out by default (--labels)."""


def labels_of(pod: Pod, namespace: Namespace | None, cluster: str = "default") -> dict[str, str]:
    """Return a pod's security labels, with their source."""
    labels = {f"k8s:{key}": value for key, value in pod.metadata.labels.items() if not _LEFT_OUT.match(key)}
    space = pod.namespace or "default"
    labels[f"k8s:{NAMESPACE_LABEL}"] = space
    labels[f"k8s:{CLUSTER_LABEL}"] = cluster
    labels[f"k8s:{ACCOUNT_LABEL}"] = pod.spec.service_account_name or "default"
    own = namespace.metadata.labels if namespace is not None else {"kubernetes.io/metadata.name": space}
    labels |= {f"k8s:{NAMESPACE_META}{key}": value for key, value in own.items()}
    return labels


def text_of(labels: Mapping[str, str]) -> str:
    """Return labels as one text, sorted: what two pods of one identity share."""
    return ",".join(f"{key}={value}" if value else key for key, value in sorted(labels.items()))


def reserved_labels(number: int) -> dict[str, str]:
    """Return the labels of a reserved identity; the API server outside is of the world, too."""
    labels = {f"reserved:{RESERVED[number]}": ""}
    return labels | {"reserved:world": ""} if number == 7 else labels


class Identities:
    """Numbers of label sets, and of blocks, with what each means."""

    def __init__(self) -> None:
        self.labels: dict[int, dict[str, str]] = {
            number: reserved_labels(number) for number in RESERVED if number
        }
        self.blocks: dict[str, int] = {}
        self._numbers: dict[str, int] = {}

    def number(self, labels: dict[str, str]) -> int:
        """Return the identity of a set of labels, a new one where it was never met."""
        text = text_of(labels)
        found = self._numbers.get(text)
        if found is None:
            found = self._numbers[text] = FIRST + len(self._numbers)
            self.labels[found] = labels
        return found

    def block(self, cidr: str) -> int:
        """Return the identity of a block outside the cluster; everything is the world's."""
        if cidr in ("0.0.0.0/0", "::/0"):
            return WORLD
        found = self.blocks.get(cidr)
        if found is None:
            found = self.blocks[cidr] = FIRST_LOCAL + len(self.blocks)
            self.labels[found] = {f"cidr:{cidr}": "", "reserved:world": ""}
        return found
