"""AMD's cards for lockkit, by AMD's own library, amdsmi."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from typing import Any

from lockkit import DevicesNotReady, DevicesUnavailable, hookimpl
from lockkit.gpu.devices import BasicProvider, Device, DeviceProcess, Snapshot
from lockkit.gpu.pids import Pids
from lockkit.lib.mutex import Mutex  # always free in a forked child

MIB = 1 << 20
PATIENCE = 4.0
"""Seconds to wait for another thread's look. lockkit gives up after 5 s, so hung threads do not pile up."""


class AmdProvider(BasicProvider):
    """AMD's cards. The library is opened for one snapshot at a time, so nothing is open across a fork."""

    name = "amd"

    def __init__(self) -> None:
        self._one_at_a_time = Mutex()

    def snapshot(self) -> Snapshot:
        try:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):  # it prints what it then raises
                import amdsmi  # here, and not above: most programs never look at a card
        except Exception as error:  # amdsmi raises what it likes if its library is missing
            raise DevicesUnavailable(f"amdsmi cannot be imported: {error}", hint="install ROCm") from error
        lock = self._one_at_a_time.of_this_process()
        if not lock.acquire(timeout=PATIENCE):
            raise DevicesNotReady("AMD's driver has not answered an earlier question yet", hint="see: dmesg")
        try:
            cards, taken = self.look(amdsmi)
        finally:
            lock.release()
        if not cards:
            raise DevicesUnavailable("AMD's driver finds no card", hint="see: rocm-smi")
        return Snapshot(taken, cards)

    def look(self, amdsmi: Any) -> tuple[tuple[Device, ...], float]:
        try:
            amdsmi.amdsmi_init()
        except amdsmi.AmdSmiException as error:
            raise DevicesUnavailable(f"AMD's driver fails: {error}", hint="see: dmesg") from error
        try:
            taken, pids = time.time(), Pids()
            handles = amdsmi.amdsmi_get_processor_handles()
            return tuple(AmdCard(amdsmi, handle, n).look(pids) for n, handle in enumerate(handles)), taken
        except amdsmi.AmdSmiException as error:
            raise DevicesUnavailable(f"AMD's driver fails: {error}", hint="see: dmesg") from error
        finally:
            amdsmi.amdsmi_shut_down()


class AmdCard:
    """One card. A question that it does not answer leaves a field unknown, and hides nothing else."""

    def __init__(self, amdsmi: Any, handle: Any, index: int) -> None:
        self.amdsmi, self.handle, self.index = amdsmi, handle, index
        self.faults: list[str] = []

    def look(self, pids: Pids) -> Device:
        uuid = self.ask(self.amdsmi.amdsmi_get_gpu_device_uuid)
        vram = self.ask(self.amdsmi.amdsmi_get_gpu_vram_usage) or {}
        activity = self.ask(self.amdsmi.amdsmi_get_gpu_activity) or {}
        model = self.ask(self.amdsmi.amdsmi_get_gpu_asic_info) or {}
        errors = self.ask(self.amdsmi.amdsmi_get_gpu_total_ecc_count) or {}
        if not uuid:
            self.faults.append("the driver does not give the card's UUID")
        if errors.get("uncorrectable_count"):
            self.faults.append(f"{errors['uncorrectable_count']} memory errors could not be corrected")
        processes = self.processes(pids)
        return Device(
            f"AMD-{uuid}" if uuid else "",
            self.index,
            model.get("market_name", ""),
            memory=size(vram.get("vram_total")),
            used=size(vram.get("vram_used")),
            utilisation=number(activity.get("gfx_activity")),
            processes=processes,
            faults=tuple(self.faults),
        )

    def processes(self, pids: Pids) -> tuple[DeviceProcess, ...] | None:
        found: Sequence[dict[str, Any]] | None = self.ask(self.amdsmi.amdsmi_get_gpu_process_list)
        if found is None:
            return None  # unknown, which is not the same as none
        return tuple(pids.process(one["pid"], number(one["memory_usage"]["vram_mem"])) for one in found)

    def ask(self, question: Callable[[Any], Any]) -> Any:
        try:
            return question(self.handle)
        except self.amdsmi.AmdSmiException:
            return None


def number(value: object) -> int | None:
    """amdsmi writes "N/A" for what a card does not say."""
    return value if isinstance(value, int) else None


def size(mebibytes: object) -> int | None:
    return mebibytes * MIB if isinstance(mebibytes, int) else None


@hookimpl
def lockkit_devices() -> Sequence[AmdProvider]:
    return [AmdProvider()]
