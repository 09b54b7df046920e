"""How a coroutine waits for several claims at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING

from lockkit.drivers.lifecycle import wait_no_longer_than_the_interpreter
from lockkit.drivers.loopwaits import LoopWaits
from lockkit.drivers.together import WaitsTogether
from lockkit.drivers.waits import Waits
from lockkit.lib.prompt_future import PromptFuture
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.call import OnWait
from lockkit.protocol.effects import CHOICES, REQUESTS, Choose, Effect, Judge, WaitForAny
from lockkit.protocol.together import Together

if TYPE_CHECKING:
    from lockkit.drivers.aio import LoopDriver

__all__ = ["LoopTogether"]


class LoopTogether(WaitsTogether):
    """A coroutine's waits and requests to acquire several locks together. Requests run one by one."""

    def __init__(self, engine: LoopDriver, together: Together) -> None:
        super().__init__(engine.driver, together)
        self._engine = engine
        self._rung = False
        self._waked: PromptFuture[None] | None = None

    def perform_blocking(self, effect: Effect) -> Awaitable[object]:
        """Perform an effect that may block."""
        if isinstance(effect, REQUESTS):
            return self._engine.on_loop(effect) or self._engine.request(effect, self._together)
        if isinstance(effect, CHOICES):
            return self.choose(effect)
        assert isinstance(effect, WaitForAny)
        return self.wait(effect)

    async def choose(self, effect: Choose | Judge) -> object:
        """Ask a chooser on a thread, and wait for its answer. A cancelled caller does not wait for it.

        Raises:
            Refused: There is none within the budget.
            AcquireCancelled: The wait must end.
        """
        began = self._driver.clock.now()
        job = self._driver.choices.submit(effect)
        job.add_done_callback(lambda _: self.ring())
        try:
            while True:
                self._rung = False  # first: a ring that comes from here on wakes the wait below
                if job.done():
                    return job.result()
                await self._sleep(self.left_for(effect, began))
        finally:
            self._driver.choices.give_up(job)

    async def wait(self, effect: WaitForAny) -> Collection[int]:
        """Wait until an attempt is woken or due, or a hold is lost; the claims are renewed meanwhile."""
        self.prepare(effect)
        wait_no_longer_than_the_interpreter()
        while True:
            self._rung = False  # first: a ring that comes from here on wakes the wait below
            ready = self.ready(effect)
            if not isinstance(ready, float):
                return ready
            await self._sleep(ready)

    async def _sleep(self, seconds: float) -> None:
        """Sleep until a ring, at most this long."""
        waked = self._waked = PromptFuture(self._engine.loop)
        try:
            await waked.within(seconds)
        finally:
            self._waked = None

    def ring(self) -> None:
        """Wake the coroutine. Never blocks. May be called from anywhere, finalizers included."""
        if self._rung:
            return
        self._rung = True
        try:
            self._engine.loop.call_soon_threadsafe(self._wake)
        except RuntimeError:  # the loop is closed
            pass

    def _wake(self) -> None:
        if self._waked is not None:
            self._waked.deliver(None)

    def _new_waits(self, attempt: Attempt, ring: Callable[[], None]) -> Waits:
        return _Part(self._engine, attempt, ring, None if self._on_wait is None else self._tell)


class _Part(LoopWaits):
    """The waits of one of several attempts, whose wakes wake the whole acquisition."""

    __slots__ = ("_ring_all",)

    def __init__(
        self, engine: LoopDriver, attempt: Attempt, ring: Callable[[], None], tell: OnWait | None
    ) -> None:
        super().__init__(engine.driver, attempt, engine.loop, engine.pools.acquires, engine.context, tell)
        self._ring_all = ring

    def ring(self) -> None:
        """Wake the whole acquisition."""
        self._ring_all()
