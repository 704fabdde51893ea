"""Calico's own objects that cannot be used: each is refused by kind, name and field, before anything is computed."""

from __future__ import annotations

from typing import Any

import pytest

from kubenet_lab.cluster import Cluster
from kubenet_lab.cni.calico.refusals import refuse
from kubenet_lab.errors import InputError
from kubenet_lab.manifests import load

RANGE = {"cidr": "10.96.0.0/99"}
POOL = {"cidr": "10.244.0.0/16"}


@pytest.mark.parametrize(
    ("kind", "spec", "field"),
    [
        ("BGPConfiguration", {"asNumber": "many"}, "spec.asNumber"),
        ("BGPConfiguration", {"nodeToNodeMeshEnabled": "no"}, "spec.nodeToNodeMeshEnabled"),
        ("BGPConfiguration", {"serviceClusterIPs": [RANGE]}, "spec.serviceClusterIPs[0].cidr"),
        ("BGPConfiguration", {"serviceExternalIPs": ["10.0.0.0/8"]}, "spec.serviceExternalIPs[0]"),
        ("BGPPeer", [1, 2], "spec"),
        ("BGPPeer", {"peerIP": "300.1.1.1"}, "spec.peerIP"),
        ("BGPPeer", {"peerSelector": "has("}, "spec.peerSelector"),
        ("BGPFilter", {"exportV4": [{"cidr": "10.0.0.0/8"}]}, "spec.exportV4[0].action"),
        ("BGPFilter", {"importV4": [{"action": "Accept", "cidr": "fd00::/64"}]}, "spec.importV4[0].cidr"),
        ("IPPool", {}, "spec.cidr"),
        ("IPPool", {"cidr": "10.244.0.0"} | {"blockSize": 8}, "spec.blockSize"),
        ("IPPool", POOL | {"blockSize": 8}, "spec.blockSize"),
        ("IPPool", POOL | {"ipipMode": "Always", "vxlanMode": "Always"}, "spec.vxlanMode"),
        ("IPPool", POOL | {"nodeSelector": "rack =="}, "spec.nodeSelector"),
        ("FelixConfiguration", {"nftablesMode": "Perhaps"}, "spec.nftablesMode"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_field(kind: str, spec: Any, field: str) -> None:
    with pytest.raises(InputError) as caught:
        refuse({"kind": kind, "metadata": {"name": "x"}, "spec": spec})
    [fault] = caught.value.faults
    assert (fault.kind, fault.name, fault.path) == (kind, "x", field)
    assert fault.help or "supported values" in fault.message


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("BGPConfiguration", {"asNumber": 64512, "logSeverityScreen": "Info", "serviceClusterIPs": None}),
        ("BGPPeer", {"peerIP": "[2001:db8::1]:179", "asNumber": 4200000000, "nodeSelector": "all()"}),
        ("BGPFilter", {"exportV6": [{"action": "Reject"}]}),
        ("IPPool", {"cidr": "fd00:10:244::/56", "blockSize": 122, "vxlanMode": "Always"}),
        ("GlobalNetworkPolicy", {"anything": 1}),
    ],
)
def test_what_can_be_used_and_what_is_not_read_here_passes(kind: str, spec: Any) -> None:
    refuse({"kind": kind, "metadata": {"name": "x"}, "spec": spec})


def test_a_cluster_is_not_built_with_an_object_that_cannot_be_used() -> None:
    text = (
        "apiVersion: projectcalico.org/v3\nkind: BGPPeer\nmetadata: {name: tor}\nspec: {peerIP: 300.1.1.1}\n"
    )
    with pytest.raises(InputError, match=r"BGPPeer \"tor\": spec\.peerIP: '300\.1\.1\.1' is no address"):
        Cluster.from_objects(load(text), nodes=1, cni="calico")
