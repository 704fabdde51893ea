"""What Cilium's kube-proxy replacement does otherwise than the table says, with its source.

Beside Flannel, or plain routes in the world made by hand. Columns are those of the table in `services.py`.
"""

from __future__ import annotations

from typing import NamedTuple

SOCKET = (
    "the socket is given a backend: no packet to the Service, so no masquerading, neither for node ports "
    "nor for a pod that meets itself (https://docs.cilium.io/en/stable/network/kubernetes/"
    "kubeproxy-free/, socket load balancer)"
)
SOCKET_ROWS = """
plain            | web-1    | 10.96.2.1:80/tcp            | connected   | web-1 web-2         | web-1
plain            | web-2    | 10.96.2.1:53/udp            | answered    | web-1 web-2         | web-2
solo             | solo-2   | 10.96.2.2:80/tcp            | connected   | solo-2              | solo-2
solo             | solo-2   | 10.96.2.2:53/udp            | answered    | solo-2              | solo-2
sticky           | web-1    | 10.96.2.3:80/tcp            | connected   | web-1 web-2         | web-1
inside           | web-1    | 10.96.2.4:80/tcp            | connected   | web-1               | web-1
inside-solo      | solo-2   | 10.96.2.5:80/tcp            | connected   | solo-2              | solo-2
port             | client-1 | 192.168.1.10:30301/tcp      | connected   | web-1 web-2         | client-1
port             | web-1    | 192.168.1.10:30301/tcp      | connected   | web-1 web-2         | web-1
port             | client-3 | 192.168.1.10:30301/tcp      | connected   | web-1 web-2         | client-3
port             | node-2   | 192.168.1.10:30301/tcp      | connected   | web-1 web-2         | 10.244.1.0 10.244.1.1
port             | client-1 | 192.168.1.30:30301/tcp      | connected   | web-1 web-2         | client-1
port             | client-3 | 192.168.1.30:30301/tcp      | connected   | web-1 web-2         | client-3
port             | node-1   | 192.168.1.30:30301/tcp      | connected   | web-1 web-2         | 10.244.0.0 10.244.0.1
port             | client-1 | 192.168.1.10:30311/udp      | answered    | web-1 web-2         | client-1
port             | client-3 | 192.168.1.10:30311/udp      | answered    | web-1 web-2         | client-3
port             | client-3 | 192.168.1.30:30311/udp      | answered    | web-1 web-2         | client-3
port             | client-1 | 10.244.0.1:30301/tcp        | connected   | web-1 web-2         | client-1
port-local       | web-1    | 192.168.1.10:30302/tcp      | connected   | web-1 web-2         | web-1
port-sticky      | client-1 | 192.168.1.10:30303/tcp      | connected   | web-1 web-2         | client-1
port-sticky      | client-3 | 192.168.1.30:30303/tcp      | connected   | web-1 web-2         | client-3
port-solo        | client-1 | 192.168.1.10:30308/tcp      | connected   | solo-2              | client-1
port-solo        | solo-2   | 192.168.1.10:30308/tcp      | connected   | solo-2              | solo-2
port-solo        | client-2 | 192.168.1.20:30308/tcp      | connected   | solo-2              | client-2
port-solo        | solo-2   | 192.168.1.20:30308/tcp      | connected   | solo-2              | solo-2
vip              | client-1 | 198.51.100.1:80/tcp         | connected   | web-1 web-2         | client-1
vip              | client-3 | 198.51.100.1:80/tcp         | connected   | web-1 web-2         | client-3
vip              | web-1    | 198.51.100.1:80/tcp         | connected   | web-1 web-2         | web-1
vip              | client-1 | 198.51.100.65:80/tcp        | connected   | web-1 web-2         | client-1
vip              | client-3 | 198.51.100.65:80/tcp        | connected   | web-1 web-2         | client-3
vip-local        | web-1    | 198.51.100.2:80/tcp         | connected   | web-1 web-2         | web-1
vip-far          | client-1 | 198.51.100.4:80/tcp         | connected   | web-1 web-2         | client-1
vip-far          | client-3 | 198.51.100.4:80/tcp         | connected   | web-1 web-2         | client-3
vip-no-ports     | client-1 | 198.51.100.6:80/tcp         | connected   | web-1 web-2         | client-1
plain            | web-1    | [fd00:96::8:1]:80/tcp       | connected   | web-1 web-2         | web-1
plain            | web-2    | [fd00:96::8:1]:53/udp       | answered    | web-1 web-2         | web-2
solo             | solo-2   | [fd00:96::8:2]:80/tcp       | connected   | solo-2              | solo-2
port             | client-1 | [fd00:1::10]:30806/tcp      | connected   | web-1 web-2         | client-1
port             | client-3 | [fd00:1::30]:30806/tcp      | connected   | web-1 web-2         | client-3
vip              | client-1 | [2001:db8:5::8]:80/tcp      | connected   | web-1 web-2         | client-1
vip              | client-3 | [2001:db8:5::8]:80/tcp      | connected   | web-1 web-2         | client-3
vip-far          | client-1 | [2001:db8:5::11]:80/tcp     | connected   | web-1 web-2         | client-1
"""

