"""``manage.py lockkit_run NAME -- COMMAND``: any management command, also of others, while a lock is held."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management import execute_from_command_line
from django.core.management.base import CommandError, CommandParser

from lockkit.errors import ConfigError
from lockkit.integrations.django.locked_command import LockedCommand
from lockkit.values import durations

__all__ = ["Command"]

_USAGE = 64
"""The exit code of a command line that cannot be understood, as in lockkit's own commands."""


class Command(LockedCommand):
    """Run a management command under the lock NAME: ``manage.py lockkit_run nightly -- clearsessions``."""

    help = (
        "Run a management command while holding the lock NAME: "
        "manage.py lockkit_run nightly --no-wait -- clearsessions"
    )
    lock = "{name}"
    requires_system_checks: list[str] = []  # noqa: RUF012 (Django's own form; the command makes its own checks)
    words: tuple[str, ...] = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options, which are called as those of ``lockkit run``."""
        parser.usage = "manage.py lockkit_run NAME [options] -- COMMAND ..."
        parser.add_argument("name", help="the name of the lock")
        parser.add_argument("--timeout", help="wait at most this long, such as 10m (for ever)")
        parser.add_argument(
            "--no-wait", action="store_true", help="do not wait; exit with 75 if the lock is busy"
        )
        parser.add_argument("--skip", action="store_true", help="exit with 0 if the lock is busy")
        parser.add_argument("--ttl", help="how long the lock is kept without a renewal")
        parser.add_argument("--min-hold", help="keep the lock blocked for at least this long")
        parser.add_argument("--max-hold", help="end the hold after this long")

    def run_from_argv(self, argv: list[str]) -> None:
        """Take what follows ``--`` as the command."""
        head, words = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
        self.words = tuple(words)
        super().run_from_argv(head)

    def execute(self, *args: Any, **options: Any) -> Any:
        """Run the command while the lock is held.

        Raises:
            CommandError: As for :class:`LockedCommand`, or the command is missing or an option invalid.
        """
        if not self.words:
            raise CommandError("the command is missing, which goes after --", returncode=_USAGE)
        try:
            self.ttl, self.min_hold, self.max_hold = (
                self._seconds(options, option) for option in ("ttl", "min_hold", "max_hold")
            )
            self.timeout = 0.0 if options["no_wait"] else self._seconds(options, "timeout")
        except ConfigError as error:
            raise CommandError(str(error), returncode=_USAGE) from error
        self.on_busy = "skip" if options["skip"] else "fail"
        return super().execute(*args, **options)

    def handle(self, *args: object, **options: object) -> None:  # noqa: ARG002 (Django's signature)
        """Run the command as ``manage.py`` does."""
        execute_from_command_line([sys.argv[0], *self.words])

    @staticmethod
    def _seconds(options: dict[str, Any], option: str) -> float | None:
        said = options[option]
        return None if said is None else durations.parse(said, what=option, zero=option != "ttl")
