"""Parts that the mutants of several gates share."""

from __future__ import annotations

from typing import Any

from lockkit.guard.record import Record, Verdict, judged

__all__ = ["Blind", "never_stale", "takes_late_requests", "wants_a_higher_fence"]


def never_stale(stored: Record | None, asked: Record) -> Verdict:  # noqa: ARG001
    """The rule without its comparison."""
    return "APPLY"


def wants_a_higher_fence(stored: Record | None, asked: Record) -> Verdict:
    """The rule with ``<`` in place of ``<=``: a lease that opens for the second time is refused."""
    again = stored is not None and not asked.step and stored.fence == asked.fence
    return "STALE" if again else judged(stored, asked)


def takes_late_requests(stored: Record | None, asked: Record) -> Verdict:
    """The rule without its comparison of the steps."""
    same = stored is not None and stored[:2] == asked[:2]
    return "APPLY" if same else judged(stored, asked)


class Blind:
    """A resource that answers each look with the record of its last step: the look does not compare."""

    asked: Record | None = None

    def swap(self, found: Any, record: Record, value: bytes | None, end: float) -> Any:
        """Keep the record, and go on."""
        self.asked = record
        return super().swap(found, record, value, end)  # type: ignore[misc]

    def look(self, end: float) -> tuple[Record | None, bytes | None]:
        """The kept record, and the value."""
        return self.asked, super().look(end)[1]  # type: ignore[misc]
