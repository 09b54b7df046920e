"""Translation of words that other programs take into words that a lockkit command takes: flock(1), lockf(1), a forgotten ``--``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

import click

from lockkit.cli import exits
from lockkit.cli.child import find
from lockkit.settings import nearest

__all__ = ["HABITS", "Words", "flags", "gpus_of", "is_program", "run", "translated", "with_gpu"]

Words = Sequence[str]

HABITS: Mapping[str, str] = {
    **dict.fromkeys(("-n", "--nb", "--nonblock", "--nonblocking", "--non-blocking", "--try"), "--no-wait"),
    **dict.fromkeys(("-w", "-t", "--wait", "--wait-timeout", "--max-wait"), "--timeout"),
    **dict.fromkeys(("-x", "-e", "--write", "--writer"), "--exclusive"),
    **dict.fromkeys(("-s", "--read", "--reader"), "--shared"),
    **dict.fromkeys(("--limit", "--max"), "--capacity"),
    **dict.fromkeys(("--lease", "--lease-time", "--expire", "--expiry", "--px"), "--ttl"),
    **dict.fromkeys(("-f", "--follow", "--live"), "--watch"),
    **dict.fromkeys(("-j", "--format=json", "--output=json"), "--json"),
    **dict.fromkeys(("--store", "--server", "--backend"), "--url"),
    **dict.fromkeys(("--id", "--claim-id"), "--claim"),
    **dict.fromkeys(("-g", "--gpus", "--gres", "--gpus-per-node"), "--gpu"),
    **dict.fromkeys(("-m", "--message", "--why"), "--reason"),
    **dict.fromkeys(("-o", "--close", "-F", "--no-fork", "-v", "--verbose", "-k"), ""),
}
"""Options of flock(1), lockf(1) and other programs, each with lockkit's option; an empty text for an option that is not needed."""
_STRINGS = ("-c", "--command")
_YES = ("1", "on", "true", "yes")
_Guess = tuple[str | None, list[str], list[str]]


def translated(command: click.Command, words: Words) -> list[str] | None:
    """The words with each option that the command does not have replaced by the one that was meant; None if one is unknown."""
    own = flags(command)
    found: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            return [*found, *words[at:]]
        taken = _option(word, words[at + 1 :], own) if _is_option(word) else ([word], 0)
        if taken is None:
            return None
        found += taken[0]
        at += 1 + taken[1]
    return found


def run(command: click.Command, words: Words) -> list[str] | None:
    """The words after ``run`` in the right order: NAME, lockkit's options, ``--``, the command."""
    own = flags(command)
    if "--" not in words:
        guess = _without_dashes(words, own)
    else:
        at = words.index("--")
        guess = _with_dashes(words[:at], words[at + 1 :], own)
    if guess is None:
        return None
    name, options, program = guess
    if "--no-wait" in options and "--timeout" in options:  # flock -n -w 5 does not wait either
        at = options.index("--timeout")
        options = [*options[:at], *options[at + 2 :]]
    if not _about_gpus(command).isdisjoint(word.partition("=")[0] for word in options):
        return [*with_gpu(options), "--", *program]  # requests for GPUs have no NAME
    return [name or "NAME", *options, "--", *program]


def _about_gpus(command: click.Command) -> set[str]:
    """The options of a command in the section of ``--gpu``."""
    found: dict[object, set[str]] = {}
    for param in command.params:
        section = getattr(param, "section", None)
        found.setdefault(section, set()).update(param.opts, param.secondary_opts)
    return next((flags for flags in found.values() if "--gpu" in flags), set())


def gpus_of(command: click.Command, words: Words) -> list[str]:
    """The options about GPUs among words for another command than ``run``, which alone has them; empty if there are none.

    Args:
        command: The command ``run``.
        words: The words.
    """
    own = {flag: value for flag, value in flags(command).items() if flag in _about_gpus(command)}
    found: list[str] = []
    for at, word in enumerate(words):
        taken = _option(word, words[at + 1 :], own) if word.startswith("--gpu") else None
        found += [] if taken is None else taken[0]
    return with_gpu(found) if found else []


def with_gpu(options: Words) -> list[str]:
    """Options of which one is about GPUs, with ``--gpu`` among them."""
    given = {word.partition("=")[0] for word in options}
    return [*options] if "--gpu" in given else ["--gpu", "1", *options]


def _without_dashes(words: Words, own: Mapping[str, bool]) -> _Guess | None:
    options, rest = _leading(words, own)
    if not rest:
        return None
    first, *after = rest
    if first in _STRINGS and after:
        return None, options, ["sh", "-c", *after]
    program = is_program(first)
    more, left = _leading(after, own, habits=not program)
    if left and is_program(left[0]):
        return first, options + more, left
    if program:
        return None, options, rest
    if left[1:] and left[0] in _STRINGS:
        return first, options + more, ["sh", "-c", *left[1:]]
    if not left:
        return (None, options, ["sh", "-c", first]) if " " in first else None
    if _is_option(left[0]):
        return None
    if len(left) == 1 and " " in left[0]:
        return first, options + more, ["sh", "-c", *left]
    return first, options + more, left


