"""The process-wide registry of pulses, and the one thread that listens.

The registry belongs to the process, not to a client: a client that is closed or collected leaves its claims as they
are, so it must not silence the pulse that vouches for them. The thread is started by the first watch. It reads the
bells of this process's FIFOs and holds the write ends of the FIFOs of those who are in the way: the kernel reports
POLLERR there when the last reader dies (0.2 ms measured), so nobody polls.

In a forked child everything is closed and forgotten: the child neither vouches for its parent's claims nor hears its
bells. (Closing a copy of an epoll descriptor leaves the parent's as it is; removing entries through it would not.)
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable, Iterable, Sequence

from lockkit.forks import reinit
from lockkit_sqlite.failures import inherited
from lockkit_sqlite.pulse import ALIVE, DEAD, UNKNOWN, Health, Pulse, new_pulse, open_bell, probe, still_read

__all__ = ["REGISTRY", "BellWatch", "House", "Registry"]

_log = logging.getLogger("lockkit.sqlite")


class BellWatch:
    """One running watch: rung by its own claim id, or by the death of one of those it waits for."""

    __slots__ = ("_house", "fifos", "key", "open", "wake")

    def __init__(self, house: House, key: bytes, fifos: tuple[str, ...], wake: Callable[[], None]) -> None:
        self._house = house
        self.key = key
        self.fifos = fifos
        self.wake = wake
        self.open = True

    def ring(self) -> None:
        """Wake; trouble in the callback stays the callback's."""
        if self.open:
            try:
                self.wake()
            except Exception:
                _log.exception("a wake-up callback failed")

    def close(self) -> None:
        """Stop. Never raises."""
        self.open = False
        self._house.forget(self)


class _Line:
    """A write end to somebody's FIFO, shared by all watches that depend on it."""

    __slots__ = ("descriptor", "watches")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.watches: dict[BellWatch, None] = {}


class House:
    """All that this process has open for one store file: its pulse, its watches, its lines to others."""

    def __init__(self, registry: Registry, folder: str, mode: int) -> None:
        self._registry = registry
        self.folder = folder
        self.mode = mode
        self.users = 0
        self.inherited = False
        """This is a forked child, and the house is its parent's."""
        self.pulse: Pulse | None = None
        self.watches: dict[bytes, dict[BellWatch, None]] = {}
        self.lines: dict[str, _Line] = {}

    def name(self) -> str:
        """The name of this process's FIFO, created now if it is the first time.

        Raises:
            Refused: It cannot be created.
        """
        pulse = self.pulse
        if pulse is None:
            with self._registry.lock:
                pulse = self.pulse
                if pulse is None:
                    if self.inherited:
                        raise inherited(self.folder)
                    pulse = self.pulse = new_pulse(self.folder, self.mode)
                    self._registry.listen(pulse.descriptor, self)
        return pulse.name

    def heal(self) -> None:
        """Put the FIFO back if somebody removed it."""
        with self._registry.lock:
            if self.pulse is not None:
                old = self.pulse.heal()
                if old is not None:
                    self._registry.unlisten(old)
                    os.close(old)
                    self._registry.listen(self.pulse.descriptor, self)

    def health(self, name: str) -> Health:
        """Whether the owner of a FIFO lives; UNKNOWN for the empty name, that of a claim without a pulse."""
        if not name:
            return UNKNOWN
        if self.pulse is not None and name == self.pulse.name:
            return ALIVE
        with self._registry.lock:
            line = self.lines.get(name)
            if line is not None:
                return ALIVE if still_read(line.descriptor) else DEAD
        return probe(self.folder, name)

    def ring(self, name: str, key: bytes) -> Health:
        """Tell a waiter to ask again. Best effort: a bell that is full is rung already."""
        if self.pulse is not None and name == self.pulse.name:
            for watch in self.rung((key,)):
                watch.ring()
            return ALIVE
        descriptor, health = open_bell(self.folder, name)
        if descriptor is not None:
            try:
                os.write(descriptor, key)
            except BlockingIOError:
                pass
            except OSError:
                health = DEAD  # EPIPE: it died just now (Python ignores SIGPIPE)
            finally:
                os.close(descriptor)
        return health

    def watch(self, key: bytes, fifos: Iterable[str], wake: Callable[[], None]) -> tuple[BellWatch, bool]:
        """Begin a watch; also whether one of those in the way is dead already."""
        own = self.pulse.name if self.pulse is not None else ""
        watch = BellWatch(self, key, tuple({name for name in fifos if name and name != own}), wake)
        dead = False
        self._registry.start()
        with self._registry.lock:
            self.watches.setdefault(key, {})[watch] = None
            for name in watch.fifos:
                line = self.lines.get(name)
                if line is None:
                    descriptor, health = open_bell(self.folder, name)
                    dead = dead or health == DEAD
                    if descriptor is None:
                        continue
                    line = self.lines[name] = _Line(descriptor)
                    self._registry.listen(descriptor, (self, name))
                line.watches[watch] = None
        return watch, dead

    def forget(self, watch: BellWatch) -> None:
        """End a watch, and hang up on those nobody waits for any more."""
        with self._registry.lock:
            there = self.watches.get(watch.key)
            if there is not None:
                there.pop(watch, None)
                if not there:
                    del self.watches[watch.key]
            for name in watch.fifos:
                line = self.lines.get(name)
                if line is not None:
                    line.watches.pop(watch, None)
                    if not line.watches:
                        self.hang_up(name)

    def hang_up(self, name: str) -> Sequence[BellWatch]:
        """Close a line; who depended on it."""
        line = self.lines.pop(name, None)
        if line is None:
            return ()
        self._registry.unlisten(line.descriptor)
        os.close(line.descriptor)
        return list(line.watches)

    def rung(self, keys: Iterable[bytes], *, everybody: bool = False) -> Sequence[BellWatch]:
        """The watches that were rung for."""
        with self._registry.lock:
            chosen = list(self.watches) if everybody else keys
            return [watch for key in chosen for watch in self.watches.get(key, ())]


