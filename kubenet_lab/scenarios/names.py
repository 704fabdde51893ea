"""The shop with a second namespace: whose names a pod can say how short, and what its resolver asks for each."""

from __future__ import annotations

import re
from typing import Any

from kubenet_lab.cluster import Cluster
from kubenet_lab.dns.client import RESOLV_CONF, lookup
from kubenet_lab.dns.resolvconf import KubeletDns, pod_dns
from kubenet_lab.objects import Pod
from kubenet_lab.objects.meta import ObjectMeta
from kubenet_lab.objects.pod import PodSpec
from kubenet_lab.scenarios.shop import shop
from kubenet_lab.views.dns_steps import DnsSteps, NameGrid, steps_of

PRODUCTION = """
apiVersion: v1
kind: Namespace
metadata: {name: production}
---
apiVersion: v1
kind: Service
metadata: {name: database, namespace: production}
spec: {clusterIP: 10.96.0.201, ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: production}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: sql, port: 5432}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: production}
spec:
  replicas: 2
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: postgres, ports: [{containerPort: 5432}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: partner, namespace: production}
spec: {type: ExternalName, externalName: www.example.com}
"""
POLICIES = ("ClusterFirst", "Default")
NAMES = ("backend", "database", "database.production", "database.production.svc.cluster.local", "example.com")


def names(**options: Any) -> Cluster:
    """The shop, and in namespace `production` a Service `database`, a headless `db` of two pods, and an alias."""
    world = shop(**options)
    world.apply(PRODUCTION)
    return world


def resolv_conf(
    world: Cluster, namespace: str, policy: str = "ClusterFirst", ndots: int | None = None
) -> str:
    """/etc/resolv.conf of a pod with that dnsPolicy in that namespace, its ndots perhaps another one."""
    host = world.network.ns("node-1").files.get(RESOLV_CONF, "")
    pod = Pod(metadata=ObjectMeta(name="client", namespace=namespace), spec=PodSpec(dns_policy=policy))
    text = pod_dns(pod, KubeletDns((world.cluster_dns,), "cluster.local", host)).text(host)
    if ndots is None:
        return text
    if "ndots:" in text:
        return re.sub(r"ndots:\d+", f"ndots:{ndots}", text)
    return f"{text.rstrip()}\noptions ndots:{ndots}\n"


def steps(
    world: Cluster,
    name: str,
    *,
    namespace: str = "default",
    libc: str = "glibc",
    policy: str = "ClusterFirst",
    ndots: int | None = None,
) -> DnsSteps:
    """Look a name up as a pod of that namespace would, and return every query in order."""
    conf = resolv_conf(world, namespace, policy, ndots)
    ns = world.network.ns(world.namespace_of("frontend"))
    found = lookup(world.walk(), ns, name, libc, resolv_conf=conf)
    return steps_of(name, conf, libc, found)


def grid(world: Cluster, *, libc: str = "glibc", names: tuple[str, ...] = NAMES) -> NameGrid:
    """Every name from both namespaces under both usual policies."""
    cells = {
        (name, namespace, policy): steps(world, name, namespace=namespace, policy=policy, libc=libc)
        for name in names
        for namespace in ("default", "production")
        for policy in POLICIES
    }
    return NameGrid(cells)
