"""Deployments and ReplicaSets, which make pods. https://kubernetes.io/docs/concepts/workloads/controllers/deployment/"""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from kubenet_lab.objects.meta import ApiObject, Json, Part
from kubenet_lab.objects.pod import PodTemplate
from kubenet_lab.objects.selector import LabelSelector


class RollingUpdate(Part, frozen=True, kw_only=True):
    """How many pods may be missing or too many during a roll-out: a number, or a share such as "25%"."""

    max_unavailable: int | str | None = None
    max_surge: int | str | None = None


class DeploymentStrategy(Part, frozen=True, kw_only=True):
    """`RollingUpdate`, or `Recreate`: all old pods go before the first new one comes."""

    type: str = ""
    rolling_update: RollingUpdate | None = None


class DeploymentSpec(Part, frozen=True, kw_only=True):
    """How many pods of which template."""

    replicas: int | None = None
    selector: LabelSelector = field(default_factory=LabelSelector)
    template: PodTemplate = field(default_factory=PodTemplate)
    strategy: DeploymentStrategy = DeploymentStrategy()
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None
    paused: bool = False
    progress_deadline_seconds: int | None = None


class DeploymentStatus(Part, frozen=True, kw_only=True):
    """What the deployment controller counted."""

    observed_generation: int = 0
    replicas: int = 0
    updated_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    unavailable_replicas: int = 0
    terminating_replicas: int | None = None
    conditions: tuple[Json, ...] = ()
    collision_count: int | None = None


class Deployment(ApiObject, frozen=True, kw_only=True):
    """Keeps a number of like pods, and rolls them over to a new template."""

    spec: DeploymentSpec = field(default_factory=DeploymentSpec)
    status: DeploymentStatus = field(default_factory=DeploymentStatus)

    api_version: ClassVar[str] = "apps/v1"
    kind: ClassVar[str] = "Deployment"
    resource: ClassVar[str] = "deployments"


class ReplicaSetSpec(Part, frozen=True, kw_only=True):
    """How many pods of which template."""

    replicas: int | None = None
    min_ready_seconds: int = 0
    selector: LabelSelector = field(default_factory=LabelSelector)
    template: PodTemplate = field(default_factory=PodTemplate)


class ReplicaSetStatus(Part, frozen=True, kw_only=True):
    """What the replica set controller counted; `replicas` is None before it first did."""

    replicas: int | None = None
    fully_labeled_replicas: int = 0
    ready_replicas: int = 0
    available_replicas: int = 0
    terminating_replicas: int | None = None
    observed_generation: int = 0
    conditions: tuple[Json, ...] = ()


class ReplicaSet(ApiObject, frozen=True, kw_only=True):
    """Keeps a number of like pods."""

    spec: ReplicaSetSpec = field(default_factory=ReplicaSetSpec)
    status: ReplicaSetStatus = field(default_factory=ReplicaSetStatus)

    api_version: ClassVar[str] = "apps/v1"
    kind: ClassVar[str] = "ReplicaSet"
    resource: ClassVar[str] = "replicasets"
