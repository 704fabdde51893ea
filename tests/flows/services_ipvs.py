"""What kube-proxy's IPVS mode does otherwise than the table says, with its source.

Columns are those of the table in `services.py`. This machine's kernel has no IPVS to ask; the sources are the recorded
virtual servers, sets and rules (`tests/oracles/kube-proxy-ipvs.tar.xz`) and the kernel's code.
"""

from __future__ import annotations

from tests.flows.services_ebpf import Otherwise

FILTER = (
    "KUBE-IPVS-FILTER rejects what is for an address of kube-ipvs0 and for no port of a Service, pings "
    "too (kubernetes/kubernetes#72236); the address is on the node, so nothing is routed on"
)
FILTER_ROWS = """
plain             | client-1 | 10.96.2.1:81/tcp            | refused     |             |
plain             | node-3   | 10.96.2.1:81/tcp            | refused     |             |
plain             | client-1 | 10.96.2.1:80/udp            | refused     |             |
plain             | client-1 | 10.96.2.1/icmp              | refused     |             |
plain             | node-3   | 10.96.2.1/icmp              | refused     |             |
vip               | client-1 | 198.51.100.1:81/tcp         | refused     |             |
vip               | outside  | 198.51.100.1:81/tcp         | refused     |             |
plain             | client-1 | [fd00:96::8:1]:81/tcp       | refused     |             |
"""

LOCALHOST = (
    "node ports are virtual servers on the node's addresses, loopback excepted (Virtual IPs and Service "
    "Proxies, IPVS)"
)
LOCALHOST_ROWS = """
port              | node-1   | 127.0.0.1:30301/tcp         | refused     |             |
port              | node-3   | 127.0.0.1:30301/tcp         | refused     |             |
"""

INSIDE = (
    "without a local endpoint the virtual server has no real servers, and ip_vs_leave answers with ICMP "
    "port unreachable (net/netfilter/ipvs/ip_vs_core.c); iptables mode drops"
)
INSIDE_ROWS = """
inside            | client-3 | 10.96.2.4:80/tcp            | refused     |             |
inside            | node-3   | 10.96.2.4:80/tcp            | refused     |             |
inside-solo       | client-1 | 10.96.2.5:80/tcp            | refused     |             |
inside-solo       | client-3 | 10.96.2.5:80/tcp            | refused     |             |
inside-solo       | node-1   | 10.96.2.5:80/tcp            | refused     |             |
inside            | client-3 | [fd00:96::8:4]:80/tcp       | refused     |             |
inside            | node-3   | [fd00:96::8:4]:80/tcp       | refused     |             |
"""

NOBODY = (
    "the address is on the node itself: its own packets meet IPVS at OUTPUT, which refuses; in iptables "
    "mode KUBE-EXTERNAL-SERVICES is not asked at OUTPUT"
)
NOBODY_ROWS = """
vip-nobody        | node-1   | 198.51.100.7:80/tcp         | refused     |             |
external-nobody   | node-1   | 198.51.100.23:80/tcp        | refused     |             |
"""

LOCAL = (
    "one virtual server for all callers: pods and the node itself get the local endpoints as well, and "
    "are not masqueraded (KUBE-NODE-PORT-LOCAL-*, KUBE-LOAD-BALANCER-LOCAL)"
)
LOCAL_ROWS = """
port-local        | client-1 | 192.168.1.10:30302/tcp      | connected   | web-1       | client-1
port-local        | web-1    | 192.168.1.10:30302/tcp      | connected   | web-1       | 10.244.0.1
port-local        | node-1   | 192.168.1.10:30302/tcp      | connected   | web-1       | 192.168.1.10
port-local-sticky | client-1 | 192.168.1.10:30304/tcp      | connected   | web-1       | client-1
port-local-sticky | node-1   | 192.168.1.10:30304/tcp      | connected   | web-1       | 192.168.1.10
port-both-local   | client-1 | 192.168.1.10:30305/tcp      | connected   | web-1       | client-1
port-both-local   | node-1   | 192.168.1.10:30305/tcp      | connected   | web-1       | 192.168.1.10
vip-local         | client-1 | 198.51.100.2:80/tcp         | connected   | web-1       | client-1
vip-local         | web-1    | 198.51.100.2:80/tcp         | connected   | web-1       | 10.244.0.1
vip-local         | node-1   | 198.51.100.2:80/tcp         | connected   | web-1       | 198.51.100.2
vip-local         | client-1 | 198.51.100.66:80/tcp        | connected   | web-1       | client-1
vip-local-sticky  | client-1 | 198.51.100.8:80/tcp         | connected   | web-1       | client-1
external-local    | client-1 | 198.51.100.22:80/tcp        | connected   | web-1       | client-1
external-local    | node-1   | 198.51.100.22:80/tcp        | connected   | web-1       | 198.51.100.22
ending-local      | node-1   | 192.168.1.10:30604/tcp      | connected   | leaving-1   | 192.168.1.10
port-local        | client-1 | [fd00:1::10]:30807/tcp      | connected   | web-1       | client-1
port-local        | node-1   | [fd00:1::10]:30807/tcp      | connected   | web-1       | fd00:1::10
vip-local         | client-1 | [2001:db8:5::9]:80/tcp      | connected   | web-1       | client-1
vip-local         | node-1   | [2001:db8:5::9]:80/tcp      | connected   | web-1       | 2001:db8:5::9
"""

