"""Exercises of 10_why_services, and its scenes: each builds a shop, lets something happen, and watches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from kubenet_lab import manifests
from kubenet_lab.cluster import Cluster
from kubenet_lab.control import Settings
from kubenet_lab.control.replay import replay
from kubenet_lab.course.exercises.nb00 import backend_on
from kubenet_lab.course.judges import Outcome, contradiction, predict
from kubenet_lab.course.sheet import DO, FIND, Choice, Exercise, Finding
from kubenet_lab.course.table import Table
from kubenet_lab.faults import make
from kubenet_lab.kernel.dialects import ip_route
from kubenet_lab.objects import AnyObject
from kubenet_lab.packet.packet import ACK, PSH, SYN, TCP, Packet
from kubenet_lab.scenarios.shop import MANIFEST
from kubenet_lab.views.timeline import Call, Second, Shares, TimeLine, tail
from kubenet_lab.walk.exchange import judge

NODE, CALLER, SERVICE = "node-1", "frontend", "backend"
CALLS = 8
"""New connections the caller makes each second."""
START, SYNC = 4.0, 1.0
"""Our program needs 4 s until it listens; a node's rules follow a change a second later."""

PROBE = """
        readinessProbe:
          httpGet: {port: 8080}
          initialDelaySeconds: 2
          periodSeconds: 2"""
HOOK = "\n        lifecycle:\n          preStop: {sleep: {seconds: 5}}"
_DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: backend
spec:
  replicas: 3
  strategy:
    rollingUpdate: {maxSurge: 1, maxUnavailable: 0}
  selector:
    matchLabels: {app: backend}
  template:
    metadata:
      labels: {app: backend}
    spec:
      containers:
      - name: backend
        image: shop/backend:%s
        ports:
        - {name: http, containerPort: 8080}%s
"""


def deployment(version: str = "1.0", *extra: str) -> str:
    """Return the backend's Deployment as YAML; `extra` are PROBE, HOOK."""
    return _DEPLOYMENT % (version, "".join(extra))


def busy_shop(*extra: str) -> Cluster:
    """Return the shop as this notebook needs it: programs take 4 s to start, rules follow a second late."""
    return _with(manifests.load(deployment("1.0", *extra)))


def _with(backend: Iterable[AnyObject]) -> Cluster:
    objects = [o for o in manifests.load(MANIFEST) if (o.kind, o.name) != ("Deployment", "backend")]
    objects += backend
    return Cluster.from_objects(objects, settings=Settings(start_seconds=START, sync_seconds=SYNC))


Act = Callable[[], Any]


def watch(world: Cluster, seconds: int, acts: Mapping[int, tuple[str, Act]], calls: int = CALLS) -> TimeLine:
    """Let time pass; at each second do what is to be done, note how the Service stands, and call it."""
    address = world.store.get("Service", SERVICE, "default").addresses[0]
    rows = []
    for second in range(seconds + 1):
        if second:
            world.advance(1)
        did, act = acts.get(second, ("", None))
        if act is not None:
            act()
        (moment,) = replay(world, SERVICE, node=NODE, seconds=0)
        trips = [world.connect(CALLER, f"http://{address}") for _ in range(calls)]
        felt = tuple(Call(t.verdict, (t.server or "").removeprefix("default/")) for t in trips)
        row = Second(replace(moment, second=float(second)), felt, did)
        rows.append(replace(row, dead=frozenset(ip for ip in row.named if not _answers(world, ip))))
    return TimeLine(SERVICE, NODE, CALLER, tuple(rows))


def _answers(world: Cluster, address: str) -> bool:
    """Whether a pod's own address answers, without the Service."""
    return world.connect(CALLER, f"tcp://{address}:8080").delivered


def victim(world: Cluster) -> str:
    """Return the name of the pod that things happen to: the backend on node-2."""
    return str(backend_on(world, "node-2").name)


# -- scenes
# ----------------------------------------------------------------------------------------------------------------


