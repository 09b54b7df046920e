"""Capability claims, in both directions: a store that claims more or less than it does is wrong."""

from __future__ import annotations

from lockkit.errors import CapabilityError, ConfigError, LockkitError
from lockkit.facts import SCOPES, ClaimInfo
from lockkit.protocol.hold import span
from lockkit.testing.shapes import MUTEX, SEMAPHORE
from lockkit.testing.stage import Stage, scenario
from lockkit.values.durations import LONGEST

__all__ = ["declared"]


@scenario("CAP-declared-before-and-after", None)
def declared(stage: Stage) -> None:
    """The capabilities declared before opening equal those of the open store."""
    client = stage.client()
    before = client.capabilities
    client.driver()
    assert client.capabilities == before == stage.backend().capabilities


@scenario("CAP-shared", (SEMAPHORE,))
def shared(stage: Stage) -> None:
    """``shared``: two clients hold a semaphore of 2 at once; undeclared, semaphores are refused."""
    _either(stage, "shared", lambda: stage.holder(stage.client()))
    if stage.harness.capabilities.shared:
        assert len(stage.fill()) == len(stage.held()) == 2


@scenario("CAP-process-bound", (MUTEX,))
def process_bound(stage: Stage) -> None:
    """``process_bound``: silence does not end such a claim; a store that does not declare it refuses it."""
    _either(stage, "process_bound", lambda: stage.holder(stage.client(), process_bound=True))
    if stage.harness.capabilities.process_bound:
        lease = stage.take(
            stage.holder(stage.client(), ttl=stage.harness.ttl, process_bound=True, auto_renew=False)
        )
        stage.harness.advance(2 * stage.harness.ttl)
        assert stage.held() == [lease.claim_id]


@scenario("CAP-min-hold", (MUTEX,))
def min_hold(stage: Stage) -> None:
    """``min_hold``: the lock stays blocked after an early release; undeclared, it is refused."""
    ttl = stage.harness.ttl
    _either(stage, "min_hold", lambda: stage.holder(stage.client(), min_hold=ttl / 2))
    if stage.harness.capabilities.min_hold:
        stage.take(stage.holder(stage.client(), min_hold=ttl / 2)).release()
        assert len(stage.stored()) == 1


@scenario("CAP-lock-delay", (MUTEX,))
def lock_delay(stage: Stage) -> None:
    """``lock_delay``: the lock stays blocked after an ungraceful end; undeclared, it is refused."""
    _either(stage, "lock_delay", lambda: stage.holder(stage.client(), lock_delay=stage.harness.ttl / 2))


@scenario("CAP-extend", (MUTEX,))
def extend(stage: Stage) -> None:
    """``fixed_ttl``: with it ``extend`` is refused; without it ``extend`` works."""
    lease = stage.take(stage.holder(stage.client(), ttl=stage.harness.ttl, auto_renew=False))
    error = stage.work(lambda: lease.extend(2 * stage.harness.ttl)).error()
    if stage.harness.capabilities.fixed_ttl:
        assert isinstance(error, CapabilityError)
    else:
        assert error is None
        assert lease.remaining() > stage.harness.ttl


@scenario("CAP-ttl-limits", (MUTEX,))
def ttl_limits(stage: Stage) -> None:
    """``min_ttl``, ``max_ttl`` work; beyond them the nearest is granted and counts; ``strict`` refuses."""
    can, client, strict = stage.harness.capabilities, stage.client(), stage.client(strict=True)
    beyond = {can.min_ttl / 2: can.min_ttl, can.max_ttl * 2: can.max_ttl}
    beyond = {asked: nearest for asked, nearest in beyond.items() if asked <= LONGEST}  # no longer ttl exists
    for asked, nearest in {can.min_ttl: can.min_ttl, can.max_ttl: can.max_ttl, **beyond}.items():
        lease = stage.take(stage.holder(client, ttl=asked, auto_renew=False))
        assert lease.ttl == nearest, f"asked for {asked} s, granted {lease.ttl} s"
        assert lease.remaining() <= span(nearest, can.drift, can.margin)
        lease.release()
    for asked in beyond:
        assert isinstance(stage.work(lambda ttl=asked: stage.holder(strict, ttl=ttl)).error(), ConfigError)  # type: ignore[misc]


@scenario("CAP-drift-and-margin", (MUTEX,))
def drift(stage: Stage) -> None:
    """``drift`` and ``margin``: validity is shorter than the ttl by both, and by nothing else."""
    before = stage.harness.clock.now()
    client = stage.client()
    lease = stage.take(stage.holder(client, ttl=stage.long_ttl, auto_renew=False))
    length = span(lease.ttl, client.capabilities.drift, client.capabilities.margin)
    assert length < lease.ttl
    left, spent = lease.remaining(), stage.harness.clock.now() - before
    assert length - spent - 0.01 <= left <= length


@scenario("CAP-scope", None)
def scope(stage: Stage) -> None:
    """``scope``: a client that requires more than the store declares is refused; less is enough."""
    reach = tuple(SCOPES)
    mine = reach.index(stage.harness.capabilities.scope)
    for at, wanted in enumerate(reach):
        error = stage.work(lambda wanted=wanted: stage.client(scope=wanted)).error()  # type: ignore[misc]
        assert (error is None) == (at <= mine), f"scope={wanted!r}: {error!r}"


@scenario("CAP-scope-seen-by-a-child", None)
def scope_seen(stage: Stage) -> None:
    """``scope``: another process sees a hold exactly if the declared scope reaches beyond the process."""
    lease = stage.take(stage.holder(stage.client()))
    seen = stage.in_child(lambda: [claim.claim_id for claim in _look(stage)])
    expected = [] if stage.harness.capabilities.scope == "process" else [lease.claim_id]
    assert seen == expected


def _look(stage: Stage) -> tuple[ClaimInfo, ...]:
    with stage.harness.client() as client:
        return client.inspect(stage.name).claims


def _either(stage: Stage, capability: str, make: object) -> None:
    """Declared: it can be made. Undeclared: CapabilityError, before any I/O."""
    assert callable(make)
    error = stage.work(make).error()
    if getattr(stage.harness.capabilities, capability):
        assert error is None, f"{capability} is declared: {error!r}"
    else:
        assert isinstance(error, CapabilityError), f"{capability} is not declared: {error!r}"
        assert isinstance(error, LockkitError)
