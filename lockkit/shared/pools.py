"""The part of a pool that both faces share: its members and its gate, and which requests can be met."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lockkit.config.settings import meant
from lockkit.errors import AcquireTimeout, ConfigError, LockkitError
from lockkit.facts import Kind, Owner
from lockkit.lib.forks import IMPORTS
from lockkit.lib.leaving import Held
from lockkit.notes.members import check_within, fitting_members, pool_name, weights
from lockkit.protocol import denials
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.call import Call
from lockkit.protocol.composing import NoChooser, Steps, some_of
from lockkit.protocol.together import Candidate
from lockkit.shared.composites import PATIENCE, AnyTaking, Request
from lockkit.shared.locks import AnyLock
from lockkit.shared.options import Options, check_plain
from lockkit.shared.shortform import AnyShortForm
from lockkit.store.ttls import UsualTtl
from lockkit.values import durations
from lockkit.values.names import check_name

if TYPE_CHECKING:
    from lockkit.shared.opening import Opening
    from lockkit.store.spi import Terms
    from lockkit.values.choosers import Chooser

__all__ = ["AnyPool"]

H = TypeVar("H", bound=Held)
K = TypeVar("K", bound=AnyLock[Any])


class AnyPool(AnyShortForm[H], Generic[H, K]):
    """The members of a pool and its gate; the pools of the two faces add the calls that wait."""

    def __init__(
        self,
        opening: Opening,
        name: str,
        members: Iterable[str] | Mapping[str, int],
        within: Mapping[str, str] | None,
        options: Options,
    ) -> None:
        timeout = options.get("timeout", opening.config.timeout)
        limit = None if timeout is None else durations.seconds(timeout, what="timeout", zero=True)
        super().__init__(opening, limit)
        self.pool = check_name(name)
        self.members: Mapping[str, int] = weights(members, name)
        self.within: Mapping[str, str] = {} if within is None else check_within(within, self.members, name)
        if options.get("reentrant"):
            raise ConfigError("reentrant=True is for mutexes, not for a pool", name=name)
        self._options = options
        # The gate lapses like a waiter, not like a holder: a stopped process must not stop all others.
        of_gate: Options = {"ttl": UsualTtl(PATIENCE), "max_hold": None, "min_hold": 0.0, "lock_delay": 0.0}
        if "reason" in options:
            of_gate["reason"] = options["reason"]
        self._of_gate = of_gate
        self.owner: Owner | None = None
        self._known: dict[tuple[str, int], K] = {}
        self._gate(Request(1, {}))  # refuses bad options now rather than at the first call
        self.terms = next(iter(self._locks(self.members).values())).terms

    @property
    def name(self) -> str:
        """The name of the pool, as errors show it."""
        return self.pool

    def check(self, count: int = 1, *, each: int | None = None, among: Sequence[str] | None = None) -> None:
        """Refuse a request that can never be met, without any I/O.

        Raises:
            ConfigError: The request can never be met, or names a member that the pool does not have.
        """
        self._request(count, each, among)

    def held(self) -> bool:
        """Whether the calling thread or task surely holds any member now; see :meth:`lockkit.Lock.held`."""
        return any(lock.held() for lock in self._locks(self.members).values())

    def terms_of_members(self, *, each: int | None = None) -> Mapping[str, Terms]:
        """The terms of a claim for each member that has room for ``each``, by the name of its lock."""
        locks = self._locks(self._request(1, each, None).among)
        return {lock.name: lock.terms for lock in locks.values()}

    def _made_of(self, name: str, kind: Kind, weight: int, capacity: int, options: Options) -> K:
        """Make a lock of the pool."""
        raise NotImplementedError

    def _explained(self, call: Call) -> Call:
        if call.reason is not None:
            self._lock_of(next(iter(self.members))).check_reason(call.reason)
        return call

    def _wanted(self, request: Request | None) -> Request:
        """A request; None for any one member."""
        return self._request(1, None, None) if request is None else request

    def _steps(self, taking: AnyTaking, request: Request) -> tuple[Steps, dict[Attempt, K]]:
        """The acquisition that a request makes, and the member of each of its attempts."""
        locks: dict[Attempt, K] = {}
        wait = taking.waits
        gate = taking.attempt(self._gate(request), wait=wait)
        candidates: list[Candidate] = []
        for member, weight in request.among.items():
            tries: list[Attempt] = []
            claims: list[Attempt] = []
            needed = self._locks_of(member, weight)
            many = request.wanted * len(needed)
            for lock in needed:
                tries.append(taking.attempt(lock, wait=False, one_of=many))
                locks[tries[-1]] = lock
                if wait:
                    claims.append(taking.attempt(lock, wait=True, one_of=many))
                    tries[-1].then = claims[-1]
                    locks[claims[-1]] = lock
            candidates.append(Candidate(member, tries, claims))
        tools, together = taking.driver.tools, taking.together
        members = NoChooser()
        if request.chooser is not None:
            with IMPORTS:
                from lockkit.protocol.choosing import Choosing  # most programs never have a chooser

            members = Choosing(
                request.chooser, self.pool, self.members, request.among, together, gate, tools.now
            )
        return some_of(together, self.pool, gate, candidates, request.wanted, tools, members), locks

    def _denied(self, taking: AnyTaking, wanted: Request | None) -> AcquireTimeout:
        """The error of a request that does not wait, and found too few members free."""
        attempt = taking.busy
        name = attempt.terms.name
        error = denials.busy((name,), name, attempt.holder, self._opening.clock.wall())
        return denials.too_few(error, self.pool, None, self._wanted(wanted).wanted, taking.together.refused)

    def _gate(self, request: Request) -> K:
        """The gate, with a note that says what is asked for."""
        asked: dict[str, object] = {"count": request.wanted}
        if len(set(request.among.values())) == 1:
            asked["each"] = next(iter(request.among.values()))
        gate = pool_name(self.pool)
        return self._build(gate, "mutex", 1, 1, {**self._of_gate, "note": {"pool": asked}})

    def _locks(self, weights: Mapping[str, int]) -> Mapping[str, K]:
        """The locks of some members, for claims of these weights."""
        return {member: self._lock(member, weight) for member, weight in weights.items()}

    def _lock_of(self, member: str) -> K:
        """The lock of a whole member, without the gate: for code that waits for it and holds no other."""
        return self._lock(member, self.members[member])

    def _locks_of(self, member: str, weight: int) -> Sequence[K]:
        """The locks that hold a member: its own, and that of the member around it."""
        own = self._lock(member, weight)
        around = self.within.get(member)
        return (own,) if around is None else (own, self._lock(around, weight))

    def _lock(self, member: str, weight: int) -> K:
        """The lock of a member, for a claim of this weight; always the same one: making one takes a while."""
        lock = self._known.get((member, weight))
        if lock is None:
            capacity = self.members[member]
            kind: Kind = "semaphore" if capacity > 1 else "mutex"
            name = pool_name(self.pool, member)
            lock = self._known[member, weight] = self._build(name, kind, weight, capacity, self._options)
        return self._owned(lock)

    def _build(self, name: str, kind: Kind, weight: int, capacity: int, options: Options) -> K:
        try:
            return self._owned(self._made_of(name, kind, weight, capacity, options))
        except LockkitError as error:
            error.name = self.pool  # name the pool: the caller never named this lock
            raise

    def _owned(self, lock: K) -> K:
        if self.owner is not None:
            lock.terms = lock.terms._replace(owner=self.owner)
        return lock

    def _request(
        self, count: int, each: int | None, among: object, chooser: Chooser | None = None
    ) -> Request:
        """Check a request; raise ConfigError if it can never be met, or names an unknown member."""
        pool = f"pool {self.pool!r}"
        if isinstance(among, str) or not (among is None or isinstance(among, Iterable)):
            raise ConfigError(f"among must be a list of members, not {among!r}", name=self.pool)
        chosen: list[str] = []
        for member in self.members if among is None else among:
            if not isinstance(member, str) or member not in self.members:
                near = meant(member, self.members) if isinstance(member, str) else None
                known = ", ".join(self.members)
                raise ConfigError(
                    f"{pool} has no member {member!r}",
                    name=self.pool,
                    hint=near or f"the members are: {known}",
                )
            chosen.append(member)
        if len(set(chosen)) < len(chosen):
            raise ConfigError(f"among names a member of {pool} twice", name=self.pool)
        fits = fitting_members(self.members, count, each, self.pool, among=None if among is None else chosen)
        inside = next((member for member in fits if self.within.get(member) in fits), None)
        if count > 1 and inside is not None:
            raise ConfigError(
                f"a request for several members of {pool} names both {inside!r} and {self.within[inside]!r}, "
                "within which it stands",
                name=self.pool,
                hint="say with among= which of them will do",
            )
        if chooser is not None:
            _check_chooser(chooser, self.pool)
        return Request(count, fits, chooser)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.pool!r} "
            f"of {', '.join(f'{name} ({room})' for name, room in self.members.items())}>"
        )


def _check_chooser(chooser: Chooser, pool: str) -> None:
    """Raise ConfigError if a chooser lacks a method, has a coroutine for one, or its ``every`` is no time."""
    for name in ("choose", "judge"):
        method = getattr(chooser, name, None)
        if not callable(method):
            raise ConfigError(f"a chooser has the methods choose and judge, not {chooser!r}", name=pool)
        check_plain(method, f"chooser.{name}", pool)
    durations.seconds(getattr(chooser, "every", None), what="chooser.every")
