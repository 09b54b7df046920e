"""NVIDIA's cards and their MIG slices, by NVML.

A snapshot asks each card five questions, and three more the first time. One of them has all the counters of its health. A card that does not answer one of
them, because of its model, its driver or a defect, is still listed with what it did answer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from lockkit.devices import Device, DeviceProcess, DeviceWatch, NoWatch, Snapshot
from lockkit.errors import DevicesUnavailable
from lockkit.gpu.nvml_health import LOST, faults_of, harmless_xid
from lockkit.gpu.nvml_library import begin, load, unavailable
from lockkit.gpu.pids import Pids
from lockkit.mutex import Mutex

__all__ = ["NvmlProvider"]

_PATIENCE = 4.0
"""Seconds to wait for a look of another thread. A driver that hangs must not collect threads."""
_NOT_HERE = (3, 13)
"""NOT_SUPPORTED and FUNCTION_NOT_FOUND: answers that do not change while the driver is loaded."""


class NvmlProvider:
    """NVIDIA's cards. Between two snapshots the driver stays open, until :meth:`close`.

    Args:
        proc: The folder ``/proc``.
    """

    name = "nvml"

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._mutex = Mutex()
        self._session: _Session | None = None
        self._watches: set[NvmlWatch] = set()

    def snapshot(self) -> Snapshot:
        """Look at all cards, in one pass.

        Raises:
            DevicesUnavailable: No pynvml, no driver, no card, or nothing can be said about any.
        """
        with self._open() as session:
            return session.snapshot(Pids(self._proc))

    def watch(self, uuids: Sequence[str]) -> DeviceWatch:
        """Watch some cards for Xids: errors that the driver reports once, when they happen.

        An Xid by which the driver only says that a program was wrong is no fault of the card. The faults of a card count for its slices.
        """
        try:
            with self._open() as session:
                watch = NvmlWatch(self, session, uuids)
                self._watches.add(watch)
                return watch
        except DevicesUnavailable:
            return NoWatch()

    def close(self) -> None:
        """Let go of the driver, unless a watch is open, so that a card can be reset. The next snapshot opens it again."""
        with self._mutex.of_this_process():
            session = self._session
            if session is not None and session.pid == os.getpid() and not self._watches:
                self._session = None
                session.end()

    def ended(self, watch: NvmlWatch) -> None:
        """Called by a watch that has ended."""
        self._watches.discard(watch)

    @contextmanager
    def try_hold(self) -> Iterator[bool]:
        """Hold the mutex of the driver, if no other thread does."""
        lock = self._mutex.of_this_process()
        held = lock.acquire(blocking=False)
        try:
            yield held
        finally:
            if held:
                lock.release()

    @contextmanager
    def _open(self) -> Iterator[_Session]:
        lock = self._mutex.of_this_process()
        if not lock.acquire(timeout=_PATIENCE):
            raise DevicesUnavailable(
                "NVIDIA's driver has not answered an earlier question yet", hint="a card may hang: see dmesg"
            )
        try:
            session = self._session
            if session is None or session.pid != os.getpid():
                nvml = load()
                begin(nvml, forked=session is not None)
                self._watches.clear()
                self._session = session = _Session(nvml)
            try:
                yield session
            except session.nvml.NVMLError as error:
                self._session = None
                session.end()
                raise unavailable(error) from error
        finally:
            lock.release()


class _Session:
    """NVML, initialised by this process, and what does not change as long as it is."""

    def __init__(self, nvml: ModuleType) -> None:
        self.nvml = nvml
        self.pid = os.getpid()
        self._cards: dict[int, _Card] = {}

    def end(self) -> None:
        with suppress(self.nvml.NVMLError):
            self.nvml.nvmlShutdown()

    def snapshot(self, pids: Pids) -> Snapshot:
        """Look at each card. Raises NVML's own error if not even their number can be told."""
        taken = time.time()
        count = self.nvml.nvmlDeviceGetCount()
        if not count:
            raise DevicesUnavailable(
                "NVIDIA's driver finds no card",
                hint="see: lspci | grep -i nvidia; in a container: docker run --gpus all",
            )
        devices: list[Device] = []
        for index in range(count):
            devices += self.card(index).look(pids)
        known = any(device.processes for device in devices)
        remarks = (
            ("in this container the pids of processes on cards cannot be told: they are those of the host",)
            if known and pids.view == "unknown"
            else ()
        )
        return Snapshot(taken, tuple(devices), remarks)

    def card(self, index: int) -> _Card:
        return self._cards.setdefault(index, _Card(self.nvml, index))

    def cards(self) -> list[_Card]:
        return [self.card(index) for index in range(self.nvml.nvmlDeviceGetCount())]


