"""nft text to commands on an `Edit`: the grammar of `nft -f`, as nft 1.0.6 reads it (nft(8), parser_bison.y).

One pass, in five steps that build on each other: `cursor` (tokens), `expressions` (values and what they are compared
with), `statements` (rules), `tables` (blocks), and here the commands.
"""

from __future__ import annotations

from kubenet_lab.kernel.dialects.nft.cursor import SyntaxFault
from kubenet_lab.kernel.dialects.nft.scanner import END
from kubenet_lab.kernel.dialects.nft.tables import _OBJECT_KINDS, Blocks
from kubenet_lab.kernel.nftables.objects import FAMILIES

_COMMANDS = ("add", "create", "insert", "replace", "delete", "destroy", "flush", "rename", "list", "reset")


class Parser(Blocks):
    """Reads a text and applies each command to an edit, in order.

    Args:
        text: What `nft -f` would read.
        edit: What the commands change.
        defines: Values of `$name`, as `nft -D`.
        on_list: Called with the words of each `list` command.
    """

    def run(self) -> None:
        """Apply every command of the text."""
        while True:
            self.separators()
            if self.words[self.at] == END:
                return
            self.start = self.at
            self.command()
            if self.words[self.at] not in ("\n", ";", END):
                raise self.unexpected()

    def command(self) -> None:
        """One command."""
        word = self.word
        if word in ("define", "redefine", "undefine"):
            self._define()
            return
        if word == "include":
            raise SyntaxFault("include is not followed here", self.at, "put the file's text in its place")
        verb = self.take() if word in _COMMANDS else "add"
        if verb in ("list", "reset"):
            self._list(verb)
        elif verb in ("add", "create", "insert"):
            self._add(verb)
        elif verb == "replace":
            self.expect("rule")
            chain = self._chain_spec()
            self.expect("handle")
            handle = self.number()
            self.edit.replace_rule(self.family, self.table, chain, handle, self.rule())
        elif verb in ("delete", "destroy"):
            self._delete(destroy=verb == "destroy")
        elif verb == "flush":
            self._flush()
        elif verb == "rename":
            self.expect("chain")
            chain = self._chain_spec()
            self.edit.rename_chain(self.family, self.table, chain, self.identifier())

    def _list(self, verb: str) -> None:
        words = [verb]
        while self.word not in ("\n", ";", END):
            words.append(self.take())
        if self.on_list is not None:
            self.on_list(words)

    def _add(self, verb: str) -> None:
        create = verb == "create"
        word = self.word
        if word == "table" and verb != "insert":
            self.at += 1
            self._table(create)
        elif word == "chain" and verb != "insert":
            self.at += 1
            name = self._chain_spec()
            self._chain(name, create)
        elif word in ("set", "map") and verb != "insert":
            self.at += 1
            self._table_spec()
            name = self.identifier()
            self.expect("{")
            elements = self._set_block(name, word == "map", create)
            end = self.at
            for declared, self.at in elements:
                self._add_elements(declared, self._elements(declared), False)
            self.at = end
        elif word == "element":
            self.at += 1
            self._table_spec()
            name = self.identifier()
            declared = self.edit.get_set(self.family, self.table, name)
            self._add_elements(declared, self._elements(declared), create)
        elif word == "flowtable":
            self.at += 1
            self._table_spec()
            name = self.identifier()
            self.expect("{")
            self.edit.add_flowtable(self.family, self.table, self._flowtable(name), create=create)
        elif word in _OBJECT_KINDS:
            self.at += 1
            self._table_spec()
            self._object(word, self.identifier(), create)
        elif word == "ct" and self.peek() in ("helper", "timeout", "expectation") and self.peek(2) != "set":
            kind = f"{self.take()} {self.take()}"
            self._table_spec()
            self._object(kind, self.identifier(), create)
        else:
            self.try_take("rule")
            chain = self._chain_spec()
            position, index = 0, None
            if self.try_take("position", "handle"):
                position = self.number()
            elif self.try_take("index"):
                index = self.number()
            rule = self.rule()
            self.edit.add_rule(
                self.family, self.table, chain, rule, insert=verb == "insert", position=position, index=index
            )

    def _delete(self, destroy: bool) -> None:
        edit = self.edit
        word = self.take()
        if word == "table":
            self._family()
            if self.try_take("handle"):
                self.table = edit.table_name(self.family, self.number())
            else:
                self.table = self.identifier()
            edit.delete_table(self.family, self.table, destroy=destroy)
        elif word == "chain":
            edit.delete_chain(*self._named("chain"), destroy=destroy)
            if self.word == "{":
                self._skip_block()
        elif word == "rule":
            chain = self._chain_spec()
            self.expect("handle")
            edit.delete_rule(self.family, self.table, chain, self.number())
        elif word in ("set", "map"):
            edit.delete_set(*self._named("set"), destroy=destroy)
        elif word == "element":
            self._table_spec()
            name = self.identifier()
            declared = edit.get_set(self.family, self.table, name)
            keys = [element.key for element in self._elements(declared, data=False)]
            edit.delete_elements(self.family, self.table, name, keys, destroy=destroy)
        elif word == "flowtable":
            edit.delete_flowtable(*self._named("flowtable"), destroy=destroy)
        elif word in _OBJECT_KINDS:
            family, table, name = self._named(word)
            edit.delete_object(family, table, word, name, destroy=destroy)
        elif word == "ct":
            kind = f"ct {self.expect('helper', 'timeout', 'expectation')}"
            family, table, name = self._named(kind)
            edit.delete_object(family, table, kind, name, destroy=destroy)
        else:
            self.at -= 1
            raise self.unexpected()

    def _named(self, kind: str) -> tuple[str, str, str]:
        self._table_spec()
        if self.try_take("handle"):
            return self.family, self.table, self.edit.name_of(self.family, self.table, kind, self.number())
        return self.family, self.table, self.identifier()

    def _flush(self) -> None:
        word = self.take()
        if word == "ruleset":
            self.edit.flush_ruleset(self.take() if self.word in FAMILIES else "")
        elif word == "table":
            self._table_spec()
            self.edit.flush_table(self.family, self.table)
        elif word == "chain":
            chain = self._chain_spec()
            self.edit.flush_chain(self.family, self.table, chain)
        elif word in ("set", "map", "meter"):
            self._table_spec()
            self.edit.flush_set(self.family, self.table, self.identifier())
        else:
            self.at -= 1
            raise self.unexpected()
