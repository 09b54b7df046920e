"""``lockkit top`` in a test's own loop, with real stores, and holders in other processes."""

from __future__ import annotations

import asyncio
import time

import pytest

import lockkit as package
from lockkit.facts import ClaimInfo, LockInfo, Owner
from lockkit.views.looking import Asked, look
from support.servers.redis import RedisServer

pytest.importorskip("textual")

from textual.widgets import Static

from lockkit.cli.top import cells
from lockkit.cli.top.app import Top
from lockkit.cli.top.confirming import Confirm
from lockkit.cli.top.live_table import LiveTable
from lockkit.cli.top.one_lock import OneLock
from lockkit.cli.top.polling import pause

PATIENCE = 40.0
OFTEN = 0.05


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.full)])
def client(request, lockkit, servers):
    """A client of the store that the shell uses."""
    url = f"sqlite:{lockkit.folder}/locks.db" if request.param == "sqlite" else servers("redis")
    namespace = f"top-{request.node.name.encode().hex()[-40:]}"
    lockkit.env |= {"LOCKKIT_URL": url, "LOCKKIT_NAMESPACE": namespace}
    with package.connect(url, namespace=namespace, state_dir=str(lockkit.folder / "state")) as client:
        yield client


class Heard(Top):
    """The application with kept notifications: textual drops each after 5 s, maybe before a test looks."""

    def __init__(self, *words, **more):
        super().__init__(*words, **more)
        self.heard = []

    def notify(self, message, **more):
        self.heard.append(message)
        super().notify(message, **more)


class Seen:
    """The application, and what a person would see of it."""

    def __init__(self, app, pilot):
        self.app, self.pilot = app, pilot

    async def until(self, true):
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, "it never came true"
            await self.pilot.pause(0.02)

    @property
    def table(self):
        return self.app.screen.query_one(LiveTable)

    @property
    def names(self):
        return [entry.info.name for entry in self.table.entries]

    def text(self, identity):
        return str(self.app.screen.query_one(f"#{identity}", Static).render())

    @property
    def told(self):
        """The notifications."""
        return self.app.heard


def see(client, steps, *, sort="age", **more):
    """Run the application, and the steps of a test beside it."""
    asked = Asked(None, sort)

    async def main():
        app = Heard(client, asked, OFTEN, first=look(client, asked), **more)
        async with app.run_test(size=(100, 30)) as pilot:
            await steps(Seen(app, pilot))

    asyncio.run(main())


def test_the_longest_wait_is_on_top_and_keys_sort_and_filter(client, lockkit):
    with client.lock("a/quiet").acquire(), client.lock("b/crowd").acquire(), client.lock("c/old").acquire():
        lockkit.start("run", "c/old", "--", "true")
        lockkit.until(lambda: client.inspect("c/old").waiters)
        lockkit.start("run", "b/crowd", "--", "true")
        lockkit.start("run", "b/crowd", "--", "true")
        lockkit.until(lambda: len(client.inspect("b/crowd").waiters) == 2)

        async def steps(seen):
            await seen.until(lambda: seen.names == ["c/old", "b/crowd", "a/quiet"])
            assert "most contended: 'b/crowd', 2 wait" in seen.text("summary")
            assert "3 locks: 3 held; 3 claims wait, the longest for" in seen.text("summary")
            await seen.pilot.press("s")
            assert seen.names == ["b/crowd", "c/old", "a/quiet"]
            await seen.pilot.press("N")
            assert seen.names == ["a/quiet", "b/crowd", "c/old"]
            await seen.pilot.press("/", *"OLD", "enter")
            assert seen.names == ["c/old"]
            await seen.pilot.press("escape")
            assert seen.names == ["a/quiet", "b/crowd", "c/old"]
            await seen.pilot.press("/", *"[bc]/*")
            assert seen.names == ["b/crowd", "c/old"]

        see(client, steps)


def test_a_new_claim_appears_and_the_cursor_stays_on_its_lock(client):
    with client.lock("m").acquire(), client.lock("z").acquire():

        async def steps(seen):
            await seen.pilot.press("down")
            assert seen.table.entry.info.name == "z"
            with client.lock("a").acquire():
                await seen.until(lambda: seen.names == ["a", "m", "z"])
                assert seen.table.entry.info.name == "z"
            await seen.until(lambda: seen.names == ["m", "z"])
            assert seen.table.entry.info.name == "z"

        see(client, steps, sort="name")


