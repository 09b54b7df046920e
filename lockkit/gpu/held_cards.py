"""The cards that this process holds, with the facts that their cleanup needs, and whom it notifies."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lockkit.gpu.families import Family
from lockkit.gpu.snapshots import Looking, look
from lockkit.gpu.unreturned import has_returned
from lockkit.gpu.usage import granted
from lockkit.lib.origin import this_origin
from lockkit.lib.takers import asker
from lockkit.notes.members import in_pool
from lockkit.notes.records import Records
from lockkit.store.spi import Refused, Unknown

if TYPE_CHECKING:
    from lockkit.drivers.threads import Driver
    from lockkit.facts import Alert, ClaimInfo, Record
    from lockkit.gpu.devices import Device, DeviceProvider, Snapshot
    from lockkit.shared.lease import AnyLease

__all__ = ["HeldCard", "HeldCards", "forget_held_cards", "held_by_caller", "held_card", "note_held_cards"]

_held: weakref.WeakValueDictionary[str, HeldCard] = weakref.WeakValueDictionary()
"""The cards that this process holds, by the id of the claim. The hold of the claim keeps its entry."""


class HeldCards:
    """The cards of one request, with what their cleanup shares.

    Args:
        driver: The engine that got the leases.
        host: The name of the host in the store.
        providers: The providers of the cards.
        devices: All cards of the host.
        faults: Returns the faults of a card since its grant, by UUID.
        looking: The way in which the cards are looked at.

    Attributes:
        family: The processes that this process has started since.
        until: When the cleanups of these cards stop waiting for memory, in monotonic seconds; None at first.
    """

    def __init__(
        self,
        driver: Driver,
        host: str,
        providers: Sequence[DeviceProvider],
        devices: Sequence[Device],
        faults: Callable[[str], tuple[str, ...]],
        looking: Looking,
    ) -> None:
        self.driver = driver
        self.host = host
        self.family = Family(before=_pids_on(devices))
        self.until: float | None = None
        self.faults = faults
        self.devices = devices
        self.patience = looking.patience
        self._looking = looking
        self._providers = tuple(providers)

    def look(self, patience: float) -> Snapshot:
        """Look at all cards of the host, for so many seconds at most.

        Raises:
            DevicesUnavailable: No provider knows a card, or none has answered in time.
        """
        return look(self._providers, self._looking._replace(patience=patience))

    @property
    def hangs(self) -> bool:
        """Whether a driver has not returned from a look."""
        return not all(map(has_returned, self._providers))

    def tell(self, alert: Alert) -> None:
        """Raise an alert."""
        self.driver.dispatcher.tell(alert)


def _pids_on(devices: Sequence[Device]) -> set[int]:
    return {one.pid for device in devices for one in device.processes or () if one.pid is not None}


class HeldCard:
    """One card, or a share of one, that this process holds.

    Args:
        group: All cards of the request.
        lease: The lease of the card.
        uuid: The card.
        before: The card at the grant.

    Attributes:
        whole: Whether nobody else can hold a part of the card.
    """

    def __init__(self, group: HeldCards, lease: AnyLease, uuid: str, before: Device | None) -> None:
        self.group = group
        self.uuid = uuid
        self.before = before
        self.name = lease.name
        self.claim_id = lease.claim_id
        self.whole = lease.exclusive
        self.over = False
        self._origin = this_origin()
        _held[lease.claim_id] = self
        lease.stands_for(self)

    @property
    def devices(self) -> tuple[str, ...]:
        """The UUID of the card."""
        return (self.uuid,)

    @property
    def of_caller(self) -> bool:
        """Whether the calling thread, or asyncio task, took the card, and still holds it undetached."""
        if not self._origin.is_here():
            return False
        me = asker()
        holds = self.group.driver.registry.holds.get(self.name, ())
        return any(one.claim_id == self.claim_id and one.key == me and one.standing for one in holds)

    @property
    def shared_here(self) -> bool:
        """Whether this process holds another part of the card, too."""
        others = [one for one in list(_held.values()) if one is not self and not one.over]
        return any(one.uuid == self.uuid and one._origin.is_here() for one in others)  # noqa: SLF001

    def others(self, patience: float) -> list[ClaimInfo]:
        """The claims of others on the card. One request.

        Raises:
            BackendError: The store does not answer.
        """
        driver = self.group.driver
        queue = driver.requests.ask(
            lambda budget: driver.backend.inspect(self.name, budget), self.name, patience
        )
        return [one for one in granted(queue.claims) if one.claim_id != self.claim_id]

    def records(self, end: float) -> Records:
        """The records of the store, for as long as the time is not up.

        Args:
            end: Seconds of the monotonic clock.
        """
        return _RecordsUntil(self.group.driver, end)


class _RecordsUntil:
    """The records of the store of an engine, also while its client is being closed."""

    def __init__(self, driver: Driver, end: float) -> None:
        self._driver = driver
        self._end = end

    def record(self, name: str) -> Record | None:
        """The record of a name."""
        backend = self._driver.backend
        return self._driver.requests.ask(lambda budget: backend.record(name, budget), name, self._left())

    def put_record(self, name: str, value: Mapping[str, object], version: int) -> Record:
        """Write the record of a name if it still has this version."""
        budget = min(self._left(), self._driver.request_timeout)
        try:
            return self._driver.backend.put_record(name, value, version, budget)
        except (Refused, Unknown) as trouble:
            raise trouble.error from None

    def _left(self) -> float:
        """Seconds that are left, or a moment: a request without time is not even sent."""
        return max(self._end - time.monotonic(), 0.05)


def held_card(claim_id: str) -> HeldCard | None:
    """The card that this process holds by a claim; None if there is none."""
    return _held.get(claim_id)


def held_by_caller(name: str) -> list[str]:
    """The ids of the calling thread's or task's claims on the lock of a card, by any client on any store."""
    return [one.claim_id for one in list(_held.values()) if one.name == name and one.of_caller]


def note_held_cards(
    group: HeldCards, leases: Sequence[AnyLease], members: Sequence[str], devices: Sequence[Device]
) -> None:
    """Note the cards that were granted, so that their release cleans them.

    Args:
        group: What the cards share.
        leases: The leases; those of the cards of slices are not among the members.
        members: The UUIDs of the cards and slices that are held.
        devices: The cards, as they were seen after the grant.
    """
    seen = {device.uuid: device for device in devices}
    for lease in leases:
        uuid = (in_pool(lease.name) or ("", None))[1]
        if uuid is not None and uuid in members:
            HeldCard(group, lease, uuid, seen.get(uuid))


def forget_held_cards(leases: Sequence[AnyLease]) -> None:
    """Leave cards as they are at their release, because a job that was adopted goes on there."""
    for lease in leases:
        _held.pop(lease.claim_id, None)
