"""Defaults that no recorded creation shows; the StatefulSet is one that a recorded update began with."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from kubenet_lab.manifests import load
from kubenet_lab.objects import DaemonSet, Job, Pod, PodTemplate, Service, StatefulSet, with_defaults
from kubenet_lab.objects.defaults import TEMPLATE_GENERATION
from kubenet_lab.store import Store
from tests.oracles import open_case

POD = "{containers: [{name: a, image: b}]}"


def created(text: str) -> Any:
    return Store().create(load(text)[0])


def test_a_stateful_set_as_it_is_stored() -> None:
    (case,) = (case for case in open_case("api", "updates") if case["name"] == "statefulset-service")
    stateful_set = created("""
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: scratch}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: postgres, ports: [{containerPort: 5432}]}]}
""")
    assert isinstance(stateful_set, StatefulSet)
    manifest = stateful_set.to_manifest()
    for key in ("uid", "resourceVersion", "creationTimestamp"):
        del manifest["metadata"][key]
    assert manifest == case["stored"]
    assert with_defaults(stateful_set) == stateful_set


def test_a_job_selects_by_its_uid_unless_told_otherwise() -> None:
    text = f"apiVersion: batch/v1\nkind: Job\nmetadata: {{name: a}}\nspec: {{template: {{spec: {POD}}}}}\n"
    text = text.replace("spec: {c", "spec: {restartPolicy: Never, c")
    job = created(text)
    assert isinstance(job, Job)
    assert job.spec.selector is not None
    assert job.spec.selector.match_labels == {"batch.kubernetes.io/controller-uid": job.metadata.uid}
    assert job.spec.selector.matches(job.spec.template.metadata.labels)
    assert job.spec.template.metadata.labels["job-name"] == "a"
    assert (job.spec.completions, job.spec.parallelism, job.spec.backoff_limit) == (1, 1, 6)
    own = (
        "selector: {matchLabels: {a: b}}, manualSelector: true, template: {metadata: {labels: {a: b}}, spec:"
    )
    manual = created(text.replace("template: {spec:", own))
    assert manual.spec.selector.match_labels == {"a": "b"}
    parallel = created(text.replace("template:", "parallelism: 3, template:"))
    assert (parallel.spec.completions, parallel.spec.parallelism) == (None, 3)


def test_a_daemon_set_counts_its_templates() -> None:
    store = Store()
    daemon_set = store.create(
        load(f"""
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: agent}}
spec: {{selector: {{matchLabels: {{a: b}}}}, template: {{metadata: {{labels: {{a: b}}}}, spec: {POD}}}}}
""")[0]
    )
    assert isinstance(daemon_set, DaemonSet)
    status = daemon_set.to_manifest()["status"]
    assert set(status.values()) == {0}
    template: PodTemplate = replace(
        daemon_set.spec.template, spec=replace(daemon_set.spec.template.spec, hostname="x")
    )
    changed = store.update(replace(daemon_set, spec=replace(daemon_set.spec, template=template)))
    reported = store.update(replace(changed, status=replace(changed.status, number_ready=1)))
    assert [item.metadata.annotations[TEMPLATE_GENERATION] for item in (daemon_set, changed, reported)] == [
        "1",
        "2",
        "2",
    ]


def test_a_pod_s_small_print() -> None:
    pod = created("""
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  serviceAccountName: robot
  containers:
  - name: a
    image: b
    env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}, {name: X, value: "1"}]
    resources: {limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 500m}}
    lifecycle: {preStop: {httpGet: {port: 80}}}
  volumes: [{name: c, configMap: {name: c}}, {name: h, hostPath: {path: /x}}, {name: e}]
""")
    assert isinstance(pod, Pod)
    spec = pod.to_manifest()["spec"]
    assert spec["serviceAccount"] == spec["serviceAccountName"] == "robot"
    (container,) = spec["containers"]
    assert container["env"][0]["valueFrom"]["fieldRef"] == {"apiVersion": "v1", "fieldPath": "status.podIP"}
    assert container["resources"] == {
        "limits": {"cpu": "1", "memory": "1Gi"},
        "requests": {"cpu": "500m", "memory": "1Gi"},
    }
    assert container["lifecycle"]["preStop"]["httpGet"] == {"port": 80, "path": "/", "scheme": "HTTP"}
    assert spec["volumes"] == [
        {"name": "c", "configMap": {"name": "c", "defaultMode": 420}},
        {"name": "h", "hostPath": {"path": "/x", "type": ""}},
        {"name": "e", "emptyDir": {}},
    ]
    assert pod.status.qos_class == "Burstable"
    assert with_defaults(pod) == pod


def test_affinity_and_outside_addresses_of_a_service() -> None:
    service = created("""
apiVersion: v1
kind: Service
metadata: {name: a}
spec: {ports: [{port: 80}], externalIPs: [192.0.2.1], sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {}}}
""")
    assert isinstance(service, Service)
    assert service.spec.external_traffic_policy == "Cluster"
    assert service.spec.session_affinity_config == {"clientIP": {"timeoutSeconds": 10800}}
