"""How long each of several hosts may take before the next is tried, and which hosts were silent lately.

kazoo gives each host a share of the session's timeout. That is longer than opening a store may take, so a client that happened to try a
silent member of an ensemble first would fail. Here each host gets a moment, and twice as long each time that no host has answered.
"""

from __future__ import annotations

import time

__all__ = ["SILENT", "patience"]

_ROUND, _LEAST, _MOST = 1.5, 0.3, 1.0
"""Seconds for the first round through all hosts, and the least and the most that each of them gets in that round."""
_LATELY = 30.0
"""Seconds for which a host that did not answer is tried last."""


def patience(hosts: int, rounds: int, timeout: float) -> float:
    """Seconds that a host may take to answer.

    Args:
        hosts: How many there are.
        rounds: How often no host has answered; the time doubles each time, up to a third of the timeout.
        timeout: Seconds; the session's. A single host gets all of it.
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
