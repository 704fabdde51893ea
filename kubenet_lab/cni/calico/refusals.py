"""What is wrong with Calico's own objects, before anything is computed from them.

Kinds of values are held against a schema of the fields that are read here, in the words of the API server; other fields
are passed over. Prefixes, addresses and selectors, which a schema does not know, are read as those read them who use
them. Choices and limits: https://docs.tigera.io/calico/latest/reference/resources/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kubenet_lab.cni.calico.confd import peer_address
from kubenet_lab.cni.calico.convert import Json
from kubenet_lab.cni.calico.selector import parse
from kubenet_lab.errors import Fault, InputError
from kubenet_lab.manifests.customkinds import CustomKind, check
from kubenet_lab.manifests.schema import show
from kubenet_lab.packet.ip import prefix

_TEXT: Json = {"type": "string"}
_FLAG: Json = {"type": "boolean"}
_NUMBER: Json = {"type": "integer"}
_AS_NUMBER: Json = {"type": "integer", "minimum": 0, "maximum": 4294967295}
_MODE: Json = {"type": "string", "enum": ["Never", "Always", "CrossSubnet"]}
BLOCK_SIZES = {4: (20, 32), 6: (116, 128)}
"""Shortest and longest prefix of a block."""


def _map(required: tuple[str, ...] = (), **properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "x-kubernetes-preserve-unknown-fields": True,
    }


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


_RANGES = _list(_map(("cidr",), cidr=_TEXT))
_RULES = _list(
    _map(
        ("action",),
        action={"type": "string", "enum": ["Accept", "Reject"]},
        cidr=_TEXT,
        matchOperator={"type": "string", "enum": ["Equal", "NotEqual", "In", "NotIn"]},
    )
)
_SPECS = {
    "BGPConfiguration": _map(
        asNumber=_AS_NUMBER,
        nodeToNodeMeshEnabled=_FLAG,
        serviceClusterIPs=_RANGES,
        serviceExternalIPs=_RANGES,
        serviceLoadBalancerIPs=_RANGES,
        serviceLoadBalancerAggregation={"type": "string", "enum": ["Enabled", "Disabled"]},
    ),
    "BGPPeer": _map(
        asNumber=_AS_NUMBER,
        peerIP=_TEXT,
        node=_TEXT,
        nodeSelector=_TEXT,
        peerSelector=_TEXT,
        filters=_list(_TEXT),
        keepOriginalNextHop=_FLAG,
        numAllowedLocalASNumbers=_NUMBER,
    ),
    "BGPFilter": _map(importV4=_RULES, exportV4=_RULES, importV6=_RULES, exportV6=_RULES),
    "IPPool": _map(
        ("cidr",),
        cidr=_TEXT,
        blockSize=_NUMBER,
        ipipMode=_MODE,
        vxlanMode=_MODE,
        natOutgoing=_FLAG,
        disabled=_FLAG,
        disableBGPExport=_FLAG,
        nodeSelector=_TEXT,
        namespaceSelector=_TEXT,
        allowedUses=_list(_TEXT),
    ),
    "FelixConfiguration": _map(
        defaultEndpointToHostAction=_TEXT,
        nftablesMode={"type": "string", "enum": ["Enabled", "Disabled", "Auto"]},
    ),
    "IPAMConfig": _map(strictAffinity=_FLAG, autoAllocateBlocks=_FLAG, maxBlocksPerHost=_NUMBER),
}
_KINDS = {kind: CustomKind("", False, _map(spec=spec)) for kind, spec in _SPECS.items()}


def refuse(manifest: Json) -> None:
    """Raise InputError with all that is wrong with an object of one of Calico's kinds; others are passed over.

    Who read its file can find the place by kind, name and field.
    """
    kind = _KINDS.get(manifest["kind"])
    if kind is None:
        return
    _unknown, causes = check(manifest, kind)
    found = [(show(cause.path), cause.message, cause.help) for cause in causes]
    if not found:
        found = list(_READ.get(manifest["kind"], _nothing)(manifest.get("spec") or {}))
    if found:
        name = manifest["metadata"]["name"]
        raise InputError(
            Fault(message, path=path, help=cure, kind=manifest["kind"], name=name)
            for path, message, cure in found
        )


_Found = Iterator[tuple[str, str, str]]


def _nothing(_spec: Json) -> _Found:
    return iter(())


def _cidr(path: str, text: Any, family: int = 0) -> _Found:
    try:
        block = prefix(text)
    except ValueError:
        yield path, f"invalid CIDR address: {text}", "write a prefix, such as 10.0.0.0/16 or fd00:10::/64"
        return
    if family and block.family != family:
        yield path, f"{text} is no prefix of IPv{family}", f"move the rule to the list of IPv{block.family}"


def _selectors(spec: Json, *keys: str) -> _Found:
    for key in keys:
        try:
            parse(spec.get(key) or "")
        except InputError as fault:
            yield f"spec.{key}", str(fault), "write a selector, such as has(rack) or rack == 'a'"


def _configuration(spec: Json) -> _Found:
    for key in ("serviceClusterIPs", "serviceExternalIPs", "serviceLoadBalancerIPs"):
        for number, item in enumerate(spec.get(key) or ()):
            yield from _cidr(f"spec.{key}[{number}].cidr", item["cidr"])


def _peer(spec: Json) -> _Found:
    text = spec.get("peerIP") or ""
    try:
        if text:
            peer_address(text)
    except ValueError:
        yield "spec.peerIP", f"{text!r} is no address", "write 192.0.2.1, 192.0.2.1:179 or [2001:db8::1]:179"
    yield from _selectors(spec, "nodeSelector", "peerSelector")


def _filter(spec: Json) -> _Found:
    for family in (4, 6):
        for key in (f"importV{family}", f"exportV{family}"):
            for number, rule in enumerate(spec.get(key) or ()):
                if rule.get("cidr"):
                    yield from _cidr(f"spec.{key}[{number}].cidr", rule["cidr"], family)


def _pool(spec: Json) -> _Found:
    wrong = list(_cidr("spec.cidr", spec["cidr"]))
    yield from wrong
    if not wrong and spec.get("blockSize"):
        block, size = prefix(spec["cidr"]), spec["blockSize"]
        least, most = BLOCK_SIZES[block.family]
        least = max(least, block.length)
        if not least <= size <= most:
            cure = f"write {least} to {most}" if least <= most else "take a wider pool"
            yield "spec.blockSize", f"a block of /{size} does not fit into {block.text}", cure
    if all((spec.get(key) or "Never") != "Never" for key in ("ipipMode", "vxlanMode")):
        yield "spec.vxlanMode", "IPIP and VXLAN cannot both be on", "set one of ipipMode, vxlanMode to Never"
    yield from _selectors(spec, "nodeSelector", "namespaceSelector")


_READ: dict[str, Callable[[Json], _Found]] = {
    "BGPConfiguration": _configuration,
    "BGPPeer": _peer,
    "BGPFilter": _filter,
    "IPPool": _pool,
}
