"""The BGP sessions to break and mend, without a browser."""

from __future__ import annotations

import pytest

from kubenet_lab.course.lessons.nb07 import calico, racks, talks
from kubenet_lab.scenarios import shop
from kubenet_lab.widgets.bgp_sessions import BgpSessions

PAIR = "node-1|node-2"


def told(made: BgpSessions) -> list[str]:
    return [str(one["what"]) for one in made.history]


def test_a_cut_session_starves_and_its_routes_go() -> None:
    world = calico()
    made = talks(world)
    assert made.picked == PAIR
    made.cut()
    assert next(one["state"] for one in made.sessions if one["key"] == PAIR).startswith("? silent, ")
    assert made.felt[0]["good"], "the routes are still there"
    made.wait(60)
    assert told(made) == [
        "node-1's firewall now drops TCP port 179 from node-2",
        "node-1 – node-2: no packet gets through",
    ]
    made.until_something()
    assert told(made)[2] == "node-1 – node-2: session down (BGP Error: Hold timer expired)"
    made.until_something()
    assert {
        "node-1's kernel loses 10.244.125.128/26 via 192.168.1.20",
        "node-2's kernel loses 10.244.146.128/26 via 192.168.1.10",
    } == set(told(made)[3:])
    assert not made.felt[0]["good"]
    assert 180 < world.now < 300

    made.mend()
    made.wait(60)
    assert "node-1's kernel gets 10.244.125.128/26 via 192.168.1.20" in told(made)
    assert made.felt[0]["good"]
    assert not made.detail["cut"]
    raw = world.network.ns("node-1").iptables[4].tables["raw"].chains["PREROUTING"].rules
    assert not any("179" in str(rule) for rule in raw), "the firewall is gone again"


def test_goodbye_is_heard_at_once_and_silence_is_waited_for() -> None:
    said = talks(calico())
    said.stop("node-2")
    assert "node-1's kernel loses 10.244.125.128/26 via 192.168.1.20" in told(said)
    silent = talks(calico())
    silent.kill("node-2")
    assert "node-1 – node-2: session down (Socket: Connection closed)" in told(silent)
    assert not any("loses" in what for what in told(silent))
    assert any("keeps the routes for 120 s more" in cell for row in silent.detail["rows"] for cell in row)
    silent.wait(121)
    assert "node-1's kernel loses 10.244.125.128/26 via 192.168.1.20" in told(silent)
    silent.start("node-2")
    silent.wait(10)
    assert silent.felt[0]["good"]


def test_a_reflector_and_somebody_outside() -> None:
    made = racks()
    kinds = {line.key: line.kind for line in made.found.lines}
    assert kinds[PAIR] == "reflector"
    assert kinds["node-3|router"] == "eBGP"
    made.picked = "node-3|router"
    heads, learned = made.detail["heads"], made.detail["rows"][2]
    assert {head.split("'")[0] for head in heads} == {"node-3", "router"}
    there = learned[1 + next(n for n, head in enumerate(heads) if head.startswith("router"))]
    assert there.count("/26") == 4, "the router hears of every block"
    made.stop("node-1")
    assert not made.felt[0]["good"], "without the reflector the nodes know nothing of each other"
    assert any(what.startswith("router's kernel gets") for what in told(made)), (
        "the router keeps the other nodes' ways"
    )


def test_words_and_a_still_picture() -> None:
    made = talks(calico())
    assert "gives up in " in made.words
    bundle = made._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "<img src=" in data["text/html"]
    assert "node-1&#x27;s side" in data["text/html"]
    assert data["text/plain"] == "BgpSessions(3 of 3 established, 0 s)"


def test_messages_of_the_browser() -> None:
    made = talks(calico())
    for act, value in (
        ("cut", None),
        ("wait", 10),
        ("mend", None),
        ("kill", "node-3"),
        ("start", "node-3"),
        ("next", None),
    ):
        made._told(made, {"act": act, "value": value}, [])
    assert made.world.now > 10
    assert any("BIRD on node-3 is killed" in what for what in told(made))


@pytest.mark.parametrize("cni", ["calico-vxlan", "flannel"])
def test_where_nobody_speaks_bgp(cni: str) -> None:
    with pytest.raises(ValueError, match="nobody speaks BGP"):
        BgpSessions(shop(cni=cni))
