"""One Redis or Valkey server as a store: each call is one script, one round trip."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import redis.exceptions as theirs

from lockkit.errors import BackendUnavailable, ConfigError, OutcomeUnknown
from lockkit.facts import Capabilities, ClaimInfo, Evicted, Finding, LockInfo, Record
from lockkit.names import check_namespace
from lockkit.notes import merged, note_text
from lockkit.spi import (
    ABSENT,
    NOTE_LIMIT,
    RELEASED,
    Answer,
    Beat,
    Busy,
    Claim,
    Conflict,
    Granted,
    Lapsed,
    OpenOptions,
    Queued,
    Refused,
    ReleaseAnswer,
    Renewal,
    Terms,
    Unknown,
    Watch,
)
from lockkit_redis import CAPABILITIES, health, scripts
from lockkit_redis.address import Address, parse
from lockkit_redis.failures import replied
from lockkit_redis.keys import Keys, channel, index, name_in, pattern
from lockkit_redis.line import pack
from lockkit_redis.router import Cluster, Link, Router, Single
from lockkit_redis.stated import Stated, millis
from lockkit_redis.view import claim_info, lock_info, tokens
from lockkit_redis.wakes import Wakes

__all__ = ["RedisBackend", "open_store"]

_LATE = 30_000
"""Milliseconds after which a creating acquire that is still under way grants nothing."""
_INDEXED = 3_600_000
_CHUNK = 500
"""Scripts in one pipelined batch of renewals."""
_KNOWN = 16_384
"""How many locks' packed words are kept."""
_NAMED = 50_000
"""Names of which it is remembered that the index has them."""
_NOTING = 3
"""Commands that note names."""
_COPYING = 0.5
"""Of an acquire's budget, what waiting for replicas may take."""
_ROUNDS = 16


def open_store(url: str, options: OpenOptions) -> RedisBackend:
    """Open a server. Connects, so that a wrong address or password is told at once.

    Raises:
        ConfigError: The URL or the namespace is not allowed.
        Refused: The server cannot be reached or used.
    """
    check_namespace(options.namespace)
    return RedisBackend(parse(url), options)


