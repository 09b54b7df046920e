"""One process of a storm: takes locks, one after the other, until the storm is over."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import lockkit
from lockkit.errors import AcquireCancelled, LockkitError
from support.storms.witness import Held, Witness

__all__ = ["NAMES"]

NAMES = {"forks": 2, "signals": 2, "late": 24, "leaders": 12}
"""How many locks there are: few, so that many wait; or more, where a lost one delays waiters for a ttl."""
BESIDE = {"forks": 1, "signals": 1, "late": 5, "leaders": 3}
"""Threads of a process beside its main thread."""
LONG = {"late": (0.03, 8.0), "leaders": (0.01, 4.0)}
"""The share of holds that last until the loss of the lease, or for up to so many ttls."""


class Hit(BaseException):
    """Raised by the handler of a signal."""


class Worker:
    """The work of one process.

    Args:
        storm: What strikes.
        seed: What is taken, and for how long, follows from it; what strikes when does only in part.
    """

    def __init__(self, storm: str, url: str, ttl: float, seed: int, witness: Witness) -> None:
        self._storm = storm
        self._url = url
        self._ttl = ttl
        self._chance = random.Random(seed)
        self._witness = witness
        self._rough = storm in {"late", "leaders"}  # the store may be out of reach
        self._client = self._connect()
        self._stranger = self._connect()  # who has the handles of others
        self._inside: dict[int, lockkit.Lease] = {}

    def run(self) -> None:
        """Take locks until the storm is over; nothing is left held then, if the store was always in reach."""
        if not self._rough:
            self._lock(0).acquire().release()  # a fork or a signal in the middle of imports is another matter
        beside: Callable[[random.Random], None] = self._fork if self._storm == "forks" else self._calm
        chances = [random.Random(self._chance.getrandbits(32)) for _ in range(BESIDE[self._storm])]
        threads = [threading.Thread(target=beside, args=(each,), daemon=True) for each in chances]
        for thread in threads:
            thread.start()
        if self._storm == "signals":
            self._struck()
        else:
            self._calm(self._chance, closing=self._storm == "forks")
        for thread in threads:
            thread.join()
        if not self._rough:
            for number in range(NAMES[self._storm]):
                self._lock(number).acquire().release()
        self._client.close()
        self._stranger.close()

    def _connect(self) -> lockkit.Client:
        return lockkit.connect(self._url, request_timeout=1.0 if self._rough else 10.0)

    def _lock(self, number: int) -> lockkit.Lock:
        # Less than the ttl where that may be so long: a lock that is not free by then was left held.
        timeout = 5.0 if self._rough else 50.0
        return self._client.lock(f"storm-{number}", ttl=self._ttl, timeout=timeout)

    def _calm(self, chance: random.Random, *, closing: bool = False) -> None:
        """Hold one lock after the other, in a thread that nothing strikes by itself."""
        while not self._witness.over:
            if closing and chance.random() < 0.02:
                self._client.close()
                self._client = self._connect()
            with contextlib.suppress(LockkitError) if self._rough else contextlib.nullcontext():
                self._hold(chance)

    def _hold(self, chance: random.Random) -> None:
        lock = self._lock(chance.randrange(NAMES[self._storm]))
        with lock:
            lease = lock.lease
            self._inside[threading.get_ident()] = (
                lease  # no signal strikes here: the witness must not be torn
            )
            try:
                self._stay(lease, chance)
            finally:
                del self._inside[threading.get_ident()]

    def _stay(self, lease: lockkit.Lease, chance: random.Random) -> None:
        """Hold, and write down until when the lease was valid."""
        began, ended, lasting = self._witness.now(), None, chance.choice((0.0, 0.0, 0.002))
        if self._rough:
            share, ttls = LONG[self._storm]
            lasting = chance.choice((0.0, 0.002, 0.02))
            if chance.random() < share:
                lasting = self._ttl * chance.uniform(1.0, ttls)
        while (
            at := self._witness.now()
        ) and lease.valid():  # looked at the clock first: it was valid then, too
            ended = at
            if at >= began + lasting or (self._rough and self._witness.over):
                break
            if self._rough:
                self._ask(lease, chance)
            time.sleep(0.001)
        if ended is not None:
            self._witness.held(Held(lease.name, began, ended, lease.fence, os.getpid()))
        if self._rough and chance.random() < 0.1:
            self._stranger.adopt(lease.handle()).release()  # the body is over: a copy may end the hold

    def _ask(self, lease: lockkit.Lease, chance: random.Random) -> None:
        """Send the store a request of some kind about the claim, or none."""
        with contextlib.suppress(LockkitError):
            match chance.randrange(20):
                case 0:
                    lease.confirm()
                case 1:
                    lease.extend(self._ttl)
                case 2:
                    self._stranger.adopt(lease.handle()).extend(self._ttl * chance.uniform(1.0, 2.0))
                case 3:
                    self._stranger.annotate(lease.name, lease.claim_id, {"at": time.time()})

    # -- forks

    def _fork(self, chance: random.Random) -> None:
        while not self._witness.over:
            seed = chance.getrandbits(32)
            pid = os.fork()
            if not pid:
                self._as_child(random.Random(seed))
            self._witness.strike()
            if os.waitpid(pid, 0)[1]:
                self._witness.trouble(f"child {pid} failed")
            time.sleep(chance.uniform(0.0, 0.02))

    def _as_child(self, chance: random.Random) -> None:
        code = 1
        try:
            if any(lease.valid() for lease in self._inside.values()):
                self._witness.trouble("a lease of the parent is valid in its child")
            if chance.random() < 0.3:
                self._hold(chance)
                if chance.random() < 0.5:
                    self._client.close()
            code = 0
        except AcquireCancelled:  # the parent had closed the client
            code = 0
        except BaseException:
            self._witness.trouble(traceback.format_exc())
        finally:
            os._exit(code)

    # -- signals

    def _struck(self) -> None:
        """Hold one lock after the other, while a signal handler raises, once in a few holds, anywhere."""
        main, reach = threading.get_ident(), 0.001

        def hit(_number: int, _frame: FrameType | None) -> None:
            if main in self._inside:
                signal.setitimer(signal.ITIMER_REAL, self._chance.uniform(5e-6, reach))  # a little later
            else:
                self._witness.strike()
                raise Hit

        signal.signal(signal.SIGALRM, hit)
        while not self._witness.over:
            try:
                try:
                    signal.setitimer(signal.ITIMER_REAL, self._chance.uniform(5e-6, reach))
                    for _ in range(20):
                        self._hold(self._chance)
                        reach *= 0.95  # so there are about half as many strikes as holds, on whichever store
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0.0)
            except Hit:
                reach *= 1.1
        signal.signal(signal.SIGALRM, signal.SIG_IGN)


def main() -> None:
    """Take part in a storm: its kind, URL, ttl, seed, and the folder of its witness."""
    storm, url, ttl, seed, folder = sys.argv[1:]
    os.nice(5)  # the servers must keep their own time
    logging.disable(logging.CRITICAL)
    witness = Witness(Path(folder))

    def unraisable(what: sys.UnraisableHookArgs) -> None:
        if "lease" in str(what.object).lower():
            witness.trouble(f"{what.exc_value!r} in {what.object}")

    sys.unraisablehook = unraisable
    try:
        Worker(storm, url, float(ttl), int(seed), witness).run()
    except BaseException:
        witness.trouble(traceback.format_exc())
        raise


if __name__ == "__main__":
    main()
