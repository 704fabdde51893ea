"""`bridge vlan`, in iproute2 6.1's words (`bridge/vlan.c`); no kernel with VLAN filtering was there to record it."""

from __future__ import annotations

from diagnostics import shell
from kubenet_lab.kernel.network import Network


def test_bridge_vlan() -> None:
    """`bridge vlan add` moves the PVID, `del` can leave a port in no VLAN at all."""
    net = Network()
    host = net.add_netns("host")
    host.add_link("eth0", "physical", mac="0a:00:00:00:00:01")
    host.add_link("br0", "bridge")
    host.set_link("eth0", master="br0")

    def run(command: str) -> tuple[str, int]:
        done = shell.run(net, "host", command)
        return done.text, done.exit_code

    assert run("bridge vlan") == (
        "port              vlan-id  \n"
        "eth0              1 PVID Egress Untagged\n"
        "br0               1 PVID Egress Untagged\n",
        0,
    )
    for command in ("add dev eth0 vid 10 pvid untagged", "add dev eth0 vid 5", "del dev br0 vid 1 self"):
        assert run(f"bridge vlan {command}") == ("", 0)
    assert run("bridge vlan show")[0].splitlines()[1:] == [
        "eth0              1 Egress Untagged",
        "                  5",
        "                  10 PVID Egress Untagged",
    ]
    assert run("bridge -j vlan show dev eth0")[0] == (
        '[{"ifname":"eth0","vlans":[{"vlan":1,"flags":["Egress Untagged"]},{"vlan":5},'
        '{"vlan":10,"flags":["PVID","Egress Untagged"]}]}]\n'
    )
    assert run("bridge vlan add dev lo vid 3") == ("RTNETLINK answers: Operation not supported\n", 255)
    assert run("bridge vlan add dev eth0") == ("Device and VLAN ID are required arguments.\n", 255)