def deleted(*extra: str, seconds: int = 16) -> TimeLine:
    """A pod is deleted at second 3."""
    world = busy_shop(*(extra or (PROBE,)))
    name = victim(world)
    return watch(world, seconds, {3: ("kubectl delete pod", lambda: world.delete("Pod", name))})


def crashed(times: tuple[int, ...] = (3,), *extra: str, seconds: int = 16) -> TimeLine:
    """A pod's program ends at each of these seconds."""
    world = busy_shop(*(extra or (PROBE,)))
    name = victim(world)
    return watch(world, seconds, {at: ("the program crashes", lambda: world.crash(name)) for at in times})


def silent(*extra: str, seconds: int = 24, back: int = 15) -> TimeLine:
    """A pod's program stops listening at second 3 and listens again at `back`."""
    world = busy_shop(*extra)
    fault = make("pod-not-listening", pod=victim(world))
    undo: list[Act] = []
    acts: dict[int, tuple[str, Act]] = {
        3: ("it stops listening", lambda: undo.append(fault.inject(world))),
        back: ("it listens again", lambda: undo.pop()()),
    }
    return watch(world, seconds, acts)


def relabel(world: Cluster, name: str, label: str) -> None:
    """`kubectl label pod NAME app=LABEL --overwrite`."""
    pod = world.store.get("Pod", name, "default")
    world.apply_objects([pod.with_metadata(labels={**pod.metadata.labels, "app": label})])


def relabelled(seconds: int = 16) -> TimeLine:
    """A pod is given another label at second 3."""
    world = busy_shop(PROBE)
    name = victim(world)
    return watch(world, seconds, {3: ("kubectl label pod app=debug", lambda: relabel(world, name, "debug"))})


def scale(world: Cluster, replicas: int) -> None:
    """`kubectl scale deployment backend --replicas N`."""
    found = world.store.get("Deployment", "backend", "default")
    world.apply_objects([replace(found, spec=replace(found.spec, replicas=replicas))])


def grown(seconds: int = 24) -> TimeLine:
    """The Deployment is scaled to 5 at second 2 and to 2 at second 14."""
    world = busy_shop(PROBE)
    acts: dict[int, tuple[str, Act]] = {
        2: ("scale to 5", lambda: scale(world, 5)),
        14: ("scale to 2", lambda: scale(world, 2)),
    }
    return watch(world, seconds, acts)


def rolled(*extra: str, seconds: int = 24) -> TimeLine:
    """Version 2.0 is rolled out at second 2."""
    world = busy_shop(*extra)
    text = deployment("2.0", *extra)
    return watch(world, seconds, {2: ("kubectl apply: version 2.0", lambda: world.apply(text))})


# -- connections that stay open
# --------------------------------------------------------------------------------------------


class Connection:
    """A TCP connection the caller keeps open: each request is one more packet of it."""

    def __init__(self, world: Cluster, number: int) -> None:
        self.world, self.walk, self.port = world, world.walk(), 41000 + number
        self.address = world.store.get("Service", SERVICE, "default").addresses[0]
        self.verdict, self.pod = self._send(SYN)

    def ask(self) -> str:
        """Send one request; return the pod it came to, or what went wrong."""
        self.verdict, pod = self._send(ACK | PSH)
        return pod or self.verdict

    def _send(self, flags: int) -> tuple[str, str]:
        source = self.world.pod(CALLER).ips[0]
        packet = Packet(
            source, self.address, TCP, self.port, 80, flags=flags, payload_size=0 if flags & SYN else 80
        )
        # One walk for the connection's whole life: it remembers which connections the listeners accepted.
        self.walk.now = self.world.now
        done = judge(self.walk.send(f"default/{CALLER}", packet), f"default/{CALLER}")
        taken = done.request.place.netns if done.request.delivered else ""
        return done.verdict, taken.removeprefix("default/")


