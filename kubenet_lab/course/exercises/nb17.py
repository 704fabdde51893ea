"""Exercises of 17_names."""

from __future__ import annotations

from collections import Counter
from typing import Any

from kubenet_lab.course.judges import Outcome, predict
from kubenet_lab.course.sheet import DO, FIND, Choice, Exercise, Finding
from kubenet_lab.dns.client import lookup
from kubenet_lab.dns.resolvconf import KubeletDns, pod_dns
from kubenet_lab.errors import Fault, InputError
from kubenet_lab.objects import Pod
from kubenet_lab.objects.meta import ObjectMeta
from kubenet_lab.objects.pod import PodSpec
from kubenet_lab.scenarios import shop
from kubenet_lab.scenarios.names import names, steps
from kubenet_lab.views.dns_steps import DnsSteps, steps_of

# -- predict: the first question ---------------------------------------------------------------------------------------

FIRST_NAMES = {
    "bare": "backend.",
    "own": "backend.default.svc.cluster.local.",
    "svc": "backend.svc.cluster.local.",
    "both": "backend.cluster.local.",
}


def _first() -> Outcome:
    found = steps(names(), "backend")
    asked = found.queries[0].name
    key = next(key for key, name in FIRST_NAMES.items() if name == asked)
    told = (
        f"The first query asks for `{asked}`, type A; its sister of type AAAA follows at once. The resolver in the pod "
        "has hung the first domain of its search list on to the name. CoreDNS never hears the word `backend` alone."
    )
    return Outcome(key, told, found)


FIRST = predict(
    "17-first",
    "The first question",
    "A program in pod frontend (namespace default) calls `http://backend`. It has to ask CoreDNS for the address. "
    "Which name is in the first packet?",
    {
        "bare": "`backend`",
        "own": "`backend.default.svc.cluster.local`",
        "svc": "`backend.svc.cluster.local`",
        "both": "`backend.cluster.local`",
    },
    _first,
    {
        "bare": "That would be the last resort. Read the file /etc/resolv.conf above once more: what are the three "
        "domains for?",
        "svc": "That domain is in the list, but it is not the first one.",
        "both": "That domain is in the list, but others are tried before it.",
    },
    (
        "The resolver is a piece of the C library in the pod, and /etc/resolv.conf is its only instruction.",
        "`options ndots:5` means: a name with fewer than five dots is tried with the search list first.",
        "The search list is tried from left to right, and its first entry is the pod's own namespace.",
    ),
)


# -- predict: the long way ---------------------------------------------------------------------------------------------

LONG = "backend.default.svc.cluster.local"


def _long() -> Outcome:
    found = steps(names(), LONG)
    told = (
        f"{len(found.queries)} queries. The name has four dots, one too few, so the whole search list is tried before "
        "the name itself. A dot at its end (`cluster.local.`) says “this is all of it”, and then it is two."
    )
    return Outcome(str(len(found.queries)), told, found)


LONG_WAY = predict(
    "17-long",
    "The full name",
    f"To be quick and safe, somebody writes the full name into the configuration: `{LONG}`. How many queries does one "
    "lookup send (glibc, A and AAAA counted)?",
    {"1": "1", "2": "2", "4": "4", "8": "8"},
    _long,
    {
        "1": "Every name is asked for twice, as an IPv4 address and as an IPv6 address.",
        "2": "So it would be if the resolver knew that the name is complete. Count its dots.",
        "4": "With this many the name would have been right at the second try. It is not.",
    },
    (
        "Count the dots, and compare with `ndots`.",
        "Fewer dots than ndots: the search list first, all of it, until something answers.",
        "Three domains are tried in vain, then the name as it is. Each try is two queries.",
    ),
)


# -- do: fewer questions -----------------------------------------------------------------------------------------------

TEMPLATE = "dnsConfig:\n  options:\n"
WANTED = {"api.github.com": 2, "backend": 0, "database.production": 0}
"""Names that have to be found, and the most queries each may take (0: any number)."""


def _spec(answer: str) -> dict[str, Any]:
    import yaml

    try:
        body = yaml.safe_load(answer)
    except yaml.YAMLError as error:
        raise InputError([Fault(f"this is not YAML: {error}", "<answer>")]) from None
    if not isinstance(body, dict) or not isinstance(body.get("dnsConfig"), dict):
        raise InputError([Fault("there is no dnsConfig with something in it", "<answer>")])
    return body


def _judge_fewer(answer: Any) -> Finding:
    body = _spec(answer)
    world = names()
    pod = Pod(
        metadata=ObjectMeta(name="client", namespace="default"),
        spec=PodSpec(dns_policy=str(body.get("dnsPolicy") or "ClusterFirst"), dns_config=body["dnsConfig"]),
    )
    host = world.network.ns("node-1").files.get("/etc/resolv.conf", "")
    conf = pod_dns(pod, KubeletDns((world.cluster_dns,), "cluster.local", host)).text(host)
    ns = world.network.ns(world.namespace_of("frontend"))
    found: list[DnsSteps] = []
    for name, most in WANTED.items():
        done = steps_of(name, conf, "glibc", lookup(world.walk(), ns, name, resolv_conf=conf))
        if not done.addresses:
            return Finding(False, f"`{name}` is not found any more: {done.result}.", done)
        if most and len(done.queries) > most:
            return Finding(False, f"`{name}` still takes {len(done.queries)} queries.", done)
        found.append(done)
    counts = ", ".join(f"{done.name} {len(done.queries)}" for done in found)
    leaks = found[-1].queries[0].name == "database.production."
    price = (
        "The price: `database.production` is now asked for as it is first, and that question leaves the cluster."
        if leaks
        else "And `database.production` pays nothing for it: it has fewer dots than your ndots, as before."
    )
    return Finding(
        True,
        f"Queries now: {counts}. Names with enough dots are asked for as they are before anything else. {price}",
        found[0],
    )


