"""Programs with asyncio as users write them, for type checkers alone; see :mod:`types.programs`."""

from __future__ import annotations

from typing import assert_type

import lockkit.aio
from lockkit import LeaseLost, ReleaseReport, ReleaseReports, Skipped
from lockkit.aio import (
    AsyncAllOf,
    AsyncAnyOf,
    AsyncClient,
    AsyncLease,
    AsyncLeaseCopy,
    AsyncLeases,
    AsyncLock,
    AsyncPool,
    AsyncPoolLeases,
    AsyncRWLock,
    connect,
)
from lockkit.facts import Drain, LockInfo, ReleaseRequest


async def the_face_has_types() -> None:
    """Calls that are awaited, and the type of each result."""
    client = await connect("memory:", ttl=5)
    assert_type(client, AsyncClient)
    async with lockkit.aio.connect("memory:") as other:
        assert_type(other, AsyncClient)
    lock = client.lock("a", ttl=5)
    assert_type(lock, AsyncLock)
    assert_type(await lock.acquire(timeout=5), AsyncLease)
    assert_type(await lock.try_acquire(), AsyncLease | None)
    async with lock.acquire() as lease, lease.cancel_on_loss():
        assert_type(lease, AsyncLease)
        assert_type(lease.fence, int)
        assert_type(lease.valid(), bool)
        assert_type(lease.lost.is_set(), bool)
        await lease.lost
        assert_type(lease.release_requested.is_set(), bool)
        await lease.release_requested
        lease.beat(progress=0.4, message="epoch 4/10")
        assert_type(lease.release_requests, tuple[ReleaseRequest, ...])
        assert_type(await client.drain("please"), Drain)
        assert_type(await client.drained("b"), Drain | None)
        assert_type(await client.undrain(), Drain | None)
        assert_type(await client.ask_release("a", lease.claim_id, "please"), ReleaseRequest)
        await lease.confirm()
        assert_type(await lease.release(), ReleaseReport)
        assert_type(client.adopt(lease.handle()), AsyncLeaseCopy)
    async with lock as same:
        assert_type(same, AsyncLock)
        assert_type(same.lease, AsyncLease)
    assert_type(client.rwlock("b"), AsyncRWLock)
    assert_type(client.rwlock("b").read(), AsyncLock)
    assert_type(await client.inspect("a"), LockInfo)


async def locks_taken_together_have_types(client: AsyncClient) -> None:
    """Several locks are awaited as one is."""
    a, b = client.lock("a"), client.rwlock("b").read()
    both, either = client.all_of([a, b], timeout=5), client.any_of([a, b])
    assert_type(both, AsyncAllOf)
    assert_type(either, AsyncAnyOf)
    assert_type(await both.acquire(timeout=5, detect_deadlock=True), AsyncLeases)
    assert_type(await both.try_acquire(), AsyncLeases | None)
    assert_type(await either.acquire(), AsyncLease)
    assert_type(await either.try_acquire(), AsyncLease | None)
    async with both.acquire() as leases, leases.cancel_on_loss(), both as same:
        assert_type(leases, AsyncLeases)
        assert_type(leases[0], AsyncLease)
        assert_type(same.lease, AsyncLeases)
        assert_type(leases.lost.is_set(), bool)
        await leases.release_requested
        assert_type(await leases.release(), ReleaseReports)
    async with either as one:
        assert_type(one.lease, AsyncLease)
    pool = client.pool("p", {"0": 80, "1": 80}, ttl=30)
    assert_type(pool, AsyncPool)
    async with pool.acquire(2, each=20, among=["0", "1"]) as some, pool as first:
        assert_type(some, AsyncPoolLeases)
        assert_type(some.members, tuple[str, ...])
        assert_type(first.lease, AsyncPoolLeases)
    assert_type(await pool.try_acquire(), AsyncPoolLeases | None)
    client.all_of(["a"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
    both.acquire().names  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # noqa: B018


async def a_decorated_coroutine_function_keeps_its_type(client: AsyncClient) -> None:
    """The type checker sees what the coroutine returns, and that it may have been skipped."""

    @client.locked("job:{number}")
    async def by_default(number: int) -> str:
        return str(number)

    @client.locked("job:{number}", timeout=0, on_busy="skip")
    async def skipping(number: int) -> str:
        return str(number)

    assert_type(await by_default(7), str)
    assert_type(await skipping(7), str | Skipped)
    await by_default("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    @client.locked("job")  # type: ignore[type-var, arg-type, unused-ignore]  # pyright: ignore[reportArgumentType]
    def plain() -> str:
        return ""


async def what_must_be_awaited_is_no_lease(client: AsyncClient) -> None:
    """An acquire that nobody awaited has no fence."""
    client.lock("a").acquire().fence  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]  # noqa: B018
    client.lock("a", tll=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    try:
        client.lock("a").lease.ensure_held()
    except LeaseLost as lost:
        assert_type(lost.name, str | None)
