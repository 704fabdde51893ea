"""A trip's rows, sentences, picture and page."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest
from pictures import trips as made
from pictures.svg import boxed_faults, faults, texts

from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.socket import Socket
from kubenet_lab.packet.packet import SYN, TCP, UDP, Frame, Packet
from kubenet_lab.trace import Hop, Place, Step
from kubenet_lab.trip import Trip
from kubenet_lab.views import story, trip_html, trip_svg
from kubenet_lab.views.cluster_map import key, lay_out, map_svg, model_of, way
from kubenet_lab.views.tables import STEP_COLUMNS, steps_frame
from kubenet_lab.views.text import map_text, trip_story
from kubenet_lab.views.trip_steps import headers
from kubenet_lab.views.words import KINDS, is_main, sentence, socket_words

TRIPS = {"connected": made.connected(), "dropped": made.dropped()}


def test_the_story_has_a_readable_number_of_steps() -> None:
    told = story(TRIPS["connected"])
    assert 15 <= len(told.main_rows) <= 30
    assert len(told.rows) > 2 * len(told.main_rows)
    assert [row.index for row in told.rows] == list(range(len(told.rows)))
    assert [leg.title for leg in told.legs] == ["Name lookup 1: question", "The call", "The answer"]


def test_a_good_name_lookup_is_folded_into_one_line() -> None:
    told = story(TRIPS["connected"])
    assert told.lookups == (
        "backend.default.svc.cluster.local. A, asked of Service kube-system/kube-dns (10.96.0.10): 10.96.0.100",
    )
    assert all(row.leg != 0 for row in told.main_rows)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (
            "send",
            "pod frontend sends a TCP SYN (shall we talk?) from pod frontend (10.244.0.2) port 32768 "
            "to Service backend (10.96.0.100) port 80.",
        ),
        (
            "nat",
            "node-1 rewrites the destination: 10.96.0.100:80 (Service backend) "
            "becomes 10.244.1.2:8080 (pod backend-2).",
        ),
        (
            "encapsulate",
            "The device flannel.1 puts the whole frame into a new packet from node-1 (192.168.1.10) "
            "to node-2 (192.168.1.20): a letter in a letter (VXLAN, UDP port 8472).",
        ),
        (
            "decapsulate",
            "The device flannel.1 opens the outer packet and takes the frame out that was inside.",
        ),
        ("deliver", "It has arrived: pod backend-2 takes it, socket 0.0.0.0:8080 (backend)."),
    ],
)
def test_sentences_name_who_and_what(kind: str, words: str) -> None:
    told = story(TRIPS["connected"])
    row = next(row for row in told.rows if row.leg == 1 and row.kind == kind)
    assert row.sentence == words


def test_every_kind_of_step_of_the_contract_has_a_sentence() -> None:
    documented = {
        kind.strip()
        for kind in (Step.__doc__ or "")
        .partition("is one of:")[2]
        .partition("`spot`")[0]
        .strip(" .\n")
        .split(",")
    }
    documented = {kind.split(".")[0].strip() for kind in documented}
    assert documented
    assert documented <= KINDS
    hop = Hop("node-1", "node-1", "", made.SYN_OUT, [])
    for kind in documented:
        words = sentence(Step(kind, "spot"), hop, {})
        assert words.endswith(".")


def test_the_rewrite_names_its_rule_and_its_connection() -> None:
    row = next(row for row in story(TRIPS["connected"]).rows if row.leg == 1 and row.kind == "nat")
    assert row.entry == f"-A {made.SEP} -p tcp -m tcp -j DNAT --to-destination 10.244.1.2:8080"
    assert row.command == f"iptables -t nat -S {made.SEP}"
    assert row.conntrack == made.FLOW
    changed = {f.name: (f.was, f.value) for h in row.headers for f in h.fields if f.mark == "changed"}
    assert changed == {"to": ("10.96.0.100", "10.244.1.2"), "to port": ("80", "8080")}


def test_route_command_asks_for_the_rewritten_destination() -> None:
    rows = [row for row in story(TRIPS["connected"]).rows if row.leg == 1 and row.kind == "route"]
    assert [row.command for row in rows[:3]] == [
        "ip route get 10.96.0.100",
        "ip route get 10.244.1.2",
        "ip route get 192.168.1.20",
    ]


def test_a_letter_in_a_letter_is_added_and_removed_whole() -> None:
    inner = made.SYN_OUT
    frame = Frame(made.VTEP_1, made.VTEP_2, inner)
    outer = Packet("192.168.1.10", "192.168.1.20", UDP, 51000, 8472, inner=frame, vni=1)
    wrapped = headers(outer, inner)
    assert [(h.name, h.depth, h.mark) for h in wrapped] == [
        ("IPv4", 0, "added"),
        ("UDP", 0, "added"),
        ("VXLAN", 0, "added"),
        ("Ethernet", 1, ""),
        ("IPv4", 1, ""),
        ("TCP", 1, ""),
    ]
    opened = headers(frame, Frame(made.ETH_1, made.ETH_2, outer))
    assert [(h.name, h.mark) for h in opened] == [
        ("Ethernet", "removed"),
        ("IPv4", "removed"),
        ("UDP", "removed"),
        ("VXLAN", "removed"),
        ("Ethernet", ""),
        ("IPv4", ""),
        ("TCP", ""),
    ]
    assert not [f for h in (*wrapped, *opened) for f in h.fields if f.mark == "changed"]


def test_a_changed_field_keeps_its_old_value() -> None:
    packet = Packet("10.0.0.1", "10.0.0.2", TCP, 1, 2, ttl=64, flags=SYN)
    ip = headers(packet.replace(ttl=63), packet)[0]
    assert [(f.name, f.value, f.was) for f in ip.fields if f.mark == "changed"] == [("TTL", "63", "64")]


@pytest.mark.parametrize("name", TRIPS)
def test_the_strip_is_readable(name: str) -> None:
    svg = trip_svg(TRIPS[name])
    assert faults(svg) == []
    assert boxed_faults(svg) == []


def test_the_verdict_names_place_and_rule() -> None:
    shown = [text.words for text in texts(trip_svg(TRIPS["dropped"]))]
    assert "pod frontend called http://backend: timed out" in shown
    assert "a netfilter rule dropped it (node-2, INPUT filter)" in shown
    assert "-A INPUT -p udp -m udp --dport 8472 -j DROP" in shown
    assert "takes it" not in shown


def test_a_card_shows_the_rule_without_its_noise() -> None:
    shown = [text.words for text in texts(trip_svg(TRIPS["connected"]))]
    at = shown.index(f"-A {made.SEP} -p tcp")
    assert shown[at + 1] == "-j DNAT --to-destination 10.244.1.2:8080"
    assert "as its conntrack entry says" in shown
    assert "takes it" in shown


def test_answers_stand_under_the_cards_they_answer() -> None:
    cards = [
        (float(n.attrib["x"]), float(n.attrib["width"]), float(n.attrib["y"]))
        for n in ElementTree.fromstring(trip_svg(TRIPS["connected"])).iter("{http://www.w3.org/2000/svg}rect")
        if {"f-pod", "f-card"} & set(n.get("class", "").split())
    ]
    rows = sorted({y for _, _, y in cards})
    assert len(rows) == 2
    there, back = ([(x, w) for x, w, y in cards if y == row] for row in rows)
    assert there == back
    assert len({w for _, w in there}) > 1, "a card is as wide as its words"


def _lost(reason: str, mac: str = made.VTEP_2) -> Trip:
    """The call with its request lost at node-1's flannel.1 (or at its hooks) for a reason."""
    trip = made.connected()
    assert trip.exchange is not None
    request = trip.exchange.request
    hop = request.hops[1]
    del request.hops[2:]
    hop.steps[-2:] = [Step("end", reason, note=f"flannel.1 has no FDB entry for {mac}")]
    request.verdict, request.reason, request.place = "dropped", reason, Place("node-1", "flannel.1")
    request.decided_by = f"flannel.1 has no FDB entry for {mac}"
    trip.exchange.traces[:] = [request]
    trip.exchange.verdict, trip.exchange.reason = "timed out", reason
    trip.exchange.decided_by, trip.exchange.place = request.decided_by, request.place
    trip.server = None
    return trip


