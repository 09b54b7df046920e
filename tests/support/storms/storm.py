"""A storm: processes that take locks until there were enough grants and enough strikes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from lockkit.testing.processes import until
from support.storms.stages import Stage
from support.storms.witness import Witness

__all__ = ["Storm"]

TESTS = str(Path(__file__).parents[2])
PATIENCE = 120.0
"""Seconds without which no storm goes on, or ends."""
LEAST = 2
"""Least strikes of each kind from outside in a storm that proves something; and requests served late."""
FEWEST = 0.02
"""Strikes for each grant without which a storm proves nothing, where something strikes all the time."""


class Storm:
    """Processes that take locks until the end of the ``with`` statement.

    Args:
        storm: What strikes.
        seed: What each process takes, and for how long, follows from it, and what strikes next.
        folder: For what they write down.
    """

    def __init__(self, storm: str, stage: Stage, seed: int, folder: Path) -> None:
        self._seen = Counter[str]()
        self.witness = Witness(folder)
        self._stage = stage
        self._chance = random.Random(seed)
        path = os.pathsep.join([TESTS, *filter(None, [os.environ.get("PYTHONPATH")])])
        line = [sys.executable, "-W", "ignore", "-m", "support.storms.worker", storm.partition("-")[0]]
        self._errors = folder / "errors"
        with self._errors.open("wb") as errors:
            self._processes = [
                subprocess.Popen(
                    [*line, url, str(stage.ttl), str(seed + number), str(folder)],
                    env={**os.environ, "PYTHONPATH": path, "LOCKKIT_STATE_DIR": str(folder)},
                    stderr=errors,
                )
                for number, url in enumerate(stage.urls)
            ]

    @property
    def strikes(self) -> dict[str, int]:
        """How often what has struck."""
        proxies = self._stage.proxies
        late = {"late": sum(each.late for each in proxies), "unseen": sum(each.unseen for each in proxies)}
        seen = {kind: self._seen[kind] for kind in self._stage.strikes}
        return {"inside": self.witness.strikes, **seen, **(late if proxies else {})}

    def play(self, grants: int) -> None:
        """Let the storm go on until so many holds are noted, and enough has struck; then end it."""
        bag: list[str] = []
        while not self._enough(grants):
            calm = self.witness.grants + min(self._stage.calm, grants // 10)
            until(lambda calm=calm: self.witness.grants >= calm or self._died(), "it goes on", PATIENCE)  # type: ignore[misc]
            if self._died():
                break
            if self._stage.strikes:
                bag = bag or self._chance.sample(list(self._stage.strikes), len(self._stage.strikes))
                kind = bag.pop()
                self._stage.strikes[kind]([process.pid for process in self._processes], self._chance)
                self._seen[kind] += 1
        self.witness.end()
        for process in self._processes:
            if process.wait(PATIENCE):
                self.witness.trouble(f"{process.pid} ended with {process.returncode}")

    @property
    def told(self) -> str:
        """The complaints of the processes."""
        return "\n".join(self.witness.troubles) + self._errors.read_text()[-3000:]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
        self.witness.close()

    def _enough(self, grants: int) -> bool:
        stage, struck = self._stage, self.strikes
        some = [*stage.strikes, *(["unseen"] if stage.proxies else [])]
        many = ["late"] if stage.proxies else [] if stage.strikes else ["inside"]
        return (
            self.witness.grants >= grants
            and all(struck[kind] >= LEAST for kind in some)
            and all(struck[kind] >= FEWEST * grants for kind in many)
        )

    def _died(self) -> bool:
        return any(process.poll() is not None for process in self._processes)
