"""Recovery: find claims whose owner is gone, and what else was left behind, and remove exactly what was seen.

:func:`recover` looks once; :class:`Recoverer` goes on, for servers. Recoverers of a namespace elect one by a
lock; each removes what its own host proves dead, because no other host may be able to. The decisions are made
in :mod:`lockkit.observe.decisions`, from facts alone. Each action is journalled before it starts, and hits
only the claim of its claim id. Each removal or eviction, except of a dead recoverer, looks at the claim again
just before, and counts for ``recover_limit``; so does each fix of a check of its own.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from lockkit.errors import ConfigError, LockkitError
from lockkit.facts import Alert, Event
from lockkit.lib.namedtuples import NamedTuple
from lockkit.lib.printable import printable
from lockkit.notes.records import change
from lockkit.observe import journal
from lockkit.observe.checks import CHECKS, Case, CheckContext
from lockkit.observe.decisions import Tiers, counted, within_limit
from lockkit.observe.oracles import HOOK, SECONDS, Oracles
from lockkit.store.ttls import UsualTtl
from lockkit.values.names import RECOVERER, STANDING

if TYPE_CHECKING:
    from lockkit.config.config import Config
    from lockkit.sync.client import Client
    from lockkit.sync.lease import Lease

__all__ = ["CHECKS", "LOCK", "Case", "Recoverer", "Result", "Round", "recover"]

_log = logging.getLogger("lockkit.recovery")

LOCK = RECOVERER
"""The lock by which recoverers elect one of them; its record has the times of their actions."""
_TTL = 30.0
_BETWEEN = 10.0
"""Seconds between the two looks at an unrenewed claim; a holder whose store is back renews within a few."""


class Result(NamedTuple):
    """One thing that was found, and what came of it."""

    case: Case
    outcome: str = ""
    """``removed``, ``evicted`` or ``resolved``; ``changed`` (the claim was not as seen, and was left alone);
    ``absent`` (already gone); ``limited`` (by ``recover_limit``); a check's own word; empty if none acted."""


class Round(NamedTuple):
    """The results of one look."""

    results: tuple[Result, ...] = ()
    acting: bool = False
    leader: str = ""
    """Another recoverer that is at work, so that this one only looked; empty if there is none."""
    unread: tuple[tuple[str, LockkitError], ...] = ()
    """Locks that could not be read, with the error."""

    @property
    def open(self) -> tuple[Result, ...]:
        """The results that still ask for an action: of a dry run, or beyond the limit."""
        return tuple(
            one for one in self.results if one.case.action in _ACTS and one.outcome in ("", "limited")
        )

    @property
    def complete(self) -> bool:
        """Whether every lock was read and recovery has nothing left to do, apart from cases for a person."""
        return not self.open and not self.unread


_ACTS = ("remove", "evict", "resolve", "fix")


def recover(client: Client, *, act: bool = False, between: float = _BETWEEN) -> Round:
    """Look once, and with ``act`` do what may be done.

    Args:
        client: The client of the store and namespace, whose plugins are asked as oracles.
        act: Whether to act. Without it nothing is changed, and nobody is notified.
        between: Seconds between the two looks at a claim that is not renewed, or at a quarantined card.

    Raises:
        BackendError: The store does not answer.
        Drained: The namespace is drained, so that no recoverer can be elected.
    """
    return Recoverer(client, act=act, between=between).once()


