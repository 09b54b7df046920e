"""The past, read from event journals: holds, waits that ended without one, what else happened, and what is missing.

:func:`read_history` is for programs; ``lockkit history``, ``audit`` and ``report`` show what it returns.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lockkit.facts import NOTHING, Kind, Owner, Scope
from lockkit.identity import boot_id, process_start
from lockkit.namedtuples import NamedTuple
from lockkit.observe.appending import Contents, absent, opened, parsed, rotated
from lockkit.observe.event_journal import VERSION

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

ENDS: Mapping[str, str] = {
    "released": "released",
    "lost": "lost",
    "max_hold": "ended by max_hold",
    "collected": "dropped without a release",
    "abandoned": "released without an answer",
    "absent": "gone at its release",
    "": "still held",
    "unknown": "its process has ended",
}
"""How a hold ended (``PastHold.end``), in words."""
_ENDING = ("released", "lost", "max_hold", "collected", "abandoned", "absent")
_VAIN = ("busy", "timeout", "cancelled", "failed")
_LATEST = 253_402_300_800.0
"""The first second of the year 10,000; a time from then on, or one that is no number, was not written by a journal."""
_LOOPBACK = re.compile(
    r"[a-z0-9+]+://(?:[^/@]*@)?(?:localhost|127\.[0-9.]+|\[::1\])(?:[:/,]|$)", re.IGNORECASE
)
_NO_HAPPENING = (*_VAIN, "acquired", "queued", "released", "removed", "missed", "closed")
"""Kinds of events that are no happening by themselves: holds, waits and gaps are made from them."""


class StoreKey(NamedTuple):
    """The store and namespace of a lock. Journals of one store that name it by different URLs count as different stores.

    Attributes:
        store: The URL, secrets redacted.
        namespace: The namespace.
        within: The host, user or process to which the locks of the store reach; empty for a store of a fleet.
    """

    store: str
    namespace: str
    within: str = ""


class PastHold(NamedTuple):
    """One hold.

    Attributes:
        waited: Seconds from the call to the grant.
        began: Seconds since the epoch at which the grant had been read.
        ended: Seconds since the epoch at which the hold ended; None if the journals do not say.
        end: How it ended, a key of ``ENDS``.
        reason: Why it ended, as the event says.
        began_boottime: Seconds of CLOCK_BOOTTIME of the holder's host at ``began``.
        until_boottime: Seconds of CLOCK_BOOTTIME until which the holder was certain to hold; None if that is not known.
        idle: Seconds for which a GPU was reported to be idle while it was held; it may have been idle for longer.
    """

    key: StoreKey
    name: str
    claim_id: str
    fence: int
    owner: Owner
    began: float
    waited: float = 0.0
    ended: float | None = None
    end: str = ""
    reason: str = ""
    kind: Kind = "mutex"
    weight: int = 1
    capacity: int = 1
    began_boottime: float = 0.0
    until_boottime: float | None = None
    idle: float = 0.0


class PastWait(NamedTuple):
    """One attempt that ended without a hold.

    Attributes:
        outcome: ``busy``, ``timeout``, ``cancelled`` or ``failed``.
        ended: Seconds since the epoch.
        waited: Seconds.
        holder: The holder that was in the way, in words; empty if that is not known.
    """

    key: StoreKey
    name: str
    owner: Owner
    outcome: str
    ended: float
    waited: float
    holder: str = ""


class Happening(NamedTuple):
    """Anything else that happened: a loss, an eviction, a cleanup, an alert, a fault.

    Attributes:
        kind: The kind of the event, or of the alert.
        at: Seconds since the epoch.
        owner: The process that reported it.
        priority: P0, P1 or P2 for an alert; else empty.
        text: What the event says beside its kind: a reason, a message, or how a cleanup ended.
    """

    key: StoreKey
    kind: str
    at: float
    name: str
    claim_id: str
    owner: Owner
    priority: str = ""
    text: str = ""
    data: Mapping[str, object] = NOTHING


class PastResize(NamedTuple):
    """A change of the capacity of a lock that had claims.

    Attributes:
        capacity: The new capacity.
        at: Seconds since the epoch at which it was asked for.
        boottime: Seconds of CLOCK_BOOTTIME of the host at ``at``.
        boot_id: The boot of the host.
    """

    capacity: int
    at: float
    boottime: float
    boot_id: str


class Gaps(NamedTuple):
    """The parts that are missing in the journals.

    Attributes:
        torn: Contents that could not be read.
        missed: Events that did not reach the journal, as it says itself.
        absent: Contents that were written, by their numbers, and are in no file; those before the first line of a writer do not count.
        unended: Processes that have ended, or cannot be seen from here, without having closed their journal: their last events may be missing.
        unheard: Holders that others met, and of which there is no journal, in words.
        unreadable: Files that could not be read, or do not exist.
    """

    torn: int = 0
    missed: int = 0
    absent: int = 0
    unended: tuple[Owner, ...] = ()
    unheard: tuple[str, ...] = ()
    unreadable: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(self)


class History(NamedTuple):
    """The past, as far as the journals know it; each part in the order of time.

    Attributes:
        first: Seconds since the epoch of the earliest line; None if there is no line.
        files: The files that were read.
        resized: The changes of capacity of each resized lock.
        unbegun: Holds whose end is in the journals, and whose beginning is not.
    """

    holds: tuple[PastHold, ...] = ()
    waits: tuple[PastWait, ...] = ()
    happenings: tuple[Happening, ...] = ()
    gaps: Gaps = Gaps()
    first: float | None = None
    files: tuple[str, ...] = ()
    resized: Mapping[tuple[StoreKey, str], tuple[PastResize, ...]] = {}
    unbegun: int = 0


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
                and _fits(line)
            ):
                self._records.setdefault((writer, number), line)
            else:
                self.torn += 1

    def history(self, name: str | None, since: float | None) -> History:
        """Everything that the lines say."""
        ordered = sorted(self._records.items(), key=lambda item: (_number(item[1], "at"), item[0]))
        holds: dict[tuple[StoreKey, str], PastHold] = {}
        waits: list[PastWait] = []
        happenings: list[Happening] = []
        resized: dict[tuple[StoreKey, str], tuple[PastResize, ...]] = {}
        over: dict[tuple[StoreKey, str], float] = {}
        unbegun = missed = 0
        for _, line in ordered:
            kind = str(line["kind"])
            if kind == "missed":
                count = _data(line).get("count")
                if since is None or _number(line, "at") >= since:
                    missed += count if isinstance(count, int) else 1
            elif kind == "acquired":
                hold = _hold(line)
                holds[hold.key, hold.claim_id] = hold
            elif kind in _VAIN:
                waits.append(_wait(line))
        for _, line in ordered:
            kind = str(line["kind"])
            place = (_key(line), str(line.get("claim", "")))
            if kind in _ENDING:
                if place in holds:
                    holds[place] = _ended(holds[place], line)
                    over[place] = _number(line, "at")
                elif place[1] and _asked(str(line.get("name", "")), _number(line, "at"), name, since):
                    unbegun += 1
            elif kind == "gpu_idle" and place in holds:
                idle = _number(line, "duration")
                holds[place] = holds[place]._replace(idle=holds[place].idle + idle)
            elif kind == "resized":
                lock = (place[0], str(line.get("name", "")))
                resized[lock] = (*resized.get(lock, ()), *_resize(line))
            if kind not in _NO_HAPPENING:
                happenings.append(_happening(line))
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
            _number(ordered[0][1], "at") if ordered else None,
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
                owner = _owner(next(iter(each.values())))
                if owner.boot_id != boot_id() or process_start(owner.pid) != owner.started:
                    found[owner] = max(found.get(owner, 0.0), _last(each.values()))
        return found

    def _unheard(self, waits: Sequence[PastWait], since: float | None) -> tuple[str, ...]:
        """Holders that stood in somebody's way, and none of whose lines is there."""
        heard = {_short(str(_owner(line))) for line in self._records.values()}
        met = dict.fromkeys(
            _short(wait.holder) for wait in waits if wait.holder and _asked("", wait.ended, None, since)
        )
        met |= {
            _short(str(holder)): None
            for line in self._records.values()
            if line["kind"] in ("queued", "still_waiting")
            and _asked("", _number(line, "at"), None, since)
            and (holder := _data(line).get("holder"))
        }
        return tuple(sorted(each for each in met if each not in heard))