NO_BACKEND = "without a backend cil_sock4_connect sets EHOSTUNREACH (bpf/bpf_sock.c)"
NO_BACKEND_ROWS = """
inside           | client-3 | 10.96.2.4:80/tcp            | unreachable |                     |
inside           | node-3   | 10.96.2.4:80/tcp            | unreachable |                     |
inside-solo      | client-1 | 10.96.2.5:80/tcp            | unreachable |                     |
inside-solo      | client-3 | 10.96.2.5:80/tcp            | unreachable |                     |
inside-solo      | node-1   | 10.96.2.5:80/tcp            | unreachable |                     |
nobody           | client-1 | 10.96.2.6:80/tcp            | unreachable |                     |
nobody           | client-3 | 10.96.2.6:80/tcp            | unreachable |                     |
nobody           | node-1   | 10.96.2.6:80/tcp            | unreachable |                     |
nobody           | client-1 | 10.96.2.6:53/udp            | unreachable |                     |
nobody           | node-3   | 10.96.2.6:53/udp            | unreachable |                     |
inside-nobody    | client-1 | 10.96.2.7:80/tcp            | unreachable |                     |
inside-nobody    | node-1   | 10.96.2.7:80/tcp            | unreachable |                     |
port-both-local  | client-3 | 192.168.1.30:30305/tcp      | unreachable |                     |
port-both-local  | node-3   | 192.168.1.30:30305/tcp      | unreachable |                     |
port-both-local  | client-3 | 10.96.3.5:80/tcp            | unreachable |                     |
port-nobody      | client-1 | 192.168.1.10:30306/tcp      | unreachable |                     |
port-nobody      | node-1   | 192.168.1.10:30306/tcp      | unreachable |                     |
port-nobody      | client-3 | 192.168.1.30:30306/tcp      | unreachable |                     |
port-local-nobody | client-1 | 192.168.1.10:30307/tcp      | unreachable |                     |
port-local-nobody | node-1   | 192.168.1.10:30307/tcp      | unreachable |                     |
vip-nobody       | client-1 | 198.51.100.7:80/tcp         | unreachable |                     |
vip-nobody       | node-1   | 198.51.100.7:80/tcp         | unreachable |                     |
external-nobody  | client-1 | 198.51.100.23:80/tcp        | unreachable |                     |
external-nobody  | node-1   | 198.51.100.23:80/tcp        | unreachable |                     |
gone             | client-1 | 10.96.6.3:80/tcp            | unreachable |                     |
gone             | node-3   | 10.96.6.3:80/tcp            | unreachable |                     |
nobody           | client-1 | [fd00:96::8:3]:80/tcp       | unreachable |                     |
nobody           | node-1   | [fd00:96::8:3]:80/tcp       | unreachable |                     |
nobody           | client-1 | [fd00:96::8:3]:53/udp       | unreachable |                     |
nobody           | node-3   | [fd00:96::8:3]:53/udp       | unreachable |                     |
inside           | client-3 | [fd00:96::8:4]:80/tcp       | unreachable |                     |
inside           | node-3   | [fd00:96::8:4]:80/tcp       | unreachable |                     |
port-nobody      | client-1 | [fd00:1::10]:30813/tcp      | unreachable |                     |
port-nobody      | node-1   | [fd00:1::10]:30813/tcp      | unreachable |                     |
"""

