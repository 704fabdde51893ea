"""The CNI protocol: what a runtime hands to a plugin, what comes back, and what every plugin checks.

Source: https://www.cni.dev/docs/spec/ (1.1.0) and `github.com/containernetworking/cni/pkg/{skel,types}`. A
real plugin is
an executable: parameters in the environment, configuration on standard input, a result on standard output.
    Here a plugin is a `Plugin` value, `Call` is one execution of it, and `execute` is the `skel.PluginMain`
    around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.cni.fields import decoded
from kubenet_lab.errors import InputError, KubenetLabError
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.put_off import files_now, peek, waits
from kubenet_lab.packet.ip import family

Json = dict[str, Any]

CONF_DIR = "/etc/cni/net.d"
"""Where a node's network configurations are."""

VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
"""Versions of the protocol that these plugins speak."""

INCOMPATIBLE_VERSION, UNSUPPORTED_FIELD, UNKNOWN_CONTAINER, INVALID_ENVIRONMENT = 1, 2, 3, 4
IO_FAILURE, DECODING_FAILURE, INVALID_CONFIG, TRY_AGAIN = 5, 6, 7, 11
PLUGIN_NOT_AVAILABLE, OTHER = 50, 999


class CniError(KubenetLabError):
    """A plugin failed. `code` is the protocol's number, `msg` and `details` what it printed."""

    def __init__(self, msg: str, code: int = OTHER, details: str = "") -> None:
        self.code, self.msg, self.details = code, msg, details
        super().__init__(f"{msg}; {details}" if details else msg)

    def to_json(self) -> Json:
        """The error as a plugin prints it on standard output."""
        body: Json = {"code": self.code, "msg": self.msg}
        return {**body, "details": self.details} if self.details else body


class Interface(Struct, frozen=True, omit_defaults=True):
    """A link the plugin made or manages. `sandbox` is its namespace's path, "" for the host's."""

    name: str
    mac: str = ""
    sandbox: str = ""
    mtu: int = 0


class Ip(Struct, frozen=True):
    """An address of the container, with prefix length; `interface` is an index into the interfaces."""

    address: str
    gateway: str = ""
    interface: int | None = None


class RouteEntry(Struct, frozen=True):
    """A route of the container; with no `gw` the gateway of the address of that family is taken.

    `mtu`, `advmss`, `priority`, `table` and `scope` came with protocol 1.1.0; 0 and None are unset.
    """

    dst: str
    gw: str = ""
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None

    def to_json(self, whole: bool = True) -> Json:
        """The route as a result prints it; versions before 1.0.0 know destination and gateway only."""
        body: Json = {"dst": self.dst} | ({"gw": self.gw} if self.gw else {})
        if whole:
            body |= {key: value for key in ("mtu", "advmss", "priority") if (value := getattr(self, key))}
            body |= {key: value for key in ("table", "scope") if (value := getattr(self, key)) is not None}
        return body

    @classmethod
    def from_json(cls, body: Json) -> RouteEntry:
        """Read a route of a configuration or a result."""
        return cls(
            dst=str(body["dst"]),
            gw=str(body.get("gw") or ""),
            mtu=int(body.get("mtu") or 0),
            advmss=int(body.get("advmss") or 0),
            priority=int(body.get("priority") or 0),
            table=body.get("table"),
            scope=body.get("scope"),
        )


