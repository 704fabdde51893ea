"""Recorded worlds as objects, and generated large ones."""

from __future__ import annotations

import random
from typing import Any

from kubenet_lab.objects import AnyObject, from_manifest
from kubenet_lab.policy.world import TABLE, Conventions, World
from tests.oracles import cases, open_case

Json = dict[str, Any]


def manifests(world: Json) -> list[Json]:
    """A recorded world as manifests, pods running."""
    made: list[Json] = []
    for name, labels in world["namespaces"].items():
        made.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    for node in world.get("nodes", ()):
        addresses = [{"type": "InternalIP", "address": ip} for ip in node["ips"]]
        metadata = {"name": node["name"], "labels": node["labels"]}
        made.append(
            {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": {"addresses": addresses}}
        )
    for pod in world["pods"]:
        ports = [
            {"containerPort": port["port"], "protocol": port["protocol"]}
            | ({"name": port["name"]} if port["name"] else {})
            for port in pod["ports"]
        ]
        made.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": pod["name"], "namespace": pod["namespace"], "labels": pod["labels"]},
                "spec": {
                    "nodeName": pod.get("node", "node1"),
                    "containers": [{"name": "c", "image": "x:1", "ports": ports}],
                },
                "status": {"phase": "Running", "podIP": pod["ip"], "podIPs": [{"ip": pod["ip"]}]},
            }
        )
    banp = [world["banp"]] if world.get("banp") else []
    return made + world["policies"] + world.get("anps", []) + banp + world.get("cnps", [])


def objects(world: Json) -> list[AnyObject]:
    """A recorded world as objects."""
    return [from_manifest(manifest) for manifest in manifests(world)]


def world_of(case: Json, conventions: Conventions = TABLE) -> World:
    """A recorded world as a `World`."""
    return World.from_objects(objects(case), case.get("external", ()), conventions)


def tables(prefix: str) -> list[str]:
    """The names of the cases that have a table."""
    return [
        name for name in cases("policy", prefix) if prefix != "edges-" or open_case("policy", name)["valid"]
    ]


def steps() -> list[tuple[str, Json]]:
    """Every step of every cyclonus case, each as a world of its own."""
    found = []
    for name in cases("policy", "cyclonus-"):
        case = open_case("policy", name)
        for number, step in enumerate(case["steps"], start=1):
            world = {"namespaces": case["namespaces"], "pods": case["pods"], **step}
            found.append((f"{name}.{number}", world))
    return found


def differences(case: Json, got: dict[str, list[str]], want: dict[str, list[str]]) -> list[str]:
    """Where two tables differ, readable."""
    order = case.get("order") or case["podOrder"]
    return [
        f"{probe} {order[i]} -> {order[j]}: {got[probe][i][j]} instead of {want[probe][i][j]}"
        for probe in want
        for i in range(len(order))
        for j in range(len(order))
        if got[probe][i][j] != want[probe][i][j]
    ]


def large(pods: int, policies: int, seed: int = 1) -> World:
    """A company's world, built as `perf` of the recorded times says.

    Three namespaces for a hundred pods, two labels and two ports a pod; policies spread over the namespaces with one
    selector each, one or both directions, one or two rules of one or two selector peers, ports on 60 % of the rules.
    """
    chance = random.Random(f"{seed}/{pods}/{policies}")
    spaces = [f"ns{number:03}" for number in range(max(3, 3 * pods // 100))]
    labels = {
        name: {"team": f"t{number % 7}", "env": ("prod", "dev")[number % 2]}
        for number, name in enumerate(spaces)
    }
    made = []
    for number in range(pods):
        app, tier = f"app{chance.randint(0, 19)}", chance.choice(("fe", "be", "db"))
        made.append(
            {
                "namespace": spaces[number % len(spaces)],
                "name": f"pod{number:05}",
                "labels": {"app": app, "tier": tier},
                "ip": f"10.{128 + number // 60000}.{number // 250 % 256}.{number % 250 + 1}",
                "ports": [
                    {"port": 80, "protocol": "TCP", "name": ""},
                    {"port": 53, "protocol": "UDP", "name": ""},
                ],
            }
        )

    def selector() -> Json:
        if chance.random() < 0.6:
            return {"matchLabels": {"app": f"app{chance.randint(0, 19)}"}}
        values = sorted(chance.sample(("fe", "be", "db"), 2))
        return {"matchExpressions": [{"key": "tier", "operator": "In", "values": values}]}

    def peer() -> Json:
        kind = chance.random()
        if kind < 0.4:
            return {"podSelector": selector()}
        team = {"matchLabels": {"team": f"t{chance.randint(0, 6)}"}}
        env = {"matchLabels": {"env": chance.choice(("prod", "dev"))}}
        space = team if chance.random() < 0.6 else env
        return {"namespaceSelector": space, **({} if kind < 0.7 else {"podSelector": selector()})}

    def rule(field: str) -> Json:
        rule: Json = {field: [peer() for _ in range(chance.randint(1, 2))]}
        if chance.random() < 0.6:
            choice: list[Json] = [
                {"protocol": "TCP", "port": 80},
                {"protocol": "UDP", "port": 53},
                {"protocol": "TCP", "port": 8000, "endPort": 8999},
            ]
            rule["ports"] = [chance.choice(choice) for _ in range(chance.randint(1, 2))]
        return rule

    rules = []
    for number in range(policies):
        types = chance.choice((["Ingress"], ["Egress"], ["Ingress", "Egress"]))
        spec: Json = {"podSelector": selector(), "policyTypes": types}
        for kind, field, peers in (("Ingress", "ingress", "from"), ("Egress", "egress", "to")):
            if kind in types:
                spec[field] = [rule(peers) for _ in range(chance.randint(1, 2))]
        metadata = {"name": f"p{number:04}", "namespace": spaces[number % len(spaces)]}
        rules.append(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": metadata,
                "spec": spec,
            }
        )
    return world_of({"namespaces": labels, "pods": made, "policies": rules, "external": ["203.0.113.7"]})
