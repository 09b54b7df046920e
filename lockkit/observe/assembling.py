"""Journal rows, in any order, put together as they are read: each hold's start and end, and the gaps."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from operator import attrgetter
from typing import TypeVar

from msgspec.structs import replace

from lockkit.facts import Owner
from lockkit.lib.namedtuples import NamedTuple
from lockkit.observe.journal_rows import (
    Row,
    bounded,
    happening_of,
    hold_of,
    holder_of,
    key_of,
    resizes,
    resource_of,
    seconds_in,
    step_of,
    wait_of,
    with_end,
)
from lockkit.observe.missing import Meetings, Writer, absent_rows, unended
from lockkit.observe.past import Gaps, Happening, History, PastHold, PastResize, PastStep, PastWait, StoreKey

__all__ = ["Assembly", "Read"]

T = TypeVar("T")
_ENDING = ("released", "lost", "max_hold", "collected", "abandoned", "absent")
_VAIN = ("busy", "timeout", "cancelled", "failed")
_WAITING = ("queued", "still_waiting")
_BOUNDING = ("evicted", "dropped")
"""Kinds of events after which a hold without an end does not last for long. So does the end of its client."""
_STEPS = ("guard_opened", "guard_written", "guard_refused")
_NEAR = 0.1
"""Seconds by which two times of one line may differ, because its two clocks are read one after the other."""
_NO_HAPPENING = (
    *_VAIN,
    "acquired",
    "queued",
    "released",
    "removed",
    "missed",
    "opened",
    "closed",
    "guard_opened",
    "guard_written",
)
"""Kinds of events that are no happening by themselves: holds, waits and gaps are made from them."""


_LATER = (*_ENDING, *_BOUNDING, "gpu_idle")
"""Kinds of events about a hold that has begun."""


class Read(NamedTuple):
    """The files that were read.

    Attributes:
        torn: Contents that could not be read.
        unreadable: Files that could not be read, or do not exist.
    """

    torn: int
    files: tuple[str, ...]
    unreadable: tuple[str, ...]


class Assembly:
    """The past, as far as the rows that were taken record it.

    Args:
        name: Only this lock.
        since: Seconds since the epoch; only what was not over by then.
    """

    def __init__(self, name: str | None = None, since: float | None = None) -> None:
        self._name = name
        self._since = since
        self._first: float | None = None
        self._last = 0.0
        self._writers: dict[str, Writer] = {}
        self._complete: dict[str, int] = {}
        """The number after the last row of each writer whose rows were all read: no more is kept of it."""
        self._owners: list[Owner] = []
        self._held: dict[StoreKey, dict[str, PastHold]] = {}
        self._standing: dict[tuple[StoreKey, str], Writer] = {}
        """The writers of holds that have no certain end yet."""
        self._early: list[tuple[Writer, Row]] = []
        """Rows about claims whose start was not read yet."""
        self._waits: list[PastWait] = []
        self._happenings: list[Happening] = []
        self._resized: dict[tuple[StoreKey, str], list[PastResize]] = {}
        self._steps: list[PastStep] = []
        self._registered: dict[tuple[StoreKey, str, str, str], PastStep] = {}
        """The highest fence of each resource before ``since``, as it was registered from each boot."""
        self._missed = 0
        self._meetings = Meetings()
        self._values: dict[object, object] = {}

    def take(self, row: Row) -> None:
        """Add a row. A known row changes nothing: a file may be renamed between two looks, or given twice."""
        if row.n < self._complete.get(row.writer, row.n):
            return
        writer = self._writer(row)
        if not writer.is_new(row.n):
            return
        writer.take(row, self._since)
        if writer.is_complete():
            self._complete[row.writer] = writer.bounds[1]
            del self._writers[row.writer]
        key, owner, shared = writer.key, writer.owner, self._shared
        kind = row.kind = shared(row.kind)
        row.name, row.reason, row.lock = shared(row.name), shared(row.reason), shared(row.lock)
        self._first = row.at if self._first is None else min(self._first, row.at)
        self._last = max(self._last, row.at)
        asked = self._asks(row.name, row.at)
        if kind == "acquired":
            self._begin(writer, row)
        elif kind in _LATER:
            if not self._go_on(writer, row):
                self._early.append((writer, row))
        elif kind in _VAIN:
            if asked:
                self._waits.append(wait_of(row, key, owner, shared(holder_of(row))))
        elif kind in _STEPS:
            self._step(writer, row)
        elif kind == "resized":
            self._resized.setdefault((key, row.name), []).extend(resizes(row))
        if kind not in _NO_HAPPENING and asked:
            self._happenings.append(happening_of(row, key, owner))
        if row.data and self._is_recent(row.at):
            self._meetings.take(row, writer.held, waited=kind in _VAIN or kind in _WAITING)
            if kind == "missed":
                count = row.data.get("count")
                self._missed += count if isinstance(count, int) else 1

    def history(self, read: Read) -> History:
        """Everything that the rows say."""
        since = self._since
        self._early.sort(key=lambda one: one[1].at)
        self._early = [one for one in self._early if not self._go_on(*one)]
        gone = unended(self._writers.values())
        lasting = self._lasting({(owner.boot_id, owner.pid, owner.started) for owner in gone})
        standing = {hold.owner for hold in lasting if hold.ended is None}
        return History(
            _ordered(
                (
                    one
                    for one in lasting
                    if self._asks(one.name, one.ended and max(one.ended, one.told or 0.0))
                ),
                "began",
            ),
            _ordered(self._waits, "ended"),
            _ordered(self._happenings, "at"),
            Gaps(
                read.torn,
                self._missed,
                absent_rows(self._writers.values(), since),
                tuple(
                    sorted(
                        (o for o, last in gone.items() if since is None or last >= since or o in standing),
                        key=str,
                    )
                ),
                self._meetings.unheard(self._owners, self._held.values()),
                read.unreadable,
            ),
            self._first,
            read.files,
            {lock: tuple(found) for lock, found in self._resized.items()},
            sum(
                row.kind in _ENDING and row.claim != "" and self._asks(row.name, row.at)
                for _, row in self._early
            ),
            _ordered([*self._registered.values(), *self._steps], "at"),
        )

    def _is_recent(self, at: float) -> bool:
        return self._since is None or at >= self._since

    def _asks(self, name: str, ended: float | None) -> bool:
        return (self._name is None or name == self._name) and (ended is None or self._is_recent(ended))

    def _shared(self, value: T) -> T:
        """The first value that is equal to this one, because most rows repeat what others say."""
        return self._values.setdefault(value, value)  # type: ignore[return-value]

    def _writer(self, row: Row) -> Writer:
        known = self._writers.get(row.writer)
        if known is not None and known.wrote(row):
            return known
        key, shared = self._shared(key_of(row)), self._shared
        task = None if row.task is None else shared(row.task)
        owner = Owner(
            shared(row.user),
            shared(row.host),
            row.pid,
            shared(row.boot),
            row.started,
            shared(row.program),
            None,
            task,
        )
        self._owners.append(owner)
        place = shared((shared(row.store), row.scope, row.namespace))
        held = self._held.setdefault(key, {})
        if known is None:
            made = Writer(owner, key, place, held, row.at, [])
            if row.writer in self._complete:  # it went on after its last row
                made.bounds, made.closed = [0, self._complete[row.writer]], row.boottime
        else:
            made = replace(known, owner=owner, key=key, place=place, held=held)
        self._writers[row.writer] = made
        return made

    def _begin(self, writer: Writer, row: Row) -> None:
        if row.claim not in writer.held:
            hold = hold_of(row, writer.key, writer.owner, self._shared(seconds_in(row.data, "ttl")))
            writer.held[row.claim] = hold
            self._standing[writer.key, row.claim] = writer

    def _go_on(self, writer: Writer, row: Row) -> bool:
        """Change the hold that a row is about; False if there is none yet."""
        hold = writer.held.get(row.claim)
        if hold is None:
            return False
        if row.kind in _ENDING:
            hold = with_end(hold, row)
            if hold.until_boottime is not None:
                self._standing.pop((writer.key, row.claim), None)
        elif row.kind == "gpu_idle":
            hold = replace(hold, idle=hold.idle + row.duration)
        else:
            # Evicted or dropped claims are not renewed. This row's ttl counts: it may have been extended.
            more = seconds_in(row.data, "ttl")
            if more is not None:
                hold = bounded(hold, row.at + more, row.boottime + more, row.boot)
        writer.held[row.claim] = hold
        return True

    def _step(self, writer: Writer, row: Row) -> None:
        if self._name not in (None, row.name):
            return
        hold = writer.held.get(row.claim)
        if hold is not None and hold.fence == row.fence:
            row.claim, row.fence = hold.claim_id, hold.fence
        step = step_of(row, writer.key, writer.owner, self._shared(resource_of(row)))
        if self._is_recent(row.at):
            self._steps.append(step)
        elif step.kind != "refused":
            place = (step.key, step.name, step.resource, step.owner.boot_id)
            known = self._registered.get(place)
            if known is None or (step.fence, -step.at) > (known.fence, -known.at):
                self._registered[place] = replace(step, kind="opened")  # what was written had been opened

    def _lasting(self, dead: Container[tuple[str, int, float]]) -> Iterable[PastHold]:
        """All holds, without those of dead processes that a later grant shows to be over before ``since``."""
        for (key, claim), writer in self._standing.items():
            hold = self._held[key][claim]
            if writer.closed is not None:
                hold = bounded(hold, writer.last, writer.closed, writer.owner.boot_id)
            if hold.ended is None:
                hold = replace(hold, end=_untold(hold, dead, self._last))
            self._held[key][claim] = hold
        every = [hold for held in self._held.values() for hold in held.values()]
        before: dict[tuple[StoreKey, str], list[PastHold]] = {
            (hold.key, hold.name): [] for hold in every if hold.end == "unknown"
        }
        since = -math.inf if self._since is None else self._since
        for hold in every if before else ():
            if hold.began < since and (hold.key, hold.name) in before:
                before[hold.key, hold.name].append(hold)
        return [
            hold
            for hold in every
            if hold.end != "unknown" or not _followed(hold, before[hold.key, hold.name])
        ]


def _ordered(facts: Iterable[T], time: str) -> tuple[T, ...]:
    """Facts in the order of a time of theirs."""
    return tuple(sorted(facts, key=attrgetter(time)))


def _untold(hold: PastHold, gone: Container[tuple[str, int, float]], told: float) -> str:
    """How a hold without an end ended, as far as other rows say; ``told`` is the time of the last of all."""
    if (hold.owner.boot_id, hold.owner.pid, hold.owner.started) in gone:
        return "unknown"
    known = [each for each in (hold.latest, hold.latest_elsewhere) if each is not None]
    return "untold" if known and min(known) <= told + _NEAR else ""


def _followed(hold: PastHold, others: Iterable[PastHold]) -> bool:
    """Whether the store granted the lock to another claim after a hold, so that the hold was over by then."""
    return any(
        hold.began < other.began and hold.weight + other.weight > min(hold.capacity, other.capacity)
        for other in others
    )
