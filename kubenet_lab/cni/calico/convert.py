"""From Kubernetes objects to Calico's: NetworkPolicies, namespaces, service accounts and pods.

Two steps, as libcalico-go takes them: `network_policy` makes a policy of the v3 API, `policy_v1` what Felix computes
with, where the namespace has become part of the selectors. All of it works on manifests (dicts), whose keys are the
API's. Source: `libcalico-go/lib/backend/k8s/conversion` and `.../syncersv1/updateprocessors`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kubenet_lab.cni.calico import names
from kubenet_lab.cni.calico.selector import parse
from kubenet_lab.packet.ip import interface_network, prefix

Json = dict[str, Any]

ORCHESTRATOR, NAMESPACE = "projectcalico.org/orchestrator", "projectcalico.org/namespace"
SERVICE_ACCOUNT = "projectcalico.org/serviceaccount"
NAMESPACE_PREFIX, ACCOUNT_PREFIX = "pcns.", "pcsa."
K8S_ORDER = 1000
FINISHED = ("Succeeded", "Failed")


class Unconvertible(ValueError):
    """A rule that has no meaning; it is left out, and the policy stays."""


# -- selectors -------------------------------------------------------------------------------------------------------


def label_selector(selector: Json | None, *, pods: bool) -> str:
    """Write a Kubernetes label selector as a Calico one; None selects no namespace, an empty one all of them."""
    words = [f"{ORCHESTRATOR} == 'k8s'"] if pods else []
    if selector is None:
        return " && ".join(words)
    labels, expressions = selector.get("matchLabels") or {}, selector.get("matchExpressions") or []
    if not pods and not labels and not expressions:
        return "all()"
    words += [f"{key} == '{labels[key]}'" for key in sorted(labels)]
    for term in expressions:
        values = "', '".join(term.get("values") or [])
        words.append(
            {
                "In": f"{term['key']} in {{ '{values}' }}",
                "NotIn": f"{term['key']} not in {{ '{values}' }}",
                "Exists": f"has({term['key']})",
                "DoesNotExist": f"! has({term['key']})",
            }[term["operator"]]
        )
    return " && ".join(words)


# -- NetworkPolicies -------------------------------------------------------------------------------------------------


def network_policy(policy: Json) -> tuple[Json, str]:
    """Return a NetworkPolicy of Kubernetes as one of Calico's v3 API, and what was wrong with it ("" if nothing).

    A rule that cannot be converted is left out, which closes what it would have opened.
    """
    spec, name = policy.get("spec") or {}, policy["metadata"]["name"]
    ingress, egress = spec.get("ingress") or [], spec.get("egress") or []
    out: Json = {
        "order": K8S_ORDER,
        "selector": label_selector(spec.get("podSelector") or {}, pods=True),
        "tier": "default",
    }
    faults = []
    for key, rules, peers in (("ingress", ingress, "from"), ("egress", egress, "to")):
        made: list[Json] = []
        for rule in rules:
            try:
                made += _rules(rule.get(peers) or [], rule.get("ports") or [], ingress=key == "ingress")
            except Unconvertible as fault:
                faults.append(
                    f"error with rule {_go(rule, key)} (k8s rule couldn't be converted: failed to parse k8s port: "
                    f"{fault})"
                )
        if made:
            out[key] = made
    wanted = spec.get("policyTypes")
    if wanted is None:
        wanted = ["Ingress"]  # the API server has filled it in before; without it egress is not looked at
    out["types"] = [kind for kind in ("Ingress", "Egress") if kind in wanted]
    made_policy = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": policy["metadata"].get("namespace") or "default"},
        "spec": out,
    }
    return made_policy, f"policy: {name}: {', '.join(faults)}" if faults else ""


def _go(rule: Json, key: str) -> str:
    """A rule as Go prints it in the real message."""
    ports = ",".join(
        f"NetworkPolicyPort{{Protocol:*{p.get('protocol', 'TCP')},Port:{p.get('port')},EndPort:*{p.get('endPort')},}}"
        for p in rule.get("ports") or []
    )
    kind, peers = ("Ingress", "From") if key == "ingress" else ("Egress", "To")
    listed = f"[]NetworkPolicyPort{{{ports},}}"
    return f"&NetworkPolicy{kind}Rule{{Ports:{listed},{peers}:[]NetworkPolicyPeer{{}},}}"


def _rules(peers: list[Json], ports: list[Json], *, ingress: bool) -> list[Json]:
    """Return a rule a protocol and peer: protocols by name, their ports gathered."""
    by_protocol: dict[str, list[int | str] | None] = {} if ports else {"": None}
    for port in ports:
        protocol = port.get("protocol") or "TCP"
        number = _port(port)
        if number is None:
            by_protocol[protocol] = None
        elif protocol not in by_protocol:
            by_protocol[protocol] = [number]
        elif (known := by_protocol[protocol]) is not None:
            known.append(number)
    out = []
    for protocol in sorted(by_protocol):
        gathered = gathered_ports(by_protocol[protocol])
        for peer in peers or (None,):
            rule: Json = {"action": "Allow"}
            if protocol:
                rule["protocol"] = protocol
            side, other = _peer(peer), {"ports": gathered} if gathered else {}
            source, destination = (side, other) if ingress else ({}, {**other, **side})
            if source:
                rule["source"] = source
            if destination:
                rule["destination"] = destination
            out.append(rule)
    return out


def _port(port: Json) -> int | str | None:
    number, end = port.get("port"), port.get("endPort")
    if number is None:
        return None
    text = str(number)
    if end is None:
        return int(text) if text.isdigit() else text
    if not text.isdigit():
        raise Unconvertible(f"invalid port {text}:{end}: invalid name for named port ({text}:{end})")
    if int(text) > end:
        raise Unconvertible(
            f"invalid port {text}:{end}: minimum port number ({text}) is greater than maximum port number ({end}) "
            "in port range"
        )
    return f"{text}:{end}" if int(text) != end else int(text)


def gathered_ports(ports: list[int | str] | None) -> list[int | str]:
    """Join ports that follow each other into ranges; names go first. A single one stays as it is."""
    if not ports or len(ports) == 1:
        return list(ports or [])
    out: list[int | str] = [p for p in ports if isinstance(p, str) and not p.partition(":")[0].isdigit()]
    numbers: list[int] = []
    for port in ports:
        if port not in out:
            first, _, last = str(port).partition(":")
            numbers += range(int(first), int(last or first) + 1)
    if len(numbers) <= 1:
        return list(ports)
    numbers = sorted(set(numbers))
    start = previous = numbers[0]
    for number in [*numbers[1:], -1]:
        if number != previous + 1:
            out.append(start if start == previous else f"{start}:{previous}")
            start = number
        previous = number
    return out


def _peer(peer: Json | None) -> Json:
    if peer is None:
        return {}
    block = peer.get("ipBlock")
    if block:
        try:
            out: Json = {"nets": [interface_network(block["cidr"])]}
            if block.get("except"):
                out["notNets"] = [interface_network(net) for net in block["except"]]
        except ValueError:
            return {}
        return out
    out = {"selector": label_selector(peer.get("podSelector"), pods=True)}
    if peer.get("namespaceSelector") is not None:
        out["namespaceSelector"] = label_selector(peer["namespaceSelector"], pods=False)
    return out


# -- from the v3 API to what Felix computes with ---------------------------------------------------------------------


def policy_v1(policy: Json) -> Json:
    """Return a v3 NetworkPolicy or GlobalNetworkPolicy with the namespace and service accounts in its selectors."""
    spec, namespace = policy.get("spec") or {}, policy["metadata"].get("namespace") or ""
    selector = spec.get("selector") or ""
    if namespace:
        own = f"{NAMESPACE} == '{namespace}'"
        selector = f"({selector}) && {own}" if selector else own
    elif spec.get("namespaceSelector"):
        spaces = _namespaces(spec["namespaceSelector"])
        selector = f"({selector}) && {spaces}" if selector else spaces
    if spec.get("serviceAccountSelector"):
        accounts = str(parse(spec["serviceAccountSelector"]).prefixed(ACCOUNT_PREFIX))
        selector = f"({selector}) && {accounts}" if selector else accounts
    out: Json = {"selector": selector, "tier": spec.get("tier") or "default"}
    if spec.get("order") is not None:
        out["order"] = spec["order"]
    if namespace:
        out["namespace"] = namespace
    types = spec.get("types")
    if types is None:
        types = [*(["Ingress"] if spec.get("ingress") or not spec.get("egress") else [])]
        types += ["Egress"] if spec.get("egress") else []
    out["types"] = [kind.lower() for kind in types]
    for key, inner in (("ingress", "inbound_rules"), ("egress", "outbound_rules")):
        if spec.get(key):
            out[inner] = [_rule_v1(rule, namespace) for rule in spec[key]]
    for key, inner in (
        ("doNotTrack", "untracked"),
        ("preDNAT", "pre_dnat"),
        ("applyOnForward", "apply_on_forward"),
    ):
        if spec.get(key):
            out[inner] = True
    return out


def _namespaces(selector: str) -> str:
    text = str(parse(selector).prefixed(NAMESPACE_PREFIX))
    return text.replace("all()", f"has({NAMESPACE})").replace("global()", f"!has({NAMESPACE})")


def _side_selector(side: Json, namespace: str) -> str:
    words = []
    accounts = side.get("serviceAccounts")
    if accounts:
        parts = []
        if accounts.get("selector"):
            parts.append(str(parse(accounts["selector"]).prefixed(ACCOUNT_PREFIX)))
        if accounts.get("names"):
            listed = "', '".join(accounts["names"])
            parts.append(str(parse(f"{SERVICE_ACCOUNT} in {{ '{listed}' }}")))
        words.append(parts[0] if len(parts) == 1 else " && ".join(f"({part})" for part in parts))
    if side.get("selector"):
        words.append(side["selector"])
    selector = words[0] if len(words) == 1 else f"({') && ('.join(words)})" if words else ""
    spaces = ""
    if side.get("namespaceSelector"):
        spaces = _namespaces(side["namespaceSelector"])
    elif namespace:
        spaces = f"{NAMESPACE} == '{namespace}'"
    if spaces and (selector or side.get("notSelector") or side.get("namespaceSelector")):
        return f"({spaces}) && ({selector})" if selector else spaces
    return selector


def _rule_v1(rule: Json, namespace: str) -> Json:
    source, destination = rule.get("source") or {}, rule.get("destination") or {}
    action = rule["action"].lower()
    out: Json = {"action": "next-tier" if action == "pass" else action}
    if rule.get("ipVersion"):
        out["ip_version"] = rule["ipVersion"]
    for key, name in (("protocol", "protocol"), ("notProtocol", "!protocol")):
        if rule.get(key) is not None:
            out[name] = rule[key].lower() if isinstance(rule[key], str) else rule[key]
    for key, bang in (("icmp", ""), ("notICMP", "!")):
        for part in ("type", "code"):
            if (rule.get(key) or {}).get(part) is not None:
                out[f"{bang}icmp_{part}"] = rule[key][part]
    for side, word in ((source, "src"), (destination, "dst")):
        fields: list[tuple[str, Any]] = [
            (f"{word}_nets", _nets(side.get("nets"))),
            (f"{word}_selector", _side_selector(side, namespace)),
            (f"{word}_ports", side.get("ports")),
            (f"!{word}_nets", _nets(side.get("notNets"))),
            (f"!{word}_selector", side.get("notSelector")),
            (f"!{word}_ports", side.get("notPorts")),
            (f"orig_{word}_selector", side.get("selector")),
            (f"orig_{word}_namespace_selector", side.get("namespaceSelector")),
            (f"!orig_{word}_selector", side.get("notSelector")),
            (f"orig_{word}_service_acct_names", (side.get("serviceAccounts") or {}).get("names")),
            (f"orig_{word}_service_acct_selector", (side.get("serviceAccounts") or {}).get("selector")),
        ]
        services = side.get("services")
        if services:
            fields += [
                (f"{word}_service", services.get("name")),
                (f"{word}_service_ns", services.get("namespace")),
            ]
        out.update({name: value for name, value in fields if value})
    return out


def _nets(nets: Iterable[str] | None) -> list[str]:
    out = []
    for net in nets or ():
        try:
            out.append(str(prefix(net)) if "/" not in net else interface_network(net))
        except ValueError:
            continue
    return out


# -- namespaces, service accounts, pods ------------------------------------------------------------------------------


def namespace_profile(namespace: Json) -> Json:
    """Return the Profile of a Namespace: it lets everything through and passes its labels on, as `pcns.KEY`."""
    name, labels = namespace["metadata"]["name"], namespace["metadata"].get("labels") or {}
    passed = {f"{NAMESPACE_PREFIX}{key}": value for key, value in labels.items()}
    passed[f"{NAMESPACE_PREFIX}projectcalico.org/name"] = name
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "Profile",
        "metadata": {"name": f"kns.{name}"},
        "spec": {"egress": [{"action": "Allow"}], "ingress": [{"action": "Allow"}], "labelsToApply": passed},
    }


def account_profile(account: Json) -> Json:
    """Return the Profile of a ServiceAccount, which has labels only."""
    meta = account["metadata"]
    passed = {f"{ACCOUNT_PREFIX}{key}": value for key, value in (meta.get("labels") or {}).items()}
    passed[f"{ACCOUNT_PREFIX}projectcalico.org/name"] = meta["name"]
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "Profile",
        "metadata": {"name": f"ksa.{meta.get('namespace') or 'default'}.{meta['name']}"},
        "spec": {"labelsToApply": passed},
    }


def valid_endpoint(pod: Json) -> bool:
    """True for a pod that is bound to a node and has a network of its own."""
    spec = pod.get("spec") or {}
    return bool(spec.get("nodeName")) and not spec.get("hostNetwork")


def pod_addresses(pod: Json) -> list[str]:
    """Return a pod's addresses as prefixes: from its status, or from what the CNI plugin noted meanwhile."""
    status, notes = pod.get("status") or {}, pod["metadata"].get("annotations") or {}
    found = [entry["ip"] for entry in status.get("podIPs") or [] if entry.get("ip")]
    found = found or ([status["podIP"]] if status.get("podIP") else [])
    if not found:
        noted = notes.get("cni.projectcalico.org/podIPs") or notes.get("cni.projectcalico.org/podIP") or ""
        found = [text for text in noted.split(",") if text]
    return [text if "/" in text else f"{text}/{128 if ':' in text else 32}" for text in found]


