"""What a rule of nftables did to a packet, in sentences: the chain, the element of a map, the verdict.

nftables' own words (jump, goto, vmap, dnat) stand beside the sentence; nothing here speaks of iptables.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable

from kubenet_lab.kernel.nftables import expressions as ex
from kubenet_lab.kernel.nftables import statements as st
from kubenet_lab.kernel.nftables.objects import Rule
from kubenet_lab.walk.nft import NftHit, NftRef, statement_words

Named = Callable[[str], str]
"""Address -> ", pod backend-1," or ""."""

CHAINS: tuple[tuple[str, str], ...] = (
    ("filter-prerouting-pre-dnat", "what comes in, before addresses are rewritten"),
    ("filter-output-pre-dnat", "what the node sends, before addresses are rewritten"),
    ("filter-input", "what is for the node itself"),
    ("filter-forward", "what the node passes on"),
    ("filter-output", "what the node sends"),
    ("nat-prerouting", "new connections that come in"),
    ("nat-output", "new connections of the node itself"),
    ("nat-postrouting", "new connections on their way out"),
    ("services", "every Service's addresses and node ports"),
    ("service-endpoints-check", "Services without endpoints"),
    ("nodeport-endpoints-check", "node ports without endpoints"),
    ("firewall-check", "load balancers' source ranges"),
    ("cluster-ips-check", "cluster IPs that no Service has, and ports no Service has"),
    ("mark-for-masquerade", "mark for masquerade"),
    ("masquerading", "masquerade what was marked, and pods that call themselves"),
    ("reject-chain", "refuse and say so"),
    ("external-", "a Service seen from outside"),
    ("firewall-", "a load balancer's firewall"),
    ("endpoint-", "one backend of a Service"),
    ("service-", "a Service's backends"),
)
"""What a chain of kube-proxy's tables is for, by the start of its name."""


def chain_meaning(chain: str) -> str:
    """Return what a chain is for, or ""."""
    return next((words for start, words in CHAINS if chain == start or chain.startswith(start)), "")


def chain_words(chain: str) -> str:
    """Return a chain with what it is for."""
    meaning = chain_meaning(chain)
    return f"{chain} ({meaning})" if meaning else chain


def leads_to(ref: NftRef) -> ex.Verdict | None:
    """Return the verdict that ended the rule: its own, or that of the map's element; None where it has none."""
    if isinstance(ref, NftHit) and isinstance(ref.element.data, ex.Verdict):
        return ref.element.data
    last = _last(ref)
    return last.verdict if isinstance(last, st.VerdictStatement) else None


def _last(ref: NftRef) -> st.Statement | None:
    return ref.rule.statements[-1] if isinstance(ref.rule, Rule) and ref.rule.statements else None


def sentence(ref: NftRef, named: Named) -> str:
    """Return what a rule did, in one or two sentences."""
    if ref.number == 0:
        return f"No rule of chain {ref.chain} (table {ref.table}) decided, so the chain's policy did: {ref.rule}."
    comment = ref.rule.comment if isinstance(ref.rule, Rule) else ""
    tail = f" Its comment: “{comment}”." if comment else ""
    where = f"Rule {ref.number} of chain {chain_words(ref.chain)} in table {ref.table} matches"
    return f"{where}: {_found(ref)}{_does(ref, named)}.{tail}"


def _found(ref: NftRef) -> str:
    """Return which element its look-up found, as a clause with a colon behind it."""
    if not isinstance(ref, NftHit):
        return ""
    key = ref.element_text.partition(" : ")[0]
    if ref.within:
        kind = "map" if ref.element.data is not None else "set"
        return f"{key} is in its {kind} @{ref.within}: "
    last = _last(ref)
    look_up = last.address if isinstance(last, st.Nat) else last
    if isinstance(look_up, (ex.Lookup, st.Vmap)) and isinstance(look_up.key, ex.Numgen):
        numgen = look_up.key
        how = "each as likely as the others" if numgen.mode == "random" else "they take turns"
        return f"it draws {key} of 0 to {numgen.mod - 1} (numgen {numgen.mode}; {how}): "
    return f"{key} is in it: "


