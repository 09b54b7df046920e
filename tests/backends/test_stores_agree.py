"""The memory store as the plain reading of the rules: the embedded store must agree with it at each step."""

from __future__ import annotations

import tempfile
from typing import get_args

from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockkit.store.spi import Busy, Claim, End, Granted, Lapsed, OpenOptions, Queued, Terms
from lockkit.values.names import claim_id
from lockkit_memory.backend import MemoryBackend
from lockkit_memory.store import MemoryStore
from lockkit_sqlite.backend import open_store
from support.clocks import StillClock

LOCKS = ("mutex", "permits", "other permits")
WHO = st.integers(0, 3)
STEPS = st.one_of(
    st.tuples(st.just("acquire"), WHO, st.sampled_from(LOCKS), st.booleans(), st.booleans()),
    st.tuples(st.just("replay"), WHO),
    st.tuples(st.just("ask"), WHO),
    st.tuples(st.just("renew"), WHO),
    st.tuples(st.just("misrenew"), WHO, st.booleans()),
    st.tuples(st.just("release"), WHO, st.sampled_from(get_args(End))),
    st.tuples(st.just("abandon"), WHO),
    st.tuples(st.just("evict"), WHO, st.booleans()),
    st.tuples(st.just("extend"), WHO, st.sampled_from([5, 40])),
    st.tuples(st.just("resize"), st.integers(1, 3)),
    st.tuples(st.just("pass"), st.sampled_from([0.5, 3, 7, 12, 31])),
)


def terms(lock, *, special):
    weight, capacity = {"mutex": (1, 1), "permits": (1, 2), "other permits": (2, 3)}[lock]
    more = {"min_hold": 20.0, "lock_delay": 8.0, "max_hold": 50.0} if special else {}
    return Terms("a", ttl=10.0, weight=weight, capacity=capacity, **more)


class Run:
    """One store under a sequence of steps; answers without what may differ (fences, rounded times)."""

    def __init__(self, store, clock):
        self.store, self.clock = store, clock
        self.claims = {}
        self.all = []
        self.made = 0
        self.fences = {}

    def step(self, kind, *rest):
        if kind == "acquire":
            who, lock, wait, special = rest
            self.made += 1
            self.all.append(self.claims.get(who))
            self.claims[who] = Claim(f"{self.made:032x}", terms(lock, special=special), wait=wait)
            return self.acquire(who, create=True)
        if kind in ("resize", "pass"):
            self.beat()  # an offer's time runs from the last heartbeat in one store, from itself in the other
            count = self.store.resize("a", rest[0], 2.0) if kind == "resize" else None
            self.clock.time += rest[0] if kind == "pass" else 0.0
            self.beat()
            return count
        who = rest[0]
        claim = self.claims.get(who)
        if claim is None:
            return None
        if kind in ("replay", "ask"):
            # A create is replayed only while its outcome is unknown, never for a claim that has gone.
            there = any(entry[0] == claim_id(claim.token) for entry in self.queue())
            return self.acquire(who, create=kind == "replay" and there)
        if kind == "renew":
            return self.renewal(claim, self.fences.get(claim.token))
        if kind == "misrenew":
            return self.renewal(claim, (self.fences.get(claim.token) or 0) + 1 if rest[1] else None)
        if kind == "release":
            return self.store.release(claim, 2.0, how=rest[1])
        if kind == "abandon":
            del self.claims[who]
            return self.store.abandon(claim, 2.0)
        if kind == "extend":
            fence = self.fences.get(claim.token, -1)
            return self.show(self.store.extend(claim, fence, rest[1], 2.0))
        evicted = self.store.evict("a", claim_id(claim.token), 2.0, now=rest[1])
        until = evicted.blocks_until
        return evicted.outcome, None if until is None else round(until - self.clock.wall(), 1)

    def acquire(self, who, *, create):
        claim = self.claims[who]
        answer = self.store.acquire(claim, create, 2.0)
        if isinstance(answer, Granted):
            assert self.fences.setdefault(claim.token, answer.fence) == answer.fence
            return "granted", round(answer.basis - self.clock.time, 3)
        if isinstance(answer, Queued):
            asks = None if answer.ask_again_at is None else round(answer.ask_again_at - self.clock.time, 1)
            return "queued", answer.position, asks, len(answer.blockers), answer.capacity
        if isinstance(answer, Busy):
            return "busy", answer.capacity
        assert isinstance(answer, Lapsed)
        return "lapsed", answer.why

    def renewal(self, claim, fence):
        return self.show(self.store.renew([(claim, fence)], 2.0)[0])

    def show(self, renewal):
        basis = round(renewal.basis - self.clock.time, 3) if renewal.state == "HELD" else 0
        return renewal.state, renewal.why, basis

    def beat(self):
        self.store.renew([(claim, None) for claim in [*self.claims.values(), *self.all] if claim], 2.0)

    def queue(self):
        return [
            (
                info.claim_id,
                info.state,
                info.capacity,
                info.evicted,
                info.deadline and round(info.deadline, 1),
            )
            for info in self.store.inspect("a", 2.0).claims
        ]


HELD, BEHIND = ("acquire", 0, "mutex", False, False), ("acquire", 1, "mutex", True, False)
OFFERED_TWICE = [HELD, BEHIND, ("resize", 2), ("pass", 0.5), ("resize", 1), ("resize", 2)]
OFFERED_BY_A_LAPSE = [HELD, ("pass", 7), BEHIND, ("pass", 3), ("pass", 3), ("ask", 1)]


def offered(run):
    """The claims that are OFFERED now."""
    return {claim[0] for claim in run.queue() if claim[1] == "OFFERED"}


@settings(max_examples=300)
@example(OFFERED_TWICE)
@example(OFFERED_BY_A_LAPSE)
@given(st.lists(STEPS, min_size=12, max_size=60))
def test_the_embedded_store_agrees_with_the_memory_store(steps):
    with tempfile.TemporaryDirectory() as folder:
        clocks = StillClock(look=1e-5), StillClock(look=1e-5)
        memory = MemoryBackend(MemoryStore(clocks[0]), OpenOptions(clock=clocks[0]))
        sqlite = open_store(f"sqlite:{folder}/locks.db?synchronous=off", OpenOptions(clock=clocks[1]))
        try:
            left, right = Run(memory, clocks[0]), Run(sqlite, clocks[1])
            for number, step in enumerate(steps):
                before = offered(left)
                answers = left.step(*step), right.step(*step)
                assert answers[0] == answers[1], (number, step)
                if step[0] == "pass" and offered(left) - before:
                    # Offered by a lapse between two heartbeats: from now on its time differs in the two.
                    assert [claim[:4] for claim in left.queue()] == [claim[:4] for claim in right.queue()], (
                        number,
                        step,
                    )
                    return
                assert left.queue() == right.queue(), (number, step)
        finally:
            sqlite.close()
