"""The messages for a request that gets no cards, from facts alone: what is wrong with each, and a remedy."""

from __future__ import annotations

import pytest

from lockkit.config.suggesting import SameStore
from lockkit.errors import AcquireTimeout
from lockkit.facts import ClaimInfo, Owner
from lockkit.gpu.card_denials import COMMAND_LINE, PYTHON, Seen, denied, none_at_hand, what_helps, why_waiting
from lockkit.gpu.choosing import CardRequest
from lockkit.gpu.devices import Device, DeviceProcess, Snapshot
from lockkit.gpu.known import Known, facts_of
from lockkit.gpu.quarantine import Quarantined
from lockkit.gpu.receipts import Receipt
from lockkit.values.sizes import GIB

ANN = Owner("ann", "box", 7, program="train")
FIRST = Device("GPU-a", 0, "H100", 80 * GIB, 0, 0, 0, ())
SECOND = Device("GPU-b", 1, "A100", 40 * GIB, 0, 0, 0, ())
SLICED = Device("GPU-c", 2, "H100", 80 * GIB, sliced=True)
SLICE = Device("MIG-c", 2, "MIG 1g", 10 * GIB, 0, 0, None, (), parent="GPU-c")
BOB = (DeviceProcess(5, "bob", "jupyter", GIB),)
DIRTY = Known(receipt=Receipt("GPU-a", "dirty", 3 * GIB))
HUMS = Quarantined("GPU-b", "it hums", "ann@box", 1.0)


def claim(weight=10, capacity=10, **more):
    return ClaimInfo("x", "1" * 12, "HELD", ANN, 1, 0, weight=weight, capacity=capacity, since=40.0, **more)


def look(*devices, request=CardRequest(), kept=(), **known):  # noqa: B008 (immutable)
    facts = {f"GPU-{name}": facts_of(one) for name, one in known.items()}
    return Seen(request, Snapshot(100.0, devices), facts, kept=kept)


def waiting(*devices, others="", **more):
    return why_waiting(look(*devices, **more), others=others)


def test_each_card_that_may_do_is_named_with_its_holder_or_why_else_it_does_not_do():
    assert waiting(FIRST._replace(processes=BOB), SECOND, SLICED, SLICE, b=Known((claim(),))) == (
        "GPU 0: busy (unmanaged): bob pid 5 (jupyter), 1 GiB",
        "GPU 1: held by ann@box pid 7 (train), 60 s",
        "slice MIG-c of GPU 2: free",
    )
    assert waiting(FIRST, SECOND, request=CardRequest(model="H100")) == ("GPU 0: free",)
    assert waiting(FIRST, kept=["GPU-a"], a=Known((claim(),))) == ("GPU 0: got already, and kept",)


@pytest.mark.parametrize("uuid", ["GPU-b", ""])
@pytest.mark.parametrize("memory", [None, 0])
def test_a_card_that_is_lost_is_named_with_its_fault(uuid, memory):
    lost = SECOND._replace(uuid=uuid, memory=memory, used=None, faults=("it is gone",))
    assert waiting(FIRST, lost, request=CardRequest(2)) == (
        "GPU 0: free, but 2 are needed",
        "GPU 1: it is gone",
    )
    assert waiting(FIRST, lost, request=CardRequest(ids=("GPU-a",))) == ("GPU 0: free",)
    shown = CardRequest(visible=("GPU-a",))
    assert len(waiting(FIRST, lost, request=shown)) == (1 if uuid else 2)


def test_cards_of_which_the_same_is_said_share_a_sentence():
    third, held = FIRST._replace(uuid="GPU-d", index=3), Known((claim(),))
    assert waiting(FIRST, SECOND, third, request=CardRequest(3), a=held, d=held) == (
        "GPU 0+3: held by ann@box pid 7 (train), 60 s",
        "GPU 1: free, but 3 are needed",
    )
    seen = look(FIRST, SECOND, third, request=CardRequest(3), a=held, d=held)
    assert [one[:6] for one in why_waiting(seen, apart=True)] == ["GPU 0:", "GPU 1:", "GPU 3:"]
    late = denied(AcquireTimeout("no", name="x"), seen, PYTHON, "gpu/box", waited=True)
    assert "; GPU 0+3: held by ann@box pid 7 (train), 60 s; GPU 1: " in late.message


