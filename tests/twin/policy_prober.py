"""Real packets through a node's rules: run in namespaces of its own, told what to do by lines of JSON.

Three network namespaces: `node` forwards from `out` (whoever sends) to `in` (whoever is sent to). Both hold no
addresses: packets are written with any source and caught on the wire, so that one network serves every world.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import socket
import struct
import subprocess
import sys
from ipaddress import ip_address

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
MACS = {
    "out": "02:00:00:00:00:01",
    "nodeout": "02:00:00:00:00:02",
    "nodein": "02:00:00:00:00:03",
    "in": "02:00:00:00:00:04",
}
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}


def enter(fd: int) -> None:
    if LIBC.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def new_space() -> int:
    if LIBC.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    return os.open("/proc/self/ns/net", os.O_RDONLY)


def sh(*words: str, text: str = "", fds: tuple[int, ...] = ()) -> None:
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False, pass_fds=fds)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr}\n{text}")


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _table() -> list[int]:
    table = []
    for number in range(256):
        value = number
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC = _table()


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = CRC[(value ^ byte) & 0xFF] ^ value >> 8
    return value ^ 0xFFFFFFFF


def packet(src: str, dst: str, proto: int, sport: int, dport: int) -> bytes:
    source, target = ip_address(src).packed, ip_address(dst).packed
    if proto == 6:
        body = struct.pack("!HHIIBBHHH", sport, dport, 1, 0, 5 << 4, 2, 64000, 0, 0)
    elif proto == 17:
        body = struct.pack("!HHHH", sport, dport, 9, 0) + b"x"
    else:
        chunk = struct.pack("!BBHIIHHI", 1, 0, 20, 1, 65536, 1, 1, 1)
        head = struct.pack("!HHI", sport, dport, 0)
        body = head + struct.pack("<I", crc32c(head + b"\0\0\0\0" + chunk)) + chunk
    if proto != 132:
        pseudo = (
            source
            + target
            + (
                struct.pack("!BBH", 0, proto, len(body))
                if len(source) == 4
                else struct.pack("!IHBB", len(body), 0, 0, proto)
            )
        )
        at = 16 if proto == 6 else 6
        total = checksum(pseudo + body) or 0xFFFF
        body = body[:at] + struct.pack("!H", total) + body[at + 2 :]
    if len(source) == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0x4000, 64, proto, 0) + source + target
        head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    else:
        head = struct.pack("!IHBB", 6 << 28, len(body), proto, 64) + source + target
    return head + body


def key_of(data: bytes) -> tuple[str, str, int, int, int] | None:
    if data[:1] and data[0] >> 4 == 4:
        proto, start, source, target = data[9], (data[0] & 15) * 4, data[12:16], data[16:20]
    elif len(data) >= 44:
        proto, start, source, target = data[6], 40, data[8:24], data[24:40]
    else:
        return None
    if proto not in (6, 17, 132):
        return None
    sport, dport = struct.unpack("!HH", data[start : start + 4])
    return str(ip_address(source)), str(ip_address(target)), proto, sport, dport


class Lab:
    def __init__(self) -> None:
        self.home = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.node = new_space()
        self.sides = {}
        for side in ("out", "in"):
            self.sides[side] = new_space()
            enter(self.node)
            far = self.sides[side]
            pair = ("type", "veth", "peer", "name", "eth0", "netns", f"/proc/self/fd/{far}")
            sh("ip", "link", "add", f"n{side}", *pair, fds=(far,))
            sh("ip", "link", "set", f"n{side}", "address", MACS[f"node{side}"], "up")
            enter(self.sides[side])
            sh("ip", "link", "set", "eth0", "address", MACS[side], "up")
            sh("ip", "link", "set", "lo", "up")
        enter(self.node)
        for name, value in {
            "ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1", "ipv4/conf/all/rp_filter": "0",
            "ipv4/conf/nout/rp_filter": "0", "ipv4/conf/nin/rp_filter": "0", "ipv4/icmp_ratelimit": "0",
        }.items():  # fmt: skip
            with open(f"/proc/sys/net/{name}", "w") as file:
                file.write(value)
        sh("ip", "link", "set", "lo", "up")
        sh("ip", "addr", "add", "169.254.1.1/32", "dev", "nin")
        sh("ip", "-6", "addr", "add", "fd99::1/128", "dev", "nin", "nodad")
        sh("ip", "route", "add", "default", "via", "169.254.1.2", "dev", "nin", "onlink")
        sh("ip", "-6", "route", "add", "default", "via", "fd99::2", "dev", "nin", "onlink")
        sh("ip", "neigh", "add", "169.254.1.2", "lladdr", MACS["in"], "dev", "nin", "nud", "permanent")
        sh("ip", "neigh", "add", "fd99::2", "lladdr", MACS["in"], "dev", "nin", "nud", "permanent")
        enter(self.sides["out"])
        self.sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self.sender.bind(("eth0", 0))
        enter(self.sides["in"])
        self.catcher = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.catcher.bind(("eth0", 0))
        self.catcher.setblocking(False)
        enter(self.node)

    def write(self, rules: dict[str, str]) -> None:
        """Swap all rules of the node for these."""
        sh("nft", "flush", "ruleset")
        sh("ipset", "destroy")
        if rules.get("sets"):
            sh("ipset", "restore", text=rules["sets"])
        for word, program in (("iptables4", "iptables-restore"), ("iptables6", "ip6tables-restore")):
            if rules.get(word):
                sh(program, text=rules[word])
        if rules.get("nft"):
            sh("nft", "-f", "-", text=rules["nft"])

    def probe(self, probes: list[list], sport: int) -> list[int]:
        """Send one first packet for each probe (src, dst, port, protocol); return which arrived."""
        ethernet = {
            4: bytes.fromhex((MACS["nodeout"] + MACS["out"]).replace(":", "")) + b"\x08\x00",
            16: bytes.fromhex((MACS["nodeout"] + MACS["out"]).replace(":", "")) + b"\x86\xdd",
        }
        wanted = {}
        seen: set[int] = set()
        for number, (src, dst, port, protocol) in enumerate(probes):
            proto = PROTOCOLS[protocol]
            wanted[src, dst, proto, sport, port] = number
            size = 16 if ":" in src else 4
            self.sender.send(ethernet[size] + packet(src, dst, proto, sport, port))
            if number % 40 == 39:
                self.catch(wanted, seen, 0.0)
        # One that no rule holds back tells that all before it are through.
        last = ("192.0.2.250", "192.0.2.251", 17, sport, 9)
        wanted[last] = -1
        for _try in range(50):
            self.sender.send(ethernet[4] + packet(*last))
            self.catch(wanted, seen, 0.1)
            if -1 in seen:
                break
        else:
            raise RuntimeError("the last packet never came")
        seen.discard(-1)
        return sorted(seen)

    def catch(self, wanted: dict, seen: set[int], wait: float) -> None:
        while select.select([self.catcher], [], [], 0 if seen and -1 in seen else wait)[0]:
            data = self.catcher.recv(2048)[14:]
            number = wanted.get(key_of(data))
            if number is not None:
                seen.add(number)
            if number == -1:
                return


def main() -> None:
    lab = Lab()
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if "rules" in asked:
                lab.write(asked["rules"])
            answer = {"arrived": lab.probe(asked["probes"], asked["sport"])}
        except (OSError, RuntimeError) as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