def shared(clients: int = 6, requests: int = 600) -> Shares:
    """Count who gets requests when the backend grows from 3 pods to 6: old connections, and a new one a "
    "request."""
    world = busy_shop(PROBE)
    old = sorted(_endpoints(world))
    pool = [Connection(world, n) for n in range(clients)]
    scale(world, 6)
    world.advance(10)
    fresh_pods = sorted(_endpoints(world) - set(old))
    labels = {name: name for name in old} | {name: f"{name}, new" for name in fresh_pods}
    kept = Counter(pool[n % clients].ask() for n in range(requests))
    fresh = Counter(Connection(world, 100 + n).pod for n in range(requests))
    return Shares(
        {
            f"{requests} requests over {clients} connections opened before the scaling": {
                label: kept[pod] for pod, label in labels.items()
            },
            f"{requests} requests over a new connection each": {
                label: fresh[pod] for pod, label in labels.items()
            },
        }
    )


def addresses() -> Table:
    """The pod on node-2 at first, after its program has crashed, and after it was deleted."""
    world = busy_shop(PROBE)

    def row(what: str) -> tuple[str, ...]:
        pod = backend_on(world, "node-2")
        restarts = max(s.restart_count for s in pod.status.container_statuses)
        return what, pod.name, pod.ips[0], str(restarts)

    rows = [row("at first")]
    world.crash(victim(world))
    world.advance(10)
    rows.append(row("after a crash of its program"))
    world.delete("Pod", victim(world))
    world.advance(10)
    rows.append(row("after kubectl delete pod"))
    return Table(("", "the backend on node-2", "its address", "restarts"), tuple(rows))


def left_behind() -> Table:
    """An open connection whose pod is deleted, beside new connections to the same Service."""
    world = busy_shop(PROBE)
    name = victim(world)
    open_ones = [Connection(world, n) for n in range(12)]
    kept = next(c for c in open_ones if c.pod == name)
    rows = []
    for second in range(6):
        if second == 1:
            world.delete("Pod", name)
        asked = kept.ask()
        fresh = Connection(world, 50 + second)
        rows.append(
            (
                str(second),
                "kubectl delete pod" if second == 1 else "",
                f"answered by {tail(asked)}" if asked.startswith("backend-") else asked,
                f"answered by {tail(fresh.pod)}" if fresh.pod else fresh.verdict,
            )
        )
        world.advance(1)
    return Table(("second", "what is done", "the open connection", "a new connection"), tuple(rows))


# -- predict: which address
# ------------------------------------------------------------------------------------------------


def _crash() -> Outcome:
    world = busy_shop(PROBE)
    name = victim(world)
    before = world.pod(name)
    world.crash(name)
    world.advance(10)
    found = next((p for p in world.store.list("Pod", "default") if p.name == name), None)
    if found is None:
        key = "new-pod"
    else:
        key = "same" if found.ips == before.ips else "new-address"
    after = backend_on(world, "node-2")
    restarts = max(s.restart_count for s in after.status.container_statuses)
    return Outcome(
        key,
        f"It was {before.name} with {before.ips[0]}; ten seconds later it is {after.name} with "
        f"{after.ips[0]}, and "
        f"its container was restarted {restarts} time. The address belongs to the pod's network "
        f"namespace, and that "
        "outlives the program in it.",
        addresses(),
    )


CRASH = predict(
    "10-crash",
    "The program crashes",
    "The program in the backend on node-2 ends with an error. Nobody does anything. Ten seconds later, "
    "what is there "
    "on node-2?",
    {
        "new-pod": "A new pod with a new name and a new address",
        "new-address": "The same pod, with a new address",
        "same": "The same pod, with the address it had",
        "none": "Nothing: the two others carry on",
    },
    _crash,
    {
        "new-pod": "The Deployment makes a new pod when one is missing. Is the pod missing when a program "
        "in it ends?",
        "new-address": "An address is given when a pod's network is made. Does a program's end unmake "
        "that network?",
        "none": "Pods of a Deployment have `restartPolicy: Always`. Somebody on node-2 takes that literally.",
    },
    (
        "Who notices first that the program is gone: somebody far away, or somebody on node-2?",
        "The kubelet on node-2 starts containers. Does it need a new pod for that?",
        "The pod's network namespace was made before its first container and is still there.",
    ),
)


