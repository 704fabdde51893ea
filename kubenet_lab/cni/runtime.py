"""The container runtime's part of CNI: which network a node has, and running its plugins in order.

Source: libcni and containerd's `go-cni`: the first configuration by file name in /etc/cni/net.d is the
node's network; ADD runs its plugins in order, each getting the previous one's result; DEL runs them
backwards with the cached result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.cni import PLUGINS, fields
from kubenet_lab.cni.gojson import fault_of, go_type, kind_of
from kubenet_lab.cni.plugin import (
    CONF_DIR,
    DECODING_FAILURE,
    INVALID_CONFIG,
    VERSIONS,
    Call,
    CniError,
    Json,
    Plugin,
    Result,
    execute,
)
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.put_off import files_now

__all__ = [
    "BIN_DIR",
    "CACHE_DIR",
    "CONF_DIR",
    "FLANNEL_CONFLIST",
    "MISSING",
    "NetworkConf",
    "NotInitialized",
    "Runtime",
    "node_network",
    "parse",
]

CACHE_DIR = "/var/lib/cni/results"
BIN_DIR = "/opt/cni/bin"
MISSING = "/opt/cni/bin/.missing"
"""A node's file with the paths of executables that its installation left out, one a line; none: all are there."""

FLANNEL_CONFLIST = """\
{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "flannel",
      "delegate": {
        "hairpinMode": true,
        "isDefaultGateway": true
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
"""
"""`10-flannel.conflist` as the flannel DaemonSet's init container writes it (kube-flannel.yml)."""


class NetworkConf(Struct, frozen=True):
    """A network configuration list: its name, protocol version and plugins in order."""

    name: str
    version: str
    plugins: tuple[Json, ...]
    file: str = ""
    disable_check: bool = False
    disable_gc: bool = False
    only_inlined: bool = False
    """`loadOnlyInlinedPlugins`: files in /etc/cni/net.d/NAME/ are not looked at."""


_LIST = "error parsing configuration list: "


@lru_cache(maxsize=8192)
def parse(text: str, file: str = "") -> NetworkConf:
    """Read a .conflist, or a .conf with a single plugin. Raises CniError with libcni's words.

    A list without `plugins` is left without any: its plugins are in files of their own (`node_network`).
    """
    wrong = fault_of(text)
    if wrong:
        raise CniError(_LIST + wrong, DECODING_FAILURE)
    body = json.loads(text)
    if body is None:
        body = {}  # as Go takes it
    if not isinstance(body, dict):
        said = f"json: cannot unmarshal {kind_of(body)} into Go value of type map[string]interface {{}}"
        raise CniError(_LIST + said, DECODING_FAILURE)
    if "plugins" not in body and body.get("type"):
        return _list_of({"name": "", **body}, (_plugin(body, ""),), file)
    if "name" not in body:
        raise CniError(f"{_LIST}no name", INVALID_CONFIG)
    if not isinstance(body["name"], str):
        raise CniError(f"{_LIST}invalid name type {go_type(body['name'])}", INVALID_CONFIG)
    conf = _list_of(body, (), file)
    if "plugins" not in body:
        if conf.only_inlined:
            raise CniError(f"{_LIST}`loadOnlyInlinedPlugins` is true, and no 'plugins' key", INVALID_CONFIG)
        return conf
    plugins = body["plugins"]
    if not isinstance(plugins, list):
        raise CniError(f"{_LIST}invalid 'plugins' type {go_type(plugins)}", INVALID_CONFIG)
    if not plugins:
        raise CniError(f"{_LIST}no plugins in list", INVALID_CONFIG)
    read = tuple(_plugin(item, f"failed to parse plugin config {at}: ") for at, item in enumerate(plugins))
    return replace(conf, plugins=read)


def _plugin(item: Any, before: str) -> Json:
    says = f"{before}error parsing configuration: "
    if wrong := fields.fault_of(item, fields.LIBCNI):
        raise CniError(says + wrong, INVALID_CONFIG)
    if not (item or {}).get("type"):
        raise CniError(f"{says}missing 'type'", INVALID_CONFIG)
    found: Json = item
    return found


def _list_of(body: Json, plugins: tuple[Json, ...], file: str) -> NetworkConf:
    version = body.get("cniVersion", "")
    if not isinstance(version, str):
        raise CniError(f"{_LIST}invalid cniVersion type {go_type(version)}", INVALID_CONFIG)
    return NetworkConf(
        body["name"],
        _best_version(body, version),
        plugins,
        file,
        _flag(body, "disableCheck"),
        _flag(body, "disableGC"),
        _flag(body, "loadOnlyInlinedPlugins"),
    )


