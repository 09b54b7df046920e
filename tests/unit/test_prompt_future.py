"""Futures whose waiting task goes on in the turn of the loop in which the result comes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import weakref

import pytest

from lockkit.lib import prompt_future
from lockkit.lib.prompt_future import Deliveries, PromptFuture
from lockkit.testing.interrupts import Bomb, CtrlC
from lockkit.testing.stage import Work
from support.loops import loops
from support.working import WorkClock

word = contextvars.ContextVar("word", default="none")


@pytest.fixture(params=loops().values(), ids=loops().keys())
def run(request):
    def on_loop(main):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main())

    return on_loop


class Waiting:
    """A task that awaits a future, and notes what it saw."""

    def __init__(self, future=None):
        self.future = PromptFuture(asyncio.get_running_loop()) if future is None else future
        self.seen = []
        self.task = asyncio.create_task(self._wait())

    async def _wait(self):
        word.set("of the task")
        try:
            self.seen.append(await self.future)
        except BaseException as error:
            self.seen.append(type(error))
            raise
        finally:
            self.seen.append(word.get())
        await asyncio.sleep(0)
        self.seen.append("next turn")

    async def ended(self):
        await asyncio.gather(self.task, return_exceptions=True)
        return self.seen


def outside_of_tasks(call, *args):
    """Have the loop make a call, as it reads an answer."""
    over = asyncio.get_running_loop().create_future()

    def made():
        try:
            over.set_result(call(*args))
        except Exception as error:
            over.set_exception(error)

    asyncio.get_running_loop().call_soon(made)
    return over


def test_the_task_runs_to_its_next_wait_before_the_delivery_returns_and_in_its_own_context(run):
    async def main():
        waiting = Waiting()
        await asyncio.sleep(0)

        def deliver():
            waiting.future.deliver(1)
            return list(waiting.seen), word.get()

        assert await outside_of_tasks(deliver) == ([1, "of the task"], "none")
        assert await waiting.ended() == [1, "of the task", "next turn"]

    run(main)


def test_a_delivery_before_anybody_waits_is_there_for_whoever_comes(run):
    async def main():
        future = PromptFuture(asyncio.get_running_loop())
        await outside_of_tasks(future.deliver, 1)
        assert await future == 1
        assert (await Waiting(future).ended())[0] == 1

    run(main)


def test_a_delivery_by_a_task_leaves_the_other_task_to_the_next_turn(run):
    async def main():
        waiting = Waiting()
        await asyncio.sleep(0)
        waiting.future.deliver(1)  # two tasks cannot run within each other
        assert waiting.seen == []
        assert (await waiting.ended())[0] == 1

    run(main)


def test_who_is_called_back_besides_is_called_back_in_order(run):
    async def main():
        for first in (True, False):
            future = PromptFuture(asyncio.get_running_loop())
            called = []
            if first:
                future.add_done_callback(lambda _, called=called: called.append("callback"))
            waiting = Waiting(future)
            waiting.seen = called
            await asyncio.sleep(0)
            if not first:
                future.add_done_callback(lambda _, called=called: called.append("callback"))
            await outside_of_tasks(future.deliver, 1)
            await waiting.ended()
            in_order = ["callback", 1] if first else [1, "callback"]
            assert [each for each in called if each in in_order] == in_order

    run(main)


@pytest.mark.parametrize("how", ["cancel", "set_result", "set_exception"])
def test_whatever_else_ends_it_may_come_from_another_task(run, how):
    async def main():
        waiting = Waiting()
        await asyncio.sleep(0)
        if how == "cancel":
            assert waiting.task.cancel()
        elif how == "set_result":
            waiting.future.set_result(1)
        else:
            waiting.future.set_exception(OSError())
        assert waiting.seen == []
        assert not waiting.future.cancel()
        expected = {"cancel": asyncio.CancelledError, "set_result": 1, "set_exception": OSError}[how]
        assert (await waiting.ended())[0] == expected
        assert waiting.task.cancelled() is (how == "cancel")

    run(main)


def test_a_delivery_to_a_task_that_was_cancelled_in_the_same_turn_does_nothing(run):
    async def main():
        waiting = Waiting()
        await asyncio.sleep(0)

        def cancelled_first():
            assert waiting.task.cancel()
            waiting.future.deliver(1)
            return list(waiting.seen)

        assert await outside_of_tasks(cancelled_first) == []
        assert (await waiting.ended())[0] is asyncio.CancelledError

    run(main)


def test_a_task_that_is_cancelled_before_it_waits_ends_the_future_as_it_waits(run):
    async def main():
        future = PromptFuture(asyncio.get_running_loop())

        async def cancelled():
            asyncio.current_task().cancel()
            await future

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(cancelled())
        assert future.cancelled()

    run(main)


def test_who_exits_in_the_delivery_ends_the_loop_and_not_the_caller_of_it(run):
    delivered = []

    async def main():
        future = PromptFuture(asyncio.get_running_loop())

        async def exits():
            await future
            raise SystemExit(7)

        def deliver():
            future.deliver(1)
            delivered.append(True)

        task = asyncio.create_task(exits())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(deliver)
        await asyncio.gather(task)

    with pytest.raises(SystemExit) as ended:
        run(main)
    assert ended.value.code == 7
    assert delivered


def test_a_future_that_is_over_keeps_no_task(run):
    async def main():
        waiting = Waiting()
        future, task = waiting.future, weakref.ref(waiting.task)
        await asyncio.sleep(0)
        await outside_of_tasks(future.deliver, 1)
        await waiting.ended()
        gc.disable()
        try:
            del waiting
            await asyncio.sleep(0)
            assert task() is None
        finally:
            gc.enable()
        assert future.result() == 1

    run(main)


def test_an_error_is_delivered_as_a_result_is(run):
    async def main():
        waiting = Waiting()
        await asyncio.sleep(0)

        def deliver():
            waiting.future.deliver(None, OSError())
            return list(waiting.seen)

        assert await outside_of_tasks(deliver) == [OSError, "of the task"]

    run(main)


# -- many at once


def test_results_that_come_at_once_leave_the_loop_turns_for_others(run, monkeypatch):
    monkeypatch.setattr(prompt_future, "_AT_A_TIME", 0.0)  # each takes longer than that
    monkeypatch.setattr(prompt_future, "_GAP", 10.0)

    async def main():
        loop = asyncio.get_running_loop()
        deliveries, order = Deliveries(loop), []
        waiting = [Waiting() for _ in range(3)]
        await asyncio.sleep(0)

        def others():
            order.append([len(each.seen) > 0 for each in waiting])
            if not all(order[-1]):
                loop.call_soon(others)

        def at_once():
            for number, each in enumerate(waiting):
                deliveries.deliver(each.future, number)
            others()

        await outside_of_tasks(at_once)
        for number, each in enumerate(waiting):
            assert (await each.ended())[0] == number
        assert order[0] == [True, False, False]
        assert order[-1] == [True, True, True]

    run(main)


@pytest.mark.parametrize("how", ["deliver", "fail"])
def test_the_loop_stands_still_for_a_millisecond_and_one_task_at_most(run, monkeypatch, how):
    clock = WorkClock()
    monkeypatch.setattr(prompt_future, "time", clock)

    async def main():
        loop = asyncio.get_running_loop()
        deliveries, futures = Deliveries(loop), [PromptFuture(loop) for _ in range(100)]
        tasks = [asyncio.create_task(clock.work_after(each)) for each in futures]
        await asyncio.sleep(0)

        def at_once():
            clock.watch()
            for each in futures:
                deliveries.deliver(each, 1) if how == "deliver" else deliveries.fail(each, OSError())

        await outside_of_tasks(at_once)
        await asyncio.gather(*tasks)
        await asyncio.sleep(0)  # the last look

    run(main)
    assert clock.longest <= prompt_future._AT_A_TIME + clock.EACH + 1e-9
    assert clock.turns >= 100 * clock.EACH / (prompt_future._AT_A_TIME + clock.EACH)


def test_a_task_that_is_cancelled_while_its_result_waits_for_a_turn_gets_none(run, monkeypatch):
    monkeypatch.setattr(prompt_future, "_AT_A_TIME", 0.0)
    monkeypatch.setattr(prompt_future, "_GAP", 10.0)

    async def main():
        deliveries = Deliveries(asyncio.get_running_loop())
        first, second = Waiting(), Waiting()
        await asyncio.sleep(0)

        def at_once():
            deliveries.deliver(first.future, 1)
            deliveries.deliver(second.future, 2)
            return second.task.cancel()

        assert await outside_of_tasks(at_once)
        assert (await first.ended())[0] == 1
        assert (await second.ended())[0] is asyncio.CancelledError

    run(main)


@pytest.mark.parametrize("then", range(12))
@pytest.mark.parametrize("again", ["delivered", "failed", "cancelled"])
def test_l4_wherever_a_signal_handler_raises_the_task_that_waits_can_end(run, again, then):
    """The loop ends all its tasks then, and one that nothing calls back would never end."""

    async def main(bomb):
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)
        future = PromptFuture(loop)
        end = {
            "delivered": lambda: loop.call_soon(future.deliver, 1),
            "failed": lambda: loop.call_soon(future.deliver, None, ZeroDivisionError()),
            "cancelled": lambda: loop.call_soon(future.cancel),
        }
        with bomb, contextlib.suppress(ZeroDivisionError, asyncio.CancelledError):
            end[again]()
            await future

    struck, at = True, 0
    while struck:
        at += 1
        bomb = Bomb(at, then)
        error = Work(lambda bomb=bomb: run(lambda: main(bomb))).error()
        struck = bool(bomb.where)
        assert isinstance(error, CtrlC) == struck, (
            f"{error!r} after {bomb.where} and {bomb.again or 'no more'}"
        )
    assert at > 1 or again == "cancelled"


def test_l4_wherever_a_signal_handler_raises_what_was_put_off_is_delivered(run):
    """No other delivery follows, which would begin anew."""

    async def main(bomb):
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: None)
        deliveries, future = Deliveries(loop), PromptFuture(loop)
        with bomb:
            loop.call_soon(deliveries.fail, future, OSError("late"))
            with pytest.raises(OSError, match="late"):
                await future

    count = Bomb(1 << 30)
    run(lambda: main(count))
    places = count.within(Deliveries._go_on)
    assert places
    for at in places:
        bomb = Bomb(at, error=ZeroDivisionError)
        error = Work(lambda bomb=bomb: run(lambda: main(bomb))).error()
        assert error is None, f"{error!r} after {bomb.where}"
