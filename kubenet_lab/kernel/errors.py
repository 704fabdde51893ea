"""Errors of kernel edits, in the words rtnetlink's tools print."""

from __future__ import annotations

from kubenet_lab.errors import KubenetLabError

_WORDS = {
    "EEXIST": "RTNETLINK answers: File exists",
    "ESRCH": "RTNETLINK answers: No such process",
    "ENOENT": "RTNETLINK answers: No such file or directory",
    "EINVAL": "RTNETLINK answers: Invalid argument",
    "ENETUNREACH": "Error: Nexthop has invalid gateway.",
    "ENODEV": "Cannot find device",
    "EADDRNOTAVAIL": "RTNETLINK answers: Cannot assign requested address",
    "EADDRINUSE": "bind: Address already in use",
}


class KernelError(KubenetLabError):
    """A kernel edit was refused. `errno` is the symbolic name ("EEXIST"), `what` the thing it was about."""

    def __init__(self, errno: str, what: str) -> None:
        self.errno = errno
        self.what = what
        super().__init__(f"{_WORDS.get(errno, errno)}: {what}")
