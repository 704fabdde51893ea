"""The panel of policies: what typing and choosing do, without a browser."""

from __future__ import annotations

import pytest

from kubenet_lab import manifests
from kubenet_lab.policy.workloads import with_pods
from kubenet_lab.policy.world import CLUSTER, World
from kubenet_lab.scenarios.shop import MANIFEST as SHOP
from kubenet_lab.widgets.reach import ReachPanel

POLICY = """apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: database
spec:
  podSelector:
    matchLabels: {app: database}
  ingress:
  - from:
    - podSelector:
        matchLabels: {app: backend}
"""


@pytest.fixture
def panel() -> ReachPanel:
    return ReachPanel(World.from_objects(with_pods(manifests.load(SHOP)), conventions=CLUSTER))


def test_the_matrix_follows_the_text(panel: ReachPanel) -> None:
    assert panel.found.words("frontend", "database") == "everything"
    panel.text.value = POLICY
    assert panel.found.words("frontend", "database") == "nothing"
    assert panel.found.words("backend", "database") == "everything"
    assert "was everything" in panel.picture.svg
    panel.text.value = POLICY.replace("app: backend", "app: frontend")
    assert panel.found.words("frontend", "database") == "everything"
    panel.text.value = "# nothing yet\n"
    assert panel.found == panel.before


def test_a_fault_is_told_and_the_matrix_stays(panel: ReachPanel) -> None:
    panel.text.value = POLICY
    drawn = panel.picture.svg
    panel.text.value = POLICY.replace("  ingress:", "  ingres:")
    assert 'unknown field "spec.ingres"' in panel.faults[0]
    assert "traffic:" in panel.said.value
    assert panel.picture.svg == drawn
    panel.text.value = POLICY + "\t"
    assert panel.faults
    panel.text.value = POLICY
    assert not panel.faults
    assert panel.said.value == ""


def test_a_cell_explains_itself(panel: ReachPanel) -> None:
    panel.text.value = POLICY
    panel.select("frontend", "database")
    assert "DENIED by the ingress of default/database" in panel.explanation
    assert "5432/TCP" in panel.why.value
    panel.select("outside", "database")
    assert "198.51.100.7" in panel.explanation
    panel.text.value = ""
    assert "ALLOWED" in panel.explanation
    with pytest.raises(KeyError):
        panel.select("frontend", "frontend")
    bundle = panel._repr_mimebundle_()
    assert "<img src=" in bundle["text/html"]
    assert bundle["text/plain"] == "ReachPanel(4 by 4, 0 policies)"