def _asked(name: str, ended: float | None, wanted: str | None, since: float | None) -> bool:
    return (wanted is None or name == wanted) and (since is None or ended is None or ended >= since)


def _over(hold: PastHold, over: Mapping[tuple[StoreKey, str], float]) -> float | None:
    """When a hold was over at the latest: the wall clock may have been set while it lasted."""
    return None if hold.ended is None else max(hold.ended, over.get((hold.key, hold.claim_id), 0.0))


def _last(lines: Iterable[Mapping[str, object]]) -> float:
    """The time of the last line."""
    return max(_number(line, "at") for line in lines)


def _followed(hold: PastHold, holds: Iterable[PastHold], since: float) -> bool:
    """Whether the process of a hold has ended, and the store had given the lock to another one before ``since``: the hold was over by then."""
    return hold.end == "unknown" and any(
        hold.began < other.began < since
        and (other.key, other.name) == (hold.key, hold.name)
        and hold.weight + other.weight > min(hold.capacity, other.capacity)
        for other in holds
    )


def _fits(line: Mapping[str, object]) -> bool:
    """Whether a line has what every line has, so that nothing below fails on a line that somebody wrote by hand."""
    texts = all(isinstance(line.get(key), str) for key in ("kind", "store", "scope", "namespace", "host"))
    times = [line.get(key) for key in ("at", "boottime", "duration", "until", "started")]
    sane = all(isinstance(each, (int, float)) and 0 <= each < _LATEST for each in times if each is not None)
    return texts and sane and times[0] is not None and isinstance(line.get("pid"), int)


