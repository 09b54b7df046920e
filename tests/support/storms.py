"""Storms: processes that take locks, one after the other, while their store is disturbed; and a witness that knows nothing of lockkit.

Each process writes down between which two moments it was sure to hold: from after its grant until it last saw that its lease is valid.
Two such holds of one lock must never meet, and the later one has the higher fence.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

__all__ = ["Held", "Storm", "wrong"]

TESTS = str(Path(__file__).parent.parent)
NAMES = 8
LONG = 0.005
"""The share of holds that go on until the lease is lost, or for four ttls: somebody else may be granted the lock meanwhile."""


class Held(NamedTuple):
    """One hold, in seconds of CLOCK_BOOTTIME."""

    name: str
    began: float
    ended: float
    fence: int
    who: int


def wrong(holds: Sequence[Held]) -> list[tuple[Held, Held]]:
    """The pairs of holds of one lock that meet, or whose fences do not rise."""
    found = []
    last: dict[str, Held] = {}
    for hold in sorted(holds, key=lambda each: each.began):
        before = last.get(hold.name)
        if before is not None and (hold.began <= before.ended or hold.fence <= before.fence):
            found.append((before, hold))
        if before is None or hold.ended >= before.ended:
            last[hold.name] = hold
    return found


class Storm:
    """Processes that take locks until the end of the ``with`` statement.

    Args:
        urls: The URL of each process.
        ttl: Seconds.
        seed: What each process takes, and for how long, follows from it.
        folder: For what they write down.
    """

    def __init__(self, urls: Sequence[str], ttl: float, seed: int, folder: Path) -> None:
        self._logs = [folder / f"{number}.holds" for number in range(len(urls))]
        for log in self._logs:
            log.touch()
        path = os.pathsep.join([TESTS, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._processes = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-W",
                    "ignore",
                    "-m",
                    "support.storms",
                    url,
                    str(ttl),
                    str(seed + number),
                    log,
                ],
                env={**os.environ, "PYTHONPATH": path},
                stderr=subprocess.DEVNULL,  # what is lost and cannot be reached is what a storm is about
            )
            for number, (url, log) in enumerate(zip(urls, self._logs, strict=True))
        ]

    @property
    def grants(self) -> int:
        """How many holds have been written down so far."""
        return sum(log.read_bytes().count(b"\n") for log in self._logs)

    def holds(self) -> list[Held]:
        """The holds that were written down."""
        found = []
        for who, log in enumerate(self._logs):
            for line in log.read_text().splitlines():
                name, began, ended, fence = line.split()
                found.append(Held(name, float(began), float(ended), int(fence), who))
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        died = [process.pid for process in self._processes if process.poll() is not None]
        for process in self._processes:
            process.kill()
            process.wait()
        assert not died or kind, f"processes of the storm have ended: {died}"


def main() -> None:
    """Take locks, one after the other, until killed."""
    import lockkit
    from lockkit.errors import LockkitError

    url, ttl, seed, log = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    os.nice(5)  # the servers must keep their own time
    chance = random.Random(seed)
    client = lockkit.connect(url)  # the servers are well when a storm begins
    with log.open("a", buffering=1) as written:
        while True:
            name = f"storm-{chance.randrange(NAMES)}"
            lasting = 4.0 * ttl if chance.random() < LONG else chance.choice((0.0, 0.002, 0.02))
            try:
                lease = client.lock(name, ttl=ttl).acquire(timeout=5.0)
            except LockkitError:
                continue
            began, ended = _now(), None
            while (at := _now()) and lease.valid():  # looked at the clock first: it was valid then, too
                ended = at
                if at >= began + lasting:
                    break
                time.sleep(0.001)
            if ended is not None:
                written.write(f"{name} {began!r} {ended!r} {lease.fence}\n")
            with contextlib.suppress(LockkitError):
                lease.release()


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


if __name__ == "__main__":
    main()
