"""Real BIRDs in the twin, one a node, with our configuration: they take it, and their kernels get the same routes."""

from __future__ import annotations

import re
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubenet_lab.bgp import birdconf
from kubenet_lab.bgp.config import Config, Peer, Pool
from kubenet_lab.bgp.control import answer
from kubenet_lab.bgp.daemon import Bird
from kubenet_lab.bgp.fabric import Fabric
from kubenet_lab.kernel.dialects import ip_route
from kubenet_lab.kernel.network import Network
from kubenet_lab.twin import Twin
from tests.kubenet_lab.bgp import worlds

PATIENCE = 12.0
"""Seconds; sessions are there after 2."""
FAST = {"version": 2, "connect_delay": 1.0, "connect_retry": 1.0, "scan_time": 1.0, "hold_time": 9}


def _mesh(nodes: dict[int, str]) -> dict[str, Config]:
    return {
        f"node-{n}": Config(
            a,
            blocks=worlds.BLOCKS[n],
            pools=(worlds.POOL,),
            peers=worlds.peers(nodes, n, passive=True),
            **FAST,
        )
        for n, a in nodes.items()
    }


def _reflector(nodes: dict[int, str]) -> dict[str, Config]:
    return {
        f"node-{n}": Config(
            a, blocks=worlds.BLOCKS[n], pools=(worlds.POOL,), peers=worlds.reflected(nodes, n), **FAST
        )
        for n, a in nodes.items()
    }


def _external(nodes: dict[int, str]) -> dict[str, Config]:
    """Every node is its own AS and speaks with the router of the rack, AS 65000, which has a route of its own."""
    made = {
        f"node-{n}": Config(
            a,
            asn=65000 + n,
            blocks=worlds.BLOCKS[n],
            pools=(worlds.POOL,),
            peers=(Peer("Node_192_168_1_1", "192.168.1.1", 65000),),
            **FAST,
        )
        for n, a in nodes.items()
    }
    made["router"] = Config(
        "192.168.1.1",
        asn=65000,
        blocks=("10.99.0.0/24",),
        pools=(worlds.POOL, Pool("10.99.0.0/24")),
        peers=tuple(Peer(f"N{n}", a, 65000 + n, "192.168.1.1") for n, a in nodes.items()),
        **FAST,
    )
    return made


def _served(nodes: dict[int, str]) -> dict[str, Config]:
    """A mesh that announces Services: a range from every node, one address of it from node-2; a router beyond."""
    made = {
        f"node-{n}": Config(
            a,
            blocks=worlds.BLOCKS[n],
            pools=(worlds.POOL,),
            static=("10.96.0.0/16", *(("10.96.7.7/32",) if n == 2 else ())),
            rejects=("10.96.0.0/16",),
            peers=(
                *worlds.peers(nodes, n, passive=True),
                Peer("Global_192_168_1_1", "192.168.1.1", 65000, next_hop_keep=n > 1),
            ),
            **FAST,
        )
        for n, a in nodes.items()
    }
    made["router"] = Config(
        "192.168.1.1",
        asn=65000,
        filters="static",
        blocks=("10.99.0.0/24",),
        peers=tuple(Peer(f"N{n}", a, 64512, "192.168.1.1") for n, a in nodes.items()),
        **FAST,
    )
    return made


def _dual(nodes: dict[int, str]) -> dict[str, Config]:
    """A mesh over both families, with Calico's filters: IPv6 blocks by IPv6 sessions."""
    return {
        f"node-{n}": Config(
            a,
            blocks=(*worlds.BLOCKS[n], worlds.BLOCKS6[n]),
            pools=(worlds.POOL, Pool("fd00:10:244::/48")),
            peers=worlds.peers(nodes, n, passive=True, six=True),
            **FAST,
        )
        for n, a in nodes.items()
    }


WORLDS = {"mesh": _mesh, "reflector": _reflector, "external": _external, "served": _served, "dual": _dual}


