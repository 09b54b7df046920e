"""Management commands that hold a lock while they run."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from django.core.management.base import BaseCommand, CommandError

from lockkit.errors import (
    AcquireTimeout,
    BackendError,
    CapabilityError,
    ConfigError,
    LeaseLost,
    LockkitError,
)
from lockkit.integrations.django.clients import client
from lockkit.sync.decorator import fields_of, filled

if TYPE_CHECKING:
    from lockkit.shared.options import Options
    from lockkit.sync.lease import Lease

__all__ = ["LockedCommand"]

BUSY, TIMED_OUT, LOST, UNAVAILABLE, CONFIG, FAILED = 75, 124, 76, 69, 78, 1
"""Exit codes, the same as those of ``lockkit run``."""


class LockedCommand(BaseCommand):
    """A management command that runs only while it holds a lock, on whichever host or pod it is started.

    The lock is taken before Django's system checks, and released when the command has ended, also by an
    exception, Ctrl-C or SIGTERM (``SystemExit(143)``). Its loss does not stop the command, which fails with
    76: use ``self.lease.fence``, check ``self.lease.valid()``, or use ``lockkit run``, which ends it.

    Attributes:
        lock: The name of the lock, with ``{option}`` for an option's value; empty for the command's name.
        timeout: Seconds to wait for the lock; 0 for a single look, None for as long as it takes.
        on_busy: ``fail`` exits with 75 (124 after a wait), ``skip`` says who holds the lock and exits with 0.
        ttl: Seconds that the store keeps the lock without renewal; None for lockkit's own setting.
        min_hold: The least seconds for which the lock blocks, so that a late scheduler skips a short job.
        max_hold: Seconds after which the hold ends although the command still runs.
        lease: The hold, while the command runs.
    """

    lock: str = ""
    timeout: float | None = 0.0
    on_busy: Literal["fail", "skip"] = "fail"
    ttl: float | None = None
    min_hold: float | None = None
    max_hold: float | None = None
    lease: Lease

    def run_from_argv(self, argv: list[str]) -> None:
        """Run as ``manage.py`` does, but with SIGTERM as an exception, so that the lock is released."""
        with _ended_by_sigterm():
            super().run_from_argv(argv)

    def execute(self, *args: Any, **options: Any) -> Any:
        """Run the command while the lock is held.

        Raises:
            CommandError: The lock is busy, was lost, or could not be asked for; ``returncode`` says which.
        """
        stderr = options.get("stderr") or self.stderr
        try:
            name = self.lock_name(options)
            lease = self._acquired(name)
        except AcquireTimeout as busy:
            if self.on_busy == "skip":
                stderr.write(f"skipped: {busy}")
                return None
            raise CommandError(str(busy), returncode=TIMED_OUT if self.timeout else BUSY) from busy
        except LockkitError as error:
            raise CommandError(str(error), returncode=_code_of(error)) from error
        self.lease = lease
        try:
            with lease:
                return super().execute(*args, **options)
        except LeaseLost as lost:
            if lost.name != name:
                raise  # of another lock, which the command took by itself
            raise CommandError(str(lost), returncode=LOST) from lost

    def lock_name(self, options: dict[str, Any]) -> str:
        """The name of the lock of one run.

        Raises:
            ConfigError: The template names no option, or one whose text may differ between equal calls.
        """
        if not self.lock:
            return type(self).__module__.rpartition(".")[2]
        for field in fields_of(self.lock):
            if field not in options:
                raise ConfigError(f"{self.lock!r} names {field!r}, which is no option of the command")
        return filled(self.lock, options)

    def _acquired(self, name: str) -> Lease:
        options: Options = {}
        if self.ttl is not None:
            options["ttl"] = self.ttl
        if self.min_hold is not None:
            options["min_hold"] = self.min_hold
        if self.max_hold is not None:
            options["max_hold"] = self.max_hold
        return client().lock(name, **options).acquire(timeout=self.timeout)


def _code_of(error: LockkitError) -> int:
    if isinstance(error, BackendError):
        return UNAVAILABLE
    return CONFIG if isinstance(error, ConfigError | CapabilityError) else FAILED


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM raise SystemExit in the main thread, if nobody else handles it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
