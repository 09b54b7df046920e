"""The witness of a storm, without lockkit: it has what the processes wrote down, and the kernel's clock.

A process notes when it was sure to hold: from after its grant until it last saw its lease valid. Two such
holds of one lock must never meet, and the later one has the higher fence.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["Held", "Witness", "wrong"]


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


class Witness:
    """Files in a folder, to which all processes of a storm append; the kernel separates their lines."""

    def __init__(self, folder: Path) -> None:
        self._over = folder / "over"
        self._files = {kind: folder / kind for kind in ("holds", "strikes", "troubles")}
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._open = {kind: os.open(path, flags, 0o600) for kind, path in self._files.items()}

    def held(self, hold: Held) -> None:
        name, began, ended, fence, who = hold
        self._write("holds", f"{name} {began!r} {ended!r} {fence} {who}")

    def strike(self) -> None:
        """Something was struck."""
        self._write("strikes", "")

    def trouble(self, what: object) -> None:
        """Something happened that no storm explains."""
        self._write("troubles", f"{os.getpid()}: {what}")

    def end(self) -> None:
        """Tell all processes that the storm is over."""
        self._over.touch()

    @property
    def over(self) -> bool:
        return self._over.exists()

    @property
    def grants(self) -> int:
        """How many holds have been written down so far."""
        return self._files["holds"].read_bytes().count(b"\n")

    @property
    def strikes(self) -> int:
        return self._files["strikes"].stat().st_size

    @property
    def troubles(self) -> list[str]:
        return self._files["troubles"].read_text().splitlines()

    @property
    def holds(self) -> list[Held]:
        found = []
        for line in self._files["holds"].read_text().splitlines():
            name, began, ended, fence, who = line.split()
            found.append(Held(name, float(began), float(ended), int(fence), int(who)))
        return found

    def now(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def close(self) -> None:
        for file in self._open.values():
            os.close(file)

    def _write(self, kind: str, line: str) -> None:
        os.write(self._open[kind], f"{line}\n".encode())
