"""tuning: sysctls of the container, and MAC, MTU, promiscuous mode, all-multicast and queue length of its interface.

DEL puts the interface's old values back. https://www.cni.dev/plugins/current/meta/tuning/
"""

from __future__ import annotations

import json
import re

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.cni import interface
from kubenet_lab.cni.plugin import Call, CniError, Json, Plugin, Result
from kubenet_lab.kernel.netns import Netns

ALLOWLIST = "/etc/cni/tuning/allowlist.conf"
DATA_DIR = "/run/cni/tuning"


class Config(Struct, frozen=True):
    """What is wished; None and "" leave a value as it is."""

    sysctl: dict[str, str]
    mac: str = ""
    mtu: int = 0
    promisc: bool = False
    allmulti: bool | None = None
    txqlen: int | None = None
    data_dir: str = DATA_DIR

    @property
    def link(self) -> bool:
        """True when something of the interface changes."""
        return (
            bool(self.mac or self.mtu or self.promisc) or self.allmulti is not None or self.txqlen is not None
        )


def load(call: Call) -> Config:
    """Read the configuration; CNI_ARGS, `runtimeConfig` and `args.cni` win over it, in that order."""
    body: Json = call.conf
    extra: Json = (body.get("args") or {}).get("cni") or {}
    mac = str(body.get("mac") or "")
    if call.args:
        mac = call.arguments().get("MAC") or mac
    mac = str((body.get("runtimeConfig") or {}).get("mac") or mac)
    return Config(
        {str(k): str(v) for k, v in {**(body.get("sysctl") or {}), **(extra.get("sysctl") or {})}.items()},
        str(extra.get("mac") or mac),
        int(extra.get("mtu") or body.get("mtu") or 0),
        bool(extra.get("promisc", body.get("promisc", False))),
        extra.get("allmulti", body.get("allmulti")),
        extra.get("txQLen", body.get("txQLen")),
        str(body.get("dataDir") or DATA_DIR),
    )


def _path(key: str, ifname: str) -> str:
    path = "/proc/sys/" + key.replace(".", "/").replace("IFNAME", ifname, 1)
    if not path.startswith("/proc/sys/net/"):
        raise CniError(f'invalid net sysctl key: "{path.removeprefix("/proc/sys/")}"')
    return path


def _allowed(call: Call, conf: Config) -> None:
    text = call.node.files.get(ALLOWLIST)
    if text is None:
        return
    allowed = [line.strip() for line in text.splitlines() if line.strip()]
    for key in conf.sysctl:
        if not any(re.search(pattern, key) for pattern in allowed):
            listed = f"[{' '.join(allowed)}]"
            raise CniError(f"Sysctl {key} is not allowed. Only the following sysctls are allowed: {listed}")


def _get(sandbox: Netns, key: str, ifname: str) -> str:
    path = _path(key, ifname)
    try:
        return sandbox.sysctl(key.replace("IFNAME", ifname, 1))
    except KeyError:
        raise CniError(f"open {path}: no such file or directory") from None


def add(call: Call) -> Result:
    """Write the sysctls, keep the interface's old values in a file, then set the new ones."""
    conf = load(call)
    _allowed(call, conf)
    result = interface.required_result(call)
    sandbox = call.sandbox()
    for key, value in conf.sysctl.items():
        _get(sandbox, key, call.ifname)
        sandbox.set_sysctl(key.replace("IFNAME", call.ifname, 1), value)
    if not conf.link:
        return result
    link = sandbox.links.get(call.ifname)
    if link is None:
        raise CniError(f'failed to get "{call.ifname}": Link not found')
    old: Json = {"mac": link.mac} if conf.mac else {}
    old |= {"promisc": link.promiscuous} if conf.promisc else {}
    old |= {"mtu": link.mtu} if conf.mtu else {}
    old |= {"allmulti": link.allmulti} if conf.allmulti is not None else {}
    old |= {"txQLen": link.txqlen} if conf.txqlen is not None else {}
    call.node.files[_backup(call, conf)] = json.dumps(old, indent=1)
    if conf.mac:
        if not interface.valid_mac(conf.mac):
            raise CniError(f"invalid args {conf.mac} for MAC addr: address {conf.mac}: invalid MAC address")
        _set_mac(call, sandbox, conf.mac)
        result = replace(
            result,
            interfaces=tuple(
                replace(i, mac=conf.mac) if i.name == call.ifname else i for i in result.interfaces
            ),
        )
    if conf.mtu and not interface.SMALLEST_MTU <= conf.mtu <= 65535:
        raise CniError("invalid argument")
    fields: Json = {"promiscuous": True} if conf.promisc else {}
    fields |= {"mtu": conf.mtu} if conf.mtu else {}
    fields |= {"allmulti": conf.allmulti} if conf.allmulti is not None else {}
    fields |= {"txqlen": conf.txqlen} if conf.txqlen is not None else {}
    sandbox.set_link(call.ifname, **fields)
    return result


