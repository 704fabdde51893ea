"""`iptables`, `ip6tables` and their `-save` and `-restore`: rules listed and edited (iptables 1.8.9,
nf_tables).

The listing of `-L` has words of its own for every match and target; those seen in clusters are spelled as
the tool spells them, any other is shown in the words of `-S`, in square brackets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from diagnostics.tool import Call, NotModelled, Result, Tool, Usage, service
from kubenet_lab.errors import InputError
from kubenet_lab.kernel.dialects import iptables as dialect
from kubenet_lab.kernel.netfilter import BUILTIN, Chain, NetfilterError, Rule, Ruleset
from kubenet_lab.packet.packet import PROTO_NAMES

VERSION = "v1.8.9 (nf_tables)"
EDITS = frozenset(
    [
        "-A",
        "--append",
        "-I",
        "--insert",
        "-D",
        "--delete",
        "-R",
        "--replace",
        "-C",
        "--check",
        "-F",
        "--flush",
        "-Z",
        "--zero",
        "-N",
        "--new-chain",
        "-X",
        "--delete-chain",
        "-P",
        "--policy",
        "-E",
        "--rename-chain",
    ]
)
FULL = 0xFFFFFFFF


def _fail(name: str, message: str, code: int = 2, hint: bool = True) -> Usage:
    tail = f"Try `{name} -h' or '{name} --help' for more information.\n" if hint else ""
    return Usage(f"{name} {VERSION}: {message}\n{tail}", code)


def tool(name: str, family: int) -> Tool:
    """Return `iptables` or `ip6tables`."""

    def run(call: Call) -> Result:
        argv = call.argv
        if not argv:
            raise _fail(name, "no command specified")
        if argv[0] in ("-V", "--version"):
            return Result(f"{name} {VERSION}\n")
        if _lists(argv):
            return _Listing(name, family, call).run()
        if not any(word in EDITS for word in argv):
            raise _fail(
                name,
                f'unknown option "{argv[0]}"' if argv[0].startswith("-") else f"Bad argument `{argv[0]}'",
            )
        return _edit(name, family, call)

    return Tool(name, f"packet filter and NAT rules of IPv{family}", run)


def _lists(argv: list[str]) -> bool:
    return any(
        word in ("--list", "--list-rules")
        or (re.fullmatch(r"-[a-zA-Z]+", word) is not None and set(word) & set("LS"))
        for word in argv
    ) and not any(word in EDITS for word in argv)


def _edit(name: str, family: int, call: Call) -> Result:
    ns = call.ns
    table = next(
        (call.argv[at + 1] for at, w in enumerate(call.argv[:-1]) if w in ("-t", "--table")), "filter"
    )
    if table not in BUILTIN:
        raise _no_table(name, table)
    try:
        ns.set_iptables(family, dialect.apply(ns.iptables[family], call.argv, strict=True))
    except NetfilterError as error:
        text = str(error)
        if "failed (" in text:
            raise Usage(f"{name} {VERSION}:  {text}\n", 4) from None
        if "No chain/target/match by that name" in text:
            raise Usage(f"{name}: No chain/target/match by that name.\n", 1) from None
        raise Usage(f"{name}: {text}\n", 1) from None
    except InputError as error:
        message = "; ".join(fault.message for fault in error.faults)
        # The loader of extensions ends its message with a line of its own.
        raise _fail(name, message + "\n" if message.startswith("Couldn't load") else message) from None
    return Result()


def _no_table(name: str, table: str) -> Usage:
    return Usage(
        f"{name} {VERSION}: table '{table}' does not exist\nPerhaps {name} or your kernel needs to be upgraded.\n",
        3,
    )


class _Listing:
    """`-L` and `-S`."""

    def __init__(self, name: str, family: int, call: Call) -> None:
        self.name, self.family, self.call = name, family, call
        self.numeric = self.verbose = self.lines = self.exact = False
        self.table, self.command, self.chain, self.number = "filter", "", "", 0
        words = list(call.argv)
        while words:
            word = words.pop(0)
            if word in ("-t", "--table"):
                self.table = self._take(words, word)
            elif word in ("--line-numbers", "--line-number", "--line"):
                self.lines = True
            elif word in ("--list", "--list-rules"):
                self._command("L" if word == "--list" else "S", words)
            elif word in ("-w", "--wait", "-W"):
                if words and words[0].isdigit():
                    words.pop(0)
            elif word in ("--numeric", "--verbose", "--exact"):
                setattr(self, word[2:], True)
            elif re.fullmatch(r"-[nvxLS0]+", word):
                for letter in word[1:]:
                    if letter in "LS":
                        self._command(letter, words if word.endswith(letter) else [])
                    else:
                        setattr(
                            self, {"n": "numeric", "v": "verbose", "x": "exact", "0": "lines"}[letter], True
                        )
            elif word.startswith("-"):
                raise NotModelled(f"option {word}")
            else:
                raise Usage(
                    f"Bad argument `{word}'\nTry `{name} -h' or '{name} --help' for more information.\n", 2
                )
        if self.table not in BUILTIN:
            raise _no_table(name, self.table)

    def _take(self, words: list[str], option: str) -> str:
        if not words:
            raise _fail(self.name, f'option "{option}" requires an argument')
        return words.pop(0)

    def _command(self, letter: str, words: list[str]) -> None:
        self.command = letter
        if words and not words[0].startswith("-"):
            self.chain = words.pop(0)
            if words and words[0].isdigit():
                self.number = int(words.pop(0))

    def run(self) -> Result:
        rules = self.call.ns.iptables[self.family]
        chains = self._chains(rules)
        if self.chain:
            chains = [chain for chain in chains if chain.name == self.chain]
            if not chains:
                raise Usage(
                    f"{self.name} {VERSION}: chain `{self.chain}' in table `{self.table}' is incompatible, "
                    "use 'nft' tool.\n",
                    1,
                )
        rows = [
            {"table": self.table, "chain": chain.name, "num": number, "rule": rule.text(self.family).lstrip()}
            for chain in chains
            for number, rule in enumerate(chain.rules, 1)
        ]
        if self.command == "S":
            return Result(self._saved(rules, chains), rows=rows)
        return Result("\n".join(self._list(rules, chain) for chain in chains), rows=rows)

    def _chains(self, rules: Ruleset) -> list[Chain]:
        found = rules.tables.get(self.table)
        if found is None:
            return [Chain(name, (), "ACCEPT") for name in BUILTIN[self.table]]
        return list(found.in_order())

    def _saved(self, rules: Ruleset, chains: list[Chain]) -> str:
        heads = [f"-P {c.name} {c.policy}" if c.policy else f"-N {c.name}" for c in chains]
        if self.verbose:
            raise NotModelled("option -v with -S")
        body = [[f"-A {c.name}{rule.text(self.family)}" for rule in c.rules] for c in chains]
        if self.number:
            return "".join(line + "\n" for line in body[0][self.number - 1 : self.number])
        return "".join(line + "\n" for line in [*heads, *(line for lines in body for line in lines)])

    def _list(self, rules: Ruleset, chain: Chain) -> str:
        counters = rules.counters.get((self.table, chain.name)) or [[0, 0]] * (len(chain.rules) + 1)
        out = ""
        if not self.number:
            if chain.policy:
                tail = (
                    f" {self._count(counters[0][0])} packets, {self._count(counters[0][1])} bytes"
                    if self.verbose
                    else ""
                )
                out += f"Chain {chain.name} (policy {chain.policy}{tail})\n"
            else:
                out += f"Chain {chain.name} ({_references(rules, self.table, chain.name)} references)\n"
            if self.lines:
                out += "num  "
            if self.verbose:
                out += " pkts bytes "
            out += "target     prot opt "
            if self.verbose:
                out += "in     out     "
            out += "source               destination         \n"
        for number, rule in enumerate(chain.rules, 1):
            if self.number in (0, number):
                out += self._rule(rule, number, counters[number])
        return out

    def _count(self, number: int) -> str:
        """Return a counter as print_num does: five digits, then in thousands, millions..."""
        if self.exact or number <= 99999:
            return str(number)
        for unit in "KMGT":
            number = (number + 500) // 1000
            if number <= 9999 or unit == "T":
                return f"{number}{unit}"
        return str(number)

    def _rule(self, rule: Rule, number: int, counter: list[int]) -> str:
        out = f"{number:<4} " if self.lines else ""
        if self.verbose:
            packets, size = self._count(counter[0]), self._count(counter[1])
            width = 8 if self.exact else 5
            out += f"{packets:>{width}} {size:>{width if not self.exact else 8}} "
        target = rule.target
        word = "" if target is None else getattr(target, "chain", "") or target.name
        out += f"{word:<9}  "
        proto = (
            str(rule.proto)
            if self.numeric
            else ("all" if not rule.proto else _protocol(rule.proto, self.family))
        )
        out += f"{'!' + proto if rule.not_proto else proto:<5}"
        out += "-f " if rule.fragment else "!f " if rule.not_fragment else "-- "
        if self.verbose:
            for dev, inverted in ((rule.indev, rule.not_indev), (rule.outdev, rule.not_outdev)):
                text = ("!" if inverted else "") + (dev or ("*" if self.numeric else "any"))
                out += f" {text:<6}"
            out += " "
        out += self._address(rule.src, rule.not_src) + self._address(rule.dst, rule.not_dst)
        words = [self._match(match) for match in rule.matches]
        if target is not None:
            words.append(self._target(target))
        words = [w for w in words if w]
        return f"{out}{''.join(' ' + w for w in words)}".rstrip("\n") + "\n"

    def _address(self, text: str, inverted: bool) -> str:
        if not text:
            anywhere = "0.0.0.0/0" if self.family == 4 else "::/0"
            text = anywhere if self.numeric else "anywhere"
        text = text.removesuffix("/32" if self.family == 4 else "/128")
        return f"{'!' if inverted else ' '}{text:<19} "

    # -- words of matches and targets ------------------------------------------------------------------------

    def _match(self, match: Any) -> str:
        words = _MATCHES.get(match.name)
        return words(match, self) if words is not None else f"[{match.text(self.family).strip()}]"

    def _target(self, target: Any) -> str:
        if hasattr(target, "chain"):
            return "[goto] " if type(target).__name__ == "Goto" else ""
        words = _TARGETS.get(target.name)
        if words is not None:
            return words(target, self)
        options = target.options(self.family).strip()
        return f"[{options}]" if options else ""

    def port(self, number: int, proto: int) -> str:
        """Return a port's number, or its name where names are wanted."""
        return str(number) if self.numeric else service(number, proto)

    def ports(self, pair: tuple[int, int], proto: int, name: str, inverted: bool) -> str:
        """Return "dpt:80" or "dpts:1024:65535", "" for any port."""
        low, high = pair
        if pair == (0, 65535) and not inverted:
            return ""
        bang = "!" if inverted else ""
        if low == high:
            return f"{name}:{bang}{self.port(low, proto)}"
        return f"{name}s:{bang}{self.port(low, proto)}:{self.port(high, proto)}"


