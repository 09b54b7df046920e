"""Exit codes, and the exit code of each error.

The codes follow flock(1), timeout(1) and sysexits.h, so that a script's ``case $?`` keeps its meaning.
"""

from __future__ import annotations

import re
import sys
import traceback
from typing import TYPE_CHECKING

import click

from lockkit.cli.signals import Terminated
from lockkit.cli.suggesting import MEANT, WORDS
from lockkit.errors import (
    AcquireCancelled,
    AcquireError,
    AcquireTimeout,
    BackendError,
    CapabilityError,
    CapacityMismatch,
    ConfigError,
    DevicesNotReady,
    DevicesUnavailable,
    IncompatibleLayout,
    LockkitError,
    OwnershipError,
    PluginError,
    ReleaseFailed,
)
from lockkit.lib.printable import printable

if TYPE_CHECKING:
    from lockkit.cli import documents
    from lockkit.facts import ClaimInfo

__all__ = [
    "BUSY",
    "CANNOT_EXECUTE",
    "CONFIG",
    "FAILED",
    "INTERNAL",
    "INTERRUPTED",
    "LOST",
    "NOT_FOUND",
    "OK",
    "TIMED_OUT",
    "UNAVAILABLE",
    "UNDECIDED",
    "USAGE",
    "CommandFailed",
    "code_of",
    "describe",
    "report",
]

OK = 0
FAILED = 1
USAGE = 64
UNDECIDED = 65
UNAVAILABLE = 69
INTERNAL = 70
BUSY = 75
LOST = 76
CONFIG = 78
TIMED_OUT = 124
CANNOT_EXECUTE = 126
NOT_FOUND = 127
INTERRUPTED = 130

# The first match counts, so special errors come before general ones.
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (AcquireTimeout, TIMED_OUT),
    (CapacityMismatch, CONFIG),
    (AcquireCancelled, INTERRUPTED),
    (AcquireError, BUSY),
    (OwnershipError, LOST),
    (IncompatibleLayout, CONFIG),
    (BackendError, UNAVAILABLE),
    (ReleaseFailed, UNAVAILABLE),
    (CapabilityError, CONFIG),
    (ConfigError, CONFIG),
    (DevicesNotReady, UNAVAILABLE),
    (DevicesUnavailable, CONFIG),
    (PluginError, CONFIG),
    (click.UsageError, USAGE),
    (click.Abort, INTERRUPTED),
    (click.ClickException, USAGE),
    (KeyboardInterrupt, INTERRUPTED),
)


