"""Things that break, one file each: `FAULTS` lists them. Each changes state and returns its undo.

A fault never edits a result: what tools and callers then see follows from the state by itself.
"""

from __future__ import annotations

from typing import Any

from kubenet_lab.errors import InputError, NotFound
from kubenet_lab.faults.api_unreachable import ApiUnreachable
from kubenet_lab.faults.asymmetric_way import AsymmetricWay
from kubenet_lab.faults.bgp_session_lost import BgpSessionLost
from kubenet_lab.faults.coredns_silent import CorednsSilent
from kubenet_lab.faults.dns_packets_lost import DnsPacketsLost
from kubenet_lab.faults.fault import Fault, Undo
from kubenet_lab.faults.fdb_entry_missing import FdbEntryMissing
from kubenet_lab.faults.ipam_exhausted import IpamExhausted
from kubenet_lab.faults.iptables_flushed import IptablesFlushed
from kubenet_lab.faults.kube_dns_rules_missing import KubeDnsRulesMissing
from kubenet_lab.faults.kube_proxy_stale import KubeProxyStale
from kubenet_lab.faults.kube_proxy_stopped import KubeProxyStopped
from kubenet_lab.faults.mtu_black_hole import MtuBlackHole
from kubenet_lab.faults.neighbour_stale import NeighbourStale
from kubenet_lab.faults.parallel_queries_race import ParallelQueriesRace
from kubenet_lab.faults.pod_not_listening import PodNotListening
from kubenet_lab.faults.upstream_dns import UpstreamDns

FAULTS: tuple[type[Fault], ...] = (
    PodNotListening,
    FdbEntryMissing,
    KubeDnsRulesMissing,
    KubeProxyStopped,
    KubeProxyStale,
    IptablesFlushed,
    CorednsSilent,
    ApiUnreachable,
    UpstreamDns,
    DnsPacketsLost,
    ParallelQueriesRace,
    BgpSessionLost,
    IpamExhausted,
    AsymmetricWay,
    MtuBlackHole,
    NeighbourStale,
)


def make(name: str, **details: Any) -> Fault:
    """Return a fault by name ("fdb-entry-missing"), with its details. Raises NotFound, InputError for other details."""
    for kind in FAULTS:
        if name == kind.NAME:
            unknown = [detail for detail in details if detail not in kind.__struct_fields__]
            if unknown:
                known = ", ".join(kind.__struct_fields__) or "none"
                raise InputError(f"{name} has no detail {', '.join(unknown)}; there are: {known}")
            return kind(**details)
    raise NotFound("fault", name, known=[kind.NAME for kind in FAULTS])


__all__ = ["FAULTS", "Fault", "Undo", "make"]
