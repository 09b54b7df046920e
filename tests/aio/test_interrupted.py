"""L4, S9: a signal handler that raises, at every place of an acquire and a release in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import random
import sys
import time
import warnings
from collections import Counter
from itertools import product

import pytest

import lockkit
from lockkit.aio import AsyncClient
from lockkit.drivers.loopreleases import LoopRelease
from lockkit.errors import AcquireTimeout, BackendError
from lockkit.testing.interrupts import Bomb, CtrlC
from lockkit.testing.processes import until
from lockkit.testing.scenarios.interrupted import unraisable
from lockkit.testing.stage import Work
from lockkit_sqlite.pulses import LISTENER
from lockkit_sqlite.watcher import Watcher
from support.harnesses.redis import RedisHarness

TTL = 4.0  # long enough for a busy machine that stands still for a second: no hold lapses by itself
MOST = {"memory": 90, "sqlite": 30, "redis": 40}  # Redis is asked on the loop, the others are not
PATIENCE = 60.0
LONG = 30.0


class TimeLimit(Exception):
    """A soft time limit, as Celery's: unlike Ctrl-C, an event loop survives it."""


class Cleaner:
    def __init__(self):
        self.runs = Counter()

    @lockkit.hookimpl
    def lockkit_cleanup(self, context):
        self.runs[context.claim_id] += 1


def locks(client):
    return [client.lock("a", ttl=TTL), client.rwlock("r", ttl=TTL).write(), client.semaphore("c", 2, ttl=TTL)]


async def lock_in_with(client, kept):
    async with client.lock("a", ttl=TTL).acquire(20.0) as lease:
        kept.append(lease)


async def lock_in_short_form(client, kept):
    lock = client.lock("a", ttl=TTL)
    async with lock:
        kept.append(lock.lease)


async def lock_released_by_hand(client, kept):
    lease = await client.lock("a", ttl=TTL).acquire(20.0)
    kept.append(lease)
    try:
        await lease.release()
    finally:
        await lease.release()


async def lock_after_a_wait(client, kept):
    """The lock is busy, and comes free while it waits."""
    lock = client.lock("a", ttl=TTL)
    async with lock.acquire(20.0) as first:
        first.detach()
        async with lock.acquire(20.0, on_wait=lambda waiting: first.begin_release("normal")) as lease:
            kept.append(lease)


async def lock_released_while_cancelled(client, kept):
    lease = await client.lock("a", ttl=TTL).acquire(20.0)
    kept.append(lease)
    try:
        release = asyncio.ensure_future(lease.release())
        await asyncio.sleep(0)
        release.cancel()
        await asyncio.wait([release])
    finally:
        await lease.release()


async def semaphore_tried(client, kept):
    async with await client.semaphore("c", 2, ttl=TTL).try_acquire() as lease:
        kept.append(lease)


async def levels_of_a_reentrant_lock(client, kept):
    lock = client.lock("a", ttl=TTL, reentrant=True)
    async with lock.acquire(20.0) as lease:
        kept.append(lease)
        async with lock.acquire(20.0), client.all_of([lock, client.lock("b", ttl=TTL)]).acquire(20.0):
            pass


async def decorated(client, kept):
    @client.locked("a", ttl=TTL, timeout=20.0)
    async def work():
        await asyncio.sleep(0)

    await work()


async def all_in_with(client, kept):
    async with client.all_of(locks(client)).acquire(20.0) as leases:
        kept.append(leases)


async def all_in_short_form(client, kept):
    async with client.all_of(locks(client), timeout=20.0) as all_three:
        kept.append(all_three.lease)


async def any_in_with(client, kept):
    async with client.any_of(locks(client)).acquire(20.0) as lease:
        kept.append(lease)


async def any_after_a_wait(client, kept):
    """Both are busy, and the second comes free while it waits."""
    a, b = client.lock("a", ttl=TTL), client.lock("b", ttl=TTL)
    async with a.acquire(20.0) as first, b.acquire(20.0) as second:
        first.detach()
        second.detach()
        async with client.any_of([a, b]).acquire(
            20.0, on_wait=lambda waiting: second.begin_release("normal")
        ) as lease:
            kept.append(lease)


async def pool_in_with(client, kept):
    pool = client.pool("p", {"0": 2, "1": 2, "2": 1}, ttl=TTL)
    async with pool.acquire(2, each=2, timeout=20.0) as leases:
        kept.append(leases)


async def pool_in_short_form(client, kept):
    pool = client.pool("p", ["0", "1"], ttl=TTL, timeout=20.0)
    async with pool:
        kept.append(pool.lease)


BY_HAND = [lock_released_by_hand, lock_released_while_cancelled]
FORMS = [
    lock_in_with,
    lock_in_short_form,
    lock_after_a_wait,
    semaphore_tried,
    levels_of_a_reentrant_lock,
    decorated,
    all_in_with,
    all_in_short_form,
    any_in_with,
    any_after_a_wait,
    pool_in_with,
    pool_in_short_form,
]