def test_a_card_that_the_driver_has_lost_is_told_by_its_index_and_fault():
    off = ("the card has fallen off the bus",)
    lost = Device("", 0, faults=off), Device("", 1, faults=off)
    assert waiting(*lost, SECOND._replace(index=2), request=CardRequest(2)) == (
        "GPU 2: free, but 2 are needed",
        "GPU 0+1: the card has fallen off the bus",
    )
    assert waiting(*lost, SECOND, request=CardRequest(ids=("GPU-b",))) == ("GPU 1: free",)


def test_a_free_card_is_told_with_why_it_does_not_help():
    two = CardRequest(2)
    assert waiting(FIRST, SECOND, request=two, b=Known(quarantine=HUMS), others="the request of bob") == (
        "GPU 0: free, but 2 are needed",
        "GPU 1: quarantined by ann@box: it hums",
    )
    assert waiting(FIRST, others="the request of bob") == ("GPU 0: free, and the request of bob comes first",)
    kept = waiting(
        FIRST, SECOND, request=two, kept=["GPU-a"], a=Known((claim(),)), others="the request of bob"
    )
    assert kept == ("GPU 0: got already, and kept", "GPU 1: free, and the request of bob comes first")


def test_a_card_that_a_request_had_got_when_its_time_was_up_is_free_again():
    seen = look(
        FIRST, SECOND, request=CardRequest(2), kept=["GPU-a"], a=Known((claim(),)), b=Known((claim(),))
    )
    late = AcquireTimeout("no", name="x", holder=claim())
    error = denied(late, seen, PYTHON, "gpu/box", waited=True)
    assert error.message == (
        "timed out waiting for 2 GPUs; GPU 0: free, but 2 are needed; "
        "GPU 1: held by ann@box pid 7 (train), 60 s"
    )
    assert (error.name, error.holder) == ("gpu/box", claim())
    assert error.hint == "wait longer, or look with: lockkit gpu ls"
    timed = denied(late, seen, PYTHON, "gpu/box", waited=True, after=1.2)
    assert timed.message.startswith("timed out after 1.2 s waiting for 2 GPUs; GPU 0: free, ")
    error = denied(late, seen, PYTHON, "gpu/box", waited=False)
    assert error.message.startswith("2 GPUs cannot be had now; GPU 0: free, but 2 are needed; ")
    assert error.hint == "give a timeout to wait, or look with: lockkit gpu ls"


def test_a_card_that_is_free_when_the_time_is_up_was_seen_too_late():
    error = denied(AcquireTimeout("no", name="x"), look(FIRST), PYTHON, "gpu/box", waited=True, after=1.2)
    assert error.message == (
        "timed out after 1.2 s waiting for 1 GPU; "
        "GPU 0: free, but the driver of the GPUs or the store answered too late"
    )


def test_the_users_own_job_without_a_lock_can_be_adopted_and_that_of_others_or_one_of_several_is_not_named():
    own, far = COMMAND_LINE._replace(user="bob"), SameStore(" --url redis://h", " (first)")
    takes = "--allow-busy takes GPU 0 although it is in use"
    busy = look(FIRST._replace(processes=BOB))
    assert what_helps(busy, own) == (takes, "to put your own job there under a lock: lockkit gpu adopt 5")
    assert what_helps(busy, own._replace(store=far, options=" --gpu-sim 2"))[1:] == (
        "to put your own job there under a lock (first): lockkit gpu adopt 5 --url redis://h --gpu-sim 2",
    )
    assert what_helps(busy, own._replace(user="ann")) == (takes,)
    assert what_helps(busy, own._replace(user="")) == (takes,)
    assert what_helps(look(FIRST._replace(processes=BOB * 2)), own) == (takes,)
    both = look(FIRST._replace(processes=BOB), SECOND._replace(processes=BOB))
    assert what_helps(both, own)[1] == "to put your own job there under a lock: lockkit gpu adopt 5"
    unknown = (DeviceProcess(None, None, None, GIB),)
    assert what_helps(look(FIRST._replace(processes=unknown)), own) == (takes,)


