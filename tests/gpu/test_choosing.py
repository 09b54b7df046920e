"""Which cards will do, in which order, and why the others will not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockkit.devices import Device, DeviceProcess, Snapshot
from lockkit.facts import ClaimInfo, Owner
from lockkit.gpu.choosing import Held, Wish, choose
from lockkit.sizes import GIB, MIB

NOW = 1000.0


def card(number, **facts):
    shown = {"name": "NVIDIA H100", "memory": 80 * GIB, "reserved": 512 * MIB, "used": 0, "processes": ()}
    return Device(f"GPU-{number}", number, **{**shown, **facts})


def chosen(wish, *devices, held=None, mine=()):
    return choose(wish, Snapshot(NOW, devices), held or {}, mine)


def holder(number):
    return Held((ClaimInfo(f"GPU-{number}", "c", "HELD", Owner(), 1, 0),))


BOB = DeviceProcess(4711, "bob", "jupyter", 3 * GIB)


def test_the_card_with_most_free_memory_comes_first():
    choice = chosen(Wish(), card(0, used=900 * MIB), card(1), card(2, used=500 * MIB))
    assert choice.order == ("GPU-1", "GPU-2", "GPU-0")
    assert (choice.refused, choice.never) == ({}, None)


def test_the_card_that_one_had_last_comes_first():
    assert chosen(Wish(last=("GPU-2",)), card(0), card(1), card(2)).order == ("GPU-2", "GPU-0", "GPU-1")


def test_a_card_that_is_held_comes_last_whatever_is_in_its_memory():
    choice = chosen(
        Wish(min_free=20 * GIB, last=("GPU-0",)),
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
    choice = chosen(Wish(), card(0, **facts), card(1))
    assert choice.order == ("GPU-1",)
    assert choice.refused["GPU-0"].startswith(told)
    assert choice.never is None


def test_a_card_in_use_will_do_if_that_is_allowed_and_enough_of_it_is_free():
    busy = card(0, used=60 * GIB, processes=(BOB,))
    assert chosen(Wish(allow_busy=True, min_free=10 * GIB), busy).order == ("GPU-0",)
    assert chosen(Wish(allow_busy=True, memory=30 * GIB), busy).refused == {
        "GPU-0": "only 19.5 GiB of it is free"
    }


def test_a_quarantined_card_is_skipped_even_if_it_is_allowed_to_be_busy():
    choice = chosen(Wish(allow_busy=True), card(0), held={"GPU-0": Held(quarantine="Xid 79")})
    assert choice.refused == {"GPU-0": "quarantined: Xid 79"}


def test_memory_may_drain_for_a_while_after_a_hold():
    full = card(0, used=5 * GIB)
    fresh, old = {"GPU-0": Held(released=NOW - 10)}, {"GPU-0": Held(released=NOW - 40)}
    assert chosen(Wish(settle=30.0), full, held=fresh).order == ("GPU-0",)
    assert chosen(Wish(settle=30.0), full, held=old).order == ()
    assert chosen(Wish(), full, held=fresh).order == ()
    assert chosen(Wish(settle=30.0), full._replace(processes=(BOB,)), held=fresh).order == ()


@pytest.mark.parametrize(
    "wish, told",
    [
        (Wish(min_free=90 * GIB), "it has only 79.5 GiB for programs"),
        (Wish(memory=90 * GIB), "it has only 79.5 GiB for programs"),
        (Wish(name="A100"), "it is a NVIDIA H100"),
        (Wish(ids=("GPU-7",)), "it is not among the cards that were asked for"),
        (Wish(visible=()), "CUDA_VISIBLE_DEVICES hides it"),
        (Wish(visible=("GPU-9",)), "CUDA_VISIBLE_DEVICES hides it"),
    ],
)
def test_a_request_that_no_wait_can_meet_says_why_for_each_card(wish, told):
    never = chosen(wish, card(0), card(1)).never
    assert never.startswith("1 GPU can never be had: none of the 2 of this host will do")
    assert never.count(told) == 2


def test_more_cards_than_there_are_can_never_be_had():
    assert "3 GPUs can never be had: only 2 of the 2" in chosen(Wish(3), card(0), card(1)).never


def test_a_card_that_is_busy_now_may_do_one_day():
    assert chosen(Wish(2), card(0, processes=(BOB,)), card(1, faults=("Xid",))).never is None


def test_a_divided_card_is_used_by_its_slices():
    parent = card(0, sliced=True)
    slices = [Device(f"MIG-{n}", 0, "NVIDIA H100 MIG 1g", 10 * GIB, 0, 0, None, (), "GPU-0") for n in "ab"]
    choice = chosen(Wish(2), parent, *slices)
    assert choice.order == ("MIG-a", "MIG-b")
    assert "slices" in choice.refused["GPU-0"]


@pytest.mark.parametrize("name", ["h100", "H100", "NVIDIA*", "*100"])
def test_a_model_is_asked_for_by_a_part_of_its_name(name):
    assert chosen(Wish(name=name), card(0)).order == ("GPU-0",)


def test_what_the_request_has_already_is_neither_named_nor_refused():
    choice = chosen(Wish(2), card(0, used=70 * GIB, processes=(BOB,)), card(1), mine=("GPU-0",))
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
    Wish,
    st.integers(1, 4),
    SIZES,
    st.one_of(st.none(), SIZES),
    st.sampled_from([None, "H100", "A*"]),
    st.one_of(st.none(), st.lists(st.sampled_from([f"GPU-{n}" for n in range(6)])).map(tuple)),
    st.one_of(st.none(), st.lists(st.sampled_from([f"GPU-{n}" for n in range(6)])).map(tuple)),
    st.booleans(),
    st.sampled_from([0.0, 30.0]),
    st.lists(st.sampled_from([f"GPU-{n}" for n in range(6)])).map(tuple),
)
HELD = st.dictionaries(
    st.sampled_from([f"GPU-{n}" for n in range(6)]),
    st.builds(
        Held,
        st.sampled_from([(), holder(0).holders]),
        st.sampled_from([None, NOW - 10, NOW - 100]),
        st.sampled_from(["", "", "bad"]),
    ),
)


@given(devices=CARDS, wish=WISHES, held=HELD)
def test_every_card_is_either_named_once_or_refused_with_a_reason(devices, wish, held):
    choice = chosen(wish, *devices, held=held)
    assert len(set(choice.order)) == len(choice.order)
    assert set(choice.order).isdisjoint(choice.refused)
    assert {*choice.order, *choice.refused} == {device.uuid for device in devices}
    assert all(choice.refused.values())


@given(devices=CARDS, wish=WISHES, held=HELD, data=st.data())
def test_the_order_does_not_depend_on_how_the_cards_are_listed(devices, wish, held, data):
    shuffled = data.draw(st.permutations(devices))
    assert chosen(wish, *devices, held=held).order == chosen(wish, *shuffled, held=held).order


@given(devices=CARDS, wish=WISHES, held=HELD)
def test_one_more_free_card_never_makes_a_request_worse(devices, wish, held):
    before = chosen(wish, *devices, held=held)
    after = chosen(wish, *devices, card(9), held=held)
    assert before.never is not None or after.never is None
    assert set(before.order) <= set(after.order)


@given(devices=CARDS, wish=WISHES, held=HELD)
def test_what_will_do_now_can_be_had_one_day(devices, wish, held):
    choice = chosen(wish, *devices, held=held)
    assert choice.never is None or len(choice.order) < wish.count


@given(devices=CARDS, wish=WISHES, held=HELD)
def test_no_card_that_the_environment_hides_is_ever_named(devices, wish, held):
    if wish.visible is not None:
        assert set(chosen(wish, *devices, held=held).order) <= set(wish.visible)