def _protocol(number: int, family: int) -> str:
    names = {
        1: "icmp",
        47: "gre",
        58: "ipv6-icmp",
        132: "sctp",
        50: "esp",
        51: "ah",
        4: "ipencap",
        89: "ospf",
        2: "igmp",
        41: "ipv6",
    }
    return names.get(number, PROTO_NAMES.get(number, str(number)))


def _references(rules: Ruleset, table: str, name: str) -> int:
    found = rules.tables.get(table)
    chains = found.chains.values() if found is not None else ()
    return sum(getattr(rule.target, "chain", "") == name for chain in chains for rule in chain.rules)


def _transport(proto: int, label: str) -> Callable[[Any, _Listing], str]:
    def words(match: Any, listing: _Listing) -> str:
        out = [label]
        out.append(listing.ports(match.sport, proto, "spt", match.not_sport))
        out.append(listing.ports(match.dport, proto, "dpt", match.not_dport))
        if getattr(match, "option", 0):
            out.append(f"option={'!' if match.not_option else ''}{match.option}")
        flags = getattr(match, "flags", None)
        if flags is not None:
            bang = "!" if match.not_flags else ""
            if listing.numeric:
                out.append(f"flags:{bang}{flags[0]:#04x}/{flags[1]:#04x}")
            else:
                out.append(f"flags:{bang}{_flags(flags[0])}/{_flags(flags[1])}")
        return " ".join(word for word in out if word)

    return words