def test_one_lock_is_opened_with_its_note_and_whole_queue(client, lockkit):
    with client.lock("job").acquire(reason="nightly reindex", note={"ticket": "4711"}) as lease:
        lockkit.start("run", "job", "--", "true")
        lockkit.until(lambda: client.inspect("job").waiters)

        async def steps(seen):
            await seen.pilot.press("enter")
            await seen.until(lambda: isinstance(seen.app.screen, OneLock) and len(seen.table.entries) == 2)
            told = seen.text("sentences")
            assert "It is held for: nightly reindex." in told
            assert '{"ticket": "4711"}' in told
            assert [entry.claim.state for entry in seen.table.entries] == ["HELD", "WAITING"]
            assert seen.table.entries[0].claim.claim_id == lease.claim_id
            await seen.pilot.press("escape")
            assert not isinstance(seen.app.screen, OneLock)

        see(client, steps)


def test_an_eviction_repeats_what_will_happen_and_needs_a_reason(client, lockkit):
    holder = lockkit.holder("job", "sleep", "--ttl", "3s")

    async def steps(seen):
        await seen.until(lambda: seen.names == ["job"])
        claim = seen.table.entry.claim
        await seen.pilot.press("e")
        assert isinstance(seen.app.screen, Confirm)
        told = str(seen.app.screen.query(Static).first().render())
        assert f"Evict claim {claim.claim_id} of 'job'?" in told
        assert str(claim.owner) in told
        assert "The holder is told that its lock is lost." in told
        await seen.pilot.press("enter")
        assert "must not be empty" in seen.text("refused")
        assert not client.inspect("job").claims[0].evicted
        await seen.pilot.press(*"hung", "enter")
        assert isinstance(seen.app.screen, Confirm), "one key more confirms"
        await seen.pilot.press("enter")
        await seen.until(lambda: seen.told)
        assert f"claim {claim.claim_id} is evicted" in seen.told[0]

    see(client, steps)
    _, errors = holder.communicate(timeout=PATIENCE)
    assert "hung" in errors


def test_an_eviction_that_is_left_changes_nothing(client):
    with client.lock("job").acquire() as lease:

        async def steps(seen):
            await seen.pilot.press("e", *"hung", "escape")
            await seen.pilot.press("e", *"hung", "enter", "tab", "enter")
            await seen.until(lambda: not isinstance(seen.app.screen, Confirm))

        see(client, steps)
        lease.ensure_held()
        assert not client.inspect("job").claims[0].evicted


def test_a_claim_that_was_replaced_behind_the_confirmation_is_refused_and_the_new_one_stays(client):
    lease = client.lock("job").acquire()

    async def steps(seen):
        await seen.pilot.press("e", *"hung", "enter")
        lease.release()
        with client.lock("job").acquire() as other:
            await seen.pilot.press("enter")
            await seen.until(lambda: seen.told)
            assert f"'job' has no claim {lease.claim_id}" in seen.told[0]
            assert f"held now by: {other.claim_id}" in seen.told[0]
            other.ensure_held()
            assert not client.inspect("job").claims[0].evicted

    see(client, steps)


def test_a_holder_is_asked_and_a_waiter_cannot_be(client, lockkit):
    with client.lock("job").acquire() as lease:
        lockkit.start("run", "job", "--", "true")
        lockkit.until(lambda: client.inspect("job").waiters)

        async def steps(seen):
            await seen.pilot.press("a", *"the disk", "enter", "enter")
            await seen.until(lambda: seen.told)
            assert "is asked to release 'job'" in seen.told[0]
            await seen.pilot.press("enter")
            await seen.until(lambda: isinstance(seen.app.screen, OneLock) and len(seen.table.entries) == 2)
            await seen.pilot.press("down", "a", *"please", "enter", "enter")
            await seen.until(lambda: len(seen.told) == 2)
            assert "only waits" in seen.told[1]

        see(client, steps)
        (request,) = client.inspect("job").claims[0].release_requests
        assert request.reason == "the disk"
        lease.ensure_held()


