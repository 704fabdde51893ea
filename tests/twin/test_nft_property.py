"""Random nftables rulesets, routes and packets: the model and this kernel must make the same of them.

KUBENET_PROPERTY=2000 pytest tests/twin/test_nft_property.py      # the full run; 100 cases without it
KUBENET_PROPERTY_SEED=7 ...                                        # other cases
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter

from tests.twin.harness import NftHarness, Result
from tests.twin.nft_generator import NftGenerator
from tests.twin.test_property import REST, judge

CASES = int(os.environ.get("KUBENET_PROPERTY", "100"))
SEED = int(os.environ.get("KUBENET_PROPERTY_SEED", "1"))

WORDS = (
    "saddr", "daddr", "dport", "sport", "l4proto", "mark", "length", "fib", "iifname", "oifname", "flags", "state",
    "status", "limit", "counter", "accept", "drop", "return", "jump", "goto", "reject", "dnat", "snat", "masquerade",
    "redirect", "notrack", "vmap", "map", "jhash", "numgen", "update", "maxseg",
)  # fmt: skip


def run(numbers: range) -> tuple[list[Result], Counter[str]]:
    """Try cases; a disagreement counts when it is there a second time, `REST` seconds later."""
    generator = NftGenerator(SEED)
    wrong: list[Result] = []
    seen: Counter[str] = Counter()
    with NftHarness() as harness:
        for number in numbers:
            case = generator.case(number)
            seen.update(set(re.findall(r"[a-z0-9]+", case.rules)))
            result = harness.run(case)
            if result.not_modelled:
                seen["not modelled"] += 1
                continue
            if not result.equal:
                time.sleep(REST)
                seen["tried again"] += 1
                result = harness.run(case)
            seen["equal" if result.equal else "different"] += 1
            if not result.equal:
                wrong.append(result)
    return wrong, seen


def test_model_and_kernel_agree_on_nftables(kernel: None) -> None:
    wrong, seen = run(range(CASES))
    judge(wrong, seen, CASES)
    if CASES >= 100:
        missing = [word for word in WORDS if not seen[word]]
        assert not missing, f"no case had {missing}"


def test_a_case_is_always_the_same() -> None:
    assert NftGenerator(3).case(7) == NftGenerator(3).case(7)
    assert NftGenerator(3).case(7) != NftGenerator(4).case(7)