CLIENT = (
    "a backend on the node that was called sees the client, one elsewhere that node (bpf/lib/nodeport.h, "
    "nodeport_lb4; docs: client source IP preservation)"
)
CLIENT_ROWS = """
port             | outside  | 192.168.1.10:30301/tcp      | connected   | web-1 web-2         | 192.168.1.10 outside
port             | outside  | 192.168.1.30:30301/tcp      | connected   | web-1 web-2         | 192.168.1.30
port             | outside  | 192.168.1.10:30311/udp      | answered    | web-1 web-2         | 192.168.1.10 outside
port             | outside  | 192.168.1.30:30311/udp      | answered    | web-1 web-2         | 192.168.1.30
port-sticky      | outside  | 192.168.1.10:30303/tcp      | connected   | web-1 web-2         | 192.168.1.10 outside
port-sticky      | outside  | 192.168.1.30:30303/tcp      | connected   | web-1 web-2         | 192.168.1.30
port-solo        | outside  | 192.168.1.10:30308/tcp      | connected   | solo-2              | 192.168.1.10
port-solo        | outside  | 192.168.1.20:30308/tcp      | connected   | solo-2              | outside
vip              | outside  | 198.51.100.1:80/tcp         | connected   | web-1 web-2         | 192.168.1.10 outside
vip              | outside  | 198.51.100.65:80/tcp        | connected   | web-1 web-2         | 192.168.1.30
vip              | outside  | 192.168.1.30:30401/tcp      | connected   | web-1 web-2         | 192.168.1.30
vip-near         | outside  | 198.51.100.3:80/tcp         | connected   | web-1 web-2         | 192.168.1.10 outside
vip-near         | outside  | 192.168.1.10:30403/tcp      | connected   | web-1 web-2         | 192.168.1.10 outside
vip-far          | outside  | 192.168.1.10:30404/tcp      | connected   | web-1 web-2         | 192.168.1.10 outside
vip-proxy        | outside  | 192.168.1.10:30405/tcp      | connected   | web-1 web-2         | 192.168.1.10 outside
vip-no-ports     | outside  | 198.51.100.6:80/tcp         | connected   | web-1 web-2         | 192.168.1.10 outside
vip-pending      | outside  | 192.168.1.10:30409/tcp      | connected   | web-1 web-2         | 192.168.1.10 outside
external         | outside  | 198.51.100.21:80/tcp        | connected   | web-1 web-2         | 192.168.1.10 outside
external         | outside  | 198.51.100.85:80/tcp        | connected   | web-1 web-2         | 192.168.1.30
external-solo-udp | outside  | 198.51.100.24:53/udp        | answered    | solo-2              | 192.168.1.10
ending           | outside  | 192.168.1.30:30601/tcp      | connected   | leaving-1 leaving-2 | 192.168.1.30
ending-some      | outside  | 192.168.1.10:30602/tcp      | connected   | web-2               | 192.168.1.10
port             | outside  | [fd00:1::10]:30806/tcp      | connected   | web-1 web-2         | fd00:1::10 outside
vip              | outside  | [2001:db8:5::8]:80/tcp      | connected   | web-1 web-2         | fd00:1::10 outside
vip-near         | outside  | [2001:db8:5::10]:80/tcp     | connected   | web-1 web-2         | fd00:1::10 outside
external         | outside  | [2001:db8:5::12]:80/tcp     | connected   | web-1 web-2         | fd00:1::10 outside
"""

