"""BPF programs for the benchmark: assembled here, loaded by root, attached in a twin's namespace.

A program takes a number of decisions, each as Cilium's programs take theirs: a key made of the packet's header, a map
looked up with it, its entry read. The maps are of the kinds that Cilium's are: a hash (endpoints, Services), a trie of
prefixes (ipcache, policies) and an LRU hash (connections), a thousand entries each.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import sys

from kubenet_lab.twin import Twin

_SYSCALL = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _MAP_UPDATE, _PROG_LOAD = 0, 2, 5
_HASH, _LRU_HASH, _TRIE = 1, 9, 11
_NO_PREALLOC = 1
_SCHED_CLS = 3
ENTRIES = 1000
KEY = {_HASH: 8, _LRU_HASH: 8, _TRIE: 8}
"""Bytes of a key: two addresses; for the trie a prefix length and an address."""


class Refused(RuntimeError):
    """This machine does not let us load BPF programs."""


def _bpf(command: int, attributes: bytes) -> int:
    number = _SYSCALL.get(os.uname().machine)
    if number is None:
        raise Refused(f"the number of bpf() on {os.uname().machine} is not known here")
    libc = ctypes.CDLL(None, use_errno=True)
    room = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    done = int(libc.syscall(number, command, room, 128))
    if done < 0:
        code = ctypes.get_errno()
        raise Refused(f"bpf({command}): {os.strerror(code)}")
    return done


def _map(kind: int, source: str, target: str) -> int:
    """Make a map of `ENTRIES` and put in what a packet from `source` to `target` asks for."""
    fd = _bpf(
        _MAP_CREATE, struct.pack("IIIII", kind, KEY[kind], 8, ENTRIES, _NO_PREALLOC if kind == _TRIE else 0)
    )
    ours, theirs = socket.inet_aton(source), socket.inet_aton(target)
    keys = [struct.pack(">I", 0x0A640000 + n) + theirs for n in range(ENTRIES - 2)] + [
        ours + theirs,
        theirs + ours,
    ]
    if kind == _TRIE:
        keys = [struct.pack("I", 32) + key[:4] for key in keys]
    for key in keys:
        text, value = ctypes.create_string_buffer(key, 8), ctypes.create_string_buffer(b"\1" * 8, 8)
        _bpf(
            _MAP_UPDATE,
            struct.pack("IxxxxQQQ", fd, ctypes.addressof(text), ctypes.addressof(value), 0),
        )
    return fd


def _ins(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("<BBhi", code, src << 4 | dst, off, imm)


def program(decisions: int, source: str, target: str) -> int:
    """Load a program for tc that takes so many decisions about each packet and lets all pass on.

    Returns its descriptor. Raises Refused.
    """
    maps = [_map(kind, source, target) for kind in (_HASH, _TRIE, _LRU_HASH)]
    body = b""
    for number in range(decisions):
        fd = maps[number % len(maps)]
        trie = number % len(maps) == 1
        # The key at fp-8: source and destination, or the destination with its length.
        if trie:
            body += _ins(0x62, 10, 0, -8, 32) + _ins(0x61, 1, 7, 30) + _ins(0x63, 10, 1, -4)
        else:
            body += (
                _ins(0x61, 1, 7, 26) + _ins(0x63, 10, 1, -8) + _ins(0x61, 1, 7, 30) + _ins(0x63, 10, 1, -4)
            )
        body += _ins(0x18, 1, 1, 0, fd) + _ins(0)  # r1 = the map
        body += _ins(0xBF, 2, 10) + _ins(0x07, 2, 0, 0, -8)  # r2 = the key
        body += _ins(0x85, 0, 0, 0, 1)  # bpf_map_lookup_elem
        body += _ins(0x15, 0, 0, 2, 0)  # nothing there: on
        body += _ins(0x79, 1, 0, 0) + _ins(0x0F, 9, 1)  # r9 += the entry
    end = _ins(0xB7, 0, 0, 0, -1) + _ins(0x95)  # TC_ACT_UNSPEC: on with the next program
    start = _ins(0xB7, 9)
    start += _ins(0x61, 7, 1, 76) + _ins(0x61, 8, 1, 80)  # data, data_end
    start += _ins(0xBF, 3, 7) + _ins(0x07, 3, 0, 0, 34)
    start += _ins(0x2D, 3, 8, len(body) // 8)  # too short: let pass
    code = ctypes.create_string_buffer(start + body + end, len(start + body + end))
    licence = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "IIQQ", _SCHED_CLS, len(code) // 8, ctypes.addressof(code), ctypes.addressof(licence)
    )
    return _bpf(_PROG_LOAD, attributes)


ATTACH = r"""
import socket, struct, subprocess, sys
dev, fd, parent = sys.argv[1], int(sys.argv[2]), {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}[sys.argv[3]]
priority = int(sys.argv[4])
subprocess.run(["tc", "qdisc", "replace", "dev", dev, "clsact"], check=True)
def attr(kind, data):
    whole = struct.pack("HH", len(data) + 4, kind) + data
    return whole + bytes(-len(whole) % 4)
options = attr(6, struct.pack("I", fd)) + attr(7, b"decide\0") + attr(8, struct.pack("I", 1))
message = struct.pack("BxxxiIII", 0, socket.if_nametoindex(dev), 0, parent, priority << 16 | socket.htons(3))
message += attr(1, b"bpf\0") + attr(2, options)
# RTM_NEWTFILTER, with NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
message = struct.pack("IHHII", len(message) + 16, 44, 0x605, 1, 0) + message
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as talk:
    talk.bind((0, 0)); talk.send(message)
    answer = talk.recv(4096)
error = struct.unpack_from("i", answer, 16)[0]
sys.exit(f"{dev}: error {-error}" if error else 0)
"""


def attach(twin: Twin, ns: str, dev: str, fd: int, side: str, priority: int = 1) -> None:
    """Run a loaded program for every packet on a `side` ("ingress", "egress") of a device. Raises RuntimeError."""
    argv = twin.argv(ns, [sys.executable, "-c", ATTACH, dev, str(fd), side, str(priority)])
    done = subprocess.run(argv, pass_fds=[fd], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