class CommandFailed(LockkitError):
    """A negative result of a command, reported like an error, with an exit code of its own.

    Args:
        kind: The word under ``error`` in the JSON document.
        code: The exit code.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int,
        kind: str,
        name: str | None = None,
        holder: ClaimInfo | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, name=name, holder=holder, hint=hint)
        self.code = code
        self.kind = kind


def code_of(error: BaseException) -> int:
    """The exit code for an error that ends a command."""
    if isinstance(error, CommandFailed):
        return error.code
    if isinstance(error, Terminated):
        return 128 + error.number
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return INTERNAL


def describe(error: BaseException, code: int | None = None) -> documents.Error:
    """The ``lockkit.error/1`` document of an error; the exit code is :func:`code_of` unless given."""
    from lockkit.cli import documents
    from lockkit.views.making import made_of

    return made_of(
        documents.Error,
        error=error.kind if isinstance(error, CommandFailed) else type(error).__name__,
        message=_message(error),
        name=getattr(error, "name", None),
        holder=getattr(error, "holder", None),
        hint=_hint(error),
        exit_code=code_of(error) if code is None else code,
    )


def report(error: BaseException, *, as_json: bool, code: int | None = None) -> int:
    """Report on stderr why a command ends; the reason is the last line. Returns the exit code.

    Args:
        error: The error that ended the command.
        as_json: Write the ``lockkit.error/1`` document in one line instead.
        code: The exit code, if it is not :func:`code_of` (``-E``).
    """
    code = code_of(error) if code is None else code
    if code == INTERNAL:
        sys.stderr.write(printable("".join(traceback.format_exception(error)), lines=True))
    if sys.stderr.isatty() and code_of(error) == INTERRUPTED:
        from lockkit.cli import output

        # The terminal has written ^C in this line.
        sys.stderr.write("\r\x1b[K" if output.colour(sys.stderr) else "\n")
    if as_json:
        from lockkit.cli import output

        output.write_json(describe(error, code), stream=sys.stderr)
        return code
    hint = _hint(error)
    *before, last = printable(_message(error), lines=True).rstrip("\n").split("\n")
    last = last or type(error).__name__
    meant = _meant(error)
    if meant:  # at the end, so that it can be selected and pasted
        last = f"{last}; {printable(meant)}"
    elif hint:  # on the same line, however long it gets, because the last line must contain the reason
        last = f"{last} ({printable(' '.join(hint.split()))})"
    for line in before:
        print(line, file=sys.stderr)
    print(f"lockkit: {last}", file=sys.stderr)
    return code


def _message(error: BaseException) -> str:
    if isinstance(error, LockkitError):
        return error.message
    if isinstance(error, click.UsageError):
        return _wording(error)
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, (KeyboardInterrupt, click.Abort)):
        return "interrupted"
    if isinstance(error, Terminated):
        return str(error)
    return f"internal error: {type(error).__name__}: {error}"


def _hint(error: BaseException) -> str | None:
    if isinstance(error, click.UsageError):
        meant = _meant(error)
        return _usage(error.ctx) if meant is None else meant
    if code_of(error) == INTERNAL:
        return "this is a bug in lockkit or in a plugin; please report it with the lines above"
    hint = getattr(error, "hint", None)
    return hint if isinstance(hint, str) else None


def _meant(error: BaseException) -> str | None:
    """The suggestion that :func:`lockkit.cli.guessing.keep` has kept for an error."""
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    meant = None if ctx is None else ctx.meta.get(MEANT)
    return meant if isinstance(meant, str) else None


def _usage(ctx: click.Context | None) -> str | None:
    """An example of a command, and where to read more."""
    if ctx is None:
        return None
    see = f"see: {ctx.command_path} --help"
    examples: str = getattr(ctx.command, "examples", "")
    lines = [one for one in examples.splitlines() if one.startswith(f"{ctx.command_path} ")]
    if any(word.startswith("--gpu") for word in ctx.meta.get(WORDS, ())):
        lines = [one for one in lines if "--gpu" in one] or lines
    line = next(iter(lines), None)
    if ctx.parent is None or line is None:
        return see
    return f"for example: {line.partition('  #')[0].rstrip()}; {see}"


def _wording(error: click.UsageError) -> str:
    """The message of a command-line error in lockkit's own words: those of click change."""
    if isinstance(error, click.NoSuchOption):
        return f"there is no option {error.option_name}"
    if isinstance(error, click.BadOptionUsage):
        return f"{error.option_name} {'needs a' if 'require' in error.message else 'takes no'} value"
    if isinstance(error, click.MissingParameter):
        return f"{_called(error)} is missing"
    if isinstance(error, click.BadParameter):
        called, message = _called(error), error.message.rstrip(".")
        return message if message.startswith(called) else f"{called}: {message}"
    extra = re.match(r"Got unexpected extra arguments? \((.*)\)$", error.message)
    return f"{extra[1]!r} is one word too many" if extra else error.message


def _called(error: click.BadParameter) -> str:
    """The option or argument that an error is about, as the help page writes it."""
    param = error.param
    if isinstance(param, click.Option):
        return param.opts[-1]
    if param is None:
        return "a value"
    return (param.metavar or str(param.name).upper()).strip("[].")
