"""The asyncio face for scenarios that call from threads."""

from __future__ import annotations

import time
import weakref
from concurrent.futures import Future

import pytest

from lockkit.testing import through_asyncio


class Slow(Future):
    """The thread that has given the result goes on later than the one that waits for it."""

    def set_result(self, result):
        super().set_result(result)
        time.sleep(0.1)

    def set_exception(self, exception):
        super().set_exception(exception)
        time.sleep(0.1)


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_keeps_what_a_call_used_once_it_has_returned(monkeypatch, fails):
    """A scenario drops a client next, and expects to be warned at once."""
    monkeypatch.setattr(through_asyncio, "Future", Slow)

    class Thing:
        pass

    def used():
        thing = Thing()

        async def use():
            assert thing
            if fails:
                raise ZeroDivisionError

        try:
            through_asyncio._call(use)
        except ZeroDivisionError as error:
            error.__traceback__ = None
        return weakref.ref(thing)

    assert used()() is None
