"""The command line that was probably meant by a wrong one: it is shown, and never run.

A suggestion can be pasted as it is: its words are quoted for a shell, and it was parsed before it is shown.
NAME replaces the name of a lock that was not given.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import click

from lockkit.cli import exits
from lockkit.cli.child import find
from lockkit.cli.suggesting import MEANT, PROBE, WORDS
from lockkit.config.settings import SETTINGS, nearest
from lockkit.config.suggesting import URL_FIRST, quoted
from lockkit.values.redaction import redact

__all__ = ["OPTIONS", "check", "keep", "of_group", "of_run", "of_words", "sentence"]

Words = Sequence[str]

_COMMANDS: Mapping[str, str] = {
    **dict.fromkeys(("lock", "flock", "take", "get", "grab"), "run|acquire --ttl 1h"),
    **dict.fromkeys(("exec", "guard", "with", "do", "start"), "run"),
    **dict.fromkeys(("unlock", "free", "drop", "give"), "release"),
    **dict.fromkeys(("list", "ls", "ps", "who", "locks", "show"), "status|explain"),
    **dict.fromkeys(("why", "info", "describe", "inspect", "holder"), "explain|status"),
    **dict.fromkeys(("watch", "tail", "monitor"), "status --watch"),
    **dict.fromkeys(("htop", "dashboard", "tui"), "top"),
    **dict.fromkeys(("kill", "steal", "break", "force", "remove", "rm", "delete"), "explain"),
    **dict.fromkeys(("force-release", "force-unlock", "force_release", "force_unlock"), "explain"),
    **dict.fromkeys(("check", "health", "ping", "diagnose", "test"), "doctor"),
    **dict.fromkeys(("settings", "env", "conf", "configuration"), "config show"),
    **dict.fromkeys(("init", "setup"), "config init"),
    **dict.fromkeys(("journal", "errors", "log", "logs"), "failures list"),
    "version": "--version",
}
"""Commands of other programs, each with lockkit's commands to try in this order."""
_IN_GROUPS: Mapping[str, str] = {
    **dict.fromkeys(("get", "list", "cat", "print"), "show"),
    **dict.fromkeys(("status", "ps", "show", "who", "smi"), "ls"),
    **dict.fromkeys(("watch", "top", "monitor"), "ls --watch"),
    **dict.fromkeys(("unquarantine", "resume", "enable", "uncordon", "undrain"), "clear"),
    **dict.fromkeys(("attach", "claim", "hold"), "adopt"),
}
OPTIONS: Mapping[str, str] = {
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
"""Options of flock(1), lockf(1), Slurm and others, each with lockkit's option; empty: not needed."""
_STRING = ("-c", "--command")


# -- what the error says ------------------------------------------------------------------------------------


def keep(ctx: click.Context, words: Words | None) -> None:
    """Keep a suggestion for the report of the error that comes next; without ``words`` there is none.

    A suggestion never contains a URL with a secret, because it may be logged: LOCKKIT_URL is used instead.
    """
    if words is not None:
        ctx.meta[MEANT] = sentence(words)


def sentence(words: Words) -> str:
    """A suggestion in words, for a hint. If a secret cannot be left out, only the help is suggested."""
    shown, first = _without_secret(words)
    if any("://" in word and redact(url := word.removeprefix("--url=")) != url for word in shown):
        return f"see: lockkit help {quoted(shown[0])}"
    return f"did you mean{first}: {' '.join(map(quoted, ('lockkit', *shown)))}"


def _without_secret(words: Words) -> tuple[Words, str]:
    for at, word in enumerate(_head(words)):
        flag, equals, value = word.partition("=")
        after = at + (1 if equals else 2)
        url = value if equals else "".join(words[at + 1 : after])
        if flag == "--url" and redact(url) != url:
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
            close = nearest(word.lower(), known)
            if close is not None:
                keep(ctx, [*ctx.command_path.split()[1:], *(close if one == word else one for one in typed)])
            ctx.fail(f"there is no {what} {word!r}")


# -- what was meant -----------------------------------------------------------------------------------------


def of_group(ctx: click.Context, group: click.Group, args: Words) -> list[str] | None:
    """The line that was meant by an unknown command, or by an option before the command."""
    path, name, rest = ctx.command_path.split()[1:], args[0], args[1:]
    if name.startswith("-"):
        at = next((at for at, word in enumerate(_head(args)) if group.get_command(ctx, word)), len(args))
        left = _below(group, args[at:])[1]
        return _first(ctx, [[*args[at : len(args) - len(left)], *args[:at], *left]])
    if name == "help":
        return _first(ctx, [[*path, *rest, "--help"]])
    if [*path, name] == ["gpu", "run"]:
        return _first(ctx, [["run", "--gpu", "1", *rest]])
    known = (_IN_GROUPS if path else _COMMANDS).get(name) or nearest(name, group.list_commands(ctx))
    if known is not None:
        ours = [[*path, *command.split()] for command in known.split("|")]
        return _first(ctx, [*([*words, *rest] for words in ours), [*ours[0], "--help"]])
    if path:
        return _first(ctx, [[*path, "show", *args]] if path == ["failures"] or name in SETTINGS else [])
    return of_run(ctx, args) if rest and ("--" in rest or any(map(_is_program, args[:2]))) else None


def of_words(ctx: click.Context, words: Words) -> list[str] | None:
    """The line that was meant by wrong words after a command."""
    return _first(ctx, [], [[*ctx.command_path.split()[1:], *words]])


def of_run(ctx: click.Context, words: Words) -> list[str] | None:
    """The line that was meant by misplaced words after ``lockkit run``."""
    return _first(ctx, [], [["run", *words]])


def _first(
    ctx: click.Context, lines: Sequence[list[str]], wrong: Sequence[list[str]] = ()
) -> list[str] | None:
    """The first valid line of ``lines``; else of them and ``wrong``, with options and order corrected."""
    root = ctx.find_root().command

    def candidates() -> Iterator[list[str]]:
        yield from (line for line in lines if line[-1] != "--help")  # help comes last
        for line in (*lines, *wrong):
            command, rest = _below(root, line)
            meant = _run if line[0] == "run" and line[-1] != "--help" else _plain
            guess = meant(command, rest)
            if guess is not None:
                yield [*line[: len(line) - len(rest)], *guess]

    return next((line for line in candidates() if _parses(root, line)), None)


def _plain(command: click.Command, words: Words) -> list[str] | None:
    """The words with each foreign option replaced by the one that was meant; None if one is unknown."""
    own, found, left = _flags(command), list[str](), list(_head(words))
    while left:
        options, left = _leading(left, own)
        if left and _is_option(left[0]):
            return None
        found += [*options, *left[:1]]
        left = left[1:]
    return [*found, *words[len(_head(words)) :]]


def _run(command: click.Command, words: Words) -> list[str] | None:
    """The words after ``run`` in the right order: NAME, lockkit's options, ``--``, the command."""
    own, head = _flags(command), _head(words)
    dashes, tail = "--" in words, words[len(head) + 1 :]
    options, rest = _leading(head, own)
    name = "NAME"
    if rest and rest[0] not in _STRING:
        runs = _is_program(rest[0])
        more, left = _leading(rest[1:], own, habits=not runs)
        # A program without another one behind it is the command: the name of the lock is missing.
        if (not runs or _is_program(left[0])) if left else dashes:
            name, rest, options = rest[0], left, options + more
        elif not (runs or " " in rest[0]):
            return None
    late, program = _leading(tail, own) if not rest else ([], [*rest, *words[len(head) :]])
    options += late
    if not program or _is_option(program[0]) or _is_option(name):
        return None
    if program[0] in _STRING and program[1:]:
        program = ["sh", "-c", *program[1:]]
    elif len(program) == 1 and " " in program[0] and not dashes:
        program = ["sh", "-c", *program]
    if "--no-wait" in options and "--timeout" in options:  # flock -n -w 5 does not wait either
        at = options.index("--timeout")
        options = [*options[:at], *options[at + 2 :]]
    given = {word.partition("=")[0] for word in options}
    if given.isdisjoint(_about_gpus(command)):
        return [name, *options, "--", *program]
    return [
        *([] if "--gpu" in given else ["--gpu", "1"]),
        *options,
        "--",
        *(tail if dashes and rest else program),
    ]


def _about_gpus(command: click.Command) -> set[str]:
    """The options of a command in the section of ``--gpu``, which has requests without a NAME."""
    section = next((getattr(one, "section", None) for one in command.params if "--gpu" in one.opts), None)
    ours = [one for one in command.params if section is not None and getattr(one, "section", None) == section]
    return {flag for one in ours for flag in (*one.opts, *one.secondary_opts)}


# -- single options -----------------------------------------------------------------------------------------


def _leading(words: Words, own: Mapping[str, bool], *, habits: bool = True) -> tuple[list[str], list[str]]:
    """The leading options, in lockkit's spelling, and the other words. An unknown option ends the options."""
    found: list[str] = []
    at = 0
    while at < len(words) and _is_option(words[at]) and (habits or words[at].partition("=")[0] in own):
        taken = _option(words[at], words[at + 1 :], own)
        if taken is None:
            break
        found += taken[0]
        at += 1 + taken[1]
    return found, list(words[at:])


def _option(word: str, after: Words, own: Mapping[str, bool]) -> tuple[list[str], int] | None:
    """One option in lockkit's spelling, and how many words after it belong to it; None if unknown."""
    flag, equals, value = word.partition("=")
    if equals and OPTIONS.get(word) in own:
        return [OPTIONS[word]], 0  # --format=json
    if not flag.startswith("--"):
        if len(flag) <= 3:
            return _letters(word[1:], after, own)
        flag = f"-{flag}"  # -timeout=5s
    ours = _ours(flag, own)
    if not ours:
        return None if ours is None else ([], 0)
    if not own[ours]:
        return ([ours], 0) if not equals or value.lower() in ("1", "on", "true", "yes") else None
    if ours == "--gpu":
        given = value if equals else next(iter(after), "-")
        number = re.fullmatch(r"(?:gpu:)?(?:\w+:)?(\d+)|gpu|all|(-.*)", given)  # most who write all want any
        return None if number is None else (["--gpu", number[1] or "1"], 0 if equals or number[2] else 1)
    if equals:
        return [f"{ours}={value}"], 0
    return ([ours, after[0]], 1) if after else None


def _letters(letters: str, after: Words, own: Mapping[str, bool]) -> tuple[list[str], int] | None:
    """Letters behind one dash: ``-nx``, ``-w5``, ``-E 0``."""
    found: list[str] = []
    for at, letter in enumerate(letters):
        ours = _ours(f"-{letter}", own)
        if ours is None:
            return None
        if ours and own[ours]:
            value = letters[at + 1 :].removeprefix("=")
            if value:
                return [*found, ours, value], 0
            return ([*found, ours, after[0]], 1) if after else None
        found += [ours] if ours else []
    return found, 0


def _ours(flag: str, own: Mapping[str, bool]) -> str | None:
    """Lockkit's option for a foreign or misspelt one: ``""`` if it is not needed, None if there is none."""
    if flag in own:
        return flag
    habit = OPTIONS.get(flag)
    if habit in own or (habit == "" and "--no-wait" in own):
        return habit
    long = [each for each in own if each.startswith("--")]
    close = nearest(flag[2:], [each[2:] for each in long]) if flag.startswith("--") else None
    return None if close is None else f"--{close}"


def _flags(command: click.Command) -> dict[str, bool]:
    """The options of a command, each with whether it takes a value."""
    options = [one for one in command.params if isinstance(one, click.Option) and not one.hidden]
    found = {flag: not one.is_flag for one in options for flag in (*one.opts, *one.secondary_opts)}
    return found | {"--help": False, "-h": False}


def _head(words: Words) -> Words:
    """The words before ``--``."""
    return words[: words.index("--")] if "--" in words else words


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-" and word not in _STRING


def _is_program(word: str) -> bool:
    try:
        return bool(find(word, os.environ))
    except exits.CommandFailed:
        return False


# -- the check of a suggestion ------------------------------------------------------------------------------


def _parses(command: click.Command, words: Words) -> bool:
    """Whether lockkit accepts a line. Its words are parsed, unless that could run code of a plugin."""
    if "--help" in _head(words):
        return _below(command, [word for word in words if word != "--help"])[1] == []
    if list(words) == ["--version"]:
        return True
    command, left = _below(command, words)
    if isinstance(command, click.Group) or not _is_harmless(command):
        return False
    with click.Context(command, info_name=command.name) as probe:
        probe.meta[PROBE] = True
        try:
            command.parse_args(probe, left)
        except (click.ClickException, click.exceptions.Exit):
            return False
    return True


def _is_harmless(command: click.Command) -> bool:
    """Whether parsing a command's words runs no plugin code, opens no file to write, and asks nobody."""
    return _is_known(command) and all(
        _is_known(param)
        and _is_known(param.type)
        and param.callback is None
        and not callable(param.default)
        and not getattr(param, "prompt", None)
        and not isinstance(param.type, (click.Tuple, click.types.FuncParamType))
        and not (isinstance(param.type, click.File) and param.type.mode != "r")
        for param in command.params
    )


def _is_known(made: object) -> bool:
    return type(made).__module__.partition(".")[0] in ("click", "lockkit")


def _below(command: click.Command, words: Words) -> tuple[click.Command, list[str]]:
    """The command that the words lead to, and the words after it."""
    left = list(words)
    while isinstance(command, click.Group) and left:
        below = command.get_command(click.Context(command), left[0])
        if below is None:
            break
        command, left = below, left[1:]
    return command, left
