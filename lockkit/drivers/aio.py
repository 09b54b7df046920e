"""The driver for event loops: performs the protocol's effects in coroutines, for the engine of a client.

Only what waits is here. Heartbeat, deadlines, orphans and events are those of :class:`~lockkit.drivers.threads.Driver`, on threads: a
loop that stands still must not end a hold.

Rules kept here:

- Nothing that belongs to a cancelled acquire depends on the loop: its claim is handed to the background without a wait.
- A call that runs on a thread cannot be cancelled. What a cancelled acquire has left is removed after this call, never beside it.
- A release is a task of its own. It has the turn of its hold (``hold.turn``) only from one of its waits to the next, so a loop that
  stops for good keeps the release from nobody.
- A cancellation of this task is no wish of a user: a program that ends cancels every task that it finds (``asyncio.run`` does, and
  some handlers do before it). So it neither shortens a cleanup hook nor the budgets (S9).
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from lockkit.drivers.looptogether import LoopTogether
from lockkit.drivers.loopwaits import LoopWaits
from lockkit.drivers.pool import Job, Pool
from lockkit.drivers.threads import LATE_BUDGET, Driver
from lockkit.errors import BackendUnavailable
from lockkit.facts import Reason, ReleaseReport
from lockkit.hold import Hold
from lockkit.protocol.acquiring import acquiring
from lockkit.protocol.attempt import Attempt, UnderWay
from lockkit.protocol.effects import (
    MAY_BLOCK,
    ON_THREADS,
    REQUESTS,
    Acquire,
    AwaitHook,
    Effect,
    Pause,
    RecordFailure,
    Request,
    WaitForWake,
)
from lockkit.protocol.releasing import PATIENCE, releasing
from lockkit.protocol.running import Running, ask, run
from lockkit.store.spi import Refused, Unknown

if TYPE_CHECKING:
    from lockkit.drivers.cleanup import CleanupRuns
    from lockkit.drivers.waits import OnWait
    from lockkit.protocol.composing import Steps, Together
    from lockkit.store.exchanges import Exchange

__all__ = ["LoopDriver", "Performer", "Pools", "Shielded", "call_soon", "finished", "result_of", "wake"]

T = TypeVar("T")
_THREADS = 4
"""The largest number of threads of each pool of a client."""
_LEAST = 0.05
"""Seconds that a request may take at least that had to wait for a thread."""
_TICK = 0.01
"""Seconds between two looks at a release that a thread, or a task of another loop, is at."""
_GRACE = 1.0
"""Seconds beyond the budget of an effect after which another may go on with a release."""
_numbers = itertools.count(1).__next__


class Performer(Protocol):
    """Performs exchanges on connections of one event loop."""

    async def perform(self, exchange: Exchange[T]) -> T:
        """Perform an exchange to its end and return its result."""

    async def close(self) -> None:
        """Close the connections."""

    def abort(self) -> None:
        """Drop the connections, without waiting."""


class Pools:
    """The threads of a client for calls that its event loops must not make: one pool for acquires, one for all other calls.

    A release, or a question about a hold, so never waits for acquires.
    """

    def __init__(self) -> None:
        self.acquires = Pool("lockkit-asyncio-acquire", _THREADS)
        self.others = Pool("lockkit-asyncio", _THREADS)

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
    """

    def __init__(
        self,
        driver: Driver,
        performer: Performer | None,
        pools: Pools,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.driver = driver
        self.performer = performer
        self.pools = pools
        self.loop = loop
        extras = driver.backend.extras
        self._exchanges: Any = extras.exchanges
        self._at_once = extras.at_once
        self._releases: set[asyncio.Task[ReleaseReport]] = set()

    # -- acquire

    async def acquire(self, attempt: Attempt, on_wait: OnWait | None = None) -> Hold | None:
        """As :meth:`lockkit.drivers.threads.Driver.acquire`. A cancelled attempt leaves nothing behind that this loop would have to remove."""
        driver = self.driver
        attempt.runs, attempt.shown = self.loop.is_running, on_wait is not None
        waiting = _Acquisition(self, attempt, on_wait)
        driver.under_way[attempt] = None
        try:
            next(driver.counters.steps["attempts"])
            driver.begin(attempt)
            hold = await run(acquiring(attempt, *driver.means), waiting.perform, driver.perform)
            if hold is not None:
                driver.granted(attempt, hold)
                return hold
        except BaseException as error:
            self._cut_short(attempt, waiting.job)
            driver.failed(attempt, error)
            raise
        finally:
            if waiting.waits is not None:
                waiting.waits.close()
            if not attempt.sent:
                driver.under_way.pop(attempt, None)
        driver.busy(attempt)
        return None

    async def acquire_together(
        self, together: Together, steps: Steps, on_wait: OnWait | None = None
    ) -> list[Attempt] | None:
        """As :meth:`lockkit.drivers.threads.Driver.acquire_together`. A cancelled one leaves nothing behind that this loop would have to remove."""
        driver = self.driver
        together.runs = self.loop.is_running
        waits = driver.under_way[together] = LoopTogether(self, together, on_wait)
        try:
            driver.begin(together)
            got = await run(steps, waits.perform_blocking, waits.perform)
            driver.got_together(got)
        except BaseException as error:
            self._cut_short(together, waits.job)
            driver.failed_together(together, error)
            raise
        finally:
            waits.close()
            if not together.sent:
                driver.under_way.pop(together, None)
        driver.told_together(together, got)
        return got

    def _cut_short(self, attempt: UnderWay, job: Job[Any] | None) -> None:
        if job is None or job.cancel() or job.done():
            self.take_back(attempt)
        else:  # a thread is in a call for the claim, and the calls of a claim run in order
            job.add_done_callback(lambda _: self.take_back(attempt))

    def take_back(self, attempt: UnderWay) -> None:
        """End an attempt, and leave what it may have left in the store to the background. Never blocks; any thread may call this."""
        driver = self.driver
        attempt.over = True
        if driver.give_back(attempt) and driver.closed:
            self.pools.others.submit(partial(driver.orphans.flush, LATE_BUDGET))
        driver.under_way.pop(attempt, None)

    # -- release

    def release(self, hold: Hold, reason: Reason) -> Shielded[ReleaseReport]:
        """Begin to take the release of a hold to its end, from wherever it is; see :meth:`lockkit.drivers.threads.Driver.release`.

        The task goes on if it is cancelled, even before its first step, within the budgets of the release. If the loop stops for
        good, a thread goes on.
        """
        beats = self.driver.beats
        beats.releasing[hold] = None
        # Rarely more than a comparison: the deadline thread looks no sooner than a look that it has been asked for before.
        beats.to_look.poke(self.driver.clock.now() + self.driver.request_timeout + _GRACE)
        ended: list[Callable[[], None]] = []
        task = self.loop.create_task(_Begun(self._release(hold, reason, ended)), name="lockkit-release")
        self._releases.add(task)  # the loop itself has only weak references
        task.add_done_callback(self._releases.discard)
        shielded = Shielded(task)
        ended.append(shielded.over)
        return shielded

    async def _release(self, hold: Hold, reason: Reason, ended: list[Callable[[], None]]) -> ReleaseReport:
        driver = self.driver
        work = _Releasing(driver, hold, reason, self.loop)
        try:
            while hold.report is None:
                effect = work.step(self._longest)
                if effect is not None:
                    try:
                        work.done(await self._performed(effect, work.runs))
                    except GeneratorExit:  # the loop is no more
                        raise
                    except BaseException as error:
                        work.failed(error)
                elif hold.report is None:
                    with suppress(asyncio.CancelledError):
                        await asyncio.sleep(_TICK)
            return hold.report
        finally:
            work.leave()
            if hold.report is not None:
                driver.beats.over(hold)
                driver.registry.change(hold.name, old=hold)
            for call in ended:
                call()

    def _longest(self, effect: Effect) -> float:
        """Seconds that an effect may take."""
        if isinstance(effect, Pause):
            return effect.until - self.driver.clock.now()
        if isinstance(effect, AwaitHook):
            return self.driver.longest_cleanup
        return float(getattr(effect, "budget", self.driver.request_timeout))

    async def _performed(self, effect: Effect, runs: CleanupRuns | None) -> object:
        """Perform an effect of a release that may block, although the task is cancelled meanwhile.

        Raises:
            Unknown: A request on a connection of the loop was cut short. The pipeline repeats it within its budget.
        """
        while True:
            try:
                return await self._perform(effect, runs)
            except asyncio.CancelledError:
                if isinstance(effect, REQUESTS):
                    raise Unknown(BackendUnavailable("a request was cut short by a cancellation")) from None

    async def _perform(self, effect: Effect, runs: CleanupRuns | None) -> object:
        """Perform an effect of a release that may block. A call that runs on a thread is waited for."""
        if isinstance(effect, Pause):
            await asyncio.sleep(max(effect.until - self.driver.clock.now(), 0.0))
            return None
        if isinstance(effect, AwaitHook):
            assert runs is not None
            return await self._await_hook(effect, runs)
        if isinstance(effect, RecordFailure):
            job = self.pools.others.submit(partial(self.driver.perform, effect))
            with suppress(Refused):  # a disk that hangs keeps the thread, but not the release
                await finished(job, self.loop, self.driver.request_timeout, shared=True)
            return None
        assert isinstance(effect, REQUESTS)
        on_loop = self._on_loop(effect)
        if on_loop is not None:
            return await on_loop
        if self._at_once:
            return ask(self.driver.backend, effect)
        return await finished(self.submit(effect), self.loop, effect.budget)

    async def _await_hook(self, effect: AwaitHook, runs: CleanupRuns) -> object:
        driver, plugin = self.driver, effect.plugin
        if effect.wait:
            ended = self.loop.create_future()
            runs.when_over(plugin, lambda: self.call_soon(wake, ended))
            key = object()
            driver.cleaning.enter(key)
            try:
                while not ended.done() and (left := runs.left(plugin)) > 0:
                    await asyncio.wait([ended], timeout=left)
            finally:
                driver.cleaning.leave(key)
        return runs.report(plugin, wait=effect.wait)

    # -- calls

    def _on_loop(self, request: Request) -> Any:
        """The coroutine that performs a request on the loop; None if it has to be made on a thread."""
        if self.performer is None or isinstance(request, ON_THREADS):
            return None
        return self.performer.perform(ask(self._exchanges, request))  # type: ignore[arg-type]

    async def request(self, request: Request, acquisition: _Acquisition | LoopTogether) -> object:
        """Send a request of an acquire."""
        if self.performer is not None and not isinstance(request, ON_THREADS):
            return await self.performer.perform(ask(self._exchanges, request))  # type: ignore[arg-type]
        if self._at_once:
            return ask(self.driver.backend, request)
        job = acquisition.job = self.submit(request)
        try:
            return await self.result(job, request.budget)
        finally:
            if job.done():
                acquisition.job = None

    def submit(self, request: Request) -> Job[object]:
        """Have a request sent on a thread, within its budget from now on."""
        backend, now = self.driver.backend, self.driver.clock.now
        end = now() + request.budget
        pool = self.pools.acquires if isinstance(request, (Acquire, *ON_THREADS)) else self.pools.others

        def call() -> object:
            return ask(backend, request._replace(budget=max(end - now(), _LEAST)))

        return pool.submit(call)

    async def call(self, work: Callable[[], T]) -> T:
        """Make a call on a thread. A cancelled caller does not wait for it."""
        if self._at_once:
            return work()
        return await self.result(self.pools.others.submit(work))

    async def result(self, job: Job[T], patience: float | None = None) -> T:
        """The result of a job.

        Args:
            job: The job.
            patience: Seconds after which a job that has not begun is cancelled; None to wait for its turn.

        Raises:
            Refused: The job did not begin in time.
        """
        return await result_of(job, self.loop, patience)

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        """Call something on the loop, from any thread; nothing happens once the loop is closed."""
        call_soon(self.loop, callback, *args)

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
        job: The request that a thread has been given; None while there is none.
    """

    __slots__ = ("_attempt", "_engine", "_on_wait", "job", "waits")

    def __init__(self, engine: LoopDriver, attempt: Attempt, on_wait: OnWait | None) -> None:
        self._engine = engine
        self._attempt = attempt
        self._on_wait = on_wait
        self.waits: LoopWaits | None = None
        self.job: Job[Any] | None = None

    # No coroutine of its own: each costs a waiter memory as long as it waits.

    def perform(self, effect: Effect) -> Awaitable[object]:
        """Perform an effect that may block."""
        if isinstance(effect, REQUESTS):
            return self._engine.request(effect, self)
        engine = self._engine
        waits = self.waits
        if waits is None:
            waits = self.waits = LoopWaits(
                engine.driver, self._attempt, self._on_wait, engine.loop, engine.pools.acquires
            )
            engine.driver.under_way[self._attempt] = waits
        if isinstance(effect, WaitForWake):
            return waits.wait(effect)
        assert isinstance(effect, Pause)
        return waits.pause(effect.until)


class _Releasing:
    """The steps of a release by a task.

    Attributes:
        runs: The cleanup hooks, if there are any.
    """

    def __init__(self, driver: Driver, hold: Hold, reason: Reason, loop: asyncio.AbstractEventLoop) -> None:
        self._driver = driver
        self._hold = hold
        self._reason: Reason = reason
        self._runs = loop.is_running
        self._me = -_numbers()
        self._steps: Running[ReleaseReport] | None = None
        self._resume: Callable[[], None] = lambda: None
        self.runs: CleanupRuns | None = None

    def step(self, longest: Callable[[Effect], float]) -> Effect | None:
        """Go on, in the turn of the hold.

        Args:
            longest: Tells how many seconds an effect may take.

        Returns:
            The next effect that may block. None if the release is over, or another thread or task is at it.
        """
        driver, hold = self._driver, self._hold
        if not hold.turn.acquire(blocking=False):
            return None
        try:
            if hold.turn_of != self._me:
                if hold.in_turn(driver.clock.now()):
                    return None
                hold.turn_of, hold.turn_until, hold.turn_runs = self._me, math.inf, self._runs
                self._steps = None
            while hold.report is None:
                pipeline, self.runs = driver.pipeline(hold, self._reason)
                if self._steps is None:
                    pipeline.interrupts = []
                    self._steps = Running(releasing(pipeline, driver.clock.now))
                    self._resume = self._steps.begin
                try:
                    self._resume()
                    self._steps.until_it_waits(partial(driver.perform, runs=self.runs), MAY_BLOCK)
                except BaseException as error:
                    # The generator itself is over; a new one goes on from what `pipeline` records.
                    pipeline.interrupts.append(error)
                    self._steps = None
                    if len(pipeline.interrupts) > PATIENCE:
                        raise
                    continue
                effect = self._steps.effect
                if effect is not None:
                    hold.turn_until = driver.clock.now() + longest(effect) + _GRACE
                    return effect
                driver.released(pipeline)
            return None
        finally:
            hold.turn.release()

    def done(self, result: object) -> None:
        """Note the result of the effect. The next step uses it."""
        if self._steps is not None:
            self._resume = partial(self._steps.answered, result)

    def failed(self, error: BaseException) -> None:
        """Note the error of the effect. The next step uses it."""
        if self._steps is not None:
            self._resume = partial(self._steps.failed, error)

    def leave(self) -> None:
        """Leave the release to others, if it is not over."""
        if self._hold.turn_of == self._me:
            self._hold.turn_of = 0


def call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *args: object) -> None:
    """Call something on a loop, from any thread; nothing happens once the loop is closed."""
    try:
        loop.call_soon_threadsafe(callback, *args)
    except RuntimeError:
        if not loop.is_closed():
            raise


async def result_of(
    job: Job[T],
    loop: asyncio.AbstractEventLoop,
    patience: float | None,
    late: str = "the store is slow: no thread of this client was free to ask it",
    *,
    shared: bool = False,
) -> T:
    """The result of a job; see :meth:`LoopDriver.result`.

    Args:
        job: The job.
        loop: The running loop.
        patience: Seconds after which a job that has not begun is cancelled; None to wait for its turn.
        late: What to say if it is late.
        shared: Whether others wait for the job as well, so that it is not cancelled, and not waited for any longer either.

    Raises:
        Refused: The job did not begin in time; a shared one did not end in time.
    """
    future: asyncio.Future[T] = loop.create_future()

    def give_up() -> None:
        if not future.done() and (shared or job.cancel()):
            future.set_exception(Refused(BackendUnavailable(late)))

    timer = None if patience is None else loop.call_later(patience, give_up)
    job.add_done_callback(lambda _: call_soon(loop, _copy, job, future))
    try:
        return await future
    finally:
        if timer is not None:
            timer.cancel()


async def finished(
    job: Job[T],
    loop: asyncio.AbstractEventLoop,
    patience: float | None = None,
    *,
    shared: bool = False,
    cuts: list[asyncio.CancelledError] | None = None,
) -> T:
    """The result of a job, as :func:`result_of`, which is waited for however often the caller is cancelled.

    Args:
        job: The job.
        loop: The running loop.
        patience: As for :func:`result_of`.
        shared: As for :func:`result_of`.
        cuts: A list to which the cancellations are added; None if nobody needs them.

    Raises:
        Refused: As :func:`result_of`.
    """
    end = None if patience is None else loop.time() + patience
    while True:
        try:
            return await result_of(
                job, loop, None if end is None else max(end - loop.time(), 0.0), shared=shared
            )
        except asyncio.CancelledError as cut:
            if cuts is not None:
                cuts.append(cut)


def _copy(job: Job[T], future: asyncio.Future[T]) -> None:
    if future.done() or job.cancelled():
        return
    error = job.exception()
    if error is None:
        future.set_result(job.result())
    else:
        future.set_exception(error)


def wake(future: asyncio.Future[None]) -> None:
    """End a future that may have ended already."""
    if not future.done():
        future.set_result(None)


class _Begun(Coroutine[Any, Any, T]):
    """A coroutine whose task cannot be cancelled before its first step: that step is then done first.

    Args:
        steps: A coroutine that goes on when its task is cancelled later.
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


class Shielded(Generic[T]):
    """A task that goes on even if those who wait for it are cancelled.

    Attributes:
        task: The task.
    """

    def __init__(self, task: asyncio.Task[T]) -> None:
        self.task = task
        self._waiting: list[asyncio.Future[None]] = []
        task.add_done_callback(lambda _: self.over())

    def over(self) -> None:
        """Wake those who wait. The task may call this as its last step, which saves a turn of the loop."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            wake(each)

    async def result(self) -> T:
        """The result of the task. A cancellation of the caller is raised when the task is over."""
        cancelled: asyncio.CancelledError | None = None
        task, loop = self.task, self.task.get_loop()
        while not task.done():
            over: asyncio.Future[None] = loop.create_future()
            self._waiting.append(over)
            try:
                await over
            except asyncio.CancelledError as error:
                cancelled = cancelled or error
        if cancelled is not None:
            raise cancelled
        return task.result()
