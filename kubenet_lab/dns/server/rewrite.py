"""The `rewrite` plugin (https://coredns.io/plugins/rewrite/): questions changed going in, answers going out."""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.dns.names import absolute
from kubenet_lab.dns.records import CLASSES, RCODES, Edns, Query, Record, Response, reply, type_number
from kubenet_lab.dns.server.corefile import Controller, CorefileError
from kubenet_lab.dns.server.plugin import Failure, Plugin, Request

Rename = Callable[[str], str | None]
"""A name -> its replacement, or None where it does not fit."""
KINDS = ("exact", "prefix", "suffix", "substring", "regex")
_REFERENCE = re.compile(r"\{(\d+)\}")


class Reply(Struct):
    """An answer while it is being changed: lists instead of tuples, and the request it answers."""

    rcode: str
    sections: dict[str, list[Record]]
    request: Request


Change = Callable[[Reply, str, int], None]
"""(answer, section, place) -> changes that record, or the whole answer."""


class Rule:
    """One rule. `match` changes the question and returns what to do to the answer, or None if it does not fit."""

    proceed = False
    """Whether later rules are tried too (`continue`)."""

    def match(self, request: Request) -> list[Change] | None:
        """Try the rule on a request."""
        raise NotImplementedError


class Rewrite(Plugin):
    """Tries its rules in order; the first that fits ends it, unless it says `continue`."""

    name = "rewrite"

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self.rules = rules

    def serve(self, request: Request) -> Response | Failure:
        """Change the question, pass on, change the answer, and put the old question back."""
        original = request.query
        changes: list[Change] = []
        fitted = False
        for rule in self.rules:
            found = rule.match(request)
            if found is not None:
                fitted = True
                request.name = request.query.name.lower()
                # What was changed last is changed back first.
                changes = [*found, *changes]
                if not rule.proceed:
                    break
        answer = self.pass_on(request)
        if not fitted:
            return answer
        request.query, request.name = original, original.name.lower()
        if isinstance(answer, Failure):
            if answer.silent or answer.rcode in ("SERVFAIL", "REFUSED", "FORMERR", "NOTIMP"):
                answer = (
                    replace(reply(original, answer.rcode), delay=answer.delay)
                    if not answer.silent
                    else answer
                )
            return answer
        return _changed(answer, original, changes, request)

    @classmethod
    def setup(cls, controller: Controller) -> Rewrite:
        """Read all stanzas of the block. Raises CorefileError."""
        c = controller
        rules: list[Rule] = []
        while c.next():
            args = c.args()
            while c.next_block():
                args += [c.value, *c.args()]
            rules.append(parse(args))
        return cls(tuple(rules))


def _changed(answer: Response, question: Query, changes: list[Change], request: Request) -> Response:
    sections = {name: list(getattr(answer, name)) for name in ("authority", "answer", "additional")}
    work = Reply(answer.rcode, sections, request)
    for section in ("authority", "answer", "additional"):
        for place in range(len(sections[section])):
            for change in changes:
                if place < len(work.sections[section]):
                    change(work, section, place)
    return replace(
        answer,
        question=question,
        rcode=work.rcode,
        **{name: tuple(records) for name, records in work.sections.items()},
    )


def parse(args: list[str]) -> Rule:
    """Make the rule of one line. Raises CorefileError with CoreDNS's words."""
    if not args:
        raise CorefileError("no rule type specified for rewrite")
    proceed = False
    if args[0].lower() in ("stop", "continue"):
        proceed = args[0].lower() == "continue"
        args = args[1:]
        if not args:
            raise CorefileError("no rule type specified for rewrite")
    kind = args[0].lower()
    makers: dict[str, Callable[[list[str]], Rule]] = {
        "name": _name_rule,
        "type": _type_rule,
        "class": _class_rule,
        "ttl": _ttl_rule,
        "rcode": _rcode_rule,
        "cname": _cname_rule,
        "edns0": _edns_rule,
    }
    if kind == "answer":
        raise CorefileError("response rewrites must begin with a name rule")
    if kind not in makers:
        raise CorefileError(f'invalid rule type "{args[0]}"')
    rule = makers[kind](args[1:])
    rule.proceed = proceed
    return rule


