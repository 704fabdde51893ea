"""The listing of workloads, held to netpol-analyzer's."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from kubenet_lab.objects import AnyObject, from_manifest
from kubenet_lab.policy.workloads import with_pods
from kubenet_lab.policy.world import World
from kubenet_lab.reach.listing import listing
from tests.oracles import cases, open_case


def objects(case: dict[str, Any]) -> list[AnyObject]:
    """The manifests of a case, as loosely read as that tool reads them: some would be refused by an API server."""
    found = []
    for text in case["inputs"].values():
        for document in yaml.safe_load_all(text):
            for item in document["items"] if document and document["kind"] == "List" else [document]:
                if not item or item["kind"] == "Service":
                    continue
                metadata = item["metadata"]
                if item["kind"] != "Namespace":
                    metadata.setdefault("namespace", "default")
                for owner in metadata.get("ownerReferences", ()):
                    owner.setdefault("apiVersion", "apps/v1")
                    owner.setdefault("kind", "Pod")
                for container in (
                    (item.get("spec") or {}).get("template", {}).get("spec", {}).get("containers", ())
                ):
                    container["ports"] = [
                        port for port in container.get("ports") or () if "containerPort" in port
                    ]
                found.append(from_manifest(item))
    return with_pods(found)


@pytest.mark.parametrize("name", cases("policy", "analyzer-"))
def test_directories_of_netpol_analyzer(name: str) -> None:
    case = open_case("policy", name)
    got = [str(connection) for connection in listing(World.from_objects(objects(case))).connections]
    # Its lists call a workload by what a person wrote; pods of one owner whose labels differ count as one.
    assert [line.removesuffix(" (some of the pods)") for line in got] == sorted(case["expected"].splitlines())
