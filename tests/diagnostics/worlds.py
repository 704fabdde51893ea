# ruff: noqa: E501 - a script
"""The worlds transcripts start from, each twice: as a shell script for the real kernel, and as a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet.packet import TCP


class World(NamedTuple):
    """`script` builds the real one; `build` the model; commands without a namespace run in `home`."""

    script: str
    build: Callable[[], Network]
    home: str


def one() -> Network:
    """Return one host with nothing but lo.

    Duplicate address detection is off in the real one, as in the model.
    """
    network = Network()
    network.add_netns("host")
    return network


ONE = """
ip link set lo up
sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
"""

LINE = r"""
mount -t tmpfs none /run && mkdir -p /run/netns
for n in c r s; do ip netns add $n; ip netns exec $n sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0; ip -n $n link set lo up; done
ip link add cr netns c address 0a:00:00:00:01:02 type veth peer name rc netns r address 0a:00:00:00:01:01
ip link add sr netns s address 0a:00:00:00:02:02 type veth peer name rs netns r address 0a:00:00:00:02:01
ip -n r link set rs mtu 1400; ip -n s link set sr mtu 1400
ip -n c link set cr up; ip -n r link set rc up; ip -n r link set rs up; ip -n s link set sr up
ip -n c addr add 10.1.0.2/24 dev cr; ip -n c -6 addr add fd01::2/64 dev cr
ip -n r addr add 10.1.0.1/24 dev rc; ip -n r addr add 10.2.0.1/24 dev rs
ip -n r -6 addr add fd01::1/64 dev rc; ip -n r -6 addr add fd02::1/64 dev rs
ip -n s addr add 10.2.0.2/24 dev sr; ip -n s -6 addr add fd02::2/64 dev sr
ip -n c route add default via 10.1.0.1; ip -n c -6 route add default via fd01::1
ip -n s route add default via 10.2.0.1; ip -n s -6 route add default via fd02::1
ip netns exec r sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0
ip netns exec s python3 - >/dev/null 2>&1 <<'SERVER' &
import socket
family = socket.AF_INET6
listener = socket.socket(family)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("::", 80))
listener.listen(4096)
while True:
    connection, peer = listener.accept()
    request = connection.recv(65536)
    body = b"" if request.startswith(b"HEAD") else f"s: hello, {peer[0].removeprefix('::ffff:')}\n".encode()
    fields = f"Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close"
    connection.sendall(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode() + body)
    connection.close()
SERVER
sleep 1
"""
"""A client, a router and a server; the server's side has the smaller MTU.

What listens on port 80 answers as the program of a pod does in the twin.
"""


def line() -> Network:
    """Return the model of LINE."""
    network = Network()
    c, r, s = (network.add_netns(name) for name in "crs")
    network.add_veth("r", "rc", "c", "cr", mac_a="0a:00:00:00:01:01", mac_b="0a:00:00:00:01:02")
    network.add_veth("r", "rs", "s", "sr", mac_a="0a:00:00:00:02:01", mac_b="0a:00:00:00:02:02")
    r.set_link("rs", mtu=1400)
    s.set_link("sr", mtu=1400)
    for ns, dev in ((c, "cr"), (r, "rc"), (r, "rs"), (s, "sr")):
        ns.set_link(dev, up=True)
    for ns, dev, number in ((c, "cr", "1.0.2"), (r, "rc", "1.0.1"), (r, "rs", "2.0.1"), (s, "sr", "2.0.2")):
        left, _, right = number.split(".")
        ns.add_address(dev, f"10.{number}/24")
        ns.add_address(dev, f"fd0{left}::{right}/64")
    c.add_route("default", via="10.1.0.1")
    c.add_route("::/0", via="fd01::1")
    s.add_route("default", via="10.2.0.1")
    s.add_route("::/0", via="fd02::1")
    r.set_sysctl("net.ipv4.ip_forward", 1)
    r.set_sysctl("net.ipv6.conf.all.forwarding", 1)
    s.listen(Socket(TCP, "::", 80))
    for ns in (c, r, s):
        ns.files["/etc/hosts"] = "127.0.0.1\tlocalhost\n"
    return network


WORLDS: dict[str, World] = {
    "one": World(ONE, one, "host"),
    "line": World(LINE, line, "c"),
}
