"""Inspection of locks and operations on other clients' claims: the part of a client that holds nothing."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

from lockkit.errors import BackendError, CapabilityError, ConfigError
from lockkit.facts import Deadlock, Drain, Event, Evicted, Finding, LockInfo, Owner, Record, ReleaseRequest
from lockkit.lib.forks import IMPORTS
from lockkit.lib.printable import printable
from lockkit.shared.options import whole
from lockkit.store.spi import Refused, Unknown
from lockkit.values.names import check_name, is_name

if TYPE_CHECKING:
    from lockkit.config.config import Config
    from lockkit.drivers.threads import Driver
    from lockkit.plugins import PluginManager
    from lockkit.shared.opening import Opening

__all__ = ["Operations"]

T = TypeVar("T")
_HEALTH = 5.0
"""Seconds that the health checks of plugins may take."""


@lru_cache(maxsize=16)  # one warning, however often somebody looks
def _tell_strange(names: str) -> None:
    import logging  # not with lockkit: a sixth of the time of its import

    logging.getLogger("lockkit").warning(
        "claims in the store under keys that are not names of locks are left out: %s", names
    )


class Operations:
    """The operations of a client that hold nothing. :class:`~lockkit.sync.client.Client` adds locks."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self.config: Config = opening.config
        self.plugins: PluginManager = opening.plugins

    @property
    def owner(self) -> Owner:
        """The owner that this process's claims show."""
        return self._opening.owner

    def driver(self, patience: float | None = 0.0) -> Driver:
        """The engine of this process; see :meth:`lockkit.shared.opening.Opening.driver`."""
        return self._opening.driver(patience)

    def warn(self) -> None:
        """Log the warnings that the store gave when it was opened. The first lock does this by itself."""
        self._opening.warn()

    def inspect(self, name: str) -> LockInfo:
        """The queue of a name, in order, with the states of the claims' processes. Changes nothing."""
        check_name(name)
        with IMPORTS:
            from lockkit.store.judging import judged_queue
        return judged_queue(self._ask(lambda driver, budget: driver.backend.inspect(name, budget), name))

    def names(self, prefix: str = "", *, pattern: str | None = None, deep: bool = False) -> list[str]:
        """The sorted names that have claims. Other keys in the store are left out, with a warning.

        Args:
            prefix: Only names that start with this text.
            pattern: Only names that match this pattern (:mod:`fnmatch`): ``*`` is any text, ``?`` one
                character, ``[ab]`` one of these. A name matches itself, whatever characters it has.
            deep: Scan the whole store, in case its index of names is incomplete.
        """
        if not isinstance(prefix, str):
            raise ConfigError(f"a prefix of names must be a str, not {prefix!r}")
        if pattern is None:
            return self._listed(prefix, deep=deep)
        if not isinstance(pattern, str):
            raise ConfigError(f"a pattern of names must be a str, not {pattern!r}")
        with IMPORTS:
            from fnmatch import fnmatchcase

        begin = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
        begin = begin if begin.startswith(prefix) else prefix
        return [
            name
            for name in self._listed(begin, deep=deep)
            if name.startswith(prefix) and (name == pattern or fnmatchcase(name, pattern))
        ]

    def _listed(self, prefix: str, *, deep: bool) -> list[str]:
        found = self._ask(lambda driver, budget: driver.backend.names(prefix, budget, deep=deep))
        names = [name for name in found if is_name(name)]
        if len(names) < len(found):  # nobody can lock them, so nobody waits for them
            _tell_strange(printable(", ".join(sorted(set(found) - set(names)))[:200]))
        return names

    def namespaces(self) -> list[str]:
        """The sorted namespaces of the store that have claims, perhaps lapsed ones, or are drained.

        Raises:
            CapabilityError: The store cannot list its namespaces.
        """

        def ask(driver: Driver, budget: float) -> list[str]:
            listed = driver.backend.extras.namespaces
            if listed is None:
                raise CapabilityError(
                    f"the store at {self._opening.url} cannot list its namespaces",
                    hint="look into one: lockkit status --namespace NAME",
                )
            return sorted(listed(budget))

        return self._ask(ask)

    def deadlocks(self) -> list[Deadlock]:
        """The deadlocks among threads and tasks that wait in this namespace, in any process and on any host.

        Reads every queue, and if it finds a deadlock reads all of them again 2 s later: only what both looks
        find alike counts. So a returned deadlock existed between the two; it may have ended since. A wait
        publishes what its thread or task holds only after 1 s.

        Not found are deadlocks through another client's namespace or store, through threads that wait for
        each other by other means than locks, through a waiter that holds nothing and does not detect
        deadlocks, and through claims of an older lockkit that publishes nothing.
        """
        with IMPORTS:
            from lockkit.drivers.waits import sleep_until
            from lockkit.protocol.cycles import BETWEEN, look

        def queues() -> list[LockInfo]:
            names = self._ask(lambda driver, budget: driver.backend.names("", budget))
            return [self.inspect(name) for name in names]

        first = look(queues())
        if not first.deadlocks:
            return []
        clock = self._opening.clock
        sleep_until(clock, clock.now() + BETWEEN)
        return list(look(queues(), first.stuck).deadlocks)

    def evict(self, name: str, claim_id: str, *, reason: str, now: bool = False) -> Evicted:
        """Force one named claim out, and no other.

        A held claim is marked. Its holder learns of the loss, and the next claim is granted only when the
        holder can no longer believe that it holds.

        Args:
            name: The lock.
            claim_id: The claim, as ``inspect`` shows it.
            reason: The reason, which is kept with the claim, in the log and in events.
            now: Remove the claim at once. The holder may then believe that it holds, and
                :meth:`~lockkit.Lease.ensure_held` pass, until its next renewal, within a third of its ttl.
        """
        check_name(name)
        _check_claim(name, claim_id)
        if not reason:
            raise ConfigError(
                "evict needs a reason",
                name=name,
                hint="give reason=...; it is logged and shown to the holder",
            )
        by = {"evicted": {"reason": reason[:500], "by": str(self.owner)}}
        # If the note is full, or the store has no notes, the log has the reason.
        with contextlib.suppress(ConfigError, CapabilityError):
            self._annotate(name, claim_id, by)
        result = self._ask(lambda driver, budget: driver.backend.evict(name, claim_id, budget, now=now), name)
        if result.claim is not None:
            with IMPORTS:
                from lockkit.store.judging import judged
            result = result._replace(claim=judged(result.claim))
        if result.outcome != "ABSENT":
            fence = result.claim.fence if result.claim else None
            ttl = result.claim.ttl or None if result.claim else None
            data = {"by": str(self.owner), "now": now or None, "ttl": ttl}
            self.driver().dispatcher.tell(Event("evicted", name, claim_id, fence, reason, data=data))
        return result

    def ask_release(self, name: str, claim_id: str, reason: str) -> ReleaseRequest:
        """Ask the holder of one named claim to release it, without forcing anything.

        ``inspect`` shows the request, in the claim's note. The holder's next renewal brings it, within about
        a third of its ttl: then its ``lease.release_requested`` is set. What the holder does is up to its
        program. Requests of several users, or with several reasons, are kept side by side; the same user who
        asks again with the same reason renews the request, and the holder hears of it again.

        Args:
            name: The lock.
            claim_id: The claim, as ``inspect`` shows it.
            reason: Why, in one line of at most 200 characters; the holder sees it.

        Returns:
            The request, as the holder sees it.

        Raises:
            ConfigError: An argument is not allowed, or the claim's note has no room for another request.
            NotHeld: There is no such claim, or it does not hold the lock; the error names the claims that do.
            CapabilityError: The store has no notes.
            BackendError: The store gave no answer; the request may have been made.
        """
        check_name(name)
        _check_claim(name, claim_id)
        with IMPORTS:
            from lockkit.notes import remarks
        request, patch = remarks.requesting(reason, self.owner, self._opening.clock.wall(), name)
        asked = remarks.askable(self.inspect(name), claim_id).release_requests
        try:
            made = self._annotate(name, claim_id, patch)
        except ConfigError:
            raise ConfigError(
                f"the note of claim {claim_id} of {name!r} has no room for another request; "
                f"{len(asked)} were made before",
                name=name,
                hint=f"see what others have asked for: client.inspect({name!r})",
            ) from None
        if not made:
            raise remarks.gone(self.inspect(name), claim_id)
        return request

    def drain(self, reason: str = "") -> Drain:
        """Give no new locks in this namespace, to anybody, until :meth:`undrain`. Holders may finish.

        When the call returns, every acquire that starts later is refused with
        :class:`~lockkit.errors.Drained`, and the waiters are being refused. Holders renew, extend, confirm
        and release as ever, and may acquire re-entrant locks again. The store keeps the mark: it does not
        lapse, and a restart does not end it if the store keeps its data. A second call replaces the mark.
        Programs with a lockkit older than this ability do not know it.

        Args:
            reason: Why, in one line of at most 200 characters; shown to everybody who is refused.

        Raises:
            ConfigError: The reason is not allowed.
            CapabilityError: The store cannot drain a namespace.
            BackendError: The store gave no answer. The hint says if the namespace may be drained, and how
                that ends; it may be after a KeyboardInterrupt, too, and on a Redis Cluster in part, until
                ``drain`` or ``undrain`` succeeds.
        """
        with IMPORTS:
            from lockkit.shared import draining
        return draining.drain(self._opening, reason)

    def undrain(self) -> Drain | None:
        """Give new locks in this namespace again. Returns the removed mark; None if there was no drain.

        Raises:
            CapabilityError: The store cannot drain a namespace.
            ConfigError: Another client has drained the namespace anew during the call; its mark stays.
            BackendError: The store gave no answer; the namespace may be drained, or in part: repeat the call.
        """
        with IMPORTS:
            from lockkit.shared import draining
        return draining.undrain(self._opening)

    def drained(self, namespace: str | None = None) -> Drain | None:
        """The mark of a drained namespace: by whom, since when, and why. None without a mark.

        Args:
            namespace: Another namespace of the store; None for that of this client.
        """
        with IMPORTS:
            from lockkit.shared import draining
            from lockkit.values.names import check_namespace
        return draining.drained(self._opening, None if namespace is None else check_namespace(namespace))

    def resize(self, name: str, capacity: int) -> int:
        """Change the capacity of every claim of a semaphore, in one step. Returns the number of claims.

        Holders stay holders and count; nothing more is granted until they fit. If the record of a pool's
        member fixes its capacity, as for the memory of a GPU, the record is changed first.

        Raises:
            ConfigError: The name is in use as a mutex or reader/writer lock, whose capacity is fixed; or it
                is a member of a pool that somebody holds or waits for as a whole, and the new capacity would
                let others in beside that claim; or it is a member without claims and without a record.
                Nothing is changed. A claim that arrives between the check and the change is not seen; one for
                a whole GPU is given back by its own request, which reads the record after the grant.
        """
        check_name(name)
        whole(capacity, "capacity", name)
        began = time.monotonic()
        claims = self.inspect(name).claims
        other = next((claim for claim in claims if claim.kind != "semaphore"), None)
        if other is not None:
            kind = "a plain lock" if other.kind == "mutex" else "a reader/writer lock"
            text = f"{name!r} is used as {kind} by {other.owner}, and its capacity cannot be changed"
            raise ConfigError(text, name=name, holder=other, hint="only a semaphore can be resized")
        with IMPORTS:
            from lockkit.notes import records
            from lockkit.notes.members import check_growth, in_pool
        member = in_pool(name) is not None
        if member:
            check_growth(name, claims, capacity)
        before = records.resize(self, name, capacity) if member else None
        fixed = before is not None
        if member and not fixed and not claims:
            raise ConfigError(
                f"{name!r} has no claims and no record of its capacity, so nothing was changed",
                name=name,
                hint="a GPU gets its record when somebody takes it first; "
                "other members have the capacity that their programs say",
            )
        try:
            if before is not None:
                # A claim for the whole member may have come that knew the old record; later ones do not.
                claims = self.inspect(name).claims
                try:
                    check_growth(name, claims, capacity)
                except ConfigError:
                    records.resize(self, name, before, only=capacity)
                    raise
            # A claim that comes into an empty queue just now keeps its own capacity: a whole one stays whole.
            count = 0
            if claims or not fixed:
                count = self._ask(lambda driver, budget: driver.backend.resize(name, capacity, budget), name)
        except BackendError as error:
            if fixed:
                error.hint = (
                    f"its record has capacity {capacity} already: "
                    "resize it again, so that the claims in its queue have it, too"
                )
            raise
        took = time.monotonic() - began
        data = {"capacity": capacity, "claims": count}
        self.driver().dispatcher.tell(Event("resized", name, duration=took, data=data))
        return count

    def annotate(self, name: str, claim_id: str, patch: Mapping[str, object]) -> bool:
        """Merge a JSON patch (RFC 7396) into a claim's note; False if there is no such claim."""
        check_name(name)
        with IMPORTS:
            from lockkit.notes.remarks import unreserved
        unreserved(patch)
        return self._annotate(name, claim_id, patch)

    def record(self, name: str) -> Record | None:
        """The small record of a name, which stays when its claims are gone."""
        check_name(name)
        return self._ask(lambda driver, budget: driver.backend.record(name, budget), name)

    def put_record(self, name: str, value: Mapping[str, object], version: int) -> Record:
        """Write the record if it still has this version (0: there is none yet).

        Raises:
            lockkit.store.spi.Conflict: The record has another version.
            OutcomeUnknown: The record may or may not have been written; read it again.
        """
        check_name(name)
        try:
            return self.driver().backend.put_record(name, value, version, self.config.request_timeout)
        except (Refused, Unknown) as trouble:
            raise trouble.error from None

    def check(self) -> list[Finding]:
        """The results of the health checks of the store and the plugins."""
        return [*self.check_store(), *self.check_plugins()]

    def check_store(self) -> list[Finding]:
        """The results of the store's own health checks."""
        return list(self._ask(lambda driver, budget: driver.backend.check(budget)))

    def check_plugins(self) -> list[Finding]:
        """The plugins' health checks. A check that fails, or takes longer than 5 s, is a finding itself."""
        # Late: a program that only imports lockkit needs no plugins.
        with IMPORTS:
            from lockkit.plugins.calling import call_within
        findings: list[Finding] = []
        implementations = self.plugins.implementations("lockkit_health")
        for outcome in call_within(_HEALTH, "lockkit_health", implementations, {"client": self}):
            if outcome.error is not None:
                plugin = f"plugin {outcome.plugin}"
                told = f"{plugin}: its health check failed: {type(outcome.error).__name__}: {outcome.error}"
                findings.append(Finding(plugin, "error", told, "see: lockkit plugins"))
            elif isinstance(outcome.value, Iterable):
                findings.extend(found for found in outcome.value if isinstance(found, Finding))
        return findings

    def _annotate(self, name: str, claim_id: str, patch: Mapping[str, object]) -> bool:
        return self._ask(lambda driver, budget: driver.backend.annotate(name, claim_id, patch, budget), name)

    def _ask(self, call: Callable[[Driver, float], T], name: str | None = None) -> T:
        driver = self.driver()
        return driver.requests.ask(lambda budget: call(driver, budget), name)


def _check_claim(name: str, claim_id: object) -> None:
    if not str(claim_id).isalnum():
        raise ConfigError(f"a claim id is 12 hex digits, as inspect shows them, not {claim_id!r}", name=name)
