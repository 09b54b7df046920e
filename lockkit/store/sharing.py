"""One failure that several calls report."""

from __future__ import annotations

from typing import TypeVar

from lockkit.store.spi import Refused, Unknown

__all__ = ["LastFailure"]

T = TypeVar("T", bound=Refused | Unknown)


class LastFailure:
    """The last failure of an attempt that many calls want, and at which only one works at a time.

    A call that waited for that attempt fails like it: one after another, many threads would take too long.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: tuple[float, Refused | Unknown] | None = None

    def keep(self, now: float, trouble: Refused | Unknown) -> None:
        """An attempt has failed at ``now``, in seconds of the clock of all these calls."""
        self._kept = now, _copied(trouble)

    def check(self, asked: float) -> None:
        """Raise that failure if it came after ``asked``, the time at which this call started to wait."""
        if self._kept is not None and self._kept[0] >= asked:
            raise _copied(self._kept[1])


def _copied(trouble: T) -> T:
    """The same failure without its traceback, which would keep alive the frames that it passed."""
    make, parts = trouble.error.__reduce__()  # copy.copy() does the same, but its module takes time to import
    return type(trouble)(make(*parts), retry=trouble.retry, busy=trouble.busy)
