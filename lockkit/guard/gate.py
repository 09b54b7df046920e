"""The gate before one resource, and what a holder does behind it: open, read, write."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from lockkit.errors import ConfigError, NotHeld, StaleFence
from lockkit.guard.leases import FencedLease, accepted
from lockkit.guard.record import Record, opened_by
from lockkit.guard.repeating import perform
from lockkit.guard.telling import began, refused, tell
from lockkit.values import durations

__all__ = [
    "TIMEOUT",
    "FenceGate",
    "Guarded",
    "Opened",
    "Resource",
    "Seen",
    "checked_bytes",
    "checked_key",
    "stale",
]

TIMEOUT = 5.0
"""Seconds for which an unanswered step is repeated, by default."""

_LONGEST_KEY = 4096


class Seen(NamedTuple):
    """A look at a resource.

    Attributes:
        fence: The fence of the holder that opened it last; None if no gate has opened it yet.
        value: The value; None if there is none.
    """

    fence: int | None
    value: bytes | None


class Resource(Protocol):
    """A place for one value and its record. Each call is one atomic step there, or raises.

    A call raises :class:`~lockkit.store.spi.Refused` if it certainly had no effect, and
    :class:`~lockkit.store.spi.Unknown` if it may have, now or later. ``end`` is a time of
    :func:`time.monotonic`; a call should start no request after it.

    Attributes:
        where: The resource, for messages, without secrets.
        largest: The largest value, in bytes; None for no limit.
    """

    where: str
    largest: int | None

    def step(self, asked: Record, value: bytes | None, end: float) -> Record | None:
        """Let a step take effect if :func:`~lockkit.guard.record.judged` allows it.

        Args:
            asked: The step; becomes the stored record.
            value: The new value; None leaves the value as it is.
            end: When to give up.

        Returns:
            None: The step has taken effect, now or at an earlier request.
            Record: The step is stale; the stored record instead, or ``Record(0, "")`` if there is none.
        """

    def look(self, end: float) -> tuple[Record | None, bytes | None]:
        """The record and the value."""

    def forget(self) -> None:
        """Remove value and record, after a check on a scratch resource. Nothing is guarded afterwards."""


def stale(where: str, lease: str, mine: int, stored: Record) -> StaleFence:
    """The error for a step that the resource has refused."""
    if stored.fence > mine:
        return StaleFence(
            f"{where} was opened by a newer holder of {lease!r}: fence {stored.fence}, and this one is "
            f"{mine}",
            name=lease,
            hint="stop the guarded work; acquire again for a new fence",
        )
    if stored.fence == mine:
        return StaleFence(
            f"{where} was opened a second time under fence {mine} of {lease!r}; only the last opening may "
            "write",
            name=lease,
            hint="open it once for each lease",
        )
    return StaleFence(
        f"{where} does not know fence {mine} of {lease!r} any more: its record was removed or went back",
        name=lease,
        hint="nothing was written; acquire again and open it again",
    )


def checked_key(key: object) -> bytes:
    """Return a key that may be guarded, as bytes.

    Raises:
        ConfigError: Not a str or bytes, empty, or longer than 4096 bytes.
    """
    raw = key.encode(errors="surrogateescape") if isinstance(key, str) else key
    if not isinstance(raw, bytes) or not 0 < len(raw) <= _LONGEST_KEY:
        raise ConfigError(f"a key must be a str or bytes of 1 to {_LONGEST_KEY} bytes, not {key!r:.100}")
    return raw


def checked_bytes(value: object, where: str, largest: int | None) -> bytes:
    """Return a value that may be written.

    Raises:
        ConfigError: The value is not bytes, or is too long.
    """
    if not isinstance(value, bytes):
        hint = "encode it: text.encode()" if isinstance(value, str) else None
        raise ConfigError(f"{where} takes bytes, not {type(value).__name__}", hint=hint)
    if largest is not None and len(value) > largest:
        raise ConfigError(f"{where} takes at most {largest} bytes, not {len(value)}")
    return value


class Opened:
    """A resource of any kind that a holder has opened, until its ``with`` statement or its lease ends."""

    def __init__(self, where: str, lease: FencedLease) -> None:
        self._where = where
        self._lease = lease
        self._closed = False

    @property
    def fence(self) -> int:
        """The fence under which it was opened."""
        return self._lease.fence

    def close(self) -> None:
        """Refuse all further use of this object. The resource keeps the fence."""
        self._closed = True

    def _ensure(self) -> None:
        if self._closed:
            raise NotHeld(
                f"{self._where} was closed by this holder", name=self._lease.name, hint="open it again"
            )
        self._lease.ensure_held()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._where} fence {self.fence}>"


class Guarded(Opened):
    """One value, opened under a fence: ``read()`` and ``write()`` until a newer holder opens it.

    Every call starts with ``lease.ensure_held()``. The resource itself also refuses late calls, for instance
    if the process was paused between that check and the request.
    """

    def __init__(self, resource: Resource, lease: FencedLease, opening: Record, timeout: float) -> None:
        super().__init__(resource.where, lease)
        self._resource = resource
        self._record = opening
        self._timeout = timeout
        self._mutex = threading.Lock()

    def read(self) -> bytes | None:
        """Return the value, or None if there is none. Nobody has opened the resource since this holder did.

        Raises:
            StaleFence: A newer holder has opened it.
            LeaseLost, NotHeld: The lease is not valid any more.
            BackendError: No answer.
        """
        self._ensure()
        stored, value = perform(self._resource.look, self._resource.where, self._timeout)
        if stored is None or stored[:2] != self._record[:2]:
            raise self._stale(stored or Record(0, ""))
        return value

    def write(self, value: bytes) -> None:
        """Write a new value in one atomic step with the check of the fence.

        Requests without an answer are repeated until ``timeout`` ends. No late copy has a second effect.

        Raises:
            StaleFence: A newer holder has opened the resource. Nothing was written, and nothing will be.
            OutcomeUnknown: No answer, or a newer holder came before it: the value may have been written.
            ConfigError: Not bytes, or too many. Nothing was sent.
            LeaseLost, NotHeld: The lease is not valid any more. Nothing was sent.
            BackendError: The resource refused. Nothing was written.
        """
        value = checked_bytes(value, self._where, self._resource.largest)
        self._step(lambda asked, end: self._resource.step(asked, value, end))

    def _step(self, request: Callable[[Record, float], Record | None]) -> None:
        self._ensure()  # not only under the mutex, which nobody frees in a child that was forked meanwhile
        with self._mutex:
            self._ensure()
            self._record = asked = self._record._replace(step=self._record.step + 1)
            since = began()
            stored = perform(
                lambda end: request(asked, end),
                self._where,
                self._timeout,
                certain=lambda found: found is None,
            )
        if stored is not None:
            raise self._stale(stored)
        tell(self._lease, "guard_written", self._resource, since)

    def _stale(self, stored: Record) -> StaleFence:
        refused(self._lease, self._resource, stored.fence)
        return stale(self._where, self._lease.name, self.fence, stored)


class FenceGate:
    """The gate before one value. Reusable and thread-safe, if its client is.

    The gate asks its resource in one atomic step whether the fence may write, and writes. A gate is only as
    good as its resource: the page on guards says what each keeps over a crash or a failover.

    Attributes:
        resource: The resource, for authors of gates.
    """

    def __init__(self, resource: Resource, timeout: float = TIMEOUT) -> None:
        self._timeout = durations.seconds(timeout, what="timeout")
        self.resource = resource

    @property
    def where(self) -> str:
        """The resource, for messages, without secrets."""
        return self.resource.where

    def open(self, lease: FencedLease) -> Guarded:
        """Register the fence of a lease at the resource, which from then on refuses every older holder.

        Open the resource before the first read: an older holder may change a value that was read earlier.

        Args:
            lease: An exclusive lease. All holders of one resource must use the same lock.

        Raises:
            StaleFence: A newer holder has opened the resource.
            ConfigError: The lease is shared. Nothing was sent.
            LeaseLost, NotHeld: The lease is not valid any more. Nothing was sent.
            OutcomeUnknown: There was no answer.
            BackendError: The resource refused.
        """
        return Guarded(self.resource, lease, self._opening(lease), self._timeout)

    def _opening(self, lease: FencedLease) -> Record:
        accepted(lease).ensure_held()
        asked = opened_by(lease.fence)
        since = began()
        stored = perform(lambda end: self.resource.step(asked, None, end), self.where, self._timeout)
        if stored is not None:
            refused(lease, self.resource, stored.fence)
            raise stale(self.where, lease.name, lease.fence, stored)
        tell(lease, "guard_opened", self.resource, since)
        return asked

    def peek(self) -> Seen:
        """Look at fence and value without a lease, for instance to show them.

        Raises:
            BackendError: No answer.
        """
        stored, value = perform(self.resource.look, self.where, self._timeout)
        return Seen(None if stored is None else stored.fence, value)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.where}>"