# -- names ---------------------------------------------------------------------------------------------------------


def rename(kind: str, old: str, new: str) -> Rename:
    """Return the function that renames by one kind of match. Raises CorefileError for a broken pattern."""
    if kind == "exact":
        return lambda name: new if name == old else None
    if kind == "prefix":
        return lambda name: new + name[len(old) :] if name.startswith(old) else None
    if kind == "suffix":
        return lambda name: name[: len(name) - len(old)] + new if name.endswith(old) else None
    if kind == "substring":
        return lambda name: name.replace(old, new) if old in name else None
    pattern = _pattern(old)

    def by_pattern(name: str) -> str | None:
        found = pattern.search(name)
        if found is None:
            return None
        return _REFERENCE.sub(
            lambda ref: found[int(ref[1])] if int(ref[1]) <= pattern.groups else ref[0], new
        )

    return by_pattern


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error:
        raise CorefileError(f"invalid regex matching pattern: {text}") from None


def _dotted(kind: str, text: str) -> str:
    return (
        absolute(text).lower() if kind in ("exact", "suffix") else text if kind == "regex" else text.lower()
    )


class NameRule(Rule):
    """Changes the name that is asked. `auto` turns the names in the answer back."""

    def __init__(self, kind: str, old: str, new: str, auto: bool, changes: list[Change]) -> None:
        self.kind, self.old, self.new = kind, old, new
        self.auto = auto
        self.changes = changes
        self._rename = rename(kind, old, new)

    def match(self, request: Request) -> list[Change] | None:
        """Rename the question."""
        before = request.query.name.lower()
        after = self._rename(before)
        if after is None:
            return None
        after = absolute(after)
        request.query = replace(request.query, name=after)
        if not self.auto:
            return self.changes
        back = (
            rename("suffix", self.new, self.old)
            if self.kind == "suffix"
            else (lambda name: before if name == after else None)
        )
        return [_owner(back), _value(back), *self.changes]


def _owner(back: Rename) -> Change:
    def change(work: Reply, section: str, place: int) -> None:
        record = work.sections[section][place]
        new = back(record.name)
        if new is not None:
            work.sections[section][place] = replace(record, name=absolute(new))

    return change


def _value(back: Rename) -> Change:
    def change(work: Reply, section: str, place: int) -> None:
        record = work.sections[section][place]
        if record.type in ("SRV", "MX", "CNAME", "NS", "DNAME", "SOA"):
            words = record.data.split(" ")
            # Of an SOA record that is the name server, of the others the target at the end.
            place_of_name = 0 if record.type == "SOA" else -1
            new = back(words[place_of_name])
            if new is not None:
                words[place_of_name] = absolute(new)
                work.sections[section][place] = replace(record, data=" ".join(words))

    return change


def _name_rule(args: list[str]) -> Rule:
    if len(args) < 2:
        raise CorefileError("too few arguments for a name rule")
    if len(args) == 2:
        kind, old, new, rest = "exact", args[0], args[1], []
    else:
        kind, old, new, rest = args[0].lower(), args[1], args[2], args[3:]
        if kind not in KINDS:
            raise CorefileError(f'invalid rule type "{args[0]}"')
    auto, changes = _answers(kind, rest)
    return NameRule(kind, _dotted(kind, old), _dotted(kind, new), auto or kind == "exact", changes)


def _answers(kind: str, words: list[str]) -> tuple[bool, list[Change]]:
    auto, changes = False, []
    while words:
        if words[0] != "answer":
            raise CorefileError(f"exceeded the number of arguments for a {kind} name rule")
        if len(words) < 2:
            raise CorefileError(f"type missing for answer rule for {kind} rule")
        sort = words[1].lower()
        if sort == "auto":
            if kind not in KINDS:
                raise CorefileError(f"invalid {kind} rule")
            auto, words = True, words[2:]
            continue
        if sort not in ("name", "value"):
            raise CorefileError(f'invalid type "{words[1]}" for answer rule for {kind} rule')
        if len(words) < 4:
            raise CorefileError(f"{sort} answer rule for {kind} rule: 2 arguments required")
        back = rename("regex", words[2], words[3])
        changes.append(_owner(back) if sort == "name" else _value(back))
        words = words[4:]
    return auto, changes


