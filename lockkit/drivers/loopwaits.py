"""How a coroutine waits for its claim."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING

from lockkit.drivers.jobs import Job
from lockkit.drivers.lifecycle import wait_no_longer_than_the_interpreter
from lockkit.drivers.threadpool import ThreadPool
from lockkit.drivers.ticker import no_thread
from lockkit.drivers.waits import Waits, cancelled, polls
from lockkit.lib.prompt_future import PromptFuture, pause
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.call import OnWait
from lockkit.protocol.effects import WaitForWake
from lockkit.store.log import Log
from lockkit.store.spi import Watch

if TYPE_CHECKING:
    from lockkit.drivers.threads import Driver

__all__ = ["LoopWaits"]

_log = Log("lockkit")


class LoopWaits(Waits):
    """The waits of a coroutine. A wake comes from any thread, and costs the loop one callback.

    Args:
        pool: Threads on which watches start, because a store may send a request for that.
        context: The context of timers: one for all waits of the loop, where asyncio would copy one for each.
    """

    __slots__ = ("_context", "_loop", "_pool", "_rung", "_waked", "_watching")

    def __init__(
        self,
        driver: Driver,
        attempt: Attempt,
        loop: asyncio.AbstractEventLoop,
        pool: ThreadPool,
        context: Context,
        tell: OnWait | None = None,
    ) -> None:
        super().__init__(driver, attempt, tell)
        self._loop = loop
        self._context = context
        self._pool = pool
        self._rung = False
        self._waked: PromptFuture[None] | None = None
        self._watching: WaitForWake | None = None

    async def wait(self, effect: WaitForWake) -> None:
        """Wait for a wake; the claim is renewed meanwhile."""
        self.prepare(effect)
        wait_no_longer_than_the_interpreter()
        while not self._rung and not cancelled(self._driver):
            left = self._left(effect.until)
            if left <= 0:
                break
            # Not in a separate coroutine, which would cost each waiter memory.
            waked = self._waked = PromptFuture(self._loop)
            timers = waked.after(left, self._context)
            try:
                await waked
            finally:
                for each in timers:
                    each.cancel()
                self._waked = None
        self._rung = False  # forget earlier rings, because the store is asked next anyway
        self._go_on(effect.claim.terms.name)

    async def pause(self, until: float) -> None:
        """Wait before the next request, after a failure."""
        left = until - self._driver.clock.now()
        if left > 0:
            await pause(self._loop, left)
        self._go_on()

    def _new_bell(self) -> Callable[[], None]:
        return self.ring

    def ring(self) -> None:
        """Wake the coroutine. Never blocks. May be called from anywhere, finalizers included."""
        if self._rung:
            return
        self._rung = True
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop is closed
            pass

    def _wake(self) -> None:
        if self._waked is not None:
            self._waked.deliver(None)

    def _listen(self, effect: WaitForWake) -> None:
        backend = self._driver.backend
        assert self._waiter is not None
        asked = (effect.claim.terms.name, effect.blockers, self._waiter.ring, effect.claim)
        self._watching = effect
        if backend.extras.at_once:
            self._watch = backend.watch(*asked)
        else:
            job: Job[Watch] = Job()
            job.add_done_callback(lambda job: self._listens(effect, job))  # before a signal may strike
            self._pool.submit(lambda: backend.watch(*asked), job)

    def _listens(self, effect: WaitForWake, job: Job[Watch]) -> None:
        """Keep a watch that was started; in a thread of the pool."""
        error = job.exception()
        if error is not None:
            polls(effect, error)
            if not no_thread(error):
                _log.error("a watch failed", exc_info=error)
            return
        watch = job.result()
        if self._watching is effect:
            self._watch = watch
        # Checked last: the coroutine forgets the effect first, and then looks for the watch.
        if self._watching is not effect:
            watch.close()

    def _unwatch(self) -> None:
        self._watching = None
        super()._unwatch()
