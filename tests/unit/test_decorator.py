"""``client.locked``: the lock is held while the function's work is done, or the function is refused."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import warnings
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

import lockkit
from lockkit.errors import ConfigError


@pytest.fixture
def client(tmp_path):
    with lockkit.connect(f"memory://{tmp_path.name}", state_dir=str(tmp_path)) as client:
        yield client


@pytest.mark.parametrize("connect", [lockkit.connect, lockkit.aio.connect], ids=["threads", "asyncio"])
def test_a_decorator_without_a_name_or_with_a_misspelt_option_is_refused_where_it_stands(connect):
    client = connect("memory:")
    with pytest.raises(ConfigError, match="must be a str") as told:
        client.locked(coroutine)
    assert told.value.hint == '@client.locked("job:{id}")'
    with pytest.raises(ConfigError, match="on_busy must be"):
        client.locked("a", on_busy="wait")


def generator():
    yield


async def coroutine():
    """Does nothing."""


async def asynchronous_generator():
    yield


@pytest.mark.parametrize(
    "function",
    [
        generator,
        coroutine,
        asynchronous_generator,
        contextlib.contextmanager(generator),
        contextlib.asynccontextmanager(asynchronous_generator),
        classmethod(generator),
        staticmethod(print),
        functools.partial(print),
    ],
)
def test_what_cannot_be_seen_to_hold_is_refused_when_it_is_decorated(client, function):
    with pytest.raises(ConfigError) as told:
        client.locked("a")(function)
    assert told.value.hint


@pytest.mark.parametrize(
    "make, what",
    [
        (coroutine, "a coroutine"),
        (generator, "a generator"),
        (asynchronous_generator, "an asynchronous generator"),
        (contextlib.contextmanager(generator), "a context manager"),
        (contextlib.asynccontextmanager(asynchronous_generator), "a context manager"),
        (Future, "an awaitable or a future"),
    ],
)
def test_a_result_that_is_still_to_run_is_refused_and_the_lock_is_free_again(client, make, what):
    @functools.wraps(make)
    def sync():
        return make()

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a coroutine that was never awaited
        with pytest.raises(ConfigError, match=f"returned {what}, which would run after the lock 'a'") as told:
            client.locked("a")(sync)()
    assert told.value.name == "a"
    assert told.value.hint
    assert client.inspect("a").claims == ()


def test_work_that_goes_on_elsewhere_is_refused_and_stopped_if_it_has_not_begun(client):
    began, go_on = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(go_on.wait, 10)
        try:
            with pytest.raises(ConfigError, match="an awaitable or a future"):
                client.locked("a")(lambda: pool.submit(began.set))()
        finally:
            go_on.set()
    assert not began.is_set()


def test_a_task_is_refused_and_cancelled(client):
    ran = []

    async def body():
        ran.append(1)

    async def main():
        with pytest.raises(ConfigError, match="an awaitable or a future"):
            client.locked("a")(lambda: asyncio.create_task(body()))()
        await asyncio.sleep(0)

    asyncio.run(main())
    assert ran == []


def test_a_future_that_is_done_is_a_result_like_any_other(client):
    done = Future()
    done.set_result(7)
    assert client.locked("a")(lambda: done)() is done


def test_a_wrapper_that_finishes_what_it_wraps_is_held_to_the_end(client):
    async def work():
        return [claim.state for claim in client.inspect("a").claims]

    @client.locked("a")
    @functools.wraps(work)
    def run():
        return asyncio.run(work())

    assert run() == ["HELD"]


def test_methods_are_decorated_below_classmethod_and_staticmethod(client):
    class Job:
        @classmethod
        @client.locked("a")
        def one(cls):
            return [claim.state for claim in client.inspect("a").claims]

        @staticmethod
        @client.locked("b:{number}")
        def two(number):
            return [claim.state for claim in client.inspect(f"b:{number}").claims]

    assert Job.one() == Job().two(3) == ["HELD"]
