"""Two DNS queries of one socket race for one conntrack entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from kubenet_lab.errors import InputError
from kubenet_lab.faults.fault import Fault, Undo

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster

KERNELS = ("drop", "merge", "insert")


class ParallelQueriesRace(Fault, frozen=True):
    """A and AAAA leave one socket at the same moment, and both start the same connection in conntrack.

    Symptom: lookups take five seconds (glibc; Alpine 2.5) now and then, under load more often; here every time the two
    go together. Go programs, which use two sockets, have none of it.
    Where it lives: conntrack of the node where the Service's address is translated.
    Which tool shows it: `conntrack -S`: `insert_failed` grows; `tcpdump`: the AAAA query is sent again after 5 s.
    Cure: a kernel since 5.7; or `options single-request-reopen` (glibc), or NodeLocal DNSCache, which is not tracked.
    """

    NAME: ClassVar[str] = "parallel-queries-race"
    TITLE: ClassVar[str] = "two DNS queries race in conntrack"

    kernel: str = "drop"
    """How the kernels resolve the clash (`Network.race`): "drop" before 5.0, "merge" to 5.6, "insert" since 5.7."""

    def inject(self, cluster: Cluster) -> Undo:
        """Let every pair race. Raises InputError for an unknown kind of kernel."""
        if self.kernel not in KERNELS:
            raise InputError(f"kernel={self.kernel!r}: write one of {', '.join(KERNELS)}")
        before = cluster.network.race
        cluster.network.race = self.kernel

        def undo() -> None:
            cluster.network.race = before

        return undo
