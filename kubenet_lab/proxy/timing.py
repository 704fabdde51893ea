"""kube-proxy's periods: how often it may write rules, how often it must, and how often it looks for a flush.

Flags: the "kube-proxy" page of Kubernetes' command line reference. In nftables mode those of iptables mode count. The
program's own default of `--iptables-min-sync-period` is 1 s; here it is 0, so that rules follow objects at once unless
somebody asks for time.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from kubenet_lab.clock import duration
from kubenet_lab.errors import Fault, InputError
from kubenet_lab.proxy.config import SOURCE

FULL_SYNC_PERIOD = 3600.0
"""Seconds after which kube-proxy writes everything again though nothing asked for it."""


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{text!r} is not an address with a port, such as 0.0.0.0:10256")
    return host.strip("[]"), int(port)


class Timing(Struct, frozen=True):
    """Periods in s, and the addresses of its two HTTP servers.

    Attributes:
        sync_period: Between two looks for the canary chains, and until a sync that failed is tried again; in ipvs mode
            also until everything is written again.
        min_sync_period: From the end of one sync to the next.
        healthz, metrics: (address, port).
    """

    sync_period: float = 30.0
    min_sync_period: float = 0.0
    healthz: tuple[str, int] = ("0.0.0.0", 10256)
    metrics: tuple[str, int] = ("127.0.0.1", 10249)

    @classmethod
    def from_flags(cls, flags: Iterable[str], mode: str = "iptables") -> Timing:
        """Read the flags that are about time and addresses; the others are `KubeProxyConfig`'s. Raises InputError."""
        own = "ipvs" if mode == "ipvs" else "iptables"
        readers = {
            f"{own}-sync-period": ("sync_period", duration),
            f"{own}-min-sync-period": ("min_sync_period", duration),
            "healthz-bind-address": ("healthz", _address),
            "metrics-bind-address": ("metrics", _address),
        }
        fields: dict[str, object] = {}
        faults = []
        for flag in flags:
            name, _, value = flag.removeprefix("--").partition("=")
            if name not in readers:
                continue
            field, read = readers[name]
            try:
                fields[field] = read(value)
            except ValueError as error:
                faults.append(Fault(f"invalid value in {flag}", SOURCE, path=flag, help=str(error)))
        made = cls(**fields)  # type: ignore[arg-type]
        if not faults and made.sync_period <= 0:
            why = f"must be greater than 0, not {made.sync_period:g} s"
            faults.append(Fault(f"--{own}-sync-period {why}", SOURCE))
        if not faults and made.min_sync_period > made.sync_period:
            why = f"must not be longer than --{own}-sync-period, {made.sync_period:g} s"
            faults.append(Fault(f"--{own}-min-sync-period {why}", SOURCE))
        if faults:
            raise InputError(faults)
        return made
