"""`nft -j -f` documents to the commands they stand for (libnftables-json(5)).

A document becomes text of `nft -f`, which is then read as any other: what it means is said in one place.
"""

from __future__ import annotations

import json
from typing import Any

from kubenet_lab.errors import InputError

_VERDICTS = ("accept", "drop", "continue", "return", "jump", "goto")
_OBJECTS = ("counter", "quota", "limit", "ct helper", "ct timeout", "ct expectation", "secmark", "synproxy")
_BINARY = ("&", "|", "^", "<<", ">>")


def commands(document: str | dict[str, Any]) -> str:
    """Return a document's commands as text, one a line.

    Raises:
        InputError: It is no JSON, or not in the schema.
    """
    if isinstance(document, str):
        text = document
        try:
            document = json.loads(text)
        except ValueError as error:
            hint = "" if text.lstrip().startswith("{") else "; this is no JSON: nft list ruleset without -j?"
            raise InputError(f"JSON parsing error: {error}{hint}") from None
    members = document.get("nftables") if isinstance(document, dict) else None
    if not isinstance(members, list):
        raise InputError('JSON schema: an object with a list "nftables" was expected')
    lines: list[str] = []
    later: list[str] = []
    for number, member in enumerate(members):
        try:
            lines += _member(member, later)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise InputError(f"JSON schema: nftables[{number}] cannot be used: {error!r}") from None
    return "\n".join([*lines, *later]) + "\n"


def _member(member: dict[str, Any], later: list[str]) -> list[str]:
    (verb, body), *more = member.items()
    if more:
        raise ValueError("one command a member")
    if verb == "metainfo":
        return []
    if verb not in ("add", "create", "insert", "replace", "delete", "destroy", "flush", "rename", "list"):
        verb, body = "add", {verb: body}
    (kind, fields), *_rest = body.items()
    if verb == "list":
        return []
    if verb == "flush":
        if kind == "ruleset":
            return [f"flush ruleset {(fields or {}).get('family', '')}"]
        return [f"flush {kind} {_name(kind, fields)}"]
    if verb == "rename":
        return [f"rename chain {_name(kind, fields)} {fields['newname']}"]
    if verb in ("delete", "destroy"):
        return [_delete(verb, kind, fields)]
    if kind == "rule":
        line = _rule(verb, fields)
        if verb == "add" and "handle" in fields and "index" not in fields:
            later.append(line)  # a listing: rules come when all they name is there
            return []
        return [line]
    return _add(verb, kind, fields, later)


def _name(kind: str, fields: dict[str, Any]) -> str:
    where = f"{fields['family']} {fields['name'] if kind == 'table' else fields['table']}"
    if kind == "table":
        return where
    return f"{where} {fields['chain'] if kind == 'rule' else fields['name']}"


def _delete(verb: str, kind: str, fields: dict[str, Any]) -> str:
    if kind == "rule":
        return f"{verb} rule {_name(kind, fields)} handle {fields['handle']}"
    if kind == "element":
        return f"{verb} element {_name(kind, fields)} {_elements(fields['elem'])}"
    return f"{verb} {kind} {_name(kind, fields)}"


def _rule(verb: str, fields: dict[str, Any]) -> str:
    where = _name("rule", fields)
    if verb == "replace":
        where += f" handle {fields['handle']}"
    elif "index" in fields:
        where += f" index {fields['index']}"
    elif verb == "insert" and "handle" in fields:
        where += f" handle {fields['handle']}"
    text = " ".join(statement(one) for one in fields.get("expr", []))
    comment = f' comment "{fields["comment"]}"' if "comment" in fields else ""
    return f"{verb} rule {where} {text}{comment}"


def _add(verb: str, kind: str, fields: dict[str, Any], later: list[str]) -> list[str]:
    head = f"{verb} {kind} {_name(kind, fields)}"
    comment = f' comment "{fields["comment"]}";' if "comment" in fields else ""
    if kind == "table":
        flags = fields.get("flags", [])
        flags = flags if isinstance(flags, list) else [flags]
        inner = "".join(f" flags {flag};" for flag in flags) + comment
        return [f"{head} {{{inner} }}" if inner else head]
    if kind == "chain":
        if "hook" not in fields:
            return [f"{head} {{{comment} }}" if comment else head]
        device = fields.get("dev", "")
        device = f' device "{device}"' if device else ""
        policy = f" policy {fields['policy']};" if "policy" in fields else ""
        hook = f"type {fields['type']} hook {fields['hook']}{device} priority {fields['prio']};"
        return [f"{head} {{ {hook}{policy}{comment} }}"]
    if kind == "element":
        return [f"{head} {_elements(fields['elem'])}"]
    if kind in ("set", "map"):
        return _set(head, kind, fields, comment, later)
    if kind == "flowtable":
        devices = fields.get("dev", [])
        names = ", ".join(devices if isinstance(devices, list) else [devices])
        return [f"{head} {{ hook {fields['hook']} priority {fields['prio']}; devices = {{ {names} }}; }}"]
    if kind in _OBJECTS:
        return [f"{head} {{ {_object(kind, fields)}{comment} }}"]
    raise ValueError(f"unknown object {kind!r}")


