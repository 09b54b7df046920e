"""The types of the arguments and options of commands: how the text of each is read, shown and completed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import click

from lockkit.cli import completing
from lockkit.errors import ConfigError
from lockkit.store.queue import RW_CAPACITY
from lockkit.values import durations, names

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

__all__ = [
    "CAPACITY",
    "DURATION",
    "NAME",
    "NAMESPACE",
    "Duration",
    "File",
    "Name",
    "Namespace",
    "Number",
    "Remark",
    "Size",
    "finite",
]


if TYPE_CHECKING:
    _FloatType = click.ParamType[float, object]
    _StrType = click.ParamType[str, object]
    _IntType = click.ParamType[int, object]
else:
    _FloatType = _StrType = _IntType = click.ParamType  # not generic before click 8.4


class Duration(_FloatType):
    """``30s``, ``10m``, ``2h``, ``1h30m`` or a bare number of seconds.

    Args:
        zero: Whether 0 is allowed.
        limit: Whether ``forever`` and ``never`` are allowed, as infinity. See :func:`finite`.
    """

    name = "duration"

    def __init__(self, *, zero: bool = False, limit: bool = False) -> None:
        self.zero = zero
        self.limit = limit

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:  # noqa: ARG002 (8.1 has no ctx)
        return "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        read = durations.limit if self.limit else durations.parse
        try:
            seconds = read(str(value), what=_called(param), zero=self.zero)
        except ConfigError as error:
            self.fail(str(error), param, ctx)
        return math.inf if seconds is None else seconds


def finite(limit: float | None) -> float | None:
    """Convert a limit to Python's form, in which None means no limit."""
    return None if limit == math.inf else limit


class Number(click.IntRange):
    """A whole number in a range. The range is shown in errors, but not on the help page."""

    def _describe_range(self) -> str:
        return ""  # click would put its description of the range into every help record

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            number = int(str(value))
        except ValueError:
            number = None
        low, high = int(self.min or 0), None if self.max is None else int(self.max)
        if number is None or number < low or (high is not None and number > high):
            allowed = f"of at least {low}" if high is None else f"from {low} to {high}"
            self.fail(f"must be a whole number {allowed}, not {value!r}", param, ctx)
        return number


class Size(_IntType):
    """``20GiB`` or ``512MiB``, as bytes; at least 1 MiB."""

    name = "size"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:  # noqa: ARG002 (8.1 has no ctx)
        return "SIZE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from lockkit.values import sizes

        try:
            return sizes.parse(value, what=_called(param), least=sizes.MIB)
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class Name(_StrType):
    """The name of a lock. Shells complete it from the names that have claims."""

    name = "name"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return names.check_name(value)
        except ConfigError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return completing.names(ctx, param, incomplete)


class Namespace(_StrType):
    """A namespace. Shells complete it from those of the configuration and of the store."""

    name = "namespace"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return names.check_namespace(str(value))
        except ConfigError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return completing.namespaces(ctx, param, incomplete)


class File(_StrType):
    """The path of a file. :class:`click.Path`, when created, looks for a translation of its name."""

    name = "file"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return str(click.Path(dir_okay=False).convert(str(value), param, ctx))

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        return click.Path(dir_okay=False).shell_complete(ctx, param, incomplete)


class Remark(_StrType):
    """A reason or message: one line of characters that print, at most 200."""

    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from lockkit.notes import remarks

        try:
            return remarks.checked(value, _called(param))
        except ConfigError as error:
            self.fail(str(error), param, ctx)


CAPACITY = Number(1, RW_CAPACITY)
DURATION = Duration()
NAME = Name()
NAMESPACE = Namespace()


def _called(param: click.Parameter | None) -> str:
    return param.opts[-1] if param is not None and param.opts else "this"
