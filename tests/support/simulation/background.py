"""A client's background threads as actors, with the shipped code: heartbeat, deadlines, orphan list."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lockkit.protocol.effects import REQUESTS
from lockkit.protocol.orphaning import Entry, OrphanList
from lockkit.store.spi import REQUEST_TIMEOUT, Refused, Unknown
from support.simulation.actors import Actor

if TYPE_CHECKING:
    from support.simulation.client import Client

__all__ = ["Deadlines", "Heartbeat", "Orphans"]


class Heartbeat(Actor):
    """The thread that renews; see :class:`lockkit.drivers.heartbeat.Heartbeat`."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, f"{client.name} heartbeat")

    def next(self) -> float:
        """When it wants to run."""
        return self.client.beats.next() if self.running is None else math.inf

    def beat(self) -> None:
        """Begin a turn."""
        self.begin(self.client.beats.beating())
        self._perform()

    def answered(self, result: Any) -> None:
        super().answered(result)
        self._perform()

    def failed(self, error: BaseException) -> None:
        super().failed(error)
        self._perform()

    def _perform(self) -> None:
        """Perform effects up to the next request."""
        while (effect := self.effect) is not None and self.request is None:
            if isinstance(effect, REQUESTS):
                self.send(effect)
            else:
                self.client.background(effect)
                super().answered(None)

    def finished(self, value: Any) -> None:
        """The turn is over."""

    def broke(self, error: BaseException) -> None:
        self.client.world.violated("CRASH", f"{self.label} raised {error!r}")


class Deadlines(Actor):
    """The thread that declares losses, in one step."""

    def __init__(self, client: Client) -> None:
        super().__init__(client, f"{client.name} deadlines")
        self._next = math.inf

    def next(self) -> float:
        """When it wants to run."""
        return self._next

    def poke(self, at: float) -> None:
        """Have it look by then."""
        self._next = min(self._next, at)

    def look(self) -> None:
        """One turn."""
        self._next = math.inf
        self.begin(self.client.beats.looking())
        while (effect := self.effect) is not None:
            self.client.background(effect)
            self.answered(None)

    def finished(self, value: Any) -> None:
        self.poke(value)

    def broke(self, error: BaseException) -> None:
        self.client.world.violated("CRASH", f"{self.label} raised {error!r}")


_CROWD = 1
"""Few, because the simulation has few claims."""
_HELPERS = 1


class _Remover(Actor):
    """A thread that removes an orphan list's claims singly; see :class:`lockkit.drivers.orphans.Orphans`."""

    def __init__(self, client: Client, label: str, orphans: OrphanList) -> None:
        super().__init__(client, f"{client.name} {label}")
        self.list = orphans
        self._current: Sequence[Entry] = ()
        self._began = 0.0

    def next(self) -> float:
        """When it wants to run."""
        raise NotImplementedError

    def remove(self) -> None:
        """Send for the first that is due."""
        now = self.client.world.clock.now()
        entries = self.list.take(now, slow=False) or self.list.take(now, slow=True)
        assert entries
        self._current, self._began = entries, now
        self.send(self.list.request(entries))

    def answered(self, result: Any) -> None:
        self.request = None
        self.list.answered(self._current, result, *self._took())

    def failed(self, error: BaseException) -> None:
        self.request = None
        assert isinstance(error, Refused | Unknown)
        self.list.failed(self._current, *self._took())

    def _took(self) -> tuple[float, float, float]:
        now = self.client.world.clock.now()
        return now, now - self._began, self.list.request(self._current).budget


class Orphans(_Remover):
    """The thread that works the orphan list off."""

    def __init__(self, client: Client) -> None:
        super().__init__(
            client, "orphans", OrphanList(REQUEST_TIMEOUT, _CROWD, client.world.store.removes_together)
        )
        self.helpers = [OrphansHelper(client, f"orphans' helper {at}", self.list) for at in range(_HELPERS)]

    def next(self) -> float:
        """When it wants to run."""
        return self.list.soonest() if self.request is None else math.inf


class OrphansHelper(_Remover):
    """A thread that helps while there is a crowd of claims."""

    def next(self) -> float:
        """When it wants to run."""
        crowded = self.request is None and self.list.crowded(self.client.world.clock.now())
        # After a failed try nobody takes a claim for a moment.
        return self.list.soonest() if crowded else math.inf
