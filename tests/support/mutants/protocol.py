"""Mistakes of the protocol and of what drives it, as patches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from lockkit.drivers.errand import Errand
from lockkit.facts import Capabilities, Deadlock, Event, HookReport
from lockkit.protocol import acquiring as acquiring_module
from lockkit.protocol import attempt as attempt_module
from lockkit.protocol import beating as beating_module
from lockkit.protocol import deadlock as deadlock_module
from lockkit.protocol import releasing as releasing_module
from lockkit.protocol.acquiring import acquiring
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.beating import Beats, Waiter
from lockkit.protocol.cycles import Search
from lockkit.protocol.effects import (
    Abandon,
    AwaitHook,
    Effect,
    Notify,
    Now,
    Orphan,
    Release,
    StartHook,
    WaitForWake,
)
from lockkit.protocol.hold import Hold
from lockkit.protocol.orphaning import Entry, OrphanList
from lockkit.protocol.releasing import Pipeline
from lockkit.protocol.renewing import Member, patience, renewing
from lockkit.shared.lease import AnyLease
from lockkit.store.spi import REQUEST_TIMEOUT, Claim, Granted
from support.mutants.mutant import patched
from support.mutants.stores import replay_not_marked
from support.simulation import client
from support.simulation.actors import Interrupt
from support.simulation.world import World

__all__ = [
    "abandons_without_orphan",
    "another_waiter_ends",
    "basis_when_read",
    "collected_is_renewed",
    "cut_release_stays",
    "flag_validity",
    "forgets_doubt",
    "heartbeat_keeps_lapsed",
    "hold_owns_its_handle",
    "holds_after_wake",
    "hook_again",
    "interrupted_close_counts",
    "interrupted_hook_counts",
    "late_answer_grants",
    "loses_again",
    "losses_by_renewal_only",
    "no_poll",
    "one_budget_for_all",
    "orphans_are_tried_once",
    "orphans_go_at_once",
    "orphans_stay",
    "released_as_unused",
    "renews_after_release",
    "retries_at_once",
    "revives",
    "sees_own_weights_only",
    "token_per_client",
    "unused_as_released",
    "valid_after_release",
    "valid_for_the_asked_ttl",
]


def _no_effect(*_: object, **__: object) -> Notify:
    """In place of an effect that is left out."""
    return Notify(Event("requeued", ""))


@contextmanager
def token_per_client() -> Iterator[None]:
    """Every acquisition of a client bears the same token."""
    with patched(World, token=lambda self, client: f"{client}-0"):  # noqa: ARG005
        yield


@contextmanager
def flag_validity() -> Iterator[None]:
    """A hold is valid until somebody has noticed that it is not."""
    with patched(Hold, valid=lambda self, now: not self.ended and not self.lost_why):  # noqa: ARG005
        yield


@contextmanager
def valid_for_the_asked_ttl() -> Iterator[None]:
    """A lease counts the ttl that was asked for, and not the one that the store grants."""

    def counted(claim: Claim, *rest: Any, **more: Any) -> Hold:
        asked = claim.terms.asked
        return Hold(
            claim if asked is None else claim._replace(terms=claim.terms._replace(ttl=asked)), *rest, **more
        )

    with patched(acquiring_module, Hold=counted):
        yield


@contextmanager
def valid_after_release() -> Iterator[None]:
    """A hold stays valid until its release was answered."""
    with patched(Hold, end=lambda self: None):  # noqa: ARG005
        yield


@contextmanager
def revives() -> Iterator[None]:
    """A renewal that is answered after the hold has run out brings it back."""

    def renewed(self: Hold, basis: float, now: float) -> bool:  # noqa: ARG001
        self.basis = max(basis, self.basis)
        self.expires = self.basis + self._span
        self.lost_why = ""
        return True

    with patched(Hold, renewed=renewed):
        yield


@contextmanager
def loses_again() -> Iterator[None]:
    """Everybody who notices a loss tells it."""

    def lose(self: Hold, why: str) -> bool:
        self.lost_why = why
        return True

    with patched(Hold, lose=lose):
        yield


def _granted_by(make: Callable[..., Hold]) -> AbstractContextManager[None]:
    return patched(acquiring_module, Hold=make)


@contextmanager
def forgets_doubt() -> Iterator[None]:
    """A hold whose acquire was UNKNOWN is released like any other: the late acquire comes after the release.

    A store that marks what was replayed would make up for it, so this one does not.
    """

    def make(*args: Any) -> Hold:
        hold = Hold(*args)
        hold.doubtful = False
        return hold

    with _granted_by(make), replay_not_marked():
        yield


class _Eager(Hold):
    """Not over when its grant is read, however late that is."""

    __slots__ = ("_end", "_was_read")

    @property
    def expires(self) -> float:
        if not hasattr(self, "_was_read"):
            self._was_read = True
            return float("inf")
        return self._end

    @expires.setter
    def expires(self, end: float) -> None:
        self._end = end


@contextmanager
def late_answer_grants() -> Iterator[None]:
    """An answer grants even after its basis has run out."""
    with _granted_by(_Eager):
        yield


def _relayed(change: Callable[[Any, Effect, Now], Any]) -> Callable[..., Generator[Effect, Any, Hold | None]]:
    """``acquiring``, with what it is sent changed on the way."""

    def relay(
        attempt: Attempt,
        capabilities: Capabilities,
        now: Now,
        wall: Callable[[], float],
        random: Callable[[], float],
    ) -> Generator[Effect, Any, Hold | None]:
        inner = acquiring(attempt, capabilities, now, wall, random)
        try:
            effect = next(inner)
            while True:
                try:
                    result = yield effect
                except GeneratorExit:
                    inner.close()
                    raise
                except BaseException as error:
                    effect = inner.throw(error)
                else:
                    effect = inner.send(change(result, effect, now))
        except StopIteration as stop:
            hold: Hold | None = stop.value
            return hold

    return relay


@contextmanager
def basis_when_read() -> Iterator[None]:
    """Validity is counted from the reading of an answer instead of from the sending of its request."""

    def change(result: Any, effect: Effect, now: Now) -> Any:  # noqa: ARG001
        return Granted(result.fence, now()) if isinstance(result, Granted) else result

    with patched(client, acquiring=_relayed(change)):
        yield


@contextmanager
def holds_after_wake() -> Iterator[None]:
    """A woken waiter takes itself for the holder and does not ask again."""

    def relay(
        attempt: Attempt,
        capabilities: Capabilities,
        now: Now,
        wall: Callable[[], float],
        random: Callable[[], float],
    ) -> Generator[Effect, Any, Hold | None]:
        inner = acquiring(attempt, capabilities, now, wall, random)
        try:
            effect = next(inner)
            while True:
                try:
                    result = yield effect
                except GeneratorExit:
                    inner.close()
                    raise
                except BaseException as error:
                    effect = inner.throw(error)
                    continue
                if isinstance(effect, WaitForWake) and (effect.until is None or now() < effect.until):
                    return Hold(effect.claim, 0, now(), capabilities)
                effect = inner.send(result)
        except StopIteration as stop:
            hold: Hold | None = stop.value
            return hold

    with patched(client, acquiring=relay):
        yield


@contextmanager
def no_poll() -> Iterator[None]:
    """A wait relies on its wakes: what the heartbeat hears of it wakes nobody."""
    with patched(Waiter, wake=lambda self: None):  # noqa: ARG005
        yield


@contextmanager
def orphans_stay() -> Iterator[None]:
    """The orphan list is kept, and never worked off."""
    with patched(OrphanList, soonest=lambda self: float("inf")):  # noqa: ARG005
        yield


@contextmanager
def orphans_are_tried_once() -> Iterator[None]:
    """A claim whose removal got no answer is removed from the orphan list all the same."""

    def failed(self: OrphanList, entries: Sequence[Entry], *_: float) -> None:
        for entry in entries:
            self.removed(entry)

    with patched(OrphanList, failed=failed):
        yield


@contextmanager
def orphans_go_at_once() -> Iterator[None]:
    """A claim is removed although its owner may not have learned yet that it is lost."""

    def add(self: OrphanList, orphan: Orphan) -> Entry:
        entry = self.entries[orphan.claim.token] = Entry(orphan._replace(after=0.0))
        return entry

    with patched(OrphanList, add=add):
        yield


@contextmanager
def losses_by_renewal_only() -> Iterator[None]:
    """The clock is not looked at: a hold is lost when a renewal says so."""

    def looking(self: Beats) -> Generator[Effect, Any, float]:  # noqa: ARG001
        yield from ()
        return float("inf")

    with patched(Beats, looking=looking):
        yield


@contextmanager
def collected_is_renewed() -> Iterator[None]:
    """A hold whose lease was collected is looked after like any other."""
    with patched(Hold, collected=False, given_up=property(lambda self: self.closing)):
        yield


@contextmanager
def cut_release_stays() -> Iterator[None]:
    """A release that an interruption ended is left as it is."""

    def look_at_releases(self: Beats, holds: list[Hold]) -> Generator[Effect, Any, bool]:  # noqa: ARG001
        yield from ()
        return False

    with patched(Beats, _look_at_releases=look_at_releases):
        yield


@contextmanager
def renews_after_release() -> Iterator[None]:
    """A claim stays in the heartbeat while it is being released."""

    def beating(self: Beats) -> Generator[Effect, Any, None]:
        now = self._now()
        members = [member for member in self.members.values() if member.next <= now + member.ttl / 12.0]
        before = [getattr(member, "basis", 0.0) for member in members]
        answered = yield from renewing(members, self._now, REQUEST_TIMEOUT, self._renewed)
        self._reschedule(members, before, now, answered=answered)

    with patched(Beats, beating=beating):
        yield


@contextmanager
def retries_at_once() -> Iterator[None]:
    """A claim that came to nothing is followed by the next without a pause."""
    with patched(acquiring_module, _begin_again=lambda *_: iter(())):
        yield


@contextmanager
def heartbeat_keeps_lapsed() -> Iterator[None]:
    """A token that lapsed keeps its place in the heartbeat."""
    with patched(acquiring_module, Withdraw=_no_effect):
        yield


@contextmanager
def abandons_without_orphan() -> Iterator[None]:
    """A release that got no answer is put on record, and then forgotten."""
    with patched(releasing_module, Orphan=_no_effect):
        yield


@contextmanager
def unused_as_released() -> Iterator[None]:
    """A claim that no caller got is removed as if its holder had released it."""

    def released(effect: Any) -> Any:
        return lambda claim, *rest, **named: effect(claim, *rest[:1], **{**named, "how": "released"})

    with (
        patched(
            acquiring_module, Orphan=released(Orphan), Release=released(Release), Abandon=released(Abandon)
        ),
        patched(attempt_module, Orphan=released(Orphan)),
    ):
        yield


@contextmanager
def released_as_unused() -> Iterator[None]:
    """A release says that nobody has worked under the lock."""
    end = Hold.end

    def unused(self: Hold) -> str:
        end(self)
        return "unused"

    with patched(Hold, end=unused):
        yield


@contextmanager
def hook_again() -> Iterator[None]:
    """An interrupted cleanup starts from its first hook again."""
    clean = releasing_module._clean  # noqa: SLF001

    def again(release: Pipeline, now: Now) -> Generator[Effect, Any, None]:
        for _ in itertools.repeat(None, 2):
            release.hooks.clear()
            yield from clean(release, now)

    with patched(releasing_module, _clean=again):
        yield


@contextmanager
def sees_own_weights_only() -> Iterator[None]:
    """Acquire does not look at the claims between the own holds and the new claim."""
    with patched(deadlock_module, hopeless=lambda *_: None):
        yield


@contextmanager
def one_budget_for_all() -> Iterator[None]:
    """One batch holds everybody who is due, and takes no longer than the most urgent one can wait."""

    def batch(members: list[Member], now: float, longest: float) -> tuple[list[Member], list[Member], float]:
        return (
            members,
            [],
            min(patience(member if isinstance(member, Hold) else None, now, longest) for member in members),
        )

    with patched(beating_module, batch=batch):
        yield


@contextmanager
def hold_owns_its_handle() -> Iterator[None]:
    """The heartbeat's state refers to the lease that the user has."""
    made = AnyLease.__init__

    def owned(self: AnyLease, *given: Any) -> None:
        made(self, *given)
        self.level.handle = lambda: self

    with patched(AnyLease, __init__=owned):
        yield


@contextmanager
def another_waiter_ends() -> Iterator[None]:
    """A deadlock ends in the waiter with the smallest claim id."""

    def smallest(self: Search, deadlock: Deadlock) -> bool:
        return deadlock.waiters[0].claim_id == self.claim_id

    with patched(Search, _ends=smallest):
        yield


@contextmanager
def interrupted_close_counts() -> Iterator[None]:
    """An interruption of whoever waits for a client to close ends the closing, begun or not."""
    wait = Errand.wait

    def impatient(self: Errand, longest: float | None = None) -> None:
        try:
            wait(self, longest)
        except BaseException:
            self.over = True
            raise

    with patched(Errand, wait=impatient):
        yield


@contextmanager
def interrupted_hook_counts() -> Iterator[None]:
    """An interruption of a cleanup hook's start ends the hook."""

    def run(release: Pipeline, plugin: str) -> Generator[Effect, Any, HookReport]:
        try:
            yield StartHook(plugin, release.cleanup_budget)
            report: HookReport = yield AwaitHook(plugin)
        except Interrupt as interrupt:
            release.interrupts.append(interrupt)
            return HookReport(plugin, "UNKNOWN", error=repr(interrupt))
        return report

    with patched(releasing_module, _run=run):
        yield
