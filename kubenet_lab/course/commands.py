"""Commands a learner writes as an answer: which node, then what its administrator would type there.

    on node-1
    ip route add 10.244.1.0/24 via 192.168.1.20
    bridge fdb append 02:11:22:33:44:55 dev flannel.1 dst 192.168.1.20
    iptables -t nat -A KUBE-SVC-X -j KUBE-SEP-Y
    sysctl -w net.ipv4.ip_forward=1
    ip link set flannel.1 mtu 1350

They change the kernel's state through the same readers that understand the tools' own output. All or nothing: an
answer with a mistake in it changes nothing, and every mistake is named.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from kubenet_lab.errors import Fault, InputError, KubenetLabError
from kubenet_lab.kernel.bridge import FdbEntry
from kubenet_lab.kernel.dialects import bridge_fdb, ip_neigh, ip_route, iptables
from kubenet_lab.kernel.dialects.iproute2 import Words, Wrong
from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network

HELP = (
    "write `on NODE`, then lines that begin with `ip route`, `ip neigh`, `ip link`, `bridge fdb`, `bridge link`, "
    "`iptables` or `sysctl`"
)


class Command(Struct, frozen=True):
    """One line: where, what, and its number in the text."""

    netns: str
    text: str
    line: int


def read(text: str, network: Network, default: str = "") -> list[Command]:
    """Split an answer into commands. `default` is the node of lines before any `on NODE`.

    Empty lines and lines that begin with `#` say nothing. Raises InputError for a node that does not exist.
    """
    out: list[Command] = []
    faults: list[Fault] = []
    here = default
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip().removeprefix("$ ").removeprefix("sudo ").strip()
        if not line or line.startswith("#"):
            continue
        words = line.rstrip(":").split()
        if len(words) == 2 and words[0] == "on":
            here = words[1].removeprefix("node/")
            if here not in network.netns:
                known = ", ".join(name for name in network.netns if "/" not in name)
                faults.append(
                    Fault(f"there is no node {here!r}", "your answer", number, help=f"there are: {known}")
                )
                here = default
        elif not here and not faults:
            faults.append(
                Fault("on which node?", "your answer", number, help="write a line `on node-1` above it")
            )
        else:
            out.append(Command(here, line, number))
    if faults:
        raise InputError(faults)
    return out


def apply(network: Network, text: str, default: str = "") -> list[Command]:
    """Run an answer's commands. Raises InputError with every line that cannot be run; then nothing has changed."""
    commands = read(text, network, default)
    faults: list[Fault] = []

    def note(command: Command, message: str, help: str = "") -> None:
        faults.append(Fault(f"{command.text}: {message}", "your answer", command.line, help=help))

    with network.transaction():
        for command in commands:
            try:
                _run(network.ns(command.netns), command.text)
            except Wrong as fault:
                note(command, fault.message, fault.help)
            except InputError as fault:
                for one in fault.faults:
                    note(command, one.message, one.help)
            except KubenetLabError as fault:
                note(command, str(fault), str(getattr(fault, "help", "")))
        if faults:
            raise InputError(faults)
    return commands


def _run(ns: Netns, text: str) -> None:
    words = Words(text)
    tool = words.take("a command")
    if tool in ("iptables", "ip6tables"):
        fam = 6 if tool == "ip6tables" else 4
        ns.set_iptables(fam, iptables.apply(ns.iptables[fam], text, strict=True))
        return
    if tool == "sysctl":
        _sysctl(ns, words)
        return
    if tool == "ip":
        while words.peek() in ("-4", "-6", "-n"):
            words.take("an option")
    what = words.take("an object")
    if tool == "ip" and what in ("route", "r", "ro"):
        _route(ns, words)
    elif tool == "ip" and what in ("neigh", "neighbour", "neighbor", "n"):
        _neighbour(ns, words)
    elif tool == "ip" and what in ("link", "l"):
        _link(ns, words)
    elif tool == "bridge" and what == "fdb":
        _fdb(ns, words)
    elif tool == "bridge" and what == "link":
        _port(ns, words)
    else:
        raise Wrong("this is not understood here", help=HELP)


_PORT_FLAGS = {"hairpin": "hairpin", "isolated": "isolated", "learning": "learning"}


