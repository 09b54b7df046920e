"""The deadlock finder: which sets of waiting and held claims are deadlocks, and which only look like one."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from lockkit.facts import ClaimInfo, LockInfo, Owner
from lockkit.lib.noted import RESERVED
from lockkit.protocol.cycles import KEY, Look, WaitFacts, look
from lockkit.store.queue import RW_CAPACITY


def held(name, claim_id, *, weight=1, capacity=1, **others):
    return ClaimInfo(
        name, claim_id, "HELD", Owner(user=claim_id), 1, 0, weight=weight, capacity=capacity, **others
    )


def waits(name, claim_id, *holds, weight=1, capacity=1, group=None, detects=False, **others):
    facts = WaitFacts(frozenset(holds), *(group or (claim_id,)), detects=detects)
    note = {key: value for key, value in facts.patch()[RESERVED][KEY].items() if value is not None}
    owner = Owner(user=claim_id)
    return ClaimInfo(
        name,
        claim_id,
        "WAITING",
        owner,
        0,
        0,
        weight=weight,
        capacity=capacity,
        note={RESERVED: {KEY: note}},
        **others,
    )


def found(*queues) -> Look:
    """Two looks at the same queues; each is a list of claims of one name."""
    infos = [LockInfo(queue[0].name, tuple(queue)) for queue in queues]
    return look(infos, look(infos).stuck)


def cycles(*queues):
    return [{claim.claim_id for claim in one.waiters} for one in found(*queues).deadlocks]


def test_two_that_hold_what_the_other_waits_for():
    deadlock = found(
        [held("a", "A"), waits("a", "y", "B")], [held("b", "B"), waits("b", "x", "A")]
    ).deadlocks[0]
    assert [claim.claim_id for claim in deadlock.waiters] == ["x", "y"]
    assert [claim.claim_id for claim in deadlock.holders] == ["A", "B"]
    assert deadlock.youngest.claim_id == "y"
    assert deadlock.ends == ""
    assert "holds 'a' and waits for 'b'; " in str(deadlock)


def test_the_youngest_of_those_that_detect_ends_it():
    queues = [held("a", "A"), waits("a", "y", "B")], [held("b", "B"), waits("b", "x", "A", detects=True)]
    assert found(*queues).deadlocks[0].ends == "x"


def test_a_ring_of_three_and_what_only_waits_behind_it():
    queues = (
        [held("a", "A"), waits("a", "3", "C"), waits("a", "4", "D")],
        [held("b", "B"), waits("b", "1", "A")],
        [held("c", "C"), waits("c", "2", "B")],
        [held("d", "D")],
    )
    assert cycles(*queues) == [{"1", "2", "3"}]


def test_two_deadlocks_are_told_apart():
    one = [held("a", "A"), waits("a", "1", "B")], [held("b", "B"), waits("b", "2", "A")]
    two = [held("c", "C"), waits("c", "3", "D")], [held("d", "D"), waits("d", "4", "C")]
    assert sorted(map(sorted, cycles(*one, *two))) == [["1", "2"], ["3", "4"]]


def test_a_holder_that_nobody_waits_for_may_release():
    assert cycles([held("a", "A"), waits("a", "1")], [held("b", "B"), waits("b", "2", "A")]) == []


def test_a_claim_that_says_nothing_may_go_away():
    silent = waits("b", "2")._replace(note={"text": "of an older lockkit"})
    assert cycles([held("a", "A"), waits("a", "1", "B")], [held("b", "B"), silent]) == []


def test_a_note_of_somebody_else_is_not_understood():
    for note in (
        7,
        {"holds": "A"},
        {"holds": ["A"], "group": {"id": "g", "of": 1, "needs": 2}},
        {"holds": ["A"], "group": 3},
    ):
        strange = waits("b", "2")._replace(note={RESERVED: {KEY: note}})
        assert cycles([held("a", "A"), waits("a", "1", "B")], [held("b", "B"), strange]) == []


def test_what_is_evicted_lingers_or_is_offered_goes_away():
    for change in ({"evicted": True}, {"state": "LINGERING"}):
        first = held("a", "A")._replace(**change)
        assert cycles([first, waits("a", "1", "B")], [held("b", "B"), waits("b", "2", "A")]) == []
    for change in ({"evicted": True}, {"state": "OFFERED"}, {"process": "gone"}):
        other = waits("b", "2", "A")._replace(**change)
        assert cycles([held("a", "A"), waits("a", "1", "B")], [held("b", "B"), other]) == []


def test_any_of_is_stuck_only_if_every_one_of_its_claims_is():
    first = [held("a", "A"), waits("a", "1", "B")]
    second, third = waits("b", "2", "A", group=("g", 2)), waits("c", "3", "A", group=("g", 2))
    assert cycles(first, [held("b", "B"), second]) == [], "its other claim was not seen"
    assert cycles(first, [held("b", "B"), second], [held("c", "C"), third]) == [], "somebody may release c"
    stuck = (
        first,
        [held("b", "B"), second],
        [
            held("c", "C"),
            third,
        ],
        [held("d", "D"), waits("d", "4", "C")],
    )
    assert cycles(*stuck) == [], "d's holder may release"
    both = [held("a", "A"), waits("a", "1", "B", "C")]
    assert cycles(both, [held("b", "B"), second], [held("c", "C"), third]) == [{"1", "2", "3"}]


def test_a_pool_request_is_stuck_once_too_few_members_can_come_free():
    def queues(stuck):
        members = [
            [held(f"m{n}", f"M{n}"), waits(f"m{n}", f"w{n}", "G", group=("g", 3, 2))] for n in range(3)
        ]
        return [[held("gate", "G"), waits("gate", "x", *[f"M{n}" for n in range(stuck)])], *members]

    assert cycles(*queues(1)) == []
    assert cycles(*queues(2)) == [{"w0", "w1", "x"}]


def test_a_permit_is_waited_for_only_as_long_as_too_few_are_left():
    def permits(*holders):
        claims = [held("s", one, capacity=2) for one in ("S", "T")]
        return [*claims, waits("s", "1", "A", capacity=2)], [held("a", "A"), waits("a", "2", *holders)]

    assert cycles(*permits("S")) == [], "the other permit may be released"
    assert cycles(*permits("S", "T")) == [{"1", "2"}]


def test_what_waits_for_another_deadlock_as_well_is_no_deadlock_of_its_own():
    other = [held("b", "B"), waits("b", "3", "C")], [held("c", "C"), waits("c", "4", "B", "T")]
    claims = [held("s", "S", capacity=2), held("s", "T", capacity=2), waits("s", "1", "A", capacity=2)]
    assert cycles(claims, [held("a", "A"), waits("a", "2", "S")], *other) == [{"3", "4"}]


def test_a_writer_between_readers_counts_if_it_tells():
    def queues(writer):
        read = [held("r", "R", capacity=RW_CAPACITY), writer, waits("r", "1", "A", capacity=RW_CAPACITY)]
        return read, [held("a", "A"), waits("a", "2", "R")]

    whole = {"weight": RW_CAPACITY, "capacity": RW_CAPACITY}
    assert cycles(*queues(waits("r", "w", detects=True, **whole))) == [{"1", "2", "w"}]
    assert cycles(*queues(waits("r", "w", **whole)._replace(note={}))) == []
    assert cycles(*queues(waits("r", "w", detects=True, capacity=RW_CAPACITY))) == [], "both readers fit"


def test_claims_of_different_capacities_are_withdrawn_by_their_owners():
    queue = [held("a", "A"), waits("a", "1", "B"), waits("a", "z", capacity=3)]
    assert cycles(queue, [held("b", "B"), waits("b", "2", "A")]) == []


def test_only_what_two_looks_find_alike_counts():
    queues = [
        LockInfo("a", (held("a", "A"), waits("a", "1", "B"))),
        LockInfo("b", (held("b", "B"), waits("b", "2", "A"))),
    ]
    first = look(queues)
    assert len(first.deadlocks) == 1
    for after in (waits("b", "9", "A"), waits("b", "2"), waits("b", "2", "A", weight=2, capacity=2)):
        changed = [queues[0], LockInfo("b", (held("b", "B", capacity=after.capacity), after))]
        assert look(changed, first.stuck).deadlocks == ()


def test_a_thread_that_waits_behind_its_own_claim():
    assert cycles([held("a", "A"), waits("a", "1", "A")]) == [{"1"}]


def test_a_long_ring():
    n = 3000
    queues = [[held(f"{i}", f"H{i}"), waits(f"{i}", f"w{i}", f"H{(i + 1) % n}")] for i in range(n)]
    assert len(cycles(*queues)[0]) == n


# -- against a model that plays on: every thread that can go on does, and then releases what it holds


class Thread(NamedTuple):
    """A thread holds ``holds`` and waits for ``needs`` of ``waits`` (name, weight); without any, it ends."""

    holds: tuple[tuple[str, int], ...]
    waits: tuple[tuple[str, int], ...]
    needs: int


CAPACITIES = {"m": 1, "n": 1, "s": 2, "t": 3}
PLACES = st.tuples(st.sampled_from(sorted(CAPACITIES)), st.integers(1, 3)).map(
    lambda place: (place[0], min(place[1], CAPACITIES[place[0]]))
)
THREADS = st.lists(
    st.builds(
        lambda holds, waits, needs: Thread(tuple(holds), tuple(waits), min(needs, len(waits))),
        st.lists(PLACES, max_size=2),
        st.lists(PLACES, max_size=3, unique_by=lambda place: place[0]),
        st.integers(1, 2),
    ),
    min_size=2,
    max_size=6,
)


def standing(threads, order):
    """The queues once all threads hold what fits and then wait in order, as [thread, weight, held]."""
    queues = {name: [] for name in CAPACITIES}
    for number, thread in enumerate(threads):
        for name, weight in thread.holds:
            if sum(entry[1] for entry in queues[name]) + weight <= CAPACITIES[name]:
                queues[name].append([number, weight, True])
    for number in order:
        for name, weight in threads[number].waits:
            queues[name].append([number, weight, False])
    return queues


def played(threads, queues):
    """Play on until nothing changes; the threads that still wait."""
    missing = {number: thread.needs for number, thread in enumerate(threads)}
    changed = True
    while changed:
        changed = False
        for name, queue in queues.items():
            total = 0
            for entry in queue:
                total += entry[1]
                if total > CAPACITIES[name]:
                    break
                if not entry[2]:
                    entry[2] = changed = True
                    missing[entry[0]] -= 1
        for number, left in list(missing.items()):
            if left <= 0:  # it has what it needs, gives up its other places, and releases all in the end
                del missing[number]
                for queue in queues.values():
                    queue[:] = [entry for entry in queue if entry[0] != number]
                changed = True
    return set(missing)


def read(threads, queues):
    infos = []
    held = {
        number: [
            f"{name}-{place}"
            for name, queue in queues.items()
            for place, entry in enumerate(queue)
            if entry[0] == number and entry[2]
        ]
        for number in range(len(threads))
    }
    for name, queue in queues.items():
        claims = []
        for place, (number, weight, holds) in enumerate(queue):
            amounts = {"weight": weight, "capacity": CAPACITIES[name]}
            if holds:
                claims.append(held_claim(name, f"{name}-{place}", **amounts))
            else:
                group = (f"thread {number}", len(threads[number].waits), threads[number].needs)
                claims.append(
                    waits(name, f"{name}-{place}", *held[number], group=group, detects=True, **amounts)
                )
        infos.append(LockInfo(name, tuple(claims)))
    return infos


held_claim = held


@given(threads=THREADS, data=st.data())
def test_stuck_is_what_never_goes_on_when_everybody_else_does(threads, data):
    order = data.draw(st.permutations(range(len(threads))))
    queues = standing(threads, order)
    infos = read(threads, queues)
    first = look(infos)
    owner = {
        f"{name}-{place}": entry[0] for name, queue in queues.items() for place, entry in enumerate(queue)
    }
    stuck = {owner[one.claim_id] for one in first.stuck if one.waits}
    still = played(threads, queues)
    assert stuck <= still, "nothing is reported that could go on"
    if all(thread.needs <= 1 for thread in threads):  # else what it gets while it waits is not told
        assert stuck == still
    second = look(infos, first.stuck)
    assert second.stuck == first.stuck
    assert bool(second.deadlocks) == bool(stuck), "whatever is stuck waits, in the end, for a deadlock"
    for deadlock in second.deadlocks:
        alone = {claim.claim_id for claim in (*deadlock.waiters, *deadlock.holders)}
        only = [
            LockInfo(info.name, tuple(claim for claim in info.claims if claim.claim_id in alone))
            for info in infos
        ]
        assert len(look(only).deadlocks) == 1, "a deadlock needs nothing outside it"
