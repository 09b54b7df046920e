"""The watch over NVIDIA's cards for Xids: errors that the driver reports once, when they happen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

from lockkit.gpu.nvml.health import LOST, harmless_xid
from lockkit.gpu.nvml.session import NvmlSession
from lockkit.lib.origin import this_origin

__all__ = ["NvmlWatch"]


class NvmlWatch:
    """Xids of some cards since the watch began, from NVML's event set.

    Args:
        session: NVML.
        uuids: The UUIDs of the cards.
        try_hold: Holds the mutex of the driver, if no other thread does.
        ended: Called when the watch ends.
    """

    def __init__(
        self,
        session: NvmlSession,
        uuids: Sequence[str],
        try_hold: Callable[[], AbstractContextManager[bool]],
        ended: Callable[[NvmlWatch], None],
    ) -> None:
        self._try_hold, self._ended = try_hold, ended
        self._nvml, self._origin = session.nvml, this_origin()
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
        """The Xids of a card, or of a slice's card, since the watch began. Does not wait for the driver."""
        if self._origin.is_here():
            with self._try_hold() as held:
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
        if events is not None and self._origin.is_here():
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlEventSetFree(events)
        self._ended(self)


def _address(handle: Any) -> int:
    """The number by which NVML knows a card while it is initialised."""
    from ctypes import c_void_p, cast

    return cast(handle, c_void_p).value or 0
