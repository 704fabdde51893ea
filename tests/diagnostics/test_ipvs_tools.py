"""`ipvsadm` and `ipset` in a namespace.

The kernel here has no IPVS, so that no transcript of ipvsadm can be recorded: its columns are those of its source. What
`ipset` prints is a transcript (`tests/transcripts/ipset`).
"""

from __future__ import annotations

from diagnostics import shell
from kubenet_lab.kernel.ipvs import Conn
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.packet import TCP


def node() -> Network:
    net = Network()
    net.add_netns("node-1")
    return net


def run(net: Network, command: str) -> tuple[str, int]:
    done = shell.run(net, "node-1", command)
    return done.text, done.exit_code


def test_a_session() -> None:
    net = node()
    empty, code = run(net, "ipvsadm -Ln")
    assert code == 0
    assert len(empty.splitlines()) == 3
    assert not net.ns("node-1").has_ipvs, "looking does not load the module"
    for command in (
        "ipvsadm -A -t 10.96.0.1:443 -s rr -p 10800",
        "ipvsadm -a -t 10.96.0.1:443 -r 192.168.1.1:6443 -m",
        "ipvsadm --add-service --udp-service=10.96.0.10:53 --scheduler=rr",
        "ipvsadm -e -t 10.96.0.1:443 -r 192.168.1.1:6443 -m -w 3",
        "ipvsadm --set 60 0 20",
    ):
        assert run(net, command) == ("", 0), command
    assert run(net, "ipvsadm -Ln") == (
        "IP Virtual Server version 1.2.1 (size=4096)\n"
        "Prot LocalAddress:Port Scheduler Flags\n"
        "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
        "TCP  10.96.0.1:443 rr persistent 10800\n"
        "  -> 192.168.1.1:6443             Masq    3      0          0         \n"
        "UDP  10.96.0.10:53 rr\n",
        0,
    )
    assert run(net, "ipvsadm -L --timeout") == ("Timeout (tcp tcpfin udp): 60 120 20\n", 0)
    assert run(net, "ipvsadm -Sn")[0].splitlines() == [
        "-A -t 10.96.0.1:443 -s rr -p 10800",
        "-a -t 10.96.0.1:443 -r 192.168.1.1:6443 -m -w 3",
        "-A -u 10.96.0.10:53 -s rr",
    ]
    assert run(net, "ipvsadm -Ln -u 10.96.0.10:53")[0].endswith("InActConn\nUDP  10.96.0.10:53 rr\n")
    assert run(net, "ipvsadm -D -t 10.96.0.1:444") == ("No such service\n", 255)
    assert run(net, "ipvsadm -C") == ("", 0)
    assert run(net, "ipvsadm -Sn") == ("", 0)


def test_rows_and_forms() -> None:
    net = node()
    run(net, "ipvsadm -A -t 10.96.0.1:443 -s rr")
    run(net, "ipvsadm -a -t 10.96.0.1:443 -r 192.168.1.1:6443 -m -x 9 -y 4")
    key = (TCP, "10.96.0.1", 443)
    table = net.ns("node-1").ipvs
    table.connect(
        Conn(protocol=TCP, client=("10.0.0.1", 5), virtual=key[1:], real=("192.168.1.1", 6443), service=key),
        0.0,
    )
    done = shell.run(net, "node-1", "ipvsadm -Lnc")
    assert done.text.splitlines()[2].split() == [
        "TCP", "00:02", "NONE", "10.0.0.1:5", "10.96.0.1:443", "192.168.1.1:6443",
    ]  # fmt: skip
    assert done.rows[0]["real"] == "192.168.1.1:6443"
    rows = shell.run(net, "node-1", "ipvsadm -Ln").rows
    assert [(row["virtual"], row["real"], row["inactive"]) for row in rows] == [
        ("10.96.0.1:443", "192.168.1.1:6443", 1)
    ]
    assert run(net, "ipvsadm -Ln --stats")[0].splitlines()[3].split() == [
        "TCP", "10.96.0.1:443", "1", "0", "0", "0", "0",
    ]  # fmt: skip
    assert run(net, "ipvsadm -Ln --thresholds")[0].splitlines()[-1].split()[2:] == ["9", "4", "0", "1"]
    assert run(net, "ipvsadm -Ln --persistent-conn")[0].splitlines()[-1].split()[2:] == ["1", "0", "0", "1"]


def test_what_is_not_modelled_is_named() -> None:
    net = node()
    for command, word in (("ipvsadm -L", "-n"), ("ipvsadm -Ln --rate", "--rate"), ("ipvsadm -R", "-R")):
        text, code = run(net, command)
        assert (code, word in text) == (64, True), text
    assert run(net, "ipset restore")[1] == 64


def test_ipset_in_a_cluster_s_words() -> None:
    net = node()
    for command in (
        "ipset create KUBE-CLUSTER-IP hash:ip,port",
        "ipset add KUBE-CLUSTER-IP 10.96.0.1,443",
        "iptables -t nat -A PREROUTING -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT",
    ):
        assert run(net, command) == ("", 0), command
    assert run(net, "ipset test KUBE-CLUSTER-IP 10.96.0.1,tcp:443")[1] == 0
    assert run(net, "ipset test KUBE-CLUSTER-IP 10.96.0.1,udp:443")[1] == 1
    assert "References: 1\n" in run(net, "ipset list KUBE-CLUSTER-IP -t")[0]
    assert run(net, "ipset destroy KUBE-CLUSTER-IP")[1] == 1
    assert run(net, "ipset add KUBE-CLUSTER-IP 10.96.0.1,443 -exist") == ("", 0)
    assert shell.run(net, "node-1", "ipset list").rows == [
        {"set": "KUBE-CLUSTER-IP", "type": "hash:ip,port", "element": "10.96.0.1,tcp:443"}
    ]
