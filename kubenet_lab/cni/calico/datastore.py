"""Where Calico keeps its own objects: blocks, affinities and handles, as custom resources in the API server.

The CNI plugin on a node reads and writes them over the network; here they are documents under /registry on the machine
whose kube-apiserver listens, so that a world that is set back sets them back too.
"""

from __future__ import annotations

import json
from typing import Any

from kubenet_lab.kernel.netns import Netns
from kubenet_lab.kernel.network import Network
from kubenet_lab.packet.packet import TCP

Json = dict[str, Any]
API_PORT = 6443
ROOT = "/registry/crd.projectcalico.org"


class NoApiServer(LookupError):
    """No machine has a kube-apiserver."""


class Datastore:
    """Documents by kind and name. Kinds are plurals: "ippools", "ipamblocks", "blockaffinities", "ipamhandles"."""

    def __init__(self, network: Network) -> None:
        self.network = network

    @property
    def home(self) -> Netns:
        """The API server's machine. Raises NoApiServer."""
        for ns in self.network.netns.values():
            if any(socket.process == "kube-apiserver" for socket in ns.sockets.get((TCP, API_PORT), ())):
                return ns
        raise NoApiServer("no machine has a kube-apiserver")

    def get(self, kind: str, name: str) -> Json | None:
        """Return a document, or None."""
        text = self.home.files.get(f"{ROOT}/{kind}/{name}")
        return None if text is None else json.loads(text)

    def put(self, kind: str, name: str, document: Json) -> None:
        """Write a document."""
        self.home.files[f"{ROOT}/{kind}/{name}"] = json.dumps(document, sort_keys=True, separators=(",", ":"))

    def delete(self, kind: str, name: str) -> None:
        """Remove a document; one that is not there is no error."""
        self.home.files.pop(f"{ROOT}/{kind}/{name}", None)

    def has(self, kind: str, name: str) -> bool:
        """Say whether there is such a document."""
        return f"{ROOT}/{kind}/{name}" in self.home.files

    def list(self, kind: str, start: str = "") -> dict[str, Json]:
        """Return all documents of a kind whose names begin with `start`, by name."""
        head = f"{ROOT}/{kind}/"
        return {
            path[len(head) :]: json.loads(text)
            for path, text in sorted(self.home.files.items())
            if path.startswith(head + start)
        }
