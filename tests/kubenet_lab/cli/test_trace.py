"""`kubenet-lab trace`: the contract that programs rely on, and what it says of bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kubenet_lab import scenarios
from kubenet_lab.packet.wire import read_pcap
from tests.kubenet_lab.cli.run import run

SHOP = str(Path(scenarios.__file__).with_name("shop.yaml"))


def test_json_has_the_stable_members() -> None:
    ran = run("trace", "-f", SHOP, "default/frontend", "http://backend", "-o", "json")
    assert (ran.status, ran.err) == (0, "")
    document = json.loads(ran.out)
    assert document["delivered"] is True
    assert document["verdict"] == "connected"
    assert document["reason"] == "socket"
    assert document["server"].startswith("default/backend-")
    assert document["source_seen"] == "10.244.0.2"
    assert document["decided_by"]["netns"] == document["server"]
    assert [(query["type"], query["answers"]) for query in document["queries"]] == [
        ("A", ["10.96.0.100"]),
        ("AAAA", []),
    ]
    assert {"default/frontend", "node-1", document["server"]} <= {hop["netns"] for hop in document["hops"]}


ENDS = [
    ("frontend", "10.96.0.100:81", "unreachable", None),
    ("frontend", "tcp://database:5432", "connected", "default/database"),
    ("frontend", "tcp://database:5433", "timed out", None),
    ("node/node-2", "10.96.0.200:5432", "connected", "default/database"),
    ("frontend", "http://nobody", "could not resolve", None),
    ("default/database", "10.244.0.2:9", "refused", None),
    ("203.0.113.9", "192.168.1.10", "answered", "node-1"),
    ("frontend", "192.168.1.20", "answered", "node-2"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "target", "verdict", "server"), ENDS)
def test_status_is_0_whether_delivered_or_not(
    source: str, target: str, verdict: str, server: str | None
) -> None:
    ran = run("trace", "-f", SHOP, source, target, "-o", "json")
    assert (ran.status, ran.err) == (0, "")
    document = json.loads(ran.out)
    assert document["delivered"] is (server is not None)
    if server is not None:
        assert document["verdict"] == verdict
    assert document["server"] == server
    assert document["reason"]


def test_standard_input_is_the_same_as_a_file() -> None:
    text = Path(SHOP).read_text()
    piped = run("trace", "-f", "-", "frontend", "http://backend", "-o", "json", stdin=text)
    assert piped == run("trace", "-f", SHOP, "frontend", "http://backend", "-o", "json")


def test_one_seed_gives_one_answer_and_seeds_differ() -> None:
    def server(seed: int) -> str:
        ran = run("trace", "-f", SHOP, "frontend", "10.96.0.100:80", "-o", "json", "--seed", str(seed))
        answer: str = json.loads(ran.out)["server"].rpartition("-")[2]
        return answer

    assert server(3) == server(3)
    assert len({server(seed) for seed in range(6)}) > 1


def test_nodes_are_as_many_as_asked_for_or_those_of_the_files(tmp_path: Path) -> None:
    assert json.loads(run("trace", "-f", SHOP, "node/node-5", "192.168.1.10", "--nodes=5", "-o", "json").out)[
        "delivered"
    ]
    ran = run("trace", "-f", SHOP, "node/node-5", "192.168.1.10")
    assert ran.status == 2
    assert 'nodes "node-5" not found' in ran.err
    assert "node-1, node-2, node-3" in ran.err


def test_text_is_the_trips_own() -> None:
    ran = run("trace", "-f", SHOP, "frontend", "http://backend")
    assert ran.text == scenarios.shop().connect("frontend", "http://backend").text() + "\n"


def test_pcap_holds_every_frame(tmp_path: Path) -> None:
    target = tmp_path / "trip.pcap"
    assert run("trace", "-f", SHOP, "frontend", "http://backend", "--output", str(target)) == (0, b"", "")
    frames = read_pcap(target)
    assert len(frames) == len(scenarios.shop().connect("frontend", "http://backend").captures())
    assert run("trace", "-f", SHOP, "frontend", "http://backend", "-o", "pcap").out == target.read_bytes()


def test_html_and_svg_stand_alone(tmp_path: Path) -> None:
    page = tmp_path / "trip.html"
    assert run("trace", "-f", SHOP, "frontend", "http://backend", "--output", str(page)) == (0, b"", "")
    html = page.read_text(encoding="utf-8")
    assert html.startswith("<!doctype html>")
    assert "<script" not in html
    assert "10.96.0.100" in html
    svg = run("trace", "-f", SHOP, "frontend", "http://backend", "-o", "svg").text
    assert svg.startswith("<svg")


def test_map_draws_the_nodes() -> None:
    svg = run("map", "-f", SHOP).text
    assert svg.startswith("<svg")
    for name in ("node-1", "node-2", "node-3", "frontend"):
        assert name in svg
    assert run("map", "-f", SHOP, "-o", "html").text.startswith("<!doctype html>")


def test_all_faults_of_files_and_arguments_come_at_once(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports:\n  - port: eighty\n"
        "---\napiVersion: v1\nkind: Pood\nmetadata: {name: x}\n"
    )
    missing = tmp_path / "missing.yaml"
    ran = run("trace", "-f", str(bad), str(missing), "frontend", "http://web:0")
    assert (ran.status, ran.out) == (2, b"")
    assert f"{bad}:6:" in ran.err
    assert "spec.ports[0].port" in ran.err
    assert 'no matches for kind "Pood"' in ran.err
    assert str(missing) in ran.err
    assert "port '0' is not a number from 1 to 65535" in ran.err
    assert "help: write web:80" in ran.err


BAD = [
    (["fronted", "http://backend"], ["SRC", 'pods "fronted" not found', "did you mean 'frontend'"]),
    (["shop/frontend", "http://backend"], ['pods "frontend" not found in namespace \'shop\'']),
    (["", "10.1.1.1"], ["SRC", 'pods "" not found']),
    (["default/", "10.1.1.1"], ["SRC", 'pods "" not found']),
    (["127.0.0.1", "10.96.0.1:443"], ["nobody calls from 127.0.0.1: it is a loopback address", "write a pod"]),
    (["10.96.0.100", "10.96.0.1:443"], ["it is Service default/backend, which sends nothing"]),
    (["10.96.0.77", "10.96.0.1:443"], ["in the Services' range"]),
    (["10.244.1.99", "10.96.0.1:443"], ["in the pods' range, and no pod has it"]),
    (["192.168.1.99", "10.96.0.1:443"], ["in the nodes' network, and no machine there has it"]),
    (["2001:db8::1", "10.96.0.1:443"], ["the world outside speaks IPv4 here"]),
    (["frontend", "ftp://backend"], ["unknown scheme 'ftp'", "write one of"]),
    (["frontend", "http://"], ["no host"]),
    (["frontend", "tcp://backend"], ["no port", "write tcp://backend:PORT"]),
    (["frontend", "http://backend", "--nodes", "0"], ["--nodes"]),
    (["frontend", "http://backend", "-o", "pdf"], ["pdf"]),
    (["frontend", "http://backend", "--cni", "x", "--proxy", "y", "--load-balancer", "z"],
     ["--cni: 'x' is not modelled", "--proxy: 'y' is not modelled", "write one of: iptables, nftables",
      "--load-balancer: 'z' is not modelled", "write one of: none, cloud"]),
    (["frontend", "http://backend", "--cni", "none"], ["default/frontend is not running", "not initialized"]),
    (["frontend"], ["DST"]),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "words"), BAD)
def test_bad_arguments_are_named_with_what_to_write(argv: list[str], words: list[str]) -> None:
    ran = run("trace", "-f", SHOP, *argv)
    assert (ran.status, ran.out) == (2, b"")
    for word in words:
        assert word in ran.err


def test_the_data_plane_can_be_chosen() -> None:
    ran = run("trace", "-f", SHOP, "--proxy", "nftables", "frontend", "http://backend")
    assert ran.status == 0
    assert "delivered at default/backend" in ran.out.decode()
    assert "KUBE-" not in ran.out.decode()


NOT_RUNNING = {
    "spec: {nodeName: worker-9, %s}": "bound to node worker-9, which does not exist; there are: node-1, node-2, node-3",
    "spec: {nodeSelector: {disk: ssd}, %s}": "3 node(s) didn't match Pod's node affinity/selector",
    "spec: {nodeName: node-1, %s}\nstatus: {phase: Succeeded}": "it has succeeded",
}


@pytest.mark.parametrize(("body", "why"), NOT_RUNNING.items())
def test_a_source_that_does_not_run_is_refused_with_the_reason(body: str, why: str, tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    spec = body % "containers: [{name: c, image: i}]"
    path.write_text(f"apiVersion: v1\nkind: Pod\nmetadata: {{name: idle}}\n{spec}\n")
    ran = run("trace", "-f", str(path), "idle", "10.96.0.1:443")
    assert (ran.status, ran.out) == (2, b"")
    assert "pod default/idle is not running: " in ran.err
    assert why in ran.err


def test_no_files_is_said_so() -> None:
    ran = run("trace", "frontend", "http://backend")
    assert (ran.status, ran.out) == (2, b"")
    assert "write -f FILE" in ran.err


def test_what_the_control_plane_refuses_is_placed_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    service = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec:\n  clusterIP: %s\n  ports: [{port: 80}]\n"
    )
    path.write_text(service % ("one", "10.96.0.50") + "---\n" + service % ("two", "10.96.0.50"))
    ran = run("trace", "-f", str(path), "node/node-1", "10.96.0.50:80")
    assert (ran.status, ran.out) == (2, b"")
    assert f"{path}:12:" in ran.err
    assert 'Service "two"' in ran.err
    assert "provided IP is already allocated" in ran.err


def test_lenient_warns_of_unknown_fields_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "typo.yaml"
    path.write_text(Path(SHOP).read_text().replace("  nodeName: node-1\n", "  nodeNam: node-1\n"))
    strict = run("trace", "-f", str(path), "frontend", "http://backend")
    assert strict.status == 2
    assert 'unknown field "spec.nodeNam"' in strict.err
    lenient = run("trace", "-f", str(path), "frontend", "http://backend", "--lenient", "-o", "json")
    assert lenient.status == 0
    assert json.loads(lenient.out)["delivered"]
    assert lenient.err.startswith("warning: ")
    assert 'unknown field "spec.nodeNam"' in lenient.err


def test_an_output_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    ran = run(
        "trace", "-f", SHOP, "frontend", "http://backend", "--output", str(tmp_path / "no" / "trip.txt")
    )
    assert ran.status == 2
    assert str(tmp_path / "no" / "trip.txt") in ran.err


def test_a_load_balancer_stands_before_the_nodes_on_request() -> None:
    file = str(Path(scenarios.__file__).with_name("outside.yaml"))
    call = ("trace", "-f", file, "203.0.113.77", "http://198.51.100.2", "-o", "json")
    assert json.loads(run(*call).out)["verdict"] == "unreachable"
    ran = run(*call, "--load-balancer", "cloud-proxy")
    document = json.loads(ran.out)
    assert (document["verdict"], document["source_seen"]) == ("connected", "192.168.1.2")
    assert document["server"] in ("default/web-2", "default/web-3")
    assert "cloud-lb" in {hop["netns"] for hop in document["hops"]}
    wrong = run(*call, "--load-balancer", "clod")
    assert wrong.status == 2
    assert "write one of: none, cloud, cloud-proxy, l2, bgp" in wrong.err


def test_a_pool_that_nobody_can_read_is_named_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(
        "apiVersion: metallb.io/v1beta1\nkind: IPAddressPool\nmetadata: {name: lan, namespace: metallb-system}\n"
        "spec:\n  addresses:\n  - 192.168.1.240/28\n  - 192.168.1.9-192.168.1.2\n"
    )
    ran = run("trace", "-f", SHOP, "-f", str(file), "frontend", "http://backend", "--load-balancer", "l2")
    assert (ran.status, ran.out) == (2, b"")
    what = "spec.addresses[1] '192.168.1.9-192.168.1.2' has its ends the wrong way round"
    assert f'error: {file}:7:5: IPAddressPool "lan": {what}\n    help: write 192.168.1.240/28 or' in ran.err


def test_a_caller_that_does_not_run_is_told_with_the_log_of_the_daemon_to_blame(tmp_path: Path) -> None:
    file = tmp_path / "cfg.yaml"
    file.write_text(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: kube-flannel}\n---\n"
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kube-flannel-cfg, namespace: kube-flannel}\n"
        'data: {net-conf.json: \'{"Network": "10.244.0.0/16", "Backend": {"Type": "nosuch"}}\'}\n'
    )
    ran = run("trace", "-f", SHOP, "-f", str(file), "frontend", "http://10.96.0.100")
    assert (ran.status, ran.out) == (2, b"")
    assert "Check the flannel pod log for this node." in ran.err
    said = "main.go:375] Error fetching backend: unknown backend type: nosuch"
    assert ran.err.rstrip().endswith(f"(flanneld on node-1 ended: {said})")


def test_cost_says_where_the_microseconds_go() -> None:
    ran = run("trace", "-f", SHOP, "frontend", "http://backend", "--cost")
    assert (ran.status, ran.err) == (0, "")
    text = ran.out.decode()
    plain = run("trace", "-f", SHOP, "frontend", "http://backend").out.decode()
    assert text.startswith(plain)
    assert "what it costs\nquestion 1: backend.default.svc.cluster.local. A\n" in text
    document = json.loads(run("trace", "-f", SHOP, "frontend", "http://backend", "-o", "json", "--cost").out)
    cost = document.pop("cost")
    assert document == json.loads(run("trace", "-f", SHOP, "frontend", "http://backend", "-o", "json").out)
    assert cost["us"] == pytest.approx(sum(part["us"] for part in cost["parts"]), abs=0.01)
    assert {"kind", "count", "us"} == cost["parts"][0]["steps"][0].keys()
    assert f"{cost['us']:.2f} us" in text.splitlines()[-1]


def test_cost_says_which_prices_are_estimates() -> None:
    ran = run("trace", "-f", SHOP, "frontend", "10.96.0.100:80", "--proxy", "ipvs", "-o", "json", "--cost")
    cost = json.loads(ran.out)["cost"]
    assert (cost["estimated"], cost["not_measured"]) == (["ipvs"], [])
    text = run("trace", "-f", SHOP, "frontend", "10.96.0.100:80", "--proxy", "ipvs", "--cost").out.decode()
    assert "us, an estimate" in text
    ebpf = run("trace", "-f", SHOP, "frontend", "10.96.0.100:80", "--proxy", "ebpf", "-o", "json", "--cost")
    assert {"program", "bpf"} <= {step["kind"] for step in json.loads(ebpf.out)["cost"]["parts"][0]["steps"]}


def test_a_picture_has_no_place_for_the_cost() -> None:
    ran = run("trace", "-f", SHOP, "frontend", "http://backend", "-o", "svg", "--cost")
    assert ran.status == 2
    assert "--cost" in ran.err
    assert "-o json" in ran.err
