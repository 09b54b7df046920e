"""Both faces' part of taking several locks together: checks, attempts, and the hand-over of the holds."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from lockkit.errors import AcquireTimeout, ConfigError
from lockkit.lib.caller import Caller
from lockkit.lib.leaving import Held
from lockkit.lib.takers import asker
from lockkit.notes.members import MOST
from lockkit.protocol import denials
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.call import Call
from lockkit.protocol.composing import PlaceLost, Steps, any_of
from lockkit.protocol.together import Together
from lockkit.shared.lease import AnyLease
from lockkit.shared.locks import AnyLock
from lockkit.shared.shortform import AnyShortForm

if TYPE_CHECKING:
    from lockkit.drivers.threads import Driver
    from lockkit.shared.opening import Opening
    from lockkit.values.choosers import Chooser

__all__ = ["PATIENCE", "AnyAllOf", "AnyAnyOf", "AnyTaking", "Request"]

_LEAST = 0.001
PATIENCE = 6.0
"""Seconds after which a request that does not renew its claims has lost its place, and what it has got."""
E = TypeVar("E", bound=AnyLease)
H = TypeVar("H", bound=Held)
K = TypeVar("K", bound=AnyLock[Any])


class Request(NamedTuple):
    """A request for some of the members in ``among``, each with its weight; the chooser, if any, decides."""

    wanted: int
    among: Mapping[str, int]
    chooser: Chooser | None = None


class AnyTaking:
    """One acquisition of several locks by a thread or task. The faces add how to wait.

    Args:
        opening: The client, whose store is open.
        driver: The engine of the client.
        call: What the acquire was called with.
        deadline: CLOCK_BOOTTIME seconds; None to wait for ever, or not to wait.
        taken_at: Where the acquire was called.

    Attributes:
        waits: Whether it waits if the locks are busy.
    """

    def __init__(
        self,
        opening: Opening,
        driver: Driver,
        call: Call,
        deadline: float | None,
        taken_at: Caller,
    ) -> None:
        if opening.here.first:
            opening.begin()
        self.opening = opening
        self.driver = driver
        self.call = call
        self.waits = call.timeout != 0.0
        self.deadline = deadline
        self.key: weakref.ref[object] = asker()
        self.taken_at = taken_at
        self.together = Together(call)

    def attempt(self, lock: AnyLock[Any], *, wait: bool, one_of: int = 1) -> Attempt:
        """An attempt for one of the locks. Of several that must all hold, ``one_of`` is the number."""
        attempt = lock.attempt(self.driver, self.deadline, self.key, self.taken_at, self.call, wait=wait)
        terms = attempt.terms
        if one_of > 1 and terms.process_bound and attempt.auto_renew:
            attempt.terms, attempt.later = (
                terms._replace(process_bound=False, ttl=min(terms.ttl, PATIENCE)),
                terms,
            )
        return attempt

    def handed(
        self, got: Sequence[Attempt], locks: Mapping[Attempt, AnyLock[E]], made: Callable[[list[E]], H]
    ) -> H:
        """Make the caller's object of the holds. Nothing has handles of them before that, nor if it fails."""
        leases = [
            locks[attempt].lease_of(self.driver, attempt.hold, self.taken_at)
            for attempt in got
            if attempt.hold is not None
        ]
        result = made(leases)
        self.driver.under_way.pop(self.together, None)
        self.together.handed = True
        return result

    def again(self, lost: PlaceLost) -> Call:
        """The call for a request that lost its place in the queue and starts anew: with the time left.

        Raises:
            LeaseLost: The request does not wait.
        """
        if not self.waits:
            raise lost.plain() from None
        if self.deadline is None:
            return self.call
        return self.call._replace(timeout=max(self.deadline - self.opening.clock.now(), _LEAST))

    @property
    def busy(self) -> Attempt:
        """The attempt that found its lock busy: the last one that saw a holder, if any."""
        last = self.together.current
        assert last is not None
        return next((one for one in reversed(self.together.attempts) if one.holder is not None), last)


class _Several(AnyShortForm[H], Generic[H, K]):
    """A factory of leases on several locks.

    Attributes:
        locks: The locks, each once.
    """

    locks: tuple[K, ...]

    @property
    def name(self) -> str:
        """The names of the locks, as errors show them."""
        return ", ".join(lock.name for lock in self.locks)

    def _explained(self, call: Call) -> Call:
        if call.reason is not None:
            for lock in self.locks:
                lock.check_reason(call.reason)
        return call

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(repr(lock.name) for lock in self.locks)}>"


