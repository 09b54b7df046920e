"""A request to a pool with a chooser, step by step, on a clock that the test moves."""

from __future__ import annotations

import pytest

from lockkit.errors import AcquireTimeout, BackendUnavailable, ConfigError
from lockkit.protocol.attempt import Attempt
from lockkit.protocol.choosing import Choosing
from lockkit.protocol.composing import some_of
from lockkit.protocol.effects import (
    CHOICES,
    REQUESTS,
    Acquire,
    Choose,
    Judge,
    Notify,
    Release,
    WaitForAny,
    Withdraw,
)
from lockkit.protocol.running import Running, ask, ask_chooser
from lockkit.protocol.together import Candidate, Together, Tools
from lockkit.store.spi import Claim, OpenOptions, Refused, Terms
from lockkit.values.choosers import Choice
from lockkit_memory import CAPABILITIES
from lockkit_memory.backend import MemoryBackend
from lockkit_memory.store import MemoryStore

TTL = 600.0
"""Seconds; nothing is renewed here."""
GATE = Terms("gate", ttl=TTL)
SIZES = {"card": 2, "a": 1, "b": 1, "other": 2}
WITHIN = {"a": "card", "b": "card"}


class Says:
    """A chooser that says what the test says."""

    every = 2.0

    def __init__(self, *order, never=None, **refused):
        self.choice = Choice(order, refused, never)
        self.verdicts = {}

    def choose(self, held):
        return self.choice

    def judge(self, member):
        return self.verdicts.get(member)


class Asks:
    """One request, up to each of its waits."""

    def __init__(self, clock, chooser, *names, count=1, timeout=None):
        self.clock = clock
        self.backend = MemoryBackend(MemoryStore(clock), OpenOptions(clock=clock))
        self.together = Together()
        self.done = []
        self.hangs = False
        deadline = clock.now() + timeout if timeout else None

        def attempts(name, wait):
            terms = [Terms(name, weight=SIZES[name], capacity=SIZES[name], kind="semaphore", ttl=TTL)]
            if name in WITHIN:
                around = WITHIN[name]
                terms.append(terms[0]._replace(name=around, capacity=SIZES[around]))
            return [Attempt(one, deadline, wait) for one in terms]

        gate = Attempt(GATE, deadline, timeout != 0)
        candidates = [
            Candidate(name, attempts(name, False), attempts(name, True) if timeout != 0 else [])
            for name in names
        ]
        tools = Tools(CAPABILITIES, clock.now, clock.wall, lambda: 0.5)
        members = Choosing(chooser, "p", SIZES, names, self.together, gate, clock.now)
        self.running = Running(some_of(self.together, "p", gate, candidates, count, tools, members))

    def held(self, *names):
        """Have somebody else hold these."""
        self.others = [
            Claim(
                name[0] * 32,
                Terms(name, weight=SIZES[name], capacity=SIZES[name], kind="semaphore", ttl=TTL),
            )
            for name in names
        ]
        for claim in self.others:
            self.backend.acquire(claim, True, 1.0)
        return self

    def freed(self, name):
        claim = next(one for one in self.others if one.terms.name == name)
        self.backend.release(claim, 1.0)

    def perform(self, effect):
        self.done.append(effect)
        if isinstance(effect, REQUESTS):
            return ask(self.backend, effect)
        if isinstance(effect, CHOICES):
            if self.hangs:
                raise Refused(BackendUnavailable("hangs"))
            return ask_chooser(effect)
        return None

    def go(self, *woken, seconds=0.0):
        """Go on to the next wait; the names of the claims that wait then, or None at the end."""
        self.done = []
        self.clock.forward(seconds)
        if self.running.effect is None:
            self.running.begin()
        else:
            numbers = {
                number
                for number, wait in self.running.effect.waits.items()
                if self.name(number) in woken or (wait.until is not None and wait.until <= self.clock.now())
            }
            self.running.answered(numbers)
        self.running.until_it_waits(self.perform, (WaitForAny,))
        effect = self.running.effect
        return None if effect is None else [self.name(number) for number in effect.waits]

    def name(self, number):
        return self.together.attempts[number].terms.name

    @property
    def got(self):
        return [attempt.terms.name for attempt in self.running.value]

    def queue(self, name):
        return [row.claim_id for row in self.backend.inspect(name, 1.0).claims]

    def was(self, kind):
        return [
            effect.claim.terms.name if isinstance(effect, Acquire | Release | Withdraw) else effect
            for effect in self.done
            if isinstance(effect, kind)
        ]


def test_the_members_are_tried_in_the_order_of_the_chooser(clock):
    asks = Asks(clock, Says("other", "card"), "card", "other")

    assert asks.go() is None

    assert asks.got == ["other"]
    assert asks.was(Acquire) == ["gate", "other"]
    assert asks.queue("gate") == []


def test_a_member_that_is_refused_is_not_asked_for(clock):
    asks = Asks(clock, Says("other", card="used"), "card", "other").held("other")

    assert asks.go() == ["other"]
    assert asks.together.refused == {"card": "used"}
    assert asks.queue("card") == []


