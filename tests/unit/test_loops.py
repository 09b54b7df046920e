"""An acquire in a running event loop is reported once, and nothing else is."""

from __future__ import annotations

import asyncio
import logging
import types

import pytest

import lockkit
from lockkit.lib import loops
from lockkit.lib.caller import caller, shown


@pytest.fixture
def client(tmp_path, monkeypatch):
    monkeypatch.setattr(loops, "_told", [])
    with lockkit.connect(f"memory://{tmp_path.name}", state_dir=str(tmp_path)) as client:
        yield client


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.WARNING, "lockkit")
    return lambda: [record.getMessage() for record in caplog.records]


def here():
    """The place of the call of this function."""
    return shown(caller())


def test_an_acquire_in_a_coroutine_is_reported_once_with_its_place_and_the_way_out(client, told):
    async def bill():
        place = here()
        with client.lock("a").acquire(), client.lock("b"):
            pass
        return place

    place = asyncio.run(bill())
    (message,) = told()
    path, line = place.rsplit(":", 1)
    assert message.startswith(f"the acquire of 'a' at {path}:{int(line) + 1} runs in an event loop")
    for word in ("await", "lockkit.aio", "lockkit docs asyncio"):
        assert word in message


def test_a_function_that_a_coroutine_calls_is_reported_too(client, told):
    @client.locked("a")
    def bill():
        return 7

    async def main():
        return bill()

    assert asyncio.run(main()) == 7
    assert len(told()) == 1


@pytest.mark.parametrize(
    "call",
    [
        lambda lock: lock.try_acquire().release(),
        lambda lock: lock.acquire(timeout=0).release(),
    ],
)
def test_what_does_not_wait_is_not_reported(client, told, call):
    async def main():
        call(client.lock("a"))

    asyncio.run(main())
    assert told() == []


def test_a_thread_of_the_loop_and_a_program_without_a_loop_are_not_reported(client, told):
    async def main():
        lease = await asyncio.to_thread(lambda: client.lock("a").acquire(timeout=1).detach())
        await asyncio.to_thread(lease.release)

    asyncio.run(main())
    with client.lock("a").acquire():
        pass
    assert told() == []


def cell_of(module):
    """A coroutine function in a module of this name that calls its argument, as a notebook runs a cell."""

    async def run(cell):
        return cell()

    return types.FunctionType(run.__code__, {"__name__": module})


def test_a_cell_of_a_notebook_is_not_reported_unless_it_is_asynchronous_itself(client, told):
    def cell():
        client.lock("a").acquire().release()

    asyncio.run(cell_of("IPython.core.interactiveshell")(cell))
    asyncio.run(cell_of("ipykernel.kernelbase")(cell))
    assert told() == []

    async def asynchronous():
        cell()

    async def notebook():
        await asynchronous()

    asyncio.run(
        types.FunctionType(notebook.__code__, {"__name__": "IPython.x"}, closure=notebook.__closure__)()
    )
    assert len(told()) == 1
