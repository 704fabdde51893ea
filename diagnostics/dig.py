"""`dig`: ask a name server, and see the whole answer (BIND 9.18).

The clock of `;; WHEN:` is the simulated one; identifiers come from the walk's
generator.
"""

from __future__ import annotations

from datetime import timedelta

from diagnostics.tool import Call, NotModelled, Result, Tool, Usage, ask
from kubenet_lab.clock import START
from kubenet_lab.dns.client import lookup
from kubenet_lab.dns.lookup import ResolvConf
from kubenet_lab.dns.names import reverse_name
from kubenet_lab.dns.records import CLASSES, TYPES, Edns, Query, Record, Response
from kubenet_lab.packet.ip import canonical
from kubenet_lab.trace import Trace

VERSION = "DiG 9.18.49-1~deb12u3-Debian"

_SWITCHES = {
    "short": "short",
    "search": "search",
    "tcp": "tcp",
    "vc": "tcp",
    "recurse": "recurse",
    "rec": "recurse",
    "rdflag": "recurse",
    "edns": "edns",
    "cookie": "cookie",
    "dnssec": "dnssec",
    "do": "dnssec",
    "all": "all",
    "cmd": "cmd",
    "comments": "comments",
    "question": "question",
    "answer": "answer",
    "authority": "authority",
    "additional": "additional",
    "stats": "stats",
    "ignore": "ignore",
    "cdflag": "cd",
    "cd": "cd",
    "adflag": "ad",
    "identify": "identify",
    "defname": "search",
    "showsearch": "showsearch",
}
_SECTIONS = ("cmd", "comments", "question", "answer", "authority", "additional", "stats")
_VALUED = ("time", "timeout", "tries", "retry", "bufsize", "ndots")


_DEFAULTS: dict[str, bool] = {
    **dict.fromkeys(("recurse", "edns", "cookie", "ad", *_SECTIONS), True),
    **dict.fromkeys(("short", "search", "tcp", "dnssec", "ignore", "cd", "identify", "showsearch"), False),
}


class _Ask:
    """The options and question of one lookup on the command line."""

    def __init__(self, base: _Ask | None = None) -> None:
        self.name: str = base.name if base else ""
        self.type: str = base.type if base else "A"
        self.cls: str = base.cls if base else "IN"
        self.server: str = base.server if base else ""
        self.port: int = base.port if base else 53
        self.family: int = base.family if base else 0
        self.on: dict[str, bool] = dict(base.on) if base else dict(_DEFAULTS)
        values = {"time": 5, "tries": 3, "bufsize": 1232, "ndots": -1}
        self.values: dict[str, int] = dict(base.values) if base else values
        self.reverse = False

    def switch(self, word: str) -> None:
        """Read one `+option`. Raises NotModelled."""
        name, equals, value = word[1:].partition("=")
        if equals or name in _VALUED:
            if name not in _VALUED and name not in ("tcp", "edns"):
                raise NotModelled(f"option {word}")
            if not value.isdigit():
                raise Usage(f";; Couldn't parse value {word[1:]}\n", 1)
            number = int(value)
            if name == "edns":
                raise NotModelled(f"option {word}")
            key = {"timeout": "time", "retry": "tries"}.get(name, name)
            self.values[key] = max(number + 1 if name == "retry" else number, 1)
            return
        wanted = not name.startswith("no")
        bare = name if wanted else name[2:]
        if bare not in _SWITCHES:
            raise NotModelled(f"option {word}")
        key = _SWITCHES[bare]
        if key == "all":
            self.on |= dict.fromkeys(_SECTIONS, wanted)
        else:
            self.on[key] = wanted
        if key == "short" and wanted:
            self.on |= dict.fromkeys(
                ("cmd", "comments", "question", "authority", "additional", "stats"), False
            )


def run(call: Call) -> Result:
    """`dig [@SERVER] [-x ADDRESS] [NAME] [TYPE] [+OPTION...]`."""
    asks = _parse(list(call.argv))
    # The line that repeats the command is one for all: the last word on it counts.
    for one in asks:
        one.on["cmd"] = asks[-1].on["cmd"]
    total = Result()
    shown_command = False
    if not asks[0].name and not asks[0].reverse:
        asks[0].name, asks[0].type = ".", "NS"
    for at, one in enumerate(asks):
        lookup_ = _Lookup(call, one)
        lookup_.run(first=at == 0 or not shown_command)
        shown_command = True
        total.out += lookup_.out
        total.exit_code = lookup_.code
        total.rows += lookup_.rows
        total.traces += lookup_.traces
    return total


