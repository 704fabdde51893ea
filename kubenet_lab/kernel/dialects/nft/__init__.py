"""`nft` text and JSON (nftables 1.0.6).

    load(text)                     nft -f into an empty namespace, or the reading of a node's `nft list ruleset`
    apply(ruleset, text)           nft -f: one transaction, whole or not at all
    list_ruleset(ruleset)          nft list ruleset
    list_table(ruleset, "ip", "t") nft list table ip t
    to_json(ruleset)               nft -j list ruleset
    apply_json(ruleset, text)      nft -j -f

Sources: nft(8), libnftables-json(5).
"""

from __future__ import annotations

import gc

from kubenet_lab.errors import Fault, InputError
from kubenet_lab.kernel.dialects.nft.cursor import SyntaxFault
from kubenet_lab.kernel.dialects.nft.json_in import commands
from kubenet_lab.kernel.dialects.nft.json_out import listing
from kubenet_lab.kernel.dialects.nft.parser import Parser
from kubenet_lab.kernel.dialects.nft.printer import Printer
from kubenet_lab.kernel.dialects.nft.scanner import place
from kubenet_lab.kernel.nftables.ruleset import Edit, NftError, Ruleset

__all__ = [
    "apply",
    "apply_json",
    "list_chain",
    "list_map",
    "list_ruleset",
    "list_set",
    "list_table",
    "load",
    "load_json",
    "to_json",
]


def load(text: str, *, file: str = "<text>") -> Ruleset:
    """Read a ruleset: what `nft list ruleset` printed, or any `nft -f` file.

    Raises:
        InputError: With the place and nft's words.
    """
    return apply(Ruleset(), text, file=file)


def apply(
    ruleset: Ruleset,
    text: str,
    *,
    now: float = 0.0,
    file: str = "<text>",
    defines: dict[str, str] | None = None,
) -> Ruleset:
    """`nft -f FILE`: apply a text as one transaction and return the new ruleset; the old one stays as it is.

    Args:
        ruleset: The present state.
        text: Commands (`add rule ...`), blocks (`table ip t { ... }`), or both.
        now: Simulated time in s, from which time-outs of elements count.
        file: What to call the text in errors.
        defines: Values of `$name`, as `nft -D name=value`.

    Raises:
        InputError: With line, column and nft's words; nothing has changed then.
    """
    edit = Edit(ruleset, now)
    parser = Parser(text, edit, defines)
    collecting = gc.isenabled()
    gc.disable()  # a big ruleset makes a million values and no garbage; looking for some takes half of the time
    try:
        parser.run()
        return edit.commit()
    except SyntaxFault as fault:
        line, column = place(text, fault.index)
        advice = fault.help or _advice(text, fault.message)
        raise InputError([Fault(fault.message, file=file, line=line, column=column, help=advice)]) from None
    except NftError as error:
        line, column = place(text, parser.start)
        message = f"{error}: {error.what}" if error.what else str(error)
        raise InputError([Fault(message, file=file, line=line, column=column, help=error.help)]) from None
    finally:
        if collecting:
            gc.enable()


def _advice(text: str, message: str) -> str:
    """Say what a text that nft refuses with `message` probably is, or ""."""
    first = next((line for line in text.splitlines() if line.strip() and not line.startswith("#")), "")
    if first.startswith(("*", "-A ", "-N ", "-P ")):
        return "this is iptables' own text (iptables-save), not nftables'"
    if first.startswith("{"):
        return "this is JSON (nft -j list ruleset); read it as JSON"
    if first.startswith("Chain ") and "(policy" in first:
        return "this is what iptables -L prints, which cannot be read back; take iptables-save, or nft list ruleset"
    if "unexpected end of file" in message:
        opened = [line.strip(" \t{") for line in text.splitlines() if line.rstrip().endswith("{")]
        return f"the text was cut off; it ends in {opened[-1]}" if opened else "the text was cut off"
    return ""


def list_ruleset(
    ruleset: Ruleset, *, family: str = "", now: float = 0.0, handles: bool = False, stateless: bool = False
) -> str:
    """`nft [-a] [-s] list ruleset [FAMILY]`."""
    return Printer(ruleset, now=now, handles=handles, stateless=stateless).all(family)


def list_table(
    ruleset: Ruleset,
    family: str,
    table: str,
    *,
    now: float = 0.0,
    handles: bool = False,
    stateless: bool = False,
) -> str:
    """`nft list table FAMILY NAME`. Raises NftError ENOENT."""
    printer = Printer(ruleset, now=now, handles=handles, stateless=stateless)
    return printer.table(ruleset.table(family, table))


def list_chain(ruleset: Ruleset, family: str, table: str, chain: str, *, handles: bool = False) -> str:
    """`nft list chain FAMILY TABLE NAME`. Raises NftError ENOENT."""
    printer = Printer(ruleset, handles=handles)
    one = ruleset.table(family, table)
    return printer.only(one, printer.chain(one, ruleset.chain(family, table, chain)))


def list_set(
    ruleset: Ruleset, family: str, table: str, name: str, *, now: float = 0.0, handles: bool = False
) -> str:
    """`nft list set FAMILY TABLE NAME`. Raises NftError ENOENT."""
    printer = Printer(ruleset, now=now, handles=handles)
    one = ruleset.table(family, table)
    return printer.only(one, printer.set(one, ruleset.set(family, table, name)))


list_map = list_set
"""`nft list map FAMILY TABLE NAME`."""


def to_json(ruleset: Ruleset, *, family: str = "", now: float = 0.0) -> str:
    """`nft -j list ruleset [FAMILY]`: one line of JSON."""
    return listing(ruleset, family, now)


def apply_json(ruleset: Ruleset, document: str, *, now: float = 0.0, file: str = "<text>") -> Ruleset:
    """`nft -j -f FILE`: apply a document's commands as one transaction. A listing is one, too.

    Raises:
        InputError: It is no JSON, not in the schema, or nft refuses it; nothing has changed then.
    """
    return apply(ruleset, commands(document), now=now, file=file)


def load_json(document: str, *, file: str = "<text>") -> Ruleset:
    """Read what `nft -j list ruleset` printed. Raises InputError."""
    return apply_json(Ruleset(), document, file=file)
