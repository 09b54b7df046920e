"""The FIFOs that this process has open: its own, and those of the processes that it waits for or wakes.

FIFOs belong to the process, not to a client: a client that is closed or collected leaves its claims, and must
not silence their pulse. A waiter listens to the bell of this process's own FIFO, and to the write ends of
those of the processes in its way: the kernel reports POLLERR there when the last reader dies (in 0.2 ms).

In a forked child all is closed and forgotten: it neither vouches for its parent's claims nor reads its bells.
"""

from __future__ import annotations

import os
import select
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from lockkit.lib.bell import Bell
from lockkit.store.inherited import inherited
from lockkit.store.log import Log
from lockkit.store.waking import wake_up
from lockkit.values.names import claim_id
from lockkit_sqlite.descriptors import Descriptor
from lockkit_sqlite.events import Ring
from lockkit_sqlite.failures import raise_if_foreign
from lockkit_sqlite.pulse import ALIVE, DEAD, UNKNOWN, Health, Pulse, open_bell, probe, still_read
from lockkit_sqlite.watcher import Watcher

__all__ = ["LISTENER", "BellWatch", "Listener", "Pulses"]

_log = Log("lockkit.sqlite")
_KEPT = 1024
"""Most rings that are kept for watches to come."""
_IDLE = 8
"""FIFOs of other processes that stay open without a watch. Processes that contend for one lock follow one
another in the same order again and again."""


class BellWatch:
    """One running watch: rung by its own claim id, or by the death of a process that it waits for."""

    __slots__ = ("_pulses", "fifos", "key", "open", "wake")

    def __init__(self, pulses: Pulses, key: bytes, fifos: tuple[str, ...], wake: Callable[[], None]) -> None:
        self._pulses = pulses
        self.key = key
        self.fifos = fifos
        self.wake = wake
        self.open = True

    def ring(self) -> None:
        """Call ``wake``; an exception of it is logged."""
        if self.open:
            wake_up(self.wake, _log)

    def wait(self, bell: Bell, seconds: float) -> bool:
        """Wait for a ring, and listen meanwhile if nobody else does."""
        return self._pulses.watcher.wait(self, bell, seconds)

    def close(self) -> None:
        """Stop. Never raises."""
        self.open = False
        self._pulses.forget(self)


class _Watched:
    """The write end of another process's FIFO, and the watches that depend on that process."""

    __slots__ = ("descriptor", "watches")

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.watches: dict[BellWatch, None] = {}


