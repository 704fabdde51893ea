"""Namespaces whose last edits are put off until somebody looks: most pods of a big cluster no packet ever meets.

A node's runtime knows what a pod's address is before the pod has a veth. `put_off` leaves the rest to the first look at
that node or at any of its pods: the node's namespace then holds nothing but its name and a list of work, and whoever
reads or writes anything else of it finds the work done, in order. What comes out is what would have been made at once,
since nobody can have changed anything in between without looking.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kubenet_lab.kernel.address import Address
from kubenet_lab.kernel.netns import Netns

Work = Callable[[], object]

_OWN = frozenset({"name", "host", "network", "generation", "_put_off"})
"""What a waiting namespace has; everything else it has to be made for."""


class PutOff:
    """What a host's namespaces wait for.

    Attributes:
        state: The host's own namespace as it was when waiting began.
        work: What is to be done, in order.
        last: What the last work is about, if a newer one about the same stands for it too.
        pods: The namespaces that the work makes, by name.
        addresses: What each of those will have, beside link-local and loopback ones.
        shared: A snapshot holds the state too, so that it must be copied before it is changed.
        files_shared: The same of the files, which are written while the rest waits.
    """

    __slots__ = ("addresses", "files_shared", "last", "pods", "shared", "state", "work")

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self.work: list[Work] = []
        self.last: object = None
        self.pods: dict[str, Waiting] = {}
        self.addresses: dict[str, tuple[str, ...]] = {}
        self.shared = self.files_shared = False

    def own_files(self) -> dict[str, str]:
        """Return the host's files, to be written."""
        if self.files_shared:
            self.state = {**self.state, "files": dict(self.state["files"])}
            self.files_shared = False
        files: dict[str, str] = self.state["files"]
        return files