class Result(Struct, frozen=True):
    """What ADD returns and the next plugin of a chain gets as `prevResult`."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Ip, ...] = ()
    routes: tuple[RouteEntry, ...] = ()
    dns: Json = {}

    def to_json(self, version: str = "1.0.0") -> Json:
        """The result as that version of the protocol prints it."""
        if version in ("", "0.1.0", "0.2.0"):
            return self._to_json_020(version or "0.1.0")
        old = version.startswith("0.")
        body: Json = {"cniVersion": version}
        if self.interfaces:
            body["interfaces"] = [
                {k: v for k, v in msgspec.to_builtins(item).items() if k != "mtu" or version == "1.1.0"}
                for item in self.interfaces
            ]
        if self.ips:
            body["ips"] = [
                ({"version": str(family(ip.address))} if old else {})
                | {"address": ip.address}
                | ({"gateway": ip.gateway} if ip.gateway else {})
                | ({"interface": ip.interface} if ip.interface is not None else {})
                for ip in self.ips
            ]
        if self.routes:
            body["routes"] = [r.to_json(not old) for r in self.routes]
        if self.dns or old:
            body["dns"] = self.dns
        return body

    def _to_json_020(self, version: str) -> Json:
        body: Json = {"cniVersion": version}
        for ip in self.ips:
            key = f"ip{family(ip.address)}"
            if key in body:
                continue
            body[key] = {"ip": ip.address} | ({"gateway": ip.gateway} if ip.gateway else {})
            routes = [r for r in self.routes if family(r.dst) == family(ip.address)]
            if routes:
                body[key]["routes"] = [r.to_json(False) for r in routes]
        body["dns"] = self.dns
        return body

    @classmethod
    def from_json(cls, body: Json) -> Result:
        """Read a result of any version. Raises CniError for one that is not a result."""
        try:
            if "ip4" in body or "ip6" in body:
                return cls._from_json_020(body)
            return cls(
                tuple(msgspec.convert(body.get("interfaces", []), list[Interface])),
                tuple(
                    Ip(ip["address"], ip.get("gateway", ""), ip.get("interface"))
                    for ip in body.get("ips", [])
                ),
                tuple(RouteEntry.from_json(r) for r in body.get("routes", [])),
                body.get("dns", {}),
            )
        except (KeyError, TypeError, AttributeError, msgspec.ValidationError) as fault:
            raise CniError(f"could not parse prevResult: {fault}", DECODING_FAILURE) from fault

    @classmethod
    def _from_json_020(cls, body: Json) -> Result:
        parts = [body[key] for key in ("ip4", "ip6") if body.get(key)]
        return cls(
            ips=tuple(Ip(part["ip"], part.get("gateway", "")) for part in parts),
            routes=tuple(RouteEntry.from_json(r) for part in parts for r in part.get("routes") or []),
            dns=body.get("dns", {}),
        )


class Call(Struct, frozen=True, kw_only=True):
    """One execution of a plugin: the environment variables, standard input, and the world it acts on.

    Attributes:
        command: CNI_COMMAND: ADD, DEL, CHECK, GC, STATUS, VERSION.
        network: The world; `host` names the node's namespace, where the runtime runs.
        container_id, netns, ifname, args: CNI_CONTAINERID, CNI_NETNS (a path), CNI_IFNAME, CNI_ARGS.
        conf: Standard input, read.
        now: Simulated time in s.
        run: Executes another plugin found in CNI_PATH, by name (delegation and IPAM).
        answer: What the IPAM plugin said already when this ADD was put off; it is not asked again.
        planner: Has another plugin plan instead (`Plugin.plan`).
    """

    command: str
    network: Network
    host: str
    container_id: str
    netns: str
    ifname: str
    args: str = ""
    conf: Json = {}
    now: float = 0.0
    run: Callable[[str, Call], Result | None]
    answer: Result | None = None
    planner: Callable[[str, Call], Result | None] | None = None

    @property
    def files(self) -> dict[str, str]:
        """The host's files, for plugins that keep theirs from one call to the next: nothing is made to see them."""
        return files_now(self.node)

    @property
    def node(self) -> Netns:
        """The host's network namespace; its `files` are the host's files."""
        return self.network.ns(self.host)

    @property
    def name(self) -> str:
        """The network's name from the configuration."""
        return str(self.conf.get("name", ""))

    def sandbox(self) -> Netns:
        """The container's network namespace. Raises CniError when the path leads to none."""
        found = self.node.files.get(self.netns)
        if found is None or found not in self.network.netns:
            raise CniError(
                f'failed to open netns "{self.netns}": '
                f'failed to Statfs "{self.netns}": no such file or directory'
            )
        return self.network.ns(found)

    def find_sandbox(self) -> Netns | None:
        """The container's network namespace, or None: DEL must succeed when it is gone already."""
        return self.network.netns.get(self.node.files.get(self.netns, ""))

    def delegate(self, plugin: str, conf: Json | None = None, command: str = "") -> Result | None:
        """Run another plugin with this one's parameters (`invoke.DelegateAdd`, `ipam.ExecAdd`)."""
        if not plugin:
            raise CniError("no plugin name provided")
        if self.answer is not None and plugin == (self.conf.get("ipam") or {}).get("type") and not command:
            return self.answer
        return self.run(
            plugin, replace(self, command=command or self.command, conf=self.conf if conf is None else conf)
        )

    def plan(self, plugin: str, conf: Json) -> Result | None:
        """Let the plugin that an ADD would be delegated to plan."""
        return None if self.planner is None else self.planner(plugin, replace(self, conf=conf))

    def prev_result(self) -> Result | None:
        """`prevResult` of the configuration."""
        body = self.conf.get("prevResult")
        return None if body is None else Result.from_json(body)

    def arguments(self) -> dict[str, str]:
        """CNI_ARGS, "K=V;K=V". Raises CniError: a malformed pair, or unknown keys without IgnoreUnknown."""
        pairs: dict[str, str] = {}
        for pair in self.args.split(";") if self.args else []:
            key, sign, value = pair.partition("=")
            if not sign:
                raise CniError(f'ARGS: invalid pair "{pair}"')
            pairs[key] = value
        unknown = [f'"{k}={v}"' for k, v in pairs.items() if k not in ("IgnoreUnknown", "MAC")]
        if unknown and pairs.get("IgnoreUnknown", "0").lower() not in ("1", "t", "true"):
            raise CniError(f"ARGS: unknown args [{' '.join(unknown)}]")
        return pairs


