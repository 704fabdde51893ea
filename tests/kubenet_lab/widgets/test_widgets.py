"""What the widgets send to the browser, and what stands in for them where no browser script runs."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pictures import trips

from kubenet_lab import scenarios, widgets
from kubenet_lab.kernel.dump import dump
from kubenet_lab.views.cluster_map import key, lay_out, model_of
from kubenet_lab.views.text import trip_story
from kubenet_lab.views.trip_steps import story
from kubenet_lab.widgets import ClusterMap, StateDiff, TripStepper
from kubenet_lab.widgets.trip_stepper import LETTER_HEIGHT, marks_of

MOMENTS = ("Sent", "Destination rewritten", "Wrapped in a tunnel packet", "Arrived")


@pytest.fixture(autouse=True)
def closed() -> Any:
    """Widgets stay open until told otherwise."""
    yield
    from ipywidgets import Widget

    Widget.close_all()


def test_the_stepper_sends_one_row_a_step_with_a_way_on_the_map() -> None:
    stepper = TripStepper(trips.connected(), trips.network())
    told = stepper.told
    assert json.loads(json.dumps(told)) == told
    assert {row["leg"] for row in told["rows"]} == {0, 1, 2}
    assert told["rows"][stepper.step]["main"]
    ends = [row["path"][-1] for row in told["rows"] if row["leg"] == 1]
    assert all(ends)
    assert ends[0] != ends[-1]


def test_each_way_goes_on_where_the_last_one_stopped() -> None:
    rows = [row for row in TripStepper(trips.connected(), trips.network()).told["rows"] if row["leg"] == 1]
    for before, after in pairwise(rows):
        assert after["path"][0] == before["path"][-1]


def test_no_letter_rests_on_what_a_pod_s_box_says() -> None:
    trip, network = trips.connected(), trips.network()
    stepper = TripStepper(trip, network)
    layout = lay_out(model_of(network), [leg.trace for leg in story(trip).legs], marks=marks_of(trip))
    rows = [row for row in stepper.told["rows"] if row["at"].startswith("default/")]
    assert len(rows) >= 4
    for row in rows:
        box, (_, y) = layout.boxes[row["at"]], row["path"][-1]
        assert y - LETTER_HEIGHT / 2 >= box.bottom


def test_a_caller_outside_is_marked_with_the_address_it_has() -> None:
    world = scenarios.shop()
    trip = world.connect("203.0.113.77", "http://192.168.1.10:30080")
    assert marks_of(trip)[trip.source_ns] == "▸ caller 203.0.113.77"
    assert "▸ caller 203.0.113.77" in TripStepper(trip, world.network).svg
    inside = world.connect("frontend", "http://backend")
    assert marks_of(inside)[inside.source_ns] == "▸ caller"


def test_each_step_is_at_a_thing_that_can_be_lit_up_on_the_map() -> None:
    stepper = TripStepper(trips.connected(), trips.network())
    rows = [row for row in stepper.told["rows"] if row["leg"] == 1]
    for row in rows:
        netns, _, link = row["at"].partition("#")
        assert f'data-netns="{netns}" data-link="{link}"' in stepper.svg
    assert [row["at"] for row in rows if row["title"] in MOMENTS] == [
        "default/frontend#",
        "node-1#",
        "node-1#flannel.1",
        "default/backend-2#",
    ]


def test_the_words_tell_the_story_first_and_then_every_step() -> None:
    trip = trips.connected()
    words = TripStepper(trip, trips.network()).words
    assert words.startswith(trip_story(trip))
    assert words.endswith(trip.text())


def test_the_end_of_a_dropped_packet_is_shown_where_it_was_dropped() -> None:
    stepper = TripStepper(trips.dropped(), trips.network())
    last = stepper.told["rows"][-1]
    assert last["title"] == "Ended"
    assert stepper.told["decided"] == "-A INPUT -p udp -m udp --dport 8472 -j DROP"
    assert not stepper.told["delivered"]


def test_headers_are_sent_once() -> None:
    told = TripStepper(trips.connected(), trips.network()).told
    assert max(row["headers"] for row in told["rows"]) == len(told["headers"]) - 1
    assert len(told["headers"]) < len(told["rows"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: TripStepper(trips.connected(), trips.network()),
        lambda: ClusterMap(trips.network(), trips.NAMES),
        lambda: StateDiff([("a", "one\ntwo"), ("b", "one\nthree")]),
    ],
)
def test_every_widget_has_a_still_picture_and_a_repr_that_repeats(make: Any) -> None:
    first, second = make(), make()
    assert repr(first) == repr(second)
    assert "0x" not in repr(first)
    bundle = first._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert data["text/plain"] == repr(first)
    assert "<script" not in data["text/html"]
    assert "application/vnd.jupyter.widget-view+json" in data
    assert first.words


def test_the_map_follows_the_world() -> None:
    network = trips.network()
    shown = ClusterMap(network, trips.NAMES, selected=key("node-1", "cni0"))
    assert "default/backend-2" in shown.svg
    network.delete_netns("default/backend-2")
    shown.update(faults={key("node-1", "cni0"): "unplugged"})
    assert "default/backend-2" not in shown.svg
    assert "unplugged" in shown.svg
    assert shown.selected == "node-1#cni0"


def test_the_diff_compares_the_moments_that_are_chosen() -> None:
    network = trips.network()
    first = dump(network)
    network.ns("node-1").set_sysctl("net.ipv4.ip_forward", 1)
    second = dump(network)
    network.ns("node-1").delete_route("default")
    third = dump(network)
    diff = StateDiff([("start", first), ("forwarding", second), ("no way out", third)])
    assert {row["kind"] for row in diff.rows} == {"sysctl", "route"}
    diff.before = 1
    assert [(row["word"], row["command"]) for row in diff.rows] == [
        ("removed", "ip route del default via 192.168.1.1 dev eth0")
    ]
    diff.after = 1
    assert diff.rows == []
    assert diff.words == "nothing changed"


def test_one_moment_is_refused() -> None:
    with pytest.raises(ValueError, match="two moments"):
        StateDiff([("only", "text")])


def test_scripts_are_small_and_ask_for_nothing() -> None:
    folder = Path(widgets.__file__).parent
    scripts = sorted(folder.glob("*.js"))
    assert len(scripts) >= 3
    for script in scripts:
        text = script.read_text()
        assert len(text) < 16_000
        assert "import " not in text
        assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "innerHTML" not in text
