"""The Flannel CNI plugin: reads what flanneld wrote and runs the bridge plugin with it.

Source: https://github.com/flannel-io/cni-plugin (v1.9.1-flannel1), `flannel_linux.go`.
"""

from __future__ import annotations

import json

import msgspec

from kubenet_lab.cni.plugin import Call, CniError, Json, Plugin, Result

SUBNET_FILE = "/run/flannel/subnet.env"
DATA_DIR = "/var/lib/cni/flannel"


def load_subnet_env(call: Call) -> dict[str, str]:
    """Read subnet.env of the host. Raises CniError where flanneld has not written one."""
    path = str(call.conf.get("subnetFile") or SUBNET_FILE)
    text = call.files.get(path)
    if text is None:
        raise CniError(
            f"failed to load flannel 'subnet.env' file: open {path}: no such file or directory. "
            "Check the flannel pod log for this node."
        )
    env = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    missing = [k for k in ("FLANNEL_MTU", "FLANNEL_IPMASQ") if k not in env]
    if "FLANNEL_NETWORK" not in env and "FLANNEL_IPV6_NETWORK" not in env:
        missing = ["FLANNEL_NETWORK", "FLANNEL_SUBNET", *missing]
    if missing:
        raise CniError(f"{path} is missing {', '.join(missing)}")
    return env


def delegate_conf(call: Call, env: dict[str, str]) -> Json:
    """The configuration handed to the delegate: what the user wrote, filled up from subnet.env."""
    conf: Json = dict(call.conf.get("delegate") or {})
    for key in ("name", "ipam"):
        if key in conf:
            raise CniError(f"'delegate' dictionary must not have '{key}' field, it'll be set by flannel")
    conf["name"] = call.name
    conf.setdefault("type", "bridge")
    conf.setdefault("ipMasq", env["FLANNEL_IPMASQ"] != "true")
    conf.setdefault("mtu", int(env["FLANNEL_MTU"]))
    if conf["type"] == "bridge":
        conf.setdefault("isGateway", True)
    if call.conf.get("cniVersion"):
        conf["cniVersion"] = call.conf["cniVersion"]
    pairs = [
        (env[f"FLANNEL{six}_NETWORK"], env[f"FLANNEL{six}_SUBNET"])
        for six in ("", "_IPV6")
        if env.get(f"FLANNEL{six}_NETWORK") and env.get(f"FLANNEL{six}_SUBNET")
    ]
    conf["ipam"] = {
        **(call.conf.get("ipam") or {}),
        "type": "host-local",
        "ranges": [[{"subnet": _network_of(subnet)}] for _, subnet in pairs],
        "routes": [{"dst": network} for networks, _ in pairs for network in networks.split(",")],
    }
    return conf


def _network_of(cidr: str) -> str:
    from kubenet_lab.packet.ip import prefix

    return str(prefix(cidr))


def _scratch(call: Call) -> str:
    return f"{call.conf.get('dataDir') or DATA_DIR}/{call.container_id}"


def add(call: Call) -> Result:
    """Delegate, and keep the delegate's configuration in a file for DEL."""
    conf = delegate_conf(call, load_subnet_env(call))
    call.node.files[_scratch(call)] = msgspec.json.encode(conf, order="sorted").decode()
    return call.delegate(conf["type"], conf) or Result()


def plan(call: Call) -> Result | None:
    """What the delegate would do first."""
    conf = delegate_conf(call, load_subnet_env(call))
    return call.plan(conf["type"], conf)


def delete(call: Call) -> None:
    """Undo with the configuration kept at ADD; without one there is nothing to do."""
    text = call.node.files.get(_scratch(call))
    if text is None:
        return
    conf = json.loads(text)
    call.delegate(conf["type"], conf)
    del call.node.files[_scratch(call)]


def check(call: Call) -> None:
    """The real plugin's CHECK does nothing and succeeds."""


PLUGIN = Plugin(name="flannel", add=add, delete=delete, check=check, plan=plan)
