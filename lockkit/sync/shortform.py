"""The short form, ``with lock:``."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self, TypeVar

from lockkit.lib.leaving import Exit, Left, Statement
from lockkit.protocol.call import Call
from lockkit.shared.shortform import AnyShortForm

__all__ = ["ShortForm"]

S = TypeVar("S", bound=Left)


class ShortForm(AnyShortForm[S]):
    """A factory of leases that is a context manager: each ``with`` statement takes a lease and releases it.

    A ``with`` statement, or a block that ``contextlib.ExitStack`` enters, releases the lease that it took,
    even if it ends in another thread or task.
    """

    def _take(self, call: Call) -> S | None:
        """Take a lease; None on a definite "busy", which is an error unless the call ``tries``."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        frame = sys._getframe(1)  # noqa: SLF001
        statement = self._statement(_EXIT.entered(self, frame), frame)
        lease = self._take(self._as_made)
        # No call before this, or a signal could end the statement without its lease.
        assert lease is not None
        if statement is not None:
            statement.lease = lease
            lease.level.statement = statement
        self._keep(statement, lease)
        return self

    def _leave(
        self,
        statement: Statement | None,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the lease of the ``with`` statement, even if it ends in another thread or task."""
        self._left(statement).leave(statement, kind, error, traceback)

    __exit__ = Exit(_leave)


_EXIT: Exit[ShortForm[Any], None] = ShortForm.__dict__["__exit__"]
