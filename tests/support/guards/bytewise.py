"""Counters in gates before a value in bytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from lockkit.guard import FenceGate
from support.guards.holders import FakeLease

__all__ = ["Bytewise"]


class Bytewise:
    """A counter written as a decimal number; see :class:`support.guards.Register`.

    Args:
        gate: Makes the gate before a key, whose client calls ``pause`` before each request.
        read: Reads a key without a gate; None if it is not there.
        write: Writes a key without a gate.
    """

    refusals: tuple[type[Exception], ...] = ()

    def __init__(
        self,
        gate: Callable[[str, Callable[[], None]], FenceGate],
        read: Callable[[str], bytes | None],
        write: Callable[[str, bytes], None],
    ) -> None:
        self._gate, self._read, self._write = gate, read, write
        self._keys = (f"counter-{at}" for at in itertools.count())
        self._key = ""

    def clear(self) -> None:
        self._key = next(self._keys)

    def opened(
        self, fence: int, pause: Callable[[], None]
    ) -> tuple[Callable[[], int], Callable[[int], None]]:
        guarded = self._gate(self._key, pause).open(FakeLease(fence))
        return lambda: int(guarded.read() or 0), lambda number: guarded.write(b"%d" % number)

    def unguarded(self, pause: Callable[[], None]) -> tuple[Callable[[], int], Callable[[int], None]]:
        def read() -> int:
            pause()
            return self.value()

        def write(number: int) -> None:
            pause()
            self._write(self._key, b"%d" % number)

        return read, write

    def value(self) -> int:
        return int(self._read(self._key) or 0)
