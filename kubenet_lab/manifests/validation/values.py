"""What single values must look like: names, labels, ports, addresses.

Each function returns what is wrong, in the API server's words; nothing when all is well. Sources:
`k8s.io/apimachinery/pkg/api/validate/content`, `.../pkg/util/validation`, Kubernetes 1.37.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from typing import Any

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SEARCH = re.compile(r"_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*")
_WILDCARD = re.compile(r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_PERCENT = re.compile(r"[0-9]+%")
_HEADER = re.compile(r"[-A-Za-z0-9]+")


def _regex(what: str, expression: str, *examples: str) -> str:
    """A sentence about a pattern; the server writes two spaces between examples."""
    listed = " or ".join(f"'{example}', " for example in examples).removesuffix(", ")
    return f"{what} (e.g. {listed}, regex used for validation is '{expression}')"


_CHARACTERS = "and must start and end with an alphanumeric character"
_LABEL_TEXT = _regex(
    f"a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', {_CHARACTERS}",
    "[a-z0-9]([-a-z0-9]*[a-z0-9])?",
    "my-name",
    "123-abc",
)
_SUBDOMAIN_TEXT = _regex(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    + _CHARACTERS,
    _SUBDOMAIN.pattern,
    "example.com",
)
_SEARCH_TEXT = _regex(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', "
    + _CHARACTERS,
    _SEARCH.pattern,
    "example.com",
)
_WILDCARD_TEXT = _regex(
    "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
    "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
    _WILDCARD.pattern,
    "*.example.com",
)
_QUALIFIED_TEXT = _regex(
    f"must consist of alphanumeric characters, '-', '_' or '.', {_CHARACTERS}",
    _QUALIFIED.pattern,
    "MyName",
    "my.name",
    "123-abc",
)
_VALUE_TEXT = _regex(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    + _CHARACTERS,
    f"({_QUALIFIED.pattern})?",
    "MyValue",
    "my_value",
    "12345",
)
_CONFIG_KEY_TEXT = _regex(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _CONFIG_KEY.pattern,
    "key.name",
    "KEY_NAME",
    "key-name",
)
_PERCENT_TEXT = _regex(
    "a valid percent string must be a numeric string followed by an ending '%'", _PERCENT.pattern, "1%", "93%"
)
_HEADER_TEXT = _regex(
    "a valid HTTP header must consist of alphanumeric characters or '-'", _HEADER.pattern, "X-Header-Name"
)
INVALID_IP = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
INVALID_CIDR = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
PORT = "must be between 1 and 65535, inclusive"
NOT_NEGATIVE = "must be greater than or equal to 0"


def dns_label(value: str) -> list[str]:
    """RFC 1123 label: a Service's, container's or host's name."""
    wrong = []
    if len(value) > 63:
        wrong.append("must be no more than 63 characters")
    if not _LABEL.fullmatch(value):
        wrong.append("must not contain dots" if _SUBDOMAIN.fullmatch(value) else _LABEL_TEXT)
    return wrong


def dns_subdomain(value: str) -> list[str]:
    """RFC 1123 subdomain: most objects' names."""
    wrong = ["must be no more than 253 characters"] if len(value) > 253 else []
    return wrong if _SUBDOMAIN.fullmatch(value) else [*wrong, _SUBDOMAIN_TEXT]


def search_domain(value: str) -> list[str]:
    """A subdomain that may hold underscores, as search paths do."""
    wrong = ["must be no more than 253 characters"] if len(value) > 253 else []
    return wrong if _SEARCH.fullmatch(value) else [*wrong, _SEARCH_TEXT]


def wildcard_subdomain(value: str) -> list[str]:
    """`*.` and a subdomain."""
    wrong = ["must be no more than 253 characters"] if len(value) > 253 else []
    return wrong if _WILDCARD.fullmatch(value) else [*wrong, _WILDCARD_TEXT]


@functools.lru_cache(maxsize=4096)
def qualified_name(value: str) -> tuple[str, ...]:
    """A label's key, also an appProtocol or a condition: a name, with a domain and `/` before it or not."""
    prefix, slash, name = value.rpartition("/")
    if "/" in prefix:
        optional = " with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return (f"a valid label key {_QUALIFIED_TEXT}{optional}",)
    wrong = []
    if slash and not prefix:
        wrong.append("prefix part must be non-empty")
    elif slash:
        wrong += [f"prefix part {text}" for text in dns_subdomain(prefix)]
    if not name:
        wrong.append("name part must be non-empty")
    elif len(name) > 63:
        wrong.append("name part must be no more than 63 bytes")
    if not _QUALIFIED.fullmatch(name):
        wrong.append(f"name part {_QUALIFIED_TEXT}")
    return tuple(wrong)


@functools.lru_cache(maxsize=4096)
def label_value(value: str) -> tuple[str, ...]:
    """A label's value."""
    wrong = ["must be no more than 63 bytes"] if len(value) > 63 else []
    if value and not _QUALIFIED.fullmatch(value):
        wrong.append(_VALUE_TEXT)
    return tuple(wrong)


