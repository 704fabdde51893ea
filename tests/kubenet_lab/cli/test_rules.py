"""`kubenet-lab rules`, held to what the real kube-proxy wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kubenet_lab.cluster import Cluster
from tests.kubenet_lab.cli.run import run
from tests.oracles import cases, open_case
from tests.oracles.nft_text import difference as nft_difference
from tests.oracles.nft_text import listed_difference
from tests.oracles.rule_text import difference

NAMES = cases("kube-proxy")
SHAPES = ("list", "documents", "json")


def only_warnings(text: str) -> bool:
    """Whether there is nothing but warnings and their help: recorded sets contradict themselves on purpose."""
    return all(line.startswith(("warning: ", "    help: ")) for line in text.splitlines())


def write(case: dict[str, Any], shape: str, folder: Path) -> Path:
    """A case's objects as a file: one List, YAML documents, or JSON."""
    objects = [*case["services"], *case["endpointSlices"]]
    listing = {"apiVersion": "v1", "kind": "List", "items": objects}
    # JSON is YAML too, so a document of each shape needs no YAML writer that is not the one under test.
    if shape == "json":
        path, text = folder / "objects.json", json.dumps(listing, indent=1)
    elif shape == "list":
        path, text = folder / "objects.yaml", "# a list\n" + json.dumps(listing)
    else:
        path, text = folder / "objects.yaml", "".join(f"---\n{json.dumps(obj)}\n" for obj in objects)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("index", "name"), list(enumerate(NAMES)), ids=NAMES)
def test_prints_what_kube_proxy_wrote_and_the_kernel_saved(index: int, name: str, tmp_path: Path) -> None:
    case = open_case("kube-proxy", name)
    path = write(case, SHAPES[index % len(SHAPES)], tmp_path)
    flags = [f"--kube-proxy-flag={flag}" for flag in case["flags"]]
    where = ["-f", str(path), "--node", case["node"], *flags]
    ran = run("rules", *where, "--mode", "iptables,nftables", "-o", "json")
    assert ran.status == 0, ran.err
    assert only_warnings(ran.err)
    document = json.loads(ran.out)
    assert document.keys() == {"iptables", "nftables"}
    nftables = document["nftables"]
    assert nftables.keys() == {"written", "saved"}
    assert nft_difference(nftables["written"]["nft"], case["nftables"]["written"]["nft"]) == ""
    ours, recorded = (one["saved"]["nft list ruleset"] for one in (nftables, case["nftables"]))
    assert listed_difference(ours, recorded) == ""
    del document["nftables"]
    assert document["iptables"].keys() == {"written", "saved"}
    for how, texts in document["iptables"].items():
        assert texts.keys() == case["iptables"][how].keys()
        for tool, lines in texts.items():
            assert difference(lines, case["iptables"][how][tool]) == "", f"{how} {tool}"


@pytest.mark.parametrize(("family", "prefix"), [("ipv4", "ip"), ("ipv6", "ip6")])
@pytest.mark.parametrize(("how", "tool"), [("written", "tables-restore"), ("saved", "tables-save")])
def test_text_is_the_same_text_as_in_the_document(
    family: str, prefix: str, how: str, tool: str, tmp_path: Path
) -> None:
    path = write(open_case("kube-proxy", "clusterip-two"), "documents", tmp_path)
    where = ["-f", str(path), "--node", "node-2"]
    document = json.loads(run("rules", *where, "-o", "json").out)
    ran = run("rules", *where, "--family", family, "--as", how)
    assert ran.status == 0, ran.err
    assert only_warnings(ran.err)
    assert ran.text == "\n".join(document["iptables"][how][prefix + tool])
    assert ran.text.endswith("COMMIT\n")


def test_standard_input_and_several_files_after_one_f(tmp_path: Path) -> None:
    case = open_case("kube-proxy", "clusterip-two")
    one, two = tmp_path / "services.yaml", tmp_path / "slices.yaml"
    one.write_text("".join(f"---\n{json.dumps(obj)}\n" for obj in case["services"]))
    two.write_text("".join(f"---\n{json.dumps(obj)}\n" for obj in case["endpointSlices"]))
    both = run("rules", "-f", str(one), str(two), "--node", "node-1")
    again = run("rules", "--node=node-1", "-f", str(one), "-f", str(two))
    piped = run("rules", "-f", "-", "--node", "node-1", stdin=one.read_text() + two.read_text())
    assert both.status == 0
    assert both == again == piped
    assert difference(both.text.split("\n"), case["iptables"]["written"]["iptables-restore"]) == ""


SHOP = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""


