"""`nslookup`: look a name up along the search list (BIND 9.18)."""

from __future__ import annotations

from diagnostics.tool import Call, NotModelled, Result, Tool, Usage, ask
from kubenet_lab.dns.client import lookup
from kubenet_lab.dns.lookup import ResolvConf
from kubenet_lab.dns.names import reverse_name
from kubenet_lab.dns.records import TYPES, Query, Record, Response
from kubenet_lab.packet.ip import canonical
from kubenet_lab.trace import Trace

_WORDS = {
    "NS": "nameserver = ",
    "PTR": "name = ",
    "CNAME": "canonical name = ",
    "MX": "mail exchanger = ",
    "SRV": "service = ",
    "TXT": "text = ",
}


def run(call: Call) -> Result:
    """`nslookup [-type=TYPE] NAME [SERVER]`."""
    words = list(call.argv)
    kind, port, timeout, tries = "", 53, 5.0, 3
    names: list[str] = []
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            names.append(word)
            continue
        key, _, value = word[1:].partition("=")
        if key in ("type", "query", "querytype", "q", "ty", "qu") and value:
            kind = value.upper()
            if kind not in TYPES or kind in ("AXFR", "IXFR"):
                raise NotModelled(f"type {value}")
        elif key in ("port", "po") and value.isdigit():
            port = int(value)
        elif key == "timeout" and value.isdigit():
            timeout = float(value)
        elif key == "retry" and value.isdigit():
            tries = int(value) + 1
        else:
            raise NotModelled(f"option {word}")
    if not names:
        raise NotModelled("the interactive mode; give a name")
    return _Session(call, names, kind, port, timeout, tries).run()


