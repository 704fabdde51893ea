"""host-local: addresses from ranges, each written to a file of the host.

The store is `/var/lib/cni/networks/<network>/`: one file an address, holding
"<container>\\r\\n<interface>", and `last_reserved_ip.<range>`, from which the search goes on, so a freed
address is not handed out again until the range has wrapped. Source:
https://www.cni.dev/plugins/current/ipam/host-local/ and `plugins/ipam/host-local/backend` (v1.9.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any

from msgspec import Struct

from kubenet_lab.cni.plugin import Call, CniError, Ip, Json, Plugin, Result, RouteEntry
from kubenet_lab.packet.ip import family, ip_int, ip_text

DATA_DIR = "/var/lib/cni/networks"


class Range(Struct, frozen=True):
    """Addresses of one subnet, `start` to `end` inclusive; the gateway is never given to a container."""

    subnet: str
    start: str
    end: str
    gateway: str

    @property
    def length(self) -> int:
        """The subnet's prefix length."""
        return int(self.subnet.partition("/")[2])

    def __contains__(self, address: str) -> bool:
        return family(address) == family(self.start) and ip_int(self.start) <= ip_int(address) <= ip_int(
            self.end
        )

    def __str__(self) -> str:
        return f"{self.start}-{self.end}"

    @classmethod
    def from_json(cls, body: Json) -> Range:
        """Read one range and fill in what is not given. Raises CniError without the number of its set."""
        return _range(
            str(body.get("subnet", "")), *(body.get(key) for key in ("rangeStart", "rangeEnd", "gateway"))
        )

    @classmethod
    def read(cls, text: str, body: Json) -> Range:
        """`from_json` without its memory."""
        try:
            block = ip_network(text, strict=False)
        except ValueError:
            block = None
        if block is None or "/" not in text:
            raise CniError(f"invalid CIDR address: {text}")
        given = {key: _address(body[key]) for key in ("rangeStart", "rangeEnd", "gateway") if body.get(key)}
        if block.prefixlen > block.max_prefixlen - 2:
            raise _BadRange(f"Network {text} too small to allocate from")
        if str(block) != f"{ip_address(text.partition('/')[0])}/{block.prefixlen}":
            raise _BadRange(
                f"Network has host bits set. For a subnet mask of length {block.prefixlen} "
                f"the network address is {block.network_address}"
            )
        for key, name in (("rangeStart", "RangeStart"), ("rangeEnd", "RangeEnd")):
            if key in given and ip_address(given[key]) not in block:
                raise _BadRange(f"{name} {given[key]} not in network {text}")
        last = int(block.broadcast_address) - (1 if block.version == 4 else 0)
        first = ip_text(int(block.network_address) + 1, block.version)
        return cls(
            text,
            given.get("rangeStart", first),
            given.get("rangeEnd", ip_text(last, block.version)),
            given.get("gateway", first),
        )


@lru_cache(maxsize=4096)
def _range(subnet: str, start: Any, end: Any, gateway: Any) -> Range:
    return Range.read(subnet, {"rangeStart": start, "rangeEnd": end, "gateway": gateway})


class _BadRange(Exception):
    """A range that is refused; the caller knows its number."""


class Config(Struct, frozen=True):
    """The `ipam` part of a configuration."""

    ranges: tuple[tuple[Range, ...], ...]
    routes: tuple[RouteEntry, ...] = ()
    data_dir: str = DATA_DIR
    resolv_conf: str = ""
    requested: tuple[str, ...] = ()


def _address(text: Any) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise CniError(f"invalid IP address: {text}") from None


def load(call: Call) -> Config:
    """Read the configuration of a call. Raises CniError in the plugin's words."""
    body = call.conf.get("ipam") or {}
    requested = [str(item) for item in (call.conf.get("runtimeConfig") or {}).get("ips", [])]
    requested += [str(item) for item in ((call.conf.get("args") or {}).get("cni") or {}).get("ips", [])]
    for pair in call.args.split(";") if call.args else ():
        if pair.startswith("IP="):
            try:
                requested.append(str(ip_address(pair[3:])))
            except ValueError:
                raise CniError(
                    f'ARGS: error parsing value of pair "{pair}": invalid IP address {pair[3:]}'
                ) from None
    sets = list(body.get("ranges") or [])
    if body.get("subnet"):
        sets.insert(
            0, [{key: body[key] for key in ("subnet", "rangeStart", "rangeEnd", "gateway") if key in body}]
        )
    if not sets:
        raise CniError("no IP ranges specified")
    # The real one decodes all text first and judges the ranges after, so a bad address beats a bad range.
    read: list[tuple[Range, ...]] = []
    faults: list[CniError] = []
    for number, items in enumerate(sets):
        one: list[Range] = []
        for item in items:
            try:
                one.append(Range.from_json(item))
            except _BadRange as fault:
                faults.append(CniError(f"invalid range set {number}: {fault}"))
        if len({family(r.start) for r in one}) > 1:
            faults.append(CniError(f"invalid range set {number}: mixed address families"))
        read.append(tuple(one))
    if faults:
        raise faults[0]
    for number, ranges in enumerate(read):
        for other in range(number + 1, len(read)):
            if any(_overlap(a, b) for a in ranges for b in read[other]):
                raise CniError(f"range set {number} overlaps with {other}")
    return Config(
        tuple(read),
        tuple(RouteEntry(r["dst"], r.get("gw", "")) for r in body.get("routes") or []),
        body.get("dataDir") or DATA_DIR,
        body.get("resolvConf", ""),
        tuple(requested),
    )


