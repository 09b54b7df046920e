"""Pictures of the past for a terminal: bars that show when a lock was held, and how long something took."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lockkit.lib.printable import printable
from lockkit.values import durations

if TYPE_CHECKING:
    from lockkit.observe.past import Happening, PastHold, PastWait, StoreKey

__all__ = ["bar", "clock", "rows", "span"]

_FULL, _PART, _EMPTY = "█", "▏", "·"
_PLAIN = {_FULL: "#", _PART: "|", _EMPTY: "."}


def bar(began: float, ended: float, first: float, last: float, width: int) -> str:
    """A bar that shows a period within a longer one: ``···███·····``. Even the shortest period is seen."""
    scale = width / max(last - first, 1e-9)
    left = min(int((began - first) * scale), width - 1)
    right = min(max(round((ended - first) * scale), left), width)
    body = _FULL * (right - left) or _PART
    return _drawn(_EMPTY * left + body + _EMPTY * (width - left - len(body)))


def span(value: float, most: float, width: int) -> str:
    """A bar as long as a value is, beside others of which the longest fills the width."""
    return _drawn(_FULL * round(width * value / most) if most > 0 else "")


def _drawn(text: str) -> str:
    """The text in characters that standard output can write."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return "".join(_PLAIN.get(char, char) for char in text)
    return text


def clock(at: float, now: float) -> str:
    """A time of day in 8 columns, in this time zone; the day, too, if it is not today."""
    then, today = time.localtime(at), time.localtime(now)
    return time.strftime("%H:%M:%S" if then[:3] == today[:3] else "%d %H:%M", then)


def rows(
    lock: tuple[StoreKey, str],
    holds: Sequence[PastHold],
    waits: Sequence[PastWait],
    happenings: Sequence[Happening],
    width: int,
    ends: Mapping[str, str],
) -> list[str]:
    """The timeline of one lock: a row for each hold, failed wait and happening, in the order of time."""
    now = time.time()
    times = (
        [one.began for one in holds]
        + [one.ended - one.waited for one in waits]
        + [one.at for one in happenings]
    )
    lasts = [_end(one, now) for one in holds] + [one.ended for one in waits] + [one.at for one in happenings]
    first, last = min(times), max(lasts)
    columns = max(16, (width - 34) * 2 // 5)
    rest = width - 34 - columns
    found: list[tuple[float, str]] = []
    for one in holds:
        picture = bar(one.began, _end(one, now), first, last, columns)
        how = "" if one.end == "released" else f", {ends.get(one.end, one.end)}"
        who = f"{one.owner.user}@{one.owner.host} {one.owner.pid}{how}"
        held = "?" if one.ended is None and one.end else durations.show(_end(one, now) - one.began)
        row = (
            f"{clock(one.began, now):<8}  {held:>9} {durations.show(one.waited):>9}  "
            f"{picture}  {_cut(who, rest)}"
        )
        found.append((one.began, row))
    for wait in waits:
        began = wait.ended - wait.waited
        picture = bar(began, wait.ended, first, last, columns).replace(_FULL, "-").replace("#", "-")
        who = f"{wait.owner.user}@{wait.owner.host} {wait.owner.pid}, {wait.outcome}"
        row = (
            f"{clock(began, now):<8}  {'-':>9} {durations.show(wait.waited):>9}  {picture}  {_cut(who, rest)}"
        )
        found.append((began, row))
    for happening in happenings:
        told = f"{happening.priority} {happening.kind.replace('_', ' ')}: {happening.text}".strip().rstrip(
            ":"
        )
        found.append((happening.at, f"{clock(happening.at, now):<8}  ! {_cut(told, width - 12)}"))
    key, name = lock
    head = f"{name}  ({key.namespace} on {key.store})"
    titles = f"{'began':<8}  {'held':>9} {'waited':>9}  {_scale(first, last, now, columns)}  holder"
    return [_cut(head, width), _cut(titles, width), *(row for _, row in sorted(found))]


def _scale(first: float, last: float, now: float, width: int) -> str:
    left, right = clock(first, now), clock(last, now)
    return f"{left}{right:>{max(width - len(left), len(right))}}"[:width]


def _end(hold: PastHold, now: float) -> float:
    if hold.ended is not None:
        return hold.ended
    return hold.began if hold.end else max(now, hold.began)


def _cut(text: str, width: int) -> str:
    plain = printable(text)
    return (
        plain if len(plain) <= width else f"{plain[: max(width - 1, 0)]}{'…' if _drawn('…') == '…' else '.'}"
    )
