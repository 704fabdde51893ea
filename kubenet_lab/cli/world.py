"""Files named on the command line, made into objects or a cluster; every fault at once, with its place."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, TypeVar

import typer

from kubenet_lab.errors import Fault, InputError, Invalid

if TYPE_CHECKING:
    from kubenet_lab.cluster import Cluster
    from kubenet_lab.manifests import Checked
    from kubenet_lab.manifests.contradictions import Contradiction
    from kubenet_lab.objects import AnyObject

T = TypeVar("T")

NODES_HELP = "Nodes of a world whose files name none."
SEED_HELP = "One seed gives one world and one random choice of backends."
LENIENT_HELP = "Warn of unknown fields instead of refusing them (kubectl's --validate=warn)."
CNI_HELP = (
    "The pod network: bridge, flannel, flannel-host-gw, flannel-wireguard, calico, calico-ipip, calico-vxlan, cilium, "
    "cilium-native or none."
)
PROXY_HELP = "The Service data plane: iptables, nftables, ipvs or ebpf."
Cni = Annotated[str, typer.Option("--cni", metavar="NAME", help=CNI_HELP)]
Proxy = Annotated[str, typer.Option("--proxy", metavar="NAME", help=PROXY_HELP)]
BALANCER_HELP = (
    "Who serves Services of type LoadBalancer: none, cloud, cloud-proxy, l2 or bgp (the last two take their addresses "
    "from IPAddressPools)."
)
Balancer = Annotated[str, typer.Option("--load-balancer", metavar="NAME", help=BALANCER_HELP)]
POLICY_HELP = (
    "Who enforces NetworkPolicies where the pod network does not: none, iptables (as kube-router does) or nftables "
    "(as kube-network-policies does)."
)
PolicyAgent = Annotated[str, typer.Option("--policy", metavar="NAME", help=POLICY_HELP)]
OUTPUT_HELP = "Write to this file instead of standard output."


class Inputs:
    """The files of one command. Standard input is read once, when it is first needed."""

    def __init__(self, files: Sequence[str], *, lenient: bool = False) -> None:
        self.files = list(files)
        self.lenient = lenient
        self._stdin: bytes | None = None

    def stdin(self) -> TextIO:
        """Standard input, from its start; whether it is text is for the reader to say."""
        if self._stdin is None:
            from kubenet_lab.manifests.load import up_to_limit

            data = up_to_limit(getattr(sys.stdin, "buffer", sys.stdin)) if "-" in self.files else b""
            self._stdin = data.encode() if isinstance(data, str) else data
        return io.TextIOWrapper(io.BytesIO(self._stdin), encoding="utf-8")

    def objects(self) -> list[AnyObject]:
        """Read the files; warnings go to standard error. Raises InputError."""
        from kubenet_lab import manifests

        found = manifests.read(*self.files, lenient=self.lenient, stdin=self.stdin())
        for warning in found.warnings:
            typer.echo(f"warning: {warning}", err=True)
        return list(found.objects)

    def warn_of(self, objects: Sequence[AnyObject]) -> None:
        """Say on standard error where Services and slices that `objects` read contradict each other, with places."""
        from kubenet_lab import manifests
        from kubenet_lab.manifests.contradictions import contradictions

        found = contradictions(objects)
        if found:
            checked = manifests.check(*self.files, lenient=True, stdin=self.stdin())
            if len(checked.objects) == len(objects):
                places = contradicted(found, objects, checked, *self.files, stdin=self.stdin())
                told = [str(one) for one in places]
            else:
                told = [str(one) for one in found]
            typer.echo("".join(f"warning: {one}\n" for one in told), nl=False, err=True)

    def build(self, objects: Sequence[AnyObject], nodes: int, seed: int = 0, **options: Any) -> Cluster:
        """Build the world of some objects, CoreDNS added where they bring none. Raises InputError.

        `options` are the cluster's: `cni`, `proxy`, `policy`, `load_balancer`.
        """
        from kubenet_lab.cluster import Cluster

        try:
            return Cluster.from_objects(objects, nodes=nodes, seed=seed, **options)
        except Invalid as error:
            raise self.refused(error) from error
        except InputError as error:
            raise InputError([self._placed(fault) for fault in error.faults]) from error

    def cluster(self, nodes: int, seed: int = 0, told: bool = False, **options: Any) -> Cluster:
        """Read the files and build their world, as `build` does. Raises InputError.

        With `told` contradictions among them are told too.
        """
        check_options(**options)
        objects = self.objects()
        built = self.build(objects, nodes, seed, **options)
        if told:
            self.warn_of(objects)
        return built

    def refused(self, error: Invalid) -> InputError:
        """A refusal of the API server: every cause of it, with its place in the files."""
        return InputError([
            self._placed(
                Fault(
                    cause.message, path=cause.field, kind=error.kind, name=error.name, reason=cause.reason
                ),
                error.namespace or "default",
            )
            for cause in error.causes
        ])  # fmt: skip

    def _placed(self, fault: Fault, namespace: str = "") -> Fault:
        """Return what is wrong with an object at its place in the files; a fault that names no object as it is.

        Without a namespace it may be of any.
        """
        from msgspec.structs import replace

        from kubenet_lab.manifests.text import Document, documents

        if fault.line or not fault.kind or not fault.name:
            return fault
        path = _steps(fault.path)
        for file, text in self.texts():
            for document in documents(text, file):
                if not isinstance(document, Document):
                    continue
                at = _find(document.value, fault.kind.partition(".")[0], fault.name, namespace)
                if at is not None:
                    line, column = document.place((*at, *_as_written(document.value, at, path)))
                    return replace(fault, file=file, line=line, column=column, document=document.number)
        return replace(fault, file=", ".join(self.files))

    def texts(self) -> list[tuple[str, str]]:
        """The name and text of every file."""
        from kubenet_lab.manifests.load import SUFFIXES

        texts: list[tuple[str, str]] = []
        for name in self.files:
            path = Path(name)
            if name == "-":
                texts.append(("<stdin>", self.stdin().read()))
            elif path.is_dir():
                texts += [
                    (str(p), p.read_text("utf-8-sig"))
                    for p in sorted(path.rglob("*"))
                    if p.suffix in SUFFIXES
                ]
            else:
                texts.append((name, path.read_text("utf-8-sig")))
        return texts


def contradicted(
    found: Iterable[Contradiction],
    objects: Sequence[AnyObject],
    checked: Checked,
    *files: str,
    stdin: TextIO,
    but: Iterable[tuple[int, str]] = (),
) -> list[Fault]:
    """Return contradictions at their places in the files; not those of (object's number, field) in `but`."""
    from msgspec.structs import replace

    from kubenet_lab.errors import Cause
    from kubenet_lab.manifests import Refusal, placed

    at = {id(obj): index for index, obj in enumerate(objects)}
    known = set(but)
    refusals = [
        Refusal(
            at[id(one.object)],
            Cause(one.field, one.message, "Warning"),
            one.help,
            at[id(one.other)] if one.other is not None else None,
        )
        for one in found
        if (at[id(one.object)], one.field) not in known
    ]
    return list(placed(replace(checked, faults=()), refusals, *files, stdin=stdin))


def check_options(
    cni: str = "flannel",
    proxy: str = "iptables",
    policy: str = "none",
    load_balancer: str = "none",
    **_others: str,
) -> None:
    """Say at once of every option that no such part is modelled. Raises InputError."""
    from kubenet_lab.cluster import CNIS, LOAD_BALANCERS, POLICY_AGENTS, PROXIES

    faults = [
        not_modelled(option, value, known)
        for option, value, known in (
            ("--cni", cni, tuple(CNIS)),
            ("--proxy", proxy, tuple(PROXIES)),
            ("--policy", policy, ("none", *POLICY_AGENTS)),
            ("--load-balancer", load_balancer, ("none", *LOAD_BALANCERS)),
        )
        if value not in known
    ]
    if faults:
        raise InputError(faults)


def _steps(field: str) -> tuple[str | int, ...]:
    """`spec.ports[0].port` as the steps of a path."""
    return tuple(int(step) if step.isdigit() else step for step in re.findall(r"[^.\[\]]+", field))


def _as_written(value: Any, at: Sequence[str | int], path: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """A refusal names `clusterIPs` where only `clusterIP` was written: the singular, where that is so."""
    for step in (*at, *path[:-1]):
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return path
    last = path[-1] if path else ""
    if (
        isinstance(last, str)
        and isinstance(value, dict)
        and last not in value
        and last.removesuffix("s") in value
    ):
        return (*path[:-1], last.removesuffix("s"))
    return path


def _find(value: object, kind: str, name: str, namespace: str) -> tuple[str | int, ...] | None:
    """Where in a document an object is, in any namespace if none is given; None when it is not there."""
    if not isinstance(value, dict):
        return None
    items = value.get("items")
    if isinstance(items, list):
        for index, item in enumerate(items):
            found = _find(item, kind, name, namespace)
            if found is not None:
                return ("items", index, *found)
        return None
    meta = value.get("metadata")
    if value.get("kind") != kind or not isinstance(meta, dict) or meta.get("name") != name:
        return None
    return () if not namespace or (meta.get("namespace") or "default") == namespace else None


def collect(faults: list[Fault], make: Callable[[], T]) -> T | None:
    """Return what `make` makes, or None after adding its faults to the others."""
    try:
        return make()
    except InputError as error:
        faults += error.faults
        return None


def need_files(files: Sequence[str]) -> None:
    """Raise InputError when no file was named."""
    if not files:
        raise InputError(
            [Fault("no manifests", "-f", help="write -f FILE, -f FOLDER, or -f - for standard input")]
        )


def not_modelled(option: str, value: str, known: Sequence[str]) -> Fault:
    """The fault of an option's value that Kubernetes knows and this model does not."""
    return Fault(f"{value!r} is not modelled", option, help=f"write one of: {', '.join(known)}")
