"""The past, read from event journals: holds, waits that ended without one, what else happened, and what is missing.

:func:`read_history` is for programs; ``lockkit history``, ``audit`` and ``report`` show what it returns.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lockkit.facts import Owner
from lockkit.identity import boot_id, process_start
from lockkit.observe.appending import Contents, absent, opened, parsed, rotated
from lockkit.observe.event_journal import VERSION
from lockkit.observe.journal_lines import (
    data_of,
    happening_of,
    hold_of,
    key_of,
    number_of,
    owner_of,
    readable,
    resizes,
    short_of,
    wait_of,
    with_end,
)
from lockkit.observe.past import ENDS, Gaps, Happening, History, PastHold, PastResize, PastWait, StoreKey

if TYPE_CHECKING:
    from lockkit.config import Config

__all__ = [
    "ENDS",
    "Gaps",
    "Happening",
    "History",
    "PastHold",
    "PastResize",
    "PastWait",
    "StoreKey",
    "journals",
    "read_history",
]
_ENDING = ("released", "lost", "max_hold", "collected", "abandoned", "absent")
_VAIN = ("busy", "timeout", "cancelled", "failed")
_NO_HAPPENING = (*_VAIN, "acquired", "queued", "released", "removed", "missed", "closed")
"""Kinds of events that are no happening by themselves: holds, waits and gaps are made from them."""


def journals(config: Config) -> list[Path]:
    """The event journals of this host: that of this user, and in a shared folder those of all users. Renamed files stand beside each."""
    from lockkit.observe.event_journal import place_of

    mine = place_of(config, "user").path
    shared = place_of(config, "host").path
    found = dict.fromkeys((mine, shared))
    found |= dict.fromkeys(sorted(shared.parent.glob("events-*.jsonl"))) if shared != mine else {}
    return [path for path in found if path.exists() or rotated(path)]


def read_history(
    files: Iterable[str | os.PathLike[str]] = (),
    *,
    config: Config | None = None,
    name: str | None = None,
    since: float | None = None,
) -> History:
    """Read event journals.

    Args:
        files: The files, of one host or many; of a folder all files ``*.jsonl`` and ``*.jsonl.N``. None for those of ``config``.
        config: The configuration that names the journal; None for that of this process. Not used with ``files``.
        name: Only this lock.
        since: Seconds since the epoch; only what was not over by then.

    Raises:
        ConfigError, BackendUnavailable: The configuration is wrong, or its state folder cannot be used.
    """
    paths = [path for each in files for path in _of(Path(each))]
    if not paths:
        if config is None:
            from lockkit.config import load

            config = load()
        paths = journals(config)
    reading = _Reading()
    for path in dict.fromkeys(paths):
        reading.read(path)
    return reading.history(name, since)


def _of(path: Path) -> list[Path]:
    """The files of an argument; a folder has many."""
    if not path.is_dir():
        return [path]
    return sorted(each for each in path.iterdir() if each.name.startswith("events") and ".jsonl" in each.name)


class _Reading:
    """The lines of all files, and what is made of them."""

    def __init__(self) -> None:
        self.unreadable: list[str] = []
        self.files: list[str] = []
        self.torn = 0
        self._seen: set[tuple[int, int]] = set()
        self._records: dict[tuple[str, int], Mapping[str, object]] = {}
        """Each line once, by its writer and number: a file may be renamed between two looks, or be given twice as a copy."""

    def read(self, path: Path) -> None:
        """Read a file, and those into which it was renamed; what is wrong with it is counted."""
        try:
            found = opened(path)
            missing = absent(path)
            for each in found:
                with each:
                    seen = os.fstat(each.fileno())
                    if (seen.st_dev, seen.st_ino) not in self._seen:
                        self._seen.add((seen.st_dev, seen.st_ino))
                        self._take(parsed(each.read()))
                        self.files.append(each.name)
            # A second look, because a number is free for a moment while files are renamed.
            if missing and (still := [each for each in absent(path) if each in missing]):
                self.unreadable.append(f"{still[0]}: it is missing, and there are older ones")
        except OSError as error:
            self.unreadable.append(f"{path}: {error.strerror}")

    def _take(self, found: Contents) -> None:
        self.torn += found.torn
        for line in found.records:
            writer, number = line.get("writer"), line.get("n")
            if (
                line.get("v") == VERSION
                and isinstance(writer, str)
                and isinstance(number, int)
                and readable(line)
            ):
                self._records.setdefault((writer, number), line)
            else:
                self.torn += 1

    def history(self, name: str | None, since: float | None) -> History:
        """Everything that the lines say."""
        ordered = sorted(self._records.items(), key=lambda item: (number_of(item[1], "at"), item[0]))
        holds: dict[tuple[StoreKey, str], PastHold] = {}
        waits: list[PastWait] = []
        happenings: list[Happening] = []
        resized: dict[tuple[StoreKey, str], tuple[PastResize, ...]] = {}
        over: dict[tuple[StoreKey, str], float] = {}
        unbegun = missed = 0
        for _, line in ordered:
            kind = str(line["kind"])
            if kind == "missed":
                count = data_of(line).get("count")
                if since is None or number_of(line, "at") >= since:
                    missed += count if isinstance(count, int) else 1
            elif kind == "acquired":
                hold = hold_of(line)
                holds[hold.key, hold.claim_id] = hold
            elif kind in _VAIN:
                waits.append(wait_of(line))
        for _, line in ordered:
            kind = str(line["kind"])
            place = (key_of(line), str(line.get("claim", "")))
            if kind in _ENDING:
                if place in holds:
                    holds[place] = with_end(holds[place], line)
                    over[place] = number_of(line, "at")
                elif place[1] and _asked(str(line.get("name", "")), number_of(line, "at"), name, since):
                    unbegun += 1
            elif kind == "gpu_idle" and place in holds:
                idle = number_of(line, "duration")
                holds[place] = holds[place]._replace(idle=holds[place].idle + idle)
            elif kind == "resized":
                lock = (place[0], str(line.get("name", "")))
                resized[lock] = (*resized.get(lock, ()), *resizes(line))
            if kind not in _NO_HAPPENING:
                happenings.append(happening_of(line))
        unended = self._unended()
        gone = {(owner.boot_id, owner.pid, owner.started) for owner in unended}
        every = [
            hold._replace(end="unknown")
            if not hold.end and (hold.owner.boot_id, hold.owner.pid, hold.owner.started) in gone
            else hold
            for hold in holds.values()
        ]
        lasting = [one for one in every if since is None or not _followed(one, every, since)]
        standing = {one.owner for one in lasting if one.ended is None}
        gaps = Gaps(
            self.torn,
            missed,
            self._absent(since),
            tuple(
                owner
                for owner, last in unended.items()
                if since is None or last >= since or owner in standing
            ),
            self._unheard(waits, since),
            tuple(self.unreadable),
        )
        return History(
            tuple(one for one in lasting if _asked(one.name, _over(one, over), name, since)),
            tuple(one for one in waits if _asked(one.name, one.ended, name, since)),
            tuple(one for one in happenings if _asked(one.name, one.at, name, since)),
            gaps,
            number_of(ordered[0][1], "at") if ordered else None,
            tuple(self.files),
            resized,
            unbegun,
        )

    def _writers(self) -> dict[str, dict[int, Mapping[str, object]]]:
        found: dict[str, dict[int, Mapping[str, object]]] = {}
        for (writer, number), line in self._records.items():
            found.setdefault(writer, {})[number] = line
        return found

    def _absent(self, since: float | None) -> int:
        """Contents that are missing between the first and the last one of their writer, unless it wrote nothing since."""
        return sum(
            max(each) - min(each) + 1 - len(each)
            for each in self._writers().values()
            if since is None or _last(each.values()) >= since
        )

    def _unended(self) -> dict[Owner, float]:
        """Processes that did not close their journal, and that are not seen to run, with the time of their last line."""
        found: dict[Owner, float] = {}
        for each in self._writers().values():
            if not any(line["kind"] == "closed" for line in each.values()):
                owner = owner_of(next(iter(each.values())))
                if owner.boot_id != boot_id() or process_start(owner.pid) != owner.started:
                    found[owner] = max(found.get(owner, 0.0), _last(each.values()))
        return found

    def _unheard(self, waits: Sequence[PastWait], since: float | None) -> tuple[str, ...]:
        """Holders that stood in somebody's way, and none of whose lines is there."""
        heard = {short_of(str(owner_of(line))) for line in self._records.values()}
        met = dict.fromkeys(
            short_of(wait.holder) for wait in waits if wait.holder and _asked("", wait.ended, None, since)
        )
        met |= {
            short_of(str(holder)): None
            for line in self._records.values()
            if line["kind"] in ("queued", "still_waiting")
            and _asked("", number_of(line, "at"), None, since)
            and (holder := data_of(line).get("holder"))
        }
        return tuple(sorted(each for each in met if each not in heard))


def _asked(name: str, ended: float | None, wanted: str | None, since: float | None) -> bool:
    return (wanted is None or name == wanted) and (since is None or ended is None or ended >= since)


def _over(hold: PastHold, over: Mapping[tuple[StoreKey, str], float]) -> float | None:
    """When a hold was over at the latest: the wall clock may have been set while it lasted."""
    return None if hold.ended is None else max(hold.ended, over.get((hold.key, hold.claim_id), 0.0))


def _last(lines: Iterable[Mapping[str, object]]) -> float:
    """The time of the last line."""
    return max(number_of(line, "at") for line in lines)


def _followed(hold: PastHold, holds: Iterable[PastHold], since: float) -> bool:
    """Whether the process of a hold has ended, and the store had given the lock to another one before ``since``: the hold was over by then."""
    return hold.end == "unknown" and any(
        hold.began < other.began < since
        and (other.key, other.name) == (hold.key, hold.name)
        and hold.weight + other.weight > min(hold.capacity, other.capacity)
        for other in holds
    )