def config_key(value: str) -> list[str]:
    """A ConfigMap's or Secret's key."""
    wrong = ["must be no more than 253 bytes"] if len(value) > 253 else []
    if not _CONFIG_KEY.fullmatch(value):
        wrong.append(_CONFIG_KEY_TEXT)
    elif value == "." or value == "..":
        wrong.append(f"must not be '{value}'")
    elif value.startswith(".."):
        wrong.append("must not start with '..'")
    return wrong


def port_number(value: int) -> list[str]:
    """A port."""
    return [] if 1 <= value <= 65535 else [PORT]


@functools.lru_cache(maxsize=1024)
def port_name(value: str) -> tuple[str, ...]:
    """A port's name (RFC 6335)."""
    wrong = ["must be no more than 15 bytes"] if len(value) > 15 else []
    if not re.fullmatch("[-a-z0-9]+", value):
        wrong.append("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search("[a-z]", value):
        wrong.append("must contain at least one letter (a-z)")
    if "--" in value:
        wrong.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        wrong.append("must not begin or end with a hyphen")
    return tuple(wrong)


def port_or_name(value: int | str) -> list[str]:
    """A target port: a number or a name."""
    return port_number(value) if isinstance(value, int) else [*port_name(value)]


def header_name(value: str) -> list[str]:
    """An HTTP header's name."""
    return [] if _HEADER.fullmatch(value) else [_HEADER_TEXT]


def environment_name(value: str) -> list[str]:
    """An environment variable's name."""
    if value and all(" " <= letter <= "~" and letter != "=" for letter in value):
        return []
    return [
        "a valid environment variable name must consist only of printable ASCII characters other than '='"
    ]


def count_or_percent(value: int | str) -> list[str]:
    """A number that is not negative, or a share such as `25%`."""
    if isinstance(value, int):
        return [] if value >= 0 else [NOT_NEGATIVE]
    return [] if _PERCENT.fullmatch(value) else [_PERCENT_TEXT]


def parse_ip(value: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address as Go's lenient parser reads it: leading zeros are decimal, zones are refused."""
    if "%" in value or not value.isascii():
        return None
    head, colon, dotted = value.rpartition(":")
    if "." in dotted:
        parts = dotted.split(".")
        if not all(part.isdigit() and len(part) <= 3 + part.count("0") for part in parts):
            return None
        value = head + colon + ".".join(str(int(part)) for part in parts)
    try:
        return ipaddress.ip_address(value)
    except ValueError:
        return None


def ip_address(value: str) -> list[str]:
    """An address, in a form that everybody reads alike."""
    parsed = parse_ip(value)
    if parsed is None:
        return [INVALID_IP]
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        return ["must not be an IPv4-mapped IPv6 address"]
    return ["must not have leading 0s"] if _leading_zeros(value) else []


def _leading_zeros(value: str) -> bool:
    dotted = value.rpartition(":")[2]
    return "." in dotted and any(len(part) > 1 and part[0] == "0" for part in dotted.split("."))


def family(value: str) -> str:
    """`IPv6` of an address with colons, `IPv4` of any other text."""
    return "IPv6" if ":" in value else "IPv4"


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_cidr(value: str) -> Network | None:
    """A prefix as Go's lenient parser reads it, bits beyond its length cleared."""
    address, slash, length = value.rpartition("/")
    parsed = parse_ip(address) if slash else None
    if parsed is None or not re.fullmatch(r"[0-9]{1,9}", length) or int(length) > parsed.max_prefixlen:
        return None
    return ipaddress.ip_network(
        (int(parsed) if parsed.version == 4 else str(parsed), int(length)), strict=False
    )


def cidr(value: str) -> list[str]:
    """A prefix, in a form that everybody reads alike."""
    network = parse_cidr(value)
    if network is None:
        return [INVALID_CIDR]
    address, _, length = value.rpartition("/")
    if _leading_zeros(address) or (len(length) > 1 and length[0] == "0"):
        return ["must not have leading 0s in IP or prefix length"]
    parsed = parse_ip(address)
    if parsed is not None and parsed.version == 6 and parsed.ipv4_mapped is not None:
        return ["must not have an IPv4-mapped IPv6 address"]
    return [] if parsed == network.network_address else ["must not have bits set beyond the prefix length"]


def ordinary_ip(value: str) -> list[str]:
    """An address that can stand behind or before a Service: not loopback, link-local, unspecified."""
    parsed: Any = parse_ip(value)
    if parsed is None:
        return [INVALID_IP]
    if parsed.version == 6 and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    wrong = []
    if parsed.is_unspecified:
        wrong.append(f"may not be unspecified ({value})")
    if parsed.is_loopback:
        wrong.append("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if parsed in _LINK_LOCAL[parsed.version]:
        wrong.append("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    if _is_link_local_multicast(parsed):
        wrong.append("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    return wrong


_LINK_LOCAL: dict[int, Any] = {
    4: ipaddress.ip_network("169.254.0.0/16"),
    6: ipaddress.ip_network("fe80::/10"),
}


def _is_link_local_multicast(address: Any) -> bool:
    packed: bytes = address.packed
    if address.version == 4:
        return packed[:3] == b"\xe0\x00\x00"
    return packed[0] == 0xFF and packed[1] & 0x0F == 2
