"""Which Service addresses a node tells its BGP peers, as confd's route generator works them out.

BGPConfiguration names ranges. Each range goes out whole from every node, so that a packet may enter anywhere; a Service
with `externalTrafficPolicy: Local` also goes out as single addresses, from the nodes that have ready endpoints of it: a
longer prefix wins. A range that is one address only goes out where a Service has it. No node puts these routes into its
own kernel: kube-proxy knows the addresses without them.

Source: `confd/pkg/backends/calico/routes.go` and `client.go`, `confd/etc/calico/confd/templates/bird_ipam.cfg.template`
of https://github.com/projectcalico/calico (v3.32).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from kubenet_lab.cni.calico.convert import Json
from kubenet_lab.objects import EndpointSlice, Service
from kubenet_lab.packet.ip import prefix

EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"
"""Label of nodes that announce no Service."""
KINDS = ("ClusterIP", "NodePort", "LoadBalancer")


class Ranges(Struct, frozen=True):
    """The ranges of a BGPConfiguration, as canonical prefixes.

    `aggregate` is false where `serviceLoadBalancerAggregation: Disabled` has load balancers' ranges not go out whole.
    """

    cluster: tuple[str, ...] = ()
    external: tuple[str, ...] = ()
    balancer: tuple[str, ...] = ()
    aggregate: bool = True

    @classmethod
    def of(cls, configuration: Json) -> Ranges:
        """Read BGPConfiguration default; {} has no ranges."""
        spec = configuration.get("spec") or {}

        def listed(key: str) -> tuple[str, ...]:
            return tuple(prefix(item["cidr"]).text for item in spec.get(key) or ())

        return cls(
            listed("serviceClusterIPs"),
            listed("serviceExternalIPs"),
            listed("serviceLoadBalancerIPs"),
            spec.get("serviceLoadBalancerAggregation") != "Disabled",
        )

    def __bool__(self) -> bool:
        return bool(self.all)

    @property
    def all(self) -> tuple[str, ...]:
        """Every range: what no node programs into its kernel."""
        return (*self.cluster, *self.external, *self.balancer)

    def whole(self) -> tuple[str, ...]:
        """Return what every node announces: the ranges that are more than one address."""
        wide = (*self.cluster, *self.external, *(self.balancer if self.aggregate else ()))
        return tuple(cidr for cidr in wide if not _single(cidr))


def _single(cidr: str) -> bool:
    block = prefix(cidr)
    return block.length == (128 if block.family == 6 else 32)


def _inside(address: str, cidrs: Iterable[str], *, single: bool = False) -> bool:
    return any(address in prefix(cidr) and (not single or _single(cidr)) for cidr in cidrs)


def static_routes(
    node: str,
    labels: Mapping[str, str],
    ranges: Ranges,
    services: Iterable[Service],
    slices: Mapping[tuple[str, str], list[EndpointSlice]],
) -> tuple[str, ...]:
    """Return the prefixes a node announces for Services: whole ranges first, then single addresses, each once.

    Args:
        node: Its name, and `labels` its labels.
        ranges: What BGPConfiguration allows.
        services: All Services.
        slices: (namespace, Service) -> its EndpointSlices.
    """
    if not ranges or labels.get(EXCLUDED) == "true":
        return ()
    found = dict.fromkeys(ranges.whole())
    for service in services:
        behind = slices.get((service.namespace, service.name), [])
        if _announced(service, behind, node, ranges):
            found |= dict.fromkeys(
                f"{address}/{128 if ':' in address else 32}" for address in _addresses(service, ranges)
            )
    return tuple(found)


def ingress_addresses(service: Service) -> list[str]:
    """Return the addresses a load balancer gave a Service."""
    given = (service.status.load_balancer or {}).get("ingress") or ()
    return [one["ip"] for one in given if one.get("ip")]


def _addresses(service: Service, ranges: Ranges) -> list[str]:
    """All addresses of a Service that may go out (getAllRoutesForService)."""
    out = list(service.addresses) if ranges.cluster else []
    out += [one for one in service.spec.external_ips if _inside(one, ranges.external)]
    return out + [one for one in ingress_addresses(service) if _inside(one, ranges.balancer)]


def _announced(service: Service, slices: list[EndpointSlice], node: str, ranges: Ranges) -> bool:
    """Whether this node announces a Service's single addresses (advertiseThisService)."""
    spec = service.spec
    if spec.type not in KINDS or not service.addresses:
        return False
    if spec.external_traffic_policy == "Local":
        return any(one.ready and one.node_name == node for part in slices for one in part.endpoints)
    if spec.external_traffic_policy != "Cluster":
        return False  # A Service without any outer side: its range goes out whole.
    if spec.type == "LoadBalancer":
        given = [spec.load_balancer_ip] * bool(spec.load_balancer_ip) + ingress_addresses(service)
        if any(_inside(one, ranges.balancer, single=True) for one in given):
            return True
        if not ranges.aggregate and any(part.endpoints for part in slices):
            return True
    return any(_inside(one, ranges.external, single=True) for one in spec.external_ips)
