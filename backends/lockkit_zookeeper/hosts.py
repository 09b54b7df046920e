"""How long each of several hosts may take before another is tried, and which of them did not answer lately.

kazoo gives each host a share of the session's timeout, which is longer than anybody waits for a store to open: one silent
member of an ensemble would stop a client that happens to ask it first. Here a host has a moment, and a longer one each time
that all of them have been asked in vain.
"""

from __future__ import annotations

import time

__all__ = ["SILENT", "patience"]

_ROUND, _LEAST, _MOST = 1.5, 0.3, 1.0
"""Seconds in which all hosts shall have been asked once, and what each of them has at least and at most in that round."""
_LATELY = 30.0
"""Seconds for which a host that did not answer is asked last."""


def patience(hosts: int, rounds: int, timeout: float) -> float:
    """Seconds that a host may take to answer.

    Args:
        hosts: How many there are.
        rounds: How often all of them have been asked in vain; it doubles each time, up to a third of the timeout.
        timeout: Seconds; the session's. The only host has all of it.
    """
    if hosts < 2:
        return timeout
    first = min(max(_ROUND / hosts, _LEAST), _MOST)
    return float(min(first * 2 ** min(rounds, 16), max(timeout / 3.0, _LEAST)))


class SilentHosts:
    """The hosts that did not answer, on the monotonic clock."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, int], float] = {}

    def add(self, place: tuple[str, int]) -> None:
        """Note that a host did not answer just now."""
        self._since[place] = time.monotonic()

    def discard(self, place: tuple[str, int]) -> None:
        """Note that a host has answered."""
        self._since.pop(place, None)

    def lately(self, place: tuple[str, int]) -> bool:
        """Tell whether a host did not answer lately."""
        since = self._since.get(place)
        return since is not None and time.monotonic() - since < _LATELY


SILENT = SilentHosts()
"""The silent hosts that any session of this process has met."""
