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
    "EOPNOTSUPP": "RTNETLINK answers: Operation not supported",
    "EBUSY": "RTNETLINK answers: Device or resource busy",
    "ENETDOWN": "RTNETLINK answers: Network is down",
    "ERANGE": "RTNETLINK answers: Numerical result out of range",
}
_STRERROR = {
    "EEXIST": "file exists",
    "ESRCH": "no such process",
    "ENOENT": "no such file or directory",
    "EINVAL": "invalid argument",
    "ENETUNREACH": "network is unreachable",
    "ENODEV": "no such device",
    "EADDRNOTAVAIL": "cannot assign requested address",
    "EADDRINUSE": "address already in use",
    "EOPNOTSUPP": "operation not supported",
    "EBUSY": "device or resource busy",
    "ERANGE": "numerical result out of range",
    "ENETDOWN": "network is down",
}
"""errno(3) as Go prints it."""


class KernelError(KubenetLabError):
    """A kernel edit was refused. `errno` is the symbolic name ("EEXIST"), `what` the thing it was about."""

    def __init__(self, errno: str, what: str) -> None:
        self.errno = errno
        self.what = what
        super().__init__(f"{_WORDS.get(errno, errno)}: {what}")

    @property
    def strerror(self) -> str:
        """The bare words, as programs written in Go print them: "file exists"."""
        return _STRERROR.get(self.errno, self.errno)
