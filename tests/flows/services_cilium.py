"""What is otherwise with Cilium as the pod network, beside what `services_ebpf.py` and `services.py` list.

Every host has cilium_host where Flannel has flannel.1: the sources 10.244.N.0 of the table are 10.244.N.1 here.
"""

from __future__ import annotations

from tests.flows.services_ebpf import Otherwise, read

GATEWAY = (
    "SNAT for a backend behind the tunnel takes cilium_host's address, so that the reply comes back "
    "through the tunnel (IPV4_GATEWAY, bpf/lib/nodeport.h)"
)
GATEWAY_ROWS = """
port             | outside  | 192.168.1.10:30301/tcp   | connected | web-1 web-2         | 10.244.0.1 outside
port             | outside  | 192.168.1.30:30301/tcp   | connected | web-1 web-2         | 10.244.2.1
port             | outside  | 192.168.1.10:30311/udp   | answered  | web-1 web-2         | 10.244.0.1 outside
port             | outside  | 192.168.1.30:30311/udp   | answered  | web-1 web-2         | 10.244.2.1
port-sticky      | outside  | 192.168.1.10:30303/tcp   | connected | web-1 web-2         | 10.244.0.1 outside
port-sticky      | outside  | 192.168.1.30:30303/tcp   | connected | web-1 web-2         | 10.244.2.1
port-solo        | outside  | 192.168.1.10:30308/tcp   | connected | solo-2              | 10.244.0.1
vip              | outside  | 198.51.100.1:80/tcp      | connected | web-1 web-2         | 10.244.0.1 outside
vip              | outside  | 198.51.100.65:80/tcp     | connected | web-1 web-2         | 10.244.2.1
vip              | outside  | 192.168.1.30:30401/tcp   | connected | web-1 web-2         | 10.244.2.1
vip-near         | outside  | 198.51.100.3:80/tcp      | connected | web-1 web-2         | 10.244.0.1 outside
vip-near         | outside  | 192.168.1.10:30403/tcp   | connected | web-1 web-2         | 10.244.0.1 outside
vip-far          | outside  | 192.168.1.10:30404/tcp   | connected | web-1 web-2         | 10.244.0.1 outside
vip-proxy        | outside  | 192.168.1.10:30405/tcp   | connected | web-1 web-2         | 10.244.0.1 outside
vip-no-ports     | outside  | 198.51.100.6:80/tcp      | connected | web-1 web-2         | 10.244.0.1 outside
vip-pending      | outside  | 192.168.1.10:30409/tcp   | connected | web-1 web-2         | 10.244.0.1 outside
external         | client-1 | 198.51.100.21:80/tcp     | timed out | web-2               | 10.244.0.1
external         | client-3 | 198.51.100.21:80/tcp     | connected | web-1 web-2         | 10.244.0.1 192.168.1.30
external         | web-1    | 198.51.100.21:80/tcp     | timed out | web-2               | 10.244.0.1
external         | node-1   | 198.51.100.21:80/tcp     | timed out | web-2               | 10.244.0.1
external         | outside  | 198.51.100.21:80/tcp     | connected | web-1 web-2         | 10.244.0.1 outside
external         | client-3 | 198.51.100.85:80/tcp     | timed out | web-1 web-2         | 10.244.2.1
external         | outside  | 198.51.100.85:80/tcp     | connected | web-1 web-2         | 10.244.2.1
external-solo-udp | client-1 | 198.51.100.24:53/udp     | timed out | solo-2              | 10.244.0.1
external-solo-udp | solo-2   | 198.51.100.24:53/udp     | answered  | solo-2              | 10.244.0.1
external-solo-udp | outside  | 198.51.100.24:53/udp     | answered  | solo-2              | 10.244.0.1
ending           | outside  | 192.168.1.30:30601/tcp   | connected | leaving-1 leaving-2 | 10.244.2.1
ending-some      | outside  | 192.168.1.10:30602/tcp   | connected | web-2               | 10.244.0.1
"""

LOOPBACK = (
    "a pod that meets itself through a Service gets 169.254.42.1 as its source "
    "(--ipv4-service-loopback-address)"
)
LOOPBACK_ROWS = """
plain            | web-1    | 10.96.2.1:80/tcp         | connected | web-1 web-2         | 169.254.42.1 web-1
plain            | web-2    | 10.96.2.1:53/udp         | answered  | web-1 web-2         | 169.254.42.1 web-2
solo             | solo-2   | 10.96.2.2:80/tcp         | connected | solo-2              | 169.254.42.1
solo             | solo-2   | 10.96.2.2:53/udp         | answered  | solo-2              | 169.254.42.1
sticky           | web-1    | 10.96.2.3:80/tcp         | connected | web-1 web-2         | 169.254.42.1 web-1
inside           | web-1    | 10.96.2.4:80/tcp         | connected | web-1               | 169.254.42.1
inside-solo      | solo-2   | 10.96.2.5:80/tcp         | connected | solo-2              | 169.254.42.1
"""

