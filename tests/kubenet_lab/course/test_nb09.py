"""09_choose_a_network: what each network meets, and what the judge accepts and refuses."""

from __future__ import annotations

import pytest

from kubenet_lab.course.exercises import nb09
from kubenet_lab.course.lessons import nb09 as lesson
from kubenet_lab.errors import InputError

GOOD = "bakery: flannel-host-gw\nclinic: calico\nstudio: cilium-native\nuniversity: calico-cross\nbank: cilium # L7\n"


def test_another_good_choice_passes() -> None:
    found = nb09.PICK.judge(GOOD)
    assert found.passed, found.text


@pytest.mark.parametrize(
    ("company", "key", "says"),
    [
        ("clinic", "flannel", "nobody enforces it"),
        ("clinic", "calico-ipip", "protocol 4 dropped"),
        ("clinic", "cilium", "need Linux 5.10"),
        ("studio", "calico-cross", "1452"),
        ("university", "calico", "no route leads"),
        ("university", "calico-ipip", "outer header (IPIP)"),
        ("bank", "calico-vxlan", "no requests"),
        ("bank", "cilium-native", "frontend's call to the backend on node-3"),
    ],
)
def test_what_a_network_lacks_is_named(company: str, key: str, says: str) -> None:
    assert says in nb09.failing(company, key)


def test_a_missing_line_and_a_wrong_word_are_named() -> None:
    found = nb09.PICK.judge("bakery: flannel\n")
    assert not found.passed
    assert "clinic has no network yet" in found.text
    with pytest.raises(InputError, match="none of the networks"):
        nb09.PICK.judge("bakery: weave\n")
    with pytest.raises(InputError, match="none of the companies"):
        nb09.PICK.judge("baker: flannel\n")


def test_the_flow_is_measured_in_each() -> None:
    rows = {row.question: [cell.what for cell in row.cells] for row in lesson.one_flow().rows}
    assert rows["Around the packet between the nodes"] == ["VXLAN", "IPIP", "nothing", "VXLAN"]
    first = [int(text.split()[0]) for text in rows["The first IP packet between them has"]]
    assert [size - first[2] for size in first] == [50, 20, 0, 50]


def test_light_is_not_faster_than_light() -> None:
    assert [row[1] for row in lesson.light(100, 1000).rows] == ["1 ms", "10 ms"]
