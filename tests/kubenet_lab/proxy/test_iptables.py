"""What kube-proxy writes in iptables mode, against the recorded program."""

from __future__ import annotations

from typing import Any

import pytest

from kubenet_lab.errors import InputError
from kubenet_lab.kernel.dialects import iptables as dialect
from kubenet_lab.kernel.netfilter import Jump, NetfilterError, Rule, Ruleset
from kubenet_lab.proxy.config import KubeProxyConfig, ProxyNode
from kubenet_lab.proxy.iptables import CANARY, KubeProxyIptables, cleanup, ensure_jumps, flushed, restore
from tests.oracles import cases, open_case
from tests.oracles.rule_text import difference

CLUSTER_CIDR = "--cluster-cidr=10.244.0.0/16,fd00:10:244::/56"
NODES = {
    f"node-{i}": ProxyNode(
        f"node-{i}",
        (f"192.168.1.{i}0", f"fd00:192:168:1::{i}0"),
        (f"10.244.{i - 1}.0/24", "fd00:10:244::/64" if i == 1 else f"fd00:10:244:{i - 1}::/64"),
        f"zone-{' abc'[i]}",
        ("127.0.0.1", "::1", f"192.168.1.{i}0", f"fd00:192:168:1::{i}0"),
    )
    for i in (1, 2, 3)
}


def proxy(case: dict[str, Any]) -> KubeProxyIptables:
    return KubeProxyIptables(NODES[case["node"]], KubeProxyConfig.from_flags([CLUSTER_CIDR, *case["flags"]]))


@pytest.mark.parametrize("name", cases("kube-proxy"))
def test_first_sync_is_the_recorded_text(name: str) -> None:
    case = open_case("kube-proxy", name)
    written = proxy(case).sync(case["services"], case["endpointSlices"])
    recorded = case["iptables"]["written"]
    assert difference(written.iptables_restore, recorded["iptables-restore"]) == ""
    assert difference(written.ip6tables_restore, recorded["ip6tables-restore"]) == ""


@pytest.mark.parametrize("name", cases("kube-proxy", prefix="change-"))
def test_second_sync_is_partial_as_recorded(name: str) -> None:
    case = open_case("kube-proxy", name)
    one = proxy(case)
    one.sync(case["services"], case["endpointSlices"])
    written = one.sync(case["after"]["services"], case["after"]["endpointSlices"])
    recorded = case["iptables"]["after"]["written"]
    assert difference(written.iptables_restore, recorded.get("iptables-restore")) == ""
    assert difference(written.ip6tables_restore, recorded.get("ip6tables-restore")) == ""


def test_nothing_new_writes_nothing_unless_asked() -> None:
    case = open_case("kube-proxy", "nodeport-cluster")
    one = proxy(case)
    first = one.sync(case["services"], case["endpointSlices"])
    again = one.sync(case["services"], case["endpointSlices"])
    assert (again.iptables_restore, again.ip6tables_restore) == (None, None)
    assert one.sync(case["services"], case["endpointSlices"], full=True) == first


def test_a_new_proxy_deletes_what_the_last_one_left() -> None:
    case = open_case("kube-proxy", "clusterip-one")
    left = {4: ["KUBE-SVC-AAAAAAAAAAAAAAAA", "KUBE-MARK-MASQ", "DOCKER", "KUBE-SVC-LOLE4ISW44XBNF3G"]}
    text = proxy(case).sync(case["services"], case["endpointSlices"], existing=left).iptables_restore
    assert text is not None
    assert [line for line in text if line.startswith("-X")] == ["-X KUBE-SVC-AAAAAAAAAAAAAAAA"]
    assert ":KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]" in text


def test_a_kernel_without_nfacct_gets_no_counters() -> None:
    case = open_case("kube-proxy", "nodeport-cluster")
    plain = KubeProxyIptables(NODES["node-1"], KubeProxyConfig(nfacct=False))
    text = plain.sync(case["services"], case["endpointSlices"]).iptables_restore
    assert text is not None
    assert not [line for line in text if "nfacct" in line or "-d 127.0.0.0/8 --dport" in line]
    assert "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP" in text


