"""The world of the property test: a router that rules are tried in, between a client and two servers.

Every neighbour is known beforehand, so that a packet's fate is settled within the call that sends it: nothing waits
for ARP, and no late error of one case falls into the next.
"""

from __future__ import annotations

from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet.ip import mac_from
from kubenet_lab.packet.packet import TCP

SIDES = {"client": ("in0", 1), "server": ("out0", 2), "other": ("out1", 3)}
"""Namespace -> the router's link to it, and the number in its networks 10.N.0.0/24 and fd0N::/64."""

HOSTS = (2, 3, 77)
"""Last part of some addresses of a network; .2 is the host's own. The router knows a neighbour for every one.
"""

OWN = range(130, 254)
"""Last part of further addresses that are the host's own. A sender is taken from here, another one each time: the
kernel sends a source no more than five routing errors at once, and one a second after that (`ip_error`)."""

SMALL_MTU = 1300
"""Of the link to `other`: what is bigger is fragmented, or refused."""

OPEN_PORT = 80
"""The servers listen there (TCP); everything else is refused."""

PROBE = """table inet probe {
  chain quiet {
    icmpv6 type { 130-137, 143 } accept
    ip6 daddr ff00::/8 accept
  }
  chain input {
    type filter hook input priority 2147483647; policy accept;
    jump quiet
    log group 2 queue-threshold 1
  }
  chain postrouting {
    type filter hook postrouting priority 2147483647; policy accept;
    jump quiet
    log group 3 queue-threshold 1
  }
}
"""
"""Hooks after all others, even the one that confirms connections: what they log has passed, with its mark.

Of hooks with one priority the kernel puts the later before the earlier, so they must be there before any
rule.
"""


def address(number: int, host: int, fam: int) -> str:
    """Return an address of one of the lab's networks."""
    return f"10.{number}.0.{host}" if fam == 4 else f"fd0{number}::{host:x}"


def lab() -> Network:
    """Return the world, without rules."""
    net = Network()
    router = net.add_netns("router")
    router.set_sysctl("net.ipv4.ip_forward", 1)
    router.set_sysctl("net.ipv6.conf.all.forwarding", 1)
    for scope in ("all", "default"):
        router.set_sysctl(f"net.ipv4.conf.{scope}.send_redirects", 0)
    for name, (link, number) in SIDES.items():
        host = net.add_netns(name)
        mac, gateway_mac = mac_from(name, "eth0"), mac_from("router", link)
        mtu = SMALL_MTU if name == "other" else 1500
        net.add_veth("router", link, name, "eth0", mac_a=gateway_mac, mac_b=mac, mtu=mtu)
        router.set_link(link, up=True)
        host.set_link("eth0", up=True)
        for fam, length in ((4, 24), (6, 64)):
            router.add_address(link, f"{address(number, 1, fam)}/{length}")
            host.add_address("eth0", f"{address(number, 2, fam)}/{length}")
            host.add_route("0.0.0.0/0" if fam == 4 else "::/0", via=address(number, 1, fam), dev="eth0")
            host.set_neighbour("eth0", address(number, 1, fam), gateway_mac)
            own = f"10.{number}.0.128/25" if fam == 4 else f"fd0{number}::80/121"
            host.add_route(own, dev="lo", type="local", table=255, scope="host")
            for last in range(2, 255):
                router.set_neighbour(link, address(number, last, fam), mac)
        if name != "client":
            host.listen(Socket(TCP, "::", OPEN_PORT, "server"))
    return net