class Recoverer:
    """A recoverer that looks repeatedly.

    Args:
        client: The client of the store and namespace.
        act: Whether to act; otherwise it only looks.
        between: Seconds between the two looks at a claim that is not renewed, or at a quarantined card.
        patience: Seconds that each oracle may take.
    """

    def __init__(
        self, client: Client, *, act: bool = True, between: float = _BETWEEN, patience: float = SECONDS
    ) -> None:
        self._client = client
        self._act = act
        self._between = between
        self._config: Config = client.config
        self._oracles = Oracles(client.plugins.implementations(HOOK), patience)
        self._lease: Lease | None = None
        self._told: set[tuple[str, str, str]] = set()
        self._stop = threading.Event()

    def stop(self) -> None:
        """Have :meth:`run` end soon; may be called from any thread, and from a signal handler."""
        self._stop.set()

    def run(self, every: float = 30.0, seen: Callable[[Round], None] = lambda _: None) -> None:
        """Look repeatedly until :meth:`stop` is called. A failed look, by any error, is logged and retried.

        Args:
            every: Seconds between two looks.
            seen: Called with each round.
        """
        try:
            while not self._stop.is_set():
                done = self._survived()
                if done is not None:
                    seen(done)
                self._stop.wait(every)
        finally:
            self._resign()

    def _survived(self) -> Round | None:
        """One look that stays elected; None if it failed, which is logged: no odd record may end recovery."""
        try:
            return self.once(keep=True)
        except LockkitError as error:
            _log.warning("recovery: %s", printable(str(error)))
        except Exception as error:
            _log.exception("recovery: a look failed: %s", printable(repr(error)))
        return None

    def once(self, *, keep: bool = False) -> Round:
        """Look once, and act if this recoverer acts: always on proven deaths, on all else only if elected.

        Args:
            keep: Whether to stay elected afterwards.
        """
        leader = self._elect() if self._act else ""
        try:
            look = self._look()
            found = [case for check in CHECKS for case in check(look)]
            acting = self._act and not leader
            mine = [acting or (self._act and _of_this_host(case)) for case in found]
            self._wait_between_looks([case for case, acts in zip(found, mine, strict=True) if acts])
            results = tuple(
                self._settle(look, case) if acts else Result(case)
                for case, acts in zip(found, mine, strict=True)
            )
            there = {"", *(case.claim_id for case in found)}
            self._told = {one for one in self._told if one[0] in there}
            return Round(results, acting, leader, tuple(look.unread))
        finally:
            if not keep:
                self._resign()

    # -- looking

    def _look(self) -> CheckContext:
        if self._config.stale():
            try:
                self._config = self._config.reload()
            except ConfigError as error:
                _log.warning("recovery goes on with its old settings: %s", printable(str(error)))
        config = self._config
        self._oracles.forget()
        tiers = Tiers(config.age_warning, config.age_soft, config.age_hard)
        return CheckContext(self._client, tiers, self._oracles, besides=STANDING)

    def _wait_between_looks(self, mine: Sequence[Case]) -> None:
        """Wait between the looks: a store just back may get heartbeats, a card may show its fault again."""
        if any(case.action == "evict" or case.again is not None for case in mine):
            self._stop.wait(self._between)

    # -- acting

    def _elect(self) -> str:
        """Become the recoverer that acts: empty if elected, else the owner of the claim that prevented it."""
        if self._lease is not None and self._lease.valid():
            return ""
        self._lease = None
        lock = self._client.lock(LOCK, ttl=UsualTtl(_TTL))
        lease = lock.try_acquire(reason="recovery")
        if lease is None and self._remove_the_dead():
            lease = lock.try_acquire(reason="recovery")
        if lease is None:
            holders = self._client.inspect(LOCK).holders
            return str(holders[0].owner) if holders else "another recoverer"
        self._lease = lease
        return ""

    def _remove_the_dead(self) -> bool:
        """Remove dead recoverers from the election lock; False if there are none."""
        look, info = self._look(), self._client.inspect(LOCK)
        found = [case for claim in info.claims if (case := look.case(claim, info.read_at)) is not None]
        dead = [case for case in found if case.action == "remove"]
        for case in dead:
            self._perform(case)
        return bool(dead)

    def _resign(self) -> None:
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()

    def _settle(self, look: CheckContext, case: Case) -> Result:
        """Act on one case if it is still as it was seen, and send its event."""
        if case.action not in _ACTS:
            self._tell(case)
            return Result(case)
        elected = self._lease is not None and self._lease.valid()
        if not elected and not _of_this_host(case):
            return Result(case, "changed")  # another recoverer may be elected by now, and looks for itself
        now = look.again(case)
        if now is None or now.action != case.action:
            return Result(case, "changed")
        if case.action in _COUNTED and not self._count():
            self._limited()
            return Result(case, "limited")
        return self._perform(now)

    def _perform(self, case: Case) -> Result:
        """Act, with a record before and after."""
        folder = self._config.state_place().path
        about = {
            "action": case.action,
            "kind": case.kind,
            "name": case.name,
            "claim": case.claim_id,
            "why": case.why,
            "seen": dict(case.seen),
            "by": str(self._client.owner),
            "namespace": self._client.namespace,
            "url": self._client.url,
        }
        identity = journal.append(folder, about, file=journal.ACTIONS)
        outcome = "unknown"
        try:
            outcome = self._do(case)
        finally:
            journal.append(folder, {"of": identity, "outcome": outcome}, file=journal.ACTIONS)
        done = Result(case, outcome)
        if outcome not in ("absent", "changed"):
            self._report(done)
        return done

    def _do(self, case: Case) -> str:
        """The action itself: on the claim that was seen, by its id."""
        if case.action == "resolve":
            journal.resolve(self._config.state_place().path, case.record, "lockkit recover")
            return "resolved"
        if case.fix is not None:
            return case.fix()
        done = self._client.evict(
            case.name, case.claim_id, reason=f"recovery: {case.why}", now=case.action == "remove"
        )
        return _OUTCOMES[done.outcome]

    def _count(self) -> bool:
        """Count an action in the record that all recoverers share; False if the hour's limit is reached.

        An action may count twice if the store does not answer.

        Raises:
            BackendError: As :func:`lockkit.notes.records.change`. The action may have been counted.
        """
        allowed: list[bool] = []

        def decide(value: Mapping[str, object]) -> Mapping[str, object] | None:
            now = self._client.driver().clock.wall()
            times = counted(value.get("actions"), now)
            allowed.append(within_limit(times, now, self._config.recover_limit))
            return {**value, "actions": [*times, round(now, 3)]} if allowed[-1] else None

        # A damaged record counts as full, because the number of actions that it had counted is unknown.
        full = [self._client.driver().clock.wall()] * self._config.recover_limit
        change(self._client, LOCK, decide, instead={"actions": full})
        if allowed[-1]:
            self._told.discard(_LIMITED)
        return allowed[-1]

    # -- sending

    def _tell(self, case: Case) -> None:
        """Send a case's event for a person, once for each claim and age. Other checks report their own."""
        kind = _TOLD_AS.get(case.kind)
        if kind is None or (key := (case.claim_id, case.kind, case.tier)) in self._told:
            return
        self._told.add(key)
        self._send(
            Event(
                kind,
                case.name,
                case.claim_id,
                case.fence,
                case.why,
                data={"tier": case.tier or None, **case.seen},
            )
        )
        if kind == "survivors" or case.tier in ("soft", "hard"):
            urgent = kind == "survivors" or case.tier == "hard"
            self._send(
                Alert(
                    kind,
                    "P1" if urgent else "P2",
                    f"{case.name!r}: {case.why}",
                    case.name,
                    case.claim_id,
                    data=case.seen,
                )
            )

    def _report(self, done: Result) -> None:
        case = done.case
        data = {"action": case.action, "outcome": done.outcome, **case.seen}
        self._send(Event("recovered", case.name, case.claim_id, case.fence, case.why, data=data))
        if case.action in _DONE:
            text = f"{case.name!r}: claim {case.claim_id} was {_DONE[case.action]}: {case.why}"
            self._send(Alert("recovered", "P2", text, case.name, case.claim_id, data=data))

    def _limited(self) -> None:
        if _LIMITED not in self._told:
            self._told.add(_LIMITED)
            limit = self._config.recover_limit
            text = (
                f"recover_limit ({limit} an hour) is reached; further claims wait; see: lockkit docs recover"
            )
            self._send(Alert("recovery_limited", "P1", text))

    def _send(self, what: Event | Alert) -> None:
        self._client.driver().dispatcher.tell(what)


def _of_this_host(case: Case) -> bool:
    """Whether only this host can see that a case is as it is, so that no other recoverer can act on it."""
    return case.action == "remove" or case.again is not None


_TOLD_AS = {"overdue": "overdue", "silent": "overdue", "survivors": "survivors", "gone": "survivors"}
_LIMITED = ("", "limited", "")
_DONE = {"remove": "removed", "evict": "evicted"}
_COUNTED = ("remove", "evict", "fix")
_OUTCOMES: Mapping[str, str] = {"REMOVED": "removed", "MARKED": "evicted", "ABSENT": "absent"}