def test_a_lost_call_says_what_it_would_have_needed() -> None:
    trip = _lost("no-vtep")
    names = {**made.NAMES, "10.244.1.0": "node node-2 flannel.1"}
    wanted = (
        f"an FDB entry of flannel.1 on node-1 for {made.VTEP_2}, the MAC of node-2's flannel.1 (10.244.1.0), "
        "so that its packets go to 192.168.1.20"
    )
    told = story(trip, names)
    assert told.needed == wanted
    assert f"It would have needed {wanted}." in trip_story(trip, names)
    assert "It would have needed an FDB entry" in trip_html(trip, names)
    svg = trip_svg(trip, names)
    assert faults(svg) == []
    assert f"It would have needed {wanted}." in " ".join(text.words for text in texts(svg))
    assert story(trip, {}).needed == (
        f"an FDB entry of flannel.1 on node-1 that says which host has the MAC {made.VTEP_2} of 10.244.1.0"
    )


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("no-listener", "a process on node-1 that listens on 10.244.1.2:8080 (tcp)"),
        ("no-route", "a route on node-1 to 10.244.1.2"),
        ("not-forwarding", "the sysctl net.ipv4.ip_forward = 1 on node-1"),
        ("conntrack-clash", ""),
    ],
)
def test_what_is_needed_follows_from_the_reason(reason: str, words: str) -> None:
    assert story(_lost(reason)).needed == words


def test_a_dropping_rule_would_have_needed_another_before_it() -> None:
    assert story(TRIPS["dropped"]).needed == (
        "a rule before rule 1 of INPUT (table filter) on node-2 that accepts it"
    )
    assert story(TRIPS["connected"]).needed == ""


