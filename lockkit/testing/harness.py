"""Harnesses: how the kit makes a fresh store, reads it without the backend, and lets time pass.

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
from typing import Any, ClassVar, Literal

from lockkit.config.config import load
from lockkit.facts import Capabilities, ClaimState
from lockkit.lib.clock import SYSTEM, Clock
from lockkit.plugins import PluginManager
from lockkit.store.spi import Backend, OpenOptions
from lockkit.sync.client import Client, connect
from lockkit.values.identity import this_process

__all__ = ["Harness", "StoredClaim"]

_EXACT = ("claim_id", "fence", "state", "weight", "capacity", "evicted")


@dataclass(frozen=True, slots=True, eq=False)
class StoredClaim:
    """One claim as the store has it. Two are equal if all fields are; inexact deadlines are not compared.

    Attributes:
        claim_id: See :func:`lockkit.values.names.claim_id`.
        state: The state. A store that does not record offers has WAITING instead of OFFERED.
        deadline: The deadline on the harness's clock; None if the claim has none. The latest possible
            one if the store gives it only roughly.
        earliest: The earliest possible deadline, if the store gives it only roughly; else None.
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
        """The time until which the claim is certain to be there."""
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
        name: The name of the store; it appears in no test id.
        exclusions: Scenarios (``L1-kill``) that cannot pass on this store, or guarantees (``L1``), with
            reasons, in one file. Scenarios of an excluded guarantee are skipped. An excluded scenario
            must fail: to declare less than a store does is wrong too. An unknown entry fails the run.
        virtual: Whether :meth:`advance` takes no real time.
        ttl: Seconds; for claims that a scenario lets lapse. With real time, short enough to wait for, long
            enough not to end before.
        short_ttl: Seconds; for holds whose end is awaited in real time; renewed ones have at least 1.5.
        grain: Seconds by which the store may lengthen a time, because it rounds.
        request_timeout: Seconds; the setting of clients whose store is made to fail. An answered call
            must take less, even on a busy machine.
        tells: Whether the store knows, and facts say, when a claim was last renewed and when it lapses.
        slack: Seconds that the store may take beyond the ttl to notice a death (L1).
        examples: The number of programs that the state machine tries, and the number of their steps.
        face: "asyncio" to make all calls of a scenario's clients through ``lockkit.aio``. Scenarios that
            interrupt or cancel a thread are then skipped.
        plugins: Plugins for every client.
        clock: The clock of every client and store.
    """

    name: ClassVar[str]
    exclusions: ClassVar[Mapping[str, str]] = {}
    virtual: ClassVar[bool] = False
    ttl: ClassVar[float] = 3.0
    short_ttl: ClassVar[float] = 0.6
    grain: ClassVar[float] = 0.0
    request_timeout: ClassVar[float] = 0.6
    tells: ClassVar[bool] = True
    slack: ClassVar[float] = 0.0
    examples: ClassVar[tuple[int, int]] = (20, 20)
    face: ClassVar[Literal["threads", "asyncio"]] = "threads"

    def __init__(self, scratch: Path) -> None:
        """Make a fresh, empty store. ``scratch`` is an empty folder whose name is unique on this machine."""
        self.scratch = scratch
        self.clock: Clock = SYSTEM
        self.plugins: Sequence[object] = ()

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL of the scratch store: one for all clients of a harness, another for each other harness."""

    @abstractmethod
    def stored(self, name: str) -> list[StoredClaim]:
        """The queue of a name as the store has it, in order. Read the store itself, without the backend.

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
        """A new client. As far as possible it is as independent of the others as a client in another process.

        Configuration files and environment variables of this machine have no effect on its settings.
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
        client = connect(config=config, plugins=[*self.plugins, *plugins], clock=self.clock, task=task)
        if self.face == "asyncio":
            from lockkit.testing.through_asyncio import ThroughAsyncio

            return ThroughAsyncio(client)
        return client

    def open(self, options: OpenOptions | None = None) -> Backend:
        """Open the backend under test, without a client."""
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
        """Let time pass until a claim of so many seconds, never renewed, is gone from the store.

        If the store notices lapsed claims late, wait here until it does.
        """
        self.advance(seconds * 1.01)

    def freeze(self) -> None:  # noqa: B027 - real time cannot
        """Stop the time, if possible, except for :meth:`advance`, so that machine runs replay."""

    def crash(self, client: Client) -> None:
        """Let a client vanish: it sends nothing to the store any more, and releases nothing."""
        driver = client.driver()
        driver.beats.closing = driver.ending.gone = True
        driver.heartbeat.close()
        driver.orphans.close()
        driver.heartbeat.join(10.0)
        driver.orphans.join(10.0)
        for hold in driver.beats.holds():
            hold.end()

    def residue(self) -> Mapping[str, int]:
        """Counts (rows, keys, server sockets; not claims) that a scenario must leave as it found them."""
        return {}

    def requests(self) -> int | None:
        """The number of requests from clients so far, as the servers count; None if they do not."""
        return None

    def forget(self, name: str, claim_id: str) -> None:
        """Have the store lose one claim without notice to its client, as when a session ends."""
        with self.client() as operator:
            operator.evict(name, claim_id, reason="the store forgets it", now=True)

    def close(self) -> None:  # noqa: B027 - most have nothing to do
        """Remove the store. Its clients are closed already."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {os.fspath(self.scratch)}>"
