"""`-f a.yaml b.yaml`: one option that takes several files, as people type it."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import exists
from typing import Any

FILE_OPTIONS = ("-f", "--file")

WANTED = {"trace": 2, "explain": 3}
"""Words a command needs that are no option: SRC and DST (and PORT)."""


def spread(command: Any, argv: Sequence[str]) -> list[str]:
    """Return the arguments with `-f` written before each file.

    Everything after `-f` up to the next option is a file, except the words the command itself needs: those
    are the last ones (`trace -f a.yaml b.yaml frontend http://backend`). `twin` takes one word, its pod: the
    last one before `--`, or else the last one if it is no file.
    """
    args = list(argv)
    at = next((i for i, word in enumerate(args) if not word.startswith("-")), len(args))
    if at == len(args) or args[at] not in getattr(command, "commands", {}):
        return args
    name = args[at]
    valued = _valued(command.commands[name])
    head, rest = args[: at + 1], args[at + 1 :]
    end = rest.index("--") if "--" in rest else len(rest)
    runs, options, words = _split(rest[:end], valued)
    tail = rest[end:]
    missing = WANTED.get(name, 0) - len(words)
    if name == "twin" and not words and runs and len(runs[-1]) > 1:
        missing = int(len(tail) > 1 or not exists(runs[-1][-1]))
    if missing > 0 and runs and len(runs[-1]) > 1:
        cut = max(1, len(runs[-1]) - missing)
        runs[-1], words = runs[-1][:cut], [*words, *runs[-1][cut:]]
    files = [item for run in runs for file in run for item in ("-f", file)]
    return [*head, *options, *files, *words, *tail]


def _valued(command: Any) -> set[str]:
    """The options of a command that are followed by a value."""
    return {
        name
        for param in command.params
        if param.param_type_name == "option" and not param.is_flag
        for name in (*param.opts, *param.secondary_opts)
    }


def _split(args: list[str], valued: set[str]) -> tuple[list[list[str]], list[str], list[str]]:
    """Return the runs of words after each `-f`, the other options with their values, and the other words."""
    runs: list[list[str]] = []
    options: list[str] = []
    words: list[str] = []
    i = 0
    while i < len(args):
        word = args[i]
        i += 1
        if word in FILE_OPTIONS and i < len(args):
            runs.append([args[i]])
            i += 1
            while i < len(args) and not _is_option(args[i]):
                runs[-1].append(args[i])
                i += 1
        elif _is_option(word):
            options.append(word)
            if word in valued and i < len(args):
                options.append(args[i])
                i += 1
        else:
            words.append(word)
    return runs, options, words


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"
