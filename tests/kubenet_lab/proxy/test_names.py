"""Chain names, against kube-proxy's own functions."""

from __future__ import annotations

from kubenet_lab.proxy.names import iptables_chain, is_service_chain, nftables_chain, service_port_name
from tests.oracles import open_case


def test_names_are_kube_proxys() -> None:
    recorded = open_case("kube-proxy-chain-names", "cases")
    assert len(recorded) > 50
    for case in recorded:
        label = service_port_name(case["namespace"], case["name"], case["portName"])
        assert label == case["servicePortName"]
        ours = {p: iptables_chain(p, label, case["protocol"], case["endpoint"]) for p in case["iptables"]}
        assert ours == case["iptables"]
        assert all(map(is_service_chain, ours.values()))
        place = case["namespace"], case["name"], case["portName"], case["protocol"]
        for purpose, name in case["nftables"].items():
            endpoint = case["endpoint"] if purpose in ("endpoint", "affinity") else ""
            assert nftables_chain(purpose, *place, endpoint) == name


def test_shared_chains_belong_to_no_service() -> None:
    for name in ("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-MARK-MASQ", "KUBE-PROXY-CANARY", "INPUT"):
        assert not is_service_chain(name)