def _number(line: Mapping[str, object], key: str) -> float:
    value = line.get(key)
    return float(value) if isinstance(value, (int, float)) else 0.0


def _whole(line: Mapping[str, object], key: str, default: int) -> int:
    value = line.get(key)
    return value if isinstance(value, int) else default


def _data(line: Mapping[str, object]) -> Mapping[str, object]:
    data = line.get("data")
    return data if isinstance(data, dict) else NOTHING


def _short(owner: str) -> str:
    """An owner in words, without the name of the program, which may change."""
    return owner.partition(" (")[0]


def _owner(line: Mapping[str, object]) -> Owner:
    task = line.get("task")
    return Owner(
        user=str(line.get("user", "")),
        host=str(line["host"]),
        pid=_whole(line, "pid", 0),
        boot_id=str(line.get("boot", "")),
        started=_number(line, "started"),
        program=str(line.get("program", "")),
        task=None if task is None else str(task),
    )


def _key(line: Mapping[str, object]) -> StoreKey:
    owner = _owner(line)
    within = {
        "process": f"{owner.host} pid {owner.pid} {owner.boot_id} {owner.started}",
        "user": f"{owner.user}@{owner.host}",
        "host": owner.host,
    }
    scope: Scope | str = str(line["scope"])
    store = str(line["store"])
    if scope not in within and _LOOPBACK.match(store):
        scope = "host"  # each host has a store of its own at this URL
    return StoreKey(store, str(line["namespace"]), within.get(scope, ""))


def _hold(line: Mapping[str, object]) -> PastHold:
    lock = str(line.get("lock", "mutex"))
    kind: Kind = lock if lock in ("mutex", "semaphore", "read", "write") else "mutex"  # type: ignore[assignment]
    return PastHold(
        key=_key(line),
        name=str(line.get("name", "")),
        claim_id=str(line.get("claim", "")),
        fence=_whole(line, "fence", 0),
        owner=_owner(line),
        began=_number(line, "at"),
        waited=_number(line, "duration"),
        kind=kind,
        weight=_whole(line, "weight", 1),
        capacity=_whole(line, "capacity", 1),
        began_boottime=_number(line, "boottime"),
    )


def _ended(hold: PastHold, line: Mapping[str, object]) -> PastHold:
    """The hold, with an end that a line tells. Of several ends the first counts, and the earliest end of certainty."""
    told = line.get("until")
    until = float(told) if isinstance(told, (int, float)) else None
    known = [each for each in (hold.until_boottime, until) if each is not None]
    certain = min(known) if known else None
    if hold.end:
        return hold._replace(until_boottime=certain)
    ended = _number(line, "at") if until is None else hold.began + until - hold.began_boottime
    reason = str(line.get("reason", ""))
    return hold._replace(
        until_boottime=certain, ended=max(ended, hold.began), end=str(line["kind"]), reason=reason
    )


def _resize(line: Mapping[str, object]) -> tuple[PastResize, ...]:
    """A change of capacity; nothing if there was no claim to change."""
    capacity, claims = _data(line).get("capacity"), _data(line).get("claims")
    if not isinstance(capacity, int) or not isinstance(claims, int) or claims < 1:
        return ()
    took = _number(line, "duration")
    began = _number(line, "at") - took, _number(line, "boottime") - took
    return (PastResize(capacity, *began, _owner(line).boot_id),)


def _wait(line: Mapping[str, object]) -> PastWait:
    holder = _data(line).get("holder")
    return PastWait(
        _key(line),
        str(line.get("name", "")),
        _owner(line),
        str(line["kind"]),
        _number(line, "at"),
        _number(line, "duration"),
        "" if holder is None else str(holder),
    )


def _happening(line: Mapping[str, object]) -> Happening:
    data = _data(line)
    told = [
        line.get("message"),
        line.get("reason"),
        data.get("plugin"),
        data.get("outcome"),
        data.get("error"),
    ]
    return Happening(
        _key(line),
        str(line.get("alert", line["kind"])),
        _number(line, "at"),
        str(line.get("name", "")),
        str(line.get("claim", "")),
        _owner(line),
        str(line.get("priority", "")),
        " ".join(str(each) for each in told if each),
        data,
    )