# -- predict: another label
# ------------------------------------------------------------------------------------------------


def _label() -> Outcome:
    world = busy_shop(PROBE)
    name = victim(world)
    before = {p.name for p in world.store.list("Pod", "default")}
    relabel(world, name, "debug")
    world.advance(10)
    pods = {p.name: p for p in world.store.list("Pod", "default")}
    fresh = sorted(pods.keys() - before)
    listed = _endpoints(world)
    if name not in pods:
        key = "deleted"
    elif name in listed:
        key = "stays"
    else:
        key = "replaced" if fresh else "fewer"
    return Outcome(
        key,
        f"{name} still runs, and is in no EndpointSlice of the Service any more. The Deployment's "
        f"ReplicaSet lost it "
        f"too, counted two, and made {', '.join(fresh)}.",
        relabelled(),
    )


def _endpoints(world: Cluster) -> set[str]:
    """Names of the pods in the Service's slices."""
    return {
        e.target_ref.name
        for s in world.store.list("EndpointSlice", "default")
        if s.service_name == SERVICE
        for e in s.endpoints
        if e.target_ref is not None
    }


LABEL = predict(
    "10-label",
    "Another label",
    "You type `kubectl label pod backend-… app=debug --overwrite` for one of the three backends. The "
    "Deployment and "
    "the Service both select `app: backend`. What is there ten seconds later?",
    {
        "deleted": "The pod was deleted, and a new one took its place",
        "replaced": "Four pods run; the Service uses three of them",
        "fewer": "Three pods run; the Service uses two of them",
        "stays": "Three pods run; the Service uses all three",
    },
    _label,
    {
        "deleted": "Nobody has asked for its deletion. It only stopped being one of those that are counted.",
        "fewer": "The Service would have two, for a moment. But somebody wants three pods with `app: "
        "backend`, always.",
        "stays": "A Service does not remember pods. It has a selector, and that is read again at each "
        "change.",
    },
    (
        "Two controllers look at labels here. Ask for each of them what it sees now.",
        "The ReplicaSet wants three pods that its selector means. How many does it find?",
        "The pod that was relabelled goes on running; to be one too few, it need not be gone.",
    ),
)


# -- predict: without a probe
# ----------------------------------------------------------------------------------------------


def _no_probe() -> Outcome:
    line = rolled(seconds=16)
    worst = max(sum(not c.good for c in s.calls) / len(s.calls) for s in line.seconds)
    key = "all" if worst == 1 else "third" if worst > 0 else "none"
    whole = [s.moment.second for s in line.seconds if s.calls and not any(c.good for c in s.calls)]
    return Outcome(
        key,
        f"Nothing was answered in {len(whole)} seconds (from second {whole[0]:g} to {whole[-1]:g}). "
        f"Without a readiness "
        "probe a pod is ready as soon as its container runs. So all three new pods count as ready at "
        "once, the "
        "three old ones go at once, and for the next seconds nobody listens."
        if whole
        else "Some were answered in every second.",
        line,
    )


NO_PROBE = predict(
    "10-no-probe",
    "An update without a probe",
    "You roll out version 2.0: `maxUnavailable: 0`, one pod more than three at most. The new program "
    "needs four "
    "seconds from its start until it listens. The template has no readiness probe. What do callers feel?",
    {
        "none": "Nothing: with maxUnavailable 0 there are always three that work",
        "third": "At worst about a third of the calls fails",
        "all": "For some seconds not one call is answered",
    },
    _no_probe,
    {
        "none": "There are always three that *count as available*. What makes Kubernetes believe that a "
        "pod works?",
        "third": "If the update waited for the first new pod before it went on to the next. What would it "
        "wait for?",
    },
    (
        "`maxUnavailable: 0` means: no old pod goes before a new one is *ready*.",
        "Who says that a pod is ready, if no probe asks the program?",
        "Without a probe, a container that runs is ready. How long does it take until all three new ones "
        "run?",
    ),
)


