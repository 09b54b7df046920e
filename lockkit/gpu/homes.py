"""The host under whose name the store has the cards of this machine: their home.

The name of a card's lock has that of a host, which may change: by ``hostnamectl``, by DHCP, by ``[gpu] host``
in one project, from one container to the next. So a record of each card, found by its UUID alone, says which
host's name counts: until the next boot, the first one under which a card was seen. Then the card gets the
name of that time, for it may be in another machine; claims under former names block it until none is left.

If one client moves a card to another name while a second one takes it under the old one, they never both get
it. The second reads the card's record after its grant; the first reads the old claims after writing the
record. Each writes before it reads, so one sees the other's write (Dekker's algorithm, in Dijkstra, EWD 123).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from lockkit.errors import BackendUnavailable, ConfigError, OutcomeUnknown
from lockkit.facts import ClaimInfo, LockInfo, Record
from lockkit.gpu.devices import Device
from lockkit.gpu.enlisting import listed_cards, listed_hosts, texts
from lockkit.gpu.host_pools import host_pool, is_simulated
from lockkit.gpu.marks import (
    ALL,
    CARD_DAMAGED,
    DAMAGED,
    Kept,
    Quarantined,
    change_marks,
    kept_in,
    record_name,
)
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable
from lockkit.notes.members import pool_name
from lockkit.notes.records import change, is_damaged
from lockkit.store.spi import Conflict
from lockkit.values.identity import this_process
from lockkit.values.names import check_name

if TYPE_CHECKING:
    from lockkit.sync.client import Client

__all__ = ["HomeCheck", "Homes", "home_of", "homes", "mend_home", "settle"]

_ROOT = "gpu-home"
"""The beginning of the names of the records of homes, one for each card."""
_TRIES = 20
"""How often the homes are looked for again because another client was faster."""
_NONE: Mapping[str, tuple[str, ...]] = {}


class _Home(NamedTuple):
    """The record of a card: the host whose name counts, since which boot, and the former names."""

    host: str
    boot: str
    former: tuple[str, ...] = ()


class Homes(NamedTuple):
    """The home of the cards of this machine.

    Attributes:
        host: The host under whose name the store has them.
        former: The former names that may still have claims on a card, by the UUID of the card.
        damaged: The UUIDs of the cards with damaged records of their home: their claims may be anywhere.
    """

    host: str
    former: Mapping[str, tuple[str, ...]] = _NONE
    damaged: frozenset[str] = frozenset()

    def holders_before(self, client: Client, device: Device) -> tuple[ClaimInfo, ...]:
        """The claims under former names that hold a card, or a slice of it. One request for each name.

        Raises:
            BackendError: The store does not answer.
        """
        card = device.parent or device.uuid
        return tuple(
            one
            for name in self.former.get(card, ())
            for one in LockInfo(card, _claims(client, name, card)).holders
        )


def homes(client: Client, named: str, devices: Iterable[Device]) -> Homes:
    """The home of the cards, for those that only look at them: nothing is written. One request for each card.

    Args:
        client: The client.
        named: The present name of this host, from :func:`lockkit.gpu.hosts.host_name`.
        devices: The cards.

    Raises:
        BackendError: The store does not answer.
    """
    if is_simulated(named):  # the cards of two hosts have the same UUIDs
        return Homes(named)
    found, listed = _found(client, devices), _listing(client)
    host = _common(found.values(), named)
    return _made(
        host, {uuid: _next(client, uuid, one.home, host, listed) for uuid, one in found.items()}, found
    )


def settle(client: Client, named: str, devices: Sequence[Device]) -> Homes:
    """The home of the cards, before locking some: as :func:`homes`. One request a card, more after a boot.

    Raises:
        BackendError: The store does not do it.
    """
    if is_simulated(named):
        return Homes(named)
    unknown: OutcomeUnknown | None = None
    for _ in range(_TRIES):
        found, listed = _found(client, devices), _listing(client)
        host = _common(found.values(), named)
        try:
            next_ = {uuid: _moved(client, uuid, one, host, devices, listed) for uuid, one in found.items()}
            return _made(host, next_, found)
        except Conflict:
            continue
        except OutcomeUnknown as error:  # the next look says whether it was done
            unknown = error
    raise unknown or BackendUnavailable(
        "the records of the cards are changed by others again and again",
        name=host_pool(named),
        hint="try again",
    )


class HomeCheck:
    """The cards that claims under a former name of the host may hold, although their locks are free.

    Args:
        client: The client.
        homes: The home of the cards, as :func:`settle` returned it.
        devices: The cards.

    Attributes:
        moved: The error that ends the request once another process has moved the cards; None before.
    """

    def __init__(self, client: Client, homes: Homes, devices: Sequence[Device]) -> None:
        self.moved: BackendUnavailable | None = None
        self._client = client
        self._homes = homes
        self._cards = {one.uuid: one.parent or one.uuid for one in devices if one.uuid}

    @property
    def host(self) -> str:
        """The host under whose name the request locks cards."""
        return self._homes.host

    @property
    def pool(self) -> str:
        """The name of the pool of these cards."""
        return host_pool(self.host)

    def refused(self) -> dict[str, str]:
        """Why cards do not do now, by UUID. No request, unless former names had claims at the beginning.

        Raises:
            BackendError: The store does not answer.
        """
        why = {
            card: self._claimed(card, self._homes.former.get(card, ())) for card in {*self._cards.values()}
        }
        why |= dict.fromkeys(self._homes.damaged, CARD_DAMAGED)
        return {uuid: said for uuid, card in self._cards.items() if (said := why.get(card))}

    def refuses(self, uuid: str) -> str | None:
        """Why a card does not do after its grant; None if it does. One request, and one for each former name.

        Raises:
            BackendError: The store does not answer.
        """
        if is_simulated(self._homes.host):
            return None
        card = self._cards.get(uuid, uuid)
        home = _read(self._client.record(_name(card))).home
        if home is None:
            return CARD_DAMAGED
        if home.host != self.host:
            self.moved = BackendUnavailable(
                printable(
                    f"the GPUs of this machine are kept under the host name {home.host} by now,"
                    f" no longer under {self.host}"
                ),
                name=self.pool,
                hint="ask for GPUs once more, and set LOCKKIT_GPU_HOST alike for all programs of the machine",
            )
            return self.moved.message
        why = self._claimed(card, home.former)
        if why is None:
            # Not before: a holder under a former name has marked its card before its claim ended.
            uuids = [one for one, its in self._cards.items() if its == card]
            for name in home.former:
                _drop(self._client, name, _carry_marks(self._client, name, self.host, uuids))
        return why

    def _claimed(self, card: str, names: Collection[str]) -> str | None:
        for name in names:
            for claim in _claims(self._client, name, card):
                return printable(f"{claim.owner} claimed it while this host was called {name}")
        return None


def mend_home(client: Client, uuid: str) -> bool:
    """Empty the record of a card's home, if it is damaged. Returns whether it was."""
    broken = _read(client.record(_name(uuid))).damaged
    if broken:
        change(client, _name(uuid), lambda _: {}, instead={})
    return broken


