"""Judge how a holder left a card: the card after its cleanup against the card at the grant. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice
from typing import Literal

from lockkit.gpu.devices import Device
from lockkit.gpu.words import process_words
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable
from lockkit.notes.records import cut
from lockkit.values.sizes import MIB, show

__all__ = ["SLACK", "UNLISTED", "Outcome", "Receipt", "few", "is_back", "judged"]

Outcome = Literal["clean", "dirty", "unknown"]
SLACK = 64 * MIB
"""A card counts as clean if it uses at most this many bytes more than at the grant: drivers round."""
UNLISTED = "the driver does not list processes"
"""Why it is unknown whether a card is clean, whatever memory it uses."""
_FEW, _SHORT = 3, 120
"""The most texts in a list of a receipt, and the bytes of each in a record, as JSON. A record is small."""


class Receipt(NamedTuple):
    """How a holder left a card, as far as the card was asked after the cleanup.

    Attributes:
        uuid: The card.
        outcome: clean, dirty, or unknown if the card did not answer, or does not list its processes.
        leftover: The bytes that are still in use, beyond those at the grant; None if unknown.
        left_by: What still uses it, in words: at most three, of sharers in turn.
        claim_id: The claim of the holder.
        fence: The fence of that claim. It rises from one holder of a whole card to the next.
        by: The user and host of the holder; of all sharers who left memory, the last one first.
        at: When the card was asked, in seconds since the epoch; without a receipt, when it was granted.
        errors: What went wrong in the cleanup, a sentence each: at most three.
    """

    uuid: str
    outcome: Outcome
    leftover: int | None = None
    left_by: tuple[str, ...] = ()
    claim_id: str = ""
    fence: int = 0
    by: str = ""
    at: float = 0.0
    errors: tuple[str, ...] = ()

    def __str__(self) -> str:
        who = f" by {self.by}" if self.by else ""
        if self.outcome == "dirty":
            much = f" with {show(self.leftover)} in use" if self.leftover else ""
            whose = f": {'; '.join(self.left_by)}" if self.left_by else ""
            return printable(f"left dirty{who}{much}{whose}")
        return printable(f"left {'clean' if self.outcome == 'clean' else 'in an unknown state'}{who}")


def judged(
    uuid: str, before: Device | None, after: Device | None, mine: Collection[int] | None = None
) -> Receipt:
    """Judge how a card was left, without who left it.

    Without a list of processes, a whole card is dirty if more memory is in use than before, else unknown.

    Args:
        uuid: The card.
        before: The card at the grant; None if it was not asked.
        after: The card now; None if it did not answer.
        mine: For a share, the pids of the holder's processes: no others count. None for a whole card.
    """
    if after is None or after.faults:
        return Receipt(uuid, "unknown")
    if after.processes is None and (mine is not None or after.used is None):
        return Receipt(uuid, "unknown", errors=(UNLISTED,))
    seen = [one for one in after.processes or () if one not in after.ignored]
    if mine is not None:
        left = [one for one in seen if one.pid in mine]
        unsure = any(one.pid is None for one in seen)
        if not left:
            return Receipt(uuid, "unknown" if unsure else "clean", None if unsure else 0)
        return Receipt(uuid, "dirty", sum(one.memory or 0 for one in left), few(map(process_words, left)))
    if after.used is None:
        return Receipt(uuid, "unknown")
    known = set() if before is None else {*(before.processes or ())} - {*before.ignored}
    there = {one.pid for one in known if one.pid is not None}
    gone = there - {one.pid for one in seen}
    given_back = sum(one.memory or 0 for one in known if one.pid in gone)
    was = 0 if before is None else (before.used or 0) - before.ignored_bytes
    leftover = max(after.used - after.ignored_bytes - max(was - given_back, 0), 0)
    left = [one for one in seen if one.pid not in there and one not in known]
    dirty = bool(left) or leftover > SLACK
    if after.processes is None:
        return Receipt(uuid, "dirty" if dirty else "unknown", leftover, errors=(UNLISTED,))
    return Receipt(uuid, "dirty" if dirty else "clean", leftover, few(map(process_words, left)))


def is_back(report: Receipt) -> bool:
    """Whether the memory of a card is back, and no new process is shown, so nothing is left to wait for."""
    return report.leftover is not None and report.leftover <= SLACK and not report.left_by


def few(texts: Iterable[object]) -> tuple[str, ...]:
    """The first three texts, each cut to what a record has room for."""
    return tuple(cut(str(text), _SHORT) for text in islice(texts, _FEW))
