"""How coroutines take a release to its end.

Rules kept here:

- The caller's own task performs the release, so that it costs the loop no more turns than its request. A
  cancelled caller hands the rest to a separate task, waits for it, and then raises its CancelledError.
- A task keeps the mutex of a release (``hold.turn``) only between two of its waits, and reserves the hold
  during a wait for a limited time, so others can continue if the loop stops.
- A cancelled task of lockkit's own expresses no user's wish: an ending program cancels all tasks (as
  ``asyncio.run`` does). So that shortens neither a cleanup hook nor the budgets (S9).
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from lockkit.drivers.jobs import Job
from lockkit.drivers.loopjobs import call_soon, result_of
from lockkit.errors import BackendUnavailable
from lockkit.facts import Reason, ReleaseReport
from lockkit.lib.prompt_future import PromptFuture, pause
from lockkit.protocol.effects import MAY_BLOCK, REQUESTS, AwaitHook, Effect, Pause, RecordFailure
from lockkit.protocol.hold import Hold
from lockkit.protocol.releasing import PATIENCE, releasing
from lockkit.protocol.running import Running, ask
from lockkit.store.spi import Refused, Unknown

if TYPE_CHECKING:
    from lockkit.drivers.aio import LoopDriver
    from lockkit.drivers.cleanup import CleanupRuns

__all__ = ["LoopRelease"]

T = TypeVar("T")
_TICK = 0.01
"""Seconds between two looks at a release that a thread, or a task of another loop, is at."""
_LOOK = 1.0
"""Seconds after which a task that waits for another task's release checks whether that task still works."""
_RESERVED_BEYOND = 1.0
"""A task reserves the hold for so many seconds beyond the longest time of an effect; then others continue."""
_numbers = itertools.count(1).__next__