REJECT = (
    "no backend here for callers outside: ICMP port unreachable where kube-proxy drops (--service-no- "
    "backend-response=reject)"
)
REJECT_ROWS = """
port-local       | outside  | 192.168.1.30:30302/tcp      | refused     |                     |
port-local-sticky | outside  | 192.168.1.30:30304/tcp      | refused     |                     |
port-both-local  | outside  | 192.168.1.30:30305/tcp      | refused     |                     |
vip-local        | outside  | 198.51.100.66:80/tcp        | refused     |                     |
vip-local        | outside  | 192.168.1.30:30402/tcp      | refused     |                     |
vip-local-sticky | outside  | 198.51.100.72:80/tcp        | refused     |                     |
external-local   | outside  | 198.51.100.86:80/tcp        | refused     |                     |
ending-local     | outside  | 192.168.1.30:30604/tcp      | refused     |                     |
port-local       | outside  | [fd00:1::30]:30807/tcp      | refused     |                     |
"""

SCOPES = (
    "externalTrafficPolicy is for callers outside alone, at whatever node: pods and nodes use the "
    "internal scope (SVC_FLAG_TWO_SCOPES, bpf/lib/lb.h)"
)
SCOPES_ROWS = """
port-local       | client-3 | 192.168.1.10:30302/tcp      | connected   | web-1 web-2         | client-3
port-local       | node-3   | 192.168.1.10:30302/tcp      | connected   | web-1 web-2         | 10.244.2.0
port-local       | client-1 | 192.168.1.30:30302/tcp      | connected   | web-1 web-2         | client-1
port-local       | node-1   | 192.168.1.30:30302/tcp      | connected   | web-1 web-2         | 10.244.0.0 10.244.0.1
port-local       | client-3 | [fd00:1::10]:30807/tcp      | connected   | web-1 web-2         | client-3
port-local       | client-1 | [fd00:1::30]:30807/tcp      | connected   | web-1 web-2         | client-1
"""

BOTH = (
    "internalTrafficPolicy: Local counts for node ports, too: both policies Local is one scope with local "
    "backends (pkg/loadbalancer, NewSvcFlag)"
)
BOTH_ROWS = """
port-both-local  | client-1 | 192.168.1.10:30305/tcp      | connected   | web-1               | client-1
port-both-local  | node-1   | 192.168.1.10:30305/tcp      | connected   | web-1               | 10.244.0.1
"""

RANGES = (
    "source ranges are asked of packets from outside, not of sockets (lb4_src_range_ok is in nodeport.h "
    "alone)"
)
RANGES_ROWS = """
vip-near         | client-1 | 198.51.100.3:80/tcp         | connected   | web-1 web-2         | client-1
vip-near         | node-1   | 198.51.100.3:80/tcp         | connected   | web-1 web-2         | 10.244.0.0 10.244.0.1
vip-far          | node-1   | 198.51.100.4:80/tcp         | connected   | web-1 web-2         | 10.244.0.0 10.244.0.1
vip-near         | client-1 | [2001:db8:5::10]:80/tcp     | connected   | web-1 web-2         | client-1
"""

EXTERNAL = (
    "external IPs are left alone at sockets (sock4_skip_xlate, CVE-2020-8554); the packet goes to the "
    "router, which brings it to a node, where it comes in as from outside; a node that meets its own "
    "address as source drops it or its answer"
)
EXTERNAL_ROWS = """
external       | client-1 | 198.51.100.21:80/tcp      | timed out   | web-2             | 192.168.1.10
external       | client-3 | 198.51.100.21:80/tcp      | connected   | web-1 web-2       | 192.168.1.10 192.168.1.30
external       | web-1    | 198.51.100.21:80/tcp      | timed out   | web-2             | 192.168.1.10
external       | node-1   | 198.51.100.21:80/tcp      | timed out   | web-2             | 192.168.1.10
external       | client-3 | 198.51.100.85:80/tcp      | timed out   | web-1 web-2       | 192.168.1.30
external-local   | client-1 | 198.51.100.22:80/tcp      | timed out   |                   |
external-local   | node-1   | 198.51.100.22:80/tcp      | timed out   |                   |
external-local   | client-3 | 198.51.100.86:80/tcp      | refused   |                   |
external-local   | node-3   | 198.51.100.86:80/tcp      | refused   |                   |
external-solo-udp | client-1 | 198.51.100.24:53/udp      | timed out   | solo-2            | 192.168.1.10
external-solo-udp | solo-2   | 198.51.100.24:53/udp      | answered    | solo-2            | 192.168.1.10
external       | client-1 | [2001:db8:5::12]:80/tcp   | timed out   | web-1 web-2       | fd00:1::10
external       | web-1    | [2001:db8:5::12]:80/tcp   | timed out   | web-1 web-2       | fd00:1::10
external       | node-3   | [2001:db8:5::12]:80/tcp   | connected   | web-1 web-2       | fd00:1::10 fd00:1::30
"""