def _flags(bits: int) -> str:
    names = (("FIN", 1), ("SYN", 2), ("RST", 4), ("PSH", 8), ("ACK", 16), ("URG", 32))
    if bits == 0x3F:
        return "ALL"
    return ",".join(name for name, bit in names if bits & bit) or "NONE"


def _conntrack(match: Any, listing: _Listing) -> str:
    out: list[str] = []

    def bang(name: str) -> str:
        return "! " if name in match.negated else ""

    if match.state:
        out.append(f"{bang('state')}ctstate {','.join(match.state)}")
    if match.proto is not None:
        out.append(f"{bang('proto')}ctproto {match.proto}")
    for field in ("origsrc", "origdst", "replsrc", "repldst"):
        if getattr(match, field):
            out.append(f"{bang(field)}ct{field} {getattr(match, field)}")
    for field in ("origsrcport", "origdstport", "replsrcport", "repldstport"):
        pair = getattr(match, field)
        if pair is not None:
            low, high = pair
            out.append(f"{bang(field)}ct{field} {low}" + ("" if low == high else f":{high}"))
    if match.status:
        out.append(f"{bang('status')}ctstatus {','.join(match.status)}")
    if match.expire is not None:
        low, high = match.expire
        out.append(f"{bang('expire')}ctexpire {low}" + ("" if low == high else f":{high}"))
    if match.direction:
        out.append(f"ctdir {match.direction}")
    return " ".join(out)


