"""The CNI project's real plugins as processes in a twin, and what they left beside what the model's plugins left.

A plugin is executed as a container runtime does it (environment, standard input), each getting the result of the one
before. Source: https://www.cni.dev/docs/spec/, section 2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kubenet_lab.kernel.dialects import iptables, nft
from kubenet_lab.kernel.link import Link
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.route import TABLE_LOCAL, Route
from kubenet_lab.twin.plan import file_name
from kubenet_lab.twin.readback import State
from kubenet_lab.twin.twin import Twin

Json = dict[str, Any]

FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
"""Where distributions and Kubernetes put the executables."""
HARMLESS = frozenset(
    {"bandwidth", "bridge", "dummy", "firewall", "host-device", "host-local", "ipvlan", "loopback", "macvlan"}
    | {"portmap", "ptp", "sbr", "static", "tap", "tuning", "vlan", "vrf"}
)
"""Plugins that do nothing but write into the kernel of the namespaces they are run in, and files of `STORE`."""
STORE = "/run/cni/networks"
"""Where host-local keeps its reservations in a twin, whose /run is its own; its usual place is the machine's."""


def folder_of(types: Iterable[str]) -> Path | None:
    """Return the first folder that has all of these executables."""
    wanted = list(types)
    found = (folder for folder in FOLDERS if all((folder / name).is_file() for name in wanted))
    return next(found, None)


def types_of(plugins: Iterable[Json]) -> list[str]:
    """Return the executables that a chain runs, those that plugins hand over to (IPAM) among them."""
    out: list[str] = []
    for body in plugins:
        ipam = body.get("ipam")
        out += [str(body.get("type", "")), str(ipam.get("type") or "") if isinstance(ipam, dict) else ""]
    return list(dict.fromkeys(name for name in out if name))


def contained(body: Json) -> Json:
    """Return a plugin's configuration with host-local's files in `STORE`."""
    ipam = body.get("ipam")
    if not isinstance(ipam, dict) or ipam.get("type") != "host-local":
        return body
    return {**body, "ipam": {**ipam, "dataDir": STORE}}


class RealChain:
    """A chain of real plugins between a node and a container's namespace of a twin.

    Args:
        folder: Where the executables are.
        plugins: The `plugins` of a conflist, `contained`.
        capabilities: What the runtime can tell: {"portMappings": [...]}.
    """

    def __init__(
        self,
        twin: Twin,
        plugins: Sequence[Json],
        *,
        folder: Path = FOLDERS[0],
        host: str = "node-1",
        container: str = "c1",
        ifname: str = "eth0",
        name: str = "net1",
        version: str = "1.0.0",
        capabilities: Json | None = None,
    ) -> None:
        self.twin, self.plugins, self.folder = twin, list(plugins), folder
        self.host, self.container, self.ifname = host, container, ifname
        self.name, self.version, self.capabilities = name, version, capabilities or {}
        self.result: Json | None = None

    @property
    def netns(self) -> str:
        """Where the container's namespace is bound, in the twin."""
        return f"/run/netns/{file_name(self.container)}"

    def versions(self) -> list[str]:
        """VERSION: the protocol's versions that every plugin of the chain speaks. Raises RuntimeError."""
        known: list[list[str]] = []
        for body in self.plugins:
            status, said = self._run("VERSION", str(body["type"]), {"cniVersion": self.version})
            if status or not isinstance(said, dict):
                raise RuntimeError(f"{body['type']}: {said}")
            known.append(said["supportedVersions"])
        return [one for one in known[0] if all(one in others for others in known)]

    def add(self) -> Json | None:
        """ADD of every plugin; returns the error of the one that failed, as it printed it."""
        for body in self.plugins:
            status, said = self.call("ADD", body)
            if status:
                return said if isinstance(said, dict) else {"code": 999, "msg": str(said)}
            self.result = said
        return None

    def delete(self) -> int:
        """DEL of every plugin, the last one first; stops at the first that fails."""
        return next((1 for body in reversed(self.plugins) if self.call("DEL", body)[0]), 0)

    def call(self, command: str, body: Json) -> tuple[int, Any]:
        """Run one plugin; returns its exit status and what it printed: JSON, or the text of its standard error."""
        given = {**body, "name": self.name, "cniVersion": self.version}
        wanted = given.pop("capabilities", {})
        chosen = {key: value for key, value in self.capabilities.items() if wanted.get(key)}
        if chosen:
            given["runtimeConfig"] = chosen
        if self.result is not None:
            given["prevResult"] = self.result
        return self._run(command, str(body["type"]), given)

    def _run(self, command: str, plugin: str, given: Json) -> tuple[int, Any]:
        words = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": file_name(self.container),
            "CNI_NETNS": self.netns,
            "CNI_IFNAME": self.ifname,
            "CNI_PATH": str(self.folder),
        }
        line = " ".join(f"{key}={value}" for key, value in words.items())
        # A plugin opens /proc/self/task/N/ns/net, and the twin's /proc is that of the world outside.
        script = f"mount -t proc proc /proc; mkdir -p {STORE}; env {line} {self.folder / plugin}"
        done = self.twin.run(self.host, f"unshare --mount sh -c '{script}'", stdin=json.dumps(given))
        return done.exit_code, json.loads(done.stdout) if done.stdout.strip() else done.stderr or None


