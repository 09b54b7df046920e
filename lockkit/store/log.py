"""Log records of lockkit's own threads, written by another thread, because the log is the user's code.

A handler may block (a pipe or a terminal that nobody reads), and a filter may raise. In a user's thread that
stops the call that logs. In the thread that renews locks, or declares them lost, it would stop all locks.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from lockkit.lib.forks import Forks
from lockkit.store.starting import OneThread, own_thread

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Log", "pending"]

_MOST = 10_000
"""Records that may wait to be written. Further ones are dropped, and their number is logged."""


class Log(logging.LoggerAdapter[logging.Logger]):
    """A logger that blocks no thread of lockkit: their records are written in order, soon; others at once.

    Args:
        name: The name of the logger.
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name))
        self.isEnabledFor = self.logger.isEnabledFor  # type: ignore[method-assign]  # each lock asks this

    def log(
        self,
        level: int,
        msg: object,
        *args: object,
        exc_info: object = None,
        extra: Mapping[str, object] | None = None,
        **_others: object,
    ) -> None:
        """Write a record as ``logging.Logger.log`` does; neither block nor raise in lockkit's own threads."""
        logger = self.logger
        if not logger.isEnabledFor(level):
            return
        if not own_thread():
            logger.log(level, msg, *args, exc_info=exc_info, extra=extra, stacklevel=2)  # type: ignore[arg-type]
            return
        error = exc_info if isinstance(exc_info, BaseException) else sys.exception() if exc_info else None
        trace = None if error is None else (type(error), error, error.__traceback__)
        with suppress(Exception):  # a factory of records may raise, too
            file, row, function, _ = logger.findCaller(stacklevel=2)
            record = logger.makeRecord(logger.name, level, file, row, msg, args, trace, function, extra)
            _WRITER.put(logger, record)


def pending() -> bool:
    """Whether records wait to be written, or one is being written."""
    return _WRITER.pending


class _Writer:
    """The thread that writes the records, and their queue; one for the process."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything: in a forked child there is no thread, and the records are the parent's."""
        self._queue: deque[tuple[logging.Logger, logging.LogRecord]] = deque()
        self._thread = OneThread(self._run, "lockkit-log")
        self._dropped = 0

    @property
    def pending(self) -> bool:
        return bool(self._queue) or self._thread.running

    def put(self, logger: logging.Logger, record: logging.LogRecord) -> None:
        if len(self._queue) >= _MOST:
            self._dropped += 1
            return
        self._queue.append((logger, record))
        try:
            self._thread.start()
        except RuntimeError:  # no thread can be started, as at the end of the interpreter
            self._run()

    def _run(self) -> None:
        while True:
            try:
                logger, record = self._queue.popleft()
            except IndexError:
                return
            try:
                logger.handle(record)
                dropped, self._dropped = self._dropped, 0
                if dropped:
                    logger.warning("%d log records were dropped, because the log stood still", dropped)
            except Exception:
                logging.Handler().handleError(record)  # as logging reports errors of its own: on stderr


_WRITER = _Writer()
Forks(in_child=_WRITER.restart)
