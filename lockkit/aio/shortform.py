"""The short form ``async with lock:``, and acquires that are awaited or entered."""

from __future__ import annotations

import sys
from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar, cast

from lockkit.lib.caller import Caller, caller
from lockkit.lib.leaving import Exit, Held, Statement
from lockkit.protocol.call import Call
from lockkit.shared.shortform import AnyShortForm

__all__ = ["Acquiring", "AsyncLeft", "AsyncShortForm"]


class AsyncLeft(Held, Protocol):
    """A lease whose release is awaited."""

    def leave(
        self,
        statement: Statement | None,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Coroutine[Any, Any, None]:
        """Release it at the end of the statement."""


S = TypeVar("S", bound=AsyncLeft)


class Acquiring(Coroutine[Any, Any, S], Generic[S]):
    """A pending acquire: ``await`` it for the lease, or let ``async with`` acquire and release.

    Args:
        steps: The acquire. It raises an error where it gets no lease.
    """

    __slots__ = ("__weakref__", "_lease", "_statement", "_steps")

    look = None
    """See :class:`lockkit.lib.leaving.Manager`."""

    def __init__(self, steps: Coroutine[Any, Any, S | None]) -> None:
        self._steps = cast("Coroutine[Any, Any, S]", steps)
        self._lease: S | None = None
        self._statement: Statement | None = None

    def __await__(self) -> Generator[Any, Any, S]:
        return self._steps.__await__()

    # Coroutine methods, so that create_task() accepts it.

    def send(self, value: Any, /) -> Any:
        """See ``collections.abc.Coroutine``."""
        return self._steps.send(value)

    def throw(self, *error: Any) -> Any:
        """See ``collections.abc.Coroutine``."""
        return self._steps.throw(*error)

    def close(self) -> None:
        """See ``collections.abc.Coroutine``."""
        self._steps.close()

    def entering(self, statement: Statement) -> None:
        """See :class:`lockkit.lib.leaving.Manager`."""
        self._statement = statement

    async def __aenter__(self) -> S:
        lease = self._lease = await self._steps
        if self._statement is not None:
            lease.level.statement = self._statement
        return lease

    async def _leave(
        self,
        statement: Statement | None,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the lease of the ``async with`` statement."""
        assert self._lease is not None
        await self._lease.leave(statement, kind, error, traceback)

    __aexit__ = Exit(_leave)


class AsyncShortForm(AnyShortForm[S]):
    """A factory of leases whose ``async with`` takes a lease and releases it, even in another task."""

    look = None  # type: ignore[assignment]
    """See :class:`lockkit.lib.leaving.Manager`."""

    def _take(self, call: Call, taken_at: Caller) -> Coroutine[Any, Any, S | None]:
        """Take a lease; None on a definite "busy", which is an error unless the call ``tries``."""
        raise NotImplementedError

    def __aenter__(self) -> Coroutine[Any, Any, Self]:
        frame = sys._getframe(1)  # noqa: SLF001
        return self._enter(self._statement(_EXIT.entered(self, frame), frame), caller())

    async def _enter(self, statement: Statement | None, taken_at: Caller) -> Self:
        lease = await self._take(self._as_made, taken_at)
        # No call before this, or a signal could end the statement without its lease.
        assert lease is not None
        try:
            if statement is not None:
                statement.lease = lease
                lease.level.statement = statement
            self._keep(statement, lease)
        except BaseException:
            lease.level.left = True
            self._opening.look()
            raise
        return self

    async def _leave(
        self,
        statement: Statement | None,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the lease of the ``async with`` statement, even if it ends in another task."""
        await self._left(statement).leave(statement, kind, error, traceback)

    __aexit__ = Exit(_leave)


_EXIT: Exit[AsyncShortForm[Any], Coroutine[Any, Any, None]] = AsyncShortForm.__dict__["__aexit__"]