class Pulses:
    """The FIFOs of a store file that this process has open: its own, and those of processes it waits for.

    Attributes:
        watcher: Listens to them.
        users: The open stores.
        inherited: This is a forked child, and the object is its parent's.
        pulse: This process's own FIFO, once a claim needs it.
    """

    def __init__(self, watcher: Watcher, folder: str, mode: int) -> None:
        self.watcher = watcher
        self._folder = folder
        self._mode = mode
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        self.inherited = False
        self.pulse: Pulse | None = None
        self._watches: dict[bytes, dict[BellWatch, None]] = {}
        self._watched: dict[str, _Watched] = {}
        self._idle: dict[str, None] = {}
        """The FIFOs in ``_watched`` on which no watch depends, the one that was used last at the end."""
        self._early: dict[bytes, None] = {}
        """Rings for claims without a watch: their owners asked, and are about to start one."""

    def name(self) -> str:
        """The name of this process's FIFO, created now if it is the first time.

        Raises:
            Refused: The FIFO cannot be created, or no store is open that would remove it.
        """
        pulse = self.pulse
        if pulse is None:
            with self.watcher.lock:
                if self.inherited or not self.users:
                    raise inherited(self._folder)
                pulse = self.pulse or Pulse(self._folder, self._mode)
                self.watcher.events.listen(pulse.descriptor, self._rung, select.EPOLLIN)
                self.pulse = pulse
        return pulse.name

    def heal(self) -> None:
        """Put the FIFO back if somebody removed it."""
        with self.watcher.lock:
            old = self.pulse.heal() if self.pulse is not None else None
            if self.pulse is not None and old is not None:
                self.watcher.events.close(old)
                self.watcher.events.listen(self.pulse.descriptor, self._rung, select.EPOLLIN)

    def health(self, name: str) -> Health:
        """Whether the owner of a FIFO is alive; UNKNOWN for the empty name, of a claim without a pulse."""
        if not name:
            return UNKNOWN
        if self.pulse is not None and name == self.pulse.name:
            return ALIVE
        with self.watcher.lock:
            watched = self._watched.get(name) or self._open(name)[0]
        # If nobody reads it, its owner may be dead, or may have replaced a FIFO that was removed.
        return ALIVE if watched is not None and still_read(watched.descriptor) else probe(self._folder, name)

    def ring(self, name: str, key: bytes) -> Health:
        """Ring for a waiter to ask again. Best effort: a bell that is full is rung already."""
        if self.pulse is not None and name == self.pulse.name:
            for ring in self._woken((key,)):
                ring()
            return ALIVE
        with self.watcher.lock:
            health: Health = ALIVE
            watched = self._watched.get(name)
            if watched is None or not still_read(watched.descriptor):
                watched, health = self._open(name)
        if watched is not None:
            try:
                os.write(watched.descriptor.fileno(), key)
            except OSError as error:
                raise_if_foreign(error)
                if not isinstance(error, BlockingIOError):
                    return DEAD  # EPIPE: it died just now (Python ignores SIGPIPE)
        return health

    def watch(self, key: bytes, fifos: Iterable[str], wake: Callable[[], None], *, reads: bool) -> BellWatch:
        """Start a watch. It rings at once if it was rung before, or if a process it waits for is dead.

        Args:
            key: The id of the claim that waits.
            fifos: The FIFOs of the processes in its way.
            wake: Called from any thread.
            reads: True if the waiter's own thread will wait in :meth:`BellWatch.wait`.

        Raises:
            RuntimeError: The thread that it needs cannot be started.
        """
        own = self.pulse.name if self.pulse is not None else ""
        watch = BellWatch(self, key, tuple({name for name in fifos if name and name != own}), wake)
        try:
            with self.watcher.lock:
                self.watcher.begin(watch, watch.ring, reads=reads)
                self._watches.setdefault(key, {})[watch] = None
                missed = self._early.pop(key, self) is None
                for name in watch.fifos:
                    health: Health = ALIVE
                    watched = self._watched.get(name)
                    if watched is None:
                        watched, health = self._open(name)
                    if watched is None:
                        missed = missed or health == DEAD
                        continue
                    watched.watches[watch] = None
                    self._idle.pop(name, None)
            if missed:
                watch.ring()
        except BaseException:  # the caller has no watch to close
            watch.close()
            raise
        return watch

    def _open(self, name: str) -> tuple[_Watched | None, Health]:
        """Open another process's FIFO, or reopen it; also return the process's health. Needs the lock."""
        watches = self._hang_up(name)
        descriptor, health = open_bell(self._folder, name)
        if descriptor is None:
            return None, health
        watched = self._watched[name] = _Watched(descriptor)
        watched.watches.update(dict.fromkeys(watches))
        self.watcher.events.listen(descriptor, partial(self._died, name))
        if not watches:
            self._rest(name)
        return watched, health

    def _rest(self, name: str) -> None:
        """Keep a FIFO without a watch; if there are many, close the least recently used. Needs the lock."""
        self._idle.pop(name, None)
        self._idle[name] = None
        while len(self._idle) > _IDLE:
            self._hang_up(next(iter(self._idle)))

    def asks(self, token: str) -> None:
        """Forget a ring for a claim whose owner asks now, and so needs none."""
        if self._early:
            self._early.pop(bytes.fromhex(claim_id(token)), None)

    def forget(self, watch: BellWatch) -> None:
        """End a watch, and let the FIFOs rest of processes that nobody waits for any more."""
        with self.watcher.lock:
            self.watcher.end(watch)
            there = self._watches.get(watch.key)
            if there is not None:
                there.pop(watch, None)
                if not there:
                    del self._watches[watch.key]
            for name in watch.fifos:
                watched = self._watched.get(name)
                if watched is not None:
                    watched.watches.pop(watch, None)
                    if not watched.watches:
                        self._rest(name)

    def _hang_up(self, name: str) -> Sequence[BellWatch]:
        """Drop another process's FIFO, closed once unused; return the watches on it. Under the lock."""
        self._idle.pop(name, None)
        watched = self._watched.pop(name, None)
        if watched is None:
            return ()
        self.watcher.events.ignore(watched.descriptor)
        return list(watched.watches)

    def _died(self, name: str) -> Sequence[Ring]:
        """Another process has died, or has another FIFO now; the bells of the watches that depended on it."""
        return [watch.ring for watch in self._hang_up(name)]

    def _rung(self) -> Sequence[Ring]:
        """Read this process's bell; the bells of the watches that it is for."""
        keys, garbled = self.pulse.rings() if self.pulse is not None else (set(), False)
        return self._woken(list(self._watches) if garbled else keys)

    def _woken(self, keys: Iterable[bytes]) -> Sequence[Ring]:
        woken: list[Ring] = []
        with self.watcher.lock:
            for key in keys:
                found = self._watches.get(key)
                if found is None:
                    self._early[key] = None
                else:
                    woken.extend(watch.ring for watch in found)
            while len(self._early) > _KEPT:
                del self._early[next(iter(self._early))]
        return woken

    def leave(self, user: object, unused: Callable[[str], bool]) -> None:
        """Remove a user; the last one also the FIFO, if it is ``unused`` by claims. May be repeated."""
        with self.watcher.lock:
            self.users.discard(user)
            if not self.users:
                for name in list(self._idle):
                    self._hang_up(name)
            pulse = self.pulse
            if not self.users and pulse is not None and unused(pulse.name):
                self.pulse = (
                    None  # first: a signal handler may raise below, and a closed pulse vouches for nothing
                )
                self.watcher.events.close(pulse.descriptor)
                pulse.retire()

    def abandon(self) -> None:
        """In a forked child: close all of the parent's descriptors."""
        self.inherited, self._watches = True, {}
        pulse, self.pulse = self.pulse, None
        watched, self._watched, self._idle = self._watched, {}, {}
        for each in (*watched.values(), *([pulse] if pulse else ())):
            try:
                each.descriptor.close()
            except OSError:
                pass


class Listener:
    """The FIFOs of all stores of this process."""

    def __init__(self) -> None:
        self.watcher = Watcher()
        self.lock = self.watcher.lock
        self._pulses: dict[str, Pulses] = {}

    def enter(self, folder: str, mode: int, user: object) -> Pulses:
        """The FIFOs of a folder, with one more user."""
        with self.lock:
            pulses = self._pulses.get(folder)
            if pulses is None:
                pulses = self._pulses[folder] = Pulses(self.watcher, folder, mode)
            pulses.users.add(user)
            return pulses

    def leave(self, folder: str, user: object) -> None:
        """Remove a user of a folder that has used nothing there. May be repeated."""
        with self.lock:
            pulses = self._pulses.get(folder)
            if pulses is not None:
                pulses.users.discard(user)

    def forget(self) -> None:
        """In a forked child: close the inherited descriptors and forget everything."""
        pulses, self._pulses = self._pulses, {}
        self.watcher.forget()
        for each in pulses.values():
            each.abandon()


LISTENER = Listener()
