"""The choice of cards for a request: the order of those that will do, and the reason for each other one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockkit.facts import ClaimInfo, Owner
from lockkit.gpu.choosing import CardFacts, CardRequest, choose, may_pass
from lockkit.gpu.devices import Device, DeviceProcess, Snapshot
from lockkit.values.sizes import GIB, MIB

NOW = 1000.0


def card(number, **facts):
    shown = {"name": "NVIDIA H100", "memory": 80 * GIB, "reserved": 512 * MIB, "used": 0, "processes": ()}
    return Device(f"GPU-{number}", number, **{**shown, **facts})


def chosen(request, *devices, held=None, mine=()):
    return choose(request, Snapshot(NOW, devices), held or {}, mine)


def holder(number):
    return CardFacts((ClaimInfo(f"GPU-{number}", "c", "HELD", Owner(), 1, 0),))


BOB = DeviceProcess(4711, "bob", "jupyter", 3 * GIB)


def test_the_card_with_most_free_memory_comes_first():
    choice = chosen(CardRequest(), card(0, used=900 * MIB), card(1), card(2, used=500 * MIB))
    assert choice.order == ("GPU-1", "GPU-2", "GPU-0")
    assert (choice.refused, choice.never) == ({}, None)


def test_the_card_that_one_had_last_comes_first():
    assert chosen(CardRequest(last=("GPU-2",)), card(0), card(1), card(2)).order == (
        "GPU-2",
        "GPU-0",
        "GPU-1",
    )


def test_a_card_that_is_held_comes_last_whatever_is_in_its_memory():
    choice = chosen(
        CardRequest(min_free=20 * GIB, last=("GPU-0",)),
        card(0, used=70 * GIB, processes=(BOB,)),
        card(1),
        held={"GPU-0": holder(0)},
    )
    assert choice.order == ("GPU-1", "GPU-0")


@pytest.mark.parametrize(
    "facts, told",
    [
        ({"processes": (BOB,)}, "busy (unmanaged): bob pid 4711 (jupyter), 3 GiB"),
        ({"used": 2 * GIB}, "busy (unmanaged): 2 GiB in use"),
        ({"used": None}, "unknown: its memory cannot be told"),
        ({"used": None, "processes": None}, "unknown: its use cannot be told"),
        ({"faults": ("the card must be reset",)}, "the card must be reset"),
    ],
)
def test_a_card_that_somebody_uses_without_a_lock_or_that_is_not_well_is_skipped(facts, told):
    choice = chosen(CardRequest(), card(0, **facts), card(1))
    assert choice.order == ("GPU-1",)
    assert choice.refused["GPU-0"].startswith(told)
    assert choice.never is None


def test_a_card_in_use_will_do_if_that_is_allowed_and_enough_of_it_is_free():
    busy = card(0, used=60 * GIB, processes=(BOB,))
    assert chosen(CardRequest(allow_busy=True, min_free=10 * GIB), busy).order == ("GPU-0",)
    assert chosen(CardRequest(allow_busy=True, memory=30 * GIB), busy).refused == {
        "GPU-0": "only 19.5 GiB of it is free"
    }


def test_a_quarantined_card_is_skipped_even_if_it_is_allowed_to_be_busy():
    choice = chosen(
        CardRequest(allow_busy=True),
        card(0),
        held={"GPU-0": CardFacts(quarantine="quarantined by ann@box: Xid 79")},
    )
    assert choice.refused == {"GPU-0": "quarantined by ann@box: Xid 79"}


def test_memory_may_drain_for_a_while_after_a_hold():
    full = card(0, used=5 * GIB)
    fresh, old = {"GPU-0": CardFacts(released=NOW - 10)}, {"GPU-0": CardFacts(released=NOW - 40)}
    assert chosen(CardRequest(settle=30.0), full, held=fresh).order == ("GPU-0",)
    assert chosen(CardRequest(settle=30.0), full, held=old).order == ()
    assert chosen(CardRequest(), full, held=fresh).order == ()
    assert chosen(CardRequest(settle=30.0), full._replace(processes=(BOB,)), held=fresh).order == ()


@pytest.mark.parametrize(
    "asked, told",
    [
        (CardRequest(min_free=90 * GIB), "it has only 79.5 GiB for programs"),
        (CardRequest(memory=90 * GIB), "it has only 79.5 GiB for programs"),
        (CardRequest(model="A100"), "it is a NVIDIA H100"),
        (CardRequest(ids=("GPU-7",)), "it is not among the cards that were asked for"),
        (CardRequest(visible=()), "CUDA_VISIBLE_DEVICES hides it"),
        (CardRequest(visible=("GPU-9",)), "CUDA_VISIBLE_DEVICES hides it"),
    ],
)
def test_a_request_that_no_wait_can_meet_says_why_for_each_card(asked, told):
    never = chosen(asked, card(0), card(1)).never
    assert never.startswith("1 GPU can never be had: none of the 2 of this host will do")
    assert never.endswith(f" will do; all 2: {told}")


def test_more_cards_than_there_are_can_never_be_had():
    assert chosen(CardRequest(3), card(0), card(1)).never == "3 GPUs can never be had: this host has only 2"


def test_a_card_that_the_driver_has_lost_is_named_without_a_uuid():
    lost = Device("", 1, faults=("the card has fallen off the bus",))
    assert chosen(CardRequest(2), card(0), lost).never.endswith(
        " will do; GPU 1 (unknown model): the card has fallen off the bus"
    )


def test_of_a_card_that_does_not_answer_nobody_knows_that_it_will_never_do():
    silent = Device("", 1, faults=("it has not answered",), unreachable=True, silent=True)
    told = (
        "2 GPUs cannot be had now: only 1 of the 2 of this host will do; GPU 1 (unknown model): it has not "
        "answered"
    )
    assert chosen(CardRequest(2), card(0), silent).never == told
    assert may_pass(CardRequest(2), (card(0), silent))
    assert not may_pass(CardRequest(3), (card(0), silent))
    assert not may_pass(CardRequest(2), (card(0), silent._replace(silent=False)))


def test_more_cards_than_were_named_can_never_be_had():
    named = CardRequest(2, ids=("GPU-1",))
    told = "2 GPUs can never be had: only 1 GPU was named"
    assert chosen(named, *map(card, range(8))).never == told


def test_a_card_that_is_busy_now_may_do_one_day():
    assert chosen(CardRequest(2), card(0, processes=(BOB,)), card(1, faults=("Xid",))).never is None


def test_a_divided_card_is_used_by_its_slices():
    parent = card(0, sliced=True)
    slices = [Device(f"MIG-{n}", 0, "NVIDIA H100 MIG 1g", 10 * GIB, 0, 0, None, (), "GPU-0") for n in "ab"]
    choice = chosen(CardRequest(1), parent, *slices)
    assert choice.order == ("MIG-a", "MIG-b")
    assert "slices" in choice.refused["GPU-0"]


def test_a_slice_is_given_out_alone_because_cuda_shows_a_process_no_card_beside_it():
    part = Device("MIG-a", 0, "NVIDIA H100 MIG 1g", 10 * GIB, 0, 0, None, (), "GPU-0")
    cards = (card(0, sliced=True), part, card(1), card(2))
    choice = chosen(CardRequest(2), *cards)
    assert (choice.order, choice.never) == (("GPU-1", "GPU-2"), None)
    assert choice.refused["MIG-a"] == "it is a slice, and CUDA shows a process no card beside a slice"
    assert chosen(CardRequest(3), *cards).never is not None
    theirs = [part._replace(uuid=f"AMD-{n}") for n in "ab"]
    assert chosen(CardRequest(2), *theirs).order == ("AMD-a", "AMD-b"), "CUDA's rule is about its own slices"


@pytest.mark.parametrize("name", ["h100", "H100", "NVIDIA*", "*100"])
def test_a_model_is_asked_for_by_a_part_of_its_name(name):
    assert chosen(CardRequest(model=name), card(0)).order == ("GPU-0",)


def test_what_the_request_has_already_is_neither_named_nor_refused():
    choice = chosen(CardRequest(2), card(0, used=70 * GIB, processes=(BOB,)), card(1), mine=("GPU-0",))
    assert (choice.order, choice.refused) == (("GPU-1",), {})


SIZES = st.integers(0, 100).map(lambda each: each * GIB)
PROCESSES = st.one_of(st.none(), st.just(()), st.just((BOB,)))
CARDS = st.lists(
    st.builds(
        dict,
        memory=st.one_of(st.none(), SIZES),
        used=st.one_of(st.none(), SIZES),
        processes=PROCESSES,
        name=st.sampled_from(["", "NVIDIA H100", "NVIDIA A100"]),
        faults=st.sampled_from([(), (), ("bad",)]),
        sliced=st.booleans(),
    ),
    max_size=6,
).map(lambda each: [card(number, **facts) for number, facts in enumerate(each)])
WISHES = st.builds(
    CardRequest,
    st.integers(1, 4),
    SIZES,
    st.one_of(st.none(), SIZES),
    st.sampled_from([None, "H100", "A*"]),
    st.one_of(st.none(), st.lists(st.sampled_from([f"GPU-{n}" for n in range(6)])).map(tuple)),
    st.one_of(st.none(), st.lists(st.sampled_from([f"GPU-{n}" for n in range(6)])).map(tuple)),
    st.booleans(),
    st.sampled_from([0.0, 30.0]),
    st.lists(st.sampled_from([f"GPU-{n}" for n in range(6)])).map(tuple),
    hidden=st.just("CUDA_VISIBLE_DEVICES hides it"),
)
HELD = st.dictionaries(
    st.sampled_from([f"GPU-{n}" for n in range(6)]),
    st.builds(
        CardFacts,
        st.sampled_from([(), holder(0).holders]),
        st.sampled_from([None, NOW - 10, NOW - 100]),
        st.sampled_from(["", "", "bad"]),
    ),
)


@given(devices=CARDS, request=WISHES, held=HELD)
def test_every_card_is_either_named_once_or_refused_with_a_reason(devices, request, held):
    choice = chosen(request, *devices, held=held)
    assert len(set(choice.order)) == len(choice.order)
    assert set(choice.order).isdisjoint(choice.refused)
    assert {*choice.order, *choice.refused} == {device.uuid for device in devices}
    assert all(choice.refused.values())


@given(devices=CARDS, request=WISHES, held=HELD, data=st.data())
def test_the_order_does_not_depend_on_how_the_cards_are_listed(devices, request, held, data):
    shuffled = data.draw(st.permutations(devices))
    assert chosen(request, *devices, held=held).order == chosen(request, *shuffled, held=held).order


@given(devices=CARDS, request=WISHES, held=HELD)
def test_one_more_free_card_never_makes_a_request_worse(devices, request, held):
    before = chosen(request, *devices, held=held)
    after = chosen(request, *devices, card(9), held=held)
    assert before.never is not None or after.never is None
    assert set(before.order) <= set(after.order)


@given(devices=CARDS, request=WISHES, held=HELD)
def test_what_will_do_now_can_be_had_one_day(devices, request, held):
    choice = chosen(request, *devices, held=held)
    assert choice.never is None or len(choice.order) < request.count


@given(devices=CARDS, request=WISHES, held=HELD)
def test_no_card_that_the_environment_hides_is_ever_named(devices, request, held):
    if request.visible is not None:
        assert set(chosen(request, *devices, held=held).order) <= set(request.visible)