def _set(head: str, kind: str, fields: dict[str, Any], comment: str, later: list[str]) -> list[str]:
    key = fields["type"]
    inner = f"type {' . '.join(key) if isinstance(key, list) else key}"
    if kind == "map":
        data = fields["map"]
        inner += f" : {' . '.join(data) if isinstance(data, list) else data}"
    inner += ";"
    flags = fields.get("flags", [])
    flags = list(flags) if isinstance(flags, list) else [flags]
    if flags:
        inner += f" flags {','.join(flags)};"
    for name in ("timeout", "gc-interval"):
        if name in fields:
            inner += f" {name} {fields[name]}s;"
    for name in ("size", "policy"):
        if name in fields:
            inner += f" {name} {fields[name]};"
    if fields.get("auto-merge"):
        inner += " auto-merge;"
    for one in fields.get("stmt", []):
        inner += f" {statement(one)};"
    lines = [f"{head} {{ {inner}{comment} }}"]
    if fields.get("elem"):
        later.insert(0, f"add element {_name(kind, fields)} {_elements(fields['elem'])}")
    return lines


def _object(kind: str, fields: dict[str, Any]) -> str:
    if kind == "counter":
        return f"packets {fields.get('packets', 0)} bytes {fields.get('bytes', 0)};"
    if kind == "quota":
        used = f" used {fields['used']} bytes" if fields.get("used") else ""
        return f"{'over ' if fields.get('inv') else ''}{fields['bytes']} bytes{used};"
    if kind == "limit":
        return f"{_limit(fields).removeprefix('limit ')};"
    if kind == "ct helper":
        return (
            f'type "{fields["type"]}" protocol {fields["protocol"]}; l3proto {fields.get("l3proto", "ip")};'
        )
    if kind == "ct timeout":
        policy = ", ".join(f"{state} : {seconds}" for state, seconds in (fields.get("policy") or {}).items())
        rest = f" policy = {{ {policy} }};" if policy else ""
        return f"protocol {fields['protocol']}; l3proto {fields.get('l3proto', 'ip')};{rest}"
    if kind == "ct expectation":
        return (
            f"protocol {fields['protocol']}; dport {fields['dport']}; timeout {fields['timeout']}ms; "
            f"size {fields['size']}; l3proto {fields.get('l3proto', 'ip')};"
        )
    if kind == "secmark":
        return f'"{fields["context"]}"'
    return f"mss {fields['mss']}; wscale {fields['wscale']}; {' '.join(fields.get('flags', []))};"


# -- statements --------------------------------------------------------------------------------------------------------