def _with_dashes(head: Words, tail: Words, own: Mapping[str, bool]) -> _Guess | None:
    options, rest = _leading(head, own)
    if not rest:
        late, program = _options_behind(tail, own)
        return (None, options + late, program) if program else None
    first, *after = rest
    if _is_option(first):
        return None
    more, left = _leading(after, own)
    if not left:
        late, program = _leading(tail, own)  # lockkit's options, after -- instead of before
        return (first, options + more + late, program) if program else None
    program = ["sh", "-c", *left[1:]] if left[1:] and left[0] in _STRINGS else left
    if _is_option(program[0]):
        return None
    if is_program(first) and not is_program(program[0]):
        return None, options, [*rest, "--", *tail]
    return first, options + more, [*program, *(["--", *tail] if tail else [])]


def _options_behind(tail: Words, own: Mapping[str, bool]) -> tuple[list[str], list[str]]:
    """Lockkit's options after ``--`` instead of before, and the command: those before the command, and ``--gpu`` with all that follows it."""
    late, program = _leading(tail, own)
    for at, word in enumerate(program):
        if word.partition("=")[0] == "--gpu":
            more, left = _leading(program[at:], own)
            return (late + more, program[:at]) if not left and at else (late, program)
    return late, program


def _leading(words: Words, own: Mapping[str, bool], *, habits: bool = True) -> tuple[list[str], list[str]]:
    """The options at the beginning of some words, as lockkit spells them, and the rest. An unknown option ends them."""
    found: list[str] = []
    at = 0
    while at < len(words) and _is_option(words[at]):
        if not habits and words[at].partition("=")[0] not in own:
            break
        taken = _option(words[at], words[at + 1 :], own)
        if taken is None:
            break
        found += taken[0]
        at += 1 + taken[1]
    return found, list(words[at:])


def _option(word: str, after: Words, own: Mapping[str, bool]) -> tuple[list[str], int] | None:
    """One option as lockkit spells it, and the number of words after it that belong to it; None if it is unknown."""
    flag, equals, value = word.partition("=")
    if equals and _habit(word, own):  # --format=json
        return [HABITS[word]], 0
    gres = re.fullmatch(r"gpu(?::\w+)?:(\d+)|gpu", value) if flag == "--gres" else None
    if gres and "--gpu" in own:
        return ["--gpu", gres[1] or "1"], 0
    if flag in ("--gpu", "--gpus") and "--gpu" in own:
        docker = _of_docker(value if equals else next(iter(after), ""))
        if docker:
            return docker, 0 if equals else 1
    if not flag.startswith("--") and len(flag) > 3:
        flag = f"-{flag}"  # -timeout=5s
    if flag.startswith("--"):
        ours = flag if flag in own else _habit(flag, own)
        if ours == "":
            return [], 0
        ours = ours or _near(flag, own)
        if ours is None:
            return None
        if not own[ours] and value.lower() in _YES:
            return [ours], 0
        if not own[ours] or equals:
            return [f"{ours}{equals}{value}"], 0
        if ours == "--gpu" and (not after or _is_option(after[0])):
            return ["--gpu", "1"], 0
        return ([ours, after[0]], 1) if after and after[0] != "--" else None
    return _short(word[1:], after, own)


def _of_docker(value: str) -> list[str]:
    """The options for a value of docker's ``--gpus``: ``all``, which most write to have any, or ``device=0,1``; empty for another value."""
    if value == "all":
        return ["--gpu", "1"]
    found = re.fullmatch(r'"?device=([\w,-]+)"?', value)
    ids = [one for one in found[1].split(",") if one] if found else []
    return ["--gpu", str(len(ids)), *(word for one in ids for word in ("--gpu-id", one))] if ids else []


def _short(letters: str, after: Words, own: Mapping[str, bool]) -> tuple[list[str], int] | None:
    """Several letters behind one dash: ``-nx``, ``-w5``, ``-E 0``."""
    found: list[str] = []
    for at, letter in enumerate(letters):
        flag = f"-{letter}"
        ours = flag if flag in own else _habit(flag, own)
        if ours is None:
            return None
        if not ours:
            continue
        if not own[ours]:
            found.append(ours)
            continue
        value = letters[at + 1 :].removeprefix("=")
        if value:
            return [*found, ours, value], 0
        return ([*found, ours, after[0]], 1) if after and after[0] != "--" else None
    return found, 0


def _habit(flag: str, own: Mapping[str, bool]) -> str | None:
    """The option for one of another program: ``""`` if it is not needed, None if there is none."""
    habit = HABITS.get(flag)
    return habit if habit in own or (habit == "" and "--no-wait" in own) else None


def _near(flag: str, own: Mapping[str, bool]) -> str | None:
    """The option for one that is misspelt."""
    close = nearest(flag[2:], [each[2:] for each in own if each.startswith("--")])
    return None if close is None else f"--{close}"


def flags(command: click.Command) -> dict[str, bool]:
    """The options of a command, each with whether it takes a value."""
    found = {
        flag: not param.is_flag
        for param in command.params
        if isinstance(param, click.Option) and not param.hidden
        for flag in (*param.opts, *param.secondary_opts)
    }
    return found | {"--help": False, "-h": False}


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-" and word not in _STRINGS


def is_program(word: str) -> bool:
    """Whether a word is a program that can be run here."""
    try:
        return bool(find(word, os.environ))
    except exits.CommandFailed:
        return False
