"""Waking waiters."""

from __future__ import annotations

from collections.abc import Callable

from lockkit.store.log import Log

__all__ = ["wake_up"]


def wake_up(wake: Callable[[], None], log: Log) -> None:
    """Call a waiter's ``wake``, and log what it raises: the next waiters must still be woken."""
    try:
        wake()
    except Exception:
        log.exception("a wake-up callback failed")
