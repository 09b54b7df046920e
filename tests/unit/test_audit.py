"""The audit: true histories pass, each kind of fault is found, and unknowns are never called held."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from lockkit.facts import Owner
from lockkit.observe.audit import audit
from lockkit.observe.past import Gaps, History, PastHold, PastResize, PastStep, StoreKey

KEY = StoreKey("redis://box", "default")
OFFSETS = {"one": 1_000_000.0, "two": 1_000_300.0, "three": 999_000.0}
"""Seconds from the CLOCK_BOOTTIME of a host to its wall clock."""


def hold(fence, began, ended, host="one", *, weight=1, capacity=1, skew=0.0, name="a", until=True):
    """A hold from one true time to another, as its host saw it."""
    boottime = began - OFFSETS[host] + 1_100_000.0
    return PastHold(
        KEY,
        name,
        f"{fence:012x}-{host}",
        fence,
        Owner(user="ann", host=host, pid=1, boot_id=f"boot of {host}"),
        began=began + skew,
        ended=ended + skew,
        end="released",
        weight=weight,
        capacity=capacity,
        began_boottime=boottime,
        until_boottime=boottime + ended - began if until else None,
    )


def verdict(*holds, skew=0.5, **more):
    return audit(History(tuple(holds), **more), skew)


def test_a_true_history_of_one_host_held():
    found = verdict(hold(1, 0, 1), hold(2, 1, 2), hold(5, 2, 3))
    assert (found.verdict, found.grants, found.locks, found.hosts) == ("held", 3, 1, 1)


def test_an_overlap_within_one_boot_is_found_however_short_and_names_both_holds():
    first, second = hold(1, 0, 1.001), hold(2, 1, 2)
    found = verdict(first, second)
    assert found.verdict == "violated"
    (violation,) = found.violations
    assert (violation.kind, violation.holds) == ("overlap", (first, second))
    assert violation.seconds == pytest.approx(0.001, abs=1e-6)


def test_an_overlap_of_two_hosts_counts_only_beyond_the_skew():
    within, beyond = hold(2, 1, 9, "two"), hold(2, 1, 9, "two", skew=-0.7)
    assert verdict(hold(1, 0, 1.3), within).verdict == "undecidable"
    assert verdict(hold(1, 0, 1.3), beyond).verdict == "violated"
    assert verdict(hold(1, 0, 1.3), within, skew=0.1).verdict == "violated"
    assert verdict(hold(1, 0, 1.0), within).verdict == "undecidable", "the clocks may hide an overlap"
    assert verdict(hold(1, 0, 0.49), within).verdict == "held"


def test_an_overlap_that_the_clocks_of_two_hosts_hide_is_undecidable():
    one = hold(1, 0, 1.0)
    assert verdict(one, hold(2, 0.8, 2.0, "two", skew=0.3)).verdict == "undecidable"
    assert verdict(one, hold(2, 0.3, 2.0, "two", skew=0.49), hold(3, 9, 10)).undecidable == 1
    assert verdict(hold(1, 0, 0.4), hold(2, 0, 0.4, "two")).verdict == "undecidable"
    assert verdict(one, hold(2, 1.0, 2.0)).verdict == "held", "one clock hides nothing"


def test_permits_that_one_host_had_one_after_the_other_are_not_added_up():
    """Five holds of one host, in turn, and one of another host fit into two permits, whatever the clocks."""
    each = [hold(n, n / 10, n / 10 + 0.09, capacity=2) for n in range(5)]
    assert verdict(*each, hold(9, 0.1, 0.4, "two", capacity=2)).verdict == "held"
    assert verdict(*each, hold(9, 0.1, 0.4, "two", weight=2, capacity=2)).verdict == "undecidable"


def test_ten_thousand_hands_over_between_two_hosts_within_the_skew_are_judged_at_once():
    holds = [hold(n, n / 1000, n / 1000 + 0.0009, ("one", "two")[n % 2]) for n in range(10_000)]
    assert verdict(*holds, skew=5.0).undecidable == 9_999


def test_a_fence_given_twice_is_a_violation_whatever_the_clocks_say():
    found = verdict(hold(4, 0, 1), hold(4, 1000, 1001, "two"), skew=99_999)
    assert [each.kind for each in found.violations] == ["same fence"]


def test_a_fence_that_falls_between_two_hosts_counts_only_beyond_the_skew():
    assert verdict(hold(2, 0, 1), hold(1, 1.2, 2, "two")).verdict == "undecidable"
    found = verdict(hold(2, 0, 1), hold(1, 1.6, 2, "two"))
    assert [each.kind for each in found.violations] == ["fence"]


def test_a_hold_without_an_end_is_certain_at_its_beginning_and_possible_after_it():
    standing = replace(hold(1, 0, 5, until=False), end="", ended=None)
    assert verdict(standing).verdict == "held"
    assert verdict(hold(0, -2, -1), standing, hold(2, 3, 4, name="b")).verdict == "held"
    for later in (hold(2, 3, 4), hold(2, 300, 301), hold(2, 300, 301, "two")):
        found = verdict(standing, later)
        assert (found.verdict, found.open, found.undecidable) == ("undecidable", 1, 1)
    assert verdict(hold(1, 0, 5, until=False), hold(2, 3, 4)).verdict == "undecidable", "it ended at 5"
    assert verdict(hold(1, 0, 5, until=False), hold(2, 6, 7)).verdict == "held"
    assert verdict(hold(1, 0, 5), hold(2, 3, 4, until=False)).verdict == "violated"


def test_a_hold_without_an_end_excludes_nothing_after_the_latest_end_that_is_known():
    standing = replace(hold(1, 0, 5, until=False), end="untold", ended=None)
    for later in (hold(2, 3, 4), hold(2, 3.5, 4, "two", skew=0.0)):
        assert verdict(replace(standing, latest=2.9), later).verdict == "held"
        assert verdict(replace(standing, latest=3.1), later).verdict == "undecidable"
        assert verdict(replace(standing, latest_elsewhere=2.4), later).verdict == "held"
        assert verdict(replace(standing, latest_elsewhere=2.6), later).verdict == "undecidable", "by the skew"
        assert verdict(replace(standing, latest=2.9, latest_elsewhere=9.0), later).verdict == "held"


@pytest.mark.parametrize(
    "gaps",
    [
        Gaps(torn=1),
        Gaps(missed=1),
        Gaps(absent=1),
        Gaps(unended=(Owner(),)),
        Gaps(unheard=("x",)),
        Gaps(unreadable=("x",)),
    ],
)
def test_with_anything_missing_nothing_is_called_held(gaps):
    assert verdict(hold(1, 0, 1), gaps=gaps).verdict == "incomplete"
    assert verdict(hold(1, 0, 2), hold(2, 1, 3), gaps=gaps).verdict == "violated"
    assert verdict(gaps=gaps).verdict == "incomplete"


def test_without_a_grant_nothing_is_called_held():
    assert verdict().verdict == "nothing"


BOTH = pytest.mark.parametrize("boot", ["boot of one", "boot of two"])
"""A resize by the host of the holds, and by another one."""


def resizes(boot, *changes, lasted=0.0):
    offset = 1_100_000.0 - OFFSETS[boot.removeprefix("boot of ")]
    return {(KEY, "a"): tuple(PastResize(size, at, at + offset, boot, lasted) for at, size in changes)}


@BOTH
def test_a_capacity_counts_from_the_resize_on_and_excuses_nothing_before_it(boot):
    holds = [replace(hold(n, n, 50, capacity=2), waited=n - 0.5) for n in range(1, 4)]
    assert verdict(*holds).verdict == "violated"
    assert verdict(*holds, resized=resizes(boot, (2, 3))).verdict == "held"
    assert verdict(*holds, resized=resizes(boot, (4, 3))).verdict == "violated"
    assert verdict(*holds, resized=resizes(boot, (2, 2))).verdict == "violated"


@BOTH
def test_a_capacity_that_was_taken_back_lets_nothing_more_in(boot):
    def pair(began, waited=0.0):
        return [replace(hold(n, began + n, began + 9, capacity=1), waited=waited) for n in (1, 2)]

    grown = resizes(boot, (0, 2), (20, 1))
    assert verdict(*pair(10, 14.0), resized=grown).verdict == "held"
    assert verdict(*pair(16, 20.0), resized=grown).verdict == "held", "a shrink ends no hold"
    assert verdict(*pair(30), resized=grown).verdict == "violated"
    assert verdict(*pair(30), resized=resizes(boot, (0, 2))).verdict == "violated", "a resize is of the queue"
    standing, late = hold(1, 15, 50, capacity=2), hold(2, 25, 30, capacity=2)
    assert verdict(standing, late, resized=resizes(boot, (20, 1))).verdict == "violated"
    waited = replace(late, waited=8.0)
    found = verdict(standing, waited, resized=resizes(boot, (20, 1)))
    assert (found.verdict, found.undecidable) == ("undecidable", 1), "it may have read its grant late"


def test_with_holds_that_began_before_the_journals_nothing_is_called_held():
    assert verdict(hold(1, 0, 1), unbegun=1).verdict == "incomplete"


def test_locks_of_two_names_do_not_exclude_each_other():
    assert verdict(hold(1, 0, 2), hold(1, 1, 3, name="b")).verdict == "held"


def history(chance, hosts):
    """A true history of one lock: fitting grants in the order of fences; clocks are off by 0.2 s at most."""
    skews = {host: chance.uniform(-0.2, 0.2) for host in hosts}
    capacity = chance.choice([1, 1, 3])
    now, standing, made = 100.0, [], []
    for fence in range(1, 40):
        weight = chance.randint(1, capacity)
        now += chance.expovariate(3.0)
        while sum(each[1] for each in standing) + weight > capacity:
            standing.sort()
            now = max(now, standing.pop(0)[0]) + 0.001
        standing = [each for each in standing if each[0] > now]
        host = chance.choice(hosts)
        ended = now + chance.expovariate(1.0)
        standing.append((ended, weight))
        made.append(hold(fence, now, ended, host, weight=weight, capacity=capacity, skew=skews[host]))
    return made


@pytest.mark.parametrize("seed", range(60))
def test_no_true_history_is_called_a_violation(seed):
    chance = random.Random(seed)
    hosts = list(OFFSETS)[: chance.randint(1, 3)]
    found = audit(History(tuple(history(chance, hosts))), 0.4)
    assert found.violations == ()
    assert found.verdict == "held" if len(hosts) == 1 else found.verdict in ("held", "undecidable")


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("fault", ["longer", "fence", "twice"])
def test_a_fault_put_into_a_true_history_is_found(seed, fault):
    chance = random.Random(seed)
    hosts = list(OFFSETS)[: chance.randint(1, 3)]
    made = history(chance, hosts)
    at = chance.randrange(len(made) - 1)
    one, following = made[at], made[-1]
    if fault == "longer":  # until after all that follows: something that does not fit has begun meanwhile
        made[at] = replace(one, until_boottime=one.began_boottime + 1000.0, weight=one.capacity)
    elif fault == "fence":
        made.append(hold(0, 500.0, 501.0, chance.choice(hosts), weight=one.capacity, capacity=one.capacity))
    else:
        made.append(
            replace(
                hold(following.fence, 500.0, 501.0, "one", weight=one.capacity, capacity=one.capacity),
                claim_id="x",
            )
        )
    found = audit(History(tuple(made)), 0.4)
    assert found.verdict == "violated"
    members = {each.claim_id for violation in found.violations for each in violation.holds}
    assert {"longer": one.claim_id, "fence": made[-1].claim_id, "twice": "x"}[fault] in members


# -- guarded resources


def step(kind, fence, began, ended, host="one", *, skew=0.0, resource="the key 'k'", name="a"):
    """A step of a guard from one true time to another, as its host saw it."""
    owner = Owner(user="ann", host=host, pid=1, boot_id=f"boot of {host}")
    boottime = ended - OFFSETS[host] + 1_100_000.0
    return PastStep(
        KEY, name, resource, kind, fence, f"{fence:012x}", owner, ended + skew, boottime, ended - began
    )


def steps_verdict(*steps, skew=0.5):
    return audit(History((hold(1, 0, 1),), steps=steps), skew)


def test_guarded_writes_in_the_order_of_their_fences_are_counted_and_held():
    found = steps_verdict(
        step("opened", 1, 0.0, 0.1),
        step("written", 1, 0.2, 0.3),
        step("opened", 2, 2.0, 2.1),
        step("written", 2, 2.2, 2.3),
        step("refused", 1, 3.0, 3.1),
    )
    assert (found.verdict, found.writes, found.refused) == ("held", 2, 1)


@pytest.mark.parametrize("late", ["written", "opened"])
def test_a_step_that_is_accepted_after_a_higher_fence_is_a_violation_and_names_both(late):
    higher, stale = step("opened", 2, 2.0, 2.1), step(late, 1, 2.2, 2.3)
    found = steps_verdict(step("opened", 1, 0.0, 0.1), higher, stale)
    assert found.verdict == "violated"
    (violation,) = found.violations
    assert (violation.kind, violation.steps) == ("stale write", (higher, stale))


def test_a_step_that_may_have_taken_effect_before_the_higher_fence_is_none():
    assert steps_verdict(step("opened", 2, 2.0, 2.1), step("written", 1, 2.05, 9.0)).verdict == "held"


def test_fences_of_two_resources_or_two_locks_are_not_compared():
    higher = step("opened", 2, 2.0, 2.1)
    assert steps_verdict(higher, step("written", 1, 3.0, 3.1, resource="the key 'l'")).verdict == "held"
    assert steps_verdict(higher, step("written", 1, 3.0, 3.1, name="b")).verdict == "held"


def test_steps_of_two_hosts_are_compared_beyond_the_skew_alone():
    higher = step("opened", 2, 2.0, 2.1)
    for late, skew, expected in [
        (2.5, 0.5, "undecidable"),
        (2.7, 0.5, "violated"),
        (2.5, 0.1, "violated"),
        (2.05, 0.5, "undecidable"),
        (1.3, 0.5, "held"),
    ]:
        found = steps_verdict(higher, step("written", 1, late, late + 0.1, "two"), skew=skew)
        assert (found.verdict, late) == (expected, late)


def test_a_wall_clock_that_was_set_back_makes_no_stale_write_within_one_boot():
    before = step("written", 1, 1.0, 1.1, skew=600.0)
    found = steps_verdict(before, step("opened", 2, 2.0, 2.1), step("opened", 1, 0.0, 0.1, "two"))
    assert (found.verdict, found.undecidable) == ("held", 0)


def test_a_stale_write_is_found_whatever_the_highest_fence_of_its_own_host_is():
    found = steps_verdict(
        step("opened", 5, 2.0, 2.1, "two"),
        step("opened", 3, 2.0, 2.1),
        step("written", 1, 2.3, 2.4),
    )
    assert [each.steps[0].fence for each in found.violations] == [3]


def test_random_steps_at_a_resource_that_compares_are_held_and_one_that_does_not_is_found():
    seen = set()
    for seed in range(60):
        rng = random.Random(seed)
        compares, registered, now, steps = seed % 2 == 0, 0, 0.0, []
        for _ in range(40):
            now += rng.uniform(0.0, 0.01)
            effect = now + rng.uniform(0.0, 0.01)
            fence, host = rng.randint(1, 9), rng.choice(list(OFFSETS))
            if fence >= registered or not compares:
                steps.append(step(rng.choice(["opened", "written"]), fence, now, effect, host))
                registered = max(registered, fence)
            now = effect
        found = steps_verdict(*rng.sample(steps, len(steps)), skew=0.0)
        assert (found.verdict == "held") == compares, seed
        seen.add(found.verdict)
    assert {"held", "violated"} <= seen