# A strike between the call of a coroutine function and the first step of its coroutine.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")


@pytest.mark.parametrize("form", FORMS + BY_HAND)
@pytest.mark.parametrize(
    "store, kind, most",
    [
        ("memory", CtrlC, 30),
        *(
            pytest.param(store, kind, MOST[store], marks=pytest.mark.full)
            for store, kind in [*product(["memory", "redis"], [CtrlC, TimeLimit]), ("sqlite", CtrlC)]
        ),
    ],
)
def test_l4_interrupted_in_a_loop_at_any_place_nothing_is_left(store, form, kind, most, tmp_path):
    sweep(store, form, kind, tmp_path, lambda chance: 0, most)


@pytest.mark.full
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("store, kind", [("memory", CtrlC), ("redis", CtrlC), ("redis", TimeLimit)])
def test_l4_interrupted_in_a_loop_twice_nothing_is_left(store, form, kind, tmp_path):
    sweep(store, form, kind, tmp_path, lambda chance: chance.randint(1, 40), 30)


def run(form, client, kept, bomb):
    """Use the client in a loop of its own, as ``asyncio.run`` does, and let the loop report what it likes."""

    async def main():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        with bomb:
            await form(client, kept)

    asyncio.run(main())


@contextlib.contextmanager
def without_warnings():
    """An interruption may leave anything open until it is collected."""
    with warnings.catch_warnings(), unraisable():
        warnings.simplefilter("ignore", ResourceWarning)
        yield


def url_of(store, folder):
    urls = {
        "memory": lambda: f"memory://{os.urandom(8).hex()}",
        "sqlite": lambda: f"sqlite:{folder}/locks.db",
        "redis": lambda: RedisHarness(folder).url,
    }
    return urls[store]()


def sweep(store, form, kind, folder, then, most):
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    url = url_of(store, folder)
    cleaner = Cleaner()
    late = []
    struck = 0
    with lockkit.connect(url, plugins=[cleaner]) as sync, lockkit.connect(url) as observer:
        client = AsyncClient(sync)
        run(form, client, [], Bomb(1 << 30))
        cleaner.runs.clear()
        count = Bomb(1 << 30)
        run(form, client, [], count)
        for at in count.places(most, chance):
            bomb, kept = Bomb(at, then(chance), error=kind), []

            def once(bomb=bomb, kept=kept):
                with without_warnings():
                    try:
                        run(form, client, kept, bomb)
                    except kind:
                        pass
                    except BackendError:
                        # An event loop survives a time limit in a callback; the request gets no answer.
                        if store != "redis" or kind is CtrlC:
                            raise
                    except RuntimeError as stopped:
                        # As in any program whose main task ends in the turn of the loop that is interrupted.
                        if str(stopped) != "Event loop stopped before Future completed.":
                            raise
                    gc.collect()  # a task keeps its error, whose frames keep the task

            error = Work(once).error(PATIENCE)
            bomb.__exit__()  # a second Ctrl-C may end the loop in the middle and keep the task's frames
            struck += bool(bomb.where)
            where = f"after {kind.__name__} at {bomb.where} and {bomb.again or 'no more'}, seed {seed}"
            assert error is None, f"{error!r} {where}"
            began = time.monotonic()
            while left := [name for name in observer.names() if observer.inspect(name).claims]:
                assert time.monotonic() < began + TTL + 3.0, f"{left} stay {where}"
                with without_warnings():
                    gc.collect()  # a task whose loop was closed in the middle of it, and its connection
                time.sleep(0.002)
            if time.monotonic() > began + TTL / 2:
                late.append(where)
            for claim, runs in cleaner.runs.items():
                assert runs == 1, f"S9: cleanup of {claim} ran {runs} times {where}"
            for lease in kept:
                assert Work(lambda lease=lease: asyncio.run(lease.release())).result(30.0).outcome in (
                    "RELEASED",
                    "LOST",
                    "KEPT",
                ), where
            cleaner.runs.clear()
        engine = sync._opening.engine
        began = time.monotonic()
        while engine.under_way or engine.beats.releasing:
            assert time.monotonic() < began + PATIENCE, f"{engine.under_way} is under way, seed {seed}"
            time.sleep(0.01)
        until(lambda: not LISTENER.watcher._waiters, f"a watch is left, seed {seed}")
    assert struck > 20, "the bomb hardly ever went off"
    assert len(late) <= max(struck / 8, 8), f"of {struck} places these left claims to their ttl: {late}"


