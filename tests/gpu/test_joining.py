"""The state of a card, made of a device snapshot and of the claims and records in the store."""

from __future__ import annotations

import os

import pytest

from lockkit.facts import ClaimInfo, Keeper, LockInfo, Owner
from lockkit.gpu.devices import Device, DeviceProcess, Snapshot
from lockkit.gpu.joining import joined
from lockkit.gpu.judging import Receipt
from lockkit.gpu.known import Known, gathering
from lockkit.gpu.quarantine import Quarantined
from lockkit.gpu.usage import Use, unlocked, used_by, used_by_holder
from lockkit.notes.remarks import requesting, with_reason
from lockkit.values.identity import this_process

GIB = 1 << 30
IDLE = Device("GPU-a", 0, "H100", 80 * GIB, GIB, 0, 0, ())
ANN = Owner(user="ann", host="box", pid=4711, program="train.py")
TRAIN = DeviceProcess(4711, "ann", "train.py", 70 * GIB)


def claim(weight, **more):
    return ClaimInfo("x", "0" * 12, "HELD", ANN, 1, 0, "semaphore", weight, 80896, since=700.0, **more)


WHOLE, SHARE = claim(80896), claim(8192, note=with_reason(None, "evaluation"))
ANNS, PART = (
    "ann@box pid 4711 (train.py), 5 min",
    "ann@box pid 4711 (train.py), 5 min, 8 GiB declared, for: evaluation",
)
MARK = Quarantined("GPU-a", "it hums", "bob@box")
DIRTY = Receipt("GPU-a", "dirty", 3 * GIB, by="ann@box")
LEFT = IDLE._replace(used=3 * GIB)
STRAY = "3 GiB in use by no process that is seen"


@pytest.mark.parametrize(
    "device, known, state, reasons",
    [
        (IDLE, Known(), "free", ()),
        (IDLE, Known((WHOLE,)), "held", (ANNS,)),
        (IDLE._replace(processes=(TRAIN,), used=70 * GIB), Known((WHOLE,)), "held", (ANNS,)),
        (IDLE, Known((SHARE,)), "shared", (PART,)),
        (IDLE, Known((SHARE, SHARE)), "shared", (PART, PART)),
        (IDLE, Known((WHOLE,), quarantine=MARK), "quarantined", ("quarantined by bob@box: it hums", ANNS)),
        (IDLE._replace(faults=("it smells",)), Known((WHOLE,)), "faulty", ("it smells", ANNS)),
        (LEFT, Known(), "busy", (STRAY,)),
        (LEFT, Known(receipt=DIRTY), "dirty", ("left dirty by ann@box with 3 GiB in use", STRAY)),
        (LEFT, Known(receipt=DIRTY._replace(outcome="clean")), "busy", (STRAY,)),
        (LEFT, Known((WHOLE,), DIRTY), "held", (ANNS,)),
        (IDLE, Known(receipt=DIRTY), "free", ()),
    ],
)  # fmt: skip
def test_a_card_has_one_state_for_driver_and_store(device, known, state, reasons):
    (card,) = joined(Snapshot(1000.0, (device,)), {"GPU-a": known})
    assert (card.state, card.reasons) == (state, reasons)
    assert joined(Snapshot(1000.0, (device,)), {})[0].state in ("free", "busy", "faulty")


def told(**news):
    return {"lockkit": {"gpu": {"at": 990, **news}}}


def test_what_a_holder_uses_and_since_when_it_is_idle_stand_beside_what_it_declared():
    def words(one, **uses):
        (card,) = joined(Snapshot(1000.0, (IDLE,)), {"GPU-a": Known((one,))}, uses)
        return card.reasons[0].removeprefix("ann@box pid 4711 (train.py), 5 min, ")

    idle = claim(8192, note=told(used=2 * GIB, idle_since=400))
    assert words(idle) == "8 GiB declared, 2 GiB used, idle for 10 min"
    live = {"0" * 12: Use(8 * GIB, 12 * GIB, None)}
    assert words(idle, **live) == "8 GiB declared, 12 GiB used, more than declared"
    assert words(claim(80896, note=told(idle_since=400))) == "idle for 10 min"


def test_the_processes_of_a_card_are_counted_for_the_holder_that_they_descend_from():
    parents = {90: 80, 80: 70, 70: 1, 60: 1}.__getitem__
    card = IDLE._replace(
        processes=(DeviceProcess(90, memory=GIB), DeviceProcess(70, memory=GIB), DeviceProcess(60, memory=5))
    )
    assert used_by(card, 70, parents) == 2 * GIB
    assert used_by(card, 80, parents) == GIB
    assert used_by(card, 50, parents) == 0
    assert used_by(card._replace(processes=(DeviceProcess(None, memory=1),)), 70, parents) is None
    assert used_by(card._replace(processes=(DeviceProcess(70),)), 70, parents) is None
    assert used_by(card._replace(processes=None), 70, parents) is None


