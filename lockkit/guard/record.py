"""The record of a guarded resource, the fence of its last opening, and the rule that a write must pass.

The record is beside the value, and changes in the same atomic step. The Lua script of the Redis gate has the
same rule; a property test compares the two.
"""

from __future__ import annotations

import os
import re
from typing import Literal, NamedTuple, TypeAlias

__all__ = ["LONGEST", "SUFFIX", "Record", "Verdict", "judged", "opened_by"]

SUFFIX = ".lockkit-fence"
"""The end of the name of a record that has a separate key, node or file."""

LONGEST = 2**63 - 1
"""The highest fence."""

_TEXT = re.compile(r"([0-9]{20})\.([0-9a-f]{16})\.([0-9]{20})")

Verdict: TypeAlias = Literal["APPLY", "DONE", "STALE"]


class Record(NamedTuple):
    """One step of one holder. The stored record is the last step that took effect.

    Attributes:
        fence: The fence of the lease.
        opening: 16 random hex digits, fresh for each ``gate.open``.
        step: 0 for the opening itself; 1, 2, ... for the writes that follow it.
    """

    fence: int
    opening: str
    step: int = 0

    def __str__(self) -> str:
        return f"{self.fence:020d}.{self.opening}.{self.step:020d}"

    @classmethod
    def of(cls, text: str) -> Record:
        """Read a stored record.

        Raises:
            ValueError: The text is no record.
        """
        found = _TEXT.fullmatch(text)
        if found is None:
            raise ValueError(f"not a record of a fence: {text[:80]!r}")
        return cls(int(found[1]), found[2], int(found[3]))


def opened_by(fence: int) -> Record:
    """A new opening under a fence."""
    return Record(fence, os.urandom(8).hex())


def judged(stored: Record | None, asked: Record) -> Verdict:
    """Decide whether a step may take effect.

    An opening may replace any record whose fence is not higher. A write needs the record of its own opening,
    so a newer holder stops it by opening the resource, before any write. So does a record that was removed or
    restored from a backup.

    Returns:
        APPLY: The step takes effect now.
        DONE: This step, or a later one of the opening, has taken effect; nothing is to be done. A repeated or
            late request changes nothing.
        STALE: The step must not take effect, now or later.
    """
    if stored is not None and stored.fence == asked.fence and stored.opening == asked.opening:
        return "APPLY" if stored.step < asked.step else "DONE"
    if asked.step:
        return "STALE"
    return "APPLY" if stored is None or stored.fence <= asked.fence else "STALE"
