"""Logs of the command line: warnings and worse on stderr, as text or (``log_format = "json"``) one object a line."""

from __future__ import annotations

import json
import logging
import sys
from typing import Literal

__all__ = ["set_up"]

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = f"{record.levelname.lower()}: {record.getMessage()}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        from lockkit.cli.output import rfc3339

        document = {
            "schema": "lockkit.log/1",
            "at": rfc3339(record.created),
            "at_seconds": record.created,
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        document |= {
            key: value for key, value in record.__dict__.items() if key not in _STANDARD | document.keys()
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


def _worth_telling(record: logging.LogRecord) -> bool:
    # Which store is in use, and how far it reaches, is told where it matters: beside a wait, by status and by doctor.
    # As a warning it would come with every line of a crontab.
    return not record.getMessage().startswith("host-local lock in ")


def set_up(log_format: Literal["text", "json"]) -> None:
    """Send lockkit's warnings to stderr; once per process."""
    logger = logging.getLogger("lockkit")
    if any(isinstance(handler.formatter, (_Text, _Json)) for handler in logger.handlers):
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    handler.addFilter(_worth_telling)
    logger.addHandler(handler)
    logger.propagate = False
