"""``client.locked``: the lock is held while the function's work is done, or the function is refused."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import functools
import threading
import uuid
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


class Named:
    """Has a text of its own where it stands alone, and that of its address in a list."""

    def __str__(self):
        return "named"


@pytest.mark.parametrize(
    "value, told",
    [
        ({"a": 1, "b": 2}, "a dict"),
        ({"a", "b"}, "a set"),
        (frozenset("ab"), "a frozenset"),
        ({"a": 1}.keys(), "a dict_keys"),
        ([1, {"a": 1}], "a dict"),
        ((1, [{2}]), "a set"),
        (object(), "a object"),
        (print, None),
        (Named(), None),
        (lambda: None, "a function"),
        ([Named()], "a Named"),
        (" at 0x7f", None),
        ({" at 0x7f": 1}.keys().__iter__(), "a dict_keyiterator"),
        ([1, None, "a", (2.5, True)], None),
        (uuid.UUID(int=7), None),
        (dt.date(2026, 7, 1), None),
    ],
)
@pytest.mark.parametrize("template", ["{value}", "{value!s}", "{value:}", "{rest[0]}"])
def test_a_value_whose_text_may_differ_between_equal_calls_names_no_lock(client, value, told, template):
    """Two processes would lock two names for one thing."""

    @client.locked(f"a:{template}")
    def work(value, *rest):
        return client.names()

    if told is None:
        assert work(value, value) == [f"a:{value}"]
        return
    with pytest.raises(ConfigError, match=f"a lock would be named after {told}") as refused:
        work(value, value)
    assert refused.value.hint
    assert client.names() == []


@pytest.mark.parametrize("template", ["{found}", "{found.name}", "{found[0]}"])
def test_a_skipped_call_names_no_lock(client, template):
    @client.locked(f"b:{template}")
    def work(found):
        raise AssertionError("ran")

    with pytest.raises(ConfigError, match="skipped, because 'a' was busy") as refused:
        work(lockkit.Skipped("a"))
    assert refused.value.hint


def test_the_text_that_is_asked_for_counts(client):
    @client.locked("{value!r}")
    def work(value): ...

    with pytest.raises(ConfigError, match="named after a Named"):
        work(Named())
    with pytest.raises(ConfigError, match="named after a dict"):
        work({})


def test_keywords_without_a_place_of_their_own_are_named_one_by_one(client):
    with pytest.raises(ConfigError, match="have no order") as refused:
        client.locked("a:{rest}")(lambda **rest: None)
    assert refused.value.hint == "name each that matters: {rest[...]}"

    @client.locked("a:{rest[x]}:{rest[y]}:{first}")
    def work(*first, **rest):
        return client.names()

    assert work(1, y=2, x=3) == work(1, x=3, y=2) == ["a:3:2:(1,)"]


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