HINTS = "hints are not looked at (--enable-service-topology=false)"
HINTS_ROWS = """
zones            | client-1 | 10.96.7.1:80/tcp            | connected   | web-1 web-2         | client-1
zones            | client-2 | 10.96.7.1:80/tcp            | connected   | web-1 web-2         | client-2
zones            | client-3 | 10.96.7.1:80/tcp            | connected   | web-1 web-2         | client-3
zones            | node-1   | 10.96.7.1:80/tcp            | connected   | web-1 web-2         | 10.244.0.0 10.244.0.1
zones            | node-2   | 10.96.7.1:80/tcp            | connected   | web-1 web-2         | 10.244.1.0 10.244.1.1
nodes            | client-1 | 10.96.7.4:80/tcp            | connected   | web-1 web-2         | client-1
nodes            | client-2 | 10.96.7.4:80/tcp            | connected   | web-1 web-2         | client-2
nodes            | client-3 | 10.96.7.4:80/tcp            | connected   | web-1 web-2         | client-3
"""

NO_SCTP = "SCTP is a beta feature that is off (--enable-sctp=false): the packet is routed on, to nobody"
NO_SCTP_ROWS = """
plain            | client-1 | 10.96.2.1:9000/sctp         | unreachable |                     |
plain            | client-3 | 10.96.2.1:9000/sctp         | unreachable |                     |
plain            | web-1    | 10.96.2.1:9000/sctp         | unreachable |                     |
plain            | node-1   | 10.96.2.1:9000/sctp         | unreachable |                     |
plain            | node-3   | 10.96.2.1:9000/sctp         | unreachable |                     |
nobody           | client-1 | 10.96.2.6:9000/sctp         | unreachable |                     |
nobody           | node-3   | 10.96.2.6:9000/sctp         | unreachable |                     |
plain            | client-1 | [fd00:96::8:1]:9000/sctp    | unreachable |                     |
plain            | node-3   | [fd00:96::8:1]:9000/sctp    | unreachable |                     |
"""


class Otherwise(NamedTuple):
    """One row as it comes out here, and why."""

    why: str
    service: str
    caller: str
    target: str
    end: str
    servers: tuple[str, ...]
    sources: tuple[str, ...]


def read(why: str, text: str) -> list[Otherwise]:
    """Return the rows of a table that have one reason."""
    out = []
    for line in text.strip().splitlines():
        service, caller, target, end, *pods = (cell.strip() for cell in line.split("|"))
        servers, sources = [*(tuple(cell.split()) for cell in pods), (), ()][:2]
        out.append(Otherwise(why, service, caller, target, end, servers, sources))
    return out


EBPF: tuple[Otherwise, ...] = (
    *read(SOCKET, SOCKET_ROWS),
    *read(NO_BACKEND, NO_BACKEND_ROWS),
    *read(CLIENT, CLIENT_ROWS),
    *read(REJECT, REJECT_ROWS),
    *read(SCOPES, SCOPES_ROWS),
    *read(BOTH, BOTH_ROWS),
    *read(RANGES, RANGES_ROWS),
    *read(EXTERNAL, EXTERNAL_ROWS),
    *read(HINTS, HINTS_ROWS),
    *read(NO_SCTP, NO_SCTP_ROWS),
)
