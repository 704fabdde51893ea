"""Policies as Cilium's agent keeps them: selectors over security labels, and what they let through.

Every label has a source: `k8s:` for labels of pods, `reserved:` for what is no pod, `cidr:` for blocks. A selector
picks identities (sets of labels), never addresses. Source: pkg/policy/api, pkg/policy/types of Cilium.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

NAMESPACE_LABEL = "io.kubernetes.pod.namespace"
NAMESPACE_META = "io.cilium.k8s.namespace.labels."
CLUSTER_LABEL = "io.cilium.k8s.policy.cluster"
ACCOUNT_LABEL = "io.cilium.k8s.policy.serviceaccount"

Labels = Mapping[str, str]
"""Labels of an identity with their source: {"k8s:app": "web"}."""


class Requirement(Struct, frozen=True):
    """One expression of a selector: In, NotIn, Exists or DoesNotExist."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Labels) -> bool:
        """Whether an identity meets it; NotIn is met by one without the label. Raises ValueError for the operator."""
        if self.operator == "In":
            return labels.get(self.key) in self.values if self.key in labels else False
        if self.operator == "NotIn":
            return self.key not in labels or labels[self.key] not in self.values
        if self.operator == "Exists":
            return self.key in labels
        if self.operator == "DoesNotExist":
            return self.key not in labels
        raise ValueError(f"{self.operator!r} is no operator of a selector")

    def __str__(self) -> str:
        values = " ".join(self.values)
        return f"LabelSelectorRequirement{{Key:{self.key},Operator:{self.operator},Values:[{values}],}}"


class Selector(Struct, frozen=True):
    """Identities with all these labels that meet all these requirements; without any it means every identity."""

    labels: tuple[tuple[str, str], ...] = ()
    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def of(cls, labels: Mapping[str, str], requirements: Iterable[Requirement] = ()) -> Selector:
        """Make a selector; the order of labels does not matter."""
        return cls(tuple(sorted(labels.items())), tuple(requirements))

    def matches(self, labels: Labels) -> bool:
        """Whether an identity with these labels is meant."""
        return all(labels.get(k) == v for k, v in self.labels) and all(
            r.matches(labels) for r in self.requirements
        )

    def __str__(self) -> str:
        labels = "".join(f"{key}: {value}," for key, value in self.labels)
        needs = "".join(f"{need}," for need in self.requirements)
        return (
            f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},"
            f"MatchExpressions:[]LabelSelectorRequirement{{{needs}}},}}"
        )


class CidrRule(Struct, frozen=True):
    """A block of addresses outside the cluster, without some blocks in it. Pods are never meant by a block."""

    cidr: str
    excepts: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"cidr:{self.cidr}" + (f"-[{','.join(self.excepts)}]" if self.excepts else "")


Peer = Selector | CidrRule

ANYBODY = Selector()


class HttpRule(Struct, frozen=True):
    """What an HTTP request must be: an empty field allows anything. `method` and `path` are regular expressions."""

    method: str = ""
    path: str = ""
    host: str = ""
    headers: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [self.method or "any method", self.path or "any path", self.host, *self.headers]
        return " ".join(part for part in parts if part)


class PortRule(Struct, frozen=True):
    """A port by number ("80", "0" for every one), by name of a container's port, or a range up to `end_port`.

    `protocol` is TCP, UDP, SCTP or ANY. `http` sends what is let in to the proxy, which asks each request.
    """

    port: str
    protocol: str
    end_port: int = 0
    http: tuple[HttpRule, ...] = ()


class PolicyEntry(Struct, frozen=True):
    """One rule: for the pods of `subject`, in one direction, from or to `peers` on `ports`.

    `peers` None selects nobody: the entry only makes the direction closed by default. `ports` None means all.
    """

    subject: Selector
    ingress: bool
    peers: tuple[Peer, ...] | None
    ports: tuple[PortRule, ...] | None = None
    deny: bool = False
    source: str = ""
    """The policy it was made from: "NetworkPolicy default/db"."""
    default_deny: bool = True
    """Whether it closes the direction for all that no entry allows (enableDefaultDeny)."""

    def __str__(self) -> str:
        peers = "nobody" if self.peers is None else ", ".join(map(str, self.peers))
        ports = "" if self.ports is None else " on " + ", ".join(f"{p.port}/{p.protocol}" for p in self.ports)
        verb = "denies" if self.deny else "allows"
        return f"{self.source} {verb} {'from' if self.ingress else 'to'} {peers}{ports}"