def test_a_card_that_the_driver_hides_or_that_failed_a_check_is_named_with_that():
    seen = look(FIRST)._replace(
        failed={"GPU-a": "preflight: 2 is not 3", "GPU-54a033e8-1": "the driver does not show it"}
    )
    assert why_waiting(seen) == ("GPU 0: preflight: 2 is not 3", "GPU-54a033e8: the driver does not show it")


@pytest.mark.parametrize(
    "cards, known, helps, stuck",
    [
        ([FIRST._replace(used=3 * GIB)], {"a": DIRTY}, ["--accept-dirty takes GPU 0 as it is"], True),
        (
            [FIRST._replace(used=3 * GIB), SECOND._replace(used=3 * GIB)],
            {"a": DIRTY, "b": DIRTY},
            ["--accept-dirty takes GPU 0 and GPU 1 as they are"],
            True,
        ),
        ([FIRST._replace(processes=BOB)], {}, ["--allow-busy takes GPU 0 although it is in use"], True),
        ([FIRST._replace(used=3 * GIB)], {}, ["--allow-busy takes GPU 0 although it is in use"], True),
        (
            [SECOND],
            {"b": Known(quarantine=HUMS)},
            ["to give GPU 1 back: lockkit gpu clear GPU-b --url redis: --gpu-sim 2"],
            True,
        ),
        (
            [FIRST._replace(used=3 * GIB), SECOND, FIRST._replace(uuid="GPU-d", index=3, processes=BOB)],
            {"a": DIRTY, "b": Known(quarantine=HUMS)},
            [
                "--accept-dirty takes GPU 0 as it is",
                "--allow-busy takes GPU 3 although it is in use",
                "to give GPU 1 back: lockkit gpu clear GPU-b --url redis: --gpu-sim 2",
            ],
            True,
        ),
        ([FIRST._replace(faults=("Xid 79",))], {}, [], True),
        ([FIRST], {"a": Known((claim(),))}, [], False),
        ([FIRST], {}, [], False),
        (
            [FIRST._replace(processes=BOB), SECOND],
            {"b": Known((claim(),))},
            ["--allow-busy takes GPU 0 although it is in use"],
            False,
        ),
    ],
)  # fmt: skip
def test_the_option_or_the_command_that_gives_a_card_is_named(cards, known, helps, stuck):
    seen = look(*cards, **known)
    ways = COMMAND_LINE._replace(store=SameStore(" --url redis:"), options=" --gpu-sim 2")
    assert list(what_helps(seen, ways)) == helps
    assert none_at_hand(seen) is stuck


def test_an_option_that_would_give_no_card_is_not_named():
    full = FIRST._replace(used=70 * GIB, processes=BOB)
    assert what_helps(look(full, request=CardRequest(min_free=20 * GIB)), COMMAND_LINE) == ()
    assert what_helps(look(full, request=CardRequest(allow_busy=True, min_free=20 * GIB)), COMMAND_LINE) == ()


def test_a_slice_is_given_back_with_its_card_and_many_cards_by_two_commands():
    mark = Quarantined("GPU-c", "it hums", "ann@box", 1.0)
    seen = look(SLICED, SLICE)
    seen = seen._replace(facts={"MIG-c": facts_of(Known(quarantine=mark))})
    assert what_helps(seen, PYTHON) == ("to give slice MIG-c of GPU 2 back: lockkit gpu clear GPU-c",)
    four = [FIRST._replace(uuid=f"GPU-{name}", index=at) for at, name in enumerate("abcd")]
    marks = {name: Known(quarantine=Quarantined(f"GPU-{name}", "it hums")) for name in "abcd"}
    assert what_helps(look(*four, **marks), PYTHON) == (
        (
            "to give GPU 0, GPU 1, GPU 2 and GPU 3 back: "
            "lockkit gpu clear GPU-a and lockkit gpu clear GPU-b and the same for 2 more"
        ),
    )
    nowhere = PYTHON._replace(store=SameStore(reachable=False))
    assert what_helps(look(*four, **marks), nowhere) == ()


def test_in_a_program_the_arguments_are_named():
    seen = look(FIRST._replace(processes=BOB), SECOND._replace(used=3 * GIB), b=DIRTY)
    assert what_helps(seen, PYTHON) == (
        "accept_dirty=True takes GPU 1 as it is",
        "allow_busy=True takes GPU 0 although it is in use",
    )
