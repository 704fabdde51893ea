"""A pod's resolv.conf, host name and hosts file, against the kubelet's own functions."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kubenet_lab.dns.resolvconf import KubeletDns, SandboxError, check_node, host_name, hosts_text, pod_dns
from tests.oracles import open_case


def settings(kubelet: dict[str, Any]) -> KubeletDns:
    return KubeletDns(
        cluster_dns=tuple(kubelet.get("clusterDNS") or ()),
        cluster_domain=kubelet["clusterDomain"],
        resolv_conf=kubelet.get("resolvConf"),
        resolv_conf_missing=bool(kubelet.get("resolvConfMissing")),
        node_ips=tuple(kubelet.get("nodeIPs") or ()),
    )


def pod_of(pod: dict[str, Any]) -> dict[str, Any]:
    names = {"namespace": pod["namespace"], "name": pod["name"], "uid": "uid-1"}
    return {"metadata": names, "spec": {key: value for key, value in pod.items() if key not in names}}


def test_resolv_conf_of_every_pod() -> None:
    recorded = open_case("kubelet-dns", "cases")
    assert len(recorded) > 400
    for case in recorded:
        kubelet = settings(case["kubelet"])
        if "error" in case:
            with pytest.raises(SandboxError, match=re.escape(case["error"])):
                pod_dns(pod_of(case["pod"]), kubelet)
            continue
        found = pod_dns(pod_of(case["pod"]), kubelet)
        ours = {
            "nameservers": list(found.nameservers),
            "searches": list(found.searches),
            "options": sorted(found.options),
        }
        wanted = {key: value for key, value in case["output"].items() if key != "optionsAnyOrder"}
        assert ours == wanted, case["name"]
        assert list(found.events) == case["events"], case["name"]
        assert found.is_nodes_own == bool(case.get("fileIsNodesOwn")), case["name"]
        if "file" in case and len(found.options) < 2:
            assert found.text() == case["file"], case["name"]


def test_a_starting_kubelet_checks_the_nodes_file() -> None:
    for case in open_case("kubelet-dns", "startup-check"):
        assert list(check_node(settings(case))) == case["events"], case["host"]


def test_host_names_and_hosts_files() -> None:
    recorded = open_case("kubelet-dns", "hostnames")
    assert len(recorded) > 40
    for case in recorded:
        pod, domain = pod_of(case["pod"]), case["clusterDomain"]
        on_host = case["pod"].get("hostNetwork")
        refused = ""
        try:
            found = host_name(pod, domain)
        except SandboxError as error:
            refused = str(error)
        else:
            assert (found.name, found.domain) == (case["hostname"], case["domain"]), case
            if not on_host:
                assert found.kernel == case["kernelHostname"], case
        assert refused == case.get("error", case.get("kernelError", "")), case
        if "hostsFile" in case:
            text = hosts_text(pod, tuple(case["podIPs"]), domain, case.get("nodeHostsFile", ""))
            assert text == case["hostsFile"], case
