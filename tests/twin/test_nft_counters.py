"""What rules counted: the same packets through model and kernel, the same numbers in `nft list ruleset`."""

from __future__ import annotations

import re

from kubenet_lab.kernel.dialects import nft
from kubenet_lab.packet.packet import ICMP, Packet
from kubenet_lab.twin import Twin
from kubenet_lab.walk.engine import Walk
from kubenet_lab.walk.exchange import exchange
from tests.twin.lab import lab

RULES = """
table ip t {
  counter pings { packets 0 bytes 0 }
  set known { type ipv4_addr; counter; elements = { 10.1.0.2, 10.1.0.3 } }
  map where { type ipv4_addr : verdict; counter; elements = { 10.2.0.2 : jump second, 10.3.0.2 : accept } }
  set seen { type ipv4_addr; flags dynamic; }
  chain second {
    counter packets 0 bytes 0
    icmp type echo-request counter name "pings"
  }
  chain forward {
    type filter hook forward priority 0; policy accept;
    counter packets 0 bytes 0
    ct state new counter packets 0 bytes 0
    ip saddr @known counter packets 0 bytes 0
    add @seen { ip saddr counter }
    limit rate 2/second burst 3 packets counter packets 0 bytes 0
    quota over 300 bytes counter packets 0 bytes 0
    ip daddr vmap @where
    counter packets 0 bytes 0
  }
}
"""
"""Rules with every kind of counter: of a rule, by name, of an element that was written, of one that a packet adds."""

PINGS = {"10.2.0.2": 5, "10.3.0.2": 2}


def counted(text: str) -> list[str]:
    """The lines that count, in order; elements of one set in theirs."""
    out = []
    for line in text.splitlines():
        if "elements = {" in line or line.strip().startswith("10."):
            out += sorted(re.findall(r"10\.\d+\.\d+\.\d+ counter packets \d+ bytes \d+", line))
        elif "packets" in line:
            out.append(" ".join(line.split()))
    return out


def test_the_same_packets_are_counted(kernel: None) -> None:
    network = lab()
    router = network.ns("router")
    router.set_nftables(nft.load(RULES))
    with Twin(network) as twin:
        for address, count in PINGS.items():
            done = twin.run("client", f"ping -c {count} -i 0.002 -s 56 {address}; true")
            assert f"{count} received" in done.stdout, done.stdout
        kernel_text = twin.run("router", "nft list ruleset").stdout
    for address, count in PINGS.items():
        for number in range(count):
            ping = Packet(
                "", address, ICMP, icmp_type=8, icmp_id=77 + len(address), icmp_seq=number, payload_size=56
            )
            assert exchange(Walk(network), "client", ping).ok
    model_text = nft.list_ruleset(router.nftables)
    assert counted(model_text) == counted(kernel_text), f"{model_text}\n{kernel_text}"
    assert len(counted(model_text)) > 10
