"""One time limit for the requests of several releases, one after the other.

Otherwise each would wait once for a store that does not answer.
"""

from __future__ import annotations

from lockkit.facts import ReleaseReport

__all__ = ["Sharing"]

_LEAST = 0.05
"""Seconds below which no request is worth sending; the background then removes the claim."""


class Sharing:
    """The seconds that are left for the requests of several releases.

    Each release may use half of the rest, and the last one all of it, so that one server of several that does
    not answer leaves time for the others. A definite answer costs nothing, however long it took.

    Args:
        seconds: Seconds for all requests that get no answer.
        count: How many releases there are.
    """

    def __init__(self, seconds: float, count: int) -> None:
        self._left = seconds
        self._count = count

    def next(self) -> float:
        """Seconds for the requests of the next release; 0 to send none."""
        self._count -= 1
        share = self._left / 2.0 if self._count > 0 else self._left
        return share if share >= _LEAST else 0.0

    def took(self, report: ReleaseReport) -> None:
        """Note how a release went."""
        if report.outcome == "ABANDONED":
            spent = sum(layer.duration for layer in report.layers if layer.layer != "cleanup")
            self._left = max(0.0, self._left - spent)
