"""calico-ipam: pools are cut into blocks, a block belongs to the node that took it, a pod gets an address of one.

A node takes its first block when its first pod comes, and a further one when all its own are full; where no block is
left it borrows single addresses from other nodes' blocks, unless affinity is strict. Source: `libcalico-go/lib/ipam`
and `cni-plugin/pkg/ipamplugin` of https://github.com/projectcalico/calico (v3.32).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from kubenet_lab.cni.calico.datastore import Datastore
from kubenet_lab.cni.calico.selector import parse
from kubenet_lab.errors import KubenetLabError
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.ip import Prefix, ip_int, ip_text, prefix

Json = dict[str, Any]
BLOCKS, AFFINITIES, HANDLES, POOLS = "ipamblocks", "blockaffinities", "ipamhandles", "ippools"
MAX_BLOCKS = 20
"""Blocks a node may have (`maxBlocksPerHost`)."""


class IpamError(KubenetLabError):
    """No address; the text is the plugin's."""


class IpPool(Struct, frozen=True, kw_only=True):
    """An IPPool's spec (projectcalico.org/v3)."""

    name: str
    cidr: str
    block_size: int = 26
    nat_outgoing: bool = False
    ipip: str = "Never"
    vxlan: str = "Never"
    node_selector: str = "all()"
    namespace_selector: str = "all()"
    disabled: bool = False
    no_bgp: bool = False
    uses: tuple[str, ...] = ("Workload", "Tunnel")

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.cidr else 4

    @classmethod
    def of(cls, manifest: Json) -> IpPool:
        """Read a manifest."""
        spec = manifest.get("spec") or {}
        cidr = str(prefix(spec["cidr"]))
        return cls(
            name=manifest["metadata"]["name"],
            cidr=cidr,
            block_size=int(spec.get("blockSize") or (122 if ":" in cidr else 26)),
            nat_outgoing=bool(spec.get("natOutgoing")),
            ipip=spec.get("ipipMode") or "Never",
            vxlan=spec.get("vxlanMode") or "Never",
            node_selector=spec.get("nodeSelector") or "all()",
            namespace_selector=spec.get("namespaceSelector") or "all()",
            disabled=bool(spec.get("disabled")),
            no_bgp=bool(spec.get("disableBGPExport")),
            uses=tuple(spec.get("allowedUses") or ("Workload", "Tunnel")),
        )


class Asked(Struct, frozen=True, kw_only=True):
    """A request for an address: who asks, and from which pools."""

    node: str
    handle: str
    attributes: Json = {}
    node_labels: Json = {}
    namespace_labels: Json = {}
    pools: tuple[str, ...] = ()
    """Names or prefixes of the only pools to take (the annotation cni.projectcalico.org/ipv4pools)."""
    use: str = "Workload"


def block_name(cidr: str) -> str:
    """Return the resource name of a block: "10-244-0-64-26"."""
    return cidr.replace(".", "-").replace(":", "-").replace("/", "-")