def statement(one: Any) -> str:
    """Return a statement as text."""
    if isinstance(one, str):
        return one
    ((name, body),) = one.items()
    if name in _VERDICTS:
        return f"{name} {body['target']}" if body else name
    if name == "match":
        op = {"in": "", "==": "=="}.get(body["op"], body["op"])
        return f"{expression(body['left'])} {op} {_right(body['right'])}"
    if name == "vmap":
        return f"{expression(body['key'])} vmap {_right(body['data'])}"
    if name == "counter":
        if isinstance(body, dict) and "packets" in body:
            return f"counter packets {body['packets']} bytes {body['bytes']}"
        return "counter" if body is None else f"counter name {_named(body)}"
    if name == "mangle":
        value = body["value"]
        return f"{expression(body['key'])} set {_right(value)}"
    if name == "limit" and isinstance(body, dict) and "rate" in body:
        return _limit(body)
    if name == "quota" and isinstance(body, dict) and "val" in body:
        used = f" used {body['used']} {body['used_unit']}" if "used" in body else ""
        return f"quota {'over ' if body.get('inv') else ''}{body['val']} {body['val_unit']}{used}"
    if name in ("limit", "quota", "synproxy") and not (isinstance(body, dict) and "map" not in body):
        return name if body is None else f"{name} name {_named(body)}"
    if name == "synproxy":
        words = [f"{key} {body[key]}" for key in ("mss", "wscale") if key in body]
        flags = body.get("flags", [])
        return " ".join(["synproxy", *words, *(flags if isinstance(flags, list) else [flags])])
    if name in ("ct helper", "ct timeout", "ct expectation"):
        return f"{name} set {_named(body)}"
    if name == "secmark":
        return f"meta secmark set {_named(body)}"
    if name == "ct count":
        return f"ct count {'over ' if body.get('inv') else ''}{body['val']}"
    if name == "log":
        return _log(body or {})
    if name == "reject":
        if not body:
            return "reject"
        code = f" {_right(body['expr'])}" if "expr" in body else ""
        return f"reject with {body['type']}{code}"
    if name in ("snat", "dnat", "masquerade", "redirect"):
        return _nat(name, body or {})
    if name == "notrack":
        return "notrack"
    if name == "set":
        return _update(body)
    if name == "meter":
        size = f" size {body['size']}" if body.get("size") else ""
        return f"meter {body['name']}{size} {{ {_element_key(body['key'])} {statement(body['stmt'])} }}"
    if name == "queue":
        flags = (body or {}).get("flags", [])
        shown = ",".join(flags if isinstance(flags, list) else [flags])
        return f"queue{f' flags {shown}' if shown else ''} to {_right((body or {}).get('num', 0))}"
    if name == "dup":
        device = f" device {_right(body['dev'])}" if "dev" in body else ""
        return f"dup to {_right(body['addr'])}{device}"
    if name == "fwd":
        if "addr" in body:
            return f"fwd {body['family']} to {_right(body['addr'])} device {_right(body['dev'])}"
        return f"fwd to {_right(body['dev'])}"
    if name == "tproxy":
        address = body.get("addr", "")
        shown = f"[{address}]" if ":" in str(address) else address
        port = f":{_right(body['port'])}" if "port" in body else ""
        return f"tproxy {body.get('family', '')} to {shown}{port}"
    if name == "flow":
        return f"flow add {body['flowtable']}"
    if name == "reset":
        return f"reset {expression(body)}"
    if name == "xt":
        return f'xt {body["type"]} "{body["name"]}"'
    raise ValueError(f"unknown statement {name!r}")


def _named(body: Any) -> str:
    return f'"{body}"' if isinstance(body, str) else expression(body)


def _limit(body: dict[str, Any]) -> str:
    over = "over " if body.get("inv") else ""
    unit = f" {body['rate_unit']}" if "rate_unit" in body else ""
    text = f"limit rate {over}{body['rate']}{unit}/{body['per']}"
    if body.get("burst"):
        text += f" burst {body['burst']} {body.get('burst_unit', 'packets')}"
    return text


def _log(body: dict[str, Any]) -> str:
    text = "log"
    if "prefix" in body:
        text += f' prefix "{body["prefix"]}"'
    for name in ("group", "snaplen", "queue-threshold", "level"):
        if name in body:
            text += f" {name} {body[name]}"
    flags = body.get("flags", [])
    return text + "".join(f" flags {flag}" for flag in (flags if isinstance(flags, list) else [flags]))


def _nat(name: str, body: dict[str, Any]) -> str:
    text = name
    flags = body.get("flags", [])
    flags = [flag for flag in (flags if isinstance(flags, list) else [flags]) if flag != "netmap"]
    if "addr" in body or "port" in body:
        text += f" {body['family']}" if "family" in body else ""
        text += " prefix" if body.get("type_flags") == "prefix" else ""
        text += " to "
    if "addr" in body:
        address = body["addr"]
        plain = isinstance(address, str) and not address.startswith("@")
        text += f"[{address}]" if plain and ":" in address and "port" in body else _right(address)
    if "port" in body:
        text += f":{_right(body['port'])}"
    return f"{text} {','.join(flags)}".rstrip()


def _update(body: dict[str, Any]) -> str:
    inner = " ".join([_element_key(body["elem"]), *(statement(one) for one in body.get("stmt", []))])
    return f"{body['op']} {body['set']} {{ {inner} }}"


def _element_key(body: Any) -> str:
    if isinstance(body, dict) and "elem" in body:
        inner = body["elem"]
        text = expression(inner["val"])
        if "timeout" in inner:
            text += f" timeout {inner['timeout']}s"
        if "comment" in inner:
            text += f' comment "{inner["comment"]}"'
        return text
    return expression(body)


