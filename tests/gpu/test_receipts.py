"""Receipts: how a card was left, for the next holder."""

from __future__ import annotations

from uuid import uuid4

import pytest

import lockkit
from lockkit.devices import Device, DeviceProcess
from lockkit.gpu.quarantine import quarantine
from lockkit.gpu.receipts import SLACK, Receipt, judged, packed, put, receipt, unpacked
from lockkit.identity import this_process
from lockkit.members import pool_name

GIB = 1 << 30
IDLE = Device("GPU-a", 0, "H100", 80 * GIB, GIB, 0, 0, ())
MINE, THEIRS, NOBODY = (DeviceProcess(pid, "bob", "train.py", 3 * GIB) for pid in (7, 8, None))


@pytest.fixture
def client():
    with lockkit.connect(f"memory://{uuid4().hex}") as made:
        yield made


@pytest.mark.parametrize(
    "before, after, outcome, leftover",
    [
        (IDLE, IDLE, "clean", 0),
        (IDLE, IDLE._replace(used=SLACK), "clean", SLACK),
        (IDLE, IDLE._replace(used=SLACK + 1), "dirty", SLACK + 1),
        (IDLE._replace(used=3 * GIB), IDLE._replace(used=3 * GIB), "clean", 0),
        (IDLE._replace(used=3 * GIB), IDLE, "clean", 0),
        (None, IDLE._replace(used=GIB), "dirty", GIB),
        (IDLE, IDLE._replace(processes=(MINE,)), "dirty", 0),
        (
            IDLE._replace(processes=(THEIRS,)),
            IDLE._replace(processes=(THEIRS._replace(memory=GIB),)),
            "clean",
            0,
        ),
        (IDLE, IDLE._replace(processes=(NOBODY,)), "dirty", 0),
        (IDLE._replace(processes=(NOBODY,)), IDLE._replace(processes=(NOBODY,)), "clean", 0),
        (IDLE, None, "unknown", None),
        (IDLE, IDLE._replace(used=None), "unknown", None),
        (IDLE, IDLE._replace(processes=None), "unknown", None),
        (IDLE, IDLE._replace(faults=("it hums",)), "unknown", None),
    ],
)
def test_a_whole_card_is_judged_by_what_it_was_at_the_grant(before, after, outcome, leftover):
    assert judged("GPU-a", before, after)[1:3] == (outcome, leftover)


@pytest.mark.parametrize(
    "processes, outcome, leftover",
    [
        ((), "clean", 0),
        ((THEIRS,), "clean", 0),
        ((THEIRS, MINE), "dirty", 3 * GIB),
        ((THEIRS, NOBODY), "unknown", None),
        (None, "unknown", None),
    ],
)
def test_a_share_is_judged_by_its_own_processes_alone(processes, outcome, leftover):
    after = IDLE._replace(used=50 * GIB, processes=processes)
    assert judged("GPU-a", IDLE, after, mine={7})[1:3] == (outcome, leftover)


def test_a_dirty_card_says_how_much_and_whose():
    report = judged("GPU-a", IDLE, IDLE._replace(used=3 * GIB, processes=(MINE,)))._replace(by="ann@box")
    assert str(report) == "left dirty by ann@box with 3 GiB in use: bob pid 7 (train.py), 3 GiB"
    assert str(Receipt("GPU-a", "clean")) == "left clean"
    assert str(Receipt("GPU-a", "unknown", by="ann@box")) == "left in an unknown state by ann@box"


FULL = Receipt("GPU-a", "dirty", GIB, ("bob pid 7",), "0123456789ab", 5, "ann@box", 1000.0, ("no torch",))


def test_a_receipt_is_kept_for_the_next_holder(client):
    assert receipt(client, "box", "GPU-a") is None
    assert put(client, "box", FULL)
    assert receipt(client, "box", "GPU-a") == FULL
    assert receipt(client, "crate", "GPU-a") is None
    assert put(client, "box", FULL._replace(fence=6, outcome="clean"))
    assert receipt(client, "box", "GPU-a").outcome == "clean"


def test_a_receipt_that_comes_late_does_not_replace_a_later_one(client):
    put(client, "box", FULL)
    assert not put(client, "box", FULL._replace(fence=4, outcome="clean"))
    assert receipt(client, "box", "GPU-a") == FULL
    assert put(client, "box", FULL)


def test_a_receipt_leaves_all_else_in_the_record_as_it_is(client):
    name = pool_name("gpu/box", "GPU-a")
    client.put_record(name, {"capacity": 81000, "v": 9}, 0)
    put(client, "box", FULL)
    value = client.record(name).value
    assert (value["capacity"], value["v"]) == (81000, 9)
    quarantine(client, "box", "GPU-a", "it hums", this_process())
    assert receipt(client, "box", "GPU-a") == FULL


def test_a_long_receipt_is_cut():
    words = tuple("x" * 1000 for _ in range(50))
    value = packed(FULL._replace(left_by=words, errors=words, by="y" * 1000))
    assert len(str(value)) < 1500
    assert unpacked("GPU-a", value).left_by == ("x" * 120,) * 3


@pytest.mark.parametrize(
    "stored",
    [1, "x", [], {}, {"outcome": "spotless"}, {"outcome": 1, "leftover": -1, "fence": True, "left_by": 3}],
)
def test_a_receipt_that_cannot_be_read_says_that_nothing_is_known(stored):
    assert unpacked("GPU-a", stored) == Receipt("GPU-a", "unknown")
