"""A ruleset of 200,000 rules, read and printed, beside the real nft: `python -m tests.benchmarks.nftables [RULES]`.

The baseline is this machine's own `nft -f` of the same text into an empty network namespace, in the same run.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kubenet_lab.errors import InputError
from kubenet_lab.kernel.dialects import nft
from kubenet_lab.packet.packet import SYN, TCP, Packet
from kubenet_lab.walk.engine import Walk
from tests.benchmarks.__main__ import row
from tests.flows.worlds import two_nodes
from tests.kubenet_lab.kernel.dialects.test_nft_bad_input import flat

RULES = 200_000


def timed(act: object) -> tuple[float, object]:
    """Return seconds and result."""
    assert callable(act)
    begin = time.perf_counter()
    result = act()
    return time.perf_counter() - begin, result


def kernel(text: str) -> float | None:
    """Seconds that `nft -f` takes in a namespace of its own; None where this machine does not let us."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rules.nft")
        file.write_text(text)
        for argv in (["unshare", "--net"], ["unshare", "--user", "--map-root-user", "--net"]):
            try:
                took, done = timed(
                    lambda argv=argv: subprocess.run(
                        [*argv, "nft", "-f", str(file)], capture_output=True, check=False
                    )
                )
            except FileNotFoundError:
                return None
            if done.returncode == 0:  # type: ignore[attr-defined]
                return took
    return None


def main(rules: int = RULES) -> None:
    """Print the table."""
    text = flat(rules)
    real = kernel(text)
    loaded, ruleset = timed(lambda: nft.load(text))
    assert isinstance(ruleset, nft.Ruleset)
    against = f"{loaded / real:.1f} x nft" if real else "nft -f is refused here"
    row(f"{rules:,} rules, {len(text) / 1e6:.0f} MB: load", f"{loaded:.1f} s", f"seconds; {against}")
    printed, same = timed(lambda: nft.list_ruleset(ruleset) == text)
    assert same
    row("the same: print", f"{printed:.1f} s", "less than the load")
    cut, _ = timed(lambda: _refused(text[: len(text) // 2]))
    row("the same, cut in the middle: refused", f"{cut:.1f} s", "less than the load")
    network = two_nodes()
    network.ns("node-1").set_nftables(ruleset)
    ask = Packet("", "10.244.1.2", TCP, 0, 8080, flags=SYN)
    first, trace = timed(lambda: Walk(network).send("default/frontend", ask))
    assert trace.verdict == "delivered"  # type: ignore[attr-defined]
    row("a packet that no rule fits: first", f"{first:.1f} s", "made ready once")
    then, trace = timed(lambda: Walk(network).send("default/frontend", ask))
    row(
        f"the same again, {trace.rules_tried:,} rules tried",
        f"{then * 1e3:.0f} ms",
        "linear, as in the kernel",
    )  # type: ignore[attr-defined]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row("memory at its peak", f"{peak:.0f} MB", "under 2,000 MB")


def _refused(text: str) -> None:
    try:
        nft.load(text)
    except InputError:
        return
    raise AssertionError("a cut text was read")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
