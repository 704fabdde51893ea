"""The error tree.

KubenetLabError
├── InputError            text or a document that cannot be used; lists every fault it has
├── NotFound              no such object
├── NotRunning            the pod is there and has no network, because it does not run
├── AlreadyExists         an object of that name is there
├── Conflict              the object changed since it was read (HTTP 409)
├── Invalid               the object was understood and refused (HTTP 422)
├── BadRequest            the request itself makes no sense (HTTP 400)
└── DidNotSettle          control loops kept changing the store

A packet that is dropped is a result (`kubenet_lab.trace`), never one of these.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from msgspec import Struct


class Fault(Struct, frozen=True):
    """One thing wrong with an input, and where it is.

    Attributes:
        message: What is wrong, in the words of the component that would refuse it.
        file: The file's name as the caller gave it; `<stdin>` or `<text>` where there is none.
        line, column: From 1; 0 where the place is not known.
        document: Number of the YAML document in its file, from 1; 0 where the input has no documents.
        path: Field path in API server syntax (`spec.ports[0].port`), or the rule's text.
        help: One line that says what to write instead.
        kind, name: The object the document describes, where that much could be read.
        reason: The API server's cause reason (`FieldValueInvalid`, ...) or `BadRequest`.
    """

    message: str
    file: str = "<text>"
    line: int = 0
    column: int = 0
    document: int = 0
    path: str = ""
    help: str = ""
    kind: str = ""
    name: str = ""
    reason: str = "BadRequest"

    def __str__(self) -> str:
        place = self.file
        if self.line:
            place += f":{self.line}:{self.column}" if self.column else f":{self.line}"
        what = (
            f'{self.kind} "{self.name}": '
            if self.kind and self.name
            else f"{self.kind}: "
            if self.kind
            else ""
        )
        where = f"{self.path}: " if self.path and self.path not in self.message else ""
        document = f" (document {self.document})" if self.document > 1 else ""
        text = f"{place}: {what}{where}{self.message}{document}"
        return f"{text}\n    help: {self.help}" if self.help else text


class KubenetLabError(Exception):
    """Everything this package raises on purpose."""


class InputError(KubenetLabError):
    """An input has faults; `faults` holds all of them, in the order of the text.

    Also raised with a bare message, for an input that has no place to point at.
    """

    def __init__(self, faults: Iterable[Fault] | str) -> None:
        self.faults: tuple[Fault, ...] = (Fault(faults),) if isinstance(faults, str) else tuple(faults)
        if isinstance(faults, str):
            super().__init__(faults)
        else:
            super().__init__("\n".join(str(fault) for fault in self.faults))


class NotFound(KubenetLabError):
    """No object of this kind and name; `nearest` names one that exists and looks alike, or is empty.

    `known` are the names that do exist; the message lists them.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        namespace: str = "",
        resource: str = "",
        nearest: str = "",
        known: Iterable[str] = (),
    ) -> None:
        names = sorted(known)
        nearest = nearest or next(iter(get_close_matches(name, names, 1)), "")
        self.kind, self.name, self.namespace, self.nearest = kind, name, namespace, nearest
        place = f" in namespace {namespace!r}" if namespace else ""
        hint = f" (did you mean {nearest!r}?)" if nearest else ""
        listing = f"; there are: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}" if names else ""
        super().__init__(f'{resource or kind} "{name}" not found{place}{hint}{listing}')


class NotRunning(KubenetLabError):
    """A pod that was to do something does not run; `why` in the words of the component that knows."""

    def __init__(self, pod: str, why: str) -> None:
        self.pod, self.why = pod, why
        super().__init__(f"pod {pod} is not running: {why}")


class AlreadyExists(KubenetLabError):
    """An object of this kind and name is there already."""

    def __init__(self, kind: str, name: str, namespace: str = "", resource: str = "") -> None:
        self.kind, self.name, self.namespace = kind, name, namespace
        super().__init__(f'{resource or kind} "{name}" already exists')


class Conflict(KubenetLabError):
    """An update carried a resourceVersion that is no longer the object's."""

    def __init__(self, kind: str, name: str, namespace: str = "", resource: str = "") -> None:
        self.kind, self.name, self.namespace = kind, name, namespace
        super().__init__(
            f'Operation cannot be fulfilled on {resource or kind} "{name}": the object has been modified; '
            "please apply your changes to the latest version and try again"
        )


class Cause(Struct, frozen=True):
    """One refusal: field path, what the API server says of it, and its cause reason."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class Invalid(KubenetLabError):
    """The object was understood and refused.

    `causes` are all refusals; `field` and `detail` are the first one's. `kind` may carry its group, as in
    `NetworkPolicy.networking.k8s.io`.
    """

    def __init__(
        self,
        kind: str,
        name: str,
        field: str = "",
        detail: str = "",
        namespace: str = "",
        causes: Iterable[Cause] = (),
    ) -> None:
        self.causes = tuple(causes) or (Cause(field, detail),)
        self.kind, self.name, self.namespace = kind, name, namespace
        self.field, self.detail = self.causes[0].field, self.causes[0].message
        told = list(dict.fromkeys(map(str, self.causes)))
        text = told[0] if len(told) == 1 else f"[{', '.join(told)}]"
        super().__init__(f'{kind} "{name}" is invalid: {text}')


class BadRequest(KubenetLabError):
    """The request contradicts itself, such as a name in its address that is not the object's."""


class DidNotSettle(KubenetLabError):
    """The control loops still found something to change after `rounds` rounds; `last` says what."""

    def __init__(self, rounds: int, last: str) -> None:
        self.rounds, self.last = rounds, last
        super().__init__(
            f"the control loops did not settle within {rounds} rounds; the last change was: {last}"
        )