def home_of(client: Client, uuid: str) -> str | None:
    """The host under whose name the store has a card; None if no record says so. One request.

    Raises:
        BackendError: The store does not answer.
    """
    home = _read(client.record(_name(uuid))).home
    return None if home is None else home.host


class _Found(NamedTuple):
    """The record of a card's home, as it was read."""

    version: int = 0
    home: _Home | None = None
    damaged: bool = False


def _name(uuid: str) -> str:
    return pool_name(_ROOT, uuid)


def _found(client: Client, devices: Iterable[Device]) -> dict[str, _Found]:
    cards = dict.fromkeys(one.parent or one.uuid for one in devices if one.uuid)
    return {uuid: _read(client.record(_name(uuid))) for uuid in cards}


def _read(record: Record | None) -> _Found:
    if record is None:
        return _Found()
    value = record.value
    if not is_damaged(record) and not value:
        return _Found(record.version)
    host, boot, former = value.get("host"), value.get("boot"), texts(value.get("former"))
    names = [host, *former]
    if is_damaged(record) or not isinstance(boot, str) or not all(map(_is_host, names)):
        return _Found(record.version, damaged=True)
    assert isinstance(host, str)
    return _Found(record.version, _Home(host, boot, tuple(former)))


def _is_host(name: object) -> bool:
    """Whether a pool of cards can have this name in it."""
    try:
        return isinstance(name, str) and bool(name) and bool(check_name(record_name(name)))
    except ConfigError:
        return False


def _common(found: Iterable[_Found], named: str) -> str:
    """The home of all cards of this machine: of those set since its boot, the first by name."""
    boot = this_process().boot_id
    return min((one.home.host for one in found if one.home and one.home.boot == boot), default=named)


def _made(host: str, found: Mapping[str, _Home], stored: Mapping[str, _Found]) -> Homes:
    former = {uuid: one.former for uuid, one in found.items() if one.former}
    return Homes(host, former, frozenset(uuid for uuid, one in stored.items() if one.damaged))


