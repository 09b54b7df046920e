"""NVML as this process has initialised it, and the cards that it knows."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from functools import partial
from types import ModuleType

from lockkit.devices import Device, Snapshot
from lockkit.errors import DevicesUnavailable
from lockkit.gpu.nvml.card import NvmlCard
from lockkit.gpu.pids import Pids
from lockkit.origin import this_origin
from lockkit.plugins.calling import call_within

__all__ = ["NvmlSession"]


class NvmlSession:
    """NVML, initialised by this process, and what does not change as long as it is."""

    def __init__(self, nvml: ModuleType) -> None:
        self.nvml = nvml
        self.origin = this_origin()
        self._cards: dict[int, NvmlCard] = {}

    def end(self) -> None:
        """Let go of the driver."""
        with suppress(self.nvml.NVMLError):
            self.nvml.nvmlShutdown()

    def snapshot(self, pids: Pids) -> Snapshot:
        """Look at all cards, at the same time: without persistence mode each may take a second to wake.

        Raises NVML's own error if not even their number can be told.
        """
        taken = time.time()
        count = self.nvml.nvmlDeviceGetCount()
        if not count:
            raise DevicesUnavailable(
                "NVIDIA's driver finds no card",
                hint="see: lspci | grep -i nvidia; in a container: docker run --gpus all",
            )
        devices: list[Device] = []
        looks = [(str(index), partial(self.card(index).look, pids)) for index in range(count)]
        for outcome in call_within(threading.TIMEOUT_MAX, "gpu", looks, {}):
            if outcome.error is not None:
                raise outcome.error
            assert isinstance(outcome.value, list)
            devices += outcome.value
        known = any(device.processes for device in devices)
        remarks = (
            ("in this container the pids of processes on cards cannot be told: they are those of the host",)
            if known and pids.view == "unknown"
            else ()
        )
        return Snapshot(taken, tuple(devices), remarks)

    def card(self, index: int) -> NvmlCard:
        """The card with an index, which stands for the same card as long as the session lasts."""
        return self._cards.setdefault(index, NvmlCard(self.nvml, index))

    def cards(self) -> list[NvmlCard]:
        """All cards of the host."""
        return [self.card(index) for index in range(self.nvml.nvmlDeviceGetCount())]
