"""The entry point. A command's module is imported when it is called, so that ``run`` starts quickly."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn

import click

from lockkit.cli import completing, exits, streams
from lockkit.cli.base import Group, Option, heading
from lockkit.cli.signals import Terminated
from lockkit.config.suggesting import quoted
from lockkit.hooks import of_gpus

__all__ = ["COMMANDS", "cli", "main", "run"]

COMMANDS: dict[str, dict[str, str]] = {
    "Guard a command": {
        "run": "Run a command while holding a lock.",
    },
    "Look": {
        "status": "Show who holds which lock and who waits.",
        "top": "Show who blocks whom, live, with keys to intervene.",
        "explain": "Explain in sentences why a lock is not free.",
        "gpu": "Show the GPUs of this host, and who uses them.",
        "metrics": "Print what the store says, for Prometheus.",
        "namespaces": "List the namespaces of the store.",
        "wait": "Wait until a lock is free, without taking it.",
        "history": "Show who held which lock, and when.",
        "report": "Add up who held and waited for how long.",
        "audit": "Check that exclusion held, by event journals.",
        "doctor": "Check store, configuration, plugins and GPUs.",
        "serve": "Serve health, locks and GPUs over HTTP.",
        "docs": "Show a page of the documentation.",
        "help": "Show how a command is used.",
    },
    "Hold across commands (scripts, CI, systemd)": {
        "acquire": "Take a lock and keep it until it is released or lapses.",
        "release": "Release a lock taken with acquire.",
        "held": "Check whether acquire's lock is still held.",
    },
    "Intervene": {
        "ask-release": "Ask a holder to release its lock.",
        "evict": "Force one claim out of a lock.",
        "drain": "Give no new locks in a namespace; holders finish.",
        "undrain": "Give new locks in a namespace again.",
        "alerts": "Show, silence and acknowledge alerts; test channels.",
        "resize": "Change the capacity of a semaphore in use.",
        "failures": "Show and resolve releases that failed.",
        "recover": "Remove what dead owners left behind.",
    },
    "Set up": {
        "host": "One store for all users of a group on this host.",
        "store": "Make a moved or restored store usable.",
        "config": "Show, check or create the configuration.",
        "plugins": "List plugins with their hooks and load errors.",
        "guard": "Show that a resource refuses a stale fence.",
        "completion": "Print a completion script for a shell.",
    },
    "Try": {
        "demo": "Watch real processes compete for one lock.",
        "bench": "Measure lockkit on this machine.",
    },
}
"""The built-in commands by section, each with a one-line description, so that help need not import them."""

_BUILT_IN = {name: summary for section in COMMANDS.values() for name, summary in section.items()}
_OF_GPUS = ("gpu",)
"""The commands of lockkit's own plugin for GPUs, which is asked even if the configuration is wrong."""
_PLUGGED = "From plugins"


class Lockkit(Group):
    """All commands. Built-in ones are imported when used; plugins load only for other ones, or for a list."""

    plugged = False

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        typed = [*args]
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            from lockkit.cli import guessing

            words = guessing.of_group(ctx, self, typed)
            guessing.keep(ctx, words)
            if words is None and error.option_name not in ("--json", "--url", "--profile", "--namespace"):
                raise
            ctx.fail(f"{error.option_name} goes after the command, as every option does")

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        with _ending_by_signals():
            return super().make_context(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:
        with _ending_by_signals():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._ask_plugins()
        return [*_BUILT_IN, *sorted(set(super().list_commands(ctx)) - _BUILT_IN.keys())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _BUILT_IN:
            if cmd_name in _OF_GPUS:
                own = click.Group()
                of_gpus("lockkit_commands")(own)
                return own.commands[cmd_name]
            command = import_module(f"lockkit.cli.commands.{cmd_name.replace('-', '_')}").command
            assert isinstance(command, click.Command)
            return command
        self._ask_plugins()
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        others = [name for name in self.list_commands(ctx) if name not in _BUILT_IN]
        rows = {title: list(section.items()) for title, section in COMMANDS.items()}
        if others:
            found = [(name, self.get_command(ctx, name)) for name in others]
            rows[_PLUGGED] = [(name, one.get_short_help_str(70)) for name, one in found if one is not None]
        width = max(len(name) for section in rows.values() for name, _ in section) + 2
        for title, section in rows.items():
            with formatter.section(heading(title)):
                formatter.write_dl([(name.ljust(width), text) for name, text in section])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            if not ctx.resilient_parsing:
                from lockkit.cli import guessing

                guessing.keep(ctx, guessing.of_group(ctx, self, args))
            ctx.fail(f"there is no command lockkit {quoted(name)}")
        return super().resolve_command(ctx, args)

    def _ask_plugins(self) -> None:
        if not self.plugged:
            self.plugged = True
            from lockkit.cli.plugged import add_commands

            add_commands(self)


@contextmanager
def _ending_by_signals() -> Iterator[None]:
    """End like a program that SIGPIPE or SIGINT killed. click would exit with 1 and write an empty line."""
    try:
        yield
    except BrokenPipeError:
        streams.forget_stdout()
        raise click.exceptions.Exit(128 + 13) from None
    except KeyboardInterrupt as interrupt:
        raise click.Abort from interrupt


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 (click's)
    if value and not ctx.resilient_parsing:
        from lockkit._version import __version__

        print(f"lockkit {__version__}")
        ctx.exit(0)


cli = Lockkit(
    "lockkit",
    params=[
        Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Show the version.",
        )
    ],
    help="""Locks for shell commands and Python programs: each lock is a fair queue.

    Every command takes --json. Those that use a store take --url, --profile and --namespace. To see how one
    is used: lockkit help COMMAND.
    """,
    examples="""
lockkit run backup -- rsync -a /data /mnt    # one at a time; others wait
lockkit status                               # who holds what
lockkit demo                                 # see it work, in 8 seconds
""",
)


def run(args: Sequence[str]) -> int:
    """Run one command and return the exit code. Errors are reported on stderr."""
    as_json = _as_json(args)
    try:
        result: Any = cli.main(list(args), prog_name="lockkit", standalone_mode=False)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except (Exception, KeyboardInterrupt, Terminated) as error:
        unwritable = streams.unwritable(error)
        if unwritable is not None:
            streams.forget_stdout()
        return exits.report(unwritable or error, as_json=as_json)
    return result if isinstance(result, int) else exits.OK


def main(args: Sequence[str] | None = None) -> NoReturn:
    """``lockkit ...``: the console script."""
    gc.freeze()  # what the imports have made stays
    streams.prepare()
    if completing.VARIABLE in os.environ:
        completing.begin()
    words = sys.argv[1:] if args is None else args
    code = run(words)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        streams.forget_stdout()
    except OSError as error:
        streams.forget_stdout()
        # After a run, the command's own exit code matters more than output that could not be written.
        code = code or exits.report(streams.unwritable(error) or error, as_json=_as_json(words))
    gc.freeze()  # at its end the interpreter would look through everything, twice
    sys.exit(code)


def _as_json(args: Sequence[str]) -> bool:
    return "--json" in args[: args.index("--")] if "--" in args else "--json" in args
