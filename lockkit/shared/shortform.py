"""Both faces' part of the short form, ``with lock:``: its leases are kept for each thread or task."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from lockkit.errors import ConfigError, NotHeld
from lockkit.lib.leaving import Held, Statement
from lockkit.lib.takers import asker
from lockkit.protocol.call import Call, OnWait
from lockkit.shared.options import Default, check_detect, check_plain, checked_timeout
from lockkit.values.cancelling import Cancel, check_cancel
from lockkit.values.habits import Answering

if TYPE_CHECKING:
    from lockkit.shared.opening import Opening

__all__ = ["AnyShortForm"]

L = TypeVar("L", bound=Held)


class _InNoWith(NotHeld, AttributeError):
    """Raised by :attr:`AnyShortForm.lease` outside of a ``with``; an AttributeError too, for ``hasattr``."""

    name: str | None = None
    """The lock. Hides the attribute of AttributeError, which no pickle of ours would keep."""

    def __init__(self, lock: AnyShortForm[Any]) -> None:
        super().__init__(f"this thread or task is in no `with` of {lock.name!r}", name=lock.name)
        self.obj = lock  # if an AttributeError has none, Python sets it, and replaces the name


class AnyShortForm(Answering, Generic[L]):
    """A factory of leases that is a context manager itself: the part that both faces share.

    A statement, or a block of ``contextlib.ExitStack``, knows its lease, even in another thread or task.
    """

    def __init__(self, opening: Opening, timeout: float | None) -> None:
        self._opening = opening
        self._as_made = Call(timeout)
        self._entering: list[Statement] = []

    @property
    def name(self) -> str:
        """The name that errors show."""
        raise NotImplementedError

    def _called(
        self,
        timeout: float | Default | None,
        *,
        note: Mapping[str, object] | None = None,
        reason: str | None = None,
        on_wait: OnWait | None = None,
        cancel: Cancel | None = None,
        detect: bool = False,
        tries: bool = False,
    ) -> Call:
        """Arguments of an acquire, checked before any I/O; see :class:`~lockkit.protocol.call.Call`.

        Raises:
            ConfigError: An argument is not allowed; the error says what is allowed.
        """
        wait = self._as_made.timeout if isinstance(timeout, Default) else checked_timeout(timeout)
        if on_wait is not None:
            if not callable(on_wait):
                raise ConfigError(f"on_wait must be callable, not {on_wait!r}", name=self.name)
            check_plain(on_wait, "on_wait", self.name)
        if cancel is not None:
            check_cancel(cancel, self.name)
        if detect is not False:
            check_detect(detect, self.name)
        call = Call(wait, note, reason, on_wait, cancel, detect, tries)
        return call if note is None and reason is None else self._explained(call)

    def _explained(self, call: Call) -> Call:
        """A call with a note or a reason, which are checked.

        Raises:
            ConfigError: One of them is not allowed.
        """
        raise NotImplementedError

    @property
    def _short(self) -> weakref.WeakKeyDictionary[object, list[L]]:
        """The leases of each thread or task. Made late: most locks of a program live for one acquire."""
        made: weakref.WeakKeyDictionary[object, list[L]] | None = self.__dict__.get("_leases")
        return self.__dict__.setdefault("_leases", weakref.WeakKeyDictionary()) if made is None else made

    @property
    def look(self) -> Callable[[object], None]:
        """See :class:`lockkit.lib.leaving.Manager`."""
        return self._opening.look

    def entering(self, statement: Statement) -> None:
        """See :class:`lockkit.lib.leaving.Manager`."""
        self._entering.append(statement)

    def _statement(self, by_class: Statement | None, frame: FrameType) -> Statement | None:
        """The statement that a frame enters; None if ``__enter__`` was called by hand.

        Args:
            by_class: The block of an ExitStack that looked up ``__exit__`` on the class.
            frame: The frame of the caller.
        """
        statement = by_class
        if statement is None:
            statement = self._entered()
            if statement is not None:
                statement.frame = id(frame)
        return statement

    def _keep(self, statement: Statement | None, lease: L) -> None:
        """Keep the lease of a statement for its end."""
        key = asker()
        if statement is not None:
            statement.key = key
        leases = self._short.setdefault(key(), [])
        if leases:
            leases[:] = [other for other in leases if other.open]
        leases.append(lease)

    def _entered(self) -> Statement | None:
        """The ``with`` statement that calls ``__enter__``; None if it was called by hand."""
        here = threading.get_ident()
        found = None
        for statement in self._entering[::-1]:
            if statement.thread == here and found is None and statement.stands:
                found = statement
            elif statement.stands:
                continue  # the statement of another thread, or an outer one
            try:
                self._entering.remove(statement)
            except ValueError:  # a signal handler has just removed it
                pass
        return found

    def _left(self, statement: Statement | None) -> L:
        """Find the lease of the block that ends.

        A ``with`` statement, or a block of ``contextlib.ExitStack``, knows its own lease. An explicit call of
        ``__exit__`` ends the last lease that this thread or task took by an explicit call of ``__enter__``.
        If there is none the call raises NotHeld: a guess might release a lease that somebody else uses. A
        bound ``__exit__`` that is called again after the release of its own lease counts as an explicit call.
        """
        lease: L | None = None if statement is None else cast("L | None", statement.lease)
        if lease is not None and statement is not None and (not statement.stands or lease.report is not None):
            again = self._by_hand()
            if again is not None:
                lease, statement = again, None
        key = asker() if lease is None or statement is None or statement.key is None else statement.key
        who = key()
        leases = [] if who is None else self._short.get(who, [])
        if lease is None:
            lease = self._by_hand()
        if lease is None:
            raise NotHeld(
                f"this thread or task called __exit__ of {self.name!r} "
                "without having called __enter__ first; nothing was released",
                name=self.name,
                hint="use `with lock.acquire() as lease:` where a block ends in another thread or task",
            )
        if lease in leases:
            leases.remove(lease)
        if not leases and who is not None:
            self._short.pop(who, None)
        return lease

    def _by_hand(self) -> L | None:
        """The last lease that this thread or task took by calling ``__enter__``, and has not released."""
        leases = self._short.get(asker()(), ())
        return next((own for own in reversed(leases) if own.level.statement is None), None)

    @property
    def lease(self) -> L:
        """The lease of the innermost ``with lock:`` block that the caller is in.

        Raises:
            NotHeld: The calling thread or task is in no such block; also an AttributeError, for ``hasattr``.
        """
        leases = [lease for lease in self._short.get(asker()(), ()) if lease.open]
        if len(leases) > 1:  # one may belong to a suspended generator, not to the caller
            around: set[int] = set()
            frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
            while frame is not None:
                around.add(id(frame))
                frame = frame.f_back
            around.add(0)  # the frame of blocks of ExitStack, which are in no frame
            leases = [
                lease for lease in leases if (block := lease.level.statement) is None or block.frame in around
            ]
        if not leases:
            raise _InNoWith(self)
        return leases[-1]
