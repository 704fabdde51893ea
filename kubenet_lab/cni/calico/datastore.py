"""Where Calico keeps its own objects: blocks, affinities and handles, as custom resources in the API server.

The CNI plugin on a node reads and writes them over the network; here they are documents under /registry on the machine
whose kube-apiserver listens, so that a world that is set back sets them back too.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.kernel.put_off import files_now, peek
from kubenet_lab.packet.packet import TCP

Json = dict[str, Any]
API_PORT = 6443
ROOT = "/registry/crd.projectcalico.org"


class NoApiServer(LookupError):
    """No machine has a kube-apiserver."""


_HOMES: WeakKeyDictionary[Network, str] = WeakKeyDictionary()
"""Where a network's API server was found last."""


def _has_server(ns: Netns) -> bool:
    there = peek(ns, "sockets").get((TCP, API_PORT), ())
    return any(socket.process == "kube-apiserver" for socket in there)


@lru_cache(maxsize=8192)
def _decoded(text: str) -> Json:
    found: Json = msgspec.json.decode(text)
    return found


class Datastore:
    """Documents by kind and name. Kinds are plurals: "ippools", "ipamblocks", "blockaffinities", "ipamhandles"."""

    def __init__(self, network: Network) -> None:
        self.network = network

    @property
    def home(self) -> Netns:
        """The API server's machine. Raises NoApiServer."""
        netns = self.network.netns
        last = netns.get(_HOMES.get(self.network, ""))
        if last is not None and _has_server(last):
            return last
        for ns in netns.values():
            # No pod's namespace has one, and none is made to see that.
            if ns.name == ns.host and _has_server(ns):
                _HOMES[self.network] = ns.name
                return ns
        raise NoApiServer("no machine has a kube-apiserver")

    @property
    def files(self) -> dict[str, str]:
        """The API server's files: no pod's network is made to read them. Raises NoApiServer."""
        return files_now(self.home)

    def get(self, kind: str, name: str) -> Json | None:
        """Return a document, or None."""
        text = self.files.get(f"{ROOT}/{kind}/{name}")
        return None if text is None else msgspec.json.decode(text)

    def read(self, kind: str, name: str) -> Json | None:
        """Return a document that is not to be changed, or None."""
        text = self.files.get(f"{ROOT}/{kind}/{name}")
        return None if text is None else _decoded(text)

    def put(self, kind: str, name: str, document: Json) -> None:
        """Write a document."""
        self.files[f"{ROOT}/{kind}/{name}"] = msgspec.json.encode(document, order="sorted").decode()

    def delete(self, kind: str, name: str) -> None:
        """Remove a document; one that is not there is no error."""
        self.files.pop(f"{ROOT}/{kind}/{name}", None)

    def has(self, kind: str, name: str) -> bool:
        """Say whether there is such a document."""
        return f"{ROOT}/{kind}/{name}" in self.files

    def list(self, kind: str, start: str = "") -> dict[str, Json]:
        """Return all documents of a kind whose names begin with `start`, by name."""
        head = f"{ROOT}/{kind}/"
        return {
            path[len(head) :]: msgspec.json.decode(text)
            for path, text in sorted(self.files.items())
            if path.startswith(head + start)
        }
