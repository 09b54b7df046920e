"""Gaps in event journals: missing rows, unclosed journals, and holders that others met but no journal has."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Container, Iterable

from msgspec import Struct

from lockkit.facts import Owner
from lockkit.observe.journal_rows import Row, short_of
from lockkit.observe.past import PastHold, StoreKey
from lockkit.values.identity import boot_id, process_start

__all__ = ["LONGEST_HOLD", "Meetings", "Writer", "absent_rows", "unended"]

LONGEST_HOLD = 86_400.0
"""Seconds before the requested time from which a hold with a removed start still counts."""


class Writer(Struct, gc=False):
    """One client in one process, with the rows of it that were read. Small: a few rows may have one.

    Attributes:
        place: The store, its scope and the namespace, as the rows have them.
        held: The holds of the store and namespace by their claims, those of other writers too.
        last: The time of the last row.
        bounds: Starts and ends of the runs of numbers read, alternating: 1 to 3 and 7 are ``[1, 4, 7, 8]``.
        before: The time of the first row, if rows are missing before it; None if not, or if that row says so.
        closed: CLOCK_BOOTTIME of the row that says that the client was closed.
    """

    owner: Owner
    key: StoreKey
    place: tuple[str, str, str]
    held: dict[str, PastHold]
    last: float
    bounds: list[int]
    before: float | None = None
    closed: float | None = None

    def wrote(self, row: Row) -> bool:
        """Whether a row is of the same process, store and namespace as the rows before it."""
        about = (row.user, row.host, row.pid, row.boot, row.started, row.program, None, row.task)
        return self.owner[:8] == about and self.place == (row.store, row.scope, row.namespace)

    def is_new(self, number: int) -> bool:
        """Whether a row has not been read before; remembers its number."""
        bounds = self.bounds
        at = bisect_right(bounds, number)
        if at % 2:
            return False
        # A number that comes right after a run, or right before one, moves the bound.
        after, before = at > 0 and bounds[at - 1] == number, at < len(bounds) and bounds[at] == number + 1
        bounds[at - after : at + before] = [number] * (not after) + [number + 1] * (not before)
        return True

    def take(self, row: Row, since: float | None) -> None:
        """Remember the times of a new row."""
        self.last = max(self.last, row.at)
        if row.n == self.bounds[0]:
            told = row.kind == "missed" and (since is None or row.at >= since)
            self.before = row.at if row.n > 1 and not told else None
        if row.kind == "closed":
            self.closed = row.boottime

    def is_complete(self) -> bool:
        """Whether all rows were read, from the first one to the one that says that the client was closed."""
        return self.closed is not None and len(self.bounds) == 2 and self.bounds[0] <= 1


def absent_rows(writers: Iterable[Writer], since: float | None) -> int:
    """Rows that are missing before the last one of their writer, unless it wrote nothing since.

    Rows before the first present one do not count if that is at least LONGEST_HOLD older than ``since``.
    """
    found = 0
    for each in writers:
        if since is None or each.last >= since:
            bounds = each.bounds
            found += sum(bounds[2::2]) - sum(bounds[1:-1:2])
            if each.before is not None and (since is None or each.before > since - LONGEST_HOLD):
                found += bounds[0] - 1
    return found


def unended(writers: Iterable[Writer]) -> dict[Owner, float]:
    """Processes that left their journal unclosed and are not seen to run, with the time of their last row."""
    found: dict[Owner, float] = {}
    for each in writers:
        owner = each.owner
        if each.closed is None and (owner.boot_id != boot_id() or process_start(owner.pid) != owner.started):
            found[owner] = max(found.get(owner, 0.0), each.last)
    return found


class Meetings:
    """Holders that others had to wait for."""

    def __init__(self) -> None:
        self._met: dict[str, None] = {}
        self._claims: dict[str, str] = {}

    def take(self, row: Row, held: Container[str], *, waited: bool) -> None:
        """Remember the holder that a row names.

        Args:
            row: The row.
            held: The claims of its store that are known to have been granted.
            waited: Whether a row of this kind proves that there was a holder, even one of an unknown claim.
        """
        holder, claim = row.data.get("holder"), row.data.get("holder_claim")
        if holder and waited:
            self._met[short_of(str(holder))] = None
        if isinstance(claim, str) and claim not in held:
            self._claims[claim] = short_of(str(row.data.get("holder", "")))

    def unheard(self, owners: Iterable[Owner], held: Collection[Container[str]]) -> tuple[str, ...]:
        """The holders of which no journal has a row, or none that says that this claim was granted.

        Args:
            owners: All processes that wrote rows.
            held: The claims of all stores that are known to have been granted.
        """
        asked = {*self._met, *self._claims.values()}
        heard = {short for owner in owners if (short := short_of(str(owner))) in asked}
        silent = {
            f"{holder} (claim {claim})"
            for claim, holder in self._claims.items()
            if holder in heard and not any(claim in each for each in held)
        }
        return tuple(sorted({each for each in self._met if each not in heard} | silent))
