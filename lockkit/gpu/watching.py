"""The watch over cards while this process holds them: faults, idle cards and overuse, as events.

One thread for all clients of the process, while cards are held. Only the thread asks the driver and the
store: grants, releases and callbacks of losses just wake it. A driver's call that hangs is given up after
some seconds, and that driver is not asked again until it has returned.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from lockkit.errors import CapabilityError, ConfigError, DevicesUnavailable, LockkitError
from lockkit.facts import Alert, Event
from lockkit.gpu.devices import Device, DeviceProvider, DeviceWatch, Snapshot
from lockkit.gpu.held_cards import held_card
from lockkit.gpu.noticing import CardNotice, Course, Reading, Rules, news_patch
from lockkit.gpu.snapshots import PATIENCE, look, looking
from lockkit.gpu.unreturned import ProviderCall, give_up_late, has_returned
from lockkit.gpu.usage import used_by, worker
from lockkit.gpu.words import long_name
from lockkit.lib.bell import Bell
from lockkit.lib.origin import Origin, this_origin
from lockkit.notes.members import in_pool
from lockkit.plugins.calling import call_within
from lockkit.store.log import Log
from lockkit.store.starting import start
from lockkit.values.sizes import MIB

if TYPE_CHECKING:
    from lockkit.config.config import Config
    from lockkit.shared.lease import AnyLease

__all__ = ["LOOK_EVERY", "WatchedCards", "faults", "look_soon", "watch"]

LOOK_EVERY = 30.0
"""Seconds between two looks at the cards that are held."""
_PATIENCE = 5.0
"""Seconds for a request to the store that reports how a card is used."""
_ALERTS: Mapping[str, Literal["P1", "P2"]] = {"gpu_faulty": "P1", "gpu_idle": "P2"}
_log = Log("lockkit.gpu")


class _WatchedCard:
    """One hold on one card."""

    def __init__(self, uuid: str, lease: AnyLease, device: Device | None, rules: Rules) -> None:
        self.uuid = uuid
        self.hold = lease._hold  # noqa: SLF001 (not the lease: it must be collected when its user drops it)
        self.driver = lease._driver  # noqa: SLF001
        terms = lease.terms
        self.weight = terms.weight * MIB if terms.weight < terms.capacity else None
        self.worker = worker(self.hold.owner.pid, self.hold.claim.note or {})
        self.label = uuid if device is None else long_name(device)
        self.course = Course(rules)
        self.course.faults = () if device is None else device.faults
        self.before = self.course.faults

    @property
    def over(self) -> bool:
        """Whether nobody works under the hold any more, as far as this process knows."""
        hold, held = self.hold, held_card(self.hold.claim_id)
        cleaned = held is not None and held.over
        return cleaned or hold.ended or hold.report is not None or not hold.origin.is_here() or hold.collected

    def tell(self, notice: CardNotice) -> None:
        """Report on the card as an event, and as an alert if a person should look."""
        hold, owner = self.hold, str(self.hold.owner)
        data = {"uuid": self.uuid, "gpu": self.label, "holder": owner, "used": self.course.used}
        data["declared"] = self.weight
        self.driver.dispatcher.tell(
            Event(notice.kind, hold.name, hold.claim_id, hold.fence, notice.why, 0.0, notice.duration, data)
        )
        priority = _ALERTS.get(notice.kind)
        if priority is not None:
            text = f"{self.label}, held by {owner}: {notice.why}"
            self.driver.dispatcher.tell(
                Alert(notice.kind, priority, text, hold.name, hold.claim_id, data=data)
            )

    def publish(self) -> None:
        """Write changed news into the note of the claim. A store that fails is asked again later."""
        driver, hold = self.driver, self.hold
        news = self.course.news(driver.clock.now(), driver.clock.wall())
        if news is None:
            return
        patch = news_patch(news)
        try:
            driver.requests.ask(
                lambda budget: driver.backend.annotate(hold.name, hold.claim_id, patch, budget),
                hold.name,
                _PATIENCE,
            )
        except (ConfigError, CapabilityError):
            pass  # no room in the note, or no notes
        except LockkitError:
            self.course.untold()


class WatchedCards:
    """The cards of one grant, under watch until they are released.

    Args:
        providers: The providers of the cards.
        leases: The leases of the grant. Of those, the ones whose lock belongs to a card of ``members`` count.
        devices: The cards, as they were seen when they were granted.
        config: The configuration.
    """

    def __init__(
        self,
        providers: Sequence[DeviceProvider],
        leases: Sequence[AnyLease],
        members: Sequence[str],
        devices: Sequence[Device],
        config: Config,
    ) -> None:
        self.providers = tuple(providers)
        self.looking = looking(config)
        rules = Rules(config.gpu_idle_below, config.gpu_idle_after)
        seen = {device.uuid: device for device in devices}
        self.cards = [
            _WatchedCard(uuid, lease, seen.get(uuid), rules)
            for lease in leases
            if (uuid := (in_pool(lease.name) or ("", None))[1]) is not None and uuid in members
        ]
        self._watches: dict[DeviceProvider, DeviceWatch] = {}

    @property
    def over(self) -> bool:
        """Whether all of the cards have been released."""
        return all(card.over for card in self.cards)

    def open(self) -> None:
        """Have the drivers watch further cards. A driver that hangs is left out until it has returned."""
        uuids = [card.uuid for card in self.cards]
        todo = [one for one in self.providers if one not in self._watches and has_returned(one)]
        openings = [_Opening(one, uuids) for one in todo]
        asked = [ProviderCall(one.provider, one) for one in openings]
        if not asked:
            return
        call_within(PATIENCE, "gpu-watch", [(one.provider.name, one) for one in asked], {})
        give_up_late(asked)
        for opening in openings:
            found = opening.taken()
            if found is not None:
                self._watches[opening.provider] = found

    def read(self, snapshot: Snapshot | None, declared: Mapping[str, int | None]) -> None:
        """Take a look at the cards, and report what deserves it.

        Args:
            snapshot: The look; None if the driver did not answer.
            declared: The bytes of each card that this process has declared in all; None for a whole card.
        """
        for card in self.cards:
            if card.over or card.hold.lost_why:
                continue
            device = None if snapshot is None else snapshot.device(card.uuid)
            found = (*self.xids(card.uuid), *(() if device is None else device.faults))
            room = declared.get(card.uuid)
            used = None
            if device is not None:
                used = device.used if room is None else used_by(device, card.worker)
            utilisation = None if device is None else device.utilisation
            now = card.driver.clock.now()
            for notice in card.course.take(Reading(utilisation, used, found, room), now):
                card.tell(notice)
            card.publish()

    def xids(self, uuid: str) -> tuple[str, ...]:
        """Faults of a card that the drivers' watches have seen since the grant."""
        found: list[str] = []
        for watch in list(self._watches.values()):
            with suppress(Exception):  # the code of a plugin
                found += watch.faults(uuid)
        return tuple(found)

    def faults(self, uuid: str) -> tuple[str, ...]:
        """The faults of a card since the grant, those that it had at the grant left out."""
        held = [card for card in self.cards if card.uuid == uuid and not card.over]
        known = [one for card in held for one in card.course.faults if one not in card.before]
        return tuple(dict.fromkeys((*known, *(self.xids(uuid) if held else ()))))

    def close(self) -> None:
        """End the watches. Those of a driver that hangs are left as they are."""
        watches, self._watches = self._watches, {}
        asked = [ProviderCall(one, watch.close) for one, watch in watches.items() if has_returned(one)]
        if asked:
            call_within(PATIENCE, "gpu-watch", [(one.provider.name, one) for one in asked], {})
            give_up_late(asked)


