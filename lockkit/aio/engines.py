"""The engine of a client for each event loop that uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from lockkit.drivers.aio import LoopDriver, ThreadPools
from lockkit.drivers.jobs import Job
from lockkit.drivers.loopjobs import call_soon, finished, result_of
from lockkit.drivers.threadpool import ThreadPool
from lockkit.lib.forks import IMPORTS
from lockkit.lib.origin import Origin, this_origin
from lockkit.lib.prompt_future import pause
from lockkit.shared.opening import for_the_user
from lockkit.store.spi import Refused, Unknown

if TYPE_CHECKING:
    from lockkit.drivers.aio import Performer
    from lockkit.drivers.threads import Driver
    from lockkit.shared.opening import Opening

__all__ = ["Engines"]

T = TypeVar("T")
_GRACE = 0.3
"""Seconds beyond the limit that opening the store may take, because its thread keeps to it only roughly."""


class Engines:
    """The event loops of a client. Each loop, and each forked child, has its own connections from first use.

    Heartbeat, holds and threads belong to the client, so a lease may be released on any loop.

    Args:
        opening: The client.
    """

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        self._begin()

    def _begin(self) -> None:
        self._origin = this_origin()
        self._pools = ThreadPools()
        self._loops: dict[asyncio.AbstractEventLoop, LoopDriver] = {}
        self._imports: Job[None] | None = None
        self._opens: Job[Driver] | None = None

    def ready(self) -> LoopDriver | None:
        """The engine for the running loop; None if :meth:`engine` has to make it first."""
        driver = self.opening.here.driver
        if driver is None or not driver.origin.is_here():
            return None
        here = self._loops.get(asyncio.get_running_loop())
        return here if here is not None and here.driver is driver else None

    async def engine(self, patience: float | None = 0.0) -> LoopDriver:
        """The running loop's engine; opens the store, as :meth:`lockkit.shared.opening.Opening.driver`."""
        here = self.ready()
        if here is not None:
            return here
        if not self._origin.is_here():  # what the parent had is not touched: its selector is shared with it
            self._begin()
        driver = self.opening.engine or await self._open(patience)
        return self.here(driver)

    def here(self, driver: Driver) -> LoopDriver:
        """The engine for the running loop, of a store that is open."""
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None or here.driver is not driver:
            self._forget_closed()
            if driver is not self.opening.engine:  # a hold of a client that is closed
                return LoopDriver(driver, None, self._pools, loop, self._loops)
            here = LoopDriver(driver, self._performer(driver), self._pools, loop, self._loops)
            self._loops[loop] = here
        return here

    def _performer(self, driver: Driver) -> Performer | None:
        exchanges = driver.backend.extras.exchanges
        if exchanges is None:
            return None
        with IMPORTS:
            from lockkit.store.performing_aio import OnLoop  # late: most stores need none

        return OnLoop(exchanges, self.opening.url)

    async def _open(self, patience: float | None) -> Driver:
        """Open the store, on a thread: once for all coroutines that need it."""
        loop = asyncio.get_running_loop()
        with for_the_user():
            if self.opening.capabilities.scope == "process":  # nothing to connect to
                attempt, tries = self.opening.trying(patience)
                return attempt(tries.left())
            # Before the time starts: importing a client library can take longer than a request.
            imports = self._imports
            if imports is None or imports.done():
                imports = self._imports = self._pools.acquires.submit(self.opening.import_store)
            await result_of(imports, loop, None)
            attempt, tries = self.opening.trying(patience)
            while True:
                job, left = self._opens, tries.left()
                if job is None or job.done():
                    job = self._opens = self._pools.acquires.submit(partial(attempt, left))
                try:
                    late = f"{self.opening.url} did not open within {left:.3g} s"
                    return await result_of(job, loop, left + _GRACE, late, shared=True)
                except (Refused, Unknown) as trouble:
                    seconds = tries.failed(trouble)
                await pause(loop, seconds)

    async def call(self, work: Callable[[], T]) -> T:
        """Make a blocking call of the synchronous client: on a thread, unless the store answers at once."""
        here = self.ready()
        if here is not None:
            return await here.call(work)
        return await self.call_on_thread(work)

    async def call_on_thread(self, work: Callable[[], T]) -> T:
        """Make a call that may need the loop itself: always on a thread, whatever the store."""
        if not self._origin.is_here():
            self._begin()
        return await result_of(self._pools.others.submit(work), asyncio.get_running_loop(), None)

    async def call_of_acquire(self, work: Callable[[], T], patience: float | None) -> T:
        """Make a call of an acquire, on a thread for acquires, with the context variables of the task.

        Args:
            work: The call.
            patience: Seconds after which a call that was not started is cancelled; None to wait for its turn.

        Raises:
            Refused: No thread was free in time.
        """
        if not self._origin.is_here():
            self._begin()
        job = self._pools.acquires.submit(partial(copy_context().run, work))
        return await result_of(job, asyncio.get_running_loop(), patience)

    async def close(self) -> None:
        """Close the client, then the connections of all loops; raise a cancellation afterwards."""
        loop = asyncio.get_running_loop()
        # The close has a separate thread: it must start although other calls wait for a free one.
        thread = ThreadPool("lockkit-asyncio", 1)
        job = thread.submit(partial(self.opening.end, None))
        thread.close()
        cuts: list[asyncio.CancelledError] = []
        try:
            await finished(job, loop, cuts)
        finally:
            here = self._loops.pop(loop, None)
            self._abort()
            self._pools.close()
            if here is not None:
                here.abort()
        while here is not None:
            try:
                await here.close()
            except asyncio.CancelledError as cut:
                cuts.append(cut)
            else:
                break
        if cuts:
            raise cuts[0]

    def _forget_closed(self) -> None:
        for here in list(self._loops.values()):
            here.runs()

    def _abort(self) -> None:
        """Drop the connections of all loops."""
        self._forget_closed()
        for loop, here in list(self._loops.items()):
            self._loops.pop(loop, None)
            call_soon(loop, here.abort)

    def __del__(self) -> None:
        origin: Origin | None = getattr(self, "_origin", None)
        if origin is not None and origin.is_here():
            self._abort()