def test_slices_and_addresses_are_made_where_the_files_bring_pods_instead(tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(SHOP)
    ran = run("rules", "-f", str(path), "--node", "node-1")
    assert ran.status == 0, ran.err
    cluster = Cluster.from_files(path)
    (address,) = cluster.store.get("Service", "web", "default").addresses
    assert f'"default/web cluster IP" -m tcp -p tcp -d {address} --dport 80' in ran.text
    pods = [pod.ips[0] for pod in cluster.store.list("Pod", "default")]
    assert len(pods) == 2
    for ip in pods:
        assert f"-j DNAT --to-destination {ip}:8080" in ran.text


def test_a_service_without_address_gets_one_and_refuses_without_endpoints(tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n")
    ran = run("rules", "-f", str(path), "--node", "node-1", "--as", "saved")
    assert ran.status == 0, ran.err
    assert '--comment "default/web has no endpoints"' in ran.text


def test_given_nodes_are_the_only_ones(tmp_path: Path) -> None:
    path = write(open_case("kube-proxy", "nodeport-cluster"), "documents", tmp_path)
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "worker"},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.2"}]},
    }
    (tmp_path / "node.json").write_text(json.dumps(node))
    files = ["-f", str(path), str(tmp_path / "node.json")]
    flag = "--kube-proxy-flag=--nodeport-addresses=primary"
    assert "-d 172.18.0.2 -j KUBE-NODEPORTS" in run("rules", *files, "--node", "worker", flag).text
    refused = run("rules", *files, "--node", "node-1")
    assert (refused.status, refused.out) == (2, b"")
    assert refused.err.endswith('error: nodes "node-1" not found; there are: worker\n')


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["--mode", "iptables,userspace"],
            ["--mode: 'userspace' is not modelled", "iptables, nftables, ipvs"],
        ),
        (["-f", "-", "--changed-from", "-"], ["--changed-from: standard input can be read once only"]),
        (["--kube-proxy-flag=--no-such-flag"], ["--no-such-flag"]),
        (
            ["--kube-proxy-flag=--iptables-sync-period=soon", "--kube-proxy-flag=--cluster-cidr=ten"],
            ["invalid value in --iptables-sync-period=soon", "not a duration", "--cluster-cidr=ten"],
        ),
        (
            ["--kube-proxy-flag=--proxy-mode=ipvs"],
            ["--proxy-mode=ipvs contradicts --mode iptables", "write --mode ipvs"],
        ),
        (["--active-connections", "2"], ["--active-connections: there is no", "--changed-from FILE"]),
        (["--family", "ipv5"], ["ipv5", "ipv4", "ipv6"]),
        (["--as", "guessed"], ["guessed", "written", "saved"]),
    ],
)
def test_bad_options_are_refused(argv: list[str], words: list[str], tmp_path: Path) -> None:
    path = write(open_case("kube-proxy", "clusterip-two"), "documents", tmp_path)
    ran = run("rules", "-f", str(path), "--node", "node-1", *argv)
    assert (ran.status, ran.out) == (2, b"")
    for word in words:
        assert word in ran.err


def test_nftables_text_is_the_same_text_as_in_the_document(tmp_path: Path) -> None:
    path = write(open_case("kube-proxy", "dual-stack"), "json", tmp_path)
    where = ["-f", str(path), "--node", "node-1", "--mode", "nftables"]
    document = json.loads(run("rules", *where, "-o", "json").out)
    assert document.keys() == {"nftables"}
    written, saved = (
        [run("rules", *where, "--as", how, "--family", family).text for family in ("ipv4", "ipv6")]
        for how in ("written", "saved")
    )
    assert written == ["\n".join(lines) for lines in document["nftables"]["written"]["nft"]]
    assert "".join(saved) == "\n".join(document["nftables"]["saved"]["nft list ruleset"])


@pytest.mark.parametrize("name", cases("kube-proxy", prefix="change-"))
def test_prints_what_the_second_sync_writes(name: str, tmp_path: Path) -> None:
    case = open_case("kube-proxy", name)
    (tmp_path / "before").mkdir()
    before = write(case, "json", tmp_path / "before")
    after = write(case["after"], "documents", tmp_path)
    where = ["-f", str(after), "--node", case["node"], "--changed-from", str(before)]
    for family, tool in (("ipv4", "iptables-restore"), ("ipv6", "ip6tables-restore")):
        text = run("rules", *where, "--family", family).text
        recorded = case["iptables"]["after"]["written"].get(tool, [""])
        assert difference(text.split("\n"), recorded) == ""
    text = run("rules", *where, "--mode", "nftables").text
    assert nft_difference([text.split("\n")], case["nftables"]["after"]["written"]["nft"]) == ""
    assert run("rules", *where, "--mode", "nftables", "--family", "ipv6").text == ""
    document = json.loads(run("rules", *where, "--mode", "iptables,nftables", "-o", "json").out)
    assert document["iptables"]["written"].keys() == case["iptables"]["after"]["written"].keys()
    saved = document["nftables"]["saved"]["nft list ruleset"]
    assert listed_difference(saved, case["nftables"]["after"]["saved"]["nft list ruleset"]) == ""
    for tool, lines in document["iptables"]["saved"].items():
        assert difference(lines, case["iptables"]["after"]["saved"][tool]) == ""
    both = run("rules", *where, "--mode", "iptables,nftables").text
    assert both == f"# iptables\n{run('rules', *where).text}# nftables\n{text}"


def test_a_second_sync_that_changes_nothing_prints_nothing(tmp_path: Path) -> None:
    path = str(write(open_case("kube-proxy", "clusterip-two"), "documents", tmp_path))
    ran = run("rules", "-f", path, "--node", "node-1", "--changed-from", path)
    assert (ran.status, ran.text) == (0, "")
