"""The table of Services: every type, policy, family and place of client, and how a call must end.

The worlds are in `services_worlds.py`. A row says: which Service, who calls, what is called, how it ends, which pods
may serve it, and which source addresses they may see (a name stands for its address). It holds in every mode of
`cluster.PROXIES`, but where `DIFFERENCES` lists what the mode really does otherwise, with its source.
"""

from __future__ import annotations

from msgspec import Struct

from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.packet import ICMP, SCTP, TCP, UDP
from kubenet_lab.twin import Flow
from tests.flows.flows import address, place
from tests.flows.services_ebpf import EBPF
from tests.flows.services_ipvs import IPVS
from tests.flows.services_worlds import HAND, OBJECTS

PROTOCOLS = {"tcp": TCP, "udp": UDP, "sctp": SCTP, "icmp": ICMP}


class Row(Struct, frozen=True):
    """One call. `target` is "address:port/protocol", "[address]:port/protocol" or "address/icmp"."""

    world: str
    service: str
    src: str
    target: str
    end: str
    servers: tuple[str, ...]
    sources: tuple[str, ...]

    @property
    def name(self) -> str:
        """What a test calls it."""
        return f"{self.service}: {self.src} to {self.target}"

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if self.target.startswith("[") else 4

    @property
    def protocol(self) -> str:
        """tcp, udp, sctp or icmp."""
        return self.target.rpartition("/")[2]


class Difference(Struct, frozen=True, kw_only=True):
    """What one mode does otherwise than the table says, and how we know.

    It is for every row whose service, caller and target are among those named; () names all. `servers` and `sources`
    are as in a row; None leaves what the row says.
    """

    mode: str
    why: str
    services: tuple[str, ...] = ()
    callers: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    end: str = ""
    servers: tuple[str, ...] | None = None
    sources: tuple[str, ...] | None = None

    def covers(self, row: Row, mode: str) -> bool:
        """True when the row is one of those this is about."""
        return (
            mode == self.mode
            and (not self.services or row.service in self.services)
            and (not self.callers or row.src in self.callers)
            and (not self.targets or row.target in self.targets)
        )


NOBODY_THERE: dict[str, tuple[str, ...]] = {"servers": (), "sources": ()}

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        mode="nftables",
        why="cluster-ips-check rejects what no port of a cluster IP takes (kube-proxy, proxy/nftables/README.md); "
        "iptables mode has no such rule, so it is routed on",
        services=("plain",),
        targets=("10.96.2.1:81/tcp", "10.96.2.1:80/udp", "[fd00:96::8:1]:81/tcp"),
        end="refused",
    ),
    Difference(
        mode="nftables",
        why="cluster-ips-check rejects pings, too; sendto(2) of the node's own ping returns the rule's EPERM",
        callers=("node-3",),
        targets=("10.96.2.1/icmp",),
        end="not permitted",
    ),
    Difference(
        mode="nftables",
        why="cluster-ips-check rejects pings, too",
        callers=("client-1",),
        targets=("10.96.2.1/icmp",),
        end="refused",
    ),
    Difference(
        mode="nftables",
        why="KEP-3866: node ports do not answer on localhost",
        callers=("node-1", "node-3"),
        targets=("127.0.0.1:30301/tcp",),
        end="refused",
        **NOBODY_THERE,
    ),
    Difference(
        mode="nftables",
        why="KEP-3866: --nodeport-addresses is `primary` by default, so cni0's address has no node ports",
        targets=("10.244.0.1:30301/tcp",),
        end="refused",
        **NOBODY_THERE,
    ),
    Difference(
        mode="nftables",
        why="service-endpoints-check is asked at OUTPUT as well; KUBE-EXTERNAL-SERVICES of iptables mode is not",
        services=("vip-nobody", "external-nobody"),
        callers=("node-1",),
        end="refused",
    ),
    *(
        Difference(
            mode=mode, why=one.why, services=(one.service,), callers=(one.caller,), targets=(one.target,),
            end=one.end, servers=one.servers, sources=one.sources,
        )
        for mode, others in (("ebpf", EBPF), ("ipvs", IPVS))
        for one in others
    ),
)  # fmt: skip


def expected(row: Row, mode: str) -> Row:
    """Return the row as it must come out in a mode."""
    for one in DIFFERENCES:
        if one.covers(row, mode):
            return Row(
                row.world, row.service, row.src, row.target, one.end or row.end,
                row.servers if one.servers is None else one.servers,
                row.sources if one.sources is None else one.sources,
            )  # fmt: skip
    return row