def _parse(argv: list[str]) -> list[_Ask]:
    asks: list[_Ask] = []
    base = _Ask()
    current = base
    words = list(argv)

    def take(option: str) -> str:
        if not words:
            raise Usage(f"dig: option {option} requires an argument\n", 1)
        return words.pop(0)

    while words:
        word = words.pop(0)
        if word.startswith("@"):
            current.server = word[1:]
        elif word.startswith("+"):
            current.switch(word)
        elif word.startswith("-x"):
            address = word[2:] or take("-x")
            try:
                address = canonical(address)
            except ValueError:
                raise Usage(f"Invalid IP address {address}\n", 1) from None
            current = _Ask(base)
            current.name, current.type, current.reverse = reverse_name(address), "PTR", True
            asks.append(current)
        elif word.startswith("-p"):
            current.port = int(word[2:] or take("-p"))
        elif word.startswith("-t"):
            current.type = _type(word[2:] or take("-t"))
        elif word.startswith("-c"):
            current.cls = (word[2:] or take("-c")).upper()
        elif word.startswith("-q"):
            current = _Ask(base)
            current.name = word[2:] or take("-q")
            asks.append(current)
        elif word in ("-4", "-6"):
            current.family = int(word[1])
        elif word == "-v":
            raise Usage(f"{VERSION}\n", 0)
        elif word.startswith("-"):
            raise NotModelled(f"option {word}")
        elif word.upper() in CLASSES and word.upper() != "ANY" and (asks or words):
            current.cls = word.upper()
        elif word.upper().startswith("IXFR="):
            raise NotModelled("zone transfers")
        elif word.upper() in TYPES and word.upper() != "OPT":
            current.type = word.upper()
            if current.type in ("AXFR", "IXFR"):
                raise NotModelled("zone transfers")
        else:
            if asks:
                current = _Ask(base)
            elif current is base:
                base = _Ask(current)
            current.name = word
            asks.append(current)
    return asks or [current]


def _type(word: str) -> str:
    if word.upper() not in TYPES:
        raise NotModelled(f"type {word}")
    return word.upper()


