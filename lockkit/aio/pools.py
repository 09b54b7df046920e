"""Pools, in a program with asyncio: some of several members at once, behind one gate."""

from __future__ import annotations

from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lockkit.aio.composites import AsyncComposite, AsyncTaking
from lockkit.aio.lease import AsyncLease
from lockkit.aio.leases import AsyncPoolLeases
from lockkit.aio.locks import AsyncLock, build
from lockkit.aio.shortform import Acquiring
from lockkit.facts import Kind
from lockkit.lib.caller import caller
from lockkit.shared.composites import Request
from lockkit.shared.options import DEFAULT, Default, Options
from lockkit.shared.pools import AnyPool

if TYPE_CHECKING:
    from lockkit.aio.engines import Engines
    from lockkit.protocol.call import OnWait
    from lockkit.values.choosers import Chooser

__all__ = ["AsyncPool"]


class AsyncPool(AnyPool[AsyncPoolLeases, AsyncLock], AsyncComposite[AsyncPoolLeases]):
    """A factory of leases on members of a pool, made by :meth:`AsyncClient.pool`; see :class:`~lockkit.Pool`.

    ``async with pool:`` is for one member. A cancelled acquire leaves nothing in the store or at the gate.

    Attributes:
        pool: The name of the pool.
        members: The capacity of each member.
        within: For each member that lies within another one, that other one.
        terms: The terms of a claim for the whole first member.
        owner: The owner that claims show; None for this process as it is.
    """

    def __init__(
        self,
        engines: Engines,
        name: str,
        members: Iterable[str] | Mapping[str, int],
        within: Mapping[str, str] | None,
        options: Options,
    ) -> None:
        self._engines = engines
        super().__init__(engines.opening, name, members, within, options)

    if TYPE_CHECKING:  # pyright does not find the type through both base classes

        @property
        def lease(self) -> AsyncPoolLeases: ...

    def acquire(
        self,
        count: int = 1,
        *,
        each: int | None = None,
        among: Sequence[str] | None = None,
        chooser: Chooser | None = None,
        timeout: float | Default | None = DEFAULT,
        reason: str | None = None,
        on_wait: OnWait | None = None,
        detect_deadlock: bool = False,
    ) -> Acquiring[AsyncPoolLeases]:
        """Wait for some members and hold them: ``await`` it, or ``async with pool.acquire(2) as leases:``.

        Arguments as for :meth:`lockkit.Pool.acquire`; ``on_wait`` is a plain function, called in the loop.

        Raises:
            ConfigError: The request can never be met, or names a member that the pool does not have. No I/O
                has happened, unless the chooser says so.
            AcquireTimeout: The time is up. Nothing is left in any queue, or the background removes it.
            LeaseLost: The gate, or a member already taken, was evicted during the wait. If it was not renewed
                in time instead, as in a stopped process, the request starts again at the end of the queue.
            AcquireError, BackendError: As :meth:`AsyncLock.acquire`.
        """
        call = self._called(timeout, reason=reason, on_wait=on_wait, detect=detect_deadlock)
        return Acquiring(self._take(call, caller(), self._request(count, each, among, chooser)))

    def try_acquire(
        self,
        count: int = 1,
        *,
        each: int | None = None,
        among: Sequence[str] | None = None,
        chooser: Chooser | None = None,
        reason: str | None = None,
    ) -> Coroutine[Any, Any, AsyncPoolLeases | None]:
        """Hold members if they are free now; None if too few are, or an earlier request is at the gate.

        Raises:
            ConfigError, CapacityMismatch, BackendError: As :meth:`acquire`. A failing store is never "busy".
        """
        call = self._called(0.0, reason=reason, tries=True)
        return self._take(call, caller(), self._request(count, each, among, chooser))

    async def _taken(self, taking: AsyncTaking, wanted: Request | None) -> AsyncPoolLeases | None:
        steps, members = self._steps(taking, self._wanted(wanted))
        return await taking.run(steps, members, self._made)

    def _made(self, leases: list[AsyncLease]) -> AsyncPoolLeases:
        return AsyncPoolLeases(leases, self.within)

    def _made_of(self, name: str, kind: Kind, weight: int, capacity: int, options: Options) -> AsyncLock:
        return build(self._engines, name, kind, weight, capacity, options, pooled=True)
