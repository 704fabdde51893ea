"""A diff names each change, its sign in words, and the command that makes it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pictures import trips

from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.conntrack import Flow, inverted, tuple_of
from kubenet_lab.kernel.dialects import iptables
from kubenet_lab.kernel.dump import dump
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet.packet import TCP
from kubenet_lab.views.state_diff import changes, state_diff_html, state_diff_text, text_changes
from kubenet_lab.views.tables import changes_frame


def _restore(net: Network) -> None:
    net.ns("node-1").set_iptables(
        4, iptables.load("*nat\n:KUBE-X - [0:0]\n-A KUBE-X -p tcp -j RETURN\nCOMMIT\n", 4)
    )


def _track(net: Network) -> None:
    key = tuple_of(trips.SYN_OUT)
    net.ns("node-1").conntrack.confirm(Flow(orig=key, reply=inverted(key), state="SYN_SENT"))


EDITS: dict[str, tuple[Callable[[Network], object], str, str, str]] = {
    "route added": (
        lambda net: net.ns("node-1").add_route(
            "10.244.1.0/24", via="10.244.1.0", dev="flannel.1", onlink=True
        ),
        "added",
        "route",
        "ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink",
    ),
    "route removed": (
        lambda net: net.ns("node-1").delete_route("default"),
        "removed",
        "route",
        "ip route del default via 192.168.1.1 dev eth0",
    ),
    "link changed": (
        lambda net: net.ns("node-1").set_link("flannel.1", mtu=1400),
        "changed",
        "link",
        "ip link set flannel.1 mtu 1400",
    ),
    "address added": (
        lambda net: net.ns("node-2").add_address("cni0", "10.9.9.1/32"),
        "added",
        "address",
        "ip addr add 10.9.9.1/32 dev cni0",
    ),
    "neighbour added": (
        lambda net: net.ns("node-1").set_neighbour("flannel.1", "10.244.1.0", trips.VTEP_2),
        "added",
        "neighbour",
        f"ip neigh replace 10.244.1.0 lladdr {trips.VTEP_2} dev flannel.1 nud permanent",
    ),
    "fdb added": (
        lambda net: net.ns("node-1").add_fdb(
            FdbEntry("flannel.1", trips.VTEP_2, dst="192.168.1.20", state="permanent")
        ),
        "added",
        "fdb entry",
        f"bridge fdb append {trips.VTEP_2} dev flannel.1 dst 192.168.1.20 self permanent",
    ),
    "sysctl added": (
        lambda net: net.ns("node-1").set_sysctl("net.ipv4.ip_forward", 1),
        "added",
        "sysctl",
        "sysctl -w net.ipv4.conf.all.forwarding=1",
    ),
    "socket added": (
        lambda net: net.ns("default/frontend").listen(Socket(TCP, "0.0.0.0", 80, "nginx")),
        "added",
        "socket",
        "",
    ),
    "rule added": (_restore, "added", "iptables rule", "iptables -t nat -A KUBE-X -p tcp -j RETURN"),
    "chain added": (_restore, "added", "iptables chain", "iptables -t nat -N KUBE-X"),
    "connection added": (_track, "added", "connection", ""),
    "namespace removed": (
        lambda net: net.delete_netns("default/backend-2"),
        "removed",
        "network namespace",
        "ip netns del default/backend-2",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_each_edit_is_one_change_with_its_command(name: str) -> None:
    edit, word, kind, command = EDITS[name]
    net = trips.network()
    before = dump(net)
    edit(net)
    found = [c for c in changes(before, dump(net)) if c.kind == kind and c.word == word]
    if kind == "sysctl":
        assert len(found) == 1
        assert found[0].command.startswith("sysctl -w net.ipv4.")
        return
    assert [c.command for c in found] == [command], state_diff_text(changes(before, dump(net)))


def test_the_way_back_is_the_mirror() -> None:
    net = trips.network()
    before = dump(net)
    for name, (edit, *_) in EDITS.items():
        if name not in ("chain added", "namespace removed"):
            edit(net)
    after = dump(net)
    there, back = changes(before, after), changes(after, before)
    mirror = {"added": "removed", "removed": "added", "changed": "changed"}
    assert sorted((mirror[c.word], c.where, c.kind) for c in there) == sorted(
        (c.word, c.where, c.kind) for c in back
    )
    assert {c.kind for c in there} >= {kind for _, _, kind, _ in EDITS.values()} - {"network namespace"}


def test_a_new_namespace_is_listed_with_all_it_holds() -> None:
    with_pod = trips.network()
    without = trips.network()
    without.delete_netns("default/backend-2")
    born = [c for c in changes(dump(without), dump(with_pod)) if c.where == "default/backend-2"]
    assert born[0].command == "ip netns add default/backend-2"
    assert {"link", "address", "route"} <= {c.kind for c in born}
    gone = [c for c in changes(dump(with_pod), dump(without)) if c.where == "default/backend-2"]
    assert [c.command for c in gone] == ["ip netns del default/backend-2"]


def test_nothing_changed_says_so() -> None:
    state = dump(trips.network())
    assert changes(state, state) == []
    assert state_diff_text([]) == "nothing changed"
    assert "Nothing changed" in state_diff_html([])


def test_texts_differ_by_lines_in_order() -> None:
    found = text_changes("a\nb\nc", "b\na\nc")
    assert [(c.word, c.what) for c in found] in (
        [("removed", "a"), ("added", "a")],
        [("added", "b"), ("removed", "b")],
    )


def test_signs_are_words_too() -> None:
    html = state_diff_html(text_changes("one", "two <three>"))
    assert "<b>-</b> removed" in html
    assert "<b>+</b> added" in html
    assert "two &lt;three&gt;" in html


def test_a_dump_and_a_text_are_not_compared() -> None:
    with pytest.raises(TypeError, match="two dumps or two texts"):
        changes(dump(trips.network()), "text")


def test_changes_frame() -> None:
    frame = changes_frame(text_changes("a", "b"))
    assert list(frame.columns) == ["word", "where", "kind", "what", "was", "command"]
    assert len(frame) == 2