# -- what is there afterwards ------------------------------------------------------------------------------------------


def facts(
    links: Iterable[Link],
    addresses: Iterable[Any],
    routes: Iterable[Route],
    rules: dict[int, Any],
    tables: dict[int, Any],
    nftables: Any,
) -> list[str]:
    """Return what a namespace holds, a line each: "link ...", "address ...", "route ...", "rule ...", "rules ...".

    Link-local addresses follow the MACs and the kernel's own routes the addresses; they are left out.
    """
    out = []
    for link in links:
        bits = [link.name, link.kind if link.kind != "physical" else "veth", link.mac, str(link.mtu)]
        bits += ["up"] if link.up else []
        bits += [f"master {link.master}"] if link.master else []
        bits += [f"hairpin {link.port.hairpin}"] if link.port is not None else []
        bits += [f"mode {link.macvlan.mode}"] if link.macvlan is not None else []
        bits += ["promisc"] if link.promiscuous else []
        out.append("link " + " ".join(bits))
    out += [f"address {a}" for a in addresses if a.scope != "link" and a.local not in ("127.0.0.1", "::1")]
    out += [
        f"route {r} proto {r.proto}"
        for r in routes
        if r.table != TABLE_LOCAL
        and not r.dst.startswith(("fe80:", "ff00:"))
        and r.type != "anycast"
        and r.dst != "::1/128"
    ]
    out += [f"rule {fam} {rule}" for fam in (4, 6) for rule in rules[fam]]
    for fam in (4, 6):
        out += [
            f"rules {fam} {line}" for line in iptables.save(tables[fam]).splitlines() if line.startswith("-A")
        ]
    # The comments of later versions name more.
    out = [re.sub(r"\(ingressPolicy: [^)]*\)", "(ingressPolicy)", line) for line in out]
    return sorted(out) + nft.list_ruleset(nftables).splitlines()


def of_model(ns: Netns) -> list[str]:
    """Return the facts of a namespace of the model, sorted."""
    routes = [route for table in ns.routes.values() for route in table.values()]
    addresses = [a for entries in ns.addresses.values() for a in entries]
    return sorted(facts(ns.links.values(), addresses, routes, ns.rules, ns.iptables, ns.nftables))


def of_kernel(state: State, names: dict[str, str]) -> list[str]:
    """Return the facts of a namespace of the kernel, sorted; `names`: a real name or MAC -> the model's."""
    found = facts(state.links, state.addresses, state.routes, state.rules, state.iptables, state.nftables)
    pattern = "|".join(re.escape(name) for name in names) or "(?!)"
    return sorted(re.sub(pattern, lambda hit: names[hit[0]], line) for line in found)


def renamed(real: Json, ours: Json) -> dict[str, str]:
    """Return which of the model's names and MACs the real ones are: interfaces of two results, in order.

    A plugin draws them at random. Raises ValueError where the results have different numbers of interfaces.
    """
    out = {}
    for one, other in zip(real.get("interfaces", []), ours.get("interfaces", []), strict=True):
        if one["name"].startswith("veth"):
            out[one["name"]] = other["name"]
        if one.get("mac"):
            out[one["mac"]] = other["mac"]
    return out


def mapped(value: Any, names: dict[str, str]) -> Any:
    """Return a JSON value with real names and MACs replaced by the model's."""
    # Before 1.2.0 the plugins print an empty `dns`.
    text = json.dumps(
        {k: v for k, v in value.items() if (k, v) != ("dns", {})} if isinstance(value, dict) else value
    )
    for real, ours in names.items():
        text = text.replace(f'"{real}"', f'"{ours}"')
    return json.loads(text)
