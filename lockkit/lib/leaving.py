"""A way for context managers to learn that their ``with`` statement ended, even if a signal handler raises.

A signal handler that raises (as Ctrl-C does) can end ``__exit__`` before its first statement, so ``__exit__``
alone cannot promise a release. But the ``with`` statement refers to the bound ``__exit__`` while it runs::

    with lock:      # 1. looks up lock.__exit__ and keeps the result; 2. calls lock.__enter__()
        work()
                    # 3. calls the kept result, and drops it, also if that call raises

So :class:`Exit` returns a new object from each look-up in step 1, and keeps only a weak reference to it::

    bound = partial(leave, lock, statement)         # only the with statement's stack refers to it
    statement.left = weakref.ref(bound, lock.look)  # called as soon as the with statement drops bound

When the statement ends in any way, ``bound`` is collected, and ``lock.look`` makes a background thread
release the lease if ``__exit__`` has not done so.
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Generic, Protocol, TypeVar, overload

__all__ = ["Exit", "Held", "Leave", "Left", "Level", "Statement"]

R = TypeVar("R")
H_co = TypeVar("H_co", covariant=True)
Leave = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], R]


class Statement:
    """One ``with`` statement.

    Attributes:
        frame: The ``id()`` of the frame that runs the statement, unique while the statement lasts. 0 for a
            block of ``contextlib.ExitStack``, which belongs to no frame.
        key: The thread or task that entered the statement.
        lease: The lease that the statement holds, once the statement is entered.
        manager: The context manager that was entered, if ``__exit__`` was looked up on its class.
        thread: The identifier of the thread in which the statement started.
    """

    __slots__ = ("frame", "key", "lease", "left", "manager", "thread")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.frame = 0
        self.key: weakref.ref[object] | None = None
        self.lease: Held | None = None
        self.manager: weakref.ref[object] | None = None
        self.left: Callable[[], object | None] = _gone

    @property
    def stands(self) -> bool:
        """Whether the statement still runs: it was not left, and did not fail before its body started."""
        return self.left() is not None

    def over(self) -> None:
        """Note that the lease is released, so that the end of the statement no longer matters."""
        self.left = _gone


def _gone() -> None:
    return None


class Level(Generic[H_co]):
    """The state of one level of a hold, apart from the level's handle, which may be collected at any time.

    Args:
        handle: The handle of the level.
        gone: Called when the handle is collected before :meth:`over`; None for nothing.

    Attributes:
        handle: Returns the handle; None once it is collected, or nobody needs it any more.
        left: Whether the release was asked for; nobody works under the level any more.
        statement: The ``with`` statement that holds the level, which ends with it.
    """

    __slots__ = ("handle", "left", "statement")

    def __init__(self, handle: H_co, gone: Callable[[object], None] | None = None) -> None:
        self.handle: Callable[[], H_co | None] = weakref.ref(handle, gone)
        self.left = False
        self.statement: Statement | None = None

    @property
    def open(self) -> bool:
        """Whether the user may still rely on the lock: neither the release nor the statement's end came."""
        return not self.left and (self.statement is None or self.statement.stands)

    def over(self) -> None:
        """Forget the handle, so that nothing is called when it is collected."""
        self.handle = _gone


class Held(Protocol):
    """A lease, as the statement that holds it sees it.

    Attributes:
        level: The state that the user changes: whether the lease was left, and the statement that holds it.
    """

    level: Level[Any]

    @property
    def open(self) -> bool:
        """Whether its user still works under it."""

    @property
    def report(self) -> object:
        """How the release went; None before."""


class Left(Held, Protocol):
    """A lease that the calling thread itself releases."""

    def leave(
        self,
        statement: Statement | None,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release it at the end of the statement."""


class Manager(Protocol):
    """A context manager whose ``__exit__`` is an :class:`Exit`."""

    def entering(self, statement: Statement) -> None:
        """Note a ``with`` statement that has looked up ``__exit__`` and is about to call ``__enter__``."""

    @property
    def look(self) -> Callable[[object], None] | None:
        """A function that makes a background thread look for leases whose ``with`` was left.

        The function takes no mutex and refers to no lease.

        None for an ``async with``, which drops ``__aexit__`` before the release: a look each time would cost
        too much. The background finds a release that was cut short at its next look, within a ttl.
        """


# A textual bound would be compiled, and the first compile() makes a hundred classes: a tenth of the import.
M = TypeVar("M", bound=Manager)


class Exit(Generic[M, R]):
    """An ``__exit__`` method that notices the end of its ``with`` statement even if its own code never runs.

    CPython handles signals at the start of a Python function. A handler that raises can therefore end
    ``__exit__`` before its first statement, and the lease would stay held and renewed. But a ``with``
    statement looks up ``__exit__`` before it calls ``__enter__``, keeps the result on its frame's stack, and
    drops it however it is left. So each look-up returns a new object without other references, whose
    collection ends the statement. The object is no Python function: tracebacks keep those alive.

    ``contextlib.ExitStack`` does the same in Python, but looks up both methods on the class, and keeps the
    result while the block lasts. That look-up returns a new object as well. Only the call of ``__enter__``
    that follows in the same function shows which context manager was entered.
    """

    def __init__(
        self,
        leave: Callable[
            [M, Statement | None, type[BaseException] | None, BaseException | None, TracebackType | None],
            R,
        ],
    ) -> None:
        self._leave = leave
        self._latest = threading.local()
        self.__doc__ = leave.__doc__

    @overload
    def __get__(self, manager: None, owner: type[M]) -> Callable[..., R]: ...
    @overload
    def __get__(self, manager: M, owner: type[M] | None = None) -> Leave[R]: ...
    def __get__(self, manager: M | None, owner: type[M] | None = None) -> Callable[..., R]:
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
        """The block that a function is entering if it just looked up ``__exit__`` on the class, else None."""
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
    ) -> R:
        own = statement.manager is not None and statement.manager() is manager
        if own and statement.lease is not None:
            statement.lease.level.left = True  # first: a traceback may keep ExitStack's frames, and so self
        return self._leave(manager, statement if own else None, kind, error, traceback)
