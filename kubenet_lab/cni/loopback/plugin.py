"""loopback: `ip link set lo up` in the container. https://www.cni.dev/plugins/current/main/loopback/"""

from __future__ import annotations

from kubenet_lab.cni.plugin import Call, CniError, Interface, Ip, Plugin, Result


def add(call: Call) -> Result:
    """Set `lo` up and report the addresses the kernel gives it."""
    sandbox = call.sandbox()
    lo = sandbox.set_link("lo", up=True)
    ips = tuple(Ip(f"{a.local}/{a.length}", interface=0) for a in sandbox.addrs("lo"))
    return Result(interfaces=(Interface("lo", lo.mac, call.netns),), ips=ips)


def delete(call: Call) -> None:
    """Set `lo` down; a namespace that is gone is no error."""
    sandbox = call.find_sandbox()
    if sandbox is not None:
        sandbox.set_link("lo", up=False)


def check(call: Call) -> None:
    """Fail unless `lo` is up."""
    if not call.sandbox().link("lo").up:
        raise CniError("loopback interface is down")


PLUGIN = Plugin(name="loopback", add=add, delete=delete, check=check)
