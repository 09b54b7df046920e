"""The embedded store as one object: it opens the file and passes each call to the module that does it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from lockkit.errors import BackendUnavailable, LockkitError
from lockkit.facts import Evicted, Finding, LockInfo, Record
from lockkit.lib.forks import IMPORTS
from lockkit.store.base import BasicBackend
from lockkit.store.spi import (
    Answer,
    Beat,
    Claim,
    End,
    Extras,
    OpenOptions,
    Refused,
    ReleaseAnswer,
    Renewal,
    Watch,
)
from lockkit.values.names import check_namespace, claim_id
from lockkit_sqlite import operating, renewing
from lockkit_sqlite.acquiring import acquire
from lockkit_sqlite.capabilities import CAPABILITIES, SHARED
from lockkit_sqlite.draining import Mark
from lockkit_sqlite.place import Place, locate, prepare
from lockkit_sqlite.pulse import eviction
from lockkit_sqlite.pulses import BellWatch
from lockkit_sqlite.releasing import release
from lockkit_sqlite.store import SQLiteStore

__all__ = ["SqliteBackend", "adopt_store", "open_store"]


def open_store(url: str, options: OpenOptions) -> SqliteBackend:
    """Open ``sqlite:`` (the user's own file) or ``sqlite:/path/file.db``, creating it if it is not there.

    Raises:
        ConfigError: The URL or the namespace is not allowed.
        Refused: The file cannot be used: rights, a network file system, a full disk, a newer layout.
    """
    check_namespace(options.namespace)
    return SqliteBackend(_place(url, options), options)


def adopt_store(url: str, options: OpenOptions) -> str:
    """Make a store usable that was moved or restored, and return the path of its database.

    See :class:`lockkit.store.spi.BackendSpec`.

    Raises:
        ConfigError, Refused: As for :func:`open_store`; or another process may have it open by another name.
    """
    store = SQLiteStore(_place(url, options), options, adopt=True)
    store.close()
    return store.place.path


def _place(url: str, options: OpenOptions) -> Place:
    try:
        path, synchronous = locate(url, options.state_dir)
    except BackendUnavailable as error:
        raise Refused(error, retry=False) from error
    return prepare(path, synchronous)


class SqliteBackend(BasicBackend):
    """One open embedded store. Thread-safe; a forked child cannot use it: there every call is refused.

    ``abandon`` is a release: a statement has run when its call returns, or never runs, so none can come late.
    """

    def __init__(self, place: Place, options: OpenOptions) -> None:
        self.capabilities = SHARED if place.shared else CAPABILITIES
        self._opened = SQLiteStore(place, options)

    @property
    def _store(self) -> SQLiteStore:
        """The store, on the files that have its names now."""
        self._opened.follow()
        return self._opened

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
        """See :meth:`lockkit.store.spi.Backend.acquire`."""
        end = time.monotonic() + budget
        # Also a claim that waits is not gone while the files are: they may come back with it.
        self._opened.follow(end)
        return acquire(self._opened, claim, create=create, end=end)

    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        """See :meth:`lockkit.store.spi.Backend.renew`. Uses its own connection, never behind a caller's."""
        return renewing.renew(self._opened, beats, time.monotonic() + budget)

    def release(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.release`."""
        store, end = self._opened, time.monotonic() + budget
        store.follow(end)
        return release(store, store.calls, claim, end, how=how)

    def emergency_release(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.emergency_release`. Opens the file anew."""
        store, end = self._opened, time.monotonic() + budget
        connection = store.new_connection()
        try:
            return release(store, connection, claim, end, how=how)
        finally:
            connection.close()

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.watch`. A blocker is a fence, a dot, and a FIFO or nothing."""
        return self._watch(blockers, wake, claim, reads=False)

    def _listen(self, _: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> BellWatch:
        """See :class:`lockkit.store.spi.Extras`: the waiting thread may listen to the FIFOs itself."""
        return self._watch(blockers, wake, claim, reads=True)

    def _watch(
        self, blockers: Sequence[str], wake: Callable[[], None], claim: Claim, *, reads: bool
    ) -> BellWatch:
        key, fifos = bytes.fromhex(claim_id(claim.token)), [each.partition(".")[2] for each in blockers]
        return self._opened.pulses.watch(key, fifos, wake, reads=reads)

    def inspect(self, name: str, budget: float) -> LockInfo:
        """See :meth:`lockkit.store.spi.Backend.inspect`. A dead process's claim is shown while it blocks."""
        return operating.inspect(self._store, name, time.monotonic() + budget)

    def names(self, prefix: str, budget: float, *, deep: bool = False) -> Sequence[str]:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.names`. Always exact."""
        return operating.names(self._store, prefix, time.monotonic() + budget)

    def evict(self, name: str, claim_id: str, budget: float, *, now: bool = False) -> Evicted:
        """See :meth:`lockkit.store.spi.Backend.evict`. ``now=True`` removes before the holder knows."""
        return operating.evict(self._store, name, claim_id, time.monotonic() + budget, at_once=now)

    def resize(self, name: str, capacity: int, budget: float) -> int:
        """See :meth:`lockkit.store.spi.Backend.resize`."""
        return operating.resize(self._store, name, capacity, time.monotonic() + budget)

    def extend(self, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:
        """See :meth:`lockkit.store.spi.Backend.extend`."""
        return renewing.extend(self._store, claim, fence, ttl, time.monotonic() + budget)

    def annotate(self, name: str, claim_id: str, patch: Mapping[str, object], budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Backend.annotate`.

        Raises:
            ConfigError: The patch or the resulting note exceeds :data:`~lockkit.store.spi.NOTE_LIMIT` bytes.
        """
        return operating.annotate(self._store, name, claim_id, patch, time.monotonic() + budget)

    def record(self, name: str, budget: float) -> Record | None:
        """See :meth:`lockkit.store.spi.Backend.record`."""
        return operating.record(self._store, name, time.monotonic() + budget)

    def put_record(self, name: str, value: Mapping[str, object], version: int, budget: float) -> Record:
        """See :meth:`lockkit.store.spi.Backend.put_record`.

        Raises:
            Conflict: The record has another version.
            ConfigError: The value is over :data:`~lockkit.store.spi.NOTE_LIMIT` bytes.
        """
        return operating.put_record(self._store, name, value, version, time.monotonic() + budget)

    def check(self, budget: float) -> Sequence[Finding]:
        """See :meth:`lockkit.store.spi.Backend.check`."""
        with IMPORTS:
            from lockkit_sqlite import health  # late: only doctor asks

        return health.check(self._opened, time.monotonic() + budget)

    @property
    def extras(self) -> Extras:
        """See :class:`lockkit.store.spi.Extras`."""
        mark = Mark(lambda: self._store)
        return Extras(
            listen=self._listen,
            pulse=self._pulse,
            evictions=self._evictions,
            namespaces=self._namespaces,
            drains=mark,
        )

    def _namespaces(self, budget: float) -> Sequence[str]:
        return operating.namespaces(self._store, time.monotonic() + budget)

    def _pulse(self) -> Sequence[int]:
        """The descriptor of the FIFO that vouches for this process's claims. It is close-on-exec."""
        pulses = self._opened.pulses
        pulses.name()
        return (pulses.pulse.descriptor.fileno(),) if pulses.pulse is not None else ()

    def _evictions(self, claim_ids: Sequence[str]) -> tuple[int, Sequence[bytes]]:
        return self._pulse()[0], [eviction(each) for each in claim_ids]

    def close(self) -> None:
        """Close the connections. The pulse stays while claims name it, at most to the end of the process."""
        try:
            self._opened.close()
        except (Refused, LockkitError):
            pass