def _port(ns: Netns, words: Words) -> None:
    """`bridge link set dev DEV [hairpin|isolated|learning on|off]...`."""
    if words.take("set") != "set":
        raise Wrong(
            "only `bridge link set` changes something here", help="write bridge link set dev DEV hairpin on"
        )
    dev = words.take("a device")
    dev = words.take("a device") if dev == "dev" else dev
    port = ns.link(dev).port
    if port is None or not ns.link(dev).master:
        raise Wrong(f"{dev} is no port of a bridge")
    changes: dict[str, bool] = {}
    while words.peek():
        word = words.take("hairpin, isolated or learning")
        value = words.take("on or off")
        if word not in _PORT_FLAGS or value not in ("on", "off"):
            raise Wrong(f"`{word} {value}` is not understood here", help="write hairpin on, or hairpin off")
        changes[_PORT_FLAGS[word]] = value == "on"
    if not changes:
        raise Wrong("this sets nothing", help="write bridge link set dev DEV hairpin on")
    ns.set_link(dev, port=replace(port, **changes))


def _link(ns: Netns, words: Words) -> None:
    """`ip link set DEV [up|down] [mtu N]`."""
    if words.take("set") != "set":
        raise Wrong("only `ip link set` changes something here", help="write ip link set DEV mtu N")
    dev = words.take("a device")
    dev = words.take("a device") if dev == "dev" else dev
    changes: dict[str, Any] = {}
    while words.peek():
        word = words.take("what to set")
        if word in ("up", "down"):
            changes["up"] = word == "up"
        elif word == "mtu":
            value = words.take("a number of bytes")
            if not value.isdigit():
                raise Wrong(f"{value!r} is no number of bytes", help="write mtu 1450")
            changes["mtu"] = int(value)
        else:
            raise Wrong(f"{word!r} is not understood here", help="write up, down or mtu N")
    if not changes:
        raise Wrong("this sets nothing", help="write ip link set DEV mtu N")
    ns.set_link(dev, **changes)


def _sysctl(ns: Netns, words: Words) -> None:
    """`sysctl -w KEY=VALUE...`."""
    given = []
    while words.peek():
        word = words.take("KEY=VALUE")
        if word not in ("-w", "--write", "-q"):
            given.append(word.partition("="))
    if not given or not all(equals and value for _, equals, value in given):
        raise Wrong("this sets nothing", help="write sysctl -w KEY=VALUE")
    for key, _, value in given:
        try:
            ns.set_sysctl(key.replace("/", "."), value)
        except KeyError:
            raise Wrong(f"cannot stat /proc/sys/{key.replace('.', '/')}: No such file or directory") from None


def _route(ns: Netns, words: Words) -> None:
    verb = words.take("add, replace or del")
    if verb not in ("add", "append", "replace", "change", "del", "delete"):
        raise Wrong(f"`ip route {verb}` changes nothing", help="use `ip route add`, `replace` or `del`")
    fields = ip_route.from_words(words)
    if not fields.pop("_scope"):
        fields.pop("scope", None)
    dst = fields.pop("dst")
    if verb in ("del", "delete"):
        wanted = {k: fields[k] for k in ("table", "metric", "dev", "via") if k in fields}
        ns.delete_route(dst, **wanted)
    else:
        ns.add_route(dst, replace_existing=verb in ("replace", "change"), **fields)


def _neighbour(ns: Netns, words: Words) -> None:
    verb = words.take("add, replace or del")
    entry = ip_neigh.from_words(words)
    if verb in ("del", "delete"):
        ns.delete_neighbour(entry.dev, entry.address)
    elif verb in ("add", "replace", "change"):
        ns.set_neighbour(entry.dev, entry.address, entry.mac, entry.state)
    else:
        raise Wrong(f"`ip neigh {verb}` changes nothing", help="use `ip neigh add`, `replace` or `del`")


def _fdb(ns: Netns, words: Words) -> None:
    verb = words.take("add, append, replace or del")
    entry = bridge_fdb.from_words(words)
    if verb in ("del", "delete"):
        ns.delete_fdb(entry.dev, entry.mac, entry.dst)
    elif verb in ("add", "append", "replace"):
        made = entry if entry.state else bridge_fdb.from_words(Words(f"{entry.mac} {_rest(entry)} permanent"))
        ns.add_fdb(made, append=verb == "append", replace_existing=verb == "replace")
    else:
        raise Wrong(
            f"`bridge fdb {verb}` changes nothing", help="use `bridge fdb add`, `append`, `replace` or `del`"
        )


def _rest(entry: FdbEntry) -> str:
    """The words of an entry after its MAC. `bridge fdb add` makes a permanent entry unless told otherwise."""
    parts: Iterator[str] = (
        f"{name} {value}" for name in ("dev", "dst", "master") if (value := getattr(entry, name))
    )
    return " ".join(parts)