# -- predict: connections that stay
# ----------------------------------------------------------------------------------------


def _keep() -> Outcome:
    found = shared()
    kept, fresh = found.parts.values()
    new = [pod for pod in kept if pod.endswith("new")]
    got = sum(kept[p] for p in new)
    key = "none" if got == 0 else "half" if got > 200 else "few"
    return Outcome(
        key,
        f"The three new pods got {got} of the 600 requests; when each request opened a connection of its "
        f"own, "
        f"they got {sum(fresh[p] for p in new)}. The rules are asked once per connection, by its first "
        f"packet. After that "
        "the kernel's connection table repeats the answer.",
        found,
    )


KEEP = predict(
    "10-keep-alive",
    "Connections that stay open",
    "`frontend` keeps six connections to the Service open and sends all its requests over them (HTTP "
    "keep-alive; gRPC "
    "and database pools do the same). You scale the backend from three pods to six, and all six are "
    "ready. Of the "
    "next 600 requests, how many do the three new pods get?",
    {"half": "About half: 300", "few": "Fewer than half, and soon half", "none": "None"},
    _keep,
    {
        "half": "That would be so if every request were decided anew. At which moment do the rules decide?",
        "few": "It would need something that moves an open connection to another pod. The two ends would "
        "have to notice.",
    },
    (
        "In which table are the rules that choose a pod, and which packets is that table asked about?",
        "The nat table sees the first packet of a connection only.",
        "How many first packets do 600 requests over six open connections have?",
    ),
)


# -- do: lose no call
# --------------------------------------------------------------------------------------------------

PATIENCE = 90
"""Seconds in which the update must be done."""


def _judge_rollout(answer: Any) -> Finding:
    objects = manifests.load(answer)
    if [(o.kind, o.name, o.namespace or "default") for o in objects] != [
        ("Deployment", "backend", "default")
    ]:
        return Finding(False, "The answer has to be one object: the Deployment `backend`.")
    old, new = _of_version(objects[0], "1.0"), _of_version(objects[0], "2.0")
    world = _with([old])
    line = watch(world, PATIENCE, {2: ("image: version 2.0", lambda: world.apply_objects([new]))})
    end = line.seconds[-1].moment.pods
    short_line = TimeLine(line.service, line.node, line.caller, line.seconds[: _settled(line) + 4])
    done = [p for p in end if p.ready and p.image == "shop/backend:2.0" and p.state == "Running"]
    if len(done) != 3 or len(end) != 3:
        states = ", ".join(f"{p.image.rpartition('/')[2]} {'ready' if p.ready else 'not ready'}" for p in end)
        return Finding(
            False,
            f"After {PATIENCE} s the update is not done: three ready pods of version 2.0 are wanted, and "
            f"there are: "
            f"{states or 'none'}.",
            short_line,
        )
    if line.lost:
        first = next(s for s in line.seconds if not all(c.good for c in s.calls))
        what = next(c.verdict for c in first.calls if not c.good)
        return Finding(
            False,
            f"The update is done, and callers felt it: {line.summary} The first in second "
            f"{first.moment.second:g}: "
            f"{what}. Look at the red strips in the picture: to whom did the rules still, or already, "
            f"send calls?",
            short_line,
        )
    return Finding(
        True, f"The update is done after {_settled(line)} s, and nobody felt it: {line.summary}", short_line
    )


def _of_version(wished: Any, version: str) -> Any:
    """The Deployment with another image in its first container, as `kubectl set image` leaves it."""
    template = wished.spec.template
    first, *others = template.spec.containers
    containers = (replace(first, image=f"shop/backend:{version}"), *others)
    template = replace(template, spec=replace(template.spec, containers=containers))
    return replace(wished, spec=replace(wished.spec, template=template))


