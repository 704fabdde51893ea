"""Chains, IP sets, endpoints and policies as Felix renders them: every recorded case."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from kubenet_lab.cni.calico import chains, static
from kubenet_lab.cni.calico.chains import FelixConfig
from kubenet_lab.cni.calico.graph import EndpointInfo, Picture, PolicyKey, TierInfo, calculate
from kubenet_lab.cni.calico.names import ipset
from kubenet_lab.cni.calico.rules import Chain, iptables_rules, nft_rules
from tests.oracles import open_case

Json = dict[str, Any]
WORLD: Json = open_case("cni-calico", "world")
FILES = ("felix-policy", "felix-other", "felix-static", "felix-pools-routes")
CASES: dict[str, Json] = {
    case["name"]: case | {"file": file} for file in FILES for case in open_case("cni-calico", file)
}
CASES["world"] = {"name": "world", "file": "world", "objects": ["WORLD"], "result": WORLD["result"]}
STATIC_BASE = CASES["static-default"]["result"]


def objects_of(case: Json) -> list[Json]:
    out: list[Json] = []
    for obj in case["objects"]:
        out += WORLD["objects"] if obj == "WORLD" else [obj]
    return out


def config_of(case: Json) -> FelixConfig:
    given = case.get("felixConfig") or {}
    config = FelixConfig()
    words = {
        "DefaultEndpointToHostAction": "endpoint_to_host",
        "IptablesFilterAllowAction": "filter_allow",
        "IptablesFilterDenyAction": "filter_deny",
        "NATPortRange": "nat_ports",
        "NATOutgoingAddress": "nat_address",
        "IpInIpTunnelAddr": "ipip_address",
    }
    for key, value in given.items():
        if key in words:
            config = replace(config, **{words[key]: value})
        elif key == "IptablesMarkMask":
            config = replace(config, mark_mask=int(value, 16))
        elif key == "DisableConntrackInvalidCheck":
            config = replace(config, drop_invalid=False)
        elif key == "FailsafeInboundHostPorts":
            config = replace(config, failsafe_in=())
        elif key == "FailsafeOutboundHostPorts":
            config = replace(config, failsafe_out=())
        elif key == "VXLANEnabled":
            config = replace(config, vxlan=True, vxlan6=True)
        elif key == "IpInIpEnabled":
            config = replace(config, ipip=True)
        elif key == "_ipvs":
            config = replace(config, ipvs=True)
        elif key == "InterfacePrefix":
            config = replace(config, prefixes=tuple(value.split(",")))
        else:
            assert key == "ServiceLoopPrevention"
    return config


def parts(picture: Picture, config: FelixConfig, family: int) -> dict[str, list[Chain]]:
    hosts = chains.host_chains(picture, config)
    return {
        "dispatch": chains.workload_dispatch(picture, config),
        "endpoint": chains.workload_chains(picture, config),
        "policy": chains.policy_chains(picture, config, family),
        "policyGroup": chains.group_chains(picture, config),
        "profile": chains.profile_chains(picture.profiles, config, family),
        "hep_dispatch": hosts["dispatch"],
        "hep_filter": hosts["filter"],
        "hep_mangle": hosts["mangle"],
        "hep_raw": hosts["raw"],
        "static_filter": static.filter_chains(config, family),
        "static_filter_forward_append": [static.forward_append(config)],
        "static_nat": static.nat_chains(config, family),
        "static_mangle": static.mangle_chains(config, family),
        "static_raw": static.raw_chains(config, family),
        "nat_outgoing": [static.nat_outgoing(config, family, active=True)],
        "nat_outgoing_inactive": [static.nat_outgoing(config, family, active=False)],
    }


def expected(case: Json, dialect: str) -> Json | None:
    """What was recorded, with the base it is a difference to."""
    found = case["result"].get(dialect)
    if found is None:
        return None
    base: Json = {}
    if case["file"] == "felix-static" or case["name"].startswith("pool-"):
        base = STATIC_BASE.get(dialect, {})
    elif case["objects"][:1] == ["WORLD"] and case["name"] != "world":
        base = WORLD["result"].get(dialect, {})
    return {part: {**base.get(part, {}), **found.get(part, {})} for part in {**base, **found}}


@pytest.mark.parametrize("name", list(CASES))
def test_chains(name: str) -> None:
    case = CASES[name]
    base = config_of(case)
    picture = calculate(objects_of(case), "node-1")
    looked = 0
    for dialect in ("iptables_v4", "iptables_v6", "nft_v4", "nft_v6"):
        wanted = case["result"].get(dialect)
        if wanted is None:
            continue
        family = 6 if dialect.endswith("6") else 4
        config = replace(base, nft=dialect.startswith("nft"))
        ours = {
            part: {
                chain.name: nft_rules(chain, family) if config.nft else iptables_rules(chain)
                for chain in found
            }
            for part, found in parts(picture, config, family).items()
        }
        for part, recorded in wanted.items():
            for chain, rules in recorded.items():
                looked += 1
                assert ours[part].get(chain) == rules, f"{name} {dialect} {part} {chain}"
            if part in ("policy", "policyGroup"):
                assert set(ours[part]) == set(recorded), f"{name} {dialect} {part}"
    assert looked or name in NO_CHAINS, "the case has no chains"


NO_CHAINS = {
    name
    for name, case in CASES.items()
    if not any(key.startswith(("iptables", "nft")) for key in case["result"])
}


def _key(key: PolicyKey) -> Json:
    return {"kind": key.kind, "name": key.name} | ({"namespace": key.namespace} if key.namespace else {})


def _tiers(tiers: tuple[TierInfo, ...]) -> list[Json]:
    out = []
    for tier in tiers:
        entry: Json = {"defaultAction": tier.default_action, "name": tier.name}
        if tier.ingress:
            entry["ingressPolicies"] = [_key(key) for key in tier.ingress]
        if tier.egress:
            entry["egressPolicies"] = [_key(key) for key in tier.egress]
        out.append(entry)
    return out


def _endpoint(endpoint: EndpointInfo) -> Json:
    out: Json = {"name": endpoint.name}
    v4 = [a for a in endpoint.addresses if ":" not in a]
    v6 = [a for a in endpoint.addresses if ":" in a]
    for word, tiers in (
        ("tiers", endpoint.tiers),
        ("untrackedTiers", endpoint.untracked),
        ("preDnatTiers", endpoint.pre_dnat),
        ("forwardTiers", endpoint.forward),
    ):
        if tiers:
            out[word] = _tiers(tiers)
    if endpoint.profiles:
        out["profileIds"] = list(endpoint.profiles)
    if endpoint.host:
        out["expectedIpv4Addrs"] = v4
        return {"endpoint": out, "id": {"endpointId": endpoint.id}}
    out["state"] = "active"
    if v4:
        out["ipv4Nets"] = v4
    if v6:
        out["ipv6Nets"] = v6
    return {"endpoint": out, "id": {"endpointId": "eth0", "orchestratorId": "k8s", "workloadId": endpoint.id}}


@pytest.mark.parametrize("name", list(CASES))
def test_endpoints_and_sets(name: str) -> None:
    case = CASES[name]
    picture = calculate(objects_of(case), "node-1")
    result = case["result"]
    world = case["objects"][:1] == ["WORLD"]
    base = WORLD["result"]["endpoints"] if world else []
    wanted = {json.dumps(e["id"]): e for e in [*base, *(result.get("endpoints") or [])]}
    ours = {json.dumps(_endpoint(e)["id"]): _endpoint(e) for e in picture.endpoints}
    if "endpoints" in result or world:
        assert ours == wanted
    sets = [
        {
            "id": found.id,
            "kernelName4": ipset(found.id, 4),
            "kernelName6": ipset(found.id, 6),
            "members": list(found.members),
            "type": found.kind,
        }
        for found in picture.sets
    ]
    assert sets == (result.get("ipsets") or [])


def _range(ports: tuple[tuple[int, int], ...]) -> list[Json]:
    return [({"first": a} if a else {}) | ({"last": b} if b else {}) for a, b in ports]


def _proto(protocol: str | int | None) -> Json:
    return {"number": protocol} if isinstance(protocol, int) else {"name": protocol}


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["result"].get("policies")])
def test_policies(name: str) -> None:
    """What Felix's calculation hands to its dataplane; ruleId, a hash over protobuf bytes, is left out."""
    case = CASES[name]
    picture = calculate(objects_of(case), "node-1")
    out = []
    for key, policy in picture.policies.items():
        entry: Json = {"originalSelector": policy.selector, "tier": policy.tier}
        if key.namespace:
            entry["namespace"] = key.namespace
        for word, value in (("untracked", policy.untracked), ("preDnat", policy.pre_dnat)):
            if value:
                entry[word] = True
        for word, rules in (("inboundRules", policy.inbound), ("outboundRules", policy.outbound)):
            made = []
            for rule in rules:
                line: Json = {"action": rule.action}
                if rule.family:
                    line["ipVersion"] = f"IPV{rule.family}"
                for field, value in (("protocol", rule.protocol), ("notProtocol", rule.not_protocol)):
                    if value is not None:
                        line[field] = _proto(value)
                for bang, prefix in (("", ""), ("not_", "not")):
                    for side in ("src", "dst"):
                        cap = side.capitalize() if prefix else side
                        nets = getattr(rule, f"{bang}{side}_nets")
                        ports = getattr(rule, f"{bang}{side}_ports")
                        sets = getattr(rule, f"{bang}{side}_sets")
                        named = getattr(rule, f"{bang}{side}_port_sets")
                        line |= {f"{prefix}{cap}Net": list(nets)} if nets else {}
                        line |= {f"{prefix}{cap}Ports": _range(ports)} if ports else {}
                        line |= {f"{prefix}{cap}IpSetIds": list(sets)} if sets else {}
                        line |= {f"{prefix}{cap}NamedPortIpSetIds": list(named)} if named else {}
                for field, icmp in (("icmp", rule.icmp), ("notIcmp", rule.not_icmp)):
                    if icmp is not None and icmp[1] is None:
                        line[f"{field}Type"] = icmp[0]
                    elif icmp is not None:
                        values = {"type": icmp[0], "code": icmp[1]}
                        line[f"{field}TypeCode"] = {k: v for k, v in values.items() if v}
                for field, given in rule.original.items():
                    if "orig_" in field:
                        line[_original(field)] = given
                made.append(line)
            if made:
                entry[word] = made
        out.append({"id": _key(key), "policy": entry})
    wanted = json.loads(json.dumps(case["result"]["policies"]))
    for policy in wanted:
        for word in ("inboundRules", "outboundRules"):
            for rule in policy["policy"].get(word, []):
                del rule["ruleId"]
    by_name = sorted(out, key=lambda entry: json.dumps(entry["id"]))
    assert by_name == sorted(wanted, key=lambda entry: json.dumps(entry["id"]))


def _original(field: str) -> str:
    bang, words = field.startswith("!"), field.removeprefix("!").split("_")
    names = {"orig": "original", "acct": "account"}
    out = "".join(names.get(w, w).capitalize() for w in ([words[0], "not", *words[1:]] if bang else words))
    return out[0].lower() + out[1:]