class Registry:
    """All houses of this process, and the listening thread."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._houses: dict[str, House] = {}
        self._epoll: select.epoll | None = None
        self._listened: dict[int, House | tuple[House, str]] = {}
        self._thread: threading.Thread | None = None

    def enter(self, folder: str, mode: int) -> House:
        """The house of a FIFO folder, with one more user."""
        with self.lock:
            house = self._houses.get(folder)
            if house is None:
                house = self._houses[folder] = House(self, folder, mode)
            house.users += 1
            return house

    def leave(self, house: House, unused: Callable[[str], bool]) -> None:
        """One user less.

        The last one takes the FIFO away if no claim names it (``unused``); else it stays to the end of the process,
        vouching for what its closed clients left behind.
        """
        with self.lock:
            house.users -= 1
            pulse = house.pulse
            if house.users > 0 or pulse is None or not unused(pulse.name):
                return
            house.pulse = None
            self.unlisten(pulse.descriptor)
            pulse.retire()
            os.close(pulse.descriptor)

    def listen(self, descriptor: int, who: House | tuple[House, str]) -> None:
        """Hear a bell (a House) or a death (a House and a FIFO's name). Under the lock."""
        if self._epoll is None:
            self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._listened[descriptor] = who
        self._epoll.register(descriptor, select.EPOLLIN if isinstance(who, House) else 0)

    def unlisten(self, descriptor: int) -> None:
        """Stop hearing it. Under the lock."""
        self._listened.pop(descriptor, None)
        if self._epoll is not None:
            try:
                self._epoll.unregister(descriptor)
            except OSError:
                pass

    def start(self) -> None:
        """Start the thread, if it is not running."""
        if self._thread is None or not self._thread.is_alive():
            with self.lock:
                if self._thread is None or not self._thread.is_alive():
                    if self._epoll is None:
                        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
                    name = "lockkit-sqlite-watcher"
                    self._thread = threading.Thread(
                        target=self._run, args=(self._epoll,), name=name, daemon=True
                    )
                    self._thread.start()

    def _run(self, epoll: select.epoll) -> None:
        while True:
            try:
                events = epoll.poll()
            except (OSError, ValueError):
                return  # closed under us (closerange): the poll cap takes over, the next watch starts anew
            for descriptor, _ in events:
                self._handle(descriptor)

    def _handle(self, descriptor: int) -> None:
        woken: Sequence[BellWatch] = ()
        with self.lock:
            who = self._listened.get(descriptor)
            if who is None:
                self.unlisten(descriptor)
            elif isinstance(who, tuple):
                house, name = who
                woken = house.hang_up(name)
            elif who.pulse is not None and who.pulse.descriptor == descriptor:
                keys, everybody = who.pulse.rings()
                woken = who.rung(keys, everybody=everybody)
        for watch in woken:
            watch.ring()

    def forget(self) -> None:
        """In a forked child: close the inherited descriptors and know nothing."""
        houses, self._houses = self._houses, {}
        epoll, self._epoll = self._epoll, None
        self._listened = {}
        self._thread = None
        reinit(self.lock)()
        if epoll is not None:
            epoll.close()
        for house in houses.values():
            house.inherited = True
            pulse, house.pulse = house.pulse, None
            lines, house.lines, house.watches = house.lines, {}, {}
            descriptors = [line.descriptor for line in lines.values()]
            for descriptor in [*descriptors, *([pulse.descriptor] if pulse else [])]:
                try:
                    os.close(descriptor)
                except OSError:
                    pass


REGISTRY = Registry()
