"""The free cards that a request finds faulty: which of them it takes to quarantine them, and how.

Rules kept here:

- Two looks of one request must show the fault. A card that the driver does not reach may be in a reset, so
  its looks must be half a minute apart, and all between them must show the same.
- A card is quarantined only under a claim of the request itself, so nobody else holds or gets it meanwhile. A
  holder's card is left to the holder's own release.
- The limit on quarantines without a person holds. A card that it keeps in use is left alone for an hour.
- No request fails because a card that it does not get could not be marked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from lockkit.errors import LockkitError
from lockkit.facts import ClaimInfo
from lockkit.gpu.choosing import CardFacts
from lockkit.gpu.devices import Device
from lockkit.gpu.faulty import take_out
from lockkit.gpu.quarantine import spared
from lockkit.values.identity import process_of

if TYPE_CHECKING:
    from lockkit.sync.client import Client

__all__ = ["LASTS", "FaultCheck"]

LASTS = 30.0
"""Seconds for which the driver must not have reached a card before the card counts as faulty."""
_AGAIN = 60.0
"""Seconds after which a request tries once more to quarantine a card."""
_NOBODY = CardFacts()


class FaultCheck:
    """The check of one request.

    Args:
        client: The client.
        host: The name of the host in the store.
        devices: All cards and slices of the host, as the request saw them first.
        now: The time, in seconds.

    Attributes:
        left_alone: The free cards that the last look found faulty, and that the limit keeps in use.
    """

    def __init__(
        self, client: Client, host: str, devices: Sequence[Device], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._host = host
        self._devices = devices
        self._now = now
        self._since: dict[str, float] = {}
        self._looks: dict[str, int] = {}
        self._tried: dict[str, float] = {}
        self.left_alone: frozenset[str] = frozenset()
        self.note(devices)

    def note(self, devices: Iterable[Device]) -> None:
        """Note a look at all cards."""
        faulty = {one.uuid for one in devices if one.uuid and one.faults}
        now = self._now()
        self._since = {uuid: self._since.get(uuid, now) for uuid in faulty}
        self._looks = {uuid: self._looks.get(uuid, 0) + 1 for uuid in faulty}

    def suspects(
        self, among: Collection[str], devices: Iterable[Device], facts: Mapping[str, CardFacts]
    ) -> tuple[str, ...]:
        """The free cards that one more look would prove faulty. One request if there may be any, else none.

        Args:
            among: The UUIDs of the cards that the request may take.
            devices: All cards and slices, as the last look has shown them.
            facts: The facts of the store about those cards.

        Raises:
            BackendError: The store does not answer.
        """
        found = [
            one.uuid
            for one in devices
            if one.uuid in among
            and one.faults
            and not one.sliced
            and not facts.get(one.uuid, _NOBODY).holders
            and not facts.get(one.uuid, _NOBODY).quarantine
            and self._lasts(one)
        ]
        self.left_alone = spared(self._client, self._host).intersection(found) if found else frozenset()
        return tuple(uuid for uuid in found if uuid not in self.left_alone and not self._has_tried(uuid))

    def take(self, device: Device, holders: Sequence[ClaimInfo]) -> str | None:
        """Quarantine a granted card if it is faulty beyond doubt, and nobody else holds a part of it.

        Args:
            device: The card, as a look after the grant has shown it.
            holders: The claims that hold it.

        Returns:
            What was found, and what was done about it; None if it is not to be quarantined.
        """
        me = self._client.owner
        mine = [one for one in holders if process_of(one.owner) == process_of(me)]
        if not (device.faults and self._looks.get(device.uuid, 0) > 1 and self._lasts(device)):
            return None
        if len(mine) != 1 or len(holders) != 1 or self._has_tried(device.uuid):
            return None
        self._tried[device.uuid] = self._now()
        reason = "; ".join(device.faults)
        try:
            return take_out(
                self._client,
                self._host,
                self._devices,
                device.uuid,
                reason,
                me,
                self._client.driver().dispatcher.tell,
                lasting=False,
                claim_id=mine[0].claim_id,
            )
        except LockkitError as error:
            return f"{reason}; it could not be quarantined: {error.message}"

    def _has_tried(self, uuid: str) -> bool:
        return self._now() - self._tried.get(uuid, -_AGAIN) < _AGAIN

    def _lasts(self, device: Device) -> bool:
        """Whether a fault has been there for long enough."""
        return not device.unreachable or self._now() - self._since.get(device.uuid, self._now()) >= LASTS