def _addrtype(match: Any, listing: _Listing) -> str:
    out = ["ADDRTYPE match"]
    for side, kinds, inverted in (("src", match.src, match.not_src), ("dst", match.dst, match.not_dst)):
        if kinds:
            out.append(f"{side}-type {'!' if inverted else ''}{','.join(kinds)}")
    if match.limit_in:
        out.append("limit-in")
    if match.limit_out:
        out.append("limit-out")
    return " ".join(out)


def _statistic(match: Any, listing: _Listing) -> str:
    bang = "! " if match.negated else ""
    if match.mode == "random":
        return f"statistic mode random {bang}probability {match.probability:.11f}"
    packet = f" packet {match.packet}" if match.packet else ""
    return f"statistic mode nth {bang}every {match.every}{packet}"


def _mark(match: Any, listing: _Listing) -> str:
    mask = "" if match.mask == FULL else f"/{match.mask:#x}"
    return f"{match.name} match {'! ' if match.negated else ''}{match.value:#x}{mask}"


def _multiport(match: Any, listing: _Listing) -> str:
    side = {"sports": "sports", "dports": "dports", "ports": "ports"}[match.side]
    ports = ",".join(
        listing.port(low, 6) if low == high else f"{listing.port(low, 6)}:{listing.port(high, 6)}"
        for low, high in match.ports
    )
    return f"multiport {side} {'!' if match.negated else ''}{ports}"


def _icmp(match: Any, listing: _Listing) -> str:
    bang = "!" if match.negated else ""
    kind = "icmptype" if match.name == "icmp" else "ipv6-icmptype"
    code = f" code {match.code_min}" if (match.code_min, match.code_max) != (0, 255) else ""
    if match.type == 255:
        return "icmptype 255" if listing.numeric else "icmp any"
    if listing.numeric:
        return f"{kind} {bang}{match.type}{code}"
    names = {
        ("icmp", 0): "echo-reply", ("icmp", 3): "destination-unreachable", ("icmp", 8): "echo-request",
        ("icmp", 11): "time-exceeded", ("icmp6", 1): "destination-unreachable", ("icmp6", 2): "packet-too-big",
        ("icmp6", 3): "time-exceeded", ("icmp6", 128): "echo-request", ("icmp6", 129): "echo-reply",
    }  # fmt: skip
    label = "icmp" if match.name == "icmp" else "ipv6-icmp"
    name = names.get((match.name, match.type)) if not code else None
    return f"{label} {bang}{name}" if name else f"{kind} {bang}{match.type}{code}"


def _limit(match: Any, listing: _Listing) -> str:
    rate = match.options(listing.family).split()[1]
    return f"limit: avg {rate} burst {match.burst}"


def _owner(match: Any, listing: _Listing) -> str:
    out: list[str] = []
    for label, pair, inverted in (("UID", match.uid, match.not_uid), ("GID", match.gid, match.not_gid)):
        if pair is not None:
            low, high = pair
            text = (
                "root"
                if not listing.numeric and low == high == 0
                else str(low)
                if low == high
                else f"{low}-{high}"
            )
            out.append(f"{'! ' if inverted else ''}owner {label} match {text}")
    if match.socket_exists is not None:
        out.append(f"{'' if match.socket_exists else '! '}owner socket exists")
    return " ".join(out)


def _nfacct(match: Any, listing: _Listing) -> str:
    return f"nfacct-name  {match.options(listing.family).split()[-1]}"


_MATCHES: dict[str, Callable[[Any, _Listing], str]] = {
    "comment": lambda match, listing: f"/* {match.comment} */",
    "tcp": _transport(6, "tcp"),
    "udp": _transport(17, "udp"),
    "conntrack": _conntrack,
    "state": lambda match, listing: match.options(listing.family).replace("--", "").strip(),
    "addrtype": _addrtype,
    "statistic": _statistic,
    "mark": _mark,
    "connmark": _mark,
    "multiport": _multiport,
    "icmp": _icmp,
    "icmp6": _icmp,
    "limit": _limit,
    "owner": _owner,
    "nfacct": _nfacct,
}


