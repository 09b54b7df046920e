"""NVML as this process has initialised it, and the cards that it knows."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Event
from types import ModuleType

from lockkit.errors import DevicesUnavailable
from lockkit.gpu.devices import Device, Snapshot
from lockkit.gpu.nvml.card import NvmlCard
from lockkit.gpu.pids import Pids
from lockkit.gpu.unreturned import ProviderCall, give_up_late, has_returned
from lockkit.lib.origin import this_origin
from lockkit.plugins.calling import Outcome, call_within

__all__ = ["NvmlSession"]


class NvmlSession:
    """NVML, initialised by this process, and what does not change as long as it is."""

    def __init__(self, nvml: ModuleType) -> None:
        self.nvml = nvml
        self.origin = this_origin()
        self._cards: dict[int, NvmlCard] = {}
        self._answered = Event()

    def hangs(self) -> bool:
        """Whether a call for one of the cards has not returned, so the driver must stay open."""
        return not all(map(has_returned, self._cards.values()))

    def end(self) -> None:
        """Let go of the driver, unless a call for one of the cards hangs."""
        with suppress(self.nvml.NVMLError):
            if not self.hangs():
                self.nvml.nvmlShutdown()

    def snapshot(self, pids: Pids, within: float, returned: Callable[[], object]) -> Snapshot:
        """Look at all cards, at the same time: without persistence mode each may take a second to wake.

        A card that does not answer in time is unreachable, and is not asked again until it has answered.

        Args:
            pids: The processes of this host.
            within: Seconds for the answers of the cards.
            returned: Called when a card has answered too late.

        Where no card answers in time the driver hangs: then this returns when one has.

        Raises:
            TimeoutError: No card has answered in time.

        NVML's own error is raised if not even the number of cards can be told.
        """
        taken = time.time()
        count = self.nvml.nvmlDeviceGetCount()
        if not count:
            raise DevicesUnavailable(
                "NVIDIA's driver finds no card",
                hint="see: lspci | grep -i nvidia; in a container: docker run --gpus all",
            )
        asked = {
            index: ProviderCall(self.card(index), partial(self.card(index).look, pids))
            for index in range(count)
            if has_returned(self.card(index))
        }
        self._answered.clear()
        looks = [(str(index), partial(self._then, returned, call)) for index, call in asked.items()]
        outcomes = dict(zip(asked, call_within(within, "gpu", looks, {}), strict=True))
        give_up_late(asked.values())
        late = TimeoutError(f"no card has answered within {within:g} s")
        devices: list[Device] = []
        for index in range(count):
            outcome = outcomes.get(index) or Outcome("", error=late)
            if isinstance(outcome.value, list):
                devices += outcome.value
            elif isinstance(outcome.error, TimeoutError):
                devices.append(self.card(index).silent(within))
            else:
                raise outcome.error or late
        if all(isinstance(one.error, TimeoutError) for one in outcomes.values()):
            self._answered.wait()  # the driver hangs, and its caller gives it up until this returns
            raise late
        known = any(device.processes for device in devices)
        remarks = (
            ("in this container the pids of processes on cards cannot be told: they are those of the host",)
            if known and pids.view == "unknown"
            else ()
        )
        return Snapshot(taken, tuple(devices), remarks)

    def card(self, index: int) -> NvmlCard:
        """The card with an index, which means the same card as long as the session lasts."""
        return self._cards.setdefault(index, NvmlCard(self.nvml, index))

    def cards(self) -> list[NvmlCard]:
        """The cards of the host, but those that hang."""
        everyone = [self.card(index) for index in range(self.nvml.nvmlDeviceGetCount())]
        return list(filter(has_returned, everyone))

    def _then(self, after: Callable[[], object], call: Callable[[], object]) -> object:
        try:
            return call()
        finally:
            self._answered.set()
            after()
