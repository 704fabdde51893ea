"""Kernel parameters that decide packets (Documentation/networking/ip-sysctl.rst, nf_conntrack-sysctl.rst).

A namespace stores only what was set; the rest answers from these defaults. Per-interface keys fall back to
`conf.default`, as a new interface copies them.
"""

from __future__ import annotations

DEFAULTS: dict[str, str] = {
    "net.core.somaxconn": "4096",
    "net.core.netdev_max_backlog": "1000",
    "net.ipv4.ip_unprivileged_port_start": "1024",
    "net.ipv4.tcp_keepalive_time": "7200",
    "net.ipv4.tcp_fin_timeout": "60",
    "net.ipv4.conf.all.arp_filter": "0",
    "net.ipv4.conf.default.arp_filter": "0",
    "net.ipv4.conf.all.arp_notify": "0",
    "net.ipv4.conf.default.arp_notify": "0",
    "net.ipv4.conf.all.accept_redirects": "1",
    "net.ipv4.conf.default.accept_redirects": "1",
    "net.ipv4.conf.all.log_martians": "0",
    "net.ipv4.conf.default.log_martians": "0",
    "net.ipv4.ip_forward": "0",
    "net.ipv4.ip_default_ttl": "64",
    "net.ipv4.ip_local_port_range": "32768\t60999",
    "net.ipv4.ip_no_pmtu_disc": "0",
    "net.ipv4.icmp_echo_ignore_all": "0",
    "net.ipv4.icmp_echo_ignore_broadcasts": "1",
    "net.ipv4.ping_group_range": "0\t2147483647",
    "net.ipv4.tcp_syncookies": "1",
    "net.ipv4.fib_multipath_hash_policy": "0",
    "net.ipv6.fib_multipath_hash_policy": "0",
    "net.ipv4.conf.all.forwarding": "0",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.route_localnet": "0",
    "net.ipv4.conf.default.route_localnet": "0",
    "net.ipv4.conf.all.proxy_arp": "0",
    "net.ipv4.conf.default.proxy_arp": "0",
    "net.ipv4.conf.all.accept_local": "0",
    "net.ipv4.conf.default.accept_local": "0",
    "net.ipv4.conf.all.arp_ignore": "0",
    "net.ipv4.conf.default.arp_ignore": "0",
    "net.ipv4.conf.all.arp_announce": "0",
    "net.ipv4.conf.default.arp_announce": "0",
    "net.ipv4.conf.all.send_redirects": "1",
    "net.ipv4.conf.default.send_redirects": "1",
    "net.ipv4.conf.all.src_valid_mark": "0",
    "net.ipv4.conf.default.src_valid_mark": "0",
    "net.ipv6.conf.all.forwarding": "0",
    "net.ipv6.conf.default.forwarding": "0",
    "net.ipv6.conf.all.disable_ipv6": "0",
    "net.ipv6.conf.default.disable_ipv6": "0",
    "net.ipv6.conf.all.accept_ra": "1",
    "net.ipv6.conf.default.accept_ra": "1",
    "net.ipv6.conf.all.hop_limit": "64",
    "net.bridge.bridge-nf-call-iptables": "1",
    "net.bridge.bridge-nf-call-ip6tables": "1",
    "net.bridge.bridge-nf-call-arptables": "1",
    "net.netfilter.nf_conntrack_max": "262144",
    "net.netfilter.nf_conntrack_tcp_be_liberal": "0",
    "net.netfilter.nf_conntrack_tcp_loose": "1",
    "net.netfilter.nf_conntrack_tcp_timeout_syn_sent": "120",
    "net.netfilter.nf_conntrack_tcp_timeout_syn_recv": "60",
    "net.netfilter.nf_conntrack_tcp_timeout_established": "432000",
    "net.netfilter.nf_conntrack_tcp_timeout_fin_wait": "120",
    "net.netfilter.nf_conntrack_tcp_timeout_close_wait": "60",
    "net.netfilter.nf_conntrack_tcp_timeout_last_ack": "30",
    "net.netfilter.nf_conntrack_tcp_timeout_time_wait": "120",
    "net.netfilter.nf_conntrack_tcp_timeout_close": "10",
    "net.netfilter.nf_conntrack_udp_timeout": "30",
    "net.netfilter.nf_conntrack_udp_timeout_stream": "120",
    "net.netfilter.nf_conntrack_icmp_timeout": "30",
    "net.netfilter.nf_conntrack_icmpv6_timeout": "30",
    "net.netfilter.nf_conntrack_generic_timeout": "600",
}

IPVS = {
    "net.ipv4.vs.backup_only": "0",
    "net.ipv4.vs.conn_reuse_mode": "1",
    "net.ipv4.vs.conntrack": "0",
    "net.ipv4.vs.expire_nodest_conn": "0",
    "net.ipv4.vs.expire_quiescent_template": "0",
    "net.ipv4.vs.sloppy_tcp": "0",
}
"""Parameters that exist once the module ip_vs is loaded (Documentation/networking/ipvs-sysctl.rst)."""

ALIASES = {"net.ipv4.conf.all.forwarding": "net.ipv4.ip_forward"}
"""Two names of one switch."""


def conf(family: int, dev: str, name: str) -> str:
    """Return the key of a per-interface parameter: `conf(4, "eth0", "rp_filter")`."""
    return f"net.ipv{family}.conf.{dev}.{name}"


def default(key: str) -> str:
    """Return the value of a parameter nobody set. Raises KeyError for one that does not exist here."""
    if key in DEFAULTS:
        return DEFAULTS[key]
    if key in IPVS:
        return IPVS[key]
    head, _, name = key.rpartition(".")
    base, _, _dev = head.partition(".conf.")
    fallback = f"{base}.conf.default.{name}"
    if base in ("net.ipv4", "net.ipv6") and fallback in DEFAULTS:
        return DEFAULTS[fallback]
    raise KeyError(key)