IPV4 = """
plain             | client-1 | 10.96.2.1:80/tcp       | connected     | web-1 web-2         | client-1
plain             | client-3 | 10.96.2.1:80/tcp       | connected     | web-1 web-2         | client-3
plain             | web-1    | 10.96.2.1:80/tcp       | connected     | web-1 web-2         | 10.244.0.1 web-1
plain             | node-1   | 10.96.2.1:80/tcp       | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
plain             | node-2   | 10.96.2.1:80/tcp       | connected     | web-1 web-2         | 10.244.1.0 10.244.1.1
plain             | node-3   | 10.96.2.1:80/tcp       | connected     | web-1 web-2         | 10.244.2.0
plain             | outside  | 10.96.2.1:80/tcp       | unreachable   |                     |
plain             | client-1 | 10.96.2.1:53/udp       | answered      | web-1 web-2         | client-1
plain             | client-3 | 10.96.2.1:53/udp       | answered      | web-1 web-2         | client-3
plain             | web-2    | 10.96.2.1:53/udp       | answered      | web-1 web-2         | 10.244.1.1 web-2
plain             | node-1   | 10.96.2.1:53/udp       | answered      | web-1 web-2         | 10.244.0.0 10.244.0.1
plain             | node-3   | 10.96.2.1:53/udp       | answered      | web-1 web-2         | 10.244.2.0
plain             | outside  | 10.96.2.1:53/udp       | unreachable   |                     |
plain             | client-1 | 10.96.2.1:9000/sctp    | connected     | web-1 web-2         | client-1
plain             | client-3 | 10.96.2.1:9000/sctp    | connected     | web-1 web-2         | client-3
plain             | web-1    | 10.96.2.1:9000/sctp    | connected     | web-1 web-2         | 10.244.0.1 web-1
plain             | node-1   | 10.96.2.1:9000/sctp    | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
plain             | node-3   | 10.96.2.1:9000/sctp    | connected     | web-1 web-2         | 10.244.2.0
plain             | client-1 | 10.96.2.1:81/tcp       | unreachable   |                     |
plain             | node-3   | 10.96.2.1:81/tcp       | unreachable   |                     |
plain             | client-1 | 10.96.2.1:80/udp       | unreachable   |                     |
plain             | client-1 | 10.96.2.1/icmp         | unreachable   |                     |
plain             | node-3   | 10.96.2.1/icmp         | unreachable   |                     |

solo              | client-1 | 10.96.2.2:80/tcp       | connected     | solo-2              | client-1
solo              | client-2 | 10.96.2.2:80/tcp       | connected     | solo-2              | client-2
solo              | client-3 | 10.96.2.2:80/tcp       | connected     | solo-2              | client-3
solo              | solo-2   | 10.96.2.2:80/tcp       | connected     | solo-2              | 10.244.1.1
solo              | node-1   | 10.96.2.2:80/tcp       | connected     | solo-2              | 10.244.0.0
solo              | node-2   | 10.96.2.2:80/tcp       | connected     | solo-2              | 10.244.1.1
solo              | node-3   | 10.96.2.2:80/tcp       | connected     | solo-2              | 10.244.2.0
solo              | client-1 | 10.96.2.2:53/udp       | answered      | solo-2              | client-1
solo              | solo-2   | 10.96.2.2:53/udp       | answered      | solo-2              | 10.244.1.1
solo              | node-2   | 10.96.2.2:53/udp       | answered      | solo-2              | 10.244.1.1

sticky            | client-1 | 10.96.2.3:80/tcp       | connected     | web-1 web-2         | client-1
sticky            | client-3 | 10.96.2.3:80/tcp       | connected     | web-1 web-2         | client-3
sticky            | web-1    | 10.96.2.3:80/tcp       | connected     | web-1 web-2         | 10.244.0.1 web-1
sticky            | node-1   | 10.96.2.3:80/tcp       | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
sticky            | node-3   | 10.96.2.3:80/tcp       | connected     | web-1 web-2         | 10.244.2.0

inside            | client-1 | 10.96.2.4:80/tcp       | connected     | web-1               | client-1
inside            | client-2 | 10.96.2.4:80/tcp       | connected     | web-2               | client-2
inside            | client-3 | 10.96.2.4:80/tcp       | timed out     |                     |
inside            | web-1    | 10.96.2.4:80/tcp       | connected     | web-1               | 10.244.0.1
inside            | node-1   | 10.96.2.4:80/tcp       | connected     | web-1               | 10.244.0.1
inside            | node-2   | 10.96.2.4:80/tcp       | connected     | web-2               | 10.244.1.1
inside            | node-3   | 10.96.2.4:80/tcp       | timed out     |                     |

inside-solo       | client-1 | 10.96.2.5:80/tcp       | timed out     |                     |
inside-solo       | client-2 | 10.96.2.5:80/tcp       | connected     | solo-2              | client-2
inside-solo       | client-3 | 10.96.2.5:80/tcp       | timed out     |                     |
inside-solo       | solo-2   | 10.96.2.5:80/tcp       | connected     | solo-2              | 10.244.1.1
inside-solo       | node-1   | 10.96.2.5:80/tcp       | timed out     |                     |
inside-solo       | node-2   | 10.96.2.5:80/tcp       | connected     | solo-2              | 10.244.1.1

nobody            | client-1 | 10.96.2.6:80/tcp       | refused       |                     |
nobody            | client-3 | 10.96.2.6:80/tcp       | refused       |                     |
nobody            | node-1   | 10.96.2.6:80/tcp       | refused       |                     |
nobody            | outside  | 10.96.2.6:80/tcp       | unreachable   |                     |
nobody            | client-1 | 10.96.2.6:53/udp       | refused       |                     |
nobody            | node-3   | 10.96.2.6:53/udp       | not permitted |                     |
nobody            | client-1 | 10.96.2.6:9000/sctp    | refused       |                     |
nobody            | node-3   | 10.96.2.6:9000/sctp    | refused       |                     |

inside-nobody     | client-1 | 10.96.2.7:80/tcp       | refused       |                     |
inside-nobody     | node-1   | 10.96.2.7:80/tcp       | refused       |                     |

port              | client-1 | 192.168.1.10:30301/tcp | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
port              | web-1    | 192.168.1.10:30301/tcp | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
port              | client-3 | 192.168.1.10:30301/tcp | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
port              | node-1   | 192.168.1.10:30301/tcp | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
port              | node-2   | 192.168.1.10:30301/tcp | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
port              | outside  | 192.168.1.10:30301/tcp | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
port              | client-1 | 192.168.1.30:30301/tcp | connected     | web-1 web-2         | 10.244.2.0
port              | client-3 | 192.168.1.30:30301/tcp | connected     | web-1 web-2         | 10.244.2.0
port              | node-3   | 192.168.1.30:30301/tcp | connected     | web-1 web-2         | 10.244.2.0
port              | node-1   | 192.168.1.30:30301/tcp | connected     | web-1 web-2         | 10.244.2.0
port              | outside  | 192.168.1.30:30301/tcp | connected     | web-1 web-2         | 10.244.2.0
port              | client-1 | 192.168.1.10:30311/udp | answered      | web-1 web-2         | 10.244.0.0 10.244.0.1
port              | client-3 | 192.168.1.10:30311/udp | answered      | web-1 web-2         | 10.244.0.0 10.244.0.1
port              | node-1   | 192.168.1.10:30311/udp | answered      | web-1 web-2         | 10.244.0.0 10.244.0.1
port              | outside  | 192.168.1.10:30311/udp | answered      | web-1 web-2         | 10.244.0.0 10.244.0.1
port              | client-3 | 192.168.1.30:30311/udp | answered      | web-1 web-2         | 10.244.2.0
port              | node-3   | 192.168.1.30:30311/udp | answered      | web-1 web-2         | 10.244.2.0
port              | outside  | 192.168.1.30:30311/udp | answered      | web-1 web-2         | 10.244.2.0
port              | client-1 | 10.96.3.1:80/tcp       | connected     | web-1 web-2         | client-1
port              | node-3   | 10.96.3.1:80/tcp       | connected     | web-1 web-2         | 10.244.2.0
port              | node-1   | 127.0.0.1:30301/tcp    | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
port              | node-3   | 127.0.0.1:30301/tcp    | connected     | web-1 web-2         | 10.244.2.0
port              | client-1 | 127.0.0.1:30301/tcp    | refused       |                     |
port              | client-1 | 10.244.0.1:30301/tcp   | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
port              | node-1   | 10.244.0.1:30301/tcp   | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1

port-local        | client-1 | 192.168.1.10:30302/tcp | connected     | web-1 web-2         | client-1
port-local        | web-1    | 192.168.1.10:30302/tcp | connected     | web-1 web-2         | 10.244.0.1 web-1
port-local        | client-3 | 192.168.1.10:30302/tcp | connected     | web-1               | 192.168.1.30
port-local        | node-1   | 192.168.1.10:30302/tcp | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
port-local        | node-3   | 192.168.1.10:30302/tcp | connected     | web-1               | 192.168.1.30
port-local        | outside  | 192.168.1.10:30302/tcp | connected     | web-1               | outside
port-local        | client-1 | 192.168.1.30:30302/tcp | timed out     |                     |
port-local        | client-3 | 192.168.1.30:30302/tcp | connected     | web-1 web-2         | client-3
port-local        | node-3   | 192.168.1.30:30302/tcp | connected     | web-1 web-2         | 10.244.2.0
port-local        | node-1   | 192.168.1.30:30302/tcp | timed out     |                     |
port-local        | outside  | 192.168.1.30:30302/tcp | timed out     |                     |
port-local        | client-3 | 10.96.3.2:80/tcp       | connected     | web-1 web-2         | client-3
port-local        | node-3   | 10.96.3.2:80/tcp       | connected     | web-1 web-2         | 10.244.2.0

port-sticky       | client-1 | 192.168.1.10:30303/tcp | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
port-sticky       | node-1   | 192.168.1.10:30303/tcp | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
port-sticky       | outside  | 192.168.1.10:30303/tcp | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
port-sticky       | client-3 | 192.168.1.30:30303/tcp | connected     | web-1 web-2         | 10.244.2.0
port-sticky       | outside  | 192.168.1.30:30303/tcp | connected     | web-1 web-2         | 10.244.2.0

port-local-sticky | client-1 | 192.168.1.10:30304/tcp | connected     | web-1 web-2         | client-1
port-local-sticky | node-1   | 192.168.1.10:30304/tcp | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
port-local-sticky | outside  | 192.168.1.10:30304/tcp | connected     | web-1               | outside
port-local-sticky | client-3 | 192.168.1.30:30304/tcp | connected     | web-1 web-2         | client-3
port-local-sticky | outside  | 192.168.1.30:30304/tcp | timed out     |                     |

port-both-local   | client-1 | 192.168.1.10:30305/tcp | connected     | web-1 web-2         | client-1
port-both-local   | node-1   | 192.168.1.10:30305/tcp | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
port-both-local   | outside  | 192.168.1.10:30305/tcp | connected     | web-1               | outside
port-both-local   | client-3 | 192.168.1.30:30305/tcp | connected     | web-1 web-2         | client-3
port-both-local   | node-3   | 192.168.1.30:30305/tcp | connected     | web-1 web-2         | 10.244.2.0
port-both-local   | outside  | 192.168.1.30:30305/tcp | timed out     |                     |
port-both-local   | client-1 | 10.96.3.5:80/tcp       | connected     | web-1               | client-1
port-both-local   | client-3 | 10.96.3.5:80/tcp       | timed out     |                     |

port-nobody       | client-1 | 192.168.1.10:30306/tcp | refused       |                     |
port-nobody       | node-1   | 192.168.1.10:30306/tcp | refused       |                     |
port-nobody       | outside  | 192.168.1.10:30306/tcp | refused       |                     |
port-nobody       | client-3 | 192.168.1.30:30306/tcp | refused       |                     |
port-nobody       | outside  | 192.168.1.30:30306/tcp | refused       |                     |

port-local-nobody | client-1 | 192.168.1.10:30307/tcp | refused       |                     |
port-local-nobody | node-1   | 192.168.1.10:30307/tcp | refused       |                     |
port-local-nobody | outside  | 192.168.1.10:30307/tcp | refused       |                     |

port-solo         | client-1 | 192.168.1.10:30308/tcp | connected     | solo-2              | 10.244.0.0
port-solo         | solo-2   | 192.168.1.10:30308/tcp | connected     | solo-2              | 10.244.0.0
port-solo         | outside  | 192.168.1.10:30308/tcp | connected     | solo-2              | 10.244.0.0
port-solo         | client-2 | 192.168.1.20:30308/tcp | connected     | solo-2              | 10.244.1.1
port-solo         | solo-2   | 192.168.1.20:30308/tcp | connected     | solo-2              | 10.244.1.1
port-solo         | node-2   | 192.168.1.20:30308/tcp | connected     | solo-2              | 10.244.1.1
port-solo         | outside  | 192.168.1.20:30308/tcp | connected     | solo-2              | 10.244.1.1

vip               | client-1 | 198.51.100.1:80/tcp    | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
vip               | client-3 | 198.51.100.1:80/tcp    | connected     | web-1 web-2         | 10.244.2.0
vip               | web-1    | 198.51.100.1:80/tcp    | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
vip               | node-1   | 198.51.100.1:80/tcp    | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
vip               | node-3   | 198.51.100.1:80/tcp    | connected     | web-1 web-2         | 10.244.2.0
vip               | outside  | 198.51.100.1:80/tcp    | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
vip               | client-1 | 198.51.100.65:80/tcp   | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
vip               | client-3 | 198.51.100.65:80/tcp   | connected     | web-1 web-2         | 10.244.2.0
vip               | outside  | 198.51.100.65:80/tcp   | connected     | web-1 web-2         | 10.244.2.0
vip               | outside  | 192.168.1.30:30401/tcp | connected     | web-1 web-2         | 10.244.2.0
vip               | client-1 | 198.51.100.1:81/tcp    | timed out     |                     |
vip               | outside  | 198.51.100.1:81/tcp    | ttl exceeded  |                     |

vip-local         | client-1 | 198.51.100.2:80/tcp    | connected     | web-1 web-2         | client-1
vip-local         | client-3 | 198.51.100.2:80/tcp    | connected     | web-1 web-2         | client-3
vip-local         | web-1    | 198.51.100.2:80/tcp    | connected     | web-1 web-2         | 10.244.0.1 web-1
vip-local         | node-1   | 198.51.100.2:80/tcp    | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
vip-local         | node-3   | 198.51.100.2:80/tcp    | connected     | web-1 web-2         | 10.244.2.0
vip-local         | outside  | 198.51.100.2:80/tcp    | connected     | web-1               | outside
vip-local         | client-1 | 198.51.100.66:80/tcp   | connected     | web-1 web-2         | client-1
vip-local         | client-3 | 198.51.100.66:80/tcp   | connected     | web-1 web-2         | client-3
vip-local         | outside  | 198.51.100.66:80/tcp   | timed out     |                     |
vip-local         | outside  | 192.168.1.10:30402/tcp | connected     | web-1               | outside
vip-local         | outside  | 192.168.1.30:30402/tcp | timed out     |                     |

vip-near          | client-1 | 198.51.100.3:80/tcp    | timed out     |                     |
vip-near          | node-1   | 198.51.100.3:80/tcp    | timed out     |                     |
vip-near          | outside  | 198.51.100.3:80/tcp    | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
vip-near          | outside  | 192.168.1.10:30403/tcp | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
vip-near          | client-1 | 10.96.4.3:80/tcp       | connected     | web-1 web-2         | client-1

vip-far           | client-1 | 198.51.100.4:80/tcp    | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
vip-far           | client-3 | 198.51.100.4:80/tcp    | connected     | web-1 web-2         | 10.244.2.0
vip-far           | node-1   | 198.51.100.4:80/tcp    | timed out     |                     |
vip-far           | outside  | 198.51.100.4:80/tcp    | timed out     |                     |
vip-far           | outside  | 192.168.1.10:30404/tcp | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1

vip-proxy         | client-1 | 198.51.100.5:80/tcp    | timed out     |                     |
vip-proxy         | node-1   | 198.51.100.5:80/tcp    | timed out     |                     |
vip-proxy         | outside  | 198.51.100.5:80/tcp    | ttl exceeded  |                     |
vip-proxy         | outside  | 192.168.1.10:30405/tcp | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1

vip-no-ports      | client-1 | 198.51.100.6:80/tcp    | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
vip-no-ports      | outside  | 198.51.100.6:80/tcp    | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1

vip-nobody        | client-1 | 198.51.100.7:80/tcp    | refused       |                     |
vip-nobody        | node-1   | 198.51.100.7:80/tcp    | timed out     |                     |
vip-nobody        | outside  | 198.51.100.7:80/tcp    | refused       |                     |

vip-local-sticky  | client-1 | 198.51.100.8:80/tcp    | connected     | web-1 web-2         | client-1
vip-local-sticky  | outside  | 198.51.100.8:80/tcp    | connected     | web-1               | outside
vip-local-sticky  | client-3 | 198.51.100.72:80/tcp   | connected     | web-1 web-2         | client-3
vip-local-sticky  | outside  | 198.51.100.72:80/tcp   | timed out     |                     |

vip-pending       | outside  | 192.168.1.10:30409/tcp | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1

external          | client-1 | 198.51.100.21:80/tcp   | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
external          | client-3 | 198.51.100.21:80/tcp   | connected     | web-1 web-2         | 10.244.2.0
external          | web-1    | 198.51.100.21:80/tcp   | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
external          | node-1   | 198.51.100.21:80/tcp   | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
external          | outside  | 198.51.100.21:80/tcp   | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
external          | client-3 | 198.51.100.85:80/tcp   | connected     | web-1 web-2         | 10.244.2.0
external          | outside  | 198.51.100.85:80/tcp   | connected     | web-1 web-2         | 10.244.2.0

external-local    | client-1 | 198.51.100.22:80/tcp   | connected     | web-1 web-2         | client-1
external-local    | node-1   | 198.51.100.22:80/tcp   | connected     | web-1 web-2         | 10.244.0.0 10.244.0.1
external-local    | outside  | 198.51.100.22:80/tcp   | connected     | web-1               | outside
external-local    | client-3 | 198.51.100.86:80/tcp   | connected     | web-1 web-2         | client-3
external-local    | node-3   | 198.51.100.86:80/tcp   | connected     | web-1 web-2         | 10.244.2.0
external-local    | outside  | 198.51.100.86:80/tcp   | timed out     |                     |

external-nobody   | client-1 | 198.51.100.23:80/tcp   | refused       |                     |
external-nobody   | node-1   | 198.51.100.23:80/tcp   | timed out     |                     |
external-nobody   | outside  | 198.51.100.23:80/tcp   | refused       |                     |

external-solo-udp | client-1 | 198.51.100.24:53/udp   | answered      | solo-2              | 10.244.0.0
external-solo-udp | solo-2   | 198.51.100.24:53/udp   | answered      | solo-2              | 10.244.1.1
external-solo-udp | outside  | 198.51.100.24:53/udp   | answered      | solo-2              | 10.244.0.0

ending            | client-1 | 10.96.6.1:80/tcp       | connected     | leaving-1 leaving-2 | client-1
ending            | client-3 | 10.96.6.1:80/tcp       | connected     | leaving-1 leaving-2 | client-3
ending            | node-3   | 10.96.6.1:80/tcp       | connected     | leaving-1 leaving-2 | 10.244.2.0
ending            | outside  | 192.168.1.30:30601/tcp | connected     | leaving-1 leaving-2 | 10.244.2.0

ending-some       | client-1 | 10.96.6.2:80/tcp       | connected     | web-2               | client-1
ending-some       | client-3 | 10.96.6.2:80/tcp       | connected     | web-2               | client-3
ending-some       | outside  | 192.168.1.10:30602/tcp | connected     | web-2               | 10.244.0.0

gone              | client-1 | 10.96.6.3:80/tcp       | refused       |                     |
gone              | node-3   | 10.96.6.3:80/tcp       | refused       |                     |
gone              | outside  | 192.168.1.10:30603/tcp | refused       |                     |

ending-local      | outside  | 192.168.1.10:30604/tcp | connected     | leaving-1           | outside
ending-local      | node-1   | 192.168.1.10:30604/tcp | connected     | web-2               | 10.244.0.0
ending-local      | outside  | 192.168.1.20:30604/tcp | connected     | web-2               | outside
ending-local      | outside  | 192.168.1.30:30604/tcp | timed out     |                     |
ending-local      | client-1 | 10.96.6.4:80/tcp       | connected     | web-2               | client-1

zones             | client-1 | 10.96.7.1:80/tcp       | connected     | web-1               | client-1
zones             | client-2 | 10.96.7.1:80/tcp       | connected     | web-2               | client-2
zones             | client-3 | 10.96.7.1:80/tcp       | connected     | web-1               | client-3
zones             | node-1   | 10.96.7.1:80/tcp       | connected     | web-1               | 10.244.0.1
zones             | node-2   | 10.96.7.1:80/tcp       | connected     | web-2               | 10.244.1.1

zones-half        | client-1 | 10.96.7.2:80/tcp       | connected     | web-1 web-2         | client-1
zones-half        | client-2 | 10.96.7.2:80/tcp       | connected     | web-1 web-2         | client-2

zone-west         | client-1 | 10.96.7.3:80/tcp       | connected     | web-1 web-2         | client-1
zone-west         | client-2 | 10.96.7.3:80/tcp       | connected     | web-1 web-2         | client-2

nodes             | client-1 | 10.96.7.4:80/tcp       | connected     | web-1               | client-1
nodes             | client-2 | 10.96.7.4:80/tcp       | connected     | web-2               | client-2
nodes             | client-3 | 10.96.7.4:80/tcp       | connected     | web-1               | client-3

headless          | client-1 | web-1:8080/tcp         | connected     | web-1               | client-1
headless          | node-3   | web-1:8080/tcp         | connected     | web-1               | 10.244.2.0
headless          | client-1 | web-2:5353/udp         | answered      | web-2               | client-1
"""
"""In the world of objects: a Service | who calls | what | end | who may serve | which sources may be seen."""