# -- the others ------------------------------------------------------------------------------------------------------


class FieldRule(Rule):
    """Changes one field of the question ("type" or "cls") from one value to another."""

    def __init__(self, field: str, old: str, new: str) -> None:
        self.field, self.old, self.new = field, old, new

    def match(self, request: Request) -> list[Change] | None:
        """Change the field where it has the old value."""
        if getattr(request.query, self.field) != self.old:
            return None
        request.query = replace(request.query, **{self.field: self.new})
        return []


def _type_rule(args: list[str]) -> Rule:
    if len(args) != 2:
        raise CorefileError("type rules must have exactly two arguments")
    for word in args:
        try:
            type_number(word.upper())
        except KeyError:
            raise CorefileError(f'invalid type "{word}"') from None
    return FieldRule("type", args[0].upper(), args[1].upper())


def _class_rule(args: list[str]) -> Rule:
    if len(args) != 2:
        raise CorefileError("class rules must have exactly two arguments")
    for word in args:
        if word.upper() not in CLASSES:
            raise CorefileError(f'invalid class "{word}"')
    return FieldRule("cls", args[0].upper(), args[1].upper())


class AnswerRule(Rule):
    """Changes answers to names that fit; the question stays."""

    def __init__(self, kind: str, name: str, change: Change) -> None:
        self._fits = rename(kind, _dotted(kind, name), "")
        self.change = change

    def match(self, request: Request) -> list[Change] | None:
        """Return the change where the name fits."""
        return [self.change] if self._fits(request.query.name.lower()) is not None else None


def _kind_and_name(what: str, args: list[str], more: int) -> tuple[str, str, list[str]]:
    if len(args) < 1 + more:
        raise CorefileError(f"too few arguments for a {what} rule")
    if len(args) == 1 + more:
        return "exact", args[0], args[1:]
    if args[0].lower() not in KINDS:
        kinds = "exact, prefix, suffix, substring, and regex"
        raise CorefileError(f"{what} rule supports only {kinds} name matching, received: {args[0].lower()}")
    if len(args) > 2 + more:
        raise CorefileError(f"exceeded the number of arguments for a {what} rule")
    return args[0].lower(), args[1], args[2:]


def _ttl_rule(args: list[str]) -> Rule:
    kind, name, (text,) = _kind_and_name("ttl", args, 1)
    found = re.fullmatch(r"(\d*)(-?)(\d*)", text)
    if found is None or not (found[1] or found[3]):
        raise CorefileError(f"invalid TTL '{text}' for a ttl rule")
    least = int(found[1]) if found[1] else 0
    most = int(found[3]) if found[3] else least if not found[2] else 2147483647
    if max(least, most) > 2147483647 or least > most:
        raise CorefileError(f"invalid TTL '{text}' for a ttl rule")

    def change(work: Reply, section: str, place: int) -> None:
        record = work.sections[section][place]
        work.sections[section][place] = replace(record, ttl=min(max(record.ttl, least), most))

    return AnswerRule(kind, name, change)


def _rcode_rule(args: list[str]) -> Rule:
    kind, name, words = _kind_and_name("rcode", args, 2)
    codes: list[str] = []
    by_number = {str(number): code for code, number in RCODES.items()}
    for which, word in zip(("old", "new"), words, strict=True):
        code = by_number.get(word, word.upper())
        if code not in RCODES:
            raise CorefileError(f"invalid RCODE '{word}' for a rcode rule {which}")
        codes.append(code)
    old, new = codes

    def change(work: Reply, section: str, place: int) -> None:
        if work.rcode == old:
            work.rcode = new

    return AnswerRule(kind, name, change)


