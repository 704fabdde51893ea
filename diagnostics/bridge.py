"""`bridge fdb`, `bridge link` and `bridge vlan`: forwarding entries, ports and their VLANs (iproute2 6.1)."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from diagnostics.tool import Call, NotModelled, Result, Tool, Usage
from kubenet_lab.kernel.dialects import bridge_fdb, bridge_vlan
from kubenet_lab.kernel.dialects.iproute2 import Words, Wrong
from kubenet_lab.kernel.errors import KernelError
from kubenet_lab.kernel.link import BridgeOptions, BridgePort, PortVlan


def run(call: Call) -> Result:
    """`bridge [-j] [-d] fdb|link|vlan COMMAND`."""
    words = list(call.argv)
    json = pretty = details = False
    while words and words[0].startswith("-"):
        option = "-" + words.pop(0).lstrip("-")
        if option in ("-j", "-json"):
            json = True
        elif option in ("-p", "-pretty"):
            pretty = True
        elif option in ("-d", "-details"):
            details = True
        elif option in ("-c", "-color", "-compressvlans"):
            continue
        elif option in ("-V", "-Version"):
            return Result("bridge utility, 6.1.0\n")
        elif option in (
            "-s",
            "-stats",
            "-statistics",
            "-n",
            "-netns",
            "-b",
            "-batch",
            "-t",
            "-ts",
            "-o",
            "-oneline",
            "-f",
            "-family",
        ):
            raise NotModelled(f"option {option}")
        else:
            raise Usage(f'Option "{option}" is unknown, try "bridge help".\n', 255)
    if not words:
        raise NotModelled("the usage text; see bridge(8)")
    given = words.pop(0)
    for name in ("link", "fdb", "mdb", "vlan", "vni", "monitor", "help"):
        if name.startswith(given):
            if name == "fdb":
                return _fdb(call, words, json=json, pretty=pretty)
            if name == "link":
                return _link(call, words, json=json, pretty=pretty, details=details)
            if name == "vlan":
                return _vlan(call, words, json=json, pretty=pretty)
            raise NotModelled(f"bridge {name}")
    raise Usage(f'Object "{given}" is unknown, try "bridge help".\n', 255)


def _device(call: Call, name: str) -> str:
    if name not in call.ns.links:
        raise Usage(f'Cannot find device "{name}"\n', 255)
    return name


def _take(words: list[str]) -> str:
    if not words:
        raise Usage('Command line is not complete. Try option "help"\n', 255)
    return words.pop(0)


def _command(words: list[str], known: tuple[str, ...], what: str) -> str:
    given = words.pop(0) if words else "show"
    for name in known:
        if name.startswith(given):
            return name
    raise Usage(f'Command "{given}" is unknown, try "bridge {what} help".\n', 255)


def _fdb(call: Call, words: list[str], *, json: bool, pretty: bool) -> Result:
    verb = _command(
        words, ("add", "append", "replace", "delete", "get", "show", "lst", "list", "flush", "help"), "fdb"
    )
    if verb in ("show", "lst", "list"):
        return _show(call, words, json=json, pretty=pretty)
    if verb not in ("add", "append", "replace", "delete"):
        raise NotModelled(f"bridge fdb {verb}")
    try:
        entry = bridge_fdb.from_words(Words(" ".join(words)))
    except Wrong as wrong:
        if wrong.path == "dev":
            raise Usage("Device and address are required arguments.\n", 255) from None
        if wrong.message.startswith("not modelled: "):
            raise NotModelled(wrong.message.removeprefix("not modelled: ")) from None
        raise Usage(f"{wrong.message}\n", 255) from None
    link = call.ns.links[_device(call, entry.dev)]
    if entry.vlan:
        raise NotModelled("bridge fdb vlan")
    states = {"static", "permanent", "local", "dynamic", "temp"}
    if "master" in words:
        if not link.master:
            raise Usage("RTNETLINK answers: Operation not supported\n", 255)
        entry = replace(entry, master=link.master)
    elif link.vxlan is None:
        raise NotModelled(f"bridge fdb {verb} self on a {link.kind} link")
    elif not entry.dst and verb != "delete":
        raise Usage("RTNETLINK answers: Invalid argument\n", 255)
    if verb != "delete" and not states & set(words):
        entry = replace(entry, state="permanent")
    if not entry.state:
        entry = replace(entry, updated=call.now)
    try:
        if verb == "delete":
            call.ns.delete_fdb(entry.dev, entry.mac, entry.dst)
        else:
            call.ns.add_fdb(entry, append=verb == "append", replace_existing=verb == "replace")
    except KernelError as error:
        raise Usage(str(error).partition(": " + error.what)[0] + "\n", 255) from None
    return Result()


def _show(call: Call, words: list[str], *, json: bool, pretty: bool) -> Result:
    dev = bridge = ""
    while words:
        word = words.pop(0)
        if word in ("br", "brport", "dev"):
            name = _device(call, _take(words))
            if word == "br":
                bridge = name
            else:
                dev = name
        elif word in ("vlan", "state", "dynamic", "master"):
            raise NotModelled(f"selector {word}")
        else:
            dev = _device(call, word)
    found = [e for e in bridge_fdb.entries(call.ns) if dev in ("", e.dev)]
    rows = [{name: getattr(e, name) for name in e.__struct_fields__} for e in found]
    return Result(bridge_fdb.show(call.ns, dev=dev, bridge=bridge, json=json, pretty=pretty), rows=rows)


def _link(call: Call, words: list[str], *, json: bool, pretty: bool, details: bool) -> Result:
    verb = _command(words, ("set", "show", "lst", "list", "help"), "link")
    if verb in ("show", "lst", "list"):
        dev = ""
        while words:
            word = words.pop(0)
            dev = _device(call, _take(words) if word == "dev" else word)
        return Result(bridge_fdb.show_ports(call.ns, dev=dev, json=json, details=details, pretty=pretty))
    if verb == "help":
        raise NotModelled("bridge link help")
    dev = ""
    options: dict[str, Any] = {}
    while words:
        word = words.pop(0)
        if word == "dev":
            dev = _device(call, _take(words))
        elif word in ("hairpin", "learning", "flood", "isolated"):
            value = _take(words)
            if value not in ("on", "off"):
                raise Usage(f'Error: argument of "{word}" must be one of "on", "off", not "{value}"\n', 255)
            options[word] = value == "on"
        elif word in ("self", "master"):
            continue
        else:
            raise NotModelled(f"bridge link set {word}")
    if not dev:
        raise Usage("Device is a required argument.\n", 255)
    link = call.ns.links[dev]
    if not link.master:
        raise Usage("RTNETLINK answers: Operation not supported\n", 255)
    call.ns.set_link(dev, port=replace(link.port or BridgePort(), **options))
    return Result()


def _vlan(call: Call, words: list[str], *, json: bool, pretty: bool) -> Result:
    verb = _command(words, ("add", "delete", "show", "lst", "list", "set", "global", "help"), "vlan")
    if verb in ("show", "lst", "list"):
        dev = ""
        while words:
            word = words.pop(0)
            if word in ("vid", "state"):
                raise NotModelled(f"selector {word}")
            dev = _device(call, _take(words) if word == "dev" else word)
        return Result(bridge_vlan.show(call.ns, dev=dev, json=json, pretty=pretty))
    if verb not in ("add", "delete"):
        raise NotModelled(f"bridge vlan {verb}")
    dev, vid, flags = "", 0, set[str]()
    while words:
        word = words.pop(0)
        if word == "dev":
            dev = _device(call, _take(words))
        elif word == "vid":
            text = _take(words)
            if not text.isdigit():
                raise NotModelled("a range of VLANs")
            vid = int(text)
        elif word in ("pvid", "untagged", "self", "master"):
            flags.add(word)
        else:
            raise NotModelled(f"bridge vlan {word}")
    if not dev or not vid:
        raise Usage("Device and VLAN ID are required arguments.\n", 255)
    if vid >= 4096:
        raise Usage(f'Invalid VLAN ID "{vid}"\n', 255)
    link = call.ns.links[dev]
    own = "self" in flags and link.kind == "bridge"
    if not own and not link.master:
        raise Usage("RTNETLINK answers: Operation not supported\n", 255)
    wished = PortVlan(vid, "pvid" in flags, "untagged" in flags) if verb == "add" else None
    changed = bridge_vlan.change(bridge_vlan.vlans_of(link), wished, vid)
    if own:
        call.ns.set_link(dev, bridge=replace(link.bridge or BridgeOptions(), vlans=changed))
    else:
        call.ns.set_link(dev, port=replace(link.port or BridgePort(), vlans=changed))
    return Result()


TOOL = Tool("bridge", "forwarding database and ports of bridges and VXLAN devices", run)