class Waiting(Netns):
    """A namespace that is made when somebody looks. It is a plain `Netns` from then on."""

    _put_off: PutOff

    def __repr__(self) -> str:
        return f"<Netns {self.name} on {self.host}, nobody has looked at it yet>"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self._make()
        return getattr(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._make()
        setattr(self, name, value)

    def _make(self) -> None:
        assert self.network is not None
        host = self.network.netns[self.host]
        put_off: PutOff = vars(host)["_put_off"]
        _real(host, put_off)
        for name, pod in put_off.pods.items():
            if self.network.netns.get(name) is not pod:
                continue  # it was deleted, and there may be another of its name
            _born(pod)
        for work in put_off.work:
            work()
        host.served = (host.generation, host.served[1])

    def snapshot(self) -> dict[str, Any]:
        """Return what `restore` needs; nothing is made for it."""
        put_off: PutOff | None = vars(self).get("_put_off")
        if put_off is None:
            return {"waits": None}
        put_off.shared = put_off.files_shared = True
        return {"waits": (put_off.state, tuple(put_off.work), dict(put_off.addresses))}

    def restore(self, saved: dict[str, Any]) -> None:
        """Bring back a state taken by `snapshot`, without making what was waiting."""
        restore(self, saved)


def _turn(space: Netns, kind: type[Netns]) -> None:
    object.__setattr__(space, "__class__", kind)


def _real(host: Netns, put_off: PutOff) -> None:
    """Let the host's own namespace be as it was when waiting began."""
    fields = vars(host)
    del fields["_put_off"]
    state = dict(put_off.state)
    generation = fields["generation"]
    _turn(host, Netns)
    fields.update(state)
    if put_off.shared:
        host.restore(host.snapshot())
    host.generation = max(generation, host.generation)


def _born(pod: Netns) -> None:
    """Let a pod's namespace be one that was just made."""
    network = pod.network
    _turn(pod, Netns)
    pod.__init__(pod.name, pod.host)  # type: ignore[misc]
    pod.network = network


def waits(space: Netns) -> bool:
    """Whether a namespace waits for somebody to look."""
    return isinstance(space, Waiting)


def peek(space: Netns, field: str) -> Any:
    """Return a host's field as it was when waiting began, without making what waits.

    For what the work put off does not touch: files of /etc and of IPAM, addresses of physical links.
    """
    put_off: PutOff | None = vars(space).get("_put_off")
    return getattr(space, field) if put_off is None else put_off.state[field]


def files_now(space: Netns) -> dict[str, str]:
    """Return a host's files, to be read and written without making what waits."""
    put_off: PutOff | None = vars(space).get("_put_off")
    return space.files if put_off is None else put_off.own_files()


def host_addresses(host: Netns) -> list[Address]:
    """Return a host's addresses in the order of its links, without making what waits.

    What is put off on a host is for its pods: it adds no address but link-local ones.
    """
    assigned = peek(host, "addresses")
    return [address for dev in peek(host, "links") for address in assigned.get(dev, ())]


def addresses_of(space: Netns) -> list[str]:
    """Return a namespace's addresses without making what waits; of what does, link-local ones may be missing."""
    fields = vars(space)
    if isinstance(space, Waiting) and "_put_off" not in fields:
        assert space.network is not None
        waiting: PutOff = vars(space.network.netns[space.host])["_put_off"]
        return list(waiting.addresses.get(space.name, ()))
    return [a.local for assigned in peek(space, "addresses").values() for a in assigned]


def put_off(
    host: Netns, work: Work, pod: str = "", about: object = None, addresses: tuple[str, ...] = ()
) -> None:
    """Leave work on a host to the first look at it; `pod` names the namespace it makes, which is there from now on.

    `addresses` are what that will have.

    The work may not fail, and may not change namespaces of other hosts. Work `about` something takes the place of the
    work before it where that is about the same.
    """
    fields = vars(host)
    waiting: PutOff | None = fields.get("_put_off")
    if waiting is None:
        state = {name: value for name, value in fields.items() if name not in _OWN}
        for name in state:
            del fields[name]
        waiting = fields["_put_off"] = PutOff(state)
        _turn(host, Waiting)
    if about is not None and waiting.last == about:
        waiting.work.pop()
    waiting.last = about
    waiting.work.append(work)
    if pod:
        assert host.network is not None
        waiting.pods[pod] = _shell(host, pod)
        waiting.addresses[pod] = addresses


def _shell(host: Netns, name: str) -> Waiting:
    made: Waiting = object.__new__(Waiting)
    vars(made).update(name=name, host=host.name, network=host.network, generation=0)
    assert host.network is not None
    host.network.netns[name] = made
    host.network.population += 1
    return made


def later(host: Netns, work: Work, about: object = None) -> None:
    """Do work on a host now, or when somebody looks if it waits for that (`put_off`)."""
    if waits(host):
        put_off(host, work, about=about)
    else:
        work()


def restore(space: Netns, saved: dict[str, Any]) -> None:
    """Bring a namespace back to a state that was saved while it waited, or while it did not."""
    fields = vars(space)
    if "waits" in saved:
        kept = {name: fields[name] for name in ("name", "host", "network")}
        generation = fields["generation"]
        fields.clear()
        fields.update(kept, generation=generation + 1)
        _turn(space, Waiting)
        if saved["waits"] is None:
            # A pod's: its host came before it, and its work is in the host's list.
            vars(space.network.netns[space.host])["_put_off"].pods[space.name] = space  # type: ignore[union-attr]
            return
        state, work, addresses = saved["waits"]
        again = fields["_put_off"] = PutOff(state)
        again.work, again.addresses = list(work), dict(addresses)
        again.shared = again.files_shared = True
        return
    if isinstance(space, Waiting):
        put_off: PutOff | None = fields.pop("_put_off", None)
        _turn(space, Netns)
        if put_off is not None:
            fields.update(put_off.state)
        else:
            network = space.network
            space.__init__(space.name, space.host)  # type: ignore[misc]
            space.network = network
        space.generation = fields["generation"] + 1
    Netns.restore(space, saved)
