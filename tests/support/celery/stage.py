"""The meeting point of a test and its tasks: Redis lists, which outlive every process that writes to them.

A task reports its steps with :meth:`Stage.tell`, and waits with :meth:`Stage.wait_for_word` until the test
lets it go on. A test waits for events instead of sleeping, and reads their order afterwards.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

import redis

from lockkit.values.history import Period
from lockkit.values.identity import process_start

__all__ = ["PATIENCE", "Stage", "period"]

PATIENCE = 40.0
"""Seconds that a busy machine may take for anything that a test waits for."""
_EVENTS = "stage:events"


class Stage:
    """The events and the words of one test.

    Args:
        url: The URL of a Redis database that nobody else uses.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._redis: Any = redis.Redis.from_url(url, decode_responses=True)

    # -- for tasks

    def tell(self, kind: str, task: str = "", **about: object) -> None:
        """Add an event. Its process is named by pid and start time, and ``at`` is CLOCK_BOOTTIME."""
        now = time.clock_gettime(time.CLOCK_BOOTTIME)
        event = {
            "kind": kind,
            "task": task,
            "pid": os.getpid(),
            "started": process_start(os.getpid()),
            "at": now,
            **about,
        }
        self._redis.rpush(_EVENTS, json.dumps(event))

    def wait_for_word(self, task: str, patience: float = PATIENCE) -> str:
        """Wait until the test says how the task goes on; ``late`` if it does not say so in time."""
        end = time.monotonic() + patience
        # Short waits: a handler then runs soon, whatever the client does about interrupted system calls.
        while time.monotonic() < end:
            found = self._redis.blpop([f"stage:word:{task}"], timeout=0.2)
            if found is not None:
                return str(found[1])
        return "late"

    # -- for tests

    def say(self, task: str, word: str = "go") -> None:
        """Tell a task how to go on."""
        self._redis.rpush(f"stage:word:{task}", word)

    def events(self, kind: str | None = None, task: str | None = None) -> list[dict[str, Any]]:
        """The events so far, in order, of this kind and task where they are given."""
        found = [json.loads(line) for line in self._redis.lrange(_EVENTS, 0, -1)]
        return [one for one in found if kind in (None, one["kind"]) and task in (None, one["task"])]

    def wait(
        self, kind: str, task: str | None = None, *, count: int = 1, patience: float = PATIENCE
    ) -> list[dict[str, Any]]:
        """Wait for as many events of this kind.

        Raises:
            AssertionError: The events have not come in time; names those that have.
        """
        end = time.monotonic() + patience
        while time.monotonic() < end:
            found = self.events(kind, task)
            if len(found) >= count:
                return found
            time.sleep(0.02)
        raise AssertionError(f"no {kind!r} of {task or 'any task'} in {patience} s, but {self.events()}")

    def clear(self) -> None:
        """Forget everything."""
        self._redis.flushdb()

    def close(self) -> None:
        """Close the connection."""
        self._redis.close()


def period(told: dict[str, Any]) -> Period:
    """The certain period in which a run held its lock, from what it told."""
    return Period(told["began"], told["ended"], told["fence"], told["task"])
