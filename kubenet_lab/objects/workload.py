"""Workloads, which make pods: Deployment, ReplicaSet, StatefulSet, DaemonSet, Job.

https://kubernetes.io/docs/concepts/workloads/controllers/
"""

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
    status: DeploymentStatus = DeploymentStatus()

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
    status: ReplicaSetStatus = ReplicaSetStatus()

    api_version: ClassVar[str] = "apps/v1"
    kind: ClassVar[str] = "ReplicaSet"
    resource: ClassVar[str] = "replicasets"


# A counter the API server writes even when it is 0 has `default_factory=int`, which `omit_defaults` does not look
# into. The status itself has one shared default, so that an object nobody reported on is written without any.


class StatefulSetOrdinals(Part, frozen=True, kw_only=True):
    """The number of the first pod."""

    start: int = field(default_factory=int)


class RollingUpdateStatefulSet(Part, frozen=True, kw_only=True):
    """Only pods whose ordinal is `partition` or more are rolled over."""

    partition: int | None = None
    max_unavailable: int | str | None = None


class StatefulSetUpdateStrategy(Part, frozen=True, kw_only=True):
    """`RollingUpdate`, from the highest ordinal down, or `OnDelete`."""

    type: str = ""
    rolling_update: RollingUpdateStatefulSet | None = None


class StatefulSetSpec(Part, frozen=True, kw_only=True):
    """How many pods, and the headless Service that names them (`service_name`).

    `pod_management_policy` is `OrderedReady` (one at a time) or `Parallel`.
    """

    replicas: int | None = None
    selector: LabelSelector = field(default_factory=LabelSelector)
    template: PodTemplate = field(default_factory=PodTemplate)
    volume_claim_templates: tuple[Json, ...] = ()
    service_name: str = ""
    pod_management_policy: str = ""
    update_strategy: StatefulSetUpdateStrategy = StatefulSetUpdateStrategy()
    revision_history_limit: int | None = None
    min_ready_seconds: int = 0
    persistent_volume_claim_retention_policy: Json | None = None
    ordinals: StatefulSetOrdinals | None = None


class StatefulSetStatus(Part, frozen=True, kw_only=True):
    """What the stateful set controller counted; `replicas` and `available_replicas` are written even when 0."""

    observed_generation: int = 0
    replicas: int = field(default_factory=int)
    ready_replicas: int = 0
    current_replicas: int = 0
    updated_replicas: int = 0
    current_revision: str = ""
    update_revision: str = ""
    collision_count: int | None = None
    conditions: tuple[Json, ...] = ()
    available_replicas: int = field(default_factory=int)


class StatefulSet(ApiObject, frozen=True, kw_only=True):
    """Keeps numbered pods (`db-0`, `db-1`) whose names stay theirs."""

    spec: StatefulSetSpec = field(default_factory=StatefulSetSpec)
    status: StatefulSetStatus = StatefulSetStatus()

    api_version: ClassVar[str] = "apps/v1"
    kind: ClassVar[str] = "StatefulSet"
    resource: ClassVar[str] = "statefulsets"


class DaemonSetUpdateStrategy(Part, frozen=True, kw_only=True):
    """`RollingUpdate` or `OnDelete`."""

    type: str = ""
    rolling_update: RollingUpdate | None = None


class DaemonSetSpec(Part, frozen=True, kw_only=True):
    """The pod every node shall have."""

    selector: LabelSelector = field(default_factory=LabelSelector)
    template: PodTemplate = field(default_factory=PodTemplate)
    update_strategy: DaemonSetUpdateStrategy = DaemonSetUpdateStrategy()
    min_ready_seconds: int = 0
    revision_history_limit: int | None = None


class DaemonSetStatus(Part, frozen=True, kw_only=True):
    """What the daemon set controller counted; the first four are written even when 0."""

    current_number_scheduled: int = field(default_factory=int)
    number_misscheduled: int = field(default_factory=int)
    desired_number_scheduled: int = field(default_factory=int)
    number_ready: int = field(default_factory=int)
    observed_generation: int = 0
    updated_number_scheduled: int = 0
    number_available: int = 0
    number_unavailable: int = 0
    collision_count: int | None = None
    conditions: tuple[Json, ...] = ()


class DaemonSet(ApiObject, frozen=True, kw_only=True):
    """Keeps one pod on each node."""

    spec: DaemonSetSpec = field(default_factory=DaemonSetSpec)
    status: DaemonSetStatus = DaemonSetStatus()

    api_version: ClassVar[str] = "apps/v1"
    kind: ClassVar[str] = "DaemonSet"
    resource: ClassVar[str] = "daemonsets"


class JobSpec(Part, frozen=True, kw_only=True):
    """How many pods shall succeed (`completions`), and how many may run at once (`parallelism`)."""

    parallelism: int | None = None
    completions: int | None = None
    active_deadline_seconds: int | None = None
    pod_failure_policy: Json | None = None
    success_policy: Json | None = None
    backoff_limit: int | None = None
    backoff_limit_per_index: int | None = None
    max_failed_indexes: int | None = None
    selector: LabelSelector | None = None
    manual_selector: bool | None = None
    template: PodTemplate = field(default_factory=PodTemplate)
    ttl_seconds_after_finished: int | None = None
    completion_mode: str | None = None
    suspend: bool | None = None
    pod_replacement_policy: str | None = None
    managed_by: str | None = None
    scheduling: Json | None = None


class JobStatus(Part, frozen=True, kw_only=True):
    """What the job controller counted."""

    conditions: tuple[Json, ...] = ()
    start_time: str | None = None
    completion_time: str | None = None
    active: int = 0
    succeeded: int = 0
    failed: int = 0
    terminating: int | None = None
    completed_indexes: str = ""
    failed_indexes: str | None = None
    uncounted_terminated_pods: Json | None = None
    ready: int | None = None


class Job(ApiObject, frozen=True, kw_only=True):
    """Runs pods until enough of them succeeded."""

    spec: JobSpec = field(default_factory=JobSpec)
    status: JobStatus = JobStatus()

    api_version: ClassVar[str] = "batch/v1"
    kind: ClassVar[str] = "Job"
    resource: ClassVar[str] = "jobs"