def _best_version(body: Json, version: str) -> str:
    """The newest version that `cniVersions` (1.1.0) and `cniVersion` name and that the runtime speaks."""
    offered = body.get("cniVersions")
    if offered is None:
        return version
    if not isinstance(offered, list):
        raise CniError(f"{_LIST}invalid type for cniVersions: {go_type(offered)}", INVALID_CONFIG)
    for at, one in enumerate(offered):
        if not isinstance(one, str):
            said = f"invalid type for cniVersions index {at}: {go_type(one)}"
            raise CniError(_LIST + said, INVALID_CONFIG)
    known = [one for one in (*offered, version) if one in VERSIONS]
    return max(known, key=VERSIONS.index) if known else version


def _flag(body: Json, key: str) -> bool:
    value = body.get(key, False)
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise CniError(f"{_LIST}invalid type {go_type(value)} for {key}", INVALID_CONFIG)
    if value.lower() not in ("true", "false"):
        raise CniError(f'{_LIST}invalid value "{value.lower()}" for {key}', INVALID_CONFIG)
    return value.lower() == "true"


class NotInitialized(CniError):
    """The runtime has no network. `log` is what containerd wrote when it tried to load one."""

    def __init__(self, log: str) -> None:
        self.log = f"cni config load failed: {log}: failed to load cni config"
        super().__init__("cni plugin not initialized")


def node_network(node: Netns) -> NetworkConf:
    """The node's network: the first configuration by file name, as containerd's go-cni loads it.

    A first file that is broken is not passed over: the node then has no network, whatever else lies there. Raises
    NotInitialized.
    """
    files = files_now(node)
    paths = _conf_files(files, CONF_DIR, (".conf", ".conflist", ".json"))
    if not paths:
        raise NotInitialized(f"no network config found in {CONF_DIR}: cni plugin not initialized")
    path = paths[0]
    whole = path.endswith(".conflist")
    try:
        conf = parse(files[path], path)
        if whole and not conf.only_inlined:
            more = _conf_files(files, f"{CONF_DIR}/{conf.name}", (".conf",))
            apart = tuple(_plugin(_decoded(files[name]), "") for name in more)
            if not conf.plugins and not apart:
                raise CniError("no plugin configs found", INVALID_CONFIG)
            conf = replace(conf, plugins=(*conf.plugins, *apart)) if apart else conf
    except CniError as fault:
        what = "CNI config list file" if whole else "CNI config file"
        raise NotInitialized(f"failed to load {what} {path}: {fault}: invalid cni config") from fault
    if not conf.plugins:
        raise NotInitialized(f"network type not found in {path}: invalid cni config")
    return conf


def _conf_files(files: Iterable[str], folder: str, ends: tuple[str, ...]) -> list[str]:
    """Files directly in a folder with one of these endings, by name."""
    start = folder + "/"
    return sorted(
        path
        for path in files
        if path.startswith(start) and path.endswith(ends) and "/" not in path[len(start) :]
    )


def _decoded(text: str) -> Any:
    wrong = fault_of(text)
    if wrong:
        raise CniError(f"error parsing configuration: {wrong}", DECODING_FAILURE)
    return json.loads(text)


def netns_path(container_id: str) -> str:
    """Where a sandbox's network namespace is bound: random in reality, derived here from its id."""
    digest = hashlib.sha256(container_id.encode()).hexdigest()
    return f"/var/run/netns/cni-{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


@lru_cache(maxsize=8)
def _by_name(plugins: tuple[Plugin, ...]) -> dict[str, Plugin]:
    return {plugin.name: plugin for plugin in plugins}


