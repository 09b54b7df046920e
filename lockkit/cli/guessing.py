"""The command line that was probably meant by a wrong one: it is shown, and never run.

A suggestion can be pasted as it is. Its words are quoted for a shell, and it was parsed before it is shown. NAME stands in it for the
name of a lock that was not given.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches

import click

from lockkit.cli import exits
from lockkit.cli.child import find
from lockkit.cli.suggesting import MEANT, PROBE, URL_FIRST, WORDS, quoted
from lockkit.redaction import redact
from lockkit.settings import SETTINGS

__all__ = ["HABITS", "check", "keep", "moved", "of_command", "of_group", "of_run", "sentence"]

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
    **dict.fromkeys(("--store", "--server", "--backend", "--host"), "--url"),
    **dict.fromkeys(("--id", "--claim-id"), "--claim"),
    **dict.fromkeys(("-m", "--message", "--why"), "--reason"),
    **dict.fromkeys(("-o", "--close", "-F", "--no-fork", "-v", "--verbose", "-k"), ""),
}
"""Options of flock(1), lockf(1) and other programs, each with lockkit's option; an empty text for an option that is not needed."""
_DURATION = r"\d+(\.\d+)?(ms|s|m|h|d)?"
_CLAIM = "[0-9a-f]{12}"
_YES = ("1", "on", "true", "yes")
_STRINGS = ("-c", "--command")
_TRADES: Mapping[str, Sequence[Words]] = {
    **dict.fromkeys(("lock", "flock", "take", "get", "grab"), (("run",), ("acquire", "--ttl", "1h"))),
    **dict.fromkeys(("exec", "guard", "with", "do", "start"), (("run",),)),
    **dict.fromkeys(("unlock", "free", "drop", "give"), (("release",),)),
    **dict.fromkeys(("list", "ls", "ps", "who", "locks", "show"), (("status",), ("explain",))),
    **dict.fromkeys(("why", "info", "describe", "inspect", "holder"), (("explain",), ("status",))),
    **dict.fromkeys(("watch", "top", "tail", "monitor"), (("status", "--watch"),)),
    **dict.fromkeys(("kill", "steal", "break", "force", "remove", "rm", "delete"), (("explain",),)),
    **dict.fromkeys(("check", "health", "ping", "diagnose", "test"), (("doctor",),)),
    **dict.fromkeys(("settings", "env", "conf", "configuration"), (("config", "show"),)),
    **dict.fromkeys(("init", "setup"), (("config", "init"),)),
    **dict.fromkeys(("journal", "errors", "log", "logs"), (("failures", "list"),)),
    "version": (("--version",),),
}
"""Commands that people know from other programs, each with lockkit's commands to try in this order."""
_IN_GROUPS: Mapping[str, Words] = {"get": ("show",), "list": ("show",), "cat": ("show",), "print": ("show",)}


def keep(ctx: click.Context, words: Words | None) -> None:
    """Keep a suggestion for the report of the error that comes next; without ``words`` there is none.

    A suggestion contains no URL with a secret, because it may end up in a log: the environment is to have the URL instead.
    """
    if words is not None:
        ctx.meta[MEANT] = sentence(words)


def sentence(words: Words) -> str:
    """A suggestion in words, for a hint."""
    shown, first = _without_secret(words)
    return f"did you mean{first}: {' '.join(map(quoted, ('lockkit', *shown)))}"


def _without_secret(words: Words) -> tuple[Words, str]:
    end = words.index("--") if "--" in words else len(words)
    for at, word in enumerate(words[:end]):
        flag, equals, value = word.partition("=")
        if flag != "--url":
            continue
        after = at + (1 if equals else 2)
        url = value if equals else "".join(words[at + 1 : after])
        if redact(url) != url:
            return [*words[:at], *words[after:]], URL_FIRST
    return words, ""


def check(words: Words, known: Iterable[str], what: str) -> None:
    """Refuse words of which one is not known, with the line that was probably meant.

    Raises:
        click.UsageError: A word is not known.
    """
    ctx = click.get_current_context()
    typed: list[str] = ctx.meta[WORDS]
    known = list(known)
    for word in words:
        if word not in known:
            for close in get_close_matches(word.lower(), known, n=1):
                keep(ctx, [*ctx.command_path.split()[1:], *(close if one == word else one for one in typed)])
            ctx.fail(f"there is no {what} {word!r}")