def _settled(line: TimeLine) -> int:
    """The second from which on nothing changes any more."""
    last = line.seconds[-1]
    return next(
        (n + 1 for n in range(len(line.seconds) - 1, -1, -1) if _still(line.seconds[n]) != _still(last)), 0
    )


def _still(second: Second) -> Any:
    return second.moment.pods, second.ready, second.named


ROLLOUT = Exercise(
    id="10-rollout",
    kind=DO,
    title="Lose no call",
    task="Change the Deployment so that its next update loses not a single call. The judge starts the shop with your "
    "YAML, sets the image to version 2.0 two seconds later (`kubectl set image`), makes "
    f"{CALLS} calls each second, and wants three ready pods of version 2.0 after {PATIENCE} s.\n\n"
    "The program needs four seconds from its start until it listens, and it ends at once when it is told "
    "to stop "
    "(SIGTERM). The nodes' rules follow the EndpointSlice a second later.",
    judge=_judge_rollout,
    hints=(
        "Two moments are dangerous: a new pod gets calls before it listens; an old one gets calls after "
        "it is gone.",
        "For the first, let something ask the program whether it is ready (`readinessProbe`). For the "
        "second, let the old "
        "one live on a little while the rules follow (`lifecycle`).",
        "A `preStop` hook runs before SIGTERM, and it can simply sleep (Kubernetes has an action of that "
        "name for it): "
        "longer than the rules take to follow.",
    ),
    template=deployment("1.0"),
    world=busy_shop,
)


# -- find: nobody behind the Service
# -----------------------------------------------------------------------------------------

_SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: backend
spec:
  clusterIP: 10.96.0.100
  selector: {app: %s}
  ports:
  - {name: http, port: 80, targetPort: %s}