class _Card:
    """One card, asked again and again. Answers that cannot change are kept, and so is which questions it does not know."""

    def __init__(self, nvml: ModuleType, index: int) -> None:
        self._nvml = nvml
        self.index = index
        self._handle: Any = None
        self._uuid = self._name = ""
        self._unknown: set[str] = set()
        self._faults: list[str] = []

    def look(self, pids: Pids) -> list[Device]:
        """The card and its slices."""
        self._faults = []
        handle = self.handle()
        if handle is None:
            told = tuple(self._faults) or ("the driver does not open the card",)
            # As long as NVML is initialised, an index stands for the same card.
            return [Device(self._uuid, self.index, self._name, faults=told)]
        uuid, name = self.uuid(), self._called()
        mode = self._ask("nvmlDeviceGetMigMode", handle)
        sliced = bool(mode) and mode[0] == 1
        found = [self._device(handle, uuid, name, pids, busy=not sliced)._replace(sliced=sliced)]
        found += self._slices(uuid, pids) if sliced else ()
        self._faults += faults_of(handle, self._ask)
        # Only now is everything known that a question has brought to light.
        return [one._replace(faults=self._faults_of(one)) for one in found]

    def _faults_of(self, device: Device) -> tuple[str, ...]:
        """The card's faults, which count for its slices too, and one more if the device gives no UUID."""
        nameless = "the driver does not give its UUID"
        return tuple(self._faults if device.uuid or LOST in self._faults else [*self._faults, nameless])

    def handle(self) -> Any:
        """NVML's handle of the card; None if it is not given, which is a fault."""
        if self._handle is None:
            self._handle = self._ask("nvmlDeviceGetHandleByIndex", self.index)
        return self._handle

    def uuid(self) -> str:
        """The card's UUID; "" if it is not given."""
        if not self._uuid:
            self._uuid = self._ask("nvmlDeviceGetUUID", self._handle) or ""
        return self._uuid

    def slices(self) -> list[tuple[Any, str]]:
        """The handles and UUIDs of the card's slices."""
        most = self._ask("nvmlDeviceGetMaxMigDeviceCount", self._handle) or 0
        found: list[tuple[Any, str]] = []
        for number in range(most):
            handle = self._ask("nvmlDeviceGetMigDeviceHandleByIndex", self._handle, number)
            if handle is not None:  # slices may have gaps between them
                uuid = self._ask("nvmlDeviceGetUUID", handle) or ""
                found.append((handle, uuid))
        return found

    def _slices(self, parent: str, pids: Pids) -> list[Device]:
        found: list[Device] = []
        for one, uuid in self.slices():
            name = self._ask("nvmlDeviceGetName", one) or ""
            found.append(self._device(one, uuid, name, pids, busy=False)._replace(parent=parent))
        return found

    def _called(self) -> str:
        if not self._name:
            self._name = self._ask("nvmlDeviceGetName", self._handle) or ""
        return self._name

    def _device(self, handle: Any, uuid: str, name: str, pids: Pids, *, busy: bool) -> Device:
        memory, reserved, used = self._memory(handle)
        rates = self._ask("nvmlDeviceGetUtilizationRates", handle) if busy else None
        return Device(
            uuid,
            self.index,
            name,
            memory,
            reserved,
            used,
            None if rates is None else rates.gpu,
            self._processes(handle, pids),
        )

    def _memory(self, handle: Any) -> tuple[int | None, int, int | None]:
        """All bytes, those that the driver reserves, and those in use beyond them. Old drivers count the former among the latter."""
        new = self._ask("nvmlDeviceGetMemoryInfo", handle, version=self._nvml.nvmlMemory_v2)
        if new is not None:
            return new.total, new.reserved, new.used
        old = self._ask("nvmlDeviceGetMemoryInfo", handle)
        return (None, 0, None) if old is None else (old.total, 0, old.used)

    def _processes(self, handle: Any, pids: Pids) -> tuple[DeviceProcess, ...] | None:
        found = self._ask("nvmlDeviceGetComputeRunningProcesses_v3", handle)
        if found is None:
            found = self._ask("nvmlDeviceGetComputeRunningProcesses_v2", handle)
        if found is None:
            return None
        memory: dict[int, int | None] = {}
        for one in found:  # a process may appear once for each of its contexts
            before = memory.get(one.pid, 0)
            memory[one.pid] = (
                None if before is None or one.usedGpuMemory is None else before + one.usedGpuMemory
            )
        return tuple(pids.process(pid, used) for pid, used in memory.items())

    def _ask(self, name: str, *args: Any, **more: Any) -> Any:
        """The answer to one call of NVML; None if there is none.

        A question that a card does not support is not asked again. For a slice nothing is remembered.
        """
        key = f"{name}_v2" if more else name
        call = getattr(self._nvml, name, None)
        if call is None or key in self._unknown or self._faults[:1] == [LOST]:
            return None
        try:
            return call(*args, **more)
        except self._nvml.NVMLError as error:
            number = error.value
            if number in _NOT_HERE and args[:1] == (self._handle,):
                self._unknown.add(key)
            told = _FATAL.get(number)
            if told is not None and told not in self._faults:
                self._faults.insert(0, told)
                self._handle = None if told == LOST else self._handle
        except ValueError:  # a text that is no UTF-8
            pass
        return None


