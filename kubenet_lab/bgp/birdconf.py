"""bird.conf: a configuration as the text a BIRD is started with.

`calico` writes what Calico's confd writes for its fork of BIRD 1.6; `bird2` the same filters and sessions in the
grammar of upstream BIRD 2 (without `krt_tunnel`, which only Calico's fork has).
"""

from __future__ import annotations

from msgspec.structs import replace

from kubenet_lab.bgp.config import Config, Peer
from kubenet_lab.packet.ip import family

_KERNEL_FILTER = """filter calico_kernel_programming {
%(tunnels)s  if (defined(source) && (source = RTS_BGP) && !defined(krt_metric)) then {
      krt_metric = 1024;
      if (defined(bgp_local_pref)) then { krt_metric = 2147483647 - bgp_local_pref; }
      if (krt_metric < 1024) then { preference = 200; }
  }
  accept;
}"""

_IMPORT = """  import filter {
%(rules)s    if (defined(bgp_local_pref)&&(bgp_local_pref > 2147482623)) then preference = 200;
    accept;
  };"""

_EXPORT = """  export filter {
    if (defined(source) && source = RTS_BGP && defined(bgp_local_pref)) then {
      krt_metric = 2147483647 - bgp_local_pref;
    } else {
      if (!defined(krt_metric)) then { krt_metric = 1024; }
      bgp_local_pref = 2147483647 - krt_metric;
    }
%(rules)s    calico_export_to_bgp_peers(%(internal)s);
    reject;
  };"""


def _seconds(value: float) -> str:
    return f"{value:g}"


def _rules(peer: Peer, which: str) -> str:
    match = {"Equal": "net = {0}", "NotEqual": "net != {0}", "In": "net ~ {0}", "NotIn": "net !~ {0}"}
    rules = peer.imports if which == "imports" else peer.exports
    return "".join(
        f"    if ({match[rule.operator].format(rule.cidr)}) then {{ {rule.action.lower()}; }}\n"
        for rule in rules
    )


def _aggregation(config: Config, *, static: bool = True) -> list[str]:
    out = ["function apply_communities () { }"]
    if static and (config.blocks or config.static):
        out.append("protocol static {")
        out += [f"   route {block} blackhole;" for block in (*config.blocks, *config.static)]
        out.append("}")
    out += ["function calico_aggr ()", "{"]
    for block in config.blocks:
        out += [
            f"      if ( net = {block} ) then {{ accept; }}",
            f"      if ( net ~ {block} && krt_metric < 1024 ) then {{ accept; }}",
            f"      if ( net ~ {block} ) then {{ reject; }}",
        ]
    out += ["}", "function calico_export_to_bgp_peers(bool internal_peer) {", "  apply_communities();"]
    out.append("  calico_aggr();")
    out += [f"  if (net ~ {pool.cidr}) then {{ accept; }}" for pool in config.pools if pool.export]
    out += [f"  if ( net ~ {cidr} ) then {{ accept; }}" for cidr in (*config.static, *config.reflected)]
    out.append("}")
    return out


def _tunnels(config: Config) -> str:
    out = "".join(f"  if ( net ~ {cidr} ) then {{ reject; }}\n" for cidr in config.rejects)
    for pool in config.pools:
        if pool.by_felix:
            out += f"  if (net ~ {pool.cidr}) then {{ reject; }}\n"
        elif pool.tunnel and pool.cross_subnet and config.local_subnet:
            out += (
                f"  if (net ~ {pool.cidr}) then {{\n"
                f'    if (defined(bgp_next_hop)&&(bgp_next_hop ~ {config.local_subnet})) then krt_tunnel = "";\n'
                f'    else krt_tunnel = "{pool.tunnel}";\n'
                "  }\n"
            )
        elif pool.tunnel:
            out += f'  if (net ~ {pool.cidr}) then {{ krt_tunnel = "{pool.tunnel}"; }}\n'
    return out


