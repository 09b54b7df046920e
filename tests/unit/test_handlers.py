"""A signal handler that locks what it interrupted, on the memory store, which both share."""

from __future__ import annotations

import lockkit
from support.handlers import Handler


def test_looking_at_a_name_bears_a_handler_that_locks_it(tmp_path):
    with lockkit.connect("memory://handlers", state_dir=str(tmp_path)) as client:
        lock = client.semaphore("a", 3)
        kept = []
        with lock:
            client.inspect("a")  # the first look passes more places, where it makes the constructors of facts
            count = Handler(0, list)
            with count:
                client.inspect("a")
            for at in range(1, count.seen + 1):
                with Handler(at, lambda: kept.append(lock.acquire(timeout=0))):
                    info = client.inspect("a")
                assert 1 <= len(info.claims) <= 2
                kept.pop().release()
