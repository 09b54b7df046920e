"""A harness tells the kit about a store: how to make a fresh one, read it without the backend, and let time pass.

A harness needs only the public interface. The smallest one::

    class MyHarness(Harness):
        name = "mystore"

        @property
        def url(self) -> str:
            return f"mystore://localhost/{self.scratch.name}"

        def stored(self, name: str) -> list[StoredClaim]:
            ...  # ask the store itself, not the backend under test
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from lockkit.client import Client, connect
from lockkit.clock import SYSTEM, Clock
from lockkit.config import load
from lockkit.facts import Capabilities, ClaimState
from lockkit.identity import this_process
from lockkit.plugins import PluginManager
from lockkit.store.spi import Backend, OpenOptions

__all__ = ["Harness", "StoredClaim"]

_EXACT = ("claim_id", "fence", "state", "weight", "capacity", "evicted")


@dataclass(frozen=True, slots=True, eq=False)
class StoredClaim:
    """One claim as it lies in the store. Two are equal if nothing of it has changed; deadlines count where they are exact.

    Attributes:
        claim_id: See :func:`lockkit.names.claim_id`.
        state: OFFERED where the store records offers; WAITING otherwise.
        deadline: On the harness's clock; None if it has none. Where the store tells it only coarsely, the latest it may be.
        earliest: Then, the earliest it may be; None if ``deadline`` is exact.
    """

    claim_id: str
    fence: int
    state: ClaimState
    weight: int
    capacity: int
    deadline: float | None
    evicted: bool = False
    earliest: float | None = None

    @property
    def surely(self) -> float | None:
        """Until when it surely stands."""
        return self.deadline if self.earliest is None else self.earliest

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, StoredClaim):
            return NotImplemented
        exact = self.earliest is None and other.earliest is None
        return all(getattr(self, name) == getattr(other, name) for name in (*_EXACT, *["deadline"] * exact))

    def __hash__(self) -> int:
        return hash(self.claim_id)


class Harness(ABC):
    """One scratch store, made for one scenario and thrown away after it.

    Attributes:
        name: What the store is called; appears in no test id.
        exclusions: Scenarios (``L1-kill``) that cannot hold on this store, or whole guarantees (``L1``), each with the
            reason. Keep them in one file. A guarantee is skipped; a scenario is played and must fail, because claiming
            less than a store does is wrong too. An entry that names nothing fails the run.
        virtual: :meth:`advance` takes no real time.
        ttl: Seconds; long enough never to end within a scenario by itself. Where time is real, something that a
            scenario can wait for.
        short_ttl: Seconds; for scenarios that wait in real time, with heartbeats.
        grain: Seconds by which the store may lengthen what it is told, because it rounds.
        request_timeout: Seconds, of clients whose store is made to fail: a call that is answered takes less, on a busy
            machine too.
        tells: Facts say when a claim was last renewed, and when it lapses. Where the store does not know it, they must not.
        slack: Seconds that the store may take beyond the ttl to notice a death (L1).
        examples: How many programs the state machine tries, and of how many steps.
        plugins: Handed to every client.
        clock: Handed to every client and store.
    """

    name: ClassVar[str]
    exclusions: ClassVar[Mapping[str, str]] = {}
    virtual: ClassVar[bool] = False
    ttl: ClassVar[float] = 3.0
    short_ttl: ClassVar[float] = 0.6
    grain: ClassVar[float] = 0.0
    request_timeout: ClassVar[float] = 0.4
    tells: ClassVar[bool] = True
    slack: ClassVar[float] = 0.0
    examples: ClassVar[tuple[int, int]] = (20, 20)

    def __init__(self, scratch: Path) -> None:
        """Make a fresh, empty store. ``scratch`` is an empty folder whose name is unique on this machine."""
        self.scratch = scratch
        self.clock: Clock = SYSTEM
        self.plugins: Sequence[object] = ()

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL of the scratch store: equal for all clients of this harness, different for every other harness."""

    @abstractmethod
    def stored(self, name: str) -> list[StoredClaim]:
        """The queue of a name as the store has it, in order: asked of the store itself, not of the backend.

        Claims past their deadline may be among them.
        """

    def client(
        self,
        *,
        url: str | None = None,
        plugins: Sequence[object] = (),
        task: str | None = None,
        **settings: Any,
    ) -> Client:
        """A new client, as independent of the others as a process of its own where that is possible.

        No file and no variable of this machine has a say in its settings.
        """
        config = load(
            url=url or self.url,
            environ={},
            cwd=self.scratch,
            home=self.scratch,
            etc=self.scratch / "etc.toml",
            state_dir=str(self.scratch),
            **settings,
        )
        return connect(config=config, plugins=[*self.plugins, *plugins], clock=self.clock, task=task)

    def open(self, options: OpenOptions | None = None) -> Backend:
        """The backend under test, without a client before it."""
        if options is None:
            options = OpenOptions(owner=this_process(None), clock=self.clock, state_dir=str(self.scratch))
        return PluginManager(self.plugins).open(self.url, options)

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities that the store declares before it is opened."""
        return PluginManager(self.plugins).backend(self.url).capabilities

    def advance(self, seconds: float) -> None:
        """Let time pass for store and clients. By default it really passes."""
        end = self.clock.now() + seconds
        while (left := end - self.clock.now()) > 0:
            time.sleep(left)

    def outlast(self, seconds: float) -> None:
        """Let time pass until what was to last so many seconds, and was not renewed, is gone from the store.

        A store that notices late what has lapsed waits for that here.
        """
        self.advance(seconds * 1.01)

    def freeze(self) -> None:  # noqa: B027 - real time cannot
        """Let no time pass but by :meth:`advance`, where that is possible: then a run of the state machine replays."""

    def crash(self, client: Client) -> None:
        """Let a client vanish without a goodbye: nothing of it speaks to the store again, nothing is released."""
        driver = client.driver()
        driver.closed = driver.gone = True
        driver.heartbeat.close()
        driver.orphans.close()
        driver.heartbeat.join(2.0)
        driver.orphans.join(2.0)
        for hold in driver.beats.holds():
            hold.end()

    def residue(self) -> Mapping[str, int]:
        """Counts that must return to where they began when all is done: rows, keys, sockets on the server's side. Claims are counted apart."""
        return {}

    def requests(self) -> int | None:
        """How many requests clients have sent so far, by the servers' own count; None where nobody counts."""
        return None

    def forget(self, name: str, claim_id: str) -> None:
        """Have the store lose one claim, without a word to its client: as when its session ends. Nobody else is touched."""
        with self.client() as operator:
            operator.evict(name, claim_id, reason="the store forgets it", now=True)

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Throw the store away. Clients are closed before."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {os.fspath(self.scratch)}>"
