"""What a fault in a policy's manifest means for traffic: that is seldom what its writer feared, or hoped."""

from __future__ import annotations

import re
from collections.abc import Iterable

from msgspec.structs import replace

from kubenet_lab.errors import Fault

POLICIES = (
    "NetworkPolicy",
    "AdminNetworkPolicy",
    "BaselineAdminNetworkPolicy",
    "ClusterNetworkPolicy",
)
REFUSED = (
    "the policy is not stored: traffic stays as it is, and the pods it was to guard are not isolated by it"
)
_UNKNOWN = re.compile(r'unknown field "([^"]+)"')


def meaning(fault: Fault) -> str:
    """What a fault means for traffic, in a clause; empty for one that is not about a policy.

    A refusal leaves everything as it was. An unknown field is refused too, unless the client asked for less
    (`--validate=warn` or `ignore`): then the field is dropped, and what is left may say something quite different.
    """
    if fault.kind not in POLICIES:
        return ""
    unknown = _UNKNOWN.search(fault.message)
    dropped = _dropped(unknown[1]) if unknown else ""
    return f"{REFUSED}; {dropped}" if dropped else REFUSED


def _dropped(path: str) -> str:
    """What a policy means without the unknown field at a path."""
    parent, _, name = path.rpartition(".")
    bare = re.sub(r"\[\d+\]", "", parent)
    if re.fullmatch(r"spec\.(ingress|egress)", bare):
        end = "from" if "ingress" in bare else "to"
        if _like(name, ("from", "to", "peers")):
            what = f"a rule without `{end}` is about everybody"
        elif _like(name, ("ports", "port")):
            what = "a rule without `ports` is about every port"
        else:
            what = "the rule means what is left of it; one that is left empty lets everything through"
    elif bare == "spec":
        if _like(name, ("podselector",)):
            what = "a policy without `podSelector` is about every pod of its namespace"
        elif _like(name, ("ingress", "egress")):
            what = "a direction that is isolated and has no rules lets nothing through"
        elif _like(name, ("policytypes",)):
            what = "without `policyTypes` it isolates ingress, and egress only if it has egress rules"
        else:
            what = "the policy means what is left of it"
    elif re.search(r"\.ports$", bare):
        what = "a port entry left without `port` is every port of its protocol"
        if _like(name, ("from", "to")):
            what = "peers written under `ports` are lost: the rule is about everybody"
    elif re.search(r"(from|to)\.(pod|namespace)Selector$", bare) or bare.endswith("podSelector"):
        what = "an empty selector selects everything"
    elif re.search(r"\.(from|to)$", bare):
        what = "the peer means what is left of it; one left empty is refused"
    else:
        what = "the policy means what is left of it"
    return f"if the client drops the field (--validate=warn), {what}"


def _like(name: str, known: Iterable[str]) -> bool:
    """Whether a field is one of these, misspelt."""
    import difflib

    return bool(difflib.get_close_matches(name.lower(), list(known), 1, 0.55))


def with_meanings(faults: Iterable[Fault]) -> list[Fault]:
    """Faults whose help also says what they mean for traffic."""
    told = []
    for fault in faults:
        means = meaning(fault)
        help = f"{fault.help}\n    traffic: {means}" if fault.help else f"\n    traffic: {means}".lstrip()
        told.append(replace(fault, help=help) if means else fault)
    return told
