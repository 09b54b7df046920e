"""Resources that compare versions: look at the record, and write only if its version is still the same."""

from __future__ import annotations

import time
from typing import NamedTuple, Protocol

from lockkit.errors import BackendUnavailable, IncompatibleLayout
from lockkit.guard.record import Record, judged
from lockkit.store.spi import Refused

__all__ = ["Found", "Swapping", "Versioned", "read_record"]


class Found(NamedTuple):
    """The stored record and its version.

    Attributes:
        record: The record; None if there is none.
        version: The version, in the resource's own terms; None if there is none.
        rest: A value that is stored with the record, where both are one object.
    """

    record: Record | None
    version: object
    rest: bytes | None = None


class Versioned(Protocol):
    """A record with a version that each write changes."""

    where: str
    largest: int | None

    def find(self, end: float) -> Found:
        """The stored record; not older than the last answered request of this client."""

    def swap(self, found: Found, record: Record, value: bytes | None, end: float) -> Found | None:
        """Write the record, and a value if not None, in one step, if the version is still that of ``found``.

        Returns:
            Found: The step took effect.
            None: The version has changed; the step had no effect, and cannot have one later.
        """

    def look(self, end: float) -> tuple[Record | None, bytes | None]:
        """The record and the value."""

    def forget(self) -> None:
        """Remove the value and the record."""


class Swapping:
    """A :class:`~lockkit.guard.gate.Resource` over a :class:`Versioned` one.

    The client applies the rule. The resource decides only whether the version has not changed since.
    """

    def __init__(self, under: Versioned) -> None:
        self.under = under
        self.where = under.where
        self.largest = under.largest
        self._known: Found | None = None

    def step(self, asked: Record, value: bytes | None, end: float) -> Record | None:
        found, self._known = self._known, None
        if found is None or found.record is None or found.record[:2] != asked[:2]:
            found = self.under.find(end)
        while True:
            verdict = judged(found.record, asked)
            if verdict == "STALE":
                return found.record or Record(0, "")
            if verdict == "DONE":
                return None
            written = self.under.swap(found, asked, value, end)
            if written is not None:
                self._known = written
                return None
            if time.monotonic() >= end:
                raise Refused(BackendUnavailable(f"{self.where} is being changed by others all the time"))
            found = self.under.find(end)

    def look(self, end: float) -> tuple[Record | None, bytes | None]:
        return self.under.look(end)

    def forget(self) -> None:
        self._known = None
        self.under.forget()


def read_record(stored: bytes | None, where: str) -> Record | None:
    """Read a stored record; None if there is none.

    Raises:
        Refused: Something else is stored there. Nothing is written over it.
    """
    if stored is None:
        return None
    try:
        return Record.of(stored.decode("ascii", errors="replace"))
    except ValueError as error:
        raise Refused(
            IncompatibleLayout(
                f"beside {where} stands {error}", hint="move away what is there, or guard another key"
            ),
            retry=False,
        ) from None
