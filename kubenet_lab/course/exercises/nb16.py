"""Exercises of 16_four_planes."""

from __future__ import annotations

from collections import Counter
from typing import Any

from kubenet_lab.cluster import Cluster
from kubenet_lab.course.judges import Outcome, predict
from kubenet_lab.course.sheet import FIND, Choice, Exercise, Finding
from kubenet_lab.scenarios import shop
from kubenet_lab.scenarios.planes import cost

ADDRESS = "10.96.0.100"
TITLES = {"iptables": "iptables", "nftables": "nftables", "ipvs": "IPVS", "ebpf": "eBPF"}
EMPTY = """
apiVersion: v1
kind: Service
metadata: {name: nobody-home}
spec:
  clusterIP: 10.96.0.250
  selector: {app: nobody}
  ports: [{port: 80}]
"""


# -- predict: where ----------------------------------------------------------------------------------------------------


def _where() -> Outcome:
    trip = shop(proxy="ebpf").connect("frontend", f"http://{ADDRESS}")
    wire = next(hop.packet for _trace, hop in trip.hops if hop.netns == "node-1")
    told = (
        f"The first packet that leaves frontend is addressed to {wire.dst}:{wire.dport}: a pod. The program hangs "
        "on the call `connect()` itself. It puts the pod's address in the place of the Service's before there is any "
        "packet, so nothing has to be rewritten on the way, nor put right on the way back."
    )
    return Outcome("pod" if wire.dst == ADDRESS else "socket", told, trip)


WHERE = predict(
    "16-where",
    "The earliest moment",
    "In the eBPF data plane, `frontend` calls 10.96.0.100:80. Somebody captures the first packet where it leaves the "
    "pod. Which destination does it carry?",
    {
        "pod": "10.96.0.100: the node rewrites it, as kube-proxy's rules do",
        "socket": "A backend pod's address already",
        "node": "The address of the node where the backend runs",
    },
    _where,
    {
        "pod": "That is so with all three of kube-proxy's modes: they can only act when a packet reaches the node.",
        "node": "Pods have addresses of their own, and the pod network knows the way to each of them.",
    },
    (
        "eBPF programs can hang in many places of a kernel, not only where packets pass.",
        "What does a program do before it can send anything over TCP?",
        "One of those places is the system call `connect()`.",
    ),
)

# -- predict: growth ---------------------------------------------------------------------------------------------------


def _growth() -> Outcome:
    few, many = cost("iptables", 10), cost("iptables", 1000)
    key = "each" if abs(many - few - 990) < 10 else "same" if many / few < 2 else "few"
    others = ", ".join(
        f"{TITLES[mode]} {cost(mode, 10)} and {cost(mode, 1000)}" for mode in ("nftables", "ipvs", "ebpf")
    )
    return Outcome(
        key,
        f"iptables compares {few} rules for the last of 10 Services and {many} for the last of 1,000, because "
        f"KUBE-SERVICES has one rule a Service and is read from the top. The others, with 10 and with 1,000: {others}.",
    )


GROWTH = predict(
    "16-growth",
    "A hundred times as many Services",
    "A cluster grows from 10 Services to 1,000. A packet opens a connection to the last one in the list, in iptables "
    "mode. How many more rules does the kernel compare for it?",
    {
        "same": "About as many as before",
        "few": "A few times as many",
        "each": "One more for every Service that was added",
    },
    _growth,
    {
        "same": "That would need something that finds an address without reading the others. A chain is a list.",
        "few": "So it would be if the list were sorted and cut in halves. It is read from the top, rule by rule.",
    },
    (
        "`KUBE-SERVICES` has one rule for each port of each Service.",
        "How does a kernel find the rule that fits? Notebook 12 showed it.",
        "From the first to the one that fits, one after the other.",
    ),
)

# -- predict: IPVS takes turns -----------------------------------------------------------------------------------------


def turns(mode: str, calls: int = 9) -> list[str]:
    """Return the backends that a row of calls met, in order, each by the last part of its name."""
    world = shop(proxy=mode)
    met = [str(world.connect("frontend", f"http://{ADDRESS}").server) for _ in range(calls)]
    return [name.rpartition("-")[2] for name in met]


def _turns() -> Outcome:
    met = turns("ipvs")
    even = set(Counter(met).values()) == {3} and all(met[i] == met[i % 3] for i in range(9))
    key = "turns" if even else "same" if len(set(met)) == 1 else "chance"
    return Outcome(
        key, f"Nine calls met, in this order: {', '.join(met)}. The scheduler is called `rr`, round robin."
    )


