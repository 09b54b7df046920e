"""Checks of the error for a broken store: one clear error, in time, and without the password."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable

import pytest

from lockkit.errors import LockkitError
from lockkit.plugins import PluginManager
from lockkit.store.spi import OpenOptions, Refused, Unknown
from lockkit.sync.client import connect
from lockkit.testing.claims import BUDGET, claim

__all__ = ["IN_TIME", "SECRET", "both_ways", "through_a_client", "through_the_store", "told", "trouble"]

IN_TIME = BUDGET + 8.0
"""Seconds; a call that ignores its budget waits for ever, and a busy machine may add some to the budget."""
SECRET = "hunter2"  # noqa: S105 - it is nobody's
"""The password to use in URLs, so that a test notices it in any text."""


def through_the_store(url: str) -> None:
    """Acquire with the backend alone, without a client."""
    store = PluginManager(()).open(url, OpenOptions())
    try:
        store.acquire(claim(), True, BUDGET)
    finally:
        store.close()


def through_a_client(url: str) -> None:
    """Acquire as users do, without waiting."""
    with connect(url) as client:
        client.lock("a").acquire(timeout=0)


both_ways = pytest.mark.parametrize("way", [through_the_store, through_a_client])


def told(error: BaseException | None) -> str:
    """All texts of an error that a program may print."""
    texts = traceback.format_exception(error)
    while error is not None:
        texts += [str(error), repr(error), repr(error.args)]
        if isinstance(error, (Refused, Unknown)):
            texts += [str(error.error), repr(error.error)]
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


def trouble(url: str, way: Callable[[str], None] = through_the_store) -> LockkitError:
    """The error that a user of this URL gets. Checks that it is in time and without the password."""
    began = time.monotonic()
    with pytest.raises((LockkitError, Refused, Unknown)) as caught:
        way(url)
    assert time.monotonic() - began < IN_TIME
    assert SECRET not in told(caught.value)
    error = caught.value
    if isinstance(error, (Refused, Unknown)):
        return error.error
    assert isinstance(error, LockkitError)
    return error
