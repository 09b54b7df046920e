"""The queue in Lua against lockkit.store.queue and the memory store, step by step on one clock."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest
from hypothesis import example, given, note, settings
from hypothesis import strategies as st

pytest.importorskip("redis")

from lockkit.store.queue import RW_CAPACITY, grantable
from lockkit.store.spi import Busy, Claim, End, Granted, Lapsed, OpenOptions, Queued, Terms
from lockkit.values.names import claim_id, new_token
from lockkit_memory.backend import MemoryBackend
from lockkit_memory.store import MemoryStore
from lockkit_redis.backend import open_store
from support.servers.redis import RedisServer

pytestmark = pytest.mark.timeout(600)  # thousands of steps, on a busy machine
EPOCH = 1.9e9
NEAR = 0.002
"""Redis counts whole milliseconds."""
numbers = itertools.count()


class OneClock:
    """The clock of both stores, and of the server."""

    def __init__(self, server):
        self.time = 1000.0
        self._server = server
        self.advance(0.0)

    def now(self):
        return self.time

    def wall(self):
        return self.time + EPOCH

    def advance(self, seconds):
        self.time += seconds
        self._server.stand(EPOCH + self.time)


@pytest.fixture(scope="module")
def both():
    with RedisServer(clock=True) as server:
        clock = OneClock(server.clock)
        store = open_store(server.url(), OpenOptions(clock=clock))
        yield clock, store
        store.close()


WEIGHTS = {
    "mutex": (1, 1),
    "one of two": (1, 2),
    "one of three": (1, 3),
    "two of three": (2, 3),
    "reader": (1, RW_CAPACITY),
    "writer": (RW_CAPACITY, RW_CAPACITY),
}
WHO = st.integers(0, 4)
ENDS = st.fixed_dictionaries(
    {},
    optional={
        "min_hold": st.sampled_from([2.0, 20.0]),
        "lock_delay": st.sampled_from([0.25, 8.0]),
        "max_hold": st.sampled_from([4.0, 25.0]),
    },
)
STEPS = st.one_of(
    *2 * [st.tuples(st.just("acquire"), WHO, st.sampled_from(list(WEIGHTS)), st.booleans(), ENDS)],
    *2 * [st.tuples(st.just("ask"), WHO)],
    st.tuples(st.just("replay"), WHO),
    st.tuples(st.just("renew"), WHO),
    st.tuples(st.just("renew all")),
    st.tuples(st.just("misrenew"), WHO, st.sampled_from([1, -1, None])),
    *2 * [st.tuples(st.just("release"), WHO, st.sampled_from(get_args(End)))],
    st.tuples(st.just("abandon"), WHO, st.booleans()),
    st.tuples(st.just("evict"), WHO, st.booleans()),
    st.tuples(st.just("extend"), WHO, st.sampled_from([5, 40]), st.booleans()),
    st.tuples(st.just("annotate"), WHO, st.integers(0, 9)),
    st.tuples(st.just("resize"), st.integers(1, 3)),
    *2 * [st.tuples(st.just("pass"), st.sampled_from([0.001, 0.5, 3, 5.9, 7, 12, 31]))],
)


class Run:
    """One store under a history; answers without the fences, which count differently."""

    def __init__(self, store, clock, name):
        self.store, self.clock, self.name = store, clock, name
        self.claims, self.fences, self.last = {}, {}, 0

    def step(self, number, kind, who=None, *rest):
        if kind == "pass":
            return None
        if kind == "resize":
            return self.store.resize(self.name, who, 2.0)
        if kind == "renew all":
            beats = [(claim, self.fences.get(claim.token)) for claim in self.claims.values()]
            return [self.show(each) for each in self.store.renew(beats, 2.0)]
        if kind == "acquire":
            lock, wait, ends = rest
            weight, capacity = WEIGHTS[lock]
            terms = Terms(self.name, ttl=10.0, weight=weight, capacity=capacity, **ends)
            self.claims[who] = Claim(f"{number:032x}", terms, wait=wait)
            return self.acquire(who, create=True)
        claim = self.claims.get(who)
        return getattr(self, kind)(who, claim, *rest) if claim else None

    def acquire(self, who, *, create):
        claim = self.claims[who]
        answer = self.store.acquire(claim, create, 2.0)
        if isinstance(answer, Granted):
            if claim.token not in self.fences:
                self.fences[claim.token] = answer.fence
            assert self.fences[claim.token] == answer.fence
            return "granted", round(answer.basis - self.clock.time, 3)
        if isinstance(answer, Queued):
            asks = answer.ask_again_at
            assert asks is None or asks >= self.clock.time
            return "queued", answer.position, answer.capacity, answer.holder.claim_id, answer.holder.state
        if isinstance(answer, Busy):
            return "busy", answer.capacity, answer.holder.claim_id, answer.holder.state
        assert isinstance(answer, Lapsed)
        return "lapsed", answer.why

    def ask(self, who, claim):
        return self.acquire(who, create=False)

    def replay(self, who, claim):
        """A create is sent again only while its outcome is unknown, never for a claim that has gone."""
        standing = {info.claim_id for info in self.store.inspect(self.name, 2.0).claims}
        return self.acquire(who, create=claim_id(claim.token) in standing)

    def renew(self, who, claim):
        return self.show(self.store.renew([(claim, self.fences.get(claim.token))], 2.0)[0])

    def misrenew(self, who, claim, off):
        fence = None if off is None else self.fences.get(claim.token, 5) + off
        return self.show(self.store.renew([(claim, fence)], 2.0)[0])

    def release(self, who, claim, how):
        return self.store.release(claim, 2.0, how=how)

    def abandon(self, who, claim, late):
        answer = self.store.abandon(claim, 2.0)
        return answer, self.acquire(who, create=True) if late else self.claims.pop(who) and None

    def evict(self, who, claim, now):
        evicted = self.store.evict(self.name, claim_id(claim.token), 2.0, now=now)
        until = evicted.blocks_until
        return evicted.outcome, None if until is None else round(until - EPOCH, 2)

    def extend(self, who, claim, ttl, right):
        fence = self.fences.get(claim.token, 5) + (0 if right else 1)
        # The requests of others to release are left out: they come with the heartbeat.
        return self.show(self.store.extend(claim, fence, ttl, 2.0))[:3]

    def annotate(self, who, claim, value):
        return self.store.annotate(self.name, claim_id(claim.token), {"asked": value}, 2.0)

    def show(self, renewal):
        basis = round(renewal.basis - self.clock.time, 3) if renewal.state == "HELD" else 0
        return renewal.state, renewal.why, basis, dict(renewal.requests or {})

    def queue(self):
        return self.store.inspect(self.name, 2.0).claims


def look(info):
    return (
        info.claim_id,
        info.state,
        info.weight,
        info.capacity,
        info.ttl,
        info.evicted,
        info.position,
        dict(info.note),
    )


def times(claims):
    return [moment for info in claims for moment in (info.since, info.renewed, info.deadline)]


def follows_the_rule(claims):
    """Waiting claims do not fit, claims that fit hold or are offered, and fences give the order."""
    holding = [info.state in ("HELD", "LINGERING") for info in claims]
    fits = grantable(claims, holding)
    for place, info in enumerate(claims):
        if not holding[place]:
            assert info.state == ("OFFERED" if place < fits else "WAITING"), (place, fits, claims)
    fences = [info.fence for info in claims]
    assert fences == sorted(set(fences))


@example(
    [
        ("acquire", 0, "mutex", True, {}),
        ("acquire", 1, "mutex", True, {}),
        ("resize", 2),
        ("pass", 0.5),
        ("resize", 1),
    ]
)
@settings(max_examples=120)
@given(st.lists(STEPS, min_size=12, max_size=60))
@example(
    [
        ("acquire", 0, "one of two", True, {}),
        ("acquire", 1, "one of two", True, {}),
        ("resize", 1),
        ("acquire", 2, "mutex", True, {}),
        ("release", 1, "released"),
        ("release", 0, "released"),
        ("ask", 2),
    ]
)
def test_the_redis_store_agrees_with_the_memory_store_and_with_the_rule(both, steps):
    agree(both, steps)


def agree(both, steps, *, lapsed=False):
    """Do the same to both. With ``lapsed``, what has lapsed is left to the next step that meets it."""
    clock, redis_store = both
    name = f"history {next(numbers)}"
    memory = Run(MemoryBackend(MemoryStore(clock), OpenOptions(clock=clock)), clock, name)
    redis = Run(redis_store, clock, name)
    settler = Claim(new_token(), Terms(name))
    for number, step in enumerate(in_turn(steps) if lapsed else steps):
        note(f"{number}: {step}")
        if step[0] == "pass":
            clock.advance(step[1])
            if lapsed:
                continue
        assert memory.step(number, *step) == redis.step(number, *step), (number, step)
        left, right = memory.queue(), redis.queue()
        assert [look(info) for info in left] == [look(info) for info in right], (number, step)
        assert times(left) == pytest.approx(times(right), abs=NEAR, rel=0), (number, step)
        assert [r.renew([(settler, None)], 2.0)[0].why for r in (memory.store, redis_store)] == ["absent"] * 2
        follows_the_rule(redis.queue())


def in_turn(steps):
    """The same steps, but a claim that is in the queue already asks, instead of acquiring once more."""
    busy = set()
    for step in steps:
        if step[0] == "acquire" and step[1] in busy:
            yield "ask", step[1]
            continue
        if step[0] == "acquire":
            busy.add(step[1])
        elif step[0] == "release":
            busy.discard(step[1])
        yield step


def handed(kinds):
    """Histories that mostly hand a lock on, drawn from a list in which an entry may occur twice."""
    few = range(3)
    steps = [
        *(("acquire", who, kind, True, {}) for who in few for kind in kinds * (4 // len(kinds))),
        *(("acquire", who, kinds[0], True, {"min_hold": 2.0}) for who in few),
        *3 * [("ask", who) for who in few],
        *4 * [("release", who, "released") for who in few],
        *4 * [("pass", 3)],
        *(("pass", seconds) for seconds in (0.001, 0.001, 7, 12)),
        *(("renew", who) for who in few),
        ("acquire", 0, kinds[0], True, {"max_hold": 4.0}),
        ("release", 0, "ungraceful"),
        ("release", 1, "unused"),
        ("extend", 0, 40, True),
        ("renew all",),
        ("resize", 3),
        ("resize", 1),
    ]
    return st.lists(st.sampled_from(steps), min_size=20, max_size=60)


@example(
    [
        ("acquire", 0, "two of three", True, {}),
        ("resize", 1),
        ("pass", 12),
        ("acquire", 0, "mutex", True, {}),
    ]
)
@example([("acquire", 0, "mutex", True, {}), ("pass", 12), ("release", 0, "released")])
@example(
    [
        ("acquire", 0, "mutex", True, {}),
        ("acquire", 1, "mutex", True, {}),
        ("release", 0, "released"),
        ("pass", 7),
        ("ask", 1),
    ]
)
@example(
    [
        ("acquire", 0, "mutex", True, {}),
        ("acquire", 1, "mutex", True, {}),
        ("acquire", 2, "mutex", True, {}),
        ("pass", 3),
        ("release", 0, "released"),
        ("pass", 0.001),
        ("ask", 1),
        ("release", 1, "released"),
    ]
)
@example(
    [
        ("acquire", 0, "writer", True, {}),
        ("acquire", 1, "reader", True, {}),
        ("acquire", 2, "reader", True, {}),
        ("release", 0, "released"),
        ("ask", 2),
        ("ask", 1),
    ]
)
@settings(max_examples=150)
@given(
    st.sampled_from(
        [["mutex"], ["one of three", "two of three"], ["reader", "writer"], ["mutex", "one of two"]]
    ).flatmap(handed)
)
def test_they_agree_where_a_lock_goes_from_hand_to_hand(both, steps):
    """The most frequent cases, in few commands: see ``release_first.lua`` and ``acquire_first.lua``."""
    agree(both, steps, lapsed=True)


@settings(max_examples=40)
@given(st.lists(STEPS, min_size=12, max_size=60))
def test_the_next_in_line_of_the_redis_store_asks_no_later_than_that_of_the_memory_store(both, steps):
    clock, redis_store = both
    name = f"history {next(numbers)}"
    runs = [
        Run(store, clock, name)
        for store in (MemoryBackend(MemoryStore(clock), OpenOptions(clock=clock)), redis_store)
    ]
    for number, step in enumerate(steps):
        if step[0] == "pass":
            clock.advance(step[1])
        for run in runs:
            run.step(number, *step)
        if not any(info.state == "WAITING" for info in runs[0].queue()):
            continue
        newcomer = Claim(new_token(), Terms(name))
        memory, redis = (run.store.acquire(newcomer, True, 2.0) for run in runs)
        if memory.ask_again_at is not None:
            assert redis.ask_again_at <= memory.ask_again_at + NEAR
        for run in runs:
            run.store.abandon(newcomer, 2.0)