def _of_family(config: Config, fam: int) -> Config:
    """Return what concerns one family."""

    def mine(cidrs: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(cidr for cidr in cidrs if family(cidr.partition("/")[0]) == fam)

    return replace(
        config,
        blocks=mine(config.blocks),
        static=mine(config.static),
        rejects=mine(config.rejects),
        reflected=mine(config.reflected),
        pools=tuple(pool for pool in config.pools if mine((pool.cidr,))),
        peers=tuple(peer for peer in config.peers if peer.family == fam),
    )


def calico(config: Config, fam: int = 4) -> str:
    """Return bird.cfg (or with `fam` 6 bird6.cfg) as confd writes it for Calico's BIRD 1.6, one program a family."""
    config = _of_family(config, fam)
    graceful = "  graceful restart;" if config.graceful_restart else ""
    out = _aggregation(config)
    out.append(_KERNEL_FILTER % {"tunnels": _tunnels(config)})
    out += [
        f"router id {config.router_id};",
        "protocol kernel {",
        "  learn;",
        "  persist;",
        f"  scan time {_seconds(config.scan_time)};",
        "  import all;",
        "  export filter calico_kernel_programming;",
        graceful,
        "  merge paths on;",
        "}",
        f"protocol device {{ debug {{ states }}; scan time {_seconds(config.scan_time)}; }}",
        'protocol direct { debug { states }; interface -"cali*", -"kube-ipvs*", "*"; }',
        "template bgp bgp_template {",
        "  debug { states };",
        '  description "Connection to BGP peer";',
        f"  local as {config.asn};",
        "  gateway recursive;",
        "  add paths on;",
        graceful or "  graceful restart off;",
        f"  connect delay time {_seconds(config.connect_delay)};",
        f"  connect retry time {_seconds(config.connect_retry)};",
        f"  error wait time {','.join(map(_seconds, config.error_wait))};",
    ]
    if config.hold_time != 240:
        out.append(f"  hold time {config.hold_time};")
    if config.graceful_restart and config.restart_time != 120:
        out.append(f"  graceful restart time {config.restart_time};")
    out.append("}")
    for peer in config.peers:
        out += [
            f"protocol bgp {peer.name} from bgp_template {{",
            f"  neighbor {peer.address} as {peer.asn};",
            f"  source address {config.source_of(peer)};",
            _options(peer, config),
            _IMPORT % {"rules": _rules(peer, "imports")},
            _EXPORT
            % {
                "rules": _rules(peer, "exports"),
                "internal": "true" if peer.asn == config.asn else "false",
            },
            "  passive on;" if peer.passive else "",
            "}",
        ]
    return "\n".join(out) + "\n"


def _options(peer: Peer, config: Config) -> str:
    words = []
    if peer.asn != config.asn:
        words.append("multihop;")
    if peer.rr_client:
        words.append(f"rr client; rr cluster id {peer.cluster_id or config.router_id};")
    if peer.next_hop_self:
        words.append("next hop self;")
    if peer.next_hop_keep:
        words.append("next hop keep;")
    if peer.allow_own_as:
        words.append(f"allow local as {peer.allow_own_as};")
    return "  " + " ".join(words) if words else ""


def bird2(config: Config) -> str:
    """Return the same configuration for upstream BIRD 2 (IPv4 and IPv6 channels).

    Raises ValueError for a tunnel: upstream BIRD cannot put one into a route.
    """
    if any(pool.tunnel for pool in config.pools):
        raise ValueError("krt_tunnel exists only in Calico's fork of BIRD")
    out: list[str] = []
    families = (
        (4, 6)
        if any(family(text) == 6 for text in (*config.blocks, *(p.address for p in config.peers)))
        else (4,)
    )
    if config.filters == "calico":
        out += _aggregation(config, static=False)
        # BIRD 1.6 never programs connected networks, and takes the metric from the filter; BIRD 2 has to be told.
        devices = "  if (source = RTS_DEVICE) then { reject; }\n"
        out.append(_KERNEL_FILTER % {"tunnels": devices + _tunnels(config)})
        kernel, metric = "export filter calico_kernel_programming;", "metric 0; "
    else:
        out.append("filter to_peers { if source = RTS_STATIC then accept; reject; }")
        kernel, metric = "export where source ~ [RTS_STATIC, RTS_BGP];", ""
    out.append(f"router id {config.router_id};")
    graceful = "graceful restart;" if config.graceful_restart else ""
    scan = f"scan time {_seconds(config.scan_time)};"
    for fam in families:
        own = (block for block in (*config.blocks, *config.static) if family(block) == fam)
        routes = " ".join(f"route {block} blackhole;" for block in own)
        out.append(f"protocol static s{fam} {{ ipv{fam}; {routes} }}")
        out.append(
            f"protocol kernel k{fam} {{ learn; persist; {scan} {graceful} merge paths on; {metric}"
            f"ipv{fam} {{ import all; {kernel} }}; }}"
        )
        name = "direct1" if fam == 4 else "d6"
        out.append(f'protocol direct {name} {{ ipv{fam}; interface -"cali*", -"kube-ipvs*", "*"; }}')
    out.append(f"protocol device {{ {scan} }}")
    for peer in config.peers:
        restart = "graceful restart off;"
        if config.graceful_restart:
            restart = f"graceful restart {'on' if peer.graceful else 'aware'};"
            restart += f" graceful restart time {config.restart_time};"
        if config.filters == "calico":
            imports = _IMPORT % {"rules": _rules(peer, "imports")}
            exports = _EXPORT % {
                "rules": _rules(peer, "exports"),
                "internal": "true" if peer.asn == config.asn else "false",
            }
        else:
            imports, exports = "  import all;", "  export filter to_peers;"
        hop = " next hop self;" if peer.next_hop_self else " next hop keep;" if peer.next_hop_keep else ""
        words = _options(peer, config).replace("next hop self;", "").replace("next hop keep;", "").strip()
        out += [
            f"protocol bgp {peer.name} {{",
            f"  local {config.source_of(peer)} as {config.asn}; neighbor {peer.address} as {peer.asn};",
            f"  {words} {restart} hold time {config.hold_time};",
            f"  connect delay time {_seconds(config.connect_delay)}; connect retry time "
            f"{_seconds(config.connect_retry)}; error wait time {','.join(map(_seconds, config.error_wait))};",
            *(["  passive on;"] if peer.passive else []),
            f"  ipv{peer.family} {{ gateway recursive; add paths {'on' if peer.add_paths else 'off'};{hop}",
            imports,
            exports,
            "  };",
            "}",
        ]
    return "\n".join(out) + "\n"