REFUSED = (
    "beside kube-proxy Cilium serves cluster IPs to pods itself: no backend is answered with ICMP "
    "(--service-no-backend-response=reject)"
)
REFUSED_ROWS = """
inside           | client-3 | 10.96.2.4:80/tcp         | refused   |                     |
inside-solo      | client-1 | 10.96.2.5:80/tcp         | refused   |                     |
inside-solo      | client-3 | 10.96.2.5:80/tcp         | refused   |                     |
port-both-local  | client-3 | 10.96.3.5:80/tcp         | refused   |                     |
"""

HINTS = (
    "beside kube-proxy Cilium serves cluster IPs to pods itself, and looks at no hints "
    "(--enable-service-topology=false)"
)
HINTS_ROWS = """
zones            | client-1 | 10.96.7.1:80/tcp         | connected | web-1 web-2         | client-1
zones            | client-2 | 10.96.7.1:80/tcp         | connected | web-1 web-2         | client-2
zones            | client-3 | 10.96.7.1:80/tcp         | connected | web-1 web-2         | client-3
nodes            | client-1 | 10.96.7.4:80/tcp         | connected | web-1 web-2         | client-1
nodes            | client-2 | 10.96.7.4:80/tcp         | connected | web-1 web-2         | client-2
nodes            | client-3 | 10.96.7.4:80/tcp         | connected | web-1 web-2         | client-3
"""

HAIRPIN = (
    "what kube-proxy translated for a pod is given cilium_host's address, else the answer would pass the "
    "host by (the rule of CILIUM_POST_nat for mark 0xf00 and ctstate DNAT)"
)
HAIRPIN_ROWS = """
port-local       | client-1 | 192.168.1.10:30302/tcp   | connected | web-1 web-2         | 10.244.0.1
port-local       | web-1    | 192.168.1.10:30302/tcp   | connected | web-1 web-2         | 10.244.0.1
port-local       | client-3 | 192.168.1.30:30302/tcp   | connected | web-1 web-2         | 10.244.2.1
port-local-sticky | client-1 | 192.168.1.10:30304/tcp   | connected | web-1 web-2         | 10.244.0.1
port-local-sticky | client-3 | 192.168.1.30:30304/tcp   | connected | web-1 web-2         | 10.244.2.1
port-both-local  | client-1 | 192.168.1.10:30305/tcp   | connected | web-1 web-2         | 10.244.0.1
port-both-local  | client-3 | 192.168.1.30:30305/tcp   | connected | web-1 web-2         | 10.244.2.1
vip-local        | client-1 | 198.51.100.2:80/tcp      | connected | web-1 web-2         | 10.244.0.1
vip-local        | client-3 | 198.51.100.2:80/tcp      | connected | web-1 web-2         | 10.244.2.1
vip-local        | web-1    | 198.51.100.2:80/tcp      | connected | web-1 web-2         | 10.244.0.1
vip-local        | client-1 | 198.51.100.66:80/tcp     | connected | web-1 web-2         | 10.244.0.1
vip-local        | client-3 | 198.51.100.66:80/tcp     | connected | web-1 web-2         | 10.244.2.1
vip-local-sticky | client-1 | 198.51.100.8:80/tcp      | connected | web-1 web-2         | 10.244.0.1
vip-local-sticky | client-3 | 198.51.100.72:80/tcp     | connected | web-1 web-2         | 10.244.2.1
external-local   | client-1 | 198.51.100.22:80/tcp     | connected | web-1 web-2         | 10.244.0.1
external-local   | client-3 | 198.51.100.86:80/tcp     | connected | web-1 web-2         | 10.244.2.1
"""

SCTP = "Cilium leaves SCTP to kube-proxy, whose translation gets cilium_host's address"
SCTP_ROWS = """
plain            | client-1 | 10.96.2.1:9000/sctp      | connected | web-1 web-2         | 10.244.0.1
plain            | client-3 | 10.96.2.1:9000/sctp      | connected | web-1 web-2         | 10.244.2.1
plain            | web-1    | 10.96.2.1:9000/sctp      | connected | web-1 web-2         | 10.244.0.1
"""

CILIUM: dict[str, tuple[Otherwise, ...]] = {
    "ebpf": (*read(GATEWAY, GATEWAY_ROWS),),
    "iptables": (
        *read(LOOPBACK, LOOPBACK_ROWS),
        *read(REFUSED, REFUSED_ROWS),
        *read(HINTS, HINTS_ROWS),
        *read(HAIRPIN, HAIRPIN_ROWS),
        *read(SCTP, SCTP_ROWS),
    ),
}
"""By mode of the Service proxy."""