def serve(call: Call) -> None:
    """Note what a container was connected with: the next one like it cannot fail, while nothing else is changed."""
    call.node.served = (-1, call.conf)


def served_alike(call: Call) -> bool:
    """Whether the node's last container was connected with the same configuration and nothing has changed since."""
    node = call.node
    generation, conf = peek(node, "served")
    return bool(conf == call.conf and (waits(node) or generation == node.generation))


class Plugin(Struct, frozen=True, kw_only=True):
    """An executable in /opt/cni/bin. `name` is its file name, and the `type` of a configuration."""

    name: str
    add: Callable[[Call], Result]
    delete: Callable[[Call], None]
    check: Callable[[Call], None]
    status: Callable[[Call], None] | None = None
    """Raises CniError when the plugin cannot serve an ADD; None is always ready."""
    plan: Callable[[Call], Result | None] | None = None
    """The part of ADD that others must know at once: reserve the addresses and return them, if all else must succeed.

    None, also as an answer: the whole ADD has to be done now. Raises CniError when IPAM fails.
    """
    idle: bool = False
    """An ADD after another plugin's has nothing to refuse as long as the runtime passes it no capability."""
    collect: Callable[[Call], None] | None = None
    """GC: remove what belongs to none of `cni.dev/valid-attachments`; None accepts the command and does nothing."""
    versions: tuple[str, ...] = VERSIONS
    """The protocol versions it speaks."""
    about: str = ""
    """What it prints on standard error when it is run without a command."""


_VALID_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*\Z")
COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
_NEEDED = {
    "ADD": ("container_id", "netns", "ifname"),
    "CHECK": ("container_id", "netns", "ifname"),
    "DEL": ("container_id", "ifname"),
}
_VARIABLES = {"container_id": "CNI_CONTAINERID", "netns": "CNI_NETNS", "ifname": "CNI_IFNAME"}
_SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
"""The first version of the protocol that has a command."""


def decode(text: str) -> Json:
    """Read standard input. Raises CniError 6 for what is no JSON object, in the words of Go's encoding/json."""
    from kubenet_lab.cni.gojson import fault_of, kind_of

    wrong = fault_of(text)
    if wrong:
        raise CniError(f"error unmarshall network config: {wrong}", DECODING_FAILURE)
    body = json.loads(text)
    if body is None:
        return {}  # as Go takes it
    if not isinstance(body, dict):
        said = f"json: cannot unmarshal {kind_of(body)} into Go value of type types.NetConf"
        raise CniError(f"error unmarshall network config: {said}", DECODING_FAILURE)
    return body


