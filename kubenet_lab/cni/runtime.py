"""The container runtime's part of CNI: which network a node has, and running its plugins in order.

Source: libcni and containerd's `go-cni`: the first configuration by file name in /etc/cni/net.d is the
node's network; ADD runs its plugins in order, each getting the previous one's result; DEL runs them
backwards with the cached result.
"""

from __future__ import annotations

import hashlib
import json

from msgspec import Struct

from kubenet_lab.cni import PLUGINS
from kubenet_lab.cni.plugin import Call, CniError, Json, Plugin, Result, decode, execute
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network

CONF_DIR = "/etc/cni/net.d"
CACHE_DIR = "/var/lib/cni/results"
BIN_DIR = "/opt/cni/bin"

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


def parse(text: str, file: str = "") -> NetworkConf:
    """Read a .conflist, or a .conf with a single plugin. Raises CniError with libcni's words."""
    body = decode(text)
    if "plugins" not in body:
        if not body.get("type"):
            raise CniError(f"error parsing configuration list: no 'plugins' key: {file or body}")
        return NetworkConf(body.get("name", ""), body.get("cniVersion", ""), (body,), file)
    if not isinstance(body.get("name"), str):
        raise CniError("error parsing configuration list: no name")
    plugins = body["plugins"]
    if not isinstance(plugins, list) or not plugins:
        raise CniError("error parsing configuration list: no plugins in list")
    return NetworkConf(body["name"], body.get("cniVersion", ""), tuple(plugins), file)


def node_network(node: Netns) -> NetworkConf:
    """The node's network: the first usable configuration by file name. Raises CniError when there is none."""
    names = sorted(
        path
        for path in node.files
        if path.startswith(CONF_DIR + "/") and path.endswith((".conf", ".conflist", ".json"))
    )
    for path in names:
        try:
            return parse(node.files[path], path)
        except CniError:
            continue  # containerd logs a broken file and looks at the next one
    raise CniError("cni plugin not initialized")


class Runtime:
    """The runtime of one node (containerd): makes sandboxes and runs the plugin chain in them."""

    def __init__(self, network: Network, host: str, plugins: tuple[Plugin, ...] = PLUGINS) -> None:
        self.network = network
        self.host = host
        self.plugins = {plugin.name: plugin for plugin in plugins}

    @property
    def node(self) -> Netns:
        """The node's root network namespace."""
        return self.network.ns(self.host)

    def make_sandbox(self, name: str, container_id: str) -> str:
        """Make a network namespace, bind it to a path in /var/run/netns and return that; `lo` is down."""
        sandbox = self.network.add_netns(name, self.host)
        sandbox.set_link("lo", up=False)
        digest = hashlib.sha256(container_id.encode()).hexdigest()
        path = (
            f"/var/run/netns/cni-{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"
        )
        self.node.files[path] = name
        return path

    def remove_sandbox(self, path: str) -> None:
        """Unbind and delete a network namespace; one that is gone is no error."""
        name = self.node.files.pop(path, "")
        if name in self.network.netns:
            self.network.delete_netns(name)

    def run(self, plugin: str, call: Call) -> Result | None:
        """Execute one plugin by name. Raises CniError, also when it is not installed."""
        found = self.plugins.get(plugin)
        if found is None:
            raise CniError(f'failed to find plugin "{plugin}" in path [{BIN_DIR}]')
        return execute(found, call)

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
    ) -> Result:
        """ADD: the plugins in order, each with the last one's result. Raises CniError and undoes nothing."""
        result: Result | None = None
        for body in conf.plugins:
            call = self._call("ADD", conf, body, container_id, path, ifname, args, capabilities, result, now)
            try:
                result = self.run(body.get("type", ""), call)
            except CniError as fault:
                raise CniError(
                    f'plugin type="{body.get("type", "")}" failed (add): {fault}', fault.code
                ) from fault
        assert result is not None
        self.remember(conf, container_id, ifname, result, capabilities)
        return result

    def remember(
        self,
        conf: NetworkConf,
        container_id: str,
        ifname: str,
        result: Result,
        capabilities: Json | None = None,
    ) -> None:
        """Write the result of a whole chain into the cache, /var/lib/cni/results, for CHECK, DEL and GC."""
        self.node.files[self._cache(conf, container_id, ifname)] = json.dumps(
            {
                "kind": "cniCacheV1",
                "containerId": container_id,
                "ifName": ifname,
                "networkName": conf.name,
                "result": result.to_json(conf.version or "1.0.0"),
                "capabilityArgs": capabilities or {},
            }
        )

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
        cached = self.node.files.get(self._cache(conf, container_id, ifname))
        entry = json.loads(cached) if cached else {}
        result = Result.from_json(entry["result"]) if entry else None
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
        """CHECK: the plugins in order, with the cached result. Raises CniError of the first that fails."""
        cached = self.node.files.get(self._cache(conf, container_id, ifname))
        entry = json.loads(cached) if cached else {}
        result = Result.from_json(entry["result"]) if entry else None
        for body in conf.plugins:
            self.run(
                body.get("type", ""),
                self._call(
                    "CHECK",
                    conf,
                    body,
                    container_id,
                    path,
                    ifname,
                    args,
                    entry.get("capabilityArgs"),
                    result,
                    0.0,
                ),
            )

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
