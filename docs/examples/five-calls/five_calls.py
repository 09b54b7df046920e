"""A store of five calls: queues in the memory of one process."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence

from lockkit.facts import Capabilities, LockInfo
from lockkit.hooks import hookimpl
from lockkit.lib.clock import Clock
from lockkit.store.base import BasicBackend
from lockkit.store.rowqueue import RowQueue
from lockkit.store.spi import Answer, BackendSpec, Beat, Claim, End, OpenOptions, ReleaseAnswer, Renewal
from lockkit.store.tombstones import Tombstones

__all__ = ["CAPABILITIES", "FiveCalls", "lockkit_backends"]

CAPABILITIES = Capabilities(scope="process")


class FiveCalls(BasicBackend):
    """One store. Also the home of its queues: it has their clock, their tombstones and their fences."""

    capabilities = CAPABILITIES

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.gone = Tombstones()
        self.next_fence = itertools.count(1).__next__
        self._mutex = threading.RLock()
        self._queues: dict[str, RowQueue] = {}

    def _queue(self, name: str) -> RowQueue:
        return self._queues.setdefault(name, RowQueue(name, self))

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:
        with self._mutex:
            now = self.clock.now()
            return self._queue(claim.terms.name).acquire(claim, now, now, create=create)

    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        with self._mutex:
            now = self.clock.now()
            return [self._queue(claim.terms.name).renew(claim, fence, now, now) for claim, fence in beats]

    def release(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        with self._mutex:
            queue = self._queue(claim.terms.name)
            return queue.release(claim.token, self.clock.now(), how=how)

    def inspect(self, name: str, budget: float) -> LockInfo:
        with self._mutex:
            return self._queue(name).inspect(self.clock.now())

    def close(self) -> None:
        """Nothing to close."""


_stores: dict[str, FiveCalls] = {}


def _open(url: str, options: OpenOptions) -> FiveCalls:
    return _stores.setdefault(f"{url}#{options.namespace}", FiveCalls(options.clock))


@hookimpl
def lockkit_backends() -> list[BackendSpec]:
    """Offer ``five:``."""
    return [BackendSpec("five", ("five",), _open, "A store of five calls.", CAPABILITIES)]
