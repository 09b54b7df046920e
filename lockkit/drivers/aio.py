"""The driver for event loops: performs the protocol's effects in coroutines, for the engine of a client.

Only what may wait runs on the loop. Heartbeat, deadlines, orphans and events stay on the threads of
:class:`~lockkit.drivers.threads.Driver`, so a blocked loop ends no hold.

Rules kept here:

- A cancelled acquire depends on the loop for nothing: it hands its claim to the background without waiting.
- A call on a thread cannot be cancelled. Claims that it leaves of a cancelled acquire are removed later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from lockkit.drivers.jobs import Job
from lockkit.drivers.loopjobs import result_of
from lockkit.drivers.loopreleases import LoopRelease
from lockkit.drivers.looptogether import LoopTogether
from lockkit.drivers.loopwaits import LoopWaits
from lockkit.drivers.threadpool import ThreadPool
from lockkit.drivers.threads import LATE_BUDGET, Driver
from lockkit.facts import Reason
from lockkit.protocol.acquiring import acquiring
from lockkit.protocol.attempt import Attempt, UnderWay
from lockkit.protocol.effects import ON_THREADS, REQUESTS, Acquire, Effect, Pause, Request, WaitForWake
from lockkit.protocol.hold import Hold
from lockkit.protocol.running import ask, run

if TYPE_CHECKING:
    from lockkit.protocol.composing import Steps
    from lockkit.protocol.together import Together
    from lockkit.store.exchanges import Exchange

__all__ = ["LoopDriver", "Performer", "ThreadPools"]

T = TypeVar("T")
_THREADS = 4
"""The largest number of threads of each pool of a client."""
_LEAST = 0.05
"""The least time, in seconds, for a request that had to wait for a thread."""


class Performer(Protocol):
    """Performs exchanges on connections of one event loop."""

    async def perform(self, exchange: Exchange[T]) -> T:
        """Perform an exchange to its end and return its result."""

    async def close(self) -> None:
        """Close the connections."""

    def abort(self) -> None:
        """Drop the connections, without waiting."""


class ThreadPools:
    """A client's threads for calls that its event loops must not make: a pool for acquires, one for the rest.

    So a release, or a question about a hold, never waits for acquires.
    """

    def __init__(self) -> None:
        self.acquires = ThreadPool("lockkit-asyncio-acquire", _THREADS)
        self.others = ThreadPool("lockkit-asyncio", _THREADS)

    def close(self) -> None:
        """Have the threads end once there is no more work."""
        self.acquires.close()
        self.others.close()


class LoopDriver:
    """The engine of a client, for the coroutines of one event loop.

    Args:
        driver: The engine.
        performer: Performs the store's exchanges on the loop; None for a store that is called on threads.
        pools: The threads of the client.
        loop: The running loop.
        loops: The engines of the client for its loops.

    Attributes:
        at_once: Whether the store is called on the loop itself.
        context: An empty context, for timers that call nothing but lockkit.
    """

    def __init__(
        self,
        driver: Driver,
        performer: Performer | None,
        pools: ThreadPools,
        loop: asyncio.AbstractEventLoop,
        loops: dict[asyncio.AbstractEventLoop, LoopDriver],
    ) -> None:
        self.driver = driver
        self.performer = performer
        self.pools = pools
        self.loop = loop
        self._loops = loops
        self._runs = self._may_go_on  # one for all acquisitions
        self._perform = driver.perform
        self.context = Context()
        extras = driver.backend.extras
        self._exchanges: Any = extras.exchanges
        self.at_once = extras.at_once

    def runs(self) -> bool:
        """Whether the loop runs. A closed loop is forgotten, with its connections, which refer to tasks.

        Any thread may call this.
        """
        if self.loop.is_closed() and (here := self._loops.pop(self.loop, None)) is not None:
            here.abort()
        return self.loop.is_running()

    def _may_go_on(self) -> bool:
        """Whether the loop may continue an acquisition: it runs, or may do so before the client closes."""
        return self.runs() or not (self.loop.is_closed() or self.driver.closed)

    # -- acquire

    async def acquire(self, attempt: Attempt) -> Hold | None:
        """Like :meth:`lockkit.drivers.threads.Driver.acquire`, with the same duties of the caller.

        A cancelled call leaves nothing behind that this loop would have to remove.
        """
        driver = self.driver
        attempt.runs = self._runs
        waiting = _Acquisition(self, attempt)
        driver.under_way[attempt] = None
        try:
            next(driver.counters.steps["attempts"])
            driver.begin(attempt)
            hold = await run(acquiring(attempt, *driver.tools), waiting.perform, self._perform)
            if hold is not None:
                driver.granted(attempt, hold)
                return hold
        except BaseException as error:
            # Set before any call: a signal in take_back() then leaves the rest to the background.
            attempt.over = True
            self.take_back(attempt)
            driver.failed(attempt, error)
            raise
        finally:
            if waiting.waits is not None:
                waiting.waits.close()
            if not attempt.sent:
                driver.under_way.pop(attempt, None)
        driver.busy(attempt)
        return None

    async def acquire_together(self, together: Together, steps: Steps) -> list[Attempt] | None:
        """Like :meth:`lockkit.drivers.threads.Driver.acquire_together`; the caller has the same duties."""
        driver = self.driver
        together.runs = self._runs
        waits = driver.under_way[together] = LoopTogether(self, together)
        try:
            driver.begin(together)
            got = await run(steps, waits.perform_blocking, waits.perform)
            driver.got_together(got)
        except BaseException as error:
            # Set before any call: a signal in take_back() then leaves the rest to the background.
            together.over = True
            self.take_back(together)
            driver.failed_together(together, error)
            raise
        finally:
            waits.close()
            if not together.sent:
                driver.under_way.pop(together, None)
        driver.told_together(together, got)
        return got

    def take_back(self, attempt: UnderWay) -> None:
        """End an attempt that is ``over``; the background removes what it may have left. Never blocks.

        Claims that a thread's call for the attempt leaves are taken back after that call.
        """
        job = attempt.job
        if job is None or job.cancel() or job.done():
            self._taken_back(attempt)
        else:
            job.add_done_callback(lambda _: self._taken_back(attempt))

    def _taken_back(self, attempt: UnderWay) -> None:
        """Any thread may call this."""
        driver = self.driver
        if driver.give_back(attempt) and driver.closed:
            self.pools.others.submit(partial(driver.orphans.flush, LATE_BUDGET))
        driver.forget(attempt)

    # -- release

    def release(self, hold: Hold, reason: Reason) -> LoopRelease:
        """Start or continue the release of a hold; see :meth:`lockkit.drivers.releases.Releases.release`."""
        return LoopRelease(self, hold, reason)

    # -- calls

    def on_loop(self, request: Request) -> Any:
        """The coroutine that performs a request on the loop; None if it has to be made on a thread."""
        if self.performer is None or isinstance(request, ON_THREADS):
            return None
        return self.performer.perform(ask(self._exchanges, request))  # type: ignore[arg-type]

    async def request(self, request: Request, attempt: UnderWay) -> object:
        """Send a request of an acquire that is no exchange: here if ``at_once``, else on a thread."""
        if self.at_once:
            return ask(self.driver.backend, request)
        job: Job[object] = Job()
        attempt.job = job
        try:
            self.submit(request, job)
            return await result_of(job, self.loop, request.budget)
        finally:
            if job.done():
                attempt.job = None

    def submit(self, request: Request, job: Job[object] | None = None) -> Job[object]:
        """Have a thread send a request, whose budget starts now.

        For ``job`` see :meth:`lockkit.drivers.threadpool.ThreadPool.submit`.
        """
        backend, now = self.driver.backend, self.driver.clock.now
        end = now() + request.budget
        pool = self.pools.acquires if isinstance(request, (Acquire, *ON_THREADS)) else self.pools.others

        def call() -> object:
            return ask(backend, request._replace(budget=max(end - now(), _LEAST)))

        return pool.submit(call, job)

    async def call(self, work: Callable[[], T]) -> T:
        """Make a blocking call, on a thread unless ``at_once``. A cancelled caller does not wait for it."""
        if self.at_once:
            return work()
        return await result_of(self.pools.others.submit(work), self.loop, None)

    async def close(self) -> None:
        """Close the connections of the loop."""
        if self.performer is not None:
            await self.performer.close()

    def abort(self) -> None:
        """Drop the connections of the loop, without waiting."""
        if self.performer is not None:
            self.performer.abort()


class _Acquisition:
    """The waits and requests of one acquire.

    Attributes:
        waits: The waits for a wake; None before the first.
    """

    __slots__ = ("_attempt", "_engine", "waits")

    def __init__(self, engine: LoopDriver, attempt: Attempt) -> None:
        self._engine = engine
        self._attempt = attempt
        self.waits: LoopWaits | None = None

    # No separate coroutine: each costs a waiter memory as long as it waits.

    def perform(self, effect: Effect) -> Awaitable[object]:
        """Perform an effect that may block."""
        engine = self._engine
        if isinstance(effect, REQUESTS):
            return engine.on_loop(effect) or engine.request(effect, self._attempt)
        waits = self.waits
        if waits is None:
            waits = self.waits = LoopWaits(
                engine.driver, self._attempt, engine.loop, engine.pools.acquires, engine.context
            )
            engine.driver.under_way[self._attempt] = waits
        if isinstance(effect, WaitForWake):
            return waits.wait(effect)
        assert isinstance(effect, Pause)
        return waits.pause(effect.until)