# -- commands -------------------------------------------------------------------------------------------------


def of_group(ctx: click.Context, group: click.Group, args: Words) -> list[str] | None:
    """The line that was meant by an unknown command.

    Args:
        ctx: The context of the group.
        group: The group: ``lockkit`` itself, or a command with subcommands.
        args: The words after the group, of which the first is no command of it.
    """
    path = ctx.command_path.split()[1:]
    return _first(ctx, ([*path, *words] for words in _in_group(ctx, group, args)))


def _in_group(ctx: click.Context, group: click.Group, args: Words) -> Iterator[list[str]]:
    name, rest = args[0], args[1:]
    if name == "help":
        yield [*rest, "--help"]
    if ctx.parent is None:
        if name in _TRADES:
            yield from ([*command, *rest] for command in _TRADES[name])
    elif name in _IN_GROUPS:
        yield [*_IN_GROUPS[name], *rest]
    for close in get_close_matches(name, group.list_commands(ctx), n=1):
        yield from ([close, *rest], [close], [close, "--help"])
    if ctx.parent is not None:
        if group.name == "failures" or name in SETTINGS:
            yield ["show", *args]
        return
    run = group.get_command(ctx, "run")
    if run is not None and rest:
        guess = _run(run, args)
        if guess is not None:
            yield ["run", *guess]


def moved(ctx: click.Context, group: click.Group, args: Words) -> list[str] | None:
    """The line that was meant by options that stand before the command."""

    def candidates() -> Iterator[list[str]]:
        for at, word in enumerate(args):
            if word == "--":
                return
            command = None if word.startswith("-") else group.get_command(ctx, word)
            if command is None:
                continue
            command, rest = _below(command, args[at + 1 :])
            path = list(args[at : len(args) - len(rest)])
            words = [*args[:at], *rest]
            yield [*path, *words]
            guess = _run(command, words) if path == ["run"] else _translated(command, words)
            if guess is not None:
                yield [*path, *guess]

    return _first(ctx, candidates())


# -- options and values ---------------------------------------------------------------------------------------


def of_command(ctx: click.Context, error: click.UsageError, words: Words) -> list[str] | None:
    """The line that was meant by wrong options, values or arguments of a command.

    Args:
        ctx: The context of the command.
        error: The error of parsing its words.
        words: All words after the command, as they were typed.
    """
    path = ctx.command_path.split()[1:]

    def candidates() -> Iterator[list[str]]:
        if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter):
            yield from _other_value(error, words)
        guess = _run(ctx.command, words) if path == ["run"] else _translated(ctx.command, words)
        if guess is not None:
            yield guess
        if path != ["run"] and words:
            yield from _bare(ctx.command, words)

    return _first(ctx, ([*path, *guess] for guess in candidates()))


def of_run(ctx: click.Context, words: Words) -> list[str] | None:
    """The line that was meant by the words after ``lockkit run`` where ``--`` is missing, or stands in the wrong place."""
    guess = _run(ctx.command, words)
    return None if guess is None else _first(ctx, [["run", *guess]])


def _other_value(error: click.BadParameter, words: Words) -> Iterator[list[str]]:
    """The words with the wrong value replaced by one that resembles it: a choice, or the number of an exit code's name."""
    param = error.param
    known: dict[str, str] = {}
    if isinstance(getattr(param, "type", None), click.Choice):
        known = {str(choice): str(choice) for choice in param.type.choices}  # type: ignore[union-attr]
    elif param is not None and param.name == "conflict_code":
        codes = {name: code for name, code in vars(exits).items() if name.isupper() and isinstance(code, int)}
        known = {name.lower(): str(code) for name, code in codes.items()}
    for at, word in enumerate(words):
        option, equals, value = word.rpartition("=") if word.startswith("--") else ("", "", word)
        attached = value[2:] if param is not None and value[:2] in param.opts and len(value) > 2 else ""
        if attached:
            option, value = value[:2], attached
        if repr(value) in error.message:
            for close in get_close_matches(value.lower().replace("-", "_"), known, n=1):
                yield [*words[:at], f"{option}{equals}{known[close]}", *words[at + 1 :]]


