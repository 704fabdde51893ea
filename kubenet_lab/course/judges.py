"""What several judges need: a predict exercise decided by the model, and symptoms of a cause to compare.

A judge of a *find* exercise never asks "is that the fault I put there?". It asks the model what the learner's cause
would do, and compares that with what can be seen; or it carries the remedy out and looks whether all calls work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from kubenet_lab.course.sheet import PREDICT, Choice, Exercise, Finding
from kubenet_lab.faults import make
from kubenet_lab.views.words import short

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster


class Outcome(Struct, frozen=True):
    """What the model did: the key of the choice it proves, the sentence that says so, and the trace."""

    key: str
    told: str
    evidence: Any = None


def predict(
    id: str,
    title: str,
    task: str,
    choices: Mapping[str, str],
    run: Callable[[], Outcome],
    wrong: Mapping[str, str],
    hints: tuple[str, str, str],
) -> Exercise:
    """Return a predict exercise. `run` lets the model decide; `wrong` has for each guess the reason it is not so.

    The learner has committed to a guess by then, so the answer is told either way: to predict is to learn by being
    wrong.
    """

    def judge(answer: Any) -> Finding:
        outcome = run()
        if answer == outcome.key:
            return Finding(True, outcome.told, outcome.evidence)
        return Finding(False, wrong[answer])

    return Exercise(
        id=id,
        kind=PREDICT,
        title=title,
        task=task,
        judge=judge,
        hints=hints,
        choices=tuple(Choice(key, text) for key, text in choices.items()),
    )


class Probe(Struct, frozen=True):
    """One call of a symptom table: from where, to what, and the words for it."""

    source: str
    target: str
    label: str


def symptoms(cluster: Cluster, probes: Sequence[Probe], times: int = 1) -> dict[str, str]:
    """Make every call and return what each caller saw: label -> verdict; several verdicts where chance mixes them."""
    seen: dict[str, str] = {}
    for probe in probes:
        verdicts = {cluster.connect(probe.source, probe.target).verdict for _ in range(times)}
        seen[probe.label] = " or ".join(sorted(verdicts))
    return seen


def losses(cluster: Cluster, probes: Sequence[Probe]) -> dict[str, str]:
    """Make every call and return where each failing one's packet ended: what tcpdump on the nodes would tell."""
    trips = {probe.label: cluster.connect(probe.source, probe.target) for probe in probes}
    return {label: "" if trip.delivered else trip.place.netns for label, trip in trips.items()}


def pod_probes(cluster: Cluster, sources: Sequence[str]) -> list[Probe]:
    """Return calls from these pods to every serving pod's own address: no name, no Service, so no chance in it."""
    out = []
    for source in sources:
        for pod in cluster.store.list("Pod", "default"):
            ports = [port for container in pod.spec.containers for port in container.ports]
            if ports and pod.ips and f"default/{source}" != f"default/{pod.name}":
                address = f"{pod.ips[0]}:{ports[0].container_port}"
                where = pod.spec.node_name
                out.append(
                    Probe(source, f"tcp://{address}", f"{source} to {short('pod ' + pod.name)} on {where}")
                )
    return out


def contradiction(seen: Mapping[str, str], would: Mapping[str, str]) -> str:
    """Return the first call where a supposed cause contradicts what is seen, in words; "" if none."""
    for label, verdict in seen.items():
        if would[label] != verdict:
            return f"With that cause alone, {label} would be: {would[label]}. But it is: {verdict}."
    return ""


def with_fault(build: Callable[[], Cluster], name: str, **details: Any) -> Cluster:
    """Return a fresh world with one thing broken."""
    cluster = build()
    make(name, **details).inject(cluster)
    return cluster


def same_symptoms(
    build: Callable[[], Cluster],
    broken: Callable[[], Cluster],
    probes: Callable[[Cluster], Sequence[Probe]],
    causes: Mapping[str, tuple[str, Mapping[str, Any]]],
    times: int = 1,
) -> Callable[[str], str]:
    """Return a test of a cause: key -> what contradicts it, "" when it explains everything that can be seen.

    Where two causes look alike to every caller, the node in which the packets end tells them apart.
    """

    def test(key: str) -> str:
        name, details = causes[key]
        real, supposed = broken(), with_fault(build, name, **details)
        asked = probes(real)
        against = contradiction(symptoms(real, asked, times), symptoms(supposed, asked, times))
        if against or times > 1:
            return against
        ends, would = losses(real, asked), losses(supposed, asked)
        for label, place in ends.items():
            if would[label] != place:
                return (
                    f"Every caller would see just this. But with that cause the packets of {label} would end in "
                    f"{would[label]}, and they end elsewhere: look where they still show up and where no longer."
                )
        return ""

    return test


def still_failing(cluster: Cluster, probes: Sequence[Probe]) -> list[str]:
    """Return the calls that do not work, each in a sentence."""
    out = []
    for probe in probes:
        trip = cluster.connect(probe.source, probe.target)
        if not trip.delivered:
            out.append(f"{probe.label}: {trip.verdict} ({trip.why})")
    return out