class Ipam:
    """The library that calico-ipam and calico-node use, on the shared documents.

    `strict` is IPAMConfig's strictAffinity; `auto` its autoAllocateBlocks.
    """

    def __init__(self, network: Network) -> None:
        self.store = Datastore(network)

    def config(self) -> Json:
        """Return the IPAMConfig, with defaults."""
        found = self.store.read("ipamconfigs", "default") or {}
        return {"strictAffinity": False, "autoAllocateBlocks": True, "maxBlocksPerHost": MAX_BLOCKS} | found

    def pools(self) -> list[IpPool]:
        """Return all pools, by name."""
        found = self.store.read(POOLS, "all") or {"items": []}
        return [IpPool.of(document) for document in found["items"]]

    def pools_for(self, asked: Asked, family: int) -> list[IpPool]:
        """Return the pools a request may take from. Raises IpamError when there is none."""
        found = [pool for pool in self.pools() if pool.family == family and not pool.disabled]
        if asked.pools:
            chosen = [p for p in found if p.name in asked.pools or p.cidr in asked.pools]
            missing = [w for w in asked.pools if all(w not in (p.name, p.cidr) for p in found)]
            if missing:
                raise IpamError(f"the given pool ({missing[0]}) does not exist, or is not enabled")
            found = chosen
        else:
            found = [p for p in found if parse(p.namespace_selector).matches(asked.namespace_labels)]
        found = [
            pool
            for pool in found
            if asked.use in pool.uses and parse(pool.node_selector).matches(asked.node_labels)
        ]
        if not found:
            raise IpamError(f"no configured Calico pools for node {asked.node}")
        return found

    # -- blocks -------------------------------------------------------------------------------------------------

    def blocks_of(self, node: str) -> list[str]:
        """Return the prefixes of the blocks that belong to a node, in the order in which it took them."""
        found = self.store.read(AFFINITIES, node)
        return list(found["blocks"]) if found else []

    def block(self, cidr: str) -> Json | None:
        """Return a block: its affinity, and who has which address."""
        return self.store.get(BLOCKS, block_name(cidr))

    def all_blocks(self) -> list[Json]:
        """Return every block."""
        return list(self.store.list(BLOCKS).values())

    def _candidates(self, pool: IpPool, node: str) -> Iterator[str]:
        """Every block of a pool, beginning at one that the node's name decides, so that nodes seldom meet."""
        whole = prefix(pool.cidr)
        count = 1 << (pool.block_size - whole.length)
        size = 1 << ((128 if whole.family == 6 else 32) - pool.block_size)
        start = int.from_bytes(hashlib.sha256(node.encode()).digest()[:8], "big") % count
        for step in range(count):
            number = whole.net + (start + step) % count * size
            yield f"{ip_text(number, whole.family)}/{pool.block_size}"

    def claim(self, cidr: str, node: str) -> Json:
        """Make a block that belongs to a node."""
        block = {"cidr": cidr, "affinity": f"host:{node}", "allocations": {}, "free": []}
        self.store.put(BLOCKS, block_name(cidr), block)
        self.store.put(AFFINITIES, node, {"blocks": [*self.blocks_of(node), cidr]})
        return block

    def _take(self, block: Json, asked: Asked) -> str | None:
        """Give the next free address of a block: never used ones first, then those that were given back longest ago."""
        whole: Prefix = prefix(block["cidr"])
        size = 1 << ((128 if whole.family == 6 else 32) - whole.length)
        used = block["allocations"]
        # Ordinals in the order of the block's "unallocated" list: what was given back goes to its end.
        number = next((n for n in range(size) if str(n) not in used and n not in block["free"]), None)
        if number is None:
            if not block["free"]:
                return None
            number = block["free"].pop(0)
        self._write(block, number, asked)
        return ip_text(whole.net + number, whole.family)

    def _write(self, block: Json, number: int, asked: Asked) -> None:
        block["allocations"][str(number)] = {"handle": asked.handle, "node": asked.node} | asked.attributes
        self.store.put(BLOCKS, block_name(block["cidr"]), block)
        handle = self.store.get(HANDLES, asked.handle) or {"blocks": []}
        if block["cidr"] not in handle["blocks"]:
            handle["blocks"].append(block["cidr"])
        self.store.put(HANDLES, asked.handle, handle)

    # -- giving and taking --------------------------------------------------------------------------------------

    def assign(self, asked: Asked, family: int = 4) -> str:
        """Give one address (`AutoAssign`). Raises IpamError with calico-ipam's words."""
        pools = self.pools_for(asked, family)
        config = self.config()
        own = self.blocks_of(asked.node)
        inside = [cidr for cidr in own if any(_within(cidr, pool.cidr) for pool in pools)]
        for cidr in inside:
            block = self.block(cidr)
            if block is not None and (address := self._take(block, asked)) is not None:
                return address
        reasons = []
        if config["autoAllocateBlocks"]:
            if len(own) >= config["maxBlocksPerHost"] > 0:
                reasons.append(
                    "Need to allocate an IPAM block but could not - limit of "
                    f"{config['maxBlocksPerHost']} blocks reached for this node"
                )
            else:
                for pool in pools:
                    for cidr in self._candidates(pool, asked.node):
                        if not self.store.has(BLOCKS, block_name(cidr)):
                            claimed = self._take(self.claim(cidr, asked.node), asked)
                            assert claimed is not None
                            return claimed
        if config["strictAffinity"]:
            reasons.append("No more free affine blocks and strict affinity enabled")
        else:
            borrowed = self._borrow(asked, pools)
            if borrowed is not None:
                return borrowed
            reasons.append(f"No IPs available in pools: [{' '.join(pool.cidr for pool in pools)}]")
        told = "; ".join([f"Assigned 0 out of 1 requested IPv{family} addresses", *reasons])
        raise IpamError(f"failed to request IPv{family} addresses: {told}")

    def _borrow(self, asked: Asked, pools: list[IpPool]) -> str | None:
        for block in self.all_blocks():
            if block["affinity"] != f"host:{asked.node}" and any(
                _within(block["cidr"], pool.cidr) for pool in pools
            ):
                address = self._take(block, asked)
                if address is not None:
                    return address
        return None

    def assign_address(self, address: str, asked: Asked) -> None:
        """Give one certain address (`AssignIP`). Raises IpamError when it is taken, or in no pool."""
        pool = next((p for p in self.pools() if not p.disabled and address in prefix(p.cidr)), None)
        if pool is None:
            raise IpamError(f"the provided IP address {address} is not in a configured pool\n")
        whole = prefix(pool.cidr)
        mask = ((1 << (128 if whole.family == 6 else 32)) - 1) ^ (
            (1 << ((128 if whole.family == 6 else 32) - pool.block_size)) - 1
        )
        number = ip_int(address)
        cidr = f"{ip_text(number & mask, whole.family)}/{pool.block_size}"
        block = self.block(cidr) or self.claim(cidr, asked.node)
        place = number - prefix(cidr).net
        if str(place) in block["allocations"]:
            raise IpamError(f"address already in use: {address}")
        if place in block["free"]:
            block["free"].remove(place)
        self._write(block, place, asked)

    def release(self, handle: str) -> list[str]:
        """Take back all addresses of a handle and return them; an unknown handle has none."""
        found = self.store.get(HANDLES, handle)
        out: list[str] = []
        for cidr in found["blocks"] if found else ():
            block = self.block(cidr)
            if block is None:
                continue
            whole = prefix(cidr)
            for number in [n for n, entry in block["allocations"].items() if entry["handle"] == handle]:
                del block["allocations"][number]
                block["free"].append(int(number))
                out.append(ip_text(whole.net + int(number), whole.family))
            if not block["allocations"] and block["affinity"] == "":
                self.store.delete(BLOCKS, block_name(cidr))
            else:
                self.store.put(BLOCKS, block_name(cidr), block)
        self.store.delete(HANDLES, handle)
        return out

    def _holding(self, address: str) -> tuple[Json, str] | None:
        """Return the block that has an address given away, and the address's number in it."""
        for block in self.all_blocks():
            whole = prefix(block["cidr"])
            if address in whole:
                number = str(ip_int(address) - whole.net)
                return (block, number) if number in block["allocations"] else None
        return None

    def allocation(self, address: str) -> Json | None:
        """Return who has an address: its handle, node and attributes; None while it is free."""
        found = self._holding(address)
        return None if found is None else dict(found[0]["allocations"][found[1]])

    def release_address(self, address: str) -> bool:
        """Take one address back, whoever has it; False when nobody does (`ReleaseIPs`)."""
        found = self._holding(address)
        if found is None:
            return False
        block, number = found
        handle = block["allocations"].pop(number)["handle"]
        block["free"].append(int(number))
        if block["allocations"] or block["affinity"]:
            self.store.put(BLOCKS, block_name(block["cidr"]), block)
        else:
            self.store.delete(BLOCKS, block_name(block["cidr"]))
        if not any(entry["handle"] == handle for entry in block["allocations"].values()):
            known = self.store.get(HANDLES, handle)
            left = [cidr for cidr in known["blocks"] if cidr != block["cidr"]] if known else []
            if left:
                self.store.put(HANDLES, handle, {"blocks": left})
            else:
                self.store.delete(HANDLES, handle)
        return True

    def release_node(self, node: str) -> None:
        """A node is gone (kube-controllers): its addresses are taken back and its blocks belong to nobody."""
        for block in self.all_blocks():
            mine = {e["handle"] for e in block["allocations"].values() if e["node"] == node}
            for handle in sorted(mine):
                self.release(handle)
        for cidr in self.blocks_of(node):
            left = self.block(cidr)
            if left is not None and not left["allocations"]:
                self.store.delete(BLOCKS, block_name(cidr))
            elif left is not None:
                self.store.put(BLOCKS, block_name(cidr), left | {"affinity": ""})
        self.store.delete(AFFINITIES, node)

    def addresses_of(self, handle: str) -> list[str]:
        """Return the addresses a handle has."""
        found = self.store.get(HANDLES, handle)
        out = []
        for cidr in found["blocks"] if found else ():
            block, whole = self.block(cidr), prefix(cidr)
            if block is not None:
                out += [
                    ip_text(whole.net + int(n), whole.family)
                    for n, entry in block["allocations"].items()
                    if entry["handle"] == handle
                ]
        return out


def _within(cidr: str, pool: str) -> bool:
    block, whole = prefix(cidr), prefix(pool)
    return (
        block.family == whole.family and block.length >= whole.length and block.net & whole.mask == whole.net
    )
