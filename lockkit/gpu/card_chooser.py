"""The chooser of a request for cards: it looks at the cards and at the store, each time anew."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lockkit.errors import BackendUnavailable, CapacityMismatch, DevicesUnavailable, OutcomeUnknown
from lockkit.facts import ClaimInfo, LockInfo
from lockkit.gpu.card_denials import Seen
from lockkit.gpu.choosing import (
    CardFacts,
    CardRequest,
    choose,
    holders_of_slice,
    left_over,
    never_fits,
    why_not_now,
)
from lockkit.gpu.devices import Device, Snapshot
from lockkit.gpu.quarantine import mark_of
from lockkit.gpu.states import Card, cards
from lockkit.gpu.usage import granted
from lockkit.protocol.attempt import OUTAGE_LIMIT
from lockkit.values.choosers import EVERY, Choice

if TYPE_CHECKING:
    from lockkit.gpu.fault_check import FaultCheck
    from lockkit.gpu.handover import Handover
    from lockkit.gpu.homes import HomeCheck
    from lockkit.gpu.judging import Receipt

__all__ = ["CardChooser"]

_LONGEST = 25.0
"""Seconds for which memory may drain after a grant, at most; a chooser has 30 s."""
_LONGEST_BEFORE_PREFLIGHT = 5.0
"""The same for a request with a preflight, which takes up to 22 s of the 30."""
_AGAIN = 60.0
"""Seconds after which a card that did not pass its preflight is tried again, unless it was quarantined."""
_PAUSE = 0.5
_MARGIN = 0.1
"""Seconds before the end of a request at which its last look is due."""


class CardChooser:
    """Choose the cards for one request; see :class:`~lockkit.Chooser`.

    Args:
        request: The request.
        known: The cards that may do, as they were seen first.
        look: Looks at all cards.
        claims: The claims in the queue of a card, by its UUID; a request to the store.
        sleep: Sleeps some seconds.
        marks: The marks of quarantined cards, in words, by UUID; a request to the store.
        handover: Learns how the last holders left the cards; None if that does not matter.
        now: The time, in seconds.
        preflight: Computes on a card after its grant, by the end of the request; why it failed, or None.
        fault_check: Quarantines free cards that are faulty; None to skip them only.
        home: Refuses cards that may be held under a former name of the host; None if it never had another.

    Attributes:
        seen: The cards as they were last seen, by UUID.
        began: The time at which a request that ends began; None if that is not known.
        until: The time at which the request ends, and up to which memory may drain; None for never.
        looked: The last look at all cards, with the store's facts; None before the first, or if it failed.
    """

    every = EVERY
    called = "the driver of the GPUs, or the store that was asked about them,"

    def __init__(
        self,
        request: CardRequest,
        known: Sequence[Device],
        look: Callable[[], Snapshot],
        claims: Callable[[str], tuple[ClaimInfo, ...]],
        sleep: Callable[[float], None] = time.sleep,
        marks: Callable[[], Mapping[str, str]] = dict,
        handover: Handover | None = None,
        now: Callable[[], float] = time.monotonic,
        preflight: Callable[[Device, float | None], str | None] | None = None,
        fault_check: FaultCheck | None = None,
        home: HomeCheck | None = None,
    ) -> None:
        self.request = request
        self.seen = {device.uuid: device for device in known}
        self._known = tuple(self.seen)
        self._look = look
        self._claims = claims
        self._sleep = sleep
        self._marks = marks
        self.handover = handover
        self._last_held: dict[str, float] = {}
        self._now = now
        self._before: Choice | None = None
        self._away: float | None = None
        self.began: float | None = None
        self.until: float | None = None
        self._preflight = preflight
        self._fault_check = fault_check
        self.home = home
        self._failed: dict[str, tuple[float, str]] = {}
        self._resized: set[str] = set()
        self._passed: set[str] = set()
        self._suspected: tuple[str, ...] = ()
        self.looked: Seen | None = None

    def choose(self, held: Sequence[str]) -> Choice:
        """See :class:`~lockkit.Chooser`. A request keeps its place while the driver does not answer.

        Raises:
            BackendUnavailable: The cards have another home by now, or the store has been away for too long.
        """
        self.looked = None
        self._passed &= {*held}
        if self.home is not None and self.home.moved is not None:
            raise self.home.moved
        try:
            snapshot = self._snapshot()
        except DevicesUnavailable as error:
            return Choice((), {uuid: error.message for uuid in self._known if uuid not in held})
        try:
            facts = self._facts(snapshot)
            suspects = self._suspects(snapshot, facts, held)
            before = {} if self.home is None else self.home.refused()
        except (BackendUnavailable, OutcomeUnknown) as error:
            return self._as_before(error, held)
        self._away = None
        choice = choose(self.request, snapshot, facts, held)
        hidden = [uuid for uuid in self._known if uuid not in self.seen and uuid not in held]
        failed = {uuid: why for uuid, why in [*self.failed().items(), *before.items()] if uuid not in held}
        failed |= dict.fromkeys(hidden, "the driver does not show it")
        refused = {**choice.refused, **failed}
        self.looked = Seen(self.request, snapshot, facts, failed, kept=tuple(held))
        # No `never`: an impossible request was refused before it queued, and a lost card may come back.
        # Only cards known at the start: they are the members of the pool, and a later card is none.
        free = [uuid for uuid in self._known if uuid not in failed and uuid not in suspects]
        good = [uuid for uuid in choice.order if uuid in free]
        # Suspects come first, or a request with enough other cards would not check them. `judge` passes none.
        refused = {uuid: refused[uuid] for uuid in self._known if uuid in refused and uuid not in suspects}
        # Cards that only a person gives back: a request for them must not block later ones from all others.
        left_alone = () if self._fault_check is None else self._fault_check.left_alone
        able = [
            uuid
            for uuid in self._known
            if uuid in self.seen and uuid in facts and not facts[uuid].quarantine and uuid not in left_alone
        ]
        self._before = Choice((*suspects, *good), refused, outside=len(able) < self.request.count)
        return self._before

    def _suspects(
        self, snapshot: Snapshot, facts: Mapping[str, CardFacts], held: Sequence[str]
    ) -> tuple[str, ...]:
        """The cards that are taken only to be quarantined."""
        if self._fault_check is None:
            return ()
        left_out = {*held, *self.failed()}
        among = [uuid for uuid in self._known if uuid not in left_out]
        self._suspected = self._fault_check.suspects(among, snapshot.devices, facts)
        return self._suspected

    def _facts(self, snapshot: Snapshot) -> dict[str, CardFacts]:
        """The facts that the store has about the cards that may do, by UUID."""
        facts: dict[str, CardFacts] = {}
        marks = self._marks()
        around: dict[str, tuple[ClaimInfo, ...]] = {}
        for card in cards(snapshot):
            device, uuid = card.device, card.device.uuid
            # A card that the driver does not reach seems to have no memory, and fits no request.
            lost = device.unreachable and uuid in self._known
            if uuid and (lost or never_fits(self.request, device) is None):
                holders = self._holders(uuid)
                if device.parent and not holders:
                    if device.parent not in around:
                        around[device.parent] = self._holders(device.parent)
                    holders = holders_of_slice(holders, around[device.parent])
                if holders:
                    self._last_held[uuid] = snapshot.taken
                left = None if holders else self._left(card, ())
                marked = uuid if uuid in marks else device.parent or ""
                mark = mark_of(marks, device) or ""
                facts[uuid] = CardFacts(holders, self._last_held.get(uuid), mark, left, marked)
        return facts

    def _holders(self, uuid: str) -> tuple[ClaimInfo, ...]:
        """The claims that hold a card or a slice, or a part of it."""
        return LockInfo(uuid, self._claims(uuid)).holders

    def _as_before(self, error: BackendUnavailable | OutcomeUnknown, held: Sequence[str]) -> Choice:
        """The last choice once more, while the store is away: the request waits on as in an ordinary queue.

        While the store is only busy, there is no limit but that of the request.

        No card is held by an old choice alone: each is judged after its grant, and refused if that fails.

        Raises:
            BackendUnavailable, OutcomeUnknown: The store has been away for too long.
        """
        now = self._now()
        if self._away is None:
            self._away = now
        if now - self._away > OUTAGE_LIMIT and not error.busy:
            raise error
        if self._before is None:
            return Choice((), {uuid: _silent(error) for uuid in self._known if uuid not in held})
        refused = {uuid: why for uuid, why in self._before.refused.items() if uuid not in held}
        return Choice(self._before.order, refused)

    def judge(self, member: str) -> str | None:
        """See :class:`~lockkit.Chooser`. Memory that may still drain is waited for.

        A card of which others hold a part is judged by its free memory only: its processes may be theirs. A
        kept card that has passed before is looked at again, but not waited for or computed on.

        Raises:
            CapacityMismatch: The request is for whole cards, and this one was resized twice meanwhile.
        """
        kept = member in self._passed
        try:
            why = self._judged(member, settles=not kept)
            if why is None and member in self._suspected:
                why = "its driver has shown a fault a moment ago"
            elif why is None and self._preflight is not None and not kept:
                why = self._checked(member)
            elif why is not None and self._fault_check is not None:
                why = self._taken_out(member) or why
            if why is not None and self.looked is not None:
                self.looked = self.looked._replace(failed={**self.looked.failed, member: why})
            if why is None and not kept and self.handover is not None:
                self.handover.take(member, granted(self._claims(member)))
            (self._passed.add if why is None else self._passed.discard)(member)
            return why
        except CapacityMismatch:
            if member in self._resized:
                raise
            self._resized.add(member)  # a resize that is refused puts the old capacity back
            return "it was resized just now"
        except (BackendUnavailable, OutcomeUnknown) as error:
            return _silent(error)  # unknown counts as no

    def _checked(self, member: str) -> str | None:
        """Compute on a card that is as it should be otherwise."""
        assert self._preflight is not None
        device = self.seen.get(member)
        why = (
            "it is gone"
            if device is None
            else self._preflight(device, None if self.until is None else self.until - _MARGIN)
        )
        if why is not None:
            self._failed[member] = self._now(), why
        return why

    def _taken_out(self, member: str) -> str | None:
        """Quarantine a card that is faulty. None if it is not, or not beyond doubt."""
        device = self.seen.get(member)
        if device is None or not device.faults or self._fault_check is None:
            return None
        return self._fault_check.take(device, granted(self._claims(member)))

    def failed(self) -> dict[str, str]:
        """Why cards failed their preflight lately, by UUID: no new try so soon. Thread-safe."""
        now = self._now()
        return {uuid: why for uuid, (at, why) in [*self._failed.items()] if now - at < _AGAIN}

    def _judged(self, member: str, *, settles: bool) -> str | None:
        before = None if self.home is None else self.home.refuses(member)
        if before is not None:
            return before
        began = self._now()
        longest = _LONGEST if self._preflight is None else _LONGEST_BEFORE_PREFLIGHT
        marks = self._marks()
        while True:
            try:
                snapshot = self._snapshot()
            except DevicesUnavailable as error:
                return error.message
            card = next((one for one in cards(snapshot) if one.device.uuid == member), None)
            if card is None:
                return "it is gone"
            ask = self.request.memory is not None or left_over(card)
            holders = granted(self._claims(member)) if ask else ()
            shared = self.request.memory is not None and len(holders) > 1
            request = self.request._replace(settle=0.0, allow_busy=self.request.allow_busy or shared)
            facts = CardFacts(quarantine=mark_of(marks, card.device) or "", receipt=self._left(card, holders))
            why = why_not_now(request, card, facts, snapshot.taken)
            left = min(self.request.settle, longest) - (self._now() - began) if settles else 0.0
            if self.until is not None:
                left = min(left, self.until - _MARGIN - self._now())
            if (
                why is None
                or facts.quarantine
                or card.device.processes
                or card.state == "faulty"
                or left <= 0
            ):
                return why
            self._sleep(min(_PAUSE, left))

    def _left(self, card: Card, holders: Sequence[ClaimInfo]) -> Receipt | None:
        """How the last holder left a card, if unowned memory of it is in use. One request then, else none."""
        return self.handover.left(card.device.uuid, holders) if self.handover and left_over(card) else None

    def receipts(self, members: Sequence[str]) -> Mapping[str, Receipt]:
        """How the last holders left the cards with these UUIDs; without those that nobody has held before."""
        found = {} if self.handover is None else self.handover.receipts
        return {member: found[member] for member in members if member in found}

    def devices(self, members: Sequence[str]) -> tuple[Device, ...]:
        """The cards with these UUIDs, as they were last seen."""
        return tuple(self.seen[member] for member in members if member in self.seen)

    def _snapshot(self) -> Snapshot:
        snapshot = self._look()
        self.seen = {device.uuid: device for device in snapshot.devices if device.uuid}
        if self._fault_check is not None:
            self._fault_check.note(snapshot.devices)
        return snapshot


def _silent(error: BackendUnavailable | OutcomeUnknown) -> str:
    return f"the store does not answer: {error.message}"