_FATAL = {
    15: LOST,
    16: "the card must be reset before it can be used again",
    14: "the card's firmware data are damaged",
}
"""Errors of NVML that say that the card itself is faulty."""


class NvmlWatch:
    """Xids of some cards since the watch began, from NVML's event set."""

    def __init__(self, provider: NvmlProvider, session: _Session, uuids: Sequence[str]) -> None:
        self._provider, self._session = provider, session
        self._nvml, self._pid = session.nvml, os.getpid()
        self._found: dict[str, list[str]] = {uuid: [] for uuid in uuids}
        self._cards: dict[int, set[str]] = {}
        self._events = self._nvml.nvmlEventSetCreate()
        for card in session.cards():
            handle = card.handle()
            about = {
                uuid for uuid in (card.uuid(), *(uuid for _, uuid in card.slices())) if uuid in self._found
            }
            if handle is None or not about:
                continue
            with suppress(self._nvml.NVMLError):  # a card without such events
                self._nvml.nvmlDeviceRegisterEvents(
                    handle, self._nvml.nvmlEventTypeXidCriticalError, self._events
                )
                self._cards[_address(handle)] = about

    def faults(self, uuid: str) -> tuple[str, ...]:
        """The Xids of a card, or of the card of a slice, since the watch began. Does not wait for the driver."""
        if self._pid == os.getpid():
            with self._provider.try_hold() as held:
                if held and self._events is not None:
                    self._collect()
        return tuple(self._found.get(uuid, ()))

    def _collect(self) -> None:
        while True:
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._events, 0)
            except self._nvml.NVMLError as error:
                if error.value == 15:  # a card of the set is lost, and NVML does not say which
                    for uuids in self._cards.values():
                        self._tell(
                            uuids, LOST if len(self._cards) == 1 else f"one of the watched cards: {LOST}"
                        )
                return
            if not harmless_xid(event.eventData):
                told = f"Xid {event.eventData}: the driver has reported an error of the card"
                self._tell(self._cards.get(_address(event.device), set()), told)

    def _tell(self, uuids: set[str], told: str) -> None:
        for uuid in uuids:
            if told not in self._found[uuid]:
                self._found[uuid].append(told)

    def close(self) -> None:
        """End the watch. The driver stays open."""
        events, self._events = self._events, None
        if events is not None and self._pid == os.getpid():
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlEventSetFree(events)
        self._provider.ended(self)


def _address(handle: Any) -> int:
    """The number by which NVML knows a card while it is initialised."""
    from ctypes import c_void_p, cast

    return cast(handle, c_void_p).value or 0
