"""Adopt a job that already runs: claim the cards that it computes on, while it and this process run.

The claim is tried, and never queues: the job will not wait. It does not pass the gate either: the request at
the gate may wait for the very card that the job computes on. One try of all cards at once holds nothing while
it waits, so no circle of waiting requests can form.

The claim lives by its ttl on every store. The embedded store also sees its keeper die.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from lockkit.errors import ConfigError
from lockkit.facts import ClaimInfo, Owner
from lockkit.gpu.capacities import capacities, slices_in
from lockkit.gpu.devices import Device, DeviceProcess, Snapshot
from lockkit.gpu.handover import Handover
from lockkit.gpu.held_cards import forget_held_cards
from lockkit.gpu.joining import holder_words
from lockkit.gpu.quarantine import mark_of, quarantined
from lockkit.gpu.requests import HostCards
from lockkit.gpu.resolving import resolve
from lockkit.gpu.usage import ADOPTED, granted
from lockkit.gpu.words import process_words, short_name
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable
from lockkit.notes.members import pool_name
from lockkit.sync.composites import AllOf
from lockkit.sync.leases import Leases
from lockkit.sync.pools import Pool
from lockkit.values.identity import process_of
from lockkit.values.sizes import MIB, show

if TYPE_CHECKING:
    from lockkit.gpu.running import RunningJob
    from lockkit.shared.options import Options
    from lockkit.sync.client import Client

__all__ = ["Adopted", "NotAdopted", "adopt", "cards_to_adopt", "let_go"]

_LONGEST = 64
"""The number of characters to which the program of an owner is cut."""


class Adopted(NamedTuple):
    """The cards that are held for a job.

    Attributes:
        leases: The leases, which are not bound to the job.
        devices: The cards, as they were seen before.
    """

    leases: Leases
    devices: tuple[Device, ...]


class NotAdopted(NamedTuple):
    """The answer if a card cannot be had: a sentence for each such card, and the first holder of one."""

    sentences: tuple[str, ...]
    holder: ClaimInfo | None = None


class _PoolWithoutGate(Pool):
    """The cards of a host, of which some are tried at once without the gate."""

    def try_these(self, taken: Mapping[str, int]) -> Leases | None:
        """Hold these weights of these cards, and of the cards of slices; None if one of them is not free."""
        weights: dict[str, int] = {}
        for member, weight in taken.items():
            for name in (member, self.within.get(member)):
                if name is not None:
                    weights[name] = weights.get(name, 0) + weight
        return AllOf(self._opening, self._locks(weights).values(), 0.0).try_acquire()


def adopt(
    client: Client,
    job: RunningJob,
    *,
    options: Options,
    simulate: int | None = None,
    ids: Sequence[str] | None = None,
    memory: int | None = None,
    allow_busy: bool = False,
    family: Collection[int] = (),
) -> Adopted | NotAdopted:
    """Take a claim on the cards that a job computes on: on all of them, or on none.

    Args:
        client: The client, whose process keeps the claims.
        job: The job. It is looked at once more after the grant.
        options: The options of each claim.
        simulate: The number of cards to simulate; None for what the configuration says.
        ids: UUIDs of cards, the beginnings of such, or indices; None for all on which one look shows the job.
        memory: The bytes of each card to take; None for whole cards.
        allow_busy: Whether others may compute on a card that is taken whole.
        family: The pids of the descendants of the job, which belong to it.

    Raises:
        ConfigError: The job computes on no card, or not on a named one, or has ended, with what to do.
        DevicesUnavailable: Nothing can be said about any card.
        BackendError: The store does not answer.
    """
    cards = HostCards(client, simulate=simulate, host=None)
    snapshot = cards.look()
    cards.settle(snapshot.devices)
    home = cards.check(snapshot.devices)
    named = None if ids is None else tuple(resolve(one, snapshot.devices, pool=cards.pool) for one in ids)
    try:
        devices = cards_to_adopt(job, snapshot, named, family)
    except ConfigError:
        _refuse_holder(client, job, cards.pool, snapshot)
        raise
    _check_alive(job)  # so the pid that the driver shows is that of this job
    _check_share(job, devices, memory)
    strangers = () if memory is not None or allow_busy else _others_beside(job, devices, family)
    marks = quarantined(client, cards.host, [one.uuid for one in devices])
    marked = [(one, mark_of(marks, one)) for one in devices]
    why = (*strangers, *(f"{short_name(one)}: {mark}" for one, mark in marked if mark is not None))
    if why:
        return NotAdopted(why)
    members = capacities(client, cards.pool, snapshot.devices)
    within = slices_in(snapshot.devices, members)
    pool = _PoolWithoutGate(client._opening, cards.pool, members, within, _with_note(options, job))  # noqa: SLF001
    pool.owner = _owner_of_claims(pool.terms.owner, job)
    share = None if memory is None else -(-memory // MIB)
    taken = {one.uuid: _weight(members, one, share, cards.pool) for one in devices}
    leases = pool.try_these(taken)
    if leases is None:
        return _in_the_way(client, cards.pool, devices, snapshot.taken)
    handover = Handover(client, cards.host, whole=memory is None)
    try:
        refused = tuple(filter(None, map(home.refuses, taken)))
        if refused:
            leases.release()
            return NotAdopted(refused)
        for uuid in taken:
            handover.take(uuid, granted(client.inspect(pool_name(cards.pool, uuid)).claims))
        _check_alive(job)
    except BaseException:
        handover.finish(())
        leases.release()
        raise
    cards.taken(leases, tuple(taken), devices)
    if memory is None:
        before = [_as_without(job, device, family) for device in devices]
        cards.adopted(client.driver(), leases, before, snapshot.devices)
    return Adopted(leases, devices)


def let_go(adopted: Adopted, job: RunningJob, reason: str) -> None:
    """Release the cards of a job.

    After the job's end, a whole card is cleaned and gets a receipt as usual, but no process is ended. A
    share, or a card that the job still uses, is left as it is: its state is unknown to the next holder.
    """
    if not job.ended():
        forget_held_cards(adopted.leases)
    adopted.leases.release(reason)


def cards_to_adopt(
    job: RunningJob, snapshot: Snapshot, named: Sequence[str] | None, family: Collection[int] = ()
) -> tuple[Device, ...]:
    """The cards to adopt with a job: those on which it computes, or those that are named.

    A named card without the job in sight will do only if the driver hides who computes, as in a container.

    Args:
        job: The job.
        snapshot: All cards.
        named: UUIDs; None for all on which the job computes.
        family: The pids of its descendants.

    Raises:
        ConfigError: There is no such card, or one of them will not do; the error says what to do.
    """
    usable = [one for one in snapshot.devices if one.uuid and not one.sliced]
    found = tuple(one for one in usable if any(each.pid == job.pid for each in one.processes or ()))
    if named is None:
        if not found:
            raise _on_no_card(job, snapshot, usable, family)
        return found
    by_uuid = {one.uuid: one for one in snapshot.devices}
    for uuid in dict.fromkeys(named):
        device = by_uuid[uuid]
        if device.sliced:
            slices = ", ".join(one.uuid for one in snapshot.devices if one.parent == uuid) or "none"
            raise ConfigError(
                f"{short_name(device)} is divided into slices, and programs can use only those",
                hint=f"name the slice: {slices}",
            )
        if device not in found and _tells_all(device):
            where = f"it computes on {', '.join(map(short_name, found))}" if found else "see: lockkit gpu ls"
            raise ConfigError(f"{job} does not compute on {short_name(device)}", hint=where)
    return tuple(by_uuid[uuid] for uuid in dict.fromkeys(named))


def _on_no_card(
    job: RunningJob, snapshot: Snapshot, usable: Sequence[Device], family: Collection[int]
) -> ConfigError:
    """The error for a job that is seen on no card."""
    on_cards = {each.pid: each for one in usable for each in one.processes or () if each.pid is not None}
    children = [process_words(on_cards[pid]) for pid in sorted(family) if pid in on_cards]
    if children:
        return ConfigError(
            f"{job} computes on no GPU, but what it started does: {'; '.join(children)}",
            hint=f"adopt that: lockkit gpu adopt {next(pid for pid in sorted(family) if pid in on_cards)}",
        )
    if not all(map(_tells_all, usable)):
        return ConfigError(
            f"whether {job} computes on a GPU cannot be told,"
            " because the driver does not say whose processes it sees",
            hint="name its GPU, if you know it: --gpu UUID",
        )
    return ConfigError(
        f"{job} computes on no GPU" + ("" if snapshot.devices else " that is seen"),
        hint="the pids on the GPUs: lockkit gpu ls. A job is adopted once it computes",
    )


def _refuse_holder(client: Client, job: RunningJob, pool: str, snapshot: Snapshot) -> None:
    """Refuse a job that holds cards itself, such as ``lockkit run``. One request for each card.

    Raises:
        ConfigError: The job holds a card.
    """
    there = process_of(client.owner._replace(pid=job.pid, started=job.started))
    held = [
        short_name(one)
        for one in snapshot.devices
        if one.uuid
        for holder in client.inspect(pool_name(pool, one.uuid)).holders
        if process_of(holder.owner) == there
    ]
    if held:
        raise ConfigError(
            f"{job} uses lockkit itself, as lockkit run does, and holds {', '.join(held)} already",
            name=pool,
            hint="there is nothing to adopt; see: lockkit gpu ls",
        )


def _tells_all(device: Device) -> bool:
    """Whether it is known of each process on a card which one it is."""
    return device.processes is not None and all(one.pid is not None for one in device.processes)


def _others_beside(job: RunningJob, devices: Sequence[Device], family: Collection[int]) -> tuple[str, ...]:
    """A sentence for each card that cannot be held whole for the job, because others compute on it."""
    told: list[str] = []
    for device in devices:
        others: list[DeviceProcess] = [
            one for one in device.processes or () if one.pid != job.pid and one.pid not in family
        ]
        seen = len(others) < len(device.processes or ())
        if not seen:
            others = others[1:]  # one of the unknown ones is the job
        if others:
            who = "; ".join(map(process_words, others))
            told.append(f"{short_name(device)}: others compute on it, too: {who}")
    return tuple(told)


def _as_without(job: RunningJob, device: Device, family: Collection[int]) -> Device:
    """A card as it would be without the job: every process not known to be another's counts as the job's."""
    if device.processes is None:
        return device._replace(used=0)
    others = tuple(one for one in device.processes if one.pid not in (None, job.pid, *family))
    return device._replace(processes=others, used=sum(one.memory or 0 for one in others))


def _check_share(job: RunningJob, devices: Sequence[Device], memory: int | None) -> None:
    """Refuse a share that is smaller than what the job uses already.

    Raises:
        ConfigError: The share is smaller.
    """
    for device in devices:
        used = max((one.memory or 0 for one in device.processes or () if one.pid == job.pid), default=0)
        if memory is not None and used > memory:
            raise ConfigError(
                f"{job} uses {show(used)} of {short_name(device)} already,"
                f" and {show(memory)} are to be declared",
                hint=f"declare at least what it uses: --gpu-mem {-(-used // MIB)}MiB",
            )


def _weight(members: Mapping[str, int], device: Device, share: int | None, pool: str) -> int:
    """The MiB to take of a card.

    Raises:
        ConfigError: The card has not so much, or its memory cannot be told.
    """
    room = members.get(device.uuid)
    if room is None:
        raise ConfigError(f"the memory of {short_name(device)} cannot be told", name=pool)
    if share is not None and share > room:
        raise ConfigError(f"{short_name(device)} has only {show(room * MIB)} for programs", name=pool)
    return room if share is None else share


def _check_alive(job: RunningJob) -> None:
    if job.ended():
        raise ConfigError(f"{job} has ended meanwhile", hint="nothing is held")


def _in_the_way(client: Client, pool: str, devices: Sequence[Device], at: float) -> NotAdopted:
    """The claims in the way on each card, as the store says now."""
    told: list[str] = []
    first: ClaimInfo | None = None
    for device in devices:
        queue = client.inspect(pool_name(pool, device.uuid))
        claims = queue.holders or queue.waiters
        if claims:
            first = first or claims[0]
            how = "held by" if queue.holders else "waited for by"
            told.append(
                f"{short_name(device)}: {how} {' and by '.join(holder_words(one, at) for one in claims)}"
            )
    return NotAdopted(tuple(told) or ("its holder was gone when it was looked for",), first)


def _with_note(options: Options, job: RunningJob) -> Options:
    noted = {**options}
    noted["note"] = {
        ADOPTED: {"pid": job.pid, "user": job.user, "program": job.program, "started": job.started}
    }
    return noted  # type: ignore[return-value]  # the keys of Options, and note


def _owner_of_claims(owner: Owner, job: RunningJob) -> Owner:
    """The owner of the claims: the process that keeps them, with the job in its program."""
    user = "" if job.user == owner.user else f"{job.user}'s "
    room = _LONGEST - len(f"keeper of {user} pid {job.pid}")
    return owner._replace(program=printable(f"keeper of {user}{job.program[:room]} pid {job.pid}"))
