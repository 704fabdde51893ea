"""The controller: gives Services of type LoadBalancer addresses out of the pools.

MetalLB's `internal/allocator`: what was asked for or is there already is kept while a pool holds it; else the lowest
free address of the first pool that may be used, pools with a priority first (1 before 2, none last).
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from kubenet_lab.announce.config import Pool
from kubenet_lab.control.cloud_lb import addresses, handles
from kubenet_lab.control.loop import Change
from kubenet_lab.objects import Namespace, Service
from kubenet_lab.packet.ip import canonical
from kubenet_lab.store import Key, Store

ANNOTATIONS = ("metallb.io", "metallb.universe.tf")
"""The prefix of its annotations, and the one before version 0.14."""


def wish(store: Store, pools: Sequence[Pool]) -> tuple[list[Change], dict[Key, str]]:
    """The changes that give every Service what it is to have, and why others stay pending (Service -> reason)."""
    services = store.list(Service)
    namespaces = {n.name: n for n in store.list(Namespace)}
    ours = [s for s in services if handles(s) and not s.metadata.deletion_timestamp]
    taken = {ip for s in ours for ip in addresses(s) if any(pool.holds(ip) for pool in pools)}
    changes: list[Change] = []
    pending: dict[Key, str] = {}
    for service in ours:
        present = addresses(service)
        key = (service.namespace, service.name)
        wanted, why = _wanted(service, present, pools, namespaces.get(service.namespace), taken)
        if why:
            pending[key] = why
        taken.update(wanted)
        if wanted != present:
            taken.difference_update(set(present) - set(wanted))
            ingress = {"ingress": [{"ip": ip, "ipMode": "VIP"} for ip in wanted]} if wanted else {}
            status = replace(service.status, load_balancer=ingress)
            changes.append(
                Change("update", replace(service, status=status), why or "a pool has an address for it")
            )
    return changes, pending


def _wanted(
    service: Service,
    present: tuple[str, ...],
    pools: Sequence[Pool],
    namespace: Namespace | None,
    taken: set[str],
) -> tuple[tuple[str, ...], str]:
    """The addresses a Service is to have; without any, why."""
    notes = service.metadata.annotations
    asked = next(
        (notes[f"{p}/loadBalancerIPs"] for p in ANNOTATIONS if notes.get(f"{p}/loadBalancerIPs")), ""
    )
    named = next((notes[f"{p}/address-pool"] for p in ANNOTATIONS if notes.get(f"{p}/address-pool")), "")
    own = service.spec.load_balancer_ip
    if not pools:
        return (), "there is no IPAddressPool"
    if asked and own:
        return (), f"service can not have both {ANNOTATIONS[0]}/loadBalancerIPs and svc.Spec.LoadBalancerIP"
    if asked or own:
        try:
            wished = tuple(canonical(text.strip()) for text in (asked.split(",") if asked else (own,)))
        except ValueError:
            why = f'{ANNOTATIONS[0]}/loadBalancerIPs: "{asked}"' if asked else f'spec.loadBalancerIP "{own}"'
            return (), f"invalid {why}"
        for ip in wished:
            if not any(pool.holds(ip) for pool in pools):
                return (), f'"{ip}" is not allowed in config'
            if ip in taken and ip not in present:
                return (), f"can't change sharing key: address {ip} is another Service's"
        return wished, ""
    usable = [
        p for p in pools if (p.name == named if named else p.auto_assign) and p.serves(service, namespace)
    ]
    usable.sort(key=lambda pool: pool.priority or 1 << 31)
    if named and not usable:
        return (), f'unknown pool "{named}"'
    found: list[str] = []
    for text in service.spec.ip_families or ("IPv4",):
        family = 6 if text == "IPv6" else 4
        kept = next(
            (ip for ip in present if (":" in ip) == (family == 6) and any(p.holds(ip) for p in usable)), ""
        )
        free = kept or next((ip for p in usable for ip in p.addresses(family) if ip not in taken), "")
        if free:
            found.append(free)
    if not found:
        return (), "no available IPs"
    return tuple(found), ""
