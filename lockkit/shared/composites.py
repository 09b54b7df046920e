"""Both faces' part of taking several locks together: checks, attempts, and the hand-over of the holds."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from lockkit.errors import AcquireTimeout, ConfigError
from lockkit.lib.caller import Caller
from lockkit.lib.leaving import Held
from lockkit.lib.takers import asker
from lockkit.notes.members import MOST
from lockkit.protocol import denials
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.composing import PlaceLost, Steps, any_of
from lockkit.protocol.together import Together
from lockkit.shared.lease import AnyLease
from lockkit.shared.locks import AnyLock, check_detect
from lockkit.shared.options import check_plain
from lockkit.shared.shortform import AnyShortForm
from lockkit.values.cancelling import Cancel, check_cancel

if TYPE_CHECKING:
    from lockkit.drivers.threads import Driver
    from lockkit.drivers.waits import OnWait
    from lockkit.shared.opening import Opening

__all__ = ["PATIENCE", "AnyAllOf", "AnyAnyOf", "AnyTaking", "check_call"]

_LEAST = 0.001
PATIENCE = 6.0
"""Seconds after which a request that does not renew its claims has lost its place, and what it has got."""
E = TypeVar("E", bound=AnyLease)
H = TypeVar("H", bound=Held)
K = TypeVar("K", bound=AnyLock[Any])


def check_call(
    what: str,
    locks: Iterable[AnyLock[Any]],
    on_wait: object = None,
    detect: object = False,  # noqa: FBT002 (as it was given)
    cancel: Cancel | None = None,
    reason: str | None = None,
) -> None:
    """Check what an acquire of several locks was called with.

    Args:
        what: The locks, as an error names them.
        locks: The locks.
        on_wait: What was given as ``on_wait``.
        detect: What was given as ``detect_deadlock``.
        cancel: What was given as ``cancel``.
        reason: What was given as ``reason``.

    Raises:
        ConfigError: An argument is not allowed; the error says what is allowed.
    """
    if on_wait is not None and not callable(on_wait):
        raise ConfigError(f"on_wait must be callable, not {on_wait!r}")
    check_plain(on_wait, "on_wait", what)
    if cancel is not None:
        check_cancel(cancel, what)
    check_detect(detect)
    if reason is not None:
        for lock in locks:
            lock.note_for(reason)


class AnyTaking:
    """One acquisition of several locks by a thread or task. The faces add how to wait.

    Args:
        opening: The client, whose store is open.
        driver: The engine of the client.
        deadline: CLOCK_BOOTTIME seconds; None to wait for ever, or not to wait.
        on_wait: Called like that of :meth:`lockkit.Lock.acquire`.
        taken_at: Where the acquire was called.
        detect: Whether to look for deadlocks with other threads, tasks and processes while it waits.
        reason: Why the locks are taken; None for the reason of each lock, if it has one.
    """

    def __init__(
        self,
        opening: Opening,
        driver: Driver,
        deadline: float | None,
        on_wait: OnWait | None,
        taken_at: Caller,
        *,
        detect: bool,
        reason: str | None,
    ) -> None:
        if opening.here.first:
            opening.begin()
        self.opening = opening
        self.driver = driver
        self.deadline = deadline
        self.key: weakref.ref[object] = asker()
        self.taken_at = taken_at
        self.together = Together()
        self._on_wait = on_wait
        self._detect = detect
        self._reason = reason

    def attempt(self, lock: AnyLock[Any], *, wait: bool, one_of: int = 1) -> Attempt:
        """An attempt for one of the locks. Of several that must all hold, ``one_of`` is the number."""
        attempt = lock.attempt(
            self.driver,
            self.deadline,
            self.key,
            self.taken_at,
            wait=wait,
            note=lock.note_for(self._reason),
            detects=self._detect and wait,
        )
        attempt.shown = self._on_wait is not None
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

    def left_to_wait(self, wait: float | None, lost: PlaceLost) -> float | None:
        """Seconds left for a request that lost its place in the queue and starts anew; None for no limit.

        Args:
            wait: The seconds that it had.
            lost: The error that reported the loss.

        Raises:
            LeaseLost: The request does not wait.
        """
        if wait == 0.0:
            raise lost.plain() from None
        return None if self.deadline is None else max(self.deadline - self.opening.clock.now(), _LEAST)

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

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {', '.join(repr(lock.name) for lock in self.locks)}>"


class AnyAllOf(_Several[H, K]):
    """All of several locks; :class:`~lockkit.AllOf` is the synchronous face of it."""

    def __init__(self, opening: Opening, locks: Iterable[K], timeout: float | None, kind: type[K]) -> None:
        super().__init__(opening)
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
        self._timeout = timeout

    def held(self) -> bool:
        """Whether the calling thread or task surely holds all of the locks; see :meth:`lockkit.Lock.held`."""
        return all(lock.held() for lock in self.locks)

    def _ordered(self, leases: Iterable[E]) -> list[E]:
        """The leases in the order of the locks."""
        order = [lock.name for lock in self.locks]
        return sorted(leases, key=lambda lease: order.index(lease.name))

    def _refused(self, attempt: Attempt) -> AcquireTimeout:
        """The error of an acquire that does not wait, and found a lock busy."""
        name = attempt.terms.name
        return denials.busy((name,), name, attempt.holder, self._opening.clock.wall())


class AnyAnyOf(_Several[H, K]):
    """Any one of several locks; :class:`~lockkit.AnyOf` is the synchronous face of it."""

    def __init__(self, opening: Opening, locks: Iterable[K], timeout: float | None, kind: type[K]) -> None:
        super().__init__(opening)
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
        self._timeout = timeout

    def held(self) -> bool:
        """Whether the calling thread or task surely holds any of the locks; see :meth:`lockkit.Lock.held`."""
        return any(lock.held() for lock in self.locks)

    def _steps(self, taking: AnyTaking, *, wait: bool) -> tuple[Steps, dict[Attempt, K]]:
        """The steps of an acquisition, and the lock of each attempt: a try for each, then a wait for all."""
        tries = {taking.attempt(lock, wait=False): lock for lock in self.locks}
        claims = {taking.attempt(lock, wait=True): lock for lock in self.locks} if wait else {}
        for attempt, then in zip(tries, claims, strict=False):
            attempt.then = then
        return any_of(taking.together, tuple(tries), tuple(claims), taking.driver.tools), tries | claims

    def _refused(self, attempt: Attempt) -> AcquireTimeout:
        """The error of an acquire that does not wait, and found each lock busy."""
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