def known_version(version: str, versions: tuple[str, ...] = VERSIONS) -> None:
    """Raise CniError 1 unless a plugin that speaks `versions` speaks this one."""
    if version not in versions:
        supported = " ".join(f'"{v}"' for v in versions)
        raise CniError(
            "incompatible CNI versions",
            INCOMPATIBLE_VERSION,
            f'config is "{version}", plugin supports [{supported}]',
        )


def execute(plugin: Plugin, call: Call) -> Result | None:
    """Run one plugin as `skel.PluginMain` does: parameters and version first, then the command.

    Returns the result of ADD, None for the others. Raises CniError with the plugin's code and text; what
    was changed before the failure stays, as with the real one.
    """
    if call.command not in COMMANDS:
        raise CniError(f"unknown CNI_COMMAND: {call.command}", INVALID_ENVIRONMENT)
    missing = [_VARIABLES[name] for name in _NEEDED.get(call.command, ()) if not getattr(call, name)]
    if missing:
        raise CniError(f"required env variables [{','.join(missing)}] missing", INVALID_ENVIRONMENT)
    if call.command == "VERSION":
        return None
    _check_names(call)
    version = call.conf.get("cniVersion") or "0.1.0"
    known_version(version, plugin.versions)
    since = _SINCE.get(call.command)
    if since is not None and VERSIONS.index(version) < VERSIONS.index(since):
        raise CniError(f"config version does not allow {call.command}", INCOMPATIBLE_VERSION)
    said, conf = decoded(plugin.name, call.conf)
    if said and (plugin.status is not None if call.command == "STATUS" else call.command != "GC"):
        raise CniError(said)
    call = call if conf is call.conf else replace(call, conf=conf)
    try:
        if call.command == "ADD":
            return plugin.add(call)
        if call.command == "DEL":
            plugin.delete(call)
        elif call.command == "CHECK":
            plugin.check(call)
        elif call.command == "STATUS" and plugin.status is not None:
            plugin.status(call)
        elif call.command == "GC" and plugin.collect is not None:
            plugin.collect(call)
    except KernelError as fault:
        raise CniError(fault.strerror) from fault
    except InputError as fault:
        raise CniError(str(fault)) from fault
    return None


def _check_names(call: Call) -> None:
    name = call.name
    if not name:
        raise CniError("missing network name", INVALID_CONFIG)
    if not _VALID_ID.match(name):
        raise CniError("invalid characters found in network name", INVALID_CONFIG, name)
    if call.command not in _NEEDED:
        return
    if not _VALID_ID.match(call.container_id):
        raise CniError("invalid characters in containerID", INVALID_ENVIRONMENT, call.container_id)
    problem = detail = ""
    if len(call.ifname) > 15:
        problem = "interface name is too long"
        detail = "interface name should be less than 16 characters"
    elif call.ifname in (".", ".."):
        problem = "interface name is . or .."
    elif any(c in "/:" or c.isspace() for c in call.ifname):
        problem = "interface name contains / or : or whitespace characters"
    if problem:
        raise CniError(problem, INVALID_ENVIRONMENT, detail)


def add_lines(ns: Netns, fam: int, lines: str) -> None:
    """`iptables-restore --noflush` (`ip6tables-restore` for family 6) with these lines, in one go."""
    from kubenet_lab.kernel.dialects import iptables

    ns.set_iptables(fam, iptables.restore(ns.iptables[fam], lines, noflush=True))


def has_chain(ns: Netns, fam: int, table: str, chain: str) -> bool:
    """True when the table has a chain of that name."""
    found = ns.iptables[fam].tables.get(table)
    return found is not None and chain in found.chains


def chain_lines(ns: Netns, fam: int, table: str, chain: str) -> list[str]:
    """`iptables -t TABLE -S CHAIN`, the rules only; none when the chain is not there."""
    from kubenet_lab.kernel.dialects import iptables

    return iptables.chain_text(ns.iptables[fam], table, chain)[1:] if has_chain(ns, fam, table, chain) else []
