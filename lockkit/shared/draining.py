"""Drain a namespace: no new locks, and holders finish. The rules are in docs/decisions/drain.md."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, TypeVar

from lockkit.errors import BackendError, CapabilityError, ConfigError
from lockkit.facts import ClaimInfo, Drain
from lockkit.notes.remarks import checked
from lockkit.protocol.denials import drain_unsure
from lockkit.store.drains import drain_of, mark_of
from lockkit.store.spi import Unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from lockkit.drivers.threads import Driver
    from lockkit.shared.opening import Opening
    from lockkit.store.spi import Drains

__all__ = ["drain", "drained", "holders", "undrain"]

T = TypeVar("T")
_BLOCKING = ("HELD", "LINGERING", "OFFERED")


def drain(opening: Opening, reason: str) -> Drain:
    """Set the mark of the namespace, then have its waiters look again; see :meth:`lockkit.Client.drain`."""
    if reason != "":
        checked(reason, "reason")
    check_drains(opening)
    mark = Drain(opening.config.namespace, reason, opening.owner, round(opening.clock.wall(), 3))
    text, driver = mark_of(mark), opening.driver()
    _change(driver, opening.config.namespace, lambda budget: _drains(driver).set(text, budget), ended=False)
    # A waiter sleeps until its blockers go; one that is turned away sends a new claim and is refused. Errors
    # are ignored here: the namespace is drained already, and a missed waiter is refused in its turn.
    with contextlib.suppress(BackendError, CapabilityError):
        for claim in _claims(driver, deep=False):
            if claim.state == "WAITING":
                _turn_away(driver, claim)
    return mark


def undrain(opening: Opening) -> Drain | None:
    """Remove the mark that is there now, and no newer one; see :meth:`lockkit.Client.undrain`."""
    check_drains(opening)
    driver = opening.driver()
    mark = driver.requests.ask(lambda budget: _drains(driver).get(budget))
    if mark is None:
        return None
    namespace = opening.config.namespace
    removed = _change(driver, namespace, lambda budget: _drains(driver).clear(mark, budget), ended=True)
    if not removed and driver.requests.ask(lambda budget: _drains(driver).get(budget)) is not None:
        raise ConfigError(
            f"another client drained namespace {opening.config.namespace!r} again during this call",
            hint="lockkit status shows who drains it and why; then try again",
        )
    return drain_of(mark, opening.config.namespace)


def drained(opening: Opening, namespace: str | None = None) -> Drain | None:
    """The mark of the namespace, or of another one of the store; see :meth:`lockkit.Client.drained`."""
    if not opening.capabilities.drains:
        return None
    driver = opening.driver()
    mark = driver.requests.ask(lambda budget: _drains(driver).get(budget, namespace))
    return None if mark is None else drain_of(mark, namespace or opening.config.namespace)


def holders(driver: Driver, *, deep: bool) -> list[ClaimInfo]:
    """The claims that still block: held, lingering and offered ones, which may be about to be granted.

    Args:
        driver: The engine of the client.
        deep: Whether to scan the store if its index of names, which may be incomplete, shows no such claim.
    """
    found = [claim for claim in _claims(driver, deep=False) if claim.state in _BLOCKING]
    if deep and not found:
        found = [claim for claim in _claims(driver, deep=True) if claim.state in _BLOCKING]
    return found


def check_drains(opening: Opening) -> None:
    """Raise CapabilityError, before any I/O, unless the store declares the capability ``drains``."""
    if not opening.capabilities.drains:
        raise CapabilityError(
            f"the store at {opening.url} cannot drain a namespace",
            hint="stop the programs that take locks in it, or use a store that can: see the capabilities",
        )


def _drains(driver: Driver) -> Drains:
    drains = driver.backend.extras.drains
    if drains is None:
        raise CapabilityError(
            "the backend declares `drains` but provides none",
            hint="report this to the author of the backend",
        )
    return drains


def _change(driver: Driver, namespace: str, change: Callable[[float], T], *, ended: bool) -> T:
    """Set or remove the mark. If the outcome is unknown, the error says so, and how to end the drain."""
    unsure = False

    def tried(budget: float) -> T:
        nonlocal unsure
        try:
            return change(budget)
        except Unknown:
            unsure = True
            raise

    try:
        return driver.requests.ask(tried)
    except BackendError as error:
        if unsure:
            told = drain_unsure(namespace, driver.same_store(), ended=ended)
            error.hint = "; ".join(filter(None, (error.hint, told)))
        raise


def _claims(driver: Driver, *, deep: bool) -> list[ClaimInfo]:
    """The claims of the namespace."""
    ask, backend = driver.requests.ask, driver.backend
    names = ask(lambda budget: backend.names("", budget, deep=deep))
    return [claim for name in names for claim in driver.requests.queue(name).claims]


def _turn_away(driver: Driver, claim: ClaimInfo) -> None:
    name, claim_id = claim.name, claim.claim_id
    driver.requests.ask(lambda budget: _drains(driver).turn_away(name, claim_id, budget), name)
