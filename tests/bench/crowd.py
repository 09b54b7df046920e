"""Many waiters of one process, each a client of its own: ``python -m bench.crowd crowd URL FOLDER COUNT``."""

from __future__ import annotations

import os
import sys
import threading
import time

from lockkit.testing.bench.client import connected
from lockkit.testing.bench.workers import quiet, say

__all__ = ["crowd"]


def crowd(url: str, folder: str, count: str) -> None:
    """Keep one holder and ``count`` waiters on one name, each with a client of its own; for each line, answer the hand-offs."""
    grants = [0] * (int(count) + 1)

    def take_turns(at: int) -> None:
        with connected(url, folder) as client:
            lock = client.lock("crowd")
            while True:
                lock.acquire().release()
                grants[at] += 1

    for at in range(len(grants)):
        threading.Thread(target=take_turns, args=(at,), daemon=True).start()
    while not all(grants):
        time.sleep(0.05)
    say("ready")
    for _ in sys.stdin:
        say(sum(grants))
    os._exit(0)


if __name__ == "__main__":
    with quiet():
        crowd(*sys.argv[2:])
