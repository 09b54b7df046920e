"""How long each of several hosts may take before the next is tried, and which hosts were silent lately.

kazoo gives each host a share of the session's timeout, longer than opening a store may take: a client that
tried a silent member first would fail. Here each host gets a moment, and twice as long after each vain round.
"""

from __future__ import annotations

import time

__all__ = ["is_silent", "mark", "patience"]

_ROUND, _LEAST, _MOST = 1.5, 0.3, 1.0
"""Seconds for the first round through all hosts, and each host's least and most in that round."""
_LATELY = 30.0
"""Seconds for which a host that did not answer is tried last."""


def patience(hosts: int, rounds: int, timeout: float) -> float:
    """Seconds that a host may take to answer.

    Args:
        hosts: How many there are.
        rounds: How often no host has answered; the time doubles each time, up to a third of the timeout.
        timeout: Seconds; the session's. A single host gets a third of it: one that is just starting may
            accept a connection and never read from it, and the session is to outlast that.
    """
    if hosts < 2:
        return max(timeout / 3.0, _MOST)
    first = min(max(_ROUND / hosts, _LEAST), _MOST)
    return float(min(first * 2 ** min(rounds, 16), max(timeout / 3.0, _LEAST)))


_since: dict[tuple[str, int], float] = {}
"""The hosts that did not answer any session of this process, and since when, on the monotonic clock."""


def mark(host: tuple[str, int], *, silent: bool) -> None:
    """Note that a host did not answer, or that it did."""
    if silent:
        _since[host] = time.monotonic()
    else:
        _since.pop(host, None)


def is_silent(host: tuple[str, int]) -> bool:
    """True if a host did not answer lately."""
    return time.monotonic() - _since.get(host, float("-inf")) < _LATELY