def _does(ref: NftRef, named: Named) -> str:
    verdict = leads_to(ref)
    if verdict is not None:
        return _VERDICTS[verdict.kind].format(chain=chain_words(verdict.chain)) + f" ({verdict.kind})"
    last = _last(ref)
    if isinstance(last, st.Nat):
        return _nat(ref, last, named)
    if isinstance(last, st.Reject):
        return f"refuse it and send an error back ({statement_words(last)})"
    if isinstance(last, st.Mangle):
        return f"write into it for later rules ({statement_words(last)})"
    if isinstance(last, st.SetUpdate):
        for_how_long = " for as long as the set says" if not last.timeout else ""
        return f"remember it in set @{last.set}{for_how_long} ({statement_words(last)})"
    if isinstance(last, st.Counter):
        return "count it"
    return f"{statement_words(last)}" if last is not None else "nothing more"


_VERDICTS = {
    "accept": "let it pass",
    "drop": "drop it without a word",
    "jump": "go on in chain {chain}, and come back",
    "goto": "go on in chain {chain}",
    "return": "stop here and go back to the calling chain",
    "continue": "go on with the next rule",
    "queue": "hand it to a program",
}


def _nat(ref: NftRef, last: st.Nat, named: Named) -> str:
    if last.kind == "masquerade":
        return "put this host's own address in as the source (masquerade)"
    if last.kind == "redirect":
        return f"send it to this host itself instead ({statement_words(last)})"
    to = ""
    if (
        isinstance(ref, NftHit)
        and not isinstance(ref.element.data, ex.Verdict)
        and ref.element.data is not None
    ):
        to = ref.element_text.partition(" : ")[2]
    elif last.address is not None:
        from kubenet_lab.kernel.dialects.nft.printer import expr_text

        to = expr_text(last.address) + (f" . {expr_text(last.port)}" if last.port is not None else "")
    address, _, port = to.partition(" . ")
    shown = address if not port else f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    if last.kind == "dnat":
        return f"send it to {shown}{named(address)} instead (dnat)"
    return f"change the source to {shown} ({last.kind})"


_SERVICE_CHAINS = ("service-", "external-")


def title(ref: NftRef) -> str:
    """Return what a rule did, in two or three words, or ""."""
    verdict = leads_to(ref)
    if verdict is None:
        last = _last(ref)
        if isinstance(last, st.Nat):
            return "Backend drawn" if _drawn(ref) else f"Rule says {last.kind}"
        if isinstance(last, st.Reject):
            return "Rule says reject"
        return "Rule sets the mark" if isinstance(last, st.Mangle) else ""
    if verdict.kind in ("drop", "accept", "return"):
        return f"Rule says {verdict.kind}"
    if verdict.chain.startswith("service-endpoints-check"):
        return ""
    if verdict.chain.startswith(_SERVICE_CHAINS):
        return "Service recognised"
    if not verdict.chain.startswith("endpoint-"):
        return ""
    remembered = isinstance(ref, NftHit) and ref.within.startswith("affinity-")
    return "Backend remembered" if remembered else "Backend drawn"


def _drawn(ref: NftRef) -> bool:
    last = _last(ref)
    return isinstance(ref, NftHit) and isinstance(last, st.Nat) and last.kind == "dnat"


def is_main(ref: NftRef) -> bool:
    """True for the rules that tell the story."""
    if ref.number == 0:
        return str(ref.rule) == "drop"
    verdict = leads_to(ref)
    if verdict is None:
        last = _last(ref)
        return isinstance(last, st.Reject) or _drawn(ref)
    if verdict.kind == "drop":
        return True
    return title(ref) in ("Service recognised", "Backend drawn", "Backend remembered")


def rewrites(ref: NftRef) -> bool:
    """True for a rule that has addresses rewritten."""
    return isinstance(_last(ref), st.Nat)


def command(ref: NftRef) -> str:
    """Return the command that shows what decided: the element of a named set or map, or the chain."""
    if isinstance(ref, NftHit) and ref.within:
        key = ref.element_text.partition(" : ")[0]
        return f"nft get element {ref.table} {_quoted(ref.within)} '{{ {key} }}'"
    return f"nft list chain {ref.table} {_quoted(ref.chain)}"


def _quoted(name: str) -> str:
    return shlex.quote(name)


def entry_text(ref: NftRef) -> str:
    """Return the rule as nft prints it, with the element that its look-up found."""
    if ref.number == 0:
        return f"policy {ref.rule}"
    text = str(ref.rule)
    return f"{text}\n{ref.element_text}" if isinstance(ref, NftHit) else text