def test_without_a_cluster_cidr_nobody_can_tell_who_is_outside() -> None:
    case = open_case("kube-proxy", "clusterip-one")
    text = KubeProxyIptables(NODES["node-1"]).sync(case["services"], case["endpointSlices"]).iptables_restore
    assert text is not None
    masquerade = [line for line in text if line.endswith("-j KUBE-MARK-MASQ")]
    assert all(line.startswith("-A KUBE-SEP-") for line in masquerade)


def test_loopback_among_nodeport_addresses_keeps_localhost_node_ports() -> None:
    case = open_case("kube-proxy", "nodeport-cluster")
    config = KubeProxyConfig.from_flags(["--nodeport-addresses=127.0.0.0/8,192.168.1.0/24"])
    text = KubeProxyIptables(NODES["node-1"], config).sync(case["services"], case["endpointSlices"])
    assert text.iptables_restore is not None
    jumps = [line.split(" -d ")[1] for line in text.iptables_restore if "must be the last rule" in line]
    assert jumps == ["127.0.0.1 -j KUBE-NODEPORTS", "192.168.1.10 -j KUBE-NODEPORTS"]
    assert ":KUBE-FIREWALL - [0:0]" in text.iptables_restore


def test_jumps_are_ensured_once_and_first() -> None:
    docker = Rule(target=Jump("DOCKER-USER"))
    before = Ruleset(4).ensure_chain("filter", "DOCKER-USER").append("filter", "FORWARD", docker)
    assert flushed(before)
    once = ensure_jumps(before)
    assert not flushed(once)
    assert ensure_jumps(once) is once
    targets = [rule.target.name for rule in once.rules("filter", "FORWARD") if rule.target]
    assert targets == [
        "KUBE-PROXY-FIREWALL",
        "KUBE-FORWARD",
        "KUBE-SERVICES",
        "KUBE-EXTERNAL-SERVICES",
        "DOCKER-USER",
    ]
    assert all(CANARY in once.tables[table].chains for table in ("mangle", "nat", "filter"))


def test_cleanup_leaves_what_others_made() -> None:
    before = ensure_jumps(Ruleset(4).ensure_chain("nat", "DOCKER")).ensure_chain(
        "nat", "KUBE-SVC-AAAAAAAAAAAAAAAA"
    )
    after = cleanup(before)
    own = {t: [c.name for c in after.tables[t].in_order() if not c.policy] for t in after.tables}
    assert own == {"nat": ["DOCKER"], "filter": ["KUBE-FIREWALL"], "mangle": []}
    left = [rule.target.name for _, _, _, rule in after if rule.target]
    assert left == ["KUBE-FIREWALL", "KUBE-FIREWALL"]


def test_every_wrong_flag_is_named_at_once() -> None:
    flags = [
        "--masquerade-al",
        "--iptables-masquerade-bit=32",
        "--cluster-cidr=10.244.0.0",
        "--detect-local-mode=Guess",
        "--nodeport-addresses",
        "--masquerade-all=perhaps",
        "--v=4",
    ]
    with pytest.raises(InputError) as caught:
        KubeProxyConfig.from_flags(flags)
    assert [fault.path for fault in caught.value.faults] == flags[:-1]
    assert "did you mean --masquerade-all?" in str(caught.value)


def test_a_detect_mode_needs_its_interface() -> None:
    with pytest.raises(InputError, match="--pod-bridge-interface=NAME"):
        KubeProxyConfig.from_flags(["--detect-local-mode=BridgeInterface"])


