"""`ip rule`: show, add, delete and flush."""

from __future__ import annotations

from msgspec.structs import replace

from diagnostics.ip.common import Args, Ask, Refused, command, done, rows_of, unmodelled
from diagnostics.tool import NotModelled, Result
from kubenet_lab.kernel.dialects import ip_rule
from kubenet_lab.kernel.dialects.iproute2 import Words, Wrong

COMMANDS = ("list", "show", "lst", "add", "delete", "flush", "save", "restore", "help")


def run(ask: Ask, words: list[str]) -> Result:
    """`ip rule [COMMAND]`."""
    args = Args(words)
    verb = command(args.take(), COMMANDS, "rule") if args else "show"
    family = ask.family or 4
    ns = ask.ns
    if verb in ("list", "show", "lst"):
        if args:
            raise NotModelled(f"selector {args.peek()}")
        found = list(ns.rules[family])
        text = ip_rule.show(ns, family=family, json=ask.json, pretty=ask.pretty)
        return Result(text, rows=rows_of(found))
    if verb not in ("add", "delete"):
        raise NotModelled(f"ip rule {verb}")
    if not args:
        raise Refused(
            '"ip rule del" requires arguments.\n'
            if verb == "delete"
            else '"ip rule add" requires arguments.\n',
            255,
        )
    try:
        rule = ip_rule.from_words(Words(" ".join(args.words)), family=family)
    except Wrong as wrong:
        raise unmodelled(wrong) from None
    if verb == "add":
        if rule.priority < 0:
            # net/core/fib_rules.c, fib_default_rule_pref: one less than the second rule's.
            second = ns.rules[family][1].priority if len(ns.rules[family]) > 1 else 0
            rule = replace(rule, priority=max(second - 1, 0))
        ns.add_rule(rule)
        return done()
    given = {name for name, word in (("table", "lookup"), ("table", "table")) if word in args.words}
    for old in ns.rules[family]:
        if rule.priority not in (-1, old.priority) or ("table" in given and rule.table != old.table):
            continue
        names = ("src", "dst", "iif", "oif", "fwmark", "fwmask", "ipproto")
        if all(not getattr(rule, n) or getattr(rule, n) == getattr(old, n) for n in names):
            ns.delete_rule(old)
            return done()
    raise Refused("RTNETLINK answers: No such file or directory\n")