def test_the_chooser_is_asked_again_after_its_time_and_not_at_each_wake(clock):
    asks = Asks(clock, Says("other", card="used"), "card", "other").held("other")
    asks.go()

    assert asks.running.effect.until == clock.now() + 2.0
    asks.go("other", seconds=1.0)
    assert not asks.was(Choose)
    asks.go(seconds=1.0)
    assert len(asks.was(Choose)) == 1


def test_a_claim_for_a_member_that_will_not_do_any_more_is_given_back(clock):
    chooser = Says("card", "other")
    asks = Asks(clock, chooser, "card", "other").held("card", "other")
    assert asks.go() == ["card", "other"]

    chooser.choice = Choice(["card"], {"other": "used"})

    assert asks.go(seconds=2.0) == ["card"]
    assert asks.was(Release) == ["other"]
    assert len(asks.queue("other")) == 1


def test_a_member_that_will_do_again_gets_a_new_claim(clock):
    chooser = Says("card", "other")
    asks = Asks(clock, chooser, "card", "other").held("card", "other")
    asks.go()
    first = asks.together.attempts[-1].claim.token
    chooser.choice = Choice(["card"], {"other": "used"})
    asks.go(seconds=2.0)
    chooser.choice = Choice(["card", "other"])

    assert asks.go(seconds=2.0) == ["card", "other"]

    assert asks.together.attempts[-1].claim.token != first
    assert len(asks.together.attempts) == 1 + 2 + 2, "attempts are used again"
    asks.freed("other")
    assert asks.go("other") is None
    assert asks.got == ["other"]


def test_a_member_that_is_not_as_it_should_be_is_given_back_and_left_out_until_the_next_choice(clock):
    chooser = Says("card", "other")
    chooser.verdicts = {"card": "dirty"}
    asks = Asks(clock, chooser, "card", "other").held("other")

    assert asks.go() == ["other"]
    assert asks.was(Release) == ["card"]
    assert asks.together.refused == {"card": "dirty"}

    asks.go("other", seconds=1.0)
    assert "card" not in asks.was(Acquire)
    chooser.verdicts = {}
    assert asks.go(seconds=1.0) is None
    assert asks.got == ["card"]


def test_a_member_that_was_got_and_is_refused_later_is_given_back(clock):
    chooser = Says("card", "other")
    asks = Asks(clock, chooser, "card", "other", count=2).held("other")
    assert asks.go() == ["other"]
    assert len(asks.queue("card")) == 1

    chooser.choice = Choice(["other"], {"card": "used"})
    assert asks.go(seconds=2.0) == ["other"]
    assert asks.queue("card") == []
    chooser.choice = Choice(["other", "card"])
    assert asks.go(seconds=2.0) == ["other"]
    assert len(asks.queue("card")) == 1


def test_a_member_that_was_got_need_not_be_named_again(clock):
    chooser = Says("card", "other")
    asks = Asks(clock, chooser, "card", "other", count=2).held("other")
    asks.go()
    chooser.choice = Choice(["other"])

    asks.go(seconds=2.0)

    assert asks.was(Choose)[0].held == ("card",)
    asks.freed("other")
    assert asks.go("other") is None
    assert sorted(asks.got) == ["card", "other"]


def test_a_request_that_can_never_be_met_ends_at_once_and_leaves_nothing(clock):
    asks = Asks(clock, Says(never="every card is too small"), "card", "other")

    with pytest.raises(ConfigError, match="every card is too small"):
        asks.go()

    assert asks.queue("gate") == []


def test_a_request_that_finds_out_later_that_it_can_never_be_met_leaves_nothing_either(clock):
    chooser = Says("card", "other")
    asks = Asks(clock, chooser, "card", "other", count=2).held("other")
    asks.go()
    chooser.choice = Choice([], {}, "the last card was taken out")

    with pytest.raises(ConfigError, match="taken out"):
        asks.go(seconds=2.0)

    assert asks.queue("gate") == asks.queue("card") == []
    assert len(asks.queue("other")) == 1


def test_a_timeout_says_why_each_member_did_not_do(clock):
    asks = Asks(clock, Says(card="used by ann", other="dirty"), "card", "other", timeout=5.0)
    assert asks.go() == []
    assert asks.go(seconds=2.0) == []
    assert asks.go(seconds=2.0) == []
    assert asks.running.effect.until == clock.now() + 1.0

    with pytest.raises(AcquireTimeout) as caught:
        asks.go(seconds=1.0)

    assert "'card' will not do: used by ann; 'other' will not do: dirty" in str(caught.value)
    assert "it had 0" in str(caught.value)
    assert asks.queue("gate") == []


def test_a_timeout_of_a_claim_says_why_other_members_did_not_do(clock):
    asks = Asks(clock, Says("card", other="dirty"), "card", "other", timeout=1.0).held("card")
    asks.go()

    with pytest.raises(AcquireTimeout, match="'other' will not do: dirty"):
        asks.go(seconds=1.0)

    assert len(asks.queue("card")) == 1


