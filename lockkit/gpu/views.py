"""Looks at GPUs: those of this host, or those of all hosts that share the store."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lockkit.errors import BackendError, ConfigError, DevicesUnavailable
from lockkit.lib.namedtuples import NamedTuple

if TYPE_CHECKING:
    from lockkit.facts import ClaimInfo, Owner
    from lockkit.gpu.devices import Device, DeviceProcess, Snapshot
    from lockkit.gpu.homes import Homes
    from lockkit.gpu.known import Known
    from lockkit.gpu.marks import Quarantined
    from lockkit.gpu.states import Card
    from lockkit.gpu.usage import Use
    from lockkit.sync.client import Client

__all__ = ["FleetView", "GpuLook", "HostView"]

_NONE: Mapping[str, int] = {}


class GpuLook(NamedTuple):
    """One look: the snapshot, its cards with their states, the store's facts, and the holders' use.

    A look at all hosts has the host and the store's facts for each card; two hosts may give two cards one
    UUID. ``waits`` has the number of waiting requests by host, except of a host whose queue is not known.
    ``host`` is the name of this host; None if unknown. ``first`` is the first request in its queue, if any.
    """

    snapshot: Snapshot
    cards: tuple[Card, ...]
    known: Mapping[str, Known]
    uses: Mapping[str, Use]
    hosts: tuple[str, ...] = ()
    each: tuple[Known, ...] | None = None
    live: bool = True
    waits: Mapping[str, int] = _NONE
    host: str | None = None
    first: ClaimInfo | None = None

    @property
    def waiting(self) -> int:
        """The number of requests that wait, on all hosts."""
        return sum(self.waits.values())


class HostView:
    """The GPUs of this host, with the store's facts. Without an answer, no card is hidden, and none free.

    Args:
        client: The client.
        simulate: The number of cards to simulate; None for what the configuration says.
    """

    def __init__(self, client: Client, simulate: int | None = None) -> None:
        from lockkit.gpu.snapshots import providers

        self._client = client
        self._simulate = simulate
        self._providers = providers(client.config, client.plugins, simulate=simulate)

    @property
    def host(self) -> str:
        """The host under whose name the store has the cards of this machine.

        Raises:
            ConfigError: The name of this host is not known.
            BackendError: The store does not answer.
        """
        from lockkit.gpu.snapshots import look, looking

        try:
            devices = look(self._providers, looking(self._client.config)).devices
        except DevicesUnavailable:
            devices = ()
        return self._home(devices).host

    def _home(self, devices: Sequence[Device]) -> Homes:
        from lockkit.gpu.homes import homes
        from lockkit.gpu.hosts import host_name

        return homes(self._client, host_name(self._client.config, simulate=self._simulate), devices)

    def quarantine(
        self, uuid: str, reason: str, by: Owner, cards: Collection[str] | None = None
    ) -> tuple[str, Quarantined]:
        """Quarantine a card by a person's word, and return the host that has the mark, and the mark.

        A card without a home gets one: the mark would not count under the next name of the host.

        Raises:
            ConfigError, BackendError: As for ``quarantine``, or the name of this host is not known.
        """
        from lockkit.gpu.homes import settle
        from lockkit.gpu.hosts import host_name
        from lockkit.gpu.quarantine import quarantine
        from lockkit.gpu.snapshots import look, looking

        named = host_name(self._client.config, simulate=self._simulate)
        try:
            devices = look(self._providers, looking(self._client.config)).devices
        except DevicesUnavailable:
            devices = ()
        host = settle(self._client, named, devices).host
        while True:
            mark = quarantine(self._client, host, uuid, reason, by, cards)
            before, host = host, settle(self._client, named, devices).host
            if (
                host == before
            ):  # otherwise the card may have got its new home before there was a mark to go with it
                return host, mark

    def look(self) -> GpuLook:
        """One look.

        Raises:
            DevicesUnavailable: Nothing can be said about any card.
        """
        from lockkit.gpu.joining import joined, unasked
        from lockkit.gpu.known import known, queue
        from lockkit.gpu.snapshots import look, looking
        from lockkit.gpu.usage import live_uses, unlocked
        from lockkit.views.looking import requests_waiting

        snapshot = look(self._providers, looking(self._client.config))
        host: str | None = None
        try:
            home = self._home(snapshot.devices)
            host = home.host
            gate = queue(self._client, host)
            of_store = known(self._client, home, snapshot.devices, gate)
        except (BackendError, ConfigError) as error:
            told = f"who holds which GPU, and which are quarantined, is unknown: {error}"
            snapshot = snapshot._replace(remarks=(*snapshot.remarks, told))
            return GpuLook(snapshot, unasked(snapshot), {}, {}, host=host)
        uses: dict[str, Use] = {}
        without: dict[str, tuple[DeviceProcess, ...]] = {}
        for device in snapshot.devices:
            if device.uuid in of_store:
                holders = of_store[device.uuid].holders
                # The first counts: that of a card, not of its slices.
                uses = live_uses(device, holders) | uses
                without[device.uuid] = unlocked(device, holders) if holders else ()
        waits = {host: requests_waiting(gate, (card.waiters for card in of_store.values()))}
        found = joined(snapshot, of_store, uses, without)
        first = next(iter((*gate.holders, *gate.waiters)), None)
        return GpuLook(snapshot, found, of_store, uses, waits=waits, host=host, first=first)

    def looks(self, interval: float) -> Iterator[GpuLook | DevicesUnavailable | BackendError]:
        """Look again and again. A failure is yielded; the first look raises it."""
        seen: GpuLook | DevicesUnavailable | BackendError = self.look()
        while True:
            yield seen
            time.sleep(interval)
            try:
                seen = self.look()
            except (DevicesUnavailable, BackendError) as error:
                seen = error

    def meant(self, word: str) -> str:
        """The UUID of the card that a person means, which may be one that is quarantined and no longer seen.

        Raises:
            ConfigError: No card is meant, or several.
            DevicesUnavailable: Nothing can be said about any card, and no mark is meant either.
        """
        from lockkit.gpu.marks import ALL
        from lockkit.gpu.quarantine import quarantined
        from lockkit.gpu.resolving import resolve

        marks = quarantined(self._client, self.host)
        try:
            devices = self.look().snapshot.devices
        except DevicesUnavailable:
            if word not in marks:
                raise
            devices = ()
        return resolve(word, devices, marks.keys() - {ALL})

    def cards(self) -> list[str]:
        """The UUIDs of the cards of this host, without slices.

        Raises:
            DevicesUnavailable: Nothing can be said about any card.
        """
        return [one.uuid for one in self.look().snapshot.devices if one.uuid and one.parent is None]


class FleetView(HostView):
    """The GPUs of all hosts that share the store. Only those of this host are asked of their drivers."""

    def look(self) -> GpuLook:
        """One look.

        Raises:
            BackendError: The store does not answer.
        """
        from lockkit.gpu.devices import Snapshot
        from lockkit.gpu.fleet import fleet
        from lockkit.gpu.host_pools import root_of
        from lockkit.gpu.joining import by_store
        from lockkit.gpu.known import NOTHING_KNOWN

        here: GpuLook | None = None
        remarks: list[str] = []
        try:
            here = super().look()
            host = here.host or self.host
            remarks += here.snapshot.remarks
        except DevicesUnavailable as error:
            host = self.host
            remarks.append(f"no live readings of this host, {host}: {error.message}")
        now = time.time()
        found: list[tuple[str, Card, Known]] = (
            [(host, card, here.known.get(card.device.uuid, NOTHING_KNOWN)) for card in here.cards]
            if here is not None
            else []
        )
        others = fleet(self._client, lambda name: here is not None and name == host, root=root_of(host))
        remarks += others.remarks
        waits = dict(here.waits) if here is not None else {}
        for one in others.hosts:
            waits[one.host] = one.waiting
            found += [
                (one.host, by_store(device, one.known[device.uuid], now), one.known[device.uuid])
                for device in one.devices
            ]
        if any(name != host for name, _, _ in found):
            live = (
                f"live readings are those of {host}, this host"
                if here is not None
                else "there are no live readings"
            )
            remarks.append(f"{live}; of other hosts the store knows what their holders told last")
        return GpuLook(
            Snapshot(now, (), tuple(remarks)),
            tuple(card for _, card, _ in found),
            {},
            here.uses if here is not None else {},
            tuple(name for name, _, _ in found),
            tuple(known for _, _, known in found),
            here is not None,
            waits,
            host,
        )
