"""The command line that was probably meant by a wrong one: it is shown, and never run.

A suggestion can be pasted as it is. Its words are quoted for a shell, and it was parsed before it is shown. NAME stands in it for the
name of a lock that was not given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import click

from lockkit.cli import exits, translating
from lockkit.cli.suggesting import MEANT, PROBE, WORDS
from lockkit.cli.translating import Words
from lockkit.redaction import redact
from lockkit.settings import SETTINGS, nearest
from lockkit.suggesting import URL_FIRST, quoted

__all__ = ["check", "keep", "moved", "of_command", "of_gpus", "of_group", "of_run", "sentence"]

_DURATION = r"\d+(\.\d+)?(ms|s|m|h|d)?"
_CLAIM = "[0-9a-f]{12}"
_TRADES: Mapping[str, Sequence[Words]] = {
    **dict.fromkeys(("lock", "flock", "take", "get", "grab"), (("run",), ("acquire", "--ttl", "1h"))),
    **dict.fromkeys(("exec", "guard", "with", "do", "start"), (("run",),)),
    **dict.fromkeys(("unlock", "free", "drop", "give"), (("release",),)),
    **dict.fromkeys(("list", "ls", "ps", "who", "locks", "show"), (("status",), ("explain",))),
    **dict.fromkeys(("why", "info", "describe", "inspect", "holder"), (("explain",), ("status",))),
    **dict.fromkeys(("watch", "tail", "monitor"), (("status", "--watch"),)),
    **dict.fromkeys(("htop", "dashboard", "tui"), (("top",),)),
    **dict.fromkeys(("kill", "steal", "break", "force", "remove", "rm", "delete"), (("explain",),)),
    **dict.fromkeys(("force-release", "force-unlock", "force_release", "force_unlock"), (("explain",),)),
    **dict.fromkeys(("check", "health", "ping", "diagnose", "test"), (("doctor",),)),
    **dict.fromkeys(("settings", "env", "conf", "configuration"), (("config", "show"),)),
    **dict.fromkeys(("init", "setup"), (("config", "init"),)),
    **dict.fromkeys(("journal", "errors", "log", "logs"), (("failures", "list"),)),
    "version": (("--version",),),
}
"""Commands that people know from other programs, each with lockkit's commands to try in this order."""
_IN_GROUPS: Mapping[str, Words] = {
    "get": ("show",),
    "list": ("show",),
    "cat": ("show",),
    "print": ("show",),
    "unquarantine": ("clear",),
    **dict.fromkeys(("status", "ps", "show", "who", "smi"), ("ls",)),
    **dict.fromkeys(("watch", "top", "monitor"), ("ls", "--watch")),
    **dict.fromkeys(("resume", "enable", "uncordon", "undrain"), ("clear",)),
    **dict.fromkeys(("attach", "claim", "hold"), ("adopt",)),
}


def keep(ctx: click.Context, words: Words | None) -> None:
    """Keep a suggestion for the report of the error that comes next; without ``words`` there is none.

    A suggestion contains no URL with a secret, because it may end up in a log: the environment is to have the URL instead.
    """
    if words is not None:
        ctx.meta[MEANT] = sentence(words)


def sentence(words: Words) -> str:
    """A suggestion in words, for a hint. Where a secret stands in a word that must stay, only the help is suggested."""
    shown, first = _without_secret(words)
    if any("://" in word and redact(url := word.removeprefix("--url=")) != url for word in shown):
        return f"see: lockkit help {quoted(shown[0])}"
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
            close = nearest(word.lower(), known)
            if close is not None:
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

    def candidates() -> Iterator[list[str]]:
        run = ctx.find_root().command
        if path == ["gpu"] and args[0] == "run" and isinstance(run, click.Group):
            command, _ = _below(run, ["run"])
            guess = translating.run(command, ["--gpu", "1", *args[1:]])
            if guess is not None:
                yield ["run", *guess]
        yield from ([*path, *words] for words in _in_group(ctx, group, args))

    return _first(ctx, candidates())