class _Opening:
    """The opening of one watch. A watch that comes too late is closed."""

    def __init__(self, provider: DeviceProvider, uuids: Sequence[str]) -> None:
        self.provider = provider
        self._uuids = uuids
        self._watch: DeviceWatch | None = None
        self._late = False

    def __call__(self) -> None:
        self._watch = self.provider.watch(self._uuids)
        if self._late:
            self._watch.close()

    def taken(self) -> DeviceWatch | None:
        """The watch; None if it is not open yet. Then nobody will use it."""
        self._late = self._watch is None
        if self._late and self._watch is not None:  # it came between the two lines
            self._watch.close()
        return None if self._late else self._watch


class _Watcher:
    """The grants under watch in one process, and the thread that looks at their cards.

    A grant only appends to a deque and starts a thread, so a raising signal handler leaves it consistent.
    """

    def __init__(self) -> None:
        self.groups: deque[WatchedCards] = deque()
        self.bell = Bell()
        self.turn = threading.Lock()

    def look_soon(self) -> None:
        """Have the thread look for new and ended grants. Never blocks."""
        if self.turn.locked():
            self.bell.ring()
        elif self.groups:
            with suppress(RuntimeError):  # no thread can be started: then nothing is watched
                start(self._run, "lockkit-gpu-watch")

    def _run(self) -> None:
        while self.groups and self.turn.acquire(blocking=False):
            try:
                self._watch()
            except Exception:
                _log.exception(
                    "the watch over GPUs has ended, because of an error of lockkit itself or of a plugin"
                )
                self.groups.clear()
            finally:
                self.turn.release()

    def _watch(self) -> None:
        """Look at the cards again and again until none is held."""
        due: float | None = None
        while True:
            for group in [one for one in list(self.groups) if one.over]:
                group.close()
                self.groups.remove(group)
            if not self.groups:
                return
            for group in list(self.groups):
                group.open()
            now = self._clock()()
            if due is None:
                due = now + LOOK_EVERY
            elif now >= due:
                self.look()
                due = self._clock()() + LOOK_EVERY
            self.bell.wait(max(due - now, 0.0))

    def _clock(self) -> Callable[[], float]:
        return self.groups[0].cards[0].driver.clock.now

    def look(self) -> None:
        """One look at all cards that are held, one snapshot for each set of drivers."""
        declared = self._declared()
        seen: dict[tuple[DeviceProvider, ...], Snapshot | None] = {}
        for group in list(self.groups):
            if group.providers not in seen:
                try:
                    seen[group.providers] = look(group.providers, group.looking)
                except DevicesUnavailable:
                    seen[group.providers] = None
            group.read(seen[group.providers], declared)

    def _declared(self) -> dict[str, int | None]:
        """The bytes of each card that this process has declared; None for a whole card."""
        found: dict[str, int | None] = {}
        for card in [one for group in list(self.groups) for one in group.cards if not one.over]:
            before = found.get(card.uuid, 0)
            found[card.uuid] = None if before is None or card.weight is None else before + card.weight
        return found


_watchers: dict[Origin, _Watcher] = {}
"""The watcher of this process. A forked child has no threads of its parent, and holds none of its cards."""


def _watcher() -> _Watcher:
    here = this_origin()
    return _watchers.get(here) or _watchers.setdefault(here, _Watcher())


def watch(watched: WatchedCards) -> None:
    """Watch the cards of a grant until they are released. Does not block."""
    if watched.cards:
        watcher = _watcher()
        watcher.groups.append(watched)
        watcher.look_soon()


def look_soon() -> None:
    """Have the watch notice that cards were released. Does not block."""
    _watcher().look_soon()


def faults(uuid: str) -> tuple[str, ...]:
    """The faults of a card, a sentence each, since its grant: Xids, and those that looks showed. No wait.

    Empty if the process does not hold the card, or watches none (``gpu.watch``).
    """
    return tuple(dict.fromkeys(one for group in list(_watcher().groups) for one in group.faults(uuid)))