def _set_mark(target: Any, listing: _Listing) -> str:
    value, mask = target.value, target.mask
    if mask == FULL:
        return f"MARK set {value:#x}"
    if value == mask:
        return f"MARK or {value:#x}"
    if value == 0:
        return f"MARK and {~mask & FULL:#x}"
    if mask == 0:
        return f"MARK xor {value:#x}"
    return f"MARK xset {value:#x}/{mask:#x}"


def _nat(target: Any, listing: _Listing) -> str:
    words = target.options(listing.family).split()
    out = ""
    while words:
        word = words.pop(0)
        if word in ("--to-destination", "--to-source"):
            out += f" to:{words.pop(0)}"
        elif word == "--to-ports":
            label = "redir ports" if target.name == "REDIRECT" else "masq ports:"
            out += f" {label} {words.pop(0)}"
        else:
            out += f" {word.removeprefix('--')}"
    return out.strip()


def _reject(target: Any, listing: _Listing) -> str:
    return f"reject-with {target.options(listing.family).split()[-1]}"


def _log(target: Any, listing: _Listing) -> str:
    levels = ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
    numeric = f"LOG flags {_log_flags(target)} level {target.level}"
    text = numeric if listing.numeric or listing.verbose else f"LOG level {levels[target.level]}"
    return text + (f' prefix "{target.prefix}"' if target.prefix else "")


def _log_flags(target: Any) -> int:
    bits = {"tcp-sequence": 1, "tcp-options": 2, "ip-options": 4, "uid": 8, "macdecode": 32}
    return sum(bits.get(flag, 0) for flag in target.flags)


def _tcpmss(target: Any, listing: _Listing) -> str:
    return f"TCPMSS set {target.mss}" if target.mss else "TCPMSS clamp to PMTU"


def _connmark(target: Any, listing: _Listing) -> str:
    if target.action == "set":
        return (
            f"CONNMARK xset {target.value:#x}/{target.ctmask:#x}"
            if target.ctmask != FULL
            else f"CONNMARK set {target.value:#x}"
        )
    if target.ctmask == target.nfmask == FULL:
        return f"CONNMARK {target.action}"
    if target.ctmask == target.nfmask:
        return f"CONNMARK {target.action} mask {target.ctmask:#x}"
    return f"CONNMARK {target.action} nfmask {target.nfmask:#x} ctmask {target.ctmask:#x}"


_TARGETS: dict[str, Callable[[Any, _Listing], str]] = {
    "MARK": _set_mark,
    "DNAT": _nat,
    "SNAT": _nat,
    "MASQUERADE": _nat,
    "REDIRECT": _nat,
    "REJECT": _reject,
    "LOG": _log,
    "TCPMSS": _tcpmss,
    "CONNMARK": _connmark,
}


def save_tool(name: str, family: int) -> Tool:
    """Return `iptables-save` or `ip6tables-save`. The two comment lines with the time are left out."""

    def run(call: Call) -> Result:
        table, counters = None, False
        words = list(call.argv)
        while words:
            word = words.pop(0)
            if word in ("-t", "--table") and words:
                table = words.pop(0)
                if table not in BUILTIN:
                    raise Usage(f"Table `{table}' does not exist\n", 1)
            elif word in ("-c", "--counters"):
                counters = True
            else:
                raise NotModelled(f"option {word}")
        return Result(dialect.save(call.ns.iptables[family], table=table, counters=counters))

    return Tool(name, f"all rules of IPv{family}, as text that {name.replace('save', 'restore')} reads", run)


def restore_tool(name: str, family: int) -> Tool:
    """Return `iptables-restore` or `ip6tables-restore`."""

    def run(call: Call) -> Result:
        noflush = False
        for word in call.argv:
            if word in ("-n", "--noflush"):
                noflush = True
            elif word not in ("-c", "--counters", "-w", "--wait"):
                raise NotModelled(f"option {word}")
        try:
            call.ns.set_iptables(
                family, dialect.restore(call.ns.iptables[family], call.stdin, noflush, file="-")
            )
        except (InputError, NetfilterError) as error:
            raise Usage(f"{name} {VERSION}: {error}\n", 1) from None
        return Result()

    return Tool(name, f"replace rules of IPv{family} from text on standard input", run)


TOOLS = (
    tool("iptables", 4),
    tool("ip6tables", 6),
    save_tool("iptables-save", 4),
    save_tool("ip6tables-save", 6),
    restore_tool("iptables-restore", 4),
    restore_tool("ip6tables-restore", 6),
)