IPV6 = """
plain       | client-1 | [fd00:96::8:1]:80/tcp    | connected     | web-1 web-2 | client-1
plain       | client-3 | [fd00:96::8:1]:80/tcp    | connected     | web-1 web-2 | client-3
plain       | web-1    | [fd00:96::8:1]:80/tcp    | connected     | web-1 web-2 | fd00:244::1 web-1
plain       | node-1   | [fd00:96::8:1]:80/tcp    | connected     | web-1 web-2 | fd00:1::10 fd00:244::1
plain       | node-3   | [fd00:96::8:1]:80/tcp    | connected     | web-1 web-2 | fd00:1::30
plain       | outside  | [fd00:96::8:1]:80/tcp    | unreachable   |             |
plain       | client-1 | [fd00:96::8:1]:53/udp    | answered      | web-1 web-2 | client-1
plain       | web-2    | [fd00:96::8:1]:53/udp    | answered      | web-1 web-2 | fd00:244:0:1::1 web-2
plain       | node-3   | [fd00:96::8:1]:53/udp    | answered      | web-1 web-2 | fd00:1::30
plain       | client-1 | [fd00:96::8:1]:9000/sctp | connected     | web-1 web-2 | client-1
plain       | node-3   | [fd00:96::8:1]:9000/sctp | connected     | web-1 web-2 | fd00:1::30
plain       | client-1 | [fd00:96::8:1]:81/tcp    | unreachable   |             |

solo        | client-1 | [fd00:96::8:2]:80/tcp    | connected     | solo-2      | client-1
solo        | solo-2   | [fd00:96::8:2]:80/tcp    | connected     | solo-2      | fd00:244:0:1::1
solo        | node-2   | [fd00:96::8:2]:80/tcp    | connected     | solo-2      | fd00:244:0:1::1
solo        | client-3 | [fd00:96::8:2]:53/udp    | answered      | solo-2      | client-3

nobody      | client-1 | [fd00:96::8:3]:80/tcp    | refused       |             |
nobody      | node-1   | [fd00:96::8:3]:80/tcp    | refused       |             |
nobody      | client-1 | [fd00:96::8:3]:53/udp    | refused       |             |
nobody      | node-3   | [fd00:96::8:3]:53/udp    | not permitted |             |

inside      | client-1 | [fd00:96::8:4]:80/tcp    | connected     | web-1       | client-1
inside      | client-3 | [fd00:96::8:4]:80/tcp    | timed out     |             |
inside      | node-2   | [fd00:96::8:4]:80/tcp    | connected     | web-2       | fd00:244:0:1::1
inside      | node-3   | [fd00:96::8:4]:80/tcp    | timed out     |             |

sticky      | client-1 | [fd00:96::8:5]:80/tcp    | connected     | web-1 web-2 | client-1
sticky      | node-3   | [fd00:96::8:5]:80/tcp    | connected     | web-1 web-2 | fd00:1::30

port        | client-1 | [fd00:1::10]:30806/tcp   | connected     | web-1 web-2 | fd00:1::10 fd00:244::1
port        | node-1   | [fd00:1::10]:30806/tcp   | connected     | web-1 web-2 | fd00:1::10 fd00:244::1
port        | outside  | [fd00:1::10]:30806/tcp   | connected     | web-1 web-2 | fd00:1::10 fd00:244::1
port        | client-3 | [fd00:1::30]:30806/tcp   | connected     | web-1 web-2 | fd00:1::30
port        | node-3   | [fd00:1::30]:30806/tcp   | connected     | web-1 web-2 | fd00:1::30
port        | outside  | [fd00:1::30]:30806/tcp   | connected     | web-1 web-2 | fd00:1::30

port-local  | client-1 | [fd00:1::10]:30807/tcp   | connected     | web-1 web-2 | client-1
port-local  | client-3 | [fd00:1::10]:30807/tcp   | connected     | web-1       | fd00:1::30
port-local  | node-1   | [fd00:1::10]:30807/tcp   | connected     | web-1 web-2 | fd00:1::10 fd00:244::1
port-local  | outside  | [fd00:1::10]:30807/tcp   | connected     | web-1       | outside
port-local  | client-1 | [fd00:1::30]:30807/tcp   | timed out     |             |
port-local  | client-3 | [fd00:1::30]:30807/tcp   | connected     | web-1 web-2 | client-3
port-local  | outside  | [fd00:1::30]:30807/tcp   | timed out     |             |

vip         | client-1 | [2001:db8:5::8]:80/tcp   | connected     | web-1 web-2 | fd00:1::10 fd00:244::1
vip         | client-3 | [2001:db8:5::8]:80/tcp   | connected     | web-1 web-2 | fd00:1::30
vip         | node-1   | [2001:db8:5::8]:80/tcp   | connected     | web-1 web-2 | fd00:1::10 fd00:244::1
vip         | outside  | [2001:db8:5::8]:80/tcp   | connected     | web-1 web-2 | fd00:1::10 fd00:244::1

vip-local   | client-1 | [2001:db8:5::9]:80/tcp   | connected     | web-1 web-2 | client-1
vip-local   | node-1   | [2001:db8:5::9]:80/tcp   | connected     | web-1 web-2 | fd00:1::10 fd00:244::1
vip-local   | outside  | [2001:db8:5::9]:80/tcp   | connected     | web-1       | outside

vip-near    | client-1 | [2001:db8:5::10]:80/tcp  | timed out     |             |
vip-near    | outside  | [2001:db8:5::10]:80/tcp  | connected     | web-1 web-2 | fd00:1::10 fd00:244::1

vip-far     | client-1 | [2001:db8:5::11]:80/tcp  | connected     | web-1 web-2 | fd00:1::10 fd00:244::1
vip-far     | outside  | [2001:db8:5::11]:80/tcp  | timed out     |             |

external    | client-1 | [2001:db8:5::12]:80/tcp  | connected     | web-1 web-2 | fd00:1::10 fd00:244::1
external    | web-1    | [2001:db8:5::12]:80/tcp  | connected     | web-1 web-2 | fd00:1::10 fd00:244::1
external    | node-3   | [2001:db8:5::12]:80/tcp  | connected     | web-1 web-2 | fd00:1::30
external    | outside  | [2001:db8:5::12]:80/tcp  | connected     | web-1 web-2 | fd00:1::10 fd00:244::1

port-nobody | client-1 | [fd00:1::10]:30813/tcp   | refused       |             |
port-nobody | node-1   | [fd00:1::10]:30813/tcp   | refused       |             |
port-nobody | outside  | [fd00:1::10]:30813/tcp   | refused       |             |
"""
"""In the world made by hand."""


