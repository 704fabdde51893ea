"""Exercises of 18_coredns_inside."""

from __future__ import annotations

from typing import Any

from kubenet_lab.cluster import Cluster
from kubenet_lab.course.judges import Outcome, predict
from kubenet_lab.course.sheet import DO, Exercise, Finding
from kubenet_lab.dns.client import lookup
from kubenet_lab.dns.records import Query
from kubenet_lab.dns.runtimes import Program
from kubenet_lab.dns.server.coredns import CoreDNS
from kubenet_lab.dns.server.corefile import CorefileError
from kubenet_lab.errors import Fault, InputError
from kubenet_lab.scenarios.names import names
from kubenet_lab.scenarios.shop import shop
from kubenet_lab.views.dns_steps import chain_of

NAME = "backend.default.svc.cluster.local"


def replicas(world: Cluster) -> list[str]:
    """CoreDNS pods that run, sorted."""
    return sorted(world.core_dns.running)


def rcode(world: Cluster, pod: str, name: str = NAME) -> str:
    """What one replica says to a name: its rcode, or "silence"."""
    process = world.core_dns.running[pod].process
    if process is None or not process.serving:
        return "silence"
    answer = process.server.answer(Query(f"{name}."), now=world.now)
    return answer.rcode if answer is not None else "silence"


# -- predict: the restart ----------------------------------------------------------------------------------------------


def cut_and_restart() -> tuple[Cluster, list[tuple[str, str]]]:
    """Cut the API, let a replica restart, and note what the two say then."""
    world = shop()
    first, second = replicas(world)
    world.core_dns.cut_off()
    world.advance(30)
    world.crash(first)
    world.advance(10)
    return world, [("restarted", rcode(world, first)), ("the other", rcode(world, second))]


def _restart() -> Outcome:
    _, told = cut_and_restart()
    answers = dict(told)
    key = {"NOERROR": "same", "NXDOMAIN": "nx", "SERVFAIL": "servfail", "silence": "nothing"}[
        answers["restarted"]
    ]
    return Outcome(
        key,
        f"The one that restarted says {answers['restarted']}, the other one {answers['the other']}. What "
        f"CoreDNS knows, it "
        "has in its memory only, from watching the API. Without it the new process waits five seconds, and "
        "then serves "
        "without knowing anything: it does not claim that the name does not exist, it says that it failed.",
    )


RESTART = predict(
    "18-restart",
    "A restart at the wrong moment",
    "The API server cannot be reached any more. Half a minute later one of the two CoreDNS processes crashes and is "
    "started anew by its kubelet. Ten seconds after that somebody asks it for `backend.default.svc.cluster.local`. "
    "What does it say?",
    {
        "same": "The address: it kept its database",
        "nx": "NXDOMAIN: there is no such name",
        "servfail": "SERVFAIL: something is wrong with me",
        "nothing": "Nothing: it waits until the API is back",
    },
    _restart,
    {
        "same": "That holds for the one that was not restarted. On which disk would the new process find anything?",
        "nx": "That would be a lie: it does not know whether there is such a name.",
        "nothing": "It does wait, but not for ever. Ten seconds have gone by.",
    },
    (
        "CoreDNS has no database. It has what it heard of the API since it was started.",
        "A new process begins with an empty memory, and nobody fills it now.",
        "It may not say that a name does not exist when it has no idea. Which answer code is left?",
    ),
)


# -- predict: a hundred lookups ----------------------------------------------------------------------------------------


def queries_of(kind: str, calls: int = 100) -> int:
    """Queries that so many calls in ten seconds send from one program."""
    world = shop()
    program = Program(kind, world.network.ns(world.namespace_of("frontend")))
    count = 0
    for _ in range(calls):
        count += len(program.lookup(world.walk(), "backend").queries)
        world.advance(10 / calls)
    return count


def _hundred() -> Outcome:
    count = queries_of("glibc")
    key = {2: "two", 200: "all"}.get(count, "some")
    return Outcome(
        key,
        f"{count} queries: two for every call. The C library remembers nothing, and CoreDNS's TTL of 30 "
        f"seconds is read by "
        f"nobody in this pod. A JVM would have sent {queries_of('jvm')}: it has a cache of its own, and for "
        f"as long as that "
        "lasts it also goes on calling an address that is gone.",
    )