def _bare(command: click.Command, words: Words) -> Iterator[list[str]]:
    """The words with what stands there bare given to the option that needs it, or as one name with blanks that nobody quoted."""
    own = _options(command)
    *before, last = words
    if re.fullmatch(_DURATION, last):
        yield from ([*before, option, last] for option in ("--ttl", "--timeout") if option in own)
    if "--claim" in own and "--reason" in own and len(words) > 1 and re.fullmatch(_CLAIM, words[1]):
        yield [words[0], "--claim", words[1], "--reason", " ".join(words[2:]) or "..."]
    named = any(param.name == "name" for param in command.params)
    if named and len(words) > 1 and not any(word.startswith("-") for word in words):
        yield [" ".join(words)]


def _translated(command: click.Command, words: Words) -> list[str] | None:
    """The words with each option that the command does not have replaced by the one that was meant; None if one is unknown."""
    own = _options(command)
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


def _run(command: click.Command, words: Words) -> list[str] | None:
    """The words after ``run`` in the right order: NAME, lockkit's options, ``--``, the command."""
    own = _options(command)
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
    return [name or "NAME", *options, "--", *program]


_Guess = tuple[str | None, list[str], list[str]]


def _without_dashes(words: Words, own: Mapping[str, bool]) -> _Guess | None:
    options, rest = _leading(words, own)
    if not rest:
        return None
    first, *after = rest
    if first in _STRINGS and after:
        return None, options, ["sh", "-c", *after]
    is_program = _is_program(first)
    more, left = _leading(after, own, habits=not is_program)
    if left and _is_program(left[0]):
        return first, options + more, left
    if is_program:
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
        return (None, options, list(tail)) if tail else None
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
    if _is_program(first) and not _is_program(program[0]):
        return None, options, [*rest, "--", *tail]
    return first, options + more, [*program, *(["--", *tail] if tail else [])]


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
        return ([ours, after[0]], 1) if after and after[0] != "--" else None
    return _short(word[1:], after, own)


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
    close = get_close_matches(flag[2:], [each[2:] for each in own if each.startswith("--")], n=1, cutoff=0.65)
    return f"--{close[0]}" if close else None


def _options(command: click.Command) -> dict[str, bool]:
    """The options of a command, each with whether it takes a value."""
    found = {
        flag: not param.is_flag
        for param in command.params
        if isinstance(param, click.Option) and not param.hidden
        for flag in param.opts
    }
    return found | {"--help": False, "-h": False}


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-" and word not in _STRINGS


def _is_program(word: str) -> bool:
    try:
        return bool(find(word, os.environ))
    except exits.CommandFailed:
        return False


# -- the check of a suggestion --------------------------------------------------------------------------------


def _first(ctx: click.Context, candidates: Iterable[list[str]]) -> list[str] | None:
    """The first line that lockkit would accept."""
    root = ctx.find_root().command
    return next((words for words in candidates if _parses(root, words)), None)


def _parses(command: click.Command, words: Words) -> bool:
    if "--help" in (words[: words.index("--")] if "--" in words else words):
        words = [word for word in words if word != "--help"]
        return _below(command, words)[1] == []
    if list(words) == ["--version"]:
        return True
    command, left = _below(command, words)
    if isinstance(command, click.Group):
        return False
    with click.Context(command, info_name=command.name) as probe:
        probe.meta[PROBE] = True
        try:
            command.parse_args(probe, left)
        except (click.ClickException, click.exceptions.Exit):
            return False
    return True


def _below(command: click.Command, words: Words) -> tuple[click.Command, list[str]]:
    """The command that the words lead to, and the words after it."""
    left = list(words)
    while isinstance(command, click.Group) and left:
        below = command.get_command(click.Context(command), left[0])
        if below is None:
            break
        command, left = below, left[1:]
    return command, left