class RedisBackend:
    """One open server. Thread-safe; of no use in a forked child."""

    capabilities: Capabilities = CAPABILITIES

    def __init__(self, address: Address, options: OpenOptions) -> None:
        self._clock = options.clock
        self._namespace = options.namespace
        self._ahead = 0.0  # server's clock minus CLOCK_BOOTTIME, ms
        self._channel = channel(options.namespace, os.urandom(8).hex())
        owner = options.owner
        name = f"lockkit:{owner.host or 'unknown'}:{owner.pid or os.getpid()}".replace(" ", "_")
        self.router: Router = (Cluster if address.cluster else Single)(address, name, self._greeted)
        self._wakes = Wakes(self.router, self._channel)
        self._stated: dict[int, Stated] = {}
        self._unsure: dict[str, None] = {}
        self._indexed: dict[str, float] = {}
        self._min_replicas = address.min_replicas
        try:
            self._look_round(options)
        except BaseException:
            self.close()
            raise

    def _look_round(self, options: OpenOptions) -> None:
        """Tell what is wrong with the servers: here, where somebody reads it."""
        for wire in self.router.wires():
            wire.call(pack("PING"), _OPENING)
            for found in health.known_bad(wire, _OPENING):
                if options.strict:
                    text = f"{wire.where}: {found.message}; strict refuses that"
                    raise Refused(BackendUnavailable(text, hint=found.hint), retry=False)
                options.warn(f"{wire.where}: {found.message} ({found.hint})")

    def _greeted(self, clock: Sequence[Any]) -> None:
        self._heard(int(clock[0]) * 1000 + int(clock[1]) // 1000)

    def _heard(self, server: int) -> None:
        self._ahead = server - self._clock.now() * 1000.0

    # -- claims

    def acquire(self, claim: Claim, create: bool, budget: float) -> Answer:  # noqa: FBT001
        """See :meth:`lockkit.spi.Backend.acquire`."""
        token, terms = claim.token, claim.terms
        stated = self._known(terms)
        note = b"$0\r\n\r\n"
        if claim.note:
            text = note_text(claim.note, NOTE_LIMIT).encode()
            note = b"$%d\r\n%b\r\n" % (len(text), text)
        replay = create and token in self._unsure
        if create:
            self._unsure[token] = None
        basis = self._clock.now()
        not_after = int(basis * 1000.0 + self._ahead) + _LATE
        words = b"$32\r\n%b\r\n$3\r\n%d%d%d\r\n$13\r\n%013d\r\n" % (
            token.encode(), create, claim.wait, replay, not_after,
        )  # fmt: skip
        packed = b"".join((stated.head, words, stated.tail, note))
        link = self.router.at(stated.keys.queue)
        try:
            if self._min_replicas:
                answer = self._acquire_and_copy(link, claim, packed, budget)
            elif self._indexed.get(terms.name, 0.0) > basis:
                answer = scripts.ACQUIRE.send(link, budget, packed)
            else:
                answer = self._acquire_and_index(link, terms.name, packed, budget)
        except Refused:
            if create and not replay:  # no copy of it is under way
                self._unsure.pop(token, None)
            raise
        if create:
            self._unsure.pop(token, None)
        self._heard(int(answer[1]))
        match answer[0]:
            case b"G":
                return Granted(int(answer[2]), basis)
            case b"Q":
                _, now, place, nearest, capacity, head, fence = answer
                ask = (
                    None if nearest is None else basis + max(0.0, (int(nearest) - int(now)) / 1000.0) + 0.001
                )
                return Queued(place, ask, (fence.decode(),), capacity, self._head(terms.name, head))
            case b"B":
                return Busy(answer[2], self._head(terms.name, answer[3]))
            case _:
                return Lapsed(answer[2].decode())

    def _acquire_and_index(self, link: Link, name: str, packed: bytes, budget: float) -> Any:
        """Run the acquire and, as always the first time for a name, note the name in the index.

        In a row where both keys are in one place; in a Cluster the index comes after, and only if there is time.
        """
        now, end = self._clock.now(), time.monotonic() + budget
        if not self.router.one:
            answer = scripts.ACQUIRE.send(link, budget, packed)
            self._index((name,), max(end - time.monotonic(), 0.05))
            return answer
        answer, *noted = link.row(packed + self._note((name,), now), budget, 1 + _NOTING)
        if isinstance(answer, theirs.NoScriptError):
            answer = link.call(scripts.ACQUIRE.spelled_out(packed), budget)
        elif isinstance(answer, theirs.ResponseError):
            raise replied(answer, link.where) from answer
        self._noted((name,), now, noted)
        return answer

    def _index(self, names: Sequence[str], budget: float) -> None:
        """Note those names in the index that are not, or not for the last hour. It is advice: no trouble is told."""
        now = self._clock.now()
        due = [name for name in names if self._indexed.get(name, 0.0) <= now]
        if not due:
            return
        try:
            noted = self.router.at(index(self._namespace)).row(self._note(due, now), budget, _NOTING)
        except (Refused, Unknown):
            return
        self._noted(due, now, noted)

    def _note(self, names: Sequence[str], now: float) -> bytes:
        """The commands that note names and forget those that nobody has noted for two hours."""
        where, at = index(self._namespace), int(now * 1000.0 + self._ahead)
        until = at + 2 * _INDEXED
        return b"".join(
            (
                pack("ZADD", where, *(word for name in names for word in (until, name))),
                pack("ZREMRANGEBYSCORE", where, "-inf", at),
                pack("PEXPIREAT", where, until),
            )
        )

    def _noted(self, names: Sequence[str], now: float, replies: Sequence[Any]) -> None:
        if any(isinstance(reply, theirs.ResponseError) for reply in replies):
            return
        if len(self._indexed) + len(names) > _NAMED:
            self._indexed.clear()
        self._indexed.update(dict.fromkeys(names, now + _INDEXED / 1000.0))

    def _acquire_and_copy(self, link: Link, claim: Claim, packed: bytes, budget: float) -> Any:
        """Run the acquire and wait for replicas to have it; a grant that too few have is given back and refused."""
        end = time.monotonic() + budget
        wait = pack("WAIT", self._min_replicas, max(1, int(budget * _COPYING * 1000.0)))
        answers = link.row(packed + wait, budget, 2)
        if isinstance(answers[0], theirs.NoScriptError):
            answers = link.row(scripts.ACQUIRE.spelled_out(packed) + wait, budget, 2)
        for answer in answers:
            if isinstance(answer, theirs.ResponseError):
                raise replied(answer, link.where) from answer
        answer, copies = answers
        if answer[0] == b"G" and copies < self._min_replicas:
            left = max(end - time.monotonic(), 0.05)
            try:
                self._release(link, claim, left, graceful=True, tombstone=True)
            except Refused as refusal:  # so it is still there
                raise Unknown(OutcomeUnknown(str(refusal.error))) from refusal
            text = f"{link.where}: only {copies} of {self._min_replicas} replicas confirmed the lock"
            raise Refused(BackendUnavailable(text, hint="look after the replicas; see INFO replication"))
        self._index((claim.terms.name,), max(end - time.monotonic(), 0.05))
        return answer

    def _known(self, terms: Terms) -> Stated:
        known = self._stated.get(id(terms))
        if known is None or known.terms is not terms:
            if len(self._stated) >= _KNOWN:
                self._stated.clear()
            known = self._stated[id(terms)] = Stated.of(self._namespace, terms, self._channel)
        return known

    def _head(self, name: str, head: Sequence[bytes] | None) -> ClaimInfo | None:
        if not head:
            return None
        token, fence, deadline, state, owner = head
        return claim_info(name, token, fence, deadline, state, owner, None, 0)

    def renew(self, beats: Sequence[Beat], budget: float) -> Sequence[Renewal]:
        """See :meth:`lockkit.spi.Backend.renew`. One pipelined batch of scripts, one for each name."""
        end = time.monotonic() + budget
        places: dict[str, list[int]] = {}
        for at, (claim, _) in enumerate(beats):
            places.setdefault(claim.terms.name, []).append(at)
        answers: dict[int, Renewal] = {}
        names = list(places)
        for start in range(0, len(names), _CHUNK):
            batch = names[start : start + _CHUNK]
            self._renew(batch, places, beats, answers, max(end - time.monotonic(), 0.05))
        self._index(names, max(end - time.monotonic(), 0.05))
        return [answers[at] for at in range(len(beats))]

    def _renew(
        self,
        names: list[str],
        places: Mapping[str, list[int]],
        beats: Sequence[Beat],
        answers: dict[int, Renewal],
        budget: float,
    ) -> None:
        basis = self._clock.now()
        held = Renewal("HELD", basis)
        runs = []
        together: dict[Link, list[tuple[str, bytes]]] = {}
        for name in names:
            link, packed = self._renewal([beats[at] for at in places[name]])
            together.setdefault(link, []).append((name, packed))
        trouble: Refused | Unknown | None = None
        end = time.monotonic() + budget
        for waiting, (link, some) in zip(range(len(together), 0, -1), together.items(), strict=True):
            share = max((end - time.monotonic()) / waiting, 0.05)
            try:
                replies = link.row(b"".join(packed for _, packed in some), share, len(some))
            except (Refused, Unknown) as error:
                trouble = error
                for name, _ in some:
                    answers.update((at, _nothing_new(beats[at])) for at in places[name])
            else:
                runs += [
                    (link, name, packed, reply) for (name, packed), reply in zip(some, replies, strict=True)
                ]
        if trouble is not None and not runs:
            raise trouble
        for link, name, packed, reply in runs:
            if isinstance(reply, theirs.NoScriptError):  # only the first makes the server learn it
                left = max(end - time.monotonic(), 0.05)
                reply = scripts.RENEW.send(link, left, packed)  # noqa: PLW2901
            elif isinstance(reply, theirs.ResponseError):
                raise replied(reply, link.where) from reply
            for at, (state, why, *note) in zip(places[name], reply[1:], strict=True):
                if state == b"H" and not note[0]:
                    answers[at] = held
                else:
                    requests = json.loads(note[0]) if note and note[0] else None
                    answers[at] = Renewal(_STATES[state], basis, requests, why.decode())
        if runs:
            self._heard(int(reply[0]))

    def _renewal(self, beats: Sequence[Beat]) -> tuple[Link, bytes]:
        """The command that renews claims of one name; for one claim it is put together from what is packed already."""
        stated = self._known(beats[0][0].terms)
        link = self.router.at(stated.keys.queue)
        if len(beats) > 1:
            words = [word for claim, fence in beats for word in (claim.token, "" if fence is None else fence)]
            return link, scripts.RENEW.packed(stated.keys[:5], *words)
        claim, fence = beats[0]
        text = b"" if fence is None else b"%d" % fence
        return link, b"%b$32\r\n%b\r\n$%d\r\n%b\r\n" % (
            stated.renew, claim.token.encode(), len(text), text,
        )  # fmt: skip

    def extend(self, claim: Claim, fence: int, ttl: float, budget: float) -> Renewal:
        """See :meth:`lockkit.spi.Backend.extend`."""
        basis = self._clock.now()
        words = (claim.token, fence, millis(ttl))
        now, state, why, *note = self._run(scripts.EXTEND, claim.terms.name, budget, *words)
        self._heard(int(now))
        return Renewal(_STATES[state], basis, json.loads(note[0]) if note and note[0] else None, why.decode())

    def release(self, claim: Claim, budget: float, *, graceful: bool = True) -> ReleaseAnswer:
        """See :meth:`lockkit.spi.Backend.release`."""
        return self._release(
            self._at(claim), claim, budget, graceful=graceful, tombstone=claim.token in self._unsure
        )

    def abandon(self, claim: Claim, budget: float, *, graceful: bool = True) -> ReleaseAnswer:
        """See :meth:`lockkit.spi.Backend.abandon`. Leaves a tombstone even if it finds nothing."""
        return self._release(self._at(claim), claim, budget, graceful=graceful, tombstone=True)

    def emergency_release(self, claim: Claim, budget: float, *, graceful: bool = True) -> ReleaseAnswer:
        """See :meth:`lockkit.spi.Backend.emergency_release`."""
        fresh = self._at(claim).another()
        try:
            return self._release(fresh, claim, budget, graceful=graceful, tombstone=True)
        finally:
            fresh.close()

    def _release(
        self, link: Link, claim: Claim, budget: float, *, graceful: bool, tombstone: bool
    ) -> ReleaseAnswer:
        words = b"$32\r\n%b\r\n$1\r\n%d\r\n$1\r\n%d\r\n" % (claim.token.encode(), graceful, tombstone)
        found = scripts.RELEASE.send(link, budget, self._known(claim.terms).release + words)
        self._unsure.pop(claim.token, None)
        return RELEASED if found else ABSENT

    def watch(self, name: str, blockers: Sequence[str], wake: Callable[[], None], claim: Claim) -> Watch:
        """See :meth:`lockkit.spi.Backend.watch`. What is watched for is the claim's own turn."""
        return self._wakes.watch(blockers[0], Keys.of(self._namespace, name).claims, claim.token, wake)

    # -- operating

    def inspect(self, name: str, budget: float) -> LockInfo:
        """See :meth:`lockkit.spi.Backend.inspect`. Plain reads only, so that an observer needs no right to run scripts."""
        return lock_info(name, self._read(name, budget))

    def _read(self, name: str, budget: float) -> list[Any]:
        keys = Keys.of(self._namespace, name)
        packed = b"".join(
            (
                pack("MULTI"),
                pack("ZRANGE", keys.queue, 0, -1, "WITHSCORES"),
                pack("ZRANGE", keys.deadlines, 0, -1, "WITHSCORES"),
                pack("HGETALL", keys.claims),
                pack("TIME"),
                pack("EXEC"),
            )
        )
        link = self.router.at(keys.queue)
        replies = link.row(packed, budget, 6)
        for reply in replies:
            if isinstance(reply, theirs.ResponseError):
                raise replied(reply, link.where) from reply
        return replies[-1]  # type: ignore[no-any-return]

    def names(self, prefix: str, budget: float, *, deep: bool = False) -> Sequence[str]:
        """See :meth:`lockkit.spi.Backend.names`. From the index; ``deep`` scans every key of the server."""
        end = time.monotonic() + budget
        if deep:
            found = self._scan(end)
        else:
            where = index(self._namespace)
            found = [
                name.decode() for name in self.router.at(where).call(pack("ZRANGE", where, 0, -1), budget)
            ]
        wanted = sorted(name for name in set(found) if name.startswith(prefix))
        return [name for name in wanted if self.inspect(name, max(end - time.monotonic(), 0.05)).claims]

    def _scan(self, end: float) -> list[str]:
        found = []
        for wire in self.router.wires():
            cursor = b"0"
            while True:
                cursor, keys = wire.call(
                    pack("SCAN", cursor, "MATCH", pattern(self._namespace), "COUNT", 1000),
                    max(end - time.monotonic(), 0.05),
                )
                found += [name_in(key.decode()) for key in keys]
                if cursor == b"0":
                    break
        return found

    def evict(self, name: str, claim_id: str, budget: float, *, now: bool = False) -> Evicted:
        """See :meth:`lockkit.spi.Backend.evict`. ``now=True`` removes at once: its holder may still believe in it."""
        end = time.monotonic() + budget
        read = self._read(name, budget)
        token = tokens(read).get(claim_id)
        shown = next((each for each in lock_info(name, read).claims if each.claim_id == claim_id), None)
        if token is None or shown is None:
            return Evicted("ABSENT")
        left = max(end - time.monotonic(), 0.05)
        answer = self._run(scripts.EVICT, name, left, token, "1" if now else "0")
        if answer[0] == b"MARKED":
            until = int(answer[1]) / 1e3
            return Evicted("MARKED", until, shown._replace(evicted=True, deadline=until))
        return Evicted("REMOVED", claim=shown) if answer[0] == b"REMOVED" else Evicted("ABSENT")

    def resize(self, name: str, capacity: int, budget: float) -> int:
        """See :meth:`lockkit.spi.Backend.resize`."""
        if type(capacity) is not int or capacity < 1:
            raise ConfigError(f"a capacity must be a whole number of at least 1, not {capacity!r}", name=name)
        return int(self._run(scripts.RESIZE, name, budget, capacity))

    def annotate(self, name: str, claim_id: str, patch: Mapping[str, object], budget: float) -> bool:
        """See :meth:`lockkit.spi.Backend.annotate`. Merged here, stored by compare: Lua cannot tell ``{}`` from ``[]``.

        Raises:
            ConfigError: The patch, or the note it would make, is over :data:`~lockkit.spi.NOTE_LIMIT` bytes.
        """
        note_text(patch, NOTE_LIMIT)
        end = time.monotonic() + budget
        for _ in range(_ROUNDS):
            read = self._read(name, max(end - time.monotonic(), 0.05))
            token = tokens(read).get(claim_id)
            if token is None:
                return False
            claims = dict(zip(read[2][::2], read[2][1::2], strict=True))
            before = claims.get(f"{token}:note".encode(), b"")
            after = note_text(merged(json.loads(before) if before else {}, patch), NOTE_LIMIT)
            left = max(end - time.monotonic(), 0.05)
            done = self._run(scripts.ANNOTATE, name, left, token, before, after)
            if done:
                return bool(done > 0)
        raise Refused(BackendUnavailable(f"the note of {name!r} keeps changing under this", hint="try again"))

    def record(self, name: str, budget: float) -> Record | None:
        """See :meth:`lockkit.spi.Backend.record`."""
        key = Keys.of(self._namespace, name).record
        stored = self.router.at(key).call(pack("GET", key), budget)
        return _record(name, stored) if stored else None

    def put_record(self, name: str, value: Mapping[str, object], version: int, budget: float) -> Record:
        """See :meth:`lockkit.spi.Backend.put_record`.

        Raises:
            Conflict: The record has another version.
            ConfigError: The value is over :data:`~lockkit.spi.NOTE_LIMIT` bytes.
        """
        text = note_text(value, NOTE_LIMIT, "record")
        written = self._clock.wall()
        stored = f'{{"v":1,"version":{version + 1},"written":{written!r},"value":{text}}}'
        key = Keys.of(self._namespace, name).record
        answer = scripts.RECORD.run(self.router.at(key), budget, (key,), version, stored)
        if answer == 1:
            return Record(name, json.loads(text), version + 1, written)
        raise Conflict(_record(name, answer) if answer else None)

    def check(self, budget: float) -> Sequence[Finding]:
        """See :meth:`lockkit.spi.Backend.check`."""
        return [found for wire in self.router.wires() for found in health.check(wire, budget)]

    def pulse(self) -> Sequence[int]:
        """None: claims live by their ttl."""
        return ()

    def close(self) -> None:
        """Close the connections."""
        self._wakes.close()
        self.router.close()

    def _run(self, script: scripts.Script, name: str, budget: float, *words: str | bytes | int) -> Any:
        keys = Keys.of(self._namespace, name)
        return script.run(self.router.at(keys.queue), budget, keys[:5], *words)

    def _at(self, claim: Claim) -> Link:
        return self.router.at(self._known(claim.terms).keys.queue)


_OPENING = 2.0
_STATES: dict[bytes, Any] = {b"H": "HELD", b"W": "WAITING", b"O": "OFFERED", b"L": "LOST"}


def _nothing_new(beat: Beat) -> Renewal:
    """What is said of claims on a node that does not answer while others do: their deadline has not moved."""
    return Renewal("WAITING") if beat[1] is None else Renewal("HELD")


def _record(name: str, stored: bytes) -> Record:
    value = json.loads(stored)
    return Record(name, value["value"], value["version"], value["written"])