class CnameRule(Rule):
    """Sends a CNAME elsewhere, and asks for what stands there."""

    def __init__(self, kind: str, old: str, new: str) -> None:
        self._rename = rename(kind, old, new)

    def match(self, request: Request) -> list[Change] | None:
        """Fit every question: only the answer can tell."""
        return [self._change]

    def _change(self, work: Reply, section: str, place: int) -> None:
        record = work.sections[section][place]
        target = self._rename(record.data) if record.type == "CNAME" else None
        if target is None or target == record.data:
            return
        request = work.request
        found = request.lookup(request, target, request.query.type)
        if found is None:
            return
        kept = [replace(r, data=target) for r in work.sections["answer"] if r.type == "CNAME"]
        work.sections["answer"] = kept + [r for r in found.answer if r.name == target]


def _cname_rule(args: list[str]) -> Rule:
    if len(args) not in (2, 3):
        raise CorefileError(
            "too few arguments for a cname rule"
            if len(args) < 2
            else "exceeded the number of arguments for a cname rule"
        )
    kind = args[0].lower() if len(args) == 3 else "exact"
    if kind not in KINDS:
        raise CorefileError("unknown cname rewrite type: " + kind)
    old, new = args[-2:]
    return CnameRule(kind, _dotted(kind, old), _dotted(kind, new))


class EdnsRule(Rule):
    """Puts an option into the query that goes on to an upstream, or takes it out."""

    def __init__(self, action: str, code: int, data: Callable[[Request], bytes] | None) -> None:
        self.action, self.code, self.data = action, code, data

    def match(self, request: Request) -> list[Change] | None:
        """Change the query's OPT record; one is made where there is none."""
        edns = request.query.edns
        present = edns is not None and any(code == self.code for code, _ in edns.options)
        if self.action == "unset" or self.data is None:
            if not present or edns is None:
                return None
            options = tuple(option for option in edns.options if option[0] != self.code)
        elif (self.action == "replace" and not present) or (self.action == "append" and present):
            return None
        else:
            edns = edns or Edns(4096, True)
            options = tuple(option for option in edns.options if option[0] != self.code)
            options = (*options, (self.code, self.data(request)))
        request.query = replace(request.query, edns=replace(edns, options=options))
        return []


def _edns_rule(args: list[str]) -> Rule:
    if len(args) < 2:
        raise CorefileError("too few arguments for an EDNS0 rule")
    kind, action = args[0].lower(), args[1].lower()
    if action not in ("set", "append", "replace", "unset"):
        raise CorefileError(f'invalid action: "{args[1]}"')
    if kind == "nsid":
        return EdnsRule(action, 3, lambda request: b"")
    if kind == "local":
        if len(args) not in (3, 4):
            raise CorefileError("local rules require exactly two arguments")
        try:
            code = int(args[2], 0)
        except ValueError:
            raise CorefileError(f'strconv.ParseUint: parsing "{args[2]}": invalid syntax') from None
        if action == "unset":
            return EdnsRule(action, code, None)
        return EdnsRule(action, code, _edns_value(args[3]))
    if kind == "subnet":
        raise CorefileError("edns0 subnet: not modelled")
    raise CorefileError(f'invalid rule type "{args[0]}"')


def _edns_value(text: str) -> Callable[[Request], bytes]:
    if text.startswith("{") and text.endswith("}"):
        fields: dict[str, Callable[[Request], bytes]] = {
            "{qname}": lambda request: request.query.name.encode(),
            "{qtype}": lambda request: type_number(request.query.type).to_bytes(2, "big"),
            "{client_ip}": lambda request: request.client.encode(),
            "{client_port}": lambda request: request.port.to_bytes(2, "big"),
            "{protocol}": lambda request: request.protocol.encode(),
        }
        if text not in fields:
            raise CorefileError(f"edns0 local {text}: not modelled")
        return fields[text]
    if text.startswith("0x"):
        try:
            data = bytes.fromhex(text[2:])
        except ValueError:
            raise CorefileError(f"encoding/hex: invalid byte in {text}") from None
    else:
        data = text.encode()
    return lambda request: data
