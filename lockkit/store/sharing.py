"""One failure that several calls report."""

from __future__ import annotations

from typing import TypeVar

from lockkit.store.spi import Refused, Unknown

__all__ = ["copied"]

T = TypeVar("T", bound=Refused | Unknown)


def copied(trouble: T) -> T:
    """The same failure without its traceback, which would keep the frames that it passed alive, with all their objects."""
    make, parts = trouble.error.__reduce__()  # copy.copy() does the same, but its module takes time to import
    return type(trouble)(make(*parts), retry=trouble.retry, busy=trouble.busy)