# -- expressions -------------------------------------------------------------------------------------------------------


def _elements(members: Any) -> str:
    return (
        f"{{ {', '.join(_element(one) for one in (members if isinstance(members, list) else [members]))} }}"
    )


def _element(one: Any) -> str:
    if isinstance(one, list):
        data = one[1]
        verdict = isinstance(data, dict) and next(iter(data)) in _VERDICTS
        return f"{_element(one[0])} : {statement(data) if verdict else _right(data)}"
    if isinstance(one, dict) and "elem" in one:
        inner = one["elem"]
        text = _right(inner["val"])
        for name, body in inner.items():
            if name in ("counter", "limit", "quota", "ct count"):
                text += f" {statement({name: body})}"
        for name in ("timeout", "expires"):
            if name in inner:
                text += f" {name} {inner[name]}s"
        return text + (f' comment "{inner["comment"]}"' if "comment" in inner else "")
    return _right(one)


def _right(value: Any) -> str:
    """Return what stands on the right: a constant, an interval, a set, or an expression."""
    if isinstance(value, bool):
        return "exists" if value else "missing"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return value if value.startswith("@") or value == "*" else f'"{value}"'
    if isinstance(value, list):
        return ",".join(_right(one) for one in value)
    ((name, body),) = value.items()
    if name == "range":
        return f"{_right(body[0])}-{_right(body[1])}"
    if name == "prefix":
        return f"{_right(body['addr'])}/{body['len']}"
    if name == "set":
        return _elements(body)
    if name == "concat":
        return " . ".join(_right(one) for one in body)
    if name in _BINARY and _constant(value):
        return f"({f' {name} '.join(_mask(one) for one in body)})"
    return expression(value)


def _constant(value: Any) -> bool:
    """True for values joined by operators, without anything read off the packet."""
    if isinstance(value, dict):
        ((name, body),) = value.items()
        return name in _BINARY and all(_constant(one) for one in body)
    return True


def _mask(value: Any) -> str:
    return f"({' | '.join(_right(one) for one in value)})" if isinstance(value, list) else _right(value)


def expression(value: Any) -> str:
    """Return an expression as text."""
    if not isinstance(value, dict):
        return _right(value)
    ((name, body),) = value.items()
    if name == "payload":
        if "base" in body:
            return f"@{body['base']},{body['offset']},{body['len']}"
        return f"{body['protocol']} {body['field']}"
    if name == "meta":
        return f"meta {body['key']}"
    if name == "ct":
        family = f"{body['family']} " if "family" in body else ""
        return f"ct {body.get('dir', '')} {family}{body['key']}"
    if name == "fib":
        flags = body["flags"]
        return f"fib {' . '.join(flags if isinstance(flags, list) else [flags])} {body['result']}"
    if name == "rt":
        return f"rt {body.get('family', '')} {body['key']}"
    if name == "socket":
        return f"socket {body['key']}"
    if name == "numgen":
        return f"numgen {body['mode']} mod {body['mod']} offset {body.get('offset', 0)}"
    if name in ("jhash", "symhash"):
        what = f" {expression(body['expr'])}" if "expr" in body else ""
        seed = f" seed {body['seed']}" if "seed" in body else ""
        return f"{name}{what} mod {body['mod']}{seed} offset {body.get('offset', 0)}"
    if name == "tcp option":
        return f"tcp option {body['name']} {body.get('field', '')}"
    if name in ("ip option", "sctp chunk"):
        return f"{name} {body['name']} {body.get('field', '')}"
    if name == "exthdr":
        return f"{body['name']} {body['field']}" if "field" in body else f"exthdr {body['name']}"
    if name == "osf":
        ttl = f"ttl {body['ttl']} " if "ttl" in body else ""
        return f"osf {ttl}{body['key']}"
    if name == "ipsec":
        return f"ipsec {body['dir']} spnum {body['spnum']} {body.get('family', '')} {body['key']}"
    if name == "concat":
        return " . ".join(expression(one) for one in body)
    if name == "map":
        return f"{expression(body['key'])} map {_right(body['data'])}"
    if name in _BINARY:
        return f"{expression(body[0])} {name} {_mask(body[1])}"
    if name in ("range", "prefix", "set"):
        return _right(value)
    raise ValueError(f"unknown expression {name!r}")
