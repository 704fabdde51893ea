"""A twin of an IPVS cluster says what it lacks."""

from __future__ import annotations

from kubenet_lab import scenarios
from kubenet_lab.twin.plan import plan


def test_what_ipvs_needs_is_named() -> None:
    """Every node's virtual servers and the link that has their addresses; its other state can be made."""
    made = plan(scenarios.shop(proxy="ipvs").network)
    missing = {(item.ns, item.what): item.why for item in made.missing}
    for node in ("node-1", "node-2", "node-3"):
        assert "not supported" in missing.pop((node, "6 virtual servers of IPVS"))
        assert missing.pop((node, "link kube-ipvs0 of kind dummy"))
    assert missing == {}
    assert "net/ipv4/vs" not in str(made.phases)
