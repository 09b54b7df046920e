"""A model: may a waiter hold as soon as it hears of its offer, before it has asked the store again?

No store of lockkit does so yet (docs/decisions/redis-hand-off.md). The rule that the model checks:

- The store keeps an offer for GRACE. The message of an offer names the claim, and is for its owner alone.
- A waiter that hears of its offer holds until `basis + GRACE x (1 - drift)`. The basis is the time at which
  it sent its last request that was *answered* with "queued". A renewal makes the offer HELD, for the ttl.
- The store counts an offered claim as possibly held: an eviction marks it, a resize lets it be, a drain waits
  for it, and a clock that was set back leaves it GRACE.

The model plays all orders of two clients' requests, answers, losses and late messages, beside an operator or
a clock that drifts. Each mutant lacks a part of the rule, and must let somebody hold who may not.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

import pytest

GRACE, TTL = 3, 4
POSSIBLY_HELD = "HOX"
"""The states of a claim: W waits, O is offered, H is held; X is marked as evicted."""
OPERATORS = ("evict", "resize", "drain", "set back", "drift")
MUTANTS = {
    "counts from the receipt": (6, ""),
    "counts from a request without an answer": (6, ""),
    "hears a message for another claim": (5, ""),
    "hears a message after its release": (4, ""),
    "allows for no drift": (6, "drift"),
    "an eviction removes an offer": (4, "evict"),
    "a resize makes an offer wait": (4, "resize"),
    "a resize removes an offer": (4, "resize"),
    "a drain removes an offer": (4, "drain"),
    "a drain refuses an offer": (4, "drain"),
    "a clock that was set back shortens an offer": (5, "set back"),
}
"""The last step of time until which each is played, and the operator that it takes."""


class Client(NamedTuple):
    mode: str = "idle"  # or asks (for the first time), waits, holds
    token: int = -1
    basis: int = -1
    until: int = -1
    slow: bool = False  # its clock has lost a step since the basis: as many as the drift allows
    request: tuple | None = None  # kind, token, when it was sent, answer (None before), slow since then
    used: int = 0


class State(NamedTuple):
    t: int
    clients: tuple[Client, ...]
    queue: tuple = ()  # (client, token, state, deadline)
    messages: frozenset = frozenset()
    capacity: int = 1
    drained: bool = False
    interventions: int = 0

    def put(self, i: int, **more: object) -> State:
        return self._replace(
            clients=tuple(c._replace(**more) if n == i else c for n, c in enumerate(self.clients))
        )


class Model(NamedTuple):
    end: int
    operators: tuple[str, ...]
    mutant: str = ""
    tokens: int = 1

    def settled(self, s: State, queue: list) -> State:
        """Remove what has lapsed, and offer free places, unless somebody holds outside of them."""
        queue = [claim for claim in queue if claim[3] > s.t]
        messages = s.messages
        crowd = any(claim[2] in POSSIBLY_HELD for claim in queue[s.capacity :])
        for n, (client, token, state, deadline) in enumerate(queue):
            if n < s.capacity and state == "W" and not crowd:
                queue[n] = (client, token, "O", s.t + GRACE)
                messages |= {(client, token)}
            elif n >= s.capacity and state == "O" and self.mutant == "a resize makes an offer wait":
                queue[n] = (client, token, "W", deadline)
        return s._replace(queue=tuple(queue), messages=messages)

    def steps(self, s: State) -> Iterator[tuple[str, State]]:
        if s.t < self.end:
            yield "time passes", self.later(s, None)
            for i, c in enumerate(s.clients):
                if "drift" in self.operators and c.mode != "idle" and not c.slow:
                    yield f"time passes, and {i} does not count it", self.later(s, i)
        yield from self.interventions(s)
        for i, c in enumerate(s.clients):
            yield from self.sent(s, i, c) if c.request is None else self.answered(s, i, c)
            until = (s.t if self.mutant == "counts from the receipt" else c.basis) + GRACE
            until -= self.mutant != "allows for no drift"
            any_claim = self.mutant == "hears a message for another claim"
            told = any(who == i and (any_claim or token == c.token) for who, token in s.messages)
            if c.mode == "waits" and c.basis >= 0 and until > s.t and told:
                yield f"{i} hears of its offer", s.put(i, mode="holds", until=until)

    def later(self, s: State, slow: int | None) -> State:
        if slow is not None:  # by the true clock, all that it has noted was one step later
            c = s.clients[slow]
            request = c.request and (*c.request[:2], c.request[2] + 1, c.request[3], True)
            s = s.put(slow, basis=c.basis + 1, until=c.until + 1, slow=True, request=request)
        s = s._replace(t=s.t + 1)
        for i, c in enumerate(s.clients):
            if c.mode == "holds" and c.until <= s.t:
                s = s.put(i, mode="idle", token=-1, basis=-1, until=-1, slow=False)
        return self.settled(s, list(s.queue))

    def interventions(self, s: State) -> Iterator[tuple[str, State]]:
        for n, (client, token, state, deadline) in enumerate(s.queue):
            if "evict" in self.operators and state != "X":
                removed = state == "W" or (state == "O" and self.mutant == "an eviction removes an offer")
                marked = [] if removed else [(client, token, "X", deadline)]
                queue = [*s.queue[:n], *marked, *s.queue[n + 1 :]]
                yield f"an operator evicts {client}", self.settled(s, queue)
        if s.interventions == 2:
            return
        s = s._replace(interventions=s.interventions + 1)
        if "resize" in self.operators:
            drops = s.capacity == 2 and self.mutant == "a resize removes an offer"
            queue = [claim for n, claim in enumerate(s.queue) if not (drops and n and claim[2] == "O")]
            resized = s._replace(capacity=3 - s.capacity)
            yield f"an operator resizes to {resized.capacity}", self.settled(resized, queue)
        if "drain" in self.operators:
            drops = "WO" if self.mutant == "a drain removes an offer" else "W"
            queue = [claim for claim in s.queue if s.drained or claim[2] not in drops]
            yield "an operator begins or ends a drain", self.settled(s._replace(drained=not s.drained), queue)
        if "set back" in self.operators:
            short = 1 if self.mutant == "a clock that was set back shortens an offer" else GRACE
            queue = [(*claim[:3], s.t + (TTL if claim[2] in "HX" else short)) for claim in s.queue]
            yield "the clock of the store is set back", s._replace(queue=tuple(queue))

    def sent(self, s: State, i: int, c: Client) -> Iterator[tuple[str, State]]:
        if c.mode == "idle" and c.used < self.tokens:
            asking = s.put(i, mode="asks", token=c.used, basis=-1, slow=False, used=c.used + 1)
            yield f"{i} asks", asking.put(i, request=("ask", c.used, s.t, None, False))
        if c.mode in ("waits", "holds"):
            wrongly = c.mode == "waits" and self.mutant == "counts from a request without an answer"
            basis = {"basis": s.t, "slow": False} if wrongly else {}
            for kind in ("look", "renew") if c.mode == "waits" else ("renew",):
                yield f"{i} sends {kind}", s.put(i, request=(kind, c.token, s.t, None, False), **basis)
            hears = self.mutant == "hears a message after its release"
            over = {"mode": "waits"} if hears else {"mode": "idle", "token": -1}
            yield f"{i} releases", s.put(i, request=("release", c.token, s.t, None, False), until=-1, **over)

    def answered(self, s: State, i: int, c: Client) -> Iterator[tuple[str, State]]:
        kind, token, at, answer, slow = c.request
        if answer is None:
            done, answer = self.performed(s, i, kind, token)
            yield f"the store answers {i}: {answer}", done.put(i, request=(kind, token, at, answer, slow))
        else:
            yield f"{i} reads: {answer}", s.put(i, **self.read(s, c))
        given_up = {"mode": "idle", "token": -1} if c.mode == "asks" else {}
        yield f"{i} gets no answer", s.put(i, request=None, **given_up)

    def performed(self, s: State, i: int, kind: str, token: int) -> tuple[State, str]:
        s = self.settled(s, list(s.queue))
        queue = list(s.queue)
        n = next((n for n, claim in enumerate(queue) if claim[:2] == (i, token)), None)
        state = "" if n is None else queue[n][2]
        waiting, held = (i, token, "W", s.t + GRACE), (i, token, "H", s.t + TTL)
        answer = "lost"
        if kind == "release":
            queue = [claim for claim in queue if claim[:2] != (i, token)]
            answer = "released"
        elif kind == "ask" and not state and not s.drained:
            free = len(queue) < s.capacity
            queue.append(held if free else waiting)
            answer = "granted" if free else "queued"
        elif state == "W" and not (s.drained and kind == "look"):
            queue[n] = waiting
            answer = "queued"
        elif state == "W" or (state == "O" and s.drained and self.mutant == "a drain refuses an offer"):
            del queue[n]
        elif state in ("O", "H"):
            queue[n] = held
            answer = "granted"
        return self.settled(s, queue), answer

    def read(self, s: State, c: Client) -> dict[str, object]:
        kind, token, at, answer, slow = c.request
        if kind == "release" or token != c.token:
            return {"request": None}
        if answer == "queued":
            waits = {"mode": "waits", "basis": at, "slow": slow} if c.mode in ("asks", "waits") else {}
            return {"request": None, **waits}
        until = at + TTL - 1
        if answer == "lost" or max(until, c.until) <= s.t:
            return {"request": None, "mode": "idle", "token": -1, "until": -1}
        newer = {"basis": at, "until": until, "slow": slow} if until > c.until else {}
        return {"request": None, "mode": "holds", **newer}

    def story(self) -> tuple[int, list[str]]:
        """The states that there are, and how the first wrong one is reached: empty if there is none.

        Wrong is a holder whom the store does not record as possibly holding (S3), and a step that makes more
        possible holders than there are places (S1). A resize leaves those who hold.
        """
        start = State(0, (Client(), Client()))
        before: dict[State, tuple[str, State] | None] = {start: None}
        todo = deque([start])
        while todo:
            state = todo.popleft()
            possible = sum(claim[2] in POSSIBLY_HELD for claim in state.queue)
            for label, after in self.steps(state):
                if after in before:
                    continue
                before[after] = (label, state)
                recorded = {claim[:2] for claim in after.queue if claim[2] in POSSIBLY_HELD}
                holds = {(i, c.token) for i, c in enumerate(after.clients) if c.mode == "holds"}
                if holds <= recorded and len(recorded) <= max(possible, after.capacity):
                    todo.append(after)
                    continue
                story, step = [], before[after]
                while step is not None:
                    story.append(f"t={step[1].t} {step[0]}")
                    step = before[step[1]]
                return len(before), story[::-1]
        return len(before), []


@pytest.mark.parametrize("end", [2, pytest.param(4, marks=pytest.mark.full)])
@pytest.mark.parametrize("operator", OPERATORS)
def test_s1_s3_who_hears_of_an_offer_may_hold(operator, end):
    states, story = Model(end, (operator,)).story()
    assert story == []
    assert states > 10_000


@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_part_of_the_rule_is_needed(mutant):
    end, operator = MUTANTS[mutant]
    _, story = Model(end, (operator,), mutant, tokens=2 if "another claim" in mutant else 1).story()
    assert story, "the model finds nothing wrong"
    print("\n".join(story))
