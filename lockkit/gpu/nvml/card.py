"""One of NVIDIA's cards: what NVML is asked about it, and how the answers become devices.

A look asks a card five questions, and three more the first time; one has all the counters of its health. A
card that does not answer one, because of its model, driver or defect, is listed with the other answers.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from lockkit.gpu.devices import Device, DeviceProcess
from lockkit.gpu.nvml.health import LOST, faults_of
from lockkit.gpu.pids import Pids
from lockkit.gpu.words import OLD_SLICE

__all__ = ["NvmlCard"]

_NOT_HERE = (3, 13)
"""NOT_SUPPORTED and FUNCTION_NOT_FOUND: answers that do not change while the driver is loaded."""


class NvmlCard:
    """One card, asked again and again. Answers that cannot change are kept, as are unsupported questions."""

    def __init__(self, nvml: ModuleType, index: int) -> None:
        self._nvml = nvml
        self.index = index
        self._handle: Any = None
        self._uuid = self._name = ""
        self._unknown: set[str] = set()
        self._faults: list[str] = []
        self._old_names: dict[str, str] = {}

    def look(self, pids: Pids) -> list[Device]:
        """The card and its slices."""
        self._faults = []
        handle = self.handle()
        if handle is None:
            told = tuple(self._faults) or ("the driver does not open the card",)
            return [self._unreachable(told)]
        uuid, name = self.uuid(), self._called()
        mode = self._ask("nvmlDeviceGetMigMode", handle)
        sliced = bool(mode) and mode[0] == 1
        found = [self._device(handle, uuid, name, pids, busy=not sliced)._replace(sliced=sliced)]
        found += self._slices(uuid, pids) if sliced else ()
        self._faults += faults_of(handle, self._ask)
        # Only now is everything known that a question has brought to light.
        lost = LOST in self._faults
        return [one._replace(faults=self._faults_of(one), unreachable=lost) for one in found]

    def silent(self, within: float) -> Device:
        """The card, if it has not answered within some seconds. Asks nothing."""
        why = f"the driver has not answered about the card within {within:g} s: see the kernel's log, dmesg"
        return self._unreachable((why,))._replace(silent=True)

    def _unreachable(self, faults: tuple[str, ...]) -> Device:
        # As long as NVML is initialised, an index means the same card.
        return Device(self._uuid, self.index, self._name, faults=faults, unreachable=True)

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
            device = self._device(one, uuid, name, pids, busy=False)
            found.append(device._replace(parent=parent, aliases=self._aliases(one, uuid, parent)))
        return found

    def _aliases(self, handle: Any, uuid: str, parent: str) -> tuple[str, ...]:
        """The name of a slice for drivers before R470, if not the same: that of its card, and two numbers."""
        if uuid not in self._old_names:
            numbers = [self._ask(f"nvmlDeviceGet{what}InstanceId", handle) for what in ("Gpu", "Compute")]
            if not uuid or not parent or None in numbers:
                return ()
            bare = parent.removeprefix("GPU-")
            self._old_names[uuid] = f"{OLD_SLICE}{bare}/{numbers[0]}/{numbers[1]}"
        old = self._old_names[uuid]
        return () if old == uuid else (old,)

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
        """All bytes, the reserved ones, and those in use beyond; old drivers count the second as in use."""
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
        """The answer to one call of NVML; None if none. The card's unsupported calls are not repeated."""
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
