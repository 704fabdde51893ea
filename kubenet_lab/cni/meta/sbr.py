"""sbr: source based routing. The interface's routes move to a table of their own, which a rule leads to by source.

https://www.cni.dev/plugins/current/meta/sbr/
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.cni.plugin import Call, CniError, Plugin, Result
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.route import TABLE_MAIN, RouteRule
from kubenet_lab.packet.ip import family

FIRST_TABLE = 100
PRIORITY = 32765
"""What the kernel gives a rule that names none: one before the first rule that is not 0."""


def add(call: Call) -> Result:
    """`ip rule add from ADDRESS table 100`, and the interface's routes from main into that table."""
    result = call.prev_result()
    if result is None:
        raise CniError("This plugin must be called as chained plugin")
    if not result.ips:
        raise CniError(f"No IP addresses supplied on interface: {call.ifname}")
    sandbox = call.sandbox()
    if call.ifname not in sandbox.links:
        raise CniError(f"Cannot find network interface: {call.ifname}")
    table = int(call.conf.get("table") or 0) or _free_table(sandbox)
    addgw = call.conf.get("addSourceHints")
    for ip in result.ips:
        source, fam = ip.address.partition("/")[0], family(ip.address)
        full = 32 if fam == 4 else 128
        priorities = [rule.priority for rule in sandbox.rules[fam] if rule.priority]
        rule = RouteRule(min(priorities) - 1, table, src=f"{source}/{full}", family=fam)
        sandbox.add_rule(rule)
        if ip.gateway and not addgw:
            _move(sandbox, call.ifname, fam, table)
            if not any(r.dst.endswith("/0") for r in sandbox.route_list(fam, table)):
                everything = "0.0.0.0/0" if fam == 4 else "::/0"
                sandbox.add_route(everything, via=ip.gateway, dev=call.ifname, table=table, onlink=True)
        table = table if ip is result.ips[-1] else table + 1
    for fam in (4, 6):
        _move(sandbox, call.ifname, fam, table)
    return result


def _free_table(sandbox: Netns) -> int:
    used = {rule.table for rules in sandbox.rules.values() for rule in rules}
    return next(number for number in range(FIRST_TABLE, 10000) if number not in used)


def _move(sandbox: Netns, dev: str, fam: int, table: int) -> None:
    """Copy the interface's routes from main, then delete them there: `main` is empty in the end."""
    own = [route for route in sandbox.route_list(fam, TABLE_MAIN) if route.dev == dev]
    target = sandbox.routes.setdefault((fam, table), {})
    for route in own:
        moved = replace(route, table=table)
        target[moved.key] = moved
    for route in own:
        sandbox.delete_route(route.dst, dev=dev, metric=route.metric)


def delete(call: Call) -> None:
    """Delete the rules whose source is one of the interface's addresses."""
    sandbox = call.find_sandbox() if call.netns else None
    if sandbox is None or call.ifname not in sandbox.links:
        return
    own = {address.local for address in sandbox.addrs(call.ifname, None)}
    for fam in (4, 6):
        for rule in sandbox.rules[fam]:
            if rule.src.partition("/")[0] in own:
                sandbox.delete_rule(rule)


def check(call: Call) -> None:
    """Do nothing, as the real one does."""


PLUGIN = Plugin(name="sbr", add=add, delete=delete, check=check)