def _world(*, six: bool = False) -> Network:
    network = worlds.network(worlds.addresses(), six=six)
    # An address that node-2 borrowed from node-1's block, and a pod in live migration.
    network.ns("node-2").add_route("10.244.10.33", dev="cali21", metric=1024)
    network.ns("node-2").add_route("10.244.20.8", dev="cali21", metric=512)
    return network


@pytest.fixture(params=list(WORLDS))
def real(
    request: pytest.FixtureRequest, kernel: None, tmp_path: Path
) -> Iterator[tuple[Twin, dict[str, Config]]]:
    if shutil.which("bird") is None:
        pytest.skip("no bird on this machine")
    configs = WORLDS[request.param](worlds.addresses())
    with Twin(_world(six=request.param == "dual")) as twin:
        for name, config in configs.items():
            (tmp_path / f"{name}.conf").write_text(birdconf.bird2(config))
            where = tmp_path / name
            done = twin.run(name, f"bird -c {where}.conf -s {where}.ctl -P {where}.pid")
            assert (done.exit_code, done.stderr) == (0, ""), f"{name}: BIRD refused\n{birdconf.bird2(config)}"
        yield twin, configs
        for name in configs:
            twin.run(name, f"birdc -s {tmp_path / name}.ctl down")


def _bird_routes(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if "proto bird" in line]


def test_kernel_routes_and_texts_are_the_models(real: tuple[Twin, dict[str, Config]], tmp_path: Path) -> None:
    twin, configs = real
    six = any(":" in block for config in configs.values() for block in config.blocks)
    fabric = Fabric(_world(six=six))
    for name, config in configs.items():
        Bird(fabric, name, config).start()
    fabric.run(10.0)
    shown = {
        name: [ip_route.show(fabric.network.ns(name), family=fam) for fam in (4, 6)[: 1 + six]]
        for name in configs
    }
    wanted = {name: _bird_routes("\n".join(texts)) for name, texts in shown.items()}
    assert all(len(routes) > 3 + 3 * six for routes in wanted.values())
    end = time.monotonic() + PATIENCE
    while True:
        asked = "ip route; ip -6 route" if six else "ip route"
        found = {name: _bird_routes(twin.run(name, asked).stdout) for name in configs}
        if found == wanted or time.monotonic() > end:
            break
        time.sleep(0.2)
    for name in configs:
        assert found[name] == wanted[name], name
    first, *_, last = configs
    for name in (first, last):
        for command in COMMANDS:
            done = twin.run(name, f"birdc -s {tmp_path / name}.ctl {command}")
            ours = answer(fabric.daemons[name], shlex.split(command))
            assert (_told(ours.text), ours.code) == (_told(done.stdout), done.exit_code), f"{name}: {command}"


COMMANDS = (
    "show protocols",
    "show protocols all",
    "sh pr all direct1",
    "show protocols Mesh",
    "show protocols '\"N*\"'",
    "show route",
    "show route all",
    "show route primary",
    "show route count",
    "show route count primary",
    "show route 10.244.20.0/26",
    "show route 10.244.20.0/27",
    "show route for 10.244.20.9",
    "show route for 10.244.10.33 all",
    "show route protocol s4",
    "show route protocol nobody",
    "show route export k4",
    "show route table master4 count",
    "show route table nix",
    "show route 10.1.0.0/99",
    "shaw",
)


def _told(text: str) -> list[str]:
    """What birdc printed: without times, timers and counters of changes; routes stand in the order of a hash table."""
    text = re.sub(r"\d\d:\d\d:\d\d(\.\d+)?", "<time>", text)
    text = re.sub(r"(timer: +|delay: +|wait: +)[\d.]+/", r"\1<t>/", text)
    text = re.sub(r"^ +(Route change stats|(Import|Export) (updates|withdraws)):.*\n", "", text, flags=re.M)
    entries: list[str] = []
    for line in text.splitlines():
        if line.startswith("\t") and entries:
            entries[-1] += "\n" + line.rstrip()
        elif line.strip():
            entries.append(line.rstrip())
    return sorted(entries)