class _Lookup:
    """One question and everything printed about it."""

    def __init__(self, call: Call, one: _Ask) -> None:
        self.call, self.one = call, one
        self.out, self.code = "", 0
        self.rows: list[dict[str, object]] = []
        self.traces: list[Trace] = []
        self.conf = ResolvConf.from_text(call.ns.files.get("/etc/resolv.conf", ""))

    def run(self, *, first: bool) -> None:
        one = self.one
        servers = self._servers()
        names = self._names()
        for at, name in enumerate(names):
            response, server, problems = self._ask_all(name, servers)
            self.out += problems
            if response is None:
                if one.on["cmd"] and first:
                    self.out += self._banner()
                self.out += ";; no servers could be reached\n"
                self.code = 9
                return
            if at + 1 < len(names) and not (response.rcode == "NOERROR" and response.answer):
                continue
            self._print(response, server, first)
            return

    def _servers(self) -> list[str]:
        if not self.one.server:
            return list(self.conf.nameservers)
        try:
            return [canonical(self.one.server)]
        except ValueError:
            found = lookup(self.call.walk, self.call.ns, self.one.server)
            self.traces += [trace for query in found.queries for trace in query.traces]
            if not found.addresses:
                raise Usage(
                    f"dig: couldn't get address for '{self.one.server}': not found\n", 1, self.traces
                ) from None
            return list(found.addresses)

    def _names(self) -> list[str]:
        name = self.one.name
        if name.endswith(".") or not self.one.on["search"]:
            return [name if name.endswith(".") else name + "."]
        ndots = self.one.values["ndots"] if self.one.values["ndots"] >= 0 else self.conf.ndots
        searched = [f"{name}.{domain.rstrip('.')}." for domain in self.conf.search]
        return [f"{name}.", *searched] if name.count(".") >= ndots else [*searched, f"{name}."]

    def _ask_all(self, name: str, servers: list[str]) -> tuple[Response | None, str, str]:
        one, problems = self.one, ""
        query = Query(
            name,
            one.type,
            self.call.walk.rng.randrange(65536),
            one.on["recurse"],
            Edns(one.values["bufsize"], one.on["dnssec"]) if one.on["edns"] or one.on["dnssec"] else None,
            one.cls,
            ad=one.on["ad"],
            cd=one.on["cd"],
        )
        if one.type == "ANY":
            one.on["tcp"] = True
        tcp = one.on["tcp"]
        for _ in range(1 if tcp else one.values["tries"]):
            for server in servers:
                got = ask(self.call, query, server, port=one.port, tcp=tcp, timeout=one.values["time"])
                self.traces += got.traces
                if got.response is not None and got.response.tc and not tcp and not one.on["ignore"]:
                    problems += ";; Truncated, retrying in TCP mode.\n"
                    self.tcp = True
                    again = ask(self.call, query, server, port=one.port, tcp=True, timeout=one.values["time"])
                    self.traces += again.traces
                    if again.response is not None:
                        one.on["tcp"] = True
                        return again.response, server, problems
                if got.response is not None:
                    return got.response, server, problems
                if tcp:
                    where = f"{server}#{one.port}({self.one.server or server}) for {name.rstrip('.')}"
                    problems += f";; Connection to {where} failed: {got.problem}.\n"
                    one.on["cmd"] = False
                else:
                    problems += f";; communications error to {server}#{one.port}: {got.problem}\n"
        return None, "", problems

    def _banner(self) -> str:
        args = " ".join(self.call.argv)
        found = "; (1 server found)\n" if self.one.server else ""
        return f"\n; <<>> {VERSION} <<>> {args}\n{found};; global options: +cmd\n"

    def _print(self, response: Response, server: str, first: bool) -> None:
        on = self.one.on
        question = response.question
        for r in (*response.answer, *response.authority, *response.additional):
            self.rows.append({"name": r.name, "ttl": r.ttl, "class": r.cls, "type": r.type, "data": r.data})
        if on["short"]:
            tail = f" from server {server} in 0 ms." if on["identify"] else ""
            self.out += "".join(f"{record.data}{tail}\n" for record in response.answer)
            return
        if on["cmd"] and first:
            self.out += self._banner()
        if on["comments"]:
            self.out += self._comments(response)
        if on["question"] and question is not None:
            if on["comments"]:
                self.out += ";; QUESTION SECTION:\n"
            self.out += ";" + _columns([(question.name, 0), (question.cls, 32), (question.type, 40)]) + "\n"
            self.out += "\n" if on["comments"] else ""
        for section, label in (
            ("answer", "ANSWER"),
            ("authority", "AUTHORITY"),
            ("additional", "ADDITIONAL"),
        ):
            records: tuple[Record, ...] = getattr(response, section)
            if not on[section] or not records:
                continue
            if on["comments"]:
                self.out += f";; {label} SECTION:\n"
            self.out += "".join(record_line(record) + "\n" for record in records)
            self.out += "\n" if on["comments"] else ""
        if on["stats"]:
            when = (START + timedelta(seconds=self.call.now)).strftime("%a %b %d %H:%M:%S UTC %Y")
            via = "TCP" if on["tcp"] else "UDP"
            shown = self.one.server or server
            self.out += f";; Query time: {round(response.delay * 1000)} msec\n"
            self.out += f";; SERVER: {server}#{self.one.port}({shown}) ({via})\n"
            self.out += f";; WHEN: {when}\n;; MSG SIZE  rcvd: {response.wire_length}\n\n"

    def _comments(self, response: Response) -> str:
        question = response.question
        counts = [1 if question is not None else 0, len(response.answer), len(response.authority)]
        counts.append(len(response.additional) + (1 if response.edns is not None else 0))
        out = ";; Got answer:\n"
        if (
            question is not None
            and question.name.lower().endswith((".local.", "local."))
            and _in_local(question.name)
        ):
            out += ";; WARNING: .local is reserved for Multicast DNS\n"
            out += ";; You are currently testing what happens when an mDNS query is leaked to DNS\n"
        out += f";; ->>HEADER<<- opcode: {response.opcode}, status: {response.rcode}, id: {response.id}\n"
        out += (
            f";; flags: {response.flags}; QUERY: {counts[0]}, ANSWER: {counts[1]}, AUTHORITY: {counts[2]}, "
            f"ADDITIONAL: {counts[3]}\n"
        )
        if response.rd and not response.ra:
            out += ";; WARNING: recursion requested but not available\n"
        out += "\n" if self.one.on["question"] or response.edns is not None or self.one.on["answer"] else ""
        if response.edns is not None:
            flags = " do" if response.edns.do else ""
            edns = response.edns
            out += f";; OPT PSEUDOSECTION:\n; EDNS: version: {edns.version}, flags:{flags}; udp: {edns.payload}\n"
        return out


def _in_local(name: str) -> bool:
    labels = name.rstrip(".").lower().split(".")
    return labels[-1] == "local"


def _columns(parts: list[tuple[str, int]]) -> str:
    """Put words at columns with tabs of eight, as BIND's master file writer does (lib/dns/masterdump.c,
    indent).
    """
    out, at = "", 0
    for word, column in parts:
        if out:
            to = max(column, at + 1)
            tabs = max(to // 8 - at // 8, 0)
            if tabs:
                out += "\t" * tabs
                at = to // 8 * 8
            out += " " * (to - at)
            at = to
        out += word
        at += len(word)
    return out


def record_line(record: Record) -> str:
    """Return a record as dig prints it."""
    return _columns(
        [(record.name, 0), (str(record.ttl), 24), (record.cls, 32), (record.type, 40), (record.data, 48)]
    )


TOOL = Tool("dig", "ask a name server, and see the whole answer", run)