def _listing(client: Client) -> Callable[[], Mapping[str, Collection[str]]]:
    """The cards in the list of each host, asked for at most once, and only if a card has no record yet."""
    return functools.cache(lambda: {one: listed_cards(client, one) for one in listed_hosts(client)})


def _next(
    client: Client,
    uuid: str,
    stored: _Home | None,
    host: str,
    listed: Callable[[], Mapping[str, Collection[str]]],
) -> _Home:
    """The record that a card is to have, without former names under which no claim is left."""
    boot = this_process().boot_id
    if stored is None:
        return _Home(
            host, boot, tuple(one for one, cards in listed().items() if uuid in cards and one != host)
        )
    left = [one for one in stored.former if one != host and _claims(client, one, uuid)]
    # The name that it leaves now stays, claimed or not: a client may take the card there before the write.
    return _Home(host, boot, (*left, stored.host) if stored.host not in (host, *left) else tuple(left))


def _moved(
    client: Client,
    uuid: str,
    found: _Found,
    host: str,
    devices: Sequence[Device],
    listed: Callable[[], Mapping[str, Collection[str]]],
) -> _Home:
    """Write the new record of a card, if it differs, after everything else under the former names.

    Raises:
        Conflict: Another client was faster.
        BackendError: The store does not do it.
    """
    stored = found.home
    new = _next(client, uuid, stored, host, listed)
    if new == stored or found.damaged:
        return new
    uuids = [one.uuid for one in devices if uuid in (one.uuid, one.parent)]
    marked: dict[str, Mapping[str, Quarantined]] = {}
    for name in new.former if stored is None or stored.host != host else ():
        _carry(client, name, host, uuids, over=stored is not None)
    # Also from names that count no longer: a holder under them has marked its card before its claim ended.
    for name in {*new.former, *(() if stored is None else stored.former)} - {host}:
        marked[name] = _carry_marks(client, name, host, uuids)
    client.put_record(_name(uuid), {"host": host, "boot": new.boot, "former": [*new.former]}, found.version)
    for name, before in marked.items():
        # Once more: a mark that was made meanwhile.
        _drop(client, name, {**before, **_carry_marks(client, name, host, uuids)})
    return new


def _carry(client: Client, before: str, host: str, uuids: Sequence[str], *, over: bool) -> None:
    """Copy the records of a card and its slices from a former name, and mark cards with damaged records."""
    marks = {}
    for uuid in uuids:
        record = client.record(pool_name(host_pool(before), uuid))
        if is_damaged(record):
            marks[uuid] = Quarantined(uuid, CARD_DAMAGED)
        elif record is not None:
            _copy(client, pool_name(host_pool(host), uuid), record.value, over=over)
    _mark(client, host, marks)


def _carry_marks(client: Client, before: str, host: str, uuids: Collection[str]) -> Mapping[str, Quarantined]:
    """Copy the marks of a card and its slices from a former name, and return them. One request if none."""
    kept = kept_in(client.record(record_name(before))).marks
    marks = {
        uuid: Quarantined(uuid, DAMAGED) if ALL in kept else kept[uuid]
        for uuid in uuids
        if {ALL, uuid} & {*kept}
    }
    _mark(client, host, marks)
    return marks


def _mark(client: Client, host: str, marks: Mapping[str, Quarantined]) -> None:
    if marks and ALL not in kept_in(client.record(record_name(host))).marks:
        change_marks(client, host, lambda present: Kept({**marks, **present.marks}, present.spared))


def _copy(client: Client, name: str, value: Mapping[str, object], *, over: bool) -> None:
    if over or client.record(name) is None:
        change(
            client, name, lambda present: value if over or not present else None, instead={} if over else None
        )


def _drop(client: Client, before: str, marks: Mapping[str, Quarantined]) -> None:
    """Remove marks that were copied from a name, or they would count again if the host got it back."""
    kept = kept_in(client.record(record_name(before))).marks
    if ALL not in kept and any(kept.get(uuid) == mark for uuid, mark in marks.items()):
        change_marks(
            client,
            before,
            lambda present: Kept(
                {uuid: mark for uuid, mark in present.marks.items() if mark != marks.get(uuid)},
                present.spared,
            ),
        )


def _claims(client: Client, host: str, card: str) -> tuple[ClaimInfo, ...]:
    """The claims on a card, held or waiting, under a name of the host; its slices' are among them."""
    return client.inspect(pool_name(host_pool(host), card)).claims
