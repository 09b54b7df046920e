"""Claims as stored, and as facts for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from lockkit.facts import ClaimInfo, ClaimState
from lockkit.namedtuples import NamedTuple
from lockkit.names import claim_id
from lockkit.store.judging import NOBODY
from lockkit.store.layouts import too_new
from lockkit.store.owners import about, about_in
from lockkit.store.queue import grantable
from lockkit.store.spi import Terms
from lockkit.store.untrusted import claim_of
from lockkit_sqlite.layout import FAR, HELD, LINGERING, READER, WAITING, micros
from lockkit_sqlite.pulse import ALIVE, DEAD, UNKNOWN, Health

__all__ = ["Front", "LockColumns", "Row", "blocks_until", "claim_info", "fitting", "holding", "read_rows"]


class Row(NamedTuple):
    """One claim, in the order of :data:`~lockkit_sqlite.statements.QUEUE`. Times in CLOCK_BOOTTIME microseconds."""

    fence: int
    token: str
    state: int
    evicted: int
    weight: int
    capacity: int
    process_bound: int
    deadline: int
    silence: int
    ttl: int
    since: int
    renewed: int
    min_hold: int
    lock_delay: int
    boot: str
    epoch: int
    fifo: str
    info: str
    note: str | None
    asked: int
    min_reader: int


class Front(NamedTuple):
    """One claim at the front of a queue, in the order of :data:`~lockkit_sqlite.statements.FRONT`."""

    token: str
    state: int
    weight: int
    capacity: int
    fifo: str
    min_reader: int


def read_rows(fetched: Iterable[Sequence[Any]], name: str) -> list[Row]:
    """The rows of a queue.

    Raises:
        Refused: With IncompatibleLayout, if a claim was written for newer readers only.
    """
    rows = [Row._make(each) for each in fetched]
    for row in rows:
        if row.min_reader > READER:
            raise too_new(f"a claim on {name!r}", row.min_reader, READER, about_in(row.info).owner)
    return rows


def holding(row: Row) -> bool:
    """True if the claim counts against the capacity."""
    return row.state != WAITING


def fitting(rows: Sequence[Row]) -> int:
    """How many claims, from the front, may be granted: none while a claim outside the prefix holds."""
    return grantable(rows, [holding(row) for row in rows])


def blocks_until(row: Row, now: int, offset: int = 0) -> int:
    """The time until which the claim of a dead process would block if it were removed now. Not after ``now`` if it would not.

    Args:
        row: The claim.
        now: CLOCK_BOOTTIME microseconds.
        offset: What to add to the times of the row, which may be those of an earlier boot.
    """
    if row.state == WAITING:
        return now
    if row.state == LINGERING:
        return row.deadline + offset
    return max(row.since + offset + row.min_hold, min(row.deadline + offset, now + row.lock_delay))


@lru_cache(maxsize=64)
def _lengths(
    process_bound: bool,  # noqa: FBT001 (the names are those of the terms)
    ttl: float,
    max_hold: float | None,
    min_hold: float,
    lock_delay: float,
) -> tuple[int, int, int, int | None, int, int | None]:
    """The ttl, min_hold and lock_delay in microseconds, and what :class:`LockColumns` says of deadlines. Most locks of a client share one."""
    term, least, delay = micros(ttl), micros(min_hold), micros(lock_delay)
    hold_end = None if max_hold is None else micros(max_hold)
    ends = [each for each in (None if process_bound else term, hold_end) if each is not None]
    end = min(ends, default=None)
    deadline = None if end is None else max(end + delay, least)
    return term, least, delay, deadline, max(term + delay, least), hold_end


class LockColumns(NamedTuple):
    """The columns that all claims of one lock share, and how long its deadlines are. Microseconds.

    Attributes:
        shared: The values of the columns, in the order of the parameters of :data:`~lockkit_sqlite.statements.INSERT_HELD`.
        deadline: From the grant to the deadline; None for never.
        silence: From the grant to the deadline by ttl alone.
        hold_end: From the grant to the end of max_hold; None for never.
    """

    shared: tuple[int | str, ...]
    deadline: int | None
    silence: int
    hold_end: int | None

    @classmethod
    def of(cls, terms: Terms, namespace: str, boot: str) -> LockColumns:
        """The columns of a lock in this namespace, for claims of this boot."""
        ttl, min_hold, lock_delay, deadline, silence, hold_end = _lengths(
            terms.process_bound, terms.ttl, terms.max_hold, terms.min_hold, terms.lock_delay
        )
        return cls(
            (
                namespace, terms.name, terms.weight, terms.capacity, terms.process_bound, ttl, min_hold, lock_delay, boot, about(terms),
            ),
            deadline,
            silence,
            hold_end,
        )  # fmt: skip

    def deadlines(self, now: int) -> tuple[int, int, int]:
        """The times of a claim granted now: its deadline, the same by ttl alone, and the end of max_hold."""
        return (
            FAR if self.deadline is None else now + self.deadline,
            now + self.silence,
            FAR if self.hold_end is None else now + self.hold_end,
        )


def claim_info(
    name: str, rows: Sequence[Row], place: int, *, boot: str, epoch: int, health: Health | None = None
) -> ClaimInfo:
    """One claim of a queue as a fact.

    Args:
        name: The lock's name.
        rows: The whole queue.
        place: The place of the claim in the queue.
        boot: This boot's id.
        epoch: Microseconds since 1970 minus CLOCK_BOOTTIME, now.
        health: The answer of its pulse, if that was probed.
    """
    row = rows[place]
    offset = epoch if row.boot == boot else row.epoch
    told = about_in(row.info)
    alive, evidence = _evidence(row, boot, health)
    return claim_of(
        row.note,
        name=name,
        claim_id=claim_id(row.token),
        state=_state(rows, place),
        owner=told.owner,
        fence=row.fence,
        position=place,
        kind=told.kind,
        weight=row.weight,
        capacity=row.capacity,
        ttl=row.ttl / 1e6,
        since=(row.since + offset) / 1e6,
        renewed=(row.renewed + offset) / 1e6,
        deadline=None if row.deadline >= FAR else (row.deadline + offset) / 1e6,
        evicted=bool(row.evicted),
        process_bound=bool(row.process_bound),
        alive=alive,
        evidence=evidence,
        layout=told.layout,
    )


def _state(rows: Sequence[Row], place: int) -> ClaimState:
    state = rows[place].state
    if state == WAITING:
        return "OFFERED" if place < fitting(rows) else "WAITING"
    return {HELD: "HELD", LINGERING: "LINGERING"}.get(state, "HELD")  # type: ignore[return-value]


def _evidence(row: Row, boot: str, health: Health | None) -> tuple[bool | None, str]:
    if row.boot != boot and health == ALIVE:
        return (
            True,
            "its pulse answers, although its boot id is another: it is in a container, or this process is",
        )
    if row.boot != boot:
        return False, "another boot: the machine was restarted since"
    if not row.fifo:
        return None, NOBODY
    if health == ALIVE:
        return True, "its pulse answers"
    if health == DEAD:
        return False, "no reader on its pulse"
    if health == UNKNOWN:
        return None, "its pulse cannot be found, so its ttl decides"
    return None, ""