class TestDifference:
    """The comparison itself must be able to fail."""

    TEXT = open_case("kube-proxy", "nodeport-cluster")["iptables"]["written"]["iptables-restore"]

    def test_the_same_text(self) -> None:
        assert difference(list(self.TEXT), self.TEXT) == ""

    def test_any_line_left_out_or_changed(self) -> None:
        for number, line in enumerate(self.TEXT):
            if line not in ("COMMIT", ""):
                assert difference(self.TEXT[:number] + self.TEXT[number + 1 :], self.TEXT), line
                assert difference([*self.TEXT[:number], line + "x", *self.TEXT[number + 1 :]], self.TEXT), (
                    line
                )

    def test_services_may_swap_in_a_shared_chain(self) -> None:
        a, b = (i for i, line in enumerate(self.TEXT) if "cluster IP" in line and "-A KUBE-SERVICES" in line)
        swapped = list(self.TEXT)
        swapped[a], swapped[b] = swapped[b], swapped[a]
        assert swapped != self.TEXT
        assert difference(swapped, self.TEXT) == ""

    def test_the_last_rule_stays_last(self) -> None:
        last = next(line for line in self.TEXT if "must be the last rule" in line)
        first = next(i for i, line in enumerate(self.TEXT) if line.startswith("-A KUBE-SERVICES"))
        moved = [line for line in self.TEXT if line != last]
        moved.insert(first, last)
        assert difference(moved, self.TEXT)

    def test_rules_of_one_service_keep_their_order(self) -> None:
        a, b = (i for i, line in enumerate(self.TEXT) if line.startswith("-A KUBE-EXT-"))
        swapped = list(self.TEXT)
        swapped[a], swapped[b] = swapped[b], swapped[a]
        assert "other order" in difference(swapped, self.TEXT)


def _save(rulesets: dict[int, Ruleset]) -> dict[str, list[str]]:
    return {
        f"ip{'6' if f == 6 else ''}tables-save": dialect.save(ruleset).split("\n")
        for f, ruleset in rulesets.items()
    }


@pytest.mark.parametrize("name", cases("kube-proxy", prefix="change-"))
def test_the_kernel_after_a_second_sync(name: str) -> None:
    case = open_case("kube-proxy", name)
    one = proxy(case)
    rulesets = one.reconcile({4: Ruleset(4), 6: Ruleset(6)}, case["services"], case["endpointSlices"])
    after = case["after"]
    rulesets = one.reconcile(rulesets, after["services"], after["endpointSlices"])
    ours = _save(rulesets)
    for tool, recorded in case["iptables"]["after"]["saved"].items():
        assert difference(ours[tool], recorded) == ""
    again = one.reconcile(rulesets, after["services"], after["endpointSlices"])
    assert again[4] is rulesets[4]
    restarted = _save(proxy(case).reconcile(rulesets, after["services"], after["endpointSlices"]))
    assert [difference(restarted[tool], ours[tool]) for tool in ours] == ["", ""]


@pytest.mark.parametrize("name", cases("kube-proxy", prefix="change-") + cases("kube-proxy", prefix="dual-"))
def test_our_restore_is_the_dialects(name: str) -> None:
    case = open_case("kube-proxy", name)
    rulesets = {f: ensure_jumps(Ruleset(f)) for f in (4, 6)}
    texts = [case["iptables"]["written"], case["iptables"].get("after", {}).get("written", {})]
    for text in texts:
        for f, tool in ((4, "iptables-restore"), (6, "ip6tables-restore")):
            if tool in text:
                theirs = dialect.restore(rulesets[f], "\n".join(text[tool]), noflush=True)
                rulesets[f] = restore(rulesets[f], text[tool])
                assert rulesets[f] == theirs


def test_a_refused_text_changes_nothing() -> None:
    before = ensure_jumps(Ruleset(4))
    with pytest.raises(NetfilterError, match="KUBE-SVC-MISSING"):
        restore(before, ["*nat", "-A KUBE-SERVICES -j KUBE-SVC-MISSING", "COMMIT", ""])
    assert before == ensure_jumps(Ruleset(4))


def test_a_flush_is_noticed_and_mended() -> None:
    case = open_case("kube-proxy", "lb-local-here")
    one = proxy(case)
    empty = {4: Ruleset(4), 6: Ruleset(6)}
    before = one.reconcile(empty, case["services"], case["endpointSlices"])
    assert one.reconcile(empty, case["services"], case["endpointSlices"]) == before


def test_a_restart_deletes_chains_of_services_that_went_meanwhile() -> None:
    case = open_case("kube-proxy", "change-service-deleted")
    before = proxy(case).reconcile({4: Ruleset(4), 6: Ruleset(6)}, case["services"], case["endpointSlices"])
    after = case["after"]
    ours = _save(proxy(case).reconcile(before, after["services"], after["endpointSlices"]))
    assert difference(ours["iptables-save"], case["iptables"]["after"]["saved"]["iptables-save"]) == ""
