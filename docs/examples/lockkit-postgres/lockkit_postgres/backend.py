"""The calls of lockkit's interface: each is one function of the schema, one statement, one round trip."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence

from lockkit.facts import Capabilities, Evicted, Finding, LockInfo, Record
from lockkit.store.comparing import annotate
from lockkit.store.dangers import warnings_of
from lockkit.store.notes import note_of, note_text, patched
from lockkit.store.queue import agreed, check_capacity
from lockkit.store.spi import (
    NO_EXTRAS,
    NOTE_LIMIT,
    Answer,
    Beat,
    Busy,
    Claim,
    Conflict,
    End,
    Extras,
    Granted,
    Lapsed,
    OpenOptions,
    Queued,
    Refused,
    ReleaseAnswer,
    Renewal,
    Unknown,
    Watch,
)
from lockkit.values.names import check_namespace, claim_id
from lockkit_postgres import CAPABILITIES, health, layout
from lockkit_postgres.address import parse
from lockkit_postgres.claims import asked, claim_info, record
from lockkit_postgres.pool import Connections
from lockkit_postgres.wakes import Wakes

__all__ = ["PostgresBackend", "open_store"]

_OPENING = 2.0
_LATE = 30.0
"""Seconds that an acquire may be under way. A tombstone lasts twice that, so one of both stops every copy."""
_CHUNK = 100
"""Claims renewed in one statement, which keeps their queues locked until it ends."""


def open_store(url: str, options: OpenOptions) -> PostgresBackend:
    """Open a store. Connects, and makes the schema where there is none.

    Raises:
        ConfigError: The URL or the namespace is not allowed.
        Refused, Unknown: The server cannot be reached or used.
    """
    check_namespace(options.namespace)
    return PostgresBackend(url, options)


class PostgresBackend:
    """One open store. Thread-safe; of no use in a forked child."""

    capabilities: Capabilities = CAPABILITIES
    extras: Extras = NO_EXTRAS

    def __init__(self, url: str, options: OpenOptions) -> None:
        self._namespace = options.namespace
        self._clock = options.clock
        self._unsure: set[str] = set()  # tokens of which a creating acquire may be under way
        self._pool = Connections(
            parse(url, f"lockkit:{options.owner.host}:{options.owner.pid}"), options.clock
        )
        end = time.monotonic() + _OPENING
        try:
            hello = layout.prepare(self._pool, self._namespace, end)
            found = health.check(self._pool, max(end - time.monotonic(), 0.1))
            errors = [each for each in found if each.severity == "error"]
            for warning in warnings_of(errors, strict=options.strict, who=self._pool.address.shown):
                options.warn(warning)
        except BaseException:
            self._pool.close()
            raise
        self._ahead = float(hello["at"]) - self._clock.now()
        self._wakes = Wakes(self._pool, self._namespace, hello["channel"])

    # -- claims

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
        """See :meth:`lockkit.store.spi.Backend.acquire`."""
        again = create and claim.token in self._unsure
        words = (asked(claim, again=again), create, self._ahead + self._clock.now() + _LATE)
        if create:
            self._unsure.add(claim.token)
        try:
            told, sent = self._pool.call(budget, "acquire", self._namespace, *words)
        except Refused:
            if create and not again:  # no copy of it is under way
                self._unsure.discard(claim.token)
            raise
        if create:  # if there was one before, the store knows it by now
            self._unsure.discard(claim.token)
        now = self._clock.now()
        self._ahead = float(told["at"]) - now
        if told["answer"] == "GRANTED":
            return Granted(told["fence"], sent)
        if told["answer"] == "LAPSED":
            return Lapsed(told["why"])
        holder = claim_info(told["holder"])  # there is one: whoever is in the way, or the claim itself
        if told["answer"] == "BUSY":
            return Busy(holder.capacity, holder)
        return Queued(
            position=told["position"],
            ask_again_at=None if told["ask_in"] is None else now + float(told["ask_in"]),
            blockers=(str(told["fence"]),),  # who is woken is the claim itself, when its turn has come
            capacity=agreed(claim.terms.capacity, told["capacity"], holder.capacity),
            holder=holder,
        )

    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        """See :meth:`lockkit.store.spi.Backend.renew`. In chunks; an unanswered one stops no other."""
        end = time.monotonic() + budget
        answers: list[Renewal] = []
        troubles: list[Refused | Unknown] = []
        for at in range(0, len(beats), _CHUNK):
            chunk = beats[at : at + _CHUNK]
            try:
                answers += self._renew(chunk, max(end - time.monotonic(), 0.0))
            except (Refused, Unknown) as error:
                troubles.append(error)
                answers += [Renewal("UNKNOWN", trouble=str(error))] * len(chunk)
        if troubles and all(each.state == "UNKNOWN" for each in answers):
            raise troubles[0]
        return answers

    def _renew(self, beats: Sequence[Beat], budget: float, ttl: float | None = None) -> list[Renewal]:
        asking = [
            {"name": claim.terms.name, "token": claim.token, "fence": fence, "ttl": ttl}
            for claim, fence in beats
        ]
        told, sent = self._pool.call(budget, "renew", self._namespace, json.dumps(asking))
        return [
            Renewal(
                each["state"],
                basis=sent if each["state"] == "HELD" else 0.0,
                requests=note_of(each["note"]) if "note" in each else None,
                why=each.get("why", ""),
            )
            for each in told
        ]

    def extend(self, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:
        """See :meth:`lockkit.store.spi.Backend.extend`."""
        return self._renew([(claim, fence)], budget, ttl)[0]

    def release(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.release`."""
        return self._end(claim, budget, how=how)

    def abandon(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.abandon`. Leaves a tombstone even if it finds nothing."""
        return self._end(claim, budget, how=how, doubt=True)

    def emergency_release(self, claim: Claim, budget: float, *, how: End = "released") -> ReleaseAnswer:
        """See :meth:`lockkit.store.spi.Backend.emergency_release`."""
        return self._end(claim, budget, how=how, doubt=True, fresh=True)

    def _end(
        self, claim: Claim, budget: float, *, how: End, doubt: bool = False, fresh: bool = False
    ) -> ReleaseAnswer:
        doubt = doubt or claim.token in self._unsure
        words = (self._namespace, claim.terms.name, claim.token, how, doubt)
        answer: ReleaseAnswer = self._pool.call(budget, "release", *words, fresh=fresh)[0]
        self._unsure.discard(claim.token)
        return answer

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.watch`. Watches for the claim's own turn."""
        return self._wakes.watch(claim_id(claim.token), wake)

    # -- operating

    def inspect(self, name: str, budget: float) -> LockInfo:
        """See :meth:`lockkit.store.spi.Backend.inspect`."""
        told, _ = self._pool.call(budget, "inspect", self._namespace, name)
        return LockInfo(name, tuple(map(claim_info, told)), self._clock.wall())

    def names(self, prefix: str, budget: float, *, deep: bool = False) -> Sequence[str]:  # noqa: ARG002
        """See :meth:`lockkit.store.spi.Backend.names`. Always exact."""
        return sorted(self._pool.call(budget, "names", self._namespace, prefix)[0])

    def evict(self, name: str, claim_id: str, budget: float, *, now: bool = False) -> Evicted:
        """See :meth:`lockkit.store.spi.Backend.evict`. After ``now=True`` the holder may believe in it."""
        told, _ = self._pool.call(budget, "evict", self._namespace, name, claim_id, now)
        if told["outcome"] == "ABSENT":
            return Evicted("ABSENT")
        info = claim_info(told["claim"])
        return Evicted(told["outcome"], info.deadline if told["outcome"] == "MARKED" else None, info)

    def resize(self, name: str, capacity: int, budget: float) -> int:
        """See :meth:`lockkit.store.spi.Backend.resize`."""
        check_capacity(capacity, name, most=2**31 - 1)
        return int(self._pool.call(budget, "resize", self._namespace, name, capacity)[0])

    def annotate(self, name: str, claim_id: str, patch: Mapping[str, object], budget: float) -> bool:
        """See :meth:`lockkit.store.spi.Backend.annotate`. Reads, merges here, and writes if unchanged.

        Raises:
            ConfigError: The patch, or the merged note, is over :data:`lockkit.store.spi.NOTE_LIMIT` bytes.
        """
        end = time.monotonic() + budget

        def attempt() -> bool | None:
            told, _ = self._pool.call(max(end - time.monotonic(), 0.0), "inspect", self._namespace, name)
            found = [each for each in told if each["claim_id"] == claim_id]
            if not found:
                return False
            seen = found[0]["note"]
            text = note_text(patched(note_of(seen), patch), NOTE_LIMIT)
            words = (self._namespace, name, claim_id, seen, text)
            return self._pool.call(max(end - time.monotonic(), 0.0), "annotate", *words)[0] or None

        return annotate(name, patch, attempt)

    def record(self, name: str, budget: float) -> Record | None:
        """See :meth:`lockkit.store.spi.Backend.record`."""
        return record(name, self._pool.call(budget, "get_record", self._namespace, name)[0])

    def put_record(self, name: str, value: Mapping[str, object], version: int, budget: float) -> Record:
        """See :meth:`lockkit.store.spi.Backend.put_record`.

        Raises:
            Conflict: The record has another version.
            ConfigError: The value is over :data:`lockkit.store.spi.NOTE_LIMIT` bytes.
        """
        text = note_text(value, NOTE_LIMIT, "record")
        told, _ = self._pool.call(budget, "put_record", self._namespace, name, text, version)
        written = record(name, told["record"])
        if not told["written"] or written is None:
            raise Conflict(written)
        return written

    def check(self, budget: float) -> Sequence[Finding]:
        """See :meth:`lockkit.store.spi.Backend.check`."""
        return health.check(self._pool, budget)

    def close(self) -> None:
        """Close the connections."""
        self._wakes.close()
        self._pool.close()
