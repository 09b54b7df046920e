"""Opening a store on a thread: a coroutine waits for it exactly as long as the synchronous face does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

import lockkit
from lockkit.aio import AsyncClient
from lockkit.errors import BackendUnavailable
from lockkit.hooks import hookimpl
from lockkit.store.spi import BackendSpec
from lockkit_memory import CAPABILITIES
from lockkit_memory.backend import open_store
from support.aio import in_a_loop


class HeldUp:
    """A store that opens when the test lets it.

    Attributes:
        begun: Set once a thread is opening it.
        opens: To be set by the test.
        budgets: Seconds that each try to open it may take.
        importing: Set once a thread imports its library.
        imported: To be cleared by a test that says how long the import takes.
    """

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.opens = threading.Event()
        self.budgets: list[float] = []
        self.importing = threading.Event()
        self.imported = threading.Event()
        self.imported.set()

    @hookimpl
    def lockkit_backends(self):
        capabilities = CAPABILITIES._replace(scope="fleet")
        return [BackendSpec("late", ("late",), self.open, "opens late", capabilities, check=self.check)]

    def check(self, url):
        self.importing.set()
        assert self.imported.wait(30)
        raise ImportError(url)  # opening the store says so, too

    def open(self, url, options):
        self.budgets.append(options.budget)
        self.begun.set()
        assert self.opens.wait(30)
        return open_store("memory://late", options)


@pytest.fixture
def store():
    store = HeldUp()
    yield store
    store.imported.set()  # for the thread that a failed test leaves
    store.opens.set()


@pytest.fixture
def client(store, tmp_path):
    inner = lockkit.connect("late://here?request_timeout=2s", plugins=[store], state_dir=str(tmp_path))
    yield AsyncClient(inner)
    store.opens.set()
    inner.close()


class Ahead:
    """The running loop, whose time the test moves ahead."""

    def __init__(self) -> None:
        self._ahead = 0.0
        loop = asyncio.get_running_loop()
        real = loop.time
        loop.time = lambda: real() + self._ahead  # type: ignore[method-assign]

    async def by(self, seconds: float, over: Callable[[], bool]) -> None:
        """Let time pass, and the loop run what is due then; end early if something is over."""
        self._ahead += seconds
        for _ in range(10):
            if over():
                return
            await asyncio.sleep(0)


ASKED = {
    "try_acquire": lambda client: client.lock("a").try_acquire(),
    "acquire": lambda client: client.lock("a").acquire(timeout=30),
    "all_of": lambda client: client.all_of([client.lock("a"), client.lock("b")]).try_acquire(),
}


@in_a_loop
@pytest.mark.parametrize("asked", ASKED)
async def test_a_coroutine_waits_for_a_store_that_opens_within_a_request_timeout(store, client, asked):
    time = Ahead()
    caller = asyncio.ensure_future(ASKED[asked](client))
    assert await asyncio.to_thread(store.begun.wait, 10)

    await time.by(1.9, caller.done)
    assert not caller.done()
    store.opens.set()

    assert (await caller) is not None
    assert store.budgets == [2.0]
    await client.close()


@in_a_loop
@pytest.mark.parametrize("asked", ASKED)
async def test_the_import_of_a_client_library_counts_within_no_timeout(store, client, asked):
    store.imported.clear()
    store.opens.set()
    time = Ahead()
    caller = asyncio.ensure_future(ASKED[asked](client))
    assert await asyncio.to_thread(store.importing.wait, 10)

    await time.by(100, caller.done)
    assert not caller.done()
    store.imported.set()

    assert (await caller) is not None
    assert store.budgets == [2.0]
    await client.close()


@in_a_loop
async def test_a_coroutine_waits_no_longer_for_a_store_that_hangs(store, client):
    time = Ahead()
    caller = asyncio.ensure_future(client.lock("a").try_acquire())
    assert await asyncio.to_thread(store.begun.wait, 10)

    await time.by(2.5, caller.done)

    with pytest.raises(BackendUnavailable, match="did not open within 2 s"):
        await caller