class _Session:
    """One name, looked up and printed."""

    def __init__(
        self, call: Call, names: list[str], kind: str, port: int, timeout: float, tries: int
    ) -> None:
        self.call, self.name, self.kind = call, names[0], kind
        self.port, self.timeout, self.tries = port, timeout, tries
        self.out = ""
        self.rows: list[dict[str, object]] = []
        self.traces: list[Trace] = []
        self.conf = ResolvConf.from_text(call.ns.files.get("/etc/resolv.conf", ""))
        self.servers = list(self.conf.nameservers)
        if len(names) > 1:
            self.servers = self._server(names[1])
        self.heading = ""

    def _server(self, name: str) -> list[str]:
        try:
            return [canonical(name)]
        except ValueError:
            found = lookup(self.call.walk, self.call.ns, name)
            self.traces += [trace for query in found.queries for trace in query.traces]
            if not found.addresses:
                raise Usage(
                    f"nslookup: couldn't get address for '{name}': not found\n", 1, self.traces
                ) from None
            return list(found.addresses)

    def run(self) -> Result:
        try:
            address = canonical(self.name)
        except ValueError:
            address = ""
        if address and not self.kind:
            return self._reverse(address)
        kind = self.kind or "A"
        response: Response | None = None
        for name in self._names():
            response = self._ask(name, kind)
            if response is None:
                return self._done(1)
            if response.rcode == "NOERROR":
                break
        assert response is not None
        server = self.servers[0]
        self.out += f"Server:\t\t{server}\nAddress:\t{server}#{self.port}\n\n"
        asked = response.question.name if response.question is not None else name
        if response.rcode != "NOERROR":
            return self._done(self._refused(response, asked))
        self._answers(response)
        last = self._end_of_chain(response, asked)
        if self.kind:
            if not response.answer:
                self.out += f"*** Can't find {self.name.rstrip('.')}: No answer\n"
            return self._done(0)
        # Without a type the address of the other family is looked up too, for the name that was found.
        second = self._ask(last, "AAAA")
        if second is None:
            return self._done(1)
        if second.rcode != "NOERROR":
            return self._done(self._refused(second, last))
        records = [record for record in second.answer if record.type == "AAAA"]
        for record in records:
            self._address(record)
        if not response.answer and not records:
            self.out += f"*** Can't find {self.name.rstrip('.')}: No answer\n"
        return self._done(0)

    @staticmethod
    def _end_of_chain(response: Response, name: str) -> str:
        targets = {record.name.lower(): record.target for record in response.answer if record.type == "CNAME"}
        seen: set[str] = set()
        while name.lower() in targets and name.lower() not in seen:
            seen.add(name.lower())
            name = targets[name.lower()]
        return name

    def _names(self) -> list[str]:
        name = self.name
        if name.endswith("."):
            return [name]
        searched = [f"{name}.{domain.rstrip('.')}." for domain in self.conf.search]
        return [f"{name}.", *searched] if name.count(".") >= self.conf.ndots else [*searched, f"{name}."]

    def _ask(self, name: str, kind: str) -> Response | None:
        """Ask each server in turn; print what nslookup says on the way. None when none could be reached."""
        servfail: Response | None = None
        for _ in range(self.tries):
            for server in self.servers:
                query = Query(name, kind, self.call.walk.rng.randrange(65536))
                got = ask(self.call, query, server, port=self.port, timeout=self.timeout)
                self.traces += got.traces
                if got.response is None:
                    self.out += f";; communications error to {server}#{self.port}: {got.problem}\n"
                    continue
                response = got.response
                if response.tc:
                    self.out += ";; Truncated, retrying in TCP mode.\n"
                    again = ask(self.call, query, server, port=self.port, tcp=True, timeout=self.timeout)
                    self.traces += again.traces
                    response = again.response or response
                if response.rcode == "SERVFAIL":
                    servfail = response
                    self.out += f";; Got SERVFAIL reply from {server}\n"
                    continue
                if (not response.ra and response.rcode in ("NOERROR", "NXDOMAIN")) or (
                    not response.ra and response.aa
                ):
                    self.out += f";; Got recursion not available from {server}\n"
                return response
            if servfail is not None:
                return servfail
        self.out += ";; no servers could be reached\n"
        return None

    def _refused(self, response: Response, name: str) -> int:
        for record in response.answer:
            if record.type == "CNAME":
                self.out += f"{record.name.rstrip('.')}\tcanonical name = {record.data}\n"
                name = record.data
        self.out += f"** server can't find {name.rstrip('.')}: {response.rcode}\n"
        return 1

    def _answers(self, response: Response) -> None:
        if response.answer and not response.aa:
            self.out += "Non-authoritative answer:\n"
        for record in response.answer:
            self._record(record)

    def _record(self, record: Record) -> None:
        if record.type in ("A", "AAAA"):
            self._address(record)
            return
        self.rows.append({"name": record.name, "type": record.type, "data": record.data})
        name = record.name.rstrip(".")
        if record.type in _WORDS:
            self.out += f"{name}\t{_WORDS[record.type]}{record.data}\n"
        elif record.type == "SOA":
            parts = record.data.split()
            self.out += f"{name}\n\torigin = {parts[0].rstrip('.')}\n\tmail addr = {parts[1].rstrip('.')}\n"
            labels = ("serial", "refresh", "retry", "expire", "minimum")
            self.out += "".join(
                f"\t{label} = {value}\n" for label, value in zip(labels, parts[2:], strict=False)
            )
        else:
            raise NotModelled(f"records of type {record.type}")

    def _address(self, record: Record) -> None:
        self.rows.append({"name": record.name, "type": record.type, "data": record.data})
        self.out += f"Name:\t{record.name.rstrip('.')}\nAddress: {record.data}\n"

    def _reverse(self, address: str) -> Result:
        name = reverse_name(address)
        response = self._ask(name, "PTR")
        if response is None:
            return self._done(1)
        if response.rcode != "NOERROR":
            return self._done(self._refused(response, name))
        if not response.answer:
            self.out += f"*** Can't find {name.rstrip('.')}: No answer\n"
            return self._done(0)
        self._answers(response)
        return self._done(0)

    def _done(self, code: int) -> Result:
        self.out += "\n"
        return Result(self.out, exit_code=code, rows=self.rows, traces=self.traces)


TOOL = Tool("nslookup", "look a name up along the search list", run)