class AnyAllOf(_Several[H, K]):
    """All of several locks; :class:`~lockkit.AllOf` is the synchronous face of it."""

    def __init__(self, opening: Opening, locks: Iterable[K], timeout: float | None, kind: type[K]) -> None:
        super().__init__(opening, timeout)
        chosen: dict[str, K] = {}
        for lock in _checked(opening, locks, "all_of", kind):
            before = chosen.setdefault(lock.name, lock)
            if _mode(before) != _mode(lock):
                raise ConfigError(
                    f"all_of() got {lock.name!r} in two modes: {before!r} and {lock!r}",
                    name=lock.name,
                    hint="give each lock once: "
                    "a writer excludes readers, and permits are taken with permits=",
                )
        self.locks: tuple[K, ...] = tuple(chosen[name] for name in sorted(chosen))

    def held(self) -> bool:
        """Whether the calling thread or task surely holds all of the locks; see :meth:`lockkit.Lock.held`."""
        return all(lock.held() for lock in self.locks)

    def _ordered(self, leases: Iterable[E]) -> list[E]:
        """The leases in the order of the locks."""
        order = [lock.name for lock in self.locks]
        return sorted(leases, key=lambda lease: order.index(lease.name))

    def _denied(self, taking: AnyTaking, _wanted: Request | None) -> AcquireTimeout:
        """The error of an acquire that does not wait, and found a lock busy."""
        attempt = taking.busy
        name = attempt.terms.name
        return denials.busy((name,), name, attempt.holder, self._opening.clock.wall())


class AnyAnyOf(_Several[H, K]):
    """Any one of several locks; :class:`~lockkit.AnyOf` is the synchronous face of it."""

    def __init__(self, opening: Opening, locks: Iterable[K], timeout: float | None, kind: type[K]) -> None:
        super().__init__(opening, timeout)
        chosen: dict[str, K] = {}
        for lock in _checked(opening, locks, "any_of", kind):
            before = chosen.setdefault(lock.name, lock)
            if _mode(before) != _mode(lock):
                raise ConfigError(f"any_of() got {lock.name!r} in two modes", name=lock.name)
            if lock.reentrant:
                raise ConfigError(
                    f"any_of() takes no reentrant lock, and {lock.name!r} is one",
                    name=lock.name,
                    hint="make the lock without reentrant=True",
                )
        if len(chosen) > MOST:
            raise ConfigError(f"any_of() takes at most {MOST} locks, not {len(chosen)}")
        self.locks: tuple[K, ...] = tuple(chosen.values())

    def held(self) -> bool:
        """Whether the calling thread or task surely holds any of the locks; see :meth:`lockkit.Lock.held`."""
        return any(lock.held() for lock in self.locks)

    def _steps(self, taking: AnyTaking) -> tuple[Steps, dict[Attempt, K]]:
        """The steps of an acquisition, and the lock of each attempt: a try for each, then a wait for all."""
        tries = {taking.attempt(lock, wait=False): lock for lock in self.locks}
        claims = {taking.attempt(lock, wait=True): lock for lock in self.locks} if taking.waits else {}
        for attempt, then in zip(tries, claims, strict=False):
            attempt.then = then
        return any_of(taking.together, tuple(tries), tuple(claims), taking.driver.tools), tries | claims

    def _denied(self, taking: AnyTaking, _wanted: Request | None) -> AcquireTimeout:
        """The error of an acquire that does not wait, and found each lock busy."""
        attempt = taking.busy
        names = [lock.name for lock in self.locks]
        return denials.busy(names, attempt.terms.name, attempt.holder, self._opening.clock.wall())


def _checked(opening: Opening, locks: object, call: str, kind: type[K]) -> Sequence[K]:
    """The given locks; raises ConfigError without any, and for one that is no lock of this client."""
    if isinstance(locks, str) or not isinstance(locks, Iterable):
        raise ConfigError(
            f"{call}() takes a list of locks, not {locks!r}", hint=f'client.{call}([client.lock("a"), ...])'
        )
    given = list(locks)
    chosen: list[K] = []
    if not given:
        raise ConfigError(f"{call}() needs at least one lock")
    for lock in given:
        if not isinstance(lock, kind):
            sides = hasattr(lock, "read") and hasattr(lock, "write")
            hint = "its sides are locks: .read() and .write()" if sides else None
            raise ConfigError(
                f"{call}() takes locks, not {lock!r}", hint=hint or 'make it a lock: client.lock("a")'
            )
        if not lock.belongs_to(opening):
            raise ConfigError(
                f"{call}() takes locks of one client, and {lock.name!r} is of another",
                name=lock.name,
                hint="make all of them with this client; "
                "locks of two stores can only be nested, always in the same order",
            )
        chosen.append(lock)
    return chosen


def _mode(lock: AnyLock[Any]) -> tuple[str, int, int]:
    return lock.terms.kind, lock.terms.weight, lock.terms.capacity
