"""The base of all commands: common options, help pages with examples, and a session that connects on demand.

@command("wait", section=..., examples="lockkit wait backup")
@click.argument("name", type=NAME)
def command_(session: Session, name: str) -> int | None: ...
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import click

from lockkit.cli import completing
from lockkit.cli.suggesting import MEANT, PROBE, WORDS, as_called
from lockkit.config.suggesting import quoted
from lockkit.errors import BackendUnavailable
from lockkit.lib.namedtuples import NamedTuple

if TYPE_CHECKING:
    from lockkit.config.config import Config
    from lockkit.sync.client import Client

__all__ = [
    "Command",
    "Group",
    "Option",
    "Session",
    "command",
    "in_namespace",
    "option",
]

COMMON = "Common options"


class Session(NamedTuple):
    """The values of the common options, and an application's settings over lockkit's configuration.

    Attributes:
        settings: The settings of the application, as ``connect`` takes them.
        sources: The origin of each setting of the application, by its key.
    """

    json: bool = False
    url: str | None = None
    profile: str | None = None
    namespace: str | None = None
    settings: Mapping[str, object] = {}
    sources: Mapping[str, str] = {}

    def of_app(self, settings: Mapping[str, object], prefix: str) -> Session:
        """The session with the settings of an application. Common options of the call come first.

        Args:
            settings: The settings, as ``connect`` takes them.
            prefix: The beginning of their names in the application, for people.
        """
        own: dict[str, Any] = {"url": self.url, "profile": self.profile, "namespace": self.namespace}
        given = {key: value for key, value in settings.items() if own.get(key) is None}
        sources = {key: f"{prefix}{key}" for key, value in given.items() if value is not None}
        chosen: dict[str, Any] = {
            key: value if value is not None else given.pop(key, None) for key, value in own.items()
        }
        return self._replace(settings=given, sources=sources, **chosen)

    def config(self) -> Config:
        """Read the configuration."""
        from lockkit.cli import logs
        from lockkit.config import config

        logs.keep()
        log_format: Literal["text", "json"] = "json" if self.json else "text"
        try:
            loaded = config.load(
                url=self.url,
                profile=self.profile,
                namespace=self.namespace,
                **config.keywords(self.settings),
            )
            if self.sources:
                loaded = loaded._replace(sources={**loaded.sources, **self.sources})
            log_format = "json" if self.json else loaded.log_format
        finally:
            logs.set_up(log_format)
        return loaded

    @contextmanager
    def client(
        self, *, where: Literal["process", "wrapper"] = "process", plugins: Sequence[object] = ()
    ) -> Iterator[Client]:
        """A connected client, which is closed at the end and then releases what it still holds."""
        import lockkit

        config = self.config()
        client = lockkit.connect(config=config, where=where, plugins=plugins)
        try:
            yield client
        except BackendUnavailable as error:
            error.hint = "; ".join(filter(None, (error.hint, self._about_store(config))))
            raise
        finally:
            client.close()

    def _about_store(self, config: Config) -> str:
        """Where the URL of a store that cannot be used came from, and the command that checks the store."""
        from lockkit.config.layers import ARGUMENT

        source = config.source("url")
        told = (
            f"the URL of the store is from {source}; " if config.is_set("url") and source != ARGUMENT else ""
        )
        options, first = as_called(self)
        return f"{told}to check it{first}: lockkit doctor{options}"


class Option(click.Option):
    """An option with its own heading on the help page. Its help is one paragraph without indentation."""

    def __init__(self, *args: Any, section: str | None = None, **attrs: Any) -> None:
        text: str | None = attrs.pop("help", None)
        super().__init__(*args, **attrs)
        self.section = section
        self.help = text  # click would import inspect to remove the indentation, which takes 5 of 100 ms


def option(*declarations: str, section: str | None = None, **attrs: Any) -> Callable[[Any], Any]:
    """``click.option`` with a ``section``."""
    return click.option(*declarations, cls=Option, section=section, **attrs)


def in_namespace(session: Session, namespace: str | None) -> Session:
    """The session, in the namespace given as an argument, if there is one.

    Raises:
        UsageError: ``--namespace`` has another one.
    """
    if namespace is None or namespace == session.namespace:
        return session
    if session.namespace is not None:
        raise click.UsageError(
            f"two namespaces are given: {namespace} and --namespace {session.namespace}",
            click.get_current_context(),
        )
    return session._replace(namespace=namespace)


class _Page:
    """The help page: usage, text, examples, and options under their headings."""

    _help: click.Option | None = None

    def __init__(self, *args: Any, examples: str = "", **attrs: Any) -> None:
        attrs.setdefault(
            "context_settings", {"help_option_names": ["-h", "--help"], "max_content_width": 100}
        )
        super().__init__(*args, **attrs)
        self.examples = examples

    def get_help_option(self, ctx: click.Context) -> click.Option | None:
        """The option ``--help``, as click's, but without the search for translations (2 of 100 ms)."""
        names = self.get_help_option_names(ctx)  # type: ignore[attr-defined]  # mixed into click.Command
        if self._help is None and names:
            self._help = Option(
                [*names, "_help"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_help,
                help="Show this message and exit.",
            )
        return self._help

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (click's)
        if self.examples:
            with formatter.section(heading("Examples")):
                for line in self.examples.strip().splitlines():
                    formatter.write(f"{'':>{formatter.current_indent}}{line}".rstrip() + "\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):  # type: ignore[attr-defined]  # mixed into click.Command
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                title = getattr(param, "section", None) or (
                    COMMON if "--help" in param.opts else "Options"  # its name depends on click's version
                )
                sections.setdefault(title, []).append(record)
        for title in sorted(sections, key=lambda one: one == COMMON):
            with formatter.section(heading(title)):
                formatter.write_dl(sections[title])


def _show_help(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 (click's)
    if value and not ctx.resilient_parsing:
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def heading(text: str) -> str:
    """A heading, bold on a terminal."""
    bold = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return click.style(text, bold=True) if bold else text


class Command(_Page, click.Command):
    """A command with the common options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = ctx.meta.setdefault(WORDS, [*args])
        if ctx.resilient_parsing and args and self._takes_value(args[-1]):
            # The value is being completed; without it click would not read what stands before.
            args = args[:-1]
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            error.ctx = error.ctx or ctx
            if MEANT not in ctx.meta and PROBE not in ctx.meta and not ctx.resilient_parsing:
                from lockkit.cli import guessing

                guessing.keep(ctx, guessing.of_words(ctx, words))
            raise

    def _takes_value(self, word: str) -> bool:
        return any(
            isinstance(param, click.Option) and word in param.opts and not param.is_flag
            for param in self.params
        )


class Group(_Page, click.Group):
    """A command with subcommands, such as ``failures list``. Usage errors list the subcommands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and not ctx.resilient_parsing:
            print(ctx.get_help())
            ctx.exit(64)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        super().format_options(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            from lockkit.cli import guessing

            words = guessing.of_group(ctx, self, args)
            guessing.keep(ctx, words)
            known = "" if words else f"; the commands are {', '.join(self.list_commands(ctx))}"
            ctx.fail(f"there is no command {ctx.command_path} {quoted(name)}{known}")
        return super().resolve_command(ctx, args)


PROFILE = option(
    "--profile",
    metavar="NAME",
    section=COMMON,
    shell_complete=completing.profiles,
    help="Use this profile of the configuration.",
)
_COMMON: Sequence[Callable[[Any], Any]] = (
    option("--json", "json_", is_flag=True, section=COMMON, help="Write JSON documents, also for errors."),
    option("--url", metavar="URL", section=COMMON, help="Use this store, e.g. redis://localhost:6379."),
    PROFILE,
    option(
        "--namespace",
        metavar="NAME",
        section=COMMON,
        shell_complete=completing.namespaces,
        help="Use this namespace of lock names.",
    ),
)


def command(
    name: str,
    *,
    examples: str,
    cls: type[Command] = Command,
    group: Group | None = None,
    hidden: bool = False,
    store: bool = True,
    short: str | None = None,
) -> Callable[[Callable[..., int | None]], Command]:
    """Turn ``function(session, **options) -> exit code or None`` into a command with the common options.

    Without ``store`` it has no options that choose a store and a namespace. ``short`` is its row in the
    list of its group, if the first sentence of its help is too long for 80 columns.
    """

    def decorate(function: Callable[..., int | None]) -> Command:
        def callback(
            *,
            json_: bool,
            url: str | None = None,
            profile: str | None = None,
            namespace: str | None = None,
            **rest: Any,
        ) -> int | None:
            return function(Session(json_, url, profile, namespace), **rest)

        params: list[click.Parameter] = list(reversed(getattr(function, "__click_params__", [])))
        for add in reversed(_COMMON if store else _COMMON[:1]):
            callback = add(callback)
        common: list[click.Parameter] = list(reversed(callback.__click_params__))  # type: ignore[attr-defined]
        made = cls(
            name,
            params=params + common,
            callback=callback,
            help=(function.__doc__ or "").replace(r"\b", "\b"),  # click's mark: keep these lines apart
            examples=examples,
            hidden=hidden,
            short_help=short,
        )
        if group is not None:
            group.add_command(made)
        return made

    return decorate