ELSEWHERE = (
    "without a local endpoint the real servers are the cluster's (kubernetes/kubernetes#97081), and "
    "nothing of kube-proxy's masquerades; Flannel's rule for what comes into the pod network does, so "
    "that the answers come back"
)
ELSEWHERE_ROWS = """
port-local        | client-1 | 192.168.1.30:30302/tcp      | connected   | web-1 web-2 | 10.244.2.0
port-local        | node-1   | 192.168.1.30:30302/tcp      | connected   | web-1 web-2 | 10.244.2.0
port-local        | outside  | 192.168.1.30:30302/tcp      | connected   | web-1 web-2 | 10.244.2.0
port-local-sticky | outside  | 192.168.1.30:30304/tcp      | connected   | web-1 web-2 | 10.244.2.0
port-both-local   | outside  | 192.168.1.30:30305/tcp      | connected   | web-1 web-2 | 10.244.2.0
vip-local         | outside  | 198.51.100.66:80/tcp        | connected   | web-1 web-2 | 10.244.2.0
vip-local         | outside  | 192.168.1.30:30402/tcp      | connected   | web-1 web-2 | 10.244.2.0
vip-local-sticky  | outside  | 198.51.100.72:80/tcp        | connected   | web-1 web-2 | 10.244.2.0
external-local    | outside  | 198.51.100.86:80/tcp        | connected   | web-1 web-2 | 10.244.2.0
ending-local      | outside  | 192.168.1.30:30604/tcp      | connected   | web-2       | 10.244.2.0
"""

LOST = (
    "without a local endpoint the real servers are the cluster's, nobody masquerades, and the answers go "
    "past the node that would translate them back (kubernetes/kubernetes#97081)"
)
LOST_ROWS = """
port-local        | client-1 | [fd00:1::30]:30807/tcp      | timed out   | web-1 web-2 | fd00:1::10
port-local        | outside  | [fd00:1::30]:30807/tcp      | timed out   | web-1 web-2 | 2001:db8:1::10
"""

BOTH = (
    "a Service that can be called from outside keeps the cluster's endpoints where it has no local one, "
    "for its cluster IP, too (kubernetes/kubernetes#97081)"
)
BOTH_ROWS = """
port-both-local   | client-3 | 10.96.3.5:80/tcp            | connected   | web-1 web-2 | client-3
"""


def _read(why: str, text: str) -> list[Otherwise]:
    out = []
    for line in text.strip().splitlines():
        service, caller, target, end, *pods = (cell.strip() for cell in line.split("|"))
        servers, sources = [*(tuple(cell.split()) for cell in pods), (), ()][:2]
        out.append(Otherwise(why, service, caller, target, end, servers, sources))
    return out


IPVS: tuple[Otherwise, ...] = (
    *_read(FILTER, FILTER_ROWS),
    *_read(LOCALHOST, LOCALHOST_ROWS),
    *_read(INSIDE, INSIDE_ROWS),
    *_read(NOBODY, NOBODY_ROWS),
    *_read(LOCAL, LOCAL_ROWS),
    *_read(ELSEWHERE, ELSEWHERE_ROWS),
    *_read(LOST, LOST_ROWS),
    *_read(BOTH, BOTH_ROWS),
)