def test_a_v6_socket_is_written_with_brackets() -> None:
    assert socket_words(Socket(TCP, "::", 8080, "backend")) == "socket [::]:8080 (backend)"
    assert socket_words(Socket(TCP, "0.0.0.0", 80)) == "socket 0.0.0.0:80"


def test_questions_asked_again_are_told_once() -> None:
    trip = made.connected()
    trip.queries *= 2
    (lookup,) = story(trip).lookups
    assert lookup.endswith("10.96.0.100 (asked 2 times)")


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", TRIPS)
def test_the_page_stands_alone(name: str) -> None:
    html = trip_html(TRIPS[name])
    tags = _Tags()
    tags.feed(html)
    assert not tags.open
    assert not {"script", "style", "link", "iframe", "svg"} & {tag for tag, _ in tags.found}
    sources = [attrs["src"] for tag, attrs in tags.found if tag == "img"]
    assert len(sources) == 1
    assert sources[0] is not None
    ElementTree.fromstring(base64.b64decode(sources[0].removeprefix("data:image/svg+xml;base64,")))
    assert not re.findall(r"(?:src|href)=\"http", html)


def test_names_cannot_break_the_page() -> None:
    evil = made.connected()
    trip = Trip(
        evil.source,
        evil.source_ns,
        '<script>alert("1")</script>',
        evil.host,
        evil.port,
        evil.protocol,
        evil.address,
        evil.queries,
        evil.exchange,
        names={"10.96.0.100": 'Service a/<b>&"x'},
        server=evil.server,
    )
    html = trip_html(trip)
    assert "<script" not in html
    assert "<b>&" not in html
    assert "&lt;b&gt;&amp;" in html


def test_steps_frame_has_one_row_a_step() -> None:
    told = story(TRIPS["connected"])
    frame = steps_frame(TRIPS["connected"])
    assert list(frame.columns) == list(STEP_COLUMNS)
    assert len(frame) == len(told.rows)
    rewritten = frame[frame.step == "Destination rewritten"].iloc[0]
    assert (rewritten.src, rewritten.dst) == ("10.244.0.2", "10.244.1.2")


def test_the_text_tells_the_same_story() -> None:
    text = trip_story(TRIPS["connected"])
    for row in story(TRIPS["connected"]).main_rows:
        assert row.sentence in text
    assert "IPv4 to: 10.244.1.2, was 10.96.0.100" in text
    assert len(trip_story(TRIPS["connected"], every_step=True)) > len(text)


def test_map_of_a_network() -> None:
    model = model_of(made.network(), made.NAMES)
    assert [node.name for node in model.nodes] == ["node-1", "node-2"]
    assert [(host.name, host.role) for host in model.hosts] == [("router", "router")]
    assert [(pod.netns, pod.address, pod.master) for pod in model.nodes[1].pods] == [
        ("default/backend-2", "10.244.1.2", "cni0")
    ]
    assert {service.name for service in model.services} == {"default/backend", "kube-system/kube-dns"}
    svg = map_svg(model, TRIPS["connected"].traces[1:])
    assert faults(svg) == []
    text = map_text(model)
    assert "pod default/frontend 10.244.0.2" in text
    assert "flannel.1 (VXLAN, VNI 1) 10.244.0.0/32" in text


def test_the_call_crosses_the_map_by_its_devices() -> None:
    layout = lay_out(model_of(made.network(), made.NAMES))
    names = [name for name, _ in way(layout, TRIPS["connected"].traces[1])]
    assert names[:7] == [
        key("default/frontend"),
        key("default/frontend", "eth0"),
        key("node-1", "veth1"),
        key("node-1", "cni0"),
        key("node-1"),
        key("node-1", "flannel.1"),
        key("node-1", "eth0"),
    ]
    assert names[-1] == key("default/backend-2")


def test_a_bridged_packet_tells_of_its_bridge() -> None:
    entry = FdbEntry("veth2", made.POD_B, master="cni0")
    bridged = Hop("node-1", "node-1", "veth1", made.SYN_OUT, [Step("fdb", "cni0", entry)])
    routed = Hop(
        "node-1", "node-1", "veth1", made.SYN_OUT, [Step("route", "input"), Step("fdb", "cni0", entry)]
    )
    learning = Step("fdb", "cni0 learns", entry)
    assert is_main(bridged.steps[0], bridged)
    assert not is_main(routed.steps[1], routed)
    assert not is_main(learning, bridged)
    assert (
        sentence(learning, bridged, {})
        == f"The bridge cni0 learns that {made.POD_B} is behind its port veth2."
    )


def test_a_failed_name_lookup_is_the_story() -> None:
    lookup = made.connected()
    trip = Trip(lookup.source, lookup.source_ns, lookup.target, lookup.host, lookup.port, lookup.protocol, "",
                lookup.queries, None, "no-such-name", names=made.NAMES)  # fmt: skip
    told = story(trip)
    assert told.headline == "pod frontend called http://backend: could not resolve"
    assert told.why == "the name does not exist"
    assert {row.leg for row in told.main_rows} == {0}
    assert "Name lookup 1: question: a DNS message over UDP" in [text.words for text in texts(trip_svg(trip))]
