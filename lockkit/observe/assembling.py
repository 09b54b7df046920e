"""Rows of event journals, put together: each hold from its beginning and its end, and what is missing."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping

from lockkit.namedtuples import NamedTuple
from lockkit.observe.journal_rows import (
    bounded,
    happening_of,
    hold_of,
    key_of,
    number_of,
    resizes,
    step_of,
    wait_of,
    with_end,
)
from lockkit.observe.missing import Rows, absent_rows, missed_events, unended, unheard
from lockkit.observe.past import Gaps, Happening, History, PastHold, PastResize, PastStep, PastWait, StoreKey

__all__ = ["Read", "assemble"]

_ENDING = ("released", "lost", "max_hold", "collected", "abandoned", "absent")
_VAIN = ("busy", "timeout", "cancelled", "failed")
_BOUNDING = ("evicted", "dropped", "closed")
"""Kinds of events after which a hold without an end does not last for long."""
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


class Read(NamedTuple):
    """The files that were read.

    Attributes:
        torn: Contents that could not be read.
        unreadable: Files that could not be read, or do not exist.
    """

    torn: int
    files: tuple[str, ...]
    unreadable: tuple[str, ...]


def assemble(lines: Rows, read: Read, name: str | None, since: float | None) -> History:
    """Everything that the lines say.

    Args:
        lines: The lines of all files.
        read: The files.
        name: Only this lock.
        since: Seconds since the epoch; only what was not over by then.
    """
    past = _Past(lines)
    gone = unended(lines)
    dead = {(owner.boot_id, owner.pid, owner.started) for owner in gone}
    every = [
        hold if hold.end else hold._replace(end=_untold(hold, dead, past.last))
        for hold in past.holds.values()
    ]
    lasting = [one for one in every if since is None or not _followed(one, every, since)]
    standing = {one.owner for one in lasting if one.ended is None}
    gaps = Gaps(
        read.torn,
        missed_events(lines, since),
        absent_rows(lines, since),
        tuple(owner for owner, last in gone.items() if since is None or last >= since or owner in standing),
        unheard(lines, past.waits, since),
        read.unreadable,
    )
    return History(
        tuple(one for one in lasting if _asked(one.name, _over(one, past.over), name, since)),
        tuple(one for one in past.waits if _asked(one.name, one.ended, name, since)),
        tuple(one for one in past.happenings if _asked(one.name, one.at, name, since)),
        gaps,
        past.first,
        read.files,
        past.resized,
        sum(_asked(lock, at, name, since) for lock, at in past.unbegun),
        tuple(_steps([one for one in past.steps if _asked(one.name, None, name, None)], since)),
    )


class _Past:
    """The past as all lines tell it, whatever was asked for.

    Attributes:
        over: When the end of a hold was told.
        unbegun: The name and the time of each end of a hold without a beginning.
        first: The time of the first line, in seconds since the epoch.
        last: The time of the last line.
    """

    def __init__(self, lines: Rows) -> None:
        self.holds: dict[tuple[StoreKey, str], PastHold] = {}
        self.waits: list[PastWait] = []
        self.happenings: list[Happening] = []
        self.resized: dict[tuple[StoreKey, str], tuple[PastResize, ...]] = {}
        self.over: dict[tuple[StoreKey, str], float] = {}
        self.unbegun: list[tuple[str, float]] = []
        self.steps: list[PastStep] = []
        self._taken: dict[str, list[tuple[StoreKey, str]]] = {}
        ordered = sorted(lines.items(), key=lambda item: (number_of(item[1], "at"), item[0]))
        self.first = number_of(ordered[0][1], "at") if ordered else None
        self.last = number_of(ordered[-1][1], "at") if ordered else 0.0
        # All beginnings come first: if the wall clock was set, the end of a hold may bear an earlier time.
        for (writer, _), line in ordered:
            if line["kind"] == "acquired":
                hold = hold_of(line)
                self.holds[hold.key, hold.claim_id] = hold
                self._taken.setdefault(writer, []).append((hold.key, hold.claim_id))
        for (writer, _), line in ordered:
            self._take(writer, str(line["kind"]), line)

    def _take(self, writer: str, kind: str, line: Mapping[str, object]) -> None:
        place = (key_of(line), str(line.get("claim", "")))
        if kind in _VAIN:
            self.waits.append(wait_of(line))
        elif kind in _ENDING:
            self._end(place, line)
        elif kind in _BOUNDING:
            for each in self._taken.get(writer, ()) if kind == "closed" else [place]:
                if each in self.holds:
                    self.holds[each] = bounded(self.holds[each], line)
        elif kind == "gpu_idle" and place in self.holds:
            idle = number_of(line, "duration")
            self.holds[place] = self.holds[place]._replace(idle=self.holds[place].idle + idle)
        elif kind in _STEPS:
            self.steps.append(step_of(line))
        elif kind == "resized":
            lock = (place[0], str(line.get("name", "")))
            self.resized[lock] = (*self.resized.get(lock, ()), *resizes(line))
        if kind not in _NO_HAPPENING:
            self.happenings.append(happening_of(line))

    def _end(self, place: tuple[StoreKey, str], line: Mapping[str, object]) -> None:
        at = number_of(line, "at")
        if place in self.holds:
            self.holds[place] = with_end(self.holds[place], line)
            self.over[place] = at
        elif place[1]:
            self.unbegun.append((str(line.get("name", "")), at))


def _asked(name: str, ended: float | None, wanted: str | None, since: float | None) -> bool:
    return (wanted is None or name == wanted) and (since is None or ended is None or ended >= since)


def _over(hold: PastHold, over: Mapping[tuple[StoreKey, str], float]) -> float | None:
    """When a hold was over at the latest: the wall clock may have been set while it lasted."""
    return None if hold.ended is None else max(hold.ended, over.get((hold.key, hold.claim_id), 0.0))


def _steps(steps: Iterable[PastStep], since: float | None) -> Iterator[PastStep]:
    """The steps from ``since`` on, and before them the highest fence of each resource, as it was registered from each boot."""
    before: dict[tuple[StoreKey, str, str, str], PastStep] = {}
    for step in steps:
        if since is None or step.at >= since:
            yield step
        elif step.kind != "refused":
            place = (step.key, step.name, step.resource, step.owner.boot_id)
            if place not in before or step.fence > before[place].fence:
                before[place] = step._replace(kind="opened")  # what was written had been opened
    yield from before.values()


def _untold(hold: PastHold, gone: Container[tuple[str, int, float]], told: float) -> str:
    """How a hold without an end ended, as far as the other lines say. ``told`` is the time of the last line of all."""
    if (hold.owner.boot_id, hold.owner.pid, hold.owner.started) in gone:
        return "unknown"
    known = [each for each in (hold.latest, hold.latest_elsewhere) if each is not None]
    return "untold" if known and min(known) <= told + _NEAR else ""


def _followed(hold: PastHold, holds: Iterable[PastHold], since: float) -> bool:
    """Whether the process of a hold has ended, and the store had given the lock to another one before ``since``: the hold was over by then."""
    return hold.end == "unknown" and any(
        hold.began < other.began < since
        and (other.key, other.name) == (hold.key, hold.name)
        and hold.weight + other.weight > min(hold.capacity, other.capacity)
        for other in holds
    )