def test_a_chooser_that_hangs_ends_the_request(clock):
    asks = Asks(clock, Says("card"), "card", timeout=5.0)
    asks.hangs = True

    with pytest.raises(BackendUnavailable, match="the chooser of pool 'p' gave no answer within 5 s"):
        asks.go()

    assert asks.queue("gate") == []


@pytest.mark.parametrize("timeout, budget", [(None, 30.0), (5.0, 5.0), (100.0, 30.0), (0, 2.0)])
def test_a_chooser_has_as_long_as_the_request_and_30_seconds_at_most(clock, timeout, budget):
    asks = Asks(clock, Says("card"), "card", timeout=timeout)
    asks.go()
    assert [effect.budget for effect in asks.was(Choose)] == [budget]
    assert [effect.budget for effect in asks.was(Judge)] == [budget]


@pytest.mark.parametrize(
    "choice", [None, ["card"], Choice(["strange"]), Choice(["card"], {"card": "used"}), Choice([], {"x": ""})]
)
def test_an_answer_that_is_none_ends_the_request(clock, choice):
    chooser = Says()
    chooser.choice = choice
    asks = Asks(clock, chooser, "card")

    with pytest.raises(ConfigError, match="the chooser of pool 'p'"):
        asks.go()

    assert asks.queue("gate") == []


def test_what_a_chooser_says_of_members_that_the_request_does_not_name_is_ignored(clock):
    asks = Asks(clock, Says("card", "other", a="used"), "other")

    assert asks.go() is None

    assert asks.got == ["other"]
    assert asks.together.refused == {}


def test_a_try_gives_back_what_does_not_do(clock):
    chooser = Says("card", "other")
    chooser.verdicts = {"card": "dirty", "other": "dirty"}
    asks = Asks(clock, chooser, "card", "other", timeout=0)

    assert asks.go() is None

    assert asks.running.value is None
    assert asks.together.refused == {"card": "dirty", "other": "dirty"}
    assert [asks.queue(name) for name in ("gate", "card", "other")] == [[], [], []]


def test_a_member_within_another_is_held_by_two_claims(clock):
    asks = Asks(clock, Says("a", "b"), "a", "b", count=2)

    assert asks.go() is None

    assert asks.got == ["a", "card", "b", "card"]
    assert len(asks.queue("card")) == 2


def test_half_a_member_is_given_back_when_another_one_comes(clock):
    asks = Asks(clock, Says("a", "other"), "a", "other").held("card", "other")
    assert asks.go() == ["card", "other"]
    assert len(asks.queue("a")) == 1

    asks.freed("other")
    assert asks.go("other") is None

    assert asks.got == ["other"]
    assert asks.queue("a") == []
    assert len(asks.queue("card")) == 1


def test_half_a_member_is_given_back_by_a_try(clock):
    asks = Asks(clock, Says("a", "other"), "a", "other", timeout=0).held("card", "other")

    assert asks.go() is None

    assert asks.running.value is None
    assert asks.queue("a") == []


def test_half_a_member_is_given_back_when_it_will_not_do_any_more(clock):
    chooser = Says("a", "other")
    asks = Asks(clock, chooser, "a", "other").held("card", "other")
    asks.go()
    chooser.choice = Choice(["other"], {"a": "used"})

    assert asks.go(seconds=2.0) == ["other"]

    assert asks.queue("a") == []
    assert len(asks.queue("card")) == 1
    chooser.choice = Choice(["a", "other"])
    assert asks.go(seconds=2.0) == ["other", "card"]
    assert len(asks.queue("a")) == 1


def test_a_look_for_deadlocks_counts_all_members_that_might_do(clock):
    asks = Asks(clock, Says("card", other="used"), "card", "other").held("card")
    asks.go()
    waiting = asks.together.attempts[-1]
    assert waiting.group[1:] == (2, 1), "one of two may still come free"


def reports(asks):
    return [
        effect.what
        for effect in asks.done
        if isinstance(effect, Notify) and effect.what.kind == "still_waiting"
    ]


def test_a_request_that_waits_for_several_members_reports_once_for_all_of_them(clock):
    asks = Asks(clock, Says("card", "other"), "card", "other", count=2).held("card", "other")
    asks.go()
    found = []
    for _ in range(125):
        asks.go(seconds=1.0)
        found += reports(asks)
    assert [round(one.duration) for one in found] == [60, 120]
    assert [(one.name, one.data["wanted"], one.data["got"]) for one in found] == [("gate", 2, 0)] * 2
    assert found[0].data["among"] == "'card', 'other'"
    assert "pid" in found[0].data["holder"]


def test_a_request_for_which_no_member_does_reports_that_it_still_waits_and_why(clock):
    asks = Asks(clock, Says(other="dirty"), "other").held("other")
    asks.go()
    found = []
    for _ in range(61):
        asks.go(seconds=1.0)
        found += reports(asks)
    assert [(one.data["wanted"], one.data["refused"]) for one in found] == [(1, {"other": "dirty"})]


def test_a_request_for_the_only_member_reports_once(clock):
    asks = Asks(clock, Says("other"), "other").held("other")
    asks.go()
    found = []
    for _ in range(61):
        asks.go(seconds=1.0)
        found += reports(asks)
    assert [one.name for one in found] == ["other"]