FEWER = Exercise(
    id="17-fewer",
    kind=DO,
    title="Six questions too many",
    task="A pod in namespace default calls `api.github.com` all day, and each lookup is eight queries. Write the "
    "`dnsConfig` of its pod so that it is two, while `backend` and `database.production` are still found.",
    judge=_judge_fewer,
    hints=(
        "The number that decides is `ndots`. `api.github.com` has two dots.",
        "`dnsConfig.options` is a list of `name` and `value`, and the value is text: quote it.",
        "With ndots 3 the name would still have too few dots. Which numbers are left, and which of them keep "
        "`database.production`?",
    ),
    template=TEMPLATE,
)


# -- find: a name that only works elsewhere ----------------------------------------------------------------------------


def _judge_find(answer: Any) -> Finding:
    world = names()
    tries = {
        "policy": steps(world, "backend"),
        "namespace": steps(world, "backend.default", policy="Default"),
        "server": steps(world, "backend", policy="Default"),
        "service": steps(world, "backend", namespace="default"),
    }
    broken = steps(world, "backend", policy="Default")
    told = {
        "namespace": "With the namespace in the name it fails just the same.",
        "server": "The server it asks does answer; look at which server that is.",
        "service": "The Service is there: another pod of the namespace finds it.",
    }
    if answer != "policy":
        return Finding(False, told[answer], tries[answer])
    good = bool(tries["policy"].addresses) and not broken.addresses
    servers = Counter(query.server for query in broken.queries)
    return Finding(
        good,
        f"With `dnsPolicy: Default` the pod gets the node's own resolv.conf: it asks {', '.join(servers)}, which has "
        "never heard of Services. “Default” is not the default: that is ClusterFirst.",
        tries["policy"],
    )


FIND_POLICY = Exercise(
    id="17-find",
    kind=FIND,
    title="The one pod that knows nobody",
    task="One pod of namespace default says `Could not resolve host: backend`; all the others find it. In that pod "
    "`example.com` works, with two queries, and its /etc/resolv.conf has neither `svc.cluster.local` nor 10.96.0.10. "
    "What is wrong?",
    judge=_judge_find,
    hints=(
        "Who writes /etc/resolv.conf of a pod, and from what?",
        "The grid of names above has a column that looks just like this pod.",
        "One field of the pod's spec decides which resolv.conf it gets, and one of its values is badly named.",
    ),
    choices=(
        Choice("service", "The Service `backend` is missing"),
        Choice("namespace", "The name needs its namespace: `backend.default`"),
        Choice("server", "CoreDNS is down"),
        Choice("policy", "The pod has `dnsPolicy: Default`"),
    ),
)


# -- recall: the address of the phone book (11, 12) --------------------------------------------------------------------


def _recall() -> Outcome:
    world = shop()
    with world.fault("kube-dns-rules-missing"):
        name = world.connect("frontend", "http://backend")
        address = world.connect("frontend", "http://10.96.0.100")
    key = {(False, True): "names", (False, False): "both", (True, True): "none", (True, False): "addresses"}[
        name.delivered, address.delivered
    ]
    told = (
        f"`http://backend`: {name.verdict} ({name.why}). `http://10.96.0.100`: {address.verdict}. 10.96.0.10 is a "
        "ClusterIP like any other, so DNS needs kube-proxy's rules before anybody can ask it anything. It looks like a "
        "DNS outage on one node, and no DNS server has done anything wrong."
    )
    return Outcome(key, told, name)


RECALL = predict(
    "17-recall",
    "Once more, from notebooks 11 and 12: the phone book's own number",
    "On node-1 the rules for one Service are missing: those of `kube-dns`, 10.96.0.10. frontend runs there. What still "
    "works for it?",
    {
        "none": "Everything: CoreDNS itself is healthy",
        "addresses": "Names, but calls to 10.96.0.100 do not",
        "names": "Calls to 10.96.0.100; no name is found",
        "both": "Nothing at all",
    },
    _recall,
    {
        "none": "CoreDNS is healthy, but how does a packet to 10.96.0.10 find it?",
        "addresses": "The rules of the Service `backend` are where they were.",
        "both": "The rules of one Service are missing, all others are in place. Which call needs only those others?",
    },
    (
        "Which machine has the address 10.96.0.10?",
        "None has it: it is a mark that rules look for (notebook 11).",
        "Without those rules nobody can ask. What of a call that asks nobody?",
    ),
)

EXERCISES = (FIRST, LONG_WAY, FIND_POLICY, FEWER, RECALL)
