"""The FIFOs that this process has open, and the one thread that listens to them.

They belong to the process, not to a client: a client that is closed or collected leaves its claims as they are, so it must not
silence the pulse that vouches for them. The thread is started by the first watch. It reads the bells of this process's own FIFOs,
and holds the write ends of the FIFOs of the processes that its waiters wait for: the kernel reports POLLERR there when the last
reader dies (0.2 ms measured), so nobody polls.

In a forked child everything is closed and forgotten: the child neither vouches for its parent's claims nor reads its
bells. (Closing a copy of an epoll descriptor leaves the parent's as it is; removing entries through it would not.)
"""

from __future__ import annotations

import logging
import os
import select
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeAlias

from lockkit.forks import reinit
from lockkit.names import claim_id
from lockkit.store.inherited import inherited
from lockkit.store.waking import wake_up
from lockkit_sqlite.descriptors import Descriptor
from lockkit_sqlite.failures import raise_if_foreign
from lockkit_sqlite.pulse import ALIVE, DEAD, UNKNOWN, Health, Pulse, open_bell, probe, still_read

__all__ = ["LISTENER", "BellWatch", "Listener", "Pulses"]

_log = logging.getLogger("lockkit.sqlite")
_KEPT = 1024
"""Most rings that are kept for watches to come."""


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

    def close(self) -> None:
        """Stop. Never raises."""
        self.open = False
        self._pulses.forget(self)


class _Watched:
    """The write end of another process's FIFO, shared by all watches that depend on that process."""

    __slots__ = ("descriptor", "watches")

    def __init__(self, descriptor: Descriptor) -> None:
        self.descriptor = descriptor
        self.watches: dict[BellWatch, None] = {}


class Pulses:
    """The FIFOs of one store file that this process has open: its own, and those of processes that it waits for.

    Attributes:
        users: The open stores.
        inherited: This is a forked child, and the object is its parent's.
        pulse: This process's own FIFO, once a claim needs it.
    """

    def __init__(self, listener: Listener, folder: str, mode: int) -> None:
        self._listener = listener
        self._folder = folder
        self._mode = mode
        self.users: weakref.WeakSet[object] = weakref.WeakSet()
        self.inherited = False
        self.pulse: Pulse | None = None
        self._watches: dict[bytes, dict[BellWatch, None]] = {}
        self._watched: dict[str, _Watched] = {}
        self._early: dict[bytes, None] = {}
        """Rings for claims without a watch: their owners asked, and are about to begin one."""

    def name(self) -> str:
        """The name of this process's FIFO, created now if it is the first time.

        Raises:
            Refused: It cannot be created.
        """
        pulse = self.pulse
        if pulse is None:
            with self._listener.lock:
                if self.inherited:
                    raise inherited(self._folder)
                pulse = self.pulse or Pulse(self._folder, self._mode)
                self._listener.listen(pulse.descriptor, self._rung, select.EPOLLIN)
                self.pulse = pulse
        return pulse.name

    def heal(self) -> None:
        """Put the FIFO back if somebody removed it."""
        with self._listener.lock:
            old = self.pulse.heal() if self.pulse is not None else None
            if self.pulse is not None and old is not None:
                self._listener.close(old)
                self._listener.listen(self.pulse.descriptor, self._rung, select.EPOLLIN)

    def health(self, name: str) -> Health:
        """Whether the owner of a FIFO is alive; UNKNOWN for the empty name, that of a claim without a pulse."""
        if not name:
            return UNKNOWN
        if self.pulse is not None and name == self.pulse.name:
            return ALIVE
        with self._listener.lock:
            watched = self._watched.get(name)
            if watched is not None:
                return ALIVE if still_read(watched.descriptor) else DEAD
        return probe(self._folder, name)

    def ring(self, name: str, key: bytes) -> Health:
        """Tell a waiter to ask again. Best effort: a bell that is full is rung already."""
        if self.pulse is not None and name == self.pulse.name:
            for watch in self._woken((key,)):
                watch.ring()
            return ALIVE
        descriptor, health = open_bell(self._folder, name)
        if descriptor is not None:
            try:
                os.write(descriptor.fileno(), key)
            except OSError as error:
                raise_if_foreign(error)
                if not isinstance(error, BlockingIOError):
                    return DEAD  # EPIPE: it died just now (Python ignores SIGPIPE)
        return health

    def watch(self, key: bytes, fifos: Iterable[str], wake: Callable[[], None]) -> tuple[BellWatch, bool]:
        """Begin a watch; also whether it was rung before, or one of the processes that it waits for is dead already."""
        own = self.pulse.name if self.pulse is not None else ""
        watch = BellWatch(self, key, tuple({name for name in fifos if name and name != own}), wake)
        self._listener.start()
        with self._listener.lock:
            self._watches.setdefault(key, {})[watch] = None
            missed = self._early.pop(key, self) is None
            for name in watch.fifos:
                watched = self._watched.get(name)
                if watched is None:
                    descriptor, health = open_bell(self._folder, name)
                    missed = missed or health == DEAD
                    if descriptor is None:
                        continue
                    watched = self._watched[name] = _Watched(descriptor)
                    self._listener.listen(descriptor, partial(self._hang_up, name))
                watched.watches[watch] = None
        return watch, missed

    def asks(self, token: str) -> None:
        """Forget a ring for a claim whose owner asks now, and so needs none."""
        if self._early:
            self._early.pop(bytes.fromhex(claim_id(token)), None)

    def forget(self, watch: BellWatch) -> None:
        """End a watch, and close the FIFOs of processes that nobody waits for any more."""
        with self._listener.lock:
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
                        self._hang_up(name)

    def _hang_up(self, name: str) -> Sequence[BellWatch]:
        """Close another process's FIFO; the watches that depended on that process. Under the lock."""
        watched = self._watched.pop(name, None)
        if watched is None:
            return ()
        self._listener.close(watched.descriptor)
        return list(watched.watches)

    def _rung(self) -> Sequence[BellWatch]:
        """Read this process's bell; the watches that it is for."""
        keys, garbled = self.pulse.rings() if self.pulse is not None else (set(), False)
        return self._woken(list(self._watches) if garbled else keys)

    def _woken(self, keys: Iterable[bytes]) -> Sequence[BellWatch]:
        woken: list[BellWatch] = []
        with self._listener.lock:
            for key in keys:
                found = self._watches.get(key)
                if found is None:
                    self._early[key] = None
                else:
                    woken.extend(found)
            while len(self._early) > _KEPT:
                del self._early[next(iter(self._early))]
        return woken

    def leave(self, user: object, unused: Callable[[str], bool]) -> None:
        """Remove a user. May be repeated.

        The last one removes the FIFO if no claim names it (``unused``); else the FIFO stays to the end of the process,
        vouching for what its closed clients left behind.
        """
        with self._listener.lock:
            self.users.discard(user)
            pulse = self.pulse
            if not self.users and pulse is not None and unused(pulse.name):
                self.pulse = (
                    None  # first: a signal handler may raise below, and a closed pulse vouches for nothing
                )
                self._listener.close(pulse.descriptor)
                pulse.retire()

    def abandon(self) -> None:
        """In a forked child: close all of the parent's descriptors."""
        self.inherited, self._watches = True, {}
        pulse, self.pulse = self.pulse, None
        watched, self._watched = self._watched, {}
        for each in (*watched.values(), *([pulse] if pulse else ())):
            try:
                each.descriptor.close()
            except OSError:
                pass