def _rows(world: str, text: str) -> list[Row]:
    out = []
    for line in text.splitlines():
        if line:
            service, src, target, end, servers, sources = [
                *(cell.strip() for cell in line.split("|")),
                "",
                "",
            ][:6]
            out.append(Row(world, service, src, target, end, tuple(servers.split()), tuple(sources.split())))
    return out


ROWS: tuple[Row, ...] = (*_rows(OBJECTS, IPV4), *_rows(HAND, IPV6))


def flow(row: Row, network: Network, *, count: int = 1) -> Flow:
    """Return a row as something to try."""
    where, _, name = row.target.rpartition("/")
    host, port = where, 0
    if name != "icmp":
        host, _, number = where.rpartition(":")
        port = int(number)
    return Flow(
        name=row.name, ns=_place(network, row.src), dst=_address(network, host.strip("[]")), port=port,
        proto=PROTOCOLS[name], size=56 if name == "icmp" else 0, count=count,
    )  # fmt: skip


def _place(network: Network, name: str) -> str:
    return f"default/{name}" if f"default/{name}" in network.netns else place(network, name)


def _address(network: Network, name: str, family: int = 4) -> str:
    if ":" in name or name[0].isdigit():
        return name
    if family == 4:
        return address(network, _place(network, name))
    ns = network.ns(_place(network, name))
    return next(a.local for a in ns.addrs(None, 6) if a.scope == "global")


def servers(row: Row, network: Network) -> set[str]:
    """Return the namespaces that may serve a row."""
    return {_place(network, name) for name in row.servers}


def sources(row: Row, network: Network) -> set[str]:
    """Return the addresses that a server may see."""
    return {_address(network, name, row.family) for name in row.sources}