TURNS = predict(
    "16-turns",
    "Nine calls",
    "Three backends, nine new connections from the same pod, one after the other, in IPVS mode. Whom do they meet?",
    {
        "chance": "By chance, as in iptables mode: perhaps five, three and one",
        "turns": "Each backend exactly three times",
        "same": "All nine the same one",
    },
    _turns,
    {
        "chance": "Chance is what a rule with a probability can do. IPVS is a load balancer with a memory of its own.",
        "same": "That needs session affinity, and by default there is none.",
    },
    (
        "IPVS has schedulers: rr, wrr, lc, sh and more. kube-proxy's default is the first.",
        "rr stands for round robin.",
        "Round robin: the next in the row, and after the last the first again.",
    ),
)

# -- find: which one is it? --------------------------------------------------------------------------------------------

WARD = "ipvs"


def ward() -> Cluster:
    """Return a cluster whose data plane nobody told you."""
    return shop(proxy=WARD)


def traits(cluster: Cluster, node: str = "node-2") -> dict[str, str]:
    """What each tool finds on a node: tool -> what it shows of Services."""
    space = cluster.network.ns(node)
    chains = [name for name in space.iptables[4].tables["nat"].chains if name.startswith("KUBE-SVC-")]
    tables = [name for (_family, name) in space.nftables.tables if name == "kube-proxy"]
    return {
        "iptables-save": f"{len(chains)} chains KUBE-SVC-...",
        "nft list tables": f"{len(tables)} tables of kube-proxy",
        "ip addr": "kube-ipvs0" if "kube-ipvs0" in space.links else "no kube-ipvs0",
    }


def _judge_which(answer: Any) -> Finding:
    seen, would = traits(ward()), traits(shop(proxy=answer))
    for tool, found in seen.items():
        if would[tool] != found:
            return Finding(
                False, f"With {TITLES[answer]} `{tool}` on node-2 would show {would[tool]}. It shows {found}."
            )
    told = "; ".join(f"`{tool}`: {found}" for tool, found in seen.items())
    return Finding(True, f"{TITLES[answer]} it is. What node-2 shows: {told}.")


WHICH = Exercise(
    id="16-find",
    kind=FIND,
    title="Which one is it?",
    task="You are given a cluster and a shell on its nodes, and nobody knows how its Services are done. Look around on "
    "node-2 with the tools in the cell above, and say which data plane serves them.",
    judge=_judge_which,
    hints=(
        "Each data plane leaves its own traces: chains KUBE-SVC-... (iptables), a table named kube-proxy (nftables), "
        "virtual servers (IPVS), and no trace in any of these (eBPF).",
        "All kube-proxy modes write some iptables chains with names that begin with KUBE-. So look for the right ones.",
        "`ip addr` on the node: is there an interface that holds every Service's address?",
    ),
    choices=tuple(Choice(mode, title) for mode, title in TITLES.items()),
    world=ward,
)

# -- recall (12): nobody home ------------------------------------------------------------------------------------------


def empty(mode: str) -> Any:
    """Call a Service without endpoints in one data plane."""
    world = shop(proxy=mode)
    world.apply(EMPTY)
    return world.connect("frontend", "http://10.96.0.250")


def _nobody() -> Outcome:
    verdicts = {mode: empty(mode).verdict for mode in TITLES}
    silent = [mode for mode, verdict in verdicts.items() if verdict == "timed out"]
    told = "; ".join(f"{TITLES[mode]}: {verdict}" for mode, verdict in verdicts.items())
    key = "all" if not silent else "ipvs" if silent == ["ipvs"] else "kube-proxy"
    return Outcome(key, f"{told}. Each has its own way to say no, and each says it at once.")


NOBODY = predict(
    "16-recall",
    "Once more, from notebook 12: nobody home",
    "A Service has no endpoints. In iptables mode its callers are refused at once (notebook 12). In which data planes "
    "does a caller learn at once that nobody is there?",
    {
        "kube-proxy": "Only where kube-proxy writes REJECT rules: iptables and nftables",
        "ipvs": "In all but IPVS, which has no rule for it",
        "all": "In all four",
    },
    _nobody,
    {
        "kube-proxy": "The other two need no rule for it: they look the Service up, and find it without backends.",
        "ipvs": "IPVS finds its virtual server, sees no real server behind it, and does not stay silent about that.",
    },
    (
        "What would a caller see if nobody answered anything?",
        "IPVS and the eBPF programs know the Service even when it is empty.",
        "Run it: each of the four has an answer ready.",
    ),
)

EXERCISES = (WHERE, GROWTH, TURNS, WHICH, NOBODY)