class Runtime:
    """The runtime of one node (containerd): makes sandboxes and runs the plugin chain in them."""

    def __init__(self, network: Network, host: str, plugins: tuple[Plugin, ...] = PLUGINS) -> None:
        self.network = network
        self.host = host
        self.plugins = _by_name(plugins)
        self._conf: NetworkConf | None = None

    @property
    def node(self) -> Netns:
        """The node's root network namespace."""
        return self.network.ns(self.host)

    def make_sandbox(self, name: str, container_id: str) -> str:
        """Make a network namespace, bind it to a path in /var/run/netns and return that; `lo` is down."""
        sandbox = self.network.add_netns(name, self.host)
        sandbox.set_link("lo", up=False)
        path = netns_path(container_id)
        self.node.files[path] = name
        return path

    def node_network(self) -> NetworkConf:
        """The node's network as this runtime loaded it: files are read once in its life. Raises NotInitialized."""
        if self._conf is None:
            self._conf = node_network(self.node)
        return self._conf

    def remove_sandbox(self, path: str) -> None:
        """Unbind and delete a network namespace; one that is gone is no error."""
        name = self.node.files.pop(path, "")
        if name in self.network.netns:
            self.network.delete_netns(name)

    def run(self, plugin: str, call: Call) -> Result | None:
        """Execute one plugin by name. Raises CniError, also when it is not installed."""
        if self._lacks(plugin):
            raise CniError(f'failed to find plugin "{plugin}" in path [{BIN_DIR}]')
        return execute(self.plugins[plugin], call)

    def add(
        self,
        conf: NetworkConf,
        container_id: str,
        path: str,
        *,
        ifname: str = "eth0",
        args: str = "",
        capabilities: Json | None = None,
        now: float = 0.0,
        answer: Result | None = None,
    ) -> Result:
        """ADD: the plugins in order, each with the last one's result. Raises CniError and undoes nothing.

        `answer` is what `plan` returned.
        """
        result: Result | None = None
        for body in conf.plugins:
            call = self._call("ADD", conf, body, container_id, path, ifname, args, capabilities, result, now)
            if answer is not None:
                call = replace(call, answer=answer)
            try:
                result = self.run(body.get("type", ""), call)
            except CniError as fault:
                raise CniError(
                    f'plugin type="{body.get("type", "")}" failed (add): {fault}', fault.code
                ) from fault
        assert result is not None
        self.remember(conf, container_id, ifname, result, capabilities, path)
        return result

    def plan(
        self, conf: NetworkConf, container_id: str, path: str, *, ifname: str = "eth0", args: str = ""
    ) -> Result | None:
        """What IPAM answers, where all the rest of an ADD (without capabilities) is certain to succeed; else None.

        The addresses are reserved then, and `add` has to be given the answer. Raises CniError when IPAM fails.
        """
        if not conf.plugins or any(self._lacks(body.get("type", "")) for body in conf.plugins):
            return None
        first, *others = conf.plugins
        if not all(self.plugins[body["type"]].idle for body in others):
            return None
        call = self._call("ADD", conf, first, container_id, path, ifname, args, None, None, 0.0)
        return self._plan(first["type"], replace(call, planner=self._plan))

    def _plan(self, plugin: str, call: Call) -> Result | None:
        found = self.plugins[plugin]
        return None if found.plan is None or self._lacks(plugin) else found.plan(call)

    def _lacks(self, plugin: str) -> bool:
        return plugin not in self.plugins or (
            f"{BIN_DIR}/{plugin}" in files_now(self.node).get(MISSING, "").splitlines()
        )

    def remember(
        self,
        conf: NetworkConf,
        container_id: str,
        ifname: str,
        result: Result,
        capabilities: Json | None = None,
        path: str = "",
    ) -> None:
        """Write the result of a whole chain into the cache, /var/lib/cni/results, for CHECK, DEL and GC."""
        self.node.files[self._cache(conf, container_id, ifname)] = msgspec.json.encode(
            {
                "kind": "cniCacheV1",
                "containerId": container_id,
                "ifName": ifname,
                "networkName": conf.name,
                "netns": path,
                "result": result.to_json(conf.version or "1.0.0"),
                "capabilityArgs": capabilities or {},
            }
        ).decode()

    def delete(
        self,
        conf: NetworkConf,
        container_id: str,
        path: str,
        *,
        ifname: str = "eth0",
        args: str = "",
        now: float = 0.0,
    ) -> None:
        """DEL: the plugins backwards, with the cached result. Raises CniError of the first that fails."""
        entry = self._entry(conf, container_id, ifname)
        # Before 0.4.0 a DEL is not told what the ADD had said.
        result = Result.from_json(entry["result"]) if entry and _at_least(conf.version, "0.4.0") else None
        for body in reversed(conf.plugins):
            call = self._call(
                "DEL", conf, body, container_id, path, ifname, args, entry.get("capabilityArgs"), result, now
            )
            try:
                self.run(body.get("type", ""), call)
            except CniError as fault:
                raise CniError(
                    f'plugin type="{body.get("type", "")}" failed (delete): {fault}', fault.code
                ) from fault
        self.node.files.pop(self._cache(conf, container_id, ifname), None)

    def check(
        self, conf: NetworkConf, container_id: str, path: str, *, ifname: str = "eth0", args: str = ""
    ) -> None:
        """CHECK: the plugins in order, with the cached result; nothing with `disableCheck`.

        Raises CniError of the first that fails, or that the list's version has no CHECK.
        """
        if not _at_least(conf.version, "0.4.0"):
            raise CniError(f'configuration version "{conf.version}" does not support CHECK command')
        if conf.disable_check:
            return
        entry = self._entry(conf, container_id, ifname)
        result = Result.from_json(entry["result"]) if entry else None
        given = entry.get("capabilityArgs")
        for body in conf.plugins:
            call = self._call("CHECK", conf, body, container_id, path, ifname, args, given, result, 0.0)
            self.run(body.get("type", ""), call)

    def status(self, conf: NetworkConf) -> None:
        """STATUS: whether every plugin could serve an ADD; lists before 1.1.0 are always ready. Raises CniError."""
        if not _at_least(conf.version, "1.1.0"):
            return
        for body in conf.plugins:
            self.run(body.get("type", ""), self._call("STATUS", conf, body, "", "", "", "", None, None, 0.0))

    def collect(
        self, conf: NetworkConf, valid: tuple[tuple[str, str], ...], *, now: float = 0.0
    ) -> list[CniError]:
        """GC: DEL for cached attachments that are not among `valid` (container, interface), then the plugins' own GC.

        The plugins are asked from 1.1.0 on; nothing is done with `disableGC`. Returns what failed; it goes on then.
        """
        failed: list[CniError] = []
        if conf.disable_gc:
            return failed
        start = f"{CACHE_DIR}/{conf.name}-"
        for name in sorted(path for path in self.node.files if path.startswith(start)):
            entry = json.loads(self.node.files[name])
            mine = (str(entry["containerId"]), str(entry["ifName"]))
            if mine not in valid:
                try:
                    self.delete(conf, mine[0], str(entry.get("netns", "")), ifname=mine[1], now=now)
                except CniError as fault:
                    failed.append(CniError(f"failed to delete stale attachment {mine[0]} {mine[1]}: {fault}"))
        if not _at_least(conf.version, "1.1.0"):
            return failed
        attachments = [{"containerID": container, "ifname": ifname} for container, ifname in valid]
        for body in conf.plugins:
            call = self._call("GC", conf, body, "", "", "", "", None, None, now)
            try:
                told = {**call.conf, "cni.dev/valid-attachments": attachments}
                self.run(body.get("type", ""), replace(call, conf=told))
            except CniError as fault:
                failed.append(CniError(f'failed to GC plugin type="{body.get("type", "")}": {fault}'))
        return failed

    def _entry(self, conf: NetworkConf, container_id: str, ifname: str) -> Json:
        """What the cache has of an attachment, {} for nothing."""
        cached = self.node.files.get(self._cache(conf, container_id, ifname))
        return json.loads(cached) if cached else {}

    def _cache(self, conf: NetworkConf, container_id: str, ifname: str) -> str:
        return f"{CACHE_DIR}/{conf.name}-{container_id}-{ifname}"

    def _call(
        self,
        command: str,
        conf: NetworkConf,
        body: Json,
        container_id: str,
        path: str,
        ifname: str,
        args: str,
        capabilities: Json | None,
        result: Result | None,
        now: float,
    ) -> Call:
        """One plugin's parameters; its standard input is its part of the list and what the runtime adds."""
        given = {**body, "name": conf.name, "cniVersion": conf.version}
        wanted = given.pop("capabilities", None) or {}
        chosen = {k: v for k, v in (capabilities or {}).items() if wanted.get(k)}
        if chosen:
            given["runtimeConfig"] = chosen
        if result is not None:
            given["prevResult"] = result.to_json(conf.version or "1.0.0")
        return Call(
            command=command,
            network=self.network,
            host=self.host,
            container_id=container_id,
            netns=path,
            ifname=ifname,
            args=args,
            conf=given,
            now=now,
            run=self.run,
        )


def _at_least(version: str, wanted: str) -> bool:
    """Whether a list's version is that one or newer; a text that is no version is older than all."""
    parts = version.split(".")
    if len(parts) != 3 or not all(part.isdigit() for part in parts):
        return False
    return [int(part) for part in parts] >= [int(part) for part in wanted.split(".")]
