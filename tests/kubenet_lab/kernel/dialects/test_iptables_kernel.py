"""Our iptables text held against the real iptables, in throw-away namespaces."""

from __future__ import annotations

import random
import shutil
import subprocess

import pytest

from kubenet_lab.kernel.dialects import iptables
from kubenet_lab.kernel.netfilter import Ruleset
from tests.kubenet_lab.kernel.dialects.test_iptables import forms

TOOLS = ("unshare", "iptables-restore", "iptables-save", "ip6tables-restore", "ip6tables-save", "ipset")

HEADERS = (
    "-s 10.0.0.0/8",
    "! -s 10.1.2.3",
    "-d 10.96.0.10",
    "! -d 10.0.0.0/255.0.255.0",
    "-i eth0",
    "! -i cni+",
    "-o cni0",
    "! -o eth+",
    "-f",
    "! -f",
)
PROTOCOLS = {
    "-p tcp": (
        "",
        "-m tcp --dport 80",
        "-m tcp ! --sport 1024:",
        "--tcp-flags SYN,ACK SYN",
        "-m tcp --syn",
        "-m multiport --dports 80,443,8000:8100",
        "-m tcpmss --mss 1400:",
        "-m tcp ! --tcp-option 8",
    ),
    "-p udp": ("", "-m udp --dport 53", "-m udp ! --dport 53 --sport :1023", "-m multiport ! --ports 53,67"),
    "-p sctp": ("", "-m sctp --dport 80", "-m sctp --chunk-types any INIT,DATA"),
    "-p icmp": ("", "-m icmp --icmp-type echo-request", "-m icmp ! --icmp-type 3/4"),
    "! -p tcp": ("",),
    "": ("",),
}
MATCHES = (
    '-m comment --comment "default/web:http -> 10.0.0.1"',
    "-m comment --comment plain",
    "-m mark --mark 0x4000/0x4000",
    "-m mark ! --mark 7",
    "-m connmark ! --mark 1/3",
    "-m conntrack --ctstate NEW,DNAT",
    "-m conntrack ! --ctstate INVALID",
    "-m conntrack --ctorigdst 10.96.0.10 --ctorigdstport 53 --ctdir REPLY",
    "-m state --state ESTABLISHED,RELATED",
    "-m addrtype ! --src-type LOCAL --dst-type LOCAL,MULTICAST",
    "-m statistic --mode random --probability 0.33333333",
    "-m statistic --mode nth --every 4 --packet 3",
    "-m recent --rcheck --seconds 10800 --reap --name AFF --rsource",
    "-m limit --limit 7/minute --limit-burst 9",
    "-m hashlimit --hashlimit-above 3/hour --hashlimit-mode srcip --hashlimit-name h",
    "-m iprange ! --src-range 10.0.0.1-10.0.0.9",
    "-m u32 --u32 0>>22&0x3C@0=1:5",
    "-m set ! --match-set s1 dst",
    "-m length --length 100:",
    "-m ttl --ttl-gt 3",
    "-m dscp --dscp-class EF",
    "-m tos --tos 0x10",
    '-m string --algo bm --string "GET /"',
    "-m time --weekdays Mon,Fri --timestart 09:00 --timestop 17:00",
)
TARGETS = {
    "filter": (
        "",
        "-j ACCEPT",
        "-j DROP",
        "-j RETURN",
        "-j mine",
        "-g mine",
        "-j REJECT",
        "-j REJECT --reject-with icmp-admin-prohibited",
        '-j LOG --log-prefix "x: " --log-uid',
        "-j NFLOG --nflog-group 5",
    ),
    "nat": ("-j mine", "-j RETURN"),
    "mangle": (
        "-j MARK --or-mark 0x8000",
        "-j MARK --set-mark 1/2",
        "-j MARK --xor-mark 4",
        "-j CONNMARK --save-mark",
        "-j CONNMARK --restore-mark --mask 0xff",
        "-j TTL --ttl-dec 1",
    ),
    "raw": ("-j CT --notrack", "-j CT --zone 3", "-j NOTRACK", "-j TRACE"),
}


def real(text: str, tool: str, command: str = "") -> str:
    """Give a text to the real restore command in new namespaces and return what the save command prints."""
    missing = [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if subprocess.run(["unshare", "-Urnm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody make user and network namespaces")
    script = command or f"ipset create s1 hash:ip && {tool}-restore && {tool}-save"
    done = subprocess.run(
        ["unshare", "-Urnm", "sh", "-c", script], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stderr}\n{text}"
    return "".join(f"{line}\n" for line in done.stdout.splitlines() if not line.startswith("#"))


@pytest.mark.kernel
@pytest.mark.parametrize(("family", "tool"), [(4, "iptables"), (6, "ip6tables")])
def test_the_real_tool_prints_every_form_as_we_do(family: int, tool: str) -> None:
    lines: dict[str, list[str]] = {}
    for form in forms():
        if form.family == family and form.printed is not None:
            lines.setdefault(form.table, []).append(f"-A {form.chain} {form.written}")
    text = ""
    for table, rules in lines.items():
        # where a rule's hook decides what is allowed the order of chains does not matter
        text += "\n".join([f"*{table}", ":foochain - [0:0]", *rules, "COMMIT", ""])
    assert iptables.save(iptables.restore(Ruleset(family), text)) == real(text, tool)


@pytest.mark.kernel
@pytest.mark.parametrize("seed", range(3))
def test_the_real_tool_prints_random_rules_as_we_do(seed: int) -> None:
    rng = random.Random(seed)
    text = ""
    for table, targets in TARGETS.items():
        text += f"*{table}\n:mine - [0:0]\n"
        for _ in range(120):
            words = [rng.choice(HEADERS)] if rng.random() < 0.7 else []
            protocol = rng.choice(list(PROTOCOLS))
            words += [protocol, rng.choice(PROTOCOLS[protocol])]
            words += rng.sample(MATCHES, rng.randrange(3))
            words.append(rng.choice(targets))
            chain = (
                "OUTPUT"
                if any(word.startswith(("-o", "! -o")) for word in words)
                else rng.choice(["mine", "OUTPUT"])
            )
            if "-j mine" in words or "-g mine" in words:
                chain = "OUTPUT"
            if chain == "OUTPUT" and any(word.startswith(("-i", "! -i")) for word in words):
                continue
            text += f"-A {chain} {' '.join(word for word in words if word)}\n"
        text += "COMMIT\n"
    assert iptables.save(iptables.restore(Ruleset(4), text)) == real(text, "iptables")


@pytest.mark.kernel
def test_edits_on_top_of_each_other_end_as_in_the_kernel() -> None:
    commands = [
        "-P INPUT DROP",
        "-N one",
        "-N two",
        "-A INPUT -j one",
        "-A one -j two",
        "-A two -p udp -j DROP",
        "-I one -s 10.0.0.1,10.0.0.2 -j RETURN",
        "-I one 2 -i eth0 -j ACCEPT",
        "-A one -m mark --mark 1",
        "-R one 1 -o eth1",
        "-D one 3",
        "-N three",
        "-F two",
        "-X three",
        "-E two zwei",
        "-A zwei -s 10.9.0.0/16",
        "-D zwei -s 10.9.0.0/16",
        "-t nat -A POSTROUTING -j MASQUERADE",
        "-t nat -D POSTROUTING 1",
    ]
    ours = Ruleset(4)
    for command in commands:
        ours = iptables.apply(ours, command)
    script = "\n".join(f"iptables {command} || exit 1" for command in commands) + "\niptables-save"
    assert iptables.save(ours) == real(script, "iptables", "sh -s")
