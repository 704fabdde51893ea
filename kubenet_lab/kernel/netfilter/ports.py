"""Ports and protocols by name and number (IANA registries, as Debian's /etc/services and /etc/protocols
hold them).

A fixed table keeps what is printed the same on every machine.
"""

from __future__ import annotations

from difflib import get_close_matches

from kubenet_lab.kernel.netfilter.extension import BadOption, strtoul

Range = tuple[int, int]

SERVICES = {
    "tcpmux": 1, "echo": 7, "discard": 9, "daytime": 13, "chargen": 19, "ftp-data": 20, "ftp": 21, "ssh": 22,
    "telnet": 23, "smtp": 25, "mail": 25, "time": 37, "whois": 43, "tacacs": 49, "domain": 53, "bootps": 67,
    "bootpc": 68, "tftp": 69, "gopher": 70, "finger": 79, "http": 80, "www": 80, "kerberos": 88,
    "iso-tsap": 102,
    "pop3": 110, "sunrpc": 111, "portmapper": 111, "auth": 113, "ident": 113, "nntp": 119, "ntp": 123,
    "epmap": 135, "netbios-ns": 137, "netbios-dgm": 138, "netbios-ssn": 139, "imap2": 143, "imap": 143,
    "snmp": 161,
    "snmp-trap": 162, "snmptrap": 162, "bgp": 179, "irc": 194, "ldap": 389, "https": 443, "microsoft-ds": 445,
    "isakmp": 500, "exec": 512, "login": 513, "shell": 514, "syslog": 514, "printer": 515, "route": 520,
    "router": 520, "uucp": 540, "ipp": 631, "ldaps": 636, "submissions": 465, "submission": 587,
    "domain-s": 853, "rsync": 873, "ftps-data": 989, "ftps": 990, "telnets": 992, "imaps": 993, "pop3s": 995,
    "socks": 1080, "openvpn": 1194, "ms-sql-s": 1433, "l2f": 1701, "l2tp": 1701, "radius": 1812,
    "radius-acct": 1813, "nfs": 2049, "mysql": 3306, "ms-wbt-server": 3389, "ipsec-nat-t": 4500, "sip": 5060,
    "sip-tls": 5061, "xmpp-client": 5222, "postgresql": 5432, "amqp": 5672, "x11": 6000, "redis": 6379,
    "http-alt": 8080, "webcache": 8080, "bacula-dir": 9101, "git": 9418, "munin": 4949, "mqtt": 1883,
}  # fmt: skip

PROTOCOL_NAMES = {
    1: "icmp", 2: "igmp", 3: "ggp", 4: "ipencap", 5: "st", 6: "tcp", 8: "egp", 9: "igp", 12: "pup", 17: "udp",
    20: "hmp", 22: "xns-idp", 27: "rdp", 29: "iso-tp4", 33: "dccp", 36: "xtp", 37: "ddp", 38: "idpr-cmtp",
    41: "ipv6",
    43: "ipv6-route", 44: "ipv6-frag", 45: "idrp", 46: "rsvp", 47: "gre", 50: "esp", 51: "ah", 57: "skip",
    58: "ipv6-icmp", 59: "ipv6-nonxt", 60: "ipv6-opts", 73: "rspf", 81: "vmtp", 88: "eigrp", 89: "ospf",
    93: "ax.25", 94: "ipip", 97: "etherip", 98: "encap", 103: "pim", 108: "ipcomp", 112: "vrrp", 115: "l2tp",
    124: "isis", 132: "sctp", 133: "fc", 135: "mobility-header", 136: "udplite", 137: "mpls-in-ip",
    138: "manet",
    139: "hip", 140: "shim6", 141: "wesp", 142: "rohc", 143: "ethernet",
}  # fmt: skip

PROTOCOL_NUMBERS = {
    **{name: value for value, name in PROTOCOL_NAMES.items()},
    "all": 0, "ip": 0, "icmpv6": 58, "mh": 135,
}  # fmt: skip

PORT_PROTOCOLS = (6, 17, 132, 33, 136)
"""TCP, UDP, SCTP, DCCP, UDP-Lite: protocols that have ports."""


def protocol_number(text: str) -> int:
    """Return the number of a protocol given by number or name; 0 is every protocol. Raises BadOption."""
    value = strtoul(text)
    if value is not None and value <= 255:
        return value
    found = PROTOCOL_NUMBERS.get(text.lower())
    if found is None:
        near = get_close_matches(text.lower(), PROTOCOL_NUMBERS, 1)
        raise BadOption(
            "-p",
            f'unknown protocol "{text}" specified',
            f"write {near[0]}" if near else "write tcp, udp, icmp or a number",
        )
    return found


def protocol_name(value: int) -> str:
    """Return a protocol as `iptables-save` prints it after -p."""
    return PROTOCOL_NAMES.get(value, str(value)) if value else "all"


def port(text: str, option: str) -> int:
    """Return the number of a port given by number or service name. Raises BadOption."""
    value = strtoul(text)
    if value is not None and value <= 65535:
        return value
    found = SERVICES.get(text)
    if found is None:
        near = get_close_matches(text, SERVICES, 1)
        raise BadOption(
            option,
            f"invalid port/service `{text}' specified",
            f"write {near[0]}" if near else "write a port from 0 to 65535",
        )
    return found


def port_range(text: str, option: str, *, ordered: bool = False) -> Range:
    """Return the range "80", "80:90", ":90" or "80:" names.

    Raises BadOption for what is no port, and with `ordered` for a range that runs backwards; the kernel takes
    such a range, which then fits no packet.
    """
    low, colon, high = text.partition(":")
    if not colon:
        value = port(text, option)
        return (value, value)
    first, last = port(low, option) if low else 0, port(high, option) if high else 65535
    if first > last and ordered:
        raise BadOption(option, "invalid portrange (min > max)", f"write {last}:{first}")
    return (first, last)


def range_text(ports: Range) -> str:
    """Return "80" or "80:90"."""
    return str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}:{ports[1]}"