HUNDRED = predict(
    "18-hundred",
    "A hundred calls",
    "A program in C (or Python, or PHP) calls `http://backend` a hundred times in ten seconds, with a new "
    "connection each "
    "time. The answers have a TTL of 30 seconds. How many DNS queries leave the pod?",
    {
        "two": "2: the answer is kept for its TTL",
        "some": "About 20: it is kept for a second or two",
        "all": "200: nothing is kept",
    },
    _hundred,
    {
        "two": "Who would keep it? The program called getaddrinfo and got an address, without any TTL.",
        "some": "Somebody would have to keep it. Which process in the pod runs between two calls of the library?",
    },
    (
        "A TTL is an offer to caches. Where is there one?",
        "Neither glibc nor musl has a cache, and no daemon runs beside the program in its container.",
        "So each call looks the name up as if it were the first.",
    ),
)


# -- do: a name of one's own -------------------------------------------------------------------------------------------


def _judge_corefile(answer: Any) -> Finding:
    if not isinstance(answer, str) or not answer.strip():
        raise InputError([Fault("there is no Corefile", "<answer>")])
    world = names()
    running = world.dns[min(world.dns)]
    try:
        server = CoreDNS(
            answer, running.view, running.upstream, local_ips=running.local_ips, files=running.files
        )
    except CorefileError as error:
        return Finding(False, f"CoreDNS would not start: {error}")
    said = {
        name: server.answer(Query(f"{name}."), now=world.now)
        for name in ("shop.lan", NAME, "www.example.com")
    }
    wanted = {"shop.lan": "10.96.0.100", NAME: "10.96.0.100", "www.example.com": "203.0.113.10"}
    for name, address in wanted.items():
        reply = said[name]
        got = reply.addresses if reply is not None else ()
        if got != (address,):
            told = ", ".join(got) or (reply.rcode if reply is not None else "silence")
            return Finding(False, f"`{name}`: {told}, and it should be {address}.", chain_of(server, name))
    return Finding(
        True,
        "`shop.lan` leads to the Service, and all other names are answered as before. Below: which plugin spoke.",
        chain_of(server, "shop.lan"),
    )


TEMPLATE = """.:53 {
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
    }
    forward . /etc/resolv.conf
    cache 30
}
"""

OWN_NAME = Exercise(
    id="18-own",
    kind=DO,
    title="A name of one's own",
    task="The old machines know the shop as `shop.lan`. Change the Corefile so that CoreDNS answers `shop.lan` with "
    "10.96.0.100, the address of the Service `backend`, and everything else as before.",
    judge=_judge_corefile,
    hints=(
        "Several plugins can do it: `hosts`, `rewrite`, `template`, or a server block of its own for `lan`.",
        "`hosts` takes lines as in /etc/hosts between braces. What does it do with a name that it does not have?",
        "Without the word `fallthrough` in its braces `hosts` does not let other names pass to the plugins after it.",
    ),
    template=TEMPLATE,
)


# -- predict: the five seconds (needs 13 and 17) -----------------------------------------------------------------------


def race(kernel: str, libc: str = "glibc", options: str = "") -> float:
    """Seconds of one lookup whose two queries race in conntrack."""
    world = shop()
    ns = world.network.ns(world.namespace_of("frontend"))
    conf = ns.files["/etc/resolv.conf"].replace("ndots:5", f"ndots:5{options}")
    with world.fault("parallel-queries-race", kernel=kernel):
        done = lookup(world.walk(), ns, "backend", libc, resolv_conf=conf).resolution
    assert done is not None
    return done.seconds


def _five() -> Outcome:
    took = race("drop")
    key = "zero" if took < 1 else "two" if took < 4 else "five" if took < 8 else "fails"
    return Outcome(
        key,
        f"{took:g} s. Both packets wanted to begin the same connection; conntrack kept the first and "
        f"dropped the second, "
        "without a word to anybody. The resolver waits its five seconds and asks again. Kernels since 5.7 "
        "let both pass.",
    )


FIVE = predict(
    "18-recall",
    "Once more, from notebooks 13 and 17: two packets, one port",
    "A and AAAA leave the pod in the same moment from the same port, for 10.96.0.10. On an old node (Linux "
    "4.14) conntrack "
    "can only let one of two packets begin a connection; the other one is dropped. How long does the lookup take?",
    {
        "zero": "No longer than ever: one answer is enough",
        "two": "About two seconds",
        "five": "Five seconds",
        "fails": "It fails",
    },
    _five,
    {
        "zero": "The resolver was asked for addresses of both families. It does not know that the second is "
        "still to come or "
        "lost.",
        "two": "Some clocks in TCP are that quick. This is UDP, and the resolver's own clock counts: see "
        "resolv.conf(5), "
        "`timeout`.",
        "fails": "It tries again, and the second time the two packets do not meet.",
    },
    (
        "Nobody tells the resolver that a packet was lost. What can it do?",
        "It waits for `timeout`, which is not in the file, so the default counts.",
        "man 5 resolv.conf, RES_TIMEOUT.",
    ),
)

EXERCISES = (OWN_NAME, RESTART, HUNDRED, FIVE)
