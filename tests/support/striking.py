"""Ctrl-C at each place of something in turn, and the threads that are left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from lockkit.testing.interrupts import Bomb, CtrlC

__all__ = ["LONG", "gone", "left", "strike_each_place"]

T = TypeVar("T")
LONG = 20.0
"""Seconds to wait for what is to happen at once."""


def strike_each_place(prepare: Callable[[], T], do: Callable[[T], object]) -> Iterator[tuple[str, T]]:
    """Do something again and again with new preparations, struck at each place in turn; yields both."""
    for at in range(1, 1000):
        prepared = prepare()
        bomb = Bomb(at, beside=("threading", "concurrent.futures._base"))
        try:
            with bomb:
                do(prepared)
        except CtrlC:
            pass
        yield bomb.where, prepared
        if not bomb.where:
            assert at > 1
            return


def left(name: str, number: int) -> bool:
    """Whether this many threads of a name are left: those that find nothing to do end at once."""
    end = time.monotonic() + LONG
    while sum(thread.name == name for thread in threading.enumerate()) != number:
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def gone(name: str) -> bool:
    """Whether all threads of this name end."""
    return left(name, 0)
