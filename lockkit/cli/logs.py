"""Logs on stderr: warnings and errors, as text or (``log_format = "json"``) one object per line."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TextIO

from lockkit.cli import rows
from lockkit.lib.printable import printable

__all__ = ["held_back", "keep", "set_up"]

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


def _for_people(record: logging.LogRecord) -> bool:
    # A command reports the loss of its lock and the consequences itself; this sentence is for programmers.
    text = record.getMessage()
    return not (text.startswith("the hold of ") and " may have lapsed" in text)


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = f"{record.levelname.lower()}: {record.getMessage()}"
        more = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return printable(text + more, lines=True)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        from lockkit.cli.documents import Log
        from lockkit.views.documents import plain
        from lockkit.views.making import made_of

        message = record.getMessage()
        document = plain(
            made_of(Log, at=record.created, level=record.levelname, logger=record.name, message=message)
        )
        document |= {
            key: value for key, value in record.__dict__.items() if key not in _STANDARD | document.keys()
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return rows.document(document, sys.stderr)


def _worth_telling(record: logging.LogRecord) -> bool:
    # A wait, status and doctor show the store in use and its reach. A warning as well would make cron send a
    # mail for every job. evict, resize and run report themselves what they did or heard; run and acquire also
    # what they wait for, unless -q says that nobody wants to know.
    return not record.getMessage().startswith(
        ("the locks are in ", "evicted", "resized", "asked to release ", "still waiting for ")
    )


class _Stderr(logging.StreamHandler[TextIO]):
    """A handler that keeps records for later.

    Attributes:
        early: The records from before the log format is known; None afterwards.
        held: The records of a :func:`held_back` block; None outside of one.
    """

    def __init__(self) -> None:
        super().__init__(sys.stderr)
        self.setLevel(logging.WARNING)
        self.addFilter(_worth_telling)
        self.early: list[logging.LogRecord] | None = []
        self.held: deque[logging.LogRecord] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        kept = self.early if self.held is None else self.held
        if kept is None:
            super().emit(record)
        else:
            kept.append(record)

    def begin(self, formatter: logging.Formatter) -> None:
        self.setFormatter(formatter)
        if isinstance(formatter, _Text):
            self.addFilter(_for_people)
        early, self.early = self.early or [], None
        for record in early:
            super().emit(record)


def keep() -> None:
    """Collect lockkit's warnings until :func:`set_up` sets their format; once per process."""
    logger = logging.getLogger("lockkit")
    if not any(isinstance(handler, _Stderr) for handler in logger.handlers):
        logger.addHandler(_Stderr())
        logger.propagate = False


@contextmanager
def held_back(known: Callable[[str], bool], most: int | None = None) -> Iterator[None]:
    """Hold back the last ``most`` messages of the block, and at its end write those not ``known``."""
    handlers = [each for each in logging.getLogger("lockkit").handlers if isinstance(each, _Stderr)]
    for handler in handlers:
        handler.held = deque(maxlen=most)
    try:
        yield
    finally:
        for handler in handlers:
            records, handler.held = handler.held or (), None
            for record in records:
                if not known(record.getMessage()):
                    handler.emit(record)


def set_up(log_format: Literal["text", "json"]) -> None:
    """Send lockkit's warnings to stderr."""
    keep()
    for handler in logging.getLogger("lockkit").handlers:
        if isinstance(handler, _Stderr):
            handler.begin(_Json() if log_format == "json" else _Text())
