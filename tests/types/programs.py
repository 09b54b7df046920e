"""Programs as users write them, for type checkers: mypy and pyright must see these types and mistakes.

A comment ignores each error that is expected, and a comment that ignores nothing is an error itself.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal, assert_type

import redis

import lockkit
from lockkit import Lease, Lock, Skipped
from lockkit.facts import Drain, ReleaseRequest
from lockkit.gpu import gpu_lock, release_lock


def a_decorated_function_keeps_its_type(client: lockkit.Client) -> None:
    """By default a call that finds the lock busy raises, so the function's return type stays the same."""

    @client.locked("job:{number}")
    def by_default(number: int, *, fast: bool = False) -> str:
        return f"{number}{fast}"

    @client.locked("job:{number}", on_busy="raise", ttl=5, timeout=None)
    def told(number: int) -> list[int]:
        return [number]

    assert_type(by_default(7, fast=True), str)
    assert_type(told(7), list[int])
    by_default("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    by_default()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def a_function_that_may_be_skipped_says_so(client: lockkit.Client, on_busy: Literal["raise", "skip"]) -> None:
    """With ``skip`` a call may return Skipped, and the type checker asks for an answer to that."""

    @client.locked("job:{number}", timeout=0, on_busy="skip")
    def skipping(number: int) -> str:
        return str(number)

    @client.locked("job:{number}", on_busy=on_busy)
    def either(number: int) -> str:
        return str(number)

    assert_type(skipping(7), str | Skipped)
    assert_type(either(7), str | Skipped)
    skipping(7).upper()  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]
    client.locked("job", on_busy="wait")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


def settings_and_options_have_types(client: lockkit.Client) -> None:
    """A misspelt option and a value of the wrong type are found before the program runs."""
    assert_type(lockkit.connect("memory:", ttl=5, timeout=None, max_hold=60), lockkit.Client)
    assert_type(client.lock("a", ttl=5), Lock)
    assert_type(client.lock("a").acquire(), Lease)
    assert_type(client.lock("a").try_acquire(), Lease | None)
    told: list[str] = []
    with client.lock("a", reason="nightly reindex").acquire(reason="by hand") as lease:
        assert_type(lease.release_requested, threading.Event)
        assert_type(client.drain("please"), Drain)
        assert_type(client.drained("b"), Drain | None)
        assert_type(client.undrain(), Drain | None)
        assert_type(client.ask_release("a", lease.claim_id, "please"), ReleaseRequest)
        lease.on_release_requested(lambda request: told.append(request.reason))
        lease.on_release(lambda context: told.append(context.reason))
        lease.beat(0.4, "epoch 4/10")
        lease.beat("half")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.lock("a").acquire(reason=7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    lockkit.connect("memory:", tll=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    lockkit.connect("memory:", ttl="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.lock("a", tll=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def habits_of_other_libraries_are_errors(client: lockkit.Client) -> None:
    """A run-time error says what to write instead; a type checker sees no such name or keyword."""
    lock = client.lock("a")
    with lock as held:
        assert_type(held, Lock)
        assert_type(held.lease.fence, int)
        held.fence  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # noqa: B018
    lock.release()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    lock.acquire(blocking=False)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.rwlock("a").acquire()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    lock.acquire().refresh()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


def small_interfaces_have_types(client: lockkit.Client) -> None:
    """Small helpers take and return what their documentation says."""
    assert_type(lockkit.safe_name("any text"), str)
    lockkit.safe_name(b"bytes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(client.lock("a").held(), bool)
    assert_type(client.semaphore("a", 3).available(), int)
    assert_type(client.inspect("a").available, int | None)
    assert_type(client.rwlock("a", reentrant=True).read(), Lock)
    assert_type(client.adopt({}).extend(30), None)
    stop = lockkit.Cancel()
    assert_type(client.lock("a").acquire(cancel=stop), Lease)
    assert_type(client.all_of([client.lock("a")]).acquire(cancel=stop), lockkit.Leases)
    assert_type(client.pool("p").acquire(cancel=stop), lockkit.PoolLeases)
    assert_type(client.pool("p").acquire(reason="why"), lockkit.PoolLeases)

    assert_type(client.any_of([client.lock("a")]).try_acquire(reason="why"), lockkit.Lease | None)
    assert_type(client.all_of([client.lock("a")]).held(), bool)
    client.lock("a").acquire(cancel=threading.Event())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Looks:
    """A chooser, whose class needs no base."""

    every = 2.0

    def choose(self, held: Sequence[str]) -> lockkit.Choice:  # noqa: ARG002
        return lockkit.Choice(["a"], {"b": "used"}, None)

    def judge(self, member: str) -> str | None:  # noqa: ARG002
        return None


def a_chooser_is_any_object_with_its_methods(client: lockkit.Client) -> None:
    """A pool takes a chooser by its methods, and says which members stand within others."""
    pool = client.pool("p", {"card": 2, "a": 1}, within={"a": "card"}, ttl=30)
    assert_type(pool.acquire(chooser=Looks()), lockkit.PoolLeases)
    assert_type(pool.try_acquire(chooser=Looks()), lockkit.PoolLeases | None)
    pool.acquire(chooser=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.pool("p", ["a"], within=["a"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def guards_take_leases_and_say_what_they_return(
    client: lockkit.Client, connection: sqlite3.Connection, store: redis.Redis
) -> None:
    """A gate takes a lease and nothing else; values are bytes, and columns by name on SQL."""
    rows = lockkit.guard.sql(connection, "accounts", key={"id": 42})
    assert_type(rows, lockkit.guard.SqlGate)
    files, keys = lockkit.guard.file("report"), lockkit.guard.redis(store, "stock:42", timeout=2)
    assert_type(files, lockkit.guard.FileGate)
    assert_type(keys, lockkit.guard.FenceGate)
    with client.lock("a").acquire() as lease, rows.open(lease) as row, files.open(lease) as file:
        assert_type(row.read(), dict[str, object])
        row.write({"balance": 90})
        with row.transaction():
            row.check()
        assert_type(file, lockkit.guard.GuardedFile)
        assert_type(file.read(), bytes | None)
        file.publish("prepared")
        key = keys.open(lease)
        assert_type(key, lockkit.guard.Guarded)
        assert_type(keys.peek().value, bytes | None)
        key.write("text")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        row.write(90)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    rows.open(client)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    rows.open(lease.fence)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    lockkit.guard.etcd("etcd://host", "key").open(lease)
    lockkit.guard.sql("sqlite:", "accounts", key={"id": 42})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    lockkit.guard.sql(connection, "accounts")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


def run(_coroutine: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Call a function that returns a coroutine."""


def a_task_under_the_old_gpu_lock_keeps_its_type() -> None:
    """Also one that is a coroutine function."""

    @gpu_lock(timeout=600, poll_interval=1, max_wait_time=300)
    def transcribe(path: str, *, fast: bool = False) -> list[str]:
        return [path] * fast

    @gpu_lock("gpu_lock:1")
    async def translate(text: str) -> str:
        return text

    async def both() -> None:
        assert_type(transcribe("a.wav", fast=True), list[str])
        assert_type(await translate("a"), str)

    transcribe(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(release_lock("transcribe", "gpu_lock:0", "task_failure"), bool)
    run(both)
