"""How a context manager learns that its ``with`` statement is left, whatever a signal handler raises."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar, overload

if TYPE_CHECKING:
    from lockkit.lease import Lease

__all__ = ["Exit", "Leave", "Statement"]

M = TypeVar("M", bound="Manager")
Leave = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], None]


class Statement:
    """One ``with`` statement.

    Attributes:
        frame: The ``id()`` of the frame with the statement; no other frame has that as long as the statement lasts. 0 for a block
            of ``contextlib.ExitStack``, which is in no frame.
        key: The thread or task that entered it.
        lease: The lease that the statement holds, once it is entered.
        manager: The context manager that was entered, if ``__exit__`` was looked up on its class.
        thread: The identifier of the thread in which the statement began.
    """

    __slots__ = ("frame", "key", "lease", "left", "manager", "thread")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.frame = 0
        self.key: weakref.ref[object] | None = None
        self.lease: Lease | None = None
        self.manager: weakref.ref[object] | None = None
        self.left: Callable[[], object | None] = _gone

    @property
    def stands(self) -> bool:
        """Whether the statement was neither left nor given up before its body began."""
        return self.left() is not None

    def over(self) -> None:
        """Note that its lease is released, so nobody needs to be told of the statement's end."""
        self.left = _gone


def _gone() -> None:
    return None


class Manager(Protocol):
    """A context manager whose ``__exit__`` is an :class:`Exit`."""

    def entering(self, statement: Statement) -> None:
        """Note a ``with`` statement that has looked up ``__exit__`` and is about to call ``__enter__``."""

    @property
    def look(self) -> Callable[[object], None]:
        """A function that has the background look for leases whose ``with`` was left. The function takes no lock and refers to no lease."""


class Exit(Generic[M]):
    """An ``__exit__`` whose ``with`` statement is known to be over even if no bytecode of it ever runs.

    CPython lets signals through when a Python function begins: a handler that raises can end ``__exit__`` before its
    first statement, and the lease would stay, held and renewed, in whatever variable still names it. But a ``with``
    statement looks its ``__exit__`` up before it calls ``__enter__``, keeps what it found on its frame's stack, and drops
    that when it is left, in whatever way. So each look-up returns a new object to which nobody else refers, and the
    statement is over when that object is collected. The object is not a Python function, because a traceback keeps those alive.

    ``contextlib.ExitStack`` does the same in Python, but looks both methods up on the class, and keeps what it found as long as
    the block lasts. So such a look-up returns a new object, too; the call of ``__enter__`` that follows in the same function
    tells which context manager was entered.
    """

    def __init__(
        self,
        leave: Callable[
            [M, Statement | None, type[BaseException] | None, BaseException | None, TracebackType | None],
            None,
        ],
    ) -> None:
        self._leave = leave
        self._latest = threading.local()
        self.__doc__ = leave.__doc__

    @overload
    def __get__(self, manager: None, owner: type[M]) -> Callable[..., None]: ...
    @overload
    def __get__(self, manager: M, owner: type[M] | None = None) -> Leave: ...
    def __get__(self, manager: M | None, owner: type[M] | None = None) -> Callable[..., None]:
        statement = Statement()
        if manager is None:
            by_class = partial(self._by_class, statement)
            statement.left = weakref.ref(by_class)
            frame = sys._getframe(1)  # noqa: SLF001
            self._latest.found = statement, id(frame), frame.f_code
            return by_class
        self._latest.found = None
        leave = partial(self._leave, manager, statement)
        statement.left = weakref.ref(leave, manager.look)
        manager.entering(statement)
        return leave

    def entered(self, manager: M, frame: FrameType) -> Statement | None:
        """The block that a function enters which has looked ``__exit__`` up on the class just before; None if it has not."""
        found = getattr(self._latest, "found", None)
        if found is None:
            return None
        statement: Statement = found[0]
        if found[1] != id(frame) or found[2] is not frame.f_code:
            return None
        self._latest.found = None
        leave = statement.left()
        if leave is None:
            return None
        statement.manager = weakref.ref(manager)
        statement.left = weakref.ref(leave, manager.look)
        return statement

    def _by_class(
        self,
        statement: Statement,
        manager: M,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        own = statement.manager is not None and statement.manager() is manager
        if own and statement.lease is not None:
            statement.lease.left = (
                True  # first: a stack's own frames may keep what was looked up, in a traceback
            )
        self._leave(manager, statement if own else None, kind, error, traceback)
