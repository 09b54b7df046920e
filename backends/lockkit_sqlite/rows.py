"""Claims as stored, and as facts for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lockkit.errors import BackendUnavailable
from lockkit.facts import ClaimInfo, ClaimState
from lockkit.lib.namedtuples import NamedTuple
from lockkit.store.judging import NOBODY
from lockkit.store.layouts import too_new
from lockkit.store.owners import about, about_in
from lockkit.store.queue import grantable
from lockkit.store.spi import Refused, Terms
from lockkit.store.untrusted import NEWER, claim_of
from lockkit.values.names import claim_id
from lockkit_sqlite.layout import FAR, HELD, LINGERING, NO_FENCE, READER, WAITING, micros
from lockkit_sqlite.pulse import ALIVE, DEAD, UNKNOWN, Health

__all__ = [
    "DAMAGED",
    "Front",
    "LockColumns",
    "Row",
    "blocks_until",
    "check_rows",
    "claim_info",
    "fitting",
    "front_of",
    "holding",
    "read_rows",
    "unread",
]


_STATES: dict[int, ClaimState] = {WAITING: "WAITING", HELD: "HELD", LINGERING: "LINGERING"}


class Row(NamedTuple):
    """One claim, ordered as in :data:`~lockkit_sqlite.statements.QUEUE`. Times: CLOCK_BOOTTIME in us."""

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


DAMAGED = FAR
"""The ``min_reader`` of a row that cannot be true: no version reads it."""
_INSTEAD = Row(0, "", HELD, 0, 1, 1, 0, FAR, FAR, 0, 0, 0, 0, 0, "", 0, "", "{}", None, 0, DAMAGED)
_TYPES = tuple(map(type, _INSTEAD._replace(note=""))), tuple(map(type, _INSTEAD))
_FRONT_TYPES = (str, int, int, int, str, int)


def read_rows(fetched: Iterable[Sequence[Any]]) -> list[Row]:
    """The rows of a queue. An impossible row is a claim that holds, and is unreadable (:func:`unread`).

    SQLite keeps values of any type in a column, and other programs may have stored anything.
    """
    return [
        Row._make(each)
        if tuple(map(type, each)) in _TYPES and 0 <= each[0] < NO_FENCE and _possible(*each[2:6])
        else _repaired(each)
        for each in fetched
    ]


def front_of(fetched: Iterable[Sequence[Any]]) -> list[Front] | None:
    """The first rows of a queue; None if one of them cannot be read."""
    rows = [Front._make(each) for each in fetched]
    if any(tuple(map(type, row)) != _FRONT_TYPES or row.min_reader > READER for row in rows):
        return None
    return rows if all(_possible(row.state, 0, row.weight, row.capacity) for row in rows) else None


def _possible(state: int, evicted: int, weight: int, capacity: int) -> bool:
    return state in _STATES and evicted in (0, 1) and weight > 0 and capacity > 0


def _repaired(each: Sequence[Any]) -> Row:
    known = zip(each, _INSTEAD, _TYPES[0], strict=True)
    row = Row._make(value if type(value) is kind else instead for value, instead, kind in known)
    # By its fence, whatever that is, the row can be evicted.
    return row._replace(fence=each[0], state=HELD, weight=1, capacity=1, min_reader=DAMAGED)


def unread(row: Row, now: int) -> bool:
    """Whether a claim cannot be read by this version, so that it blocks. A damaged one can still lapse."""
    return row.min_reader > READER and (row.min_reader != DAMAGED or row.deadline > now)


def check_rows(rows: Sequence[Row], name: str, now: int) -> None:
    """Check that a queue can be decided upon.

    Raises:
        Refused: A claim is damaged, or was written for newer readers only (with IncompatibleLayout).
    """
    row = next((row for row in rows if unread(row, now)), None)
    if row is not None and row.min_reader == DAMAGED:
        text = f"a claim on {name!r} is damaged, or not lockkit's"
        raise Refused(BackendUnavailable(text, hint="see lockkit status, and lockkit evict"), retry=False)
    if row is not None:
        raise too_new(f"a claim on {name!r}", row.min_reader, READER, about_in(row.info).owner)


def holding(row: Row) -> bool:
    """True if the claim counts against the capacity."""
    return row.state != WAITING


def fitting(rows: Sequence[Row]) -> int:
    """How many claims, from the front, may be granted: none while a claim outside the prefix holds."""
    return grantable(rows, [holding(row) for row in rows])


def blocks_until(row: Row, now: int, offset: int = 0) -> int:
    """Until when the claim of a dead process would block if removed now; not after ``now`` if it would not.

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


class LockColumns(NamedTuple):
    """The columns that all claims of one lock share, and how long its deadlines are. Microseconds.

    Attributes:
        shared: The columns' values, as the parameters of :data:`~lockkit_sqlite.statements.INSERT_HELD`.
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
        ttl, min_hold, delay = micros(terms.ttl), micros(terms.min_hold), micros(terms.lock_delay)
        hold_end = None if terms.max_hold is None else micros(terms.max_hold)
        ends = [each for each in (None if terms.process_bound else ttl, hold_end) if each is not None]
        return cls(
            (
                namespace, terms.name, terms.weight, terms.capacity, terms.process_bound, ttl, min_hold,
                delay, boot, about(terms),
            ),
            max(min(ends) + delay, min_hold) if ends else None,
            max(ttl + delay, min_hold),
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
    if row.min_reader > READER:
        alive, evidence = None, "" if row.min_reader == DAMAGED else NEWER
    return claim_of(
        row.note,
        damaged=row.min_reader == DAMAGED,
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
    return _STATES[state]


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
