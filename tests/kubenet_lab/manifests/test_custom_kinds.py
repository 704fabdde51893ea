"""Custom kinds: fields and limits from the definitions that are published, or read along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec import inspect

from kubenet_lab.errors import InputError
from kubenet_lab.manifests import customkinds, load
from kubenet_lab.manifests.customkinds import published
from kubenet_lab.objects import (
    AdminNetworkPolicy,
    ApiObject,
    BaselineAdminNetworkPolicy,
    ClusterNetworkPolicy,
    Generic,
)

ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge}]
  hostnames: [shop.example.com]
  rules:
  - matches: [{path: {type: PathPrefix, value: /}}]
    backendRefs: [{name: web, port: 80}]
"""
POLICY = """
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: deny}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  ingress:
  - action: Deny
    from: [{namespaces: {matchLabels: {team: red}}}]
"""
ADMIN = """
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: deny}
spec:
  priority: 10
  subject: {namespaces: {}}
  ingress: [{action: Deny, from: [{namespaces: {}}]}]
"""
CALICO = """
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: deny, namespace: demo}
spec: {selector: all(), types: [Ingress]}
"""
CILIUM = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: deny, namespace: demo}
spec: {endpointSelector: {}, ingress: [{fromEndpoints: [{}]}]}
"""


@pytest.mark.parametrize(
    ("text", "resource", "namespaced"),
    [
        (ROUTE, "httproutes", True),
        (CALICO, "", True),
        (CILIUM, "", True),
    ],
)
def test_custom_objects_are_carried_whole(text: str, resource: str, namespaced: bool) -> None:
    (obj,) = load(text)
    assert isinstance(obj, Generic)
    assert (obj.resource, obj.namespaced) == (resource, namespaced)
    assert obj.metadata.namespace == ("" if not namespaced else obj.metadata.namespace or "default")
    assert load(json.dumps(obj.to_manifest())) == [obj]


@pytest.mark.parametrize(("text", "cls"), [(POLICY, ClusterNetworkPolicy), (ADMIN, AdminNetworkPolicy)])
def test_the_policies_of_a_cluster_are_typed(text: str, cls: type[ApiObject]) -> None:
    (obj,) = load(text)
    assert isinstance(obj, cls)
    assert obj.namespace == ""
    assert load(json.dumps(obj.to_manifest())) == [obj]


@pytest.mark.parametrize("cls", [AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy])
def test_the_types_of_custom_kinds_have_every_published_field(cls: type[ApiObject]) -> None:
    def compare(given: object, schema: dict[str, Any], path: str) -> None:
        if "items" in schema:
            compare(given, schema["items"], f"{path}[]")
        properties = schema.get("properties") or {}
        for struct in structs(given) if properties else ():
            fields = {field.encode_name: field.type for field in struct.fields}
            for name, inner in properties.items():
                if not path and name in ("apiVersion", "kind", "metadata", "status"):
                    continue
                assert name in fields, f"{path}.{name} is lost in {struct.cls}"
                compare(fields[name], inner, f"{path}.{name}")

    def structs(given: object) -> list[inspect.StructType]:
        if isinstance(given, inspect.StructType):
            return [given]
        if isinstance(given, inspect.UnionType):
            return [found for item in given.types for found in structs(item)]
        return structs(given.item_type) if isinstance(given, inspect.VarTupleType) else []

    kind = customkinds.published()[f"{cls.api_version}/{cls.kind}"]
    assert (kind.resource, kind.namespaced) == (cls.resource, cls.namespaced)
    compare(inspect.type_info(cls), kind.schema, "")


@pytest.mark.parametrize(
    ("text", "old", "new", "says"),
    [
        (
            ROUTE,
            "backendRefs",
            "backendRef",
            'unknown field "spec.rules[0].backendRef"\n    help: did you mean',
        ),
        (ROUTE, "port: 80", "port: 70000", "in body should be less than or equal to 65535"),
        (ROUTE, "port: 80", "port: http", 'port in body must be of type integer: "string"'),
        (ROUTE, "PathPrefix", "Prefix", 'supported values: "Exact", "PathPrefix", "RegularExpression"'),
        (ROUTE, "shop.example.com", "Shop_1", "spec.hostnames[0] in body should match"),
        (ROUTE, "kind: HTTPRoute", "kind: HttpRoutes", "did you mean kind: HTTPRoute"),
        (
            POLICY,
            "{namespaces: {matchLabels",
            "{pods: {podSelector: {}}, namespaces: {matchLabels",
            "Too many: 2: must have at",
        ),
        (
            POLICY,
            "subject: {namespaces: {}}",
            "subject: {}",
            "spec.subject in body should have at least 1 properties",
        ),
        (
            POLICY,
            "- action: Deny",
            "- protocols: [{}]\n    action: Deny",
            "spec.ingress[0].protocols[0] in body should",
        ),
        (POLICY, "action: Deny", "action: Reject", 'Unsupported value: "Reject"'),
        (POLICY, "  priority: 10\n", "", "spec.priority: Required value"),
        (ADMIN, "priority: 10", "priority: 1001", "less than or equal to 1000"),
    ],
)
def test_what_the_schema_refuses(text: str, old: str, new: str, says: str) -> None:
    assert old in text
    with pytest.raises(InputError) as caught:
        load(text.replace(old, new))
    assert says in str(caught.value)
    assert all(fault.line for fault in caught.value.faults)


def test_a_definition_that_is_read_teaches_its_kind() -> None:
    definition = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: lamps.example.com}
spec:
  group: example.com
  scope: Cluster
  names: {kind: Lamp, plural: lamps, singular: lamp, listKind: LampList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, required: [watts], properties: {watts: {type: integer, minimum: 1}}}
---
"""
    lamp = "apiVersion: example.com/v1\nkind: Lamp\nmetadata: {name: a}\nspec: {watts: 60}\n"
    obj = load(definition + lamp)[1]
    assert isinstance(obj, Generic)
    assert (obj.resource, obj.namespaced) == ("lamps", False)
    for old, new, says in (
        ("watts: 60", "watts: 0", "greater than or equal to 1"),
        ("watts: 60", "Watts: 60", 'unknown field "spec.Watts"'),
        ("watts: 60", "", "spec.watts: Required value"),
    ):
        with pytest.raises(InputError) as caught:
            load(definition + lamp.replace(old, new))
        assert says in str(caught.value)
    # Alone, nobody knows its fields.
    assert load(lamp.replace("watts", "anything"))


def test_the_published_kinds() -> None:
    kinds = published()
    for key in (
        "gateway.networking.k8s.io/v1/Gateway",
        "policy.networking.k8s.io/v1alpha1/BaselineAdminNetworkPolicy",
    ):
        assert kinds[key].schema["properties"]["spec"]["type"] == "object"
    path = Path(load.__code__.co_filename).with_name("customkinds.json")
    assert path.stat().st_size < 200_000
