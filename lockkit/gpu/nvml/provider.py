"""The provider of NVIDIA's cards and their MIG slices: one session of NVML for all threads of a process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lockkit.errors import DevicesUnavailable
from lockkit.gpu.devices import DeviceWatch, NoWatch, Snapshot
from lockkit.gpu.nvml.library import begin, load, unavailable
from lockkit.gpu.nvml.session import NvmlSession
from lockkit.gpu.nvml.watch import NvmlWatch
from lockkit.gpu.pids import Pids
from lockkit.lib.mutex import Mutex

__all__ = ["NvmlProvider"]


class NvmlProvider:
    """NVIDIA's cards. Between two snapshots the driver stays open, until :meth:`close`.

    Args:
        proc: The folder ``/proc``.
    """

    name = "nvml"

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._mutex = Mutex()
        self._session: NvmlSession | None = None
        self._watches: set[NvmlWatch] = set()
        self._to_close = False

    def snapshot(self) -> Snapshot:
        """Look at all cards, in one pass, for as long as it takes."""
        return self.snapshot_within(threading.TIMEOUT_MAX)

    def snapshot_within(self, seconds: float) -> Snapshot:
        """Look at all cards, in one pass. A card that has not answered in time is listed as unreachable.

        Raises:
            DevicesUnavailable: No pynvml, no driver, no card, or nothing can be said about any.
            TimeoutError: No card has answered in time.
        """
        with self._open() as session:
            return session.snapshot(Pids(self._proc), seconds, self._let_go)

    def watch(self, uuids: Sequence[str]) -> DeviceWatch:
        """Watch some cards for Xids: errors that the driver reports once, when they happen.

        An Xid that reports a fault of a program is no fault of the card. Slices have those of their card.
        """
        try:
            with self._open() as session:
                watch = NvmlWatch(session, uuids, self._try_hold, self._watches.discard)
                self._watches.add(watch)
                return watch
        except DevicesUnavailable:
            return NoWatch()

    def close(self) -> None:
        """Let go of the driver, unless a watch is open, so that a card can be reset. A snapshot reopens it.

        Does not wait for a look of another thread, or a hanging card: they let go of the driver at their end.
        """
        self._to_close = True
        self._let_go()

    def _let_go(self) -> None:
        """Let go of the driver if requested, unless another thread uses it: that one calls this later."""
        while self._to_close and not self._hangs():
            with self._try_hold() as held:
                if not held:
                    return
                if self._hangs():
                    continue
                self._to_close = False
                session = self._session
                if session is not None and session.origin.is_here() and not self._watches:
                    self._session = None
                    session.end()

    def _hangs(self) -> bool:
        session = self._session
        return session is not None and session.hangs()

    @contextmanager
    def _try_hold(self) -> Iterator[bool]:
        """Hold the mutex of the driver, if no other thread does."""
        lock = self._mutex.of_this_process()
        held = lock.acquire(blocking=False)
        try:
            yield held
        finally:
            if held:
                lock.release()

    @contextmanager
    def _open(self) -> Iterator[NvmlSession]:
        lock = self._mutex.of_this_process()
        lock.acquire()  # without a limit: a hanging driver is not asked again, so few threads wait here
        try:
            session = self._session
            if session is None or not session.origin.is_here():
                nvml = load()
                begin(nvml, forked=session is not None)
                self._watches.clear()
                self._session = session = NvmlSession(nvml)
            try:
                yield session
            except session.nvml.NVMLError as error:
                self._session = None
                session.end()
                raise unavailable(error) from error
        finally:
            lock.release()
            self._let_go()