def _in_group(ctx: click.Context, group: click.Group, args: Words) -> Iterator[list[str]]:
    name, rest = args[0], args[1:]
    if name == "help":
        yield [*rest, "--help"]
    if ctx.parent is None:
        if name in _TRADES:
            yield from _traded(group, _TRADES[name], rest)
            return  # many of these names are programs too, and a forgotten run must not become a line that runs rm
    elif name in _IN_GROUPS:
        yield [*_IN_GROUPS[name], *rest]
    close = nearest(name, group.list_commands(ctx))
    if close is not None:
        yield from ([close, *rest], [close], [close, "--help"])
    if ctx.parent is not None:
        if group.name == "failures" or name in SETTINGS:
            yield ["show", *args]
        return
    run = group.get_command(ctx, "run")
    if run is not None and rest and ("--" in rest or any(map(translating.is_program, args[:2]))):
        guess = translating.run(run, args)
        if guess is not None:
            yield ["run", *guess]


def _traded(group: click.Group, commands: Sequence[Words], rest: Words) -> Iterator[list[str]]:
    """The lines with lockkit's commands for the name of another program's: the words as they are, then translated, else the help."""
    yield from ([*words, *rest] for words in commands)
    for words in commands:
        command, _ = _below(group, words)
        translate = translating.run if words[0] == "run" else translating.translated
        guess = translate(command, rest)
        if guess is not None:
            yield [*words, *guess]
    yield [*(word for word in commands[0] if not word.startswith("-")), "--help"]


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
            guess = (
                translating.run(command, words) if path == ["run"] else translating.translated(command, words)
            )
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

    if path == ["acquire"]:
        more = translating.gpus_of(_below(ctx.find_root().command, ["run"])[0], words)
        if more:  # an acquire holds no GPUs: nobody would see that their user has ended
            return _first(ctx, [["run", *more, "--", "CMD"]])

    def candidates() -> Iterator[list[str]]:
        if isinstance(error, click.BadParameter) and not isinstance(error, click.MissingParameter):
            yield from _other_value(error, words)
        guess = (
            translating.run(ctx.command, words)
            if path == ["run"]
            else translating.translated(ctx.command, words)
        )
        if guess is not None:
            yield guess
        if path != ["run"] and words:
            yield from _bare(ctx.command, words)

    return _first(ctx, ([*path, *guess] for guess in candidates()))


def of_run(ctx: click.Context, words: Words) -> list[str] | None:
    """The line that was meant by the words after ``lockkit run`` where ``--`` is missing, or stands in the wrong place."""
    guess = translating.run(ctx.command, words)
    return None if guess is None else _first(ctx, [["run", *guess]])


def of_gpus(ctx: click.Context, names: Words) -> list[str] | None:
    """The line that was meant by a ``run`` with names whose options are about GPUs: without the names.

    Args:
        ctx: The context of the command.
        names: The names.
    """
    words: list[str] = ctx.meta[WORDS]
    at = words.index("--") if "--" in words else len(words)
    head = [*words[:at]]
    for name in names:
        if name in head:
            head.remove(name)
    return _first(ctx, [["run", *translating.with_gpu(head), *words[at:]]])


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
            close = nearest(value.lower().replace("-", "_"), known)
            if close is not None:
                yield [*words[:at], f"{option}{equals}{known[close]}", *words[at + 1 :]]


def _bare(command: click.Command, words: Words) -> Iterator[list[str]]:
    """The words with what stands there bare given to the option that needs it, or as one name with blanks that nobody quoted."""
    own = translating.flags(command)
    *before, last = words
    if re.fullmatch(_DURATION, last):
        yield from ([*before, option, last] for option in ("--ttl", "--timeout") if option in own)
    if "--claim" in own and "--reason" in own and len(words) > 1 and re.fullmatch(_CLAIM, words[1]):
        end = next((at for at, word in enumerate(words) if at > 1 and word.startswith("-")), len(words))
        reason = " ".join(words[2:end]) or "..."
        yield [words[0], "--claim", words[1], "--reason", reason, *words[end:]]
    if command.name == "quarantine" and len(words) == 1 and not last.startswith("-"):
        yield [last, "--reason", "..."]
    named = any(param.name == "name" for param in command.params)
    if named and len(words) > 1 and not any(word.startswith("-") for word in words):
        yield [" ".join(words)]


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
    """Whether a command's words can be parsed without running code of a plugin, opening a file to write or asking a person."""
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
