"""The transactions of nftables mode in the kernel of this machine: `nft list` prints the recorded text."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable

import pytest

from tests.kubenet_lab.proxy.test_nftables import proxy
from tests.oracles import cases, open_case
from tests.oracles.nft_text import listed_difference

pytestmark = pytest.mark.kernel


def load(transactions: Iterable[list[str]]) -> list[str]:
    """Return what `nft list table` prints of both tables after these transactions, in a namespace of its own."""
    if shutil.which("nft") is None or shutil.which("unshare") is None:
        pytest.skip("nft or unshare is not installed")
    if subprocess.run(["unshare", "-Urnm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no user namespaces here")
    texts = ("\n".join(lines) for lines in transactions)
    script = "set -e\n" + "".join(f"nft -f - <<'END'\n{text}END\n" for text in texts)
    script += "nft list table ip kube-proxy\nnft list table ip6 kube-proxy\n"
    ran = subprocess.run(
        ["unshare", "-Urnm", "sh"], input=script, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.split("\n")


@pytest.mark.parametrize("name", [name for name in cases("kube-proxy") if not name.startswith("random-0")])
def test_first_sync(name: str) -> None:
    case = open_case("kube-proxy", name)
    written = proxy(case).sync(case["services"], case["endpointSlices"])
    assert listed_difference(load(written.nft), case["nftables"]["saved"]["nft list ruleset"]) == ""


@pytest.mark.parametrize("name", cases("kube-proxy", prefix="change-"))
def test_there_and_back(name: str) -> None:
    case = open_case("kube-proxy", name)
    one = proxy(case)
    first = one.sync(case["services"], case["endpointSlices"]).nft
    second = one.sync(case["after"]["services"], case["after"]["endpointSlices"]).nft
    third = one.sync(case["services"], case["endpointSlices"]).nft
    recorded = case["nftables"]["after"]["saved"]["nft list ruleset"]
    assert listed_difference(load([*first, *second]), recorded) == ""
    restarted = proxy(case).sync(case["services"], case["endpointSlices"], full=True).nft
    after = load([*first, *second, *third])
    if (
        name == "change-add-service"
    ):  # The chain of the Service that went is emptied, and stays until the next sync.
        at = next(
            i
            for i, line in enumerate(after)
            if line.startswith("\tchain service-CDROZJMR-default/api/tcp/ {")
        )
        assert after[at + 1] == "\t}"
        del after[at : at + 2]
    assert listed_difference(after, load(restarted)) == ""
