"""The locks of one store, as all viewers of the server see them: one poller, however many watch.

The poller is a thread that runs while somebody watches. A viewer has no queue: it knows the number of the
last change that it saw, and gets all later ones, or is sent to look at everything if the list is too short.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from lockkit.errors import LockkitError
from lockkit.lib.namedtuples import NamedTuple
from lockkit.server.sharing import Shared
from lockkit.views.looking import Asked, Look, look

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo, LockInfo
    from lockkit.sync.client import Client

__all__ = ["VIEWERS", "Seen", "StoreWatch", "TooManyViewers", "ViewerBell"]

VIEWERS: Final = 200
"""Viewers of one store at the same time; the next one is refused."""
_REMEMBERED = 256
"""Changes that are remembered."""
_TOLD = 100
"""The most names in one message; if more have changed, it says so."""
_PATIENCE = 5.0
"""Seconds that a viewer waits for a look, if an earlier one can be shown instead, with its time."""


class TooManyViewers(Exception):
    """As many viewers as are allowed watch already."""


class Seen(NamedTuple):
    """A change: its number, what has changed, and the state after it.

    Attributes:
        number: Rises with each change.
        names: The locks that have changed since the number that the viewer gave.
        more: Whether other locks may have changed, too.
        look: All locks at the last look that the store answered; None before the first one.
        at: The time of that look, in seconds of the wall clock.
        error: Why the store could not be looked at since; None if it could.
    """

    number: int
    names: tuple[str, ...]
    more: bool
    look: Look | None
    at: float
    error: LockkitError | None


class ViewerBell:
    """The bell of one viewer: an event of the viewer's own loop, which any thread may set."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def ring(self) -> None:
        """Wake the viewer. A loop that is closed has no viewer any more."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self, seconds: float) -> None:
        """Wait until the bell has rung since the last wait, or until the time is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
        self._event.clear()


class StoreWatch:
    """One store, and who watches it.

    Args:
        client: The client.
        interval: Seconds between two looks while somebody watches. A slow look is followed by a longer pause.
    """

    def __init__(self, client: Client, interval: float = 1.0) -> None:
        self._client = client
        self._interval = interval
        self._shared = Shared(self._look, interval / 2, _PATIENCE)
        self._mutex = threading.Lock()
        self._wake = threading.Condition(self._mutex)
        self._bells: set[ViewerBell] = set()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._number = int(time.time() * 1000)  # beyond the numbers of a server that ran before
        self._changes: deque[tuple[int, tuple[str, ...]]] = deque(maxlen=_REMEMBERED)
        self._locks: Mapping[str, object] = {}
        self._seen: Look | None = None
        self._at = 0.0
        self._error: LockkitError | None = None

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    @property
    def full(self) -> bool:
        """Whether no further viewer may watch."""
        return self._closed or len(self._bells) >= VIEWERS

    @property
    def stale_since(self) -> float | None:
        """The time of the last look that the store answered, if it does not answer now; None if it does."""
        return None if self._error is None else self._at

    def look(self) -> tuple[Look, float]:
        """All locks of the namespace a moment ago, longest wait first, and the time of the look. Blocks.

        Raises:
            BackendError: The store does not answer.
        """
        return self._shared.get()

    def forget(self) -> None:
        """Have the next look ask the store, because something was changed."""
        self._shared.forget()
        with self._mutex:
            self._wake.notify_all()

    @contextlib.contextmanager
    def viewing(self) -> Iterator[ViewerBell]:
        """Watch: the bell rings with each change, and when the watch is closed.

        Raises:
            TooManyViewers: Too many watch already.
        """
        bell = ViewerBell()
        with self._mutex:
            if self.full:
                raise TooManyViewers
            self._bells.add(bell)
            if self._thread is None:
                self._thread = threading.Thread(target=self._poll, name="lockkit-server-poller", daemon=True)
                self._thread.start()
        try:
            yield bell
        finally:
            with self._mutex:
                self._bells.discard(bell)
                self._wake.notify_all()

    def since(self, number: int | None) -> Seen | None:
        """All changes after ``number`` as one; None if there are none. A new viewer passes None."""
        with self._mutex:
            if number == self._number or (self._seen is None and self._error is None):
                return None
            later = [names for each, names in self._changes if number is not None and each > number]
            known = number is not None and self._number - number == len(later)
            names = dict.fromkeys(name for each in later for name in each)
            told = tuple(names)[:_TOLD] if known else ()
            return Seen(
                self._number,
                told,
                not known or len(told) < len(names),
                self._seen,
                self._at,
                self._error,
            )

    def close(self, patience: float = 5.0) -> None:
        """End every viewer's stream, and the poller. Waits at most ``patience`` seconds for its end."""
        with self._mutex:
            self._closed = True
            bells, thread = [*self._bells], self._thread
            self._wake.notify_all()
        for bell in bells:
            bell.ring()
        if thread is not None:
            thread.join(patience)

    def _poll(self) -> None:
        """Look again and again while somebody watches."""
        while True:
            with contextlib.suppress(LockkitError):
                self._shared.get()
            with self._mutex:
                if self._bells and not self._closed:
                    self._wake.wait(self._interval)
                if not self._bells or self._closed:
                    self._thread = None
                    return

    def _look(self) -> tuple[Look, float]:
        at = time.time()  # before the look: what it finds first is as old as that
        try:
            found = look(self._client, Asked(sort="age"))
        except LockkitError as error:
            self._keep_error(error)
            raise
        self._keep(found, at)
        return found, at

    def _keep(self, found: Look, at: float) -> None:
        locks: dict[str, object] = {info.name: _state(info) for info in found.locks}
        locks |= dict.fromkeys(found.unread)
        with self._mutex:
            before, drained = self._locks, self._seen is not None and self._seen.drained
            changed = sorted(
                name for name in {*before, *locks} if before.get(name, _NONE) != locks.get(name, _NONE)
            )
            told = bool(changed) or self._seen is None or self._error is not None or found.drained != drained
            self._locks, self._seen, self._at, self._error = locks, found, at, None
            self._tell(tuple(changed), told=told)

    def _keep_error(self, error: LockkitError) -> None:
        with self._mutex:
            told = self._error is None or self._error.message != error.message
            self._error = error
            self._tell((), told=told)

    def _tell(self, names: tuple[str, ...], *, told: bool) -> None:
        if told:
            self._number += 1
            self._changes.append((self._number, names))
            for bell in self._bells:
                bell.ring()


_NONE = object()


def _state(info: LockInfo) -> tuple[object, ...]:
    """The state of a lock, as viewers see it: two looks that find it alike are no change."""
    return tuple(_claim_state(claim) for claim in info.claims)


def _claim_state(claim: ClaimInfo) -> tuple[object, ...]:
    # A store that keeps times of CLOCK_BOOTTIME gives each look other microseconds.
    return (
        claim.claim_id,
        claim.state,
        claim.capacity,
        round(claim.renewed, 1),
        None if claim.deadline is None else round(claim.deadline, 1),
        claim.evicted,
        claim.alive,
        claim.process,
        claim.note,
    )