def ready_pod(pod: Json) -> bool:
    """True once a pod has an address."""
    return valid_endpoint(pod) and bool(pod_addresses(pod))


def workload_endpoint(pod: Json) -> Json:
    """Return a pod's WorkloadEndpoint. A finished pod has no addresses any more."""
    meta, spec = pod["metadata"], pod.get("spec") or {}
    namespace, name, account = (
        meta.get("namespace") or "default",
        meta["name"],
        spec.get("serviceAccountName"),
    )
    labels = {**(meta.get("labels") or {}), NAMESPACE: namespace, ORCHESTRATOR: "k8s"}
    if account:
        labels[SERVICE_ACCOUNT] = account
    finished = (pod.get("status") or {}).get("phase") in FINISHED
    addresses = [] if finished else pod_addresses(pod)
    ports = [
        {
            "hostIP": port.get("hostIP") or "",
            "hostPort": port.get("hostPort") or 0,
            "name": port.get("name") or "",
            "port": port["containerPort"],
            "protocol": port.get("protocol") or "TCP",
        }
        for container in spec.get("containers") or []
        for port in container.get("ports") or []
        if port.get("containerPort") and (port.get("name") or port.get("hostPort"))
    ]
    out: Json = {
        "endpoint": "eth0",
        "interfaceName": names.interface(namespace, name),
        "node": spec.get("nodeName") or "",
        "orchestrator": "k8s",
        "pod": name,
        "profiles": [f"kns.{namespace}", *([f"ksa.{namespace}.{account}"] if account else [])],
    }
    if addresses:
        out["ipNetworks"] = addresses
    if ports:
        out["ports"] = ports
    if account:
        out["serviceAccountName"] = account
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "WorkloadEndpoint",
        "metadata": {
            "labels": labels,
            "name": names.workload_endpoint(out["node"], name),
            "namespace": namespace,
        },
        "spec": out,
    }