class LoopRelease:
    """The release of one hold by tasks of one event loop. If the loop stops for good, a thread continues.

    Args:
        engine: The engine of the loop, which is running.
        hold: The hold to release; all its levels are left.
        reason: Kept in events, journal and metrics.

    Attributes:
        loop: The event loop.
    """

    _performing = False
    """Whether a task of this loop performs the release."""
    _task: asyncio.Task[None] | None = None
    """The task that finishes the release in the background, if there is one."""
    _apart: Coroutine[Any, Any, None]
    """The steps of that task."""
    _pending: Effect | None = None
    """An effect to perform again, because a cancellation has cut it short."""
    _job: tuple[Job[Any], float] | None = None
    """The call of the pending effect on a thread, and when it must have started, on the loop's clock."""
    _steps: Running[ReleaseReport] | None = None
    _runs: CleanupRuns | None = None
    _result: object = None
    _error: BaseException | None = None
    """How the effect of ``_steps`` went."""

    def __init__(self, engine: LoopDriver, hold: Hold, reason: Reason) -> None:
        driver = self._driver = engine.driver
        self._engine = engine
        self._hold = hold
        self._reason: Reason = reason
        self.loop = engine.loop
        self._me = -_numbers()
        self._waiting: set[PromptFuture[None]] = set()
        self._interrupts: list[BaseException] = []
        beats = driver.beats
        beats.releasing[hold] = None
        # Rarely more than a comparison: the deadline thread already has an earlier look to make.
        beats.to_look.poke(driver.clock.now() + driver.request_timeout + _RESERVED_BEYOND)

    async def result(self) -> ReleaseReport:
        """Finish the release, or wait for the task that does; then raise its interrupt, or a cancellation."""
        hold = self._hold
        cuts: list[asyncio.CancelledError] = []
        while hold.report is None:
            if not (self._performing or self._goes_on):
                await self._go_on(cuts)
                continue
            over: PromptFuture[None] = PromptFuture(self.loop)
            self._waiting.add(over)
            # A signal handler that raises may end the task that performs the release before it wakes anybody.
            try:
                await over.within(_LOOK)
            except asyncio.CancelledError as cut:
                cuts.append(cut)
            finally:
                self._waiting.discard(over)
            if self._task is not None and self._task.done():
                self._ended(self._task)  # again, if a signal handler raised in the first call
        try:
            if interrupts := self._interrupts or cuts:
                raise interrupts[0]
        finally:  # what is raised refers to this frame, and must not be kept by it
            self._interrupts.clear()
            cuts.clear()
        return hold.report

    def apart(self) -> LoopRelease:
        """Have a separate task continue, whether or not anybody waits for it. Cancelling does not stop it."""
        if not (self._performing or self._goes_on) and self._hold.report is None:
            # asyncio keeps tasks only weakly, but whatever this one waits for refers to it. A set of ours
            # would outlive the loop and keep, with a task's exception, the leases in its frames.
            self._apart = self._go_on(None)
            self._task = self.loop.create_task(_Begun(self._apart), name="lockkit-release")
            self._task.add_done_callback(self._ended)
        return self

    @property
    def _goes_on(self) -> bool:
        """Whether a background task exists and is not over."""
        return self._task is not None and not self._task.done()

    def _ended(self, _task: asyncio.Task[None]) -> None:
        self._apart.close()  # a signal handler may have ended the task between two steps, and left this open
        if not self._performing:
            self._left()

    async def _go_on(self, cuts: list[asyncio.CancelledError] | None) -> None:
        """Continue to the end, or until the caller is cancelled; then the separate task continues.

        Args:
            cuts: The list to which the cancellations of the caller are added; None in the separate task.
        """
        hold, engine = self._hold, self._engine
        passed_on = False
        try:
            self._performing = True
            while hold.report is None:
                effect = self._pending or self._step()
                self._pending = on_loop = None
                try:
                    if effect is not None:
                        on_loop = engine.on_loop(effect) if isinstance(effect, REQUESTS) else None
                        self._result = await (on_loop or self._perform(effect))
                    elif hold.report is None:  # another thread or task performs it
                        await pause(self.loop, _TICK)
                except GeneratorExit:  # the loop is no more
                    raise
                except asyncio.CancelledError as cut:
                    if on_loop is not None:  # the pipeline repeats the request within its budget
                        self._error = Unknown(BackendUnavailable("a request was cut short by a cancellation"))
                    else:
                        self._pending = effect
                    if cuts is not None:
                        cuts.append(cut)
                except BaseException as error:
                    if effect is None:
                        raise
                    self._job, self._error = None, error
                if cuts and hold.report is None:
                    passed_on, self._performing = True, False
                    self.apart()  # the new task keeps our reservation of the hold
                    return
        finally:
            if not passed_on:
                self._performing = False  # first, without a call: a signal below leaves the rest to others
                self._left()

    def _left(self) -> None:
        """Leave the release to others if it is not over, and wake those that wait for it."""
        hold, driver = self._hold, self._driver
        if hold.reserved_by == self._me:
            hold.reserved_by = 0
        if hold.report is not None:
            driver.beats.over(hold)
            driver.registry.change(hold.name, old=hold)
        else:
            driver.heartbeat.look()
        if self._waiting and not self.loop.is_closed():
            for each in self._waiting:
                self.loop.call_soon(each.deliver, None)

    # -- steps

    def _step(self) -> Effect | None:
        """Go on, in the turn of the hold.

        Returns:
            The next effect that may block. None if the release is over, or others perform it.
        """
        driver, hold = self._driver, self._hold
        try:
            if not hold.turn.acquire(blocking=False):
                return None
            if hold.reserved_by != self._me:
                if hold.reserved(driver.clock.now()):
                    return None
                hold.reserved_by, hold.reserved_until, hold.reserver_runs = (
                    self._me,
                    math.inf,
                    self._engine.runs,
                )
                self._steps = self._job = None
            while hold.report is None:
                steps, error = self._steps, self._error
                pipeline, runs = driver.releases.pipeline(hold, self._reason)
                self._error = None
                try:
                    if steps is None:
                        pipeline.interrupts = self._interrupts
                        self._runs = runs
                        steps = self._steps = Running(releasing(pipeline, driver.clock.now))
                        steps.begin()
                    elif error is None:
                        steps.answered(self._result)
                    else:
                        steps.failed(error)
                    perform = driver.perform if runs is None else partial(driver.releases.perform, runs)
                    steps.until_it_waits(perform, MAY_BLOCK)
                except BaseException as interrupt:
                    # The generator itself is over; a new one continues from what `pipeline` records.
                    self._interrupts.append(interrupt)
                    self._steps = None
                    if len(self._interrupts) > PATIENCE:
                        raise
                    continue
                effect = steps.effect
                if effect is not None:
                    hold.reserved_until = driver.clock.now() + self._longest(effect) + _RESERVED_BEYOND
                    return effect
                driver.releases.over(pipeline)
            return None
        finally:
            # A signal handler may raise before the acquire is noted. No other frame here has the turn. The
            # release is the first call, so no handler comes before it.
            try:
                hold.turn.release()
            except RuntimeError:
                pass

    def _longest(self, effect: Effect) -> float:
        """Seconds that an effect may take."""
        if isinstance(effect, Pause):
            return effect.until - self._driver.clock.now()
        if isinstance(effect, AwaitHook):
            return self._driver.releases.longest_cleanup
        return float(getattr(effect, "budget", self._driver.request_timeout))

    # -- effects

    async def _perform(self, effect: Effect) -> object:
        """Perform an effect that may block, or resume a cancelled one: a thread makes a call once."""
        engine, driver = self._engine, self._driver
        if isinstance(effect, Pause):
            await pause(self.loop, max(effect.until - driver.clock.now(), 0.0))
            return None
        if isinstance(effect, AwaitHook):
            assert self._runs is not None
            return await self._await_hook(effect, self._runs)
        if isinstance(effect, RecordFailure):
            with suppress(Refused):  # a disk that hangs keeps the thread, but not the release
                call = partial(engine.pools.others.submit, partial(driver.perform, effect))
                await self._called(call, driver.request_timeout, shared=True)
            return None
        assert isinstance(effect, REQUESTS)
        if engine.at_once:
            await asyncio.sleep(0)  # let others run: a program may take and release free locks without end
            return ask(driver.backend, effect)
        return await self._called(partial(engine.submit, effect), effect.budget)

    async def _called(
        self, submit: Callable[[], Job[Any]], patience: float, *, shared: bool = False
    ) -> object:
        """The result of a thread's call for the effect, as :func:`lockkit.drivers.loopjobs.result_of`."""
        now = self.loop.time()
        job, until = self._job = self._job or (submit(), now + patience)
        result = await result_of(job, self.loop, max(until - now, 0.0), shared=shared)
        self._job = None
        return result

    async def _await_hook(self, effect: AwaitHook, runs: CleanupRuns) -> object:
        driver, plugin = self._driver, effect.plugin
        if effect.wait:
            ended: PromptFuture[None] = PromptFuture(self.loop)
            runs.when_over(plugin, lambda: call_soon(self.loop, ended.deliver, None))
            key = object()
            driver.releases.cleaning.enter(key)
            try:
                await ended.within(max(runs.left(plugin), 0.0))
            finally:
                driver.releases.cleaning.leave(key)
        return runs.report(plugin, wait=effect.wait)


class _Begun(Coroutine[Any, Any, T]):
    """A coroutine whose task cannot be cancelled before its first step: that step is then done first.

    Args:
        steps: A coroutine that continues when its task is cancelled later.
    """

    __slots__ = ("_begun", "_steps")

    def __init__(self, steps: Coroutine[Any, Any, T]) -> None:
        self._steps = steps
        self._begun = False

    def __await__(self) -> Generator[Any, Any, T]:
        return self._steps.__await__()

    def send(self, value: Any, /) -> Any:
        """See ``collections.abc.Coroutine``."""
        self._begun = True
        return self._steps.send(value)

    def throw(self, *error: Any) -> Any:
        """See ``collections.abc.Coroutine``."""
        return self._steps.throw(*error) if self._begun else self.send(None)

    def close(self) -> None:
        """See ``collections.abc.Coroutine``."""
        self._steps.close()
