"""The pod network has no address left."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kubenet_lab.errors import NotFound
from kubenet_lab.faults.fault import Fault, Undo

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster


LEAKED = "k8s-pod-network.gone"
"""The handle of a pod that is no more."""


class IpamExhausted(Fault, frozen=True):
    """Addresses that nobody gave back fill every block of Calico's pools.

    Symptom: running pods go on; a new pod stays in ContainerCreating.
    Where it lives: IPAMBlocks whose allocations have handles of pods that are long gone.
    Which tool shows it: `kubectl describe pod` (FailedCreatePodSandBox ... "No IPs available in pools"),
    `calicoctl ipam show`, and `calicoctl ipam check`, which names addresses no pod has.
    Cure: `calicoctl ipam release`, or one more IPPool.
    """

    NAME: ClassVar[str] = "ipam-exhausted"
    TITLE: ClassVar[str] = "the pod network has no address left"

    def inject(self, cluster: Cluster) -> Undo:
        """Fill every pool in the name of a handle that no pod has. Raises NotFound without Calico's IPAM."""
        from kubenet_lab.cni.calico.ipam import BLOCKS, block_name
        from kubenet_lab.cni.calico.network import Calico
        from kubenet_lab.packet.ip import ip_text, prefix

        network = cluster.pod_network
        if not isinstance(network, Calico):
            raise NotFound("pod network with Calico's IPAM", cluster.cni)
        store, ipam = network.store, network.ipam
        kept: dict[str, list[int]] = {}
        for pool in ipam.pools():
            whole = prefix(pool.cidr)
            if whole.family == 6:
                continue  # Pods that get two addresses fail without the first; and nobody fills 2^64.
            size = 1 << (32 - pool.block_size)
            for index in range(1 << (pool.block_size - whole.length)):
                cidr = f"{ip_text(whole.net + index * size, 4)}/{pool.block_size}"
                block = ipam.block(cidr) or {"cidr": cidr, "affinity": "", "allocations": {}, "free": []}
                kept[cidr] = block["free"]
                entry = {"handle": LEAKED, "node": block["affinity"].removeprefix("host:")}
                taken = {str(n): entry for n in range(size)} | block["allocations"]
                store.put(BLOCKS, block_name(cidr), block | {"allocations": taken, "free": []})

        def undo() -> None:
            for cidr, free in kept.items():
                block = ipam.block(cidr)
                if block is None:
                    continue
                left = {n: e for n, e in block["allocations"].items() if e["handle"] != LEAKED}
                if left or block["affinity"]:
                    block |= {"allocations": left, "free": [*free, *block["free"]]}
                    store.put(BLOCKS, block_name(cidr), block)
                else:
                    store.delete(BLOCKS, block_name(cidr))

        return undo