def _overlap(a: Range, b: Range) -> bool:
    return a.start in b or a.end in b or b.start in a or b.end in a


class Store:
    """The files of one network's directory."""

    def __init__(self, files: dict[str, str], directory: str) -> None:
        self.files = files
        self.directory = directory
        files.setdefault(f"{directory}/lock", "")

    def reserve(self, container: str, ifname: str, address: str, number: int) -> bool:
        """Take an address unless it is taken; remember it as the last one of the range."""
        path = f"{self.directory}/{address}"
        if path in self.files:
            return False
        self.files[path] = f"{container}\r\n{ifname}"
        self.files[f"{self.directory}/last_reserved_ip.{number}"] = address
        return True

    def last(self, number: int) -> str:
        """The last address given from a range, or ""."""
        return self.files.get(f"{self.directory}/last_reserved_ip.{number}", "")

    def of(self, container: str, ifname: str) -> list[str]:
        """The addresses of a container's interface."""
        wanted, start = f"{container}\r\n{ifname}", self.directory + "/"
        return [p[len(start) :] for p, text in self.files.items() if text == wanted and p.startswith(start)]

    def release(self, container: str, ifname: str) -> None:
        """Give the addresses of a container's interface back."""
        for address in self.of(container, ifname):
            del self.files[f"{self.directory}/{address}"]


def _candidates(ranges: tuple[Range, ...], last: str) -> Iterator[tuple[str, Range]]:
    """Addresses to try, from the one after `last` round to where it began (`RangeIter.Next`)."""
    index = next((i for i, r in enumerate(ranges) if last and last in r), -1)
    start, current = ("", last) if index >= 0 else (ranges[0].start, "")
    index = max(index, 0)
    while True:
        one = ranges[index]
        if not current:
            current = one.start
        else:
            if current == one.end:
                index = (index + 1) % len(ranges)
                one = ranges[index]
                current = one.start
            else:
                current = ip_text(ip_int(current) + 1, family(current))
            if not start:
                start = current
            elif current == start:
                return
        if current != one.gateway:
            yield current, one


def _allocate(store: Store, call: Call, ranges: tuple[Range, ...], number: int, wish: str) -> Ip:
    text = ",".join(str(r) for r in ranges)
    if wish:
        one = next(r for r in ranges if wish in r)
        if wish == one.gateway:
            raise CniError(f"requested ip {wish} is subnet's gateway")
        if not store.reserve(call.container_id, call.ifname, wish, number):
            raise CniError(f"requested IP address {wish} is not available in range set {text}")
        return Ip(f"{wish}/{one.length}", one.gateway)
    for address in store.of(call.container_id, call.ifname):
        if any(address in r for r in ranges):
            raise CniError(
                f"{address} has been allocated to {call.container_id}, duplicate allocation is not allowed"
            )
    for address, one in _candidates(ranges, store.last(number)):
        if store.reserve(call.container_id, call.ifname, address, number):
            return Ip(f"{address}/{one.length}", one.gateway)
    raise CniError(f"no IP addresses available in range set: {text}")


def add(call: Call) -> Result:
    """Reserve one address of each range set; all of them or none."""
    conf = load(call)
    dns = _read_resolv_conf(call, conf.resolv_conf) if conf.resolv_conf else {}
    store = Store(call.files, f"{conf.data_dir}/{call.name}")
    wishes = list(conf.requested)
    ips: list[Ip] = []
    for number, ranges in enumerate(conf.ranges):
        wish = next((w for w in wishes if any(w in r for r in ranges)), "")
        if wish:
            wishes.remove(wish)
        try:
            ips.append(_allocate(store, call, ranges, number, wish))
        except CniError as fault:
            store.release(call.container_id, call.ifname) if ips else None
            raise CniError(f"failed to allocate for range {number}: {fault.msg}") from fault
    if wishes:
        store.release(call.container_id, call.ifname)
        raise CniError(f"failed to allocate all requested IPs: {' '.join(wishes)}")
    return Result(ips=tuple(ips), routes=conf.routes, dns=dns)


def _read_resolv_conf(call: Call, path: str) -> Json:
    text = call.node.files.get(path)
    if text is None:
        raise CniError(f"open {path}: no such file or directory")
    dns: Json = {}
    for line in text.splitlines():
        word, *rest = line.split() or [""]
        if word == "nameserver" and rest:
            dns.setdefault("nameservers", []).append(rest[0])
        elif word == "domain" and rest:
            dns["domain"] = rest[0]
        elif word in ("search", "options"):
            dns.setdefault(word, []).extend(rest)
    return dns


def delete(call: Call) -> None:
    """Release the container's addresses; there may be none."""
    conf = load(call)
    Store(call.node.files, f"{conf.data_dir}/{call.name}").release(call.container_id, call.ifname)


def check(call: Call) -> None:
    """Fail unless the container's interface holds an address."""
    conf = load(call)
    if not Store(call.node.files, f"{conf.data_dir}/{call.name}").of(call.container_id, call.ifname):
        raise CniError(f"host-local: Failed to find address added by container {call.container_id}")


PLUGIN = Plugin(name="host-local", add=add, delete=delete, check=check)
