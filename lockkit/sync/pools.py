"""Pools: some of several members at once, behind one gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lockkit.facts import Kind
from lockkit.notes.members import members_of
from lockkit.shared.composites import Request
from lockkit.shared.options import DEFAULT, Default, Options
from lockkit.shared.pools import AnyPool
from lockkit.sync.composites import Composite, Taking
from lockkit.sync.lease import Lease
from lockkit.sync.leases import Leases
from lockkit.sync.locks import Lock, build

if TYPE_CHECKING:
    from lockkit.protocol.call import OnWait
    from lockkit.values.cancelling import Cancel
    from lockkit.values.choosers import Chooser

__all__ = ["Pool", "PoolLeases"]


class PoolLeases(Leases):
    """The leases of some members of a pool, as the request prefers them; see :class:`~lockkit.Leases`."""

    __slots__ = ("_within",)

    def __init__(
        self, leases: Sequence[Lease], look: Callable[[object], None], within: Mapping[str, str]
    ) -> None:
        super().__init__(leases, look)
        self._within = within

    @property
    def members(self) -> tuple[str, ...]:
        """The members that are held; ``names`` has the names of their locks and of those around them."""
        return members_of(self.names, self._within)


class Pool(AnyPool[PoolLeases, Lock], Composite[PoolLeases]):
    """A reusable, thread-safe factory of leases on members of a pool, made by :meth:`lockkit.Client.pool`.

    A pool has one **gate**, through which requests pass one by one, first come, first served. The request at
    the gate takes free members and waits for the rest. So requests for several members never wait for each
    other, but a request for four at the gate delays one for a single free member behind it.

    The members' locks cannot be taken in any other way. ``with pool:`` is the short form, for one member.

    Attributes:
        pool: The name of the pool.
        members: The capacity of each member.
        within: For each member that lies within another one, that other one.
        terms: The terms of a claim for the whole first member.
        owner: The owner that claims show; None for this process as it is.
    """

    if TYPE_CHECKING:  # pyright does not find the type through both base classes

        @property
        def lease(self) -> PoolLeases: ...

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
        cancel: Cancel | None = None,
        detect_deadlock: bool = False,
    ) -> PoolLeases:
        """Wait for some members and hold them.

        Args:
            count: The number of members.
            each: How much of each member's capacity to take; None for the whole member, without sharing.
            among: The members that will do, the best first; None for all, in the pool's order. The first that
                have room are taken.
            chooser: Says which members will do now, and may change its mind; see :class:`~lockkit.Chooser`.
            timeout: Seconds to wait in all; None to wait for ever, 0 not to wait; by default as configured.
            reason: Why the members are taken, kept with all claims; see :meth:`lockkit.Lock.acquire`.
            on_wait: Called as that of :meth:`lockkit.Lock.acquire`, for the gate and for members.
            cancel: Ends the wait from another thread; see :class:`lockkit.Cancel`.
            detect_deadlock: As for :meth:`lockkit.Lock.acquire`.

        Raises:
            ConfigError: The request can never be met, or names a member that the pool does not have. No I/O
                has happened, unless the chooser says so.
            AcquireTimeout: The time is up. Nothing is left in any queue, or the background removes it.
            LeaseLost: The gate, or a member already taken, was evicted during the wait. If it was not renewed
                in time instead, as in a stopped process, the request starts again at the end of the queue.
            AcquireError, BackendError: As :meth:`lockkit.Lock.acquire`.
        """
        call = self._called(timeout, reason=reason, on_wait=on_wait, cancel=cancel, detect=detect_deadlock)
        leases = self._take(call, self._request(count, each, among, chooser))
        # No call may come between: a signal must not strike where only this frame has the leases.
        assert leases is not None
        return leases

    def try_acquire(
        self,
        count: int = 1,
        *,
        each: int | None = None,
        among: Sequence[str] | None = None,
        chooser: Chooser | None = None,
        reason: str | None = None,
    ) -> PoolLeases | None:
        """Hold members if they are free now; None if too few are, or an earlier request is at the gate.

        Raises:
            ConfigError, CapacityMismatch, BackendError: As :meth:`acquire`. A failing store is never "busy".
        """
        call = self._called(0.0, reason=reason, tries=True)
        return self._take(call, self._request(count, each, among, chooser))

    def _taken(self, taking: Taking, wanted: Request | None) -> PoolLeases | None:
        steps, members = self._steps(taking, self._wanted(wanted))
        return taking.run(steps, members, self._made)

    def _made(self, leases: list[Lease]) -> PoolLeases:
        return PoolLeases(leases, self.look, self.within)

    def _made_of(self, name: str, kind: Kind, weight: int, capacity: int, options: Options) -> Lock:
        return build(self._opening, name, kind, weight, capacity, options, pooled=True)
