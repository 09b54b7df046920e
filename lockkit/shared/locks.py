"""The part that the locks of both faces share: decisions before the first request, and after the grant."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from lockkit.facts import Kind
from lockkit.lib.caller import Caller
from lockkit.lib.origin import this_origin
from lockkit.lib.takers import asker
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.call import Call
from lockkit.protocol.hold import Hold
from lockkit.shared.lease import AnyLease
from lockkit.shared.options import Options, check, checked_timeout, noted, terms_of
from lockkit.shared.shortform import AnyShortForm
from lockkit.store.spi import Terms
from lockkit.values.names import check_token

if TYPE_CHECKING:
    from lockkit.drivers.threads import Driver
    from lockkit.shared.opening import Opening

__all__ = ["AnyLock", "arguments"]

E = TypeVar("E", bound=AnyLease)


def arguments(
    opening: Opening,
    name: str,
    kind: Kind,
    weight: int,
    capacity: int,
    options: Options,
    *,
    pooled: bool = False,
) -> dict[str, Any]:
    """The arguments of a lock's class, beside the opening. Name and options are checked before any I/O.

    Args:
        opening: The client.
        name: The lock.
        kind: The kind of the lock.
        weight: The weight of its claims.
        capacity: The capacity of the lock.
        options: The options of the lock.
        pooled: Whether a pool makes the lock: then the name may be that of a member or gate.

    Raises:
        ConfigError: The name or an option is not allowed; the error says what is allowed.
        CapabilityError: The store does not support an option.
    """
    check(options, name, kind, pooled=pooled)
    terms = terms_of(
        opening.capabilities, opening.config, opening.owner, name, kind, weight, capacity, options
    )
    return {
        "terms": terms,
        "timeout": checked_timeout(options.get("timeout", opening.config.timeout)),
        "reentrant": bool(options.get("reentrant", False)),
        "auto_renew": bool(options.get("auto_renew", True)),
        "note": options.get("note"),
        "reason": options.get("reason"),
        "on_lost": options.get("on_lost"),
    }


class AnyLock(AnyShortForm[E]):
    """A reusable factory of leases on one name; the locks of the two faces add the calls that wait.

    Attributes:
        lease_of: Makes a lease of a hold, for the place in the user's program that took it.
        terms: The terms of the lock's claims, as the store gets them.
        tokens: A function that makes the token of a claim, called just before the claim is first sent; None
            for a random token. Set it if another process is to release the claim after this one died: the
            function can save the token first. An exception that the function raises ends the acquire.
    """

    _makes: Callable[..., Any]
    """Makes a lease of an opening, a callback for its loss or None, an engine, a hold, and its place."""

    def __init__(
        self,
        opening: Opening,
        terms: Terms,
        *,
        timeout: float | None = None,
        reentrant: bool = False,
        auto_renew: bool = True,
        note: Mapping[str, object] | None = None,
        reason: str | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(opening, timeout)
        self.terms = terms
        self._origin = this_origin()
        self._reentrant = reentrant
        self._auto_renew = auto_renew
        self._given = note
        self._reason = reason
        self._note = note if reason is None else noted(note, reason, terms.name)
        self._on_lost = on_lost
        self.lease_of: Callable[[Driver, Hold, Caller], E] = partial(self._makes, opening, on_lost)
        self.tokens: Callable[[], str] | None = None

    @property
    def name(self) -> str:
        return self.terms.name

    def _own_timeout(self) -> float | None:
        """The timeout that the lock was made with; None for the configured one."""
        own = self._as_made.timeout
        return None if own == self._opening.config.timeout else own

    def held(self) -> bool:
        """Whether the calling thread or task surely holds the lock now, through this client. No I/O.

        True for any valid lease of the name and kind that it took, by whichever lock object. A detached lease
        (:meth:`lockkit.Lease.detach`) counts for nobody. :meth:`lockkit.Client.inspect` shows other holders.
        """
        engine = self._opening.engine
        holds = () if engine is None else engine.registry.holds.get(self.name, ())
        key, now = asker(), self._opening.clock.now()
        return any(
            hold.key == key and hold.claim.terms.kind in self._serving and hold.valid(now) for hold in holds
        )

    @property
    def _serving(self) -> tuple[Kind, ...]:
        """The kinds of hold that will do for this lock: a writer may also read, if the lock is reentrant."""
        kind = self.terms.kind
        return ("read", "write") if self._reentrant and kind == "read" else (kind,)

    def _available(self) -> int:
        """How many permits are free, in one round trip."""
        terms = self.terms
        info = self._opening.driver().requests.queue(terms.name)
        if info.available is not None:
            return info.available
        if not info.claims:
            return terms.capacity if terms.kind in ("mutex", "semaphore") else 1
        beside = terms.kind == "read" and all(
            claim.kind == "read" and claim.state != "WAITING" for claim in info.claims
        )
        return int(beside)

    # -- before the first request, and after the grant

    def check_reason(self, reason: str) -> None:
        """Raise ConfigError for a reason that is not allowed."""
        noted(self._given, reason, self.name)

    def _explained(self, call: Call) -> Call:
        note = self._given if call.note is None else call.note
        reason = self._reason if call.reason is None else call.reason
        return call._replace(note=noted(note, reason, self.name), reason=None)

    def _note_of(self, call: Call) -> Mapping[str, object] | None:
        """The note of a claim; None for none."""
        if call.note is None and call.reason is not None:
            return noted(self._given, call.reason, self.name)
        return call.note or self._note

    def attempt(
        self,
        driver: Driver,
        deadline: float | None,
        key: weakref.ref[object],
        taken_at: Caller,
        call: Call,
        *,
        wait: bool,
    ) -> Attempt:
        """An attempt to acquire, for a thread or task, that has not started."""
        terms = self.terms
        if self._origin is not driver.origin:  # made before a fork
            terms = self.terms = terms._replace(owner=self._opening.owner)
            self._origin = driver.origin
        own: Sequence[Hold] = driver.registry.holds.get(terms.name, ())
        if own:
            own = [hold for hold in own if hold.key == key and hold.standing] or ()
        attempt = Attempt(
            terms,
            deadline,
            wait,
            self._note if call is self._as_made else self._note_of(call),
            self._auto_renew,
            driver.request_timeout,
            driver.origin,
            self._token if self.tokens is not None else None,
            own,
            "thread" if not (own or call.detect) or isinstance(key(), threading.Thread) else "task",
            call,
        )
        attempt.key, attempt.registered = key, driver.registry.holds
        attempt.taken_at, attempt.reentrant, attempt.where = taken_at, self._reentrant, self._opening.where
        attempt.same_store = driver.same_store
        return attempt

    def belongs_to(self, opening: Opening) -> bool:
        """Whether this is a lock of that client."""
        return self._opening is opening

    @property
    def reentrant(self) -> bool:
        """Whether the thread or task that holds the lock may acquire it again."""
        return self._reentrant

    def _token(self) -> str:
        """The token that the function in :attr:`tokens` returns; ConfigError if that is no token."""
        assert self.tokens is not None
        return check_token(self.tokens())

    def _inner(self, driver: Driver, key: weakref.ref[object], taken_at: Caller) -> E | None:
        """Add a level to a reentrant hold of a thread or task; None if it has none. The hold keeps its fence.

        The caller must check that the level is valid, lengthen its ttl to the lock's, and call :meth:`_kept`.
        """
        for hold in driver.registry.holds.get(self.terms.name, ()):
            if not hold.reentrant or hold.key != key or hold.claim.terms.kind not in self._serving:
                continue
            if not hold.standing:
                continue
            lease = self.lease_of(driver, hold, taken_at)
            entered = False
            try:
                entered = hold.enter(lease)
                if entered:
                    return lease
            finally:
                if not entered:
                    lease.level.left = True
        return None

    def _kept(self, lease: E) -> E:
        """Finish a level that was added."""
        if self._on_lost is not None:
            lease.on_lost(self._on_lost)
        return lease

    def __repr__(self) -> str:
        terms = self.terms
        return (
            f"<{type(self).__name__} {terms.name!r} {terms.kind} "
            f"{terms.weight}/{terms.capacity} ttl {terms.ttl:g} s>"
        )