def test_gpus_and_failures_have_tabs_of_their_own(client, lockkit):
    state = lockkit.folder / "state"
    state.mkdir(exist_ok=True)

    async def steps(seen):
        await seen.pilot.press("2")
        await seen.until(lambda: "2 GPUs: 2 free" in _drawn(seen, "gpu-table"))
        await seen.pilot.press("3")
        await seen.until(lambda: "no unresolved failures" in _drawn(seen, "failure-table"))
        await seen.pilot.press("1")
        assert seen.table.has_focus

    see(client, steps, simulate=2)


def _drawn(seen, identity):
    from rich.console import Console

    console = Console(width=100)
    with console.capture() as captured:
        console.print(seen.app.screen.query_one(f"#{identity}", Static).content)
    return captured.get()


def left(lockkit, server):
    """A hold without a process."""
    lockkit.env["LOCKKIT_URL"] = server.url()
    assert lockkit("acquire", "before", "--ttl", "5m").returncode == 0


def test_it_says_since_when_it_is_stale_and_goes_on_when_the_store_is_back(lockkit):
    with (
        RedisServer() as server,
        package.connect(
            server.url() + "?request_timeout=5s", state_dir=str(lockkit.folder / "state")
        ) as client,
    ):
        left(lockkit, server)

        async def steps(seen):
            await seen.until(lambda: seen.names == ["before"])
            server.kill()
            await seen.until(lambda: seen.app.screen.query_one("#stale").display)
            assert seen.text("stale").startswith("stale since ")
            assert seen.names == ["before"], "the last state stays"
            await seen.pilot.press("s", "down")  # the keys go on
            server.start()
            await seen.until(lambda: not seen.app.screen.query_one("#stale").display)

        see(client, steps)


def test_a_store_that_hangs_is_called_stale_before_its_deadline(lockkit):
    folder = str(lockkit.folder / "state")
    with RedisServer() as server, package.connect(server.url(), state_dir=folder) as client:
        left(lockkit, server)

        async def steps(seen):
            server.pause()
            try:
                await seen.until(lambda: "stale since" in seen.text("stale"))
            finally:
                server.resume()
            await seen.until(lambda: not seen.app.screen.query_one("#stale").display)

        see(client, steps)


def test_a_slow_store_is_read_for_a_fifth_of_the_time_at_most():
    assert pause(1.0, 0.01) == 1.0
    assert pause(1.0, 2.0) == 8.0


# -- what fits


def claim(**more):
    facts = {"name": "x", "claim_id": "0" * 12, "state": "HELD", "owner": Owner("ann", "box", 1), "fence": 1}
    return ClaimInfo(**(facts | {"position": 0, "ttl": 10.0, "since": 0.0, "deadline": 10.0} | more))


@pytest.mark.parametrize(
    "now, shown",
    [(0.0, "████████"), (5.0, "████░░░░"), (9.9, "█░░░░░░░"), (10.0, "░░░░░░░░"), (99.0, "░░░░░░░░")],
)
def test_a_bar_shows_what_is_left_of_the_ttl(now, shown):
    assert cells.bar(claim(), now) == shown


def test_without_a_deadline_there_are_words_in_place_of_the_bar():
    assert cells.bar(claim(deadline=None, process_bound=True), 0.0) == "process"
    assert cells.bar(claim(deadline=None), 0.0) == "untold"


@pytest.mark.parametrize("width", [80, 100, 160, 200])
def test_the_columns_of_both_tables_fit_the_terminal(width):
    for columns in (cells.lock_columns(width), cells.claim_columns(width)):
        assert sum(column.width + 1 for column in columns) <= width - 2, "the scroll bar needs two"


def test_a_filter_finds_names_patterns_and_owners():
    locks = [LockInfo("Team/a", (claim(),)), LockInfo("b", (claim(owner=Owner("bob", "box", 2)),))]

    def found(words):
        return [info.name for info in cells.matching(locks, words)]

    assert found("") == ["Team/a", "b"]
    assert found("team") == ["Team/a"]
    assert found("BOB@box") == ["b"]
    assert found("t*a") == ["Team/a"]