_Reading: TypeAlias = Callable[[], Sequence[BellWatch]]
"""The function to call when something happens on a descriptor; it returns the watches to ring."""


class Listener:
    """The FIFOs of all stores of this process, and the thread that listens to them.

    Attributes:
        lock: Guards all of it.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._pulses: dict[str, Pulses] = {}
        self._epoll: select.epoll | None = None
        self._readings: dict[int, _Reading] = {}
        self._thread: threading.Thread | None = None

    def enter(self, folder: str, mode: int, user: object) -> Pulses:
        """The FIFOs of a folder, with one more user."""
        with self.lock:
            pulses = self._pulses.get(folder)
            if pulses is None:
                pulses = self._pulses[folder] = Pulses(self, folder, mode)
            pulses.users.add(user)
            return pulses

    def leave(self, folder: str, user: object) -> None:
        """Remove a user of a folder that has used nothing there. May be repeated."""
        with self.lock:
            pulses = self._pulses.get(folder)
            if pulses is not None:
                pulses.users.discard(user)

    def listen(self, descriptor: Descriptor, reading: _Reading, events: int = 0) -> None:
        """Call ``reading`` when there are such events, or the last reader of the FIFO is gone. Under the lock. May be repeated."""
        self._readings[descriptor.fileno()] = reading
        try:
            self._listening().register(descriptor, events)
        except FileExistsError as error:
            raise_if_foreign(error)

    def close(self, descriptor: Descriptor) -> None:
        """Close a descriptor that is listened to. Under the lock. May be repeated."""
        if not descriptor.closed:
            self._ignore(descriptor.fileno())
            descriptor.close()

    def _ignore(self, descriptor: int) -> None:
        self._readings.pop(descriptor, None)
        try:
            self._listening().unregister(descriptor)
        except OSError as error:
            raise_if_foreign(error)

    def _listening(self) -> select.epoll:
        if self._epoll is None:
            self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        return self._epoll

    def start(self) -> None:
        """Start the thread, if it is not running."""
        if self._thread is None or not self._thread.is_alive():
            with self.lock:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(
                        target=self._run,
                        args=(self._listening(),),
                        name="lockkit-sqlite-watcher",
                        daemon=True,
                    )
                    self._thread.start()

    def _run(self, epoll: select.epoll) -> None:
        while True:
            try:
                events = epoll.poll()
            except (OSError, ValueError):
                return  # the program closed it (closerange): waiters ask every poll cap, the next watch starts anew
            for descriptor, _ in events:
                with self.lock:
                    reading = self._readings.get(descriptor, tuple)
                    woken = reading()
                    if reading is tuple:
                        self._ignore(descriptor)
                for watch in woken:
                    watch.ring()

    def forget(self) -> None:
        """In a forked child: close the inherited descriptors and forget everything."""
        pulses, self._pulses = self._pulses, {}
        epoll, self._epoll = self._epoll, None
        self._readings = {}
        self._thread = None
        reinit(self.lock)()
        if epoll is not None:
            epoll.close()
        for each in pulses.values():
            each.abandon()


LISTENER = Listener()