def test_the_processes_of_a_holder_elsewhere_are_never_counted_by_its_pid():
    card = IDLE._replace(processes=(DeviceProcess(os.getpid(), memory=GIB),))
    here = SHARE._replace(owner=this_process(), process="alive")
    assert used_by_holder(card, here) == GIB
    for owner in (here.owner._replace(boot_id="other"), here.owner._replace(pid_space=7), ANN):
        assert used_by_holder(card, here._replace(owner=owner)) is None
    assert used_by_holder(card, here._replace(process="unknown")) is None


def test_the_memory_of_an_adopted_job_is_counted_for_its_keeper():
    card = IDLE._replace(processes=(DeviceProcess(os.getppid(), memory=GIB),))
    keeper = SHARE._replace(owner=this_process(), process="alive")
    assert used_by_holder(card, keeper) == 0
    assert used_by_holder(card, keeper._replace(note={"adopted": {"pid": os.getppid()}})) == GIB
    assert used_by_holder(card, keeper._replace(note={"adopted": {"pid": True}})) == 0


@pytest.mark.parametrize(
    "more, said",
    [
        (
            {"process": "gone", "kept_by": (Keeper(77, "sleep"), Keeper(78))},
            "ended, kept by pid 77 (sleep) and pid 78, 5 min",
        ),
        ({"process": "gone"}, "ended, see: lockkit explain x, 5 min"),
        (
            {"process": "gone", "alive": False, "deadline": 1012.0},
            "ended, and kept for at most 12 s more, 5 min",
        ),
        ({"evicted": True, "deadline": 1012.0}, "evicted, and kept for at most 12 s more, 5 min"),
        (
            {"evicted": True, "process": "gone", "kept_by": (Keeper(77,),)},
            "evicted, ended, kept by pid 77, 5 min",
        ),
        ({"state": "LINGERING", "deadline": 1003.0}, "released, and kept for at most 3 s more, 5 min"),
        ({"process": "stopped", "deadline": 1003.0}, "stopped, 5 min"),
        ({"note": requesting("x", ANN, 1.0, "x")[1]}, "5 min, asked to release"),
    ],
)  # fmt: skip
def test_a_hold_that_has_ended_says_what_keeps_its_card(more, said):
    (card,) = joined(Snapshot(1000.0, (IDLE,)), {"GPU-a": Known((WHOLE._replace(**more),))})
    assert card.reasons == (f"ann@box pid 4711 (train.py), {said}",)


def test_a_process_that_works_for_no_holder_is_named_on_a_held_card():
    parents = {90: os.getpid()}
    mine = DeviceProcess(90, "ann", "train.py", GIB)
    jupyter = DeviceProcess(60, "bob", "jupyter", 12 * GIB)
    card = IDLE._replace(processes=(mine, jupyter, DeviceProcess(None)), used=13 * GIB)
    here = WHOLE._replace(owner=this_process(), process="alive")

    def foreign(*holders):
        return unlocked(card, holders, lambda pid: parents.get(pid, 1))

    assert foreign(here) == (jupyter,)
    assert foreign(here, SHARE) == ()
    assert foreign(here._replace(process="gone")) == ()
    found = joined(Snapshot(1000.0, (card,)), {"GPU-a": Known((WHOLE,))}, unlocked={"GPU-a": (jupyter,)})
    assert found[0].reasons == (ANNS, "and without a lock: bob pid 60 (jupyter), 12 GiB")


@pytest.mark.parametrize(
    "holder, processes, told",
    [
        (SHARE, (TRAIN._replace(memory=GIB),), ("and 2 GiB in use by no process that is seen",)),
        (SHARE, (TRAIN._replace(memory=3 * GIB),), ()),
        (SHARE, (TRAIN._replace(memory=None),), ()),
        (SHARE, None, ()),
        (WHOLE, (), ()),
    ],
)
def test_memory_of_nobody_that_is_seen_is_told_on_a_shared_card(holder, processes, told):
    card = LEFT._replace(processes=processes)
    (found,) = joined(Snapshot(1000.0, (card,)), {"GPU-a": Known((holder,))})
    assert found.reasons[1:] == told


def test_only_claims_granted_since_the_gate_belong_to_the_request_that_waits():
    gate = claim(1, note={"pool": {"count": 3}})
    late, early = WHOLE._replace(claim_id="late"), WHOLE._replace(claim_id="early", since=600.0)
    found = {"GPU-a": Known((late,)), "GPU-b": Known((early,))}
    assert gathering(LockInfo("gate", (gate,)), found) == {"late": 2}
    assert gathering(LockInfo("gate", (gate._replace(note={"pool": {"count": 1}}),)), found) == {}
    assert gathering(LockInfo("gate", (gate._replace(owner=ANN._replace(pid=1)),)), found) == {}
    assert gathering(LockInfo("gate"), found) == {}