"""


def _wrong_selector() -> Cluster:
    world = busy_shop(PROBE)
    world.apply(_SERVICE % ("backends", 8080))
    world.advance(3)
    return world


def _wrong_port() -> Cluster:
    world = busy_shop(PROBE)
    world.apply(_SERVICE % ("backend", 8081))
    world.advance(3)
    return world


def _nobody() -> Cluster:
    world = busy_shop(PROBE)
    scale(world, 0)
    world.advance(3)
    return world


def _unready() -> Cluster:
    world = busy_shop(PROBE)
    for pod in [p.name for p in world.store.list("Pod", "default") if p.name.startswith("backend-")]:
        make("pod-not-listening", pod=pod).inject(world)
    world.advance(10)
    return world


CAUSES: Mapping[str, Callable[[], Cluster]] = {
    "unready": _unready,
    "selector": _wrong_selector,
    "port": _wrong_port,
    "scaled": _nobody,
}


def _signs(world: Cluster) -> dict[str, str]:
    """What one can see from outside, each sign in words."""
    pods = [p for p in world.store.list("Pod", "default") if p.name.startswith("backend-")]
    slices = [s for s in world.store.list("EndpointSlice", "default") if s.service_name == SERVICE]
    ends = [e for s in slices for e in s.endpoints]
    direct = {world.connect(CALLER, f"tcp://{p.ips[0]}:8080").verdict for p in pods}
    return {
        "the number of backend pods": str(len(pods)),
        "what a direct call to a pod's own address, port 8080, sees": ", ".join(sorted(direct))
        or "no pod to call",
        "the number of endpoints in the Service's slices": str(len(ends)),
        "what a call to the Service sees": world.connect(CALLER, "http://10.96.0.100").verdict,
    }


def _judge_find(answer: Any) -> Finding:
    against = contradiction(_signs(_wrong_selector()), _signs(CAUSES[answer["choice"]]()))
    if against:
        return Finding(False, against)
    world = _wrong_selector()
    world.apply(answer["text"])
    world.advance(10)
    line = watch(world, 4, {})
    if line.lost:
        return Finding(
            False,
            f"The cause is found, and the remedy does not help: ten seconds after it was applied "
            f"{line.summary}",
            line,
        )
    if not all(second.ready for second in line.seconds):
        return Finding(False, "The calls work, but nobody is in the EndpointSlices of the Service.", line)
    return Finding(True, f"Found and mended: {len(line.seconds[-1].ready)} endpoints, {line.summary}", line)


FIND_IT = Exercise(
    id="10-find",
    kind=FIND,
    title="Refused, all of them",
    task='In `ward = exercise("10-find").world()` every call to the Service is refused. Somebody changed one thing. '
    "Name it, and write the YAML that you would apply to mend it. (`%kubectl get "
    "pods,endpointslices` "
    "and `%kubectl describe service backend` look.)",
    judge=_judge_find,
    hints=(
        "Follow the chain backwards: rules are made from the EndpointSlices, slices from the pods that "
        "the selector means "
        "and that are ready.",
        "Are there backend pods, and are they ready? Who is in the EndpointSlice?",
        "Ready pods and an empty slice: then the Service means somebody else. Compare its selector with "
        "the pods' labels.",
    ),
    choices=(
        Choice("unready", "The backends run, but their readiness probes fail"),
        Choice("selector", "The Service's selector means no pod"),
        Choice("port", "The Service's targetPort is one on which nobody listens"),
        Choice("scaled", "The Deployment was scaled to zero"),
    ),
    template="# kubectl apply -f -\napiVersion: v1\nkind: Service\nmetadata:\n  name: backend\nspec:\n",
    world=_wrong_selector,
)


# -- again: across nodes
# -----------------------------------------------------------------------------------------------


def _routes() -> Outcome:
    world = busy_shop(PROBE)
    space = world.network.ns("node-1")

    def state() -> tuple[str, str, str]:
        rules = world.node("node-1").iptables_save()
        fdb = world.node("node-1").bridge_fdb()
        return ip_route.show(space), "\n".join(row for row in fdb.splitlines() if "flannel.1" in row), rules

    before = state()
    world.delete("Pod", victim(world))
    world.advance(10)
    after = state()
    changed = [name for name, a, b in zip(("route", "fdb", "rules"), before, after, strict=True) if a != b]
    key = changed[0] if len(changed) == 1 else "several" if changed else "nothing"
    pod = backend_on(world, "node-2")
    return Outcome(
        key,
        f"The new pod has {pod.ips[0]}. node-1's routes and its forwarding entries for the tunnel are as "
        f"before: they "
        "speak of 10.244.1.0/24, all of node-2's pods. What changed is what kube-proxy wrote: the old "
        "address out, "
        "the new one in.",
    )


RECALL = predict(
    "10-recall",
    "Once more: across nodes",
    "The backend on node-2 was deleted, and a new one came up on node-2 with a new address. Which of "
    "node-1's tables "
    "had to change, so that `frontend` on node-1 can reach it through the Service?",
    {
        "route": "Its route table: the new address needs a route",
        "fdb": "The forwarding entries of the tunnel: they must know where the new pod lives",
        "rules": "Only the Service's rules in iptables",
        "several": "All of these",
    },
    _routes,
    {
        "route": "In notebook 05 one route led to all pods of a node. Does a new pod on that node change it?",
        "fdb": "The tunnel's entries say where *nodes* are. Has a node moved?",
        "several": "Two of the three speak of nodes and of whole blocks of addresses. Which of them knows "
        "single pods?",
    },
    (
        "Which tables name single pods, and which name a whole node's block?",
        "Notebook 05: `10.244.1.0/24 via 10.244.1.0 dev flannel.1`. Is the new address in that block?",
        "Something on node-1 held the old pod's address itself.",
    ),
)


EXERCISES = (CRASH, LABEL, NO_PROBE, ROLLOUT, KEEP, FIND_IT, RECALL)