def _set_mac(call: Call, sandbox: Netns, mac: str) -> None:
    """`ip link set eth0 address MAC`. The notification it sends teaches the bridge the new MAC, too."""
    link = sandbox.set_link(call.ifname, mac=mac)
    if link.peer is None or link.peer.netns not in call.network.netns:
        return
    home = call.network.ns(link.peer.netns)
    port = home.links.get(link.peer.link)
    if port is not None and port.master and link.running:
        from kubenet_lab.kernel.bridge import FdbEntry

        entry = FdbEntry(port.name, mac, master=port.master, updated=call.now)
        home.add_fdb(entry, replace_existing=True)


def _backup(call: Call, conf: Config) -> str:
    return f"{conf.data_dir}/{call.container_id}_{call.ifname}.json"


def delete(call: Call) -> None:
    """Put the old values back; a container or interface that is gone is no error."""
    conf = load(call)
    sandbox = call.find_sandbox()
    text = call.node.files.get(_backup(call, conf))
    if sandbox is None or text is None or call.ifname not in sandbox.links:
        return
    old = json.loads(text)
    if old.get("mac"):
        _set_mac(call, sandbox, old["mac"])
    names = {"mtu": "mtu", "promisc": "promiscuous", "allmulti": "allmulti", "txQLen": "txqlen"}
    sandbox.set_link(call.ifname, **{names[key]: value for key, value in old.items() if key in names})
    del call.node.files[_backup(call, conf)]


def check(call: Call) -> None:
    """Compare each wished value with the present one."""
    conf = load(call)
    interface.required_result(call)
    sandbox = call.sandbox()
    for key, value in conf.sysctl.items():
        now = _get(sandbox, key, call.ifname)
        if now != value:
            raise CniError(
                f"Error: Tuning configured value of {_path(key, call.ifname)} is {value}, current value is {now}"
            )
    link = sandbox.links.get(call.ifname)
    if link is None:
        raise CniError(f"Cannot find container link {call.ifname}")
    name = call.ifname
    if conf.mac and conf.mac != link.mac:
        raise CniError(
            f"Error: Tuning configured Ethernet of {name} is {conf.mac}, current value is {link.mac}"
        )
    if conf.promisc != link.promiscuous:
        said = f"Error: Tuning link {name} configured promisc is {str(conf.promisc).lower()}"
        raise CniError(f"{said}, current value is {int(link.promiscuous)}")
    if conf.mtu and conf.mtu != link.mtu:
        raise CniError(f"Error: Tuning configured MTU of {name} is {conf.mtu}, current value is {link.mtu}")
    if conf.allmulti is not None and conf.allmulti != link.allmulti:
        said = f"Error: Tuning configured all-multicast mode of {name} is {str(conf.allmulti).lower()}"
        raise CniError(f"{said}, current value is {str(link.allmulti).lower()}")
    if conf.txqlen is not None and conf.txqlen != link.txqlen:
        said = f"Error: Tuning configured Transmit Queue Length of {name} is {conf.txqlen}"
        raise CniError(f"{said}, current value is {link.txqlen}")


PLUGIN = Plugin(name="tuning", add=add, delete=delete, check=check)