@pytest.mark.parametrize("form", [lock_after_a_wait, any_after_a_wait])
def test_a_watch_whose_end_a_signal_handler_cuts_short_ends_all_the_same(form, tmp_path, monkeypatch):
    ends, left = Watcher.end, [CtrlC]

    def end(watcher, waiter):
        if left:
            raise left.pop()
        ends(watcher, waiter)

    monkeypatch.setattr(Watcher, "end", end)
    with lockkit.connect(f"sqlite:{tmp_path}/locks.db") as sync:
        with pytest.raises(CtrlC), without_warnings():
            asyncio.run(form(AsyncClient(sync), []))
        until(lambda: not LISTENER.watcher._waiters, "a watch is left")


def test_a_release_gives_back_its_turn_wherever_a_signal_handler_cuts_a_step_short():
    """Else the lock stays held to the end of its ttl, and each look of the background adds a thread."""
    inside = (LoopRelease._step, contextlib.suppress.__init__, contextlib.suppress.__enter__)

    async def main(client, bomb):
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        lease = await client.lock("a", ttl=LONG).acquire()
        with contextlib.suppress(TimeLimit), bomb:
            await lease.release()

    def play(at):
        bomb = Bomb(at, error=TimeLimit, beside=("contextlib",))
        asyncio.run(main(AsyncClient(sync), bomb))
        return bomb

    url = f"memory://{os.urandom(8).hex()}"
    with lockkit.connect(url) as sync, lockkit.connect(url) as other:
        play(1 << 30)
        count = play(1 << 30)
        places = sorted(place for function in inside for place in count.within(function))
        for at in places:
            bomb = play(at)
            with contextlib.suppress(AcquireTimeout):
                other.lock("a").acquire(timeout=LONG / 3).release()
                continue
            pytest.fail(f"the lock stays held after {bomb.where}")
    assert places


@pytest.mark.parametrize("together", [False, True])
def test_an_acquire_ends_although_a_signal_handler_raises_just_as_its_time_is_up(together):
    url = f"memory://{os.urandom(8).hex()}"

    async def main(client, bomb):
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        lock = client.all_of([client.lock("b"), client.lock("a")]) if together else client.lock("a")
        try:
            with contextlib.suppress(AcquireTimeout, TimeLimit):
                await lock.acquire(0.2, on_wait=lambda waiting: bomb.__enter__())
        finally:
            bomb.__exit__()

    with lockkit.connect(url) as sync, lockkit.connect(url) as other, other.lock("a").acquire():
        client = AsyncClient(sync)
        for at in range(1, 20):
            bomb = Bomb(at, error=TimeLimit)
            error = Work(lambda bomb=bomb: asyncio.run(main(client, bomb))).error(PATIENCE)
            assert error is None, f"{error!r} after {bomb.where}"


@contextlib.contextmanager
def scheduling_cut_short(at, scheduled):
    """Raise where lockkit has asyncio schedule its at-th callback, which is then scheduled or lost.

    Not where a task lets others run (``asyncio.sleep(0)``): what asyncio loses there, nobody can take up.
    """
    loop, calls = asyncio.get_running_loop(), itertools.count(1)
    call_soon, where = loop.call_soon, []

    def struck(*args, **options):
        yields = type(args[0]).__name__ == "TaskStepMethWrapper"
        if yields or "/lockkit/" not in sys._getframe(1).f_code.co_filename or next(calls) != at:
            return call_soon(*args, **options)
        where.append(at)
        if scheduled:
            call_soon(*args, **options)
        raise TimeLimit

    loop.call_soon = struck
    try:
        yield where
    finally:
        loop.call_soon = call_soon


@pytest.mark.parametrize("scheduled", [True, False])
@pytest.mark.parametrize("store", ["memory", "sqlite", "redis"])
@pytest.mark.parametrize("form", [lock_after_a_wait, any_after_a_wait, all_in_with])
def test_a_call_ends_although_a_signal_handler_raises_as_asyncio_schedules_it(
    form, store, scheduled, tmp_path
):
    async def main(client, at):
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        with scheduling_cut_short(at, scheduled) as where, contextlib.suppress(TimeLimit, BackendError):
            await form(client, [])
        return where

    with lockkit.connect(url_of(store, tmp_path)) as sync:
        client, at, struck = AsyncClient(sync), 0, True
        while struck:
            at += 1
            work = Work(lambda at=at: asyncio.run(main(client, at)))
            with without_warnings():
                struck = work.result(PATIENCE)
                gc.collect()
        for name in sync.names():
            until(lambda name=name: not sync.inspect(name).claims, "it stays")


@pytest.mark.parametrize("turns", [0, 5])
def test_the_bomb_strikes_no_task_at_a_turn_in_which_it_only_waits(turns):
    async def inner():
        for _ in range(turns):
            await asyncio.sleep(0)

    async def outer():
        await inner()

    async def main(bomb):
        with bomb:
            await outer()

    bomb = Bomb(1 << 30, beside=(__name__,))
    asyncio.run(main(bomb))
    assert len(bomb.within(outer)) == 2  # its beginning, and the call
