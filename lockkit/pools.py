"""Pools: some of several members at once, behind one gate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from lockkit import durations
from lockkit.composites import Taking
from lockkit.errors import ConfigError
from lockkit.facts import Kind, Owner
from lockkit.lease import Lease
from lockkit.leases import Leases
from lockkit.locking import checked_timeout
from lockkit.locks import Lock, build
from lockkit.members import in_pool, pool_name, weights, whole
from lockkit.names import check_name
from lockkit.options import DEFAULT, Default, Options
from lockkit.protocol import denials
from lockkit.protocol.acquiring import Attempt
from lockkit.protocol.composing import some_of
from lockkit.settings import meant
from lockkit.shortform import ShortForm

if TYPE_CHECKING:
    from lockkit.cancelling import Cancel
    from lockkit.drivers.waits import OnWait
    from lockkit.opening import Opening
    from lockkit.store.spi import Terms

__all__ = ["Pool", "PoolLeases"]


class PoolLeases(Leases):
    """The leases of some members of a pool, in the order in which the request prefers them; see :class:`~lockkit.Leases`."""

    __slots__ = ()

    @property
    def members(self) -> tuple[str, ...]:
        """The members that are held; ``names`` has the names of their locks."""
        return tuple(found[1] or "" for name in self.names if (found := in_pool(name)) is not None)


class _Request(NamedTuple):
    """A request: some of the members in ``among``, each with its weight."""

    wanted: int
    among: Mapping[str, int]


class Pool(ShortForm[PoolLeases]):
    """A reusable, thread-safe factory of leases on some members of a pool, made by :meth:`lockkit.Client.pool`.

    A pool has one **gate**, through which requests pass one by one, first come, first served. The request at the gate takes the members
    that are free and waits for those that it still needs. So requests for several members never wait for each other, but a request
    for four at the gate holds up a request for one behind it, even if one member is free.

    The members' locks cannot be taken in any other way. ``with pool:`` is the short form, for one member.

    Attributes:
        pool: The name of the pool.
        members: The capacity of each member.
        terms: The terms of a claim for the whole first member.
        owner: The owner that claims show; None for this process as it is.
    """

    def __init__(
        self, opening: Opening, name: str, members: Iterable[str] | Mapping[str, int], options: Options
    ) -> None:
        super().__init__(opening)
        self.pool = check_name(name)
        self.members: Mapping[str, int] = weights(members, name)
        timeout = options.get("timeout", opening.config.timeout)
        self._timeout = None if timeout is None else durations.seconds(timeout, what="timeout", zero=True)
        if options.get("reentrant"):
            raise ConfigError("reentrant=True is for mutexes, not for a pool", name=name)
        self._options = options
        of_gate: Options = {}
        for key in ("ttl", "process_bound"):
            if key in options:
                of_gate[key] = options[key]
        self._of_gate: Options = {**of_gate, "max_hold": None, "min_hold": 0.0, "lock_delay": 0.0}
        self._request(1, None, None)
        self.owner: Owner | None = None
        self._known: dict[tuple[str, int], Lock] = {}
        self._gate(_Request(1, {}))  # refuses bad options now rather than at the first call
        self.terms = next(iter(self._locks(self.members).values())).terms

    @property
    def name(self) -> str:
        """The name of the pool, as errors show it."""
        return self.pool

    def acquire(
        self,
        count: int = 1,
        *,
        each: int | None = None,
        among: Sequence[str] | None = None,
        timeout: float | Default | None = DEFAULT,
        on_wait: OnWait | None = None,
        cancel: Cancel | None = None,
        detect_deadlock: bool = False,
    ) -> PoolLeases:
        """Wait for some members and hold them.

        Args:
            count: The number of members.
            each: How much of each member's capacity to take; None for the whole member, which then nobody shares.
            among: The members that will do, the best first; None for all, in the order in which the pool lists them. Of those that
                have room now, the first are taken.
            timeout: Seconds to wait in all; None to wait for ever, 0 not to wait; by default as configured.
            on_wait: Called as that of :meth:`lockkit.Lock.acquire`, for the gate and for members.
            cancel: Ends the wait from another thread; see :class:`lockkit.Cancel`.
            detect_deadlock: As for :meth:`lockkit.Lock.acquire`.

        Raises:
            ConfigError: The request can never be met, or names a member that the pool does not have. No I/O has happened.
            AcquireTimeout: The time is up. Nothing is left in any queue.
            LeaseLost: The gate, or a member that it had got already, was lost while this waited (evicted, for instance).
            AcquireError, BackendError: As :meth:`lockkit.Lock.acquire`.
        """
        wait = self._timeout if isinstance(timeout, Default) else checked_timeout(timeout)
        request = self._request(count, each, among)
        busy: list[Attempt] = []
        leases = self._take(request, wait, on_wait, busy, cancel, detect=detect_deadlock)
        if leases is not None:
            return leases
        name = busy[0].terms.name
        error = denials.busy((name,), name, busy[0].holder, self._opening.clock.wall())
        raise denials.too_few(error, self.pool, None, count)

    def try_acquire(
        self, count: int = 1, *, each: int | None = None, among: Sequence[str] | None = None
    ) -> PoolLeases | None:
        """Hold some members if they are free now; None if too few are, or if another request is at the gate, which comes first.

        Raises:
            ConfigError, CapacityMismatch, BackendError: As :meth:`acquire`. A failing store is never reported as busy.
        """
        return self._take(self._request(count, each, among), 0.0, None, [])

    def check(self, count: int = 1, *, each: int | None = None, among: Sequence[str] | None = None) -> None:
        """Refuse a request that can never be met, without any I/O.

        Raises:
            ConfigError: The request can never be met, or names a member that the pool does not have.
        """
        self._request(count, each, among)

    def terms_of_members(self, *, each: int | None = None) -> Mapping[str, Terms]:
        """The terms of a claim for each member that has room for ``each``, by the name of its lock."""
        locks = self._locks(self._request(1, each, None).among)
        return {lock.name: lock.terms for lock in locks.values()}

    def _once(self) -> PoolLeases:
        return self.acquire()

    def _take(
        self,
        request: _Request,
        wait: float | None,
        on_wait: OnWait | None,
        busy: list[Attempt],
        cancel: Cancel | None = None,
        *,
        detect: bool = False,
    ) -> PoolLeases | None:
        locks = self._locks(request.among)
        gate = self._gate(request)
        taking = Taking(self._opening, wait, self.pool, on_wait, cancel, detect=detect)
        tries = {taking.attempt(lock, wait=False): lock for lock in locks.values()}
        claims = {taking.attempt(lock, wait=True): lock for lock in locks.values()} if wait != 0 else {}
        steps = some_of(
            taking.together,
            self.pool,
            taking.attempt(gate, wait=wait != 0),
            tuple(tries),
            tuple(claims),
            request.wanted,
            taking.driver.means,
        )
        leases = taking.run(steps, tries | claims, self._made)
        # No call may come between: a signal must not strike where only this frame has the leases.
        if leases is not None:
            return leases
        busy.append(taking.busy)
        return None

    def _made(self, leases: list[Lease]) -> PoolLeases:
        return PoolLeases(leases, self.look)

    def _gate(self, request: _Request) -> Lock:
        """The gate, with a note that says what is asked for."""
        asked: dict[str, object] = {"count": request.wanted}
        if len(set(request.among.values())) == 1:
            asked["each"] = next(iter(request.among.values()))
        gate = pool_name(self.pool)
        return self._build(gate, "mutex", 1, 1, {**self._of_gate, "note": {"pool": asked}})

    def _locks(self, weights: Mapping[str, int]) -> Mapping[str, Lock]:
        """The locks of some members, for claims of these weights."""
        return {member: self._lock(member, weight) for member, weight in weights.items()}

    def _lock(self, member: str, weight: int) -> Lock:
        """The lock of a member, for a claim of this weight; the same one each time, because to make one takes a while."""
        lock = self._known.get((member, weight))
        if lock is None:
            capacity = self.members[member]
            kind: Kind = "semaphore" if capacity > 1 else "mutex"
            name = pool_name(self.pool, member)
            lock = self._known[member, weight] = self._build(name, kind, weight, capacity, self._options)
        return self._owned(lock)

    def _build(self, name: str, kind: Kind, weight: int, capacity: int, options: Options) -> Lock:
        return self._owned(build(self._opening, name, kind, weight, capacity, options, pooled=True))

    def _owned(self, lock: Lock) -> Lock:
        if self.owner is not None:
            lock.terms = lock.terms._replace(owner=self.owner)
        return lock

    def _request(self, count: int, each: int | None, among: Sequence[str] | None) -> _Request:
        """Check a request.

        Raises:
            ConfigError: The request can never be met, or names a member that the pool does not have.
        """
        pool = f"pool {self.pool!r}"
        whole(count, "count", self.pool)
        if each is not None:
            whole(each, "each", self.pool)
        if isinstance(among, str):
            raise ConfigError(f"among must be a list of members, not {among!r}", name=self.pool)
        chosen = list(self.members if among is None else among)
        for member in chosen:
            if member not in self.members:
                known = ", ".join(self.members)
                hint = meant(member, self.members) or f"the members are: {known}"
                raise ConfigError(f"{pool} has no member {member!r}", name=self.pool, hint=hint)
        if len(set(chosen)) < len(chosen):
            raise ConfigError(f"among names a member of {pool} twice", name=self.pool)
        fits = {
            member: self.members[member] if each is None else each
            for member in chosen
            if each is None or each <= self.members[member]
        }
        if len(fits) < count:
            share = "" if each is None else f" with room for {each}"
            found = f"{len(fits)} member{'' if len(fits) == 1 else 's'}{share}"
            where = "" if among is None else " among those that will do"
            raise ConfigError(
                f"{pool} has only {found}{where}, so a request for {count} can never be met",
                name=self.pool,
                hint="ask for less",
            )
        return _Request(count, fits)

    def __repr__(self) -> str:
        return (
            f"<Pool {self.pool!r} of {', '.join(f'{name} ({room})' for name, room in self.members.items())}>"
        )
